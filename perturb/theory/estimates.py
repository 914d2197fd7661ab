"""What theory predicts of an estimate before it is run: limit, variance, cosine, trials and
evaluations needed.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np

from perturb.checks import between_0_and_1, positive
from perturb.errors import choose
from perturb.estimation.design import MOST_TRIALS, Design
from perturb.networks.objective import Objective
from perturb.theory.limits import limit_stderr, limits
from perturb.theory.quadratic import PROBES, Curvature, curvatures
from perturb.theory.variances import TrialVariance, _left, trial_variances
from perturb.trial.code import SEQUENTIAL, Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method
from perturb.trial.periodicity import disturbance, period_warnings, repeated

Array = np.ndarray


@dataclass(frozen=True)
class QuantityPrediction:
    """Of g or of z: its limit, the variance of one trial per weight, and what follows.

    lawful: whether dE is the same function in every trial, so that a periodic code's law holds.
    slope: of dE on D (in the units of the quantity) if the estimate is linear in it; mean: of
    dE/sigma where it is left in. seed: of shift registers. covariance: whether it is one, of K
    trials, and not divided by K - 1. limit_cosine: of the limit with the exact answer, the best
    that any number of trials reaches. limit_stderr, unsure: standard error of the limit, (n,), and
    the relative one of the variance, where they rest on random patterns or sign vectors; None and 0
    where they do not.
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
    covariance: bool = False
    limit_stderr: Array | None = None
    unsure: float = 0.0

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
        """The expected estimate after so many trials, shape (n,): the limit; one weight at a
        time, n visits_i/K of it.
        """
        if self.covariance and not self.code.periodic:
            return (1 - 1 / trials) * self.limit
        if self.slope is None or self.code.kind != SEQUENTIAL:
            return self.limit
        n = self.limit.size
        return n * (trials // n + (np.arange(n) < trials % n)) / trials * self.limit

    def variances(self, trials: int) -> Array:
        """Variance of the estimate of each weight after so many trials, shape (n,).

        A random code: that of one trial over `trials`; a covariance of K trials, exactly, (1 -
        1/K)^2 [(that of one)/K + (limit^2 + pairs)/(K (K - 1))]. A periodic one, for estimates on
        dw: the noise's, the `disturbance` of an incomplete period, and of a one-sided dE the even
        part, which the folded-over pass takes away again. For z on s dw, within a pass as random,
        but for the mean; the folded-over pass takes the gradient's part away, and repeats the even
        part without telling anything new of it.
        """
        if not self.code.periodic or not self.lawful:
            one = np.maximum(
                self.trial.total, 0.0
            )  # what is leading in n can be negative where n is small
            if not self.covariance or self.code.periodic:
                return one / trials
            few = (self.limit**2 + self.trial.pairs) / (trials - 1) if trials > 1 else 0.0
            return (1 - 1 / trials) ** 2 * (one + few) / trials
        P = self.period
        rest = trials % (2 * P)
        if self.slope is None:
            odd, m = min(rest, 2 * P - rest), trials % P
            even = trials + 2 * repeated(self.code, self.limit.size, trials)
            left = (
                odd * self.trial.odd
                + even * self.trial.even
                + m * (P - m) / max(P - 1, 1) * self.trial.mean
            )
            return np.maximum(left / trials**2 + self.trial.noise / trials, 0.0)
        unpaired: Array | float = min(
            rest, 2 * P - rest
        )  # trials whose even part the folded-over pass has not taken away
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
        """Expected cosine with the exact answer, L.z / (|z| sqrt(|L|^2 + variance)), L the
        expected estimate; NaN for none.
        """
        L = self.expected(trials)
        square = float(L @ L)
        if square == 0:
            return 0.0
        return _cosine(L, self.exact) * math.sqrt(square / (square + self.total_variance(trials)))

    def relative_error(self, trials: int) -> float:
        """Expected |estimate - exact| / |exact| (root of the mean square)."""
        size, bias = float(self.exact @ self.exact), self.expected(trials) - self.exact
        return (
            math.sqrt((float(bias @ bias) + self.total_variance(trials)) / size)
            if size > 0
            else math.nan
        )

    def trials_for(self, cosine: float = 0.9, relative_error: float | None = None) -> float:
        """Trials to an expected cosine, or to a relative error instead; infinity if the limit
        itself falls short of it, or if it takes more than the 2^62 trials that can be numbered.

        Of a periodic code: whole periods, or part of the first, found by halves to 1/64, where that
        is enough; for z on s dw double periods, or fewer trials.
        """
        if relative_error is not None:
            positive("relative_error", relative_error)
            allowed = relative_error**2 * float(self.exact @ self.exact) - float(
                self.bias @ self.bias
            )
        else:
            between_0_and_1("cosine", cosine)
            best = self.limit_cosine
            allowed = (
                float(self.limit @ self.limit) * ((best / cosine) ** 2 - 1)
                if best > cosine
                else 0.0
            )
        if not allowed > 0:
            return math.inf
        random = _count(max(self.variance / allowed, 1.0))

        def enough(trials: float) -> bool:
            trials = int(trials)
            return (
                self.relative_error(trials) <= relative_error
                if relative_error
                else self.cosine(trials) >= cosine
            )

        if not self.code.periodic or not self.lawful:
            few = random
            while (
                self.covariance and few < 2 * random + 16 and not enough(few)
            ):  # few trials vary more
                few += 1 + few // 64
            return few

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

    trace: tr H. eta_max: 2/tr H, above which learning by g from one trial per update is unstable in
    the mean square whatever the largest eigenvalue: exact for D = +-sigma and H diagonal. eta_safe:
    2/(tr H + 2 |H|_F), sufficient for every code of kurtosis <= 3, from sum_i eta l_i/(2(1 - eta
    l_i)) < 1 and l_i <= |H|_F. Both for a positive semi-definite H, infinite if tr H <= 0.
    warnings: what to mind about the method, the code and the trials, in plain sentences.
    """

    gradient: QuantityPrediction
    hv: QuantityPrediction
    trace: float
    eta_max: float
    eta_safe: float
    warnings: list[str] = field(default_factory=list)


def _count(trials: float) -> float:
    """So many trials, as an integer; infinity where they are more than can be numbered."""
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
    """Limit, bias, variance, expected cosine and error, trials and evaluations needed, of
    `estimate` with the same arguments.

    error_noise: standard deviation of one evaluation of E. With presentation = "pattern" the
    pattern is one more random number of each trial: its spread adds to the variance, and an
    orthogonal code loses its advantage; limits stay. What rests on a sample of patterns or of sign
    vectors says so in `warnings`, with its uncertainty. `known`: curvatures computed before by
    `curvatures` for the same objective, w, v and presentation, to save their cost. trials: warn if
    they do not cover a code's period. seed: decides which shift registers meet, and nothing else.
    The best sigma: `amplitude.best_sigma`.
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
    known = curvatures(objective, w, v, presentation) if known is None else known
    whole = known[0]
    cases, limited = whole.patterns or (whole,), limits(method, code, whole, sigma, r, seed)
    each = [trial_variances(method, code, c, sigma, r, error_noise**2, seed, whole) for c in cases]
    tends = (
        [limits(method, code, c, sigma, r, seed) for c in cases] if whole.patterns else [limited]
    )
    parts: list[QuantityPrediction] = []
    both: tuple[Literal["gradient", "hv"], ...] = ("gradient", "hv")
    for index, of in enumerate(both):
        trial, unsure = _over_patterns(
            [variances[index] for variances in each], [two[index] for two in tends], whole
        )
        on_dw = index == 0 or method.regressor == "dw"
        dE, left_in = _left(method, whole, whole, of, sigma, r)
        unit = 1.0 if index == 0 else r
        parts.append(
            QuantityPrediction(
                (whole.g, whole.z)[index],
                limited[index],
                trial,
                code,
                method.evaluations_per_trial,
                not whole.patterns and (on_dw or code.function is None),
                dE.slope / unit if on_dw and not whole.patterns else None,
                left_in / sigma / unit * on_dw,
                seed,
                method.centred and method.fit == "moments",
                limit_stderr(method, code, whole) if index else None,
                unsure,
            )
        )
    trace = whole.trace
    size = math.sqrt(whole.off_square + float(whole.diagonal @ whole.diagonal))
    etas = (2 / trace, 2 / (trace + 2 * size)) if trace > 0 else (math.inf, math.inf)
    return Prediction(parts[0], parts[1], trace, etas[0], etas[1], _warnings(design, parts, trials))


def _over_patterns(
    each: list[TrialVariance], tends: list[Array], whole: Curvature
) -> tuple[TrialVariance, float]:
    """The variance of a trial whose pattern is drawn too, and its relative standard error.

    That within a pattern, on average, and that between the patterns of what each tends to.
    """
    m = len(each)
    if m == 1:
        return each[0], whole.unsure
    found = TrialVariance(
        *(
            np.mean([getattr(one, part.name) for one in each], axis=0)
            for part in fields(TrialVariance)
        )
    )
    found = replace(found, odd=found.odd + np.var(tends, axis=0, ddof=1) * (1 - 1 / whole.of))
    squares = [
        float(one.total.sum() + ((L - np.mean(tends, axis=0)) ** 2).sum())
        for one, L in zip(each, tends, strict=True)
    ]
    sampled = (
        math.sqrt(max(1 - m / whole.of, 0.0) / m)
        * float(np.std(squares, ddof=1))
        / (float(np.mean(squares)) or 1.0)
    )
    return found, math.hypot(
        sampled, math.sqrt(float(np.mean([c.unsure**2 for c in whole.patterns])) / m)
    )


def _warnings(design: Design, parts: list[QuantityPrediction], trials: int | None) -> list[str]:
    method, code, n = design.method, design.code, design.n_weights
    says = []
    if method.estimates_hv and (blind := int(np.isnan(parts[1].limit).sum())):
        says.append(
            f"{method.name} with code {code.name}: g and z of {blind} of {n} weights cannot be"
            " known, as their regressor of z is constant; use method difference"
        )
    for name, part in (("g", parts[0]), ("z = Hv", parts[1] if method.estimates_hv else None)):
        size = 0.0 if part is None else float(np.linalg.norm(part.exact))
        if part is None or size == 0 or not (off := float(np.linalg.norm(part.bias)) / size) > 1e-6:
            continue
        why, instead = _reason(design)
        if name == "g" and method.moment("gradient", 1, 1):
            why, instead = (
                "its dE_g responds to D and r v together",
                "weights whose sum of a b is 0",
            )
        says.append(
            f"{method.name} with code {code.name} is biased: its {name} tends to something"
            f" {off:.2g} |{name[0]}| away, as {why}; use {instead}"
        )
    for name, part in (("g", parts[0]), ("z", parts[1])):
        if part.limit_stderr is not None:
            off = float(np.linalg.norm(part.limit_stderr) / (np.linalg.norm(part.limit) or 1.0))
            says.append(
                f"the limit of {name} is known to {off:.2g} of its size: it needs the diagonal of"
                f" H, from {PROBES} sign vectors"
            )
        if part.unsure > 0.01:
            says.append(
                f"the variance of {name} is known to {part.unsure:.0%}: it comes from a sample of"
                " patterns or sign vectors"
            )
    if trials is not None:
        says += period_warnings(code, n, trials)
    return says


def _reason(design: Design) -> tuple[str, str]:
    """Why a method is biased with a code, and what to use instead."""
    method, code, n = design.method, design.code, design.n_weights
    if code.sensing and method.fit == "least_squares":
        return (
            "denominators measured with the synapses' own error are too large",
            "known denominators: difference or covariance",
        )
    if code.registers is not None:
        instead = "code walsh or rademacher"
        if shared := code.registers.shared(n, design.seed):
            why = (
                f"{shared} of {n} weights share their perturbation with others, and those that do"
                " not share correlate"
            )
            return (
                f"{why} by -1/{code.period(n)}",
                f"more bits for the registers, another seed, or {instead}",
            )
        return (
            f"weights of the register{'s' * (code.taps(n) < n)} correlate by -1/{code.period(n)}",
            instead,
        )
    if method.fit == "moments" and method.regressor == "b":
        return "without measured denominators the mean of dE b_i is about z_i/V", 'regressor "s_dw"'
    if method.fit == "moments" and method.regressor == "s_dw" and not method.centred:
        return "the mean of dE_z, with tr H in it, is left in", "centred = True"
    if method.fit == "least_squares" and not method.unbiased_with(code):
        why = (
            "it needs kurtosis 3"
            if method.correction == "along"
            else "the other weights' regressors are correlated with its own"
        )
        return why, "method difference, or covariance with code ternary"
    mended = method.name + "_corrected"
    instead = f"method {mended}" if code.kurtosis > 1 and mended in METHODS else "code ternary"
    return (
        f"a code of kurtosis {code.kurtosis:g} adds {(code.kurtosis - 3) / 2:g} H_ii v_i",
        f"{instead}, or method difference",
    )
