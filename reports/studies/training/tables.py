"""Results of a training as tables and sentences: how soon and how well each source learns."""

import math
from functools import partial

import pandas as pd

from reports.columns import Table, named, only
from reports.formats import (
    Cell,
    Estimate,
    Format,
    Part,
    Spread,
    count,
    fixed,
    joules,
    number,
    seconds,
)
from reports.frames import Frames
from reports.studies.training.classes import classified
from reports.studies.training.columns import ADVICE, LEARNING, goal, source_name
from reports.studies.training.designs import own_goal
from reports.studies.training.energy import energies, largest
from reports.table import facts_table


def training(frames: Frames) -> list[Table]:
    shown: list[Table] = []
    # advice comes before anything is run: an interrupted training may have no more
    if "learning" in frames.tables:
        shown += _trained(frames)
    if len(frames.tables.get("confusion", ())):
        shown += classified(frames)
    advice = frames.tables.get("advice")
    if advice is not None and len(advice):
        columns = only(ADVICE, ("setting", "why", "used"))
        columns |= {"bound": named(""), "advised": ADVICE["advised"]}
        note = "each for itself, with all other settings as they are; at least, at most: a limit"
        # of runs of an earlier version
        advice = advice if "bound" in advice else advice.assign(bound="")
        shown.append(Table("Advice, before anything is run", note, advice, columns, "why"))
    return shown


def _values(frames: Frames) -> dict[tuple[str, str], float]:
    """(source, measure): value."""
    facts = frames.summary
    # the rows of a summary of facts, to look up
    return dict(
        zip(
            zip(facts["subject"], facts["measure"], strict=True),
            facts["value"].astype(float),
            strict=True,
        )
    )


BY = named("learning by")
SOLVED = {"solved": named("solved"), "ever_solved": named("ever solved")}
# until a goal was first seen reached, and in all
SPENT = {
    "updates_to_goal": named("updates to goal", count),
    "evaluations_to_goal": named("evaluations to goal", count),
    "chip_time_to_goal": named("time to goal", seconds, "s"),
    "energy_to_goal": named("energy to goal", joules, "J"),
    "evaluations": named("evaluations in all", count),
    "chip_time": named("time in all", seconds, "s"),
    "energy": named("energy in all", joules, "J"),
}
# what is measured of every run, and its column of learning
OF_RUNS = {"evaluations": "evaluations", "chip_time": "chip_time_s", "energy": "energy_j"}
# of a source, beside when and how well it learned
FURTHER = (
    "predicted_error",
    "diverged",
    "standing_still",
    "ended_early",
    "ended_at",
    "alignment",
    "gap_to_exact",
    "gradient_share",
    "predicted_gradient_share",
    "stable_learning_rate",
    "calibrated_sigma",
    "calibrated_rate",
)


def _trained(frames: Frames) -> list[Table]:
    """A row per source: when it got there, and where it ended; then what belongs to none of
    them.
    """
    sources = list(dict.fromkeys(frames.learning["source"]))
    value = _values(frames)
    runs = frames.learning["run"].nunique()
    reached = []
    ended = []
    # the measure of how well, in the order of what says most: patterns held back before learned
    known = (
        ("test_accuracy", "test_balanced_accuracy"),
        ("test_error",),
        ("accuracy", "balanced_accuracy"),
    )
    ends = ["error", *next((names for names in known if (sources[0], names[0]) in value), ())]
    if all(
        value[source, name] == value[source, name.replace("balanced_", "")]
        for source in sources
        for name in ends
    ):
        ends = [name for name in ends if "balanced" not in name]  # as many of each class
    for source in sources:
        own = {what: found for (of, what), found in value.items() if of == source}
        name = source_name(frames, source)
        # a share of runs, back to their number
        solved = {what: Part(round(own[what] * runs), runs) for what in ("solved", "ever_solved")}
        spent = {what: own.get(what, math.nan) for what in SPENT}
        ranges = _ranges(frames, source)
        shown_spent = {
            f"{what}_shown": Estimate(value, math.nan, *ranges.get(what, ()))
            for what, value in spent.items()
        }
        reached.append({"source": name, **solved, **spent, **shown_spent})
        row: dict[str, Cell] = {"source": name}
        for what in ends:
            row[what] = Spread(own[what], own[f"{what}_sd"])
            row[f"{what}_worst"] = own[f"{what}_worst"]
        ended.append(row)
    note = (
        "solved: runs that meet the goal at the end; ever: at some record; to goal: until first"
        " seen there, medians of the runs that ever were; in all: means of the whole training; in"
        " brackets the least and the most of a run; evaluations: measurements of E"
    )
    columns = {"source": BY, **SOLVED, **{f"{what}_shown": col for what, col in SPENT.items()}}
    # numbers stay numbers
    records = {"source": BY, **SOLVED, **SPENT}
    frame = pd.DataFrame(reached)
    shown = [Table(f"How soon: {goal(frames)}", note, frame, columns, records=records)]
    columns = {"source": BY}
    for what in ends:
        digits = number if LEARNING[what].less_is_better else partial(fixed, spec=".3f")
        called = what.replace("_", " ")
        columns |= {what: named(called, digits), f"{what}_worst": named(f"worst {called}", digits)}
    # of a file they may be the same ones
    seeds = frames.learning["start_seed"]
    starts = "starting weights and " if (seeds >= 0).any() else ""
    note = (
        f"mean +- standard deviation over the {runs} runs, each with {starts}a die of its own; the"
        " worst of them"
    )
    shown.append(Table("How well, at the end", note, pd.DataFrame(ended), columns))
    rest = frames.summary[frames.summary["measure"].isin(FURTHER)]
    note = "a standard error stands where a value is estimated"
    return [*shown, *energies(frames), facts_table(frames, rest, "Further", note)]


def _ranges(frames: Frames, source: str) -> dict[str, tuple[float, float]]:
    """Of every measure of `SPENT` that differs by run its least and most: to the goal, of the runs
    that ever got there, and in all.
    """
    own = frames.learning[frames.learning["source"] == source]
    wanted = own_goal(frames)
    # rows stand in the order of updates
    first = own[wanted.met(own[wanted.measure].to_numpy(float))].groupby("run").first()
    last = own.groupby("run").last()
    found = {}
    for rows, suffix in ((first, "_to_goal"), (last, "")):
        for what, column in OF_RUNS.items():
            if len(rows):
                values = rows[column].to_numpy(float)
                found[f"{what}{suffix}"] = (float(values.min()), float(values.max()))
    return found


def _from_to(value: float, ends: tuple[float, float], format: Format) -> str:
    """34.2 ms (28 ms to 40.1 ms), with the range of runs."""
    low, high = map(format, ends)
    return f"{format(value)} ({low} to {high})" if low != high else format(value)


def learned(frames: Frames) -> list[tuple[str, str]]:
    """The result of a training, in a sentence for every source."""
    learning = frames.learning
    sentences = []
    value = _values(frames)
    runs = learning["run"].nunique()
    for source in dict.fromkeys(learning["source"]):
        solved, ever = (round(value[source, what] * runs) for what in ("solved", "ever_solved"))
        text = f"ends with {goal(frames)} in {solved} of {runs} runs"
        # infinite where no run got there
        if math.isfinite(updates := value[source, "updates_to_goal"]):
            text += f" ({ever} were ever there), " if ever > solved else ", "
            text += f"first seen there after {count(updates)} updates"
            # the exact gradient measures nothing and has no chip
            if source != "exact":
                text += _spent_of(frames, source, value)
        if diverged := value.get((source, "diverged")):
            text += (
                f"; {round(diverged * runs)} diverged: lower its eta, or let the chip measure its"
                " rate (rate = trace)"
            )
        if still := value.get((source, "standing_still")):
            text += (
                f"; {round(still * runs)} stand still, short of the goal: no weight changes any"
                " more (is E flat there, or an "
            )
            text += "update less than a step of the device? raise estimation.sigma or training.eta)"
        sentences.append((f"{source_name(frames, source)}:", text))
    return sentences


def _spent_of(frames: Frames, source: str, value: dict[tuple[str, str], float]) -> str:
    """What it took to the goal, and what the whole training takes."""
    ranges = _ranges(frames, source)
    parts = {"evaluations": count, "chip_time": seconds, "energy": joules}
    to_goal, in_all = (
        [
            _from_to(value[source, f"{what}{suffix}"], ranges[f"{what}{suffix}"], format)
            for what, format in parts.items()
        ]
        for suffix in ("_to_goal", "")
    )
    return (
        f", {to_goal[0]} evaluations, {to_goal[1]} of chip time and {to_goal[2]} (medians, and"
        f" least and most of a run); the whole training takes {in_all[1]} and {in_all[2]} (means)"
    )


def for_data_sheet(frames: Frames) -> list[str]:
    """Which of these numbers a data sheet can promise, in a sentence."""
    value = _values(frames) if "learning" in frames.tables else {}
    sources = [
        source for source, what in value if what == "chip_time_to_goal" and source != "exact"
    ]
    if not any(math.isfinite(value[source, "chip_time_to_goal"]) for source in sources):
        return []
    blind = (
        "patterns held back, which a chip does not see"
        if frames.experiment["training"]["criterion"].startswith("test")
        else "an exact measure, which a chip does not have"
    )
    return [
        "For a data sheet: the most that the whole training takes, of chip time and energy, and the"
        f" yield of perturb dies; when the goal is first reached is judged by {blind}."
    ]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """(source, its result), as far as there is one."""
    return learned(frames) if "learning" in frames.tables else []


def notes(frames: Frames) -> list[str]:
    """What else was found, in sentences."""
    return [*for_data_sheet(frames), *largest(frames)]


def warnings(frames: Frames) -> list[str]:
    """Warnings about the settings, in sentences."""
    advice = frames.advice[frames.advice["mind"].astype(bool)]
    return [
        f"{row['setting']} = {number(row['used'])}: {row['why']}"
        for row in advice.to_dict("records")
    ]
