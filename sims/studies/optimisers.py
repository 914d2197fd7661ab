"""Optimisers that the study "uses" sets side by side: each yields what it has spent, in
gradient-equivalents, and its weights.
"""

from collections.abc import Iterator

import numpy as np

from perturb import curvature
from perturb.networks.objective import Objective
from sims.problem import (
    Array,
)

State = tuple[float, Array]  # gradient-equivalents spent, weights


def gradient_descent(objective: Objective, w: Array, budget: float) -> Iterator[State]:
    """w := w - g / lambda_max, with |lambda_max| by power iteration every 50 updates, at most 20
    products.
    """
    spent = 0.0
    rate = 1.0
    for update in range(int(budget)):
        if update % 50 == 0:
            top = curvature.power_iteration(objective, w, tolerance=0.02, max_products=20)
            # half of the largest stable rate, which is 2/lambda_max
            rate = 1 / abs(float(top.values[0]))
            # a Hessian-vector product costs as much as a gradient
            spent = spent + top.n_products
        w = w - rate * objective.gradient(w)
        spent = spent + 1
        yield spent, w
        if spent >= budget:
            return


def l_bfgs(objective: Objective, w: Array, budget: float) -> Iterator[State]:
    """SciPy's L-BFGS-B with ten corrections; a state for every point where it asks for E and its
    gradient.
    """
    from scipy.optimize import minimize  # late: much to load, and not for every run

    asked: list[Array] = []

    def both(w: Array) -> tuple[float, Array]:
        asked.append(w.copy())
        return objective.error(w), objective.gradient(w)

    # no tolerance ends it: the budget does
    options = {
        "maxfun": int(budget),
        "maxiter": int(budget),
        "maxcor": 10,
        "ftol": 0.0,
        "gtol": 0.0,
    }
    minimize(both, w, jac=True, method="L-BFGS-B", options=options)
    # SciPy looks at maxfun only between iterations: what it asked for beyond it is cut off
    yield from ((float(spent), w) for spent, w in enumerate(asked[: int(budget)], 1))


def newton_cg(objective: Objective, w: Array, budget: float) -> Iterator[State]:
    """Steps of `curvature.newton_step`, solved to min(1/2, sqrt|g|) (Nocedal and Wright 2006; |g|
    in units of the first), with backtracking; a step that met negative curvature is doubled as long
    as that lowers E.
    """
    spent = 0.0
    E = objective.error(w)
    first = 0.0
    while spent < budget:
        g = objective.gradient(w)
        first = first or float(np.linalg.norm(g))
        size = float(np.linalg.norm(g)) / (first or 1.0)
        # however little is left, a step takes a product or two
        left = max(2, int(budget - spent))
        step = curvature.newton_step(
            objective, w, tolerance=min(0.5, size**0.5), max_products=min(left, 2 * w.size)
        )
        # a gradient, and as many products as the step took
        spent += 1 + step.n_products
        alpha = 1.0
        slope = float(g @ step.p)
        E_next = objective.error(w + step.p)
        # an error alone: the forward third of forward, backward and gradient
        spent += 1 / 3
        # Armijo's condition, halving the step
        while not E_next <= E + 1e-4 * alpha * slope and alpha > 1e-10:
            alpha = alpha / 2
            spent = spent + 1 / 3
            E_next = objective.error(w + alpha * step.p)
        # along negative curvature the quadratic model has no minimum to stop at
        while (
            step.negative_curvature
            and alpha < 1e6
            and (E_further := objective.error(w + 2 * alpha * step.p)) < E_next
        ):
            alpha = 2 * alpha
            spent = spent + 1 / 3
            E_next = E_further
        if not E_next < E:
            return  # as low as rounding lets it get
        w = w + alpha * step.p
        E = E_next
        yield spent, w


OPTIMISERS = {"gradient descent": gradient_descent, "L-BFGS": l_bfgs, "Newton-CG": newton_cg}


def descent(
    name: str, objective: Objective, w: Array, budget: float
) -> list[tuple[float, float, float]]:
    """(spent, E, |g|) along one optimiser, at costs at least 3 % apart; E is the lowest so far."""
    # the start, before anything is spent
    rows = [(0.0, objective.error(w), float(np.linalg.norm(objective.gradient(w))))]
    lowest = objective.error(w)
    shown = 0.0
    states = list(OPTIMISERS[name](objective, w, budget))
    for index, (spent, at) in enumerate(states):
        lowest = min(lowest, objective.error(at))
        if spent >= 1.03 * shown or index == len(states) - 1:
            rows.append((spent, lowest, float(np.linalg.norm(objective.gradient(at)))))
            shown = spent
    return rows


def lowest(objective: Objective, w: Array, budget: float) -> Array:
    """Where L-BFGS has the lowest E."""
    # of all points asked for, the last need not be the lowest
    return min((at for _, at in l_bfgs(objective, w, budget)), key=objective.error)


def polished(objective: Objective, w: Array) -> Array:
    """w at a minimum, by Newton-CG until E falls no more; then by the equations alone, which
    rounding of E does not limit.
    """
    # some 25 steps of 2 n products, the most that one takes
    for _, at in newton_cg(objective, w, 50 * w.size):
        w = at
    for _ in range(3):
        step = curvature.newton_step(objective, w, method="minres", tolerance=1e-10)
        # no nearer: rounding of the gradient has been reached
        if np.linalg.norm(objective.gradient(w + step.p)) >= np.linalg.norm(objective.gradient(w)):
            break
        w = w + step.p
    return w
