"""Gauss-Newton products: G = <J' H_E J> of every feed-forward network, and steps with it."""

import itertools
import pickle

import numpy as np
import pytest
from fast import thinned
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from hardware import load_chip
from hardware.training import source
from perturb import DAG, MLP, Boltzmann, InputError, Layers, Objective, Recurrent, curvature
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS
from perturb.training import Batch, Exact, Plan, begin

EPS = 1e-5  # of central differences: truncation 1e-10, rounding 1e-11, relative to what they are of
ENDS = [
    ("squared_error", "linear"),
    ("squared_error", "tanh"),
    ("cross_entropy", "linear"),
    ("binary_cross_entropy", "linear"),
]


def dag(error, output):
    """Shortcuts, an output that feeds another, tied weights and an external input."""
    names = {2: "tanh", 3: "sin" if "sin" in ACTIVATIONS else "softplus", 4: output, 5: output}
    edges = [(0, 2), (1, 2), (2, 3), (0, 3), (2, 4), (3, 4), (4, 5), (0, 5), (6, 5)]
    return DAG(
        7,
        edges,
        [0, 1],
        [4, 5],
        names,
        error,
        6,
        [0, 0, 0.3, 0, 0, 0, 0],
        [0, 1, 2, 0, 3, 4, 5, 6, 7],
    )


def layers(error, output):
    end = [] if output == "linear" else [output]
    texts = ["conv1d 2 3 padding=1", "tanh", "residual(conv1d 2 1; tanh)", "maxpool 2", "flatten"]
    return Layers([1, 4], [*texts, "linear 3", *end], error)


BUILT = {
    "mlp": lambda error, output: MLP([3, 4, 2], "softplus", output, error),
    "wide mlp": lambda error, output: MLP([9, 4, 3, 2], "tanh", output, error),
    "no hidden layer": lambda error, output: MLP([3, 2], "tanh", output, error),
    "dag": dag,
    "layers": layers,
}


def task(network, seed=0, patterns=5):
    """An objective, w, and directions (n, 3)."""
    rng = np.random.default_rng(seed)
    target = rng.random((patterns, network.n_outputs))
    if network.error == "cross_entropy":
        target /= target.sum(1, keepdims=True)
    w = network.init(seed) + 0.1 * rng.standard_normal(network.n_weights)
    objective = network.objective(rng.standard_normal((patterns, network.n_inputs)), target)
    return objective, w, rng.standard_normal((w.size, 3))


def explicit(objective, w):
    """<J' H_E J> from Jacobians of outputs and of e, pattern by pattern, by central differences."""
    E = ERRORS[objective.network.error]
    y = objective.outputs(w)
    J = np.stack(
        [
            (objective.outputs(w + EPS * e) - objective.outputs(w - EPS * e)) / (2 * EPS)
            for e in np.eye(w.size)
        ],
        axis=2,
    )
    G = np.zeros((w.size, w.size))
    for s in range(objective.n_patterns):
        t, at = objective.target[s : s + 1], y[s : s + 1]
        H_E = [(E.e(at + EPS * u, t) - E.e(at - EPS * u, t))[0] for u in np.eye(y.shape[1])]
        G += J[s].T @ np.array(H_E) / (2 * EPS) @ J[s] / objective.n_patterns
    return G


@pytest.mark.parametrize(
    "kind, end", thinned(list(itertools.product(BUILT, ENDS)), 3), ids=lambda part: str(part)
)
def test_G_is_that_of_explicit_jacobians(kind, end):
    objective, w, V = task(BUILT[kind](*end))
    G = explicit(objective, w)
    np.testing.assert_allclose(objective.gauss_newton_product(w, V), G @ V, rtol=1e-7, atol=1e-8)
    # not H, of which G is a part
    assert kind == "no hidden layer" or not np.allclose(objective.hvp(w, V), G @ V, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(sorted(ERRORS)),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
def test_G_of_any_network_is_symmetric_and_has_no_negative_eigenvalue(
    sizes, activation, error, patterns, seed
):
    objective, w, _ = task(MLP([*sizes, 2], activation, error=error), seed, patterns)
    G = objective.gauss_newton_product(w, np.eye(w.size))
    rounding = 1e-13 * (np.abs(G).max() + 1e-300) * w.size
    np.testing.assert_allclose(G, G.T, rtol=0, atol=rounding)
    assert np.linalg.eigvalsh((G + G.T) / 2)[0] >= -rounding


@pytest.mark.parametrize("kind", BUILT)
def test_G_is_the_hessian_where_residuals_vanish(kind):
    objective, w, V = task(BUILT[kind]("squared_error", "tanh"))
    fitted = objective.network.objective(objective.x, objective.outputs(w))
    np.testing.assert_allclose(
        fitted.gauss_newton_product(w, V), fitted.hvp(w, V), rtol=1e-12, atol=1e-14
    )
    # with residuals it is not
    assert not np.allclose(objective.gauss_newton_product(w, V), objective.hvp(w, V), rtol=1e-3)


@pytest.mark.parametrize("error", ["squared_error", "cross_entropy", "binary_cross_entropy"])
def test_G_is_the_hessian_of_a_network_that_is_linear_in_its_weights(error):
    for network in (
        MLP([3, 2], error=error),
        Layers([3], ["linear 2"], error),
        DAG(4, [(0, 2), (1, 2), (0, 3)], [0, 1], [2, 3], "linear", error),
    ):
        objective, w, V = task(network)
        np.testing.assert_allclose(
            objective.gauss_newton_product(w, V), objective.hvp(w, V), rtol=1e-12, atol=1e-14
        )


def test_three_kinds_of_the_same_network_have_the_same_G():
    objective, w, V = task(MLP([3, 4, 2], error="cross_entropy"))
    x, t = objective.x, objective.target
    unit_from, unit_to = objective.network.weight_units()
    edges = np.stack([np.where(unit_from < 0, 9, unit_from), unit_to], axis=1)
    same = [
        Layers([3], ["linear 4", "tanh", "linear 2"], "cross_entropy"),
        DAG(10, edges, [0, 1, 2], [7, 8], {7: "linear", 8: "linear"}, "cross_entropy", bias=9),
    ]
    G = objective.gauss_newton_product(w, V)
    for network in same:
        np.testing.assert_allclose(
            network.objective(x, t).gauss_newton_product(w, V), G, rtol=1e-11, atol=1e-14
        )


def test_patterns_add_up_also_where_layers_take_them_in_parts():
    network = Layers([1, 12, 12], ["conv2d 2 5 padding=2", "tanh", "flatten", "linear 2"])
    objective, w, V = task(network, patterns=700)
    parts = [objective.subset(rows) for rows in np.split(np.arange(700), [100])]
    expected = sum(part.n_patterns / 700 * part.gauss_newton_product(w, V[:, :2]) for part in parts)
    found = objective.gauss_newton_product(w, V[:, :2])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", BUILT)
def test_one_direction_is_a_column_of_many(kind):
    objective, w, V = task(BUILT[kind]("squared_error", "linear"))
    GV = objective.gauss_newton_product(w, V)
    assert objective.gauss_newton_product(w, V[:, :0]).shape == (w.size, 0)
    np.testing.assert_allclose(objective.gauss_newton_product(w, V[:, 1]), GV[:, 1], atol=1e-14)
    # more directions than are taken together
    objective.directions_at_once = 2
    np.testing.assert_allclose(objective.gauss_newton_product(w, V), GV, atol=1e-14)
    # products with H are the same before and after
    again = pickle.loads(pickle.dumps(objective))
    np.testing.assert_array_equal(again.hvp(w, V), objective.hvp(w, V))


def test_the_operator_counts_products_and_works_with_eigsh():
    objective, w, V = task(BUILT["mlp"]("cross_entropy", "linear"))
    G = objective.gauss_newton_operator(w)
    np.testing.assert_array_equal(G @ V, objective.gauss_newton_product(w, V))
    np.testing.assert_array_equal(G.T @ V, G @ V)
    assert G.n_products == 9
    top = eigsh(G, k=1, which="LA", v0=np.ones(w.size))[0][0]
    assert top == pytest.approx(np.linalg.eigvalsh(G @ np.eye(w.size))[-1], rel=1e-9)


def test_weight_decay_is_in_G_as_in_H():
    objective, w, V = task(BUILT["mlp"]("squared_error", "linear"))
    np.testing.assert_array_equal(
        objective.with_decay(0.5).gauss_newton_product(w, V),
        objective.gauss_newton_product(w, V) + 0.5 * V,
    )


def without_G():
    functions = Objective.from_functions(sum, np.ones_like, lambda w, v: 0 * v, n_weights=4)
    return {
        "functions": functions,
        "decayed": functions.with_decay(1.0),
        "relaxing": Recurrent(3, [2], inputs=[0, 1]).objective(np.eye(2), [[0.1], [0.2]]),
        "machine": Boltzmann(2, 1).objective([[0, 1], [1, 1]]),
    }


@pytest.mark.parametrize("kind", without_G())
@pytest.mark.parametrize(
    "ask",
    [
        lambda o, w: o.gauss_newton_product(w, w),
        lambda o, w: o.gauss_newton_operator(w) @ w,
        lambda o, w: curvature.newton_step(o, w, curvature="gauss_newton"),
    ],
)
def test_an_objective_without_G_says_who_has_one(kind, ask):
    objective = without_G()[kind]
    with pytest.raises(InputError, match=r"has no Gauss-Newton matrix: .* MLP, DAG and Layers"):
        ask(objective, np.full(objective.n_weights, 0.1))


def indefinite():
    """An objective and w whose H has negative eigenvalues, many of them."""
    objective, w, _ = task(MLP([3, 4, 2], "tanh", "tanh"), seed=3)
    assert np.linalg.eigvalsh(objective.hessian(w))[0] < -1e-3
    return objective, w


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_a_gauss_newton_step_solves_its_system_where_H_is_indefinite(method):
    objective, w = indefinite()
    g = objective.gradient(w)
    settings = dict(damping=1e-2, method=method, tolerance=1e-9, max_products=500)
    step = curvature.newton_step(objective, w, curvature="gauss_newton", **settings)
    G = objective.gauss_newton_product(w, np.eye(w.size))
    np.testing.assert_allclose(
        step.p, np.linalg.solve(G + 1e-2 * np.eye(w.size), -g), rtol=1e-6, atol=1e-9
    )
    assert step.converged and not step.negative_curvature and g @ step.p < 0
    # with H, conjugate gradients meet negative curvature
    assert curvature.newton_step(objective, w, damping=1e-2, tolerance=1e-9).negative_curvature


def test_a_gauss_newton_step_fits_a_linear_network_at_once():
    network = MLP([2, 1])
    x = np.random.default_rng(0).standard_normal((5, 2))
    objective = network.objective(x, x @ [[2.0], [-1.0]] + 0.5)
    step = curvature.newton_step(
        objective, np.zeros(3), tolerance=1e-12, max_products=50, curvature="gauss_newton"
    )
    np.testing.assert_allclose(step.p, [2.0, -1.0, 0.5], rtol=1e-9)


def test_no_saliency_is_negative_with_G():
    objective, w = indefinite()
    found = curvature.obs_saliencies(objective, w, damping=1e-2, curvature="gauss_newton")
    inverse = np.linalg.inv(
        objective.gauss_newton_product(w, np.eye(w.size)) + 1e-2 * np.eye(w.size)
    )
    np.testing.assert_allclose(found.value, w**2 / (2 * np.diag(inverse)), rtol=1e-6)
    assert found.converged and (found.value >= 0).all()
    assert (curvature.obs_saliencies(objective, w, damping=1e-2).value < 0).any()


def test_exact_newton_updates_by_G_are_conjugate_gradients_on_it():
    objective, w = indefinite()
    settings = dict(rule="newton-cg", method="difference", cg_steps=200, damping=1e-2, eta=1.0)
    plan = Plan(curvature="gauss_newton", **settings)
    state = begin(w, plan)
    Exact(objective, plan).advance(state, 1)
    step = np.linalg.solve(
        objective.gauss_newton_product(w, np.eye(w.size)) + 1e-2 * np.eye(w.size),
        -objective.gradient(w),
    )
    np.testing.assert_allclose(state.w[0] - w, step, rtol=1e-6, atol=1e-9)
    other = begin(w, Plan(**settings))
    Exact(objective, Plan(**settings)).advance(other, 1)
    assert not np.allclose(other.w, state.w, atol=1e-3)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda o, w: curvature.newton_step(o, w, curvature="fisher"),
            "curvature = 'fisher' is un",
        ),
        (lambda o, w: Plan(curvature="gauss_newton"), "is of the rule newton-cg, not"),
        (lambda o, w: Plan(curvature="G"), "curvature = 'G' is unknown"),
        (lambda o, w: Batch(o, estimated()), "is for exact gradients, as trials tell of H alone"),
        (
            lambda o, w: source(load_chip("ideal"), o, estimated(), w[None], events=True),
            "is for exact gradients, as trials tell of H alone",
        ),
    ],
)
def test_a_curvature_that_cannot_be_is_one_clear_line(call, message):
    objective, w, _ = task(MLP([2, 1]))
    with pytest.raises(InputError, match=message) as caught:
        call(objective, w)
    assert "\n" not in str(caught.value)


def estimated():
    return Plan(rule="newton-cg", method="difference", curvature="gauss_newton")
