"""What `predict` says of any method, against every perturbation enumerated, and against
simulation.
"""

import itertools

import numpy as np
import pytest
from conftest import Quadratic
from fast import fast
from test_methods import responses

from perturb import CODES, METHODS, MLP, Method, Objective, best_sigma, compare, estimate, predict
from perturb.networks.objective import FunctionObjective
from perturb.theory import amplitude
from perturb.theory.quadratic import curvature

SIGMA, R = 0.7, 0.3
# five nodes of Gaussian quadrature stand for a continuous distribution: exact up to the ninth
# power; variances need the eighth
hermite_x, hermite_p = np.polynomial.hermite_e.hermegauss(5)
legendre_x, legendre_p = np.polynomial.legendre.leggauss(5)
LEVELS = {
    "rademacher": (np.array([-1.0, 1.0]), np.array([0.5, 0.5])),
    "ternary": (np.sqrt(3) * np.array([-1.0, 0.0, 1.0]), np.array([1 / 6, 2 / 3, 1 / 6])),
    "gaussian": (hermite_x, hermite_p / hermite_p.sum()),
    "uniform": (np.sqrt(3) * legendre_x, legendre_p / 2),
    "sine": (np.sqrt(2) * np.cos(np.pi * np.arange(1, 10, 2) / 10), np.full(5, 0.2)),
}
ONE, PAIR = ((0, 0), (1, 0)), ((0, 0), (1, 0), (-1, 0))
EVEN, ODD = (-1.0, 0.5, 0.5), (0.0, 0.5, -0.5)


def own(name, phases, gradient, hv, regressor, fit, centred, correction="none"):
    return Method(
        name, phases, gradient, hv, regressor, fit, centred, "own", "dE", "own", correction
    )


# every combination of fit, centred, regressor and correction that the constructor allows; weights
# whose dE has a constant part, a part of the gradient other than 0 or 1, of the curvature, or of D
# and v together
FAR = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
OFFSET = (-2.0, 0.5, 0.5, 0.5, 0.5)  # (D'HD + r^2 v.z)/2
CROSS = ((1, 1), (-1, -1), (1, 0), (-1, 0))
OWN = [
    own("even", PAIR, ODD, EVEN, "s_dw", "moments", False),
    own("even, offset", FAR, (0.0, 0.5, -0.5, 0.0, 0.0), OFFSET, "s_dw", "moments", False),
    own("even, offset, centred", FAR, (0.0, 0.5, -0.5, 0.0, 0.0), OFFSET, "s_dw", "moments", True),
    own("one-sided", ONE, (-1.0, 1.0), (-1.0, 1.0), "s_dw", "moments", False),
    own("between", PAIR, (-0.5, 0.75, -0.25), (-1.0, 0.75, 0.25), "s_dw", "moments", True),
    own(
        "between, not centred",
        PAIR,
        (-0.5, 0.75, -0.25),
        (-1.0, 0.75, 0.25),
        "s_dw",
        "moments",
        False,
    ),
    own(
        "between, corrected",
        PAIR,
        (-0.5, 0.75, -0.25),
        (-1.0, 0.75, 0.25),
        "s_dw",
        "moments",
        True,
        "diagonal",
    ),
    own("b", PAIR, ODD, EVEN, "b", "moments", True),
    own("b, not centred", ONE, (-1.0, 1.0), (-1.0, 1.0), "b", "moments", False),
    own(
        "fit, offset",
        FAR,
        (-2.0, 1.0, 0.0, 0.5, 0.5),
        (-2.0, 1.0, 0.0, 0.5, 0.5),
        "b",
        "least_squares",
        False,
    ),
    own(
        "fit, offset, centred",
        FAR,
        (-2.0, 1.0, 0.0, 0.5, 0.5),
        (-2.0, 1.0, 0.0, 0.5, 0.5),
        "b",
        "least_squares",
        True,
    ),
    own("cross", CROSS, (0.0, 0.0, 0.5, -0.5), (0.5, 0.5, -0.5, -0.5), "dw", "moments", False),
    own(
        "cross, centred",
        CROSS,
        (0.0, 0.0, 0.5, -0.5),
        (0.5, 0.5, -0.5, -0.5),
        "dw",
        "moments",
        True,
    ),
    own("together", CROSS, (0.5, 0.5, 0.0, -1.0), (0.5, 0.5, -0.5, -0.5), "dw", "moments", False),
    own("gradient", PAIR, (-0.5, 0.75, -0.25), (0.0, 0.0, 0.0), "none", "moments", True),
]
ALL = [*METHODS.values(), *OWN]


def objective_of(E):
    return Objective.from_functions(
        E, lambda w: E.g + E.H @ w, lambda w, v: E.H @ v, n_weights=E.g.size
    )


def enumerated(method, code, E):
    """Limit of g and z, and variance of one trial of each, from every perturbation with its
    probability.
    """
    x, p = LEVELS[code]
    n, v = E.g.size, E.v
    D = SIGMA * np.array(list(itertools.product(x, repeat=n)))
    p = np.array(list(itertools.product(p, repeat=n))).prod(1)
    y, u, q = responses(method, E, D, D, CODES[code].kurtosis)
    if method.centred:
        y, u, q = y - p @ y, u - p @ u, q - p @ q
    if method.fit == "moments":
        found = (
            y[:, None] * D / SIGMA**2,
            u[:, None] * q / (R * SIGMA**2 if method.regressor == "dw" else SIGMA**4),
        )
    else:
        g, z = p @ (y[:, None] * D) / SIGMA**2, p @ (y[:, None] * q) / (p @ q**2)
        left = y[:, None] - D * g - q * z
        found = [g + D * left / SIGMA**2, z + q * left / (p @ q**2)]
        if method.correction == "along":
            s2, V = (D @ v) ** 2 - SIGMA**2 * (v @ v), v @ v
            found[1] = found[1] * (1 - v**2 / (2 * V)) + v / (2 * V) * (u * s2)[:, None] / SIGMA**4
    return [(p @ each, p @ each**2 - (p @ each) ** 2) for each in found]


@pytest.mark.parametrize("code", LEVELS)
@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
@pytest.mark.parametrize("n", fast([1, 2, 4], 1, 2))
def test_limit_and_variance_of_each_weight_are_exact_for_every_method(method, code, n):
    E = Quadratic(n, seed=n)
    found = predict(objective_of(E), np.zeros(n), E.v, method, code, SIGMA, R)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = enumerated(method, code, E)
    for predicted, (tends, variance) in zip((found.gradient, found.hv), exact, strict=True):
        if predicted is found.hv and not method.estimates_hv:
            assert np.isnan(predicted.limit).all() and np.isnan(predicted.variances(8)).all()
        elif (
            n == 1
            and CODES[code].kurtosis == 1
            and method.fit == "least_squares"
            and method.centred
        ):
            assert (
                np.isnan(predicted.limit).all() and np.isnan(predicted.variances(8)).all()
            )  # a constant regressor
        else:
            np.testing.assert_allclose(predicted.limit, tends, atol=1e-10)
            if code != "sine":  # whose variance after K trials is that of a period
                trials = 10**9  # so many that what few of them add is gone
                np.testing.assert_allclose(
                    predicted.variances(trials) * trials, variance, rtol=1e-7, atol=1e-7
                )
            np.testing.assert_allclose(predicted.trial.total, variance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("code", ["rademacher", "ternary"])
@pytest.mark.parametrize(
    "method", [method for method in ALL if method.fit == "moments"], ids=lambda method: method.name
)
def test_mean_and_variance_of_a_few_trials_are_exact(method, code):
    n, E, trials = 2, Quadratic(2), 3
    x, p = LEVELS[code]
    one = SIGMA * np.array(list(itertools.product(x, repeat=n)))
    p = np.array(list(itertools.product(p, repeat=n))).prod(1)
    each = np.array(list(itertools.product(range(len(one)), repeat=trials)))  # every three trials
    p, D = p[each].prod(1), one[each]
    y, u, q = (
        a.reshape(len(each), trials, -1)
        for a in responses(method, E, *[D.reshape(-1, n)] * 2, CODES[code].kurtosis)
    )
    if method.centred:
        y, u = y - y.mean(1, keepdims=True), u - u.mean(1, keepdims=True)
    predicted = predict(objective_of(E), np.zeros(n), E.v, method, code, SIGMA, R)
    scale = R * SIGMA**2 if method.regressor == "dw" else SIGMA**4
    for theory, found in (
        (predicted.gradient, (y * D).mean(1) / SIGMA**2),
        (predicted.hv, (u * q).mean(1) / scale),
    ):
        if theory is predicted.gradient or method.estimates_hv:
            np.testing.assert_allclose(theory.expected(trials), p @ found, atol=1e-10)
            np.testing.assert_allclose(
                theory.variances(trials), p @ found**2 - (p @ found) ** 2, rtol=1e-9, atol=1e-12
            )


class Simulated(FunctionObjective):
    """E = g.w + w'Hw/2 of many points at once."""

    def __init__(self, E):
        super().__init__(E, lambda w: E.g + E.H @ w, lambda w, v: E.H @ v, E.g.size)
        self.E = E

    def errors_at(self, points):
        return (points @ self.E.g + ((points @ self.E.H) * points).sum(1) / 2)[:, None]


def positive(n, seed):
    rng, E = np.random.default_rng(seed), Quadratic(n, seed)
    A = rng.standard_normal((n, n)) / np.sqrt(n)
    E.H = A @ A.T
    E.z = E.H @ E.v
    return E


def test_a_mean_product_tends_to_z_and_the_trace_leaks_in():
    # with fit = "moments" and not centred: z_i + tr(H) v_i/2, of which the whole bias is said, and
    # why
    E, n = positive(12, 3), 12
    even = OWN[0]
    predicted = predict(Simulated(E), np.zeros(n), E.v, even, "gaussian", 0.1)
    np.testing.assert_allclose(predicted.hv.limit, E.z + np.trace(E.H) / 2 * E.v, rtol=1e-12)
    found = compare(
        estimate(Simulated(E), np.zeros(n), E.v, 20_000, even, "gaussian", 0.1),
        Simulated(E),
        np.zeros(n),
        E.v,
    ).hv
    assert 0.5 < found.limit_z_rms < 1.6  # 12 weights: five standard errors of an rms of 1 are 1
    assert found.z_rms > 5  # negative control
    assert abs(found.cosine - predicted.hv.cosine(20_000)) < 0.02
    assert "tr H in it, is left in; use centred = True" in predicted.warnings[0]


def scatter(E, n, method, code, trials, sigma, seeds):
    """rms of the estimates of z about their mean over seeds, and its standard error."""
    runs = np.array(
        [
            estimate(Simulated(E), np.zeros(n), E.v, trials, method, code, sigma, seed=s).hv
            for s in range(seeds)
        ]
    )
    squares = ((runs - runs.mean(0)) ** 2).sum(1) * seeds / (seeds - 1)
    mean = squares.mean() ** 0.5
    return mean, squares.std() / seeds**0.5 / (2 * mean), runs


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, code, n",
    [
        ("pearlmutter_corrected", "rademacher", 18),
        ("pearlmutter_corrected", "rademacher", 3),
        ("pearlmutter", "ternary", 18),
        ("pearlmutter_intercept", "rademacher", 2),
        ("antithetic", "gaussian", 9),
        ("covariance_corrected", "uniform", 2),
    ],
)
def test_scatter_of_z_is_as_predicted_for_few_weights(method, code, n):
    E, sigma, trials = positive(n, n), 0.3, 400
    theory = predict(Simulated(E), np.zeros(n), E.v, method, code, sigma).hv
    found, spread, runs = scatter(E, n, method, code, trials, sigma, 120)
    expected = theory.total_variance(trials) ** 0.5
    # five standard errors; a fit of 400 trials is off by some per cent of what infinitely many
    # would give
    assert abs(found - expected) < 5 * spread + 0.05 * expected * (
        METHODS[method].fit == "least_squares"
    )
    assert abs(found - 1.8 * expected) > 5 * spread + 0.05 * expected  # negative control
    # each weight's, which 120 runs know to 6.5 % (one of 18 is off by three times that, and the fit
    # by its 5 %)
    each = runs.std(0, ddof=1) / theory.stderrs(trials)
    assert 0.7 < each.min() <= each.max() < 1.4


@pytest.mark.slow
def test_cosine_of_few_trials_of_an_even_part_is_as_predicted():
    # Gaussian, K = 64: the variance leading in n alone gave a cosine 7 % too large
    E, n, trials = positive(26, 27), 26, 64
    theory = predict(Simulated(E), np.zeros(n), E.v, "antithetic", "gaussian", 0.3).hv
    _, _, runs = scatter(E, n, "antithetic", "gaussian", trials, 0.3, 2500)
    cosines = runs @ E.z / np.linalg.norm(runs, axis=1) / np.linalg.norm(E.z)
    assert abs(cosines.mean() - theory.cosine(trials)) < 5 * cosines.std() / 50


def test_one_weight_is_predicted_without_a_warning_of_numpy(recwarn):
    objective = Objective.from_functions(
        lambda w: float(w @ w), lambda w: 2 * w, lambda w, v: 2 * v, n_weights=1
    )
    for method in ALL:
        for code in CODES.values():
            if code.independent or not method.needs_s:
                theory = predict(objective, np.ones(1), np.ones(1), method, code, error_noise=0.1)
                for part in (theory.gradient, theory.hv)[: 1 + method.estimates_hv]:
                    assert np.isnan(part.stderr(64)) == np.isnan(part.limit).any()
                    # a covariance with a constant is 0, and known to be
                    assert part.stderr(64) > 0 or np.isnan(part.limit).any() or not part.limit.any()
                if np.isnan(theory.hv.limit).any() and method.estimates_hv:
                    assert "g and z of 1 of 1 weights cannot be known" in theory.warnings[0]
    assert not recwarn


# ---- patterns one at a time


def patterned(S, layers=(5, 3), seed=0):
    rng = np.random.default_rng(seed)
    net = MLP(list(layers), "tanh")
    # patterns of very different sizes, which no few of them represent
    x = rng.standard_normal((S, layers[0])) * rng.lognormal(0.0, 1.0, (S, 1))
    return (
        net.objective(x, rng.standard_normal((S, layers[-1]))),
        net.init(1),
        rng.standard_normal(net.n_weights),
    )


BIASED = [
    ("covariance", "rademacher"),
    ("pearlmutter", "gaussian"),
    ("difference", "lfsr"),
    ("pearlmutter_corrected", "uniform"),
]


@pytest.mark.parametrize("method, code", BIASED)
@pytest.mark.parametrize("layers, S", [((5, 3), 300), ((24, 6), 70)])  # 18 and 150 weights
def test_the_limit_of_patterns_one_at_a_time_is_that_of_the_batch(method, code, layers, S):
    objective, w, v = patterned(S, layers)
    batch, pattern = (
        predict(objective, w, v, method, code, 0.01, presentation=p) for p in ("batch", "pattern")
    )
    np.testing.assert_allclose(pattern.hv.limit, batch.hv.limit, rtol=1e-12)
    np.testing.assert_allclose(pattern.gradient.limit, batch.gradient.limit, rtol=1e-12)
    assert pattern.trace == batch.trace and pattern.eta_max == batch.eta_max
    run = estimate(objective, w, v, 64, method, code, 0.01, presentation="pattern")
    np.testing.assert_allclose(compare(run, objective, w, v).hv.limit, batch.hv.limit, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("S", [40, 300])
@pytest.mark.parametrize(
    "method, code",
    [("covariance", "rademacher"), ("difference", "walsh"), ("antithetic", "ternary")],
)
def test_scatter_of_patterns_one_at_a_time_is_as_predicted_within_its_own_uncertainty(
    method, code, S
):
    objective, w, v = patterned(S)
    trials = 400
    predicted = predict(objective, w, v, method, code, 0.02, 0.02, presentation="pattern")
    runs = [
        estimate(objective, w, v, trials, method, code, 0.02, 0.02, seed=s, presentation="pattern")
        for s in range(100)
    ]
    for name in ("gradient", "hv"):
        theory = getattr(predicted, name)
        squares = np.array(
            [((getattr(run, name) - theory.expected(trials)) ** 2).sum() for run in runs]
        )
        spread, expected = squares.std() / 10, theory.total_variance(trials)
        assert abs(squares.mean() - expected) < 5 * np.hypot(spread, theory.unsure * expected)
        assert (theory.unsure > 0) == (S == 300)
        assert any("sample of patterns" in line for line in predicted.warnings) == (S == 300)


def test_a_diagonal_from_sign_vectors_says_how_far_the_limit_is_known():
    objective, w, v = patterned(40, (12, 6))
    exact, sampled = curvature(objective, w, v), curvature(objective, w, v, probes=64)
    limits = [
        predict(objective, w, v, "covariance", "rademacher", known=[known])
        for known in (exact, sampled)
    ]
    error, stderr = limits[1].hv.limit - limits[0].hv.limit, limits[1].hv.limit_stderr
    assert limits[0].hv.limit_stderr is None and not any(
        "sign vectors" in line for line in limits[0].warnings
    )
    assert 0.6 < np.sqrt(np.mean((error / stderr) ** 2)) < 1.5  # 78 weights
    assert any("needs the diagonal of H, from" in line for line in limits[1].warnings)
    # what needs no diagonal is as certain as ever
    assert (
        predict(objective, w, v, "difference", "rademacher", known=[sampled]).hv.limit_stderr
        is None
    )


# ---- the best amplitude


@pytest.mark.parametrize(
    "method", ["forward", "central", "covariance", "difference", "pearlmutter"]
)
def test_the_best_sigma_needs_a_few_predictions_only_and_is_the_best(method, small, monkeypatch):
    objective, w, v = small
    calls, trials, noise = [], 100, 1e-3
    original = amplitude.predict
    monkeypatch.setattr(
        amplitude, "predict", lambda *given, **named: calls.append(1) or original(*given, **named)
    )
    found = best_sigma(objective, w, v, method, "gaussian", trials, error_noise=noise)
    assert 0 < len(calls) < 20

    def wrong(sigma, name):
        theory = getattr(
            predict(objective, w, v, method, "gaussian", sigma, error_noise=noise), name
        )
        beyond = amplitude.truncation(objective, w, v, method, sigma, known=higher)[name == "hv"]
        off = np.linalg.norm(theory.expected(trials) - theory.exact)
        return beyond**2 + off**2 + theory.total_variance(trials)

    higher = amplitude.higher_order_terms(objective, w, v)
    for sigma, name in zip(found, ("gradient", "hv"), strict=True):
        if name == "gradient" or METHODS[method].estimates_hv:
            unbiased = (
                name == "gradient" or method == "difference"
            )  # else the biases meet, which truncation does not say
            assert not unbiased or wrong(sigma, name) <= min(
                wrong(sigma * 1.2, name), wrong(sigma / 1.2, name)
            )
