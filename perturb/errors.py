"""The one exception for a user's mistake."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: the name, the value, the condition it breaks and how to mend it. The command line prints it and
    exits with status 2; every other exception is a bug of this package and keeps its traceback.
    """


def choose(name: str, value: object, table: Mapping[str, T]) -> T:
    """table[value], or InputError with a close match."""
    if isinstance(value, str) and value in table:
        return table[value]
    close = get_close_matches(str(value), table, n=1)
    hint = f"did you mean {close[0]}?" if close else "one of " + ", ".join(table)
    raise InputError(f"{name} = {value!r} is unknown: {hint}")
