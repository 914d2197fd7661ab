"""Gradients and Hv by finite differences, and H as a linear operator: for anything that has
a gradient and Hv.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator

from perturb.checks import as_weights, positive
from perturb.errors import InputError

Array = np.ndarray


class TwiceDifferentiable(Protocol):
    """What is needed of an `Objective` here."""

    n_weights: int
    symmetric: bool

    def gradient(self, w: Array) -> Array: ...

    def hvp(self, w: Array, v: Array) -> Array: ...

    def gauss_newton_product(self, w: Array, v: Array) -> Array: ...


class HessianOperator(LinearOperator):
    """H + damping I at w as a SciPy LinearOperator of shape (n, n).

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
        Copied.
    damping : float
        Added to every eigenvalue.

    Attributes
    ----------
    n_products : int
        Hessian-vector products so far.

    Raises
    ------
    InputError
        By the transpose, where `hvp` of the objective is not symmetric.
    """

    def __init__(self, objective: TwiceDifferentiable, w: Array, damping: float = 0.0):
        n = objective.n_weights
        self.objective, self.w, self.damping, self.n_products = (
            objective,
            as_weights("w", w, n).copy(),
            damping,
            0,
        )
        super().__init__(np.dtype(float), (n, n))

    def _matmat(self, V: Array) -> Array:
        # a product with k columns costs as much as k
        self.n_products += V.shape[1]
        return self._product(V) + self.damping * V

    def _product(self, V: Array) -> Array:
        return self.objective.hvp(self.w, V)

    def _matvec(self, v: Array) -> Array:
        return self._matmat(v.reshape(-1, 1)).ravel()

    def _adjoint(self) -> "HessianOperator":
        if not self.objective.symmetric:
            raise InputError(
                "hessian_operator is not symmetric here, and its transpose is not known: use its"
                " own products only"
            )
        # H = H'
        return self


class GaussNewtonOperator(HessianOperator):
    """G + damping I at w as a SciPy LinearOperator of shape (n, n), see
    `Objective.gauss_newton_product` and `HessianOperator`.
    """

    def _product(self, V: Array) -> Array:
        # symmetric like H, so that all else is as above
        return self.objective.gauss_newton_product(self.w, V)


def finite_difference_step(w: Array, v: Array, one_sided: bool = False) -> float:
    """The eps that `finite_difference_hvp` chooses.

    Parameters
    ----------
    w : array of shape (n,)
    v : array of shape (n,)
        Not 0.
    one_sided : bool
        Whether the difference is one-sided rather than central.

    Returns
    -------
    float
        The cube root (one_sided: square root) of the machine epsilon, times max(1, |w|_inf) /
        |v|_inf.

    Notes
    -----
    Truncation, O(eps^2) or O(eps), is then about as large as rounding, O(1/eps).

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> f"{perturb.finite_difference_step(np.ones(3), np.ones(3)):.1e}"
    '6.1e-06'
    """
    # truncation ~ eps^p, p = 1 or 2, meets rounding ~ 1/eps at eps ~ machine epsilon^(1/(p+1))
    power = 1 / 2 if one_sided else 1 / 3
    return (
        float(np.finfo(float).eps) ** power
        # relative to the largest weight, and to how far v moves any of them
        * max(1.0, float(np.abs(w).max()))
        / float(np.abs(v).max())
    )


def finite_difference_gradient(error: Callable[[Array], float], w: Array) -> Array:
    """The gradient (n,) of error(w) by central differences, from 2n values."""
    # the step that balances rounding, eps/step, and the third derivative, step^2
    step = float(np.finfo(float).eps) ** (1 / 3) * max(1.0, float(np.abs(w).max()))
    steps = step * np.eye(len(w))
    return np.array([(error(w + each) - error(w - each)) / (2 * step) for each in steps])


def finite_difference_hvp(
    objective: TwiceDifferentiable,
    w: Array,
    v: Array,
    eps: float | None = None,
    one_sided: bool = False,
) -> Array:
    """Hv from two gradients.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    v : array of shape (n,)
    eps : float, optional
        The step along v; left out, that of `finite_difference_step`.
    one_sided : bool
        Whether to step to one side only.

    Returns
    -------
    array of shape (n,)
        Zero for v = 0.

    Raises
    ------
    InputError
        If eps is not a positive number.

    Notes
    -----
    (grad(w + eps v) - grad(w - eps v)) / (2 eps), of truncation error O(eps^2 |v|^3), or one-sided
    (grad(w + eps v) - grad(w)) / eps, of O(eps |v|^2). The rounding error is about 1e-16 |grad| /
    eps.

    Examples
    --------
    >>> import perturb
    >>> network = perturb.MLP([1, 2, 1])
    >>> objective, w = network.objective([[0.5], [1.0]], [[1.0], [0.0]]), network.init(0)
    >>> v = w + 1.0
    >>> near = perturb.finite_difference_hvp(objective, w, v)
    >>> bool(abs(near - objective.hvp(w, v)).max() < 1e-8)
    True
    """
    w = as_weights("w", w, objective.n_weights)
    v = as_weights("v", v, objective.n_weights)
    # H 0 = 0, and no step suits it
    if not v.any():
        return np.zeros_like(w)
    if eps is None:
        eps = finite_difference_step(w, v, one_sided)
    positive("eps", eps)
    if one_sided:
        return (objective.gradient(w + eps * v) - objective.gradient(w)) / eps
    return (objective.gradient(w + eps * v) - objective.gradient(w - eps * v)) / (2 * eps)
