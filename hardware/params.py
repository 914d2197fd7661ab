"""Chip parameters, one model per part of the chip, and the reading of TOML files that people write."""

import json
import os
import re
import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perturb.errors import InputError

M = TypeVar("M", bound=BaseModel)

Name = Annotated[str, Field(min_length=1, max_length=100)]
Nanoseconds = Annotated[int, Field(ge=0, le=10**12)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A table of a TOML file: immutable, no unknown keys, no conversions but of whole numbers to float, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


Share = Annotated[float, Field(ge=0, le=1)]
Mismatch = Annotated[float, Field(ge=0, le=1)]  # a standard deviation relative to 1: 0.05 is 5 %, so 5 cannot be meant
Bits = Annotated[int, Field(ge=0, le=24)]


class PerturbationParams(Table):
    settle_ns: Nanoseconds = Field(200, description="ns allowed until a changed perturbation is measured; 0 = at once")
    tau_ns: NonNegative = Field(
        0.0, description="ns: time constant of settling; exp(-settle_ns/tau_ns) of the last change is left; 0 = settles fully"
    )
    bits: Bits = Field(0, description="bits of the converter that makes the perturbation; 0 = exact")
    range: Positive = Field(0.1, description="in units of w: that converter covers -range..range and clips; unused if bits = 0")
    gain_mismatch: Mismatch = Field(
        0.0, description="standard deviation over synapses of the gain, 0.05 = 5 %: the array sees dw (1 + e); 0 = none"
    )
    offset_mismatch: NonNegative = Field(
        0.0, description="in units of w: standard deviation over synapses of an offset of the applied perturbation; 0 = none"
    )
    crosstalk: Share = Field(0.0, description="share of its perturbation that reaches each neighbouring weight; 0 = none")


class WeightParams(Table):
    bits: Bits = Field(0, description="bits of a stored weight; 0 = exact")
    range: Positive = Field(4.0, description="in units of w: stored weights lie in -range..range; unused if bits = 0")
    read_noise: NonNegative = Field(
        0.0, description="in units of w: standard deviation of every weight at every evaluation of E; 0 = ideal"
    )
    stuck_fraction: Share = Field(0.0, description="share of the weights that are stuck at stuck_value; 0 = none")
    stuck_value: float = Field(0.0, description="in units of w: where they are stuck")
    dead_fraction: Share = Field(0.0, description="share of the synapses that neither perturb nor accumulate; 0 = none")
    leak_tau_s: NonNegative = Field(0.0, description="s: time constant with which stored weights leak to zero; 0 = no leak")
    drift_exponent: NonNegative = Field(0.0, description="weights drift as (1 + t/1 s)^-exponent; 0 = no drift")
    refresh_s: NonNegative = Field(
        0.0, description="s of chip time between refreshes, each of which writes every weight as it was stored; 0 = never"
    )

    @model_validator(mode="after")
    def _check(self) -> "WeightParams":
        if 0 < self.refresh_s < 1e-6:
            raise InputError(f"refresh_s = {self.refresh_s} must be 0 (never) or at least 1e-6, a microsecond")
        if self.refresh_s and not (self.leak_tau_s or self.drift_exponent):
            raise InputError(
                f"refresh_s = {self.refresh_s} has nothing to refresh, as weights keep their value: set leak_tau_s or "
                "drift_exponent, or refresh_s = 0"
            )
        return self


class ArrayParams(Table):
    settle_ns: Nanoseconds = Field(500, description="ns until one layer has settled for one pattern; 0 = at once")


class NeuronParams(Table):
    """Of the units of an mlp, a dag or a recurrent network; a boltzmann machine has none of these."""

    gain_mismatch: Mismatch = Field(
        0.0, description="standard deviation over units of the gain of the net input, 0.05 = 5 %; 0 = none"
    )
    offset_mismatch: NonNegative = Field(
        0.0, description="in units of net input: standard deviation over units of an offset; 0 = none"
    )
    noise: NonNegative = Field(
        0.0, description="in units of activity: standard deviation, at every evaluation, of units that feed others; 0 = none"
    )
    saturation: NonNegative = Field(
        0.0, description="in units of activity: units that feed others are clipped to +-this; 0 = never"
    )
    crosstalk: Share = Field(0.0, description="share of its activity that reaches each neighbouring unit of its layer; 0 = none")


class ErrorUnitParams(Table):
    noise: NonNegative = Field(
        0.0, description="in units of E: standard deviation of one reading of a pattern's error; 0 = ideal"
    )
    flicker: NonNegative = Field(
        0.0, description="in units of E: standard deviation per octave of 1/f noise of an evaluation; 0 = none"
    )
    offset: float = Field(0.0, description="in units of E: constant error of a reading; 0 = none")
    bits: Bits = Field(0, description="resolution of the converter in bits; 0 = no converter, the reading is exact")
    range: Positive = Field(4.0, description="in units of E: the converter covers 0 to this and saturates; unused if bits = 0")
    dither: bool = Field(False, description="whether uniform noise of one step is added before converting; unused if bits = 0")
    one_bit: bool = Field(False, description="whether only the sign of dE is kept (a comparator)")
    baseline_every: int = Field(
        1, ge=1, le=10**9, description="trials for which a measured E(w) is kept and used again; 1 = measured anew in each"
    )
    conversion_ns: Nanoseconds = Field(1000, description="ns to convert one pattern's error; 0 = at once")


class SummingLineParams(Table):
    noise: NonNegative = Field(0.0, description="in units of dw.v: standard deviation of its reading; 0 = ideal")
    gain_error: float = Field(0.0, ge=-1, le=1, description="relative error of dw.v, 0.05 = 5 % too large; 0 = none")
    bits: Bits = Field(0, description="bits of the converter of dw.v; 0 = exact")
    range: Positive = Field(
        1.0, description="in units of dw.v: that converter covers -range..range and clips; unused if bits = 0"
    )
    settle_ns: Nanoseconds = Field(500, description="ns until the sum dw.v over all synapses has settled; 0 = at once")
    conversion_ns: Nanoseconds = Field(1000, description="ns to convert dw.v; 0 = at once")


class BusParams(Table):
    latency_ns: Nanoseconds = Field(100, description="ns from the last bit sent to its arrival at the synapses; 0 = at once")
    skew_ns: Nanoseconds = Field(0, description="ns by which the last tile gets a broadcast later than the first; 0 = none")
    jitter_ns: Nanoseconds = Field(0, description="ns: each delivery to a tile is late by up to this, at random; 0 = none")
    drop_probability: Share = Field(0.0, description="probability that a tile misses a broadcast; 0 = never")
    dE_range: NonNegative = Field(
        0.0, description="in units of E: word_bits of a dE cover -dE_range..dE_range; 0 = words carry exact numbers"
    )
    s_range: NonNegative = Field(0.0, description="in units of dw.v: the same for dw.v; 0 = words carry exact numbers")
    first: Literal["dE", "dw.v"] = Field("dE", description="which goes first when a dE and dw.v want the bus at the same time")
    word_bits: int = Field(16, ge=1, le=1024, description="bits of one broadcast number")
    bits_per_s: float = Field(100e6, ge=1, le=1e18, description="bits per second on the bus; a word takes a whole number of ns")


class SynapseParams(Table):
    accumulate_ns: Nanoseconds = Field(50, description="ns to add a broadcast to a synapse's sums; 0 = at once")
    fifo_depth: int = Field(4, ge=1, le=10**6, description="how many of its own past perturbations a synapse keeps; at least 1")
    offset_mismatch: NonNegative = Field(
        0.0, description="in units of w: standard deviation over synapses of the offset with which dw is multiplied; 0 = none"
    )
    leak: Share = Field(0.0, description="share of every sum that is lost in each trial; 0 = none")
    sum_range: NonNegative = Field(
        0.0, description="in units of sigma E (for z, of its regressor's rms times E): a sum saturates at +-this; 0 = never"
    )
    sum_bits: Bits = Field(0, description="bits of a sum: what is added is rounded to 2 sum_range / 2^bits; 0 = exact")

    @model_validator(mode="after")
    def _check(self) -> "SynapseParams":
        if self.sum_bits and not self.sum_range:
            raise InputError(f"sum_bits = {self.sum_bits} needs the range that the bits cover: set sum_range, such as 10.0")
        return self


class ClockParams(Table):
    evaluation_ns: Nanoseconds = Field(0, description="ns given to every evaluation of E; 0 = as long as it takes")
    broadcast_ns: Nanoseconds = Field(0, description="ns given to the words of a trial on the bus; 0 = as long as they take")


class FaultParams(Table):
    dying_fraction: Share = Field(0.0, description="share of the synapses that stop working at dying_trial; 0 = none")
    dying_trial: int = Field(0, ge=0, le=2**62, description="trial from which they no longer work")
    tile: int = Field(-1, ge=-1, le=10**6, description="number of a tile that loses power at tile_trial, and its sums; -1 = none")
    tile_trial: int = Field(0, ge=0, le=2**62, description="trial from which it is without power")


class EnergyParams(Table):
    perturbation_j: NonNegative = Field(10e-15, description="J per synapse and change of its perturbation; 0 = free")
    mac_j: NonNegative = Field(1e-12, description="J per synapse and presented pattern (multiply and accumulate); 0 = free")
    conversion_j: NonNegative = Field(20e-12, description="J per conversion, of an error or of dw.v; 0 = free")
    broadcast_bit_j: NonNegative = Field(50e-15, description="J per bit sent over the bus; 0 = free")
    accumulate_j: NonNegative = Field(20e-15, description="J per synapse and trial, to add to its sums; 0 = free")
    weight_write_j: NonNegative = Field(1e-12, description="J to write a weight, when it is refreshed; 0 = free")
    static_w: NonNegative = Field(1e-3, description="W drawn all the time by the whole chip; 0 = none")


class ChipParams(Table):
    """A chip. The defaults are those of chips/ideal.toml: no noise, mismatch or rounding; nominal, assumed times and energies."""

    name: Name = Field("ideal", description="what reports call the chip")
    description: str = Field("no noise, mismatch or rounding; times and energies nominal and assumed", description="one line")
    synapses_per_tile: int = Field(256, ge=1, le=10**6, description="synapses that share wires; 1 = every synapse on its own")
    die: int = Field(0, ge=0, le=2**64 - 1, description="which of the dies of this design: seed of all that differs between them")
    perturbation: PerturbationParams = PerturbationParams()
    weights: WeightParams = WeightParams()
    array: ArrayParams = ArrayParams()
    neuron: NeuronParams = NeuronParams()
    error_unit: ErrorUnitParams = ErrorUnitParams()
    summing_line: SummingLineParams = SummingLineParams()
    bus: BusParams = BusParams()
    synapse: SynapseParams = SynapseParams()
    clock: ClockParams = ClockParams()
    faults: FaultParams = FaultParams()
    energy: EnergyParams = EnergyParams()


# every key that makes a chip less than ideal, beside its latencies; all are 0, false or (baseline_every) 1 in an ideal one
IMPERFECTIONS = (
    "perturbation.tau_ns", "perturbation.bits", "perturbation.gain_mismatch", "perturbation.offset_mismatch",
    "perturbation.crosstalk", "weights.bits", "weights.read_noise", "weights.stuck_fraction", "weights.dead_fraction",
    "weights.leak_tau_s", "weights.drift_exponent", "neuron.gain_mismatch", "neuron.offset_mismatch", "neuron.noise",
    "neuron.saturation", "neuron.crosstalk", "error_unit.noise", "error_unit.flicker", "error_unit.offset", "error_unit.bits",
    "error_unit.one_bit", "error_unit.baseline_every", "summing_line.noise", "summing_line.gain_error", "summing_line.bits",
    "bus.drop_probability", "bus.dE_range", "bus.s_range", "synapse.offset_mismatch", "synapse.leak", "synapse.sum_range",
    "faults.dying_fraction", "faults.tile",
)  # fmt: skip


def imperfections(params: ChipParams) -> list[str]:
    """Those of IMPERFECTIONS that a chip has."""
    ideal = ChipParams()

    def value(of: ChipParams, key: str) -> object:
        table, _, name = key.partition(".")
        return getattr(getattr(of, table), name)

    return [key for key in IMPERFECTIONS if value(params, key) != value(ideal, key)]


def chip_names() -> list[str]:
    """The chips that come with the package."""
    return toml_names(files("hardware") / "chips")


def load_chip(name_or_path: str | os.PathLike[str], folder: str | os.PathLike[str] = ".") -> ChipParams:
    """The chip of that name, or of the TOML file at that path (relative to `folder`); what the file leaves out is as in the ideal
    chip. A file that cannot be used raises InputError.
    """
    data, source, _ = read_named("chip", name_or_path, files("hardware") / "chips", chip_names(), folder)
    return validated(ChipParams, data, source)


# ---- TOML files, shared with sims/experiment.py


def toml_names(shipped: Traversable) -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in shipped.iterdir() if entry.name.endswith(".toml"))


def read_named(
    kind: str,
    name_or_path: str | os.PathLike[str],
    shipped: Traversable,
    names: list[str],
    folder: str | os.PathLike[str] = ".",
) -> tuple[dict[str, Any], str, Path]:
    """The TOML file that one of `names` has in `shipped`, or the one at a path relative to `folder`.

    Returns its contents, its name in messages, and the folder that paths in it are relative to.
    """
    given = os.fspath(name_or_path)
    if given in names:
        source = f"{given}.toml"
        return parse_toml((shipped / source).read_bytes(), source), source, Path()
    path, source = Path(folder, given), one_line(cut(given or '""', 200))
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise InputError(f"{source}: a directory, but {kind} must be a file: give the path of a TOML file") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the path
        close = get_close_matches(given, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"{kind}s: {', '.join(names)}"
        raise InputError(f"{source}: no {kind} of that name and no such file ({hint})") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}): check the file") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{source}: more than {MAX_BYTES} bytes: give a TOML file of a {kind}")
    return parse_toml(content, source), source, path.parent


MAX_BYTES = 1 << 20


def parse_toml(content: bytes, source: str) -> dict[str, Any]:
    """The contents of a TOML file, or InputError with the line of the mistake."""
    try:
        data = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not a text in UTF-8 (byte {error.start}): give a TOML file") from None
    except RecursionError:
        raise InputError(f"{source}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what a date or a number of too many digits raises
        what, _, place = one_line(str(error)).partition(" (at ")
        line = re.match(r"line \d+", place)
        where = f"{line[0]}: " if line else "end of file: " if place else ""
        hint = " (texts go in quotes)" if what == "Invalid value" else ""
        raise InputError(f"{source}: {where}not valid TOML: {what}{hint}") from None
    if not data:
        raise InputError(f"{source}: empty: write at least one KEY = VALUE in it")
    return data


def validated(model: type[M], data: dict[str, Any], source: str, also: Collection[str] = ()) -> M:
    """The model of `data`; or InputError, one line about the first mistake that also counts the others.

    Checks within a model raise InputError with a message that starts with the key. also: dotted keys that are known to the
    caller rather than the model, to be suggested for a misspelt one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        errors: list[Any] = invalid.errors(include_url=False)
    errors.sort(key=lambda error: error["type"] != "extra_forbidden")  # a misspelt key explains why another is missing
    more = f" (and {len(errors) - 1} more mistake{'s' * (len(errors) > 2)})" if len(errors) > 1 else ""
    raise InputError(f"{source}: {one_line(_mistake(model, errors[0], also))}{more}")


WANTED = {
    "int_type": "must be a whole number, written without a point or exponent",
    "float_type": "must be a number such as 0.01, at most 1e308",
    "finite_number": "must be a finite number",
    "string_type": "must be a text in quotes",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must be letters, digits and . _ - only, and start with a letter or digit",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list in square brackets",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "greater_than": "must be > {gt}",
    "greater_than_equal": "must be >= {ge}",
    "less_than": "must be < {lt}",
    "less_than_equal": "must be <= {le}",
}


def _mistake(model: type[BaseModel], error: dict[str, Any], also: Collection[str]) -> str:
    *parents, last = path = error["loc"] or ("",)
    key, kind, context = dotted(path), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = [*_model_at(model, parents).model_fields]
        known += [k.rpartition(".")[2] for k in also if k.rpartition(".")[0] == dotted(parents)]
        close = get_close_matches(str(last), known, n=1)
        return f"{key} is no known key ({f'did you mean {close[0]}?' if close else 'known: ' + ', '.join(known)})"
    if kind == "missing" and isinstance(last, int):
        return f"{dotted(parents)} has too few entries: give {last + 1} or more"
    if kind == "missing":
        return f"{key} is missing: add it ({_model_at(model, parents).model_fields[last].description})"
    if kind == "model_type":
        return f"{key} = {shown(error['input'])} must be one table of KEY = VALUE"
    if isinstance(context.get("error"), InputError):
        return f"{key}{'.' if key else ''}{context['error']}"
    limits = {name: str(limit).removesuffix(".0") for name, limit in context.items()}
    wanted = WANTED[kind].format(**limits) if kind in WANTED else f"cannot be used: {error['msg']}"
    return f"{key} = {shown(error['input'])} {wanted}"


def _model_at(model: type[BaseModel], path: Collection[str | int]) -> type[BaseModel]:
    for step in path:
        if isinstance(step, str):  # a number is a place in a list of the model already found
            annotation = model.model_fields[step].annotation
            model = next(a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel))
    return model


def dotted(path: Collection[str | int]) -> str:
    """estimation.compare_with[0].method"""
    steps = (
        f"[{s}]" if isinstance(s, int) else f".{s if re.fullmatch('[A-Za-z0-9_-]{1,60}', s) else shown(s)}"
        for s in path
        if s != ""
    )
    return "".join(steps).removeprefix(".")


def shown(value: object) -> str:
    """A value as TOML would write it, at most 60 characters."""
    try:
        text = repr(value) if isinstance(value, float) else json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # no plain data, or an integer of thousands of digits
        text = f"<{type(value).__name__}>"
    return cut(text, 60)


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def one_line(text: str) -> str:
    """The text with everything that is not printable, line ends among it, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
