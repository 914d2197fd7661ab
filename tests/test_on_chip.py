"""Learning on a chip: events and batches write the same weights, through every kind of memory."""

from contextlib import nullcontext

import numpy as np
import pytest
from chips import DEVICE, exclusive_or, learned, params
from fast import fast, thinned

from hardware.device import age, apparent, fabricate, initial, symmetry_points, write
from hardware.on_chip import OnChip, on_chip
from hardware.parts.weight_store import WeightStore
from hardware.timing import TrainingTiming
from hardware.training import DeviceWeights, source
from perturb import CODES, MLP, InputError
from perturb.training.loop import begin
from perturb.training.plan import Plan, State
from perturb.training.sources import Batch
from perturb.trial.random import uniforms_at
from perturb.trial.readout import Reading


@pytest.fixture(scope="module")
def xor():
    return exclusive_or()


DRIFTS = {"t0_s": 1e-6, "nu": 0.05, "nu_std": 0.02}  # within the some hundred us of these runs
PHASE_CHANGE = {
    "model": "one-sided-pair",
    "range": 4.0,
    "step": {"dw_min": 0.02, "c2c": 0.3},
    "bounds": {"w_max": 1.5, "w_min": 0.0},
    "exponential": {"a": -1.0, "A_up": -2.0, "gamma_up": 1.0},
    "pair": {"refresh_at": 0.5},
    "flicker": {"q": 0.001},
    "programming": {"g_max_us": 25.0, "noise_us": [0.1, 0.0, 0.0]},
    "drift": DRIFTS,
}
DRIFTING = {
    "drift": {
        "weights.drift_exponent": 50.0,
        "weights.device": {"model": "constant-step", "range": 4.0, "step": {"dw_min": 0.02}},
    },
    "drift, refresh": {
        "weights.drift_exponent": 50.0,
        "weights.bits": 7,
        "weights.refresh_s": 1e-4,
    },
    "drift of a device": {
        "weights.device": {**DEVICE, "drift": DRIFTS},
        "weights.refresh_s": 1.3e-4,
    },
    "drift of a pair": {"weights.device": PHASE_CHANGE},
}

CASES = {
    "ideal": ({}, {}, True),
    "device": ({"weights.device": DEVICE}, {}, True),
    "later than a round, each tile otherwise": (
        {
            "weights.leak_tau_s": 0.05,
            "bus.skew_ns": 40_000,
            "synapse.fifo_depth": 20,
            "synapses_per_tile": 2,
        },
        {},
        False,
    ),
    "longest step": (
        {"weights.leak_tau_s": 0.05, "synapses_per_tile": 2},
        {"longest_step": 5e-3},
        True,
    ),
    "lost, keep-if-better": (
        {"bus.drop_probability": 0.5, "synapses_per_tile": 4},
        {"rule": "keep-if-better", "eta": 1.0, "sigma": 0.05},
        True,
    ),
    "blocked, newton-cg": (
        {"weights.leak_tau_s": 1e-3},
        {
            "rule": "newton-cg",
            "method": "difference",
            "cg_steps": 2,
            "damping": 0.3,
            "block": 1.0,
            "eta": 0.5,
        },
        True,
    ),
    "blocked": (
        {"error_unit.noise": 0.02, "weights.leak_tau_s": 0.05},
        {"block": 1.0, "eta": 2.0, "reading": Reading(0.02)},
        True,
    ),
    "reference": (
        {
            "weights.device": {**DEVICE, "step": {**DEVICE["step"], "up_down": 0.2}},
            "weights.reference": "symmetry",
            "weights.reference_error": 0.1,
        },
        {},
        True,
    ),
    "bits, nearest": ({"weights.bits": 8, "weights.rounding": "nearest"}, {"eta": 1.0}, True),
    "leak, noise, momentum, averages": (
        {"error_unit.noise": 0.01, "weights.leak_tau_s": 0.01},
        {"rule": "momentum", "trials_per_update": 3},
        True,
    ),
    "periods": (
        {"weights.bits": 9},
        {"batch": 2, "perturb_every": 2, "sample_every": 3, "trials_per_update": 2},
        True,
    ),
    "late updates": (
        {"bus.latency_ns": 40_000, "synapse.fifo_depth": 20, "weights.bits": 10},
        {},
        False,
    ),
    "lost broadcasts, tiles": ({"bus.drop_probability": 0.3, "synapses_per_tile": 4}, {}, True),
    "mismatch, stuck cells": (
        {
            "perturbation.gain_mismatch": 0.2,
            "weights.stuck_fraction": 0.3,
            "synapse.offset_mismatch": 0.01,
        },
        {},
        True,
    ),
    "kept baseline": ({"error_unit.baseline_every": 5}, {"method": "forward"}, True),
    "keep if better": (
        {"weights.bits": 10},
        {"rule": "keep-if-better", "eta": 1.0, "method": "forward"},
        True,
    ),
    "refresh": ({"weights.leak_tau_s": 1e-3, "weights.refresh_s": 1e-4}, {}, True),
    "settling": ({"perturbation.tau_ns": 150.0}, {"method": "forward"}, True),
    "rate from tr H": (
        {"error_unit.noise": 1e-3, "weights.bits": 12},
        {"rate": "trace", "tune_every": 15, "eta": 0.2},
        True,
    ),
    **{name: (changes, {}, True) for name, changes in DRIFTING.items()},
}


@pytest.mark.parametrize("name", thinned(CASES, 4))
def test_events_and_batches_write_the_same_weights_at_the_same_times(xor, name):
    changes, more, waits = CASES[name]
    plan = Plan(**{"eta": 0.2, "seed": 7, **more})
    event, chip = learned(xor, changes, plan, 30, events=True, waits=waits)
    batch, values = learned(xor, changes, plan, 30, events=False, waits=waits)
    np.testing.assert_allclose(batch.w, event.w, rtol=1e-9, atol=1e-12)
    assert batch.evaluations == event.evaluations
    starts = chip.chips[0].starts_ns
    assert starts[25] == values.timing.start_ns(25)
    # any split gives the same bits
    for events, whole in ((True, event), (False, batch)):
        parts, _ = learned(xor, changes, plan, 30, events, waits, pieces=3)
        assert np.array_equal(parts.w, whole.w)
    assert np.abs(batch.w - xor[1]).max() > 1e-3


@pytest.mark.parametrize("name", thinned([name for name in CASES if name != "ideal"], 4))
def test_each_of_these_chips_learns_otherwise_than_an_ideal_one(xor, name):
    changes, more, waits = CASES[name]
    plan = Plan(**{"eta": 0.2, "seed": 7, **more})
    chip, _ = learned(xor, changes, plan, 30, events=False, waits=waits)
    ideal, _ = learned(xor, {}, plan, 30, events=False)
    differs = np.abs(chip.w - ideal.w).max() > 1e-6
    assert differs


def test_an_ideal_chip_learns_as_the_batch_engine_does(xor):
    objective, W = xor
    plan = Plan(eta=0.2, reading=Reading(0.02))
    state = begin(W, plan)
    Batch(objective, plan, precision="float64").advance(state, 40)
    chip, _ = learned(xor, {"error_unit.noise": 0.02}, plan, 40, events=False)
    np.testing.assert_allclose(chip.w, state.w, rtol=0, atol=1e-12)
    assert isinstance(source(params({"error_unit.noise": 0.02}), objective, plan, W), Batch)
    assert isinstance(source(params({"weights.leak_tau_s": 8.0}), objective, plan, W), OnChip)
    assert isinstance(source(params({}), objective, plan, W, events=True), OnChip)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_mismatched_perturbations_are_known_to_the_batch_engine(xor, precision):
    objective, W = xor
    chip = params(
        {
            "perturbation.gain_mismatch": 0.3,
            "perturbation.offset_mismatch": 0.002,
            "error_unit.noise": 0.01,
        }
    )
    plan = Plan(eta=0.2, method="forward", reading=Reading(0.01))
    fast = source(chip, objective, plan, W)
    assert isinstance(fast, Batch) and fast.precision == "float32"
    fast.precision = precision
    a, b, ideal = begin(W, plan), begin(W, plan), begin(W, plan)
    fast.advance(a, 40)
    on_chip(chip, objective, plan, W, False, True).advance(b, 40)
    Batch(objective, plan).advance(ideal, 40)
    np.testing.assert_allclose(a.w, b.w, rtol=0, atol=1e-12 if precision == "float64" else 1e-4)
    assert np.abs(a.w - ideal.w).max() > 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"weights.bits": 8},
        {
            "weights.device": {
                key: table for key, table in DEVICE.items() if key not in ("leak", "flicker")
            }
        },
        {
            "weights.bits": 9,
            "weights.stuck_fraction": 0.3,
            "perturbation.gain_mismatch": 0.1,
            "error_unit.noise": 0.01,
        },
    ],
)
def test_weights_that_keep_what_is_written_go_with_the_batch_engine_and_all_rules(xor, changes):
    objective, W = xor
    plan = Plan(
        eta=0.2,
        rule="momentum",
        momentum=0.5,
        reading=Reading(changes.get("error_unit.noise", 0.0)),
    )
    written = source(params(changes), objective, plan, W)
    assert isinstance(written.weights, DeviceWeights)
    a, b = begin(W, plan), begin(W, plan)
    written.advance(a, 30)
    on_chip(params(changes), objective, plan, W, False, True).advance(b, 30)
    np.testing.assert_allclose(a.w, b.w, rtol=0, atol=1e-12)
    # stored and gone on from
    half = begin(W, plan)
    source(params(changes), objective, plan, W).advance(half, 12)
    again, other = State.of_arrays(half.arrays()), source(params(changes), objective, plan, W)
    other.resume(again)
    other.advance(again, 18)
    assert np.array_equal(again.w, a.w)
    curved = Plan(eta=0.2, rule="diagonal", method="difference", reading=plan.reading)
    state = begin(W, curved)
    source(params(changes), objective, curved, W).advance(state, 5)
    assert np.abs(state.w - W).max() > 1e-3


def test_runs_are_dies_of_their_own(xor):
    objective, W = xor
    same = np.array([W[0], W[0]])
    changes, plan = {"weights.device": DEVICE, "die": 4}, Plan(eta=0.2)
    both = begin(same, plan)
    on_chip(params(changes), objective, plan, same, False, True).advance(both, 10)
    alone = Plan(eta=0.2, seed=plan.seed_of(1))
    second = begin(W[:1], alone)
    on_chip(params(changes).of_run(1), objective, alone, W[:1], False, True).advance(second, 10)
    assert np.array_equal(both.w[1], second.w[0]) and not np.array_equal(both.w[0], both.w[1])


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize(
    "key", ["perturbation.gain_mismatch", "weights.stuck_fraction", "neuron.offset_mismatch"]
)
def test_runs_from_any_starts_may_be_on_one_die_with_noise_of_their_own(xor, key, events):
    objective, W = xor
    same = np.array([W[0], W[0], W[0]])
    chip, plan = params({key: 0.3, "die": 4, "error_unit.noise": 1e-3}), Plan(eta=0.2)
    together = begin(same, plan)
    source(chip, objective, plan, same, events, dies=[3, 3, 1]).advance(together, 5)
    # the first two have nothing but their die in common, the last two nothing but the start
    for run, die in enumerate((3, 3, 1)):
        own = Plan(eta=0.2, seed=plan.seed_of(run))
        alone = begin(same[:1], own)
        source(chip.of_run(die), objective, own, same[:1], events).advance(alone, 5)
        assert np.array_equal(together.w[run], alone.w[0])
    assert len({tuple(w) for w in together.w}) == 3


LATE = {"bus.latency_ns": 40_000, "synapse.fifo_depth": 20, "weights.leak_tau_s": 0.01}
UNDER_WAY = {
    "device": {"weights.device": DEVICE, "weights.reference": "symmetry"},
    "settling, kept baseline": {
        "perturbation.tau_ns": 150.0,
        "error_unit.baseline_every": 7,
        "weights.write_ns": 20_000,
    },
    "drift of a pair, late": {
        "weights.device": PHASE_CHANGE,
        "bus.latency_ns": 40_000,
        "synapse.fifo_depth": 20,
    },
    "late": LATE,
    "late, each tile otherwise": {
        **LATE,
        "bus.jitter_ns": 9000,
        "bus.skew_ns": 700,
        "synapses_per_tile": 4,
    },
    "late, one tile": {**LATE, "bus.jitter_ns": 90_000, "synapse.fifo_depth": 60},
    "late and lost": {**LATE, "bus.drop_probability": 0.3, "synapses_per_tile": 3},
    "too late for the FIFO": {
        **LATE,
        "synapse.fifo_depth": 2,
        "bus.skew_ns": 3000,
        "synapses_per_tile": 3,
    },
}
EITHER = [
    (chip, events)
    for chip in UNDER_WAY
    for events in (False, True)
    if events or not chip.startswith("too late")
]
GOING_ON = {
    "momentum": {"rule": "momentum", "momentum": 0.5, "batch": 2},
    "forward": {"method": "forward", "trials_per_update": 3, "perturb_every": 2},
    "diagonal": {"rule": "diagonal", "method": "difference", "damping": 0.1},
    "newton-cg": {
        "rule": "newton-cg",
        "method": "difference",
        "cg_steps": 2,
        "trials_per_update": 2,
        "damping": 0.3,
    },
    "trace": {"rate": "trace", "tune_every": 5, "tune_trials": 10},
}


@pytest.mark.parametrize("waits", fast([True, False], True))
@pytest.mark.parametrize("more", thinned(GOING_ON, 3))
@pytest.mark.parametrize("chip, events", EITHER)
def test_a_chip_goes_on_from_a_stored_state_to_the_same_bits(
    xor, tmp_path, chip, more, events, waits
):
    (objective, W), changes = xor, UNDER_WAY[chip]
    plan = Plan(**{"eta": 0.2, "sigma": 0.1, "r": 0.1, **GOING_ON[more]})
    whole, _ = learned(xor, changes, plan, 12, events, waits)
    for stopped in (1, 7):
        half, _ = learned(xor, changes, plan, stopped, events, waits)
        np.savez(tmp_path / "state.npz", **half.arrays())
        with np.load(tmp_path / "state.npz") as file:
            again = State.of_arrays(dict(file))
        other = on_chip(params(changes), objective, plan, W, events, waits)
        other.resume(again)
        other.advance(again, 12 - stopped)
        parts, expected = again.arrays(), whole.arrays()
        assert list(parts) == list(expected)
        assert [name for name in parts if not np.array_equal(parts[name], expected[name])] == []


@pytest.mark.parametrize(
    "events, under_way", [(False, "wanted"), (True, "chip.sent"), (True, "chip.wanted")]
)
def test_without_what_is_under_way_the_rest_is_another_run(xor, events, under_way):
    (objective, W), plan = xor, Plan(eta=0.2)
    changes = {"bus.latency_ns": 20_000, "weights.write_ns": 20_000, "synapse.fifo_depth": 20}
    whole, _ = learned(xor, changes, plan, 12, events, waits=False)
    for forgotten in (False, True):
        half, _ = learned(xor, changes, plan, 7, events, waits=False)
        if forgotten:
            half.extra[f"0.{under_way}"][:, 1:] = 0.0
        other = on_chip(params(changes), objective, plan, W, events, False)
        other.resume(half)
        other.advance(half, 5)
        assert np.array_equal(half.w[0], whole.w[0]) != forgotten


def test_jitter_and_leak_end_in_weights_at_both_fidelities(xor):
    changes = {"bus.jitter_ns": 3000, "weights.leak_tau_s": 0.01, "synapses_per_tile": 3}
    plan = Plan(eta=0.2)
    (event, _), (batch, _) = (learned(xor, changes, plan, 20, events) for events in (True, False))
    # the schedule leaves jitter out, so the leak differs by what 3 us are of 10 ms
    np.testing.assert_allclose(event.w, batch.w, atol=0.01)
    assert np.isfinite(event.w).all()


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("late_ns", [100, 40_000])
@pytest.mark.parametrize(
    "more",
    [{}, {"rule": "newton-cg", "method": "difference", "cg_steps": 2}, {"trials_per_update": 3}],
)
def test_a_run_that_diverges_on_its_way_has_failed_at_the_same_trial_in_events_and_batches(
    more, late_ns, waits
):
    net = MLP([1, 1], output="linear", error="squared_error")
    task = (
        net.objective(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]])),
        np.array([[0.1, 0.2], [0.3, -0.2]]),
    )
    plan, changes = (
        Plan(eta=1e170, **more),
        {"weights.leak_tau_s": 1.0, "bus.skew_ns": 100, "synapses_per_tile": 1},
    )
    changes |= {"bus.latency_ns": late_ns, "synapse.fifo_depth": 30}
    with np.errstate(all="ignore"):
        batch, event = (
            learned(task, changes, plan, 20, events, waits)[0] for events in (False, True)
        )
        half, _ = learned(task, changes, plan, 8, True, waits)
        chip = on_chip(params(changes), task[0], plan, task[1], True, waits)
        chip.resume(half)
        chip.advance(half, 12)
    assert (batch.failed == event.failed).all() and (batch.failed > 0).all()
    assert np.array_equal(half.w, event.w) and np.array_equal(batch.w, event.w)


def test_a_run_has_failed_with_its_round_where_the_rate_or_the_change_is_not_finite():
    net = MLP([1, 1], output="linear", error="squared_error")
    task = net.objective(np.array([[1.0]]), np.array([[1000.0]])), np.array([[0.1, 0.2]])
    # perturbations of opposite signs leave E as it is; others square it beyond the largest number
    assert (CODES["rademacher"].draw_each(2, 1.0, 11, np.arange(3)).sum(1) == 0).all()
    for more in ({"rate": "trace", "sigma": 1e154, "seed": 11}, {"eta": 1e308}):
        plan = Plan(trials_per_update=3, **more)
        for events in (False, True):
            with np.errstate(all="ignore"):
                state, _ = learned(task, {"weights.leak_tau_s": 1.0}, plan, 2, events, pieces=2)
            assert list(state.failed) == [2] and np.isfinite(state.w).all()


@pytest.mark.parametrize("events", [False, True])
def test_a_run_that_diverges_at_once_has_failed_in_its_first_trial(events):
    net = MLP([1, 1], output="linear", error="squared_error")
    objective = net.objective(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]))
    W = np.array([[0.1, 0.2], [1e200, 0.0]])
    chip = on_chip(params({"weights.leak_tau_s": 1.0}), objective, Plan(), W, events, True)
    state = begin(W, Plan())
    with np.errstate(all="ignore"):
        chip.advance(state, 5)
    assert list(state.failed) == [-1, 0]


@pytest.mark.parametrize(
    "changes, plan, message",
    [
        ({}, {"baseline_free": True}, "baseline_free = True is not for a chip"),
        ({"bus.latency_ns": 100_000}, {}, "outlasts the FIFO"),
    ],
)
def test_what_a_chip_cannot_do_is_said_in_one_line(xor, changes, plan, message):
    objective, W = xor
    with pytest.raises(InputError, match=message) as caught:
        on_chip(params(changes), objective, Plan(**plan), W, False, waits=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("late", [2.5, 3.0, 3.5])  # trials
def test_batches_refuse_a_latency_exactly_where_the_events_lose_perturbations(xor, late, waits):
    objective, W = xor
    plan = Plan(eta=0.2, trials_per_update=10)
    trial_ns = TrainingTiming(params({}), objective, plan, waits).trial_timing.trial_ns
    after_ns = int(late * trial_ns) - params({}).synapse.accumulate_ns
    lost = []
    for depth in (2, 3, 4, 5):
        changes = {"bus.latency_ns": after_ns, "synapse.fifo_depth": depth}
        _, chip = learned(xor, changes, plan, 3, True, waits)
        lost.append(chip.chips[0].tiles[0].overflowed)
        for make in (on_chip, source):
            with (
                pytest.raises(InputError, match="outlasts the FIFO") if lost[-1] else nullcontext()
            ):
                make(params(changes), objective, plan, W, False, waits)
    assert lost == [True, True, late > 3, False]


# ---- memory


def test_a_memory_is_its_device():
    chip = params({"weights.device": DEVICE, "die": 3})
    device, w = chip.weights.device, np.linspace(-2, 2, 7)
    memory = WeightStore(chip, np.zeros(7, bool), w, seed=5)
    cells = fabricate(device, 7, die=3)
    hidden = initial(cells, w, seed=5)
    change = np.full(7, 0.03)
    memory.add(change, update=1, now_ns=0)
    np.testing.assert_array_equal(memory.hidden, write(cells, hidden, change, seed=5, update=1))
    changed = memory.hidden != hidden
    written = np.where(changed, 1, 0)
    np.testing.assert_allclose(
        memory.weights(0, 9), apparent(cells, memory.hidden, 5, written, 9, 0.0), rtol=0, atol=0
    )
    assert memory.writes == changed.sum() > 0


ASYMMETRIC = {
    "model": "soft-bounds",
    "step": {"dw_min": 0.01, "up_down": 0.3, "up_down_dtod": 0.1, "c2c": 0.3},
    "bounds": {"w_max": 1.2, "w_max_dtod": 0.1, "w_min_dtod": 0.1},
}


def test_against_a_reference_a_weight_is_its_cell_less_the_symmetry_point():
    changes = {"weights.device": ASYMMETRIC, "weights.reference": "symmetry", "die": 3}
    w = np.linspace(-0.3, 0.3, 500)
    stuck = np.arange(w.size) == 7
    plain = WeightStore(params(changes), stuck, w, seed=0)
    points = symmetry_points(plain.cells)
    np.testing.assert_array_equal(plain.reference, points)
    np.testing.assert_allclose(plain.hidden, w + points)  # all within their bounds
    np.testing.assert_allclose(plain.weights(0), np.where(stuck, 0.0, w), atol=1e-15)
    off = WeightStore(params(changes | {"weights.reference_error": 0.1}), stuck, w, seed=9)
    error = off.reference - points
    np.testing.assert_allclose(off.weights(0), np.where(stuck, 0.0, w - error), atol=1e-15)
    assert abs(error.std() / 0.1 - 1) < 5 / np.sqrt(2 * w.size)
    assert abs(error.mean()) < 5 * 0.1 / np.sqrt(w.size)
    again = WeightStore(params(changes | {"weights.reference_error": 0.1}), stuck, w, seed=10)
    np.testing.assert_array_equal(off.reference, again.reference)  # of the die, not of the seed
    other = WeightStore(
        params(changes | {"weights.reference_error": 0.1, "die": 4}), stuck, w, seed=9
    )
    assert abs(np.corrcoef(other.reference - symmetry_points(other.cells), error)[0, 1]) < 0.3


@pytest.mark.parametrize("reference, drifts", [("none", True), ("symmetry", False)])
def test_noise_drives_weights_to_the_symmetry_point_unless_that_is_the_reference(reference, drifts):
    changes = {"weights.device": ASYMMETRIC, "weights.reference": reference, "die": 1}
    memory = WeightStore(params(changes), np.zeros(4000, bool), np.zeros(4000), seed=0)
    rng = np.random.default_rng(5)
    for update in range(60):  # changes of no mean
        memory.add(0.03 * rng.choice([-1.0, 1.0], 4000), update, now_ns=0)
    w = memory.weights(0)
    stderr = w.std() / np.sqrt(w.size)
    assert (abs(w.mean()) > 20 * stderr) == drifts
    assert (abs(w.mean()) < 5 * stderr) != drifts
    points = symmetry_points(memory.cells)
    to = points if drifts else np.zeros_like(points)
    assert abs((w - to).mean()) < abs(points.mean())  # towards the one or the other


def test_a_reference_is_for_a_device_that_has_a_symmetry_point():
    for device in ("ideal", "gokmen-vlasov2016", "pcm-nandakumar2020"):
        with pytest.raises(InputError, match='has not: set reference = "none"'):
            params({"weights.device": device, "weights.reference": "symmetry"})


def test_weights_leak_from_their_last_write_or_refresh():
    chip = params({"weights.leak_tau_s": 0.5})
    memory = WeightStore(chip, np.zeros(2, bool), np.array([1.0, -2.0]), seed=0)
    memory.add(np.array([0.5, 0.5]), 0, now_ns=100_000_000)
    start = np.array([1.0, -2.0]) * np.exp(-0.2) + 0.5
    np.testing.assert_allclose(memory.weights(300_000_000), start * np.exp(-0.4), rtol=1e-14)
    chip = params({"weights.leak_tau_s": 0.5, "weights.refresh_s": 0.25})
    memory = WeightStore(chip, np.zeros(2, bool), np.array([1.0, -2.0]), seed=0)
    np.testing.assert_allclose(
        memory.weights(600_000_000), np.array([1.0, -2.0]) * np.exp(-0.2), rtol=1e-14
    )


def test_what_is_not_written_drifts_on_and_what_is_written_starts_anew():
    s, w = 10**9, np.array([1.0, -2.0])
    memory = WeightStore(params({"weights.drift_exponent": 0.1}), np.zeros(2, bool), w, seed=0)
    memory.add(np.array([0.5, 0.0]), 0, now_ns=50 * s)
    expected = np.array([(1.0 * 51**-0.1 + 0.5) * 51**-0.1, -2.0 * 101**-0.1])
    np.testing.assert_allclose(memory.weights(100 * s), expected, rtol=1e-14)
    # a leak does not mind; with a refresh every 40 s, the one decays from what was written at 50 s,
    # the other from its start
    memory = WeightStore(
        params(
            {"weights.drift_exponent": 0.1, "weights.leak_tau_s": 30.0, "weights.refresh_s": 40.0}
        ),
        np.zeros(2, bool),
        w,
        seed=0,
    )
    memory.add(np.array([0.5, 0.0]), 0, now_ns=50 * s)
    start = np.array([1.0 * 11**-0.1 * np.exp(-10 / 30) + 0.5, -2.0])
    at_70 = start * np.array([21, 31]) ** -0.1 * np.exp(-np.array([20, 30]) / 30)
    np.testing.assert_allclose(memory.weights(70 * s), at_70, rtol=1e-14)
    np.testing.assert_allclose(
        memory.weights(100 * s), start * 21**-0.1 * np.exp(-20 / 30), rtol=1e-14
    )


STEPS = {"model": "constant-step", "range": 4.0, "step": {"dw_min": 0.01}}
EMPTY = {  # chip, updates a second apart, share of w that is left
    "chip": ({"weights.drift_exponent": 0.1}, 100, 101**-0.1),
    "chip of bits": ({"weights.drift_exponent": 0.1, "weights.bits": 8}, 100, 101**-0.1),
    "device": ({"weights.device": {**STEPS, "drift": {"t0_s": 1.0, "nu": 0.1}}}, 100, 100**-0.1),
    "refreshed": (
        {"weights.device": {**STEPS, "drift": {"t0_s": 1.0, "nu": 0.1}}, "weights.refresh_s": 80.0},
        100,
        20**-0.1,
    ),
    "phase change": ({"weights.device": "pcm-nandakumar2020"}, 1000, None),
}


@pytest.mark.parametrize("name", EMPTY)
def test_updates_that_write_nothing_leave_the_drift_alone(name):
    changes, updates, left = EMPTY[name]
    chip, w = params({**changes, "weights.rounding": "nearest"}), np.linspace(0.1, 1.4, 400)
    memory = WeightStore(chip, np.zeros(w.size, bool), w, seed=0)
    start = memory.hidden
    for update in range(updates):
        memory.add(np.zeros(w.size), update, (update + 1) * 10**9)
    assert memory.writes == 0
    now = memory.weights(updates * 10**9)
    if left is not None:
        np.testing.assert_allclose(now, left * start, rtol=1e-12)
        return
    # by the formula of each cell; in the mean (1000 s / 20 s)^-0.05 or so, but for cells near 0,
    # which drift faster
    np.testing.assert_allclose(
        now,
        apparent(memory.cells, age(memory.cells, start, 1e3), 0, memory.written, 0, 1e3),
        rtol=1e-12,
    )
    assert np.median(now / (start[0] - start[1])) == pytest.approx(0.82, abs=0.02)


def test_either_side_of_a_pair_has_a_clock_of_its_own():
    device = {
        **PHASE_CHANGE,
        "programming": None,
        "flicker": None,
        "drift": {"t0_s": 1.0, "nu": 0.1},
    }
    device = {key: value for key, value in device.items() if value is not None} | {
        "pair": {"refresh_at": 1.0}
    }
    memory = WeightStore(
        params({"weights.device": device}), np.zeros(3, bool), np.array([-1.0, -1.0, 0.5]), seed=0
    )
    memory.add(np.array([0.4, 0.0, 0.4]), 0, 50 * 10**9)
    g_plus, g_minus = memory.hidden
    assert g_plus[0] > 0.1 and g_plus[1] == 0 and g_plus[2] > 0.1 + 0.5 * 50**-0.1
    expected = np.where(memory.hidden[0] > 0, g_plus * 50**-0.1, 0) - g_minus * 100**-0.1
    np.testing.assert_allclose(memory.weights(100 * 10**9), expected, rtol=1e-12)
    # a refresh programs both
    refreshed = WeightStore(
        params({"weights.device": {**device, "pair": {"refresh_at": 0.15}}}),
        np.zeros(1, bool),
        np.array([-1.0]),
        0,
    )
    refreshed.add(np.array([0.4]), 0, 50 * 10**9)
    at = refreshed.weights(50 * 10**9)
    np.testing.assert_allclose(refreshed.weights(100 * 10**9), at * 50**-0.1, rtol=1e-12)


def test_a_cell_that_cannot_move_is_written_all_the_same():
    # stuck, or at its bound: a pulse leaves it where it is, with another noise of writing
    device = {
        "model": "constant-step",
        "step": {"dw_min": 0.01},
        "noise": {"write": 0.05},
        "corrupt": {"fraction": 0.5},
    }
    n = 2000
    memory = WeightStore(params({"weights.device": device}), np.zeros(n, bool), np.ones(n), seed=0)
    before, half = memory.weights(0), np.arange(n) < n // 2
    memory.add(np.where(half, 0.1, 0.0), 1, 0)
    after = memory.weights(0)
    np.testing.assert_array_equal(memory.hidden, np.where(memory.cells.stuck, 0.0, 1.0))
    assert (
        (after[half] != before[half]).all()
        and (after[~half] == before[~half]).all()
        and memory.writes == n // 2
    )
    assert (
        abs(after.std() - np.hypot(0.05, 0.5)) < 0.01
        and abs((after - before)[half].std() / (0.05 * 2**0.5) - 1) < 0.12
    )


@pytest.mark.parametrize("events", [False, True])
def test_a_chip_whose_updates_round_to_nothing_drifts_by_the_whole_time(xor, events):
    objective, W = xor
    chip = {
        "weights.device": {**STEPS, "drift": {"t0_s": 1e-6, "nu": 0.1}},
        "weights.rounding": "nearest",
    }
    plan = Plan(eta=1e-9)
    half, made = learned(xor, chip, plan, 20, events)
    again, other = (
        State.of_arrays(half.arrays()),
        on_chip(params(chip), objective, plan, W, events, True),
    )
    other.resume(again)
    other.advance(again, 20)
    left = (made.timing.changed_ns(39) / 1e3) ** -0.1
    assert left < 0.6
    np.testing.assert_allclose(again.w, left * W, rtol=1e-12)


def test_a_state_with_one_clock_for_all_cells_is_refused_in_one_line(xor):
    objective, W = xor
    changes, plan = {"weights.drift_exponent": 0.1}, Plan(eta=0.2)
    state, _ = learned(xor, changes, plan, 2, False)
    for run in range(2):
        del state.extra[f"{run}.since_ns"]
    with pytest.raises(InputError, match="start a new run") as caught:
        on_chip(params(changes), objective, plan, W, False, True).resume(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_bits_are_levels_and_rounding_is_as_said(rounding):
    chip = params({"weights.bits": 6, "weights.range": 2.0, "weights.rounding": rounding})
    step, n = 4.0 / 64, 2000
    memory = WeightStore(chip, np.zeros(n, bool), np.zeros(n), seed=1)
    memory.add(np.full(n, 0.3 * step), 0, 0)
    w = memory.weights(0)
    np.testing.assert_allclose(w / step, np.round(w / step), atol=1e-9)
    u = np.empty(n)
    uniforms_at(np.uint64(1), 18, 0, 0, 0, u)
    if rounding == "nearest":
        assert (w == 0).all()
    else:
        assert abs(w.mean() / step - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
        np.testing.assert_array_equal(w > 0, 0.3 + u >= 1)


def test_bits_and_a_device_contradict_each_other():
    with pytest.raises(InputError, match="both say how weights are stored"):
        params({"weights.bits": 6, "weights.device": DEVICE})
    with pytest.raises(
        InputError, match="weights.device.*no device of that name.*did you mean ecram-tang2018"
    ):
        params({"weights.device": "ecram-tang"})
    assert params({"weights.device": "ecram-tang2018"}).weights.device.name == "ecram-tang2018"


def test_a_state_of_a_chip_of_an_earlier_version_is_refused_in_one_line(xor):
    objective, W = xor
    half, _ = learned(xor, {}, Plan(eta=0.2), 3, events=True)
    del half.extra["0.chip.held"]
    with pytest.raises(InputError, match="earlier version.*start a new run") as caught:
        on_chip(params({}), objective, Plan(eta=0.2), W, True, True).resume(half)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("events", [False, True])
def test_a_rule_that_keeps_what_is_better_learns_nothing_from_words_that_never_arrive(xor, events):
    changes, plan = {"bus.drop_probability": 1.0}, Plan(rule="keep-if-better", eta=1.0, sigma=0.05)
    lost, _ = learned(xor, changes, plan, 20, events)
    assert np.array_equal(lost.w, xor[1])
    heard, _ = learned(xor, {**changes, "bus.drop_probability": 0.0}, plan, 20, events)
    assert np.abs(heard.w - xor[1]).max() > 0.01


def test_a_step_is_as_long_as_the_longest_however_many_tiles_there_are(xor):
    plan = Plan(eta=5.0, longest_step=0.01)
    for per_tile in (1, 4, 256):
        state, _ = learned(xor, {"synapses_per_tile": per_tile}, plan, 1, events=True)
        np.testing.assert_allclose(np.linalg.norm(state.w - xor[1], axis=1), 0.01, rtol=1e-9)
