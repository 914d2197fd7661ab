"""Figures of a stored run, one function each. They draw on Matplotlib's Agg canvas: no window, no global state."""

import io
import math
import re
from collections.abc import Callable
from html import escape

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports.frames import Frames
from reports.tables import count, of

INK = "#5f6b7a"  # axes and words: legible on white and on black
COLOURS = ("#d1495b", "#e08e0b", "#2a9d8f", "#3d7ecc", "#9b5de5", "#7a9e2f", "#c2689e", "#6c757d")
QUANTITIES = {"gradient": ("g_exact", "g_hat", "g_stderr", "dE/dw"), "hv": ("hv_exact", "hv_hat", "hv_stderr", "(Hv)")}
TILES_SHOWN = 6


def scatter(frames: Frames, quantity: str = "hv") -> Figure | None:
    """Estimated against exact, a panel per method, a point with its standard error per weight; on the line they agree."""
    exact, hat, stderr, name = QUANTITIES[quantity]
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
        colour = colours[method, code]
        w = frames.weights[(frames.weights["method"] == method) & (frames.weights["code"] == code)]
        summary = of(frames, quantity)
        row = summary[(summary["method"] == method) & (summary["code"] == code)].iloc[0]
        many = len(w) > 200
        axis.errorbar(
            w[exact], w[hat], yerr=w[stderr] if w[stderr].notna().all() else None, fmt=".", color=colour, ecolor=colour,
            elinewidth=0.5, markersize=2.5 if many else 6, alpha=0.35 if many else 0.9, rasterized=many,
        )  # fmt: skip
        low, high = w[exact].min(), w[exact].max()
        axis.plot([low, high], [low, high], color=INK, linewidth=1.2)
        axis.set_title(f"{method}\n{code}: cosine {row['cosine']:.3f}", fontsize=9)
        axis.set_xlabel(f"exact {name}$_i$")
        axis.xaxis.set_major_locator(MaxNLocator(3))
    for axis in axes[: len(methods) : columns]:
        axis.set_ylabel(f"estimated {name}$_i$")
    return _finished(figure)


def convergence(frames: Frames, quantity: str = "hv") -> Figure | None:
    """Relative error against trials, cosine against evaluations: points measured, lines predicted; where 0.9 lies."""
    if not frames.methods(quantity):
        return None
    colours = _colours(frames)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    frame = frames.convergence[frames.convergence["quantity"] == quantity]
    for method, code in frames.methods(quantity):
        colour = colours[method, code]
        part = frame[(frame["method"] == method) & (frame["code"] == code)]
        for axis, spent, column in ((left, "trials", "relative_error"), (right, "evaluations", "cosine")):
            axis.plot(part[spent], part[column], "o", color=colour, markersize=4, label=f"{method}/{code}")
            axis.plot(part[spent], part[f"predicted_{column}"], "-", color=colour, linewidth=1.2)
    left.set(xscale="log", yscale="log", xlabel="trials", ylabel="relative error")
    left.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
    right.set(xscale="log", xlabel="evaluations of E", ylabel="cosine with exact", ylim=(min(-0.1, frame["cosine"].min()), 1.05))
    right.axhline(0.9, color=INK, linewidth=0.8, linestyle=":")
    for axis in (left, right):
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return _finished(figure)


def timeline(frames: Frames) -> Figure | None:
    """The chip's first two trials, a lane per part; below, the broadcast that ends the first. None without a timeline."""
    method, code = frames.primary
    trace = frames.timeline
    trace = trace[(trace["method"] == method) & (trace["code"] == code) & (trace["trial"] < 2)]
    if trace.empty:
        return None
    units = list(dict.fromkeys(trace["unit"]))
    tiles = [unit for unit in units if unit.startswith("tile")]
    lanes = [unit for unit in units if unit not in tiles] + tiles[:TILES_SHOWN]
    trace = trace[trace["unit"].isin(lanes)]

    end = trace["end_ns"].max()
    ended = trace[trace["trial"] == 0]
    sent = ended[ended["unit"] == "bus"]["start_ns"].min()
    margin = max(0.15 * (ended["end_ns"].max() - sent), 1)
    figure = Figure(figsize=(10, 1.2 + 0.5 * len(lanes)), layout="constrained")
    windows = ((0, end, "two trials"), (sent - margin, ended["end_ns"].max() + margin, "the broadcast that ends the first trial"))
    for axis, (start, stop, title) in zip(figure.subplots(1, 2, width_ratios=(3, 2), sharey=True), windows, strict=True):
        # nothing is drawn thinner than the eye can see
        least = 0.003 * (stop - start)
        for _, interval in trace.iterrows():
            phase, trial = int(interval["phase"]), int(interval["trial"])
            colour = INK if phase < 0 else COLOURS[(phase + 2) % len(COLOURS)]
            bar = (interval["start_ns"] / 1e3, max(interval["end_ns"] - interval["start_ns"], least) / 1e3)
            y = lanes.index(interval["unit"])
            axis.broken_barh([bar], (y - 0.38, 0.76), facecolors=colour, alpha=0.85 if trial % 2 == 0 else 0.5)
        axis.set(xlim=(start / 1e3, stop / 1e3), xlabel="chip time, microseconds")
        axis.set_title(title, fontsize=9)
        axis.set_yticks(range(len(lanes)), lanes)
    axis.invert_yaxis()
    if len(tiles) > TILES_SHOWN:
        more = f"and {len(tiles) - TILES_SHOWN} more tiles"
        axis.annotate(more, (1, 0), (0, -30), "axes fraction", "offset points", ha="right", va="top", fontsize=8, color=INK)
    return _finished(figure)


def spectrum(eigenvalues: pd.DataFrame, exact: bool) -> Figure:
    """Share of eigenvalues against their size (columns eigenvalue, weight), on a scale that is linear around zero."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axis = figure.subplots()
    values, weights = eigenvalues["eigenvalue"].to_numpy(), eigenvalues["weight"].to_numpy()
    size = np.abs(values).max() or 1.0
    linear = size * 1e-4
    edges = np.concatenate([-np.geomspace(size, linear, 49), np.geomspace(linear, size, 49)])
    shares, _ = np.histogram(values, edges, weights=weights)
    low = 0.5 * weights[weights > 1e-12].min()
    axis.stairs(np.maximum(shares, low), edges, baseline=low, fill=True, color=COLOURS[3], alpha=0.8)
    axis.set_xscale("symlog", linthresh=linear)
    axis.set(yscale="log", xlabel="eigenvalue of H", ylabel="share of the eigenvalues")
    axis.axvline(0.0, color=INK, linewidth=0.8, linestyle=":")
    axis.set_title("all eigenvalues" if exact else "by stochastic Lanczos quadrature", fontsize=9)
    return _finished(figure)


FIGURES: dict[str, tuple[Callable[[Frames], Figure | None], str]] = {
    "scatter_hv": (
        lambda frames: scatter(frames, "hv"),
        "z = Hv, estimated against exact: one point with its standard error per weight. Estimates that agree lie on the line; "
        "mind that every panel has its own vertical scale.",
    ),
    "convergence_hv": (
        lambda frames: convergence(frames, "hv"),
        "Error of z against the number of trials, and its cosine against the evaluations spent. Points are measured, lines are "
        "predicted by theory; the dotted lines mark an error as large as z and a cosine of 0.9. An orthogonal code pays off only "
        "when its period is complete.",
    ),
    "scatter_gradient": (lambda frames: scatter(frames, "gradient"), "The same for the gradient: estimated against exact."),
    "convergence_gradient": (
        lambda frames: convergence(frames, "gradient"),
        "The same for the gradient: error against trials, cosine against evaluations.",
    ),
    "timeline": (
        timeline,
        "Part of the chip's timeline: the first two trials of the experiment's own method, the second paler. Each colour is one "
        "evaluation of E; grey is everything that belongs to no evaluation.",
    ),
}


def _colours(frames: Frames) -> dict[tuple[str, str], str]:
    return {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(frames.methods())}


def _finished(figure: Figure) -> Figure:
    figure.patch.set_alpha(0.0)
    for axis in figure.axes:
        axis.patch.set_alpha(0.0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(INK)
        axis.tick_params(colors=INK, labelsize=8)
        for words in (axis.title, axis.xaxis.label, axis.yaxis.label):
            words.set_color(INK)
    for legend in figure.legends:
        for words in legend.get_texts():
            words.set_color(INK)
    return figure


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an <svg> element of a page, whose colour its words and axes take; the same figure gives the same text."""
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    body = body[body.index("<svg ") :]
    # identifiers must be unique in the page
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(description, quote=True)}" ', 1).replace(
        INK, "currentColor"
    )
