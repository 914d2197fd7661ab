"""A stored sweep as tidy pandas frames: every result, every cell, means over repeats, and where an accuracy is still met."""

import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tomli_w
from scipy.special import stdtrit

from hardware.config import flat
from perturb.errors import InputError
from reports.columns import CELLS, COLUMNS, GROUP, POINTS, THRESHOLDS
from reports.frames import CATEGORIES, Frames, LateTables
from sims import sweep_results, sweep_store
from sims.experiment.schema import seeds_of

Array = np.ndarray
CONFIDENCE = 0.95
ROUNDING = 64 * np.finfo(float).eps  # numbers no further apart, relative to their size, are the same
FAR_APART = 8.0  # values this many times apart are seen, and interpolated between, on a logarithmic scale


class Study(NamedTuple):
    """What a sweep of a study shows. identity: columns that tell rows of a summary apart (none: facts, told apart by their
    groups); measures: what is plotted; theory: of a measure, the column that predicts it; wanted: of which measure; shares:
    measures that are shares of independent runs or dies, and the key of the experiment that says of how many."""

    identity: tuple[str, ...]
    measures: tuple[str, ...]
    theory: dict[str, str]
    wanted: str = ""
    shares: Mapping[str, str] = {}


ESTIMATED = ("quantity", "method", "code")
STUDIES = {
    "compare": Study(
        ESTIMATED, ("relative_error", "cosine"),
        {"relative_error": "predicted_relative_error", "cosine": "predicted_cosine"}, "cosine",
    ),
    "estimators": Study(
        ESTIMATED, ("measured_error", "measured_cosine"),
        {"measured_error": "predicted_error", "measured_cosine": "predicted_cosine", "measured_bias": "predicted_bias"},
        "measured_cosine",
    ),
    "ablation": Study(
        ("quantity", "variant"), ("relative_error", "cosine", "yield"), {}, "cosine", {"yield": "dies.count"},
    ),
    "reproduce": Study(("name", "claim"), ("measured",), {"measured": "predicted"}),
    "dies": Study((), ("median cosine", "yield"), {}, "median cosine", {"yield": "dies.count"}),
    "budget": Study((), ("trials", "chip time", "energy"), {}),
    "spectrum": Study((), ("largest", "trace"), {}),
    "finite-difference": Study((), ("smallest error",), {}),
    "uses": Study((), ("decay by evidence", "its test error"), {}),
    "training": Study(
        (), ("solved", "ever solved", "error", "test accuracy", "evaluations to goal"), {"error": "error foretold"}, "solved",
        dict.fromkeys(("solved", "ever solved", "diverged"), "training.runs"),
    ),
}  # fmt: skip


ON_CHIP = ("compare", "estimators", "ablation", "dies", "budget", "training")  # studies with perturbations and noise
# keys that, where they are given, make the runs or dies of all repeats the same ones, which cannot be counted over them
PINNED = {"training.runs": "weights.seed", "dies.count": "chip.die"}
EXACT = ("exact",)  # the control of a training
VARIED = "as varied"  # the experiment's own method or code, where that is what is varied
IDENTITY = ("quantity", "method", "code", "variant", "name", "claim", "group")


class Wanted(NamedTuple):
    """What is wanted of a measure: at least (or at most) a value."""

    measure: str
    at_least: bool
    value: float

    def __str__(self) -> str:
        named = any(self.measure in study.measures for study in STUDIES.values())  # others keep the units in their names
        return f"{self.measure.replace('_', ' ') if named else self.measure} {'>=' if self.at_least else '<='} {self.value:g}"

    def met(self, values: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return values >= self.value if self.at_least else values <= self.value


def load(directory: Path, wanted: str | None = None) -> Frames:
    """The frames of a sweep directory: summary, cells, points and, along the first varied key that is a number, thresholds.

    wanted: what the thresholds are of, such as "cosine >= 0.95". Absent: a cosine as [dies] of the experiment wants it; of a
    training, that half of the runs are solved. InputError if the directory cannot be read or holds no result.
    """
    stored = sweep_results.read(directory)
    experiment = stored.plan["experiment"]
    study = STUDIES[experiment["study"]]
    if "study" in stored.keys:
        raise InputError(f"{directory}: the study itself is varied, and reports are of one: sims.load_sweep gives its results")
    summary = _with_categories(stored.table("summary"), stored.keys)
    if summary.empty:
        raise InputError(f"{directory}: no cell of this sweep is done yet: perturb status {shlex.quote(str(directory))} says why")
    goal = _wanted(wanted, study, experiment)
    means, keys = Means(summary, stored.keys, study, flat(experiment)), stored.keys
    tables = {"summary": summary, "cells": _cells(stored)}
    if goal:  # test_accuracy is written for test accuracy too, as keys of experiments are
        named = {str(name).replace("_", " "): name for name in means.measures}
        goal = goal._replace(measure=named.get(goal.measure.replace("_", " "), goal.measure))
    if goal and goal.measure not in means.measures:
        raise InputError(f"wanted = {wanted!r}: {goal.measure} is no measure of this sweep: one of {'; '.join(means.measures)}")
    numbers = [key for key in keys if pd.api.types.is_numeric_dtype(summary[key])]
    late = {"points": means.parts}
    if goal and numbers:
        others = [key for key in keys if key != numbers[0]]
        # of a design no two points differ in a single key: there is nothing to follow
        if not others or len(summary[keys].drop_duplicates()) > len(summary[others].drop_duplicates()):
            whole = isinstance(flat(experiment).get(numbers[0]), int)
            found = thresholds(means.of(goal.measure), numbers[0], goal, others, whole)
            late["thresholds"] = lambda: iter([found])
    return Frames(directory, LateTables(tables, late), experiment, _provenance(stored, goal), means)


def _provenance(stored: sweep_results.Stored, wanted: Wanted | None) -> dict[str, Any]:
    plan, count = stored.plan, len(stored.rows)
    failed, done = len(stored.failed()), len(stored.done)
    varied = {key: plan["meanings"][key] for key in stored.keys}
    first = min(outcome.started_utc for outcome in stored.ended.values())
    points = count // plan["sweep"]["repeats"]
    about = plan["experiment"]["description"] or plan["experiment"]["name"]
    repeats = f" with {plan['sweep']['repeats']} repeats each{_new(stored)}" if plan["sweep"]["repeats"] > 1 else ""
    what = ", ".join(varied) if varied else "nothing but the seed"
    left = "" if done == count else f"{done} of {count} cells are done" + (f" and {failed} failed" if failed else "")
    return {
        "experiment": plan["experiment"]["name"],
        "description": f"{about}; a sweep of {what}: {points} point{'s' * (points != 1)}{repeats}",
        "status": "partial" if left else "complete",
        **({"reason": left} if left else {}),
        "command": _command(plan),
        "seed": plan["experiment"]["run"]["seed"],
        "cells": {"all": count, "done": done, "failed": failed},
        "seconds": sum(outcome.seconds for outcome in stored.ended.values()),
        "sweep": plan["sweep"],
        "varied": varied,
        "kept": [name for name in COLUMNS[plan["experiment"]["study"]] if name != "summary"] if plan["sweep"]["keep"] else [],
        "wanted": None if wanted is None else wanted._asdict(),
        "created_utc": datetime.fromtimestamp(first, UTC).isoformat(timespec="seconds"),
        **plan["origin"],
    }


def _new(stored: sweep_results.Stored) -> str:
    """What is another one in every repeat, and what is not."""
    if "seeds" not in stored.plan:
        return " (by an earlier version, whose repeats are not independent of each other: intervals are too narrow)"
    study, given = stored.plan["experiment"]["study"], dict.fromkeys(key for point in stored.plan["given"] for key in point)
    made = {"weights.seed": "starting weights", "direction.seed": "direction", "chip.die": "die"}
    if study not in (*ON_CHIP, "spectrum", "finite-difference", "uses"):
        return ""
    if study not in ON_CHIP:
        made.pop("chip.die")
    if study in ("training", "spectrum", "uses"):
        made.pop("direction.seed")
    new = [name for key, name in made.items() if key not in given] + ["perturbations and noise"] * (study in ON_CHIP)
    same = [key for key in given if key in made]
    said = f"new in each: {', '.join(new)}" if new else ""
    kept = f"the same in all: {', '.join(same)}" if same else ""
    return f" ({'; '.join(part for part in (said, kept) if part)})"


def _specs(sweep: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(vary or zip, key, its values or the text of its range) of a stored sweep."""
    for option in ("vary", "zip"):
        for key, values in sweep[option].items():
            drawn = option == "vary" and "design" in sweep and len(values) == 3 and isinstance(values[2], bool)
            yield option, key, f"{'log' * values[2]}uniform:{values[0]!r}:{values[1]!r}" if drawn else values


def evenly_drawn(frames: Frames) -> set[str]:
    """The keys that are drawn from ranges in equal parts of themselves, and not of their logarithm."""
    return {key for _, key, spec in _specs(frames.provenance["sweep"]) if isinstance(spec, str) and spec.startswith("uniform")}


def _command(plan: dict[str, Any]) -> str:
    """The command that makes the sweep."""
    words, sweep = ["perturb", "sweep", plan["name"]], plan["sweep"]
    for option, key, spec in _specs(sweep):
        text = spec if isinstance(spec, str) else ",".join(sweep_results.toml(key, value) for value in spec)
        words += [f"--{option}", f"{key}={text}"]
    if "design" in sweep:
        words += ["--design", sweep["design"], "--samples", str(sweep["samples"])]
    words += ["--repeats", str(sweep["repeats"])] if sweep["repeats"] > 1 else []
    words += [word for key, value in plan["set"].items() for word in ("--set", f"{key}={value}")]
    return shlex.join(words + (["--keep"] if sweep["keep"] else []))


def sweep_text(frames: Frames) -> str:
    """The experiment of the first point and the table [sweep], as a TOML file for perturb sweep."""
    sweep = dict(frames.provenance["sweep"])
    tables: dict[str, dict[str, Any]] = {"vary": {}, "zip": {}}
    for option, key, spec in _specs(sweep):
        tables[option][key] = spec
    experiment = _known(frames.experiment)
    if "file" in experiment["data"]:
        experiment["data"]["file"] = Path(os.path.relpath(experiment["data"]["file"], frames.directory)).as_posix()
    return tomli_w.dumps({**experiment, "sweep": {**sweep, **{name: table for name, table in tables.items() if table}}})


def _known(value: Any) -> Any:
    """Without what is not given."""
    if isinstance(value, dict):
        return {key: _known(entry) for key, entry in value.items() if entry is not None}
    return [_known(entry) for entry in value] if isinstance(value, list) else value


def _cells(stored: sweep_results.Stored) -> pd.DataFrame:
    rows = []
    for cell, row in stored.rows.items():
        outcome = stored.ended.get(cell)
        values = {key: sweep_results.shown(key, value) for key, value in row.parameters.items()}
        ended = (outcome.status, outcome.seconds, outcome.error) if outcome else ("waiting", math.nan, "")
        made = seeds_of(row.seed, stored.given(cell)) if "seeds" in stored.plan else {}
        seeds = (row.seed, made.get("start_seed"), made.get("die"))
        rows.append((cell, *values.values(), row.repeat, *seeds, *ended, stored.command(cell)))
    names = ["cell", *stored.keys, "repeat", "seed", "start_seed", "die", "status", "seconds", "error", "command"]
    return _with_categories(pd.DataFrame(rows, columns=names), stored.keys)


def _with_categories(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Parameters that are no numbers, and the names of quantities and methods, as categories in their order."""
    for column in (*keys, *CATEGORIES):
        if column in frame and (column in CATEGORIES or frame[column].dtype == object or frame[column].dtype.kind not in "iuf"):
            values = frame[column].map(lambda value: value if isinstance(value, str) else str(value))
            frame[column] = pd.Categorical(values, values.unique())
    return frame


def columns(frames: Frames) -> dict[str, dict[str, str]]:
    """table: column: meaning, of a sweep."""
    varied = {key: f"varied; {meaning}" if meaning else "varied" for key, meaning in frames.provenance["varied"].items()}
    inner = COLUMNS[frames.experiment["study"]]["summary"]
    study = STUDIES[frames.experiment["study"]]
    identity = {column: inner[column] for column in study.identity} or GROUP
    apart = {name: CELLS[name] for name in ("cell", "repeat", "seed")}
    said = {
        "summary": {"cell": apart["cell"], **varied, "repeat": apart["repeat"], "seed": apart["seed"], **inner},
        "cells": {"cell": apart["cell"], **varied, **CELLS},
        "points": {**varied, **identity, **POINTS},
        "thresholds": {key: said for key, said in varied.items() if key in frames.tables.get("thresholds", ())}
        | {**identity, **THRESHOLDS},
    }
    return {name: said[name] for name in frames.tables}


def kept(frames: Frames, name: str, cells: Iterable[int] | None = None) -> pd.DataFrame:
    """Another table of the runs than the summary, of a sweep that keeps them, of these cells or of all that are done."""
    if name not in COLUMNS[frames.experiment["study"]]:
        others = ", ".join([*frames.tables, *(table for table in COLUMNS[frames.experiment["study"]] if table != "summary")])
        raise AttributeError(f"this sweep has no table {name!r}: of this study there are {others}")
    done = frames.cells.loc[frames.cells["status"] == "done", "cell"] if cells is None else cells
    frame = sweep_results.read(frames.directory).table(name, [int(cell) for cell in done])
    if missing := [column for column in COLUMNS[frames.experiment["study"]][name] if column not in frame and len(frame)]:
        raise InputError(f"{frames.directory}: a table {name} has no column {missing[0]}: damaged, or of another version")
    return _with_categories(frame, list(frames.provenance["varied"]))


def is_kept(frames: Frames, cell: int, name: str) -> bool:
    """Whether another table than the summary is still there."""
    return sweep_store.kept_file(frames.directory, int(cell), name).exists()


# ---- over repeats


class Means:
    """Mean over repeats, and its confidence interval, of every number in the summaries, one measure after another.

    summary: of a sweep, with its varied keys. experiment: its keys, as that of the number of runs (`Study.shares`).
    """

    def __init__(self, summary: pd.DataFrame, keys: Sequence[str], study: Study, experiment: Mapping[str, Any] | None = None):
        self._study, self._experiment, self._keys = study, experiment or {}, list(keys)
        self.by = [*keys, *(study.identity or ("group",))]
        self._summary, self._numbers = _told_apart(summary, keys, study)
        self._group = self._summary.groupby(self.by, sort=False, observed=True, dropna=False).ngroup().to_numpy()
        self._heads = self._summary[self.by].iloc[np.unique(self._group, return_index=True)[1]].reset_index(drop=True)
        if study.identity:
            self.measures = [name for name in self._numbers if self._summary[name].notna().any()]
        else:
            self.measures = list(dict.fromkeys(self._summary.loc[self._summary["value"].notna(), "measure"]))
        self.repeats = int(summary["repeat"].nunique())

    def of(self, measure: str) -> pd.DataFrame:
        """A row per point and identity: those of the table points."""
        found = self._means(measure)
        least, most = (found.pop(name).to_numpy(float) for name in ("least", "most"))
        n = found["repeats"].to_numpy(float)
        with np.errstate(invalid="ignore"):  # of infinities
            alike = (n < 2) | (most - least <= ROUNDING * np.maximum(np.abs(least), np.abs(most)))
            width = stdtrit(np.maximum(n - 1, 1), 0.5 + CONFIDENCE / 2) / np.sqrt(np.maximum(n, 1))
            reach = np.where(alike, np.nan, width * found["sd"])
        found["low"], found["high"] = found["mean"] - reach, found["mean"] + reach
        if count := self._study.shares.get(measure):
            of = found[count] if count in self._keys else self._experiment.get(count)
            pin = PINNED[count]
            same = pin in self._keys or self._experiment.get(pin) is not None
            if of is not None:
                _count(found, n == 1 if same else n > 0, of * n)
        found["low"], found["high"] = _possible(measure, found)
        found["predicted"] = np.nan
        if (theory := self._study.theory.get(measure, "")) in self.measures:
            predicted = self._means(theory).set_index(self.by)["mean"]
            found["predicted"] = predicted.reindex(pd.MultiIndex.from_frame(found[self.by])).to_numpy()
        return found

    def parts(self) -> Iterator[pd.DataFrame]:
        """The table points, a part per measure."""
        return map(self.of, self.measures)

    def _means(self, measure: str) -> pd.DataFrame:
        if self._study.identity:
            values, group = self._summary[measure], self._group
        else:
            own = (self._summary["measure"] == measure).to_numpy()
            values, group = self._summary["value"][own], self._group[own]
        with np.errstate(invalid="ignore"):
            found = values.groupby(group).agg(repeats="count", unknown="size", mean="mean", sd="std", least="min", most="max")
        found["unknown"] -= found["repeats"]
        name = pd.Categorical.from_codes(np.full(len(found), self.measures.index(measure), np.int64), pd.Index(self.measures))
        heads = self._heads.iloc[found.index].reset_index(drop=True).assign(measure=name)
        return pd.concat([heads, found.reset_index(drop=True)], axis=1)


def points(summary: pd.DataFrame, keys: Sequence[str], study: Study, experiment: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """All of `Means`: a row per measure, point and identity.

    The interval is Student's t; of shares of independent runs or dies, which are counted over all repeats together, Clopper and
    Pearson's (1934), unless a key makes them the same in all (`PINNED`). Where all repeats gave the same (to rounding) the t
    interval would have no width, which says nothing of how far a next one would be off: it is NaN, as of a single repeat.
    """
    return pd.concat(Means(summary, keys, study, experiment).parts(), ignore_index=True)


def _count(found: pd.DataFrame, rows: Array, of: Array) -> None:
    """The intervals of shares, whose means are of so many runs or dies, are those of counts."""
    for row in np.flatnonzero(rows):
        total = int(np.asarray(of)[row])
        found.loc[row, ["low", "high"]] = share_interval(round(found["mean"].iloc[row] * total), total)


@cache
def share_interval(count: int, of: int) -> tuple[float, float]:
    """The exact interval of a share."""
    from scipy.stats import binomtest  # much to load, and seldom needed

    low, high = binomtest(count, of).proportion_ci(CONFIDENCE, "exact")
    return float(low), float(high)


def _possible(measure: str, found: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Intervals cut to what a mean can be: cosines and alignments from -1 to 1, shares to 1, what never is negative from 0."""
    cosine = re.search("cosine|alignment", measure)
    share = re.search(r"solved|yield|accuracy(?!,)|share|diverged|still", measure)
    least = -1.0 if cosine else 0.0 if found["mean"].min() >= 0 else -np.inf
    return found["low"].clip(least), found["high"].clip(upper=1.0 if cosine or share else np.inf)


def values(summary: pd.DataFrame, keys: Sequence[str], study: Study, measures: Sequence[str]) -> pd.DataFrame:
    """These numbers of the summaries, each in a row of its own: point, seed, identity, measure, value."""
    summary, numbers = _told_apart(summary, keys, study)
    if not study.identity:
        return summary[summary["measure"].isin(measures)]
    return summary.melt([*keys, "seed", *study.identity], [name for name in numbers if name in measures], "measure", "value")


def _told_apart(summary: pd.DataFrame, keys: Sequence[str], study: Study) -> tuple[pd.DataFrame, list[str]]:
    """The summaries with what tells their rows apart, and the columns that are measured; of facts, whose group and measure are
    columns here, none."""
    if study.identity:
        apart = [*keys, "seed", *study.identity]
        for name in _varied_names(summary, keys):
            summary = summary.assign(**{name: summary[name].astype(object).mask(summary["primary"], VARIED)})
        return summary, [
            str(name) for name in summary if name not in (*apart, "cell", "repeat") and summary[name].dtype.kind in "iuf"
        ]
    facts = summary["fact"].astype("category").cat
    parts = pd.Series(facts.categories.astype(str)).str.partition(": ")
    whole = parts[1] == ""
    group, measure = (of.to_numpy(object)[facts.codes] for of in (parts[0].mask(whole, ""), parts[2].mask(whole, parts[0])))
    return summary[[*keys, "seed", "value"]].assign(group=group, measure=measure), []


def _varied_names(summary: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    return [name for name in ("method", "code") if "primary" in summary and f"estimation.{name}" in keys]


def means_of(frames: Frames) -> Means:
    """What a sweep measured, by measure."""
    assert isinstance(frames.means, Means)
    return frames.means


def shown_measures(frames: Frames) -> list[str]:
    """The measures of the study, and the one that is wanted, as far as this sweep has them."""
    has, wanted = means_of(frames).measures, frames.provenance["wanted"]
    listed = [*STUDIES[frames.experiment["study"]].measures, *([wanted["measure"]] if wanted else [])]
    return [measure for measure in dict.fromkeys(listed) if measure in has]


def series(frames: Frames, part: pd.DataFrame) -> dict[tuple[str, ...], pd.DataFrame]:
    """What is told apart beside the quantity: (method, code), the variant of a chip, the group of facts."""
    within = [name for name in STUDIES[frames.experiment["study"]].identity or ("group",) if name != "quantity"]
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
    """That of the experiment's own method, or of the chip with all its imperfections, where there are several."""
    if "primary" in frames.summary:
        rows = frames.summary[frames.summary["primary"]]
        varied = dict.fromkeys(_varied_names(frames.summary, frames.provenance["varied"]), VARIED)
        for pair in zip(*(rows[name] for name in ("method", "code")), strict=True):
            pair = (varied.get("method", pair[0]), varied.get("code", pair[1]))
            if pair in names:
                return pair
    return next((name for name in (("all",), *names) if name in names and name != EXACT), names[0])


def own_estimates(frames: Frames, quantity: str) -> bool:
    """Whether the experiment's own method estimates a quantity, where there are methods."""
    summary = frames.summary
    return "primary" not in summary or bool((summary["primary"] & (summary["quantity"] == quantity)).any())


def shown(value: object) -> str:
    """A varied value in words."""
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- what is wanted, and where it is met


def _wanted(text: str | None, study: Study, experiment: dict[str, Any]) -> Wanted | None:
    if text is None:
        if not study.wanted:
            return None
        return Wanted(study.wanted, True, 0.5 if study.wanted == "solved" else float(experiment["dies"]["accuracy"]))
    parts = re.fullmatch(r"\s*(.+?)\s*(>=|<=)\s*(\S+)\s*", text)
    try:
        value = float(parts[3]) if parts else math.nan
    except ValueError:
        value = math.nan
    if parts is None or not math.isfinite(value):
        raise InputError(f'wanted = {text!r} is not of the form MEASURE>=VALUE or MEASURE<=VALUE, such as "cosine>=0.95"')
    return Wanted(parts[1], parts[2] == ">=", value)


def thresholds(frame: pd.DataFrame, key: str, wanted: Wanted, others: Sequence[str] = (), whole: bool = False) -> pd.DataFrame:
    """For everything that was measured: up to which value of the key what is wanted is met, with confidence interval.

    The mean over repeats is followed in straight lines between the values swept (over their logarithms, if they are far apart),
    from the smallest up to the first where it is no longer met. Where it is met at large values rather than at small ones, it is
    the smallest value from which on it is always met; where it is met at both ends or only between them, there is no such value.
    The ends of the interval are those of all values that a test at 5 % does not refuse (inversion of the test): from where the
    mean's confidence interval first reaches the wanted value to where it last does. Where a repeat gave no value (no estimate at
    all), it is not met. others: the other keys that are varied, which are held. whole: the key takes whole numbers only, and so
    does its edge.
    """
    own = frame[frame["measure"] == wanted.measure]
    identity = [*others, *(name for name in frame.columns if name in IDENTITY)]
    rows = []
    for names, part in own.groupby(identity, sort=False, observed=True):
        part = part.sort_values(key)
        known = part[["mean", "low", "high"]].where(part["unknown"] == 0)
        x, mean, low, high = part[key].to_numpy(float), *(known[column].to_numpy(float) for column in known)
        met = wanted.met(mean)
        edge, *ends = _threshold(x, mean, low, high, met, wanted)
        if whole:
            ends = [_whole(end, edge == "smallest") for end in ends]
        first = len(met) if met.all() else int(np.argmin(met[::-1] if edge == "smallest" else met))
        beyond = 0 if edge == "none" else int(met.sum()) - first
        rows.append((*names, key, str(wanted), len(x), int(met.sum()), edge, *ends, beyond))
    found = pd.DataFrame(rows, columns=[*identity, *THRESHOLDS])
    return found.astype({name: "category" for name in identity if name not in others})


def _threshold(x: Array, mean: Array, low: Array, high: Array, met: Array, wanted: Wanted) -> tuple[str, float, float, float]:
    """edge, value, low, high of one curve."""
    if met[0] == met[-1] and met.any() and not met.all():
        return "none", math.nan, math.nan, math.nan
    finite = mean[np.isfinite(mean)]
    rises = bool(finite.size and (finite[-1] > finite[0]) == wanted.at_least and finite[-1] != finite[0])
    smallest = bool(met[-1] and not met[0]) or (met[0] == met[-1] and rises)
    unsure = np.isfinite(mean) & np.isnan(low)  # a single repeat, or all alike: it may be met there, and may not
    worst, best = (-math.inf, math.inf) if wanted.at_least else (math.inf, -math.inf)
    worse, better = (low, high) if wanted.at_least else (high, low)
    worse, better = np.where(unsure, worst, worse), np.where(unsure, best, better)
    ends = _edge(x, worse, wanted, smallest), _edge(x, better, wanted, smallest, last=True)
    some, other = (math.nan, math.nan) if np.isnan(low).all() else sorted(ends)
    return "smallest" if smallest else "largest", _edge(x, mean, wanted, smallest), some, other


def _edge(x: Array, y: Array, wanted: Wanted, smallest: bool, last: bool = False) -> float:
    """Up to where y, in straight lines over ascending x, meets what is wanted (smallest: from where on); inf beyond x. last:
    where it meets it for the last time."""
    if smallest:
        return -_edge(-x[::-1], y[::-1], wanted, False, last)
    met = wanted.met(y)
    ends = np.flatnonzero(met) if last else np.flatnonzero(~met) - 1
    if met.all():
        return math.inf
    i = -1 if ends.size == 0 else int(ends[-1] if last else ends[0])
    if i == -1:
        return -math.inf
    if i == x.size - 1:
        return math.inf
    if not math.isfinite(y[i]) or not math.isfinite(y[i + 1]):
        return float(x[i] if math.isfinite(y[i]) else x[i + 1])
    share = (wanted.value - y[i]) / (y[i + 1] - y[i])
    if is_logarithmic(np.abs(x)) and x[i] != 0 and x[i + 1] != 0:
        return float(x[i] * (x[i + 1] / x[i]) ** share)
    return float(x[i] + share * (x[i + 1] - x[i]))


def _whole(edge: float, smallest: bool) -> float:
    """The smallest whole number not below an edge, or the largest not above it."""
    if not math.isfinite(edge):
        return edge
    near = float(round(edge))
    return near if abs(edge - near) <= ROUNDING * abs(edge) else float(math.ceil(edge) if smallest else math.floor(edge))


def is_logarithmic(x: Array) -> bool:
    """Whether values (none negative) are to be seen on a logarithmic scale."""
    positive = x[x > 0]
    return bool((x >= 0).all() and positive.size > 1 and positive.max() / positive.min() >= FAR_APART)
