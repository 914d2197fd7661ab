"""How a budget is shown: what an accuracy takes, and what to improve first."""

import numpy as np
from matplotlib.figure import Figure

from reports.escape import plain
from reports.figures import COLOURS, Drawing, drawn, finished
from reports.formats import Titled, fixed, number
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts

SENSITIVITIES = {
    "key": "parameter of the chip",
    "value": "its value, in the unit of its name",
    "change": "what is done to it",
    "quantity": "gradient or hv",
    "trials_saved": "share of the trials saved, by theory",
    "time_saved": "share of the chip time saved",
    "energy_saved": "share of the energy saved",
}
COLUMNS = {"summary": FACTS, "sensitivities": SENSITIVITIES}


SWEPT = Swept(("subject",), ("trials", "chip_time", "energy"))


def _budget(frames: Frames) -> list[Titled]:
    header = ["parameter", "", "value", "changed to", "trials saved", "time saved", "energy saved"]
    shown = [facts(frames)]
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        part = frames.sensitivities[frames.sensitivities["quantity"] == quantity]
        rows = [
            [str(row["key"]), "", number(row["value"]), str(row["change"])]
            + [fixed(row[key], ".0%") for key in ("trials_saved", "time_saved", "energy_saved")]
            for _, row in part.iterrows()
            if max(row["trials_saved"], row["time_saved"], row["energy_saved"]) >= 0.005
        ]
        if rows:
            shown.append(
                (
                    f"{title}: what to improve first",
                    "by theory, each alone; below half a per cent left out",
                    (header, rows),
                )
            )
    return shown


def budget(frames: Frames) -> Figure | None:
    """What each parameter, improved, saves of time and energy."""
    table = frames.sensitivities
    table = table[table["quantity"] == ("hv" if (table["quantity"] == "hv").any() else "gradient")]
    table = table[table[["time_saved", "energy_saved"]].max(axis=1) >= 0.005]
    if table.empty:
        return None
    figure = Figure(figsize=(10, 1.2 + 0.36 * len(table)), layout="constrained")
    axis = figure.subplots()
    y = np.arange(len(table))
    axis.barh(y - 0.2, table["time_saved"], 0.38, color=COLOURS[3], label="chip time")
    axis.barh(y + 0.2, table["energy_saved"], 0.38, color=COLOURS[1], label="energy")
    axis.set_yticks(y, list(map(plain, table["key"])))
    axis.invert_yaxis()
    axis.set_xlabel("share saved")
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
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
