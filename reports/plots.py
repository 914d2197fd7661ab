"""Figures of a stored run, one function each. They draw on Matplotlib's Agg canvas: no window, no global state."""

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from reports.canvas import COLOURS, INK, MARKERS, Drawn, finished
from reports.escape import plain
from reports.frames import Frames
from reports.tables import of
from reports.texts import count
from reports.training_plots import alignment, learning_curves

QUANTITIES = {"gradient": ("g_exact", "g_hat", "g_stderr", "dE/dw"), "hv": ("hv_exact", "hv_hat", "hv_stderr", "(Hv)")}
TILES_SHOWN = 6
FAR = 2.0  # where points further away are drawn


def scatter(frames: Frames, quantity: str = "hv") -> Figure | None:
    """Estimated against exact, a panel per method, a point with its standard error per weight; on the line they agree."""
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
        summary = of(frames, quantity)
        row = summary[(summary["method"] == method) & (summary["code"] == code)].iloc[0]
        axis.set_title(f"{plain(method)}\n{plain(code)}: cosine {row['cosine']:.3f}", fontsize=9)
    for axis in axes[: len(methods) : columns]:
        axis.set_ylabel(f"estimated {name}$_i$")
    return finished(figure)


def estimated_against_exact(axis: Axes, frames: Frames, quantity: str, method: tuple[str, str], colour: str) -> None:
    """A point with its standard error per weight, and the line on which estimate and exact answer agree."""
    exact, hat, stderr, name = QUANTITIES[quantity]
    w = frames.weights[(frames.weights["method"] == method[0]) & (frames.weights["code"] == method[1])]
    many = len(w) > 200
    axis.errorbar(
        w[exact], w[hat], yerr=w[stderr] if w[stderr].notna().all() else None, fmt=".", color=colour, ecolor=colour,
        elinewidth=0.5, markersize=2.5 if many else 6, alpha=0.35 if many else 0.9, rasterized=many,
    )  # fmt: skip
    low, high = w[exact].min(), w[exact].max()
    axis.plot([low, high], [low, high], color=INK, linewidth=1.2)
    axis.set_xlabel(f"exact {name}$_i$")
    axis.xaxis.set_major_locator(MaxNLocator(3))


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
            axis.plot(part[spent], part[column], "o", color=colour, markersize=4, label=plain(f"{method}/{code}"))
            axis.plot(part[spent], part[f"predicted_{column}"], "-", color=colour, linewidth=1.2)
    left.set(xscale="log", yscale="log", xlabel="trials", ylabel="relative error")
    left.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
    right.set(xscale="log", xlabel="evaluations of E", ylabel="cosine with exact", ylim=(min(-0.1, frame["cosine"].min()), 1.05))
    right.axhline(0.9, color=INK, linewidth=0.8, linestyle=":")
    for axis in (left, right):
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return finished(figure)


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
    measured = ended[ended["phase"] >= 0]["end_ns"].max()
    sent = ended[(ended["unit"] == "bus") & (ended["end_ns"] > measured)]["start_ns"].min()
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
        axis.set_yticks(range(len(lanes)), list(map(plain, lanes)))
    axis.invert_yaxis()
    if len(tiles) > TILES_SHOWN:
        more = f"and {len(tiles) - TILES_SHOWN} more tiles"
        axis.annotate(more, (1, 0), (0, -30), "axes fraction", "offset points", ha="right", va="top", fontsize=8, color=INK)
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
    axis, left = figure.subplots(), np.zeros(len(names))
    most = np.sum(list(causes.values()), axis=0).max()
    for (cause, joules), colour in zip(causes.items(), COLOURS, strict=False):
        seen = joules.max() > 0.003 * most
        axis.barh(range(len(names)), joules, left=left, color=colour, label=plain(cause.replace("_", " ")) if seen else None)
        left += joules
    axis.set_yticks(range(len(names)), list(map(plain, names)))
    axis.set_xlabel("energy of the run")
    axis.xaxis.set_major_formatter(EngFormatter("J"))
    axis.invert_yaxis()
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)


def spectrum(frames: Frames) -> Figure:
    """Share of eigenvalues against their size, on a scale that is linear around zero."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axis, eigenvalues = figure.subplots(), frames.eigenvalues
    values, weights = eigenvalues["eigenvalue"].to_numpy(), eigenvalues["weight"].to_numpy()
    size = np.abs(values).max() or 1.0
    linear = size * 1e-4
    edges = np.concatenate([-np.geomspace(size, linear, 49), np.geomspace(linear, size, 49)])
    shares, _ = np.histogram(values, edges, weights=weights)
    low = 0.5 * weights[weights > 1e-12].min()
    axis.stairs(np.maximum(shares, low), edges, baseline=low, fill=True, color=COLOURS[3], alpha=0.8)
    axis.set_xscale("symlog", linthresh=linear)
    if values.min() > linear:
        axis.set_xlim(left=values.min() / 2)
    axis.set(yscale="log", xlabel="eigenvalue of H", ylabel="share of the eigenvalues")
    axis.axvline(0.0, color=INK, linewidth=0.8, linestyle=":")
    exact = bool(eigenvalues["exact"].all())
    axis.set_title("all eigenvalues" if exact else "by stochastic Lanczos quadrature", fontsize=9)
    return finished(figure)


def _spectrum_if_known(frames: Frames) -> Figure | None:
    return spectrum(frames) if "eigenvalues" in frames.tables else None


def estimators(frames: Frames) -> Figure:
    """Measured against predicted relative error, a point per method and code, for z and for the gradient."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots(1, 2)
    methods = list(dict.fromkeys(frames.summary["method"]))
    codes = list(dict.fromkeys(frames.summary["code"]))
    for axis, quantity, title in zip(axes, ("hv", "gradient"), ("z = Hv", "gradient"), strict=True):
        own = of(frames, quantity)
        for method, code, x, y in zip(own["method"], own["code"], own["predicted_error"], own["measured_error"], strict=True):
            colour, marker = COLOURS[methods.index(method) % len(COLOURS)], MARKERS[codes.index(code) % len(MARKERS)]
            axis.plot(x, y, marker, color=colour, markersize=7, alpha=0.8)
        shown = own[["predicted_error", "measured_error"]].to_numpy()
        shown = shown[np.isfinite(shown) & (shown > 0)]
        if shown.size:  # methods of the gradient alone tell nothing of z
            axis.plot([shown.min(), shown.max()], [shown.min(), shown.max()], color=INK, linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="predicted relative error", ylabel="measured relative error")
        axis.set_title(title, fontsize=9)
    handles = [Line2D([], [], linestyle="", marker="s", color=COLOURS[i % len(COLOURS)]) for i in range(len(methods))]
    handles += [Line2D([], [], linestyle="", marker=MARKERS[i % len(MARKERS)], color=INK) for i in range(len(codes))]
    figure.legend(handles, list(map(plain, methods + codes)), loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return finished(figure)


def ablation(frames: Frames) -> Figure:
    """Evaluations that z (or the gradient) needs on every variant of the chip, over those on the ideal one, a bar each."""
    quantity = "hv" if (frames.summary["quantity"] == "hv").any() else "gradient"
    table = of(frames, quantity)
    figure = Figure(figsize=(10, 1.0 + 0.3 * len(table)), layout="constrained")
    axis = figure.subplots()
    group = [0 if name in ("ideal", "all") else 1 if name.startswith("only") else 2 for name in table["variant"]]
    known = table["cost"].replace(np.inf, np.nan)
    top = float(known.max()) if known.notna().any() else 1.0
    error = table["cost_stderr"].where(known.notna() & (table["cost_stderr"] > 0))
    axis.barh(
        range(len(table)), known.fillna(0.0), xerr=error, color=[(INK, COLOURS[0], COLOURS[3])[i] for i in group], alpha=0.85,
        ecolor=INK,
    )  # fmt: skip
    for place, value in enumerate(table["cost"]):
        if not np.isfinite(value):
            axis.text(0.05, place, "never" if np.isinf(value) else "not known", va="center", fontsize=9)
    axis.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(table)), list(map(plain, table["variant"])))
    axis.invert_yaxis()
    accuracy, what = frames.experiment["dies"]["accuracy"], "z = Hv" if quantity == "hv" else "the gradient"
    label = f"evaluations to a cosine of {accuracy:g} of {what}, in those of the ideal chip"
    if top > 30:  # what costs little looks it: the axis begins far below 1
        axis.set_xscale("symlog", linthresh=2.0)
    axis.set(xlabel=label, xlim=(0, 1.1 * top))
    return finished(figure)


def dies(frames: Frames) -> Figure:
    """How the cosines of the dies are distributed, and the accuracy wanted."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axis, accuracy = figure.subplots(), frames.experiment["dies"]["accuracy"]
    for (quantity, title), colour in zip((("hv", "z = Hv"), ("gradient", "gradient")), (COLOURS[3], COLOURS[2]), strict=True):
        cosines = np.sort(frames.dies.loc[frames.dies["quantity"] == quantity, "cosine"])
        if len(cosines):
            axis.step(cosines, np.arange(1, len(cosines) + 1) / len(cosines), where="post", color=colour, label=title)
    axis.axvline(accuracy, color=INK, linewidth=0.8, linestyle=":")
    axis.set(xlabel="cosine with the exact answer", ylabel="share of dies up to there")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return finished(figure)


def budget(frames: Frames) -> Figure | None:
    """What each parameter, improved, saves of time and energy."""
    table = frames.sensitivities
    table = table[table["quantity"] == ("hv" if (table["quantity"] == "hv").any() else "gradient")]
    table = table[table[["time_saved", "energy_saved"]].max(axis=1) >= 0.005]
    if table.empty:
        return None
    figure = Figure(figsize=(10, 1.2 + 0.36 * len(table)), layout="constrained")
    axis, y = figure.subplots(), np.arange(len(table))
    axis.barh(y - 0.2, table["time_saved"], 0.38, color=COLOURS[3], label="chip time")
    axis.barh(y + 0.2, table["energy_saved"], 0.38, color=COLOURS[1], label="energy")
    axis.set_yticks(y, list(map(plain, table["key"])))
    axis.invert_yaxis()
    axis.set_xlabel("share saved")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return finished(figure)


def finite_difference(frames: Frames) -> Figure:
    """Error of the two finite differences against the displacement, lines of slope 1 and 2, R{backprop} as the floor."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axis, errors = figure.subplots(), frames.errors
    for kind, order, colour in (("one-sided", 1, COLOURS[0]), ("central", 2, COLOURS[3])):
        own = errors[errors["kind"] == kind]
        displacement, error = own["displacement"].to_numpy(), own["error"].to_numpy()
        axis.plot(displacement, error, "o", color=colour, markersize=4, label=f"{kind} difference")
        # through the largest displacement whose error is below 1 %: there truncation rules
        small = np.flatnonzero(error < 1e-2)
        if small.size:
            at = small[-1]
            line = error[at] * (displacement / displacement[at]) ** order
            shown = (line > 0.3 * np.nanmin(error)) & (line < 10)
            axis.plot(displacement[shown], line[shown], color=colour, linewidth=1, alpha=0.7, label=f"slope {order}")
        chosen = frames.fact(f"{kind}: chosen displacement")
        axis.plot(chosen, frames.fact(f"{kind}: error there"), "D", color=colour, markersize=9, fillstyle="none", label="chosen")
    axis.axhline(frames.fact("R{backprop}"), color=COLOURS[2], linewidth=2, label="R{backprop}")
    axis.set(xscale="log", yscale="log", xlabel="displacement |r v|", ylabel="relative error of Hv")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    return finished(figure)


def optimisation(frames: Frames) -> Figure:
    """How far E is above the lowest found, and |g|, against gradient-equivalents."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    table = frames.optimisation[frames.optimisation["cost"] > 0]
    lowest = table["error"].min()
    for name, colour in zip(dict.fromkeys(table["optimiser"]), COLOURS, strict=False):
        own = table[table["optimiser"] == name]
        left.plot(own["cost"], own["error"] - lowest, ".-", color=colour, markersize=4, label=plain(name))
        right.plot(own["cost"], own["gradient_norm"], ".-", color=colour, markersize=4)
    left.set(xscale="log", yscale="log", xlabel="gradient-equivalents", ylabel="E above the lowest found")
    right.set(xscale="log", yscale="log", xlabel="gradient-equivalents", ylabel="|g|")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return finished(figure)


def modes(frames: Frames) -> Figure | None:
    """Updates to 1/e per eigenvalue: line predicted, points simulated."""
    if "modes" not in frames.tables:
        return None
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axis, table = figure.subplots(), frames.modes
    axis.plot(table["eigenvalue"], table["predicted_updates"], "-", color=COLOURS[3], label="-1/ln(1 - eta lambda)")
    axis.plot(table["eigenvalue"], table["measured_updates"], "o", color=COLOURS[0], label="simulated descent")
    axis.set(xscale="log", yscale="log", xlabel="eigenvalue of H", ylabel="updates to 1/e")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return finished(figure)


def evidence(frames: Frames) -> Figure | None:
    """Log evidence, and errors of patterns learned and held back, against the weight decay."""
    if "evidence" not in frames.tables:
        return None
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    table = frames.evidence
    left.plot(table["decay"], table["log_evidence"], "o-", color=COLOURS[3])
    right.plot(table["decay"], table["test_error"], "o-", color=COLOURS[0], label="held back")
    right.plot(table["decay"], table["train_error"], "o-", color=COLOURS[2], label="learned")
    known = table.dropna(subset="log_evidence")
    for axis, ylabel in ((left, "log evidence"), (right, "error per pattern")):
        if len(known):
            axis.axvline(known["decay"].iloc[int(known["log_evidence"].argmax())], color=INK, linewidth=0.8, linestyle=":")
        if len(table) > 1:  # one decay has no scale
            axis.set_xscale("log")
        axis.set(xlabel="weight decay", ylabel=ylabel)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return finished(figure)


def pruning(frames: Frames) -> Figure | None:
    """Error and accuracy against the share of weights removed, a line per method."""
    if "pruning" not in frames.tables:
        return None
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    held_back = "test_accuracy" if frames.pruning["test_accuracy"].notna().any() else "test_error"
    for name, colour in zip(dict.fromkeys(frames.pruning["method"]), COLOURS, strict=False):
        own = frames.pruning[frames.pruning["method"] == name]
        left.plot(own["removed"], own["train_error"], ".-", color=colour, label=plain(name))
        right.plot(own["removed"], own[held_back], ".-", color=colour)
    left.set(yscale="log", xlabel="share of weights removed", ylabel="error of a pattern learned")
    ylabel = "accuracy on patterns held back" if held_back == "test_accuracy" else "error of a pattern held back"
    right.set(xlabel="share of weights removed", ylabel=ylabel)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return finished(figure)


def claims(frames: Frames) -> Figure:
    """How far every measured value is from the predicted one, as a share of what is allowed: a line per statement."""
    table = frames.summary.iloc[::-1]
    figure = Figure(figsize=(10, 1.2 + 0.22 * len(table)), layout="constrained")
    axis, allowed = figure.subplots(), 5 * table["stderr"] + table["tolerance"]
    share = ((table["measured"] - table["predicted"]) / allowed.where(allowed > 0)).fillna(0.0).clip(-FAR, FAR)
    colours = [COLOURS[2] if verdict == "agrees" else COLOURS[0] for verdict in table["verdict"]]
    axis.axvspan(-1, 1, color=COLOURS[2], alpha=0.12, linewidth=0)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.scatter(share, np.arange(len(table)), c=colours, s=22, zorder=3)
    axis.set_yticks(
        np.arange(len(table)),
        [plain(f"{row.name_}: {row.claim}") for row in table.rename(columns={"name": "name_"}).itertuples()],
    )
    axis.tick_params(axis="y", labelsize=7)
    axis.set_ylim(-1, len(table))
    axis.set(xlim=(-1.1 * FAR, 1.1 * FAR), xlabel="(measured - predicted) / (5 stderr + tolerance)")
    return finished(figure)


COMPARISON: dict[str, tuple[Callable[[Frames], Figure | None], str]] = {
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
    "energy": (
        energy,
        "What the energy of each method goes into, at the same number of evaluations.",
    ),
    "timeline": (
        timeline,
        "Part of the chip's timeline: the first two trials of the experiment's own method, the second paler. Each colour is one "
        "evaluation of E; grey is everything that belongs to no evaluation.",
    ),
}


# study: figure: how to draw it (None where there is nothing to see), caption
FIGURES: dict[str, dict[str, tuple[Callable[[Frames], Figure | None], str]]] = {
    "compare": COMPARISON,
    "estimators": {
        "estimators": (
            estimators,
            "Every method (colour) with every code (shape): measured against predicted relative error. On the line theory is "
            "right. A method whose limit is wrong cannot come further left than its bias.",
        )
    },
    "ablation": {
        "ablation": (
            ablation,
            "Evaluations to the accuracy wanted, in those of the ideal chip (grey), with one imperfection alone (red), all "
            "(grey), and all but one (blue). Bars begin at 0: what looks alike costs alike.",
        )
    },
    "dies": {
        "dies": (dies, "Dies of one design: the share of them whose cosine is at most so large. Dotted: the accuracy wanted.")
    },
    "budget": {
        "budget": (budget, "What half of a parameter (twice the bits per second) saves, by theory and the chip's schedule.")
    },
    "spectrum": {
        "spectrum": (
            _spectrum_if_known,
            "Eigenvalues of the Hessian: the share of them in each interval, on scales that are logarithmic.",
        )
    },
    "finite-difference": {
        "finite_difference": (
            finite_difference,
            "Hv from the difference of two gradients, against exact R{backprop}. From the right the error falls with the order "
            "of the difference, until rounding, which grows as the displacement shrinks, takes over. R{backprop} has no "
            "displacement to choose: the line at the bottom is what rounding leaves of it.",
        )
    },
    "training": {
        "learning": (
            learning_curves,
            "Learning curves: thin lines single runs, thick ones their median, of accuracies their mean; dashed the exact "
            "gradient from the same starts, "
            "and where several settings are compared the level at which it ends. Dotted: the goal and, where E is quadratic, "
            "what theory predicts of the mean. E is exact, computed outside the loop.",
        ),
        "alignment": (
            alignment,
            "How well what was learned between two records points down the exact gradient, computed outside the loop.",
        ),
    },
    "reproduce": {
        "claims": (
            claims,
            "Measured against predicted values, as a share of what is allowed: in the band they agree. Red: published forms that "
            "are biased, or values that disagree; what is further away is drawn at the edge.",
        )
    },
    "uses": {
        "optimisation": (
            optimisation,
            "Three optimisers from the same weights at equal cost, which may end in different minima. Newton-CG spends most of "
            "its cost on Hessian-vector products; near a minimum, solved well enough, its steps converge faster than linearly.",
        ),
        "spectrum": (
            _spectrum_if_known,
            "Eigenvalues of the Hessian at the minimum, the weight decay included: the share of them in each interval.",
        ),
        "modes": (
            modes,
            "Gradient descent from a displacement along one eigenvector at a time: updates until it is down to 1/e.",
        ),
        "evidence": (
            evidence,
            "Which weight decay? MacKay's evidence needs only the patterns learned (left); the error on others (right) is the "
            "truth it foretells. Dotted: the decay of largest evidence.",
        ),
        "pruning": (
            pruning,
            "Weights removed in the order of their size, of OBD's saliency (the diagonal of H), and one after another by OBS "
            "(all of H), which moves the weights that stay.",
        ),
    },
}


def figures(frames: Frames) -> dict[str, Drawn]:
    """Every figure of a run or a sweep with its caption."""
    if frames.study == "sweep":
        from reports.sweep_plots import figures

        return figures(frames)
    drawn = {name: (draw(frames), caption) for name, (draw, caption) in FIGURES[frames.study].items()}
    return {name: (figure, caption) for name, (figure, caption) in drawn.items() if figure is not None}


def _colours(frames: Frames) -> dict[tuple[str, str], str]:
    return {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(frames.methods())}
