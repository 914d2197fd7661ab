"""Perturbations of a block of T trials in units of sigma: signs as bits, or numbers, the lanes
being trials. What `trial.random.perturbation` draws, in float32.
"""

import math

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.float32_functions import MASK, normal_pairs, number, philox8
from perturb.kernels.simd import (
    EXACT,
    LANES,
    add_u,
    and_u,
    choose,
    greater,
    iota_u,
    mul_u,
    or_u,
    shl_u,
    shr_u,
    small,
    splat_u,
    store,
    sub,
)
from perturb.trial.random import CODE, words

# after the T words of a row of bits, for an odd number of cache lines, so that rows do not evict
# each other
SPARE = 8
BLOCK = 64  # T, of numbers
RADEMACHER, GAUSSIAN, TERNARY, WALSH = range(4)  # kinds, as in `trial.codes`
ZERO, ONE = np.uint64(0), np.uint64(1)


@compiled()
def words_of(n):
    """Words of the bits of n weights: two draws of 128."""
    return 2 * ((n + 127) // 128)


@compiled(**EXACT)
def draw_signs(kind, seed, start, period, n, T, bits):
    """Bit i % 64 of bits[i // 64 (T + SPARE) + t], t < T: whether trial start + t adds +sigma to
    weight i (else -sigma).
    """
    if kind == WALSH:
        _draw_walsh(seed, start, period, n, T, bits)
    else:
        _draw_rademacher(seed, start, n, T, bits)


@compiled(**EXACT)
def _draw_rademacher(seed, start, n, T, bits):
    stride, k0, k1, half = T + SPARE, seed & MASK, seed >> np.uint64(32), splat_u(np.uint64(32))
    low, high = np.uint64(start) & MASK, splat_u(np.uint64(start) >> np.uint64(32))
    for block in range((n + 127) // 128):
        counter, stream = splat_u(np.uint64(block)), splat_u(np.uint64(CODE))
        for t in range(0, T, 8):
            # start is a multiple of T, a power of two: `|` adds, and nothing carries over
            trial = or_u(splat_u(low | np.uint64(t)), iota_u())
            a, b, c, d = philox8(trial, high, counter, stream, k0, k1)
            store(bits, 2 * block * stride + t, or_u(a, shl_u(b, half)))
            store(bits, (2 * block + 1) * stride + t, or_u(c, shl_u(d, half)))


@compiled(**EXACT)
def _draw_walsh(seed, start, period, n, T, bits):
    # the signs of a pair of passes, turned where row & (i + 1) is odd, and all of them in
    # odd passes
    n_words, stride = words_of(n), T + SPARE
    signs, before = np.empty(n_words + 1, np.uint64), np.int64(-1)
    for t in range(T):
        passes, row = (start + t) // period, np.uint64((start + t) % period)
        if passes // 2 != before:
            before = passes // 2
            for block in range(n_words // 2):
                a, b, c, d = words(seed, before, block, CODE, 0)
                signs[2 * block], signs[2 * block + 1] = (
                    a | (b << np.uint64(32)),
                    c | (d << np.uint64(32)),
                )
        parity = ZERO if passes % 2 == 0 else ~ZERO  # of row & m for m = 0..63
        for bit, ones in enumerate(
            (
                0xAAAAAAAAAAAAAAAA,
                0xCCCCCCCCCCCCCCCC,
                0xF0F0F0F0F0F0F0F0,
                0xFF00FF00FF00FF00,
                0xFFFF0000FFFF0000,
                0xFFFFFFFF00000000,
            )
        ):
            if (row >> np.uint64(bit)) & ONE:
                parity ^= np.uint64(ones)
        # weight i takes the parity of row & (i + 1): from the next bit on, over the word's end
        here = parity
        for k in range(n_words):
            # the parity of the higher bits, folded onto the lowest
            above = np.uint64(64 * (k + 1)) & row
            above ^= above >> np.uint64(32)
            above ^= above >> np.uint64(16)
            above ^= above >> np.uint64(8)
            above ^= above >> np.uint64(4)
            above ^= above >> np.uint64(2)
            above ^= above >> ONE
            following = ~parity if above & ONE else parity
            bits[k * stride + t] = signs[k] ^ ((here >> ONE) | (following << np.uint64(63)))
            here = following


@compiled(**EXACT)
def _digits(a, b, D, at):
    # four base-6 digits of sixteen words, read as fractions
    six, mask, half = splat_u(np.uint64(6)), splat_u(MASK), splat_u(np.uint64(32))
    level, zero = number(math.sqrt(3.0)), number(0.0)
    for digit in range(4):
        # the whole part of six times a fraction is a digit; what is left is the next fraction
        a, b = mul_u(a, six), mul_u(b, six)
        x = small(shr_u(a, half), shr_u(b, half))
        # 0 and 5 of six are -+sqrt(3), the others 0: variance 1
        x = choose(
            greater(number(0.5), x), sub(zero, level), choose(greater(x, number(4.5)), level, zero)
        )
        store(D, at + digit * BLOCK, x)
        a, b = and_u(a, mask), and_u(b, mask)


@compiled(forceinline=True)
def _words(seed, start, t, block):
    """Four words of each of the trials start + t .. start + t + 15: of the first eight, then of the
    others.
    """
    k0, k1, low = seed & MASK, seed >> np.uint64(32), np.uint64(start) & MASK
    counter, stream = splat_u(np.uint64(block)), splat_u(np.uint64(CODE))
    high = splat_u(np.uint64(start) >> np.uint64(32))
    trials0 = add_u(splat_u(low | np.uint64(t)), iota_u())
    trials1 = add_u(splat_u(low | np.uint64(t + 8)), iota_u())
    first = philox8(trials0, high, counter, stream, k0, k1)
    return first, philox8(trials1, high, counter, stream, k0, k1)


@compiled(**EXACT)
def draw_normals(seed, start, n, D):
    """D[i BLOCK + t]: the gaussian perturbation of weight i in trial start + t; uses rows up to
    a multiple of 4.
    """
    for t in range(0, BLOCK, LANES):
        for i in range(0, n, 4):
            (a0, b0, c0, d0), (a1, b1, c1, d1) = _words(seed, start, t, i // 4)
            at = i * BLOCK + t
            x, y = normal_pairs(a0, a1, b0, b1)
            store(D, at, x)
            store(D, at + BLOCK, y)
            x, y = normal_pairs(c0, c1, d0, d1)
            store(D, at + 2 * BLOCK, x)
            store(D, at + 3 * BLOCK, y)


@compiled(**EXACT)
def draw_ternary(seed, start, n, D):
    """As `draw_normals`, of the ternary code; uses rows up to a multiple of 16."""
    for t in range(0, BLOCK, LANES):
        for i in range(0, n, 16):
            (a0, b0, c0, d0), (a1, b1, c1, d1) = _words(seed, start, t, i // 16)
            at = i * BLOCK + t
            _digits(a0, a1, D, at)
            _digits(b0, b1, D, at + 4 * BLOCK)
            _digits(c0, c1, D, at + 8 * BLOCK)
            _digits(d0, d1, D, at + 12 * BLOCK)
