"""Plots of a training."""

import math
from typing import TYPE_CHECKING

import pandas as pd

from reports.escape import plain
from reports.figures import COLOURS, INK, ONE, WIDTH, Drawing, finished, legend_below, sheet
from reports.frames import Frames
from reports.studies.training.classes import confusion_matrices
from reports.studies.training.columns import LEARNING, source_name
from reports.studies.training.energy import energy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS_SHOWN = 50
AGAINST = {"update": "updates", "evaluations": "evaluations of E", "chip_time_s": "chip time, s"}


def learning_curves(frames: Frames) -> "Figure | None":
    """Error and, where there are classes, accuracy against updates or evaluations, and the
    criterion against chip time.
    """
    if "learning" not in frames.tables:
        return None
    table = frames.learning
    sources = _learners(frames)
    options = frames.experiment["training"]
    others = len([source for source in sources if source != "exact"]) > 1
    column = next(
        (name for name in ("test_accuracy", "accuracy") if table[name].notna().any()), None
    )
    shown = ["error", *([column] if column else [])]
    if options["criterion"] not in shown:
        shown.append(options["criterion"])
    # settings of their own number of evaluations to an update are compared by evaluations
    panels = [("evaluations" if others else "update", what) for what in shown]
    if (table["chip_time_s"] > 0).any():
        panels.append(("chip_time_s", options["criterion"]))
    figure = sheet(3.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    chips = table[(table["source"] != "exact") | (len(sources) == 1)]
    for axis, (against, what) in zip(axes, panels, strict=True):
        of_errors = LEARNING[what].less_is_better
        for source, colour in sources.items():
            # the start has no place on a logarithmic axis
            own = table[(table["source"] == source) & (table[against] > 0)]
            if own.empty:
                continue
            for _, run in list(own.groupby("run"))[:RUNS_SHOWN]:
                axis.plot(run[against], run[what], "-", color=colour, linewidth=0.5, alpha=0.35)
            style = "--" if source == "exact" else "-"
            # errors of runs differ by orders of magnitude; accuracies are shares, whose mean means
            # something
            middle = over_runs(own, against, what, mean=not of_errors)
            axis.plot(
                middle.index,
                middle,
                style,
                color=colour,
                linewidth=2,
                label=plain(source_name(frames, source)),
            )
            if what == "error" and own["predicted_error"].notna().any():
                expected = over_runs(own, against, "predicted_error", mean=True)
                name = plain(f"{source_name(frames, source)}, predicted")
                axis.plot(expected.index, expected, ":", color=INK, linewidth=2, label=name)
        if options["criterion"] == what:
            axis.axhline(options["goal"], color=INK, linewidth=0.8, linestyle=":")
        axis.set(xlabel=AGAINST[against], ylabel=plain(what.replace("_", " ")), xscale="log")
        if of_errors:
            axis.set_yscale("log")
            least = chips.loc[chips[what] > 0, what].min()
            if axis.get_ylim()[0] < least / 10:  # an exact gradient may go down to rounding
                axis.set_ylim(bottom=least / 10)
    drawn = {
        label: line
        for axis in axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if others and "exact" in sources:  # it takes no evaluations: its end, as a level
        for axis, (_, what) in zip(axes, panels, strict=True):
            own = table[table["source"] == "exact"]
            level, (low, high) = (
                own[own["update"] == own["update"].max()][what].median(),
                axis.get_ylim(),
            )
            drawn["exact gradient, in the end"] = axis.axhline(
                level, color=INK, linestyle="--", linewidth=1.2
            )
            axis.set_ylim(low, max(high, level))  # not down to rounding
    legend_below(figure, drawn.values(), drawn.keys(), ncols=4)
    return finished(figure)


def over_runs(own: pd.DataFrame, against: str, what: str, mean: bool = False) -> pd.Series:
    """Median (or mean) over all runs of a source at every record, by what those that go on have
    spent: a run that has ended early counts on with what it ended with.
    """
    values = own[what]
    if LEARNING[what].less_is_better:
        values = values.fillna(math.inf)  # a run that has diverged is none of the good ones
    else:
        values = values.groupby(own["run"]).ffill()
    by_record = values.groupby(own["update"])
    middle = by_record.mean() if mean else by_record.median()
    return pd.Series(middle.to_numpy(), own.groupby("update")[against].max().to_numpy())


def _learners(frames: Frames) -> dict[str, str]:
    """The sources of a training, and their colours."""
    sources = list(dict.fromkeys(frames.learning["source"]))
    rest = iter(
        COLOURS[i % len(COLOURS)] for i in (3, 0, 2, 1, 4, 5, 6, 7) * (1 + len(sources) // 8)
    )
    return {source: INK if source == "exact" else next(rest) for source in sources}


def alignment(frames: Frames) -> "Figure | None":
    """Cosine of what was learned between two records with minus the exact gradient; and the
    learning rate, if it is measured.
    """
    if "learning" not in frames.tables:
        return None
    sources = {source: colour for source, colour in _learners(frames).items() if source != "exact"}
    table = frames.learning[
        (frames.learning["update"] > 0) & frames.learning["source"].isin(list(sources))
    ]
    if table["alignment"].notna().sum() == 0:
        return None
    options = frames.experiment["training"]
    # a rate that is fixed is a straight line, and worth no panel
    measured = any(
        settings.get("rate", "fixed") != "fixed"
        for settings in (options, *options.get("compare_with", ()))
    )
    panels = ["alignment", "rate"] if measured else ["alignment"]
    figure = sheet(3.2, WIDTH if measured else ONE)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, what in zip(axes, panels, strict=True):
        for source, colour in sources.items():
            own = table[table["source"] == source]
            for _, run in list(own.groupby("run"))[:RUNS_SHOWN]:
                axis.plot(
                    run["evaluations"], run[what], "-", color=colour, linewidth=0.5, alpha=0.35
                )
            middle = over_runs(own, "evaluations", what)
            axis.plot(
                middle.index,
                middle,
                "-",
                color=colour,
                linewidth=2,
                label=plain(source_name(frames, source)),
            )
        ylabel = "cosine with -gradient" if what == "alignment" else "learning rate"
        axis.set(xscale="log", xlabel=AGAINST["evaluations"], ylabel=ylabel)
        if what == "alignment":
            axis.axhline(0.0, color=INK, linewidth=0.8, linestyle=":")
    if len(sources) > 1:
        legend_below(figure, *axes[0].get_legend_handles_labels(), ncols=4)
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "learning": (
        learning_curves,
        (
            "Learning curves: thin lines single runs, thick ones their median, of accuracies their"
            " mean; dashed the exact gradient from the same starts, and where several settings are"
            " compared the level at which it ends. Dotted: the goal and, where E is quadratic, what"
            " theory predicts of the mean. E is exact, computed outside the loop."
        ),
    ),
    "energy": (
        energy,
        (
            "What the energy goes into: until the goal was first seen reached, of the median run of"
            " those that got there, and until the end, mean of all runs."
        ),
    ),
    "confusion": (
        confusion_matrices,
        (
            "Confusion matrices at the end, all runs together: a row per class of a pattern, a"
            " column for what it is taken for, the deeper the larger the share of its row; right"
            " ones on the diagonal. Patterns learned from, those for validation and those held back"
            " have one each."
        ),
    ),
    "alignment": (
        alignment,
        (
            "How well what was learned between two records points down the exact gradient, computed"
            " outside the loop."
        ),
    ),
}
