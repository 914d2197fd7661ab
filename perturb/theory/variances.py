"""Variance of one trial of an estimate, weight by weight, on a quadratic E.

For a code of independent symmetric components with kurtosis k and sixth moment m (in units of
sigma). D is in units of sigma here. What a periodic code adds: `trial.periodicity.disturbance`.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from perturb.theory.forms import expectation
from perturb.theory.limits import Response, joint_fit, limit, response
from perturb.theory.quadratic import Curvature
from perturb.trial.code import Code
from perturb.trial.methods import Method
from perturb.trial.periodicity import odd_variance

Array = np.ndarray


@dataclass(frozen=True)
class _Products:
    """Expectations of squares of dE times those of a regressor f of z, each (n,) or a number, in
    units of sigma.

    f0 = f - E f; l = slope.D, q = D'MD/2 minus its mean. LFF: E l^2 f0^2, QFF: E q^2 f0^2, LF: E
    l^2 f0, QF: E q^2 f0, FFQ: E q f0^2, FF: E f0^2, FQ: E q f0, LL: E l^2, QQ: E q^2.
    """

    LFF: Array
    QFF: Array
    LF: Array
    QF: Array
    FFQ: Array
    FF: Array
    FQ: Array
    LL: Array
    QQ: Array


def _products(
    code: Code, c: Curvature, slope: Array, g: Array, A1: Array | float, A2: Array
) -> _Products:
    """Of f = A1 D_i s' + A2 D_i^2, s' = s - v_i D_i: exact, weight by weight; l = slope.D, but with
    g_i D_i for slope_i D_i.

    q = (H_ii/2) u + D_i h' + p', with u = D_i^2 - 1, h' = sum_{j != i} H_ij D_j and p' of the rest
    alone. E p'^2 s'^2 is that of all weights, (k-1) V |h|^2 + (m-3k+2) h^2.v^2 + off V/2 + (k-3)
    v^2.rows + 2 |o|^2 + 4(k-1) h v.o with h = H_jj/2, o = off diagonal part of Hv, less what has i
    in it.
    """
    k, m, v, h, rows = code.kurtosis, code.sixth, c.v, c.diagonal / 2, c.off_rows
    # h is H_jj/2: with it D'HD/2 = sum_j h_j D_j^2 + D'OD/2
    off = c.z - c.diagonal * v  # E h's'
    W, X, Y = c.crossed if c.crossed is not None else _evenly(v, off, c.diagonal * v, rows)
    uu, uuu, uu1 = k - 1, m - 3 * k + 2, m - 2 * k + 1  # E u^2, u^3, u^2 D^2
    uuuu = code.eighth - 4 * m + 6 * k - 3
    # from here on of all weights but i
    V, hh = c.V - v**2, float(h @ h) - h**2
    pp = uu * hh + c.off_square / 2 - rows  # E p'^2
    pss = float(v @ off) - 2 * v * off + uu * (float(h @ v**2) - h * v**2)  # E p's'^2
    hps = X - v * rows + uu / 2 * Y  # E h'p's'
    # E p'^2 s'^2, the sum of all weights (see above) less what has i in it
    ppss = (
        uu * V * hh
        + uuu * (float(h**2 @ v**2) - h**2 * v**2)
        + (c.off_square / 2 - rows) * V
        + (k - 3) * (float(v**2 @ rows) - v**2 * rows - W)
        + 2 * (float(off @ off) - off**2 - 2 * v * X + v**2 * rows)
        + 4 * uu * (float(h * v @ off) - h * v * off - v * Y / 2)
    )
    # E h'^2 s'^2 by Isserlis, and the excess of fourth moments
    hhss = rows * V + 2 * off**2 + (k - 3) * W
    gv, ll = float(slope @ v) - slope * v, float(slope @ slope) - slope**2  # E l's', E l'^2
    llss = ll * V + 2 * gv**2 + (k - 3) * (float(slope**2 @ v**2) - slope**2 * v**2)
    # with f = A1 D_i s' + A2 D_i^2; what is odd in D_i, or in the others, has mean 0
    return _Products(
        LFF=A1**2 * (k * g**2 * V + llss)
        + A2**2 * (g**2 * uu1 + ll * uu)
        + 4 * A1 * A2 * g * uu * gv,
        # q = h_i u + D_i h' + p' (here h_i is H_ii/2): its square, with f's
        QFF=A1**2 * (h**2 * uu1 * V + k * hhss + ppss + 2 * h * uu * pss)
        + A2**2 * (h**2 * uuuu + uu1 * rows + uu * pp)
        + A1 * A2 * (4 * h * uu1 * off + 4 * uu * hps),
        # first moments of the same products
        LF=2 * A1 * g * gv + A2 * uu * g**2,
        QF=A1 * (2 * h * uu * off + 2 * hps) + A2 * (h**2 * uuu + uu * rows),
        FFQ=A1**2 * (h * uu * V + pss) + A2**2 * h * uuu + 2 * A1 * A2 * uu * off,
        FF=A1**2 * V + A2**2 * uu,
        FQ=A1 * off + A2 * h * uu,
        LL=ll + g**2,
        QQ=h**2 * uu + rows + pp,
    )


@dataclass(frozen=True)
class TrialVariance:
    """Variance of one trial per weight, in the parts that a periodic code treats differently.

    Attributes
    ----------
    odd : array of shape (n,)
        Of what is odd in D in dE, its linear part.
    even : array of shape (n,)
        Of the curvature in dE.
    mean : array of shape (n,)
        Of the mean of dE, and of the regressor of z, where they are left in.
    noise : array of shape (n,)
        Of the measurements.
    pairs : array of shape (n,) or float
        Of a covariance: the product of the variances of dE and of its regressor, which counts where
        trials are few.
    """

    odd: Array
    even: Array
    mean: Array
    noise: Array
    pairs: Array | float = 0.0

    @property
    def total(self) -> Array:
        """All parts together, but for `pairs`."""
        return self.odd + self.even + self.mean + self.noise

    def scaled(self, factor: float) -> "TrialVariance":
        """Every part times a number.

        Parameters
        ----------
        factor : float
        """
        return TrialVariance(*(factor * getattr(self, part.name) for part in fields(self)))


def trial_variances(
    method: Method,
    code: Code,
    c: Curvature,
    sigma: float,
    r: float,
    noise: float,
    seed: int = 0,
    whole: Curvature | None = None,
) -> tuple[TrialVariance, TrialVariance]:
    """Variance of one trial of g_i and of z_i.

    Parameters
    ----------
    method : Method
    code : Code
    c : Curvature
        Of the objective, or of the pattern that a trial presents.
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.
    noise : float
        Variance of one evaluation, in units of E squared.
    seed : int
        Decides which shift registers meet.
    whole : Curvature, optional
        That of which c is one pattern; then what its mean of dE, and its g and z, differ from the
        fitted ones is left in too.

    Returns
    -------
    tuple of two TrialVariance
        Of g and of z; NaN for a z not estimated.

    Notes
    -----
    dE = slope.D + bend D'HD/2 + offset + noise, from the moments of the method's weights; noise' =
    noise times their squares. On dw (g; z of a difference, over r):
      |slope|^2 + (k-2) slope_i^2 + noise'/sigma^2, in all (n+k-2)|slope|^2 + n noise'/sigma^2; if
      bend is not 0 also (bend sigma)^2 [E q^2 + (m-3k+2) H_ii^2/4 + (k-1) sum_{j != i} H_ij^2], q =
      (D'HD - tr H)/2, and, of a mean of dE that is left in, mean^2/sigma^2 + bend mean (k-1) H_ii.
    Moments on s dw: Var of (dE - E dE)(f - E f)/sigma^4, f = s D_i - kappa v_i D_i^2, or where not
      centred of dE f/sigma^4: exact weight by weight, see `_products`.
    Least squares: of the residual dE - g_i D_i - z^_i b_i (- intercept) times D_i/sigma^2 for g and
      times b_i/C(B_i,B_i) for z, as for any regression whose errors are not of one size (White
      1980); corrected along v: that times 1 - v_i^2/2V, plus (v_i/2V) dE (s^2 - V). Exact to `FEW`
      weights whose H is known, see `forms.expectation`; above, leading in n.
    sequential: one weight at a time, sigma sqrt(n): |slope|^2 - slope_i^2, even part (bend sigma n
    H_ii/2)^2. lfsr: slope'C slope - (C slope)_i^2, C as in `Registers` (curvature as if no
    two weights had the same perturbation). Known with the error e only: e^2 E dE^2/sigma^2 more
    for g, the rest of z times (1 + e^2)^2 (leading in n); measured denominators divide by
    (1 + e^2)^2 and (1 + e^2)^4.
    """
    # noise': independent readings, each with its weight
    noise_g, noise_z = (
        noise * sum(w**2 for w in weights)
        for weights in (method.gradient_weights, method.hv_weights)
    )
    (dE_g, mean_g), (dE_z, mean_z) = (
        _left(method, c, whole or c, of, sigma, r) for of in ("gradient", "hv")
    )
    if method.fit == "least_squares":
        return _on_both(method, code, c, whole or c, dE_z, mean_z, sigma, r, noise_z)
    g = _on_dw(method, code, c, dE_g, mean_g, sigma, noise_g, seed)
    if not method.estimates_hv:
        # of a z that is not estimated
        nothing = np.full(c.g.size, np.nan)
        return g, TrialVariance(nothing, nothing, nothing, nothing)
    if method.regressor == "dw":
        return g, _on_dw(
            method,
            code,
            c,
            # z of a difference is dE_z D_i/(r sigma^2): as g, everything over r
            replace(dE_z, slope=dE_z.slope / r),
            mean_z / r,
            sigma,
            noise_z / r**2,
            seed,
        )
    return g, _on_s_dw(method, code, c, dE_z, mean_z, sigma, noise_z)


def _left(
    method: Method,
    c: Curvature,
    whole: Curvature,
    of: Literal["gradient", "hv"],
    sigma: float,
    r: float,
) -> tuple[Response, float]:
    """dE, and what a method leaves of its mean: all, or, centred, that of one pattern against
    the whole.
    """
    dE = response(method, c, of, r)
    return dE, dE.mean(c, sigma) - method.centred * response(method, whole, of, r).mean(
        whole, sigma
    )


def _others(slope: Array, k: float) -> Array:
    """Variance of (D.slope) D_i/sigma^2, per weight."""
    return float(slope @ slope) + (k - 2) * slope**2


def _on_dw(
    method: Method,
    code: Code,
    c: Curvature,
    dE: Response,
    mean: float,
    sigma: float,
    noise: float,
    seed: int,
) -> TrialVariance:
    # in units of sigma: dE/sigma = slope.D + bend D'HD/2 + mean/sigma
    n, k, h, bend = c.g.size, code.kurtosis, c.diagonal, sigma * dE.bend
    if not code.independent:  # deterministic: +-sigma bits of a register, or one weight at a time
        # one at a time: D'HD/2 = n H_ii/2 sigma^2; a register: as if all D_j D_l were independent
        even = (
            (bend * n * h / 2) ** 2 if code.orthogonal else np.full(n, bend**2 * c.off_square / 2)
        )
        left_in = np.full(n, 0.0 if code.orthogonal else mean**2 / sigma**2)
        return TrialVariance(
            odd_variance(code, dE.slope, seed), even, left_in, np.full(n, noise / sigma**2)
        )
    # E q^2: sum_j (k-1) H_jj^2/4 + sum_{j<l} H_jl^2
    qq = (k - 1) * float(h @ h) / 4 + c.off_square / 2
    even = bend**2 * (qq + (code.sixth - 3 * k + 2) * h**2 / 4 + (k - 1) * c.off_rows)
    left_in = dE.bend * mean * (k - 1) * h + mean**2 / sigma**2
    # E dE^2/sigma^2
    square = float(dE.slope @ dE.slope) + bend**2 * qq + (mean**2 + noise) / sigma**2
    # the error e x of what a synapse knows of D_i meets all of dE
    odd = _others(dE.slope, k) + code.sensing**2 * square
    return TrialVariance(odd, even, left_in, np.full(n, noise / sigma**2), square * method.centred)


def _evenly(v: Array, off: Array, along: Array, rows: Array) -> tuple[float, Array, Array]:
    """The mean of the first sum of `Curvature.crossed`; the others parallel to v, with the same
    products with v.
    """
    V = float(v @ v) or 1.0
    return float(v**2 @ rows) / v.size, float(off @ off) / V * v, float(off @ along) / V * v


def _products_of_b(
    code: Code,
    c: Curvature,
    slope: Array,
    corrected: Array,
    scale: Array,
    along: Array,
    fitted: Array,
) -> tuple[_Products, tuple[Array, Array]]:
    """Of f = scale b_i + along (s^2 - V), and of D_i in place of f: E D_i^2 q^2, E D_i^2 q.

    q is less fitted b_i, and l has corrected_i D_i for slope_i D_i; but (s^2 - V) is multiplied
    with all of dE.

    Exact for few weights whose H is known. Else what f has of s'^2 is left out (-(v_i/2V^2) of b_i:
    a share of order 1/n, which the correction along v takes away but for k), and what is taken of
    q.
    """
    k, v, V, n = code.kurtosis, c.v, c.V, c.v.size
    if c.H is None:
        # b_i = (s/V)(D_i - s v_i/(2V)) and s^2 with s = s' + v_i D_i, the s'^2 left out
        A1, A2 = (
            scale * (1 / V - v**2 / V**2) + 2 * along * v,
            scale * (v / V - v**3 / (2 * V**2)) + along * v**2,
        )
        P, h = _products(code, c, slope, corrected, A1, A2), c.diagonal / 2
        return P, (P.QQ + (code.sixth - 3 * k + 2) * h**2 + (k - 1) * c.off_rows, 2 * (k - 1) * h)
    # few weights: every form as a matrix, (n, n, n), and all expectations exactly
    moments, x = (k, code.sixth, code.eighth), np.eye(n)
    vv = np.outer(v, v)
    # b_i = D'B_iD/2
    B = (x[:, :, None] * v + v[:, None] * x[:, None]) / V - v[:, None, None] * vv / V**2
    # f = D'FD/2, as s^2 = D'(2 v v')D/2
    F = scale[:, None, None] * B + along[:, None, None] * 2 * vv
    # what the fit leaves of D'HD/2 and of D.slope, for each weight i its own
    Q, L = c.H - fitted[:, None, None] * B, slope + np.diag(corrected - slope)

    def E(*forms: Array) -> Array:
        return expectation(list(forms), moments)

    LFF, QFF, FQ = E(L, L, F, F), E(Q, Q, F, F), E(F, Q)
    if along.any():
        # but (s^2 - V) is multiplied with all of dE: here is what was taken off, once more
        S, G, d = (
            2 * vv[None],
            (fitted * along)[:, None, None] * B,
            np.diag((slope - corrected) * along),
        )
        LFF += 2 * E(L, d, F, S) + E(d, d, S, S)
        QFF, FQ = QFF + 2 * E(Q, F, G, S) + E(G, G, S, S), FQ + E(G, S)
    P = _Products(LFF, QFF, E(L, L, F), E(Q, Q, F), E(F, F, Q), E(F, F), FQ, E(L, L), E(Q, Q))
    return P, (E(x, x, Q, Q), E(x, x, Q))


def _covariance(
    P: _Products, bend: float, mu: Array | float, t: Array | float, sigma: float, noise: float
) -> TrialVariance:
    """Variance of dE f/sigma^4, where mu is left of E f, and t sigma^2 of E dE."""
    return TrialVariance(
        # (l + bend q + t)(f0 + mu): what is odd in D, what is even, what means leave in, noise
        (P.LFF + 2 * mu * P.LF + mu**2 * P.LL) / sigma**2,
        bend**2 * (P.QFF - P.FQ**2),
        bend**2 * (2 * mu * P.QF + mu**2 * P.QQ) + 2 * bend * t * (P.FFQ + mu * P.FQ) + t**2 * P.FF,
        noise * (P.FF + mu**2) / sigma**4,
        (P.LL / sigma**2 + bend**2 * P.QQ + t**2 + noise / sigma**4) * P.FF,
    )


def _on_s_dw(
    method: Method, code: Code, c: Curvature, dE: Response, mean: float, sigma: float, noise: float
) -> TrialVariance:
    v = c.v
    if method.regressor == "s_dw":
        # s D_i - kappa v_i D_i^2 = D_i s' + (1 - kappa) v_i D_i^2, and <s D_i> = v_i
        P, mu = (
            _products(code, c, dE.slope, dE.slope, 1.0, v * (1 - method.kappa(code.kurtosis))),
            v,
        )
    else:
        # b_i itself with a known denominator: nothing is fitted
        one, none = np.ones(v.size), np.zeros(v.size)
        (P, _), mu = _products_of_b(code, c, dE.slope, dE.slope, one, none, none), v / (2 * c.V)
    found = _covariance(P, dE.bend, 0.0 if method.centred else mu, mean / sigma**2, sigma, noise)
    return replace(found, pairs=found.pairs * method.centred).scaled((1 + code.sensing**2) ** 2)


def _on_both(
    method: Method,
    code: Code,
    c: Curvature,
    whole: Curvature,
    dE: Response,
    mean: float,
    sigma: float,
    r: float,
    noise: float,
) -> tuple[TrialVariance, TrialVariance]:
    v, V, blur = c.v, c.V, code.sensing**2
    # <dE_z>/sigma^2 of the whole objective: the fit is over all patterns
    left_in = (
        0.0 if method.centred else response(method, whole, "hv", r).mean(whole, sigma) / sigma**2
    )
    C_HB, C_BB = joint_fit(method, code, whole, left_in)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(C_BB > 1e-14 / V, 1 / C_BB, np.nan)
    # z^_i, and the share of dE that b_i explains
    fitted, along = scale * C_HB, np.zeros(v.size)
    mu = 0.0 if method.centred else v / (2 * V)
    t = mean / sigma**2 - fitted * mu  # what the fit leaves of the mean
    if method.correction == "along":
        # z^_i (1 - v_i^2/2V) + (v_i/2V) c, c = <dE (s^2 - V)>
        scale, along = scale * (1 - v**2 / (2 * V)), v / (2 * V)
    P, (DDQQ, DDQ) = _products_of_b(code, c, dE.slope, dE.slope - whole.g, scale, along, fitted)
    if c.H is None:
        # E q f from the limits, which are exact, rather than to leading order
        expected = limit(method, code, c, 0, sigma, r) - limit(method, code, whole, 0, sigma, r)
        expected = expected + along * float(
            v @ whole.z + (code.kurtosis - 3) / 2 * whole.diagonal @ v**2
        )
        P = replace(P, FQ=expected - t * scale * mu)
    # of its corrected D_i g_i, a synapse that measures D_i with an error explains a part only
    z = _covariance(
        replace(P, LFF=P.LFF + blur * dE.slope**2 * P.FF), dE.bend, scale * mu, t, sigma, noise
    )
    missed = blur * (P.LL + dE.slope**2 + sigma**2 * P.QQ + (sigma * t) ** 2 + noise / sigma**2)
    odd = P.LL + (code.kurtosis - 2) * (dE.slope - whole.g) ** 2 + missed
    g = TrialVariance(
        odd, sigma**2 * DDQQ, sigma**2 * (2 * t * DDQ + t**2), 0 * t + noise / sigma**2
    )
    return g.scaled(1 / (1 + blur) ** 2), replace(z, pairs=0.0).scaled(1 / (1 + blur) ** 2)
