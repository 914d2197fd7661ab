"""Measurements of E for trials, with the noise of the readout."""

import numpy as np

from perturb.estimation.design import Design
from perturb.networks.objective import Objective
from perturb.trial.random import NOISE, normals, normals_each, pattern_index
from perturb.trial.readout import Reading, read


class Meter:
    """Evaluations of E as an estimate's design wants them: of all patterns, or of the one that
    the trial draws.
    """

    def __init__(self, objective: Objective, design: Design, reading: Reading):
        self.objective, self.design, self.reading = objective, design, reading
        self._patterns: dict[int, Objective] = {}

    def measure(self, weights: np.ndarray, trial: int, phase: int) -> float:
        """The mean reading over the presented patterns; the noise is keyed by (seed, trial,
        phase, pattern).
        """
        seed, shown, reading = np.uint64(self.design.seed), self.objective, self.reading
        if self.design.presentation == "pattern":
            shown = self._pattern(pattern_index(seed, trial, shown.n_patterns))
        errors = shown.pattern_errors(weights)
        xi = np.zeros(errors.size)
        if reading.noise > 0:
            normals(seed, NOISE, trial, phase, xi)
        return float(
            read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean()
        )

    def measure_each(self, points: np.ndarray, trials: range, phase: int) -> np.ndarray:
        """`measure` of many trials, each at its own weights, or all at one: points (trials, n) or
        (1, n), the mean readings (trials,).
        """
        seed, reading = np.uint64(self.design.seed), self.reading
        if self.design.presentation == "pattern":
            index = np.array(
                [pattern_index(seed, trial, self.objective.n_patterns) for trial in trials]
            )
            errors = np.empty((len(trials), 1))
            # all trials of a pattern at once, whatever their order
            for shown in np.unique(index):
                here = index == shown
                errors[here] = self._pattern(int(shown)).errors_at(
                    points if len(points) == 1 else points[here]
                )
        else:
            # at one point the same errors serve every trial; only their noise differs
            errors = np.broadcast_to(
                self.objective.errors_at(points), (len(trials), self.objective.n_patterns)
            )
        xi = np.zeros(errors.shape)
        if reading.noise > 0:
            normals_each(seed, NOISE, np.array(trials), np.full(len(trials), phase), xi)
        return read(errors, xi, reading.noise, reading.step, reading.range - reading.step).mean(1)

    def _pattern(self, index: int) -> Objective:
        if index not in self._patterns:
            self._patterns[index] = self.objective.pattern(index)
        return self._patterns[index]
