"""Learning rates: fixed, decaying, or measured by the runs themselves."""

import math
from collections.abc import Callable

import numpy as np

from perturb.errors import InputError
from perturb.estimation.solution import Estimate
from perturb.seeds import derive_seed
from perturb.training.plan import POWER_STEPS, REACH, Plan, State
from perturb.training.rules import random_signs
from perturb.trial.synapse import TOTALS

Array = np.ndarray
Estimator = Callable[
    [str, Array, int, int], Estimate
]  # (method, v, trials, seed), at the weights of a run


# ---- rates


def trace_size(trace: float, norm: float) -> float:
    """max(|tr H|, |H|_F), from below what tr |H|, the sum of the sizes of all eigenvalues, is.

    It is tr H where H has no negative eigenvalue; where it has, tr H may vanish or be negative
    while steps are limited by the eigenvalues that it is made of.
    """
    return max(abs(trace), norm)


def measured_trace(plan: Plan, totals: Array, variance: float) -> float:
    """`trace_size` from the broadcasts of T antithetic trials, random signs; variance: of a reading
    of E, where it is known.

    x = 2 dE/sigma^2 = D'HD/sigma^2 has mean tr H and variance 2 sum_{i != j} H_ij^2 + 6
    variance/sigma^4 (Hutchinson 1990), so that its variance tells |H|_F off the diagonal. No less
    than the standard error of the mean: what is below it is not known.
    """
    T, scale = plan.tune_trials, 2 / plan.sigma**2
    mean, square = (
        scale * float(totals[TOTALS.index("u")]) / T,
        scale**2 * float(totals[TOTALS.index("uu")]) / T,
    )
    variance_of_trace = max(square - mean**2, 0.0) * T / (T - 1) if T > 1 else square
    return trace_size(
        mean,
        math.sqrt(max((variance_of_trace - 1.5 * scale**2 * variance) / 2, variance_of_trace / T)),
    )


def measured_stiffness(
    plan: Plan, update: int, run: int, n: int, estimator: Estimator, variance: float
) -> float:
    """What the stable learning rate is the inverse of, T = `measured_trace` or |l| (1 + 1/K) + T/K,
    from estimates that take `Plan.evaluations_of_tuning`.
    """
    K, seed = plan.trials_per_update, plan.seed_of(run)
    v = random_signs(derive_seed(seed, "power"), update, n) / math.sqrt(n)
    found = estimator("antithetic", v, plan.tune_trials, derive_seed(seed, "rate", update, 0))
    trace = measured_trace(plan, found.statistics.totals, variance)
    if plan.rate == "trace":
        return trace
    top = 0.0
    for step in range(POWER_STEPS):
        found = estimator(
            "difference", v, plan.tune_trials, derive_seed(seed, "rate", update, step + 1)
        )
        size = float(np.linalg.norm(found.hv))
        top = float(v @ found.hv)  # |z| is inflated by noise, v.z is not
        v = found.hv / size if size > 0 else v
    return abs(top) * (1 + 1 / K) + trace / K


def set_rate(
    plan: Plan, state: State, run: int, update: int, g: Array, estimator: Estimator, variance: float
) -> None:
    """Measure the learning rate of a run anew, for steps along g as it is; it stays where E is so
    flat that nothing can be measured. variance: of a reading of E.
    """
    try:
        stiffness = measured_stiffness(plan, update, run, g.size, estimator, variance)
    except InputError:
        if update == 0:
            raise
        return
    if math.isfinite(rate := rate_of(plan, stiffness, g)):
        state.memory["eta"][run] = rate


def rate_of(plan: Plan, stiffness: float, g: Array) -> float:
    """1/stiffness, but by no more than makes a step along g `REACH` times as long as a
    perturbation; NaN if both are unknown.
    """
    size = float(np.linalg.norm(g))
    most = REACH * plan.sigma * math.sqrt(g.size) / size if size > 0 else math.inf
    rate = min(1 / stiffness if stiffness > 0 else math.inf, most)
    return rate if math.isfinite(rate) else math.nan


def parabolic_step(plan: Plan, p: Array, measured: Callable[[Array], Array]) -> float:
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
    r = plan.sigma * math.sqrt(p.size) / size
    E = measured(np.array([r * p, 0.0 * p, -r * p]))
    curvature, slope = float(E[0] - 2 * E[1] + E[2]) / r**2, float(E[0] - E[2]) / (2 * r)
    return (
        slope * min(1 / abs(curvature) if curvature else math.inf, REACH * r / slope)
        if slope > 0
        else 0.0
    )


def rates_at(plan: Plan, state: State, update: int) -> Array:
    """The learning rates of an update, (R,)."""
    rates = (
        np.full(len(state.w), plan.eta) if plan.rate == "fixed" else plan.eta * state.memory["eta"]
    )
    return rates / (1 + update / plan.decay) if plan.decay else rates
