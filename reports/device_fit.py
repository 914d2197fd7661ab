"""A device that was fitted to pulse responses: its figure, its printed tables, its files."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from rich.console import Console

from reports.columns import Table, named
from reports.escape import plain
from reports.exporters import Content, write_all
from reports.figures import COLOURS, INK, finished, legend_below, png, sheet, svg
from reports.formats import fixed
from reports.table import print_tables, say_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELLS_SHOWN = 6
MODELS = {
    "model": named("model"),
    "noise": named("noise of pulses"),
    "slopes": named("slopes"),
    "bic": named("BIC above the least"),
    "verdict": named("verdict"),
}
PARAMETERS = {
    "key": named("parameter"),
    "value": named("value", partial(fixed, spec=".4g")),
    "stderr": named("standard error"),
    "meaning": named("meaning"),
}


class Scale(NamedTuple):
    """What axes show: zero + per_range times what is given in range units."""

    what: str = "weight, range units"
    unit: str = "range units"
    zero: float = 0.0
    per_range: float = 1.0

    @classmethod
    def of(cls, unit: str, zero: float, per_range: float) -> "Scale":
        """That of the table that was fitted, whose unit may be "range"."""
        if unit == "range":
            return cls()
        return cls(f"conductance, {unit}", unit, zero, per_range)

    def shown(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table in these units."""
        places = ("measured", "fitted", "weight")
        changes = ("residual", "expected", "step", "stderr")
        found = {name: self.zero + self.per_range * table[name] for name in places if name in table}
        found |= {name: self.per_range * table[name] for name in changes if name in table}
        return table.assign(**found)


def device_fit(
    readings: pd.DataFrame,
    response: pd.DataFrame,
    steps: pd.DataFrame,
    title: str,
    scale: Scale | None = None,
) -> "Figure":
    """Measured pulse responses against their fit; mean step against weight; residual with one
    expected standard deviation.

    Tables of a fitted device: readings (device, sequence, pulse, measured, fitted, residual,
    expected), response (direction, weight, step, stderr), steps (direction, weight, step), weights
    in range units; scale: in which units they are shown.
    """
    scale = scale or Scale()
    readings, response, steps = map(scale.shown, (readings, response, steps))
    figure = sheet(6.2)
    axes = figure.subplot_mosaic([["data", "step"], ["residual", "step"]])
    data = axes["data"]
    residual = axes["residual"]
    step = axes["step"]
    cells = list(dict.fromkeys(readings["device"]))
    # measured as points, fitted as a line, and what is left of them below
    for cell, colour in zip(cells[:CELLS_SHOWN], COLOURS, strict=False):
        # each sequence begins anew: one line through all would jump back
        for _, own in readings[readings["device"] == cell].groupby("sequence"):
            data.plot(
                own["pulse"],
                own["measured"],
                ".",
                color=colour,
                markersize=2.5,
                alpha=0.5,
                # thousands of points as outlines would make a large file
                rasterized=len(own) > 500,
            )
            data.plot(own["pulse"], own["fitted"], "-", color=colour, linewidth=1.4)
            residual.plot(
                own["pulse"],
                own["residual"],
                ".",
                color=colour,
                markersize=2.5,
                alpha=0.5,
                rasterized=len(own) > 500,
            )
    # what is expected is shown for one sequence: lines of all would hide the points
    first = readings[
        (readings["device"] == cells[0]) & (readings["sequence"] == readings["sequence"].iloc[0])
    ]
    for sign in (-1, 1):
        residual.plot(first["pulse"], sign * first["expected"], "-", color=INK, linewidth=1)
    for direction, colour, word in ((1, COLOURS[3], "up"), (-1, COLOURS[0], "down")):
        own = response[response["direction"] == direction]
        points = steps[steps["direction"] == direction]
        if len(own):
            step.plot(points["weight"], points["step"], ".", color=colour, markersize=4, alpha=0.4)
            step.plot(
                own["weight"],
                own["step"],
                "-",
                color=colour,
                linewidth=1.6,
                label=f"mean step {word}",
            )
            step.fill_between(
                own["weight"],
                own["step"] - 2 * own["stderr"],
                own["step"] + 2 * own["stderr"],
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
    step.axhline(0.0, color=INK, linewidth=0.8, linestyle=":")
    data.set(xlabel="pulses", ylabel=scale.what)
    residual.set(xlabel="pulses", ylabel=f"reading less prediction, {scale.unit}")
    step.set(xlabel=scale.what, ylabel=f"change by one pulse, {scale.unit}")
    shown = f", {CELLS_SHOWN} of {len(cells)} cells" if len(cells) > CELLS_SHOWN else ""
    data.set_title(f"points measured, lines fitted{shown}", fontsize=9)
    residual.set_title("lines: one standard deviation expected", fontsize=9)
    step.set_title(plain(title), fontsize=9)
    legend_below(figure, *step.get_legend_handles_labels(), ncols=2)
    return finished(figure)


def print_device_fit(
    description: str, models: pd.DataFrame, parameters: pd.DataFrame, console: Console
) -> None:
    """Print what a fit to pulse responses found: the models tried, best first, and the
    parameters of the one chosen.
    """
    say_line(console, description)
    # only differences of BIC mean anything
    tried = models.assign(bic=models["bic"] - models["bic"].min())
    shown = [
        Table("Models", "", tried, MODELS),
        Table("Parameters", "", parameters, PARAMETERS, explained="meaning"),
    ]
    print_tables(shown, console)


def export_device_fit(
    text: str,
    tables: dict[str, pd.DataFrame],
    title: str,
    out: str | Path,
    scale: Scale | None = None,
) -> list[Path]:
    """Write a fitted device: its file to `out`, and beside it the plot of `device_fit` as PNG and
    SVG.

    tables: readings, response and steps; scale: the units of the plot. Returns the paths; a place
    that cannot be written raises InputError.
    """
    out = Path(out)
    figure = device_fit(tables["readings"], tables["response"], tables["steps"], title, scale)
    plots: dict[Path, Content] = {
        out.with_suffix(".png"): png(figure),
        out.with_suffix(".svg"): svg(figure, "device").encode(),
    }
    # the device first: it is there even if a plot cannot be written
    contents: dict[Path, Content] = {out: text.encode(), **plots}
    write_all(out.parent, {path.name: content for path, content in contents.items()})
    return list(contents)
