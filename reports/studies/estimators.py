"""How every method with every code is shown: bias and error, measured beside predicted."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.escape import plain
from reports.figures import COLOURS, INK, MARKERS, Drawing, drawn, finished
from reports.formats import Number, Titled, cosine, count, method_name, number
from reports.frames import Frames, Swept, View

ESTIMATORS = {
    "quantity": "gradient (dE/dw) or hv (z = Hv)",
    "method": "method of weight perturbation",
    "code": "perturbation code",
    "n_weights": "weights of the network, biases included",
    "trials": "draws of the perturbation, each time",
    "evaluations": "measurements of E, each time",
    "predicted_bias": (
        "|limit - exact| / |exact|, the limit by theory, with terms in sigma and r; empty where it"
        " does not say"
    ),
    "measured_bias": "|mean over the repeats - exact| / |exact|, less what chance leaves of it",
    "bias_resolution": "what chance leaves of it: a smaller bias cannot be seen",
    "predicted_error": "relative error that theory predicts, root of the mean square",
    "measured_error": "|estimate - exact| / |exact|, root of the mean square over the repeats",
    "error_spread": "standard deviation of the relative error over the repeats",
    "predicted_cosine": "cosine with the exact answer that theory predicts",
    "measured_cosine": "mean cosine over the repeats",
    "z_rms": "rms of (estimate - limit)/stderr; about 1 if theory and standard errors are right",
    "evaluations_to_0_9": "predicted evaluations to a cosine of 0.9; inf = never",
    "trials_per_s": "trials simulated a second",
    "broadcasts": "what every synapse must be told",
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
    units=dict.fromkeys(("measured_cosine", "predicted_cosine"), "cosine"),
)


def _estimators(frames: Frames) -> list[Titled]:
    header = [
        "method/code",
        "",
        "predicted bias",
        "measured bias",
        "predicted error",
        "measured error",
        "measured cosine",
    ]
    header += ["z to limit", "for cosine 0.9"]
    shown = []
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        rows = []
        for row in (
            frames.of(quantity).sort_values("measured_error", kind="stable").to_dict("records")
        ):
            seen = row["measured_bias"] > 2 * row["bias_resolution"]
            bias = (
                number(row["measured_bias"])
                if seen
                else Number(f"< {number(2 * row['bias_resolution'])}", 2 * row["bias_resolution"])
            )
            cells = [
                method_name(row),
                "",
                number(row["predicted_bias"]),
                bias,
                number(row["predicted_error"]),
            ]
            cells += [
                number(row["measured_error"]),
                cosine(row["measured_cosine"]),
                number(row["z_rms"]),
            ]
            rows.append([*cells, count(row["evaluations_to_0_9"])])
        if rows:
            evaluations = count(float(frames.summary["evaluations"].median()))
            says = (
                f"relative to the exact answer, after {evaluations} evaluations each; <: no bias"
                " seen, and none as large"
            )
            shown.append((f"{title}, best first", says, (header, rows)))
    return shown


def estimators(frames: Frames) -> Figure:
    """Measured against predicted relative error, a point per method and code, for z and for the
    gradient.
    """
    figure = Figure(figsize=(10, 4.8), layout="constrained")
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
            axis.plot(x, y, marker, color=colour, markersize=7, alpha=0.8)
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
