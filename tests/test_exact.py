"""Exact gradients and Hessian-vector products."""

import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh
from scipy.special import expit

from perturb import (
    DAG,
    MLP,
    Boltzmann,
    InputError,
    Objective,
    Recurrent,
    add_activation,
    finite_difference_hvp,
)
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS


def make(layers, activation="tanh", output="linear", error="squared_error", patterns=7, seed=0):
    rng = np.random.default_rng(seed)
    net = MLP(layers, activation, output, error)
    x, target = rng.standard_normal((patterns, layers[0])), rng.random((patterns, layers[-1]))
    if error == "cross_entropy":
        target /= target.sum(1, keepdims=True)
    w = net.init(seed) + 0.1 * rng.standard_normal(net.n_weights)
    return net.objective(x, target), w, rng.standard_normal(net.n_weights)


ENDS = [
    ("squared_error", "linear"),
    ("squared_error", "logistic"),
    ("cross_entropy", "linear"),
    ("binary_cross_entropy", "linear"),
]
SHAPES = ([4, 3], [3, 4, 2], [2, 5, 4, 3])
NETWORKS = [
    (shape, f, output, error)
    for shape, f, (error, output) in itertools.product(SHAPES, ACTIVATIONS, ENDS)
]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_gradient_and_hv_agree_with_finite_differences(network):
    objective, w, v = make(*network)
    eps = 1e-6  # truncation eps^2 and rounding 1e-16/eps both stay below 1e-9
    g = np.array(
        [
            (objective.error(w + eps * e) - objective.error(w - eps * e)) / (2 * eps)
            for e in np.eye(w.size)
        ]
    )
    np.testing.assert_allclose(objective.gradient(w), g, atol=1e-8)
    np.testing.assert_allclose(
        objective.hvp(w, v), finite_difference_hvp(objective, w, v), atol=1e-7
    )


@pytest.mark.parametrize("network", NETWORKS[::3], ids=str)
def test_hessian_is_symmetric_and_hvp_linear(network):
    objective, w, v = make(*network)
    u = np.random.default_rng(5).standard_normal(w.size)
    assert u @ objective.hvp(w, v) == pytest.approx(
        v @ objective.hvp(w, u), rel=1e-12, abs=1e-12
    )  # rounding
    np.testing.assert_allclose(
        objective.hvp(w, 2 * u - 3 * v),
        2 * objective.hvp(w, u) - 3 * objective.hvp(w, v),
        atol=1e-12,
    )
    block = objective.hvp(w, np.stack([u, v], axis=1))
    np.testing.assert_allclose(
        block, np.stack([objective.hvp(w, u), objective.hvp(w, v)], axis=1), atol=1e-13
    )
    np.testing.assert_allclose(objective.hessian(w) @ v, objective.hvp(w, v), atol=1e-12)
    E, g, z = objective.error_gradient_hvp(w, v)
    assert E == objective.error(w)
    np.testing.assert_array_equal(g, objective.gradient(w))
    np.testing.assert_array_equal(z, objective.hvp(w, v))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.integers(0, 2**32 - 1),
)
def test_u_hv_equals_v_hu_for_any_network(layers, activation, seed):
    objective, w, v = make(layers, activation, seed=seed, patterns=3)
    u = np.random.default_rng(seed + 1).standard_normal(w.size)
    a, b = u @ objective.hvp(w, v), v @ objective.hvp(w, u)
    scale = np.linalg.norm(u) * np.linalg.norm(objective.hvp(w, v)) + np.linalg.norm(
        v
    ) * np.linalg.norm(objective.hvp(w, u))
    assert abs(a - b) <= 1e-13 * scale  # rounding


@pytest.mark.parametrize("error", ERRORS)
def test_taylor_remainder_of_the_gradient_has_slope_two(error):
    objective, w, v = make([3, 4, 2], error=error)
    g, z = objective.gradient(w), objective.hvp(w, v)
    steps = np.array([1e-2, 3e-3, 1e-3, 3e-4])
    remainder = [np.linalg.norm(objective.gradient(w + e * v) - g - e * z) for e in steps]
    slope = np.polyfit(np.log(steps), np.log(remainder), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.15)  # a wrong z would give 1
    wrong = [np.linalg.norm(objective.gradient(w + e * v) - g - e * 1.1 * z) for e in steps]
    assert np.polyfit(np.log(steps), np.log(wrong), 1)[0] < 1.8


def test_finite_difference_error_falls_as_the_square_of_the_step():
    objective, w, v = make([3, 4, 2])
    errors = [
        np.linalg.norm(finite_difference_hvp(objective, w, v, eps) - objective.hvp(w, v))
        for eps in (1e-2, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


def test_hessian_of_linear_regression_is_the_input_covariance():
    objective, w, _ = make([4, 1])
    X = with_ones(objective.x)
    np.testing.assert_allclose(objective.hessian(w), X.T @ X / len(X), atol=1e-14)


def test_hessian_of_logistic_regression():
    objective, w, _ = make([4, 1], error="binary_cross_entropy")
    X = with_ones(objective.x)
    p = expit(X @ w)
    np.testing.assert_allclose(objective.hessian(w), (X.T * p * (1 - p)) @ X / len(X), atol=1e-14)


def test_hessian_of_one_tanh_unit():
    objective, w, _ = make([3, 1], output="tanh")
    X, t = with_ones(objective.x), objective.target[:, 0]
    y = np.tanh(X @ w)
    # E'' = f'^2 + (y - t) f''
    np.testing.assert_allclose(
        objective.hessian(w),
        (X.T * ((1 - y**2) ** 2 + (y - t) * -2 * y * (1 - y**2))) @ X / len(X),
        atol=1e-14,
    )


def test_softmax_has_the_common_shift_of_all_classes_in_its_null_space():
    objective, w, _ = make([3, 4], error="cross_entropy")
    W, b = (
        np.tile(np.array([[1.0], [-2.0], [0.5]]), (1, 4)),
        np.full(4, 3.0),
    )  # the same change for every class
    np.testing.assert_allclose(objective.hvp(w, np.concatenate([W.ravel(), b])), 0, atol=1e-14)


def test_flat_order_is_matrix_then_biases_layer_by_layer():
    net = MLP([2, 3, 1], activation="linear")
    W1, b1, W2, b2 = (
        np.arange(6.0).reshape(2, 3),
        np.array([1.0, 2, 3]),
        np.array([[1.0], [-1], [2]]),
        np.array([5.0]),
    )
    w = np.concatenate([W1.ravel(), b1, W2.ravel(), b2])
    x = np.array([[0.5, -1.0]])
    np.testing.assert_allclose(net.objective(x, [[0.0]]).outputs(w), (x @ W1 + b1) @ W2 + b2)
    unit_from, unit_to = net.weight_units()
    assert list(zip(unit_from, unit_to, strict=True)) == (
        [
            (0, 2),
            (0, 3),
            (0, 4),
            (1, 2),
            (1, 3),
            (1, 4),
            (-1, 2),
            (-1, 3),
            (-1, 4),
            (2, 5),
            (3, 5),
            (4, 5),
            (-1, 5),
        ]
    )


def test_permuting_hidden_units_permutes_hv():
    objective, w, v = make([3, 5, 2])
    order = np.random.default_rng(0).permutation(5)

    def permuted(u):
        (W1, b1), (W2, b2) = objective.network.unpack(u)
        return np.concatenate([W1[:, order].ravel(), b1[order], W2[order].ravel(), b2])

    assert objective.error(permuted(w)) == pytest.approx(objective.error(w), rel=1e-14)
    np.testing.assert_allclose(
        objective.hvp(permuted(w), permuted(v)), permuted(objective.hvp(w, v)), atol=1e-14
    )


def test_patterns_add_up_in_unequal_batches():
    objective, w, v = make([3, 5, 2], patterns=7)
    parts = [
        objective.network.objective(objective.x[part], objective.target[part])
        for part in (slice(0, 2), slice(2, 7))
    ]
    np.testing.assert_allclose(
        objective.hvp(w, v), (2 * parts[0].hvp(w, v) + 5 * parts[1].hvp(w, v)) / 7, atol=1e-14
    )


def test_memory_of_hv_grows_linearly_with_the_weights():
    def peak(width):
        objective, w, v = make([20, width, width, 2], patterns=4)
        objective.gradient(w)
        tracemalloc.start()
        objective.hvp(w, v)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / w.size

    assert peak(400) < 1.3 * peak(
        100
    )  # bytes per weight; a matrix of second derivatives would take sixteen times as many


@pytest.mark.parametrize("network", NETWORKS[::7], ids=str)
def test_what_was_asked_before_at_the_same_weights_changes_no_bit(network):
    objective, w, v = make(*network)
    alone = {
        name: getattr(objective.subset(np.arange(objective.n_patterns)), name)
        for name in ("gradient", "hvp", "error_gradient_hvp")
    }
    E, g, z = alone["error_gradient_hvp"](w, v)
    assert E == objective.error(w)
    np.testing.assert_array_equal(alone["gradient"](w), g)
    np.testing.assert_array_equal(alone["hvp"](w, v), z)
    objective.hvp(w, v)
    np.testing.assert_array_equal(objective.gradient(w), g)
    np.testing.assert_array_equal(objective.hvp(w, v), z)
    assert objective.hvp(w, np.zeros((w.size, 0))).shape == (w.size, 0)


def test_what_is_kept_between_products_is_never_out_of_date():
    objective, w, v = make([3, 4, 2])
    fresh = objective.network.objective(objective.x, objective.target)
    objective.hvp(w, v)
    w[3] += 0.5  # in place: the same array, other weights
    np.testing.assert_array_equal(objective.hvp(w, v), fresh.hvp(w, v))
    g = objective.gradient(w)
    g[:] = 0.0  # the caller's copy
    assert objective.gradient(w).any()
    with pytest.raises(ValueError, match="read-only"):
        objective.x[0, 0] = 7.0
    x = np.array(objective.x)
    other = objective.network.objective(x, objective.target)
    before = other.hvp(w, v)
    x[:] = 0.0  # the caller's array, not the objective's
    np.testing.assert_array_equal(other.hvp(w, v), before)


def of_every_kind():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((4, 2)), rng.random((4, 1))
    mlp = MLP([2, 3, 1])
    networks = [
        (mlp, mlp.objective(x, t)),
        (
            dag := DAG(4, [(0, 2), (1, 2), (0, 3), (2, 3)], [0, 1], [3], external=[0, 0, 0.1, 0.2]),
            dag.objective(x, t),
        ),
        (relaxing := Recurrent(3, [2], inputs=[0, 1]), relaxing.objective(x, t)),
        (machine := Boltzmann(2, 1), machine.objective([[0, 1], [1, 1]])),
    ]
    kinds = [
        (type(network).__name__, objective, network.init(0)) for network, objective in networks
    ]
    plain = Objective.from_functions(sum, np.ones_like, lambda w, v: 0 * v, n_weights=4)
    return [
        *kinds,
        ("decayed", kinds[0][1].with_decay(0.1), kinds[0][2]),
        ("from_functions", plain, np.ones(4)),
    ]


@pytest.mark.parametrize(
    "kind, objective, w", of_every_kind(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_no_direction_gives_no_product(kind, objective, w):
    E, g, z = objective.error_gradient_hvp(w, np.zeros((w.size, 0)))
    assert E == objective.error(w) and z.shape == objective.hvp(w, np.zeros((w.size, 0))).shape == (
        w.size,
        0,
    )
    np.testing.assert_array_equal(g, objective.gradient(w))


@pytest.mark.parametrize(
    "kind, objective, w",
    of_every_kind()[:5],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_an_objective_pickles_also_after_use(kind, objective, w):
    z = objective.hvp(w, w)
    copy = pickle.loads(pickle.dumps(objective))
    np.testing.assert_array_equal(copy.hvp(w, w), z)


def test_hessian_operator_works_with_eigsh():
    objective, w, _ = make([3, 4, 2])
    top = eigsh(objective.hessian_operator(w), k=1, which="LA", v0=np.ones(w.size))[0][0]
    assert top == pytest.approx(np.linalg.eigvalsh(objective.hessian(w))[-1], rel=1e-9)


def test_large_hessian_is_refused():
    net = MLP([200, 100])
    with pytest.raises(InputError, match="use hessian_operator"):
        net.objective(np.zeros((1, 200)), np.zeros((1, 100))).hessian(np.zeros(net.n_weights))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda o, w, v: o.error(w[:-1]), r"w has shape \(25,\), but the network has 26 weights"),
        (
            lambda o, w, v: o.gradient(np.where(np.arange(26) == 3, np.nan, w)),
            r"w\[3\] = nan is not finite",
        ),
        (lambda o, w, v: o.hvp(w, v[:, None, None]), r"v has shape \(26, 1, 1\)"),
        (lambda o, w, v: o.hvp(w, "no"), "v cannot be read as an array of real numbers"),
        (
            lambda o, w, v: finite_difference_hvp(o, w, v, eps=-1),
            "eps = -1 must be a positive number",
        ),
        (
            lambda o, w, v: MLP([3, 4], activation="tanhh"),
            "activation = 'tanhh' is unknown: did you mean tanh?",
        ),
        (lambda o, w, v: MLP([3, 1], error="cross_entropy"), "layers ends with 1 output"),
        (
            lambda o, w, v: add_activation(
                "sine", math.sin, lambda x, y: np.cos(x), lambda x, y: -y
            ),
            "does not take arrays",
        ),
        (
            lambda o, w, v: add_activation(
                "one", lambda x: 1.0, lambda x, y: 0 * x, lambda x, y: 0 * x
            ),
            "the shape of x",
        ),
        (lambda o, w, v: MLP([3]), r"layers = \[3\] must be at least two integers"),
        (
            lambda o, w, v: MLP([3, 2], output="tanh", error="cross_entropy"),
            'set output = "linear"',
        ),
        (
            lambda o, w, v: o.network.objective(np.full((2, 3), np.inf), [0, 1]),
            r"x\[0, 0\] = inf is not finite",
        ),
        (
            lambda o, w, v: o.network.objective(np.zeros((2, 4)), [0, 1]),
            "but the network has 3 inputs",
        ),
        (
            lambda o, w, v: o.network.objective(np.zeros((2, 3)), [0, 2]),
            "class numbers outside 0..1",
        ),
        (
            lambda o, w, v: o.network.objective(np.zeros((2, 3)), np.zeros((3, 2))),
            r"target has shape \(3, 2\)",
        ),
    ],
)
def test_bad_input_is_one_clear_line(small, call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(*small)
    assert "\n" not in str(caught.value)


NAMED = {
    "MLP([3, 4, 2], activation='tanh', output='linear', error='cross_entropy', n_weights=26)": MLP(
        [3, 4, 2], error="cross_entropy"
    ),
    "DAG(4, edges=3, inputs=1, outputs=2, error='cross_entropy', n_weights=3)": DAG(
        4,
        [(0, 1), (1, 2), (1, 3)],
        inputs=[0],
        outputs=[2, 3],
        activation="linear",
        error="cross_entropy",
    ),
    "Recurrent(3, inputs=1, outputs=2, error='squared_error', solver='direct', n_weights=9)": (
        Recurrent(3, inputs=[0], outputs=[1, 2])
    ),
}


@pytest.mark.parametrize("shown", NAMED)
def test_networks_and_objectives_say_what_they_are_and_keep_names_when_pickled(shown):
    net = NAMED[shown]
    assert repr(net) == shown
    objective = net.objective(np.ones((3, net.n_inputs)), ["no", "yes", "no"])
    name = type(objective).__name__
    assert repr(objective) == f"{name}({shown}, n_patterns=3)"
    assert repr(objective.with_decay(0.5)).endswith("n_patterns=3), alpha=0.5)")
    again = pickle.loads(pickle.dumps(objective))
    assert again.classes == ("no", "yes") and repr(again) == repr(objective)
    w = net.init(0)
    assert again.error(w) == objective.error(w)


def test_machines_and_functions_say_what_they_are():
    machine = Boltzmann(2, 1)
    assert repr(machine) == "Boltzmann(2, 1, temperature=1, n_weights=6)"
    function = Objective.from_functions(lambda w: 0.0, n_weights=2)
    assert repr(function) == "FunctionObjective(n_weights=2, n_patterns=1)"
