"""Numba kernels: errors of graphs, relaxing networks and Boltzmann machines at many points, one after another.

Each point is evaluated by itself, so that no bit depends on which points come together. Units run over rows, patterns along them.
"""

import math

import numpy as np

from perturb.kernels import activate, exp, pattern_errors
from perturb.philox import compiled

EXACT = {"error_model": "numpy", "fastmath": {"contract"}}


@compiled(nogil=True, **EXACT)
def graph_errors(points, tied, starts, sources, given, activations, external, inputs, outputs, x, target, error_kind, out):
    """out[m, s]: errors of a DAG with weights points[m].

    Units in the order of their levels; starts, sources (compressed rows): the edges into each unit and the units they come from,
    tied: the entry of w of each. given: units whose activity is x[inputs[unit]] (units as rows), or 1 where that is -1.
    """
    n_units, S = given.size, x.shape[1]
    y, shown = np.empty((n_units, S)), np.empty((outputs.size, S))
    for m in range(points.shape[0]):
        w = points[m]
        for unit in range(n_units):
            row = y[unit]
            if given[unit]:
                for s in range(S):
                    row[s] = x[inputs[unit], s] if inputs[unit] >= 0 else 1.0
                continue
            for s in range(S):
                row[s] = 0.0
            for edge in range(starts[unit], starts[unit + 1]):
                weight, source = w[tied[edge]], y[sources[edge]]
                for s in range(S):
                    row[s] += weight * source[s]
            activate(activations[unit], row)
            for s in range(S):
                row[s] += external[unit]
        for k in range(outputs.size):
            for s in range(S):
                shown[k, s] = y[outputs[k], s]
        pattern_errors(error_kind, shown, target, out[m])


@compiled(**EXACT)
def _largest(a):
    largest, wrong = 0.0, 0.0
    for value in a.reshape(a.size):
        largest = max(largest, abs(value))
        wrong += 0.0 * value
    return largest + wrong


@compiled(**EXACT)
def _right_side(W, external, activations, y, f, change):
    """f = f(x), x_j = sum_i w_ij y_i, and change = f + I - y; returns the largest |change| (not finite, if any is not)."""
    n, S = y.shape
    for j in range(n):
        row = f[j]
        for s in range(S):
            row[s] = 0.0
        for i in range(n):
            weight, source = W[i, j], y[i]
            for s in range(S):
                row[s] += weight * source[s]
    flat, first = f.reshape(n * S), 0
    for j in range(1, n + 1):  # units of one kind together, so that few patterns fill vectors too
        if j == n or activations[j] != activations[first]:
            activate(activations[first], flat[first * S : j * S])
            first = j
    for j in range(n):
        for s in range(S):
            change[j, s] = f[j, s] + external[j, s] - y[j, s]
    return _largest(change)


@compiled(**EXACT)
def _slope(kind, f):
    # f' from f, for every activation here
    if kind == 1:
        return 1.0 - f * f
    if kind == 2:
        return f * (1.0 - f)
    if kind == 3:
        return 1.0 if f > 0.0 else 0.0
    if kind == 4:
        return 1.0 - exp(-f)
    return 1.0


@compiled(**EXACT)
def _solve(A, b):
    # Gaussian elimination with partial pivoting; b becomes the solution
    n = b.size
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(A[i, k]) > abs(A[pivot, k]):
                pivot = i
        if pivot != k:
            for j in range(k, n):
                A[k, j], A[pivot, j] = A[pivot, j], A[k, j]
            b[k], b[pivot] = b[pivot], b[k]
        for i in range(k + 1, n):
            factor = A[i, k] / A[k, k]
            for j in range(k + 1, n):
                A[i, j] -= factor * A[k, j]
            b[i] -= factor * b[k]
    for k in range(n - 1, -1, -1):
        for j in range(k + 1, n):
            b[k] -= A[k, j] * b[j]
        b[k] /= A[k, k]


@compiled(nogil=True, **EXACT)
def relaxed_errors(
    points, activations, external, outputs, target, error_kind, direct, step, tolerance, max_steps, out, settled
):  # fmt: skip
    """out[m, s]: errors at the fixed points of a Recurrent with weights points[m]; settled[m]: whether it came to rest.

    external: I (units, patterns). The steps of `RecurrentObjective`: relaxation from 0 and, if `direct`, Newton's method.
    """
    n, S = external.shape
    y, f, change, shown = np.empty((n, S)), np.empty((n, S)), np.empty((n, S)), np.empty((outputs.size, S))
    A, b = np.empty((n, n)), np.empty(n)
    for m in range(points.shape[0]):
        W = points[m].reshape(n, n)
        y[:], scale, settled[m] = 0.0, 1.0, False
        for k in range(max_steps):
            rate = _right_side(W, external, activations, y, f, change)
            if k == 0 and rate > 0.0:
                scale = rate  # of what it drives at, from 0
            residual = rate / scale
            if not residual > tolerance:
                settled[m] = residual <= tolerance
                break
            for j in range(n):
                for s in range(S):
                    y[j, s] += step * change[j, s]
            size = _largest(y)
            scale = size if size != 0.0 else 1.0
        if settled[m] and direct:
            settled[m] = False
            for _ in range(20):
                size = _largest(y)
                residual = _right_side(W, external, activations, y, f, change) / (size if size != 0.0 else 1.0)
                settled[m] = residual <= tolerance
                if residual <= 4e-16 or not math.isfinite(residual):
                    break
                for s in range(S):
                    for j in range(n):
                        slope = _slope(activations[j], f[j, s])
                        for i in range(n):
                            A[j, i] = (1.0 if i == j else 0.0) - slope * W[i, j]
                        b[j] = change[j, s]
                    _solve(A, b)
                    for j in range(n):
                        y[j, s] += b[j]
        for k in range(outputs.size):
            for s in range(S):
                shown[k, s] = y[outputs[k], s]
        pattern_errors(error_kind, shown, target, out[m])


@compiled(nogil=True, **EXACT)
def machine_errors(points, n_visible, n_hidden, low, high, per_T, entropy, index, distribution, out):
    """out[m, k]: entropy - log P(visible state index[k]) of a Boltzmann machine with weights points[m]; with no index, the mean
    over the distribution. per_T: sign/T. States are built up unit by unit, so that each costs a few operations."""
    n = n_visible + n_hidden
    n_states, n_given = 1 << n, 1 << n_hidden
    energy, field, log_p = np.empty(n_states), np.empty(n_states), np.empty(1 << n_visible)
    for m in range(points.shape[0]):
        w = points[m]
        # unit n - 1 is the lowest bit
        energy[0] = 0.0
        for unit in range(n - 1, -1, -1):
            size = 1 << (n - 1 - unit)
            field[0] = w[n * (n - 1) // 2 + unit]
            first = unit * (n - 1) - unit * (unit - 1) // 2 - unit - 1  # of (unit, other) in w, less other
            for other in range(n - 1, unit, -1):
                half, weight = 1 << (n - 1 - other), w[first + other]
                for a in range(half):
                    field[half + a] = field[a] + high * weight
                    field[a] += low * weight
            for a in range(size):
                energy[size + a] = energy[a] + high * field[a]
                energy[a] += low * field[a]
        top = -np.inf
        for a in range(n_states):
            energy[a] *= -per_T
            top = max(top, energy[a])
        everything = 0.0
        for visible in range(1 << n_visible):
            part = energy[visible * n_given : (visible + 1) * n_given]
            own = -np.inf
            for a in range(n_given):
                own = max(own, part[a])
            total = 0.0
            for a in range(n_given):
                total += exp(part[a] - own)
            log_p[visible] = own + math.log(total)
            everything += exp(log_p[visible] - top)
        everything = top + math.log(everything)
        if index.size:
            for k in range(index.size):
                out[m, k] = entropy - (log_p[index[k]] - everything)
        else:
            mean = 0.0
            for visible in range(1 << n_visible):
                if distribution[visible] > 0.0:
                    mean += distribution[visible] * (log_p[visible] - everything)
            out[m, 0] = entropy - mean
