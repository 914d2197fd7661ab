"""Updates of learning: what is planned and where runs stand, rates that are measured, and rules
that make changes of weights.

`loop` has the loops that these are for.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from perturb.errors import InputError, choose
from perturb.estimation.design import check_pair
from perturb.estimation.solution import Estimate
from perturb.kernels.training import KEEP, MOMENTUM, PLAIN, SIGN, change_by_rule
from perturb.seeds import derive_seed, nth_seed
from perturb.trial.codes import CODES, Code
from perturb.trial.methods import METHODS, Method
from perturb.trial.readout import Reading
from perturb.trial.synapse import TOTALS

Array = np.ndarray
# name: kind in the kernel (-1: only here), and what it does
RULES: dict[str, tuple[int, str]] = {
    "plain": (PLAIN, "w -= eta g"),
    "momentum": (MOMENTUM, "m := mu m + g, w -= eta m"),
    "sign": (SIGN, "w -= eta sign(g)"),
    "keep-if-better": (
        KEEP,
        "w += eta D where the trial's dE < 0, else nothing (Koosh & Goodman 2002, eta = 1)",
    ),
    "diagonal": (
        -1,
        (
            "w -= eta g / (|h| + damping), h_i a running mean of v_i z_i over random signs v: the"
            " diagonal of H"
        ),
    ),
    "newton-cg": (
        -1,
        (
            "w -= eta p, p from cg_steps conjugate-gradient steps on (H + damping) p = g, every Hp"
            " estimated"
        ),
    ),
    "newton-mean": (
        -1,
        (
            "w -= eta (|H| + damping)^-1 g, H the mean over updates of (z v' + v z')/2, random"
            " signs v (Spall 2000)"
        ),
    ),
}
RATES = ("fixed", "trace", "eigenvalue", "line")
SIGNED = (
    "diagonal",
    "newton-mean",
)  # rules whose z is that of random signs v, from the trials that g is from
POWER_STEPS = 8  # of power iteration
# times the length of a perturbation: no step is longer by a rate that was measured, or by a
# curvature below zero
REACH = 100.0
ROUNDING = 1e-10  # of the largest curvature: one below it is rounding of estimates
MATRIX = 2000  # weights up to which a rule keeps a matrix
LINE_PHASE = 2**15  # of readings along a step, beyond the phases of any method and layer

Estimator = Callable[
    [str, Array, int, int], Estimate
]  # (method, v, trials, seed), at the weights of a run


def option(default: Any, meaning: str = "", **limits: Any) -> Any:
    """A field of a plan: what it means, and what its values are limited by.

    limits: ge, gt, le and lt of numbers, whole where the default is; among: the names that it is
    one of. alone: an option of a whole study, which those that are compared in it have in common.
    """
    return field(default=default, metadata={"meaning": meaning, **limits})


def check_option(name: str, value: Any, default: object, limits: Mapping[str, Any]) -> None:
    """InputError unless a value is within the limits of its `option`."""
    if "among" in limits:
        choose(name, value, dict.fromkeys(limits["among"]))
        return
    broken = [(sign, limits[key], holds) for key, (sign, holds) in LIMITS.items() if key in limits]
    whole = isinstance(default, int)
    number = (
        isinstance(value, (int, np.integer))
        if whole
        else isinstance(value, (int, float, np.number))
    )
    if number and abs(value) < math.inf:
        broken = [(sign, limit, holds) for sign, limit, holds in broken if not holds(value, limit)]
        if not broken:
            return
    wanted = " and ".join(f"{sign} {limit}" for sign, limit, _ in broken)
    raise InputError(
        f"{name} = {value!r} must be a {'whole' if whole else 'finite'} number {wanted}"
    )


LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}
MOST = 2**40  # of what is counted


@dataclass(frozen=True)
class Plan:
    """How runs learn; everything but the network, the data and the starting weights.

    method, code: tables or their names. rate: where the learning rate comes from: "fixed", it is
    eta; or the runs themselves measure it, every `tune_every` updates with `tune_trials` trials:
    "trace", eta / T with T = tr H from the mean of antithetic dE, or more where the spread of dE
    tells of negative curvature, see `measured_trace`; "eigenvalue", eta / (|l| (1 + 1/K) + T/K)
    with l, the eigenvalue of largest size, by power iteration on estimated z as well; "line", at
    every update eta times the way to the minimum of the parabola through E along the step, three
    evaluations more. By no measured rate is a step along g longer than eta times a hundred
    perturbations. decay > 0: the rate is divided by 1 + update/decay.

    trials_per_update: K. batch: patterns shown in an evaluation, all of them if 0; smaller batches
    go through the patterns in an order drawn anew for each pass. baseline_free: E(w) is read
    without noise and not counted, as simulations in the literature do. reading: what a reading of
    one pattern's error is like. seed: of run 0; those of others are derived from it (`seed_of`).
    damping, cg_steps, memory: of the rules of curvature; memory is the share of h kept at an
    update.
    """

    method: Method = METHODS["central"]
    code: Code = CODES["rademacher"]
    sigma: float = option(1e-2, gt=0)
    r: float = option(1e-2, gt=0)
    rule: str = option("plain", "how an update follows from g and z", among=RULES)
    rate: str = option(
        "fixed", "of learning: fixed, it is eta; or measured by the chip itself", among=RATES
    )
    eta: float = option(0.1, "learning rate; where it is measured, a factor of it", gt=0)
    decay: float = option(
        0.0, "updates after which the rate is halved, eta / (1 + update/decay); 0 = constant", ge=0
    )
    momentum: float = option(0.9, "mu of the rule momentum", ge=0, lt=1)
    damping: float = option(
        1e-2, "added to curvature by the rules diagonal, newton-cg and newton-mean", ge=0
    )
    memory: float = option(
        0.9, "diagonal: share of the running mean of H_ii that an update keeps", ge=0, lt=1
    )
    cg_steps: int = option(5, "newton-cg: products Hp of an update", ge=1, le=1000)
    trials_per_update: int = option(
        1, "trials whose estimates are averaged, tau_theta", ge=1, le=MOST
    )
    perturb_every: int = option(1, "trials for which a perturbation stands, tau_p", ge=1, le=MOST)
    sample_every: int = option(
        1, "trials for which the same patterns are shown, tau_x", ge=1, le=MOST
    )
    batch: int = option(0, "patterns shown in an evaluation; 0 = all", ge=0, le=10**8)
    baseline_free: bool = option(
        False, "whether E(w) is read without noise and not counted; ideal chips only", alone=True
    )
    tune_every: int = option(
        1000, "updates after which a measured rate is measured anew", ge=1, le=MOST
    )
    tune_trials: int = option(100, "trials of each such measurement", ge=1, le=MOST)
    seed: int = 0
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            object.__setattr__(self, "method", choose("method", self.method, METHODS))
        if isinstance(self.code, str):
            object.__setattr__(self, "code", choose("code", self.code, CODES))
        check_pair(self.method, self.code)
        for each in fields(self):
            if each.metadata:
                check_option(each.name, getattr(self, each.name), each.default, each.metadata)
        if self.rule == "keep-if-better" and self.trials_per_update != 1:
            raise InputError(
                'rule = "keep-if-better" judges every trial: set trials_per_update = 1'
            )
        if self.needs_z and self.method.regressor != "dw":
            raise InputError(
                f'rule = "{self.rule}" needs z = Hv from the same trials: set method ='
                f' "difference", not "{self.method.name}"'
            )

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The fields, by name, that say how weights are updated, each an `option` with a
        meaning.
        """
        return {each.name: each for each in fields(cls) if each.metadata.get("meaning")}

    def seed_of(self, run: int) -> int:
        """The seed of a run's perturbations, noise and presented patterns: `seeds.nth_seed` of
        "run".
        """
        return nth_seed(self.seed, "run", run)

    @property
    def needs_z(self) -> bool:
        return RULES[self.rule][0] < 0

    @property
    def trials_of_an_update(self) -> int:
        """All its trials, those for products Hp included."""
        return self.trials_per_update * (1 + self.cg_steps if self.rule == "newton-cg" else 1)

    @property
    def evaluations_of_an_update(self) -> int:
        """Measurements of E that an update takes and that count, without those of tuning."""
        phases = len(self.method.phases) - (self.baseline_free and (0, 0) in self.method.phases)
        return self.trials_of_an_update * phases + 3 * (self.rate == "line")

    @property
    def evaluations_of_tuning(self) -> int:
        """Measurements of E to measure the rate anew, every `tune_every` updates."""
        if self.rate not in ("trace", "eigenvalue"):
            return 0
        steps = POWER_STEPS * len(METHODS["difference"].phases) if self.rate == "eigenvalue" else 0
        return self.tune_trials * (len(METHODS["antithetic"].phases) + steps)

    def evaluations(self, updates: int) -> int:
        """Measurements of E in so many updates from the first, tuning included."""
        return (
            updates * self.evaluations_of_an_update
            + -(-updates // self.tune_every) * self.evaluations_of_tuning
        )

    def updates_within(self, evaluations: int) -> int:
        """The most updates that take no more measurements of E than that."""
        one, tuning = self.evaluations_of_an_update, self.evaluations_of_tuning
        rounds, rest = divmod(evaluations, self.tune_every * one + tuning)
        return rounds * self.tune_every + max(0, rest - tuning) // one


@dataclass
class State:
    """Where runs stand that learn side by side. update, trial: done by each of them.

    w: weights (R, n), as the network has them. memory: further numbers of the rule, (R, ...): m, h,
    eta. failed (R,): the trial whose error was not finite, or -1; such a run stands still from
    there on. evaluations: of each run, tuning included. extra: arrays of whoever writes the weights
    or measures.
    """

    w: Array
    update: int = 0
    trial: int = 0
    evaluations: int = 0
    memory: dict[str, Array] = field(default_factory=dict)
    failed: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    extra: dict[str, Array] = field(default_factory=dict)

    def arrays(self) -> dict[str, Array]:
        """Everything, to be stored: `State.of_arrays` makes an equal one."""
        counts = np.array([self.update, self.trial, self.evaluations])
        parts = {"w": self.w, "failed": self.failed, "counts": counts}
        parts |= {f"memory.{name}": array for name, array in self.memory.items()}
        return parts | {f"extra.{name}": array for name, array in self.extra.items()}

    @classmethod
    def of_arrays(cls, parts: dict[str, Array]) -> "State":
        update, trial, evaluations = (int(count) for count in parts["counts"])

        def named(start: str) -> dict[str, Array]:
            return {
                name.removeprefix(start): np.array(array)
                for name, array in parts.items()
                if name.startswith(start)
            }

        w, failed = np.array(parts["w"]), np.array(parts["failed"])
        return cls(w, update, trial, evaluations, named("memory."), failed, named("extra."))


def count_updates(state: State, plan: Plan, updates: int) -> None:
    """So many updates are done, of every run."""
    state.update += updates
    state.trial = state.update * plan.trials_of_an_update
    state.evaluations = plan.evaluations(state.update)


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
    variance/sigma^4 (Hutchinson 1990), so that its spread tells |H|_F off the diagonal. No less
    than the standard error of the mean: what is below it is not known.
    """
    T, scale = plan.tune_trials, 2 / plan.sigma**2
    mean, square = (
        scale * float(totals[TOTALS.index("u")]) / T,
        scale**2 * float(totals[TOTALS.index("uu")]) / T,
    )
    spread = max(square - mean**2, 0.0) * T / (T - 1) if T > 1 else square
    return trace_size(mean, math.sqrt(max((spread - 1.5 * scale**2 * variance) / 2, spread / T)))


def measured_stiffness(
    plan: Plan, update: int, run: int, n: int, estimator: Estimator, variance: float
) -> float:
    """What the stable learning rate is the inverse of, T = `measured_trace` or |l| (1 + 1/K) + T/K,
    from estimates that take `Plan.evaluations_of_tuning`.
    """
    K, seed = plan.trials_per_update, plan.seed_of(run)
    v = _random_signs(derive_seed(seed, "power"), update, n) / math.sqrt(n)
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


def along(plan: Plan, p: Array, measured: Callable[[Array], Array]) -> float:
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
    bent, slope = float(E[0] - 2 * E[1] + E[2]) / r**2, float(E[0] - E[2]) / (2 * r)
    return slope * min(1 / abs(bent) if bent else math.inf, REACH * r / slope) if slope > 0 else 0.0


def rates_at(plan: Plan, state: State, update: int) -> Array:
    """The learning rates of an update, (R,)."""
    rates = (
        np.full(len(state.w), plan.eta) if plan.rate == "fixed" else plan.eta * state.memory["eta"]
    )
    return rates / (1 + update / plan.decay) if plan.decay else rates


# ---- rules


def _random_signs(seed: int, update: int, n: int) -> Array:
    return CODES["rademacher"].draw(n, 1.0, seed, update)


def direction(plan: Plan, run: int, update: int, n: int) -> Array:
    """v (n,) of the trials that g of an update is from: random signs for rules `SIGNED`; others
    do not use their z.
    """
    if plan.rule not in SIGNED:
        return np.zeros(n)
    return _random_signs(derive_seed(plan.seed_of(run), "direction"), update, n)


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


def wanted_change(
    plan: Plan,
    memory: dict[str, Array],
    rates: Array,
    update: int,
    G: Array,
    D: Array,
    dE: Array,
    V: Array,
    curved: Array,
) -> Array:
    """The changes of the weights (R, n) by the rule, from its memory, g, and D and dE of the last
    trial.

    V: `directions`. curved: z of theirs for the rules `SIGNED`, p for "newton-cg".
    """
    kind, change = RULES[plan.rule][0], np.zeros_like(G)
    if plan.rule == "newton-cg":
        return -rates[:, None] * curved
    if plan.rule == "diagonal":
        h = memory["h"]
        h += (1 - plan.memory) * (V * curved - h)
        seen = 1 - plan.memory ** (
            update + 1
        )  # h starts at 0: it is a mean over as much as it has seen
        size = np.abs(h) / seen + plan.damping  # 0 of a weight that E does not depend on: it stays
        return -rates[:, None] * np.divide(G, size, out=np.zeros_like(G), where=size > 0)
    if plan.rule == "newton-mean":
        for run, (v, z) in enumerate(zip(V, curved, strict=True)):
            part = (np.outer(z, v) + np.outer(v, z)) / 2
            memory["H"][run] += (part - memory["H"][run]) / (update + 1)
            memory["square"][run] += (float((part**2).sum()) - memory["square"][run]) / (update + 1)
            p = newton_of_mean(
                memory["H"][run], float(memory["square"][run]) / (update + 1), plan.damping, G[run]
            )
            change[run] = -rates[run] * p
        return change
    m = memory.get("m", np.zeros_like(G))
    for run in range(len(G)):
        change_by_rule(
            kind, rates[run], plan.momentum, change[run], m[run], G[run], D[run], dE[run]
        )
    return change


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
        square, bent, length = (
            (self.rest**2).sum(1),
            (self.d * Hd).sum(1),
            np.linalg.norm(self.d, axis=1),
        )
        size = np.linalg.norm(Hd, axis=1)
        self.top = np.maximum(
            self.top, np.divide(size, length, out=np.zeros_like(size), where=length > 0)
        )
        positive = bent > ROUNDING * self.top * length**2
        if not self.begun:
            way = np.divide(square, np.abs(bent), out=np.full_like(bent, np.inf), where=bent != 0)
            most = np.divide(self.reach, length, out=np.zeros_like(length), where=length > 0)
            self.p[~positive] = (np.minimum(way, most)[:, None] * self.rest)[~positive]
        self.begun = True
        self.going &= positive & (square > 0)
        alpha = np.where(self.going, square / np.where(positive, bent, 1.0), 0.0)[:, None]
        self.p += alpha * self.d
        self.rest = np.where(self.going[:, None], self.rest - alpha * Hd, self.rest)
        beta = np.where(square > 0, (self.rest**2).sum(1) / np.where(square > 0, square, 1.0), 0.0)[
            :, None
        ]
        self.d = self.rest + beta * self.d


def begin_steps(plan: Plan, G: Array) -> ConjugateGradients:
    """Of the rule "newton-cg", from g (R, n)."""
    return ConjugateGradients(G, plan.damping, REACH * plan.sigma * math.sqrt(G.shape[1]))
