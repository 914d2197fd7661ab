"""Options of learning: what a field of a plan means, and which values it takes."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

import numpy as np

from perturb.errors import InputError, choose

LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}
MOST = 2**40  # of what is counted


def option(default: Any, meaning: str = "", **limits: Any) -> Any:
    """A field of a plan: what it means, and what its values are limited by.

    limits: ge, gt, le and lt of numbers, whole where the default is; among: the names that it is
    one of. alone: an option of a whole study, which those that are compared in it have in common.
    """
    return field(default=default, metadata={"meaning": meaning, **limits})


def check_option(name: str, value: Any, default: object, limits: Mapping[str, Any]) -> None:
    """InputError unless a value is within the limits of its `option`."""
    if "among" in limits:
        choose(name, value, dict.fromkeys(limits["among"]))
        return
    broken = [(sign, limits[key], holds) for key, (sign, holds) in LIMITS.items() if key in limits]
    whole = isinstance(default, int)
    number = (
        isinstance(value, (int, np.integer))
        if whole
        else isinstance(value, (int, float, np.number))
    )
    if number and abs(value) < math.inf:
        broken = [(sign, limit, holds) for sign, limit, holds in broken if not holds(value, limit)]
        if not broken:
            return
    wanted = " and ".join(f"{sign} {limit}" for sign, limit, _ in broken)
    raise InputError(
        f"{name} = {value!r} must be {'an integer' if whole else 'a finite number'} {wanted}"
    )
