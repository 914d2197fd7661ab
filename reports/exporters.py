"""Exports of a stored run or sweep: one format, one function. Each file appears whole or not at
all.

An exporter takes `Frames` and returns its files by name: bytes, or a function that writes them to
an open file part by part, which large tables need. It formats and computes nothing.
"""

import csv
import io
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute
from pyarrow.csv import WriteOptions, write_csv
from pyarrow.parquet import ParquetWriter

from perturb.errors import InputError, choose
from perturb.files import whole
from reports.figures import png, svg
from reports.frames import Frames
from reports.loading import load
from reports.page import html
from reports.store.sweep_database import FILE
from reports.table import latex, markdown

LARGEST_IN_EXCEL = 10**15  # it keeps fifteen digits
PICTURES = ("svg", "png")


Content = bytes | Callable[[BinaryIO], None]  # of a file, or what writes it, part by part


def _csv(frames: Frames) -> dict[str, Content]:
    """Every table, NAME.csv."""
    return {f"{name}.csv": partial(_write_csv, frames, name) for name in frames.tables}


def _write_csv(frames: Frames, name: str, file: BinaryIO) -> None:
    """By Arrow, which is ten times as fast as pandas; every number comes back to the same bits."""
    options = WriteOptions(include_header=False, quoting_style="needed")
    for i, part in enumerate(frames.parts(name)):
        # Arrow quotes every name of a column, pandas none that needs no quotes
        if i == 0:
            header = io.StringIO()
            csv.writer(header, lineterminator="\n").writerow(part.columns)
            file.write(header.getvalue().encode())
        # True and False, as pandas writes them
        truths = {column: str for column in part.columns if part[column].dtype == bool}
        table = _arrow(part.astype(truths))
        for j, column in enumerate(table.columns):
            # an empty text is an empty cell
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                table = table.set_column(
                    j,
                    table.field(j),
                    pa.compute.if_else(pa.compute.equal(column, ""), None, column),
                )
        write_csv(table, file, options)


def _arrow(part: pd.DataFrame):
    """As a table of Arrow, texts as texts."""
    # pandas' own metadata would make two exports of the same numbers differ by its version
    table = pa.Table.from_pandas(part, preserve_index=False).replace_schema_metadata()
    for j, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(j, table.field(j).name, column.cast(pa.string()))
    return table


def _excel(frames: Frames) -> dict[str, Content]:
    """Every table as CSV that Excel reads as it is meant, NAME.excel.csv: marked as UTF-8; no
    text taken for a formula; no digit of a seed lost.
    """
    found: dict[str, Content] = {}
    for name, table in frames.tables.items():
        text = _plain(table)
        for column in text.columns:
            if text[column].dtype == object or pd.api.types.is_string_dtype(text[column]):
                text[column] = text[column].map(_harmless)
            # as a formula that gives a text: Excel would round a number of more digits
            elif text[column].dtype.kind in "iu" and (text[column].abs() >= LARGEST_IN_EXCEL).any():
                text[column] = text[column].map('="{}"'.format)
        found[f"{name}.excel.csv"] = text.to_csv(index=False, lineterminator="\r\n").encode(
            "utf-8-sig"
        )
    return found


def _harmless(value: object) -> object:
    """Text that Excel would run as a formula begins with an apostrophe."""
    return (
        f"'{value}"
        if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        else value
    )


def _parquet(frames: Frames) -> dict[str, Content]:
    """Every table, NAME.parquet."""
    return {f"{name}.parquet": partial(_write_parquet, frames, name) for name in frames.tables}


def _write_parquet(frames: Frames, name: str, file: BinaryIO) -> None:
    parts = map(_arrow, frames.parts(name))
    # the schema is that of the first part; later parts are cast to it
    first = next(parts)
    schema = first.schema
    for j, field in enumerate(schema):
        # no value in the first part: its type is that of the first value further below
        if str(field.type) == "null" and len(known := frames.tables[name][field.name].dropna()):
            schema = schema.set(j, _arrow(known.iloc[:1].to_frame()).schema.field(0))
    with ParquetWriter(file, schema) as writer:
        for part in chain([first], parts):
            writer.write_table(part.cast(schema))


def _markdown(frames: Frames) -> dict[str, Content]:
    """Results and tables, report.md."""
    return {"report.md": markdown(frames).encode()}


def _latex(frames: Frames) -> dict[str, Content]:
    """Tables for LaTeX, report.tex."""
    return {"report.tex": latex(frames).encode()}


def _png(frames: Frames) -> dict[str, Content]:
    """Every plot, NAME.png."""
    return {f"{name}.png": png(figure) for name, (figure, _) in frames.view.figures(frames).items()}


def _svg(frames: Frames) -> dict[str, Content]:
    """Every plot, NAME.svg."""
    return {
        f"{name}.svg": svg(figure, name).encode()
        for name, (figure, _) in frames.view.figures(frames).items()
    }


def _html(frames: Frames) -> dict[str, Content]:
    """One page with everything in it, report.html, which needs no network."""
    return {"report.html": html(frames).encode()}


FORMATS: dict[str, Callable[[Frames], dict[str, Content]]] = {
    "html": _html,
    "csv": _csv,
    "excel": _excel,
    "parquet": _parquet,
    "md": _markdown,
    "tex": _latex,
    "png": _png,
    "svg": _svg,
}


def export(
    directory: str | Path,
    formats: str | Iterable[str] = ("html", "csv", "parquet"),
    out: str | Path | None = None,
    wanted: str | None = None,
) -> list[Path]:
    """Write a stored run or sweep in other formats.

    Parameters
    ----------
    directory : str or Path
        Of the run or the sweep.
    formats : str or iterable of str
        Keys of `reports.exporters.FORMATS`, whose functions say what each writes.
    out : str or Path, optional
        A directory, made if missing. By default the run's own, whose stored files are left as they
        are.
    wanted : str, optional
        What the thresholds of a sweep are of, see `load`.

    Returns
    -------
    list of Path
        The files of these formats, each of which appears whole or not at all.

    Raises
    ------
    InputError
        If a format is unknown, the run cannot be read, or the place cannot be written.

    Examples
    --------
    >>> import tempfile, reports, sims
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = sims.run_experiment("xor", {"estimation.trials": 64}, out=f"{folder}/xor")
    ...     files = reports.export(f"{folder}/xor", ["csv", "md"], out=f"{folder}/paper")
    >>> sorted(file.name for file in files)[:3]
    ['convergence.csv', 'energy.csv', 'report.md']
    """
    chosen = _chosen(formats)
    frames = load(directory, wanted)
    return _write(frames, chosen, frames.directory if out is None else Path(out))


def export_designs(frames: Frames, formats: str | Iterable[str], out: str | Path) -> list[Path]:
    """Write several designs in other formats.

    Parameters
    ----------
    frames : Frames
        Of `reports.designs`.
    formats, out
        As `export` takes them.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If a format is unknown, or the place cannot be written or is that of a run.
    """
    chosen = _chosen(formats)
    target = Path(out)
    if any((target / name).exists() for name in ("provenance.json", FILE)):
        raise InputError(
            f"{target}: holds a run or a sweep, whose files those of a comparison would be among:"
            " choose another --out"
        )
    return _write(frames, chosen, target)


def _chosen(formats: str | Iterable[str]) -> list[Callable[[Frames], dict[str, Content]]]:
    writers = [
        choose("format", name, FORMATS)
        for name in dict.fromkeys([formats] if isinstance(formats, str) else formats)
    ]
    if not writers:
        raise InputError(f"formats = {formats!r} names no format: give one of {', '.join(FORMATS)}")
    return writers


def _write(
    frames: Frames, writers: Iterable[Callable[[Frames], dict[str, Content]]], target: Path
) -> list[Path]:
    # what the run itself has stored is never written over
    inside = target.exists() and target.samefile(frames.directory)
    written: dict[str, None] = {}
    # one format after another: of large sweeps none waits in memory for the others
    for writer in writers:
        contents = writer(frames)
        write_all(
            target,
            {
                name: content
                for name, content in contents.items()
                if not (inside and name in frames.stored)
            },
        )
        # also those that were left as the run stored them: they are there
        written |= dict.fromkeys(contents)
    return [target / name for name in written]


def plot(
    directory: str | Path,
    kind: str | None = None,
    format: str = "svg",
    out: str | Path | None = None,
) -> list[Path]:
    """Write the plots of a stored run or sweep as NAME.svg or NAME.png.

    Parameters
    ----------
    directory : str or Path
        Of the run or the sweep.
    kind : str, optional
        The name of one plot. By default all are written.
    format : {"svg", "png"}
        Of the files.
    out : str or Path, optional
        A directory, made if missing. By default the run's own.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If the kind or the format is unknown (it lists those that there are), the run cannot be
        read, or the place cannot be written.
    """
    choose("format", format, dict.fromkeys(PICTURES))
    frames = load(directory)
    drawn = frames.view.figures(frames)
    if kind is not None:
        drawn = {kind: choose("kind", kind, drawn)}
    target = frames.directory if out is None else Path(out)
    contents: dict[str, Content] = {
        f"{name}.{format}": png(figure) if format == "png" else svg(figure, name).encode()
        for name, (figure, _) in drawn.items()
    }
    write_all(target, contents)
    return [target / name for name in contents]


def write_all(target: Path, contents: dict[str, Content]) -> None:
    """Write files to a directory, made if missing; InputError if they cannot be."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            # beside its place and then renamed: a kill leaves the old file or the new one
            with whole(target / name) as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(file)
    except OSError as error:
        raise InputError(
            f"{target}: the report could not be written ({error.strerror or error}): choose another"
            " --out"
        ) from None


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(
        {column: str for column in frame.columns if frame[column].dtype == "category"}
    )
