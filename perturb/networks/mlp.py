"""Multilayer perceptrons: exact error, gradient and Hv by R{backprop} (Pearlmutter 1994)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from perturb.checks import as_directions, as_floats, as_weights
from perturb.errors import InputError, choose
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.cache import Cached
from perturb.networks.losses import ERRORS, NEEDS_LINEAR_OUTPUT
from perturb.networks.objective import Objective
from perturb.networks.patterns import as_patterns
from perturb.threads import blas_threads

Array = np.ndarray
AT_ONCE = 2**15  # activities of a layer at several points, which stay in cache


class MLP:
    """A feed-forward network of fully connected layers.

    Parameters
    ----------
    layers : sequence of int
        Neurons per layer, inputs first, such as [64, 32, 10].
    activation : str
        Of the hidden layers: a key of `activations.ACTIVATIONS`.
    output : str
        Activation of the last layer.
    error : str
        "squared_error" (mean over patterns of half the squared distance), "cross_entropy" (softmax
        included), "binary_cross_entropy" (logistic function included), or one of `add_error`.

    Attributes
    ----------
    n_weights : int
        n, the sum over layers of (n_in + 1) n_out.

    Raises
    ------
    InputError
        If a name is unknown or a size not a positive integer; if a cross-entropy has an output that
        is not "linear"; if the softmax has one output only.

    Notes
    -----
    With the bias as the weight of a neuron that is always 1, per layer x_j = sum_i w_ij y_i and y_j
    = f(x_j). Flat order of w: per layer the matrix (n_in, n_out) in C order, then the n_out biases.

    Examples
    --------
    >>> import perturb
    >>> network = perturb.MLP([2, 3, 2], error="cross_entropy")
    >>> network.n_weights
    17
    >>> w = network.init(seed=0)
    >>> objective = network.objective([[0.0, 1.0], [1.0, 1.0]], [0, 1])
    >>> z = objective.hvp(w, w)
    >>> z.shape, round(objective.error(0 * w), 4)
    ((17,), 0.6931)
    """

    def __init__(
        self,
        layers: Sequence[int],
        activation: str = "tanh",
        output: str = "linear",
        error: str = "squared_error",
    ):
        # True is an int for Python; a layer of True neurons is a mistake
        sizes = list(layers)
        if len(sizes) < 2 or not all(
            isinstance(m, (int, np.integer)) and not isinstance(m, bool) and m >= 1 for m in sizes
        ):
            raise InputError(
                f"layers = {sizes} must be at least two integers >= 1, inputs first, such as"
                " [64, 32, 10]"
            )
        choose("activation", activation, ACTIVATIONS)
        choose("output", output, ACTIVATIONS)
        choose("error", error, ERRORS)
        if error in NEEDS_LINEAR_OUTPUT and output != "linear":
            raise InputError(
                f"output = {output!r} does not go with error = {error!r}, which brings its own: set"
                ' output = "linear"'
            )
        # the softmax of one output is 1 whatever its net input: no gradient at all
        if error == "cross_entropy" and sizes[-1] == 1:
            raise InputError(
                "layers ends with 1 output, whose softmax is always 1: set error ="
                ' "binary_cross_entropy"'
            )
        self.layers = [int(m) for m in sizes]
        self.n_inputs, self.n_outputs = self.layers[0], self.layers[-1]
        self.error = error
        self.activations = [activation] * (len(sizes) - 2) + [output]
        self.n_weights = sum((a + 1) * b for a, b in pairwise(self.layers))

    def __repr__(self) -> str:
        # of a network without a hidden layer that is the output's
        names = f"activation={self.activations[0]!r}, output={self.activations[-1]!r}"
        return f"MLP({self.layers}, {names}, error={self.error!r}, n_weights={self.n_weights})"

    def init(self, seed: int) -> Array:
        """Random starting weights: matrices normal with variance 1/n_in, biases zero.

        Parameters
        ----------
        seed : int

        Returns
        -------
        array of shape (n,)
        """
        rng = np.random.Generator(np.random.Philox(seed))
        # `unpack` gives views: what is written to W stands in w, and the biases stay 0
        w = np.zeros(self.n_weights)
        for W, _ in self.unpack(w):
            W[...] = rng.standard_normal(W.shape) / np.sqrt(W.shape[0])
        return w

    def unpack(self, w: Array) -> list[tuple[Array, Array]]:
        """The matrix and the biases of each layer, as views of w.

        Parameters
        ----------
        w : array of shape (n,), C-contiguous

        Returns
        -------
        list of (W, b)
            W (n_in, n_out) and b (n_out,) of each layer.
        """
        views, start = [], 0
        for a, b in pairwise(self.layers):
            views.append(
                (w[start : start + a * b].reshape(a, b), w[start + a * b : start + (a + 1) * b])
            )
            start += (a + 1) * b
        return views

    def weight_units(self) -> tuple[Array, Array]:
        """The neuron each weight comes from and goes to, two int arrays (n,).

        Neurons are numbered from the inputs; a bias comes from -1.
        """
        unit_from, unit_to, first = [], [], 0
        for a, b in pairwise(self.layers):
            # in the flat order of w: the matrix row by row, its sources slowest, then the biases
            to = np.arange(first + a, first + a + b)
            unit_from += [np.repeat(np.arange(first, first + a), b), np.full(b, -1)]
            unit_to += [np.tile(to, a), to]
            first += a
        return np.concatenate(unit_from), np.concatenate(unit_to)

    def objective(self, x: Array, target: Array) -> "MLPObjective":
        """E(w) of this network on patterns.

        Parameters
        ----------
        x : array of shape (S, n_in)
            Inputs, one pattern a row.
        target : array of shape (S, n_out)
            For cross_entropy class numbers (S,) will do.

        Returns
        -------
        MLPObjective
        """
        return MLPObjective(self, x, target)


class MLPObjective(Objective):
    """E(w) of an `MLP` on its patterns, see `Objective`.

    Parameters
    ----------
    network : MLP
    x : array of shape (S, n_in)
    target : array of shape (S, n_out), or class numbers (S,)

    Notes
    -----
    Costs: `error` one forward pass; `gradient` about 2 more; `hvp` about one to two per direction
    on top of one gradient, which is cached for products at the same w.
    """

    def __init__(self, network: MLP, x: Array, target: Array):
        self.network = network
        self.x, self.target = as_patterns(
            x, target, network.n_inputs, network.n_outputs, network.error
        )
        self.n_weights, self.n_patterns = network.n_weights, self.x.shape[0]
        self.depth = len(network.layers) - 1
        self._f = [ACTIVATIONS[name] for name in network.activations]
        self._E = ERRORS[network.error]
        # multiplications of the largest product, of one direction
        self._largest = self.n_patterns * max(a * b for a, b in pairwise(network.layers))
        self._passes = Cached(self._both_passes, self.n_weights)
        # activities that the first layer multiplies, the same at every w
        self._first = _with_one(self.x)

    def __reduce__(self):
        # functions do not pickle; names of them do
        return MLPObjective, (self.network, self.x, self.target), {"classes": self.classes}

    def subset(self, rows: Array) -> "MLPObjective":
        return MLPObjective(self.network, self.x[rows], self.target[rows])

    def outputs(self, w: Array) -> Array:
        """The activity of the output neurons.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (S, n_out)
        """
        layers = [W[0] for W in self._matrices(as_weights("w", w, self.n_weights)[None])]
        with blas_threads(self._largest):
            return self._evaluated(layers)

    def pattern_errors(self, w: Array) -> Array:
        return self._E.value(self.outputs(w), self.target)

    def errors_at(self, points: Array) -> Array:
        S = self.n_patterns
        # not even two points fit in cache together
        if 2 * S * max(self.network.layers) > AT_ONCE:
            return super().errors_at(points)
        points = np.ascontiguousarray(as_floats("w", points)).reshape(len(points), self.n_weights)
        # width points a pass: W of a layer is (width, n_in + 1, n_out), y is (width, S, n_out)
        errors, width = np.empty((len(points), S)), AT_ONCE // (S * max(self.network.layers))
        for i in range(0, len(points), width):
            with blas_threads(self._largest):
                y = self._evaluated(self._matrices(points[i : i + width]))
            # points and patterns along one axis, which is all that an error function knows
            errors[i : i + width] = self._E.value(
                y.reshape(-1, y.shape[-1]), np.tile(self.target, (len(y), 1))
            ).reshape(-1, S)
        return errors

    def gradient(self, w: Array) -> Array:
        with blas_threads(self._largest):
            return self._passes(w).g.copy()

    def gradients(self, points: Array, shown: Array | None = None) -> Array:
        S = self.n_patterns if shown is None else shown.shape[1]
        width = AT_ONCE // (S * max(self.network.layers))
        # one point is cached for products there; of large networks a pass takes as long as its
        # products, and stacks of them only leave the cache
        if shown is None and (len(points) == 1 or width < 2):
            return super().gradients(points)
        points = np.ascontiguousarray(as_floats("w", points)).reshape(len(points), self.n_weights)
        found, largest = np.empty_like(points), self._largest // self.n_patterns * S
        for i in range(0, len(points), max(1, width)):
            some = slice(i, i + max(1, width))
            rows = slice(None) if shown is None else shown[some]
            with blas_threads(largest):
                self._descents(points[some], self._first[rows], self.target[rows], found[some])
        return found

    def _descents(self, points: Array, first: Array, target: Array, out: Array) -> None:
        """The gradients at points (k, n), into out: what the first layer multiplies and the targets
        are (S, ...), the same at all points, or (k, S, ...).

        Products of stacks are made matrix by matrix, so that a point does not feel the others.
        """
        layers, grads = self._matrices(points), self._matrices(out)
        _, f_x, df, y = self._forward(layers, first)

        # as in `_both_passes`; points and patterns along one axis, which is all that an error knows
        shape = f_x[-1].shape
        flat = np.broadcast_to(target, shape).reshape(-1, shape[-1])
        E_y = (self._E.e(f_x[-1].reshape(flat.shape), flat) / shape[1]).reshape(shape)
        for layer in reversed(range(len(layers))):
            E_x = df[layer] * E_y
            np.matmul(np.swapaxes(y[layer], -1, -2), E_x, out=grads[layer])
            if layer:
                E_y = E_x @ np.swapaxes(layers[layer][:, :-1], -1, -2)

    def hvp(self, w: Array, v: Array) -> Array:
        v = as_directions("v", v, self.n_weights)
        if not v.size:
            return super().hvp(w, v)
        V = v if v.ndim == 2 else v[:, None]
        return self._products(self._passes(w), V).reshape(v.shape)

    def _matrices(self, rows: Array, first: int = 0) -> list[Array]:
        """Views (k, n_in + 1, n_out) of the layers from `first` on, of rows (k, their weights).

        The bias is the weight of a neuron that is always 1, the last of each layer: with it a layer
        is one matrix.
        """
        views: list[Array] = [np.empty(0)] * first
        start = 0
        for a, b in pairwise(self.network.layers[first:]):
            views.append(rows[:, start : start + (a + 1) * b].reshape(len(rows), a + 1, b))
            start += (a + 1) * b
        return views

    def _evaluated(self, layers: list[Array]) -> Array:
        """f(x) of the last layer, also of stacks of W."""
        y = self._f[0].f(self._first @ layers[0])
        for W, f in zip(layers[1:], self._f[1:], strict=True):
            y = f.f(_with_one(y) @ W)
        return y

    def _forward(self, layers: list[Array], first: Array | None = None) -> tuple[list[Array], ...]:
        """x, f(x), f'(x), and y: what each layer multiplies, with the neuron that is always 1; also
        of stacks of W, with a stack of `first`, y of the inputs, where they differ.
        """
        # x_j = sum_i w_ij y_i, f_j(x_j)
        x, f_x, df, y = [], [], [], [self._first if first is None else first]
        for W, f in zip(layers, self._f, strict=True):
            x.append(y[-1] @ W)
            value, slope = f.with_slope(x[-1])
            f_x.append(value)
            df.append(slope)
            if len(x) < len(layers):
                y.append(_with_one(value))
        return x, f_x, df, y

    def _both_passes(self, w: Array) -> "_Passes":
        layers = [W[0] for W in self._matrices(w[None])]
        with blas_threads(self._largest):
            x, f_x, df, y = self._forward(layers)

            # dE/dx_i = f'_i dE/dy_i,  dE/dy_i = e_i + sum_j w_ij dE/dx_j
            E_x, E_y = [np.empty(0)] * len(layers), [np.empty(0)] * len(layers)
            # only outputs have a direct part e_i, and E is the mean over patterns
            E_y[-1] = self._E.e(f_x[-1], self.target) / self.n_patterns
            for layer in reversed(range(len(layers))):
                E_x[layer] = df[layer] * E_y[layer]
                # nobody asks for dE/dy of the inputs, nor of the neurons that are always 1
                if layer:
                    E_y[layer - 1] = E_x[layer] @ layers[layer][:-1].T
        return _Passes(self, layers, x, f_x, y, df, E_y, E_x)

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        with blas_threads(self._largest):
            passes = self._passes(w)
            E, g = passes.E, passes.g.copy()
        return E, g, self._products(passes, V)

    def _products(self, passes: "_Passes", V: Array) -> Array:
        """HV by R{.} of both passes.

        V is turned to rows (k, n), and taken a few directions at a time, so that what lies between
        two products stays in cache. A first layer with more inputs than there are patterns is
        expensive to turn: it is used as it lies, (n_in + 1, n_out k).
        """
        V = np.ascontiguousarray(V)
        (a, b), k, S, x = self.network.layers[:2], V.shape[1], self.n_patterns, self._first
        # wide: how many weights of the first layer are not turned
        wide = (a + 1) * b if a > S else 0
        rows = np.ascontiguousarray(V[wide:].T)
        Hv = np.empty_like(V)
        # a single direction: the row is a view of the column, and nothing is copied back
        Hv_rows = Hv[wide:].T if k == 1 else np.empty_like(rows)
        width = min(k, max(1, 2**15 // (S * max(self.network.layers[1:]))))
        # written over by every few directions: memory that is new costs more than the products
        scratch = [np.empty((3, width, S, units)) for units in self.network.layers[1:]]
        with blas_threads(self._largest * (k if wide else 1)):
            if wide:
                # R{x} = V y of the first layer, all directions in one product:
                # (S, n_in + 1) (n_in + 1, b k)
                R_x = np.ascontiguousarray(
                    (x @ V[:wide].reshape(a + 1, b * k)).reshape(S, b, k).transpose(2, 0, 1)
                )
                R_Ex = np.empty((S, b, k))
            for i in range(0, k, width):
                some = slice(i, i + width)
                first = self._turned(
                    passes, rows[some], Hv_rows[some], R_x[some] if wide else None, scratch
                )
                if wide:
                    R_Ex[..., some] = first.transpose(1, 2, 0)
            if wide:
                # R{dE/dw_ij} = y_i R{dE/dx_j}, for R{y} = 0 at the inputs
                np.matmul(x.T, R_Ex.reshape(S, b * k), out=Hv[:wide].reshape(a + 1, b * k))
        if k > 1:
            Hv[wide:] = Hv_rows.T
        return Hv

    def _turned(
        self,
        passes: "_Passes",
        rows: Array,
        Hv_rows: Array,
        R_x1: Array | None,
        scratch: list[Array],
    ) -> Array:
        """Write rows of Hv (k, weights) for rows of v; returns R{dE/dx} of layer 1, (k, S, n_out).

        With its R{x} given as R_x1, the rows are without the first layer. scratch: per layer
        (3, at least k, S, n_out).
        """
        y, df, E_x, f2_E_y = passes.y, passes.df, passes.E_x, passes.f2_E_y
        between = [W[:-1] for W in passes.layers]
        # without the first layer the views are numbered as before, `_matrices(rows, 1)`
        given = R_x1 is not None
        directions, grads = self._matrices(rows, int(given)), self._matrices(Hv_rows, int(given))
        R_x, R_y, free = ([part[i, : len(rows)] for part in scratch] for i in range(3))

        # R{x_j} = sum_i (w_ij R{y_i} + v_ij y_i), R{y_j} = f'_j(x_j) R{x_j}; R{y} = 0 at the inputs
        # and where y is always 1
        for layer, W in enumerate(between):
            if layer == 0 and R_x1 is not None:
                R_x[0] = R_x1
            else:
                np.matmul(y[layer], directions[layer], out=R_x[layer])
            if layer:
                R_x[layer] += _times(R_y[layer - 1], W, free[layer])
            np.multiply(df[layer], R_x[layer], out=R_y[layer])

        # R{dE/dy_i} = R{e_i} + sum_j (w_ij R{dE/dx_j} + v_ij dE/dx_j)
        # R{dE/dx_i} = f'_i R{dE/dy_i} + f''_i R{x_i} dE/dy_i
        # R{dE/dw_ij} = y_i R{dE/dx_j} + R{y_i} dE/dx_j
        R_Ey = passes.R_e(R_y[-1]) / self.n_patterns
        for layer in reversed(range(len(between))):
            # in place: R{x} of this layer is not needed again
            R_Ex = R_x[layer]
            R_Ex *= f2_E_y[layer]
            R_Ey *= df[layer]
            R_Ex += R_Ey
            # of a first layer that is not turned, the caller makes this product
            if layer or not given:
                np.matmul(y[layer].T, R_Ex, out=grads[layer])
            if layer:
                # without the row of the biases: their neuron is 1, and its R{y} is 0
                grads[layer][:, :-1] += np.matmul(R_y[layer - 1].transpose(0, 2, 1), E_x[layer])
                # sum_j v_ij dE/dx_j, then sum_j w_ij R{dE/dx_j}
                turned = directions[layer][:, :-1].transpose(0, 2, 1)
                R_Ey = np.matmul(E_x[layer], turned, out=R_y[layer - 1])
                R_Ey += _times(R_Ex, between[layer].T, free[layer - 1])
        return R_x[0]


@dataclass(eq=False)
class _Passes:
    """The two ordinary passes at one w: per layer the matrix with biases, x, f(x), y below it (with
    the neuron that is always 1), f', dE/dy and dE/dx.

    What not every caller needs is computed when it is first asked for: a gradient does without f'',
    Hv without E and gradient.
    """

    objective: MLPObjective
    layers: list[Array]
    x: list[Array]
    f_x: list[Array]
    y: list[Array]
    df: list[Array]
    E_y: list[Array]
    E_x: list[Array]

    @cached_property
    def E(self) -> float:
        return float(self.objective._E.value(self.f_x[-1], self.objective.target).mean())

    @cached_property
    def g(self) -> Array:
        """dE/dw_ij = y_i dE/dx_j."""
        g = np.empty((1, self.objective.n_weights))
        of_layers = self.objective._matrices(g)
        for y, E_x, of_layer in zip(self.y, self.E_x, of_layers, strict=True):
            # y has the neuron that is always 1 last: the last row is that of the biases
            np.matmul(y.T, E_x, out=of_layer[0])
        return g[0]

    @cached_property
    def f2_E_y(self) -> list[Array]:
        """f'' dE/dy."""
        of_neurons = zip(self.objective._f, self.x, self.f_x, self.df, self.E_y, strict=True)
        return [f.d2f(x, f_x, df) * E_y for f, x, f_x, df, E_y in of_neurons]

    @cached_property
    def R_e(self) -> Callable[[Array], Array]:
        """The map from R{y} to R{e}."""
        return self.objective._E.R_e(self.f_x[-1], self.objective.target)


def _times(a: Array, W: Array, out: Array) -> Array:
    """a @ W for a of shape (k, S, n), as one product, into out."""
    np.matmul(a.reshape(-1, a.shape[-1]), W, out=out.reshape(-1, W.shape[1]))
    return out


def _with_one(y: Array) -> Array:
    """y (..., S, n) with the neuron that is always 1."""
    with_one = np.empty((*y.shape[:-1], y.shape[-1] + 1))
    with_one[..., :-1], with_one[..., -1] = y, 1.0
    return with_one
