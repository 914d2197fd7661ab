"""Rules of learning: the changes of the weights that g, z and the last trial come to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perturb.curvature.operators import CURVATURES
from perturb.errors import InputError
from perturb.kernels.training import KEEP, MOMENTUM, PLAIN, SIGN, change_by_rule
from perturb.training.options import option
from perturb.trial.codes import CODES

Array = np.ndarray
ROUNDING = 1e-10  # of the largest curvature: one below it is rounding of estimates
MATRIX = 2000  # weights up to which a rule keeps a matrix
# times the length of a perturbation: no step is longer by a rate that was measured, or by a
# curvature below zero
REACH = 100.0


class Inputs(NamedTuple):
    """What a rule makes the changes of R runs from; all arrays have a row per run.

    memory: `State.memory`. rates (R,). G: g. D, dE: of the last trial. V: the directions of z.
    curved: z of theirs, or p of `ConjugateGradients` where the rule takes products Hp of its own.
    """

    plan: "RuleOptions"
    memory: dict[str, Array]
    rates: Array
    update: int
    G: Array
    D: Array
    dE: Array
    V: Array
    curved: Array


def _compiled(kind: int) -> Callable[[Inputs], Array]:
    """A rule of the kernel, `change_by_rule`."""

    def change(x: Inputs) -> Array:
        change = np.zeros_like(x.G)
        # rules without momentum leave m alone, and this one is thrown away
        m = x.memory.get("m", np.zeros_like(x.G))
        for run, rate in enumerate(x.rates):
            # the kernel makes w := w + change; from w = 0 the change is what comes out
            change_by_rule(
                kind, rate, x.plan.momentum, change[run], m[run], x.G[run], x.D[run], x.dE[run]
            )
        return change

    return change


def _diagonal(x: Inputs) -> Array:
    h = x.memory["h"]
    # v_i z_i = sum_j v_i H_ij v_j has mean H_ii, since <v_i v_j> = 0 for signs
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
        # <v v'> = 1 for signs, so that z v' = H v v' has mean H; its transpose makes it symmetric
        part = (np.outer(z, v) + np.outer(v, z)) / 2
        # means over all updates so far; older H count as much as new ones
        H[run] += (part - H[run]) / number
        square[run] += (float((part**2).sum()) - square[run]) / number
        # squares over the number, once more: the variance of the mean of the parts
        p = newton_of_mean(H[run], float(square[run]) / number, x.plan.damping, x.G[run])
        change[run] = -x.rates[run] * p
    return change


class Rule(NamedTuple):
    """A rule of learning: what it does; the function of `Inputs` that gives the changes (R, n); the
    z = Hv that it needs: none (""), that of random "signs" v from the trials that g is from, or
    "products" Hp from trials of its own; its kind in the kernel of updates, or -1; what it
    remembers between updates, (name, axes of length n); and whether a step is of the same length
    however small g or dE is, of which it takes the sign.
    """

    meaning: str
    change: Callable[[Inputs], Array]
    z: str = ""
    kind: int = -1
    memory: tuple[tuple[str, int], ...] = ()
    by_sign: bool = False

    @property
    def local(self) -> bool:
        """Whether a synapse can follow it by itself: from its own g, z, D and the words."""
        return self.z != "products" and all(axes == 1 for _, axes in self.memory)


RULES = {
    "plain": Rule("w -= eta g", _compiled(PLAIN), kind=PLAIN),
    "momentum": Rule(
        "m := mu m + g, w -= eta m", _compiled(MOMENTUM), kind=MOMENTUM, memory=(("m", 1),)
    ),
    "sign": Rule("w -= eta sign(g)", _compiled(SIGN), kind=SIGN, by_sign=True),
    "keep-if-better": Rule(
        "w += eta D where the trial's dE < 0, else nothing (Koosh & Goodman 2002, eta = 1)",
        _compiled(KEEP),
        kind=KEEP,
        by_sign=True,
    ),
    "diagonal": Rule(
        "w -= eta g / (|h| + damping), h_i a running mean of v_i z_i over random signs v: the"
        " diagonal of H",
        _diagonal,
        z="signs",
        memory=(("h", 1),),
    ),
    "newton-cg": Rule(
        "w -= eta p, p from cg_steps conjugate-gradient steps on (H + damping) p = g, every Hp"
        " estimated",
        _newton_cg,
        z="products",
    ),
    "newton-mean": Rule(
        "w -= eta (|H| + damping)^-1 g, H the mean over updates of (z v' + v z')/2, random signs v"
        " (Spall 2000)",
        _newton_mean,
        z="signs",
        memory=(("H", 2), ("square", 0)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """The options of a plan that are of its rule, see `plan.Plan`."""

    rule: str = option("plain", "how an update follows from g and z", among=RULES)
    momentum: float = option(0.9, "mu of the rule momentum", ge=0, lt=1)
    damping: float = option(
        1e-2, "added to curvature by the rules diagonal, newton-cg and newton-mean", ge=0
    )
    memory: float = option(
        0.9, "diagonal: share of the running mean of H_ii that an update keeps", ge=0, lt=1
    )
    cg_steps: int = option(5, "newton-cg: products Hp of an update", ge=1, le=1000)
    curvature: str = option(
        "hessian",
        "newton-cg: H, or G = <J' H_E J> in its place, which no trial tells: exact gradients only",
        among=CURVATURES,
        alone=True,
    )
    longest_step: float = option(
        0.0, "length |change| of the weights that no update exceeds; 0 = any", ge=0
    )

    def check_curvature(self) -> None:
        """InputError for a choice that the rule does not have."""
        if self.curvature != "hessian" and self.rule != "newton-cg":
            raise InputError(
                f'curvature = "{self.curvature}" is of the rule newton-cg, not "{self.rule}"'
            )

    @property
    def needs_z(self) -> bool:
        """Whether the rule uses z = Hv."""
        return bool(RULES[self.rule].z)

    @property
    def uses_signs(self) -> bool:
        """Whether the rule uses z of random signs v, from the trials that g is from."""
        return RULES[self.rule].z == "signs"


def wanted_change(x: Inputs) -> Array:
    """The changes of the weights (R, n) by the rule, no longer than the longest step."""
    return shortened(x.plan, RULES[x.plan.rule].change(x))


def shortened(plan: RuleOptions, change: Array) -> Array:
    """Changes of the weights (R, n), shortened to the longest step: the region in which the
    estimate of g is trusted.
    """
    if plan.longest_step:
        size, along = of_length_one(change)
        change = np.where(size > plan.longest_step, plan.longest_step * along, change)
    return change


def random_signs(seed: int, update: int, n: int) -> Array:
    return CODES["rademacher"].draw(n, 1.0, seed, update)


def of_length_one(V: Array) -> tuple[Array, Array]:
    """|v| (R, 1), or 1 where it is 0, and v/|v| of the directions (R, n): weights are displaced
    by r, whatever a step is.
    """
    size = np.linalg.norm(V, axis=1, keepdims=True)
    size[size == 0] = 1.0
    return size, V / size


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
        self.damping, self.reach, self.begun = damping, reach, False
        self.going = np.ones(len(G), dtype=bool)
        # p = 0, so that the residual g - (H + damping) p is g, and so is the first direction
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
        # the largest |Hd|/|d| so far, a bound from below on the size of the largest curvature
        self.top = np.maximum(
            self.top, np.divide(size, length, out=np.zeros_like(size), where=length > 0)
        )
        # the size of d'Hd that rounding alone makes is relative to top |d|^2
        positive = curvature > ROUNDING * self.top * length**2
        # downward at once: |d'Hd| is what counts, as in Dauphin et al. (2014), along d = g
        if not self.begun:
            way = np.divide(
                square, np.abs(curvature), out=np.full_like(curvature, np.inf), where=curvature != 0
            )
            most = np.divide(self.reach, length, out=np.zeros_like(length), where=length > 0)
            self.p[~positive] = (np.minimum(way, most)[:, None] * self.rest)[~positive]
        self.begun = True
        self.going &= positive & (square > 0)
        # r'r/d'Hd; 0 of a run that has stopped, whose p stays
        alpha = np.where(self.going, square / np.where(positive, curvature, 1.0), 0.0)[:, None]
        self.p += alpha * self.d
        self.rest = np.where(self.going[:, None], self.rest - alpha * Hd, self.rest)
        # r'r of the new residual over that of the old
        beta = np.where(square > 0, (self.rest**2).sum(1) / np.where(square > 0, square, 1.0), 0.0)[
            :, None
        ]
        self.d = self.rest + beta * self.d
