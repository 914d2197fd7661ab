"""Statistics of sweeps: means over repeats with their intervals, where what is wanted is met,
differences of two sweeps.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import bdtr, stdtrit

from reports.columns import THRESHOLDS, Columns
from reports.frames import Swept

Array = np.ndarray


CONFIDENCE = 0.95


# numbers no further apart, relative to their size, are the same
ROUNDING = 64 * np.finfo(float).eps


FAR_APART = (
    8.0  # values this many times apart are seen, and interpolated between, on a logarithmic scale
)


# keys that, where they are given, make the runs or dies of all repeats the same ones, which cannot
# be counted over them
PINNED = {
    "training.runs": ("weights.seed", "weights.file", "network.file"),
    "dies.count": ("chip.die",),
}


VARIED = "as varied"  # the experiment's own method or code, where that is what is varied


IDENTITY = ("quantity", "method", "code", "variant", "name", "claim", "subject")


class Wanted(NamedTuple):
    """What is wanted of a measure: at least (or at most) a value. called: the measure in words."""

    measure: str
    at_least: bool
    value: float
    called: str = ""

    def __str__(self) -> str:
        return f"{self.called or self.measure} {'>=' if self.at_least else '<='} {self.value:g}"

    def met(self, values: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return values >= self.value if self.at_least else values <= self.value


class Means:
    """Mean over repeats, and its confidence interval, of every number in the summaries, one measure
    after another.

    summary: of a sweep, with its varied keys. columns: those of the summary of its study.
    experiment: its keys, as that of the number of runs (`Swept.shares`).

    The interval is Student's t; of shares of independent runs or dies, which are counted over all
    repeats together, Clopper and Pearson's (1934), unless a key makes them the same in all
    (`PINNED`). Where all repeats gave the same (to rounding) the t interval would have no width,
    which says nothing of how far a next one would be off: it is NaN, as of a single repeat.
    """

    def __init__(
        self,
        summary: pd.DataFrame,
        keys: Sequence[str],
        study: Swept,
        columns: Columns,
        experiment: Mapping[str, Any],
    ):
        self._study = study
        self._columns = columns
        self._experiment = experiment
        self._keys = list(keys)
        self.by = [*keys, *study.identity]
        self._summary, self._numbers = _distinguished(summary, keys, study)
        # the number of the group of every row: grouped by all keys once, for all measures
        self._group = (
            self._summary.groupby(self.by, sort=False, observed=True, dropna=False)
            .ngroup()
            .to_numpy()
        )
        # groups are numbered as they first appear: row k is the head of group k
        self._heads = (
            self._summary[self.by]
            .iloc[np.unique(self._group, return_index=True)[1]]
            .reset_index(drop=True)
        )
        # a measure without any value, such as a theory that does not say, makes no points
        if self._numbers:
            self.measures = [name for name in self._numbers if self._summary[name].notna().any()]
        else:
            self.measures = list(
                dict.fromkeys(self._summary.loc[self._summary["value"].notna(), "measure"])
            )
        self.repeats = int(summary["repeat"].nunique())

    def unit(self, measure: str) -> str:
        """cosine or share, of what is one, or another unit; empty if it is not known."""
        if self._numbers:
            return self._columns[measure].unit
        return str(self._summary.loc[self._summary["measure"] == measure, "unit"].iloc[0])

    def less_is_better(self, measure: str) -> bool:
        """Whether a measure is an error."""
        if self._numbers:
            return self._columns[measure].less_is_better
        return measure in self._study.errors

    def of(self, measure: str) -> pd.DataFrame:
        """A row per point and identity: those of the table points."""
        found = self._means(measure)
        least, most = (found.pop(name).to_numpy(float) for name in ("least", "most"))
        n = found["repeats"].to_numpy(float)
        with np.errstate(invalid="ignore"):  # of infinities
            # nothing is known of the spread: no interval
            alike = (n < 2) | (most - least <= ROUNDING * np.maximum(np.abs(least), np.abs(most)))
            reach = np.where(alike, np.nan, t_reach(n) * found["sd"])
        found["low"], found["high"] = found["mean"] - reach, found["mean"] + reach
        if count := self._study.shares.get(measure):
            of = found[count] if count in self._keys else self._experiment.get(count)
            # the same runs or dies in every repeat: counted once, not n times
            same = any(
                pin in self._keys or self._experiment.get(pin) is not None for pin in PINNED[count]
            )
            if of is not None:
                _count(found, n == 1 if same else n > 0, of * n)
        found["low"], found["high"] = _possible(self.unit(measure), found)
        # theory's own measure is a mean over repeats too, for starts and dies differ
        found["predicted"] = np.nan
        if (theory := self._study.theory.get(measure, "")) in self.measures:
            predicted = self._means(theory).set_index(self.by)["mean"]
            found["predicted"] = predicted.reindex(
                pd.MultiIndex.from_frame(found[self.by])
            ).to_numpy()
        return found

    def parts(self) -> Iterator[pd.DataFrame]:
        """The table points, a part per measure."""
        return map(self.of, self.measures)

    def _means(self, measure: str) -> pd.DataFrame:
        if self._numbers:
            values = self._summary[measure]
            group = self._group
        else:
            own = (self._summary["measure"] == measure).to_numpy()
            values = self._summary["value"][own]
            group = self._group[own]
        with np.errstate(invalid="ignore"):
            found = values.groupby(group).agg(
                repeats="count", unknown="size", mean="mean", sd="std", least="min", most="max"
            )
        # size counts NaN too
        found["unknown"] -= found["repeats"]
        # a categorical: the name of the measure is in every row of a table of millions
        name = pd.Categorical.from_codes(
            np.full(len(found), self.measures.index(measure), np.int64), pd.Index(self.measures)
        )
        # the index is that of groups which have the measure at all
        heads = self._heads.iloc[found.index].reset_index(drop=True).assign(measure=name)
        return pd.concat([heads, found.reset_index(drop=True)], axis=1)


def t_reach(n: Array, confidence: float = CONFIDENCE) -> Array:
    """From a mean of n values to the end of its interval, in their standard deviations."""
    # stats.t.interval would be the same, but scipy.stats takes 50 MB and a second to load
    # Student's quantile of n - 1 degrees of freedom, over sqrt(n)
    return stdtrit(np.maximum(n - 1, 1), 0.5 + confidence / 2) / np.sqrt(np.maximum(n, 1))


def median_interval(values: Array, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a median between two of its sorted values, whatever their distribution (sign
    test inverted); NaN of too few values, five at 95 %.
    """
    ordered = np.sort(values)
    n = len(ordered)
    # the k smallest and the k largest are left out: P(Bin(n, 1/2) < k) <= (1 - confidence)/2
    left_out = np.flatnonzero(bdtr(np.arange(n // 2), n, 0.5) <= (1 - confidence) / 2)
    if not len(left_out):
        return math.nan, math.nan
    k = int(left_out[-1])
    return float(ordered[k]), float(ordered[n - 1 - k])


def _count(found: pd.DataFrame, rows: Array, of: Array) -> None:
    """The intervals of shares, whose means are of so many runs or dies, are those of counts."""
    for row in np.flatnonzero(rows):
        # a mean of shares times all of them is a whole number, but for rounding
        total = int(np.asarray(of)[row])
        found.loc[row, ["low", "high"]] = share_interval(
            round(found["mean"].iloc[row] * total), total
        )


@cache
def share_interval(
    count: int, of: int, method: str = "exact", confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The interval of a share: "exact" (Clopper and Pearson 1934) or "wilson" (1927)."""
    from scipy.stats import binomtest  # much to load, and seldom needed

    low, high = binomtest(count, of).proportion_ci(confidence, method)
    return float(low), float(high)


def _possible(unit: str, found: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Intervals cut to what a mean can be: cosines from -1 to 1, shares to 1, what never is
    negative from 0.
    """
    least = -1.0 if unit == "cosine" else 0.0 if found["mean"].min() >= 0 else -np.inf
    return found["low"].clip(least), found["high"].clip(
        upper=1.0 if unit in ("cosine", "share") else np.inf
    )


def values(
    summary: pd.DataFrame, keys: Sequence[str], study: Swept, measures: Sequence[str]
) -> pd.DataFrame:
    """These numbers of the summaries, each in a row of its own: point, seed, identity, measure,
    value.
    """
    summary, numbers = _distinguished(summary, keys, study)
    if not numbers:
        return summary.loc[
            summary["measure"].isin(measures), [*keys, "seed", *study.identity, "measure", "value"]
        ]
    return summary.melt(
        [*keys, "seed", *study.identity],
        [name for name in numbers if name in measures],
        "measure",
        "value",
    )


def _distinguished(
    summary: pd.DataFrame, keys: Sequence[str], study: Swept
) -> tuple[pd.DataFrame, list[str]]:
    """The summaries with the columns that distinguish their rows, and the names of those that are
    measured; of facts none.
    """
    # a summary of facts has its numbers in rows
    if "measure" in summary:
        return summary, []
    for name in varied_names(summary, keys):
        summary = summary.assign(
            **{name: summary[name].astype(object).mask(summary["primary"], VARIED)}
        )
    apart = (*keys, "seed", *study.identity, "cell", "repeat")
    return summary, [
        str(name) for name in summary if name not in apart and summary[name].dtype.kind in "iuf"
    ]


def varied_names(summary: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    return [
        name for name in ("method", "code") if "primary" in summary and f"estimation.{name}" in keys
    ]


def thresholds(
    frame: pd.DataFrame, key: str, wanted: Wanted, others: Sequence[str] = (), whole: bool = False
) -> pd.DataFrame:
    """For everything that was measured: up to which value of the key what is wanted is met, with
    confidence interval.

    The mean over repeats is followed in straight lines between the values swept (over their
    logarithms, if they are far apart), from the smallest up to the first where it is no longer met.
    Where it is met at large values rather than at small ones, it is the smallest value from which
    on it is always met; where it is met at both ends or only between them, there is no such value.
    The ends of the interval are those of all values that a test at 5 % does not refuse (inversion
    of the test): from where the mean's confidence interval first reaches the wanted value to where
    it last does. Where a repeat gave no value (no estimate at all), it is not met. others: the
    other keys that are varied, which are held. whole: the key takes integers only, and so does
    its edge.
    """
    own = frame[frame["measure"] == wanted.measure]
    identity = [*others, *(name for name in frame.columns if name in IDENTITY)]
    rows = []
    for names, part in own.groupby(identity, sort=False, observed=True):
        part = part.sort_values(key)
        known = part[["mean", "low", "high"]].where(part["unknown"] == 0)
        x, mean, low, high = (
            part[key].to_numpy(float),
            *(known[column].to_numpy(float) for column in known),
        )
        # NaN meets nothing
        met = wanted.met(mean)
        # along one curve, the other keys being held
        edge, *ends = _threshold(x, mean, low, high, met, wanted)
        if whole:
            ends = [_whole(end, edge == "smallest") for end in ends]
        first = len(met) if met.all() else int(np.argmin(met[::-1] if edge == "smallest" else met))
        beyond = 0 if edge == "none" else int(met.sum()) - first
        rows.append((*names, key, str(wanted), len(x), int(met.sum()), edge, *ends, beyond))
    found = pd.DataFrame(rows, columns=[*identity, *THRESHOLDS])
    return found.astype({name: "category" for name in identity if name not in others})


def _threshold(
    x: Array, mean: Array, low: Array, high: Array, met: Array, wanted: Wanted
) -> tuple[str, float, float, float]:
    """edge, value, low, high of one curve."""
    # met at both ends, or only between: there is no edge to give
    if met[0] == met[-1] and met.any() and not met.all():
        return "none", math.nan, math.nan, math.nan
    finite = mean[np.isfinite(mean)]
    rises = bool(
        finite.size and (finite[-1] > finite[0]) == wanted.at_least and finite[-1] != finite[0]
    )
    # at all values or at none the trend decides on which side the edge lies
    smallest = bool(met[-1] and not met[0]) or (met[0] == met[-1] and rises)
    # a single repeat, or all alike: it may be met there, and may not
    unsure = np.isfinite(mean) & np.isnan(low)
    # an interval that is not known may reach anywhere
    worst, best = (-math.inf, math.inf) if wanted.at_least else (math.inf, -math.inf)
    worse, better = (low, high) if wanted.at_least else (high, low)
    worse = np.where(unsure, worst, worse)
    better = np.where(unsure, best, better)
    ends = _edge(x, worse, wanted, smallest), _edge(x, better, wanted, smallest, last=True)
    some, other = (math.nan, math.nan) if np.isnan(low).all() else sorted(ends)
    return "smallest" if smallest else "largest", _edge(x, mean, wanted, smallest), some, other


def _edge(x: Array, y: Array, wanted: Wanted, smallest: bool, last: bool = False) -> float:
    """Up to where y, in straight lines over ascending x, meets what is wanted (smallest: from where
    on); inf beyond x. last: where it meets it for the last time.
    """
    # the mirror image: from where on is up to where, seen from the other end
    if smallest:
        return -_edge(-x[::-1], y[::-1], wanted, False, last)
    met = wanted.met(y)
    # the last place where it is met, or the one before the first where it is not
    ends = np.flatnonzero(met) if last else np.flatnonzero(~met) - 1
    if met.all():
        return math.inf
    i = -1 if ends.size == 0 else int(ends[-1] if last else ends[0])
    if i == -1:
        return -math.inf
    if i == x.size - 1:
        return math.inf
    if not math.isfinite(y[i]) or not math.isfinite(y[i + 1]):
        return float(x[i] if math.isfinite(y[i]) else x[i + 1])
    # where the straight line between two values swept crosses what is wanted
    share = (wanted.value - y[i]) / (y[i + 1] - y[i])
    if is_logarithmic(np.abs(x)) and x[i] != 0 and x[i + 1] != 0:
        return float(x[i] * (x[i + 1] / x[i]) ** share)
    return float(x[i] + share * (x[i + 1] - x[i]))


def _whole(edge: float, smallest: bool) -> float:
    """The smallest integer not below an edge, or the largest not above it."""
    if not math.isfinite(edge):
        return edge
    # 3.0000000001 is 3, not 4
    near = float(round(edge))
    return (
        near
        if abs(edge - near) <= ROUNDING * abs(edge)
        else float(math.ceil(edge) if smallest else math.floor(edge))
    )


def is_logarithmic(x: Array) -> bool:
    """Whether values (none negative) are to be seen on a logarithmic scale."""
    positive = x[x > 0]
    return bool(
        (x >= 0).all() and positive.size > 1 and positive.max() / positive.min() >= FAR_APART
    )


def difference(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, float, float, str]:
    """Mean of B less that of A, its confidence interval (NaN where it cannot be known: of fewer
    than two runs, or of differences that are all the same), and over what: pairs of the same seed,
    or else all that have a value (Welch's). A seed that occurs more than once, at values of a key
    that the other sweep does not vary, counts once, with its mean.
    """
    from scipy.stats import ttest_ind, ttest_rel  # much to load, and seldom needed

    # one value per seed: seeds are what is independent
    a, b = (of.groupby("seed")["value"].mean().reset_index() for of in (a, b))
    pairs = a[["seed", "value"]].merge(b[["seed", "value"]], on="seed").dropna()
    if len(pairs) > 1 or len(pairs) == len(a) == len(b):
        x = pairs["value_x"].to_numpy(float)
        y = pairs["value_y"].to_numpy(float)
        test = ttest_rel
        over = f"{len(pairs)} pair{'s' * (len(pairs) != 1)}"
        with np.errstate(invalid="ignore"):  # of infinities
            gaps = y - x
        extent, middle = (np.ptp(gaps), float(gaps.mean())) if len(pairs) else (0.0, math.nan)
    else:
        x, y = (of["value"].dropna().to_numpy(float) for of in (a, b))
        test = partial(ttest_ind, equal_var=False)
        over = f"{len(x)}, {len(y)} runs"
        extent = np.ptp(x) + np.ptp(y) if min(len(x), len(y)) > 1 else 0.0
        middle = float(y.mean() - x.mean()) if min(len(x), len(y)) else math.nan
    # all the same: a test would divide by zero
    if not extent > ROUNDING * np.abs([*x, *y, 0.0]).max():
        return middle, math.nan, math.nan, over
    # B first: the interval is that of B - A
    low, high = test(y, x).confidence_interval(CONFIDENCE)
    return middle, float(low), float(high), over
