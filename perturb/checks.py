"""Checks of arguments: each gives the value as the program uses it, or InputError with name,
value and condition.
"""

from typing import Any

import numpy as np

from perturb.errors import InputError

Array = np.ndarray


def as_weights(name: str, value: object, n: int) -> Array:
    """`value` as a finite float64 vector of shape (n,), or InputError."""
    array = as_floats(name, value)
    if array.shape != (n,):
        raise InputError(
            f"{name} has shape {array.shape}, but the network has {n} weights: give an array of"
            f" shape ({n},)"
        )
    return array


def as_directions(name: str, value: object, n: int) -> Array:
    """`value` as finite float64 directions of shape (n,) or (n, k), or InputError."""
    array = as_floats(name, value)
    if array.ndim not in (1, 2) or array.shape[0] != n:
        raise InputError(
            f"{name} has shape {array.shape}, but the network has {n} weights: give shape ({n},) or"
            f" ({n}, k)"
        )
    return array


def as_floats(name: str, value: object) -> Array:
    """`value` as a finite float64 array, the caller's own where it is one, or InputError."""
    try:
        array = np.asarray(value)
        # complex numbers and texts would be converted without a word
        if array.dtype.kind not in "biufO":
            raise TypeError(f"its entries are of type {array.dtype}")
        array = array.astype(float, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read as an array of real numbers ({error}): give numbers only"
        ) from None
    if not (finite := np.isfinite(array)).all():
        bad = ~finite
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        entry = f"{name}{list(where) if where else ''} = {array[where]}"
        raise InputError(f"{entry} is not finite ({bad.sum()} such entries): replace or drop them")
    return array


def as_number(name: str, value: object) -> float:
    """`value` as a finite float, or InputError."""
    number = as_floats(name, value)
    if number.ndim:
        raise InputError(f"{name} has shape {number.shape}: give one number")
    return float(number)


def read_only_copy(array: Array) -> Array:
    """A read-only copy: nobody changes it unseen."""
    array = np.array(array, order="C")
    array.setflags(write=False)
    return array


def positive(name: str, value: Any) -> float:
    """`value` as a finite float > 0, or InputError."""
    return _number(name, value, 0.0, np.inf, "be a positive number", open_below=True)


def at_least_zero(name: str, value: Any) -> float:
    """`value` as a finite float >= 0, or InputError."""
    return _number(name, value, 0.0, np.inf, "be a finite number >= 0")


def below_one(name: str, value: Any) -> float:
    """`value` as a float in [0, 1), or InputError."""
    return _number(name, value, 0.0, 1.0, "lie in [0, 1)")


def between_0_and_1(name: str, value: Any) -> float:
    """`value` as a float in (0, 1), or InputError."""
    return _number(name, value, 0.0, 1.0, "lie between 0 and 1", open_below=True)


def boolean(name: str, value: Any) -> bool:
    """`value` as a bool, or InputError."""
    # 1 and "no" would be taken for true without a word
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} = {value!r} must be true or false")
    return bool(value)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`value` as an int in least..most, or InputError."""
    # True is an int for Python, and a mistake here
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (whole and least <= value and (most is None or value <= most)):
        limits = (
            f">= {least}"
            if most is None
            else f"from {least} to {'2^64 - 1' if most == 2**64 - 1 else most}"
        )
        raise InputError(f"{name} = {value!r} must be an integer {limits}")
    return int(value)


def _number(
    name: str, value: Any, least: float, below: float, kind: str, open_below: bool = False
) -> float:
    # NaN compares false with everything, and so is refused
    real = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
    if real and least <= value < below and not (open_below and value == least):
        return float(value)
    raise InputError(f"{name} = {value if real else repr(value)} must {kind}")
