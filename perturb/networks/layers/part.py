"""What a layer computes once the shape of its input is known: forward, R of forward, backward, R
of backward (Pearlmutter 1994).

Activities are arrays (channels, *positions, S), or (neurons, S): patterns come last, so that a
layer is one product of matrices, and a flatten only renames. For y' = F(y, w), with e = dE/dy'
from above and g = dE/dw:

    forward      y'            R forward      R{y'}              from R{y} and R{w} = v
    backward     dE/dy, g      R backward     R{dE/dy}, R{g}     from R{e}
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]


class Part(ABC):
    """One layer, on inputs of a shape.

    shape: of its output, without patterns. n_weights: of them it has. n_macs: multiplications by a
    weight in one evaluation of a pattern. n_products: its depth, see `Objective`. size: numbers in
    its largest array, of a pattern. total_size: of all parts that it is made of, together.
    """

    shape: Shape
    n_weights = 0
    n_macs = 0
    n_products = 0
    rectifies = False  # max(y, 0), number by number
    picks_largest = False  # of a few numbers each

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def total_size(self) -> int:
        return self.size

    def prepare(self, y: Array) -> Any:
        """What `forward` takes, made of an input: all that does not depend on the weights."""
        return y

    @abstractmethod
    def forward(self, w: Array, y: Any) -> tuple[Array, Any]:
        """y' from w (n_weights,) and `prepare(y)`; and what the other passes need of it."""

    def output(self, w: Array, y: Any) -> Array:
        """y' of `forward` alone."""
        return self.forward(w, y)[0]

    @abstractmethod
    def backward(self, w: Array, kept: Any, e: Array, wanted: bool) -> tuple[Array, Array, Any]:
        """dE/dy, g (n_weights,), and what R backward needs of them; from e and what forward kept.

        wanted: whether anybody asks for dE/dy; if not, it may be anything.
        """

    @abstractmethod
    def R_forward(self, w: Array, v: Array, kept: Any, R_y: Array | None) -> tuple[Any, Any]:
        """R{y'} from R{y}, None where that is 0; and what R backward needs of it."""

    @abstractmethod
    def R_backward(
        self, w: Array, v: Array, kept: Any, errors: Any, R_kept: Any, R_e: Array, wanted: bool
    ) -> tuple[Array, Array]:
        """R{dE/dy} and R{g} (n_weights,), from R{e} and what the other passes kept."""

    def init(self, rng: np.random.Generator, variance: float) -> Array:
        """Starting weights (n_weights,). variance: that of its net inputs, from inputs of mean
        square 1.
        """
        return np.zeros(0)

    @property
    def layer_sizes(self) -> list[int]:
        """How many weights each layer has that has some: itself, or those it is made of."""
        return [self.n_weights] if self.n_weights else []

    @property
    def net_variance(self) -> float | None:
        """The variance that net inputs before it start with; None if later parts say it."""
        return None

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        """The neurons that its weights come from, -1 for a bias, and lead to, (n_weights,) each,
        and those of its output, from those of its input: an array of the shape of an activity.

        first: the number of the next new neuron.
        """
        none = np.zeros(0, dtype=int)
        return none, none, units.reshape(self.shape)


class Fixed(Part):
    """A linear map without weights, of y and R{y} alike; back goes its transpose, of e and R{e}."""

    @abstractmethod
    def apply(self, y: Array, kept: Any) -> Array:
        """The map, of y or R{y}; kept: by `forward`, what says which map it is."""

    @abstractmethod
    def transpose(self, e: Array, kept: Any) -> Array:
        """Its transpose, of e or R{e}."""

    def forward(self, w: Array, y: Any) -> tuple[Array, Any]:
        return self.apply(y, None), None

    def backward(self, w: Array, kept: Any, e: Array, wanted: bool) -> tuple[Array, Array, Any]:
        # w has no entries, so that it is its own gradient
        return self.transpose(e, kept) if wanted else e, w, None

    def R_forward(self, w: Array, v: Array, kept: Any, R_y: Array | None) -> tuple[Any, Any]:
        # it is linear: 0 stays 0
        return None if R_y is None else self.apply(R_y, kept), None

    def R_backward(
        self, w: Array, v: Array, kept: Any, errors: Any, R_kept: Any, R_e: Array, wanted: bool
    ) -> tuple[Array, Array]:
        return self.transpose(R_e, kept) if wanted else R_e, w


class Chain(Part):
    """Parts one after the other."""

    def __init__(self, parts: Sequence[Part], shape: Shape):
        self.parts = list(parts)
        self.shape = parts[-1].shape if parts else shape
        # the weights of part k are ends[k] to ends[k + 1] of those of the chain
        ends = np.cumsum([0, *(part.n_weights for part in parts)]).tolist()
        self.n_weights = ends[-1]
        self.n_macs = sum(part.n_macs for part in parts)
        self.n_products = sum(part.n_products for part in parts)
        self.slices = [slice(a, b) for a, b in pairwise(ends)]
        # of the output alone: the largest of some rectified numbers is the largest, rectified
        self._order = list(range(len(self.parts)))
        for k, (part, following) in enumerate(pairwise(self.parts)):
            if k and part.rectifies and following.picks_largest:
                self._order[k : k + 2] = k + 1, k

    @property
    def size(self) -> int:
        return max((part.size for part in self.parts), default=prod(self.shape))

    @property
    def total_size(self) -> int:
        return sum(part.total_size for part in self.parts)

    def prepare(self, y: Array) -> Any:
        # of the first part only: what later ones take depends on the weights
        return self.parts[0].prepare(y) if self.parts else y

    def forward(self, w: Array, y: Any) -> tuple[Array, Any]:
        kept = []
        for k, (part, own) in enumerate(zip(self.parts, self.slices, strict=True)):
            # the first has been prepared by the caller, once for all w
            y, of_part = part.forward(w[own], part.prepare(y) if k else y)
            kept.append(of_part)
        return y, kept

    def output(self, w: Array, y: Any) -> Array:
        for k in self._order:
            part = self.parts[k]
            y = part.output(w[self.slices[k]], part.prepare(y) if k else y)
        return y

    def backward(self, w: Array, kept: Any, e: Array, wanted: bool) -> tuple[Array, Array, Any]:
        g, errors = np.empty(self.n_weights), [None] * len(self.parts)
        for k in reversed(range(len(self.parts))):
            # of the first part perhaps nobody wants dE/dy: that saves a product with its weights
            own = self.slices[k]
            e, g[own], errors[k] = self.parts[k].backward(w[own], kept[k], e, wanted or k > 0)
        return e, g, errors

    def R_forward(self, w: Array, v: Array, kept: Any, R_y: Array | None) -> tuple[Any, Any]:
        R_kept = []
        for k, (part, own) in enumerate(zip(self.parts, self.slices, strict=True)):
            R_y, of_part = part.R_forward(w[own], v[own], kept[k], R_y)
            R_kept.append(of_part)
        return R_y, R_kept

    def R_backward(
        self, w: Array, v: Array, kept: Any, errors: Any, R_kept: Any, R_e: Array, wanted: bool
    ) -> tuple[Array, Array]:
        R_g = np.empty(self.n_weights)
        for k in reversed(range(len(self.parts))):
            own, further = self.slices[k], wanted or k > 0
            R_e, R_g[own] = self.parts[k].R_backward(
                w[own], v[own], kept[k], errors[k], R_kept[k], R_e, further
            )
        return R_e, R_g

    def init(self, rng: np.random.Generator, variance: float) -> Array:
        # the first that comes later and says so, or what follows the chain
        starts, later = [], variance
        for part in reversed(self.parts):
            starts.append((part, later))
            later = later if part.net_variance is None else part.net_variance
        w = [part.init(rng, of_part) for part, of_part in reversed(starts)]
        return np.concatenate([np.zeros(0), *w])

    @property
    def layer_sizes(self) -> list[int]:
        return [size for part in self.parts for size in part.layer_sizes]

    @property
    def net_variance(self) -> float | None:
        # its own weights start with their own, so that those before it need none
        return next(
            (part.net_variance for part in self.parts if part.net_variance is not None), None
        )

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        sources, targets = [], []
        for part in self.parts:
            source, target, units = part.connected(units, first)
            sources.append(source)
            targets.append(target)
            # a part without neurons of its own gives older ones, and uses up no number; those of a
            # shortcut are no output, but their weights lead to them
            first = max(first, int(units.max()) + 1, int(target.max(initial=-1)) + 1)
        none = np.zeros(0, dtype=int)
        return np.concatenate([none, *sources]), np.concatenate([none, *targets]), units


class ResidualPart(Part):
    """y' = path(y) + shortcut(y), of two chains."""

    def __init__(self, path: Chain, shortcut: Chain):
        self.path, self.shortcut = path, shortcut
        self.shape = path.shape
        self.n_weights = path.n_weights + shortcut.n_weights
        self.n_macs = path.n_macs + shortcut.n_macs
        # the matrices of both are there at the same time
        self.n_products = max(path.n_products, shortcut.n_products)
        # of the weights: the path's, then the shortcut's
        self._both = ((path, slice(path.n_weights)), (shortcut, slice(path.n_weights, None)))

    @property
    def size(self) -> int:
        return max(self.path.size, self.shortcut.size)

    @property
    def total_size(self) -> int:
        # both paths keep what they need, and their sum is another array
        return self.path.total_size + self.shortcut.total_size + prod(self.shape)

    def prepare(self, y: Array) -> Any:
        return [chain.prepare(y) for chain, _ in self._both]

    def forward(self, w: Array, y: Any) -> tuple[Array, Any]:
        (a, kept_a), (b, kept_b) = (
            chain.forward(w[own], of) for (chain, own), of in zip(self._both, y, strict=True)
        )
        return a + b, (kept_a, kept_b)

    def output(self, w: Array, y: Any) -> Array:
        a, b = (chain.output(w[own], of) for (chain, own), of in zip(self._both, y, strict=True))
        return a + b

    def backward(self, w: Array, kept: Any, e: Array, wanted: bool) -> tuple[Array, Array, Any]:
        (e_a, g_a, errors_a), (e_b, g_b, errors_b) = (
            chain.backward(w[own], of, e, wanted)
            for (chain, own), of in zip(self._both, kept, strict=True)
        )
        # the same e goes down both, and both lead back to the same y
        return e_a + e_b if wanted else e, np.concatenate([g_a, g_b]), (errors_a, errors_b)

    def R_forward(self, w: Array, v: Array, kept: Any, R_y: Array | None) -> tuple[Any, Any]:
        (a, R_a), (b, R_b) = (
            chain.R_forward(w[own], v[own], of, R_y)
            for (chain, own), of in zip(self._both, kept, strict=True)
        )
        # None is 0: of a path without weights, where R{y} is 0
        return a if b is None else b if a is None else a + b, (R_a, R_b)

    def R_backward(
        self, w: Array, v: Array, kept: Any, errors: Any, R_kept: Any, R_e: Array, wanted: bool
    ) -> tuple[Array, Array]:
        (R_a, R_g_a), (R_b, R_g_b) = (
            chain.R_backward(w[own], v[own], kept[i], errors[i], R_kept[i], R_e, wanted)
            for i, (chain, own) in enumerate(self._both)
        )
        return R_a + R_b if wanted else R_e, np.concatenate([R_g_a, R_g_b])

    def init(self, rng: np.random.Generator, variance: float) -> Array:
        return np.concatenate([chain.init(rng, variance) for chain, _ in self._both])

    @property
    def layer_sizes(self) -> list[int]:
        return self.path.layer_sizes + self.shortcut.layer_sizes

    @property
    def net_variance(self) -> float | None:
        # what comes next on the path; on one without weights or activations, on the shortcut
        return (
            self.shortcut.net_variance if self.path.net_variance is None else self.path.net_variance
        )

    def connected(self, units: Array, first: int) -> tuple[Array, Array, Array]:
        # what is added up are the neurons of the path
        from_a, to_a, added = self.path.connected(units, first)
        first = max(first, int(added.max()) + 1, int(to_a.max(initial=-1)) + 1)
        from_b, to_b, _ = self.shortcut.connected(units, first)
        return np.concatenate([from_a, from_b]), np.concatenate([to_a, to_b]), added
