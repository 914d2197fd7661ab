"""Learning by weight perturbation: estimates of the gradient, and of curvature, change the weights
that they were made at.

Several runs go side by side, each from its own starting weights and with its own seed. The loop is
`advance` and `accumulated`, below: perturb, measure, broadcast, accumulate, update, as in
multiplexed gradient descent (McCaughan et al. 2023), whose periods tau_p, tau_x, tau_theta are
`perturb_every`, `sample_every` and `trials_per_update`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from perturb.checks import as_floats
from perturb.errors import InputError
from perturb.training.of_runs import Learned
from perturb.training.plan import Plan, State, count_updates
from perturb.training.rules import MATRIX, RULES, Inputs, wanted_change
from perturb.training.updates import curvature_of, direction, rates_at

Array = np.ndarray
Write = Callable[
    [State, Array, int], None
]  # (state, wanted changes (R, n), number of the update): changes state.w


ROUNDING = 1e-9  # of E, relative to it


class Source(Protocol):
    """Where updates come from."""

    plan: Plan

    def advance(self, state: State, updates: int) -> None:
        """Do the next updates of all runs that go on."""

    def resume(self, state: State) -> None:
        """Go on from a state that was stored."""


class Told(NamedTuple):
    """What the trials of an update tell.

    Attributes
    ----------
    g, z : array (R, n)
        Means over the trials.
    D : array (R, n)
        Of the last trial.
    dE : array (R,)
        Of the last trial.
    """

    g: Array
    z: Array
    D: Array
    dE: Array


class Trials(Protocol):
    """What the loop takes of whoever makes trials."""

    plan: Plan

    def perturb(self, trial: int, R: int) -> tuple[Array, Array]:
        """D (R, n) of a trial, and as the synapses sense it."""

    def measure(self, state: State, trial: int, D: Array, V: Array) -> Array | None:
        """E (phases, R) at w + a D + b r v, as read; None of a trial that is left out."""


class NothingTold(Exception):
    """What an update hangs on has been left out."""


class Updating(Protocol):
    """What the loop takes of a source, whether it learns from trials or from exact derivatives."""

    plan: Plan
    variance: float  # of a reading of E on all patterns

    def write(self, state: State, change: Array, update: int) -> None:
        """Make the changes (R, n) of an update: of state.w, or of what it is read from."""

    def told(self, state: State, update: int, V: Array) -> Told:
        """g, and z of the directions V (R, n); from trials, by `accumulated`."""

    def product(self, state: State, update: int, number: int, V: Array) -> Array:
        """z = Hv (R, n), number 1, 2, ... of an update."""

    def measure_rates(self, state: State, update: int, g: Array) -> None:
        """Measure the learning rates anew."""

    def rise(self, state: State, update: int, change: Array) -> Array:
        """E(w + change) - E(w) (R,), on all patterns, as read."""


def advance(source: Updating, state: State, updates: int) -> None:
    """The loop, update by update: w += change(rule, g, z)."""
    plan, (R, n) = source.plan, state.w.shape
    for update in range(state.update, state.update + updates):
        # zeros, unless the rule needs z of the same trials: the points are then w + a D
        V = np.array([direction(plan, run, update, n) for run in range(R)])
        g, z, D, dE = source.told(state, update, V)
        if plan.measures_rate(update):
            source.measure_rates(state, update, g)

        # update; a rule that takes products Hp of its own makes trials for each
        curved = curvature_of(plan, g, z, partial(source.product, state, update))
        rates = rates_at(plan, state, update)
        change = wanted_change(Inputs(plan, state.memory, rates, update, g, D, dE, V, curved))
        if plan.block:
            rise = source.rise(state, update, change)
            # a blocked update is counted as done all the same, with its readings
            change[blocked(plan, rise, source.variance)] = 0.0
        # also of runs that have failed in the trials of this very update
        change[~state.going] = 0.0
        source.write(state, change, update)
        count_updates(state, plan, 1)
        average(state, plan)


def accumulated(source: Trials, state: State, first: int, V: Array) -> Told:
    """The loop, trial by trial: K trials of an update, from `first` on."""
    plan, K = source.plan, source.plan.trials_per_update
    # trials are numbered through all updates, those for products Hp included
    sigma = plan.sigma_at(first // plan.trials_of_an_update)
    g, z = np.zeros_like(state.w), np.zeros_like(state.w)
    told = 0
    for trial in range(first, first + K):
        D, sensed = source.perturb(trial, len(state.w))
        if (E := source.measure(state, trial, D, V)) is None:
            continue
        told += 1
        # broadcast dE and u, accumulate in every synapse
        # a product with a matrix would round by how many runs there are
        dE, u = (
            sum(a * E_phase for a, E_phase in zip(weights, E, strict=True))
            for weights in (plan.method.gradient_weights, plan.method.hv_weights)
        )
        # g^ = <dE D_i>/sigma^2, with D as the synapse knows it; E was measured with D as applied
        g += dE[:, None] * sensed / (K * sigma**2)
        # z^ = <u D_i>/(r sigma^2), of methods whose regressor is dw; no rule reads it of others
        z += u[:, None] * sensed / (K * plan.r * sigma**2)
        # the first failure of a run is kept
        state.failed[~np.isfinite(dE + u) & (state.failed < 0)] = trial
        last = D, dE
    if not told:
        raise NothingTold
    # means over the trials that were not left out
    return Told(g, z, *last) if told == K else Told(g * (K / told), z * (K / told), *last)


def blocked(plan: Plan, rise: Array, variance: float) -> Array:
    """Which updates (R,) are not made, for E(w + change) - E(w) from two readings of this variance;
    also those of which that is not known.
    """
    # not `rise > ...`: a rise that is not a number blocks; sqrt(2), of a difference of readings
    return ~(rise <= plan.block * np.sqrt(2 * variance))


def average(state: State, plan: Plan) -> None:
    """The mean of the weights after updates average_from, average_from + 1, ..., of runs that go
    on: memory "mean"; before, the weights themselves.
    """
    if plan.average_from:
        # the mean so far weighs k - 1 of k updates; before it begins the share is 1, which copies w
        share = 1 / max(1, state.update - plan.average_from + 1)
        mean = state.memory["mean"]
        mean += np.where(state.going[:, None], share * (state.w - mean), 0.0)


def stop_where_still(state: State, plan: Plan) -> None:
    """End the runs whose weights have changed by less than `stop_change` since this was last looked
    at, `stop_every` updates ago.
    """
    if plan.stop_change and state.update % plan.stop_every == 0:
        moved = np.sqrt(((state.w - state.memory["before"]) ** 2).mean(1))
        state.memory["stopped"][state.going & (moved < plan.stop_change)] = state.update
        state.memory["before"] = state.w.copy()


def stop_without_gain(state: State, plan: Plan, validation: Learned | None) -> None:
    """End the runs whose E on patterns for validation has not become smaller in the last `patience`
    looks, one every `stop_every` updates; what the best look saw is remembered.
    """
    if not plan.patience or validation is None or state.update % plan.stop_every:
        return
    memory, w = state.memory, state.current
    least, waited = memory["best_error"], memory["waited"]
    for run in map(int, np.flatnonzero(state.going)):
        with np.errstate(all="ignore"):
            E = validation.of_run(run).error(w[run])
        # a gain that rounding may make is none: it could depend on the number of threads
        waited[run] += 1
        if E < least[run] - (ROUNDING * abs(least[run]) if np.isfinite(least[run]) else 0.0):
            least[run], memory["best"][run], waited[run] = E, w[run], 0
    memory["stopped"][state.going & (waited >= plan.patience)] = state.update


def train(
    source: Source,
    start: State,
    updates: int,
    every: int,
    callback: Callable[[State], object] | None = None,
    validation: Learned | None = None,
) -> Iterator[State]:
    """Learn, and yield the state now and then.

    Parameters
    ----------
    source : Source
        What makes the updates: `Batch`, `Exact`, or one of hardware.
    start : State
        As from `begin`, or stored.
    updates : int
        Until so many are done in all, or all runs have failed or stopped (`Plan.stop_change`,
        `Plan.patience`).
    every : int
        Updates between two looks.
    callback : callable, optional
        callback(state) at every look; learning ends when it gives something true.
    validation : Objective or OfRuns, optional
        E of the same weights on patterns that are not learned from, which `Plan.patience` needs.

    Yields
    ------
    State
        The start, and then after every `every` updates. It is always the same object: copy what has
        to outlast the next one.

    Notes
    -----
    The caller may stop, look or plot between; a state that was stored and read again goes on to the
    same bits.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> from perturb.training import Exact, Plan, begin, train
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> plan = Plan(eta=0.25)
    >>> [round(objective.error(state.w[0]), 4) for state in
    ...     train(Exact(objective, plan), begin(np.zeros(2), plan), updates=2, every=1)]
    [0.5, 0.125, 0.0312]
    """
    plan = source.plan
    if plan.patience and validation is None:
        raise InputError(
            f"patience = {plan.patience} judges by patterns that are not learned from: give"
            " train(..., validation=their objective), or 0"
        )
    # a call of `advance` ends at the next look or window, so that a kernel need not know either
    window = plan.stop_every if plan.stop_change or plan.patience else every
    enough = callback or (lambda state: False)
    yield start
    while not enough(start) and start.update < updates and start.going.any():
        # at multiples of `every`, also when a run goes on from between two of them
        look = min(updates, start.update - start.update % every + every)
        while start.update < look and start.going.any():
            source.advance(start, min(window - start.update % window, look - start.update))
            stop_where_still(start, plan)
            stop_without_gain(start, plan, validation)
        yield start


def begin(w: Array, plan: Plan) -> State:
    """The state before the first update.

    Parameters
    ----------
    w : array of shape (R, n) or (n,)
        Starting weights of each run.
    plan : Plan

    Returns
    -------
    State

    Raises
    ------
    InputError
        For the rule "newton-mean" and more than 2,000 weights, whose matrix it stores, and for a
        plan that is to be calibrated first.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb.training import Plan, begin
    >>> begin(np.zeros(3), Plan()).w.shape
    (1, 3)
    """
    if plan.calibrate and not plan.is_calibrated:
        raise InputError(
            f"calibrate = {plan.calibrate} but the plan is as given: learn by"
            " plan.calibrated(objective, w, updates)"
        )
    # a copy: learning changes it in place
    w = np.atleast_2d(as_floats("w", w)).copy()
    R, n = w.shape
    memory = {}
    for name, axes in RULES[plan.rule].memory:
        if axes > 1 and n > MATRIX:
            raise InputError(
                f'rule = "{plan.rule}" keeps n x n numbers, but {n} weights are more than {MATRIX}:'
                " use newton-cg"
            )
        # one number a run (0 axes), one a weight (1), or a matrix (2)
        memory[name] = np.zeros((R, *axes * (n,)))
    if plan.rate != "fixed":
        # no step, until an update has measured a rate: the first one does
        memory["eta"] = np.zeros(R)
    if plan.average_from:
        memory["mean"] = w.copy()
    none = np.full(R, -1, dtype=np.int64)
    if plan.stop_change:
        memory["before"] = w.copy()
    if plan.patience:
        memory |= {"best": w.copy(), "best_error": np.full(R, np.inf), "waited": np.zeros(R)}
    if plan.stop_change or plan.patience:
        memory["stopped"] = none.copy()
    return State(w, evaluations=plan.evaluations(0), memory=memory, failed=none)


def write_in_full(state: State, change: Array, update: int) -> None:
    state.w += change


def check_state(state: State, objective: Learned) -> None:
    """InputError unless the weights of a state are those of the objective."""
    if state.w.ndim != 2 or state.w.shape[1] != objective.n_weights:
        raise InputError(f"w has shape {state.w.shape}, but must be (runs, {objective.n_weights})")
