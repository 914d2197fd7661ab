"""What is planned of learning and where runs stand: options, `Plan`, `State`."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from perturb.errors import InputError, choose
from perturb.estimation.design import check_pair
from perturb.seeds import nth_seed
from perturb.training.options import MOST, check_option, option
from perturb.training.rates import RATES, RateOptions
from perturb.training.rules import RULES, RuleOptions
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method
from perturb.trial.readout import Reading

Array = np.ndarray
LINE_PHASE = 2**15  # of readings along a step, beyond the phases of any method and layer


@dataclass(frozen=True)
class Plan(RateOptions, RuleOptions):
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
        estimates = RATES[self.rate].estimates.items()
        return self.tune_trials * sum(
            count * len(METHODS[method].phases) for method, count in estimates
        )

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
