"""The amplitude of a perturbation: what lies beyond the quadratic, against noise and curvature."""

import math

import numpy as np

from perturb.codes import CODES, Code
from perturb.errors import choose
from perturb.methods import METHODS, Method
from perturb.objective import Objective, as_weights
from perturb.statistics import check_pair, check_trials
from perturb.theory import Curvature, curvatures, predict

Array = np.ndarray


def truncation(objective: Objective, w: Array, v: Array, probes: int = 32) -> tuple[Array, Array]:
    """beta_g, beta_z, shape (probes, n): samples whose means times sigma^2 are the bias of central g and difference z, to leading
    order beyond the quadratic: beta_g = (1/2) grad tr H, beta_z its derivative along v.

    E over D of the cubic term of dE times D_i/sigma^2 is (sigma^2/2) sum_j d^3E/dw_i dw_j^2 + (k-3)/6 sigma^2 d^3E/dw_i^3; the
    second part, one term in n, is left out. From second differences of exact g and Hv along random signs; 2 products a probe.
    """
    n = objective.n_weights
    w, v = as_weights("w", w, n), as_weights("v", v, n)
    step = 1e-3 * max(1.0, float(np.abs(w).max()))
    rng = np.random.Generator(np.random.Philox(1))
    _, g0, z0 = objective.error_gradient_hvp(w, v)
    beta_g, beta_z = np.empty((probes, n)), np.empty((probes, n))
    for i in range(probes):
        x = step * rng.choice([-1.0, 1.0], n)
        (_, g1, z1), (_, g2, z2) = (objective.error_gradient_hvp(w + sign * x, v) for sign in (1, -1))
        beta_g[i], beta_z[i] = (g1 + g2 - 2 * g0) / (2 * step**2), (z1 + z2 - 2 * z0) / (2 * step**2)
    return beta_g, beta_z


def best_sigma(
    objective: Objective,
    w: Array,
    v: Array,
    method: str | Method = "difference",
    code: str | Code = "walsh",
    trials: int = 4096,
    r: float = 1e-2,
    error_noise: float = 0.0,
    known: list[Curvature] | None = None,
) -> tuple[float, float]:
    """The amplitudes sigma that make the expected squared errors of g and of z smallest; NaN for a z not estimated.

    Minimised is |bias + sigma^2 beta|^2 + variance(sigma)/K over 10^-8 <= sigma <= 10, with `predict`'s variance after K = trials
    and `truncation`'s beta. Where one term of each kind rules: one-sided g, B sigma^2 of curvature against N/sigma^2 of noise,
    sigma^4 = N/B; a pair, or a whole number of double periods, N/(K sigma^2) of noise against sigma^4 |beta|^2,
    sigma^6 = N/(2 K |beta|^2). Rounding of E counts as noise of eps |E|. beta is the code-independent leading part, the same for
    the covariance's z (Stein's identity), and holds for sigma small against the scale on which curvature changes.
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    check_pair(method, code)
    trials = check_trials(0, trials)
    error_noise = math.hypot(error_noise, float(np.finfo(float).eps) * objective.error(w))
    known = curvatures(objective, w, v) if known is None else known
    betas = truncation(objective, w, v)
    # an unbiased |mean|^2 from independent halves
    squares = [max(float(b[::2].mean(0) @ b[1::2].mean(0)), 0.0) for b in betas]
    means = [b.mean(0) for b in betas]

    def wrong(log_sigma: float) -> tuple[float, float]:
        sigma = math.exp(log_sigma)
        foretold = predict(objective, w, v, method, code, sigma, r, error_noise, known=known)
        errors = []
        for part, square, mean in zip((foretold.gradient, foretold.hv), squares, means, strict=True):
            bias = float(part.bias @ part.bias) + 2 * sigma**2 * float(part.bias @ mean) + sigma**4 * square
            missed = part.expected(trials) - part.limit
            errors.append(bias + float(missed @ missed) + part.total_variance(trials))
        return errors[0], errors[1]

    grid = np.linspace(math.log(1e-8), math.log(10.0), 121)
    values = np.array([wrong(x) for x in grid])
    found = []
    for index in (0, 1):
        if not np.isfinite(values[:, index]).all():
            found.append(math.nan)
            continue
        best = int(np.argmin(values[:, index]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        for _ in range(40):  # by thirds: one minimum lies between
            a, b = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, b) if wrong(a)[index] <= wrong(b)[index] else (a, high)
        found.append(math.exp((low + high) / 2))
    return found[0], found[1]
