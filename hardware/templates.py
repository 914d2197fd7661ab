"""Commented TOML files, written from the tables of settings: every key with its range, default and
meaning.

`python -m hardware.templates > hardware/chips/ideal.toml` after a parameter has changed.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hardware.config import SMALLEST, Among, Table
from hardware.params import ChipParams

WIDTH = 100
LARGE = 10**7  # a limit beyond is one of reason, not of the quantity
FEW = 10  # names that are listed


def template(
    model: type[BaseModel],
    given: Mapping[str, Any],
    shown: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
    above: str = "",
    every: bool = True,
) -> Iterator[str]:
    """The lines of a file, or of a table of it, that shows all keys of a model.

    Parameters
    ----------
    given
        Keys and tables that are set; all others stand behind a #.
    shown
        Dotted keys to what stands behind the #, where that is not an example of the key or its
        default.
    notes
        Dotted keys to a note that follows their description.
    above
        The table that the model is of, with a point; "" of a whole file.
    every
        False: only the keys and tables that are set.
    """
    shown = shown or {}
    notes = notes or {}
    fields: dict[str, FieldInfo | None] = dict.fromkeys(
        name for name in given if name not in model.model_fields
    )
    fields |= model.model_fields
    tables = {name: table for name, field in fields.items() if field and (table := _table(field))}
    for name, field in fields.items():
        if name in tables or not (every or name in given):
            continue
        key = f"{above}{name}"
        said = [*_meaning(field)] if field else []
        yield from _comment("; ".join([*said, *([notes[key]] if key in notes else [])]))
        value = given[name] if name in given else shown.get(key, _example(field) if field else None)
        yield f"{'' if name in given else '# '}{name} = {written(value)}"
    # tables with inner tables come last
    for name, table in sorted(
        tables.items(), key=lambda pair: any(map(_table, pair[1].model_fields.values()))
    ):
        if not (every or name in given):
            continue
        yield ""
        yield from _comment(" ".join((table.__doc__ or "").partition("\n\n")[0].split()))
        yield f"{'' if name in given else '# '}[{above}{name}]"
        yield from template(table, given.get(name, {}), shown, notes, f"{above}{name}.", every)


def _table(field: FieldInfo) -> type[Table] | None:
    """The model of a table, if that is what a key is of and no file or name stands for it."""
    kinds = [
        kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)
    ]
    found = [kind for kind in kinds if issubclass(kind, Table)]
    is_list = get_origin(field.annotation) in (tuple, list)
    return found[0] if found and not field.examples and not is_list else None


def _example(field: FieldInfo) -> Any:
    return field.examples[0] if field.examples else field.default


def _meaning(field: FieldInfo) -> Iterator[str]:
    yield field.description or ""
    marks: list[Any] = [*field.metadata, *_marks(field.annotation)]
    for mark in marks:
        names = mark.names if isinstance(mark, Among) else mark if isinstance(mark, tuple) else ()
        if 0 < len(names) <= FEW:
            yield f"one of {', '.join(map(str, names))}"
    least = [_number("from", mark.ge) for mark in marks if isinstance(mark, Ge)]
    least += [_number("above", mark.gt) for mark in marks if isinstance(mark, Gt)]
    most = [_number("to", mark.le) for mark in marks if isinstance(mark, Le)]
    most += [_number("to below", mark.lt) for mark in marks if isinstance(mark, Lt)]
    if limits := "".join(least[-1:] + most[-1:]).strip():
        # limits are not to be torn apart where lines are wrapped; `_comment` puts spaces back
        yield limits.replace(" ", "\N{NO-BREAK SPACE}")


def _number(sign: str, value: Any) -> str:
    if abs(value) > LARGE:
        return ""
    return (
        " above 0"
        if value == SMALLEST
        else f" {sign} {value:,.0f}"
        if abs(value) >= 1
        else f" {sign} {value:g}"
    )


def _marks(kind: Any) -> Iterator[Any]:
    """The limits of what may be absent, and the choices of a literal, as a tuple."""
    if get_origin(kind) is Literal:
        yield get_args(kind)
    elif get_origin(kind) is Annotated:
        origin, *marks = get_args(kind)
        for mark in marks:
            yield from mark.metadata if isinstance(mark, FieldInfo) else [mark]
        yield from _marks(origin)
    elif get_origin(kind) is not tuple:
        for inner in get_args(kind):
            yield from _marks(inner)


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}".replace("\N{NO-BREAK SPACE}", " ")


def written(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, Mapping):
        return (
            f"{{ {', '.join(f'{name} = {written(inner)}' for name, inner in value.items())} }}"
            if value
            else "{}"
        )
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(written, value))}]"
    return json.dumps(value, ensure_ascii=False)


HEAD = """\
# The ideal chip: no noise, no mismatch, no rounding. Its times, energies, sizes and ranges are
# nominal: every such figure in this file is assumed, in the range that is usual for analog arrays
# of a few hundred synapses, and has no source. Another chip file names only what differs.
# A key behind a # is shown with an example.

"""


def ideal_chip() -> str:
    """The contents of chips/ideal.toml."""
    # what is absent by default stands behind a #
    values = ChipParams().model_dump(exclude_none=True)
    # shown by its example, the name of a device, in place of a whole table of the ideal one
    del values["weights"]["device"]
    return HEAD + "\n".join(template(ChipParams, values)) + "\n"


if __name__ == "__main__":
    print(ideal_chip(), end="")
