"""The rules of R{.}, and what a user may add."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perturb
from perturb import DAG, MLP, InputError, Recurrent
from perturb.networks import r_operator as rules
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS

EPS = 1e-6


def along(f, w, v):
    return (f(w + EPS * v) - f(w - EPS * v)) / (2 * EPS)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_each_rule_is_the_derivative_along_v(seed):
    rng = np.random.default_rng(seed)
    w, v, c, M = (
        rng.standard_normal(4),
        rng.standard_normal(4),
        rng.standard_normal(4),
        rng.standard_normal((3, 4)),
    )
    p = rules.weights(w, v)
    sine = rules.chain(np.sin, np.cos, p)
    cases = [
        (rules.constant(c), lambda w: c),
        (rules.total(p, sine), lambda w: w + np.sin(w)),
        (rules.product(p, sine), lambda w: w * np.sin(w)),
        (rules.product(rules.constant(M), sine, np.matmul), lambda w: M @ np.sin(w)),
        (
            rules.chain(
                np.tanh, lambda x: 1 - np.tanh(x) ** 2, rules.product(p, rules.constant(c))
            ),
            lambda w: np.tanh(w * c),
        ),
    ]
    for pair, f in cases:
        np.testing.assert_allclose(pair.value, f(w), atol=1e-14)
        np.testing.assert_allclose(pair.R, along(f, w, v), atol=1e-8)


def test_the_rules_applied_to_a_gradient_give_hv():
    # one tanh unit without bias: dE/dw = mean of x (y - t)(1 - y^2)
    rng = np.random.default_rng(0)
    x, t, w, v = (
        rng.standard_normal((7, 3)),
        rng.random(7),
        rng.standard_normal(3),
        rng.standard_normal(3),
    )
    X = rules.constant(x)
    y = rules.chain(
        np.tanh, lambda u: 1 - np.tanh(u) ** 2, rules.product(X, rules.weights(w, v), np.matmul)
    )
    slope = rules.chain(lambda y: 1 - y**2, lambda y: -2 * y, y)
    e = rules.product(rules.total(y, rules.constant(-t)), slope)
    gradient = rules.product(rules.constant(x.T / 7), e, np.matmul)
    net = MLP([3, 1], output="tanh").objective(x, t[:, None])
    np.testing.assert_allclose(gradient.value, net.gradient(np.append(w, 0))[:3], atol=1e-14)
    np.testing.assert_allclose(
        gradient.R, net.hvp(np.append(w, 0), np.append(v, 0))[:3], atol=1e-14
    )


def test_r_of_a_rate_is_the_rate_of_r():
    # y' = -y + tanh(w y) + 1, integrated with R{y'} = -R{y} + (1 - tanh^2)(w R{y} + v y) beside it
    w, v, dt = 0.7, 1.3, 1e-3

    def run(w):
        y = [0.0]
        for _ in range(2000):
            y.append(y[-1] + dt * (-y[-1] + np.tanh(w * y[-1]) + 1))
        return np.array(y)

    y, R_y = run(w), [0.0]
    for value in y[:-1]:
        R_y.append(
            R_y[-1] + dt * (-R_y[-1] + (1 - np.tanh(w * value) ** 2) * (w * R_y[-1] + v * value))
        )
    speed = rules.rate(rules.Pair(y, np.array(R_y)), dt)
    np.testing.assert_allclose(speed.R, along(lambda w: np.gradient(run(w), dt), w, v), atol=1e-7)


def test_over_all_minibatches_the_mean_of_r_of_the_gradient_is_hv():
    rng = np.random.default_rng(0)
    net = MLP([3, 4, 2], error="cross_entropy")
    x, target, w = rng.standard_normal((6, 3)), np.eye(2)[rng.integers(0, 2, 6)], net.init(0)
    v = rng.standard_normal(w.size)
    batches = [
        net.objective(x[list(b)], target[list(b)]).hvp(w, v)
        for b in itertools.combinations(range(6), 2)
    ]
    np.testing.assert_allclose(
        np.mean(batches, axis=0), net.objective(x, target).hvp(w, v), atol=1e-14
    )


@pytest.fixture
def registered():
    before = dict(ACTIVATIONS), dict(ERRORS)
    yield
    for table, kept in zip((ACTIVATIONS, ERRORS), before, strict=True):
        table.clear()
        table.update(kept)


def test_a_user_adds_an_activation_and_an_error_in_one_place(registered):
    perturb.add_activation("sine", np.sin, lambda x, y: np.cos(x), lambda x, y: -y)
    perturb.add_error(
        "quartic",
        lambda y, t: ((y - t) ** 4).sum(-1) / 4,
        lambda y, t: (y - t) ** 3,
        lambda y, t, R_y: 3 * (y - t) ** 2 * R_y,
    )
    rng = np.random.default_rng(0)
    mlp = MLP([3, 4, 2], "sine", error="quartic").objective(
        rng.standard_normal((5, 3)), rng.random((5, 2))
    )
    recurrent = Recurrent(3, [1], "sine", "quartic").objective(
        0.3 * rng.standard_normal((5, 3)), rng.random((5, 1))
    )
    for objective in (mlp, recurrent):
        w, v = objective.network.init(0), rng.standard_normal(objective.n_weights)
        np.testing.assert_allclose(
            objective.hvp(w, v), perturb.finite_difference_hvp(objective, w, v), atol=1e-7
        )
        compared = perturb.compare(
            perturb.estimate(objective, w, v, 32, sigma=1e-3, r=1e-3), objective, w, v
        )
        assert compared.hv.cosine > 0.999


def test_a_wrong_derivative_is_refused(registered):
    with pytest.raises(InputError, match="df is not the derivative at x = "):
        perturb.add_activation("sine", np.sin, lambda x, y: np.sin(x), lambda x, y: -y)
    with pytest.raises(InputError, match="d2f is not the derivative"):
        perturb.add_activation("sine", np.sin, lambda x, y: np.cos(x), lambda x, y: y)
    with pytest.raises(InputError, match="e is not the derivative of value"):
        perturb.add_error(
            "odd",
            lambda y, t: ((y - t) ** 4).sum(-1),
            lambda y, t: (y - t) ** 3,
            lambda y, t, R_y: R_y,
        )
    with pytest.raises(InputError, match="R_e is not the derivative of e"):
        perturb.add_error(
            "odd",
            lambda y, t: ((y - t) ** 4).sum(-1) / 4,
            lambda y, t: (y - t) ** 3,
            lambda y, t, R_y: R_y,
        )
    with pytest.raises(InputError, match="exists already"):
        perturb.add_activation(
            "tanh", np.tanh, lambda x, y: 1 - y * y, lambda x, y: -2 * y * (1 - y * y)
        )
    assert "sine" not in ACTIVATIONS and "odd" not in ERRORS


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "logistic", "softplus"])
@pytest.mark.parametrize("error", ["squared_error", "cross_entropy", "binary_cross_entropy"])
def test_hv_agrees_with_automatic_differentiation_to_twelve_digits(activation, error):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    f = {"tanh": jnp.tanh, "logistic": jax.nn.sigmoid, "softplus": jax.nn.softplus}[activation]
    value = {
        "squared_error": lambda y, t: 0.5 * ((y - t) ** 2).sum(-1),
        "cross_entropy": lambda y, t: jax.nn.logsumexp(y, -1) - (t * y).sum(-1),
        "binary_cross_entropy": lambda y, t: (jax.nn.softplus(y) - t * y).sum(-1),
    }[error]
    rng = np.random.default_rng(0)
    net = MLP([7, 9, 8, 3], activation, "linear", error)
    x, t = rng.standard_normal((11, 7)), rng.dirichlet(np.ones(3), 11)
    objective, w = net.objective(x, t), net.init(0)
    v = rng.standard_normal(w.size)

    def E(w):
        y = x
        for layer, (W, b) in enumerate(net.unpack(w)):
            y = y @ W + b
            y = f(y) if layer < 2 else y
        return value(y, t).mean()

    g, z = jax.jvp(jax.grad(E), (jnp.array(w),), (jnp.array(v),))
    np.testing.assert_allclose(objective.gradient(w), g, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(objective.hvp(w, v), z, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_graphs_and_fixed_points_agree_with_automatic_differentiation():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    edges = [(i, j) for j in range(2, 8) for i in range(j) if (i + 2 * j) % 3]
    dag = DAG(8, edges, inputs=[0, 1], outputs=[5, 7], activation="tanh")
    x, t = rng.standard_normal((6, 2)), rng.random((6, 2))

    def E_dag(w):
        y = [jnp.array(x[:, 0]), jnp.array(x[:, 1])]
        for j in range(2, 8):
            y.append(
                jnp.tanh(
                    sum((w[e] * y[i] for e, (i, to) in enumerate(edges) if to == j), jnp.zeros(6))
                )
            )
        return 0.5 * ((jnp.stack([y[5], y[7]], 1) - t) ** 2).sum(1).mean()

    recurrent = Recurrent(4, outputs=[1, 2], inputs=[0, 3])

    def E_recurrent(w):
        W, outside = w.reshape(4, 4), jnp.zeros((6, 4)).at[:, jnp.array([0, 3])].set(x)
        y = jnp.zeros((6, 4))
        for _ in range(200):  # unrolled until nothing changes any more
            y = jnp.tanh(y @ W) + outside
        return 0.5 * ((y[:, 1:3] - t) ** 2).sum(1).mean()

    for net, E in ((dag, E_dag), (recurrent, E_recurrent)):
        objective, w = net.objective(x, t), net.init(1)
        v = rng.standard_normal(w.size)
        g, z = jax.jvp(jax.grad(E), (jnp.array(w),), (jnp.array(v),))
        np.testing.assert_allclose(objective.gradient(w), g, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(objective.hvp(w, v), z, rtol=1e-11, atol=1e-12)
