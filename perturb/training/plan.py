"""What is planned of learning and where runs stand: options, `Plan`, `State`."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from perturb.errors import InputError, choose
from perturb.estimation.design import check_pair
from perturb.kernels.training import KEEP, MOMENTUM, PLAIN, SIGN
from perturb.seeds import nth_seed
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method
from perturb.trial.readout import Reading

Array = np.ndarray


class Rule(NamedTuple):
    """A rule of learning: what it does; its kind in the kernel of updates, or -1 for one of
    `rules.CHANGES`; and the z = Hv that it needs: none (""), that of random "signs" v from the
    trials that g is from, or "products" Hp from trials of its own.
    """

    meaning: str
    kind: int = -1
    z: str = ""

    @property
    def local(self) -> bool:
        """Whether a synapse can follow it by itself, from its own g, z, D and the words."""
        return self.kind >= 0 or self is RULES["diagonal"]


RULES = {
    "plain": Rule("w -= eta g", PLAIN),
    "momentum": Rule("m := mu m + g, w -= eta m", MOMENTUM),
    "sign": Rule("w -= eta sign(g)", SIGN),
    "keep-if-better": Rule(
        "w += eta D where the trial's dE < 0, else nothing (Koosh & Goodman 2002, eta = 1)", KEEP
    ),
    "diagonal": Rule(
        "w -= eta g / (|h| + damping), h_i a running mean of v_i z_i over random signs v: the"
        " diagonal of H",
        z="signs",
    ),
    "newton-cg": Rule(
        "w -= eta p, p from cg_steps conjugate-gradient steps on (H + damping) p = g, every Hp"
        " estimated",
        z="products",
    ),
    "newton-mean": Rule(
        "w -= eta (|H| + damping)^-1 g, H the mean over updates of (z v' + v z')/2, random signs v"
        " (Spall 2000)",
        z="signs",
    ),
}
RATES = ("fixed", "trace", "eigenvalue", "line")
POWER_STEPS = 8  # of power iteration
# times the length of a perturbation: no step is longer by a rate that was measured, or by a
# curvature below zero
REACH = 100.0
LINE_PHASE = 2**15  # of readings along a step, beyond the phases of any method and layer


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
        f"{name} = {value!r} must be {'an integer' if whole else 'a finite number'} {wanted}"
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

    Parameters
    ----------
    method : Method or str
        How g (and z) are estimated.
    code : Code or str
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.
    rule : str
        How an update follows from g and z, see `RULES`.
    rate : {"fixed", "trace", "eigenvalue", "line"}
        Where the learning rate comes from, see Notes.
    eta : float
        Learning rate; where it is measured, a factor of it.
    decay : float
        If positive, the rate is divided by 1 + update/decay.
    momentum : float
        mu of the rule "momentum".
    damping : float
        Added to curvature by the rules that use it.
    memory : float
        The share of the running mean of H_ii that an update leaves, of the rule "diagonal".
    cg_steps : int
        Products Hp of an update, of the rule "newton-cg".
    trials_per_update : int
        K, tau_theta.
    perturb_every : int
        Trials for which a perturbation stands, tau_p.
    sample_every : int
        Trials for which the same patterns are shown, tau_x.
    batch : int
        Patterns shown in an evaluation, all of them if 0; smaller batches go through the patterns
        in an order drawn anew for each pass.
    baseline_free : bool
        Whether E(w) is read without noise and not counted, as simulations in the literature do.
    tune_every, tune_trials : int
        Updates after which a measured rate is measured anew, and the trials of it.
    seed : int
        Of run 0; those of others are derived from it (`seed_of`).
    reading : Reading
        How one pattern's error is read.

    Raises
    ------
    InputError
        For an unknown name, a number out of its range, or settings that do not go together.

    Notes
    -----
    A rate that runs measure themselves: "trace", eta / T with T = tr H from the mean of antithetic
    dE, or more where the standard deviation of dE tells of negative curvature, see
    `measured_trace`; "eigenvalue", eta / (|l| (1 + 1/K) + T/K) with l, the eigenvalue of largest
    size, by power iteration on estimated z as well; "line", at every update eta times the way to
    the minimum of the parabola through E along the step, three evaluations more. By no measured
    rate is a step along g longer than eta times a hundred perturbations.

    References
    ----------
    McCaughan et al., Multiplexed gradient descent, APL Machine Learning 1 (2023) 026118.

    Examples
    --------
    >>> from perturb.training import Plan
    >>> plan = Plan(rule="momentum", trials_per_update=4)
    >>> plan.evaluations_of_an_update, plan.updates_within(100)
    (8, 12)
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
        """The fields that say how weights are updated.

        Returns
        -------
        dict
            By name, each an `option` with a meaning.
        """
        return {each.name: each for each in fields(cls) if each.metadata.get("meaning")}

    def seed_of(self, run: int) -> int:
        """The seed of a run's perturbations, noise and presented patterns.

        Parameters
        ----------
        run : int
            Its number, from 0.

        Returns
        -------
        int
            `seeds.nth_seed` of "run".
        """
        return nth_seed(self.seed, "run", run)

    @property
    def needs_z(self) -> bool:
        """Whether the rule uses z = Hv."""
        return bool(RULES[self.rule].z)

    @property
    def uses_signs(self) -> bool:
        """Whether the rule uses z of random signs v, from the trials that g is from."""
        return RULES[self.rule].z == "signs"

    @property
    def trials_of_an_update(self) -> int:
        """All its trials, those for products Hp included."""
        return self.trials_per_update * (1 + self.cg_steps * (RULES[self.rule].z == "products"))

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
        """Measurements of E, tuning included.

        Parameters
        ----------
        updates : int
            How many, from the first.

        Returns
        -------
        int
        """
        return (
            updates * self.evaluations_of_an_update
            + -(-updates // self.tune_every) * self.evaluations_of_tuning
        )

    def updates_within(self, evaluations: int) -> int:
        """The most updates that take no more measurements of E than allowed.

        Parameters
        ----------
        evaluations : int

        Returns
        -------
        int
        """
        one, tuning = self.evaluations_of_an_update, self.evaluations_of_tuning
        rounds, rest = divmod(evaluations, self.tune_every * one + tuning)
        return rounds * self.tune_every + max(0, rest - tuning) // one


@dataclass
class State:
    """Where runs stand that learn side by side.

    Attributes
    ----------
    w : array of shape (R, n)
        Weights of each run, as the network has them.
    update, trial : int
        Done by each of them.
    evaluations : int
        Of each run, tuning included.
    memory : dict of arrays (R, ...)
        Further numbers of the rule: m, h, H, eta.
    failed : int array of shape (R,)
        The trial whose error was not finite, or -1; such a run does not move any more.
    extra : dict of arrays
        Of whoever writes the weights or measures.
    """

    w: Array
    update: int = 0
    trial: int = 0
    evaluations: int = 0
    memory: dict[str, Array] = field(default_factory=dict)
    failed: Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    extra: dict[str, Array] = field(default_factory=dict)

    def arrays(self) -> dict[str, Array]:
        """Everything, to be stored.

        Returns
        -------
        dict of arrays
            `State.of_arrays` makes an equal state.
        """
        counts = np.array([self.update, self.trial, self.evaluations])
        parts = {"w": self.w, "failed": self.failed, "counts": counts}
        parts |= {f"memory.{name}": array for name, array in self.memory.items()}
        return parts | {f"extra.{name}": array for name, array in self.extra.items()}

    @classmethod
    def of_arrays(cls, parts: dict[str, Array]) -> "State":
        """The state that `arrays` gave.

        Parameters
        ----------
        parts : dict of arrays

        Returns
        -------
        State
        """
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
