"""The error unit: reads E of each pattern, noise and converter included, and their mean."""

import numpy as np

from hardware.chip_tables import ErrorUnitParams
from hardware.parts.draws import DITHER, FLICKER, Keys, noise, uniforms
from perturb.trial.random import NOISE
from perturb.trial.readout import Reading, read

Array = np.ndarray
OCTAVES = 24  # of 1/f noise: down to one change in 16 million evaluations


class ErrorUnit:
    """Readings of E.

    phases: evaluations of a trial, to number those of a run. readings, above, below: how many a
    converter has made so far, and how many were beyond its range.
    """

    def __init__(self, params: ErrorUnitParams, seed: int, phases: int):
        self.params = params
        self.seed = seed
        self.phases = phases
        self.reading = Reading(params.noise, params.bits, params.range)
        self.readings = self.above = self.below = 0

    def read(self, errors: Array, keys: Keys) -> Array:
        """E (m,) as read in the evaluations with these keys, from the patterns' errors (m, S)."""
        unit = self.params
        step = self.reading.step
        S = errors.shape[1]
        # (m, 1): the same for all patterns of an evaluation
        extra = np.full((len(errors), 1), unit.offset)
        if unit.flicker:
            extra = extra + unit.flicker * self._flicker(keys)
        if unit.dither and step:
            draws = [uniforms(self.seed, DITHER, S, *key) for key in keys]
            # uniform over one step, by which rounding is right in the mean
            extra = extra + step * (np.array(draws) - 0.5)
        xi = noise(self.seed, NOISE, S, keys) if unit.noise else np.zeros_like(errors)
        if step:
            value = errors + extra + unit.noise * xi
            self.readings += value.size
            # half a step below the lowest level, 0, and above the highest, range - step
            self.below += int((value < -step / 2).sum())
            self.above += int((value > self.reading.range - step / 2).sum())
        E = read(errors + extra, xi, unit.noise, step, self.reading.range - step)
        return E.sum(1) / S

    def _flicker(self, keys: Keys) -> Array:
        """1/f noise after Voss, (m, 1): octave k changes every 2^k evaluations."""
        # over all evaluations of a run in one row, as 1/f noise knows no trials
        numbers = [trial * self.phases + phase for trial, phase in keys]
        octaves = [
            noise(self.seed, FLICKER, 1, [(number >> k, k) for number in numbers])
            for k in range(OCTAVES)
        ]
        # as much variance from every octave of frequencies, which is 1/f
        return np.sum(octaves, axis=0)
