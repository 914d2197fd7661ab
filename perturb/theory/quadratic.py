"""The quadratic model of E at w: g, z = Hv, and the sums over H that limits and variances need."""

import math
from dataclasses import dataclass, replace

import numpy as np

from perturb.checks import as_weights
from perturb.networks.objective import Objective

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

    Attributes
    ----------
    g, z, v : array of shape (n,)
        Exact gradient, exact Hv, and the direction.
    diagonal : array of shape (n,)
        H_jj.
    off_rows : array of shape (n,)
        sum_{l != j} H_jl^2 of each row j.
    crossed : array of shape (3, n), optional
        What the variance of z of each single weight needs besides: with O the part of H off the
        diagonal, o = Ov and d the diagonal, sum_j O_ij^2 v_j^2, (Oo)_i and (O(d v))_i. None:
        averages over the weights, which give the same sum of the variances.
    H : array of shape (n, n), optional
        Itself, of `FEW` weights.
    patterns : tuple of Curvature
        Of some of the patterns alone, drawn at random, where each trial presents one.
    of : int
        How many patterns there are.
    diagonal_stderr : array of shape (n,), optional
        Standard error of the diagonal, where it comes from random sign vectors.
    unsure : float
        The relative one of |H|_F^2, likewise.

    Notes
    -----
    Exact up to 4,096 weights, else estimated with 256 random sign vectors (the smaller terms then
    carry a few per cent of error).
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
        """v.v."""
        return float(self.v @ self.v)

    @property
    def trace(self) -> float:
        """tr H."""
        return float(self.diagonal.sum())

    @property
    def off_square(self) -> float:
        """sum_{j != l} H_jl^2."""
        return float(self.off_rows.sum())


def curvature(objective: Objective, w: Array, v: Array, probes: int | None = None) -> Curvature:
    """The `Curvature` of an objective at w, v.

    Parameters
    ----------
    objective : Objective
    w, v : array of shape (n,)
    probes : int, optional
        Random sign vectors, a multiple of 16 or the next one; left out, none up to 4,096 weights
        and 256 above.

    Returns
    -------
    Curvature

    Notes
    -----
    Cost: one Hv per weight, or `probes` of them.
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
            # H is symmetric: what is summed over a column is summed over a row
            rows[columns] = (part * part).sum(0)
            crossed[0, columns] = v**2 @ (part * part)
            if H is not None:
                H[:, columns] = part
        # O is H without its diagonal
        rows -= diagonal**2
        crossed[0] -= v**2 * diagonal**2
        # o = Ov and d v; then Oo and O(d v), by two more products
        off = np.stack([z - diagonal * v, diagonal * v], axis=1)
        crossed[1:] = (objective.hvp(w, off) - diagonal[:, None] * off).T
        return Curvature(g, z, v, diagonal, rows, crossed, H)
    # sixteen directions share one product's passes over the network
    probes = -(-(PROBES if probes is None else probes) // 16) * 16
    rng = np.random.Generator(np.random.Philox(0))
    squares = np.zeros(n)
    sizes = []  # |Hx|^2, whose mean is |H|_F^2
    for _ in range(0, probes, 16):
        # <x_i (Hx)_i> = H_ii (Bekas et al. 2007)
        x = rng.choice([-1.0, 1.0], (n, 16))
        Hx = objective.hvp(w, x)
        diagonal += (x * Hx).sum(1) / probes
        squares += ((x * Hx) ** 2).sum(1) / probes
        sizes += list((Hx * Hx).sum(0))
    # of each x_i (Hx)_i, the mean is H_ii and the variance sum_{j != i} H_ij^2
    rows = np.maximum(squares - diagonal**2, 0.0) * probes / (probes - 1)
    # relative standard error of the mean of |Hx|^2
    unsure = float(np.std(sizes, ddof=1) / math.sqrt(probes) / (np.mean(sizes) or 1.0))
    return Curvature(g, z, v, diagonal, rows, diagonal_stderr=np.sqrt(rows / probes), unsure=unsure)


def curvatures(
    objective: Objective, w: Array, v: Array, presentation: str = "batch"
) -> list[Curvature]:
    """The `Curvature` of the whole objective; with presentation = "pattern" also of single
    patterns, for the variances alone.

    Parameters
    ----------
    objective : Objective
    w, v : array of shape (n,)
    presentation : {"batch", "pattern"}
        As of the trials that are predicted.

    Returns
    -------
    list of Curvature
        One, with those of single patterns in its `patterns`.

    Notes
    -----
    All limits are linear in g and H, so those of single patterns average to those of the whole. All
    patterns are taken, or `PATTERNS` drawn without replacement; of more than 512 weights, each with
    32 random sign vectors.
    """
    whole, S = curvature(objective, w, v), objective.n_patterns
    if presentation == "batch" or S == 1:
        return [whole]
    # a fixed stream: a prediction does not depend on the seed of the run
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
