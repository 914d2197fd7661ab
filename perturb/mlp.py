"""Multilayer perceptrons: exact error, gradient and Hessian-vector product by R{backprop} (Pearlmutter 1994)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from perturb.activations import ACTIVATIONS
from perturb.errors import InputError, choose
from perturb.losses import ERRORS, NEEDS_LINEAR_OUTPUT
from perturb.objective import Kept, Objective, as_directions, as_patterns, as_weights

Array = np.ndarray


class MLP:
    """A feed-forward network of fully connected layers.

    layers: units per layer, inputs first, e.g. [64, 32, 10]. activation: of the hidden layers; output: of the last layer.
    error: squared_error (mean over patterns of half the squared distance), cross_entropy (softmax included) or
    binary_cross_entropy (logistic function included); the two cross-entropies need output = "linear".

    Flat order of w: per layer the matrix (n_in, n_out) in C order, then the n_out biases.
    """

    def __init__(self, layers: Sequence[int], activation: str = "tanh", output: str = "linear", error: str = "squared_error"):
        sizes = list(layers)
        if len(sizes) < 2 or not all(isinstance(m, (int, np.integer)) and not isinstance(m, bool) and m >= 1 for m in sizes):
            raise InputError(f"layers = {sizes} must be at least two whole numbers >= 1, inputs first, such as [64, 32, 10]")
        choose("activation", activation, ACTIVATIONS)
        choose("output", output, ACTIVATIONS)
        choose("error", error, ERRORS)
        if error in NEEDS_LINEAR_OUTPUT and output != "linear":
            raise InputError(
                f'output = {output!r} does not go with error = {error!r}, which brings its own: set output = "linear"'
            )
        self.layers = [int(m) for m in sizes]
        self.n_inputs, self.n_outputs = self.layers[0], self.layers[-1]
        self.error = error
        self.activations = [activation] * (len(sizes) - 2) + [output]
        self.n_weights = sum((a + 1) * b for a, b in zip(self.layers, self.layers[1:], strict=False))

    def init(self, seed: int) -> Array:
        """Random starting weights, shape (n,): matrices normal with variance 1/n_in, biases zero."""
        rng = np.random.Generator(np.random.Philox(seed))
        w = np.zeros(self.n_weights)
        for W, _ in self.unpack(w):
            W[...] = rng.standard_normal(W.shape) / np.sqrt(W.shape[0])
        return w

    def unpack(self, w: Array) -> list[tuple[Array, Array]]:
        """Views (W, b) of each layer, W (n_in, n_out), b (n_out,), of a C-contiguous (n,); with a leading axis k for (k, n)."""
        views, start, lead = [], 0, w.shape[:-1]
        for a, b in zip(self.layers, self.layers[1:], strict=False):
            matrix, bias = w[..., start : start + a * b], w[..., start + a * b : start + (a + 1) * b]
            views.append((matrix.reshape(*lead, a, b), bias))
            start += (a + 1) * b
        return views

    def weight_units(self) -> tuple[Array, Array]:
        """The unit each weight comes from and goes to, two int arrays (n,). Numbered from the inputs; a bias comes from -1."""
        unit_from, unit_to, first = [], [], 0
        for a, b in zip(self.layers, self.layers[1:], strict=False):
            to = np.arange(first + a, first + a + b)
            unit_from += [np.repeat(np.arange(first, first + a), b), np.full(b, -1)]
            unit_to += [np.tile(to, a), to]
            first += a
        return np.concatenate(unit_from), np.concatenate(unit_to)

    def objective(self, x: Array, target: Array) -> "MLPObjective":
        """E(w) on patterns x (S, n_in) with targets (S, n_out); class numbers (S,) will do for cross_entropy."""
        return MLPObjective(self, x, target)


class MLPObjective(Objective):
    """See `Objective`. Costs: `error` one forward pass; `gradient` about 2 more; `hvp` about one to two per direction on top of
    one gradient, which is kept for products at the same w."""

    def __init__(self, network: MLP, x: Array, target: Array):
        self.network = network
        self.x, self.target = as_patterns(x, target, network.n_inputs, network.n_outputs, network.error)
        self.n_weights, self.n_patterns, self.depth = network.n_weights, self.x.shape[0], len(network.layers) - 1
        self._f = [ACTIVATIONS[name] for name in network.activations]
        self._E = ERRORS[network.error]
        self._primal = Kept(self._both_passes, self.n_weights)

    def pattern(self, index: int) -> "MLPObjective":
        return MLPObjective(self.network, self.x[index : index + 1], self.target[index : index + 1])

    def outputs(self, w: Array) -> Array:
        """The activity of the output units, shape (S, n_out)."""
        return self._forward(self.network.unpack(as_weights("w", w, self.n_weights)))[1][-1]

    def pattern_errors(self, w: Array) -> Array:
        return self._E.value(self.outputs(w), self.target)

    def gradient(self, w: Array) -> Array:
        return self._primal(w).g.copy()

    def _forward(self, layers: list[tuple[Array, Array]]) -> tuple[list[Array], list[Array]]:
        # x_j = sum_i w_ij y_i (the bias is the weight of a unit that is always 1),  y_j = f_j(x_j)
        x, y = [], [self.x]
        for (W, b), f in zip(layers, self._f, strict=True):
            x.append(y[-1] @ W + b)
            y.append(f.f(x[-1]))
        return x, y

    def _both_passes(self, w: Array) -> "_Primal":
        """Everything of the two ordinary passes that R{.} needs."""
        layers = self.network.unpack(w)
        x, y = self._forward(layers)
        df = [f.df(x_, y_) for f, x_, y_ in zip(self._f, x, y[1:], strict=True)]

        # dE/dy_i = e_i + sum_j w_ij dE/dx_j,  dE/dx_i = f'_i dE/dy_i,  dE/dw_ij = y_i dE/dx_j
        g = np.empty(self.n_weights)
        grads = self.network.unpack(g)
        E_y = self._E.e(y[-1], self.target) / self.n_patterns
        E_x, bent = [np.empty(0)] * len(layers), [np.empty(0)] * len(layers)
        for layer in reversed(range(len(layers))):
            E_x[layer] = df[layer] * E_y
            bent[layer] = self._f[layer].d2f(x[layer], y[layer + 1]) * E_y
            np.matmul(y[layer].T, E_x[layer], out=grads[layer][0])
            E_x[layer].sum(0, out=grads[layer][1])
            if layer:
                E_y = E_x[layer] @ layers[layer][0].T

        E = float(self._E.value(y[-1], self.target).mean())
        return _Primal(E, g, layers, y, df, E_x, bent)

    def error_gradient_hvp(self, w: Array, v: Array) -> tuple[float, Array, Array]:
        primal = self._primal(w)
        rows = np.ascontiguousarray(np.atleast_2d(as_directions("v", v, self.n_weights).T))
        # a few directions at a time, so that what lies between two products stays in cache
        width = max(1, 2**16 // (self.n_patterns * max(self.network.layers[1:])))
        Hv = np.empty_like(rows)
        for i in range(0, len(rows), width):
            self._products(primal, rows[i : i + width], Hv[i : i + width])
        return primal.E, primal.g.copy(), Hv[0] if np.ndim(v) == 1 else Hv.T

    def _products(self, primal: "_Primal", rows: Array, Hv: Array) -> None:
        """Write Hv for directions (k, n), by R{.} of the two passes of `_primal`."""
        _, _, layers, y, df, E_x, bent = primal
        directions = self.network.unpack(rows)

        # R{x_j} = sum_i (w_ij R{y_i} + v_ij y_i),  R{y_j} = f'_j(x_j) R{x_j};  R{y} = 0 at the inputs
        R_x, R_y = [], [np.empty(0)]
        for layer, ((W, _), (V, v_b)) in enumerate(zip(layers, directions, strict=True)):
            Rx = np.matmul(y[layer], V)
            Rx += v_b[:, None, :]
            if layer:
                Rx += _times(R_y[layer], W)
            R_x.append(Rx)
            R_y.append(df[layer] * Rx)

        # R{dE/dy_i} = R{e_i} + sum_j (w_ij R{dE/dx_j} + v_ij dE/dx_j)
        # R{dE/dx_i} = f'_i R{dE/dy_i} + f''_i R{x_i} dE/dy_i
        # R{dE/dw_ij} = y_i R{dE/dx_j} + R{y_i} dE/dx_j
        grads = self.network.unpack(Hv)
        R_Ey = self._E.R_e(y[-1], self.target, R_y[-1]) / self.n_patterns
        for layer in reversed(range(len(layers))):
            R_Ex = R_x[layer]
            R_Ex *= bent[layer]
            R_Ex += df[layer] * R_Ey
            RG, Rg_b = grads[layer]
            np.matmul(y[layer].T, R_Ex, out=RG)
            if layer:
                RG += np.matmul(np.swapaxes(R_y[layer], -1, -2), E_x[layer])
                R_Ey = _times(R_Ex, layers[layer][0].T)
                R_Ey += np.matmul(E_x[layer], np.swapaxes(directions[layer][0], -1, -2))
            R_Ex.sum(1, out=Rg_b)


class _Primal(NamedTuple):
    """E, its gradient g, the layers (W, b), and per layer y, f', dE/dx and f'' dE/dy."""

    E: float
    g: Array
    layers: list[tuple[Array, Array]]
    y: list[Array]
    df: list[Array]
    E_x: list[Array]
    bent: list[Array]


def _times(a: Array, W: Array) -> Array:
    """a @ W for a of shape (k, S, n), as one product."""
    return (a.reshape(-1, a.shape[-1]) @ W).reshape(*a.shape[:-1], W.shape[1])
