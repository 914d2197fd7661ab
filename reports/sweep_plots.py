"""Figures of a stored sweep: measures against what was varied, as lines or as a map, and what its runs kept."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure

from reports import plots
from reports.canvas import COLOURS, INK, MARKERS, Drawn, finished
from reports.frames import Frames
from reports.sweep_tables import NAMES, label
from reports.sweeps import EXACT, is_logarithmic, kept, own_series, series, shown, shown_measures

LINES_SHOWN = 8
PANELS_SHOWN = 4
CELLS_WRITTEN = 100  # of a map: their values are written into them


class Line(NamedTuple):
    label: str
    colour: str
    marker: str
    points: pd.DataFrame  # of one series, with the columns of the table points


def figures(frames: Frames) -> dict[str, Drawn]:
    """Every figure of a sweep with its caption."""
    keys, found = list(frames.provenance["varied"]), {}
    for measure in shown_measures(frames):
        for key in keys:
            name = measure if len(keys) == 1 else f"{measure} against {key}"
            found[file_name(name)] = against(frames, measure, key)
        if len(keys) == 2 and (map_ := heat_map(frames, measure)):
            found[file_name(f"map of {measure}")] = map_
    for name, (table, draw) in KEPT.items():
        if table in frames.provenance["kept"] and (drawn := draw(frames)):
            found[name] = drawn
    return found


def file_name(name: str) -> str:
    return name.replace(" ", "_").replace(".", "-")


def against(frames: Frames, measure: str, key: str) -> Drawn:
    """A measure against one varied key: means with the band of their confidence intervals, and theory's line."""
    panels = _panels(frames, measure)
    figure = Figure(figsize=(10, 4.0), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    foretold = single = False
    for axis, (title, part) in zip(axes, panels.items(), strict=True):
        lines, single = _lines(frames, part, key)
        number = pd.api.types.is_numeric_dtype(part[key])
        names = [] if number else list(part[key].cat.categories)
        shown = part[part["mean"].abs() < np.inf]
        logarithmic = not measure.endswith(("cosine", "slope")) and bool((shown["mean"] > 0).all()) and len(shown) > 0
        logarithmic &= is_logarithmic(shown["mean"].to_numpy()) or measure.endswith("error")
        for line in lines:
            own = line.points.sort_values(key) if number else line.points
            x = own[key].to_numpy(float) if number else own[key].cat.codes.to_numpy(float)
            foretold |= bool(own["predicted"].notna().any())
            _draw(axis, line, x, own, logarithmic, joined=number and not single)
        if number:
            _scale(axis, part[key].to_numpy(float))
        else:
            axis.set_xlim(-0.5, len(names) - 0.5)
            axis.set_xticks(range(len(names)), [str(name)[:24] for name in names], rotation=0 if len(names) < 6 else 30)
        axis.set(xlabel=key, ylabel=measure.replace("_", " "))
        if logarithmic:
            axis.set_yscale("log")
        if title:
            axis.set_title(NAMES.get(title, title), fontsize=9)
        _draw_wanted(frames, axis, measure, title)
    handles, labels = axes[0].get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    repeats = int(frames.points["repeats"].max())
    caption = f"{measure.replace('_', ' ').capitalize()} against {key}"
    caption += f": mean over {repeats} repeats, with its 95 % confidence interval (Student's t)" if repeats > 1 else ""
    caption += "; dashed: what theory predicts" if foretold else ""
    caption += "; a point for each of the sweep's points, the other keys vary too" if single else ""
    if frames.provenance["wanted"] and frames.provenance["wanted"]["measure"] == measure:
        caption += "; dotted: what is wanted"
        if "thresholds" in frames.tables:
            caption += ", shaded: where the experiment's own method may cross it"
    return finished(figure), caption + "."


def _panels(frames: Frames, measure: str) -> dict[str, pd.DataFrame]:
    """The points of a measure, apart for z and the gradient."""
    own = frames.points[frames.points["measure"] == measure]
    if "quantity" not in own:
        return {"": own}
    return {quantity: part for quantity in ("hv", "gradient") if len(part := own[own["quantity"] == quantity])}


def _lines(frames: Frames, part: pd.DataFrame, key: str) -> tuple[list[Line], bool]:
    """A line per method (or source, ...) if nothing else is varied; else, of the experiment's own, a line per values of the other
    keys, or if these are too many a single cloud of points (True)."""
    others = [name for name in frames.provenance["varied"] if name != key]
    apart = series(frames, part)
    if not others:
        colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(apart)}
        if EXACT in colours:
            colours[EXACT] = INK
        return [
            Line(label(frames, "", name), colours[name], MARKERS[i // len(COLOURS) % len(MARKERS)], own)
            for i, (name, own) in enumerate(apart.items())
        ], False
    name = own_series(frames, list(apart))
    groups = list(apart[name].groupby(others, sort=False, observed=True))
    if len(groups) > LINES_SHOWN:
        return [Line(label(frames, "", name), COLOURS[3], "o", apart[name])], True
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(groups)))
    return [
        Line(
            ", ".join(f"{k.rpartition('.')[2]} = {shown(v)}" for k, v in zip(others, values, strict=True)),
            to_hex(shade),
            "o",
            own,
        )
        for (values, own), shade in zip(groups, shades, strict=True)
    ], False


def _draw(axis: Axes, line: Line, x: np.ndarray, own: pd.DataFrame, logarithmic: bool, joined: bool) -> None:
    mean, low, high = (own[name].to_numpy(float) for name in ("mean", "low", "high"))
    known = np.isfinite(low) & np.isfinite(high)
    if (own["measure"].iloc[0]).endswith("cosine"):
        low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
    if logarithmic and (low[known] <= 0).any():  # an interval that reaches zero goes down to the edge
        low = np.maximum(low, 0.1 * mean[mean > 0].min())
    if joined:
        axis.fill_between(x, low, high, where=known, color=line.colour, alpha=0.18, linewidth=0)
        axis.plot(x, mean, f"{line.marker}-", color=line.colour, markersize=4, linewidth=1.2, label=line.label)
        axis.plot(x, own["predicted"], "--", color=line.colour, linewidth=1.2)
        return
    reach = np.where(known, np.abs(np.stack([mean - low, high - mean])), 0.0)
    axis.errorbar(
        x, mean, yerr=reach, fmt=line.marker, color=line.colour, markersize=4, elinewidth=1, alpha=0.8, label=line.label
    )
    axis.plot(x, own["predicted"], "_", color=INK, markersize=10)


def _scale(axis: Axes, x: np.ndarray) -> None:
    if is_logarithmic(x):
        if (x == 0).any():
            axis.set_xscale("symlog", linthresh=float(x[x > 0].min()))
        else:
            axis.set_xscale("log")


def _draw_wanted(frames: Frames, axis: Axes, measure: str, quantity: str) -> None:
    wanted = frames.provenance["wanted"]
    if not wanted or wanted["measure"] != measure:
        return
    axis.axhline(wanted["value"], color=INK, linewidth=0.8, linestyle=":")
    if "thresholds" not in frames.tables:
        return
    table = frames.thresholds if not quantity else frames.thresholds[frames.thresholds["quantity"] == quantity]
    row = series(frames, table)
    found = row[own_series(frames, list(row))].iloc[0]
    left, right = axis.get_xlim()
    if np.isfinite(found["value"]) and found["low"] < found["high"]:
        axis.axvspan(max(found["low"], left), min(found["high"], right), color=INK, alpha=0.15, linewidth=0)
        axis.set_xlim(left, right)


def heat_map(frames: Frames, measure: str) -> Drawn | None:
    """A measure over two varied keys: a field per point of a grid, a dot per point of a design. None where nothing is known."""
    first, second = frames.provenance["varied"]
    panels = {}
    for title, part in _panels(frames, measure).items():
        apart = series(frames, part)
        own = apart[own_series(frames, list(apart))]
        if np.isfinite(own["mean"]).any() and min(own[first].nunique(), own[second].nunique()) > 1:
            panels[title] = own
    if not panels:
        return None
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    grid = True
    for axis, (title, own) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        values = own["mean"].to_numpy(float)
        finite = values[np.isfinite(values)]
        logarithmic = not measure.endswith("cosine") and (finite > 0).all() and finite.max() / finite.min() >= 10
        norm = LogNorm(finite.min(), finite.max()) if logarithmic else None
        grid = own[first].nunique() * own[second].nunique() == len(own)
        if grid:
            field = own.pivot(index=second, columns=first, values="mean")
            drawn = axis.pcolormesh(field.to_numpy(float), cmap="viridis", norm=norm, rasterized=True)
            _ticks(axis, field)
            if field.size <= CELLS_WRITTEN:
                _write_values(axis, field, drawn)
        else:
            drawn = axis.scatter(own[first], own[second], c=values, cmap="viridis", norm=norm, s=36)
            for key, axes in ((first, "x"), (second, "y")):
                x = own[key].to_numpy(float)
                if is_logarithmic(x) and (x > 0).all():
                    axis.set(**{f"{axes}scale": "log"})
        axis.set(xlabel=first, ylabel=second)
        if title:
            axis.set_title(NAMES.get(title, title), fontsize=9)
        bar = figure.colorbar(drawn, ax=axis)
        bar.set_label(measure.replace("_", " "), color=INK)
        bar.outline.set_edgecolor(INK)
    caption = f"{measure.replace('_', ' ').capitalize()}, mean over the repeats, over the two keys that are varied"
    caption += "" if grid else ": a dot per point of the design"
    return finished(figure), caption + "."


def _ticks(axis: Axes, field: pd.DataFrame) -> None:
    for set_ticks, names in ((axis.set_xticks, field.columns), (axis.set_yticks, field.index)):
        at = np.unique(np.linspace(0, len(names) - 1, min(len(names), 10)).round().astype(int))
        called = [f"{names[i]:.3g}" if isinstance(names[i], float) else str(names[i])[:16] for i in at]
        set_ticks(at + 0.5, called, rotation=45 if len(at) > 5 and set_ticks == axis.set_xticks else 0)


def _write_values(axis: Axes, field: pd.DataFrame, drawn) -> None:
    for (row, column), value in np.ndenumerate(field.to_numpy(float)):
        if np.isfinite(value):
            dark = drawn.norm(value) < 0.6
            text = f"{value:,.0f}" if 99.5 <= abs(value) < 1e5 else f"{value:.2g}"
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")


# ---- of the tables that a sweep keeps


def some_cells(frames: Frames, most: int) -> pd.DataFrame:
    """The first repeats of at most so many points, spread over the sweep."""
    done = frames.cells[(frames.cells["status"] == "done") & (frames.cells["repeat"] == frames.cells["repeat"].min())]
    return done.iloc[np.unique(np.linspace(0, len(done) - 1, min(len(done), most)).round().astype(int))]


def _runs(frames: Frames, cells: pd.DataFrame, table: str) -> list[tuple[str, Frames]]:
    """(what was varied, frames with summary and this table) of the runs of some cells."""
    numbers = [int(cell) for cell in cells["cell"]]
    found, runs = kept(frames, table, numbers), []
    for number, (_, cell) in zip(numbers, cells.iterrows(), strict=True):
        own = {"summary": frames.summary, table: found}
        own = {name: every[every["cell"] == number] for name, every in own.items()}
        said = "; ".join(f"{key.rpartition('.')[2]} = {shown(cell[key])}" for key in frames.provenance["varied"])
        runs.append((said, Frames(frames.directory, own, frames.experiment, {"status": "complete"})))
    return runs


def scatter(frames: Frames) -> Drawn | None:
    """Estimated against exact z (or gradient), for some points of the sweep."""
    runs = _runs(frames, some_cells(frames, PANELS_SHOWN), "weights")
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    quantity = "hv" if (frames.summary["quantity"] == "hv").any() else "gradient"
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    axes[0].set_ylabel(f"estimated {plots.QUANTITIES[quantity][-1]}$_i$")
    for axis, (said, run) in zip(axes, runs, strict=True):
        plots.estimated_against_exact(axis, run, quantity, run.primary, COLOURS[3])
        axis.set_title(said.replace("; ", "\n"), fontsize=8)
    name = "z = Hv" if quantity == "hv" else "Gradient"
    caption = f"{name}, estimated against exact, by the experiment's own method, at some points of the sweep (first repeat): "
    return finished(figure), caption + "one point with its standard error per weight. Every panel has its own scale."


def energy(frames: Frames) -> Drawn | None:
    """What the energy of the experiment's own method goes into, for some points of the sweep."""
    runs = _runs(frames, some_cells(frames, 3 * PANELS_SHOWN), "energy")
    causes: dict[str, np.ndarray] = {}
    for i, (_, run) in enumerate(runs):
        own = run.energy[(run.energy["method"] == run.primary[0]) & (run.energy["code"] == run.primary[1])]
        for cause, joules in zip(own["cause"], own["energy_j"], strict=True):
            causes.setdefault(cause, np.zeros(len(runs)))[i] = joules
    if not any(joules.any() for joules in causes.values()):
        return None
    figure = Figure(figsize=(10, 1.4 + 0.36 * len(runs)), layout="constrained")
    plots.stacked(figure, [said for said, _ in runs], causes)
    return finished(figure), "What the energy of the experiment's own method goes into, at some points of the sweep."


def timeline(frames: Frames) -> Drawn | None:
    """The chip's first trials in the first cell."""
    ((said, run),) = _runs(frames, some_cells(frames, 1), "timeline")
    figure = plots.timeline(run)
    return (figure, f"The first two trials of the chip, the second paler{f', at {said}' if said else ''}.") if figure else None


def learning(frames: Frames) -> Drawn | None:
    """Median error of the chip's runs against what was spent, a line for each of some points of the sweep."""
    runs = _runs(frames, some_cells(frames, LINES_SHOWN), "learning")
    figure = Figure(figsize=(10, 4.0), layout="constrained")
    axes = figure.subplots(1, 2)
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(runs)))
    for (said, run), shade in zip(runs, shades, strict=True):
        chips = run.learning[run.learning["source"] == run.learning["source"].iloc[0]]
        for axis, what in zip(axes, ("evaluations", "chip_time_s"), strict=True):
            middle = chips.groupby(what)["error"].median()
            axis.plot(middle.index, middle, "-", color=to_hex(shade), label=said)
    for axis, xlabel in zip(axes, ("evaluations of E", "chip time, s"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="error")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return finished(figure), "Learning curves at some points of the sweep (first repeat): median of E over the runs of the chip."


# figure: the table that it needs, how to draw it (None where there is nothing to see)
KEPT: dict[str, tuple[str, Callable[[Frames], Drawn | None]]] = {
    "learning": ("learning", learning),
    "scatter": ("weights", scatter),
    "energy": ("energy", energy),
    "timeline": ("timeline", timeline),
}
