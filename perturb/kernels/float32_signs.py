"""Float32 kernels for codes of two levels, +-sigma: perturbation trials of an MLP, a block of T at
a time.

A block draws all its perturbations, evaluates E at them (`float32_errors`), and adds up
(`float32_sums`). Signs stay bits throughout: sums over trials of coefficients times signs are look-
ups, 16 entries for every four trials. n weights have only 2^n patterns of signs: where trials
outnumber them by far, and a reading adds nothing of its own to a trial, E is measured once at each.
"""

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.arguments import Block, Errors, Perturbations
from perturb.kernels.float32_draws import SPARE, draw_signs, words_of
from perturb.kernels.float32_errors import measure, room_for_errors
from perturb.kernels.float32_functions import number
from perturb.kernels.float32_sums import broadcast, finish, room_for_sums
from perturb.kernels.simd import (
    EXACT,
    LANES,
    add,
    aligned,
    bit_of_each,
    choose,
    fma,
    from_bits64,
    load,
    load8,
    load_u,
    or_u,
    peek,
    store,
    totals16,
)

MANY = 256  # weights from which on their sums over trials are looked up
FEW = 12  # weights up to which 2^n errors of each phase stay in a core's own cache


def block(n_weights: int) -> int:
    """T, the trials of a block: more of tiny networks, where what a block costs besides its
    trials would count.
    """
    return 1024 if n_weights < MANY else 256


@compiled(**EXACT)
def _accumulate_lanes(n, bits, c, rows, L):
    # the lanes are trials: two weights with eight rows, or one with sixteen, at a time
    T, one, minus = c.size // rows, number(1.0), number(-1.0)
    for i in range(0, n, 16 // rows):
        k, bit, other = i // 64 * (T + SPARE), i % 64, (i + 1) % 64
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = number(0.0)
        for t in range(0, T, LANES):
            low, high = load_u(bits, k + t), load_u(bits, k + t + 8)
            d = e = choose(bit_of_each(low, high, bit), one, minus)
            at, above = t, t + 8 * T
            if rows == 8:
                e, above = choose(bit_of_each(low, high, other), one, minus), t
            a0, a1 = fma(d, load(c, at), a0), fma(d, load(c, at + T), a1)
            a2, a3 = fma(d, load(c, at + 2 * T), a2), fma(d, load(c, at + 3 * T), a3)
            a4, a5 = fma(d, load(c, at + 4 * T), a4), fma(d, load(c, at + 5 * T), a5)
            a6, a7 = fma(d, load(c, at + 6 * T), a6), fma(d, load(c, at + 7 * T), a7)
            b0, b1 = fma(e, load(c, above), b0), fma(e, load(c, above + T), b1)
            b2, b3 = fma(e, load(c, above + 2 * T), b2), fma(e, load(c, above + 3 * T), b3)
            b4, b5 = fma(e, load(c, above + 4 * T), b4), fma(e, load(c, above + 5 * T), b5)
            b6, b7 = fma(e, load(c, above + 6 * T), b6), fma(e, load(c, above + 7 * T), b7)
        store(
            L, i * rows, totals16((a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7))
        )


@compiled(**EXACT)
def _sums256(c, rows, t0, tables, half):
    """tables[b rows + r]: the sum over trials t0 + k, k = 0..7, of +-c[r, t0 + k], + where b has
    bit k.
    """
    for b in range(16):
        for r in range(rows):
            at = r * (c.size // rows) + t0
            for q in range(2):
                first = (c[at] if b & 1 else -c[at]) + (c[at + 1] if b & 2 else -c[at + 1])
                second = (c[at + 2] if b & 4 else -c[at + 2]) + (c[at + 3] if b & 8 else -c[at + 3])
                half[(16 * q + b) * rows + r] = first + second
                at += 4
    # eight trials: the sum of one entry for the lower and one for the upper four
    for b in range(256):
        low, high, at = (b & 15) * rows, (16 + (b >> 4)) * rows, b * rows
        for r in range(0, rows, 8):
            store(tables, at + r, add(load8(half, low + r), load8(half, high + r)))


@compiled(**EXACT)
def _accumulate_bytes(n, bits, c, rows, L):
    # the bits of eight trials are the index into a table of 256 sums; four tables stay in the
    # first-level cache
    T = c.size // rows
    size, chunk = 256 * rows, min(n, 2048) + 63
    tables, half, index = (
        aligned(T // 8 * size),
        aligned(32 * rows),
        np.empty(4 * chunk + 64, np.uint8),
    )
    for q in range(T // 8):
        _sums256(c, rows, 8 * q, tables[q * size :], half)
    for first in range(0, n, 2048):
        count = min(2048, n - first)
        for q in range(0, T // 8, 4):
            for k in range((count + 63) // 64):
                for p in range(4):
                    at = (first // 64 + k) * (T + SPARE) + 8 * (q + p)
                    # bit k of a weight's byte is its sign in trial k of the eight
                    chosen = from_bits64(peek(bits, at), 1)
                    for bit in range(1, 8):
                        chosen = or_u(chosen, from_bits64(peek(bits, at + bit), 1 << bit))
                    store(index, p * chunk + 64 * k, chosen)
            one, two, three = q * size + size, q * size + 2 * size, q * size + 3 * size
            if rows == 8:
                for i in range(count):
                    at = 8 * (first + i)
                    a = add(
                        load8(tables, q * size + 8 * np.int64(peek(index, i))),
                        load8(tables, one + 8 * np.int64(peek(index, chunk + i))),
                    )
                    b = add(
                        load8(tables, two + 8 * np.int64(peek(index, 2 * chunk + i))),
                        load8(tables, three + 8 * np.int64(peek(index, 3 * chunk + i))),
                    )
                    a = add(a, b)
                    store(L, at, a if q == 0 else add(load8(L, at), a))
            else:
                for i in range(count):
                    at = 16 * (first + i)
                    a = add(
                        load(tables, q * size + 16 * np.int64(peek(index, i))),
                        load(tables, one + 16 * np.int64(peek(index, chunk + i))),
                    )
                    b = add(
                        load(tables, two + 16 * np.int64(peek(index, 2 * chunk + i))),
                        load(tables, three + 16 * np.int64(peek(index, 3 * chunk + i))),
                    )
                    a = add(a, b)
                    store(L, at, a if q == 0 else add(load(L, at), a))


@compiled(**EXACT)
def accumulate_signs(n, bits, c, rows, L):
    """L[i rows + r] = sum over the block's trials of c[r T + t] times the sign of weight i; rows: 8
    or 16. L ends in spare room for 16 numbers.
    """
    if n < MANY:
        _accumulate_lanes(n, bits, c, rows, L)
    else:
        _accumulate_bytes(n, bits, c, rows, L)


@compiled()
def measured_once(n_weights, trials, noise):
    """2^n, or the least that fills a vector, where so many sign patterns are measured instead of
    that many trials; else 0.
    """
    # a vector of trials is the least that is measured together
    patterns = max(LANES, 1 << min(n_weights, FEW))
    return patterns if n_weights <= FEW and 4 * patterns <= trials and noise == 0.0 else 0


@compiled(**EXACT)
def _look_up(block, bits, of, errors):
    # E and s of the block's trials from those of the pattern of signs b: E[p patterns + b] and s[b]
    # of `of`
    (_, lo, hi), E, s, E_of, s_of = block, errors.E, errors.s, of.E, of.s
    T, patterns = s.size, s_of.size
    for t in range(lo, hi):
        # bits beyond the n-th are random, and change nothing
        b = np.int64(peek(bits, t) & np.uint64(patterns - 1))
        s[t] = peek(s_of, b)
        for p in range(E.size // T):
            E[p * T + t] = peek(E_of, p * patterns + b)


@compiled(**EXACT)
def _measure_once(trials, patterns, nothing, scratch):
    """Errors of so many patterns of signs, each as in a trial of its own."""
    E, s = np.empty(trials.phases.a.size * patterns, np.float32), np.zeros(patterns, np.float32)
    errors = Errors(E, s, nothing)
    if patterns:
        signs = np.zeros(2 * (patterns + SPARE), np.uint64)
        # pattern b has the signs that b has as bits
        signs[:patterns] = np.arange(patterns)
        measure(trials, Block(0, 0, patterns), Perturbations(signs, nothing), errors, scratch)
    return errors


@compiled(nogil=True, **EXACT)
def sign_trials(trials, T, span, first, last, to):
    """Trials first..last-1 in aligned spans of blocks of T, each added to its span of `to`, of
    which the first is that of trial `first`.
    """
    draws, phases, kind = trials.draws, trials.phases, trials.regressor.kind
    # eight coefficients are summed for every weight, and three more for the regressor b (kind 2)
    n, rows, nothing = trials.regressor.beta.size, 16 if kind == 2 else 8, aligned(0)
    signs = Perturbations(np.empty(words_of(n) * (T + SPARE), np.uint64), nothing)
    errors = Errors(np.empty(phases.a.size * T, np.float32), np.zeros(T, np.float32), nothing)
    room, scratch = room_for_sums(n, T, rows, rows, 0), room_for_errors(trials, True)
    patterns = measured_once(n, last - first, trials.readout.noise)
    known = _measure_once(trials, patterns, nothing, scratch)
    for start in range(first // T * T, last, T):
        b = start // span - first // span
        block = Block(start, max(first - start, 0), min(last - start, T))
        draw_signs(draws.kind, draws.seed, start, draws.period, n, T, signs.bits)
        if patterns:
            _look_up(block, signs.bits, known, errors)
        else:
            measure(trials, block, signs, errors, scratch)
        failed = broadcast(trials, block, errors, room, to.totals[b], to)
        if failed >= 0:
            to.failed[b] = failed if to.failed[b] < 0 else to.failed[b]
            continue
        accumulate_signs(n, signs.bits, room.c, rows, room.L)
        finish(trials, block.hi - block.lo, True, rows, room, to.sums[b])
