"""The filter that predicts each reading from the ones before it, and keeps two noises apart.

The noise of a pulse stays in the weight and adds up, that of a reading (write noise) does not. With
the mean step dw_d f_d(x), c the cycle-to-cycle noise and sigma_w the write noise:

    x := x + d dw_d f_d(x),  P := F^2 P + (c dw_d)^2 (f_d^2 or 1),  F = 1 + d dw_d f_d'   per pulse
    e = y - x,  S = P + sigma_w^2,  x := x + e P / S,  P := P sigma_w^2 / S             per reading

A reading is known to half a last digit, h: its probability is Phi((e + h) / S^1/2) - Phi((e - h) /
S^1/2), and x and P after it are moments of the normal distribution cut to y +- h. A pulse against a
hard bound leaves the weight at it with the probability of what lies beyond (Tobin 1958). With the
probability OUTLIERS a reading is anything within the span of all instead, and moves x and P by as
much as it is none (probabilistic data association: Bar-Shalom & Tse 1975). Linear models are
filtered exactly but for their bounds, the exponential one to first order (Kalman 1960; Jazwinski
1970).
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from perturb.compiled import compiled

Array = np.ndarray

OUTLIERS = 1e-3  # share of the readings expected to say nothing about the weight: dropouts
NEAR = 1e-6  # range units, over which f' is a difference
LOST = 5  # so many outliers in a row are none
LEFT_OUT, COUNTED = 1, 2  # readings at a hard end
E, S, LOSS, REGULAR, X = range(5)  # rows of what `kalman` returns


@cache
def steps_of(step: Callable[..., float]) -> Callable[..., Any]:
    """dw f(x) of every cell, for the law with this `step`: (own, up, x)."""
    f_of = compiled()(step)

    @compiled()
    def steps_at(own, up, x):
        steps = np.empty(own.size)
        for i in range(own.size):
            dw = own[i].dw_up if up else own[i].dw_down
            steps[i] = dw * f_of(x, 1.0 if up else -1.0, own[i], own[i].low, own[i].high)
        return steps

    return steps_at


@compiled()
def _censored(m, P, high):
    """Mean and variance of min(X, high), X normal of mean m and variance P."""
    s = math.sqrt(P)
    u = (high - m) / max(s, 1e-300)
    # beyond six deviations lies less than 1e-9 of the probability
    if u > 6.0:
        return m, P
    if u < -6.0:
        return high, 0.0
    density = math.exp(-0.5 * u * u) / math.sqrt(2.0 * math.pi)
    below = 0.5 * math.erfc(-u / math.sqrt(2.0))
    # E max(high - X, 0) = s (phi(u) + u Phi(u)), and min(X, high) = high - max(high - X, 0)
    short = density + u * below
    return high - s * short, max(P * ((1.0 + u * u) * below + u * density - short * short), 0.0)


@compiled()
def _interval(off, half, s):
    """Probability of mean +- half off the mean of a normal distribution of deviation s.

    Also mean and variance within that interval, from off.
    """
    a, b = (off - half) / s, (off + half) / s
    # flat over so narrow an interval, and the difference of two erfc would be rounding
    if b - a < 1e-3:
        density = math.exp(-0.5 * (off / s) ** 2) / math.sqrt(2.0 * math.pi)
        return density * (b - a), off, half * half / 3.0
    inside = 0.5 * (math.erfc(a / math.sqrt(2.0)) - math.erfc(b / math.sqrt(2.0)))
    # too far out for moments by differences: those of a flat density
    if inside < 1e-12:
        return inside, off, half * half / 3.0
    # moments of a normal distribution cut at a and b
    below = math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)
    above = math.exp(-0.5 * b * b) / math.sqrt(2.0 * math.pi)
    drawn = (below - above) / inside
    variance = s * s * (1.0 + (a * below - b * above) / inside - drawn * drawn)
    return inside, s * drawn, max(variance, 0.0)


@compiled()
def take_reading(y, half, x, P, top, write, span):
    """One reading y, after pulses up to the bound `top`; the weight before it is x, of variance P.

    Parameters
    ----------
    y, half
        The weight and its write noise lie within y +- half.
    x, P, top
        Where x, P lie beyond top, the weight is top.
    write
        Standard deviation of the write noise.
    span
        Range of all readings. 0: no reading is an outlier, and y is normal, as of steps too large
        for all this.

    Returns
    -------
    loss, regular, x, P
        -ln of the density of y, the probability that y is no outlier, and mean and variance of the
        weight after it.

    References
    ----------
    Tobin 1958 (bounds); Bar-Shalom & Tse 1975 (outliers).
    """
    if span == 0.0:
        x, P = _censored(x, P, top)
        # rounding to +- half is uniform, of variance half^2 / 3
        r = write * write + half * half / 3.0
        S = P + r
        loss = 0.5 * (math.log(2.0 * math.pi * S) + (y - x) ** 2 / S)
        return loss, 1.0, x + (y - x) * P / S, P * r / S
    # without any noise, s = 0 would divide by zero
    s = max(math.sqrt(P + write * write), 1e-3 * half)
    gain, side = P / (s * s), 1.0 if y > x else -1.0
    # on the upper side, by symmetry; `side` turns the result back
    inside, off, within = _interval(abs(y - x), half, s)
    after_x, after_P = x + gain * off * side, P * (1.0 - gain) + gain * gain * within
    if top - x < 6.0 * math.sqrt(P):
        # a mixture: the weight is below the bound and cut by it, or it stands at the bound
        own = max(math.sqrt(after_P), 1e-300)
        z = (top - after_x) / own
        under = 0.5 * math.erfc(-z / math.sqrt(2.0))
        low_x, low_P = top, 0.0
        if z > -6.0:
            mills = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) / under
            low_x = after_x - own * mills
            low_P = max(after_P * (1.0 - mills * (z + mills)), 0.0)
        # what the prediction has beyond the bound is the chance that the weight stands at it
        at_top = 0.5 * math.erfc((top - x) / max(math.sqrt(P), 1e-300) / math.sqrt(2.0))
        seen, _, _ = _interval(abs(y - top), half, max(write, 1e-3 * half))
        total = inside * under + at_top * seen
        share = inside * under / total if total > 0.0 else 0.0
        inside = total
        after_x = share * low_x + (1.0 - share) * top
        # between the two parts, and within the lower one; at the bound there is no variance
        after_P = share * low_P + share * (1.0 - share) * (top - low_x) ** 2
    # an outlier lies anywhere in the span of all readings: within this digit by its share of it
    stray = OUTLIERS * min(2.0 * half / span, 1.0)
    chance = (1.0 - OUTLIERS) * inside + stray
    regular = (1.0 - OUTLIERS) * inside / chance
    if top - x < 6.0 * math.sqrt(P):
        x, P = _censored(x, P, top)
    # the same mixture of "no outlier" and "outlier", in which the prediction stands as it was
    P = regular * after_P + (1.0 - regular) * (P + regular * (after_x - x) ** 2)
    # a density, per range unit: probability of the digit over its width
    loss = -math.log(chance / (2.0 * half))
    return loss, regular, regular * after_x + (1.0 - regular) * x, P


@cache
def kalman_of(step: Callable[..., float]) -> Callable[..., Any]:
    """`kalman` for the law with this `step`."""
    f_of = compiled()(step)

    @compiled()
    def kalman(y, pulses, first, at_end, cell, cells, held, low, high, noises, half, span):
        """The filter over all readings: a row for each of E, S, LOSS, REGULAR and X.

        Innovations e and their variances S, losses -ln p, the probability of being no outlier, and
        x after each. Those of first readings are e = 0, S = 1, loss = 0; those at_end count as
        probabilities, not densities, or not at all. cells: records of what `step` reads, with
        dw_up, dw_down, low and high; held: those that S goes by.

        A sequence begins anew where its second reading is an outlier to its first, or after LOST
        outliers in a row: then it is what they were judged by that has gone. If that was fewer
        readings than they are, from the beginning of the sequence, those were the outliers.
        """
        c, write, additive = noises
        out = np.empty((5, y.size))
        x, P, r, began, taken, missed = 0.0, 0.0, write * write + half * half / 3.0, 0, 0, 0
        for i in range(y.size):
            own, ref = cells[cell[i]], held[cell[i]]
            if first[i]:
                out[E, i], out[S, i], out[LOSS, i], out[REGULAR, i], out[X, i] = (
                    0.0,
                    1.0,
                    0.0,
                    1.0,
                    y[i],
                )
                # a sequence starts at its first reading, known as well as that is
                x, P, began, taken, missed = y[i], r, i, 1, 0
                continue
            up = pulses[i] > 0
            d = 1.0 if up else -1.0
            # in the sign of the direction the bound ahead is always an upper one
            top = high[cell[i]] if up else -low[cell[i]]
            for number in range(abs(pulses[i])):
                if number:
                    x, P = _censored(d * x, P, top)
                    x *= d
                # P, and so S, goes by the cells held, x by those that are fitted
                size = ref.dw_up if up else ref.dw_down
                f = f_of(x, d, ref, ref.low, ref.high)
                slope = size * (f_of(x + NEAR, d, ref, ref.low, ref.high) - f) / NEAR
                noise = size if additive else size * f
                dw = own.dw_up if up else own.dw_down
                x += d * dw * f_of(x, d, own, own.low, own.high)
                P = (1.0 + d * slope) ** 2 * P + (c * noise) ** 2
            mean, variance = _censored(d * x, P, top)
            out[E, i], out[S, i] = y[i] - d * mean, variance + r
            loss, regular, x, P = take_reading(d * y[i], half, d * x, P, top, write, span)
            x *= d
            if at_end[i] == COUNTED:
                loss -= math.log(2.0 * half)
            elif at_end[i]:
                loss, regular, x, P = 0.0, 1.0, y[i], r
            out[LOSS, i], out[REGULAR, i] = loss, regular
            missed = 0 if regular > 0.5 else missed + 1
            if missed and (taken == 1 or missed == LOST):
                if taken == 1:  # of the two, the one before it is named
                    out[REGULAR, i], out[REGULAR, i - 1] = 1.0, 0.0
                else:
                    out[REGULAR, i - LOST + 1 : i + 1] = 1.0
                    if taken < LOST:
                        out[REGULAR, began : i - LOST + 1] = 0.0
                began, taken = i, (1 if taken == 1 else LOST)
                x, P, missed = y[i], r, 0
            elif not missed:
                taken += 1
            out[X, i] = x
        return out

    return kalman


@cache
def mean_curve_of(step: Callable[..., float]) -> Callable[..., Any]:
    """`mean_curve` for the law with this `step`."""
    f_of = compiled()(step)

    @compiled()
    def mean_curve(y, pulses, first, cell, cells, low, high):
        """The mean response from every sequence's first reading, with no look at the later ones."""
        curve, x = np.empty(y.size), 0.0
        for i in range(y.size):
            if first[i]:
                x = y[i]
            for _ in range(abs(pulses[i])):
                up = pulses[i] > 0
                own = cells[cell[i]]
                d = 1.0 if up else -1.0
                step = (own.dw_up if up else own.dw_down) * f_of(x, d, own, own.low, own.high)
                x = min(max(x + d * step, low[cell[i]]), high[cell[i]])
            curve[i] = x
        return curve

    return mean_curve
