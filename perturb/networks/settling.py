"""Whether a relaxation settles, and how far it came."""

from typing import NamedTuple

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
