"""Updates by exact gradients, the control."""

import math

import numpy as np

from perturb.curvature.eigenvalues import eigenpairs
from perturb.kernels.training import descend
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.training.loop import check_state
from perturb.training.plan import RULES, Plan, State, count_updates
from perturb.training.presentation import presented
from perturb.training.rates import rate_of, trace_size
from perturb.training.updates import (
    Write,
    architecture,
    each_run,
    has_update_kernel,
    update_weights,
    write_in_full,
)

Array = np.ndarray


class Exact:
    """The control: updates by exact gradients, and exact z for the rules.

    Of the patterns that the trials of an update would show.

    Parameters
    ----------
    objective : Objective
    plan : Plan
    write : callable, optional
        write(state, change, update): puts the wanted changes (R, n) into state.w; left out, in
        full.
    threads : int, optional
        On which runs are shared out; left out, as many as there are cores.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> from perturb.training import Exact, Plan, begin
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> plan = Plan(eta=0.25)
    >>> state = begin(np.zeros(2), plan)
    >>> Exact(objective, plan).advance(state, 1)
    >>> state.w
    array([[0.25, 0.25]])
    """

    def __init__(
        self,
        objective: Objective,
        plan: Plan,
        write: Write | None = None,
        threads: int | None = None,
    ):
        self.objective, self.plan, self.write, self.threads = (
            objective,
            plan,
            write or write_in_full,
            threads,
        )
        small = (
            objective.n_weights * (plan.batch or objective.n_patterns) <= 2**14
        )  # beyond, BLAS is faster
        self.compiled = small and write is None and has_update_kernel(objective, plan)

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
        plan, R = self.plan, len(state.w)
        if self.compiled:
            self._in_kernel(state, updates)
            return
        for update in range(state.update, state.update + updates):
            shown = [self._shown(update, run) for run in range(R)]
            G = np.array([part.gradient(w) for part, w in zip(shown, state.w, strict=True)])
            size = np.linalg.norm(G, axis=1)
            for run in np.flatnonzero(~np.isfinite(size) & (state.failed < 0)):
                state.failed[run] = state.trial
            # what a trial in the direction of the gradient would do: the rule that keeps what is
            # better always keeps it
            D = (
                -plan.sigma
                * math.sqrt(state.w.shape[1])
                * G
                / np.where(size > 0, size, 1.0)[:, None]
            )

            def product(V: Array, shown: list[Objective] = shown) -> Array:
                return np.array(
                    [part.hvp(w, v) for part, w, v in zip(shown, state.w, V, strict=True)]
                )

            if plan.rate == "line" or (plan.rate != "fixed" and update % plan.tune_every == 0):
                rates = np.array([self._rate(w, g) for w, g in zip(state.w, G, strict=True)])
                state.memory["eta"] = np.where(np.isfinite(rates), rates, state.memory["eta"])
            update_weights(plan, state, update, G, D, -size, product, self.write)

    def _shown(self, update: int, run: int) -> Objective:
        if self.plan.batch in (0, self.objective.n_patterns):
            return self.objective
        return self.objective.subset(self._rows(update, run))

    def _rows(self, update: int, run: int) -> Array:
        """The patterns that the trials of an update show."""
        plan = self.plan
        first, last = update * plan.trials_per_update, (update + 1) * plan.trials_per_update
        from_, to = first // plan.sample_every, (last - 1) // plan.sample_every
        return presented(
            plan.seed_of(run), from_, to - from_ + 1, plan.batch, self.objective.n_patterns
        ).ravel()

    def _in_kernel(self, state: State, updates: int) -> None:
        objective, plan, first = self.objective, self.plan, state.update
        assert isinstance(objective, MLPObjective)
        X, target = np.ascontiguousarray(objective.x), np.ascontiguousarray(objective.target)
        whole = (
            np.arange(objective.n_patterns)[None]
            if plan.batch in (0, objective.n_patterns)
            else None
        )

        def one(run: int) -> None:
            m = state.memory["m"][run] if "m" in state.memory else np.zeros(state.w.shape[1])
            begun, last = first, first + updates
            while begun < last and state.failed[run] < 0:
                # updates that show equally many patterns, some MB of them at most
                rows, end = whole, last
                if rows is None and plan.trials_per_update % plan.sample_every == 0:
                    each = plan.trials_per_update // plan.sample_every  # presentations of an update
                    end = min(last, begun + max(1, 2**20 // (each * plan.batch)))
                    shown = presented(
                        plan.seed_of(run),
                        begun * each,
                        (end - begun) * each,
                        plan.batch,
                        objective.n_patterns,
                    )
                    rows = shown.reshape(end - begun, each * plan.batch)
                elif rows is None:
                    listed = [self._rows(begun, run)]
                    most = max(1, 2**20 // listed[0].size)
                    while begun + len(listed) < last and len(listed) < most:
                        further = self._rows(begun + len(listed), run)
                        if further.size != listed[0].size:
                            break
                        listed.append(further)
                    rows, end = np.array(listed), begun + len(listed)
                failed = descend(
                    *architecture(objective),
                    X,
                    target,
                    rows,
                    state.w[run],
                    m,
                    RULES[plan.rule].kind,
                    plan.eta,
                    plan.decay,
                    plan.momentum,
                    plan.sigma,
                    begun,
                    end,
                )
                if failed >= 0:
                    state.failed[run] = failed * plan.trials_per_update
                begun = end

        each_run(one, len(state.w), self.threads)
        count_updates(state, plan, updates)

    def _rate(self, w: Array, g: Array) -> float:
        objective, plan = self.objective, self.plan
        if not (np.isfinite(w).all() and np.isfinite(g).all()):
            return math.nan
        if plan.rate == "line":
            return rate_of(
                plan, abs(float(g @ objective.hvp(w, g))) / float(g @ g) if g.any() else 0.0, g
            )
        if plan.rate == "eigenvalue":
            found = eigenpairs(objective, w, k=1, which="magnitude").values
            return rate_of(plan, abs(float(found[0])), g) if found.size else math.nan
        trace, square = 0.0, 0.0
        for columns, block in objective.hessian_columns(w):
            trace, square = (
                trace + float(np.diag(block[columns]).sum()),
                square + float((block**2).sum()),
            )
        return rate_of(plan, trace_size(trace, math.sqrt(square)), g)
