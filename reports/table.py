"""Results as text, and the one renderer of tables: on the terminal, as HTML, in Markdown and for
LaTeX.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as Printed
from rich.text import Text

from reports import escape
from reports.columns import Table, named, only
from reports.formats import ErrorBar, Quantity, sort_value, written
from reports.frames import Frames
from reports.styled import ROWS_SHOWN, styled

EXPLAINING = 72  # characters of a first column that has explanations below its cells
WORDY = r"p{0.4\linewidth}"  # a column of sentences, for LaTeX


def rows_of(table: Table) -> Iterator[list[str]]:
    """The rows of a table as texts."""
    formats = [column.format for column in table.columns.values()]
    for row in table.frame[list(table.columns)].itertuples(index=False, name=None):
        # here, and nowhere before, a number becomes a text
        yield [written(cell, format) for cell, format in zip(row, formats, strict=True)]


def sort_values(table: Table) -> str:
    """What a page sorts the rows by, as JSON: a list for each column, which is empty if its cells
    are texts; null where nothing is known.
    """
    found = []
    for name in table.columns:
        values = list(map(sort_value, table.frame[name]))
        # nine digits are enough to sort by
        known = [None if math.isnan(value) else f"{value:.9g}" for value in values]
        found.append(known if any(known) else [])
    return json.dumps(found, separators=(",", ":"))


def latex_table(table: Table, label: str) -> str:
    """A table for LaTeX, over as many pages as it takes."""
    # a column of sentences wraps, one of numbers does not
    widest = [max(map(len, cells)) for cells in zip(*rows_of(table), strict=True)]
    kinds = ["l", *"r" * (len(table.columns) - 1)]
    headings = dict(zip(table.columns, map(_below, table.headings), strict=True))
    text = (
        styled(table, escape.latex)
        .format_index(lambda name: headings[str(name)], axis=1)
        .to_latex(
            hrules=True,
            environment="longtable",
            caption=escape.latex(
                f"{table.title}: {table.note}." if table.note else f"{table.title}."
            ),
            label=label,
            column_format="".join(
                WORDY if width > 40 else kind for kind, width in zip(kinds, widest, strict=True)
            ),
        )
    )
    return text.replace(" +- ", r" $\pm$ ").rstrip()


def _below(heading: str) -> str:
    """A header of several words, these below each other."""
    words = [escape.latex(word) for word in heading.split()]
    return r"\shortstack[r]{" + r" \\ ".join(words) + "}" if len(words) > 1 else "".join(words)


def markdown_table(table: Table) -> list[str]:
    """The lines of a table in Markdown."""
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    rows = [table.headings, *rows_of(table)]
    lines = [f"| {' | '.join(map(escape.markdown, row))} |" for row in rows]
    return [lines[0], f"| {' | '.join(rule)} |", *lines[1:]]


def print_tables(shown: Sequence[Table], console: Console) -> None:
    """Print tables; of long ones the first rows, of wide ones some columns below the others."""
    for table in shown:
        heads = {
            name: "\n".join(escape.line(heading).rsplit(" ", 1))
            for name, heading in zip(table.columns, table.headings, strict=True)
        }
        rows = [
            dict(zip(heads, map(escape.line, row), strict=True))
            for row in islice(rows_of(table), ROWS_SHOWN)
        ]
        # what explains is put below the first column, where it has all the width
        heads.pop(table.explained, None)
        console.print()
        say_line(console, table.title, style="bold")
        for i, names in enumerate(_side_by_side(heads, rows, console.width)):
            printed = Printed(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
            for j, name in enumerate(names):
                printed.add_column(
                    Text(heads[name]),
                    justify="right" if j else "left",
                    no_wrap=j > 0,
                    overflow="fold",
                    # where there is no terminal to fit, lines that can still be read
                    max_width=EXPLAINING if table.explained and j == 0 else None,
                )
            for row in rows:
                first, *others = (row[name] for name in names)
                below = row.get(table.explained, "") if i == 0 else ""
                printed.add_row(*map(Text, (f"{first}\n  {below}" if below else first, *others)))
            console.print()
            console.print(printed)
        if (more := len(table.frame) - ROWS_SHOWN) > 0:
            console.print(f"and {more:,} more rows", style="italic")
        if table.note:
            say_line(console, table.note, style="italic")


def _side_by_side(
    heads: Mapping[str, str], rows: Sequence[Mapping[str, str]], room: int
) -> list[list[str]]:
    """The columns that there is room for side by side, each time behind the first, which may wrap
    between words; numbers are never cut.
    """
    first, *others = heads
    words = [
        word for text in (heads[first], *(row[first] for row in rows)) for word in text.split()
    ]
    # a word of half the room is folded
    least = min(max(map(len, words), default=0), room // 2)
    blocks = [[first]]
    used = least
    for name in others:
        lines = [*heads[name].split("\n"), *(row[name] for row in rows)]
        width = 1 + max(map(len, lines))
        if used + width > room and len(blocks[-1]) > 1:
            blocks.append([first])
            used = least
        blocks[-1].append(name)
        used += width
    return blocks


def print_run(frames: Frames, console: Console) -> None:
    """Print the results of a run or a sweep; those of a run fit 80 columns."""
    say = partial(say_line, console)
    say(f"{frames.provenance['description']} (seed {frames.provenance['seed']})")
    if frames.partial:
        say(f"PARTIAL: {frames.reason}; these are the results up to then.", style="bold red")
    sentences = [f"{method} {verdict}." for method, verdict in frames.view.verdicts(frames)]
    first = frames.view.answer_first
    for text in sentences if first else []:  # the answer, before a long table
        say(text)
    print_tables(frames.view.tables(frames), console)
    console.print()
    for text in [*([] if first else sentences), *frames.view.notes(frames)]:
        say(text)
    for text in frames.view.warnings(frames):
        say(f"Warning: {text}")


def say_line(console: Console, text: str, style: str = "") -> None:
    """A line on the terminal, which no text can give orders."""
    console.print(Text(escape.line(text)), style=style)


def markdown(frames: Frames) -> str:
    """The results of a run or a sweep as Markdown."""
    # every text that a user may have given is escaped where it is written
    shown = escape.markdown
    provenance = frames.provenance
    lines = [f"# {shown(provenance['experiment'])}", "", f"{shown(provenance['description'])}.", ""]
    if frames.partial:
        lines += [f"**Partial:** {shown(frames.reason)}; these are the results up to then.", ""]
    lines += [
        f"- {escape.code(escape.line(method))} {shown(verdict)}."
        for method, verdict in frames.view.verdicts(frames)
    ]
    lines += [f"- {shown(text)}" for text in frames.view.notes(frames)]
    lines += [f"- Warning: {shown(text)}" for text in frames.view.warnings(frames)] + [""]
    for table in frames.view.tables(frames):
        lines += [f"## {shown(table.title)}", ""]
        if note := table.note:
            lines += [f"{shown(note[0].upper() + note[1:])}.", ""]
        lines += [*markdown_table(table), ""]
    lines += [
        f"Reproduce: {escape.code(provenance['command'])} (seed {shown(provenance['seed'])})",
        "",
    ]
    lines += [f"Cite: {shown(frames.citation)}.", ""]
    return "\n".join(lines)


def latex(frames: Frames) -> str:
    """The tables of a run or a sweep for LaTeX, to be read in by \\input; they need the packages
    booktabs and longtable.
    """
    provenance = frames.provenance
    comments = (provenance["description"], provenance["command"], frames.citation)
    # a comment goes to the end of the line, and no further
    lines = [f"% {escape.line(text)}" for text in comments]
    if frames.partial:
        lines.append(f"% PARTIAL: {escape.line(frames.reason)}; these are the results up to then.")
    lines += ["% needs \\usepackage{booktabs,longtable}; wide tables want a page in landscape"]
    # in a label of LaTeX no sign may have a meaning
    name = re.sub("[^A-Za-z0-9.-]", "-", provenance["experiment"])
    for i, table in enumerate(frames.view.tables(frames), 1):
        text = latex_table(table, f"tab:{name}-{i}")
        lines += ["", r"{\footnotesize\setlength{\tabcolsep}{3pt}", text, "}"]
    return "\n".join(lines) + "\n"


def meanings(frames: Frames) -> list[Table]:
    """What the columns of every stored table mean, from their schema."""
    shown = {name: named(name) for name in ("column", "meaning")}
    return [
        Table(name, "", pd.DataFrame(list(texts.items()), columns=list(shown)), shown)
        for name, texts in frames.columns.items()
    ]


ERROR_BAR = named("standard error")


def facts(frames: Frames) -> Table:
    """The facts of a summary."""
    return facts_table(
        frames,
        frames.summary,
        "In short",
        "a standard error stands where a value is estimated, in brackets a 95 % interval",
    )


def facts_table(frames: Frames, rows: pd.DataFrame, title: str, note: str) -> Table:
    """A row per fact, with its standard error and its interval; nothing where it is exact."""
    facts = frames.view.columns["summary"]
    records = rows.to_dict("records")
    # Quantity and ErrorBar are objects: pandas would take tuples apart
    frame = rows.assign(
        what=[frames.fact_name(row) for row in records],
        amount=pd.Series(
            [Quantity(row["value"], row["unit"]) for row in records], rows.index, object
        ),
        error_bar=pd.Series(
            [ErrorBar(row["stderr"], row["low"], row["high"]) for row in records],
            rows.index,
            object,
        ),
    )
    columns = {
        "what": named("what"),
        **only(facts, ("meaning",)),
        "amount": facts["value"]._replace(heading="value"),
        "error_bar": ERROR_BAR,
    }
    # NaN, of no interval, compares as false
    if (rows["low"] <= rows["high"]).any():
        columns["error_bar"] = named("standard error [95 % interval]")
    return Table(title, note, frame, columns, explained="meaning", records=facts)
