"""Chip parameters: one table per part, every figure with its unit, read from TOML and checked once, here."""

import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perturb.errors import InputError


T = TypeVar("T", bound=BaseModel)


class Table(BaseModel):
    """A table of a TOML file: unknown keys, wrong types, infinities and not-a-numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _ns(default: int, what: str) -> Any:
    return Field(default, ge=0, le=10**12, description=f"ns; {what}")


def _joule(default: float, what: str) -> Any:
    return Field(default, ge=0, description=f"J; {what}")


class PerturbationParams(Table):
    settle_ns: int = _ns(200, "time for a changed perturbation to reach the array; 0 = at once")


class ArrayParams(Table):
    settle_ns: int = _ns(500, "settling of one layer for one pattern; 0 = at once")


class ErrorUnitParams(Table):
    noise: float = Field(0.0, ge=0, description="units of E; standard deviation of one reading of one pattern's error; 0 = ideal")
    bits: int = Field(0, ge=0, le=24, description="bits of the converter; 0 = none, exact")
    range: float = Field(4.0, gt=0, description="units of E; the converter covers 0..range and saturates")
    conversion_ns: int = _ns(1000, "time of one reading")


class SummingLineParams(Table):
    settle_ns: int = _ns(500, "settling of the line that sums dw.v")
    conversion_ns: int = _ns(1000, "its conversion")


class BusParams(Table):
    latency_ns: int = _ns(100, "from the end of a word to its arrival at the tiles")
    word_bits: int = Field(16, ge=1, le=4096, description="bits of one broadcast word (sets time and energy; values stay exact)")
    bits_per_s: float = Field(1e8, gt=0, description="bit/s")


class SynapseParams(Table):
    accumulate_ns: int = _ns(50, "one update of a synapse's sums")
    fifo_depth: int = Field(4, ge=1, le=10**6, description="how many of its own past perturbations a synapse keeps")


class EnergyParams(Table):
    perturbation_j: float = _joule(1e-14, "per synapse and change of its perturbation")
    mac_j: float = _joule(1e-14, "per synapse and presented pattern")
    conversion_j: float = _joule(2e-11, "per conversion")
    broadcast_bit_j: float = _joule(1e-12, "per broadcast bit")
    accumulate_j: float = _joule(5e-14, "per synapse and trial")
    static_w: float = Field(1e-3, ge=0, description="W; static power")


class ChipParams(Table):
    """A chip. The defaults are those of `chips/ideal.toml`: no noise and no rounding, nominal times and energies."""

    name: str = "ideal"
    description: str = ""
    synapses_per_tile: int = Field(256, ge=1, le=1_000_000, description="synapses that share a tile; 1 = one process per synapse")
    perturbation: PerturbationParams = PerturbationParams()
    array: ArrayParams = ArrayParams()
    error_unit: ErrorUnitParams = ErrorUnitParams()
    summing_line: SummingLineParams = SummingLineParams()
    bus: BusParams = BusParams()
    synapse: SynapseParams = SynapseParams()
    energy: EnergyParams = EnergyParams()


def chip_names() -> list[str]:
    """Names of the chips that come with the package."""
    return sorted(entry.name[:-5] for entry in files("hardware").joinpath("chips").iterdir() if entry.name.endswith(".toml"))


def load_chip(name_or_path: str | Path) -> ChipParams:
    """The chip of that name in hardware/chips, or of a TOML file (any name with a slash or .toml). InputError if it cannot be."""
    return validate(ChipParams, read_chip(name_or_path), str(name_or_path))


def read_chip(name_or_path: str | Path) -> dict[str, Any]:
    """The tables of a chip file, not yet checked."""
    if str(name_or_path) in chip_names():
        return parse_toml(files("hardware").joinpath("chips", f"{name_or_path}.toml").read_bytes(), str(name_or_path))
    return read_toml(name_or_path, "chip", chip_names())


def read_toml(name_or_path: str | Path, kind: str, names: list[str]) -> dict[str, Any]:
    """The tables of a TOML file; InputError that lists the known names where there is no such file."""
    path = Path(name_or_path)
    try:
        return parse_toml(path.read_bytes(), str(name_or_path))
    except FileNotFoundError:
        close = get_close_matches(str(name_or_path), names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known {kind}s: {', '.join(names)}"
        raise InputError(f"{name_or_path}: no {kind} of that name and no such file ({hint})") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{name_or_path}: cannot be read ({reason}): give the path of a TOML file") from None


def parse_toml(data: bytes, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise InputError(f"{source}: not a text file in UTF-8: give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{source}: not valid TOML: {error}") from None
    except ValueError as error:  # tomllib lets int() complain about a number of thousands of digits
        raise InputError(f"{source}: not valid TOML: {str(error).split(';')[0]}") from None


def validate(model: type[T], data: Any, source: str) -> T:
    """`data` as a `model`; the first mistake becomes one line with file, key, value, condition and remedy."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        mistakes = error.errors()
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise InputError(f"{source}: {_explain(model, mistakes[0])}{more}") from None


def _explain(model: type[BaseModel], mistake: Any) -> str:
    key = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        known = list(_fields(model, mistake["loc"][:-1]))
        close = get_close_matches(str(mistake["loc"][-1]), known, n=1)
        return f"{key} is no known key ({f'did you mean {close[0]}?' if close else 'known here: ' + ', '.join(known)})"
    if mistake["type"] == "missing":
        return f"{key} is missing: add it"
    value = repr(mistake["input"])
    value = value if len(value) <= 60 else value[:57] + "..."
    condition = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "literal_error":
        allowed = [a.strip("'") for a in mistake["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        close = get_close_matches(str(mistake["input"]), allowed, n=1)
        condition = (f"did you mean {close[0]}? " if close else "") + "allowed: " + ", ".join(allowed)
        return f"{key} = {value} is unknown: {condition}"
    condition = condition.replace("Input should be a valid ", "must be a ").replace("Input should be ", "must be ")
    condition = re.sub("a dictionary or instance of .*", "a table", condition).replace("integer", "whole number")
    condition = condition.replace("greater than or equal to", ">=").replace("less than or equal to", "<=").replace("greater than", ">")
    return f"{key} = {value} {condition}" if key else condition


def _fields(model: type[BaseModel], path: tuple) -> Iterator[str]:
    """Field names of the table that `path` leads to."""
    kind: Any = model
    for part in path:
        if not isinstance(part, str):
            continue
        kind = kind.model_fields[part].annotation
        while args := [a for a in get_args(kind) if a is not type(None)] if isinstance(kind, UnionType) or get_args(kind) else []:
            kind = args[0]
    yield from kind.model_fields
