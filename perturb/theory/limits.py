"""What an estimate tends to with infinitely many trials, on a quadratic E.

For a code of independent symmetric components with kurtosis k. Terms of third and higher
derivatives (bias O(sigma^2), O(r^2)) are left out, but see `amplitude`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perturb.theory.quadratic import Curvature
from perturb.trial.code import Code
from perturb.trial.methods import Method
from perturb.trial.periodicity import correlated

Array = np.ndarray


def gradient_limit(method: Method, code: Code, g: Array, seed: int = 0) -> Array:
    """What the method's g tends to on a quadratic E: g itself, but for two codes.

    Parameters
    ----------
    method : Method
    code : Code
    g : array of shape (n,)
        Slope of dE_g on D, see `response`.
    seed : int
        Decides which shift registers meet.

    Returns
    -------
    array of shape (n,)

    Notes
    -----
    lfsr, period L: S_i - (sum_j g_j - S_i)/L, S_i the sum of g over weight i and those that have
    its perturbation (g_i alone where one register feeds all), as weights correlate by -1/L or 1,
    see `Registers`. A code that synapses know with the relative error e only, with measured
    denominators (least squares): g/(1 + e^2); with known ones the error has no effect on the mean.
    """
    # <(D_i + e x sigma)^2> = (1 + e^2) sigma^2 is the denominator, <dE D_i> is not changed
    if code.sensing and method.fit == "least_squares":
        return g / (1 + code.sensing**2)
    return correlated(code, g, seed)


@dataclass(frozen=True)
class Response:
    """dE_g or dE_z of a quadratic E: slope.D + bend D'HD/2 + offset.

    Attributes
    ----------
    slope : array of shape (n,)
    bend : float
    offset : float
        In units of E.
    """

    slope: Array
    bend: float
    offset: float

    def mean(self, c: Curvature, sigma: float) -> float:
        """The mean over D, offset + bend sigma^2 tr H/2.

        Parameters
        ----------
        c : Curvature
        sigma : float
            The rms perturbation, in units of the weights.
        """
        return self.offset + self.bend * sigma**2 * c.trace / 2


def response(method: Method, c: Curvature, of: Literal["gradient", "hv"], r: float) -> Response:
    """dE of a method on a quadratic E, from the moments of its weights.

    Parameters
    ----------
    method : Method
    c : Curvature
    of : {"gradient", "hv"}
        Which of dE_g and dE_z.
    r : float
        The displacement of w along v.

    Returns
    -------
    Response
        (m_10 g + m_11 r z).D + m_20 D'HD/2 + m_02 (r^2/2) v.z.
    """
    m10, m11, m20, m02 = (method.moment(of, *ij) for ij in ((1, 0), (1, 1), (2, 0), (0, 2)))
    return Response(m10 * c.g + m11 * r * c.z, m20, m02 * r**2 / 2 * float(c.v @ c.z))


def limits(
    method: Method, code: Code, c: Curvature, sigma: float, r: float, seed: int = 0
) -> tuple[Array, Array]:
    """What g and z tend to with infinitely many trials of these sigma and r.

    Parameters
    ----------
    method : Method
    code : Code
    c : Curvature
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.
    seed : int
        Decides which shift registers meet.

    Returns
    -------
    tuple of two arrays of shape (n,)
        `gradient_limit` and `limit`.

    Notes
    -----
    A g whose weights respond to D and v together (m_11 = sum of weights times a b) tends to g +
    m_11 r z. Where the fit of a weight is singular, neither is known.
    """
    g = gradient_limit(method, code, response(method, c, "gradient", r).slope, seed)
    z = limit(method, code, c, seed, sigma, r)
    return (np.where(np.isnan(z), np.nan, g) if method.fit == "least_squares" else g), z


def limit(
    method: Method, code: Code, c: Curvature, seed: int = 0, sigma: float = 1.0, r: float = 0.0
) -> Array:
    """What the method's z tends to with infinitely many trials.

    Parameters
    ----------
    method : Method
    code : Code
    c : Curvature
    seed : int
        Decides which shift registers meet.
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.

    Returns
    -------
    array of shape (n,)
        NaN for a method of the gradient alone.

    Notes
    -----
    difference: z (lfsr: as in `gradient_limit`). covariance, antithetic: z_i + (k-3)/2 H_ii v_i;
    with the diagonal correction z_i for k > 1. A mean product instead of a covariance (not
    centred): E dE_z/sigma^2 v_i more, E dE_z = sigma^2 tr H/2 + m_02 (r^2/2) v.z, of which only the
    second part depends on sigma and r, and no method of the table has it. Joint least squares, with
    B_i = (e_i v' + v e_i')/V - v_i v v'/V^2 and C(H,B) = (1/2)[tr(HB) + ((k-3)/2) sum_j H_jj B_jj]:
      without intercept  [C(H,B_i) + (v_i/2V) E dE_z/sigma^2] / [C(B_i,B_i) + (v_i/2V)^2]
      with intercept      C(H,B_i) / C(B_i,B_i) =: z^_i
      corrected z^_i (1 - v_i^2/2V) + (v_i/2V) [v.z + (k-3)/2 sum_j H_jj v_j^2], which is z_i for k
      = 3
    The same regressor with known denominators: the numerators alone. A code known with the relative
    error e: C(H,B) times 1/(1+e^2)^2, the mean's term times 1/(1+e^2). An orthogonal code with
    random signs or phases has the moments of independent components. NaN where the denominator
    vanishes (an intercept, k = 1 and one weight only: the regressor is then constant).
    """
    k, V, v, z, h = code.kurtosis, c.V, c.v, c.z, c.diagonal
    if not method.estimates_hv:
        return np.full(z.size, np.nan)
    if method.regressor == "dw":
        # dE_z/r is D.z + ..., as dE_g is D.g + ...: one law for both
        return correlated(code, z, seed)
    # <dE_z>/sigma^2, where it is not taken off
    mean = response(method, c, "hv", r).mean(c, sigma) / sigma**2 * (not method.centred)
    if method.regressor == "s_dw":
        # Cov(D'HD/2, s D_i)/sigma^4 by Isserlis, and what kurtosis adds where j = i
        tends = z if method.correction == "diagonal" and k > 1 else z + (k - 3) / 2 * h * v
        # <s D_i> = sigma^2 v_i
        return tends + v * mean
    C_HB, C_BB = joint_fit(method, code, c, mean)
    if method.fit == "moments":
        return C_HB
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = np.where(C_BB > 1e-14 / V, C_HB / C_BB, np.nan)
    if method.correction == "along":
        return fitted * (1 - v**2 / (2 * V)) + v / (2 * V) * (v @ z + (k - 3) / 2 * (h @ v**2))
    return fitted


def joint_fit(method: Method, code: Code, c: Curvature, mean: float) -> tuple[Array, Array]:
    """Numerator and denominator of the limit of the joint least squares, see `limit`.

    Parameters
    ----------
    method : Method
    code : Code
    c : Curvature
    mean : float
        Of dE_z over sigma^2, where it is left in.

    Returns
    -------
    tuple of two arrays of shape (n,)
        In units of sigma^4.
    """
    k, V, v, z, h = code.kurtosis, c.V, c.v, c.z, c.diagonal
    # diagonal of B_i: B_ii, and -v_i v_j^2/V^2 for j != i
    B_ii = 2 * v / V - v**3 / V**2
    # tr(H B_i) = 2 z_i/V - v_i v.z/V^2, then (k-3)/2 sum_j H_jj B_jj
    C_HB = 0.5 * (
        2 * z / V - v * (v @ z) / V**2 + (k - 3) / 2 * (2 * h * v / V - v * (h @ v**2) / V**2)
    )
    # tr(B_i B_i) = 2/V - v_i^2/V^2, then (k-3)/2 sum_j B_jj^2
    C_BB = 0.5 * (
        2 / V - v**2 / V**2 + (k - 3) / 2 * (v**2 * ((v**4).sum() - v**4) / V**4 + B_ii**2)
    )
    # a synapse that measures its own dw with the relative error e finds its variance, and so the
    # denominators, too large
    gain = 1 / (1 + code.sensing**2) if method.fit == "least_squares" else 1.0
    C_HB = gain**2 * C_HB
    if not method.centred:
        # without an intercept also <b_i> <dE> and <b_i>^2, with <b_i> = sigma^2 v_i/(2V)
        C_HB = C_HB + gain * v / (2 * V) * mean
        C_BB = C_BB + (v / (2 * V)) ** 2
    return C_HB, C_BB


def limit_stderr(method: Method, code: Code, c: Curvature) -> Array | None:
    """Standard error of the limit of z from that of the diagonal of H.

    Parameters
    ----------
    method : Method
    code : Code
    c : Curvature

    Returns
    -------
    array of shape (n,) or None
        None if the limit is exact.
    """
    if c.diagonal_stderr is None or not method.estimates_hv or method.regressor == "dw":
        return None
    e, v = c.diagonal_stderr, np.abs(c.v)
    found = np.zeros(v.size)
    if code.kurtosis != 3 and not (method.correction == "diagonal" and code.kurtosis > 1):
        # the bias (k-3)/2 H_ii v_i
        found = abs(code.kurtosis - 3) / 2 * e * v
    if not method.centred:
        # tr H/2 leaks in with v_i, or v_i/2 where b_i is fitted (leading in n)
        found = np.hypot(
            found, v * float(np.linalg.norm(e)) / (2 if method.regressor == "s_dw" else 4)
        )
    return found if found.any() else None
