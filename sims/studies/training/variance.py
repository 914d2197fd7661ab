"""Means of what was measured from the same starts on every one of several dies, and how much of
their variance is between dies and between starts.

The value on die d from start s is taken as mean + a_d + b_s + e_ds with independent normal parts;
e holds the noise of the run and what a die does to one start alone. D dies, S starts, and the mean
squares of a two-way analysis of variance have expectations (Searle 1971)

    dies  var(e) + S var(a)      starts  var(e) + D var(b)      rest  var(e)
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import fdtri, stdtrit

from reports.statistics import CONFIDENCE

Array = np.ndarray


class Mean(NamedTuple):
    """A mean over dies and starts, which are both samples. NaN: not known."""

    value: float
    stderr: float
    dof: float

    @property
    def reach(self) -> float:
        """From the mean to the end of its 95 % interval (Student's t)."""
        if not self.stderr > 0:
            return math.nan
        return float(stdtrit(self.dof, 0.5 + CONFIDENCE / 2)) * self.stderr


class Squares(NamedTuple):
    """Mean squares between dies, between starts and of the rest, and their degrees of freedom."""

    squares: tuple[float, float, float]
    dof: tuple[int, int, int]


class Share(NamedTuple):
    """Of the variance between dies from one start (or between starts on one die) what they make,
    not the rest; with its 95 % interval.
    """

    value: float
    low: float
    high: float
    sd: float


def mean_squares(values: Array) -> Squares:
    """Of values (D, S); NaN where there is one die or one start only."""
    D, S = values.shape
    dof = (D - 1, S - 1, (D - 1) * (S - 1))
    by_die = values.mean(1) - values.mean()
    by_start = values.mean(0) - values.mean()
    rest = values - values.mean() - by_die[:, None] - by_start
    sums = (S * (by_die**2).sum(), D * (by_start**2).sum(), (rest**2).sum())
    found = [float(total) / n if n else math.nan for total, n in zip(sums, dof, strict=True)]
    return Squares((found[0], found[1], found[2]), dof)


def crossed_mean(values: Array) -> Mean:
    """The mean of values (D, S).

    Its variance var(a)/D + var(b)/S + var(e)/(D S) has the unbiased estimate (dies + starts -
    rest)/(D S) of the mean squares, where var(a) and var(b) are not below 0; degrees of freedom by
    Satterthwaite (1946). With one start (one die) it is that over the dies (starts) seen, and
    says nothing of others.
    """
    D, S = values.shape
    mean = float(values.mean())
    (dies, starts, rest), dof = mean_squares(values)
    if D == 1 and S == 1 or not np.isfinite(values).all():
        return Mean(mean, math.nan, math.nan)
    if D == 1 or S == 1:
        each = values.ravel()
        return Mean(mean, float(each.std(ddof=1)) / math.sqrt(each.size), each.size - 1)
    # of each part that is not below 0: its sign in the sum
    signs = (1, 1, -1)
    if dies < rest or starts < rest:
        signs = (1, 0, 0) if dies >= starts else (0, 1, 0)
    parts = [sign * square for sign, square in zip(signs, (dies, starts, rest), strict=True)]
    total = sum(parts)
    if not total > 0:
        return Mean(mean, 0.0, math.nan)
    spread = sum(part**2 / n for part, n in zip(parts, dof, strict=True))
    return Mean(mean, math.sqrt(total / (D * S)), total**2 / spread)


def shares(values: Array) -> tuple[Share, Share, float]:
    """Of dies and of starts, see `Share`, and the standard deviation of the rest; NaN where not
    known. The intervals are exact for normal parts (Searle 1971).
    """
    D, S = values.shape
    (dies, starts, rest), (n_dies, n_starts, n_rest) = mean_squares(values)
    sd = math.sqrt(rest) if rest >= 0 else math.nan
    return (
        _share(dies, rest, S, n_dies, n_rest),
        _share(starts, rest, D, n_starts, n_rest),
        sd,
    )


def _share(square: float, rest: float, times: int, dof: int, dof_rest: int) -> Share:
    if not rest > 0:
        # nothing but this differs, or nothing at all, or it is not known
        known = rest == 0 and square > 0
        sd = math.sqrt(square / times) if known else math.nan
        return Share(1.0 if known else math.nan, math.nan, math.nan, sd)

    def of(ratio: float) -> float:
        # var/var(e) as a share of the two; never below 0
        own = max((ratio - 1) / times, 0.0)
        return own / (1 + own)

    found = square / rest
    tail = (1 - CONFIDENCE) / 2
    ends = [found / float(fdtri(dof, dof_rest, p)) for p in (1 - tail, tail)]
    sd = math.sqrt(max(square - rest, 0.0) / times)
    return Share(of(found), of(ends[0]), of(ends[1]), sd)
