"""Activations and errors, compiled: in float64 with their derivatives, which networks use too, and
in float32 by vectors (`simd`). Kernels know them by number; `ACTIVATION_KINDS` and `ERROR_KINDS`
alone pair numbers with names.
"""

import math
from collections.abc import Iterable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from perturb.compiled import compiled
from perturb.kernels.float32_functions import exp32, log32, number
from perturb.kernels.simd import (
    EXACT,
    add,
    choose,
    div,
    fma,
    greater,
    load,
    magnitude,
    mul,
    peek,
    splat,
    store,
    sub,
)

LINEAR, TANH, LOGISTIC, RELU, SOFTPLUS = range(5)
ACTIVATION_KINDS = {
    "linear": LINEAR,
    "tanh": TANH,
    "logistic": LOGISTIC,
    "relu": RELU,
    "softplus": SOFTPLUS,
}

SQUARED_ERROR, CROSS_ENTROPY, BINARY_CROSS_ENTROPY = range(3)
ERROR_KINDS = {
    "squared_error": SQUARED_ERROR,
    "cross_entropy": CROSS_ENTROPY,
    "binary_cross_entropy": BINARY_CROSS_ENTROPY,
}


def compiled_twins(activations: Iterable[str], error: str) -> bool:
    """Whether these have compiled twins here (those that a user has added have none)."""
    return set(activations) <= set(ACTIVATION_KINDS) and error in ERROR_KINDS


@intrinsic
def bits_of(typingctx, x):
    return types.int64(types.float64), lambda context, builder, sig, args: builder.bitcast(
        args[0], ir.IntType(64)
    )


@intrinsic
def float_of(typingctx, x):
    return types.float64(types.int64), lambda context, builder, sig, args: builder.bitcast(
        args[0], ir.DoubleType()
    )


@compiled(forceinline=True, **EXACT)
def _powers(x):
    # 2^n and p of e^x = 2^n (1 + p), |p| <= sqrt(2) - 1: Cody-Waite reduction and a Taylor series
    # of degree 13 on |t| <= ln(2)/2; unlike math.exp without a call, so that loops vectorise
    # 1.5 * 2^52 rounds to an integer in the low bits
    shifted = x * 1.4426950408889634 + 6755399441055744.0
    n = shifted - 6755399441055744.0
    # ln(2) in two parts, so that n times the first is exact
    t = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1.6059043836821613e-10
    p = p * t + 2.08767569878681e-09
    p = p * t + 2.505210838544172e-08
    p = p * t + 2.755731922398589e-07
    p = p * t + 2.7557319223985893e-06
    p = p * t + 2.48015873015873e-05
    p = p * t + 0.0001984126984126984
    p = p * t + 0.001388888888888889
    p = p * t + 0.008333333333333333
    p = p * t + 0.041666666666666664
    p = p * t + 0.16666666666666666
    p = p * t + 0.5
    # the low bits of `shifted` are n: plus the bias 1023, in the exponent's place, they are 2^n
    return float_of((bits_of(shifted) + 1023) << 52), (p * t) * t + t


@compiled(forceinline=True, **EXACT)
def exp(x):
    # within 2 units of the last place; clipped at +-708; not-a-number stays
    x = 708.0 if x > 708.0 else x
    x = -708.0 if x < -708.0 else x
    power, p = _powers(x)
    return power + power * p


@compiled(forceinline=True, **EXACT)
def _above_one(size):
    # e^size - 1 of size >= 0, within 2 units of the last place also near 0; clipped at 708
    power, p = _powers(708.0 if size > 708.0 else size)
    return power * p + (power - 1.0)


@compiled(forceinline=True, **EXACT)
def _tail(size):
    # 1/(1 + e^size) of size >= 0; 0 beyond 708
    return 0.0 if size > 708.0 else 1.0 / (_above_one(size) + 2.0)


@compiled(forceinline=True, **EXACT)
def _log_above_one(t):
    # log(1 + t) = 2 artanh(t/(2 + t)) of 0 <= t <= 1, whose series goes to 1/33: within 4 units of
    # the last place
    a = t / (2.0 + t)
    square = a * a
    p = 1.0 / 33.0
    for k in range(31, 0, -2):
        p = p * square + 1.0 / k
    return 2.0 * a * p


@compiled(**EXACT)
def activate(kind, row):
    if kind == TANH:
        for s in range(row.size):
            # from |x|, so that nothing cancels or overflows; the sign is put back
            m = _above_one(2.0 * abs(row[s]))
            row[s] = math.copysign(m / (m + 2.0), row[s])
    elif kind == LOGISTIC:
        for s in range(row.size):
            tail = _tail(abs(row[s]))
            row[s] = 1.0 - tail if row[s] > 0.0 else tail
    elif kind == RELU:
        for s in range(row.size):
            # not max(): a net input that is not a number has to stay one, and be noticed
            row[s] = 0.0 if row[s] < 0.0 else row[s]
    elif kind == SOFTPLUS:
        for s in range(row.size):
            x = row[s]
            # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which does not overflow
            row[s] = (x if x > 0.0 else 0.0) + _log_above_one(exp(-abs(x)))


@compiled(**EXACT)
def slope(kind, f):
    """f' from f, to the accuracy of float32: where f is saturated, only `activate_with_slopes`
    tells more.
    """
    if kind == TANH:
        return 1.0 - f * f
    if kind == LOGISTIC:
        return f * (1.0 - f)
    if kind == RELU:
        return 1.0 if f > 0.0 else 0.0
    if kind == SOFTPLUS:
        # f = log(1 + e^x): e^-f = 1/(1 + e^x)
        return 1.0 - exp(-f)
    return 1.0


@compiled(**EXACT)
def activate_with_slopes(kind, row, slope):
    """row := f(row), as `activate`, and slope := f'(row), which f(row) does not tell
    in saturation.
    """
    if kind == TANH:
        for s in range(row.size):
            size = 2.0 * abs(row[s])
            m = _above_one(size)
            row[s] = math.copysign(m / (m + 2.0), row[s])
            # 1 - f^2 = (1 - |f|)(1 + |f|), with 1 - |f| = 2/(m + 2)
            r = 0.0 if size > 708.0 else 2.0 / (m + 2.0)
            slope[s] = r * (2.0 - r)
    elif kind == LOGISTIC:
        for s in range(row.size):
            tail = _tail(abs(row[s]))
            row[s], slope[s] = 1.0 - tail if row[s] > 0.0 else tail, tail * (1.0 - tail)
    elif kind == RELU:
        for s in range(row.size):
            slope[s] = 1.0 if row[s] > 0.0 else 0.0
        activate(kind, row)
    elif kind == SOFTPLUS:
        for s in range(row.size):
            tail = _tail(abs(row[s]))
            slope[s] = 1.0 - tail if row[s] > 0.0 else tail
        activate(kind, row)
    else:
        for s in range(row.size):
            slope[s] = 1.0


@compiled(forceinline=True)
def _tanh_parts(x):
    # the rational approximation of degree (13, 6) known from Eigen: within 3e-7; clipped where it
    # reaches 1; not-a-number stays
    x = choose(greater(x, number(7.9053111)), number(7.9053111), x)
    x = choose(greater(number(-7.9053111), x), number(-7.9053111), x)
    t = mul(x, x)
    p = number(-2.76076847742355e-16)
    p = fma(p, t, number(2.00018790482477e-13))
    p = fma(p, t, number(-8.60467152213735e-11))
    p = fma(p, t, number(5.12229709037114e-08))
    p = fma(p, t, number(1.48572235717979e-05))
    p = fma(p, t, number(6.37261928875436e-04))
    p = fma(p, t, number(4.89352455891786e-03))
    q = number(1.19825839466702e-06)
    q = fma(q, t, number(1.18534705686654e-04))
    q = fma(q, t, number(2.26843463243900e-03))
    q = fma(q, t, number(4.89352518554385e-03))
    return mul(x, p), q


@compiled(forceinline=True)
def tanh32(x):
    p, q = _tanh_parts(x)
    return div(p, q)


@compiled(forceinline=True)
def tanh4(a, b, c, d):
    """tanh of four vectors with one division, which costs more than all the rest."""
    p0, q0 = _tanh_parts(a)
    p1, q1 = _tanh_parts(b)
    p2, q2 = _tanh_parts(c)
    p3, q3 = _tanh_parts(d)
    # one division, 1/(q0 q1 q2 q3), of which products with the other q make each 1/q
    q01, q23 = mul(q0, q1), mul(q2, q3)
    r = div(number(1.0), mul(q01, q23))
    r01, r23 = mul(r, q23), mul(r, q01)
    return (
        mul(p0, mul(q1, r01)),
        mul(p1, mul(q0, r01)),
        mul(p2, mul(q3, r23)),
        mul(p3, mul(q2, r23)),
    )


@compiled(forceinline=True)
def softplus32(x):
    positive = choose(greater(x, number(0.0)), x, mul(x, number(0.0)))  # keeps not-a-number
    return add(positive, log32(add(number(1.0), exp32(sub(number(0.0), magnitude(x))))))


@compiled(**EXACT)
def activate32(kind, rows, start, count):
    """rows[i] := f(rows[i]) for i = start .. start + count - 1; count: a multiple of 16."""
    whole = start + count // 64 * 64
    if kind == TANH:
        for i in range(start, whole, 64):
            a, b, c, d = tanh4(
                load(rows, i), load(rows, i + 16), load(rows, i + 32), load(rows, i + 48)
            )
            store(rows, i, a)
            store(rows, i + 16, b)
            store(rows, i + 32, c)
            store(rows, i + 48, d)
        for i in range(whole, start + count, 16):
            store(rows, i, tanh32(load(rows, i)))
    elif kind == LOGISTIC:
        # 1/(1 + e^-x) = 1/2 + tanh(x/2)/2
        half = number(0.5)
        for i in range(start, whole, 64):
            a, b = mul(half, load(rows, i)), mul(half, load(rows, i + 16))
            c, d = mul(half, load(rows, i + 32)), mul(half, load(rows, i + 48))
            a, b, c, d = tanh4(a, b, c, d)
            store(rows, i, fma(half, a, half))
            store(rows, i + 16, fma(half, b, half))
            store(rows, i + 32, fma(half, c, half))
            store(rows, i + 48, fma(half, d, half))
        for i in range(whole, start + count, 16):
            store(rows, i, fma(half, tanh32(mul(half, load(rows, i))), half))
    elif kind == RELU:
        zero = number(0.0)
        for i in range(start, start + count, 16):
            x = load(rows, i)
            store(rows, i, choose(greater(zero, x), zero, x))
    elif kind == SOFTPLUS:
        for i in range(start, start + count, 16):
            store(rows, i, softplus32(load(rows, i)))


@compiled(**EXACT)
def pattern_errors(kind, y, target, out):
    n_out, S = y.shape
    for s in range(S):
        out[s] = 0.0
    if kind == SQUARED_ERROR:
        for j in range(n_out):
            for s in range(S):
                out[s] += 0.5 * (y[j, s] - target[j, s]) ** 2
    elif kind == CROSS_ENTROPY:
        for s in range(S):
            top, best = y[0, s], 0
            for j in range(1, n_out):
                if y[j, s] > top:
                    top, best = y[j, s], j
            # -sum t log p, log p_j = -below_j - log(1 + others): p near 1 keeps its digits
            others, weight, inner = 0.0, 0.0, 0.0
            for j in range(n_out):
                below = top - y[j, s]
                others += exp(-below) if j != best else 0.0
                weight += target[j, s]
                inner += target[j, s] * below
            out[s] = weight * math.log1p(others) + inner
    else:
        for j in range(n_out):
            for s in range(S):
                x, t = y[j, s], target[j, s]
                # log(1 + e^x) - t x of a logit x, without a difference of large numbers
                out[s] += abs(x) * (1.0 - t if x > 0.0 else t) + _log_above_one(exp(-abs(x)))


@compiled(**EXACT)
def output_errors(kind, y, target, e):
    """e = dE/dy of each pattern, all (B, outputs)."""
    B, n_out = y.shape
    for s in range(B):
        if kind == CROSS_ENTROPY:
            top, best, weight, others = y[s, 0], 0, 0.0, 0.0
            for j in range(n_out):
                if y[s, j] > top:
                    top, best = y[s, j], j
                weight += target[s, j]
            for j in range(n_out):
                e[s, j] = exp(y[s, j] - top)
            for j in range(n_out):
                others += e[s, j] if j != best else 0.0
            for j in range(n_out):
                p, t = e[s, j] / (1.0 + others), target[s, j]
                # weight p - t, with 1 - p of the largest as others p
                e[s, j] = (weight - t) * p - t * (others * p if j == best else 1.0 - p)
        elif kind == BINARY_CROSS_ENTROPY:
            for j in range(n_out):
                tail, t = _tail(abs(y[s, j])), target[s, j]
                # p - t, p = 1/(1 + e^-y), without a difference where both are 1
                if y[s, j] > 0.0:
                    e[s, j] = (1.0 - t) * (1.0 - tail) - t * tail
                else:
                    e[s, j] = (1.0 - t) * tail - t * (1.0 - tail)
        else:
            for j in range(n_out):
                e[s, j] = y[s, j] - target[s, j]


@compiled(**EXACT)
def softmax(y, p):
    """p of each row of y, (B, classes)."""
    for s in range(len(y)):
        top, total = y[s, 0], 0.0
        for j in range(1, y.shape[1]):
            top = y[s, j] if y[s, j] > top else top
        for j in range(y.shape[1]):
            p[s, j] = exp(y[s, j] - top)
            total += p[s, j]
        for j in range(y.shape[1]):
            p[s, j] /= total


@compiled(**EXACT)
def softmax_products(p, target, R_y, R_e):
    """R_e = (diag p - p p') R_y of each direction and pattern, (k, B, classes), times the sum of
    the targets, 1 for a distribution.
    """
    for d in range(len(R_y)):
        for s in range(len(p)):
            top, best, weight, mean = p[s, 0], 0, 0.0, 0.0
            for j in range(p.shape[1]):
                if p[s, j] > top:
                    top, best = p[s, j], j
                weight += target[s, j]
            # all R_y less that of the likeliest class, whose p may nearly be 1: nothing cancels
            own = R_y[d, s, best]
            for j in range(p.shape[1]):
                mean += p[s, j] * (R_y[d, s, j] - own)
            for j in range(p.shape[1]):
                R_e[d, s, j] = weight * p[s, j] * ((R_y[d, s, j] - own) - mean)


@compiled(forceinline=True)
def _targets(target, at, one_for_all):
    return splat(peek(target, at)) if one_for_all else load(target, at)


@compiled(forceinline=True, **EXACT)
def errors32(kind, n_out, y, start, stride, target, at, target_stride, lanes_are_trials):
    """The error of each lane: outputs y[start + j stride + lane]; targets by lane, or one for
    all lanes.
    """
    e = number(0.0)
    if kind == SQUARED_ERROR:
        for j in range(n_out):
            t = _targets(target, at + j * target_stride, lanes_are_trials)
            difference = sub(load(y, start + j * stride), t)
            e = fma(difference, difference, e)
        return mul(e, number(0.5))
    if kind == CROSS_ENTROPY:
        top = load(y, start)
        for j in range(1, n_out):
            x = load(y, start + j * stride)
            top = choose(greater(x, top), x, top)
        weight, inner = number(0.0), number(0.0)
        for j in range(n_out):
            t = _targets(target, at + j * target_stride, lanes_are_trials)
            x = sub(load(y, start + j * stride), top)
            e, weight, inner = add(e, exp32(x)), add(weight, t), fma(t, x, inner)
        return sub(mul(weight, log32(e)), inner)
    for j in range(n_out):
        t = _targets(target, at + j * target_stride, lanes_are_trials)
        x = load(y, start + j * stride)
        e = add(e, sub(softplus32(x), mul(t, x)))
    return e
