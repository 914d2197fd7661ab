"""Networks in ONNX files: read, computed, written, and learned with."""

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from fast import thinned
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_files import FILES, Graph, digits, small
from onnxruntime import InferenceSession
from scipy.special import expit, log_softmax, softmax

import perturb
import sims
from perturb import InputError
from perturb.networks.layers import AveragePool, Residual
from perturb.networks.onnx.operators import FOLDED, OPERATORS
from sims.data.loading import load_data
from sims.experiment.loading import load_experiment

# exported once, and kept: what a user has
COMMITTED = Path(__file__).parent / "digits.onnx"
# what E includes of the network of a file
ENDINGS = {
    "": lambda y: y,
    "Softmax": lambda y: softmax(y, axis=1),
    "LogSoftmax": lambda y: log_softmax(y, axis=1),
    "Sigmoid": expit,
}
ENDS_WITH = {
    "mlp": "Softmax",
    "autoencoder": "Sigmoid",
    "resnet8": "LogSoftmax",
    "reordered": "Sigmoid",
}


def stored(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def patterns(model, network, dtype="float64"):
    """Inputs for the file, as many as it takes: random, but the same each time."""
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return (
        np.random.default_rng(0).standard_normal((fixed or 5, *network.input_shape)).astype(dtype)
    )


def outputs(network, w, x):
    x = x.astype(float)
    return network.objective(x, np.eye(len(x), network.n_outputs)).outputs(w)


def test_the_ten_files_are_valid_and_different():
    for make in FILES.values():
        onnx.checker.check_model(make("float64"), full_check=True)
    assert len(FILES) == 10


# ---- read and written


@pytest.mark.parametrize("name", FILES)
def test_a_network_computes_what_its_file_does(name, tmp_path):
    ending = ENDINGS[ENDS_WITH.get(name, "")]
    model = FILES[name]("float64")
    network, w = perturb.from_onnx(stored(model, tmp_path / "net.onnx"))
    x = patterns(model, network)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    y = ending(outputs(network, w, x))
    np.testing.assert_allclose(y, expected.reshape(len(x), -1), rtol=1e-12, atol=1e-12)
    # and not whatever the weights are
    assert not np.allclose(ending(outputs(network, 1.1 * w, x)), y, rtol=1e-3)

    path = stored(FILES[name]("float32"), tmp_path / "single.onnx")
    network, w = perturb.from_onnx(path)
    x = x.astype(np.float32)
    (expected,) = InferenceSession(path).run(None, {"x": x})
    y = ending(outputs(network, w, x))
    np.testing.assert_allclose(y, expected.reshape(len(x), -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_is_the_same_network_with_other_weights(name, tmp_path):
    model = FILES[name]("float64")
    network, w = perturb.from_onnx(stored(model, tmp_path / "net.onnx"))
    x = patterns(model, network)
    changed = w * np.random.default_rng(1).uniform(0.5, 1.5, w.size)
    for own in (w, changed):
        perturb.to_onnx(network, own, tmp_path / "learned.onnx")
        written = onnx.load(tmp_path / "learned.onnx")
        onnx.checker.check_model(written, full_check=True)
        again, same = perturb.from_onnx(tmp_path / "learned.onnx")
        np.testing.assert_array_equal(same, own)
        assert again.layers == network.layers and again.error == network.error
        (y,) = ReferenceEvaluator(written).run(None, {"x": x})
        ending = ENDINGS[ENDS_WITH.get(name, "")]
        expected = ending(outputs(network, own, x))
        np.testing.assert_allclose(y.reshape(len(x), -1), expected, rtol=1e-12, atol=1e-12)
    # whoever used the file can use the new one: names, shapes and type are as they were
    for before, after in zip(*(ends(each.graph) for each in (model, written)), strict=True):
        assert after == before


def ends(graph):
    """Name, type and shape, without patterns, of what goes in and out."""
    for end in (*graph.input, *graph.output):
        kind = end.type.tensor_type
        yield end.name, kind.elem_type, [dim.dim_value for dim in kind.shape.dim][1:]


@pytest.mark.parametrize("name", thinned(FILES, 3))
def test_written_in_float32_it_runs_elsewhere(name, tmp_path):
    model = FILES[name]("float64")
    network, w = perturb.from_onnx(stored(model, tmp_path / "net.onnx"))
    perturb.to_onnx(network, w, tmp_path / "learned.onnx", dtype="float32")
    x = patterns(model, network)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (y,) = InferenceSession(tmp_path / "learned.onnx").run(None, {"x": x.astype(np.float32)})
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_networks_of_ones_own_are_written(tmp_path):
    mlp = perturb.MLP([4, 3, 2], activation="softplus", output="tanh")
    layers = perturb.Layers(
        [1, 6, 6], ["conv2d 2 3", "relu", "averagepool 2", "flatten", "linear 2"]
    )
    for network, shape in ((mlp, (4,)), (layers, (1, 6, 6))):
        w = network.init(0)
        x = np.random.default_rng(0).standard_normal((3, *shape))
        perturb.to_onnx(network, w, tmp_path / "own.onnx", dtype="float64")
        (y,) = ReferenceEvaluator(str(tmp_path / "own.onnx")).run(None, {"input": x})
        expected = network.objective(x.reshape(3, -1), np.zeros((3, 2))).outputs(w)
        np.testing.assert_allclose(y, expected, rtol=1e-12)
        # float32 unless it is asked for
        perturb.to_onnx(network, w, tmp_path / "single.onnx")
        _, single = perturb.from_onnx(tmp_path / "single.onnx")
        np.testing.assert_array_equal(single, w.astype(np.float32))


@pytest.mark.parametrize(
    "error, output, by_its_end",
    [
        ("squared_error", "logistic", "binary_cross_entropy"),
        ("cross_entropy", "linear", "squared_error"),
    ],
)
def test_what_is_written_is_read_again_by_its_error(tmp_path, error, output, by_its_end):
    made = perturb.MLP([3, 4, 2], output=output, error=error)
    w = made.init(seed=0)
    perturb.to_onnx(made, w, tmp_path / "net.onnx", dtype="float64")
    assert perturb.from_onnx(tmp_path / "net.onnx")[0].error == by_its_end
    read, w_read = perturb.from_onnx(tmp_path / "net.onnx", error=error)
    x, target = np.random.default_rng(0).standard_normal((5, 3)), np.eye(2)[[0, 1, 1, 0, 1]]
    a, b = made.objective(x, target), read.objective(x, target)
    np.testing.assert_allclose(a.pattern_errors(w), b.pattern_errors(w_read), rtol=1e-13)


def test_weights_of_float32_are_read_exactly(tmp_path):
    model = FILES["residual_mlp"]("float32")
    _, w = perturb.from_onnx(stored(model, tmp_path / "net.onnx"))
    assert w.dtype == np.float64
    np.testing.assert_array_equal(w, w.astype(np.float32))
    assert set(w) == {
        float(each) for tensor in model.graph.initializer for each in np.ravel(as_array(tensor))
    }


def as_array(tensor):
    return onnx.numpy_helper.to_array(tensor)


def test_gradient_and_Hv_of_a_file_are_exact(tmp_path):
    network, w = perturb.from_onnx(stored(FILES["preactivation"]("float64"), tmp_path / "n.onnx"))
    rng = np.random.default_rng(2)
    objective = network.objective(rng.standard_normal((4, 36)), rng.standard_normal((4, 2)))
    v = rng.standard_normal(w.size)
    step = 1e-6
    along = (objective.error(w + step * v) - objective.error(w - step * v)) / (2 * step)
    assert objective.gradient(w) @ v == pytest.approx(along, rel=1e-6)
    z = (objective.gradient(w + step * v) - objective.gradient(w - step * v)) / (2 * step)
    # no activity is within a step of the corner of a relu
    np.testing.assert_allclose(objective.hvp(w, v), z, rtol=1e-5, atol=1e-6 * abs(z).max())


def test_sums_become_residuals_with_the_shortcut_second(tmp_path):
    network, _ = perturb.from_onnx(stored(FILES["residual_mlp"]("float64"), tmp_path / "n.onnx"))
    outer, both = (layer for layer in network.layers if isinstance(layer, Residual))
    assert str(outer) == "residual(linear 5; relu; residual(linear 5))"
    assert str(both) == "residual(linear 3; tanh | linear 3)"


def test_an_error_that_is_given_decides_what_the_end_is(tmp_path):
    sigmoid = stored(FILES["autoencoder"]("float64"), tmp_path / "sigmoid.onnx")
    default, _ = perturb.from_onnx(sigmoid)
    squared, _ = perturb.from_onnx(sigmoid, error="squared_error")
    assert default.error == "binary_cross_entropy" and len(default.layers) == 3
    assert [str(layer) for layer in squared.layers][3:] == ["logistic"]
    plain, _ = perturb.from_onnx(stored(FILES["lenet"]("float64"), tmp_path / "plain.onnx"))
    assert plain.error == "squared_error"
    with pytest.raises(InputError, match='ends with Softmax, which error = "squared_error"'):
        perturb.from_onnx(stored(FILES["mlp"]("float64"), tmp_path / "s.onnx"), "squared_error")


def test_older_operator_sets_give_axes_as_attributes(tmp_path):
    g = Graph()
    x = g("Squeeze", g("Unsqueeze", "x", axes=[1, -1]), axes=[-1, 1])
    x = g("Softmax", g.linear(x, 4, 3), axis=1)
    model = g.model([4], x, [3], opset=11)
    network, w = perturb.from_onnx(stored(model, tmp_path / "old.onnx"))
    x = patterns(model, network)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(softmax(outputs(network, w, x), axis=1), expected, rtol=1e-12)


def test_a_last_window_that_is_whole_needs_no_ceil_mode(tmp_path):
    g = Graph()
    x = g("AveragePool", "x", kernel_shape=[2], strides=[2], ceil_mode=1)
    model = g.model([2, 6], g.linear(g("Flatten", x), 6, 2), [2])
    network, _ = perturb.from_onnx(stored(model, tmp_path / "net.onnx"))
    assert network.layers[0] == AveragePool(2)


def softplus_or(g, limit=20.0, other="", name="Softplus"):
    """Softplus as PyTorch exports it: above `limit` the net input itself."""
    x = g.linear("x", 4, 3)
    chosen = g("Where", g("Greater", x, g.constant(limit)), other or x, g(name, x))
    return g.linear(chosen, 3, 2)


def test_a_softplus_that_gives_way_to_its_input_is_one(tmp_path):
    model = of_nodes([4], softplus_or)()
    network, w = perturb.from_onnx(stored(model, tmp_path / "net.onnx"))
    assert [str(layer) for layer in network.layers] == ["linear 3", "softplus", "linear 2"]
    # net inputs on both sides of 20
    x = 30 * patterns(model, network)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(outputs(network, w, x), expected, rtol=0, atol=1e-8)


def external(model, folder):
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    return path


def test_weights_in_a_file_beside_are_read(tmp_path):
    path = external(FILES["mlp"]("float64"), tmp_path)
    _, w = perturb.from_onnx(path)
    _, expected = perturb.from_onnx(stored(FILES["mlp"]("float64"), tmp_path / "whole.onnx"))
    np.testing.assert_array_equal(w, expected)


# ---- mistakes


def refused(model, tmp_path, **kwargs):
    path = stored(model, tmp_path / "net.onnx")
    with pytest.raises(InputError) as error:
        perturb.from_onnx(path, **kwargs)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"file = {path}: ")
    return message.removeprefix(f"file = {path}: ")


def of_nodes(shape, out, outputs=(2,), **model):
    """A file whose last node is made by out(graph)."""

    def make():
        g = Graph()
        return g.model(list(shape), out(g), list(outputs), **model)

    return make


def shared(g):
    W = g.weights(4, 4)
    return g("MatMul", g("MatMul", "x", W), W)


def crossing(g):
    a = g.linear("x", 4, 4)
    b = g.linear(a, 4, 4)
    c = g("Add", a, g.linear(b, 4, 4))
    return g("Add", b, c)


def with_mask(g):
    return g.linear(g("Dropout", "x", g.constant(0.5), g.constant(np.bool_(True))), 4, 2)


def half(g):
    g.dtype = np.dtype("float16")
    x = g("MatMul", "x", g.weights(4, 2))
    g.dtype = np.dtype("float64")
    return x


REFUSED = {
    "operator": (
        of_nodes([4], lambda g: g("Erf", "x")),
        "node Erf_0 (Erf): is an operator that is not supported: use layers of Gemm, MatMul, Add,",
    ),
    "a choice elsewhere": (
        of_nodes([4], lambda g: softplus_or(g, 1.0)),
        "node Where_3 (Where): is supported of x > 20, x and softplus(x) alone",
    ),
    "a choice of something else": (
        of_nodes([4], lambda g: softplus_or(g, name="Relu")),
        "node Where_3 (Where): is supported of x > 20, x and softplus(x) alone",
    ),
    "a choice by weights": (
        of_nodes([4], lambda g: g("Where", g.constant([True]), "x", g("Relu", "x"))),
        "chooses by what is no comparison of an activity",
    ),
    "a comparison as an activity": (
        of_nodes([4], lambda g: g("Relu", g("Greater", "x", g.constant(20.0)))),
        "is a comparison where an activity is wanted",
    ),
    "a comparison with many numbers": (
        of_nodes([4], lambda g: g("Greater", "x", g.weights(4))),
        "limit = [",
    ),
    "domain": (
        of_nodes([4], lambda g: g("Relu", "x", domain="com.microsoft")),
        "node Relu_0 (Relu): is an operator that is not supported",
    ),
    "shared": (
        of_nodes([4], shared),
        "node MatMul_1 (MatMul): shares its weights w0 with node MatMul_0, and each would learn its"
        " own: export the network without shared weights",
    ),
    "crossing": (
        of_nodes([4], crossing),
        "leads to two sums that are not nested in each other",
    ),
    "dilations": (
        of_nodes([1, 9], lambda g: g.conv("x", 1, 2, 3, dilations=[2])),
        "node Conv_0 (Conv): dilations = [2] is not supported: use windows without gaps",
    ),
    "convolution of volumes": (
        of_nodes([1, 4, 4, 4], lambda g: g.conv("x", 1, 2, 3, 3, 3)),
        "only convolutions over one or two axes are supported",
    ),
    "channels": (
        of_nodes([2, 9], lambda g: g.conv("x", 1, 2, 3)),
        "do not fit 2 channels and windows of (3,): export the network again",
    ),
    "ceil mode": (
        of_nodes([1, 5], lambda g: g("MaxPool", "x", kernel_shape=[2], strides=[2], ceil_mode=1)),
        "node MaxPool_0 (MaxPool): ceil_mode = 1 is not supported: its last windows reach beyond",
    ),
    "indices": (
        of_nodes([1, 4], lambda g: g("MaxPool", "x", kernel_shape=[2], outputs=2)),
        'node MaxPool_0 (MaxPool): Indices = "an output" is not supported: leave it out',
    ),
    "window": (
        of_nodes([1, 4], lambda g: g("MaxPool", "x", kernel_shape=[9])),
        "its window of 9 is larger than the 4 positions",
    ),
    "softmax within": (
        of_nodes([4], lambda g: g.linear(g("Softmax", "x"), 4, 2)),
        "follows a Softmax, which is supported as the last operator alone: end the network there",
    ),
    "softmax of channels": (
        of_nodes([2, 4], lambda g: g("Softmax", g.conv("x", 2, 2, 1), axis=1)),
        "it is supported of outputs (patterns, classes) alone",
    ),
    "training": (
        of_nodes([4], with_mask),
        "node Dropout_0 (Dropout): training_mode = true is not supported: export after model.eval",
    ),
    "constant": (
        of_nodes([4], lambda g: g.linear(g("Add", "x", g.weights(4)), 4, 2)),
        "adds a constant to what is no product of weights without a bias: leave it out",
    ),
    "bias of positions": (
        of_nodes([1, 6], lambda g: g("Add", g.conv("x", 1, 2, 1, bias=False), g.weights(6))),
        "adds a constant of shape (6,) to activities of shape (2, 6): only biases",
    ),
    "sum of shapes": (
        of_nodes([4], lambda g: g("Add", g.linear("x", 4, 4), g.linear("x", 4, 1))),
        "adds activities of shapes (4,) and (1,): only sums of equal shapes are supported",
    ),
    "transposed patterns": (
        of_nodes([4], lambda g: g.linear(g("Transpose", "x", perm=[1, 0]), 4, 2)),
        "perm = [1, 0] is not supported: the first axis must stay that of the patterns",
    ),
    "reshaped patterns": (
        of_nodes([4], lambda g: g.linear(g("Reshape", "x", g.constant([-1, 2])), 2, 2)),
        "the first axis must stay that of the patterns, and be followed by others: export",
    ),
    "matrix of positions": (
        of_nodes([3, 4], lambda g: g("MatMul", "x", g.weights(4, 2))),
        "multiplies an activity of shape (3, 4) by weights (4, 2): put a Flatten before it",
    ),
    "mean of channels": (
        of_nodes([2, 3, 3], lambda g: g("ReduceMean", "x", axes=[1], keepdims=0)),
        "axes = [1] is not supported: take all but 0 and 1",
    ),
    "half": (of_nodes([4], half), "its weights w0 are of type float16: export the network in"),
    "not a number": (
        of_nodes([4], lambda g: g("MatMul", "x", g.constant(np.full((4, 2), np.nan)))),
        "node MatMul_0 (MatMul): w0[0, 0] = nan is not finite",
    ),
    "no weights": (of_nodes([4], lambda g: g("Relu", "x")), "layers has no layer with weights"),
    "attribute": (
        of_nodes([1, 4], lambda g: g.conv("x", 1, 2, 3, strides=[2, 2])),
        "strides = [2, 2] must be 1 integers: export the network again",
    ),
    "old": (
        of_nodes([4], lambda g: g.linear("x", 4, 2), opset=7),
        "is of operator set 7, but 9 to 28 are read: export it with opset_version=17",
    ),
    "new": (
        of_nodes([4], lambda g: g.linear("x", 4, 2), opset=99),
        "is of operator set 99, but 9 to 28 are read",
    ),
    "dynamic": (
        of_nodes([1, "height"], lambda g: g("Relu", "x")),
        "input x: axis 2 is dynamic (height): export the network with a fixed shape, only the",
    ),
    "no patterns": (
        of_nodes([], lambda g: g("Relu", "x")),
        "input x has 1 axes: the first is that of patterns",
    ),
    "nothing": (lambda: onnx.ModelProto(), "no ONNX file, or one without a network: export"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_one_line_that_names_the_node(name, tmp_path):
    make, message = REFUSED[name]
    assert message in refused(make(), tmp_path)


def test_inputs_and_outputs_are_one_of_each(tmp_path):
    model = FILES["mlp"]("float64")
    extra = helper.make_tensor_value_info("more", TensorProto.DOUBLE, ["N", 3])
    for ends, what in ((model.graph.input, "inputs"), (model.graph.output, "outputs")):
        ends.append(extra)
        assert f"has {what} [" in refused(model, tmp_path)
        del ends[-1]


def test_external_data_that_are_missing_or_elsewhere_are_one_line(tmp_path):
    path = external(FILES["mlp"]("float64"), tmp_path)
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(InputError, match=r"are in another file, net\.onnx\.data, which is not bes"):
        perturb.from_onnx(path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../secret"
    assert "../secret, which is not beside it" in refused(model, tmp_path)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("net.onnx", None, "no such file: give the path of an ONNX file"),
        ("net.txt", b"", "must end in .onnx: give an ONNX file"),
        ("net.onnx", b"", "no ONNX file, or one without a network: export the network again"),
        ("net.onnx", b"kind of text", "no ONNX file, or not a whole one: export the network again"),
    ],
)
def test_what_is_no_such_file_is_one_line(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        perturb.from_onnx(tmp_path / name)
    assert str(error.value) == f"file = {tmp_path / name}: {message}"


def test_a_directory_and_what_is_no_path_are_one_line(tmp_path):
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(InputError, match="no such file"):
        perturb.from_onnx(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="file = 3 must be the path of an ONNX file"):
        perturb.from_onnx(3)


def test_a_very_large_file_is_not_read(tmp_path):
    path = tmp_path / "net.onnx"
    with open(path, "wb") as file:
        file.truncate(2**28 + 1)  # with nothing in it: it takes no room
    with pytest.raises(InputError, match="268435457 bytes, more than the 268435456 that are read"):
        perturb.from_onnx(path)


def test_without_the_extra_one_line_says_what_to_install(tmp_path):
    path = stored(FILES["mlp"]("float64"), tmp_path / "net.onnx")
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import perturb\n"
        "net = perturb.MLP([2, 1])\n"
        f"for call in (lambda: perturb.from_onnx({str(path)!r}),"
        f" lambda: perturb.to_onnx(net, net.init(0), {str(tmp_path / 'n.onnx')!r})):\n"
        "    try: call()\n"
        "    except perturb.InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("pip install 'perturb[onnx]'" in line for line in lines)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net, w, at: perturb.to_onnx(net, w[1:], at), "the network has 53 weights"),
        (lambda net, w, at: perturb.to_onnx(net, w * 1e300, at), "w has entries beyond float32"),
        (lambda net, w, at: perturb.to_onnx(net, w, at, "float16"), "dtype = 'float16' is unknown"),
        (lambda net, w, at: perturb.to_onnx(net, w, at.with_suffix(".pt")), "must end in .onnx"),
        (lambda net, w, at: perturb.to_onnx(perturb.DAG, w, at), "give Layers or an MLP"),
        (lambda net, w, at: perturb.to_onnx(net, w, at / "n.onnx"), "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_one_line(call, message, tmp_path):
    network, w = perturb.from_onnx(stored(FILES["mlp"]("float32"), tmp_path / "net.onnx"))
    with pytest.raises(InputError) as error:
        call(network, w, tmp_path / "net.onnx")
    assert message in str(error.value) and "\n" not in str(error.value)


DAMAGED = {name: make("float32").SerializeToString() for name, make in FILES.items()}


@st.composite
def damaged(draw):
    """The bytes of a file, cut short or with some of them others."""
    content = bytearray(DAMAGED[draw(st.sampled_from(sorted(DAMAGED)))])
    if draw(st.booleans()):
        del content[draw(st.integers(0, len(content))) :]
    for _ in range(draw(st.integers(0, 3))):
        if content:
            content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


ODD = st.sampled_from([-(2**62), -2, -1, 0, 1, 2, 3, 7, 40, 10_000, 2**31, 2**62])


@st.composite
def altered(draw):
    """A file with other attributes, operators, inputs, dimensions and constants."""
    model = onnx.ModelProto.FromString(DAMAGED[draw(st.sampled_from(sorted(DAMAGED)))])
    graph = model.graph
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.sampled_from(graph.node))
        what = draw(st.sampled_from(["attribute", "operator", "input", "node", "dim", "constant"]))
        if what == "attribute" and node.attribute:
            attribute = draw(st.sampled_from(node.attribute))
            if attribute.ints:
                attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(ODD)
            attribute.i = draw(ODD)
        elif what == "operator":
            node.op_type = draw(
                st.sampled_from([*OPERATORS, *FOLDED, "Greater", "Shape", "Constant"])
            )
        elif what == "input" and node.input:
            names = [name for each in graph.node for name in (*each.input, *each.output)]
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
        elif what == "node":
            graph.node.remove(node)
        elif what == "dim":
            end = draw(st.sampled_from([*graph.input, *graph.output]))
            draw(st.sampled_from(end.type.tensor_type.shape.dim)).dim_value = draw(ODD)
        elif what == "constant" and graph.initializer:
            dims = draw(st.sampled_from(graph.initializer)).dims
            if dims:
                dims[draw(st.integers(0, len(dims) - 1))] = draw(ODD)
        if not graph.node:
            break
    return model.SerializeToString()


def numbers_or_one_line(content, path):
    path.write_bytes(content)
    try:
        network, w = perturb.from_onnx(path)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
    else:
        assert w.shape == (network.n_weights,) and np.isfinite(w).all()


@settings(deadline=None, max_examples=60)
@given(damaged() | altered())
def test_a_damaged_file_gives_numbers_or_one_line(tmp_path_factory, content):
    numbers_or_one_line(content, tmp_path_factory.getbasetemp() / "damaged.onnx")


@pytest.mark.slow
@settings(deadline=None, max_examples=3000)
@given(damaged() | altered())
def test_damaged_files_give_numbers_or_one_line(tmp_path_factory, content):
    numbers_or_one_line(content, tmp_path_factory.getbasetemp() / "damaged.onnx")


# ---- experiments

MINE = """\
name = "mine"
[network]
kind = "onnx"
file = "net/small.onnx"
[data]
name = "xor"
[estimation]
trials = 4
"""
LEARN = {
    "study": "training",
    "training.runs": 2,
    "training.updates": 2,
    "training.records": 2,
    "training.eta": 0.05,
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An experiment with a network from a file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    stored(small(), tmp_path / "net" / "small.onnx")
    (tmp_path / "mine.toml").write_text(MINE)
    return tmp_path / "mine.toml"


@pytest.mark.parametrize("make", [digits, small])
def test_the_files_that_are_kept_are_those_that_are_made(make):
    made = make()
    assert onnx.load(COMMITTED.with_stem(make.__name__)) == made
    onnx.checker.check_model(made, full_check=True)


def test_a_run_of_a_file_needs_no_code(command, tmp_path):
    (tmp_path / "mine.toml").write_text(
        f"name = 'mine'\n[network]\nkind = 'onnx'\nfile = '{COMMITTED}'\n"
        "error = 'cross_entropy'\n[data]\nname = 'digits'\nsamples = 10\n[estimation]\ntrials = 4\n"
    )
    status, out, err = command("run", "mine.toml", "--out", "run")
    assert status == 0, err
    assert "984 weights, 10 patterns" in out and "exact R{backprop}" in out
    summary = pd.read_parquet("run/summary.parquet")
    assert (summary["energy_j"].dropna() > 0).all() and summary["energy_j"].notna().any()
    written = tomllib.loads(Path("run/experiment.toml").read_text())
    assert (tmp_path / "run" / written["network"]["file"]).resolve() == COMMITTED
    packages = json.loads(Path("run/provenance.json").read_text())["packages"]
    assert packages["onnx"] == onnx.__version__ and "numpy" in packages
    digest = hashlib.sha256(COMMITTED.read_bytes()).hexdigest()
    assert written["network"]["sha256"] == digest


def test_a_file_that_has_changed_since_is_refused(mine):
    experiment = load_experiment(mine)
    set = {"network.sha256": experiment.network.sha256}
    stored(small(seed=1), mine.parent / "net" / "small.onnx")
    with pytest.raises(InputError, match="its contents are not those that sha256 = "):
        load_experiment(mine, set)
    assert load_experiment(mine, {"network.sha256": ""}).network.build().n_weights == 13


def test_the_digest_is_of_weights_beside_the_file_too(mine):
    folder = mine.parent / "net"
    (folder / "small.onnx").unlink()
    external(small(), folder).rename(folder / "small.onnx")
    first = load_experiment(mine).network.sha256
    data = bytearray((folder / "net.onnx.data").read_bytes())
    assert first == hashlib.sha256((folder / "small.onnx").read_bytes() + data).hexdigest()
    data[0] ^= 1
    (folder / "net.onnx.data").write_bytes(data)
    assert load_experiment(mine).network.sha256 != first
    with pytest.raises(InputError, match="its contents are not those that sha256"):
        load_experiment(mine, {"network.sha256": first})


@pytest.mark.slow
def test_all_runs_start_with_the_weights_of_the_file_unless_a_key_says_otherwise(mine):
    network, w = perturb.from_onnx("net/small.onnx")
    x, target = load_data(load_experiment(mine).data, 2, 1)
    run = sims.run_experiment(mine, LEARN)
    first = run.learning[run.learning["update"] == 0]
    expected = network.objective(x, target).error(w)
    assert first["error"].tolist() == pytest.approx([expected] * 4, rel=1e-12)
    assert (run.learning["start_seed"] == -1).all()
    seeded = sims.run_experiment(mine, {**LEARN, "weights.seed": 1})
    assert seeded.learning[seeded.learning["update"] == 0]["error"].nunique() == 2
    assert (seeded.learning["start_seed"] >= 0).all()


def test_a_training_writes_its_weights_as_a_file_that_others_start_from(mine):
    run = sims.run_experiment(mine, LEARN, out="run")
    learned = run.weights.query("source == 'batch' and run == 0")["w_exact"].to_numpy()
    _, w = perturb.from_onnx("run/weights.onnx")
    # in the type of the file
    np.testing.assert_array_equal(w, learned.astype(np.float32))
    assert "weights.onnx" in run.files
    for key in ("weights.file", "network.file"):
        on = sims.run_experiment(mine, {**LEARN, key: "run/weights.onnx"})
        ended = run.learning.query("source == 'batch' and run == 0")["error"].iloc[-1]
        begun = on.learning.query("update == 0")["error"]
        assert begun.to_numpy() == pytest.approx(ended, rel=1e-5)


def test_a_file_of_another_network_is_no_start(mine):
    stored(FILES["mlp"]("float32"), mine.parent / "mlp.onnx")
    with pytest.raises(InputError, match="has 53 weights, but the network has 13"):
        sims.run_experiment(mine, {"weights.file": "mlp.onnx"})
    external(FILES["mlp"]("float32"), mine.parent)
    with pytest.raises(InputError, match=r"weights\.file = .*net\.onnx: weights w0 are in another"):
        sims.run_experiment(mine, {"weights.file": "net.onnx"})


def test_a_sweep_varies_files(mine):
    stored(small(seed=1), mine.parent / "net" / "other.onnx")
    (mine.parent / "mine.toml").write_text(
        MINE.replace('file = "net/small.onnx"\n', "")
        + '[sweep]\nvary = { "network.file" = ["net/small.onnx", "net/other.onnx"] }\n'
    )
    frames = sims.run_sweep(mine, out="sweep", workers=0)
    assert frames["cosine"].groupby(frames["network.file"]).first().nunique() == 2


@pytest.mark.parametrize(
    "set, message",
    [
        ({"network.file": "no.onnx"}, "no.onnx: no such file: give the path of an ONNX file"),
        ({"network.layers": [64, 10]}, 'does not go with kind = "onnx": remove it'),
        ({"network.kind": "mlp", "network.layers": [64, 10]}, r'network\.file = ".* does not go'),
        ({"data.name": "iris"}, 'the network has 2 inputs but data.name = "iris" has 4 inputs'),
    ],
)
def test_a_mistake_in_an_experiment_is_one_line(mine, set, message):
    with pytest.raises(InputError, match=message) as error:
        sims.run_experiment(mine, set)
    assert "\n" not in str(error.value)


def test_a_file_is_needed(mine):
    mine.write_text(MINE.replace('file = "net/small.onnx"\n', ""))
    with pytest.raises(InputError, match='file is missing: kind = "onnx" needs it'):
        load_experiment(mine)
