"""The rules of R{.}, by which Pearlmutter (1994) turns any algorithm for a gradient into one for
Hv.

R{f(w)} = d/dr f(w + r v) at r = 0. A `Pair` holds a value and its R{.}; the rules below take pairs
to pairs. The networks of this package apply them by hand, layer by layer; here they stand alone, to
try a new derivation on.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Pair(NamedTuple):
    """A value and its R{.}, of the same shape."""

    value: Array
    R: Array


def weights(w: Array, v: Array) -> Pair:
    """R{w} = v."""
    return Pair(np.asarray(w, dtype=float), np.asarray(v, dtype=float))


def constant(c: Array) -> Pair:
    """R{c} = 0 for what does not depend on w."""
    return Pair(np.asarray(c, dtype=float), np.zeros(np.shape(c)))


def total(a: Pair, b: Pair) -> Pair:
    """R{a + b} = R{a} + R{b}."""
    return Pair(a.value + b.value, a.R + b.R)


def product(a: Pair, b: Pair, multiply: Callable[[Array, Array], Array] = np.multiply) -> Pair:
    """R{a b} = R{a} b + a R{b}, for any bilinear `multiply`, such as np.matmul."""
    # in the order of the factors: products of matrices do not commute
    return Pair(multiply(a.value, b.value), multiply(a.R, b.value) + multiply(a.value, b.R))


def chain(f: Callable[[Array], Array], df: Callable[[Array], Array], x: Pair) -> Pair:
    """R{f(x)} = f'(x) R{x}, elementwise."""
    return Pair(f(x.value), df(x.value) * x.R)


def rate(x: Pair, dt: float) -> Pair:
    """R{dx/dt} = d R{x}/dt: of trajectories sampled every dt along the first axis, by central
    differences.
    """
    return Pair(np.gradient(x.value, dt, axis=0), np.gradient(x.R, dt, axis=0))
