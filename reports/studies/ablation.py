"""How the cost of imperfections is shown, the dearest first."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from reports.columns import Column, Table, only
from reports.escape import plain
from reports.figures import COLOURS, INK, ONE, Drawing, drawn, finished, sheet
from reports.formats import Format, cosine, count, joules, number, percent, seconds
from reports.frames import Frames, Swept, View
from reports.statistics import t_reach
from reports.studies.crossed import SURE
from reports.vocabulary import ALL, ALL_BUT, ONLY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABLATION = {
    "quantity": Column("gradient (dE/dw) or hv (z = Hv)"),
    "variant": Column("what the chip has: group and imperfection", heading="chip"),
    "group": Column("ideal, only one imperfection, all, or all but one"),
    "imperfection": Column("which one; empty if none is meant"),
    "imperfections": Column("those that this chip has"),
    "dies": Column("dies simulated, each with a seed of its own"),
    "trials": Column("trials on each", count),
    "cosine": Column("mean cosine with exact R{backprop}", cosine, "cosine"),
    "cosine_spread": Column("its standard deviation over the dies", cosine),
    "relative_error": Column(
        "|estimate - exact| / |exact|, root of the mean square", less_is_better=True
    ),
    "yield": Column("share of the dies that reach the accuracy wanted", percent, "share"),
    "trials_to_accuracy": Column(
        "trials to a mean cosine as wanted, from the errors after a quarter and all of the trials;"
        " inf = never",
        count,
    ),
    "evaluations_to_accuracy": Column("measurements of E in them", count, heading="evaluations"),
    "cost": Column("evaluations over those of the ideal chip; 1.04 is 4 % more"),
    "cost_stderr": Column("its standard error from die to die; empty: not known"),
    "saved": Column(
        "of all but one: share of the evaluations saved over the chip with all of them; 1 where"
        " that never gets there; empty: not known"
    ),
    "saved_stderr": Column("its standard error from die to die; empty: not known"),
    "time_to_accuracy_s": Column("chip time for them, s", seconds, "s", heading="chip time"),
    "energy_to_accuracy_j": Column("energy for them, J", joules, "J", heading="energy"),
    "trial_ns": Column("chip time of a trial, ns"),
}
COLUMNS = {"summary": ABLATION}


SWEPT = Swept(
    ("quantity", "variant"),
    ("relative_error", "cosine", "yield"),
    wanted=("cosine", "dies.accuracy"),
    shares={"yield": "dies.count"},
)


DEAR = 1.1  # times the evaluations of the ideal chip: what costs more is named


def _ablation(frames: Frames) -> list[Table]:
    names = ["variant", "evaluations_to_accuracy", "cost", "cosine", "relative_error", "yield"]
    columns = only(ABLATION, [*names, "time_to_accuracy_s", "energy_to_accuracy_j"])
    accuracy = frames.experiment["dies"]["accuracy"]
    note = (
        f"on {frames.summary['dies'].iloc[0]} dies; evaluations of E, time and energy to a cosine"
        f" of {accuracy:g}; cost: evaluations more than on the ideal chip"
    )
    shown = []
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        rows = frames.of(quantity)
        # value and error in one cell, which the renderer writes as +4.0 +- 0.5 %
        costs = [Cost(*pair) for pair in zip(rows["cost"], rows["cost_stderr"], strict=True)]
        rows = rows.assign(cost=pd.Series(costs, rows.index, object))
        if len(rows):
            shown.append(Table(f"{title}: what each imperfection costs", note, rows, columns))
    return shown


class Cost(NamedTuple):
    """Evaluations that a variant of a chip takes, in those of the ideal one: +4.0 +- 0.5 %."""

    value: float
    stderr: float

    def text(self, format: Format) -> str:
        times = self.value
        if not math.isfinite(times):
            return "-" if math.isnan(times) else "never"
        known = math.isfinite(self.stderr)
        # from twice on, times are easier to read than per cent
        if times > 2:
            return f"{times:.3g} times" + (f" +- {self.stderr:.2g}" if known else "")
        error = f" +- {100 * self.stderr:.1f} %" if known else " %"
        return f"{100 * (times - 1):+.1f}{error}"


def _more(row: pd.Series) -> str:
    """What a variant of a chip costs over the ideal one."""
    return Cost(row["cost"], row["cost_stderr"]).text(number)


def _ablated(frames: Frames) -> list[tuple[str, str]]:
    """What costs most of all imperfections, in a sentence for z and one for the gradient."""
    sentences = []
    accuracy = frames.experiment["dies"]["accuracy"]
    for quantity, title in (("hv", "z = Hv"), ("gradient", "gradient")):
        table = frames.of(quantity)
        single = table[table["group"] == ONLY].dropna(subset="cost")
        if single.empty:
            continue
        limits = _limiting(table, accuracy)
        # what is less is no cost that these dies show
        bound = 2 * single["cost_stderr"].fillna(0.0)
        # named are those that cost much, and more than chance from die to die
        dear = (single["cost"] > DEAR) & (single["cost"] - 1 > bound)
        parts = [limits] if limits else []
        if never := list(single.loc[np.isinf(single["cost"]), "imperfection"]):
            parts.append(
                f"a cosine of {accuracy:g} is never reached with {' or '.join(never)} alone"
            )
        for _, row in single[dear & np.isfinite(single["cost"])].iterrows():
            parts.append(f"{row['imperfection']} costs {_more(row)}")
        if not dear.all():
            most = float((single["cost"] - 1 + bound)[~dear].max())
            # an upper bound, rounded up: two standard errors above the value
            text = (
                f"nothing {'else ' if dear.any() else ''}here costs more than"
                f" {max(math.ceil(100 * most), 1)} %"
            )
            parts.append(text + (", as far as these dies tell" if bound[~dear].any() else ""))
        # measured, not added up: costs of single imperfections do not add
        together = table[table["group"] == ALL]
        if len(together) and math.isfinite(float(together["cost"].iloc[0])):
            parts.append(f"all together {_more(together.iloc[0])}")
        sentences.append(
            (
                f"{title}:",
                (
                    f"{'; '.join(parts)} (evaluations to a cosine of {accuracy:g}, over those of"
                    " the ideal chip)"
                ),
            )
        )
    return sentences


def _limiting(table: pd.DataFrame, accuracy: float) -> str:
    """What is won where the one imperfection that limits is taken away; empty if none is sure to
    be worth it.
    """
    # of all but one
    without = table.dropna(subset="saved")
    # what takes it from never to some number is sure, whatever its standard error
    sure = (without["saved"] > SURE * without["saved_stderr"].fillna(0.0)) & (
        without["saved_stderr"].notna() | (without["saved"] == 1)
    )
    found = without[sure & (without["saved"] > 1 - 1 / DEAR)].sort_values(
        ["saved", "evaluations_to_accuracy"], ascending=[False, True]
    )
    if found.empty:
        return ""
    row = found.iloc[0]
    if math.isnan(row["saved_stderr"]):
        return (
            f"{row['imperfection']} limits, without which a cosine of {accuracy:g} is reached after"
            f" {count(row['evaluations_to_accuracy'])} evaluations, and never with it"
        )
    n = row["dies"]
    # of a mean over dies, whose standard deviation is sqrt(n) standard errors
    reach = float(t_reach(np.array(n))) * math.sqrt(n) * row["saved_stderr"]
    low, high = (100 * (row["saved"] + sign * reach) for sign in (-1, 1))
    return (
        f"{row['imperfection']} limits: to take it away saves {100 * row['saved']:.3g} %"
        f" [{low:.3g} %, {min(high, 100.0):.3g} %] of the evaluations"
    )


def ablation(frames: Frames) -> "Figure":
    """Evaluations that z (or the gradient) needs on every variant of the chip, over those on the
    ideal one, a bar each.
    """
    quantity = "hv" if (frames.summary["quantity"] == "hv").any() else "gradient"
    table = frames.of(quantity)
    figure = sheet(1.0 + 0.3 * len(table), ONE)
    axis = figure.subplots()
    # ideal and all together in grey
    group = [{ONLY: 1, ALL_BUT: 2}.get(name, 0) for name in table["group"]]
    # "never" has no length that a bar could have: it is written there below
    known = table["cost"].replace(np.inf, np.nan)
    top = float(known.max()) if known.notna().any() else 1.0
    # no bar for an error of 0, as of the ideal chip over itself
    error = table["cost_stderr"].where(known.notna() & (table["cost_stderr"] > 0))
    axis.barh(
        range(len(table)),
        known.fillna(0.0),
        xerr=error,
        color=[(INK, COLOURS[0], COLOURS[3])[i] for i in group],
        ecolor=INK,
    )
    for place, value in enumerate(table["cost"]):
        if not np.isfinite(value):
            axis.text(
                0.05, place, "never" if np.isinf(value) else "not known", va="center", fontsize=9
            )
    axis.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(table)), list(map(plain, table["variant"])))
    # the first row on top, as in the table
    axis.invert_yaxis()
    accuracy = frames.experiment["dies"]["accuracy"]
    what = "z = Hv" if quantity == "hv" else "the gradient"
    label = f"evaluations to a cosine of {accuracy:g} of {what}, in those of the ideal chip"
    if top > 30:  # what costs little looks it: the axis begins far below 1
        axis.set_xscale("symlog", linthresh=2.0)
    axis.set(xlabel=label, xlim=(0, 1.1 * top))
    return finished(figure)


FIGURES: dict[str, Drawing] = {
    "ablation": (
        ablation,
        (
            "Evaluations to the accuracy wanted, in those of the ideal chip (grey), with one"
            " imperfection alone (red), all (grey), and all but one (blue). Bars begin at 0: what"
            " looks alike costs alike."
        ),
    )
}


VIEW = View(COLUMNS, _ablation, drawn(FIGURES), _ablated, swept=SWEPT, answer_first=True)
