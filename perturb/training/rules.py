"""Rules that make changes of weights from g, z and the last trial."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from perturb.kernels.training import change_by_rule
from perturb.seeds import derive_seed
from perturb.training.plan import REACH, RULES, Plan
from perturb.trial.codes import CODES

Array = np.ndarray
ROUNDING = 1e-10  # of the largest curvature: one below it is rounding of estimates
MATRIX = 2000  # weights up to which a rule keeps a matrix


# ---- rules


def random_signs(seed: int, update: int, n: int) -> Array:
    return CODES["rademacher"].draw(n, 1.0, seed, update)


def direction(plan: Plan, run: int, update: int, n: int) -> Array:
    """v (n,) of the trials that g of an update is from: random signs where the rule uses their
    z (`Plan.uses_signs`), else 0.
    """
    if not plan.uses_signs:
        return np.zeros(n)
    return random_signs(derive_seed(plan.seed_of(run), "direction"), update, n)


def directions(plan: Plan, R: int, update: int, n: int) -> Array:
    """`direction` of every run, (R, n)."""
    return np.array([direction(plan, run, update, n) for run in range(R)])


def of_length_one(V: Array) -> tuple[Array, Array]:
    """|v| (R, 1), or 1 where it is 0, and v/|v| of the directions (R, n): weights are displaced
    by r, whatever a step is.
    """
    size = np.linalg.norm(V, axis=1, keepdims=True)
    size[size == 0] = 1.0
    return size, V / size


class Inputs(NamedTuple):
    """What a rule makes the changes of R runs from; all arrays have a row per run.

    rates (R,). G: g. D, dE: of the last trial. V: `directions`. curved: z of theirs, or p of
    `ConjugateGradients` where the rule takes products Hp of its own.
    """

    plan: Plan
    memory: dict[str, Array]
    rates: Array
    update: int
    G: Array
    D: Array
    dE: Array
    V: Array
    curved: Array


def wanted_change(x: Inputs) -> Array:
    """The changes of the weights (R, n) by the rule."""
    if x.plan.rule in CHANGES:
        return CHANGES[x.plan.rule](x)
    change = np.zeros_like(x.G)
    m = x.memory.get("m", np.zeros_like(x.G))
    kind = RULES[x.plan.rule].kind
    for run in range(len(x.G)):
        change_by_rule(
            kind, x.rates[run], x.plan.momentum, change[run], m[run], x.G[run], x.D[run], x.dE[run]
        )
    return change


def _diagonal(x: Inputs) -> Array:
    h = x.memory["h"]
    h += (1 - x.plan.memory) * (x.V * x.curved - h)
    # h starts at 0: it is a mean over as much as it has seen
    seen = 1 - x.plan.memory ** (x.update + 1)
    size = np.abs(h) / seen + x.plan.damping  # 0 of a weight that E does not depend on: it stays
    return -x.rates[:, None] * np.divide(x.G, size, out=np.zeros_like(x.G), where=size > 0)


def _newton_cg(x: Inputs) -> Array:
    return -x.rates[:, None] * x.curved


def _newton_mean(x: Inputs) -> Array:
    change = np.zeros_like(x.G)
    H, square, number = x.memory["H"], x.memory["square"], x.update + 1
    for run, (v, z) in enumerate(zip(x.V, x.curved, strict=True)):
        part = (np.outer(z, v) + np.outer(v, z)) / 2
        H[run] += (part - H[run]) / number
        square[run] += (float((part**2).sum()) - square[run]) / number
        p = newton_of_mean(H[run], float(square[run]) / number, x.plan.damping, x.G[run])
        change[run] = -x.rates[run] * p
    return change


# of the rules that are not in the kernel: the changes of the weights (R, n)
CHANGES: dict[str, Callable[[Inputs], Array]] = {
    "diagonal": _diagonal,
    "newton-cg": _newton_cg,
    "newton-mean": _newton_mean,
}


def newton_of_mean(H: Array, square: float, damping: float, g: Array) -> Array:
    """p = Q (sqrt(l^2 + s^2) + damping)^-1 Q'g, H = Q l Q' a mean of matrices, square that of their
    |.|_F^2 over their number.

    Of any sign, the size of an eigenvalue is what counts (Dauphin et al. 2014). s^2 = square/n is
    the mean square by which eigenvalues of the mean are wrong, at most: while little is known the
    steps are short, and along g.
    """
    if not (np.isfinite(H).all() and np.isfinite(g).all()):
        return np.full_like(g, np.nan)
    values, Q = np.linalg.eigh(H)
    size = np.sqrt(values**2 + square / g.size) + damping
    return Q @ np.divide(Q.T @ g, size, out=np.zeros_like(g), where=size > 0)


class ConjugateGradients:
    """p (R, n) of (H + damping) p = g for each run, a product Hd after another: d is the direction
    of the next.

    A run stops where curvature is not positive, by more than rounding; if at once, p is g over the
    size of the curvature, but no longer than `reach`.
    """

    def __init__(self, G: Array, damping: float, reach: float):
        self.damping, self.reach, self.begun, self.going = (
            damping,
            reach,
            False,
            np.ones(len(G), dtype=bool),
        )
        self.p, self.rest, self.d, self.top = np.zeros_like(G), G.copy(), G.copy(), np.zeros(len(G))

    def go_on(self, product: Array) -> None:
        """A step, from Hd (R, n)."""
        Hd = product + self.damping * self.d
        square, curvature, length = (
            (self.rest**2).sum(1),
            (self.d * Hd).sum(1),
            np.linalg.norm(self.d, axis=1),
        )
        size = np.linalg.norm(Hd, axis=1)
        self.top = np.maximum(
            self.top, np.divide(size, length, out=np.zeros_like(size), where=length > 0)
        )
        positive = curvature > ROUNDING * self.top * length**2
        if not self.begun:
            way = np.divide(
                square, np.abs(curvature), out=np.full_like(curvature, np.inf), where=curvature != 0
            )
            most = np.divide(self.reach, length, out=np.zeros_like(length), where=length > 0)
            self.p[~positive] = (np.minimum(way, most)[:, None] * self.rest)[~positive]
        self.begun = True
        self.going &= positive & (square > 0)
        alpha = np.where(self.going, square / np.where(positive, curvature, 1.0), 0.0)[:, None]
        self.p += alpha * self.d
        self.rest = np.where(self.going[:, None], self.rest - alpha * Hd, self.rest)
        beta = np.where(square > 0, (self.rest**2).sum(1) / np.where(square > 0, square, 1.0), 0.0)[
            :, None
        ]
        self.d = self.rest + beta * self.d


def begin_steps(plan: Plan, G: Array) -> ConjugateGradients:
    """Of the rule "newton-cg", from g (R, n)."""
    return ConjugateGradients(G, plan.damping, REACH * plan.sigma * math.sqrt(G.shape[1]))
