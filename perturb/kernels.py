"""Numba kernels: many perturbation trials of an MLP at once, with the same sums as the chip's synapses make.

Trials are summed one after another within aligned blocks of BLOCK, blocks are reduced in order: the bits do not depend on
threads, on the batch, or on how a run is split. The first layer is linear in its weights, so X(W + aD + brV) is put together
from XW and XV (once a run) and XD (once a trial), whatever the number of phases. Samples lie along the last axis, where LLVM
vectorises; `error_model="numpy"` because the check for division by zero would prevent that.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeGuard

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from perturb import reading, synapse
from perturb.methods import REGRESSORS
from perturb.mlp import MLPObjective
from perturb.objective import Objective
from perturb.philox import NOISE, compiled, normals, pattern_index, perturbation, sense
from perturb.reading import Meter, Reading
from perturb.statistics import Design, Point, Statistics, check_trials

BLOCK = 64
ACTIVATION_KINDS = {"linear": 0, "tanh": 1, "logistic": 2, "relu": 3, "softplus": 4}
ERROR_KINDS = {"squared_error": 0, "cross_entropy": 1, "binary_cross_entropy": 2}

_accumulate = njit(synapse.accumulate)
_count = njit(synapse.count)
_read = njit(reading.read)


@intrinsic
def _bits(typingctx, x):
    return types.int64(types.float64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(64))


@intrinsic
def _float(typingctx, x):
    return types.float64(types.int64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.DoubleType())


@compiled(inline="always")
def _exp(x):
    # Cody-Waite reduction and a Taylor series of degree 13 on |t| <= ln(2)/2: within 2 units of the last place, and unlike
    # math.exp without a call, so that loops over it vectorise. Clipped at +-708; not-a-number stays.
    x = 708.0 if x > 708.0 else x
    x = -708.0 if x < -708.0 else x
    shifted = x * 1.4426950408889634 + 6755399441055744.0  # 1.5 * 2^52 rounds to a whole number in the low bits
    n = shifted - 6755399441055744.0
    t = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1.6059043836821613e-10
    p = p * t + 2.08767569878681e-09
    p = p * t + 2.505210838544172e-08
    p = p * t + 2.755731922398589e-07
    p = p * t + 2.7557319223985893e-06
    p = p * t + 2.48015873015873e-05
    p = p * t + 0.0001984126984126984
    p = p * t + 0.001388888888888889
    p = p * t + 0.008333333333333333
    p = p * t + 0.041666666666666664
    p = p * t + 0.16666666666666666
    p = p * t + 0.5
    p = p * t + 1.0
    p = p * t + 1.0
    return p * _float((_bits(shifted) + 1023) << 52)


@compiled(error_model="numpy", fastmath={"contract"})
def _activate(kind, row):
    if kind == 1:
        for s in range(row.size):
            x = row[s]
            t = 1.0 - 2.0 / (_exp(2.0 * abs(x)) + 1.0)
            row[s] = t if x >= 0.0 else -t
    elif kind == 2:
        for s in range(row.size):
            row[s] = 1.0 / (1.0 + _exp(-row[s]))
    elif kind == 3:
        for s in range(row.size):
            row[s] = 0.0 if row[s] < 0.0 else row[s]
    elif kind == 4:
        for s in range(row.size):
            x = row[s]
            row[s] = (x if x > 0.0 else 0.0) + math.log1p(_exp(-abs(x)))


@compiled(error_model="numpy", fastmath={"contract"})
def _product(W, b, x, out):
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
def _pattern_errors(kind, y, target, out):
    n_out, S = y.shape
    for s in range(S):
        out[s] = 0.0
    if kind == 0:
        for j in range(n_out):
            for s in range(S):
                out[s] += 0.5 * (y[j, s] - target[j, s]) ** 2
    elif kind == 1:
        for s in range(S):
            top = y[0, s]
            for j in range(1, n_out):
                top = max(top, y[j, s])
            total, weight, inner = 0.0, 0.0, 0.0
            for j in range(n_out):
                total += _exp(y[j, s] - top)
                weight += target[j, s]
                inner += target[j, s] * y[j, s]
            out[s] = weight * (top + math.log(total)) - inner
    else:
        for j in range(n_out):
            for s in range(S):
                x = y[j, s]
                out[s] += (x if x > 0.0 else 0.0) + math.log1p(_exp(-abs(x))) - target[j, s] * x


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
def _evaluate(sizes, activations, error_kind, w, v, D, a, br, base, along, moved, target, buffers, out):
    """Errors of all patterns at w + a D + br v, from the first layer's parts `base` (w), `along` (v), `moved` (D)."""
    y = buffers[0, : sizes[1]]
    for j in range(sizes[1]):
        for s in range(y.shape[1]):
            y[j, s] = base[j, s] + a * moved[j, s] + br * along[j, s]
        _activate(activations[0], y[j])
    start = (sizes[0] + 1) * sizes[1]
    for layer in range(1, sizes.size - 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        effective = np.empty((n_in + 1) * n_out)
        for i in range(effective.size):
            effective[i] = w[start + i] + a * D[start + i] + br * v[start + i]
        x = y
        y = buffers[layer % 2, :n_out]
        _product(effective[: n_in * n_out].reshape(n_in, n_out), effective[n_in * n_out :], x, y)
        for j in range(n_out):
            _activate(activations[layer], y[j])
        start += effective.size
    _pattern_errors(error_kind, y, target, out)


@compiled()
def _load(sums, i):
    return (
        sums[0, i], sums[1, i], sums[2, i], sums[3, i], sums[4, i], sums[5, i], sums[6, i],
        sums[7, i], sums[8, i], sums[9, i], sums[10, i], sums[11, i], sums[12, i], sums[13, i],
    )  # fmt: skip


@compiled()
def _store(sums, i, state):
    (
        sums[0, i], sums[1, i], sums[2, i], sums[3, i], sums[4, i], sums[5, i], sums[6, i],
        sums[7, i], sums[8, i], sums[9, i], sums[10, i], sums[11, i], sums[12, i], sums[13, i],
    ) = state  # fmt: skip


@compiled()
def _count_into(totals, dE, s):
    (
        totals[0], totals[1], totals[2], totals[3], totals[4], totals[5], totals[6], totals[7], totals[8], totals[9],
    ) = _count(
        (totals[0], totals[1], totals[2], totals[3], totals[4], totals[5], totals[6], totals[7], totals[8], totals[9]), dE, s
    )  # fmt: skip


@compiled(error_model="numpy", fastmath={"contract"})
def _block(
    x, target, sizes, activations, error_kind, w, v, V, r, base, along, phases, gradient_weights, hv_weights, regressor_kind,
    kappa, code_kind, sigma, period, sensing, seed, noise, step, top, by_pattern, first, last, sums, totals,
):  # fmt: skip
    """Add trials first..last-1, in order, to sums (rows, n) and totals; return the first with a non-finite error, or -1."""
    S = 1 if by_pattern else x.shape[1]
    n1 = sizes[0] * sizes[1]
    D = np.empty(w.size)
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
        perturbation(code_kind, seed, trial, sigma, period, 0, D)
        if sensing > 0.0:
            sense(seed, trial, sensing * sigma, 0, D, known)
        s = _dot(known, v)
        start = pattern_index(seed, trial, x.shape[1]) if by_pattern else 0
        _product(D[:n1].reshape(sizes[0], sizes[1]), D[n1 : n1 + sizes[1]], x[:, start : start + S], moved)

        # measure
        y, u = 0.0, 0.0
        for p in range(phases.shape[0]):
            _evaluate(
                sizes, activations, error_kind, w, v, D, phases[p, 0], phases[p, 1] * r, base[:, start : start + S],
                along[:, start : start + S], moved, target[:, start : start + S], buffers, errors,
            )  # fmt: skip
            if noise > 0.0:
                normals(seed, NOISE, trial, p, xi)
            E = 0.0
            for k in range(S):
                E += _read(errors[k], xi[k], noise, step, top)
            E /= S
            y += gradient_weights[p] * E
            u += hv_weights[p] * E
        if failed < 0 and not (math.isfinite(y) and math.isfinite(u)):
            failed = trial

        # broadcast and accumulate
        dE = (y, u)
        _count_into(totals, dE, s)
        for i in range(w.size):
            _store(sums, i, _accumulate(_load(sums, i), known[i], dE, s, v[i], V, regressor_kind, kappa))
    return failed


@compiled(nogil=True)
def mlp_trials(
    x, target, sizes, activations, error_kind, w, v, V, r, base, along, phases, gradient_weights, hv_weights, regressor_kind,
    kappa, code_kind, sigma, period, sensing, seed, noise, step, top, by_pattern, first, last, sums, totals, failed,
):  # fmt: skip
    """Trials first..last-1 in aligned blocks: the b-th adds to sums[b] (rows, n), totals[b] and sets failed[b], see `_block`.
    x, target: (units, S)."""
    for b in range(sums.shape[0]):
        start = (first // BLOCK + b) * BLOCK
        failed[b] = _block(
            x, target, sizes, activations, error_kind, w, v, V, r, base, along, phases, gradient_weights, hv_weights,
            regressor_kind, kappa, code_kind, sigma, period, sensing, seed, noise, step, top, by_pattern,
            max(first, start), min(last, start + BLOCK), sums[b], totals[b],
        )  # fmt: skip


def run_trials(
    objective: Objective,
    w: np.ndarray,
    v: np.ndarray,
    reading: Reading,
    statistics: Statistics,
    trials: int,
    batch: int = 2048,
    threads: int | None = None,
) -> None:
    """Add the next `trials` trials to `statistics`, `batch` at a time on `threads` threads (all cores, if None).

    Neither changes a bit of the result. Memory: 112 n bytes for each block of a batch, whatever `trials`. MLPs have a compiled
    kernel; any other objective, or a code of the user's own, is evaluated as it is, one trial after another. A trial whose error
    is not finite raises InputError and leaves `statistics` as before its batch; so does an interruption.
    """
    design = statistics.design
    check_trials(statistics.next_trial, trials)
    statistics.bind(Point.of(objective, w, v, reading))
    compiled_code = design.code.function is None
    kernel = _mlp_kernel(objective, w, v, reading, design) if compiled_code and has_kernel(objective) else None
    blocks_of = kernel or partial(_any_trials, objective, w, v, reading, design)
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    threads = threads if kernel else 1
    batch = min(batch, BLOCK * max(threads, 2**28 // statistics.open[0].nbytes))  # 256 MB of sums
    last = statistics.next_trial + trials
    with ThreadPoolExecutor(threads) as pool:
        while (first := statistics.next_trial) < last:
            stop = min(last, first + batch)
            blocks = (stop - 1) // BLOCK - first // BLOCK + 1
            sums, totals = np.zeros((blocks, *statistics.open[0].shape)), np.zeros((blocks, statistics.open[1].size))
            sums[0], totals[0] = statistics.open
            failed = np.full(blocks, -1)
            cuts = [blocks * i // threads for i in range(threads + 1)]
            jobs = [
                pool.submit(blocks_of, max(first, (first // BLOCK + a) * BLOCK), stop, sums[a:b], totals[a:b], failed[a:b])
                for a, b in zip(cuts, cuts[1:], strict=False)
            ]
            for job in jobs:
                job.result()
            if (failed >= 0).any():
                raise design.not_finite(int(failed[failed >= 0][0]))
            whole = stop % BLOCK == 0
            for b in range(blocks if whole else blocks - 1):
                statistics.closed[0][...] += sums[b]
                statistics.closed[1][...] += totals[b]
            statistics.open = statistics.zeros() if whole else (sums[-1].copy(), totals[-1].copy())
            statistics.extend(stop - first)


def has_kernel(objective: Objective) -> TypeGuard[MLPObjective]:
    """Whether trials of this objective run compiled: MLPs whose activations and error have a compiled twin."""
    if not isinstance(objective, MLPObjective):
        return False
    return set(objective.network.activations) <= set(ACTIVATION_KINDS) and objective.network.error in ERROR_KINDS


def _mlp_kernel(objective: MLPObjective, w: np.ndarray, v: np.ndarray, reading: Reading, design: Design) -> partial:
    """`mlp_trials` with everything but the trials filled in."""
    network, method, code = objective.network, design.method, design.code
    (W1, b1), (V1, v_b) = network.unpack(w)[0], network.unpack(v)[0]
    x, target = np.ascontiguousarray(objective.x.T), np.ascontiguousarray(objective.target.T)
    base, along = W1.T @ x + b1[:, None], V1.T @ x + v_b[:, None]
    return partial(
        mlp_trials, x, target, np.array(network.layers), np.array([ACTIVATION_KINDS[name] for name in network.activations]),
        ERROR_KINDS[network.error], w, v, float(v @ v), design.r, base, along, np.array(method.phases, dtype=float),
        np.array(method.gradient_weights), np.array(method.hv_weights), REGRESSORS[method.regressor], design.kappa, code.kind,
        design.sigma, code.period(w.size), code.sensing, np.uint64(design.seed), reading.noise, reading.step,
        reading.range - reading.step, design.presentation == "pattern",
    )  # fmt: skip


@np.errstate(over="ignore", invalid="ignore")
def _any_trials(objective, w, v, reading, design, first, last, sums, totals, failed):
    """`mlp_trials` for any objective, at the cost of its own `pattern_errors`; ends at a trial that is not finite."""
    method, V, meter = design.method, float(v @ v), Meter(objective, design, reading)
    for trial in range(first, last):
        b = trial // BLOCK - first // BLOCK
        D = design.code.draw(w.size, design.sigma, design.seed, trial)
        known = design.code.sensed(D, design.sigma, design.seed, trial)
        points = [w + a * D + c * design.r * v for a, c in method.phases]
        E = [meter.measure(point, trial, phase) for phase, point in enumerate(points)]
        dE = (float(np.dot(method.gradient_weights, E)), float(np.dot(method.hv_weights, E)))
        if not np.isfinite(dE).all():
            failed[b] = trial
            return

        s, kind = float(known @ v), REGRESSORS[method.regressor]
        sums[b] = synapse.accumulate(tuple(sums[b]), known, dE, s, v, V, kind, design.kappa)
        totals[b] = synapse.count(tuple(totals[b]), dE, s)


@compiled(error_model="numpy", fastmath={"contract"})
def add_broadcast(sums, dw, dE, s, v, V, regressor_kind, kappa, arrived):
    """One broadcast meets the perturbations dw (n,) of the synapses it has reached: `synapse.accumulate` on sums (rows, n)."""
    for i in range(dw.size):
        if arrived[i]:
            _store(sums, i, _accumulate(_load(sums, i), dw[i], dE, s, v[i], V, regressor_kind, kappa))
