"""Networks of layers: against loops written out, other kinds of network, and differences."""

import pickle

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from fast import thinned
from naive import convolution, pooled

import perturb
from perturb import DAG, MLP, InputError, Layers
from perturb.networks import layers
from perturb.networks.derivatives import finite_difference_gradient
from perturb.networks.layers.texts import layer_of

CONVOLUTIONS = [
    # shape, channels, window, stride, padding, groups
    ((1, 6, 6), 2, (3, 3), (1, 1), ((0, 0), (0, 0)), 1),
    ((2, 5, 7), 4, (3, 2), (2, 1), ((1, 1), (0, 1)), 1),
    ((4, 5, 5), 8, (3, 3), (1, 1), ((1, 1), (1, 1)), 4),
    ((4, 4, 4), 2, (1, 1), (2, 2), ((0, 0), (0, 0)), 2),
    ((3, 9), 6, (4,), (3,), ((2, 1),), 3),
    ((1, 1), 1, (1,), (1,), ((0, 0),), 1),
]

NETWORKS = {
    "linear": ([5], ["linear 4", "tanh", "linear 3"], "squared_error"),
    "one weight": ([1], ["linear 1 bias=false"], "squared_error"),
    "conv2d": (
        [2, 6, 5],
        ["conv2d 4 3 padding=1", "tanh", "conv2d 6 3x2 stride=2 groups=2", "logistic", "flatten"]
        + ["linear 3"],
        "cross_entropy",
    ),
    "conv1d": (
        [2, 7],
        ["conv1d 4 3 stride=2 padding=0:1", "softplus", "averagepool 2", "flatten", "linear 1"],
        "binary_cross_entropy",
    ),
    "residual": (
        [2, 6, 6],
        ["batchnorm", "conv2d 4 3 padding=1", "softplus"]
        + ["residual(conv2d 4 3 padding=1; tanh; conv2d 4 3 padding=1; batchnorm)", "tanh"]
        + ["residual(conv2d 6 3 padding=1 stride=2 | conv2d 6 1 stride=2)", "maxpool 2"]
        + ["globalaveragepool", "flatten", "linear 3"],
        "cross_entropy",
    ),
    "nested": (
        [2, 4],
        ["residual(conv1d 2 1; residual(tanh; conv1d 2 3 padding=1 bias=false); tanh | batchnorm)"]
        + ["transpose 1x0", "reshape 2x4", "maxpool 2 stride=1 padding=1", "flatten", "linear 2"],
        "squared_error",
    ),
    "depthwise": (
        [3, 6, 6],
        ["conv2d 3 3 groups=3", "tanh", "conv2d 8 1 bias=false", "tanh"]
        + ["averagepool 3 padding=1 count_padding=true", "flatten", "linear 2"],
        "squared_error",
    ),
}


def point(name, S=3, seed=0):
    """(objective, w, v) of one of the networks."""
    shape, texts, error = NETWORKS[name]
    net = Layers(shape, texts, error)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((S, net.n_inputs))
    if error == "cross_entropy":
        target = rng.integers(0, net.n_outputs, S)
    else:
        target = rng.integers(0, 2, (S, net.n_outputs)) + 0.1 * rng.random((S, 1))
        target = np.clip(target, 0.0, 1.0)
    w = net.init(seed) + 0.1 * rng.standard_normal(net.n_weights)
    return net.objective(x, target), w, rng.standard_normal(net.n_weights)


@pytest.mark.parametrize("shape, channels, window, stride, padding, groups", CONVOLUTIONS)
def test_a_convolution_is_the_sum_over_its_windows(
    shape, channels, window, stride, padding, groups
):
    kind = layers.Conv1d if len(shape) == 2 else layers.Conv2d
    layer = kind(channels, window, stride, padding, groups)
    positions = kind(channels, window, stride, padding, groups).on(shape).shape[1:]
    net = Layers(shape, [layer, layers.Flatten()])
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal(net.n_weights), rng.standard_normal((4, *shape))
    kernel = w[:-channels].reshape(channels, shape[0] // groups, *window)
    expected = np.array(
        [convolution(each, kernel, w[-channels:], stride, padding, groups) for each in x]
    )
    assert expected.shape == (4, channels, *positions)
    target = np.zeros((4, net.n_outputs))
    outputs = net.objective(x, target).outputs(w)
    np.testing.assert_allclose(outputs, expected.reshape(4, -1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize(
    "shape, window, stride, padding",
    [
        ((2, 6, 6), (2, 2), (2, 2), ((0, 0), (0, 0))),
        ((1, 5, 7), (3, 2), (2, 1), ((1, 1), (0, 1))),
        ((3, 8), (3,), (2,), ((2, 1),)),
    ],
)
def test_pools_are_the_largest_and_the_mean_of_their_windows(
    shape, window, stride, padding, count_padding
):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, *shape))
    for layer, reduce in (
        (layers.MaxPool(window, stride, padding), "max"),
        (layers.AveragePool(window, stride, padding, count_padding), "mean"),
    ):
        expected = np.array(
            [pooled(each, window, stride, padding, reduce, count_padding) for each in x]
        )
        net = Layers(shape, [layer, layers.Flatten(), layers.Linear(1)])
        part = layer.on(tuple(shape))
        y = np.moveaxis(x, 0, -1)
        np.testing.assert_allclose(np.moveaxis(part.output(y[:0], y), -1, 0), expected, rtol=1e-14)
        assert net.chain.parts[0].shape == expected.shape[1:]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_and_product_are_those_of_differences(name):
    objective, w, v = point(name)
    differences = finite_difference_gradient(objective.error, w)
    np.testing.assert_allclose(
        objective.gradient(w), differences, rtol=0, atol=1e-8 * np.abs(differences).max()
    )
    near = perturb.finite_difference_hvp(objective, w, v)
    np.testing.assert_allclose(objective.hvp(w, v), near, rtol=0, atol=1e-7 * np.abs(near).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_hessian_is_symmetric_and_products_are_linear(name):
    objective, w, v = point(name)
    n = objective.n_weights
    H = objective.hvp(w, np.eye(n))
    np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-13 * max(1.0, np.abs(H).max()))
    np.testing.assert_allclose(objective.hvp(w, v), H @ v, rtol=0, atol=1e-12 * np.abs(H @ v).max())
    E, g, z = objective.error_gradient_hvp(w, np.stack([v, 0 * v], 1))
    assert E == pytest.approx(objective.error(w), rel=1e-14)
    assert (g == objective.gradient(w)).all() and not z[:, 1].any()


@pytest.mark.slow
def test_products_agree_with_automatic_differentiation_to_twelve_digits():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    texts = ["conv2d 4 3 padding=1", "softplus", "maxpool 2", "conv2d 6 2 groups=2 stride=2"]
    net = Layers([2, 8, 6], [*texts, "tanh", "flatten", "linear 3"], error="cross_entropy")
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((5, 2, 8, 6)), rng.integers(0, 3, 5)
    shapes = [(4, 2, 3, 3), (4,), (6, 2, 2, 2), (6,), (12, 3), (3,)]
    ends = np.cumsum([0, *(np.prod(shape) for shape in shapes)])

    def convolved(y, kernel, bias, **options):
        order = ("NCHW", "OIHW", "NCHW")
        y = jax.lax.conv_general_dilated(y, kernel, dimension_numbers=order, **options)
        return y + bias[:, None, None]

    def E(w):
        k1, b1, k2, b2, W, b = (
            w[start : start + np.prod(shape)].reshape(shape)
            for start, shape in zip(ends, shapes, strict=False)
        )
        y = jax.nn.softplus(convolved(x, k1, b1, window_strides=(1, 1), padding=[(1, 1), (1, 1)]))
        y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        y = convolved(
            y, k2, b2, window_strides=(2, 2), padding=[(0, 0), (0, 0)], feature_group_count=2
        )
        y = jnp.tanh(y).reshape(5, -1) @ W + b
        return (jax.nn.logsumexp(y, -1) - y[jnp.arange(5), labels]).mean()

    objective, w = net.objective(x, labels), net.init(0)
    v = rng.standard_normal(w.size)
    g, z = jax.jvp(jax.grad(E), (jnp.array(w),), (jnp.array(v),))
    np.testing.assert_allclose(objective.gradient(w), g, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(objective.hvp(w, v), z, rtol=1e-12, atol=1e-13)


def test_layers_without_positions_are_an_mlp():
    rng = np.random.default_rng(3)
    x, target = rng.standard_normal((7, 4)), rng.integers(0, 3, 7)
    mlp = MLP([4, 6, 3], error="cross_entropy")
    net = Layers([4], ["linear 6", "tanh", "linear 3"], error="cross_entropy")
    w, V = mlp.init(0), rng.standard_normal((mlp.n_weights, 2))
    assert net.n_weights == mlp.n_weights
    assert [a.tolist() for a in net.weight_units()] == [a.tolist() for a in mlp.weight_units()]
    a, b = mlp.objective(x, target), net.objective(x, target)
    assert a.n_macs == b.n_macs and a.depth == b.depth
    np.testing.assert_allclose(a.pattern_errors(w), b.pattern_errors(w), rtol=1e-13)
    np.testing.assert_allclose(a.gradient(w), b.gradient(w), rtol=0, atol=1e-15)
    np.testing.assert_allclose(a.hvp(w, V), b.hvp(w, V), rtol=0, atol=1e-14)


def test_a_convolution_is_a_graph_with_shared_weights():
    # 2 channels of 5 positions; a kernel (3, 2, 2) at 4 positions; its 12 outputs, by tanh, into 2
    net = Layers([2, 5], ["conv1d 3 2", "tanh", "flatten", "linear 2"])
    edges, tied, bias = [], [], 10
    for channel in range(3):
        for position in range(4):
            to = 11 + 4 * channel + position
            for source in range(2):
                for k in range(2):
                    edges.append((5 * source + position + k, to))
                    tied.append(4 * channel + 2 * source + k)
            edges.append((bias, to))
            tied.append(12 + channel)
    for source in range(12):
        for out in range(2):
            edges.append((11 + source, 23 + out))
            tied.append(15 + 2 * source + out)
    for out in range(2):
        edges.append((bias, 23 + out))
        tied.append(15 + 24 + out)
    activation = dict.fromkeys(range(23), "tanh") | {23: "linear", 24: "linear"}
    dag = DAG(
        25, edges, inputs=range(10), outputs=[23, 24], activation=activation, bias=bias, tied=tied
    )
    assert dag.n_weights == net.n_weights
    rng = np.random.default_rng(4)
    x, target = rng.standard_normal((6, 10)), rng.standard_normal((6, 2))
    w, v = rng.standard_normal(net.n_weights), rng.standard_normal(net.n_weights)
    a, b = dag.objective(x, target), net.objective(x, target)
    # a shared weight multiplies once for each of its uses
    assert a.n_macs == b.n_macs == 4 * 15 + 26
    np.testing.assert_allclose(a.outputs(w), b.outputs(w), rtol=1e-12)
    np.testing.assert_allclose(a.gradient(w), b.gradient(w), rtol=0, atol=1e-13)
    np.testing.assert_allclose(a.hvp(w, v), b.hvp(w, v), rtol=0, atol=1e-12)


def test_the_winner_of_a_pool_is_held_and_the_first_of_equals_wins():
    net = Layers([1, 4], ["maxpool 2", "flatten", "linear 1 bias=false"])
    part = layers.MaxPool(2).on((1, 4))
    y = np.array([3.0, 3.0, 1.0, 2.0]).reshape(1, 4, 1)
    largest, winner = part.forward(np.zeros(0), y)
    assert largest.ravel().tolist() == [3.0, 2.0]
    assert part.transpose(np.array([[[5.0], [7.0]]]), winner).ravel().tolist() == [
        5.0,
        0.0,
        0.0,
        7.0,
    ]
    assert part.apply(10.0 * y + np.arange(4).reshape(1, 4, 1), winner).ravel().tolist() == [30, 23]
    assert np.isnan(part.output(np.zeros(0), np.full((1, 4, 1), np.nan))).all()
    assert net.n_weights == 2
    # a window of more places than small integers can number
    wide = layers.MaxPool((40_000,)).on((1, 40_000))
    y = np.arange(40_000.0).reshape(1, -1, 1)
    largest, winner = wide.forward(np.zeros(0), y)
    assert largest.item() == 39_999.0
    assert wide.apply(-y, winner).item() == -39_999.0


@pytest.mark.parametrize("name", thinned(NETWORKS, 3))
def test_patterns_may_be_split_pickled_and_shared_among_threads(name, monkeypatch):
    S = 12
    objective, w, v = point(name, S)
    monkeypatch.setattr(
        "perturb.networks.layers.network.AT_ONCE", 40 * objective.network.chain.size
    )
    monkeypatch.setattr("perturb.networks.layers.network.WORTH_THREADS", 1)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("PERTURB_NUM_THREADS", threads)
        again = pickle.loads(pickle.dumps(objective))
        found.append((again.gradient(w), again.hvp(w, v), again.pattern_errors(w)))
    for one, three in zip(*found, strict=True):
        assert (one == three).all()
    # what is too much to keep is computed again, to the same bits
    monkeypatch.setattr("perturb.networks.layers.network.KEPT", 0)
    again = pickle.loads(pickle.dumps(objective))
    anew = again.gradient(w), again.hvp(w, v), again.pattern_errors(w)
    for one, other in zip(found[0], anew, strict=True):
        assert (one == other).all()
    np.testing.assert_allclose(found[0][0], objective.gradient(w), rtol=0, atol=1e-14)
    parts = [
        objective.subset(np.array(rows)) for rows in ([0, 3, 5], [1, 2, *range(4, 5), *range(6, S)])
    ]
    both = sum(part.n_patterns * part.gradient(w) for part in parts) / S
    np.testing.assert_allclose(both, objective.gradient(w), rtol=0, atol=1e-14)
    points = w + 0.1 * np.arange(3)[:, None] * v
    each = [objective.pattern_errors(at) for at in points]
    assert (objective.errors_at(points) == each).all()


def test_neurons_of_weights_are_channels():
    net = Layers([2, 4, 4], ["conv2d 3 3", "relu", "maxpool 2", "flatten", "linear 2"])
    sources, targets = net.weight_units()
    # inputs 0, 1; channels 2, 3, 4; outputs 5, 6
    assert sources[:9].tolist() == [0] * 9 and sources[9:18].tolist() == [1] * 9
    assert targets[:54].tolist() == [2] * 18 + [3] * 18 + [4] * 18
    assert sources[54:57].tolist() == [-1] * 3 and targets[54:57].tolist() == [2, 3, 4]
    assert sources[57:63].tolist() == [2, 2, 3, 3, 4, 4] and targets[57:63].tolist() == [5, 6] * 3


def test_neurons_of_a_channel_that_a_reshape_has_made_are_told_apart():
    made = {
        "reshape 2x3; conv1d 1 3": [0, 1, 2, 3, 4, 5],
        # of several neurons the one of the first window, padding left out
        "reshape 2x3; conv1d 1 2 padding=1": [0, 0, 3, 3],
        "reshape 3x2; transpose 1x0; conv1d 1 3": [0, 2, 4, 1, 3, 5],
        "reshape 2x3; maxpool 2 stride=1; flatten; linear 1": [0, 1, 3, 4],
        "reshape 2x3; averagepool 2 padding=1; flatten; linear 1": [0, 1, 3, 4],
        "reshape 2x3; batchnorm; flatten; linear 1": [0, 3, -1, -1, 6, 6, 6, 7, 7, 7],
        # a channel whose positions are one neuron stays one
        "reshape 1x6; conv1d 2 3; maxpool 2; flatten; linear 1": [0, 1, 2] * 2
        + [-1] * 2
        + [6, 6, 7, 7],
    }
    for text, expected in made.items():
        net = Layers([6], [*text.split("; "), "flatten"])
        sources, _ = net.weight_units()
        assert sources.tolist() == [*expected, -1], text


def test_starting_weights_before_a_sum_are_for_what_comes_next_on_its_path():
    # variance of the first layer's weights times its inputs
    for path, gain in (
        ("residual(linear 300; tanh; linear 300)", 1.0),
        ("residual(relu; linear 300)", 2.0),
        ("residual(| linear 300)", 1.0),
    ):
        net = Layers([300], ["linear 300", path, "relu", "linear 1"])
        first = net.init(0)[: 300 * 300]
        # 90,000 numbers: their variance has a standard error of 0.5 %
        assert first.var() * 300 == pytest.approx(gain, rel=0.025)


def test_what_a_nested_network_keeps_is_counted_as_of_a_flat_one(monkeypatch):
    pair = ["conv2d 8 3 padding=1", "relu"]
    flat = Layers([8, 6, 6], [*pair * 20, "flatten", "linear 1"])
    within = Layers([8, 6, 6], [f"residual({'; '.join(pair * 20)})", "flatten", "linear 1"])
    assert within.chain.size == flat.chain.size
    # and the sum
    assert within.chain.total_size == flat.chain.total_size + 8 * 6 * 6
    monkeypatch.setattr("perturb.networks.layers.network.KEPT", 2 * flat.chain.total_size)
    for net in (flat, within):
        objective = net.objective(np.zeros((3, 288)), np.zeros((3, 1)))
        assert objective._passes(net.init(0)).chunks == [None]


def test_some_of_the_patterns_have_the_classes_and_the_precision_of_all():
    x = np.random.default_rng(0).standard_normal((4, 3))
    names = ["a", "b", "b", "a"]
    for net in (
        Layers([3], ["linear 2"], "cross_entropy"),
        MLP([3, 2], error="cross_entropy"),
        DAG(
            5,
            [(i, j) for i in range(3) for j in (3, 4)],
            range(3),
            [3, 4],
            activation="linear",
            error="cross_entropy",
        ),
    ):
        assert net.objective(x, names).subset(np.array([0, 2])).classes == ("a", "b")
    single = Layers([3], ["linear 2"], "cross_entropy").objective(x, names).in_float32()
    w = single.network.init(0)
    rows = np.array([0, 2])
    for again in (single.subset(rows), pickle.loads(pickle.dumps(single)).subset(rows)):
        assert again.classes == ("a", "b")
        np.testing.assert_array_equal(again.outputs(w), single.outputs(w)[rows])
        assert (again.outputs(w) == again.outputs(w).astype(np.float32)).all()


def test_neurons_of_a_shortcut_share_no_number_with_later_ones():
    inner = "residual(residual(linear 2 | linear 2); linear 3 | linear 3)"
    for body in ("residual(linear 3 | linear 3)", inner, "residual(| linear 2)"):
        net = Layers([2], [body, "linear 1"])
        _, targets = net.weight_units()
        layers = net.weight_layers()
        # a neuron belongs to one layer, and no number is left out
        owners = {(unit, layer) for unit, layer in zip(targets, layers, strict=True)}
        assert sorted(unit for unit, _ in owners) == list(range(2, 2 + len(owners)))


def test_starting_weights_keep_the_variance_of_activities():
    net = Layers([64], ["linear 400", "relu", "linear 400", "relu", "linear 400"])
    x = np.random.default_rng(0).standard_normal((50, 64))
    y = net.objective(x, np.zeros((50, 400))).outputs(net.init(0))
    # mean squares: inputs 1, net inputs 2, behind a relu 1, 2, 1, and net inputs of the last 1
    assert (y**2).mean() == pytest.approx(1.0, abs=0.2)
    assert (net.init(0) == net.init(0)).all() and (net.init(0) != net.init(1)).any()


@pytest.mark.parametrize(
    "text",
    [
        "conv2d 16 5 padding=2",
        "conv2d 8 3x5 stride=2x1 padding=0:1x2 groups=4 bias=false",
        "conv1d 4 3",
        "linear 10",
        "maxpool 2 stride=1 padding=1",
        "averagepool 2x3 count_padding=true",
        "globalaveragepool",
        "flatten",
        "batchnorm",
        "reshape 4x2",
        "transpose 1x0",
        "relu",
        "residual(conv1d 2 1; tanh; residual(batchnorm | tanh) | conv1d 2 1)",
        "residual(tanh)",
    ],
)
def test_a_layer_is_its_text(text):
    assert str(layer_of(text)) == text
    assert layer_of(f"  {text} ") == layer_of(text)


@pytest.mark.parametrize(
    "shape, texts, error, says",
    [
        ([1, 8, 8], ["conv3d 2 3"], "squared_error", "did you mean conv2d?"),
        ([1, 8, 8], ["conv2d 2"], "squared_error", "window is missing"),
        ([1, 8, 8], ["conv2d 2 3 1"], "squared_error", "1 is one too many: it takes channels, w"),
        ([1, 8, 8], ["maxpool 2 2"], "squared_error", "2 is one too many: it takes window, stride"),
        ([3], ["tanh", "linear 3 2"], "squared_error", 'layers[1]: "linear 3 2" is no layer: 2 is'),
        ([3], ["linear 10 bias=2"], "squared_error", "bias = 2 must be true or false"),
        ([3], ["linear 10 bias=1x2"], "squared_error", "bias = (1, 2) must be true or false"),
        ([3], ["linear 2x3"], "squared_error", "outputs = (2, 3) must be an integer"),
        ([3, 4], ["conv1d 3 2 bias=0"], "squared_error", "bias = 0 must be true or false"),
        ([3, 4], ["averagepool 2 count_padding=3"], "squared_error", "must be true or false"),
        ([3, 4], ["transpose 0"], "squared_error", "axes (0,) must name each of 0..1 once"),
        ([3, 4], ["transpose true"], "squared_error", "axes = True must be an integer"),
        ([3, 4], ["transpose 0:1x0"], "squared_error", "axes = (0, 1) must be an integer"),
        ([3, 4], ["reshape 0:1x12"], "squared_error", "shape = (0, 1) must be an integer"),
        ([3, 4], ["reshape 0x2"], "squared_error", "shape = 0 must be an integer from 1"),
        ([3, 4], ["residual path=3"], "squared_error", "its path stands in brackets"),
        ([3], ["residual(linear 2, linear 3)"], "squared_error", "separated by semicolons"),
        ([3], ["linear 2, linear 3"], "squared_error", "layers are texts of their own"),
        ([1, 8, 8], ["conv2d 2 3 paddding=1"], "squared_error", "did you mean padding?"),
        ([1, 8, 8], ["conv2d 2 x"], "squared_error", "must be a number"),
        ([1, 8, 8], ["conv2d 2 9"], "squared_error", "window of 9 is larger than the 8 positions"),
        ([1, 8, 8], ["maxpool 9"], "squared_error", "window of 9 is larger"),
        ([1, 8, 8], ["maxpool 2 padding=2"], "squared_error", "less than the window"),
        ([1, 8, 8], ["conv2d 2 3 stride=0"], "squared_error", "stride = 0"),
        ([3, 8, 8], ["conv2d 4 3 groups=2"], "squared_error", "must divide the 3 channels of its"),
        ([4, 8, 8], ["conv2d 3 3 groups=2"], "squared_error", "must divide the 3 channels"),
        ([1, 8], ["conv2d 2 3"], "squared_error", "two axes of positions"),
        ([1, 8, 8], ["linear 3"], "squared_error", 'put "flatten" before it'),
        ([1, 8, 8], ["conv2d 2 3"], "squared_error", "end with neurons"),
        ([4], ["tanh"], "squared_error", "no layer with weights"),
        ([4], [], "squared_error", "no layer with weights"),
        ([4], ["linear 2", "tanh"], "cross_entropy", "brings its own"),
        ([4], ["linear 2", "tanh", "reshape 1x2", "flatten"], "cross_entropy", "brings its own"),
        ([4], ["linear 1"], "cross_entropy", "binary_cross_entropy"),
        ([], ["linear 1"], "squared_error", "input_shape is empty"),
        ([0], ["linear 1"], "squared_error", "input_shape = 0"),
        ([2, 4], ["residual(conv1d 3 1)"], "squared_error", "added up"),
        ([2, 4], ["residual(conv1d 2 1"], "squared_error", "bracket is not closed"),
        ([2, 4], ["residual(tanh | tanh | tanh)"], "squared_error", "no more"),
        ([2, 4], ["reshape 3x2"], "squared_error", "6 entries, its input 8"),
        ([2, 4], ["transpose 0x2"], "squared_error", "each of 0..1 once"),
        ([2, 4], ["tanh 3"], "squared_error", "takes nothing else"),
        ([4], [""], "squared_error", "is no layer"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_layer(shape, texts, error, says):
    with pytest.raises(InputError) as told:
        Layers(shape, texts, error)
    assert says in str(told.value) and "\n" not in str(told.value)


def test_a_layer_that_does_not_fit_is_named_with_what_came_in():
    with pytest.raises(InputError) as told:
        Layers([1, 8, 8], ["conv2d 4 3", "relu", "maxpool 7"])
    assert 'layers[2] = "maxpool 7"' in str(told.value) and "(4, 6, 6)" in str(told.value)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Layers([4], [layers.Activation("foo")]), "name = 'foo' is unknown"),
        (lambda: Layers([6], [layers.Reshape((-2, -3))]), "shape = -2 must be an integer"),
        (lambda: Layers([2, 3], [layers.Transpose([1, 0])]), "axes = [1, 0] must be an integer"),
        (lambda: Layers([2, 3], [layers.MaxPool(2, padding=((0, 1, 1),))]), "(before, after)"),
        (lambda: Layers(4, ["linear 2"]), "input_shape = 4 must be a list"),
        (lambda: Layers([4], [5]), "layers[0] = 5 is no layer"),
        (lambda: Layers([4], "linear 2"), "layers = 'linear 2' must be a list"),
        (lambda: layers.Residual(("linear 4",)), "path has 'linear 4', which is no layer"),
        (lambda: layers.Residual(layers.Linear(4)), "path = linear 4 must be a tuple of layers"),
        (lambda: nested(400), "nested more than 50 times"),
    ],
)
def test_objects_that_do_not_fit_are_one_line(make, says):
    with pytest.raises(InputError) as told:
        make()
    assert says in str(told.value) and "\n" not in str(told.value)


def nested(count, layer=None):
    """Residuals within each other."""
    layer = layer or layers.Linear(3)
    for _ in range(count):
        layer = layers.Residual((layer,))
    return layer


def test_as_many_residuals_as_can_be_made_can_be_read_again():
    most = nested(50)
    assert layer_of(str(most)) == most == layers.Residual([nested(49)])
    with pytest.raises(InputError, match="nested more than 50 times"):
        layer_of(f"residual({most})")


def test_of_many_residuals_a_message_names_the_first_and_the_last_that_does_not_fit():
    with pytest.raises(InputError) as told:
        Layers([4], [nested(45)])
    assert str(told.value) == (
        'layers[0], path[0], ..., path[0], path[0] = "residual(linear 3)" does not fit its input of'
        " shape (4,): its path gives shape (3,) but its shortcut (4,): they are added up, and must"
        " be alike"
    )
    with pytest.raises(InputError) as told:
        layer_of(f"{'residual(' * 45}conv9d{')' * 45}")
    assert str(told.value).count("is no layer") == 1 and len(str(told.value)) < 300


@hypothesis.given(st.text(alphabet="conv12dlinearmxpoutk residual(;|)=0123456789:ft ", max_size=40))
def test_any_text_is_a_layer_or_one_line(text):
    try:
        layer = layer_of(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert layer_of(str(layer)) == layer


@pytest.mark.parametrize("code", thinned(["rademacher", "gaussian", "walsh"], 3))
def test_trials_in_float32_are_those_of_float64_to_its_rounding(code):
    objective, w, v = point("conv2d", 8)
    settings = dict(trials=256, method="covariance", code=code, sigma=1e-2, seed=1)
    exact, single = (
        perturb.estimate(objective, w, v, precision=precision, **settings)
        for precision in ("float64", "float32")
    )
    assert (exact.precision, single.precision) == ("float64", "float32")
    # dE of size sigma |g|, rounded by some 2^-24 of E
    np.testing.assert_allclose(single.gradient, exact.gradient, rtol=0, atol=1e-4)
    assert (single.gradient != exact.gradient).any()
    split = perturb.estimate(objective, w, v, precision="float32", **settings | {"trials": 100})
    split = perturb.estimate(
        objective, w, v, precision="float32", resume=split.statistics, **settings | {"trials": 156}
    )
    assert (split.gradient == single.gradient).all()


def test_rectified_after_a_pool_is_the_same_to_the_bit():
    layers = ["conv2d 3 3", "relu", "maxpool 2 padding=1", "relu", "maxpool 2 stride=1", "flatten"]
    net = Layers([1, 9, 9], [*layers, "linear 2"])
    assert net.chain._order == [0, 2, 1, 4, 3, 5, 6]
    rng = np.random.default_rng(0)
    y, w = net.chain.prepare(rng.standard_normal((1, 9, 9, 5))), net.init(0)
    np.testing.assert_array_equal(net.chain.output(w, y), net.chain.forward(w, y)[0])
    # of other functions, and of other pools, the order stays
    for pair in (["tanh", "maxpool 2"], ["relu", "averagepool 2"]):
        net = Layers([1, 9, 9], ["conv2d 3 3", *pair, "flatten", "linear 2"])
        assert net.chain._order == [0, 1, 2, 3, 4]


def test_patterns_are_cut_into_equal_parts_that_fit(monkeypatch):
    net = Layers([1, 6], ["conv1d 2 3", "flatten", "linear 2"])
    # 5 patterns of float64 together, or 10 of float32
    monkeypatch.setattr("perturb.networks.layers.network.AT_ONCE", 5 * 8 * net.chain.size)
    objective = net.objective(np.ones((12, 6)), np.ones((12, 2)))
    cuts = {len(o._chunks): o._chunks for o in (objective, objective.in_float32())}
    assert cuts[3] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    assert cuts[2] == [slice(0, 6), slice(6, 12)]


@pytest.mark.parametrize("shape", [[4], [1, 2, 2]])
def test_no_patterns_are_one_clear_line(shape):
    net = Layers(shape, ["flatten", "linear 2"] if len(shape) > 1 else ["linear 2"])
    with pytest.raises(InputError, match=r"x has shape \(0, 4\), but the network has 4 inputs"):
        net.objective(np.ones((0, *shape)), np.ones((0, 2)))
