"""Statistics: the mergeable sums that both engines produce, and their solution into per-weight estimates."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from perturb.codes import Code
from perturb.errors import InputError
from perturb.methods import Method
from perturb.synapse import SUMS, TOTALS, solve_least_squares, solve_moments

Array = np.ndarray


@dataclass(frozen=True)
class Design:
    """What every trial of an estimate has in common; statistics of different designs never mix.

    sigma: rms of a perturbation. r: displacement along v (methods that displace). presentation: "batch" (an evaluation presents
    all patterns) or "pattern" (a trial presents one, drawn at random). seed keys the code, the noise and the drawn patterns.
    """

    method: Method
    code: Code
    n_weights: int
    sigma: float
    r: float
    seed: int
    presentation: str = "batch"

    def __post_init__(self) -> None:
        for name in ("sigma", "r"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value} must be a positive number")
        if not (isinstance(self.seed, (int, np.integer)) and 0 <= self.seed < 2**64):
            raise InputError(f"seed = {self.seed!r} must be a whole number from 0 to 2^64 - 1")
        if self.presentation not in ("batch", "pattern"):
            raise InputError(f'presentation = {self.presentation!r} is unknown: "batch" or "pattern"')

    @property
    def scales(self) -> tuple[float, float]:
        """Known denominators of g and z for fit = "moments"."""
        square = self.sigma**2
        return square, self.r * square if self.method.regressor == "dw" else square**2


class Statistics:
    """Sums over trials: `closed` of whole blocks, `open` of the block not yet full, so that any split gives the same bits.

    sums: (14, n), rows named by `synapse.SUMS`; totals: (4,), by `synapse.TOTALS`. spans: the trial numbers summed so far, as
    (first, last + 1) in order. A run goes on at the end of its last span. opened: the first trial in `open`, if there is one.
    precision: float32, if any trial ran so.
    """

    def __init__(self, design: Design, spans: Iterable[tuple[int, int]] = ()):
        self.design, self.spans = design, list(spans)
        self.closed, self.open = self.zeros(), self.zeros()
        self.opened: int | None = None
        self.precision = "float64"

    def zeros(self) -> tuple[Array, Array]:
        return np.zeros((len(SUMS), self.design.n_weights)), np.zeros(len(TOTALS))

    @property
    def sums(self) -> Array:
        return self.closed[0] + self.open[0]

    @property
    def totals(self) -> Array:
        return self.closed[1] + self.open[1]

    @property
    def trials(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    @property
    def next_trial(self) -> int:
        return self.spans[-1][1] if self.spans else 0

    def extend(self, count: int) -> None:
        """Note that the `count` trials after the last have been summed."""
        start = self.next_trial
        if self.spans:
            self.spans[-1] = (self.spans[-1][0], start + count)
        else:
            self.spans.append((start, start + count))

    def merge(self, other: "Statistics") -> "Statistics":
        """The statistics of both; refuses other designs and trials counted twice. Equal to one run within rounding."""
        if self.design != other.design:
            raise InputError(
                "statistics of different designs cannot be merged: method, code, sigma, r, seed and network must agree"
            )
        spans: list[tuple[int, int]] = []
        for start, stop in sorted(self.spans + other.spans):
            if spans and start < spans[-1][1]:
                raise InputError(
                    f"trials {start}..{min(stop, spans[-1][1]) - 1} are in both statistics: merge disjoint trials only"
                )
            if spans and start == spans[-1][1]:
                spans[-1] = (spans[-1][0], stop)
            else:
                spans.append((start, stop))
        last = max(self, other, key=lambda statistics: statistics.next_trial)
        rest = other if last is self else self
        both = Statistics(self.design, spans)
        both.closed = (last.closed[0] + rest.sums, last.closed[1] + rest.totals)
        both.open, both.opened = (last.open[0].copy(), last.open[1].copy()), last.opened
        both.precision = min(self.precision, other.precision)
        return both


@dataclass(frozen=True)
class Estimate:
    """Per-weight estimates, each of shape (n,), with standard errors from the same sums (NaN where they cannot be known)."""

    gradient: Array
    gradient_stderr: Array
    hv: Array
    hv_stderr: Array
    trials: int
    evaluations: int
    statistics: Statistics

    @property
    def design(self) -> Design:
        return self.statistics.design

    @property
    def precision(self) -> str:
        """Of the evaluations of E: "float32" or "float64"."""
        return self.statistics.precision


def solve(statistics: Statistics) -> Estimate:
    """Estimates and standard errors from the sums alone.

    For independent trials the errors are those of `synapse.solve_*`. Over whole periods of an orthogonal code the estimates on
    dw are a joint least-squares fit of all weights, and the error is sqrt(RSS / (K - n - 1) / (K sigma^2)), with
    RSS = sum dE^2 - K mean(dE)^2 - K sigma^2 sum_i slope_i^2 (not known when K = n + 1).
    """
    design, K = statistics.design, statistics.trials
    method, n = design.method, design.n_weights
    if K < 1:
        raise InputError("statistics hold no trial yet: run some first")
    sums, totals = statistics.sums, statistics.totals
    with np.errstate(divide="ignore", invalid="ignore"):
        if method.fit == "moments":
            g, z, var_g, var_z = solve_moments(sums, totals, float(K), method.centred, *design.scales)
        else:
            g, z, var_g, var_z = solve_least_squares(sums, totals, float(K), method.centred)
        period = design.code.period(n)
        if design.code.orthogonal and all(start % period == 0 and stop % period == 0 for start, stop in statistics.spans):
            power = design.sigma**2
            y, u, yy, uu = totals
            if method.fit == "moments":
                rss = max(yy - y * y / K - K * power * float(g @ g), 0.0)
                var_g = np.full(n, rss / (K - n - 1) / (K * power) if K > n + 1 else np.nan)
            if method.regressor == "dw":
                slope = z * design.r
                rss = max(uu - u * u / K - K * power * float(slope @ slope), 0.0)
                var_z = np.full(n, rss / (K - n - 1) / (K * power) / design.r**2 if K > n + 1 else np.nan)
        # a variance that cancels to rounding noise is zero
        errors = [np.sqrt(np.maximum(var, 0.0)) if K > 2 else np.full(n, np.nan) for var in (var_g, var_z)]
    return Estimate(g, errors[0], z, errors[1], K, K * method.evaluations_per_trial, statistics)
