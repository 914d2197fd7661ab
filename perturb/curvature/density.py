"""Spectral density of the Hessian, by stochastic Lanczos quadrature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from perturb.checks import integer
from perturb.curvature.operators import ROUNDING, in_layers, symmetric_operator
from perturb.curvature.trace import Estimated, mean_of_samples
from perturb.networks.objective import Array, Objective


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
        # q'f(H)q by quadrature, for q of length 1; times n it is x'f(H)x of a sign vector, mean tr
        # f(H)
        each = self.n * (self.weights * f(self.nodes)).sum(1)
        return mean_of_samples(each, self.n_products)

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


def spectral_density(
    objective: Objective,
    w: Array,
    probes: int = 8,
    steps: int = 60,
    seed: int = 0,
    layers: Sequence[int] | None = None,
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
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

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
    objective, w = in_layers(objective, w, layers)
    n = objective.n_weights
    integer("probes", probes, 1)
    integer("steps", steps, 1)
    H, m = symmetric_operator("spectral_density", objective, w), min(steps, n)
    nodes, weights = np.zeros((probes, m)), np.zeros((probes, m))
    signs = np.random.Generator(np.random.Philox(seed)).choice([-1.0, 1.0], (probes, n))
    for probe, sign in enumerate(signs):
        Q = np.zeros((m, n))
        alpha, beta = np.zeros(m), np.zeros(m)
        # Lanczos from q: T tridiagonal, alpha on its diagonal and beta beside it
        q, made, largest = sign / np.sqrt(n), 0, 0.0
        for j in range(m):
            Q[j], made = q, j + 1
            r = H @ q
            alpha[j], largest = q @ r, max(largest, float(np.linalg.norm(r)))
            for _ in range(2):  # twice is enough
                r -= Q[:made].T @ (Q[:made] @ r)
            beta[j] = np.linalg.norm(r)
            # the space is invariant: the quadrature of this probe is exact already
            if beta[j] <= ROUNDING * largest:
                break
            q = r / beta[j]
        # Gauss quadrature (Golub and Welsch): nodes theta, weights (first components)^2, of sum 1
        theta, S = eigh_tridiagonal(alpha[:made], beta[: made - 1])
        # a row that ended early has nodes of no weight
        nodes[probe, :made], weights[probe, :made] = (
            theta,
            S[0] ** 2,
        )
    return Density(nodes, weights, n, H.n_products)
