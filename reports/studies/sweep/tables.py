"""A stored sweep in words and tables: where what is wanted is met, every point, and the cells
that failed.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from reports.columns import CELLS, THRESHOLDS, Column, Table, named, only
from reports.formats import Estimate, Part, cosine, edge_value, number, seconds
from reports.frames import QUANTITIES, Frames
from reports.statistics import IDENTITY, Wanted
from reports.store.sweep_results import last_line
from reports.studies.sweep.loading import has_table
from reports.studies.sweep.series import (
    EXACT,
    inner_view,
    is_drawn,
    means_of,
    of_quantity,
    own_estimates,
    own_series,
    series,
    shown,
    shown_measures,
)

ROWS_SHOWN = 2000


CURVES_NAMED = 4  # along the key whose threshold is given, the other keys being held


def tables(frames: Frames) -> list[Table]:
    return [*_thresholds(frames), *_points(frames), *_failed(frames)]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """How far the sweep is, and where the experiment's own method meets what is wanted."""
    cells = frames.provenance["cells"]
    failed = f", {cells['failed']} failed" if cells["failed"] else ""
    sentences = [
        (
            "cells:",
            (
                f"{cells['done']} of {cells['all']} are done{failed},"
                f" {seconds(frames.provenance['seconds'])} of work"
            ),
        )
    ]
    wanted = frames.provenance["wanted"]
    if not wanted:
        return sentences
    table = frames.tables.get("thresholds")
    own = means_of(frames).of(wanted["measure"])
    for quantity in _quantities(own):
        if not own_estimates(frames, quantity):
            continue
        apart = series(frames, of_quantity(own, quantity))
        # facts are of different things, each worth a word; of methods the experiment's own is meant
        names = (
            [own_series(frames, list(apart))]
            if quantity
            else [name for name in apart if name != EXACT]
        )
        for name in names:
            called = f"{label(frames, quantity, name)}:"
            if table is None:
                sentences.append((called, _best(frames, apart[name])))
                continue
            curves = series(frames, of_quantity(table, quantity))[name]
            if len(curves) > 1:  # a single one says it all
                sentences.append((called, _best(frames, apart[name])))
            sentences += [
                (called, _met(frames, row)) for _, row in curves.iloc[:CURVES_NAMED].iterrows()
            ]
    return sentences


def notes(frames: Frames) -> list[str]:
    """Of which measures there is no picture, and why."""
    found = []
    for measure in shown_measures(frames):
        if not is_drawn(frames, measure):
            never = np.isinf(means_of(frames).of(measure)["mean"]).any()
            why = "never, at any point" if never else "not known at any point"
            found.append(f"{measure.replace('_', ' ').capitalize()}: {why}: no plot of it is made.")
    return found


def label(frames: Frames, quantity: str, name: tuple[str, ...]) -> str:
    """What reports call one thing that was measured: z = Hv, difference/walsh."""
    return inner_view(frames).called(frames, quantity, name)


def _of(frames: Frames, row: dict) -> str:
    names = [str(row[column]) for column in IDENTITY if column in row]
    return label(frames, names.pop(0) if "quantity" in row else "", tuple(names))


def _met(frames: Frames, row: pd.Series) -> str:
    """One threshold in a sentence."""
    swept = frames.summary[row["key"]]
    key = row["key"]
    what = f"mean {row['wanted']}"
    held = [
        f"{other} = {shown(row[other])}"
        for other in frames.provenance["varied"]
        if other in row.index
    ]
    what = f"at {', '.join(held)}, {what}" if held else what
    least = shown(swept.min())
    most = shown(swept.max())
    so_far = " so far" if frames.partial else ""
    largest = row["edge"] == "largest"
    inside = f"of {key} swept{so_far}, {least} to {most}"
    # at all, at none, in the middle only, or up to an edge: four sentences
    if row["met"] == row["values"]:
        text = f"{what} is met at all values {inside}"
    elif row["met"] == 0:
        text = f"{what} is met at no value {inside}"
    elif row["edge"] == "none":
        return (
            f"{what} is met at {row['met']} of {row['values']} values {inside}:"
            f" {_where(frames, row)}"
        )
    else:
        text = (
            f"{what} is met {'up to' if largest else 'from'} {key} ="
            f" {edge_value(row['value'])}{'' if largest else ' on'}"
        )
        text += f", and at {row['beyond']} of the values beyond" if row["beyond"] else ""
    low = row["low"]
    high = row["high"]
    # why there is no interval
    if math.isnan(low):
        why = "a single repeat" if means_of(frames).repeats == 1 else "all repeats gave the same"
        return f"{text} ({why}: how sure this is cannot be known)"
    if low == high and math.isinf(low):
        return f"{text}, the whole confidence interval of each mean too"
    ends = (
        f"below {least}" if low == -math.inf else edge_value(low),
        f"above {most}" if high == math.inf else edge_value(high),
    )
    return f"{text} (95 % confidence interval of the edge: {ends[0]} to {ends[1]})"


def _where(frames: Frames, row: pd.Series) -> str:
    """Where a curve without an edge meets what is wanted."""
    wanted = Wanted(**frames.provenance["wanted"])
    own = means_of(frames).of(wanted.measure)
    for name in (
        name for name in row.index if name in IDENTITY or name in frames.provenance["varied"]
    ):
        own = own[own[name] == row[name]]
    own = own.sort_values(row["key"])
    # a point where a repeat gave no value is not met
    met = wanted.met(own["mean"].where(own["unknown"] == 0).to_numpy(float))
    if not met[0]:
        return "between, and at neither end"
    return (
        "at both ends, and"
        f" {f'at {met[1:-1].sum()} of {len(met) - 2}' if met[1:-1].any() else 'not'} between"
    )


def _best(frames: Frames, own: pd.DataFrame) -> str:
    """At how many points what is wanted is met, and where most."""
    wanted = Wanted(**frames.provenance["wanted"])
    keys = list(frames.provenance["varied"])
    # a point where a repeat gave no value is not met
    values = own["mean"].where(own["unknown"] == 0).to_numpy(float)
    measure = wanted.measure.replace("_", " ")
    if not keys:
        mean, low, high = (
            _digits(frames, wanted.measure)(own[column].iloc[0])
            for column in ("mean", "low", "high")
        )
        sure = (
            f"95 % confidence interval: {low} to {high}"
            if low != "-"
            else "how sure this is cannot be known"
        )
        return f"mean {measure} is {mean} ({sure})"
    points = len(frames.summary[keys].drop_duplicates())
    text = f"mean {wanted} is met at {int(wanted.met(values).sum())} of {points} points"
    if not np.isfinite(values).any():
        return text
    # `values` has a place for every row of own
    best = own.iloc[int(np.nanargmax(values if wanted.at_least else -values))]
    where = ", ".join(f"{key} = {shown(best[key])}" for key in keys)
    return f"{text}; the best is {_digits(frames, wanted.measure)(best['mean'])} at {where}"


def _thresholds(frames: Frames) -> list[Table]:
    table = frames.tables.get("thresholds")
    if table is None:
        return []
    others = [other for other in frames.provenance["varied"] if other in table]
    table = _own_first(frames, table)
    rows = table[:ROWS_SHOWN].assign(
        of=[_of(frames, row) for row in table[:ROWS_SHOWN].to_dict("records")],
        met=pd.Series(list(map(Part, table["met"], table["values"])), table.index, object),
    )
    key = table["key"].iloc[0]
    wanted = table["wanted"].iloc[0]
    note = (
        "largest value up to which it is met, or smallest from which on it is, in straight lines"
        " between the values swept (over their logarithms, if they are far apart); low, high: ends"
        " of the 95 % confidence interval; above or below all: beyond the values swept"
    )
    columns = {
        "of": OF,
        **key_columns(others),
        **only(THRESHOLDS, ("met", "edge", "value", "low", "high")),
    }
    return [Table(f"Where mean {wanted} is met: {key}", note, rows, columns)]


OF = named("of")


def key_columns(keys: Iterable[str]) -> dict[str, Column]:
    """The columns of varied keys, by the ends of their names."""
    return {key: named(key.rpartition(".")[2], shown) for key in keys}


def _points(frames: Frames) -> list[Table]:
    """A row for each point and method: the measures shown, with their intervals."""
    keys = list(frames.provenance["varied"])
    measures = shown_measures(frames)
    means = means_of(frames)
    parts = {measure: means.of(measure) for measure in measures}
    # points of any measure that is shown: not every one has them all
    heads = pd.concat([part[means.by] for part in parts.values()]).drop_duplicates()
    # cut before texts are made: a sweep may have millions of points
    rows = _own_first(frames, heads)[:ROWS_SHOWN]
    frame = rows.assign(of=[_of(frames, row) for row in rows.to_dict("records")])
    columns = {"of": OF, **key_columns(keys)}
    for measure, part in parts.items():
        # in the order of the rows, NaN where a measure has no such point
        found = rows.merge(part, "left", means.by)
        cells = zip(found["mean"], found["low"], found["high"], strict=True)
        frame[measure] = [Estimate(mean, low=low, high=high) for mean, low, high in cells]
        called = measure.replace("_", " ")
        digits = _digits(frames, measure)
        unit = means.unit(measure)
        columns[measure] = named(called, digits, unit)
        if part["predicted"].notna().any():
            frame[f"predicted {measure}"] = found["predicted"].to_numpy()
            columns[f"predicted {measure}"] = named(f"predicted {called}", digits, unit)
    most = max(int(part["repeats"].max()) for part in parts.values())
    note = (
        f"means over {most} repeats [their 95 % confidence interval"
        if most > 1
        else "of a single repeat"
    )
    if most > 1:
        alike = any((part["low"].isna() & (part["repeats"] > 1)).any() for part in parts.values())
        note += (
            f"{'; none where all gave the same, but for shares of runs or dies' if alike else ''}]"
        )
    elif any(part["low"].notna().any() for part in parts.values()):
        note += " [95 % confidence interval, where runs or dies are counted]"
    if (count := len(heads)) > ROWS_SHOWN:
        note += (
            f"; the first {ROWS_SHOWN:,} of {count:,} rows, points.csv and points.parquet have all"
        )
    return [Table("Every point", note, frame, columns)]


def _own_first(frames: Frames, table: pd.DataFrame) -> pd.DataFrame:
    """One thing measured after another, z before the gradient, each with the experiment's own
    method first.
    """
    parts = []
    for quantity in _quantities(table):
        apart = series(frames, of_quantity(table, quantity))
        own = own_series(frames, list(apart))
        parts += [apart.pop(own), *apart.values()]
    return pd.concat(parts)


def _quantities(table: pd.DataFrame) -> list[str]:
    """z before the gradient; of a study without either, nothing to tell apart."""
    return (
        [name for name in QUANTITIES if name in set(table["quantity"])]
        if "quantity" in table
        else [""]
    )


def _digits(frames: Frames, measure: str) -> Callable[[float], str]:
    return cosine if means_of(frames).unit(measure) == "cosine" else _mean


def _mean(value: float) -> str:
    return "never" if value == math.inf else number(value)


def _failed(frames: Frames) -> list[Table]:
    failed = frames.cells[frames.cells["status"] == "failed"][:ROWS_SHOWN]
    if failed.empty:
        return []
    rows = failed.assign(error=failed["error"].map(last_line))
    columns = only(CELLS, ("command", "error", "cell", "seed"))
    return [Table("Cells that failed", "the command runs a cell alone", rows, columns, "error")]


def lost(frames: Frames) -> list[str]:
    """Warnings of tables that should have been stored and are no longer there."""
    done = frames.cells.loc[frames.cells["status"] == "done", "cell"]
    sentences = []
    for name in frames.provenance["kept"]:
        if missing := sum(not has_table(frames, cell, name) for cell in done):
            sentences.append(
                f"the table {name} of {missing} of {len(done)} cells is no longer there: plots are"
                " made without them"
            )
    return sentences
