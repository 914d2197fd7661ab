"""Learning curves and limits, against exact enumeration (expectations over every D and noise)
and simulation.
"""

import itertools

import numpy as np
import pytest
from fast import fast
from numpy.polynomial.hermite_e import hermegauss

from perturb import CODES, Code, InputError
from perturb.theory import learning_curves as curves

SQRT3 = np.sqrt(3.0)
# one component in units of sigma, (values, probabilities): the codes themselves, or quadratures
# exact to degree 7; E after two updates is of degree 6 in each D
DRAWS = {
    "rademacher": (np.array([-1.0, 1.0]), np.array([0.5, 0.5])),
    "ternary": (np.array([-SQRT3, 0.0, SQRT3]), np.array([1.0, 4.0, 1.0]) / 6),
    "gaussian": (hermegauss(4)[0], hermegauss(4)[1] / hermegauss(4)[1].sum()),
    "uniform": (
        SQRT3 * np.polynomial.legendre.leggauss(4)[0],
        np.polynomial.legendre.leggauss(4)[1] / 2,
    ),
}
NORMAL3 = (hermegauss(3)[0], hermegauss(3)[1] / hermegauss(3)[1].sum())  # exact to degree 5


def grid(*components):
    """Every combination of independent components, (outcomes, components), and its probability."""
    values, chances = (
        np.array(list(itertools.product(*parts))) for parts in zip(*components, strict=True)
    )
    return values, chances.prod(1)


def matrix(n, seed=0, diagonal=False):
    A = np.random.default_rng(seed).standard_normal((n, n))
    H = A @ A.T / n + 0.2 * np.eye(n)
    return np.diag(H.diagonal()) if diagonal else H


def estimates(u, x, xi, H, sigma, pair):
    """G = dE D/sigma^2 of u (..., n), x (..., n) = D/sigma, xi (..., phases)."""
    D = sigma * x
    E0, up, down = (
        np.einsum("...i,ij,...j", u + shift * D, H, u + shift * D) / 2 for shift in (0, 1, -1)
    )
    dE = (up + xi[..., 0] - down - xi[..., 1]) / 2 if pair else up + xi[..., 0] - E0
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
        drawn = one[picks]
        G = np.mean(
            [
                estimates(u[:, None], drawn[:, k, :n], drawn[:, k, n:], H, sigma, pair)
                for k in range(trials)
            ],
            axis=0,
        )
        p = mu * p[:, None] - eta * gains * G
        u, p = (u[:, None] + p).reshape(-1, n), p.reshape(-1, n)
        weight = (weight[:, None] * chance[picks].prod(1)).ravel()
        E.append(float(weight @ np.einsum("ai,ij,aj->a", u, H, u)) / 2)
    return np.array(E)


@pytest.mark.parametrize(
    "kind", ["gradient", "node", "weight-gaussian", "weight-rademacher", "antithetic"]
)
@pytest.mark.parametrize("N, M", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_perceptron_recursion_is_the_enumerated_expectation(kind, N, M):
    eta, sigma, noise = 0.07, 0.6, 0.3
    W = np.random.default_rng(N + 2 * M).standard_normal((M, N))  # less W*
    inputs, chance_x = grid(*[NORMAL3] * N)
    rademacher = kind == "weight-rademacher"
    size = {"gradient": 0, "node": M}.get(kind, M * N)
    phases = 2 if kind == "antithetic" else 1
    two = (np.array([-noise, noise]), np.array([0.5, 0.5]))
    drawn, chance_D = grid(
        *[DRAWS["rademacher" if rademacher else "gaussian"]] * size, *[two] * phases
    )
    after = 0.0
    for x, chance in zip(inputs, chance_x, strict=True):
        y = W @ x
        if kind == "gradient":
            G = np.tile(np.outer(y, x), (len(drawn), 1, 1))
        else:
            D, xi = sigma * drawn[:, :size], drawn[:, size:]
            moved = D if kind == "node" else D.reshape(-1, M, N) @ x
            up, down = (((y + sign * moved) ** 2).sum(1) / 2 for sign in (1, -1))
            dE = (
                (up + xi[:, 0] - down - xi[:, 1]) / 2
                if kind == "antithetic"
                else up - (y**2).sum() / 2 + xi[:, 0]
            )
            G = (
                (D[:, :, None] * x if kind == "node" else D.reshape(-1, M, N))
                * dE[:, None, None]
                / sigma**2
            )
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
        low, least, high, one = (
            curves.perceptron_curve(kind, 7, 3, eta).a
            for eta in (0.99 * best, best, 1.01 * best, most)
        )
        assert least < min(low, high) and one == pytest.approx(1)
        assert curves.perceptron_curve(kind, 7, 3, 1.01 * most).floor == np.inf
    for kind in ("node", "weight-gaussian", "weight-rademacher"):
        sigma = curves.perceptron_sigma(kind, 7, 3, 0.1)
        low, least, high = (
            curves.perceptron_curve(kind, 7, 3, 1e-3, f * sigma, 0.1).b for f in (0.99, 1, 1.01)
        )
        assert least < min(low, high)
    assert curves.perceptron_sigma("weight-gaussian", 7, 3, 0.1) ** 4 == pytest.approx(
        4 * 0.01 / (5 * 9 * 25)
    )
    found = curves.perceptron_curve("node", 7, 3, 0.01, 0.1, 0.1)
    steps = [2.0]
    for _ in range(2000):
        steps.append(found.a * steps[-1] + found.b)
    np.testing.assert_allclose(found.errors(2.0, 2000), steps, rtol=1e-10)
    assert steps[-1] == pytest.approx(found.floor, rel=1e-9)


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
def test_curve_of_a_quadratic_is_the_enumerated_expectation(
    code, diagonal, n, trials, updates, pair, mu, unequal
):
    H, rng = matrix(n, diagonal=diagonal), np.random.default_rng(1)
    w0, w_star, gains = (
        rng.standard_normal(n),
        rng.standard_normal(n),
        np.linspace(0.5, 1.4, n) if unequal else np.ones(n),
    )
    exact = enumerated(H, w0 - w_star, 0.2, 0.7, code, 0.3, updates, trials, pair, mu, gains)
    gains = gains if unequal else None

    def curve(code, pair=pair, trials=trials, H=H):
        return curves.quadratic_curve(
            H, w0, w_star, 0.2, 0.7, trials, code, 0.3, updates, pair, mu, gains
        )

    np.testing.assert_allclose(curve(code), exact, rtol=1e-12)
    if diagonal:
        np.testing.assert_allclose(curve(code, H=H.diagonal()), exact, rtol=1e-12)
    other = "gaussian" if code == "rademacher" else "rademacher"
    for wrong in (
        curve(other),
        curve(code, pair=not pair),
        curve(code, trials=trials + 1),
    ):  # negative controls
        assert abs(wrong[-1] / exact[-1] - 1) > 1e-3


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("code", fast(["gaussian", "rademacher"], "gaussian"))
@pytest.mark.parametrize("diagonal", fast([False, True], True))
@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_floor_is_the_end_of_the_curve_and_small_rates_know_its_first_order(
    code, diagonal, mu, unequal
):
    H, gains = matrix(5, 2, diagonal), np.linspace(0.5, 1.5, 5) if unequal else None
    for part in (0.1, 0.8):
        eta = part * curves.stability_limit(H, code, 2, mu, gains)
        long = curves.quadratic_curve(
            H, np.ones(5), np.ones(5), eta, 0.3, 2, code, 0.2, 5000, False, mu, gains
        )[-1]
        assert curves.quadratic_floor(H, eta, 0.3, 2, code, 0.2, False, mu, gains) == pytest.approx(
            long, rel=1e-8
        )
    assert (
        curves.quadratic_floor(H, 1.001 * eta / part, 0.3, 2, code, 0.2, False, mu, gains) == np.inf
    )
    if gains is None:
        slow = curves.quadratic_floor(H, 1e-6, 1.0, 1, code, 0.2, True, mu)
        assert slow == pytest.approx(1e-6 / (1 - mu) * 5 * 0.2**2 / 2 / 4, rel=1e-4)  # of order eta


@pytest.mark.parametrize("code", ["gaussian", "rademacher"])
def test_flat_directions_cost_nothing(code):
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    H = (Q * np.array([1.0, 1.0, 0.5, 0.0])) @ Q.T
    eta = 0.3 * curves.stability_limit(H, code)
    long = curves.quadratic_curve(H, np.ones(4), np.zeros(4), eta, 0.1, 1, code, 0.1, 3000)[-1]
    assert curves.quadratic_floor(H, eta, 0.1, 1, code, 0.1) == pytest.approx(
        long, rel=1e-4
    )  # the flat eigenvalue is 1e-17


def covariance_map(H, eta, code, trials, mu, gains):
    """E F (x) F of one update's linear part F of (u, p), over every outcome: its spectral radius
    decides the mean square.
    """
    n = len(H)
    x, chance = grid(*[DRAWS[code]] * n)
    x = x[:, :, None]
    products = x @ x.transpose(0, 2, 1)
    total = 0.0
    for picks in itertools.product(range(len(x)), repeat=trials):
        G = np.mean(products[list(picks)], axis=0) @ H
        step = -eta * gains[:, None] * G
        F = np.block([[np.eye(n) + step, mu * np.eye(n)], [step, mu * np.eye(n)]])
        total = total + chance[list(picks)].prod() * np.kron(F, F)
    return total


@pytest.mark.parametrize("code", DRAWS)
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize(
    "n, trials, mu, unequal",
    [(3, 1, 0.0, False), (2, 2, 0.5, False), (3, 1, 0.8, True), (2, 1, 0.0, True)],
)
def test_at_the_limit_the_map_of_covariances_has_spectral_radius_one(
    code, diagonal, n, trials, mu, unequal
):
    H, gains = matrix(n, 4, diagonal), np.linspace(0.4, 1.6, n) if unequal else np.ones(n)
    limit = curves.stability_limit(H, code, trials, mu, gains if unequal else None)
    radii = [
        np.abs(np.linalg.eigvals(covariance_map(H, f * limit, code, trials, mu, gains))).max()
        for f in (0.99, 1, 1.01)
    ]
    assert radii[1] == pytest.approx(1, abs=1e-9) and radii[0] < 1 < radii[2]


def test_limits_of_special_cases():
    lam = np.array([0.2, 1.0, 3.0])
    eta = curves.stability_limit(lam)
    assert (eta * lam / (2 * (1 - eta * lam))).sum() == pytest.approx(1)
    assert curves.stability_limit(lam, "rademacher") == pytest.approx(2 / lam.sum())
    gains = np.array([2.0, 1.0, 0.5])
    assert curves.stability_limit(lam, "rademacher", gains=gains) == pytest.approx(
        2 / (gains @ lam)
    )
    assert curves.stability_limit(np.diag(lam), gains=gains) == pytest.approx(
        curves.stability_limit(gains * lam)
    )
    turned = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    assert curves.stability_limit((turned * lam) @ turned.T) == pytest.approx(eta)
    for mu in (0.0, 0.9):
        assert curves.stability_limit(lam, "gaussian", 10**7, mu) == pytest.approx(
            curves.momentum_limit(3.0, mu), rel=1e-5
        )
        assert curves.stability_limit(lam, "walsh", 4, mu) == pytest.approx(
            curves.momentum_limit(3.0, mu)
        )
    assert curves.stability_limit([2.0], "rademacher", 1, 0.5) == pytest.approx(
        2 * 1.5 / 2.0
    )  # one weight: g without error
    assert curves.stability_limit(np.zeros(3)) == np.inf
    many = np.ones(1000)
    assert curves.stability_limit(many, momentum=0.9) == pytest.approx(0.1 * 2 / 1000, rel=0.01)
    big = matrix(150, 1)
    assert curves.stability_limit(big, "rademacher") == pytest.approx(
        curves.stability_limit(big), rel=0.05
    )


@pytest.mark.parametrize("code", ["gaussian", "rademacher"])
def test_averaging_pays_up_to_trace_over_largest_eigenvalue(code):
    lam = np.concatenate([np.full(200, 0.05), [1.0]])
    all_of_it, worth = (
        2 / lam.max() / curves.stability_limit(lam, code),
        round(lam.sum() / lam.max()),
    )
    for K in (1, 2, 3, 10, 100, 10000):
        assert (
            lam.sum() / (lam.sum() / K + (1 + 1 / K) * lam.max())
            <= curves.averaging_gain(lam, K, code)
            <= K
        )
    assert all_of_it / 2 < curves.averaging_gain(lam, worth, code) < 0.8 * all_of_it
    assert curves.averaging_gain(lam, 100 * worth, code) == pytest.approx(all_of_it, rel=0.01)


def test_greedy_rate_lowers_the_next_error_most():
    for H, code in (
        (matrix(4), "gaussian"),
        (matrix(4), "rademacher"),
        (matrix(4, diagonal=True).diagonal(), "ternary"),
    ):
        given = (0.4, 2, code, 0.3)
        w0, w_star = np.ones(4), np.array([0.0, 0.5, 2.0, -1.0])
        best = curves.greedy_rate(H, w0, w_star, *given)
        E = [
            curves.quadratic_curve(H, w0, w_star, f * best, *given, updates=1)[1]
            for f in (0.99, 1.0, 1.01)
        ]
        assert E[1] < min(E[0], E[2])
        assert curves.greedy_rate(H, w_star, w_star, *given) == 0


def exact_descent(H, u, eta, updates, noise=0.0):
    """tr(HC)/2 by whole matrices, G = Hu and noise alone."""
    C, F, E = np.outer(u, u), np.eye(len(H)) - eta * H, []
    for _ in range(updates + 1):
        E.append(np.trace(H @ C) / 2)
        C = F @ C @ F + eta**2 * noise * np.eye(len(H))
    return np.array(E)


@pytest.mark.parametrize("code, period", [("walsh", 4), ("sequential", 3), ("sine", 7)])
def test_whole_periods_of_orthogonal_codes_are_descent_with_noise(code, period):
    H, u, sigma = matrix(3), np.array([1.0, -2.0, 0.5]), 0.3
    for trials, pair in ((period, True), (2 * period, False)):
        x = np.array([CODES[code].draw(3, 1.0, 5, trial) for trial in range(trials)])
        np.testing.assert_allclose(
            estimates(u, x, np.zeros((trials, 2)), H, sigma, pair).mean(0), H @ u, atol=1e-12
        )
        noise = 0.1**2 / sigma**2 / trials * (0.5 if pair else 1)
        found = curves.quadratic_curve(H, u, np.zeros(3), 0.2, sigma, trials, code, 0.1, 20, pair)
        np.testing.assert_allclose(found, exact_descent(H, u, 0.2, 20, noise), rtol=1e-11)
    with pytest.raises(InputError, match="no multiple of"):
        curves.quadratic_curve(H, u, np.zeros(3), 0.2, sigma, period, code)


def test_perturbations_that_synapses_measure_with_an_error():
    H, u, e, eta, sigma, noise = matrix(2), np.array([1.0, -0.5]), 0.5, 0.1, 0.6, 0.2
    code = Code("blurred", 1, 3.0, 15.0, False, "gaussian, badly known", sensing=e)
    two = (np.array([-noise, noise]), np.array([0.5, 0.5]))
    draws, chance = grid(*[DRAWS["gaussian"]] * 4, two)
    x, y, xi = draws[:, :2], draws[:, 2:4], draws[:, 4]
    D = sigma * x
    dE = np.einsum("ai,ij,aj->a", u + D, H, u + D) / 2 - u @ H @ u / 2 + xi
    after = u - eta * dE[:, None] * (x + e * y) / sigma
    exact = chance @ np.einsum("ai,ij,aj->a", after, H, after) / 2
    assert curves.quadratic_curve(H, u, np.zeros(2), eta, sigma, 1, code, noise, 1)[
        1
    ] == pytest.approx(exact, rel=1e-12)
    assert (
        abs(
            curves.quadratic_curve(H, u, np.zeros(2), eta, sigma, 1, "gaussian", noise, 1)[1]
            / exact
            - 1
        )
        > 1e-3
    )  # negative control
    for factor in (0.99, 1, 1.01):
        step = factor * curves.stability_limit(H, code) * (x + e * y)[:, :, None] * (x @ H)[:, None]
        F = np.eye(2) - step
        radius = np.abs(
            np.linalg.eigvals(np.einsum("a,aij,akl->ikjl", chance, F, F).reshape(4, 4))
        ).max()
        assert radius == pytest.approx(1, abs=1e-9) if factor == 1 else (radius > 1) == (factor > 1)


def test_curve_of_hundreds_of_weights_is_fast_and_divergence_is_infinite():
    H = matrix(300)
    limit = curves.stability_limit(H)
    calm, wild = (
        curves.quadratic_curve(H, np.ones(300), np.zeros(300), f * limit, 0.01, updates=3000)
        for f in (0.5, 10)
    )
    assert (
        calm[-1] < calm[0] and wild[-1] == np.inf and wild[1] < np.inf and not np.isnan(wild).any()
    )
    saddle = curves.quadratic_curve([1.0, -0.1], [1.0, 0.1], [0.0, 0.0], 0.1, 1e-6, updates=400)
    assert saddle[0] > 0 > saddle[-1]


def test_delayed_updates_meet_the_unit_circle_at_the_limit():
    for delay in (0, 1, 2, 5, 20):
        for lam in (0.3, 4.0):
            for factor in (0.999, 1.001):
                eta = factor * curves.delay_limit(lam, delay)
                polynomial = np.zeros(delay + 2)
                polynomial[0], polynomial[1] = 1.0, -1.0
                polynomial[-1] += eta * lam
                radius = np.abs(np.roots(polynomial)).max()
                assert (radius > 1) == (factor > 1)
    assert curves.delay_limit(1.0, 1) == pytest.approx(1)
    for mu in (0.0, 0.5, 0.9):
        for factor in (0.999, 1.001):
            roots = np.roots([1, -(1 + mu - factor * curves.momentum_limit(3.0, mu) * 3.0), mu])
            assert (np.abs(roots).max() > 1) == (factor > 1)


H2 = np.eye(2)
BAD = [
    (lambda: curves.perceptron_curve("nodes", 2, 2, 0.1), "did you mean node?"),
    (
        lambda: curves.perceptron_curve("node", 0, 2, 0.1),
        "n_inputs = 0 must be an integer >= 1",
    ),
    (lambda: curves.perceptron_curve("node", 2, 2, -0.1), "eta = -0.1 must be a positive number"),
    (lambda: curves.perceptron_sigma("antithetic", 2, 2, 0.1), "has no best sigma"),
    (lambda: curves.perceptron_curve("node", 2, 2, 0.1).errors(1.0, -1), "updates = -1"),
    (
        lambda: curves.quadratic_curve([[1.0, 2.0], [0.0, 1.0]], [0, 0], [0, 0], 0.1),
        "not symmetric",
    ),
    (lambda: curves.quadratic_curve(np.ones((2, 3)), [0, 0], [0, 0], 0.1), r"H has shape \(2, 3\)"),
    (lambda: curves.quadratic_curve(H2, [0, 0, 0], [0, 0], 0.1), "w0 has shape"),
    (
        lambda: curves.quadratic_curve(H2, [0, 0], [0, 0], 0.1, error_noise=-1),
        "error_noise = -1 must be a finite number >= 0",
    ),
    (lambda: curves.quadratic_curve(H2, [0, 0], [0, 0], 0.1, momentum=1.0), "momentum = 1.0"),
    (
        lambda: curves.quadratic_curve(H2, [0, 0], [0, 0], 0.1, gains=[1.0, 0.0]),
        r"gains\[1\] = 0.0 must be positive",
    ),
    (lambda: curves.quadratic_curve(H2, [0, 0], [0, 0], 0.1, code="lfsr"), "correlated columns"),
    (
        lambda: curves.quadratic_curve(H2, [0, 0], [0, 0], 0.1, trials_per_update=0),
        "trials_per_update = 0",
    ),
    (lambda: curves.stability_limit([1.0, -1.0]), "no learning rate is stable"),
    (lambda: curves.quadratic_floor([1.0, -1.0], 0.1), "no learning rate is stable"),
    (lambda: curves.delay_limit(1.0, -1), "delay = -1"),
]


@pytest.mark.parametrize("call, message", BAD)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
