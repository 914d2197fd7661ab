"""Windows that move over the positions of an activity, (channels, *positions, S)."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import as_strided

from perturb.networks.layers.part import Array, Shape

Sizes = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


class Windows:
    """Windows of `size` on inputs of a shape (channels, *positions), `stride` apart, with `padding`
    before and after each axis.

    inner, positions: how many entries the input has along each axis, and how many windows.
    """

    def __init__(self, shape: Shape, size: Sizes, stride: Sizes, padding: Pads):
        self.channels = shape[0]
        self.size, self.stride, self.padding = size, stride, padding
        self.inner = shape[1:]
        # entries along each axis, padding included
        self._padded = tuple(n + a + b for n, (a, b) in zip(self.inner, padding, strict=True))
        # whole windows only: what is left over at the end of an axis is in none
        self.positions = tuple(
            (n - k) // s + 1 for n, k, s in zip(self._padded, size, stride, strict=True)
        )

    def padded(self, y: Array, value: float = 0.0) -> Array:
        """The input with its padding."""
        # no copy: whoever writes to it must own y
        if self._padded == self.inner:
            return y
        full = np.full((self.channels, *self._padded, y.shape[-1]), value, dtype=y.dtype)
        full[self._inside()] = y
        return full

    def without_padding(self, full: Array) -> Array:
        """The input without its padding."""
        return full[self._inside()]

    def _inside(self) -> tuple[slice, ...]:
        pairs = zip(self.inner, self.padding, strict=True)
        return (slice(None), *(slice(a, a + n) for n, (a, _) in pairs))

    def views(self, full: Array) -> Iterator[tuple[tuple[int | slice, ...], Array]]:
        """For each place in a window, where it is in `taken`, and what stands there in all windows:
        a view (channels, *positions, S) of a padded input.
        """
        # by places in a window, each a strided view for all windows: so few steps, and nothing is
        # copied
        for place in product(*(range(k) for k in self.size)):
            axes = zip(place, self.positions, self.stride, strict=True)
            # as many entries as there are windows, `stride` apart, from that place of the first
            # window on
            cuts = (slice(first, first + (n - 1) * s + 1, s) for first, n, s in axes)
            yield (slice(None), *place), full[(slice(None), *cuts)]

    def taken(self, y: Array) -> Array:
        """(channels, *size, *positions, S): what stands in every window."""
        full = self.padded(y)
        apart, of_axes, of_patterns = full.strides[0], full.strides[1:-1], full.strides[-1]
        steps = [step * s for step, s in zip(of_axes, self.stride, strict=True)]
        shape = (self.channels, *self.size, *self.positions, y.shape[-1])
        # one view of all windows, which is copied at once
        strides = (apart, *of_axes, *steps, of_patterns)
        return np.ascontiguousarray(as_strided(full, shape, strides, writeable=False))

    def largest(self, y: Array) -> Array:
        """(channels, *positions, S): the largest number of every window, one axis after another."""
        # -inf: padding never wins over an entry
        full = self.padded(y, -np.inf)
        axes = zip(self.size, self.positions, self.stride, strict=True)
        for axis, (size, n, s) in enumerate(axes, 1):
            before = (slice(None),) * axis
            cuts = [(*before, slice(first, first + (n - 1) * s + 1, s)) for first in range(size)]
            found = full[cuts[0]].copy() if size == 1 else np.maximum(full[cuts[0]], full[cuts[1]])
            for cut in cuts[2:]:
                np.maximum(found, full[cut], out=found)
            full = found
        return full

    def neurons(self, units: Array) -> Array:
        """(channels, *size, *positions): the neuron at every place of every window, from those of
        the input, (channels, *inner); -1 in padding.
        """
        return self.taken(units[..., None] + 1)[..., 0] - 1

    def put(self, c: Array) -> Array:
        """The transpose of `taken`: what stands in several windows is added up."""
        c = c.reshape(self.channels, *self.size, *self.positions, -1)
        full = np.zeros((self.channels, *self._padded, c.shape[-1]), dtype=c.dtype)
        for place, view in self.views(full):
            # windows overlap, but at one place of them no entry stands twice: nothing is lost by +=
            view += c[place]
        return self.without_padding(full)


def first_of(units: Array, axes: int | tuple[int, ...]) -> Array:
    """The first neuron along axes, -1 where there is none but padding."""
    axes = (axes,) if isinstance(axes, int) else axes
    # the others in front, those in one
    flat = np.moveaxis(units, axes, range(-len(axes), 0))
    flat = flat.reshape(*flat.shape[: units.ndim - len(axes)], -1)
    where = (flat >= 0).argmax(-1)
    return np.take_along_axis(flat, where[..., None], -1)[..., 0]
