"""Curvature estimated by an imperfect chip itself, at its own weights: rules and rates that use
it, in values and in time.
"""

import itertools

import numpy as np
import pytest
from chips import DEVICE, exclusive_or, learned, params
from fast import fast, thinned

from hardware.on_chip import OnChip, on_chip
from hardware.timing import CAUSES, TrainingTiming
from hardware.training import source
from perturb import MLP
from perturb.training.loop import begin
from perturb.training.plan import Plan
from perturb.training.sources import Batch
from perturb.training.updates import direction
from perturb.trial.readout import Reading

LEARNERS = {
    "diagonal": {"rule": "diagonal", "method": "difference", "damping": 0.1, "batch": 2},
    "newton-cg": {
        "rule": "newton-cg",
        "method": "difference",
        "cg_steps": 3,
        "trials_per_update": 8,
        "damping": 0.3,
    },
    "newton-mean": {
        "rule": "newton-mean",
        "method": "difference",
        "trials_per_update": 2,
        "batch": 3,
    },
    "trace": {"rate": "trace", "tune_every": 2, "tune_trials": 10, "eta": 0.1},
    "line": {"rate": "line", "trials_per_update": 4, "eta": 0.5, "batch": 3},
    "newton-cg, line": {
        "rule": "newton-cg",
        "method": "difference",
        "cg_steps": 2,
        "trials_per_update": 4,
        "damping": 0.3,
        "rate": "line",
    },
    "diagonal, eigenvalue": {
        "rule": "diagonal",
        "method": "difference",
        "rate": "eigenvalue",
        "tune_every": 3,
        "tune_trials": 10,
    },
}
CHIPS = {
    "leak": {"weights.leak_tau_s": 1e-3, "perturbation.tau_ns": 150.0},
    "drift, noise": {
        "weights.drift_exponent": 0.05,
        "error_unit.noise": 0.003,
        "error_unit.flicker": 0.001,
    },
    "bits": {
        "weights.bits": 10,
        "weights.read_noise": 0.001,
        "error_unit.bits": 12,
        "error_unit.dither": True,
    },
    "device": {
        "weights.device": DEVICE,
        "neuron.noise": 0.001,
        "synapses_per_tile": 4,
        "bus.drop_probability": 0.1,
    },
    "late": {"bus.latency_ns": 40_000, "synapse.fifo_depth": 20, "weights.leak_tau_s": 0.01},
}


def plan_of(name, **more):
    return Plan(**{"eta": 0.2, "seed": 7, "sigma": 0.1, "r": 0.1, **LEARNERS[name], **more})


@pytest.fixture(scope="module")
def xor():
    return exclusive_or()


@pytest.mark.parametrize("waits", fast([True, False], True))
@pytest.mark.parametrize("chip", fast(CHIPS, "device"))
@pytest.mark.parametrize("name", thinned(LEARNERS, 3))
def test_events_and_batches_learn_by_curvature_to_the_same_weights_at_the_same_times(
    xor, name, chip, waits
):
    plan = plan_of(name)
    event, timed = learned(xor, CHIPS[chip], plan, 6, events=True, waits=waits)
    batch, values = learned(xor, CHIPS[chip], plan, 6, events=False, waits=waits)
    np.testing.assert_allclose(batch.w, event.w, rtol=1e-9, atol=1e-12)
    assert (batch.trial, batch.evaluations) == (event.trial, event.evaluations)
    assert batch.trial == 6 * plan.trials_of_an_update and batch.evaluations == plan.evaluations(6)
    for run in timed.chips:
        trials = range(len(run.starts_ns))
        assert run.starts_ns == [values.timing.start_ns(trial) for trial in trials]
    for events, whole in ((True, event), (False, batch)):  # any split gives the same bits
        parts, _ = learned(xor, CHIPS[chip], plan, 6, events, waits, pieces=3)
        assert np.array_equal(parts.w, whole.w)
    # and not those of an ideal chip
    assert np.abs(batch.w - learned(xor, {}, plan, 6, False)[0].w).max() > 1e-6


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("noise", fast([0.0, 0.003], 0.003))
@pytest.mark.parametrize(
    "name", [name for name in LEARNERS if not {"eigenvalue", "trace"} & set(name.split())]
)
def test_an_ideal_chip_learns_by_curvature_as_the_batch_engine_does(xor, name, noise, events):
    objective, W = xor
    plan = plan_of(name, reading=Reading(noise))
    state = begin(W, plan)
    Batch(objective, plan, precision="float64").advance(state, 6)
    chip, _ = learned(xor, {"error_unit.noise": noise}, plan, 6, events)
    # rounding of sums, which quotients of differences magnify
    np.testing.assert_allclose(chip.w, state.w, rtol=0, atol=1e-10)
    assert np.abs(state.w - W).max() > 0.01


@pytest.mark.parametrize("name", ["diagonal", "newton-cg"])
def test_the_events_spend_what_the_course_says(xor, name):
    plan, updates = plan_of(name), 5
    energies = {
        "energy.mac_j": 1e-14,
        "energy.perturbation_j": 3e-14,
        "energy.conversion_j": 1e-12,
        "energy.static_w": 1e-6,
    }
    energies |= {
        "energy.broadcast_bit_j": 1e-13,
        "energy.accumulate_j": 2e-14,
        "energy.weight_write_j": 1e-13,
    }
    _, chip = learned(xor, {"weights.leak_tau_s": 1e-3, **energies}, plan, updates, events=True)
    course, energy = chip.timing, chip.chips[0].params.energy
    assert chip.chips[0].next_trial == updates * plan.trials_of_an_update
    assert chip.chips[0].env.now == round(1e9 * course.time_s(updates))
    spent = chip.chips[0].counts.values()
    events = {
        cause: count * getattr(energy, f"{cause}_j")
        for cause, count in zip(CAUSES, spent, strict=True)
    }
    events["write"] = updates * chip.objective.n_weights * energy.weight_write_j
    events["static"] = energy.static_w * course.time_s(updates)
    found = course.energy_by_cause(updates)
    assert (found["host"] > 0) == (name == "newton-cg") and found.pop("refresh") == 0
    # events count all words of the bus
    found["broadcast_bit"] += found.pop("host")
    assert found == pytest.approx(events, rel=1e-12)
    assert sum(events.values()) == pytest.approx(course.energy_j(updates), rel=1e-12)


def test_measuring_the_rate_takes_chip_time_and_energy(xor):
    objective, _ = xor
    chip = params({"weights.leak_tau_s": 1e-3})
    fixed = TrainingTiming(chip, objective, Plan(), True)
    evaluation_ns = fixed.trial_timing.evaluation_ns
    line = TrainingTiming(chip, objective, Plan(rate="line"), True)
    assert line.time_s(10) - fixed.time_s(10) == pytest.approx(1e-9 * 10 * 3 * evaluation_ns)
    trace = TrainingTiming(chip, objective, Plan(rate="trace", tune_every=4, tune_trials=50), True)
    each_ns = (
        50 * (3 * evaluation_ns + 2 * fixed.trial_timing.word_ns) + fixed.trial_timing.after_ns
    )  # dw.v goes beside an evaluation
    assert trace.time_s(10) - fixed.time_s(10) == pytest.approx(1e-9 * 3 * each_ns)
    # of a chip that does not wait otherwise, also what has to arrive before
    loose = [
        TrainingTiming(chip, objective, Plan(**rate), False).time_s(10)
        for rate in ({"rate": "line"}, {})
    ]
    assert loose[0] - loose[1] == pytest.approx(
        1e-9 * 10 * (3 * evaluation_ns + fixed.trial_timing.after_ns)
    )
    static_j = fixed.trial_timing.steady_w * (line.time_s(10) - fixed.time_s(10))
    assert line.energy_j(10) - fixed.energy_j(10) == pytest.approx(
        10 * fixed.trial_timing.evaluations_j(3).sum() + static_j
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"perturbation.gain_mismatch": 0.5}, {"weights.stuck_fraction": 0.4}, {"error_unit.bits": 9}],
)
def test_a_rate_is_measured_with_what_is_wrong_with_the_chip(xor, changes):
    objective, W = xor
    rates = []
    for own in ({}, changes):
        plan = Plan(rate="trace", sigma=0.1, eta=0.1, tune_trials=50)
        made, state = source(params(own), objective, plan, W), begin(W, plan)
        made.advance(state, 1)
        rates.append(state.memory["eta"])
        assert isinstance(made, OnChip) == bool(own)
    assert (np.abs(rates[1] / rates[0] - 1) > 1e-3).all()
    assert isinstance(source(params(changes), objective, Plan(), W), Batch)


# ---- where it converges


@pytest.fixture(scope="module")
def valley():
    """Three inputs of very different sizes into one linear unit: curvatures differ a
    thousandfold. E, its minimum, starts.
    """
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 3)) @ np.array([[2.0, 0.3, 0.1], [0.0, 0.5, 0.1], [0.0, 0.0, 0.1]])
    minimum = np.array([0.5, -0.7, 0.9, 0.3])
    objective = MLP([3, 1], output="linear", error="squared_error").objective(
        x, x @ minimum[:3, None] + minimum[3]
    )
    return objective, minimum, np.zeros((1, 4))


# over two periods of a Walsh code g and z are exact on a quadratic
EXACT = {
    "method": "difference",
    "code": "walsh",
    "trials_per_update": 16,
    "sigma": 0.1,
    "r": 0.1,
    "damping": 0.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("events", [False, True])
def test_newton_steps_hold_all_of_what_leaks_where_gradients_lose_the_flat_directions(
    valley, events
):
    objective, minimum, W = valley
    eta, newton = 0.5, Plan(rule="newton-cg", cg_steps=4, eta=0.5, **EXACT)
    T_s = TrainingTiming(params({}), objective, newton, True).time_s(1)
    changes = {"weights.leak_tau_s": 50 * T_s}
    state, _ = learned((objective, W), changes, newton, 60, events)
    # w = kept w + change, change = -eta H^-1 H (w - w*) with w as it is, on the average, in the
    # round for g; in that round 0.4 % leak, and what g is wrong by in steep directions is magnified
    # in flat ones
    kept, seen = np.exp(-1 / 50), np.exp(-(16 / 80 / 2) / 50)
    np.testing.assert_allclose(state.w[0] / minimum, eta / (1 - kept + eta * seen), rtol=0.03)
    H = objective.hessian(minimum)
    plain = Plan(eta=0.5 / np.linalg.eigvalsh(H)[-1], **EXACT)
    lost, _ = learned((objective, W), changes, plain, 60 * 5, events)  # as many evaluations
    assert np.abs(lost.w[0] / minimum - 1).max() > 0.5


@pytest.mark.parametrize("events", [False, True])
def test_the_diagonal_takes_away_what_is_wrong_with_the_gains_of_perturbations(events):
    h = np.array([0.25, 1.0, 4.0])
    x = np.sqrt(3 * np.diag(h))  # orthogonal patterns: H is diagonal
    objective = MLP([3, 1], output="linear", error="squared_error").objective(
        x, x @ np.ones((3, 1))
    )
    start, wrong = np.zeros((1, 4)), {"perturbation.gain_mismatch": 0.3, "weights.bits": 20}
    for rule, eta, halfway in (("diagonal", 0.5, True), ("plain", 0.2, False)):
        plan = Plan(rule=rule, eta=eta, **EXACT)
        ideal, bad = (
            learned((objective, start), {**changes}, plan, 1, events)[0].w[0, :3]
            for changes in ({}, wrong)
        )
        gain = bad / ideal
        # one step of twenty bits, of weights of about 0.5
        assert (np.abs(gain - 1) < 1e-4).all() == halfway


@pytest.mark.parametrize("events", [False, True])
def test_the_rate_along_the_step_is_that_of_the_weights_as_they_have_leaked(valley, events):
    objective, minimum, _ = valley
    plan, W = (
        Plan(rate="line", eta=1.0, **{**EXACT, "method": "central"}),
        np.array([[2.0, -2.0, 1.0, 1.0]]),
    )
    course, H = TrainingTiming(params({}), objective, plan, True), objective.hessian(minimum)
    tau_s = 1e-9 * course.arrived_ns(0) / np.log(2)  # half has leaked when it is measured
    for tau, w in ((tau_s, W[0] / 2), (1e9, W[0])):
        state, _ = learned((objective, W), {"weights.leak_tau_s": tau}, plan, 1, events)
        p = (np.exp(-course.time_s(1) / tau) * W[0] - state.w[0]) / state.memory["eta"][0]
        assert state.memory["eta"][0] == pytest.approx(
            p @ H @ (w - minimum) / (p @ H @ p), rel=1e-6
        )
        other = p @ H @ (1.5 * W[0] - w - minimum) / (p @ H @ p)
        assert abs(other / state.memory["eta"][0] - 1) > 0.1


@pytest.mark.parametrize("events", [False, True])
def test_a_stuck_weight_is_displaced_neither_along_the_step_nor_along_v(valley, events):
    objective, minimum, _ = valley
    W, changes = np.array([[1.0, -1.0, 0.5, 1.0]]), {"weights.stuck_fraction": 0.4, "die": 1}
    one = {"code": "rademacher", "sigma": 0.1}
    for plan in (
        Plan(rate="line", eta=1.0, **one),
        Plan(rule="diagonal", eta=0.5, **{**EXACT, "damping": 0.01}),
    ):
        made, state = source(params(changes), objective, plan, W, events), begin(W, plan)
        made.advance(state, 1)
        stuck = state.w[0] == 0
        assert 0 < stuck.sum() < stuck.size
        at = np.where(stuck, 0.0, W[0])
        g, H = np.where(stuck, 0.0, objective.gradient(at)), objective.hessian(minimum)
        if plan.rate == "line":
            # of one trial dE = g.D and p = dE D / sigma^2, so that eta = g.p / p.Hp is sigma^2 /
            # D.HD, with the D that are felt
            signs = 0.1 * np.where(stuck, 0.0, np.array(list(itertools.product([-1, 1], repeat=4))))
            possible = 0.01 / np.einsum("ti,ij,tj->t", signs, H, signs)
            assert np.abs(state.memory["eta"][0] / possible - 1).min() < 1e-6
        else:
            v = np.where(stuck, 0.0, direction(plan, 0, 0, 4))
            curved = v * (H @ v)  # what the diagonal rule divides by
            np.testing.assert_allclose(
                (state.w[0] - at)[~stuck], (-0.5 * g / (np.abs(curved) + 0.01))[~stuck], rtol=1e-6
            )


@pytest.mark.slow
def test_a_chip_of_many_imperfections_learns_exclusive_or_by_curvature(xor):
    objective, W = xor
    chip = params(
        {
            "weights.bits": 12,
            "weights.leak_tau_s": 1.0,
            "error_unit.noise": 1e-3,
            "perturbation.gain_mismatch": 0.1,
        }
    )
    plan = Plan(
        rule="diagonal", method="difference", sigma=0.1, r=0.1, eta=0.05, damping=0.1, memory=0.99
    )
    state = begin(W, plan)
    on_chip(chip, objective, plan, W, False, True).advance(state, 1500)
    before, after = ([objective.error(w) for w in at] for at in (W, state.w))
    assert min(after) < 0.3 * max(before)
