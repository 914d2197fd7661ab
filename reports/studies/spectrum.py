"""How the eigenvalues of a network are shown."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.columns import Column, Table, named, only
from reports.figures import COLOURS, INK, ONE, Drawing, drawn, finished, sheet
from reports.formats import Estimate, fixed, integer
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EIGENVALUE = partial(fixed, spec=".6g")
RESIDUAL = partial(fixed, spec=".1e")
EXTREMES = {
    "eigenvalue": Column("eigenvalue of H, from either end", EIGENVALUE),
    "residual": Column("|H x - lambda x| of its vector x", RESIDUAL),
}


EIGENVALUES = {
    "eigenvalue": Column("eigenvalue of H, or node of the quadrature"),
    "weight": Column("its share of the spectrum; the shares sum to 1"),
    "exact": Column(
        "whether these are all eigenvalues of H, rather than nodes of stochastic Lanczos quadrature"
    ),
}
BLOCKS = {
    "layer": Column("number of a layer that has weights, from 1", integer),
    "weights": Column("how many weights it has", integer),
    "trace": Column("trace of its block of H: of its weights alone, the others held"),
    "trace_stderr": Column("standard error of that; 0 = exact"),
    "trace_df": Column(
        "degrees of freedom of trace_stderr: an interval takes Student's quantile where they are"
        " few; inf where exact"
    ),
    "largest": Column("largest eigenvalue of that block; empty = has not converged", EIGENVALUE),
    "residual": Column("|H x - lambda x| of its vector x; 0 = diagonalised", RESIDUAL),
    "products": Column("Hessian-vector products that the row took", integer),
}
COLUMNS = {
    "summary": FACTS,
    "extremes": EXTREMES,
    "eigenvalues": EIGENVALUES,
    "layers": BLOCKS,
}


SWEPT = Swept(("subject",), ("largest", "trace"))


def _spectrum(frames: Frames) -> list[Table]:
    # stored in ascending order
    largest_first = frames.extremes.iloc[::-1]
    largest_first = largest_first.assign(number=range(1, 1 + len(largest_first)))
    # a table's first column names its rows, and eigenvalues have no names
    columns = {"number": named("number", integer), **EXTREMES}
    note = "residual: |Hx - lambda x| of the eigenvector x"
    return [
        facts(frames),
        Table("Extreme eigenvalues, largest first", note, largest_first, columns),
        *by_layer(frames),
    ]


def by_layer(frames: Frames) -> list[Table]:
    """The table of the layers' blocks; none of a network with one layer, or of an interrupted run
    that lacks them.
    """
    if "layers" not in frames.tables:
        return []
    table = frames.layers
    pairs = zip(table["trace"], table["trace_stderr"], strict=True)
    # as objects: pandas would take tuples apart
    cells = [value if stderr == 0 else Estimate(value, stderr) for value, stderr in pairs]
    shown = pd.Series(cells, table.index, dtype=object)
    columns = only(BLOCKS, ["layer", "weights", "trace", "largest"])
    note = "its block of H: of the weights of that layer, the others held"
    return [Table("Curvature of each layer", note, table.assign(trace=shown), columns)]


def density(frames: Frames) -> "Figure | None":
    """Share of eigenvalues against their size, on a scale that is linear around zero."""
    # an interrupted run may have the extremes alone
    if "eigenvalues" not in frames.tables:
        return None
    figure = sheet(3.6, ONE)
    axis = figure.subplots()
    eigenvalues = frames.eigenvalues
    values = eigenvalues["eigenvalue"].to_numpy()
    weights = eigenvalues["weight"].to_numpy()
    size = np.abs(values).max() or 1.0
    # below it eigenvalues are as good as 0, of directions in which E hardly changes
    linear = size * 1e-4
    # negative ones mirrored; one bin from -linear to linear holds what is zero or nearly so
    edges = np.concatenate([-np.geomspace(size, linear, 49), np.geomspace(linear, size, 49)])
    shares, _ = np.histogram(values, edges, weights=weights)
    # below a single eigenvalue: an empty interval has no bar
    low = 0.5 * weights[weights > 1e-12].min()
    axis.stairs(np.maximum(shares, low), edges, baseline=low, fill=True, color=COLOURS[3])
    axis.set_xscale("symlog", linthresh=linear)
    # without negative eigenvalues the left half would be empty
    if values.min() > linear:
        axis.set_xlim(left=values.min() / 2)
    axis.set(yscale="log", xlabel="eigenvalue of H", ylabel="share of the eigenvalues")
    axis.axvline(0.0, color=INK, linewidth=0.8, linestyle=":")
    exact = bool(eigenvalues["exact"].all())
    axis.set_title("all eigenvalues" if exact else "by stochastic Lanczos quadrature", fontsize=9)
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "spectrum": (
        density,
        (
            "Eigenvalues of the Hessian: the share of them in each interval, on scales that are"
            " logarithmic."
        ),
    )
}


VIEW = View(COLUMNS, _spectrum, drawn(FIGURES), swept=SWEPT)
