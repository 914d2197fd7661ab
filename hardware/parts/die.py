"""A fabricated chip: what its synapses and neurons differ by from the design, and which of them
work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hardware.params import ChipParams
from hardware.parts.draws import (
    DEAD,
    DYING,
    GAIN,
    MULTIPLIER,
    NEURON_GAIN,
    NEURON_OFFSET,
    OFFSET,
    STUCK,
    die_normals,
    uniforms,
)

Array = np.ndarray


@dataclass(frozen=True)
class Die:
    """One fabricated chip.

    Per synapse (n,): gain and offset of its perturbation, offset of its multiplier, whether its
    weight is stuck, whether the synapse works, whether it stops working during a run. neurons: gain
    and offset of their net inputs, per layer of `hardware.parts.neurons.layers_of`.
    """

    gain: Array
    offset: Array
    multiplier: Array
    stuck: Array
    alive: Array
    dying: Array
    neurons: list[tuple[Array, Array]]


def fabricate(params: ChipParams, n: int, layers: list[int]) -> Die:
    """The die of `params.die`, with n synapses; layers: neurons of each layer, in order."""
    p = params.perturbation
    cells = params.weights
    die = params.die or 0
    # each quantity has a stream of its own, used or not: one more imperfection changes no other
    gains = 1.0 + params.neuron.gain_mismatch * die_normals(die, NEURON_GAIN, sum(layers))
    offsets = params.neuron.offset_mismatch * die_normals(die, NEURON_OFFSET, sum(layers))
    # neurons of all layers are drawn in one row, which is cut up here
    parts = [slice(end - size, end) for size, end in zip(layers, np.cumsum(layers), strict=True)]
    return Die(
        gain=1.0 + p.gain_mismatch * die_normals(die, GAIN, n),
        offset=p.offset_mismatch * die_normals(die, OFFSET, n),
        multiplier=params.synapse.offset_mismatch * die_normals(die, MULTIPLIER, n),
        # the same numbers against any fraction: of more stuck cells, these are among them
        stuck=uniforms(die, STUCK, n) < cells.stuck_fraction,
        alive=uniforms(die, DEAD, n) >= cells.dead_fraction,
        dying=uniforms(die, DYING, n) < params.faults.dying_fraction,
        neurons=[(gains[part], offsets[part]) for part in parts],
    )


@dataclass(frozen=True)
class Health:
    """Which synapses work when: of a chip, or of one tile.

    alive, dying (n,): of the die. unpowered (n,): in the tile that loses power. dying_trial,
    power_trial: the first trials without them.
    """

    alive: Array
    dying: Array
    dying_trial: int
    unpowered: Array
    power_trial: int

    @cached_property
    def perfect(self) -> bool:
        """Whether every synapse works in every trial."""
        return bool(self.alive.all() and not self.dying.any() and not self.unpowered.any())

    def part(self, synapses: slice) -> "Health":
        return Health(
            self.alive[synapses],
            self.dying[synapses],
            self.dying_trial,
            self.unpowered[synapses],
            self.power_trial,
        )

    def working(self, trial: int) -> Array:
        """Which synapses work in a trial, (n,)."""
        works = self.alive
        if trial >= self.dying_trial:
            works = works & ~self.dying
        return works & ~self.unpowered if trial >= self.power_trial else works

    def masked(self, x: Array, trials: Sequence[int]) -> Array:
        """x (n,) or (trials, n) where the synapses work in each trial, else 0."""
        if self.perfect:
            return x
        return np.where([self.working(trial) for trial in trials], x, 0.0)


def health(params: ChipParams, die: Die) -> Health:
    """Of all synapses of a die."""
    faults = params.faults
    # faults.tile = -1 is the number of none
    tile = np.arange(die.alive.size) // params.synapses_per_tile
    return Health(die.alive, die.dying, faults.dying_trial, tile == faults.tile, faults.tile_trial)
