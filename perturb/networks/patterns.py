"""Checks of what a network is given: patterns, targets, numbers of neurons."""

from typing import Any, NamedTuple

import numpy as np

from perturb.checks import as_floats, read_only_copy
from perturb.errors import InputError, cut

Array = np.ndarray


def as_units(name: str, units: object, n_units: int, kind: str = "neuron") -> Array:
    """`units` as an int array of different numbers of neurons, or another kind; or InputError."""
    chosen = np.array(units)
    if chosen.ndim != 1 or not len(chosen) or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(f"{name} = {units!r} must be a list of at least one {kind} number")
    wrong = chosen[(chosen < 0) | (chosen >= n_units)]
    if len(wrong):
        raise InputError(
            f"{name} names {kind} {wrong[0]}, which does not exist: {kind}s are 0 to {n_units - 1}"
        )
    if len(np.unique(chosen)) < len(chosen):
        raise InputError(
            f"{name} = {cut(str(chosen.tolist()), 60)} names a {kind} twice: name it once"
        )
    return chosen.astype(int)


def weights_of_layers(name: str, layers: object, of_weights: Array) -> Array:
    """The numbers of the weights of some layers, in their order, or InputError; of_weights (n,):
    the layer of each, from 1.
    """
    numbers = np.unique(of_weights[of_weights > 0]).tolist()
    if not numbers:
        raise InputError(
            f"{name} = {cut(str(layers), 60)} but the network has no layers: leave it out"
        )
    chosen = np.array(layers)
    if chosen.ndim != 1 or not len(chosen) or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(
            f"{name} = {cut(str(layers), 60)} must be a list of at least one layer number"
        )
    wrong = [int(layer) for layer in chosen if layer not in numbers]
    if wrong:
        first, last = numbers[0], numbers[-1]
        gaps = len(numbers) <= last - first
        among = ", ".join(map(str, numbers)) if gaps else f"{first} to {last}"
        raise InputError(
            f"{name} names layer {wrong[0]}, but layers that have weights are {cut(among, 60)}"
        )
    if len(set(chosen.tolist())) < len(chosen):
        raise InputError(f"{name} = {cut(str(layers), 60)} names a layer twice: name it once")
    return np.flatnonzero(np.isin(of_weights, chosen))


class Targets(NamedTuple):
    """Targets (S, n_out), and what each output stands for, () if they were no class names. (A
    single output is 1 for the second of two.)
    """

    values: Array
    classes: tuple = ()


def as_patterns(
    inputs: object, targets: object, n_in: int, n_out: int, error: str
) -> tuple[Array, Targets]:
    """Inputs (S, n_in) and targets (S, n_out) as finite float64, or InputError.

    Both may be frames and series of pandas. Targets may be names of classes (S,): texts, truth
    values or a Categorical; cross_entropy takes class numbers (S,) too, a single output numbers
    (S,).
    """
    x = as_floats("x", _numbers(inputs))
    if x.ndim != 2 or x.shape[1] != n_in or x.shape[0] < 1:
        raise InputError(
            f"x has shape {x.shape}, but the network has {n_in} inputs: give shape (patterns,"
            f" {n_in})"
        )
    classes: tuple = ()
    if (named := _named(targets)) is not None:
        codes, classes = named
        target = _coded(codes, classes, n_out)
    else:
        target = as_floats("target", _numbers(targets))
        if error == "cross_entropy" and target.ndim == 1 and target.shape[0] == x.shape[0]:
            if not np.isin(target, np.arange(n_out)).all():
                raise InputError(
                    f"target holds class numbers outside 0..{n_out - 1}: the network has {n_out}"
                    " outputs; names of classes may be any texts"
                )
            # class c: 1 at output c, 0 elsewhere
            target = np.eye(n_out)[target.astype(int)]
        elif target.ndim == 1 and n_out == 1:
            target = target[:, None]
    if target.shape != (x.shape[0], n_out):
        raise InputError(
            f"target has shape {target.shape}, but must be ({x.shape[0]}, {n_out}): one row per row"
            " of x"
        )
    # what is cached at w holds for these data alone, so that nobody may change them
    return read_only_copy(x), Targets(read_only_copy(target), classes)


def _numbers(data: Any) -> object:
    """Data of pandas as an array, what is missing as NaN; anything else as it is."""
    if not hasattr(data, "to_numpy"):
        return data
    try:
        return data.to_numpy(dtype=float, na_value=np.nan)
    # texts, or another library with a method of that name: `as_floats` says what they are
    except (TypeError, ValueError):
        return data.to_numpy()


def _named(targets: Any) -> tuple[Array, tuple] | None:
    """The number (S,) of the class of each pattern, and the classes: those of a Categorical in
    its order, or else as they are sorted. None if the targets are no names.
    """
    # a table of one column is that column
    if hasattr(targets, "iloc") and getattr(targets, "shape", ())[1:] == (1,):
        targets = targets.iloc[:, 0]
    categorical = targets.cat if hasattr(targets, "cat") else targets
    if hasattr(categorical, "categories") and hasattr(categorical, "codes"):
        codes = np.asarray(categorical.codes)
        _all_known(codes < 0)
        return codes, tuple(np.asarray(categorical.categories).tolist())
    # a list as objects: as texts NaN would be the name of a class
    array = np.asarray(targets, dtype=None if hasattr(targets, "dtype") else object)
    if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "USTO":
        array = array[:, 0]
    if array.ndim != 1 or not len(array):
        return None
    names = array.tolist()
    kinds = {str if isinstance(name, str) else type(name) for name in names}
    if kinds == {bool}:
        return np.array(names, dtype=int), (False, True)
    if not {str, bytes} & kinds:
        return None
    _all_known(np.array([name is None or _unlike_itself(name) for name in names]))
    if len(kinds) > 1:
        mixed = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"target mixes {mixed}: name all classes by texts, or number them from 0")
    classes, codes = np.unique(np.array(names), return_inverse=True)
    return codes, tuple(classes.tolist())


def _unlike_itself(name: Any) -> bool:
    """Whether it is NaN, or what pandas has for it."""
    try:
        return bool(name != name)
    except TypeError:  # pandas.NA has no truth value
        return True


def _all_known(missing: Array) -> None:
    if missing.any():
        raise InputError(
            f"target[{int(missing.argmax())}] is missing ({missing.sum()} such entries): name its"
            " class, or drop the pattern"
        )


def _coded(codes: Array, classes: tuple, n_out: int) -> Array:
    """Targets (S, n_out) of numbers of classes: 1 at the output of the class, 0 elsewhere."""
    count, named = len(classes), cut(", ".join(map(str, classes)), 60)
    if n_out == 1:
        # of one class alone nobody knows whether it is the first or the second
        if count != 2:
            raise InputError(
                f"target names {count} class{'es' * (count > 1)} ({named}) but a single output"
                " tells two apart: give the network an output for each class, or the targets as a"
                " pandas Categorical of both classes"
            )
        return codes[:, None].astype(float)
    if count != n_out:
        raise InputError(
            f"target names {count} class{'es' * (count > 1)} ({named}) but the network has {n_out}"
            " outputs: give it one for each class, or a pandas Categorical of all classes"
        )
    return np.eye(n_out)[codes]


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
