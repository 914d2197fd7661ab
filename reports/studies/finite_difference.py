"""How finite differences are shown beside R{backprop}."""

from typing import TYPE_CHECKING

import numpy as np

from reports.columns import Column
from reports.figures import COLOURS, ONE, Drawing, drawn, finished, legend_below, sheet
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts
from reports.vocabulary import CENTRAL, ONE_SIDED, R_BACKPROP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERRORS = {
    "kind": Column("one-sided or central difference of two gradients"),
    "displacement": Column("|r v|, units of the weights"),
    "error": Column(
        "|difference - Hv| / |Hv|, with Hv by R{backprop}; empty where the network did not settle",
        less_is_better=True,
    ),
}
COLUMNS = {"summary": FACTS, "errors": ERRORS}


SWEPT = Swept(("subject",), ("smallest_error",), errors=("smallest_error",))


def finite_difference(frames: Frames) -> "Figure":
    """Error of the two finite differences against the displacement, lines of slope 1 and 2,
    R{backprop} as the floor.
    """
    figure = sheet(4.2, ONE)
    axis = figure.subplots()
    errors = frames.errors
    for kind, order, colour in ((ONE_SIDED, 1, COLOURS[0]), (CENTRAL, 2, COLOURS[3])):
        # ordered by the study, the largest displacement last
        own = errors[errors["kind"] == kind]
        displacement = own["displacement"].to_numpy()
        error = own["error"].to_numpy()
        axis.plot(displacement, error, "o", color=colour, markersize=4, label=f"{kind} difference")
        # through the largest displacement whose error is below 1 %: there truncation rules
        small = np.flatnonzero(error < 1e-2)
        if small.size:
            at = small[-1]
            line = error[at] * (displacement / displacement[at]) ** order
            # not far below the points: there rounding rules, and no line is to be followed
            shown = (line > 0.3 * np.nanmin(error)) & (line < 10)
            axis.plot(
                displacement[shown],
                line[shown],
                color=colour,
                linewidth=1,
                alpha=0.7,
                label=f"slope {order}",
            )
        chosen = frames.fact("chosen_displacement", kind)
        axis.plot(
            chosen,
            frames.fact("error_there", kind),
            "D",
            color=colour,
            markersize=9,
            fillstyle="none",
            label="chosen",
        )
    axis.axhline(frames.fact("error", R_BACKPROP), color=COLOURS[2], linewidth=2, label=R_BACKPROP)
    axis.set(xscale="log", yscale="log", xlabel="displacement |r v|", ylabel="relative error of Hv")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=7)
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "finite_difference": (
        finite_difference,
        (
            "Hv from the difference of two gradients, against exact R{backprop}. From the right the"
            " error falls with the order of the difference, until rounding, which grows as the"
            " displacement shrinks, takes over. R{backprop} has no displacement to choose: the line"
            " at the bottom is what rounding leaves of it."
        ),
    )
}


VIEW = View(COLUMNS, lambda frames: [facts(frames)], drawn(FIGURES), swept=SWEPT)
