"""Relaxations: whether they settle, how far they came, and where they rest."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from perturb.errors import InputError

Array = np.ndarray


class NotSettled(InputError):
    """A relaxation did not come to rest: no answer is given."""


class Settling(NamedTuple):
    """How a relaxation went.

    Attributes
    ----------
    y : array of shape (S, n_units)
        The fixed points.
    residuals : array of shape (steps,)
        The largest |dy/dt| relative to the largest |y|, before each step.
    """

    y: Array
    residuals: Array


def spectral_radius(jacobian: Array) -> float:
    return float(np.abs(np.linalg.eigvals(jacobian)).max())


def check_stable(jacobian: Array, name: str) -> None:
    """NotSettled if an eigenvalue of a (S, n, n) Jacobian has a real part of 1 or more.

    What relaxes with it then grows.
    """
    # no |eigenvalue|^16 is larger than a norm of the 16th power, which is far cheaper than the
    # eigenvalues
    with np.errstate(over="ignore", invalid="ignore"):
        power = np.linalg.matrix_power(jacobian, 16)
        doubtful = jacobian[~(np.abs(power).sum(-1).max(-1) < 1)]
    # dq/dt = -q + J q decays iff every eigenvalue of J has a real part below 1
    largest = float(np.linalg.eigvals(doubtful).real.max()) if len(doubtful) else 0.0
    if largest >= 1:
        raise NotSettled(
            f"{name} would never settle: its Jacobian has an eigenvalue of real part {largest:.3g}"
            f" (must be below 1), spectral radius {spectral_radius(doubtful):.3g}: use smaller"
            " weights"
        )


class Steps(Protocol):
    """How a network relaxes: Euler's steps of `step` time constants, at most so many, until the
    residual is at most `tolerance`.
    """

    step: float
    max_steps: int
    tolerance: float


def relaxed(
    right: Callable[[Array], Array],
    like: Array,
    name: str,
    jacobian: Callable[[Array], Array],
    steps: Steps,
) -> tuple[Array, list[float]]:
    """dq/dt ~ -q + right(q) from q = 0, of the shape of `like`.

    Until |dq/dt| is small relative to |q|, in each direction; with the residuals, before each step.
    """
    residuals, q = [], np.zeros_like(like)
    scale = np.ones(like.shape[:-2])
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps.max_steps):
            goal = right(q)
            # q is 0 at first: then the first goal says how large it is going to be
            size = np.abs(q if step else goal).max((-2, -1))
            scale = np.where(size > 0, size, scale)
            change = goal - q
            # |dq/dt| relative to |q|, of the direction that is furthest from rest
            residuals.append(float((np.abs(change).max((-2, -1)) / scale).max()))
            if residuals[-1] <= steps.tolerance or not np.isfinite(residuals[-1]):
                break
            # Euler's step of dq/dt = -q + right(q)
            q = q + steps.step * change
    if not residuals[-1] <= steps.tolerance:
        raise NotSettled(
            f"{name} has not settled after {len(residuals)} steps of {steps.step}: residual"
            f" {residuals[-1]:.2g} (tolerance {steps.tolerance:g}), spectral radius"
            f" {spectral_radius(jacobian(q)):.3g}: use smaller weights, a larger max_steps or a"
            " smaller step"
        )
    return q, residuals


def at_rest(jacobian: Array, constant: Array, name: str) -> Array:
    """q = jacobian q + constant, per pattern, for all directions; factorised once."""
    columns = np.moveaxis(constant.reshape(-1, *constant.shape[-2:]), 0, -1)  # (S, n_units, k)
    try:
        # (1 - J) q = constant; the k directions are right sides of one factorisation per pattern
        q = np.linalg.solve(np.eye(jacobian.shape[-1]) - jacobian, columns)
    except np.linalg.LinAlgError:
        raise NotSettled(
            f"{name} has no single fixed point, spectral radius"
            f" {spectral_radius(jacobian):.3g}: use smaller weights"
        ) from None
    return np.moveaxis(q, -1, 0).reshape(constant.shape)
