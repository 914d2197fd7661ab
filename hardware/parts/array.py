"""The analog array: weights, displaced by their drivers, and neurons that settle under them."""

from collections.abc import Callable
from copy import copy

import numpy as np

from hardware.params import ChipParams
from hardware.parts.crossbar import Crossbar
from hardware.parts.draws import READ, Keys, noise
from hardware.parts.neurons import Neurons
from hardware.parts.weight_store import WeightStore
from perturb.estimation.design import Design
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.trial.random import pattern_index

Array = np.ndarray
PatternsOf = Callable[[int], Array]  # of a trial: which it shows


class SynapticArray:
    """Errors of the patterns under w + displacement.

    patterns_of(trial): which patterns a trial shows; None: as the design says.
    """

    def __init__(
        self,
        params: ChipParams,
        objective: Objective,
        design: Design,
        weights: WeightStore,
        neurons: Neurons,
        patterns_of: PatternsOf | None = None,
    ):
        self.read_noise = params.weights.read_noise
        self.objective = objective
        self.seed = design.seed
        self.weights = weights
        self.neurons = neurons
        self.crossbar = Crossbar(params.array, objective, design.seed)
        if patterns_of is None and design.presentation == "pattern":
            patterns_of = self._drawn
        self.patterns_of = patterns_of

    def showing(self, patterns: Array | None) -> "SynapticArray":
        """The same weights and neurons, with these patterns in every evaluation; None: all."""
        # a shallow copy: the weights stay those of the chip, as they are
        other = copy(self)
        other.patterns_of = None if patterns is None else lambda trial: patterns
        return other

    def unused(self) -> "SynapticArray":
        """The same weights and neurons, with converters that have not converted anything."""
        other = copy(self)
        other.crossbar = self.crossbar.unused()
        return other

    def _drawn(self, trial: int) -> Array:
        return np.array([pattern_index(np.uint64(self.seed), trial, self.objective.n_patterns)])

    def errors(self, stored: Array, displaced: Array, keys: Keys) -> Array:
        """Errors of the patterns shown, (m, presented), in evaluations with these keys.

        stored (n,) or (m, n): the weights as they are read then. displaced (m, n): by the drivers.
        """
        points = displaced + stored
        if self.read_noise:
            # new in every evaluation, since a key is one evaluation
            points += self.read_noise * noise(self.seed, READ, points.shape[1], keys)
        shown = None
        if self.patterns_of is not None:
            trials = dict.fromkeys(trial for trial, _ in keys)
            of = {trial: self.patterns_of(trial) for trial in trials}
            shown = [of[trial] for trial, _ in keys]
        # weights that do not learn are none of the array's: they stay as they are
        objective = self.objective.unrestricted
        points = self.objective.whole_weights(points)
        ideal = self.neurons.ideal and self.crossbar.ideal
        if ideal and not isinstance(objective, MLPObjective):
            if shown is None:
                return objective.errors_at(points)
            subsets = [objective.subset(patterns) for patterns in shown]
            return np.array(
                [
                    part.errors_at(point[None])[0]
                    for part, point in zip(subsets, points, strict=True)
                ]
            )
        return self.neurons.errors(points, shown, keys, self.crossbar)
