"""How every method with every code is shown: bias and error, measured beside predicted."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import Column, Table, only
from reports.escape import plain
from reports.figures import COLOURS, INK, MARKERS, Drawing, drawn, finished, sheet
from reports.formats import Below, cosine, count
from reports.frames import Frames, Swept, View
from reports.studies.compare import NAME, with_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ESTIMATORS = {
    "quantity": Column("gradient (dE/dw) or hv (z = Hv)"),
    "method": Column("method of weight perturbation"),
    "code": Column("perturbation code"),
    "n_weights": Column("weights of the network, biases included"),
    "trials": Column("draws of the perturbation, each time", count),
    "evaluations": Column("measurements of E, each time", count),
    "predicted_bias": Column(
        "|limit - exact| / |exact|, the limit by theory, with terms in sigma and r; empty where it"
        " does not say"
    ),
    "measured_bias": Column(
        "|mean over the repeats - exact| / |exact|, less what chance leaves of it"
    ),
    "bias_resolution": Column("what chance leaves of it: a smaller bias cannot be seen"),
    "predicted_error": Column(
        "relative error that theory predicts, root of the mean square", less_is_better=True
    ),
    "measured_error": Column(
        "|estimate - exact| / |exact|, root of the mean square over the repeats",
        less_is_better=True,
    ),
    "error_spread": Column("standard deviation of the relative error over the repeats"),
    "predicted_cosine": Column(
        "cosine with the exact answer that theory predicts", cosine, "cosine"
    ),
    "measured_cosine": Column("mean cosine over the repeats", cosine, "cosine"),
    "z_rms": Column(
        "rms of (estimate - limit)/stderr; about 1 if theory and standard errors are right",
        heading="stderrs to limit",
    ),
    "evaluations_to_0_9": Column(
        "predicted evaluations to a cosine of 0.9; inf = never", count, heading="for cosine 0.9"
    ),
    "trials_per_s": Column("trials simulated a second"),
    "broadcasts": Column("what is broadcast to every synapse"),
}
COLUMNS = {"summary": ESTIMATORS}


SWEPT = Swept(
    ("quantity", "method", "code"),
    ("measured_error", "measured_cosine"),
    {
        "measured_error": "predicted_error",
        "measured_cosine": "predicted_cosine",
        "measured_bias": "predicted_bias",
    },
    ("measured_cosine", "dies.accuracy"),
)


def _estimators(frames: Frames) -> list[Table]:
    names = ["predicted_bias", "measured_bias", "predicted_error", "measured_error"]
    names += ["measured_cosine", "z_rms", "evaluations_to_0_9"]
    columns = {"name": NAME, **only(ESTIMATORS, names)}
    shown = []
    evaluations = count(float(frames.summary["evaluations"].median()))
    note = (
        f"relative to the exact answer, after {evaluations} evaluations each; <: no bias"
        " seen, and none as large"
    )
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        # stable: equal errors, and those not known, stay in the order of the summary
        rows = with_name(frames.of(quantity).sort_values("measured_error", kind="stable"))
        # two standard errors: what is smaller may be chance
        seen = 2 * rows["bias_resolution"]
        biases = [
            bias if bias > least else Below(least)
            for bias, least in zip(rows["measured_bias"], seen, strict=True)
        ]
        rows["measured_bias"] = pd.Series(biases, rows.index, object)
        if len(rows):
            shown.append(Table(f"{title}, best first", note, rows, columns))
    return shown


def estimators(frames: Frames) -> "Figure":
    """Measured against predicted relative error, a point per method and code, for z and for the
    gradient.
    """
    # late, as of all Matplotlib, see `sheet`
    from matplotlib.lines import Line2D

    figure = sheet(4.8)
    axes = figure.subplots(1, 2)
    methods = list(dict.fromkeys(frames.summary["method"]))
    codes = list(dict.fromkeys(frames.summary["code"]))
    for axis, quantity, title in zip(axes, ("hv", "gradient"), ("z = Hv", "gradient"), strict=True):
        own = frames.of(quantity)
        for method, code, x, y in zip(
            own["method"], own["code"], own["predicted_error"], own["measured_error"], strict=True
        ):
            colour = COLOURS[methods.index(method) % len(COLOURS)]
            marker = MARKERS[codes.index(code) % len(MARKERS)]
            axis.plot(x, y, marker, color=colour, markersize=7)
        shown = own[["predicted_error", "measured_error"]].to_numpy()
        shown = shown[np.isfinite(shown) & (shown > 0)]
        if shown.size:  # methods of the gradient alone tell nothing of z
            axis.plot(
                [shown.min(), shown.max()], [shown.min(), shown.max()], color=INK, linewidth=1
            )
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="predicted relative error",
            ylabel="measured relative error",
        )
        axis.set_title(title, fontsize=9)
    # a legend of colours (methods) and one of shapes (codes), not one of all pairs
    handles = [
        Line2D([], [], linestyle="", marker="s", color=COLOURS[i % len(COLOURS)])
        for i in range(len(methods))
    ]
    handles += [
        Line2D([], [], linestyle="", marker=MARKERS[i % len(MARKERS)], color=INK)
        for i in range(len(codes))
    ]
    figure.legend(
        handles,
        list(map(plain, methods + codes)),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=8,
    )
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "estimators": (
        estimators,
        (
            "Every method (colour) with every code (shape): measured against predicted relative"
            " error. On the line theory is right. A method whose limit is wrong cannot come further"
            " left than its bias."
        ),
    )
}


VIEW = View(COLUMNS, _estimators, drawn(FIGURES), swept=SWEPT)
