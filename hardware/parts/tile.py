"""A tile: synapses that share wires and a process. With one synapse per tile this is the literal
picture.
"""

from collections import deque


class Tile:
    """Synapses start..stop-1 and a FIFO of their past perturbations, named by their trials,
    which come one after another.

    `perturb` pushes a new one; `receive` takes the oldest out, for a broadcast to meet. A shift
    register cannot know trial numbers: when broadcasts come later than `fifo_depth` trials, its
    oldest entry is lost, every later broadcast meets the wrong perturbation, and `overflowed` says
    so. A broadcast that is lost on its way still shifts the register; one that finds it empty meets
    what came out of it last. first: the first trial.
    """

    __slots__ = ("fifo", "number", "out", "overflowed", "perturb", "start", "stop")

    def __init__(self, number: int, start: int, stop: int, fifo_depth: int, first: int):
        self.number = number
        self.start = start
        self.stop = stop
        self.fifo: deque[int] = deque(maxlen=fifo_depth)
        self.perturb = self.fifo.append
        self.overflowed = False
        self.out = first - 1

    def receive(self, met: dict[int, int]) -> None:
        """Note in `met`, by tiles, the trial whose perturbation the broadcast meets here."""
        if self.fifo:
            out = self.fifo.popleft()
            if out != self.out + 1:
                self.overflowed = True
            self.out = out
        met[self.number] = self.out
