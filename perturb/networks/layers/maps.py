"""Layers without weights: activations, pooling, and other shapes of the same numbers."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from perturb.networks.activations import ACTIVATIONS, ActivationFunction
from perturb.networks.layers.part import Array, Fixed, Part, Shape
from perturb.networks.layers.windows import Windows, first_of


@dataclass(eq=False)
class _At:
    """x and y = f(x); f' and f'' are computed when they are first asked for."""

    activation: ActivationFunction
    x: Array
    y: Array

    @cached_property
    def df(self) -> Array:
        return self.activation.df(self.x, self.y)

    # asked for by R backward alone, so that a gradient does without
    @cached_property
    def d2f(self) -> Array:
        return self.activation.d2f(self.x, self.y, self.df)


class ActivationPart(Part):
    """y = f(x)."""

    def __init__(self, shape: Shape, name: str):
        self.shape = shape
        self.name = name
        self.rectifies = name == "relu"

    def forward(self, w: Array, x: Any) -> tuple[Array, Any]:
        # by its name, and only now: functions do not pickle
        activation = ACTIVATIONS[self.name]
        # errors in float32 stay so, whatever a function makes of them
        y = activation.f(x).astype(x.dtype, copy=False)
        return y, _At(activation, x, y)

    def backward(self, w: Array, at: Any, e: Array, wanted: bool) -> tuple[Array, Array, Any]:
        # dE/dx = f' dE/dy
        return at.df * e if wanted else e, w, e

    def R_forward(self, w: Array, v: Array, at: Any, R_x: Array | None) -> tuple[Any, Any]:
        # R{y} = f' R{x}
        return None if R_x is None else at.df * R_x, R_x

    def R_backward(
        self, w: Array, v: Array, at: Any, e: Any, R_x: Any, R_e: Array, wanted: bool
    ) -> tuple[Array, Array]:
        if not wanted:
            return R_e, w
        # R{dE/dx} = f' R{dE/dy} + f'' R{x} dE/dy
        R_Ex = at.df * R_e
        # R{x} = 0 before the first weights
        if R_x is not None:
            R_Ex += at.d2f * R_x * e
        return R_Ex, w

    @property
    def net_variance(self) -> float | None:
        # half of the net inputs are lost, and half of their variance (He et al. 2015)
        return 2.0 if self.name == "relu" else 1.0


class MaxPoolPart(Fixed):
    """The largest of each window. In its derivatives the winner is held: the first of several that
    are equal.
    """

    picks_largest = True

    def __init__(self, windows: Windows):
        self.windows = windows
        self.shape = (windows.channels, *windows.positions)

    def output(self, w: Array, y: Any) -> Array:
        return self.windows.largest(y)

    def forward(self, w: Array, y: Any) -> tuple[Array, Any]:
        largest = self.output(w, y)
        # (channels, *positions, S): the number of the winner's place in each window; 16 bits would
        # not do for a window of more than 32,767 places
        winner = np.zeros(largest.shape, dtype=np.int32)
        views = list(self.windows.views(self.windows.padded(y, -np.inf)))
        # from the last to the first, which stays; where none wins, not-a-number is the largest
        for number, (_, view) in reversed(list(enumerate(views))):
            np.copyto(winner, number, where=view == largest)
        return largest, winner

    def apply(self, y: Array, winner: Any) -> Array:
        # of R{y} as of y: the entry at the place of the winner
        out = np.empty((*self.shape, y.shape[-1]), dtype=y.dtype)
        for number, (_, view) in enumerate(self.windows.views(self.windows.padded(y))):
            np.copyto(out, view, where=winner == number)
        return out

    def transpose(self, e: Array, winner: Any) -> Array:
        inner = (self.windows.channels, *self.windows.inner, e.shape[-1])
        full = self.windows.padded(np.zeros(inner))
        for number, (_, view) in enumerate(self.windows.views(full)):
            # an entry that wins several windows gets the e of each
            np.add(view, e, out=view, where=winner == number)
        return self.windows.without_padding(full)

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        return _pooled(units, self.windows)


class AveragePoolPart(Fixed):
    """The mean of each window; padding counts as zeros, or (count_padding) not at all."""

    def __init__(self, windows: Windows, count_padding: bool):
        self.windows = windows
        self.shape = (windows.channels, *windows.positions)
        # of an entry in the mean
        self.share: float | Array = 1.0 / prod(windows.size)
        if not count_padding:
            # one for each window, (channels, *positions, 1): its entries that are no padding
            self.share = 1.0 / self._totals(np.ones((windows.channels, *windows.inner, 1)))

    def apply(self, y: Array, kept: Any) -> Array:
        total = self._totals(y)
        # in place, so that what is in float32 stays so
        total *= self.share
        return total

    def _totals(self, y: Array) -> Array:
        total = np.zeros((*self.shape, y.shape[-1]), dtype=y.dtype)
        for _, view in self.windows.views(self.windows.padded(y)):
            total += view
        return total

    def transpose(self, e: Array, kept: Any) -> Array:
        inner = (self.windows.channels, *self.windows.inner, e.shape[-1])
        full = self.windows.padded(np.zeros(inner))
        # the transpose of a mean: every entry of a window gets its share of e
        e = self.share * e
        for _, view in self.windows.views(full):
            view += e
        return self.windows.without_padding(full)

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        return _pooled(units, self.windows)


class ReshapePart(Fixed):
    """The same numbers in another shape, in C order."""

    def __init__(self, shape: Shape, to: Shape):
        self.before, self.shape = shape, to

    def apply(self, y: Array, kept: Any) -> Array:
        return y.reshape(*self.shape, y.shape[-1])

    def transpose(self, e: Array, kept: Any) -> Array:
        return e.reshape(*self.before, e.shape[-1])


class TransposePart(Fixed):
    """The same numbers with their axes in another order."""

    def __init__(self, shape: Shape, axes: tuple[int, ...]):
        self.axes = axes
        # the order that undoes it: axes[back[i]] = i
        self.back = tuple(np.argsort(axes).tolist())
        self.shape = tuple(shape[axis] for axis in axes)

    def apply(self, y: Array, kept: Any) -> Array:
        # patterns stay last
        return y.transpose(*self.axes, len(self.axes))

    def transpose(self, e: Array, kept: Any) -> Array:
        return e.transpose(*self.back, len(self.back))

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        none = np.zeros(0, dtype=int)
        return none, none, units.transpose(self.axes)


def _pooled(units: Array, windows: Windows) -> tuple[Array, Array, Array]:
    """Neurons of a pool: those of its channels, of several in a window the first."""
    none = np.zeros(0, dtype=int)
    places = tuple(range(1, 1 + len(windows.size)))
    return none, none, first_of(windows.neurons(units), places)
