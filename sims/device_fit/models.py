"""The models that are tried, their parameters, and where their fits start."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_origin

import numpy as np
from annotated_types import Ge, Le
from pydantic.fields import FieldInfo

from hardware.device_laws import (
    LAWS,
    ConstantStep,
    Ends,
    ExponentialStep,
    Law,
    LinearStep,
    Numbers,
    SoftBounds,
    records,
)
from sims.device_fit.filter import steps_of
from sims.device_fit.pulses import Measured

Array = np.ndarray

NODES = (3, 5, 9)  # of a table of steps: as many as the data are likeliest with


@dataclass(frozen=True)
class Candidate(ABC):
    """A model to fit: `own` parameters and `ends` hard bounds per cell, `shared` parameters of all.

    A row of theta (n_cells, K) is dw_up, dw_down, then the shape of the response. What is fitted
    are the columns `free` of its packed form (`packed`), the own ones first.
    """

    law: type[Law]
    additive: bool
    own: int
    shared: int
    ends: int

    @property
    def model(self) -> str:
        return self.law.model

    @property
    def free(self) -> list[int]:
        return list(range(self.own + self.shared))

    @property
    def slopes(self) -> str:
        """Whose the shape of the response is."""
        return "shared" if self.shared else "of each cell" if self.own == 4 else "none"

    @property
    def prior(self) -> Array:
        """1 / width of a wide prior about 0 of the packed parameters; 0 = none."""
        return np.zeros(self.own + self.shared)

    @abstractmethod
    def numbers(self, theta: Array, data: Measured) -> Numbers:
        """What `step` of the law reads, and the bounds low and high that it is given."""

    def cells(self, theta: Array, data: Measured) -> Array:
        """Cells as records, as the filter takes them."""
        steps = {"dw_up": theta[:, 0].copy(), "dw_down": theta[:, 1].copy()}
        return records(steps | dict(self.numbers(theta, data)), len(theta))

    @abstractmethod
    def packed(self, theta: Array, data: Measured) -> Array:
        """(n, K): parameters that hang together less than theta."""

    @abstractmethod
    def unpacked(self, packed: Array, data: Measured) -> Array:
        """Theta, within limits that no device reaches and no number overflows in."""

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        """Lowest and highest weight of cells, where the model knows them without a look at data."""
        return np.full(len(theta), -np.inf), np.full(len(theta), np.inf)

    @abstractmethod
    def starts(self, data: Measured, segments: Array) -> list[Array]:
        """Theta from straight stretches: robust, not efficient."""


class Linear(Candidate):
    """Constant or linear steps, or soft bounds; theta: dw_up, dw_down and their slopes."""

    def numbers(self, theta: Array, data: Measured) -> Numbers:
        ends = {"low": -1.0, "high": 1.0}
        slopes = {"slope_up": theta[:, 2].copy(), "slope_down": theta[:, 3].copy()}
        return ends if self.law is ConstantStep else slopes | ends

    def packed(self, theta: Array, data: Measured) -> Array:
        """ln dw, and slopes."""
        return np.hstack([np.log(theta[:, :2]), theta[:, 2:]])[:, self.free]

    def unpacked(self, packed: Array, data: Measured) -> Array:
        theta = np.zeros((len(packed), 4))
        theta[:, self.free] = packed
        for j in (0, 1):  # a pulse does not carry the weight beyond where steps vanish
            most = 1 / np.maximum(np.abs(theta[:, 2 + j]), 0.1)
            theta[:, j] = np.minimum(np.exp(np.clip(theta[:, j], -30.0, 1.0)), most)
        return theta

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        """Where steps vanish, 1/slope; none where they do not."""
        up, down = theta[:, 2], theta[:, 3]
        with np.errstate(divide="ignore"):
            # f = 1 - slope w is 0 at 1/slope: above 0 for steps up, below 0 for steps down
            return np.where(down < 0, 1 / down, -np.inf), np.where(up > 0, 1 / up, np.inf)

    def starts(self, data: Measured, segments: Array) -> list[Array]:
        theta = np.zeros((data.n_cells, 4))
        for side, every, dw in _mean_steps(data, segments):
            theta[:, side] = dw
            if self.own + self.shared == 4:
                intercept, slope, _ = _line(every, every[:, 2])
                # divided by an intercept near 0, the slope would be anything
                if intercept > 0.1 * _typical(segments):
                    theta[:, 2 + side] = -slope / intercept
        return [theta]


class Exponential(Candidate):
    """Exponential steps; theta: dw_up, dw_down, then A_up, A_down, k_up, k_down of f = 1 - A exp(k
    w).
    """

    @property
    def free(self) -> list[int]:
        return [0, 2, 4] if self.law.paired else list(range(6))

    @property
    def _sides(self) -> list[int]:
        return [0] if self.law.paired else [0, 1]

    @property
    def prior(self) -> Array:
        """ln f(0) to 3 or so, k to 10.

        Data whose steps are nearly constant, or nearly a pure exponential, do not determine both;
        the published devices lie within.
        """
        return np.array([0.0, 0.0, 1 / 3, 1 / 3, 0.1, 0.1])[self.free]

    def numbers(self, theta: Array, data: Measured) -> Numbers:
        A_up, A_down, k_up, k_down = theta[0, 2:].tolist()  # shared
        shape = {"A_up": A_up, "A_down": A_down, "gamma_up": k_up, "gamma_down": -k_down}
        return {"a": 1.0, "b": 0.0, "low": -1.0, "high": 1.0} | shape  # so that z = w

    def packed(self, theta: Array, data: Measured) -> Array:
        """ln(dw f(0)), ln f(0) = ln(1 - A) and k."""
        rows = theta.copy()
        for j in self._sides:
            # f(0) <= 0 has no logarithm: no device steps backwards at w = 0
            rows[:, 2 + j] = np.log(np.maximum(1.0 - rows[:, 2 + j], 0.05))
            rows[:, j] = np.log(rows[:, j]) + rows[:, 2 + j]
        return rows[:, self.free]

    def unpacked(self, packed: Array, data: Measured) -> Array:
        theta = np.zeros((len(packed), 6))
        theta[:, self.free] = packed
        for j in self._sides:
            grown = np.clip(theta[:, 2 + j], -3.0, 6.0)
            # what is packed is ln(dw f(0))
            theta[:, j] -= grown
            theta[:, 2 + j] = 1.0 - np.exp(grown)
            theta[:, 4 + j] = np.clip(theta[:, 4 + j], -30.0, 30.0)
            theta[:, j] = np.exp(np.clip(theta[:, j], -30.0, 1.0))
        return theta

    def starts(self, data: Measured, segments: Array) -> list[Array]:
        """With exponents of both signs."""
        typical = _typical(segments)
        sides = [(d, segments[segments[:, 1] == d]) for d in ((1,) if data.one_sided else (1, -1))]
        return [
            theta
            for sign in (-1, 1)
            for theta in _exponential_starts(data.n_cells, sides, typical, sign)
        ]


@dataclass(frozen=True)
class General(Candidate):
    """Any law, by `Law.step` alone; theta: dw_up, dw_down, the numbers of its table, those of a
    list one after another, and, if steps vanish at the bounds, w_min and w_max.

    nodes: of each list.
    """

    nodes: int = 0

    @property
    def columns(self) -> dict[str, list[int]]:
        """Columns of theta of every number of the law's table that a fit finds."""
        found: dict[str, list[int]] = {}
        place = 2
        fields = self.law.Params.model_fields if self.law.Params else {}
        for name, info in fields.items():
            if not name.endswith("_dtod"):
                size = self.nodes if _is_list(info) else 1
                found[name] = list(range(place, place + size))
                place += size
        return found

    @property
    def free(self) -> list[int]:
        """All but a node of each list: it is dw that says how large steps are."""
        fixed = {own[len(own) // 2] for own in self.columns.values() if len(own) > 1}
        return [j for j in range(self.width) if j not in fixed]

    @property
    def width(self) -> int:
        """Columns of theta."""
        return 2 + sum(map(len, self.columns.values())) + 2 * self.law.vanishing

    @property
    def prior(self) -> Array:
        """Nodes to a factor of exp 3 or so, other numbers to 10."""
        widths = np.full(self.width, 10.0)
        # no prior for steps
        widths[:2] = np.inf
        for own in self.columns.values():
            if len(own) > 1:
                widths[own] = 3.0
        return 1 / widths[self.free]

    def numbers(self, theta: Array, data: Measured) -> Numbers:
        # one shape for all cells: every row has it
        shared = theta[0].tolist()
        low, high = shared[-2:] if self.law.vanishing else data.ends
        table = {
            name: shared[own[0]] if len(own) == 1 else tuple(shared[own[0] : own[-1] + 1])
            for name, own in self.columns.items()
        }
        each = np.ones(len(theta))
        return {"low": low, "high": high} | dict(
            self.law.numbers(table, Ends(low, high, low * each, high * each))
        )

    def _at_zero(self, theta: Array, data: Measured) -> Array:
        """f(0) of both directions (n, 2)."""
        alike = theta.copy()
        alike[:, :2] = 1.0
        cells = self.cells(alike, data)
        f = [steps_of(self.law.step)(cells, up, 0.0) for up in (True, False)]
        # steps are divided by it, and its logarithm is taken
        return np.maximum(np.transpose(f), 1e-3)

    def packed(self, theta: Array, data: Measured) -> Array:
        """ln(dw f(0)), logarithms of nodes, and the numbers as they are."""
        rows = theta.copy()
        rows[:, :2] = np.log(theta[:, :2] * self._at_zero(theta, data))
        for own in self.columns.values():
            if len(own) > 1:
                rows[:, own] = np.log(theta[:, own] / theta[:, [own[len(own) // 2]]])
        return rows[:, self.free]

    def unpacked(self, packed: Array, data: Measured) -> Array:
        """f(0) of a list is 1: dw is then the step at w = 0."""
        theta = np.zeros((len(packed), self.width))
        theta[:, self.free] = packed
        for name, own in self.columns.items():
            if len(own) > 1:
                theta[:, own] = np.exp(np.clip(theta[:, own], -7.0, 7.0))
            else:
                theta[:, own] = np.clip(theta[:, own], *_limits(self.law, name))
        if self.law.vanishing:
            span = data.span
            # w = 0 stays between the bounds, and a bound not far from the data
            theta[:, -2] = np.clip(theta[:, -2], data.ends[0] - 9 * span, -0.02 * span)
            theta[:, -1] = np.clip(theta[:, -1], 0.02 * span, data.ends[1] + 9 * span)
        f = self._at_zero(theta, data)
        for way, own in ((0, self.columns.get("up", [])), (1, self.columns.get("down", []))):
            if len(own) > 1:
                theta[:, own] /= f[:, [way]]
                f[:, way] = 1.0
        theta[:, :2] = np.exp(np.clip(theta[:, :2], -30.0, 1.0)) / f
        return theta

    def bounds(self, theta: Array) -> tuple[Array, Array]:
        return theta[:, -2], theta[:, -1]

    def starts(self, data: Measured, segments: Array) -> list[Array]:
        theta = np.ones((data.n_cells, self.width))
        for name, own in self.columns.items():
            if len(own) == 1 and self.law.Params:
                default = self.law.Params.model_fields[name].default
                known = default if isinstance(default, float) else 1.0
                theta[:, own] = np.clip(known, *_limits(self.law, name))
        if self.law.vanishing:
            margin = 0.05 * data.span
            theta[:, -2:] = data.ends[0] - margin, data.ends[1] + margin
        f = self._at_zero(theta, data)
        for side, _, dw in _mean_steps(data, segments):
            theta[:, side] = dw / f[:, side]
        return [theta]


def _is_list(info: FieldInfo) -> bool:
    return get_origin(info.annotation) is tuple


def _limits(law: type[Law], name: str) -> tuple[float, float]:
    """What a number of a law's table may be."""
    marks = law.Params.model_fields[name].metadata if law.Params else []
    least: list[Any] = [mark.ge for mark in marks if isinstance(mark, Ge)]
    most: list[Any] = [mark.le for mark in marks if isinstance(mark, Le)]
    return max(least, default=-1e6), min(most, default=1e6)


def _candidates(law: type[Law]) -> list[Candidate]:
    """The ways to fit a law: with noise of either kind, some with a shape of each cell."""
    both = (False, True)
    if law is ConstantStep:
        return [Linear(law, False, 2, 0, 2)]
    if law in (SoftBounds, LinearStep):
        ends = 0 if law is SoftBounds else 2
        return [Linear(law, kind, own, 4 - own, ends) for own in (2, 4) for kind in both]
    if issubclass(law, ExponentialStep):
        own = 1 if law.paired else 2
        return [Exponential(law, kind, own, 2 * own, own) for kind in both]
    ends = 0 if law.vanishing else 2
    found: list[Candidate] = []
    for nodes in NODES if any(map(_is_list, fields_of(law))) else (0,):
        for kind in both:
            shape = General(law, kind, 2, 0, ends, nodes)
            found.append(replace(shape, shared=len(shape.free) - 2))
    return found


def fields_of(law: type[Law]) -> list[FieldInfo]:
    return list(law.Params.model_fields.values()) if law.Params else []


CANDIDATES = {name: _candidates(law) for name, law in LAWS.items() if "step" in law.needs}
# a table of steps describes whatever there is, so that it is fitted only if it is asked for
TRIED = [name for name in CANDIDATES if not any(map(_is_list, fields_of(LAWS[name])))]


# ---- where a fit starts


def straight_segments(data: Measured) -> Array:
    """(cell, direction, weight, change per pulse, pulses) of stretches of one direction.

    Each by a straight line through its readings that outliers do not change much: medians of
    slopes (Theil 1950; Sen 1968).
    """
    rows = []
    starts = np.flatnonzero(data.turns | data.first)
    for a, b in zip(starts, np.append(starts[1:], data.y.size), strict=True):
        if data.first[a]:
            continue
        a -= 1  # the reading before the first pulse of this direction belongs to the stretch
        # a response curves: up to twelve pieces of six readings or more
        edges = np.linspace(a, b - 1, max(1, min(12, (b - a) // 6)) + 1).astype(int)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            steps = np.abs(data.pulses[low + 1 : high + 1])
            count = np.concatenate([[0], np.cumsum(steps)])
            # without a pulse there is no change per pulse
            if count[-1] > 0:
                slope, middle = _robust_line(count, data.y[low : high + 1])
                direction = np.sign(data.pulses[high])
                rows.append((data.cell[a], direction, middle, slope, count[-1]))
    return np.array(rows)


def _robust_line(x: Array, y: Array) -> tuple[float, float]:
    """Slope, and value at the mean of x."""
    from scipy.stats import theilslopes

    # Theil-Sen takes every pair of points: medians of 40 blocks bound the work
    blocks = np.array_split(np.arange(x.size), max(1, min(x.size, 40)))
    at = np.array([np.median(x[block]) for block in blocks])
    values = np.array([np.median(y[block]) for block in blocks])
    slope = float(theilslopes(values, at)[0])
    return slope, float(np.median(values - slope * (at - x.mean())))


def largest_step(data: Measured) -> float:
    """Median change per pulse after turns, where steps are largest, as a share of the range."""
    # the reading before the turn
    turns = np.flatnonzero(~data.first & data.turns) - 1
    ends = np.minimum(turns + 3, data.y.size - 1)
    whole = np.cumsum(data.first)
    changes = []
    for a, b in zip(turns, ends, strict=True):
        count = data.pulses[a + 1 : b + 1].sum()
        if whole[a] == whole[b] and count:
            changes.append((data.y[b] - data.y[a]) / count)
    spans = [np.ptp(data.y[data.cell == i]) for i in range(data.n_cells)]
    return float(np.median(changes) / np.median(spans)) if changes else 0.0


def _line(part: Array, regressor: Array) -> tuple[float, float, float]:
    """Intercept, slope and misfit of steps (rows of segments) against a regressor."""
    X = np.column_stack([np.ones(len(part)), regressor])
    # noise of pulses averages out: a stretch counts by its pulses
    weight, steps = np.sqrt(part[:, 4]), part[:, 3] * part[:, 1]
    (intercept, slope), *_ = np.linalg.lstsq(X * weight[:, None], steps * weight, rcond=None)
    misfit = float((((X @ [intercept, slope]) - steps) ** 2 * weight**2).sum())
    return intercept, slope, misfit


def _typical(segments: Array) -> float:
    return max(np.abs(segments[:, 3]).mean(), 1e-9)


def _mean_steps(data: Measured, segments: Array) -> Iterator[tuple[int, Array, Array]]:
    """(side, segments of that direction, mean step of each cell)"""
    for side, d in enumerate((1,) if data.one_sided else (1, -1)):
        every = segments[segments[:, 1] == d]
        means = []
        for i in range(data.n_cells):
            part = every[every[:, 0] == i]
            mean = (part[:, 3] * d * part[:, 4]).sum() / part[:, 4].sum()
            # positive: the logarithm of a step is what is fitted
            means.append(max(mean, 1e-2 * _typical(segments)))
        yield side, every, np.array(means)


def _exponential_starts(n: int, sides: list, typical: float, sign: int) -> list[Array]:
    """A regression of the steps on exp(k w), and a mild curve, with exponents of one sign."""
    theta = np.zeros((n, 6))
    for side, (d, part) in enumerate(sides):
        tried = []
        for k in d * sign * np.array([0.5, 1.0, 2.0, 3.0, 5.0, 8.0]):
            # dw (1 - A exp(k w)) is linear in dw and -dw A once k is given
            dw, slope, misfit = _line(part, np.exp(k * part[:, 2]))
            # the step is positive everywhere, or the regression has followed noise
            if min(dw, dw + slope) > 0.02 * typical:
                tried.append((misfit, dw, slope, k))
        _, dw, slope, k = min(tried) if tried else (0.0, typical, 0.1 * typical, d * sign)
        theta[:, [side, 2 + side, 4 + side]] = dw, -slope / dw, k
    mild = np.tile([typical, typical, -0.3, -0.3, 2.0 * sign, -2.0 * sign], (n, 1))
    return [theta, mild]
