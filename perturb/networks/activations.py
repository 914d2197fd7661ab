"""Activation functions with their first two derivatives: all that R{.} needs of a neuron.

A new activation is one call of `add_activation`; the ones here also have a compiled twin of f in
`kernels.activations`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from perturb.errors import InputError, choose

Array = np.ndarray


# of 1 - y (or 1 - y^2): below it has lost more than four bits of what x still tells
SATURATED = 1 / 16


class Activation(NamedTuple):
    """y = f(x), f' = df(x, y) and f'' = d2f(x, y, f'), elementwise, exact to rounding at every x.

    The derivatives take x beside y: y alone does not tell how far a neuron is in saturation.
    """

    f: Callable[[Array], Array]
    df: Callable[[Array, Array], Array]
    d2f: Callable[[Array, Array, Array], Array]


def _tanh_slope(x: Array, y: Array) -> Array:
    # tanh' = 1 - y^2, of which little is left in saturation
    slope = y * y
    np.subtract(1.0, slope, out=slope)
    near = np.flatnonzero(slope < SATURATED)
    if near.size:
        # the same from x: sech^2 x = 4 t/(1 + t)^2, t = exp(-2|x|), without a difference
        t = np.exp(-2.0 * np.abs(x.take(near)))
        slope.put(near, 4.0 * t / (1.0 + t) ** 2)
    return slope


def _logistic_slope(x: Array, y: Array) -> Array:
    # y (1 - y)
    slope = 1.0 - y
    near = np.flatnonzero(slope < SATURATED)
    if near.size:
        # 1 - y = y exp(-x)
        slope.put(near, y.take(near) * np.exp(-x.take(near)))
    slope *= y
    return slope


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(
        lambda x: x,
        lambda x, y: np.ones_like(x),
        lambda x, y, df: np.zeros_like(x),
    ),
    "tanh": Activation(
        np.tanh,
        _tanh_slope,
        # d/dx (1 - y^2) = -2 y y'
        lambda x, y, df: -2.0 * y * df,
    ),
    "logistic": Activation(
        expit,
        _logistic_slope,
        # d/dx y (1 - y)
        lambda x, y, df: (1.0 - 2.0 * y) * df,
    ),
    "relu": Activation(
        lambda x: np.maximum(x, 0.0),
        # 0 at 0, by convention
        lambda x, y: (x > 0.0).astype(float),
        lambda x, y, df: np.zeros_like(x),
    ),
    "softplus": Activation(
        # ln(1 + exp x), whose derivative is the logistic function p, and p' = p (1 - p)
        lambda x: np.logaddexp(0.0, x),
        lambda x, y: expit(x),
        lambda x, y, df: df * expit(-x),
    ),
}


def names_of_units(activation: str | Mapping[int, str], n_units: int) -> list[str]:
    """The activation of each unit: one name for all, or {unit: name}, tanh where left out."""
    if isinstance(activation, str):
        choose("activation", activation, ACTIVATIONS)
        return [activation] * n_units
    if not isinstance(activation, Mapping):
        raise InputError(
            f"activation = {activation!r} must be a name for all neurons, or {{unit: name}}"
        )
    for unit, name in activation.items():
        choose(f"activation[{unit}]", name, ACTIVATIONS)
        if not (isinstance(unit, (int, np.integer)) and 0 <= unit < n_units):
            raise InputError(
                f"activation names neuron {unit!r}, which does not exist: neurons are 0 to"
                f" {n_units - 1}"
            )
    return [activation.get(unit, "tanh") for unit in range(n_units)]


def per_unit(names: Sequence[str], axis: int = -1) -> Activation:
    """Applies names[j] to entry j of the last axis, or (axis = 0) of the first."""
    # nothing to gather and scatter where all are alike
    if len(set(names)) == 1:
        return ACTIVATIONS[names[0]]
    before = () if axis == 0 else (...,)
    # units of one activation together: one call for each different function
    groups = [
        ((*before, np.flatnonzero(np.array(names) == name)), ACTIVATIONS[name])
        for name in dict.fromkeys(names)
    ]

    def mixed(kind: str) -> Callable[..., Array]:
        def apply(*arrays: Array) -> Array:
            out = np.empty_like(arrays[0])
            for units, activation in groups:
                out[units] = getattr(activation, kind)(*(array[units] for array in arrays))
            return out

        return apply

    return Activation(mixed("f"), mixed("df"), mixed("d2f"))


def add_activation(
    name: str,
    f: Callable[[Array], Array],
    df: Callable[[Array, Array], Array],
    d2f: Callable[[Array, Array], Array],
) -> None:
    """Make y = f(x) an activation for every network, under a new name.

    Parameters
    ----------
    name : str
        The name by which networks ask for it; it must be new.
    f : callable
        f(x), elementwise on an array of any shape, built of NumPy's functions.
    df : callable
        f' as df(x, y) with y = f(x), an array of the shape of x.
    d2f : callable
        f'' as d2f(x, y) with y = f(x), an array of the shape of x.

    Raises
    ------
    InputError
        If the name exists, a function does not take arrays or returns another shape, or a
        derivative is wrong: df and d2f are compared with central differences of f and df at 25
        points between -3.1 and 2.9.

    Notes
    -----
    Trials of networks with an activation of your own run without a compiled kernel.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> perturb.add_activation(
    ...     "sine", np.sin, lambda x, y: np.cos(x), lambda x, y: -y
    ... )
    >>> perturb.MLP([2, 3, 1], activation="sine").n_weights
    13
    """
    if name in ACTIVATIONS:
        raise InputError(f"activation {name!r} exists already: choose another name")
    new = Activation(f, df, lambda x, y, df: d2f(x, y))
    # not symmetric about 0 and without 0: corners such as that of relu are not met
    x, eps = np.linspace(-3.1, 2.9, 25), 1e-5
    try:
        values = (f(x), df(x, f(x)), d2f(x, f(x)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"activation {name!r} does not take arrays ({error}): build it of NumPy's functions"
        ) from None
    if any(np.shape(value) != x.shape for value in values):
        raise InputError(
            f"activation {name!r}: f, df and d2f must return an array of the shape of x"
        )
    for what, higher, lower in (("df", df, lambda x: f(x)), ("d2f", d2f, lambda x: df(x, f(x)))):
        given, wanted = higher(x, f(x)), (lower(x + eps) - lower(x - eps)) / (2 * eps)
        wrong = ~np.isclose(given, wanted, rtol=1e-6, atol=1e-7)
        if wrong.any():
            at = x[np.argmax(wrong)]
            raise InputError(
                f"activation {name!r}: {what} is not the derivative at x = {at:.3g}: correct it"
            )
    ACTIVATIONS[name] = new
