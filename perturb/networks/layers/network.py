"""Networks of layers as objectives: exact error, gradient and Hv by R{backprop} (Pearlmutter
1994).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from math import prod
from typing import Any, NamedTuple, TypeVar

import numpy as np

from perturb.checks import as_weights, integer
from perturb.errors import InputError, choose, cut
from perturb.networks.cache import Cached
from perturb.networks.layers.layer import MAX_SIZE, Layer, chained
from perturb.networks.layers.maps import ActivationPart, ReshapePart, TransposePart
from perturb.networks.layers.part import Array
from perturb.networks.layers.texts import layer_of
from perturb.networks.losses import ERRORS, NEEDS_LINEAR_OUTPUT
from perturb.networks.objective import Objective
from perturb.networks.patterns import as_patterns
from perturb.threads import WORTH_THREADS, blas_threads, n_threads

T = TypeVar("T")
# bytes of the largest array of some patterns that are computed together, which stay in cache
AT_ONCE = 2**23
# numbers in the largest arrays of all parts, of all patterns, up to which they are kept from one
# product to the next; with what activations and errors keep beside them about 0.9 GB (measured, 3x3
# convolutions with relu). What is more is computed again
KEPT = 2**26


class Layers:
    """A feed-forward network of layers: convolutions, pooling, sums of two paths, and others.

    Parameters
    ----------
    input_shape : sequence of int
        Of a pattern, channels first: [1, 28, 28] for an image, [1, 40] for a sequence, [64] for
        neurons.
    layers : sequence of str or Layer
        In order; texts such as "conv2d 16 5 padding=2", "relu", "maxpool 2", "flatten",
        "linear 10", "residual(conv2d 8 3 padding=1; relu; conv2d 8 3 padding=1)", or objects of
        `perturb.networks.layers`: name, outputs, window, then options by name.
    error : str
        "squared_error", "cross_entropy" (softmax included), "binary_cross_entropy" (logistic
        function included), or one of `add_error`.

    Attributes
    ----------
    n_weights : int
        n. A shared kernel is one weight for each of its numbers.
    output_shape : tuple of int
        Of the last layer: a single axis, the outputs.

    Raises
    ------
    InputError
        For a text that is no layer, and for a layer that does not fit its input: with its place,
        what came in and what was wanted.

    Notes
    -----
    Flat order of w: layer by layer, each as in its own documentation: of `Linear` the matrix (n_in,
    n_out) in C order, of a convolution the kernel (channels, n_in/groups, *window), then the
    biases; of a sum of two paths, the path's and then the shortcut's. Patterns are rows: the
    entries of an input in C order.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> layers = ["conv2d 4 3", "relu", "maxpool 2", "flatten", "linear 3"]
    >>> network = perturb.Layers([1, 8, 8], layers, error="cross_entropy")
    >>> network.n_weights, network.n_macs
    (151, 1551)
    >>> w, v = network.init(seed=0), np.ones(151)
    >>> objective = network.objective(np.eye(2, 64), [0, 1])
    >>> objective.hvp(w, v).shape
    (151,)
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        layers: Sequence[str | Layer],
        error: str = "squared_error",
    ):
        sizes = _listed("input_shape", input_shape, "[64] or [1, 28, 28]")
        shape = [integer("input_shape", n, 1, MAX_SIZE) for n in sizes]
        if not shape:
            raise InputError(
                "input_shape is empty: give [inputs], or [channels, positions] or [channels, rows,"
                " columns]"
            )
        choose("error", error, ERRORS)
        self.input_shape = tuple(shape)
        given = _listed("layers", layers, '["linear 8", "tanh", "linear 2"]')
        self.layers = [_layer(number, layer) for number, layer in enumerate(given)]
        self.error = error
        self.chain = chained(self.layers, self.input_shape)
        self.output_shape = self.chain.shape
        self._check_outputs()
        self.n_inputs = prod(self.input_shape)
        self.n_outputs = self.output_shape[0]
        self.n_weights = self.chain.n_weights
        self.n_macs = self.chain.n_macs

    def _check_outputs(self) -> None:
        if not self.chain.n_weights:
            raise InputError("layers has no layer with weights: add a linear one")
        if len(self.output_shape) > 1:
            raise InputError(
                f"layers gives outputs of shape {self.output_shape}: end with neurons, by"
                ' "flatten" and a linear layer'
            )
        # other shapes of the same numbers change nothing
        renamed = (ReshapePart, TransposePart)
        last = next(part for part in reversed(self.chain.parts) if not isinstance(part, renamed))
        if self.error in NEEDS_LINEAR_OUTPUT and isinstance(last, ActivationPart):
            raise InputError(
                f'layers ends with "{last.name}" but error = "{self.error}" brings its own: leave'
                " it out"
            )
        if self.error == "cross_entropy" and self.output_shape[0] == 1:
            raise InputError(
                "layers ends with 1 output, whose softmax is always 1: set error ="
                ' "binary_cross_entropy"'
            )

    def __repr__(self) -> str:
        layers = f"{list(self.input_shape)}, {[str(layer) for layer in self.layers]}"
        return f"Layers({layers}, error={self.error!r}, n_weights={self.n_weights})"

    def init(self, seed: int) -> Array:
        """Random starting weights: kernels and matrices normal, of variance 1/n_in, or 2/n_in where
        a relu comes next (He et al. 2015), before a sum of two paths on its path; biases zero; of a
        batchnorm 1 and 0.

        Parameters
        ----------
        seed : int

        Returns
        -------
        array of shape (n,)
        """
        return self.chain.init(np.random.Generator(np.random.Philox(seed)), 1.0)

    def weight_units(self) -> tuple[Array, Array]:
        """The neuron each weight comes from and goes to, two int arrays (n,).

        All positions of a channel are one neuron. They are numbered from the channels of the input
        on, layer by layer; a bias comes from -1. Where a reshape or a transpose has put several
        neurons into one channel, a weight that several of them share comes from the first; what
        only ever multiplies padding comes from -1, too.
        """
        channels = np.arange(self.input_shape[0]).reshape(-1, *(1,) * (len(self.input_shape) - 1))
        units = np.broadcast_to(channels, self.input_shape)
        sources, targets, _ = self.chain.connected(units, self.input_shape[0])
        return sources, targets

    def weight_layers(self) -> Array:
        """The layer of each weight, an int array (n,): those that have weights are numbered from 1;
        within a sum of two paths those of the path come first.
        """
        layer_sizes = self.chain.layer_sizes
        return np.repeat(np.arange(1, len(layer_sizes) + 1), layer_sizes)

    def objective(self, x: Array, target: Array) -> "LayersObjective":
        """E(w) of this network on patterns.

        Parameters
        ----------
        x : array of shape (S, n_inputs)
            Inputs, one pattern a row, its entries in C order; or (S, *input_shape).
        target : array of shape (S, n_outputs)
            Or names of classes (S,), of cross_entropy class numbers too.

        Returns
        -------
        LayersObjective
        """
        return LayersObjective(self, x, target)


class LayersObjective(Objective):
    """E(w) of `Layers` on its patterns, see `Objective`.

    Parameters
    ----------
    network : Layers
    x : array of shape (S, n_inputs), or (S, *input_shape)
    target : array of shape (S, n_outputs), or class numbers (S,)

    Notes
    -----
    Cost of Hv: about two gradients on top of one, which is cached for products at the same w where
    that takes no more than some KEPT numbers: of a convolution its windows, entries of a window
    times positions times patterns, a few times over. Of more patterns than that it is computed
    again, a few patterns at a time.
    """

    parallel = True

    def __init__(self, network: Layers, x: Array, target: Array):
        self.network = network
        flat = np.asarray(x)
        if flat.shape[1:] == network.input_shape:
            flat = flat.reshape(len(flat), network.n_inputs)
        self.x, self.target = as_patterns(
            flat, target, network.n_inputs, network.n_outputs, network.error
        )
        self.n_weights, self.n_patterns = network.n_weights, len(self.x)
        # a batchnorm alone is no product, and still settles
        self.depth = max(1, network.chain.n_products)
        self._E = ERRORS[network.error]
        # what forward keeps is about the arrays of all parts
        self._fits = self.n_patterns * network.chain.total_size <= KEPT
        self._prepare(np.float64)
        self._passes = Cached(self._both_passes, self.n_weights)

    def _prepare(self, dtype: type) -> None:
        """Cut the patterns into chunks, and make what the first layer takes of each, if it fits."""
        self._dtype = dtype
        S = self.n_patterns
        most = max(1, AT_ONCE // (np.dtype(dtype).itemsize * self.network.chain.size))
        # as equal as can be; the same on any number of cores, so that sums have the same bits
        size = -(-S // -(-S // most))
        self._chunks = [slice(i, i + size) for i in range(0, S, size)]
        self._prepared = [self._columns(rows) for rows in self._chunks] if self._fits else []

    def _columns(self, rows: slice) -> Any:
        # (n_inputs, patterns), as layers take them: patterns last
        y: Array = np.ascontiguousarray(self.x[rows].T, self._dtype)
        return self.network.chain.prepare(y.reshape(*self.network.input_shape, -1))

    def _first(self, number: int) -> Any:
        """What the first layer takes of a chunk."""
        return self._prepared[number] if self._fits else self._columns(self._chunks[number])

    def __reduce__(self):
        # functions do not pickle; names of them do
        made_of = self.network, self.x, self.target, self._dtype
        return _objective, made_of, {"classes": self.classes}

    @property
    def n_macs(self) -> int:
        return self.network.n_macs

    def subset(self, rows: Array) -> "LayersObjective":
        part = _objective(self.network, self.x[rows], self.target[rows], self._dtype)
        return self._of_my_classes(part)

    def outputs(self, w: Array) -> Array:
        """The activity of the output neurons.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (S, n_outputs)
        """
        w = as_weights("w", w, self.n_weights).astype(self._dtype, copy=False)
        with blas_threads(0):
            numbers = range(len(self._chunks))
            outputs = [self.network.chain.output(w, self._first(number)).T for number in numbers]
        return np.concatenate(outputs).astype(np.float64, copy=False)

    def pattern_errors(self, w: Array) -> Array:
        return self._E.value(self.outputs(w), self.target)

    def in_float32(self) -> "LayersObjective":
        """The same, but `outputs` and errors are computed in float32; derivatives are not its."""
        # its passes stay those of this one, in float64
        other = copy(self)
        other._prepare(np.float32)
        return other

    def gradient(self, w: Array) -> Array:
        return self._passes(w).g.copy()

    def _each(self, do: Callable[[int], T]) -> Iterator[T]:
        """do(number) of each chunk of patterns in order, on all cores where it is worth that."""
        numbers = range(len(self._chunks))
        work = self.n_macs * self.n_patterns
        # one thread of BLAS: those of the pool take a chunk each
        with blas_threads(0):
            if len(numbers) == 1 or work < WORTH_THREADS:
                yield from map(do, numbers)
                return
            with ThreadPoolExecutor(n_threads()) as pool:
                yield from pool.map(do, numbers)

    def _both_passes(self, w: Array) -> "_Passes":
        E, g, chunks = 0.0, np.zeros(self.n_weights), []
        # in their order, so that no bit depends on the number of threads
        for chunk, E_part, g_part in self._each(lambda number: self._chunk_passes(w, number)):
            E += E_part
            g += g_part
            chunks.append(chunk if self._fits else None)
        return _Passes(w, chunks, E, g)

    def _chunk_passes(self, w: Array, number: int) -> tuple["_Chunk", float, Array]:
        """Of some patterns the two passes, and their parts of E and of its gradient."""
        chain, target = self.network.chain, self.target[self._chunks[number]]
        y, kept = chain.forward(w, self._first(number))
        y = y.T
        # E is the mean over patterns
        E = float(self._E.value(y, target).sum()) / self.n_patterns
        e = np.ascontiguousarray(self._E.e(y, target).T) / self.n_patterns
        _, g, errors = chain.backward(w, kept, e, False)
        return _Chunk(kept, errors, self._E.R_e(y, target)), E, g

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        passes = self._passes(w)
        # a copy: that of the passes is kept for the next call
        return passes.E, passes.g.copy(), self._products(passes, V, self._chunk_products)

    def _gauss_newton(self, w: Array, V: Array) -> Array:
        return self._products(self._passes(w), V, self._chunk_gauss_newton)

    def _products(
        self, passes: "_Passes", V: Array, of_chunk: Callable[[Array, Array, "_Chunk"], Array]
    ) -> Array:
        """Products with directions V (n, k), from those of every chunk of patterns."""
        directions = np.ascontiguousarray(V.T)

        def products(number: int) -> Array:
            # what did not fit is computed again, of the same chunk in the same steps: to the bit
            chunk = passes.chunks[number] or self._chunk_passes(passes.w, number)[0]
            return of_chunk(passes.w, directions, chunk)

        return _sum(self._each(products)).T

    def _chunk_products(self, w: Array, directions: Array, chunk: "_Chunk") -> Array:
        """Its part of Hv, (k, n), for directions (k, n)."""
        chain = self.network.chain
        Hv = np.empty_like(directions)
        for k, v in enumerate(directions):
            # R{y} of a pattern is 0
            R_y, R_kept = chain.R_forward(w, v, chunk.kept, None)
            # R_e takes several directions, (k, S, n_outputs): here one
            R_e = np.ascontiguousarray(chunk.R_e(R_y.T[None])[0].T) / self.n_patterns
            _, Hv[k] = chain.R_backward(w, v, chunk.kept, chunk.errors, R_kept, R_e, False)
        return Hv

    def _chunk_gauss_newton(self, w: Array, directions: Array, chunk: "_Chunk") -> Array:
        """Its part of Gv, (k, n), for directions (k, n)."""
        chain = self.network.chain
        Gv = np.empty_like(directions)
        for k, v in enumerate(directions):
            # R{y} = J v
            R_y, _ = chain.R_forward(w, v, chunk.kept, None)
            # the ordinary backward pass, with H_E R{y} in place of e
            e = np.ascontiguousarray(chunk.R_e(R_y.T[None])[0].T) / self.n_patterns
            _, Gv[k], _ = chain.backward(w, chunk.kept, e, False)
        return Gv


def _listed(name: str, value: Any, such_as: str) -> list[Any]:
    """A list of what is one, or InputError."""
    try:
        # the letters of a text are no layers
        if isinstance(value, str):
            raise TypeError
        return list(value)
    except TypeError:
        raise InputError(
            f"{name} = {cut(repr(value), 60)} must be a list, such as {such_as}"
        ) from None


def _layer(number: int, given: Any) -> Layer:
    if isinstance(given, Layer):
        return given
    if isinstance(given, str):
        try:
            return layer_of(given)
        except InputError as error:
            raise InputError(f"layers[{number}]: {error}") from None
    raise InputError(
        f"layers[{number}] = {cut(repr(given), 60)} is no layer: give texts, such as"
        ' "linear 8", or objects of perturb.networks.layers'
    )


def _sum(parts: Iterable[Array]) -> Array:
    """Their sum, one after the other."""
    each = iter(parts)
    total = next(each)
    for part in each:
        total += part
    return total


def _objective(network: Layers, x: Array, target: Array, dtype: type) -> LayersObjective:
    """In the precision of another one."""
    made = LayersObjective(network, x, target)
    return made if dtype is np.float64 else made.in_float32()


class _Chunk(NamedTuple):
    """The two ordinary passes of some patterns: what each kept, and the map from R{y} to R{e}."""

    kept: Any
    errors: Any
    R_e: Callable[[Array], Array]


class _Passes(NamedTuple):
    """The two ordinary passes at w, None where they are too much to keep; E and its gradient."""

    w: Array
    chunks: list[_Chunk | None]
    E: float
    g: Array
