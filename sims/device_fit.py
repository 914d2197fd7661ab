"""A device of one's own: a table of measured pulse responses becomes a device file.

Every model is fitted by least squares on the innovations of a Kalman filter, which is what separates the two noises: that of a
pulse stays in the weight and adds up, that of a reading (write noise) does not. With theta the mean response of a cell, c the
cycle-to-cycle noise and sigma_w the write noise:

    x := x + d dw_d f_d(x),   P := F^2 P + (c dw_d)^2 (f_d^2 or 1),   F = 1 + d dw_d f_d'      for every pulse
    e = y - x,   S = P + sigma_w^2,   x := x + e P / S,   P := P sigma_w^2 / S                    for every reading y

theta minimises sum e^2 / S with S held. From there theta, c and sigma_w maximise the likelihood L, -2 ln L = sum (ln 2 pi S +
e^2 / S): each cell's own parameters, the noises, and what all cells share, in turn (where noise is a share of the step, its size
tells of the step, too). Models are compared by BIC = p ln N - 2 ln L (Schwarz 1978). Linear models are filtered exactly but for
their bounds, the exponential one to first order (Kalman 1960; Jazwinski 1970). If a pulse crosses more than COARSE of the range
that is not good enough for a likelihood: there theta stays that of least squares, and the two noises are hard to tell apart.
Spreads from cell to cell are those of the cells' own theta, less their own errors.
"""

import csv
import io
import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hardware.device import DeviceParams
from hardware.params import Table, cut, one_line, validated
from perturb.errors import InputError, choose
from perturb.philox import compiled

Array = np.ndarray

MAX_ROWS = 10**6
MIN_READINGS = 20  # in each direction, of each cell
MAX_CELLS = 1000
COARSE = 0.04  # share of the range measured
LINEAR, EXPONENTIAL = 0, 1
REACH = 2.0  # a soft bound further out than this times the largest weight measured is no bound of these data


# ---- the table


@dataclass(frozen=True)
class Measured:
    """Readings y in range units, in the order of the file within each sequence; `first` begins one (a cell's cycle)."""

    y: Array
    pulses: Array  # +-m: the reading came after m pulses of that direction since the one before it
    first: Array
    cell: Array  # 0, 1, ...
    labels: list[str]  # of the cells
    number: Array  # pulses since the sequence began
    unit: str  # of the table's readings
    zero: float  # reading, in that unit, that is w = 0
    per_range: float  # reading per range unit
    one_sided: bool
    resolution: float  # smallest difference between two readings
    counted: Array  # readings that tell of a step: not the first of a sequence, nor one equal to that before it (a hard bound)

    @property
    def n_cells(self) -> int:
        return len(self.labels)

    @property
    def floor(self) -> float:
        """Variance of a reading by its rounding alone."""
        return self.resolution**2 / 12


COLUMNS = {
    "pulse": "number of the pulse after which it was read, rising within a cell and cycle; gaps: pulses without a reading",
    "direction": "of that pulse: 1 or up, -1 or down; 0 = no pulse yet",
    "weight or conductance": "weight in range units, -1..1 or so; or conductance in any unit, named as in conductance_us",
    "device": "(optional) which cell",
    "cycle": "(optional) which repetition on that cell",
}
DIRECTIONS = {"1": 1, "+1": 1, "up": 1, "-1": -1, "down": -1, "0": 0, "": 0}


def read_pulses(path: str | Path, low: float | None = None, high: float | None = None) -> Measured:
    """The table of pulse responses in a CSV file; columns as in COLUMNS, in any order; lines that start with # are skipped.

    low, high: conductances of w = -1 and w = 1 (of w = 0 and w = 1 if all pulses go up: one side of a pair); left out, the mean
    over cells of the lowest and highest reading. A file that cannot be used raises InputError, naming line and column.
    """
    source = one_line(cut(str(path), 200))
    lines = _lines(path, source)
    header_line, header = lines[0]
    names = [name.strip().lower() for name in header]
    where = {}
    for column in ("pulse", "direction", "device", "cycle"):
        if names.count(column) > 1:
            raise InputError(f"{source}: line {header_line}: column {column} is there twice: remove one")
        where[column] = names.index(column) if column in names else -1
    readings = [i for i, name in enumerate(names) if name == "weight" or name.startswith("conductance")]
    if min(where["pulse"], where["direction"]) < 0 or len(readings) != 1:
        raise InputError(
            f"{source}: line {header_line}: columns are {one_line(cut(', '.join(names), 100))}, but pulse, direction and one of "
            "weight, conductance_us are needed (device, cycle may be added)"
        )
    where["reading"] = readings[0]
    kind = names[readings[0]]
    weights = kind == "weight"
    unit = "range" if weights else kind.removeprefix("conductance").strip(" _()[]") or "the table's unit"
    if weights and (low is not None or high is not None):
        raise InputError(f"{source}: low and high are for conductances, but column weight is in range units: remove them")

    rows = [_row(source, line, cells, where, len(names), kind) for line, cells in lines[1:]]
    sequences: dict[tuple[str, str], list[tuple[int, int, int, float]]] = {}
    for line, cell, cycle, number, direction, reading in rows:
        sequence = sequences.setdefault((cell, cycle), [])
        if sequence and number <= sequence[-1][1]:
            raise InputError(
                f"{source}: line {line}: pulse = {number} does not follow {sequence[-1][1]}, the one before it on device "
                f"{cell or 0}, cycle {cycle or 0}: number the pulses, and name the cycles in a column cycle"
            )
        if sequence and direction == 0:
            raise InputError(f"{source}: line {line}: direction = 0 is for the reading before the first pulse: give 1 or -1")
        sequence.append((line, number, direction, reading))
    return _normalised(source, sequences, weights, unit, low, high)


def _lines(path: str | Path, source: str) -> list[tuple[int, list[str]]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise InputError(f"{source}: cannot be read ({why}): give a CSV file of measured pulse responses") from None
    if "\0" in text:
        raise InputError(f"{source}: not a text (it holds a zero byte): give a CSV file")
    lines, number = [], 0
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text)), 1):
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                lines.append((number, cells))
    except csv.Error as error:
        raise InputError(f"{source}: line {number + 1}: not valid CSV ({error})") from None
    if len(lines) < 2:
        raise InputError(f"{source}: holds no readings: give a header and a line per reading ({', '.join(COLUMNS)})")
    if len(lines) > MAX_ROWS:
        raise InputError(f"{source}: has more than {MAX_ROWS} readings: leave some out")
    return lines


def _row(
    source: str, line: int, cells: list[str], where: dict[str, int], n: int, kind: str
) -> tuple[int, str, str, int, int, float]:
    if len(cells) != n:
        raise InputError(f"{source}: line {line}: has {len(cells)} columns but the header has {n}")

    def value(column: str) -> str:
        return cells[where[column]].strip() if where[column] >= 0 else ""

    def wrong(column: str, text: str, must: str) -> InputError:
        return InputError(f"{source}: line {line}: {column} = {one_line(cut(text, 40)) or 'nothing'} must be {must}")

    try:
        number = float(value("pulse"))
    except ValueError:
        number = -1.0
    if not (0 <= number <= 1e9 and number == int(number)):
        raise wrong("pulse", value("pulse"), "a whole number >= 0")
    direction = value("direction").lower().removesuffix(".0")
    if direction not in DIRECTIONS:
        raise wrong("direction", value("direction"), "1 or up, -1 or down, or 0 before the first pulse")
    try:
        reading = float(value("reading"))
    except ValueError:
        reading = math.nan
    if not math.isfinite(reading):
        raise wrong(kind, value("reading"), "a finite number")
    if kind == "weight" and abs(reading) > 10:
        raise wrong(kind, value("reading"), "in range units, -1..1 or so; name the column conductance if it is one")
    return line, value("device"), value("cycle"), int(number), DIRECTIONS[direction], reading


def _normalised(
    source: str, sequences: dict[tuple[str, str], list], weights: bool, unit: str, low: float | None, high: float | None
) -> Measured:
    labels = list(dict.fromkeys(cell for cell, _ in sequences))
    if len(labels) > MAX_CELLS:
        raise InputError(f"{source}: has {len(labels)} devices but at most {MAX_CELLS} can be fitted: leave some out")
    y, pulses, first, cell, number = [], [], [], [], []
    for label in labels:
        for (own, _), sequence in sequences.items():
            if own == label:
                before = sequence[0][1]
                for place, (_, count, direction, reading) in enumerate(sequence):
                    y.append(reading)
                    pulses.append(direction * (count - before))
                    first.append(place == 0)
                    cell.append(labels.index(label))
                    number.append(count - sequence[0][1])
                    before = count
    values, changes, cells = np.array(y), np.array(pulses), np.array(cell)
    one_sided = not (changes < 0).any()
    for i, label in enumerate(labels):
        named = f"{source}: device {one_line(cut(label, 40)) or 0}"
        for sign, word in ((1, "up"), (-1, "down"))[: 1 if one_sided else 2]:
            n = int((np.sign(changes[cells == i]) == sign).sum())
            if n < MIN_READINGS:
                raise InputError(f"{named} has {n} readings after pulses {word}, but {MIN_READINGS} are needed: measure more")
        if np.ptp(values[cells == i]) == 0:
            raise InputError(f"{named} reads {values[cells == i][0]:g} everywhere: no pulse changes it, so nothing can be fitted")
    if np.abs(changes).max() > 10**5:
        raise InputError(f"{source}: {np.abs(changes).max()} pulses without a reading between are too many: at most 100000")
    zero, per_range = 0.0, 1.0
    if weights and not one_sided and not values.min() < 0 < values.max():
        raise InputError(
            f"{source}: weights reach from {values.min():g} to {values.max():g}, but w = 0 must lie within: measure both "
            "signs, or name the column conductance if it is one"
        )
    if weights and one_sided and values.min() < -0.5:
        raise InputError(
            f"{source}: all pulses go up, as on a side of a pair, but weights reach {values.min():g}: sides start at 0"
        )
    if not weights:
        ends = [(values[cells == i].min(), values[cells == i].max()) for i in range(len(labels))]
        low = float(np.mean([a for a, _ in ends])) if low is None else low
        high = float(np.mean([b for _, b in ends])) if high is None else high
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"{source}: low = {low:g} must be less than high = {high:g}")
        zero, per_range = (low, high - low) if one_sided else ((low + high) / 2, (high - low) / 2)
        values = (values - zero) / per_range
        if np.abs(values).max() > 10:
            raise InputError(
                f"{source}: readings reach {np.abs(values).max():.3g} times the range that low = {low:g} and high = {high:g} "
                "span: give the conductances of w = -1 and w = 1"
            )
    started = np.array(first)
    resolution = float(np.diff(np.unique(values)).min())
    counted = ~started & (np.abs(values - np.roll(values, 1)) > 0.5 * resolution)
    return Measured(
        values, changes, started, cells, [label or "0" for label in labels], np.array(number), unit, zero, per_range, one_sided,
        resolution, counted,
    )  # fmt: skip


# ---- the filter


@compiled()
def _step(kind, theta, up, x):
    """dw f(x) and dw f'(x)."""
    dw = theta[0] if up else theta[1]
    if kind == LINEAR:
        slope = theta[2] if up else theta[3]
        return dw * (1.0 - slope * x), -dw * slope
    A, k = (theta[2], theta[4]) if up else (theta[3], theta[5])
    grown = A * math.exp(min(k * x, 100.0))
    f = 1.0 - grown
    if f <= 0.0:
        return 0.0, 0.0
    return dw * f, -dw * k * grown


@compiled()
def _censored(m, P, high):
    """Mean and variance of min(X, high), X normal of mean m and variance P."""
    s = math.sqrt(P)
    u = (high - m) / max(s, 1e-300)
    if u > 6.0:
        return m, P
    if u < -6.0:
        return high, 0.0
    density, below = math.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi), 0.5 * math.erfc(-u / math.sqrt(2.0))
    short = density + u * below
    return high - s * short, max(P * ((1.0 + u * u) * below + u * density - short * short), 0.0)


@compiled()
def _filter(kind, y, pulses, first, cell, theta, held, low, high, c, additive, write, floor, e, S, x_after):
    """Innovations e and their variances S, without those of first readings (e = 0, S = 1). held: theta that S goes by.

    At a hard bound the weight is the lesser of itself and the bound: its first two moments are kept.
    """
    x, P, r = 0.0, 0.0, write * write + floor
    for i in range(y.size):
        own, ref = theta[cell[i]], held[cell[i]]
        if first[i]:
            x, P, e[i], S[i] = y[i], r, 0.0, 1.0
            x_after[i] = x
            continue
        up = pulses[i] > 0
        d = 1.0 if up else -1.0
        for _ in range(abs(pulses[i])):
            noise, slope = _step(kind, ref, up, x)
            if additive:
                noise = ref[0] if up else ref[1]
            step, _ = _step(kind, own, up, x)
            x += d * step
            P = (1.0 + d * slope) ** 2 * P + (c * noise) ** 2
            if up:
                x, P = _censored(x, P, high[cell[i]])
            else:
                x, P = _censored(-x, P, -low[cell[i]])
                x = -x
        S[i] = P + r
        e[i] = y[i] - x
        x += e[i] * P / S[i]
        P *= r / S[i]
        x_after[i] = x


@compiled()
def _mean_curve(kind, y, pulses, first, cell, theta, low, high, x_mean):
    """The mean response from every sequence's first reading, with no look at the later ones."""
    x = 0.0
    for i in range(y.size):
        if first[i]:
            x = y[i]
        for _ in range(abs(pulses[i])):
            up = pulses[i] > 0
            step, _ = _step(kind, theta[cell[i]], up, x)
            x = min(max(x + (step if up else -step), low[cell[i]]), high[cell[i]])
        x_mean[i] = x


# ---- models


@dataclass(frozen=True)
class Candidate:
    """A model to fit: its response has `own` parameters per cell, `shared` ones for all, and `ends` hard bounds per cell."""

    model: str
    kind: int
    additive: bool
    own: int
    shared: int
    ends: int


CANDIDATES = {
    "constant-step": [Candidate("constant-step", LINEAR, False, 2, 0, 2)],
    "soft-bounds": [Candidate("soft-bounds", LINEAR, additive, 4 - s, s, 0) for s in (2, 0) for additive in (False, True)],
    "linear-step": [Candidate("linear-step", LINEAR, additive, 4 - s, s, 2) for s in (2, 0) for additive in (False, True)],
    "exponential-step": [Candidate("exponential-step", EXPONENTIAL, additive, 2, 4, 2) for additive in (False, True)],
    "one-sided-pair": [Candidate("one-sided-pair", EXPONENTIAL, additive, 1, 2, 1) for additive in (False, True)],
}


@dataclass
class Fitted:
    """theta (n_cells, 6): dw_up, dw_down, then slopes, or A_up, A_down, k_up, k_down of f = 1 - A exp(k w)."""

    candidate: Candidate
    theta: Array
    covariance: list[Array]  # of each cell's free parameters, in the order of `_free`
    low: Array
    high: Array
    bounded: bool  # whether these are bounds, rather than just the extremes measured
    c: float
    write: float
    noise_stderr: tuple[float, float]
    log_likelihood: float
    bic: float
    n_parameters: int
    device: DeviceParams | None = None
    refused: str = ""
    stderr: dict[str, float] = field(default_factory=dict)


def _segments(data: Measured) -> Array:
    """(cell, direction, weight, change per pulse) of stretches of pulses of one direction, each by a straight line through it."""
    rows = []
    starts = np.flatnonzero(data.first | (np.sign(data.pulses) != np.sign(np.roll(data.pulses, 1))))
    for a, b in zip(starts, np.append(starts[1:], data.y.size), strict=True):
        if data.first[a]:
            continue
        a -= 1  # the reading before the first pulse of this direction belongs to the stretch
        pieces = max(1, min(12, (b - a) // 6))
        edges = np.linspace(a, b - 1, pieces + 1).astype(int)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            count = np.concatenate([[0], np.cumsum(np.abs(data.pulses[low + 1 : high + 1]))])
            if count[-1] > 0:
                slope, middle = np.polyfit(count - count.mean(), data.y[low : high + 1], 1)
                rows.append((data.cell[a], np.sign(data.pulses[high]), middle, slope, count[-1]))
    return np.array(rows)


def _largest_step(data: Measured) -> float:
    """Mean change per pulse right after pulses have turned round, where steps are largest, as a share of the range measured."""
    turns = np.flatnonzero(~data.first & (np.sign(data.pulses) != np.sign(np.roll(data.pulses, 1)))) - 1
    ends = np.minimum(turns + 3, data.y.size - 1)
    whole = np.cumsum(data.first)
    turns, ends = turns[whole[turns] == whole[ends]], ends[whole[turns] == whole[ends]]
    counts = [data.pulses[a + 1 : b + 1].sum() for a, b in zip(turns, ends, strict=True)]
    changes = [(data.y[b] - data.y[a]) / count for a, b, count in zip(turns, ends, counts, strict=True) if count]
    spans = [np.ptp(data.y[data.cell == i]) for i in range(data.n_cells)]
    return float(np.mean(changes) / np.median(spans)) if changes else 0.0


def _starts(candidate: Candidate, data: Measured, segments: Array) -> list[Array]:
    """theta from straight stretches of the data: robust, not efficient. Of exponentials, for both signs of k."""
    typical = max(np.abs(segments[:, 3]).mean(), 1e-9)
    directions = (1,) if data.one_sided else (1, -1)

    def line(part: Array, regressor: Array) -> tuple[float, float, float]:
        X = np.column_stack([np.ones(len(part)), regressor])
        weight = np.sqrt(part[:, 4])
        (intercept, slope), *_ = np.linalg.lstsq(X * weight[:, None], part[:, 3] * part[:, 1] * weight, rcond=None)
        misfit = float((((X @ [intercept, slope]) - part[:, 3] * part[:, 1]) ** 2 * weight**2).sum())
        return intercept, slope, misfit

    if candidate.kind == EXPONENTIAL:
        starts = []
        for sign in (-1, 1):
            theta = np.zeros((data.n_cells, 6))
            for d in directions:
                part, side = segments[segments[:, 1] == d], 0 if d > 0 else 1
                tried = [(line(part, np.exp(d * sign * g * part[:, 2])), d * sign * g) for g in (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)]
                # the step is positive everywhere, or the regression has followed noise
                tried = [(fit, k) for fit, k in tried if fit[0] > 0.02 * typical and fit[0] + fit[1] > 0.02 * typical]
                (dw, slope, _), k = (
                    min(tried, key=lambda pair: pair[0][2]) if tried else ((typical, 0.1 * typical, 0.0), d * sign)
                )
                theta[:, side], theta[:, 2 + side], theta[:, 4 + side] = dw, -slope / dw, k
            mild = np.zeros_like(theta)
            mild[:, :2], mild[:, 2:4], mild[:, 4], mild[:, 5] = typical, -0.3, 2.0 * sign, -2.0 * sign
            starts += [theta, mild]
        return starts
    theta = np.zeros((data.n_cells, 6))
    for d in directions:
        side, every = 0 if d > 0 else 1, segments[segments[:, 1] == d]
        for i in range(data.n_cells):
            part = every[every[:, 0] == i]
            theta[i, side] = max((part[:, 3] * d * part[:, 4]).sum() / part[:, 4].sum(), 1e-2 * typical)
        if candidate.own + candidate.shared == 4:
            intercept, slope, _ = line(every, every[:, 2])
            if intercept > 0.1 * typical:
                theta[:, 2 + side] = -slope / intercept
    return [theta]


def fit_candidate(candidate: Candidate, data: Measured, segments: Array) -> Fitted:
    """Fit one model (head of this module), from the start that leads to the larger likelihood."""
    work = [_Work(candidate, data, theta) for theta in _starts(candidate, data, segments)]
    if len(work) > 1:
        for one in work:
            one.find_noises()
        work = sorted(work, key=lambda one: -one.log_likelihood(one.c, one.write))[:2]
        for one in work:
            one.improve(2)
        work.sort(key=lambda one: -one.likelihood)
    best, penalty = work[0], math.log(data.counted.sum()) / 2
    best.improve(8)
    if best.write > 0:  # noise of readings that the data do not show is none
        exact = best.without_write_noise()
        exact.improve(4)
        best = exact if exact.likelihood > best.likelihood - penalty else best
    if candidate.ends and (best.write > 0 or not (data.counted | data.first).all()):
        # the extremes measured are bounds only if the data are likelier so: they may just be where pulses turned round
        bounded = best.bounded()
        bounded.improve(4)
        best = bounded if bounded.likelihood > best.likelihood + candidate.ends * penalty else best
    return best.result()


def _soft_ends(theta: Array) -> tuple[Array, Array]:
    """Lowest and highest weight of cells whose steps vanish at 1/slope; none where they do not."""
    up, down = theta[:, 2], theta[:, 3]
    with np.errstate(divide="ignore"):
        return np.where(down < 0, 1 / down, -np.inf), np.where(up > 0, 1 / up, np.inf)


class _Work:
    """A fit on its way: theta, the noises c and write, and the bounds."""

    def __init__(self, candidate: Candidate, data: Measured, theta: Array):
        self.candidate, self.data, self.theta, self.n = candidate, data, theta, data.n_cells
        self.cells = [np.flatnonzero(data.cell == i) for i in range(self.n)]
        # no bounds yet
        self.low, self.high, self.soft = np.full(self.n, -np.inf), np.full(self.n, np.inf), False
        self.own = _free(candidate)
        self.sides = [j for j in self.own if j < 2]
        # of every cell's own parameters and of those that all share, packed
        self.covariance = [np.eye(len(self.sides if candidate.shared else self.own)) for _ in self.cells]
        self.spread = np.eye(len(self.own))
        self.likelihood = -math.inf
        # first noises: what two neighbouring increments share with opposite signs is of the readings
        e, _, _ = self.run(theta, theta, 1e6, 1e-6)  # all weight on the last reading: e are increments less their means
        inner = ~data.first[1:] & ~data.first[:-1]
        self.write = math.sqrt(max(-float((e[1:] * e[:-1])[inner].mean()), 1e-12))
        per_pulse = e[~data.first] ** 2 / np.maximum(np.abs(data.pulses[~data.first]), 1)
        typical = float(np.mean(theta[:, 0]))
        self.c = math.sqrt(max(float(per_pulse.mean()) - 2 * self.write**2, 1e-4 * typical**2)) / typical
        self.soft = not candidate.ends

        self.coarse = _largest_step(data) > COARSE
        self.exact = False

    def copy(self) -> "_Work":
        other = copy(self)
        other.covariance = list(self.covariance)
        if not self.coarse:
            other.likelihood = -1e300  # from here on, without least squares
        return other

    def bounded(self) -> "_Work":
        """A copy whose cells end at the extremes of their readings."""
        other = self.copy()
        other.low, other.high = (np.array([end(self.data.y[rows]) for rows in self.cells]) for end in (np.min, np.max))
        return other

    def without_write_noise(self) -> "_Work":
        other = self.copy()
        other.write, other.exact = 0.0, True
        other.c = math.hypot(self.c, 1.4 * self.write / float(self.theta[:, 0].mean()))
        return other

    def run(
        self, theta: Array, held: Array, c: float, write: float, rows: Array | slice = slice(None)
    ) -> tuple[Array, Array, Array]:
        data = self.data
        y = data.y[rows]
        e, S, x = np.empty(y.size), np.empty(y.size), np.empty(y.size)
        low, high = _soft_ends(theta) if self.soft else (self.low, self.high)
        _filter(
            self.candidate.kind, y, data.pulses[rows], data.first[rows], data.cell[rows], theta, held, low, high, c,
            self.candidate.additive, write, data.floor, e, S, x,
        )  # fmt: skip
        return e, S, x

    def misfit(self, theta: Array, c: float, write: float, rows: Array | slice = slice(None)) -> float:
        """-ln L of some rows."""
        e, S, _ = self.run(theta, theta, c, write, rows)
        kept = self.data.counted[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            total = 0.5 * float((np.log(2 * np.pi * S[kept]) + e[kept] ** 2 / S[kept]).sum())
        return total if math.isfinite(total) else 1e300

    def log_likelihood(self, c: float, write: float) -> float:
        return -self.misfit(self.theta, c, write)

    def solve(
        self, rows: Array | slice, at: Callable[[Array], Array], start: Array, prior: Array | float = 0.0
    ) -> tuple[Array, Array]:
        """The parameters that minimise sum e^2 / S with S held, and their covariance."""
        from scipy.optimize import least_squares

        held = at(start)

        def whitened(values: Array) -> Array:
            e, S, _ = self.run(at(values), held, self.c, self.write, rows)
            return np.concatenate([np.where(self.data.counted[rows], e / np.sqrt(S), 0.0), values * prior])

        done = least_squares(whitened, start, method="lm", max_nfev=40 * start.size)
        return done.x, _inverse(done.jac.T @ done.jac)

    def improve(self, turns: int) -> None:
        """Least squares to begin with; then the likelihood of cells, of noises and of what cells share, in turn."""
        for _ in range(turns):
            if self.coarse:
                self._least_squares()
            elif self.likelihood == -math.inf:
                self._begin()
            if not self.coarse and (self.n > 1 or not self.candidate.shared):
                self._cells()
            self.find_noises()
            if not self.coarse and self.candidate.shared:
                self._together()
            before, self.likelihood = self.likelihood, self.log_likelihood(self.c, self.write)
            if self.likelihood < before + 0.05:
                return

    def _begin(self) -> None:
        """Least squares, unless they lead astray, as where noise is many times the step."""
        self.find_noises()
        other = self.copy()
        other._least_squares()
        other.find_noises()
        if other.log_likelihood(other.c, other.write) > self.log_likelihood(self.c, self.write):
            self.__dict__.update(other.__dict__)

    def _ratio(self) -> Array:
        """theta over that of a mean cell: of steps their ratios to the geometric mean, else 1."""
        ratio = np.ones_like(self.theta)
        ratio[:, self.sides] = self.theta[:, self.sides] / np.exp(np.log(self.theta[:, self.sides]).mean(0))
        return ratio

    def _cell(self, i: int) -> tuple[Callable[[Array], Array], Array]:
        """theta as a function of what is cell i's own, and where that stands."""

        def at(values: Array) -> Array:
            changed = self.theta.copy()
            if self.candidate.shared:
                changed[i, self.sides] = np.exp(np.clip(values, -30, 1))
            else:
                changed[i] = _unpacked(self.candidate, values)
            return changed

        return at, np.log(self.theta[i, self.sides]) if self.candidate.shared else _packed(self.candidate, self.theta[i])

    def _least_squares(self) -> None:
        if self.candidate.shared:
            ratio = self._ratio()
            values, self.spread = self.solve(
                slice(None),
                lambda values: _unpacked(self.candidate, values) * ratio,
                _packed(self.candidate, self.theta[0] / ratio[0]),
                _prior(self.candidate),
            )
            self.theta = _unpacked(self.candidate, values) * ratio
        for i, rows in enumerate(self.cells):
            if self.n > 1 or not self.candidate.shared:
                at, start = self._cell(i)
                values, self.covariance[i] = self.solve(rows, at, start)
                self.theta = at(values)

    def _cells(self) -> None:
        for i, rows in enumerate(self.cells):
            at, start = self._cell(i)
            scale = np.clip(np.sqrt(np.diag(self.covariance[i])), 1e-5, 0.3)

            def misfit(values: Array, at: Callable[[Array], Array] = at, rows: Array = rows) -> float:
                return self.misfit(at(values), self.c, self.write, rows)

            values, covariance = _most_likely(misfit, start, scale)
            self.theta, self.covariance[i] = at(values), covariance

    def find_noises(self) -> None:
        from scipy.optimize import minimize

        found = minimize(
            lambda z: self.misfit(self.theta, *self._pair(z)),
            [math.log(max(self.c, 1e-4)), math.log(max(self.write, 1e-6))],
            method="Nelder-Mead",
            options={"xatol": 1e-3, "fatol": 1e-2, "maxiter": 150},
        )
        self.c, self.write = self._pair(found.x)

    def _pair(self, z: Array) -> tuple[float, float]:
        """c and the write noise, of their logarithms."""
        return math.exp(min(z[-2], 5.0)), 0.0 if self.exact else math.exp(min(z[-1], 2.0))

    def _together(self) -> None:
        ratio, prior = self._ratio(), _prior(self.candidate)

        def misfit(z: Array) -> float:
            own = self.misfit(_unpacked(self.candidate, z[:-2]) * ratio, *self._pair(z))
            return own + 0.5 * float(((z[:-2] * prior) ** 2).sum())

        noises = [math.log(max(self.c, 1e-4)), math.log(max(self.write, 1e-6))]
        start = np.concatenate([_packed(self.candidate, self.theta[0] / ratio[0]), noises])
        scale = np.concatenate([np.clip(np.sqrt(np.diag(self.spread)), 1e-5, 0.3), [0.02, 0.02]])
        z, covariance = _most_likely(misfit, start, scale)
        self.theta, self.spread = _unpacked(self.candidate, z[:-2]) * ratio, covariance[:-2, :-2]
        self.c, self.write = self._pair(z)

    def covariances(self) -> list[Array]:
        """Of every cell's ln dw, slopes, A and k: its own steps' where it has them, the shared ones' else."""
        if not self.candidate.shared:
            both = zip(self.theta, self.covariance, strict=True)
            return [_natural(self.candidate, _packed(self.candidate, row), own) for row, own in both]
        together = _natural(self.candidate, _packed(self.candidate, self.theta[0] / self._ratio()[0]), self.spread)
        k, found = len(self.sides), []
        for own in self.covariance:
            joined = together.copy()
            if self.n > 1:
                joined[:k, :k] = own
            found.append(joined)
        return found

    def result(self) -> Fitted:
        candidate, N = self.candidate, int(self.data.counted.sum())
        c, write = self.c, self.write
        if self.log_likelihood(0.0, write) > self.log_likelihood(c, write) - math.log(N) / 2:
            c = 0.0  # not shown by the data
        likelihood = self.log_likelihood(c, write)
        errors = _noise_stderr(self.log_likelihood, c, write)
        # the extremes of noisy readings lie outside those of the weight
        _, _, x = self.run(self.theta, self.theta, c, write)
        low, high = (np.array([end(x[rows]) for rows in self.cells]) for end in (np.min, np.max))
        # ends are read off the data, cell by cell, not fitted
        p = self.n * candidate.own + candidate.ends + candidate.shared + (c > 0) + (write > 0)
        return Fitted(
            candidate,
            self.theta,
            self.covariances(),
            low,
            high,
            bool(np.isfinite(self.low).all()),
            c,
            write,
            errors,
            likelihood,
            p * math.log(N) - 2 * likelihood,
            p,
        )


def _inverse(A: Array) -> Array:
    """Of a positive matrix; what it does not determine gets a large variance, not none."""
    scale = np.sqrt(np.maximum(np.diag(A), 0.0)) + 1e-12
    values, vectors = np.linalg.eigh(A / np.outer(scale, scale))
    return (vectors / np.maximum(values, 1e-12)) @ vectors.T / np.outer(scale, scale)


def _prior(candidate: Candidate) -> Array:
    """1 / width of a wide prior about 0 for what the packed parameters of an exponential may be: ln f(0) to 3 or so, k to 10.

    Data whose steps are nearly constant, or nearly a pure exponential, do not determine both; the published devices lie within.
    """
    widths = np.array([np.inf, np.inf, 3.0, 3.0, 10.0, 10.0]) if candidate.kind == EXPONENTIAL else np.full(6, np.inf)
    return 1 / widths[_free(candidate)]


def _most_likely(misfit: Callable[[Array], float], start: Array, scale: Array) -> tuple[Array, Array]:
    """Where a -ln L is least, from `start` in steps of about `scale`, and the covariance that its curvature there tells."""
    from scipy.optimize import minimize

    found = minimize(
        lambda z: misfit(start + scale * z), np.zeros(start.size), method="BFGS", options={"gtol": 0.05, "maxiter": 40}
    )
    z = start + scale * found.x if found.fun < misfit(start) else start
    # curvature at displacements that raise -ln L by about 1/2, one standard error each
    least, h = misfit(z), scale.copy()
    for a, unit in enumerate(np.eye(z.size)):
        for _ in range(8):
            rise = (misfit(z + h[a] * unit) + misfit(z - h[a] * unit)) / 2 - least
            factor = min(max(math.sqrt(0.5 / rise), 0.01), 10.0) if rise > 0 else 10.0
            h[a] = min(h[a] * factor, 1.0)
            if 0.5 < factor < 2 or h[a] == 1.0:
                break
    H, steps = np.zeros((z.size, z.size)), np.diag(h)
    for a in range(z.size):
        for b in range(a + 1):
            corners = [misfit(z + p * steps[a] + q * steps[b]) for p, q in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
            H[a, b] = H[b, a] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * h[a] * h[b])
    return z, _inverse(H)


def _packed(candidate: Candidate, row: Array) -> Array:
    """ln dw and slopes; of exponentials ln(dw f(0)), ln f(0) = ln(1 - A) and k, which hang together less."""
    row = row.copy()
    sides = [j for j in _free(candidate) if j < 2]
    for j in sides:
        row[j] = math.log(row[j])
        if candidate.kind == EXPONENTIAL:
            row[2 + j] = math.log(max(1.0 - row[2 + j], 0.05))
            row[j] += row[2 + j]
    return row[_free(candidate)]


def _unpacked(candidate: Candidate, values: Array) -> Array:
    row, own = np.zeros(6), _free(candidate)
    row[own] = values
    for j in own:
        if j < 2:
            if candidate.kind == EXPONENTIAL:
                grown = min(max(row[2 + j], -3.0), 6.0)
                row[j] -= grown
                row[2 + j] = 1.0 - math.exp(grown)
                row[4 + j] = min(max(row[4 + j], -30.0), 30.0)
            row[j] = math.exp(min(max(row[j], -30.0), 1.0))
    return row


def _natural(candidate: Candidate, values: Array, covariance: Array) -> Array:
    """The covariance of ln dw, slopes, A and k from that of the packed parameters."""
    own = _free(candidate)
    T = np.eye(len(own))
    if candidate.kind == EXPONENTIAL:
        for j in own:
            if j < 2:
                place, grown = own.index(j), own.index(2 + j)
                T[place, grown] = -1.0
                T[grown, grown] = -math.exp(min(max(values[grown], -3.0), 6.0))
    return T @ covariance @ T.T


def _free(candidate: Candidate) -> list[int]:
    """Columns of theta that are fitted."""
    if candidate.model == "one-sided-pair":
        return [0, 2, 4]
    return list(range(candidate.own + candidate.shared))


def _noise_stderr(log_likelihood: Callable[[float, float], float], c: float, write: float) -> tuple[float, float]:
    """Standard errors of c and of the write noise, from the curvature of the likelihood in their logarithms."""
    h, free = 0.02, [k for k, value in enumerate((c, write)) if value > 0]

    def at(*shift: tuple[int, int]) -> float:
        z = [c, write]
        for k, sign in shift:
            z[k] *= math.exp(sign * h)
        return log_likelihood(*z)

    H = np.zeros((len(free), len(free)))
    for a, k in enumerate(free):
        for b, m in enumerate(free):
            if a == b:
                H[a, a] = at((k, 1)) - 2 * at() + at((k, -1))
            else:
                H[a, b] = (at((k, 1), (m, 1)) - at((k, 1), (m, -1)) - at((k, -1), (m, 1)) + at((k, -1), (m, -1))) / 4
    errors = [0.0, 0.0]
    variance = np.diag(_inverse(-H / h**2)) if free and (np.diag(H) < 0).all() else [math.nan] * len(free)
    for a, k in enumerate(free):
        errors[k] = (c, write)[k] * math.sqrt(float(variance[a]))
    return errors[0], errors[1]


# ---- what the fit says of the device


def _mean(values: Array, variances: Array) -> tuple[float, float, float, float]:
    """(mean over cells, its standard error, spread less the cells' own errors, its standard error)."""
    n = values.size
    if n == 1:
        return float(values[0]), math.sqrt(variances[0]), 0.0, math.nan
    total = float(values.var(ddof=1))
    spread = math.sqrt(max(total - float(variances.mean()), 0.0))
    return float(values.mean()), math.sqrt(total / n), spread, math.sqrt(total / (2 * (n - 1)))


def describe(fit: Fitted, data: Measured, name: str, source: str, reach: float = REACH) -> None:
    """Turn theta into the tables of a device file, with standard errors; or say in `fit.refused` why that is no device."""
    model, theta, pair = fit.candidate.model, fit.theta, data.one_sided
    tables: dict[str, Any] = {"name": name, "model": model, "source": source}
    errors: dict[str, float] = {}

    def note(key: str, value: float, stderr: float) -> float:
        errors[key] = stderr
        return value

    # steps: gain and asymmetry of every cell, from ln dw_up and ln dw_down
    up, down = theta[:, 0], theta[:, 0] if pair else theta[:, 1]
    log_variance = np.array([c[: 1 if pair else 2, : 1 if pair else 2] for c in fit.covariance])
    if pair:
        gain_variance = up**2 * log_variance[:, 0, 0]
        half_variance = 0 * up
    else:
        a, b, both = up**2 * log_variance[:, 0, 0], down**2 * log_variance[:, 1, 1], up * down * log_variance[:, 0, 1]
        gain_variance, half_variance = (a + b + 2 * both) / 4, (a + b - 2 * both) / 4
    gain, half = (up + down) / 2, (up - down) / 2
    dw_min, dw_error, dw_spread, spread_error = _mean(gain, gain_variance)
    step = tables["step"] = {"dw_min": note("step.dw_min", dw_min, dw_error)}
    step["dw_min_dtod"] = note("step.dw_min_dtod", dw_spread / dw_min, spread_error / dw_min)
    if data.n_cells >= 8 and _lognormal(gain):
        dw_min, dw_error, dw_spread, spread_error = _mean(np.log(gain), gain_variance / gain**2)
        dw_min = math.exp(dw_min)
        step["dw_min"] = note("step.dw_min", dw_min, dw_min * dw_error)
        step["dw_min_dtod"] = note("step.dw_min_dtod", dw_spread, spread_error)
        step["dw_min_distribution"] = "lognormal"
    if not pair:
        beta, beta_error, beta_spread, spread_error = _mean(half / dw_min, half_variance / dw_min**2)
        step["up_down"] = note("step.up_down", beta, beta_error)
        step["up_down_dtod"] = note("step.up_down_dtod", beta_spread, spread_error)
    step["c2c"] = note("step.c2c", fit.c, fit.noise_stderr[0])
    step["c2c_kind"] = "additive" if fit.candidate.additive else "multiplicative"

    # bounds: where steps vanish, or the extremes measured
    nothing = np.zeros(data.n_cells)
    ends = {"w_max": (fit.high, nothing), "w_min": (fit.low, nothing)}
    slopes = {}
    if fit.candidate.own + fit.candidate.shared == 4 and fit.candidate.kind == LINEAR:
        for side, key in enumerate(("up", "down")):
            variance = np.array([c[2 + side, 2 + side] for c in fit.covariance])
            slopes[key] = (theta[0, 2 + side], math.sqrt(variance[0]), 0.0, math.nan)
            if not fit.candidate.shared:
                slopes[key] = _mean(theta[:, 2 + side], variance)
    bounds = tables["bounds"] = {}
    for key, (values, variance) in ends.items():
        if pair and key == "w_min":
            bounds[key] = 0.0
            continue
        if model == "soft-bounds":
            way, extreme = ("up", data.y.max()) if key == "w_max" else ("down", data.y.min())
            slope, error, spread, spread_error = slopes[way]
            # asked for by name, a bound may be uncertain, as its standard error then says
            certain = 3 * error * abs(extreme) if math.isfinite(reach) else 0.0
            if slope * extreme <= certain or abs(1 / slope) > reach * abs(extreme):
                fit.refused = f"steps {way} do not shrink to nothing near the {'largest' if way == 'up' else 'smallest'} weight"
                return
            # to first order, 1/slope spreads relatively as slope does
            mean, error, spread, spread_error = 1 / slope, error / slope**2, spread / slope**2, spread_error / slope**2
        else:
            mean, error, spread, spread_error = _mean(values, variance)
        bounds[key] = note(f"bounds.{key}", mean, error or math.nan)
        # extremes that spread by more than their mean are places where pulses happened to end, not bounds
        seen = spread < abs(mean)
        bounds[f"{key}_dtod"] = note(
            f"bounds.{key}_dtod", spread / abs(mean) if seen else 0.0, spread_error / abs(mean) if seen else math.nan
        )

    if model == "linear-step":
        linear = tables["linear"] = {}
        for key, end in (("up", bounds["w_max"]), ("down", bounds["w_min"])):
            mean, error, spread, spread_error = slopes[key]
            if mean * end < -5 * error * abs(end):
                fit.refused = f"steps {key} grow towards the bound"
                return
            gamma = linear[f"gamma_{key}"] = note(f"linear.gamma_{key}", max(mean * end, 0.0), error * abs(end))
            # of a slope that cannot be told from none there is no relative spread
            seen = gamma > 5 * error * abs(end)
            linear[f"gamma_{key}_dtod"] = note(
                f"linear.gamma_{key}_dtod", spread / abs(mean) if seen else 0.0, spread_error / abs(mean) if seen else math.nan
            )
    if fit.candidate.kind == EXPONENTIAL:
        own, cov = _free(fit.candidate), fit.covariance[0]
        k_up, k_down = theta[0, 4], theta[0, 5]
        sign = -1.0 if k_up < 0 else 1.0
        exponential = tables["exponential"] = {"a": sign * (bounds["w_max"] - bounds["w_min"]) / 2, "b": 0.0}
        for key, A, k, column in (("up", theta[0, 2], k_up, 2), ("down", theta[0, 3], -k_down, 3))[: 1 if pair else 2]:
            A_error, k_error = (math.sqrt(cov[own.index(j), own.index(j)]) for j in (column, column + 2))
            if sign * k < -5 * k_error:
                fit.refused = "the exponents of steps up and down have the same sign"
                return
            exponential[f"A_{key}"] = note(f"exponential.A_{key}", A, A_error)
            exponential[f"gamma_{key}"] = note(f"exponential.gamma_{key}", max(sign * k, 0.0), k_error)
    if fit.write > 0:
        tables["noise"] = {"write": note("noise.write", fit.write, fit.noise_stderr[1])}
    try:
        fit.device = validated(DeviceParams, _rounded(tables), "fit")
    except InputError as error:
        fit.refused = str(error).removeprefix("fit: ")
    fit.stderr = errors


def _lognormal(values: Array) -> bool:
    """Whether steps are clearly more probable as lognormal than as normal numbers."""
    ln = np.log(values)
    if not values.std() > 0:
        return False
    return bool(-ln.size * math.log(ln.std()) - ln.sum() > -ln.size * math.log(values.std()) + 2)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class DeviceFit:
    """What `fit_device` found: the device, its file as text, and tables.

    models: every model tried, least BIC first (model, noise, slopes, parameters, log_likelihood, bic, verdict). parameters: key,
    value, stderr (nan = not known), meaning. readings: device, sequence, pulse, measured, fitted (mean response from each
    sequence's first reading), residual (reading less what the readings before it foretell), expected (its standard deviation).
    response: direction, weight, step (mean over cells of dw f(w)), stderr. steps: device, direction, weight, step, from straight
    stretches of the data. Weights in range units.
    """

    device: DeviceParams
    text: str
    models: pd.DataFrame
    parameters: pd.DataFrame
    readings: pd.DataFrame
    response: pd.DataFrame
    steps: pd.DataFrame


def fit_device(
    path: str | Path, model: str = "auto", low: float | None = None, high: float | None = None, name: str | None = None
) -> DeviceFit:
    """Fit a device to measured pulse responses.

    path: a CSV file, see `read_pulses`, which also explains low and high. model: one of CANDIDATES, or "auto": the one of least
    BIC. Two-sided data (pulses up and down) are fitted by constant-step, soft-bounds, linear-step and exponential-step,
    one-sided ones by one-sided-pair. name: of the device; that of the file if left out. Data that are too few, that no model can
    describe, or that do not go with the model asked for raise InputError.
    """
    source = one_line(cut(str(path), 200))
    if model != "auto":
        choose("model", model, {"auto": None, **CANDIDATES})
    data = read_pulses(path, low, high)
    possible = ["one-sided-pair"] if data.one_sided else [key for key in CANDIDATES if key != "one-sided-pair"]
    if model != "auto" and model not in possible:
        has = "only pulses up" if data.one_sided else "pulses up and down"
        raise InputError(f'{source}: has {has}, which model = "{model}" does not describe: choose one of {", ".join(possible)}')
    name = name or Path(path).stem[:100] or "device"
    segments = _segments(data)
    fits: list[Fitted] = []
    for key in possible if model == "auto" else [model]:
        tried: list[Fitted] = []
        for candidate in CANDIDATES[key]:
            # a slope for every cell: only where there are several cells, with the kind of noise that did better so far
            if candidate.own == 4 and (data.n_cells == 1 or min(tried, key=_bic).candidate.additive != candidate.additive):
                continue
            tried.append(fit_candidate(candidate, data, segments))
            reach = REACH if model == "auto" else math.inf
            describe(tried[-1], data, name, f"fitted to {Path(path).name}"[:200], reach)
        fits += tried
    fits.sort(key=_bic)
    usable = [fit for fit in fits if fit.device]
    if not usable:
        raise InputError(f"{source}: no model describes these readings: {fits[0].candidate.model}: {fits[0].refused}")
    best = usable[0]
    assert best.device
    described = best.device.model_copy(
        update={"description": f"{best.candidate.model} fitted to {data.y.size} readings of {data.n_cells} cells"}
    )
    return DeviceFit(
        described, _text(described, best, data), _models(fits, best), _parameters(described, best), _readings(best, data),
        _response(best, data), _steps(segments, data),
    )  # fmt: skip


def _bic(fit: Fitted) -> float:
    return fit.bic


def _models(fits: list[Fitted], best: Fitted) -> pd.DataFrame:
    rows = [
        {
            "model": fit.candidate.model,
            "noise": "additive" if fit.candidate.additive else "multiplicative",
            "slopes": "of each cell" if fit.candidate.own == 4 else "shared" if fit.candidate.shared else "none",
            "parameters": fit.n_parameters,
            "log_likelihood": fit.log_likelihood,
            "bic": fit.bic,
            "verdict": "chosen" if fit is best else fit.refused or "",
        }
        for fit in fits
    ]
    return pd.DataFrame(rows)


def _fields(params: DeviceParams) -> list[tuple[str, Any, str]]:
    """(dotted key, value, meaning) of everything the device says."""
    rows = []
    for key, info in DeviceParams.model_fields.items():
        value = getattr(params, key)
        if isinstance(value, Table):
            inner = type(value).model_fields
            rows += [(f"{key}.{name}", getattr(value, name), inner[name].description or "") for name in inner]
        elif value is not None:
            rows.append((key, value, info.description or ""))
    return rows


def _parameters(params: DeviceParams, fit: Fitted) -> pd.DataFrame:
    rows = [(key, value, fit.stderr[key], meaning) for key, value, meaning in _fields(params) if key in fit.stderr]
    return pd.DataFrame(rows, columns=["key", "value", "stderr", "meaning"])


def _text(params: DeviceParams, fit: Fitted, data: Measured) -> str:
    """The device file, with units, meaning and standard error of every field."""
    import tomli_w

    cells = f"{data.n_cells} cell{'s' * (data.n_cells > 1)}"
    lines = [f"# {params.model} fitted to {data.y.size} readings of {cells}; BIC {fit.bic:.1f}."]
    if data.unit != "range":
        lines.append(
            f"# One range unit is {data.per_range:.6g} {one_line(data.unit)}; w = 0 is {data.zero:.6g} {one_line(data.unit)}."
        )
    if data.n_cells == 1:
        lines.append("# From a single cell no spread from cell to cell (dtod) can be known: they stand at 0.")
    lines.append("# Shares are relative: 0.05 means 5 %. +-: standard error of the fit.")
    table = ""
    for key, value, meaning in _fields(params):
        head, _, last = key.rpartition(".")
        if head != table:
            lines += ["", f"[{head}]"]
            table = head
        error = fit.stderr.get(key, math.nan)
        known = (
            f"; +- {error:.2g}"
            if math.isfinite(error)
            else "; extreme measured"
            if key in ("bounds.w_max", "bounds.w_min")
            else ""
        )
        if key == "model":
            meaning, known = "the formulas head hardware/device.py", ""
        lines.append(f"{tomli_w.dumps({last: value}).strip()}  # {meaning}{known}")
    return "\n".join(lines) + "\n"


def _readings(fit: Fitted, data: Measured) -> pd.DataFrame:
    e, S, x, mean = (np.empty(data.y.size) for _ in range(4))
    low, high = _soft_ends(fit.theta)
    if fit.candidate.ends:
        low, high = np.full(data.n_cells, -np.inf), np.full(data.n_cells, np.inf)
    if fit.bounded:
        low, high = (np.array([end(data.y[data.cell == i]) for i in range(data.n_cells)]) for end in (np.min, np.max))
    kind, given = fit.candidate.kind, (data.y, data.pulses, data.first, data.cell, fit.theta)
    _filter(kind, *given, fit.theta, low, high, fit.c, fit.candidate.additive, fit.write, data.floor, e, S, x)
    _mean_curve(kind, *given, low, high, mean)
    return pd.DataFrame(
        {
            "device": np.array(data.labels)[data.cell],
            "sequence": np.cumsum(data.first),
            "pulse": data.number,
            "measured": data.y,
            "fitted": mean,
            "residual": np.where(data.first, np.nan, e),
            "expected": np.where(data.first, np.nan, np.sqrt(S)),
        }
    )


def _response(fit: Fitted, data: Measured) -> pd.DataFrame:
    """Mean step against weight, with the standard error that comes from theta and, of several cells, from their spread."""
    rows, own = [], _free(fit.candidate)
    for w in np.linspace(
        np.mean(fit.low) if np.isfinite(fit.low).all() else data.y.min(), min(np.mean(fit.high), data.y.max()), 41
    ):
        for d in (1,) if data.one_sided else (1, -1):

            def step(theta: Array, w: float = w, d: int = d) -> float:
                return float(_step(fit.candidate.kind, theta, d > 0, w)[0])

            steps = np.array([step(row) for row in fit.theta])
            variances = []
            for row, covariance in zip(fit.theta, fit.covariance, strict=True):
                slope = np.zeros(len(own))
                for column, j in enumerate(own):
                    h = 1e-5 * max(abs(row[j]), 1e-3)
                    moved = row.copy()
                    moved[j] += h
                    slope[column] = (step(moved) - step(row)) / h * (row[j] if j < 2 else 1.0)
                variances.append(max(float(slope @ covariance @ slope), 0.0))
            variance = float(np.mean(variances))
            if data.n_cells > 1:
                # what all cells share does not average out; of what each has alone, the spread has it all
                variance = steps.var(ddof=1) / data.n_cells + (variance if fit.candidate.shared else 0.0)
            rows.append((d, w, d * steps.mean(), math.sqrt(variance)))
    return pd.DataFrame(rows, columns=["direction", "weight", "step", "stderr"])


def _steps(segments: Array, data: Measured) -> pd.DataFrame:
    frame = pd.DataFrame(segments[:, :4], columns=["device", "direction", "weight", "step"])
    return frame.assign(device=[data.labels[int(i)] for i in frame["device"]], direction=frame["direction"].astype(int))
