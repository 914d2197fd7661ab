"""Compiled twins of activations and errors in float64, by number; their tables of names are the
only place that pairs them.
"""

import math
from collections.abc import Iterable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from perturb.compiled import compiled

ACTIVATION_KINDS = {"linear": 0, "tanh": 1, "logistic": 2, "relu": 3, "softplus": 4}

ERROR_KINDS = {"squared_error": 0, "cross_entropy": 1, "binary_cross_entropy": 2}


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


@compiled(inline="always")
def exp(x):
    # Cody-Waite reduction and a Taylor series of degree 13 on |t| <= ln(2)/2: within 2 units of the
    # last place, and unlike math.exp without a call, so that loops over it vectorise. Clipped at
    # +-708; not-a-number stays.
    x = 708.0 if x > 708.0 else x
    x = -708.0 if x < -708.0 else x
    shifted = (
        x * 1.4426950408889634 + 6755399441055744.0
    )  # 1.5 * 2^52 rounds to an integer in the low bits
    n = shifted - 6755399441055744.0
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
    p = p * t + 1.0
    p = p * t + 1.0
    return p * float_of((bits_of(shifted) + 1023) << 52)


@compiled(error_model="numpy", fastmath={"contract"})
def activate(kind, row):
    if kind == 1:
        for s in range(row.size):
            x = row[s]
            t = 1.0 - 2.0 / (exp(2.0 * abs(x)) + 1.0)
            row[s] = t if x >= 0.0 else -t
    elif kind == 2:
        for s in range(row.size):
            row[s] = 1.0 / (1.0 + exp(-row[s]))
    elif kind == 3:
        for s in range(row.size):
            row[s] = 0.0 if row[s] < 0.0 else row[s]
    elif kind == 4:
        for s in range(row.size):
            x = row[s]
            row[s] = (x if x > 0.0 else 0.0) + math.log1p(exp(-abs(x)))


@compiled(error_model="numpy", fastmath={"contract"})
def pattern_errors(kind, y, target, out):
    n_out, S = y.shape
    for s in range(S):
        out[s] = 0.0
    if kind == 0:
        for j in range(n_out):
            for s in range(S):
                out[s] += 0.5 * (y[j, s] - target[j, s]) ** 2
    elif kind == 1:
        for s in range(S):
            top, best = y[0, s], 0
            for j in range(1, n_out):
                if y[j, s] > top:
                    top, best = y[j, s], j
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
                out[s] += abs(x) * (1.0 - t if x > 0.0 else t) + math.log1p(exp(-abs(x)))
