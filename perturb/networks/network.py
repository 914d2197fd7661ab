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

    @property
    def objective(self) -> Callable[..., Objective]:
        """E(w) on patterns: of (x, target), or of states."""
