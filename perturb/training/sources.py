"""Updates by trials of an ideal chip."""

import math
from functools import partial
from typing import Protocol

import numpy as np

from perturb.errors import InputError, choose
from perturb.estimation.engine import Mismatch
from perturb.estimation.estimate import estimate
from perturb.estimation.solution import Estimate
from perturb.kernels.training import draw_runs
from perturb.seeds import first_seeds
from perturb.training.fast import has_trial_kernel, learn_in_kernel
from perturb.training.loop import Told, Write, accumulated, advance, check_state, write_in_full
from perturb.training.of_runs import Learned
from perturb.training.plan import BLOCK_PHASE, LINE_PHASE, Plan, State
from perturb.training.presentation import presented
from perturb.training.rates import Estimator, parabolic_step
from perturb.training.rules import of_length_one
from perturb.training.updates import set_rate
from perturb.trial.random import NOISE, normals
from perturb.trial.readout import read

Array = np.ndarray


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


class Batch:
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
        unless sigma is below 1e-3, where rounding of E, about 1e-7 E, would cost more than 1e-4 E
        in every g_i.
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
            precision = "float32" if possible and plan.sigma >= 1e-3 else "float64"
        check_estimable(plan)
        if plan.batch > objective.n_patterns:
            raise InputError(
                f"batch = {plan.batch} but there are {objective.n_patterns} patterns: lower it, or"
                " 0 for all"
            )
        self.objective, self.plan, self.mismatch = objective, plan, mismatch
        self.threads, self.precision, self.weights = threads, precision, weights
        self.write = weights.write if weights else write or write_in_full
        self.variance = plan.reading.variance(objective.n_patterns)

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

    def told(self, state: State, update: int, V: Array) -> Told:
        """g and z of an update's trials, displaced along V.

        Parameters
        ----------
        state : State
        update : int
        V : array (R, n)

        Returns
        -------
        Told
        """
        # trials for products Hp are numbered too, so that no D comes twice
        return accumulated(self, state, update * self.plan.trials_of_an_update, V)

    def product(self, state: State, update: int, number: int, V: Array) -> Array:
        """z = Hv from trials of its own.

        Parameters
        ----------
        state : State
        update, number : int
            The first product of an update is number 1.
        V : array (R, n)

        Returns
        -------
        array (R, n)
        """
        plan = self.plan
        first = update * plan.trials_of_an_update + number * plan.trials_per_update
        # r displaces by its own length only if |v| = 1; z is linear in v and scaled back
        size, V = of_length_one(V)
        return size * accumulated(self, state, first, V).z

    def measure_rates(self, state: State, update: int, g: Array) -> None:
        """Rates from trials and readings of their own.

        Parameters
        ----------
        state : State
            Its memory "eta" is changed.
        update : int
        g : array (R, n)
        """
        plan = self.plan
        # readings beside the trials have the noise of the last trial of g, in phases no method has
        trial = update * plan.trials_of_an_update + plan.trials_per_update - 1
        for run in map(int, np.flatnonzero(state.going)):
            w, own = state.w[run], g[run]
            if plan.rate == "line":
                read_along = partial(self._readings, w, run, trial, LINE_PHASE)
                state.memory["eta"][run] = parabolic_step(plan.sigma, own, read_along)
            else:
                set_rate(plan, state, run, update, own, self._estimator(run, w), self.variance)

    def rise(self, state: State, update: int, change: Array) -> Array:
        """E(w + change) - E(w), two readings on all patterns.

        Parameters
        ----------
        state : State
        update : int
        change : array (R, n)

        Returns
        -------
        array (R,)
        """
        plan, rise = self.plan, np.zeros(len(change))
        trial = update * plan.trials_of_an_update + plan.trials_per_update - 1
        for run in map(int, np.flatnonzero(state.going)):
            at = np.array([0.0 * change[run], change[run]])
            # displacements of the two readings: none, and the whole change
            before, after = self._readings(state.w[run], run, trial, BLOCK_PHASE, at)
            rise[run] = after - before
        return rise

    def perturb(self, trial: int, R: int) -> tuple[Array, Array]:
        """The perturbations of a trial.

        Parameters
        ----------
        trial, R : int

        Returns
        -------
        D : array (R, n)
        sensed : array (R, n)
            D as the synapses know it.
        """
        plan, code, n = self.plan, self.plan.code, self.objective.n_weights
        # perturb_every trials share a number, and with it D
        number, seeds = trial // plan.perturb_every, _seeds(plan, R)
        sigma = plan.sigma_at(trial // plan.trials_of_an_update)
        D = np.zeros((R, n))
        if code.function is None:
            # all runs in one compiled call, where the code has a number in the kernels
            draw_runs(code.kind, seeds, number, sigma, code.period(n), code.taps(n), D)
        else:
            D[:] = [code.draw(n, sigma, int(seed), number) for seed in seeds]
        if not code.sensing:
            return D, D
        sensed = [
            code.sensed(own, sigma, int(seed), number) for own, seed in zip(D, seeds, strict=True)
        ]
        return D, np.array(sensed)

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
        # offset is of the driver of D: in phases without D it is not there
        points = [
            state.w + (a * applied + offset if a else 0.0) + b * self.plan.r * V
            for a, b in self.plan.method.phases
        ]
        return self._read(state, trial, points)

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
                for run, seed in enumerate(_seeds(plan, R)):
                    normals(seed, NOISE, trial, phase, xi[run])
            step = 0.0 if free else reading.step
            E[phase] = read(
                errors[phase], xi, 0.0 if free else reading.noise, step, reading.range - step
            ).mean(1)
        return E

    def _estimator(self, run: int, w: Array) -> Estimator:
        plan = self.plan
        # `estimate` takes the noise of E, the mean of S independent readings
        noise = plan.reading.noise / math.sqrt(self.objective.n_patterns)

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            return estimate(
                self.objective.of_run(run),
                w,
                v,
                trials,
                method,
                "rademacher",
                plan.sigma,
                plan.r,
                seed,
                noise,
                precision="float64",  # as the trials of plans that measure their rate
            )

        return estimator

    def _readings(self, w: Array, run: int, trial: int, first: int, displaced: Array) -> Array:
        """E (k,) at displacements (k, n) of the weights of a run, on all patterns, as phases from
        `first` on of a trial.
        """
        reading = self.plan.reading
        errors = self.objective.of_run(run).errors_at(w + displaced)
        xi = np.zeros(errors.shape)
        for k, row in enumerate(xi):
            normals(np.uint64(self.plan.seed_of(run)), NOISE, trial, first + k, row)
        return read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean(1)


def check_estimable(plan: Plan) -> None:
    """InputError for what trials cannot tell."""
    if plan.curvature != "hessian":
        raise InputError(
            f'curvature = "{plan.curvature}" is for exact gradients, as trials tell of H alone: set'
            ' "hessian"'
        )


def _seeds(plan: Plan, runs: int) -> Array:
    """`Plan.seed_of` the runs, (runs,), looked up: every trial asks for them."""
    return first_seeds(plan.seed, "run", plan.first_run + runs)[plan.first_run :]
