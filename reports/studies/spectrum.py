"""How the eigenvalues of a network are shown."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from reports.columns import Column, Table, named
from reports.figures import COLOURS, INK, ONE, Drawing, drawn, finished, sheet
from reports.formats import fixed, integer
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXTREMES = {
    "eigenvalue": Column("eigenvalue of H, from either end", partial(fixed, spec=".6g")),
    "residual": Column("|H x - lambda x| of its vector x", partial(fixed, spec=".1e")),
}


EIGENVALUES = {
    "eigenvalue": Column("eigenvalue of H, or node of the quadrature"),
    "weight": Column("its share of the spectrum; the shares sum to 1"),
    "exact": Column(
        "whether these are all eigenvalues of H, rather than nodes of stochastic Lanczos quadrature"
    ),
}
COLUMNS = {"summary": FACTS, "extremes": EXTREMES, "eigenvalues": EIGENVALUES}


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
    ]


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
