"""Random numbers and functions of vectors (`simd`): Philox, logarithm, exponential, normals."""

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.simd import (
    add,
    and_u,
    choose,
    down,
    exponent,
    fma,
    fractions,
    greater,
    magnitude,
    mul,
    mul_u,
    quarters,
    root,
    scale,
    shr_u,
    splat,
    splat_u,
    sub,
    xor_u,
)

MASK = np.uint64(0xFFFFFFFF)


@compiled(forceinline=True)
def philox8(c0, c1, c2, c3, k0, k1):
    """Eight counters (32-bit words in u64x8) under one key (uint64 below 2^32): eight results."""
    mask, half = splat_u(MASK), splat_u(np.uint64(32))
    m0, m1 = splat_u(np.uint64(0xD2511F53)), splat_u(np.uint64(0xCD9E8D57))
    # ten rounds of Philox 4x32; multipliers and steps of the key are those of Salmon et al. (2011)
    for _ in range(10):
        p0, p1 = mul_u(m0, and_u(c0, mask)), mul_u(m1, and_u(c2, mask))
        c0, c1 = xor_u(xor_u(shr_u(p1, half), c1), splat_u(k0)), and_u(p1, mask)
        c2, c3 = xor_u(xor_u(shr_u(p0, half), c3), splat_u(k1)), and_u(p0, mask)
        k0 = (k0 + np.uint64(0x9E3779B9)) & MASK
        k1 = (k1 + np.uint64(0xBB67AE85)) & MASK
    return c0, c1, c2, c3


@compiled(forceinline=True)
def number(x):
    return splat(np.float32(x))


@compiled(forceinline=True)
def log_pair(u, rest):
    """log(u), with rest = 1 - u known to its own relative accuracy; u > 0."""
    e, m = exponent(u)
    t = sub(m, number(1.0))
    # near 1, u - 1 = -rest, which has digits that u has lost
    t = choose(greater(u, number(0.70710677)), sub(number(0.0), rest), t)
    return add(_log1p(t), mul(e, number(0.6931472)))


@compiled(forceinline=True)
def _log1p(t):
    # log(1 + t) for 1 + t in [sqrt(1/2), sqrt(2)), the polynomial of Cephes' logf
    p = number(7.0376836292e-2)
    p = fma(p, t, number(-1.1514610310e-1))
    p = fma(p, t, number(1.1676998740e-1))
    p = fma(p, t, number(-1.2420140846e-1))
    p = fma(p, t, number(1.4249322787e-1))
    p = fma(p, t, number(-1.6668057665e-1))
    p = fma(p, t, number(2.0000714765e-1))
    p = fma(p, t, number(-2.4999993993e-1))
    p = fma(p, t, number(3.3333331174e-1))
    tt = mul(t, t)
    return add(fma(tt, mul(p, t), mul(number(-0.5), tt)), t)


@compiled(forceinline=True)
def log32(u):
    e, m = exponent(u)
    return add(_log1p(sub(m, number(1.0))), mul(e, number(0.6931472)))


@compiled(forceinline=True)
def exp32(x):
    # clipped at +-87; not-a-number stays
    x = choose(greater(x, number(87.0)), number(87.0), x)
    x = choose(greater(number(-87.0), x), number(-87.0), x)
    # x = n ln(2) + t, n the nearest whole number, ln(2) in two parts as in Cephes' expf
    n = down(fma(x, number(1.44269504), number(0.5)))
    t = fma(n, number(2.12194440e-4), fma(n, number(-0.693359375), x))
    p = number(1.9875691500e-4)
    p = fma(p, t, number(1.3981999507e-3))
    p = fma(p, t, number(8.3334519073e-3))
    p = fma(p, t, number(4.1665795894e-2))
    p = fma(p, t, number(1.6666665459e-1))
    p = fma(p, t, number(5.0000001201e-1))
    p = fma(mul(p, t), t, add(t, number(1.0)))
    # for a number that is none n is anything, and p carries it on
    return scale(p, choose(greater(number(200.0), magnitude(n)), n, number(0.0)))


@compiled(forceinline=True)
def normal_pairs(a0, a1, b0, b1):
    """Box-Muller of sixteen pairs of words: radius from a, angle from b; see
    `trial.random._normal_pair`.
    """
    u, rest = fractions(a0, a1)
    radius = root(mul(number(-2.0), log_pair(u, rest)))
    t, odd, cos_negative, sin_negative = quarters(b0, b1)
    # the angle is q pi/2 + pi/4 + x
    x = mul(t, number(1.5707964))
    # sin x and cos x, the polynomials of Cephes' sinf and cosf
    xx = mul(x, x)
    p = fma(
        xx, fma(xx, number(-1.9515295891e-4), number(8.3321608736e-3)), number(-1.6666654611e-1)
    )
    s = fma(mul(xx, x), p, x)
    p = fma(
        xx,
        fma(xx, number(2.443315711809948e-5), number(-1.388731625493765e-3)),
        number(4.166664568298827e-2),
    )
    c = fma(xx, fma(xx, p, number(-0.5)), number(1.0))
    # cos and sin of pi/4 + x are (c - s)/sqrt(2) and (c + s)/sqrt(2)
    h = mul(radius, number(0.70710677))
    cos, sin = mul(h, sub(c, s)), mul(h, add(c, s))
    cos, sin = choose(odd, sin, cos), choose(odd, cos, sin)
    zero = number(0.0)
    # quarters of the circle exchange and negate them
    return choose(cos_negative, sub(zero, cos), cos), choose(sin_negative, sub(zero, sin), sin)
