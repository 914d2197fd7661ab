"""How much an evaluation of E varies on a chip, by theory: against what its parts give."""

import math

import numpy as np
import pytest
from chips import params
from fast import thinned
from onnx_files import small
from shown import fact
from test_layers import NETWORKS, point
from test_layers_on_chip import errors_of, small_convolution, with_array
from test_onnx import stored

import perturb
import sims
from hardware.error_noise import ErrorNoise, ErrorVaries
from perturb import MLP, Layers


def one_layer(outputs=2, activation="linear"):
    rng = np.random.default_rng(0)
    net = MLP([6, outputs], output=activation)
    return net.objective(rng.standard_normal((5, 6)), rng.random((5, outputs))), net.init(0)


def varies(task, changes, presented=None, sigma=0.01):
    objective, w = task[:2]
    return ErrorVaries(objective, w, sigma, presented or objective.n_patterns).on(params(changes))


def agrees(task, changes, evaluations, size=0.0):
    """Whether Var E is that of so many evaluations of a chip, at five standard errors; with a size,
    of what it errs by at weights perturbed by so much.
    """
    objective, w = task[:2]
    points = w + size * np.random.default_rng(1).standard_normal((evaluations, w.size))
    keys = [(k, 0) for k in range(evaluations)]
    E = errors_of(objective, changes, points, keys).mean(1)
    if size:
        E -= errors_of(objective, {}, points, keys).mean(1)
    squares = (E - E.mean()) ** 2
    stderr = squares.std() / math.sqrt(evaluations)
    expected = varies(task, changes, sigma=size or 0.01).variance
    return abs(squares.mean() - expected) < 5 * stderr


@pytest.mark.parametrize("rows, above", [(0, 1), (7, 1), (4, 2), (3, 3)])
def test_noise_of_a_linear_layer_is_that_of_the_formula_and_of_the_chip(rows, above):
    task = objective, w = one_layer()
    changes = with_array(output_noise=0.02, rows=rows)
    # E = sum of (y - t)^2/2 over outputs, mean over patterns: dE/dx = (y - t)/S, 6 inputs + bias
    e = (objective.outputs(w) - objective.target) / 5
    assert varies(task, changes).variance == pytest.approx(above * 0.02**2 * (e**2).sum())
    # of a single pattern, on average over which
    assert varies(task, changes, presented=1).variance == pytest.approx(
        above * 0.02**2 * (5 * e**2).sum()
    )
    assert agrees(task, changes, 3000)


def test_the_comparison_with_a_chip_can_fail(monkeypatch):
    task, changes = one_layer(), with_array(output_noise=0.02)
    assert agrees(task, changes, 3000)
    found = varies(task, changes)
    other = ErrorNoise(1.3 * found.variance, "")
    monkeypatch.setattr(ErrorVaries, "on", lambda self, chip: other)
    assert not agrees(task, changes, 3000)


@pytest.mark.parametrize("name", thinned([*NETWORKS], 3))
def test_noise_of_columns_is_carried_through_every_layer(name):
    assert agrees(point(name), with_array(output_noise=0.001, rows=3), 1000)


@pytest.mark.parametrize(
    "changes",
    [
        {"output_bits": 10, "output_range": 8.0},
        {"output_bits": 10, "output_range": 8.0, "rows": 3},
        {"input_bits": 8, "input_range": 1.0},
    ],
    ids=["columns", "columns of parts", "rows"],
)
def test_rounding_is_noise_where_perturbations_move_it_by_half_a_step(changes):
    net = Layers([2, 5], ["conv1d 3 2", "tanh", "flatten", "linear 2"])
    rng = np.random.default_rng(4)
    # targets far away: E has slopes, beside which curvature is small
    # on steps of the converter of rows, which leaves them as they are
    x = rng.integers(-100, 101, (3, 10)) / 128
    task = net.objective(x, rng.standard_normal((3, 2)) * 4), net.init(0) + 0.1
    assert agrees(task, with_array(**changes), 2000, 0.02)


def test_rounding_that_hides_perturbations_has_no_variance_but_a_reason():
    task = small_convolution()
    for key in ("input", "output"):
        found = varies(task, with_array(**{f"{key}_bits": 4}), sigma=1e-4)
        assert math.isnan(found.variance)
        assert f"raise estimation.sigma or array.{key}_bits" in found.why and "layer " in found.why
        assert "\n" not in found.why


def test_what_no_weight_moves_is_no_noise():
    # the rows of a single layer are driven by patterns
    assert varies(one_layer(), with_array(input_bits=3)) == ErrorNoise(0.0, "")
    objective, w = small_convolution()[:2]
    coarse = with_array(output_bits=3, output_range=1.0, input_bits=3)
    # the convolution is held: its columns, and the rows of the next layer, stay as they are
    last = objective.of_layers([2], w), w[15:]
    found = varies(last, coarse, sigma=0.5)
    e = (objective.outputs(w) - objective.target) / 3
    assert found.variance == pytest.approx(0.25**2 / 12 * (e**2).sum())
    assert varies(last, with_array(input_bits=3)) == ErrorNoise(0.0, "")


def hides(task, changes, sigma, what="hide perturbations"):
    found = varies(task, with_array(**changes), sigma=sigma)
    return math.isnan(found.variance) and what in found.why


DEPEND = "are not independent noise"


def test_net_inputs_of_patterns_that_are_the_same_round_alike():
    rng = np.random.default_rng(0)
    net = MLP([12, 2], activation="linear")
    x, far = rng.random((2, 12)), np.full((40, 2), 10.0)
    changes = {"output_bits": 8, "output_range": 8.0}
    alike = net.objective(np.repeat(x[:1], 40, 0), far), net.init(2)
    assert agrees(alike, with_array(**changes), 4000, 0.05)
    # of two kinds of patterns, 20 of each; as if independent it would be a 20th
    two = net.objective(np.repeat(x, 20, 0), far), net.init(2)
    assert agrees(two, with_array(**changes), 4000, 0.05)
    e = (two[0].outputs(two[1]) - far) / 40
    found = varies(two, with_array(**changes), sigma=0.05).variance
    assert found == pytest.approx((1 / 16) ** 2 / 12 * 20 * (e**2).sum(), rel=1e-9)
    # random signs of five weights give few values: no noise
    few = MLP([4, 2], activation="linear").objective(np.full((40, 4), 0.6), far), net.init(2)[:10]
    assert hides(few, changes, 0.05, DEPEND)
    # and nearly the same patterns round nearly alike
    near = np.repeat(x[:1], 40, 0) + 1e-3 * rng.standard_normal((40, 12))
    assert hides((net.objective(near, far), net.init(2)), changes, 0.05, DEPEND)


def test_noise_of_columns_parts_what_rounds_alike():
    x = np.repeat(np.random.default_rng(0).random((1, 12)), 40, 0)
    net = MLP([12, 2], activation="linear")
    task = net.objective(x, np.full((40, 2), 10.0)), net.init(2)
    changes = {"output_bits": 8, "output_range": 8.0}
    assert agrees(task, with_array(**changes, output_noise=0.05), 4000, 0.05)
    assert hides(task, {**changes, "output_noise": 0.02}, 0.05, "round alike in part")


def test_positions_that_are_blank_move_with_the_bias_alone():
    x = np.zeros((3, 40))
    x[:, 5:8] = np.random.default_rng(0).standard_normal((3, 3))
    net = Layers([1, 40], ["conv1d 2 3", "flatten", "linear 1"])
    task = net.objective(x, np.full((3, 1), 20.0)), net.init(3) + 0.05
    assert hides(task, {"output_bits": 8, "output_range": 8.0}, 0.05, DEPEND)
    # without a bias they never move: what is left is noise
    net = Layers([1, 40], ["conv1d 2 8 bias=false", "flatten"])
    x[:, 5:25] = np.random.default_rng(0).standard_normal((3, 20))
    task = net.objective(x, np.full((3, 66), 20.0)), net.init(3)
    assert agrees(task, with_array(output_bits=10, output_range=8.0), 4000, 0.05)


def test_columns_whose_weights_are_held_round_to_the_same():
    rng = np.random.default_rng(5)
    net = MLP([12, 10], activation="linear")
    objective = net.objective(rng.standard_normal((3, 12)), 10 * rng.standard_normal((3, 10)))
    w = net.init(1) + 0.1
    free = np.arange(0, w.size, 10)
    one = objective.restricted(free, w), w[free]
    changes = {"output_bits": 8, "output_range": 20.0}
    assert agrees(one, with_array(**changes), 4000, 0.3)
    # all columns give ten times as much
    both = [varies(task, with_array(**changes), sigma=0.3) for task in (one, (objective, w))]
    assert 4 * both[0].variance < both[1].variance


def test_one_pattern_that_moves_far_hides_nothing_of_the_others():
    x = np.array([[30.0, 30, 30], [0.05, 0.02, 0.01], [0.03, -0.02, 0.04], [0.01, 0.05, -0.03]])
    net = MLP([3, 2], activation="linear")
    w = net.init(0)
    target = np.array([[0.0, 0], [5, -5], [5, 5], [-5, 5]])
    target[0] = net.objective(x, target).outputs(w)[0] + 0.01
    held = net.objective(x, target).restricted(np.arange(6), w), w[:6]
    assert hides(held, {"output_bits": 10, "output_range": 128.0}, 0.01)


def test_each_of_the_arrays_above_one_another_is_judged_by_how_far_it_moves():
    rng = np.random.default_rng(5)
    net = MLP([64, 2], activation="linear")
    objective = net.objective(rng.standard_normal((3, 64)), 10 * rng.standard_normal((3, 2)))
    task = objective, net.init(0) + 0.05
    changes = {"output_bits": 8, "output_range": 10.24}
    # together 1.0 steps, eight of them 0.35, and each 0.12
    assert agrees(task, with_array(**changes), 4000, 0.01)
    assert hides(task, {**changes, "rows": 8}, 0.01) and hides(task, {**changes, "rows": 1}, 0.01)
    assert agrees(task, with_array(**changes, rows=8), 4000, 0.03)


def test_rows_that_one_neuron_moves_are_few():
    rng = np.random.default_rng(7)
    net = MLP([3, 8, 1], activation="tanh", output="linear")
    objective = net.objective(rng.standard_normal((4, 3)), np.full((4, 1), 30.0))
    w = 0.5 * rng.standard_normal(net.n_weights)
    free = np.array([0, 8, 16, 24])
    task = objective.restricted(free, w), w[free]
    assert hides(task, {"input_bits": 7, "input_range": 4.0}, 0.3, DEPEND)


def test_noise_of_reading_weights_dithers():
    rng = np.random.default_rng(5)
    net = MLP([16, 2], activation="linear")
    objective = net.objective(rng.standard_normal((3, 16)), 10 * rng.standard_normal((3, 2)))
    w = net.init(0) + 0.05
    columns = with_array(output_bits=7, output_range=8.0)
    read = {"weights.read_noise": 0.1}
    assert math.isnan(varies((objective, w), columns, sigma=0.001).variance)
    both, alone = (varies((objective, w), {**read, **more}, sigma=0.001) for more in (columns, {}))
    expected = both.variance - alone.variance
    # on chips that read the same
    points, keys = np.tile(w, (4000, 1)), [(k, 0) for k in range(4000)]
    chips = [errors_of(objective, {**read, **more}, points, keys) for more in (columns, {})]
    d = (chips[0] - chips[1]).mean(1)
    squares = (d - d.mean()) ** 2
    assert abs(squares.mean() - expected) < 5 * squares.std() / math.sqrt(4000)
    assert squares.mean() > 20 * squares.std() / math.sqrt(4000)


def test_other_networks_have_readings_alone():
    net = perturb.DAG(3, [[0, 2], [1, 2]], [0, 1], [2])
    task = net.objective(np.ones((2, 2)), np.ones((2, 1))), net.init(0)
    assert varies(task, {"error_unit.noise": 0.1, "error_unit.flicker": 0.2}).variance == (
        pytest.approx(0.1**2 / 2 + 2 * 0.2**2)
    )


@pytest.mark.slow
def test_predicted_and_measured_agree_on_a_chip_with_noisy_columns():
    quiet = {"estimation.code": "rademacher", "estimation.trials": 32, "estimation.sigma": 1e-3}
    noisy = {**quiet, "chip.array.output_noise": 0.05}
    found = []
    for seed in range(12):
        start = {"run.seed": seed, "weights.seed": 1, "direction.seed": 1}
        found.append(sims.run_experiment("teacher", {**noisy, **start}).summary.iloc[0])
    # squares add up: the mean of those measured is what theory says
    measured = np.array([row["relative_error"] ** 2 for row in found])
    expected = found[0]["predicted_relative_error"] ** 2
    stderr = measured.std(ddof=1) / math.sqrt(len(measured))
    assert abs(measured.mean() - expected) < 5 * stderr
    # without the noise of columns theory says something else
    start = {"run.seed": 0, "weights.seed": 1, "direction.seed": 1}
    without = sims.run_experiment("teacher", {**quiet, **start}).summary.iloc[0]
    assert expected - without["predicted_relative_error"] ** 2 > 10 * stderr


def test_a_budget_counts_noise_of_columns_and_says_what_to_improve():
    noisy = {"study": "budget", "chip.array.output_noise": 0.05}
    quiet = sims.run_experiment("teacher", {"study": "budget"})
    run = sims.run_experiment("teacher", noisy)
    assert fact(run, "trials", "hv") > 2 * fact(quiet, "trials", "hv")
    rows = run.sensitivities.query("key == 'array.output_noise' and quantity == 'hv'")
    assert rows["trials_saved"].item() > 0.3


def test_a_prediction_that_cannot_be_made_says_why(command, tmp_path):
    set = {"estimation.sigma": 1e-2, "chip.array.output_bits": 6}
    run = sims.run_experiment("xor", {**set, "study": "budget"})
    assert math.isnan(fact(run, "trials", "hv"))
    says = run.summary.query("measure == 'trials'")["meaning"]
    assert says.str.contains("not known: the converters of columns of layer 2 hide").all()
    words = [word for key, value in set.items() for word in ("--set", f"{key}={value}")]
    status, out, err = command("run", "xor", "--out", str(tmp_path / "run"), *words)
    assert status == 0, err
    said = " ".join(out.split())
    assert "which theory cannot foretell here" in said and "no prediction: the converters" in said


def test_arrays_and_neurons_of_a_network_from_a_file_are_those_of_its_layers(tmp_path):
    network, w = perturb.from_onnx(stored(small(), tmp_path / "small.onnx"))
    twin = Layers(network.input_shape, network.layers, network.error)
    x, target = np.random.default_rng(0).random((2, 4, 2))
    points = w + 0.1 * np.random.default_rng(1).standard_normal((3, w.size))
    changes = {"neuron.noise": 0.1, "neuron.gain_mismatch": 0.1, **with_array(output_noise=0.1)}
    a, b = (errors_of(net.objective(x, target[:, :1]), changes, points) for net in (network, twin))
    np.testing.assert_array_equal(a, b)
    assert (a != errors_of(twin.objective(x, target[:, :1]), {}, points)).all()
