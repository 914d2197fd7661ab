"""The sums of a chip's synapses and of its controller, computed from what the events report.

No time depends on a value, so the numbers of many trials are computed at once: when they are asked
for, or when enough trials have been collected. Their bits do not depend on how many that are.
"""

from collections.abc import Sequence

import numpy as np

from hardware.datapath import Broadcasts, Datapath
from hardware.parts.tile import Tile
from perturb.trial.synapse import SUMS, TOTALS

Array = np.ndarray
MIN_TRIALS, MAX_TRIALS = 4, 256  # trials whose numbers are computed at once
MAX_PERTURBATIONS, MAX_READINGS = (
    2**15,
    2**20,
)  # numbers of one batch: they stay in cache, and within bounds


class Accumulators:
    """After `flush`: synapses (rows of `synapse.SUMS`, n), totals as of `synapse.TOTALS`; met (n,)
    and dE, the perturbations that the last broadcast met, and its dE_g. first: the first trial.
    """

    def __init__(self, datapath: Datapath, tiles: Sequence[Tile], first: int):
        n = datapath.v.size
        self._datapath = datapath
        self._tiles = tiles
        self.synapses = np.zeros((len(SUMS), n))
        self.totals = np.zeros(len(TOTALS))
        self.met = np.zeros(n)
        self.dE = 0.0
        self._first = self._next = (
            first  # trials that have not been summed, and not even been evaluated
        )
        self._unsummed = Broadcasts(np.zeros((0, n)), *np.zeros((3, 0)))
        # of a periodic code, what was broadcast of the trials summed, (3, trials) each; and whether
        # it met their perturbations
        self.broadcasts: list[Array] | None = [] if datapath.design.code.periodic else None
        self.matched = True
        self._due: list[
            list[tuple[int, slice]]
        ] = []  # of each broadcast to be summed: whose perturbations it met, and where
        design = datapath.design
        readings = len(design.method.phases) * (
            datapath.objective.n_patterns if design.presentation == "batch" else 1
        )
        self._batch_size = max(
            1, min(MAX_TRIALS, max(MIN_TRIALS, MAX_PERTURBATIONS // n), MAX_READINGS // readings)
        )

    def add(self, met: dict[int, int]) -> None:
        """The next broadcast has reached all tiles. met: of each, the trial whose perturbation
        it met there.
        """
        trials = set(met.values())
        if len(trials) == 1:
            self._due.append([(trials.pop(), slice(None))])
        else:
            self._due.append(
                [(met[tile.number], slice(tile.start, tile.stop)) for tile in self._tiles]
            )
        if len(self._due) >= self._batch_size:
            self.flush()

    def evaluate(self, stop: int) -> None:
        """Evaluate the trials before `stop` that have not been: now, with the weights, and the
        direction v, as they are.
        """
        if trials := range(self._next, stop):
            new = self._datapath.evaluated(trials)
            if len(self._unsummed.s):
                new = Broadcasts(*map(np.concatenate, zip(self._unsummed, new, strict=True)))
            self._unsummed = new
            self._next = stop

    def flush(self) -> None:
        """Make all sums."""
        if not self._due:
            return
        trials = range(self._first, self._first + len(self._due))
        self.evaluate(trials.stop)
        broadcasts, self._unsummed = (
            Broadcasts(*(array[part] for array in self._unsummed))
            for part in (slice(len(trials)), slice(len(trials), None))
        )
        if any(met != [(trial, slice(None))] for trial, met in zip(trials, self._due, strict=True)):
            broadcasts = broadcasts._replace(known=self._known())
            self.matched = False
        self._datapath.accumulate(self.synapses, self.totals, trials, broadcasts)
        if self.broadcasts is not None:
            self.broadcasts.append(np.array(broadcasts[1:]))
        self.met = broadcasts.known[-1]
        self.dE = float(broadcasts.y[-1])
        self._first = trials.stop
        self._due.clear()

    def _known(self) -> Array:
        """What the synapses know of the perturbations that each broadcast met, (trials, n):
        replayed.
        """
        replayed = list({trial for met in self._due for trial, _ in met})
        known = np.empty((len(self._due), self.met.size))
        rows = dict(
            zip(
                replayed,
                self._datapath.known(self._datapath.drawn(replayed), replayed),
                strict=True,
            )
        )
        for row, met in zip(known, self._due, strict=True):
            for trial, part in met:
                row[part] = rows[trial][part]
        return known

    # ---- to be stored, and gone on from

    def arrays(self) -> dict[str, Array]:
        """The sums so far; and of trials that have been evaluated but not summed: number, dE_g,
        dE_z and dw.v.
        """
        _, y, u, s = self._unsummed
        return {
            "sums": self.synapses.copy(),
            "sent": np.column_stack([np.arange(self._first, self._next), y, u, s]),
        }

    def restore(self, parts: dict[str, Array]) -> None:
        """Go on with these before the first trial."""
        self.synapses[:] = parts["sums"]
        numbers, *broadcasts = np.ascontiguousarray(parts["sent"].T)
        self._first -= len(numbers)
        if trials := range(self._first, self._next):
            self._unsummed = Broadcasts(
                self._datapath.known(self._datapath.drawn(trials), trials), *broadcasts
            )
