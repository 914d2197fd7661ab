"""What converters of an array's columns hide of the gradient: predicted, measured, advised."""

import numpy as np
import pytest
from fast import thinned
from scipy.stats import norm

import hardware
import reports
import sims
from hardware.columns import _first_matrices, measured_share, predicted_share
from perturb import MLP, InputError, Layers
from perturb.training.plan import Plan

SIGMA = 0.05
TRIALS = 1600


def with_columns(**changes):
    chip = hardware.load_chip("ideal")
    return chip.model_copy(update={"array": chip.array.model_copy(update=changes)})


def normal_net_inputs():
    """A linear neuron whose net inputs are normal over patterns, standard deviation 0.8, and whose
    error is far from 0, so that all patterns count alike.
    """
    S = 200
    x = norm.ppf((np.arange(S) + 0.5) / S)[:, None]
    return MLP([1, 1], activation="linear").objective(x, np.full((S, 1), 200.0)), np.array([0.8, 0])


@pytest.mark.parametrize(
    "steps, noise", thinned([(1.2, 0.0), (3.0, 0.0), (4.0, 0.0), (6.0, 0.0), (4.0, 0.8)], 2)
)
def test_patterns_dither_one_another_as_foretold(steps, noise):
    objective, w = normal_net_inputs()
    step = 0.8 * steps
    chip = with_columns(output_bits=10, output_range=step * 2**9, output_noise=noise)
    predicted = predicted_share(chip, objective, w, SIGMA)
    share, stderr = measured_share(chip, objective, w, Plan(sigma=SIGMA, code="gaussian"), TRIALS)
    # (D.g)^2/|g|^2 of a trial has the variance 2, of two weights alike and more by noise
    assert stderr < 4 * np.sqrt(2 / TRIALS)
    # 0.01: patterns are finitely many, and so are the points that are looked at
    assert abs(share - predicted) < 5 * stderr + 0.01
    if steps > 2:
        assert abs(share - 1) > 5 * stderr + 0.01 or noise


def test_what_a_weight_does_passes_its_own_columns_and_all_later_ones():
    paths = "residual(conv1d 2 1; tanh; conv1d 2 1 | batchnorm)"
    net = Layers([1, 3], ["conv1d 2 1", "batchnorm", paths, "flatten", "linear 2", "batchnorm"])
    objective = net.objective(np.eye(3), np.ones((3, 2)))
    # of a batchnorm those of the next matrix; behind the last one there is none
    assert _first_matrices(objective).tolist() == [0, 1, 1, 2, 3, 3, 4]
    # a step of 2, where about half of it passes columns with a spread of 0.5
    chip = with_columns(output_bits=3, output_range=8.0)
    net = Layers([1, 3], ["conv1d 2 1", "tanh", "flatten", "linear 2"])
    rng = np.random.default_rng(0)
    objective = net.objective(rng.standard_normal((20, 3)), np.ones((20, 2)))
    w = 0.5 * rng.standard_normal(net.n_weights)
    shares = [
        predicted_share(chip, objective.of_layers([layer], w), w[net.weight_layers() == layer], 0.1)
        for layer in (1, 2)
    ]
    g = objective.gradient(w)
    square = [(g[net.weight_layers() == layer] ** 2).sum() for layer in (1, 2)]
    assert 0 < shares[0] < shares[1] < 1
    # perturbations of the other layer spread net inputs, too: more passes
    whole = predicted_share(chip, objective, w, 0.1)
    assert np.average(shares, weights=square) < whole < 1


def test_without_converters_there_is_no_share_and_without_a_gradient_it_is_unknown():
    objective, w = normal_net_inputs()
    with pytest.raises(InputError, match=r"^array.output_bits = 0 converts nothing: give bits$"):
        predicted_share(with_columns(), objective, w, SIGMA)
    flat = MLP([1, 1], activation="linear").objective([[1.0]], [[0.0]])
    chip = with_columns(output_bits=8)
    assert np.isnan(predicted_share(chip, flat, np.zeros(2), SIGMA))
    assert np.isnan(measured_share(chip, flat, np.zeros(2), Plan())).all()


FEW = {
    "training.updates": 2,
    "training.records": 1,
    "training.control": False,
    "training.batch": 4,
    "data.samples": 40,
    "data.test": 20,
    "network.layers": ["conv2d 2 3", "tanh", "averagepool 2", "flatten", "linear 10"],
}


def test_advice_is_the_fewest_bits_that_do_not_stall():
    said = {}
    for bits in (0, 2, 8):
        run = sims.run_experiment("digits-array-learning", {**FEW, "chip.array.output_bits": bits})
        advice = run.advice.set_index("setting")
        said[bits] = advice.loc["chip.array.output_bits"] if bits else None
        assert bits or "chip.array.output_bits" not in advice.index
        assert (run.summary["measure"] == "gradient_share").sum() == (bits > 0)
    assert said[2]["mind"] and not said[8]["mind"]
    # by the range alone, whatever bits there are
    assert said[2]["advised"] == said[8]["advised"] and 2 < said[8]["advised"] < 8


def test_a_sweep_of_bits_shows_the_share_beside_the_prediction(tmp_path):
    bits = {"chip.array.output_bits": [2, 8]}
    sims.run_sweep("digits-array-learning", vary=bits, set=FEW, out=tmp_path, workers=1)
    frames = reports.load(tmp_path)
    points = frames.points[frames.points["measure"] == "gradient_share"]
    found = points.set_index("chip.array.output_bits")
    # nothing passes two bits: every net input is read as 0
    assert found.loc[2, "mean"] == 0 and found.loc[2, "predicted"] < 1e-3
    assert found.loc[8, "predicted"] > 0.99 and abs(found.loc[8, "mean"] - 1) < 0.5
    page = tmp_path / "page"
    reports.export(tmp_path, ["html"], page)
    assert "predicted gradient share" in (page / "report.html").read_text()


@pytest.mark.slow
def test_learning_stalls_where_converters_let_nothing_through():
    few = {"training.updates": 3000, "training.decay": 2000, "training.control": False}
    right = {}
    for bits in (2, 8):
        run = sims.run_experiment(
            "digits-array-learning", {**few, "chip.array.output_bits": bits, "training.records": 1}
        )
        facts = run.summary.set_index("measure")["value"]
        right[bits] = facts["test_accuracy"]
        assert (facts["predicted_gradient_share"] < 0.5) == (bits == 2)
    # by chance one of ten
    assert right[2] < 0.2 and right[8] > 0.8
