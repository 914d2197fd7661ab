"""Numba kernels: many perturbation trials of an MLP at once, with the same sums as the chip's synapses make.

Trials are summed one after another within aligned blocks of BLOCK, blocks are reduced in order: the bits do not depend on
threads, on the batch, or on how a run is split. The first layer is linear in its weights, so X(W + aD + brV) is put together
from XW and XV (once a run) and XD (once a trial), whatever the number of phases. Samples lie along the last axis, where LLVM
vectorises; `error_model="numpy"` because the check for division by zero would prevent that.
"""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple, TypeGuard

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from perturb.compiled import compiled
from perturb.errors import InputError
from perturb.estimation.statistics import Design, Point, Statistics, check_trials
from perturb.kernels import float32_errors as fast_errors
from perturb.kernels import float32_signs as fast_kernels
from perturb.kernels import float32_values as float_kernels
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.threads import n_threads
from perturb.trial import readout as reading
from perturb.trial import synapse
from perturb.trial.methods import REGRESSORS
from perturb.trial.random import NOISE, normals, pattern_index, perturbation, sense
from perturb.trial.readout import Meter, Reading
from perturb.trial.synapse import SUMS

BLOCK = 64
FAST_CODES = {"rademacher": fast_kernels, "walsh": fast_kernels, "gaussian": float_kernels, "ternary": float_kernels}
ACTIVATION_KINDS = {"linear": 0, "tanh": 1, "logistic": 2, "relu": 3, "softplus": 4}
ERROR_KINDS = {"squared_error": 0, "cross_entropy": 1, "binary_cross_entropy": 2}

_accumulate = njit(synapse.accumulate)
_count = njit(synapse.count)
_read = njit(reading.read)


@intrinsic
def bits_of(typingctx, x):
    return types.int64(types.float64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(64))


@intrinsic
def float_of(typingctx, x):
    return types.float64(types.int64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.DoubleType())


@compiled(inline="always")
def exp(x):
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
    return p * float_of((bits_of(shifted) + 1023) << 52)


@compiled(error_model="numpy", fastmath={"contract"})
def activate(kind, row):
    if kind == 1:
        for s in range(row.size):
            x = row[s]
            t = 1.0 - 2.0 / (exp(2.0 * abs(x)) + 1.0)
            row[s] = t if x >= 0.0 else -t
    elif kind == 2:
        for s in range(row.size):
            row[s] = 1.0 / (1.0 + exp(-row[s]))
    elif kind == 3:
        for s in range(row.size):
            row[s] = 0.0 if row[s] < 0.0 else row[s]
    elif kind == 4:
        for s in range(row.size):
            x = row[s]
            row[s] = (x if x > 0.0 else 0.0) + math.log1p(exp(-abs(x)))


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
def pattern_errors(kind, y, target, out):
    n_out, S = y.shape
    for s in range(S):
        out[s] = 0.0
    if kind == 0:
        for j in range(n_out):
            for s in range(S):
                out[s] += 0.5 * (y[j, s] - target[j, s]) ** 2
    elif kind == 1:
        for s in range(S):
            top, best = y[0, s], 0
            for j in range(1, n_out):
                if y[j, s] > top:
                    top, best = y[j, s], j
            others, weight, inner = 0.0, 0.0, 0.0
            for j in range(n_out):
                below = top - y[j, s]
                others += exp(-below) if j != best else 0.0
                weight += target[j, s]
                inner += target[j, s] * below
            out[s] = weight * math.log1p(others) + inner
    else:
        for j in range(n_out):
            for s in range(S):
                x, t = y[j, s], target[j, s]
                out[s] += abs(x) * (1.0 - t if x > 0.0 else t) + math.log1p(exp(-abs(x)))


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
    x, target, sizes, activations, error_kind, w, v, V, r, base, along, gain, w_moved, base_moved, phases, gradient_weights,
    hv_weights, regressor_kind, kappa, code_kind, sigma, period, taps, sensing, seed, noise, step, top, by_pattern, at_rest,
    first, last, sums, totals, heard, origin,
):  # fmt: skip
    """Add trials first..last-1, in order, to sums (rows, n) and totals; return the first with a non-finite error, or -1.

    heard: for what is broadcast of trials from `origin` on, (3, trials), or (3, 0). gain D reaches the weights; w_moved,
    base_moved: w and base in phases that D moves, see `Mismatch`."""
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
        s = _dot(known, v) if regressor_kind == 1 or regressor_kind == 2 else 0.0  # summed only where it is broadcast
        start = pattern_index(seed, trial, x.shape[1]) if by_pattern else 0
        for i in range(w.size):
            A[i] = gain[i] * D[i]
        product(A[:n1].reshape(sizes[0], sizes[1]), A[n1 : n1 + sizes[1]], x[:, start : start + S], moved)

        # measure
        y, u = 0.0, 0.0
        for p in range(phases.shape[0]):
            still = phases[p, 0] == 0.0 and phases[p, 1] == 0.0
            if not still:
                own = phases[p, 0] != 0.0
                _evaluate(
                    sizes, activations, error_kind, w_moved if own else w, v, A, phases[p, 0], phases[p, 1] * r,
                    (base_moved if own else base)[:, start : start + S], along[:, start : start + S], moved,
                    target[:, start : start + S], buffers, errors,
                )  # fmt: skip
            if noise > 0.0:
                normals(seed, NOISE, trial, p, xi)
            E = 0.0
            for k in range(S):
                E += _read(at_rest[start + k] if still else errors[k], xi[k], noise, step, top)
            E /= S
            y += gradient_weights[p] * E
            u += hv_weights[p] * E
        if failed < 0 and not (math.isfinite(y) and math.isfinite(u)):
            failed = trial

        # broadcast and accumulate
        dE = (y, u)
        if heard.shape[1]:
            heard[0, trial - origin], heard[1, trial - origin], heard[2, trial - origin] = y, u, s
        _count_into(totals, dE, s)
        for i in range(w.size):
            _store(sums, i, _accumulate(_load(sums, i), known[i], dE, s, v[i], V, regressor_kind, kappa))
    return failed


@compiled(nogil=True)
def mlp_trials(
    x, target, sizes, activations, error_kind, w, v, V, r, base, along, gain, w_moved, base_moved, phases, gradient_weights,
    hv_weights, regressor_kind, kappa, code_kind, sigma, period, taps, sensing, seed, noise, step, top, by_pattern, first, last,
    sums, totals, failed, heard,
):  # fmt: skip
    """Trials first..last-1 in aligned blocks: the b-th adds to sums[b] (rows, n), totals[b] and sets failed[b], see `_block`.
    x, target: (units, S). heard: (3, trials) for what they broadcast, or (3, 0)."""
    # errors at w, where nothing but the noise differs from trial to trial
    width = 0
    for units in sizes[1:]:
        width = max(width, units)
    at_rest, zeros, buffers = np.empty(x.shape[1]), np.zeros(w.size), np.empty((2, width, x.shape[1]))
    _evaluate(sizes, activations, error_kind, w, v, zeros, 0.0, 0.0, base, along, base, target, buffers, at_rest)
    for b in range(sums.shape[0]):
        start = (first // BLOCK + b) * BLOCK
        failed[b] = _block(
            x, target, sizes, activations, error_kind, w, v, V, r, base, along, gain, w_moved, base_moved, phases,
            gradient_weights, hv_weights, regressor_kind, kappa, code_kind, sigma, period, taps, sensing, seed, noise, step, top,
            by_pattern, at_rest,
            max(first, start), min(last, start + BLOCK), sums[b], totals[b], heard, first,
        )  # fmt: skip


class Mismatch(NamedTuple):
    """What reaches the weights of dw, each with (n,) numbers of its own: gain a dw + offset, in every phase with a != 0. The
    synapses know nothing of it."""

    gain: np.ndarray
    offset: np.ndarray


def run_trials(
    objective: Objective,
    w: np.ndarray,
    v: np.ndarray,
    reading: Reading,
    statistics: Statistics,
    trials: int,
    batch: int | None = None,
    threads: int | None = None,
    precision: str = "float64",
    mismatch: Mismatch | None = None,
) -> None:
    """Add the next `trials` trials to `statistics`, `batch` at a time on `threads` threads (None: `threads.n_threads`).

    Neither changes a bit of the result. precision: "float32" where there is a kernel for it (`has_fast_kernel`), which agrees
    with "float64" to its rounding. Memory: 112 n bytes for each block of a batch, whatever `trials`: without `batch` a few MB
    or a few blocks. MLPs have compiled kernels; any other objective, or a code of the user's own, is evaluated as it is, some
    trials at a time. A trial whose error is not finite raises InputError and leaves `statistics` as before its batch; so does
    an interruption.
    """
    design, fast = statistics.design, precision == "float32"
    check_trials(statistics.next_trial, trials)
    statistics.bind(Point.of(objective, w, v, reading))
    if fast and not has_fast_kernel(objective, design):
        raise InputError('precision = "float32" has no kernel for this network, code or presentation: use "auto" or "float64"')
    kernel = None
    if has_kernel(objective) and design.code.function is None:
        kernel = (_fast_kernel if fast else _mlp_kernel)(objective, w, v, reading, design, mismatch)
    blocks_of = kernel or partial(_any_trials, objective, w, v, reading, design, mismatch)
    threads = (threads or n_threads()) if kernel or objective.parallel else 1
    size = _span(design, mismatch) if fast else BLOCK
    if batch is None:
        # some MB of sums, and not much more than a second's work, so that an interruption is heard
        work = design.n_weights * len(design.method.phases) * (objective.n_patterns if design.presentation == "batch" else 1)
        batch = size * threads * max(1, min(2**23 // statistics.open[0].nbytes, 2**31 // (size * work)))
        if statistics.periods:  # and of broadcasts
            batch = min(batch, max(size * threads, 2**18 // (size * threads) * size * threads))
    last = statistics.next_trial + trials
    sums, totals = np.empty((0, *statistics.open[0].shape)), np.empty((0, statistics.open[1].size))
    with ThreadPoolExecutor(threads) as pool:
        while statistics.next_trial < last:
            # float32: a block that is open is summed again from its start, so that its bits do not depend on where it was cut
            again = fast and statistics.opened is not None
            first = statistics.opened if again and statistics.opened is not None else statistics.next_trial
            stop = (statistics.next_trial + batch) // size * size
            stop = min(last, stop if stop > statistics.next_trial else statistics.next_trial + batch)
            blocks = (stop - 1) // size - first // size + 1
            if len(sums) < blocks:
                sums, totals = np.empty((blocks, *statistics.open[0].shape)), np.empty((blocks, statistics.open[1].size))
            sums[:blocks], totals[:blocks] = 0.0, 0.0
            if statistics.opened is not None and not again:
                sums[0], totals[0] = statistics.open
            failed = np.full(blocks, -1)
            heard = np.empty((3, stop - first if statistics.periods else 0))
            cuts = [blocks * i // threads for i in range(threads + 1)]
            jobs = []
            for a, b in pairwise(cuts):
                begin, end = max(first, (first // size + a) * size), min(stop, (first // size + b) * size)
                if a < b:
                    parts = sums[a:b], totals[a:b], failed[a:b], heard[:, begin - first : end - first]
                    jobs.append(pool.submit(blocks_of, begin, end, *parts))
            for job in jobs:
                job.result()
            if (failed >= 0).any():
                raise design.not_finite(int(failed[failed >= 0][0]))
            whole = stop % size == 0
            done = blocks if whole else blocks - 1
            rows = [len(SUMS) * i // threads for i in range(threads + 1)]
            for job in [pool.submit(_add_blocks, sums, done, a, b, statistics.closed[0]) for a, b in pairwise(rows)]:
                job.result()
            _add_blocks(totals[:, None], done, 0, 1, statistics.closed[1][None])
            if whole and statistics.opened is not None:
                statistics.open, statistics.opened = statistics.zeros(), None
            elif not whole:
                statistics.open = sums[blocks - 1].copy(), totals[blocks - 1].copy()
                if done or statistics.opened is None:
                    statistics.opened = max(first, stop // size * size)
            if statistics.periods:
                statistics.periods.hear(statistics.next_trial, heard[:, statistics.next_trial - first :], v)
            statistics.extend(stop - statistics.next_trial)
            statistics.precision = min(statistics.precision, precision)


@compiled(nogil=True)
def _add_blocks(sums, count, first_row, last_row, to):
    # one block after another, so that the bits do not depend on how many come at once
    for row in range(first_row, last_row):
        for b in range(count):
            for i in range(to.shape[1]):
                to[row, i] += sums[b, row, i]


def has_kernel(objective: Objective) -> TypeGuard[MLPObjective]:
    """Whether trials of this objective run compiled: MLPs whose activations and error have a compiled twin."""
    if not isinstance(objective, MLPObjective):
        return False
    return compiled_twins(objective.network.activations, objective.network.error)


def compiled_twins(activations: Iterable[str], error: str) -> bool:
    """Whether these have compiled twins here (those that a user has added have none)."""
    return set(activations) <= set(ACTIVATION_KINDS) and error in ERROR_KINDS


def has_fast_kernel(objective: Objective, design: Design) -> TypeGuard[MLPObjective]:
    """Whether these trials can run in float32."""
    code = design.code
    known = code.name in FAST_CODES and code.function is None and code.sensing == 0.0
    return has_kernel(objective) and known and design.presentation == "batch"


def _mlp_kernel(
    objective: MLPObjective, w: np.ndarray, v: np.ndarray, reading: Reading, design: Design, mismatch: Mismatch | None
) -> partial:
    """`mlp_trials` with everything but the trials filled in."""
    network, method, code = objective.network, design.method, design.code
    (W1, b1), (V1, v_b) = network.unpack(w)[0], network.unpack(v)[0]
    x, target = np.ascontiguousarray(objective.x.T), np.ascontiguousarray(objective.target.T)
    base, along = W1.T @ x + b1[:, None], V1.T @ x + v_b[:, None]
    gain, w_moved, base_moved = np.ones(w.size), w, base
    if mismatch:
        gain, w_moved = mismatch.gain, w + mismatch.offset
        W1, b1 = network.unpack(w_moved)[0]
        base_moved = W1.T @ x + b1[:, None]
    return partial(
        mlp_trials, x, target, np.array(network.layers), np.array([ACTIVATION_KINDS[name] for name in network.activations]),
        ERROR_KINDS[network.error], w, v, float(v @ v), design.r, base, along, gain, w_moved, base_moved,
        np.array(method.phases, dtype=float), np.array(method.gradient_weights), np.array(method.hv_weights),
        REGRESSORS[method.regressor], design.kappa, code.kind, design.sigma, code.period(w.size), code.taps(w.size),
        code.sensing, np.uint64(design.seed), reading.noise, reading.step, reading.range - reading.step,
        design.presentation == "pattern",
    )  # fmt: skip


def _fast_kernel(
    objective: MLPObjective, w: np.ndarray, v: np.ndarray, reading: Reading, design: Design, mismatch: Mismatch | None
) -> partial:
    """`fast_kernels.sign_trials` or `float_kernels.float_trials` with everything but the trials filled in."""
    network, method, code, S = objective.network, design.method, design.code, objective.n_patterns
    by_trials = S < fast_errors.FEW
    width = 4 if by_trials else fast_errors.WIDE
    Sp, n1 = (S + width - 1) // width * width, (network.layers[0] + 1) * network.layers[1]
    inputs = np.concatenate([design.sigma * objective.x.T, np.full((1, S), design.sigma)])
    x = _filled(inputs, (inputs.shape[0] + 3) // 4 * 4, Sp)
    target = _filled(objective.target.T, network.n_outputs, Sp)
    present = np.zeros(0, np.float32) if by_trials else _filled(np.ones((1, S)), 1, Sp)[0]
    sizes, activations = np.array(network.layers), np.array([ACTIVATION_KINDS[name] for name in network.activations])
    regressor_kind = REGRESSORS[method.regressor]
    size, V = float(np.linalg.norm(v)) or 1.0, float(v @ v) or 1.0  # v may be 0 for the gradient alone

    offset = mismatch.offset if mismatch else np.zeros(w.size)

    def arrays(phases: Iterable[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Net inputs of the first layer at the points of phases without D, and the other layers' weights there."""
        points = [w + (offset if a else 0.0) + b * design.r * v for a, b in phases]
        patterns = np.ascontiguousarray(objective.x.T)
        base, rest = np.zeros((len(points) * network.layers[1], Sp)), np.array([point[n1:] for point in points])
        for out, point in zip(np.split(base, len(points)), points, strict=True):
            own = np.empty((network.layers[1], S))
            product(*network.unpack(point)[0], patterns, own)  # BLAS would leave its threads spinning beside ours
            out[:, :S] = own
        return _filled(base, *base.shape).ravel(), _filled(rest, len(rest), w.size - n1 + 64)

    common = (sizes, activations, ERROR_KINDS[network.error], x.ravel())
    constants = (np.uint64(design.seed), *(np.float32(a) for a in (reading.noise, reading.step, reading.range - reading.step)))
    ref = _filled(np.zeros((1, Sp)), 1, Sp + 16)[0]
    E, bits = np.zeros(16, np.float32), np.zeros(2 * ((w.size + 127) // 128) * (16 + fast_errors.SPARE), np.uint64)
    one = (np.zeros(1, np.float32), np.zeros(1, np.int64), np.float32(design.sigma), constants[0], *(np.float32(0.0),) * 3, 0)
    where = (bits, ref[:0], ref[:0], 0, 1, E, E.copy(), ref)
    if by_trials:
        scratch = np.zeros(fast_errors.room_by_trials(sizes, Sp, True), np.float32)
        fast_errors.errors_by_trials(*common, *arrays([(0, 0)]), target.ravel(), ref[:Sp].copy(), S, *one, *where, scratch)
    else:
        fast_errors.errors_by_patterns(*common, *arrays([(0, 0)]), target.ravel(), ref[:Sp].copy(), present, *one, *where)
    ref = ref[:Sp]
    base, rest = arrays(method.phases)
    room = _room(design, mismatch)
    gain = () if room is fast_kernels else ((mismatch.gain if mismatch else np.ones(w.size)).astype(np.float32),)
    return partial(
        fast_kernels.sign_trials if room is fast_kernels else float_kernels.float_trials, *gain, *common, base, rest,
        target.ravel(), ref, present, S,
        _filled(v[None] / size, 1, (w.size + 63) // 64 * 64)[0][: None if method.needs_s else 0],
        v / (2 * V * V) if regressor_kind == 2 else np.zeros(w.size),
        {2: 1 / V, 3: 0.0}.get(regressor_kind, 1.0), regressor_kind, design.sigma * size,
        np.array([a for a, _ in method.phases], np.float32), np.array([a == b == 0 for a, b in method.phases], np.int64),
        np.array(method.gradient_weights), np.array(method.hv_weights), code.kind, design.sigma, code.period(w.size), *constants,
        room.block(w.size), _span(design, mismatch),
    )  # fmt: skip


def _room(design: Design, mismatch: Mismatch | None) -> ModuleType:
    """The float32 kernels of a code; signs that reach every weight with a gain of its own are signs no more."""
    return float_kernels if mismatch else FAST_CODES[design.code.name]


def _span(design: Design, mismatch: Mismatch | None) -> int:
    """Trials whose float32 kernels add to the same sums: several blocks, where the sums are too large to be added often."""
    return _room(design, mismatch).block(design.n_weights) * (
        1 if design.n_weights < 10_000 else 4 if design.n_weights < 50_000 else 8
    )


def _filled(array: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """As float32, filled up with zeros to (rows, columns), at a boundary of cache lines."""
    whole = np.zeros(rows * columns + 16, np.float32)
    skip = -whole.ctypes.data % 64 // 4
    out = whole[skip : skip + rows * columns].reshape(rows, columns)
    out[: array.shape[0], : array.shape[1]] = array
    return out


@np.errstate(over="ignore", invalid="ignore")
def _any_trials(objective, w, v, reading, design, mismatch, first, last, sums, totals, failed, heard):
    """`mlp_trials` for any objective, some trials at a time: at the cost of its own `errors_at`; ends at a trial not finite."""
    method, code, V, meter = design.method, design.code, float(v @ v), Meter(objective, design, reading)
    kind = REGRESSORS[method.regressor]
    together = max(1, min(8 * BLOCK, 2**20 // w.size))
    for begin in range(first, last, together):
        trials = range(begin, min(begin + together, last))
        D = code.draw_each(w.size, design.sigma, design.seed, np.array(trials))
        known = D
        if code.sensing > 0.0:
            known = np.array([code.sensed(dw, design.sigma, design.seed, trial) for dw, trial in zip(D, trials, strict=True)])
        y, u = np.zeros(len(trials)), np.zeros(len(trials))
        for phase, (a, c) in enumerate(method.phases):
            # a network's errors at w are the same in all trials; a function of the user's own may measure something
            once = a == c == 0 and objective.parallel
            applied = a * D if mismatch is None or a == 0 else a * mismatch.gain * D + mismatch.offset
            E = meter.measure_each(w[None] if once else w + applied + c * design.r * v, trials, phase)
            y += method.gradient_weights[phase] * E
            u += method.hv_weights[phase] * E
        wrong = ~np.isfinite(y + u)
        if wrong.any():
            failed[:] = trials[int(np.argmax(wrong))]
            return
        for b in range(begin // BLOCK, (trials.stop - 1) // BLOCK + 1):
            own = slice(max(0, b * BLOCK - begin), (b + 1) * BLOCK - begin)
            at = b - first // BLOCK
            s = _accumulate_each(known[own], y[own], u[own], v, V, kind, design.kappa, sums[at], totals[at])
            if heard.shape[1]:
                heard[:, begin - first :][:, own] = y[own], u[own], s


@compiled(nogil=True)
def along(D, v):
    """dw.v of each row of D (trials, n)."""
    s = np.empty(D.shape[0])
    for t in range(s.size):
        s[t] = _dot(D[t], v)
    return s


@compiled(nogil=True, error_model="numpy", fastmath={"contract"})
def _accumulate_each(D, y, u, v, V, kind, kappa, sums, totals):
    s = along(D, v) if kind == 1 or kind == 2 else np.zeros(y.size)
    add_broadcasts(sums, totals, D, y, u, s, v, V, kind, kappa)
    return s


@compiled(error_model="numpy", fastmath={"contract"})
def add_broadcasts(sums, totals, known, y, u, s, v, V, regressor_kind, kappa):
    """Broadcasts dE = (y, u) and s of some trials (trials,) meet the perturbations known (trials, n) of all synapses, in order:
    `synapse.accumulate` on sums (rows, n) and `synapse.count` on totals."""
    for t in range(y.size):
        _count_into(totals, (y[t], u[t]), s[t])
    for i in range(v.size):
        state = _load(sums, i)  # stays in registers
        for t in range(y.size):
            state = _accumulate(state, known[t, i], (y[t], u[t]), s[t], v[i], V, regressor_kind, kappa)
        _store(sums, i, state)


@compiled(error_model="numpy", fastmath={"contract"})
def add_broadcast(sums, dw, dE, s, v, V, regressor_kind, kappa, arrived):
    """One broadcast meets the perturbations dw (n,) of the synapses it has reached: `synapse.accumulate` on sums (rows, n)."""
    for i in range(dw.size):
        if arrived[i]:
            _store(sums, i, _accumulate(_load(sums, i), dw[i], dE, s, v[i], V, regressor_kind, kappa))
