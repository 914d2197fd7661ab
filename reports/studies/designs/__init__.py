"""How several designs are shown: a table, and quality against chip time and energy to the goal with
the Pareto front.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reports.columns import Column, Table, named
from reports.differences import settings_table
from reports.escape import plain
from reports.figures import (
    COLOURS,
    INK,
    MARKERS,
    ONE,
    WIDTH,
    Drawing,
    drawn,
    finished,
    legend_below,
    sheet,
)
from reports.formats import Estimate, Format, Part, cosine, count, joules, percent, seconds
from reports.frames import Frames, View
from reports.statistics import is_logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOLD_APART = 16  # designs of a plot
LEGEND = 120  # characters beside each other
SPOKEN = 8  # names in a sentence
# what is spent until the goal: its heading, format and unit
SPENT: dict[str, tuple[str, Format, str]] = {
    "evaluations_to_goal": ("evaluations", count, ""),
    "chip_time_to_goal_s": ("chip time", seconds, "s"),
    "energy_to_goal_j": ("energy", joules, "J"),
}
ENDS = {"": "", "_low": "lower end of its 95 % interval", "_high": "its upper end"}
MEANINGS = {
    "quality": "how good it is, of which more is better: what stands in the description",
    "evaluations_to_goal": "measurements of E until the goal; inf: never",
    "chip_time_to_goal_s": "chip time until the goal, s; inf: never",
    "energy_to_goal_j": "energy until the goal, J; inf: never",
}
SUMMARY = {
    "design": Column("directory, and what tells the design from others of it"),
    "directory": Column("where it is stored"),
    "runs": Column("runs of the design, where they are counted", count),
    "there": Column("how many of them ever got to the goal", count),
    **{
        f"{name}{end}": Column(about or meaning)
        for name, meaning in MEANINGS.items()
        for end, about in ENDS.items()
    },
    "status": Column(
        "front: on the Pareto front of quality, chip time and energy to the goal; dominated:"
        " another is at least as good in all three, and better in one; never: does not reach the"
        " goal; not judged: one of the three is not known"
    ),
    "dominated_by": Column("a design on the front that dominates it"),
}

SETTINGS = {
    "key": Column("key of the experiments, or version, that differs; a column for each directory")
}


def tables(frames: Frames) -> list[Table]:
    """A row per design, those on the front first; and the keys that differ."""
    rank = {"front": 0, "dominated": 1, "never": 2, "not judged": 3}
    rows = frames.summary.sort_values(
        "status", key=lambda status: status.map(rank), kind="stable"
    ).reset_index(drop=True)
    unit = frames.provenance["unit"]
    columns = {
        "design": named("design"),
        "place": named("Pareto front"),
        "quality": named(
            frames.provenance["measure"], cosine if unit == "cosine" else percent, unit
        ),
    }
    cells: dict[str, Any] = {name: _estimates(rows, name) for name in ("quality", *SPENT)}
    cells["place"] = [
        {"front": "on it", "dominated": f"dominated by {by}", "never": "never at the goal"}.get(
            status, "not known"
        )
        for status, by in zip(rows["status"], rows["dominated_by"], strict=True)
    ]
    if rows["runs"].notna().any():
        columns["there"] = named("ever there")
        cells["there"] = _parts(rows)
    for name, (head, format, unit) in SPENT.items():
        columns[name] = named(f"{head} to goal", format, unit)
    note = (
        f"goal: {frames.provenance['goal']}; in brackets 95 % intervals, where they are known; the"
        " front is that of the values, whatever their intervals"
    )
    found = [Table("Designs", note, rows.assign(**cells), columns)]
    return found + ([settings_table(frames.settings)] if len(frames.settings) else [])


def _parts(rows: pd.DataFrame) -> pd.Series:
    """How many runs of each design ever got there, where they are counted."""
    cells = [
        "-" if np.isnan(of) else Part(int(there), int(of))
        for there, of in zip(rows["there"], rows["runs"], strict=True)
    ]
    return pd.Series(cells, rows.index, object)


def _estimates(rows: pd.DataFrame, name: str) -> pd.Series:
    """Objects, which pandas would take apart."""
    each = zip(rows[name], rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
    cells = [Estimate(value, low=low, high=high) for value, low, high in each]
    return pd.Series(cells, rows.index, object)


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """What is on the front, and what never gets there."""
    rows = frames.summary
    said = []
    for status, head in (
        ("front", "On the Pareto front:"),
        ("dominated", "Dominated:"),
        ("never", "Never at the goal:"),
        ("not judged", "Not judged, as something is not known:"),
    ):
        if len(own := rows.loc[rows["status"] == status, "design"]):
            said.append((head, _listed(list(own))))
    if not (rows["status"] == "front").any():
        why = "no design that is known gets to the goal, so that there is no front and no picture"
        said.append(("Nothing to choose from:", why))
    return said


def _listed(names: list[str]) -> str:
    more = len(names) - SPOKEN
    # names have commas
    return "; ".join(names[:SPOKEN]) + (f"; and {more} more" if more > 0 else "")


def designs(frames: Frames) -> "Figure | None":
    """Quality against chip time and against energy to the goal, a point per design."""
    rows = frames.summary[frames.summary["status"].isin(["front", "dominated"])]
    if rows.empty:
        return None
    # an energy that is free has no axis
    axes_of = [name for name in list(SPENT)[1:] if (rows[name] > 0).any()]
    # all are at the goal where they start
    if not axes_of:
        return None
    figure = sheet(4.2, ONE if len(axes_of) == 1 else WIDTH)
    for axis, name in zip(figure.subplots(1, len(axes_of), squeeze=False)[0], axes_of, strict=True):
        _panel(axis, frames, rows, name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    # as many beside each other as there is room for
    columns = max(1, min(4, LEGEND // (max(map(len, labels)) + 6)))
    legend_below(figure, handles, labels, ncols=columns)
    return finished(figure)


def _panel(axis: "Axes", frames: Frames, rows: pd.DataFrame, name: str) -> None:
    from matplotlib.ticker import EngFormatter, NullFormatter, PercentFormatter

    head, _, unit = SPENT[name]
    if is_logarithmic(rows[name].to_numpy(float)):
        axis.set_xscale("log")
    _staircase(axis, rows, name)
    # more than can be told apart have the colour of their directory
    by = "design" if len(rows) <= TOLD_APART else "directory"
    for i, (called, own) in enumerate(rows.groupby(by, sort=False)):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
        x, y = own[name].to_numpy(float), own["quality"].to_numpy(float)
        bars = [_reach(own, column) for column in ("quality", name)]
        looks: dict[str, Any] = {"ecolor": colour, "elinewidth": 0.8, "alpha": 0.5}
        axis.errorbar(x, y, yerr=bars[0], xerr=bars[1], fmt="none", **looks)
        label: str | None = plain(str(called))
        for status, fill in (("front", colour), ("dominated", "none")):
            on = (own["status"] == status).to_numpy()
            if on.any():
                looks = {"color": colour, "markersize": 8, "markerfacecolor": fill}
                axis.plot(x[on], y[on], marker, label=label, **looks)
                label = None
    axis.set(xlabel=f"{head} to the goal", ylabel=plain(frames.provenance["measure"]))
    axis.xaxis.set_major_formatter(EngFormatter(unit))
    if axis.get_xscale() == "log":
        axis.xaxis.set_minor_formatter(NullFormatter())
    if frames.provenance["unit"] == "share":
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def _reach(rows: pd.DataFrame, name: str) -> np.ndarray:
    """From values to the ends of their intervals; none where these are not known."""
    value = rows[name]
    ends = np.array([value - rows[f"{name}_low"], rows[f"{name}_high"] - value], float)
    return np.where(np.isfinite(ends), np.maximum(ends, 0.0), 0.0)


def _staircase(axis: "Axes", rows: pd.DataFrame, name: str) -> None:
    """How good a design is to be had for how much, of the two axes of the panel alone."""
    by = rows.sort_values([name, "quality"], ascending=[True, False])
    best = by["quality"].cummax()
    axis.step(by[name], best, where="post", color=INK, linewidth=1, linestyle=":")


def before_figures(frames: Frames) -> int:
    return 1


FIGURES: dict[str, Drawing] = {
    "designs": (
        designs,
        (
            "Quality against what is spent until the goal, with 95 % intervals where these are"
            " known. Filled: on the Pareto front of quality, chip time and energy together. Dotted:"
            " the best to be had for so much of one of them alone. Designs that never reach the"
            " goal are left out."
        ),
    )
}
VIEW = View(
    {"summary": SUMMARY, "settings": SETTINGS},
    tables,
    drawn(FIGURES),
    verdicts,
    answer_first=True,
    before_figures=before_figures,
    kind=("", "compare"),
)
