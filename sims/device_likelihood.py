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

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from hardware.device import EXPONENTIAL, LINEAR, DeviceParams
from perturb.philox import compiled
from sims.pulses import Measured

Array = np.ndarray

COARSE = 0.04  # share of the range measured


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
    density, below = math.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi), 0.5 * math.erfc(-u / math.sqrt(2.0))
    short = density + u * below
    return high - s * short, max(P * ((1.0 + u * u) * below + u * density - short * short), 0.0)


@compiled()
def kalman(kind, y, pulses, first, cell, theta, held, low, high, c, additive, write, floor, e, S, x_after):
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
            noise, slope = step_at(kind, ref, up, x)
            if additive:
                noise = ref[0] if up else ref[1]
            step, _ = step_at(kind, own, up, x)
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
    covariance: list[Array]  # of each cell's free parameters, in the order of `free_parameters`
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


def straight_segments(data: Measured) -> Array:
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


def soft_ends(theta: Array) -> tuple[Array, Array]:
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
        self.own = free_parameters(candidate)
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
        low, high = soft_ends(theta) if self.soft else (self.low, self.high)
        kalman(
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
    return 1 / widths[free_parameters(candidate)]


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
    sides = [j for j in free_parameters(candidate) if j < 2]
    for j in sides:
        row[j] = math.log(row[j])
        if candidate.kind == EXPONENTIAL:
            row[2 + j] = math.log(max(1.0 - row[2 + j], 0.05))
            row[j] += row[2 + j]
    return row[free_parameters(candidate)]


def _unpacked(candidate: Candidate, values: Array) -> Array:
    row, own = np.zeros(6), free_parameters(candidate)
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
    own = free_parameters(candidate)
    T = np.eye(len(own))
    if candidate.kind == EXPONENTIAL:
        for j in own:
            if j < 2:
                place, grown = own.index(j), own.index(2 + j)
                T[place, grown] = -1.0
                T[grown, grown] = -math.exp(min(max(values[grown], -3.0), 6.0))
    return T @ covariance @ T.T


def free_parameters(candidate: Candidate) -> list[int]:
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
