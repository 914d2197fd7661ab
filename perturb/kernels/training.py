"""Kernels of learning: an MLP whose weights change after every few trials, or by exact gradients,
from record to record.

Of trials, only the evaluations of E are float32, and dE is taken pattern by pattern, so that
nothing cancels; the weights themselves are float64. The lanes are patterns. `training.loop`
does the same update by update, for any objective and in float64.
"""

from typing import NamedTuple

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.activations import (
    activate32,
    activate_with_slopes,
    errors32,
    output_errors,
)
from perturb.kernels.float32_by_patterns import WIDE, product32
from perturb.kernels.float32_draws import SPARE, draw_signs
from perturb.kernels.float32_functions import number
from perturb.kernels.float32_readout import pattern_noise, read32
from perturb.kernels.float64 import product
from perturb.kernels.simd import (
    EXACT,
    add,
    aligned,
    choose,
    greater,
    keep,
    load,
    pointer,
    sub,
    total,
)
from perturb.trial.random import perturbation

DRAWN = 32  # trials whose signs are drawn together
PLAIN, MOMENTUM, SIGN, KEEP = range(4)  # rules


@compiled(**EXACT)
def change_by_rule(rule, eta, mu, w, m, g, D, dE):
    """w := w + change, and the momentum m; see `training.rules.RULES`."""
    if rule == PLAIN:
        for i in range(w.size):
            w[i] -= eta * g[i]
    elif rule == MOMENTUM:
        for i in range(w.size):
            m[i] = mu * m[i] + g[i]
            w[i] -= eta * m[i]
    elif rule == SIGN:
        for i in range(w.size):
            w[i] -= eta * np.sign(g[i])
    elif dE < 0.0:
        for i in range(w.size):
            w[i] += eta * D[i]


@compiled()
def draw_runs(kind, seeds, number, sigma, period, taps, D):
    """D[r]: the perturbations of run r, whose seed is seeds[r]."""
    for run in range(D.shape[0]):
        perturbation(kind, seeds[run], number, sigma, period, taps, 0, D[run])


@compiled(**EXACT)
def _signs_of(bits, t, sigma, D):
    # D is filled up to a multiple of 64
    for k in range(D.size // 64):
        word, part = bits[k * (DRAWN + SPARE) + t], D[64 * k : 64 * k + 64]
        for i in range(64):
            part[i] = sigma if (word >> np.uint64(i)) & np.uint64(1) else -sigma


@compiled(**EXACT)
def _show(X, rows, length, shown):
    # patterns `rows` of X, a pattern a lane, in tiles of WIDE; lanes beyond are left 0. Sixteen
    # inputs at a time: reads stay in lines
    for tile in range(0, rows.size, WIDE):
        y = shown[tile // WIDE * length :]
        for first in range(0, X.shape[1], 16):
            last = min(first + 16, X.shape[1])
            for lane in range(min(WIDE, rows.size - tile)):
                row = rows[tile + lane]
                for i in range(first, last):
                    y[i * WIDE + lane] = X[row, i]


@compiled(**EXACT)
def shorten_and_average(longest, average_from, done, before, w, mean):
    """Shorten the change of the weights `before` to w, and take their mean, see
    `training.rules.wanted_change` and `training.loop.average`; done: updates so far.
    """
    if longest > 0.0:
        square = 0.0
        for i in range(w.size):
            square += (w[i] - before[i]) ** 2
        if square > longest * longest:
            for i in range(w.size):
                w[i] = before[i] + longest * ((w[i] - before[i]) / square**0.5)
        before[:] = w
    if average_from > 0:
        share = 1.0 / max(1, done - average_from + 1)
        for i in range(w.size):
            mean[i] += share * (w[i] - mean[i])


class Network(NamedTuple):
    """A network and its data: X (S, inputs), target (S, outputs)."""

    sizes: np.ndarray
    activations: np.ndarray
    error_kind: int
    X: np.ndarray
    target: np.ndarray


class Held(NamedTuple):
    """Of a run that learns some of the weights: all of them (N,), and the numbers of those that it
    learns (n,); both empty if it learns all.
    """

    w: np.ndarray
    free: np.ndarray


class Perturbing(NamedTuple):
    """How a run perturbs. gain, offset (n,): of the perturbations as they are applied, see
    `engine.Mismatch`. every: trials for which one stands.
    """

    code: int
    period: int
    taps: int
    seed: np.uint64
    gain: np.ndarray
    offset: np.ndarray
    every: int


class Broadcast(NamedTuple):
    """How dE is made: a of each phase, how its E enters dE, 1 for phases read without noise; noise
    and converter of a reading.
    """

    amounts: np.ndarray
    weights: np.ndarray
    free: np.ndarray
    noise: np.float32
    step: np.float32
    top: np.float32


class Updates(NamedTuple):
    """The updates to do: those from `first` on, of `every` trials each, with the rate and the
    amplitude of each; the longest change, or 0; the update from which on the mean of the weights is
    taken, or 0.
    """

    rule: int
    mu: float
    every: int
    first: int
    rates: np.ndarray
    sigmas: np.ndarray
    longest: float
    average_from: int


@compiled(**EXACT)
def _rooms(sizes, B, weights):
    """Lengths of the parts of y and of the targets of a tile; and y, the inputs and targets of all
    tiles, weights of every phase, and 1 where a lane has a pattern.
    """
    tiles, width = (B + WIDE - 1) // WIDE, 0
    for units in sizes[1:]:
        # `product32` writes four rows at a time: up to three more than a layer has units
        width = max(width, units + 3)
    room, half, goal = (sizes[0] + 3) * WIDE, width * WIDE, (sizes[-1] + 3) * WIDE
    y, x, target = aligned(room + 2 * half), aligned(tiles * room), aligned(tiles * goal)
    effective, lanes = aligned(weights), aligned(tiles * WIDE)
    # lanes without a pattern compute with zeros, so that what is dropped of them is finite
    for array in (y, x, target, effective, lanes):
        array[:] = np.float32(0.0)
    lanes[:B] = np.float32(1.0)
    return room, half, goal, y, x, target, effective, lanes


@compiled(**EXACT)
def _displace(w, a, gain, D, offset, places, effective):
    # to their places among all weights, or without places as they are
    if places.size:
        for i in range(w.size):
            applied = a * gain[i] * D[i] + (offset[i] if a != 0.0 else 0.0)
            effective[places[i]] = np.float32(w[i] + applied)
    else:
        for i in range(w.size):
            applied = a * gain[i] * D[i] + (offset[i] if a != 0.0 else 0.0)
            effective[i] = np.float32(w[i] + applied)


# of `learn`: kinds 0 and 3, rademacher and walsh, are signs, drawn in whole words of 64, of which D
# is a view. Phases lie 64 numbers more than there are weights apart, since `product32` reads biases
# by fours, beyond the last weight. w + a D is summed in float64 and rounded once. Layers write to
# the two halves behind the inputs in turn. Errors are less those of phase 0, pattern by pattern,
# since the weights of the phases add up to 0; free phases are read without noise and converter.
# g^ = <dE D>/sigma^2
@compiled(nogil=True, **EXACT)
def learn(network, held, rows, sample_every, perturbing, broadcast, updates, w, m, mean):
    """The updates of one run, changing w, m and mean; returns the first trial whose error is not
    finite, or -1.

    held: of a run that learns some of the weights. rows (presentations, B): the patterns of each
    presentation from that of the first trial on, each shown for `sample_every` trials.
    """
    # fields are read once: each reading of an array from a tuple counts a reference
    sizes, activations, error_kind, X, target = network
    code, period, taps, seed, gain, offset, perturb_every = perturbing
    amounts, weights, free, noise, step, top = broadcast
    rule, mu, every, begun, rates, sigmas, longest, average_from = updates
    beside, before = longest > 0.0 or average_from > 0, w.copy()
    n, B, P, first = w.size, rows.shape[1], amounts.size, begun * every
    apart = max(n, held.w.size) + 64
    room, half, goal, all_y, all_x, all_t, effective, lanes = _rooms(sizes, B, P * apart)
    # of every phase: those that are held stay; the others are written over
    effective[: P * apart].reshape(P, apart)[:, : held.w.size] = held.w
    tiles, y, eff, n_out = lanes.size // WIDE, pointer(all_y), pointer(effective), sizes[-1]
    tgt, present = pointer(all_t), pointer(lanes)
    drawn, g, E = np.zeros((n + 63) // 64 * 64), np.zeros(n), np.zeros(P)
    D, signs, sigma = drawn[:n], code == 0 or code == 3, 0.0
    drawn_from, shown, now = np.int64(-1), np.int64(-1), np.int64(-1)
    bits = np.empty(2 * ((n + 127) // 128) * (DRAWN + SPARE), np.uint64)
    for trial in range(first, first + rates.size * every):
        number_ = trial // perturb_every
        if number_ != now or sigmas[trial // every - begun] != sigma:  # perturb
            now, sigma = number_, sigmas[trial // every - begun]
            if not signs:
                perturbation(code, seed, now, sigma, period, taps, 0, D)
            else:
                if now // DRAWN != drawn_from:
                    drawn_from = now // DRAWN
                    draw_signs(code, seed, drawn_from * DRAWN, period, n, DRAWN, bits)
                _signs_of(bits, now % DRAWN, sigma, drawn)
        if trial // sample_every != shown:
            shown = trial // sample_every
            here = rows[shown - first // sample_every]
            _show(X, here, room, all_x)
            _show(target, here, goal, all_t)

        for p in range(P):  # measure: E of every phase, less that of the first
            _displace(w, amounts[p], gain, D, offset, held.free, effective[p * apart :])
        E[:] = 0.0
        for tile in range(tiles):
            all_y[:room] = all_x[tile * room : (tile + 1) * room]
            p0 = greater(load(present, tile * WIDE), number(0.5))
            p1 = greater(load(present, tile * WIDE + 16), number(0.5))
            r0 = r1 = number(0.0)
            for p in range(P):
                k, source, to, t = p * apart, 0, room, tile * goal
                for layer in range(sizes.size - 1):
                    product32(eff, k, sizes[layer], sizes[layer + 1], y, source, to)
                    activate32(activations[layer], y, to, sizes[layer + 1] * WIDE)
                    k += (sizes[layer] + 1) * sizes[layer + 1]
                    source, to = to, (2 * room + half - to if layer else room + half)
                e0 = errors32(error_kind, n_out, y, source, WIDE, tgt, t, WIDE, False)
                e1 = errors32(error_kind, n_out, y, source + 16, WIDE, tgt, t + 16, WIDE, False)
                std, q = (np.float32(0.0), np.float32(0.0)) if free[p] else (noise, step)
                x0 = x1 = number(0.0)
                if std > np.float32(0.0):
                    x0, x1 = pattern_noise(seed, np.uint64(trial), p, tile * WIDE)
                e0, e1 = read32(e0, x0, std, q, top), read32(e1, x1, std, q, top)
                if p == 0:
                    r0, r1 = e0, e1
                else:
                    d0 = choose(p0, sub(e0, r0), number(0.0))
                    d1 = choose(p1, sub(e1, r1), number(0.0))
                    E[p] += np.float64(total(add(d0, d1)))
        dE = 0.0
        for p in range(P):  # broadcast
            dE += weights[p] * E[p] / B
        if not np.isfinite(dE):
            return trial

        for i in range(n):  # accumulate
            g[i] += dE * D[i]
        if (trial + 1) % every == 0:  # update
            for i in range(n):
                g[i] /= sigma * sigma * every
            change_by_rule(rule, rates[trial // every - begun], mu, w, m, g, D, dE)
            if beside:
                shorten_and_average(longest, average_from, trial // every + 1, before, w, mean)
            g[:] = 0.0
    keep(lanes)
    return -1


@compiled(nogil=True, **EXACT)
def descend(network, rows, updates, w, m, mean):
    """The updates of one run by the exact gradient of the patterns rows[update - first] (or
    rows[0], if that is all), changing w, m and mean; returns the first whose gradient is not
    finite, or -1.
    """
    sizes, activations, error_kind, X, target = network
    rule, mu, _, first, rates, sigmas, longest, average_from = updates
    beside, before = longest > 0.0 or average_from > 0, w.copy()
    B, n = rows.shape[1], w.size
    layers, width, shown = sizes.size - 1, 0, np.int64(-1)
    for units in sizes:
        width = max(width, units)
    # y[l]: activities of layer l, inputs first; E_x: dE/dx of one layer and of that above it
    y, E_x = np.zeros((layers + 1, width, B)), np.zeros((2, width, B))
    df, t = np.zeros((layers, width, B)), np.empty((B, sizes[-1]))
    g, D = np.empty(n), np.zeros(n)
    for number_ in range(rates.size):
        here = number_ if rows.shape[0] > 1 else 0
        if here != shown:
            shown = here
            for s in range(B):
                for i in range(sizes[0]):
                    y[0, i, s] = X[rows[here, s], i]
                for j in range(sizes[-1]):
                    t[s, j] = target[rows[here, s], j]

        # x_j = sum_i w_ij y_i,  y_j = f_j(x_j)
        start = 0
        for layer in range(layers):
            a, b = sizes[layer], sizes[layer + 1]
            W, bias = w[start : start + a * b], w[start + a * b : start + (a + 1) * b]
            out, slopes = y[layer + 1, :b], df[layer, :b]
            product(W.reshape(a, b), bias, y[layer], out)
            activate_with_slopes(activations[layer], out.reshape(b * B), slopes.reshape(b * B))
            start += (a + 1) * b

        # dE/dx_j = f'_j dE/dy_j,  dE/dw_ij = y_i dE/dx_j,  dE/dy_i = sum_j w_ij dE/dx_j
        e = E_x[layers % 2, : sizes[-1]]
        output_errors(error_kind, y[layers, : sizes[-1]].T, t, e.T)
        e /= B
        for layer in range(layers - 1, -1, -1):
            a, b = sizes[layer], sizes[layer + 1]
            start -= (a + 1) * b
            above, below, x = E_x[(layer + 1) % 2], E_x[layer % 2], y[layer]
            # dE/dy of the layer above becomes dE/dx in place
            for j in range(b):
                total_ = 0.0
                for s in range(B):
                    above[j, s] *= df[layer, j, s]
                    total_ += above[j, s]
                g[start + a * b + j] = total_
            for i in range(a):
                for j in range(b):
                    # four sums, whose additions need not wait for each other, in a fixed order
                    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
                    for s in range(0, B - 3, 4):
                        t0 += x[i, s] * above[j, s]
                        t1 += x[i, s + 1] * above[j, s + 1]
                        t2 += x[i, s + 2] * above[j, s + 2]
                        t3 += x[i, s + 3] * above[j, s + 3]
                    for s in range(B // 4 * 4, B):
                        t0 += x[i, s] * above[j, s]
                    g[start + i * b + j] = (t0 + t1) + (t2 + t3)
                if layer:
                    for s in range(B):
                        below[i, s] = 0.0
                    for j in range(b):
                        for s in range(B):
                            below[i, s] += w[start + i * b + j] * above[j, s]

        square = 0.0
        for i in range(n):
            square += g[i] * g[i]
        if not np.isfinite(square):
            return first + number_
        size = square**0.5
        # the trial that `training.exact.Exact.told` makes up: along -g, |D| = sigma sqrt(n)
        if rule == KEEP and size > 0.0:
            for i in range(n):
                D[i] = -sigmas[number_] * n**0.5 * g[i] / size
        change_by_rule(rule, rates[number_], mu, w, m, g, D, -size)
        if beside:
            shorten_and_average(longest, average_from, first + number_ + 1, before, w, mean)
    return -1
