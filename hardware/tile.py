"""A tile: synapses that share wires and a process. With one synapse per tile this is the literal picture."""

from collections import deque

import numpy as np

from hardware.values import Values
from perturb.synapse import SUMS

Array = np.ndarray


class Tile:
    """Synapses start..stop-1. Each knows its own dw and v, V = |v|^2, its sums and a FIFO of its own past perturbations.

    dw is what the code makes; the FIFO holds what the synapses know of it, the same unless the code has a `sensing` error.

    `perturb` pushes a new dw into the FIFO; `receive` meets a broadcast with the oldest dw in it. A shift register cannot know
    trial numbers: when broadcasts come later than `fifo_depth` trials, its oldest entry is lost, every later broadcast meets
    the wrong dw, and `overflowed` says so. A broadcast that is lost on its way still shifts the register.
    """

    def __init__(self, values: Values, start: int, stop: int, fifo_depth: int):
        self.values, self.start, self.stop = values, start, stop
        self.fifo: deque[Array] = deque(maxlen=fifo_depth)
        self.overflowed = False
        self.dw = np.zeros(stop - start)
        self.state: tuple[Array, ...] = (np.zeros(stop - start),) * len(SUMS)

    def perturb(self, trial: int) -> float:
        """Draw this trial's perturbation; returns the tile's contribution to the summing line, its part of s = dw.v."""
        self.dw = self.values.drawn(trial, self.start, self.stop)
        known = self.values.known(self.dw, trial, self.start)
        self.overflowed |= len(self.fifo) == self.fifo.maxlen
        self.fifo.append(known)
        return float(known @ self.values.v[self.start : self.stop])

    def receive(self, trial: int, dE: tuple[float, float], s: float, arrived: bool) -> None:
        """A broadcast arrives: every synapse adds to its sums."""
        known, part = self.fifo.popleft(), slice(self.start, self.stop)
        if arrived:
            self.state = self.values.accumulated(self.state, known, trial, dE, s, part)
        else:
            self.state = self.values.forgotten(self.state)
