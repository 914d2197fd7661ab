"""Numbers that are made of many event-level trials at once are those of one trial after the
other.
"""

import gc
from itertools import pairwise

import naive
import numpy as np
import pytest
from test_chip import TRIPLES, chip_of
from test_imperfections import OPTIONS, REGISTERS, VALUES

from hardware.training import OnChip
from perturb import CODES, DAG, METHODS, MLP, InputError
from perturb.kernels.float64 import add_broadcast, add_broadcasts, dot_rows
from perturb.training.loop import begin
from perturb.training.plan import Plan
from perturb.trial.methods import REGRESSORS
from perturb.trial.random import normals_each
from perturb.trial.synapse import SUMS, TOTALS
from sims.experiment.loading import load_experiment


def numbers(chip, *runs):
    """All that a chip has summed and counted after some runs."""
    for trials in runs:
        chip.run(trials)
    return *chip.statistics.closed, chip.datapath.displaced, dict(chip.datapath.tally)


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def together(monkeypatch):
    """together(k): chips that are made after it make the numbers of k trials at once."""

    def change(trials):
        monkeypatch.setattr("hardware.accumulators.MIN_TRIALS", trials)
        monkeypatch.setattr("hardware.accumulators.MAX_TRIALS", trials)

    return change


@pytest.mark.parametrize("key", VALUES)
def test_no_bit_depends_on_how_many_trials_are_made_at_once_or_on_the_split(small, together, key):
    value, more = VALUES[key]
    changes = {
        key: value,
        **more,
        "synapses_per_tile": 7,
        "summing_line.bits": 8,
        "summing_line.range": 0.1,
        "error_unit.bits": 9,
    }
    options = {**(REGISTERS if "lfsr" in key else OPTIONS), "fidelity": "event"}
    together(1)
    expected = numbers(chip_of(small, changes, **options), 60)
    for trials, runs in ((7, [60]), (256, [60]), (256, [3, 57]), (16, [1, 20, 39])):
        together(trials)
        assert_equal(numbers(chip_of(small, changes, **options), *runs), expected)
    other = numbers(chip_of(small, changes, **{**options, "seed": 5}), 60)
    assert (other[0] != expected[0]).mean() > 0.5


@pytest.mark.parametrize("method, code, presentation", TRIPLES[::3])
def test_so_it_is_for_every_kind_of_method_code_and_presentation(
    small, together, method, code, presentation
):
    changes = {
        "perturbation.tau_ns": 150.0,
        "error_unit.noise": 0.02,
        "error_unit.flicker": 0.01,
        "synapses_per_tile": 10,
    }
    options = {
        "method": method,
        "code": code,
        "presentation": presentation,
        "sigma": 0.05,
        "r": 0.05,
        "fidelity": "event",
    }
    together(1)
    expected = numbers(chip_of(small, changes, **options), 50)
    together(256)
    assert_equal(numbers(chip_of(small, changes, **options), 2, 48), expected)


@pytest.mark.parametrize(
    "layers, patterns",
    [([2, 2, 1], 4), ([30, 32], 1), ([40, 17, 33, 5], 3), ([100, 98, 1], 1), ([3, 1], 130)],
)
def test_so_it_is_for_products_of_matrices_of_every_shape(together, layers, patterns):
    rng = np.random.default_rng(0)
    net = MLP(layers, "tanh", "logistic")
    objective = net.objective(
        rng.standard_normal((patterns, layers[0])), rng.random((patterns, layers[-1]))
    )
    point = objective, net.init(0), rng.standard_normal(net.n_weights)
    together(1)
    expected = numbers(chip_of(point, fidelity="event", method="covariance", code="gaussian"), 40)
    for trials in (2, 3, 33, 40):
        together(trials)
        assert_equal(
            numbers(chip_of(point, fidelity="event", method="covariance", code="gaussian"), 40),
            expected,
        )


def test_so_it_is_for_a_graph(together):
    net = DAG(5, [(0, 2), (1, 2), (0, 3), (2, 3), (2, 4), (3, 4)], inputs=[0, 1], outputs=[4])
    point = (
        net.objective([[1.0, -1.0], [0.5, 2.0]], [[0.3], [-0.2]]),
        net.init(0),
        np.ones(net.n_weights),
    )
    found = []
    for trials in (1, 50):
        together(trials)
        found.append(
            numbers(chip_of(point, {"error_unit.noise": 0.02}, fidelity="event", code="walsh"), 50)
        )
    assert_equal(*found)


def test_three_trials_and_a_thousand_are_a_thousand_and_three(small):
    changes = {
        "perturbation.tau_ns": 150.0,
        "error_unit.noise": 0.01,
        "bus.word_bits": 8,
        "bus.dE_range": 1.0,
    }
    whole, parts = (
        chip_of(small, changes, fidelity="event", trace_trials=1003, **OPTIONS) for _ in range(2)
    )
    assert_equal(numbers(parts, 3, 1000), numbers(whole, 1003))
    assert (parts.time_s, parts.energy_j, parts.trace) == (
        whole.time_s,
        whole.energy_j,
        whole.trace,
    )


def test_what_is_left_of_a_perturbation_is_carried_from_one_lot_to_the_next(small, together):
    # without it, the first evaluation of each lot is off
    changes = {"perturbation.tau_ns": 150.0}
    together(8)
    kept, lost = (chip_of(small, changes, fidelity="event", **OPTIONS) for _ in range(2))
    settle = lost.accumulators.flush

    def forgetful():
        settle()
        lost.datapath.displaced = np.zeros_like(lost.datapath.displaced)

    lost.accumulators.flush = forgetful
    assert (numbers(kept, 40)[0] != numbers(lost, 40)[0]).mean() > 0.5


@pytest.mark.parametrize("runs", [[1], [300], [7, 293]])
def test_only_the_trials_that_were_run_are_tallied(small, runs):
    changes = {
        "error_unit.bits": 8,
        "error_unit.range": 2.0,
        "bus.word_bits": 8,
        "bus.dE_range": 1.0,
        "bus.s_range": 1.0,
        "bus.drop_probability": 0.1,
        "synapses_per_tile": 10,
    }
    chip = chip_of(small, changes, fidelity="event", **OPTIONS)
    tally, K = numbers(chip, *runs)[-1], sum(runs)
    # two evaluations of five patterns, dE for g and for z, dw.v, three tiles
    assert (tally["readings"], tally["dE, all"], tally["s, all"], tally["broadcasts"]) == (
        10 * K,
        2 * K,
        K,
        3 * K,
    )


@pytest.mark.parametrize("trials", [334, 400, 600])  # found at the end of the run, or in its middle
def test_a_trial_that_is_not_finite_is_named_wherever_it_stands_among_others(small, trials):
    def sometimes(seed, trial, start, stop):
        D = np.random.default_rng([seed, trial]).standard_normal(1000)[start:stop]
        return D * (np.inf if (seed, trial) == (4, 333) else 1.0)

    code = CODES["gaussian"].from_function("sometimes", sometimes, 3.0, 15.0)
    chip = chip_of(small, {}, fidelity="event", **{**OPTIONS, "code": code})
    with pytest.raises(InputError, match="in trial 333 of"), np.errstate(all="ignore"):
        chip.run(trials)


def test_broadcasts_that_meet_other_perturbations_are_summed_with_those(small, together):
    # 40 us late: two trials, of which a FIFO of two has lost the first
    changes = {"bus.latency_ns": 40_000, "synapse.fifo_depth": 2, "synapses_per_tile": 9}
    found = []
    for trials in (1, 30):
        together(trials)
        found.append(numbers(chip_of(small, changes, fidelity="event", **OPTIONS), 30))
    assert_equal(*found)
    chip = chip_of(small, changes, fidelity="event", **OPTIONS)
    chip.run(30)
    D = naive_D(chip, range(31))
    assert chip.tiles[0].overflowed
    np.testing.assert_allclose(chip.statistics.sums[0], D[1:].sum(0), rtol=1e-12, atol=1e-14)
    assert np.abs(chip.statistics.sums[0] - D[:-1].sum(0)).max() > 1e-3


def naive_D(chip, trials):
    design = chip.design
    return np.array(
        [
            naive.perturbation(design.code.name, design.n_weights, design.sigma, design.seed, t)
            for t in trials
        ]
    )


def test_late_updates_write_the_same_weights_however_many_trials_are_made_at_once(together):
    net = MLP([2, 2, 1], output="logistic")
    objective = net.objective([[-1.0, -1.0], [1.0, -1.0]], [[0.0], [1.0]])
    params = load_experiment(
        "xor", {"chip.bus.latency_ns": 20_000, "chip.perturbation.tau_ns": 100.0}
    ).chip
    plan, w = Plan(eta=0.2, seed=7, trials_per_update=5), np.array([net.init(0)])
    found = []
    for trials in (1, 256):
        together(trials)
        state = begin(w, plan)
        OnChip(params, objective, plan, w, True, False).advance(state, 20)
        found.append(state.w)
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0] - w).max() > 1e-3


def test_the_collector_of_cycles_is_left_as_it_was(small):
    before = gc.get_threshold()
    chip_of(small, fidelity="event", **OPTIONS).run(3)
    assert gc.get_threshold() == before


# ---- kernels against their slow twins


def test_normals_of_many_keys_are_those_of_each():
    trials, phases, found = np.array([3, 5, 5, 2**40]), np.array([0, 1, 20, 3]), np.empty((4, 7))
    normals_each(np.uint64(9), 48, trials, phases, found)
    expected = [
        [naive.normal(9, 48, int(t), int(p), i) for i in range(7)]
        for t, p in zip(trials, phases, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("code", CODES)
def test_perturbations_of_many_trials_are_those_of_each(code):
    trials = np.array([0, 1, 5, 5, 200, 7])
    found = CODES[code].draw_each(11, 0.1, 3, trials)
    np.testing.assert_array_equal(
        found, [CODES[code].draw(11, 0.1, 3, int(trial)) for trial in trials]
    )
    if code != "measured":
        np.testing.assert_allclose(found[2], naive.perturbation(code, 11, 0.1, 3, 5), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_many_broadcasts_are_summed_as_one_after_the_other(method):
    rng, method = np.random.default_rng(0), METHODS[method]
    D, v, (y, u) = (
        rng.standard_normal((9, 13)),
        rng.standard_normal(13),
        rng.standard_normal((2, 9)),
    )
    s, kind, kappa = (
        dot_rows(D, v) if method.needs_s else np.zeros(9),
        REGRESSORS[method.regressor],
        0.4,
    )
    np.testing.assert_allclose(s, D @ v if method.needs_s else 0.0, rtol=1e-12)
    found, one, totals = np.zeros((len(SUMS), 13)), np.zeros((len(SUMS), 13)), np.zeros(len(TOTALS))
    for first, last in pairwise((0, 4, 9)):
        part = slice(first, last)
        add_broadcasts(
            found, totals, D[part], y[part], u[part], s[part], v, float(v @ v), kind, kappa
        )
    for t in range(9):
        add_broadcast(
            one, D[t], (y[t], u[t]), s[t], v, float(v @ v), kind, kappa, np.ones(13, dtype=bool)
        )
    np.testing.assert_allclose(found, one, rtol=1e-12, atol=1e-14)
    V = v @ v
    q = {
        "dw": D,
        "s_dw": s[:, None] * D - kappa * v * D * D,
        "b": s[:, None] / V * (D - s[:, None] * v / (2 * V)),
        "none": 0 * D,
    }
    expected, expected_totals = naive.sums(D, y, u, q[method.regressor], s)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(totals, expected_totals, rtol=1e-12)
