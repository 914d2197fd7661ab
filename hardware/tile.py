"""A tile: synapses that share wires and a process. With one synapse per tile this is the literal picture."""

from collections import deque

import numpy as np

from perturb.methods import REGRESSORS
from perturb.statistics import Design
from perturb.synapse import SUMS, accumulate

Array = np.ndarray


class Tile:
    """Synapses start..stop-1. Each knows its own dw and v, V = |v|^2, its sums and a FIFO of its own past perturbations.

    dw is what the array sees; the FIFO holds what the synapses know of it, the same unless the code has a `sensing` error.

    `perturb` pushes a new dw into the FIFO; `receive` meets a broadcast with the oldest dw in it. A shift register cannot know
    trial numbers: when broadcasts come later than `fifo_depth` trials, its oldest entry is lost, every later broadcast meets
    the wrong dw, and `overflowed` says so.
    """

    def __init__(self, design: Design, v: Array, start: int, stop: int, fifo_depth: int):
        self.design, self.start, self.stop = design, start, stop
        self.v, self.V = v[start:stop], float(v @ v)
        self.fifo: deque[Array] = deque(maxlen=fifo_depth)
        self.overflowed = False
        self.dw = np.zeros(stop - start)
        self.state = (np.zeros(stop - start),) * len(SUMS)

    def perturb(self, trial: int) -> float:
        """Draw this trial's perturbation; returns the tile's contribution to the summing line, its part of s = dw.v."""
        design = self.design
        self.dw = design.code.draw(design.n_weights, design.sigma, design.seed, trial, self.start, self.stop)
        known = design.code.sensed(self.dw, design.sigma, design.seed, trial, self.start)
        self.overflowed |= len(self.fifo) == self.fifo.maxlen
        self.fifo.append(known)
        return float(known @ self.v)

    def receive(self, dE: tuple[float, float], s: float) -> None:
        """A broadcast arrives: every synapse adds to its sums."""
        dw = self.fifo.popleft()
        kind = REGRESSORS[self.design.method.regressor]
        self.state = accumulate(self.state, dw, dE, s, self.v, self.V, kind, self.design.kappa)
