"""Updates by trials of an ideal chip."""

import math

import numpy as np

from perturb.errors import InputError, choose
from perturb.estimation.engine import Mismatch
from perturb.estimation.estimate import estimate
from perturb.estimation.solution import Estimate
from perturb.kernels.training import draw_runs, learn
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.seeds import first_seeds
from perturb.training.loop import check_state
from perturb.training.plan import LINE_PHASE, RULES, Plan, State, count_updates
from perturb.training.presentation import presented
from perturb.training.rates import Estimator, parabolic_step, set_rate
from perturb.training.rules import directions, of_length_one
from perturb.training.updates import (
    Write,
    architecture,
    each_run,
    has_update_kernel,
    update_weights,
    write_in_full,
)
from perturb.trial.random import NOISE, normals
from perturb.trial.readout import read

Array = np.ndarray


class Batch:
    """Updates by trials of an ideal chip, in batches.

    Parameters
    ----------
    objective : Objective
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
        objective: Objective,
        plan: Plan,
        write: Write | None = None,
        threads: int | None = None,
        precision: str = "auto",
        mismatch: Mismatch | None = None,
    ):
        choose("precision", precision, {"auto": 0, "float32": 0, "float64": 0})
        code = plan.code
        possible = (
            write is None
            and has_update_kernel(objective, plan)
            and code.function is None
            and code.sensing == 0
        )
        possible = possible and not plan.method.displaced
        if precision == "float32" and not possible:
            raise InputError(
                'precision = "float32" has no kernel for this network, code, rule or device: use'
                ' "auto"'
            )
        self.precision = (
            "float32"
            if possible and (precision == "float32" or (precision == "auto" and plan.sigma >= 1e-3))
            else ("float64")
        )
        if plan.batch > objective.n_patterns:
            raise InputError(
                f"batch = {plan.batch} but there are {objective.n_patterns} patterns: lower it, or"
                " 0 for all"
            )
        self.objective, self.plan, self.write, self.mismatch = (
            objective,
            plan,
            write or write_in_full,
            mismatch,
        )
        self.threads, self._period, self._taps = (
            threads,
            code.period(objective.n_weights),
            code.taps(objective.n_weights),
        )

    def advance(self, state: State, updates: int) -> None:
        """Do the next updates of all runs that have not failed.

        Parameters
        ----------
        state : State
            Is changed.
        updates : int
            How many.
        """
        check_state(state, self.objective)
        if self.precision == "float32":
            self._in_kernel(state, updates)
            return
        plan, R = self.plan, len(state.w)
        for update in range(state.update, state.update + updates):
            first = update * plan.trials_of_an_update
            G, Z, dE, D = self._measure(state, first, directions(plan, R, update, state.w.shape[1]))
            count = 0

            def product(V: Array, Z: Array = Z, first: int = first) -> Array:
                nonlocal count
                if plan.uses_signs:
                    return Z
                count += 1
                size, V = of_length_one(V)
                return size * self._measure(state, first + count * plan.trials_per_update, V)[1]

            for run in map(int, np.flatnonzero(state.failed < 0)):
                if plan.rate == "line":
                    state.memory["eta"][run] = self._parabolic_step(
                        state.w[run], G[run], run, first + plan.trials_per_update - 1
                    )
                elif plan.rate != "fixed" and update % plan.tune_every == 0:
                    variance = plan.reading.variance(self.objective.n_patterns)
                    set_rate(
                        plan, state, run, update, G[run], self._estimator(state.w[run]), variance
                    )
            update_weights(plan, state, update, G, D, dE, product, self.write)

    def _measure(self, state: State, first: int, V: Array) -> tuple[Array, Array, Array, Array]:
        """Mean g and z (R, n) over an update's trials from `first` on, displaced along V (R, n);
        dE (R,), D of the last.
        """
        plan, R, K = self.plan, len(state.w), self.plan.trials_per_update
        n = state.w.shape[1]
        G, Z, dE, D = np.zeros((R, n)), np.zeros((R, n)), np.zeros(R), np.zeros((R, n))
        for trial in range(first, first + K):
            self._draw(trial // plan.perturb_every, D)
            applied = self.mismatch.gain * D if self.mismatch else D
            offset = self.mismatch.offset if self.mismatch else 0.0
            E = self._read(
                state,
                trial,
                [
                    state.w + (a * applied + offset if a else 0.0) + b * plan.r * V
                    for a, b in plan.method.phases
                ],
            )
            dE, u = np.array(plan.method.gradient_weights) @ E, np.array(plan.method.hv_weights) @ E
            for run in np.flatnonzero(~np.isfinite(dE + u) & (state.failed < 0)):
                state.failed[run] = trial
            known = D
            if plan.code.sensing:
                known = np.array(
                    [
                        plan.code.sensed(
                            D[run], plan.sigma, plan.seed_of(run), trial // plan.perturb_every
                        )
                        for run in range(R)
                    ]
                )
            G += dE[:, None] * known / (K * plan.sigma**2)
            Z += u[:, None] * known / (K * plan.r * plan.sigma**2)
        return G, Z, dE, D

    def _draw(self, number: int, D: Array) -> None:
        code, plan = self.plan.code, self.plan
        if code.function is None:
            draw_runs(
                code.kind,
                first_seeds(plan.seed, "run", len(D)),
                number,
                plan.sigma,
                self._period,
                self._taps,
                D,
            )
        else:
            D[:] = [
                code.draw(D.shape[1], plan.sigma, plan.seed_of(run), number)
                for run in range(len(D))
            ]

    def _read(self, state: State, trial: int, points: list[Array]) -> Array:
        """E of the phases' points (R, n) each, on what the trial shows, as read: (phases, R)."""
        plan, S, P, R = self.plan, self.objective.n_patterns, len(points), len(points[0])
        B = plan.batch or S
        if B == S:
            errors = self.objective.errors_at(np.concatenate(points)).reshape(P, R, -1)
        else:
            errors = np.empty((P, R, B))
            for run in range(R):
                rows = presented(plan.seed_of(run), trial // plan.sample_every, 1, B, S)[0]
                errors[:, run] = self.objective.subset(rows).errors_at(
                    np.array([point[run] for point in points])
                )
        reading = plan.reading
        E = np.empty((P, R))
        for phase, at in enumerate(plan.method.phases):
            free = plan.baseline_free and at == (0, 0)
            xi = np.zeros((R, errors.shape[2]))
            if reading.noise and not free:
                for run, seed in enumerate(first_seeds(plan.seed, "run", R)):
                    normals(seed, NOISE, trial, phase, xi[run])
            step = 0.0 if free else reading.step
            E[phase] = read(
                errors[phase], xi, 0.0 if free else reading.noise, step, reading.range - step
            ).mean(1)
        return E

    def _estimator(self, w: Array) -> Estimator:
        plan = self.plan
        noise = plan.reading.noise / math.sqrt(self.objective.n_patterns)

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            return estimate(
                self.objective, w, v, trials, method, "rademacher", plan.sigma, plan.r, seed, noise
            )

        return estimator

    def _parabolic_step(self, w: Array, p: Array, run: int, trial: int) -> float:
        reading = self.plan.reading

        def measured(displaced: Array) -> Array:
            errors = self.objective.errors_at(w + displaced)
            xi = np.zeros(errors.shape)
            for k, row in enumerate(xi):
                normals(np.uint64(self.plan.seed_of(run)), NOISE, trial, LINE_PHASE + k, row)
            return read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean(
                1
            )

        return parabolic_step(self.plan, p, measured)

    def _in_kernel(self, state: State, updates: int) -> None:
        objective, plan, reading = self.objective, self.plan, self.plan.reading
        assert isinstance(objective, MLPObjective)
        K, S = plan.trials_per_update, objective.n_patterns
        first, last, B = state.update * K, (state.update + updates) * K, plan.batch or S
        X, target = (
            np.ascontiguousarray(objective.x, np.float32),
            np.ascontiguousarray(objective.target, np.float32),
        )
        phases, nothing = plan.method.phases, np.zeros(state.w.shape[1])
        gain, offset = self.mismatch or (np.ones_like(state.w), np.zeros_like(state.w))
        free = np.array([plan.baseline_free and phase == (0, 0) for phase in phases], np.int64)

        def one(run: int) -> None:
            if state.failed[run] >= 0:
                return
            m = state.memory["m"][run] if "m" in state.memory else nothing
            begun = first
            while begun < last:  # so many that the patterns shown take some MB at most
                end = min(last, begun + max(1, 2**20 // (B * K)) * K)
                every = plan.sample_every if B < S else 2**62  # all patterns: nothing changes
                from_, to = begun // every, (end - 1) // every
                rows = (
                    presented(plan.seed_of(run), from_, to - from_ + 1, B, S)
                    if B < S
                    else np.arange(S)[None]
                )
                failed = learn(
                    *architecture(objective),
                    X,
                    target,
                    rows,
                    state.w[run],
                    m,
                    gain[run],
                    offset[run],
                    np.array([float(a) for a, _ in phases]),
                    np.array(plan.method.gradient_weights),
                    free,
                    RULES[plan.rule].kind,
                    plan.eta,
                    plan.decay,
                    plan.momentum,
                    plan.code.kind,
                    plan.sigma,
                    self._period,
                    self._taps,
                    np.uint64(plan.seed_of(run)),
                    np.float32(reading.noise),
                    np.float32(reading.step),
                    np.float32(reading.range - reading.step),
                    K,
                    plan.perturb_every,
                    every,
                    begun,
                    end,
                )
                if failed >= 0:
                    state.failed[run] = failed
                    return
                begun = end

        each_run(one, len(state.w), self.threads)
        count_updates(state, plan, updates)
