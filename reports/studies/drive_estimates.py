"""How estimates of a real chip are shown, next to those of the emulator and the exact ones."""

from typing import TYPE_CHECKING

from reports.columns import Column, Table
from reports.figures import COLOURS, ONE, Drawing, drawn, finished, legend_below, sheet
from reports.frames import QUANTITIES, Frames, Swept, View
from reports.studies.drive import INCIDENTS, LOG, shown_incidents
from reports.studies.facts import FACTS
from reports.table import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ESTIMATES = {
    "quantity": Column("gradient or hv"),
    "index": Column("number of the weight in the flat vector w"),
    "chip": Column("estimate from what the chip measured"),
    "stderr": Column("its standard error; empty where it is not known"),
    "emulated": Column("estimate of the emulated chip, by the same perturbations"),
    "exact": Column("exact, of the network on its data"),
}
# E at the weights, which stay: it shows drift
DRIFT = {name: LOG[name] for name in ("evaluations", "wall_s", "error")}
COLUMNS = {"summary": FACTS, "estimates": ESTIMATES, "log": DRIFT, "incidents": INCIDENTS}


def _tables(frames: Frames) -> list[Table]:
    return [facts(frames), *shown_incidents(frames)]


def estimates(frames: Frames) -> "Figure | None":
    """Estimates against exact values, of the chip and of the emulated chip."""
    groups = list(frames.estimates.groupby("quantity", sort=True))
    figure = sheet(3.6, ONE if len(groups) == 1 else 2 * ONE)
    for axis, (quantity, rows) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True
    ):
        for column, colour in (("emulated", COLOURS[1]), ("chip", COLOURS[3])):
            axis.scatter(rows["exact"], rows[column], s=12, label=column, color=colour)
        ends = [rows["exact"].min(), rows["exact"].max()]
        axis.plot(ends, ends, color="grey", linewidth=0.8, linestyle=":")
        axis.set(xlabel="exact", ylabel="estimate", title=QUANTITIES[str(quantity)])
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=2)
    return finished(figure)


def drift(frames: Frames) -> "Figure | None":
    """E at the weights, measured again and again."""
    figure = sheet(2.6, ONE)
    axis = figure.subplots()
    axis.plot(frames.log["evaluations"], frames.log["error"], marker=".", color=COLOURS[3])
    axis.set(xlabel="measurements of E", ylabel="E(w)")
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "estimates": (
        estimates,
        "Estimates against exact values, a point for each weight: of the chip, and of the emulated"
        " chip.",
    ),
    "drift": (drift, "E at the weights as the chip measures it, which drift and noise change."),
}
VIEW = View(COLUMNS, _tables, drawn(FIGURES), swept=Swept(("subject",), ("g_cosine", "z_cosine")))
