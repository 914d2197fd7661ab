"""Float32 kernels for codes of more than two levels, gaussian and ternary, and for perturbations
with a gain for every weight. A block goes the same way as in `float32_signs`.

Perturbations are stored as numbers, D[i T + t] for weight i and trial t, in units of sigma; the
lanes of all that makes or sums them are trials.
"""

import math

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.float32_errors import (
    SPARE,
    errors_by_patterns,
    errors_by_trials,
    room_by_trials,
)
from perturb.kernels.float32_signs import ONE, draw_signs
from perturb.kernels.float32_sums import broadcast, coefficients, count, finish
from perturb.kernels.simd import (
    EXACT,
    LANES,
    MASK,
    add,
    add_u,
    aligned,
    and_u,
    choose,
    fma,
    greater,
    iota_u,
    load,
    mul,
    mul_u,
    normal_pairs,
    number,
    peek,
    philox8,
    shr_u,
    small,
    splat,
    splat_u,
    store,
    sub,
    totals16,
)
from perturb.trial.random import CODE

BLOCK = 64


def block(n_weights: int) -> int:
    """T, the trials of a block."""
    return BLOCK


@compiled(**EXACT)
def draw_normals(seed, start, n, D):
    """D[i BLOCK + t]: the gaussian perturbation of weight i in trial start + t; uses rows up to
    a multiple of 4.
    """
    k0, k1 = seed & MASK, seed >> np.uint64(32)
    low, high, stream = (
        np.uint64(start) & MASK,
        splat_u(np.uint64(start) >> np.uint64(32)),
        splat_u(np.uint64(CODE)),
    )
    for t in range(0, BLOCK, LANES):
        trials0 = add_u(splat_u(low | np.uint64(t)), iota_u())
        trials1 = add_u(splat_u(low | np.uint64(t + 8)), iota_u())
        for i in range(0, n, 4):
            counter, at = splat_u(np.uint64(i // 4)), i * BLOCK + t
            a0, b0, c0, d0 = philox8(trials0, high, counter, stream, k0, k1)
            a1, b1, c1, d1 = philox8(trials1, high, counter, stream, k0, k1)
            x, y = normal_pairs(a0, a1, b0, b1)
            store(D, at, x)
            store(D, at + BLOCK, y)
            x, y = normal_pairs(c0, c1, d0, d1)
            store(D, at + 2 * BLOCK, x)
            store(D, at + 3 * BLOCK, y)


@compiled(**EXACT)
def _digits(a, b, D, at):
    # four base-6 digits of sixteen words, read as fractions
    six, mask, half = splat_u(np.uint64(6)), splat_u(MASK), splat_u(np.uint64(32))
    level, zero = number(math.sqrt(3.0)), number(0.0)
    for digit in range(4):
        a, b = mul_u(a, six), mul_u(b, six)
        x = small(shr_u(a, half), shr_u(b, half))
        x = choose(
            greater(number(0.5), x), sub(zero, level), choose(greater(x, number(4.5)), level, zero)
        )
        store(D, at + digit * BLOCK, x)
        a, b = and_u(a, mask), and_u(b, mask)


@compiled(**EXACT)
def draw_ternary(seed, start, n, D):
    """As `draw_normals`, of the ternary code; uses rows up to a multiple of 16."""
    k0, k1 = seed & MASK, seed >> np.uint64(32)
    low, high, stream = (
        np.uint64(start) & MASK,
        splat_u(np.uint64(start) >> np.uint64(32)),
        splat_u(np.uint64(CODE)),
    )
    for t in range(0, BLOCK, LANES):
        trials0 = add_u(splat_u(low | np.uint64(t)), iota_u())
        trials1 = add_u(splat_u(low | np.uint64(t + 8)), iota_u())
        for i in range(0, n, 16):
            counter, at = splat_u(np.uint64(i // 16)), i * BLOCK + t
            a0, b0, c0, d0 = philox8(trials0, high, counter, stream, k0, k1)
            a1, b1, c1, d1 = philox8(trials1, high, counter, stream, k0, k1)
            _digits(a0, a1, D, at)
            _digits(b0, b1, D, at + 4 * BLOCK)
            _digits(c0, c1, D, at + 8 * BLOCK)
            _digits(d0, d1, D, at + 12 * BLOCK)


@compiled(**EXACT)
def dot_rows(n, D, v, s):
    """s[t] = sum of v_i times the perturbation of weight i."""
    for t in range(0, BLOCK, LANES):
        a = b = number(0.0)
        for i in range(0, n, 2):  # the row after the last is zero
            a = fma(load(D, i * BLOCK + t), splat(peek(v, i)), a)
            b = fma(load(D, (i + 1) * BLOCK + t), splat(peek(v, i + 1)), b)
        store(s, t, add(a, b))


@compiled(**EXACT)
def accumulate(n, D, c, c2, with_b, rows, L):
    """L[i rows + r]: sums of the first eight coefficients c times D_i (r < 8), of c2 times D_i^2 (8
    <= r < 16) and, with_b, of three more c times D_i. L ends in spare room for 16 numbers.
    """
    T = BLOCK
    for i in range(n):
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = number(0.0)
        for t in range(0, T, LANES):
            d = load(D, i * T + t)
            e = mul(d, d)
            a0, a1 = fma(d, load(c, t), a0), fma(d, load(c, t + T), a1)
            a2, a3 = fma(d, load(c, t + 2 * T), a2), fma(d, load(c, t + 3 * T), a3)
            a4, a5 = fma(d, load(c, t + 4 * T), a4), fma(d, load(c, t + 5 * T), a5)
            a6, a7 = fma(d, load(c, t + 6 * T), a6), fma(d, load(c, t + 7 * T), a7)
            b0, b1 = fma(e, load(c2, t), b0), fma(e, load(c2, t + T), b1)
            b2, b3 = fma(e, load(c2, t + 2 * T), b2), fma(e, load(c2, t + 3 * T), b3)
            b4, b5 = fma(e, load(c2, t + 4 * T), b4), fma(e, load(c2, t + 5 * T), b5)
            b6, b7 = fma(e, load(c2, t + 6 * T), b6), fma(e, load(c2, t + 7 * T), b7)
        store(
            L, i * rows, totals16((a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7))
        )
        if with_b:
            o = a0 = a1 = a2 = number(0.0)
            for t in range(0, T, LANES):
                d = load(D, i * T + t)
                a0, a1, a2 = (
                    fma(d, load(c, t + 8 * T), a0),
                    fma(d, load(c, t + 9 * T), a1),
                    fma(d, load(c, t + 10 * T), a2),
                )
            store(L, i * rows + 16, totals16((a0, a1, a2, o, o, o, o, o, o, o, o, o, o, o, o, o)))


@compiled(**EXACT)
def _block(
    gain,
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
    received,
    origin,
):
    """Add trials first..last-1, all of one block, to sums and totals; return the first with a
    non-finite error, or -1. gain: what reaches weight i is gain[i] D_i. received: as in
    `float32_signs`.
    """
    start = first // BLOCK * BLOCK
    lo, hi, n, P, sigma32, with_b = (
        first - start,
        last - start,
        v_beta.size,
        amounts.size,
        np.float32(sigma),
        regressor_kind == 2,
    )
    rows = 32 if with_b else 16
    D, E, nothing = (
        aligned(((n + 15) // 16 * 16 + 2) * BLOCK),
        np.zeros(P * BLOCK, np.float32),
        aligned(0),
    )
    s32, c, c2 = np.zeros(BLOCK, np.float32), aligned(rows // 2 * BLOCK), aligned(8 * BLOCK)
    L, no_bits = aligned(n * rows + 16), np.empty(0, np.uint64)
    y, u, s, scalars, units = (
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty(BLOCK),
        np.empty(12),
        np.empty(3),
    )

    if code_kind == 1:
        draw_normals(seed, start, n, D)
    elif code_kind == 2:
        draw_ternary(seed, start, n, D)
    else:
        bits = np.empty(2 * ((n + 127) // 128) * (BLOCK + SPARE), np.uint64)
        draw_signs(code_kind, seed, start, period, n, BLOCK, bits)
        for i in range(n):
            at, bit = i // 64 * (BLOCK + SPARE), np.uint64(i % 64)
            for t in range(BLOCK):
                D[i * BLOCK + t] = (
                    np.float32(1.0) if (bits[at + t] >> bit) & ONE else np.float32(-1.0)
                )
    D[n * BLOCK :] = np.float32(0.0)
    A = aligned(D.size)  # as it is applied
    for i in range(n):
        for t in range(BLOCK):
            A[i * BLOCK + t] = gain[i] * D[i * BLOCK + t]
    A[n * BLOCK :] = np.float32(0.0)
    if v.size:
        dot_rows(n, D, v, s32)
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
            sigma32,
            seed,
            noise,
            step,
            top,
            start,
            no_bits,
            A,
            v,
            lo,
            hi,
            E,
            s32,
            nothing,
        )
    else:
        scratch = aligned(room_by_trials(sizes, ref.size, False))
        scratch[:] = np.float32(0.0)
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
            sigma32,
            seed,
            noise,
            step,
            top,
            start,
            no_bits,
            A,
            v,
            lo,
            hi,
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
    coefficients(lo, hi, y, u, s, c, c2, scalars, units)
    count(scalars, v.size > 0, totals)
    accumulate(n, D, c, c2, with_b, rows, L)
    finish(hi - lo, sigma, alpha, v_beta, with_b, False, rows, L, scalars, units, sums)
    return -1


@compiled(nogil=True)
def float_trials(
    gain,
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
    """Trials first..last-1 in aligned spans of blocks: the b-th adds to sums[b], totals[b] and
    sets failed[b], see `_block`.
    """
    for b in range(sums.shape[0]):
        whole = (first // span + b) * span
        for start in range(whole, whole + span, BLOCK):
            if start < last and start + BLOCK > first:
                wrong = _block(
                    gain,
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
                    min(last, start + BLOCK),
                    sums[b],
                    totals[b],
                    received,
                    first,
                )
                failed[b] = wrong if failed[b] < 0 else failed[b]
