"""Numba kernels: errors of relaxing networks at many points, one after another, eight patterns to a
vector of float64.

Each point is evaluated by itself, so that no bit depends on which points come together. Neurons run
over rows, patterns along them; the last vector is filled up with the last pattern again, which
changes no largest entry.
"""

import math

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.activations import bits_of, float_of, pattern_errors, slope
from perturb.kernels.float32_functions import number
from perturb.kernels.graph import WIDE, activate_units
from perturb.kernels.simd import (
    EXACT,
    LANES,
    aligned,
    anywhere,
    choose,
    div,
    fma,
    greater,
    load,
    load8,
    load_d,
    magnitude,
    mul,
    narrow,
    peek,
    splat,
    splat_d,
    store,
    sub,
    widen,
)

ROUNDING = 4e-16  # of a residual, relative to the largest activity
NEAR = 1e-4  # residual from which on Newton's method converges quadratically
CONTRACTION = (
    0.98  # largest norm of the Jacobian with which relaxation is known to arrive, and how soon
)


@compiled(**EXACT)
def _products(W, n, y, Sp, x):
    """x_j = sum_i w_ij y_i, four units of eight patterns at a time; rows of W, and x, are filled
    up to four neurons.
    """
    width = (n + 3) // 4 * 4
    for s in range(0, Sp, WIDE):
        for j in range(0, n, 4):
            a = b = c = d = splat_d(0.0)
            for i in range(n):
                source, k = load_d(y, i * Sp + s), i * width + j
                a, b = fma(splat_d(peek(W, k)), source, a), fma(splat_d(peek(W, k + 1)), source, b)
                c, d = (
                    fma(splat_d(peek(W, k + 2)), source, c),
                    fma(splat_d(peek(W, k + 3)), source, d),
                )
            at = j * Sp + s
            store(x, at, a)
            store(x, at + Sp, b)
            store(x, at + 2 * Sp, c)
            store(x, at + 3 * Sp, d)


@compiled(**EXACT)
def _right_side(W, external, activations, y, Sp, f, change):
    """f = f(x) and change = f + I - y; returns the largest |change| (not finite, if any is not)."""
    n = activations.size
    _products(W, n, y, Sp, f)
    activate_units(activations, 0, n, Sp, f)
    # as integers, magnitudes have the same order, and then their maximum vectorises
    largest = np.int64(0)
    for k in range(n * Sp):
        change[k] = f[k] + external[k] - y[k]
        largest = max(largest, bits_of(abs(change[k])))
    return float_of(largest)


@compiled(**EXACT)
def _move(y, step, change):
    """y += step change; returns the largest |y|, 1 if that is 0."""
    largest = np.int64(0)
    for k in range(change.size):
        y[k] += step * change[k]
        largest = max(largest, bits_of(abs(y[k])))
    return float_of(largest) if largest else 1.0


@compiled(**EXACT)
def _one_fixed_point(W, activations, K, P):
    """Whether |diag(c) W'| < CONTRACTION in the Euclidean norm, where f' <= c everywhere: then
    there is one fixed point, to which relaxation comes nearer in every step, and what any other
    method finds is the same.

    By Cholesky factors of P = CONTRACTION^2 - W diag(c^2) W', positive definite only then. K, P:
    room for (n, n).
    """
    n = activations.size
    width = (n + 3) // 4 * 4
    for j in range(n):
        # the steepest f' of a logistic is 1/4, of all others 1
        c = 0.25 if activations[j] == 2 else 1.0
        for i in range(n):
            K[j, i] = c * W[i * width + j]
    P[:] = 0.0
    for i in range(n):
        P[i, i] = CONTRACTION * CONTRACTION
        for j in range(n):
            for k in range(n):
                P[i, k] -= K[j, i] * K[j, k]
    for k in range(n):
        # a pivot that is not positive: neither is P
        if not P[k, k] > 0.0:
            return False
        for i in range(k + 1, n):
            factor = P[k, i] / P[k, k]
            for j in range(i, n):
                P[i, j] -= factor * P[k, j]
    return True


@compiled(**EXACT)
def _solve(n, A):
    """Gaussian elimination of sixteen systems at once, A[i (n + 1) + j] with the right side as
    column n, which becomes the solution; each lane has its own pivots.
    """
    # numbers of a row: n unknowns and the right side, of sixteen systems side by side
    row = LANES * (n + 1)
    for k in range(n):
        top = k * row
        for i in range(k + 1, n):
            at = i * row
            # each lane exchanges rows for itself, so that its largest pivot comes up
            larger = greater(
                magnitude(load(A, at + LANES * k)), magnitude(load(A, top + LANES * k))
            )
            if anywhere(larger):
                for j in range(LANES * k, row, LANES):
                    a, b = load(A, top + j), load(A, at + j)
                    store(A, top + j, choose(larger, b, a))
                    store(A, at + j, choose(larger, a, b))
        # the diagonal holds inverses from here on: the substitution back multiplies by them
        inverse = div(number(1.0), load(A, top + LANES * k))
        store(A, top + LANES * k, inverse)
        for i in range(k + 1, n):
            at = i * row
            factor = mul(sub(number(0.0), load(A, at + LANES * k)), inverse)
            for j in range(LANES * (k + 1), row, LANES):
                store(A, at + j, fma(factor, load(A, top + j), load(A, at + j)))
    for k in range(n - 1, -1, -1):
        b = load(A, k * row + LANES * n)
        for j in range(k + 1, n):
            b = sub(b, mul(load(A, k * row + LANES * j), load(A, j * row + LANES * n)))
        store(A, k * row + LANES * n, mul(b, load(A, k * row + LANES * k)))


@compiled(**EXACT)
def _newton(W, activations, f, change, Sp, slopes, A):
    """Newton's step, in place of change: (1 - diag(f') W') step = change for every pattern. In
    float32, which is enough: the next residual, in float64, shows what is missing.
    """
    n = activations.size
    width = (n + 3) // 4 * 4
    for j in range(n):
        for s in range(j * Sp, (j + 1) * Sp):
            slopes[s] = slope(activations[j], f[s])
    for s in range(0, Sp, LANES):
        # the last eight patterns may stand alone, and fill both halves
        t = min(s + WIDE, Sp - WIDE)
        for j in range(n):
            # 1 - diag(f') W' of sixteen patterns, eight from s on and eight from t on
            minus = sub(number(0.0), narrow(load_d(slopes, j * Sp + s), load_d(slopes, j * Sp + t)))
            at = LANES * (n + 1) * j
            for i in range(n):
                diagonal = number(1.0 if i == j else 0.0)
                store(
                    A,
                    at + LANES * i,
                    fma(minus, splat(np.float32(peek(W, i * width + j))), diagonal),
                )
            store(A, at + LANES * n, narrow(load_d(change, j * Sp + s), load_d(change, j * Sp + t)))
        _solve(n, A)
        for j in range(n):
            at = LANES * ((n + 1) * j + n)
            store(change, j * Sp + s, widen(load8(A, at)))
            store(change, j * Sp + t, widen(load8(A, at + WIDE)))


@compiled(nogil=True, **EXACT)
def relaxed_errors(
    points,
    activations,
    external,
    outputs,
    target,
    error_kind,
    direct,
    step,
    tolerance,
    max_steps,
    out,
    settled,
):
    """out[m, s]: errors at the fixed points of a Recurrent with weights points[m]; settled[m]:
    whether it came to rest.

    external: I (neurons, patterns). The steps of `RecurrentObjective`: relaxation from 0 and, if
    `direct`, Newton's method; this from NEAR the fixed point on, where there is one only and
    relaxation would come to rest in time.
    """
    n, S = external.shape
    Sp, width = (S + WIDE - 1) // WIDE * WIDE, (n + 3) // 4 * 4
    size = n * Sp
    given, y, f, change, slopes = (
        np.empty(size),
        np.empty(size),
        np.empty(width * Sp),
        np.empty(size),
        np.empty(size),
    )
    # filled up to whole vectors with the last pattern
    for j in range(n):
        given[j * Sp : j * Sp + S], given[j * Sp + S : (j + 1) * Sp] = (
            external[j],
            external[j, S - 1],
        )
    W, A, shown = (
        np.zeros(n * width),
        aligned(LANES * n * (n + 1) if direct else 0),
        np.empty((outputs.size, S)),
    )
    K, P = np.empty((n, n)), np.empty((n, n))
    # the Euclidean norm of change in a step, at least by so much
    falls = 1.0 - step * (1.0 - CONTRACTION)
    for m in range(points.shape[0]):
        W.reshape(n, width)[:, :n] = points[m].reshape(n, n)
        y[:], scale, settled[m] = 0.0, 1.0, False
        near = (
            max(tolerance, NEAR) if direct and _one_fixed_point(W, activations, K, P) else tolerance
        )
        for k in range(max_steps):
            rate = _right_side(W, given, activations, y, Sp, f, change)
            if k == 0 and rate > 0.0:
                scale = rate  # of what it drives at, from 0
            residual = rate / scale
            # what falls is the Euclidean norm, at most sqrt(n) times the largest entry
            if residual <= near and residual * falls ** (max_steps - 1 - k) > tolerance / (
                2.0 * math.sqrt(n)
            ):
                near = tolerance  # it may come too late
            # so written, not-a-number ends the relaxation too, as one that has not settled
            if not residual > near:
                settled[m] = residual <= near
                break
            scale = _move(y, step, change)
        if settled[m] and direct:
            before = np.inf
            for _ in range(20):
                residual = _right_side(W, given, activations, y, Sp, f, change) / scale
                settled[m] = residual <= tolerance
                if (
                    residual <= ROUNDING or not residual < before / 2
                ):  # it converges quadratically, until nothing is left
                    break
                _newton(W, activations, f, change, Sp, slopes, A)
                scale, before = _move(y, 1.0, change), residual
        for k in range(outputs.size):
            for s in range(S):
                shown[k, s] = y[outputs[k] * Sp + s]
        pattern_errors(error_kind, shown, target, out[m])
