"""Updates by exact gradients, the control."""

import math

import numpy as np

from perturb.networks.objective import Objective
from perturb.training.fast import SHOWN, descend_in_kernel, has_update_kernel
from perturb.training.loop import Told, Write, advance, check_state, write_in_full
from perturb.training.of_runs import Learned
from perturb.training.plan import Plan, State
from perturb.training.presentation import presented
from perturb.training.rates import RATES, rate_of

Array = np.ndarray


class Exact:
    """The control: updates by exact gradients, and exact z for the rules.

    Of the patterns that the trials of an update would show.

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
        objective: Learned,
        plan: Plan,
        write: Write | None = None,
        threads: int | None = None,
    ):
        self.objective, self.plan, self.threads = objective, plan, threads
        self.write = write or write_in_full
        self.variance = 0.0
        # beyond, BLAS is faster
        small = objective.n_weights * (plan.batch or objective.n_patterns) <= 2**14
        self.compiled = small and write is None and has_update_kernel(objective, plan)

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
        if self.compiled:
            assert isinstance(self.objective, Objective)  # no others have a kernel
            descend_in_kernel(self.objective, self.plan, self._rows, state, updates, self.threads)
        else:
            advance(self, state, updates)

    def resume(self, state: State) -> None:
        """Go on from a state that was stored.

        Parameters
        ----------
        state : State
            It is all there is.
        """

    def told(self, state: State, update: int, V: Array) -> Told:
        """Exact g, and z of the directions V (R, n); D is a trial in the direction of the gradient,
        which the rule that keeps what is better always keeps.

        Parameters
        ----------
        state : State
        update : int
        V : array (R, n)

        Returns
        -------
        Told
        """
        g = self.objective.gradients(state.w, self._shown(state, update))
        size = np.linalg.norm(g, axis=1)
        state.failed[~np.isfinite(size) & (state.failed < 0)] = state.trial
        # as long as a perturbation, so that keep-if-better makes steps like those of trials
        of_trial = self.plan.sigma_at(update) * math.sqrt(state.w.shape[1])
        D = -of_trial * g / np.where(size > 0, size, 1.0)[:, None]
        # z is not used; g fills its place
        z = self.product(state, update, 0, V) if self.plan.uses_signs else g
        return Told(g, z, D, -size)

    def product(self, state: State, update: int, number: int, V: Array) -> Array:
        """Exact z = Hv, or Gv where the plan says so.

        Parameters
        ----------
        state : State
        update, number : int
        V : array (R, n)

        Returns
        -------
        array (R, n)
        """
        shown, found = self._shown(state, update), np.empty_like(V)
        for run, w in enumerate(state.w):
            part = self.objective.of_run(run)
            if shown is not None:
                part = part.subset(shown[run])
            of_curvature = (
                part.hvp if self.plan.curvature == "hessian" else part.gauss_newton_product
            )
            found[run] = of_curvature(w, V[run])
        return found

    def measure_rates(self, state: State, update: int, g: Array) -> None:
        """Rates from exact derivatives.

        Parameters
        ----------
        state : State
            Its memory "eta" is changed.
        update : int
        g : array (R, n)
        """
        exact = RATES[self.plan.rate].exact
        assert exact is not None
        for run, (w, own) in enumerate(zip(state.w, g, strict=True)):
            # a run that diverged keeps the rate it had
            if np.isfinite(w).all() and np.isfinite(own).all():
                rate = rate_of(self.plan.sigma, exact(self.objective.of_run(run), w, own), own)
                if math.isfinite(rate):
                    state.memory["eta"][run] = rate

    def rise(self, state: State, update: int, change: Array) -> Array:
        """E(w + change) - E(w) on all patterns, exactly.

        Parameters
        ----------
        state : State
        update : int
        change : array (R, n)

        Returns
        -------
        array (R,)
        """
        errors = self.objective.errors_at(np.concatenate([state.w, state.w + change]))
        before, after = errors.mean(1).reshape(2, -1)
        return after - before

    def _shown(self, state: State, update: int) -> Array | None:
        """The patterns that an update shows to each run, (R, patterns), None where all are."""
        if self.plan.batch in (0, self.objective.n_patterns):
            return None
        return np.array([self._rows(run, update, update + 1)[0][0] for run in range(len(state.w))])

    def _rows(self, run: int, first: int, last: int) -> tuple[Array, int]:
        """The patterns that the trials of updates show, from `first` on, and up to which update:
        equally many in each, some MB of them at most.
        """
        plan, S, K = self.plan, self.objective.n_patterns, self.plan.trials_per_update
        if plan.batch in (0, S):
            return np.arange(S)[None], last
        updates = np.arange(first, min(last, first + max(1, SHOWN // (K * plan.batch))))
        from_ = updates * K // plan.sample_every
        # presentations that the trials of each update meet: not always equally many
        count = ((updates + 1) * K - 1) // plan.sample_every - from_ + 1
        # rows are rectangular: up to the first update that meets another number
        alike = int(np.append(count != count[0], True).argmax())
        shown = int(from_[alike - 1] + count[0] - from_[0])
        rows = presented(plan.seed_of(run), int(from_[0]), shown, plan.batch, S)
        # update k meets presentations from_[k] to from_[k] + count - 1
        places = (from_[:alike] - from_[0])[:, None] + np.arange(count[0])
        return rows[places].reshape(alike, -1), first + alike
