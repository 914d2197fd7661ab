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
from perturb.networks.objective import Objective
from perturb.training.plan import Plan, State, count_updates
from perturb.training.rules import MATRIX, RULES, Inputs, wanted_change
from perturb.training.updates import curvature_of, direction, rates_at

Array = np.ndarray
Write = Callable[
    [State, Array, int], None
]  # (state, wanted changes (R, n), number of the update): changes state.w


class Source(Protocol):
    """Where updates come from."""

    def advance(self, state: State, updates: int) -> None:
        """Do the next updates of all runs that have not failed."""

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

    def measure(self, state: State, trial: int, D: Array, V: Array) -> Array:
        """E (phases, R) at w + a D + b r v, as read."""


class Updating(Protocol):
    """What the loop takes of a source, whether it learns from trials or from exact derivatives."""

    plan: Plan
    write: Write

    def told(self, state: State, update: int, V: Array) -> Told:
        """g, and z of the directions V (R, n); from trials, by `accumulated`."""

    def product(self, state: State, update: int, number: int, V: Array) -> Array:
        """z = Hv (R, n), number 1, 2, ... of an update."""

    def measure_rates(self, state: State, update: int, g: Array) -> None:
        """Measure the learning rates anew."""


def advance(source: Updating, state: State, updates: int) -> None:
    """The loop, update by update: w += change(rule, g, z)."""
    plan, (R, n) = source.plan, state.w.shape
    for update in range(state.update, state.update + updates):
        V = np.array([direction(plan, run, update, n) for run in range(R)])
        g, z, D, dE = source.told(state, update, V)
        if plan.measures_rate(update):
            source.measure_rates(state, update, g)

        # curvature, of a rule that takes products of its own: perturb, measure, ... for each
        curved = curvature_of(plan, g, z, partial(source.product, state, update))
        rates = rates_at(plan, state, update)
        change = wanted_change(Inputs(plan, state.memory, rates, update, g, D, dE, V, curved))
        change[state.failed >= 0] = 0.0
        source.write(state, change, update)
        count_updates(state, plan, 1)


def accumulated(source: Trials, state: State, first: int, V: Array) -> Told:
    """The loop, trial by trial: K trials of an update, from `first` on."""
    plan, K = source.plan, source.plan.trials_per_update
    g, z = np.zeros_like(state.w), np.zeros_like(state.w)
    for trial in range(first, first + K):
        D, sensed = source.perturb(trial, len(state.w))
        E = source.measure(state, trial, D, V)
        # broadcast
        dE, u = np.array(plan.method.gradient_weights) @ E, np.array(plan.method.hv_weights) @ E
        g += dE[:, None] * sensed / (K * plan.sigma**2)
        z += u[:, None] * sensed / (K * plan.r * plan.sigma**2)
        state.failed[~np.isfinite(dE + u) & (state.failed < 0)] = trial
    return Told(g, z, D, dE)


def train(source: Source, start: State, updates: int, every: int) -> Iterator[State]:
    """Learn, and yield the state now and then.

    Parameters
    ----------
    source : Source
        What makes the updates: `Batch`, `Exact`, or one of hardware.
    start : State
        As from `begin`, or stored.
    updates : int
        Until so many are done in all, or all runs have failed.
    every : int
        Updates between two looks.

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
    yield start
    while start.update < updates and not (start.failed >= 0).all():
        source.advance(start, min(every - start.update % every, updates - start.update))
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
        For the rule "newton-mean" and more than 2,000 weights, whose matrix it stores.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb.training import Plan, begin
    >>> begin(np.zeros(3), Plan()).w.shape
    (1, 3)
    """
    w = np.atleast_2d(as_floats("w", w)).copy()
    R, n = w.shape
    memory = {}
    for name, axes in RULES[plan.rule].memory:
        if axes > 1 and n > MATRIX:
            raise InputError(
                f'rule = "{plan.rule}" keeps n x n numbers, but {n} weights are more than {MATRIX}:'
                " use newton-cg"
            )
        memory[name] = np.zeros((R, *axes * (n,)))
    if plan.rate != "fixed":
        memory["eta"] = np.zeros(R)
    return State(w, memory=memory, failed=np.full(R, -1, dtype=np.int64))


def write_in_full(state: State, change: Array, update: int) -> None:
    state.w += change


def check_state(state: State, objective: Objective) -> None:
    """InputError unless the weights of a state are those of the objective."""
    if state.w.ndim != 2 or state.w.shape[1] != objective.n_weights:
        raise InputError(f"w has shape {state.w.shape}, but must be (runs, {objective.n_weights})")
