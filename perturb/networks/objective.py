"""Objective: a network together with its data, as a function of the flat weights, which every
network offers.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from perturb.checks import as_directions, as_floats, as_number, as_weights
from perturb.errors import InputError
from perturb.networks.derivatives import finite_difference_gradient, finite_difference_hvp
from perturb.networks.patterns import Targets, as_units
from perturb.networks.second_derivatives import SecondDerivatives
from perturb.networks.some_weights import Held, SomeWeights

Array = np.ndarray
P = TypeVar("P", bound="Objective")


class Objective(SecondDerivatives, SomeWeights):
    """E(w) of a network on its patterns, with exact gradient and Hessian-vector products.

    Attributes
    ----------
    n_weights : int
        n, the length of w.
    n_patterns : int
        S, the patterns over which E is the mean.
    depth : int
        Products of a matrix and a vector that follow one another in one evaluation of one pattern:
        one for each layer, of a convolution one for each position.
    n_macs : int
        Multiplications by a weight in one evaluation of one pattern.
    parallel : bool
        Whether `errors_at` may run on several threads at once.
    inexact : tuple of str
        Which of "gradient", "hvp" are not those of E, but from finite differences or other wires.
    symmetric : bool
        Whether `hvp` is a symmetric map, as that of a function is.
    directions_at_once : int
        The most directions for which R{.} is computed together, so that memory is bounded; more are
        split.
    classes : tuple
        What each output stands for, if the targets were names of classes (of a single output, what
        0 and 1 stand for); else (). Subsets have none.

    Notes
    -----
    `error`, `gradient` and `hvp` are exact to rounding, except those named in `inexact`. Weights w
    are a finite array (n,), directions v one of shape (n,) or (n, k); anything else raises
    InputError. Objectives come from the `objective` method of a network or from `from_functions`. A
    network of another kind defines the abstract methods: `pattern_errors`, `gradient`, `subset`,
    and `_block`, which is Hv for a few directions; and `_gauss_newton`, if its E is an error of
    outputs.

    References
    ----------
    Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994) 147-160.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> network = perturb.MLP([2, 1])
    >>> objective = network.objective([[1.0, 2.0], [0.0, 1.0]], [[1.0], [0.0]])
    >>> w = np.zeros(3)
    >>> objective.error(w), objective.gradient(w)
    (0.25, array([-0.5, -1. , -0.5]))
    >>> objective.hessian(w)
    array([[0.5, 1. , 0.5],
           [1. , 2.5, 1.5],
           [0.5, 1.5, 1. ]])
    >>> objective.hvp(w, [1.0, 0.0, 0.0])
    array([0.5, 1. , 0.5])
    """

    n_patterns: int
    depth: int
    parallel: bool = False
    inexact: tuple[str, ...] = ()
    classes: tuple = ()

    def __repr__(self) -> str:
        # a function has no network
        of = repr(self.network) if hasattr(self, "network") else f"n_weights={self.n_weights}"
        return f"{type(self).__name__}({of}, n_patterns={self.n_patterns})"

    @property
    def target(self) -> Array:
        """Targets of the patterns, of an objective that has some.

        Returns
        -------
        array of shape (n_patterns, n_outputs)
        """
        return self._targets

    @target.setter
    def target(self, given: "Array | Targets") -> None:
        # as `as_patterns` gives them, or without names
        self._targets, self.classes = given if isinstance(given, Targets) else (given, ())

    def _of_my_classes(self, part: P) -> P:
        """One on some of the patterns, whose targets have lost the names of their classes."""
        part.classes = self.classes
        return part

    @staticmethod
    def from_functions(
        error: Callable[[Array], float],
        gradient: Callable[[Array], Array] | None = None,
        hvp: Callable[[Array, Array], Array] | None = None,
        *,
        n_weights: int,
    ) -> "Objective":
        """Any function of n_weights numbers as an objective of one pattern.

        Parameters
        ----------
        error : callable
            error(w), one number, for w (n,).
        gradient : callable, optional
            gradient(w), shape (n,).
        hvp : callable, optional
            hvp(w, v), shape (n,), for v (n,).
        n_weights : int
            n, at least 1.

        Returns
        -------
        Objective

        Raises
        ------
        InputError
            When called, if a function returns another shape or a value that is not finite.

        Notes
        -----
        What is left out comes from central finite differences (a gradient costs 2 n errors, Hv two
        gradients) and is named in `inexact`. The functions get copies of w and v, and what they
        return is copied: they may change the one and use the memory of the other again.

        Examples
        --------
        >>> import numpy as np
        >>> import perturb
        >>> objective = perturb.Objective.from_functions(lambda w: w[0] * w[1] ** 2, n_weights=2)
        >>> objective.inexact
        ('gradient', 'hvp')
        >>> objective.gradient(np.array([1.0, 3.0])).round(6)
        array([9., 6.])
        """
        return FunctionObjective(error, gradient, hvp, n_weights)

    @property
    def n_macs(self) -> int:
        """Multiplications by a weight in one evaluation of one pattern.

        A weight that several edges share counts for each.
        """
        return self.n_weights

    @abstractmethod
    def pattern_errors(self, w: Array) -> Array:
        """The error of each presented pattern, whose mean is E(w): what a chip's error unit reads.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (n_patterns,)
        """

    @abstractmethod
    def gradient(self, w: Array) -> Array:
        """dE/dw.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (n,)
        """

    @abstractmethod
    def subset(self, rows: Array) -> "Objective":
        """The same network on some of the patterns.

        Parameters
        ----------
        rows : int array of shape (k,)
            The numbers of the patterns, from 0.

        Returns
        -------
        Objective
        """

    def pattern(self, index: int) -> "Objective":
        """The same network on one pattern only.

        Parameters
        ----------
        index : int
            The number of the pattern, from 0.

        Returns
        -------
        Objective
        """
        return self.subset(np.array([index]))

    def errors_at(self, points: Array) -> Array:
        """`pattern_errors` at many points.

        Parameters
        ----------
        points : array of shape (m, n)
            Weights, one point a row.

        Returns
        -------
        array of shape (m, n_patterns)
            Each row is the same whichever points come with it.
        """
        return np.array([self.pattern_errors(w) for w in points]).reshape(len(points), -1)

    def gradients(self, points: Array, shown: Array | None = None) -> Array:
        """`gradient` at many points, of all patterns or of those shown at each.

        Parameters
        ----------
        points : array of shape (m, n)
            Weights, one point a row.
        shown : int array of shape (m, k), optional
            The numbers of the patterns of each point.

        Returns
        -------
        array of shape (m, n)
            Each row is the same whichever points come with it.
        """
        if shown is None:
            own = [self.gradient(w) for w in points]
        else:
            # one by one: no row depends on those beside it
            own = [self.subset(rows).gradient(w) for w, rows in zip(points, shown, strict=True)]
        return np.array(own).reshape(len(points), self.n_weights)

    def error(self, w: Array) -> float:
        """E(w), the mean error over the patterns.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        float
        """
        return float(self.pattern_errors(w).mean())

    def with_decay(self, alpha: float) -> "Objective":
        """E(w) + alpha |w|^2 / 2, with its gradient and Hv: weight decay, or a Gaussian prior on w.

        Parameters
        ----------
        alpha : float
            At least 0; in units of E over squared weight.

        Returns
        -------
        Objective
        """
        return DecayedObjective(self, alpha)

    def restricted(self, weights: Array, w: Array) -> "Objective":
        """E as a function of some of the weights, the others held at w.

        Parameters
        ----------
        weights : int array of shape (m,)
            The numbers of the weights that stay free, from 0, each once.
        w : array of shape (n,)
            What the others are held at.

        Returns
        -------
        Objective
            Of m weights, in the order of `weights`; of all weights in their order this one itself.

        Raises
        ------
        InputError
            If a number is not that of a weight, or is named twice, or there is none.

        Notes
        -----
        Its gradient is that of E at these weights, its Hessian the block of H in their rows and
        columns. Estimates, theory, learning and chips take it as any other; of the compiled kernels
        of an `MLP` that of learning does, and those of estimates do not. `whole_weights` of it puts
        weights back among those that are held, `unrestricted` is this objective.

        Examples
        --------
        >>> import numpy as np
        >>> import perturb
        >>> objective = perturb.MLP([1, 2, 1]).objective([[1.0]], [[0.5]])
        >>> w = np.arange(7) / 7
        >>> last = objective.of_layers([2], w)
        >>> last.n_weights, bool(last.error(w[4:]) == objective.error(w))
        (3, True)
        >>> bool((last.hessian(w[4:]) == objective.hessian(w)[4:, 4:]).all())
        True
        >>> last.whole_weights(np.zeros(3)).round(2)
        array([0.  , 0.14, 0.29, 0.43, 0.  , 0.  , 0.  ])
        """
        chosen = as_units("weights", weights, self.n_weights, "weight")
        w = as_weights("w", w, self.n_weights)
        every = np.array_equal(chosen, np.arange(self.n_weights))
        return self if every else RestrictedObjective(self, Held(chosen, w))


class RestrictedObjective(Objective):
    """See `Objective.restricted`."""

    def __init__(self, objective: Objective, held: Held):
        self.held, self.all = held, objective
        self.n_weights, self.n_patterns = len(held.free), objective.n_patterns
        self.depth, self.parallel = objective.depth, objective.parallel
        self.inexact, self.symmetric = objective.inexact, objective.symmetric
        self.directions_at_once = objective.directions_at_once
        # a function of the user's own has none
        if hasattr(objective, "target"):
            self.target = objective.target
        self.classes = objective.classes

    def __repr__(self) -> str:
        return f"RestrictedObjective({self.all!r}, n_weights={self.n_weights})"

    @property
    def n_macs(self) -> int:
        return self.all.n_macs

    @property
    def unrestricted(self) -> Objective:
        return self.all.unrestricted

    def whole_weights(self, points: Array) -> Array:
        return self.all.whole_weights(self.held.among(points))

    def weight_layers(self) -> Array:
        return self.all.weight_layers()[self.held.free]

    def subset(self, rows: Array) -> "RestrictedObjective":
        return RestrictedObjective(self.all.subset(rows), self.held)

    def outputs(self, w: Array) -> Array:
        """`outputs` of a network that has them."""
        whole: Any = self.all
        return whole.outputs(self.held.among(w))

    def pattern_errors(self, w: Array) -> Array:
        return self.all.pattern_errors(self.held.among(w))

    def errors_at(self, points: Array) -> Array:
        return self.all.errors_at(self.held.among(points))

    def gradient(self, w: Array) -> Array:
        # derivatives by the free weights, at all of them
        return self.all.gradient(self.held.among(w))[self.held.free]

    def gradients(self, points: Array, shown: Array | None = None) -> Array:
        # in C order, unlike [:, free]: sums of rows must not round by how many there are
        return self.all.gradients(self.held.among(points), shown).take(self.held.free, axis=1)

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        # with R{w} = 0 of what is held, rows of HV are those of the smaller Hessian
        E, g, HV = self.all.error_gradient_hvp(self.held.among(w), self.held.along(V))
        return E, g[self.held.free], HV[self.held.free]

    def _gauss_newton(self, w: Array, V: Array) -> Array:
        GV = self.all.gauss_newton_product(self.held.among(w), self.held.along(V))
        return GV[self.held.free]


class DecayedObjective(Objective):
    """See `Objective.with_decay`."""

    def __init__(self, objective: Objective, alpha: float):
        self.plain, self.alpha = objective, as_number("alpha", alpha)
        if self.alpha < 0:
            raise InputError(f"alpha = {alpha} must be a finite number >= 0")
        self.n_weights, self.n_patterns = objective.n_weights, objective.n_patterns
        self.depth = objective.depth
        self.inexact, self.symmetric = objective.inexact, objective.symmetric
        self.classes = objective.classes

    def __repr__(self) -> str:
        return f"DecayedObjective({self.plain!r}, alpha={self.alpha:g})"

    @property
    def n_macs(self) -> int:
        return self.plain.n_macs

    def weight_layers(self) -> Array:
        return self.plain.weight_layers()

    def subset(self, rows: Array) -> "DecayedObjective":
        return DecayedObjective(self.plain.subset(rows), self.alpha)

    def pattern_errors(self, w: Array) -> Array:
        w = as_weights("w", w, self.n_weights)
        # every pattern has the whole decay: their mean is E plus one of it
        return self.plain.pattern_errors(w) + self.alpha / 2 * (w @ w)

    def gradient(self, w: Array) -> Array:
        w = as_weights("w", w, self.n_weights)
        return self.plain.gradient(w) + self.alpha * w

    def gradients(self, points: Array, shown: Array | None = None) -> Array:
        return self.plain.gradients(points, shown) + self.alpha * as_floats("w", points)

    def hvp(self, w: Array, v: Array) -> Array:
        # the Hessian of alpha |w|^2/2 is alpha I
        return self.plain.hvp(w, v) + self.alpha * as_directions("v", v, self.n_weights)

    def _gauss_newton(self, w: Array, V: Array) -> Array:
        # the decay is convex: its curvature is in G as it is in H
        return self.plain.gauss_newton_product(w, V) + self.alpha * V

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        w = as_weights("w", w, self.n_weights)
        E, g, HV = self.plain.error_gradient_hvp(w, V)
        return E + self.alpha / 2 * float(w @ w), g + self.alpha * w, HV + self.alpha * V


class FunctionObjective(Objective):
    """See `Objective.from_functions`; one pattern, one layer."""

    def __init__(
        self,
        error: Callable[[Array], float],
        gradient: Callable[[Array], Array] | None,
        hvp: Callable[[Array, Array], Array] | None,
        n_weights: int,
    ):
        if not (isinstance(n_weights, (int, np.integer)) and n_weights >= 1):
            raise InputError(f"n_weights = {n_weights!r} must be an integer >= 1")
        self.n_weights, self.n_patterns, self.depth = int(n_weights), 1, 1
        self._error, self._gradient, self._hvp = error, gradient, hvp
        self.inexact = tuple(
            name for name, function in (("gradient", gradient), ("hvp", hvp)) if function is None
        )

    def subset(self, rows: Array) -> "FunctionObjective":
        return self

    def pattern_errors(self, w: Array) -> Array:
        # a copy: the user's function may write to what it is given
        value = as_floats("error(w)", self._error(as_weights("w", w, self.n_weights).copy()))
        if value.shape not in ((), (1,)):
            raise InputError(f"error(w) has shape {value.shape}: it must return one number")
        return value.reshape(1)

    def gradient(self, w: Array) -> Array:
        w = as_weights("w", w, self.n_weights)
        if self._gradient is None:
            return finite_difference_gradient(self.error, w)
        return as_weights("gradient(w)", self._gradient(w.copy()), self.n_weights).copy()

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        w = as_weights("w", w, self.n_weights)
        return self.error(w), self.gradient(w), np.stack([self._one_hvp(w, v) for v in V.T], axis=1)

    def _one_hvp(self, w: Array, v: Array) -> Array:
        if self._hvp is None:
            # differences of differences carry rounding of order eps^(2/3): a larger step then
            # balances it
            size = float(np.linalg.norm(v)) or 1.0
            far = 1e-3 * max(1.0, float(np.abs(w).max())) / size
            return finite_difference_hvp(self, w, v, far if self._gradient is None else None)
        return as_weights("hvp(w, v)", self._hvp(w.copy(), v.copy()), self.n_weights).copy()
