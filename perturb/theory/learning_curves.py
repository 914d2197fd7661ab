"""What theory says of LEARNING by weight perturbation: learning curves, limits of the learning
rate, what imperfections cost.

An update is w := w - eta G, G the mean over K trials of dE D/sigma^2, for a quadratic E = (w - w*)'
H (w - w*)/2; u = w - w*. One trial measures dE = E(w + D) - E(w), or as a pair [E(w + D) - E(w -
D)]/2. `error_noise` sE is the standard deviation of a one-sided dE where E(w) is known (sqrt(2)
times it where E(w) is measured anew for every trial), of one evaluation in a pair. Codes are
independent between trials, components of kurtosis k and sixth moment m; or periodic, over whole
periods. H is a symmetric matrix (n, n), or its diagonal (n,), off which it is zero; for a Gaussian
code its eigenvalues do as well.
"""

import math

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigs, gmres

from perturb.checks import as_weights, below_one, integer, positive
from perturb.theory.perceptron import Recursion as Recursion
from perturb.theory.perceptron import perceptron_curve as perceptron_curve
from perturb.theory.perceptron import perceptron_rates as perceptron_rates
from perturb.theory.perceptron import perceptron_sigma as perceptron_sigma
from perturb.theory.second_moments import SecondMoments, check_positive, second_moments
from perturb.trial.code import Code

Array = np.ndarray


def quadratic_curve(
    H: Array,
    w0: Array,
    w_star: Array,
    eta: float,
    sigma: float = 1e-2,
    trials_per_update: int = 1,
    code: str | Code = "gaussian",
    error_noise: float = 0.0,
    updates: int = 100,
    pair: bool = False,
    momentum: float = 0.0,
    gains: Array | None = None,
) -> Array:
    """Expected error of a quadratic E, above that of w*, after every update.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric; or its diagonal, off which it is zero; for a Gaussian code its eigenvalues do as
        well.
    w0, w_star : array of shape (n,)
        Where learning starts, and the minimum.
    eta : float
        Learning rate.
    sigma : float
        The rms perturbation, in units of the weights.
    trials_per_update : int
        K, over which G is the mean.
    code : str or Code
    error_noise : float
        sE, in units of E: standard deviation of a one-sided dE where E(w) is known (sqrt(2) times
        it where E(w) is measured anew for every trial), of one evaluation in a pair.
    updates : int
    pair : bool
        Whether dE is [E(w + D) - E(w - D)]/2 rather than one-sided.
    momentum : float
        mu, in [0, 1).
    gains : array of shape (n,), optional
        P_i of each weight's update, w_i := w_i - eta P_i G_i.

    Returns
    -------
    array of shape (updates + 1,)
        Infinite on overflow.

    Raises
    ------
    InputError
        For arrays that do not fit, a number out of its range, or a periodic code whose period the
        trials of an update do not cover.

    Notes
    -----
    E_t = tr(H C_t)/2 with C = E uu', u = w - w* (the square of the mean included), exact for every
    symmetric H, positive or not:

        C' = C - eta (HC + CH) + eta^2 E GG'
        E GG' = (1 + 1/K) HCH + (1/K)[tr(HCH) I + (k-3) diag(HCH)] + (1/K)(sE^2/sigma^2) I
                + (sigma^2/K) S

    with S_ij = E (x'Hx/2)^2 x_i x_j, x = D/sigma; for a Gaussian code S = [((tr H)^2 + 2 tr H^2) I
    + 4 tr(H) H + 8 H^2]/4, in general, with O = H off its diagonal,

        S_ii = (k-1) |diag H|^2/4 + |O|^2/2 + (tr H)^2/4 + (m-3k+2) H_ii^2/4
               + (k-1) [sum_j O_ij^2 + H_ii tr H/2]
        S_ij = O_ij [tr H + (k-1) (H_ii + H_jj)] + 2 (O^2)_ij

    Pairs: without S and with half the noise. Momentum: p := mu p - eta G, w := w + p, p_0 = 0.
    Perturbations known with the relative error e only: (e^2/K) (E dE^2/sigma^2) I more. Periodic
    codes: whole periods (double ones unless pairs), then E GG' = HCH and the noise. Cost: O(n) an
    update for k = 3 or a diagonal H, else O(n^3).

    References
    ----------
    Isserlis, On a formula for the product-moment coefficient, Biometrika 12 (1918) 134-139. Polyak,
    Some methods of speeding up the convergence of iteration methods, USSR Comp. Math. 4 (1964)
    1-17.

    Examples
    --------
    >>> import numpy as np
    >>> from perturb.theory.learning_curves import quadratic_curve
    >>> E = quadratic_curve([1.0], [1.0], [0.0], eta=0.1, code="rademacher", updates=2, pair=True)
    >>> E.round(6)
    array([0.5    , 0.405  , 0.32805])
    """
    eta, mu = positive("eta", eta), below_one("momentum", momentum)
    G = second_moments(H, code, trials_per_update, gains, sigma, error_noise, pair)
    n, row, col = G.lam.size, G.rows, G.lam
    a = G.start(as_weights("w0", w0, n) - as_weights("w_star", w_star, n))
    b = c = np.zeros_like(a)  # E ss', E sp', E pp'
    E = np.full(integer("updates", updates, 0) + 1, np.inf)
    E[0] = G.error(a)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(1, len(E)):
            # E s p'_{t+1} = mu E s p' - eta E s s' H
            x = mu * b - eta * a * col
            # in the eigenbasis H is l_i: HCH_ij = l_i C_ij l_j
            HCH = row * a * col
            GG = HCH + G.noise(HCH) + G.rest
            # E p p' of p := mu p - eta G, with E G p' = H E s p'
            c = mu**2 * c - mu * eta * (row * b + b.T * col) + eta**2 * (GG + GG.T) / 2
            # s := s + p
            a, b = a + (x + x.T) + c, x + c  # what rounding makes unsymmetric would grow
            if not np.isfinite(after := G.error(a)):
                break
            E[t] = after
    return E


def quadratic_floor(
    H: Array,
    eta: float,
    sigma: float = 1e-2,
    trials_per_update: int = 1,
    code: str | Code = "gaussian",
    error_noise: float = 0.0,
    pair: bool = False,
    momentum: float = 0.0,
    gains: Array | None = None,
) -> float:
    """What `quadratic_curve` tends to, for a positive semi-definite H.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric; or its diagonal, off which it is zero; for a Gaussian code its eigenvalues do as
        well.
    eta : float
        Learning rate.
    sigma : float
        The rms perturbation, in units of the weights.
    trials_per_update : int
        K, over which G is the mean.
    code : str or Code
    error_noise : float
        sE, in units of E: standard deviation of a one-sided dE where E(w) is known (sqrt(2) times
        it where E(w) is measured anew for every trial), of one evaluation in a pair.
    pair : bool
        Whether dE is [E(w + D) - E(w - D)]/2 rather than one-sided.
    momentum : float
        mu, in [0, 1).
    gains : array of shape (n,), optional
        P_i of each weight's update, w_i := w_i - eta P_i G_i.

    Returns
    -------
    float
        Infinite at `stability_limit` and above.

    Raises
    ------
    InputError
        As `quadratic_curve`, and for an H with a negative eigenvalue.

    Notes
    -----
    From the stationary covariance: with lambda = 2 (1-mu)/eta, in the eigenbasis, element by
    element, C_ij [lambda (l_i + l_j)/2 + R_ij] = cov(G)_ij, R_ij = [mu (l_i^2 + l_j^2) - (1 + mu^2)
    l_i l_j]/(1 - mu^2), cov(G) = E GG' - HCH. To first order in eta it is eta/(1-mu) tr(cov(G) at
    w*)/4. Directions with l_i below 1e-12 l_max are taken as flat: weights diffuse there for ever,
    at no cost. Slow ones reach their share after 1/(eta l_i) updates only.

    Examples
    --------
    Without noise a pair leaves nothing:

    >>> from perturb.theory.learning_curves import quadratic_floor
    >>> quadratic_floor([1.0, 2.0], eta=0.1, pair=True)
    0.0
    """
    eta, mu = positive("eta", eta), below_one("momentum", momentum)
    G = second_moments(H, code, trials_per_update, gains, sigma, error_noise, pair)
    check_positive(G.lam)
    # above it the second moments grow without bound, though a fixed point exists
    if eta >= _limit(G, mu):
        return math.inf
    to_Y, R, steep = G.stationary(mu)
    # X = [noise(Y(X)) + rest]/(lambda + R), linear in X
    inverse = steep / (2 * (1 - mu) / eta + R)
    operator = LinearOperator(
        2 * (R.size,),
        lambda x: x - (inverse * G.noise(to_Y * x.reshape(R.shape))).ravel(),
        dtype=float,
    )
    # an n x n matrix is the unknown: never the n^2 x n^2 matrix of the map
    X, _ = gmres(
        operator, (inverse * G.rest).ravel(), rtol=1e-12, restart=min(R.size, 100), maxiter=100
    )
    return float((X if G.vectors else X.reshape(R.shape).diagonal()).sum()) / 2


def stability_limit(
    H: Array,
    code: str | Code = "gaussian",
    trials_per_update: int = 1,
    momentum: float = 0.0,
    gains: Array | None = None,
) -> float:
    """The learning rate at which the mean-square error of a quadratic E ceases to be stable.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric and positive semi-definite; or its diagonal, off which it is zero; for a Gaussian
        code its eigenvalues do as well.
    code : str or Code
    trials_per_update : int
        K.
    momentum : float
        mu, in [0, 1).
    gains : array of shape (n,), optional
        P_i of each weight's update.

    Returns
    -------
    float
        The same for pairs; infinite for H = 0.

    Raises
    ------
    InputError
        For an H with a negative eigenvalue, a number out of its range, or a periodic code whose
        period the trials of an update do not cover.

    Notes
    -----
    eta = 2 (1-mu)/lambda, with l the eigenvalues of H and lambda the largest root of

        sum_i (l_i/K)/(lambda - c l_i) = 1,     c = (1-mu)/(1+mu) + (k-2)/K

    for one Gaussian trial sum_i eta l_i/(2 (1 - eta l_i)) < 1 (of the LMS rule), for one Rademacher
    trial and H diagonal eta < 2/tr H. Exact for k = 3, and for any code where H is diagonal in the
    weights. For c >= 0 lambda lies between max(tr H/K, c l_max) and their sum: for few trials it is
    tr H, not l_max, that counts; for many of them, or whole periods of an orthogonal code, eta =
    2 (1+mu)/l_max. With gains, l are those of P^1/2 H P^1/2, so tr(PH), exact for H diagonal. For k
    != 3 and any H, or unequal gains, lambda is the largest for which the equation of
    `quadratic_floor` is singular, found by Arnoldi's method: the map of covariances, which keeps
    them positive, then has the eigenvalue 1.

    References
    ----------
    Horowitz and Senne, Performance advantage of complex LMS, IEEE Trans. ASSP 29 (1981) 722-736.
    Feuer and Weinstein, Convergence analysis of LMS filters, IEEE Trans. ASSP 33 (1985) 222-230.

    Examples
    --------
    >>> from perturb.theory.learning_curves import stability_limit
    >>> round(stability_limit([1.0, 3.0], code="rademacher"), 6)
    0.5
    """
    G = second_moments(H, code, trials_per_update, gains)
    check_positive(G.lam)
    return _limit(G, below_one("momentum", momentum))


def _limit(G: SecondMoments, mu: float) -> float:
    # negative eigenvalues here are rounding, see `check_positive`
    lam = np.maximum(G.lam, 0.0)
    top, base, t = float(lam.max()), (1 - mu) / (1 + mu), (1 + G.blur) * G.share
    if top == 0:
        return math.inf
    # nothing of the other weights is left, as of exact gradients: 2 (1 + mu)/l_max
    if not G.share:
        return 2 * (1 - mu) / (base * top)
    if G.vectors:
        from scipy.optimize import brentq  # late: much to load, and not for every run

        # lambda - c l = x + c (l_max - l) with x = lambda - c l_max: no difference of like numbers
        c = base + G.share * (G.kurtosis - 2)
        # at x = t l_max the term of l_max alone is 1; at t tr H (c >= 0) the sum is 1 at most
        low, high = t * top, t * lam.sum() + max(-c, 0.0) * top
        # the sum falls from above 1 to below it between the two: one root
        x = brentq(
            lambda x: (t * lam / (x + c * (top - lam))).sum() - 1,
            low * (1 - 1e-9),
            high * (1 + 1e-9),
            xtol=1e-14 * high,
        )
        return 2 * (1 - mu) / (x + c * top)
    to_Y, R, _ = G.stationary(mu)
    operator = LinearOperator(
        2 * (R.size,),
        lambda x: (G.noise(to_Y * x.reshape(R.shape)) - R * x.reshape(R.shape)).ravel(),
        dtype=float,
    )
    # singular where lambda X = noise(Y(X)) - R X: the largest such lambda, whose X is a covariance
    rightmost = eigs(
        operator, k=1, which="LR", v0=np.eye(len(lam)).ravel(), return_eigenvectors=False
    )[0].real
    return 2 * (1 - mu) / float(rightmost)


def averaging_gain(H: Array, trials_per_update: int, code: str | Code = "gaussian") -> float:
    """How much larger a learning rate K trials per update allow than one does.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        As in `quadratic_curve`, positive semi-definite.
    trials_per_update : int
        K.
    code : str or Code

    Returns
    -------
    float
        `stability_limit` of K over that of 1.

    Notes
    -----
    At most K; for k <= 3 at least tr H/(tr H/K + (1 + 1/K) l_max), as the bounds on lambda in
    `stability_limit` say. So averaging pays up to a K of about tr H/l_max, where half or more of
    all that it can bring is reached: a rate of 2/l_max instead of about 2/tr H.

    Examples
    --------
    >>> from perturb.theory.learning_curves import averaging_gain
    >>> round(averaging_gain([1.0] * 100, 1000, "rademacher"), 1)
    91.0
    """
    return stability_limit(H, code, trials_per_update) / stability_limit(H, code)


def greedy_rate(
    H: Array,
    w: Array,
    w_star: Array,
    sigma: float = 1e-2,
    trials_per_update: int = 1,
    code: str | Code = "gaussian",
    error_noise: float = 0.0,
    pair: bool = False,
) -> float:
    """The learning rate that lowers the expected E of a quadratic most in the next update.

    Parameters
    ----------
    H : array of shape (n, n) or (n,)
        Symmetric; or its diagonal, off which it is zero; for a Gaussian code its eigenvalues do as
        well.
    w, w_star : array of shape (n,)
        Where the weights are, and the minimum.
    sigma : float
        The rms perturbation, in units of the weights.
    trials_per_update : int
        K, over which G is the mean.
    code : str or Code
    error_noise : float
        sE, in units of E: standard deviation of a one-sided dE where E(w) is known (sqrt(2) times
        it where E(w) is measured anew for every trial), of one evaluation in a pair.
    pair : bool
        Whether dE is [E(w + D) - E(w - D)]/2 rather than one-sided.

    Returns
    -------
    float
        g.g/tr(H E GG') at w; 0 at w*.

    Raises
    ------
    InputError
        As `quadratic_floor`.

    Notes
    -----
    From E' = E - eta g.g + eta^2 tr(H E GG')/2, E GG' as in `quadratic_curve`.

    Examples
    --------
    >>> from perturb.theory.learning_curves import greedy_rate
    >>> greedy_rate([1.0], [1.0], [0.0], code="rademacher", pair=True)
    1.0
    """
    G = second_moments(H, code, trials_per_update, None, sigma, error_noise, pair)
    check_positive(G.lam)
    Z = G.start(as_weights("w", w, G.lam.size) - as_weights("w_star", w_star, G.lam.size))
    # tr(HCH) = g.g
    HCH = G.rows * Z * G.lam
    # d/deta of E - eta g.g + eta^2 tr(H E GG')/2 is 0 here; E(M) of `error` is tr(HM)/2
    square = float((HCH if G.vectors else HCH.diagonal()).sum())
    return square / (2 * G.error(HCH + G.noise(HCH) + G.rest)) if square > 0 else 0.0


def momentum_limit(l_max: float, momentum: float) -> float:
    """The largest stable learning rate with exact gradients and heavy-ball momentum.

    Parameters
    ----------
    l_max : float
        The largest eigenvalue of H.
    momentum : float
        mu, in [0, 1).

    Returns
    -------
    float
        2 (1 + mu)/l_max.

    Raises
    ------
    InputError
        For a number out of its range.

    Notes
    -----
    z^2 - (1 + mu - eta l) z + mu has both roots inside the unit circle. So have the mean dynamics
    of perturbed updates; the mean square is stable up to `stability_limit` only, about (1-mu) 2/tr
    H: momentum lowers that one.

    References
    ----------
    Polyak, Some methods of speeding up the convergence of iteration methods, USSR Comp. Math. 4
    (1964) 1-17.

    Examples
    --------
    >>> from perturb.theory.learning_curves import momentum_limit
    >>> momentum_limit(2.0, 0.5)
    1.5
    """
    return 2 * (1 + below_one("momentum", momentum)) / positive("l_max", l_max)


def delay_limit(l_max: float, delay: int) -> float:
    """The largest rate that is stable in the mean, if updates come late.

    Parameters
    ----------
    l_max : float
        The largest eigenvalue of H.
    delay : int
        d, trials by which they come late, each with its own D.

    Returns
    -------
    float
        2 sin(pi/(2 (2d+1)))/l_max.

    Raises
    ------
    InputError
        For a number out of its range.

    Notes
    -----
    u_{t+1} = u_t - eta l u_{t-d}: a root of z^{d+1} - z^d + eta l leaves the unit circle there. A
    condition on the mean alone; the mean square needs less than `stability_limit` besides.

    References
    ----------
    Levin and May, A note on difference-delay equations, Theor. Pop. Biol. 9 (1976) 178-187.

    Examples
    --------
    >>> from perturb.theory.learning_curves import delay_limit
    >>> delay_limit(2.0, 0), round(delay_limit(2.0, 1), 6)
    (1.0, 0.5)
    """
    return (
        2
        * math.sin(math.pi / (2 * (2 * integer("delay", delay, 0) + 1)))
        / positive("l_max", l_max)
    )
