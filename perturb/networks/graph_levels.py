"""Edges of a graph in the levels in which its neurons can be computed."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from perturb.compiled import compiled
from perturb.errors import InputError
from perturb.networks.activations import per_unit

Array = np.ndarray


@compiled(error_model="numpy", fastmath={"contract"})
def add_products(source, target, a, b, out):
    """out[e] += sum_s a[source[e], s] b[target[e], s], in four sums at once, which vectorise."""
    for e in range(source.size):
        y, z = a[source[e]], b[target[e]]
        # one sum would wait for itself: floating-point addition may not be reordered
        t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
        s = 0
        while s + 4 <= y.size:
            t0 += y[s] * z[s]
            t1 += y[s + 1] * z[s + 1]
            t2 += y[s + 2] * z[s + 2]
            t3 += y[s + 3] * z[s + 3]
            s += 4
        while s < y.size:
            t0 += y[s] * z[s]
            s += 1
        out[e] += (t0 + t1) + (t2 + t3)


class Level:
    """Neurons start..stop (in the order of levels) with their edges as compressed sparse rows."""

    def __init__(
        self,
        edges: Array,
        activations: Sequence[str],
        order: Array,
        place: Array,
        start: int,
        stop: int,
    ):
        self.start, self.stop = start, stop
        source, target = place[edges[:, 0]], place[edges[:, 1]]
        # forward: x_j sums over edges into j; backward: dE/dy_i over edges out of i
        self.incoming = rows_of(target, source, start, stop)
        self.outgoing = rows_of(source, target, start, stop)
        self.activation = per_unit([activations[unit] for unit in order[start:stop]], axis=0)


class Rows:
    """Edges grouped by one end: `product` multiplies weights with activities at the other."""

    def __init__(self, edges: Array, indptr: Array, columns: Array):
        self.edges, self.indptr, self.columns = edges, indptr, columns

    def product(self, weights: Array, y: Array) -> Array:
        """sum over each row's edges of weights[edge] y[column].

        weights (edges,), y (neurons, ...) to (rows, ...).
        """
        matrix = csr_array(
            (weights[self.edges], self.columns, self.indptr),
            shape=(len(self.indptr) - 1, y.shape[0]),
        )
        return (matrix @ y.reshape(y.shape[0], -1)).reshape(-1, *y.shape[1:])

    def products(self, weights: Array, y: Array) -> Array:
        """The same for k sets of weights (k, edges) and one y (neurons, S): (rows, k, S)."""
        k, rows, size = len(weights), len(self.indptr) - 1, len(self.edges)
        # k matrices one below the other are one sparse matrix, and one product
        indptr = np.concatenate([[0], (self.indptr[1:] + size * np.arange(k)[:, None]).ravel()])
        stacked = csr_array(
            (weights[:, self.edges].ravel(), np.tile(self.columns, k), indptr),
            shape=(k * rows, y.shape[0]),
        )
        return np.swapaxes((stacked @ y).reshape(k, rows, -1), 0, 1)


def rows_of(row: Array, column: Array, start: int, stop: int) -> Rows:
    chosen = np.flatnonzero((row >= start) & (row < stop))
    # rows in order, and columns in order within a row: memory is read forward
    chosen = chosen[np.lexsort((column[chosen], row[chosen]))]
    indptr = np.concatenate(
        [[0], np.cumsum(np.bincount(row[chosen] - start, minlength=stop - start))]
    )
    return Rows(chosen, indptr, column[chosen])


def edge_array(edges: Sequence[tuple[int, int]], n_units: int) -> Array:
    try:
        pairs = np.array(edges)
    except ValueError:
        pairs = np.zeros(0)
    if pairs.ndim != 2 or pairs.shape[1:] != (2,) or not np.issubdtype(pairs.dtype, np.integer):
        raise InputError(
            "edges must be a list of at least one (from, to) pair of integers, such as [(0,"
            " 2), (1, 2)]"
        )
    outside = ((pairs < 0) | (pairs >= n_units)).any(1)
    if outside.any():
        i, j = pairs[outside][0]
        raise InputError(
            f"edge ({i}, {j}) names a neuron that does not exist: neurons are 0 to {n_units - 1}"
        )
    # a second edge between the same neurons would be the same weight twice
    _, first, copies = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    if (copies > 1).any():
        i, j = pairs[first[copies > 1][0]]
        raise InputError(f"edge ({i}, {j}) is given {copies.max()} times: give it once")
    return pairs.astype(int)


def tied_weights(tied: Sequence[int] | None, n_edges: int) -> Array:
    if tied is None:
        return np.arange(n_edges)
    entries = np.array(tied)
    if entries.shape != (n_edges,) or not np.issubdtype(entries.dtype, np.integer):
        raise InputError(f"tied must be {n_edges} integers, one for each edge")
    missing = set(range(entries.max() + 1)) - set(entries.tolist())
    if entries.min() < 0 or missing:
        raise InputError(
            f"tied must use every number from 0 to {entries.max()}"
            + (f": {min(missing)} is missing" if missing else "")
        )
    return entries.astype(int)


def levels_of(edges: Array, n_units: int) -> Array:
    """The longest path to each neuron, or InputError naming a cycle."""
    following: list[list[int]] = [[] for _ in range(n_units)]
    for i, j in edges.tolist():
        following[i].append(j)
    # edges into a neuron whose source has no level yet (Kahn's algorithm)
    waiting = np.bincount(edges[:, 1], minlength=n_units)
    levels = np.zeros(n_units, dtype=int)
    ready = np.flatnonzero(waiting == 0).tolist()
    for unit in ready:  # grows while it is walked through
        for after in following[unit]:
            levels[after] = max(levels[after], levels[unit] + 1)
            waiting[after] -= 1
            if waiting[after] == 0:
                ready.append(after)
    # neurons on a cycle wait for each other for ever
    if len(ready) < n_units:
        # a neuron that waits has a predecessor that waits: walking back must meet a neuron twice
        before = {j: i for i, j in edges.tolist() if waiting[i] and waiting[j]}
        unit, walked = next(iter(before)), []
        while unit not in walked:
            walked.append(unit)
            unit = before[unit]
        cycle = walked[walked.index(unit) :][::-1]
        raise InputError(
            f"edges make a cycle, {' -> '.join(map(str, [*cycle, cycle[0]]))}: use"
            " perturb.Recurrent, or remove an edge"
        )
    return levels
