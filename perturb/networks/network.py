"""What a network is, before it has data."""

from collections.abc import Callable
from typing import Protocol

from perturb.networks.objective import Array, Objective


class Network(Protocol):
    """What every kind of network has, see `perturb.networks.kinds`."""

    n_weights: int
    n_inputs: int  # entries of a pattern
    n_outputs: int  # entries of its target
    error: str  # E, by name

    def init(self, seed: int) -> Array:
        """Random starting weights (n,)."""

    def weight_units(self) -> tuple[Array, Array]:
        """The neurons each weight comes from and goes to, two int arrays (n,); -1: a bias."""

    def weight_layers(self) -> Array:
        """The layer each weight belongs to, an int array (n,), from 1: layers that have weights are
        numbered from the inputs on. 0 of a network that has no layers. A number may be missing:
        of a layer that shares all its weights with earlier ones.
        """

    @property
    def objective(self) -> Callable[..., Objective]:
        """E(w) on patterns: of (x, target), or of states."""
