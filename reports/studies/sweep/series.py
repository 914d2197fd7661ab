"""What the tables and the figures of a sweep share: which measures are shown, what is
distinguished, what is the own method.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports.frames import Frames, Swept, View
from reports.statistics import VARIED, Means, varied_names
from reports.store.commands import ranges
from reports.studies import view_of
from reports.vocabulary import ALL

EXACT = ("exact",)  # the control of a training
LINES_SHOWN = 8  # in one figure: more cannot be told apart


def swept(frames: Frames) -> Swept:
    """What a sweep of its study shows."""
    found = inner_view(frames).swept
    assert found is not None
    return found


def inner_view(frames: Frames) -> View:
    """The view of the study that is swept."""
    return view_of(frames.experiment["study"])


def evenly_drawn(frames: Frames) -> set[str]:
    """The keys that are drawn from ranges in equal parts of themselves, and not of their
    logarithm.
    """
    drawn = ranges(frames.provenance["sweep"])
    return {key for key, (_, _, logarithmic) in drawn.items() if not logarithmic}


def means_of(frames: Frames) -> Means:
    """What a sweep measured, by measure."""
    assert isinstance(frames.means, Means)
    return frames.means


def shown_measures(frames: Frames) -> list[str]:
    """The measures of the study, and the one that is wanted, as far as this sweep has them."""
    has = means_of(frames).measures
    wanted = frames.provenance["wanted"]
    listed = [*swept(frames).measures, *([wanted["measure"]] if wanted else [])]
    return [measure for measure in dict.fromkeys(listed) if measure in has]


def is_drawn(frames: Frames, measure: str) -> bool:
    """Whether there is a picture of a measure: some of its means are finite, or its predictions."""
    found = means_of(frames).of(measure)
    return bool(np.isfinite(found[["mean", "predicted"]].to_numpy(float)).any())


def series(frames: Frames, part: pd.DataFrame) -> dict[tuple[str, ...], pd.DataFrame]:
    """What is distinguished beside the quantity: (method, code), the variant of a chip, the subject
    of facts.
    """
    within = [name for name in swept(frames).identity if name != "quantity"]
    if not within:
        return {(): part}
    # numbers of groups in the order of the rows; dropna: an empty subject is one, too
    codes = part.groupby(within, sort=False, observed=True, dropna=False).ngroup().to_numpy()
    found = {}
    for code in range(codes.max() + 1 if codes.size else 0):
        own = part[codes == code]
        found[tuple(str(own[name].iloc[0]) for name in within)] = own
    return found


def of_quantity(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows of z or of the gradient; "" are all, of what does not tell them apart."""
    return table[table["quantity"] == quantity] if quantity else table


def own_series(frames: Frames, names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """That of the experiment's own method, or of the chip with all its imperfections, where
    there are several.
    """
    # where method or code is varied, the own one is "as varied"
    if "primary" in frames.summary:
        rows = frames.summary[frames.summary["primary"]]
        varied = dict.fromkeys(varied_names(frames.summary, frames.provenance["varied"]), VARIED)
        for pair in zip(*(rows[name] for name in ("method", "code")), strict=True):
            pair = (varied.get("method", pair[0]), varied.get("code", pair[1]))
            if pair in names:
                return pair
    return next((name for name in ((ALL,), *names) if name in names and name != EXACT), names[0])


def own_estimates(frames: Frames, quantity: str) -> bool:
    """Whether the experiment's own method estimates a quantity, where there are methods."""
    summary = frames.summary
    return "primary" not in summary or bool(
        (summary["primary"] & (summary["quantity"] == quantity)).any()
    )


def shown(value: object) -> str:
    """A varied value in words."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
