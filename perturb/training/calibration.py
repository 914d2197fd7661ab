"""Calibration: the amplitude and the learning rate that a few trials at the start advise."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from perturb.networks.objective import Objective
from perturb.trial.codes import CODES
from perturb.trial.random import NOISE, normals
from perturb.trial.readout import Reading, read

Array = np.ndarray
LEVELS = 9  # amplitudes that are tried, each twice the one before
FALLEN = 10.0  # by which g will have fallen when sigma has to be right
SURE = 0.01  # of the mean square of dE: less is not known of the gradient
ROUNDING = 1e-6  # of a gain, relative to it
# standard errors by which noise alone does not pass for a gradient: by two it would at some of nine
# amplitudes, and seem the larger the more noise there is
CERTAIN = 4.0
# of the noise of g, relative to g at the start, above which the rate has to fall: a constant one
# ends at a relative error of about half of it
NOISY = 0.01


class Calibration(NamedTuple):
    """What was found; noisy: whether noise of the readings asks for a rate that falls."""

    sigma: float
    eta: float
    noisy: bool


def evaluations(trials: int) -> int:
    """Measurements of E that a calibration takes."""
    return 2 * trials + 2 * LEVELS * trials + 4 * trials


def calibrate(
    objective: Objective,
    w: Array,
    reading: Reading,
    sigma: float,
    weights: tuple[float, ...],
    one_sided: bool,
    trials_per_update: int,
    trials: int,
    seed: int,
) -> Calibration:
    """sigma, 2^0 to 2^8 times what is given, and eta, from trials of random signs at w (n,).

    weights, one_sided: of the method, how its readings enter dE and whether curvature does.

    T trials at each amplitude, the same signs, read E at w, w + D and w - D. d = (E+ - E-)/2 sigma
    has the mean square |g|^2 + s, s = var(dE)/sigma^2 being the noise of g_i; u = (E+ + E- - 2 E)/
    sigma^2 = D'HD/sigma^2 has mean tr H and variance 2 |H|_F^2 off the diagonal (Hutchinson 1990).
    With H = F + G, F off and G on the diagonal, a step -eta dE D/sigma^2 lowers E in the mean by
    eta |g|^2 - eta^2/2 ((|g|^2 + s) tr H/K + (1 + 1/K) g'Fg + (1 - 1/K) g'Gg). |F|_F is what
    g'Fg/|g|^2 is at most; of G signs show the trace alone, and |G|_F >= tr H/sqrt(n), so that

        eta = |g|^2 / ((|g|^2 + s) tr H/K + |g|^2 ((1 + 1/K) |F|_F + (1 - 1/K) tr H/sqrt(n)))

    lowers it most, by eta |g|^2/2. sigma is the amplitude at which that is largest when |g| has
    fallen to a tenth: a larger one has less noise, until E is no longer a parabola over it. What
    that costs is added to s: of third derivatives d is wrong by T sigma^2, so that d differs by
    3/4 of it between an amplitude and half of it. Of the mean square of d two standard errors of
    what noise adds to it are taken off as well; amplitudes whose d is off by half of |g| are left
    out, and those whose d may be noise alone. tr H and |F|_F are sizes, as in `rates.trace_size`;
    2 T more trials tell them at the sigma chosen. Where few weights have nearly all of tr H, eta
    may be too large for K > 1.
    """
    n, K = w.size, trials_per_update
    signs = np.array([CODES["rademacher"].draw(n, 1.0, seed, t) for t in range(3 * trials)])
    amplitudes = sigma * 2.0 ** np.arange(LEVELS)

    def readings(points: Array, first: int) -> Array:
        errors = objective.errors_at(points)
        xi = np.zeros(errors.shape)
        for number, row in enumerate(xi):
            normals(np.uint64(seed), NOISE, first + number, 0, row)
        return read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean(1)

    def pairs(amplitude: float, signs: Array, first: int) -> tuple[Array, Array]:
        """d and u of trials."""
        D = amplitude * signs
        E = readings(np.concatenate([w + D, w - D]), first).reshape(2, -1)
        return (E[0] - E[1]) / (2 * amplitude), (E[0] + E[1] - 2 * here) / amplitude**2

    # E(w) enters u of all trials alike, so it is read 2 T times, which also tells the noise
    at_w = readings(np.tile(w, (2 * trials, 1)), 0)
    here, variance = float(at_w.mean()), float(at_w.var(ddof=1)) if reading.noise else 0.0
    variance = max(variance, reading.step**2 / 12 / objective.n_patterns)

    def advised(
        amplitude: float, d: Array, u: Array, fallen: float, wrong: float
    ) -> tuple[float, float, float]:
        """eta where |g|^2 is so many times smaller, by how much it lowers E, and s/|g|^2; wrong:
        the mean square by which d is off.
        """
        square = float((d**2).mean())
        # var(dE)/sigma^2: readings are independent and enter dE with the weights c
        own = variance * sum(c**2 for c in weights) / amplitude**2 + wrong
        g2 = max(_known(d, variance / (2 * amplitude**2), 2.0), SURE * square) / fallen
        # one-sided, dE/sigma = d + sigma u/2, and d and u are uncorrelated
        if one_sided:
            own += amplitude**2 * float((u**2).mean()) / 4
        # var(u) = 2 |F|_F^2 + 2 variance/amplitude^4: E+ and E- alone, E(w) being the same in all
        spread = float(u.var(ddof=1))
        off = max((spread - 2 * variance / amplitude**4) / 2, spread / u.size)
        norm = math.sqrt(off)
        trace = max(abs(float(u.mean())), norm)
        curved = (1 + 1 / K) * norm + (1 - 1 / K) * abs(float(u.mean())) / math.sqrt(n)
        stiffness = (g2 + own) * trace / K + g2 * curved
        # second: d must be off by less than half of |g|, else E is no parabola over this amplitude
        if not (0 < stiffness < math.inf and g2 > 4 * wrong / fallen):
            return 0.0, -math.inf, math.inf
        return g2 / stiffness, g2**2 / stiffness, own / g2

    found = [
        pairs(amplitude, signs[:trials], 2 * trials * (1 + level))
        for level, amplitude in enumerate(amplitudes)
    ]
    noise = variance / (2 * amplitudes**2)
    wrong = _wrong([d for d, _ in found], noise)
    gains = np.array(
        [
            advised(amplitude, d, u, FALLEN**2, bias)[1]
            for amplitude, (d, u), bias in zip(amplitudes, found, wrong, strict=True)
        ]
    )
    seen = [_known(d, own, CERTAIN) > 0 for (d, _), own in zip(found, noise, strict=True)]
    best = _chosen(np.where(seen, gains, -math.inf), wrong)
    more = pairs(amplitudes[best], signs[trials:], 2 * trials * (1 + LEVELS))
    d, u = (np.concatenate(both) for both in zip(found[best], more, strict=True))
    eta, _, ratio = advised(amplitudes[best], d, u, 1.0, 0.0)
    return Calibration(float(amplitudes[best]), float(eta), bool(ratio > NOISY))


def _known(d: Array, noise: float, errors: float) -> float:
    """|g|^2 of the mean square of d, less its noise and so many standard errors of that."""
    return float((d**2).mean()) - noise * (1 + errors * math.sqrt(2 / d.size))


def _wrong(d: list[Array], noise: Array) -> Array:
    """The mean square by which d of each amplitude is off, as that at half of it tells."""
    # noise of both adds 5 times that at the larger one
    most = noise[1:] * (5 + 5 * CERTAIN * math.sqrt(2 / d[0].size))
    steps = [float(((b - a) ** 2).mean()) for a, b in pairwise(d)]
    # squares: d of amplitudes a and a/2 is off by T a^2 and a quarter of that, which differ by 3/4
    off = np.maximum(np.array(steps) - most, 0.0) * (4 / 3) ** 2
    # the smallest amplitude has no half; it is off by a quarter of what the next is
    return np.array([off[0] / 16, *off])


def _chosen(gains: Array, wrong: Array) -> int:
    """The number of the amplitude with the largest gain; the gain is -inf where g is not seen."""
    if gains.max() == -math.inf:
        # all is noise: the largest amplitude over which E is a parabola has the least
        return int(np.flatnonzero(wrong == 0.0).max(initial=0))
    # the smallest of equals: without noise rounding would choose among them
    return int(np.argmax(gains >= gains.max() * (1 - ROUNDING)))
