"""The sums of a chip's synapses and of its controller, made of what the events report.

No time depends on a value, so the numbers of many trials are made at once: when somebody asks for
them, or when enough have come together. Their bits do not depend on how many that are.
"""

from collections.abc import Sequence

import numpy as np

from hardware.tile import Tile
from hardware.values import Broadcasts, Values
from perturb.trial.synapse import SUMS, TOTALS

Array = np.ndarray
FEWEST, MOST = 4, 256  # trials whose numbers are made at once
PERTURBATIONS, READINGS = (
    2**15,
    2**20,
)  # of as many trials as come to so many: what is made stays in cache, and within bounds


class Sums:
    """After `settle`: synapses (rows of `synapse.SUMS`, n), totals as of `synapse.TOTALS`; met (n,)
    and dE, the perturbations that the last broadcast met, and its dE_g. first: the first trial.
    """

    def __init__(self, values: Values, tiles: Sequence[Tile], first: int):
        n = values.v.size
        self._values = values
        self._tiles = tiles
        self.synapses = np.zeros((len(SUMS), n))
        self.totals = np.zeros(len(TOTALS))
        self.met = np.zeros(n)
        self.dE = 0.0
        self._first = self._next = (
            first  # trials that have not been summed, and not even been evaluated
        )
        self._between = Broadcasts(np.zeros((0, n)), *np.zeros((3, 0)))
        # of a periodic code, what was broadcast of the trials summed, (3, trials) each; and whether
        # it met their perturbations
        self.heard: list[Array] | None = [] if values.design.code.periodic else None
        self.sound = True
        self._due: list[
            list[tuple[int, slice]]
        ] = []  # of each broadcast to be summed: whose perturbations it met, and where
        design = values.design
        readings = len(design.method.phases) * (
            values.objective.n_patterns if design.presentation == "batch" else 1
        )
        self._together = max(1, min(MOST, max(FEWEST, PERTURBATIONS // n), READINGS // readings))

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
        if len(self._due) >= self._together:
            self.settle()

    def evaluate(self, stop: int) -> None:
        """Evaluate the trials before `stop` that have not been: now, with the weights, and the
        direction v, as they are.
        """
        if trials := range(self._next, stop):
            new = self._values.evaluated(trials)
            if len(self._between.s):
                new = Broadcasts(*map(np.concatenate, zip(self._between, new, strict=True)))
            self._between = new
            self._next = stop

    def settle(self) -> None:
        """Make all sums."""
        if not self._due:
            return
        trials = range(self._first, self._first + len(self._due))
        self.evaluate(trials.stop)
        heard, self._between = (
            Broadcasts(*(array[part] for array in self._between))
            for part in (slice(len(trials)), slice(len(trials), None))
        )
        if any(met != [(trial, slice(None))] for trial, met in zip(trials, self._due, strict=True)):
            heard = heard._replace(known=self._known())
            self.sound = False
        self._values.accumulate(self.synapses, self.totals, trials, heard)
        if self.heard is not None:
            self.heard.append(np.array(heard[1:]))
        self.met = heard.known[-1]
        self.dE = float(heard.y[-1])
        self._first = trials.stop
        self._due.clear()

    def _known(self) -> Array:
        """What the synapses know of the perturbations that each broadcast met, (trials, n):
        replayed.
        """
        replayed = list({trial for met in self._due for trial, _ in met})
        known = np.empty((len(self._due), self.met.size))
        rows = dict(
            zip(replayed, self._values.known(self._values.drawn(replayed), replayed), strict=True)
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
        _, y, u, s = self._between
        return {
            "sums": self.synapses.copy(),
            "sent": np.column_stack([np.arange(self._first, self._next), y, u, s]),
        }

    def restore(self, parts: dict[str, Array]) -> None:
        """Go on with these before the first trial."""
        self.synapses[:] = parts["sums"]
        numbers, *heard = np.ascontiguousarray(parts["sent"].T)
        self._first -= len(numbers)
        if trials := range(self._first, self._next):
            self._between = Broadcasts(
                self._values.known(self._values.drawn(trials), trials), *heard
            )
