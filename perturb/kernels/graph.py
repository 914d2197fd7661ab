"""Numba kernels: errors of graphs and Boltzmann machines at many points, one after another.

Each point is evaluated by itself, so that no bit depends on which points come together. Neurons run
over rows, patterns along them.
"""

import math
from typing import NamedTuple

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.activations import activate, exp, pattern_errors
from perturb.kernels.simd import EXACT, fma, load_d, peek, splat_d, store

WIDE = 8  # patterns of a vector


class Graph(NamedTuple):
    """Neurons in the order of their levels, which begin at ends[:-1].

    starts, sources (compressed rows): the edges into each neuron and the neurons they come from;
    tied: the entry of w of each edge. given: neurons, all of the first level, whose activity is
    x[inputs[unit]], or 1 where that is -1; external: what is added to the activity of the others.
    """

    tied: np.ndarray
    ends: np.ndarray
    starts: np.ndarray
    sources: np.ndarray
    given: np.ndarray
    activations: np.ndarray
    external: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray


@compiled(**EXACT)
def activate_units(activations, first, last, Sp, x):
    """f of x[unit Sp + s] for neurons first..last-1, those of one kind together."""
    for unit in range(first + 1, last + 1):
        if unit == last or activations[unit] != activations[first]:
            activate(activations[first], x[first * Sp : unit * Sp])
            first = unit


@compiled(nogil=True, **EXACT)
def graph_errors(points, graph, x, target, error_kind, out):
    """out[m, s]: errors of a DAG with weights points[m], of patterns x, target (neurons as rows).
    Eight patterns to a vector.
    """
    tied, ends, starts, sources, given, activations, external, inputs, outputs = graph
    n_units, S = given.size, x.shape[1]
    # rows are filled up to whole vectors; nobody reads what comes out there
    Sp = (S + WIDE - 1) // WIDE * WIDE
    y, shown = np.zeros((n_units, Sp)), np.empty((outputs.size, S))
    flat = y.reshape(n_units * Sp)
    for m in range(points.shape[0]):
        w = points[m]
        for level in range(ends.size - 1):
            first, last = ends[level], ends[level + 1]
            for unit in range(first, last):
                for s in range(0, Sp, WIDE):
                    total = splat_d(0.0)
                    for edge in range(starts[unit], starts[unit + 1]):
                        weight = splat_d(peek(w, peek(tied, edge)))
                        total = fma(weight, load_d(flat, peek(sources, edge) * Sp + s), total)
                    store(flat, unit * Sp + s, total)
            activate_units(activations, first, last, Sp, flat)
            # inputs and bias are given: what was computed for them is replaced
            for unit in range(first, last):
                if given[unit]:
                    for s in range(S):
                        y[unit, s] = x[inputs[unit], s] if inputs[unit] >= 0 else 1.0
                else:
                    for s in range(S):
                        y[unit, s] += external[unit]
        for k in range(outputs.size):
            for s in range(S):
                shown[k, s] = y[outputs[k], s]
        pattern_errors(error_kind, shown, target, out[m])


@compiled(nogil=True, **EXACT)
def machine_errors(
    points, n_visible, n_hidden, low, high, per_T, entropy, index, distribution, out
):
    """out[m, k]: entropy - log P(visible state index[k]) of a Boltzmann machine with weights
    points[m]; with no index, the mean over the distribution. per_T: sign/T. States are built up
    neuron by neuron, so that each costs a few operations.
    """
    n = n_visible + n_hidden
    n_states, n_given = 1 << n, 1 << n_hidden
    energy, field, log_p = np.empty(n_states), np.empty(n_states), np.empty(1 << n_visible)
    for m in range(points.shape[0]):
        w = points[m]
        # neuron n - 1 is the lowest bit
        # energy: of the neurons so far in each of their states, thresholds included
        energy[0] = 0.0
        for unit in range(n - 1, -1, -1):
            size = 1 << (n - 1 - unit)
            # field: what this neuron feels in each state of those so far
            field[0] = w[n * (n - 1) // 2 + unit]
            # of (neuron, other) in w, less other
            first = unit * (n - 1) - unit * (unit - 1) // 2 - unit - 1
            # each other neuron doubles the states: first half low, second half high
            for other in range(n - 1, unit, -1):
                half, weight = 1 << (n - 1 - other), w[first + other]
                for a in range(half):
                    field[half + a] = field[a] + high * weight
                    field[a] += low * weight
            for a in range(size):
                energy[size + a] = energy[a] + high * field[a]
                energy[a] += low * field[a]
        # from here on the logarithm of the Boltzmann factor
        for a in range(n_states):
            energy[a] *= -per_T
        for visible in range(1 << n_visible):
            part = energy[visible * n_given : (visible + 1) * n_given]
            # the largest is taken out of the sum over hidden states, so that exp does not overflow
            largest = -np.inf
            for a in range(n_given):
                largest = max(largest, part[a])
            total = 0.0
            for a in range(n_given):
                total += exp(part[a] - largest)
            log_p[visible] = largest + math.log(total)
        # the most probable is taken out of Z, so that log P near 0 keeps its digits
        best = 0
        for visible in range(1 << n_visible):
            best = visible if log_p[visible] > log_p[best] else best
        highest, others = log_p[best], 0.0
        for visible in range(1 << n_visible):
            others += exp(log_p[visible] - highest) if visible != best else 0.0
        for visible in range(1 << n_visible):
            log_p[visible] = (log_p[visible] - highest) - math.log1p(others)
        if index.size:
            for k in range(index.size):
                out[m, k] = entropy - log_p[index[k]]
        else:
            mean = 0.0
            for visible in range(1 << n_visible):
                if distribution[visible] > 0.0:
                    mean += distribution[visible] * log_p[visible]
            out[m, 0] = entropy - mean
