"""Converters between numbers and words of so many bits."""

import numpy as np

Array = np.ndarray
MAX_BITS = 64  # of a word: more are finer than the numbers of this program


def quantised(x: Array, bits: int, reach: float) -> Array:
    """x rounded to 2^bits levels from -reach to reach - one step, and clipped there; bits = 0
    leaves it as it is.
    """
    if not bits:
        return x
    # an even number of levels, 0 among them: one more below 0 than above
    step = 2.0 * reach / 2**bits
    return np.clip(np.floor(x / step + 0.5) * step, -reach, reach - step)


class Converter:
    """Makes words of numbers, and counts those that were beyond its range.

    bits, reach: as of `quantised`. words, beyond: how many so far, and how many of them were out of
    range; of a converter without bits none is counted.
    """

    def __init__(self, bits: int, reach: float):
        self.bits = min(bits, MAX_BITS)
        self.reach = reach
        self.words = 0
        self.beyond = 0

    def __call__(self, x: Array, times: int = 1) -> Array:
        """The numbers as words make them; times: how often each of them is converted."""
        if self.bits:
            # half a step: what is rounded to the lowest or highest level is within the range
            half = self.reach / 2**self.bits
            inside = (-self.reach - half <= x) & (x < self.reach - half)
            self.words += times * x.size
            self.beyond += times * int((~inside).sum())
        return quantised(x, self.bits, self.reach)
