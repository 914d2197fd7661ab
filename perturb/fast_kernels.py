"""Float32 kernels: perturbation trials of an MLP, a block of BLOCK at a time, with explicit vectors (`simd`).

A block draws all its perturbations, evaluates E at them, and adds up. What makes it fast:

 * Signs stay bits. X(W + aD + brV) = XW + a XD + br XV, and XD is put together from look-ups: for every four inputs a table of
   the 16 sums +-x1 +-x2 +-x3 +-x4 of 32 patterns, indexed by the random bits themselves.
 * Few patterns leave no lanes for that: then sixteen trials are the lanes.
 * E is the difference from E(w), pattern by pattern, by the same float32 arithmetic, so that what they have in common cancels
   before it is summed. The phases' weights add up to 0, so that the constant does not count.
 * For every weight all sums are linear in D and D^2 (a constant, for signs), with coefficients that belong to the trial: 1, y,
   y^2, s, su, su^2, ... Sums over trials of coefficients times signs are look-ups again: 16 entries for every four trials.

Inside, perturbations are in units of sigma and s in units of sigma |v|. Sums over a block are taken in float32, in a fixed order;
those of different blocks in float64.
"""

import math

import numpy as np
from numba import njit

from perturb import synapse
from perturb.philox import CODE, NOISE, compiled, words
from perturb.simd import (
    MASK, add, add_u, and_u, bit_of_each, bits16, choose, div, down, exp, f32x16, fma, fractions, from_bits64, greater, interleave4, iota_u,
    load, load8, load_u, log, magnitude, mul, normal_pairs, number, or_u, peek, philox8, shl_u, softplus, splat, splat_u, store, sub,
    tanh, total, totals16,
)  # fmt: skip

BLOCK = 256
STRIDE = BLOCK + 8  # words of one row of bits: an odd number of cache lines, so that rows do not evict each other
WIDE = 32  # patterns of a look-up
LANES = 16
FEW = 24  # fewer patterns than this, and trials are the lanes
TILE = 16  # groups of four inputs whose tables (2 KB each) stay in the first-level cache
EXACT = {"error_model": "numpy", "fastmath": {"contract"}}
ZERO, ONE = np.uint64(0), np.uint64(1)

_count = njit(synapse.count)


# ---- draw


@compiled(**EXACT)
def draw_signs(kind, seed, start, period, n, bits):
    """Bit i % 64 of bits[i // 64 * STRIDE + t]: whether trial start + t adds +sigma to weight i (else -sigma)."""
    k0, k1 = seed & MASK, seed >> np.uint64(32)
    if kind == 0:
        half, low, high = splat_u(np.uint64(32)), np.uint64(start) & MASK, splat_u(np.uint64(start) >> np.uint64(32))
        for block in range((n + 127) // 128):
            counter, stream = splat_u(np.uint64(block)), splat_u(np.uint64(CODE))
            for t in range(0, BLOCK, 8):
                trial = or_u(splat_u(low | np.uint64(t)), iota_u())
                a, b, c, d = philox8(trial, high, counter, stream, k0, k1)
                store(bits, 2 * block * STRIDE + t, or_u(a, shl_u(b, half)))
                store(bits, (2 * block + 1) * STRIDE + t, or_u(c, shl_u(d, half)))
        return

    # walsh: the signs of a pair of passes, turned where row & (i + 1) is odd, and all of them in odd passes
    n_words = 2 * ((n + 127) // 128)
    signs, before = np.empty(n_words + 1, np.uint64), np.int64(-1)
    for t in range(BLOCK):
        passes, row = (start + t) // period, np.uint64((start + t) % period)
        if passes // 2 != before:
            before = passes // 2
            for block in range(n_words // 2):
                a, b, c, d = words(seed, before, block, CODE, 0)
                signs[2 * block], signs[2 * block + 1] = a | (b << np.uint64(32)), c | (d << np.uint64(32))
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
        here = parity
        for k in range(n_words):
            above = np.uint64(64 * (k + 1)) & row
            above ^= above >> np.uint64(32)
            above ^= above >> np.uint64(16)
            above ^= above >> np.uint64(8)
            above ^= above >> np.uint64(4)
            above ^= above >> np.uint64(2)
            above ^= above >> ONE
            following = ~parity if above & ONE else parity
            bits[k * STRIDE + t] = signs[k] ^ ((here >> ONE) | (following << np.uint64(63)))
            here = following


# ---- measure


@compiled(forceinline=True)
def _bits64(row, start, bit):
    """Sixty-four bits of row[start:] from `bit` on."""
    word, shift = start + (bit >> 6), np.uint64(bit & 63)
    # the second word is shifted in two steps, so that a shift by 64 gives 0
    return (peek(row, word) >> shift) | ((peek(row, word + 1) << ONE) << (np.uint64(63) - shift))


@compiled(**EXACT)
def _activate(kind, rows, start, count):
    # count: a multiple of 16
    if kind == 1:
        for i in range(start, start + count, 16):
            store(rows, i, tanh(load(rows, i)))
    elif kind == 2:
        half = number(0.5)
        for i in range(start, start + count, 16):
            store(rows, i, fma(half, tanh(mul(half, load(rows, i))), half))
    elif kind == 3:
        zero = number(0.0)
        for i in range(start, start + count, 16):
            x = load(rows, i)
            store(rows, i, choose(greater(zero, x), zero, x))
    elif kind == 4:
        for i in range(start, start + count, 16):
            store(rows, i, softplus(load(rows, i)))


@compiled(**EXACT)
def _errors(kind, n_out, y, start, stride, target, at, target_stride, lanes_are_trials):
    """The error of each lane: outputs y[start + j stride + lane]; targets by lane, or one for all lanes."""
    e = number(0.0)
    if kind == 0:
        for j in range(n_out):
            t = splat(peek(target, at + j * target_stride)) if lanes_are_trials else load(target, at + j * target_stride)
            difference = sub(load(y, start + j * stride), t)
            e = fma(difference, difference, e)
        return mul(e, number(0.5))
    if kind == 1:
        top = load(y, start)
        for j in range(1, n_out):
            x = load(y, start + j * stride)
            top = choose(greater(x, top), x, top)
        weight, inner = number(0.0), number(0.0)
        for j in range(n_out):
            t = splat(peek(target, at + j * target_stride)) if lanes_are_trials else load(target, at + j * target_stride)
            x = sub(load(y, start + j * stride), top)
            e, weight, inner = add(e, exp(x)), add(weight, t), fma(t, x, inner)
        return sub(mul(weight, log(e)), inner)
    for j in range(n_out):
        t = splat(peek(target, at + j * target_stride)) if lanes_are_trials else load(target, at + j * target_stride)
        x = load(y, start + j * stride)
        e = add(e, sub(softplus(x), mul(t, x)))
    return e


@compiled(forceinline=True)
def _read(e, xi, noise, step, top):
    value = fma(splat(noise), xi, e)
    if step > np.float32(0.0):
        value = mul(down(add(div(value, splat(step)), number(0.5))), splat(step))
        value = choose(greater(number(0.0), value), number(0.0), value)
        value = choose(greater(value, splat(top)), splat(top), value)
    return value


@compiled(**EXACT)
def _tables(x, tile, n_patterns, groups, tables):
    """For each group of four inputs and each b = 0..15: +-x1 +-x2 +-x3 +-x4 of WIDE patterns, + where b has the bit."""
    for g in range(groups):
        for half in range(0, WIDE, 16):
            at = 4 * g * n_patterns + tile + half
            x0, x1 = load(x, at), load(x, at + n_patterns)
            x2, x3 = load(x, at + 2 * n_patterns), load(x, at + 3 * n_patterns)
            for b in range(16):
                first = add(x0 if b & 1 else sub(number(0.0), x0), x1 if b & 2 else sub(number(0.0), x1))
                second = add(x2 if b & 4 else sub(number(0.0), x2), x3 if b & 8 else sub(number(0.0), x3))
                store(tables, (16 * g + b) * WIDE + half, add(first, second))


@compiled(**EXACT)
def _indices(row, start, n_in, n_out, padded, index, at):
    """index[at + g padded + j]: the signs of weights (4g .. 4g + 3, j) as a number below 16."""
    for g in range((n_in + 3) // 4):
        for j in range(0, n_out, 64):
            chosen = from_bits64(_bits64(row, start, 4 * g * n_out + j), 1)
            for k in range(1, min(4, n_in - 4 * g)):
                chosen = or_u(chosen, from_bits64(_bits64(row, start, (4 * g + k) * n_out + j), 1 << k))
            store(index, at + g * padded + j, chosen)


@compiled(**EXACT)
def _look_up(tables, first, last, index, at, padded, moved, start):
    """moved[start + j WIDE + lane] = (0, if first = 0, else what is there) + the tables' entries of groups first..last-1."""
    for j in range(0, padded, 4):
        out = start + j * WIDE
        if first == 0:
            a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = number(0.0)
        else:
            a0, a1, b0, b1 = load(moved, out), load(moved, out + 16), load(moved, out + 32), load(moved, out + 48)
            c0, c1, d0, d1 = load(moved, out + 64), load(moved, out + 80), load(moved, out + 96), load(moved, out + 112)
        for g in range(first, last):
            of, i = 16 * WIDE * g, at + g * padded + j
            p = of + WIDE * np.int64(peek(index, i))
            a0, a1 = add(a0, load(tables, p)), add(a1, load(tables, p + 16))
            p = of + WIDE * np.int64(peek(index, i + 1))
            b0, b1 = add(b0, load(tables, p)), add(b1, load(tables, p + 16))
            p = of + WIDE * np.int64(peek(index, i + 2))
            c0, c1 = add(c0, load(tables, p)), add(c1, load(tables, p + 16))
            p = of + WIDE * np.int64(peek(index, i + 3))
            d0, d1 = add(d0, load(tables, p)), add(d1, load(tables, p + 16))
        store(moved, out, a0)
        store(moved, out + 16, a1)
        store(moved, out + 32, b0)
        store(moved, out + 48, b1)
        store(moved, out + 64, c0)
        store(moved, out + 80, c1)
        store(moved, out + 96, d0)
        store(moved, out + 112, d1)


@compiled(**EXACT)
def _product(effective, n_in, n_out, x, out):
    """out[j, lane] = b_j + sum_i W_ij x[i, lane], for two vectors a row; rows of `out` up to a multiple of four are spoiled."""
    for j in range(0, n_out, 4):
        bias = n_in * n_out + j
        a0 = a1 = splat(peek(effective, bias))
        b0 = b1 = splat(peek(effective, bias + 1))
        c0 = c1 = splat(peek(effective, bias + 2))
        d0 = d1 = splat(peek(effective, bias + 3))
        for i in range(n_in):
            x0, x1, k = load(x, WIDE * i), load(x, WIDE * i + 16), i * n_out + j
            w = splat(peek(effective, k))
            a0, a1 = fma(w, x0, a0), fma(w, x1, a1)
            w = splat(peek(effective, k + 1))
            b0, b1 = fma(w, x0, b0), fma(w, x1, b1)
            w = splat(peek(effective, k + 2))
            c0, c1 = fma(w, x0, c0), fma(w, x1, c1)
            w = splat(peek(effective, k + 3))
            d0, d1 = fma(w, x0, d0), fma(w, x1, d1)
        at = WIDE * j
        store(out, at, a0)
        store(out, at + 16, a1)
        store(out, at + 32, b0)
        store(out, at + 48, b1)
        store(out, at + 64, c0)
        store(out, at + 80, c1)
        store(out, at + 96, d0)
        store(out, at + 112, d1)


@compiled()
def _aligned(count):
    """An empty float32 array at a boundary of cache lines."""
    whole = np.empty(count + 16, np.float32)
    skip = (64 - whole.ctypes.data % 64) % 64 // 4
    return whole[skip : skip + count]


@compiled(**EXACT)
def errors_by_patterns(
    sizes, activations, error_kind, x, base, w, target, ref, present, amounts, still, sigma, seed, noise, step, top, start, bits,
    lo, hi, E, each,
):  # fmt: skip
    """Add to E[p BLOCK + t] the sum over patterns of error - ref, phase p, trials t = lo..hi-1; the lanes are patterns.

    x: sigma times the inputs, and sigma for the bias, (inputs, patterns); base (phases, units, patterns): net inputs of the first
    layer at w + b r v; w (phases, weights): the other layers' w + b r v; target (outputs, patterns); ref, present (patterns):
    errors at w, and 1 for every pattern that is none of those that fill up the last vector. amounts: a of each phase; still: 1
    for phases that are not moved at all. each: if not empty, takes the errors of the patterns in the last trial and phase.
    """
    Sp, n_in, J = ref.size, sizes[0] + 1, sizes[1]
    padded, groups = (J + 3) // 4 * 4, (n_in + 3) // 4
    n_words, n_rest, first_rest = bits.size // STRIDE + 1, w.shape[1], n_in * J
    width = 0
    for units in sizes[1:]:
        width = max(width, units + 3)
    chunk = BLOCK if groups * padded <= 1024 else max(1, min(BLOCK, 2048 // padded))
    together, tile_groups = (1, groups) if groups <= TILE + TILE // 4 else (chunk, TILE)
    row, index = np.zeros(chunk * n_words, np.uint64), np.empty(chunk * groups * padded + 64, np.uint8)
    tables, moved = _aligned(groups * 16 * WIDE), _aligned(together * padded * WIDE)
    here, there, effective = _aligned(width * WIDE), _aligned(width * WIDE), _aligned(n_rest + 64)
    k0, k1 = seed & MASK, seed >> np.uint64(32)
    for t0 in range(lo, hi, chunk):
        count = min(chunk, hi - t0)
        for t in range(count):
            for k in range(n_words - 1):
                row[t * n_words + k] = bits[k * STRIDE + t0 + t]
            _indices(row, t * n_words, n_in, J, padded, index, t * groups * padded)
        for tile in range(0, Sp, WIDE):
            _tables(x, tile, Sp, groups, tables)
            r0, r1 = load(ref, tile), load(ref, tile + 16)
            p0, p1 = greater(load(present, tile), number(0.5)), greater(load(present, tile + 16), number(0.5))
            for begin in range(0, count, together):
                end = min(begin + together, count)
                for g in range(0, groups, tile_groups):
                    for t in range(begin, end):
                        of = (t - begin) * padded * WIDE
                        _look_up(tables, g, min(g + tile_groups, groups), index, t * groups * padded, padded, moved, of)
                for t in range(begin, end):
                    of, trial = (t - begin) * padded * WIDE, np.uint64(start + t0 + t)
                    for p in range(amounts.size):
                        e0, e1 = r0, r1
                        if still[p]:
                            if noise == np.float32(0.0) and step == np.float32(0.0):
                                continue
                        else:
                            a = splat(amounts[p])
                            for j in range(J):
                                at, k = (p * J + j) * Sp + tile, j * WIDE
                                store(here, k, fma(a, load(moved, of + k), load(base, at)))
                                store(here, k + 16, fma(a, load(moved, of + k + 16), load(base, at + 16)))
                            _activate(activations[0], here, 0, J * WIDE)
                            up, down_, k = splat(amounts[p] * sigma), splat(-amounts[p] * sigma), first_rest
                            for i in range(0, n_rest, 64):
                                word = _bits64(row, t * n_words, k + i)
                                for q in range(0, 64, 16):
                                    if i + q < n_rest:
                                        change = choose(bits16(word >> np.uint64(q)), up, down_)
                                        store(effective, i + q, add(load(w, p * n_rest + i + q), change))
                            k = 0
                            for layer in range(1, sizes.size - 1):
                                _product(effective[k:], sizes[layer], sizes[layer + 1], here, there)
                                here, there = there, here
                                _activate(activations[layer], here, 0, sizes[layer + 1] * WIDE)
                                k += (sizes[layer] + 1) * sizes[layer + 1]
                            e0 = _errors(error_kind, sizes[-1], here, 0, WIDE, target, tile, Sp, False)
                            e1 = _errors(error_kind, sizes[-1], here, 16, WIDE, target, tile + 16, Sp, False)
                            if each.size:
                                store(each, tile, e0)
                                store(each, tile + 16, e1)
                        x0 = x1 = number(0.0)
                        if noise > np.float32(0.0):
                            stream = np.uint64(NOISE) + (np.uint64(p) << np.uint64(8))
                            counter = add_u(splat_u(np.uint64(tile // 4)), iota_u())
                            wa, wb, wc, wd = philox8(
                                splat_u(trial & MASK), splat_u(trial >> np.uint64(32)), counter, splat_u(stream), k0, k1
                            )
                            cos, sin = normal_pairs(wa, wc, wb, wd)
                            x0, x1 = interleave4(cos, sin)
                        d0 = choose(p0, sub(_read(e0, x0, noise, step, top), r0), number(0.0))
                        d1 = choose(p1, sub(_read(e1, x1, noise, step, top), r1), number(0.0))
                        E[p * BLOCK + t0 + t] += total(add(d0, d1))


@compiled(**EXACT)
def _sums8(c, rows, tables):
    """tables[((q 16) + b) rows + r]: the sum over trials 4q + k, k = 0..3, of +-c[r, 4q + k], + where b has bit k."""
    for q in range(BLOCK // 4):
        for b in range(16):
            for r in range(rows):
                at, total_ = r * BLOCK + 4 * q, np.float32(0.0)
                first = (c[at] if b & 1 else -c[at]) + (c[at + 1] if b & 2 else -c[at + 1])
                second = (c[at + 2] if b & 4 else -c[at + 2]) + (c[at + 3] if b & 8 else -c[at + 3])
                tables[(16 * q + b) * rows + r] = total_ + first + second


@compiled(**EXACT)
def accumulate_signs(n, bits, c, rows, L):
    """L[i rows + r] = sum over the block's trials of c[r BLOCK + t] times the sign of weight i; rows: 8 or 16."""
    tables, index = _aligned(BLOCK * 4 * rows), np.empty(64 * (BLOCK // 8), np.uint8)
    _sums8(c, rows, tables)
    for k in range((n + 63) // 64):
        for q in range(BLOCK // 8):
            at = k * STRIDE + 8 * q
            chosen = from_bits64(peek(bits, at), 1)
            for bit in range(1, 8):
                chosen = or_u(chosen, from_bits64(peek(bits, at + bit), 1 << bit))
            store(index, 64 * q, chosen)
        if rows == 8:
            for i in range(min(64, n - 64 * k)):
                byte = np.int64(peek(index, i))
                a = load8(tables, 8 * (byte & 15))
                b = load8(tables, 8 * (16 + (byte >> 4)))
                for q in range(1, BLOCK // 8):
                    byte = np.int64(peek(index, 64 * q + i))
                    a = add(a, load8(tables, 8 * (32 * q + (byte & 15))))
                    b = add(b, load8(tables, 8 * (32 * q + 16 + (byte >> 4))))
                store(L, (64 * k + i) * 8, add(a, b))
        else:
            for i in range(min(64, n - 64 * k)):
                a = b = number(0.0)
                for q in range(BLOCK // 8):
                    byte = np.int64(peek(index, 64 * q + i))
                    a = add(a, load(tables, 16 * (32 * q + (byte & 15))))
                    b = add(b, load(tables, 16 * (32 * q + 16 + (byte >> 4))))
                store(L, (64 * k + i) * 16, add(a, b))


@compiled(**EXACT)
def _product_by_trials(D, of, amount, w, at, n_in, n_out, x, S, out):
    """out[(j S + s), trial] = b_j + sum_i W_ij x[i, s, trial], with W = w + amount D; S is a multiple of four; an odd last row of
    `out` is followed by one that is spoiled."""
    for j in range(0, n_out, 2):
        for s in range(0, S, 4):
            k = n_in * n_out + j
            b = fma(amount, load(D, LANES * (of + k)), splat(peek(w, at + k)))
            a0 = a1 = a2 = a3 = b
            b = fma(amount, load(D, LANES * (of + k + 1)), splat(peek(w, at + k + 1)))
            b0 = b1 = b2 = b3 = b
            for i in range(n_in):
                k, p = i * n_out + j, LANES * (i * S + s)
                x0, x1, x2, x3 = load(x, p), load(x, p + 16), load(x, p + 32), load(x, p + 48)
                W = fma(amount, load(D, LANES * (of + k)), splat(peek(w, at + k)))
                a0, a1, a2, a3 = fma(W, x0, a0), fma(W, x1, a1), fma(W, x2, a2), fma(W, x3, a3)
                W = fma(amount, load(D, LANES * (of + k + 1)), splat(peek(w, at + k + 1)))
                b0, b1, b2, b3 = fma(W, x0, b0), fma(W, x1, b1), fma(W, x2, b2), fma(W, x3, b3)
            p = LANES * (j * S + s)
            store(out, p, a0)
            store(out, p + 16, a1)
            store(out, p + 32, a2)
            store(out, p + 48, a3)
            p += LANES * S
            store(out, p, b0)
            store(out, p + 16, b1)
            store(out, p + 32, b2)
            store(out, p + 48, b3)


@compiled(**EXACT)
def _moved_by_trials(D, n_in, n_out, x, S, out):
    # as above, of the first layer: out = sum_i D_ij x[i, s], the inputs the same for all trials
    for j in range(0, n_out, 2):
        for s in range(0, S, 4):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = number(0.0)
            for i in range(n_in):
                k, p = LANES * (i * n_out + j), i * S + s
                x0, x1, x2, x3 = splat(peek(x, p)), splat(peek(x, p + 1)), splat(peek(x, p + 2)), splat(peek(x, p + 3))
                d = load(D, k)
                a0, a1, a2, a3 = fma(d, x0, a0), fma(d, x1, a1), fma(d, x2, a2), fma(d, x3, a3)
                d = load(D, k + 16)
                b0, b1, b2, b3 = fma(d, x0, b0), fma(d, x1, b1), fma(d, x2, b2), fma(d, x3, b3)
            p = LANES * (j * S + s)
            store(out, p, a0)
            store(out, p + 16, a1)
            store(out, p + 32, a2)
            store(out, p + 48, a3)
            p += LANES * S
            store(out, p, b0)
            store(out, p + 16, b1)
            store(out, p + 32, b2)
            store(out, p + 48, b3)


@compiled(**EXACT)
def _spread_signs(n, bits, t0, D):
    # D[i, lane] = +-1
    one, minus = number(1.0), number(-1.0)
    for k in range((n + 63) // 64):
        a, b = load_u(bits, k * STRIDE + t0), load_u(bits, k * STRIDE + t0 + 8)
        for i in range(min(64, n - 64 * k)):
            store(D, LANES * (64 * k + i), choose(bit_of_each(a, b, i), one, minus))


@compiled(**EXACT)
def errors_by_trials(
    sizes, activations, error_kind, x, base, w, target, ref, S, amounts, still, sigma, seed, noise, step, top, start, bits,
    lo, hi, E, each,
):  # fmt: skip
    """As `errors_by_patterns`, the lanes being trials: also fills E of other trials of the vectors that lo..hi-1 lie in."""
    Sp, n_in, J = ref.size, sizes[0] + 1, sizes[1]
    n_rest, n = w.shape[1], n_in * J + w.shape[1]
    width = 0
    for units in sizes[1:]:
        width = max(width, units + 1)
    D, moved = _aligned(LANES * (n + 2)), _aligned(LANES * (J + 1) * Sp)
    here, there = _aligned(LANES * width * Sp), _aligned(LANES * width * Sp)
    k0, k1 = seed & MASK, seed >> np.uint64(32)
    for i in range(LANES * n, LANES * (n + 2)):
        D[i] = 0.0
    for t0 in range(lo // LANES * LANES, hi, LANES):
        _spread_signs(n, bits, t0, D)
        _moved_by_trials(D, n_in, J, x, Sp, moved)
        low, high = np.uint64(start + t0) & MASK, splat_u(np.uint64(start + t0) >> np.uint64(32))
        trials0 = add_u(splat_u(low), iota_u())
        trials1 = add_u(splat_u(low | np.uint64(8)), iota_u())
        for p in range(amounts.size):
            if still[p]:
                if noise == np.float32(0.0) and step == np.float32(0.0):
                    continue
            else:
                a = splat(amounts[p])
                for k in range(J * Sp):
                    store(here, LANES * k, fma(a, load(moved, LANES * k), splat(peek(base, p * J * Sp + k))))
                _activate(activations[0], here, 0, LANES * J * Sp)
                k, a = 0, splat(amounts[p] * sigma)
                for layer in range(1, sizes.size - 1):
                    _product_by_trials(D, n_in * J + k, a, w, p * n_rest + k, sizes[layer], sizes[layer + 1], here, Sp, there)
                    here, there = there, here
                    _activate(activations[layer], here, 0, LANES * sizes[layer + 1] * Sp)
                    k += (sizes[layer] + 1) * sizes[layer + 1]
            sum_ = number(0.0)
            x0 = x1 = x2 = x3 = number(0.0)
            for s in range(0, S, 4):
                if noise > np.float32(0.0):
                    stream = splat_u(np.uint64(NOISE) + (np.uint64(p) << np.uint64(8)))
                    counter = splat_u(np.uint64(s // 4))
                    wa0, wb0, wc0, wd0 = philox8(trials0, high, counter, stream, k0, k1)
                    wa1, wb1, wc1, wd1 = philox8(trials1, high, counter, stream, k0, k1)
                    x0, x1 = normal_pairs(wa0, wa1, wb0, wb1)
                    x2, x3 = normal_pairs(wc0, wc1, wd0, wd1)
                for q in range(min(4, S - s)):
                    r = splat(peek(ref, s + q))
                    e = r
                    if not still[p]:
                        e = _errors(error_kind, sizes[-1], here, LANES * (s + q), LANES * Sp, target, s + q, Sp, True)
                        if each.size:
                            each[s + q] = total(mul(e, splat(np.float32(1.0 / LANES))))
                    xi = x0 if q == 0 else (x1 if q == 1 else (x2 if q == 2 else x3))
                    sum_ = add(sum_, sub(_read(e, xi, noise, step, top), r))
            store(E, p * BLOCK + t0, sum_)


# ---- broadcast and accumulate


@compiled(**EXACT)
def along(n, bits, v, lo, hi, s):
    """s[t] = sum of v times the signs of trial t; v is filled up with zeros to a multiple of 64."""
    for t in range(lo, hi):
        a = b = c = d = number(0.0)
        zero = number(0.0)
        for k in range((n + 63) // 64):
            word, i = peek(bits, k * STRIDE + t), 64 * k
            x = load(v, i)
            a = add(a, choose(bits16(word), x, sub(zero, x)))
            x = load(v, i + 16)
            b = add(b, choose(bits16(word >> np.uint64(16)), x, sub(zero, x)))
            x = load(v, i + 32)
            c = add(c, choose(bits16(word >> np.uint64(32)), x, sub(zero, x)))
            x = load(v, i + 48)
            d = add(d, choose(bits16(word >> np.uint64(48)), x, sub(zero, x)))
        s[t] = total(add(add(a, b), add(c, d)))


@compiled(**EXACT)
def _power(x):
    """The power of two next above |x|, 1 for 0: dividing by it rounds nothing."""
    if not (x > 0.0) or x == np.inf:
        return 1.0
    _, e = math.frexp(x)
    return math.ldexp(1.0, e)


@compiled(**EXACT)
def coefficients(lo, hi, y, u, s, c, scalars, units):
    """The coefficients of every trial, and their sums: see `finish`.

    c[r BLOCK + t] = 1, y, y^2, s, su, su^2, s^2, s^2 y u, s^3, s^3 u, s^3 u^2 for r = 0.. and 0 for trials outside lo..hi-1, with
    y, u, s in the powers of two `units` in which none exceeds 1. scalars: sums of y, y^2, s, s^2, s^2 u, s^2 u^2, syu, s^4,
    s^4 u, s^4 u^2, u.
    """
    most_y, most_u, most_s = 0.0, 0.0, 0.0
    for t in range(lo, hi):
        most_y, most_u, most_s = max(most_y, abs(y[t])), max(most_u, abs(u[t])), max(most_s, abs(s[t]))
    units[0], units[1], units[2] = _power(most_y), _power(most_u), _power(most_s)
    per_y, per_u, per_s = 1.0 / units[0], 1.0 / units[1], 1.0 / units[2]
    for i in range(c.size):
        c[i] = 0.0
    rows = c.size // BLOCK
    for i in range(scalars.size):
        scalars[i] = 0.0
    for t in range(lo, hi):
        Y, U, s_ = y[t], u[t], s[t]
        ss, su = s_ * s_, s_ * U
        scalars[0] += Y
        scalars[1] += Y * Y
        scalars[2] += s_
        scalars[3] += ss
        scalars[4] += ss * U
        scalars[5] += su * su
        scalars[6] += su * Y
        scalars[7] += ss * ss
        scalars[8] += ss * ss * U
        scalars[9] += ss * su * su
        scalars[10] += U
        Y, U, s_ = Y * per_y, U * per_u, s_ * per_s
        ss, su = s_ * s_, s_ * U
        c[t] = 1.0
        c[BLOCK + t] = Y
        c[2 * BLOCK + t] = Y * Y
        c[3 * BLOCK + t] = s_
        c[4 * BLOCK + t] = su
        c[5 * BLOCK + t] = su * U
        c[6 * BLOCK + t] = ss
        c[7 * BLOCK + t] = ss * Y * U
        if rows > 8:
            c[8 * BLOCK + t] = ss * s_
            c[9 * BLOCK + t] = ss * su
            c[10 * BLOCK + t] = ss * su * U


@compiled(**EXACT)
def finish_signs(count, sigma, alpha, v_beta, with_b, rows, L, scalars, units, sums):
    """Add the block's sums, as `synapse.accumulate` makes them, with q = alpha s D_i - beta_i s^2 and D_i^2 = sigma^2.

    L[i rows + r]: sums of coefficients times signs. with_b: whether beta is not 0. sums (14, n), see `synapse.SUMS`.
    """
    Uy, Uu, Us = units[0], units[1], units[2]
    y1, yy, s1, ss, ssu, ssuu, syu, s4, s4u, s4uu = (
        scalars[0], scalars[1], scalars[2], scalars[3], scalars[4], scalars[5], scalars[6], scalars[7], scalars[8], scalars[9],
    )  # fmt: skip
    power = sigma * sigma
    m1, my, myy = sigma, sigma * Uy, sigma * Uy * Uy
    ms, msu, msuu = alpha * sigma * Us, alpha * sigma * Us * Uu, alpha * sigma * Us * Uu * Uu
    for i in range(v_beta.size):
        at = i * rows
        x, xy, xyy = m1 * L[at], my * L[at + 1], myy * L[at + 2]
        q, qu, quu = ms * L[at + 3], msu * L[at + 4], msuu * L[at + 5]
        xx, xxy, xyxy = power * count, power * y1, power * yy
        xq, qq, qqu = alpha * power * s1, alpha * alpha * power * ss, alpha * alpha * power * ssu
        xyqu, ququ = alpha * power * syu, alpha * alpha * power * ssuu
        if with_b:
            beta = v_beta[i]
            m = sigma * Us * Us
            xss, xssyu = m * L[at + 6], m * Uy * Uu * L[at + 7]
            m *= Us
            xsss, xsssu, xsssuu = m * L[at + 8], m * Uu * L[at + 9], m * Uu * Uu * L[at + 10]
            q, qu, quu = q - beta * ss, qu - beta * ssu, quu - beta * ssuu
            xq, xyqu = xq - beta * xss, xyqu - beta * xssyu
            qq += beta * (beta * s4 - 2.0 * alpha * xsss)
            qqu += beta * (beta * s4u - 2.0 * alpha * xsssu)
            ququ += beta * (beta * s4uu - 2.0 * alpha * xsssuu)
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
def _block(
    sizes, activations, error_kind, x, base, w, target, ref, present, S, v, v_beta, alpha, regressor_kind, sigma_v, amounts, still,
    gradient_weights, hv_weights, code_kind, sigma, period, seed, noise, step, top, first, last, sums, totals,
):  # fmt: skip
    """Add trials first..last-1, all of one block, to sums and totals; return the first with a non-finite error, or -1."""
    start = first // BLOCK * BLOCK
    lo, hi, n, P = first - start, last - start, v_beta.size, amounts.size
    rows = 16 if regressor_kind == 2 else 8
    bits, E, nothing = np.empty(2 * ((n + 127) // 128) * STRIDE, np.uint64), np.zeros(P * BLOCK, np.float32), _aligned(0)
    s32, c, L = np.ones(BLOCK, np.float32), np.empty(rows * BLOCK, np.float32), _aligned(n * rows)
    y, u, s = np.zeros(BLOCK), np.zeros(BLOCK), np.ones(BLOCK)
    scalars, units = np.empty(11), np.empty(3)

    # perturb, measure
    draw_signs(code_kind, seed, start, period, n, bits)
    if present.size:
        errors_by_patterns(
            sizes, activations, error_kind, x, base, w, target, ref, present, amounts, still, np.float32(sigma), seed, noise, step,
            top, start, bits, lo, hi, E, nothing,
        )  # fmt: skip
    else:
        errors_by_trials(
            sizes, activations, error_kind, x, base, w, target, ref, S, amounts, still, np.float32(sigma), seed, noise, step, top,
            start, bits, lo, hi, E, nothing,
        )  # fmt: skip

    # broadcast
    for p in range(P):
        for t in range(lo, hi):
            y[t] += gradient_weights[p] * (np.float64(E[p * BLOCK + t]) / S)
            u[t] += hv_weights[p] * (np.float64(E[p * BLOCK + t]) / S)
    failed = -1
    for t in range(hi - 1, lo - 1, -1):
        if not (math.isfinite(y[t]) and math.isfinite(u[t])):
            failed = start + t
    if failed >= 0:
        return failed
    if regressor_kind > 0:
        along(n, bits, v, lo, hi, s32)
        for t in range(lo, hi):
            s[t] = sigma_v * s32[t]

    # accumulate
    for t in range(lo, hi):
        totals[0], totals[1], totals[2], totals[3] = _count((totals[0], totals[1], totals[2], totals[3]), (y[t], u[t]))
    coefficients(lo, hi, y, u, s, c, scalars, units)
    accumulate_signs(n, bits, c, rows, L)
    finish_signs(hi - lo, sigma, alpha, v_beta, regressor_kind == 2, rows, L, scalars, units, sums)
    return -1


@compiled(nogil=True)
def sign_trials(
    sizes, activations, error_kind, x, base, w, target, ref, present, S, v, v_beta, alpha, regressor_kind, sigma_v, amounts, still,
    gradient_weights, hv_weights, code_kind, sigma, period, seed, noise, step, top, first, last, sums, totals, failed,
):  # fmt: skip
    """Trials first..last-1 in aligned blocks: the b-th adds to sums[b], totals[b] and sets failed[b], see `_block`."""
    for b in range(sums.shape[0]):
        start = (first // BLOCK + b) * BLOCK
        failed[b] = _block(
            sizes, activations, error_kind, x, base, w, target, ref, present, S, v, v_beta, alpha, regressor_kind, sigma_v,
            amounts, still, gradient_weights, hv_weights, code_kind, sigma, period, seed, noise, step, top,
            max(first, start), min(last, start + BLOCK), sums[b], totals[b],
        )  # fmt: skip
