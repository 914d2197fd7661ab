"""The summing line: adds what the synapses put on it, s = sum_i dw_i v_i, and converts it."""

import numpy as np

from hardware.chip_tables import SummingLineParams
from hardware.parts.converter import Converter
from hardware.parts.draws import LINE, noise

Array = np.ndarray


class SummingLine:
    """s = dw.v as it is read.

    ready_ns: from a new perturbation until it is.
    """

    def __init__(self, params: SummingLineParams, seed: int):
        self.params = params
        self.seed = seed
        self.converter = Converter(params.bits, params.range)
        self.ready_ns = params.settle_ns + params.conversion_ns

    def total(self, contributions: Array, trials: range) -> Array:
        """s (trials,) from the contributions dw_i v_i (trials, n)."""
        line = self.params
        s = contributions.sum(1) * (1.0 + line.gain_error)
        if line.noise:
            s += line.noise * noise(self.seed, LINE, 1, [(trial, 0) for trial in trials])[:, 0]
        return self.converter(s)
