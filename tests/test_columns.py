"""What converters of an array's columns hide of the gradient: predicted, measured, advised."""

import numpy as np
import pytest
from fast import thinned
from scipy.stats import norm

import hardware
import reports
import sims
from hardware.columns import mean_words, measured_share, predicted_share
from hardware.parts.converter import quantised
from perturb import MLP, InputError, Layers
from perturb.theory.rounding import rounding_gain
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


def literal_share(objective, w, chip, sigma, trials, code="gaussian", seed=0):
    """Of a perceptron, trial by trial as on paper; and its standard error."""
    net = objective.network
    rng = np.random.default_rng(seed)
    bits, reach = chip.array.output_bits, chip.array.output_range
    g = objective.gradient(w)

    def errors(points):
        y = np.broadcast_to(objective.x, (len(points), *objective.x.shape))
        start = 0
        for a, b, name in zip(net.layers, net.layers[1:], net.activations, strict=False):
            W = points[:, start : start + a * b].reshape(-1, a, b)
            bias = points[:, None, start + a * b : start + a * b + b]
            start += a * b + b
            x = quantised(y @ W + bias, bits, reach)
            y = {"linear": lambda x: x, "tanh": np.tanh}[name](x)
        return ((y - objective.target) ** 2).sum((1, 2)) / 2 / objective.n_patterns

    shape = trials, w.size
    signs = code == "rademacher"
    D = sigma * (rng.choice([-1.0, 1.0], shape) if signs else rng.standard_normal(shape))
    found = (errors(w + D) - errors(w - D)) / 2 * (D @ g) / sigma**2 / (g @ g)
    return found.mean(), found.std() / np.sqrt(trials)


def exclusive_or(seed):
    x = np.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    net = MLP([2, 2, 1], output="linear")
    return net.objective(x, (x[:, :1] != x[:, 1:]).astype(float)), net.init(seed)


def test_few_net_inputs_pass_what_lies_at_an_edge_and_nothing_else():
    # x = +-1, the next edges at 1.2 and 0.4, sigma = 0.02
    task = MLP([1, 1], activation="linear").objective([[1.0], [-1.0]], [[3.0], [3.0]])
    chip = with_columns(output_bits=4, output_range=6.4)
    assert predicted_share(chip, task, np.array([1.0, 0.0]), 0.02) < 1e-6
    assert measured_share(chip, task, np.array([1.0, 0.0]), Plan(sigma=0.02)) == (0, 0)
    # both at an edge, where half of the trials cross it: q/(s sqrt(2 pi)), s^2 = 2 sigma^2
    share = predicted_share(chip, task, np.array([1.2, 0.0]), 0.02)
    assert share == pytest.approx(0.8 / (0.02 * np.sqrt(2) * np.sqrt(2 * np.pi)), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_exclusive_or_passes_five_bits_as_where_its_net_inputs_lie(seed):
    objective, w = exclusive_or(seed)
    chip = with_columns(output_bits=5, output_range=4.0)
    predicted = predicted_share(chip, objective, w, 0.01)
    for code in ("gaussian", "rademacher"):
        share, stderr = literal_share(objective, w, chip, 0.01, 20_000, code)
        # 0.1: of steps of two layers; a sum of three signs is not normal: more there
        bound = 5 * stderr + (0.1 if code == "gaussian" else 0.5)
        assert abs(predicted - share) < bound
        assert (predicted < 0.5) == (share < 0.5)


@pytest.mark.parametrize(
    "changes", [{}, {"rows": 2}, {"output_noise": 0.1}], ids=["plain", "parts", "noise"]
)
def test_one_layer_agrees_with_trials_whatever_its_few_net_inputs(changes):
    rng = np.random.default_rng(5)
    differs = False
    for seed in range(4):
        net = MLP([3, 2], output="linear")
        objective = net.objective(rng.standard_normal((3, 3)), 3 * rng.standard_normal((3, 2)))
        w = net.init(seed)
        chip = with_columns(output_bits=4, output_range=8.0, **changes)
        predicted = predicted_share(chip, objective, w, 0.1)
        plan = Plan(sigma=0.1, code="gaussian")
        share, stderr = measured_share(chip, objective, w, plan, 16_000)
        assert abs(share - predicted) < 5 * stderr
        differs |= abs(share - 1) > 5 * stderr
    assert differs


def test_means_of_words_are_those_of_the_theory_of_rounding():
    for s in (0.02, 0.2, 0.34, 0.36, 1.0):
        m = np.linspace(-1.7, 1.7, 23)
        S, slope, edge = mean_words(m, np.full(23, s), 6, 32.0)
        expected = [rounding_gain(s, 1.0, value) for value in m]
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-9)
        x = m + s * norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
        np.testing.assert_allclose(S, quantised(x, 6, 32.0).mean(0), atol=2e-4)
        # of a squared error E (Q - t)^2/2 changes with m by (edge - t) S', whatever t is
        ends = [(quantised(x + h, 6, 32.0) ** 2).mean(0) / 2 for h in (-s / 10, s / 10)]
        np.testing.assert_allclose(edge * slope, (ends[1] - ends[0]) / (s / 5), atol=0.05)
    # beyond the range nothing passes
    S, slope, _ = mean_words(np.array([-40.0, 40.0]), np.array([1.0, 1.0]), 6, 32.0)
    assert S.tolist() == [-32, 31] and abs(slope).max() < 1e-9


def test_what_a_weight_does_passes_its_own_columns_and_all_later_ones():
    chip = with_columns(output_bits=4, output_range=8.0)
    net = Layers([1, 3], ["conv1d 2 1", "tanh", "flatten", "linear 2"])
    rng = np.random.default_rng(0)
    objective = net.objective(rng.standard_normal((60, 3)), np.ones((60, 2)))
    w = 0.5 * rng.standard_normal(net.n_weights)
    for layer in (1, 2):
        free = net.weight_layers() == layer
        held = objective.of_layers([layer], w)
        predicted = predicted_share(chip, held, w[free], 0.3)
        plan = Plan(sigma=0.3, code="gaussian")
        share, stderr = measured_share(chip, held, w[free], plan, 8000)
        # 0.1: of two layers an estimate
        assert abs(share - predicted) < 5 * stderr + 0.1 * (layer == 1)


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


@pytest.mark.slow
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
