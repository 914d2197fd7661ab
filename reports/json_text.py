"""What a terminal shows, as one JSON document: tables of the same columns, numbers as numbers."""

import json
import math
from collections.abc import Mapping
from typing import Any

from reports.columns import Table
from reports.frames import Frames


def json_text(data: Any) -> str:
    """Plain data, numbers of NumPy and cells of tables as a JSON document: NaN is null, an infinite
    number the text "Infinity" or "-Infinity".
    """
    # ASCII: no character of a text can give a terminal orders
    return json.dumps(_plain(data), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    # NumPy's, and pandas' of one entry
    value = value.item() if hasattr(value, "item") else value
    # a cell of several numbers: its numbers by their names
    value = value._asdict() if hasattr(value, "_asdict") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def table_data(table: Table) -> dict[str, Any]:
    """A table: what its columns mean, and all its rows."""
    columns = table.records or table.columns
    about = {
        name: {"meaning": column.meaning or column.heading, "unit": column.unit}
        for name, column in columns.items()
    }
    # cells stay numbers: formats are for readers, not for programs
    rows = table.frame[list(columns)].to_dict("records")
    return {"title": table.title, "note": table.note, "columns": about, "rows": rows}


def results_data(frames: Frames) -> dict[str, Any]:
    """The results of a run or a sweep."""
    said = frames.provenance
    return {
        "experiment": said["experiment"],
        "study": frames.experiment["study"],
        "description": said["description"],
        "seed": said["seed"],
        "status": said["status"],
        **({"reason": frames.reason} if frames.partial else {}),
        "command": said["command"],
        "directory": str(frames.directory),
        "verdicts": [
            {"of": of, "verdict": verdict} for of, verdict in frames.view.verdicts(frames)
        ],
        "notes": frames.view.notes(frames),
        "warnings": frames.view.warnings(frames),
        "tables": [table_data(table) for table in frames.view.tables(frames)],
    }
