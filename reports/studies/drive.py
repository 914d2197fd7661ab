"""How learning on a real chip is shown, next to what the emulator predicted."""

from typing import TYPE_CHECKING

from reports.columns import Column, Table
from reports.figures import COLOURS, ONE, Drawing, drawn, finished, legend_below, sheet
from reports.formats import count, seconds
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG = {
    "source": Column("chip, or emulated: the same run of the emulated chip"),
    "update": Column("updates done", count),
    "evaluations": Column(
        "measurements of E so far: of the chip in this session, those of the log and repeated ones"
        " included",
        count,
    ),
    "wall_s": Column("time since the session began, s; empty of the emulated chip", seconds, "s"),
    "error": Column(
        "E at the weights: of the chip as it measures it, of the emulated one exact",
        less_is_better=True,
    ),
}
INCIDENTS = {
    "kind": Column("what happened"),
    "count": Column("how often, in the last session", count),
    "worst": Column("largest size, of what has one"),
}
SET_WEIGHTS = {
    "index": Column("number of the weight in the flat vector w"),
    "w": Column("weight that was learned, as it was to be set"),
}
COLUMNS = {
    "summary": FACTS,
    "log": LOG,
    "incidents": INCIDENTS,
    "set_weights": SET_WEIGHTS,
}
SHOWN = 20  # rows of the log


def shown_incidents(frames: Frames) -> list[Table]:
    """What went wrong, if anything did."""
    if not len(frames.incidents):
        return []
    note = "of the link and of weights that were written, in the last session"
    return [Table("Incidents", note, frames.incidents, INCIDENTS)]


def _tables(frames: Frames) -> list[Table]:
    shown = [facts(frames), *shown_incidents(frames)]
    looks = frames.log
    chip = looks[looks["source"] == "chip"]
    # evenly, the last one among them
    rows = chip.iloc[:: -max(1, len(chip) // SHOWN)].iloc[::-1]
    shown.append(Table("E(w) as the chip measures it", "some of the looks", rows, LOG))
    return shown


def learning(frames: Frames) -> "Figure | None":
    """E against updates, of the chip and of the emulated chip."""
    figure = sheet(3.6, ONE)
    axis = figure.subplots()
    for (source, rows), colour in zip(
        frames.log.groupby("source", sort=True), (COLOURS[3], COLOURS[1]), strict=False
    ):
        axis.plot(rows["update"], rows["error"], label=str(source), color=colour)
    axis.set(xlabel="updates", ylabel="E at the weights")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=2)
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "learning": (
        learning,
        "E at the weights, as the chip measures it, and what the emulator predicted: the same run.",
    )
}
VIEW = View(COLUMNS, _tables, drawn(FIGURES), swept=Swept(("subject",), ("final_error",)))
