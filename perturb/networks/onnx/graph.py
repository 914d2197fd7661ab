"""What an ONNX graph computes, as layers: from every value in it a trail of steps leads back to the
input of the network, and where two of them are added up, what they do not share is a residual.
"""

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from perturb.checks import as_floats
from perturb.errors import InputError, cut, one_line, shown
from perturb.networks.layers.layer import MAX_NESTED, MAX_SIZE, Layer, Residual
from perturb.networks.layers.part import Array, Shape

if TYPE_CHECKING:
    from onnx import NodeProto

MAX_STEPS = 10_000
# of weights: every number of them is one of float64
FLOATS = ("float32", "float64")


class Node:
    """A node of an ONNX graph: op, its operator; inputs, outputs: names of values, "" for one that
    is left out.
    """

    def __init__(self, proto: "NodeProto", number: int):
        from onnx import helper

        self.op = proto.op_type
        self.domain = proto.domain
        self.inputs, self.outputs = list(proto.input), list(proto.output)
        # exporters need not name nodes, but every value has a name
        self.name = proto.name or f"{number}, of {', '.join(self.outputs)}"
        self._given = {a.name: helper.get_attribute_value(a) for a in proto.attribute}

    def error(self, what: str) -> InputError:
        """What is wrong with the node, and what to do."""
        return InputError(f"node {one_line(cut(self.name, 100))} ({one_line(self.op)}): {what}")

    def integer(self, name: str, default: int) -> int:
        value = self._given.get(name, default)
        if not isinstance(value, int):
            raise self._wrong(name, value, "an integer")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._given.get(name, default)
        # a damaged file may hold NaN, which an alpha would bring into all weights
        if not isinstance(value, (int, float)) or not np.isfinite(value):
            raise self._wrong(name, value, "a finite number")
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self._given.get(name, default)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            raise self._wrong(name, value, "a text")
        return value

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """As many as `default` has."""
        value = self._given.get(name, default)
        if not (
            isinstance(value, (list, tuple))
            and len(value) == len(default)
            and all(isinstance(each, int) for each in value)
        ):
            raise self._wrong(name, value, f"{len(default)} integers")
        return tuple(value)

    def given(self, name: str) -> Any:
        """An attribute as it is, None if it is absent."""
        return self._given.get(name)

    def only(self, name: str, value: object, allowed: bool, mend: str) -> None:
        """InputError for a setting that layers do not have."""
        if not allowed:
            raise self.error(f"{name} = {shown(value)} is not supported: {mend}")

    def _wrong(self, name: str, value: object, must: str) -> InputError:
        return self.error(f"{name} = {shown(value)} must be {must}: export the network again")


@dataclass(frozen=True, eq=False)
class Step:
    """A layer, and its weights in their flat order. size, depth: steps in it, and sums of paths
    within each other.
    """

    layer: Layer
    weights: tuple[Array, ...]
    node: Node
    size: int = 1
    depth: int = 0
    inner: tuple["Step", ...] = ()


@dataclass(frozen=True)
class Value:
    """An activity (shape without patterns), and the steps that lead to it from the input.

    ending: the operator that makes probabilities of it, which E includes; nothing may follow.
    """

    shape: Shape
    trail: tuple[Step, ...] = ()
    ending: str = ""


class Graph:
    """The values of an ONNX graph, by name: constants, and activities as far as they are known.

    batch: how many patterns shapes in the file are of.
    """

    def __init__(self, constants: dict[str, Array], batch: int, uses: Counter[str]):
        self.constants = constants
        self.values: dict[str, Value] = {}
        # of truth values: the activity that is compared, and from which value on they are true
        self.above: dict[str, tuple[Value, float]] = {}
        self.batch = batch
        self.uses = uses
        self._owners: dict[str, Node] = {}

    def has(self, node: Node, place: int) -> bool:
        """Whether the node has an input at that place."""
        return place < len(node.inputs) and node.inputs[place] != ""

    def _name(self, node: Node, place: int) -> str:
        if not self.has(node, place):
            raise node.error(f"has no input {place}: export the network again")
        name = node.inputs[place]
        if not any(name in known for known in (self.values, self.constants, self.above)):
            raise node.error(
                f"its input {one_line(cut(name, 60))} is not computed before it: export the network"
                " again"
            )
        return name

    def constant(self, node: Node, place: int) -> Array | None:
        """The input at that place if it is known without patterns."""
        return self.constants.get(self._name(node, place))

    def activity(self, node: Node, place: int = 0) -> Value:
        """The input at that place, which must depend on the patterns."""
        name = self._name(node, place)
        if name not in self.values:
            what = "a comparison" if name in self.above else "a constant"
            raise node.error(
                f"its input {one_line(cut(name, 60))} is {what} where an activity is wanted: leave"
                " it out of the network"
            )
        value = self.values[name]
        if value.ending:
            raise node.error(
                f"follows a {value.ending}, which is supported as the last operator alone: end the"
                " network there"
            )
        return value

    def weights(self, node: Node, place: int) -> Array:
        """The input at that place as weights of this node alone, in float64."""
        found, name = self.numbers(node, place), node.inputs[place]
        if name in self._owners:
            raise node.error(
                f"shares its weights {one_line(cut(name, 60))} with node"
                f" {one_line(cut(self._owners[name].name, 60))}, and each would learn its own:"
                " export the network without shared weights"
            )
        self._owners[name] = node
        return found

    def numbers(self, node: Node, place: int) -> Array:
        """The input at that place as numbers of float64."""
        found = self.constant(node, place)
        name = one_line(cut(node.inputs[place], 60))
        if found is None:
            raise node.error(
                f"its input {name} is computed from the patterns: only products of an activity and"
                " constant weights are supported"
            )
        if str(found.dtype) not in FLOATS:
            raise node.error(
                f"its weights {name} are of type {found.dtype}: export the network in float32"
            )
        try:
            return as_floats(name, found)
        except InputError as error:
            raise node.error(f"{error}") from None

    def then(self, node: Node, value: Value, layer: Layer, *weights: Array) -> Value:
        """What a layer makes of a value."""
        # flat in C order, as layers have their weights
        step = Step(layer, tuple(np.ravel(each) for each in weights), node)
        return Value(self.shape_of(node, value.shape, layer), (*value.trail, step))

    def shape_of(self, node: Node, shape: Shape, layer: Layer) -> Shape:
        """The shape that a layer gives."""
        try:
            made = layer.on(shape).shape
        except InputError as error:
            raise node.error(
                f'"{layer}" does not fit its input of shape {shape}: {error}'
            ) from None
        if prod(made) > MAX_SIZE:
            raise node.error(f"gives shape {made}: at most {MAX_SIZE} entries are supported")
        return made

    def sum(self, node: Node, a: Value, b: Value) -> Value:
        """The sum of two activities, by the steps that they do not share."""
        if a.shape != b.shape:
            raise node.error(
                f"adds activities of shapes {a.shape} and {b.shape}: only sums of equal shapes are"
                " supported"
            )
        # by identity: an equal layer of another node is another; one trail may be longer
        pairs = zip(a.trail, b.trail, strict=False)
        shared = next(
            (number for number, (one, other) in enumerate(pairs) if one is not other),
            min(len(a.trail), len(b.trail)),
        )
        # the shortcut is the one that has nothing in it, if either has
        path, shortcut = sorted((a.trail[shared:], b.trail[shared:]), key=lambda steps: not steps)
        inner = (*path, *shortcut)
        # every sum repeats the steps before it that it does not share: a small file could ask for a
        # huge network, or for more calls within each other than Python makes
        size = 1 + sum(step.size for step in inner)
        depth = 1 + max((step.depth for step in inner), default=0)
        if size > MAX_STEPS or depth > MAX_NESTED:
            raise node.error(
                f"adds paths of more than {MAX_STEPS} layers, or nested more than {MAX_NESTED}"
                " times: use a smaller network"
            )
        layer = Residual(*(tuple(step.layer for step in steps) for steps in (path, shortcut)))
        weights = tuple(each for step in inner for each in step.weights)
        step = Step(layer, weights, node, size, depth, inner)
        return Value(a.shape, (*a.trail[:shared], step))


def check_tree(trail: tuple[Step, ...]) -> None:
    """InputError for a step whose weights two paths use, which are not one path that parts."""
    seen: set[Step] = set()
    left = [*trail]
    while left:
        step = left.pop()
        # what learns nothing may be there twice
        if step in seen and not step.weights:
            continue
        if step in seen:
            raise step.node.error(
                "leads to two sums that are not nested in each other, and each would learn weights"
                " of its own: only paths that part and join again are supported"
            )
        seen.add(step)
        left += step.inner


def joined(trail: tuple[Step, ...]) -> tuple[list[Layer], Array]:
    """The layers of a trail and their weights (n,)."""
    check_tree(trail)
    flat = [each for step in trail for each in step.weights]
    # the empty one: of a trail without any weights
    return [step.layer for step in trail], np.concatenate([np.zeros(0), *flat])
