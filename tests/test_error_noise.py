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


def test_other_networks_have_readings_alone():
    net = perturb.DAG(3, [[0, 2], [1, 2]], [0, 1], [2])
    task = net.objective(np.ones((2, 2)), np.ones((2, 1))), net.init(0)
    assert varies(task, {"error_unit.noise": 0.1, "error_unit.flicker": 0.2}).variance == (
        pytest.approx(0.1**2 / 2 + 2 * 0.2**2)
    )


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
    assert says.str.contains("not known: the converters of columns of layer 1 hide").all()
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
