"""What the events of a chip carry: entries of its trace, numbers on lines, words on their way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import simpy

from hardware.parts.bus import Words

Array = np.ndarray


class Interval(NamedTuple):
    """One entry of the timeline. phase: the evaluation within the trial, -1 outside any; unit: the
    part of the chip.
    """

    trial: int
    phase: int
    start_ns: int
    end_ns: int
    unit: str
    action: str


class Message(NamedTuple):
    """One number, or one for each synapse, that goes from a part to others: when, whose, which."""

    trial: int
    at_ns: int
    sender: str
    name: str
    value: Any


class Signal:
    """A line on which one part sends values to others: to `listeners`, which are called with every
    value, and then to those that wait for the next one, by `yield line.event`.
    """

    def __init__(self, env: simpy.Environment):
        self._env = env
        self.listeners: list[Callable[[Any], None]] = []
        self.event = env.event()

    def _tell(self, event: simpy.Event) -> None:
        value = event.value
        for listener in self.listeners:
            listener(value)

    def send(self, value: object) -> simpy.Event:
        """Give a value to all; returns the event, which is over when they have it."""
        sent = self.event
        # an event of SimPy happens once: whoever waits next needs another
        self.event = self._env.event()
        # a thousand tiles that listen cost a fraction of as many processes that wait
        sent.callbacks.insert(0, self._tell)
        return sent.succeed(value)


class Lines(NamedTuple):
    """What is on the lines to the drivers: dw (n,), and r v (n,), or 0 of a method that displaces
    nothing along v.
    """

    dw: Array
    rv: Array | float


class Flight(NamedTuple):
    """Words on their way: when each tile gets them, and which tiles have them."""

    words: Words
    arrivals: list[int]
    reached: set[int]
