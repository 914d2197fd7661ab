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
from perturb.theory.second_moments import FLAT, even_moments, parts_of
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
    """Expected error where each dE meets the D of the trial before: diffusion, no learning.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric, or its diagonal.
    w0, w_star : array of shape (n,)
        Where learning starts, and the minimum.
    eta : float
        Learning rate.
    sigma : float
        The rms perturbation, in units of the weights.
    code : str or Code
        Independent from trial to trial, and exactly known.
    error_noise : float
        sE, standard deviation of a one-sided dE, of one evaluation in a pair; in units of E.
    updates : int
    pair : bool
        Whether dE is [E(w + D) - E(w - D)]/2.

    Returns
    -------
    array of shape (updates + 1,)

    Raises
    ------
    InputError
        For another code, arrays that do not fit, or a number out of its range.

    Notes
    -----
    E G = 0 and E u G' = 0; with S = E |Hu|^2, q = eta^2 tr H^2, x = D/sigma and c = sE^2/sigma^2 +
    sigma^2 E (x'Hx/2)^2 (pair: sE^2/(2 sigma^2)),

        S' + c = (1 + q)(S + c),    E_t = E_0 + (eta^2/2) tr H (S_0 + c) [(1 + q)^t - 1]/q

    Exact for a Rademacher code and H diagonal, else to leading order in q (|Hu|^2 and the D in use
    are then correlated).

    Examples
    --------
    >>> from perturb.theory.imperfections import misaligned_curve
    >>> misaligned_curve([1.0], [1.0], [0.0], eta=0.1, updates=2, pair=True).round(6)
    array([0.5    , 0.505  , 0.51005])
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
    # g = Hu; dE = D.g + ... meets the D of another trial
    g = h * u if off is None else h * u + off @ u
    # E G_i^2 = |Hu|^2 + c: every weight gets the variance of all of dE
    c = error_noise**2 / sigma**2 * (0.5 if pair else 1.0)
    if not pair:
        c += sigma**2 * even_moments(h, off, code.kurtosis, code.sixth)[1]
    # E|Hu|^2 grows by eta^2 tr H^2 E G_i^2 an update
    q = eta**2 * (float(h @ h) + (0.0 if off is None else float((off * off).sum())))
    t = np.arange(integer("updates", updates, 0) + 1)
    with np.errstate(over="ignore"):
        # [(1 + q)^t - 1]/q, for tiny q too
        grown = np.expm1(t * math.log1p(q)) / q if q > 0 else t
    return float(u @ g) / 2 + eta**2 / 2 * float(h.sum()) * (float(g @ g) + c) * grown


def offset_floor(H: Array, b: Array) -> float:
    """The error where a constant b, added to G in every update, balances the gradient.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric and positive definite, or its diagonal.
    b : array of shape (n,)

    Returns
    -------
    float
        b'H^-1 b/2, in units of E; the floor of the variance comes on top.

    Raises
    ------
    InputError
        For arrays that do not fit, or a number out of its range.

    Notes
    -----
    From Hu = -b. An error of a multiplier: b_i = o_i <dE>/sigma^2 for an offset o_i of the D_i that
    it sees.

    Examples
    --------
    >>> from perturb.theory.imperfections import offset_floor
    >>> offset_floor([2.0, 4.0], [0.2, 0.0])
    0.010000000000000002
    """
    # E = u'Hu/2 at u = -H^-1 b
    return float(as_floats("b", b) @ _solved(H, b)) / 2


def leak_fixed_point(H: Array, w_star: Array, eta: float, leak: float) -> Array:
    """Where weights that lose a part of themselves in every trial settle in the mean.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric, or its diagonal.
    w_star : array of shape (n,)
        The minimum.
    eta : float
        Learning rate.
    leak : float
        l, the part lost in a trial, in [0, 1); with K trials per update put 1 - (1-l)^K.

    Returns
    -------
    array of shape (n,)
        (H + kappa I)^-1 H w*.

    Raises
    ------
    InputError
        For arrays that do not fit, or a number out of its range.

    Notes
    -----
    kappa = l/((1-l) eta), for w := (1-l)(w - eta G), so w_inf = w* lam/(lam + l/((1-l) eta)) for
    each eigenvalue lam of H: weight decay.

    References
    ----------
    Krogh and Hertz, A simple weight decay can improve generalization, NIPS 4 (1992) 950-957.

    Examples
    --------
    >>> from perturb.theory.imperfections import leak_fixed_point
    >>> leak_fixed_point([1.0], [1.0], eta=0.1, leak=0.0)
    array([1.])
    """
    h, off = parts_of(H)
    w_star, leak = as_weights("w_star", w_star, h.size), below_one("leak", leak)
    kappa = leak / ((1 - leak) * positive("eta", eta))
    # w = (1 - l)(w - eta H(w - w*)) at rest: (H + kappa I) w = H w*
    Hw = h * w_star if off is None else h * w_star + off @ w_star
    return _solved(h + kappa if off is None else off + np.diag(h + kappa), Hw)


def soft_bound_equilibrium(
    w_star: Array, eta: float, curvature: Array, mean_step: Array, bound: float
) -> Array:
    """Where a device with soft bounds at +-w_b holds a weight in the mean.

    Parameters
    ----------
    w_star : array of shape (n,)
        The minimum.
    eta : float
        Learning rate.
    curvature : array of shape (n,)
        lam, each weight's own H_ii, H diagonal.
    mean_step : array of shape (n,)
        E|Dw| of the wanted steps, near enough independent of w, as where perturbation noise rules:
        eta |g| sqrt(2/pi) for a Rademacher code of many weights, about sqrt(n) the |eta g_i| of
        descent.
    bound : float
        w_b.

    Returns
    -------
    array of shape (n,)
        w*/(1 + E|Dw|/(eta lam w_b)).

    Raises
    ------
    InputError
        For arrays that do not fit, or a number out of its range.

    Notes
    -----
    The device executes a wanted step Dw as Dw - |Dw| w/w_b, so that noise pulls to zero with the
    strength E|Dw|/w_b against eta lam.

    References
    ----------
    Fusi and Abbott, Limits on the memory storage capacity of bounded synapses, Nature Neuroscience
    10 (2007) 485-493.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb.theory.imperfections import soft_bound_equilibrium
    >>> soft_bound_equilibrium(np.array([1.0]), 0.1, np.array([1.0]), np.array([0.1]), bound=1.0)
    array([0.5])
    """
    lam, step = as_floats("curvature", curvature), as_floats("mean_step", mean_step)
    if not ((lam > 0).all() and (step >= 0).all()):
        raise InputError("curvature must be positive and mean_step at least 0 in every entry")
    # eta lam (w* - w) of learning = E|Dw| w/w_b of the device
    return as_floats("w_star", w_star) / (
        1 + step / (positive("eta", eta) * lam * positive("bound", bound))
    )


def constrained_minimum(
    H: Array, w_star: Array, stuck: Sequence[int], values: Array
) -> tuple[Array, float]:
    """The minimum that is left when some weights are stuck and all others are free.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric, or its diagonal.
    w_star : array of shape (n,)
        The minimum of all.
    stuck : sequence of int
        The weights that are stuck.
    values : array
        Where they are, one number for each.

    Returns
    -------
    tuple
        w there, (n,), and E, above that of w*.

    Raises
    ------
    InputError
        For numbers that are not those of weights, or an H_ff that is not positive definite.

    Notes
    -----
    w_f = w*_f - H_ff^-1 H_fs u_s, E = u_s'(H_ss - H_sf H_ff^-1 H_fs) u_s/2, u_s = values - w*_s
    (Schur's complement): where the mean of learning goes, and what is lost.

    Examples
    --------
    >>> from perturb.theory.imperfections import constrained_minimum
    >>> constrained_minimum([1.0, 2.0], [1.0, 1.0], [1], [0.0])
    (array([1., 0.]), 1.0)
    """
    h, off = parts_of(H)
    n, full = h.size, np.diag(h) if off is None else off + np.diag(h)
    w, chosen = as_weights("w_star", w_star, n).copy(), np.asarray(stuck)
    if not (chosen.ndim == 1 and (chosen.size == 0 or np.issubdtype(chosen.dtype, np.integer))):
        raise InputError(f"stuck = {stuck!r} must be a list of weight numbers")
    if not ((chosen >= 0) & (chosen < n)).all() or len(set(chosen.tolist())) < chosen.size:
        raise InputError(f"stuck = {chosen.tolist()} must be different numbers from 0 to {n - 1}")
    chosen = chosen.astype(int)
    # u_s: how far from their own minimum the stuck ones are
    u = as_weights("values", values, chosen.size) - w[chosen]
    free = np.setdiff1d(np.arange(n), chosen)
    w[chosen] += u
    schur = full[np.ix_(chosen, chosen)] @ u
    if free.size:
        # H_ff u_f = -H_fs u_s: the free ones make up for it as well as they can
        moved = _solved(full[np.ix_(free, free)], full[np.ix_(free, chosen)] @ u)
        w[free] -= moved
        schur = schur - full[np.ix_(chosen, free)] @ moved
    return w, float(u @ schur) / 2


def rounding_gain(spread: float, step: float, offset: float = 0.0) -> float:
    """How much of a small signal passes a rounding to steps, where noise rides on it.

    Parameters
    ----------
    spread : float
        s, standard deviation of the noise.
    step : float
        q: values are rounded to its nearest multiple.
    offset : float
        m, the mean of what is rounded.

    Returns
    -------
    float
        d E round(x)/dm; its mean over offsets is 1, offset 0 is the worst.

    Raises
    ------
    InputError
        For arrays that do not fit, or a number out of its range.

    Notes
    -----
    For x ~ N(m, s^2): 1 + 2 sum_k (-1)^k cos(2 pi k m/q) exp(-2 (pi k s/q)^2), or q times the
    density of x summed over (j + 1/2) q. Of a converter of dE: s = std(dE), the gain of G. Of
    writes in steps, to the nearest: s = std(eta G), the gain of eta. 1.00 at q = 1.2 s, 0.43 at 4
    s, 0.05 at 6 s.

    References
    ----------
    Bussgang, Crosscorrelation functions of amplitude-distorted Gaussian signals, MIT RLE report 216
    (1952). Widrow and Kollar, Quantization noise, Cambridge (2008).

    Examples
    --------
    >>> from perturb.theory.imperfections import rounding_gain
    >>> round(rounding_gain(1.0, 1.2), 2), round(rounding_gain(1.0, 4.0), 2)
    (1.0, 0.43)
    """
    s, m = (
        at_least_zero("spread", spread) / positive("step", step),
        as_number("offset", offset) / step,
    )
    # Poisson's sum; (-1)^k cos(2 pi k m) = cos(pi k (1 + 2m)), m and s in steps
    if s >= _NARROW:
        return float(
            1
            + 2
            * (np.cos(np.pi * _TERMS * (1 + 2 * m)) * np.exp(-2 * (np.pi * _TERMS * s) ** 2)).sum()
        )
    # from the nearest edge between two values; the others are out of reach of so narrow a density
    distance = abs((m % 1) - 0.5)
    # no noise at all: a staircase
    if s == 0:
        return math.inf if distance == 0 else 0.0
    return math.exp(-((distance / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))


def rounding_variance(spread: float, step: float, stochastic: bool) -> float:
    """The mean square that rounding a write to steps adds to it.

    Parameters
    ----------
    spread : float
        s, standard deviation of the wanted change Dw ~ N(0, s^2).
    step : float
        q: what is written is a multiple of it.
    stochastic : bool
        Up with a probability equal to the fraction, so that there is no bias; else to the nearest.

    Returns
    -------
    float
        q^2/6 (stochastic) or q^2/12 for s > q.

    Raises
    ------
    InputError
        For arrays that do not fit, or a number out of its range.

    Notes
    -----
    Stochastic, f the fraction: q^2 E f(1-f) = q^2 [1/6 - sum_k e_k/(pi k)^2], e_k =
    exp(-2 (pi k s/q)^2); q E|Dw| - s^2 for small s. Nearest: q^2 [1/12 + sum_k (-1)^k e_k/(pi
    k)^2]; s^2 for small s, when nothing is written.

    References
    ----------
    Widrow and Kollar, Quantization noise, Cambridge (2008). Gupta, Agrawal, Gopalakrishnan and
    Narayanan, Deep learning with limited numerical precision, ICML (2015).

    Examples
    --------
    >>> from perturb.theory.imperfections import rounding_variance
    >>> round(rounding_variance(2.0, 1.0, stochastic=True), 6)
    0.166667
    """
    s, q = at_least_zero("spread", spread) / positive("step", step), step
    if s < _NARROW:
        # small s: f = |Dw|/q, so q^2 E f(1 - f) = q E|Dw| - s^2
        return q**2 * (s * math.sqrt(2 / math.pi) - s**2 if stochastic else s**2)
    terms = np.exp(-2 * (np.pi * _TERMS * s) ** 2) / (np.pi * _TERMS) ** 2
    return q**2 * float(
        1 / 6 - terms.sum() if stochastic else 1 / 12 + ((-1.0) ** _TERMS * terms).sum()
    )


def rounding_floor(curvature: Array, eta: float, step: float, stochastic: bool) -> float:
    """The error at which descent by exact gradients ends when weights are written in steps.

    Parameters
    ----------
    curvature : array of shape (n,)
        l, the diagonal of H, off which it is zero.
    eta : float
        Learning rate, eta l < 1.
    step : float
        q.
    stochastic : bool
        As in `rounding_variance`.

    Returns
    -------
    float
        In units of E.

    Raises
    ------
    InputError
        If eta times a curvature does not lie between 0 and 1.

    Notes
    -----
    Nearest: a weight stops where its update falls below q/2, at |u| = q/(2 eta l), less at most one
    step, for sum_i q^2/(8 eta^2 l_i). Stochastic: it ends hopping between the two values next to
    w*, E u^2 = f(1-f) q^2, in the mean over all w* sum_i l_i q^2/12. The ratio is 3/(2 (eta l)^2):
    20 at eta l = 0.27, and without bound for small rates. Noise in the updates is a dither, with
    which both learn: `rounding_gain`.

    Examples
    --------
    >>> from perturb.theory.imperfections import rounding_floor
    >>> rounding_floor([1.0], eta=0.5, step=0.1, stochastic=False)
    0.005000000000000001
    """
    lam, eta, q = as_floats("curvature", curvature), positive("eta", eta), positive("step", step)
    if not (lam > 0).all() or not (eta * lam < 1).all():
        raise InputError(
            f"eta = {eta} times curvature must lie between 0 and 1 for every weight: lower eta"
        )
    # l u^2/2: with E u^2 = q^2/6, the mean of f(1 - f) q^2, or with u = q/(2 eta l)
    return float((lam * q**2 / 12 if stochastic else q**2 / (8 * eta**2 * lam)).sum())


def stalled_gradient(sigma: float, step: float, other: float = 0.0, gain: float = 0.5) -> float:
    """|g| below which a converter of dE in steps leaves too little of the gradient.

    Parameters
    ----------
    sigma : float
        The rms perturbation, in units of the weights.
    step : float
        Of the converter, in units of E.
    other : float
        Standard deviation of what noise, curvature or dither give dE anyway.
    gain : float
        Of `rounding_gain`, below which learning counts as stalled; between 0 and 1.

    Returns
    -------
    float
        0 if `other` alone is dither enough.

    Raises
    ------
    InputError
        For arrays that do not fit, or a number out of its range.

    Notes
    -----
    std(dE)^2 = sigma^2 |g|^2 + other^2; its `rounding_gain` is 1/2 at 0.263 steps, 0.99 at 0.52. An
    E of |g|^2/(2 l_max) or more is left.

    Examples
    --------
    >>> from perturb.theory.imperfections import stalled_gradient
    >>> round(stalled_gradient(sigma=1.0, step=1.0), 3)
    0.263
    """
    sigma, step, other, gain = (
        positive("sigma", sigma),
        positive("step", step),
        at_least_zero("other", other),
        between_0_and_1("gain", gain),
    )
    # the gain rises from 0 to 1 with the spread, in steps
    std = step * brentq(lambda s: rounding_gain(s, 1.0) - gain, 1e-3, 3.0)
    return math.sqrt(max(std**2 - other**2, 0.0)) / sigma


def _solved(H: Array, b: Array) -> Array:
    """H^-1 b of a positive definite H."""
    h, off = parts_of(H)
    b = as_weights("b", b, h.size)
    # by eigenvalues, which also tell whether H is positive definite
    lam, U = (h, None) if off is None else np.linalg.eigh(off + np.diag(h))
    if not lam.min() > FLAT * lam.max():
        raise InputError(
            f"H has the eigenvalue {lam.min():.3g}, but must be positive definite here: leave flat"
            " directions out"
        )
    return b / lam if U is None else U @ ((U.T @ b) / lam)
