"""Tables of TOML files that people write: read, validated, with every mistake in one line."""

import os
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
)
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError
from pydantic_core.core_schema import no_info_after_validator_function

from perturb.errors import InputError, cut, one_line, shown
from perturb.files import open_regular

M = TypeVar("M", bound=BaseModel)

Name = Annotated[str, Field(min_length=1, max_length=100)]
# beyond what anything measures, so that fourth powers are finite; amounts may be 0, or
# TINY and more
TINY = 1e-30
SMALLEST = 1e-18
LARGEST = 1e18


def _not_tiny(value: float) -> float:
    if 0 < value < TINY:
        raise PydanticCustomError("tiny", "too small")
    return value


def _not_large(value: float) -> float:
    # no `le` of the type: pydantic would take it for that of a Field, whatever the Field says
    if value > LARGEST:
        raise PydanticKnownError("less_than_equal", {"le": LARGEST})
    if value < -LARGEST:
        raise PydanticKnownError("greater_than_equal", {"ge": -LARGEST})
    return value


Number = Annotated[float, AfterValidator(_not_large)]
NonNegative = Annotated[float, Field(ge=0), AfterValidator(_not_large), AfterValidator(_not_tiny)]
Positive = Annotated[float, Field(ge=SMALLEST), AfterValidator(_not_large)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]


@dataclass(frozen=True, eq=False)
class Among:
    """Of a string: it is one of these names, to which more may be added."""

    names: Collection[str]

    def check(self, value: str) -> str:
        if value in self.names:
            return value
        close = get_close_matches(value, self.names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"one of {', '.join(self.names)}"
        raise PydanticCustomError("unknown", "is unknown: {hint}", {"hint": hint})

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))


class Table(BaseModel):
    """A table of a TOML file: immutable, no unknown keys, no conversions but of integers to
    float, no NaN or infinity.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def toml_names(shipped: Traversable) -> list[str]:
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in shipped.iterdir()
        if entry.name.endswith(".toml")
    )


def descriptions(shipped: Traversable) -> dict[str, str]:
    """What the TOML files in `shipped` say of themselves, by name: nothing else of them is checked,
    which would load all that they may name.
    """
    return {
        name: parse_toml((shipped / f"{name}.toml").read_bytes(), f"{name}.toml")["description"]
        for name in toml_names(shipped)
    }


def read_named(
    kind: str,
    name_or_path: str | os.PathLike[str],
    shipped: Traversable,
    names: list[str],
    folder: str | os.PathLike[str] = ".",
) -> tuple[dict[str, Any], str, Path]:
    """The TOML file that one of `names` has in `shipped`, or the one at a path relative to
    `folder`.

    Returns its contents, its name in messages, and the folder that paths in it are relative to.
    """
    given = os.fspath(name_or_path)
    if given in names:
        source = f"{given}.toml"
        return parse_toml((shipped / source).read_bytes(), source), source, Path()
    # an absolute path leaves the folder out
    path = Path(folder, given)
    source = one_line(cut(given or '""', 200))
    try:
        with open_regular(path, MAX_BYTES) as file:
            # one byte more than allowed tells that there is more
            content = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise InputError(
            f"{source}: a directory, but {kind} must be a file: give the path of a TOML file"
        ) from None
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
    ):  # ValueError: a zero byte in the path
        close = get_close_matches(given, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"{kind}s: {', '.join(names)}"
        raise InputError(f"{source}: no {kind} of that name and no such file ({hint})") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}): check the file") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{source}: more than {MAX_BYTES} bytes: give a TOML file of a {kind}")
    return parse_toml(content, source), source, path.parent


def of_a_file(data: dict[str, Any], path: str | os.PathLike[str]) -> dict[str, Any]:
    """A table from a file, which is called as its file and says nothing of itself where it leaves
    that out: what is the default of all else would be wrong there.
    """
    return {"name": Path(path).stem[:100] or "mine", "description": "", **data}


MAX_BYTES = 1 << 20


def parse_toml(content: bytes, source: str) -> dict[str, Any]:
    """The contents of a TOML file, or InputError with the line of the mistake."""
    try:
        # some editors begin a file with a byte-order mark
        data = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not in UTF-8 (byte {error.start}): give a TOML file") from None
    except RecursionError:
        raise InputError(f"{source}: not valid TOML: nested too deeply") from None
    except (
        ValueError
    ) as error:  # TOMLDecodeError, and what a date or a number of too many digits raises
        what, _, place = one_line(str(error)).partition(" (at ")
        line = re.match(r"line \d+", place)
        where = f"{line[0]}: " if line else "end of file: " if place else ""
        # what tomllib says of a bare word, which mostly is a text without its quotes
        hint = " (strings go in quotes)" if what == "Invalid value" else ""
        raise InputError(f"{source}: {where}not valid TOML: {what}{hint}") from None
    if not data:
        raise InputError(f"{source}: empty: write at least one KEY = VALUE in it")
    return data


def validated(model: type[M], data: dict[str, Any], source: str, also: Collection[str] = ()) -> M:
    """The model of `data`; or InputError, one line about the first mistake that also counts the
    others.

    Checks within a model raise InputError with a message that starts with the key. also: dotted
    keys that are known to the caller rather than the model, to be suggested for a misspelt one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        errors: list[Any] = invalid.errors(include_url=False)
    # a misspelt key explains why another is missing
    errors.sort(key=lambda error: error["type"] != "extra_forbidden")
    more = (
        f" (and {len(errors) - 1} more mistake{'s' * (len(errors) > 2)})" if len(errors) > 1 else ""
    )
    raise InputError(f"{source}: {one_line(_mistake(model, errors[0], also))}{more}")


WANTED = {
    "int_type": "must be an integer, written without a point or exponent",
    "float_type": "must be a number such as 0.01, at most 1e308",
    "finite_number": "must be a finite number",
    "string_type": "must be a string in quotes",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": (
        "must be letters, digits and . _ - only, and start with a letter or digit"
    ),
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list in square brackets",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "greater_than": "must be > {gt}",
    "greater_than_equal": "must be >= {ge}",
    "unknown": "is unknown: {hint}",
    "tiny": f"must be 0 or at least {TINY}",
    "less_than": "must be < {lt}",
    "less_than_equal": "must be <= {le}",
}


def _mistake(model: type[BaseModel], error: dict[str, Any], also: Collection[str]) -> str:
    *parents, last = path = error["loc"] or ("",)
    key = dotted(path)
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        known = [*_model_at(model, parents).model_fields]
        known += [k.rpartition(".")[2] for k in also if k.rpartition(".")[0] == dotted(parents)]
        close = get_close_matches(str(last), known, n=1)
        return (
            f"{key} is no known key"
            f" ({f'did you mean {close[0]}?' if close else 'known: ' + ', '.join(known)})"
        )
    if kind == "missing" and isinstance(last, int):
        return f"{dotted(parents)} has too few entries: give {last + 1} or more"
    if kind == "missing":
        return (
            f"{key} is missing: add it ({_model_at(model, parents).model_fields[last].description})"
        )
    if kind == "model_type":
        return f"{key} = {shown(error['input'])} must be one table of KEY = VALUE"
    if isinstance(context.get("error"), InputError):
        return f"{key}{'.' if key else ''}{context['error']}"
    limits = {name: str(limit).removesuffix(".0") for name, limit in context.items()}
    # `Positive` has the limit SMALLEST for what a user knows as above 0
    if context.get("ge") == SMALLEST and error["input"] <= 0:
        kind = "greater_than"
        limits = {"gt": "0"}
    wanted = WANTED[kind].format(**limits) if kind in WANTED else f"cannot be used: {error['msg']}"
    return f"{key} = {shown(error['input'])} {wanted}"


def _model_at(model: type[BaseModel], path: Collection[str | int]) -> type[BaseModel]:
    for step in path:
        if isinstance(step, str):  # a number is a place in a list of the model already found
            annotation = model.model_fields[step].annotation
            model = next(
                a
                for a in (annotation, *get_args(annotation))
                if isinstance(a, type) and issubclass(a, BaseModel)
            )
    return model


def dotted(path: Collection[str | int]) -> str:
    """estimation.compare_with[0].method"""
    steps = (
        (
            f"[{s}]"
            if isinstance(s, int)
            else f".{s if re.fullmatch('[A-Za-z0-9_-]{1,60}', s) else shown(s)}"
        )
        for s in path
        if s != ""
    )
    return "".join(steps).removeprefix(".")
