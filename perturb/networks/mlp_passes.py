"""The two ordinary passes of an MLP at one w, and R{.} of them (Pearlmutter 1994).

Activities are (S, neurons), with patterns first; those of several directions (k, S, neurons).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from perturb.networks.activations import ActivationFunction
from perturb.networks.losses import ErrorFunction
from perturb.threads import blas_threads

Array = np.ndarray


@dataclass(eq=False)
class Passes:
    """Of neurons `sizes` per layer, with their functions, the error and the targets; per layer the
    matrix with biases, x, f(x), y below it (with the neuron that is always 1), f', dE/dy and dE/dx.

    What not every caller needs is computed when it is first asked for: a gradient does without f'',
    Hv without E and gradient.
    """

    sizes: Sequence[int]
    f: Sequence[ActivationFunction]
    error: ErrorFunction
    target: Array
    layers: list[Array]
    x: list[Array]
    f_x: list[Array]
    y: list[Array]
    df: list[Array]
    E_y: list[Array]
    E_x: list[Array]

    @cached_property
    def E(self) -> float:
        return float(self.error.value(self.f_x[-1], self.target).mean())

    @cached_property
    def g(self) -> Array:
        """dE/dw_ij = y_i dE/dx_j."""
        g = np.empty((1, sum((a + 1) * b for a, b in pairwise(self.sizes))))
        for y, E_x, of_layer in zip(self.y, self.E_x, matrices(self.sizes, g), strict=True):
            # y has the neuron that is always 1 last: the last row is that of the biases
            np.matmul(y.T, E_x, out=of_layer[0])
        return g[0]

    @cached_property
    def f2_E_y(self) -> list[Array]:
        """f'' dE/dy."""
        of_neurons = zip(self.f, self.x, self.f_x, self.df, self.E_y, strict=True)
        return [f.d2f(x, f_x, df) * E_y for f, x, f_x, df, E_y in of_neurons]

    @cached_property
    def R_e(self) -> Callable[[Array], Array]:
        """The map from R{y} to R{e}, which is the matrix H_E = d2E/dy2 of each pattern."""
        return self.error.R_e(self.f_x[-1], self.target)

    def products(self, V: Array, gauss_newton: bool = False) -> Array:
        """HV by R{.} of both passes, or GV by R{.} of the first alone.

        V is turned to rows (k, n), and taken a few directions at a time, so that what lies between
        two products stays in cache. A first layer with more inputs than there are patterns is
        expensive to turn: it is used as it lies, (n_in + 1, n_out k).
        """
        V = np.ascontiguousarray(V)
        (a, b), k, S, x = self.sizes[:2], V.shape[1], len(self.target), self.y[0]
        largest = S * max(a * b for a, b in pairwise(self.sizes))
        # wide: how many weights of the first layer are not turned
        wide = (a + 1) * b if a > S else 0
        rows = np.ascontiguousarray(V[wide:].T)
        Hv = np.empty_like(V)
        # a single direction: the row is a view of the column, and nothing is copied back
        Hv_rows = Hv[wide:].T if k == 1 else np.empty_like(rows)
        width = min(k, max(1, 2**15 // (S * max(self.sizes[1:]))))
        # written over by every few directions: memory that is new to the process costs more than
        # the products
        scratch = [np.empty((3, width, S, units)) for units in self.sizes[1:]]
        back = self._backward if gauss_newton else self._R_backward
        with blas_threads(largest * (k if wide else 1)):
            if wide:
                # R{x} = V y of the first layer, all directions in one product:
                # (S, n_in + 1) (n_in + 1, b k)
                R_x1 = np.ascontiguousarray(
                    (x @ V[:wide].reshape(a + 1, b * k)).reshape(S, b, k).transpose(2, 0, 1)
                )
                R_Ex1 = np.empty((S, b, k))
            for i in range(0, k, width):
                some = slice(i, i + width)
                R = _Directions(self.sizes, rows[some], Hv_rows[some], bool(wide), scratch)
                self._R_forward(R, R_x1[some] if wide else None)
                back(R)
                if wide:
                    R_Ex1[..., some] = R.x[0].transpose(1, 2, 0)
            if wide:
                # R{dE/dw_ij} = y_i R{dE/dx_j}, for R{y} = 0 at the inputs
                np.matmul(x.T, R_Ex1.reshape(S, b * k), out=Hv[:wide].reshape(a + 1, b * k))
        if k > 1:
            Hv[wide:] = Hv_rows.T
        return Hv

    def _R_forward(self, R: "_Directions", R_x1: Array | None) -> None:
        """R{x} and R{y}, from R{x} of the first layer if that is given."""
        # R{x_j} = sum_i (w_ij R{y_i} + v_ij y_i), R{y_j} = f'_j(x_j) R{x_j}; R{y} = 0 at the inputs
        # and where y is always 1
        for layer, W in enumerate(self.layers):
            if R_x1 is not None and layer == 0:
                R.x[0] = R_x1
            else:
                np.matmul(self.y[layer], R.v[layer], out=R.x[layer])
            if layer:
                R.x[layer] += times(R.y[layer - 1], W[:-1], R.free[layer])
            np.multiply(self.df[layer], R.x[layer], out=R.y[layer])

    def _R_backward(self, R: "_Directions") -> None:
        """Write rows of Hv; R{dE/dx} of the first layer is then in R.x[0]."""
        y, df, E_x, f2_E_y = self.y, self.df, self.E_x, self.f2_E_y

        # R{dE/dy_i} = R{e_i} + sum_j (w_ij R{dE/dx_j} + v_ij dE/dx_j)
        # R{dE/dx_i} = f'_i R{dE/dy_i} + f''_i R{x_i} dE/dy_i
        # R{dE/dw_ij} = y_i R{dE/dx_j} + R{y_i} dE/dx_j
        R_Ey = self.R_e(R.y[-1]) / len(self.target)
        for layer in reversed(range(len(self.layers))):
            # in place: R{x} of this layer is not needed again
            R_Ex = R.x[layer]
            R_Ex *= f2_E_y[layer]
            R_Ey *= df[layer]
            R_Ex += R_Ey
            # of a first layer that is not turned, the caller makes this product
            if layer or not R.given:
                np.matmul(y[layer].T, R_Ex, out=R.grads[layer])
            if layer:
                # without the row of the biases: their neuron is 1, and its R{y} is 0
                R.grads[layer][:, :-1] += np.matmul(R.y[layer - 1].transpose(0, 2, 1), E_x[layer])
                # sum_j v_ij dE/dx_j, then sum_j w_ij R{dE/dx_j}
                turned = R.v[layer][:, :-1].transpose(0, 2, 1)
                R_Ey = np.matmul(E_x[layer], turned, out=R.y[layer - 1])
                R_Ey += times(R_Ex, self.layers[layer][:-1].T, R.free[layer - 1])

    def _backward(self, R: "_Directions") -> None:
        """Write rows of Gv = J' H_E R{y}: the ordinary backward pass, with H_E R{y} in place of e;
        what it makes of dE/dx of the first layer is then in R.x[0].
        """
        E_y = self.R_e(R.y[-1]) / len(self.target)
        for layer in reversed(range(len(self.layers))):
            E_x = np.multiply(self.df[layer], E_y, out=R.x[layer])
            if layer or not R.given:
                np.matmul(self.y[layer].T, E_x, out=R.grads[layer])
            if layer:
                E_y = times(E_x, self.layers[layer][:-1].T, R.y[layer - 1])


class _Directions:
    """A few directions: v, and where their products are put, as matrices of the layers; R{x}, R{y}
    and room for one more, (k, S, n_out) of each layer.

    given: whether the rows are without the first layer. scratch: per layer (3, at least k, S,
    n_out).
    """

    def __init__(
        self, sizes: Sequence[int], rows: Array, products: Array, given: bool, scratch: list[Array]
    ):
        self.given = given
        # without the first layer the views are numbered as before
        self.v, self.grads = (matrices(sizes, each, int(given)) for each in (rows, products))
        self.x, self.y, self.free = ([part[i, : len(rows)] for part in scratch] for i in range(3))


def matrices(sizes: Sequence[int], rows: Array, first: int = 0) -> list[Array]:
    """Views (k, n_in + 1, n_out) of the layers from `first` on, of rows (k, their weights).

    The bias is the weight of a neuron that is always 1, the last of each layer: with it a layer is
    one matrix.
    """
    views: list[Array] = [np.empty(0)] * first
    start = 0
    for a, b in pairwise(sizes[first:]):
        views.append(rows[:, start : start + (a + 1) * b].reshape(len(rows), a + 1, b))
        start += (a + 1) * b
    return views


def times(a: Array, W: Array, out: Array) -> Array:
    """a @ W for a of shape (k, S, n), as one product, into out."""
    np.matmul(a.reshape(-1, a.shape[-1]), W, out=out.reshape(-1, W.shape[1]))
    return out


def with_one(y: Array) -> Array:
    """y (..., S, n) with the neuron that is always 1."""
    with_one = np.ones((*y.shape[:-1], y.shape[-1] + 1))
    with_one[..., :-1] = y
    return with_one
