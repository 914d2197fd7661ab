"""Activation functions with their first two derivatives: all that R{.} needs of a unit.

A new activation is one entry of ACTIVATIONS; `kernels.py` has a compiled twin of each value.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit

Array = np.ndarray


class Activation(NamedTuple):
    """y = f(x), with f' and f'' written in terms of x and y, whichever is cheaper."""

    f: Callable[[Array], Array]
    df: Callable[[Array, Array], Array]
    d2f: Callable[[Array, Array], Array]


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(
        lambda x: x,
        lambda x, y: np.ones_like(x),
        lambda x, y: np.zeros_like(x),
    ),
    "tanh": Activation(
        np.tanh,
        lambda x, y: 1.0 - y * y,
        lambda x, y: -2.0 * y * (1.0 - y * y),
    ),
    "logistic": Activation(
        expit,
        lambda x, y: y * (1.0 - y),
        lambda x, y: y * (1.0 - y) * (1.0 - 2.0 * y),
    ),
    "relu": Activation(
        lambda x: np.maximum(x, 0.0),
        lambda x, y: (x > 0.0).astype(float),
        lambda x, y: np.zeros_like(x),
    ),
    "softplus": Activation(
        lambda x: np.logaddexp(0.0, x),
        lambda x, y: expit(x),
        lambda x, y: expit(x) * expit(-x),
    ),
}
