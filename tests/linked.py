"""Chips at the other end of a link, for tests."""

import os
import random
import socket
import sys
import threading
import tty
from pathlib import Path

import numpy as np
from chips import exclusive_or, params

from hardware import Bench
from hardware.link.messages import Hello
from hardware.link.server import Responder, attend, listen
from hardware.link.streams import Pipe, Stream
from perturb import CODES

TESTS = Path(__file__).parent


def responder(objective, w, changes=(), by_itself=False, low=None, high=None, method="difference"):
    """An emulated chip; safe at w."""
    codes = tuple(CODES) if by_itself else ()
    hello = Hello(w.size, name="emulated", unit="1", low=low, high=high, codes=codes)
    return Responder(Bench(params(dict(changes)), objective, w, method), w.copy(), hello)


def by_tcp(chip, watchdog_s=5.0):
    """The address of a chip that listens."""
    found, ready = [], threading.Event()

    def is_ready(host, port):
        found.append(f"tcp://{host}:{port}")
        ready.set()

    threading.Thread(
        target=listen, args=(chip, "127.0.0.1", 0, watchdog_s, is_ready), daemon=True
    ).start()
    assert ready.wait(5)
    return found[0]


def by_terminal(chip):
    """The address of a chip behind a pseudo-terminal, as a serial line."""
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    threading.Thread(target=attend, args=(chip, Pipe(ours, ours), 5.0), daemon=True).start()
    return f"serial:{os.ttyname(theirs)}?baud=115200"


def by_command():
    """The address of a program that is exclusive or on an ideal chip."""
    return f"stdio:{sys.executable} {TESTS / 'linked.py'}"


def pair():
    """Two streams, connected."""
    ends = [end.detach() for end in socket.socketpair()]
    return (Pipe(end, end) for end in ends)


class Unreliable(Stream):
    """Loses, doubles and shuffles what is sent to it, and makes some values NaN."""

    def __init__(self, stream, seed, lost=0.0, doubled=0.0, nan=0.0, shuffled=1):
        self._stream, self._rng = stream, random.Random(seed)
        self.lost, self.doubled, self.nan, self.shuffled = lost, doubled, nan, shuffled
        self._held = []

    def send(self, *messages):
        self._stream.send(*messages)

    def receive(self, timeout_s):
        # as many as are there, up to `shuffled`, in any order
        while len(self._held) < self.shuffled:
            message = self._stream.receive(0.0 if self._held else timeout_s)
            if message is None:
                break
            if message.get("is") in ("hello", "safe"):
                return message
            if self._rng.random() < self.lost:
                continue
            if message.get("is") == "value" and self._rng.random() < self.nan:
                message = message | {"E": float("nan")}
            self._held += [message] * (1 + (self._rng.random() < self.doubled))
        if not self._held:
            return None
        return self._held.pop(self._rng.randrange(len(self._held)))

    def close(self):
        self._stream.close()


if __name__ == "__main__":
    task, starts = exclusive_or()
    attend(responder(task, np.array(starts[0]), by_itself="own" in sys.argv), Pipe(0, 1), 5.0)
