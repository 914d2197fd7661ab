"""Lines of the protocol: one JSON object each, see hardware/README.md. No code is ever received."""

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from perturb.errors import InputError

VERSION = 1
LONGEST = 2**22  # bytes of a line: some 200,000 weights
Message = dict[str, Any]


class LinkError(InputError):
    """The other side cannot be reached, or does not keep to the protocol."""


class Lost(LinkError):
    """The connection is gone: it may be made again."""


class Garbage(LinkError):
    """A line that is no message."""


def encode(message: Message) -> bytes:
    """A line, its end included; floats are read again as the same bits."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line; Garbage, which shows its start, for any other."""
    try:
        found = json.loads(line.decode("utf-8"), parse_constant=_constant)
        if not isinstance(found, dict):
            raise ValueError("not an object")
    # RecursionError: brackets within brackets
    except (ValueError, RecursionError):
        raise Garbage(f"{shown(line)} is no line of the protocol: one JSON object a line") from None
    return found


def _constant(name: str) -> float:
    # NaN and Infinity, which Python's own json writes for a measurement that failed
    return math.nan


def shown(line: bytes) -> str:
    """The start of a line, in printable signs."""
    text = repr(line[:40])
    return text + (f"... ({len(line)} bytes)" if len(line) > 40 else "")


@dataclass(frozen=True)
class Hello:
    """What a chip says of itself.

    Attributes
    ----------
    weights : int
        How many it has.
    version : int
        Of the protocol.
    name, unit : str
        Of the chip; of its weights and of `low` and `high`.
    low, high : float or None
        Between which weights can be set.
    codes : list of str
        Of the perturbations that it makes by itself, from seed and number; empty: it makes none.
    bits : int
        If positive, weights are set by codes of a converter, from 0 at `low` to 2^bits - 1 at
        `high`.
    """

    weights: int
    version: int = VERSION
    name: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    codes: tuple[str, ...] = ()
    bits: int = 0

    def message(self) -> Message:
        """As it is sent."""
        return {"is": "hello", **asdict(self)}


def hello_of(message: Message) -> Hello:
    """From a reply; LinkError for one of another version, or that says nonsense."""
    known = {each.name for each in fields(Hello)}
    given = {name: value for name, value in message.items() if name in known}
    if (version := given.get("version")) != VERSION:
        raise LinkError(
            f"the chip speaks version {version!r} of the protocol, this program {VERSION}: update"
            " the older one"
        )
    try:
        given["codes"] = tuple(str(code) for code in given.get("codes") or ())
        found = Hello(**given)
        sound = isinstance(found.weights, int) and 0 < found.weights and 0 <= found.bits <= 32
        for name in ("low", "high"):
            limit = getattr(found, name)
            sound = sound and (limit is None or math.isfinite(limit))
        if found.low is not None and found.high is not None:
            sound = sound and found.low < found.high
        if found.bits:
            sound = sound and found.low is not None and found.high is not None
    except TypeError:
        sound = False
    if not sound:
        raise LinkError(
            "the chip's hello does not say what it must: weights (a number > 0), low < high (or"
            " null), and both where there are bits"
        )
    return found
