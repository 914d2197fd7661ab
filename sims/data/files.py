"""Patterns of one's own, from CSV, Parquet and NPZ files: read, checked, and turned into arrays
x and target.
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pandas as pd

from perturb.errors import InputError, cut, one_line, shown
from perturb.files import open_regular
from sims.data.csv_files import HEADED, read_csv

Array = np.ndarray
Targets = str | tuple[str, ...] | None
T = TypeVar("T")

MAX_CLASSES = 1000
NAMED = 3  # cells that are wrong, beside the first
MAX_BYTES = 1 << 31  # of a file
LARGEST = 1e100  # squares of larger numbers may be none
A_NUMBER = f"a number, at most {LARGEST:g}"
NUMBER = (  # as a string; not 1_000, nan, inf or digits of other scripts
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
)
TRUTH = {"true": 1.0, "false": 0.0}
# how a Parquet file calls an index of pandas that has no name
INDEX = re.compile(r"__index_level_[0-9]+__")
# what NumPy, pandas and pyarrow raise of a damaged file
DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    pd.errors.ParserWarning,
)


def read_patterns(
    path: str, targets: Targets, sha256: str = "", ignore: Collection[str] = ()
) -> tuple[Array, Array, tuple[str, ...]]:
    """x (rows, inputs), target (rows, outputs) and the names of classes of a file; a mistake in it
    raises InputError that names row and column.

    CSV and Parquet: targets names a column of classes, which become one-hot in sorted order, or a
    list of columns of numbers, [] for none; every other column is an input. NPZ: array x of shape
    (rows, ...), each row flat in C order, and target, of shape (rows, outputs), or (rows,) for
    classes; targets = [] if there is none. sha256: of the contents that are meant; "" takes any.
    ignore: columns that are left out, "" those without a name. Cells of CSV are read as strings: a
    class is a string without the blanks around it, and classes that are all numbers are sorted as
    numbers.
    """
    found = read_file("data", path, sha256, READERS)
    source = called("data.file", path)
    if isinstance(found, pd.DataFrame):
        return _from_frame(found, targets, source, ignore)
    if ignore:
        raise InputError(
            f"data.ignore = {shown(list(ignore))} is for CSV and Parquet, but data.file is NPZ:"
            " remove it"
        )
    return _from_arrays(found, targets, source)


def called(key: str, path: str) -> str:
    """What messages call the file that a key of the experiment names."""
    return f"{key} = {one_line(cut(path, 200))}"


def read_file(
    table: str, path: str, sha256: str, readers: Mapping[str, Callable[[IO[bytes]], T]]
) -> T:
    """What the reader for its ending makes of the file of a table of the experiment; or InputError.
    sha256: of the contents that are meant; "" takes any.
    """
    source = called(f"{table}.file", path)
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        *others, last = readers
        raise InputError(
            f"{source}: must end in {', '.join(others)} or {last}: give a file of such a kind"
        )
    kind = Path(path).suffix[1:].upper()
    return read_files([(f"{table}.file", path, reader)], sha256, kind)[0]


def read_files(
    files: Sequence[tuple[str, str, Callable[[IO[bytes]], T]]], sha256: str, kind: str
) -> list[T]:
    """What the reader of each file, (key, path, reader), makes of it; or InputError. sha256: of the
    contents of all of them that are meant, see `digest_of`; "" takes any. kind: what messages call
    such files.
    """
    with ExitStack() as opened:
        streams = [opened.enter_context(_opened(called(key, path), path)) for key, path, _ in files]
        # of the streams that are read next: what is judged is what is used
        if sha256 and digest_of(streams) != sha256:
            table = files[0][0].partition(".")[0]
            source = called(*files[0][:2])
            more = f", or those of {files[1][0]} or another file," if len(files) > 1 else ""
            raise InputError(
                f"{source}: its contents{more} are not those that {table}.sha256 ="
                f' {shown(sha256)} was stored with: restore it, or set {table}.sha256 = "" to'
                " take it as it is"
            )
        return [
            _made(called(key, path), reader, stream, kind)
            for (key, path, reader), stream in zip(files, streams, strict=True)
        ]


def digest_of(streams: Iterable[BufferedReader]) -> str:
    """SHA-256 of what files hold, one after another; each is read from its start, and is there
    again afterwards.
    """
    digest = hashlib.sha256()
    for stream in streams:
        hashlib.file_digest(stream, lambda: digest)
        stream.seek(0)
    return digest.hexdigest()


def _opened(source: str, path: str) -> BufferedReader:
    try:
        return open_regular(path, MAX_BYTES)
    except IsADirectoryError:
        raise InputError(f"{source}: is a directory: give the path of a file in it") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a zero byte in the path
        raise InputError(
            f"{source}: no such file: give its path, relative to the experiment file"
        ) from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}): check the file") from None


def _made(source: str, reader: Callable[[IO[bytes]], T], stream: IO[bytes], kind: str) -> T:
    """What the reader makes of a file, with mistakes in it as InputError that names the file."""
    try:
        return reader(stream)
    except InputError as error:
        raise (
            error if str(error).startswith(source) else InputError(f"{source}: {error}")
        ) from None
    except DAMAGED as error:
        what = one_line(cut(str(error).partition("\n")[0], 100)) or type(error).__name__
        raise InputError(f"{source}: not a whole {kind} file ({what}): write it anew") from None


def _parquet(stream: IO[bytes]) -> pd.DataFrame:
    from pyarrow.parquet import read_table

    table = read_table(stream)
    # that its strings are UTF-8, which otherwise shows when they are used
    table.validate(full=True)
    # with the columns that pandas would make an index of
    frame = table.to_pandas(ignore_metadata=True)
    return frame.set_axis(
        ["" if INDEX.fullmatch(name) else name.strip() for name in table.column_names], axis=1
    )


def _npz(stream: IO[bytes]) -> dict[str, Array]:
    arrays = np.load(stream, allow_pickle=False)
    # np.load takes a file of a single array too
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError("a single array, not an archive of named ones")
    return {name: arrays[name] for name in ("x", "target") if name in arrays}


READERS: dict[str, Callable[[IO[bytes]], pd.DataFrame | dict[str, Array]]] = {
    ".csv": read_csv,
    ".parquet": _parquet,
    ".npz": _npz,
}


def _from_frame(
    frame: pd.DataFrame, targets: Targets, source: str, ignore: Collection[str]
) -> tuple[Array, Array, tuple[str, ...]]:
    columns = [str(name) for name in frame.columns]
    there = one_line(cut(", ".join(columns), 100))
    if targets is None:
        raise InputError(
            'data.targets is missing: name the column of classes of data.file, such as "class", or'
            f' a list of columns of numbers, such as ["y"], of {there}'
        )
    # checks in the order in which a user meets them: targets, names, inputs, rows, numbers
    named = [targets] if isinstance(targets, str) else list(targets)
    for name in ignore:
        if name in named or name not in columns:
            what = "a target" if name in named else "no column of data.file"
            raise InputError(f"data.ignore: {shown(name)} is {what}: name some of {there}")
    columns = [name for name in columns if name not in ignore]
    frame = frame.loc[:, [name not in ignore for name in frame.columns]]
    for name in named:
        if columns.count(name) != 1:
            what = (
                "no column" if name not in columns else f"the name of {columns.count(name)} columns"
            )
            raise InputError(
                f"data.targets = {shown(name)} is {what} of data.file: name some of {there}"
            )
    if "" in columns:
        raise InputError(
            f"{source}: column {columns.index('') + 1} has no name: if it numbers the rows, leave"
            ' it out by data.ignore = [""]; if it is an input, name it'
        )
    if len(set(columns)) < len(columns):
        raise InputError(f"{source}: has two columns of the same name among {there}: rename one")
    inputs = [name for name in columns if name not in named]
    if not inputs:
        raise InputError(f"{source}: has no columns beside its targets: add the inputs")
    if not len(frame):
        raise InputError(f"{source}: holds no rows: add a row for each pattern")
    x = _numbers(frame, inputs, source)
    if isinstance(targets, str):
        return x, *_one_hot(_labels(frame[targets], source), source)
    return x, _numbers(frame, named, source), ()


def _numbers(frame: pd.DataFrame, columns: list[str], source: str) -> Array:
    """The columns as numbers (rows, columns)."""
    values = np.empty((len(frame), len(columns)))
    for place, name in enumerate(columns):
        column = frame[name]
        numeric = column.dtype.kind in "biuf"
        values[:, place] = column.to_numpy(float, na_value=np.nan) if numeric else floats_of(column)
    wrong = np.argwhere(_unusable(values))
    if len(wrong):
        # in the order of the file
        (row, place), *others = wrong.tolist()
        must = f"{A_NUMBER}: correct it, remove the row, or leave the column out by data.ignore"
        if others:
            named = [
                f"{one_line(cut(columns[column], 60))} in {_called(frame[columns[column]], at)}"
                for at, column in others[:NAMED]
            ]
            more = " and others" if len(others) > NAMED else ""
            must += f"; {len(others):,} more cells are none: {', '.join(named)}{more}"
        raise _wrong(frame[columns[place]], row, source, must)
    return values + 0.0  # without -0


def _unusable(values: Array) -> Array:
    return ~(np.abs(values) <= LARGEST)  # NaN too


def floats_of(column: pd.Series) -> Array:
    """The cells of a column as numbers, NaN where one is none; true and false are 1 and 0 in a
    column that holds nothing else.
    """
    # a column of objects, as Parquet may have, can mix numbers and texts
    texts = column.map(lambda cell: isinstance(cell, str)).to_numpy(bool)
    values = np.full(len(column), np.nan)
    values[~texts] = [_number(cell) for cell in column[~texts]]
    cells = column[texts].astype(str).str.strip()
    if len(cells) == len(column) and cells.str.lower().isin(list(TRUTH)).all():
        return cells.str.lower().map(TRUTH).to_numpy(float)
    numbers = cells.str.fullmatch(NUMBER).to_numpy(bool)
    values[np.flatnonzero(texts)[numbers]] = cells[numbers].to_numpy(object).astype(float)
    return values


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _labels(column: pd.Series, source: str) -> Array:
    """The classes of the rows, numbers as they are and all else as strings without the blanks
    around them.
    """
    numeric = column.dtype.kind in "biuf"
    labels = (
        column.to_numpy()
        if numeric
        else np.array([str(cell).strip() for cell in column], dtype=object)
    )
    missing = column.isna().to_numpy() | (labels == "")
    if missing.any():
        raise _wrong(
            column, int(missing.argmax()), source, "a class: fill it in, or remove the row"
        )
    return labels if numeric else labels.astype(str)


def _wrong(column: pd.Series, row: int, source: str, must: str) -> InputError:
    cell = column.iloc[row]
    cell = cell.item() if isinstance(cell, np.generic) else cell
    empty = pd.api.types.is_scalar(cell) and (pd.isna(cell) or cell == "")
    headed = column.index.name
    place = f"{_called(column, row)} ({headed if _is_headed(column) else 'counted from 1'})"
    value = "is empty, but" if empty else f"= {one_line(shown(cell))}"
    return InputError(
        f"{source}: {place}: {one_line(cut(str(column.name), 60))} {value} must be {must}"
    )


def _is_headed(column: pd.Series) -> bool:
    return str(column.index.name).startswith(HEADED)


def _called(column: pd.Series, row: int) -> str:
    """A row in messages: the line of a text, or the row of a table."""
    return f"line {column.index[row]}" if _is_headed(column) else f"row {row + 1}"


def _one_hot(labels: Array, source: str) -> tuple[Array, tuple[str, ...]]:
    """A column for each class, in sorted order, and their names; strings that are all numbers are
    sorted as numbers.
    """
    classes, which = np.unique(labels, return_inverse=True)
    names = [
        np.format_float_positional(c, trim="-") if labels.dtype.kind == "f" else str(c)
        for c in classes
    ]
    what = ""
    order = np.arange(len(names))
    if not 2 <= len(names) <= MAX_CLASSES:
        what = "a single class" if len(names) == 1 else f"{len(names):,} different classes"
    else:
        # Decimal: 1, 1.0 and 01 are one number, and no digit is lost in comparing
        values = {i: Decimal(name) for i, name in enumerate(names) if re.fullmatch(NUMBER, name)}
        first: dict[Decimal, int] = {}
        for i, value in values.items():
            if (other := first.setdefault(value, i)) != i:
                raise InputError(
                    f"{source}: has the classes {shown(names[other])} and {shown(names[i])}, one"
                    " number written in two ways: write each class in one way"
                )
        if len(values) == len(names):
            # 2 before 10, which strings are not
            order = np.array(sorted(values, key=lambda i: values[i]))
            # classes such as 0.37 are measured values that were meant as numbers
            broken = [value for value in values.values() if value != value.to_integral_value()]
            what = f"classes such as {broken[0]:g}" if broken else ""
    if what:
        raise InputError(
            f"{source}: has {what}, but there must be 2 to {MAX_CLASSES}, strings or integers:"
            ' for targets that are numbers, make data.targets a list, such as ["y"], or the array'
            " target one of shape (rows, 1)"
        )
    return np.eye(len(names))[:, order][which], tuple(names[i] for i in order)


def _from_arrays(
    arrays: dict[str, Array], targets: Targets, source: str
) -> tuple[Array, Array, tuple[str, ...]]:
    if targets:
        raise InputError(
            f"data.targets = {shown(targets)} is for CSV and Parquet, but data.file is NPZ: remove"
            " it, or set [] for none"
        )
    for name in ("x", "target") if targets is None else ("x",):
        if name not in arrays:
            raise InputError(
                f"{source}: holds no array {name}: add it (data.targets = [] if there are no"
                " targets)"
            )
    x = arrays["x"]
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"{source}: x has shape {x.shape}, but must be (rows, inputs), or (rows, ...) such as"
            " images, 1 or more of each: reshape it"
        )
    x = _finite("x", x, source).reshape(len(x), -1)
    if targets is not None:
        return x, np.empty((len(x), 0)), ()
    target = arrays["target"]
    if target.ndim not in (1, 2) or len(target) != len(x) or 0 in target.shape:
        raise InputError(
            f"{source}: target has shape {target.shape}, but must be ({len(x)}, outputs), or"
            f" ({len(x)},) for classes"
        )
    # numbers, an output a column; one-dimensional targets are classes
    if target.ndim == 2:
        return x, _finite("target", target, source), ()
    return x, *_one_hot(
        (
            _finite("target", target, source)
            if target.dtype.kind in "biuf"
            else _strings(target, source)
        ),
        source,
    )


def _finite(name: str, array: Array, source: str) -> Array:
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{source}: {name} is of type {array.dtype}, but must be numbers: convert it"
        )
    with np.errstate(over="ignore"):  # of a wider type
        values = array.astype(float) + 0.0  # without -0
    wrong = _unusable(values)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{source}: {name}[{', '.join(map(str, place))}] = {array[place]} must be {A_NUMBER}:"
            " correct it"
        )
    return values


def _strings(target: Array, source: str) -> Array:
    if target.dtype.kind not in "US":
        raise InputError(
            f"{source}: target is of type {target.dtype}, but must be numbers or strings: convert"
            " it"
        )
    return _labels(pd.Series(target.astype(str), name="target"), source)
