"""Networks of layers on a chip: their neurons, events against batches, time and energy."""

import numpy as np
import pytest
from fast import thinned
from test_chip import chip_of
from test_layers import NETWORKS, point
from test_neurons import ALL, lines

import perturb
from hardware.parts.draws import NEURON_NOISE
from perturb import DAG, MLP, Layers
from perturb.trial.random import normals

ARRAYS = {
    "array.rows": 3,
    "array.columns": 2,
    "array.input_bits": 5,
    "array.input_range": 2.0,
    "array.output_bits": 6,
    "array.output_noise": 0.02,
    "array.wire_resistance": 0.01,
}


def with_array(**changes):
    return {f"array.{key}": value for key, value in changes.items()}


def errors_of(objective, changes, points, keys=None):
    w = points[0]
    chip = chip_of((objective, w, np.ones(w.size)), changes, seed=4)
    return chip.parts.array.errors(0.0, points, keys or [(k, k % 3) for k in range(len(points))])


def points_at(w, count=3, size=0.1):
    return w + size * np.random.default_rng(0).standard_normal((count, w.size))


# ---- neurons of layers


def test_a_network_of_a_file_has_the_arrays_and_neurons_of_its_layers(tmp_path):
    made = Layers([2, 5], ["conv1d 3 2", "tanh", "flatten", "linear 2"])
    w = made.init(0)
    perturb.to_onnx(made, w, tmp_path / "net.onnx", dtype="float64")
    read, w_read = perturb.from_onnx(tmp_path / "net.onnx")
    assert type(read) is not Layers and (w_read == w).all()
    rng = np.random.default_rng(4)
    x, target = rng.standard_normal((3, 10)), rng.random((3, 2))
    plain, *changed = (
        errors_of(net.objective(x, target), changes, points_at(w))
        for changes in ({}, ARRAYS | {"neuron.gain_mismatch": 0.1, "neuron.noise": 0.01})
        for net in (made, read)
    )
    # plain of the file, and both with imperfections
    of_file, of_layers, imperfect = changed
    np.testing.assert_array_equal(plain, of_file)
    np.testing.assert_array_equal(of_layers, imperfect)
    assert (imperfect != plain).all()


def test_layers_without_a_matrix_are_told_from_other_networks():
    net = Layers([3], ["batchnorm"])
    objective = net.objective(np.ones((2, 3)), np.zeros((2, 3)))
    with pytest.raises(
        perturb.InputError, match="array.output_bits = 6 but these Layers have no matrix"
    ):
        errors_of(objective, {"array.output_bits": 6}, points_at(net.init(0)))


def small_convolution(error="squared_error"):
    net = Layers([2, 5], ["conv1d 3 2", "tanh", "flatten", "linear 2"], error)
    rng = np.random.default_rng(4)
    objective = net.objective(rng.standard_normal((3, 10)), rng.random((3, 2)))
    return objective, net.init(0) + 0.1, rng.standard_normal(net.n_weights)


def draws(chip, stream, number, size, trial, phase):
    out = np.empty(size)
    normals(np.uint64(chip.design.seed), stream, trial, phase + 16 * number, out)
    return out


def naive_convolution(chip, w, trial, phase):
    """Errors of `small_convolution`, position by position and neuron by neuron."""
    objective, neuron = chip.objective, chip.params.neuron
    kernel, b, W, c = np.split(w, [12, 15, 39])
    kernel, W = kernel.reshape(3, 2, 2), W.reshape(12, 2)
    (gain, offset), (gain_out, offset_out) = chip.parts.die.neurons
    S, found = objective.n_patterns, []
    xi = draws(chip, NEURON_NOISE, 0, S * 12, trial, phase)
    for s in range(S):
        x = objective.x[s].reshape(2, 5)
        y = np.empty((3, 4))
        for channel in range(3):
            for place in range(4):
                net_input = b[channel] + sum(
                    kernel[channel, i, k] * x[i, place + k] for i in range(2) for k in range(2)
                )
                own = 4 * channel + place if neuron.per_position else channel
                y[channel, place] = np.tanh(gain[own] * net_input + offset[own])
        if neuron.per_position:
            own = xi.reshape(S, 12)[s]
            line = np.reshape(lines(neuron, y.ravel(), own, list(range(12))), (3, 4))
        else:
            own = xi.reshape(S, 4, 3)[s]
            line = np.transpose([lines(neuron, y[:, k], own[k], [0, 1, 2]) for k in range(4)])
        out = gain_out * (np.ravel(line) @ W + c) + offset_out
        found.append(0.5 * ((out - objective.target[s]) ** 2).sum())
    return found


@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize("key", [*ALL, "all"])
def test_neurons_of_a_convolution_are_those_of_the_slow_twin(key, per_position):
    task = small_convolution()
    changes = ALL if key == "all" else {key: ALL[key]}
    chip = chip_of(task, {**changes, "neuron.per_position": per_position}, seed=4)
    assert [gain.size for gain, _ in chip.parts.die.neurons] == [12 if per_position else 3, 2]
    points, keys = points_at(task[1]), [(0, 0), (0, 1), (7, 1)]
    found = chip.parts.array.errors(0.0, points, keys)
    twin = [naive_convolution(chip, w, *key) for w, key in zip(points, keys, strict=True)]
    np.testing.assert_allclose(found, twin, rtol=1e-11)
    ideal = np.array([task[0].pattern_errors(w) for w in points])
    assert np.abs(found - ideal).max() > 1e-4


@pytest.mark.parametrize("changes", [ALL, ARRAYS, ALL | ARRAYS], ids=["neurons", "arrays", "both"])
def test_layers_that_are_an_mlp_are_so_on_a_chip(changes):
    rng = np.random.default_rng(3)
    x, target = rng.standard_normal((6, 3)), rng.random((6, 2))
    mlp = MLP([3, 4, 5, 2])
    net = Layers([3], ["linear 4", "tanh", "linear 5", "tanh", "linear 2"])
    points = points_at(mlp.init(0))
    a, b = (errors_of(each.objective(x, target), changes, points) for each in (mlp, net))
    np.testing.assert_allclose(b, a, rtol=1e-12)
    assert np.abs(a - [mlp.objective(x, target).pattern_errors(w) for w in points]).max() > 1e-3


@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_chip_that_hardly_errs_walks_as_the_network_does(name, per_position):
    # so little crosstalk that nothing changes, but the walk through neurons is taken
    objective, w, _ = point(name)
    points = points_at(w)
    changes = {"neuron.crosstalk": 1e-29, "neuron.per_position": per_position}
    ideal = [objective.pattern_errors(each) for each in points]
    np.testing.assert_allclose(errors_of(objective, changes, points), ideal, rtol=1e-12)
    fine = with_array(output_bits=24, output_range=64.0, rows=3, columns=1)
    np.testing.assert_allclose(errors_of(objective, fine, points), ideal, atol=1e-3)


def test_neurons_without_an_activation_of_their_own_are_linear_and_outputs_drive_none():
    layers = ["conv1d 2 3 padding=1", "residual(linear 9)", "relu"]
    net = Layers([1, 4], [*layers[:1], "flatten", "linear 9", *layers[1:], "linear 2"])
    chip = chip_of((net.objective(np.ones((1, 4)), np.ones((1, 2))), net.init(0), net.init(1)))
    found = [(level.neurons.size, level.driving.size) for level in chip.parts.array.neurons.layers]
    # the convolution, the first linear, that in the sum, the relu after the sum, the outputs
    assert found == [(2, 2), (9, 9), (9, 9), (9, 9), (2, 0)]


# ---- events and batches, time, energy


@pytest.mark.parametrize("presentation", ["batch", "pattern"])
@pytest.mark.parametrize("name", thinned(NETWORKS, 4))
def test_events_and_batches_agree_on_layers_with_all_imperfections(name, presentation):
    task, found = point(name), {}
    changes = ALL | ARRAYS | {"array.conversion_ns": 30, "synapses_per_tile": 40}
    for fidelity in ("event", "batch"):
        options = {"method": "difference", "code": "gaussian", "sigma": 0.05, "seed": 4}
        chip = chip_of(task, changes, fidelity=fidelity, presentation=presentation, **options)
        found[fidelity] = chip.run(12), chip
    (event, chip), (batch, other) = found["event"], found["batch"]
    for estimate in ("gradient", "hv"):
        a, b = getattr(event, estimate), getattr(batch, estimate)
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9 * np.abs(a).max())
    assert other.energy_by_cause == pytest.approx(chip.energy_by_cause, rel=1e-12)
    assert other.time_s == pytest.approx(chip.time_s, rel=1e-12)
    assert other.incidents == chip.incidents


TIMED = {
    # network, products one after another
    "mlp": (MLP([4, 3, 2]), 2),
    "convolution": (Layers([1, 6, 6], ["conv2d 2 3", "relu", "flatten", "linear 2"]), 16 + 1),
    "two paths": (
        Layers([1, 5], ["residual(conv1d 1 3 padding=1; tanh; conv1d 1 1 | batchnorm)"]
        + ["flatten", "linear 2"]),
        5 + 5 + 1,
    ),
    "shortcut": (
        Layers([1, 5], ["residual(conv1d 1 1 | conv1d 2 3 padding=1; tanh; conv1d 1 1)"]
        + ["flatten"]),
        5 + 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMED)
def test_an_evaluation_takes_the_positions_that_arrays_serve_in_turn(name):
    net, products = TIMED[name]
    objective = net.objective(np.ones((3, net.n_inputs)), np.ones((3, net.n_outputs)))
    changes = {"array.settle_ns": 70, "array.conversion_ns": 11, "error_unit.conversion_ns": 5}
    options = {"method": "central", "fidelity": "event"}
    chip = chip_of((objective, net.init(0), net.init(1)), changes, **options)
    assert objective.depth == products
    settle_ns = chip.params.perturbation.settle_ns
    assert chip.timing.evaluation_ns == settle_ns + 3 * (products * 81 + 5)
    # two evaluations of three patterns
    assert chip.timing.parts_ns["settling of the array"] == 2 * 3 * products * 70
    assert chip.timing.parts_ns["conversion in the arrays"] == 2 * 3 * products * 11
    assert chip.timing.parts_ns["conversion"] == 2 * 3 * 5
    chip.run(4)
    assert chip.live.starts_ns[:4] == [chip.timing.start_ns(trial) for trial in range(4)]


def test_shared_weights_are_charged_for_each_use_by_events_and_formula():
    # the same shared kernel, as a graph and as a convolution: 2 weights and a bias at 3 positions
    edges = [(i + k, 5 + i) for i in range(3) for k in range(2)] + [(4, 5 + i) for i in range(3)]
    tied = [0, 1] * 3 + [2] * 3
    dag = DAG(8, edges, range(4), [5, 6, 7], "linear", bias=4, tied=tied)
    net = Layers([1, 4], ["conv1d 1 2", "flatten"])
    for each in (dag, net):
        objective = each.objective(np.ones((2, 4)), np.zeros((2, 3)))
        energy = {}
        for fidelity in ("event", "batch"):
            task = objective, each.init(0), np.ones(3)
            chip = chip_of(task, method="central", code="gaussian", fidelity=fidelity)
            chip.run(7)
            energy[fidelity] = chip.energy_by_cause["mac"]
        # 7 trials of 2 evaluations of 2 patterns with 9 multiplications
        assert energy["event"] == energy["batch"] == pytest.approx(7 * 2 * 2 * 9 * 1e-12)
