"""Figures of a stored sweep: measures against what was varied, as lines or as a map."""

import re
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from reports.escape import plain
from reports.figures import (
    COLOURS,
    INK,
    MARKERS,
    ONE,
    WIDTH,
    Drawn,
    finished,
    legend_below,
    ordered,
    sheet,
)
from reports.frames import QUANTITIES, Frames
from reports.statistics import is_logarithmic
from reports.studies.sweep.run_figures import OF_RUNS
from reports.studies.sweep.series import (
    EXACT,
    LINES_SHOWN,
    evenly_drawn,
    is_drawn,
    means_of,
    of_quantity,
    own_estimates,
    own_series,
    series,
    shown,
    shown_measures,
)
from reports.studies.sweep.tables import label

# points of a line from which on they are drawn as pixels: a file of their outlines would be too
# large
MANY = 300


LEAST_SPAN = 0.1  # of the cosines of a map: less is not distinguished by colour


CELLS_WRITTEN = 100  # of a map: their values are written into them


class Line(NamedTuple):
    label: str
    colour: str
    marker: str
    points: pd.DataFrame  # of one series, with the columns of the table points


def figures(frames: Frames) -> dict[str, Drawn]:
    """Every figure of a sweep with its caption."""
    keys = list(frames.provenance["varied"])
    found = {}
    for measure in shown_measures(frames):
        if not is_drawn(frames, measure):
            continue
        for key in keys:
            name = measure if len(keys) == 1 else f"{measure} against {key}"
            found[file_name(name)] = against(frames, measure, key)
        if len(keys) == 2 and (map_ := heat_map(frames, measure)):
            found[file_name(f"map of {measure}")] = map_
    for name, (table, draw) in OF_RUNS.items():
        if table in frames.provenance["kept"] and (drawn := draw(frames)):
            found[name] = drawn
    return found


def file_name(name: str) -> str:
    return re.sub(r"[^\w+-]", "-", name.replace(" ", "_"))


def against(frames: Frames, measure: str, key: str) -> Drawn:
    """A measure against one varied key: means with the band of their confidence intervals, and
    theory's line.
    """
    panels = _panels(frames, measure)
    figure = sheet(4.0, WIDTH if len(panels) > 1 else ONE)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    predicted = single = joined = open_ended = False
    for axis, (title, part) in zip(axes, panels.items(), strict=True):
        # single: the other keys vary in too many ways for lines, and points are a cloud
        lines, single = _lines(frames, part, key)
        number = pd.api.types.is_numeric_dtype(part[key])
        names = [] if number else list(part[key].cat.categories)
        # infinite means, of what is never reached, have no place on any axis
        if not np.isfinite(part["mean"]).any():
            at = {"ha": "center", "va": "center", "transform": axis.transAxes, "color": INK}
            axis.text(0.5, 0.5, "no finite value", **at)
        means = part["mean"][part["mean"].abs() < np.inf].to_numpy()
        logarithmic = (
            means_of(frames).unit(measure) != "cosine"
            and len(means) > 0
            and bool((means > 0).all())
        )
        # errors fall by powers; a cosine is never on a logarithmic scale
        logarithmic &= is_logarithmic(means) or means_of(frames).less_is_better(measure)
        floor = _floor(part) if logarithmic else -np.inf
        for i, line in enumerate(lines):
            own = _without_off(frames, key, line.points.sort_values(key)) if number else line.points
            # of several at one place, each has some room
            beside = 0.6 * ((i + 0.5) / len(lines) - 0.5)
            x = own[key].to_numpy(float) if number else own[key].cat.codes.to_numpy(float) + beside
            predicted |= bool(own["predicted"].notna().any())
            joined = number and not single
            open_ended |= bool((own["low"] <= floor).any())
            _draw(axis, line, x, own, floor, joined)
        if number:
            _scale(frames, axis, key, part[key].to_numpy(float))
        else:
            axis.set_xlim(-0.5, len(names) - 0.5)
            axis.set_xticks(
                range(len(names)),
                [plain(str(name)[:24]) for name in names],
                rotation=0 if len(names) < 6 else 30,
            )
        axis.set(xlabel=plain(key), ylabel=plain(measure.replace("_", " ")))
        if logarithmic:
            axis.set_yscale("log")
            axis.set_ylim(bottom=floor)
        if title:
            axis.set_title(QUANTITIES.get(title, title), fontsize=9)
        if not means.size:
            why = "never reached" if np.isinf(part["mean"]).any() else "not known"
            place = {"transform": axis.transAxes, "ha": "center", "va": "center"}
            axis.text(0.5, 0.5, f"{why} at any point of the sweep", **place)
        _draw_wanted(frames, axis, measure, key, title)
    # each line once in the legend, though every panel has it
    drawn = {
        name: line
        for axis in axes
        for line, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if len(drawn) > 1:
        legend_below(figure, drawn.values(), drawn.keys(), ncols=4)
    repeats = means_of(frames).repeats
    caption = f"{measure.replace('_', ' ').capitalize()} against {key}"
    caption += (
        f": mean over {repeats} repeats, with its 95 % confidence interval" if repeats > 1 else ""
    )
    caption += f"; {'dashed' if joined else 'dashes'}: what theory predicts" if predicted else ""
    caption += "; what reaches the lower edge goes on below it" if open_ended else ""
    caption += "; a point for each of the sweep's points, the other keys vary too" if single else ""
    if frames.provenance["wanted"] and frames.provenance["wanted"]["measure"] == measure:
        caption += "; dotted: what is wanted"
        if len(frames.provenance["varied"]) == 1 and "thresholds" in frames.tables:
            caption += ", shaded: where the experiment's own method may cross it"
    return finished(figure), caption + "."


def _panels(frames: Frames, measure: str) -> dict[str, pd.DataFrame]:
    """The points of a measure, apart for z and the gradient."""
    own = means_of(frames).of(measure)
    if "quantity" not in own:
        return {"": own}
    return {
        quantity: part
        for quantity in ("hv", "gradient")
        if len(part := own[own["quantity"] == quantity])
    }


def _lines(frames: Frames, part: pd.DataFrame, key: str) -> tuple[list[Line], bool]:
    """A line per method (or source, ...) if nothing else is varied; else, of the experiment's own,
    a line per values of the other keys, or if these are too many a single cloud of points (True).
    """
    others = [name for name in frames.provenance["varied"] if name != key]
    apart = series(frames, part)
    if not others:
        # one colour and marker for each over all panels
        every = list(series(frames, means_of(frames).of(part["measure"].iloc[0])))
        looks = {
            name: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)])
            for i, name in enumerate(every)
        }
        looks |= {EXACT: (INK, MARKERS[0])}
        return [
            Line(plain(label(frames, "", name)), *looks[name], own) for name, own in apart.items()
        ], False
    name = own_series(frames, list(apart))
    groups = list(apart[name].groupby(others, sort=False, observed=True))
    # more lines than eyes can follow
    if len(groups) > LINES_SHOWN:
        return [Line(plain(label(frames, "", name)), COLOURS[3], "o", apart[name])], True
    shades = ordered(len(groups))
    return [
        Line(
            plain(
                ", ".join(
                    f"{k.rpartition('.')[2]} = {shown(v)}"
                    for k, v in zip(others, values, strict=True)
                )
            ),
            shade,
            MARKERS[i],
            own,
        )
        for i, ((values, own), shade) in enumerate(zip(groups, shades, strict=True))
    ], False


def _floor(part: pd.DataFrame) -> float:
    """The lower edge of a logarithmic axis: below every mean and prediction, however low an
    interval reaches.
    """
    means = part[["mean", "predicted"]].to_numpy(float)
    return 0.5 * float(means[np.isfinite(means) & (means > 0)].min())


def _draw(
    axis: Axes, line: Line, x: np.ndarray, own: pd.DataFrame, floor: float, joined: bool
) -> None:
    mean, low, high, predicted = (
        own[name].to_numpy(float) for name in ("mean", "low", "high", "predicted")
    )
    known = np.isfinite(low) & np.isfinite(high)
    many = len(x) > MANY
    # an interval may reach to 0 or below, which a logarithmic axis has not
    low = np.maximum(low, floor)
    predicted = np.where(predicted > floor, predicted, np.nan)
    if joined:
        axis.fill_between(
            x, low, high, where=known, color=line.colour, alpha=0.18, linewidth=0, rasterized=many
        )
        looks: dict[str, Any] = {"color": line.colour, "linewidth": 1.2, "rasterized": many}
        axis.plot(x, mean, f"{line.marker}-", markersize=4, label=line.label, **looks)
        axis.plot(x, predicted, "--", **looks)
        return
    reach = None  # bars without length take as long to draw as others
    if known.any():
        reach = np.where(known, np.abs(np.stack([mean - low, high - mean])), 0.0)
    looks = {"color": line.colour, "rasterized": many}
    axis.errorbar(
        x, mean, yerr=reach, fmt=line.marker, markersize=4, elinewidth=1, label=line.label, **looks
    )
    axis.plot(x, predicted, "_", markersize=12, **looks)


def _without_off(frames: Frames, key: str, own: pd.DataFrame) -> pd.DataFrame:
    """Where 0 of a count stands for a part that is not there, its point is not joined to the
    others.
    """
    off = key in frames.provenance["off"] and bool((own[key] == 0).any())
    if not off:
        return own
    # NaN breaks the line
    blank = own.iloc[:1].assign(**dict.fromkeys(("mean", "low", "high", "predicted"), np.nan))
    return pd.concat([own[own[key] == 0], blank, own[own[key] != 0]])


def _scale(frames: Frames, axis: Axes, key: str, x: np.ndarray) -> None:
    if is_logarithmic(x) and key not in evenly_drawn(frames):
        if (x == 0).any():
            # 0 is among the values: linear below the smallest other one
            axis.set_xscale("symlog", linthresh=float(x[x > 0].min()))
        else:
            axis.set_xscale("log")
            if not np.isfinite(axis.dataLim.minposx):
                # nothing is drawn, as where what is followed is never reached
                axis.set_xlim(x.min(), x.max())


def _draw_wanted(frames: Frames, axis: Axes, measure: str, key: str, quantity: str) -> None:
    """What is wanted, and where the experiment's own method may cross it."""
    wanted = frames.provenance["wanted"]
    if not wanted or wanted["measure"] != measure:
        return
    low, high = axis.get_ylim()
    # further away it would leave the rest no room
    if low - (high - low) < wanted["value"] < high + (high - low):
        axis.axhline(wanted["value"], color=INK, linewidth=0.8, linestyle=":")
    if "thresholds" not in frames.tables or not own_estimates(frames, quantity or "hv"):
        return
    apart = series(frames, of_quantity(frames.thresholds, quantity))
    rows = apart[own_series(frames, list(apart))]
    if len(rows) == 1 and rows["key"].iloc[0] == key:
        found, (left, right) = rows.iloc[0], axis.get_xlim()
        if np.isfinite(found["value"]) and found["low"] < found["high"]:
            axis.axvspan(
                max(found["low"], left),
                min(found["high"], right),
                color=INK,
                alpha=0.15,
                linewidth=0,
            )
            # the shade must not widen the axis
            axis.set_xlim(left, right)


def heat_map(frames: Frames, measure: str) -> Drawn | None:
    """A measure over two varied keys: a field per point of a grid, a dot per point of a design.
    None where nothing is known.
    """
    first, second = frames.provenance["varied"]
    panels = {}
    for title, part in _panels(frames, measure).items():
        apart = series(frames, part)
        own = apart[own_series(frames, list(apart))]
        # a single row or column is a line and no map
        several = min(own[first].nunique(), own[second].nunique()) > 1
        placed = _is_grid(own, first, second) or all(
            pd.api.types.is_numeric_dtype(own[key]) for key in (first, second)
        )
        if np.isfinite(own["mean"]).any() and several and placed:
            panels[title] = own
    if not panels:
        return None
    figure = sheet(4.2, WIDTH if len(panels) > 1 else ONE)
    grid = True
    field = np.zeros((0, 0))
    for axis, (title, own) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        values = own["mean"].to_numpy(float)
        finite = values[np.isfinite(values)]
        is_cosine = means_of(frames).unit(measure) == "cosine"
        logarithmic = not is_cosine and (finite > 0).all() and finite.max() / finite.min() >= 10
        low = finite.min()
        high = finite.max()
        if is_cosine:
            # rounding would else be spread over all colours
            low = min(low, high - LEAST_SPAN)
        norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
        # every combination once: fields; else the points lie anywhere
        if grid := _is_grid(own, first, second):
            table = own.pivot(index=second, columns=first, values="mean")
            field = table.to_numpy(float)
            drawn = axis.pcolormesh(field, cmap="viridis", norm=norm, rasterized=True)
            _ticks(axis, table)
            if field.size <= CELLS_WRITTEN:
                _write_values(axis, field, norm)
        else:
            drawn = axis.scatter(
                own[first],
                own[second],
                c=values,
                cmap="viridis",
                norm=norm,
                s=36,
                rasterized=len(own) > MANY,
            )
            for key, axes in ((first, "x"), (second, "y")):
                x = own[key].to_numpy(float)
                if is_logarithmic(x) and (x > 0).all() and key not in evenly_drawn(frames):
                    axis.set(**{f"{axes}scale": "log"})
        axis.set(xlabel=plain(first), ylabel=plain(second))
        if title:
            axis.set_title(QUANTITIES.get(title, title), fontsize=9)
        bar = figure.colorbar(drawn, ax=axis)
        bar.set_label(plain(measure.replace("_", " ")), color=INK)
        bar.outline.set_edgecolor(INK)
    caption = (
        f"{measure.replace('_', ' ').capitalize()}, mean over the repeats, over the two keys that"
        " are varied"
    )
    caption += (
        ("; blank: no value" if not np.isfinite(field).all() else "")
        if grid
        else ": a dot per point of the design"
    )
    return finished(figure), caption + "."


def _is_grid(own: pd.DataFrame, first: str, second: str) -> bool:
    return own[first].nunique() * own[second].nunique() == len(own)


def _ticks(axis: Axes, field: pd.DataFrame) -> None:
    for set_ticks, names in ((axis.set_xticks, field.columns), (axis.set_yticks, field.index)):
        at = np.unique(np.linspace(0, len(names) - 1, min(len(names), 10)).round().astype(int))
        called = [
            f"{names[i]:.3g}" if isinstance(names[i], float) else plain(str(names[i])[:16])
            for i in at
        ]
        set_ticks(
            at + 0.5, called, rotation=45 if len(at) > 5 and set_ticks == axis.set_xticks else 0
        )


def _write_values(axis: Axes, field: np.ndarray, norm: Normalize) -> None:
    for (row, column), value in np.ndenumerate(field):
        if np.isfinite(value):
            close = 0.95 < abs(value) < 1  # cosines there differ in what comes after
            text = (
                f"{value:,.0f}"
                if 99.5 <= abs(value) < 1e5
                else f"{value:.4f}"
                if close
                else f"{value:.2g}"
            )
            # viridis is dark below; #000000: black on the field, also of a dark page
            colour = "white" if norm(value) < 0.5 else "#000000"
            axis.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color=colour
            )
