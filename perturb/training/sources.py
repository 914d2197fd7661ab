"""Updates by trials of an ideal chip."""

from typing import Protocol

import numpy as np

from perturb.errors import InputError, choose
from perturb.estimation.design import Design
from perturb.estimation.meter import Meter, Mismatch
from perturb.estimation.point import check_point
from perturb.estimation.questions import Evaluation
from perturb.training.by_trials import ByTrials, seeds_of
from perturb.training.fast import has_trial_kernel, learn_in_kernel
from perturb.training.loop import Write, advance, check_state, write_in_full
from perturb.training.of_runs import Learned
from perturb.training.plan import Plan, State
from perturb.training.presentation import presented
from perturb.training.rules import RULES
from perturb.trial.methods import displacement
from perturb.trial.random import NOISE, normals
from perturb.trial.readout import read

Array = np.ndarray


READ_ERROR = 1e-4  # rms, in units of E: what is hidden by it, rounding need not keep


class Weights(Protocol):
    """Where the weights of runs are stored: what is wanted of them is not all that they are."""

    def begin(self, state: State) -> None:
        """state.w as it is stored, before the first update."""

    def write(self, state: State, change: Array, update: int) -> None:
        """Change state.w by wanted changes (R, n)."""

    def store(self, state: State) -> None:
        """Put into state.extra what is needed to go on."""

    def resume(self, state: State) -> None:
        """Go on from a state that was stored."""


class Batch(ByTrials):
    """Updates by trials of an ideal chip, in batches.

    Parameters
    ----------
    objective : Objective or OfRuns
        Shared by all runs, or with other weights held in each.
    plan : Plan
    write : callable, optional
        write(state, change, update): puts the wanted changes (R, n) into state.w; left out, in
        full.
    threads : int, optional
        On which runs are shared out; left out, as many as there are cores.
    precision : {"auto", "float32", "float64"}
        "float32" for networks, codes and rules with a kernel for it, "float64", or "auto": float32
        where rounding of E, about 1e-7 E, does not count, see Notes.
    mismatch : Mismatch, optional
        Of the perturbations, (R, n) numbers each.
    weights : Weights, optional
        Devices that store the weights, see `hardware.training`; in place of `write`.

    Raises
    ------
    InputError
        For "float32" where there is no kernel, or a batch of more patterns than there are.

    Notes
    -----
    An update is w -= eta g or what else `Plan.rule` says, g the mean over K trials of dE D/sigma^2.

    "auto" is float64 where sigma is below 1e-3, as rounding would cost more than 1e-4 E in every
    g_i; and for the rules "sign" and "keep-if-better" where readings have an rms error below 1e-4.
    Where units are saturated, float32 loses all of dE, and an exact sign of it would make a whole
    step (with y = 20 before a logistic output, such runs never move in float32); other rules would
    make one of 1e-7 eta E/sigma at most, and a larger error of readings hides such signs. The price
    of float64: an update takes 6 to 16 times as long (digits, 64-32-10), and of small networks, for
    which NumPy's calls are most of it, 14 to 330 times (2-2-1, 49-4-4). Whoever knows that units do
    not saturate may ask for float32.

    References
    ----------
    Jabri and Flower, Weight perturbation, IEEE Trans. Neural Networks 3 (1992) 154-157.

    Examples
    --------
    Pairs over a whole Walsh period are exact on a quadratic E, here in float64:

    >>> import numpy as np
    >>> import perturb
    >>> from perturb.training import Batch, Plan, begin
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> plan = Plan(code="walsh", trials_per_update=4, eta=0.25)
    >>> state = begin(np.zeros(2), plan)
    >>> Batch(objective, plan, precision="float64").advance(state, 1)
    >>> state.w.round(6)
    array([[0.25, 0.25]])
    """

    def __init__(
        self,
        objective: Learned,
        plan: Plan,
        write: Write | None = None,
        threads: int | None = None,
        precision: str = "auto",
        mismatch: Mismatch | None = None,
        weights: Weights | None = None,
    ):
        choose("precision", precision, {"auto": 0, "float32": 0, "float64": 0})
        # devices round what is written, and kernels write in full
        possible = write is None and weights is None and has_trial_kernel(objective, plan)
        if precision == "float32" and not possible:
            raise InputError(
                'precision = "float32" has no kernel for this network, code, rule or device: use'
                ' "auto"'
            )
        if precision == "auto":
            precision = "float32" if possible and _rounding_is_small(plan) else "float64"
        super().__init__(plan, objective.n_weights, objective.n_patterns)
        self.objective, self.mismatch = objective, mismatch
        self.threads, self.precision, self.weights = threads, precision, weights
        self.write = weights.write if weights else write or write_in_full

    def advance(self, state: State, updates: int) -> None:
        """Do the next updates of all runs that go on.

        Parameters
        ----------
        state : State
            Is changed.
        updates : int
            How many.
        """
        check_state(state, self.objective)
        if self.precision == "float32":
            learn_in_kernel(self.objective, self.plan, self.mismatch, state, updates, self.threads)
            return
        # devices hold the starting weights only as nearly as they can
        if self.weights and state.update == 0:
            self.weights.begin(state)
        advance(self, state, updates)
        if self.weights:
            self.weights.store(state)

    def resume(self, state: State) -> None:
        """Go on from a state that was stored.

        Parameters
        ----------
        state : State
        """
        if self.weights:
            self.weights.resume(state)

    def measure(self, state: State, trial: int, D: Array, V: Array) -> Array:
        """E of every phase, on what the trial shows, as read.

        Parameters
        ----------
        state : State
        trial : int
        D, V : array (R, n)

        Returns
        -------
        array (phases, R)
        """
        gain, offset = self.mismatch or (1.0, 0.0)
        applied = gain * D
        points = [
            state.w + displacement(phase, applied, self.plan.r * V, offset)
            for phase in self.plan.method.phases
        ]
        return self._read(state, trial, points)

    def answer(self, evaluation: Evaluation) -> float:
        """E as an ideal chip reads it in an evaluation that `AskTell` or `AskEstimate` asks for.

        Parameters
        ----------
        evaluation : Evaluation

        Returns
        -------
        float
            With the noise that the same evaluation has in `train`.
        """
        objective, reading = self.objective.of_run(0), self.plan.reading
        if evaluation.patterns is not None:
            objective = objective.subset(evaluation.patterns)
        errors = objective.errors_at(evaluation.weights[None])[0]
        xi = np.zeros(errors.size)
        normals(np.uint64(evaluation.seed), NOISE, evaluation.trial, evaluation.phase, xi)
        top = reading.range - reading.step
        return float(read(errors, xi, reading.noise, reading.step, top).mean())

    def _read(self, state: State, trial: int, points: list[Array]) -> Array:
        """E of the phases' points (R, n) each, on what the trial shows, as read: (phases, R)."""
        plan, S, P, R = self.plan, self.objective.n_patterns, len(points), len(points[0])
        B = plan.batch or S
        # (P R, S) to (P, R, S): every pattern at every point in one call
        if B == S:
            errors = self.objective.errors_at(np.concatenate(points)).reshape(P, R, -1)
        else:
            errors = np.empty((P, R, B))
            # runs are shown different patterns, so each is evaluated by itself
            for run in range(R):
                rows = presented(plan.seed_of(run), trial // plan.sample_every, 1, B, S)[0]
                errors[:, run] = (
                    self.objective.of_run(run)
                    .subset(rows)
                    .errors_at(np.array([point[run] for point in points]))
                )
        reading = plan.reading
        E = np.empty((P, R))
        for phase, at in enumerate(plan.method.phases):
            free = plan.baseline_free and at == (0, 0)
            xi = np.zeros((R, errors.shape[2]))
            if reading.noise and not free:
                # keyed by run, trial and phase: the same noise, whatever goes on beside it
                for run, seed in enumerate(seeds_of(plan, R)):
                    normals(seed, NOISE, trial, phase, xi[run])
            step = 0.0 if free else reading.step
            E[phase] = read(
                errors[phase], xi, 0.0 if free else reading.noise, step, reading.range - step
            ).mean(1)
        return E

    def readings(self, state: State, run: int, trial: int, first: int, displaced: Array) -> Array:
        """E of a run at displaced weights, on all patterns.

        Parameters
        ----------
        state : State
        run, trial, first : int
            As phases from `first` on of this trial.
        displaced : array (k, n)
            By how much.

        Returns
        -------
        array (k,)
        """
        reading = self.plan.reading
        errors = self.objective.of_run(run).errors_at(state.w[run] + displaced)
        xi = np.zeros(errors.shape)
        for k, row in enumerate(xi):
            normals(np.uint64(self.plan.seed_of(run)), NOISE, trial, first + k, row)
        return read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean(1)

    def meter(self, state: State, run: int, v: Array, design: Design, trials: int) -> Meter:
        """What reads E of trials at the weights of a run, for an estimate.

        Parameters
        ----------
        state : State
        run : int
        v : array (n,)
        design : Design
        trials : int
            From 0 on.

        Returns
        -------
        Meter
        """
        objective = self.objective.of_run(run)
        check_point(objective, state.w[run], v, design)
        return Meter(objective, design, self.plan.reading)


def _rounding_is_small(plan: Plan) -> bool:
    """Whether rounding of E in float32 does not count for these updates."""
    exact = plan.reading.variance(1) < READ_ERROR**2
    return plan.sigma >= 1e-3 and not (RULES[plan.rule].by_sign and exact)
