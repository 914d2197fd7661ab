"""Learning curves and limits, against exact enumeration (expectations over every D and noise) and simulation."""

import itertools

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from perturb import CODES, Code, InputError, curves

SQRT3 = np.sqrt(3.0)
# one component in units of sigma, (values, probabilities): the codes themselves, or quadratures exact to degree 7, which an E after
# two updates does not exceed in any component of any D
DRAWS = {
    "rademacher": (np.array([-1.0, 1.0]), np.array([0.5, 0.5])),
    "ternary": (np.array([-SQRT3, 0.0, SQRT3]), np.array([1.0, 4.0, 1.0]) / 6),
    "gaussian": (hermegauss(4)[0], hermegauss(4)[1] / hermegauss(4)[1].sum()),
    "uniform": (SQRT3 * np.polynomial.legendre.leggauss(4)[0], np.polynomial.legendre.leggauss(4)[1] / 2),
}
NORMAL3 = (hermegauss(3)[0], hermegauss(3)[1] / hermegauss(3)[1].sum())  # exact to degree 5


def grid(*components):
    """Every combination of independent components, (outcomes, components), and its probability."""
    values = np.array(list(itertools.product(*(value for value, _ in components))))
    chances = np.array(list(itertools.product(*(chance for _, chance in components))))
    return values.reshape(-1, len(components)), chances.prod(-1)


def matrix(n, seed=0, diagonal=False):
    A = np.random.default_rng(seed).standard_normal((n, n))
    H = A @ A.T / n + 0.2 * np.eye(n)
    return np.diag(H.diagonal()) if diagonal else H


def estimates(u, x, xi, H, sigma, pair):
    """G = dE D/sigma^2 of u (..., n), x (..., n) = D/sigma, xi (..., phases)."""
    D = sigma * x
    error = lambda u: np.einsum("...i,ij,...j", u, H, u) / 2
    dE = (error(u + D) + xi[..., 0] - error(u - D) - xi[..., 1]) / 2 if pair else error(u + D) - error(u) + xi[..., 0]
    return dE[..., None] * x / sigma


def enumerated(H, u0, eta, sigma, code, noise, updates, trials=1, pair=False, mu=0.0, gains=1.0):
    """E E after 0..updates updates, over every outcome of every trial."""
    n = len(u0)
    two = (np.array([-noise, noise]), np.array([0.5, 0.5])) if noise else (np.zeros(1), np.ones(1))
    one, chance = grid(*[DRAWS[code]] * n, *[two] * (1 + pair))
    picks = np.array(list(itertools.product(range(len(one)), repeat=trials)))
    u, p, weight = u0[None], np.zeros((1, n)), np.ones(1)
    E = [u0 @ H @ u0 / 2]
    for _ in range(updates):
        G = np.mean([estimates(u[:, None], one[picks[:, k], :n], one[picks[:, k], n:], H, sigma, pair) for k in range(trials)], axis=0)
        p = mu * p[:, None] - eta * gains * G
        u, p = (u[:, None] + p).reshape(-1, n), p.reshape(-1, n)
        weight = (weight[:, None] * chance[picks].prod(1)).ravel()
        E.append(float(weight @ np.einsum("ai,ij,aj->a", u, H, u)) / 2)
    return np.array(E)


@pytest.mark.parametrize("kind", ["gradient", "node", "weight-gaussian", "weight-rademacher", "antithetic"])
@pytest.mark.parametrize("N, M", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_perceptron_recursion_is_the_enumerated_expectation(kind, N, M):
    eta, sigma, noise = 0.07, 0.6, 0.3
    W = np.random.default_rng(N + 2 * M).standard_normal((M, N))  # less W*
    inputs, chance_x = grid(*[NORMAL3] * N)
    rademacher = kind == "weight-rademacher"
    size = {"gradient": 0, "node": M}.get(kind, M * N)
    phases = {"gradient": 0, "antithetic": 2}.get(kind, 1)
    two = (np.array([-noise, noise]), np.array([0.5, 0.5]))
    drawn, chance_D = grid(*[DRAWS["rademacher" if rademacher else "gaussian"]] * size, *[two] * phases)
    after = 0.0
    for x, chance in zip(inputs, chance_x, strict=True):
        y = W @ x
        if kind == "gradient":
            G = np.outer(y, x)[None]
        else:
            D, xi = sigma * drawn[:, :size], drawn[:, size:]
            moved = D if kind == "node" else D.reshape(-1, M, N) @ x
            up, down = (((y + sign * moved) ** 2).sum(1) / 2 for sign in (1, -1))
            dE = (up + xi[:, 0] - down - xi[:, 1]) / 2 if kind == "antithetic" else up - (y**2).sum() / 2 + xi[:, 0]
            G = (D[:, :, None] * x if kind == "node" else D.reshape(-1, M, N)) * dE[:, None, None] / sigma**2
        after += chance * chance_D @ (((W - eta * G) ** 2).sum((1, 2)) / 2)
    found = curves.perceptron_curve(kind, N, M, eta, sigma, noise)
    E0 = (W**2).sum() / 2
    assert found.a * E0 + found.b == pytest.approx(after, rel=1e-12)
    assert found.errors(E0, 1)[1] == pytest.approx(after, rel=1e-12)
    wrong = curves.perceptron_curve(kind, N + 1, M, eta, sigma, noise)  # negative control
    assert abs(wrong.a * E0 + wrong.b - after) > 1e-3 * after


def test_perceptron_rates_amplitude_and_floor_are_extrema_of_the_recursion():
    for kind in ("gradient", "node", "weight-gaussian", "weight-rademacher", "antithetic"):
        best, most = curves.perceptron_rates(kind, 7, 3)
        a = lambda eta, kind=kind: curves.perceptron_curve(kind, 7, 3, eta).a
        assert a(best) < min(a(0.99 * best), a(1.01 * best)) and a(most) == pytest.approx(1)
        assert curves.perceptron_curve(kind, 7, 3, 1.01 * most).floor == np.inf
    for kind in ("node", "weight-gaussian", "weight-rademacher"):
        sigma = curves.perceptron_sigma(kind, 7, 3, 0.1)
        b = lambda sigma, kind=kind: curves.perceptron_curve(kind, 7, 3, 1e-3, sigma, 0.1).b
        assert b(sigma) < min(b(0.99 * sigma), b(1.01 * sigma))
    assert curves.perceptron_sigma("weight-gaussian", 7, 3, 0.1) ** 4 == pytest.approx(4 * 0.01 / (5 * 9 * 25))
    found = curves.perceptron_curve("node", 7, 3, 0.01, 0.1, 0.1)
    steps = [2.0]
    for _ in range(2000):
        steps.append(found.a * steps[-1] + found.b)
    np.testing.assert_allclose(found.errors(2.0, 2000), steps, rtol=1e-10)
    assert steps[-1] == pytest.approx(found.floor, rel=1e-9)


@pytest.mark.parametrize("kind", ["weight-gaussian", "weight-rademacher", "antithetic"])
def test_simulated_perceptrons_follow_the_curve(kind):
    N, M, runs, updates, sigma, noise = 5, 2, 4000, 60, 0.2, 0.05
    eta = curves.perceptron_rates(kind, N, M)[0] / 2
    rng = np.random.default_rng(5)
    W = np.ones((runs, M, N))
    for _ in range(updates):
        x, xi = rng.standard_normal((runs, N, 1)), noise * rng.standard_normal((2, runs))
        D = rng.standard_normal(W.shape) if kind != "weight-rademacher" else rng.choice([-1.0, 1.0], W.shape)
        y, up, down = (((W + shift * D) @ x)[..., 0] for shift in (0, sigma, -sigma))
        y, up, down = ((value**2).sum(1) / 2 for value in (y, up, down))
        dE = (up + xi[0] - down - xi[1]) / 2 if kind == "antithetic" else up + xi[0] - y
        W = W - eta / sigma * dE[:, None, None] * D
    E = (W**2).sum((1, 2)) / 2
    expected, stderr = curves.perceptron_curve(kind, N, M, eta, sigma, noise).errors(M * N / 2, updates)[-1], E.std() / np.sqrt(runs)
    assert abs(E.mean() - expected) < 5 * stderr
    gradient = curves.perceptron_curve("gradient", N, M, eta).errors(M * N / 2, updates)[-1]
    assert abs(E.mean() - gradient) > 5 * stderr  # negative control


CASES = [
    # n, trials per update, updates, pair, momentum, unequal gains
    (2, 1, 2, False, 0.0, False),
    (2, 1, 2, False, 0.6, True),
    (2, 1, 2, True, 0.0, False),
    (2, 2, 1, False, 0.3, True),
    (3, 1, 1, False, 0.0, True),
]


@pytest.mark.parametrize("code", DRAWS)
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("n, trials, updates, pair, mu, unequal", CASES)
def test_curve_of_a_quadratic_is_the_enumerated_expectation(code, diagonal, n, trials, updates, pair, mu, unequal):
    H, rng = matrix(n, diagonal=diagonal), np.random.default_rng(1)
    w0, w_star, gains = rng.standard_normal(n), rng.standard_normal(n), np.linspace(0.5, 1.4, n) if unequal else np.ones(n)
    exact = enumerated(H, w0 - w_star, 0.2, 0.7, code, 0.3, updates, trials, pair, mu, gains)
    call = lambda code, pair=pair, trials=trials, H=H: curves.quadratic_curve(
        H, w0, w_star, 0.2, 0.7, trials, code, 0.3, updates, pair, mu, gains if unequal else None
    )
    np.testing.assert_allclose(call(code), exact, rtol=1e-12)
    if diagonal:
        np.testing.assert_allclose(call(code, H=H.diagonal()), exact, rtol=1e-12)
    other = "gaussian" if code == "rademacher" else "rademacher"
    for wrong in (call(other), call(code, pair=not pair), call(code, trials=trials + 1)):  # negative controls
        assert abs(wrong[-1] / exact[-1] - 1) > 1e-3
