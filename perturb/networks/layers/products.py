"""Layers that multiply by weights: x = M c + b, for columns c of the input.

All of them are linear in their weights and in their input, so that by the product rule

    x = M c + b                          R{x} = M R{c} + V c + b_v
    dE/dM = e c'                         R{dE/dM} = R{e} c' + e R{c}'
    dE/dc = M' e                         R{dE/dc} = M' R{e} + V' e

with M and V of w and v, and a column for each position and pattern.
"""

from abc import abstractmethod
from math import prod
from typing import Any

import numpy as np

from perturb.networks.layers.part import Array, Part, Shape
from perturb.networks.layers.windows import Windows, first_of


class Product(Part):
    """x = M c + b. M: (groups, rows, columns), each group with its own inputs.

    bias: whether there is b, one for each row of each group.
    """

    def __init__(self, shape: Shape, groups: int, rows: int, columns: int, bias: bool):
        self.shape = shape
        self.groups, self.rows, self.columns = groups, rows, columns
        self.bias = bias
        self._n_matrix = groups * rows * columns
        # M in C order, then b
        self.n_weights = self._n_matrix + bias * groups * rows
        self.n_products = prod(shape[1:])  # one matrix, for one position after another
        # a bias counts, too: it is multiplied by 1
        self.n_macs = self.n_weights * self.n_products

    @property
    def size(self) -> int:
        columns = self.groups * self.columns * prod(self.shape[1:])
        return max(prod(self.shape), columns)

    @abstractmethod
    def prepare(self, y: Array) -> Array:
        """The columns of an input, (groups, columns, positions * S)."""

    @abstractmethod
    def collect(self, c: Array) -> Array:
        """The transpose of `prepare`: what is in several columns is added up."""

    @abstractmethod
    def inputs(self, units: Array) -> Array:
        """The neuron of each entry of a column, (groups, columns), from those of the input."""

    def matrix(self, w: Array) -> Array:
        """M from the weights, or from those of several points (..., n_weights): a view."""
        M = w[..., : self._n_matrix]
        # C order: all rows of a group, then those of the next
        return M.reshape(*w.shape[:-1], self.groups, self.rows, self.columns)

    def biases(self, w: Array) -> Array:
        """b from the weights, (..., groups, rows): a view."""
        return w[..., self._n_matrix :].reshape(*w.shape[:-1], self.groups, self.rows)

    def flat(self, M: Array) -> Array:
        """Its weights in their order, from a matrix."""
        return M.reshape(-1)

    def _activity(self, x: Array) -> Array:
        """Rows of all groups as (channels, *positions, S)."""
        return x.reshape(*self.shape, -1)

    def _rows(self, e: Array) -> Array:
        return e.reshape(self.groups, self.rows, -1)

    def _plus_bias(self, x: Array, w: Array) -> Array:
        if self.bias:
            x += self.biases(w)[..., None]
        return x

    def _gradient(self, of_matrix: Array, e: Array) -> Array:
        # dE/dM, then dE/db, which is e summed over positions and patterns
        parts = [self.flat(of_matrix)]
        if self.bias:
            parts.append(e.sum(-1).ravel())
        return np.concatenate(parts)

    def forward(self, w: Array, c: Array) -> tuple[Array, Array]:
        # all groups at once: (groups, rows, columns) (groups, columns, positions S)
        return self._activity(self._plus_bias(self.matrix(w) @ c, w)), c

    def backward(self, w: Array, c: Any, e: Array, wanted: bool) -> tuple[Array, Array, Array]:
        e = self._rows(e)
        # dE/dM = e c', in which the product sums over positions and patterns; dE/dc = M' e
        g = self._gradient(e @ c.swapaxes(1, 2), e)
        return self.collect(self.matrix(w).swapaxes(1, 2) @ e) if wanted else e, g, e

    def R_forward(self, w: Array, v: Array, c: Any, R_y: Array | None) -> tuple[Array, Any]:
        # R{x} = V c + b_v + M R{c}
        R_x = self._plus_bias(self.matrix(v) @ c, v)
        R_c = None
        if R_y is not None:
            R_c = self.prepare(R_y)
            R_x += self.matrix(w) @ R_c
        return self._activity(R_x), R_c

    def R_backward(
        self, w: Array, v: Array, c: Any, e: Any, R_c: Any, R_e: Array, wanted: bool
    ) -> tuple[Array, Array]:
        R_e = self._rows(R_e)
        # R{dE/dM} = R{e} c' + e R{c}'
        of_matrix = R_e @ c.swapaxes(1, 2)
        if R_c is not None:
            of_matrix += e @ R_c.swapaxes(1, 2)
        R_g = self._gradient(of_matrix, R_e)
        if not wanted:
            return R_e, R_g
        # R{dE/dc} = M' R{e} + V' e
        R_dE_dc = self.matrix(w).swapaxes(1, 2) @ R_e
        R_dE_dc += self.matrix(v).swapaxes(1, 2) @ e
        return self.collect(R_dE_dc), R_g

    @property
    def net_variance(self) -> float | None:
        return 1.0

    def init(self, rng: np.random.Generator, variance: float) -> Array:
        # of `columns` inputs of mean square 1, each net input has this variance
        matrix = rng.standard_normal(self._n_matrix) * np.sqrt(variance / self.columns)
        return np.concatenate([matrix, np.zeros(self.n_weights - self._n_matrix)])

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        channels = self.groups * self.rows
        new = np.arange(first, first + channels)
        inputs = self.inputs(units)
        # the weight of row r and column c leads from the neuron of that column to that of the row
        sources = np.broadcast_to(inputs[:, None], (self.groups, self.rows, self.columns))
        targets = np.broadcast_to(new.reshape(self.groups, self.rows, 1), sources.shape)
        none = np.full(channels * self.bias, -1)
        positions = (1,) * (len(self.shape) - 1)
        return (
            np.concatenate([self.flat(sources), none]),
            np.concatenate([self.flat(targets), new[: none.size]]),
            np.broadcast_to(new.reshape(channels, *positions), self.shape),
        )


class LinearPart(Product):
    """Of neurons: M is the transpose of the weights (n_in, n_out), as in an `MLP`."""

    def __init__(self, n_in: int, n_out: int, bias: bool):
        super().__init__((n_out,), 1, n_out, n_in, bias)

    def prepare(self, y: Array) -> Array:
        # one group, and a pattern is a column
        return y[None]

    def collect(self, c: Array) -> Array:
        return c[0]

    def inputs(self, units: Array) -> Array:
        return units[None]

    def matrix(self, w: Array) -> Array:
        M = w[..., : self._n_matrix]
        # stored (n_in, n_out): a view with the axes exchanged
        return M.reshape(*w.shape[:-1], 1, self.columns, self.rows).swapaxes(-1, -2)

    def flat(self, M: Array) -> Array:
        return M.swapaxes(1, 2).reshape(-1)


class ConvolutionPart(Product):
    """Of channels: a column is a window of the input, and the weights are a kernel (out,
    in/groups, *window). padding: zeros before and after each position axis.
    """

    def __init__(self, windows: Windows, channels: int, groups: int, bias: bool):
        self.windows = windows
        shape = (channels, *windows.positions)
        # what one group sees in a window
        columns = windows.channels // groups * prod(windows.size)
        super().__init__(shape, groups, channels // groups, columns, bias)

    def prepare(self, y: Array) -> Array:
        # (channels, *size, *positions, S) in C order: groups of channels, each with its places,
        # then positions and patterns; no copy
        return self.windows.taken(y).reshape(self.groups, self.columns, -1)

    def collect(self, c: Array) -> Array:
        return self.windows.put(c)

    def inputs(self, units: Array) -> Array:
        # in all windows, after a reshape perhaps not the same; of several the first
        there = self.windows.neurons(units).reshape(self.groups, self.columns, -1)
        return first_of(there, -1)


class ScalingPart(Part):
    """y' = a y + b of each channel: what batch normalisation is once its statistics are fixed. The
    weights are all a, then all b.
    """

    def __init__(self, shape: Shape):
        self.shape = shape
        self.n_weights = 2 * shape[0]
        self.n_macs = 2 * prod(shape)
        self._sums = tuple(range(1, len(shape) + 1))  # over positions and patterns

    def _both(self, w: Array) -> tuple[Array, Array]:
        # (channels, 1, ..., 1), to go with (channels, *positions, S)
        a, b = w.reshape(2, -1, *(1,) * len(self.shape))
        return a, b

    def forward(self, w: Array, y: Any) -> tuple[Array, Any]:
        a, b = self._both(w)
        return a * y + b, y

    def backward(self, w: Array, y: Any, e: Array, wanted: bool) -> tuple[Array, Array, Any]:
        # dE/da = sum e y, dE/db = sum e, dE/dy = a e
        g = np.concatenate([(e * y).sum(self._sums), e.sum(self._sums)])
        return self._both(w)[0] * e, g, e

    def R_forward(self, w: Array, v: Array, y: Any, R_y: Array | None) -> tuple[Array, Any]:
        # R{a y + b} = v_a y + a R{y} + v_b
        v_a, v_b = self._both(v)
        R = v_a * y + v_b
        return R if R_y is None else R + self._both(w)[0] * R_y, R_y

    def R_backward(
        self, w: Array, v: Array, y: Any, e: Any, R_y: Any, R_e: Array, wanted: bool
    ) -> tuple[Array, Array]:
        # R{dE/da} = sum R{e} y + e R{y}, R{dE/db} = sum R{e}, R{dE/dy} = a R{e} + v_a e
        of_a = R_e * y if R_y is None else R_e * y + e * R_y
        R_g = np.concatenate([of_a.sum(self._sums), R_e.sum(self._sums)])
        return self._both(w)[0] * R_e + self._both(v)[0] * e, R_g

    def init(self, rng: np.random.Generator, variance: float) -> Array:
        # a = 1 and b = 0: it starts as the identity
        return np.repeat([1.0, 0.0], self.shape[0])

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        # a neuron of its own for each channel: its weights are numbers of that neuron, and what
        # several neurons of a channel meet comes from the first of them
        channels = self.shape[0]
        new = np.arange(first, first + channels)
        sources = np.concatenate([units.reshape(channels, -1)[:, 0], np.full(channels, -1)])
        every = np.broadcast_to(new.reshape(-1, *(1,) * (len(self.shape) - 1)), self.shape)
        return sources, np.concatenate([new, new]), every
