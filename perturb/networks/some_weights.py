"""Some of the weights of a network, with the others held: which are free, and all of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from perturb.checks import as_floats, read_only_copy
from perturb.errors import InputError
from perturb.networks.patterns import weights_of_layers

Array = np.ndarray


class Held:
    """free (m,): the numbers of the free weights; w (n,): what all others are held at."""

    def __init__(self, free: Array, w: Array):
        self.free, self.w = free, read_only_copy(w)

    def among(self, points: Array) -> Array:
        """All weights (n,) or (k, n), for free ones (m,) or (k, m): the others stay to the bit."""
        points, m = as_floats("w", points), len(self.free)
        if points.ndim not in (1, 2) or points.shape[-1] != m:
            raise InputError(
                f"w has shape {points.shape}, but must be ({m},): {m} weights are free"
            )
        whole = np.empty((*points.shape[:-1], len(self.w)))
        # every row: what is held, then what is free
        whole[...] = self.w
        whole[..., self.free] = points
        return whole

    def along(self, V: Array) -> Array:
        """Directions (n, k) that displace free weights only, for directions (m, k) of these."""
        # what is held does not move: R{w} = 0 there
        directions = np.zeros((len(self.w), V.shape[1]))
        directions[self.free] = V
        return directions


class SomeWeights(ABC):
    """What an `Objective` offers of some of its weights."""

    n_weights: int

    @abstractmethod
    def restricted(self, weights: Array, w: Array) -> Any:
        """E as a function of some of the weights."""

    def weight_layers(self) -> Array:
        """The layer that each weight belongs to, as `weight_layers` of the network has it.

        Returns
        -------
        int array of shape (n,)
            From 1; 0 of a network without layers, and of a function.
        """
        network = getattr(self, "network", None)
        return network.weight_layers() if network else np.zeros(self.n_weights, dtype=int)

    def of_layers(self, layers: Sequence[int], w: Array) -> Any:
        """E as a function of the weights of some layers, see `restricted`.

        Parameters
        ----------
        layers : sequence of int
            Numbers of layers, as `weight_layers` has them.
        w : array of shape (n,)
            What the other weights are held at.

        Returns
        -------
        Objective
            Of these weights in their order; of all layers this one itself.

        Raises
        ------
        InputError
            If there is no such layer, or one is named twice, or none.
        """
        return self.restricted(weights_of_layers("layers", layers, self.weight_layers()), w)

    @property
    def unrestricted(self) -> Any:
        """E as a function of all weights."""
        return self

    def of_run(self, run: int) -> Any:
        """E as one of several runs has it that learn: the same for all.

        Parameters
        ----------
        run : int

        Returns
        -------
        Objective
            This one; otherwise where runs hold other weights, see `perturb.training.OfRuns`.
        """
        return self

    def whole_weights(self, points: Array) -> Array:
        """All weights of the network, for weights that are free.

        Parameters
        ----------
        points : array of shape (n,) or (k, n)

        Returns
        -------
        array
            As they are; of a `restricted` objective with the weights that are held.
        """
        return points
