"""What the methods tend to, by enumerating every perturbation: no luck, no tolerance for it."""

import itertools

import numpy as np
import pytest
from conftest import Quadratic

from perturb import CODES, METHODS, InputError
from perturb.methods import Method
from perturb.theory import Curvature, _trial_variance, limit

SIGMA, R, NOISE = 0.7, 0.3, 0.0
N = 4
# nodes and probabilities per weight. Four nodes of Gauss-Hermite quadrature stand for the normal distribution: they are exact up
# to the seventh power, and nothing below needs more than the sixth
hermite_x, hermite_p = np.polynomial.hermite_e.hermegauss(4)
LEVELS = {
    "rademacher": (np.array([-1.0, 1.0]), np.array([0.5, 0.5])),
    "ternary": (np.sqrt(3) * np.array([-1.0, 0.0, 1.0]), np.array([1 / 6, 2 / 3, 1 / 6])),
    "gaussian": (hermite_x, hermite_p / hermite_p.sum()),
}


def curvature(E):
    rows = (E.H**2).sum(0) - np.diag(E.H) ** 2
    return Curvature(E.g, E.z, E.v, np.diag(E.H), rows)


def every_trial(method, code, E):
    """All perturbations with their probabilities p (K,), D (K, n), broadcasts y, u (K,) and regressors q (K, n)."""
    x, p = LEVELS[code]
    D = SIGMA * np.array(list(itertools.product(x, repeat=N)))
    p = np.array(list(itertools.product(p, repeat=N))).prod(1)
    errors = np.array([[E(a * d + b * R * E.v) for a, b in method.phases] for d in D])
    s, V = D @ E.v, E.v @ E.v
    q = {"dw": D, "s_dw": s[:, None] * D, "b": s[:, None] / V * (D - s[:, None] * E.v / (2 * V))}[method.regressor]
    return p, D, errors @ method.gradient_weights, errors @ method.hv_weights, q


CASES = list(itertools.product(METHODS, LEVELS))


@pytest.mark.parametrize("name, code", CASES)
def test_each_method_tends_to_its_predicted_limit(name, code):
    method, E = METHODS[name], Quadratic(N)
    p, D, y, u, q = every_trial(method, code, E)
    if method.fit == "moments":
        scale = R * SIGMA**2 if method.regressor == "dw" else SIGMA**4
        g, z = (p * y) @ D / SIGMA**2, (p * (u - p @ u)) @ q / scale
        np.testing.assert_allclose(g, E.g, atol=1e-10)
    else:
        z = np.empty(N)
        for i in range(N):
            X = np.stack([D[:, i], q[:, i]] + [np.ones(len(p))] * method.centred, axis=1)
            fit = np.linalg.solve(X.T @ (p[:, None] * X), X.T @ (p * y))
            assert fit[0] == pytest.approx(E.g[i], abs=1e-10)
            z[i] = fit[1]
    expected = limit(method, CODES[code], curvature(E))
    np.testing.assert_allclose(z, expected, atol=1e-10)
    unbiased = name == "difference" or (method.fit == "moments" and code != "rademacher")
    assert np.allclose(expected, E.z, atol=1e-10) == unbiased


def test_published_estimator_on_the_identity_gives_25_6_and_with_an_intercept_0_50():
    ones, zeros = np.ones(100), np.zeros(100)
    identity = Curvature(zeros, ones, ones, ones, zeros)
    np.testing.assert_allclose(limit(METHODS["pearlmutter"], CODES["gaussian"], identity), 25.6, atol=0.05)
    np.testing.assert_allclose(limit(METHODS["pearlmutter_intercept"], CODES["gaussian"], identity), 0.50, atol=0.005)
    np.testing.assert_allclose(limit(METHODS["difference"], CODES["rademacher"], identity), 1.0)


def test_gaussian_limits_are_the_closed_forms():
    E = Quadratic(N)
    V, v, z = E.v @ E.v, E.v, E.z
    published = (z + v * np.trace(E.H) / 4 - v * (v @ z) / (2 * V)) / (1 - v**2 / (4 * V))
    intercept = (z - v * (v @ z) / (2 * V)) / (1 - v**2 / (2 * V))
    np.testing.assert_allclose(limit(METHODS["pearlmutter"], CODES["gaussian"], curvature(E)), published, rtol=1e-12)
    np.testing.assert_allclose(limit(METHODS["pearlmutter_intercept"], CODES["gaussian"], curvature(E)), intercept, rtol=1e-12)


# of these the variance formulas are exact, not only leading in n
EXACT_G = [(name, code) for name, code in CASES]
EXACT_Z = [("difference", code) for code in LEVELS] + [("covariance", "rademacher"), ("antithetic", "rademacher")]


@pytest.mark.parametrize("name, code", EXACT_G)
def test_variance_of_one_gradient_trial_is_as_predicted(name, code):
    method, E = METHODS[name], Quadratic(N)
    p, D, y, _, _ = every_trial(method, code, E)
    if method.centred:
        y = y - p @ y
    product = y[:, None] * D / SIGMA**2
    variance = (p @ product**2 - (p @ product) ** 2).sum()
    assert _trial_variance(method, CODES[code], curvature(E), SIGMA, R, NOISE)[0] == pytest.approx(variance, rel=1e-10)


@pytest.mark.parametrize("name, code", EXACT_Z)
def test_variance_of_one_hv_trial_is_as_predicted(name, code):
    method, E = METHODS[name], Quadratic(N)
    p, _, _, u, q = every_trial(method, code, E)
    scale = R * SIGMA**2 if method.regressor == "dw" else SIGMA**4
    product = (u - p @ u)[:, None] * (q - p @ q) / scale
    variance = (p @ product**2 - (p @ product) ** 2).sum()
    assert _trial_variance(method, CODES[code], curvature(E), SIGMA, R, NOISE)[1] == pytest.approx(variance, rel=1e-10)


def test_linear_part_of_the_gradient_variance_is_n_plus_k_minus_2():
    E = Quadratic(N)
    E.H[:] = 0.0
    for code, expected in (("rademacher", N - 1), ("gaussian", N + 1), ("ternary", N + 1)):
        total = _trial_variance(METHODS["covariance"], CODES[code], curvature(E), SIGMA, R, 0.0)[0]
        assert total == pytest.approx(expected * E.g @ E.g, rel=1e-12)


def test_a_method_whose_weights_give_another_derivative_is_refused():
    with pytest.raises(InputError, match=r"dE_g\[10\]"):
        Method("half", ((0, 0), (1, 0)), (-0.5, 0.5), (-1.0, 1.0), "s_dw", "moments", True, "extension", "dE", "wrong")
    with pytest.raises(InputError, match=r"dE_z\[00\]"):
        Method("offset", ((0, 0), (1, 0)), (-1.0, 1.0), (0.0, 1.0), "s_dw", "moments", True, "extension", "dE", "wrong")
