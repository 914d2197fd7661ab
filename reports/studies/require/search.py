"""The least demanding value at which what is wanted is met: bisection over a ladder of values, each
judged by as many repeats as it takes.

A ladder of m values has the ideal one first, the least demanding last. The last is judged first;
then, between a value that is met and one that is not, the middle one, until two neighbours are
left: ceil(log2(m - 1)) decisions after those of the two ends, D in all. The ideal value, which is
met where a worse one is, is judged only where the first middle one is not met: to be sure of what
is met takes the most repeats. A decision looks at its value after 4, 8, 16, ... repeats (of shares,
which are counted in runs, 1, 2, 4, ...) and ends when the confidence interval of the mean lies on
one side of what is wanted; at each of l looks the mean lies beyond one end of it with probability
alpha/(D l). Where a search goes
wrong, a decision does, and to the one side where it can, at one of the D values that right ones
lead to: with probability alpha at most (Bonferroni), however looks and decisions depend on each
other. A value that the last look leaves open lies within noise of what is wanted: it counts as not
met, and is told apart; more repeats would tell.
"""

import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np

from perturb.errors import InputError
from reports.statistics import ROUNDING, Wanted, share_interval, t_reach
from reports.store.sweep_database import Outcome, Row

MET, NOT_MET, UNDECIDED, OPEN = "met", "not met", "undecided", "open"
# how a search ended
FOUND, ALL, NONE, GOING_ON = "found", "met everywhere", "met nowhere", "not known yet"
# of what a search is: of one key, or of all
ALONE, TOGETHER = "alone", "together"
FIRST_LOOK = 4  # repeats; with fewer a t interval of so high a confidence excludes nothing
Point = dict[str, Any]  # keys to values


class Condition(NamedTuple):
    """What is to be met, and how it is judged.

    wanted: of which measure, and how much of it. of: which row of a summary it is in. runs: of a
    share, how many runs or dies each repeat has; 0 of other measures. looks: repeats after which a
    value is judged. alpha: probability that a search errs.
    """

    wanted: Wanted
    of: Mapping[str, Any]
    unit: str
    runs: int
    looks: Sequence[int]
    alpha: float

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any]) -> "Condition":
        """As it is stored."""
        stored = plan["sweep"]["require"]
        return cls(**{**stored, "wanted": Wanted(**stored["wanted"])})

    def measured(self, rows: str) -> float:
        """The measure in the summary of one cell; InputError if it has none of this name."""
        columns = json.loads(rows)
        facts = "measure" in columns
        name = self.wanted.measure
        known = (
            set(columns["measure"])
            if facts
            # columns of texts, of method and quantity, and of truth values can be wanted of nothing
            else {name for name, cells in columns.items() if {*map(type, cells)} & {int, float}}
        )
        if name not in known:
            raise InputError(
                f"wanted = {self.wanted}: {name} is no measure of this study: one of"
                f" {', '.join(sorted(known))}"
            )
        where = {**self.of, **({"measure": name} if facts else {})}
        values = columns["value" if facts else name]
        for row, value in enumerate(values):
            if all(columns[column][row] == wanted for column, wanted in where.items()):
                # JSON has no NaN
                return math.nan if value is None else float(value)
        return math.nan


class Measured:
    """What the repeats of points gave, as they come."""

    def __init__(self, condition: Condition):
        self._condition = condition
        self._found: dict[tuple, dict[int, float]] = {}

    @staticmethod
    def name(point: Point) -> tuple:
        """What tells a point from others."""
        return tuple(sorted(point.items()))

    def add(self, row: Row, outcome: Outcome) -> None:
        """How a cell ended: one that failed gave nothing."""
        done = outcome.status == "done"
        value = self._condition.measured(outcome.rows) if done else math.nan
        self._found.setdefault(self.name(row.parameters), {})[row.repeat] = value

    def __call__(self, point: Point) -> list[float]:
        """What repeats 0, 1, ... gave, up to the first that has not ended."""
        known = self._found.get(self.name(point), {})
        # cells end in any order where there are several workers: what lies beyond a gap waits, so
        # that a decision does not depend on their number
        return [known[repeat] for repeat in takewhile(known.__contains__, count())]


class Judged(NamedTuple):
    """What is known of a value after some repeats: mean and its interval, on which it was decided.
    Of an OPEN one, repeats is how many it takes.
    """

    status: str
    repeats: int
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan


def looks_up_to(most: int, first: int = FIRST_LOOK) -> tuple[int, ...]:
    """Repeats at which a value is looked at: first, twice as many, ... and the most."""
    doubling = [first << i for i in range(most.bit_length()) if first << i < most]
    return (*doubling, most)


def judged(values: Sequence[float], condition: Condition, level: float) -> Judged:
    """Whether it is met, from what repeats 0, 1, ... gave. level: probability that the
    mean lies beyond one end of the interval of a look.

    A repeat that gave no finite value meets nothing. Where all gave the same there is no interval,
    and the last look takes the mean as it is.
    """
    found = Judged(OPEN, condition.looks[0])
    # all looks in their order, also where more repeats are known: a resumed search decides as one
    # that was never stopped
    for n in condition.looks:
        if len(values) < n:
            return Judged(OPEN, n)
        first = np.array(values[:n], float)
        if not np.isfinite(first).all():
            # a mean of the others would hide it
            return Judged(NOT_MET, n)
        mean = float(first.mean())
        # level is that of one end, and the interval has two
        low, high = _interval(first, mean, condition, 1 - 2 * level)
        found = Judged(UNDECIDED, n, mean, low, high)
        sure = condition.wanted.met(np.array([low, high]))
        # NaN, of no interval, is equal to nothing
        if low <= high and sure[0] == sure[1]:
            return found._replace(status=MET if sure[0] else NOT_MET)
    if math.isnan(found.low):
        met = bool(condition.wanted.met(np.array(found.mean)))
        return found._replace(status=MET if met else NOT_MET)
    return found


def _interval(
    values: np.ndarray, mean: float, condition: Condition, confidence: float
) -> tuple[float, float]:
    """Clopper and Pearson's of shares, which are counted over all repeats, Student's of others."""
    n = len(values)
    if condition.runs:
        return share_interval(
            round(mean * n * condition.runs), n * condition.runs, "exact", confidence
        )
    # equal but for rounding: an interval of no width would be sure of anything
    if np.ptp(values) <= ROUNDING * np.abs(values).max():
        return math.nan, math.nan
    reach = float(t_reach(np.array(n), confidence)) * float(values.std(ddof=1))
    # Student's interval may reach beyond what a cosine or a share can be
    most = 1.0 if condition.unit in ("cosine", "share") else math.inf
    least = {"cosine": -1.0, "share": 0.0}.get(condition.unit, -math.inf)
    return max(mean - reach, least), min(mean + reach, most)


def bisection(length: int) -> Generator[int, bool, int]:
    """Asks of places of a ladder whether it is met there, and returns the last one at which
    it is: -1 if it is not even at the first.
    """
    # where it decides, one value is enough
    if (yield length - 1):
        return length - 1
    met = -1
    unmet = length - 1
    while unmet - met > 1:
        # where the first middle value is not met it may be that none is, which the ideal one tells
        middle = 0 if met < 0 and unmet < length - 1 else (max(met, 0) + unmet) // 2
        if (yield middle):
            met = middle
        elif middle == 0:
            return -1
        else:
            unmet = middle
    return met


def decisions(length: int) -> int:
    """The most that `bisection` asks."""
    return 1 if length == 1 else 2 + math.ceil(math.log2(length - 1))


def _level(length: int, condition: Condition) -> float:
    """Of one end of an interval, on a ladder of so many values: Bonferroni, see the head."""
    return condition.alpha / (decisions(length) * len(condition.looks))


def can_tell(length: int, condition: Condition) -> bool:
    """Whether a share is seen to be met by the last look, if every single run does it."""
    return not condition.runs or _is_met(0, condition.looks[-1], length, condition)


def _is_met(misses: int, repeats: int, length: int, condition: Condition) -> bool:
    """Whether so many repeats tell that it is met, if all their runs but some do it."""
    n = repeats * condition.runs
    # of what is to be rare, none of the runs does it
    count = n - misses if condition.wanted.met(np.array(1.0)) else misses
    ends = share_interval(count, n, "exact", 1 - 2 * _level(length, condition))
    return bool(condition.wanted.met(np.array(ends)).all())


def most_misses(length: int, condition: Condition) -> int:
    """Of a share: of how many runs of all repeats it may be missed where it is seen to be met; -1:
    it is not met even where every run does it.
    """
    misses = -1
    while _is_met(misses + 1, condition.looks[-1], length, condition):
        misses += 1
    return misses


def repeats_to_tell(mean: float, length: int, condition: Condition) -> int:
    """Of a share: how many repeats, twice as many again and again, would tell that it is met or
    not, if it stayed as it is; 0 if 10,000 would not.
    """
    repeats = condition.looks[-1]
    while repeats < 10_000:
        repeats *= 2
        more = condition._replace(looks=looks_up_to(repeats, condition.looks[0]))
        n = repeats * condition.runs
        ends = share_interval(round(mean * n), n, "exact", 1 - 2 * _level(length, more))
        low, high = condition.wanted.met(np.array(ends))
        if low == high:
            return repeats
    return 0


def met_takes(lengths: Sequence[int], condition: Condition) -> str:
    """Of a share: in how many runs of all repeats it must be seen to be met; "" of others."""
    if not condition.runs:
        return ""
    n = condition.looks[-1] * condition.runs
    misses = sorted({max(most_misses(length, condition), 0) for length in lengths})
    # intervals of longer searches are wider
    if condition.wanted.met(np.array(1.0)):
        counts = " to ".join(f"{n - most:,}" for most in reversed(misses))
        takes = f"all {n:,}" if misses == [0] else f"at least {counts} of {n:,}"
    else:
        takes = f"at most {' to '.join(map(str, misses))} of {n:,}"
    return (
        f"after {condition.looks[-1]} repeats of {condition.runs} runs each, met takes {takes} runs"
    )


class Search(NamedTuple):
    """How far a search is: tested, place by place in their order; answer, a place, -1 if there is
    none, None if it is not known yet; then `wants` says of which place how many repeats are needed.
    """

    points: Sequence[Point]
    tested: dict[int, Judged]
    answer: int | None
    wants: tuple[int, int] | None = None

    @property
    def status(self) -> str:
        """How it ended, if it has."""
        if self.answer is None:
            return GOING_ON
        if self.answer < 0:
            return NONE
        return ALL if self.answer == len(self.points) - 1 else FOUND


def search(
    points: Sequence[Point], condition: Condition, values: Callable[[Point], Sequence[float]]
) -> Search:
    """A search from its beginning, as far as what is known leads. values: what the repeats of a
    point gave, in their order.
    """
    level = _level(len(points), condition)
    tested: dict[int, Judged] = {}
    asks = bisection(len(points))
    place = next(asks)
    while True:
        found = judged(values(points[place]), condition, level)
        if found.status == OPEN:
            return Search(points, tested, None, (place, found.repeats))
        tested[place] = found
        try:
            place = asks.send(found.status == MET)
        except StopIteration as end:
            return Search(points, tested, end.value)


def longest(ladders: Mapping[str, Sequence[float]]) -> int:
    """How many specifications of all keys together there are at most."""
    return 1 + sum(len(ladder) - 1 for ladder in ladders.values())


def alone(ladders: Mapping[str, Sequence[float]]) -> list[list[Point]]:
    """The ladder of each key, the others being as in the experiment."""
    return [[{key: value} for value in ladder] for key, ladder in ladders.items()]


def together(ladders: Mapping[str, Sequence[float]], places: Sequence[int]) -> list[Point]:
    """A ladder of specifications of all keys: the last has the value at its place of each, the
    ones before it are tightened by a step of one key after another, up to the ideal ones.
    """
    now = list(places)
    found = [tuple(now)]
    while any(now):
        for i, place in enumerate(now):
            # in turn, so that specifications have one order, which a bisection needs
            if place:
                now[i] = place - 1
                found.append(tuple(now))
    return [
        {key: ladder[place] for (key, ladder), place in zip(ladders.items(), at, strict=True)}
        for at in reversed(found)
    ]


def searches(
    ladders: Mapping[str, Sequence[float]],
    condition: Condition,
    values: Callable[[Point], Sequence[float]],
) -> list[Search]:
    """That of each key, and of several, once each has a value, that of all together."""
    found = [search(points, condition, values) for points in alone(ladders)]
    places = [each.answer for each in found if each.answer is not None and each.answer >= 0]
    # of one key, all together is that key alone; of a key without a value there is nothing to put
    # together
    if len(found) == 1 or len(places) < len(found):
        return found
    return [*found, search(together(ladders, places), condition, values)]
