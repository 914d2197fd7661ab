"""How the comparison of methods is shown: accuracy, limits and cost of each, beside exact
R{backprop}.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from reports.columns import Column, Table, named, only
from reports.escape import plain
from reports.figures import COLOURS, INK, Drawing, drawn, finished
from reports.formats import amount, cosine, count, joules, method_name, percent, seconds
from reports.frames import Frames, Swept, View
from reports.vocabulary import TARGET_COSINE

SUMMARY = {
    "quantity": Column("gradient (dE/dw) or hv (z = Hv)"),
    "method": Column("method of weight perturbation"),
    "code": Column("perturbation code"),
    "n_weights": Column("weights of the network, biases included"),
    "trials": Column("draws of the perturbation", count),
    "evaluations": Column("measurements of E", count),
    "cosine": Column(
        "cosine of the estimate with exact R{backprop}", cosine, "cosine", heading="measured cosine"
    ),
    "relative_error": Column("|estimate - exact| / |exact|", less_is_better=True),
    "rms_stderr": Column(
        "rms over weights of the standard error, units of the quantity; empty where it cannot be"
        " known",
        heading="stderr (rms)",
    ),
    "z_rms": Column(
        "rms over weights of (estimate - exact)/stderr; about 1 without bias", heading="z to exact"
    ),
    "limit_relative_error": Column(
        "|estimate - limit| / |limit|, the limit being what theory says the method tends to",
        heading="limit error",
        less_is_better=True,
    ),
    "chip_time_s": Column("time on the chip, s", seconds, "s", heading="chip time"),
    "energy_j": Column("energy on the chip, J", joules, "J", heading="energy"),
    "wall_time_s": Column("time of this simulation, s", seconds, "s", heading="wall time"),
    "events": Column("events simulated in time"),
    "limit_z_rms": Column(
        "rms over weights of (estimate - limit)/stderr; about 1 if theory is right",
        heading="z to limit",
    ),
    "label": Column("as published, or an extension", heading="what it is"),
    "sigma": Column("rms of a perturbation, units of w"),
    "r": Column("displacement along v; empty for methods without"),
    "broadcasts": Column("what is broadcast to every synapse"),
    "predicted_cosine": Column("cosine that theory predicts", cosine, "cosine"),
    "limit_cosine": Column(
        "cosine of the method's limit with the exact answer: the best that any number of trials"
        " reaches",
        cosine,
        "cosine",
    ),
    "evaluations_to_0_9": Column(
        "predicted evaluations to a cosine of 0.9; inf = never", count, heading="for cosine 0.9"
    ),
    "imperfect": Column(
        "whether the chip has imperfections beside the noise of a reading, which theory leaves out"
    ),
    "unknown_weights": Column("weights that have no estimate, because all their trials were alike"),
    "exact_is_zero": Column("whether the exact answer is zero, which has no direction"),
    "primary": Column(
        "whether this is the experiment's own method (the others were set beside it)"
    ),
    "status": Column("complete, or partial if the run ended early"),
    "warnings": Column(
        "warnings about the method, its code and the number of trials; empty if none"
    ),
    "trial_ns": Column("chip time of a trial, ns"),
    "busiest": Column("part of the chip that limits the trial rate"),
    "busiest_share": Column("share of the chip time in which it was at work", percent, "share"),
    "converter_share": Column(
        "share of the chip time in which the error unit's converter was busy", percent, "share"
    ),
    "bus_share": Column(
        "share of the chip time in which the broadcast bus was busy", percent, "share"
    ),
    "incidents": Column("what went wrong on the chip; empty if nothing"),
    "faultless_cosine": Column(
        "cosine of the same run without the faults that it met; empty if it met none",
        cosine,
        "cosine",
    ),
    "predicted_relative_error": Column("relative error that theory predicts", less_is_better=True),
    "df": Column(
        "degrees of freedom of the standard errors; inf where known without limit, empty where they"
        " are not known"
    ),
}


WEIGHTS = {
    "method": Column("method"),
    "code": Column("code"),
    "index": Column("number of the weight in the flat vector w"),
    "unit_from": Column("unit it comes from, inputs first; -1 = bias"),
    "unit_to": Column("unit it goes to"),
    "w": Column("weight"),
    "v": Column("direction"),
    "g_exact": Column("exact dE/dw"),
    "g_hat": Column("estimated dE/dw"),
    "g_stderr": Column("its standard error"),
    "hv_exact": Column("exact (Hv)_i"),
    "hv_hat": Column("estimated (Hv)_i; empty for a method of the gradient alone"),
    "hv_stderr": Column("its standard error"),
    "hv_limit": Column("what the method tends to, by theory"),
    "g_df": Column(
        "degrees of freedom of g_stderr: an interval takes Student's quantile where they are few"
    ),
    "hv_df": Column("degrees of freedom of hv_stderr"),
}


CONVERGENCE = {
    "method": Column("method"),
    "code": Column("code"),
    "quantity": Column("gradient or hv"),
    "trials": Column("trials so far", count),
    "evaluations": Column("measurements of E so far", count),
    "cosine": Column("cosine with the exact answer", cosine, "cosine", heading="measured cosine"),
    "relative_error": Column("|estimate - exact| / |exact|", less_is_better=True),
    "predicted_cosine": Column("predicted cosine", cosine, "cosine"),
    "predicted_relative_error": Column("predicted relative error", less_is_better=True),
}


TIMELINE = {
    "method": Column("method"),
    "code": Column("code"),
    "trial": Column("trial"),
    "phase": Column("evaluation within the trial, -1 = none"),
    "start_ns": Column("start, ns of chip time"),
    "end_ns": Column("end, ns of chip time"),
    "unit": Column("part of the chip"),
    "action": Column("what it did"),
}


ENERGY = {
    "method": Column("method"),
    "code": Column("code"),
    "cause": Column("what the energy was spent on"),
    "energy_j": Column("energy of the whole run, J", joules, "J", heading="energy"),
}

COLUMNS = {
    "summary": SUMMARY,
    "weights": WEIGHTS,
    "convergence": CONVERGENCE,
    "timeline": TIMELINE,
    "energy": ENERGY,
}


SWEPT = Swept(
    ("quantity", "method", "code"),
    ("relative_error", "cosine"),
    {"relative_error": "predicted_relative_error", "cosine": "predicted_cosine"},
    ("cosine", "dies.accuracy"),
)


LANES_SHOWN = 6  # of parts of one kind


NAME = named("method/code")


def accuracy(frames: Frames, quantity: str, title: str, note: str = "") -> Table:
    """How good the estimates of one quantity are, a row per method. z: a distance in standard
    errors, rms over the weights.
    """
    names = ["predicted_cosine", "cosine", "relative_error", "rms_stderr", "z_rms"]
    if quantity == "hv":
        names = ["label", *names, "limit_relative_error", "limit_z_rms"]
    else:
        names = ["broadcasts", *names]
    columns = {"name": NAME, **only(SUMMARY, names)}
    return Table(title, note, with_name(frames.of(quantity)), columns, names[0])


def cost(frames: Frames, title: str, note: str) -> Table:
    """What each method spent on the chip, and what z (or else the gradient) to a cosine of 0.9
    would take.
    """
    spent = ("trials", "evaluations", "evaluations_to_0_9", "chip_time_s", "energy_j")
    columns = {"name": NAME, **only(SUMMARY, ("broadcasts", *spent, "wall_time_s"))}
    return Table(title, note, with_name(frames.of_each()), columns, "broadcasts")


def with_name(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary with a column `name`, of method and code."""
    return rows.assign(name=rows["method"].astype(str) + "/" + rows["code"].astype(str))


def _comparison(frames: Frames) -> list[Table]:
    z = accuracy(
        frames,
        "hv",
        "z = Hv, estimated against exact R{backprop}",
        "limit error: distance of the estimate from what theory says the method tends to,"
        " relative to that limit; z: rms distance in standard errors, about 1 where nothing but"
        " noise is left",
    )
    return [
        *([z] if frames.methods("hv") else []),
        accuracy(frames, "gradient", "Gradient, estimated against exact backprop"),
        cost(
            frames,
            "What it cost, each method at the same number of evaluations",
            "evaluations: measurements of E; for cosine 0.9: evaluations until z (or the"
            " gradient, where that is all) has a cosine of 0.9, by theory",
        ),
    ]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """(method/code, result of its z, or of its gradient where that is all)."""
    return [
        (method_name(row), verdict(row) + cost_of_faults(row))
        for row in frames.of_each().to_dict("records")
    ]


SPOKEN = {"gradient": "the gradient", "hv": "Hv"}


def verdict(row: Mapping[Any, Any]) -> str:
    """The result of one quantity by one method, from its row of the summary."""
    quantity = SPOKEN[row["quantity"]]
    cosine_ = row["cosine"]
    needed = row["evaluations_to_0_9"]
    evaluations = row["evaluations"]
    if math.isnan(cosine_):
        return f"gives no estimate of {quantity}: {_nothing(row)}"
    # never: either the limit is wrong, or the count is beyond what can be numbered
    if math.isinf(needed):
        why = f"the limit it tends to has a cosine of {row['limit_cosine']:.2f}"
        if row["limit_cosine"] > TARGET_COSINE:
            why = (
                "noise hides what the trials look for, so that it would take more than 2^62 of them"
            )
        return (
            f"cannot reach a cosine of {TARGET_COSINE} with {quantity}, however many evaluations:"
            f" {why}"
        )
    # by theory, before what was measured is looked at: luck is no success
    if needed > evaluations:
        return (
            f"cannot succeed with {evaluations:,} evaluations: a cosine of {TARGET_COSINE} with"
            f" {quantity} takes about {amount(needed)}, {amount(needed / evaluations)} times as"
            " many"
        )
    if cosine_ >= TARGET_COSINE:
        enough = f"{amount(needed)} evaluations are enough for {TARGET_COSINE}"
        return f"succeeds: a cosine of {cosine_:.4f} with {quantity}; {enough}"
    alone = " for a chip with noise of the error alone" if row["imperfect"] else ""
    short = (
        f"falls short: a cosine of {row['predicted_cosine']:.3f} with {quantity} was"
        f" predicted{alone}, {cosine_:.3f} measured"
    )
    if row["faultless_cosine"] >= TARGET_COSINE:  # what the faults cost is said next
        return short
    if row["imperfect"]:
        return f"{short}: its other imperfections cost the rest (perturb ablate ranks them)"
    return (
        f"{short}; by chance (try another seed), or because terms beyond the quadratic matter"
        " (lower sigma and r)"
    )


def _nothing(row: Mapping[Any, Any]) -> str:
    """Why there is no cosine."""
    if row["unknown_weights"]:
        return (
            f"to {row['unknown_weights']} of {row['n_weights']} weights all trials were alike; take"
            " more"
        )
    if row["exact_is_zero"]:
        return "the exact one is zero, which has no direction"
    why = (
        ", so nothing of the perturbation reaches E and its reading"
        if math.isnan(row["faultless_cosine"])
        else ""
    )
    return f"every sum is zero{why}"


def cost_of_faults(row: Mapping[Any, Any]) -> str:
    """What the faults of a run cost it, as the end of its verdict; nothing where it met none."""
    unhurt = row["faultless_cosine"]
    measured = row["cosine"]
    if math.isnan(unhurt):
        return ""
    # no estimate at all is a cosine of 0
    lost = unhurt - (0.0 if math.isnan(measured) else measured) if unhurt > 0 else 0.0
    cost = f"{lost:.2f}" if lost >= 0.005 else "less than 0.01" if lost > 0 else "nothing"
    return (
        f"; faults cost {cost} of the cosine with {SPOKEN[row['quantity']]} ({unhurt:.2f} without"
        " them)"
    )


def hardware(frames: Frames) -> list[str]:
    """What limits the chip's speed, what its energy goes into, and what went wrong on it, in
    sentences.
    """
    rows = frames.of_each()
    sentences = []
    # a partial run may not have reached the experiment's own method
    own = rows[rows["primary"]] if rows["primary"].any() else rows
    row = own.iloc[-1].to_dict()
    rate = 1e9 / row["trial_ns"]
    share = row["busiest_share"]
    sentences.append(
        f"{method_name(row)} makes {count(rate)} trials a second; {row['busiest']} takes"
        f" {share:.0%} of the time."
    )
    sentences.append(
        f"The converter is busy {row['converter_share']:.0%} of the time, the bus"
        f" {row['bus_share']:.0%}."
    )
    energy = frames.energy[
        (frames.energy["method"] == row["method"]) & (frames.energy["code"] == row["code"])
    ]
    if energy["energy_j"].sum() > 0:
        most = energy.iloc[int(energy["energy_j"].argmax())]
        part = most["energy_j"] / energy["energy_j"].sum()
        sentences.append(f"{part:.0%} of its energy is {CAUSES[most['cause']]}.")
    return [*sentences, f"On its chip: {row['incidents']}"] if row["incidents"] else sentences


CAUSES = {
    "perturbation": "for changes of the perturbation",
    "mac": "for multiplying and adding in the array",
    "conversion": "for conversions",
    "broadcast_bit": "for broadcasts",
    "accumulate": "for the synapses' sums",
    "static": "static power",
    "refresh": "for refreshing the weights",
}


def warnings(frames: Frames) -> list[str]:
    """Warnings about the methods and codes, in sentences."""
    return [text for text in dict.fromkeys(frames.of_each()["warnings"].astype(str)) if text]


QUANTITIES = {
    "gradient": ("g_exact", "g_hat", "g_stderr", "dE/dw"),
    "hv": ("hv_exact", "hv_hat", "hv_stderr", "(Hv)"),
}


def scatter(frames: Frames, quantity: str = "hv") -> Figure | None:
    """Estimated against exact, a panel per method, a point with its standard error per weight;
    on the line they agree.
    """
    name = QUANTITIES[quantity][-1]
    methods = frames.methods(quantity)
    if not methods:
        return None
    colours = _colours(frames)
    columns = min(len(methods), 4)
    rows = math.ceil(len(methods) / columns)
    figure = Figure(figsize=(3.0 * columns + 0.4, 3.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(methods) :]:
        axis.remove()
    for axis, (method, code) in zip(axes, methods, strict=False):
        estimated_against_exact(axis, frames, quantity, (method, code), colours[method, code])
        summary = frames.of(quantity)
        row = summary[(summary["method"] == method) & (summary["code"] == code)].iloc[0]
        axis.set_title(f"{plain(method)}\n{plain(code)}: cosine {row['cosine']:.3f}", fontsize=9)
    for axis in axes[: len(methods) : columns]:
        axis.set_ylabel(f"estimated {name}$_i$")
    return finished(figure)


def estimated_against_exact(
    axis: Axes, frames: Frames, quantity: str, method: tuple[str, str], colour: str
) -> None:
    """A point with its standard error per weight, and the line on which estimate and exact
    answer agree.
    """
    exact, hat, stderr, name = QUANTITIES[quantity]
    w = frames.weights[
        (frames.weights["method"] == method[0]) & (frames.weights["code"] == method[1])
    ]
    # thousands of points as pixels: as outlines the file would be megabytes
    many = len(w) > 200
    axis.errorbar(
        w[exact],
        w[hat],
        yerr=w[stderr] if w[stderr].notna().all() else None,
        fmt=".",
        color=colour,
        ecolor=colour,
        elinewidth=0.5,
        markersize=2.5 if many else 6,
        alpha=0.35 if many else 0.9,
        rasterized=many,
    )
    low = w[exact].min()
    high = w[exact].max()
    axis.plot([low, high], [low, high], color=INK, linewidth=1.2)
    axis.set_xlabel(f"exact {name}$_i$")
    axis.xaxis.set_major_locator(MaxNLocator(3))


def convergence(frames: Frames, quantity: str = "hv") -> Figure | None:
    """Relative error against trials, cosine against evaluations: points measured, lines
    predicted; where 0.9 lies.
    """
    if not frames.methods(quantity):
        return None
    colours = _colours(frames)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    frame = frames.convergence[frames.convergence["quantity"] == quantity]
    for method, code in frames.methods(quantity):
        colour = colours[method, code]
        part = frame[(frame["method"] == method) & (frame["code"] == code)]
        for axis, spent, column in (
            (left, "trials", "relative_error"),
            (right, "evaluations", "cosine"),
        ):
            axis.plot(
                part[spent],
                part[column],
                "o",
                color=colour,
                markersize=4,
                label=plain(f"{method}/{code}"),
            )
            axis.plot(part[spent], part[f"predicted_{column}"], "-", color=colour, linewidth=1.2)
    left.set(xscale="log", yscale="log", xlabel="trials", ylabel="relative error")
    left.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
    right.set(
        xscale="log",
        xlabel="evaluations of E",
        ylabel="cosine with exact",
        ylim=(min(-0.1, frame["cosine"].min()), 1.05),
    )
    right.axhline(0.9, color=INK, linewidth=0.8, linestyle=":")
    for axis in (left, right):
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    return finished(figure)


def timeline(frames: Frames) -> Figure | None:
    """The chip's first two trials, a lane per part; below, the broadcast that ends the first.
    None without a timeline.
    """
    method, code = frames.primary
    trace = frames.timeline
    trace = trace[(trace["method"] == method) & (trace["code"] == code) & (trace["trial"] < 2)]
    if trace.empty:
        return None
    # parts that do the same are of one kind, such as tiles: each kind stands below the smaller ones
    kinds: dict[frozenset[str], list[str]] = {}
    for unit, actions in trace.groupby("unit", sort=False)["action"]:
        kinds.setdefault(frozenset(actions), []).append(str(unit))
    lanes = [unit for kind in sorted(kinds.values(), key=len) for unit in kind[:LANES_SHOWN]]
    hidden = trace["unit"].nunique() - len(lanes)
    trace = trace[trace["unit"].isin(lanes)]

    end = trace["end_ns"].max()
    ended = trace[trace["trial"] == 0]
    measured = ended[ended["phase"] >= 0]["end_ns"].max()
    # the first word on the bus after the last evaluation of the trial
    sent = ended[(ended["unit"] == "bus") & (ended["end_ns"] > measured)]["start_ns"].min()
    margin = max(0.15 * (ended["end_ns"].max() - sent), 1)
    figure = Figure(figsize=(10, 1.2 + 0.5 * len(lanes)), layout="constrained")
    windows = (
        (0, end, "two trials"),
        (sent - margin, ended["end_ns"].max() + margin, "the broadcast that ends the first trial"),
    )
    for axis, (start, stop, title) in zip(
        figure.subplots(1, 2, width_ratios=(3, 2), sharey=True), windows, strict=True
    ):
        # nothing is drawn thinner than the eye can see
        least = 0.003 * (stop - start)
        for _, interval in trace.iterrows():
            phase = int(interval["phase"])
            trial = int(interval["trial"])
            colour = INK if phase < 0 else COLOURS[(phase + 2) % len(COLOURS)]
            bar = (
                interval["start_ns"] / 1e3,
                max(interval["end_ns"] - interval["start_ns"], least) / 1e3,
            )
            y = lanes.index(interval["unit"])
            axis.broken_barh(
                [bar], (y - 0.38, 0.76), facecolors=colour, alpha=0.85 if trial % 2 == 0 else 0.5
            )
        axis.set(xlim=(start / 1e3, stop / 1e3), xlabel="chip time, microseconds")
        axis.set_title(title, fontsize=9)
        axis.set_yticks(range(len(lanes)), list(map(plain, lanes)))
    axis.invert_yaxis()
    if hidden:
        more = f"and {hidden} more like {lanes[-1]}"
        axis.annotate(
            more,
            (1, 0),
            (0, -30),
            "axes fraction",
            "offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=INK,
        )
    return finished(figure)


def energy(frames: Frames) -> Figure | None:
    """Energy of each method, a bar per method, a colour per cause."""
    table = frames.energy
    if not (table["energy_j"] > 0).any():
        return None
    methods = frames.methods()
    figure = Figure(figsize=(10, 1.2 + 0.42 * len(methods)), layout="constrained")
    causes = {}
    for cause in dict.fromkeys(table["cause"]):
        own = table[table["cause"] == cause].set_index(["method", "code"])["energy_j"]
        causes[cause] = np.array([own.get(pair, 0.0) for pair in methods])
    stacked(figure, [f"{method}/{code}" for method, code in methods], causes)
    return finished(figure)


def stacked(figure: Figure, names: list[str], causes: dict[str, np.ndarray]) -> None:
    """Joules by cause, a bar for each name."""
    axis = figure.subplots()
    left = np.zeros(len(names))
    most = np.sum(list(causes.values()), axis=0).max()
    for (cause, spent), colour in zip(causes.items(), COLOURS, strict=False):
        # what is too thin to be seen has no place in the legend
        seen = spent.max() > 0.003 * most
        axis.barh(
            range(len(names)),
            spent,
            left=left,
            color=colour,
            label=plain(cause.replace("_", " ")) if seen else None,
        )
        left += spent
    axis.set_yticks(range(len(names)), list(map(plain, names)))
    axis.set_xlabel("energy of the run")
    axis.xaxis.set_major_formatter(EngFormatter("J"))
    axis.invert_yaxis()
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=9,
    )


def _colours(frames: Frames) -> dict[tuple[str, str], str]:
    return {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(frames.methods())}


FIGURES: dict[str, Drawing] = {
    "scatter_hv": (
        lambda frames: scatter(frames, "hv"),
        (
            "z = Hv, estimated against exact: one point with its standard error per weight."
            " Estimates that agree lie on the line; every panel has its own vertical"
            " scale."
        ),
    ),
    "convergence_hv": (
        lambda frames: convergence(frames, "hv"),
        (
            "Error of z against the number of trials, and its cosine against the evaluations spent."
            " Points are measured, lines are predicted by theory; the dotted lines mark an error as"
            " large as z and a cosine of 0.9. An orthogonal code pays off only when its period is"
            " complete."
        ),
    ),
    "scatter_gradient": (
        lambda frames: scatter(frames, "gradient"),
        "The same for the gradient: estimated against exact.",
    ),
    "convergence_gradient": (
        lambda frames: convergence(frames, "gradient"),
        "The same for the gradient: error against trials, cosine against evaluations.",
    ),
    "energy": (
        energy,
        "What the energy of each method goes into, at the same number of evaluations.",
    ),
    "timeline": (
        timeline,
        (
            "Part of the chip's timeline: the first two trials of the experiment's own method, the"
            " second paler. Each colour is one evaluation of E; grey is everything that belongs to"
            " no evaluation."
        ),
    ),
}


VIEW = View(COLUMNS, _comparison, drawn(FIGURES), verdicts, hardware, warnings, swept=SWEPT)
