"""Results as text: on the terminal, in Markdown and for LaTeX."""

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports import escape
from reports.formats import Titled, number, with_interval
from reports.frames import Frames

if TYPE_CHECKING:
    from rich.console import Console


ROWS_PRINTED = 100  # of a table, on the terminal


WORDY = r"p{0.4\linewidth}"  # a column of sentences, for LaTeX


def print_run(frames: Frames, console: "Console") -> None:
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
        say(f"Mind: {text}")


def say_line(console: "Console", text: str, style: str = "") -> None:
    """A line on the terminal, which no text can give orders."""
    from rich.text import Text

    console.print(Text(escape.line(text)), style=style)


def print_tables(shown: list[Titled], console: "Console") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for title, says, (header, rows) in shown:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 0))
        for i, head in enumerate(header):
            if i != 1:
                table.add_column(
                    Text("\n".join(escape.line(head).rsplit(" ", 1))),
                    justify="right" if i else "left",
                    no_wrap=i > 0,
                )
        for row in rows[:ROWS_PRINTED]:
            first, second, *rest = map(escape.line, row)
            table.add_row(*map(Text, (f"{first}\n  {second}" if second else first, *rest)))
        console.print()
        say_line(console, title, style="bold")
        console.print()
        console.print(table)
        if len(rows) > ROWS_PRINTED:
            console.print(f"and {len(rows) - ROWS_PRINTED:,} more rows", style="italic")
        if says:
            say_line(console, says, style="italic")


def markdown(frames: Frames) -> str:
    """The comparison of a run as Markdown."""
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
    lines += [f"- Mind: {shown(text)}" for text in frames.view.warnings(frames)] + [""]
    for title, says, (header, rows) in map(filled, frames.view.tables(frames)):
        lines += [
            f"## {shown(title)}",
            "",
            *([f"{shown(says[0].upper() + says[1:])}.", ""] if says else []),
        ]
        lines += [
            f"| {' | '.join(map(shown, header))} |",
            "| --- |" + " ---: |" * (len(header) - 1),
        ]
        lines += [f"| {' | '.join(map(shown, row))} |" for row in rows] + [""]
    lines += [
        f"Reproduce: {escape.code(provenance['command'])} (seed {shown(provenance['seed'])})",
        "",
    ]
    lines += [f"Cite: {shown(frames.citation)}.", ""]
    return "\n".join(lines)


def filled(table: Titled) -> Titled:
    """Without a second column that is empty."""
    title, says, (header, rows) = table
    if any((header[1], *(row[1] for row in rows))):
        return table
    return title, says, ([header[0], *header[2:]], [[row[0], *row[2:]] for row in rows])


def latex(frames: Frames) -> str:
    """The tables of a run or a sweep for LaTeX, to be read in by \\input; they need the packages
    booktabs and longtable.
    """
    provenance = frames.provenance
    comments = (provenance["description"], provenance["command"], frames.citation)
    lines = [
        f"% {escape.line(text)}" for text in comments
    ]  # a comment goes to the end of the line, and no further
    lines += ["% needs \\usepackage{booktabs,longtable}; wide tables want a page in landscape"]
    for number_, (title, says, (header, rows)) in enumerate(
        map(filled, frames.view.tables(frames)), 1
    ):
        frame = pd.DataFrame(
            [list(map(escape.latex, row)) for row in rows], columns=list(map(_below, header))
        )
        widest = [max((len(row[i]) for row in rows), default=0) for i in range(len(header))]
        kinds = ["l", *"r" * (len(header) - 1)]
        text = frame.to_latex(
            index=False,
            escape=False,
            longtable=True,
            caption=escape.latex(f"{title}: {says}." if says else f"{title}."),
            label=f"tab:{re.sub('[^A-Za-z0-9.-]', '-', provenance['experiment'])}-{number_}",
            column_format="".join(
                WORDY if width > 40 else kind for kind, width in zip(kinds, widest, strict=True)
            ),
        )
        text = text.replace(" +- ", r" $\pm$ ").rstrip()
        lines += ["", r"{\footnotesize\setlength{\tabcolsep}{3pt}", text, "}"]
    return "\n".join(lines) + "\n"


def _below(name: str) -> str:
    """A header of several words, these below each other."""
    words = [escape.latex(word) for word in name.split()]
    return r"\shortstack[r]{" + r" \\ ".join(words) + "}" if len(words) > 1 else escape.latex(name)


def facts(frames: Frames) -> Titled:
    """The facts of a summary."""
    rows = [
        [frames.fact_name(row), row["meaning"], number(row["value"]), error_bar(row)]
        for row in frames.summary.to_dict("records")
    ]
    return (
        "In short",
        "a standard error stands where a value is estimated, in brackets a 95 % interval",
        (["what", "meaning", "value", "standard error"], rows),
    )


def error_bar(row: Mapping[Any, Any]) -> str:
    """The standard error of a fact, and its interval; nothing where it is exact."""
    stderr = number(row["stderr"]) if row["stderr"] else ""
    return (
        with_interval(stderr, number(row["low"]), number(row["high"])).strip()
        if row["low"] <= row["high"]
        else stderr
    )
