"""Float32 errors of a block of trials where the lanes are trials: of few patterns."""

from typing import Any, NamedTuple

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.activations import activate32, errors32
from perturb.kernels.float32_draws import SPARE
from perturb.kernels.float32_functions import number
from perturb.kernels.float32_readout import read32, trial_noise
from perturb.kernels.simd import (
    EXACT,
    LANES,
    add,
    bit_of_each,
    choose,
    fma,
    keep,
    load,
    load_u,
    peek,
    pointer,
    splat,
    store,
    sub,
)


class _Numbers(NamedTuple):
    """n_in: inputs, and one for the bias; J: units of the first layer; n: weights, n_rest of them
    of the other layers; S: patterns, Sp with those that fill up; T: trials of a block; n_v: whether
    s is needed. together: vectors of trials that are evaluated together, each with `size` numbers
    of D, `stride` from weight to weight; half: vectors of the activities of a layer.
    """

    n_layers: int
    n_in: int
    J: int
    n_out: int
    n: int
    n_rest: int
    error: int
    S: int
    Sp: int
    T: int
    seed: np.uint64
    sigma: np.float32
    signs: bool
    with_s: bool
    with_each: bool
    together: int
    size: int
    stride: int
    half: int


class _Pointers(NamedTuple):
    """To the arrays of `Trials`, `Perturbations` and `Errors`, and to D, what it adds to the first
    layer's net inputs, and activities.
    """

    sizes: Any
    activations: Any
    x: Any
    target: Any
    at_rest: Any
    base: Any
    rest: Any
    a: Any
    v: Any
    bits: Any
    s: Any
    each: Any
    D: Any
    moved: Any
    y: Any


@compiled(forceinline=True)
def _store_four(x, i, a0, a1, a2, a3):
    store(x, i, a0)
    store(x, i + 16, a1)
    store(x, i + 32, a2)
    store(x, i + 48, a3)


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
            _store_four(x, p, a0, a1, a2, a3)
            p += LANES * S
            _store_four(x, p, b0, b1, b2, b3)


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
            _store_four(out, p, a0, a1, a2, a3)
            p += LANES * S
            _store_four(out, p, b0, b1, b2, b3)


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
        # units come in pairs: an odd last one is followed by a row that is spoiled
        width = max(width, sizes[layer + 1] + 1)
    # several, of tiny networks, so that there is always something to compute
    together = max(1, min(16, 4096 // (n * Sp)))
    # and the weights of that spoiled row are read, beyond the n-th
    D = LANES * (n + 2) * together if signs else 0
    return together, D, LANES * (sizes[1] + 1) * Sp * together, (width * together + 1) * Sp


@compiled()
def room_by_trials(sizes, Sp, signs):
    _, D, moved, half = _room_by_trials(sizes, Sp, signs)
    return D + moved + 2 * LANES * half


@compiled(forceinline=True, **EXACT)
def _outputs(of, at, p, several, D):
    """Activities of all layers in phase p of several vectors of trials, whose perturbations begin
    at D; where in y those of the outputs are.
    """
    a, units, here, there = peek(at.a, p), of.J, 0, of.half
    size = of.J * of.Sp
    for m in range(several):
        for k in range(size):
            # a XD on top of w + br v; `moved` and y are laid out alike
            y, base = LANES * (m * size + k), splat(peek(at.base, p * size + k))
            store(at.y, y, fma(splat(a), load(at.moved, y), base))
    activate32(peek(at.activations, 0), at.y, 0, LANES * several * units * of.Sp)
    # D is in units of sigma; k: where a layer's weights begin behind those of the first
    k, amount = 0, splat(a * of.sigma)
    for layer in range(1, of.n_layers):
        n_in, n_out = units, peek(at.sizes, layer + 1)
        for m in range(several):
            _product_by_trials(
                at.D,
                D + m * of.size + (of.n_in * of.J + k) * of.stride,
                of.stride,
                amount,
                at.rest,
                p * (of.n_rest + 64) + k,
                n_in,
                n_out,
                at.y,
                here + m * n_in * of.Sp,
                of.Sp,
                there + m * n_out * of.Sp,
            )
        here, there, units = there, here, n_out
        activate32(peek(at.activations, layer), at.y, LANES * here, LANES * several * units * of.Sp)
        k += (n_in + 1) * n_out
    return here


@compiled(forceinline=True, **EXACT)
def _sum_of_errors(of, at, readout, here, unperturbed, trial, phase):
    """Sums over patterns of the error in sixteen trials, less that at w, from outputs y[here:]."""
    noise, step, top = readout
    sums = x0 = x1 = x2 = x3 = number(0.0)
    for s in range(0, of.S, 4):
        if noise > np.float32(0.0):
            x0, x1, x2, x3 = trial_noise(of.seed, trial, phase, s)
        for q in range(min(4, of.S - s)):
            e = r = splat(peek(at.at_rest, s + q))
            if not unperturbed:
                y, Sp = LANES * (here + s + q), of.Sp
                e = errors32(of.error, of.n_out, at.y, y, LANES * Sp, at.target, s + q, Sp, True)
                if of.with_each:  # all lanes are the same
                    store(at.each, s + q, e)
            xi = x0 if q == 0 else (x1 if q == 1 else (x2 if q == 2 else x3))
            # less E(w) of the same pattern, before any sum
            sums = add(sums, sub(read32(e, xi, noise, step, top), r))
    return sums


@compiled(**EXACT)
def _numbers(trials, perturbations, errors):
    sizes, J, Sp, n = trials.network.sizes, trials.network.sizes[1], trials.patterns.at_rest.size, 0
    for layer in range(sizes.size - 1):
        n += (sizes[layer] + 1) * sizes[layer + 1]
    signs, T = perturbations.values.size == 0, errors.E.size // trials.phases.a.size
    together, _, _, half = _room_by_trials(sizes, Sp, signs)
    return _Numbers(
        sizes.size - 1,
        sizes[0] + 1,
        J,
        sizes[-1],
        n,
        trials.points.rest.shape[1] - 64,
        trials.network.error,
        trials.patterns.S,
        Sp,
        T,
        trials.draws.seed,
        np.float32(trials.draws.sigma),
        signs,
        trials.regressor.v.size > 0,
        errors.each.size > 0,
        together,
        LANES * (n + 2) if signs else LANES,
        LANES if signs else T,
        half,
    )


@compiled()
def _pointers(trials, perturbations, errors, scratch):
    network, patterns, points, phases, _, _, regressor = trials
    signs = perturbations.values.size == 0
    _, of_D, of_moved, _ = _room_by_trials(network.sizes, patterns.at_rest.size, signs)
    return _Pointers(
        pointer(network.sizes),
        pointer(network.activations),
        pointer(patterns.x),
        pointer(patterns.target),
        pointer(patterns.at_rest),
        pointer(points.base),
        pointer(points.rest),
        pointer(phases.a),
        pointer(regressor.v),
        pointer(perturbations.bits),
        pointer(errors.s),
        pointer(errors.each),
        pointer(scratch if signs else perturbations.values),
        pointer(scratch[of_D:]),
        pointer(scratch[of_D + of_moved :]),
    )


@compiled(**EXACT)
def errors_by_trials(trials, block, perturbations, errors, scratch):
    """As `errors_by_patterns`, the lanes being trials: also fills E, s of other trials of the
    vectors that lo..hi-1 lie in.
    """
    of, readout = _numbers(trials, perturbations, errors), trials.readout
    at = _pointers(trials, perturbations, errors, scratch)
    (start, lo, hi), E, unperturbed = block, errors.E, trials.phases.unperturbed
    # then a phase at w differs from E(w) by nothing
    quiet = readout.noise == np.float32(0.0) and readout.step == np.float32(0.0)
    # from a multiple of sixteen: vectors of trials are whole
    for t0 in range(lo // LANES * LANES, hi, LANES * of.together):
        several = min(of.together, (hi - t0 + LANES - 1) // LANES)
        # signs are spread into a room of their own; numbers are read where the trials lie
        D = 0 if of.signs else t0
        if of.signs:
            for m in range(several):
                t = t0 + LANES * m
                _spread_signs(
                    of.n, at.bits, of.T + SPARE, t, at.D, m * of.size, at.v, of.with_s, at.s
                )
        for m in range(several):
            of_D, goal = D + m * of.size, m * of.J * of.Sp
            _moved_by_trials(at.D, of_D, of.stride, of.n_in, of.J, at.x, of.Sp, at.moved, goal)
        here = 0
        for p in range(unperturbed.size):
            if not unperturbed[p]:
                here = _outputs(of, at, p, several, D)
            elif quiet:
                continue
            for m in range(several):
                t, outputs = t0 + LANES * m, here + m * of.n_out * of.Sp
                trial = np.uint64(start + t)
                sums = _sum_of_errors(of, at, readout, outputs, unperturbed[p], trial, p)
                store(E, p * of.T + t, sums)
    keep(scratch)
