"""Second moments of the updates of learning on a quadratic E, in its eigenbasis."""

from dataclasses import dataclass

import numpy as np

from perturb.checks import as_floats, as_weights, at_least_zero, integer, positive
from perturb.errors import InputError, choose
from perturb.trial.code import Code
from perturb.trial.codes import CODES

Array = np.ndarray
FLAT = 1e-12  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class SecondMoments:
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

    # s = U'P^-1/2 u, in the eigenbasis
    def start(self, u: Array) -> Array:
        s = (u / np.sqrt(self.p)) @ self.U if self.U.size else u / np.sqrt(self.p)
        return s * s if self.vectors else np.outer(s, s)

    def error(self, Z: Array) -> float:
        """tr(HC)/2."""
        return float(self.lam @ (Z if self.vectors else Z.diagonal())) / 2

    def noise(self, Y: Array) -> Array:
        """What E GG' has besides Y = HCH and the rest."""
        # diag(HCH) is of the weights: turned to their basis, and back below
        y = Y if self.vectors else ((self.U @ Y) * self.U).sum(1)
        # tr(HCH) I and (k-3) diag(HCH), with gains
        d = (1 + self.blur) * (y / self.p).sum() * self.p + (self.kurtosis - 3) * y
        return self.share * (Y + (d if self.vectors else (self.U.T * d) @ self.U))

    def stationary(self, momentum: float) -> tuple[Array, Array, Array]:
        """(Y/X, R, whether not flat), all element by element, for X = F Z, F = (l_i + l_j)/2: Y =
        l_i l_j Z, tr X = tr(HC).

        A stationary X obeys [2 (1 - mu)/eta + R] X = noise(Y) + rest, F R = [mu (l_i^2 + l_j^2) -
        (1 + mu^2) l_i l_j]/(1 - mu^2): an update p := mu p - eta G, s := s + p does not change E
        ss', E sp' and E pp' then.
        """
        # flat directions carry no error: their X is 0
        lam = np.where(self.lam > FLAT * self.lam.max(), self.lam, 0.0)
        row = lam if self.vectors else lam[:, None]
        F = (row + lam) / 2
        inverse = np.divide(1.0, F, out=np.zeros_like(F), where=F > 0)
        R = (momentum * (row**2 + lam**2) - (1 + momentum**2) * row * lam) / (1 - momentum**2)
        return row * lam * inverse, R * inverse, F > 0


def second_moments(
    H: Array,
    code: str | Code,
    trials: int,
    gains: Array | None,
    sigma: float = 1.0,
    error_noise: float = 0.0,
    pair: bool = True,
) -> SecondMoments:
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
    # whole periods leave G = g and noise: nothing of the other weights (share 0), as if k = 3
    if code.periodic:
        _whole_periods(code, n, K, pair)
        k, m, share = 3.0, 15.0, 0.0
    # of dE D_i/sigma^2: sE^2/sigma^2; a pair has half the variance
    noise = error_noise**2 / sigma**2 * (0.5 if pair else 1.0)
    # a pair has no even part
    even, square = (0.0, 0.0) if pair or not share else even_moments(h, off, k, m)
    # what is the same for all weights, on the diagonal
    alike = (1 + blur) * noise + blur * sigma**2 * square
    if off is None:
        return SecondMoments(
            p * h, np.zeros((0, 0)), p, k, blur, share, True, p * (sigma**2 * even + alike) / K
        )
    # P^1/2 H P^1/2 is symmetric, and has the eigenvalues of PH
    root = np.sqrt(p)
    lam, U = np.linalg.eigh(root[:, None] * (off + np.diag(h)) * root)
    rest = root[:, None] * (sigma**2 * even + alike * np.eye(n)) * root / K
    # then no term is tied to the basis of the weights, and modes do not mix
    vectors = k == 3 and bool((p == p[0]).all())
    rest = ((U.T @ rest) * U.T).sum(1) if vectors else U.T @ rest @ U
    return SecondMoments(lam, U, p, k, blur, share, vectors, rest)


def even_moments(h: Array, off: Array | None, k: float, m: float) -> tuple[Array, float]:
    """Moments of the even part of a one-sided dE, x'Hx/2 with x = D/sigma.

    Parameters
    ----------
    h : array of shape (n,)
        The diagonal of H.
    off : array of shape (n, n) or None
        H off it; None where that is zero.
    k, m : float
        Kurtosis and sixth moment of the code.

    Returns
    -------
    tuple
        S of `quadratic_curve`, (n, n), or its diagonal (n,) where H is diagonal; and E (x'Hx/2)^2.
    """
    rows, T = (0 * h if off is None else (off * off).sum(1)), float(h.sum())
    # variance of x'Hx/2, and (tr H/2)^2
    square = (k - 1) * float(h @ h) / 4 + float(rows.sum()) / 2 + T**2 / 4
    diagonal = square + (m - 3 * k + 2) * h**2 / 4 + (k - 1) * (rows + T * h / 2)
    if off is None:
        return diagonal, square
    # S_ij for i != j; its diagonal is put in below
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
    # one-sided, the curvature goes only with the folded-over pass
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


def parts_of(H: Array) -> tuple[Array, Array | None]:
    """The diagonal of H, and H off it.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric, or its diagonal.

    Returns
    -------
    tuple
        The diagonal (n,); H off it, (n, n), or None where that is zero.

    Raises
    ------
    InputError
        For another shape, or an H that is not symmetric.
    """
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


def check_positive(lam: Array) -> None:
    if lam.min() < -1e-9 * max(lam.max(), 0.0):
        raise InputError(
            f"H has the eigenvalue {lam.min():.3g} < 0: no learning rate is stable, E has no"
            " minimum there"
        )
