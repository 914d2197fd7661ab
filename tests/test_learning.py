"""Learning by perturbation: what an update is, and that it is the same however the work is cut."""

import re
from dataclasses import replace

import naive
import numpy as np
import pytest

from perturb import DAG, MLP, InputError, Objective, Recurrent
from perturb.training import rules
from perturb.training.exact import Exact
from perturb.training.loop import begin, train
from perturb.training.plan import Plan, State
from perturb.training.presentation import presented
from perturb.training.sources import Batch
from perturb.trial.methods import METHODS
from perturb.trial.readout import Reading


@pytest.fixture(scope="module")
def xor():
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    net = MLP([2, 2, 1], output="logistic")
    return net.objective(x, (x[:, :1] != x[:, 1:]).astype(float)), np.array(
        [net.init(seed) for seed in range(3)]
    )


@pytest.fixture(scope="module")
def classes():
    rng = np.random.default_rng(0)
    net = MLP([9, 5, 7, 3], activation="softplus", error="cross_entropy")
    x, labels = rng.standard_normal((41, 9)), rng.integers(0, 3, 41)
    return net.objective(x, labels), np.array([net.init(seed) for seed in range(2)])


def after(source, W, plan, updates):
    state = begin(W, plan)
    source.advance(state, updates)
    return state


PLANS = {
    "central": {},
    "forward, gaussian": {"method": "forward", "code": "gaussian"},
    "walsh, pairs of patterns": {"code": "walsh", "batch": 2},
    "momentum": {"rule": "momentum", "eta": 0.02},
    "periods": {"trials_per_update": 4, "perturb_every": 2, "sample_every": 3, "batch": 3},
    "free baseline, noise": {"method": "forward", "baseline_free": True, "reading": Reading(0.01)},
    "noise and converter": {"reading": Reading(0.02, 10, 4.0), "eta": 0.01},
    "sign": {"rule": "sign", "eta": 1e-3},
    "keep if better": {"rule": "keep-if-better", "eta": 1.0},
    "decay": {"decay": 5.0},
    "ternary": {"code": "ternary"},
    "one weight after another": {"code": "sequential", "trials_per_update": 9},
}


@pytest.mark.parametrize("name", PLANS)
def test_the_loop_is_that_of_the_naive_twin(xor, name):
    objective, W = xor
    plan = Plan(seed=3, **PLANS[name])
    found = after(Batch(objective, plan, precision="float64"), W, plan, 12)
    for run, w in enumerate(W):
        np.testing.assert_allclose(
            found.w[run], naive.learn(objective, w, plan, run, 12), rtol=0, atol=1e-12
        )
    assert np.abs(found.w - W).max() > 1e-3
    assert (found.update, found.trial, found.evaluations) == (
        12,
        12 * plan.trials_per_update,
        12 * plan.evaluations_of_an_update,
    )


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("problem", ["xor", "classes"])
def test_float32_evaluations_change_little(name, problem, request):
    objective, W = request.getfixturevalue(problem)
    plan = Plan(seed=5, **PLANS[name])
    plan = (
        plan if problem == "xor" else replace(plan, eta=0.05 * plan.eta)
    )  # stable for its larger curvature
    single, double = (
        after(Batch(objective, plan, precision=p), W, plan, 40) for p in ("float32", "float64")
    )
    moved = np.abs(double.w - W).max()
    # rounding of E is 1e-7 E, and dE is about 1e-2 E; a reading that rounds to another step of a
    # converter is a step away
    assert np.abs(single.w - double.w).max() < (0.05 if plan.reading.bits else 1e-3) * moved
    assert moved > 1e-4


@pytest.mark.parametrize("changes", [{"rule": "sign"}, {"rule": "keep-if-better", "eta": 1.0}])
def test_auto_keeps_the_signs_of_saturated_units(changes):
    objective = MLP([1, 1], output="logistic").objective([[1.0]], [[0.3]])
    w, plan = np.array([20.0, 0.0]), Plan(**{"eta": 0.1, "sigma": 0.3, **changes})
    found = {
        precision: after(Batch(objective, plan, precision=precision), w, plan, 500).w[0]
        for precision in ("auto", "float64", "float32")
    }
    assert np.array_equal(found["auto"], found["float64"])
    assert objective.error(found["auto"]) < 0.01 * objective.error(w)
    # the control: differences of E near 1e-9 E are none in float32
    assert np.array_equal(found["float32"], w)


SMALL_READINGS = [Reading(1e-5), Reading(0.0, 20)]


@pytest.mark.parametrize(
    "changes, precision",
    [
        ({}, "float32"),
        ({"rule": "momentum"}, "float32"),
        ({"sigma": 1e-4}, "float64"),
        *(({"rule": rule}, "float64") for rule in ("sign", "keep-if-better")),
        *(({"rule": "sign", "reading": reading}, "float64") for reading in SMALL_READINGS),
        ({"rule": "sign", "reading": Reading(1e-3)}, "float32"),
        ({"rule": "keep-if-better", "reading": Reading(0.0, 8)}, "float32"),
        ({"rule": "sign", "reading": Reading(1e-3), "sigma": 1e-4}, "float64"),
    ],
)
def test_auto_takes_float32_where_rounding_does_not_count(xor, changes, precision):
    assert Batch(xor[0], Plan(**changes)).precision == precision


@pytest.mark.parametrize("S", [200, 333])
def test_many_patterns_in_an_evaluation(S):
    rng = np.random.default_rng(4)
    net = MLP([9, 5, 3], error="cross_entropy")
    objective = net.objective(rng.standard_normal((S, 9)), rng.integers(0, 3, S))
    plan, w = Plan(eta=0.02), net.init(0)
    single, double = (
        after(Batch(objective, plan, precision=p), w, plan, 100) for p in ("float32", "float64")
    )
    assert np.abs(single.w - double.w).max() < 1e-3 * np.abs(double.w - w).max()


@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if "code" not in plan])
@pytest.mark.parametrize("problem", ["xor", "classes"])
def test_exact_descent_in_the_kernel_and_in_numpy_agree(name, problem, request):
    objective, W = request.getfixturevalue(problem)
    plan = Plan(**PLANS[name])
    kernel, plain = Exact(objective, plan), Exact(objective, plan)
    assert kernel.compiled
    plain.compiled = False
    a, b = after(kernel, W, plan, 15), after(plain, W, plan, 15)
    np.testing.assert_allclose(a.w, b.w, rtol=0, atol=1e-12)
    assert np.abs(a.w - W).max() > 1e-3


@pytest.mark.parametrize(
    "error, output",
    [
        ("squared_error", "logistic"),
        ("cross_entropy", "linear"),
        ("binary_cross_entropy", "linear"),
    ],
)
@pytest.mark.parametrize("activation", ["linear", "tanh", "logistic", "relu", "softplus"])
def test_an_exact_update_goes_down_the_gradient(error, output, activation):
    rng = np.random.default_rng(1)
    net = MLP([4, 6, 2], activation=activation, output=output, error=error)
    objective = net.objective(rng.standard_normal((7, 4)), np.eye(2)[rng.integers(0, 2, 7)])
    plan, w = Plan(eta=0.5), net.init(0)
    np.testing.assert_allclose(
        after(Exact(objective, plan), w, plan, 1).w[0],
        w - 0.5 * objective.gradient(w),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"batch": 2, "rule": "momentum", "trials_per_update": 3, "reading": Reading(0.01)}],
)
def test_any_split_any_threads_and_any_company_give_the_same_bits(xor, precision, changes):
    objective, W = xor
    plan = Plan(seed=11, **changes)
    whole = after(Batch(objective, plan, threads=1, precision=precision), W, plan, 60)
    parts = begin(W, plan)
    for updates in (1, 7, 30, 22):
        Batch(objective, plan, threads=2, precision=precision).advance(parts, updates)
    assert np.array_equal(parts.w, whole.w) and parts.evaluations == whole.evaluations
    alone = Plan(seed=plan.seed_of(2), **changes)  # run 2 by itself
    assert np.array_equal(
        after(Batch(objective, alone, precision=precision), W[2], alone, 60).w[0], whole.w[2]
    )
    other = Plan(seed=12, **changes)
    assert not np.array_equal(
        after(Batch(objective, other, precision=precision), W, other, 60).w, whole.w
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "momentum"},
        {"rule": "diagonal", "method": "difference"},
        {"rate": "trace", "tune_every": 5},
        {"rule": "newton-cg", "method": "difference", "cg_steps": 2},
        {"rule": "newton-mean", "method": "difference"},
    ],
)
@pytest.mark.parametrize("source", [Batch, Exact])
def test_a_state_that_was_stored_goes_on_to_the_same_bits(xor, tmp_path, source, changes):
    objective, W = xor
    plan = Plan(eta=0.05, **changes)
    whole = after(source(objective, plan), W, plan, 14)
    half = after(source(objective, plan), W, plan, 7)
    np.savez(tmp_path / "state.npz", **half.arrays())
    with np.load(tmp_path / "state.npz") as file:
        again = State.of_arrays(dict(file))
    source(objective, plan).advance(again, 7)
    for name, array in whole.arrays().items():
        assert np.array_equal(again.arrays()[name], array), name


def test_train_yields_the_start_and_every_so_many_updates(xor):
    objective, W = xor
    plan = Plan()
    seen = [
        (state.update, state.w.copy())
        for state in train(Batch(objective, plan), begin(W, plan), 25, every=10)
    ]
    assert [update for update, _ in seen] == [0, 10, 20, 25]
    assert np.array_equal(seen[0][1], W)
    for update, w in seen[1:]:
        assert np.array_equal(w, after(Batch(objective, plan), W, plan, update).w)


def test_patterns_go_by_once_in_random_order_before_any_comes_again():
    rows = presented(seed=4, first=0, count=12, batch=5, n_patterns=20)
    for epoch in rows.reshape(3, 20):
        assert sorted(epoch) == list(range(20))
    assert len({tuple(epoch) for epoch in rows.reshape(3, 20)}) == 3
    assert np.array_equal(presented(4, 7, 2, 5, 20), rows[7:9])
    assert not np.array_equal(presented(5, 0, 12, 5, 20), rows)
    for n_patterns, count in (
        (3, 5000),
        (5000, 2),
    ):  # many passes drawn at once, and one longer than that
        rows = presented(4, 0, count, n_patterns, n_patterns)
        assert (np.sort(rows) == np.arange(n_patterns)).all() and not (rows[0] == rows[1:]).all()
        assert np.array_equal(presented(4, count - 1, 1, n_patterns, n_patterns)[0], rows[-1])


# ---- rules and rates, on a quadratic


@pytest.fixture(scope="module")
def quadratic():
    rng = np.random.default_rng(2)
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    H, minimum = Q @ np.diag([0.1, 0.3, 0.5, 1.0, 2.0, 4.0]) @ Q.T, rng.standard_normal(6)
    objective = Objective.from_functions(
        lambda w: 0.5 * (w - minimum) @ H @ (w - minimum),
        lambda w: H @ (w - minimum),
        lambda w, v: H @ v,
        n_weights=6,
    )
    return objective, H, minimum, np.zeros((2, 6))


def test_newton_cg_solves_a_quadratic_in_as_many_steps_as_weights(quadratic):
    objective, _, minimum, W = quadratic
    plan = Plan(rule="newton-cg", method="difference", eta=1.0, damping=0.0, cg_steps=6)
    np.testing.assert_allclose(
        after(Exact(objective, plan), W, plan, 1).w, [minimum, minimum], atol=1e-10
    )
    few = Plan(rule="newton-cg", method="difference", eta=1.0, damping=0.0, cg_steps=2)
    assert np.abs(after(Exact(objective, few), W, few, 1).w - minimum).max() > 0.01


@pytest.mark.slow
def test_newton_cg_on_the_chips_own_products(quadratic):
    objective, _, minimum, W = quadratic
    # over a double period of a Walsh code g and z are exact on a quadratic
    plan = Plan(
        rule="newton-cg",
        method="difference",
        code="walsh",
        eta=1.0,
        damping=0.0,
        cg_steps=6,
        trials_per_update=16,
    )
    assert np.abs(after(Batch(objective, plan), W, plan, 1).w - minimum).max() < 1e-6
    assert plan.evaluations_of_an_update == 7 * 16 * 4


def test_the_diagonal_rule_divides_by_the_curvature_of_each_weight():
    h = np.array([0.5, 2.0, 8.0])
    objective = Objective.from_functions(
        lambda w: 0.5 * h @ (w - 1) ** 2, lambda w: h * (w - 1), lambda w, v: h * v, n_weights=3
    )
    plan = Plan(rule="diagonal", method="difference", eta=0.5, damping=0.0)
    np.testing.assert_allclose(
        after(Exact(objective, plan), np.zeros(3), plan, 1).w[0], 0.5, rtol=1e-12
    )
    many = Plan(
        rule="diagonal",
        method="difference",
        code="walsh",
        trials_per_update=8,
        eta=0.5,
        damping=0.0,
    )
    np.testing.assert_allclose(
        after(Batch(objective, many), np.zeros(3), many, 1).w[0], 0.5, rtol=1e-6
    )


def test_the_diagonal_rule_leaves_a_weight_that_the_error_does_not_depend_on():
    h = np.array([0.5, 2.0, 0.0])
    objective = Objective.from_functions(
        lambda w: 0.5 * h @ (w - 1) ** 2, lambda w: h * (w - 1), lambda w, v: h * v, n_weights=3
    )
    plan = Plan(rule="diagonal", method="difference", eta=0.5, damping=0.0)
    np.testing.assert_allclose(
        after(Exact(objective, plan), np.zeros(3), plan, 1).w[0], [0.5, 0.5, 0.0], rtol=1e-12
    )


@pytest.mark.slow
def test_rates_come_from_the_trace_the_largest_eigenvalue_and_the_parabola(quadratic):
    objective, H, _, W = quadratic

    def rate(source, kind, **more):
        plan = Plan(rate=kind, eta=1.0, **more)
        return after(source(objective, plan), W, plan, 1).memory["eta"]

    assert rate(Exact, "trace") == pytest.approx(1 / np.trace(H), rel=1e-12)
    assert rate(Exact, "eigenvalue") == pytest.approx(1 / 4.0, rel=1e-9)
    g = objective.gradient(W[0])
    assert rate(Exact, "line") == pytest.approx((g @ g) / (g @ H @ g), rel=1e-12)
    # dE of a pair is D'HD/2: tr H / 2 in the mean, with a variance of sum of H_ij^2 off the
    # diagonal over two
    trials, off = 4000, H - np.diag(np.diag(H))
    stderr = 2 * np.sqrt((off**2).sum() / 2 / trials)
    assert np.abs(1 / rate(Batch, "trace", tune_trials=trials) - np.trace(H)).max() < 5 * stderr
    assert stderr < 0.05 * np.trace(H)
    # l (1 + 1/K) + tr H / K
    wanted = 4.0 * 1.25 + np.trace(H) / 4
    assert 1 / rate(Batch, "eigenvalue", tune_trials=500, trials_per_update=4) == pytest.approx(
        wanted, rel=0.1
    )
    plan = Plan(
        rate="line", eta=1.0, code="walsh", trials_per_update=16
    )  # the exact gradient: a step to the minimum along it
    found = after(Batch(objective, plan), W, plan, 1)
    np.testing.assert_allclose(found.w[0], W[0] - (g @ g) / (g @ H @ g) * g, atol=1e-6)
    assert found.evaluations == 16 * 2 + 3


@pytest.mark.parametrize("source", [Exact, Batch])
def test_the_parabola_that_opens_downward_is_left_as_far_as_its_top_lies_behind(source):
    # E = (w1^2 - w2^2) / 2 from (0, 1): g = (0, -1), curvature -1 along it; a step of 1 leads from
    # w2 = 1 to 2, and not back to 0
    h = np.array([1.0, -1.0])
    objective = Objective.from_functions(
        lambda w: 0.5 * h @ w**2, lambda w: h * w, lambda w, v: h * v, n_weights=2
    )
    plan = Plan(rate="line", eta=1.0, code="walsh", trials_per_update=4)
    np.testing.assert_allclose(
        after(source(objective, plan), np.array([0.0, 1.0]), plan, 1).w[0], [0.0, 2.0], atol=1e-6
    )
    np.testing.assert_allclose(
        after(source(objective, plan), np.array([1.0, 0.0]), plan, 1).w[0], [0.0, 0.0], atol=1e-6
    )


# ---- rates and steps where curvature is negative, zero or not known


def quadratic_of(H, minimum=0.0, slope=0.0):
    H = np.array(H)
    return Objective.from_functions(
        lambda w: 0.5 * (w - minimum) @ H @ (w - minimum) + slope * w.sum(),
        lambda w: H @ (w - minimum) + slope,
        lambda w, v: H @ v,
        n_weights=len(H),
    )


@pytest.mark.slow
def test_no_start_of_exclusive_or_stands_still_by_its_measured_rate(xor):
    objective, _ = xor
    W = np.array([objective.network.init(seed) for seed in range(40)])
    H = [objective.hessian(w) for w in W]
    bad = np.array([np.trace(h) <= 0 for h in H])
    assert 0 < bad.sum() < len(W)
    plan = Plan(rate="trace", eta=0.3)
    found = after(Exact(objective, plan), W, plan, 1)
    wanted = [1 / max(abs(np.trace(h)), np.linalg.norm(h)) for h in H]
    np.testing.assert_allclose(found.memory["eta"], wanted, rtol=1e-9)
    positive = np.array([np.linalg.eigvalsh(h)[0] >= 0 for h in H])
    np.testing.assert_allclose(
        found.memory["eta"][positive], [1 / np.trace(h) for h in np.array(H)[positive]], rtol=1e-9
    )
    for source in (Exact, Batch):
        moved = after(source(objective, plan), W, plan, 1).w
        assert (moved != W).any(axis=1).all()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_spread_of_dE_tells_of_curvature_that_the_trace_does_not(noise):
    # tr H = 0, eigenvalues +-1, +-2, +-3 and nothing on the diagonal
    H = np.zeros((6, 6))
    for k in range(3):
        H[2 * k, 2 * k + 1] = H[2 * k + 1, 2 * k] = k + 1.0
    objective, sigma, T = quadratic_of(H), 0.5, 2000
    plan = Plan(rate="trace", sigma=sigma, tune_trials=T, reading=Reading(noise))
    rates = after(Batch(objective, plan), np.ones((4, 6)), plan, 1).memory["eta"]
    # x = D'HD/sigma^2 is a sum of three +-2 (k+1), and of noise of variance 6 noise^2/sigma^4: E
    # x^4 from the cumulants
    power, own = 2 * (H**2).sum(), 6 * noise**2 / sigma**4
    kappa4 = -2 * sum((2 * (k + 1)) ** 4 for k in range(3))
    stderr = np.sqrt((2 * (power + own) ** 2 + kappa4) / T) / 2  # of |H|_F^2
    assert (np.abs(rates**-2 - (H**2).sum()) < 5 * stderr).all() and stderr < 0.1 * (H**2).sum()


def test_noise_makes_no_rate_larger_than_what_is_known_of_curvature():
    # tr H = 0.02 in noise of 0.5 standard errors of 0.35: one start in some has an estimate next to
    # zero
    H, sigma, T, noise = np.diag([0.01, 0.01]), 0.1, 50, 1e-2
    plan = Plan(rate="trace", sigma=sigma, tune_trials=T, reading=Reading(noise))
    rates = after(Batch(quadratic_of(H), plan), np.full((60, 2), 0.1), plan, 1).memory["eta"]
    stderr = np.sqrt(6 * noise**2 / sigma**4 / T)
    assert rates.max() < 1 / (stderr * (1 - 5 * np.sqrt(1 / (2 * T)))) and rates.min() > 1 / (
        6 * stderr
    )


@pytest.mark.parametrize("rate", ["trace", "line", "eigenvalue"])
@pytest.mark.parametrize("source", [Exact, Batch])
def test_where_E_is_a_straight_line_steps_are_a_hundred_perturbations_at_most(source, rate):
    if rate == "eigenvalue" and source is Batch:
        pytest.skip("a power iteration in rounding")
    objective = quadratic_of(np.zeros((4, 4)), slope=1.0)
    plan = Plan(rate=rate, eta=0.5, sigma=0.25, code="walsh", trials_per_update=8)
    found = after(source(objective, plan), np.zeros(4), plan, 1)
    np.testing.assert_allclose(found.w[0], -0.5 * 100 * 0.25, rtol=1e-9)


def test_the_largest_eigenvalue_counts_by_its_size():
    objective, plan = (
        quadratic_of(np.diag([1.0, -4.0])),
        Plan(rate="eigenvalue", trials_per_update=4, tune_trials=500),
    )
    for source, wanted in ((Exact, 4.0), (Batch, 4.0 * (1 + 1 / 4) + 3.0 / 4)):
        assert 1 / after(source(objective, plan), np.ones(2), plan, 1).memory[
            "eta"
        ] == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("rule", ["newton-cg", "newton-mean"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_newton_step_is_the_same_for_any_unit_of_E(rule, scale):
    # also where curvature along g is negative: (0, 1), for which p was g itself
    for start in ([0.0, 1.0], [1.0, 0.0], [1.0, 0.1]):
        plan = Plan(rule=rule, method="difference", damping=0.0, eta=0.5, cg_steps=2)
        one, other = (
            after(Exact(quadratic_of(c * np.diag([1.0, -1.0])), plan), np.array(start), plan, 1).w
            for c in (1.0, scale)
        )
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)
        assert np.abs(one - start).max() > 0.05


def test_conjugate_gradients_stop_where_curvature_is_rounding():
    # singular, and g has a part that is not in the range of H
    H, g = np.full((2, 2), 1 / 3), np.array([1.0, 0.3])
    objective = Objective.from_functions(
        lambda w: 0.5 * w @ H @ w + g @ w, lambda w: H @ w + g, lambda w, v: H @ v, n_weights=2
    )
    for steps in (1, 2, 5):
        plan = Plan(rule="newton-cg", method="difference", damping=0.0, eta=1.0, cg_steps=steps)
        w = after(Exact(objective, plan), np.zeros(2), plan, 1).w[0]
        assert np.abs(w).max() < 10 and objective.error(w) < 0


def test_newton_steps_by_the_mean_of_H_are_those_of_the_naive_twin(quadratic):
    objective, H, minimum, W = quadratic
    plan = Plan(rule="newton-mean", method="difference", eta=0.4, damping=0.05, seed=3)
    found = after(Exact(objective, plan), W, plan, 9)
    for run, start in enumerate(W):
        np.testing.assert_allclose(
            found.w[run],
            naive.newton_of_mean(H, minimum, start, plan, run, 9),
            rtol=1e-9,
            atol=1e-12,
        )


@pytest.mark.slow
def test_the_mean_over_updates_makes_noisy_products_useful():
    # curvatures from 0.001 to 1, 6,000 evaluations of single trials: products of conjugate
    # gradients are noise
    rng = np.random.default_rng(0)
    Q, minimum = np.linalg.qr(rng.standard_normal((6, 6)))[0], rng.standard_normal(6)
    objective, W, ends = (
        quadratic_of((Q * np.geomspace(1e-3, 1, 6)) @ Q.T, minimum),
        np.zeros((3, 6)),
        {},
    )
    for name, changes in {
        "plain": {"eta": 0.35},
        "mean": {"rule": "newton-mean", "method": "difference", "eta": 1 / 8},
        "cg": {"rule": "newton-cg", "method": "difference", "eta": 1 / 8},
    }.items():
        plan = Plan(**changes)
        with np.errstate(all="ignore"):
            state = after(Batch(objective, plan), W, plan, plan.updates_within(6000))
        ends[name] = np.median([objective.error(w) for w in state.w])
    assert ends["mean"] < 0.3 * ends["plain"] and not ends["cg"] < ends["plain"]


def test_a_rate_beyond_what_tr_H_allows_diverges_and_one_below_does_not(quadratic):
    objective, H, _, W = quadratic
    limit = 2 / np.trace(H)
    for factor, grows in ((0.3, False), (4.0, True)):
        plan = Plan(eta=factor * limit, code="gaussian")
        found = after(Batch(objective, plan), W, plan, 300)
        E = np.array([objective.error(w) for w in found.w])
        assert (E > objective.error(W[0])).all() == grows and (
            E < 0.2 * objective.error(W[0])
        ).all() != grows


def test_a_run_that_diverges_stands_still_and_leaves_the_others_alone():
    net = MLP([1, 1], output="linear", error="squared_error")
    objective = net.objective(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]]))
    W = np.array([[0.1, 0.2], [1e200, 0.0], [0.3, -0.1]])
    plan = Plan(sigma=0.01)
    for precision in ("float32", "float64"):
        with np.errstate(all="ignore"):
            found = after(Batch(objective, plan, precision=precision), W, plan, 20)
        assert list(found.failed) == [-1, 0, -1]
        assert np.array_equal(found.w[1], W[1])
        alone = Plan(sigma=0.01, seed=plan.seed_of(2))
        assert np.array_equal(
            after(Batch(objective, alone, precision=precision), W[2], alone, 20).w[0], found.w[2]
        )


# ---- other networks


@pytest.mark.parametrize("kind", ["dag", "recurrent"])
def test_other_networks_learn_by_the_same_loop(kind):
    rng = np.random.default_rng(3)
    if kind == "dag":
        net = DAG(5, [(0, 2), (1, 2), (0, 3), (2, 3), (2, 4), (3, 4)], inputs=[0, 1], outputs=[4])
        objective = net.objective(rng.standard_normal((6, 2)), 0.5 * rng.standard_normal((6, 1)))
    else:
        net = Recurrent(4, outputs=[3], inputs=[0, 1])
        objective = net.objective(rng.standard_normal((6, 2)), 0.5 * rng.standard_normal((6, 1)))
    w, plan = net.init(0), Plan(eta=0.1, batch=3, method="forward")
    found = after(Batch(objective, plan), w, plan, 10)
    np.testing.assert_allclose(
        found.w[0], naive.learn(objective, w, plan, 0, 10), rtol=0, atol=1e-9
    )
    control = after(Exact(objective, plan), w, plan, 300)
    assert objective.error(control.w[0]) < 0.9 * objective.error(w)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "antithetc"}, "did you mean antithetic"),
        ({"rule": "plane"}, "did you mean plain"),
        ({"rate": "auto"}, "rate = 'auto'"),
        ({"eta": 0.0}, "eta = 0.0 must be a finite number > 0"),
        ({"eta": float("nan")}, "eta = nan must be"),
        ({"momentum": 1.0}, "momentum = 1.0 must be a finite number < 1"),
        ({"trials_per_update": 0}, "trials_per_update = 0 must be an integer >= 1"),
        ({"rule": "keep-if-better", "trials_per_update": 2}, "set trials_per_update = 1"),
        ({"rule": "diagonal"}, 'set method = "difference", not "central"'),
        ({"rule": "newton-mean"}, 'set method = "difference", not "central"'),
        ({"method": "covariance", "code": "lfsr"}, "does not go with"),
        ({"batch": -1}, "batch = -1"),
    ],
)
def test_a_plan_that_cannot_be_says_why_in_one_line(changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Plan(**changes)
    assert "\n" not in str(caught.value)


def test_more_patterns_than_there_are_and_weights_that_do_not_fit(xor):
    objective, W = xor
    with pytest.raises(InputError, match="batch = 5 but there are 4 patterns"):
        Batch(objective, Plan(batch=5))
    with pytest.raises(InputError, match=r"w has shape \(2, 3\)"):
        Batch(objective, Plan()).advance(begin(np.zeros((2, 3)), Plan()), 1)
    with pytest.raises(InputError, match="has no kernel"):
        Batch(objective, Plan(method=METHODS["difference"], rule="diagonal"), precision="float32")


def test_a_rule_is_a_row_of_the_table(monkeypatch, small):
    objective, w, _ = small
    rule = rules.Rule(
        "w -= eta g/|g|",
        lambda x: -x.rates[:, None] * x.G / np.linalg.norm(x.G, axis=1)[:, None],
    )
    monkeypatch.setitem(rules.RULES, "normalised", rule)
    plan = Plan(rule="normalised", eta=0.01)
    assert not plan.needs_z and plan.evaluations_of_an_update == 2
    source = Exact(objective, plan)
    state = begin(w[None], plan)
    source.advance(state, 3)
    expected = w.copy()
    for _ in range(3):
        g = objective.gradient(expected)
        expected -= 0.01 * g / np.linalg.norm(g)
    np.testing.assert_allclose(state.w[0], expected, rtol=1e-12)
