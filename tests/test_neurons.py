"""Neurons of a chip with imperfections, in every kind of network: against slow twins, unit by
unit, and in both engines.
"""

import itertools

import numpy as np
import pytest
from fast import fast, thinned
from test_chip import chip_of
from test_dag import mlp_as_dag
from test_recurrent import make

from hardware.parts.draws import NEURON_NOISE
from perturb import DAG, MLP, Boltzmann, InputError, Objective
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.losses import ERRORS
from perturb.networks.settling import NotSettled
from perturb.trial.random import normals

ALL = {
    "neuron.gain_mismatch": 0.2,
    "neuron.offset_mismatch": 0.3,
    "neuron.noise": 0.1,
    "neuron.saturation": 0.6,
    "neuron.crosstalk": 0.07,
}
EACH = [*({key: value} for key, value in ALL.items()), ALL]


def graph(seed=1):
    """Levels of four, three and one unit in any numbering, shortcuts, tied weights; outputs that
    feed on and that do not.
    """
    rng = np.random.default_rng(seed)
    levels = [[9, 2, 5, 0], [10, 1, 6, 4], [3, 11, 8], [7]]
    edges = [
        (i, j)
        for a, b in ((0, 1), (1, 2), (0, 2), (2, 3), (1, 3))
        for i in levels[a]
        for j in levels[b]
    ]
    edges = [(i, j) for i, j in edges if i != 11 and (i, j) not in ((6, 3), (0, 8))]
    external = 0.3 * rng.standard_normal(12)
    external[levels[0]] = 0.0
    activation = {1: "logistic", 3: "relu", 6: "linear", 8: "softplus"}
    net = DAG(
        12,
        edges,
        [9, 2, 5],
        [4, 7, 11],
        activation,
        bias=0,
        external=external,
        tied=np.arange(len(edges)) // 2,
    )
    return (
        net.objective(rng.standard_normal((5, 3)), rng.random((5, 3))),
        net.init(seed),
        rng.standard_normal(net.n_weights),
    )


def recurrent(seed=0):
    return make(
        seed,
        {0: "relu", 1: "tanh", 2: "logistic", 3: "linear"},
        radius=0.4,
        inputs=[0, 2, 4],
        tolerance=1e-13,
    )


def layered(seed=3):
    rng = np.random.default_rng(seed)
    net = MLP([3, 4, 5, 2], error="cross_entropy")
    return (
        net.objective(rng.standard_normal((6, 3)), rng.integers(0, 2, 6)),
        net.init(seed),
        rng.standard_normal(net.n_weights),
    )


def chip_with(point, changes, **options):
    return chip_of(
        point,
        changes,
        **{"method": "covariance", "code": "gaussian", "sigma": 0.05, "seed": 4, **options},
    )


def noise(chip, layer, S, size, trial, phase):
    xi = np.empty(S * size)
    normals(np.uint64(chip.design.seed), NEURON_NOISE, trial, phase + 16 * layer, xi)
    return xi.reshape(S, size)


def lines(neuron, y, xi, feeds):
    """l of a layer from its y, unit by unit: those that feed others, in their order, are
    neighbours of each other.
    """
    t = list(y)
    for place, i in enumerate(feeds):
        t[i] = min(max(y[i], -neuron.saturation), neuron.saturation) if neuron.saturation else y[i]
        t[i] += neuron.noise * xi[place]
    line = list(t)
    for place, i in enumerate(feeds):
        if place > 0:
            line[i] += neuron.crosstalk * t[feeds[place - 1]]
        if place < len(feeds) - 1:
            line[i] += neuron.crosstalk * t[feeds[place + 1]]
    return line


def naive_graph(chip, w, trial, phase):
    """Errors of a graph by its definition: level by level, unit by unit, edge by edge."""
    objective, neuron = chip.objective, chip.params.neuron
    net, S, errors = objective.network, objective.n_patterns, []
    given = [*net.inputs, net.bias]
    for s in range(S):
        line, layer = dict(zip(net.inputs, objective.x[s], strict=True)) | {net.bias: 1.0}, 0
        for level in range(max(net.levels) + 1):
            units = [
                unit
                for unit in range(net.n_units)
                if net.levels[unit] == level and unit not in given
            ]
            if not units:
                continue
            y, (gain, offset) = [], chip.parts.die.neurons[layer]
            for place, unit in enumerate(units):
                x = sum(w[net.tied[e]] * line[i] for e, (i, j) in enumerate(net.edges) if j == unit)
                f = ACTIVATIONS[net.activations[unit]].f
                y.append(float(f(np.float64(gain[place] * x + offset[place]))) + net.external[unit])
            feeds = [place for place, unit in enumerate(units) if unit in net.edges[:, 0]]
            xi = noise(chip, layer, S, len(feeds), trial, phase)[s] if feeds else []
            line |= dict(zip(units, lines(neuron, y, xi, feeds), strict=True))
            layer += 1
        shown = np.array([[line[unit] for unit in net.outputs]])
        errors.append(ERRORS[net.error].value(shown, objective.target[s : s + 1])[0])
    return errors


def naive_recurrent(chip, w, trial, phase):
    """Errors at fixed points, to which l := l + (goal - l)/2 goes, unit by unit."""
    objective, neuron = chip.objective, chip.params.neuron
    net, n, S = objective.network, objective.network.n_units, objective.n_patterns
    (gain, offset), W, errors = chip.parts.die.neurons[0], w.reshape(n, n), []
    xi = noise(chip, 0, S, n, trial, phase)
    for s in range(S):
        external = dict(zip(net.inputs, objective.x[s], strict=True))
        line = [0.0] * n
        for _ in range(300):
            y = []
            for j in range(n):
                x = sum(W[i, j] * line[i] for i in range(n))
                y.append(
                    float(ACTIVATIONS[net.activations[j]].f(np.float64(gain[j] * x + offset[j])))
                    + external.get(j, 0.0)
                )
            goal = lines(neuron, y, xi[s], list(range(n)))
            line = [old + 0.5 * (new - old) for old, new in zip(line, goal, strict=True)]
        assert max(abs(new - old) for old, new in zip(line, goal, strict=True)) < 1e-13
        shown = np.array([[line[unit] for unit in net.outputs]])
        errors.append(ERRORS[net.error].value(shown, objective.target[s : s + 1])[0])
    return errors


@pytest.mark.parametrize("changes", EACH, ids=lambda changes: "+".join(changes))
@pytest.mark.parametrize("make_point, twin", [(graph, naive_graph), (recurrent, naive_recurrent)])
def test_units_are_those_of_the_slow_twin(make_point, twin, changes):
    point = make_point()
    chip = chip_with(point, changes)
    w = point[1] + 0.1 * np.random.default_rng(0).standard_normal((3, point[1].size))
    evaluations = [(0, 0), (0, 1), (7, 1)]
    found = chip.parts.array.errors(0.0, w, evaluations)
    expected = [
        twin(chip, row, *evaluation) for row, evaluation in zip(w, evaluations, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    ideal = np.array([point[0].pattern_errors(row) for row in w])
    assert np.abs(found - ideal).max() > 1e-3 * ideal.max()  # it is felt


@pytest.mark.parametrize("changes", EACH, ids=lambda changes: "+".join(changes))
def test_a_graph_that_is_an_mlp_has_the_same_units(changes):
    objective, w, v = layered()
    as_graph = mlp_as_dag(objective.network).objective(objective.x, objective.target)
    estimates = [chip_with((each, w, v), changes).run(40) for each in (objective, as_graph)]
    np.testing.assert_allclose(
        estimates[1].hv, estimates[0].hv, rtol=1e-9, atol=1e-9 * np.abs(estimates[0].hv).max()
    )


def test_crosstalk_of_units_is_a_matrix_between_the_layers(small):
    objective, w, v = small
    c = 0.06
    (W1, b1), (W2, b2) = objective.network.unpack(w)
    mixing = np.eye(4) + c * (
        np.eye(4, k=1) + np.eye(4, k=-1)
    )  # of four hidden units; the two outputs drive no synapses
    outputs = np.tanh(objective.x @ W1 + b1) @ mixing @ W2 + b2
    chip = chip_with(small, {"neuron.crosstalk": c})
    found = chip.parts.array.errors(0.0, w[None], [(0, 0)])[0]
    np.testing.assert_allclose(
        found, ERRORS["cross_entropy"].value(outputs, objective.target), rtol=1e-14
    )

    # the chip finds the gradient of the network that it is: of W1, W2 with the mixing in between
    def error(point):
        (W1, b1), (W2, b2) = objective.network.unpack(point)
        shown = np.tanh(objective.x @ W1 + b1) @ mixing @ W2 + b2
        return float(ERRORS["cross_entropy"].value(shown, objective.target).mean())

    truth = Objective.from_functions(error, n_weights=w.size).gradient(w)
    estimate = chip_with(
        small, {"neuron.crosstalk": c}, method="central", code="walsh", sigma=1e-3
    ).run(64)
    np.testing.assert_allclose(
        estimate.gradient, truth, atol=1e-5
    )  # over a whole period, but for a term of sigma^2
    assert np.abs(objective.gradient(w) - truth).max() > 1e-2


@pytest.mark.parametrize("presentation", ["batch", "pattern"])
@pytest.mark.parametrize("make_point", fast([graph, recurrent], graph))
@pytest.mark.parametrize("changes", thinned(EACH, 3), ids=lambda changes: "+".join(changes))
def test_events_and_batches_agree_in_other_networks_too(make_point, changes, presentation):
    options = {"presentation": presentation, "method": "difference", "code": "walsh", "r": 0.05}
    chips = {
        fidelity: chip_with(make_point(), changes, fidelity=fidelity, **options)
        for fidelity in ("event", "batch", "auto")
    }
    event, batch, auto = (chip.run(30) for chip in chips.values())
    for other in (batch, auto):
        for name in ("gradient", "hv"):
            a, b = getattr(event, name), getattr(other, name)
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9 * np.abs(a).max())
    parts = chip_with(make_point(), changes, fidelity="batch", **options)
    for count in (1, 12, 17):
        last = parts.run(count)
    np.testing.assert_array_equal(last.hv, batch.hv)


@pytest.mark.parametrize("make_point", [layered, graph])
def test_many_points_are_the_same_whichever_come_together(make_point, monkeypatch):
    objective, w, v = make_point()
    points = w + 0.1 * np.random.default_rng(0).standard_normal((9, w.size))
    values = chip_with((objective, w, v), ALL).parts.array
    evaluations = list(itertools.product(range(3), range(3)))
    together = values.errors(0.0, points, evaluations)
    monkeypatch.setattr("hardware.parts.neurons.MAX_ACTIVITIES", 1)
    np.testing.assert_array_equal(values.errors(0.0, points, evaluations), together)


def test_noise_of_a_unit_is_one_draw_per_evaluation_and_pattern():
    # one linear unit that feeds one linear unit: E = (w2 (w1 x + xi) - t)^2 / 2, so the noise of
    # the output is w2 xi
    net = MLP([1, 1, 1], activation="linear")
    objective, w = net.objective([[1.0]] * 400, [[0.0]] * 400), np.array([0.0, 0.0, 2.0, 0.0])
    values = chip_with((objective, w, np.ones(4)), {"neuron.noise": 0.1}).parts.array
    outputs = np.sqrt(
        2 * values.errors(0.0, np.tile(w, (5, 1)), [(trial, 0) for trial in range(5)])
    )
    rms = np.sqrt((outputs**2).mean())
    assert abs(rms - 0.2) < 5 * 0.2 / np.sqrt(2 * outputs.size)
    assert len(np.unique(outputs)) == outputs.size


@pytest.mark.parametrize("key", ALL)
def test_a_machine_without_such_units_is_refused_in_one_line(key):
    point = Boltzmann(2).objective([0.25] * 4), np.zeros(3), np.ones(3)
    with pytest.raises(
        InputError, match=f"{key} = {ALL[key]} but a Boltzmann has no neurons with a net input"
    ):
        chip_of(point, {key: ALL[key]})


def test_a_network_that_crosstalk_keeps_from_settling_says_so():
    objective, w, v = make(0, "relu", radius=0.4)
    chip = chip_with((objective, np.abs(w), v), {"neuron.crosstalk": 1.0})
    with pytest.raises(
        NotSettled,
        match=r"imperfections of \[chip.neuron\] have not settled after \d+ steps of 0.5",
    ):
        chip.run(1)
