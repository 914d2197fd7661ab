"""Saliencies of weights, steps of Newton's method, and E along a line."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import minres

from perturb.checks import as_floats, as_weights, integer
from perturb.curvature.operators import EPS, ROUNDING, in_layers, random_start, symmetric_operator
from perturb.curvature.trace import diagonal
from perturb.errors import InputError, choose
from perturb.networks.derivatives import HessianOperator
from perturb.networks.objective import Array, Objective


@dataclass(frozen=True)
class Step:
    """A step p that solves (H + damping I) p = -g, or with G in place of H.

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


def obd_saliencies(
    objective: Objective,
    w: Array,
    layers: Sequence[int] | None = None,
) -> Array:
    """H_ii w_i^2 / 2: the change of E if weight i alone is removed at a minimum.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

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
    objective, w = in_layers(objective, w, layers)
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
    curvature: str = "hessian",
    layers: Sequence[int] | None = None,
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
    curvature : {"hessian", "gauss_newton"}
        H, or in its place G of `Objective.gauss_newton_product`.
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

    Returns
    -------
    Saliencies

    Raises
    ------
    InputError
        If an index is not that of a weight, max_products is below 2, or the Hessian is not
        symmetric; for "gauss_newton", of an objective that has no G.

    Notes
    -----
    w_q^2 / (2 [(H + damping I)^-1]_qq), from one MINRES solution each. Negative where H is
    indefinite: then there is no minimum to prune at, unless damping is larger than -lambda_min.
    With G, which Hassibi and Stork take, and damping > 0 no saliency is negative.

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
    objective, w = in_layers(objective, w, layers)
    n, w = objective.n_weights, as_weights("w", w, objective.n_weights)
    # each weight asked for is one linear system
    chosen = np.arange(n) if indices is None else np.asarray(indices)
    if (
        chosen.ndim != 1
        or not np.issubdtype(chosen.dtype, np.integer)
        or ((chosen < 0) | (chosen >= n)).any()
    ):
        raise InputError(f"indices must be integers from 0 to {n - 1}")
    limit = max(2, 10 * n) if max_products is None else max_products
    integer("max_products", limit, 2)
    H = symmetric_operator("obs_saliencies", objective, w, damping, curvature)
    value, residuals = np.empty(len(chosen)), np.empty(len(chosen))
    for row, q in enumerate(chosen):
        unit = np.zeros(n)
        unit[q] = 1.0
        # u = H^-1 e_q, so that u_q = [H^-1]_qq
        u, residuals[row], _ = _solution(_minres, H, unit, tolerance, limit)
        # [H^-1]_qq = 0: no others can make up for q
        value[row] = w[q] ** 2 / (2 * u[q]) if u[q] else np.inf
    return Saliencies(value, residuals, H.n_products, bool((residuals <= tolerance).all()))


def newton_step(
    objective: Objective,
    w: Array,
    damping: float = 0.0,
    method: str = "cg",
    tolerance: float = 1e-6,
    max_products: int | None = None,
    curvature: str = "hessian",
    layers: Sequence[int] | None = None,
) -> Step:
    """The step of Newton's method, (H + damping I) p = -g, or of that of Gauss and Newton.

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
    curvature : {"hessian", "gauss_newton"}
        H, or in its place G of `Objective.gauss_newton_product`, for where H is indefinite.
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

    Returns
    -------
    Step
        To that residual, or as near as the products come.

    Raises
    ------
    InputError
        For an unknown method or curvature, max_products below 2, or a Hessian that is not
        symmetric; for "gauss_newton", of an objective that has no G.

    Notes
    -----
    "cg" is Newton-CG: conjugate gradients that end where they meet a direction d of negative
    curvature, or of none: d'Hd is rounding of |H| |d|^2, as where H is singular. So p always leads
    downhill, and the quadratic model g.p + p'Hp/2 is never above 0. "minres" solves the system as
    it is, also an indefinite one.

    "gauss_newton" solves (G + damping I) p = -g with G = <J' H_E J>: of H without the term of
    residuals, <sum_k e_k d2y_k/dw2>, which is what may be negative in it. G has no eigenvalue below
    0, so that with damping > 0 no curvature is negative, the system has one solution, and it leads
    downhill; "cg" without damping may still end, where a direction has none. Near a fit the term is
    small, and steps are nearly those of H.

    References
    ----------
    Nocedal and Wright, Numerical optimization, 2nd edition, Springer 2006, algorithm 7.1, section
    10.3; Schraudolph, Fast curvature matrix-vector products for second-order gradient descent,
    Neural Computation 14 (2002) 1723-1738.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb import MLP, curvature
    >>> objective = MLP([1, 1]).objective([[1.0], [-2.0]], [[1.0], [-2.0]])
    >>> step = curvature.newton_step(objective, np.zeros(2), max_products=20)
    >>> step.p.round(6) + 0.0, step.converged
    (array([1., 0.]), True)
    """
    objective, w = in_layers(objective, w, layers)
    solver = choose("method", method, {"cg": _cg, "minres": _minres})
    n = objective.n_weights
    # n steps of exact arithmetic; rounding may take as many again
    limit = max(2, 2 * n) if max_products is None else max_products
    integer("max_products", limit, 2)
    # or G in its place; with damping I added, whose products it counts
    H = symmetric_operator("newton_step", objective, w, damping, curvature)
    g = objective.gradient(w)
    if not g.any():
        # a stationary point: p = 0 solves it
        return Step(np.zeros(n), 0.0, 0, True, False)
    p, residual, negative = _solution(solver, H, -g, tolerance, limit)
    return Step(p, residual, H.n_products, residual <= tolerance and not negative, negative)


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
    # r = b - Hx is the true residual, of a product of its own
    size, end = float(np.linalg.norm(b)), H.n_products + budget
    x, r, negative, strictness = np.zeros_like(b), b, False, 1.0
    while (
        (left := float(np.linalg.norm(r))) > tolerance * size
        # a step of the solver and the product that measures what it came to
        and end - H.n_products >= 2
        and not negative
    ):
        # of this residual, not of b: what is still to be gained
        aim = tolerance * size / left
        d, negative = solver(H, r, max(strictness * aim, EPS), end - H.n_products - 1)
        # the very first direction has no positive curvature: steepest descent, p = -g
        if negative and not x.any() and not d.any():
            d = b
        further = b - H @ (x + d)
        # b.x - x'Hx/2 = x.(b + r)/2
        if solver is _cg and (x + d) @ (b + further) < x @ (b + r):
            break  # b.x - x'Hx/2, which conjugate gradients make larger, became less: rounding
        if np.linalg.norm(further) > 0.9 * left and strictness * aim <= EPS and not negative:
            break  # rounding, or a singular system: no nearer
        x, r = x + d, further
        # the solver believed to be nearer than it is
        strictness *= 0.01
    return scale * x, float(np.linalg.norm(r)) / size, negative


def _cg(H: HessianOperator, b: Array, tolerance: float, budget: int) -> tuple[Array, bool]:
    x, r = np.zeros_like(b), -b
    # here r = Hx - b, Nocedal and Wright's sign, and d = -r
    d, size, largest = b, float(np.linalg.norm(b)), 0.0
    if budget > 2:  # |H| must also be known where b is of its null space: from a random direction
        probe = random_start(b.size, 0)
        largest, budget = float(np.linalg.norm(H @ probe) / np.linalg.norm(probe)), budget - 1
    for _ in range(budget):
        Hd = H @ d
        # d'Hd <= rounding of |H| |d|^2: negative curvature, or none, and x before it
        curvature, square = float(d @ Hd), float(d @ d)
        largest = max(largest, float(np.linalg.norm(Hd)) / math.sqrt(square))
        if curvature <= ROUNDING * largest * square:
            return x, True
        # exact minimum along d: alpha = r.r/(d'Hd)
        alpha = float(r @ r) / curvature
        x = x + alpha * d
        before, r = r, r + alpha * Hd
        if np.linalg.norm(r) <= tolerance * size:
            break
        # conjugate to all directions before: beta = r'.r'/(r.r) of Fletcher and Reeves
        d = -r + float(r @ r) / float(before @ before) * d
    return x, False


def _minres(H: HessianOperator, b: Array, tolerance: float, budget: int) -> tuple[Array, bool]:
    # SciPy's rtol is relative to |H| |x| too: a tenth, and `_solution` measures what it came to
    return minres(H, b, rtol=0.1 * tolerance, maxiter=budget)[0], False


def line_profile(
    objective: Objective, w: Array, p: Array, steps: Array
) -> tuple[Array, Array, Array]:
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
    >>> E, slope, pHp = curvature.line_profile(objective, [0.0, 0.0], [1.0, 0.0], [0.0, 2.0])
    >>> E, slope, pHp
    (array([0., 2.]), array([0., 2.]), array([1., 1.]))
    """
    w, p = as_weights("w", w, objective.n_weights), as_weights("p", p, objective.n_weights)
    steps = as_floats("steps", steps)
    rows = [
        # slope g.p and curvature p'Hp: from one forward and one backward pass a step
        (E, g @ p, p @ z)
        for E, g, z in (objective.error_gradient_hvp(w + step * p, p) for step in steps.ravel())
    ]
    E, slope, curvature = np.array(rows).reshape(-1, 3).T.reshape(3, *steps.shape)
    return E, slope, curvature


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


def _squared(v: Array) -> float:
    if not np.any(v):
        raise InputError("v = 0 has no direction: no matrix takes it to z, give another v")
    return float(v @ v)
