"""Learning rates: fixed, decaying, or measured by the runs themselves."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from perturb.curvature.eigenvalues import eigenpairs
from perturb.estimation.solution import Estimate
from perturb.networks.objective import Objective
from perturb.training.options import MOST, option
from perturb.training.rules import REACH
from perturb.trial.synapse import TOTALS

Array = np.ndarray
Estimator = Callable[
    [str, Array, int, int], Estimate
]  # (method, v, trials, seed), at the weights of a run
POWER_STEPS = 8  # of power iteration


class Measured(NamedTuple):
    """What a measured rate is measured with: estimate(method, v, number), at the weights of a run,
    of `trials` trials each; a first direction v; sigma, trials of an update, variance of a reading.
    """

    estimate: Callable[[str, Array, int], Estimate]
    v: Array
    sigma: float
    trials: int
    trials_per_update: int
    variance: float


def trace_size(trace: float, norm: float) -> float:
    """max(|tr H|, |H|_F), from below what tr |H|, the sum of the sizes of all eigenvalues, is.

    It is tr H where H has no negative eigenvalue; where it has, tr H may vanish or be negative
    while steps are limited by the eigenvalues that it is made of.
    """
    return max(abs(trace), norm)


def _measured_trace(x: Measured) -> float:
    """`trace_size` from the broadcasts of T antithetic trials, random signs.

    x = 2 dE/sigma^2 = D'HD/sigma^2 has mean tr H and variance 2 sum_{i != j} H_ij^2 + 6
    variance/sigma^4 (Hutchinson 1990), so that its variance tells |H|_F off the diagonal. No less
    than the standard error of the mean: what is below it is not known.
    """
    totals = x.estimate("antithetic", x.v, 0).statistics.totals
    # u is dE_z: of antithetic trials (E(w + D) + E(w - D))/2 - E(w)
    T, scale = x.trials, 2 / x.sigma**2
    mean, square = (
        scale * float(totals[TOTALS.index("u")]) / T,
        scale**2 * float(totals[TOTALS.index("uu")]) / T,
    )
    # unbiased over T trials; of a single one the square, which is too large rather than too small
    variance = max(square - mean**2, 0.0) * T / (T - 1) if T > 1 else square
    # 1.5: the weights of the three readings squared, 1/4 + 1/4 + 1
    return trace_size(
        mean, math.sqrt(max((variance - 1.5 * scale**2 * x.variance) / 2, variance / T))
    )


def _measured_eigenvalue(x: Measured) -> float:
    """|l| (1 + 1/K) + T/K."""
    K, v, top = x.trials_per_update, x.v, 0.0
    trace = _measured_trace(x)
    # power iteration on z^, the noise of which changes from step to step
    for step in range(POWER_STEPS):
        found = x.estimate("difference", v, step + 1)
        size = float(np.linalg.norm(found.hv))
        top = float(v @ found.hv)  # |z| is inflated by noise, v.z is not
        v = found.hv / size if size > 0 else v
    return abs(top) * (1 + 1 / K) + trace / K


def _trace(objective: Objective, w: Array, g: Array) -> float:
    trace, square = 0.0, 0.0
    # H comes in blocks of columns (n, c) and need not fit into memory as a whole
    for columns, block in objective.hessian_columns(w):
        trace += float(np.diag(block[columns]).sum())
        square += float((block**2).sum())
    return trace_size(trace, math.sqrt(square))


def _eigenvalue(objective: Objective, w: Array, g: Array) -> float:
    found = eigenpairs(objective, w, k=1, which="magnitude").values
    return abs(float(found[0])) if found.size else math.nan


def _along(objective: Objective, w: Array, g: Array) -> float:
    return abs(float(g @ objective.hvp(w, g))) / float(g @ g) if g.any() else 0.0


class Rate(NamedTuple):
    """A way to measure the rate: exact(objective, w, g), the stiffness whose inverse it is, from
    exact derivatives; measured, the same from estimates; and of which methods these are, how often.
    every: whether at every update, else every `tune_every`. A rate that is fixed has none of these;
    "line" is `parabolic_step`.
    """

    exact: Callable[[Objective, Array, Array], float] | None = None
    measured: Callable[[Measured], float] | None = None
    estimates: Mapping[str, int] = {}
    every: bool = False


RATES = {
    "fixed": Rate(),
    "trace": Rate(_trace, _measured_trace, {"antithetic": 1}),
    "eigenvalue": Rate(
        _eigenvalue, _measured_eigenvalue, {"antithetic": 1, "difference": POWER_STEPS}
    ),
    "line": Rate(_along, every=True),
}


@dataclass(frozen=True, kw_only=True)
class RateOptions:
    """The options of a plan that are of its learning rate, see `plan.Plan`."""

    rate: str = option(
        "fixed", "of learning: fixed, it is eta; or measured by the chip itself", among=RATES
    )
    eta: float = option(0.1, "learning rate; where it is measured, a factor of it", gt=0)
    decay: float = option(
        0.0, "updates after which the rate is halved, eta / (1 + update/decay); 0 = constant", ge=0
    )
    rate_exponent: float = option(
        0.0,
        "alpha of the rate eta / (A + update + 1)^alpha (Spall 1998: 0.602); 0 = constant",
        ge=0,
        le=1,
    )
    rate_delay: float = option(0.0, "A of that rate (Spall 1998: a tenth of all updates)", ge=0)
    sigma_exponent: float = option(
        0.0,
        "gamma of the amplitude sigma / (update + 1)^gamma (Spall 1998: 0.101); 0 = constant",
        ge=0,
        le=1,
    )
    tune_every: int = option(
        1000, "updates after which a measured rate is measured anew", ge=1, le=MOST
    )
    tune_trials: int = option(100, "trials of each such measurement", ge=1, le=MOST)

    def divisor(self, update: Any) -> Any:
        """What eta is divided by at an update, or at each of an array of them.

        Parameters
        ----------
        update : int or array

        Returns
        -------
        float or array
            1 + update/decay, or (A + update + 1)^alpha.
        """
        if self.rate_exponent:
            return (self.rate_delay + update + 1) ** self.rate_exponent
        return 1 + update / self.decay if self.decay else 1.0

    @property
    def first_rate(self) -> float:
        """The rate of the first update, where it is not measured."""
        return self.eta / float(self.divisor(0))

    def measures_rate(self, update: int) -> bool:
        """Whether an update begins with a measurement of the rate.

        Parameters
        ----------
        update : int

        Returns
        -------
        bool
        """
        rate = RATES[self.rate]
        return rate.every or (rate.exact is not None and update % self.tune_every == 0)


def rate_of(sigma: float, stiffness: float, g: Array) -> float:
    """1/stiffness, but by no more than makes a step along g `REACH` times as long as a
    perturbation; NaN if both are unknown.
    """
    size = float(np.linalg.norm(g))
    # |D| = sigma sqrt(n) of an rms perturbation sigma
    most = REACH * sigma * math.sqrt(g.size) / size if size > 0 else math.inf
    rate = min(1 / stiffness if stiffness > 0 else math.inf, most)
    return rate if math.isfinite(rate) else math.nan


def parabolic_step(sigma: float, p: Array, measured: Callable[[Array], Array]) -> float:
    """The way along -p to the minimum of the parabola through three readings of E on all patterns;
    0 where E rises along -p.

    Where the parabola opens downward, as far on as its top lies behind: the size of the curvature
    is what counts, as in saddle-free Newton steps (Dauphin et al. 2014). At most `REACH`
    perturbations far, as where E is a straight line. measured: E (3,) at displacements (3, n) of
    the weights.
    """
    size = float(np.linalg.norm(p))
    if size == 0:
        return 0.0
    # r p is as long as a perturbation
    r = sigma * math.sqrt(p.size) / size
    E = measured(np.array([r * p, 0.0 * p, -r * p]))
    curvature, slope = float(E[0] - 2 * E[1] + E[2]) / r**2, float(E[0] - E[2]) / (2 * r)
    # slope is taken out of min(slope/|curvature|, REACH r), which holds for a curvature of 0 too
    return (
        slope * min(1 / abs(curvature) if curvature else math.inf, REACH * r / slope)
        if slope > 0
        else 0.0
    )
