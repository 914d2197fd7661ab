"""Predictions of one quantity, and of both: limit, variance, cosine, trials and evaluations
needed.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from perturb.checks import between_0_and_1, positive
from perturb.estimation.design import MOST_TRIALS
from perturb.notebook import QUANTITIES, axes, html_summary
from perturb.theory.variances import TrialVariance
from perturb.trial.code import SEQUENTIAL, Code
from perturb.trial.periodicity import disturbance, repeated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray


@dataclass(frozen=True)
class QuantityPrediction:
    """What to expect of one quantity, g or z, after any number of trials.

    Attributes
    ----------
    exact, limit : array of shape (n,)
        The exact answer, and what the method tends to.
    trial : TrialVariance
        Variance of one trial, per weight.
    code : Code
    evaluations_per_trial : int
    lawful : bool
        Whether dE is the same function in every trial, so that a periodic code's law holds.
    slope : array of shape (n,), optional
        Of dE on D (in the units of the quantity), if the estimate is linear in it.
    mean : float
        Of dE/sigma, where it is left in.
    seed : int
        Of shift registers.
    covariance : bool
        Whether it is one, of K trials, and not divided by K - 1.
    limit_stderr : array of shape (n,), optional
        Standard error of the limit, where it rests on random patterns or sign vectors.
    unsure : float
        The relative standard error of the variance, likewise.
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
        """Trials after which the code repeats, up to signs; 1 if its law does not hold."""
        return self.code.period(self.limit.size) if self.lawful else 1

    @property
    def limit_cosine(self) -> float:
        """Of the limit with the exact answer, the best that any number of trials reaches."""
        return cosine_of(self.limit, self.exact)

    def expected(self, trials: int) -> Array:
        """The expected estimate.

        Parameters
        ----------
        trials : int
            K.

        Returns
        -------
        array of shape (n,)
            The limit; of one weight at a time, n visits_i/K of it; of a covariance, 1 - 1/K of it.
        """
        if self.covariance and not self.code.periodic:
            # the means are of the same trials: a denominator K, not K - 1
            return (1 - 1 / trials) * self.limit
        if self.slope is None or self.code.kind != SEQUENTIAL:
            return self.limit
        # visits_i: how often weight i had its turn in K trials
        n = self.limit.size
        return n * (trials // n + (np.arange(n) < trials % n)) / trials * self.limit

    def variances(self, trials: int) -> Array:
        """Variance of the estimate of each weight.

        Parameters
        ----------
        trials : int
            K.

        Returns
        -------
        array of shape (n,)

        Notes
        -----
        A random code: that of one trial over K; a covariance of K trials, exactly,
        (1 - 1/K)^2 [(that of one)/K + (limit^2 + pairs)/(K (K - 1))]. A periodic one, for estimates
        on dw: the noise's, the `disturbance` of an incomplete period, and of a one-sided dE the
        even part, which the folded-over pass takes away again. For z on s dw, within a pass as
        random, but for the mean; the folded-over pass takes the gradient's part away, and repeats
        the even part without telling anything new of it.
        """
        if not self.code.periodic or not self.lawful:
            # what is leading in n can be negative where n is small
            one = np.maximum(self.trial.total, 0.0)
            if not self.covariance or self.code.periodic:
                return one / trials
            few = (self.limit**2 + self.trial.pairs) / (trials - 1) if trials > 1 else 0.0
            return (1 - 1 / trials) ** 2 * (one + few) / trials
        P = self.period
        # trials into a double period; min(rest, 2 P - rest) of them are not yet folded back
        rest = trials % (2 * P)
        if self.slope is None:
            odd, m = min(rest, 2 * P - rest), trials % P
            # R repeated ones count twice with the same sign: (K - 2R) + 4R
            even = trials + 2 * repeated(self.code, self.limit.size, trials)
            # m (P - m)/(P - 1): drawn without replacement from a period, whose sum is 0
            left = (
                odd * self.trial.odd
                + even * self.trial.even
                + m * (P - m) / max(P - 1, 1) * self.trial.mean
            )
            return np.maximum(left / trials**2 + self.trial.noise / trials, 0.0)
        # trials whose even part the folded-over pass has not taken away
        unpaired: Array | float = min(rest, 2 * P - rest)
        if self.code.function is not None:
            unpaired = trials**2 / min(trials, P)  # not folded over: what one period leaves stays
        elif self.code.kind == SEQUENTIAL:
            index = np.arange(self.limit.size)
            # weights that had one turn of the double period, and not yet the one with the sign
            # turned
            unpaired = P * ((index < rest) ^ (index < rest - P))
        # noise never cancels; even parts do in pairs
        lasting = self.trial.noise / trials + unpaired * self.trial.even / trials**2
        return lasting + disturbance(self.code, self.slope, trials, self.mean, self.seed)

    def total_variance(self, trials: int) -> float:
        """Variance summed over the weights.

        Parameters
        ----------
        trials : int

        Returns
        -------
        float
        """
        return float(self.variances(trials).sum())

    def stderrs(self, trials: int) -> Array:
        """Standard deviation of each weight's estimate.

        Parameters
        ----------
        trials : int

        Returns
        -------
        array of shape (n,)
        """
        return np.sqrt(self.variances(trials))

    def stderr(self, trials: int) -> float:
        """The rms over the weights of the estimate's standard deviation.

        Parameters
        ----------
        trials : int

        Returns
        -------
        float
        """
        return math.sqrt(self.total_variance(trials) / self.limit.size)

    def cosine(self, trials: int) -> float:
        """Expected cosine with the exact answer.

        Parameters
        ----------
        trials : int

        Returns
        -------
        float
            L.z / (|z| sqrt(|L|^2 + variance)), L the expected estimate; NaN where there is none.
        """
        L = self.expected(trials)
        # E(L^.z)/(|z| |L^|), with E|L^|^2 = |L|^2 + variance
        square = float(L @ L)
        if square == 0:
            return 0.0
        return cosine_of(L, self.exact) * math.sqrt(square / (square + self.total_variance(trials)))

    def relative_error(self, trials: int) -> float:
        """Expected |estimate - exact| / |exact|, the root of the mean square.

        Parameters
        ----------
        trials : int

        Returns
        -------
        float
        """
        size, bias = float(self.exact @ self.exact), self.expected(trials) - self.exact
        return (
            math.sqrt((float(bias @ bias) + self.total_variance(trials)) / size)
            if size > 0
            else math.nan
        )

    def trials_for(self, cosine: float = 0.9, relative_error: float | None = None) -> float:
        """Trials to an expected cosine, or to a relative error instead.

        Parameters
        ----------
        cosine : float
            Between 0 and 1.
        relative_error : float, optional
            Positive.

        Returns
        -------
        float
            Infinity if the limit itself falls short of it, or if it takes more than the 2^62 trials
            that can be numbered; NaN where the variance is not known.

        Raises
        ------
        InputError
            For a number out of its range.

        Notes
        -----
        Of a periodic code: whole periods, or part of the first, found by halves to 1/64, where that
        is enough; for z on s dw double periods, or fewer trials.
        """
        if relative_error is not None:
            positive("relative_error", relative_error)
            # variance that is left when |bias|^2 + variance = (relative error |exact|)^2
            allowed = relative_error**2 * float(self.exact @ self.exact) - float(
                self.bias @ self.bias
            )
        else:
            between_0_and_1("cosine", cosine)
            best = self.limit_cosine
            # best sqrt(|L|^2/(|L|^2 + variance)) = cosine, solved for the variance
            allowed = (
                float(self.limit @ self.limit) * ((best / cosine) ** 2 - 1)
                if best > cosine
                else 0.0
            )
        if not allowed > 0:
            return math.inf
        if math.isnan(self.variance):
            return math.nan
        # as many as a random code needs: variance/K
        random = count_of_trials(max(self.variance / allowed, 1.0))

        def enough(trials: float) -> bool:
            trials = int(trials)
            return (
                self.relative_error(trials) <= relative_error
                if relative_error
                else self.cosine(trials) >= cosine
            )

        if not self.code.periodic or not self.lawful:
            few = random
            # few trials vary more
            while self.covariance and few < 2 * random + 16 and not enough(few):
                few += 1 + few // 64
            return few

        P = self.period
        if self.slope is None:
            # over whole double periods the odd part is gone, and each even part is there twice
            lasting = float((2 * self.trial.even + self.trial.noise).sum())
            double = 2 * P * max(1, count_of_trials(lasting / allowed / (2 * P)))
            return random if random < double and enough(random) else double
        # is part of the first period enough? Halved down to 1/64 of it
        most = P - P // 64 - 1
        if most >= 1 and enough(most):
            least = 0
            while most - least > max(1, P // 64):
                middle = (least + most) // 2
                least, most = (least, middle) if enough(middle) else (middle, most)
            return most
        # over whole periods nothing but noise is left
        periods = max(1, count_of_trials(float(self.trial.noise.sum()) / allowed / P))
        return periods * P if math.isinf(periods) or enough(int(periods) * P) else (periods + 1) * P

    def evaluations_for(self, cosine: float = 0.9, relative_error: float | None = None) -> float:
        """`trials_for` in evaluations of E.

        Parameters
        ----------
        cosine : float
        relative_error : float, optional

        Returns
        -------
        float
        """
        return float(self.trials_for(cosine, relative_error) * self.evaluations_per_trial)


@dataclass(frozen=True)
class Prediction:
    """What to expect of g and z, and of learning with them.

    Attributes
    ----------
    gradient, hv : QuantityPrediction
    trace : float
        tr H.
    eta_max : float
        2/tr H, above which learning by g from one trial per update is unstable in the mean square
        whatever the largest eigenvalue: exact for D = +-sigma and H diagonal.
    eta_safe : float
        2/(tr H + 2 |H|_F), sufficient for every code of kurtosis <= 3, from
        sum_i eta l_i/(2(1 - eta l_i)) < 1 and l_i <= |H|_F.
    warnings : list of str
        Of the method, the code and the trials, in plain sentences.

    Notes
    -----
    eta_max and eta_safe hold for a positive semi-definite H and are infinite if tr H <= 0.
    """

    gradient: QuantityPrediction
    hv: QuantityPrediction
    trace: float
    eta_max: float
    eta_safe: float
    warnings: list[str] = field(default_factory=list)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Expected cosine with the exact answer against evaluations of E, of both quantities.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            To draw on; left out, those of a new figure.

        Returns
        -------
        matplotlib Axes

        Notes
        -----
        Up to ten times as many as a cosine of 0.9 takes, or 10^6 trials where that is never
        reached.
        """
        ax = axes(ax)
        for name, called in QUANTITIES.items():
            of = getattr(self, name)
            # a method of the gradient alone predicts nothing of z
            if np.isnan(of.limit).all():
                continue
            most = of.trials_for(0.9)
            last = 1e6 if math.isinf(most) else max(10.0 * most, 100.0)
            trials = np.unique(np.geomspace(2, last, 200).astype(int))
            cosines = [of.cosine(int(count)) for count in trials]
            ax.plot(trials * of.evaluations_per_trial, cosines, label=called)
        ax.set(xscale="log", xlabel="evaluations of E", ylabel="expected cosine")
        ax.legend()
        return ax

    def _repr_html_(self) -> str:
        rows = {}
        for name, called in QUANTITIES.items():
            of = getattr(self, name)
            size = float(np.linalg.norm(of.exact)) or math.nan
            bias = float(np.linalg.norm(of.bias)) / size
            known = not math.isnan(of.limit_cosine)
            needed = of.evaluations_for(0.9) if known else math.nan
            rows[called] = (of.limit_cosine, bias, math.sqrt(of.variance) / size, needed)
        columns = (
            "cosine of the limit",
            "bias, relative",
            "error of one trial, relative",
            "evaluations for a cosine of 0.9",
        )
        rates = (
            f"tr H = {self.trace:.4g}; learning by single trials is stable below"
            f" eta = {self.eta_max:.4g}, safely so below {self.eta_safe:.4g}"
        )
        return html_summary("Predicted", columns, rows, [rates, *self.warnings])


def count_of_trials(trials: float) -> float:
    """So many trials, as an integer.

    Parameters
    ----------
    trials : float

    Returns
    -------
    float
        Infinity where they are more than can be numbered.
    """
    return math.ceil(trials) if trials <= MOST_TRIALS else math.inf


def cosine_of(a: Array, b: Array) -> float:
    """The cosine of the angle between two vectors; NaN where one is zero.

    Parameters
    ----------
    a, b : array of shape (n,)

    Returns
    -------
    float
    """
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else math.nan
