"""Tables by pandas' Styler: as elements of a page or of a notebook; LaTeX begins here, too."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup
from markupsafe import escape as escape_html

from reports import escape
from reports.columns import Table
from reports.formats import written

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

ROWS_SHOWN = 100  # of a table, on the terminal and in a notebook


def styled(table: Table, shown: Callable[[str], str]) -> "Styler":
    """A table for `to_html` and `to_latex`, with all its texts as `shown` makes them."""
    frame = table.frame[list(table.columns)].reset_index(drop=True)
    headings = dict(zip(table.columns, table.headings, strict=True))

    def cell(value: object, column: str) -> str:
        return shown(written(value, table.columns[column].format))

    return (
        frame.style.format({name: partial(cell, column=name) for name in table.columns})
        .format_index(lambda name: shown(headings[str(name)]), axis=1)
        .hide(axis="index")
    )


def html_table(table: Table) -> Markup:
    """A table as an element of a page."""

    def shown(text: str) -> str:
        return str(escape_html(escape.line(text))).replace(" +- ", " \N{PLUS-MINUS SIGN} ")

    # Markup: every text in it has been escaped
    return Markup(styled(table, shown).to_html(exclude_styles=True))


def html_tables(tables: list[Table]) -> str:
    """Tables with their titles and notes, for a notebook; of long ones the first rows."""
    found = ""
    for table in tables:
        found += f"<p><b>{escape_html(table.title)}</b></p>"
        # str: Markup would escape what it is added to
        found += str(html_table(table._replace(frame=table.frame.head(ROWS_SHOWN))))
        if (more := len(table.frame) - ROWS_SHOWN) > 0:
            found += f"<p>and {more:,} more rows</p>"
        found += html_lines([table.note] if table.note else [])
    return found


def html_lines(texts: list[str]) -> str:
    """Sentences, a paragraph each."""
    return "".join(f"<p>{escape_html(escape.line(text))}</p>" for text in texts)
