"""How claims of the literature are shown: predicted, measured, verdict."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import Column, Table, named, only
from reports.escape import plain
from reports.figures import COLOURS, INK, ONE, Drawing, drawn, finished, sheet
from reports.formats import ErrorBar, fixed
from reports.frames import Frames, Swept, View
from reports.vocabulary import AGREES, BIASED, DISAGREES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOUR = partial(fixed, spec=".4g")  # digits
CLAIMS = {
    "name": Column("name of the claim: perturb reproduce NAME"),
    "says": Column("the claim in a sentence"),
    "claim": Column("the statement that a row is about, and its unit"),
    "source": Column(
        "who made it; derived here: from the definitions, in the docstring of the claim"
    ),
    "setting": Column("on what it is measured"),
    "predicted": Column("value that it predicts", FOUR),
    "measured": Column("value that the emulator gives", FOUR),
    "stderr": Column("standard error of the measured value; 0 for what has no chance in it"),
    "tolerance": Column("what the prediction leaves out, or rounding"),
    "verdict": Column(
        "agrees: within 5 stderr + tolerance, else DISAGREES; published form biased: wrong, as"
        " theory says it should be"
    ),
}
COLUMNS = {"summary": CLAIMS}


SWEPT = Swept(("name", "claim"), ("measured",), {"measured": "predicted"})


FAR = 2.0  # where points further away are drawn


def _reproduce(frames: Frames) -> list[Table]:
    columns = only(CLAIMS, ["claim", "setting", "predicted", "measured", "stderr", "verdict"])
    columns["setting"] = named("source; setting")
    shown = []
    # in the order in which claims ran, not of the alphabet
    for claim, own in frames.summary.groupby("name", sort=False):
        rows = own.assign(
            setting=own["source"] + "; " + own["setting"],
            stderr=pd.Series(list(map(ErrorBar, own["stderr"])), own.index, object),
        )
        shown.append(Table(str(claim), str(own["says"].iloc[0]), rows, columns, "setting"))
    return shown


def _judged(frames: Frames) -> list[tuple[str, str]]:
    """How many statements of the literature agree, and which do not."""
    verdict = frames.summary["verdict"]
    total = len(frames.summary)
    agree = (verdict == AGREES).sum()
    biased = (verdict == BIASED).sum()
    text = f"{agree} of {total} statements agree within 5 standard errors and their tolerance"
    text += (
        f"; {biased} {'is' if biased == 1 else 'are'} wrong as published, as theory says"
        if biased
        else ""
    )
    wrong = frames.summary[verdict == DISAGREES]
    return [("reproduced:", text)] + [
        (str(row["name"]), f"DISAGREES: {row['claim']}") for row in wrong.to_dict("records")
    ]


def claims(frames: Frames) -> "Figure":
    """How far every measured value is from the predicted one, as a share of what is allowed: a
    line per statement.
    """
    # Matplotlib counts from below: the first statement comes on top
    table = frames.summary.iloc[::-1]
    figure = sheet(1.2 + 0.22 * len(table), ONE)
    axis = figure.subplots()
    # as `sims.claims.claim.verdict` judges; exact ones that agree have none, and lie at 0
    allowed = 5 * table["stderr"] + table["tolerance"]
    share = (
        ((table["measured"] - table["predicted"]) / allowed.where(allowed > 0))
        .fillna(0.0)
        .clip(-FAR, FAR)
    )
    colours = [COLOURS[2] if verdict == AGREES else COLOURS[0] for verdict in table["verdict"]]
    axis.axvspan(-1, 1, color=COLOURS[2], alpha=0.12, linewidth=0)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.scatter(share, np.arange(len(table)), c=colours, s=22, zorder=3)
    axis.set_yticks(
        np.arange(len(table)),
        [
            plain(f"{row.name_}: {row.claim}")
            for row in table.rename(columns={"name": "name_"}).itertuples()
        ],
    )
    axis.tick_params(axis="y", labelsize=7)
    axis.set_ylim(-1, len(table))
    axis.set(xlim=(-1.1 * FAR, 1.1 * FAR), xlabel="(measured - predicted) / (5 stderr + tolerance)")
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "claims": (
        claims,
        (
            "Measured against predicted values, as a share of what is allowed: in the band they"
            " agree. Red: published forms that are biased, or values that disagree; what is further"
            " away is drawn at the edge."
        ),
    )
}


VIEW = View(COLUMNS, _reproduce, drawn(FIGURES), _judged, swept=SWEPT)
