"""What all figures share: colours that are legible on white and on black, and how a figure becomes
a file or part of a page.

Figures are drawn on Matplotlib's Agg canvas: no window, no global state.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

from reports.frames import Frames

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

WIDTH = 10.0  # of most figures, inches
INK = "#5f6b7a"  # axes and words: legible on white and on black
COLOURS = ("#d1495b", "#e08e0b", "#2a9d8f", "#3d7ecc", "#9b5de5", "#7a9e2f", "#c2689e", "#6c757d")
MARKERS = "o^sDvP*X<>ph"
Drawn = tuple["Figure", str]  # with its caption
# how to draw a figure (None where there is nothing to see), and its caption
Drawing = tuple[Callable[[Frames], "Figure | None"], str]


def sheet(height: float, width: float = WIDTH) -> "Figure":
    """An empty figure, of inches."""
    # here alone, and late: Matplotlib takes longer to load than what is printed to be computed
    from matplotlib.figure import Figure

    # room for labels and legends is found by Matplotlib, whatever texts of users are in them
    return Figure(figsize=(width, height), layout="constrained")


def legend_below(
    figure: "Figure", handles: Iterable["Artist"], labels: Iterable[str], *, ncols: int
) -> None:
    """One legend for all axes, below them."""
    figure.legend(
        list(handles),
        list(labels),
        loc="outside lower center",
        ncols=ncols,
        frameon=False,
        fontsize=9,
    )


def finished(figure: "Figure") -> "Figure":
    """Words and axes in one colour that is legible on white and on black; the paper shows
    through.
    """
    figure.patch.set_alpha(0.0)
    for axis in figure.axes:
        axis.patch.set_alpha(0.0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(INK)
        axis.tick_params(which="both", colors=INK, labelsize=8)
        for words in (axis.title, axis.xaxis.label, axis.yaxis.label):
            words.set_color(INK)
    for legend in figure.legends:
        for words in legend.get_texts():
            words.set_color(INK)
    return figure


def svg(figure: "Figure", name: str) -> str:
    """The figure as a file; the same figure gives the same text."""
    from matplotlib import rc_context

    # a salt and no date: identifiers, and so the bytes, are the same every time
    # letters as outlines: a reader need not have the font
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def svg_element(figure: "Figure", name: str, description: str) -> str:
    """The figure as an <svg> element of a page, whose colour its words and axes take."""
    body = svg(figure, name)
    body = body[body.index("<svg ") :]
    # identifiers must be unique in the page
    body = re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[0]}{name}-", body)
    return body.replace(
        "<svg ", f'<svg role="img" aria-label="{escape(description, quote=True)}" ', 1
    ).replace(INK, "currentColor")


def png(figure: "Figure") -> bytes:
    """The figure on white, as a file."""
    picture = io.BytesIO()
    # a picture may be put on any ground
    figure.patch.set_alpha(1.0)
    figure.savefig(picture, format="png", dpi=150, facecolor="white")
    return picture.getvalue()


def drawn(drawings: Mapping[str, Drawing]) -> Callable[[Frames], dict[str, Drawn]]:
    """The figures of a view, of those that there is something to see of."""

    def figures(frames: Frames) -> dict[str, Drawn]:
        found = {name: (draw(frames), caption) for name, (draw, caption) in drawings.items()}
        return {
            name: (figure, caption)
            for name, (figure, caption) in found.items()
            if figure is not None
        }

    return figures
