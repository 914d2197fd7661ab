"""What imperfections do to learning on a quadratic E, in closed form: wrong directions, offsets,
leaks, bounds, rounding.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from perturb.checks import (
    as_floats,
    as_number,
    as_weights,
    at_least_zero,
    below_one,
    between_0_and_1,
    integer,
    positive,
)
from perturb.errors import InputError, choose
from perturb.theory.learning_curves import FLAT, even_moments, parts_of
from perturb.trial.code import Code
from perturb.trial.codes import CODES

Array = np.ndarray
_TERMS = np.arange(
    1, 33
)  # terms of Poisson's sum; for spreads below step/20 the sum over steps is taken instead
_NARROW = 0.05


def misaligned_curve(
    H: Array,
    w0: Array,
    w_star: Array,
    eta: float,
    sigma: float = 1e-2,
    code: str | Code = "rademacher",
    error_noise: float = 0.0,
    updates: int = 100,
    pair: bool = False,
) -> Array:
    """Expected error where each dE meets the D of the trial before: no learning, pure diffusion.
    Shape (updates + 1,).

    E G = 0 and E u G' = 0; with S = E |Hu|^2, q = eta^2 tr H^2, x = D/sigma and c = sE^2/sigma^2 +
    sigma^2 E (x'Hx/2)^2 (pair: sE^2/(2 sigma^2)),
      S' + c = (1 + q)(S + c),  E_t = E_0 + (eta^2/2) tr H (S_0 + c) [(1 + q)^t - 1]/q.
    Exact for a Rademacher code and H diagonal, else to leading order in q (|Hu|^2 and the D in use
    are then correlated).
    """
    h, off = parts_of(H)
    n = h.size
    code = choose("code", code, CODES) if isinstance(code, str) else code
    if code.periodic or code.sensing:
        raise InputError(
            f"code {code.name} is not independent from trial to trial, or not exactly known: use a"
            " random code"
        )
    eta, sigma, error_noise = (
        positive("eta", eta),
        positive("sigma", sigma),
        at_least_zero("error_noise", error_noise),
    )
    u = as_weights("w0", w0, n) - as_weights("w_star", w_star, n)
    g = h * u if off is None else h * u + off @ u
    c = error_noise**2 / sigma**2 * (0.5 if pair else 1.0)
    if not pair:
        c += sigma**2 * even_moments(h, off, code.kurtosis, code.sixth)[1]
    q = eta**2 * (float(h @ h) + (0.0 if off is None else float((off * off).sum())))
    t = np.arange(integer("updates", updates, 0) + 1)
    with np.errstate(over="ignore"):
        grown = np.expm1(t * math.log1p(q)) / q if q > 0 else t
    return float(u @ g) / 2 + eta**2 / 2 * float(h.sum()) * (float(g @ g) + c) * grown


def offset_floor(H: Array, b: Array) -> float:
    """b'H^-1 b/2: the error where a constant b, added to G in every update, balances the gradient,
    Hu = -b. H positive definite.

    An error of a multiplier, o_i <dE>/sigma^2 for an offset o_i of the D_i that it sees. The
    variance's floor comes on top.
    """
    return float(as_floats("b", b) @ _solved(H, b)) / 2


def leak_fixed_point(H: Array, w_star: Array, eta: float, leak: float) -> Array:
    """Where weights that lose the part l of themselves in every trial settle in the mean: (H +
    kappa I)^-1 H w*, shape (n,).

    kappa = l/((1-l) eta), for w := (1-l)(w - eta G), so w_inf = w* lam/(lam + l/((1-l) eta)) for
    each eigenvalue lam of H: weight decay (Krogh and Hertz 1992). With K trials per update put 1 -
    (1-l)^K for l.
    """
    h, off = parts_of(H)
    w_star, leak = as_weights("w_star", w_star, h.size), below_one("leak", leak)
    kappa = leak / ((1 - leak) * positive("eta", eta))
    Hw = h * w_star if off is None else h * w_star + off @ w_star
    return _solved(h + kappa if off is None else off + np.diag(h + kappa), Hw)


def soft_bound_equilibrium(
    w_star: Array, eta: float, curvature: Array, mean_step: Array, bound: float
) -> Array:
    """w*/(1 + E|Dw|/(eta lam w_b)): where a device with soft bounds at +-w_b holds a weight in the
    mean (Fusi and Abbott 2007).

    It executes a wanted step Dw as Dw - |Dw| w/w_b, so that noise pulls to zero with the strength
    E|Dw|/w_b against eta lam. lam: the weight's own curvature H_ii, H diagonal. mean_step: E|Dw| of
    the wanted steps, near enough independent of w, as where perturbation noise rules: eta |g|
    sqrt(2/pi) for a Rademacher code of many weights, about sqrt(n) the |eta g_i| of descent.
    """
    lam, step = as_floats("curvature", curvature), as_floats("mean_step", mean_step)
    if not ((lam > 0).all() and (step >= 0).all()):
        raise InputError("curvature must be positive and mean_step at least 0 in every entry")
    return as_floats("w_star", w_star) / (
        1 + step / (positive("eta", eta) * lam * positive("bound", bound))
    )


def constrained_minimum(
    H: Array, w_star: Array, stuck: Sequence[int], values: Array
) -> tuple[Array, float]:
    """(w, E) at the minimum that is left when some weights are stuck at `values`, all others free.

    w_f = w*_f - H_ff^-1 H_fs u_s, E = u_s'(H_ss - H_sf H_ff^-1 H_fs) u_s/2, u_s = values - w*_s
    (Schur's complement): where the mean of learning goes, and what is lost. H_ff positive definite.
    """
    h, off = parts_of(H)
    n, full = h.size, np.diag(h) if off is None else off + np.diag(h)
    w, chosen = as_weights("w_star", w_star, n).copy(), np.asarray(stuck)
    if not (chosen.ndim == 1 and (chosen.size == 0 or np.issubdtype(chosen.dtype, np.integer))):
        raise InputError(f"stuck = {stuck!r} must be a list of weight numbers")
    if not ((chosen >= 0) & (chosen < n)).all() or len(set(chosen.tolist())) < chosen.size:
        raise InputError(f"stuck = {chosen.tolist()} must be different numbers from 0 to {n - 1}")
    chosen = chosen.astype(int)
    u = as_weights("values", values, chosen.size) - w[chosen]
    free = np.setdiff1d(np.arange(n), chosen)
    w[chosen] += u
    schur = full[np.ix_(chosen, chosen)] @ u
    if free.size:
        moved = _solved(full[np.ix_(free, free)], full[np.ix_(free, chosen)] @ u)
        w[free] -= moved
        schur = schur - full[np.ix_(chosen, free)] @ moved
    return w, float(u @ schur) / 2


def rounding_gain(spread: float, step: float, offset: float = 0.0) -> float:
    """How much of a small signal passes a rounding to the nearest multiple of `step`, where noise
    of that spread rides on it.

    d E round(x)/dm for x ~ N(m, s^2), m = offset, q = step: 1 + 2 sum_k (-1)^k cos(2 pi k m/q)
    exp(-2 (pi k s/q)^2), or q times the density of x summed over (j + 1/2) q (Bussgang 1952; Widrow
    and Kollar 2008). Its mean over offsets is 1, 0 is the worst. Of a converter of dE: s = std(dE),
    the gain of G. Of writes in steps, to the nearest: s = std(eta G), the gain of eta. 1.00 at q =
    1.2 s, 0.43 at 4 s, 0.05 at 6 s.
    """
    s, m = (
        at_least_zero("spread", spread) / positive("step", step),
        as_number("offset", offset) / step,
    )
    if s >= _NARROW:
        return float(
            1
            + 2
            * (np.cos(np.pi * _TERMS * (1 + 2 * m)) * np.exp(-2 * (np.pi * _TERMS * s) ** 2)).sum()
        )
    distance = abs((m % 1) - 0.5)
    if s == 0:
        return math.inf if distance == 0 else 0.0
    return math.exp(-((distance / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))


def rounding_variance(spread: float, step: float, stochastic: bool) -> float:
    """Mean square that rounding a write Dw ~ N(0, s^2) to multiples of `step` q adds to it; q^2/6
    or q^2/12 for s > q.

    Stochastic (up with a probability equal to the fraction f, so no bias): q^2 E f(1-f) = q^2 [1/6
    - sum_k e_k/(pi k)^2], e_k = exp(-2 (pi k s/q)^2); q E|Dw| - s^2 for small s. Nearest: q^2 [1/12
    + sum_k (-1)^k e_k/(pi k)^2]; s^2 for small s, when nothing is written (Widrow and Kollar 2008,
    Gupta et al. 2015).
    """
    s, q = at_least_zero("spread", spread) / positive("step", step), step
    if s < _NARROW:
        return q**2 * (s * math.sqrt(2 / math.pi) - s**2 if stochastic else s**2)
    terms = np.exp(-2 * (np.pi * _TERMS * s) ** 2) / (np.pi * _TERMS) ** 2
    return q**2 * float(
        1 / 6 - terms.sum() if stochastic else 1 / 12 + ((-1.0) ** _TERMS * terms).sum()
    )


def rounding_floor(curvature: Array, eta: float, step: float, stochastic: bool) -> float:
    """Error at which descent by exact gradients ends when weights are written in steps q, H
    diagonal (`curvature`), eta l < 1.

    Nearest: a weight stops where its update falls below q/2, at |u| = q/(2 eta l), less at most one
    step, for sum_i q^2/(8 eta^2 l_i). Stochastic: it ends hopping between the two values next to
    w*, E u^2 = f(1-f) q^2, in the mean over all w* sum_i l_i q^2/12. The ratio is 3/(2 (eta l)^2):
    20 at eta l = 0.27, and without bound for small rates. Noise in the updates is a dither, with
    which both learn: `rounding_gain`.
    """
    lam, eta, q = as_floats("curvature", curvature), positive("eta", eta), positive("step", step)
    if not (lam > 0).all() or not (eta * lam < 1).all():
        raise InputError(
            f"eta = {eta} times curvature must lie between 0 and 1 for every weight: lower eta"
        )
    return float((lam * q**2 / 12 if stochastic else q**2 / (8 * eta**2 * lam)).sum())


def stalled_gradient(sigma: float, step: float, other: float = 0.0, gain: float = 0.5) -> float:
    """|g| below which a converter of dE with that step leaves less than `gain` of the gradient:
    learning stalls there.

    std(dE)^2 = sigma^2 |g|^2 + other^2, other: what noise, curvature or dither give dE anyway; its
    `rounding_gain` is 1/2 at 0.263 steps, 0.99 at 0.52. Zero if `other` alone is dither enough. E
    of |g|^2/(2 l_max) or more is left.
    """
    sigma, step, other, gain = (
        positive("sigma", sigma),
        positive("step", step),
        at_least_zero("other", other),
        between_0_and_1("gain", gain),
    )
    spread = step * brentq(lambda s: rounding_gain(s, 1.0) - gain, 1e-3, 3.0)
    return math.sqrt(max(spread**2 - other**2, 0.0)) / sigma


def _solved(H: Array, b: Array) -> Array:
    """H^-1 b of a positive definite H."""
    h, off = parts_of(H)
    b = as_weights("b", b, h.size)
    lam, U = (h, None) if off is None else np.linalg.eigh(off + np.diag(h))
    if not lam.min() > FLAT * lam.max():
        raise InputError(
            f"H has the eigenvalue {lam.min():.3g}, but must be positive definite here: leave flat"
            " directions out"
        )
    return b / lam if U is None else U @ ((U.T @ b) / lam)
