"""Sums over a block of T trials, from the measured errors to `synapse.SUMS`; for signs and for
other perturbations.

For every weight all sums are linear in D and D^2 (a constant, for signs), with coefficients that
belong to the trial: 1, y, y^2, s, su, su^2, ... Sums over a block are taken in float32, in a fixed
order; those of different blocks in float64.
"""

import math
from typing import NamedTuple

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.simd import (
    EXACT,
    add,
    aligned,
    load,
    load8,
    load_d,
    mul,
    narrow,
    splat_d,
    store,
    total,
    widen,
)


class Room(NamedTuple):
    """Of a block of T trials: what is broadcast, y, u, s; the coefficients of D and of D^2, c[r T +
    t]; their sums and units, see `_coefficients`; and their sums times D or D^2, L[i rows + r].
    """

    y: np.ndarray
    u: np.ndarray
    s: np.ndarray
    c: np.ndarray
    c2: np.ndarray
    scalars: np.ndarray
    units: np.ndarray
    L: np.ndarray


@compiled()
def room_for_sums(n, T, rows, rows_of_D, rows_of_squares):
    y, u, s = np.empty(T), np.empty(T), np.empty(T)
    c, c2, L = aligned(rows_of_D * T), aligned(rows_of_squares * T), aligned(n * rows + 16)
    return Room(y, u, s, c, c2, np.empty(12), np.empty(3), L)


@compiled(**EXACT)
def _power(x):
    """The power of two next above |x|, 1 for 0: dividing by it rounds nothing."""
    if not (x > 0.0) or x == np.inf:
        return 1.0
    _, e = math.frexp(x)
    return math.ldexp(1.0, e)


@compiled(**EXACT)
def _coefficients(lo, hi, room):
    """The coefficients of every trial, and their sums: see `finish`.

    c[r T + t] = 1, y, y^2, s, su, su^2, s^2, s^2 y u, s^3, s^3 u, s^3 u^2 for r = 0.. and 0 for
    trials outside lo..hi-1, where y, u, s must be 0, with y, u, s in the powers of two `units`, in
    which none exceeds 1. scalars: sums of y, y^2, s, s^2, s^2 u, s^2 u^2, syu, s^4, s^4 u, s^4 u^2,
    u, u^2. c2: if not empty, the coefficients 1, y, y^2, s, s^2, s^2 u, s^2 u^2, syu of D^2.
    """
    y, u, s, c, c2, scalars, units, _ = room
    T = y.size
    with_b = c.size > 8 * T
    # what is broadcast is summed once, not for every weight: in float64
    n0 = n1 = n2 = n3 = n4 = n5 = n6 = n7 = n8 = n9 = n10 = n11 = splat_d(0.0)
    for t in range(0, T, 8):
        Y, U, s_ = load_d(y, t), load_d(u, t), load_d(s, t)
        ss, su = mul(s_, s_), mul(s_, U)
        n0, n1, n2, n3 = add(n0, Y), add(n1, mul(Y, Y)), add(n2, s_), add(n3, ss)
        n4, n5, n6, n10 = (
            add(n4, mul(s_, su)),
            add(n5, mul(su, su)),
            add(n6, mul(su, Y)),
            add(n10, U),
        )
        n11 = add(n11, mul(U, U))
        ss_ss = mul(ss, ss)
        n7, n8, n9 = add(n7, ss_ss), add(n8, mul(ss_ss, U)), add(n9, mul(ss_ss, mul(U, U)))
    scalars[0], scalars[1], scalars[2] = total(n0), total(n1), total(n2)
    scalars[3], scalars[4], scalars[5] = total(n3), total(n4), total(n5)
    scalars[6], scalars[7], scalars[8] = total(n6), total(n7), total(n8)
    scalars[9], scalars[10], scalars[11] = total(n9), total(n10), total(n11)
    # the root of the sum of squares bounds every term
    units[0], units[1], units[2] = (
        _power(scalars[1] ** 0.5),
        _power(scalars[11] ** 0.5),
        _power(scalars[3] ** 0.5),
    )
    per_y, per_u, per_s = splat_d(1.0 / units[0]), splat_d(1.0 / units[1]), splat_d(1.0 / units[2])
    # 1 for the trials of this call, 0 for others of the block
    c[:T] = np.float32(0.0)
    c[lo:hi] = np.float32(1.0)
    for t in range(0, T, 16):
        Y = narrow(mul(load_d(y, t), per_y), mul(load_d(y, t + 8), per_y))
        U = narrow(mul(load_d(u, t), per_u), mul(load_d(u, t + 8), per_u))
        s32 = narrow(mul(load_d(s, t), per_s), mul(load_d(s, t + 8), per_s))
        su, ss = mul(s32, U), mul(s32, s32)
        store(c, T + t, Y)
        store(c, 2 * T + t, mul(Y, Y))
        store(c, 3 * T + t, s32)
        store(c, 4 * T + t, su)
        store(c, 5 * T + t, mul(su, U))
        store(c, 6 * T + t, ss)
        store(c, 7 * T + t, mul(mul(su, s32), Y))
        if c2.size:
            store(c2, t, load(c, t))
            store(c2, T + t, Y)
            store(c2, 2 * T + t, mul(Y, Y))
            store(c2, 3 * T + t, s32)
            store(c2, 4 * T + t, ss)
            store(c2, 5 * T + t, mul(ss, U))
            store(c2, 6 * T + t, mul(su, su))
            store(c2, 7 * T + t, mul(su, Y))
        # for b, q = alpha s D_i - beta_i s^2, higher powers of s as well
        if with_b:
            store(c, 8 * T + t, mul(ss, s32))
            store(c, 9 * T + t, mul(ss, su))
            store(c, 10 * T + t, mul(mul(ss, su), U))


@compiled(**EXACT)
def finish(trials, count, signs, rows, room, sums):
    """Add the block's sums, as `synapse.accumulate` makes them, with q = alpha s D_i - beta_i s^2,
    of `count` trials.

    L[i rows + r]: sums of coefficients times D_i, in units of sigma; without `signs` those of D_i^2
    are r = 8..15 and the rest follows. sums (14, n), see `synapse.SUMS`.
    """
    kind, _, v_beta, alpha, _ = trials.regressor
    L, sigma, with_b = room.L, trials.draws.sigma, kind == 2
    Uy, Uu, Us = room.units[0], room.units[1], room.units[2]
    scalars = room.scalars
    y1, yy, s1, ss, ssu = scalars[0], scalars[1], scalars[2], scalars[3], scalars[4]
    ssuu, syu, s4, s4u, s4uu = scalars[5], scalars[6], scalars[7], scalars[8], scalars[9]
    power = sigma * sigma
    # back from units of the coefficients
    m1, my, myy = sigma, sigma * Uy, sigma * Uy * Uy
    ms, msu, msuu = alpha * sigma * Us, alpha * sigma * Us * Uu, alpha * sigma * Us * Uu * Uu
    for i in range(v_beta.size):
        at = i * rows
        x, xy, xyy = m1 * L[at], my * L[at + 1], myy * L[at + 2]
        q, qu, quu = ms * L[at + 3], msu * L[at + 4], msuu * L[at + 5]
        # D_i^2 = sigma^2 for signs, so that sums with D_i^2 are those of the broadcasts
        xx, xxy, xyxy = power * count, power * y1, power * yy
        xq, qq, qqu = alpha * power * s1, alpha * alpha * power * ss, alpha * alpha * power * ssu
        xyqu, ququ = alpha * power * syu, alpha * alpha * power * ssuu
        if not signs:
            xx, xxy, xyxy = power * L[at + 8], power * Uy * L[at + 9], power * Uy * Uy * L[at + 10]
            xq, qq = alpha * power * Us * L[at + 11], alpha * alpha * power * Us * Us * L[at + 12]
            qqu, ququ = (
                alpha * alpha * power * Us * Us * Uu * L[at + 13],
                alpha * alpha * power * (Us * Uu) ** 2 * L[at + 14],
            )
            xyqu = alpha * power * Us * Uy * Uu * L[at + 15]
        if with_b:
            beta = v_beta[i]
            m = sigma * Us * Us
            xss, xssyu = m * L[at + 6], m * Uy * Uu * L[at + 7]
            m *= Us
            # without signs rows 8 to 15 are those of D^2, and these come behind
            at += 0 if signs else 8
            xsss, xsssu, xsssuu = m * L[at + 8], m * Uu * L[at + 9], m * Uu * Uu * L[at + 10]
            # b multiplied out
            q, qu, quu = q - beta * ss, qu - beta * ssu, quu - beta * ssuu
            xq, xyqu = xq - beta * xss, xyqu - beta * xssyu
            qq += beta * (beta * s4 - 2.0 * alpha * xsss)
            qqu += beta * (beta * s4u - 2.0 * alpha * xsssu)
            ququ += beta * (beta * s4uu - 2.0 * alpha * xsssuu)
        # in the order of `synapse.SUMS`
        sums[0, i] += x
        sums[1, i] += q
        sums[2, i] += xx
        sums[3, i] += xq
        sums[4, i] += qq
        sums[5, i] += xy
        sums[6, i] += qu
        sums[7, i] += xxy
        sums[8, i] += xyy
        sums[9, i] += qqu
        sums[10, i] += quu
        sums[11, i] += xyxy
        sums[12, i] += xyqu
        sums[13, i] += ququ


@compiled(**EXACT)
def _count(scalars, with_s, totals):
    """Add the block's sums of the broadcasts, as `synapse.count` makes them; s is broadcast only
    with_s.
    """
    # in the order of `synapse.TOTALS`
    totals[0] += scalars[0]
    totals[1] += scalars[10]
    totals[2] += scalars[1]
    totals[3] += scalars[11]
    if with_s:
        totals[4] += scalars[3]
        totals[5] += scalars[4]
        totals[6] += scalars[7]
        totals[7] += scalars[8]
        totals[8] += scalars[5]
        totals[9] += scalars[9]


@compiled(**EXACT)
def _dE(trials, E, s32, room):
    """y, u and s of all trials of the block; returns whether all are finite."""
    phases, regressor, S = trials.phases, trials.regressor, trials.patterns.S
    for_g, for_z, y, u, s = phases.gradient_weights, phases.hv_weights, room.y, room.u, room.s
    T, bad, with_s, sigma_v = y.size, splat_d(0.0), regressor.v.size > 0, regressor.sigma_v
    for t in range(0, T, 8):
        Y = U = splat_d(0.0)
        for p in range(for_g.size):
            e = widen(load8(E, p * T + t))
            Y, U = add(Y, mul(splat_d(for_g[p] / S), e)), add(U, mul(splat_d(for_z[p] / S), e))
        store(y, t, Y)
        store(u, t, U)
        # where s is not broadcast it is 1, and q = alpha D_i
        store(s, t, mul(splat_d(sigma_v), widen(load8(s32, t))) if with_s else splat_d(1.0))
        # 0 times what is not finite is not a number: one sum tells whether there was any
        bad = add(bad, mul(splat_d(0.0), add(Y, U)))
    return total(bad) == 0.0


@compiled(**EXACT)
def broadcast(trials, block, errors, room, totals, to):
    """What is broadcast of the block's trials, its coefficients and its sums; returns the first
    trial with an error that is not finite, or -1.
    """
    start, lo, hi = block
    finite = _dE(trials, errors.E, errors.s, room)
    # vectors went beyond lo and hi; other trials are to count nothing
    for numbers in (room.y, room.u, room.s):
        numbers[:lo], numbers[hi:] = 0.0, 0.0
    if not finite:
        for t in range(lo, hi):
            if not (math.isfinite(room.y[t]) and math.isfinite(room.u[t])):
                return start + t
    if to.received.shape[1]:
        for row, numbers in enumerate((room.y, room.u, room.s)):
            for t in range(lo, hi):
                to.received[row, start + t - to.origin] = numbers[t]
    _coefficients(lo, hi, room)
    _count(room.scalars, trials.regressor.v.size > 0, totals)
    return -1
