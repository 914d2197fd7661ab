"""Lines over TCP, a serial line, or the standard streams of a command."""

import os
import select
import shlex
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from hardware.link.messages import LONGEST, Garbage, LinkError, Lost, Message, decode, encode
from perturb.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Stream(ABC):
    """Messages to and from another side."""

    @abstractmethod
    def send(self, *messages: Message) -> None:
        """Lost if they cannot be sent."""

    @abstractmethod
    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None if none comes in time; Garbage for a line that is none."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""


class ByteStream(Stream):
    """Messages as lines. What comes is cut into lines, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._come = bytearray()

    @abstractmethod
    def _read(self, timeout_s: float) -> bytes:
        """What has come, or b"" if nothing comes in time; Lost if nothing can come any more."""

    @abstractmethod
    def _write(self, content: bytes) -> None:
        """Lost if it cannot be sent."""

    def send(self, *messages: Message) -> None:
        self._write(b"".join(map(encode, messages)))

    def receive(self, timeout_s: float) -> Message | None:
        end = time.monotonic() + timeout_s
        searched = 0
        while (at := self._come.find(b"\n", searched)) < 0:
            searched = len(self._come)
            if searched > LONGEST:
                self._come.clear()
                raise Garbage(f"a line of more than {LONGEST} bytes came, which none may have")
            left = end - time.monotonic()
            if not (more := self._read(max(0.0, left))) and left <= 0:
                return None
            self._come += more
        line = bytes(self._come[:at])
        del self._come[: at + 1]
        return decode(line)


class Tcp(ByteStream):
    """Over a connected socket."""

    def __init__(self, connected: socket.socket):
        super().__init__()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.settimeout(10.0)  # of sending; reading waits by `select`
        self._socket = connected

    def _read(self, timeout_s: float) -> bytes:
        try:
            if not select.select([self._socket], [], [], timeout_s)[0]:
                return b""
            came = self._socket.recv(2**16)
        except OSError as error:
            raise Lost(f"the connection broke ({error})") from None
        if not came:
            raise Lost("the other side has ended the connection")
        return came

    def _write(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise Lost(f"the connection broke ({error})") from None

    def close(self) -> None:
        self._socket.close()


class Pipe(ByteStream):
    """Over two file descriptors, such as the standard streams, or one of a terminal."""

    def __init__(self, reading: int, writing: int):
        super().__init__()
        self._reading, self._writing = reading, writing

    def _read(self, timeout_s: float) -> bytes:
        try:
            if not select.select([self._reading], [], [], timeout_s)[0]:
                return b""
            came = os.read(self._reading, 2**16)
        except OSError as error:  # of a terminal whose other side is closed
            raise Lost(f"the other side has ended ({error})") from None
        if not came:
            raise Lost("the other side has ended")
        return came

    def _write(self, content: bytes) -> None:
        try:
            # a pipe may take less than all
            while content:
                content = content[os.write(self._writing, content) :]
        except OSError as error:
            raise Lost(f"the other side has ended ({error})") from None

    def close(self) -> None:
        for descriptor in {self._reading, self._writing}:
            os.close(descriptor)


class Command(Pipe):
    """Over the standard streams of a command, which ends with the link."""

    def __init__(self, words: list[str]):
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise LinkError(f"{words[0]}: cannot be started ({error.strerror or error})") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        super().__init__(self._process.stdout.fileno(), self._process.stdin.fileno())

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Serial(ByteStream):
    """Over a serial line."""

    def __init__(self, port: str, baud: int):
        super().__init__()
        try:
            import serial
        except ModuleNotFoundError:
            raise InputError(
                "serial lines need another package: pip install 'perturb[lab]'"
            ) from None
        self._broken = serial.SerialException
        try:
            self._port = serial.Serial(port, baud, timeout=0, write_timeout=10.0)
        except (serial.SerialException, ValueError) as error:
            raise Lost(f"{port}: cannot be opened ({error})") from None

    def _read(self, timeout_s: float) -> bytes:
        try:
            self._port.timeout = timeout_s
            # one byte that is waited for, and what else has come
            came: bytes = self._port.read(1)
            return came + (self._port.read(self._port.in_waiting) if came else b"")
        except (self._broken, OSError) as error:
            raise Lost(f"the serial line broke ({error})") from None

    def _write(self, content: bytes) -> None:
        try:
            self._port.write(content)
        except (self._broken, OSError) as error:
            raise Lost(f"the serial line broke ({error})") from None

    def close(self) -> None:
        self._port.close()


def _tcp(rest: str) -> Callable[[], Stream]:
    host, port, options = host_and_port(rest)
    check_host(host, options)

    def connect() -> Stream:
        try:
            return Tcp(socket.create_connection((host, port), timeout=5.0))
        except OSError as error:
            raise Lost(f"{host}:{port}: no connection ({error.strerror or error})") from None

    return connect


def _serial(rest: str) -> Callable[[], Stream]:
    port, _, query = rest.partition("?")
    options = parse_qs(query)
    baud = options.pop("baud", ["115200"])[0]
    if options or not baud.isdigit() or not port:
        raise InputError(
            f"serial:{rest}: must be serial:PORT?baud=NUMBER, such as"
            " serial:/dev/ttyUSB0?baud=115200"
        )
    return lambda: Serial(port, int(baud))


def _command(rest: str) -> Callable[[], Stream]:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InputError(f"stdio:{rest}: {error}") from None
    if not words:
        raise InputError("stdio: must name a command, such as stdio:python3 firmware.py")
    return lambda: Command(words)


# by the first word of an address: what opens a stream, from the rest of it
STREAMS: dict[str, Callable[[str], Callable[[], Stream]]] = {
    "tcp": _tcp,
    "serial": _serial,
    "stdio": _command,
}


def host_and_port(rest: str) -> tuple[str, int, dict[str, list[str]]]:
    """Of //HOST:PORT?OPTIONS; InputError for anything else."""
    try:
        parts = urlsplit(f"tcp:{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not (rest.startswith("//") and host and port is not None):
        raise InputError(f"tcp:{rest}: must be tcp://HOST:PORT, such as tcp://127.0.0.1:5732")
    return host, port, parse_qs(parts.query)


def check_host(host: str, options: dict[str, list[str]]) -> None:
    """InputError for a host beyond this machine, unless it is asked for."""
    if host not in LOOPBACK and options.get("remote") != ["yes"]:
        raise InputError(
            f"tcp://{host} is not this machine, and the protocol has no password: use"
            " tcp://127.0.0.1 (through ssh -L, say), or add ?remote=yes"
        )
