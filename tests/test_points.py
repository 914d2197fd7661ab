"""Errors and gradients at many points at once: the same numbers as at one point after another."""

import numpy as np
import pytest
from fast import fast

from perturb import CODES, DAG, METHODS, MLP, Boltzmann, Recurrent
from perturb.estimation.design import Design
from perturb.estimation.engine import run_trials
from perturb.estimation.point import Point
from perturb.estimation.statistics import Statistics
from perturb.kernels.equilibrium import CONTRACTION, NEAR, _one_fixed_point, _solve
from perturb.kernels.simd import aligned
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.objective import Objective
from perturb.networks.settling import NotSettled
from perturb.trial.readout import Reading

EDGES = [(i, j) for i in range(3) for j in range(3, 6)] + [
    (3, 6),
    (4, 6),
    (5, 7),
    (6, 7),
    (9, 3),
    (9, 7),
]
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
    "direct, many": relaxing(S=20),
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
    np.testing.assert_allclose(
        errors, Objective.errors_at(objective, points), rtol=1e-11, atol=1e-13
    )  # relaxed to 1e-10
    np.testing.assert_array_equal(objective.errors_at(points[2:5]), errors[2:5])


@pytest.mark.parametrize("error", ["squared_error", "cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("layers", [[3, 11], [3, 4, 11]])
@pytest.mark.parametrize("S", [1, 2])
def test_an_mlp_has_the_same_bits_at_one_point_as_among_others(S, layers, error):
    # eight classes or more: of one row alone NumPy adds as many in an order of its own
    rng = np.random.default_rng(0)
    net = MLP(layers, error=error)
    objective = net.objective(rng.standard_normal((S, 3)), rng.random((S, 11)))
    points = rng.standard_normal((40, net.n_weights))
    errors = objective.errors_at(points)
    np.testing.assert_array_equal([objective.errors_at(w[None])[0] for w in points], errors)
    np.testing.assert_array_equal([objective.pattern_errors(w) for w in points], errors)


MLPS = [
    (layers, activation, output, error)
    for layers in ([3, 11], [3, 4, 11], [3, 1, 2])
    for activation in ACTIVATIONS
    for error, output in {
        "squared_error": "logistic",
        "cross_entropy": "linear",
        "binary_cross_entropy": "linear",
    }.items()
    # without a hidden layer there is no activation of one
    if len(layers) > 2 or activation == "tanh"
]


@pytest.mark.parametrize("network", MLPS, ids=str)
@pytest.mark.parametrize("S", fast([1, 2, 9], 2))
def test_gradients_of_an_mlp_are_those_of_each_point_to_the_bit(S, network):
    rng = np.random.default_rng(0)
    layers, net = network[0], MLP(*network)
    weights = rng.uniform(0.5, 2.0, (12, 1))  # of classes, which are in the targets
    objective = net.objective(
        rng.standard_normal((12, 3)), weights * rng.dirichlet(np.ones(layers[-1]), 12)
    )
    points = rng.standard_normal((40, net.n_weights))
    shown = np.array([rng.permutation(12)[:S] for _ in points])
    for rows in (None, shown):
        found = objective.gradients(points, rows)
        each = Objective.gradients(objective, points, rows)
        np.testing.assert_array_equal(found, each)
        alone = [
            objective.gradients(w[None], None if rows is None else rows[i : i + 1])[0]
            for i, w in enumerate(points)
        ]
        np.testing.assert_array_equal(found, alone)
        part = objective.gradients(points[3:10], None if rows is None else rows[3:10])
        np.testing.assert_array_equal(found[3:10], part)
    decayed = objective.with_decay(0.1)
    np.testing.assert_array_equal(
        decayed.gradients(points, shown), Objective.gradients(decayed, points, shown)
    )


def test_gradients_in_stacks_of_any_size_have_the_same_bits():
    # 2^15 activities a pass: 4 points of these 400 patterns, some left over; or one alone
    rng = np.random.default_rng(0)
    net = MLP([16, 20, 5], error="cross_entropy")
    for S in (400, 1000):
        objective = net.objective(rng.standard_normal((S, 16)), rng.integers(0, 5, S))
        points = rng.standard_normal((11, net.n_weights))
        shown = np.array([rng.permutation(S)[: S // 3] for _ in points])
        for rows in (None, shown):
            np.testing.assert_array_equal(
                objective.gradients(points, rows), Objective.gradients(objective, points, rows)
            )


def test_an_activation_of_ones_own_is_evaluated_without_a_kernel(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "mine", ACTIVATIONS["logistic"])
    for make in (graph, relaxing):
        (net, mine), (_, known) = make("mine"), make("logistic")
        points = net.init(1) + np.zeros((2, 1))
        np.testing.assert_allclose(mine.errors_at(points), known.errors_at(points), rtol=1e-12)


# one fixed point for certain; most likely; several
@pytest.mark.parametrize("radius", fast([0.3, 1.0, 2.5], 0.3))
def test_the_fixed_point_is_the_one_that_relaxation_finds(radius):
    net, objective = relaxing(S=20, step=0.3)
    points = np.array([net.init(seed, radius) for seed in range(40)])
    alone = []
    for w in points:
        try:
            alone.append(objective.pattern_errors(w))
        except NotSettled:
            alone.append(np.full(20, np.nan))
    kept = ~np.isnan(np.array(alone)).any(1)
    assert kept.sum() > 20
    np.testing.assert_allclose(
        objective.errors_at(points[kept]), np.array(alone)[kept], rtol=1e-9, atol=1e-12
    )


def test_a_network_of_two_stable_states_goes_where_relaxation_goes():
    # y = tanh(2 y + I): from 0 past a saddle to about +-0.96, a little input to either side
    net = Recurrent(2, [0], inputs=[0])
    objective = net.objective([[1e-3], [-1e-3], [1e-6]], [[0.0], [0.0], [0.0]])
    points = np.array([2.0, 0.1, 0.1, 2.0]) + 0.01 * np.random.default_rng(0).standard_normal(
        (20, 4)
    )
    alone = np.array([objective.pattern_errors(w) for w in points])
    np.testing.assert_allclose(objective.errors_at(points), alone, rtol=1e-11)
    assert alone.min() > 0.4
    # the negative control: Newton's method finds the saddle from 0
    y, x, W = np.zeros(2), np.array([1e-3, 0.0]), points[0].reshape(2, 2)
    for _ in range(5):
        f = np.tanh(y @ W)
        y = y + np.linalg.solve(np.eye(2) - (1 - f * f)[:, None] * W.T, f + x - y)
    assert np.abs(np.tanh(y @ W) + x - y).max() < 1e-12 and np.abs(y).max() < 0.01


def test_a_saddle_that_relaxation_passes_by_is_not_where_it_arrives():
    # two units that inhibit each other, with hardly a difference between them
    objective, w = (
        Recurrent(2, [0, 1]).objective([[0.5, 0.5 + 1e-8]], [[0.0, 0.0]]),
        np.array([0.0, -2.0, -2.0, 0.0]),
    )
    residuals = objective.settle(w).residuals
    assert (
        residuals[np.argmax(residuals < NEAR) :].max() > 0.1
    )  # the negative control: it does look settled on the way
    np.testing.assert_allclose(
        objective.errors_at(w[None])[0], objective.pattern_errors(w), rtol=1e-11
    )


@pytest.mark.parametrize(
    "kinds, slope", [([1, 1, 1, 1, 1], 1.0), ([2, 2, 2, 2, 2], 0.25), ([0, 3, 4, 1, 2], None)]
)
def test_a_contraction_is_told_by_its_norm(kinds, slope):
    c = np.where(np.array(kinds) == 2, 0.25, 1.0) if slope is None else slope
    for seed in range(10):
        W = np.random.default_rng(seed).standard_normal((5, 5))
        norm, padded = np.linalg.norm(W * c, 2), np.zeros((5, 8))
        for factor in (0.999, 1.001):
            padded[:, :5] = factor * CONTRACTION / norm * W
            found = _one_fixed_point(
                padded.ravel(), np.array(kinds), np.empty((5, 5)), np.empty((5, 5))
            )
            assert found == (factor < 1)


def test_each_lane_of_a_solution_has_its_own_pivots():
    rng, n = np.random.default_rng(0), 7
    A, b = rng.standard_normal((16, n, n)), rng.standard_normal((16, n))
    A[::2, 0, 0] = 0.0
    lanes = aligned(16 * n * (n + 1))
    lanes.reshape(n, n + 1, 16)[:] = np.concatenate([A, b[:, :, None]], 2).transpose(1, 2, 0)
    _solve(n, lanes)
    exact = np.linalg.solve(A, b[:, :, None])[:, :, 0]
    np.testing.assert_allclose(
        lanes.reshape(n, n + 1, 16)[:, n].T, exact, rtol=1e-3, atol=1e-3
    )  # float32, |exact| to 30


@pytest.mark.parametrize("solver", ["direct", "relax"])
def test_what_would_settle_too_late_is_not_taken_from_newtons_method(solver):
    net, late = relaxing(solver=solver, max_steps=30)
    w = net.init(0, 0.3)  # settles in some 50 steps, and after 20 Newton's method would do
    assert np.isfinite(relaxing(solver=solver, max_steps=60)[1].errors_at(w[None])).all()
    for evaluate in (late.error, lambda w: late.errors_at(w[None])):
        with pytest.raises(NotSettled, match="after 30 steps"):
            evaluate(w)


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
    design = Design(
        METHODS["difference"], CODES["gaussian"], net.n_weights, 0.02, 0.02, 1, presentation
    )
    runs = []
    for counts, options in (
        ([300], {"threads": 1}),
        ([1, 99, 200], {"threads": 2}),
        ([300], {"threads": 3, "batch": 70}),
    ):
        statistics = Statistics(design)
        for count in counts:
            run_trials(Point(objective, w, v), Reading(0.01), statistics, count, **options)
        runs.append(statistics)
    for other in runs[1:]:
        np.testing.assert_array_equal(other.sums, runs[0].sums)
        np.testing.assert_array_equal(other.totals, runs[0].totals)


def test_a_network_is_measured_once_at_w_but_a_function_of_the_users_own_in_every_trial(
    monkeypatch,
):
    # which may be a measurement with its own noise
    measured = []

    def count(trials, objective, n):
        design = Design(
            METHODS["covariance"], CODES["rademacher"], n, 0.02, 0.02, 1
        )  # at w + dw and at w
        measured.clear()
        run_trials(
            Point(objective, np.full(n, 0.1), np.ones(n)),
            Reading(),
            Statistics(design),
            trials,
            threads=1,
        )
        return sum(measured)

    function = Objective.from_functions(lambda w: measured.append(1) or float(w @ w), n_weights=3)
    assert count(100, function, 3) - count(60, function, 3) == 2 * 40
    net, objective = graph()
    of_points = objective.errors_at
    monkeypatch.setattr(
        objective, "errors_at", lambda points: measured.append(len(points)) or of_points(points)
    )
    assert count(100, objective, net.n_weights) - count(60, objective, net.n_weights) == 40


def test_an_mlp_is_evaluated_point_by_point():
    net = MLP([2, 3, 1])
    objective = net.objective([[0.0, 1.0], [1.0, 0.5]], [[0.0], [1.0]])
    points = np.array([net.init(0), net.init(1)])
    np.testing.assert_array_equal(
        objective.errors_at(points), [objective.pattern_errors(w) for w in points]
    )
