"""How learning on many dies of one design is shown: what limits it, and yield."""

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import Column, Table, named, only
from reports.figures import COLOURS, INK, ONE, Drawing, drawn, finished, legend_below, sheet
from reports.formats import Estimate, Part, count, integer, percent
from reports.frames import Frames, Swept, View
from reports.statistics import Wanted
from reports.studies.crossed import RUNS, Row, at_the_end, gain, rows_by_name, share_words
from reports.studies.designs.design import (
    NOT_KNOWN,
    Design,
    Designed,
    median,
    must_not_vary,
    no_goal_but_its_own,
    place,
    point_estimates,
)
from reports.studies.facts import FACTS
from reports.studies.training.columns import goal
from reports.table import facts
from reports.vocabulary import DESIGN, IDEAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIES = {
    "die": Column("number of the die, the seed of all that differs between them", integer),
    "starts": Column("starts on it, the same on every die", count),
    "solved": Column("share of them that are solved at the end", percent, "share"),
    "solved_low": Column("lower end of its 95 % interval (Wilson)", percent, heading="low"),
    "solved_high": Column("its upper end", percent, heading="high"),
    "error": Column("mean E at the end, on the patterns learned", less_is_better=True),
    "test_accuracy": Column("mean share of patterns held back classified rightly"),
    "evaluations_to_goal": Column(
        "measurements of E, median of the runs that ever got there; inf: none did", count
    ),
}
COLUMNS = {"summary": FACTS, "dies": DIES, "runs": RUNS}
SWEPT = Swept(
    ("subject",),
    ("solved", "yield", "evaluations_to_goal"),
    wanted=("yield", 0.9),
    shares={"yield": "dies.count"},
    errors=("error", "test_error"),
)
DIES_NAMED = 30  # of which a figure has room for the numbers


def tables(frames: Frames) -> list[Table]:
    """The facts, and the dies, those that solve fewest first, then by what the goal is of."""
    each = frames.dies.assign(number=range(1, len(frames.dies) + 1))
    criterion = frames.experiment["training"]["criterion"]
    own = frames.runs[frames.runs["chip"] == DESIGN]
    each["judged"] = each["die"].map(own.groupby("die")[criterion].mean())
    # the worst is a large error, but a small accuracy
    each = each.sort_values(["solved", "judged"], ascending=[True, criterion.endswith("accuracy")])
    # a share of starts, back to their number
    parts = [
        Part(round(share * of), of)
        for share, of in zip(each["solved"], each["starts"], strict=True)
    ]
    each = each.assign(solved=pd.Series(parts, each.index, object))
    names = ["solved", "solved_low", "solved_high", "error", "evaluations_to_goal"]
    if each["test_accuracy"].notna().any():
        names.insert(4, "test_accuracy")
    note = (
        f"{goal(frames)} at the end, from the same starts on every die; with a 95 % interval; dies"
        " are numbered as in the table dies of the files, which has the seed of each, for --set"
        " chip.die"
    )
    # the seed has 19 digits, which nobody reads
    columns = {"number": named("die", integer), **only(DIES, names)}
    return [facts(frames), Table("Dies, the worst first", note, each, columns)]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """What limits learning on these dies, and the yield."""
    rows = rows_by_name(frames)
    sentences = []
    if (IDEAL, "saved") in rows:
        saved, more = rows[IDEAL, "saved"], rows[IDEAL, "solved_more"]
        limit = "The chip's imperfections limit:"
        if math.isnan(saved["value"]):
            limit = limit if more["value"] > 0 else "What limits is not known:"
        elif not (saved["low"] > 0 or more["low"] > 0):
            limit = "The chip's imperfections do not limit, as far as these runs tell:"
        wins = [gain(saved, more)]
        # what evaluations to the goal do not tell
        if better := at_the_end(
            rows, DESIGN, IDEAL, [frames.experiment["training"]["criterion"], "error"]
        ):
            wins.insert(0, f"ends with {better}")
            if "do not limit" in limit:
                limit = (
                    "The chip's imperfections make learning end worse, but do not delay the goal,"
                    " as far as these runs tell:"
                )
        sentences.append((limit, f"an ideal chip {'; it '.join(wins)}"))
    elif not frames.partial:
        sentences.append(("The chip has no imperfection", "that could limit"))
    good, solved = rows[DESIGN, "yield"], rows[DESIGN, "solved"]
    wanted = frames.experiment["dies"]["solved"]
    sentences.append(
        (
            "Yield where the runs were stopped, before their end:" if frames.partial else "Yield:",
            f"{share_words(good)} of {len(frames.dies)} dies solve at least {wanted:.0%} of the"
            f" starts; {share_words(solved)} of all runs end with {goal(frames)}",
        )
    )
    sentences += _makers({name: rows[name, "variance_share"] for name in ("dies", "starts")})
    return sentences


def designs(frames: Frames, wanted: Wanted | None) -> Designed:
    """The chip as it is designed, by its yield; of a sweep, at every point."""
    no_goal_but_its_own(frames, wanted, f"its yield at {goal(frames)}")
    options = frames.experiment["dies"]
    agree = ("dies.solved", "dies.starts")
    said = f"{goal(frames)} from {options['solved']:.0%} of {options['starts']} starts"
    same = {"goal": said, "network.error": frames.experiment["network"].get("error")}
    spent = ("evaluations_to_goal", "chip_time_to_goal", "energy_to_goal")
    if frames.means is not None:
        must_not_vary(frames, (*agree, "training.criterion", "training.goal"))
        ends = point_estimates(frames, "yield")
        each = [point_estimates(frames, measure) for measure in spent]
        found = []
        for point, value in ends.items():
            evaluations, time_s, energy_j = (of.get(point, NOT_KNOWN) for of in each)
            name = ", ".join(place(frames, point[:-1]))
            found.append(Design(name, value, evaluations, time_s, energy_j))
        return Designed("yield", "share", said, same, found)
    rows = rows_by_name(frames)[DESIGN, "yield"]
    runs = frames.runs[frames.runs["chip"] == DESIGN]
    first = runs[runs["ever_solved"].astype(bool)]
    columns = ("evaluations_to_goal", "chip_time_to_goal_s", "energy_to_goal_j")
    evaluations, time_s, energy_j = (median(first[column].to_numpy(float)) for column in columns)
    share = Estimate(rows["value"], low=rows["low"], high=rows["high"])
    own = Design("", share, evaluations, time_s, energy_j, Part(len(first), len(runs)))
    return Designed("yield", "share", said, same, [own])


def _makers(shares: dict[str, Row]) -> list[tuple[str, str]]:
    """Whether dies or starts make runs end apart."""
    parts = []
    for name, other in (("dies", "from the same start"), ("starts", "on the same die")):
        row = shares[name]
        if not math.isnan(row["value"]):
            # an interval that begins at 0: chance alone may look like it
            sure = "" if row["low"] > 0 or row["value"] == 0 else ", which may be chance"
            parts.append(f"{name} make {share_words(row)} of the variance {other}{sure}")
    return [("Where runs end differs:", "; ".join(parts))] if parts else []


def dies(frames: Frames) -> "Figure":
    """How many of its starts each die solves, and where its runs end."""
    own = frames.runs[frames.runs["chip"] == DESIGN]
    options = frames.experiment["training"]
    criterion = options["criterion"]
    figure = sheet(3.6, ONE)
    axis = figure.subplots()
    # by the median, which one start that runs away does not move
    order = list(own.groupby("die")[criterion].median().sort_values(kind="stable").index)
    numbers = {die: number for number, die in enumerate(frames.dies["die"], 1)}
    starts = sorted(own["start"].unique())
    handles = {}
    for i, start in enumerate(starts):
        each = own[own["start"] == start].set_index("die").loc[order]
        # beside each other: accuracies are few different numbers
        beside = 0.7 * ((i + 0.5) / len(starts) - 0.5)
        # a colour for each start: one that ends badly on every die is seen
        (handles[f"start {start}"],) = axis.plot(
            np.arange(len(order)) + beside,
            each[criterion],
            "o",
            color=COLOURS[int(start) % len(COLOURS)],
            markersize=4,
        )
    if 1 < len(starts) <= len(COLOURS):
        legend_below(figure, handles.values(), handles.keys(), ncols=len(COLOURS) // 2)
    axis.axhline(options["goal"], color=INK, linewidth=0.8, linestyle=":")
    # a run that ends at exactly 0 has no place on a logarithmic axis
    if criterion.endswith("error") and (own[criterion] > 0).all():
        axis.set_yscale("log")
    # of many every second, or fewer
    shown = range(0, len(order), math.ceil(len(order) / DIES_NAMED))
    axis.set_xticks(shown, [str(numbers[order[place]]) for place in shown])
    axis.set(xlabel="die, sorted by the median of its runs", ylabel=criterion.replace("_", " "))
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "dies": (
        dies,
        (
            "Where every run ends, die by die, numbered as in the table; starts have a colour each,"
            " the same on every die. Dotted: the goal. Colours in layers: starts make the"
            " difference; columns apart: dies do."
        ),
    )
}


VIEW = View(
    COLUMNS, tables, drawn(FIGURES), verdicts, swept=SWEPT, designs=designs, answer_first=True
)
