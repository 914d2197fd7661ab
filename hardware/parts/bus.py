"""The broadcast bus: words from the controller to all tiles, and how they arrive."""

import math
from typing import NamedTuple

import numpy as np

from hardware.chip_tables import BusParams
from hardware.parts.converter import Converter
from hardware.parts.draws import DROP, JITTER, uniforms

Array = np.ndarray


class Words(NamedTuple):
    """What is broadcast of a trial, dE = (dE_g, dE_z) and s = dw.v: all that a synapse hears of the
    rest of the chip. last: whether a round of learning ends with it.
    """

    trial: int
    dE: tuple[float, float]
    s: float
    last: bool = False


class Bus:
    """Words of so many bits, that take time, get lost, and come late.

    word_ns: of one word. dE, s: what makes words of numbers. broadcasts, lost: deliveries to tiles
    so far of a bus that loses some, and how many of them never arrived.
    """

    def __init__(self, params: BusParams, seed: int, tiles: int):
        self.params = params
        self.seed = seed
        self.tiles = tiles
        # events happen at whole ns
        self.word_ns = math.ceil(params.word_bits * 1e9 / params.bits_per_s)
        # without a range words carry numbers as they are
        self.dE = Converter(params.word_bits if params.dE_range else 0, params.dE_range)
        self.s = Converter(params.word_bits if params.s_range else 0, params.s_range)
        self.broadcasts = self.lost = 0

    def arrives(self, trial: int, tile: int) -> bool:
        """Whether a tile gets the words of a trial."""
        p = self.params.drop_probability
        # keyed by trial and tile, so that events and batches lose the same words
        lost = p > 0.0 and float(uniforms(self.seed, DROP, 1, trial, tile)[0]) < p
        self.broadcasts += 1
        self.lost += lost
        return not lost

    def delay_ns(self, trial: int, tile: int) -> int:
        """How much later than the first undisturbed one a tile gets the words: skew and jitter."""
        # none at the first tile, skew_ns at the last
        skew = self.params.skew_ns * tile // max(1, self.tiles - 1)
        if not self.params.jitter_ns:
            return skew
        # keyed as losses are: events and `Chip.time_s` find the same delay
        return skew + int(self.params.jitter_ns * uniforms(self.seed, JITTER, 1, trial, tile)[0])
