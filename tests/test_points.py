"""Errors at many points at once: the same numbers as at one point after another."""

import numpy as np
import pytest

from perturb import CODES, DAG, METHODS, MLP, Boltzmann, Recurrent
from perturb.activations import ACTIVATIONS
from perturb.kernels import run_trials
from perturb.objective import Objective
from perturb.reading import Reading
from perturb.recurrent import NotSettled
from perturb.statistics import Design, Statistics

EDGES = [(i, j) for i in range(3) for j in range(3, 6)] + [(3, 6), (4, 6), (5, 7), (6, 7), (9, 3), (9, 7)]
MIXED = dict(enumerate(ACTIVATIONS, start=3))


def graph(activation="tanh", error="squared_error", S=4, tied=None):
    rng = np.random.default_rng(0)
    external = rng.standard_normal(10)
    external[[0, 1, 2, 9]] = 0.0  # of units whose activity is given
    net = DAG(10, EDGES, [0, 1, 2], [6, 7], activation, error, bias=9, external=external, tied=tied)
    return net, net.objective(rng.standard_normal((S, 3)), rng.random((S, 2)))


def relaxing(activation="tanh", error="squared_error", S=4, **options):
    rng = np.random.default_rng(0)
    net = Recurrent(6, [4, 5], activation, error, inputs=[0, 1, 2], **options)
    return net, net.objective(rng.standard_normal((S, 3)), rng.random((S, 2)))


def machine(n_visible, n_hidden, S=5, **options):
    net = Boltzmann(n_visible, n_hidden, **options)
    rng = np.random.default_rng(0)
    if S:
        return net, net.objective(rng.choice(net.values, (S, n_visible)))
    p = rng.random(2**n_visible) * (np.arange(2**n_visible) != 1)  # one state never seen
    return net, net.objective(p / p.sum())


LINEAR = {**MIXED, 6: "linear", 7: "linear"}
OBJECTIVES = {
    "graph": graph(),
    "graph, one pattern": graph(S=1),
    "graph, mixed": graph(MIXED, S=33),
    "graph, cross_entropy": graph(LINEAR, "cross_entropy", S=3),
    "graph, binary_cross_entropy": graph(LINEAR, "binary_cross_entropy"),
    "graph, tied": graph(tied=[0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 9]),
    "direct": relaxing(),
    "relax": relaxing(solver="relax", S=1),
    "mixed": relaxing(dict(enumerate(ACTIVATIONS)), S=9),
    "linear outputs": relaxing({4: "linear", 5: "linear"}, "cross_entropy"),
    "machine": machine(3, 2),
    "machine, spins": machine(2, 3, values=(-1, 1), sign=-1, temperature=0.7),
    "machine, distribution": machine(3, 2, S=0),
    "no hidden unit": machine(3, 0),
    "one unit": machine(1, 0),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_errors_at_points_are_those_of_each(name):
    net, objective = OBJECTIVES[name]
    points = 0.5 * net.init(1) + 0.05 * np.random.default_rng(1).standard_normal((7, net.n_weights))
    errors = objective.errors_at(points)
    np.testing.assert_allclose(errors, Objective.errors_at(objective, points), rtol=1e-11, atol=1e-13)  # relaxed to 1e-10
    np.testing.assert_array_equal(objective.errors_at(points[2:5]), errors[2:5])


def test_an_activation_of_ones_own_is_evaluated_without_a_kernel(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "mine", ACTIVATIONS["logistic"])
    for make in (graph, relaxing):
        (net, mine), (_, known) = make("mine"), make("logistic")
        points = net.init(1) + np.zeros((2, 1))
        np.testing.assert_allclose(mine.errors_at(points), known.errors_at(points), rtol=1e-12)


@pytest.mark.parametrize("w", [np.full(36, 2.0), np.eye(6).ravel() * 0.999])
def test_what_does_not_settle_says_so_as_it_does_alone(w):
    net, objective = relaxing("linear", max_steps=50)
    with pytest.raises(NotSettled) as alone, np.errstate(all="ignore"):
        objective.error(w)
    with pytest.raises(NotSettled) as together, np.errstate(all="ignore"):
        objective.errors_at(np.array([0 * w, w]))
    assert str(together.value) == str(alone.value)


@pytest.mark.parametrize("presentation", ["batch", "pattern"])
@pytest.mark.parametrize("name", ["graph", "direct", "machine"])
def test_trials_of_any_network_keep_their_bits(name, presentation):
    net, objective = OBJECTIVES[name]
    w, v = 0.5 * net.init(1), np.random.default_rng(2).standard_normal(net.n_weights)
    design = Design(METHODS["difference"], CODES["gaussian"], net.n_weights, 0.02, 0.02, 1, presentation)
    runs = []
    for counts, options in (([300], {"threads": 1}), ([1, 99, 200], {"threads": 2}), ([300], {"threads": 3, "batch": 70})):
        statistics = Statistics(design)
        for count in counts:
            run_trials(objective, w, v, Reading(0.01), statistics, count, **options)
        runs.append(statistics)
    for other in runs[1:]:
        np.testing.assert_array_equal(other.sums, runs[0].sums)
        np.testing.assert_array_equal(other.totals, runs[0].totals)


def test_an_mlp_is_evaluated_point_by_point():
    net = MLP([2, 3, 1])
    objective = net.objective([[0.0, 1.0], [1.0, 0.5]], [[0.0], [1.0]])
    points = np.array([net.init(0), net.init(1)])
    np.testing.assert_array_equal(objective.errors_at(points), [objective.pattern_errors(w) for w in points])
