"""Standard errors say how far estimates are from their limits, or NaN: of every method and code,
and however few trials.
"""

import warnings

import naive
import numpy as np
import pytest
from fast import thinned
from scipy.stats import t as student
from test_chip import chip_of
from test_codes import LOGISTIC
from test_streaming import same_bits

from perturb import (
    CODES,
    METHODS,
    MLP,
    InputError,
    Method,
    Statistics,
    compare,
    estimate,
    predict,
    solve,
)
from perturb.estimation.design import Design
from perturb.estimation.periods import Periods
from perturb.networks.objective import FunctionObjective
from perturb.theory.comparison import QuantityComparison
from perturb.theory.quadratic import curvatures
from perturb.trial.codes import lfsr

NOISY = {"sigma": 0.1, "r": 0.1, "error_noise": 0.003}


def deviations(point, trials, runs, quantity, **options):
    """(estimate - limit)/stderr of runs with seeds of their own, (runs, n), and the degrees of
    freedom.
    """
    objective, w, v = point
    known, found = curvatures(objective, w, v), []
    for seed in range(runs):
        compared = getattr(
            compare(
                estimate(objective, w, v, trials, seed=seed, **options), objective, w, v, known
            ),
            quantity,
        )
        found.append((compared.estimate - compared.limit) / compared.stderr)
    return np.array(found), compared.df


# ---- what cannot be known


@pytest.mark.parametrize("trials", [4, 8, 16])
@pytest.mark.parametrize("method", ["covariance", "antithetic"])
def test_a_weight_whose_walsh_column_has_been_constant_has_no_gradient(linear24, method, trials):
    objective, w, v = linear24
    constant = (
        np.ptp([CODES["walsh"].draw(24, 1.0, 0, trial) for trial in range(trials)], axis=0) == 0
    )
    assert 0 < constant.sum() < 24
    for precision in ("float32", "float64"):
        found = estimate(objective, w, v, trials, method, "walsh", 0.1, precision=precision)
        np.testing.assert_array_equal(np.isnan(found.gradient), constant)
        assert not (found.gradient_stderr == 0).any() and not (found.hv_stderr == 0).any()
        assert any("all trials were alike" in said for said in found.warnings)


@pytest.mark.parametrize("method", ["pearlmutter_intercept", "pearlmutter_corrected", "covariance"])
@pytest.mark.parametrize("trials", [16, 500, 20_000])
def test_a_singular_fit_is_nan_in_either_precision(method, trials):
    # v = e_4 and signs: the regressor of weight 4 is a constant
    rng = np.random.default_rng(0)
    net = MLP([5, 3])
    objective, w = (
        net.objective(rng.standard_normal((8, 5)), rng.standard_normal((8, 3))),
        net.init(0),
    )
    for code in ("rademacher", "walsh"):
        for precision in ("float32", "float64"):
            found = estimate(
                objective, w, np.eye(18)[4], trials, method, code, 0.1, precision=precision
            )
            assert np.isnan(found.hv[4]) and np.isnan(found.hv_stderr[4])
            assert np.isfinite(found.hv).sum() >= 15 and not (found.hv_stderr == 0).any()


def test_a_weight_that_was_never_perturbed_has_no_error(linear24):
    objective, w, v = linear24
    D = np.array([CODES["ternary"].draw(24, 0.1, 3, trial) for trial in range(8)])
    never = ~D.any(0)
    assert 0 < never.sum() < 24
    found = estimate(objective, w, v, 8, "difference", "ternary", 0.1, seed=3)
    np.testing.assert_array_equal(np.isnan(found.gradient_stderr), never)
    np.testing.assert_array_equal(np.isnan(found.hv_stderr), never)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("code", thinned(CODES, 3))
def test_a_single_weight_is_estimated_right_or_not_at_all(method, code):
    if METHODS[method].needs_s and not CODES[code].independent:
        pytest.skip("no such pair")
    one = FunctionObjective(lambda w: float(w @ w) / 2, lambda w: w, lambda w, v: v, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = predict(one, np.ones(1), np.ones(1), method, code)
        for quantity in (predicted.gradient, predicted.hv):
            assert quantity.variances(7).shape == (1,)
        unknown = METHODS[method].estimates_hv and np.isnan(predicted.hv.limit).any()
        assert not unknown or any("cannot be known" in said for said in predicted.warnings)
        for trials in (1, 2, 3, 4, 7, 64):
            found = estimate(one, np.ones(1), np.ones(1), trials, method, code, 0.1)
            limit = compare(found, one, np.ones(1), np.ones(1))
            for value, stderr, tends in (
                (found.gradient, found.gradient_stderr, limit.gradient.limit),
                (found.hv, found.hv_stderr, limit.hv.limit),
            ):
                exact = np.abs(value - tends) < 1e-9
                assert (np.isnan(stderr) | (stderr > 1e-9) | exact).all()


def test_single_trials_have_no_error_and_say_so(linear24):
    for trials in (1, 2):
        found = estimate(*linear24, trials, "covariance", "gaussian", 0.1)
        assert np.isnan(found.gradient_stderr).all() and np.isnan(found.hv_stderr).all()
        assert any("not known" in said for said in found.warnings)


# ---- independent trials


@pytest.mark.slow
@pytest.mark.parametrize("code", ["rademacher", "gaussian", "ternary"])
@pytest.mark.parametrize(
    "method",
    ["pearlmutter", "pearlmutter_intercept", "pearlmutter_corrected", "covariance", "difference"],
)
def test_intervals_of_sixteen_independent_trials_cover(linear24, method, code):
    for quantity in ("gradient", "hv"):
        t, df = deviations(linear24, 16, 60, quantity, method=method, code=code, **NOISY)
        assert df == 16 - 1 - METHODS[method].centred - (METHODS[method].fit == "least_squares")
        seen = t[np.isfinite(t)]
        covered = np.mean(np.abs(seen) < student.ppf(0.975, df))
        # 1,440 of 95 % are known to 0.6 %, five of which are 3 %; products of few trials are not
        # quite normal
        assert 0.92 < covered < 0.99 and len(seen) > 1430
        assert not np.isinf(t).any()


# ---- double periods as replicates


@pytest.mark.parametrize(
    "code", [CODES["walsh"], CODES["sine"], CODES["sequential"], CODES["lfsr"], lfsr(3, 6)]
)
@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_sums_of_a_double_period_are_those_of_its_trials(method, code):
    if method.needs_s and not code.independent:
        pytest.skip("no such pair")
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 13):
        design, v = Design(method, code, n, 0.3, 0.2, 5), rng.standard_normal(n)
        periods = Periods(design)
        for pair in (0, 3):
            trials = np.arange(pair * periods.length, (pair + 1) * periods.length)
            (y, u), s = (
                rng.standard_normal((2, periods.length)),
                code.draw_each(n, 0.3, 5, trials) @ v,
            )
            found = periods.made(range(pair, pair + 1), np.array([y, u, s])[:, None], v)
            expected = naive.over_double_period(design, pair, y, u, s, v)
            rows = {"none": 1, "s_dw": 2}.get(
                method.regressor, 3
            )  # the squares of q only where a fit needs them
            np.testing.assert_allclose(np.array(found)[:rows, 0], expected[:rows], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "quantity, method, code, trials",
    [
        ("gradient", "difference", "walsh", 32),
        ("hv", "difference", "walsh", 64),
        ("gradient", "central", "sine", 98),
        ("hv", "difference_2point", "lfsr", 62),
        ("gradient", "central", "sequential", 72),
        ("gradient", "forward", "walsh", 128),
        ("gradient", "forward", "sequential", 96),
        ("gradient", "difference_2point", "sine", 196),
        ("gradient", "forward", "lfsr", 248),
        ("hv", "antithetic", "walsh", 1000),
        ("hv", "antithetic", "sine", 588),
        ("hv", "covariance", "walsh", 640),
        ("hv", "covariance_corrected", "sine", 980),
        ("hv", "pearlmutter", "walsh", 640),
        ("hv", "pearlmutter_intercept", "sine", 980),
        ("hv", "pearlmutter_corrected", "walsh", 640),
        ("hv", "pearlmutter_corrected", "sine", 980),
    ],
)
def test_errors_of_periodic_codes_are_those_of_their_periods(
    linear24, quantity, method, code, trials
):
    runs = 40
    t, df = deviations(linear24, trials, runs, quantity, method=method, code=code, **NOISY)
    assert np.isfinite(t).all() and df > 0
    # weights of a run share signs and, where their errors are pooled, a variance: a share of the 24
    # is independent
    wide = 5 * np.sqrt(2 / (runs * 12))
    assert np.mean(t**2) == pytest.approx(df / (df - 2), abs=wide * df / (df - 2))
    assert np.mean(np.abs(t) < student.ppf(0.975, df)) == pytest.approx(0.95, abs=0.03)
    # negative control: errors half or twice as large would be seen
    assert not 1 / 4 < wide or not 4 < 1 + wide
    each = np.mean(t**2, axis=0)
    assert each.max() < 4 and each.min() > 0.25  # and of no single weight are they far off


@pytest.mark.slow
def test_so_they_are_for_patterns_and_for_float32(linear24):
    t, df = deviations(
        linear24, 96, 40, "hv", method="difference", code="walsh", precision="float32", **NOISY
    )
    assert np.mean(t**2) == pytest.approx(df / (df - 2), rel=0.35)
    options = {"method": "forward", "code": "walsh", "presentation": "pattern", **NOISY}
    t, df = deviations(linear24, 640, 40, "gradient", **options)
    assert df == 296 and np.mean(t**2) == pytest.approx(df / (df - 2), rel=0.35)


@pytest.mark.parametrize(
    "method, code, trials, why",
    [
        ("central", "walsh", 16, "16 trials do not cover the code's period of 32; take 64 trials"),
        (
            "covariance",
            "walsh",
            64,
            "64 trials are fewer than two double periods of 64; take 128 trials",
        ),
        ("forward", "sine", 49, "49 trials are fewer than a double period of 98; take 98 trials"),
        (
            "difference",
            "walsh",
            1000,
            "from the trials after the last whole period of 32; take 1,024 trials",
        ),
        (
            "difference",
            "sequential",
            50,
            "50 trials are not a multiple of the period of 24; take 72 trials",
        ),
        (
            "pearlmutter",
            "walsh",
            150,
            "from 22 trials after the last double period of 64; take 192 trials",
        ),
        (
            "central",
            lfsr(24, 5),
            1,
            "1 trials do not cover the code's period of 31; take 62 trials",
        ),
    ],
)
def test_what_is_not_known_is_nan_with_a_reason(linear24, method, code, trials, why):
    options = NOISY | {"error_noise": 1e-5}
    found = estimate(*linear24, trials, method, code, **options)
    quantity = "hv" if METHODS[method].needs_s else "gradient"
    assert np.isnan(getattr(found, f"{quantity}_stderr")).all() and np.isnan(
        getattr(found, f"{quantity}_df")
    )
    assert any(said.endswith(why) for said in found.warnings), found.warnings
    more = int(why.rpartition("take ")[2].split()[0].replace(",", ""))
    assert np.isfinite(
        getattr(estimate(*linear24, more, method, code, **options), f"{quantity}_stderr")
    ).all()


def test_without_noise_no_error_is_zero_that_is_not(linear24):
    objective, w, v = linear24
    for method in METHODS:
        for code in ("walsh", "sine"):
            for trials in (16, 32, 49, 64, 96, 98, 128, 196):
                found = estimate(
                    objective, w, v, trials, method, code, 0.1, 0.1, precision="float64"
                )
                compared = compare(found, objective, w, v)
                for quantity in [compared.gradient, compared.hv][
                    : 1 + METHODS[method].estimates_hv
                ]:
                    exact = np.abs(quantity.estimate - quantity.limit) < 1e-9
                    assert (np.isnan(quantity.stderr) | (quantity.stderr > 1e-9) | exact).all()


def test_a_users_periodic_code_has_the_errors_of_its_residual_or_none(linear24):
    walsh = CODES["walsh"]
    own = walsh.from_function(
        "mine", lambda seed, trial, i, j: walsh.draw(24, 1.0, 3, trial % 32, i, j), 1.0, 1.0, 32
    )
    for method in ("central", "forward"):
        options = {"seed": 3, "precision": "float64", **NOISY}
        mine, theirs = (estimate(*linear24, 32, method, code, **options) for code in (own, walsh))
        np.testing.assert_allclose(mine.gradient_stderr, theirs.gradient_stderr)
        assert np.isnan(mine.gradient_stderr).all() == (method == "forward")
    assert any("use a method of pairs" in said for said in mine.warnings)
    assert np.isfinite(estimate(*linear24, 32, "central", LOGISTIC, **NOISY).gradient_stderr).all()


# ---- the sums behind them


@pytest.mark.parametrize(
    "method, code",
    [("covariance", "walsh"), ("pearlmutter_corrected", "sine"), ("forward", lfsr(9, 5))],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_pieces_give_the_bits_of_one_run(linear24, tmp_path, method, code, precision):
    if precision == "float32" and code != "walsh":
        pytest.skip("no kernel")
    options = {"method": method, "code": code, "precision": precision, **NOISY}
    whole, statistics = estimate(*linear24, 1100, **options), None
    for count in (1, 63, 64, 33, 300, 7, 500, 132):
        estimate(*linear24, count, **options, resume=statistics).statistics.save(tmp_path / "s.npz")
        statistics = Statistics.load(tmp_path / "s.npz")
    same_bits(statistics, whole.statistics)
    for one, other in (
        (statistics.periods.sums, whole.statistics.periods.sums),
        (statistics.periods.totals, whole.statistics.periods.totals),
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(solve(statistics).hv_stderr, whole.hv_stderr)
    threaded = estimate(*linear24, 1100, **options, threads=3)
    np.testing.assert_array_equal(threaded.statistics.periods.sums, whole.statistics.periods.sums)


@pytest.mark.parametrize(
    "method, code", [("covariance", "walsh"), ("pearlmutter", "sine"), ("difference", "walsh")]
)
def test_parts_that_begin_within_a_period_merge_to_the_whole(linear24, method, code):
    options = {"method": method, "code": code, "precision": "float64", **NOISY}
    whole, parts = estimate(*linear24, 1176, **options), []
    for first, count in ((500, 300), (0, 310), (800, 376), (310, 190)):
        start = Statistics(whole.design, [(first, first)])
        parts.append(estimate(*linear24, count, **options, resume=start).statistics)
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    assert merged.periods.number == whole.statistics.periods.number
    np.testing.assert_allclose(
        merged.periods.sums, whole.statistics.periods.sums, rtol=1e-9, atol=1e-12
    )
    for name in ("gradient_stderr", "hv_stderr"):
        np.testing.assert_allclose(getattr(solve(merged), name), getattr(whole, name), rtol=1e-6)
    assert solve(parts[0]).gradient_df != solve(merged).gradient_df


@pytest.mark.parametrize("method", ["covariance", "difference", "pearlmutter_corrected"])
def test_events_and_batches_of_a_chip_give_the_same_errors(linear24, method):
    options = {"method": method, "code": "walsh", "sigma": 0.1, "r": 0.1, "precision": "float64"}
    changes = {"error_unit.noise": 0.01}
    batch, event, auto = (
        chip_of(linear24, changes, fidelity=fidelity, **options)
        for fidelity in ("batch", "event", "auto")
    )
    runs = [batch.run(192), event.run(192), auto.run(192)]
    split = chip_of(linear24, changes, fidelity="event", **options)
    split.run(37)
    runs.append(split.run(155))
    ideal = estimate(*linear24, 192, **options, error_noise=0.01 / np.sqrt(12))
    for name in ("gradient_stderr", "hv_stderr"):
        assert np.isfinite(getattr(ideal, name)).all()
        for run in runs:
            np.testing.assert_allclose(getattr(run, name), getattr(ideal, name), rtol=1e-6)
    assert runs[0].hv_df == pytest.approx(ideal.hv_df)


@pytest.mark.parametrize(
    "change", [{"bus.drop_probability": 0.1}, {"synapse.leak": 0.01}, {"bus.latency_ns": 2_000_000}]
)
def test_errors_of_periods_that_synapses_did_not_hear_whole_are_not_known(linear24, change):
    chip = chip_of(
        linear24,
        {"synapses_per_tile": 4, "synapse.fifo_depth": 2, **change},
        fidelity="event",
        code="walsh",
    )
    found = chip.run(128)
    assert np.isnan(found.gradient_stderr).all() and any(
        "did not receive every broadcast" in said for said in found.warnings
    )


def test_sums_of_periods_that_are_damaged_are_refused(linear24, tmp_path):
    path = tmp_path / "s.npz"
    estimate(*linear24, 100, "covariance", "walsh", 0.1).statistics.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    for name, wrong in (("period_sums", np.zeros((3, 24))), ("period_open", np.zeros((3, 1)))):
        np.savez(path, **{**arrays, name: wrong})
        with pytest.raises(InputError, match="cannot be read as statistics"):
            Statistics.load(path)
    np.savez(path, **{name: array for name, array in arrays.items() if name != "period_totals"})
    with pytest.raises(InputError, match="cannot be read as statistics"):
        Statistics.load(path)


# ---- intervals


def test_intervals_are_students(linear24):
    found = estimate(*linear24, 256, "covariance", "walsh", **NOISY)
    assert found.hv_df == 3 and found.gradient_df == 128 - 24
    low, high = found.interval("hv", 0.9)
    np.testing.assert_allclose(
        high - low, 2 * 2.353363 * found.hv_stderr, rtol=1e-6
    )  # the table's t of 3 degrees, 5 % above
    np.testing.assert_allclose((low + high) / 2, found.hv)
    low, high = found.interval("gradient")
    np.testing.assert_allclose(
        high - low, 2 * student.ppf(0.975, found.gradient_df) * found.gradient_stderr
    )
    for wrong in ({"level": 1.0}, {"level": 0.0}):
        with pytest.raises(InputError, match="level"):
            found.interval("hv", **wrong)
    with pytest.raises(InputError, match="quantity"):
        found.interval("hessian")


def test_deviations_with_few_degrees_of_freedom_are_compared_as_normal_ones():
    zero = np.zeros(4)
    for df in (1, 3, 30, np.inf):
        ends = student.ppf([0.975, 0.975, 0.025, 0.975], df)
        assert QuantityComparison(ends, zero + 1, zero, zero, df=df).limit_z_rms == pytest.approx(
            1.959964
        )
    far = [
        QuantityComparison(zero + size, zero + 1, zero, zero, df=50.0).z_rms
        for size in (1e3, 1e6, 1e12)
    ]
    assert np.isfinite(far).all() and far == sorted(far)


@pytest.mark.slow
def test_a_method_with_its_own_even_part_has_the_errors_of_its_double_periods(linear24):
    phases = ((0, 0), (1, 0), (-1, 0))
    one_sided = Method(
        "mine", phases, (-1.0, 1.0, 0.0), (0.0, 0.0, 0.0), "none", "moments", True, "x", "x", "x"
    )
    t, df = deviations(linear24, 128, 40, "gradient", method=one_sided, code="walsh", **NOISY)
    assert df == 64 - 24 and np.mean(t**2) == pytest.approx(df / (df - 2), rel=0.35)
