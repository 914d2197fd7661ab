"""The operators of ONNX that become layers: what each makes of the values of a graph.

Shapes of values are without patterns, so that axis 0 of a value is axis 1 of ONNX.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from perturb.errors import InputError, shown
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
    Padding,
    Reshape,
    Sizes,
    Transpose,
)
from perturb.networks.layers.part import Array, Shape
from perturb.networks.onnx.graph import Graph, Node, Step, Value

FIXED = "export the network with a fixed shape"
ROWS = "the first axis must stay that of the patterns"
WEIGHTED = (Linear, Conv1d, Conv2d)  # layers that may have a bias
# of constants that are computed in the file: shapes, and weights that are turned round
MAX_FOLDED = 20_000_000


def _gemm(node: Node, graph: Graph) -> Value:
    x = graph.activity(node)
    node.only("transA", 1, not node.integer("transA", 0), ROWS)
    W = graph.weights(node, 1)
    if W.ndim != 2:
        raise node.error(f"its weights have shape {W.shape}: export the network again")
    # y = alpha x W + beta b, whose numbers become part of the weights
    W = node.number("alpha", 1.0) * (W.T if node.integer("transB", 0) else W)
    if not graph.has(node, 2):
        return _linear(node, graph, x, W)
    b = _bias(node, graph.weights(node, 2), (W.shape[1],))
    return _linear(node, graph, x, W, node.number("beta", 1.0) * b)


def _matmul(node: Node, graph: Graph) -> Value:
    x, W = graph.activity(node), graph.weights(node, 1)
    if W.ndim != 2:
        raise node.error(f"its weights have shape {W.shape}: only matrices are supported")
    return _linear(node, graph, x, W)


def _linear(node: Node, graph: Graph, x: Value, W: Array, *b: Array) -> Value:
    if x.shape != W.shape[:1]:
        raise node.error(
            f"multiplies an activity of shape {x.shape} by weights {W.shape}: put a Flatten before"
            " it, and export again"
        )
    return graph.then(node, x, Linear(W.shape[1], bias=bool(b)), W, *b)


def _bias(node: Node, b: Array, shape: Shape) -> Array:
    """A constant that is added to activities of a shape, one number for each of its channels."""
    wanted = (shape[0], *(1,) * (len(shape) - 1))
    # the axis of patterns may be there, of size 1
    if b.ndim == len(shape) + 1 and b.shape[0] == 1:
        b = b[0]
    try:
        return np.broadcast_to(b, wanted)
    except ValueError:
        raise node.error(
            f"adds a constant of shape {b.shape} to activities of shape {shape}: only biases, one"
            " for each channel, are supported"
        ) from None


def _add(node: Node, graph: Graph) -> Value:
    # x + b or b + x, or two activities
    constant = [place for place in (0, 1) if graph.constant(node, place) is not None]
    if not constant:
        return graph.sum(node, graph.activity(node, 0), graph.activity(node, 1))
    place = 1 - constant[0]
    x = graph.activity(node, place)
    b = _bias(node, graph.weights(node, constant[0]), x.shape)
    last = x.trail[-1] if x.trail else None
    layer = last.layer if last else None
    # who else takes the product takes it without the bias
    alone = graph.uses[node.inputs[place]] == 1
    if last is None or not isinstance(layer, WEIGHTED) or layer.bias or not alone:
        raise node.error(
            "adds a constant to what is no product of weights without a bias: leave it out, and do"
            " it to the data"
        )
    # that layer again, with the constant as its bias
    step = Step(replace(layer, bias=True), (*last.weights, np.ravel(b)), last.node)
    return Value(x.shape, (*x.trail[:-1], step))


def _conv(node: Node, graph: Graph) -> Value:
    x, W = graph.activity(node), graph.weights(node, 1)
    axes = len(x.shape) - 1
    if axes not in (1, 2) or W.ndim != axes + 2:
        raise node.error(
            f"of an activity of shape {x.shape} with weights {W.shape}: only convolutions over one"
            " or two axes are supported"
        )
    size = node.integers("kernel_shape", W.shape[2:])
    groups = node.integer("group", 1)
    if size != W.shape[2:] or groups < 1 or W.shape[1] * groups != x.shape[0]:
        raise node.error(
            f"weights {W.shape} in {groups} groups do not fit {x.shape[0]} channels and windows of"
            f" {size}: export the network again"
        )
    stride, padding = _window_options(node, x.shape, size)
    biased = graph.has(node, 2)
    kind = Conv1d if axes == 1 else Conv2d
    layer = kind(W.shape[0], short(size), stride, padding, groups, biased)
    b = [_bias(node, graph.weights(node, 2), (W.shape[0],))] if biased else []
    # (channels, n_in/groups, *window), as `Conv2d` has it
    return graph.then(node, x, layer, W, *b)


def short(sizes: tuple[int, ...]) -> Sizes:
    """One number where all are alike, as one writes them."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _window_options(node: Node, shape: Shape, size: tuple[int, ...]) -> tuple[Sizes, Padding]:
    """Stride and padding of windows of a size."""
    ones = (1,) * len(size)
    stride = node.integers("strides", ones)
    dilations = node.integers("dilations", ones)
    node.only("dilations", list(dilations), dilations == ones, "use windows without gaps")
    if min(stride) < 1 or min(size) < 1:
        raise node.error(
            f"windows of {size}, {stride} apart, must be 1 or more: export the network again"
        )
    auto, inner = node.text("auto_pad", "NOTSET"), shape[1:]
    if auto == "NOTSET":
        # all that go before, then all that go after
        pads = node.integers("pads", (0,) * 2 * len(size))
        pairs = tuple(zip(pads[: len(size)], pads[len(size) :], strict=True))
    elif auto == "VALID":
        pairs = tuple((0, 0) for _ in size)
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pairs = tuple(_same(n, k, s, auto) for n, k, s in zip(inner, size, stride, strict=True))
    else:
        raise node.error(f"auto_pad = {shown(auto)} is unknown: export the network again")
    if node.integer("ceil_mode", 0):
        # with nothing left over, rounding up gives as many windows as rounding down
        rests = [
            (n + a + b - k) % s for n, k, s, (a, b) in zip(inner, size, stride, pairs, strict=True)
        ]
        node.only("ceil_mode", 1, not any(rests), "its last windows reach beyond: set ceil_mode=0")
    even = all(a == b for a, b in pairs)
    return short(stride), short(tuple(a for a, _ in pairs)) if even else pairs


def _same(n: int, k: int, s: int, auto: str) -> tuple[int, int]:
    """Padding with which there are ceil(n/s) windows; the odd one after, or (SAME_LOWER) before."""
    total = max((-(-n // s) - 1) * s + k - n, 0)
    half = total // 2
    return (half, total - half) if auto == "SAME_UPPER" else (total - half, half)


def _max_pool(node: Node, graph: Graph) -> Value:
    x, size = _pooled(node, graph)
    node.only("Indices", "an output", len([*filter(None, node.outputs)]) < 2, "leave it out")
    stride, padding = _window_options(node, x.shape, size)
    pool = short(size)
    return graph.then(node, x, MaxPool(pool, None if stride == pool else stride, padding))


def _average_pool(node: Node, graph: Graph) -> Value:
    x, size = _pooled(node, graph)
    stride, padding = _window_options(node, x.shape, size)
    counted = bool(node.integer("count_include_pad", 0))
    pool = short(size)
    apart = None if stride == pool else stride
    return graph.then(node, x, AveragePool(pool, apart, padding, counted))


def _pooled(node: Node, graph: Graph) -> tuple[Value, tuple[int, ...]]:
    x = graph.activity(node)
    if len(x.shape) < 2:
        raise node.error(f"of an activity of shape {x.shape}: it takes channels with positions")
    if node.given("kernel_shape") is None:
        raise node.error("has no kernel_shape: export the network again")
    # of the default only the length counts
    return x, node.integers("kernel_shape", (0,) * (len(x.shape) - 1))


def _global_average_pool(node: Node, graph: Graph) -> Value:
    return graph.then(node, graph.activity(node), GlobalAveragePool())


def _reduce_mean(node: Node, graph: Graph) -> Value:
    # what newer exporters make of a global pool
    x = graph.activity(node)
    axes = _axes(node, graph, len(x.shape) + 1)
    node.only(
        "axes", sorted(axes or ()), axes == {*range(2, len(x.shape) + 1)}, "take all but 0 and 1"
    )
    mean = graph.then(node, x, GlobalAveragePool())
    return mean if node.integer("keepdims", 1) else graph.then(node, mean, Flatten())


def _batch_normalization(node: Node, graph: Graph) -> Value:
    x = graph.activity(node)
    trains = node.integer("training_mode", 0)
    node.only("training_mode", trains, not trains, "export after model.eval()")
    # a (y - mean)/sqrt(var + epsilon) + b, with its statistics fixed, is a' y + b'
    scale, b = graph.weights(node, 1), graph.weights(node, 2)
    mean, var = graph.numbers(node, 3), graph.numbers(node, 4)
    if any(each.shape != x.shape[:1] for each in (scale, b, mean, var)):
        raise node.error(f"its statistics do not fit {x.shape[0]} channels: export again")
    spread = var + node.number("epsilon", 1e-5)
    if not (spread > 0).all():
        raise node.error("variance + epsilon must be > 0: export the network again")
    a = scale / np.sqrt(spread)
    return graph.then(node, x, BatchNorm(), a, b - mean * a)


def _activation(name: str) -> Callable[[Node, Graph], Value]:
    return lambda node, graph: graph.then(node, graph.activity(node), Activation(name))


def greater(node: Node, graph: Graph) -> tuple[Value, float]:
    """What is compared, and with which number: the half of a softplus as PyTorch exports it."""
    x, limit = graph.activity(node), graph.numbers(node, 1)
    node.only("limit", limit.ravel()[:3].tolist(), limit.size == 1, "use operators of the list")
    return x, float(limit.ravel()[0])


def _where(node: Node, graph: Graph) -> Value:
    # softplus(x), or x itself from where they differ by e^-20 or less, 2e-9: softplus(x)
    name = node.inputs[0] if node.inputs else ""
    if name not in graph.above:
        raise node.error("chooses by what is no comparison of an activity: only softplus does so")
    (compared, limit), x, y = graph.above[name], graph.activity(node, 1), graph.activity(node, 2)
    last = y.trail[-1].layer if y.trail else None
    same = compared.trail == x.trail == y.trail[:-1]
    if not (same and last == Activation("softplus") and limit >= 20):
        raise node.error("is supported of x > 20, x and softplus(x) alone: use another activation")
    return y


def _softmax(node: Node, graph: Graph) -> Value:
    x = graph.activity(node)
    # of older files the axis is the first of those that are taken together: here the same
    if len(x.shape) != 1 or node.integer("axis", 1) not in (1, -1):
        raise node.error(
            f"of an activity of shape {x.shape} along axis {node.integer('axis', 1)}: it is"
            " supported of outputs (patterns, classes) alone"
        )
    return Value(x.shape, x.trail, node.op)


def _flatten(node: Node, graph: Graph) -> Value:
    x = graph.activity(node)
    axis = node.integer("axis", 1)
    # axis 1, also counted from the end: only patterns are not flattened
    node.only("axis", axis, axis in (1, -len(x.shape)), ROWS)
    return graph.then(node, x, Flatten())


def _reshape(node: Node, graph: Graph) -> Value:
    x, to = graph.activity(node), graph.constant(node, 1)
    if to is None or to.dtype.kind not in "iu" or to.ndim != 1 or not to.size:
        raise node.error(f"its shape is not known before patterns are: {FIXED}")
    before = (graph.batch, *x.shape)
    shape = [int(n) for n in to]
    if not node.integer("allowzero", 0):
        # 0: as it was
        shape = [before[k] if n == 0 and k < len(before) else n for k, n in enumerate(shape)]
    if shape.count(-1) == 1:
        # what the others leave; the product has the -1 in it
        rest = -prod(shape)
        shape = [prod(before) // max(rest, 1) if n == -1 else n for n in shape]
    return _reshaped(node, graph, x, shape)


def _reshaped(node: Node, graph: Graph, x: Value, shape: list[int]) -> Value:
    """The entries of each pattern in another shape, which begins with the axis of patterns."""
    if len(shape) < 2 or shape[0] != graph.batch or min(shape) < 1:
        raise node.error(f"{ROWS}, and be followed by others: {FIXED}")
    to = tuple(shape[1:])
    layer: Layer = Flatten() if len(to) == 1 and prod(to) == prod(x.shape) else Reshape(to)
    return graph.then(node, x, layer)


def _transpose(node: Node, graph: Graph) -> Value:
    x = graph.activity(node)
    axes = len(x.shape) + 1
    order = node.integers("perm", tuple(reversed(range(axes))))
    node.only("perm", list(order), order[0] == 0, ROWS)
    return graph.then(node, x, Transpose(tuple(axis - 1 for axis in order[1:])))


def _squeeze(node: Node, graph: Graph) -> Value:
    x = graph.activity(node)
    before = [graph.batch, *x.shape]
    axes = _axes(node, graph, len(before))
    gone = {k for k, n in enumerate(before) if n == 1 and k} if axes is None else axes
    if any(before[k] != 1 or not k for k in gone):
        raise node.error(f"{ROWS}, and only axes of size 1 can go: {FIXED}")
    return _reshaped(node, graph, x, [n for k, n in enumerate(before) if k not in gone])


def _unsqueeze(node: Node, graph: Graph) -> Value:
    x = graph.activity(node)
    given = node.given("axes") if not graph.has(node, 1) else graph.constant(node, 1)
    # of the result, in which the axes are numbered
    rank = len(x.shape) + 1 + np.size(given if given is not None else [])
    new = _axes(node, graph, rank) or set()
    old = iter([graph.batch, *x.shape])
    return _reshaped(node, graph, x, [1 if k in new else next(old) for k in range(rank)])


def _axes(node: Node, graph: Graph, rank: int) -> set[int] | None:
    """axes, from 0, of a rank: an attribute, or (from operator set 13) an input; None if absent."""
    given = node.given("axes")
    if graph.has(node, 1):
        given = graph.constant(node, 1)
        if given is None:
            raise node.error(f"its axes are not known before patterns are: {FIXED}")
    if given is None:
        return None
    # negative ones count from the end
    axes = [int(axis) + rank * (int(axis) < 0) for axis in np.ravel(given)]
    if len(set(axes)) < len(axes) or any(not 0 <= axis < rank for axis in axes):
        raise node.error(f"axes = {shown(axes)} must be different ones of {rank}: export again")
    return set(axes)


def _same_value(node: Node, graph: Graph) -> Value:
    return graph.activity(node)


def _dropout(node: Node, graph: Graph) -> Value:
    # one that the file does not know counts as training
    trains = graph.has(node, 2) and np.any(graph.constant(node, 2) != np.bool_(False))
    node.only("training_mode", True, not trains, "export after model.eval()")
    return graph.activity(node)


OPERATORS: dict[str, Callable[[Node, Graph], Value]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Add": _add,
    "Conv": _conv,
    "Relu": _activation("relu"),
    "Tanh": _activation("tanh"),
    "Sigmoid": _activation("logistic"),
    "Softplus": _activation("softplus"),
    "Where": _where,
    "Softmax": _softmax,
    # E takes what comes before either
    "LogSoftmax": _softmax,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "ReduceMean": _reduce_mean,
    "BatchNormalization": _batch_normalization,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Identity": _same_value,
    "Dropout": _dropout,
}


def _gathered(node: Node, graph: Graph, x: Array, at: Array) -> Array:
    # the result can have no more
    if x.size * at.size > MAX_FOLDED:
        raise node.error("gathers too many numbers: only shapes are computed so")
    return np.take(x, at, axis=node.integer("axis", 0))


def _expanded(node: Node, graph: Graph, x: Array, *axes: Array) -> Array:
    rank = x.ndim + np.size(axes[0] if axes else node.given("axes") or [])
    return np.expand_dims(x, tuple(_axes(node, graph, rank) or ()))


def _squeezed(node: Node, graph: Graph, x: Array, *axes: Array) -> Array:
    gone = _axes(node, graph, x.ndim)
    return np.squeeze(x) if gone is None else np.squeeze(x, tuple(gone))


def _cast(node: Node, graph: Graph, x: Array) -> Array:
    from onnx import helper

    return x.astype(helper.tensor_dtype_to_np_dtype(node.integer("to", 0)))


def _turned(node: Node, graph: Graph, x: Array) -> Array:
    return np.transpose(x, node.integers("perm", tuple(reversed(range(x.ndim)))))


# of constants alone: what exporters write of shapes, and of weights that they turn round
FOLDED: dict[str, Callable[..., Array]] = {
    "Identity": lambda node, graph, x: x,
    "Cast": _cast,
    "Concat": lambda node, graph, *x: np.concatenate(x, axis=node.integer("axis", 0)),
    "Gather": _gathered,
    "Unsqueeze": _expanded,
    "Squeeze": _squeezed,
    "Transpose": _turned,
    "Reshape": lambda node, graph, x, to: x.reshape([int(n) for n in to]),
}


def folded(node: Node, graph: Graph) -> Array:
    """A constant that the file computes from others."""
    inputs = [graph.constants[name] for name in node.inputs if name]
    if sum(each.size for each in inputs) > MAX_FOLDED:
        raise node.error(f"computes with more than {MAX_FOLDED} constants: export them as they are")
    try:
        return FOLDED[node.op](node, graph, *inputs)
    # of a node that is named already; it is a ValueError, too
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        raise node.error(f"its constants do not fit ({error}): export the network again") from None


def shape_of(node: Node, graph: Graph) -> Array:
    """The operator Shape, of an activity or a constant."""
    found = graph.constant(node, 0)
    shape = (graph.batch, *graph.activity(node).shape) if found is None else found.shape
    end = node.integer("end", len(shape))
    return np.array(shape[node.integer("start", 0) : end], dtype=np.int64)
