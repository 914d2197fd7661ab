"""Float32 measurement: the weighted sums of E over a block of T trials of an MLP, with explicit
vectors (`simd`).

 * Signs stay bits. X(W + aD + brV) = XW + a XD + br XV, and XD is put together from look-ups: for
   every four inputs a table of the 16 sums +-x1 +-x2 +-x3 +-x4 of 32 patterns, indexed by the
   random bits themselves. Other perturbations are numbers.
 * Few patterns leave no lanes for that: then sixteen trials are the lanes. * E is the difference
 from E(w), pattern by pattern, by the same float32 arithmetic, so that what they have in common
 cancels
   before it is summed. The phases' weights add up to 0, so that the constant does not count.

Perturbations are in units of sigma and s in units of sigma |v|.
"""

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.simd import (
    EXACT,
    LANES,
    MASK,
    add,
    add_u,
    aligned,
    bit_of_each,
    bits16,
    choose,
    div,
    down,
    exp,
    fma,
    from_bits64,
    greater,
    interleave4,
    iota_u,
    keep,
    load,
    load_u,
    log,
    mul,
    normal_pairs,
    number,
    or_u,
    peek,
    philox8,
    pointer,
    softplus,
    splat,
    splat_u,
    store,
    sub,
    tanh,
    tanh4,
    total,
)
from perturb.trial.random import NOISE

# after the T words of a row of bits, for an odd number of cache lines, so that rows do not evict
# each other
SPARE = 8
WIDE = 32  # patterns of a look-up
FEW = 24  # fewer patterns than this, and trials are the lanes
TILE = 16  # groups of four inputs whose tables (2 KB each) stay in the first-level cache
ONE = np.uint64(1)


@compiled(forceinline=True)
def _bits64(row, start, bit):
    """Sixty-four bits of row[start:] from `bit` on."""
    word, shift = start + (bit >> 6), np.uint64(bit & 63)
    # the second word is shifted in two steps, so that a shift by 64 gives 0
    return (peek(row, word) >> shift) | ((peek(row, word + 1) << ONE) << (np.uint64(63) - shift))


@compiled(**EXACT)
def _activate(kind, rows, start, count):
    # count: a multiple of 16
    whole = start + count // 64 * 64
    if kind == 1:
        for i in range(start, whole, 64):
            a, b, c, d = tanh4(
                load(rows, i), load(rows, i + 16), load(rows, i + 32), load(rows, i + 48)
            )
            store(rows, i, a)
            store(rows, i + 16, b)
            store(rows, i + 32, c)
            store(rows, i + 48, d)
        for i in range(whole, start + count, 16):
            store(rows, i, tanh(load(rows, i)))
    elif kind == 2:
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
            store(rows, i, fma(half, tanh(mul(half, load(rows, i))), half))
    elif kind == 3:
        zero = number(0.0)
        for i in range(start, start + count, 16):
            x = load(rows, i)
            store(rows, i, choose(greater(zero, x), zero, x))
    elif kind == 4:
        for i in range(start, start + count, 16):
            store(rows, i, softplus(load(rows, i)))


@compiled(forceinline=True, **EXACT)
def _errors(kind, n_out, y, start, stride, target, at, target_stride, lanes_are_trials):
    """The error of each lane: outputs y[start + j stride + lane]; targets by lane, or one for
    all lanes.
    """
    e = number(0.0)
    if kind == 0:
        for j in range(n_out):
            t = (
                splat(peek(target, at + j * target_stride))
                if lanes_are_trials
                else load(target, at + j * target_stride)
            )
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
            t = (
                splat(peek(target, at + j * target_stride))
                if lanes_are_trials
                else load(target, at + j * target_stride)
            )
            x = sub(load(y, start + j * stride), top)
            e, weight, inner = add(e, exp(x)), add(weight, t), fma(t, x, inner)
        return sub(mul(weight, log(e)), inner)
    for j in range(n_out):
        t = (
            splat(peek(target, at + j * target_stride))
            if lanes_are_trials
            else load(target, at + j * target_stride)
        )
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


@compiled(forceinline=True, **EXACT)
def _noise(seed, trial, phase, first):
    """Standard normals of the readings of WIDE patterns from number `first` on."""
    stream = np.uint64(NOISE) + (np.uint64(phase) << np.uint64(8))
    counter = add_u(splat_u(np.uint64(first // 4)), iota_u())
    a, b, c, d = philox8(
        splat_u(trial & MASK),
        splat_u(trial >> np.uint64(32)),
        counter,
        splat_u(stream),
        seed & MASK,
        seed >> np.uint64(32),
    )
    cos, sin = normal_pairs(a, c, b, d)
    return interleave4(cos, sin)


@compiled(**EXACT)
def _tables(x, tile, n_patterns, groups, tables):
    """For each group of four inputs and each b = 0..15: +-x1 +-x2 +-x3 +-x4 of WIDE patterns, +
    where b has the bit.
    """
    for g in range(groups):
        for half in range(0, WIDE, 16):
            at = 4 * g * n_patterns + tile + half
            x0, x1 = load(x, at), load(x, at + n_patterns)
            x2, x3 = load(x, at + 2 * n_patterns), load(x, at + 3 * n_patterns)
            for b in range(16):
                first = add(
                    x0 if b & 1 else sub(number(0.0), x0), x1 if b & 2 else sub(number(0.0), x1)
                )
                second = add(
                    x2 if b & 4 else sub(number(0.0), x2), x3 if b & 8 else sub(number(0.0), x3)
                )
                store(tables, (16 * g + b) * WIDE + half, add(first, second))


@compiled(**EXACT)
def _indices(row, start, n_in, n_out, padded, index, at):
    """index[at + g padded + j]: the signs of weights (4g .. 4g + 3, j) as a number below 16,
    times 16.
    """
    for g in range((n_in + 3) // 4):
        for j in range(0, n_out, 64):
            chosen = from_bits64(_bits64(row, start, 4 * g * n_out + j), 16)
            for k in range(1, min(4, n_in - 4 * g)):
                chosen = or_u(
                    chosen, from_bits64(_bits64(row, start, (4 * g + k) * n_out + j), 16 << k)
                )
            store(index, at + g * padded + j, chosen)


@compiled(**EXACT)
def _look_up(tables, first, last, index, at, padded, moved, start):
    """moved[start + j WIDE + lane] = (0, if first = 0, else what is there) + the tables' entries
    of groups first..last-1.
    """
    for j in range(0, padded, 4):
        out = start + j * WIDE
        if first == 0:
            a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = number(0.0)
        else:
            a0, a1, b0, b1 = (
                load(moved, out),
                load(moved, out + 16),
                load(moved, out + 32),
                load(moved, out + 48),
            )
            c0, c1, d0, d1 = (
                load(moved, out + 64),
                load(moved, out + 80),
                load(moved, out + 96),
                load(moved, out + 112),
            )
        for g in range(first, last):
            of, i = 16 * WIDE * g, at + g * padded + j
            p = of + WIDE // 16 * np.int64(peek(index, i))
            a0, a1 = add(a0, load(tables, p)), add(a1, load(tables, p + 16))
            p = of + WIDE // 16 * np.int64(peek(index, i + 1))
            b0, b1 = add(b0, load(tables, p)), add(b1, load(tables, p + 16))
            p = of + WIDE // 16 * np.int64(peek(index, i + 2))
            c0, c1 = add(c0, load(tables, p)), add(c1, load(tables, p + 16))
            p = of + WIDE // 16 * np.int64(peek(index, i + 3))
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
def _product(effective, at, n_in, n_out, x, start, begin):
    """x[begin + j WIDE + lane] = b_j + sum_i W_ij x[start + i WIDE + lane], with W, b from
    effective[at:]; rows up to a multiple of four are spoiled.
    """
    for j in range(0, n_out, 4):
        bias = at + n_in * n_out + j
        a0 = a1 = splat(peek(effective, bias))
        b0 = b1 = splat(peek(effective, bias + 1))
        c0 = c1 = splat(peek(effective, bias + 2))
        d0 = d1 = splat(peek(effective, bias + 3))
        for i in range(n_in):
            x0, x1, k = (
                load(x, start + WIDE * i),
                load(x, start + WIDE * i + 16),
                at + i * n_out + j,
            )
            w = splat(peek(effective, k))
            a0, a1 = fma(w, x0, a0), fma(w, x1, a1)
            w = splat(peek(effective, k + 1))
            b0, b1 = fma(w, x0, b0), fma(w, x1, b1)
            w = splat(peek(effective, k + 2))
            c0, c1 = fma(w, x0, c0), fma(w, x1, c1)
            w = splat(peek(effective, k + 3))
            d0, d1 = fma(w, x0, d0), fma(w, x1, d1)
        out = begin + WIDE * j
        store(x, out, a0)
        store(x, out + 16, a1)
        store(x, out + 32, b0)
        store(x, out + 48, b1)
        store(x, out + 64, c0)
        store(x, out + 80, c1)
        store(x, out + 96, d0)
        store(x, out + 112, d1)


@compiled(**EXACT)
def _signs_dot(row, start, v, words):
    # sum of v times the signs; v is filled up with zeros to a multiple of 64
    a = b = c = d = zero = number(0.0)
    for k in range(words):
        word, i = peek(row, start + k), 64 * k
        x = load(v, i)
        a = add(a, choose(bits16(word), x, sub(zero, x)))
        x = load(v, i + 16)
        b = add(b, choose(bits16(word >> np.uint64(16)), x, sub(zero, x)))
        x = load(v, i + 32)
        c = add(c, choose(bits16(word >> np.uint64(32)), x, sub(zero, x)))
        x = load(v, i + 48)
        d = add(d, choose(bits16(word >> np.uint64(48)), x, sub(zero, x)))
    return total(add(add(a, b), add(c, d)))


@compiled(**EXACT)
def _products8(D, t, T, n_in, n_out, x, tile, Sp, moved, size):
    # moved[q size + j WIDE + lane] = sum_i D[i n_out + j, t + q] x[i, tile + lane], for eight
    # trials q
    for j in range(n_out):
        a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = e0 = e1 = f0 = f1 = g0 = g1 = h0 = h1 = number(0.0)
        for i in range(n_in):
            k, x0, x1 = T * (i * n_out + j) + t, load(x, i * Sp + tile), load(x, i * Sp + tile + 16)
            d = splat(peek(D, k))
            a0, a1 = fma(d, x0, a0), fma(d, x1, a1)
            d = splat(peek(D, k + 1))
            b0, b1 = fma(d, x0, b0), fma(d, x1, b1)
            d = splat(peek(D, k + 2))
            c0, c1 = fma(d, x0, c0), fma(d, x1, c1)
            d = splat(peek(D, k + 3))
            d0, d1 = fma(d, x0, d0), fma(d, x1, d1)
            d = splat(peek(D, k + 4))
            e0, e1 = fma(d, x0, e0), fma(d, x1, e1)
            d = splat(peek(D, k + 5))
            f0, f1 = fma(d, x0, f0), fma(d, x1, f1)
            d = splat(peek(D, k + 6))
            g0, g1 = fma(d, x0, g0), fma(d, x1, g1)
            d = splat(peek(D, k + 7))
            h0, h1 = fma(d, x0, h0), fma(d, x1, h1)
        at = j * WIDE
        store(moved, at, a0)
        store(moved, at + 16, a1)
        store(moved, at + 1 * size, b0)
        store(moved, at + 1 * size + 16, b1)
        store(moved, at + 2 * size, c0)
        store(moved, at + 2 * size + 16, c1)
        store(moved, at + 3 * size, d0)
        store(moved, at + 3 * size + 16, d1)
        store(moved, at + 4 * size, e0)
        store(moved, at + 4 * size + 16, e1)
        store(moved, at + 5 * size, f0)
        store(moved, at + 5 * size + 16, f1)
        store(moved, at + 6 * size, g0)
        store(moved, at + 6 * size + 16, g1)
        store(moved, at + 7 * size, h0)
        store(moved, at + 7 * size + 16, h1)


@compiled(**EXACT)
def errors_by_patterns(
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
    sigma,
    seed,
    noise,
    step,
    top,
    start,
    bits,
    drawn,
    v,
    lo,
    hi,
    E,
    s,
    each,
):
    """Add to E[p T + t] the sum over patterns of error - ref, phase p, trials t = lo..hi-1; the
    lanes are patterns.

    x: sigma times the inputs, and sigma for the bias, (inputs, patterns); base (phases, units,
    patterns): net inputs of the first layer at w + b r v; w (phases, weights): the other layers' w
    + b r v; target (outputs, patterns); ref, present (patterns): errors at w, and 1 for every
    pattern that is none of those that fill up the last vector. amounts: a of each phase;
    unperturbed: 1 for phases that are not moved at all. s[t] becomes the sum of v times the signs;
    v is filled up with zeros to a multiple of 64, or empty. drawn: if not empty, the perturbations
    themselves in units of sigma, drawn[i T + t] with T trials a block, and s is left alone. each:
    if not empty, takes the errors of the patterns in the last trial and phase.
    """
    Sp, n_in, J = ref.size, sizes[0] + 1, sizes[1]
    padded, groups = (J + 3) // 4 * 4, (n_in + 3) // 4
    T, signs = E.size // amounts.size, drawn.size == 0
    n_words, n_row, n_rest, first_rest = (
        bits.size // (T + SPARE) + 1,
        w.shape[1],
        w.shape[1] - 64,
        n_in * J,
    )
    width = 0
    for units in sizes[1:]:
        width = max(width, units + 3)
    chunk = min(T, 256) if groups * padded <= 1024 else max(4, min(T, 1024 // padded))
    together, tile_groups = (1, groups) if groups <= TILE + TILE // 4 else (chunk, TILE)
    if not signs:
        chunk, together, groups, lo = T, 8, 0, lo // 8 * 8
    all_rows, all_index = (
        np.zeros(chunk * n_words, np.uint64),
        np.empty(chunk * groups * padded + 64, np.uint8),
    )
    all_tables, all_moved = aligned(groups * 16 * WIDE), aligned(together * padded * WIDE)
    all_y, half, all_effective = aligned(2 * width * WIDE), width * WIDE, aligned(n_rest + 64)
    all_y[:], all_effective[:] = np.float32(0.0), np.float32(0.0)
    index, tables, moved, y, effective = (
        pointer(all_index),
        pointer(all_tables),
        pointer(all_moved),
        pointer(all_y),
        pointer(all_effective),
    )
    row, x_, base_, w_, target_, v_, each_, drawn_ = (
        pointer(all_rows),
        pointer(x),
        pointer(base),
        pointer(w),
        pointer(target),
        pointer(v),
        pointer(each),
        pointer(drawn),
    )
    for t0 in range(lo, hi, chunk):
        count = min(chunk, hi - t0)
        for k in range(n_words - 1):
            for t in range(count):
                all_rows[t * n_words + k] = bits[k * (T + SPARE) + t0 + t]
        for t in range(count if signs else 0):
            _indices(row, t * n_words, n_in, J, padded, index, t * groups * padded)
            s[t0 + t] = _signs_dot(row, t * n_words, v_, v.size // 64)
        for tile in range(0, Sp, WIDE):
            _tables(x_, tile, Sp, groups, tables)
            r0, r1 = load(ref, tile), load(ref, tile + 16)
            p0, p1 = (
                greater(load(present, tile), number(0.5)),
                greater(load(present, tile + 16), number(0.5)),
            )
            for begin in range(0, count, together):
                end = min(begin + together, count)
                for g in range(0, groups, tile_groups):
                    for t in range(begin, end):
                        of = (t - begin) * padded * WIDE
                        _look_up(
                            tables,
                            g,
                            min(g + tile_groups, groups),
                            index,
                            t * groups * padded,
                            padded,
                            moved,
                            of,
                        )
                if not signs:
                    _products8(drawn_, t0 + begin, T, n_in, J, x_, tile, Sp, moved, padded * WIDE)
                for t in range(begin, end):
                    of, trial = (t - begin) * padded * WIDE, np.uint64(start + t0 + t)
                    for p in range(amounts.size):
                        e0, e1 = r0, r1
                        if unperturbed[p]:
                            if noise == np.float32(0.0) and step == np.float32(0.0):
                                continue
                        else:
                            a = splat(amounts[p])
                            for j in range(J):
                                at, k = (p * J + j) * Sp + tile, j * WIDE
                                store(y, k, fma(a, load(moved, of + k), load(base_, at)))
                                store(
                                    y,
                                    k + 16,
                                    fma(a, load(moved, of + k + 16), load(base_, at + 16)),
                                )
                            _activate(activations[0], y, 0, J * WIDE)
                            up, down_, k = (
                                splat(amounts[p] * sigma),
                                splat(-amounts[p] * sigma),
                                first_rest,
                            )
                            if not signs:
                                for i in range(n_rest):
                                    d = peek(drawn_, (k + i) * T + t0 + t)
                                    all_effective[i] = (
                                        peek(w_, p * n_row + i) + amounts[p] * sigma * d
                                    )
                            for i in range(0, n_rest if signs else 0, 64):
                                word = _bits64(row, t * n_words, k + i)
                                for q in range(0, 64, 16):
                                    if i + q < n_rest:
                                        change = choose(bits16(word >> np.uint64(q)), up, down_)
                                        store(
                                            effective,
                                            i + q,
                                            add(load(w_, p * n_row + i + q), change),
                                        )
                            k, here, there = 0, 0, half
                            for layer in range(1, sizes.size - 1):
                                _product(
                                    effective, k, sizes[layer], sizes[layer + 1], y, here, there
                                )
                                here, there = there, here
                                _activate(activations[layer], y, here, sizes[layer + 1] * WIDE)
                                k += (sizes[layer] + 1) * sizes[layer + 1]
                            e0 = _errors(
                                error_kind, sizes[-1], y, here, WIDE, target_, tile, Sp, False
                            )
                            e1 = _errors(
                                error_kind,
                                sizes[-1],
                                y,
                                here + 16,
                                WIDE,
                                target_,
                                tile + 16,
                                Sp,
                                False,
                            )
                            if each.size:
                                store(each_, tile, e0)
                                store(each_, tile + 16, e1)
                        x0 = x1 = number(0.0)
                        if noise > np.float32(0.0):
                            x0, x1 = _noise(seed, trial, p, tile)
                        d0 = choose(p0, sub(_read(e0, x0, noise, step, top), r0), number(0.0))
                        d1 = choose(p1, sub(_read(e1, x1, noise, step, top), r1), number(0.0))
                        E[p * T + t0 + t] += total(add(d0, d1))
    keep(all_rows)
    keep(all_index)
    keep(all_tables)
    keep(all_moved)
    keep(all_y)
    keep(all_effective)


@compiled(**EXACT)
def _product_by_trials(D, of, stride, amount, w, at, n_in, n_out, x, start, S, begin):
    """x[begin + j S + s, trial] = b_j + sum_i W_ij x[start + i S + s, trial], with W = w[at:] +
    amount D; S is a multiple of four; an odd last row is followed by one that is spoiled, which the
    next vector of trials writes over.
    """
    for j in range(0, n_out, 2):
        for s in range(0, S, 4):
            k = n_in * n_out + j
            b = fma(amount, load(D, of + stride * k), splat(peek(w, at + k)))
            a0 = a1 = a2 = a3 = b
            b = fma(amount, load(D, of + stride * (k + 1)), splat(peek(w, at + k + 1)))
            b0 = b1 = b2 = b3 = b
            for i in range(n_in):
                k, p = i * n_out + j, LANES * (start + i * S + s)
                x0, x1, x2, x3 = load(x, p), load(x, p + 16), load(x, p + 32), load(x, p + 48)
                W = fma(amount, load(D, of + stride * k), splat(peek(w, at + k)))
                a0, a1, a2, a3 = fma(W, x0, a0), fma(W, x1, a1), fma(W, x2, a2), fma(W, x3, a3)
                W = fma(amount, load(D, of + stride * (k + 1)), splat(peek(w, at + k + 1)))
                b0, b1, b2, b3 = fma(W, x0, b0), fma(W, x1, b1), fma(W, x2, b2), fma(W, x3, b3)
            p = LANES * (begin + j * S + s)
            store(x, p, a0)
            store(x, p + 16, a1)
            store(x, p + 32, a2)
            store(x, p + 48, a3)
            p += LANES * S
            store(x, p, b0)
            store(x, p + 16, b1)
            store(x, p + 32, b2)
            store(x, p + 48, b3)


@compiled(**EXACT)
def _moved_by_trials(D, of, stride, n_in, n_out, x, S, out, begin):
    # as above, of the first layer: out = sum_i D_ij x[i, s], the inputs the same for all trials
    for j in range(0, n_out, 2):
        for s in range(0, S, 4):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = number(0.0)
            for i in range(n_in):
                k, p = of + stride * (i * n_out + j), i * S + s
                x0, x1, x2, x3 = (
                    splat(peek(x, p)),
                    splat(peek(x, p + 1)),
                    splat(peek(x, p + 2)),
                    splat(peek(x, p + 3)),
                )
                d = load(D, k)
                a0, a1, a2, a3 = fma(d, x0, a0), fma(d, x1, a1), fma(d, x2, a2), fma(d, x3, a3)
                d = load(D, k + stride)
                b0, b1, b2, b3 = fma(d, x0, b0), fma(d, x1, b1), fma(d, x2, b2), fma(d, x3, b3)
            p = LANES * (begin + j * S + s)
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
def _spread_signs(n, bits, stride, t0, D, of, v, with_v, s):
    # D[of + LANES i + lane] = +-1, and s[t0 + lane] = sum of v times that
    one, minus, sum_ = number(1.0), number(-1.0), number(0.0)
    for k in range((n + 63) // 64):
        a, b = load_u(bits, k * stride + t0), load_u(bits, k * stride + t0 + 8)
        for i in range(min(64, n - 64 * k)):
            d = choose(bit_of_each(a, b, i), one, minus)
            store(D, of + LANES * (64 * k + i), d)
            if with_v:
                sum_ = fma(d, splat(peek(v, 64 * k + i)), sum_)
    store(s, t0, sum_)


@compiled()
def _room_by_trials(sizes, Sp, signs):
    """Vectors of trials evaluated together and what they need: numbers for D, the first layer's
    changes, half the activities.
    """
    n, width = 0, 0
    for layer in range(sizes.size - 1):
        n += (sizes[layer] + 1) * sizes[layer + 1]
        width = max(width, sizes[layer + 1] + 1)
    # several, of tiny networks, so that there is always something to compute
    together = max(1, min(16, 4096 // (n * Sp)))
    D = LANES * (n + 2) * together if signs else 0
    return together, D, LANES * (sizes[1] + 1) * Sp * together, (width * together + 1) * Sp


@compiled()
def room_by_trials(sizes, Sp, signs):
    _, D, moved, half = _room_by_trials(sizes, Sp, signs)
    return D + moved + 2 * LANES * half


@compiled(**EXACT)
def errors_by_trials(
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
    sigma,
    seed,
    noise,
    step,
    top,
    start,
    bits,
    drawn,
    v,
    lo,
    hi,
    E,
    s,
    each,
    scratch,
):
    """As `errors_by_patterns`, the lanes being trials: also fills E, s of other trials of the
    vectors that lo..hi-1 lie in.

    drawn: if not empty, the perturbations themselves in units of sigma, drawn[i T + t] with T
    trials a block, and s is left alone.
    """
    Sp, n_in, J = ref.size, sizes[0] + 1, sizes[1]
    n_row, n_rest = w.shape[1], w.shape[1] - 64
    n = n_in * J + n_rest
    signs, T = drawn.size == 0, E.size // amounts.size
    together, of_D, of_moved, half = _room_by_trials(sizes, Sp, signs)
    stride, D_size = (LANES, LANES * (n + 2)) if signs else (T, LANES)
    all_D, all_moved, all_y = (
        scratch[:of_D],
        scratch[of_D : of_D + of_moved],
        scratch[of_D + of_moved :],
    )
    k0, k1 = seed & MASK, seed >> np.uint64(32)
    D, moved, y = pointer(all_D if signs else drawn), pointer(all_moved), pointer(all_y)
    x_, base_, w_, target_, ref_, bits_, v_, s_ = (
        pointer(x),
        pointer(base),
        pointer(w),
        pointer(target),
        pointer(ref),
        pointer(bits),
        pointer(v),
        pointer(s),
    )
    for t0 in range(lo // LANES * LANES, hi, LANES * together):
        several = min(together, (hi - t0 + LANES - 1) // LANES)
        D_start = 0 if signs else t0
        if signs:
            for m in range(several):
                _spread_signs(
                    n, bits_, T + SPARE, t0 + LANES * m, D, m * D_size, v_, v.size > 0, s_
                )
        for m in range(several):
            _moved_by_trials(D, D_start + m * D_size, stride, n_in, J, x_, Sp, moved, m * J * Sp)
        here = 0
        for p in range(amounts.size):
            if unperturbed[p]:
                if noise == np.float32(0.0) and step == np.float32(0.0):
                    continue
            else:
                a, units, here, there = splat(amounts[p]), J, 0, half
                for m in range(several):
                    of = m * units * Sp
                    for k in range(J * Sp):
                        change = load(moved, LANES * (of + k))
                        store(
                            y, LANES * (of + k), fma(a, change, splat(peek(base_, p * J * Sp + k)))
                        )
                _activate(activations[0], y, 0, LANES * several * units * Sp)
                k, a = 0, splat(amounts[p] * sigma)
                for layer in range(1, sizes.size - 1):
                    n_out = sizes[layer + 1]
                    for m in range(several):
                        _product_by_trials(
                            D,
                            D_start + m * D_size + (n_in * J + k) * stride,
                            stride,
                            a,
                            w_,
                            p * n_row + k,
                            sizes[layer],
                            n_out,
                            y,
                            here + m * units * Sp,
                            Sp,
                            there + m * n_out * Sp,
                        )
                    here, there, units = there, here, n_out
                    _activate(activations[layer], y, LANES * here, LANES * several * units * Sp)
                    k += (sizes[layer] + 1) * n_out
            for m in range(several):
                of = here + m * sizes[-1] * Sp
                sums = _sum_of_errors(
                    error_kind,
                    sizes[-1],
                    y,
                    of,
                    target_,
                    ref_,
                    S,
                    Sp,
                    unperturbed[p],
                    k0,
                    k1,
                    noise,
                    step,
                    top,
                    np.uint64(start + t0 + LANES * m),
                    p,
                    pointer(each),
                    each.size > 0,
                )
                store(E, p * T + t0 + LANES * m, sums)
    keep(all_D)
    keep(all_moved)
    keep(all_y)


@compiled(forceinline=True, **EXACT)
def _sum_of_errors(
    error_kind,
    n_out,
    y,
    of,
    target,
    ref,
    S,
    Sp,
    unperturbed,
    k0,
    k1,
    noise,
    step,
    top,
    trial,
    phase,
    each,
    has_each,
):
    sums = x0 = x1 = x2 = x3 = number(0.0)
    for s in range(0, S, 4):
        if noise > np.float32(0.0):
            low, high = trial & MASK, splat_u(trial >> np.uint64(32))
            stream = splat_u(np.uint64(NOISE) + (np.uint64(phase) << np.uint64(8)))
            counter = splat_u(np.uint64(s // 4))
            wa0, wb0, wc0, wd0 = philox8(
                add_u(splat_u(low), iota_u()), high, counter, stream, k0, k1
            )
            wa1, wb1, wc1, wd1 = philox8(
                add_u(splat_u(low | np.uint64(8)), iota_u()), high, counter, stream, k0, k1
            )
            x0, x1 = normal_pairs(wa0, wa1, wb0, wb1)
            x2, x3 = normal_pairs(wc0, wc1, wd0, wd1)
        for q in range(min(4, S - s)):
            e = r = splat(peek(ref, s + q))
            if not unperturbed:
                e = _errors(
                    error_kind, n_out, y, LANES * (of + s + q), LANES * Sp, target, s + q, Sp, True
                )
                if has_each:  # all lanes are the same
                    store(each, s + q, e)
            xi = x0 if q == 0 else (x1 if q == 1 else (x2 if q == 2 else x3))
            sums = add(sums, sub(_read(e, xi, noise, step, top), r))
    return sums
