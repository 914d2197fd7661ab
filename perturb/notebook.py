"""How results show themselves in a notebook: a table, and axes to plot on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTITIES = {"gradient": "gradient", "hv": "z = Hv"}


def html_summary(
    title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]], notes: Iterable[str]
) -> str:
    """A named row of numbers each, below a title, and sentences below them."""
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", *columns))
    body = ""
    for name, values in rows.items():
        cells = "".join(f"<td>{number(value)}</td>" for value in values)
        body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        f"<div><p><b>{escape(title)}</b></p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{below}</div>"
    )


def number(value: float) -> str:
    """Four digits; - where unknown."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def axes(ax: "Axes | None") -> "Axes":
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    # late: most programs plot nothing
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]
