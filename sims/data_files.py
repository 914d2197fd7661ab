"""Patterns of one's own, from CSV, Parquet and NPZ files: read, checked, and turned into arrays x and target."""

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from hardware.tables import cut, one_line, open_regular, shown
from perturb.errors import InputError

Array = np.ndarray
Targets = str | tuple[str, ...] | None

MAX_CLASSES = 1000
MAX_BYTES = 1 << 31  # of a file
LARGEST = 1e100  # squares of larger numbers may be none
A_NUMBER = f"a number, at most {LARGEST:g}"
# what NumPy, pandas and pyarrow raise of a damaged file
DAMAGED = (
    OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error,
    pd.errors.ParserWarning,
)  # fmt: skip


def read_patterns(path: str, targets: Targets, sha256: str = "") -> tuple[Array, Array]:
    """x (rows, inputs) and target (rows, outputs) of a file; a mistake in it raises InputError that names row and column.

    CSV and Parquet: targets names a column of classes, which become one-hot in sorted order, or a list of columns of numbers, []
    for none; every other column is an input. NPZ: array x of shape (rows, inputs), and target, of shape (rows, outputs), or
    (rows,) for classes; targets = [] if there is none. sha256: of the contents that are meant; "" takes any.
    """
    source = f"data.file = {one_line(cut(path, 200))}"
    reader = READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise InputError(f"{source}: must end in .csv, .parquet or .npz: give a file of such a kind")
    try:
        stream = open_regular(path, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):  # ValueError: a zero byte in the path
        raise InputError(f"{source}: no such file: give its path, relative to the experiment file") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}): check the file") from None
    with stream:
        try:
            if sha256 and hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                raise InputError(
                    f"{source}: its contents are not those that data.sha256 = {shown(sha256)} was stored with: restore it, or "
                    'set data.sha256 = "" to take it as it is'
                )
            stream.seek(0)
            found = reader(stream)
        except InputError:
            raise
        except DAMAGED as error:
            what = one_line(cut(str(error).partition("\n")[0], 100)) or type(error).__name__
            raise InputError(f"{source}: not a whole {Path(path).suffix[1:].upper()} file ({what}): write it anew") from None
    return _from_frame(found, targets, source) if isinstance(found, pd.DataFrame) else _from_arrays(found, targets, source)


def _csv(stream: IO[bytes]) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # lines that have more columns than the header
        # only an empty cell is a missing one: "NA" may be a class, and "nan" is no number
        frame = pd.read_csv(
            stream, encoding="utf-8-sig", skipinitialspace=True, low_memory=False, index_col=False, keep_default_na=False,
            na_values=[""],
        )  # fmt: skip
    return frame.rename(columns=lambda name: str(name).strip())


def _parquet(stream: IO[bytes]) -> pd.DataFrame:
    from pyarrow.parquet import read_table

    table = read_table(stream)
    table.validate(full=True)  # that its texts are UTF-8, which otherwise shows when they are used
    return table.to_pandas().rename(columns=str)


def _npz(stream: IO[bytes]) -> dict[str, Array]:
    arrays = np.load(stream, allow_pickle=False)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError("a single array, not an archive of named ones")
    return {name: arrays[name] for name in ("x", "target") if name in arrays}


READERS: dict[str, Callable[[IO[bytes]], pd.DataFrame | dict[str, Array]]] = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}


def _from_frame(frame: pd.DataFrame, targets: Targets, source: str) -> tuple[Array, Array]:
    columns = [str(name) for name in frame.columns]
    there = one_line(cut(", ".join(columns), 100))
    if targets is None:
        raise InputError(
            'data.targets is missing: name the column of classes of data.file, such as "class", or a list of columns of numbers, '
            f'such as ["y"], of {there}'
        )
    named = [targets] if isinstance(targets, str) else list(targets)
    for name in named:
        if columns.count(name) != 1:
            what = "no column" if name not in columns else f"the name of {columns.count(name)} columns"
            raise InputError(f"data.targets = {shown(name)} is {what} of data.file: name some of {there}")
    if len(set(columns)) < len(columns):
        raise InputError(f"{source}: has two columns of the same name among {there}: rename one")
    inputs = [name for name in columns if name not in named]
    if not inputs:
        raise InputError(f"{source}: has no columns beside its targets: add the inputs")
    if not len(frame):
        raise InputError(f"{source}: holds no rows: add a row for each pattern")
    x = _numbers(frame, inputs, source)
    if isinstance(targets, str):
        return x, _one_hot(_labels(frame[targets], source), source)
    return x, _numbers(frame, named, source)


def _numbers(frame: pd.DataFrame, columns: list[str], source: str) -> Array:
    """The columns as numbers (rows, columns)."""
    values = np.empty((len(frame), len(columns)))
    for place, name in enumerate(columns):
        column = frame[name]
        numeric = column.dtype.kind in "biuf"
        values[:, place] = column.to_numpy(float, na_value=np.nan) if numeric else [_number(cell) for cell in column]
        wrong = _unusable(values[:, place])
        if wrong.any():
            row = int(wrong.argmax())
            raise _wrong(column, row, source, f"{A_NUMBER}: correct it, or remove the row or the column")
    return values + 0.0  # without -0


def _unusable(values: Array) -> Array:
    return ~(np.abs(values) <= LARGEST)  # NaN too


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _labels(column: pd.Series, source: str) -> Array:
    missing = column.isna().to_numpy()
    if missing.any():
        raise _wrong(column, int(missing.argmax()), source, "a class: fill it in, or remove the row")
    return column.to_numpy() if column.dtype.kind in "biuf" else np.array([str(cell) for cell in column])


def _wrong(column: pd.Series, row: int, source: str, must: str) -> InputError:
    cell = column.iloc[row]
    cell = cell.item() if isinstance(cell, np.generic) else cell
    value = "nothing" if pd.api.types.is_scalar(cell) and pd.isna(cell) else shown(cell)
    return InputError(f"{source}: row {row + 1}: {one_line(cut(str(column.name), 60))} = {one_line(value)} must be {must}")


def _one_hot(labels: Array, source: str) -> Array:
    classes, which = np.unique(labels, return_inverse=True)
    whole = labels.dtype.kind != "f" or (classes == np.round(classes)).all()
    if not (whole and 2 <= len(classes) <= MAX_CLASSES):
        what = f"{len(classes)} different classes" if whole else f"classes such as {classes[classes != np.round(classes)][0]:g}"
        raise InputError(
            f"{source}: has {what}, but there must be 2 to {MAX_CLASSES}, texts or whole numbers: for targets that are "
            'numbers, make data.targets a list, such as ["y"], or the array target one of shape (rows, 1)'
        )
    return np.eye(len(classes))[which]


def _from_arrays(arrays: dict[str, Array], targets: Targets, source: str) -> tuple[Array, Array]:
    if targets:
        raise InputError(
            f"data.targets = {shown(targets)} is for CSV and Parquet, but data.file is NPZ: remove it, or set [] for none"
        )
    for name in ("x", "target") if targets is None else ("x",):
        if name not in arrays:
            raise InputError(f"{source}: holds no array {name}: add it (data.targets = [] if there are no targets)")
    x = arrays["x"]
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"{source}: x has shape {x.shape}, but must be (rows, inputs), 1 or more of each: reshape it")
    x = _finite("x", x, source)
    if targets is not None:
        return x, np.empty((len(x), 0))
    target = arrays["target"]
    if target.ndim not in (1, 2) or len(target) != len(x) or 0 in target.shape:
        raise InputError(
            f"{source}: target has shape {target.shape}, but must be ({len(x)}, outputs), or ({len(x)},) for classes"
        )
    if target.ndim == 2:
        return x, _finite("target", target, source)
    return x, _one_hot(_finite("target", target, source) if target.dtype.kind in "biuf" else _texts(target, source), source)


def _finite(name: str, array: Array, source: str) -> Array:
    if array.dtype.kind not in "biuf":
        raise InputError(f"{source}: {name} is of type {array.dtype}, but must be numbers: convert it")
    with np.errstate(over="ignore"):  # of a wider type
        values = array.astype(float) + 0.0  # without -0
    wrong = _unusable(values)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(f"{source}: {name}[{', '.join(map(str, place))}] = {array[place]} must be {A_NUMBER}: correct it")
    return values


def _texts(target: Array, source: str) -> Array:
    if target.dtype.kind not in "US":
        raise InputError(f"{source}: target is of type {target.dtype}, but must be numbers or texts: convert it")
    return target
