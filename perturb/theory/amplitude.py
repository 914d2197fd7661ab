"""The amplitude of a perturbation: what lies beyond the quadratic, against noise and curvature."""

import math
from dataclasses import dataclass

import numpy as np

from perturb.checks import as_weights
from perturb.errors import choose
from perturb.estimation.design import check_pair, check_trials
from perturb.networks.objective import Objective
from perturb.theory.estimates import predict
from perturb.theory.quadratic import EXACT_CURVATURE, Curvature, curvature
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method

Array = np.ndarray
SMALLEST, LARGEST = 1e-8, 10.0  # amplitudes among which the best is sought
VARIANCE_POWERS = np.array([-4, -2, 0, 2])


@dataclass(frozen=True)
class HigherOrderTerms:
    """Third and fourth derivatives of E at w, as far as they bias an estimate along v.

    Attributes
    ----------
    beta_g : array of shape (probes, n)
        Samples whose mean is (1/2) sum_j T_ijj = (1/2) d tr H/dw_i.
    beta_z : array of shape (probes, n)
        Samples whose mean is (1/2) sum_jl Q_ijjl v_l.
    Tvv : array of shape (n,)
        sum_jl T_ijl v_j v_l.
    Qvvv : array of shape (n,)
        sum_jlm Q_ijlm v_j v_l v_m.

    Notes
    -----
    T = d^3 E, Q = d^4 E.
    """

    beta_g: Array
    beta_z: Array
    Tvv: Array
    Qvvv: Array

    def bias(self, method: Method, sigma: float, r: float) -> tuple[Array, Array]:
        """The bias of g and of z, to leading order in sigma and r.

        Parameters
        ----------
        method : Method
        sigma : float
            The rms perturbation, in units of the weights.
        r : float
            The displacement of w along v, of a method that has one.

        Returns
        -------
        tuple of two arrays of shape (probes, n)
            Samples whose means are the bias of g and of z; NaN for a z not estimated.

        Notes
        -----
        With m_pq = sum of the method's weights times a^p b^q over its phases:
          g    sigma^2 m_30 beta_g + m_12 (r^2/2) Tvv
          z    difference: sigma^2 m_31 beta_z + m_12 (r/2) Tvv + m_13 (r^2/6) Qvvv;
               on s dw: sigma^2 m_40 beta_z

        From E over D of the Taylor series of dE times D_i/sigma^2 (for s dw: Stein's identity);
        exact for a code of kurtosis 3, for others but for one term in n, (k-3)/6 sigma^2 T_iii. Not
        for one weight at a time.
        """
        # Taylor's term D^p (r v)^q/(p! q!) has the factor m_pq; T(D,D,D) D_i/(6 sigma^2) has the
        # mean sigma^2 beta_g
        g = (
            sigma**2 * method.moment("gradient", 3, 0) * self.beta_g
            + method.moment("gradient", 1, 2) * r**2 / 2 * self.Tvv
        )
        if not method.estimates_hv:
            return g, np.full_like(g, np.nan)
        if method.regressor != "dw":
            return g, sigma**2 * method.moment("hv", 4, 0) * self.beta_z
        z = (
            sigma**2 * method.moment("hv", 3, 1) * self.beta_z
            + method.moment("hv", 1, 2) * r / 2 * self.Tvv
        )
        return g, z + method.moment("hv", 1, 3) * r**2 / 6 * self.Qvvv


def higher_order_terms(
    objective: Objective, w: Array, v: Array, probes: int = 32
) -> HigherOrderTerms:
    """The `HigherOrderTerms` of an objective at w and v.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    v : array of shape (n,)
    probes : int
        Vectors of random signs.

    Returns
    -------
    HigherOrderTerms

    Notes
    -----
    From second differences of exact g and Hv along v and along random signs. Cost: 2 products a
    probe.
    """
    n = objective.n_weights
    w, v = as_weights("w", w, n), as_weights("v", v, n)
    # truncation step^2 (fifth and sixth derivatives) against rounding eps/step^2 = 1e-10
    step = 1e-3 * max(1.0, float(np.abs(w).max()))
    rng = np.random.Generator(np.random.Philox(1))
    _, g, z = objective.error_gradient_hvp(w, v)

    def second_difference(x: Array) -> tuple[Array, Array]:
        (_, g1, z1), (_, g2, z2) = (
            objective.error_gradient_hvp(w + sign * x, v) for sign in (1, -1)
        )
        # T(x, x) of g, Q(x, x, v) of Hv, to order |x|^4
        return g1 + g2 - 2 * g, z1 + z2 - 2 * z

    # <x_j x_l> = delta_jl: the mean is the trace over two indices, as in Hutchinson's
    sampled = [second_difference(step * rng.choice([-1.0, 1.0], n)) for _ in range(probes)]
    beta_g, beta_z = (np.array(column) / (2 * step**2) for column in zip(*sampled, strict=True))
    # along v/|v|, and then times |v|^2: the step does not depend on the length of v
    square = float(v @ v)
    Tvv, Qvvv = (
        second_difference(step * v / square**0.5) if square > 0 else (np.zeros(n), np.zeros(n))
    )
    return HigherOrderTerms(beta_g, beta_z, Tvv * square / step**2, Qvvv * square / step**2)


def truncation(
    objective: Objective,
    w: Array,
    v: Array,
    method: str | Method = "difference",
    sigma: float = 1e-2,
    r: float = 1e-2,
    known: HigherOrderTerms | None = None,
) -> tuple[float, float]:
    """The size |bias| of g and of z that what lies beyond the quadratic brings.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    v : array of shape (n,)
    method : str or Method
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.
    known : HigherOrderTerms, optional
        What `higher_order_terms` gave before.

    Returns
    -------
    tuple of two floats
        Of g and of z, in their units; NaN for a z not estimated.

    Raises
    ------
    InputError
        For an unknown method.

    Notes
    -----
    To leading order, see `HigherOrderTerms.bias`. Add it (in squares) to `predict`'s errors where
    sigma and r, and no longer chance, decide them. Carries the error of 32 random probes.

    Examples
    --------
    A quadratic E has no bias:

    >>> import perturb
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[0.0]])
    >>> g, z = perturb.truncation(objective, [0.5, 0.0], [1.0, 1.0])
    >>> round(g, 6), round(z, 6)
    (0.0, 0.0)
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    known = higher_order_terms(objective, w, v) if known is None else known
    g, z = (_square(samples) ** 0.5 for samples in known.bias(method, sigma, r))
    return g, z


def _square(samples: Array) -> float:
    # |mean|^2 from independent halves, so that their chance errors do not add up
    product = float(samples[::2].mean(0) @ samples[1::2].mean(0))
    return product if math.isnan(product) else max(product, 0.0)


def best_sigma(
    objective: Objective,
    w: Array,
    v: Array,
    method: str | Method = "difference",
    code: str | Code = "walsh",
    trials: int = 4096,
    r: float = 1e-2,
    error_noise: float = 0.0,
    known: list[Curvature] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """The amplitudes sigma that make the expected squared errors of g and of z smallest.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    v : array of shape (n,)
    method : str or Method
    code : str or Code
    trials : int
        K, over which the estimate is made.
    r : float
        The displacement of w along v, of a method that has one.
    error_noise : float
        Standard deviation of the noise of one evaluation, in units of E.
    known : list of Curvature, optional
        What `theory.curvature` gave before.
    seed : int
        As in `predict`.

    Returns
    -------
    tuple of two floats
        For g and for z, in units of the weights; NaN for a z not estimated.

    Raises
    ------
    InputError
        For an unknown method or code, or a pair that does not go together.

    Notes
    -----
    Minimised is |bias|^2 + variance(sigma)/K over 10^-8 <= sigma <= 10, with `predict`'s variance
    after K = trials and bias, plus that of `HigherOrderTerms.bias`, sigma^2 beta in the main. Where
    one term of each kind rules: one-sided g, B sigma^2 of curvature against N/sigma^2 of noise,
    sigma^4 = N/B; a pair, or an integer number of double periods, N/(K sigma^2) of noise against
    sigma^4 |beta|^2, sigma^6 = N/(2 K |beta|^2). Rounding of E counts as noise of eps |E|. All of
    it holds for sigma and r small against the scale on which curvature changes.

    Examples
    --------
    More noise wants a larger perturbation:

    >>> import perturb
    >>> network = perturb.MLP([1, 2, 1])
    >>> objective, w = network.objective([[0.5], [1.0]], [[1.0], [0.0]]), network.init(0)
    >>> quiet, _ = perturb.best_sigma(objective, w, w, error_noise=1e-6)
    >>> noisy, _ = perturb.best_sigma(objective, w, w, error_noise=1e-3)
    >>> bool(quiet < noisy)
    True
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    check_pair(method, code)
    trials = check_trials(0, trials)
    # rounding of E is a noise that no chip has
    error_noise = math.hypot(error_noise, float(np.finfo(float).eps) * objective.error(w))
    # only sums over the weights count, which few probes tell
    many = objective.n_weights > EXACT_CURVATURE
    known = [curvature(objective, w, v, 32 if many else None)] if known is None else known
    higher = higher_order_terms(objective, w, v, 8 if many else 32)
    # of sigma^-4, sigma^-2, 1 and sigma^2 the variance consists, and of sigma^-2 and 1 the bias on
    # a quadratic: a few values tell
    sampled = np.geomspace(SMALLEST, LARGEST, 7)
    predictions = [
        predict(objective, w, v, method, code, sigma, r, error_noise, known=known, seed=seed)
        for sigma in sampled
    ]
    # bias(sigma) = fixed + sigma^2 (growing - fixed)
    fixed, growing = higher.bias(method, 0.0, r), higher.bias(method, 1.0, r)
    found = []
    for index, quantity in enumerate(("gradient", "hv")):
        parts = [getattr(prediction, quantity) for prediction in predictions]
        variance = np.array([part.total_variance(trials) for part in parts])
        if not np.isfinite(variance).all():
            found.append(math.nan)
            continue
        # bias on a quadratic, a + b/sigma^2, at the smallest and the largest sigma: b, then a
        off = [part.expected(trials) - part.exact for part in (parts[0], parts[-1])]
        shrinking = (off[0] - off[1]) * SMALLEST**2  # times sigma^-2
        rest = fixed[index] + off[1] - shrinking / LARGEST**2
        # factors of sigma^2, 1, sigma^-2 in the bias, from either half of the probes
        halves = np.array(
            [
                [np.mean(x[h::2], axis=0) for x in (growing[index] - fixed[index], rest)]
                + [shrinking]
                for h in (0, 1)
            ]
        )
        products = halves[0] @ halves[1].T  # as in `_square`, of sigma^2, 1 and sigma^-2
        found.append(_least(products, _terms(sampled, variance)))
    return found[0], found[1]


def _terms(sigma: Array, variance: Array) -> Array:
    """The factors, none negative, of sigma^-4, sigma^-2, 1 and sigma^2 in values of a variance."""
    from scipy.optimize import nnls  # late: much to load, and not for every run

    # variance(sigma) = terms . powers: each value fitted to the same relative precision
    powers = sigma[:, None] ** VARIANCE_POWERS.astype(float)
    if not variance.any():
        return np.zeros(len(VARIANCE_POWERS))
    scaled = powers / np.where(variance > 0, variance, variance.max())[:, None]
    size = scaled.max(0)
    return nnls(scaled / size, (variance > 0).astype(float))[0] / size


def _least(products: Array, terms: Array) -> float:
    """Where bias^2 + variance is least, between the smallest and the largest sigma."""
    from scipy.optimize import minimize_scalar  # late: much to load, and not for every run

    def wrong(log_sigma: Array | float) -> Array:
        # bias^2 = x' products x, x = (sigma^2, 1, sigma^-2)
        square = np.exp(2.0 * np.asarray(log_sigma))
        x = np.stack([square, np.ones_like(square), 1 / square])
        bias = np.einsum("i...,ij,j...->...", x, products, x)
        return np.maximum(bias, 0.0) + np.tensordot(
            terms, np.exp(np.multiply.outer(VARIANCE_POWERS, np.asarray(log_sigma))), 1
        )

    # the sum may have more than one minimum: the best of a grid, then Brent's method beside it
    grid = np.linspace(math.log(SMALLEST), math.log(LARGEST), 121)
    best = int(np.argmin(wrong(grid)))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return math.exp(
        minimize_scalar(
            lambda x: float(wrong(x)), bounds=(low, high), method="bounded", options={"xatol": 1e-9}
        ).x
    )
