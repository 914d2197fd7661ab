"""What theory predicts of an estimate before it is run: limit, variance, cosine, trials and
evaluations needed.

Everything is for a quadratic E with the g, H, z of the objective at w, and a code of independent
symmetric components with kurtosis k and sixth moment m (in units of sigma). D below is in units of
sigma. Terms of third and higher derivatives (bias O(sigma^2), O(r^2)) are left out, but see
`amplitude`. Formulas: `limit`, `trial_variances`, `disturbance`.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np

from perturb.checks import as_weights, between_0_and_1, positive
from perturb.errors import choose
from perturb.estimation.design import MOST_TRIALS, Design
from perturb.networks.objective import Objective
from perturb.theory.forms import expectation
from perturb.trial.codes import CODES, SEQUENTIAL, Code
from perturb.trial.methods import METHODS, Method
from perturb.trial.periodicity import (
    correlated,
    disturbance,
    odd_variance,
    period_warnings,
    repeated,
)

Array = np.ndarray
# weights; to so many, variances of least squares are exact, from all of H; above, good to a few per
# cent
FEW = 12
EXACT_CURVATURE = 4096  # weights; above, the sums over H come from random probes
PROBES = 256
PATTERNS = 128


@dataclass(frozen=True)
class Curvature:
    """g, z and the few sums over H that limits and variances need, for one objective at one w and
    v.

    diagonal: H_jj; trace; off_square: sum_{j != l} H_jl^2; off_rows: its rows. Exact up to 4,096
    weights, else estimated with 256 random sign vectors (the smaller terms then carry a few per
    cent of error).

    crossed: what the variance of z of each single weight needs besides, shape (3, n): with O the
    part of H off the diagonal, o = Ov and d the diagonal, sum_j O_ij^2 v_j^2, (Oo)_i and (O(d
    v))_i. None: averages over the weights, which give the same sum of the variances. H: itself,
    shape (n, n), of `FEW` weights, else None. patterns: of some of the patterns alone, drawn at
    random, where each trial presents one; of: how many there are. diagonal_stderr, unsure: standard
    error of the diagonal, and the relative one of |H|_F^2, where they come from random sign
    vectors.
    """

    g: Array
    z: Array
    v: Array
    diagonal: Array
    off_rows: Array
    crossed: Array | None = None
    H: Array | None = None
    patterns: tuple["Curvature", ...] = ()
    of: int = 1
    diagonal_stderr: Array | None = None
    unsure: float = 0.0

    @property
    def V(self) -> float:
        return float(self.v @ self.v)

    @property
    def trace(self) -> float:
        return float(self.diagonal.sum())

    @property
    def off_square(self) -> float:
        return float(self.off_rows.sum())


def curvature(objective: Objective, w: Array, v: Array, probes: int | None = None) -> Curvature:
    """The `Curvature` of an objective at w, v. Cost: one Hv per weight, or `probes` of them
    (None: by the number of weights).
    """
    n = objective.n_weights
    w, v = as_weights("w", w, n), as_weights("v", v, n)
    _, g, z = objective.error_gradient_hvp(w, v)
    diagonal, rows, crossed, H = (
        np.zeros(n),
        np.zeros(n),
        np.zeros((3, n)),
        np.zeros((n, n)) if n <= FEW else None,
    )
    if probes is None and n <= EXACT_CURVATURE:
        for columns, part in objective.hessian_columns(w):
            index = np.arange(columns.start, columns.stop)
            diagonal[columns] = part[index, np.arange(index.size)]
            rows[columns] = (part * part).sum(0)
            crossed[0, columns] = v**2 @ (part * part)
            if H is not None:
                H[:, columns] = part
        rows -= diagonal**2
        crossed[0] -= v**2 * diagonal**2
        off = np.stack([z - diagonal * v, diagonal * v], axis=1)
        crossed[1:] = (objective.hvp(w, off) - diagonal[:, None] * off).T
        return Curvature(g, z, v, diagonal, rows, crossed, H)
    probes = -(-(PROBES if probes is None else probes) // 16) * 16
    rng = np.random.Generator(np.random.Philox(0))
    squares = np.zeros(n)
    sizes = []  # |Hx|^2, whose mean is |H|_F^2
    for _ in range(0, probes, 16):
        x = rng.choice([-1.0, 1.0], (n, 16))
        Hx = objective.hvp(w, x)
        diagonal += (x * Hx).sum(1) / probes
        squares += ((x * Hx) ** 2).sum(1) / probes
        sizes += list((Hx * Hx).sum(0))
    # of each x_i (Hx)_i, the mean is H_ii and the variance sum_{j != i} H_ij^2
    rows = np.maximum(squares - diagonal**2, 0.0) * probes / (probes - 1)
    unsure = float(np.std(sizes, ddof=1) / math.sqrt(probes) / (np.mean(sizes) or 1.0))
    return Curvature(g, z, v, diagonal, rows, diagonal_stderr=np.sqrt(rows / probes), unsure=unsure)


def gradient_limit(method: Method, code: Code, g: Array, seed: int = 0) -> Array:
    """What the method's g tends to on a quadratic E, shape (n,): g itself, but for two codes.

    lfsr, period L: S_i - (sum_j g_j - S_i)/L, S_i the sum of g over weight i and those that have
    its perturbation (g_i alone where one register feeds all), as weights correlate by -1/L or 1;
    `seed` decides which registers meet, see `codes.Registers`. A code that synapses know with the
    relative error e only, with measured denominators (least squares): g/(1 + e^2); with known ones
    the error has no effect on the mean.
    """
    if code.sensing and method.fit == "least_squares":
        return g / (1 + code.sensing**2)
    return correlated(code, g, seed)


@dataclass(frozen=True)
class _Response:
    """dE_g or dE_z of a quadratic E: slope.D + bend D'HD/2 + offset; the mean over D is offset +
    bend sigma^2 tr H/2.
    """

    slope: Array
    bend: float
    offset: float

    def mean(self, c: Curvature, sigma: float) -> float:
        return self.offset + self.bend * sigma**2 * c.trace / 2


def _response(method: Method, c: Curvature, of: Literal["gradient", "hv"], r: float) -> _Response:
    """From the moments of the method's weights: (m_10 g + m_11 r z).D + m_20 D'HD/2 + m_02
    (r^2/2) v.z.
    """
    m10, m11, m20, m02 = (method.moment(of, *ij) for ij in ((1, 0), (1, 1), (2, 0), (0, 2)))
    return _Response(m10 * c.g + m11 * r * c.z, m20, m02 * r**2 / 2 * float(c.v @ c.z))


def limits(
    method: Method, code: Code, c: Curvature, sigma: float, r: float, seed: int = 0
) -> tuple[Array, Array]:
    """What g and z tend to with infinitely many trials of these sigma and r: `gradient_limit`,
    `limit`.

    A g whose weights respond to D and v together (m_11 = sum of weights times a b) tends to g +
    m_11 r z. Where the fit of a weight is singular, neither is known.
    """
    g = gradient_limit(method, code, _response(method, c, "gradient", r).slope, seed)
    z = limit(method, code, c, seed, sigma, r)
    return (np.where(np.isnan(z), np.nan, g) if method.fit == "least_squares" else g), z


def limit(
    method: Method, code: Code, c: Curvature, seed: int = 0, sigma: float = 1.0, r: float = 0.0
) -> Array:
    """What the method's z tends to with infinitely many trials, shape (n,); NaN for a method of the
    gradient alone.

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
        return correlated(code, z, seed)
    mean = _response(method, c, "hv", r).mean(c, sigma) / sigma**2 * (not method.centred)
    if method.regressor == "s_dw":
        tends = z if method.correction == "diagonal" and k > 1 else z + (k - 3) / 2 * h * v
        return tends + v * mean
    C_HB, C_BB = _joint_fit(method, code, c, mean)
    if method.fit == "moments":
        return C_HB
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = np.where(C_BB > 1e-14 / V, C_HB / C_BB, np.nan)
    if method.correction == "along":
        return fitted * (1 - v**2 / (2 * V)) + v / (2 * V) * (v @ z + (k - 3) / 2 * (h @ v**2))
    return fitted


def _joint_fit(method: Method, code: Code, c: Curvature, mean: float) -> tuple[Array, Array]:
    # numerator and denominator of the limit of the joint least squares, in units of sigma^4; mean:
    # of dE_z, where it is left in
    k, V, v, z, h = code.kurtosis, c.V, c.v, c.z, c.diagonal
    B_ii = 2 * v / V - v**3 / V**2
    C_HB = 0.5 * (
        2 * z / V - v * (v @ z) / V**2 + (k - 3) / 2 * (2 * h * v / V - v * (h @ v**2) / V**2)
    )
    C_BB = 0.5 * (
        2 / V - v**2 / V**2 + (k - 3) / 2 * (v**2 * ((v**4).sum() - v**4) / V**4 + B_ii**2)
    )
    # a synapse that measures its own dw with the relative error e finds its variance, and so the
    # denominators, too large
    gain = 1 / (1 + code.sensing**2) if method.fit == "least_squares" else 1.0
    C_HB = gain**2 * C_HB
    if not method.centred:
        C_HB = C_HB + gain * v / (2 * V) * mean
        C_BB = C_BB + (v / (2 * V)) ** 2
    return C_HB, C_BB


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
    off = c.z - c.diagonal * v  # E h's'
    W, X, Y = c.crossed if c.crossed is not None else _evenly(v, off, c.diagonal * v, rows)
    uu, uuu, uu1 = k - 1, m - 3 * k + 2, m - 2 * k + 1  # E u^2, u^3, u^2 D^2
    uuuu = code.eighth - 4 * m + 6 * k - 3
    V, hh = c.V - v**2, float(h @ h) - h**2
    pp = uu * hh + c.off_square / 2 - rows  # E p'^2
    pss = float(v @ off) - 2 * v * off + uu * (float(h @ v**2) - h * v**2)  # E p's'^2
    hps = X - v * rows + uu / 2 * Y  # E h'p's'
    ppss = (
        uu * V * hh
        + uuu * (float(h**2 @ v**2) - h**2 * v**2)
        + (c.off_square / 2 - rows) * V
        + (k - 3) * (float(v**2 @ rows) - v**2 * rows - W)
        + 2 * (float(off @ off) - off**2 - 2 * v * X + v**2 * rows)
        + 4 * uu * (float(h * v @ off) - h * v * off - v * Y / 2)
    )
    hhss = rows * V + 2 * off**2 + (k - 3) * W
    gv, ll = float(slope @ v) - slope * v, float(slope @ slope) - slope**2  # E l's', E l'^2
    llss = ll * V + 2 * gv**2 + (k - 3) * (float(slope**2 @ v**2) - slope**2 * v**2)
    return _Products(
        LFF=A1**2 * (k * g**2 * V + llss)
        + A2**2 * (g**2 * uu1 + ll * uu)
        + 4 * A1 * A2 * g * uu * gv,
        QFF=A1**2 * (h**2 * uu1 * V + k * hhss + ppss + 2 * h * uu * pss)
        + A2**2 * (h**2 * uuuu + uu1 * rows + uu * pp)
        + A1 * A2 * (4 * h * uu1 * off + 4 * uu * hps),
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
    """Variance of one trial per weight, shape (n,), in the parts that a periodic code treats
    differently.

    odd: of what is odd in D in dE, its linear part; even: of the curvature in dE; mean: of the mean
    of dE, and of the regressor of z, where they are left in; noise: of the measurements. pairs, of
    a covariance: the product of the variances of dE and of its regressor, which counts where trials
    are few.
    """

    odd: Array
    even: Array
    mean: Array
    noise: Array
    pairs: Array | float = 0.0

    @property
    def total(self) -> Array:
        return self.odd + self.even + self.mean + self.noise

    def scaled(self, factor: float) -> "TrialVariance":
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
    """Variance of one trial of g_i and of z_i; `noise` is the variance of one evaluation.

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
    H_ii/2)^2. lfsr: slope'C slope - (C slope)_i^2, C as in `codes.Registers` (curvature as if no
    two weights had the same perturbation). whole: of which c is one pattern; then what its mean of
    dE, and its g and z, differ from the fitted ones is left in too. Known with the error e only:
    e^2 E dE^2/sigma^2 more for g, the rest of z times (1 + e^2)^2 (leading in n); measured
      denominators divide by (1 + e^2)^2 and (1 + e^2)^4.
    """
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
        nothing = np.full(c.g.size, np.nan)
        return g, TrialVariance(nothing, nothing, nothing, nothing)
    if method.regressor == "dw":
        return g, _on_dw(
            method,
            code,
            c,
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
) -> tuple[_Response, float]:
    """dE, and what a method leaves of its mean: all, or, centred, that of one pattern against
    the whole.
    """
    dE = _response(method, c, of, r)
    return dE, dE.mean(c, sigma) - method.centred * _response(method, whole, of, r).mean(
        whole, sigma
    )


def _others(slope: Array, k: float) -> Array:
    """Variance of (D.slope) D_i/sigma^2, per weight."""
    return float(slope @ slope) + (k - 2) * slope**2


def _on_dw(
    method: Method,
    code: Code,
    c: Curvature,
    dE: _Response,
    mean: float,
    sigma: float,
    noise: float,
    seed: int,
) -> TrialVariance:
    n, k, h, bend = c.g.size, code.kurtosis, c.diagonal, sigma * dE.bend
    if not code.independent:  # deterministic: +-sigma bits of a register, or one weight at a time
        even = (
            (bend * n * h / 2) ** 2 if code.orthogonal else np.full(n, bend**2 * c.off_square / 2)
        )
        left_in = np.full(n, 0.0 if code.orthogonal else mean**2 / sigma**2)
        return TrialVariance(
            odd_variance(code, dE.slope, seed), even, left_in, np.full(n, noise / sigma**2)
        )
    qq = (k - 1) * float(h @ h) / 4 + c.off_square / 2
    even = bend**2 * (qq + (code.sixth - 3 * k + 2) * h**2 / 4 + (k - 1) * c.off_rows)
    left_in = dE.bend * mean * (k - 1) * h + mean**2 / sigma**2
    square = (
        float(dE.slope @ dE.slope) + bend**2 * qq + (mean**2 + noise) / sigma**2
    )  # E dE^2/sigma^2
    odd = _others(dE.slope, k) + code.sensing**2 * square
    return TrialVariance(odd, even, left_in, np.full(n, noise / sigma**2), square * method.centred)


def _evenly(v: Array, off: Array, along: Array, rows: Array) -> tuple[float, Array, Array]:
    """The mean of the first sum of `Curvature.crossed`; the others parallel to v, with the same
    products with v.
    """
    V = float(v @ v) or 1.0
    return float(v**2 @ rows) / v.size, float(off @ off) / V * v, float(off @ along) / V * v


def _products_of_b(
    code: Code, c: Curvature, slope: Array, own: Array, scale: Array, along: Array, fitted: Array
) -> tuple[_Products, tuple[Array, Array]]:
    """Of f = scale b_i + along (s^2 - V), and of D_i in place of f: E D_i^2 q^2, E D_i^2 q.

    q is less fitted b_i, and l has own_i D_i for slope_i D_i; but (s^2 - V) is multiplied with all
    of dE.

    Exact for few weights whose H is known. Else what f has of s'^2 is left out (-(v_i/2V^2) of b_i:
    a share of order 1/n, which the correction along v takes away but for k), and what is taken of
    q.
    """
    k, v, V, n = code.kurtosis, c.v, c.V, c.v.size
    if c.H is None:
        A1, A2 = (
            scale * (1 / V - v**2 / V**2) + 2 * along * v,
            scale * (v / V - v**3 / (2 * V**2)) + along * v**2,
        )
        P, h = _products(code, c, slope, own, A1, A2), c.diagonal / 2
        return P, (P.QQ + (code.sixth - 3 * k + 2) * h**2 + (k - 1) * c.off_rows, 2 * (k - 1) * h)
    moments, x = (k, code.sixth, code.eighth), np.eye(n)
    vv = np.outer(v, v)
    B = (x[:, :, None] * v + v[:, None] * x[:, None]) / V - v[:, None, None] * vv / V**2
    F = scale[:, None, None] * B + along[:, None, None] * 2 * vv
    Q, L = c.H - fitted[:, None, None] * B, slope + np.diag(own - slope)

    def E(*forms: Array) -> Array:
        return expectation(list(forms), moments)

    LFF, QFF, FQ = E(L, L, F, F), E(Q, Q, F, F), E(F, Q)
    if along.any():
        S, G, d = 2 * vv[None], (fitted * along)[:, None, None] * B, np.diag((slope - own) * along)
        LFF += 2 * E(L, d, F, S) + E(d, d, S, S)
        QFF, FQ = QFF + 2 * E(Q, F, G, S) + E(G, G, S, S), FQ + E(G, S)
    P = _Products(LFF, QFF, E(L, L, F), E(Q, Q, F), E(F, F, Q), E(F, F), FQ, E(L, L), E(Q, Q))
    return P, (E(x, x, Q, Q), E(x, x, Q))


def _covariance(
    P: _Products, bend: float, mu: Array | float, t: Array | float, sigma: float, noise: float
) -> TrialVariance:
    """Variance of dE f/sigma^4, where mu is left of E f, and t sigma^2 of E dE."""
    return TrialVariance(
        (P.LFF + 2 * mu * P.LF + mu**2 * P.LL) / sigma**2,
        bend**2 * (P.QFF - P.FQ**2),
        bend**2 * (2 * mu * P.QF + mu**2 * P.QQ) + 2 * bend * t * (P.FFQ + mu * P.FQ) + t**2 * P.FF,
        noise * (P.FF + mu**2) / sigma**4,
        (P.LL / sigma**2 + bend**2 * P.QQ + t**2 + noise / sigma**4) * P.FF,
    )


def _on_s_dw(
    method: Method, code: Code, c: Curvature, dE: _Response, mean: float, sigma: float, noise: float
) -> TrialVariance:
    v = c.v
    if method.regressor == "s_dw":
        P, mu = (
            _products(code, c, dE.slope, dE.slope, 1.0, v * (1 - method.kappa(code.kurtosis))),
            v,
        )
    else:
        one, none = np.ones(v.size), np.zeros(v.size)
        (P, _), mu = _products_of_b(code, c, dE.slope, dE.slope, one, none, none), v / (2 * c.V)
    found = _covariance(P, dE.bend, 0.0 if method.centred else mu, mean / sigma**2, sigma, noise)
    return replace(found, pairs=found.pairs * method.centred).scaled((1 + code.sensing**2) ** 2)


def _on_both(
    method: Method,
    code: Code,
    c: Curvature,
    whole: Curvature,
    dE: _Response,
    mean: float,
    sigma: float,
    r: float,
    noise: float,
) -> tuple[TrialVariance, TrialVariance]:
    v, V, blur = c.v, c.V, code.sensing**2
    left_in = (
        0.0 if method.centred else _response(method, whole, "hv", r).mean(whole, sigma) / sigma**2
    )
    C_HB, C_BB = _joint_fit(method, code, whole, left_in)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(C_BB > 1e-14 / V, 1 / C_BB, np.nan)
    fitted, along = scale * C_HB, np.zeros(v.size)
    mu = 0.0 if method.centred else v / (2 * V)
    t = mean / sigma**2 - fitted * mu  # what the fit leaves of the mean
    if method.correction == "along":
        scale, along = scale * (1 - v**2 / (2 * V)), v / (2 * V)
    P, (DDQQ, DDQ) = _products_of_b(code, c, dE.slope, dE.slope - whole.g, scale, along, fitted)
    if c.H is None:
        expected = limit(method, code, c, 0, sigma, r) - limit(method, code, whole, 0, sigma, r)
        expected = expected + along * float(
            v @ whole.z + (code.kurtosis - 3) / 2 * whole.diagonal @ v**2
        )
        P = replace(P, FQ=expected - t * scale * mu)
    # of its own D_i g_i, a synapse that measures D_i with an error explains a part only
    z = _covariance(
        replace(P, LFF=P.LFF + blur * dE.slope**2 * P.FF), dE.bend, scale * mu, t, sigma, noise
    )
    missed = blur * (P.LL + dE.slope**2 + sigma**2 * P.QQ + (sigma * t) ** 2 + noise / sigma**2)
    odd = P.LL + (code.kurtosis - 2) * (dE.slope - whole.g) ** 2 + missed
    g = TrialVariance(
        odd, sigma**2 * DDQQ, sigma**2 * (2 * t * DDQ + t**2), 0 * t + noise / sigma**2
    )
    return g.scaled(1 / (1 + blur) ** 2), replace(z, pairs=0.0).scaled(1 / (1 + blur) ** 2)


@dataclass(frozen=True)
class QuantityPrediction:
    """Of g or of z: its limit, the variance of one trial per weight, and what follows.

    lawful: whether dE is the same function in every trial, so that a periodic code's law holds.
    slope: of dE on D (in the units of the quantity) if the estimate is linear in it; mean: of
    dE/sigma where it is left in. seed: of shift registers. covariance: whether it is one, of K
    trials, and not divided by K - 1. limit_cosine: of the limit with the exact answer, the best
    that any number of trials reaches. limit_stderr, unsure: standard error of the limit, (n,), and
    the relative one of the variance, where they rest on random patterns or sign vectors; None and 0
    where they do not.
    """

    exact: Array
    limit: Array
    trial: TrialVariance
    code: Code
    evaluations_per_trial: int
    lawful: bool = True
    slope: Array | None = None
    mean: float = 0.0
    seed: int = 0
    covariance: bool = False
    limit_stderr: Array | None = None
    unsure: float = 0.0

    @property
    def bias(self) -> Array:
        """limit - exact, shape (n,)."""
        return self.limit - self.exact

    @property
    def variance(self) -> float:
        """Of one random trial, summed over the weights."""
        return float(np.maximum(self.trial.total, 0.0).sum())

    @property
    def period(self) -> int:
        return self.code.period(self.limit.size) if self.lawful else 1

    @property
    def limit_cosine(self) -> float:
        return _cosine(self.limit, self.exact)

    def expected(self, trials: int) -> Array:
        """The expected estimate after so many trials, shape (n,): the limit; one weight at a
        time, n visits_i/K of it.
        """
        if self.covariance and not self.code.periodic:
            return (1 - 1 / trials) * self.limit
        if self.slope is None or self.code.kind != SEQUENTIAL:
            return self.limit
        n = self.limit.size
        return n * (trials // n + (np.arange(n) < trials % n)) / trials * self.limit

    def variances(self, trials: int) -> Array:
        """Variance of the estimate of each weight after so many trials, shape (n,).

        A random code: that of one trial over `trials`; a covariance of K trials, exactly, (1 -
        1/K)^2 [(that of one)/K + (limit^2 + pairs)/(K (K - 1))]. A periodic one, for estimates on
        dw: the noise's, the `disturbance` of an incomplete period, and of a one-sided dE the even
        part, which the folded-over pass takes away again. For z on s dw, within a pass as random,
        but for the mean; the folded-over pass takes the gradient's part away, and repeats the even
        part without telling anything new of it.
        """
        if not self.code.periodic or not self.lawful:
            one = np.maximum(
                self.trial.total, 0.0
            )  # what is leading in n can be negative where n is small
            if not self.covariance or self.code.periodic:
                return one / trials
            few = (self.limit**2 + self.trial.pairs) / (trials - 1) if trials > 1 else 0.0
            return (1 - 1 / trials) ** 2 * (one + few) / trials
        P = self.period
        rest = trials % (2 * P)
        if self.slope is None:
            odd, m = min(rest, 2 * P - rest), trials % P
            even = trials + 2 * repeated(self.code, self.limit.size, trials)
            left = (
                odd * self.trial.odd
                + even * self.trial.even
                + m * (P - m) / max(P - 1, 1) * self.trial.mean
            )
            return np.maximum(left / trials**2 + self.trial.noise / trials, 0.0)
        unpaired: Array | float = min(
            rest, 2 * P - rest
        )  # trials whose even part the folded-over pass has not taken away
        if self.code.function is not None:
            unpaired = trials**2 / min(trials, P)  # not folded over: what one period leaves stays
        elif self.code.kind == SEQUENTIAL:
            index = np.arange(self.limit.size)
            unpaired = P * ((index < rest) ^ (index < rest - P))
        lasting = self.trial.noise / trials + unpaired * self.trial.even / trials**2
        return lasting + disturbance(self.code, self.slope, trials, self.mean, self.seed)

    def total_variance(self, trials: int) -> float:
        """Summed over the weights, after so many trials."""
        return float(self.variances(trials).sum())

    def stderrs(self, trials: int) -> Array:
        """Standard deviation of each weight's estimate, shape (n,)."""
        return np.sqrt(self.variances(trials))

    def stderr(self, trials: int) -> float:
        """rms over the weights of the estimate's standard deviation."""
        return math.sqrt(self.total_variance(trials) / self.limit.size)

    def cosine(self, trials: int) -> float:
        """Expected cosine with the exact answer, L.z / (|z| sqrt(|L|^2 + variance)), L the
        expected estimate; NaN for none.
        """
        L = self.expected(trials)
        square = float(L @ L)
        if square == 0:
            return 0.0
        return _cosine(L, self.exact) * math.sqrt(square / (square + self.total_variance(trials)))

    def relative_error(self, trials: int) -> float:
        """Expected |estimate - exact| / |exact| (root of the mean square)."""
        size, bias = float(self.exact @ self.exact), self.expected(trials) - self.exact
        return (
            math.sqrt((float(bias @ bias) + self.total_variance(trials)) / size)
            if size > 0
            else math.nan
        )

    def trials_for(self, cosine: float = 0.9, relative_error: float | None = None) -> float:
        """Trials to an expected cosine, or to a relative error instead; infinity if the limit
        itself falls short of it, or if it takes more than the 2^62 trials that can be numbered.

        Of a periodic code: whole periods, or part of the first, found by halves to 1/64, where that
        is enough; for z on s dw double periods, or fewer trials.
        """
        if relative_error is not None:
            positive("relative_error", relative_error)
            allowed = relative_error**2 * float(self.exact @ self.exact) - float(
                self.bias @ self.bias
            )
        else:
            between_0_and_1("cosine", cosine)
            best = self.limit_cosine
            allowed = (
                float(self.limit @ self.limit) * ((best / cosine) ** 2 - 1)
                if best > cosine
                else 0.0
            )
        if not allowed > 0:
            return math.inf
        random = _count(max(self.variance / allowed, 1.0))

        def enough(trials: float) -> bool:
            trials = int(trials)
            return (
                self.relative_error(trials) <= relative_error
                if relative_error
                else self.cosine(trials) >= cosine
            )

        if not self.code.periodic or not self.lawful:
            few = random
            while (
                self.covariance and few < 2 * random + 16 and not enough(few)
            ):  # few trials vary more
                few += 1 + few // 64
            return few

        P = self.period
        if self.slope is None:
            lasting = float((2 * self.trial.even + self.trial.noise).sum())
            double = 2 * P * max(1, _count(lasting / allowed / (2 * P)))
            return random if random < double and enough(random) else double
        most = P - P // 64 - 1
        if most >= 1 and enough(most):
            least = 0
            while most - least > max(1, P // 64):
                middle = (least + most) // 2
                least, most = (least, middle) if enough(middle) else (middle, most)
            return most
        periods = max(1, _count(float(self.trial.noise.sum()) / allowed / P))
        return periods * P if math.isinf(periods) or enough(int(periods) * P) else (periods + 1) * P

    def evaluations_for(self, cosine: float = 0.9, relative_error: float | None = None) -> float:
        return float(self.trials_for(cosine, relative_error) * self.evaluations_per_trial)


@dataclass(frozen=True)
class Prediction:
    """What to expect of g and z, and of learning with them.

    trace: tr H. eta_max: 2/tr H, above which learning by g from one trial per update is unstable in
    the mean square whatever the largest eigenvalue: exact for D = +-sigma and H diagonal. eta_safe:
    2/(tr H + 2 |H|_F), sufficient for every code of kurtosis <= 3, from sum_i eta l_i/(2(1 - eta
    l_i)) < 1 and l_i <= |H|_F. Both for a positive semi-definite H, infinite if tr H <= 0.
    warnings: what to mind about the method, the code and the trials, in plain sentences.
    """

    gradient: QuantityPrediction
    hv: QuantityPrediction
    trace: float
    eta_max: float
    eta_safe: float
    warnings: list[str] = field(default_factory=list)


def _count(trials: float) -> float:
    """So many trials, as a whole number; infinity where they are more than can be numbered."""
    return math.ceil(trials) if trials <= MOST_TRIALS else math.inf


def _cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else math.nan


def predict(
    objective: Objective,
    w: Array,
    v: Array,
    method: str | Method = "difference",
    code: str | Code = "walsh",
    sigma: float = 1e-2,
    r: float = 1e-2,
    error_noise: float = 0.0,
    presentation: str = "batch",
    known: list[Curvature] | None = None,
    trials: int | None = None,
    seed: int = 0,
) -> Prediction:
    """Limit, bias, variance, expected cosine and error, trials and evaluations needed, of
    `estimate` with the same arguments.

    error_noise: standard deviation of one evaluation of E. With presentation = "pattern" the
    pattern is one more random number of each trial: its spread adds to the variance, and an
    orthogonal code loses its advantage; limits stay. What rests on a sample of patterns or of sign
    vectors says so in `warnings`, with its uncertainty. `known`: curvatures computed before by
    `curvatures` for the same objective, w, v and presentation, to save their cost. trials: warn if
    they do not cover a code's period. seed: decides which shift registers meet, and nothing else.
    The best sigma: `amplitude.best_sigma`.
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
    known = curvatures(objective, w, v, presentation) if known is None else known
    whole = known[0]
    cases, limited = whole.patterns or (whole,), limits(method, code, whole, sigma, r, seed)
    each = [trial_variances(method, code, c, sigma, r, error_noise**2, seed, whole) for c in cases]
    tends = (
        [limits(method, code, c, sigma, r, seed) for c in cases] if whole.patterns else [limited]
    )
    parts: list[QuantityPrediction] = []
    both: tuple[Literal["gradient", "hv"], ...] = ("gradient", "hv")
    for index, of in enumerate(both):
        trial, unsure = _over_patterns(
            [variances[index] for variances in each], [two[index] for two in tends], whole
        )
        on_dw = index == 0 or method.regressor == "dw"
        dE, left_in = _left(method, whole, whole, of, sigma, r)
        unit = 1.0 if index == 0 else r
        parts.append(
            QuantityPrediction(
                (whole.g, whole.z)[index],
                limited[index],
                trial,
                code,
                method.evaluations_per_trial,
                not whole.patterns and (on_dw or code.function is None),
                dE.slope / unit if on_dw and not whole.patterns else None,
                left_in / sigma / unit * on_dw,
                seed,
                method.centred and method.fit == "moments",
                limit_stderr(method, code, whole) if index else None,
                unsure,
            )
        )
    trace = whole.trace
    size = math.sqrt(whole.off_square + float(whole.diagonal @ whole.diagonal))
    etas = (2 / trace, 2 / (trace + 2 * size)) if trace > 0 else (math.inf, math.inf)
    return Prediction(parts[0], parts[1], trace, etas[0], etas[1], _warnings(design, parts, trials))


def _over_patterns(
    each: list[TrialVariance], tends: list[Array], whole: Curvature
) -> tuple[TrialVariance, float]:
    """The variance of a trial whose pattern is drawn too, and its relative standard error.

    That within a pattern, on average, and that between the patterns of what each tends to.
    """
    m = len(each)
    if m == 1:
        return each[0], whole.unsure
    found = TrialVariance(
        *(
            np.mean([getattr(one, part.name) for one in each], axis=0)
            for part in fields(TrialVariance)
        )
    )
    found = replace(found, odd=found.odd + np.var(tends, axis=0, ddof=1) * (1 - 1 / whole.of))
    squares = [
        float(one.total.sum() + ((L - np.mean(tends, axis=0)) ** 2).sum())
        for one, L in zip(each, tends, strict=True)
    ]
    sampled = (
        math.sqrt(max(1 - m / whole.of, 0.0) / m)
        * float(np.std(squares, ddof=1))
        / (float(np.mean(squares)) or 1.0)
    )
    return found, math.hypot(
        sampled, math.sqrt(float(np.mean([c.unsure**2 for c in whole.patterns])) / m)
    )


def limit_stderr(method: Method, code: Code, c: Curvature) -> Array | None:
    """Standard error of the limit of z from that of the diagonal of H; None if exact."""
    if c.diagonal_stderr is None or not method.estimates_hv or method.regressor == "dw":
        return None
    e, v = c.diagonal_stderr, np.abs(c.v)
    found = np.zeros(v.size)
    if code.kurtosis != 3 and not (method.correction == "diagonal" and code.kurtosis > 1):
        found = abs(code.kurtosis - 3) / 2 * e * v
    if not method.centred:
        found = np.hypot(
            found, v * float(np.linalg.norm(e)) / (2 if method.regressor == "s_dw" else 4)
        )
    return found if found.any() else None


def _warnings(design: Design, parts: list[QuantityPrediction], trials: int | None) -> list[str]:
    method, code, n = design.method, design.code, design.n_weights
    says = []
    if method.estimates_hv and (blind := int(np.isnan(parts[1].limit).sum())):
        says.append(
            f"{method.name} with code {code.name}: g and z of {blind} of {n} weights cannot be"
            " known, as their regressor of z is constant; use method difference"
        )
    for name, part in (("g", parts[0]), ("z = Hv", parts[1] if method.estimates_hv else None)):
        size = 0.0 if part is None else float(np.linalg.norm(part.exact))
        if part is None or size == 0 or not (off := float(np.linalg.norm(part.bias)) / size) > 1e-6:
            continue
        why, instead = _reason(design)
        if name == "g" and method.moment("gradient", 1, 1):
            why, instead = (
                "its dE_g responds to D and r v together",
                "weights whose sum of a b is 0",
            )
        says.append(
            f"{method.name} with code {code.name} is biased: its {name} tends to something"
            f" {off:.2g} |{name[0]}| away, as {why}; use {instead}"
        )
    for name, part in (("g", parts[0]), ("z", parts[1])):
        if part.limit_stderr is not None:
            off = float(np.linalg.norm(part.limit_stderr) / (np.linalg.norm(part.limit) or 1.0))
            says.append(
                f"the limit of {name} is known to {off:.2g} of its size: it needs the diagonal of"
                f" H, from {PROBES} sign vectors"
            )
        if part.unsure > 0.01:
            says.append(
                f"the variance of {name} is known to {part.unsure:.0%}: it comes from a sample of"
                " patterns or sign vectors"
            )
    if trials is not None:
        says += period_warnings(code, n, trials)
    return says


def _reason(design: Design) -> tuple[str, str]:
    """Why a method is biased with a code, and what to use instead."""
    method, code, n = design.method, design.code, design.n_weights
    if code.sensing and method.fit == "least_squares":
        return (
            "denominators measured with the synapses' own error are too large",
            "known denominators: difference or covariance",
        )
    if code.registers is not None:
        instead = "code walsh or rademacher"
        if shared := code.registers.shared(n, design.seed):
            why = (
                f"{shared} of {n} weights share their perturbation with others, and those that do"
                " not share correlate"
            )
            return (
                f"{why} by -1/{code.period(n)}",
                f"more bits for the registers, another seed, or {instead}",
            )
        return (
            f"weights of the register{'s' * (code.taps(n) < n)} correlate by -1/{code.period(n)}",
            instead,
        )
    if method.fit == "moments" and method.regressor == "b":
        return "without measured denominators the mean of dE b_i is about z_i/V", 'regressor "s_dw"'
    if method.fit == "moments" and method.regressor == "s_dw" and not method.centred:
        return "the mean of dE_z, with tr H in it, is left in", "centred = True"
    if method.fit == "least_squares" and not method.unbiased_with(code):
        why = (
            "it needs kurtosis 3"
            if method.correction == "along"
            else "the other weights' regressors are correlated with its own"
        )
        return why, "method difference, or covariance with code ternary"
    mended = method.name + "_corrected"
    instead = f"method {mended}" if code.kurtosis > 1 and mended in METHODS else "code ternary"
    return (
        f"a code of kurtosis {code.kurtosis:g} adds {(code.kurtosis - 3) / 2:g} H_ii v_i",
        f"{instead}, or method difference",
    )


def curvatures(
    objective: Objective, w: Array, v: Array, presentation: str = "batch"
) -> list[Curvature]:
    """The `Curvature` of the whole objective; with presentation = "pattern" also of single
    patterns, for the variances alone.

    All limits are linear in g and H, so those of single patterns average to those of the whole. All
    patterns are taken, or `PATTERNS` drawn without replacement; of more than 512 weights, each with
    32 random sign vectors.
    """
    whole, S = curvature(objective, w, v), objective.n_patterns
    if presentation == "batch" or S == 1:
        return [whole]
    rng = np.random.Generator(np.random.Philox(2))
    chosen = np.arange(S) if S <= PATTERNS else np.sort(rng.choice(S, PATTERNS, replace=False))
    probes = None if objective.n_weights <= 512 else 32
    return [
        replace(
            whole,
            patterns=tuple(curvature(objective.pattern(int(p)), w, v, probes) for p in chosen),
            of=S,
        )
    ]
