"""What imperfections do to learning on a quadratic E, in closed form: wrong directions, offsets,
leaks, bounds; rounding from `theory.rounding`.
"""

import math
from collections.abc import Sequence

import numpy as np

from perturb.checks import (
    as_floats,
    as_weights,
    at_least_zero,
    below_one,
    integer,
    positive,
)
from perturb.errors import InputError, choose
from perturb.theory.rounding import rounding_floor as rounding_floor
from perturb.theory.rounding import rounding_gain as rounding_gain
from perturb.theory.rounding import rounding_variance as rounding_variance
from perturb.theory.rounding import stalled_gradient as stalled_gradient
from perturb.theory.second_moments import FLAT, even_moments, parts_of
from perturb.trial.code import Code
from perturb.trial.codes import CODES

Array = np.ndarray


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
    # the next trial's D must tell nothing of this one's
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
    # as a weight decay of strength kappa
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
    # the stuck ones are where they are; u is their displacement
    w[chosen] += u
    schur = full[np.ix_(chosen, chosen)] @ u
    if free.size:
        # H_ff u_f = -H_fs u_s: the free ones make up for it as well as they can
        moved = _solved(full[np.ix_(free, free)], full[np.ix_(free, chosen)] @ u)
        w[free] -= moved
        schur = schur - full[np.ix_(chosen, free)] @ moved
    return w, float(u @ schur) / 2


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
