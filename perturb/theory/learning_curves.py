"""What theory says of LEARNING by weight perturbation: learning curves, limits of the learning
rate, what imperfections cost.

An update is w := w - eta G, G the mean over K trials of dE D/sigma^2, for a quadratic E = (w - w*)'
H (w - w*)/2; u = w - w*. One trial measures dE = E(w + D) - E(w), or as a pair [E(w + D) - E(w -
D)]/2. `error_noise` sE is the standard deviation of a one-sided dE where E(w) is known (sqrt(2)
times it where E(w) is measured anew for every trial), of one evaluation in a pair. Codes are
independent between trials, components of kurtosis k and sixth moment m; or periodic, over whole
periods. H is a symmetric matrix (n, n), or its diagonal (n,), off which it is zero; for a Gaussian
code its eigenvalues do as well.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.sparse.linalg import LinearOperator, eigs, gmres

from perturb.checks import (
    as_floats,
    as_number,
    as_weights,
    at_least_zero,
    below_one,
    integer,
    positive,
)
from perturb.errors import InputError, choose
from perturb.trial.code import Code
from perturb.trial.codes import CODES

Array = np.ndarray
FLAT = 1e-12  # eigenvalues below this share of the largest are rounding


class Recursion(NamedTuple):
    """E' = a E + b, the expected error after an update from the expected error before it."""

    a: float
    b: float

    @property
    def floor(self) -> float:
        """b/(1 - a), to which E tends; infinite for a >= 1."""
        return self.b / (1 - self.a) if self.a < 1 else math.inf

    def errors(self, E0: float, updates: int) -> Array:
        """E_t = a^t E_0 + b (1 - a^t)/(1 - a) for t = 0..updates, shape (updates + 1,)."""
        t = np.arange(integer("updates", updates, 0) + 1)
        with np.errstate(over="ignore"):
            power = self.a**t
            return power * as_number("E0", E0) + self.b * (
                t if self.a == 1 else (1 - power) / (1 - self.a)
            )


def _perceptron(kind: str, n_inputs: int, n_outputs: int) -> tuple[float, float, float]:
    """(A, B, C) of a = 1 - 2 eta + A eta^2 and b = eta^2 (B sigma^2 + C sE^2/sigma^2), see
    `perceptron_curve`.
    """
    N, M = integer("n_inputs", n_inputs, 1), integer("n_outputs", n_outputs, 1)
    n = M * N
    table = {
        "gradient": (N + 2, 0.0, 0.0),
        "node": ((M + 2) * (N + 2), n * (M + 2) * (M + 4) / 8, n / 2),
        "weight-gaussian": ((n + 2) * (N + 2), n * (M + 2) * (N + 2) * (n + 4) / 8, n / 2),
        "weight-rademacher": (n * (N + 2), n * (n**2 + 2 * n * N + 2 * n * (M - 1)) / 8, n / 2),
        "antithetic": ((n + 2) * (N + 2), 0.0, n / 4),
    }
    return choose("kind", kind, table)


def perceptron_curve(
    kind: str,
    n_inputs: int,
    n_outputs: int,
    eta: float,
    sigma: float = 1e-2,
    error_noise: float = 0.0,
) -> Recursion:
    """(a, b) of E' = a E + b for a linear perceptron that learns from its teacher (Werfel, Xie and
    Seung 2005).

    y = W x, N inputs, M outputs, E = |(W - W*) x|^2/2, a fresh x ~ N(0, I) and one trial for each
    update; E is meant over x. a = 1 - 2 eta + A eta^2, b = eta^2 (B sigma^2 + C sE^2/sigma^2), with
      gradient           A = N + 2,           B = C = 0
      node A = (M+2)(N+2), B = MN(M+2)(M+4)/8, C = MN/2 (Gaussian, added to y)
      weight-gaussian    A = (MN+2)(N+2),     B = MN(M+2)(N+2)(MN+4)/8,            C = MN/2
      weight-rademacher  A = MN(N+2),         B = MN[M^2N^2 + 2MN^2 + 2MN(M-1)]/8, C = MN/2
      antithetic A = (MN+2)(N+2), B = 0, C = MN/4 (Gaussian pairs)
    """
    A, B, C = _perceptron(kind, n_inputs, n_outputs)
    eta, sigma, error_noise = (
        positive("eta", eta),
        positive("sigma", sigma),
        at_least_zero("error_noise", error_noise),
    )
    return Recursion(
        1 - 2 * eta + A * eta**2, eta**2 * (B * sigma**2 + C * error_noise**2 / sigma**2)
    )


def perceptron_rates(kind: str, n_inputs: int, n_outputs: int) -> tuple[float, float]:
    """(eta_opt, eta_max) = (1/A, 2/A) of `perceptron_curve`: where a is least, 1 - 1/A, and
    where it reaches 1.
    """
    A, _, _ = _perceptron(kind, n_inputs, n_outputs)
    return 1 / A, 2 / A


def perceptron_sigma(kind: str, n_inputs: int, n_outputs: int, error_noise: float) -> float:
    """The amplitude with the least b, and so the least floor: sigma^4 = C sE^2/B of
    `perceptron_curve`, for all eta.

    weight-gaussian: sigma^4 = 4 sE^2/((M+2)(N+2)(MN+4)). InputError for kinds with B = 0: no
    amplitude is too large for them.
    """
    _, B, C = _perceptron(kind, n_inputs, n_outputs)
    if B == 0:
        raise InputError(
            f"kind = {kind!r} has no best sigma, its curvature does not disturb: take the largest"
            " that E allows"
        )
    return (C / B) ** 0.25 * math.sqrt(at_least_zero("error_noise", error_noise))


@dataclass(frozen=True)
class _Second:
    """Second moments of G, in the eigenbasis of P^1/2 H P^1/2 = U lam U', with P = diag gains and u
    = P^1/2 U s.

    E GG' = HCH + share [HCH + (1 + e^2) tr(HCH) I + (k-3) diag(HCH)] + rest, C = E uu', Z = E ss'.
    Where nothing mixes the modes (H diagonal; or k = 3 and equal gains) the diagonals of Z and E
    GG' go by themselves, and all arrays here are vectors (n,); else matrices (n, n). blur: e^2 of a
    code whose synapses know their D with the relative error e only.
    """

    lam: Array
    U: Array
    p: Array
    kurtosis: float
    blur: float
    share: float  # 1/K; 0 for a code that leaves nothing of the other weights
    vectors: bool
    rest: Array

    @property
    def rows(self) -> Array:
        return self.lam if self.vectors else self.lam[:, None]

    def start(self, u: Array) -> Array:
        s = (u / np.sqrt(self.p)) @ self.U if self.U.size else u / np.sqrt(self.p)
        return s * s if self.vectors else np.outer(s, s)

    def error(self, Z: Array) -> float:
        """tr(HC)/2."""
        return float(self.lam @ (Z if self.vectors else Z.diagonal())) / 2

    def noise(self, Y: Array) -> Array:
        """What E GG' has besides Y = HCH and the rest."""
        y = Y if self.vectors else ((self.U @ Y) * self.U).sum(1)
        d = (1 + self.blur) * (y / self.p).sum() * self.p + (self.kurtosis - 3) * y
        return self.share * (Y + (d if self.vectors else (self.U.T * d) @ self.U))

    def stationary(self, momentum: float) -> tuple[Array, Array, Array]:
        """(Y/X, R, whether not flat), all element by element, for X = F Z, F = (l_i + l_j)/2: Y =
        l_i l_j Z, tr X = tr(HC).

        A stationary X obeys [2 (1 - mu)/eta + R] X = noise(Y) + rest, F R = [mu (l_i^2 + l_j^2) -
        (1 + mu^2) l_i l_j]/(1 - mu^2): an update p := mu p - eta G, s := s + p does not change E
        ss', E sp' and E pp' then.
        """
        lam = np.where(self.lam > FLAT * self.lam.max(), self.lam, 0.0)
        row = lam if self.vectors else lam[:, None]
        F = (row + lam) / 2
        inverse = np.divide(1.0, F, out=np.zeros_like(F), where=F > 0)
        R = (momentum * (row**2 + lam**2) - (1 + momentum**2) * row * lam) / (1 - momentum**2)
        return row * lam * inverse, R * inverse, F > 0


def _second(
    H: Array,
    code: str | Code,
    trials: int,
    gains: Array | None,
    sigma: float = 1.0,
    error_noise: float = 0.0,
    pair: bool = True,
) -> _Second:
    h, off = parts_of(H)
    n = h.size
    p = np.ones(n) if gains is None else as_weights("gains", gains, n)
    if not (p > 0).all():
        raise InputError(
            f"gains[{int(np.argmin(p))}] = {p.min()} must be positive: constrained_minimum is for"
            " weights that are stuck"
        )
    sigma, error_noise = positive("sigma", sigma), at_least_zero("error_noise", error_noise)
    code = choose("code", code, CODES) if isinstance(code, str) else code
    K, blur = integer("trials_per_update", trials, 1), code.sensing**2
    k, m, share = code.kurtosis, code.sixth, 1 / K
    if code.periodic:
        _whole_periods(code, n, K, pair)
        k, m, share = 3.0, 15.0, 0.0
    noise = error_noise**2 / sigma**2 * (0.5 if pair else 1.0)
    even, square = (0.0, 0.0) if pair or not share else even_moments(h, off, k, m)
    alike = (1 + blur) * noise + blur * sigma**2 * square
    if off is None:
        return _Second(
            p * h, np.zeros((0, 0)), p, k, blur, share, True, p * (sigma**2 * even + alike) / K
        )
    root = np.sqrt(p)
    lam, U = np.linalg.eigh(root[:, None] * (off + np.diag(h)) * root)
    rest = root[:, None] * (sigma**2 * even + alike * np.eye(n)) * root / K
    vectors = k == 3 and bool((p == p[0]).all())
    rest = ((U.T @ rest) * U.T).sum(1) if vectors else U.T @ rest @ U
    return _Second(lam, U, p, k, blur, share, vectors, rest)


def even_moments(h: Array, off: Array | None, k: float, m: float) -> tuple[Array, float]:
    """S of `quadratic_curve`, of H = diag h + off, as a vector where it is diagonal; and E
    (x'Hx/2)^2.
    """
    rows, T = (0 * h if off is None else (off * off).sum(1)), float(h.sum())
    square = (k - 1) * float(h @ h) / 4 + float(rows.sum()) / 2 + T**2 / 4
    diagonal = square + (m - 3 * k + 2) * h**2 / 4 + (k - 1) * (rows + T * h / 2)
    if off is None:
        return diagonal, square
    S = off * (T + (k - 1) * (h[:, None] + h)) + 2 * off @ off
    S[np.diag_indices_from(S)] = diagonal
    return S, square


def _off_diagonal(A: Array) -> Array:
    return A - np.diag(A.diagonal())


def _whole_periods(code: Code, n: int, trials: int, pair: bool) -> None:
    """InputError unless the trials of an update leave nothing of the other weights: G is then g
    and noise.
    """
    period = code.period(n)
    if not code.orthogonal:
        raise InputError(
            f"code {code.name} has correlated columns, which theory leaves out: use walsh, or a"
            " random code"
        )
    fold = 1 if pair else 2
    if not pair and code.function is not None:
        raise InputError(
            f"code {code.name} is not folded over: a one-sided dE keeps its curvature, use pairs"
        )
    if trials % (fold * period):
        raise InputError(
            f"trials_per_update = {trials} is no multiple of {fold * period},"
            f" {'a' if pair else 'the double'} period of code {code.name}, within which updates are"
            " not independent: take a multiple, or a random code"
        )


def quadratic_curve(
    H: Array,
    w0: Array,
    w_star: Array,
    eta: float,
    sigma: float = 1e-2,
    trials_per_update: int = 1,
    code: str | Code = "gaussian",
    error_noise: float = 0.0,
    updates: int = 100,
    pair: bool = False,
    momentum: float = 0.0,
    gains: Array | None = None,
) -> Array:
    """Expected error of a quadratic E, above that of w*, after 0..updates updates, shape (updates +
    1,); infinite on overflow.

    E_t = tr(H C_t)/2, C = E uu' (the square of the mean included), exact for every H, symmetric but
      not necessarily positive: C' = C - eta (HC + CH) + eta^2 E GG', E GG' = (1 + 1/K) HCH +
      (1/K)[tr(HCH) I + (k-3) diag(HCH)] + (1/K)(sE^2/sigma^2) I + (sigma^2/K) S
    with S_ij = E (x'Hx/2)^2 x_i x_j, x = D/sigma; for a Gaussian code S = [((tr H)^2 + 2 tr H^2) I
    + 4 tr(H) H + 8 H^2]/4 (Isserlis 1918), in general, with O = H off its diagonal,
      S_ii = (k-1) |diag H|^2/4 + |O|^2/2 + (tr H)^2/4 + (m-3k+2) H_ii^2/4 + (k-1) [sum_j O_ij^2 +
      H_ii tr H/2] S_ij = O_ij [tr H + (k-1) (H_ii + H_jj)] + 2 (O^2)_ij
    pair: without S and with half the noise. momentum mu (Polyak 1964): p := mu p - eta G, w := w +
    p, p_0 = 0. gains: P_i of each weight's update, w_i := w_i - eta P_i G_i. Perturbations known
    with the error e only: (e^2/K) (E dE^2/sigma^2) I more. Periodic codes: whole periods (double
    ones unless pair), then E GG' = HCH and the noise. Cost: O(n) an update for k = 3 or a diagonal
    H, else O(n^3).
    """
    eta, mu = positive("eta", eta), below_one("momentum", momentum)
    G = _second(H, code, trials_per_update, gains, sigma, error_noise, pair)
    n, row, col = G.lam.size, G.rows, G.lam
    a = G.start(as_weights("w0", w0, n) - as_weights("w_star", w_star, n))
    b = c = np.zeros_like(a)  # E ss', E sp', E pp'
    E = np.full(integer("updates", updates, 0) + 1, np.inf)
    E[0] = G.error(a)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(1, len(E)):
            x = mu * b - eta * a * col
            HCH = row * a * col
            GG = HCH + G.noise(HCH) + G.rest
            c = mu**2 * c - mu * eta * (row * b + b.T * col) + eta**2 * (GG + GG.T) / 2
            a, b = a + (x + x.T) + c, x + c  # what rounding makes unsymmetric would grow
            if not np.isfinite(after := G.error(a)):
                break
            E[t] = after
    return E


def quadratic_floor(
    H: Array,
    eta: float,
    sigma: float = 1e-2,
    trials_per_update: int = 1,
    code: str | Code = "gaussian",
    error_noise: float = 0.0,
    pair: bool = False,
    momentum: float = 0.0,
    gains: Array | None = None,
) -> float:
    """What `quadratic_curve` tends to, for a positive semi-definite H; infinite at
    `stability_limit` and above.

    From the stationary covariance: with lambda = 2 (1-mu)/eta, in the eigenbasis, element by
      element, C_ij [lambda (l_i + l_j)/2 + R_ij] = cov(G)_ij, R_ij = [mu (l_i^2 + l_j^2) - (1 +
      mu^2) l_i l_j]/(1 - mu^2),
    cov(G) = E GG' - HCH. To first order in eta it is eta/(1-mu) tr(cov(G) at w*)/4. Directions with
    l_i below 1e-12 l_max are taken as flat: weights diffuse there for ever, at no cost. Slow ones
    reach their share after 1/(eta l_i) updates only.
    """
    eta, mu = positive("eta", eta), below_one("momentum", momentum)
    G = _second(H, code, trials_per_update, gains, sigma, error_noise, pair)
    _check_positive(G.lam)
    if eta >= _limit(G, mu):
        return math.inf
    to_Y, R, steep = G.stationary(mu)
    inverse = steep / (2 * (1 - mu) / eta + R)
    operator = LinearOperator(
        2 * (R.size,),
        lambda x: x - (inverse * G.noise(to_Y * x.reshape(R.shape))).ravel(),
        dtype=float,
    )
    X, _ = gmres(
        operator, (inverse * G.rest).ravel(), rtol=1e-12, restart=min(R.size, 100), maxiter=100
    )
    return float((X if G.vectors else X.reshape(R.shape).diagonal()).sum()) / 2


def stability_limit(
    H: Array,
    code: str | Code = "gaussian",
    trials_per_update: int = 1,
    momentum: float = 0.0,
    gains: Array | None = None,
) -> float:
    """The learning rate at which the mean-square error of a quadratic E ceases to be stable, the
    same for pairs.

    eta = 2 (1-mu)/lambda, with l the eigenvalues of a positive semi-definite H and lambda the
      largest root of sum_i (l_i/K)/(lambda - c l_i) = 1, c = (1-mu)/(1+mu) + (k-2)/K:
    for one Gaussian trial sum_i eta l_i/(2 (1 - eta l_i)) < 1 (Horowitz and Senne 1981, Feuer and
    Weinstein 1985, of the LMS rule), for one Rademacher trial and H diagonal eta < 2/tr H. Exact
    for k = 3, and for any code where H is diagonal in the weights. For c >= 0 lambda lies between
    max(tr H/K, c l_max) and their sum: for few trials it is tr H, not l_max, that counts; for many
    of them, or whole periods of an orthogonal code, eta = 2 (1+mu)/l_max. gains P: l of P^1/2 H
    P^1/2, so tr(PH), exact for H diagonal. For k != 3 and any H, or unequal gains, lambda is the
    largest for which the equation of `quadratic_floor` is singular, found by Arnoldi's method: the
    map of covariances, which keeps them positive, then has the eigenvalue 1. Infinite for H = 0.
    """
    G = _second(H, code, trials_per_update, gains)
    _check_positive(G.lam)
    return _limit(G, below_one("momentum", momentum))


def _limit(G: _Second, mu: float) -> float:
    lam = np.maximum(G.lam, 0.0)
    top, base, t = float(lam.max()), (1 - mu) / (1 + mu), (1 + G.blur) * G.share
    if top == 0:
        return math.inf
    if not G.share:
        return 2 * (1 - mu) / (base * top)
    if G.vectors:
        c = base + G.share * (G.kurtosis - 2)
        low, high = t * top, t * lam.sum() + max(-c, 0.0) * top
        x = brentq(
            lambda x: (t * lam / (x + c * (top - lam))).sum() - 1,
            low * (1 - 1e-9),
            high * (1 + 1e-9),
            xtol=1e-14 * high,
        )
        return 2 * (1 - mu) / (x + c * top)
    to_Y, R, _ = G.stationary(mu)
    operator = LinearOperator(
        2 * (R.size,),
        lambda x: (G.noise(to_Y * x.reshape(R.shape)) - R * x.reshape(R.shape)).ravel(),
        dtype=float,
    )
    rightmost = eigs(
        operator, k=1, which="LR", v0=np.eye(len(lam)).ravel(), return_eigenvectors=False
    )[0].real
    return 2 * (1 - mu) / float(rightmost)


def averaging_gain(H: Array, trials_per_update: int, code: str | Code = "gaussian") -> float:
    """How much larger a learning rate K trials per update allow than one does: `stability_limit` of
    K over that of 1.

    At most K; for k <= 3 at least tr H/(tr H/K + (1 + 1/K) l_max), as the bounds on lambda there
    say. So averaging pays up to a K of about tr H/l_max, where half or more of all that it can
    bring is reached: a rate of 2/l_max instead of about 2/tr H.
    """
    return stability_limit(H, code, trials_per_update) / stability_limit(H, code)


def greedy_rate(
    H: Array,
    w: Array,
    w_star: Array,
    sigma: float = 1e-2,
    trials_per_update: int = 1,
    code: str | Code = "gaussian",
    error_noise: float = 0.0,
    pair: bool = False,
) -> float:
    """The learning rate that lowers the expected E of a quadratic most in the next update: g.g/tr(H
    E GG') at w, 0 at w*.

    From E' = E - eta g.g + eta^2 tr(H E GG')/2, E GG' as in `quadratic_curve`; a positive
    semi-definite H.
    """
    G = _second(H, code, trials_per_update, None, sigma, error_noise, pair)
    _check_positive(G.lam)
    Z = G.start(as_weights("w", w, G.lam.size) - as_weights("w_star", w_star, G.lam.size))
    HCH = G.rows * Z * G.lam
    square = float((HCH if G.vectors else HCH.diagonal()).sum())
    return square / (2 * G.error(HCH + G.noise(HCH) + G.rest)) if square > 0 else 0.0


def momentum_limit(l_max: float, momentum: float) -> float:
    """2 (1 + mu)/l_max: stable for smaller eta, with exact gradients and heavy-ball momentum mu
    (Polyak 1964).

    z^2 - (1 + mu - eta l) z + mu has both roots inside the unit circle. So have the mean dynamics
    of perturbed updates; the mean square is stable up to `stability_limit` only, about (1-mu) 2/tr
    H: momentum lowers that one.
    """
    return 2 * (1 + below_one("momentum", momentum)) / positive("l_max", l_max)


def delay_limit(l_max: float, delay: int) -> float:
    """2 sin(pi/(2 (2d+1)))/l_max: stable for smaller eta in the mean, if updates come d trials
    late, each with its own D.

    u_{t+1} = u_t - eta l u_{t-d}: a root of z^{d+1} - z^d + eta l leaves the unit circle there
    (Levin and May 1976). A condition on the mean alone; the mean square needs less than
    `stability_limit` besides.
    """
    return (
        2
        * math.sin(math.pi / (2 * (2 * integer("delay", delay, 0) + 1)))
        / positive("l_max", l_max)
    )


def parts_of(H: Array) -> tuple[Array, Array | None]:
    """The diagonal of H, and H off it; None where that is zero."""
    H = as_floats("H", H)
    if H.ndim == 1 and H.size:
        return H, None
    if H.ndim != 2 or H.shape[0] != H.shape[1] or not H.size:
        raise InputError(
            f"H has shape {H.shape}: give a square matrix (n, n), or its diagonal (n,)"
        )
    if not np.allclose(H, H.T, rtol=1e-8, atol=1e-10 * np.abs(H).max()):
        raise InputError("H is not symmetric: give (H + H')/2")
    off = _off_diagonal((H + H.T) / 2)
    return H.diagonal().copy(), off if off.any() else None


def _check_positive(lam: Array) -> None:
    if lam.min() < -1e-9 * max(lam.max(), 0.0):
        raise InputError(
            f"H has the eigenvalue {lam.min():.3g} < 0: no learning rate is stable, E has no"
            " minimum there"
        )
