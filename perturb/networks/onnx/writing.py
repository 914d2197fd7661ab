"""Networks of layers as ONNX files."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perturb.checks import as_weights
from perturb.errors import InputError, choose
from perturb.files import write_whole
from perturb.networks.layers.layer import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Reshape,
    Residual,
    Transpose,
)
from perturb.networks.layers.network import Layers
from perturb.networks.layers.part import Array, Part, ResidualPart
from perturb.networks.mlp import MLP
from perturb.networks.onnx.network import OnnxLayers
from perturb.networks.onnx.reading import FLOATS, SUFFIX, Interface

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

# what every reader of the last years takes
OPSET = 17
IR_VERSION = 8
ACTIVATIONS = {
    "linear": "Identity",
    "relu": "Relu",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "softplus": "Softplus",
}


def to_onnx(
    network: Layers | MLP,
    w: Array,
    file: str | os.PathLike[str],
    dtype: str | None = None,
) -> None:
    """Write a network with its weights as an ONNX file.

    Parameters
    ----------
    network : Layers or MLP
        One that `from_onnx` gave keeps the names of its input and output, and the Softmax,
        LogSoftmax or Sigmoid that it ended with; of others the outputs are written as they are,
        without the function that an error brings.
    w : array of shape (n,)
    file : str or path-like
        Its path, which ends in .onnx. It is written whole or not at all.
    dtype : str, optional
        "float32" or "float64", of weights, input and output; by default as in the file that the
        network was read from, and else "float32". To float32 weights are rounded; onnxruntime has
        no convolution in float64.

    Raises
    ------
    InputError
        For another kind of network, an activation that ONNX does not have, weights that do not fit
        or are beyond float32, and a file that cannot be written.

    Notes
    -----
    The graph is written from the layers, in operator set 17, its first axis free: one that was read
    comes back with the same outputs, not with the same nodes. The error is not in the file:
    `from_onnx(file, error=network.error)` reads the same network. Left to the last operator, one of
    "squared_error" that ends in logistic would be taken for one of "binary_cross_entropy" without
    it, and one whose softmax belongs to its error for one of "squared_error".
    """
    if Path(file).suffix.lower() != SUFFIX:
        raise InputError(f"{file}: must end in {SUFFIX}")
    write_whole(Path(file), as_onnx(network, w, dtype))


def as_onnx(network: Layers | MLP, w: Array, dtype: str | None = None) -> bytes:
    """The file that `to_onnx` writes."""
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise InputError("ONNX files need another package: pip install 'perturb[onnx]'") from None
    layers = _as_layers(network)
    w = as_weights("w", w, layers.n_weights)
    interface = layers.interface if isinstance(layers, OnnxLayers) else None
    interface = interface or Interface("input", "output", layers.output_shape, "", FLOATS[0])
    choose("dtype", dtype or interface.dtype, dict.fromkeys(FLOATS))
    graph = _Graph(np.dtype(dtype or interface.dtype), interface)
    # the last only made rows of the outputs of a file, where those have more axes
    kept = len(layers.layers) - (interface.shape != layers.output_shape)
    out = graph.chain(layers.layers[:kept], layers.chain.parts[:kept], w, interface.input)
    if interface.ending:
        # of classes, not of single outputs
        axis = {} if interface.ending == "Sigmoid" else {"axis": 1}
        graph.node(interface.ending, [out], **axis)
    graph.nodes[-1].output[0] = interface.output
    kind = TensorProto.FLOAT if graph.dtype == np.float32 else TensorProto.DOUBLE
    ends = [
        # N: the axis of patterns, free
        helper.make_tensor_value_info(name, kind, ["N", *shape])
        for name, shape in (
            (interface.input, layers.input_shape),
            (interface.output, interface.shape),
        )
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "perturb", ends[:1], ends[1:], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="perturb",
    )
    # so that the same network gives the same bytes
    return model.SerializeToString(deterministic=True)


def _as_layers(network: Layers | MLP) -> Layers:
    if isinstance(network, Layers):
        return network
    if not isinstance(network, MLP):
        raise InputError(
            f"network = {type(network).__name__} cannot be written as ONNX: give Layers or an MLP"
        )
    # both have their weights in the same order
    layers: list[str | Layer] = []
    for n, name in zip(network.layers[1:], network.activations, strict=True):
        layers += [Linear(n), *([] if name == "linear" else [Activation(name)])]
    return Layers([network.layers[0]], layers, network.error)


class _Graph:
    """Nodes and constants of a file, as they come."""

    def __init__(self, dtype: np.dtype, interface: Interface):
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._taken = {interface.input, interface.output}

    def _name(self, what: str) -> str:
        """A new name, none of those that the interface has."""
        name = f"{what}_{len(self.nodes) + 1}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def constant(self, what: str, values: Array) -> str:
        """The name of a new constant; numbers become those of the file's type."""
        from onnx import numpy_helper

        name = self._name(what)
        array = np.asarray(values)
        if array.dtype.kind == "f":
            # what is beyond float32 becomes infinite, and is refused below
            with np.errstate(over="ignore"):
                array = array.astype(self.dtype)
            if not np.isfinite(array).all():
                raise InputError('w has entries beyond float32: set dtype = "float64"')
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A new node; the name of its output."""
        from onnx import helper

        output = self._name(op.lower())
        name = f"{op}_{len(self.nodes) + 1}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def chain(self, layers: Sequence[Layer], parts: Sequence[Part], w: Array, x: str) -> str:
        """The nodes of layers one after the other; the name of what they give."""
        for layer, part in zip(layers, parts, strict=True):
            own, w = w[: part.n_weights], w[part.n_weights :]
            if isinstance(layer, Residual) and isinstance(part, ResidualPart):
                x = self._sum(layer, part, own, x)
                continue
            writer = WRITERS.get(type(layer))
            if writer is None:
                raise InputError(f'"{layer}" cannot be written as ONNX: it has no such operator')
            x = writer(self, layer, part, own, x)
        return x

    def _sum(self, layer: Residual, part: ResidualPart, w: Array, x: str) -> str:
        # weights of the path, then of the shortcut
        n = part.path.n_weights
        a = self.chain(layer.path, part.path.parts, w[:n], x)
        b = self.chain(layer.shortcut, part.shortcut.parts, w[n:], x)
        return self.node("Add", [a, b])


def _linear(graph: _Graph, layer: Linear, part: Any, w: Array, x: str) -> str:
    M, b = np.split(w, [part.rows * part.columns])
    # (n_in, n_out) in C order: the B of Gemm and MatMul, not transposed
    W = graph.constant("weight", M.reshape(part.columns, part.rows))
    if layer.bias:
        return graph.node("Gemm", [x, W, graph.constant("bias", b)])
    return graph.node("MatMul", [x, W])


def _convolution(graph: _Graph, layer: Conv1d | Conv2d, part: Any, w: Array, x: str) -> str:
    windows = part.windows
    shape = (layer.channels, windows.channels // layer.groups, *windows.size)
    # the kernel stands in ONNX as it does here
    K, b = np.split(w, [w.size - layer.bias * layer.channels])
    inputs = [x, graph.constant("weight", K.reshape(shape))]
    if layer.bias:
        inputs.append(graph.constant("bias", b))
    return graph.node("Conv", inputs, group=layer.groups, **_window_attributes(part))


def _window_attributes(part: Any) -> dict[str, Any]:
    windows = part.windows
    before, after = zip(*windows.padding, strict=True)
    return {
        "kernel_shape": windows.size,
        "strides": windows.stride,
        # of all axes before, then of all after
        "pads": [*before, *after],
    }


def _average_pool(graph: _Graph, layer: AveragePool, part: Any, w: Array, x: str) -> str:
    counted = int(layer.count_padding)
    return graph.node("AveragePool", [x], count_include_pad=counted, **_window_attributes(part))


def _reshape(graph: _Graph, layer: Reshape, part: Any, w: Array, x: str) -> str:
    # 0: as many patterns as there are
    shape = graph.constant("shape", np.array([0, *part.shape], dtype=np.int64))
    return graph.node("Reshape", [x, shape])


def _transpose(graph: _Graph, layer: Transpose, part: Any, w: Array, x: str) -> str:
    return graph.node("Transpose", [x], perm=[0, *(axis + 1 for axis in layer.axes)])


def _batch_norm(graph: _Graph, layer: BatchNorm, part: Any, w: Array, x: str) -> str:
    # its statistics are in a and b: mean 0 and variance 1 leave them as they are
    a, b = np.split(w, 2)
    numbers = {"scale": a, "bias": b, "mean": np.zeros(a.size), "variance": np.ones(a.size)}
    inputs = [graph.constant(name, values) for name, values in numbers.items()]
    return graph.node("BatchNormalization", [x, *inputs], epsilon=0.0)


def _activation(graph: _Graph, layer: Activation, part: Any, w: Array, x: str) -> str:
    if layer.name not in ACTIVATIONS:
        raise InputError(
            f'activation "{layer.name}" cannot be written as ONNX, which has'
            f" {', '.join(ACTIVATIONS)} of those here"
        )
    return graph.node(ACTIVATIONS[layer.name], [x])


# what writes a layer: of a graph, the layer, its part, its weights and the name of its input
WRITERS: dict[type[Layer], Callable[[_Graph, Any, Part, Array, str], str]] = {
    Linear: _linear,
    Conv1d: _convolution,
    Conv2d: _convolution,
    MaxPool: lambda graph, layer, part, w, x: graph.node(
        "MaxPool", [x], **_window_attributes(part)
    ),
    AveragePool: _average_pool,
    GlobalAveragePool: lambda graph, layer, part, w, x: graph.node("GlobalAveragePool", [x]),
    Flatten: lambda graph, layer, part, w, x: graph.node("Flatten", [x]),
    Reshape: _reshape,
    Transpose: _transpose,
    BatchNorm: _batch_norm,
    Activation: _activation,
}
