"""What theory predicts of an estimate before it is run: limit, variance, cosine, trials and evaluations needed.

Everything is for a quadratic E with the g, H, z of the objective at w, and a code of independent symmetric components with
kurtosis k and sixth moment m (in units of sigma). D below is in units of sigma. Terms of third and higher derivatives
(bias O(sigma^2), O(r^2)) are left out, but see `amplitude`. Formulas: `limit`, `trial_variances`, `disturbance`.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from perturb.codes import CODES, SEQUENTIAL, SINE, WALSH, Code
from perturb.errors import InputError, choose
from perturb.methods import METHODS, Method
from perturb.objective import Objective, as_weights
from perturb.statistics import MOST_TRIALS, Design, period_warnings, repeated

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


def gradient_limit(method: Method, code: Code, g: Array, seed: int = 0) -> Array:
    """What the method's g tends to on a quadratic E, shape (n,): g itself, but for two codes.

    lfsr, period L: S_i - (sum_j g_j - S_i)/L, S_i the sum of g over weight i and those that have its perturbation (g_i alone
    where one register feeds all), as weights correlate by -1/L or 1; `seed` decides which registers meet, see
    `codes.Registers`. A code that synapses know with the relative error e only, with measured denominators (least squares):
    g/(1 + e^2); with known ones the error has no effect on the mean.
    """
    if code.sensing and method.fit == "least_squares":
        return g / (1 + code.sensing**2)
    return _correlated(code, g, seed)


def _correlated(code: Code, slope: Array, seed: int) -> Array:
    """C slope, C_ij = <D_i D_j>/sigma^2 over the seeds or, of a periodic code, over a period."""
    return slope.copy() if code.registers is None else code.registers.correlated(slope, seed)


def _spread(code: Code, slope: Array, seed: int) -> Array:
    """Variance of (D.slope) D_i/sigma^2 over a period of a code with |D_i| fixed or one at a time, per weight:
    slope'C slope - (C slope)_i^2."""
    tends = _correlated(code, slope, seed)
    return np.maximum(float(slope @ tends) - tends**2, 0.0)


def limit(method: Method, code: Code, c: Curvature, seed: int = 0) -> Array:
    """What the method's z tends to with infinitely many trials, shape (n,); NaN for a method of the gradient alone.

    difference: z (lfsr: as in `gradient_limit`). covariance, antithetic: z_i + (k-3)/2 H_ii v_i; with the diagonal correction
    z_i for k > 1. Joint least squares, with B_i = (e_i v' + v e_i')/V - v_i v v'/V^2 and
    C(H,B) = (1/2)[tr(HB) + ((k-3)/2) sum_j H_jj B_jj]:
      without intercept  [C(H,B_i) + (v_i/2V)(tr H/2)] / [C(B_i,B_i) + (v_i/2V)^2]
      with intercept      C(H,B_i) / C(B_i,B_i) =: z^_i
      corrected           z^_i (1 - v_i^2/2V) + (v_i/2V) [v.z + (k-3)/2 sum_j H_jj v_j^2], which is z_i for k = 3
    A code known with the relative error e: C(H,B) times 1/(1+e^2)^2, the trace term times 1/(1+e^2). An orthogonal code with
    random signs or phases has the moments of independent components. NaN where the denominator vanishes (an intercept, k = 1
    and one weight only: the regressor is then constant).
    """
    k, V, v, z, h = code.kurtosis, c.V, c.v, c.z, c.diagonal
    if not method.estimates_hv:
        return np.full(z.size, np.nan)
    if method.regressor == "dw":
        return _correlated(code, z, seed)
    if method.fit == "moments":
        return z.copy() if method.correction == "diagonal" and k > 1 else z + (k - 3) / 2 * h * v
    C_HB, C_BB = _joint_fit(method, code, c)
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = np.where(C_BB > 1e-14 / V, C_HB / C_BB, np.nan)
    if method.correction == "along":
        return fitted * (1 - v**2 / (2 * V)) + v / (2 * V) * (v @ z + (k - 3) / 2 * (h @ v**2))
    return fitted


def _joint_fit(method: Method, code: Code, c: Curvature) -> tuple[Array, Array]:
    # numerator and denominator of the limit of the joint least squares, in units of sigma^4
    k, V, v, z, h = code.kurtosis, c.V, c.v, c.z, c.diagonal
    B_ii = 2 * v / V - v**3 / V**2
    C_HB = 0.5 * (2 * z / V - v * (v @ z) / V**2 + (k - 3) / 2 * (2 * h * v / V - v * (h @ v**2) / V**2))
    C_BB = 0.5 * (2 / V - v**2 / V**2 + (k - 3) / 2 * (v**2 * ((v**4).sum() - v**4) / V**4 + B_ii**2))
    # a synapse that measures its own dw with the relative error e finds its variance, and so the denominators, too large
    gain = 1 / (1 + code.sensing**2)
    C_HB = gain**2 * C_HB
    if not method.centred:
        C_HB = C_HB + gain * v / (2 * V) * c.trace / 2
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


@dataclass(frozen=True)
class TrialVariance:
    """Variance of one trial per weight, shape (n,), in the parts that a periodic code treats differently.

    odd: of what is odd in D in dE, its linear part; even: of the curvature in dE; mean: of the mean of dE, where it is left in;
    noise: of the measurements.
    """

    odd: Array
    even: Array
    mean: Array
    noise: Array

    @property
    def total(self) -> Array:
        return self.odd + self.even + self.mean + self.noise


def trial_variances(
    method: Method, code: Code, c: Curvature, sigma: float, r: float, noise: float, seed: int = 0
) -> tuple[TrialVariance, TrialVariance]:
    """Variance of one trial of g_i and of z_i; `noise` is the variance of one evaluation.

    g_i: |g|^2 + (k-2) g_i^2 + noise'/sigma^2, in all (n+k-2)|g|^2 + n noise'/sigma^2; for a one-sided dE also
      sigma^2 [E q^2 + (m-3k+2) H_ii^2/4 + (k-1) sum_{j != i} H_ij^2], q = (D'HD - tr H)/2, plus sigma^2 (tr H/2)
      [(k-1) H_ii + tr H/2] where the mean of dE is left in. noise' = noise times the squares of the method's weights.
    z_i, difference: |z|^2 + (k-2) z_i^2 + noise'/(r sigma)^2. z_i, moments, with e = dE - mean: Var(e (s D_i - v_i))
      = E e^2 s^2 (1 + (2k-4) v_i^2/V) + v_i^2 E e^2 - limit_i^2; the sum over i is exact for k = 1 and the linear part of a
      Gaussian, else leading in n; the diagonal correction adds [(k-3)^2/(k-1) - 2(k-3)] v_i^2 E e^2.
    z_i, least squares: E e^2 s^2/(V C(B_i,B_i))^2, leading in n; corrected along v: as moments.
    sequential: one weight at a time, sigma sqrt(n): |slope|^2 - slope_i^2, even part sigma^2 n^2 H_ii^2/4.
    lfsr: slope'C slope - (C slope)_i^2, C as in `codes.Registers` (curvature as if no two weights had the same perturbation).
    Known with the error e only: e^2 E dE^2/sigma^2 more for g, E e^2 s^2 times (1 + e^2)^2 for z (leading in n); measured
      denominators divide by (1 + e^2)^2 and (1 + e^2)^4.
    """
    n, k, V = c.g.size, code.kurtosis, c.V
    M = _moments(c, k, code.sixth)
    blur = code.sensing**2
    noise_g = noise * sum(weight**2 for weight in method.gradient_weights)
    noise_z = noise * sum(weight**2 for weight in method.hv_weights)
    one_sided = method.one_sided
    mean = sigma**2 * c.trace / 2 * (one_sided and not method.centred)  # of dE, where it is left in
    zero = np.zeros(n)

    if not code.independent:  # deterministic: +-sigma bits of a register, or one weight at a time
        even = zero
        if one_sided:
            alone = sigma**2 * n**2 * c.diagonal**2 / 4
            joint = np.full(n, sigma**2 * c.off_square / 2)
            even = alone if code.orthogonal else joint
        left_in = np.full(n, 0.0 if code.orthogonal else mean**2 / sigma**2)
        g = TrialVariance(_spread(code, c.g, seed), even, left_in, np.full(n, noise_g / sigma**2))
    else:
        even, left_in = zero, zero
        if one_sided:
            even = sigma**2 * (M["qq"] + (code.sixth - 3 * k + 2) * c.diagonal**2 / 4 + (k - 1) * c.off_rows)
            left_in = mean * (k - 1) * c.diagonal + mean**2 / sigma**2
        e2 = M["ll"] + one_sided * (sigma**2 * M["qq"] + mean**2 / sigma**2) + noise_g / sigma**2
        gain = 1 / (1 + blur) ** 2 if method.fit == "least_squares" else 1.0
        parts = (_others(c.g, k) + blur * e2, even, left_in, np.full(n, noise_g / sigma**2))
        g = TrialVariance(*(gain * part for part in parts))

    if not method.estimates_hv:
        nothing = np.full(n, np.nan)
        return g, TrialVariance(nothing, nothing, nothing, nothing)
    if method.regressor == "dw":
        noise_z /= (r * sigma) ** 2
        linear = _others(c.z, k) if code.independent else _spread(code, c.z, seed)
        return g, TrialVariance(linear + blur * (float(c.z @ c.z) + noise_z), zero, zero, np.full(n, noise_z))
    # E e^2 and E e^2 s^2 of the four parts; a pair has removed the odd one from dE_z
    mixed = sigma**2 * method.mixed
    squares = (
        (mixed * M["ll"], mixed * M["llss"]),
        (sigma**4 * M["qq"], sigma**4 * M["qqss"]),
        (mean**2, 2 * mean * sigma**2 * M["qss"] + mean**2 * V),
        (noise_z, noise_z * V),
    )
    share, away = c.v**2, zero
    if method.fit == "moments" or method.correction == "along":
        extra = (k - 3) ** 2 / (k - 1) - 2 * (k - 3) if method.correction == "diagonal" and k > 1 else 0.0
        var = [(1 + blur) ** 2 * e2s2 * (1 + (2 * k - 4) * share / V) + (1 + extra) * share * e2 for e2, e2s2 in squares]
        away = limit(method, code, c) ** 2
    else:
        _, C_BB = _joint_fit(method, code, c)
        with np.errstate(divide="ignore"):
            var = [(1 + blur) ** 2 * e2s2 / (V * C_BB) ** 2 for _, e2s2 in squares]
    scale = sigma**4 * ((1 + blur) ** 4 if method.fit == "least_squares" else 1.0)
    odd, even, left_in, noisy = (part / scale for part in var)
    return g, TrialVariance(odd, even - away, left_in, noisy)


def _others(slope: Array, k: float) -> Array:
    """Variance of (D.slope) D_i/sigma^2, per weight."""
    return float(slope @ slope) + (k - 2) * slope**2


def disturbance(code: Code, slope: Array, trials: int, mean: float = 0.0, seed: int = 0) -> Array:
    """What the weights' own perturbations leave in <D_i (D.slope + mean)>/sigma^2 after so many trials of a periodic code,
    besides slope_i: the mean square over random signs or phases, shape (n,). Zero over whole periods.

    With m trials into a period and K in all it is (1/K^2) times
      walsh       sum_{j != i} slope_j^2 T_b^2, b the number of trailing zeros of (i+1) xor (j+1), T_b the distance of m to the
                  nearest multiple of 2^(b+1): in natural order, columns that differ in a low bit soon cancel, those that differ
                  only in high bits are the same until late. mean counts as the slope of column 0
      sine        (1/2) sum_{j != i} slope_j^2 [F(i-j) + F(i+j)] + (1/2) slope_i^2 F(2i), F(d) = sin^2(pi m d/P)/sin^2(pi d/P),
                  plus mean^2 F(i), frequencies i, j = 1..n
      sequential  nothing; but see `QuantityPrediction.expected`
      others      m (P-m)/(P-1) (|slope|^2 - slope_i^2 + mean^2): as if the trials of a period came in random order, without
                  replacement; lfsr: slope'C slope - (C slope)_i^2 + mean^2, and as its period does not sum to zero but to +-1,
                  mean^2 more after an odd number of them
    walsh and sine are exact for trials counted from 0.
    """
    n, K = slope.size, trials
    P = code.period(n)
    m, square = K % P, slope**2
    if m == 0 and (code.balanced or mean == 0.0):
        return np.zeros(n)
    index = np.arange(1, n + 1)
    if code.kind == WALSH:
        column, square = np.append(0, index), np.append(mean**2, square)
        total = np.zeros(n)
        same = np.bincount(column % 1, square, 1)[column[1:] % 1]  # summed over columns with the same lowest b bits
        for b in range(P.bit_length() - 1):
            half = 2 ** (b + 1)
            lower = np.bincount(column % half, square, half)[column[1:] % half]
            total += min(m % half, half - m % half) ** 2 * (same - lower)
            same = lower
        return total / K**2
    if code.kind == SINE:
        d = np.arange(P)
        with np.errstate(divide="ignore", invalid="ignore"):
            F = np.where(d == 0, 0.0, (np.sin(np.pi * ((m * d) % P) / P) / np.sin(np.pi * d / P)) ** 2)
        padded = np.zeros(P)
        padded[index] = square
        apart = np.fft.irfft(np.fft.rfft(padded) * np.fft.rfft(F), P)[index]
        padded = np.zeros(P)
        padded[P - index] = square
        together = np.fft.irfft(np.fft.rfft(padded) * np.fft.rfft(F), P)[index]
        return (np.maximum(apart + together, 0.0) / 2 + mean**2 * F[index]) / K**2
    if code.kind == SEQUENTIAL:
        return np.zeros(n)
    unpaired = (K // P) % 2 * mean**2 * (not code.balanced)
    return (m * (P - m) / (P - 1) * (_spread(code, slope, seed) + mean**2) + unpaired) / K**2


@dataclass(frozen=True)
class QuantityPrediction:
    """Of g or of z: its limit, the variance of one trial per weight, and what follows.

    lawful: whether dE is the same function in every trial, so that a periodic code's law holds. slope: of dE on D (in the units
    of the quantity) if the estimate is linear in it; mean: of dE/sigma where it is left in. seed: of shift registers.
    limit_cosine: of the limit with the exact answer, the best that any number of trials reaches.
    """

    exact: Array
    limit: Array
    trial: TrialVariance
    code: Code
    evaluations_per_trial: int
    lawful: bool = True
    slope: Array | None = None
    mean: float = 0.0
    seed: int = 0

    @property
    def bias(self) -> Array:
        """limit - exact, shape (n,)."""
        return self.limit - self.exact

    @property
    def variance(self) -> float:
        """Of one random trial, summed over the weights."""
        return float(np.maximum(self.trial.total, 0.0).sum())

    @property
    def period(self) -> int:
        return self.code.period(self.limit.size) if self.lawful else 1

    @property
    def limit_cosine(self) -> float:
        return _cosine(self.limit, self.exact)

    def expected(self, trials: int) -> Array:
        """The expected estimate after so many trials, shape (n,): the limit; one weight at a time, n visits_i/K of it."""
        if self.slope is None or self.code.kind != SEQUENTIAL:
            return self.limit
        n = self.limit.size
        return n * (trials // n + (np.arange(n) < trials % n)) / trials * self.limit

    def variances(self, trials: int) -> Array:
        """Variance of the estimate of each weight after so many trials, shape (n,).

        A random code: that of one trial over `trials`. A periodic one, for estimates on dw: the noise's, the `disturbance` of an
        incomplete period, and of a one-sided dE the even part, which the folded-over pass takes away again. For z on s dw, within
        a pass as random, but for the mean; the folded-over pass takes the gradient's part away, and repeats the even part without
        telling anything new of it.
        """
        if not self.code.periodic or not self.lawful:
            return np.maximum(self.trial.total, 0.0) / trials  # what is leading in n can be negative where n is small
        P = self.period
        rest = trials % (2 * P)
        if self.slope is None:
            odd, m = min(rest, 2 * P - rest), trials % P
            even = trials + 2 * repeated(self.code, self.limit.size, trials)
            left = odd * self.trial.odd + even * self.trial.even + m * (P - m) / (P - 1) * self.trial.mean
            return np.maximum(left / trials**2 + self.trial.noise / trials, 0.0)
        unpaired: Array | float = min(rest, 2 * P - rest)  # trials whose even part the folded-over pass has not taken away
        if self.code.function is not None:
            unpaired = trials**2 / min(trials, P)  # not folded over: what one period leaves stays
        elif self.code.kind == SEQUENTIAL:
            index = np.arange(self.limit.size)
            unpaired = P * ((index < rest) ^ (index < rest - P))
        lasting = self.trial.noise / trials + unpaired * self.trial.even / trials**2
        return lasting + disturbance(self.code, self.slope, trials, self.mean, self.seed)

    def total_variance(self, trials: int) -> float:
        """Summed over the weights, after so many trials."""
        return float(self.variances(trials).sum())

    def stderrs(self, trials: int) -> Array:
        """Standard deviation of each weight's estimate, shape (n,)."""
        return np.sqrt(self.variances(trials))

    def stderr(self, trials: int) -> float:
        """rms over the weights of the estimate's standard deviation."""
        return math.sqrt(self.total_variance(trials) / self.limit.size)

    def cosine(self, trials: int) -> float:
        """Expected cosine with the exact answer, L.z / (|z| sqrt(|L|^2 + variance)), L the expected estimate; NaN for none."""
        L = self.expected(trials)
        square = float(L @ L)
        if square == 0:
            return 0.0
        return _cosine(L, self.exact) * math.sqrt(square / (square + self.total_variance(trials)))

    def relative_error(self, trials: int) -> float:
        """Expected |estimate - exact| / |exact| (root of the mean square)."""
        size, bias = float(self.exact @ self.exact), self.expected(trials) - self.exact
        return math.sqrt((float(bias @ bias) + self.total_variance(trials)) / size) if size > 0 else math.nan

    def trials_for(self, cosine: float = 0.9, relative_error: float | None = None) -> float:
        """Trials to an expected cosine, or to a relative error instead; infinity if the limit itself falls short of it, or if it
        takes more than the 2^62 trials that can be numbered.

        Of a periodic code: whole periods, or part of the first, found by halves to 1/64, where that is enough; for z on s dw
        double periods, or fewer trials.
        """
        if relative_error is not None:
            if not 0 < relative_error < math.inf:
                raise InputError(f"relative_error = {relative_error} must be a positive number")
            allowed = relative_error**2 * float(self.exact @ self.exact) - float(self.bias @ self.bias)
        else:
            if not 0 < cosine < 1:
                raise InputError(f"cosine = {cosine} must lie between 0 and 1")
            best = self.limit_cosine
            allowed = float(self.limit @ self.limit) * ((best / cosine) ** 2 - 1) if best > cosine else 0.0
        if not allowed > 0:
            return math.inf
        random = _count(max(self.variance / allowed, 1.0))
        if not self.code.periodic or not self.lawful:
            return random

        def enough(trials: float) -> bool:
            trials = int(trials)
            return self.relative_error(trials) <= relative_error if relative_error else self.cosine(trials) >= cosine

        P = self.period
        if self.slope is None:
            lasting = float((2 * self.trial.even + self.trial.noise).sum())
            double = 2 * P * max(1, _count(lasting / allowed / (2 * P)))
            return random if random < double and enough(random) else double
        most = P - P // 64 - 1
        if most >= 1 and enough(most):
            least = 0
            while most - least > max(1, P // 64):
                middle = (least + most) // 2
                least, most = (least, middle) if enough(middle) else (middle, most)
            return most
        periods = max(1, _count(float(self.trial.noise.sum()) / allowed / P))
        return periods * P if math.isinf(periods) or enough(int(periods) * P) else (periods + 1) * P

    def evaluations_for(self, cosine: float = 0.9, relative_error: float | None = None) -> float:
        return float(self.trials_for(cosine, relative_error) * self.evaluations_per_trial)


@dataclass(frozen=True)
class Prediction:
    """What to expect of g and z, and of learning with them.

    trace: tr H. eta_max: 2/tr H, above which learning by g from one trial per update is unstable in the mean square whatever the
    largest eigenvalue: exact for D = +-sigma and H diagonal. eta_safe: 2/(tr H + 2 |H|_F), sufficient for every code of
    kurtosis <= 3, from sum_i eta l_i/(2(1 - eta l_i)) < 1 and l_i <= |H|_F. Both for a positive semi-definite H, infinite if
    tr H <= 0. warnings: what to mind about the method, the code and the trials, in plain sentences.
    """

    gradient: QuantityPrediction
    hv: QuantityPrediction
    trace: float
    eta_max: float
    eta_safe: float
    warnings: list[str] = field(default_factory=list)


def _count(trials: float) -> float:
    """So many trials, as a whole number; infinity where they are more than can be numbered."""
    return math.ceil(trials) if trials <= MOST_TRIALS else math.inf


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
    trials: int | None = None,
    seed: int = 0,
) -> Prediction:
    """Limit, bias, variance, expected cosine and error, trials and evaluations needed, of `estimate` with the same arguments.

    error_noise: standard deviation of one evaluation of E. With presentation = "pattern" the pattern is one more random number
    of each trial: its spread adds to the variance, and an orthogonal code loses its advantage. `known`: curvatures computed
    before by `curvatures` for the same objective, w, v and presentation, to save their cost. trials: warn if they do not cover
    a code's period. seed: decides which shift registers meet, and nothing else. The best sigma: `amplitude.best_sigma`.
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
    known = curvatures(objective, w, v, presentation) if known is None else known
    per_pattern = [trial_variances(method, code, c, sigma, r, error_noise**2, seed) for c in known]
    parts = []
    for index in (0, 1):
        exacts = [(c.g, c.z)[index] for c in known]
        limits = [gradient_limit(method, code, c.g, seed) if index == 0 else limit(method, code, c, seed) for c in known]
        mean = np.mean(limits, axis=0)
        spread = np.maximum(np.mean(np.square(limits), axis=0) - mean**2, 0.0) if len(known) > 1 else 0.0
        odd, even, left_in, noise = (
            np.mean([getattr(variances[index], part) for variances in per_pattern], axis=0)
            for part in ("odd", "even", "mean", "noise")
        )
        linear_in_D = len(known) == 1 and (index == 0 or method.regressor == "dw")
        keeps_mean = index == 0 and method.one_sided and not method.centred
        parts.append(
            QuantityPrediction(
                np.mean(exacts, axis=0), mean, TrialVariance(odd + spread, even, left_in, noise), code,
                method.evaluations_per_trial, linear_in_D or (len(known) == 1 and code.function is None),
                exacts[0] if linear_in_D else None, sigma * known[0].trace / 2 if keeps_mean else 0.0, seed,
            )
        )  # fmt: skip
    trace = float(np.mean([c.trace for c in known]))
    size = math.sqrt(float(np.mean([c.off_square + float(c.diagonal @ c.diagonal) for c in known])))
    etas = (2 / trace, 2 / (trace + 2 * size)) if trace > 0 else (math.inf, math.inf)
    return Prediction(parts[0], parts[1], trace, etas[0], etas[1], _warnings(design, parts, trials))


def _warnings(design: Design, parts: list[QuantityPrediction], trials: int | None) -> list[str]:
    method, code, n = design.method, design.code, design.n_weights
    says = []
    for name, part in (("g", parts[0]), ("z = Hv", parts[1] if method.estimates_hv else None)):
        size = 0.0 if part is None else float(np.linalg.norm(part.exact))
        if part is None or size == 0 or not (off := float(np.linalg.norm(part.bias)) / size) > 1e-6:
            continue
        why, instead = _reason(design)
        says.append(
            f"{method.name} with code {code.name} is biased: its {name} tends to something {off:.2g} |{name[0]}| away, as {why}; "
            f"use {instead}"
        )
    if trials is not None:
        says += period_warnings(code, n, trials)
    return says


def _reason(design: Design) -> tuple[str, str]:
    """Why a method is biased with a code, and what to use instead."""
    method, code, n = design.method, design.code, design.n_weights
    if code.sensing and method.fit == "least_squares":
        return "denominators measured with the synapses' own error are too large", "known denominators: difference or covariance"
    if code.registers is not None:
        instead = "code walsh or rademacher"
        if shared := code.registers.shared(n, design.seed):
            why = f"{shared} of {n} weights share their perturbation with others, and those that do not share correlate"
            return f"{why} by -1/{code.period(n)}", f"more bits for the registers, another seed, or {instead}"
        return f"weights of the register{'s' * (code.taps(n) < n)} correlate by -1/{code.period(n)}", instead
    if method.fit == "least_squares" and not method.unbiased_with(code):
        why = (
            "it needs kurtosis 3" if method.correction == "along" else "the other weights' regressors are correlated with its own"
        )
        return why, "method difference, or covariance with code ternary"
    mended = method.name + "_corrected"
    instead = f"method {mended}" if code.kurtosis > 1 and mended in METHODS else "code ternary"
    return f"a code of kurtosis {code.kurtosis:g} adds {(code.kurtosis - 3) / 2:g} H_ii v_i", f"{instead}, or method difference"


def curvatures(objective: Objective, w: Array, v: Array, presentation: str = "batch") -> list[Curvature]:
    """One `Curvature` of the whole objective, or (presentation = "pattern") one per pattern, at most 64 of them evenly chosen."""
    if presentation == "batch":
        return [curvature(objective, w, v)]
    chosen = np.unique(np.linspace(0, objective.n_patterns - 1, 64).astype(int))
    probes = None if objective.n_weights <= 128 else 32
    return [curvature(objective.pattern(int(index)), w, v, probes) for index in chosen]
