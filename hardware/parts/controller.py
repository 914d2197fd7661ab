"""The controller: decides which phases are measured, and sees readings and broadcasts only.

In phase (a, b) the array settles under w + a dw + b r v and the error unit reads E; of the readings
the controller makes dE_g and dE_z, which go over the bus to all tiles, and counts what was sent. It
knows no weight, no perturbation and no sum of a synapse.
"""

from collections.abc import Sequence

import numpy as np

from hardware.chip_tables import ErrorUnitParams
from hardware.parts.bus import Words
from perturb.trial.methods import Method
from perturb.trial.synapse import TOTALS, count

Array = np.ndarray


class Controller:
    """What is measured in a trial, and what is made of it.

    leak: share of its totals that a trial loses, as the synapses' sums do. baseline: phase of E(w),
    -1 if the method has none. stored: the trial in which E(w) was measured last, and that. totals:
    sums of the broadcasts alone, as of `synapse.TOTALS`.
    """

    def __init__(self, method: Method, params: ErrorUnitParams, leak: float):
        self.method = method
        self.params = params
        self.leak = leak
        self.baseline = method.phases.index((0, 0)) if (0, 0) in method.phases else -1
        # trials for which a measured E(w) is used
        self.every = params.baseline_every if self.baseline >= 0 else 1
        self.stored: tuple[int, float] = (-1, 0.0)
        self.totals = np.zeros(len(TOTALS))
        self._all = range(len(method.phases))
        self._others = [phase for phase in self._all if phase != self.baseline]

    def measured(self, trial: int) -> Sequence[int]:
        """The phases that a trial measures; a stored E(w) is not measured again."""
        # the first trial of each `every` measures E(w) for those after it
        return self._others if trial % self.every else self._all

    def dE(self, readings: Array) -> tuple[Array, Array]:
        """dE_g and dE_z (trials,) from readings (trials, phases)."""
        both = []
        for weights in (self.method.gradient_weights, self.method.hv_weights):
            dE = np.zeros(len(readings))
            for phase, weight in enumerate(weights):
                dE += weight * readings[:, phase]
            both.append(np.sign(dE) if self.params.one_bit else dE)
        return both[0], both[1]

    def complete(self, trial: int, readings: Array) -> Array:
        """The readings (phases,) of a trial, with E(w) as it was measured last."""
        if self.every > 1:
            if trial % self.every == 0:
                self.stored = (trial, float(readings[self.baseline]))
            readings[self.baseline] = self.stored[1]
        return readings

    def count(self, words: Words) -> None:
        """Add what was broadcast to the totals."""
        # estimates combine totals with the synapses' sums, so that both have to leak alike
        totals = ((1.0 - self.leak) * self.totals).tolist()
        self.totals[:] = count(totals, words.dE, words.s)

    def restore(self, stored: Array) -> None:
        """Go on with an E(w) that was stored, (trial, E)."""
        self.stored = (int(stored[0]), float(stored[1]))
