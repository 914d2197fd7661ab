"""What theory predicts of an estimate before it is run: limit, variance, cosine, trials and evaluations needed.

Everything is for a quadratic E with the g, H, z of the objective at w, and a code of independent symmetric components with
kurtosis k and sixth moment m (in units of sigma). D below is in units of sigma. Terms of third and higher derivatives
(bias O(sigma^2), O(r^2)) are left out. Formulas: `limit` and `_trial_variance`.
"""

import math
from dataclasses import dataclass

import numpy as np

from perturb.codes import CODES, Code
from perturb.errors import InputError, choose
from perturb.methods import METHODS, Method
from perturb.objective import Objective, as_weights

Array = np.ndarray
EXACT_CURVATURE = 4096  # weights; above, the sums over H come from random probes
PROBES = 256


@dataclass(frozen=True)
class Curvature:
    """g, z and the few sums over H that limits and variances need, for one objective at one w and v.

    diagonal: H_jj; trace; off_square: sum_{j != l} H_jl^2; off_rows: its rows. Exact up to 4,096 weights, else estimated with
    256 random sign vectors (the smaller terms then carry a few per cent of error).
    """

    g: Array
    z: Array
    v: Array
    diagonal: Array
    off_rows: Array

    @property
    def V(self) -> float:
        return float(self.v @ self.v)

    @property
    def trace(self) -> float:
        return float(self.diagonal.sum())

    @property
    def off_square(self) -> float:
        return float(self.off_rows.sum())


def curvature(objective: Objective, w: Array, v: Array, probes: int | None = None) -> Curvature:
    """The `Curvature` of an objective at w, v. Cost: one Hv per weight, or `probes` of them (None: by the number of weights)."""
    n = objective.n_weights
    w, v = as_weights("w", w, n), as_weights("v", v, n)
    _, g, z = objective.error_gradient_hvp(w, v)
    diagonal, rows = np.zeros(n), np.zeros(n)
    if probes is None and n <= EXACT_CURVATURE:
        for columns, H in objective.hessian_columns(w):
            index = np.arange(columns.start, columns.stop)
            diagonal[columns] = H[index, np.arange(index.size)]
            rows[columns] = (H * H).sum(0)
        rows -= diagonal**2
    else:
        probes = PROBES if probes is None else probes
        rng = np.random.Generator(np.random.Philox(0))
        for _ in range(0, probes, 16):
            x = rng.choice([-1.0, 1.0], (n, 16))
            Hx = objective.hvp(w, x)
            diagonal += (x * Hx).mean(1) * 16 / probes
            rows += (Hx * Hx).mean(1) * 16 / probes
        rows = np.maximum(rows - diagonal**2, 0.0)
    return Curvature(g, z, v, diagonal, rows)


def limit(method: Method, code: Code, c: Curvature) -> Array:
    """What the method's z tends to with infinitely many trials, shape (n,).

    difference: z. covariance, antithetic: z_i + (k-3)/2 H_ii v_i. Joint least squares, with
    B_i = (e_i v' + v e_i')/V - v_i v v'/V^2 and C(H,B) = (1/2)[tr(HB) + ((k-3)/2) sum_j H_jj B_jj]:
      without intercept  [C(H,B_i) + (v_i/2V)(tr H/2)] / [C(B_i,B_i) + (v_i/2V)^2]
      with intercept      C(H,B_i) / C(B_i,B_i)
    An orthogonal code with random signs has the moments of Rademacher. NaN where the denominator vanishes (an intercept, k = 1
    and one weight only: the regressor is then constant).
    """
    k, V, v, z, h = code.kurtosis, c.V, c.v, c.z, c.diagonal
    if method.regressor == "dw":
        return z.copy()
    if method.fit == "moments":
        return z + (k - 3) / 2 * h * v
    C_HB, C_BB = _joint_fit(method, code, c)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(C_BB > 1e-14 / V, C_HB / C_BB, np.nan)


def _joint_fit(method: Method, code: Code, c: Curvature) -> tuple[Array, Array]:
    # numerator and denominator of the limit of the joint least squares, in units of sigma^4
    k, V, v, z, h = code.kurtosis, c.V, c.v, c.z, c.diagonal
    B_ii = 2 * v / V - v**3 / V**2
    C_HB = 0.5 * (2 * z / V - v * (v @ z) / V**2 + (k - 3) / 2 * (2 * h * v / V - v * (h @ v**2) / V**2))
    C_BB = 0.5 * (2 / V - v**2 / V**2 + (k - 3) / 2 * (v**2 * ((v**4).sum() - v**4) / V**4 + B_ii**2))
    if not method.centred:
        C_HB = C_HB + v / (2 * V) * c.trace / 2
        C_BB = C_BB + (v / (2 * V)) ** 2
    return C_HB, C_BB


def _moments(c: Curvature, k: float, m: float) -> dict[str, float]:
    """Moments of s = v.D, l = g.D and q = (D'HD - tr H)/2 in units of sigma (s, l: sigma, q: sigma^2)."""
    h, v, V = c.diagonal / 2, c.v, c.V
    off = c.z - c.diagonal * v
    return {
        "ll": float(c.g @ c.g),
        "llss": float(c.g @ c.g) * V + 2 * float(c.g @ v) ** 2 + (k - 3) * float((c.g**2) @ (v**2)),
        "qq": (k - 1) * float(h @ h) + c.off_square / 2,
        "qss": float(v @ off) + (k - 1) * float(h @ v**2),
        "qqss": (k - 1) * V * float(h @ h)
        + (m - 3 * k + 2) * float((h**2) @ (v**2))
        + c.off_square / 2 * V
        + (k - 3) * float((v**2) @ c.off_rows)
        + 2 * float(off @ off)
        + 4 * (k - 1) * float((h * v) @ off),
    }


def _trial_variance(method: Method, code: Code, c: Curvature, sigma: float, r: float, noise: float) -> tuple[float, float]:
    """Variance of one trial, summed over the weights, of g and of z; `noise` is the variance of one evaluation.

    g: (n+k-2)|g|^2 + n noise/sigma^2, and for a one-sided dE also sigma^2 E q^2 |D|^2 = sigma^2 [n E q^2 + (m-3k+2) sum H_jj^2/4
      + (k-1) sum_{j != l} H_jl^2], plus sigma^2 (n/4 + (k-1)/2) (tr H)^2 where the mean of dE is left in.
    z, difference: (n+k-2)|z|^2 + n noise/(r sigma)^2. z, moments, with e = dE - mean: sum_i Var(e (s D_i - v_i))
      = (n+2k-4) E e^2 s^2 + V E e^2 - |limit|^2, exact for k = 1 and the linear part of a Gaussian, else leading in n.
    z, least squares: E e^2 s^2 sum_i 1/(V C(B_i,B_i))^2, leading in n. The noise in e counts the squares of the method's weights.
    """
    n, k, V = c.g.size, code.kurtosis, c.V
    M = _moments(c, k, code.sixth)
    noise_g = noise * sum(weight**2 for weight in method.gradient_weights)
    noise_z = noise * sum(weight**2 for weight in method.hv_weights)
    one_sided = method.gradient_weights == method.hv_weights
    mean = sigma**2 * c.trace / 2 * (one_sided and not method.centred)  # of dE, where it is left in

    var_g = (n + k - 2) * M["ll"] + n * noise_g / sigma**2
    if one_sided:
        var_g += sigma**2 * (n * M["qq"] + (code.sixth - 3 * k + 2) * float(c.diagonal @ c.diagonal) / 4 + (k - 1) * c.off_square)
        var_g += (n + 2 * (k - 1)) * mean**2 / sigma**2

    if method.regressor == "dw":
        return var_g, (n + k - 2) * float(c.z @ c.z) + n * noise_z / (r * sigma) ** 2
    linear = sigma**2 * one_sided
    e2 = linear * M["ll"] + sigma**4 * M["qq"] + noise_z + mean**2
    e2s2 = linear * M["llss"] + sigma**4 * M["qqss"] + noise_z * V + 2 * mean * sigma**2 * M["qss"] + mean**2 * V
    if method.fit == "moments":
        z_limit = limit(method, code, c)
        return var_g, ((n + 2 * k - 4) * e2s2 + V * e2) / sigma**4 - float(z_limit @ z_limit)
    _, C_BB = _joint_fit(method, code, c)
    with np.errstate(divide="ignore"):
        return var_g, e2s2 / sigma**4 * float((1 / (V * C_BB) ** 2).sum())


@dataclass(frozen=True)
class QuantityPrediction:
    """Of g or of z: its limit, the variance of one trial summed over weights, and what follows.

    limit_cosine: of the limit with the exact answer, the best that any number of trials reaches. Over whole periods of an
    orthogonal code only `periodic_variance` (noise) remains of the `variance`.
    """

    exact: Array
    limit: Array
    variance: float
    periodic_variance: float
    period: int
    evaluations_per_trial: int

    @property
    def limit_cosine(self) -> float:
        return _cosine(self.limit, self.exact)

    def total_variance(self, trials: int) -> float:
        """Summed variance of the estimate after so many trials (an incomplete period counts as random)."""
        return (self.periodic_variance if trials % self.period == 0 else self.variance) / trials

    def stderr(self, trials: int) -> float:
        """rms over the weights of the estimate's standard deviation."""
        return math.sqrt(self.total_variance(trials) / self.limit.size)

    def cosine(self, trials: int) -> float:
        """Expected cosine with the exact answer, L.z / (|z| sqrt(|L|^2 + variance))."""
        L = float(self.limit @ self.limit)
        return self.limit_cosine * math.sqrt(L / (L + self.total_variance(trials))) if L > 0 else 0.0

    def relative_error(self, trials: int) -> float:
        """Expected |estimate - exact| / |exact| (root of the mean square)."""
        bias = self.limit - self.exact
        size = float(self.exact @ self.exact)
        return math.sqrt((float(bias @ bias) + self.total_variance(trials)) / size) if size > 0 else math.nan

    def trials_for(self, cosine: float = 0.9) -> float:
        """Trials to an expected cosine, infinity if the limit itself falls short of it."""
        if not 0 < cosine < 1:
            raise InputError(f"cosine = {cosine} must lie between 0 and 1")
        if not self.limit_cosine > cosine:
            return math.inf
        allowed = float(self.limit @ self.limit) * ((self.limit_cosine / cosine) ** 2 - 1)
        random = math.ceil(max(self.variance / allowed, 1.0))
        periods = max(1, math.ceil(self.periodic_variance / allowed / self.period))
        return min(random, periods * self.period)

    def evaluations_for(self, cosine: float = 0.9) -> float:
        return self.trials_for(cosine) * self.evaluations_per_trial


@dataclass(frozen=True)
class Prediction:
    gradient: QuantityPrediction
    hv: QuantityPrediction


def _cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else math.nan


def predict(
    objective: Objective,
    w: Array,
    v: Array,
    method: str | Method = "difference",
    code: str | Code = "walsh",
    sigma: float = 1e-2,
    r: float = 1e-2,
    error_noise: float = 0.0,
    presentation: str = "batch",
    known: list[Curvature] | None = None,
) -> Prediction:
    """Limit, variance, expected cosine and error, trials and evaluations needed, of `estimate` with the same arguments.

    error_noise: standard deviation of one evaluation of E. With presentation = "pattern" the pattern is one more random number
    of each trial: its spread adds to the variance, and an orthogonal code loses its advantage. `known`: curvatures computed
    before by `curvatures` for the same objective, w, v and presentation, to save their cost.
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    known = curvatures(objective, w, v, presentation) if known is None else known
    n, noise = objective.n_weights, error_noise**2
    per_pattern = [_trial_variance(method, code, c, sigma, r, noise) for c in known]
    parts = []
    for index, (exacts, limits) in enumerate(
        (([c.g for c in known], [c.g for c in known]), ([c.z for c in known], [limit(method, code, c) for c in known]))
    ):
        mean = np.mean(limits, axis=0)
        spread = float(np.mean([L @ L for L in limits]) - mean @ mean)
        variance = float(np.mean([variances[index] for variances in per_pattern])) + max(spread, 0.0)
        # over whole periods only what is not linear in this trial's code remains
        periodic, period = variance, 1
        if code.orthogonal and len(known) == 1 and (method.regressor == "dw" or (index == 0 and method.name == "antithetic")):
            weights = method.gradient_weights if index == 0 else method.hv_weights
            scale = sigma if index == 0 else r * sigma
            periodic, period = n * noise * sum(weight**2 for weight in weights) / scale**2, code.period(n)
        parts.append(QuantityPrediction(np.mean(exacts, axis=0), mean, variance, periodic, period, method.evaluations_per_trial))
    return Prediction(*parts)


def curvatures(objective: Objective, w: Array, v: Array, presentation: str = "batch") -> list[Curvature]:
    """One `Curvature` of the whole objective, or (presentation = "pattern") one per pattern, at most 64 of them evenly chosen."""
    if presentation == "batch":
        return [curvature(objective, w, v)]
    chosen = np.unique(np.linspace(0, objective.n_patterns - 1, 64).astype(int))
    probes = None if objective.n_weights <= 128 else 32
    return [curvature(objective.pattern(int(index)), w, v, probes) for index in chosen]
