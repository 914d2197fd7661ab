"""Learning by weight perturbation: estimates of the gradient, and of curvature, change the weights
that they were made at.

Several runs go side by side, each from its own starting weights and with its own seed. Per update
of a run, from K trials:

    perturb       D of trial t from the code, a new one every `perturb_every` trials
    measure E(w + a D + b r v) at every phase (a, b) of the method, on the patterns shown, new ones
    every `sample_every`
    broadcast     dE = sum of the phases' weights times E;  for z: u likewise
    accumulate    g_i += dE D_i / (K sigma^2),  z_i += u D_i / (K r sigma^2)
    update        w += change(rule, g, z), through `write` if there is one: a device, a converter

as in multiplexed gradient descent (McCaughan et al. 2023), whose periods tau_p, tau_x, tau_theta
are `perturb_every`, `sample_every` and `trials_per_update`.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from perturb.checks import as_floats
from perturb.errors import InputError
from perturb.networks.objective import Objective
from perturb.training.plan import Plan, State
from perturb.training.rules import MATRIX

Array = np.ndarray


class Source(Protocol):
    """Where updates come from."""

    def advance(self, state: State, updates: int) -> None:
        """Do the next updates of all runs that have not failed."""


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
    memory = {"m": np.zeros_like(w)} if plan.rule == "momentum" else {}
    if plan.rule == "diagonal":
        memory = {"h": np.zeros_like(w)}
    if plan.rule == "newton-mean":
        R, n = w.shape
        if n > MATRIX:
            raise InputError(
                f'rule = "newton-mean" keeps n x n numbers, but {n} weights are more than {MATRIX}:'
                " use newton-cg"
            )
        memory = {"H": np.zeros((R, n, n)), "square": np.zeros(R)}
    if plan.rate != "fixed":
        memory["eta"] = np.zeros(len(w))
    return State(w, memory=memory, failed=np.full(len(w), -1, dtype=np.int64))


def check_state(state: State, objective: Objective) -> None:
    """InputError unless the weights of a state are those of the objective."""
    if state.w.ndim != 2 or state.w.shape[1] != objective.n_weights:
        raise InputError(f"w has shape {state.w.shape}, but must be (runs, {objective.n_weights})")
