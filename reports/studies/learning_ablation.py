"""How the cost of imperfections to learning is shown: first what limits."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import Table, named
from reports.escape import plain
from reports.figures import COLOURS, INK, WIDTH, Drawing, drawn, finished, sheet
from reports.formats import Cell, Estimate, count, joules, percent, seconds
from reports.frames import Frames, Swept, View
from reports.studies.crossed import (
    RUNS,
    SURE,
    Row,
    at_most,
    gain,
    is_sure,
    most,
    rows_by_name,
    share_words,
)
from reports.studies.facts import FACTS
from reports.studies.training.columns import goal
from reports.table import facts_table
from reports.vocabulary import ALL, ALL_BUT, IDEAL, ONLY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {"summary": FACTS, "runs": RUNS}
SWEPT = Swept(
    ("subject",),
    ("solved", "evaluations_to_goal", "cost", "saved"),
    wanted=("solved", 0.5),
    errors=("error", "test_error"),
)
SHOWN = {
    "solved": named("solved", percent),
    "solved_more": named("solved more", percent),
    "evaluations_to_goal": named("evaluations to goal", count),
    "chip_time_to_goal": named("time to goal", seconds),
    "energy_to_goal": named("energy to goal", joules),
    "error": named("error"),
    "test_accuracy": named("test accuracy"),
    "accuracy": named("accuracy"),
    "cost": named("cost"),
    "saved": named("saved", percent),
}
WORSE = 0.1  # of E at the end: less is not worth a sentence
ESTIMATED = ("solved", "solved_more", "cost", "saved")


def chips(frames: Frames) -> list[str]:
    """The chips: as it is, ideal, without one imperfection, from that which saves most on, and
    with one alone, the dearest first.
    """
    rows = rows_by_name(frames)
    groups: dict[str, list[str]] = {ALL: [], IDEAL: [], ALL_BUT: [], ONLY: []}
    for name in dict.fromkeys(frames.summary["subject"]):
        groups[_group(name)].append(name)

    def place(name: str) -> float:
        spent = _spent(rows, name)
        return -spent if _group(name) == ONLY else spent

    return [name for group in groups.values() for name in sorted(group, key=place)]


def _group(name: str) -> str:
    # "all" begins "all but ...", too
    return next(group for group in (ALL_BUT, ONLY, IDEAL, ALL) if name.startswith(group))


def tables(frames: Frames) -> list[Table]:
    """A row per chip; and what the measures are, of the chip as it is."""
    rows = rows_by_name(frames)
    listed = []
    for name in chips(frames):
        cells: dict[str, Cell] = {"chip": name}
        for measure in SHOWN:
            row = rows.get((name, measure))
            cells[measure] = math.nan
            if row is not None and measure in ESTIMATED:
                cells[measure] = Estimate(row["value"], math.nan, row["low"], row["high"])
            elif row is not None:
                cells[measure] = row["value"]
        listed.append(cells)
    frame = pd.DataFrame(listed)
    # of what was judged: an experiment without classes has no accuracy
    measured = set(frames.summary["measure"])
    columns = {name: column for name, column in SHOWN.items() if name in measured}
    note = (
        f"{goal(frames)} at the end; to goal: medians of the runs that got there; cost: evaluations"
        " that a solved run takes, in those on the ideal chip; saved, solved more: over the chip as"
        " it is (all), run by run; with 95 % intervals"
    )
    own = frames.summary[frames.summary["subject"] == ALL]
    return [
        Table(
            "Learning: what each imperfection costs",
            note,
            frame,
            {"chip": named("chip"), **columns},
        ),
        facts_table(frames, own, "The chip as it is", "a standard error stands where it is known"),
    ]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """What limits learning, by how much, and what would be won; then what single imperfections
    cost.
    """
    rows = rows_by_name(frames)
    saved = {
        name.removeprefix(f"{ALL_BUT} "): row
        for (name, measure), row in rows.items()
        if measure == "saved" and _group(name) == ALL_BUT
    }
    sentences = []
    if saved:
        sentences.append(_limiting(rows, saved))
    if worse := _errors(rows, list(saved)):
        sentences.append(("The error E at the end:", worse))
    alone = {
        name.removeprefix(f"{ONLY} "): row
        for (name, measure), row in rows.items()
        if measure == "cost" and _group(name) == ONLY
    }
    if alone:
        sentences.append(("Alone:", _costs(alone)))
    together = rows.get((IDEAL, "saved"))
    if together is not None:
        more = rows[IDEAL, "solved_more"]
        sentences.append(("Without any of them:", f"the chip {gain(together, more)}"))
    return sentences


def _limiting(rows: dict[tuple[str, str], Row], saved: dict[str, Row]) -> tuple[str, str]:
    """Of what is taken away one by one."""
    # where the chip as it is solves nothing, no share of its evaluations is known
    sure = [name for name, row in saved.items() if is_sure(row) or _solves(rows, name)]
    likely = [name for name, row in saved.items() if row["low"] > 0]
    if candidates := sure or likely:
        first = min(candidates, key=lambda name: _spent(rows, f"{ALL_BUT} {name}"))
        more = rows[f"{ALL_BUT} {first}", "solved_more"]
        text = f"a chip without it {gain(saved[first], more)}"
        if others := [name for name in candidates if name != first]:
            each = (f"{name} ({share_words(saved[name])})" for name in others)
            text += f"; so would a chip without {' or '.join(each)}"
        if sure:
            return f"{first} limits:", text
        text += f"; of {len(saved)} that were taken away one may look so by chance"
        return f"{first} is likely to limit:", text
    bound = most(list(saved.values()))
    if math.isnan(bound):
        return "What limits is not known:", "no run is solved, whatever single one is taken away"
    return (
        "No single imperfection is seen to limit:",
        (
            "these runs do not tell what a chip without one of them would save; it is not more than"
            f" {max(at_most(bound), 0)} % of the evaluations that a solved run takes"
        ),
    )


def _errors(rows: dict[tuple[str, str], Row], names: Sequence[str]) -> str:
    """What raises E at the end, which evaluations to the goal do not tell; "" if nothing does."""
    own = rows[ALL, "error"]
    found = {}
    for name in names:
        other = rows[f"{ALL_BUT} {name}", "error"]
        # the same starts and dies: as if they were others, which makes it less sure than it is
        reach = SURE * math.hypot(own["stderr"], other["stderr"])
        # NaN, of an error that is not known, compares as false
        if own["value"] - other["value"] > max(reach, WORSE * other["value"]):
            found[name] = other["value"]
    if not found:
        return ""
    each = (
        f"{name} ({own['value'] / value:.3g} times that of a chip without it, {value:.3g})"
        for name, value in sorted(found.items(), key=lambda item: item[1])
    )
    return f"{own['value']:.3g} on the chip as it is, raised by {' and '.join(each)}"


def _spent(rows: dict[tuple[str, str], Row], name: str) -> float:
    return float(rows[name, "evaluations_per_solved"]["value"])


def _solves(rows: dict[tuple[str, str], Row], name: str) -> bool:
    # a chained comparison: no run solved on the chip as it is, some without this imperfection
    return rows[ALL, "solved"]["value"] == 0 < rows[f"{ALL_BUT} {name}", "solved"]["value"]


def _costs(alone: dict[str, Row]) -> str:
    """What single imperfections cost over the ideal chip, and what the others do at most."""
    parts = []
    if never := [name for name, row in alone.items() if np.isinf(row["value"])]:
        parts.append(f"no run is solved with {' or '.join(never)}")
    # a cost of 1 is that of the ideal chip
    dear = {name: row for name, row in alone.items() if row["low"] > 1}
    for name, row in sorted(dear.items(), key=lambda each: -each[1]["value"]):
        parts.append(f"{name} costs {_times(row)} the evaluations")
    rest = {name: row for name, row in alone.items() if name not in dear and name not in never}
    if rest:
        bound = most(list(rest.values()))
        if math.isnan(bound):
            parts.append("what they cost is not known: no run is solved on the ideal chip")
        else:
            least = max(at_most(bound - 1), 1)
            # from twice on, times are easier to read than per cent
            text = f"{least} %" if bound < 2 else f"{bound:.3g} times the evaluations"
            parts.append(
                f"nothing {'else ' if parts else ''}here costs more than {text}, as far as these"
                " runs tell"
            )
    return "; ".join(parts)


def _times(row: Row) -> str:
    return f"{row['value']:.3g} times [{row['low']:.3g}, {row['high']:.3g}]"


def ablation(frames: Frames) -> "Figure":
    """Evaluations that a solved run takes on every chip, and E at the end, a bar each."""
    rows = rows_by_name(frames)
    names = chips(frames)
    figure = sheet(1.2 + 0.3 * len(names), WIDTH)
    spent, end = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axis, ends in (
        (spent, [_spent_ends(rows, name) for name in names]),
        (end, [_error_ends(rows[name, "error"]) for name in names]),
    ):
        values, low, high = np.array(ends, float).T
        axis.barh(
            range(len(names)), np.where(np.isfinite(values), values, 0.0), color=_colours(names)
        )
        known = np.isfinite(low) & np.isfinite(high) & np.isfinite(values)
        axis.errorbar(
            values[known],
            np.arange(len(names))[known],
            xerr=np.abs([(values - low)[known], (high - values)[known]]),
            fmt="none",
            ecolor=INK,
            elinewidth=1.2,
            capsize=2,
        )
        for place, value in enumerate(values):
            # "never" has no length that a bar could have
            if not math.isfinite(value):
                axis.text(0.0, place, " never" if axis is spent else " -", va="center", fontsize=9)
    spent.set_yticks(range(len(names)), list(map(plain, names)))
    # the first row on top, as in the table
    spent.invert_yaxis()
    spent.set(xlabel="evaluations of E that a solved run takes, runs in vain included")
    end.set(xlabel="E at the end")
    return finished(figure)


def _spent_ends(rows: dict[tuple[str, str], Row], name: str) -> tuple[float, float, float]:
    """Evaluations that a solved run takes on a chip, and the ends of the interval of their ratio to
    those on the chip that it is compared with.
    """
    value = _spent(rows, name)
    if row := rows.get((name, "saved")):
        base = _spent(rows, ALL)
        return value, base * (1 - row["high"]), base * (1 - row["low"])
    if (row := rows.get((name, "cost"))) and (IDEAL, "evaluations_per_solved") in rows:
        base = _spent(rows, IDEAL)
        return value, base * row["low"], base * row["high"]
    return value, math.nan, math.nan


def _error_ends(row: Row) -> tuple[float, float, float]:
    return row["value"], row["value"] - row["stderr"], row["value"] + row["stderr"]


def _colours(names: Iterable[str]) -> list[str]:
    # the one grey of its own: intervals are drawn in that of axes
    own = {ONLY: COLOURS[0], ALL_BUT: COLOURS[3]}
    return [own.get(_group(name), COLOURS[7]) for name in names]


FIGURES: dict[str, Drawing] = {
    "ablation": (
        ablation,
        (
            "Evaluations that a solved run takes, those of runs in vain included, and E at the end:"
            " the chip as it is and the ideal one (grey), without one imperfection (blue), with it"
            " alone (red). Lines: of evaluations the 95 % interval of their ratio, from the same"
            " starts on the same dies, to those on the chip as it is (blue, ideal) or on the ideal"
            " one (red, as it is); of E one standard error to either side."
        ),
    )
}


VIEW = View(COLUMNS, tables, drawn(FIGURES), verdicts, swept=SWEPT, answer_first=True)
