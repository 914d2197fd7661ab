"""Float32 kernels for codes of two levels, +-sigma: perturbation trials of an MLP, a block of T at
a time.

A block draws all its perturbations, evaluates E at them (`float32_errors`), and adds up
(`float32_sums`). Signs stay bits throughout: sums over trials of coefficients times signs are look-
ups, 16 entries for every four trials. n weights have only 2^n patterns of signs: where trials
outnumber them by far, and a reading adds nothing of its own to a trial, E is measured once at each.
"""

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.float32_errors import (
    SPARE,
    errors_by_patterns,
    errors_by_trials,
    room_by_trials,
)
from perturb.kernels.float32_sums import broadcast, coefficients, count, finish
from perturb.kernels.simd import (
    EXACT,
    LANES,
    MASK,
    add,
    aligned,
    bit_of_each,
    choose,
    fma,
    from_bits64,
    iota_u,
    load,
    load8,
    load_u,
    number,
    or_u,
    peek,
    philox8,
    shl_u,
    splat_u,
    store,
    totals16,
)
from perturb.trial.random import CODE, words

MANY = 256  # weights from which on their sums over trials are looked up
FEW = 12  # weights up to which 2^n errors of each phase stay in a core's own cache
ZERO, ONE = np.uint64(0), np.uint64(1)


def block(n_weights: int) -> int:
    """T, the trials of a block: more of tiny networks, where what a block costs besides its
    trials would count.
    """
    return 1024 if n_weights < MANY else 256


@compiled(**EXACT)
def draw_signs(kind, seed, start, period, n, T, bits):
    """Bit i % 64 of bits[i // 64 (T + SPARE) + t], t < T: whether trial start + t adds +sigma to
    weight i (else -sigma).
    """
    stride, k0, k1 = T + SPARE, seed & MASK, seed >> np.uint64(32)
    if kind == 0:
        half, low, high = (
            splat_u(np.uint64(32)),
            np.uint64(start) & MASK,
            splat_u(np.uint64(start) >> np.uint64(32)),
        )
        for block in range((n + 127) // 128):
            counter, stream = splat_u(np.uint64(block)), splat_u(np.uint64(CODE))
            for t in range(0, T, 8):
                trial = or_u(splat_u(low | np.uint64(t)), iota_u())
                a, b, c, d = philox8(trial, high, counter, stream, k0, k1)
                store(bits, 2 * block * stride + t, or_u(a, shl_u(b, half)))
                store(bits, (2 * block + 1) * stride + t, or_u(c, shl_u(d, half)))
        return

    # walsh: the signs of a pair of passes, turned where row & (i + 1) is odd, and all of them in
    # odd passes
    n_words = 2 * ((n + 127) // 128)
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
            bits[k * stride + t] = signs[k] ^ ((here >> ONE) | (following << np.uint64(63)))
            here = following


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


@compiled(**EXACT)
def _measure(
    sizes,
    activations,
    error_kind,
    x,
    base,
    w,
    target,
    ref,
    present,
    S,
    v,
    amounts,
    unperturbed,
    sigma,
    seed,
    noise,
    step,
    top,
    start,
    lo,
    hi,
    bits,
    E,
    s,
    nothing,
    scratch,
):
    E[:] = np.float32(0.0)
    if present.size:
        errors_by_patterns(
            sizes,
            activations,
            error_kind,
            x,
            base,
            w,
            target,
            ref,
            present,
            amounts,
            unperturbed,
            np.float32(sigma),
            seed,
            noise,
            step,
            top,
            start,
            bits,
            nothing,
            v,
            lo,
            hi,
            E,
            s,
            nothing,
        )
    else:
        errors_by_trials(
            sizes,
            activations,
            error_kind,
            x,
            base,
            w,
            target,
            ref,
            S,
            amounts,
            unperturbed,
            np.float32(sigma),
            seed,
            noise,
            step,
            top,
            start,
            bits,
            nothing,
            v,
            lo,
            hi,
            E,
            s,
            nothing,
            scratch,
        )


@compiled()
def measured_once(n_weights, trials, noise):
    """2^n, or the least that fills a vector, where so many sign patterns are measured instead of
    that many trials; else 0.
    """
    patterns = max(LANES, 1 << min(n_weights, FEW))
    return patterns if n_weights <= FEW and 4 * patterns <= trials and noise == 0.0 else 0


@compiled(**EXACT)
def _look_up(lo, hi, bits, E_of, s_of, E, s):
    # E and s of trials lo..hi-1 from those of the pattern of signs b, E_of[p patterns + b] and
    # s_of[b]
    T, patterns = s.size, s_of.size
    for t in range(lo, hi):
        b = np.int64(peek(bits, t) & np.uint64(patterns - 1))
        s[t] = peek(s_of, b)
        for p in range(E.size // T):
            E[p * T + t] = peek(E_of, p * patterns + b)


@compiled(**EXACT)
def _block(
    sizes,
    activations,
    error_kind,
    x,
    base,
    w,
    target,
    ref,
    present,
    S,
    v,
    v_beta,
    alpha,
    regressor_kind,
    sigma_v,
    amounts,
    unperturbed,
    gradient_weights,
    hv_weights,
    code_kind,
    sigma,
    period,
    seed,
    noise,
    step,
    top,
    first,
    last,
    sums,
    totals,
    E_of,
    s_of,
    bits,
    E,
    s32,
    c,
    L,
    y,
    u,
    s,
    scalars,
    units,
    nothing,
    scratch,
    received,
    origin,
):
    """Add trials first..last-1, all of one block, to sums and totals; return the first with a
    non-finite error, or -1. received: for what is broadcast of trials from `origin` on,
    (3, trials), or (3, 0).
    """
    T = y.size
    start = first // T * T
    lo, hi, n, rows = first - start, last - start, v_beta.size, c.size // T
    draw_signs(code_kind, seed, start, period, n, T, bits)
    if s_of.size:
        _look_up(lo, hi, bits, E_of, s_of, E, s32)
    else:
        _measure(
            sizes,
            activations,
            error_kind,
            x,
            base,
            w,
            target,
            ref,
            present,
            S,
            v,
            amounts,
            unperturbed,
            sigma,
            seed,
            noise,
            step,
            top,
            start,
            lo,
            hi,
            bits,
            E,
            s32,
            nothing,
            scratch,
        )
    failed = broadcast(
        S, sigma_v, v.size > 0, gradient_weights, hv_weights, lo, hi, E, s32, y, u, s
    )
    if failed >= 0:
        return start + failed
    if received.shape[1]:
        for row, numbers in enumerate((y, u, s)):
            for t in range(lo, hi):
                received[row, start + t - origin] = numbers[t]
    coefficients(lo, hi, y, u, s, c, nothing, scalars, units)
    count(scalars, v.size > 0, totals)
    accumulate_signs(n, bits, c, rows, L)
    finish(hi - lo, sigma, alpha, v_beta, regressor_kind == 2, True, rows, L, scalars, units, sums)
    return -1


@compiled(nogil=True)
def sign_trials(
    sizes,
    activations,
    error_kind,
    x,
    base,
    w,
    target,
    ref,
    present,
    S,
    v,
    v_beta,
    alpha,
    regressor_kind,
    sigma_v,
    amounts,
    unperturbed,
    gradient_weights,
    hv_weights,
    code_kind,
    sigma,
    period,
    seed,
    noise,
    step,
    top,
    T,
    span,
    first,
    last,
    sums,
    totals,
    failed,
    received,
):
    """Trials first..last-1 in aligned spans of blocks of T: the b-th adds to sums[b], totals[b] and
    sets failed[b], see `_block`.
    """
    n, rows = v_beta.size, 16 if regressor_kind == 2 else 8
    bits, E = (
        np.empty(2 * ((n + 127) // 128) * (T + SPARE), np.uint64),
        np.empty(amounts.size * T, np.float32),
    )
    s32, c, L, nothing = (
        np.zeros(T, np.float32),
        aligned(rows * T),
        aligned(n * rows + 16),
        aligned(0),
    )
    y, u, s, scalars, units = np.empty(T), np.empty(T), np.empty(T), np.empty(12), np.empty(3)
    scratch = aligned(0 if present.size else room_by_trials(sizes, ref.size, True))
    scratch[:] = np.float32(0.0)
    patterns = measured_once(n, last - first, noise)
    E_of, s_of = np.empty(amounts.size * patterns, np.float32), np.zeros(patterns, np.float32)
    if patterns:
        signs = np.zeros(2 * (patterns + SPARE), np.uint64)
        signs[:patterns] = np.arange(patterns)
        _measure(
            sizes,
            activations,
            error_kind,
            x,
            base,
            w,
            target,
            ref,
            present,
            S,
            v,
            amounts,
            unperturbed,
            sigma,
            seed,
            noise,
            step,
            top,
            0,
            0,
            patterns,
            signs,
            E_of,
            s_of,
            nothing,
            scratch,
        )
    for b in range(sums.shape[0]):
        whole = (first // span + b) * span
        for start in range(whole, whole + span, T):
            if start < last and start + T > first:
                wrong = _block(
                    sizes,
                    activations,
                    error_kind,
                    x,
                    base,
                    w,
                    target,
                    ref,
                    present,
                    S,
                    v,
                    v_beta,
                    alpha,
                    regressor_kind,
                    sigma_v,
                    amounts,
                    unperturbed,
                    gradient_weights,
                    hv_weights,
                    code_kind,
                    sigma,
                    period,
                    seed,
                    noise,
                    step,
                    top,
                    max(first, start),
                    min(last, start + T),
                    sums[b],
                    totals[b],
                    E_of,
                    s_of,
                    bits,
                    E,
                    s32,
                    c,
                    L,
                    y,
                    u,
                    s,
                    scalars,
                    units,
                    nothing,
                    scratch,
                    received,
                    first,
                )
                failed[b] = wrong if failed[b] < 0 else failed[b]
