"""Matrices of second derivatives: the Hessian H, and the Gauss-Newton matrix G, as products, as
operators of SciPy, as matrices.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from perturb.checks import as_directions
from perturb.errors import InputError
from perturb.networks.derivatives import GaussNewtonOperator, HessianOperator

Array = np.ndarray
HESSIAN_LIMIT = 10_000  # weights; the matrix then takes 0.8 GB


class SecondDerivatives(ABC):
    """What an `Objective` offers of its curvature, from products with a few directions."""

    n_weights: int
    symmetric: bool = True  # whether hvp is a symmetric map, as that of a function is
    # all of them, unless memory forbids
    directions_at_once: int = 2**62

    @abstractmethod
    def gradient(self, w: Array) -> Array:
        """dE/dw."""

    @abstractmethod
    def error(self, w: Array) -> float:
        """E(w)."""

    @abstractmethod
    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        """E, its gradient (n,) and HV (n, k), for V (n, k) with k >= 1, already checked."""

    def _gauss_newton(self, w: Array, V: Array) -> Array:
        """GV (n, k), for V (n, k) with k >= 1, already checked."""
        raise InputError(
            f"{type(self).__name__} has no Gauss-Newton matrix: objectives of MLP, DAG and Layers"
            " have one"
        )

    def error_gradient_hvp(self, w: Array, v: Array) -> tuple[float, Array, Array]:
        """E, its gradient and Hv, in one forward and one backward pass.

        Parameters
        ----------
        w : array of shape (n,)
        v : array of shape (n,) or (n, k), k >= 0

        Returns
        -------
        tuple
            E, a float; its gradient (n,); Hv, of the shape of v.
        """
        v = as_directions("v", v, self.n_weights)
        V, width = v if v.ndim == 2 else v[:, None], self.directions_at_once
        # no direction: E and g alone are asked for
        if not V.size:
            return self.error(w), self.gradient(w), np.zeros(v.shape)
        # E and g come with the first directions, and again with the others, which are dropped
        E, g, Hv = self._block(w, V[:, :width])
        if V.shape[1] > width:
            Hv = np.concatenate(
                [
                    Hv,
                    *(
                        self._block(w, V[:, i : i + width])[2]
                        for i in range(width, V.shape[1], width)
                    ),
                ],
                axis=1,
            )
        return E, g, Hv.reshape(v.shape)

    def hvp(self, w: Array, v: Array) -> Array:
        """Hv by R{backprop} (Pearlmutter 1994).

        Parameters
        ----------
        w : array of shape (n,)
        v : array of shape (n,) or (n, k)

        Returns
        -------
        array of the shape of v
        """
        return self.error_gradient_hvp(w, v)[2]

    def hessian(self, w: Array) -> Array:
        """The Hessian, column by column from `hvp`.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (n, n)

        Raises
        ------
        InputError
            For more than 10,000 weights, whose matrix takes more than 0.8 GB.

        Notes
        -----
        Cost: n products. Rounding is taken out of it by (H + H')/2, unless `hvp` is not symmetric:
        then the columns stand as they are.
        """
        n = self.n_weights
        if n > HESSIAN_LIMIT:
            raise InputError(
                f"hessian of {n} weights would take {8e-9 * n * n:.1f} GB (limit {HESSIAN_LIMIT}):"
                " use hessian_operator"
            )
        H = np.empty((n, n))
        for columns, block in self.hessian_columns(w):
            H[:, columns] = block
        # rounding is not symmetric; H is
        return (H + H.T) / 2 if self.symmetric else H

    def hessian_columns(self, w: Array, width: int = 128) -> Iterator[tuple[slice, Array]]:
        """The Hessian a few columns at a time, so that n is not limited by n^2 of memory.

        Parameters
        ----------
        w : array of shape (n,)
        width : int
            Columns at a time.

        Yields
        ------
        tuple
            A slice of columns, and H[:, slice] (n, up to width).
        """
        for start in range(0, self.n_weights, width):
            columns = slice(start, min(start + width, self.n_weights))
            # H e_i is column i
            unit = np.zeros((self.n_weights, columns.stop - start))
            unit[np.arange(start, columns.stop), np.arange(columns.stop - start)] = 1.0
            yield columns, self.hvp(w, unit)

    def hessian_operator(self, w: Array) -> "HessianOperator":
        """H as a SciPy LinearOperator, for eigsh, cg, minres.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        HessianOperator

        Examples
        --------
        >>> import numpy as np
        >>> import perturb
        >>> from scipy.sparse.linalg import eigsh
        >>> objective = perturb.Objective.from_functions(
        ...     lambda w: w @ w, lambda w: 2 * w, lambda w, v: 2 * v, n_weights=3
        ... )
        >>> H = objective.hessian_operator(np.ones(3))
        >>> H @ np.array([1.0, 0.0, 2.0]), H.n_products
        (array([2., 0., 4.]), 1)
        >>> eigsh(H, k=1, return_eigenvectors=False).round(9)
        array([2.])
        """
        return HessianOperator(self, w)

    def gauss_newton_product(self, w: Array, v: Array) -> Array:
        """Gv, of the Gauss-Newton matrix G = <J' H_E J>.

        Parameters
        ----------
        w : array of shape (n,)
        v : array of shape (n,) or (n, k)

        Returns
        -------
        array of the shape of v

        Raises
        ------
        InputError
            Of an objective that is no feed-forward network: `MLP`, `DAG` and `Layers` have G.

        Notes
        -----
        J = dy/dw (outputs, n) and H_E = d2E/dy2 (outputs, outputs), of each pattern, whose mean G
        is: R{y} = Jv by R of the forward pass, H_E R{y}, and J' of that by the backward pass
        (Schraudolph 2002). H is G plus <sum_k e_k d2y_k/dw2>, so that they are the same where y is
        linear in w, or where all e = dE/dy are 0. G is symmetric, and no eigenvalue is below 0
        where E of a pattern is convex in y, as all errors of `losses` are. Outputs y are those that
        the error takes: of a cross-entropy, before its softmax or logistic function; G is then
        also the Fisher matrix of targets that are distributions. Cost: less than Hv.

        References
        ----------
        Schraudolph, Fast curvature matrix-vector products for second-order gradient descent,
        Neural Computation 14 (2002) 1723-1738.

        Examples
        --------
        H of a tanh neuron in saturation is negative, G is not:

        >>> import perturb
        >>> objective = perturb.MLP([1, 1], output="tanh").objective([[1.0]], [[-1.0]])
        >>> w, v = [1.0, 0.0], [1.0, 0.0]
        >>> objective.hvp(w, v).round(3), objective.gauss_newton_product(w, v).round(3)
        (array([-0.951, -0.951]), array([0.176, 0.176]))
        """
        v = as_directions("v", v, self.n_weights)
        V, width = v if v.ndim == 2 else v[:, None], self.directions_at_once
        some = [self._gauss_newton(w, V[:, i : i + width]) for i in range(0, V.shape[1], width)]
        # the empty one: of k = 0 there are no others
        return np.concatenate([np.zeros((len(V), 0)), *some], axis=1).reshape(v.shape)

    def gauss_newton_operator(self, w: Array) -> GaussNewtonOperator:
        """G of `gauss_newton_product` as a SciPy LinearOperator, for eigsh, cg, minres.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        GaussNewtonOperator

        Examples
        --------
        >>> import numpy as np
        >>> import perturb
        >>> objective = perturb.MLP([1, 1]).objective([[1.0], [-2.0]], [[1.0], [-2.0]])
        >>> G = objective.gauss_newton_operator(np.zeros(2))
        >>> G @ np.eye(2), G.n_products
        (array([[ 2.5, -0.5],
               [-0.5,  1. ]]), 2)
        """
        return GaussNewtonOperator(self, w)
