"""A device of one's own: a table of measured pulse responses becomes a device file.

Every model is fitted by the innovations of a Kalman filter, which is what separates the two noises:
that of a pulse stays in the weight and adds up, that of a reading (write noise) does not. With
theta the mean response of a cell, c the cycle-to-cycle noise and sigma_w the write noise:

    x := x + d dw_d f_d(x), P := F^2 P + (c dw_d)^2 (f_d^2 or 1), F = 1 + d dw_d f_d' for every
    pulse
    e = y - x, S = P + sigma_w^2, x := x + e P / S, P := P sigma_w^2 / S for every reading y

A reading is known to half a last digit, h: its likelihood is Phi((e + h) / S^1/2) - Phi((e - h) /
S^1/2), and e, sigma_w^2 above are those of the normal distribution cut to y +- h. A pulse against a
hard bound leaves the weight at it with the probability of what lies beyond (Tobin 1958). With the
probability OUTLIERS a reading is anything within the span of all instead, and moves x and P by as
much as it is none (probabilistic data association: Bar-Shalom & Tse 1975).

theta minimises sum e^2 / S with S held. From there theta, c and sigma_w maximise the likelihood L,
-2 ln L = sum (ln 2 pi S + e^2 / S) where h is small: each cell's own parameters, the noises, and
what all cells share, in turn (where noise is a share of the step, its size tells of the step, too).
Models are compared by BIC = p ln N - 2 ln L (Schwarz 1978). Linear models are filtered exactly but
for their bounds, the exponential one to first order (Kalman 1960; Jazwinski 1970). If a pulse
crosses more than COARSE of the range that is not good enough for a likelihood: there theta and its
errors stay those of least squares, no outliers are looked for, and the two noises are hard to tell
apart. Else errors are those of the curvature of ln L in all parameters together, and of what is not
known of the noises (`Work.settled`). Spreads from cell to cell are those of the cells' own theta,
less their own errors.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hardware.device import EXPONENTIAL, LINEAR, DeviceParams
from perturb.compiled import compiled
from sims.pulses import Measured

Array = np.ndarray

COARSE = 0.04  # share of the range measured
PULSE, WRITE = 0, 1  # the noises
LEFT_OUT, COUNTED = 1, 2  # readings at a hard end
VAGUE = 0.25  # relative standard error beyond which a noise is not well known
UNKNOWN = (
    1e4  # variance, of logarithms and in range units, beyond which a parameter is not determined
)
# -ln L of a response that grows beyond all numbers, of which second differences are numbers still
IMPOSSIBLE = 1e30
NODES = 16  # values tried of one that is not
# share of the readings that are expected to say nothing about the weight, such as a dropout
OUTLIERS = 1e-3
LOST = 5  # so many outliers in a row are none


# ---- the filter


@compiled()
def step_at(kind, theta, up, x):
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
    density = math.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
    below = 0.5 * math.erfc(-u / math.sqrt(2.0))
    short = density + u * below
    return high - s * short, max(P * ((1.0 + u * u) * below + u * density - short * short), 0.0)


@compiled()
def _interval(off, half, s):
    """Probability of mean +- half off the mean of a normal distribution, s its deviation; mean
    and variance within, from off.
    """
    a = (off - half) / s
    b = (off + half) / s
    if b - a < 1e-3:
        density = math.exp(-0.5 * (off / s) ** 2) / math.sqrt(2.0 * math.pi)
        return density * (b - a), off, half * half / 3.0
    inside = 0.5 * (math.erfc(a / math.sqrt(2.0)) - math.erfc(b / math.sqrt(2.0)))
    if inside < 1e-12:
        return inside, off, half * half / 3.0
    below = math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)
    above = math.exp(-0.5 * b * b) / math.sqrt(2.0 * math.pi)
    drawn = (below - above) / inside
    return (
        inside,
        s * drawn,
        max(s * s * (1.0 + (a * below - b * above) / inside - drawn * drawn), 0.0),
    )


@compiled()
def _reading(y, half, x, P, top, write, span):
    """(-ln density of a reading, the same at its most likely value, whether it is none of the
    outliers, x and P after it).

    A reading y says that the weight and its write noise lie within y +- half: of that interval's
    probability and of the moments of the normal distribution cut to it. The weight is top where x,
    P lie beyond it (Tobin 1958). With OUTLIERS a reading is anything within the span of them all
    instead. span = 0: none is, and y is normal, as of steps too large for all this.
    """
    if span == 0.0:
        x, P = _censored(x, P, top)
        r = write * write + half * half / 3.0
        S = P + r
        least = 0.5 * math.log(2.0 * math.pi * S)
        return least + 0.5 * (y - x) ** 2 / S, least, 1.0, x + (y - x) * P / S, P * r / S
    s = max(math.sqrt(P + write * write), 1e-3 * half)
    gain = P / (s * s)
    side = 1.0 if y > x else -1.0
    inside, off, within = _interval(abs(y - x), half, s)
    most, _, _ = _interval(0.0, half, s)
    after_x = x + gain * off * side
    after_P = P * (1.0 - gain) + gain * gain * within
    if top - x < 6.0 * math.sqrt(P):
        own = max(math.sqrt(after_P), 1e-300)
        z = (top - after_x) / own
        under = 0.5 * math.erfc(-z / math.sqrt(2.0))
        low_x = top
        low_P = 0.0
        if z > -6.0:
            mills = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) / under
            low_x = after_x - own * mills
            low_P = max(after_P * (1.0 - mills * (z + mills)), 0.0)
        at_top = 0.5 * math.erfc((top - x) / max(math.sqrt(P), 1e-300) / math.sqrt(2.0))
        seen, _, _ = _interval(abs(y - top), half, max(write, 1e-3 * half))
        total = inside * under + at_top * seen
        share = inside * under / total if total > 0.0 else 0.0
        inside = total
        most = max(most, seen)
        after_x = share * low_x + (1.0 - share) * top
        after_P = share * low_P + share * (1.0 - share) * (top - low_x) ** 2
    stray = OUTLIERS * min(2.0 * half / span, 1.0)
    chance = (1.0 - OUTLIERS) * inside + stray
    regular = (1.0 - OUTLIERS) * inside / chance
    if top - x < 6.0 * math.sqrt(P):
        x, P = _censored(x, P, top)
    P = regular * after_P + (1.0 - regular) * P + regular * (1.0 - regular) * (after_x - x) ** 2
    loss = -math.log(chance / (2.0 * half))
    least = -math.log(((1.0 - OUTLIERS) * most + stray) / (2.0 * half))
    return loss, least, regular, regular * after_x + (1.0 - regular) * x, P


@compiled()
def kalman(
    kind,
    y,
    pulses,
    first,
    at_end,
    cell,
    theta,
    held,
    low,
    high,
    c,
    additive,
    write,
    half,
    span,
    e,
    S,
    loss,
    least,
    regular,
    x_after,
):
    """Innovations e and their variances S, losses -ln p and the least they could be, chance of
    being no outlier, x after each.

    Those of first readings are e = 0, S = 1, loss = 0; those at_end count as probabilities, not
    densities, or not at all. held: theta that S goes by. At a hard bound the weight is the lesser
    of itself and the bound: between readings its first two moments are kept. A sequence begins anew
    where its second reading is an outlier to its first, or after LOST outliers in a row: then it is
    what they were judged by that has gone.
    """
    x = 0.0
    P = 0.0
    r = write * write + half * half / 3.0
    taken = 0
    missed = 0
    for i in range(y.size):
        own = theta[cell[i]]
        ref = held[cell[i]]
        if first[i]:
            x, P, e[i], S[i], loss[i], least[i], regular[i] = y[i], r, 0.0, 1.0, 0.0, 0.0, 1.0
            x_after[i], taken, missed = x, 1, 0
            continue
        up = pulses[i] > 0
        d = 1.0 if up else -1.0
        top = high[cell[i]] if up else -low[cell[i]]
        for number in range(abs(pulses[i])):
            if number:
                x, P = _censored(d * x, P, top)
                x *= d
            noise, slope = step_at(kind, ref, up, x)
            if additive:
                noise = ref[0] if up else ref[1]
            step, _ = step_at(kind, own, up, x)
            x += d * step
            P = (1.0 + d * slope) ** 2 * P + (c * noise) ** 2
        mean, variance = _censored(d * x, P, top)
        S[i], e[i] = variance + r, y[i] - d * mean
        loss[i], least[i], regular[i], x, P = _reading(d * y[i], half, d * x, P, top, write, span)
        x *= d
        if at_end[i] == COUNTED:
            loss[i], least[i] = loss[i] - math.log(2.0 * half), least[i] - math.log(2.0 * half)
        elif at_end[i]:
            loss[i], least[i], regular[i], x, P = 0.0, 0.0, 1.0, y[i], r
        missed = 0 if regular[i] > 0.5 else missed + 1
        if missed and (taken == 1 or missed == LOST):
            if taken == 1:  # of the two, the one before it is named
                regular[i], regular[i - 1] = 1.0, 0.0
            else:
                regular[i - LOST + 1 : i + 1] = 1.0
            x = y[i]
            P = r
            taken = 1
            missed = 0
        elif not missed:
            taken += 1
        x_after[i] = x


@compiled()
def mean_curve(kind, y, pulses, first, cell, theta, low, high, x_mean):
    """The mean response from every sequence's first reading, with no look at the later ones."""
    x = 0.0
    for i in range(y.size):
        if first[i]:
            x = y[i]
        for _ in range(abs(pulses[i])):
            up = pulses[i] > 0
            step, _ = step_at(kind, theta[cell[i]], up, x)
            x = min(max(x + (step if up else -step), low[cell[i]]), high[cell[i]])
        x_mean[i] = x


# ---- models


@dataclass(frozen=True)
class Candidate:
    """A model to fit: its response has `own` parameters per cell, `shared` ones for all, and
    `ends` hard bounds per cell.
    """

    model: str
    kind: int
    additive: bool
    own: int
    shared: int
    ends: int


CANDIDATES = {
    "constant-step": [Candidate("constant-step", LINEAR, False, 2, 0, 2)],
    "soft-bounds": [
        Candidate("soft-bounds", LINEAR, additive, 4 - s, s, 0)
        for s in (2, 0)
        for additive in (False, True)
    ],
    "linear-step": [
        Candidate("linear-step", LINEAR, additive, 4 - s, s, 2)
        for s in (2, 0)
        for additive in (False, True)
    ],
    "exponential-step": [
        Candidate("exponential-step", EXPONENTIAL, additive, 2, 4, 2) for additive in (False, True)
    ],
    "one-sided-pair": [
        Candidate("one-sided-pair", EXPONENTIAL, additive, 1, 2, 1) for additive in (False, True)
    ],
}


@dataclass
class Fitted:
    """theta (n_cells, 6): dw_up, dw_down, then slopes, or A_up, A_down, k_up, k_down of f = 1 -
    A exp(k w).
    """

    candidate: Candidate
    work: "Work"
    theta: Array
    errors: "Errors"
    low: Array
    high: Array
    bounded: bool  # whether these are bounds, rather than just the extremes measured
    c: float
    write: float
    outliers: Array  # rows of the data
    log_likelihood: float
    bic: float
    n_parameters: int
    device: DeviceParams | None = None
    refused: str = ""
    stderr: dict[str, float] = field(default_factory=dict)


@dataclass
class Errors:
    """Errors of every cell's free parameters (in the order of `free_parameters`; ln dw for dw), and
    of the two noises.

    own (n, k, k): covariance of what differs from cell to cell. common (n, k, r): what moves with
    the r errors that all share, so that cov(i, j) = [i = j] own_i + common_i common_j'. noise (2,):
    standard errors of c and the write noise.
    """

    own: Array
    common: Array
    noise: Array

    def covariance(self, i: int) -> Array:
        return self.own[i] + self.common[i] @ self.common[i].T


class Filtered(NamedTuple):
    """What `kalman` fills in, one number per reading."""

    e: Array
    S: Array
    loss: Array
    least: Array
    regular: Array
    x: Array


def straight_segments(data: Measured) -> Array:
    """(cell, direction, weight, change per pulse) of stretches of pulses of one direction, each
    by a straight line through it.
    """
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
                slope, middle = _robust_line(count, data.y[low : high + 1])
                rows.append((data.cell[a], np.sign(data.pulses[high]), middle, slope, count[-1]))
    return np.array(rows)


def _robust_line(x: Array, y: Array) -> tuple[float, float]:
    """Slope, and value at the mean of x, that outliers do not change much: medians of slopes
    (Theil 1950; Sen 1968).
    """
    from scipy.stats import theilslopes

    middle = x.mean()
    parts = max(1, min(x.size, 40))
    blocks = [
        (np.median(x[part]), np.median(y[part]))
        for part in np.array_split(np.arange(x.size), parts)
    ]
    at, values = np.array(blocks).T
    slope = float(theilslopes(values, at)[0])
    return slope, float(np.median(values - slope * (at - middle)))


def _largest_step(data: Measured) -> float:
    """Median change per pulse right after pulses have turned round, where steps are largest, as
    a share of the range measured.
    """
    turns = (
        np.flatnonzero(~data.first & (np.sign(data.pulses) != np.sign(np.roll(data.pulses, 1)))) - 1
    )
    ends = np.minimum(turns + 3, data.y.size - 1)
    whole = np.cumsum(data.first)
    turns, ends = turns[whole[turns] == whole[ends]], ends[whole[turns] == whole[ends]]
    counts = [data.pulses[a + 1 : b + 1].sum() for a, b in zip(turns, ends, strict=True)]
    changes = [
        (data.y[b] - data.y[a]) / count
        for a, b, count in zip(turns, ends, counts, strict=True)
        if count
    ]
    spans = [np.ptp(data.y[data.cell == i]) for i in range(data.n_cells)]
    return float(np.median(changes) / np.median(spans)) if changes else 0.0


def _starts(candidate: Candidate, data: Measured, segments: Array) -> list[Array]:
    """theta from straight stretches of the data: robust, not efficient. Of exponentials, for
    both signs of k.
    """
    typical = max(np.abs(segments[:, 3]).mean(), 1e-9)
    directions = (1,) if data.one_sided else (1, -1)

    def line(part: Array, regressor: Array) -> tuple[float, float, float]:
        X = np.column_stack([np.ones(len(part)), regressor])
        weight = np.sqrt(part[:, 4])
        (intercept, slope), *_ = np.linalg.lstsq(
            X * weight[:, None], part[:, 3] * part[:, 1] * weight, rcond=None
        )
        misfit = float(
            (((X @ [intercept, slope]) - part[:, 3] * part[:, 1]) ** 2 * weight**2).sum()
        )
        return intercept, slope, misfit

    if candidate.kind == EXPONENTIAL:
        starts = []
        for sign in (-1, 1):
            theta = np.zeros((data.n_cells, 6))
            for d in directions:
                part = segments[segments[:, 1] == d]
                side = 0 if d > 0 else 1
                tried = [
                    (line(part, np.exp(d * sign * g * part[:, 2])), d * sign * g)
                    for g in (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
                ]
                # the step is positive everywhere, or the regression has followed noise
                tried = [
                    (fit, k)
                    for fit, k in tried
                    if fit[0] > 0.02 * typical and fit[0] + fit[1] > 0.02 * typical
                ]
                (dw, slope, _), k = (
                    min(tried, key=lambda pair: pair[0][2])
                    if tried
                    else ((typical, 0.1 * typical, 0.0), d * sign)
                )
                theta[:, side], theta[:, 2 + side], theta[:, 4 + side] = dw, -slope / dw, k
            mild = np.zeros_like(theta)
            mild[:, :2], mild[:, 2:4], mild[:, 4], mild[:, 5] = (
                typical,
                -0.3,
                2.0 * sign,
                -2.0 * sign,
            )
            starts += [theta, mild]
        return starts
    theta = np.zeros((data.n_cells, 6))
    for d in directions:
        side = 0 if d > 0 else 1
        every = segments[segments[:, 1] == d]
        for i in range(data.n_cells):
            part = every[every[:, 0] == i]
            theta[i, side] = max(
                (part[:, 3] * d * part[:, 4]).sum() / part[:, 4].sum(), 1e-2 * typical
            )
        if candidate.own + candidate.shared == 4:
            intercept, slope, _ = line(every, every[:, 2])
            if intercept > 0.1 * typical:
                theta[:, 2 + side] = -slope / intercept
    return [theta]


def fit_candidate(candidate: Candidate, data: Measured, segments: Array) -> "Work":
    """Fit one model (head of this module), from the start that leads to the larger likelihood."""
    work = [Work(candidate, data, theta) for theta in _starts(candidate, data, segments)]
    if len(work) > 1:
        for one in work:
            one.find_noises()
        work = sorted(work, key=lambda one: -one.log_likelihood(one.c, one.write))[:2]
        for one in work:
            one.improve(2)
        work.sort(key=lambda one: -one.likelihood)
    best = work[0]
    penalty = math.log(data.y.size) / 2
    best.improve(8)
    if best.write > 0:  # noise of readings that the data do not show is none
        exact = best.pinned(WRITE, 0.0)
        exact.c = math.hypot(best.c, 1.4 * best.write / float(best.theta[:, 0].mean()))
        exact.improve(4)
        best = exact if exact.likelihood > best.likelihood - penalty else best
    if candidate.ends and (best.write > 0 or data.repeats):
        # the extremes measured are bounds only if the data are likelier so: they may just be where
        # pulses turned round
        bounded = best.bounded()
        bounded.improve(4)
        certain = data.at_end.any() and not best.coarse
        best = (
            bounded
            if certain or bounded.likelihood > best.likelihood + candidate.ends * penalty
            else best
        )
    if best.log_likelihood(0.0, best.write) > best.log_likelihood(best.c, best.write) - penalty:
        best.c = 0.0  # not shown by the data
    return best


def soft_ends(theta: Array) -> tuple[Array, Array]:
    """Lowest and highest weight of cells whose steps vanish at 1/slope; none where they do not."""
    up = theta[:, 2]
    down = theta[:, 3]
    with np.errstate(divide="ignore"):
        return np.where(down < 0, 1 / down, -np.inf), np.where(up > 0, 1 / up, np.inf)


class Work:
    """A fit on its way: theta, the noises c and write, and the bounds."""

    def __init__(self, candidate: Candidate, data: Measured, theta: Array):
        self.candidate = candidate
        self.data = data
        self.theta = theta
        self.n = data.n_cells
        self.cells = [np.flatnonzero(data.cell == i) for i in range(self.n)]
        # no bounds yet
        self.low = np.full(self.n, -np.inf)
        self.high = np.full(self.n, np.inf)
        self.soft = False
        self.own = free_parameters(candidate)
        self.sides = [j for j in self.own if j < 2]
        # of every cell's own parameters and of those that all share, packed
        self.covariance = [
            np.eye(len(self.sides if candidate.shared else self.own)) for _ in self.cells
        ]
        self.spread = np.eye(len(self.own))
        self.likelihood = -math.inf
        self.coarse = _largest_step(data) > COARSE
        # that the weight stays at a hard end says nothing about steps, unless the model has that
        # end
        self.at_end = data.at_end * LEFT_OUT
        self.free = [PULSE, WRITE]  # noises that are fitted
        self.c, self.write = (
            1e6,
            1e-6,
        )  # all weight on the last reading: innovations are increments less their means
        # first noises: what two neighbouring increments share with opposite signs is of the
        # readings
        e = self.run(theta, theta, self.c, self.write).e
        inner = ~data.first[1:] & ~data.first[:-1]
        self.write = math.sqrt(max(-float((e[1:] * e[:-1])[inner].mean()), 1e-12))
        per_pulse = e[~data.first] ** 2 / np.maximum(np.abs(data.pulses[~data.first]), 1)
        typical = float(np.mean(theta[:, 0]))
        self.c = (
            math.sqrt(max(float(per_pulse.mean()) - 2 * self.write**2, 1e-4 * typical**2)) / typical
        )
        self.soft = not candidate.ends

    def copy(self) -> "Work":
        other = copy(self)
        other.covariance = list(self.covariance)
        if not self.coarse:
            other.likelihood = -IMPOSSIBLE  # from here on, without least squares
        return other

    def bounded(self) -> "Work":
        """A copy whose cells end at the extremes of their readings, outliers apart."""
        other = self.copy()
        regular = self.run(self.theta, self.theta, self.c, self.write).regular > 0.5
        if not self.coarse:
            other.at_end = self.data.at_end * COUNTED
        ends = [self.data.y[rows[regular[rows]]] for rows in self.cells]
        other.low = np.array([own.min() for own in ends])
        other.high = np.array([own.max() for own in ends])
        return other

    def pinned(self, noise: int, value: float) -> "Work":
        """A copy with a noise that stays as it is."""
        other = self.copy()
        other.free = [k for k in self.free if k != noise]
        if noise == PULSE:
            other.c = value
        else:
            other.write = value
        return other

    def run(
        self, theta: Array, held: Array, c: float, write: float, rows: Array | slice = slice(None)
    ) -> Filtered:
        data = self.data
        y = data.y[rows]
        out = Filtered(*(np.empty(y.size) for _ in range(6)))
        low, high = soft_ends(theta) if self.soft else (self.low, self.high)
        kalman(
            self.candidate.kind,
            y,
            data.pulses[rows],
            data.first[rows],
            self.at_end[rows],
            data.cell[rows],
            theta,
            held,
            low,
            high,
            c,
            self.candidate.additive,
            write,
            data.resolution / 2,
            0.0 if self.coarse else data.span,
            *out,
        )
        return out

    def misfit(
        self, theta: Array, c: float, write: float, rows: Array | slice = slice(None)
    ) -> float:
        """-ln L of some rows."""
        total = float(self.run(theta, theta, c, write, rows).loss.sum())
        return total if total < IMPOSSIBLE else IMPOSSIBLE

    def log_likelihood(self, c: float, write: float) -> float:
        return -self.misfit(self.theta, c, write)

    def solve(
        self,
        rows: Array | slice,
        at: Callable[[Array], Array],
        start: Array,
        prior: Array | float = 0.0,
    ) -> tuple[Array, Array]:
        """The parameters that minimise the losses less their least, e^2 / 2 S but for outliers,
        with S held; their covariance.
        """
        from scipy.optimize import least_squares

        held = at(start)

        def residuals(values: Array) -> Array:
            out = self.run(at(values), held, self.c, self.write, rows)
            whitened = np.sign(out.e) * np.sqrt(2 * np.maximum(out.loss - out.least, 0.0))
            # where the response itself grows beyond all numbers: as far off as none that does not
            return np.concatenate([np.where(np.isfinite(whitened), whitened, 1e6), values * prior])

        done = least_squares(residuals, start, method="lm", max_nfev=40 * start.size)
        return done.x, _inverse(done.jac.T @ done.jac)

    def improve(self, turns: int) -> None:
        """Least squares to begin with; then the likelihood of cells, of noises and of what cells
        share, in turn.
        """
        for _ in range(turns):
            if self.coarse:
                self._least_squares()
            elif self.likelihood == -math.inf:
                self._begin()
            if not self.coarse and self.n > 1:
                self._cells()
            self.find_noises()
            if not self.coarse and (self.n == 1 or self.candidate.shared):
                self._together()
            before = self.likelihood
            self.likelihood = self.log_likelihood(self.c, self.write)
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
        ratio[:, self.sides] = self.theta[:, self.sides] / np.exp(
            np.log(self.theta[:, self.sides]).mean(0)
        )
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

        return at, (
            np.log(self.theta[i, self.sides])
            if self.candidate.shared
            else _packed(self.candidate, self.theta[i])
        )

    def _least_squares(self) -> None:
        if self.n == 1 or self.candidate.shared:
            ratio = self._ratio()
            values, self.spread = self.solve(
                slice(None),
                lambda values: _unpacked(self.candidate, values) * ratio,
                _packed(self.candidate, self.theta[0] / ratio[0]),
                _prior(self.candidate),
            )
            self.theta = _unpacked(self.candidate, values) * ratio
        if self.n > 1:
            for i, rows in enumerate(self.cells):
                at, start = self._cell(i)
                values, self.covariance[i] = self.solve(rows, at, start)
                self.theta = at(values)

    def _cells(self) -> None:
        for i, rows in enumerate(self.cells):
            at, start = self._cell(i)
            scale = np.clip(np.sqrt(np.diag(self.covariance[i])), 1e-5, 0.3)

            def misfit(
                values: Array, at: Callable[[Array], Array] = at, rows: Array = rows
            ) -> float:
                return self.misfit(at(values), self.c, self.write, rows)

            values, covariance = _most_likely(misfit, start, scale)
            self.theta, self.covariance[i] = at(values), covariance

    def find_noises(self) -> None:
        from scipy.optimize import minimize

        if not self.free:
            return
        found = minimize(
            lambda z: self.misfit(self.theta, *self._pair(z)),
            self._logarithms(),
            method="Nelder-Mead",
            options={"xatol": 1e-3, "fatol": 1e-2, "maxiter": 150},
        )
        self.c, self.write = self._pair(found.x)

    def _logarithms(self) -> Array:
        """Of the noises that are fitted."""
        return np.log(
            [max(self.c, 1e-4) if k == PULSE else max(self.write, 1e-6) for k in self.free]
        )

    def _pair(self, z: Array) -> tuple[float, float]:
        """c and the write noise, of the logarithms of those that are fitted."""
        pair = [self.c, self.write]
        for k, value in zip(self.free, z, strict=True):
            pair[k] = math.exp(min(value, 5.0 if k == PULSE else 2.0))
        return pair[0], pair[1]

    def _together(self) -> None:
        ratio = self._ratio()
        prior = _prior(self.candidate)
        k = len(self.own)

        def misfit(z: Array) -> float:
            own = self.misfit(_unpacked(self.candidate, z[:k]) * ratio, *self._pair(z[k:]))
            return own + 0.5 * float(((z[:k] * prior) ** 2).sum())

        start = np.concatenate(
            [_packed(self.candidate, self.theta[0] / ratio[0]), self._logarithms()]
        )
        scale = np.concatenate(
            [np.clip(np.sqrt(np.diag(self.spread)), 1e-5, 0.3), np.full(len(self.free), 0.02)]
        )
        z, covariance = _most_likely(misfit, start, scale)
        self.theta = _unpacked(self.candidate, z[:k]) * ratio
        self.spread = covariance[:k, :k]
        self.c, self.write = self._pair(z[k:])

    # ---- errors

    def curvature(self) -> "Arrow":
        """Of -ln L in every cell's own parameters, in those that all share, and in the
        logarithms of the fitted noises.
        """
        candidate = self.candidate
        n_all = len(self.own)
        k = len(self.sides) if candidate.shared else n_all
        packed = np.array([_packed(candidate, row) for row in self.theta])
        if self.coarse:
            return self._of_least_squares(packed, k)

        def of_cell(i: int) -> Callable[[Array], float]:
            def misfit(z: Array) -> float:
                theta = self.theta.copy()
                theta[i] = _unpacked(candidate, z[:n_all])
                return self.misfit(theta, *self._pair(z[n_all:]), self.cells[i])

            return misfit

        def of_all(z: Array) -> float:
            rows = [
                _unpacked(candidate, np.concatenate([row[:k], z[: n_all - k]])) for row in packed
            ]
            return self.misfit(np.array(rows), *self._pair(z[n_all - k :]))

        common = np.concatenate([packed[0, k:], self._logarithms()])
        h_common = _spacing(of_all, common, np.full(common.size, 0.02))
        prior = np.zeros(common.size)
        prior[: n_all - k] = _prior(candidate)[k:] ** 2
        own = []
        follow = []
        total = np.diag(prior)
        for i in range(self.n):
            z = np.concatenate([packed[i, :k], common])
            misfit = of_cell(i)

            def of_own(own: Array, misfit: Callable[[Array], float] = misfit) -> float:
                return misfit(np.concatenate([own, common]))

            h = _spacing(of_own, z[:k], np.full(k, 0.02))
            H = _second_differences(misfit, z, np.concatenate([h, h_common]))
            own.append(_inverse(H[:k, :k]))
            follow.append(-_inverse(H[:k, :k], undetermined=0.0) @ H[:k, k:])
            total = total + H[k:, k:] + H[k:, :k] @ follow[-1]
        return Arrow(packed, k, np.array(own), np.array(follow), common, _inverse(total))

    def _of_least_squares(self, packed: Array, k: int) -> "Arrow":
        """The covariances that least squares told, and the curvature in the noises."""
        shared = self.spread[k:, k:]
        noises = self._logarithms()

        def of_noises(z: Array) -> float:
            return self.misfit(self.theta, *self._pair(z))

        own = np.array(self.covariance)
        follow = np.zeros((self.n, k, shared.shape[0] + noises.size))
        if self.n == 1:
            by_shared = self.spread[:k, k:] @ _inverse(shared)
            own = (self.spread[:k, :k] - by_shared @ self.spread[k:, :k])[None]
            follow[0, :, : shared.shape[0]] = by_shared
        covariance = np.zeros((follow.shape[2],) * 2)
        covariance[: shared.shape[0], : shared.shape[0]] = shared
        h = _spacing(of_noises, noises, np.full(noises.size, 0.02))
        covariance[shared.shape[0] :, shared.shape[0] :] = _inverse(
            _second_differences(of_noises, noises, h)
        )
        return Arrow(packed, k, own, follow, np.concatenate([packed[0, k:], noises]), covariance)

    def errors(self, arrow: "Arrow") -> Errors:
        """Of what is fitted, with the rest taken as it is: noises that are not have the error
        nan.
        """
        own = arrow.own_full()
        common = arrow.common_full()
        noise = np.full(2, np.nan)
        for place, k in enumerate(self.free):
            at = arrow.common.size - len(self.free) + place
            noise[k] = (self.c, self.write)[k] * math.sqrt(arrow.covariance[at, at])
        return self._naturally(arrow.packed, own, common, noise)

    def _naturally(self, packed: Array, own: Array, common: Array, noise: Array) -> Errors:
        T = np.array([_natural(self.candidate, row) for row in packed])
        return Errors(T @ own @ T.transpose(0, 2, 1), T @ common, noise)

    def _moved(self, packed: Array, c: float, write: float) -> "Work":
        other = self.copy()
        other.theta = np.array([_unpacked(self.candidate, row) for row in packed])
        other.c = c
        other.write = write
        return other

    def settled(self) -> tuple["Work", Errors]:
        """The same with what the errors of the other parameters take from the noises given back,
        and the errors of all.

        The noises are those of the likelihood with the other parameters integrated out (restricted
        likelihood: Patterson & Thompson 1971), by Laplace's method. A noise that is well known
        moves by its first order. One that is not has its values tried, from 0 to where they are out
        of the question: all parameters are means over them, and their variances say what not to
        know it means. If the data do not show it, it stays 0, with its rms value as its error.
        """
        shown = [value > 0 for value in (self.c, self.write)]
        fitted = copy(self)
        fitted.free = [k for k in (PULSE, WRITE) if shown[k]]
        arrow = fitted.curvature()
        errors = fitted.errors(arrow)
        if self.coarse or not arrow.defined():
            return fitted, errors
        relative = errors.noise / np.array([self.c or np.nan, self.write or np.nan])
        vague = [k for k in (PULSE, WRITE) if not relative[k] < VAGUE]
        if not vague:
            return fitted._restricted(arrow)
        tried = [fitted._values_of(k, [m for m in (PULSE, WRITE) if m not in vague]) for k in vague]
        nodes = [
            (weight / len(tried), work, arrow) for scan in tried for weight, work, arrow in scan
        ]
        mean = np.sum([weight * arrow.packed for weight, _, arrow in nodes], axis=0)
        own = np.sum([weight * arrow.own_full() for weight, _, arrow in nodes], axis=0)
        parts = [math.sqrt(weight) * arrow.common_full() for weight, _, arrow in nodes]
        parts += [
            math.sqrt(weight) * (arrow.packed - mean)[:, :, None] for weight, _, arrow in nodes
        ]
        values = [self.c, self.write]
        noise = np.full(2, np.nan)
        for k in (PULSE, WRITE):
            source = [scan for scan, m in zip(tried, vague, strict=True) if m == k] or tried
            found = [
                (w / len(source), (work.c, work.write)[k], work.errors(a).noise[k])
                for scan in source
                for w, work, a in scan
            ]
            center = sum(w * value for w, value, _ in found) if shown[k] else 0.0
            spread = sum(
                w * ((value - center) ** 2 + (0.0 if k in vague else error**2))
                for w, value, error in found
            )
            values[k], noise[k] = center, math.sqrt(spread)
        other = self._moved(mean, values[0], values[1])
        return other, self._naturally(mean, own, np.concatenate(parts, axis=2), noise)

    def _restricted(self, arrow: "Arrow") -> tuple["Work", Errors]:
        """The first order of what integrating out the other parameters changes."""
        change = np.zeros(arrow.common.size)
        for place, k in enumerate(self.free):
            at = arrow.common.size - len(self.free) + place
            h = min(math.sqrt(arrow.covariance[at, at]), VAGUE)
            ends = []
            for sign in (1, -1):
                moved = self.pinned(k, (self.c, self.write)[k] * math.exp(sign * h))
                moved.free = []
                ends.append(moved.curvature().log_volume())
            change[at] = (ends[0] - ends[1]) / (2 * h)
        shift = arrow.covariance @ change
        limit = np.sqrt(np.diag(arrow.covariance))
        if not np.isfinite(shift).all():
            shift = np.zeros_like(shift)
        shift = np.clip(shift, -limit, limit)
        other = self._moved(
            arrow.shifted(shift),
            *self._pair(shift[shift.size - len(self.free) :] + self._logarithms()),
        )
        other.free = self.free
        return other, other.errors(arrow)

    def _values_of(self, noise: int, free: list[int]) -> list[tuple[float, "Work", "Arrow"]]:
        """(probability, fit, its errors) of values of a noise, evenly from 0 to where they are
        out of the question.
        """

        def at(value: float, start: "Work") -> tuple[float, "Work", "Arrow"]:
            work = start.pinned(noise, value)
            work.free = free
            work.improve(4)
            arrow = work.curvature()
            height = work.log_likelihood(work.c, work.write) + arrow.log_volume()
            return height if arrow.defined() else -math.inf, work, arrow

        value = (self.c or 0.01, self.write or self.data.resolution)[noise]
        best, *_ = zero = at(0.0, self)
        height, start, _ = at(value, self)
        best = max(best, height)
        while height < best - 8 and value > 1e-9:  # far too large
            value /= 4
            height, start, _ = at(value, zero[1])
            best = max(best, height)
        while height > best - 8 and value < (10.0, 1.0)[noise]:
            value *= 2
            height, start, _ = at(value, start)
            best = max(best, height)
        nodes = []
        start = zero[1]
        for place in range(NODES):
            nodes.append(at((place + 0.5) * value / NODES, start))
            start = nodes[-1][1]
        heights = np.array([height for height, _, _ in nodes])
        if not np.isfinite(heights).any():
            return [(1.0, *zero[1:])]
        weights = np.exp(heights - heights.max())
        return [
            (float(w), work, arrow)
            for w, (_, work, arrow) in zip(weights / weights.sum(), nodes, strict=True)
        ]

    def result(self, errors: Errors) -> Fitted:
        candidate = self.candidate
        N = self.data.y.size
        out = self.run(self.theta, self.theta, self.c, self.write)
        # the extremes of noisy readings lie outside those of the weight
        low, high = (
            np.array([end(out.x[rows]) for rows in self.cells]) for end in (np.min, np.max)
        )
        # ends are read off the data, cell by cell, not fitted
        p = (
            self.n * candidate.own
            + candidate.ends
            + candidate.shared
            + (self.c > 0)
            + (self.write > 0)
        )
        likelihood = -float(out.loss.sum())
        return Fitted(
            candidate=candidate,
            work=self,
            theta=self.theta,
            errors=errors,
            low=low,
            high=high,
            bounded=bool(np.isfinite(self.low).all()),
            c=self.c,
            write=self.write,
            outliers=np.flatnonzero(out.regular < 0.5),
            log_likelihood=likelihood,
            bic=p * math.log(N) - 2 * likelihood,
            n_parameters=p,
        )


@dataclass
class Arrow:
    """Inverse curvature of -ln L: own (n, k, k) of each cell's own parameters, the common ones
    held; how they follow those.

    packed (n, K): where they stand, the first k own. follow (n, k, m): change of the own ones with
    the common ones, which are the K - k shared ones and the logarithms of the noises that are
    fitted, of covariance (m, m).
    """

    packed: Array
    k: int
    own: Array
    follow: Array
    common: Array
    covariance: Array

    def own_full(self) -> Array:
        n, K = self.packed.shape
        full = np.zeros((n, K, K))
        full[:, : self.k, : self.k] = self.own
        return full

    def common_full(self) -> Array:
        """(n, K, m): a square root of what cells have in common."""
        n, K = self.packed.shape
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        shared = np.broadcast_to(root[: K - self.k], (n, K - self.k, root.shape[1]))
        return np.concatenate([self.follow @ root, shared], axis=1)

    def shifted(self, common: Array) -> Array:
        """packed, with the common parameters changed and the others following."""
        K = self.packed.shape[1]
        changed = self.packed.copy()
        changed[:, : self.k] += self.follow @ common
        changed[:, self.k :] += common[: K - self.k]
        return changed

    def defined(self) -> bool:
        """Whether the data determine all parameters: no variance is one that `_inverse` makes
        up.
        """
        variances = np.concatenate(
            [np.diagonal(self.own, axis1=1, axis2=2).ravel(), np.diag(self.covariance)]
        )
        return bool((variances < UNKNOWN).all())

    def log_volume(self) -> float:
        """ln of the square root of the determinant of the covariance."""
        return 0.5 * (
            sum(np.linalg.slogdet(own)[1] for own in self.own)
            + np.linalg.slogdet(self.covariance)[1]
        )


def _inverse(A: Array, undetermined: float = 1e12) -> Array:
    """Of a positive matrix; what it does not determine gets a large variance, not none (or
    another, relative one).
    """
    scale = np.sqrt(np.maximum(np.diag(A), 0.0)) + 1e-12
    values, vectors = np.linalg.eigh(A / np.outer(scale, scale))
    inverse = np.where(values > 1e-12, 1 / np.maximum(values, 1e-12), undetermined)
    return (vectors * inverse) @ vectors.T / np.outer(scale, scale)


def _prior(candidate: Candidate) -> Array:
    """1 / width of a wide prior about 0 for what the packed parameters of an exponential may be: ln
    f(0) to 3 or so, k to 10.

    Data whose steps are nearly constant, or nearly a pure exponential, do not determine both; the
    published devices lie within.
    """
    widths = (
        np.array([np.inf, np.inf, 3.0, 3.0, 10.0, 10.0])
        if candidate.kind == EXPONENTIAL
        else np.full(6, np.inf)
    )
    return 1 / widths[free_parameters(candidate)]


def _most_likely(
    misfit: Callable[[Array], float], start: Array, scale: Array
) -> tuple[Array, Array]:
    """Where a -ln L is least, from `start` in steps of about `scale`, and the covariance that
    its curvature there tells.
    """
    from scipy.optimize import minimize

    found = minimize(
        lambda z: misfit(start + scale * z),
        np.zeros(start.size),
        method="BFGS",
        options={"gtol": 0.05, "maxiter": 40},
    )
    z = start + scale * found.x if found.fun < misfit(start) else start
    h = _spacing(misfit, z, scale)
    return z, _inverse(_second_differences(misfit, z, h))


def _spacing(misfit: Callable[[Array], float], z: Array, h: Array) -> Array:
    """Displacements that raise -ln L by about 1/2, one standard error each, from a first guess
    h.
    """
    least = misfit(z)
    h = h.copy()
    for a, unit in enumerate(np.eye(z.size)):
        for _ in range(8):
            rise = (misfit(z + h[a] * unit) + misfit(z - h[a] * unit)) / 2 - least
            factor = min(max(math.sqrt(0.5 / rise), 0.01), 10.0) if rise > 0 else 10.0
            h[a] = min(h[a] * factor, 1.0)
            if 0.5 < factor < 2 or h[a] == 1.0:
                break
    return h


def _second_differences(f: Callable[[Array], float], z: Array, h: Array) -> Array:
    H = np.zeros((z.size, z.size))
    steps = np.diag(h)
    for a in range(z.size):
        for b in range(a + 1):
            corners = [
                f(z + p * steps[a] + q * steps[b]) for p, q in ((1, 1), (1, -1), (-1, 1), (-1, -1))
            ]
            H[a, b] = H[b, a] = (corners[0] - corners[1] - corners[2] + corners[3]) / (
                4 * h[a] * h[b]
            )
    return H


def _packed(candidate: Candidate, row: Array) -> Array:
    """ln dw and slopes; of exponentials ln(dw f(0)), ln f(0) = ln(1 - A) and k, which hang
    together less.
    """
    row = row.copy()
    sides = [j for j in free_parameters(candidate) if j < 2]
    for j in sides:
        row[j] = math.log(row[j])
        if candidate.kind == EXPONENTIAL:
            row[2 + j] = math.log(max(1.0 - row[2 + j], 0.05))
            row[j] += row[2 + j]
    return row[free_parameters(candidate)]


def _unpacked(candidate: Candidate, values: Array) -> Array:
    row = np.zeros(6)
    own = free_parameters(candidate)
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


def _natural(candidate: Candidate, values: Array) -> Array:
    """Derivatives of ln dw, slopes, A and k by the packed parameters."""
    own = free_parameters(candidate)
    T = np.eye(len(own))
    if candidate.kind == EXPONENTIAL:
        for j in own:
            if j < 2:
                place = own.index(j)
                grown = own.index(2 + j)
                T[place, grown] = -1.0
                T[grown, grown] = -math.exp(min(max(values[grown], -3.0), 6.0))
    return T


def free_parameters(candidate: Candidate) -> list[int]:
    """Columns of theta that are fitted."""
    if candidate.model == "one-sided-pair":
        return [0, 2, 4]
    return list(range(candidate.own + candidate.shared))
