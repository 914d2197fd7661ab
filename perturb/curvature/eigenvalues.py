"""Extreme eigenpairs of the Hessian, by Krylov methods.

They assume that every product is with the same matrix: an estimated Hv must be averaged first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perturb.checks import as_number, integer
from perturb.curvature.operators import (
    DENSE,
    ROUNDING,
    in_layers,
    random_start,
    symmetric_operator,
)
from perturb.errors import InputError, choose
from perturb.networks.derivatives import HessianOperator
from perturb.networks.objective import Array, Objective


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


def eigenpairs(
    objective: Objective,
    w: Array,
    k: int = 1,
    which: str = "largest",
    tolerance: float = 1e-9,
    seed: int = 0,
    layers: Sequence[int] | None = None,
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
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

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
    objective, w = in_layers(objective, w, layers)
    order = choose("which", which, ENDS)
    n = objective.n_weights
    if not (isinstance(k, (int, np.integer)) and 1 <= k <= n):
        raise InputError(f"k = {k!r} must be an integer from 1 to the {n} weights")
    H = symmetric_operator("eigenpairs", objective, w)
    which = "largest" if which == "both" and k == 1 else which  # one pair has no two ends
    values, vectors, converged = np.zeros(0), np.zeros((n, 0)), False
    # below, a Krylov space that fits k pairs is nearly all of R^n: diagonalise at once
    if n > max(2 * k + 1, 40):
        values, vectors, converged = _all_copies(
            H, k, which, tolerance, np.random.Generator(np.random.Philox(seed))
        )
    # n products, and no doubt is left
    if not converged and n <= DENSE:
        values, vectors = np.linalg.eigh(objective.hessian(w))
        H.n_products += n
        chosen = order(values)[:k]
        values, vectors, converged = values[chosen], vectors[:, chosen], True
    ascending = np.argsort(values, kind="stable")
    values, vectors = values[ascending], vectors[:, ascending]
    # measured with products of their own: what Lanczos believes of them is not what they are
    residuals = (
        np.linalg.norm(H @ vectors - vectors * values, axis=0) if len(values) else np.zeros(0)
    )
    return Eigenpairs(values, vectors, residuals, H.n_products, converged)


def _alternating(values: Array) -> Array:
    # highest and lowest in turn; every entry occurs twice, and the first half is a permutation
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

    # the values that the answer would have, in an order in which answers can be compared
    def wanted(values: Array) -> Array:
        first = values[order(values)[:k]]
        return np.sort(np.abs(first) if which == "magnitude" else first)

    # search what is orthogonal to all that was found, until it adds nothing
    complete = not converged
    while not complete and len(rows) + ends <= n:
        start = rng.standard_normal(n)
        # a coarse search first: mostly it is enough to see that nothing out there belongs to the
        # answer
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
            # what a value may still gain outwards until it has converged
            reach = further.values + np.sign(further.values - middle) * strictness * np.abs(
                further.values
            )
            change = wanted(np.concatenate([values, reach])) - wanted(values)
            # copies of one eigenvalue differ by as much
            near = max(2 * tolerance * float(np.abs(wanted(values)).max()), ROUNDING * size)
            complete = not converged or float(np.abs(change).max()) <= near
            if complete:
                break
            # in doubt: go on from there, more strictly
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
    # Q (m, n): an orthonormal basis in rows; T = Q H Q' (m, m); theta, S: eigenvalues, vectors of T
    n = H.shape[0]
    room, limit = min(n - len(without), 2 * k + 20), n if n <= DENSE else 100 * n
    Q, T, m, largest = np.empty((room, n)), np.zeros((room, room)), 0, size
    theta, S, done, first = (
        np.zeros(0),
        np.zeros((0, 0)),
        np.zeros(0, dtype=bool),
        np.zeros(0, dtype=int),
    )

    # r orthogonal to `without` and to the basis, by Gram and Schmidt
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
            # a whole row: after a restart T is no longer tridiagonal (an arrow of the retained
            # pairs)
            T[m - 1, :m] = T[:m, m - 1] = Q[:m] @ r
            q = rest(r)
            # |Hq| <= largest |eigenvalue| for |q| = 1
            beta, largest = float(np.linalg.norm(q)), max(largest, float(np.linalg.norm(r)))
            if not math.isfinite(beta):
                return _Found(np.zeros(0), np.zeros((0, n)), largest, False)
            # an invariant space: its pairs are exact, beta = 0, and what is left needs a new start
            if beta <= ROUNDING * largest and m < room:
                q, beta = rest(rng.standard_normal(n)), 0.0
            # not at every step: an eigenproblem of T costs m^3
            if m == room or (m >= k and m % 4 == 0):
                theta, S = np.linalg.eigh(T[:m, :m])
                # |H y - theta y| = beta |last component of the eigenvector of T| (Parlett 1998)
                done = beta * np.abs(S[-1]) <= np.maximum(
                    tolerance * np.abs(theta), ROUNDING * largest
                )
                if done[order(theta)[:k]].all():
                    break
        first = order(theta)
        if done[first[:k]].all() or H.n_products >= limit:
            break
        # thick restart: the best Ritz vectors stay as the basis, with T diagonal; q goes on behind
        # them
        retained = first[: k + (room - k) // 2]
        Q[: retained.size] = S[:, retained].T @ Q[:m]
        T[: retained.size, : retained.size], m = np.diag(theta[retained]), retained.size
    first = first[:k][done[first[:k]]]
    return _Found(theta[first], S[:, first].T @ Q[: len(S)], largest, len(first) == k)


def power_iteration(
    objective: Objective,
    w: Array,
    shift: float = 0.0,
    tolerance: float = 1e-6,
    max_products: int = 1000,
    seed: int = 0,
    layers: Sequence[int] | None = None,
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
        ... or after this many products.
    seed : int
        Of the random start.
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

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
    objective, w = in_layers(objective, w, layers)
    integer("max_products", max_products, 1)
    H = symmetric_operator("power_iteration", objective, w, -as_number("shift", shift))
    v = random_start(objective.n_weights, seed)
    v /= np.linalg.norm(v)
    # v has length 1 throughout
    value, residual = 0.0, np.inf
    while H.n_products < max_products:
        Hv = H @ v
        # Rayleigh quotient, whose error is the square of that of v
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
