"""Multilayer perceptrons: exact error, gradient and Hv by R{backprop} (Pearlmutter 1994)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from perturb.checks import as_directions, as_floats, as_weights
from perturb.errors import InputError, choose
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.cache import Cached
from perturb.networks.losses import ERRORS, NEEDS_LINEAR_OUTPUT
from perturb.networks.mlp_passes import Passes, matrices, with_one
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

    def weight_layers(self) -> Array:
        """The layer that each weight feeds, from 1, an int array (n,)."""
        sizes = [(a + 1) * b for a, b in pairwise(self.layers)]
        return np.repeat(np.arange(1, len(sizes) + 1), sizes)

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
        self._first = with_one(self.x)

    def __reduce__(self):
        # functions do not pickle; names of them do
        return MLPObjective, (self.network, self.x, self.target), {"classes": self.classes}

    def subset(self, rows: Array) -> "MLPObjective":
        part = MLPObjective(self.network, self.x[rows], self.target[rows])
        return self._of_my_classes(part)

    def outputs(self, w: Array) -> Array:
        """The activity of the output neurons.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (S, n_out)
        """
        w = as_weights("w", w, self.n_weights)
        layers = [W[0] for W in matrices(self.network.layers, w[None])]
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
                y = self._evaluated(matrices(self.network.layers, points[i : i + width]))
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
        layers, grads = matrices(self.network.layers, points), matrices(self.network.layers, out)
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
        return self._passes(w).products(V).reshape(v.shape)

    def _evaluated(self, layers: list[Array]) -> Array:
        """f(x) of the last layer, also of stacks of W."""
        y = self._f[0].f(self._first @ layers[0])
        for W, f in zip(layers[1:], self._f[1:], strict=True):
            y = f.f(with_one(y) @ W)
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
                y.append(with_one(value))
        return x, f_x, df, y

    def _both_passes(self, w: Array) -> Passes:
        layers = [W[0] for W in matrices(self.network.layers, w[None])]
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
        sizes = self.network.layers
        return Passes(sizes, self._f, self._E, self.target, layers, x, f_x, y, df, E_y, E_x)

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        with blas_threads(self._largest):
            passes = self._passes(w)
            E, g = passes.E, passes.g.copy()
        return E, g, passes.products(V)

    def _gauss_newton(self, w: Array, V: Array) -> Array:
        return self._passes(w).products(V, gauss_newton=True)
