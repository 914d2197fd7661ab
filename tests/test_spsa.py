"""What implementations of simultaneous perturbation (Spall 1992, 1998) offer beside the bare
update: gain sequences, averages, longest steps, blocking, stopping, calibration.
"""

import re
from dataclasses import replace

import numpy as np
import pytest

from hardware import load_chip
from hardware.on_chip import OnChip
from hardware.training import source
from perturb import MLP, InputError, Objective
from perturb.networks.objective import FunctionObjective
from perturb.training.exact import Exact
from perturb.training.loop import begin, train
from perturb.training.plan import Plan, State
from perturb.training.sources import Batch
from perturb.trial.codes import CODES
from perturb.trial.readout import Reading

ALPHA, GAMMA = 0.602, 0.101  # of Spall (1998)


class Parabola(FunctionObjective):
    """E = (w - minimum)'H(w - minimum)/2."""

    def __init__(self, H, minimum):
        self.H, self.minimum = np.array(H), np.array(minimum)
        super().__init__(
            lambda w: float(self.errors_at(w[None])[0, 0]),
            lambda w: self.H @ (w - self.minimum),
            lambda w, v: self.H @ v,
            len(self.minimum),
        )

    def errors_at(self, points):
        U = points - self.minimum
        return 0.5 * np.einsum("ri,ij,rj->r", U, self.H, U)[:, None]


def xor_of(hidden):
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    net = MLP([2, hidden, 1], output="logistic")
    return net.objective(x, (x[:, :1] != x[:, 1:]).astype(float))


@pytest.fixture(scope="module")
def xor():
    objective = xor_of(2)
    return objective, np.array([objective.network.init(seed) for seed in range(3)])


@pytest.fixture(scope="module")
def parabola():
    rng = np.random.default_rng(5)
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    return Parabola((Q * np.geomspace(0.1, 2.0, 6)) @ Q.T, rng.standard_normal(6))


def after(source, W, plan, updates):
    state = begin(W, plan)
    for _ in train(source, state, updates, every=max(1, updates)):
        pass
    return state


def path(source, w, plan, updates):
    """w after 0, 1, ... updates of one run."""
    return np.array([s.w[0].copy() for s in train(source, begin(w, plan), updates, every=1)])


# ---- gain sequences


def test_the_rate_falls_as_spall_has_it():
    objective = Objective.from_functions(
        lambda w: float(w.sum()), lambda w: np.ones(2), n_weights=2
    )
    plan = Plan(eta=0.5, rate_exponent=ALPHA, rate_delay=7.0)
    steps = -np.diff(path(Exact(objective, plan), np.zeros(2), plan, 20), axis=0)
    k = np.arange(20)[:, None]
    np.testing.assert_allclose(steps, 0.5 / (7 + k + 1) ** ALPHA * np.ones((1, 2)), rtol=1e-12)


@pytest.mark.parametrize("K", [1, 3])
def test_spsa_is_that_of_its_own_twin(parabola, K):
    plan = Plan(
        sigma=0.3,
        eta=0.2,
        rate_exponent=ALPHA,
        rate_delay=2.0,
        sigma_exponent=GAMMA,
        trials_per_update=K,
        perturb_every=2,
        method="forward",
        seed=4,
    )
    found = after(Batch(parabola, plan), np.zeros(6), plan, 15).w[0]
    w = np.zeros(6)
    for k in range(15):
        a, c, g = 0.2 / (2 + k + 1) ** ALPHA, 0.3 / (k + 1) ** GAMMA, 0.0
        for trial in range(k * K, (k + 1) * K):
            D = CODES["rademacher"].draw(6, c, plan.seed_of(0), trial // 2)
            g = g + (parabola.error(w + D) - parabola.error(w)) / D / K
        w = w - a * g
    np.testing.assert_allclose(found, w, rtol=0, atol=1e-12)


FALLS = {"rate_exponent": ALPHA, "rate_delay": 3.0, "sigma_exponent": GAMMA, "eta": 0.5}


@pytest.mark.parametrize("changes", [{}, {"code": "gaussian"}, {"rule": "momentum"}])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"trials_per_update": 2, "perturb_every": 3},
        {"longest_step": 0.01, "average_from": 7},
    ],
)
def test_the_kernel_falls_alike(xor, changes, more):
    objective, W = xor
    plan = Plan(seed=5, **FALLS, **changes, **more)
    single, double = (
        after(Batch(objective, plan, precision=p), W, plan, 40) for p in ("float32", "float64")
    )
    assert np.abs(single.w - double.w).max() < 1e-3 * np.abs(double.w - W).max()
    assert np.abs(single.result - double.result).max() < 1e-3 * np.abs(double.w - W).max()
    constant = replace(plan, sigma_exponent=0.0)
    assert not np.array_equal(after(Batch(objective, constant), W, constant, 40).w, single.w)


def test_exact_updates_fall_alike_in_the_kernel_and_in_numpy(xor):
    objective, W = xor
    beside = {"longest_step": 0.01, "average_from": 7}
    for changes in ({}, {"rule": "keep-if-better"}, beside):
        plan = Plan(**FALLS, **changes)
        kernel, plain = Exact(objective, plan), Exact(objective, plan)
        plain.compiled = False
        one, other = after(kernel, W, plan, 15), after(plain, W, plan, 15)
        np.testing.assert_allclose(one.w, other.w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(one.result, other.result, rtol=0, atol=1e-12)


# ---- however the work is cut


EXTRAS = {
    "falling": FALLS,
    "average": {"average_from": 9},
    "block": {"block": 2.0, "reading": Reading(0.01)},
    "longest step": {"longest_step": 0.01},
    "stop": {"stop_change": 2e-3, "stop_every": 5, "eta": 0.02},
    "all": {
        **FALLS,
        "average_from": 3,
        "block": 1.0,
        "longest_step": 0.05,
        "stop_change": 1e-4,
        "stop_every": 7,
        "rule": "momentum",
        "reading": Reading(0.001),
    },
}


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("kind", [Batch, Exact])
def test_any_cut_any_company_and_a_stored_state_give_the_same_bits(xor, tmp_path, kind, name):
    objective, W = xor
    plan = Plan(seed=2, **EXTRAS[name])
    whole = after(kind(objective, plan, threads=1), W, plan, 40)
    parts = begin(W, plan)
    for updates in (3, 17, 40):
        for _ in train(kind(objective, plan, threads=2), parts, updates, every=4):
            pass
        np.savez(tmp_path / "state.npz", **parts.arrays())
        with np.load(tmp_path / "state.npz") as file:
            parts = State.of_arrays(dict(file))
    for part, array in whole.arrays().items():
        assert np.array_equal(parts.arrays()[part], array), part
    alone = Plan(**{**EXTRAS[name], "seed": plan.seed_of(2)})
    assert np.array_equal(after(kind(objective, alone), W[2], alone, 40).result[0], whole.result[2])


# ---- averages, longest steps, blocking


def test_the_result_is_the_mean_of_the_weights_from_an_update_on(parabola):
    plan = Plan(eta=0.3, average_from=4)
    state = begin(np.zeros(6), plan)
    seen = []
    for _ in train(Batch(parabola, plan), state, 12, every=1):
        seen.append(state.w[0].copy())
        wanted = np.mean(seen[4:], axis=0) if len(seen) > 4 else seen[-1]
        np.testing.assert_allclose(state.result[0], wanted, rtol=0, atol=1e-14)


@pytest.mark.slow
def test_the_mean_of_noisy_weights_is_nearer_to_the_minimum_than_they_are():
    # w' = (1 - eta) w + eta e: var(w) = eta/(2 - eta) s, that of a mean of T is s/T for large T
    # (Polyak and Juditsky 1992); s = noise^2/(2 sigma^2)
    objective, noise, sigma, T = Parabola([[1.0]], [0.0]), 0.1, 0.5, 400
    plan = Plan(sigma=sigma, eta=0.3, average_from=20, reading=Reading(noise))
    state = after(Batch(objective, plan), np.zeros((300, 1)), plan, T + 19)
    s = noise**2 / (2 * sigma**2)
    error = 5 * np.sqrt(2 / 300)  # five standard errors of a variance of 300
    assert state.w.var() == pytest.approx(0.3 / 1.7 * s, rel=error)
    assert state.result.var() == pytest.approx(s / T, rel=error + 0.02)


@pytest.mark.parametrize("kind", [Batch, Exact])
def test_no_update_is_longer_than_the_longest_step(parabola, kind):
    free = Plan(eta=0.3)
    long = np.linalg.norm(
        np.diff(path(kind(parabola, free), np.zeros(6), free, 30), axis=0), axis=1
    )
    longest = float(np.median(long))
    plan = replace(free, longest_step=longest)
    steps = np.diff(path(kind(parabola, plan), np.zeros(6), plan, 30), axis=0)
    sizes = np.linalg.norm(steps, axis=1)
    assert sizes.max() <= longest * (1 + 1e-12) and np.isclose(sizes, longest).any()
    first = np.diff(path(kind(parabola, free), np.zeros(6), free, 1), axis=0)[0]
    np.testing.assert_allclose(steps[0] / sizes[0], first / np.linalg.norm(first), rtol=1e-9)


@pytest.mark.parametrize("kind", [Batch, Exact])
def test_without_noise_a_blocked_run_never_gets_worse(parabola, kind):
    for block, rises in ((0.0, True), (1.0, False)):
        plan = Plan(rule="momentum", eta=0.4, block=block)
        E = [parabola.error(w) for w in path(kind(parabola, plan), np.zeros(6), plan, 40)]
        assert (np.diff(E) > 0).any() == rises
    assert len(set(E)) > 3 and plan.evaluations(40) == 40 * 4


def test_a_step_is_blocked_by_what_exceeds_the_noise_of_two_readings():
    # at the minimum a step along -g = 0 changes nothing: E after less E before is noise, of
    # standard deviation sqrt(2) noise, and exceeds `block` of these with the probability of a tail
    objective, noise = Parabola(np.zeros((1, 1)), [0.0]), 0.1
    R, T = 200, 50
    plan = Plan(sigma=0.1, eta=1e-9, block=1.0, reading=Reading(noise))
    state = begin(np.zeros((R, 1)), plan)
    blocked = 0
    for _ in range(T):
        before = state.w.copy()
        Batch(objective, plan).advance(state, 1)
        blocked += int((state.w == before).sum())
    share = 0.15866  # of a normal variable beyond one standard deviation
    assert blocked / (R * T) == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / R / T))


# ---- stopping


def test_a_run_whose_weights_do_not_change_any_more_ends_and_stays(parabola):
    plan = Plan(eta=0.3, stop_change=1e-3, stop_every=10)
    W = np.array([np.zeros(6), parabola.minimum + 1e-6])
    state = begin(W, plan)
    looks = [s.update for s in train(Exact(parabola, plan), state, 1000, every=15)]
    stopped = state.memory["stopped"]
    assert stopped[1] == 10 and 10 < stopped[0] < 1000 and looks[-1] == stopped[0]
    w = path(Exact(parabola, Plan(eta=0.3)), W[0], Plan(eta=0.3), int(stopped[0]))
    moved = np.sqrt(((w[10::10] - w[:-10:10]) ** 2).mean(1))
    assert (moved[:-1] >= 1e-3).all() and moved[-1] < 1e-3
    np.testing.assert_allclose(state.w[0], w[-1], rtol=0, atol=1e-14)
    for every in (1, 7, 100):
        other = begin(W, plan)
        for _ in train(Exact(parabola, plan), other, 1000, every=every):
            pass
        assert np.array_equal(other.w, state.w) and other.update == state.update


def test_a_callback_sees_every_look_and_ends_learning(parabola):
    plan, seen = Plan(), []

    def enough(state):
        seen.append(state.update)
        return parabola.error(state.w[0]) < 0.5 * parabola.error(np.zeros(6))

    looks = [
        s.update for s in train(Batch(parabola, plan), begin(np.zeros(6), plan), 500, 5, enough)
    ]
    assert looks == seen and 5 < seen[-1] < 500


# ---- calibration


def test_on_a_round_parabola_calibration_finds_the_best_rate():
    # g_hat'H g_hat = h n d^2 with signs: E falls most, in the mean, by eta = 1/(h n)
    objective = Parabola(3.0 * np.eye(5), np.ones(5))
    plan = Plan().calibrated(objective, np.zeros(5), updates=100)
    assert plan.eta == pytest.approx(1 / 15, rel=1e-6) and plan.rate_exponent == 0.0
    momentum = Plan(rule="momentum").calibrated(objective, np.zeros(5), updates=100)
    assert momentum.eta == pytest.approx(0.1 / 15, rel=1e-6)
    many = Plan(trials_per_update=5).calibrated(objective, np.zeros(5), updates=100)
    # 1/(tr H/K + (1 - 1/K) l) = 1/5.4 would be best; of l = 3 signs show tr H/sqrt(n) = 6.7 at most
    assert many.eta == pytest.approx(1 / (15 / 5 + 0.8 * 15 / np.sqrt(5)), rel=1e-6)
    assert many.eta < 1 / 5.4


def test_noise_asks_for_larger_perturbations_and_a_rate_that_falls(parabola):
    quiet, noisy, loud = (
        Plan(reading=Reading(noise)).calibrated(parabola, np.zeros(6), updates=100)
        for noise in (0.0, 1e-3, 1.0)
    )
    assert quiet.sigma < noisy.sigma < loud.sigma
    assert quiet.rate_exponent == noisy.rate_exponent == 0.0
    assert loud.rate_exponent == ALPHA and loud.rate_delay == 10.0
    own = Plan(decay=5.0, reading=Reading(1.0)).calibrated(parabola, np.zeros(6), updates=100)
    assert own.decay == 5.0 and own.rate_exponent == 0.0


def test_calibration_is_of_the_seed_and_its_evaluations_count(parabola):
    plan = Plan(reading=Reading(0.01), seed=3)
    one, two = (plan.calibrated(parabola, np.zeros(6), updates=50, trials=4) for _ in range(2))
    other = replace(plan, seed=4).calibrated(parabola, np.zeros(6), updates=50, trials=4)
    assert one == two and one.eta != other.eta
    counted = []
    objective = Parabola(parabola.H, parabola.minimum)
    whole = objective.errors_at
    objective.errors_at = lambda points: counted.append(len(points)) or whole(points)
    plan.calibrated(objective, np.zeros(6), updates=50, trials=4)
    assert sum(counted) == one.evaluations(0) == begin(np.zeros(6), one).evaluations == 96
    assert one.evaluations(10) == 96 + 20 and one.updates_within(96 + 21) == 10
    assert one.updates_within(50) == 0


def spsa(errors, w, T, a, c, noise, rng):
    """E after T updates of each run, W (R, n): the algorithm as Spall (1992) has it."""
    w, A = w.copy(), 0.1 * T
    for k in range(T):
        D = rng.choice([-1.0, 1.0], w.shape)
        a_k, c_k = a / (A + k + 1) ** ALPHA, c / (k + 1) ** GAMMA
        up, down = errors(w + c_k * D), errors(w - c_k * D)
        up, down = (y + noise * rng.standard_normal(len(w)) for y in (up, down))
        w = w - a_k * ((up - down) / (2 * c_k))[:, None] / D
    return errors(w)


SOLVED = 1e-3  # of exclusive or: E below it is the size of weights that grow without end


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["parabola", "exclusive or"])
def test_calibrated_runs_end_as_low_as_spsa_with_the_best_of_its_gains(kind, noise):
    if kind == "parabola":
        rng = np.random.default_rng(0)
        Q = np.linalg.qr(rng.standard_normal((20, 20)))[0]
        objective = Parabola((Q * np.geomspace(0.1, 10, 20)) @ Q.T, rng.standard_normal(20))
        W, T, least = np.zeros((20, 20)), 2000, 0.0
        first, amplitudes = 2.0 ** np.arange(-7, -3), 2.0 ** np.arange(-4, 3)
    else:
        objective, noise = xor_of(4), 0.05 * noise
        W, T, least = np.array([objective.network.init(s) for s in range(20)]), 2500, SOLVED
        first, amplitudes = 4.0 ** np.arange(0, 4), 2.0 ** np.arange(-3, 3)

    def errors(points):
        return objective.errors_at(points).mean(1)

    with np.errstate(all="ignore"):
        tuned = min(
            np.nanmedian(
                spsa(errors, W, T, a * (0.1 * T + 1) ** ALPHA, c, noise, np.random.default_rng(1))
            )
            for a in first
            for c in amplitudes
        )
    ends = []
    for seed, w in enumerate(W):
        plan = Plan(seed=seed, reading=Reading(noise * np.sqrt(objective.n_patterns)), calibrate=20)
        updates = plan.updates_within(2 * T)  # its own evaluations included
        plan = plan.calibrated(objective, w, updates)
        state = after(Batch(objective, plan), w, plan, updates)
        assert state.evaluations <= 2 * T
        ends.append(objective.error(state.w[0]))
    assert np.median(ends) < 2 * max(tuned, least)
    assert max(tuned, least) < 0.1 * np.median([objective.error(w) for w in W])  # it does learn


# ---- what cannot be


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"decay": 5.0, "rate_exponent": 0.6}, "decay = 5 and rate_exponent = 0.6 are two laws"),
        ({"rate_delay": 5.0}, "set rate_exponent as well"),
        ({"rate_exponent": 1.5}, "rate_exponent = 1.5 must be a finite number <= 1"),
        ({"block": 2.0, "rate": "trace"}, 'is for rate = "fixed" or "line", not "trace"'),
        ({"calibrate": 5, "rate": "line"}, "calibrate = 5 finds the fixed rate"),
        ({"calibrate": 5, "rule": "sign"}, "calibrate = 5 finds the fixed rate"),
        ({"calibrate": 1}, "calibrate = 1 shows no spread"),
        ({"longest_step": -1.0}, "longest_step = -1.0 must be a finite number >= 0"),
        ({"average_from": -1}, "average_from = -1 must be an integer >= 0"),
    ],
)
def test_a_plan_that_cannot_be_says_why_in_one_line(changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Plan(**changes)
    assert "\n" not in str(caught.value)


def test_a_plan_to_be_calibrated_and_an_error_that_is_flat_are_refused(parabola):
    with pytest.raises(InputError, match="learn by plan.calibrated"):
        begin(np.zeros(6), Plan(calibrate=10))
    with pytest.raises(InputError, match="E does not change by perturbations of 0.01 to"):
        Plan().calibrated(Parabola(np.zeros((2, 2)), np.zeros(2)), np.zeros(2), updates=10)


# ---- chips and devices


ON_CHIPS = {
    "rate_exponent": {"rate_exponent": 0.6, "rate_delay": 2.0},
    "longest_step": {"longest_step": 1e-3},
    "stop": {"stop_change": 1.0, "stop_every": 4},
    "sigma_exponent": {"sigma_exponent": 0.1},
    "average_from": {"average_from": 3},
    "block": {"block": 1.0, "eta": 20.0},  # such that some are blocked
}


def chip_of(**tables):
    return load_chip("ideal").model_copy(
        update={
            table: getattr(load_chip("ideal"), table).model_copy(update=keys)
            for table, keys in tables.items()
        }
    )


@pytest.mark.parametrize("name", ON_CHIPS)
def test_a_chip_event_by_event_learns_so_or_says_that_it_does_not(xor, name):
    objective, W = xor
    plan, params = Plan(**{"seed": 1, "eta": 0.3, **ON_CHIPS[name]}), load_chip("ideal")
    if name in ("sigma_exponent", "average_from"):
        with pytest.raises(InputError, match=f"{name} = .* is for chips that learn in batches"):
            source(params, objective, plan, W, events=True)
        return
    events = source(params, objective, plan, W, events=True)
    assert isinstance(events, OnChip)
    batch = Batch(objective, plan, precision="float64")
    one, other = after(events, W, plan, 12), after(batch, W, plan, 12)
    np.testing.assert_allclose(one.w, other.w, rtol=0, atol=1e-9)
    bare = Plan(seed=1, eta=plan.eta)
    assert not np.allclose(after(Batch(objective, bare), W, bare, 12).w, other.w, atol=1e-6)


@pytest.mark.parametrize("name", ON_CHIPS)
def test_weights_in_devices_learn_so(xor, name):
    objective, W = xor
    plan = Plan(**{"seed": 1, "eta": 0.3, **ON_CHIPS[name]})
    params = chip_of(weights={"bits": 12})
    made = source(params, objective, plan, W)
    assert isinstance(made, Batch) and made.weights
    state = begin(W, plan)
    written = [s.w.copy() for s in train(made, state, 12, every=1)]
    if name == "longest_step":  # and no cell is off by more than half a step of its converter
        steps = np.linalg.norm(np.diff(written, axis=0), axis=2)
        assert 0 < steps.max()
    if name == "average_from":
        np.testing.assert_allclose(state.result, np.mean(written[3:], axis=0), atol=1e-12)
    if name == "stop":
        assert state.update == 4 and not state.going.any()
    assert not np.array_equal(state.w, W)


def test_calibration_leaves_out_amplitudes_over_which_E_is_no_parabola():
    # without noise a larger amplitude wins nothing; those of the size of the weights and beyond
    # show the average of another E
    net = MLP([2, 4, 1])
    x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    objective = net.objective(x, (x[:, :1] != x[:, 1:]).astype(float))
    for seed in range(3):
        w = net.init(seed)
        for sigma in (0.001, 0.01, 0.1):
            plan = Plan(seed=seed, sigma=sigma).calibrated(objective, w, updates=2000)
            assert sigma <= plan.sigma <= 0.1
        plan = Plan(seed=seed).calibrated(objective, w, updates=2000)
        assert objective.error(after(Batch(objective, plan), w[None], plan, 2000).w[0]) < 1e-3


@pytest.mark.parametrize("K", [1, 4, 16, 64])
def test_calibrated_steps_on_a_diagonal_parabola_go_downhill(K):
    # of a diagonal H signs show the trace alone
    objective = Parabola(np.diag(np.geomspace(0.1, 10, 20)), np.zeros(20))
    w = np.ones(20)
    plan = Plan(trials_per_update=K).calibrated(objective, w, updates=100)
    assert objective.error(after(Batch(objective, plan), w[None], plan, 100).w[0]) < (
        0.1 * objective.error(w)
    )
