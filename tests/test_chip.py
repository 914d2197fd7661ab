"""The chip in time."""

import itertools
from inspect import signature

import numpy as np
import pytest
from fast import fast, thinned
from test_codes import LOGISTIC

import perturb
from hardware import Chip, load_chip
from hardware.params import ChipParams
from perturb import CODES, DAG, METHODS, MLP, InputError, compare, estimate, predict, solve
from perturb.trial.codes import lfsr
from perturb.trial.synapse import accumulate


def chip_of(point, changes=None, **options):
    """An ideal chip with tables of parameters changed."""
    table = ChipParams().model_dump()
    for key, value in (changes or {}).items():
        part, _, name = key.rpartition(".")
        (table[part] if part else table)[name] = value
    return Chip(ChipParams.model_validate(table), *point, **options)


@pytest.fixture
def two_synapses():
    """One unit with a weight and a bias, one pattern."""
    return MLP([1, 1]).objective([[1.0]], [[2.0]]), np.array([0.5, 0.1]), np.array([1.0, 0.5])


def test_timeline_of_a_chip_with_two_synapses(two_synapses):
    chip = chip_of(
        two_synapses,
        {"synapses_per_tile": 1},
        method="pearlmutter",
        code="rademacher",
        trace_trials=1,
    )
    chip.run(1)
    assert [tuple(interval)[1:] for interval in chip.trace] == [
        (-1, 0, 0, "tile 0", "draw dw"),
        (-1, 0, 0, "tile 1", "draw dw"),
        (-1, 0, 1500, "summing line", "sum and convert dw.v"),
        (-1, 1500, 1660, "bus", "broadcast dw.v"),
        (0, 0, 200, "perturbation", "settle at w +0 D +0 rv"),
        (0, 200, 1700, "array and error unit", "settle and read 1 pattern"),
        (1, 1700, 1900, "perturbation", "settle at w +1 D +0 rv"),
        (1, 1900, 3400, "array and error unit", "settle and read 1 pattern"),
        (-1, 3400, 3560, "bus", "broadcast dE"),
        (-1, 3660, 3710, "tile 0", "accumulate"),
        (-1, 3660, 3710, "tile 1", "accumulate"),
    ]
    assert chip.time_s == pytest.approx(3710e-9)


@pytest.mark.parametrize(
    "line_ns, first, words, end_ns",
    [  # two evaluations of 1700 ns, words of 160
        (
            1000,
            "dE",
            [("dw.v", 1000), ("dE", 3400)],
            3560,
        ),  # long before: beside the second evaluation
        (3300, "dE", [("dw.v", 3300), ("dE", 3460)], 3620),  # dE waits for a word that has begun
        (3400, "dE", [("dE", 3400), ("dw.v", 3560)], 3720),  # both at once
        (3400, "dw.v", [("dw.v", 3400), ("dE", 3560)], 3720),
        (3450, "dw.v", [("dE", 3400), ("dw.v", 3560)], 3720),  # dw.v waits
        (
            5000,
            "dE",
            [("dE", 3400), ("dw.v", 5000)],
            5160,
        ),  # dE is sent while the line still settles
    ],
)
def test_dE_and_dw_v_contend_for_the_bus(two_synapses, line_ns, first, words, end_ns):
    changes = {
        "summing_line.settle_ns": line_ns,
        "summing_line.conversion_ns": 0,
        "bus.first": first,
    }
    chip = chip_of(two_synapses, changes, method="pearlmutter", code="rademacher", trace_trials=2)
    chip.run(1)
    sent = [
        (interval.action.split()[1], interval.start_ns)
        for interval in chip.trace
        if interval.unit == "bus"
    ]
    assert sent == words
    chip.run(9)
    second = min(interval.start_ns for interval in chip.trace if interval.trial == 1)
    assert second == end_ns == chip.timing.trial_ns
    assert chip.time_s == pytest.approx(10 * end_ns * 1e-9 + 150e-9)
    assert chip.timing.overlapped_ns == max(0, min(160, 3400 - line_ns))


def test_energy_is_what_a_hand_count_gives(two_synapses):
    chip = chip_of(
        two_synapses,
        {"energy.static_w": 0.0},
        method="pearlmutter",
        code="rademacher",
        fidelity="event",
    )
    chip.run(1)
    # two synapses, two evaluations of one pattern (one perturbed, one not again), two words of 16
    # bits, three conversions
    expected = {
        "perturbation": 2 * 2 * 10e-15,
        "mac": 2 * 2 * 1e-12,
        "conversion": 3 * 20e-12,
        "broadcast_bit": 32 * 50e-15,
        "accumulate": 2 * 20e-15,
        "static": 0.0,
    }
    assert chip.energy_by_cause == pytest.approx(expected, rel=1e-12)
    assert chip.energy_j == pytest.approx(sum(expected.values()), rel=1e-12)
    static = chip_of(two_synapses, method="pearlmutter", code="rademacher", fidelity="event")
    static.run(1)
    assert static.energy_by_cause["static"] == pytest.approx(1e-3 * 3710e-9)


def test_a_perturbation_is_charged_when_it_comes_and_when_it_goes(two_synapses):
    # E(w + dw), and E(w) in every trial or in one of five: every evaluation has another
    # perturbation than that before
    for every, evaluations in ((1, 20), (5, 12)):
        changes = {"error_unit.baseline_every": every, "energy.perturbation_j": 1e-9}
        options = {"method": "forward", "code": "rademacher", "fidelity": "event"}
        chip = chip_of(two_synapses, changes, **options)
        chip.run(10)
        assert chip.energy_by_cause["perturbation"] == pytest.approx(
            2 * evaluations * 1e-9, rel=1e-12
        )
        assert chip.timing.energy_j(10) == pytest.approx(chip.energy_j, rel=1e-9)
    pairs = chip_of(
        two_synapses, {"energy.perturbation_j": 1e-9}, method="central", code="rademacher"
    )
    pairs.run(10)
    assert pairs.energy_by_cause["perturbation"] == pytest.approx(2 * 20 * 1e-9, rel=1e-12)


@pytest.mark.parametrize("fidelity", ["event", "batch"])
def test_a_shared_weight_multiplies_once_for_each_of_its_uses(fidelity):
    edges = [(0, 2), (1, 2), (0, 3), (1, 3), (2, 4), (3, 4)]
    x, target = [[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]], [[0.3], [-0.2], [0.1]]
    for tied, synapses in ((None, 6), ([0, 1, 0, 1, 2, 2], 3)):
        net = DAG(5, edges, inputs=[0, 1], outputs=[4], tied=tied)
        objective = net.objective(x, target).with_decay(0.1) if tied else net.objective(x, target)
        assert objective.n_weights == synapses
        point = objective, net.init(0), np.ones(synapses)
        chip = chip_of(
            point, {"energy.mac_j": 1e-9}, method="central", code="rademacher", fidelity=fidelity
        )
        chip.run(20)
        assert chip.energy_by_cause["mac"] == pytest.approx(20 * 2 * 3 * 6 * 1e-9, rel=1e-12)
        assert chip.energy_by_cause["accumulate"] == pytest.approx(
            20 * synapses * 20e-15, rel=1e-12
        )
        assert chip.timing.energy_j(20) == pytest.approx(
            chip.energy_j, rel=1e-6
        )  # but for the arrival of the last broadcast


def test_a_batch_of_patterns_is_charged_pattern_by_pattern(small):
    times, conversions = {}, {}
    for presentation in ("batch", "pattern"):
        chip = chip_of(small, method="difference", code="rademacher", presentation=presentation)
        chip.run(10)
        times[presentation], conversions[presentation] = (
            chip.time_s,
            chip.energy_by_cause["conversion"],
        )
    # ten trials of four evaluations; four patterns more take two layers' settling and a conversion
    # each
    assert times["batch"] - times["pattern"] == pytest.approx(10 * 4 * 4 * (2 * 500 + 1000) * 1e-9)
    assert conversions["batch"] == pytest.approx(5 * conversions["pattern"])


# every pair that goes together; the two presentations in turn
FITTING = [
    (m, c)
    for m, c in itertools.product(METHODS, CODES)
    if CODES[c].independent or not METHODS[m].needs_s
]
TRIPLES = [(m, c, ("batch", "pattern")[i % 2]) for i, (m, c) in enumerate(FITTING)]


@pytest.mark.parametrize("method, code, presentation", thinned(TRIPLES, 4))
def test_event_and_batch_level_agree(small, method, code, presentation):
    options = {
        "method": method,
        "code": code,
        "presentation": presentation,
        "seed": 3,
        "sigma": 0.05,
        "r": 0.05,
    }
    chips = {}
    for fidelity in ("event", "batch", "auto"):
        chips[fidelity] = chip_of(
            small, {"error_unit.noise": 0.02, "synapses_per_tile": 7}, fidelity=fidelity, **options
        )
        chips[fidelity].run(80)
    event = chips["event"]
    for other in (chips["batch"], chips["auto"]):
        size = np.abs(event.statistics.sums).max(1, keepdims=True) + 1e-300
        np.testing.assert_allclose(
            other.statistics.totals, event.statistics.totals, rtol=1e-9, atol=1e-15
        )
        np.testing.assert_allclose(
            other.statistics.sums / size, event.statistics.sums / size, atol=1e-9
        )
        assert other.time_s == pytest.approx(event.time_s, rel=1e-12)
        assert other.energy_j == pytest.approx(event.energy_j, rel=1e-12)
        assert other.events < event.events


@pytest.mark.parametrize("presentation", ["batch", "pattern"])
def test_event_and_batch_level_agree_for_other_networks(presentation):
    net = DAG(4, [(0, 2), (1, 2), (0, 3), (2, 3)], inputs=[0, 1], outputs=[3])
    point = net.objective([[1.0, -1.0], [0.5, 2.0]], [[0.3], [-0.2]]), net.init(0), np.ones(4)
    options = {"presentation": presentation, "sigma": 0.05, "r": 0.05, "code": "gaussian"}
    event, batch = (
        chip_of(point, {"error_unit.noise": 0.02}, fidelity=fidelity, **options)
        for fidelity in ("event", "batch")
    )
    np.testing.assert_allclose(event.run(150).hv, batch.run(150).hv, rtol=1e-9, atol=1e-9)
    assert event.time_s == pytest.approx(batch.time_s, rel=1e-12)


def test_the_chip_with_converter_agrees_with_the_kernels(small):
    changes = {"error_unit.noise": 0.02, "error_unit.bits": 8, "error_unit.range": 2.0}
    event, batch = (
        chip_of(small, changes, fidelity=fidelity, sigma=0.05, r=0.05)
        for fidelity in ("event", "batch")
    )
    np.testing.assert_allclose(event.run(64).hv, batch.run(64).hv, rtol=1e-9, atol=1e-9)


def test_an_ideal_chip_is_the_ideal_estimate(small):
    options = {"method": "covariance", "code": "ternary", "sigma": 0.05, "seed": 8}
    np.testing.assert_array_equal(
        chip_of(small, fidelity="batch", **options).run(500).hv,
        estimate(*small, 500, precision="float64", **options).hv,
    )


@pytest.mark.parametrize("fidelity", ["event", "auto", "batch"])
def test_any_split_of_a_run_gives_the_same_estimate_time_and_energy(small, fidelity):
    options = {"code": "gaussian", "sigma": 0.05, "r": 0.05, "fidelity": fidelity}
    whole, parts = chip_of(small, **options), chip_of(small, **options)
    expected = whole.run(100)
    for count in (1, 2, 30, 67):
        found = parts.run(count)
    np.testing.assert_allclose(found.hv, expected.hv, rtol=1e-12, atol=1e-12)
    assert (parts.time_s, parts.statistics.trials) == (whole.time_s, 100)
    assert parts.energy_j == pytest.approx(whole.energy_j, rel=1e-12)
    assert solve(parts.statistics).evaluations == 400


def test_synapses_per_tile_changes_nothing(small):
    chips = [
        chip_of(small, {"synapses_per_tile": size}, fidelity="event", sigma=0.05, r=0.05)
        for size in (1, 5, 1000)
    ]
    estimates = [chip.run(40).hv for chip in chips]
    for found in estimates[1:]:
        np.testing.assert_allclose(
            found, estimates[0], rtol=1e-10, atol=1e-10
        )  # dw.v is summed in another order
    assert chips[0].time_s == chips[1].time_s == chips[2].time_s
    # a command and words are one event each, however many tiles hear them
    assert chips[0].events == chips[1].events == chips[2].events


@pytest.mark.slow
def test_tiles_of_a_hundred_thousand_synapses_give_the_same_as_smaller_ones():
    net, rng = MLP([784, 128, 10], error="cross_entropy"), np.random.default_rng(0)
    objective = net.objective(rng.standard_normal((2, 784)), [3, 7])
    point = objective, net.init(0), rng.standard_normal(net.n_weights)
    assert net.n_weights > 10**5
    found = []
    for size in (10**6, 1000):
        chip = chip_of(
            point,
            {"synapses_per_tile": size},
            method="covariance",
            code="rademacher",
            fidelity="event",
            trace_trials=0,
        )
        found.append((chip.run(5).hv, chip.time_s, chip.energy_j))
    np.testing.assert_allclose(
        found[1][0], found[0][0], rtol=1e-9, atol=1e-9 * np.abs(found[0][0]).max()
    )
    assert found[0][1:] == found[1][1:]


def test_a_late_broadcast_is_harmless_while_the_fifo_is_deep_enough(two_synapses):
    options = {
        "method": "difference",
        "code": "gaussian",
        "fidelity": "event",
        "sigma": 0.1,
        "r": 0.1,
    }
    on_time = chip_of(two_synapses, **options)
    trial_ns = 4 * 1700 + 2 * 160
    late = chip_of(two_synapses, {"bus.latency_ns": 2 * trial_ns}, **options)
    expected, found = on_time.run(200), late.run(200)
    np.testing.assert_array_equal(found.hv, expected.hv)
    np.testing.assert_array_equal(found.gradient, expected.gradient)
    assert late.time_s - on_time.time_s == pytest.approx((2 * trial_ns - 100) * 1e-9)
    lost = chip_of(
        two_synapses, {"bus.latency_ns": 2 * trial_ns, "synapse.fifo_depth": 2}, **options
    )
    estimated = lost.run(2000)
    exact = two_synapses[0].gradient(two_synapses[1])
    assert np.linalg.norm(estimated.gradient - exact) > 0.8 * np.linalg.norm(
        exact
    )  # it meets the wrong dw: nothing is learnt
    with pytest.raises(InputError, match="outlasts the FIFO of 2"):
        chip_of(
            two_synapses,
            {"bus.latency_ns": 2 * trial_ns, "synapse.fifo_depth": 2},
            **{**options, "fidelity": "batch"},
        ).run(50)


def test_a_chip_takes_methods_and_codes_of_the_users_own(small):
    options = {"method": METHODS["covariance_corrected"], "code": LOGISTIC, "sigma": 0.05}
    event, batch = (
        chip_of(small, {"error_unit.noise": 0.02}, fidelity=fidelity, **options)
        for fidelity in ("event", "batch")
    )
    np.testing.assert_allclose(event.run(40).hv, batch.run(40).hv, rtol=1e-9)


def test_a_chip_for_the_gradient_alone_broadcasts_one_word_and_sums_no_dw_v(two_synapses):
    chip = chip_of(
        two_synapses, method="central", code="rademacher", trace_trials=1, fidelity="event"
    )
    estimated = chip.run(1)
    assert [
        interval.action for interval in chip.trace if interval.unit in ("bus", "summing line")
    ] == ["broadcast dE"]
    assert np.isnan(estimated.hv).all() and np.isfinite(estimated.gradient).all()


def test_a_trial_that_is_not_finite_is_named(two_synapses):
    chip = chip_of(two_synapses, method="forward", code="sequential", sigma=1e200, fidelity="event")
    with (
        pytest.raises(
            InputError,
            match=r"in trial 0 of forward/sequential \(seed 0\).*draw\(2, 1e\+200, 0, 0\)",
        ),
        np.errstate(all="ignore"),
    ):
        chip.run(1)


def test_a_synapse_knows_nothing_but_its_own_and_the_broadcast():
    assert list(signature(accumulate).parameters) == [
        "state",
        "dw",
        "dE",
        "s",
        "v",
        "V",
        "kind",
        "kappa",
    ]
    # changing another synapse's dw and v, but not the broadcasts, changes nothing here
    rng = np.random.default_rng(0)
    dw, v = rng.standard_normal(3), rng.standard_normal(3)
    before = accumulate((np.zeros(3),) * 14, dw, (0.3, 0.2), 0.7, v, 2.0, 2, 0.0)
    dw[1], v[1] = 9.0, -9.0
    after = accumulate((np.zeros(3),) * 14, dw, (0.3, 0.2), 0.7, v, 2.0, 2, 0.0)
    for a, b in zip(before, after, strict=True):
        assert a[0] == b[0] and a[2] == b[2]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fidelity": "fast"}, "fidelity = 'fast' is unknown"),
        ({"method": "backward"}, "method = 'backward' is unknown"),
        ({"sigma": -1.0}, "sigma = -1.0 must be a positive number"),
    ],
)
def test_bad_input_is_one_clear_line(small, options, message):
    with pytest.raises(InputError, match=message):
        chip_of(small, **options)
    with pytest.raises(InputError, match="trials = 0 must be"):
        chip_of(small).run(0)


TILES = {"perturbation.lfsr_per": "tile", "synapses_per_tile": 7}


def test_a_chip_with_registers_in_its_tiles_is_an_estimate_with_their_code(small):
    options = {"method": "difference", "sigma": 0.05, "r": 0.05, "seed": 4}
    for bits in (0, 8):
        changes, code = {**TILES, "perturbation.lfsr_bits": bits}, lfsr(7, bits or None)
        expected = estimate(*small, 100, **options, code=code, precision="float64")
        for fidelity in ("event", "batch", "auto"):
            chip = chip_of(small, changes, fidelity=fidelity, code="lfsr", **options)
            assert chip.design == expected.design
            found = chip.run(100)
            np.testing.assert_allclose(
                found.hv, expected.hv, rtol=1e-9, atol=1e-9 * np.abs(expected.hv).max()
            )
            limits = compare(found, *small).hv.limit, predict(*small, **options, code=code).hv.limit
            np.testing.assert_array_equal(*limits)
        one = chip_of(small, {"perturbation.lfsr_bits": bits}, code="lfsr", **options)
        assert one.design.code == CODES["lfsr"]
        assert np.abs(one.run(100).hv - expected.hv).max() > 0.01 * np.abs(expected.hv).max()
    # a code that needs none does not mind them, and registers that come with the code stay as they
    # are
    assert chip_of(small, changes, code="walsh").design.code == CODES["walsh"]
    assert chip_of(small, changes, code=lfsr(3), method="central").design.code == lfsr(3)


def test_registers_too_short_for_a_tile_are_one_clear_line(small):
    for bits, message in (
        (
            2,
            (
                r"perturbation.lfsr_bits = 2: code lfsr: .* 3 different taps, too few for the 7"
                r" weights.* at least 3 bits"
            ),
        ),
        (
            1,
            (
                r"perturbation.lfsr_bits = 1: bits = 1 of code lfsr must be an integer from 2"
                r" to 24"
            ),
        ),
    ):
        with pytest.raises(InputError, match=message) as caught:
            chip_of(small, {**TILES, "perturbation.lfsr_bits": bits}, code="lfsr")
        assert "\n" not in str(caught.value)
        chip_of(small, {**TILES, "perturbation.lfsr_bits": bits}, code="walsh")
    chip_of(small, {**TILES, "perturbation.lfsr_bits": 3}, code="lfsr")


def test_a_trial_that_is_not_finite_can_be_drawn_again_from_what_is_said(small):
    for changes, code in ((TILES, "lfsr"), ({}, "lfsr"), ({}, "gaussian")):
        chip = chip_of(small, changes, method="central", code=code, seed=5)
        said = str(chip.design.not_finite(3)).partition("its perturbation is ")[2]
        np.testing.assert_array_equal(eval(said, {"perturb": perturb}), chip.batches.drawn([3])[0])


def test_a_chip_loads_by_name_and_by_path(tmp_path, small):
    assert load_chip("ideal") == ChipParams()
    file = tmp_path / "noisy.toml"
    file.write_text('name = "noisy"\n[error_unit]\nnoise = 0.01\n')
    assert load_chip(file).error_unit == replace_noise(0.01)
    Chip(load_chip(file), *small).run(4)
    with pytest.raises(InputError, match="did you mean ideal"):
        load_chip("idael")


def replace_noise(noise):
    return ChipParams().error_unit.model_copy(update={"noise": noise})


@pytest.mark.parametrize("per_tile", [1, 9, 26])
def test_events_of_a_trial_do_not_depend_on_the_number_of_tiles(small, per_tile):
    chip = chip_of(
        small,
        {"synapses_per_tile": per_tile},
        method="covariance",
        code="gaussian",
        fidelity="event",
    )
    chip.run(10)
    before = chip.events
    chip.run(10)
    # of a trial: command, two evaluations, the summing line (settled, sent), a word of dE and one
    # of dw.v, which lets the other go first, the delivery (begun, accumulated, met, over), and a
    # look at what else happens before the next; of a run: its last trial, and its end
    assert chip.events - before == 10 * (1 + 2 + 2 + 1 + 2 + 4 + 1) + 2


@pytest.mark.slow
@pytest.mark.parametrize("code", fast(["rademacher", "gaussian", "ternary"], "rademacher"))
def test_broadcasts_that_meet_the_next_perturbation_have_a_mean_of_zero(linear, code):
    # trials take 1,760 ns, broadcasts 2,000 more: a FIFO of 3 still holds their own perturbation,
    # one of 2 the next as its oldest
    objective, w, v = linear
    g, K = objective.gradient(w), 4000
    timing = {"array.settle_ns": 0, "error_unit.conversion_ns": 100, "bus.latency_ns": 2000}
    options = {
        "method": "central",
        "code": code,
        "sigma": 0.1,
        "fidelity": "event",
        "trace_trials": 0,
    }
    aligned, misaligned = (
        chip_of(linear, {**timing, "synapse.fifo_depth": depth}, **options) for depth in (3, 2)
    )
    found, lost = aligned.run(K), misaligned.run(K)
    assert misaligned.live.tiles[0].overflowed and not aligned.live.tiles[0].overflowed
    assert (np.abs(found.gradient - g) < 5 * found.gradient_stderr).all()
    assert (np.abs(found.gradient) > 5 * found.gradient_stderr).sum() > 4
    # no signal, all of the noise: nothing but diffusion, of variance E dE^2 / sigma^2 = |g|^2,
    # known to sqrt(2/K) and better
    assert (np.abs(lost.gradient) < 5 * lost.gradient_stderr).all()
    np.testing.assert_allclose(K * lost.gradient_stderr**2, g @ g, rtol=5 * np.sqrt(6 / K))


@pytest.mark.parametrize("latency_ns, jitter_ns", [(3510, 0), (3360, 0), (3510, 1)])
def test_words_that_arrive_when_a_trial_begins_are_met_before_it_draws(
    two_synapses, latency_ns, jitter_ns
):
    # words arrive a trial of 3,560 ns after they were sent: with them the oldest of two
    # perturbations leaves the FIFO before a third comes
    timing = {"bus.latency_ns": latency_ns, "synapse.accumulate_ns": 3560 - latency_ns}
    changes = {**timing, "bus.jitter_ns": jitter_ns, "synapse.fifo_depth": 2}
    chip = chip_of(two_synapses, changes, method="pearlmutter", code="rademacher", fidelity="event")
    assert chip.timing.trial_ns == 3560
    chip.run(20)
    assert not chip.live.overflowed
    shorter = {**changes, "synapse.fifo_depth": 1}
    short = chip_of(
        two_synapses, shorter, method="pearlmutter", code="rademacher", fidelity="event"
    )
    short.run(20)
    assert short.live.overflowed


def test_batches_refuse_a_short_fifo_however_few_trials_are_asked_for(two_synapses):
    # after the first of a thousand trials E(w) is not measured any more, and trials are shorter
    changes = {"synapse.fifo_depth": 1, "error_unit.baseline_every": 1000}
    options = {"method": "forward", "code": "rademacher"}
    for trials in (1, 4, 3000):
        chip = chip_of(two_synapses, changes, fidelity="batch", **options)
        with pytest.raises(InputError, match="outlasts the FIFO of 1"):
            chip.run(trials)
