"""Units and errors in saturation: exact derivatives against differences in 120 digits, to twelve
of them.
"""

from decimal import Decimal as Number
from decimal import localcontext

import numpy as np
import pytest

from perturb import DAG, MLP, Boltzmann, Recurrent
from perturb.training.exact import Exact
from perturb.training.loop import begin
from perturb.training.plan import Plan

DIGITS, STEP = (
    120,
    Number(10) ** -25,
)  # truncation 1e-50, rounding 1e-70: of derivatives down to 1e-38, twelve digits are right


def tanh(x):
    t = (-2 * abs(x)).exp()
    return ((1 - t) / (1 + t)).copy_sign(x)


ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": tanh,
    "logistic": lambda x: 1 / (1 + (-x).exp()),
    "relu": lambda x: max(x, Number(0)),
    "softplus": lambda x: (1 + x.exp()).ln(),
}


def loss(error, y, t):
    if error == "squared_error":
        return sum((a - b) ** 2 for a, b in zip(y, t, strict=True)) / 2
    if error == "cross_entropy":
        return sum(b * (sum((c - a).exp() for c in y)).ln() for a, b in zip(y, t, strict=True))
    return sum((1 + a.exp()).ln() - b * a for a, b in zip(y, t, strict=True))


def numbers(values):
    return [Number(float(value)) for value in np.ravel(values)]


def derivatives(E, w, v):
    """E, gradient and Hv by central differences."""
    w, v = numbers(w), numbers(v)

    def at(i, a, b):
        return E(
            [
                x + b * STEP * d + (a * STEP if k == i else 0)
                for k, (x, d) in enumerate(zip(w, v, strict=True))
            ]
        )

    g = [(at(i, 1, 0) - at(i, -1, 0)) / (2 * STEP) for i in range(len(w))]
    z = [
        (at(i, 1, 1) - at(i, 1, -1) - at(i, -1, 1) + at(i, -1, -1)) / (4 * STEP**2)
        for i in range(len(w))
    ]
    return float(E(w)), np.array(g, dtype=float), np.array(z, dtype=float)


def check(objective, E, w, v):
    with localcontext() as context:
        context.prec = DIGITS
        expected = derivatives(E, w, v)
    np.testing.assert_allclose(objective.error(w), expected[0], rtol=1e-12)
    np.testing.assert_allclose(objective.errors_at(w[None]).mean(), expected[0], rtol=1e-12)
    assert expected[1].any() and expected[2].any()
    for found, wanted in zip(objective.error_gradient_hvp(w, v), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-38)
    np.testing.assert_allclose(objective.gradient(w), expected[1], rtol=1e-12, atol=1e-38)


OUTPUTS = [
    ("linear", "squared_error"),
    ("linear", "cross_entropy"),
    ("linear", "binary_cross_entropy"),
]
OUTPUTS += [("tanh", "squared_error"), ("logistic", "squared_error")]


@pytest.mark.parametrize("drive", [-25.0, -1.5, 3.0, 25.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("output, error", OUTPUTS)
def test_derivatives_of_an_mlp_keep_their_digits(activation, output, error, drive):
    net, x = MLP([1, 1, 2], activation, output, error), 0.75
    w = np.array([drive, 0.1 * drive, 0.5, -2.0, 1.0, 0.25])
    t = [0.25, 0.5] if error == "squared_error" else [1.0, 0.0]

    def E(w):
        y = ACTIVATIONS[activation](w[0] * Number(x) + w[1])
        return loss(
            error, [ACTIVATIONS[output](w[2 + k] * y + w[4 + k]) for k in range(2)], numbers(t)
        )

    check(net.objective([[x]], [t]), E, w, np.array([1.0, -0.5, 0.75, 0.25, -1.0, 0.5]))


@pytest.mark.parametrize("patterns", [1, 2])
def test_an_error_of_zero_has_no_sign(patterns):
    network = MLP([1, 2], error="cross_entropy")
    objective = network.objective(np.ones((patterns, 1)), np.zeros(patterns))
    assert str(objective.error(np.array([900.0, 0.0, 0.0, 0.0]))) == "0.0"


@pytest.mark.parametrize("y", [-30.0, -2.0, 0.0, 2.0, 40.0])
@pytest.mark.parametrize("target", [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.25, 0.25]])
@pytest.mark.parametrize("error", ["cross_entropy", "binary_cross_entropy"])
def test_errors_that_bring_their_own_softmax_keep_their_digits(error, target, y):
    net = MLP([1, 3], error=error)
    w = np.array([y, -0.5, 1.5, 0.5 * y, 0.0, -0.25])

    def E(w):
        return loss(error, [w[k] + w[3 + k] for k in range(3)], numbers(target))

    check(net.objective([[1.0]], [target]), E, w, np.array([1.0, -0.5, 2.0, 0.5, 0.25, -1.0]))


@pytest.mark.parametrize("drive", [-25.0, 3.0, 25.0])
@pytest.mark.parametrize("activation", ["tanh", "logistic", "softplus"])
def test_derivatives_of_a_graph_keep_their_digits_beside_a_large_external_activity(
    activation, drive
):
    net = DAG(
        3,
        [(0, 1), (1, 2), (0, 2)],
        [0],
        [2],
        {1: activation, 2: "logistic"},
        external=[0.0, 1000.0, 0.0],
    )
    w = np.array([drive, 2.0**-7, -4.0])

    def E(w):
        y = ACTIVATIONS[activation](w[0]) + 1000
        return loss("squared_error", [ACTIVATIONS["logistic"](w[1] * y + w[2])], [Number("0.25")])

    check(net.objective([[1.0]], [[0.25]]), E, w, np.array([1.0, 0.5, -0.25]))


@pytest.mark.parametrize(
    "activation, drive, side", [("tanh", 12.0, 1.0), ("tanh", 12.0, -1.0), ("logistic", 12.0, 0.5)]
)
def test_derivatives_of_a_relaxing_network_keep_their_digits(activation, drive, side):
    net = Recurrent(2, [1], {0: activation, 1: "linear"})
    w = np.array([drive, 0.75, 0.25, 0.125])  # from 0 to 0 and 1, from 1 to 0 and 1
    inputs = [side, 0.1]

    def E(w):
        y, f = [Number(0), Number(0)], (ACTIVATIONS[activation], ACTIVATIONS["linear"])
        for _ in range(400):
            before = y
            y = [f[j](w[j] * y[0] + w[2 + j] * y[1]) + Number(float(inputs[j])) for j in range(2)]
            if max(abs(a - b) for a, b in zip(y, before, strict=True)) < Number(10) ** -115:
                break
        return loss("squared_error", [y[1]], [Number("0.25")])

    check(net.objective([inputs], [[0.25]]), E, w, np.array([1.0, 0.5, -0.25, 0.75]))


@pytest.mark.parametrize("size", [0.5, 20.0])
@pytest.mark.parametrize("hidden", [0, 1])
def test_derivatives_of_a_machine_that_is_nearly_sure_keep_their_digits(hidden, size):
    net = Boltzmann(2, hidden)
    objective = net.objective([[1.0, 1.0]])
    w = -size * (1.0 + 0.125 * np.arange(net.n_weights))  # all units on
    states = net.states(net.n_units)

    def energies(w):
        pairs = list(zip(*net.pairs, strict=True))
        return [
            sum(w[k] * int(s[i] * s[j]) for k, (i, j) in enumerate(pairs))
            + sum(w[len(pairs) + i] * int(s[i]) for i in range(len(s)))
            for s in states
        ]

    def E(w):
        weights = [(-energy).exp() for energy in energies(w)]
        return (
            sum(weights) / sum(a for a, s in zip(weights, states, strict=True) if s[:2].all())
        ).ln()

    check(objective, E, w, np.cos(np.arange(net.n_weights)))


@pytest.mark.parametrize("drive", [-37.0, 2.0, 37.0])
@pytest.mark.parametrize("activation", ["tanh", "logistic", "softplus"])
@pytest.mark.parametrize("error", ["squared_error", "cross_entropy", "binary_cross_entropy"])
def test_learning_by_the_exact_gradient_follows_it_into_saturation(error, activation, drive):
    net = MLP([1, 1, 2], activation, error=error)
    objective = net.objective([[1.0]], [[1.0, 0.0]])
    w = np.array([drive, 0.0, 0.5, -2.0, 40.0, -1.0])
    g = objective.gradient(w)
    plan = Plan(eta=1e3 / np.abs(g[g != 0]).min())
    state = begin(w, plan)
    Exact(objective, plan).advance(state, 1)
    np.testing.assert_allclose((w - state.w[0]) / plan.eta, g, rtol=1e-12)


def test_a_saturated_logistic_unit_still_has_a_gradient():
    objective = MLP([1, 1], output="logistic").objective([[1.0]], [[0.0]])
    tail = np.exp(-37.0)  # f' = f(1 - f) = tail to 1e-16; E' = f f', E'' = f'^2 + f f'' = -tail
    np.testing.assert_allclose(objective.gradient([37.0, 0.0]), tail, rtol=1e-14)
    np.testing.assert_allclose(objective.hessian([37.0, 0.0]), -tail, rtol=1e-14)
