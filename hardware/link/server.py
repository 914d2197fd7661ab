"""The chip's side of the protocol, for an emulated chip."""

import socket
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from hardware.bench import Bench
from hardware.link.messages import Garbage, Hello, Lost, Message
from hardware.link.streams import Stream, Tcp
from perturb.errors import InputError
from perturb.estimation.questions import Evaluation
from perturb.trial.codes import CODES

Array = np.ndarray


class Refused(Exception):
    """A request that the chip does not fulfil: (code, text)."""


class Responder:
    """Answers the requests of a host for an emulated chip.

    bench: the chip. safe (n,): its safe weights. hello: what it says of itself. real_time: whether
    a measurement takes as long as on the chip.
    """

    def __init__(self, bench: Bench, safe: Array, hello: Hello, real_time: bool = False):
        self.bench, self.safe, self.hello, self.real_time = bench, safe, hello, real_time
        self._w = safe.copy()
        self._set = 0  # the last request to set that was followed
        self._direction = np.zeros_like(safe)

    def greeted(self) -> None:
        """A host has come: its requests are numbered anew."""
        self._set = 0

    def go_safe(self) -> None:
        """Safe weights; whoever had set others is told so by "order"."""
        self._w, self._set = self.safe.copy(), 0
        self.bench.set(self._w)

    def answer(self, message: Message) -> Message:
        """The reply to a request."""
        try:
            id = _integer(message, "id")
        except Refused:
            id = None
        try:
            if id is None:
                raise Refused("request", "id must be an integer")
            do = {"hello": self._hello, "set": self._write, "measure": self._measure}
            do["safe"] = self._go_safe
            if (action := do.get(str(message.get("do")))) is None:
                raise Refused("request", f"do must be one of {', '.join(do)}")
            return {"id": id, **action(id, message)}
        except Refused as refused:
            return {"id": id, "is": "error", "code": refused.args[0], "text": refused.args[1]}
        except InputError as error:
            return {"id": id, "is": "error", "code": "request", "text": str(error)}

    def _hello(self, id: int, message: Message) -> Message:
        return self.hello.message()

    def _go_safe(self, id: int, message: Message) -> Message:
        self.go_safe()
        self._set = id
        return {"is": "safe", "weights": self._w.tolist()}

    def _write(self, id: int, message: Message) -> Message:
        # one that comes late must not undo a later one
        if id > self._set:
            if message.get("from", self._set) != self._set:
                raise Refused("order", f"the weights are those of {self._set}")
            values = _numbers(message, "codes" if self.hello.bits else "weights")
            if self.hello.bits:
                assert self.hello.low is not None and self.hello.high is not None
                share = values / (2**self.hello.bits - 1)
                values = self.hello.low + share * (self.hello.high - self.hello.low)
            w = self._w.copy()
            try:
                w[np.array(message["at"], np.int64) if "at" in message else slice(None)] = values
            except (IndexError, ValueError, TypeError, OverflowError):
                raise Refused("range", "at and weights do not fit the weights") from None
            low, high = self.hello.low, self.hello.high
            if (low is not None and w.min() < low) or (high is not None and w.max() > high):
                raise Refused("range", f"a weight is beyond {low} to {high}")
            if "direction" in message:
                v = _numbers(message, "direction")
                if v.shape != w.shape:
                    raise Refused("range", "direction does not fit the weights")
                self._direction = v
            self._w, self._set = w, id
            self.bench.set(w)
        return {"is": "set", "readback": self.bench.held().tolist()}

    def _measure(self, id: int, message: Message) -> Message:
        if message.get("set", self._set) != self._set:
            raise Refused("order", f"the weights are those of {self._set}")
        began_ns = self.bench.now_ns
        seed, trial, phase = _key(message)
        shown = message.get("patterns")
        patterns = None if shown is None else _numbers(message, "patterns").astype(np.int64)
        if patterns is not None and not (
            patterns.ndim == 1
            and patterns.size
            and 0 <= patterns.min()
            and patterns.max() < self.bench.objective.n_patterns
        ):
            raise Refused("range", "there are no such patterns")
        if "perturb" in message:
            E = self.bench.answer(self._perturbed(message["perturb"], trial, phase, patterns))
        else:
            E = self.bench.measure(seed, trial, phase, np.zeros_like(self._w), patterns)
        if self.real_time:
            time.sleep(1e-9 * (self.bench.now_ns - began_ns))
        if not np.isfinite(E):
            return {"is": "value", "E": None, "status": "not finite"}
        return {"is": "value", "E": E, "status": "ok"}

    def _perturbed(
        self, wanted: object, trial: int, phase: int, patterns: Array | None
    ) -> Evaluation:
        if not isinstance(wanted, dict) or wanted.get("code") not in self.hello.codes:
            raise Refused("request", "perturb must have one of the chip's codes")
        seed, draw, a, b = (_integer(wanted, name) for name in ("seed", "draw", "a", "b"))
        sigma, r = (_number(wanted, name) for name in ("sigma", "r"))
        if seed < 0 or draw < 0 or not {a, b} <= {-1, 0, 1}:
            raise Refused("range", "seed and draw must be >= 0, a and b -1, 0 or 1")
        center, code = self._w, CODES[wanted["code"]].name
        return Evaluation(
            0,
            center,
            seed,
            trial,
            phase,
            lambda: center,
            a,
            b,
            draw,
            code,
            sigma,
            r,
            self._direction,
            patterns,
        )


def _integer(message: Message, name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) < value < 2**64:
        raise Refused("request", f"{name} must be an integer")
    return value


def _numbers(message: Message, name: str) -> Array:
    try:
        found = np.asarray(message.get(name), dtype=float)
    except (TypeError, ValueError, OverflowError):
        found = np.array(np.nan)
    if not np.isfinite(found).all():
        raise Refused("request", f"{name} must be numbers")
    return found


def _number(message: Message, name: str) -> float:
    found = _numbers(message, name)
    if found.ndim:
        raise Refused("request", f"{name} must be a number")
    return float(found)


def _key(message: Message) -> tuple[int, int, int]:
    """(seed, trial, phase) of the noise: what an emulated chip needs, and no other."""
    key = message.get("key", [0, 0, 0])
    if not (isinstance(key, list) and len(key) == 3):
        raise Refused("request", "key must be three integers")
    seed, trial, phase = (_integer({"key": part}, "key") for part in key)
    if min(seed, trial, phase) < 0 or trial >= 2**62 or phase >= 2**31:
        raise Refused("range", "key must be three integers >= 0")
    return seed, trial, phase


class InProcess(Stream):
    """A chip in this process: every request is answered at once."""

    def __init__(self, responder: Responder):
        self._responder = responder
        self._replies: deque[Message] = deque()
        responder.greeted()

    def send(self, *messages: Message) -> None:
        self._replies.extend(map(self._responder.answer, messages))

    def receive(self, timeout_s: float) -> Message | None:
        return self._replies.popleft() if self._replies else None

    def close(self) -> None:
        self._responder.go_safe()


def attend(responder: Responder, stream: Stream, watchdog_s: float) -> None:
    """Answer until the host is gone; safe weights then, and whenever nothing comes for so long."""
    responder.greeted()
    try:
        while True:
            try:
                message = stream.receive(watchdog_s)
            except Garbage as error:
                stream.send({"id": None, "is": "error", "code": "line", "text": str(error)})
                continue
            if message is None:
                responder.go_safe()
            else:
                stream.send(responder.answer(message))
    except Lost:
        pass
    finally:
        responder.go_safe()
        stream.close()


def listen(
    responder: Responder,
    host: str,
    port: int,
    watchdog_s: float,
    ready: Callable[[str, int], object] = lambda host, port: None,
) -> None:
    """Answer hosts that connect over TCP, one after another, until interrupted; port 0: any that is
    free. ready(host, port): called when it listens.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"tcp://{host}:{port}: cannot be listened at ({error}): choose another port"
            ) from None
        listening.listen(1)
        ready(host, listening.getsockname()[1])
        while True:
            connected, _ = listening.accept()
            attend(responder, Tcp(connected), watchdog_s)
