"""How an error value is read: white noise, then a converter. Pure functions, used by the batch
kernels and the chip alike.
"""

from dataclasses import dataclass

import numpy as np

from perturb.checks import at_least_zero
from perturb.errors import InputError


@dataclass(frozen=True)
class Reading:
    """How the error of one pattern is read; an evaluation of S patterns takes S readings and their
    mean.

    Parameters
    ----------
    noise : float
        Standard deviation of one reading, in units of E.
    bits : int
        A converter has 2^bits levels; 0: there is none.
    range : float
        Its levels are from 0 to `range`, in units of E; it saturates.

    Raises
    ------
    InputError
        For a number out of its range.
    """

    noise: float = 0.0
    bits: int = 0
    range: float = 1.0

    def __post_init__(self) -> None:
        at_least_zero("noise", self.noise)
        if not (0 <= self.bits <= 52 and 0 < self.range < np.inf):
            raise InputError(
                f"bits = {self.bits} must lie in 0..52 and range = {self.range} be a positive"
                " number"
            )

    @property
    def step(self) -> float:
        """The converter's step, 0 without a converter."""
        return self.range / 2**self.bits if self.bits else 0.0

    def variance(self, readings: int) -> float:
        """Variance of the mean of several readings, the converter's rounding counted as
        step^2/12.

        Parameters
        ----------
        readings : int

        Returns
        -------
        float
            In units of E squared.
        """
        # rounding errors are uniform over a step, where readings spread over several: step^2/12
        return (self.noise**2 + self.step**2 / 12) / readings


def read(error, xi, noise, step, top):
    """The value read for one pattern's error, xi standard normal; also elementwise on arrays."""
    # the converter rounds what it gets, noise included; `top` is where it saturates
    value = error + noise * xi
    if step > 0.0:
        value = np.minimum(np.maximum(np.floor(value / step + 0.5) * step, 0.0), top)
    return value
