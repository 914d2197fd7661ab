"""The models that are tried, their parameters, and where their fits start."""

from dataclasses import dataclass

import numpy as np

from hardware.pulse_kernel import EXPONENTIAL, LINEAR
from sims.device_fit.pulses import Measured

Array = np.ndarray


@dataclass(frozen=True)
class Candidate:
    """A model to fit: `own` parameters and `ends` hard bounds per cell, `shared` parameters of all.

    A row of theta (n_cells, 6) is dw_up, dw_down, then slopes, or A_up, A_down, k_up, k_down of
    f = 1 - A exp(k w). What is fitted are the columns `free` of its packed form (`packed`), the own
    ones first.
    """

    model: str
    kind: int
    additive: bool
    own: int
    shared: int
    ends: int

    @property
    def free(self) -> list[int]:
        if self.model == "one-sided-pair":
            return [0, 2, 4]
        return list(range(self.own + self.shared))

    @property
    def slopes(self) -> str:
        """Whose the shape of the response is."""
        return "shared" if self.shared else "of each cell" if self.own == 4 else "none"

    @property
    def prior(self) -> Array:
        """1 / width of a wide prior about 0 of the packed parameters: ln f(0) to 3 or so, k to 10.

        Data whose steps are nearly constant, or nearly a pure exponential, do not determine both;
        the published devices lie within.
        """
        exponential = [0.0, 0.0, 1 / 3, 1 / 3, 0.1, 0.1]
        return np.array(exponential if self.kind == EXPONENTIAL else [0.0] * 6)[self.free]

    def packed(self, theta: Array) -> Array:
        """(n, K): ln dw and slopes; of exponentials ln(dw f(0)), ln f(0) = ln(1 - A) and k.

        Those hang together less than dw, A and k.
        """
        rows, sides = theta.copy(), [j for j in self.free if j < 2]
        rows[:, sides] = np.log(rows[:, sides])
        if self.kind == EXPONENTIAL:
            for j in sides:
                rows[:, 2 + j] = np.log(np.maximum(1.0 - rows[:, 2 + j], 0.05))
                rows[:, j] += rows[:, 2 + j]
        return rows[:, self.free]

    def unpacked(self, packed: Array) -> Array:
        """Theta, within limits that no device reaches and no number overflows in."""
        theta = np.zeros((len(packed), 6))
        theta[:, self.free] = packed
        for j in (j for j in self.free if j < 2):
            if self.kind == EXPONENTIAL:
                grown = np.clip(theta[:, 2 + j], -3.0, 6.0)
                theta[:, j] -= grown
                theta[:, 2 + j] = 1.0 - np.exp(grown)
                theta[:, 4 + j] = np.clip(theta[:, 4 + j], -30.0, 30.0)
            theta[:, j] = np.exp(np.clip(theta[:, j], -30.0, 1.0))
            if self.kind == LINEAR:  # a pulse does not carry the weight beyond where steps vanish
                theta[:, j] = np.minimum(theta[:, j], 1 / np.maximum(np.abs(theta[:, 2 + j]), 0.1))
        return theta


def _candidates(model: str, kind: int, shapes: list[tuple[int, int]], ends: int) -> list[Candidate]:
    return [
        Candidate(model, kind, additive, own, shared, ends)
        for own, shared in shapes
        for additive in (False, True)
    ]


CANDIDATES = {
    "constant-step": [Candidate("constant-step", LINEAR, False, 2, 0, 2)],
    "soft-bounds": _candidates("soft-bounds", LINEAR, [(2, 2), (4, 0)], 0),
    "linear-step": _candidates("linear-step", LINEAR, [(2, 2), (4, 0)], 2),
    "exponential-step": _candidates("exponential-step", EXPONENTIAL, [(2, 4)], 2),
    "one-sided-pair": _candidates("one-sided-pair", EXPONENTIAL, [(1, 2)], 1),
}


def soft_ends(theta: Array) -> tuple[Array, Array]:
    """Lowest and highest weight of cells whose steps vanish at 1/slope; none where they do not."""
    up, down = theta[:, 2], theta[:, 3]
    with np.errstate(divide="ignore"):
        return np.where(down < 0, 1 / down, -np.inf), np.where(up > 0, 1 / up, np.inf)


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
        edges = np.linspace(a, b - 1, max(1, min(12, (b - a) // 6)) + 1).astype(int)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            steps = np.abs(data.pulses[low + 1 : high + 1])
            count = np.concatenate([[0], np.cumsum(steps)])
            if count[-1] > 0:
                slope, middle = _robust_line(count, data.y[low : high + 1])
                direction = np.sign(data.pulses[high])
                rows.append((data.cell[a], direction, middle, slope, count[-1]))
    return np.array(rows)


def _robust_line(x: Array, y: Array) -> tuple[float, float]:
    """Slope, and value at the mean of x."""
    from scipy.stats import theilslopes

    blocks = np.array_split(np.arange(x.size), max(1, min(x.size, 40)))
    at = np.array([np.median(x[block]) for block in blocks])
    values = np.array([np.median(y[block]) for block in blocks])
    slope = float(theilslopes(values, at)[0])
    return slope, float(np.median(values - slope * (at - x.mean())))


def largest_step(data: Measured) -> float:
    """Median change per pulse after turns, where steps are largest, as a share of the range."""
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
    weight, steps = np.sqrt(part[:, 4]), part[:, 3] * part[:, 1]
    (intercept, slope), *_ = np.linalg.lstsq(X * weight[:, None], steps * weight, rcond=None)
    misfit = float((((X @ [intercept, slope]) - steps) ** 2 * weight**2).sum())
    return intercept, slope, misfit


def starts(candidate: Candidate, data: Measured, segments: Array) -> list[Array]:
    """Theta from straight stretches: robust, not efficient; of exponentials, both signs of k."""
    typical = max(np.abs(segments[:, 3]).mean(), 1e-9)
    sides = [(d, segments[segments[:, 1] == d]) for d in ((1,) if data.one_sided else (1, -1))]
    if candidate.kind == EXPONENTIAL:
        return [
            theta
            for sign in (-1, 1)
            for theta in _exponential_starts(data.n_cells, sides, typical, sign)
        ]
    theta = np.zeros((data.n_cells, 6))
    for side, (d, every) in enumerate(sides):
        for i in range(data.n_cells):
            part = every[every[:, 0] == i]
            mean = (part[:, 3] * d * part[:, 4]).sum() / part[:, 4].sum()
            theta[i, side] = max(mean, 1e-2 * typical)
        if candidate.own + candidate.shared == 4:
            intercept, slope, _ = _line(every, every[:, 2])
            if intercept > 0.1 * typical:
                theta[:, 2 + side] = -slope / intercept
    return [theta]


def _exponential_starts(n: int, sides: list, typical: float, sign: int) -> list[Array]:
    """A regression of the steps on exp(k w), and a mild curve, with exponents of one sign."""
    theta = np.zeros((n, 6))
    for side, (d, part) in enumerate(sides):
        tried = []
        for k in d * sign * np.array([0.5, 1.0, 2.0, 3.0, 5.0, 8.0]):
            dw, slope, misfit = _line(part, np.exp(k * part[:, 2]))
            # the step is positive everywhere, or the regression has followed noise
            if min(dw, dw + slope) > 0.02 * typical:
                tried.append((misfit, dw, slope, k))
        _, dw, slope, k = min(tried) if tried else (0.0, typical, 0.1 * typical, d * sign)
        theta[:, [side, 2 + side, 4 + side]] = dw, -slope / dw, k
    mild = np.tile([typical, typical, -0.3, -0.3, 2.0 * sign, -2.0 * sign], (n, 1))
    return [theta, mild]
