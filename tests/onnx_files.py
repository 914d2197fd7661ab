"""ONNX files of small networks, as exporters write them: made here, with the package onnx alone."""

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


class Graph:
    """A graph as it grows: every method adds a node and returns the name of its output."""

    def __init__(self, dtype="float64", seed=0):
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], []

    def weights(self, *shape, scale=None):
        """A new initializer of random numbers."""
        scale = 1 / np.sqrt(np.prod(shape[1:], initial=1)) if scale is None else scale
        return self.constant(scale * self.rng.standard_normal(shape))

    def positive(self, n):
        return self.constant(self.rng.uniform(0.5, 2, n))

    def constant(self, values):
        array = np.asarray(values)
        array = array.astype(self.dtype) if array.dtype.kind == "f" else array
        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def rename(self, name, to):
        """A constant by another name."""
        next(each for each in self.constants if each.name == name).name = to

    def __call__(self, op, *inputs, outputs=1, **attributes):
        names = [f"{op.lower()}{len(self.nodes)}_{k}" for k in range(outputs)]
        node = helper.make_node(op, inputs, names, f"{op}_{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0]

    def linear(self, x, n_in, n_out):
        """As PyTorch exports it."""
        return self("Gemm", x, self.weights(n_out, n_in), self.weights(n_out, scale=0.1), transB=1)

    def conv(self, x, n_in, n_out, *window, bias=True, **attributes):
        K = self.weights(n_out, n_in // attributes.get("group", 1), *window)
        b = [self.weights(n_out, scale=0.1)] if bias else []
        return self("Conv", x, K, *b, kernel_shape=window, **attributes)

    def norm(self, x, n):
        scale, b = self.positive(n), self.weights(n, scale=0.1)
        mean, var = self.weights(n, scale=0.3), self.positive(n)
        return self("BatchNormalization", x, scale, b, mean, var, epsilon=1e-5)

    def model(self, shape, out, outputs, batch="N", opset=17) -> ModelProto:
        kind = TensorProto.DOUBLE if self.dtype == np.float64 else TensorProto.FLOAT
        ends = [
            helper.make_tensor_value_info(name, kind, [batch, *dims])
            for name, dims in (("x", shape), (out, outputs))
        ]
        graph = helper.make_graph(self.nodes, "net", ends[:1], ends[1:], self.constants)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )
        return made


def mlp(dtype):
    g = Graph(dtype, 1)
    x = g("Tanh", g.linear("x", 6, 5))
    x = g("Gemm", x, g.weights(5, 3), g.weights(1, 3, scale=0.1), alpha=0.5, beta=2.0)
    return g.model([6], g("Softmax", x, axis=-1), [3])


def autoencoder(dtype):
    """Products and sums apart, as of Keras; the last layer is of Constant nodes."""
    g = Graph(dtype, 2)
    x = "x"
    for n_in, n_out in ((8, 3), (3, 8)):
        x = g("Add", g("MatMul", x, g.weights(n_in, n_out)), g.weights(n_out))
        x = g("Sigmoid", x)
    constants = {tensor.name: tensor for tensor in g.constants}
    for name in g.nodes[3].input[1:], g.nodes[4].input[1:]:
        g.nodes.insert(0, helper.make_node("Constant", [], name, value=constants.pop(name[0])))
    g.constants = list(constants.values())
    return g.model([8], x, [8])


def residual_mlp(dtype):
    """Sums within a path of a sum, and one with weights on both sides."""
    g = Graph(dtype, 3)
    x = g.linear("x", 4, 5)
    inner = g("Relu", g.linear(x, 5, 5))
    inner = g("Add", g.linear(inner, 5, 5), inner)
    x = g("Add", x, inner)
    x = g("Add", g("Tanh", g.linear(x, 5, 3)), g.linear(x, 5, 3))
    return g.model([4], x, [3])


def lenet(dtype):
    g = Graph(dtype, 4)
    x = g("Tanh", g.conv("x", 1, 3, 5, 5, pads=[2, 2, 2, 2]))
    x = g("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g("Relu", g.conv(x, 3, 4, 3, 3))
    x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g("Flatten", x, axis=1)
    x = g("Dropout", g("Relu", g.linear(x, 16, 6)))
    return g.model([1, 12, 12], g.linear(x, 6, 4), [4], batch=1)


def separable(dtype):
    """Depthwise and pointwise convolutions."""
    g = Graph(dtype, 5)
    x = g("Relu", g.norm(g.conv("x", 2, 4, 3, 3, bias=False, strides=[2, 2], pads=[1] * 4), 4))
    x = g("Relu", g.norm(g.conv(x, 4, 4, 3, 3, bias=False, group=4, pads=[1] * 4), 4))
    x = g("Relu", g.norm(g.conv(x, 4, 6, 1, 1, bias=False), 6))
    x = g("ReduceMean", x, axes=[2, 3], keepdims=0)
    return g.model([2, 9, 7], g.linear(x, 6, 3), [3])


def resnet8(dtype):
    """Three blocks, two with strides; the flatten is computed, as x.view(x.size(0), -1) is."""
    g = Graph(dtype, 6)
    x = g("Relu", g.norm(g.conv("x", 1, 2, 3, 3, bias=False, pads=[1] * 4), 2))
    for n_in, n_out, stride in ((2, 2, 1), (2, 3, 2), (3, 4, 2)):
        strides = [stride, stride]
        y = g.norm(g.conv(x, n_in, n_out, 3, 3, bias=False, pads=[1] * 4, strides=strides), n_out)
        y = g.norm(g.conv(g("Relu", y), n_out, n_out, 3, 3, bias=False, pads=[1] * 4), n_out)
        if n_in != n_out:
            x = g.norm(g.conv(x, n_in, n_out, 1, 1, bias=False, strides=strides), n_out)
        x = g("Relu", g("Add", y, x))
    x = g("GlobalAveragePool", x)
    batch = g("Gather", g("Shape", x), g.constant(0), axis=0)
    batch = g("Unsqueeze", batch, g.constant([0]))
    x = g("Reshape", x, g("Concat", batch, g.constant([-1]), axis=0))
    return g.model([1, 8, 8], g("LogSoftmax", g.linear(x, 4, 3), axis=1), [3])


def conv1d(dtype):
    g = Graph(dtype, 7)
    x = g("Unsqueeze", "x", g.constant([1]))
    x = g("Softplus", g.conv(x, 1, 4, 5, strides=[2], pads=[2, 1]))
    x = g("MaxPool", x, kernel_shape=[3], strides=[2], pads=[1, 1])
    x = g("Tanh", g.conv(x, 4, 4, 3, group=2))
    x = g("AveragePool", x, kernel_shape=[2], strides=[1], pads=[1, 0])
    x = g("Squeeze", g("GlobalAveragePool", x), g.constant([2]))
    return g.model([21], g.linear(x, 4, 2), [2])


def paddings(dtype):
    """Padding that exporters of TensorFlow leave to be computed, and pools that count it."""
    g = Graph(dtype, 8)
    x = g("Relu", g.conv("x", 2, 3, 3, 2, auto_pad="SAME_UPPER", strides=[2, 2]))
    x = g("AveragePool", x, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1)
    x = g("Tanh", g.conv(x, 3, 2, 4, 2, auto_pad="SAME_LOWER"))
    x = g("MaxPool", x, kernel_shape=[2, 2], auto_pad="VALID")
    x = g("Reshape", x, g.constant([0, -1]))
    return g.model([2, 7, 6], g.linear(x, 12, 2), [2])


def reordered(dtype):
    """Axes in another order, and an output that is an image."""
    g = Graph(dtype, 9)
    x = g("Transpose", "x", perm=[0, 3, 1, 2])
    x = g("Identity", g.conv(x, 2, 3, 3, 3, pads=[1] * 4))
    x = g("Sigmoid", g.conv(g("Softplus", x), 3, 1, 3, 3, pads=[1] * 4))
    return g.model([5, 4, 2], x, [1, 5, 4])


def preactivation(dtype):
    """Activations that both paths use; biases that are sums; weights turned round in the file."""
    g = Graph(dtype, 10)
    x = g("Add", g.conv("x", 1, 3, 3, 3, bias=False), g.weights(1, 3, 1, 1))
    before = g("Relu", g.norm(x, 3))
    y = g.conv(g("Relu", g.conv(before, 3, 3, 3, 3, pads=[1] * 4)), 3, 3, 1, 1)
    x = g("Add", g.conv(before, 3, 3, 1, 1, bias=False), y)
    x = g("Add", x, g("Tanh", x))
    x = g("Flatten", x)
    W = g("Transpose", g.weights(2, 48), perm=[1, 0])
    x = g("Add", g.weights(2), g("MatMul", x, W))
    return g.model([1, 6, 6], x, [2])


def small(seed=0):
    """2-3-1, as a test of what is done with networks has it."""
    g = Graph("float32", seed)
    return g.model([2], g.linear(g("Tanh", g.linear("x", 2, 3)), 3, 1), [1])


def digits(dtype="float32"):
    """LeNet's kind for 8 x 8 pixels, named as by PyTorch's exporter, which writes weights that are
    equal once: the others are an Identity of them.
    """
    g = Graph(dtype, 11)
    shapes = {"conv1": (4, 1, 3, 3), "conv2": (6, 4, 3, 3), "fc1": (20, 24), "fc2": (10, 20)}
    for layer, shape in shapes.items():
        b = np.zeros(shape[0])
        g.rename(
            g.constant(g.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))),
            f"{layer}.weight",
        )
        if layer != "conv2":
            g.rename(g.constant(b), f"{layer}.bias")
    g.rename(g.constant(np.ones(6)), "norm.weight")
    g.rename(g.constant(np.zeros(6)), "norm.bias")
    copies = {"conv2.bias": "norm.bias", "norm.mean": "norm.bias", "norm.var": "norm.weight"}
    for name, of in copies.items():
        g.nodes.append(helper.make_node("Identity", [of], [name], f"Identity_{name}"))
    x = g("Conv", "x", "conv1.weight", "conv1.bias", kernel_shape=[3, 3], pads=[1] * 4)
    x = g("MaxPool", g("Relu", x), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=0)
    x = g("Conv", x, "conv2.weight", "conv2.bias", kernel_shape=[3, 3])
    x = g("BatchNormalization", x, "norm.weight", "norm.bias", "norm.mean", "norm.var")
    x = g("Flatten", g("Relu", x), axis=1)
    x = g("Relu", g("Gemm", x, "fc1.weight", "fc1.bias", transB=1))
    x = g("Gemm", x, "fc2.weight", "fc2.bias", transB=1)
    return g.model([1, 8, 8], x, [10])


FILES: dict[str, Callable[[str], ModelProto]] = {
    made.__name__: made
    for made in (
        mlp,
        autoencoder,
        residual_mlp,
        lenet,
        separable,
        resnet8,
        conv1d,
        paddings,
        reordered,
        preactivation,
    )
}
