"""Figures of what the tables of a sweep's runs show, of some of its points."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from reports.escape import plain
from reports.figures import COLOURS, ONE, Drawn, finished, legend_below, ordered, sheet
from reports.frames import Frames
from reports.studies import compare_figures
from reports.studies.energy import stacked
from reports.studies.sweep.loading import has_table, run_table
from reports.studies.sweep.series import (
    LINES_SHOWN,
    inner_view,
    own_estimates,
    shown,
)
from reports.studies.training.figures import over_runs

PANELS_SHOWN = 4


def _runs(frames: Frames, most: int, table: str) -> list[tuple[list[str], Frames]]:
    """(what was varied, frames with summary and this table) of at most so many first repeats,
    spread over the first key, the other keys being as they are at the first point; over all points
    of a design or a zip.
    """
    keys = list(frames.provenance["varied"])
    cells = frames.cells[
        (frames.cells["status"] == "done")
        & (frames.cells["repeat"] == frames.cells["repeat"].min())
    ]
    cells = cells[[has_table(frames, cell, table) for cell in cells["cell"]]]
    if len(cells) and len(keys) > 1:
        # of a grid one line along the first key
        held = cells[(cells[keys[1:]] == cells[keys[1:]].iloc[0]).all(axis=1)]
        cells = held if len(held) > 1 else cells
    # evenly, with both ends
    cells = cells.iloc[
        np.unique(np.linspace(0, len(cells) - 1, min(len(cells), most)).round().astype(int))
    ]
    numbers = [int(cell) for cell in cells["cell"]]
    runs = []
    # all cells that are wanted in one reading
    found = run_table(frames, table, numbers)
    for number, (_, cell) in zip(numbers, cells.iterrows(), strict=True):
        own = {"summary": frames.summary, table: found}
        own = {name: every[every["cell"] == number] for name, every in own.items()}
        place = [f"{key.rpartition('.')[2]} = {shown(cell[key])}" for key in keys]
        runs.append(
            (
                place,
                Frames(
                    frames.directory,
                    own,
                    frames.experiment,
                    # of a cell that is done, whatever the sweep is
                    {"status": "complete"},
                    inner_view(frames),
                ),
            )
        )
    return runs


def scatter(frames: Frames) -> Drawn | None:
    """Estimated against exact z (or gradient), for some points of the sweep."""
    # the table of a training holds weights, and no estimates
    if "method" not in inner_view(frames).columns.get("weights", {}):
        return None
    quantity = "hv" if own_estimates(frames, "hv") else "gradient"
    runs = [
        (place, run)
        for place, run in _runs(frames, PANELS_SHOWN, "weights")
        if run.primary in run.methods(quantity)
    ]
    if not runs:
        return None
    figure = sheet(3.4)
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    axes[0].set_ylabel(f"estimated {compare_figures.QUANTITIES[quantity][-1]}$_i$")
    for axis, (place, run) in zip(axes, runs, strict=True):
        compare_figures.estimated_against_exact(axis, run, quantity, run.primary, COLOURS[3])
        axis.set_title("\n".join(map(plain, place)), fontsize=8)
    name = "z = Hv" if quantity == "hv" else "Gradient"
    caption = (
        f"{name}, estimated against exact, by the experiment's own method, at some points of the"
        " sweep (first repeat): "
    )
    return (
        finished(figure),
        caption + "one point with its standard error per weight. Every panel has its own scale.",
    )


def energy(frames: Frames) -> Drawn | None:
    """What the energy of the experiment's own method, or of a chip that learns, goes into, for some
    points of the sweep.
    """
    runs = _runs(frames, 3 * PANELS_SHOWN, "energy")
    causes: dict[str, np.ndarray] = {}
    for i, (_, run) in enumerate(runs):
        for cause, joules in _own_energy(run).items():
            causes.setdefault(str(cause), np.zeros(len(runs)))[i] = joules
    if not any(joules.any() for joules in causes.values()):
        return None
    figure = sheet(1.4 + 0.36 * len(runs), ONE)
    axis = figure.subplots()
    stacked(axis, ["; ".join(place) for place, _ in runs], causes)
    axis.set_xlabel("energy of the run")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=4)
    whose = "the chip, mean of its runs, goes into until the end of learning"
    if "method" in runs[0][1].energy:
        whose = "the experiment's own method goes into"
    return finished(figure), f"What the energy of {whose}, at some points of the sweep."


def _own_energy(run: Frames) -> pd.Series:
    """J by cause of the experiment's own method; of learning of the chip, mean of its runs."""
    table = run.energy
    if "method" in table:
        method, code = run.primary
        own = table[(table["method"] == method) & (table["code"] == code)]
        return own.set_index("cause")["energy_j"]
    # the chip is the first source; what it is compared with is left out
    own = table[table["source"] == table["source"].iloc[0]]
    return own.groupby("cause", sort=False)["energy_j"].mean()


def timeline(frames: Frames) -> Drawn | None:
    """The chip's first trials in the first cell."""
    runs = _runs(frames, 1, "timeline")
    figure = compare_figures.timeline(runs[0][1]) if runs else None
    at = f", at {'; '.join(runs[0][0])}" if runs and runs[0][0] else ""
    colours = (
        "Each colour is one evaluation of E; grey is everything that belongs to no evaluation."
    )
    return (
        (figure, f"The first two trials of the chip, the second paler{at}. {colours}")
        if figure
        else None
    )


def learning(frames: Frames) -> Drawn | None:
    """Median error of the chip's runs against what was spent, a line for each of some points of
    the sweep.
    """
    runs = _runs(frames, LINES_SHOWN, "learning")
    if not runs:
        return None
    figure = sheet(4.0)
    axes = figure.subplots(1, 2)
    shades = ordered(len(runs))
    for (place, run), shade in zip(runs, shades, strict=True):
        # the chip is the first source; what it is compared with is left out
        chips = run.learning[run.learning["source"] == run.learning["source"].iloc[0]]
        for axis, what in zip(axes, ("evaluations", "chip_time_s"), strict=True):
            middle = over_runs(chips, what, "error")
            axis.plot(middle.index, middle, "-", color=shade, label=plain("; ".join(place)))
    for axis, xlabel in zip(axes, ("evaluations of E", "chip time, s"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="error")
    legend_below(figure, *axes[0].get_legend_handles_labels(), ncols=4)
    return (
        finished(figure),
        (
            "Learning curves at some points of the sweep (first repeat): median of E over the runs"
            " of the chip."
        ),
    )


# figure: the table that it needs, how to draw it (None where there is nothing to see)
OF_RUNS: dict[str, tuple[str, Callable[[Frames], Drawn | None]]] = {
    "learning": ("learning", learning),
    "scatter": ("weights", scatter),
    "energy": ("energy", energy),
    "timeline": ("timeline", timeline),
}
