"""The likelihood of a table of readings: its maximum, and the errors that its curvature tells.

    -2 ln L = sum (ln 2 pi S + e^2 / S)

with the innovations e and variances S of the filter (where the last digit is coarse, or readings
may be outliers or stand at a bound: the probabilities that it returns). It is maximised in all
parameters at once, each cell's own ones, those that all cells share, and the logarithms of the two
noises, by scoring (Fisher 1925): with the derivatives by differences,

    g = sum grad loss,   M = sum (grad e grad e' / S + grad ln S grad ln S' / 2),   z := z - M^-1 g,

damped as by Levenberg & Marquardt. M is an arrow: cells have nothing to do with each other but for
what they share, so that its inverse needs those of the cells only. Errors are those of the second
differences of -ln L, one standard error apart.

If a pulse crosses more than COARSE of the range the filter's first order is not good enough for a
likelihood: there S goes by the cells of the turn before (weighted least squares), no outliers are
looked for, and the two noises are hard to tell apart.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from sims.device_fit.filter import COUNTED, LEFT_OUT, LOSS, REGULAR, E, S, kalman_of
from sims.device_fit.models import Candidate, largest_step
from sims.device_fit.pulses import Measured

Array = np.ndarray

COARSE = 0.04  # share of the range measured
PULSE, WRITE = 0, 1  # the noises
LEAST = (1e-4, 1e-6)  # of each that is fitted
MOST = (150.0, 7.0)
VAGUE = 0.25  # relative standard error beyond which a noise is not well known
UNKNOWN = 1e4  # variance, of logarithms and in range units, of what is not determined
IMPOSSIBLE = 1e30  # -ln L of a response that grows beyond all numbers
NODES = 16  # values tried of a noise that is not well known
TURNS = 60  # of scoring


@dataclass(frozen=True)
class Fit:
    """A candidate with values of its parameters: packed (n, K) as in `Candidate`, and noises (2,).

    free: the noises that are fitted. low, high (n,): hard bounds of the cells. at_end (N,): what
    the filter makes of readings at a hard end. held: cells that S goes by, if not its own.
    """

    candidate: Candidate
    data: Measured
    packed: Array
    noises: Array
    free: tuple[int, ...]
    low: Array
    high: Array
    at_end: Array
    coarse: bool
    held: Array | None = None
    out: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", self.run(np.zeros(self.n_parameters)))

    @property
    def n_parameters(self) -> int:
        """Of a cell, the shared ones and the noises that are fitted among them."""
        return self.packed.shape[1] + len(self.free)

    @property
    def theta(self) -> Array:
        return self.candidate.unpacked(self.packed, self.data)

    @property
    def cells(self) -> Array:
        """Records, as `step` of the law reads them."""
        return self.candidate.cells(self.theta, self.data)

    @property
    def c(self) -> float:
        return float(self.noises[PULSE])

    @property
    def write(self) -> float:
        return float(self.noises[WRITE])

    @property
    def loss(self) -> float:
        """-ln L, less the logarithm of the prior."""
        shared = self.packed[0] * self.candidate.prior
        return float(self.of_cells(self.out).sum() + 0.5 * (shared**2).sum())

    def of_cells(self, out: Array) -> Array:
        """-ln L of each cell."""
        sums = np.add.reduceat(out[LOSS], self.data.cell_starts)
        # NaN compares as false, so that no fit moves to where the filter overflows
        return np.where(sums < IMPOSSIBLE, sums, IMPOSSIBLE)

    def changed(self, z: Array) -> tuple[Array, Array]:
        """Packed parameters and noises after a change z (n, K + noises) or (K + noises,)."""
        K = self.packed.shape[1]
        z = np.broadcast_to(z, (len(self.packed), z.shape[-1]))
        noises = self.noises.copy()
        # noises are shared: every row of z has the same change of them
        for k, change in zip(self.free, z[0, K:], strict=True):
            noises[k] = min(max(noises[k] * math.exp(change), LEAST[k]), MOST[k])
        return self.packed + z[:, :K], noises

    def run(self, z: Array) -> Array:
        """The filter after a change z of the parameters."""
        data, candidate = self.data, self.candidate
        packed, (c, write) = self.changed(z)
        theta = candidate.unpacked(packed, data)
        cells = candidate.cells(theta, data)
        low, high = (self.low, self.high) if candidate.ends else candidate.bounds(theta)
        return kalman_of(candidate.law.step)(
            data.y, data.pulses, data.first, self.at_end, data.cell, cells,
            cells if self.held is None else self.held, low, high, (c, write, candidate.additive),
            data.resolution / 2, 0.0 if self.coarse else data.span,
        )  # fmt: skip

    def moved(self, z: Array) -> "Fit":
        packed, noises = self.changed(z)
        return replace(self, packed=packed, noises=noises)

    def pinned(self, noise: int, value: float) -> "Fit":
        """With a noise that stays as it is."""
        noises = self.noises.copy()
        noises[noise] = value
        return replace(self, noises=noises, free=tuple(k for k in self.free if k != noise))

    def bounded(self) -> "Fit":
        """With cells that end at the extremes of their readings, outliers apart."""
        data, regular = self.data, self.out[REGULAR] > 0.5
        ends = [data.y[regular & (data.cell == i)] for i in range(data.n_cells)]
        at_end = self.at_end if self.coarse else data.at_end * COUNTED
        return replace(
            self,
            low=np.array([own.min() for own in ends]),
            high=np.array([own.max() for own in ends]),
            at_end=at_end,
        )

    def expansion(self, h: Array) -> tuple[Array, Array]:
        """Gradients (n, K + noises) of -ln L of each cell, and M (n, K + noises, K + noises)."""
        e_rows, s_rows, gradient = [], [], []
        for unit, step in zip(np.eye(self.n_parameters), h.T, strict=True):
            displaced = step[:, None] * unit
            above, below = self.run(displaced), self.run(-displaced)
            span = 2 * step[self.data.cell]
            with np.errstate(invalid="ignore", over="ignore"):
                # far off, e or S may overflow; such a row is set to 0 below
                e_rows.append((above[E] - below[E]) / span)
                s_rows.append(np.log(above[S] / below[S]) / span)
            gradient.append((self.of_cells(above) - self.of_cells(below)) / (2 * step))
        # an outlier tells nothing
        weight = np.sqrt(self.out[REGULAR])
        # both terms of M side by side, (K + noises, 2 N), so that M is one product per cell
        rows = np.hstack([e_rows * weight / np.sqrt(self.out[S]), s_rows * weight / math.sqrt(2)])
        rows = np.nan_to_num(rows, posinf=0.0, neginf=0.0)
        cell = np.tile(self.data.cell, 2)
        M = [rows[:, own] @ rows[:, own].T for own in (cell == i for i in range(len(self.packed)))]
        return np.array(gradient).T, np.array(M)

    def curvature(self) -> "Arrow":
        """Of -ln L, by second differences."""
        # 1e-3 serves only to learn the scale of each parameter
        h = self.spacing(self.expansion(np.full((len(self.packed), self.n_parameters), 1e-3))[1])
        n, K = h.shape
        H, units = np.zeros((n, K, K)), np.eye(K)
        for a in range(K):
            for b in range(a + 1):
                corners = [
                    self.of_cells(self.run(p * h * units[a] + q * h * units[b]))
                    for p, q in ((1, 1), (1, -1), (-1, 1), (-1, -1))
                ]
                # for a = b it is the second difference over 2 h
                second = corners[0] - corners[1] - corners[2] + corners[3]
                H[:, a, b] = H[:, b, a] = second / (4 * h[:, a] * h[:, b])
        return Arrow.of(self, H)

    def spacing(self, M: Array, share: float = 1.0) -> Array:
        """Displacements (n, K + noises) of a share of one standard error, the others held."""
        k = self.candidate.own
        diagonal = np.diagonal(M, axis1=1, axis2=2).copy()
        # what is shared is known from the readings of all cells together
        diagonal[:, k:] = diagonal[:, k:].sum(0)
        return np.clip(share / np.sqrt(np.maximum(diagonal, 1e-12)), 1e-7, 0.5)


@dataclass(frozen=True)
class Arrow:
    """An inverse curvature: own (n, k, k) of each cell's own parameters, the common ones held.

    follow (n, k, m): change of the own ones with the common ones, which are the shared ones and the
    logarithms of the noises that are fitted, of covariance (m, m).
    """

    own: Array
    follow: Array
    covariance: Array

    @classmethod
    def of(cls, fit: Fit, H: Array) -> "Arrow":
        k, m = fit.candidate.own, fit.n_parameters - fit.candidate.own
        prior = np.zeros(m)
        # the noises, last of what is common, have no prior
        prior[: m - len(fit.free)] = fit.candidate.prior[k:] ** 2
        own = np.array([inverse(block) for block in H[:, :k, :k]])
        # what a cell's readings do not determine follows nothing
        known = np.array([inverse(block, undetermined=0.0) for block in H[:, :k, :k]])
        follow = -known @ H[:, :k, k:]
        # Schur's complement: what the cells' own parameters leave known of the common ones
        total = H[:, k:, k:].sum(0) + np.einsum("ika,ikb->ab", H[:, :k, k:], follow)
        return cls(own, follow, inverse(total + np.diag(prior)))

    def step(self, fit: Fit, gradient: Array) -> Array:
        """-M^-1 g: of common parameters and, with them, of the cells' own."""
        k = fit.candidate.own
        common = gradient[:, k:].sum(0) + np.einsum("ikm,ik->m", self.follow, gradient[:, :k])
        shared = fit.packed.shape[1] - k
        # gradient of the prior, which enters once, not once per cell
        common[:shared] += fit.packed[0, k:] * fit.candidate.prior[k:] ** 2
        change = -self.covariance @ common
        own = self.follow @ change - np.einsum("ikl,il->ik", self.own, gradient[:, :k])
        return np.hstack([own, np.broadcast_to(change, (len(own), change.size))])

    def errors(self, fit: Fit) -> "Errors":
        n, K = fit.packed.shape
        k = fit.candidate.own
        own = np.zeros((n, K, K))
        own[:, :k, :k] = self.own
        values, vectors = np.linalg.eigh(self.covariance)
        # covariance = root root', each column an independent error
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        shared = np.broadcast_to(root[: K - k], (n, K - k, root.shape[1]))
        noise = np.full(2, np.nan)
        for place, which in enumerate(fit.free, K - k):
            noise[which] = math.sqrt(self.covariance[place, place])
        return Errors(own, np.concatenate([self.follow @ root, shared], axis=1), noise)

    def defined(self) -> bool:
        """Whether the data determine all parameters: no variance is one `inverse` makes up."""
        variances = np.diagonal(self.own, axis1=1, axis2=2)
        return bool((variances < UNKNOWN).all() and (np.diag(self.covariance) < UNKNOWN).all())

    @property
    def log_volume(self) -> float:
        """ln of the square root of the determinant of the covariance."""
        return 0.5 * float(
            np.linalg.slogdet(self.own)[1].sum() + np.linalg.slogdet(self.covariance)[1]
        )


@dataclass(frozen=True)
class Errors:
    """Errors of every cell's packed parameters, and of the logarithms of the two noises.

    own (n, K, K): covariance of what differs from cell to cell. common (n, K, r): what moves with
    the r errors that all share, so that cov(i, j) = [i = j] own_i + common_i common_j'. noise (2,):
    standard errors; nan of a noise that is not fitted, absolute of one that stands at 0.
    """

    own: Array
    common: Array
    noise: Array


def inverse(A: Array, undetermined: float = 1e12) -> Array:
    """Of a positive matrix; what it does not determine gets a large variance (or another)."""
    # to a unit diagonal: the threshold for what is undetermined then has no unit
    scale = np.sqrt(np.maximum(np.diag(A), 0.0)) + 1e-12
    values, vectors = np.linalg.eigh(A / np.outer(scale, scale))
    inverse = np.where(values > 1e-12, 1 / np.maximum(values, 1e-12), undetermined)
    return (vectors * inverse) @ vectors.T / np.outer(scale, scale)


def maximised(fit: Fit) -> Fit:
    """Where L is largest, from where the fit stands."""
    # weighted least squares: S stays within a turn and is renewed between turns
    for _ in range(8 if fit.coarse else 1):
        before = fit.packed
        fit = _scored(replace(fit, held=fit.cells) if fit.coarse else fit)
        if np.abs(fit.packed - before).max() < 1e-4:
            break
    return fit


def _scored(fit: Fit) -> Fit:
    if not fit.n_parameters:
        return fit
    h, damping = np.full((len(fit.packed), fit.n_parameters), 1e-4), 1e-3
    for _ in range(TURNS):
        gradient, M = fit.expansion(h)
        h = fit.spacing(M, share=0.05)
        # damped relative to each parameter's own curvature, so that units do not count
        diagonal = M * np.eye(fit.n_parameters)
        while True:
            step = Arrow.of(fit, M + damping * diagonal).step(fit, gradient)
            # a step beyond 1, in logarithms or slopes, leaves where the expansion holds
            trial = fit.moved(np.clip(step, -1.0, 1.0))
            if trial.loss < fit.loss:
                break
            # the loss did not fall (NaN compares as false)
            damping *= 10
            if damping > 1e6:
                return fit
        gain, fit = fit.loss - trial.loss, trial
        # strongly damped, a small gain may only be a short step
        if gain < 1e-3 and damping < 1:
            break
        damping = max(damping / 10, 1e-6)
    return fit


def begun(candidate: Candidate, data: Measured, theta: Array) -> Fit:
    """A first fit: least squares with S held, with the likeliest noises before and after."""
    n = data.n_cells
    # that the weight stays at a hard end says nothing about steps, unless the model has that end
    fit = Fit(
        candidate=candidate,
        data=data,
        packed=candidate.packed(theta, data),
        noises=np.array([MOST[PULSE], LEAST[WRITE]]),
        free=(PULSE, WRITE),
        low=np.full(n, -np.inf),
        high=np.full(n, np.inf),
        at_end=data.at_end * LEFT_OUT,
        coarse=largest_step(data) > COARSE,
    )
    fit = _with_noises(fit)
    least_squares = _scored(replace(fit, held=fit.cells))
    return min(fit, _with_noises(replace(least_squares, held=None)), key=_loss)


def _with_noises(fit: Fit) -> Fit:
    """With the likeliest noises: what alone makes the increments' variance, over powers of 3."""
    # all weight on the last reading: innovations are increments less their means
    increments = replace(fit, noises=np.array([MOST[PULSE], LEAST[WRITE]])).out[E]
    size = float(np.sqrt(np.mean(increments**2)))
    most = np.array([size / fit.theta[:, 0].mean(), size])
    tried = [
        replace(fit, noises=np.clip(most * (3.0**-i, 3.0**-j), LEAST, MOST))
        for i in range(-1, 6)
        for j in range(9)
    ]
    return min(tried, key=_loss)


def _loss(fit: Fit) -> float:
    return fit.loss


def fit_candidate(candidate: Candidate, data: Measured, segments: Array) -> Fit:
    """Fit one model, from the start that leads to the larger likelihood."""
    begins = [begun(candidate, data, theta) for theta in candidate.starts(data, segments)]
    begins = sorted(begins, key=_loss)[:2]
    best = min((maximised(one) for one in begins), key=_loss)
    # what a parameter costs in BIC, as a difference of -ln L
    penalty = math.log(data.y.size) / 2
    # noise of readings that the data do not show is none
    # (an increment has the noise of two readings: c is the pulse noise that is as large)
    c = math.hypot(best.c, 1.4 * best.write / float(best.theta[:, 0].mean()))
    none = maximised(replace(best.pinned(WRITE, 0.0), noises=np.array([c, 0.0])))
    best = none if none.loss < best.loss + penalty else best
    if candidate.ends and (best.write > 0 or data.repeats):
        # the extremes measured are bounds only if the data are likelier so: they may just be where
        # pulses turned round
        bounded = maximised(best.bounded())
        certain = data.at_end.any() and not best.coarse
        likelier = bounded.loss < best.loss - candidate.ends * penalty
        best = bounded if certain or likelier else best
    still = maximised(best.pinned(PULSE, 0.0))
    return still if still.loss < best.loss + penalty else best


def settled(fit: Fit) -> tuple[Fit, Errors]:
    """The fit with what the errors of other parameters take from the noises given back, and errors.

    Notes
    -----
    The noises are those of the likelihood with the other parameters integrated out (restricted
    likelihood: Patterson & Thompson 1971), by Laplace's method. A noise that is well known moves by
    its first order. One that is not has its values tried, from 0 to where they are out of the
    question: all parameters are means over them, and their variances say what not to know it means.
    If the data do not show it, it stays 0, with its rms value as its error.
    """
    arrow = fit.curvature()
    errors = arrow.errors(fit)
    if fit.coarse or not arrow.defined():
        return fit, errors
    vague = [k for k in (PULSE, WRITE) if not errors.noise[k] < VAGUE]
    if not vague:
        fit = _restricted(fit, arrow)
        return fit, arrow.errors(fit)
    free = tuple(k for k in fit.free if k not in vague)
    tried = {k: _values_of(fit, k, free) for k in vague}
    # with two noises in question the values of each have half of the weight
    nodes = [(w / len(vague), each, errors) for scan in tried.values() for w, each, errors in scan]
    packed = np.sum([w * each.packed for w, each, _ in nodes], axis=0)
    common = [math.sqrt(w) * errors.common for w, _, errors in nodes]
    # total variance: within the values tried, and of their means about the common one
    common += [math.sqrt(w) * (each.packed - packed)[:, :, None] for w, each, _ in nodes]
    own = np.sum([w * errors.own for w, _, errors in nodes], axis=0)
    noises, relative = np.zeros(2), np.zeros(2)
    for k in (PULSE, WRITE):
        scan = tried.get(k) or nodes
        weights = np.array([w for w, _, _ in scan])
        values = np.array([each.noises[k] for _, each, _ in scan])
        noises[k] = weights @ values if fit.noises[k] > 0 else 0.0
        variance = (values - noises[k]) ** 2
        if k not in vague:
            variance += [(each.noises[k] * errors.noise[k]) ** 2 for _, each, errors in scan]
        # absolute for a noise that stands at 0, see `Errors`
        relative[k] = math.sqrt(weights @ variance) / (noises[k] or 1.0)
    fit = replace(fit, packed=packed, noises=noises)
    return fit, Errors(own, np.concatenate(common, axis=2), relative)


def _restricted(fit: Fit, arrow: Arrow) -> Fit:
    """The first order of what integrating out the other parameters changes."""
    change = np.zeros(len(arrow.covariance))
    limit = np.sqrt(np.diag(arrow.covariance))
    for k, at in zip(fit.free, range(-len(fit.free), 0), strict=True):
        # over one standard error, but not so far that the volume is no straight line
        h = min(limit[at], VAGUE)
        ends = [
            replace(fit.pinned(k, fit.noises[k] * math.exp(sign * h)), free=()).curvature()
            for sign in (1, -1)
        ]
        change[at] = (ends[0].log_volume - ends[1].log_volume) / (2 * h)
    # at most one standard error: further the first order means nothing
    shift = np.clip(np.nan_to_num(arrow.covariance @ change), -limit, limit)
    return fit.moved(np.hstack([arrow.follow @ shift, np.tile(shift, (len(fit.packed), 1))]))


def _values_of(fit: Fit, noise: int, free: tuple[int, ...]) -> list[tuple[float, Fit, Errors]]:
    """(probability, fit, its errors) of values of a noise, evenly from 0 to where it cannot be."""

    def at(value: float, start: Fit) -> tuple[float, Fit, Errors]:
        found = maximised(replace(start.pinned(noise, value), free=free))
        arrow = found.curvature()
        # Laplace: ln of the integral over all other parameters, but for a constant
        height = arrow.log_volume - found.loss if arrow.defined() else -math.inf
        return height, found, arrow.errors(found)

    # a first guess for a noise that stands at 0
    value = fit.noises[noise] or (0.01, fit.data.resolution)[noise]
    none = at(0.0, fit)
    height, start, _ = at(value, fit)
    best = max(none[0], height)
    while height < best - 8 and value > 1e-9:  # far too large
        value /= 4
        height, start, _ = at(value, none[1])
        best = max(best, height)
    # until a value is e^8 times less probable than the best: the nodes end there
    while height > best - 8 and value < (10.0, 1.0)[noise]:
        value *= 2
        height, start, _ = at(value, start)
        best = max(best, height)
    # each value starts from the fit of the one before it, which is near
    nodes, start = [], none[1]
    for place in range(NODES):
        nodes.append(at((place + 0.5) * value / NODES, start))
        start = nodes[-1][1]
    heights = np.array([height for height, _, _ in nodes])
    if not np.isfinite(heights).any():
        return [(1.0, *none[1:])]
    weights = np.exp(heights - heights.max())
    weights /= weights.sum()
    return [(float(w), each, e) for w, (_, each, e) in zip(weights, nodes, strict=True)]
