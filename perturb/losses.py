"""The error of one pattern, its derivative e = dE/dy, and R{e}.

A new error is one call of `add_error`; the ones here also have a compiled twin of the value in `kernels.py`. E is the mean over
patterns, so the objective divides by their number; nothing here does.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp, softmax

from perturb.errors import InputError

Array = np.ndarray


class ErrorFunction(NamedTuple):
    """For outputs y and targets t of shape (S, n_out): the error of each pattern (S,), e = dE/dy, and the map from R{y} to R{e},
    of shape (k, S, n_out), one slice per direction: what depends on y and t alone is computed once for many directions."""

    value: Callable[[Array, Array], Array]
    e: Callable[[Array, Array], Array]
    R_e: Callable[[Array, Array], Callable[[Array], Array]]


def _cross_entropy_R_e(y: Array, t: Array) -> Callable[[Array], Array]:
    # not elementwise: (diag p - p p') R{x} is a full matrix product (times the sum of the targets, which is 1 for a distribution)
    p = softmax(y, axis=-1)
    weighted = t.sum(-1, keepdims=True) * p
    return lambda R_y: weighted * (R_y - (p * R_y).sum(-1, keepdims=True))


def _binary_cross_entropy_R_e(y: Array, t: Array) -> Callable[[Array], Array]:
    slope = expit(y) * expit(-y)
    return lambda R_y: slope * R_y


ERRORS: dict[str, ErrorFunction] = {
    "squared_error": ErrorFunction(
        lambda y, t: 0.5 * ((y - t) ** 2).sum(-1),
        lambda y, t: y - t,
        lambda y, t: lambda R_y: R_y,
    ),
    "cross_entropy": ErrorFunction(  # softmax belongs to the error: y are the log-odds of the last layer
        lambda y, t: t.sum(-1) * logsumexp(y, axis=-1) - (t * y).sum(-1),
        lambda y, t: t.sum(-1, keepdims=True) * softmax(y, axis=-1) - t,
        _cross_entropy_R_e,
    ),
    "binary_cross_entropy": ErrorFunction(  # the logistic function belongs to the error
        lambda y, t: (np.logaddexp(0.0, y) - t * y).sum(-1),
        lambda y, t: expit(y) - t,
        _binary_cross_entropy_R_e,
    ),
}
NEEDS_LINEAR_OUTPUT = ("cross_entropy", "binary_cross_entropy")


def check_outputs(error: str, outputs: Array, activations: Sequence[str]) -> None:
    """InputError if an output unit is not linear though the error brings its own softmax or logistic function, or is alone
    under a softmax."""
    for unit in outputs:
        if error in NEEDS_LINEAR_OUTPUT and activations[unit] != "linear":
            raise InputError(f'output unit {unit} is {activations[unit]} but error = {error!r} needs it to be "linear"')
    if error == "cross_entropy" and len(outputs) == 1:
        raise InputError(
            'outputs: error = "cross_entropy" needs at least two, for the softmax of one is always 1: '
            'set error = "binary_cross_entropy"'
        )


def add_error(
    name: str,
    value: Callable[[Array, Array], Array],
    e: Callable[[Array, Array], Array],
    R_e: Callable[[Array, Array, Array], Array],
) -> None:
    """Make an error known to every network under a new name: value(y, t) and e(y, t) as in `ErrorFunction`, and R_e(y, t, R_y).

    e and R{e} are checked against differences of value and e at random outputs, with targets between 0 and 1; one that is wrong
    raises InputError. Trials of networks with an error of your own run without a compiled kernel.
    """
    if name in ERRORS:
        raise InputError(f"error {name!r} exists already: choose another name")
    rng, eps = np.random.Generator(np.random.Philox(0)), 1e-5
    y, t, R_y = rng.standard_normal((6, 3)), rng.random((6, 3)), rng.standard_normal((2, 6, 3))
    along = (value(y + eps * R_y[0], t) - value(y - eps * R_y[0], t)) / (2 * eps)
    if np.shape(along) != (6,) or not np.allclose((e(y, t) * R_y[0]).sum(-1), along, rtol=1e-6, atol=1e-7):
        raise InputError(f"error {name!r}: e is not the derivative of value with respect to y: correct it")
    turned = [(e(y + eps * direction, t) - e(y - eps * direction, t)) / (2 * eps) for direction in R_y]
    if np.shape(R_e(y, t, R_y)) != R_y.shape or not np.allclose(R_e(y, t, R_y), turned, rtol=1e-6, atol=1e-7):
        raise InputError(f"error {name!r}: R_e is not the derivative of e along R{{y}}: correct it")
    ERRORS[name] = ErrorFunction(value, e, lambda y, t: partial(R_e, y, t))
