"""What Hessian-vector products are good for: eigenvalues, density, trace, saliencies, Newton steps.

Every result says how good it is (residuals or standard errors), what it cost (n_products,
Hessian-vector products) and whether it converged. Indefinite matrices are the normal case: away
from a minimum most networks have one. All of it assumes the same H at every product: never give an
objective whose error is noisy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import minres

from perturb.checks import as_floats, as_number, as_weights, integer
from perturb.errors import InputError, choose
from perturb.networks.objective import Array, HessianOperator, Objective

EPS = float(np.finfo(float).eps)
ROUNDING = 1000 * EPS  # of products with H, relative to its largest |eigenvalue|
DENSE = 2000  # weights; the matrix then takes 32 MB


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues and eigenvectors of H.

    Attributes
    ----------
    values : array of shape (k,)
        Ascending.
    vectors : array of shape (n, k)
        One a column, of length 1.
    residuals : array of shape (k,)
        |H x - lambda x| of each.
    n_products : int
    converged : bool
        Whether these are all that were asked for.
    """

    values: Array
    vectors: Array
    residuals: Array
    n_products: int
    converged: bool


@dataclass(frozen=True)
class Estimated:
    """A stochastic estimate.

    Attributes
    ----------
    value : float or array of shape (n,)
    stderr : float or array of shape (n,)
        Its standard error; NaN if a single sample does not tell.
    n_products : int
    """

    value: Array | float
    stderr: Array | float
    n_products: int


@dataclass(frozen=True)
class Density:
    """Spectral density of H by stochastic Lanczos quadrature; call it with a grid.

    Attributes
    ----------
    nodes : array of shape (probes, m)
        Eigenvalues of the tridiagonal matrix of each probe.
    weights : array of shape (probes, m)
        Of the nodes; the sum of each row is 1.
    n : int
        Size of H.
    n_products : int
    """

    nodes: Array
    weights: Array
    n: int
    n_products: int

    def integrate(self, f: Callable[[Array], Array]) -> Estimated:
        """sum over eigenvalues of f(lambda).

        Parameters
        ----------
        f : callable
            f(lambda), elementwise: the identity gives the trace, log the log-determinant of a
            positive H.

        Returns
        -------
        Estimated
            The mean over probes; its standard error is NaN for one probe.
        """
        each = self.n * (self.weights * f(self.nodes)).sum(1)
        stderr = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
        return Estimated(float(each.mean()), stderr, self.n_products)

    def __call__(self, grid: Array, width: float) -> Array:
        """Density of eigenvalues, of integral 1, on a grid.

        Parameters
        ----------
        grid : array of shape (m,)
            Eigenvalues.
        width : float
            Standard deviation of the Gaussian that stands for each node, in the units of the grid.

        Returns
        -------
        array of shape (m,)
        """
        distance = (np.asarray(grid)[:, None] - self.nodes.ravel()) / width
        return (
            np.exp(-0.5 * distance**2)
            @ self.weights.ravel()
            / (np.sqrt(2 * np.pi) * width * len(self.nodes))
        )


@dataclass(frozen=True)
class Step:
    """A step p that solves (H + damping I) p = -g.

    Attributes
    ----------
    p : array of shape (n,)
    residual : float
        |(H + damping I) p + g| / |g|.
    n_products : int
    converged : bool
    negative_curvature : bool
        Whether a direction was met along which the curvature is negative, or zero to rounding, and
        p ends before it (or is -g, if it was the first).
    """

    p: Array
    residual: float
    n_products: int
    converged: bool
    negative_curvature: bool


def eigenpairs(
    objective: Objective,
    w: Array,
    k: int = 1,
    which: str = "largest",
    tolerance: float = 1e-9,
    seed: int = 0,
) -> Eigenpairs:
    """The k extreme eigenpairs of H at w, each eigenvalue as often as it occurs.

    Parameters
    ----------
    objective : Objective
        With a symmetric Hessian.
    w : array of shape (n,)
    k : int
        How many, from 1 to n.
    which : {"largest", "smallest", "magnitude", "both"}
        "both" takes k/2 from each end.
    tolerance : float
        Of |H x - lambda x| relative to |lambda|, or to rounding of the largest |eigenvalue| where
        that is more.
    seed : int
        Of the random starts.

    Returns
    -------
    Eigenpairs
        Those that have not converged after 100 n products are left out: there may be fewer than k,
        or none. Up to 2,000 weights H is diagonalised instead, as soon as Lanczos has taken more
        than n products.

    Raises
    ------
    InputError
        For an unknown `which`, a k out of its range, or a Hessian that is not symmetric.

    Notes
    -----
    By Lanczos on products. From one start Lanczos finds one copy of a repeated eigenvalue, however
    well it converges, and a linear network with q outputs has each eigenvalue q times. So the space
    orthogonal to all that was found is searched from a new random start, until its extreme
    eigenvalue does not belong to the answer. That last search, which adds nothing, ends at the
    square root of the tolerance unless this leaves the answer in doubt.

    References
    ----------
    Wu and Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J.
    Matrix Anal. Appl. 22 (2000) 602-616; Parlett, The symmetric eigenvalue problem, SIAM 1998
    (repeated eigenvalues, deflation).

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import MLP, curvature
    >>> objective = MLP([2, 2]).objective(np.eye(2), np.eye(2))
    >>> pairs = curvature.eigenpairs(objective, np.zeros(6), k=2)
    >>> pairs.values.round(6), pairs.converged
    (array([1.5, 1.5]), True)
    """
    order = choose("which", which, ENDS)
    n = objective.n_weights
    if not (isinstance(k, (int, np.integer)) and 1 <= k <= n):
        raise InputError(f"k = {k!r} must be a whole number from 1 to the {n} weights")
    H = _operator("eigenpairs", objective, w)
    which = "largest" if which == "both" and k == 1 else which  # one pair has no two ends
    values, vectors, converged = np.zeros(0), np.zeros((n, 0)), False
    if n > max(2 * k + 1, 40):
        values, vectors, converged = _all_copies(
            H, k, which, tolerance, np.random.Generator(np.random.Philox(seed))
        )
    if not converged and n <= DENSE:
        values, vectors = np.linalg.eigh(objective.hessian(w))
        H.n_products += n
        chosen = order(values)[:k]
        values, vectors, converged = values[chosen], vectors[:, chosen], True
    ascending = np.argsort(values, kind="stable")
    values, vectors = values[ascending], vectors[:, ascending]
    residuals = (
        np.linalg.norm(H @ vectors - vectors * values, axis=0) if len(values) else np.zeros(0)
    )
    return Eigenpairs(values, vectors, residuals, H.n_products, converged)


def _alternating(values: Array) -> Array:
    down = np.argsort(-values, kind="stable")
    return np.stack([down, down[::-1]], axis=1).ravel()[: down.size]


# of eigenvalues: the order in which they are wanted
ENDS: dict[str, Callable[[Array], Array]] = {
    "largest": lambda values: np.argsort(-values, kind="stable"),
    "smallest": lambda values: np.argsort(values, kind="stable"),
    "magnitude": lambda values: np.argsort(-np.abs(values), kind="stable"),
    "both": _alternating,  # highest, lowest, second highest, ...
}


def _all_copies(
    H: HessianOperator, k: int, which: str, tolerance: float, rng: np.random.Generator
) -> tuple[Array, Array, bool]:
    """Values (k,) and vectors (n, k) that `which` wants, and whether all have converged.

    See `eigenpairs`.
    """
    n, order, ends = H.shape[0], ENDS[which], 2 if which == "both" else 1
    found = _lanczos(H, k, order, tolerance, rng.standard_normal(n), np.zeros((0, n)), 0.0, rng)
    values, rows, size, converged = found.values, found.rows, found.size, found.converged

    def wanted(values: Array) -> Array:
        first = values[order(values)[:k]]
        return np.sort(np.abs(first) if which == "magnitude" else first)

    complete = not converged
    while not complete and len(rows) + ends <= n:
        start = rng.standard_normal(n)
        for strictness in (max(tolerance, math.sqrt(tolerance)), tolerance):
            further = _lanczos(H, ends, order, strictness, start, rows, size, rng)
            size, converged = further.size, further.converged
            # as far out as its values may lie
            middle = {
                "largest": -np.inf,
                "smallest": np.inf,
                "magnitude": 0.0,
                "both": (values.max() + values.min()) / 2,
            }[which]
            reach = further.values + np.sign(further.values - middle) * strictness * np.abs(
                further.values
            )
            change = wanted(np.concatenate([values, reach])) - wanted(values)
            near = max(2 * tolerance * float(np.abs(wanted(values)).max()), ROUNDING * size)
            complete = not converged or float(np.abs(change).max()) <= near
            if complete:
                break
            start = further.rows.sum(0)
        else:
            values, rows = (
                np.concatenate([values, further.values]),
                np.concatenate([rows, further.rows]),
            )
    first = order(values)[:k]
    return values[first], rows[first].T, converged


class _Found(NamedTuple):
    """values (k,) and vectors as rows (k, n) of pairs that have converged.

    size: largest |eigenvalue| seen; converged: all.
    """

    values: Array
    rows: Array
    size: float
    converged: bool


def _lanczos(
    H: HessianOperator,
    k: int,
    order: Callable[[Array], Array],
    tolerance: float,
    start: Array,
    without: Array,
    size: float,
    rng: np.random.Generator,
) -> _Found:
    """The k pairs that `order` puts first, of H orthogonal to eigenvectors `without` (l, n).

    Thick-restart Lanczos (Wu and Simon 2000), reorthogonalised against everything; a Krylov space
    that ends is continued in a random direction. size: of the largest |eigenvalue| known. Memory: 2
    k + 20 vectors.
    """
    n = H.shape[0]
    room, limit = min(n - len(without), 2 * k + 20), n if n <= DENSE else 100 * n
    Q, T, m, largest = np.empty((room, n)), np.zeros((room, room)), 0, size
    theta, S, done, first = (
        np.zeros(0),
        np.zeros((0, 0)),
        np.zeros(0, dtype=bool),
        np.zeros(0, dtype=int),
    )

    def rest(r: Array) -> Array:
        for _ in range(2):  # twice is enough
            r = r - without.T @ (without @ r)
            r = r - Q[:m].T @ (Q[:m] @ r)
        return r

    q = rest(start)
    while True:
        while m < room:
            Q[m] = q / np.linalg.norm(q)
            r = H @ Q[m]
            m += 1
            T[m - 1, :m] = T[:m, m - 1] = Q[:m] @ r
            q = rest(r)
            beta, largest = float(np.linalg.norm(q)), max(largest, float(np.linalg.norm(r)))
            if not math.isfinite(beta):
                return _Found(np.zeros(0), np.zeros((0, n)), largest, False)
            if beta <= ROUNDING * largest and m < room:
                q, beta = rest(rng.standard_normal(n)), 0.0
            if m == room or (m >= k and m % 4 == 0):
                theta, S = np.linalg.eigh(T[:m, :m])
                done = beta * np.abs(S[-1]) <= np.maximum(
                    tolerance * np.abs(theta), ROUNDING * largest
                )
                if done[order(theta)[:k]].all():
                    break
        first = order(theta)
        if done[first[:k]].all() or H.n_products >= limit:
            break
        kept = first[: k + (room - k) // 2]
        Q[: kept.size] = S[:, kept].T @ Q[:m]
        T[: kept.size, : kept.size], m = np.diag(theta[kept]), kept.size
    first = first[:k][done[first[:k]]]
    return _Found(theta[first], S[:, first].T @ Q[: len(S)], largest, len(first) == k)


def power_iteration(
    objective: Objective,
    w: Array,
    shift: float = 0.0,
    tolerance: float = 1e-6,
    max_products: int = 1000,
    seed: int = 0,
) -> Eigenpairs:
    """The eigenpair of H - shift I of largest magnitude, by power iteration.

    Parameters
    ----------
    objective : Objective
        With a symmetric Hessian.
    w : array of shape (n,)
    shift : float
        With the largest eigenvalue as shift it finds the smallest.
    tolerance : float
        It ends when the residual falls below tolerance |lambda| ...
    max_products : int
        ... or after so many products.
    seed : int
        Of the random start.

    Returns
    -------
    Eigenpairs
        One pair; values holds the eigenvalue of H itself.

    Raises
    ------
    InputError
        If max_products is below 1, or the Hessian is not symmetric.

    Notes
    -----
    v := (H - shift I) v / |v|. The error falls by |l2/l1| a step: slow where two are alike.

    References
    ----------
    LeCun, Simard and Pearlmutter, Automatic learning rate maximization by on-line estimation of the
    Hessian's eigenvectors, NIPS 5 (1993) 156-163.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import MLP, curvature
    >>> objective = MLP([1, 1]).objective([[1.0], [-1.0]], [[0.0], [1.0]])
    >>> curvature.power_iteration(objective, np.zeros(2)).values.round(6)
    array([1.])
    """
    integer("max_products", max_products, 1)
    H = _operator("power_iteration", objective, w, -as_number("shift", shift))
    v = _start(objective.n_weights, seed)
    v /= np.linalg.norm(v)
    value, residual = 0.0, np.inf
    while H.n_products < max_products:
        Hv = H @ v
        value = float(v @ Hv)
        residual = float(np.linalg.norm(Hv - value * v))
        if residual <= tolerance * abs(value) or not Hv.any():
            break
        v = Hv / np.linalg.norm(Hv)
    return Eigenpairs(
        np.array([value + shift]),
        v[:, None],
        np.array([residual]),
        H.n_products,
        residual <= tolerance * abs(value),
    )


def spectral_density(
    objective: Objective, w: Array, probes: int = 8, steps: int = 60, seed: int = 0
) -> Density:
    """Spectral density of H by stochastic Lanczos quadrature.

    Parameters
    ----------
    objective : Objective
        With a symmetric Hessian.
    w : array of shape (n,)
    probes : int
        Random sign vectors.
    steps : int
        Steps of Lanczos from each, fully reorthogonalised; at most n are taken.
    seed : int

    Returns
    -------
    Density

    Raises
    ------
    InputError
        If probes or steps is below 1, or the Hessian is not symmetric.

    Notes
    -----
    Cost: probes x steps products, steps x n numbers of memory.

    References
    ----------
    Golub and Meurant, Matrices, moments and quadrature, Numerical Analysis 1993 (1994) 105-156.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import MLP, curvature
    >>> objective = MLP([2, 2]).objective(np.eye(2), np.eye(2))
    >>> density = curvature.spectral_density(objective, np.zeros(6))
    >>> trace = density.integrate(lambda eigenvalue: eigenvalue)
    >>> bool(abs(trace.value - np.trace(objective.hessian(np.zeros(6)))) < 4 * trace.stderr)
    True
    """
    n = objective.n_weights
    integer("probes", probes, 1)
    integer("steps", steps, 1)
    H, m = _operator("spectral_density", objective, w), min(steps, n)
    nodes, weights = np.zeros((probes, m)), np.zeros((probes, m))
    signs = np.random.Generator(np.random.Philox(seed)).choice([-1.0, 1.0], (probes, n))
    for probe, sign in enumerate(signs):
        Q = np.zeros((m, n))
        alpha, beta = np.zeros(m), np.zeros(m)
        q, made, largest = sign / np.sqrt(n), 0, 0.0
        for j in range(m):
            Q[j], made = q, j + 1
            r = H @ q
            alpha[j], largest = q @ r, max(largest, float(np.linalg.norm(r)))
            for _ in range(2):  # twice is enough
                r -= Q[:made].T @ (Q[:made] @ r)
            beta[j] = np.linalg.norm(r)
            if beta[j] <= ROUNDING * largest:
                break
            q = r / beta[j]
        theta, S = eigh_tridiagonal(alpha[:made], beta[: made - 1])
        nodes[probe, :made], weights[probe, :made] = (
            theta,
            S[0] ** 2,
        )  # a row that ended early has nodes of no weight
    return Density(nodes, weights, n, H.n_products)


def trace(
    objective: Objective, w: Array, probes: int = 90, method: str = "auto", seed: int = 0
) -> Estimated:
    """tr H from at most so many products with random signs.

    Parameters
    ----------
    objective : Objective
        With a symmetric Hessian.
    w : array of shape (n,)
    probes : int
        The most products.
    method : {"auto", "hutch++", "hutchinson"}
        "auto" takes out as much of the spectrum as pays.
    seed : int

    Returns
    -------
    Estimated
        Its standard error is of the random part.

    Raises
    ------
    InputError
        For an unknown method, probes below 1, or a Hessian that is not symmetric.

    Notes
    -----
    "hutchinson" is the mean of x'Hx, of variance 2(|H|^2 - sum H_ii^2) a probe (|.|^2: sum of
    squares). With an orthonormal basis Q of r dimensions in which H is largest, the trace there is
    exact, from 2 r products (r for Q = orth(HX), r for HQ), and the rest R = (1 - QQ')H(1 - QQ')
    has a smaller variance, of fewer probes: 2|R|^2/(probes - 2 r), about. "hutch++" takes r =
    probes/3 always: a standard deviation sqrt(3) times that of "hutchinson" where no few
    eigenvalues dominate. "auto" makes Q larger by some directions at a time as long as an estimate
    of |R|^2/(probes - 2 r), made of the same products, falls. All are unbiased, as Q does not
    depend on the probes of the rest. From probes = n on "auto" is exact, from n products.

    References
    ----------
    Hutchinson 1990; Meyer, Musco, Musco and Woodruff 2021 (Hutch++); Persson, Cortinovis and
    Kressner 2022 (adaptive).

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import MLP, curvature
    >>> objective = MLP([2, 2]).objective(np.eye(2), np.eye(2))
    >>> curvature.trace(objective, np.zeros(6))
    Estimated(value=4.0, stderr=0.0, n_products=6)
    """
    choose("method", method, dict.fromkeys(("auto", "hutch++", "hutchinson")))
    integer("probes", probes, 1)
    n, H = objective.n_weights, _operator("trace", objective, w)
    if method == "auto" and probes >= n:
        return Estimated(float(np.sum(diagonal(objective, w).value)), 0.0, n)
    rng = np.random.Generator(np.random.Philox(seed))
    part = probes // 3
    Q, exact = np.zeros((n, 0)), 0.0
    if method == "hutch++" and part >= 2:
        Q = np.linalg.qr(H @ rng.choice([-1.0, 1.0], (n, min(part, n))))[0]
        exact = float((Q * (H @ Q)).sum())
    elif method == "auto":
        Q, exact = _dominant(H, probes, rng)
    G = rng.choice(
        [-1.0, 1.0], (n, part if method == "hutch++" and part >= 2 else probes - H.n_products)
    )
    G -= Q @ (Q.T @ G)
    each = (G * (H @ G)).sum(0)
    stderr = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
    return Estimated(exact + float(each.mean()), stderr, H.n_products)


def _dominant(H: HessianOperator, probes: int, rng: np.random.Generator) -> tuple[Array, float]:
    """Q (n, r) and tr Q'HQ, for an r that leaves about the smallest variance: see `trace`.

    |(1 - QQ')H|^2 is the mean of |(1 - QQ')Hx|^2, each x with a Q of the others: 1/|row of R^-1|^2,
    of the factor R of all Hx.
    """
    n, width = H.shape[0], max(1, probes // 30)
    HX, Q, HQ, best, failed = np.zeros((n, 0)), np.zeros((n, 0)), np.zeros((n, 0)), np.inf, 0
    while failed < 2 and probes - H.n_products - 2 * width >= 2 and Q.shape[1] + width <= n:
        new = H @ rng.choice([-1.0, 1.0], (n, width))
        HX = np.hstack([HX, new])
        best = min(best, float((HX**2).sum()) / HX.shape[1] / probes)  # without Q
        for _ in range(2):  # twice is enough
            new = new - Q @ (Q.T @ new)
        new = np.linalg.qr(new)[0]
        Q, HQ = np.hstack([Q, new]), np.hstack([HQ, H @ new])
        R = np.linalg.qr(HX, mode="r")
        if np.abs(np.diag(R)).min() <= ROUNDING * np.abs(R).max():
            break  # Q holds all of H
        rest = float((1 / (np.linalg.inv(R) ** 2).sum(1)).mean())
        both = max(
            rest - float(((HQ - Q @ (Q.T @ HQ)) ** 2).sum()), rest / 2
        )  # |(1 - QQ')H(1 - QQ')|^2
        variance = both / (probes - H.n_products)
        failed = failed + 1 if variance >= best else 0
        best = min(best, variance)
    return Q, float((Q * HQ).sum())


def diagonal(objective: Objective, w: Array, probes: int | None = None, seed: int = 0) -> Estimated:
    """diag H.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    probes : int, optional
        Random sign vectors x; left out, the diagonal is exact, from n products.
    seed : int

    Returns
    -------
    Estimated
        Arrays (n,).

    Raises
    ------
    InputError
        If probes is below 1.

    Notes
    -----
    With `probes`, the mean of x * Hx: unbiased, of variance sum_{j != i} H_ij^2 a probe.

    References
    ----------
    Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, Appl. Numer. Math. 57
    (2007) 1214-1229.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import MLP, curvature
    >>> objective = MLP([1, 1]).objective([[1.0], [-2.0]], [[0.0], [1.0]])
    >>> curvature.diagonal(objective, np.zeros(2)).value
    array([2.5, 1. ])
    """
    n, H = objective.n_weights, HessianOperator(objective, w)
    if probes is None:
        exact = np.empty(n)
        for columns, block in objective.hessian_columns(w):
            exact[columns] = block[
                np.arange(columns.start, columns.stop), np.arange(columns.stop - columns.start)
            ]
        return Estimated(exact, np.zeros(n), n)
    integer("probes", probes, 1)
    x = np.random.Generator(np.random.Philox(seed)).choice([-1.0, 1.0], (n, probes))
    each = x * (H @ x)
    stderr = each.std(1, ddof=1) / np.sqrt(probes) if probes > 1 else np.full(n, np.nan)
    return Estimated(each.mean(1), stderr, H.n_products)


def obd_saliencies(objective: Objective, w: Array) -> Array:
    """H_ii w_i^2 / 2: the change of E if weight i alone is removed at a minimum.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)

    Returns
    -------
    array of shape (n,)
        In units of E.

    Notes
    -----
    Cost: n products. Exact on a quadratic E, at its minimum.

    References
    ----------
    LeCun, Denker and Solla, Optimal brain damage, NIPS 2 (1990) 598-605.

    Examples
    --------
    >>> from perturb import MLP, curvature
    >>> objective = MLP([1, 1]).objective([[1.0], [-2.0]], [[1.0], [-2.0]])
    >>> curvature.obd_saliencies(objective, [1.0, 0.0])
    array([1.25, 0.  ])
    """
    return (
        np.asarray(diagonal(objective, w).value) * as_weights("w", w, objective.n_weights) ** 2 / 2
    )


@dataclass(frozen=True)
class Saliencies:
    """Saliencies of weights, from solutions of linear systems.

    Attributes
    ----------
    value : array of shape (k,)
        Of each weight asked for, in units of E.
    residuals : array of shape (k,)
        Of the linear systems, relative.
    n_products : int
    converged : bool
        Whether all residuals are within the tolerance.
    """

    value: Array
    residuals: Array
    n_products: int
    converged: bool


def obs_saliencies(
    objective: Objective,
    w: Array,
    indices: Sequence[int] | None = None,
    damping: float = 0.0,
    tolerance: float = 1e-8,
    max_products: int | None = None,
) -> Saliencies:
    """The change of E if weight q is removed at a minimum and the others adjust.

    Parameters
    ----------
    objective : Objective
        With a symmetric Hessian.
    w : array of shape (n,)
    indices : sequence of int, optional
        The weights asked for; left out, all.
    damping : float
        Added to every eigenvalue of H.
    tolerance : float
        Relative residual of the linear systems.
    max_products : int, optional
        The most products for each weight, at least 2; 10 n if left out.

    Returns
    -------
    Saliencies

    Raises
    ------
    InputError
        If an index is not that of a weight, max_products is below 2, or the Hessian is not
        symmetric.

    Notes
    -----
    w_q^2 / (2 [(H + damping I)^-1]_qq), from one MINRES solution each. Negative where H is
    indefinite: then there is no minimum to prune at, unless damping is larger than -lambda_min.

    References
    ----------
    Hassibi and Stork, Second order derivatives for network pruning: optimal brain surgeon, NIPS 5
    (1993) 164-171.

    Examples
    --------
    >>> from perturb import MLP, curvature
    >>> objective = MLP([1, 1]).objective([[1.0], [-2.0]], [[1.0], [-2.0]])
    >>> curvature.obs_saliencies(objective, [1.0, 0.0], indices=[0]).value.round(6)
    array([1.125])
    """
    n, w = objective.n_weights, as_weights("w", w, objective.n_weights)
    chosen = np.arange(n) if indices is None else np.asarray(indices)
    if (
        chosen.ndim != 1
        or not np.issubdtype(chosen.dtype, np.integer)
        or ((chosen < 0) | (chosen >= n)).any()
    ):
        raise InputError(f"indices must be whole numbers from 0 to {n - 1}")
    limit = max(2, 10 * n) if max_products is None else max_products
    integer("max_products", limit, 2)
    H = _operator("obs_saliencies", objective, w, damping)
    value, residuals = np.empty(len(chosen)), np.empty(len(chosen))
    for row, q in enumerate(chosen):
        unit = np.zeros(n)
        unit[q] = 1.0
        u, residuals[row], _ = _solution(_minres, H, unit, tolerance, limit)
        value[row] = w[q] ** 2 / (2 * u[q]) if u[q] else np.inf
    return Saliencies(value, residuals, H.n_products, bool((residuals <= tolerance).all()))


def newton_step(
    objective: Objective,
    w: Array,
    damping: float = 0.0,
    method: str = "cg",
    tolerance: float = 1e-6,
    max_products: int | None = None,
) -> Step:
    """The step of Newton's method, (H + damping I) p = -g.

    Parameters
    ----------
    objective : Objective
        With a symmetric Hessian.
    w : array of shape (n,)
    damping : float
        Added to every eigenvalue of H.
    method : {"cg", "minres"}
    tolerance : float
        Relative residual.
    max_products : int, optional
        The most products, at least 2; 2 n if left out. One of them measures the residual, and one
        |H| where there are more than 3.

    Returns
    -------
    Step
        To that residual, or as near as the products come.

    Raises
    ------
    InputError
        For an unknown method, max_products below 2, or a Hessian that is not symmetric.

    Notes
    -----
    "cg" is Newton-CG: conjugate gradients that end where they meet a direction d of negative
    curvature, or of none: d'Hd is rounding of |H| |d|^2, as where H is singular. So p always leads
    downhill, and the quadratic model g.p + p'Hp/2 is never above 0. "minres" solves the system as
    it is, also an indefinite one.

    References
    ----------
    Nocedal and Wright, Numerical optimization, 2nd edition, Springer 2006, algorithm 7.1.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import MLP, curvature
    >>> objective = MLP([1, 1]).objective([[1.0], [-2.0]], [[1.0], [-2.0]])
    >>> step = curvature.newton_step(objective, np.zeros(2), max_products=20)
    >>> step.p.round(6) + 0.0, step.converged
    (array([1., 0.]), True)
    """
    solver = choose("method", method, {"cg": _cg, "minres": _minres})
    n = objective.n_weights
    limit = max(2, 2 * n) if max_products is None else max_products
    integer("max_products", limit, 2)
    H, g = _operator("newton_step", objective, w, damping), objective.gradient(w)
    if not g.any():
        return Step(np.zeros(n), 0.0, 0, True, False)
    p, residual, bent = _solution(solver, H, -g, tolerance, limit)
    return Step(p, residual, H.n_products, residual <= tolerance and not bent, bent)


Solver = Callable[[HessianOperator, Array, float, int], tuple[Array, bool]]


def _solution(
    solver: Solver, H: HessianOperator, b: Array, tolerance: float, budget: int
) -> tuple[Array, float, bool]:
    """x with |Hx - b| <= tolerance |b| as far as `budget` products allow.

    Returned with the true relative residual, and whether negative curvature ended it. What solvers
    believe of their residual is not what it is: so they are restarted on the true one, ever
    stricter. b != 0 is brought to a size whose squares are numbers.
    """
    scale = float(np.abs(b).max())
    b = b / scale
    size, end = float(np.linalg.norm(b)), H.n_products + budget
    x, r, bent, strictness = np.zeros_like(b), b, False, 1.0
    while (
        (left := float(np.linalg.norm(r))) > tolerance * size
        and end - H.n_products >= 2
        and not bent
    ):
        aim = tolerance * size / left
        d, bent = solver(H, r, max(strictness * aim, EPS), end - H.n_products - 1)
        if bent and not x.any() and not d.any():
            d = b
        further = b - H @ (x + d)
        if solver is _cg and (x + d) @ (b + further) < x @ (b + r):
            break  # b.x - x'Hx/2, which conjugate gradients make larger, became less: rounding
        if np.linalg.norm(further) > 0.9 * left and strictness * aim <= EPS and not bent:
            break  # rounding, or a singular system: no nearer
        x, r = x + d, further
        strictness *= 0.01
    return scale * x, float(np.linalg.norm(r)) / size, bent


def _cg(H: HessianOperator, b: Array, tolerance: float, budget: int) -> tuple[Array, bool]:
    x, r = np.zeros_like(b), -b
    d, size, largest = b, float(np.linalg.norm(b)), 0.0
    if budget > 2:  # |H| must also be known where b is of its null space: from a random direction
        probe = _start(b.size, 0)
        largest, budget = float(np.linalg.norm(H @ probe) / np.linalg.norm(probe)), budget - 1
    for _ in range(budget):
        Hd = H @ d
        bend, square = float(d @ Hd), float(d @ d)
        largest = max(largest, float(np.linalg.norm(Hd)) / math.sqrt(square))
        if bend <= ROUNDING * largest * square:
            return x, True
        alpha = float(r @ r) / bend
        x = x + alpha * d
        before, r = r, r + alpha * Hd
        if np.linalg.norm(r) <= tolerance * size:
            break
        d = -r + float(r @ r) / float(before @ before) * d
    return x, False


def _minres(H: HessianOperator, b: Array, tolerance: float, budget: int) -> tuple[Array, bool]:
    return minres(H, b, rtol=0.1 * tolerance, maxiter=budget)[0], False


def along(objective: Objective, w: Array, p: Array, steps: Array) -> tuple[Array, Array, Array]:
    """E, its slope and its curvature along a line through w.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    p : array of shape (n,)
        The direction.
    steps : array of any shape, () too
        Multiples of p.

    Returns
    -------
    tuple of three arrays of the shape of steps
        E, g.p and p'Hp at w + step p.

    Examples
    --------
    >>> from perturb import MLP, curvature
    >>> objective = MLP([1, 1]).objective([[1.0]], [[0.0]])
    >>> E, slope, bend = curvature.along(objective, [0.0, 0.0], [1.0, 0.0], [0.0, 2.0])
    >>> E, slope, bend
    (array([0., 2.]), array([0., 2.]), array([1., 1.]))
    """
    w, p = as_weights("w", w, objective.n_weights), as_weights("p", p, objective.n_weights)
    steps = as_floats("steps", steps)
    rows = [
        (E, g @ p, p @ z)
        for E, g, z in (objective.error_gradient_hvp(w + step * p, p) for step in steps.ravel())
    ]
    E, slope, bend = np.array(rows).reshape(-1, 3).T.reshape(3, *steps.shape)
    return E, slope, bend


def least_norm_hessian(v: Array, z: Array) -> Array:
    """z v'/V: the matrix of least norm that takes v to z.

    Parameters
    ----------
    v : array of shape (n,)
        Not 0; V = v.v.
    z : array of shape (n,)
        Hv, or an estimate.

    Returns
    -------
    array of shape (n, n)

    Raises
    ------
    InputError
        For v = 0.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import curvature
    >>> curvature.least_norm_hessian(np.array([1.0, 1.0]), np.array([2.0, 4.0]))
    array([[1., 1.],
           [2., 2.]])
    """
    return np.outer(z, v) / _squared(v)


def symmetric_hessian(v: Array, z: Array) -> Array:
    """The symmetric matrix of least norm that takes v to z, the source's H-hat.

    Parameters
    ----------
    v : array of shape (n,)
        Not 0; V = v.v.
    z : array of shape (n,)
        Hv, or an estimate.

    Returns
    -------
    array of shape (n, n)
        (z v' + v z' - (v.z/V) v v')/V.

    Raises
    ------
    InputError
        For v = 0.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import curvature
    >>> curvature.symmetric_hessian(np.array([1.0, 1.0]), np.array([2.0, 4.0]))
    array([[0.5, 1.5],
           [1.5, 2.5]])
    """
    V = _squared(v)
    return (np.outer(z, v) + np.outer(v, z) - (v @ z / V) * np.outer(v, v)) / V


def _start(n: int, seed: int) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(n)


def _squared(v: Array) -> float:
    if not np.any(v):
        raise InputError("v = 0 has no direction: no matrix takes it to z, give another v")
    return float(v @ v)


def _operator(tool: str, objective: Objective, w: Array, damping: float = 0.0) -> HessianOperator:
    if not objective.symmetric:
        raise InputError(
            f"{tool} needs a symmetric Hessian, which this objective has not: use its hessian, or"
            " leave out feedback"
        )
    return HessianOperator(objective, w, damping)
