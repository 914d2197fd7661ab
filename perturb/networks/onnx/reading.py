"""ONNX files: read, checked, and followed from the input of the network to its output."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from perturb.errors import InputError, cut, one_line, shown
from perturb.files import UNREADABLE, open_regular, reason
from perturb.networks.layers.layer import MAX_SIZE, Activation, Flatten, Layer
from perturb.networks.layers.part import Array, Shape
from perturb.networks.onnx.graph import FLOATS, Graph, Node, Value, joined
from perturb.networks.onnx.operators import FOLDED, OPERATORS, folded, greater, shape_of

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

SUFFIX = ".onnx"
MAX_BYTES = 1 << 28  # of a file, and of the weights beside it
MAX_NODES = 10_000
# sets of operators in which those that are read mean the same
OPSETS = range(9, 29)
# patterns, where a file leaves their number open: no size of a layer is by chance as large
ANY_BATCH = 1_000_003
AGAIN = "export the network again"


class Interface(NamedTuple):
    """What a file says of a network beside its layers. shape: of its outputs, as the file has them,
    before a last Flatten. ending: the operator that makes probabilities of outputs, or "". dtype:
    of its weights.
    """

    input: str
    output: str
    shape: Shape
    ending: str
    dtype: str


class Found(NamedTuple):
    """A network: what `Layers` takes, its weights (n,), and how the file presents it."""

    input_shape: Shape
    layers: list[Layer]
    error: str
    w: Array
    interface: Interface


def read_network(path: str | os.PathLike[str], error: str | None, sha256: str) -> Found:
    """The network of a file; InputError, which names the file, for a mistake in it. sha256:
    of it and of `weight_files`, as they are meant; "" takes any.
    """
    called = called_file(path)
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"{called} must be the path of an ONNX file")
    if Path(path).suffix.lower() != SUFFIX:
        raise InputError(f"{called}: must end in {SUFFIX}: give an ONNX file")
    try:
        content = _content(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        raise InputError(f"{called}: no such file: give the path of an ONNX file") from None
    except OSError as problem:
        raise InputError(f"{called}: cannot be read ({reason(problem)}): check the file") from None
    try:
        if sha256 and _digest(content, Path(path).parent) != sha256:
            raise InputError(
                f"its contents are not those that sha256 = {shown(sha256)} was stored with: restore"
                ' it, or set sha256 = "" to take it as it is'
            )
        return network_in(content, Path(path).parent, error)
    except InputError as problem:
        raise InputError(f"{called}: {problem}") from None
    except OSError as problem:
        raise InputError(f"{called}: its weights cannot be read: {reason(problem)}") from None


def called_file(path: object) -> str:
    """What messages call a file: an argument of that name, and a key of experiments."""
    return f"file = {one_line(cut(str(path), 200))}"


def _content(path: str | os.PathLike[str]) -> bytes:
    with open_regular(path, MAX_BYTES) as file:
        return file.read(MAX_BYTES)


def network_in(content: bytes, folder: Path | None, error: str | None = None) -> Found:
    """The network of a file's contents. folder: where files beside it are, None to read none."""
    model = _model(content)
    try:
        _load_external(model, folder)
        return _found(model, error)
    except InputError:
        raise
    except UNREADABLE as problem:
        # of a file that is damaged such that it still is one: whatever it then says
        raise InputError(f"not a whole ONNX file ({reason(problem)}): {AGAIN}") from None


def weight_files(path: str | os.PathLike[str]) -> list[str]:
    """The files beside an ONNX file that hold its weights; none if it cannot be read."""
    try:
        return _beside(_content(path), Path(path).parent)
    except (InputError, *UNREADABLE):
        # whoever reads the network says why
        return []


def _beside(content: bytes, folder: Path) -> list[str]:
    names = {_location(tensor) for tensor in _external(_model(content))}
    # sorted: the order of tensors in the file does not change `_digest`
    return [str(folder / name) for name in sorted(names) if Path(name).name == name]


def _digest(content: bytes, folder: Path) -> str:
    """SHA-256 of a file's contents, and of those of the files of its weights behind it."""
    digest = hashlib.sha256(content)
    for path in _beside(content, folder):
        # one that is missing is named when its weights are read
        if Path(path).is_file():
            digest.update(_content(path))
    return digest.hexdigest()


def _model(content: bytes) -> "ModelProto":
    try:
        from google.protobuf.message import DecodeError
        from onnx import ModelProto
    except ImportError:
        raise InputError("ONNX files need another package: pip install 'perturb[onnx]'") from None
    try:
        model = ModelProto.FromString(content)
    except (DecodeError, *UNREADABLE):
        raise InputError(f"no ONNX file, or not a whole one: {AGAIN}") from None
    if not model.graph.node:
        raise InputError(f"no ONNX file, or one without a network: {AGAIN}")
    return model


def _external(model: "ModelProto") -> Iterator["TensorProto"]:
    """Tensors whose numbers are in another file."""
    nodes = (a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))
    for tensor in (*model.graph.initializer, *nodes):
        if tensor.data_location == tensor.EXTERNAL:
            yield tensor


def _location(tensor: "TensorProto") -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _load_external(model: "ModelProto", folder: Path | None) -> None:
    """Put the numbers of other files into the model."""
    from onnx import checker, external_data_helper

    for tensor in _external(model):
        name = _location(tensor)
        called = one_line(cut(name, 100))
        # of the folder alone: a file must not reach for others of its reader
        if folder is None or Path(name).name != name or not (folder / name).is_file():
            raise InputError(
                f"weights {one_line(cut(tensor.name, 60))} are in another file, {called}, which is"
                " not beside it, or not read: put it there, or export the network into one file"
            )
        if (folder / name).stat().st_size > MAX_BYTES:
            raise InputError(f"{called} beside it has more than {MAX_BYTES} bytes: use fewer units")
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (checker.ValidationError, *UNREADABLE) as problem:
            raise InputError(f"{called} beside it: {reason(problem)}: {AGAIN}") from None
        # the numbers are now within: nobody reads the other file again
        tensor.data_location = tensor.DEFAULT


def _found(model: "ModelProto", error: str | None) -> Found:
    sets = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if len(sets) != 1 or sets[0] not in OPSETS:
        raise InputError(
            f"is of operator set {', '.join(map(str, sets)) or 'none'}, but {OPSETS[0]} to"
            f" {OPSETS[-1]} are read: export it with opset_version=17"
        )
    if len(model.graph.node) > MAX_NODES:
        raise InputError(f"has {len(model.graph.node)} nodes: at most {MAX_NODES} are read")
    name, dtype, batch, shape = _input(model.graph)
    output = model.graph.output[0].name if len(model.graph.output) == 1 else ""
    if not output:
        names = [each.name for each in model.graph.output]
        raise InputError(f"has outputs {shown(names)}: export a network with one output")
    graph = _graph(model.graph, batch)
    graph.values[name] = Value(shape)
    # in the order of the file, in which ONNX wants every value before its use
    for number, proto in enumerate(model.graph.node, 1):
        _follow(Node(proto, number), proto, graph)
    if output not in graph.values:
        raise InputError(f"its output {one_line(cut(output, 60))} is not of the patterns: {AGAIN}")
    return _ended(graph.values[output], shape, error, Interface(name, output, (), "", dtype))


def _input(graph: "GraphProto") -> tuple[str, str, int, Shape]:
    """The name and the type of the input, the number of patterns in shapes, and the shape of one
    pattern.
    """
    # older files list weights among inputs, too
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    if len(inputs) != 1:
        names = [each.name for each in inputs]
        raise InputError(f"has inputs {shown(names)}: export a network with one input")
    called = f"input {one_line(cut(inputs[0].name, 60))}"
    kind = inputs[0].type.tensor_type
    # TensorProto.FLOAT and DOUBLE
    dtype = dict(zip((1, 11), FLOATS, strict=True)).get(kind.elem_type, "")
    if not dtype:
        raise InputError(f"{called} is not float32 or float64: export the network in float32")
    # the first may be free or fixed, all others must be known
    dims = kind.shape.dim
    if len(dims) < 2:
        raise InputError(
            f"{called} has {len(dims)} axes: the first is that of patterns, and others must follow:"
            " export the network with a fixed shape"
        )
    for axis, dim in enumerate(dims):
        if axis and dim.dim_value < 1:
            name = dim.dim_param or "no size"
            raise InputError(
                f"{called}: axis {axis} is dynamic ({one_line(cut(name, 60))}): export the network"
                " with a fixed shape, only the first axis may be free"
            )
    shape = tuple(dim.dim_value for dim in dims[1:])
    if prod(shape) > MAX_SIZE:
        raise InputError(f"{called} has shape {shape}: at most {MAX_SIZE} entries are supported")
    return inputs[0].name, dtype, max(dims[0].dim_value, 0) or ANY_BATCH, shape


def _graph(graph: "GraphProto", batch: int) -> Graph:
    """A graph that knows the constants of the file."""
    from onnx import numpy_helper

    if graph.sparse_initializer:
        raise InputError("has sparse weights: export them as they are")
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    # what leaves the network is used, too: a product that is an output takes no bias from an Add
    uses.update(each.name for each in graph.output)
    return Graph(constants, batch, uses)


def _follow(node: Node, proto: "NodeProto", graph: Graph) -> None:
    """Add what a node computes to the graph."""
    if not node.outputs:
        raise node.error(f"has no output: {AGAIN}")
    out = node.outputs[0]
    # without patterns: it can be computed now
    known = all(name in graph.constants for name in node.inputs if name)
    standard = node.domain in ("", "ai.onnx")
    if standard and node.op == "Constant":
        graph.constants[out] = _constant(node)
    elif standard and node.op == "Shape":
        graph.constants[out] = shape_of(node, graph)
    elif standard and known and node.inputs and node.op in FOLDED:
        graph.constants[out] = folded(node, graph)
    elif standard and node.op == "Greater":
        graph.above[out] = greater(node, graph)
    elif standard and node.op in OPERATORS:
        graph.values[out] = OPERATORS[node.op](node, graph)
    else:
        raise node.error(
            "is an operator that is not supported: use layers of"
            f" {', '.join(OPERATORS)}, and export again"
        )


def _constant(node: Node) -> Array:
    from onnx import numpy_helper

    tensor = node.given("value")
    if tensor is not None:
        return numpy_helper.to_array(tensor)
    for name, kind in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if node.given(name) is not None:
            return np.array(node.given(name), dtype=kind)
    raise node.error(f"holds no numbers: {AGAIN}")


def _ended(value: Value, shape: Shape, error: str | None, interface: Interface) -> Found:
    """The network, without the operator that E brings itself."""
    trail, ending = value.trail, value.ending
    last = trail[-1].layer if trail else None
    if ending and error not in (None, "cross_entropy"):
        raise InputError(
            f'ends with {ending}, which error = "{error}" does not go with: set error ='
            ' "cross_entropy", or export the network without it'
        )
    if ending:
        error = "cross_entropy"
    elif last == Activation("logistic") and error in (None, "binary_cross_entropy"):
        trail, ending, error = trail[:-1], "Sigmoid", "binary_cross_entropy"
    # what is left is E's argument: before softmax or logistic function
    layers, w = joined(trail)
    if len(value.shape) > 1:
        # patterns of targets are rows
        layers.append(Flatten())
    interface = interface._replace(shape=value.shape, ending=ending)
    return Found(shape, layers, error or "squared_error", w, interface)
