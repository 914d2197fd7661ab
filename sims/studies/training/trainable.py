"""Which weights of the runs are trained; the others stay at their starts."""

from typing import NamedTuple

import numpy as np

from perturb.networks.network import Network
from perturb.networks.objective import Objective
from perturb.networks.patterns import weights_of_layers
from perturb.training.of_runs import Learned, OfRuns
from sims.problem import Array
from sims.studies.training.options import Training


class Trainable(NamedTuple):
    """starts (R, n): all weights of each run; free (m,): the numbers of those that are trained, or
    None for all of them.
    """

    starts: Array
    free: Array | None

    @classmethod
    def of(cls, options: Training, network: Network, starts: Array) -> "Trainable":
        """By training.layers; InputError for layers that the network has not."""
        if options.layers is None:
            return cls(starts, None)
        of_weights = network.weight_layers()
        free = weights_of_layers("training.layers", list(options.layers), of_weights)
        return cls(starts, None if free.size == of_weights.size else free)

    @property
    def w(self) -> Array:
        """The starts of what is trained, (R, m)."""
        return self.starts if self.free is None else self.starts.take(self.free, axis=1)

    def whole(self, w: Array) -> Array:
        """All weights (R, n), from trained ones (R, m)."""
        return self._filled(self.starts, w)

    def levels(self, level: Array) -> Array:
        """Of all weights (R, n), the levels of the devices that hold trained ones; -1: of none."""
        return self._filled(np.full(self.starts.shape, -1), level)

    def _filled(self, others: Array, own: Array) -> Array:
        if self.free is None:
            return own
        filled = others.copy()
        filled[:, self.free] = own
        return filled

    def part(self, x: Array) -> Array:
        """Of numbers (n,) of all weights those of trained ones."""
        return x if self.free is None else x[self.free]

    def of_runs(self, objective: Objective) -> Learned:
        """E as a function of what is trained in each run."""
        return objective if self.free is None else OfRuns(objective, self.free, self.starts)
