"""Trace and diagonal of the Hessian from random probes, with standard errors, or exactly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit  # Student's t; scipy.stats takes a third of a second to load

from perturb.checks import between_0_and_1, integer
from perturb.curvature.operators import ROUNDING, in_layers, symmetric_operator
from perturb.errors import choose
from perturb.networks.derivatives import HessianOperator
from perturb.networks.objective import Array, Objective

# if x'Hx differs at all over sign vectors x, it does so from any value for a quarter of them (a
# polynomial of degree 2 that is not 0): so many that are alike by chance are less likely than 5 %
ALIKE = 12


@dataclass(frozen=True)
class Estimated:
    """A stochastic estimate.

    Attributes
    ----------
    value : float or array of shape (n,)
    stderr : float or array of shape (n,)
        Its standard error; NaN if samples do not tell.
    n_products : int
    df : float
        Degrees of freedom of `stderr`: one less than the samples that it was found from, infinite
        of what is exact; where they are few, an interval is Student's, see `interval`.
    unknown : tuple of str
        Why `stderr` is NaN, in sentences without a full stop.
    """

    value: Array | float
    stderr: Array | float
    n_products: int
    df: float = math.inf
    unknown: tuple[str, ...] = ()

    def interval(self, level: float = 0.95) -> tuple[Array | float, Array | float]:
        """The confidence interval, by Student's t.

        Parameters
        ----------
        level : float
            Probability, between 0 and 1, that an interval covers what is estimated, where samples
            scatter about normally, see Notes.

        Returns
        -------
        tuple of two floats, or arrays of shape (n,)
            Lower and upper ends; NaN where `stderr` is.

        Raises
        ------
        InputError
            For another level.

        Notes
        -----
        Samples scatter normally where many eigenvalues make them. Measured, 500 seeds a setting:
        95 % intervals of traces cover 0.90 to 0.98, from 4 products on (1.96 standard errors: 0.66
        to 0.95). Of few large eigenvalues that no Q has taken out they cover less: 0.82 to 0.94 of
        five, 0.84 to 0.90 of a single one.

        References
        ----------
        Student, The probable error of a mean, Biometrika 6 (1908) 1-25.

        Examples
        --------
        >>> from perturb.curvature import Estimated
        >>> low, high = Estimated(3.0, 0.1, n_products=4, df=1).interval()
        >>> round(low, 2), round(high, 2)
        (1.73, 4.27)
        """
        between_0_and_1("level", level)
        # two-sided: (1 - level)/2 lies beyond either end
        half = float(stdtrit(self.df, (1 + level) / 2)) * self.stderr
        return self.value - half, self.value + half


def mean_of_samples(each: Array, n_products: int, exact: float = 0.0) -> Estimated:
    """exact + the mean over the last axis of samples (m,) or (n, m)."""
    m, mean = each.shape[-1], each.mean(-1)
    value = mean if mean.ndim else exact + float(mean)
    if m < 2:
        alone = ("a single probe tells no standard error: use more",)
        return Estimated(value, value * math.nan, n_products, math.nan, alone)
    stderr = each.std(-1, ddof=1) / math.sqrt(m)
    return Estimated(value, stderr if mean.ndim else float(stderr), n_products, m - 1.0)


def trace(
    objective: Objective,
    w: Array,
    probes: int = 90,
    method: str = "auto",
    seed: int = 0,
    layers: Sequence[int] | None = None,
) -> Estimated:
    """tr H from at most a number of products with random signs.

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
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

    Returns
    -------
    Estimated
        Its standard error is of the random part, and not known from fewer than 12 probes of it that
        are all alike, of which chance may be the cause.

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

    Degrees of freedom are one less than the probes of the rest; few products leave 1, and of a
    spectrum that decays fast "auto" leaves few of many. Student's 95 % intervals (`interval`) then
    reach 12.7 standard errors.

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
    Estimated(value=4.0, stderr=0.0, n_products=6, df=inf, unknown=())
    """
    objective, w = in_layers(objective, w, layers)
    choose("method", method, dict.fromkeys(("auto", "hutch++", "hutchinson")))
    integer("probes", probes, 1)
    n, H = objective.n_weights, symmetric_operator("trace", objective, w)
    if method == "auto" and probes >= n:
        # n products give the whole diagonal, for fewer than the probes would cost
        return Estimated(float(np.sum(diagonal(objective, w).value)), 0.0, n)
    rng = np.random.Generator(np.random.Philox(seed))
    # Hutch++ : a third of the products for HX, a third for HQ, a third for the probes of the rest
    part = probes // 3
    Q, exact = np.zeros((n, 0)), 0.0
    if method == "hutch++" and part >= 2:
        Q = np.linalg.qr(H @ rng.choice([-1.0, 1.0], (n, min(part, n))))[0]
        # tr Q'HQ: Hutch++ is exact within Q, and the rest is by probes
        exact = float((Q * (H @ Q)).sum())
    elif method == "auto":
        Q, exact = _dominant(H, probes, rng)
    G = rng.choice(
        [-1.0, 1.0], (n, part if method == "hutch++" and part >= 2 else probes - H.n_products)
    )
    # probes of (1 - QQ') H (1 - QQ'): x'(1 - QQ') H (1 - QQ') x
    G -= Q @ (Q.T @ G)
    # Hutchinson: x'Hx has the mean tr H, for <x x'> = 1
    each = (G * (H @ G)).sum(0)
    found = mean_of_samples(each, H.n_products, exact)
    size = float(np.abs(each).max())
    # of an H that Q holds entirely no more than rounding is left, if that
    held = Q.shape[1] > 0 and size <= ROUNDING * abs(exact)
    if 2 <= len(each) < ALIKE and np.ptp(each) <= ROUNDING * size and not held:
        alike = (
            f"{len(each)} probes are alike, by chance or because H is diagonal: use at least"
            f" {ALIKE}, or as many as there are weights"
        )
        return replace(found, stderr=math.nan, df=math.nan, unknown=(alike,))
    return found


def _dominant(H: HessianOperator, probes: int, rng: np.random.Generator) -> tuple[Array, float]:
    """Q (n, r) and tr Q'HQ, for an r that leaves about the smallest variance: see `trace`.

    |(1 - QQ')H|^2 is the mean of |(1 - QQ')Hx|^2, each x with a Q of the others: 1/|row of R^-1|^2,
    of the factor R of all Hx.
    """
    n, width = H.shape[0], max(1, probes // 30)
    HX, Q, HQ, best, failed = np.zeros((n, 0)), np.zeros((n, 0)), np.zeros((n, 0)), np.inf, 0
    while failed < 2 and probes - H.n_products - 2 * width >= 2 and Q.shape[1] + width <= n:
        # width further directions in which H is large, and then H of them: 2 width products
        new = H @ rng.choice([-1.0, 1.0], (n, width))
        HX = np.hstack([HX, new])
        # the mean of |Hx|^2 is |H|^2; variances are compared, so that the factor 2 of all does not
        # count
        best = min(best, float((HX**2).sum()) / HX.shape[1] / probes)  # without Q
        for _ in range(2):  # twice is enough
            new = new - Q @ (Q.T @ new)
        new = np.linalg.qr(new)[0]
        Q, HQ = np.hstack([Q, new]), np.hstack([HQ, H @ new])
        # 1/|row j of R^-1| is the distance of Hx_j from the span of the other Hx: Q without x_j
        # itself
        R = np.linalg.qr(HX, mode="r")
        if np.abs(np.diag(R)).min() <= ROUNDING * np.abs(R).max():
            break  # Q holds all of H
        rest = float((1 / (np.linalg.inv(R) ** 2).sum(1)).mean())
        # |(1 - QQ')H|^2 = |(1 - QQ')H(1 - QQ')|^2 + |(1 - QQ')HQ|^2; not below half, as rest is
        # noisy
        # |(1 - QQ')H(1 - QQ')|^2
        both = max(rest - float(((HQ - Q @ (Q.T @ HQ)) ** 2).sum()), rest / 2)
        # what is left of the products goes to probes of the rest
        variance = both / (probes - H.n_products)
        # one step may fail by chance, two in a row say that a larger Q no longer pays
        failed = failed + 1 if variance >= best else 0
        best = min(best, variance)
    return Q, float((Q * HQ).sum())


def diagonal(
    objective: Objective,
    w: Array,
    probes: int | None = None,
    seed: int = 0,
    layers: Sequence[int] | None = None,
) -> Estimated:
    """diag H.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    probes : int, optional
        Random sign vectors x; left out, the diagonal is exact, from n products.
    seed : int
    layers : sequence of int, optional
        Numbers of layers, from 1, whose block of H is meant: n is then the number of their weights.

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
    objective, w = in_layers(objective, w, layers)
    n, H = objective.n_weights, HessianOperator(objective, w)
    if probes is None:
        exact = np.empty(n)
        for columns, block in objective.hessian_columns(w):
            # of H[:, columns] the entries on the diagonal
            exact[columns] = block[
                np.arange(columns.start, columns.stop), np.arange(columns.stop - columns.start)
            ]
        return Estimated(exact, np.zeros(n), n)
    integer("probes", probes, 1)
    x = np.random.Generator(np.random.Philox(seed)).choice([-1.0, 1.0], (n, probes))
    # x_i (Hx)_i = H_ii + sum_{j != i} H_ij x_i x_j, whose last term has mean 0
    each = x * (H @ x)
    return mean_of_samples(each, H.n_products)
