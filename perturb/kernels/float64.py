"""Numba kernels: many perturbation trials of an MLP at once, with the same sums as the chip's
synapses make.

Trials are summed one after another within aligned blocks of BLOCK, blocks are reduced in order: the
bits do not depend on threads, on the batch, or on how a run is split. The first layer is linear in
its weights, so X(W + aD + brV) is put together from XW and XV (once a run) and XD (once a trial),
whatever the number of phases. Samples lie along the last axis, where LLVM vectorises;
`error_model="numpy"` because the check for division by zero would prevent that.
"""

import math

import numpy as np
from numba import njit

from perturb.compiled import compiled
from perturb.kernels.activations import activate, pattern_errors
from perturb.trial import readout as reading
from perturb.trial import synapse
from perturb.trial.random import NOISE, normals, pattern_index, perturbation, sense

BLOCK = 64

_accumulate = njit(synapse.accumulate)
_count = njit(synapse.count)
_read = njit(reading.read)


@compiled(error_model="numpy", fastmath={"contract"})
def product(W, b, x, out):
    # out[j, s] = b[j] + sum_i W[i, j] x[i, s], four inputs at a time
    n_in, n_out = W.shape
    for j in range(n_out):
        row = out[j]
        for s in range(row.size):
            row[s] = b[j]
        i = 0
        while i + 4 <= n_in:
            c0, c1, c2, c3 = W[i, j], W[i + 1, j], W[i + 2, j], W[i + 3, j]
            for s in range(row.size):
                row[s] += c0 * x[i, s] + c1 * x[i + 1, s] + (c2 * x[i + 2, s] + c3 * x[i + 3, s])
            i += 4
        while i < n_in:
            for s in range(row.size):
                row[s] += W[i, j] * x[i, s]
            i += 1


@compiled(error_model="numpy", fastmath={"contract"})
def _dot(a, b):
    t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
    i = 0
    while i + 4 <= a.size:
        t0 += a[i] * b[i]
        t1 += a[i + 1] * b[i + 1]
        t2 += a[i + 2] * b[i + 2]
        t3 += a[i + 3] * b[i + 3]
        i += 4
    while i < a.size:
        t0 += a[i] * b[i]
        i += 1
    return (t0 + t1) + (t2 + t3)


@compiled(error_model="numpy", fastmath={"contract"})
def _evaluate(
    sizes, activations, error_kind, w, v, D, a, br, base, base_v, moved, target, buffers, out
):
    """Errors of all patterns at w + a D + br v, from the first layer's parts `base` (w), `base_v`
    (v), `moved` (D).
    """
    y = buffers[0, : sizes[1]]
    for j in range(sizes[1]):
        for s in range(y.shape[1]):
            y[j, s] = base[j, s] + a * moved[j, s] + br * base_v[j, s]
        activate(activations[0], y[j])
    start = (sizes[0] + 1) * sizes[1]
    for layer in range(1, sizes.size - 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        effective = np.empty((n_in + 1) * n_out)
        for i in range(effective.size):
            effective[i] = w[start + i] + a * D[start + i] + br * v[start + i]
        x = y
        y = buffers[layer % 2, :n_out]
        product(effective[: n_in * n_out].reshape(n_in, n_out), effective[n_in * n_out :], x, y)
        for j in range(n_out):
            activate(activations[layer], y[j])
        start += effective.size
    pattern_errors(error_kind, y, target, out)


@compiled()
def _load(sums, i):
    return (
        sums[0, i],
        sums[1, i],
        sums[2, i],
        sums[3, i],
        sums[4, i],
        sums[5, i],
        sums[6, i],
        sums[7, i],
        sums[8, i],
        sums[9, i],
        sums[10, i],
        sums[11, i],
        sums[12, i],
        sums[13, i],
    )


@compiled()
def _store(sums, i, state):
    (
        sums[0, i],
        sums[1, i],
        sums[2, i],
        sums[3, i],
        sums[4, i],
        sums[5, i],
        sums[6, i],
        sums[7, i],
        sums[8, i],
        sums[9, i],
        sums[10, i],
        sums[11, i],
        sums[12, i],
        sums[13, i],
    ) = state


@compiled()
def _count_into(totals, dE, s):
    (
        totals[0],
        totals[1],
        totals[2],
        totals[3],
        totals[4],
        totals[5],
        totals[6],
        totals[7],
        totals[8],
        totals[9],
    ) = _count(
        (
            totals[0],
            totals[1],
            totals[2],
            totals[3],
            totals[4],
            totals[5],
            totals[6],
            totals[7],
            totals[8],
            totals[9],
        ),
        dE,
        s,
    )


@compiled(error_model="numpy", fastmath={"contract"})
def _block(
    x,
    target,
    sizes,
    activations,
    error_kind,
    w,
    v,
    V,
    r,
    base,
    base_v,
    gain,
    w_moved,
    base_moved,
    phases,
    gradient_weights,
    hv_weights,
    regressor_kind,
    kappa,
    code_kind,
    sigma,
    period,
    taps,
    sensing,
    seed,
    noise,
    step,
    top,
    by_pattern,
    at_rest,
    first,
    last,
    sums,
    totals,
    received,
    origin,
):
    """Add trials first..last-1, in order, to sums (rows, n) and totals; return the first with a
    non-finite error, or -1.

    received: for what is broadcast of trials from `origin` on, (3, trials), or (3, 0). gain D
    reaches the weights; w_moved, base_moved: w and base in phases that D moves, see `Mismatch`.
    """
    S = 1 if by_pattern else x.shape[1]
    n1 = sizes[0] * sizes[1]
    D, A = np.empty(w.size), np.empty(w.size)  # as the code makes it, and as it is applied
    known = np.empty(w.size) if sensing > 0.0 else D  # what the synapses know of D
    moved = np.empty((sizes[1], S))
    width = 0
    for units in sizes[1:]:
        width = max(width, units)
    buffers = np.empty((2, width, S))
    errors, xi = np.empty(S), np.zeros(S)
    failed = -1
    for trial in range(first, last):
        # perturb
        perturbation(code_kind, seed, trial, sigma, period, taps, 0, D)
        if sensing > 0.0:
            sense(seed, trial, sensing * sigma, 0, D, known)
        s = (
            _dot(known, v) if regressor_kind == 1 or regressor_kind == 2 else 0.0
        )  # summed only where it is broadcast
        start = pattern_index(seed, trial, x.shape[1]) if by_pattern else 0
        for i in range(w.size):
            A[i] = gain[i] * D[i]
        product(
            A[:n1].reshape(sizes[0], sizes[1]),
            A[n1 : n1 + sizes[1]],
            x[:, start : start + S],
            moved,
        )

        # measure
        y, u = 0.0, 0.0
        for p in range(phases.shape[0]):
            unperturbed = phases[p, 0] == 0.0 and phases[p, 1] == 0.0
            if not unperturbed:
                moves = phases[p, 0] != 0.0
                _evaluate(
                    sizes,
                    activations,
                    error_kind,
                    w_moved if moves else w,
                    v,
                    A,
                    phases[p, 0],
                    phases[p, 1] * r,
                    (base_moved if moves else base)[:, start : start + S],
                    base_v[:, start : start + S],
                    moved,
                    target[:, start : start + S],
                    buffers,
                    errors,
                )
            if noise > 0.0:
                normals(seed, NOISE, trial, p, xi)
            E = 0.0
            for k in range(S):
                E += _read(
                    at_rest[start + k] if unperturbed else errors[k], xi[k], noise, step, top
                )
            E /= S
            y += gradient_weights[p] * E
            u += hv_weights[p] * E
        if failed < 0 and not (math.isfinite(y) and math.isfinite(u)):
            failed = trial

        # broadcast and accumulate
        dE = (y, u)
        if received.shape[1]:
            (
                received[0, trial - origin],
                received[1, trial - origin],
                received[2, trial - origin],
            ) = y, u, s
        _count_into(totals, dE, s)
        for i in range(w.size):
            _store(
                sums,
                i,
                _accumulate(_load(sums, i), known[i], dE, s, v[i], V, regressor_kind, kappa),
            )
    return failed


@compiled(nogil=True)
def mlp_trials(
    x,
    target,
    sizes,
    activations,
    error_kind,
    w,
    v,
    V,
    r,
    base,
    base_v,
    gain,
    w_moved,
    base_moved,
    phases,
    gradient_weights,
    hv_weights,
    regressor_kind,
    kappa,
    code_kind,
    sigma,
    period,
    taps,
    sensing,
    seed,
    noise,
    step,
    top,
    by_pattern,
    first,
    last,
    sums,
    totals,
    failed,
    received,
):
    """Trials first..last-1 in aligned blocks: the b-th adds to sums[b] (rows, n), totals[b] and
    sets failed[b], see `_block`. x, target: (neurons, S). received: (3, trials) for what they
    broadcast, or (3, 0).
    """
    # errors at w, where nothing but the noise differs from trial to trial
    width = 0
    for units in sizes[1:]:
        width = max(width, units)
    at_rest, zeros, buffers = (
        np.empty(x.shape[1]),
        np.zeros(w.size),
        np.empty((2, width, x.shape[1])),
    )
    _evaluate(
        sizes,
        activations,
        error_kind,
        w,
        v,
        zeros,
        0.0,
        0.0,
        base,
        base_v,
        base,
        target,
        buffers,
        at_rest,
    )
    for b in range(sums.shape[0]):
        start = (first // BLOCK + b) * BLOCK
        failed[b] = _block(
            x,
            target,
            sizes,
            activations,
            error_kind,
            w,
            v,
            V,
            r,
            base,
            base_v,
            gain,
            w_moved,
            base_moved,
            phases,
            gradient_weights,
            hv_weights,
            regressor_kind,
            kappa,
            code_kind,
            sigma,
            period,
            taps,
            sensing,
            seed,
            noise,
            step,
            top,
            by_pattern,
            at_rest,
            max(first, start),
            min(last, start + BLOCK),
            sums[b],
            totals[b],
            received,
            first,
        )


@compiled(nogil=True)
def add_blocks(sums, count, first_row, last_row, to):
    # one block after another, so that the bits do not depend on how many come at once
    for row in range(first_row, last_row):
        for b in range(count):
            for i in range(to.shape[1]):
                to[row, i] += sums[b, row, i]


@compiled(nogil=True)
def dot_rows(D, v):
    """dw.v of each row of D (trials, n)."""
    s = np.empty(D.shape[0])
    for t in range(s.size):
        s[t] = _dot(D[t], v)
    return s


@compiled(nogil=True, error_model="numpy", fastmath={"contract"})
def accumulate_each(D, y, u, v, V, kind, kappa, sums, totals):
    s = dot_rows(D, v) if kind == 1 or kind == 2 else np.zeros(y.size)
    add_broadcasts(sums, totals, D, y, u, s, v, V, kind, kappa)
    return s


@compiled(error_model="numpy", fastmath={"contract"})
def add_broadcasts(sums, totals, known, y, u, s, v, V, regressor_kind, kappa):
    """Broadcasts dE = (y, u) and s of some trials (trials,) meet the perturbations known (trials,
    n) of all synapses, in order: `synapse.accumulate` on sums (rows, n) and `synapse.count` on
    totals.
    """
    for t in range(y.size):
        _count_into(totals, (y[t], u[t]), s[t])
    for i in range(v.size):
        state = _load(sums, i)  # stays in registers
        for t in range(y.size):
            state = _accumulate(
                state, known[t, i], (y[t], u[t]), s[t], v[i], V, regressor_kind, kappa
            )
        _store(sums, i, state)


@compiled(error_model="numpy", fastmath={"contract"})
def add_broadcast(sums, dw, dE, s, v, V, regressor_kind, kappa, arrived):
    """One broadcast meets the perturbations dw (n,) of the synapses it has reached:
    `synapse.accumulate` on sums (rows, n).
    """
    for i in range(dw.size):
        if arrived[i]:
            _store(
                sums, i, _accumulate(_load(sums, i), dw[i], dE, s, v[i], V, regressor_kind, kappa)
            )
