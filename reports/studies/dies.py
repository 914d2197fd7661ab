"""How the dies of one design are shown: distribution and yield."""

import math
from typing import TYPE_CHECKING

import numpy as np

from reports.columns import Column
from reports.figures import COLOURS, INK, ONE, Drawing, drawn, finished, legend_below, sheet
from reports.formats import cosine, count, percent
from reports.frames import QUANTITIES, Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIES = {
    "die": Column("number of the die, the seed of all that differs between them"),
    "quantity": Column("gradient or hv"),
    "trials": Column("trials on each", count),
    "cosine": Column("cosine with exact R{backprop}", cosine, "cosine"),
    "relative_error": Column("|estimate - exact| / |exact|", less_is_better=True),
    "incidents": Column("what went wrong on it"),
}
COLUMNS = {"summary": FACTS, "dies": DIES}


SWEPT = Swept(
    ("subject",),
    ("median_cosine", "yield"),
    wanted=("median_cosine", "dies.accuracy"),
    shares={"yield": "dies.count"},
)


def dies(frames: Frames) -> "Figure":
    """How the cosines of the dies are distributed, and the accuracy wanted."""
    figure = sheet(3.6, ONE)
    axis = figure.subplots()
    accuracy = frames.experiment["dies"]["accuracy"]
    for (quantity, title), colour in zip(
        (("hv", "z = Hv"), ("gradient", "gradient")), (COLOURS[3], COLOURS[2]), strict=True
    ):
        # the empirical distribution: every die, no bins to choose
        cosines = np.sort(frames.dies.loc[frames.dies["quantity"] == quantity, "cosine"])
        if len(cosines):
            axis.step(
                cosines,
                np.arange(1, len(cosines) + 1) / len(cosines),
                where="post",
                color=colour,
                label=title,
            )
    # right of it the yield
    axis.axvline(accuracy, color=INK, linewidth=0.8, linestyle=":")
    axis.set(xlabel="cosine with the exact answer", ylabel="share of dies up to there")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=2)
    return finished(figure)


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """What limits the estimates of these dies: trials, the design, or what differs between dies."""
    facts = {(row["subject"], row["measure"]): row for row in frames.summary.to_dict("records")}
    accuracy = frames.experiment["dies"]["accuracy"]
    sentences = []
    for quantity in dict.fromkeys(frames.dies["quantity"]):
        own = frames.dies[frames.dies["quantity"] == quantity]
        good, trials = facts[quantity, "yield"], facts[quantity, "trials_to_accuracy"]
        # dies that were run: an interrupted study has fewer than dies.count
        n = len(own)
        share = (
            f"{round(good['value'] * n)} of {n} dies have a cosine of {accuracy:g} (yield"
            f" {percent(good['value'])}, 95 % interval {percent(good['low'])} to"
            f" {percent(good['high'])})"
        )
        done = own["trials"].iloc[0]
        wanted = count(trials["value"])
        if math.isfinite(trials["stderr"]):
            wanted += f" +- {count(trials['stderr'])}"
        if good["value"] == 1:
            limit = "nothing limits"
        # of the mean of the dies, after a quarter and after all of the trials: see the study
        elif not math.isfinite(trials["value"]):
            limit = "the design limits: the mean of the dies never gets there, with any trials"
        # the mean would get there with more of them
        elif trials["value"] > done:
            limit = (
                f"trials limit: with {wanted} in place of {count(done)} the mean of the dies has"
                " that cosine"
            )
        else:
            limit = f"what differs between dies limits: their mean gets there after {wanted} trials"
        sentences.append((f"{QUANTITIES[quantity]}:", f"{limit}; {share}"))
    return sentences


FIGURES: dict[str, Drawing] = {
    "dies": (
        dies,
        (
            "Dies of one design: the share of them whose cosine is at most so large. Dotted: the"
            " accuracy wanted."
        ),
    )
}


VIEW = View(
    COLUMNS,
    lambda frames: [facts(frames)],
    drawn(FIGURES),
    verdicts,
    swept=SWEPT,
    answer_first=True,
)
