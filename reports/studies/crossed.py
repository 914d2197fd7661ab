"""What studies of learning from the same starts on many dies have in common: a row per run, and the
words for what a better chip wins.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from reports.columns import Column
from reports.formats import count, joules, seconds
from reports.frames import Frames

RUNS = {
    "chip": Column("which chip learns"),
    "die": Column("number of its die: --set chip.die takes that one"),
    "start": Column("number of the start, the same on every die"),
    "solved": Column("whether the run ends at the goal"),
    "ever_solved": Column("whether it was there at any record"),
    "evaluations_to_goal": Column(
        "measurements of E when it was first seen there; inf: never", count
    ),
    "chip_time_to_goal_s": Column("chip time then, s", seconds, "s"),
    "energy_to_goal_j": Column("energy then, J", joules, "J"),
    "evaluations": Column("measurements of E in all", count),
    "chip_time_s": Column("chip time in all, s", seconds, "s"),
    "energy_j": Column("energy in all, J", joules, "J"),
    "error": Column("E at the end, on the patterns learned, exact", less_is_better=True),
    "accuracy": Column("share of them classified rightly; empty where targets are no classes"),
    "balanced_accuracy": Column("mean over the classes of the share of each classified rightly"),
    "validation_error": Column("E on the patterns for validation", less_is_better=True),
    "validation_accuracy": Column("share of them classified rightly"),
    "validation_balanced_accuracy": Column("mean over the classes of the share classified rightly"),
    "test_error": Column("E on the patterns held back", less_is_better=True),
    "test_accuracy": Column("share of them classified rightly"),
    "test_balanced_accuracy": Column("mean over the classes of the share classified rightly"),
    "diverged": Column("whether the error is no longer finite, or 10,000 times that at the start"),
    "run_seed": Column("seed of the run's perturbations, noise and presented patterns"),
    "start_seed": Column("seed of its starting weights: --set weights.seed starts there"),
}
Row = Mapping[Any, Any]
SURE = 3.0  # standard errors from which on one of several imperfections is named: few by chance


def rows_by_name(frames: Frames) -> dict[tuple[str, str], Row]:
    """(subject, measure): the row of a summary of facts."""
    return {(row["subject"], row["measure"]): row for row in frames.summary.to_dict("records")}


def share_words(row: Row, signed: bool = False) -> str:
    """62 % [41 %, 83 %]: a share with its interval, as far as that is known."""
    text = f"{100 * row['value']:{'+' if signed else ''}.3g} %"
    # NaN, of an interval that is not known, compares as false
    if row["low"] <= row["high"]:
        text += f" [{100 * row['low']:.3g} %, {100 * row['high']:.3g} %]"
    return text


def gain(saved: Row, more: Row | None = None) -> str:
    """What a better chip wins: evaluations of a solved run, and runs that are solved."""
    texts = []
    if saved["value"] < 0 and math.isfinite(saved["value"]):
        # what is saved turned round: what it costs
        cost = {"value": -saved["value"], "low": -saved["high"], "high": -saved["low"]}
        texts.append(f"costs {share_words(cost)} more evaluations for a solved run")
    elif math.isfinite(saved["value"]):
        texts.append(f"saves {share_words(saved)} of the evaluations that a solved run takes")
    elif math.isnan(saved["value"]):
        # no run is solved on the chip as it is, so that there is no ratio
        if more is not None and not more["value"] > 0:
            return "solves no run either"
        texts.append("lets runs be solved at all")
    if more is not None:
        texts.append(f"solves {share_words(more, signed=True)} of all runs more")
    return " and ".join(texts)


def at_the_end(
    rows: Mapping[tuple[str, str], Row], name: str, better: str, measures: Iterable[str]
) -> str:
    """With what another chip ends that is surely better: accuracies and errors, at `SURE` standard
    errors; "" where none is.
    """
    texts = []
    for measure in dict.fromkeys(measures):
        own, other = rows.get((name, measure)), rows.get((better, measure))
        if own is None or other is None:
            continue
        gap = other["value"] - own["value"]
        gap = -gap if measure.endswith("error") else gap
        # the same starts and dies: as if they were others, which makes it less sure than it is
        error = math.hypot(own["stderr"], other["stderr"])
        # NaN, of an error that is not known, compares as false
        if gap > SURE * error > 0:
            called = measure.replace("_", " ")
            texts.append(
                f"{called} {other['value']:.3g} instead of {own['value']:.3g},"
                f" {gap / error:.1f} standard errors apart"
            )
    return " and ".join(texts)


def is_sure(saved: Row) -> bool:
    """Whether one of several imperfections costs evaluations: its interval begins above 0, and the
    logarithm of what is left is `SURE` standard errors away from none saved.
    """
    left = 1 - saved["value"]
    return bool(saved["low"] > 0 and left > 0 and -math.log(left) > SURE * saved["stderr"] / left)


def most(rows: list[Row]) -> float:
    """The most that any of these may be: the largest upper end of an interval that is known, and
    no less than the largest value.
    """
    ends = [
        # only NaN differs from itself
        max(row["value"], row["high"]) if row["high"] == row["high"] else row["value"]
        for row in rows
        if math.isfinite(row["value"])
    ]
    return max(ends, default=math.nan)


def at_most(share: float) -> int:
    """The whole percentage that a share does not exceed."""
    # 100 times 0.07 is a little above 7
    return math.ceil(round(100 * share, 6))
