"""How the uses of Hessian-vector products are shown."""

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from reports.columns import Column, Table, only
from reports.escape import plain
from reports.figures import COLOURS, INK, ONE, Drawing, drawn, finished, legend_below, sheet
from reports.formats import Estimate, count, fixed, percent
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.studies.spectrum import BLOCKS, EIGENVALUES, by_layer, density
from reports.table import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIMISATION = {
    "optimiser": Column("which optimiser"),
    "cost": Column("gradient-equivalents spent: a gradient or an Hv 1, an error alone 1/3"),
    "error": Column("lowest E with its decay so far", less_is_better=True),
    "gradient_norm": Column("|g| there"),
}


MODES = {
    "eigenvalue": Column("eigenvalue of H with decay, at the minimum"),
    "predicted_updates": Column(
        "updates of gradient descent to 1/e along its vector, -1/ln(1 - eta lambda), eta = 1/(2"
        " lambda_max)"
    ),
    "measured_updates": Column("the same, from a simulated descent"),
    "simulated_updates": Column("updates simulated"),
}


EVIDENCE = {
    "decay": Column("weight decay alpha, in E + alpha |w|^2 / 2"),
    "train_error": Column("E on the patterns learned, without decay", less_is_better=True),
    "test_error": Column("E on the patterns held back", less_is_better=True),
    "test_accuracy": Column("share of them classified rightly; empty where targets are no classes"),
    "gradient_norm": Column(
        "|g| with decay; where it is not small, or H with decay not positive, no minimum was found"
    ),
    "gamma": Column(
        "well-determined parameters, sum of l / (l + alpha) over the eigenvalues l of H without"
        " decay; empty: no minimum"
    ),
    "negative": Column(
        "number of negative eigenvalues of H without decay", count, heading="negative eigenvalues"
    ),
    "lowest_eigenvalue": Column("the lowest of them"),
    "log_determinant": Column(
        "ln det(H + alpha I), from all eigenvalues; empty: no minimum", heading="log det"
    ),
    "lanczos_log_determinant": Column(
        "the same by stochastic Lanczos quadrature",
        partial(fixed, spec=",.0f"),
        heading="by Lanczos",
    ),
    "lanczos_stderr": Column("its standard error"),
    "log_evidence": Column("ln P(data | alpha), up to a constant (MacKay 1992); empty: no minimum"),
    "next_decay": Column("MacKay's next alpha, gamma / (S |w|^2)"),
}


PRUNING = {
    "method": Column(
        "magnitude, OBD (H_ii w_i^2 / 2) or OBS (w_i^2 / (2 [H^-1]_ii), the others adjusted)"
    ),
    "removed": Column("share of the weights removed", percent, "share"),
    "train_error": Column("E on the patterns learned, without decay", less_is_better=True),
    "test_error": Column("E on the patterns held back", less_is_better=True),
    "test_accuracy": Column("share of them classified rightly; empty where targets are no classes"),
}
COLUMNS = {
    "summary": FACTS,
    "optimisation": OPTIMISATION,
    "eigenvalues": EIGENVALUES,
    "layers": BLOCKS,
    "modes": MODES,
    "evidence": EVIDENCE,
    "pruning": PRUNING,
}


SWEPT = Swept(("subject",), ("decay", "test_error"), errors=("test_error",))


def _uses(frames: Frames) -> list[Table]:
    shown = [facts(frames), *by_layer(frames)]
    # an interrupted run lacks the later parts
    if "modes" in frames.tables:
        columns = only(MODES, ["eigenvalue", "predicted_updates", "measured_updates"])
        note = "updates to 1/e of a displacement along an eigenvector"
        shown.append(Table("Gradient descent, mode by mode", note, frames.modes, columns))
    if "evidence" in frames.tables:
        shown.append(_weight_decays(frames.evidence))
    if "pruning" in frames.tables:
        table = frames.pruning
        shares = table["removed"]
        # shares that were computed, next to round ones
        nearest = {
            float(shares.iloc[int((shares - at).abs().argmin())]) for at in (0.25, 0.5, 0.75, 0.9)
        }
        names = ["method", "removed", "train_error", "test_error", *_accuracy(table)]
        note = "OBS moves the other weights, the others do not"
        title = "Pruning, without training in between"
        rows = table[shares.isin(nearest)]
        shown.append(Table(title, note, rows, only(PRUNING, names)))
    return shown


def _weight_decays(table: pd.DataFrame) -> Table:
    names = ["decay", "log_evidence", "gamma", "train_error", "test_error", *_accuracy(table)]
    columns = only(EVIDENCE, [*names, "log_determinant", "lanczos_log_determinant", "negative"])
    both = zip(table["lanczos_log_determinant"], table["lanczos_stderr"], strict=True)
    lanczos = [Estimate(*pair) for pair in both]
    # as objects: pandas would take tuples apart
    rows = table.assign(lanczos_log_determinant=pd.Series(lanczos, table.index, object))
    note = "decays of most evidence generalise best, in theory"
    if table["log_evidence"].isna().any():
        note += "; where it is missing no minimum was found, and evidence is not defined"
    return Table("Weight decay by evidence (MacKay 1992)", note, rows, columns)


def _accuracy(table: pd.DataFrame) -> list[str]:
    """The name of the column of accuracies, if there are any."""
    return ["test_accuracy"] if table["test_accuracy"].notna().any() else []


def optimisation(frames: Frames) -> "Figure":
    """How far E is above the lowest found, and |g|, against gradient-equivalents."""
    figure = sheet(3.8)
    left, right = figure.subplots(1, 2)
    # a logarithmic axis has no place for the start, which cost nothing
    table = frames.optimisation[frames.optimisation["cost"] > 0]
    # the minimum itself is not known: the lowest stands for it, and is left out of the logarithm
    lowest = table["error"].min()
    for name, colour in zip(dict.fromkeys(table["optimiser"]), COLOURS, strict=False):
        own = table[table["optimiser"] == name]
        left.plot(
            own["cost"], own["error"] - lowest, ".-", color=colour, markersize=4, label=plain(name)
        )
        right.plot(own["cost"], own["gradient_norm"], ".-", color=colour, markersize=4)
    left.set(
        xscale="log", yscale="log", xlabel="gradient-equivalents", ylabel="E above the lowest found"
    )
    right.set(xscale="log", yscale="log", xlabel="gradient-equivalents", ylabel="|g|")
    legend_below(figure, *left.get_legend_handles_labels(), ncols=4)
    return finished(figure)


def modes(frames: Frames) -> "Figure | None":
    """Updates to 1/e per eigenvalue: line predicted, points simulated."""
    if "modes" not in frames.tables:
        return None
    figure = sheet(3.4, ONE)
    axis = figure.subplots()
    table = frames.modes
    axis.plot(
        table["eigenvalue"],
        table["predicted_updates"],
        "-",
        color=COLOURS[3],
        label="-1/ln(1 - eta lambda)",
    )
    axis.plot(
        table["eigenvalue"],
        table["measured_updates"],
        "o",
        color=COLOURS[0],
        label="simulated descent",
    )
    axis.set(xscale="log", yscale="log", xlabel="eigenvalue of H", ylabel="updates to 1/e")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=2)
    return finished(figure)


def evidence(frames: Frames) -> "Figure | None":
    """Log evidence, and errors of patterns learned and held back, against the weight decay."""
    if "evidence" not in frames.tables:
        return None
    figure = sheet(3.6)
    left, right = figure.subplots(1, 2)
    table = frames.evidence
    left.plot(table["decay"], table["log_evidence"], "o-", color=COLOURS[3])
    right.plot(table["decay"], table["test_error"], "o-", color=COLOURS[0], label="held back")
    right.plot(table["decay"], table["train_error"], "o-", color=COLOURS[2], label="learned")
    # decays at which no minimum was found have no evidence
    known = table.dropna(subset="log_evidence")
    for axis, ylabel in ((left, "log evidence"), (right, "error per pattern")):
        if len(known):
            axis.axvline(
                known["decay"].iloc[int(known["log_evidence"].argmax())],
                color=INK,
                linewidth=0.8,
                linestyle=":",
            )
        if len(table) > 1:  # one decay has no scale
            axis.set_xscale("log")
        axis.set(xlabel="weight decay", ylabel=ylabel)
    legend_below(figure, *right.get_legend_handles_labels(), ncols=2)
    return finished(figure)


def pruning(frames: Frames) -> "Figure | None":
    """Error and accuracy against the share of weights removed, a line per method."""
    if "pruning" not in frames.tables:
        return None
    figure = sheet(3.6)
    left, right = figure.subplots(1, 2)
    held_back = "test_accuracy" if frames.pruning["test_accuracy"].notna().any() else "test_error"
    for name, colour in zip(dict.fromkeys(frames.pruning["method"]), COLOURS, strict=False):
        own = frames.pruning[frames.pruning["method"] == name]
        left.plot(own["removed"], own["train_error"], ".-", color=colour, label=plain(name))
        right.plot(own["removed"], own[held_back], ".-", color=colour)
    left.set(yscale="log", xlabel="share of weights removed", ylabel="error of a pattern learned")
    ylabel = (
        "accuracy on patterns held back"
        if held_back == "test_accuracy"
        else "error of a pattern held back"
    )
    right.set(xlabel="share of weights removed", ylabel=ylabel)
    legend_below(figure, *left.get_legend_handles_labels(), ncols=3)
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "optimisation": (
        optimisation,
        (
            "Three optimisers from the same weights at equal cost, which may end in different"
            " minima. Newton-CG spends most of its cost on Hessian-vector products; near a minimum,"
            " solved well enough, its steps converge faster than linearly."
        ),
    ),
    "spectrum": (
        density,
        (
            "Eigenvalues of the Hessian at the minimum, the weight decay included: the share of"
            " them in each interval."
        ),
    ),
    "modes": (
        modes,
        (
            "Gradient descent from a displacement along one eigenvector at a time: updates until it"
            " is down to 1/e."
        ),
    ),
    "evidence": (
        evidence,
        (
            "Which weight decay? MacKay's evidence needs only the patterns learned (left); the"
            " error on others (right) is the truth that it predicts. Dotted: the decay of largest"
            " evidence."
        ),
    ),
    "pruning": (
        pruning,
        (
            "Weights removed in the order of their size, of OBD's saliency (the diagonal of H), and"
            " one after another by OBS (all of H), which moves the weights that stay."
        ),
    ),
}


VIEW = View(COLUMNS, _uses, drawn(FIGURES), swept=SWEPT)
