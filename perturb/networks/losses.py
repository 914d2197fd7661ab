"""The error of one pattern, its derivative e = dE/dy, and R{e}.

A new error is one call of `add_error`; the ones here also have a compiled twin of the value in
`kernels.activations`, which makes e of the cross-entropies too. E is the mean over patterns, so the
objective divides by their number; nothing here does.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from perturb.errors import InputError
from perturb.networks.activations import ACTIVATIONS, kernels

Array = np.ndarray


class ErrorFunction(NamedTuple):
    """value(y, t), e(y, t) and R_e(y, t), for outputs y and targets t of shape (S, n_out).

    value: the error of each pattern, (S,); e: dE/dy, (S, n_out); R_e: the map from R{y} to R{e},
    both of shape (k, S, n_out), one slice per direction: what depends on y and t alone is computed
    once for many directions.
    """

    value: Callable[[Array, Array], Array]
    e: Callable[[Array, Array], Array]
    R_e: Callable[[Array, Array], Callable[[Array], Array]]


class Softmax(NamedTuple):
    """p = softmax(y) along the last axis, 1 - p and log p, to the precision of y however near to 1
    a p is.

    relative: y less the largest; size = exp(relative); others: the sum of the sizes but for that of
    the largest y, which is 1.
    """

    relative: Array
    size: Array
    others: Array

    @property
    def p(self) -> Array:
        return self.size / (1.0 + self.others)

    @property
    def not_p(self) -> Array:
        """1 - p: no difference of what is nearly alike, for 1 - size of the largest is 0."""
        return (self.others + (1.0 - self.size)) / (1.0 + self.others)

    @property
    def log_p(self) -> Array:
        return self.relative - np.log1p(self.others)


def softmax(y: Array) -> Softmax:
    """The `Softmax` of y (..., n_out)."""
    relative = y - y.max(-1, keepdims=True)
    # ties of the largest are among the others
    top, size = relative == 0.0, np.exp(relative)
    others = np.where(top, 0.0, size).sum(-1, keepdims=True) + (top.sum(-1, keepdims=True) - 1.0)
    return Softmax(relative, size, others)


def _by_class(*arrays: Array) -> list[Array]:
    """The same (S, n_out), one class after the other in memory: sums over classes, of which there
    are few, are then sums of long rows.
    """
    return [np.asfortranarray(array) for array in arrays]


def _at_least_two(y: Array, t: Array) -> list[Array]:
    """The same, a single row twice: of one NumPy adds the classes in another order than of several,
    which rounds otherwise.
    """
    # one row of targets may stand for all rows of y
    return [y.repeat(2, 0), t.repeat(2, 0)] if len(y) == 1 else [y, t]


def _cross_entropy(y: Array, t: Array) -> Array:
    S = len(y)
    y, t = _by_class(*_at_least_two(y, t))
    # not -(...), which is -0 where p is 1
    return 0.0 - (t * softmax(y).log_p).sum(-1)[:S]


def _compiled_e(error: str) -> Callable[[Array, Array], Array]:
    """e of that error by the kernels, several times as fast as with NumPy."""

    def e(y: Array, t: Array) -> Array:
        found = np.empty(y.shape)
        kind = kernels().ERROR_KINDS[error]
        kernels().output_errors(kind, _in_rows(y, y.shape), _in_rows(t, y.shape), found)
        return found

    return e


def _cross_entropy_R_e(y: Array, t: Array) -> Callable[[Array], Array]:
    # not elementwise: (diag p - p p') R{y} is a full matrix product (times the sum of the targets,
    # 1 for a distribution)
    p, t = np.empty(y.shape), _in_rows(t, y.shape)
    kernels().softmax(_in_rows(y, y.shape), p)

    def R_e(R_y: Array) -> Array:
        found = np.empty(R_y.shape)
        kernels().softmax_products(p, t, _in_rows(R_y, R_y.shape), found)
        return found

    return R_e


def _in_rows(array: Array, shape: tuple[int, ...]) -> Array:
    """A copy of that shape, of the one type for which kernels are compiled: not every array lies
    row by row, or may be written, and one row of targets may stand for all.
    """
    rows = np.empty(shape)
    rows[...] = array
    return rows


def _binary_cross_entropy(y: Array, t: Array) -> Array:
    # ln(1 + exp y) - t y
    return (np.abs(y) * np.where(y > 0.0, 1.0 - t, t) + np.log1p(np.exp(-np.abs(y)))).sum(-1)


def _binary_cross_entropy_R_e(y: Array, t: Array) -> Callable[[Array], Array]:
    # p (1 - p), exact at either end
    _, slope = ACTIVATIONS["logistic"].with_slope(y)
    return lambda R_y: slope * R_y


ERRORS: dict[str, ErrorFunction] = {
    "squared_error": ErrorFunction(
        lambda y, t: 0.5 * ((y - t) ** 2).sum(-1),
        lambda y, t: y - t,
        lambda y, t: lambda R_y: R_y,
    ),
    "cross_entropy": (
        ErrorFunction(  # softmax belongs to the error: y are the log-odds of the last layer
            _cross_entropy,
            _compiled_e("cross_entropy"),
            _cross_entropy_R_e,
        )
    ),
    "binary_cross_entropy": ErrorFunction(  # the logistic function belongs to the error
        _binary_cross_entropy,
        _compiled_e("binary_cross_entropy"),
        _binary_cross_entropy_R_e,
    ),
}
NEEDS_LINEAR_OUTPUT = ("cross_entropy", "binary_cross_entropy")


def check_outputs(error: str, outputs: Array, activations: Sequence[str]) -> None:
    """InputError if an output neuron does not suit the error.

    That is, if it is not linear though the error brings its own softmax or logistic function, or is
    alone under a softmax.
    """
    for unit in outputs:
        if error in NEEDS_LINEAR_OUTPUT and activations[unit] != "linear":
            raise InputError(
                f"output neuron {unit} is {activations[unit]} but error = {error!r} needs it to be"
                ' "linear"'
            )
    if error == "cross_entropy" and len(outputs) == 1:
        raise InputError(
            'outputs: error = "cross_entropy" needs at least two, for the softmax of one is always'
            ' 1: set error = "binary_cross_entropy"'
        )


def add_error(
    name: str,
    value: Callable[[Array, Array], Array],
    e: Callable[[Array, Array], Array],
    R_e: Callable[[Array, Array, Array], Array],
) -> None:
    """Make an error function known to every network, under a new name.

    Parameters
    ----------
    name : str
        The name by which networks ask for it; it must be new.
    value : callable
        value(y, t), the error of each pattern, shape (S,), for outputs y and targets t (S, n_out).
    e : callable
        e(y, t) = d value/dy, shape (S, n_out).
    R_e : callable
        R_e(y, t, R_y), the derivative of e along each direction R_y (k, S, n_out), of that shape.

    Raises
    ------
    InputError
        If the name exists, or e or R_e is wrong: they are compared with central differences of
        value and e at random outputs, with targets between 0 and 1.

    Notes
    -----
    E(w) is the mean of value over the patterns. Trials of networks with an error of your own run
    without a compiled kernel.

    Examples
    --------
    >>> import perturb
    >>> perturb.add_error(
    ...     "fourth_power",
    ...     lambda y, t: ((y - t) ** 4).sum(-1) / 4,
    ...     lambda y, t: (y - t) ** 3,
    ...     lambda y, t, R_y: 3 * (y - t) ** 2 * R_y,
    ... )
    >>> objective = perturb.MLP([1, 1], error="fourth_power").objective([[1.0]], [[0.0]])
    >>> objective.error([2.0, 0.0]), objective.hvp([2.0, 0.0], [1.0, 0.0])
    (4.0, array([12., 12.]))
    """
    if name in ERRORS:
        raise InputError(f"error {name!r} exists already: choose another name")
    rng, eps = np.random.Generator(np.random.Philox(0)), 1e-5
    y, t, R_y = rng.standard_normal((6, 3)), rng.random((6, 3)), rng.standard_normal((2, 6, 3))
    # central differences, of error eps^2 = 1e-10 and rounding 1e-11: far below rtol
    change = (value(y + eps * R_y[0], t) - value(y - eps * R_y[0], t)) / (2 * eps)
    if np.shape(change) != (6,) or not np.allclose(
        (e(y, t) * R_y[0]).sum(-1), change, rtol=1e-6, atol=1e-7
    ):
        raise InputError(
            f"error {name!r}: e is not the derivative of value with respect to y: correct it"
        )
    # R{e} along each direction
    turned = [
        (e(y + eps * direction, t) - e(y - eps * direction, t)) / (2 * eps) for direction in R_y
    ]
    if np.shape(R_e(y, t, R_y)) != R_y.shape or not np.allclose(
        R_e(y, t, R_y), turned, rtol=1e-6, atol=1e-7
    ):
        raise InputError(f"error {name!r}: R_e is not the derivative of e along R{{y}}: correct it")
    ERRORS[name] = ErrorFunction(value, e, lambda y, t: partial(R_e, y, t))
