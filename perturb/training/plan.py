"""What is planned of learning and where runs stand: options, `Plan`, `State`."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from perturb.errors import InputError, choose
from perturb.estimation.design import check_pair
from perturb.networks.objective import Objective
from perturb.seeds import derive_seed, nth_seed
from perturb.training import calibration
from perturb.training.options import MOST, check_option, option
from perturb.training.rates import RATES, RateOptions
from perturb.training.rules import RULES, RuleOptions
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method
from perturb.trial.readout import Reading

Array = np.ndarray
LINE_PHASE = 2**15  # of readings along a step, beyond the phases of any method and layer
BLOCK_PHASE = LINE_PHASE + 3
# options that `sources.Batch` alone knows, no chip with imperfections of its arrays and no events
IN_LOOP = ("sigma_exponent", "average_from")
SPALL = 0.602  # the exponent of falling rates that Spall (1998) advises


@dataclass(frozen=True)
class Plan(RateOptions, RuleOptions):
    """How runs learn; everything but the network, the data and the starting weights.

    Parameters
    ----------
    method : Method or str
        Which points are measured and how they make dE; g is the mean of dE dw/sigma^2, and z that
        of dE_z dw/(r sigma^2), whatever the method's fit.
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
    rate_exponent, rate_delay : float
        alpha and A: the rate is divided by (A + update + 1)^alpha.
    sigma_exponent : float
        gamma: sigma is divided by (update + 1)^gamma.
    decay : float
        If positive, the rate is divided by 1 + update/decay.
    momentum : float
        mu of the rule "momentum".
    damping : float
        Added to curvature by the rules that use it.
    memory : float
        The share of the running mean of H_ii that an update leaves, of the rule "diagonal".
    cg_steps, curvature : int, {"hessian", "gauss_newton"}
        Of the rule "newton-cg": products Hp of an update; of H, or G of `Exact` in its place.
    longest_step : float
        If positive, a change of the weights that is longer is shortened to it.
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
    average_from : int
        If positive, `State.result` is the mean of the weights after this update and later ones
        (Polyak and Juditsky 1992).
    block : float
        If positive, an update is not made when E(w + change) - E(w), two readings on all patterns,
        is more than so many standard errors of it (Spall 1998).
    stop_change, patience, stop_every : float, int, int
        If positive, `train` ends a run whose weights have changed by less than `stop_change`, root
        mean square, in `stop_every` updates; or whose E on patterns for validation has become no
        smaller in `patience` such looks.
    calibrate, is_calibrated : int, bool
        Trials of each amplitude in `calibrated`, and whether that has been done.
    seed, first_run : int
        Of run 0, from which those of others are derived (`seed_of`); the number of the first run,
        more than 0 of a part of several.
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
    the minimum of the parabola through E along g, three evaluations more. By no measured
    rate is a step along g longer than eta times a hundred perturbations.

    References
    ----------
    McCaughan et al., Multiplexed gradient descent, APL Machine Learning 1 (2023) 026118.
    Spall, IEEE Trans. Automatic Control 37 (1992) 332-341; IEEE Trans. Aerospace and Electronic
    Systems 34 (1998) 817-823. Polyak and Juditsky, SIAM J. Control and Optimization 30 (1992)
    838-855.

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
    average_from: int = option(
        0,
        "update from which on the mean of the weights is kept, which is the result; 0 = the last"
        " weights are",
        ge=0,
        le=MOST,
    )
    block: float = option(
        0.0,
        "standard errors of two readings of E by which an update may make it worse, else it is not"
        " made (Spall: 2); 0 = all are made",
        ge=0,
    )
    stop_change: float = option(
        0.0,
        "a run ends when its weights change by less, rms, in stop_every updates; 0 = never",
        ge=0,
    )
    patience: int = option(
        0,
        "a run ends after so many looks, one every stop_every updates, without a smaller E on"
        " patterns for validation, and gives the weights of its best look; exact, not counted; 0 ="
        " never",
        ge=0,
        le=MOST,
    )
    stop_every: int = option(1000, "updates after which that is looked at", ge=1, le=MOST)
    calibrate: int = option(
        0,
        "trials of each amplitude by which sigma and eta are calibrated at the start, 20 are"
        " enough; 0 = as given",
        ge=0,
        le=10**6,
    )
    is_calibrated: bool = False
    seed: int = 0
    first_run: int = 0
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            # a frozen dataclass lets nobody but `object` set a field
            object.__setattr__(self, "method", choose("method", self.method, METHODS))
        if isinstance(self.code, str):
            object.__setattr__(self, "code", choose("code", self.code, CODES))
        check_pair(self.method, self.code)
        for each in fields(self):
            # fields that are made by `option` carry their limits
            if each.metadata:
                check_option(each.name, getattr(self, each.name), each.default, each.metadata)
        self._check_together()

    def _check_together(self) -> None:
        """InputError for options that do not go together."""
        fixed = self.rate == "fixed"
        if self.rule == "keep-if-better" and self.trials_per_update != 1:
            raise InputError(
                'rule = "keep-if-better" judges every trial: set trials_per_update = 1'
            )
        if self.needs_z and self.method.regressor != "dw":
            raise InputError(
                f'rule = "{self.rule}" needs z = Hv from the same trials: set method ='
                f' "difference", not "{self.method.name}"'
            )
        if self.decay and self.rate_exponent:
            raise InputError(
                f"decay = {self.decay:g} and rate_exponent = {self.rate_exponent:g} are two laws of"
                " a falling rate: set one of them to 0"
            )
        if self.rate_delay and not self.rate_exponent:
            raise InputError(
                f"rate_delay = {self.rate_delay:g} is of the rate eta / (A + update + 1)^alpha: set"
                " rate_exponent as well"
            )
        if self.block and self.rate not in ("fixed", "line"):
            raise InputError(
                f'block = {self.block:g} is for rate = "fixed" or "line", not "{self.rate}"'
            )
        if self.calibrate and not (fixed and self.rule in ("plain", "momentum")):
            raise InputError(
                f"calibrate = {self.calibrate} finds the fixed rate of the rules plain and"
                f' momentum: set it to 0 for rule = "{self.rule}", rate = "{self.rate}"'
            )
        self.check_curvature()
        if self.calibrate == 1:
            raise InputError("calibrate = 1 shows no spread of trials: set 0, or 2 and more")

    def calibrated(self, objective: Objective, w: Array, updates: int, trials: int = 20) -> "Plan":
        """The plan with sigma and eta as a few trials at the start advise.

        Parameters
        ----------
        objective : Objective
        w : array of shape (n,)
            Where they are made: a starting point.
        updates : int
            How many are to come, for a rate that falls.
        trials : int, optional
            Of each of nine amplitudes, `sigma` the smallest; that of `calibrate` where it is set.

        Returns
        -------
        Plan
            With `sigma`, `eta` and, where noise asks for a falling rate, `rate_exponent` 0.602 and
            `rate_delay` a tenth of the updates. The 24 evaluations a trial count from the first
            update on.

        Notes
        -----
        Formulas: `calibration.calibrate`. On all patterns, by an ideal chip whose error unit is
        that of `reading`.

        References
        ----------
        Spall, Implementation of the simultaneous perturbation algorithm, IEEE Trans. Aerospace and
        Electronic Systems 34 (1998) 817-823.

        Examples
        --------
        >>> import numpy as np
        >>> import perturb
        >>> from perturb.training import Plan
        >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
        >>> plan = Plan().calibrated(objective, np.zeros(2), updates=100)
        >>> round(plan.eta, 2), plan.evaluations(0)
        (0.21, 480)
        """
        plan = replace(self, calibrate=self.calibrate or trials, is_calibrated=True)
        found = calibration.calibrate(
            objective,
            w,
            plan.reading,
            plan.sigma,
            plan.method.gradient_weights,
            plan.method.one_sided,
            plan.trials_per_update,
            plan.calibrate,
            derive_seed(plan.seed_of(0), "calibration"),
        )
        if not found.eta > 0:
            raise InputError(
                f"calibrate = {plan.calibrate}: E does not change by perturbations of"
                f" {plan.sigma:g} to {found.sigma:g}: start elsewhere, or from another sigma"
            )
        # m sums to g/(1 - mu): the same mean step at a rate smaller by that
        eta = found.eta * (1 - self.momentum if self.rule == "momentum" else 1.0)
        plan = replace(plan, sigma=found.sigma)
        if found.noisy and not (self.decay or self.rate_exponent):
            plan = replace(plan, rate_exponent=SPALL, rate_delay=updates / 10)
        # so that the first update has the rate that was found, where the rate falls
        return replace(plan, eta=eta * float(plan.divisor(0)))

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
            Its place among those that learn by this plan, from 0.

        Returns
        -------
        int
            `seeds.nth_seed` of "run".
        """
        return nth_seed(self.seed, "run", self.first_run + run)

    @property
    def trials_of_an_update(self) -> int:
        """All its trials, those for products Hp included."""
        return self.trials_per_update * (1 + self.cg_steps * (RULES[self.rule].z == "products"))

    @property
    def evaluations_of_an_update(self) -> int:
        """Measurements of E that an update takes and that count, without those of tuning."""
        phases = len(self.method.phases) - (self.baseline_free and (0, 0) in self.method.phases)
        return self.trials_of_an_update * phases + self.readings_of_an_update

    @property
    def readings_of_an_update(self) -> int:
        """Of these, those on all patterns at its end: along g, and before and after the step."""
        return 3 * (self.rate == "line") + 2 * (self.block > 0)

    @property
    def steady(self) -> bool:
        """Whether every update is made, by the same law, and the last weights are the result."""
        falls = self.decay or self.rate_exponent or self.sigma_exponent
        other = self.average_from or self.patience
        return not (falls or self.longest_step or self.block or other)

    def sigma_at(self, update: Any) -> Any:
        """The rms perturbation of the trials of an update, or of each of an array of them.

        Parameters
        ----------
        update : int or array

        Returns
        -------
        float or array
            sigma / (update + 1)^gamma.
        """
        return (
            self.sigma / (update + 1) ** self.sigma_exponent if self.sigma_exponent else self.sigma
        )

    @property
    def evaluations_of_tuning(self) -> int:
        """Measurements of E to measure the rate anew, every `tune_every` updates."""
        each = RATES[self.rate].estimates.items()
        return self.tune_trials * sum(n * len(METHODS[method].phases) for method, n in each)

    def evaluations(self, updates: int) -> int:
        """Measurements of E, tuning and calibration included.

        Parameters
        ----------
        updates : int
            How many, from the first.

        Returns
        -------
        int
        """
        # tuning comes before updates 0, tune_every, ...: the count is rounded up
        return (
            calibration.evaluations(self.calibrate)
            + updates * self.evaluations_of_an_update
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
        left = max(0, evaluations - calibration.evaluations(self.calibrate))
        # whole rounds of tune_every updates, each begun by a tuning, and what is left of one more
        rounds, rest = divmod(left, self.tune_every * one + tuning)
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
        Further numbers: m, h and H of the rule; eta, measured rates; mean, of the weights; before,
        the weights when it was last looked whether they change; best, best_error and waited, the
        weights and E of the best look on patterns for validation, and looks since; stopped, the
        update at which a run ended by either, or -1.
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

    @property
    def going(self) -> Array:
        """Whether each run goes on, (R,): those that failed or stopped do not move any more."""
        # without a memory "stopped" the first condition is asked twice
        return (self.failed < 0) & (self.memory.get("stopped", self.failed) < 0)

    @property
    def result(self) -> Array:
        """What each run has learned, (R, n): `best` where it has stopped, else `current`."""
        if "best" not in self.memory:
            return self.current
        return np.where((self.memory["stopped"] >= 0)[:, None], self.best, self.current)

    @property
    def current(self) -> Array:
        """The mean of the weights where it is kept, else the weights, (R, n)."""
        return self.memory.get("mean", self.w)

    @property
    def best(self) -> Array:
        """Of a run that ends here, (R, n): what its best look saw, where there was one."""
        if "best" not in self.memory:
            return self.current
        # E is infinite until the first look; a run that failed shows what became of it
        seen = np.isfinite(self.memory["best_error"]) & (self.failed < 0)
        return np.where(seen[:, None], self.memory["best"], self.current)

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
