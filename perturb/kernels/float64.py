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
from perturb.kernels.arguments import Weights
from perturb.kernels.simd import EXACT, keep, load_d, peek, pointer, store
from perturb.trial import readout as reading
from perturb.trial import synapse
from perturb.trial.random import NOISE, normals, pattern_index, perturbation, sense

BLOCK = 64
# trials whose perturbations wait for their broadcasts to be summed together: the sums are then read
# and written once for all of them
TOGETHER = 8

# the functions that plain Python calls too, compiled: the rule is written down once
_accumulate = njit(synapse.accumulate)
_accumulate_vectors = njit(forceinline=True)(synapse.accumulate)
_count = njit(synapse.count)
_read = njit(reading.read)


@compiled(**EXACT)
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


@compiled(**EXACT)
def _dot(a, b):
    # four sums, whose additions need not wait for each other, in a fixed order
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


@compiled(**EXACT)
def evaluate(network, w, D, a, v, br, target, buffers, out):
    """Errors of all patterns at w + a D + br v, of which w, D and v are `Weights`. buffers: for
    the activities of two layers.
    """
    sizes, units = network.sizes, network.sizes[1]
    y = buffers[0, :units]
    for j in range(units):
        for s in range(y.shape[1]):
            y[j, s] = w.net_inputs[j, s] + a * D.net_inputs[j, s] + br * v.net_inputs[j, s]
        activate(network.activations[0], y[j])
    # the first layer, a row of weights for each input and one of biases, is in net_inputs
    start = (sizes[0] + 1) * units
    for layer in range(1, sizes.size - 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        effective = np.empty((n_in + 1) * n_out)
        for i in range(effective.size):
            k = start + i
            effective[i] = w.values[k] + a * D.values[k] + br * v.values[k]
        x = y
        # a layer reads one buffer and writes the other
        y = buffers[layer % 2, :n_out]
        product(effective[: n_in * n_out].reshape(n_in, n_out), effective[n_in * n_out :], x, y)
        for j in range(n_out):
            activate(network.activations[layer], y[j])
        start += effective.size
    pattern_errors(network.error, y, target, out)


@compiled()
def _load(sums, i):
    # in the order of `synapse.SUMS`
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


@compiled(forceinline=True)
def _load_vectors(sums, n, i):
    return (
        load_d(sums, i),
        load_d(sums, n + i),
        load_d(sums, 2 * n + i),
        load_d(sums, 3 * n + i),
        load_d(sums, 4 * n + i),
        load_d(sums, 5 * n + i),
        load_d(sums, 6 * n + i),
        load_d(sums, 7 * n + i),
        load_d(sums, 8 * n + i),
        load_d(sums, 9 * n + i),
        load_d(sums, 10 * n + i),
        load_d(sums, 11 * n + i),
        load_d(sums, 12 * n + i),
        load_d(sums, 13 * n + i),
    )


@compiled()
def _add_to_eight(i, n, count, broadcasts, known, v, V, kind, kappa, sums):
    """`count` broadcasts (y, u, s) meet the perturbations known (count, n) of synapses i .. i + 7,
    in order.
    """
    state = _load_vectors(sums, n, i)  # stays in registers
    own = load_d(v, i)
    for t in range(count):
        dE = peek(broadcasts, 3 * t), peek(broadcasts, 3 * t + 1)
        s = peek(broadcasts, 3 * t + 2)
        state = _accumulate_vectors(state, load_d(known, t * n + i), dE, s, own, V, kind, kappa)
    row = 0
    for each in state:
        store(sums, row * n + i, each)
        row += 1


@compiled(**EXACT)
def _add(count, broadcasts, known, v, regressor, sums):
    """The first `count` broadcasts (y, u, s) meet the perturbations known (count, n) of all
    synapses, in order.
    """
    n, rows = v.size, sums.shape[0]
    at, stride = 0, n
    to, of, own, words = pointer(sums), pointer(known), pointer(v), pointer(broadcasts)
    # what the last few synapses have, filled up to eight
    few, some, theirs = np.zeros(rows * 8), np.zeros(count * 8), np.zeros(8)
    for i in range(0, n, 8):
        if i + 8 <= n:
            at = i
        else:
            for k in range(i, n):
                theirs[k - i] = v[k]
                for row in range(rows):
                    few[row * 8 + k - i] = sums[row, k]
                for t in range(count):
                    some[t * 8 + k - i] = known[t, k]
            at, stride, to, of, own = 0, 8, pointer(few), pointer(some), pointer(theirs)
        # one call in one place: compiled code is as long as all calls together
        _add_to_eight(
            at, stride, count, words, of, own, regressor.V, regressor.kind, regressor.kappa, to
        )
    for k in range(n // 8 * 8, n):
        for row in range(rows):
            sums[row, k] = few[row * 8 + k % 8]
    keep(sums)
    keep(known)
    keep(v)
    keep(broadcasts)
    keep(few)
    keep(some)
    keep(theirs)


@compiled()
def _count_into(totals, dE, s):
    # in the order of `synapse.TOTALS`
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


@compiled(forceinline=True, **EXACT)
def _column(array, s, to):
    for i in range(array.shape[0]):
        to[i, 0] = array[i, s]


@compiled(nogil=True, **EXACT)
def mlp_trials(trials, by_pattern, first, last, to):
    """Trials first..last-1, in order, each added to its block of `to`, of which the first is that
    of trial `first`. by_pattern: each trial presents one pattern, see `pattern_index`.
    """
    network, patterns, points, phases, draws, readout, regressor = trials
    sizes, w, moved, v, gain = network.sizes, points.w, points.moved, points.v, points.gain
    x, target, n, n1 = patterns.x, patterns.target, gain.size, sizes[0] * sizes[1]
    S = 1 if by_pattern else x.shape[1]
    if by_pattern:  # what the pattern of a trial is copied to
        x, target, units = np.empty((sizes[0], 1)), np.empty((target.shape[0], 1)), sizes[1]
        w = Weights(w.values, np.empty((units, 1)))
        moved = Weights(moved.values, np.empty((units, 1)))
        v = Weights(v.values, np.empty((units, 1)))
    A = Weights(np.empty(n), np.empty((sizes[1], S)))  # D as applied
    # of trials that are summed together: D as drawn, what the synapses know of it, and what they
    # hear
    drawn = np.empty((TOGETHER, n))
    knowledge = np.empty((TOGETHER, n)) if draws.sensing > 0.0 else drawn
    broadcasts, waiting = np.empty((TOGETHER, 3)), 0
    width = 0
    for units in sizes[1:]:
        width = max(width, units)
    buffers, errors, xi = np.empty((2, width, S)), np.empty(S), np.zeros(S)
    for trial in range(first, last):
        block = trial // BLOCK - first // BLOCK
        shown, D, known = 0, drawn[waiting], knowledge[waiting]
        if by_pattern:
            shown = pattern_index(draws.seed, trial, patterns.x.shape[1])
            _column(patterns.x, shown, x)
            _column(patterns.target, shown, target)
            _column(points.w.net_inputs, shown, w.net_inputs)
            _column(points.moved.net_inputs, shown, moved.net_inputs)
            _column(points.v.net_inputs, shown, v.net_inputs)

        # perturb
        perturbation(draws.kind, draws.seed, trial, draws.sigma, draws.period, draws.taps, 0, D)
        if draws.sensing > 0.0:
            sense(draws.seed, trial, draws.sensing * draws.sigma, 0, D, known)
        # summed only where it is broadcast
        s = _dot(known, v.values) if regressor.kind == 1 or regressor.kind == 2 else 0.0
        for i in range(n):
            A.values[i] = gain[i] * D[i]
        # XD once a trial; the phases put X(W + aD + brV) = XW + a XD + br XV together
        W = A.values[:n1].reshape(sizes[0], sizes[1])
        product(W, A.values[n1 : n1 + sizes[1]], x, A.net_inputs)

        # measure
        y, u = 0.0, 0.0
        for p in range(phases.a.size):
            a, br = phases.a[p], phases.br[p]
            unperturbed = a == 0.0 and br == 0.0
            if not unperturbed:
                # offsets of the drivers are there in phases that D moves, and only there
                at = moved if a != 0.0 else w
                evaluate(network, at, A, a, v, br, target, buffers, errors)
            if readout.noise > 0.0:
                normals(draws.seed, NOISE, trial, p, xi)
            E = 0.0
            for k in range(S):
                e = patterns.at_rest[shown + k] if unperturbed else errors[k]
                E += _read(e, xi[k], readout.noise, readout.step, readout.top)
            E /= S
            y += phases.gradient_weights[p] * E
            u += phases.hv_weights[p] * E
        # the first failure of a block is kept: trials come in order
        if to.failed[block] < 0 and not (math.isfinite(y) and math.isfinite(u)):
            to.failed[block] = trial

        # broadcast and accumulate
        broadcasts[waiting, 0], broadcasts[waiting, 1], broadcasts[waiting, 2] = y, u, s
        waiting += 1
        if to.received.shape[1]:
            t = trial - to.origin
            to.received[0, t], to.received[1, t], to.received[2, t] = y, u, s
        _count_into(to.totals[block], (y, u), s)
        if waiting == TOGETHER or trial + 1 == last or (trial + 1) % BLOCK == 0:
            _add(waiting, broadcasts, knowledge, v.values, regressor, to.sums[block])
            waiting = 0


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


@compiled(nogil=True, **EXACT)
def accumulate_each(D, y, u, v, V, kind, kappa, sums, totals):
    s = dot_rows(D, v) if kind == 1 or kind == 2 else np.zeros(y.size)
    add_broadcasts(sums, totals, D, y, u, s, v, V, kind, kappa)
    return s


@compiled(**EXACT)
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


@compiled(**EXACT)
def add_broadcast(sums, dw, y, u, s, v, V, regressor_kind, kappa):
    """One broadcast meets the perturbations dw (n,) of the synapses: `synapse.accumulate` on sums
    (rows, n).
    """
    for i in range(dw.size):
        state = _load(sums, i)
        _store(sums, i, _accumulate(state, dw[i], (y, u), s, v[i], V, regressor_kind, kappa))
