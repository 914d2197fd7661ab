"""What all figures share: colours that are legible on white and on black, curves that can be told
apart, and how a figure becomes a file or part of a page.

Figures are drawn on Matplotlib's Agg canvas: no window, no global state.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from reports.frames import Frames

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDTH = 10.0  # of figures of several panels, inches
ONE = 6.4  # of a figure of one panel, so that it is legible in a narrow window, too
# a contrast of 3 at least on a white and on a dark page (WCAG 2.1, 1.4.11)
INK = "#5f6b7a"  # axes and words
COLOURS = ("#d1495b", "#c77700", "#2a9d8f", "#3d7ecc", "#9b5de5", "#6f8f24", "#c2689e", "#6c757d")
# of what has an order, by hue, from the first to the last
ORDERED = ("#3d7ecc", "#6470dd", "#8d62d8", "#b052bd", "#c74a92", "#d1495b", "#cc6235", "#b8740a")
MARKERS = "o^sDvP*X<>ph"
CLOSE = 1.5  # points of a figure: curves nearer than that hide each other
SLOT = 5.0  # line widths that one of several curves that coincide is seen for, one after another
SPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
Box = tuple[float, float, float, float]
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
    """One legend for all axes, below them; curves that coincide are told apart first."""
    tell_apart(figure)
    figure.legend(
        list(handles),
        list(labels),
        loc="outside lower center",
        ncols=ncols,
        frameon=False,
        fontsize=9,
    )


def ordered(count: int) -> list[str]:
    """Colours of so many curves that have an order."""
    at = np.linspace(0, len(ORDERED) - 1, max(count, 2)).round().astype(int)
    return [ORDERED[i] for i in at[:count]]


def tell_apart(figure: "Figure") -> None:
    """Curves of a label that hide each other somewhere take turns along the line, and their markers
    are the larger the lower they lie: each is seen.
    """
    panels = []
    for axis in figure.axes:
        found = zip(*axis.get_legend_handles_labels(), strict=True)
        # an errorbar is a container, whose first part is the line
        panels.append({label: getattr(line, "lines", [line])[0] for line, label in found})
    # drawn later lies above; the same in all panels, which have one legend
    names = list(dict.fromkeys(name for panel in panels for name in panel))
    group = {name: name for name in names}
    for one, other in combinations(names, 2):
        both = [panel for panel in panels if one in panel and other in panel]
        if any(_hide(panel[one], panel[other]) for panel in both):
            first, second = group[one], group[other]
            group = {name: first if of == second else of for name, of in group.items()}
    for first in dict.fromkeys(group.values()):
        together = [name for name, of in group.items() if of == first]
        for rank, name in enumerate(together if len(together) > 1 else []):
            for line in (panel[name] for panel in panels if name in panel):
                _take_turn(line, rank, len(together))


def _take_turn(line: "Line2D", rank: int, count: int) -> None:
    if line.get_marker() not in ("None", "", " ", None):
        line.set_markersize(line.get_markersize() + 1.5 * (count - 1 - rank))
    # the lowest is whole: it is seen between the dashes of the others
    if rank and line.get_linestyle() == "-":
        line.set_linestyle((rank * SLOT, (SLOT, (count - 1) * SLOT)))
        line.set_dash_capstyle("butt")


def _hide(one: Any, other: Any) -> bool:
    """Whether two curves coincide over a tenth of the points of one of them, or more."""
    a, b = _points(one), _points(other)
    if len(a) == 0 or len(b) == 0:
        return False
    for first, second in ((a, b), (b, a)):
        # as drawn: straight from point to point, and nothing beyond the ends
        at = np.interp(first[:, 0], second[:, 0], second[:, 1], np.nan, np.nan)
        if len(second) == 1:
            at = np.where(np.abs(first[:, 0] - second[0, 0]) < CLOSE, second[0, 1], np.nan)
        near = np.abs(first[:, 1] - at) < CLOSE
        if near.sum() >= max(0.1 * len(first), min(len(first), 2)):
            return True
    return False


def _points(line: Any) -> np.ndarray:
    """The points of a curve where they are drawn, from left to right, in points of the figure."""
    if not hasattr(line, "get_xydata"):
        return np.empty((0, 2))
    with np.errstate(all="ignore"):
        found = line.get_transform().transform(np.ma.filled(line.get_xydata(), np.nan))
    found = found[np.isfinite(found).all(1)] * 72 / line.get_figure().dpi
    return found[np.argsort(found[:, 0], kind="stable")]


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
        for words in (axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts):
            if words.get_color() == "black":  # of no colour of its own
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


def svg_elements(figure: "Figure", name: str) -> str:
    """The figure as parts of a page, whose colour its words and axes take: an <svg> for each panel,
    which stand side by side or below each other, and its legend as words, each behind its sign.
    """
    # as SVG is drawn: places in points
    figure.set_dpi(72)
    for i, axis in enumerate(figure.axes):
        axis.set_gid(f"axes-{i}")
    entries = [
        (sign, text)
        for legend in figure.legends
        for sign, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
        if sign is not None
    ]
    for i, (sign, _) in enumerate(entries):
        sign.set_gid(f"key-{i}")
    body = svg(figure, name)
    # identifiers must be unique in the page
    body = re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[0]}{name}-", body)
    drawing = _Drawing(body.replace(INK, "currentColor"), name, figure.bbox.height)
    panels, row = "", None
    boxes = _panels(figure)
    rows = [_rows(axes[0]) for axes, _ in boxes]
    for place, (axes, box) in zip(rows, boxes, strict=True):
        # rows of several stay rows where there is room
        if row not in (None, place) and len(set(rows)) < len(rows):
            panels += '<span class="break"></span>'
        row = place
        panels += drawing.part([f"axes-{figure.axes.index(axis)}" for axis in axes], box)
    keys = ""
    for i, (sign, text) in enumerate(entries):
        across, middle = sign.get_window_extent(), text.get_window_extent()
        y = (middle.y0 + middle.y1) / 2
        picture = drawing.part([f"key-{i}"], (across.x0 - 4, y - 6, across.x1 + 4, y + 6))
        keys += f"<span>{picture} {escape(text.get_text().replace(chr(92) + '$', '$'))}</span> "
    return f'<div class="panels">{panels}</div>' + (f'<p class="keys">{keys}</p>' if keys else "")


class _Drawing:
    """An SVG, of which parts are shown; height: of all of it, points."""

    def __init__(self, text: str, name: str, height: float):
        for prefix, space in SPACES.items():
            ElementTree.register_namespace(prefix, space)
        root = ElementTree.fromstring(text)
        self.groups = {each.get("id", ""): each for each in root.iter() if each.get("id")}
        # what parts refer to is found in the page, whichever of them holds it
        self.shared = [each for each in root if each.tag.endswith("defs")]
        self.name = name
        self.height = height

    def part(self, names: list[str], box: Box) -> str:
        """The groups of these names, in a box (left, low, right, high) from below, points."""
        left, low, right, high = box
        # the namespaces of an <svg> in a page are known
        shown = "".join(
            re.sub(r' xmlns(:\w+)?="[^"]*"', "", ElementTree.tostring(each, "unicode"))
            for each in (*self.shared, *(self.groups[f"{self.name}-{name}"] for name in names))
        )
        self.shared = []
        view = f"{left:.1f} {self.height - high:.1f} {right - left:.1f} {high - low:.1f}"
        style = f'style="--w:{(right - left) / 72:.2f}" aria-hidden="true"'
        return f'<svg {style} viewBox="{view}">{shown}</svg>'


def _panels(figure: "Figure") -> list[tuple[list["Axes"], Box]]:
    """The axes of each panel, a scale of colours with those it belongs to, and its box, points;
    those of one row have one height.
    """
    from matplotlib.transforms import Bbox

    groups: list[list[Axes]] = []
    for axis in figure.axes:
        if axis.get_label() == "<colorbar>" and groups:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    boxes = [
        Bbox.union([box for axis in group if (box := axis.get_tightbbox())]) for group in groups
    ]
    found = []
    for group, box in zip(groups, boxes, strict=True):
        beside = [
            other
            for others, other in zip(groups, boxes, strict=True)
            if _rows(others[0]) == _rows(group[0])
        ]
        low, high = min(each.y0 for each in beside), max(each.y1 for each in beside)
        found.append((group, (box.x0 - 3, low - 3, box.x1 + 3, high + 3)))
    return found


def _rows(axis: "Axes") -> tuple[int, int]:
    """First and last row of the grid that a panel takes."""
    place = axis.get_subplotspec()
    return (place.rowspan.start, place.rowspan.stop) if place else (0, 0)


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
