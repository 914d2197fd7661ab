"""How an error value is read: white noise, then a converter. Pure functions, used by the batch kernels and the chip alike."""

from dataclasses import dataclass

import numpy as np

from perturb.errors import InputError
from perturb.estimation.statistics import Design
from perturb.networks.objective import Objective


@dataclass(frozen=True)
class Reading:
    """noise: standard deviation of one reading of one pattern's error, in units of E. bits, range: a converter of 2^bits levels
    from 0 to `range` (it saturates); bits = 0 means none. An evaluation of S patterns takes S readings and their mean."""

    noise: float = 0.0
    bits: int = 0
    range: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < np.inf:
            raise InputError(f"noise = {self.noise} must be a finite number >= 0")
        if not (0 <= self.bits <= 52 and 0 < self.range < np.inf):
            raise InputError(f"bits = {self.bits} must lie in 0..52 and range = {self.range} be a positive number")

    @property
    def step(self) -> float:
        """The converter's step, 0 without a converter."""
        return self.range / 2**self.bits if self.bits else 0.0

    def variance(self, readings: int) -> float:
        """Variance of the mean of so many readings, the converter's rounding counted as step^2/12."""
        return (self.noise**2 + self.step**2 / 12) / readings


def read(error, xi, noise, step, top):
    """The value read for one pattern's error, xi standard normal; also elementwise on arrays."""
    value = error + noise * xi
    if step > 0.0:
        value = np.minimum(np.maximum(np.floor(value / step + 0.5) * step, 0.0), top)
    return value


class Meter:
    """Evaluations of E as an estimate's design wants them: of all patterns, or of the one that the trial draws."""

    def __init__(self, objective: Objective, design: Design, reading: Reading):
        self.objective, self.design, self.reading = objective, design, reading
        self._patterns: dict[int, Objective] = {}

    def measure(self, weights: np.ndarray, trial: int, phase: int) -> float:
        """The mean reading over the presented patterns; the noise is keyed by (seed, trial, phase, pattern)."""
        from perturb.trial.random import NOISE, normals, pattern_index

        seed, shown, reading = np.uint64(self.design.seed), self.objective, self.reading
        if self.design.presentation == "pattern":
            shown = self._pattern(pattern_index(seed, trial, shown.n_patterns))
        errors = shown.pattern_errors(weights)
        xi = np.zeros(errors.size)
        if reading.noise > 0:
            normals(seed, NOISE, trial, phase, xi)
        return float(read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean())

    def measure_each(self, points: np.ndarray, trials: range, phase: int) -> np.ndarray:
        """`measure` of many trials, each at its own weights, or all at one: points (trials, n) or (1, n), the mean readings
        (trials,)."""
        from perturb.trial.random import NOISE, normals_each, pattern_index

        seed, reading = np.uint64(self.design.seed), self.reading
        if self.design.presentation == "pattern":
            index = np.array([pattern_index(seed, trial, self.objective.n_patterns) for trial in trials])
            errors = np.empty((len(trials), 1))
            for shown in np.unique(index):
                here = index == shown
                errors[here] = self._pattern(int(shown)).errors_at(points if len(points) == 1 else points[here])
        else:
            errors = np.broadcast_to(self.objective.errors_at(points), (len(trials), self.objective.n_patterns))
        xi = np.zeros(errors.shape)
        if reading.noise > 0:
            normals_each(seed, NOISE, np.array(trials), np.full(len(trials), phase), xi)
        return read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean(1)

    def _pattern(self, index: int) -> Objective:
        if index not in self._patterns:
            self._patterns[index] = self.objective.pattern(index)
        return self._patterns[index]
