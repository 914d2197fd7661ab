"""The arrays that the matrices of a network stand in: converters at rows and columns, noise, wires.

An array has a row for each input, driven at y_i by a driver at its first column, and a last row for
the bias, driven at 1. Its columns end after the last row, at 0, where their currents are read:

    y_i := q_in(y_i)                             the bias needs no converter
    x_j = q_out(sum_i y_i w'_ij + noise xi_j)    of each array; x_j of arrays above one another add

with w' for w as follows, or the same without resistance of wires.

Wires. A weight is the difference of two cells of two such arrays, of conductances |w_ij| and 0 in
units of that of |w| = 1, whose currents are subtracted before they are converted. In an array of m
rows, of conductances G, each piece of wire from cell to cell, from a driver to the first cell and
from the last cell to the reading has a resistance rho. Without drops, y_i G_il flows through cell
(i, l). The piece of row i before cell k carries the currents of the cells from k on, so that the
row has lost rho y_i sum_l min(j, l) G_il when it comes to cell j. The piece of column j after cell
k carries those of the cells up to k, so that cell i stands above the reading by
rho sum_h (m + 1 - max(i, h)) G_hj y_h. What both take from the currents at the readings is again a
sum over inputs, to first order as if y_i met

    G'_ij = G_ij / (1 + rho [sum_l min(j, l) G_il + sum_h (m + 1 - max(i, h)) G_hj])

The quotient is 1 - rho [...] to first order, and exact for a single cell; it never changes sign.
"""

from copy import copy
from itertools import accumulate

import numpy as np

from hardware.array_tables import ArrayParams
from hardware.arrays import matrices, slices
from hardware.parts.converter import Converter
from hardware.parts.draws import ARRAY_NOISE, Shown
from perturb.errors import InputError
from perturb.networks.layers.network import Layers
from perturb.networks.objective import Objective

Array = np.ndarray


class Crossbar:
    """The arrays of one chip.

    inputs, outputs: the converters of rows and of columns, which count what is beyond their range.
    converted: how often those of all arrays have converted so far.
    """

    def __init__(self, params: ArrayParams, objective: Objective, seed: int):
        self.params = params
        self.seed = seed
        objective = objective.unrestricted
        self._matrices = matrices(objective)
        wrong = {
            key: getattr(params, key)
            for key in ("input_bits", "output_bits", "output_noise", "wire_resistance")
            if getattr(params, key)
        }
        # the size alone changes nothing: sums of parts are the sum
        self.ideal = not wrong
        if wrong and not self._matrices:
            key, value = next(iter(wrong.items()))
            kind = type(getattr(objective, "network", objective)).__name__
            # of layers that only scale there is no matrix
            why = (
                "these Layers have no matrix to stand in an array"
                if isinstance(getattr(objective, "network", None), Layers)
                else f"a {kind} is not cut into arrays, as an MLP or Layers are"
            )
            raise InputError(f"array.{key} = {value} but {why}: set it to 0")
        # arrays above one another, numbered through all matrices: for their noise
        counts = [len(slices(m.inputs + m.bias, params.rows)) for m in self._matrices]
        # number of the first array of each matrix, among those that have noise of their own
        self._first = [0, *accumulate(counts)]
        self._begin()

    def _begin(self) -> None:
        p = self.params
        self.inputs = Converter(p.input_bits, p.input_range)
        self.outputs = Converter(p.output_bits, p.output_range)
        self.converted = 0

    def unused(self) -> "Crossbar":
        """The same arrays, with converters that have not converted anything."""
        other = copy(self)
        other._begin()
        return other

    def sums(self, number: int, W: Array, bias: Array | None, y: Array, shown: Shown) -> Array:
        """What columns give, (m, ..., uses, outputs), in m evaluations.

        number: of the matrix. W (m, ..., inputs, outputs), bias (m, ..., 1, outputs). y (m, ...,
        uses, inputs): what drives the rows, or (1, ...) if it is the same in all evaluations; all
        uses of a pattern, then those of the next.
        """
        if self.ideal:
            return np.matmul(y, W) if bias is None else np.matmul(y, W) + bias
        p = self.params
        inputs, outputs = W.shape[-2:]
        # one y for all evaluations is converted again in each
        y = self._driven(y, len(W) // len(y), outputs)
        # arrays above one another share columns: their sums are added as numbers, after conversion
        total: Array | float = 0.0
        size = inputs + (bias is not None)
        for block, rows in enumerate(slices(size, p.rows)):
            own = slice(rows.start, min(rows.stop, inputs))
            # the row of the bias comes last
            b = bias if rows.stop > inputs else None
            # the rows of this array; arrays side by side are taken together
            G = W[..., own, :]
            if p.wire_resistance:
                G, b = self.through_wires(G, b)
            x = np.matmul(y[..., own], G)
            if b is not None:
                x += b
            if p.output_noise:
                x += p.output_noise * self._noise(self._first[number] + block, x, shown)
            if p.output_bits:
                self.converted += x.size
            total = total + self.outputs(x)
        return np.asarray(total)

    def _noise(self, number: int, x: Array, shown: Shown) -> Array:
        """Of the columns of the arrays of that number."""
        uses, outputs = x.shape[-2:]
        # of one pattern and all of its uses, of all groups
        xi = shown.normals(self.seed, ARRAY_NOISE, number, x[0].size // shown.patterns)
        return xi.reshape(len(x), uses, -1, outputs).swapaxes(1, 2).reshape(x.shape)

    def _driven(self, y: Array, evaluations: int, outputs: int) -> Array:
        """Rows as they are driven: by every array side by side with converters of its own."""
        if self.params.input_bits:
            self.converted += evaluations * y.size * len(slices(outputs, self.params.columns))
        return self.inputs(y, evaluations)

    def through_wires(self, G: Array, b: Array | None) -> tuple[Array, Array | None]:
        """The weights and the bias of the rows of an array, or of arrays side by side, as the
        inputs meet them.
        """
        rows = G.shape[-2]
        if b is not None:
            G = np.concatenate([G, b], axis=-2)
        met = np.empty_like(G)
        rho = self.params.wire_resistance
        for columns in slices(G.shape[-1], self.params.columns):
            own = G[..., columns]
            # w > 0 in one array, w < 0 in the other, each with drops of its own
            met[..., columns] = met_by_inputs(np.maximum(own, 0.0), rho)
            met[..., columns] -= met_by_inputs(np.maximum(-own, 0.0), rho)
        return met[..., :rows, :], None if b is None else met[..., rows:, :]


def met_by_inputs(G: Array, rho: float) -> Array:
    """G' (..., rows, columns) of conductances G >= 0, as at the head of this file."""
    # sums over pieces of wire, of the currents that they carry: first what each carries
    row = np.flip(np.cumsum(np.flip(G, -1), -1), -1)
    column = np.cumsum(G, -2)
    # a row up to a cell, and a column from it on
    lost = np.cumsum(row, -1) + np.flip(np.cumsum(np.flip(column, -2), -2), -2)
    return G / (1.0 + rho * lost)
