"""Layers as one writes them down: `Conv2d(16, 5, padding=2)`, or the text "conv2d 16 5 padding=2".

Shapes are channels first, (channels, *positions), as in ONNX; a flatten is in C order.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, ClassVar

from perturb.checks import boolean, integer
from perturb.errors import InputError, choose, cut
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.layers.maps import (
    ActivationPart,
    AveragePoolPart,
    MaxPoolPart,
    ReshapePart,
    TransposePart,
)
from perturb.networks.layers.part import Chain, Part, ResidualPart, Shape
from perturb.networks.layers.products import ConvolutionPart, LinearPart, ScalingPart
from perturb.networks.layers.windows import Pads, Windows

# of every number of a layer: a slip of the keyboard is refused before memory is asked for
MAX_SIZE = 10_000_000
# residuals within each other, each of which calls the next: they must not use up the stack
MAX_NESTED = 50
# arguments that a text gives by their place, all others by name
BY_PLACE = ("outputs", "channels", "window", "shape", "axes")
Sizes = int | tuple[int, ...]
# one for all axes, or for each axis one number or (before, after)
Padding = int | tuple[int | tuple[int, int], ...]


class Layer(ABC):
    """What all layers have: a name in texts, and `on`, which makes a `Part` of a layer once the
    shape of its input is known.
    """

    text: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]  # every layer is a dataclass

    @abstractmethod
    def on(self, shape: Shape) -> Part:
        """The layer on inputs of a shape (channels, *positions); InputError if they do not fit."""

    def __str__(self) -> str:
        words = [self.text]
        for option in fields(self):
            value = getattr(self, option.name)
            # what is left out is the default again when the text is read
            if value != option.default:
                given = _written(value)
                words.append(given if option.name in BY_PLACE else f"{option.name}={given}")
        return " ".join(words)


@dataclass(frozen=True)
class Linear(Layer):
    """Every neuron from every input, as in an `MLP`: weights (n_in, n_out) in C order, then the
    biases.
    """

    outputs: int
    bias: bool = True
    text: ClassVar[str] = "linear"

    def on(self, shape: Shape) -> Part:
        integer("outputs", self.outputs, 1, MAX_SIZE)
        if len(shape) > 1:
            raise InputError('it takes neurons, without positions: put "flatten" before it')
        return LinearPart(shape[0], self.outputs, boolean("bias", self.bias))


@dataclass(frozen=True)
class _Convolution(Layer):
    channels: int
    window: Sizes
    stride: Sizes = 1
    padding: Padding = 0
    groups: int = 1
    bias: bool = True
    axes: ClassVar[int]

    def on(self, shape: Shape) -> Part:
        integer("channels", self.channels, 1, MAX_SIZE)
        integer("groups", self.groups, 1, MAX_SIZE)
        windows = _windows(shape, self.window, self.stride, self.padding, self.axes)
        # each group makes channels/groups outputs of n_in/groups inputs
        for name, count in (("channels", self.channels), ("channels of its input", shape[0])):
            if count % self.groups:
                raise InputError(f"groups = {self.groups} must divide the {count} {name}")
        bias = boolean("bias", self.bias)
        return ConvolutionPart(windows, self.channels, self.groups, bias)


@dataclass(frozen=True)
class Conv1d(_Convolution):
    """A kernel (channels, n_in/groups, window) at every position, then the biases."""

    text: ClassVar[str] = "conv1d"
    axes: ClassVar[int] = 1


@dataclass(frozen=True)
class Conv2d(_Convolution):
    """A kernel (channels, n_in/groups, *window) at every position, then the biases.

    window, stride and padding: one number for both axes, or one for each; padding also (before,
    after) of each axis. groups: of channels that see each other only; as many as the input has
    channels make a depthwise convolution.
    """

    text: ClassVar[str] = "conv2d"
    axes: ClassVar[int] = 2


@dataclass(frozen=True)
class MaxPool(Layer):
    """The largest of each window; `stride` left out is the window."""

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = 0
    text: ClassVar[str] = "maxpool"

    def on(self, shape: Shape) -> Part:
        stride = self.window if self.stride is None else self.stride
        windows = _windows(shape, self.window, stride, self.padding)
        # the largest of padding alone would be -inf
        _check_padding(windows)
        return MaxPoolPart(windows)


@dataclass(frozen=True)
class AveragePool(Layer):
    """The mean of each window; padding counts as zeros with count_padding, or not at all."""

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = 0
    count_padding: bool = False
    text: ClassVar[str] = "averagepool"

    def on(self, shape: Shape) -> Part:
        stride = self.window if self.stride is None else self.stride
        windows = _windows(shape, self.window, stride, self.padding)
        # the mean of no entry would be 0/0
        _check_padding(windows)
        return AveragePoolPart(windows, boolean("count_padding", self.count_padding))


@dataclass(frozen=True)
class GlobalAveragePool(Layer):
    """The mean of each channel: shape (channels, 1, ...)."""

    text: ClassVar[str] = "globalaveragepool"

    def on(self, shape: Shape) -> Part:
        # one window over all positions; neurons, which have none, are refused there
        return AveragePool(shape[1:]).on(shape)


@dataclass(frozen=True)
class Flatten(Layer):
    """All entries as neurons, in C order."""

    text: ClassVar[str] = "flatten"

    def on(self, shape: Shape) -> Part:
        return ReshapePart(shape, (prod(shape),))


@dataclass(frozen=True)
class Reshape(Layer):
    """The same entries, in C order, in another shape (channels, *positions)."""

    shape: tuple[int, ...]
    text: ClassVar[str] = "reshape"

    def on(self, shape: Shape) -> Part:
        to = _integers("shape", self.shape, 1, MAX_SIZE)
        if prod(to) != prod(shape):
            raise InputError(f"shape {to} has {prod(to)} entries, its input {prod(shape)}")
        return ReshapePart(shape, to)


@dataclass(frozen=True)
class Transpose(Layer):
    """The same axes in another order, numbered from 0, the channels."""

    axes: tuple[int, ...]
    text: ClassVar[str] = "transpose"

    def on(self, shape: Shape) -> Part:
        axes = _integers("axes", self.axes, 0, MAX_SIZE)
        if sorted(axes) != list(range(len(shape))):
            raise InputError(f"axes {axes} must name each of 0..{len(shape) - 1} once")
        return TransposePart(shape, axes)


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y' = a y + b of each channel, batch normalisation with its statistics folded in: weights a,
    then b.
    """

    text: ClassVar[str] = "batchnorm"

    def on(self, shape: Shape) -> Part:
        return ScalingPart(shape)


@dataclass(frozen=True)
class Activation(Layer):
    """One of `activations.ACTIVATIONS` for every neuron; its text is its name."""

    name: str

    def on(self, shape: Shape) -> Part:
        choose("name", self.name, ACTIVATIONS)
        return ActivationPart(shape, self.name)

    def __str__(self) -> str:
        return str(self.name)


@dataclass(frozen=True)
class Residual(Layer):
    """The sum of two paths from the same input, such as of a residual network; the second, left
    out, is the input itself. depth: how many are within each other, itself included.
    """

    path: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()
    depth: int = field(init=False, repr=False, compare=False)
    text: ClassVar[str] = "residual"

    def __post_init__(self) -> None:
        # here and not in `on`, which of too many would not come back
        path, shortcut = _layers("path", self.path), _layers("shortcut", self.shortcut)
        inner = [each for each in (*path, *shortcut) if isinstance(each, Residual)]
        depth = 1 + max((each.depth for each in inner), default=0)
        if depth > MAX_NESTED:
            raise InputError(f"residuals are nested more than {MAX_NESTED} times: use fewer")
        # it is frozen from now on
        for name, value in (("path", path), ("shortcut", shortcut), ("depth", depth)):
            object.__setattr__(self, name, value)

    def on(self, shape: Shape) -> Part:
        path = chained(self.path, shape, "path")
        shortcut = chained(self.shortcut, shape, "shortcut")
        if path.shape != shortcut.shape:
            raise InputError(
                f"its path gives shape {path.shape} but its shortcut {shortcut.shape}: they are"
                " added up, and must be alike"
            )
        return ResidualPart(path, shortcut)

    def __str__(self) -> str:
        path, shortcut = ("; ".join(map(str, layers)) for layers in (self.path, self.shortcut))
        return f"residual({path}{' | ' * bool(shortcut)}{shortcut})"


class _Misfit(InputError):
    """A layer does not fit. places: of the layers that it is in, outermost first, and its own."""

    def __init__(self, places: tuple[str, ...], what: str):
        self.places, self.what = places, what
        # of many within each other the first and the last say where it is
        named = places if len(places) <= 5 else (*places[:2], "...", *places[-2:])
        super().__init__(f"{', '.join(named)} = {what}")


def chained(layers: Sequence[Layer], shape: Shape, name: str = "layers") -> Chain:
    """Layers one after the other, on inputs of a shape; InputError names what does not fit."""
    # of no layers at all, such as a shortcut left out, the input is the output
    first = shape
    parts: list[Part] = []
    for number, layer in enumerate(layers):
        place = f"{name}[{number}]"
        try:
            part = layer.on(shape)
        except _Misfit as error:
            # of a layer of one of its paths, which is named already
            raise _Misfit((place, *error.places), error.what) from None
        except InputError as error:
            what = f'"{cut(str(layer), 60)}" does not fit its input of shape {shape}: {error}'
            raise _Misfit((place,), what) from None
        parts.append(part)
        shape = part.shape
    return Chain(parts, first)


# by the first word of their texts; an activation is known by its own name instead
LAYERS: dict[str, type[Layer]] = {
    layer.text: layer
    for layer in (
        Linear,
        Conv1d,
        Conv2d,
        MaxPool,
        AveragePool,
        GlobalAveragePool,
        Flatten,
        Reshape,
        Transpose,
        BatchNorm,
        Residual,
    )
}


def _layers(name: str, value: Any) -> tuple[Layer, ...]:
    """A path, or InputError."""
    if not isinstance(value, (tuple, list)):
        raise InputError(
            f"{name} = {cut(str(value), 60)} must be a tuple of layers, such as (Linear(4),)"
        )
    for each in value:
        if not isinstance(each, Layer):
            raise InputError(
                f"{name} has {cut(repr(each), 60)}, which is no layer: give objects such as"
                " Linear(4)"
            )
    return tuple(value)


def _integers(name: str, value: Any, least: int, most: int) -> tuple[int, ...]:
    """Integers in least..most; a single one, as a text of one number gives it, is a tuple of it."""
    given = value if isinstance(value, tuple) else (value,)
    return tuple(integer(name, one, least, most) for one in given)


def _written(value: object) -> str:
    """A value as a text has it: 2x3 for (2, 3), 0:1 for a pair of paddings."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "x".join(
            ":".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in value
        )
    return str(value)


def _windows(
    shape: Shape, size: Sizes, stride: Sizes, padding: Padding, axes: int | None = None
) -> Windows:
    """Windows on inputs of a shape, or InputError for what does not fit."""
    # all axes but that of the channels
    count = len(shape) - 1
    if count != axes if axes else not count:
        wanted = {None: "positions", 1: "one axis of positions", 2: "two axes of positions"}[axes]
        raise InputError(f"it takes channels with {wanted}")
    sizes, strides = _each("window", size, count, 1), _each("stride", stride, count, 1)
    given = padding if isinstance(padding, tuple) else (padding,) * count
    if len(given) != count:
        raise InputError(f"padding = {_written(padding)} must be one number, or {count} of them")
    # one number: as many before as after
    pads: Pads = tuple(each if isinstance(each, tuple) else (each, each) for each in given)
    for pair in pads:
        if len(pair) != 2:
            raise InputError(f"padding = {pair} of an axis must be one number, or (before, after)")
        for each in pair:
            integer("padding", each, 0, MAX_SIZE)
    # otherwise there would be no window
    for n, k, (before, after) in zip(shape[1:], sizes, pads, strict=True):
        if k > n + before + after:
            raise InputError(
                f"its window of {k} is larger than the {n + before + after} positions of its input,"
                " padding included"
            )
    return Windows(shape, sizes, strides, pads)


def _each(name: str, value: Sizes, count: int, least: int) -> tuple[int, ...]:
    """One number for each axis."""
    each = _integers(name, value if isinstance(value, tuple) else (value,) * count, least, MAX_SIZE)
    if len(each) != count:
        raise InputError(f"{name} = {_written(value)} must be one number, or {count} of them")
    return each


def _check_padding(windows: Windows) -> None:
    """A pool must not have a window of padding alone."""
    for k, (before, after) in zip(windows.size, windows.padding, strict=True):
        if max(before, after) >= k:
            raise InputError(f"padding of {max(before, after)} must be less than the window of {k}")
