"""The one exception for a user's mistake, and texts as its messages show them."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: the name, the value, the condition it breaks and how to mend it. The
    command line prints it and exits with status 2; every other exception is a bug of this package
    and keeps its traceback.
    """


def choose(name: str, value: object, table: Mapping[str, T]) -> T:
    """table[value], or InputError with a close match."""
    if isinstance(value, str) and value in table:
        return table[value]
    close = get_close_matches(str(value), table, n=1)
    hint = f"did you mean {close[0]}?" if close else "one of " + ", ".join(table)
    raise InputError(f"{name} = {value!r} is unknown: {hint}")


def shown(value: object) -> str:
    """A value as TOML would write it, at most 60 characters."""
    try:
        text = (
            repr(value)
            if isinstance(value, float)
            else json.dumps(value, default=str, ensure_ascii=False)
        )
    # no plain data, or an integer of thousands of digits
    except (TypeError, ValueError, RecursionError):
        text = f"<{type(value).__name__}>"
    return cut(text, 60)


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def one_line(text: str) -> str:
    """The text with everything that is not printable, line ends among it, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
