"""What came of a training: facts of every source."""

import math
from collections.abc import Iterator

import pandas as pd

from perturb.training.plan import Plan
from reports.statistics import share_interval
from sims.experiment.schema import Setup
from sims.problem import Fact
from sims.studies.training.options import Training
from sims.studies.training.theory import Limits

ENDS = {
    "error": "E on the patterns learned, at the end",
    "accuracy": "share of them classified rightly, at the end",
    "balanced_accuracy": "mean over the classes of the share classified rightly, at the end",
    "validation_error": "E on the patterns for validation, at the end",
    "validation_accuracy": "share of them classified rightly, at the end",
    "validation_balanced_accuracy": (
        "mean over the classes of the share of those for validation classified rightly, at the end"
    ),
    "test_error": "E on the patterns held back, at the end",
    "test_accuracy": "share of them classified rightly, at the end",
    "test_balanced_accuracy": (
        "mean over the classes of the share of those held back classified rightly, at the end"
    ),
}
# column of learning: its measure, unit and meaning
SPENT = {
    "update": ("updates", "", "updates"),
    "evaluations": ("evaluations", "", "measurements of E"),
    "chip_time_s": ("chip_time", "s", "chip time"),
    "energy_j": ("energy", "J", "energy"),
}


def summary(table: pd.DataFrame, experiment: Setup, limits: Limits, plan: Plan) -> list[Fact]:
    """Facts of every source: solved, what it had spent when it got there, and where it ended."""
    # sources end at different updates
    ends = table[table["update"] == table.groupby("source")["update"].transform("max")]
    names = list(dict.fromkeys(table["source"]))
    found = []
    for name in names:
        own = table[table["source"] == name]
        last = ends[ends["source"] == name]
        found += [
            *_goal(name, own, last, experiment),
            *_end(name, last),
            *_course_of(name, own, last, experiment),
        ]
    column = "test_accuracy" if ends["test_accuracy"].notna().any() else "error"
    # runs of all sources have the same starts: their differences are paired
    both = ends.pivot(index="run", columns="source", values=column)
    # the exact gradient is the last that learns
    for name in names[:-1] if "exact" in names else []:
        gap = (both["exact"] - both[name]).dropna()
        if len(gap):
            stderr = _sd(gap) / math.sqrt(len(gap))
            meaning = (
                f"{column.replace('_', ' ')} that the exact gradient ends with, less that of these"
                " updates: mean of runs from the same starts"
            )
            found.append(Fact("gap_to_exact", float(gap.mean()), meaning, name, stderr=stderr))
    used = (
        f"; in use {plan.first_rate:g}"
        if plan.rate == "fixed" and plan.rule in ("plain", "momentum")
        else ""
    )
    found.append(
        Fact(
            "stable_learning_rate",
            limits.eta,
            f"eta above which updates grow, at the start, by theory{used}",
        )
    )
    if plan.is_calibrated:
        what = "from trials at the start, for all that learn by trials"
        found.append(Fact("calibrated_sigma", plan.sigma, f"rms perturbation, {what}"))
        found.append(Fact("calibrated_rate", plan.first_rate, f"of the first update, {what}"))
    return found


def _goal(name: str, own: pd.DataFrame, last: pd.DataFrame, experiment: Setup) -> Iterator[Fact]:
    """Whether a source got to the goal, and what it had spent then. last: its rows at the end."""
    options = experiment.options(Training)
    R = len(last)
    own, last = done(own), done(last)
    solved = int(reached(last, experiment).sum())
    sign = "<=" if options.criterion.endswith("error") else ">="
    low, high = share_interval(solved, R)
    meaning = (
        f"share of {R} runs with {options.criterion.replace('_', ' ')} {sign} {options.goal:g} at"
        " the end"
    )
    # of none or of all, the interval alone says how sure it is
    stderr = math.sqrt(solved * (R - solved) / R**3) or math.nan
    yield Fact("solved", solved / R, meaning, name, "share", stderr, low, high)
    # rows stand in the order of updates
    first = own[reached(own, experiment)].groupby("run").first()
    yield Fact(
        "ever_solved", len(first) / R, "share of runs that were there at any record", name, "share"
    )
    for column, (measure, unit, what) in SPENT.items():
        if name == "exact" and column != "update":
            continue
        # inf: never
        middle = float(first[column].median()) if len(first) else math.inf
        meaning = (
            f"{what}, median of the {len(first)} runs that ever got there, when first seen there"
        )
        yield Fact(f"{measure}_to_goal", middle, meaning, name, unit)
        # runs that end early spend less than others
        alike = last[column].nunique() == 1
        spent = last[column].iloc[0] if alike else last[column].mean()
        whose = "of each run" if alike else "mean of runs"
        yield Fact(measure, float(spent), f"{what}, {whose}", name, unit)


def done(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose update is no later than that at which the run ended."""
    ended = rows["ended"].where(rows["ended"] >= 0, rows["update"])
    return rows.assign(update=rows["update"].clip(upper=ended))


def _sd(values: pd.Series) -> float:
    if len(values) < 2:
        return math.nan
    # a mean that is rounded would leave something of equal values
    return 0.0 if values.min() == values.max() else float(values.std(ddof=1))


def _end(name: str, last: pd.DataFrame) -> Iterator[Fact]:
    """Errors and accuracies of a source at the end."""
    for column, what in ENDS.items():
        values = last[column].dropna()
        if len(values):
            unit = "" if column.endswith("error") else "share"
            sd = _sd(values)
            # what has a unit is a share, of which more is better
            worst = float(values.min() if unit else values.max())
            yield Fact(
                column,
                float(values.mean()),
                f"{what}, mean of runs",
                name,
                unit,
                sd / math.sqrt(len(values)),
            )
            yield Fact(
                f"{column}_sd", sd, "its standard deviation over runs: starts and dies", name
            )
            yield Fact(f"{column}_worst", worst, "the worst of all runs", name, unit)
    if last["predicted_error"].notna().any():
        meaning = "E on the patterns learned at the end by theory of a quadratic, mean of runs"
        yield Fact("predicted_error", float(last["predicted_error"].mean()), meaning, name)


def _course_of(
    name: str, own: pd.DataFrame, last: pd.DataFrame, experiment: Setup
) -> Iterator[Fact]:
    """How a source went on: runs that diverged or stand still, and where updates pointed."""
    if last["diverged"].any():
        yield Fact(
            "diverged",
            float(last["diverged"].mean()),
            "share of runs whose error ran away",
            name,
            "share",
        )
    if (ended := last["ended"] >= 0).any():
        meaning = "share of runs that ended before the last update: stop_change, patience"
        yield Fact("ended_early", float(ended.mean()), meaning, name, "share")
        meaning = "update at which they ended, median"
        yield Fact("ended_at", float(last.loc[ended, "ended"].median()), meaning, name)
    still = last["still"] & ~last["diverged"] & ~reached(last, experiment)
    if still.any():
        meaning = (
            "share of runs short of the goal whose weights do not change any more, since the last"
            " record but one at least"
        )
        yield Fact("standing_still", float(still.mean()), meaning, name, "share")
    late = own[own["update"] > own["update"].max() / 2]["alignment"].dropna()
    if len(late) and name != "exact":
        meaning = (
            "cosine of the weights' change from record to record with -g, the exact way downhill;"
            " second half of the run"
        )
        yield Fact("alignment", float(late.mean()), meaning, name, "cosine")


def reached(rows: pd.DataFrame, experiment: Setup) -> pd.Series:
    """Whether the goal is met, row by row."""
    options = experiment.options(Training)
    values = rows[options.criterion]
    return values <= options.goal if options.criterion.endswith("error") else values >= options.goal
