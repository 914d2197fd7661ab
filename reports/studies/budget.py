"""How a budget is shown: what an accuracy takes, and what to improve first."""

from typing import TYPE_CHECKING

import numpy as np

from reports.columns import Column, Table, only
from reports.escape import plain
from reports.figures import COLOURS, ONE, Drawing, drawn, finished, legend_below, sheet
from reports.formats import percent
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SENSITIVITIES = {
    "key": Column("parameter of the chip", heading="parameter"),
    "value": Column("its value, in the unit of its name"),
    "change": Column("what is done to it", heading="changed to"),
    "quantity": Column("gradient or hv"),
    "trials_saved": Column("share of the trials saved, by theory", percent, "share"),
    "time_saved": Column("share of the chip time saved", percent, "share"),
    "energy_saved": Column("share of the energy saved", percent, "share"),
}
COLUMNS = {"summary": FACTS, "sensitivities": SENSITIVITIES}


LEAST_SAVED = 0.005  # a share; what saves less is not shown


SWEPT = Swept(("subject",), ("trials", "chip_time", "energy"))


def _budget(frames: Frames) -> list[Table]:
    saved = ["trials_saved", "time_saved", "energy_saved"]
    columns = only(SENSITIVITIES, ["key", "value", "change", *saved])
    shown = [facts(frames)]
    table = frames.sensitivities
    # many parameters save nothing, as another part is the slowest
    table = table[table[saved].max(axis=1) >= LEAST_SAVED]
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        rows = table[table["quantity"] == quantity]
        if len(rows):
            note = "by theory, each alone; below half a per cent left out"
            shown.append(Table(f"{title}: what to improve first", note, rows, columns))
    return shown


def budget(frames: Frames) -> "Figure | None":
    """What each parameter, improved, saves of time and energy."""
    table = frames.sensitivities
    # one quantity: savings of both in one figure could not be told apart
    table = table[table["quantity"] == ("hv" if (table["quantity"] == "hv").any() else "gradient")]
    table = table[table[["time_saved", "energy_saved"]].max(axis=1) >= LEAST_SAVED]
    if table.empty:
        return None
    figure = sheet(1.2 + 0.36 * len(table), ONE)
    axis = figure.subplots()
    y = np.arange(len(table))
    axis.barh(y - 0.2, table["time_saved"], 0.38, color=COLOURS[3], label="chip time")
    axis.barh(y + 0.2, table["energy_saved"], 0.38, color=COLOURS[1], label="energy")
    axis.set_yticks(y, list(map(plain, table["key"])))
    # what saves most on top
    axis.invert_yaxis()
    axis.set_xlabel("share saved")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=2)
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "budget": (
        budget,
        (
            "What half of a parameter (twice the bits per second) saves, by theory and the chip's"
            " schedule."
        ),
    )
}


VIEW = View(COLUMNS, _budget, drawn(FIGURES), swept=SWEPT)
