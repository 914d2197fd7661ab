"""The analog array and the error unit: what one evaluation of E gives. Neither is visible to a synapse but through broadcasts."""

from functools import cached_property

import numpy as np

from hardware.params import ErrorUnitParams
from perturb.objective import Objective
from perturb.philox import pattern_index
from perturb.reading import Reading, measure
from perturb.statistics import Design

Array = np.ndarray


def reading_of(params: ErrorUnitParams) -> Reading:
    """The value-only part of the error unit, in the form that the batch kernels read too."""
    return Reading(noise=params.noise, bits=params.bits, range=params.range)


class ErrorUnit:
    """Presents the patterns to the array one after another, reads the error of each, and takes the mean."""

    def __init__(self, objective: Objective, design: Design, params: ErrorUnitParams):
        self.objective, self.design, self.reading = objective, design, reading_of(params)

    @cached_property
    def patterns(self) -> list[Objective]:
        return [self.objective.pattern(index) for index in range(self.objective.n_patterns)]

    def measure(self, weights: Array, trial: int, phase: int) -> float:
        """One evaluation of E at the weights that the array sees; the noise is keyed by (seed, trial, phase, pattern)."""
        shown = self.objective
        if self.design.presentation == "pattern":
            shown = self.patterns[pattern_index(np.uint64(self.design.seed), trial, self.objective.n_patterns)]
        return measure(shown, weights, self.reading, self.design.seed, trial, phase)
