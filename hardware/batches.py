"""The trials of a chip, many at a time and without events: the laws of its parts, on arrays with a
row for each trial or evaluation. Every row is the same whichever others come with it.

The events (`hardware.event_chip`) share the parts' laws with this, but none of its bookkeeping: who
meets what, in which order, and when. Tests hold that both give the same sums.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hardware.assembly import Parts
from hardware.parts.bus import Words
from hardware.parts.draws import Keys
from hardware.parts.synapses import Synapses
from hardware.parts.tile import sensed
from perturb.estimation.statistics import Statistics
from perturb.kernels.float64 import add_broadcasts

Array = np.ndarray
BLOCK = 64  # trials computed at a time


class Broadcasts(NamedTuple):
    """Of some trials: dw as the synapses know it (trials, n), and what is broadcast of each:
    dE_g, dE_z and dw.v (trials,).
    """

    known: Array
    dE_g: Array
    dE_z: Array
    s: Array


class Batches:
    """Blocks of trials of a chip.

    parts: with circuits of their own. v (n,): the direction. start_ns(trial): when a trial starts,
    which leaking and drifting weights depend on. perturb_every: trials that a perturbation stands.
    """

    def __init__(
        self, parts: Parts, v: Array, start_ns: Callable[[int], int], perturb_every: int = 1
    ):
        self.parts = parts
        self.start_ns = start_ns
        self.perturb_every = perturb_every
        self.synapses = Synapses(
            parts.params.synapse, parts.design, parts.die.multiplier, parts.health, v, float(v @ v)
        )
        self._tiles = parts.tile_slices()
        self.arrived = np.ones(v.size, dtype=bool)  # whom the words of the last trial have reached

    # ---- perturbations

    def drawn(self, trials: Sequence[int]) -> Array:
        """dw of trials as the code makes it, (trials, n); 0 where a synapse does not work."""
        design = self.parts.design
        # trials that share a perturbation share its number
        numbers = np.array(trials) // self.perturb_every
        D = design.code.draw_each(design.n_weights, design.sigma, design.seed, numbers)
        return self.parts.health.masked(D, trials)

    def evaluations(self, trials: Sequence[int]) -> list[tuple[int, int]]:
        """The evaluations (trial, phase) of trials, in order."""
        measured = self.parts.controller.measured
        return [(trial, phase) for trial in trials for phase in measured(trial)]

    def targets(self, D: Array, trials: Sequence[int]) -> Array:
        """How far the weights are displaced in each evaluation of trials once everything has
        settled, (evaluations, n).
        """
        parts = self.parts
        design = parts.design
        health = parts.health
        rv = health.masked(design.r * self.synapses.v, trials)
        works = health.perfect or np.array([health.working(trial) for trial in trials])
        # a phase is computed for all trials at once, and each evaluation takes its row
        phases = [parts.drivers.target(phase, D, rv, works) for phase in design.method.phases]
        rows = [phases[phase][trial - trials[0]] for trial, phase in self.evaluations(trials)]
        return np.array(rows)

    def displacements(self, first: int, last: int) -> tuple[Array, Array]:
        """dw of trials first..last-1, (trials, n), and how far the weights are displaced in each of
        their evaluations, (m, n), from as many evaluations before as still count.
        """
        drivers = self.parts.drivers
        begin = first
        before = 0
        # back until nothing that is older is left in the displacement
        while before < drivers.horizon and begin > 0:
            begin -= 1
            before += len(self.parts.controller.measured(begin))
        trials = range(begin, last)
        D = self.drawn(trials)
        return D[first - begin :], settled(self.targets(D, trials), drivers.residual)[before:]

    # ---- evaluations and broadcasts

    def readings(self, keys: Keys, displaced: Array) -> Array:
        """E (m,) as the error unit reads it in evaluations (trial, phase), with the weights
        displaced, (m, n).
        """
        array = self.parts.array
        store = array.weights
        stored = store.stored
        if store.changes:
            # weights that leak or drift are as they are when the trial starts
            trials = list(dict.fromkeys(trial for trial, _ in keys))
            starts = [self.start_ns(trial) for trial in trials]
            at = dict(zip(trials, store.weights_at(starts, trials), strict=True))
            stored = np.array([at[trial] for trial, _ in keys])
        return self.parts.error_unit.read(array.errors(stored, displaced, keys), keys)

    def broadcasts(self, trials: range, D: Array, displaced: Array) -> Broadcasts:
        """What trials with the perturbations D broadcast, where their evaluations displace the
        weights so far.
        """
        parts = self.parts
        design = parts.design
        keys = self.evaluations(trials)
        E = np.full((len(trials), len(design.method.phases)), np.nan)
        # places (trial, phase); a phase that is not measured stays NaN
        E[tuple((np.array(keys) - (trials.start, 0)).T)] = self.readings(keys, displaced)
        # E(w) of the one trial in `every` that measures it, for the others too
        if parts.controller.every > 1:
            E[:, parts.controller.baseline] = [
                self._baseline(trial, E[trial - trials.start]) for trial in trials
            ]
        dE_g, dE_z = (parts.bus.dE(dE) for dE in parts.controller.dE(E))
        if (wrong := ~np.isfinite(dE_g + dE_z)).any():
            raise design.not_finite(trials[int(np.argmax(wrong))])
        known = sensed(design, D, np.array(trials) // self.perturb_every)
        s = np.zeros(len(trials))
        if design.method.needs_s:
            s = parts.bus.s(parts.line.total(known * self.synapses.v, trials))
        return Broadcasts(known, dE_g, dE_z, s)

    def _baseline(self, trial: int, readings: Array) -> float:
        """E(w) for a trial: as it has measured it, or as the last one did, which may have to be
        replayed.
        """
        controller = self.parts.controller
        begin = trial - trial % controller.every
        # measured in an earlier batch or call, and not stored here
        if begin < trial and controller.stored[0] != begin:
            keys = self.evaluations([begin])
            at = [phase for _, phase in keys].index(controller.baseline)
            _, displaced = self.displacements(begin, begin + 1)
            replayed = np.full(len(readings), np.nan)
            replayed[controller.baseline] = self.readings(
                keys[at : at + 1], displaced[at : at + 1]
            )[0]
            controller.complete(begin, replayed)
        return controller.complete(trial, readings)[controller.baseline]

    # ---- sums

    def accumulate(self, trials: range, broadcasts: Broadcasts) -> None:
        """Change the sums of the synapses and the controller's totals by the broadcasts of
        trials, in order.
        """
        synapses = self.synapses
        totals = self.parts.controller.totals
        # where nothing leaks, clips, fails or is lost, one compiled call sums all trials
        if synapses.plain and not self.parts.params.bus.drop_probability:
            known = synapses.multiplied(broadcasts.known)
            add_broadcasts(synapses.sums, totals, known, *broadcasts[1:], *synapses.constants)
            return
        for trial, known, dE_g, dE_z, s in zip(
            trials, broadcasts.known, *(a.tolist() for a in broadcasts[1:]), strict=True
        ):
            words = Words(trial, (dE_g, dE_z), s)
            self.arrived = self._arrived(trial)
            synapses.hear(known, synapses.constants, words, ~self.arrived)
            self.parts.controller.count(words)

    def _arrived(self, trial: int) -> Array:
        """Which synapses get the broadcast of a trial, (n,)."""
        arrived = np.ones(self.synapses.v.size, dtype=bool)
        if self.parts.params.bus.drop_probability:
            for number, part in enumerate(self._tiles):
                arrived[part] = self.parts.bus.arrives(trial, number)
        return arrived

    def run(self, statistics: Statistics, trials: int) -> None:
        """Add the next `trials` trials to `statistics`, in order, as the events would."""
        # other calls may have begun these sums, or the events
        sums, totals = statistics.closed
        self.synapses.sums[:] = sums
        self.parts.controller.totals[:] = totals
        last = statistics.next_trial + trials
        while (first := statistics.next_trial) < last:
            begin = first // BLOCK * BLOCK
            stop = min(last, begin + BLOCK)
            # from the start of the block, so that what is left of earlier perturbations is the same
            # however a run is split
            D, displaced = self.displacements(begin, stop)
            new = range(first, stop)
            # evaluations before `first` were for what is left of their displacements
            done = len(self.evaluations(range(begin, first)))
            broadcasts = self.broadcasts(new, D[first - begin :], displaced[done:])
            self.accumulate(new, broadcasts)
            if statistics.periods:
                statistics.periods.receive(first, np.array(broadcasts[1:]), self.synapses.v)
            statistics.extend(stop - first)
        sums[:] = self.synapses.sums
        totals[:] = self.parts.controller.totals

    def next(self, trials: range) -> Broadcasts:
        """What the trials broadcast that follow those before, during which no weight is written;
        and their sums.
        """
        D = self.drawn(trials)
        displaced = [self.parts.drivers.settle(target) for target in self.targets(D, trials)]
        broadcasts = self.broadcasts(trials, D, np.array(displaced))
        self.accumulate(trials, broadcasts)
        return broadcasts


def settled(targets: Array, residual: float) -> Array:
    """d := residual d + (1 - residual) target at every evaluation, from 0: (evaluations, n)."""
    if not residual:
        return targets
    from scipy.signal import lfilter  # much to load, for perturbations that do not settle alone

    # y_k = residual y_k-1 + (1 - residual) x_k along the evaluations
    return lfilter([1.0 - residual], [1.0, -residual], targets, axis=0)
