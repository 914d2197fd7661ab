"""Tables in CSV files: cells as strings, whatever separates columns, by their lines."""

import csv
import re
import warnings
from collections.abc import Sequence
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from typing import IO

import pandas as pd

from perturb.errors import InputError

HEADED = "the header is line "  # what messages say of the numbers of lines
DECIMAL_COMMA = re.compile(r"^(\s*[+-]?[0-9]*),([0-9]+(?:[eE][+-]?[0-9]+)?\s*)$")


def read_csv(stream: IO[bytes]) -> pd.DataFrame:
    """The cells as strings, an empty one as missing; the first line names the columns, but for
    those before it that are empty or begin with #, and pandas is not asked to mend names. Where it
    has no comma, semicolons or tabs separate the columns, and numbers may have decimal commas.
    """
    content = stream.read()
    before, separator = _before_header(content)
    with warnings.catch_warnings():
        # a line that is too long would be cut short with no more than a warning
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # "NA" may be a class, and "nan" is no number
        cells = pd.read_csv(
            BytesIO(content),
            encoding="utf-8-sig",
            skipinitialspace=True,
            header=None,
            sep=separator,
            skiprows=before,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
        )
    if separator != ",":
        cells = cells.replace(DECIMAL_COMMA, r"\1.\2", regex=True)
    names = ["" if pd.isna(name) else str(name).strip() for name in cells.iloc[0]]
    # a single column whose name has separators in it is a table with other ones
    if len(names) == 1 and "|" in names[0]:
        raise InputError('its columns seem to be separated by "|": write it with commas')
    cells = cells[1:].set_axis(names, axis=1)
    # rows are called by the lines that they begin in, as an editor numbers them
    lines = _lines(content, before, separator, len(cells))
    return cells.set_axis(pd.Index(lines, name=f"{HEADED}{before + 1}"))


def _lines(content: bytes, before: int, separator: str, rows: int) -> Sequence[int]:
    """The line that each row below the header begins in."""
    consecutive = range(before + 2, before + 2 + rows)
    if content.count(b"\n") + (not content.endswith(b"\n")) == before + 1 + rows:
        return consecutive
    # some are empty, or a cell in quotes has several
    stream = TextIOWrapper(BytesIO(content), encoding="utf-8-sig", newline="")
    for _ in range(before):
        next(stream)
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=True)
    begun, blank = [], []
    line = before + 1
    try:
        for cells in reader:
            if cells:
                begun.append(line)
                blank.append(cells == [""])
            line = before + reader.line_num + 1
    except csv.Error:  # a cell of very many letters, which pandas takes
        return consecutive
    # a line of blanks is none to pandas, but a single cell "" is
    if len(begun) != rows + 1:
        begun = [line for line, empty in zip(begun, blank, strict=True) if not empty]
    return begun[1:] if len(begun) == rows + 1 else consecutive


def _before_header(content: bytes) -> tuple[int, str]:
    """How many lines stand before that of the names, and what separates its columns."""
    lines = [*content.removeprefix(b"\xef\xbb\xbf").splitlines(), b""]
    before = 0
    for line, below in pairwise(lines):
        # names may begin with it, too: as many as there are cells below
        named = any(line.count(mark) == below.count(mark) > 0 for mark in (b",", b";", b"\t"))
        if line.strip() and (named or not line.lstrip().startswith(b"#")):
            break
        before += 1
    others = (mark for mark in ";\t" if mark.encode() in lines[before])
    return before, "," if b"," in lines[before] else next(others, ",")
