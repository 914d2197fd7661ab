"""The batch kernels, the statistics and their solution."""

import itertools
import re
import subprocess
import sys

import naive
import numpy as np
import pytest
from fast import thinned
from test_codes import LOGISTIC

import perturb
from perturb import CODES, METHODS, MLP, InputError, compare, estimate, predict, solve
from perturb.estimation.design import Design
from perturb.estimation.engine import run_trials
from perturb.estimation.point import Point
from perturb.estimation.statistics import Statistics
from perturb.kernels.float64 import BLOCK
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.objective import Objective
from perturb.trial.codes import lfsr
from perturb.trial.readout import Reading


def design(
    method="difference", code="walsh", n=26, sigma=0.05, r=0.05, seed=4, presentation="batch"
):
    return Design(
        METHODS[method],
        CODES[code] if isinstance(code, str) else code,
        n,
        sigma,
        r,
        seed,
        presentation,
    )


IDEAL = Reading()


def run(point, trials, reading=IDEAL, batch=2048, threads=2, **options):
    objective, w, v = point
    statistics = Statistics(design(n=w.size, **options))
    for count in [trials] if isinstance(trials, int) else trials:
        run_trials(Point(objective, w, v), reading, statistics, count, batch, threads)
    return statistics


# every pair that goes together; the two presentations in turn
FITTING = [
    (m, c)
    for m, c in itertools.product(METHODS, CODES)
    if CODES[c].independent or not METHODS[m].needs_s
]
FITTING += [("difference", lfsr(7)), ("central", lfsr(7, 4))]  # registers of tiles
TRIPLES = [(m, c, ("batch", "pattern")[i % 2]) for i, (m, c) in enumerate(FITTING)]


@pytest.mark.parametrize("method, code, presentation", thinned(TRIPLES, 4))
def test_kernel_and_solution_equal_the_naive_twin(small, method, code, presentation):
    reading = Reading(noise=0.01)
    statistics = run(small, 70, reading, method=method, code=code, presentation=presentation)
    columns = naive.trials(*small, reading, statistics.design, 0, 70)
    sums, totals = naive.sums(*columns, columns[0] @ small[2] * METHODS[method].needs_s)
    size = (
        np.abs(sums).max(1, keepdims=True) + 1e-300
    )  # rounding of E enters relative to the largest term
    np.testing.assert_allclose(statistics.sums / size, sums / size, atol=1e-11)
    np.testing.assert_allclose(
        statistics.totals, totals, rtol=1e-9, atol=1e-11 * np.abs(totals[:4]).max()
    )
    estimated, (g, z) = (
        solve(statistics),
        naive.fit(METHODS[method], statistics.design, *columns, small[2]),
    )
    np.testing.assert_allclose(estimated.gradient, g, atol=1e-7 * np.abs(g).max())
    np.testing.assert_allclose(estimated.hv, z, atol=1e-7 * np.abs(z).max())


class Disguised(Objective):
    """The same function, but not known to be an MLP's: any objective can be perturbed."""

    def __init__(self, inner):
        self.inner, self.n_weights, self.n_patterns, self.depth = (
            inner,
            inner.n_weights,
            inner.n_patterns,
            inner.depth,
        )

    def pattern_errors(self, w):
        return self.inner.pattern_errors(w)

    def gradient(self, w):
        return self.inner.gradient(w)

    def _block(self, w, V):
        return self.inner.error_gradient_hvp(w, V)

    def subset(self, rows):
        return Disguised(self.inner.subset(rows))


@pytest.mark.parametrize(
    "presentation, pair",
    [
        ("batch", {"method": "covariance", "code": "gaussian"}),
        ("pattern", {"method": "covariance", "code": "gaussian"}),
        ("batch", {"method": "difference", "code": lfsr(7, 4)}),
    ],
)
def test_any_objective_gives_the_sums_of_the_kernel(small, presentation, pair):
    objective, w, v = small
    options = {"reading": Reading(0.1, 8, 4.0), "presentation": presentation, **pair}
    kernel, plain = (
        run(small, 200, **options),
        run((Disguised(objective), w, v), [3, 90, 107], **options),
    )
    size = np.abs(kernel.sums).max(1, keepdims=True)
    np.testing.assert_allclose(plain.sums / size, kernel.sums / size, atol=1e-10)
    np.testing.assert_array_equal(
        run((Disguised(objective), w, v), 200, **options).sums, plain.sums
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("error", ["squared_error", "cross_entropy", "binary_cross_entropy"])
def test_kernel_evaluates_every_network(activation, error):
    rng = np.random.default_rng(3)
    net = MLP([3, 5, 4, 2], activation, activation if error == "squared_error" else "linear", error)
    point = (
        net.objective(rng.standard_normal((9, 3)), rng.random((9, 2))),
        3 * net.init(1),
        rng.standard_normal(net.n_weights),
    )
    statistics = run(point, 5, method="covariance", code="gaussian", sigma=0.5)
    _, y, _, _ = naive.trials(*point, Reading(), statistics.design, 0, 5)
    assert statistics.totals[0] == pytest.approx(y.sum(), rel=1e-12, abs=1e-14)
    assert statistics.totals[2] == pytest.approx((y * y).sum(), rel=1e-12)


def test_converter_rounds_and_saturates_as_the_naive_one(small):
    for reading in (Reading(0.02, 6, 1.0), Reading(0.0, 3, 0.5)):
        statistics = run(small, 20, reading, method="covariance", code="rademacher")
        _, y, _, _ = naive.trials(*small, reading, statistics.design, 0, 20)
        assert statistics.totals[0] == pytest.approx(y.sum(), abs=1e-12)


@pytest.mark.parametrize(
    "presentation, pair",
    [
        ("batch", {"method": "covariance", "code": "gaussian"}),
        ("pattern", {"method": "covariance", "code": "gaussian"}),
        ("batch", {"method": "difference", "code": lfsr(7)}),
    ],
)
def test_same_bits_for_any_threads_batches_and_splits(small, presentation, pair):
    options = {"reading": Reading(0.1), "presentation": presentation, **pair}
    whole = run(small, 1000, **options, threads=1)
    others = [
        run(small, 1000, **options, threads=3, batch=BLOCK),
        run(small, [1, 62, 1, 500, 436], **options),
        run(small, 1000, **options, batch=100, threads=5),
    ]
    for other in others:
        np.testing.assert_array_equal(other.sums, whole.sums)
        np.testing.assert_array_equal(other.totals, whole.totals)
    different = run(small, 1000, **{**options, "seed": 5})
    assert not np.array_equal(different.sums, whole.sums)


def test_disjoint_statistics_merge_to_the_whole(small):
    whole, head = run(small, 300), run(small, 130)
    tail = Statistics(head.design, spans=[(130, 130)])
    run_trials(Point(*small), Reading(), tail, 170)
    for merged in (head.merge(tail), tail.merge(head)):
        assert merged.spans == [(0, 300)]
        np.testing.assert_allclose(
            merged.sums, whole.sums, rtol=1e-12, atol=1e-12
        )  # rounding of another order of sums
    with pytest.raises(InputError, match="trials 0..129 are in both"):
        head.merge(head)
    with pytest.raises(InputError, match="different designs"):
        head.merge(run(small, 130, seed=5))
    with pytest.raises(InputError, match="hold no trial"):
        solve(Statistics(head.design))


TEN_THOUSAND = 10_000
PAIRS = list(
    itertools.product(
        METHODS, ("rademacher", "gaussian", "ternary", "uniform", "measured", "walsh", "sine")
    )
)


@pytest.mark.slow
@pytest.mark.parametrize("method, code", PAIRS)
def test_estimates_lie_within_five_standard_errors_of_their_limits(linear, method, code):
    objective, w, v = linear
    estimated = estimate(
        objective, w, v, TEN_THOUSAND, method, code, sigma=0.5, r=0.5, error_noise=0.05, seed=1
    )
    compared = compare(estimated, objective, w, v)
    for quantity in (
        (compared.gradient, compared.hv) if METHODS[method].estimates_hv else (compared.gradient,)
    ):
        assert (np.abs(quantity.estimate - quantity.limit) < 5 * quantity.stderr).all()
    # negative control: the standard errors are small enough to see a wrong limit
    assert (
        np.abs(compared.gradient.estimate - 1.5 * compared.gradient.limit)
        > 5 * compared.gradient.stderr
    ).any()


@pytest.mark.slow
def test_published_estimate_differs_from_the_exact_hv_by_more_than_chance(linear):
    objective, w, v = linear
    compared = compare(
        estimate(objective, w, v, TEN_THOUSAND, "pearlmutter", "gaussian", sigma=0.5),
        objective,
        w,
        v,
    )
    assert (np.abs(compared.hv.estimate - compared.hv.exact) > 5 * compared.hv.stderr).any()
    assert (np.abs(compared.hv.estimate - compared.hv.limit) < 5 * compared.hv.stderr).all()


FORETOLD = [
    ("difference", "rademacher", 0.08),
    ("difference", "ternary", 0.08),
    ("difference", "measured", 0.08),
    ("difference_2point", "uniform", 0.08),
    ("covariance", "rademacher", 0.08),
    # leading in n, here 24
    ("covariance_corrected", "uniform", 0.1),
    ("antithetic_corrected", "uniform", 0.1),
    ("covariance", "measured", 0.1),
    ("pearlmutter_corrected", "gaussian", 0.1),
    ("pearlmutter_corrected", "ternary", 0.1),
    ("pearlmutter", "measured", 0.1),
]


@pytest.mark.parametrize("method, code, slack", FORETOLD)
def test_standard_errors_are_those_predicted(linear24, method, code, slack):
    objective, w, v = linear24
    options = {"method": method, "code": code, "sigma": 0.5, "r": 0.5, "error_noise": 0.05}
    estimated = estimate(objective, w, v, TEN_THOUSAND, **options)
    predicted = predict(objective, w, v, **options)
    # the spread of a variance from 10,000 trials with heavy tails is about 3 %
    assert np.sqrt(np.mean(estimated.gradient_stderr**2)) == pytest.approx(
        predicted.gradient.stderr(TEN_THOUSAND), rel=slack
    )
    assert np.sqrt(np.mean(estimated.hv_stderr**2)) == pytest.approx(
        predicted.hv.stderr(TEN_THOUSAND), rel=slack
    )
    scale = np.sqrt(np.mean(estimated.hv_stderr**2))
    np.testing.assert_allclose(
        estimated.hv_stderr / scale, predicted.hv.stderrs(TEN_THOUSAND) / scale, rtol=3 * slack
    )


@pytest.mark.slow
def test_standard_errors_are_the_scatter_of_seeds(linear24):
    objective, w, v = linear24
    for method, code in (
        ("pearlmutter_corrected", "ternary"),
        ("covariance_corrected", "uniform"),
        ("difference", "measured"),
    ):
        runs = [
            estimate(objective, w, v, 500, method, code, sigma=0.3, r=0.3, error_noise=0.1, seed=s)
            for s in range(100)
        ]
        for quantity in ("gradient", "hv"):
            scatter = np.var([getattr(run, quantity) for run in runs], axis=0, ddof=1).mean()
            stated = np.mean([getattr(run, f"{quantity}_stderr") ** 2 for run in runs])
            # 24 variances of 100 seeds each, were they independent, lie within 3 % of their mean;
            # five of those
            assert stated == pytest.approx(scatter, rel=0.15)


def test_one_walsh_period_is_exact_on_a_quadratic(linear):
    objective, w, v = linear
    period = CODES["walsh"].period(w.size)
    compared = compare(
        estimate(objective, w, v, period, "difference", "walsh", sigma=0.5, r=0.5), objective, w, v
    )
    np.testing.assert_allclose(compared.hv.estimate, compared.hv.exact, atol=1e-12)
    np.testing.assert_allclose(compared.gradient.estimate, compared.gradient.exact, atol=1e-12)
    short = compare(
        estimate(objective, w, v, period - 1, "difference", "walsh", sigma=0.5, r=0.5),
        objective,
        w,
        v,
    )
    assert short.hv.relative_error > 1e-3


def test_one_sided_walsh_aliases_curvature_and_its_fold_over_does_not(linear):
    objective, w, v = linear
    n, sigma, H, g = w.size, 0.5, objective.hessian(w), objective.gradient(w)
    period = CODES["walsh"].period(n)
    sign = [naive.sign(0, 0, i) for i in range(n)]
    alias = np.zeros(n)
    for i, j, k in itertools.product(range(n), repeat=3):
        if (
            j < k and (j + 1) ^ (k + 1) == i + 1
        ):  # the product of two columns of the code is a column of the code
            alias[i] += sigma * H[j, k] * sign[i] * sign[j] * sign[k]
    assert np.abs(alias).max() > 0.01
    once, twice = (
        estimate(objective, w, v, p * period, "covariance", "walsh", sigma=sigma) for p in (1, 2)
    )
    np.testing.assert_allclose(once.gradient - g, alias, atol=1e-12)
    np.testing.assert_allclose(twice.gradient, g, atol=1e-12)


@pytest.mark.parametrize("code", ["walsh", "rademacher"])
def test_prediction_foretells_the_cosine_on_a_curved_network(small, code):
    objective, w, v = small
    options = {"method": "difference", "code": code, "sigma": 0.01, "r": 0.01, "error_noise": 2e-5}
    predicted = predict(objective, w, v, **options)
    runs = [
        compare(estimate(objective, w, v, 128, seed=seed, **options), objective, w, v)
        for seed in range(40)
    ]
    for quantity in ("gradient", "hv"):
        cosines = np.array([getattr(run, quantity).cosine for run in runs])
        spread = cosines.std() / np.sqrt(len(runs))
        # five standard errors, and 1 % for what the expected cosine neglects (a ratio of means for
        # a mean of ratios)
        assert abs(cosines.mean() - getattr(predicted, quantity).cosine(128)) < 5 * spread + 0.01


def test_evaluations_to_a_cosine_are_enough_and_no_more_than_needed(small):
    predicted = predict(*small, method="difference", code="rademacher", error_noise=1e-5).hv
    trials = predicted.trials_for(0.9)
    assert predicted.cosine(trials) >= 0.9 > predicted.cosine(trials - 1)
    assert predicted.evaluations_for(0.9) == 4 * trials
    assert predict(*small, method="covariance", code="rademacher").hv.trials_for(0.999) == np.inf


@pytest.mark.slow
def test_works_where_compiled_code_cannot_be_kept(tmp_path):
    code = """
import numba.core.caching as caching
for kind in vars(caching).values():
    if hasattr(kind, "_locator_classes"):
        kind._locator_classes = []
import numpy as np, perturb
objective = perturb.MLP([1, 1]).objective([[1.0]], [[0.0]])
print(perturb.estimate(objective, np.ones(2), np.ones(2), 8).trials)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "8", done.stderr


@pytest.mark.parametrize(
    "change, message",
    [
        ({"trials": 0}, "trials = 0 must be an integer >= 1"),
        ({"trials": 1.5}, "trials = 1.5 must be"),
        ({"method": "diffrence"}, "did you mean difference?"),
        ({"code": "hadamard"}, "code = 'hadamard' is unknown"),
        ({"sigma": 0.0}, "sigma = 0.0 must be a positive number"),
        ({"r": np.nan}, "r = nan must be a positive number"),
        ({"seed": -1}, "seed = -1 must be an integer from 0"),
        ({"error_noise": -0.1}, "error_noise = -0.1 must be"),
        ({"presentation": "both"}, '"batch" or "pattern"'),
        ({"sigma": "0.1"}, "sigma = '0.1' must be a positive number"),
        ({"sigma": 1e200}, "E is not finite in trial 0"),
        (
            {"sigma": 1e-18},
            (
                r"sigma = 1e-18 is so small that rounding of E = .* hides dE: the smallest useful"
                r" sigma is about \de-1"
            ),
        ),
        ({"r": 1e-16}, "r = 1e-16 and sigma = 0.01 are so small .* hides the curvature"),
        ({"method": "covariance", "code": "lfsr"}, "does not go with code = 'lfsr'"),
        ({"v": np.zeros(26)}, "v is zero"),
        ({"w": np.full(26, np.nan)}, r"w\[0\] = nan is not finite"),
    ],
)
def test_bad_input_is_one_clear_line(small, change, message):
    objective, w, v = small
    objective = (
        MLP([3, 4, 2], "linear").objective(objective.x, objective.target)
        if "sigma" in change
        else objective
    )
    with pytest.raises(InputError, match=message) as caught, np.errstate(all="ignore"):
        estimate(**{"objective": objective, "w": w, "v": v, "trials": 8, **change})
    assert "\n" not in str(caught.value)


def test_v_may_be_zero_for_the_gradient_alone(small):
    objective, w, v = small
    for method in ("forward", "central"):
        found = estimate(objective, w, 0 * v, 64, method, "walsh")
        compared = compare(found, objective, w, 0 * v)
        np.testing.assert_array_equal(
            found.gradient, estimate(objective, w, v, 64, method, "walsh").gradient
        )
        assert (
            compared.gradient.cosine > 0.99
            and np.isnan(compared.hv.cosine)
            and np.isnan(found.hv).all()
        )
        assert np.isfinite(found.gradient_stderr).all() and np.isnan(found.hv_stderr).all()
        predicted = predict(objective, w, v, method, "walsh")
        assert predicted.gradient.cosine(64) > 0.99
        assert np.isnan(predicted.hv.cosine(64)) and predicted.hv.trials_for(0.9) == np.inf


class Cliff(Disguised):
    """Not finite on one side of a plane."""

    def pattern_errors(self, w):
        return super().pattern_errors(w) if w[0] < 0.02 else np.full(self.n_patterns, np.inf)


@pytest.mark.parametrize("code", ["gaussian", LOGISTIC])
def test_a_trial_that_is_not_finite_is_named_and_can_be_replayed(small, code):
    objective, w, v = small
    w = np.append(0.0, w[1:])
    with pytest.raises(InputError, match="E is not finite in trial") as caught:
        estimate(Cliff(objective), w, v, 1000, "forward", code, sigma=0.01, seed=5)
    trial, replay = re.search(r"trial (\d+) .*its perturbation is (.*)", str(caught.value)).groups()
    D = eval(replay, {"perturb": perturb, "logistic": LOGISTIC})
    assert D[0] >= 0.02
    code = CODES.get(code, code) if isinstance(code, str) else code
    assert all(code.draw(26, 0.01, 5, t)[0] < 0.02 for t in range(int(trial)))
    with pytest.raises(InputError, match=r"E\(w\) = inf is not finite"):
        estimate(Cliff(objective), w + 1, v, 10)


def test_a_flat_error_is_no_mistake():
    # every unit is switched off: E does not depend on w, and the estimate of nothing is right
    objective = MLP([2, 3, 1], "relu").objective([[1.0, 1.0]], [[1.0]])
    w = np.concatenate([-np.ones(9), np.zeros(3), [0.0]])
    found = estimate(objective, w, np.ones(13), 64, "difference", "walsh", sigma=1e-3)
    np.testing.assert_allclose(found.gradient[:9], 0.0)


@pytest.mark.slow
def test_incomplete_periods_are_foretold_on_a_network(small):
    objective, w, v = small
    for code, trials in (("walsh", 12), ("sine", 30), ("sequential", 13), ("walsh", 52)):
        options = {"method": "difference", "code": code, "sigma": 1e-3, "r": 1e-3}
        predicted = predict(objective, w, v, **options)
        runs = [
            compare(estimate(objective, w, v, trials, seed=seed, **options), objective, w, v)
            for seed in range(60)
        ]
        for quantity in ("gradient", "hv"):
            errors = np.array([getattr(run, quantity).relative_error for run in runs])
            spread = (errors**2).std() / np.sqrt(len(errors))
            foretold = getattr(predicted, quantity).relative_error(trials)
            assert abs(np.mean(errors**2) - foretold**2) < 5 * spread + 1e-3 * foretold**2
