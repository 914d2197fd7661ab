"""Kernels of learning: an MLP whose weights change after every few trials, or by exact gradients,
from record to record.

Of trials, only the evaluations of E are float32, and dE is taken pattern by pattern, so that
nothing cancels; the weights themselves are float64. The lanes are patterns. `training.sources` does
the same update by update, for any objective and in float64.
"""

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
    """w := w + change, and the momentum m; see `training.plan.RULES`."""
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
def _show(X, rows, tile, y):
    # patterns rows[tile : tile + WIDE], a pattern a lane; lanes beyond are left 0. Sixteen inputs
    # at a time: reads stay in lines
    for first in range(0, X.shape[1], 16):
        last = min(first + 16, X.shape[1])
        for lane in range(min(WIDE, rows.size - tile)):
            row = rows[tile + lane]
            for i in range(first, last):
                y[i * WIDE + lane] = X[row, i]


@compiled(nogil=True, **EXACT)
def learn(
    sizes,
    activations,
    error_kind,
    X,
    target,
    rows,
    w,
    m,
    gain,
    offset,
    amounts,
    weights,
    free,
    rule,
    eta,
    decay,
    mu,
    code_kind,
    sigma,
    period,
    taps,
    seed,
    noise,
    step,
    top,
    every,
    perturb_every,
    sample_every,
    first,
    last,
):
    """Trials first..last-1 of one run, changing w and m; returns the first whose error is not
    finite, or -1.

    X (S, inputs), target (S, outputs): float32. rows (presentations, B): the patterns of each
    presentation from that of trial `first` on. gain, offset (n,): of the perturbations as they are
    applied, see `engine.Mismatch`. amounts, weights: a of each phase and how its E enters dE; free:
    1 for phases read without noise. every: trials per update; first and last are multiples of it.
    eta / (1 + update/decay) is the rate, decay = 0: constant.
    """
    n, B, P, n_in, n_out = w.size, rows.shape[1], amounts.size, sizes[0], sizes[-1]
    tiles, width = (B + WIDE - 1) // WIDE, 0
    for units in sizes[1:]:
        width = max(width, units + 3)
    room, half = (n_in + 3) * WIDE, width * WIDE
    all_y, all_x, all_t = (
        aligned(room + 2 * half),
        aligned(tiles * room),
        aligned(tiles * (n_out + 3) * WIDE),
    )
    effective, lanes = aligned(P * (n + 64)), aligned(tiles * WIDE)
    for array in (all_y, all_x, all_t, effective, lanes):
        array[:] = np.float32(0.0)
    lanes[:B] = np.float32(1.0)
    y, eff, tgt, present = pointer(all_y), pointer(effective), pointer(all_t), pointer(lanes)
    drawn, g, E = np.zeros((n + 63) // 64 * 64), np.zeros(n), np.zeros(P)
    D = drawn[:n]
    signs, drawn_from, shown, now = (
        code_kind == 0 or code_kind == 3,
        np.int64(-1),
        np.int64(-1),
        np.int64(-1),
    )
    bits = np.empty(2 * ((n + 127) // 128) * (DRAWN + SPARE), np.uint64)
    dE = 0.0
    for trial in range(first, last):
        number_ = trial // perturb_every
        if number_ != now:  # perturb
            now = number_
            if not signs:
                perturbation(code_kind, seed, now, sigma, period, taps, 0, D)
            else:
                if now // DRAWN != drawn_from:
                    drawn_from = now // DRAWN
                    draw_signs(code_kind, seed, drawn_from * DRAWN, period, n, DRAWN, bits)
                _signs_of(bits, now % DRAWN, sigma, drawn)
        if trial // sample_every != shown:
            shown = trial // sample_every
            here = rows[shown - first // sample_every]
            for tile in range(tiles):
                _show(X, here, tile * WIDE, all_x[tile * room :])
                _show(target, here, tile * WIDE, all_t[tile * (n_out + 3) * WIDE :])

        for p in range(P):  # measure: E of every phase, less that of the first
            a, at = amounts[p], p * (n + 64)
            for i in range(n):
                effective[at + i] = np.float32(
                    w[i] + (a * gain[i] * D[i] + (offset[i] if a != 0.0 else 0.0))
                )
        E[:] = 0.0
        for tile in range(tiles):
            all_y[:room] = all_x[tile * room : (tile + 1) * room]
            p0 = greater(load(present, tile * WIDE), number(0.5))
            p1 = greater(load(present, tile * WIDE + 16), number(0.5))
            r0 = r1 = number(0.0)
            for p in range(P):
                k, source, goal = p * (n + 64), 0, room
                for layer in range(sizes.size - 1):
                    product32(eff, k, sizes[layer], sizes[layer + 1], y, source, goal)
                    activate32(activations[layer], y, goal, sizes[layer + 1] * WIDE)
                    k += (sizes[layer] + 1) * sizes[layer + 1]
                    source, goal = goal, (2 * room + half - goal if layer else room + half)
                e0 = errors32(
                    error_kind, n_out, y, source, WIDE, tgt, tile * (n_out + 3) * WIDE, WIDE, False
                )
                e1 = errors32(
                    error_kind,
                    n_out,
                    y,
                    source + 16,
                    WIDE,
                    tgt,
                    tile * (n_out + 3) * WIDE + 16,
                    WIDE,
                    False,
                )
                std = np.float32(0.0) if free[p] else noise
                x0 = x1 = number(0.0)
                if std > np.float32(0.0):
                    x0, x1 = pattern_noise(seed, np.uint64(trial), p, tile * WIDE)
                e0 = read32(e0, x0, std, np.float32(0.0) if free[p] else step, top)
                e1 = read32(e1, x1, std, np.float32(0.0) if free[p] else step, top)
                if p == 0:
                    r0, r1 = e0, e1
                else:
                    d0, d1 = (
                        choose(p0, sub(e0, r0), number(0.0)),
                        choose(p1, sub(e1, r1), number(0.0)),
                    )
                    E[p] += np.float64(total(add(d0, d1)))
        dE = 0.0
        for p in range(P):  # broadcast
            dE += weights[p] * E[p] / B
        if not np.isfinite(dE):
            return trial

        for i in range(n):  # accumulate
            g[i] += dE * D[i]
        if (trial + 1) % every == 0:  # update
            update = trial // every
            rate = eta / (1.0 + update / decay) if decay > 0.0 else eta
            for i in range(n):
                g[i] /= sigma * sigma * every
            change_by_rule(rule, rate, mu, w, m, g, D, dE)
            g[:] = 0.0
    keep(lanes)
    return -1


@compiled(nogil=True, **EXACT)
def descend(
    sizes, activations, error_kind, X, target, rows, w, m, rule, eta, decay, mu, sigma, first, last
):
    """Updates first..last-1 by the exact gradient of the patterns rows[update - first] (or rows[0],
    if that is all), changing w and m; returns the first whose gradient is not finite, or -1. X (S,
    inputs), target (S, outputs).
    """
    layers, B, n = sizes.size - 1, rows.shape[1], w.size
    width = 0
    for units in sizes:
        width = max(width, units)
    y, E_x, shown, t = (
        np.zeros((layers + 1, width, B)),
        np.zeros((2, width, B)),
        np.int64(-1),
        np.empty((sizes[-1], B)),
    )
    df = np.zeros((layers, width, B))
    g, D = np.empty(n), np.zeros(n)
    for update in range(first, last):
        here = update - first if rows.shape[0] > 1 else 0
        if here != shown:
            shown = here
            for s in range(B):
                for i in range(sizes[0]):
                    y[0, i, s] = X[rows[here, s], i]
                for j in range(sizes[-1]):
                    t[j, s] = target[rows[here, s], j]

        # x_j = sum_i w_ij y_i,  y_j = f_j(x_j)
        start = 0
        for layer in range(layers):
            a, b = sizes[layer], sizes[layer + 1]
            product(
                w[start : start + a * b].reshape(a, b),
                w[start + a * b : start + (a + 1) * b],
                y[layer],
                y[layer + 1, :b],
            )
            activate_with_slopes(
                activations[layer], y[layer + 1, :b].reshape(b * B), df[layer, :b].reshape(b * B)
            )
            start += (a + 1) * b

        # dE/dx_j = f'_j dE/dy_j,  dE/dw_ij = y_i dE/dx_j,  dE/dy_i = sum_j w_ij dE/dx_j
        output_errors(error_kind, y[layers, : sizes[-1]], t, E_x[layers % 2])
        for layer in range(layers - 1, -1, -1):
            a, b = sizes[layer], sizes[layer + 1]
            start -= (a + 1) * b
            above, below, x = E_x[(layer + 1) % 2], E_x[layer % 2], y[layer]
            for j in range(b):
                total_ = 0.0
                for s in range(B):
                    above[j, s] *= df[layer, j, s]
                    total_ += above[j, s]
                g[start + a * b + j] = total_
            for i in range(a):
                for j in range(b):
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
            return update
        size = square**0.5
        if rule == KEEP and size > 0.0:
            for i in range(n):
                D[i] = -sigma * n**0.5 * g[i] / size
        change_by_rule(
            rule, eta / (1.0 + update / decay) if decay > 0.0 else eta, mu, w, m, g, D, -size
        )
    return -1
