"""A tile: synapses that share wires and a process. With one synapse per tile this is the literal picture."""

from collections import deque


class Tile:
    """Synapses start..stop-1 and a FIFO of their own past perturbations, named by their trials.

    `perturb` pushes a new one; `receive` gives the oldest for a broadcast to meet. A shift register cannot know trial numbers:
    when broadcasts come later than `fifo_depth` trials, its oldest entry is lost, every later broadcast meets the wrong
    perturbation, and `overflowed` says so. A broadcast that is lost on its way still shifts the register; one that finds it empty
    meets what came out of it last.
    """

    def __init__(self, number: int, start: int, stop: int, fifo_depth: int):
        self.number, self.start, self.stop = number, start, stop
        self.fifo: deque[int] = deque(maxlen=fifo_depth)
        self.overflowed = False
        self.out = 0

    def perturb(self, trial: int) -> None:
        fifo = self.fifo
        if len(fifo) == fifo.maxlen:
            self.overflowed = True
        fifo.append(trial)

    def receive(self) -> int:
        if self.fifo:
            self.out = self.fifo.popleft()
        return self.out

    @property
    def oldest(self) -> int:
        """The trial whose perturbation the next broadcast would meet."""
        return self.fifo[0] if self.fifo else self.out
