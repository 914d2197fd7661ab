"""Exports of a stored run: one format, one function. Each file appears whole or not at all."""

import io
import os
import tempfile
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path

import pandas as pd

from perturb.errors import InputError, choose
from reports.frames import CATEGORIES, COLUMNS, Frames, load, read


def _csv(frames: Frames) -> dict[str, bytes]:
    return {f"{name}.csv": _plain(table).to_csv(index=False).encode() for name, table in frames.tables.items()}


def _parquet(frames: Frames) -> dict[str, bytes]:
    return {f"{name}.parquet": _plain(table).to_parquet(None, index=False) for name, table in frames.tables.items()}


def _markdown(frames: Frames) -> dict[str, bytes]:
    from reports.tables import markdown

    return {"report.md": markdown(frames).encode()}


def _png(frames: Frames) -> dict[str, bytes]:
    from reports.plots import figures

    pictures = {}
    for name, (figure, _) in figures(frames).items():
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150, facecolor="white")
        pictures[f"{name}.png"] = picture.getvalue()
    return pictures


def _html(frames: Frames) -> dict[str, bytes]:
    from jinja2 import Environment
    from markupsafe import Markup

    from reports.plots import figures, svg
    from reports.tables import hardware, tables, verdicts, warnings

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (files("reports") / "page.html").read_text(encoding="utf-8")
    )
    text = page.render(
        frames=frames,
        tables=tables(frames),
        verdicts=verdicts(frames),
        hardware=hardware(frames),
        warnings=warnings(frames),
        figures=[(name, Markup(svg(figure, name, caption)), caption) for name, (figure, caption) in figures(frames).items()],
        experiment=read(frames.directory / "experiment.toml", Path.read_text),
        provenance=frames.provenance,
        columns=[(name, COLUMNS[frames.study][name]) for name in frames.tables],
    )
    return {"report.html": text.encode()}


FORMATS: dict[str, Callable[[Frames], dict[str, bytes]]] = {
    "html": _html,
    "csv": _csv,
    "parquet": _parquet,
    "md": _markdown,
    "png": _png,
}


def export(
    directory: str | Path, formats: str | Iterable[str] = ("html", "csv", "parquet"), out: str | Path | None = None
) -> list[Path]:
    """Write a stored run in other formats; returns the paths.

    formats: of html (report.html, one self-contained page with plots), csv and parquet (every table), md (report.md), png (every
    plot). out: a directory, made if missing; None is the run's own, whose stored files are left as they are. An unknown format,
    a run that cannot be read, or a place that cannot be written raises InputError.
    """
    writers = [choose("format", name, FORMATS) for name in dict.fromkeys([formats] if isinstance(formats, str) else formats)]
    if not writers:
        raise InputError(f"formats = {formats!r} names no format: give one of {', '.join(FORMATS)}")
    frames = load(directory)
    target = frames.directory if out is None else Path(out)
    contents = {name: content for writer in writers for name, content in writer(frames).items()}
    stored = {"summary.csv", *(f"{table}.parquet" for table in frames.tables)}
    inside = target.exists() and target.samefile(frames.directory)
    _write_all(target, {name: content for name, content in contents.items() if not (inside and name in stored)})
    return [target / name for name in contents]


def export_device_fit(text: str, tables: dict[str, pd.DataFrame], title: str, out: str | Path) -> list[Path]:
    """Write a fitted device: its file to `out`, and beside it the plot of `reports.plots.device_fit` as PNG and SVG.

    tables: readings, response and steps. Returns the paths; a place that cannot be written raises InputError.
    """
    from reports.plots import device_fit, svg

    out = Path(out)
    figure = device_fit(tables["readings"], tables["response"], tables["steps"], title)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, facecolor="white")
    paths = [out, out.with_suffix(".png"), out.with_suffix(".svg")]
    _write_all(
        out.parent,
        dict(
            zip(
                (path.name for path in paths),
                (text.encode(), picture.getvalue(), svg(figure, "device", title).encode()),
                strict=True,
            )
        ),
    )
    return paths


def _write_all(target: Path, contents: dict[str, bytes]) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            _write(target / name, content)
    except OSError as error:
        raise InputError(f"{target}: the report could not be written ({error.strerror or error}): choose another --out") from None


def _write(path: Path, content: bytes) -> None:
    handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({column: str for column in CATEGORIES if column in frame.columns})
