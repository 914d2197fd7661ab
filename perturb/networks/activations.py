"""Activation functions with their first two derivatives: all that R{.} needs of a neuron.

A new activation is one call of `add_activation`; the ones here also have a compiled f in
`kernels.activations`, for trials, and where NumPy's is slow it is the only one.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import numpy as np

from perturb.errors import InputError, choose

Array = np.ndarray


class ActivationFunction(NamedTuple):
    """y = f(x), f' = df(x, y) and f'' = d2f(x, y, f'), elementwise, exact to rounding at every x.

    The derivatives take x beside y: y alone does not tell how far a neuron is in saturation.
    both: y and f' of x together, where that costs less than one after the other.
    """

    f: Callable[[Array], Array]
    df: Callable[[Array, Array], Array]
    d2f: Callable[[Array, Array, Array], Array]
    both: Callable[[Array], tuple[Array, Array]] | None = None

    def with_slope(self, x: Array) -> tuple[Array, Array]:
        """f(x) and f'(x)."""
        if self.both is not None:
            return self.both(x)
        y = self.f(x)
        return y, self.df(x, y)


@cache
def kernels() -> ModuleType:
    """`perturb.kernels.activations`, loaded when first needed: Numba takes longer to load than
    commands may take that compute nothing.
    """
    return import_module("perturb.kernels.activations")


def _compiled(name: str, d2f: Callable[[Array, Array, Array], Array]) -> ActivationFunction:
    """The activation of that name with f and f' of the kernels, several times as fast as those of
    NumPy and SciPy.
    """

    def f(x: Array) -> Array:
        # a copy in C order, which the kernel writes over
        y = np.array(x, dtype=float, order="C")
        kernels().activate(kernels().ACTIVATION_KINDS[name], y.reshape(-1))
        return y

    def both(x: Array) -> tuple[Array, Array]:
        y = np.array(x, dtype=float, order="C")
        slope = np.empty_like(y)
        kind = kernels().ACTIVATION_KINDS[name]
        kernels().activate_with_slopes(kind, y.reshape(-1), slope.reshape(-1))
        return y, slope

    return ActivationFunction(f, lambda x, y: both(x)[1], d2f, both)


ACTIVATIONS: dict[str, ActivationFunction] = {
    "linear": ActivationFunction(
        lambda x: x,
        lambda x, y: np.ones_like(x),
        lambda x, y, df: np.zeros_like(x),
    ),
    # d/dx (1 - y^2) = -2 y y'
    "tanh": _compiled("tanh", lambda x, y, df: -2.0 * y * df),
    # d/dx y (1 - y)
    "logistic": _compiled("logistic", lambda x, y, df: (1.0 - 2.0 * y) * df),
    "relu": ActivationFunction(
        lambda x: np.maximum(x, 0.0),
        # 0 at 0, by convention
        lambda x, y: (x > 0.0).astype(float),
        lambda x, y, df: np.zeros_like(x),
    ),
    # ln(1 + exp x), whose derivative is the logistic function p, and p' = p (1 - p)
    "softplus": _compiled("softplus", lambda x, y, df: df * ACTIVATIONS["logistic"].f(-x)),
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


def per_unit(names: Sequence[str], axis: int = -1) -> ActivationFunction:
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

    return ActivationFunction(mixed("f"), mixed("df"), mixed("d2f"))


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
    new = ActivationFunction(f, df, lambda x, y, df: d2f(x, y))
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
