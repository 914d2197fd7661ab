"""Dispatch of trials: to compiled kernels where there are some for a network, code and
precision, else to the network itself.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple, TypeGuard

import numpy as np

from perturb.errors import InputError
from perturb.estimation.design import Design, check_trials
from perturb.estimation.meter import Meter
from perturb.estimation.point import Point
from perturb.estimation.statistics import Statistics
from perturb.kernels import float32_errors, float32_signs, float32_values
from perturb.kernels.activations import ACTIVATION_KINDS, ERROR_KINDS, compiled_twins
from perturb.kernels.float64 import BLOCK, accumulate_each, add_blocks, mlp_trials, product
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


class Mismatch(NamedTuple):
    """What reaches the weights of dw, each with (n,) numbers of its own: gain a dw + offset, in
    every phase with a != 0. The synapses know nothing of it.
    """

    gain: np.ndarray
    offset: np.ndarray


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
    kernel = None
    if has_kernel(objective) and design.code.function is None:
        kernel = (_fast_kernel if fast else _mlp_kernel)(objective, w, v, reading, design, mismatch)
    blocks_of = kernel or partial(_any_trials, objective, w, v, reading, design, mismatch)
    threads = (threads or n_threads()) if kernel or objective.parallel else 1
    size = _span(design, mismatch) if fast else BLOCK
    if batch is None:
        # some MB of sums, and not much more than a second's work, so that an interruption is
        # noticed
        work = (
            design.n_weights
            * len(design.method.phases)
            * (objective.n_patterns if design.presentation == "batch" else 1)
        )
        batch = (
            size * threads * max(1, min(2**23 // statistics.open[0].nbytes, 2**31 // (size * work)))
        )
        if statistics.periods:  # and of broadcasts
            batch = min(batch, max(size * threads, 2**18 // (size * threads) * size * threads))
    last = statistics.next_trial + trials
    sums, totals = np.empty((0, *statistics.open[0].shape)), np.empty((0, statistics.open[1].size))
    with ThreadPoolExecutor(threads) as pool:
        while statistics.next_trial < last:
            # float32: a block that is open is summed again from its start, so that its bits do not
            # depend on where it was cut
            again = fast and statistics.opened is not None
            first = (
                statistics.opened
                if again and statistics.opened is not None
                else statistics.next_trial
            )
            stop = (statistics.next_trial + batch) // size * size
            stop = min(
                last, stop if stop > statistics.next_trial else statistics.next_trial + batch
            )
            blocks = (stop - 1) // size - first // size + 1
            if len(sums) < blocks:
                sums, totals = (
                    np.empty((blocks, *statistics.open[0].shape)),
                    np.empty((blocks, statistics.open[1].size)),
                )
            sums[:blocks], totals[:blocks] = 0.0, 0.0
            if statistics.opened is not None and not again:
                sums[0], totals[0] = statistics.open
            failed = np.full(blocks, -1)
            received = np.empty((3, stop - first if statistics.periods else 0))
            cuts = [blocks * i // threads for i in range(threads + 1)]
            jobs = []
            for a, b in pairwise(cuts):
                begin, end = (
                    max(first, (first // size + a) * size),
                    min(stop, (first // size + b) * size),
                )
                if a < b:
                    parts = (
                        sums[a:b],
                        totals[a:b],
                        failed[a:b],
                        received[:, begin - first : end - first],
                    )
                    jobs.append(pool.submit(blocks_of, begin, end, *parts))
            for job in jobs:
                job.result()
            if (failed >= 0).any():
                raise design.not_finite(int(failed[failed >= 0][0]))
            whole = stop % size == 0
            done = blocks if whole else blocks - 1
            rows = [len(SUMS) * i // threads for i in range(threads + 1)]
            for job in [
                pool.submit(add_blocks, sums, done, a, b, statistics.closed[0])
                for a, b in pairwise(rows)
            ]:
                job.result()
            add_blocks(totals[:, None], done, 0, 1, statistics.closed[1][None])
            if whole and statistics.opened is not None:
                statistics.open, statistics.opened = statistics.zeros(), None
            elif not whole:
                statistics.open = sums[blocks - 1].copy(), totals[blocks - 1].copy()
                if done or statistics.opened is None:
                    statistics.opened = max(first, stop // size * size)
            if statistics.periods:
                statistics.periods.receive(
                    statistics.next_trial, received[:, statistics.next_trial - first :], v
                )
            statistics.extend(stop - statistics.next_trial)
            statistics.precision = min(statistics.precision, precision)


def has_kernel(objective: Objective) -> TypeGuard[MLPObjective]:
    """Whether trials of this objective run compiled: MLPs whose activations and error have a
    compiled twin.
    """
    if not isinstance(objective, MLPObjective):
        return False
    return compiled_twins(objective.network.activations, objective.network.error)


def has_fast_kernel(objective: Objective, design: Design) -> TypeGuard[MLPObjective]:
    """Whether these trials can run in float32."""
    code = design.code
    known = code.name in FAST_CODES and code.function is None and code.sensing == 0.0
    return has_kernel(objective) and known and design.presentation == "batch"


def _mlp_kernel(
    objective: MLPObjective,
    w: np.ndarray,
    v: np.ndarray,
    reading: Reading,
    design: Design,
    mismatch: Mismatch | None,
) -> partial:
    """`mlp_trials` with everything but the trials filled in."""
    network, method, code = objective.network, design.method, design.code
    (W1, b1), (V1, v_b) = network.unpack(w)[0], network.unpack(v)[0]
    x, target = np.ascontiguousarray(objective.x.T), np.ascontiguousarray(objective.target.T)
    base, base_v = W1.T @ x + b1[:, None], V1.T @ x + v_b[:, None]
    gain, w_moved, base_moved = np.ones(w.size), w, base
    if mismatch:
        gain, w_moved = mismatch.gain, w + mismatch.offset
        W1, b1 = network.unpack(w_moved)[0]
        base_moved = W1.T @ x + b1[:, None]
    return partial(
        mlp_trials,
        x,
        target,
        np.array(network.layers),
        np.array([ACTIVATION_KINDS[name] for name in network.activations]),
        ERROR_KINDS[network.error],
        w,
        v,
        float(v @ v),
        design.r,
        base,
        base_v,
        gain,
        w_moved,
        base_moved,
        np.array(method.phases, dtype=float),
        np.array(method.gradient_weights),
        np.array(method.hv_weights),
        REGRESSORS[method.regressor],
        design.kappa,
        code.kind,
        design.sigma,
        code.period(w.size),
        code.taps(w.size),
        code.sensing,
        np.uint64(design.seed),
        reading.noise,
        reading.step,
        reading.range - reading.step,
        design.presentation == "pattern",
    )


def _fast_kernel(
    objective: MLPObjective,
    w: np.ndarray,
    v: np.ndarray,
    reading: Reading,
    design: Design,
    mismatch: Mismatch | None,
) -> partial:
    """`float32_signs.sign_trials` or `float32_values.float_trials` with everything but the
    trials filled in.
    """
    network, method, code, S = objective.network, design.method, design.code, objective.n_patterns
    by_trials = S < float32_errors.FEW
    width = 4 if by_trials else float32_errors.WIDE
    Sp, n1 = (S + width - 1) // width * width, (network.layers[0] + 1) * network.layers[1]
    inputs = np.concatenate([design.sigma * objective.x.T, np.full((1, S), design.sigma)])
    x = _filled(inputs, (inputs.shape[0] + 3) // 4 * 4, Sp)
    target = _filled(objective.target.T, network.n_outputs, Sp)
    present = np.zeros(0, np.float32) if by_trials else _filled(np.ones((1, S)), 1, Sp)[0]
    sizes, activations = (
        np.array(network.layers),
        np.array([ACTIVATION_KINDS[name] for name in network.activations]),
    )
    regressor_kind = REGRESSORS[method.regressor]
    size, V = (
        float(np.linalg.norm(v)) or 1.0,
        float(v @ v) or 1.0,
    )  # v may be 0 for the gradient alone

    offset = mismatch.offset if mismatch else np.zeros(w.size)

    def arrays(phases: Iterable[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Net inputs of the first layer at the points of phases without D, and the other layers'
        weights there.
        """
        points = [w + (offset if a else 0.0) + b * design.r * v for a, b in phases]
        patterns = np.ascontiguousarray(objective.x.T)
        base, rest = (
            np.zeros((len(points) * network.layers[1], Sp)),
            np.array([point[n1:] for point in points]),
        )
        for out, point in zip(np.split(base, len(points)), points, strict=True):
            net_inputs = np.empty((network.layers[1], S))
            product(
                *network.unpack(point)[0], patterns, net_inputs
            )  # BLAS would leave its threads spinning beside ours
            out[:, :S] = net_inputs
        return _filled(base, *base.shape).ravel(), _filled(rest, len(rest), w.size - n1 + 64)

    common = (sizes, activations, ERROR_KINDS[network.error], x.ravel())
    constants = (
        np.uint64(design.seed),
        *(np.float32(a) for a in (reading.noise, reading.step, reading.range - reading.step)),
    )
    ref = _filled(np.zeros((1, Sp)), 1, Sp + 16)[0]
    E, bits = (
        np.zeros(16, np.float32),
        np.zeros(2 * ((w.size + 127) // 128) * (16 + float32_errors.SPARE), np.uint64),
    )
    one = (
        np.zeros(1, np.float32),
        np.zeros(1, np.int64),
        np.float32(design.sigma),
        constants[0],
        *(np.float32(0.0),) * 3,
        0,
    )
    where = (bits, ref[:0], ref[:0], 0, 1, E, E.copy(), ref)
    if by_trials:
        scratch = np.zeros(float32_errors.room_by_trials(sizes, Sp, True), np.float32)
        float32_errors.errors_by_trials(
            *common, *arrays([(0, 0)]), target.ravel(), ref[:Sp].copy(), S, *one, *where, scratch
        )
    else:
        float32_errors.errors_by_patterns(
            *common, *arrays([(0, 0)]), target.ravel(), ref[:Sp].copy(), present, *one, *where
        )
    ref = ref[:Sp]
    base, rest = arrays(method.phases)
    module = _module(design, mismatch)
    gain = (
        ()
        if module is float32_signs
        else ((mismatch.gain if mismatch else np.ones(w.size)).astype(np.float32),)
    )
    return partial(
        float32_signs.sign_trials if module is float32_signs else float32_values.float_trials,
        *gain,
        *common,
        base,
        rest,
        target.ravel(),
        ref,
        present,
        S,
        _filled(v[None] / size, 1, (w.size + 63) // 64 * 64)[0][: None if method.needs_s else 0],
        v / (2 * V * V) if regressor_kind == 2 else np.zeros(w.size),
        {2: 1 / V, 3: 0.0}.get(regressor_kind, 1.0),
        regressor_kind,
        design.sigma * size,
        np.array([a for a, _ in method.phases], np.float32),
        np.array([a == b == 0 for a, b in method.phases], np.int64),
        np.array(method.gradient_weights),
        np.array(method.hv_weights),
        code.kind,
        design.sigma,
        code.period(w.size),
        *constants,
        module.block(w.size),
        _span(design, mismatch),
    )


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
    skip = -whole.ctypes.data % 64 // 4
    out = whole[skip : skip + rows * columns].reshape(rows, columns)
    out[: array.shape[0], : array.shape[1]] = array
    return out


@np.errstate(over="ignore", invalid="ignore")
def _any_trials(
    objective, w, v, reading, design, mismatch, first, last, sums, totals, failed, received
):
    """`mlp_trials` for any objective, some trials at a time: at the cost of its own `errors_at`;
    ends at a trial not finite.
    """
    method, code, V, meter = (
        design.method,
        design.code,
        float(v @ v),
        Meter(objective, design, reading),
    )
    kind = REGRESSORS[method.regressor]
    together = max(1, min(8 * BLOCK, 2**20 // w.size))
    for begin in range(first, last, together):
        trials = range(begin, min(begin + together, last))
        D = code.draw_each(w.size, design.sigma, design.seed, np.array(trials))
        known = D
        if code.sensing > 0.0:
            known = np.array(
                [
                    code.sensed(dw, design.sigma, design.seed, trial)
                    for dw, trial in zip(D, trials, strict=True)
                ]
            )
        y, u = np.zeros(len(trials)), np.zeros(len(trials))
        for phase, (a, c) in enumerate(method.phases):
            # a network's errors at w are the same in all trials; a function of the user's own may
            # measure something
            once = a == c == 0 and objective.parallel
            applied = (
                a * D if mismatch is None or a == 0 else a * mismatch.gain * D + mismatch.offset
            )
            E = meter.measure_each(
                w[None] if once else w + applied + c * design.r * v, trials, phase
            )
            y += method.gradient_weights[phase] * E
            u += method.hv_weights[phase] * E
        wrong = ~np.isfinite(y + u)
        if wrong.any():
            failed[:] = trials[int(np.argmax(wrong))]
            return
        for b in range(begin // BLOCK, (trials.stop - 1) // BLOCK + 1):
            block = slice(max(0, b * BLOCK - begin), (b + 1) * BLOCK - begin)
            at = b - first // BLOCK
            s = accumulate_each(
                known[block], y[block], u[block], v, V, kind, design.kappa, sums[at], totals[at]
            )
            if received.shape[1]:
                received[:, begin - first :][:, block] = y[block], u[block], s
