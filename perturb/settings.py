"""Settings by dotted keys, and their values as files and command lines write them."""

import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np

from perturb.errors import InputError, one_line, shown


def flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{"chip.bus.skew_ns": [0, 1]} of what TOML makes of chip.bus.skew_ns = [0, 1]."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        key = f"{above}{name}"
        found |= flat(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return found


def plain(value: object) -> Any:
    """A value as a TOML file would give it: a text is parsed, or left as it is if it is no TOML;
    NumPy's become Python's.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, str):
        try:
            parsed = tomllib.loads(f"value = {value}")
        except (ValueError, RecursionError):
            return value
        # a text with a line end may hold more than one key: then it was no value
        return parsed["value"] if len(parsed) == 1 else value
    return value


def toml(key: str, value: Any) -> str:
    """The value as `--set KEY=VALUE` takes it.

    Raises
    ------
    InputError
        If it has no place in a TOML file.
    """
    # before int, which True is too
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        # a text needs quotes only where TOML would take it for something else
        return value if plain(value) == value and value.isprintable() else _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(_inner(key, entry) for entry in value)}]"
    if isinstance(value, Mapping):
        entries = (f"{_quoted(str(name))} = {_inner(key, entry)}" for name, entry in value.items())
        return "{" + ", ".join(entries) + "}"
    raise InputError(
        f"{one_line(key)}: {shown(value)} has no place in a TOML file: give numbers, texts, true or"
        " false, or lists of them"
    )


def _inner(key: str, value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else toml(key, value)


def _quoted(text: str) -> str:
    """A text in the quotes and escapes of TOML."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in text)
    return f'"{escaped}"'
