"""A run or a sweep as one self-contained HTML page."""

import json
from importlib.resources import files

from jinja2 import Environment
from markupsafe import Markup

from reports.figures import svg_elements
from reports.frames import Frames
from reports.styled import html_table
from reports.table import meanings, sort_values


def html(frames: Frames) -> str:
    """The page: it needs no network."""
    # texts of users are escaped; only what is Markup stands as it is
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (files("reports") / "page.html").read_text(encoding="utf-8")
    )
    # tables and figures are made once, and written where the template wants them
    view = frames.view
    tables = [(table, html_table(table), sort_values(table)) for table in view.tables(frames)]
    drawn = view.figures(frames)
    figures = []
    while drawn:  # each figure goes when it is written: those of large sweeps are large
        name = next(iter(drawn))
        figure, caption = drawn.pop(name)
        figures.append((name, Markup(svg_elements(figure, name)), caption))
    return page.render(
        frames=frames,
        tables=tables,
        verdicts=view.verdicts(frames),
        notes=view.notes(frames),
        warnings=view.warnings(frames),
        figures=figures,
        experiment=frames.text(),
        first=view.before_figures(frames),
        provenance=frames.provenance,
        versions=json.dumps(frames.provenance, indent=2),
        # from the schema of the view, so that no stored column goes unexplained
        meanings=[(table, html_table(table)) for table in meanings(frames)],
    )
