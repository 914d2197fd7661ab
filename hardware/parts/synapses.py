"""Synapses: their sums, and what they make of a broadcast.

A synapse applies `perturb.trial.synapse.accumulate` to its own dw, its own v and the words; what is
here is what circuits add to that: a leak of the sums, an offset of the multiplier, a range and a
resolution of the sums, and synapses that do not work.
"""

import numpy as np

from hardware.chip_tables import SynapseParams
from hardware.parts.bus import Words
from hardware.parts.die import Health
from perturb.estimation.design import Design
from perturb.kernels.float64 import add_broadcast
from perturb.trial.methods import REGRESSORS
from perturb.trial.synapse import (
    SUMS,
    curvature_along,
    put_along,
    solve_least_squares,
    solve_moments,
)

Array = np.ndarray
Constants = tuple[Array, float, int, float]  # v (n,), V, kind and kappa of `synapse.accumulate`
PRODUCTS = [SUMS.index("xy"), SUMS.index("qu")]


class Synapses:
    """Some synapses of a chip, and their sums (rows of `synapse.SUMS`, n).

    v (n,): the direction. V: |v|^2 of all synapses. multiplier (n,): the offset with which each
    multiplies dw. health: which of them work.
    """

    def __init__(
        self,
        params: SynapseParams,
        design: Design,
        multiplier: Array,
        health: Health,
        v: Array,
        V: float,
    ):
        self.params = params
        self.design = design
        self.health = health
        self.multiplier = multiplier if params.offset_mismatch else None
        self.sums = np.zeros((len(SUMS), v.size))
        # whether the sums are those of the rule alone, however many words come at once
        self.plain = health.perfect and not (params.leak or params.sum_range)
        self.direct(v, V)

    def direct(self, v: Array, V: float) -> None:
        """Estimate z along another direction from now on."""
        self.v = v
        self.V = V
        kind = REGRESSORS[self.design.method.regressor]
        self.constants: Constants = (v, V, kind, self.design.kappa)
        # rms of what z is regressed on, over sigma: s = D.v has the rms sigma |v|
        regressor = {
            "dw": 1.0,
            "s_dw": self.design.sigma * V**0.5,
            "b": self.design.sigma / V**0.5 if V else 0.0,
            "none": 1.0,
        }[self.design.method.regressor]
        # rms of dw and of what z is regressed on
        self._rms = self.design.sigma * np.array([[1.0], [regressor]])

    def begin(self, v: Array) -> None:
        """Begin new sums, along v (n,): of all synapses of a chip."""
        self.direct(v, float(v @ v))
        self.sums[:] = 0.0

    def take(self) -> Array:
        """The sums, and begin new ones."""
        sums = self.sums.copy()
        self.sums[:] = 0.0
        return sums

    def multiplied(self, known: Array) -> Array:
        """What a synapse multiplies with, for the perturbation that it knows."""
        return known if self.multiplier is None else known + self.multiplier

    def hear(
        self, known: Array, constants: Constants, words: Words, lost: Array | None = None
    ) -> None:
        """The words of a trial meet the perturbations known (n,).

        constants: as they were when the perturbation was made. lost (n,): which synapses the words
        have not reached; none, if left out.
        """
        dw = self.multiplied(known)
        y, u = words.dE
        v, V, kind, kappa = constants
        if self.plain and lost is None:
            add_broadcast(self.sums, dw, y, u, words.s, v, V, kind, kappa)
            return
        params = self.params
        health = self.health
        sums = self.sums
        # a circuit leaks whether words come or not
        if params.leak:
            sums *= 1.0 - params.leak
        if not health.perfect:
            # without power the sums are lost, and nothing is added to them
            if words.trial >= health.power_trial:
                sums[:, health.unpowered] = 0.0
            dw = np.where(health.working(words.trial), dw, 0.0)
        before = sums[PRODUCTS]
        # sums are computed for all at once, and put back where no words came
        kept = None if lost is None else sums[:, lost]
        add_broadcast(sums, dw, y, u, words.s, v, V, kind, kappa)
        if lost is not None:
            sums[:, lost] = kept
        if params.sum_range:
            self._saturate(before)

    def _saturate(self, before: Array) -> None:
        """Round what has been added to the sums `before`, and hold them within their range."""
        params = self.params
        # the sums that the estimate is made of; the others serve its standard errors and are the
        # emulator's
        reach = params.sum_range * self._rms
        added = self.sums[PRODUCTS] - before
        if params.sum_bits:
            # a range of 0 is of z along v = 0, whose sums stay 0
            step = np.where(reach > 0, 2 * reach / 2**params.sum_bits, 1.0)
            added = np.floor(added / step + 0.5) * step
        self.sums[PRODUCTS] = np.clip(before + added, -reach, reach)

    def solve(self, trials: int, totals: Array) -> tuple[Array, Array]:
        """g and z (n,) from the synapses' own sums, the number of trials, and the controller's
        totals of what it has broadcast.
        """
        method = self.design.method
        K = float(trials)
        with np.errstate(divide="ignore", invalid="ignore"):
            if method.fit == "moments":
                g, z, *_ = solve_moments(self.sums, totals, K, method.centred, *self.design.scales)
            else:
                g, z, *_ = solve_least_squares(self.sums, totals, K, method.centred)
            # c = v.z = Cov(dE, s^2)/sigma^4, which the broadcasts tell: README of `perturb`, Theory
            if method.correction == "along":
                c, _ = curvature_along(totals, K, self.design.scales[1])
                z, _ = put_along(z, 0.0, self.v, self.V, c, 0.0)
        return g, z
