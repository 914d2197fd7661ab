"""What the energy of a training goes into: of the median run to the goal, and to the end."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import Column, Table, named
from reports.escape import plain
from reports.figures import INK, ONE, WIDTH, finished, legend_below, sheet
from reports.formats import Share, joules
from reports.frames import Frames
from reports.studies.energy import CAUSES, stacked
from reports.studies.training.columns import goal, source_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TO_GOAL, IN_ALL = "energy_to_goal_j", "energy_j"


def by_cause(frames: Frames, column: str) -> pd.DataFrame:
    """J by cause (row) of every source (column) that has any: of the mean run in all, of the median
    one to the goal.

    The median is that of the runs that ever got there: one run, or the mean of the two in the
    middle, whose causes are taken; so these sum to the median of the energies.
    """
    found = {}
    for source, own in frames.energy.groupby("source", sort=False):
        each = own.pivot(index="run", columns="cause", values=column)[list(own["cause"].unique())]
        if column == TO_GOAL:
            totals = each.sum(axis=1)
            order = totals[np.isfinite(totals)].sort_values(kind="stable").index
            each = each.loc[order[[(len(order) - 1) // 2, len(order) // 2]] if len(order) else []]
        if each.to_numpy().any():
            found[source] = each.mean()
    return pd.DataFrame(found)


def energies(frames: Frames) -> list[Table]:
    """A row per cause, and of every source what it spent on it; nothing where energy is free."""
    if not len(frames.tables.get("energy", ())):
        return []
    sources = frames.energy["source"].unique()
    shown: dict[str, list[Share]] = {}
    columns: dict[str, Column] = {"cause": named("cause")}
    both = {"to goal": by_cause(frames, TO_GOAL), "in all": by_cause(frames, IN_ALL)}
    known = pd.concat(both.values(), axis=1)
    causes = [cause for cause in CAUSES if cause in known.index and known.loc[cause].any()]
    for source in sources:
        for what, found in both.items():
            if source in found:
                own = found[source]
                name = f"{what}, {source_name(frames, source)}" if len(sources) > 1 else what
                shown[name] = [Share(own[cause], own.sum()) for cause in causes]
                shown[name].append(Share(own.sum(), own.sum()))
                columns[name] = named(name, joules, "J")
    if not shown:
        return []
    rows = pd.DataFrame({"cause": [*(CAUSES[cause].name for cause in causes), "together"]})
    # objects: pandas would take tuples apart
    rows = rows.assign(**{name: pd.Series(cells, dtype=object) for name, cells in shown.items()})
    note = "in all: mean of runs"
    if len(both["to goal"].columns):
        note = f"to goal: {goal(frames)}, median run of those that got there; {note}"
    return [Table("What the energy goes into", note, rows, columns)]


def largest(frames: Frames) -> list[str]:
    """What most of the chip's energy goes into, in a sentence."""
    if not len(frames.tables.get("energy", ())):
        return []
    source = frames.energy["source"].iloc[0]
    for until, column in (("to the goal", TO_GOAL), ("in all", IN_ALL)):
        found = by_cause(frames, column)
        if source in found:
            own = found[source]
            share = own.max() / own.sum()
            what = CAUSES[str(own.idxmax())].spoken
            return [f"{share:.0%} of the chip's energy {until}, {joules(own.sum())}, is {what}."]
    return []


def energy(frames: Frames) -> "Figure | None":
    """Joules by cause, a bar per source: to the goal where any got there, and in all."""
    if not len(frames.tables.get("energy", ())):
        return None
    sources = list(frames.energy["source"].unique())
    panels = [
        (f"to {goal(frames)}, median run", by_cause(frames, TO_GOAL)),
        ("in all, mean of runs", by_cause(frames, IN_ALL)),
    ]
    panels = [(title, found) for title, found in panels if len(found.columns)]
    if not panels:
        return None
    figure = sheet(1.6 + 0.42 * len(sources), ONE if len(panels) == 1 else WIDTH)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, found) in zip(axes, panels, strict=True):
        _bars(axis, frames, sources, found)
        axis.set_title(plain(title), fontsize=9)
    # sharing, they have been turned once each
    axes[0].set_ylim(len(sources) - 0.5, -0.5)
    drawn = {
        label: bars
        for axis in axes
        for bars, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    legend_below(figure, drawn.values(), drawn.keys(), ncols=4)
    return finished(figure)


def _bars(axis: "Axes", frames: Frames, sources: list[str], found: pd.DataFrame) -> None:
    every = found.reindex(columns=sources, fill_value=0.0)
    names = [source_name(frames, source) for source in sources]
    causes = {cause: every.loc[cause].to_numpy() for cause in CAUSES if cause in every.index}
    stacked(axis, names, causes)
    axis.set_xlabel("energy")
    for place, source in enumerate(sources):
        if source not in found:
            axis.text(0, place, " never", color=INK, va="center", fontsize=8)
