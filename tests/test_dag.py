"""Directed acyclic graphs: everything an MLP is, and more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perturb import DAG, MLP, InputError, compare, estimate, finite_difference_hvp
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS


def mlp_as_dag(mlp):
    """The same network as a graph, weights in the same order; the bias is the last neuron."""
    n_units = sum(mlp.layers) + 1
    unit_from, unit_to = mlp.weight_units()
    edges = list(zip(np.where(unit_from < 0, n_units - 1, unit_from), unit_to, strict=True))
    outputs = range(n_units - 1 - mlp.layers[-1], n_units - 1)
    activation = {unit: mlp.activations[0] for unit in range(mlp.layers[0], n_units - 1)}
    activation |= {unit: mlp.activations[-1] for unit in outputs}
    return DAG(
        n_units, edges, range(mlp.layers[0]), outputs, activation, mlp.error, bias=n_units - 1
    )


def random_graph(seed, error="squared_error", tie=False):
    """Twelve neurons with skip connections, several activations, an output that feeds on, external
    inputs and a bias unit.
    """
    rng = np.random.default_rng(seed)
    n = 12
    order = rng.permutation(n)  # any numbering
    edges = [(order[i], order[j]) for j in range(4, n) for i in range(j) if rng.random() < 0.6]
    edges += [(order[3], order[4]), (order[8], order[11])] * (
        (order[3], order[4]) not in edges and (order[8], order[11]) not in edges
    )
    outputs = [order[8], order[11]]
    activation = {unit: rng.choice(list(ACTIVATIONS)) for unit in range(n)}
    activation |= dict.fromkeys(outputs, "linear" if error != "squared_error" else "tanh")
    tied = None
    if tie:
        tied = np.arange(len(edges)) // 2
    external = 0.3 * rng.standard_normal(n)
    external[order[:4]] = 0.0  # their activity is given
    net = DAG(
        n, edges, order[:3], outputs, activation, error, bias=order[3], external=external, tied=tied
    )
    x, target = rng.standard_normal((5, 3)), rng.random((5, 2))
    return net.objective(x, target), net.init(seed), rng.standard_normal(net.n_weights)


@pytest.mark.parametrize("error", ERRORS)
def test_a_dag_that_is_an_mlp_equals_the_mlp(error):
    rng = np.random.default_rng(0)
    mlp = MLP([3, 4, 5, 2], "softplus", "linear", error)
    x, target = rng.standard_normal((6, 3)), rng.random((6, 2))
    a, b = mlp.objective(x, target), mlp_as_dag(mlp).objective(x, target)
    w, V = mlp.init(1) + 0.1, rng.standard_normal((mlp.n_weights, 3))
    assert b.error(w) == pytest.approx(a.error(w), rel=1e-14)
    np.testing.assert_allclose(b.gradient(w), a.gradient(w), atol=1e-14)
    np.testing.assert_allclose(b.hvp(w, V), a.hvp(w, V), atol=1e-13)
    np.testing.assert_allclose(b.hvp(w, V[:, 0]), a.hvp(w, V[:, 0]), atol=1e-13)
    assert b.depth == a.depth


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(ERRORS)), st.booleans())
def test_derivatives_of_random_graphs(seed, error, tie):
    objective, w, v = random_graph(seed, error, tie)
    u = np.random.default_rng(seed + 1).standard_normal(w.size)
    E, g, z = objective.error_gradient_hvp(w, v)
    assert E == objective.error(w)
    np.testing.assert_allclose(g, objective.gradient(w), atol=1e-14)
    scale = max(1.0, np.abs(z).max(), np.abs(g).max())
    assert u @ z == pytest.approx(v @ objective.hvp(w, u), rel=1e-10, abs=1e-11 * scale)
    if "relu" not in objective.network.activations:  # where E is smooth
        np.testing.assert_allclose(z, finite_difference_hvp(objective, w, v), atol=1e-6 * scale)
        i, eps = int(np.abs(g).argmax()), 1e-6
        step = eps * np.eye(w.size)[i]
        assert g[i] == pytest.approx(
            (objective.error(w + step) - objective.error(w - step)) / (2 * eps), rel=1e-6, abs=1e-8
        )


def test_tied_weights_have_the_hessian_p_h_p():
    tied, w, _ = random_graph(3, tie=True)
    network = tied.network
    P = np.eye(network.n_weights)[network.tied]  # (edges, weights)
    free = DAG(
        network.n_units,
        network.edges,
        network.inputs,
        network.outputs,
        dict(enumerate(network.activations)),
        bias=network.bias,
        external=network.external,
    ).objective(tied.x, tied.target)
    np.testing.assert_allclose(tied.gradient(w), P.T @ free.gradient(P @ w), atol=1e-13)
    np.testing.assert_allclose(tied.hessian(w), P.T @ free.hessian(P @ w) @ P, atol=1e-12)


def test_renaming_units_and_reordering_edges_changes_nothing():
    objective, w, v = random_graph(5)
    network, rng = objective.network, np.random.default_rng(0)
    name, order = rng.permutation(network.n_units), rng.permutation(len(network.edges))
    activation = {name[unit]: f for unit, f in enumerate(network.activations)}
    external = np.empty(network.n_units)
    external[name] = network.external
    other = DAG(
        network.n_units,
        name[network.edges[order]],
        name[network.inputs],
        name[network.outputs],
        activation,
        bias=name[network.bias],
        external=external,
    ).objective(objective.x, objective.target)
    assert other.error(w[order]) == pytest.approx(objective.error(w), rel=1e-13)
    np.testing.assert_allclose(
        other.hvp(w[order], v[order]), objective.hvp(w, v)[order], atol=1e-12
    )


def test_batches_add_up_even_if_unequal():
    objective, w, v = random_graph(7)
    parts = [
        objective.network.objective(objective.x[part], objective.target[part])
        for part in (slice(0, 1), slice(1, 5))
    ]
    np.testing.assert_allclose(
        objective.hvp(w, v), (parts[0].hvp(w, v) + 4 * parts[1].hvp(w, v)) / 5, atol=1e-13
    )


def test_an_output_that_feeds_on_gets_its_own_error_and_what_comes_back():
    # y1 = w0 y0 (target t1), y2 = w1 y1 (target t2), linear: E = ((w0 x - t1)^2 + (w1 w0 x - t2)^2)
    # / 2
    net = DAG(3, [(0, 1), (1, 2)], [0], [1, 2], "linear")
    objective, (a, b), x, t1, t2 = net.objective([[2.0]], [[1.0, 3.0]]), (0.5, -0.7), 2.0, 1.0, 3.0
    e1, e2 = a * x - t1, b * a * x - t2
    np.testing.assert_allclose(objective.gradient([a, b]), [e1 * x + e2 * b * x, e2 * a * x])
    cross = (b * x) * (a * x) + e2 * x
    np.testing.assert_allclose(
        objective.hessian([a, b]), [[x**2 + (b * x) ** 2, cross], [cross, (a * x) ** 2]]
    )


def test_weight_perturbation_works_on_a_graph():
    objective, w, v = random_graph(11, "cross_entropy")
    compared = compare(estimate(objective, w, v, 256, sigma=1e-3, r=1e-3), objective, w, v)
    assert compared.hv.cosine > 0.999 and compared.gradient.cosine > 0.999


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"edges": [(0, 1), (1, 2), (2, 3), (3, 1)]},
            r"a cycle, (1 -> 2 -> 3 -> 1|2 -> 3 -> 1 -> 2|3 -> 1 -> 2 -> 3)",
        ),
        ({"edges": [(0, 1), (1, 1)]}, "a cycle, 1 -> 1"),
        (
            {"edges": [(0, 1), (1, 9)]},
            r"edge \(1, 9\) names a neuron that does not exist: neurons are 0 to 3",
        ),
        ({"edges": [(0, 1), (0, 1)]}, r"edge \(0, 1\) is given 2 times"),
        ({"edges": [(1, 0)]}, r"edge \(1, 0\) leads into neuron 0, whose activity is given"),
        ({"edges": []}, "at least one"),
        ({"edges": [(0.5, 1)]}, "integers"),
        ({"inputs": [7]}, "inputs names neuron 7, which does not exist"),
        ({"outputs": [3, 3]}, "names a neuron twice"),
        ({"activation": {1: "tan"}}, r"activation\[1\] = 'tan' is unknown: did you mean tanh?"),
        ({"bias": 0}, "bias = 0 is also an input"),
        ({"external": [1.0]}, r"external has shape \(1,\)"),
        ({"tied": [0, 2, 0]}, "1 is missing"),
        ({"error": "cross_entropy"}, "output neuron 3 is tanh"),
        ({"error": "cross_entropy", "activation": "linear"}, "needs at least two"),
        (
            {"external": [0.5, 0, 0, 0]},
            r"external\[0\] = 0.5, but the activity of neuron 0 is given",
        ),
        ({"activation": ["tanh"] * 4}, "must be a name for all neurons"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        DAG(
            **{
                "n_units": 4,
                "edges": [(0, 1), (1, 2), (2, 3)],
                "inputs": [0],
                "outputs": [3],
                **arguments,
            }
        )
    assert "\n" not in str(caught.value)


def test_directions_taken_in_parts_are_those_taken_at_once_and_external_input_is_a_copy():
    external = np.array([0.0, 0.0, 0.3, 0.3])
    net = DAG(4, [(0, 2), (1, 2), (0, 3), (2, 3)], [0, 1], [3], external=external)
    rng = np.random.default_rng(0)
    objective = net.objective(rng.standard_normal((5, 2)), rng.random((5, 1)))
    w, V = net.init(0), rng.standard_normal((4, 7))
    expected = objective.hvp(w, V)
    external[:] = 9.0
    split = net.objective(objective.x, objective.target)
    split.directions_at_once = 3
    np.testing.assert_allclose(split.hvp(w, V), expected, atol=1e-15)
