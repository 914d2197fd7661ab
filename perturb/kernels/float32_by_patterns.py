"""Float32 errors of a block of trials where the lanes are patterns.

Signs stay bits. X(W + aD + brV) = XW + a XD + br XV, and XD is put together from look-ups: for
every four inputs a table of the 16 sums +-x1 +-x2 +-x3 +-x4 of 32 patterns, indexed by the random
bits themselves. Other perturbations are numbers.
"""

from typing import Any, NamedTuple

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.activations import activate32, errors32
from perturb.kernels.float32_draws import ONE, SPARE
from perturb.kernels.float32_functions import number
from perturb.kernels.float32_readout import pattern_noise, read32
from perturb.kernels.simd import (
    EXACT,
    add,
    aligned,
    bits16,
    choose,
    fma,
    from_bits64,
    greater,
    keep,
    load,
    or_u,
    peek,
    pointer,
    splat,
    store,
    sub,
    total,
)

WIDE = 32  # patterns of a look-up
PAGE = 1024  # float32 of a page of memory
TILE = 16  # groups of four inputs whose tables (2 KB each) stay in the first-level cache


class _Numbers(NamedTuple):
    """n_in: inputs, and one for the bias; J: units of the first layer; n_rest: weights of the
    others. Sp: patterns; T: trials of a block; n_words: 64-bit words of a trial's bits, and one.
    groups of four inputs; J filled up to `padded`; chunk: trials whose indices are made together,
    `together`: whose first layer is moved together, tile_groups: groups whose tables are used
    together; half: room for the activities of a layer.
    """

    n_layers: int
    n_in: int
    J: int
    n_out: int
    n_rest: int
    error: int
    Sp: int
    T: int
    P: int
    seed: np.uint64
    sigma: np.float32
    signs: bool
    with_each: bool
    n_words: int
    groups: int
    padded: int
    chunk: int
    together: int
    tile_groups: int
    half: int


class _Room(NamedTuple):
    """What trials need on the way: their bits, and indices of these into tables; tables; net inputs
    that D makes; activities; weights of the other layers.
    """

    rows: np.ndarray
    indices: np.ndarray
    tables: np.ndarray
    moved: np.ndarray
    y: np.ndarray
    effective: np.ndarray


class _Pointers(NamedTuple):
    """To the arrays of `Trials`, `Perturbations`, `Errors` and `_Room`."""

    sizes: Any
    activations: Any
    x: Any
    target: Any
    at_rest: Any
    present: Any
    base: Any
    rest: Any
    a: Any
    unperturbed: Any
    v: Any
    bits: Any
    values: Any
    E: Any
    s: Any
    each: Any
    rows: Any
    indices: Any
    tables: Any
    moved: Any
    y: Any
    effective: Any


@compiled(forceinline=True)
def _bits64(row, start, bit):
    """Sixty-four bits of row[start:] from `bit` on."""
    word, shift = start + (bit >> 6), np.uint64(bit & 63)
    # the second word is shifted in two steps, so that a shift by 64 gives 0
    return (peek(row, word) >> shift) | ((peek(row, word + 1) << ONE) << (np.uint64(63) - shift))


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
            # 64 at once: what lies beyond `padded` the next group writes over
            store(index, at + g * padded + j, chosen)


@compiled(**EXACT)
def _signs_dot(row, start, v, words):
    # sum of v times the signs; v is filled up with zeros to a multiple of 64
    # four sums, whose additions need not wait for each other
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
def _prepare(of, at, t0, count, n_v):
    """Of trials t0 .. t0 + count - 1: the bits of each in a row, indices into tables, and s."""
    # from a row for every word to a row for every trial
    for k in range(of.n_words - 1):
        for t in range(count):
            store(at.rows, t * of.n_words + k, peek(at.bits, k * (of.T + SPARE) + t0 + t))
    for t in range(count):
        row, start = t * of.n_words, t * of.groups * of.padded
        _indices(at.rows, row, of.n_in, of.J, of.padded, at.indices, start)
        store(at.s, t0 + t, _signs_dot(at.rows, row, at.v, n_v))


@compiled(forceinline=True)
def _four(x, i):
    return load(x, i), load(x, i + 16), load(x, i + 32), load(x, i + 48)


@compiled(forceinline=True)
def _store_pair(x, i, a, b):
    store(x, i, a)
    store(x, i + 16, b)


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
            a0, a1, b0, b1 = _four(moved, out)
            c0, c1, d0, d1 = _four(moved, out + 64)
        for g in range(first, last):
            of, i = 16 * WIDE * g, at + g * padded + j
            # an entry is WIDE long and an index is 16 b: WIDE / 16 times it
            p = of + WIDE // 16 * np.int64(peek(index, i))
            a0, a1 = add(a0, load(tables, p)), add(a1, load(tables, p + 16))
            p = of + WIDE // 16 * np.int64(peek(index, i + 1))
            b0, b1 = add(b0, load(tables, p)), add(b1, load(tables, p + 16))
            p = of + WIDE // 16 * np.int64(peek(index, i + 2))
            c0, c1 = add(c0, load(tables, p)), add(c1, load(tables, p + 16))
            p = of + WIDE // 16 * np.int64(peek(index, i + 3))
            d0, d1 = add(d0, load(tables, p)), add(d1, load(tables, p + 16))
        _store_pair(moved, out, a0, a1)
        _store_pair(moved, out + 32, b0, b1)
        _store_pair(moved, out + 64, c0, c1)
        _store_pair(moved, out + 96, d0, d1)


@compiled(**EXACT)
def _products8(D, t, T, n_in, n_out, x, tile, Sp, moved, size):
    """moved[q size + j WIDE + lane] = sum_i D[i n_out + j, t + q] x[i, tile + lane], for eight
    trials q.
    """
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
        out = j * WIDE
        _store_pair(moved, out, a0, a1)
        _store_pair(moved, out + size, b0, b1)
        _store_pair(moved, out + 2 * size, c0, c1)
        _store_pair(moved, out + 3 * size, d0, d1)
        _store_pair(moved, out + 4 * size, e0, e1)
        _store_pair(moved, out + 5 * size, f0, f1)
        _store_pair(moved, out + 6 * size, g0, g1)
        _store_pair(moved, out + 7 * size, h0, h1)


@compiled(**EXACT)
def product32(effective, at, n_in, n_out, x, start, begin):
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
        _store_pair(x, out, a0, a1)
        _store_pair(x, out + 32, b0, b1)
        _store_pair(x, out + 64, c0, c1)
        _store_pair(x, out + 96, d0, d1)


@compiled(forceinline=True, **EXACT)
def _move(of, at, p, tile, t, row, moved):
    """y, effective: activities of the first layer, and weights of the others, at the point of phase
    p of trial t, whose bits begin at `row`, and what D adds to the first layer at `moved`.
    """
    # first: of the other layers' weights among all, as bits are numbered; start: theirs in `rest`
    a, first, start = peek(at.a, p), of.n_in * of.J, p * (of.n_rest + 64)
    # w + br v is in `base`; X in units of sigma has made `moved` of D
    for j in range(of.J):
        base, k = (p * of.J + j) * of.Sp + tile, j * WIDE
        store(at.y, k, fma(splat(a), load(at.moved, moved + k), load(at.base, base)))
        k += 16
        store(at.y, k, fma(splat(a), load(at.moved, moved + k), load(at.base, base + 16)))
    activate32(peek(at.activations, 0), at.y, 0, of.J * WIDE)
    if of.signs:
        # a D of a sign is +-a sigma, which its bit chooses
        up, down = splat(a * of.sigma), splat(-a * of.sigma)
        for i in range(0, of.n_rest, 64):
            word = _bits64(at.rows, row, first + i)
            for q in range(0, 64, 16):
                if i + q < of.n_rest:
                    change = choose(bits16(word >> np.uint64(q)), up, down)
                    store(at.effective, i + q, add(load(at.rest, start + i + q), change))
    else:
        for i in range(of.n_rest):
            d = peek(at.values, (first + i) * of.T + t)
            store(at.effective, i, peek(at.rest, start + i) + a * of.sigma * d)


@compiled(**EXACT)
def _outputs(sizes, activations, n_layers, half, y, effective):
    """Activities of all layers from the first's; where in y those of the outputs are."""
    n_in, k, here, there = peek(sizes, 1), 0, 0, half
    for layer in range(1, n_layers):
        n_out = peek(sizes, layer + 1)
        product32(effective, k, n_in, n_out, y, here, there)
        here, there = there, here
        activate32(peek(activations, layer), y, here, n_out * WIDE)
        k += (n_in + 1) * n_out
        n_in = n_out
    return here


@compiled(forceinline=True, **EXACT)
def _errors_of(of, at, here, tile):
    return errors32(of.error, of.n_out, at.y, here, WIDE, at.target, tile, of.Sp, False)


@compiled(forceinline=True, **EXACT)
def _add_errors(of, at, readout, tile, t, trial, row, moved):
    """Add the errors of a tile of patterns in trial t of the block, see `_move`, to E."""
    noise, step, top = readout
    r0, r1, zero, half = (
        load(at.at_rest, tile),
        load(at.at_rest, tile + 16),
        number(0.0),
        number(0.5),
    )
    p0, p1 = greater(load(at.present, tile), half), greater(load(at.present, tile + 16), half)
    for p in range(of.P):
        e0, e1 = r0, r1
        if peek(at.unperturbed, p):
            # E(w) as it is would add 0; as it is read it adds noise
            if noise == np.float32(0.0) and step == np.float32(0.0):
                continue
        else:
            _move(of, at, p, tile, t, row, moved)
            here = _outputs(at.sizes, at.activations, of.n_layers, of.half, at.y, at.effective)
            e0, e1 = _errors_of(of, at, here, tile), _errors_of(of, at, here + 16, tile + 16)
            if of.with_each:
                store(at.each, tile, e0)
                store(at.each, tile + 16, e1)
        x0 = x1 = zero
        if noise > np.float32(0.0):
            x0, x1 = pattern_noise(of.seed, trial, p, tile)
        # less E(w) of the same pattern, before any sum; lanes that fill up count nothing
        d0 = choose(p0, sub(read32(e0, x0, noise, step, top), r0), zero)
        d1 = choose(p1, sub(read32(e1, x1, noise, step, top), r1), zero)
        k = p * of.T + t
        store(at.E, k, peek(at.E, k) + total(add(d0, d1)))


@compiled(**EXACT)
def _numbers(trials, perturbations, errors):
    sizes, phases = trials.network.sizes, trials.phases
    n_in, J, P, width = sizes[0] + 1, sizes[1], phases.a.size, 0
    # `product32` writes four rows at a time: up to three more than a layer has units
    for units in sizes[1:]:
        width = max(width, units + 3)
    padded, groups = (J + 3) // 4 * 4, (n_in + 3) // 4
    T, signs = errors.E.size // P, perturbations.values.size == 0
    chunk = min(T, 256) if groups * padded <= 1024 else max(4, min(T, 1024 // padded))
    # few tables stay in the cache all together; many do so in tiles, each used for many trials
    together, tile_groups = (1, groups) if groups <= TILE + TILE // 4 else (chunk, TILE)
    # numbers need no tables, and `_products8` takes eight trials at a time
    if not signs:
        chunk, together, groups = T, 8, 0
    return _Numbers(
        sizes.size - 1,
        n_in,
        J,
        sizes[-1],
        trials.points.rest.shape[1] - 64,
        trials.network.error,
        trials.patterns.at_rest.size,
        T,
        P,
        trials.draws.seed,
        np.float32(trials.draws.sigma),
        signs,
        errors.each.size > 0,
        perturbations.bits.size // (T + SPARE) + 1,
        groups,
        padded,
        chunk,
        together,
        tile_groups,
        width * WIDE,
    )


@compiled()
def _room_of(of):
    # y lies half a page off `moved`: a load that shares its place in a page with a store just
    # before it waits for that
    size = of.together * of.padded * WIDE
    start = size + (PAGE // 2 - size) % PAGE
    both = aligned(start + 2 * of.half)
    room = _Room(
        np.zeros(of.chunk * of.n_words, np.uint64),
        np.empty(of.chunk * of.groups * of.padded + 64, np.uint8),
        aligned(of.groups * 16 * WIDE),
        both[:size],
        both[start:],
        aligned(of.n_rest + 64),
    )
    room.y[:], room.effective[:] = np.float32(0.0), np.float32(0.0)
    return room


@compiled()
def _pointers(trials, perturbations, errors, room):
    network, patterns, points, phases, _, _, regressor = trials
    return _Pointers(
        pointer(network.sizes),
        pointer(network.activations),
        pointer(patterns.x),
        pointer(patterns.target),
        pointer(patterns.at_rest),
        pointer(patterns.present),
        pointer(points.base),
        pointer(points.rest),
        pointer(phases.a),
        pointer(phases.unperturbed),
        pointer(regressor.v),
        pointer(perturbations.bits),
        pointer(perturbations.values),
        pointer(errors.E),
        pointer(errors.s),
        pointer(errors.each),
        pointer(room.rows),
        pointer(room.indices),
        pointer(room.tables),
        pointer(room.moved),
        pointer(room.y),
        pointer(room.effective),
    )


@compiled(**EXACT)
def errors_by_patterns(trials, block, perturbations, errors):
    """Add to errors.E, trials lo..hi-1 of the block; fills errors.s there, if perturbations are
    signs.
    """
    of, readout = _numbers(trials, perturbations, errors), trials.readout
    room = _room_of(of)
    at = _pointers(trials, perturbations, errors, room)
    start, lo, hi = block
    size = of.padded * WIDE  # of what D adds in one trial
    # `_products8` begins at a multiple of eight
    lo = lo if of.signs else lo // 8 * 8
    for t0 in range(lo, hi, of.chunk):
        count = min(of.chunk, hi - t0)
        if of.signs:
            _prepare(of, at, t0, count, trials.regressor.v.size // 64)
        for tile in range(0, of.Sp, WIDE):
            # made once for all trials of the chunk
            _tables(at.x, tile, of.Sp, of.groups, at.tables)
            for begin in range(0, count, of.together):
                end = min(begin + of.together, count)
                for g in range(0, of.groups, of.tile_groups):
                    last = min(g + of.tile_groups, of.groups)
                    for t in range(begin, end):
                        index, moved = t * of.groups * of.padded, (t - begin) * size
                        _look_up(at.tables, g, last, at.indices, index, of.padded, at.moved, moved)
                if not of.signs:
                    t = t0 + begin
                    _products8(at.values, t, of.T, of.n_in, of.J, at.x, tile, of.Sp, at.moved, size)
                for t in range(begin, end):
                    moved, trial = (t - begin) * size, np.uint64(start + t0 + t)
                    _add_errors(of, at, readout, tile, t0 + t, trial, t * of.n_words, moved)
    keep(room)
