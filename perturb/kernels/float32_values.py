"""Float32 kernels for codes of more than two levels, gaussian and ternary, and for perturbations
with a gain for every weight. A block goes the same way as in `float32_signs`.

Perturbations are stored as numbers, D[i BLOCK + t] for weight i and trial t, in units of sigma; the
lanes of all that makes or sums them are trials.
"""

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.arguments import Block, Errors, Perturbations
from perturb.kernels.float32_draws import (
    BLOCK,
    GAUSSIAN,
    ONE,
    SPARE,
    TERNARY,
    draw_normals,
    draw_signs,
    draw_ternary,
    words_of,
)
from perturb.kernels.float32_errors import measure, room_for_errors
from perturb.kernels.float32_functions import number
from perturb.kernels.float32_sums import broadcast, finish, room_for_sums
from perturb.kernels.simd import (
    EXACT,
    LANES,
    add,
    aligned,
    fma,
    load,
    mul,
    peek,
    splat,
    store,
    totals16,
)


def block(n_weights: int) -> int:
    """T, the trials of a block."""
    return BLOCK


@compiled(**EXACT)
def _dot_rows(n, D, v, s):
    """s[t] = sum of v_i times the perturbation of weight i."""
    for t in range(0, BLOCK, LANES):
        # two sums, whose additions need not wait for each other
        a = b = number(0.0)
        for i in range(0, n, 2):  # the row after the last is zero
            a = fma(load(D, i * BLOCK + t), splat(peek(v, i)), a)
            b = fma(load(D, (i + 1) * BLOCK + t), splat(peek(v, i + 1)), b)
        store(s, t, add(a, b))


@compiled(**EXACT)
def _accumulate(n, D, c, c2, with_b, rows, L):
    """L[i rows + r]: sums of the first eight coefficients c times D_i (r < 8), of c2 times D_i^2 (8
    <= r < 16) and, with_b, of three more c times D_i. L ends in spare room for 16 numbers.
    """
    T = BLOCK
    for i in range(n):
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = number(0.0)
        for t in range(0, T, LANES):
            d = load(D, i * T + t)
            # D_i^2 is no constant here, and has sums of its own
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
            # the other thirteen of the vector are 0, and nobody reads them
            store(L, i * rows + 16, totals16((a0, a1, a2, o, o, o, o, o, o, o, o, o, o, o, o, o)))


@compiled(**EXACT)
def _draw(draws, start, n, bits, D):
    """D: the perturbations of a block, zero in rows beyond the n-th."""
    if draws.kind == GAUSSIAN:
        draw_normals(draws.seed, start, n, D)
    elif draws.kind == TERNARY:
        draw_ternary(draws.seed, start, n, D)
    else:
        # signs as numbers, since the weights' gains differ
        draw_signs(draws.kind, draws.seed, start, draws.period, n, BLOCK, bits)
        for i in range(n):
            at, bit = i // 64 * (BLOCK + SPARE), np.uint64(i % 64)
            for t in range(BLOCK):
                D[i * BLOCK + t] = (
                    np.float32(1.0) if (bits[at + t] >> bit) & ONE else np.float32(-1.0)
                )
    D[n * BLOCK :] = np.float32(0.0)


@compiled(**EXACT)
def _apply(gain, D, A):
    for i in range(gain.size):
        for t in range(BLOCK):
            A[i * BLOCK + t] = gain[i] * D[i * BLOCK + t]


@compiled(nogil=True, **EXACT)
def float_trials(trials, T, span, first, last, to):
    """As `float32_signs.sign_trials`, of blocks of T = BLOCK."""
    regressor, phases, gain = trials.regressor, trials.phases, trials.points.gain
    n, with_b = gain.size, regressor.kind == 2
    rows, nothing = 32 if with_b else 16, aligned(0)
    # draws fill rows up to a multiple of 16, and `_dot_rows` reads them in pairs
    D = aligned(((n + 15) // 16 * 16 + 2) * BLOCK)
    applied = Perturbations(np.empty(0, np.uint64), aligned(D.size))
    applied.values[n * BLOCK :] = np.float32(0.0)
    bits = np.empty(words_of(n) * (BLOCK + SPARE), np.uint64)
    errors = Errors(
        np.empty(phases.a.size * BLOCK, np.float32), np.zeros(BLOCK, np.float32), nothing
    )
    room, scratch = room_for_sums(n, BLOCK, rows, rows // 2, 8), room_for_errors(trials, False)
    for start in range(first // BLOCK * BLOCK, last, BLOCK):
        b = start // span - first // span
        block = Block(start, max(first - start, 0), min(last - start, BLOCK))
        _draw(trials.draws, start, n, bits, D)
        _apply(gain, D, applied.values)
        # synapses know D as drawn, and E is measured with D as applied
        if regressor.v.size:
            _dot_rows(n, D, regressor.v, errors.s)
        measure(trials, block, applied, errors, scratch)
        failed = broadcast(trials, block, errors, room, to.totals[b], to)
        if failed >= 0:
            to.failed[b] = failed if to.failed[b] < 0 else to.failed[b]
            continue
        _accumulate(n, D, room.c, room.c2, with_b, rows, room.L)
        finish(trials, block.hi - block.lo, False, rows, room, to.sums[b])
