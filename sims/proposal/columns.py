"""What the columns of a table of data are: the target, inputs, and those that are neither."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from perturb.errors import InputError, cut, one_line, shown
from sims.data.files import floats_of

Kind = Literal["classes", "numbers"]

# names by which a column is taken to be what is to be learned
TARGETS = ("target", "class", "label", "y", "output", "outcome")
# names by which a column of numbers or names is taken to tell rows apart
ID = re.compile(r"(.*[ _-])?(id|index|idx|row|no|nr|uuid|key)|unnamed: ?\d+", re.IGNORECASE)
COUNTS = "numbers the rows"
NUMERIC = 0.9  # of the cells that are not empty: the others are mistakes, which are named
MOST_CLASSES = 20  # of integers: with more of them they are numbers
STILL = 0.005  # of its mean: an input whose standard deviation is less hardly varies
MOST_ALIKE = 0.98  # of the rows: an input that is the same in more hardly varies
LEAST_OF_CLASS = 5  # rows of a class of integers, in the mean


class Columns(NamedTuple):
    """targets: as data.targets. chosen, because: how the target was chosen, and why it is classes
    or numbers. ignored: columns that are left out, and why. still: inputs that hardly vary.
    """

    targets: str | tuple[str, ...]
    inputs: tuple[str, ...]
    ignored: dict[str, str]
    chosen: str
    because: str
    still: tuple[str, ...] = ()


def choose_columns(frame: pd.DataFrame, wanted: Sequence[str], kind: Kind | None) -> Columns:
    """The part that every column takes; InputError where there is no target or no input.

    wanted: the columns that --target names, else one is chosen; kind: what they are, else it is
    seen from the cells.
    """
    names = [str(name) for name in frame.columns]
    for name in wanted:
        if name not in names:
            there = one_line(cut(", ".join(names), 200))
            raise InputError(f"--target {one_line(name)}: no such column: name one of {there}")
    wanted = tuple(dict.fromkeys(wanted))
    ignored = {}
    for name in dict.fromkeys(names):
        if name not in wanted and names.count(name) == 1 and (why := _no_input(frame[name])):
            ignored[name] = why
    chosen = "as --target says"
    if not wanted:
        target, chosen = _chosen(frame, [name for name in names if name])
        wanted = (target,)
        ignored.pop(target, None)
    # alone beside the target, what counts 1, 2, 3 may well be the input
    if all(name in ignored or name in wanted for name in names):
        ignored = {n: why for n, why in ignored.items() if why != COUNTS or _is_id(frame[n])}
    # two columns of a name are a mistake that reading the file names
    inputs = tuple(name for name in names if name not in wanted and name not in ignored)
    if not inputs:
        left = "; ".join(f"{shown(name)} {why}" for name, why in ignored.items())
        raise InputError(
            f"no column of numbers is left as an input beside {', '.join(map(shown, wanted))}"
            f"{f' ({left})' if left else ''}: choose another --target, or add inputs"
        )
    found, because = _kind(frame, wanted)
    if kind == "classes" and len(wanted) > 1:
        raise InputError("--as classes: classes are one column: give one --target")
    if kind:
        found, because = kind, "as --as says"
    for name in wanted:
        _check_target(frame[name], found)
    targets = wanted[0] if found == "classes" else tuple(wanted)
    still = tuple(name for name in inputs if names.count(name) == 1 and _is_still(frame[name]))
    return Columns(targets, inputs, ignored, chosen, because, still)


def _check_target(column: pd.Series, kind: Kind) -> None:
    """InputError for a target of which nothing can be learned."""
    cells = _filled(column)
    different = cells.astype(str).nunique()
    if different == 1:
        raise InputError(
            f"{one_line(str(column.name))}: is the same in every row, so that nothing is to be"
            " learned: choose another --target"
        )
    if kind == "classes" and different > len(cells) / 2:
        raise InputError(
            f"{one_line(str(column.name))}: {different:,} classes in {len(cells):,} rows: a class"
            " needs several rows: choose another --target"
        )


def _filled(column: pd.Series) -> pd.Series:
    # blanks alone are an empty cell
    empty = column.isna() | column.map(lambda cell: isinstance(cell, str) and not cell.strip())
    return column[~empty]


def _is_id(column: pd.Series) -> bool:
    return not column.name or bool(ID.fullmatch(str(column.name)))


def _is_numeric(column: pd.Series) -> bool:
    cells = _filled(column)
    return len(cells) > 0 and bool(np.isfinite(floats_of(cells)).mean() >= NUMERIC)


def _no_input(column: pd.Series) -> str:
    """Why a column is no input; "" if it is one."""
    cells = _filled(column)
    if not len(cells):
        return "is empty"
    named = _is_id(column)
    # different in every row, none left empty
    every = len(column) > 2 and len(cells) == len(column) and cells.astype(str).is_unique
    if not _is_numeric(column):
        return "names the rows" if named and every else "holds texts, not numbers"
    values = floats_of(column)
    # in steps of one, whatever it is called
    if every and ((named and (values % 1 == 0).all()) or (np.diff(values) == 1).all()):
        return COUNTS
    if np.isfinite(values).all() and np.ptp(values) == 0 and len(values) > 1:
        return "is the same in every row"
    return ""


def _is_still(column: pd.Series) -> bool:
    """Whether an input hardly varies: against its mean, or in but few rows."""
    values = floats_of(_filled(column))
    values = values[np.isfinite(values)]
    if not len(values):
        return False
    _, counts = np.unique(values, return_counts=True)
    alike = counts.max() > MOST_ALIKE * len(values)
    return bool(alike or values.std() < STILL * abs(values.mean()))


def _chosen(frame: pd.DataFrame, names: list[str]) -> tuple[str, str]:
    """The column that is the target, and how it was chosen."""
    named = [name for name in names if name.casefold() in TARGETS]
    if len(named) == 1:
        return named[0], "by its name"
    texts = [
        name
        for name in dict.fromkeys(names)
        if names.count(name) == 1
        and not _is_numeric(frame[name])
        # a class has several rows; what is different in each is a name or a remark
        and 1 < _filled(frame[name]).astype(str).nunique() <= len(frame) / 2
    ]
    if len(texts) == 1:
        return texts[0], "the only column of names of classes"
    usable = [n for n in names if names.count(n) == 1 and (not _no_input(frame[n]) or n in texts)]
    if not usable:
        raise InputError("no column is a target, of classes or numbers: name it by --target COLUMN")
    return usable[-1], "the last column"


def _kind(frame: pd.DataFrame, targets: Sequence[str]) -> tuple[Kind, str]:
    """Whether the targets are classes, and why."""
    if len(targets) > 1:
        return "numbers", "several targets are numbers"
    column = frame[targets[0]]
    if not _is_numeric(column):
        return "classes", "its cells are names"
    values = floats_of(column)
    values = values[np.isfinite(values)]
    distinct = len(np.unique(values))
    # classes may be numbered; measured values are seldom few integers
    whole = bool((values % 1 == 0).all())
    if whole and 2 <= distinct <= MOST_CLASSES and len(values) >= LEAST_OF_CLASS * distinct:
        return "classes", f"its numbers are {distinct} different integers"
    return "numbers", f"it holds {distinct:,} different numbers"
