"""How the weights of a network stand in arrays: which matrices it multiplies by, and into how many
arrays of a given size they are cut.

A matrix stands in an array with its inputs on the rows, the bias on a last row that a constant 1
drives, and its outputs on the columns. Arrays are cut off `rows` and `columns` at a time, and the
last ones are smaller. Channels that see each other only (groups of a convolution) have arrays of
their own. What a batchnorm multiplies by is in the neurons.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hardware.array_tables import ArrayParams
from perturb.networks.layers.layer import Activation, Layer, Linear, chained
from perturb.networks.layers.network import Layers
from perturb.networks.layers.part import Chain, ResidualPart
from perturb.networks.layers.products import Product
from perturb.networks.mlp import MLP
from perturb.networks.objective import Objective

Array = np.ndarray


class Matrix(NamedTuple):
    """A matrix of a layer, and how many others like it there are (groups); uses: how many vectors
    of a pattern it is multiplied by. inputs: without the bias, of which there are 0 or 1.
    """

    inputs: int
    bias: int
    outputs: int
    groups: int = 1
    uses: int = 1


def matrices(objective: Objective) -> list[Matrix]:
    """Those of a network, in the order of its weights; none of a network that is not cut into
    arrays.
    """
    # weights that are held stand in the arrays, too
    net: Any = getattr(objective.unrestricted, "network", None)
    if isinstance(net, MLP):
        # every layer of an MLP has biases
        return [Matrix(a, 1, b) for a, b in pairwise(net.layers)]
    return list(_of_chain(net.chain)) if isinstance(net, Layers) else []


def _of_chain(chain: Chain) -> Iterator[Matrix]:
    for part in chain.parts:
        if isinstance(part, Product):
            # its rows are outputs, and stand on columns of the array
            yield Matrix(part.columns, int(part.bias), part.rows, part.groups, part.n_products)
        elif isinstance(part, ResidualPart):
            yield from _of_chain(part.path)
            yield from _of_chain(part.shortcut)


def slices(size: int, most: int) -> list[slice]:
    """The rows or columns of each array: `most` of them, or with 0 all."""
    # at least 1, which a range needs even of nothing
    step = most or max(size, 1)
    return [slice(first, min(first + step, size)) for first in range(0, size, step)]


def conversions(array: ArrayParams, objective: Objective) -> int:
    """Of rows and of columns in one evaluation of one pattern."""
    total = 0
    for inputs, bias, outputs, groups, uses in matrices(objective):
        # every array has converters of its own at its rows and at its columns
        by_rows = len(slices(inputs + bias, array.rows))
        by_columns = len(slices(outputs, array.columns))
        # the bias is driven by the constant 1, without a converter
        driven = inputs * by_columns * bool(array.input_bits)
        read = outputs * by_rows * bool(array.output_bits)
        total += groups * uses * (driven + read)
    return total


def chain_of(net: Any) -> Chain | None:
    """The layers of a network one after another, an MLP's too; None of other networks."""
    if isinstance(net, Layers):
        return net.chain
    if not isinstance(net, MLP):
        return None
    pairs = zip(net.layers[1:], net.activations, strict=True)
    layers: list[Layer] = []
    for size, activation in pairs:
        layers.append(Linear(size))
        if activation != "linear":
            layers.append(Activation(activation))
    # the weights of both stand in the same order
    return chained(layers, (net.layers[0],))


def has_bias(part: Product, rows: slice) -> bool:
    """Whether the last of these rows of its arrays is that of the bias."""
    return part.bias and rows.stop > part.columns


def row_sums(part: Product, w: Array, rows: slice, c: Array, biased: bool = True) -> Array:
    """What some rows of its arrays add up to at the columns, (groups, outputs, positions * S), from
    `part.prepare` of an input.
    """
    x = part.matrix(w)[..., rows] @ c[:, rows]
    return x + part.biases(w)[..., None] if biased and has_bias(part, rows) else x
