"""Every imperfection of a chip: both engines agree on it, it changes something, and its law
holds.
"""

import numpy as np
import pytest
from fast import fast, thinned
from test_chip import chip_of

from hardware.device_params import load_device
from hardware.params import imperfections, marked
from hardware.timing import Timing
from perturb import MLP, InputError
from sims.experiment.loading import load_experiment

DEVICE = {
    "model": "soft-bounds",
    "step": {"dw_min": 0.01},
    "noise": {"write": 0.05},
    "leak": {"lifetime_s": 0.01},
}
# a value that is felt, and what it needs beside it
VALUES = {
    "perturbation.tau_ns": (150.0, {}),
    "perturbation.bits": (4, {}),
    "perturbation.gain_mismatch": (0.2, {}),
    "perturbation.offset_mismatch": (0.01, {}),
    "perturbation.crosstalk": (0.1, {}),
    "perturbation.lfsr_per": ("tile", {"perturbation.lfsr_bits": 6}),
    "weights.bits": (5, {}),
    "weights.device": (DEVICE, {}),
    "weights.reference_error": (
        0.05,
        {"weights.device": DEVICE, "weights.reference": "symmetry"},
    ),
    "weights.read_noise": (0.01, {}),
    "weights.stuck_fraction": (0.2, {"weights.stuck_value": 0.5}),
    "weights.dead_fraction": (0.2, {}),
    "weights.leak_tau_s": (0.01, {}),
    "weights.drift_exponent": (5.0, {}),
    "array.rows": (2, {"array.output_bits": 6}),
    "array.columns": (2, {"array.wire_resistance": 0.01}),
    "array.input_bits": (5, {"array.input_range": 2.0}),
    "array.output_bits": (6, {}),
    "array.output_noise": (0.01, {}),
    "array.wire_resistance": (0.01, {"array.rows": 4}),
    "neuron.gain_mismatch": (0.1, {}),
    "neuron.offset_mismatch": (0.1, {}),
    "neuron.noise": (0.01, {}),
    "neuron.saturation": (0.5, {}),
    "neuron.crosstalk": (0.1, {}),
    "error_unit.noise": (0.01, {}),
    "error_unit.flicker": (0.01, {}),
    "error_unit.offset": (0.1, {"error_unit.bits": 8}),
    "error_unit.bits": (6, {"error_unit.dither": True}),
    "error_unit.one_bit": (True, {}),
    "error_unit.baseline_every": (7, {"error_unit.noise": 0.01}),
    "summing_line.noise": (0.05, {}),
    "summing_line.gain_error": (0.3, {}),
    "summing_line.bits": (4, {}),
    "bus.drop_probability": (0.3, {}),
    "bus.dE_range": (0.5, {"bus.word_bits": 6}),
    "bus.s_range": (0.5, {"bus.word_bits": 6}),
    "synapse.offset_mismatch": (0.02, {}),
    "synapse.leak": (0.05, {}),
    "synapse.sum_range": (0.2, {}),
    "faults.dying_fraction": (0.3, {"faults.dying_trial": 20}),
    "faults.tile": (1, {"faults.tile_trial": 25}),
}
OPTIONS = {"method": "covariance", "code": "gaussian", "sigma": 0.05, "seed": 4}
REGISTERS = {"method": "difference", "code": "lfsr", "sigma": 0.05, "r": 0.05, "seed": 4}


def test_every_imperfection_has_a_value_here():
    assert set(VALUES) == set(marked("imperfection"))


@pytest.mark.parametrize("key", thinned(VALUES, 3))
def test_events_batches_and_auto_agree_and_differ_from_the_ideal_chip(small, key):
    value, more = VALUES[key]
    changes = {key: value, **more, "synapses_per_tile": 7}
    options = REGISTERS if "lfsr" in key else OPTIONS
    found = {}
    for fidelity in ("event", "batch", "auto"):
        chip = chip_of(small, changes, fidelity=fidelity, **options)
        found[fidelity] = chip.run(60), chip
    assert set(imperfections(chip.params)) >= {key}
    ideal = chip_of(small, {**more, "synapses_per_tile": 7}, fidelity="event", **options).run(60)
    event, chip = found["event"]
    for fidelity in ("batch", "auto"):
        other, chip_ = found[fidelity]
        for name in ("gradient", "hv", "gradient_stderr", "hv_stderr"):
            a, b = getattr(event, name), getattr(other, name)
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9 * np.nanmax(np.abs(a)))
        assert (chip_.time_s, chip_.energy_j) == pytest.approx(
            (chip.time_s, chip.energy_j), rel=1e-12
        )
    assert (
        max(
            np.abs(event.hv - ideal.hv).max() / np.abs(ideal.hv).max(),
            np.abs(event.gradient - ideal.gradient).max(),
        )
        > 1e-4
    )
    # any split gives the same bits
    for fidelity in ("event", "batch"):
        parts = chip_of(small, changes, fidelity=fidelity, **options)
        for count in (1, 22, 37):
            last = parts.run(count)
        np.testing.assert_array_equal(last.hv, found[fidelity][0].hv)


@pytest.mark.parametrize(
    "method, code",
    [
        ("antithetic", "ternary"),
        ("difference", "walsh"),
        ("pearlmutter", "gaussian"),
        ("central", "lfsr"),
    ],
)
@pytest.mark.parametrize("presentation", fast(["batch", "pattern"], "pattern"))
def test_many_imperfections_at_once_agree_too(small, method, code, presentation):
    changes = {
        "perturbation.tau_ns": 100.0,
        "perturbation.gain_mismatch": 0.1,
        "weights.read_noise": 1e-3,
        "neuron.noise": 1e-3,
        "weights.leak_tau_s": 0.1,
        "error_unit.flicker": 1e-3,
        "error_unit.bits": 12,
        "error_unit.dither": True,
        "summing_line.noise": 1e-3,
        "bus.drop_probability": 0.1,
        "bus.skew_ns": 300,
        "bus.jitter_ns": 100,
        "synapse.leak": 0.01,
        "synapses_per_tile": 5,
        "weights.dead_fraction": 0.1,
        "perturbation.lfsr_per": "tile",
    }
    options = {"method": method, "code": code, "sigma": 0.05, "presentation": presentation}
    event, batch = (
        chip_of(small, changes, fidelity=fidelity, **options).run(70)
        for fidelity in ("event", "batch")
    )
    for name in ("gradient", "hv"):
        a, b = getattr(event, name), getattr(batch, name)
        np.testing.assert_allclose(
            b, a, rtol=1e-9, atol=1e-9 * (np.nanmax(np.abs(a)) if np.isfinite(a).any() else 1)
        )


@pytest.mark.parametrize("jitter_ns", [300, 12_000, 55_000])
def test_time_and_energy_agree_with_jitter_within_a_trial_and_beyond(small, jitter_ns):
    # trials take 20.7 us. Nothing overtakes on a bus: a broadcast that is held up holds up those
    # behind it
    changes = {
        "bus.jitter_ns": jitter_ns,
        "bus.skew_ns": 90,
        "synapses_per_tile": 7,
        "synapse.fifo_depth": 5,
    }
    chips = {
        fidelity: chip_of(small, changes, fidelity=fidelity, **OPTIONS)
        for fidelity in ("event", "batch", "auto")
    }
    ideal = chip_of(small, {}, fidelity="event", **OPTIONS).run(57)
    for chip in chips.values():
        for trials in (1, 20, 36):
            found = chip.run(trials)
        np.testing.assert_allclose(
            found.hv, ideal.hv, rtol=1e-9, atol=1e-12
        )  # aligned, however late
        assert chip.time_s == chips["event"].time_s
        assert chip.energy_by_cause == chips["event"].energy_by_cause
    assert chips["batch"].events < chips["event"].events
    lossy = {**changes, "bus.jitter_ns": 120_000}
    with pytest.raises(InputError, match="bus.jitter_ns = 120000 outlasts the FIFO of 5"):
        chip_of(small, lossy, fidelity="batch", **OPTIONS).run(10)
    event, auto = (
        chip_of(small, lossy, fidelity=fidelity, **OPTIONS) for fidelity in ("event", "auto")
    )
    np.testing.assert_array_equal(event.run(200).hv, auto.run(200).hv)
    assert "broadcasts came too late for the FIFO and met the wrong perturbation" in event.incidents


def test_fabrication_is_of_the_die_and_operation_of_the_seed(small):
    mismatch = dict.fromkeys(
        (
            "perturbation.gain_mismatch",
            "perturbation.offset_mismatch",
            "neuron.gain_mismatch",
            "neuron.offset_mismatch",
            "synapse.offset_mismatch",
            "weights.stuck_fraction",
            "weights.dead_fraction",
            "faults.dying_fraction",
        ),
        0.5,
    )
    noise = {
        "error_unit.noise": 0.1,
        "weights.read_noise": 0.1,
        "neuron.noise": 0.1,
        "summing_line.noise": 0.1,
    }

    def made(die, seed):
        found = chip_of(small, {**mismatch, "die": die}, **{**OPTIONS, "seed": seed}).parts.die
        return np.concatenate(
            [
                found.gain,
                found.offset,
                found.multiplier,
                found.stuck,
                found.alive,
                found.dying,
                *found.neurons[0],
            ]
        )

    def operated(die, seed):
        values = chip_of(small, {**noise, "die": die}, **{**OPTIONS, "seed": seed})
        readings = values.batches.readings([(0, 0), (0, 1), (1, 0)], np.zeros((3, small[1].size)))
        assert len(set(readings)) == 3  # every use has its own
        return [*readings, *values.parts.line.total(small[1][None], range(1))]

    for of, same, other in ((made, (3, 8), (4, 7)), (operated, (4, 7), (3, 8))):
        np.testing.assert_array_equal(of(*same), of(3, 7))
        assert (
            np.array(of(*other)) != of(3, 7)
        ).mean() > 0.4  # of yes or no, half are the same by chance


# ---- laws


@pytest.fixture
def slope():
    """A linear E of 24 weights: one pattern, linear unit; dE is linear in dw but for a term of
    sigma^2.
    """
    rng = np.random.default_rng(3)
    net = MLP([23, 1])
    objective = net.objective(rng.standard_normal((1, 23)), [[40.0]])
    return objective, net.init(0), rng.standard_normal(24)


def run_batch(point, changes, trials, **options):
    return chip_of(point, changes, fidelity="batch", **options).run(trials)


def test_a_multiplier_offset_biases_by_mean_dE_and_pairs_remove_it(small):
    changes, none, K = {"synapse.offset_mismatch": 0.5}, {"error_unit.offset": 1e-300}, 3000
    offsets = chip_of(small, changes).parts.die.multiplier
    options = {"code": "rademacher", "sigma": 0.3}
    # the same draws: the difference is the offset's alone
    for method in ("forward", "central"):
        biased, ideal = (run_batch(small, c, K, method=method, **options) for c in (changes, none))
        mean = ideal.statistics.totals[0] / K
        np.testing.assert_allclose(
            biased.gradient - ideal.gradient, offsets * mean / 0.3**2, rtol=1e-6, atol=1e-10
        )
        noise = np.sqrt(ideal.statistics.totals[2]) / K
        assert (abs(mean) > 5 * noise) == (method == "forward")  # of a pair, dE has mean zero


def test_sums_saturate_at_their_range_and_round_what_is_added(slope):
    objective, w, v = slope
    sigma, options = 1e-2, {"method": "central", "code": "rademacher", "sigma": 1e-2}
    limited = chip_of(slope, {"synapse.sum_range": 5.0}, **options)
    limited.run(400)
    free = chip_of(slope, {"error_unit.offset": 1e-300}, **options)
    free.run(400)
    xy = 5  # the row of dw dE
    assert np.abs(limited.statistics.sums[xy]).max() == pytest.approx(5.0 * sigma)
    assert np.abs(free.statistics.sums[xy]).max() > 5.0 * sigma
    rounded = chip_of(slope, {"synapse.sum_range": 1e4, "synapse.sum_bits": 24}, **options)
    rounded.run(400)
    step = 2e4 * sigma / 2**24
    # each of 400 additions is off by less than half a step
    assert np.abs(rounded.statistics.sums[xy] - free.statistics.sums[xy]).max() <= 200 * step
    assert (
        np.abs(
            rounded.statistics.sums[xy] / step % 1.0
            - np.round(rounded.statistics.sums[xy] / step % 1.0)
        ).max()
        < 1e-4
    )


def test_stuck_weights_are_not_felt_and_the_rest_is_estimated_where_they_are_stuck(linear):
    objective, w, v = linear
    changes = {"weights.stuck_fraction": 0.4, "weights.stuck_value": 0.7}
    chip = chip_of(linear, changes, method="difference", code="walsh", sigma=0.1, r=0.1)
    found, stuck = chip.run(64), chip.parts.die.stuck
    assert 0 < stuck.sum() < stuck.size
    at = np.where(stuck, 0.7, w)
    g, H = objective.gradient(at), objective.hessian(at)
    np.testing.assert_allclose(found.gradient, np.where(stuck, 0.0, g), atol=1e-9)
    free = np.where(stuck, 0.0, v)  # a stuck weight is not displaced by r v either
    np.testing.assert_allclose(found.hv, np.where(stuck, 0.0, H @ free), atol=1e-8)
    assert np.abs(H @ free - H @ v)[~stuck].max() > 0.01


@pytest.mark.parametrize("method", ["difference", "difference_2point"])
@pytest.mark.parametrize(
    "changes", [{"weights.dead_fraction": 0.4}, {"faults.tile": 1, "synapses_per_tile": 3}]
)
def test_synapses_that_do_not_work_displace_no_weight(linear, method, changes):
    objective, w, v = linear
    for fidelity in ("event", "batch"):
        chip = chip_of(
            linear, changes, method=method, code="walsh", sigma=0.1, r=0.1, fidelity=fidelity
        )
        found, works = chip.run(64), chip.parts.health.working(0)
        assert 0 < works.sum() < works.size
        free, H = np.where(works, v, 0.0), objective.hessian(w)
        np.testing.assert_allclose(found.hv, np.where(works, H @ free, 0.0), atol=1e-8)
        assert np.abs(H @ free - H @ v)[works].max() > 0.01


def test_dead_synapses_know_nothing_and_a_tile_without_power_loses_its_sums(linear):
    dead = chip_of(linear, {"weights.dead_fraction": 0.4}, code="gaussian", sigma=0.1)
    found, alive = dead.run(50), dead.parts.die.alive
    assert 0 < alive.sum() < alive.size
    assert (found.gradient[~alive] == 0).all() and np.isnan(found.gradient_stderr[~alive]).all()
    assert (found.gradient[alive] != 0).all()
    off = chip_of(
        linear,
        {"faults.tile": 1, "faults.tile_trial": 30, "synapses_per_tile": 3},
        code="gaussian",
        sigma=0.1,
    )
    before, after = off.run(30).gradient, off.run(30).gradient
    assert (
        (before != 0).all() and (after[3:6] == 0).all() and (np.delete(after, [3, 4, 5]) != 0).all()
    )


@pytest.mark.slow
def test_leaky_sums_weigh_recent_trials_more_and_say_how_many_they_are_worth(linear):
    objective, w, v = linear
    options = {"method": "central", "code": "gaussian", "sigma": 0.1}
    runs = [
        run_batch(linear, {"synapse.leak": 0.02}, 600, seed=seed, **options) for seed in range(60)
    ]
    g = np.array([run.gradient for run in runs])
    claimed = np.sqrt(np.mean([run.gradient_stderr**2 for run in runs], axis=0))
    assert (np.abs(g.mean(0) - objective.gradient(w)) < 5 * claimed / np.sqrt(60)).all()
    assert np.mean(g.std(0, ddof=1) / claimed) == pytest.approx(1, abs=0.15)  # 60 values: 9 % each
    whole = run_batch(linear, {"error_unit.offset": 1e-300}, 600, **options)
    assert np.mean(claimed / whole.gradient_stderr) > 2  # 600 trials are worth 99


def test_lost_broadcasts_scale_the_estimate_down_and_skew_only_delays(linear):
    objective, w, v = linear
    g, changes = objective.gradient(w), {"bus.drop_probability": 0.25, "synapses_per_tile": 1}
    lost = run_batch(linear, changes, 6000, method="central", code="gaussian", sigma=0.1)
    # sums of three quarters of the trials over the number of all; each synapse loses its own
    assert (np.abs(lost.gradient - 0.75 * g) < 5 * lost.gradient_stderr).all()
    assert (np.abs(lost.gradient - g) > 5 * lost.gradient_stderr).any()
    plain, late = (
        chip_of(linear, {"synapses_per_tile": 2, "bus.skew_ns": skew}, fidelity="event")
        for skew in (0, 4000)
    )
    np.testing.assert_array_equal(plain.run(20).hv, late.run(20).hv)
    assert late.time_s - plain.time_s == pytest.approx(4000e-9)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"clock.evaluation_ns": 1000},
            "cannot hold an evaluation of 5 patterns, which takes 10200 ns: 9200 ns too short",
        ),
        (
            {"perturbation.tau_ns": 1e5},
            r"settle_ns = 200 is less than a hundredth of tau_ns = 100000, so that hardly",
        ),
        (
            {"perturbation.tau_ns": 50.0, "perturbation.settle_ns": 0},
            "settle_ns = 0 is less than a hundredth of tau_ns = 50",
        ),
        (
            {"clock.broadcast_ns": 100},
            "cannot hold what is left to send after the last evaluation, which takes 160 ns: 60 ns",
        ),
        ({"faults.tile": 1}, "the chip has tiles 0 to 0"),
        ({"error_unit.baseline_every": 3}, "would compare the errors of different patterns"),
    ],
)
def test_a_clock_or_a_fault_that_does_not_fit_is_one_line(small, changes, message):
    presentation = "pattern" if "error_unit.baseline_every" in changes else "batch"
    with pytest.raises(InputError, match=message):
        chip_of(small, changes, method="covariance", code="gaussian", presentation=presentation)


def test_a_clock_that_holds_the_schedule_sets_the_trial_rate(small):
    changes = {"clock.evaluation_ns": 20_000, "clock.broadcast_ns": 1000}
    chip = chip_of(small, changes, method="covariance", code="gaussian")
    chip.run(1000)
    assert chip.time_s == pytest.approx(1000 * 41e-6 + 150e-9)


# ---- refresh of weights that leak


def starts(chip):
    """When the trials of the trace began."""
    first = {}
    for interval in chip.trace:
        if interval.action != "refresh":
            first[interval.trial] = min(
                interval.start_ns, first.get(interval.trial, interval.start_ns)
            )
    return [first[trial] for trial in sorted(first)]


REFRESHED = {"weights.leak_tau_s": 0.005, "weights.refresh_s": 4e-4, "energy.weight_write_j": 1e-9}


@pytest.mark.parametrize(
    "more", [{}, {"weights.drift_exponent": 2.0, "weights.stuck_fraction": 0.3, "weights.bits": 5}]
)
def test_refreshed_weights_decay_from_their_stored_values_again_and_again(small, more):
    chip = chip_of(small, {**REFRESHED, **more}, fidelity="event", trace_trials=60, **OPTIONS)
    chip.run(60)
    weights, nu = chip.parts.array.weights, chip.params.weights.drift_exponent
    times = 1e-9 * np.array(starts(chip))
    assert (
        times[-1] > 3 * 4e-4 and 4e-4 > 10 * np.diff(times).max()
    )  # three teeth and more, many trials to each
    for trial, t in enumerate(times):
        age = t - 4e-4 * int(t / 4e-4)
        decayed = weights.stored * np.exp(-age / 0.005) * (1 + age) ** -nu
        np.testing.assert_allclose(
            weights.weights(chip.live.starts_ns[trial], trial),
            np.where(chip.parts.die.stuck, weights.stored, decayed),
            rtol=1e-12,
        )
    if more:  # what is stored, and written again, has as many levels as a weight has bits
        step = 8.0 / 2**5
        np.testing.assert_allclose(
            weights.stored / step,
            np.round(weights.stored / step),
            atol=1e-9,
        )


@pytest.mark.parametrize("method", ["central", "covariance"])
def test_a_refresh_is_counted_alike_at_every_fidelity_and_split(small, method):
    options = {**OPTIONS, "method": method}
    found = {}
    for name, fidelity, parts in (
        ("event", "event", [300]),
        ("batch", "batch", [300]),
        ("auto", "auto", [300]),
        ("split", "auto", [1, 2, 90, 207]),
    ):
        chip = chip_of(small, REFRESHED, fidelity=fidelity, **options)
        for trials in parts:
            estimate = chip.run(trials)
        found[name] = estimate, chip
        # by hand: every weight, as often as a period has passed
        refreshes = int(chip.time_s / 4e-4)
        assert refreshes >= 5
        assert chip.energy_by_cause["refresh"] == pytest.approx(
            small[1].size * refreshes * 1e-9, rel=1e-12
        )
    event, chip = found["event"]
    for estimate, other in found.values():
        np.testing.assert_allclose(estimate.gradient, event.gradient, rtol=1e-9, atol=1e-12)
        assert other.energy_by_cause["refresh"] == chip.energy_by_cause["refresh"]
        assert (other.time_s, other.energy_j) == (
            chip.time_s,
            pytest.approx(chip.energy_j, rel=1e-12),
        )
    schedule = Timing(
        chip.params, chip.objective, chip.design.method, chip.presented
    )  # of the mean rate: to one refresh
    assert schedule.energy_j(300) == pytest.approx(chip.energy_j, abs=1.01e-9 * small[1].size)


def test_a_refresh_undoes_most_of_a_leak_and_shows_on_the_timeline(slope):
    objective, w, v = slope
    options, leak = (
        {"method": "central", "code": "walsh", "sigma": 1e-3},
        {"weights.leak_tau_s": 0.01},
    )
    g, found = objective.gradient(w), {}
    for name, changes in (("leaks", leak), ("refreshed", {**leak, "weights.refresh_s": 1e-4})):
        found[name] = chip_of(slope, changes, **options)
        found[name].run(3200)
    error = {
        name: np.linalg.norm(chip.statistics.sums[5] / 3200 / 1e-6 - g)
        for name, chip in found.items()
    }
    assert error["refreshed"] < 0.05 * error["leaks"]
    assert "refresh" not in found["leaks"].energy_by_cause
    shown = chip_of(
        slope, {**leak, "weights.refresh_s": 5e-6}, trace_trials=4, fidelity="event", **options
    )
    shown.run(4)
    moments = [
        interval.start_ns
        for interval in shown.trace
        if interval.action == "refresh" and interval.trial < 3
    ]
    assert moments == [5000 * (k + 1) for k in range(starts(shown)[3] // 5000)] and len(moments) > 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"weights.refresh_s": 0.1}, "refresh_s = 0.1 has nothing to refresh"),
        (
            {"weights.refresh_s": 1e-9, "weights.leak_tau_s": 1.0},
            "refresh_s = 1e-09 must be 0 .never. or at least 1e-6",
        ),
    ],
)
def test_a_refresh_of_nothing_or_all_the_time_is_one_line(changes, message):
    with pytest.raises(InputError, match=f"xor.toml with --set: chip.weights.{message}") as caught:
        load_experiment("xor", {f"chip.{key}": value for key, value in changes.items()})
    assert "\n" not in str(caught.value)


def test_a_reading_is_off_by_a_step_over_the_root_of_twelve(slope):
    # E at 4,000 points that lie many steps apart: what rounding adds is uniform, of variance
    # step^2/12
    objective, w, v = slope
    changes = {"error_unit.bits": 12, "error_unit.range": 4.096e3}
    points = 0.2 * np.random.default_rng(5).standard_normal((4000, w.size))
    evaluations = [(trial, 0) for trial in range(4000)]
    exact, read = (
        chip_of(slope, c).batches.readings(evaluations, points)
        for c in ({"error_unit.offset": 1e-300}, changes)
    )
    assert exact.std() > 20 and exact.max() < 4000
    off = read - exact
    assert np.abs(off).max() <= 0.5 + 1e-9 and abs(off.mean()) < 5 / np.sqrt(12 * 4000)
    # a uniform number has E x^4 = 1/80, so its square is known to sqrt((1/80 - 1/144)/4000)
    assert abs((off**2).mean() - 1 / 12) < 5 * np.sqrt((1 / 80 - 1 / 144) / 4000)


@pytest.mark.parametrize(
    "more",
    [
        {"weights.refresh_s": 4e-4, "weights.stuck_fraction": 0.3},
        {"weights.drift_exponent": 0.3, "weights.bits": 5},
        {"weights.device": load_device("reram-gong2018"), "weights.dead_fraction": 0.2},
        {"weights.device": load_device("pcm-nandakumar2020")},
    ],
)
def test_weights_at_several_times_are_those_of_each(small, more):
    """As trials between two writes read them, some written earlier than others."""
    chip = chip_of(small, {"weights.leak_tau_s": 0.005, **more})
    store = chip.parts.array.weights
    store.add(np.where(np.arange(small[1].size) % 2, 0.3, 0.0), 1, 150_000)
    times = [150_000 + 70_001 * k for k in range(12)]
    trials = list(range(5, 17))
    each = np.array([store.weights(t, k) for t, k in zip(times, trials, strict=True)])
    found = store.weights_at(times, trials)
    np.testing.assert_array_equal(found, each)
    assert len(np.unique(found, axis=0)) == 12
