"""Dispatch of trials: to compiled kernels where there are some for a network, code and
precision, else to the network itself.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import TypeGuard

import numpy as np

from perturb.errors import InputError
from perturb.estimation.design import Design, check_trials
from perturb.estimation.meter import Meter, Mismatch, Readings, sum_trials
from perturb.estimation.point import Point, record
from perturb.estimation.statistics import Statistics
from perturb.kernels import float32_errors, float32_signs, float32_values
from perturb.kernels.activations import ACTIVATION_KINDS, ERROR_KINDS, compiled_twins
from perturb.kernels.arguments import (
    Block,
    Draws,
    Errors,
    Network,
    Patterns,
    Patterns32,
    Perturbations,
    Phases,
    Phases32,
    Points,
    Points32,
    Readout,
    Regressor,
    Regressor32,
    Sums,
    Trials,
    Weights,
)
from perturb.kernels.float32_by_patterns import WIDE
from perturb.kernels.float32_draws import SPARE, words_of
from perturb.kernels.float64 import (
    BLOCK,
    add_blocks,
    evaluate,
    mlp_trials,
    product,
)
from perturb.networks.layers.network import LayersObjective
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.threads import n_threads
from perturb.trial.methods import REGRESSORS
from perturb.trial.readout import Reading
from perturb.trial.synapse import SUMS

FAST_CODES = {
    "rademacher": float32_signs,
    "walsh": float32_signs,
    "gaussian": float32_values,
    "ternary": float32_values,
}


def run_trials(
    point: Point,
    reading: Reading,
    statistics: Statistics,
    trials: int,
    batch: int | None = None,
    threads: int | None = None,
    precision: str = "float64",
    mismatch: Mismatch | None = None,
) -> None:
    """Add the next `trials` trials to `statistics`, `batch` at a time on `threads` threads (None:
    `threads.n_threads`).

    Neither changes a bit of the result. precision: "float32" where there is a kernel for it
    (`has_fast_kernel`), which agrees with "float64" to its rounding. Memory: 112 n bytes for each
    block of a batch, whatever `trials`: without `batch` a few MB or a few blocks. MLPs have
    compiled kernels; any other objective, or a code of the user's own, is evaluated as it is, some
    trials at a time. A trial whose error is not finite raises InputError and leaves `statistics` as
    before its batch; so does an interruption.
    """
    objective, w, v = point.objective, point.w, point.v
    design, fast = statistics.design, precision == "float32"
    check_trials(statistics.next_trial, trials)
    statistics.bind(point.record(reading))
    if fast and not has_fast_kernel(objective, design):
        raise InputError(
            'precision = "float32" has no kernel for this network, code or presentation: use "auto"'
            ' or "float64"'
        )
    parallel, size = objective.parallel, BLOCK
    kernel: Callable[..., None]
    if has_kernel(objective) and design.code.function is None:
        parallel = True
        size = _span(design, mismatch) if fast else BLOCK
        kernel = (_fast_kernel if fast else _mlp_kernel)(objective, w, v, reading, design, mismatch)
    else:
        measured: Objective = objective
        if fast and isinstance(objective, LayersObjective):
            measured = objective.in_float32()
        kernel = partial(sum_trials, Meter(measured, design, reading), w, v, design, mismatch)
    threads = (threads or n_threads()) if parallel else 1
    batch = batch or _batch(statistics, objective, size, threads)
    _add_trials(statistics, kernel, v, trials, size, batch, threads, precision)


def run_readings(
    meter: Readings, w: np.ndarray, v: np.ndarray, statistics: Statistics, trials: int
) -> None:
    """Add the next `trials` trials to `statistics`, at w along v (n,), from what a meter reads: the
    sums that `run_trials` makes of an objective without a kernel.
    """
    statistics.bind(record(w, v, math.nan, ()))
    kernel = partial(sum_trials, meter, w, v, statistics.design, None)
    _add_trials(statistics, kernel, v, trials, BLOCK, max(trials, BLOCK), 1, "float64")


def _add_trials(
    statistics: Statistics,
    kernel: Callable[..., None],
    v: np.ndarray,
    trials: int,
    size: int,
    batch: int,
    threads: int,
    precision: str,
) -> None:
    """The next trials, by a kernel(first, last, to), in blocks of `size`."""
    design, fast = statistics.design, precision == "float32"
    last = statistics.next_trial + trials
    room = _sums(statistics, 0)
    with ThreadPoolExecutor(threads) as pool:
        while statistics.next_trial < last:
            # float32: a block that is open is summed again from its start, so that its bits do not
            # depend on where it was cut
            again = fast and statistics.opened is not None
            first = statistics.next_trial
            if again and statistics.opened is not None:
                first = statistics.opened
            # batches end where blocks do, so that only the last block of a run stays open
            stop = (statistics.next_trial + batch) // size * size
            stop = min(
                last, stop if stop > statistics.next_trial else statistics.next_trial + batch
            )
            blocks = (stop - 1) // size - first // size + 1
            if len(room[0]) < blocks:
                room = _sums(statistics, blocks)
            sums, totals = (array[:blocks] for array in room)
            sums[:], totals[:] = 0.0, 0.0
            if statistics.opened is not None and not again:
                sums[0], totals[0] = statistics.open
            # (dE_g, dE_z, s) of every trial, where periods are kept
            received = np.empty((3, stop - first if statistics.periods else 0))
            to = Sums(sums, totals, np.full(blocks, -1), received, first)
            _run(pool, threads, kernel, size, first, stop, to)
            # before anything is added: statistics are as before the batch
            if (to.failed >= 0).any():
                raise design.not_finite(int(to.failed[to.failed >= 0][0]))
            _close(pool, threads, statistics, to, size, stop)
            if statistics.periods:
                # trials of an open block that were summed again have been received before
                statistics.periods.receive(
                    statistics.next_trial, received[:, statistics.next_trial - first :], v
                )
            statistics.extend(stop - statistics.next_trial)
            statistics.precision = min(statistics.precision, precision)


def _batch(statistics: Statistics, objective: Objective, size: int, threads: int) -> int:
    """Trials with some MB of sums, and not much more than a second's work, so that an interruption
    is noticed.
    """
    design = statistics.design
    patterns = objective.n_patterns if design.presentation == "batch" else 1
    work = design.n_weights * len(design.method.phases) * patterns
    # for each thread 8 MB of sums and 2^31 multiplications
    blocks = max(1, min(2**23 // statistics.open[0].nbytes, 2**31 // (size * work)))
    if statistics.periods:  # and of broadcasts
        blocks = min(blocks, max(1, 2**18 // (size * threads)))
    return size * threads * blocks


def _sums(statistics: Statistics, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for the sums and totals of so many blocks."""
    sums, totals = statistics.open
    return np.empty((blocks, *sums.shape)), np.empty((blocks, totals.size))


def _run(
    pool: ThreadPoolExecutor,
    threads: int,
    kernel: Callable[..., None],
    size: int,
    first: int,
    stop: int,
    to: Sums,
) -> None:
    """Trials first..stop-1, in blocks of `size`, shared among threads."""
    cuts = [len(to.sums) * i // threads for i in range(threads + 1)]
    jobs = []
    for a, b in pairwise(cuts):
        begin, end = max(first, (first // size + a) * size), min(stop, (first // size + b) * size)
        if a < b:
            part = Sums(to.sums[a:b], to.totals[a:b], to.failed[a:b], to.received, to.origin)
            jobs.append(pool.submit(kernel, begin, end, part))
    # result() raises what was raised in the thread
    for job in jobs:
        job.result()


def _close(
    pool: ThreadPoolExecutor,
    threads: int,
    statistics: Statistics,
    to: Sums,
    size: int,
    stop: int,
) -> None:
    """Add the blocks that are complete to `statistics`; the last is open, if it is not."""
    blocks, whole = len(to.sums), stop % size == 0
    done = blocks if whole else blocks - 1
    # threads share rows, not blocks: whatever their number, a sum is added in one order
    rows = [len(SUMS) * i // threads for i in range(threads + 1)]
    for job in [
        pool.submit(add_blocks, to.sums, done, a, b, statistics.closed[0])
        for a, b in pairwise(rows)
    ]:
        job.result()
    add_blocks(to.totals[:, None], done, 0, 1, statistics.closed[1][None])
    if whole and statistics.opened is not None:
        statistics.open, statistics.opened = statistics.zeros(), None
    elif not whole:
        statistics.open = to.sums[-1].copy(), to.totals[-1].copy()
        if done or statistics.opened is None:
            # a run need not begin where a block does
            statistics.opened = max(to.origin, stop // size * size)


def has_kernel(objective: Objective) -> TypeGuard[MLPObjective]:
    """Whether trials of this objective run compiled: MLPs whose activations and error have a
    compiled twin.
    """
    if not isinstance(objective, MLPObjective):
        return False
    return compiled_twins(objective.network.activations, objective.network.error)


def has_fast_kernel(objective: Objective, design: Design) -> bool:
    """Whether these trials can run in float32: by kernels, or as networks of layers do."""
    code = design.code
    if isinstance(objective, LayersObjective):
        return design.presentation == "batch"
    known = code.name in FAST_CODES and code.function is None and code.sensing == 0.0
    return has_kernel(objective) and known and design.presentation == "batch"


def _mlp_kernel(
    objective: MLPObjective,
    w: np.ndarray,
    v: np.ndarray,
    reading: Reading,
    design: Design,
    mismatch: Mismatch | None,
) -> Callable[..., None]:
    """`mlp_trials` with everything but the trials filled in."""
    method, by_pattern, S = design.method, design.presentation == "pattern", objective.n_patterns
    x, target = objective.x.T.copy(), objective.target.T.copy()

    def weights(values: np.ndarray) -> Weights:
        W, b = objective.network.unpack(values)[0]
        return Weights(values.copy(), W.T @ x + b[:, None])

    network = _network(objective)
    # net inputs of the first layer are linear in the weights: made once, for all trials
    at_w, along_v = weights(w), weights(v)
    moved, gain = at_w, np.ones(w.size)
    if mismatch:
        moved, gain = weights(w + mismatch.offset), mismatch.gain.copy()
    at_rest = np.zeros(S)
    if (0, 0) in method.phases:  # where nothing but noise differs from trial to trial
        nothing = Weights(np.zeros(w.size), np.zeros_like(at_w.net_inputs))
        room = np.empty((2, max(network.sizes[1:]), S))
        evaluate(network, at_w, nothing, 0.0, along_v, 0.0, target, room, at_rest)
    a, b = np.array(method.phases, dtype=float).T.copy()
    trials = Trials(
        network,
        Patterns(x, target, at_rest),
        Points(at_w, moved, along_v, gain),
        Phases(a, b * design.r, np.array(method.gradient_weights), np.array(method.hv_weights)),
        _draws(design),
        Readout(float(reading.noise), float(reading.step), float(reading.range - reading.step)),
        Regressor(REGRESSORS[method.regressor], float(v @ v), design.kappa),
    )
    return partial(mlp_trials, trials, by_pattern)


def _network(objective: MLPObjective) -> Network:
    network = objective.network
    kinds = [ACTIVATION_KINDS[name] for name in network.activations]
    return Network(np.array(network.layers), np.array(kinds), ERROR_KINDS[network.error])


def _draws(design: Design) -> Draws:
    code, n = design.code, design.n_weights
    return Draws(
        code.kind, np.uint64(design.seed), design.sigma, code.period(n), code.taps(n), code.sensing
    )


def _fast_kernel(
    objective: MLPObjective,
    w: np.ndarray,
    v: np.ndarray,
    reading: Reading,
    design: Design,
    mismatch: Mismatch | None,
) -> Callable[..., None]:
    """`float32_signs.sign_trials` or `float32_values.float_trials` with everything but the
    trials filled in.
    """
    method, S = design.method, objective.n_patterns
    width = 4 if S < float32_errors.FEW else WIDE
    # whole vectors of `width` patterns, filled up with zeros
    Sp = (S + width - 1) // width * width
    kind, V = REGRESSORS[method.regressor], float(v @ v) or 1.0  # v may be 0 for the gradient alone
    size = float(np.linalg.norm(v)) or 1.0
    direction = _filled(v[None] / size, 1, (w.size + 63) // 64 * 64)[0]
    regressor = Regressor32(
        kind,
        direction[: None if method.needs_s else 0],
        v / (2 * V * V) if kind == 2 else np.zeros(w.size),
        {2: 1 / V, 3: 0.0}.get(kind, 1.0),
        design.sigma * size,
    )
    a = np.array([a for a, _ in method.phases], np.float32)
    unperturbed = np.array([a == b == 0 for a, b in method.phases], np.int64)
    trials = Trials(
        _network(objective),
        _patterns32(objective, design, Sp),
        _points32(objective, w, v, design, mismatch, Sp),
        Phases32(a, unperturbed, np.array(method.gradient_weights), np.array(method.hv_weights)),
        _draws(design),
        Readout(
            np.float32(reading.noise),
            np.float32(reading.step),
            np.float32(reading.range - reading.step),
        ),
        regressor,
    )
    trials = _with_errors_at_rest(trials, _points32(objective, w, v, design, None, Sp, ((0, 0),)))
    module = _module(design, mismatch)
    kernel = float32_signs.sign_trials if module is float32_signs else float32_values.float_trials
    return partial(kernel, trials, module.block(w.size), _span(design, mismatch))


def _patterns32(objective: MLPObjective, design: Design, Sp: int) -> Patterns32:
    S, sigma = objective.n_patterns, design.sigma
    inputs = np.concatenate([sigma * objective.x.T, np.full((1, S), sigma)])
    present = _filled(np.ones((1, S)), 1, Sp)[0]
    return Patterns32(
        _filled(inputs, (inputs.shape[0] + 3) // 4 * 4, Sp).ravel(),
        _filled(objective.target.T, objective.network.n_outputs, Sp).ravel(),
        np.zeros(Sp, np.float32),
        present[: 0 if S < float32_errors.FEW else None],
        S,
    )


def _points32(
    objective: MLPObjective,
    w: np.ndarray,
    v: np.ndarray,
    design: Design,
    mismatch: Mismatch | None,
    Sp: int,
    phases: Sequence[tuple[int, int]] | None = None,
) -> Points32:
    network, S = objective.network, objective.n_patterns
    offset, gain = (mismatch.offset, mismatch.gain) if mismatch else (0.0, np.ones(w.size))
    points = [
        w + (offset if a else 0.0) + b * design.r * v for a, b in phases or design.method.phases
    ]
    patterns, J = np.ascontiguousarray(objective.x.T), network.layers[1]
    n1 = (network.layers[0] + 1) * J
    base, rest = np.zeros((len(points) * J, Sp)), np.array([point[n1:] for point in points])
    for out, point in zip(np.split(base, len(points)), points, strict=True):
        net_inputs = np.empty((J, S))
        # BLAS would leave its threads spinning beside ours
        product(*network.unpack(point)[0], patterns, net_inputs)
        out[:, :S] = net_inputs
    return Points32(
        _filled(base, *base.shape).ravel(),
        _filled(rest, len(rest), w.size - n1 + 64),
        gain.astype(np.float32),
    )


def _with_errors_at_rest(trials: Trials, at_w: Points32) -> Trials:
    """Put in the errors at w, made as those of trials are made."""
    T, patterns, n = 16, trials.patterns, trials.points.gain.size
    zero, zeros, E = np.float32(0.0), np.zeros(1), np.zeros(T, np.float32)
    phase = Phases32(np.zeros(1, np.float32), np.zeros(1, np.int64), zeros, zeros)
    once = trials._replace(points=at_w, phases=phase, readout=Readout(zero, zero, zero))
    each = _filled(np.zeros((1, 0)), 1, patterns.at_rest.size + T)[0]
    bits = np.zeros(words_of(n) * (T + SPARE), np.uint64)
    float32_errors.measure(
        once,
        Block(0, 0, 1),
        Perturbations(bits, each[:0]),
        Errors(E, E.copy(), each),
        float32_errors.room_for_errors(trials, True),
    )
    return trials._replace(patterns=patterns._replace(at_rest=each[: patterns.at_rest.size]))


def _module(design: Design, mismatch: Mismatch | None) -> ModuleType:
    """The float32 kernels of a code; signs that reach every weight with a gain of its own are
    signs no more.
    """
    return float32_values if mismatch else FAST_CODES[design.code.name]


def _span(design: Design, mismatch: Mismatch | None) -> int:
    """Trials whose float32 kernels add to the same sums: several blocks, where the sums are too
    large to be added often.
    """
    return _module(design, mismatch).block(design.n_weights) * (
        1 if design.n_weights < 10_000 else 4 if design.n_weights < 50_000 else 8
    )


def _filled(array: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """As float32, filled up with zeros to (rows, columns), at a boundary of cache lines."""
    whole = np.zeros(rows * columns + 16, np.float32)
    # in floats of 4 bytes, to the next line of 64 bytes
    skip = -whole.ctypes.data % 64 // 4
    out = whole[skip : skip + rows * columns].reshape(rows, columns)
    out[: array.shape[0], : array.shape[1]] = array
    return out
