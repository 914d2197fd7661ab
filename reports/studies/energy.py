"""What the energy of a chip goes into: words, colours and bars that all studies share."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reports.escape import plain
from reports.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Cause(NamedTuple):
    """A cause of energy: in a table, in a sentence, and its colour in every figure."""

    name: str
    spoken: str
    colour: str


CAUSES = {
    "perturbation": Cause("changing perturbations", "for changes of the perturbation", COLOURS[0]),
    "mac": Cause("array", "for multiplying and adding in the array", COLOURS[1]),
    "conversion": Cause("conversions of E, dw.v, arrays", "for conversions", COLOURS[2]),
    "broadcast_bit": Cause("broadcasts", "for broadcasts", COLOURS[3]),
    "accumulate": Cause("sums of the synapses", "for the synapses' sums", COLOURS[4]),
    "write": Cause("writing weights", "for writing weights", COLOURS[5]),
    "host": Cause("words to and from the host", "for words between chip and host", COLOURS[6]),
    "static": Cause("static power", "static power", COLOURS[7]),
    "refresh": Cause("refreshing weights", "for refreshing the weights", "#868e96"),
}


def stacked(axis: "Axes", names: Sequence[str], causes: Mapping[str, np.ndarray]) -> None:
    """Joules by cause (a value for each name), a bar for each name."""
    from matplotlib.ticker import EngFormatter

    left = np.zeros(len(names))
    most = np.sum(list(causes.values()), axis=0).max()
    for cause, spent in causes.items():
        # what is too thin to be seen has no place in the legend
        seen = spent.max() > 0.003 * most
        about = CAUSES[cause]
        label = plain(about.name) if seen else None
        axis.barh(range(len(names)), spent, left=left, color=about.colour, label=label)
        left = left + spent
    axis.set_yticks(range(len(names)), list(map(plain, names)))
    axis.xaxis.set_major_formatter(EngFormatter("J"))
    axis.invert_yaxis()
