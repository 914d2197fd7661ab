"""How patterns were classified at the end of a training: patterns, recall and precision of each
class, and confusion matrices.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import Column, Table, named
from reports.escape import plain
from reports.figures import COLOURS, INK, finished, sheet
from reports.formats import count, fixed
from reports.frames import Frames
from reports.studies.training.columns import source_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 20  # of which a confusion matrix is shown
MOST_COUNTS = 10  # of which a picture says the counts
MOST_SOURCES = 6  # of which there are pictures
SHARE = partial(fixed, spec=".3f")


def classified(frames: Frames) -> list[Table]:
    """Patterns of each class, and for every source how well it tells each, and what those held
    back (or learned) are taken for, over all runs.
    """
    table = frames.confusion
    names = list(dict.fromkeys(table["truth"]))
    # every source and run has the same patterns: those of one are counted
    first = table[
        (table["source"] == table["source"].iloc[0]) & (table["run"] == table["run"].iloc[0])
    ]
    counts = first.pivot_table(
        index="truth", columns="patterns", values="count", aggfunc="sum", sort=False
    )
    # a class without patterns has a row, too: its pair with itself is always stored
    absent = [
        f"no pattern of {name} {part}"
        for part in counts.columns
        for name in names
        if not counts.loc[name, part]
    ]
    columns = {"truth": named("class"), **{part: named(part, count) for part in counts}}
    each = counts.loc[names].reset_index()
    shown = [Table("Patterns of each class", "; ".join(absent[:5]), each, columns)]
    for source in dict.fromkeys(table["source"]):
        shown.append(_each_class(frames, source, names))
        if len(names) <= MOST_CLASSES:
            shown.append(_matrix(frames, source, names, counts.columns[-1]))
    return shown


def _each_class(frames: Frames, source: str, names: list[str]) -> Table:
    """Recall and precision of each class, part by part."""
    own = frames.classes[frames.classes["source"] == source]
    rows = pd.DataFrame({"class": names})
    columns: dict[str, Column] = {"class": named("class")}
    for part in dict.fromkeys(own["patterns"]):
        sums = own[own["patterns"] == part].groupby("class")[["count", "taken", "right"]].sum()
        sums = sums.loc[names]
        # 0/0 is NaN: no pattern is of a class, or is taken for it
        for name, among in (("recall", "count"), ("precision", "taken")):
            rows[f"{name} {part}"] = (sums["right"] / sums[among]).to_numpy(float)
            columns[f"{name} {part}"] = named(f"{name}, {part}", SHARE)
    note = (
        "recall: share of the patterns of a class that are taken for it; precision: share of those"
        " taken for it that are of it; all runs together"
    )
    return Table(f"Each class, {source_name(frames, source)}", note, rows, columns)


def _square(frames: Frames, source: str, part: str, names: list[str]) -> pd.DataFrame:
    """How many patterns of each class (row) are taken for each (column), over all runs."""
    table = frames.confusion
    own = table[(table["source"] == source) & (table["patterns"] == part)]
    square = own.pivot_table(
        index="truth",
        columns="classified",
        values="count",
        aggfunc="sum",
        fill_value=0,
        sort=False,
    )
    # a class that nothing is taken for still has its column
    return square.reindex(index=names, columns=names, fill_value=0)


def _matrix(frames: Frames, source: str, names: list[str], part: str) -> Table:
    square = _square(frames, source, part, names)
    total = square.sum(axis=1)
    right = np.diag(square) / total.where(total > 0)
    square.columns = [f"as {i}" for i in range(len(names))]  # whatever the classes are called
    rows = square.assign(right=right).reset_index()
    note = (
        f"row: class of a pattern {part}; column: what it is taken for at the end; all runs"
        " together"
    )
    columns = {
        "truth": named("class"),
        **{f"as {i}": named(name, count) for i, name in enumerate(names)},
        "right": named("share right", SHARE),
    }
    # of the last part: patterns held back, where there are some
    title = f"Confusion matrix, {source_name(frames, source)}: patterns {part}"
    return Table(title, note, rows, columns)


def confusion_matrices(frames: Frames) -> "Figure | None":
    """A confusion matrix of every source (row) and part of the patterns (column)."""
    table = frames.tables.get("confusion")
    if table is None or not len(table):
        return None
    names = list(dict.fromkeys(table["truth"]))
    if len(names) > MOST_CLASSES:
        return None
    sources = list(dict.fromkeys(table["source"]))[:MOST_SOURCES]
    parts = list(dict.fromkeys(table["patterns"]))
    figure = sheet(3.6 * len(sources), 4.2 * len(parts))
    axes = figure.subplots(len(sources), len(parts), squeeze=False)
    places = np.arange(len(names))
    counted = len(names) <= MOST_COUNTS
    for row, source in zip(axes, sources, strict=True):
        for axis, part in zip(row, parts, strict=True):
            square = _square(frames, source, part, names).to_numpy(float)
            total = square.sum(1, keepdims=True)
            share = np.divide(square, total, out=np.zeros_like(square), where=total > 0)
            for i, j in np.argwhere(square):
                # a cell without patterns stays empty, one with few is seen all the same
                colour = COLOURS[2] if i == j else COLOURS[0]
                axis.fill_between(
                    (j - 0.5, j + 0.5),
                    i - 0.5,
                    i + 0.5,
                    color=colour,
                    # under a count no deeper: words keep their contrast on white and in the dark
                    alpha=0.1 + (0.25 if counted else 0.8) * share[i, j],
                    linewidth=0,
                )
                if counted:
                    at = dict(ha="center", va="center", fontsize=9, color=INK)
                    axis.text(j, i, f"{square[i, j]:.0f}", **at)
            axis.set(
                xticks=places,
                yticks=places,
                xlim=(-0.5, len(names) - 0.5),
                # rows from above, as in the table
                ylim=(len(names) - 0.5, -0.5),
                aspect="equal",
                xlabel="taken for",
                ylabel="class",
            )
            called = [plain(name) for name in names]
            axis.set_xticklabels(called, rotation=90 if max(map(len, called)) > 3 else 0)
            axis.set_yticklabels(called)
            axis.set_title(plain(f"{source_name(frames, source)}: {part}"), fontsize=9)
    return finished(figure)
