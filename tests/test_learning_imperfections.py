"""Learning with imperfections of chips, in theory, against exact enumeration and simulation."""

import numpy as np
import pytest
from test_curves import (
    DRAWS,
    H2,
    estimates,
    grid,
    matrix,
)

from perturb import InputError
from perturb.theory import imperfections


@pytest.mark.parametrize("pair", [False, True])
def test_misaligned_updates_only_diffuse(pair):
    n, sigma, noise, eta = 2, 0.7, 0.3, 0.3
    h, u0 = np.array([1.0, 0.5]), np.array([1.0, -2.0])
    H = np.diag(h)
    two = (np.array([-noise, noise]), np.array([0.5, 0.5]))
    one, chance = grid(*[DRAWS["rademacher"]] * n, *[two] * 2)
    previous, old_chance = grid(*[DRAWS["rademacher"]] * n)
    u, old, weight, E = u0[None] + np.zeros((4, 1)), previous, old_chance, [u0 @ H @ u0 / 2]
    mean = []
    for _ in range(2):
        D = sigma * one[:, :n]
        points = [u[:, None] + shift * D for shift in (0, 1, -1)]
        E0, up, down = (np.einsum("abi,i->ab", point**2, h) / 2 for point in points)
        dE = (up + one[:, n] - down - one[:, n + 1]) / 2 if pair else up + one[:, n] - E0
        u = (u[:, None] - eta / sigma * dE[..., None] * old[:, None]).reshape(-1, n)
        old = np.tile(one[:, :n], (len(old), 1))
        weight = (weight[:, None] * chance).ravel()
        E.append(weight @ (u**2 @ h) / 2)
        mean.append(weight @ u)
    np.testing.assert_allclose(mean, [u0, u0], atol=1e-12)  # nothing is learned
    found = imperfections.misaligned_curve(
        H, u0, np.zeros(n), eta, sigma, "rademacher", noise, 2, pair
    )
    np.testing.assert_allclose(found, E, rtol=1e-12)
    assert (np.diff(found) > 0).all()


def test_misaligned_updates_of_a_gaussian_code_follow_to_leading_order():
    H, runs, eta, sigma, rng = matrix(4, 1), 6000, 0.02, 0.4, np.random.default_rng(2)
    u = np.tile(np.ones(4), (runs, 1))
    old = rng.standard_normal(u.shape)
    for _ in range(60):
        x = rng.standard_normal(u.shape)
        G = estimates(u, x, np.zeros((runs, 2)), H, sigma, False)
        dE = (G * x).sum(1) / (x * x).sum(1)  # G = dE x/sigma
        u, old = u - eta * dE[:, None] * old, x
    E = np.einsum("ai,ij,aj->a", u, H, u) / 2
    found = imperfections.misaligned_curve(
        H, np.ones(4), np.zeros(4), eta, sigma, "gaussian", updates=60
    )
    assert abs(E.mean() - found[-1]) < 5 * E.std() / np.sqrt(runs)
    assert abs(E.mean() - found[0]) > 5 * E.std() / np.sqrt(runs)  # negative control


def test_fixed_points_of_offset_leak_and_stuck_weights():
    H, rng, eta = matrix(4), np.random.default_rng(0), 0.1
    w_star, b = rng.standard_normal(4), rng.standard_normal(4)
    w = {"offset": np.zeros(4), "leak": np.zeros(4), "stuck": np.array([0.0, 2.0, 0.0, -1.0])}
    leak, free = 0.01, np.array([1.0, 0.0, 1.0, 0.0])
    for _ in range(5000):
        w["offset"] = w["offset"] - eta * (H @ (w["offset"] - w_star) + b)
        w["leak"] = (1 - leak) * (w["leak"] - eta * H @ (w["leak"] - w_star))
        w["stuck"] = w["stuck"] - eta * free * (H @ (w["stuck"] - w_star))
    E = {name: (value - w_star) @ H @ (value - w_star) / 2 for name, value in w.items()}
    assert imperfections.offset_floor(H, b) == pytest.approx(E["offset"], rel=1e-10)
    np.testing.assert_allclose(
        imperfections.leak_fixed_point(H, w_star, eta, leak), w["leak"], rtol=1e-9
    )
    by_one = imperfections.leak_fixed_point([2.0, 0.3], [1.0, -1.0], eta, leak)
    kappa = leak / ((1 - leak) * eta)
    np.testing.assert_allclose(by_one, [2 / (2 + kappa), -0.3 / (0.3 + kappa)])
    found, lost = imperfections.constrained_minimum(H, w_star, [1, 3], [2.0, -1.0])
    np.testing.assert_allclose(found, w["stuck"], atol=1e-10)
    assert lost == pytest.approx(E["stuck"], rel=1e-10)
    assert imperfections.constrained_minimum(H, w_star, [], [])[1] == 0
    assert imperfections.constrained_minimum(H, w_star, [3, 0, 1, 2], np.zeros(4))[
        1
    ] == pytest.approx(w_star @ H @ w_star / 2)


def test_soft_bounds_pull_a_noisy_weight_to_zero():
    # wanted steps eta (-lam (w - w*) +- s) with s the larger: E|Dw| = eta s whatever w, and the
    # mean obeys its own equation
    eta, lam, s, w_star, bound, runs = 0.02, 0.5, 2.0, 0.6, 1.0, 4000
    rng, w = np.random.default_rng(0), np.zeros(4000)
    for _ in range(400):
        wanted = eta * (-lam * (w - w_star) + s * rng.choice([-1.0, 1.0], runs))
        w = w + wanted - np.abs(wanted) * w / bound
    found = imperfections.soft_bound_equilibrium([w_star], eta, [lam], eta * s, bound)[0]
    stderr = w.std() / np.sqrt(runs)
    assert abs(w.mean() - found) < 5 * stderr
    assert (
        abs(w.mean() - w_star) > 5 * stderr
        and abs(w.mean() - w_star / (1 + s / lam / 2)) > 5 * stderr
    )  # negative controls


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.0499, 0.0501, 0.25, 1 / 1.2, 3.0])
def test_rounding_of_gaussian_numbers_by_integration(spread):
    step, s = 0.4, 0.4 * spread
    x = np.linspace(-9, 9, 2_000_001) * max(s, 1e-300)
    density = np.exp(-((x / max(s, 1e-300)) ** 2) / 2)
    density /= density.sum()
    written = np.round(x / step) * step
    f = x / step - np.floor(x / step)
    # sums over a grid jump where x is half a step: 1e-5 of what passes there
    assert imperfections.rounding_variance(s, step, False) == pytest.approx(
        density @ (written - x) ** 2, abs=2e-6
    )
    assert imperfections.rounding_variance(s, step, True) == pytest.approx(
        step**2 * density @ (f * (1 - f)), abs=1e-9
    )
    if spread:
        assert imperfections.rounding_gain(s, step) == pytest.approx(
            density @ (written * x) / s**2, rel=2e-5, abs=1e-12
        )
        shifted = np.round((x + 0.1) / step) * step
        assert imperfections.rounding_gain(s, step, 0.1) == pytest.approx(
            density @ (shifted * x) / s**2, rel=2e-5, abs=1e-12
        )
        offsets = [imperfections.rounding_gain(s, step, m * step) for m in np.arange(1000) / 1000]
        assert np.mean(offsets) == pytest.approx(1)
    else:
        assert (
            imperfections.rounding_gain(0.0, step) == 0
            and imperfections.rounding_gain(0.0, step, step / 2) == np.inf
        )


def test_figures_of_the_converter():
    assert [round(imperfections.rounding_gain(1.0, q), 2) for q in (1.2, 4.0, 6.0)] == [
        1.0,
        0.43,
        0.05,
    ]
    assert 1.2**2 / 12 == pytest.approx(
        imperfections.rounding_variance(1.0, 1.2, False), rel=1e-3
    )  # 12 % more variance
    g = imperfections.stalled_gradient(0.01, 0.002)
    assert 0.01 * g / 0.002 == pytest.approx(0.263, abs=1e-3) and imperfections.rounding_gain(
        0.01 * g, 0.002
    ) == pytest.approx(0.5)
    assert imperfections.rounding_gain(0.52, 1.0) == pytest.approx(0.99, abs=0.001)
    assert imperfections.stalled_gradient(0.01, 0.002, other=0.001) == 0
    assert imperfections.stalled_gradient(0.01, 0.002, other=0.0003) < g


BAD = [
    (
        lambda: imperfections.misaligned_curve(H2, [0, 0], [0, 0], 0.1, code="walsh"),
        "use a random code",
    ),
    (lambda: imperfections.offset_floor([1.0, 0.0], [1.0, 1.0]), "positive definite"),
    (lambda: imperfections.leak_fixed_point(H2, [1.0, 1.0], 0.1, 1.0), "leak = 1.0"),
    (
        lambda: imperfections.soft_bound_equilibrium([1.0], 0.1, [0.0], [0.1], 1.0),
        "curvature must be positive",
    ),
    (lambda: imperfections.constrained_minimum(H2, [1.0, 1.0], [2], [0.0]), "numbers from 0 to 1"),
    (
        lambda: imperfections.constrained_minimum(H2, [1.0, 1.0], [0.5], [0.0]),
        "list of weight numbers",
    ),
    (lambda: imperfections.rounding_gain(-1.0, 1.0), "spread = -1.0"),
    (lambda: imperfections.rounding_floor([1.0], 1.5, 0.1, True), "lower eta"),
    (lambda: imperfections.stalled_gradient(0.1, 0.1, gain=1.0), "gain = 1.0"),
]


@pytest.mark.parametrize("call, message", BAD)
def test_mistakes_are_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
