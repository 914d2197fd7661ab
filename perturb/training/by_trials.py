"""Updates by trials, whoever reads E: an objective, or somebody outside."""

from abc import ABC, abstractmethod
from functools import partial

import numpy as np

from perturb.errors import InputError
from perturb.estimation.design import Design
from perturb.estimation.engine import run_readings
from perturb.estimation.meter import Readings
from perturb.estimation.solution import Estimate, solve
from perturb.estimation.statistics import Statistics
from perturb.kernels.training import draw_runs
from perturb.seeds import first_seeds
from perturb.training.loop import Told, accumulated
from perturb.training.plan import BLOCK_PHASE, LINE_PHASE, Plan, State
from perturb.training.rates import Estimator, parabolic_step
from perturb.training.rules import of_length_one
from perturb.training.updates import set_rate
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS

Array = np.ndarray


class ByTrials(ABC):
    """What `training.loop` takes of a source, from readings of E: those of trials (`measure`), at
    displaced weights (`readings`), and of trials that measure a rate (`meter`).
    """

    def __init__(self, plan: Plan, n_weights: int, n_patterns: int):
        check_estimable(plan)
        if plan.batch > n_patterns:
            raise InputError(
                f"batch = {plan.batch} but there are {n_patterns} patterns: lower it, or 0 for all"
            )
        self.plan, self.n_weights = plan, n_weights
        self.variance = plan.reading.variance(n_patterns)

    @abstractmethod
    def measure(self, state: State, trial: int, D: Array, V: Array) -> Array | None:
        """E of every phase, on what the trial shows, as read.

        Parameters
        ----------
        state : State
        trial : int
        D, V : array (R, n)

        Returns
        -------
        array (phases, R) or None
            None of a trial that is left out.
        """

    @abstractmethod
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

    @abstractmethod
    def meter(self, state: State, run: int, v: Array, design: Design, trials: int) -> Readings:
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
        Readings
        """

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
        return self._round(state, update * self.plan.trials_of_an_update, V)

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
        return size * self._round(state, first, V).z

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
        trial = self._last_of_gradient(update)
        for run in map(int, np.flatnonzero(state.going)):
            own = g[run]
            if plan.rate == "line":
                read_along = partial(self.readings, state, run, trial, LINE_PHASE)
                state.memory["eta"][run] = parabolic_step(plan.sigma, own, read_along)
            else:
                estimator = self._estimator(state, run)
                set_rate(plan, state, run, update, own, estimator, self.variance)

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
        rise = np.zeros(len(change))
        trial = self._last_of_gradient(update)
        for run in map(int, np.flatnonzero(state.going)):
            at = np.array([0.0 * change[run], change[run]])
            # displacements of the two readings: none, and the whole change
            before, after = self.readings(state, run, trial, BLOCK_PHASE, at)
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
        plan, code, n = self.plan, self.plan.code, self.n_weights
        # perturb_every trials share a number, and with it D
        number, seeds = trial // plan.perturb_every, seeds_of(plan, R)
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

    def _round(self, state: State, first: int, V: Array) -> Told:
        return accumulated(self, state, first, V)

    def _last_of_gradient(self, update: int) -> int:
        """The last trial of g: readings beside the trials are numbered as phases of it that no
        method has.
        """
        plan = self.plan
        return update * plan.trials_of_an_update + plan.trials_per_update - 1

    def _estimator(self, state: State, run: int) -> Estimator:
        plan = self.plan

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            code = CODES["rademacher"]
            design = Design(METHODS[method], code, v.size, plan.sigma, plan.r, seed)
            statistics = Statistics(design)
            meter = self.meter(state, run, v, design, trials)
            run_readings(meter, state.w[run], v, statistics, trials)
            return solve(statistics)

        return estimator


def check_estimable(plan: Plan) -> None:
    """InputError for what trials cannot tell."""
    if plan.curvature != "hessian":
        raise InputError(
            f'curvature = "{plan.curvature}" is for exact gradients, as trials tell of H alone: set'
            ' "hessian"'
        )


def seeds_of(plan: Plan, runs: int) -> Array:
    """`Plan.seed_of` the runs, (runs,), looked up: every trial asks for them."""
    return first_seeds(plan.seed, "run", plan.first_run + runs)[plan.first_run :]
