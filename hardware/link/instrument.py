"""Instruments: what measures E at weights that are set, be it a Python function or a chip at the
other end of a line.
"""

import importlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from hardware.link.care import Care, Incidents
from hardware.link.messages import (
    VERSION,
    Garbage,
    Hello,
    LinkError,
    Lost,
    Message,
    hello_of,
)
from hardware.link.streams import STREAMS, Stream
from perturb.errors import InputError
from perturb.estimation.questions import Evaluation

Array = np.ndarray
Answer = tuple[int, float | None]  # (id of the evaluation, E; None: it failed)
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 5.0  # between attempts to connect
FLYING = 4096  # requests whose answers are waited for
GREETING_S = 1.0  # between greetings of a chip that has not answered yet
LOSSES = 20  # of the link, or of order, without a measurement in between


class Instrument(ABC):
    """What measures E, with care.

    Attributes
    ----------
    hello : Hello
    incidents : Incidents
    """

    hello: Hello

    def __init__(self, care: Care):
        self.care, self.incidents = care, Incidents()

    @abstractmethod
    def submit(self, evaluation: Evaluation) -> None:
        """Ask for a measurement; its answer is among those of `collect`, unless it gets lost."""

    @abstractmethod
    def collect(self, timeout_s: float) -> list[Answer]:
        """Answers that have come, none if none comes in time."""

    @abstractmethod
    def safe(self) -> None:
        """Bring the weights to safe values."""

    @abstractmethod
    def close(self) -> None:
        """End the link, as it is."""


class Function(Instrument):
    """A function of the weights (n,) that measures E; with an attribute `safe`, a function that
    brings the device to safety.
    """

    def __init__(self, function: Callable[[Array], float], n_weights: int, care: Care):
        super().__init__(care)
        self._function = function
        self.hello = Hello(n_weights, name=getattr(function, "__name__", "function"))
        self._last: Array | None = None
        self._answers: list[Answer] = []

    def submit(self, evaluation: Evaluation) -> None:
        w = self.care.bounded(evaluation.weights, self.hello, self.incidents)
        # a function sets and measures in one: on the way it measures for nothing
        if self._last is not None and self.care.largest_step:
            for step in self.care.writes(self._last, w)[:-1]:
                self._function(step)
        self._last = w
        # it may keep what it is given, and change it
        value = self._function(w.copy())
        try:
            E = None if value is None else float(value)
        except (TypeError, ValueError):
            raise LinkError(
                f"{self.hello.name} gave {value!r}, which is no number: it must give E, or None"
            ) from None
        self._answers.append((evaluation.id, E))

    def collect(self, timeout_s: float) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers

    def safe(self) -> None:
        if (safe := getattr(self._function, "safe", None)) is not None:
            safe()

    def close(self) -> None:
        pass


class Line(Instrument):
    """A chip that speaks the protocol of hardware/README.md over a stream.

    open_stream: makes the connection, anew when it is lost. patience_s: for how long that is tried.
    reply_s: within which a chip has to answer hello and safe.
    """

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        care: Care,
        patience_s: float = 60.0,
        reply_s: float = 5.0,
        by_itself: bool = True,
    ):
        super().__init__(care)
        self._open, self._patience_s, self._reply_s = open_stream, patience_s, reply_s
        self._by_itself = by_itself
        self._ids = 0
        self._flying: dict[int, Evaluation] = {}  # by the number of the request
        self._asked: dict[int, Array] = {}  # by the number of a request to set
        self._answers: list[Answer] = []
        # to be asked again, as the weights were others
        self._again: list[Evaluation] = []
        self._losses = 0
        self._stream: Stream | None = None
        # what the chip has got: weights (None: nobody knows), the request that set them, and v
        self._last: Array | None = None
        self._set, self._direction = 0, np.zeros(0)
        # its safe weights, and the last request to go there
        self._safe, self._safe_since = np.zeros(0), 0
        self._connect()

    # ---- requests

    def submit(self, evaluation: Evaluation) -> None:
        own = self._by_itself and evaluation.own and evaluation.code in self.hello.codes
        w = evaluation.center if own else evaluation.weights
        w = self.care.bounded(w, self.hello, self.incidents)
        direction = evaluation.direction if own else None
        while True:
            try:
                if self._last is None:
                    self._go_safe()
                self._send_writes(w, direction)
                self._send(self._measure(evaluation, own))
                break
            except Lost:
                # evaluations that were under way are asked for again, before this one
                self._reconnect()
        self._flying[self._ids] = evaluation
        if len(self._flying) > FLYING:
            # the oldest: its answer will not come any more
            self._flying.pop(next(iter(self._flying)))

    def _measure(self, e: Evaluation, own: bool) -> Message:
        message: Message = {"do": "measure", "set": self._set, "key": [e.seed, e.trial, e.phase]}
        if e.patterns is not None:
            message["patterns"] = e.patterns.tolist()
        if own:
            names = ("code", "seed", "draw", "a", "b", "sigma", "r")
            message["perturb"] = {name: getattr(e, name) for name in names}
            if e.direction is None:
                # the chip may have one from before
                message["perturb"]["b"] = 0
        return message

    def _send(self, *messages: Message) -> None:
        assert self._stream is not None
        numbered = []
        for message in messages:
            self._ids += 1
            numbered.append({"id": self._ids, **message})
        self._stream.send(*numbered)

    def _send_writes(self, w: Array, direction: Array | None) -> None:
        assert self._last is not None
        last = self._last
        writes = self.care.writes(last, w)
        changed = direction is not None and not np.array_equal(direction, self._direction)
        if changed and not writes:
            writes = [w]
        for number, step in enumerate(writes, 1):
            message = self._setting(last, step)
            if direction is not None and changed and number == len(writes):
                message["direction"] = direction.tolist()
                self._direction = direction
            self._send(message)
            self._set, self._last, last = self._ids, step, step
            if self.care.tolerance:
                self._asked[self._ids] = step
            if self.care.settle_s or (self.care.largest_step and number < len(writes)):
                self._wait_for("set", self._ids)
        if writes and self.care.settle_s:
            time.sleep(self.care.settle_s)

    def _setting(self, last: Array, w: Array) -> Message:
        hello, at = self.hello, np.flatnonzero(w != last)
        # a write changes what one before has made: it must not be done if that one was lost
        message: Message = {"do": "set", "from": self._set}
        if 2 * at.size < w.size:
            message["at"] = at.tolist()
            w = w[at]
        if hello.bits:
            assert hello.low is not None and hello.high is not None
            share = (w - hello.low) / (hello.high - hello.low)
            return message | {"codes": np.rint(share * (2**hello.bits - 1)).astype(int).tolist()}
        return message | {"weights": w.tolist()}

    # ---- replies

    def collect(self, timeout_s: float) -> list[Answer]:
        end = time.monotonic() + timeout_s
        waiting = True
        while waiting and not self._answers:
            # what has come already is taken in any case
            left = max(0.0, end - time.monotonic())
            try:
                waiting = self._take(left) is not None or left > 0
                while self._answers and self._take(0.0) is not None:
                    pass
            except Lost:
                self._reconnect()
            again, self._again = self._again, []
            for evaluation in again:
                self.submit(evaluation)
        answers, self._answers = self._answers, []
        return answers

    def _take(self, timeout_s: float) -> Message | None:
        """Take one message, if one comes in time."""
        assert self._stream is not None
        if (message := self._stream.receive(timeout_s)) is None:
            return None
        kind, id = message.get("is"), message.get("id")
        if kind == "error":
            self.incidents.note(f"error {str(message.get('code'))[:40]}")
            if message.get("code") == "order":
                # a write has been lost: nobody knows what the weights are. One loss is told of by
                # all requests until they are safe again
                if _number(id) > self._safe_since and self._last is not None:
                    self._last = None
                    self._count_loss("the chip has not got the weights that were sent")
                if e := self._flying.pop(_number(id), None):
                    self._again.append(e)
                return message
        elif kind == "set":
            self._compare(id, message.get("readback"))
        elif kind not in ("value", "safe", "hello"):
            raise Garbage(f"the chip sent a message that is no reply: {str(message)[:60]}")
        if kind in ("value", "error") and (e := self._flying.pop(_number(id), None)):
            E = message.get("E") if message.get("status", "ok") == "ok" else None
            value = _float(E)
            if kind == "value" and value is None:
                status = str(message.get("status", "ok"))[:40]
                self.incidents.note(f"status {status}" if status != "ok" else "value: no number")
            self._answers.append((e.id, value))
            self._losses = 0
        return message

    def _compare(self, id: object, readback: object) -> None:
        asked = self._asked.pop(_number(id), None)
        if asked is None or readback is None:
            return
        try:
            found = np.asarray(readback, dtype=float)
            off = float(np.abs(found - asked).max())
        except (TypeError, ValueError):
            off = math.inf
        if not off <= self.care.tolerance:
            self.incidents.note("weight read back differs from what was set", off)

    def _wait_for(self, kind: str, id: int) -> Message:
        """Take messages until the reply to a request; Lost if it does not come."""
        end = time.monotonic() + self._reply_s
        while (left := end - time.monotonic()) > 0:
            message = self._take(left)
            if message and message.get("is") == kind and message.get("id") == id:
                return message
        raise Lost(f"no reply to {kind} within {self._reply_s:g} s")

    # ---- connection

    def _connect(self) -> None:
        """Connect and greet, again and again with longer pauses; LinkError when patience ends."""
        end, delay_s = time.monotonic() + self._patience_s, FIRST_DELAY_S
        while True:
            try:
                self._asked.clear()
                self._stream = self._open()
                self._greet(end)
                self._go_safe()
                return
            except Lost as error:
                self._drop()
                if time.monotonic() + delay_s > end:
                    raise LinkError(
                        f"{error}; tried for {self._patience_s:g} s: check the chip and its address"
                    ) from None
                time.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _greet(self, end: float) -> None:
        hello, first, next_s = None, self._ids, 0.0
        while hello is None:
            # a chip that is starting does not hear the first ones
            if (now := time.monotonic()) >= next_s:
                if now >= end:
                    raise Lost("no reply to hello")
                self._send({"do": "hello", "version": VERSION})
                next_s = now + GREETING_S
            try:
                message = self._take(GREETING_S)
            except Garbage:
                continue  # what a line says when it is opened, such as the message of a boot loader
            if message and message.get("is") == "hello" and _number(message.get("id")) > first:
                hello = hello_of(message)
        if getattr(self, "hello", hello) != hello:
            raise LinkError("another chip answers than before: start anew")
        self.hello = hello

    def _go_safe(self) -> None:
        """Safe weights, from which all writes go on."""
        self._send({"do": "safe"})
        asked = self._ids
        weights = self._wait_for("safe", asked).get("weights")
        try:
            found = np.asarray(weights, dtype=float)
            sound = found.shape == (self.hello.weights,) and bool(np.isfinite(found).all())
        except (TypeError, ValueError):
            sound = False
        if not sound:
            raise LinkError("the chip does not say which its safe weights are: a list of numbers")
        self._last, self._set, self._direction = found, asked, np.zeros(0)
        self._safe, self._safe_since = found, asked

    def _reconnect(self) -> None:
        self.incidents.note("link lost")
        self._count_loss("the link breaks again and again")
        self._drop()
        self._connect()
        # each once: one may have been asked for several times
        again = {evaluation.id: evaluation for evaluation in self._flying.values()}
        self._flying = {}
        for evaluation in again.values():
            self.submit(evaluation)

    def _count_loss(self, what: str) -> None:
        self._losses += 1
        if self._losses > LOSSES:
            raise LinkError(f"{what}, {LOSSES} times without a measurement: look at the chip")

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def safe(self) -> None:
        if self._stream is None:
            return
        try:
            # step by step, where that is known
            if self.care.largest_step and self._last is not None:
                self._send_writes(self._safe, None)
        finally:
            self._go_safe()

    def close(self) -> None:
        self._drop()


def _number(id: object) -> int:
    return id if isinstance(id, int) else -1


def _float(value: object) -> float | None:
    # true and false are numbers for Python, and no measurements
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def function_of(rest: str) -> Callable[[Array], float]:
    """The function that MODULE:FUNCTION names; InputError if there is none."""
    module, _, name = rest.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"python:{rest}: no such function ({error}): must be python:MODULE:FUNCTION, with"
            " the module where Python finds it (PYTHONPATH)"
        ) from None
    if not callable(found):
        raise InputError(f"python:{rest}: {name} is no function of the weights")
    return found


def open_instrument(
    address: str, n_weights: int, care: Care, patience_s: float = 60.0, by_itself: bool = True
) -> Instrument:
    """What an address names.

    Parameters
    ----------
    address : str
        "python:MODULE:FUNCTION", "tcp://HOST:PORT", "serial:PORT?baud=NUMBER", "stdio:COMMAND", or
        what has been added to `streams.STREAMS`.
    n_weights : int
        That are to be set.
    care : Care
    patience_s : float
        For how long a connection is tried.
    by_itself : bool
        Whether a chip that can perturbs its weights by itself; else they are set from outside.

    Returns
    -------
    Instrument

    Raises
    ------
    InputError
        For another address, or a chip with another number of weights.
    LinkError
        If nobody answers.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "python":
        return Function(function_of(rest), n_weights, care)
    if scheme not in STREAMS:
        known = ", ".join(f"{name}:" for name in ("python", *STREAMS))
        raise InputError(f"link = {address!r} is unknown: it must begin with one of {known}")
    line = Line(STREAMS[scheme](rest), care, patience_s, by_itself=by_itself)
    if line.hello.weights != n_weights:
        line.close()
        raise InputError(
            f"the chip has {line.hello.weights} weights, but {n_weights} are to be set: give the"
            " experiment of this chip"
        )
    return line
