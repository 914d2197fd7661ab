"""How requirements are shown: the least demanding values at which what is wanted is met."""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import CELLS, Column, Columns, Table, named, only
from reports.escape import plain
from reports.figures import COLOURS, INK, ONE, Drawn, finished, sheet
from reports.formats import Estimate, Format, cosine, edge_value, integer, number
from reports.frames import Frames, Swept, View
from reports.statistics import CONFIDENCE, Wanted
from reports.studies.require.search import (
    ALL,
    ALONE,
    FOUND,
    GOING_ON,
    MET,
    NONE,
    TOGETHER,
    UNDECIDED,
    Condition,
    met_takes,
    repeats_to_tell,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = (
    "end of the confidence interval that decided: of so high a confidence that all decisions of a"
    " search are right with a probability of 95 %; empty where all repeats gave the same"
)
SUMMARY = {
    "key": Column("what is required of it"),
    "specification": Column(
        "alone: the other keys are as in the experiment; together: all have the values of these"
        " rows at once"
    ),
    "status": Column(
        f"{FOUND}; {ALL}: at the least demanding value too, nothing in the range limits; {NONE}:"
        f" not at the ideal value either, something else limits; {GOING_ON}"
    ),
    "required": Column(
        "least demanding value at which it is met, in the unit of its meaning; empty: none",
        edge_value,
    ),
    "repeats": Column("repeats that it took to tell", integer),
    "mean": Column("mean over them of what is wanted"),
    "low": Column(f"lower {INTERVAL}"),
    "high": Column("its upper end"),
    "next": Column("the next value, one step less demanding, at which it is not met", edge_value),
    "next_status": Column(
        f"what was found there; {UNDECIDED}: within noise of what is wanted, taken as not met"
    ),
    "next_repeats": Column("repeats that it took", integer),
    "next_mean": Column("mean over them"),
    "next_low": Column(f"lower {INTERVAL}"),
    "next_high": Column("its upper end"),
    "steps": Column(
        "steps from the least demanding value of the range to the required one; together: steps of"
        " single keys by which the values of the keys alone had to be tightened"
    ),
    "judged": Column("values that were judged"),
    "ideal": Column("ideal end of the range"),
    "worst": Column("least demanding end"),
    "meaning": Column("what the key is"),
}
TESTED = {
    "of": Column("which search: of a key alone, or together"),
    "status": Column(f"{MET}, not met or {UNDECIDED}"),
    "repeats": SUMMARY["repeats"],
    "mean": SUMMARY["mean"],
    "low": SUMMARY["low"],
    "high": SUMMARY["high"],
}


def schema(frames: Frames) -> dict[str, Columns]:
    """The columns of every table of a search."""
    # the plan alone knows the keys, so that their columns cannot stand above with the others
    keys = {key: Column(meaning) for key, meaning in frames.provenance["varied"].items()}
    return {
        "summary": SUMMARY,
        # `of` keeps the first place: a dict leaves a name where it was first put
        "tested": {"of": TESTED["of"], **keys, **TESTED},
        "cells": {"cell": CELLS["cell"], **keys, **CELLS},
    }


def _format(frames: Frames) -> Format:
    condition = Condition.from_plan(frames.provenance)
    return cosine if condition.unit == "cosine" else number


def tables(frames: Frames) -> list[Table]:
    frame = frames.summary
    shown = [_alone_table(frames, frame[frame["specification"] == ALONE])]
    together = frame[frame["specification"] == TOGETHER]
    if len(together):
        shown.append(_together_table(frames, together))
    tried = frames.tested[frames.tested["of"] == TOGETHER]
    if len(tried):
        shown.append(_tried_table(frames, tried))
    failed = frames.cells[frames.cells["status"] == "failed"]
    if len(failed):
        columns = only(CELLS, ("command", "error", "cell", "seed"))
        note = "a value where one failed is not met"
        shown.append(Table("Cells that failed", note, failed, columns, "error"))
    return shown


def _evidence(rows: pd.DataFrame, prefix: str) -> pd.Series:
    names = [f"{prefix}{name}" for name in ("mean", "low", "high")]
    # as objects: pandas would take tuples apart
    cells = [Estimate(row[0], low=row[1], high=row[2]) for row in rows[names].to_numpy(float)]
    return pd.Series(cells, rows.index, object)


def _alone_table(frames: Frames, rows: pd.DataFrame) -> Table:
    digits = _format(frames)
    columns = {
        "key": named("key"),
        "required": SUMMARY["required"],
        "met": named("met with", digits),
        "repeats": SUMMARY["repeats"],
        "next": SUMMARY["next"],
        "next_status": named("next is"),
        "unmet": named("found there", digits),
        "next_repeats": named("repeats there", integer),
        "meaning": SUMMARY["meaning"],
    }
    note = (
        f"least demanding value at which mean {wanted_of(frames)} is met, one step before the next"
        f" at which it is not, or {UNDECIDED}; means [confidence intervals that decided]; each"
        f" search errs with a probability of at most {100 * (1 - CONFIDENCE):.0f} %"
    )
    if takes := met_takes([*_lengths(frames).values()], Condition.from_plan(frames.provenance)):
        note += f"; {takes}"
    rows = rows.assign(met=_evidence(rows, ""), unmet=_evidence(rows, "next_"))
    return Table("Required of each key alone", note, rows, columns, "meaning")


def _together_table(frames: Frames, rows: pd.DataFrame) -> Table:
    alone = frames.summary.set_index(["key", "specification"])["required"]
    columns = {
        "key": named("key"),
        "alone": named("alone", edge_value),
        "required": named("together", edge_value),
        "met": named("met with", _format(frames)),
        "repeats": SUMMARY["repeats"],
    }
    rows = rows.assign(
        alone=[alone[key, ALONE] for key in rows["key"]],
        met=_evidence(rows, ""),
    )
    note = "all values at once; tightened, a step of one key after another, where need be"
    return Table("Required of all keys together", note, rows, columns)


def _tried_table(frames: Frames, rows: pd.DataFrame) -> Table:
    keys = {key: named(key, edge_value) for key in frames.provenance["varied"]}
    digits = _format(frames)
    columns = {
        **keys,
        "status": named(""),
        "found": named("found", digits),
        "repeats": SUMMARY["repeats"],
    }
    return Table(
        "Combinations that were tried",
        f"in this order; {UNDECIDED}: within noise of what is wanted, taken as not met",
        rows.assign(found=_evidence(rows, "")),
        columns,
    )


def _lengths(frames: Frames) -> dict[str, int]:
    """How many values each search has: of each key, and, once it has begun, of all together."""
    ladders = frames.provenance["sweep"]["vary"]
    found = {key: len(ladder) for key, ladder in ladders.items()}
    if (frames.summary["specification"] == TOGETHER).any():
        rows = frames.summary[frames.summary["specification"] == ALONE]
        # as `search.together` puts them together
        ends = zip(rows["key"], rows["required"], strict=True)
        found[TOGETHER] = 1 + sum(list(ladders[key]).index(value) for key, value in ends)
    return found


def wanted_of(frames: Frames) -> Wanted:
    """What is to be met."""
    return Wanted(**frames.provenance["wanted"])


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """What is required of each key, and of all together, in a sentence each."""
    frame = frames.summary
    alone = frame[frame["specification"] == ALONE]
    sentences = [(f"{row['key']}:", _alone(frames, row)) for row in alone.to_dict("records")]
    together = frame[frame["specification"] == TOGETHER]
    if len(together):
        sentences.append(("together:", _together(frames, together)))
    elif len(alone) > 1 and (alone["status"] == NONE).any():
        sentences.append(("together:", "not looked for, as a key alone has no value"))
    return sentences


def _alone(frames: Frames, row: dict) -> str:
    wanted = f"mean {wanted_of(frames)}"
    ideal, worst = edge_value(row["ideal"]), edge_value(row["worst"])
    if row["status"] == GOING_ON:
        return f"not known yet, after {row['judged']} values; the same command goes on"
    if row["status"] == NONE and row["next_status"] == UNDECIDED:
        return (
            f"whether {wanted} is met even at the ideal value {ideal} is not known"
            f"{_found(frames, row, 'next_')}: {_more(frames, row['key'], row['next_mean'])}"
        )
    if row["status"] == NONE:
        return (
            f"{wanted} is not met even at the ideal value {ideal}{_found(frames, row, 'next_')}:"
            " something else limits"
        )
    met = _found(frames, row, "")
    if row["status"] == ALL:
        return f"{wanted} is met at {worst} too{met}: nothing from {ideal} to {worst} limits"
    return (
        f"{wanted} is met up to {edge_value(row['required'])}{met}; at the next value,"
        f" {edge_value(row['next'])}, it is"
        f" {_unmet(frames, row['key'], row['next_status'], row, 'next_')}"
    )


def _unmet(frames: Frames, search: str, status: str, row: dict, prefix: str) -> str:
    """That a value is not met, or that it is not known."""
    found = _found(frames, row, prefix)
    if status != UNDECIDED:
        return f"not{found}"
    more = _more(frames, search, row[f"{prefix}mean"])
    return f"{UNDECIDED}, within noise of it, taken as not met{found}; {more}"


def _more(frames: Frames, search: str, mean: float) -> str:
    """What would tell."""
    condition = Condition.from_plan(frames.provenance)
    count = repeats_to_tell(mean, _lengths(frames)[search], condition) if condition.runs else 0
    if count:
        return f"--repeats {count}, with another --out, would tell if it stays {mean:.4g}"
    return "more --repeats, with another --out, would tell"


def _found(frames: Frames, row: dict, prefix: str) -> str:
    mean, low, high = (row[f"{prefix}{name}"] for name in ("mean", "low", "high"))
    # `judged` leaves the mean out where a repeat gave no finite value
    if math.isnan(mean):
        return " (a repeat gave no value)"
    shown = Estimate(mean, low=low, high=high).text(_format(frames))
    # NaN, of no interval, compares as false
    alike = "" if low <= high else ", all the same"
    return f" ({shown} over {row[f'{prefix}repeats']} repeats{alike})"


def _together(frames: Frames, rows: pd.DataFrame) -> str:
    # rows of one specification differ in key and values, not in what was measured
    row = rows.iloc[0].to_dict()
    wanted = f"mean {wanted_of(frames)}"
    if row["status"] == GOING_ON:
        return f"not known yet, after {row['judged']} specifications; the same command goes on"
    if row["status"] == NONE:
        return f"{wanted} is not met even at the ideal values{_found(frames, row, 'next_')}"
    values = ", ".join(
        f"{key} = {edge_value(value)}"
        for key, value in zip(rows["key"], rows["required"], strict=True)
    )
    if row["steps"] == 0:
        return f"with the values of each alone, {values}, {wanted} is met{_found(frames, row, '')}"
    steps = f"{row['steps']:.0f} step{'s' * (row['steps'] > 1)}"
    # the least demanding ones are judged first
    first = frames.tested[frames.tested["of"] == TOGETHER].iloc[0].to_dict()
    at = ", ".join(f"{key} = {edge_value(first[key])}" for key in rows["key"])
    return (
        f"with the values of each alone, {at}, it is"
        f" {_unmet(frames, TOGETHER, first['status'], first, '')}; tightened by {steps} of single"
        f" keys, to {values}, it is met{_found(frames, row, '')}"
    )


def figures(frames: Frames) -> dict[str, Drawn]:
    """What was judged of each key, against its values."""
    found = {}
    for key in frames.provenance["varied"]:
        part = frames.tested[frames.tested["of"] == key].sort_values(key)
        if part["mean"].notna().any():
            name = (
                f"required-{key.replace('.', '-')}"
                if len(frames.provenance["varied"]) > 1
                else "required"
            )
            # only keys of which something was judged: a search may have just begun
            found[name] = (
                _against(frames, key, part),
                (
                    "Means at the values that were judged, with the confidence intervals that"
                    f" decided; full: met, empty: not, or {UNDECIDED}. Dotted: what is wanted."
                ),
            )
    return found


def _against(frames: Frames, key: str, part: pd.DataFrame) -> "Figure":
    wanted = wanted_of(frames)
    figure = sheet(3.6, ONE)
    axis = figure.subplots()
    ladder = [float(value) for value in frames.provenance["sweep"]["vary"][key]]
    positive = part.loc[part[key] > 0, key].to_numpy(float)
    off = part[key] == 0
    wide = len(positive) > 1 and _by_factors(ladder)
    if ladder[0] == 0 and len(ladder) > 2 and ladder[1] > ladder[-1] > 0:
        # less is worse, and 0 stands for none of it, as of bits: beyond the largest
        place = ladder[1] * (10 if wide else 1.1)
        part = part.assign(**{key: part[key].where(~off, place)})
        if wide:
            axis.set_xscale("log")
        if off.any():
            ticks = _ticks(positive) if wide else sorted({*positive.tolist()})
            axis.set_xticks([*ticks, place], [*(f"{tick:g}" for tick in ticks), "off"])
    elif not wide and (part[key] % 1 == 0).all():
        # whole numbers, such as bits
        axis.set_xticks(sorted({*part[key].tolist()}))
    # in equal steps where values go by factors, with 0, of what is off, beside them
    elif wide:
        if off.any():
            axis.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.5)
        else:
            axis.set_xscale("log")
        ticks = [*([0.0] if off.any() else []), *_ticks(positive)]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
    for met, face in ((True, COLOURS[0]), (False, "none")):
        own = part[(part["status"] == MET) == met]
        mean = own["mean"].to_numpy(float)
        # two lengths: an interval of a share, or one cut at a limit, lies unevenly about the mean
        reach = np.abs(own[["low", "high"]].to_numpy(float).T - mean)
        axis.errorbar(
            own[key],
            mean,
            np.nan_to_num(reach),
            fmt="o",
            color=COLOURS[0],
            markerfacecolor=face,
            elinewidth=1,
        )
    axis.axhline(wanted.value, color=INK, linewidth=0.8, linestyle=":")
    axis.set(xlabel=plain(key), ylabel=plain(wanted.called or wanted.measure))
    return finished(figure)


def _by_factors(ladder: list[float]) -> bool:
    """Whether its values, but for 0, go up by factors and not, as bits do, in equal steps."""
    steps = np.diff([value for value in ladder if value != 0])
    return len(steps) > 1 and bool(np.ptp(steps) > 1e-6 * np.abs(steps).max())


def _ticks(positive: np.ndarray) -> list[float]:
    """Powers of ten, or, if there are fewer than two, the values themselves."""
    least, most = math.log10(positive.min()), math.log10(positive.max())
    decades = 10.0 ** np.arange(math.ceil(least), most + 1e-9)
    return decades.tolist() if len(decades) > 1 else sorted({*positive.tolist()})


VIEW = View(
    {"summary": SUMMARY},
    tables,
    figures,
    verdicts,
    # two of them side by side
    swept=Swept(("key", "specification"), ("required", "next", "mean")),
    # figures after what is required of each key alone; the other tables are details
    before_figures=lambda frames: 1,
    kind=(", what it requires", "require"),
    schema=schema,
)
