"""What an update takes of a plan and of the state of its runs: directions, rates, steps."""

import math
from collections.abc import Callable

import numpy as np

from perturb.errors import InputError
from perturb.estimation.solution import Estimate
from perturb.seeds import derive_seed
from perturb.training.plan import Plan, State
from perturb.training.rates import RATES, Estimator, Measured, rate_of
from perturb.training.rules import REACH, RULES, ConjugateGradients, random_signs

Array = np.ndarray


def direction(plan: Plan, run: int, update: int, n: int) -> Array:
    """v (n,) of the trials that g of an update is from: random signs where the rule uses their
    z (`Plan.uses_signs`), else 0.
    """
    if not plan.uses_signs:
        return np.zeros(n)
    # a seed of its own: v must not repeat what the code draws as D
    return random_signs(derive_seed(plan.seed_of(run), "direction"), update, n)


def begin_steps(plan: Plan, G: Array) -> ConjugateGradients:
    """Of the rule "newton-cg", from g (R, n)."""
    return ConjugateGradients(G, plan.damping, REACH * plan.sigma * math.sqrt(G.shape[1]))


def curvature_of(plan: Plan, G: Array, Z: Array, product: Callable[[int, Array], Array]) -> Array:
    """What the rule knows of H besides g: z (R, n) of the trials that g is from, or p from
    products z = Hv of its own.
    """
    if RULES[plan.rule].z != "products":
        return Z
    steps = begin_steps(plan, G)
    # product number k has the k-th K trials behind those of g
    for number in range(1, plan.cg_steps + 1):
        steps.go_on(product(number, steps.d))
    return steps.p


def set_rate(
    plan: Plan, state: State, run: int, update: int, g: Array, estimator: Estimator, variance: float
) -> None:
    """Measure the learning rate of a run anew, for steps along g as it is; it stays where E is so
    flat that nothing can be measured. variance: of a reading of E.
    """
    measured = RATES[plan.rate].measured
    assert measured is not None
    seed, trials = plan.seed_of(run), plan.tune_trials

    def estimate(method: str, v: Array, number: int) -> Estimate:
        return estimator(method, v, trials, derive_seed(seed, "rate", update, number))

    # |v| = 1; another start of power iteration whenever the rate is measured
    v = random_signs(derive_seed(seed, "power"), update, g.size) / math.sqrt(g.size)
    x = Measured(estimate, v, plan.sigma, trials, plan.trials_per_update, variance)
    try:
        rate = rate_of(plan.sigma, measured(x), g)
    except InputError:
        # at the first update sigma is too small; later E has become flat, and the old rate serves
        if update == 0:
            raise
        return
    if math.isfinite(rate):
        state.memory["eta"][run] = rate


def rates_at(plan: Plan, state: State, update: int) -> Array:
    """The learning rates of an update, (R,)."""
    measured = state.memory["eta"] if RATES[plan.rate].exact else np.ones(len(state.w))
    return plan.eta * measured / plan.divisor(update)
