"""What rounding to steps does to learning: a converter of dE, and writes of weights."""

import math

import numpy as np

from perturb.checks import (
    as_floats,
    as_number,
    at_least_zero,
    between_0_and_1,
    positive,
)
from perturb.errors import InputError

Array = np.ndarray
# terms of Poisson's sum; for spreads below step/20 the sum over steps is taken instead
_TERMS = np.arange(1, 33)
_NARROW = 0.05


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
    # e_k/(pi k)^2: Fourier series of f(1 - f), or of the square of the rounding error
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
    from scipy.optimize import brentq  # late: much to load, and not for every run

    sigma, step, other, gain = (
        positive("sigma", sigma),
        positive("step", step),
        at_least_zero("other", other),
        between_0_and_1("gain", gain),
    )
    # the gain rises from 0 to 1 with the spread, in steps
    std = step * brentq(lambda s: rounding_gain(s, 1.0) - gain, 1e-3, 3.0)
    return math.sqrt(max(std**2 - other**2, 0.0)) / sigma
