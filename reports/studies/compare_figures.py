"""The figures of the comparison of methods: estimates against exact values, convergence, the
chip's timeline and its energy.
"""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports.escape import plain
from reports.figures import COLOURS, INK, ONE, Drawing, finished, legend_below, sheet
from reports.formats import count
from reports.frames import Frames
from reports.studies.energy import stacked

LANES_SHOWN = 6  # of parts of one kind

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
    # four panels in a row; more methods, more rows
    columns = min(len(methods), 4)
    rows = math.ceil(len(methods) / columns)
    figure = sheet(3.1 * rows, 3.0 * columns + 0.4)
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
    # many points as pixels, not as outlines, each of which a file would hold
    many = len(w) > 200
    axis.errorbar(
        w[exact],
        w[hat],
        # all weights or none: a point without its bar would look exact
        yerr=w[stderr] if w[stderr].notna().all() else None,
        fmt=".",
        color=colour,
        ecolor=colour,
        elinewidth=0.5,
        markersize=2.5 if many else 6,
        # where many points lie on each other, the dense places are darker
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
    figure = sheet(3.8)
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
    # an error of 1 is no better than estimating nothing
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
    legend_below(figure, *left.get_legend_handles_labels(), ncols=4)
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
    # left the whole of two trials, right the short broadcast, which is too narrow to be seen there
    # as high as it has lanes, so that bars of any chip are equally thick
    figure = sheet(1.2 + 0.5 * len(lanes))
    windows = (
        (0, end, "two trials"),
        (sent - margin, ended["end_ns"].max() + margin, "the broadcast that ends the first trial"),
    )
    for axis, (start, stop, title) in zip(
        figure.subplots(1, 2, width_ratios=(3, 2), sharey=True), windows, strict=True
    ):
        # nothing is drawn thinner than the eye can see
        least = 0.003 * (stop - start)
        seen = trace[(trace["start_ns"] < stop) & (trace["end_ns"] >= start)]
        for interval in seen.to_dict("records"):
            left = max(interval["start_ns"], start)
            width = max(min(interval["end_ns"], stop) - left, least)
            second = interval["trial"] % 2 == 1
            axis.broken_barh(
                [(left / 1e3, width / 1e3)],
                (lanes.index(interval["unit"]) - 0.38, 0.76),
                color=_of_phase(interval["phase"]),
                alpha=0.3 if second else 1.0,
                linewidth=0,
            )
            if second:  # paler, and as well seen by its edge
                axis.broken_barh(
                    [(left / 1e3, width / 1e3)],
                    (lanes.index(interval["unit"]) - 0.38, 0.76),
                    facecolor="none",
                    edgecolor=_of_phase(interval["phase"]),
                    linewidth=0.8,
                )
        axis.set(xlim=(start / 1e3, stop / 1e3), xlabel="chip time, microseconds")
        axis.set_title(title, fontsize=9)
        axis.set_yticks(range(len(lanes)), list(map(plain, lanes)))
    # once: the panels share the axis, and a second time would turn it back
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
    phases = sorted(set(trace["phase"]))
    legend_below(
        figure,
        [Patch(color=_of_phase(phase)) for phase in phases],
        [f"evaluation {phase + 1}" if phase >= 0 else "no evaluation" for phase in phases],
        ncols=5,
    )
    return finished(figure)


def _of_phase(phase: int) -> str:
    return INK if phase < 0 else COLOURS[(int(phase) + 2) % len(COLOURS)]


def energy(frames: Frames) -> Figure | None:
    """Energy of each method, a bar per method, a colour per cause."""
    table = frames.energy
    if not (table["energy_j"] > 0).any():
        return None
    methods = frames.methods()
    figure = sheet(1.2 + 0.42 * len(methods), ONE)
    causes = {}
    for cause in dict.fromkeys(table["cause"]):
        own = table[table["cause"] == cause].set_index(["method", "code"])["energy_j"]
        # 0 for a cause that a method does not have
        causes[cause] = np.array([own.get(pair, 0.0) for pair in methods])
    axis = figure.subplots()
    stacked(axis, [f"{method}/{code}" for method, code in methods], causes)
    axis.set_xlabel("energy of the run")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=4)
    return finished(figure)


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
