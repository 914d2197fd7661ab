"""Networks of layers as a chip evaluates them: step by step, for many points at a time.

Neurons are the channels that a product gives. A batchnorm that follows is in them, and so is an
activation after that; without one they are linear. An activation that follows anything else, such
as a pool or a sum of two paths, has neurons of its own. What pools, sums up or only renames is
exact. Activities are (channels, *positions, points, S), or (..., 1, S) where they are the same at
all points.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from perturb.networks.layers.maps import ActivationPart
from perturb.networks.layers.network import Layers
from perturb.networks.layers.part import Chain, Part, ResidualPart, Shape
from perturb.networks.layers.products import Product, ScalingPart

Array = np.ndarray


class Multiply(NamedTuple):
    """By the matrix of that number, with these of the weights."""

    part: Product
    own: slice
    number: int


class Scale(NamedTuple):
    """By a batchnorm with these of the weights."""

    part: ScalingPart
    own: slice


class Settle(NamedTuple):
    """Neurons, the layer of that number; drives: whether others come after them."""

    shape: Shape
    activation: str
    number: int
    drives: bool


class Map(NamedTuple):
    """What has no weights."""

    part: Part


class Split(NamedTuple):
    """Two paths, to be added up."""

    path: list["Step"]
    shortcut: list["Step"]


Step = Multiply | Scale | Settle | Map | Split
# (number of the matrix, weights (m, groups, inputs, outputs), biases (m, groups, 1, outputs) or
# None, inputs (m or 1, groups, uses, inputs)): outputs (m, groups, uses, outputs)
Product_ = Callable[[int, Array, Array | None, Array], Array]
Neurons_ = Callable[[Settle, Array], Array]  # net inputs to what is transmitted, shapes alike


class Walk:
    """The steps of a network; layers: those of its neurons."""

    def __init__(self, network: Layers):
        self.network = network
        self.layers: list[Settle] = []
        self._matrices = 0
        self._steps = list(self._of_chain(network.chain, 0, False))

    def _of_chain(self, chain: Chain, first: int, later: bool) -> Iterator[Step]:
        """first: number of its first weight. later: whether neurons or products come after it."""
        # batchnorm and activation belong to the neurons of the product before them; what else comes
        # after it finds its neurons linear
        open_: Shape | None = None  # of a product whose neurons have not come yet
        for k, (part, own) in enumerate(zip(chain.parts, chain.slices, strict=True)):
            if open_ and not isinstance(part, ScalingPart | ActivationPart):
                yield self._neurons(open_, "linear", later or any(map(_computes, chain.parts[k:])))
                open_ = None
            after = later or any(map(_computes, chain.parts[k + 1 :]))
            # from numbers within the chain to those within all weights
            own = slice(first + own.start, first + own.stop)
            if isinstance(part, Product):
                yield Multiply(part, own, self._matrices)
                self._matrices += 1
                open_ = part.shape
            elif isinstance(part, ScalingPart):
                yield Scale(part, own)
            elif isinstance(part, ActivationPart):
                yield self._neurons(part.shape, part.name, after)
                open_ = None
            elif isinstance(part, ResidualPart):
                path = list(self._of_chain(part.path, own.start, after))
                middle = own.start + part.path.n_weights
                yield Split(path, list(self._of_chain(part.shortcut, middle, after)))
            else:
                yield Map(part)
        if open_:
            yield self._neurons(open_, "linear", later)

    def _neurons(self, shape: Shape, activation: str, drives: bool) -> Settle:
        self.layers.append(Settle(shape, activation, len(self.layers), drives))
        return self.layers[-1]

    def outputs(self, w: Array, x: Array, product: Product_, neurons: Neurons_) -> Array:
        """(m, S, outputs) at points w (m, n), on patterns x (m or 1, S, inputs)."""
        # (channels, *positions, m or 1, S)
        y = np.moveaxis(x, -1, 0).reshape(*self.network.input_shape, *x.shape[:2])
        y = _walked(self._steps, w, y, product, neurons)
        # (outputs, m, S), also where no step has told the points apart
        return np.moveaxis(np.broadcast_to(y, (len(y), len(w), y.shape[-1])), 0, -1)


def _walked(steps: list[Step], w: Array, y: Array, product: Product_, neurons: Neurons_) -> Array:
    for step in steps:
        match step:
            case Multiply(part, own, number):
                y = _multiplied(part, w[:, own], y, partial(product, number))
            case Scale(part, own):
                y = _scaled(w[:, own], y)
            case Settle():
                y = neurons(step, y)
            case Map(part):
                # points and patterns are one axis to it
                flat = part.output(w[0, :0], y.reshape(*y.shape[:-2], -1))
                y = flat.reshape(*part.shape, *y.shape[-2:])
            case Split(path, shortcut):
                a, b = (_walked(each, w, y, product, neurons) for each in (path, shortcut))
                y = a + b
    return y


def _multiplied(
    part: Product, w: Array, y: Array, product: Callable[[Array, Array | None, Array], Array]
) -> Array:
    points, S = y.shape[-2:]
    uses = part.n_products * S
    c = part.prepare(y.reshape(*y.shape[:-2], -1))
    c = c.reshape(part.groups, part.columns, part.n_products, points, S)
    # all uses of a pattern, then those of the next, as `Crossbar.sums` takes them
    c = c.transpose(3, 0, 4, 2, 1).reshape(points, part.groups, uses, part.columns)
    bias = part.biases(w)[:, :, None] if part.bias else None
    x = product(part.matrix(w).swapaxes(-1, -2), bias, c)
    # back to (groups * rows, *positions, m, S)
    x = x.reshape(len(w), part.groups, S, part.n_products, part.rows)
    return x.transpose(1, 4, 3, 0, 2).reshape(*part.shape, len(w), S)


def _scaled(w: Array, y: Array) -> Array:
    # each (channels, m), to go with (channels, *positions, m or 1, S)
    a, b = w.reshape(len(w), 2, -1).transpose(1, 2, 0)
    of_channels = (len(y), *(1,) * (y.ndim - 3), len(w), 1)
    return a.reshape(of_channels) * y + b.reshape(of_channels)


def by_neuron(y: Array, per_position: bool) -> Array:
    """Activities as (points, S, positions, channels), or (points, S, neurons) if every position
    has neurons of its own, in C order.
    """
    channels, *positions, points, S = y.shape
    y = y.reshape(channels, prod(positions), points, S)
    # neurons in C order of an activity: positions of a channel next to each other
    if per_position:
        return y.transpose(2, 3, 0, 1).reshape(points, S, -1)
    return y.transpose(2, 3, 1, 0)


def by_channel(y: Array, shape: Shape, per_position: bool) -> Array:
    """The inverse of `by_neuron`."""
    points, S = y.shape[:2]
    if per_position:
        return y.transpose(2, 0, 1).reshape(*shape, points, S)
    return y.transpose(3, 2, 0, 1).reshape(*shape, points, S)


def _computes(part: Part) -> bool:
    """Whether it multiplies or has neurons."""
    if isinstance(part, ResidualPart):
        return any(map(_computes, [*part.path.parts, *part.shortcut.parts]))
    return isinstance(part, Product | ActivationPart)
