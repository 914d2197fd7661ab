"""Checks of what a network is given: patterns, targets, numbers of neurons."""

import numpy as np

from perturb.checks import as_floats, read_only_copy
from perturb.errors import InputError

Array = np.ndarray


def as_units(name: str, units: object, n_units: int) -> Array:
    """`units` as an int array of different unit numbers, or InputError."""
    chosen = np.array(units)
    if chosen.ndim != 1 or not len(chosen) or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(f"{name} = {units!r} must be a list of at least one neuron number")
    wrong = [int(unit) for unit in chosen if not 0 <= unit < n_units]
    if wrong:
        raise InputError(
            f"{name} names neuron {wrong[0]}, which does not exist: neurons are 0 to {n_units - 1}"
        )
    if len(set(chosen.tolist())) < len(chosen):
        raise InputError(f"{name} = {chosen.tolist()} names a neuron twice: name it once")
    return chosen.astype(int)


def as_patterns(
    inputs: object, targets: object, n_in: int, n_out: int, error: str
) -> tuple[Array, Array]:
    """Inputs (S, n_in) and targets (S, n_out) as finite float64, or InputError.

    cross_entropy takes class numbers (S,) as targets too.
    """
    x, target = as_floats("x", inputs), as_floats("target", targets)
    if x.ndim != 2 or x.shape[1] != n_in or x.shape[0] < 1:
        raise InputError(
            f"x has shape {x.shape}, but the network has {n_in} inputs: give shape (patterns,"
            f" {n_in})"
        )
    if error == "cross_entropy" and target.ndim == 1 and target.shape[0] == x.shape[0]:
        if not np.isin(target, np.arange(n_out)).all():
            raise InputError(
                f"target holds class numbers outside 0..{n_out - 1}: the network has {n_out}"
                " outputs"
            )
        # class c: 1 at output c, 0 elsewhere
        target = np.eye(n_out)[target.astype(int)]
    if target.shape != (x.shape[0], n_out):
        raise InputError(
            f"target has shape {target.shape}, but must be ({x.shape[0]}, {n_out}): one row per row"
            " of x"
        )
    # what is cached at w holds for these data alone, so that nobody may change them
    return read_only_copy(x), read_only_copy(target)


def as_states(states: Array, n_visible: int, values: tuple[float, float]) -> Array:
    """Visible states of a Boltzmann machine, (S, n_visible), each entry one of two values, or
    InputError.
    """
    if (
        states.ndim != 2
        or not len(states)
        or states.shape[1] != n_visible
        or not np.isin(states, values).all()
    ):
        low, high = values
        raise InputError(
            f"visible states have shape {states.shape}: give one row or more of {n_visible}"
            f" entries {low:g} or {high:g}"
        )
    return states
