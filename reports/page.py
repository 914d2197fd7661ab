"""A run or a sweep as one self-contained HTML page."""

import json
import math
import re
from importlib.resources import files

from jinja2 import Environment
from markupsafe import Markup

from reports.canvas import svg_element
from reports.frames import Frames, experiment_text
from reports.plots import figures
from reports.tables import filled, hardware, tables, verdicts, warnings

UNITS = {"": 1.0, "%": 1e-2, "G": 1e9, "M": 1e6, "k": 1e3, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12}
WORDS = {"never": math.inf, "above all": math.inf, "below all": -math.inf}
NUMBER = re.compile(r"<?\s*([-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s?(%|[GM]|[munp]?[sJ])?(?: of \d+| \+- .*| \[.*)?")


def html(frames: Frames) -> str:
    """The page: it needs no network."""
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (files("reports") / "page.html").read_text(encoding="utf-8")
    )
    return page.render(
        frames=frames,
        tables=[filled(table) for table in tables(frames)],
        verdicts=verdicts(frames),
        hardware=hardware(frames),
        warnings=warnings(frames),
        figures=[
            (name, Markup(svg_element(figure, name, caption)), caption) for name, (figure, caption) in figures(frames).items()
        ],
        experiment=experiment_text(frames),
        provenance=frames.provenance,
        versions=json.dumps(frames.provenance, indent=2),
        columns=list(frames.columns.items()),
        sort_value=sort_value,
    )


def sort_value(cell: str) -> str:
    """The number that a cell of a table stands for, to sort by; "" where it is no number.

    12.3 ms is 0.0123; 745 M; 16,384; 85 %; 74 of 100 is 74; 0.98 +- 0.01 and 0.98 [0.97, 0.99] are 0.98; never is infinite.
    """
    if cell in WORDS:
        return str(WORDS[cell])
    found = NUMBER.fullmatch(cell)
    if not found:
        return ""
    unit = (found[2] or "").removesuffix("s").removesuffix("J")
    return repr(float(found[1].replace(",", "")) * UNITS[unit])
