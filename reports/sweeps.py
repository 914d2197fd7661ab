"""A stored sweep as tidy pandas frames: every result, every cell, means over repeats, and where an accuracy is still met."""

import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tomli_w
from scipy.stats import t

from perturb.errors import InputError
from reports.columns import CELLS, COLUMNS, GROUP, POINTS, THRESHOLDS
from reports.frames import CATEGORIES, Frames
from sims import sweep_results, sweep_store
from sims.experiment import seeds_of

Array = np.ndarray
CONFIDENCE = 0.95
FAR_APART = 8.0  # values this many times apart are seen, and interpolated between, on a logarithmic scale


class Study(NamedTuple):
    """What a sweep of a study shows. identity: columns that tell rows of a summary apart (none: facts, told apart by their
    groups); measures: what is plotted; theory: of a measure, the column that predicts it; wanted: of which measure."""

    identity: tuple[str, ...]
    measures: tuple[str, ...]
    theory: dict[str, str]
    wanted: str = ""


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
    "ablation": Study(("quantity", "variant"), ("relative_error", "cosine", "yield"), {}, "cosine"),
    "reproduce": Study(("name", "claim"), ("measured",), {"measured": "predicted"}),
    "dies": Study((), ("median cosine", "yield"), {}, "median cosine"),
    "budget": Study((), ("trials", "chip time", "energy"), {}),
    "spectrum": Study((), ("largest", "trace"), {}),
    "finite-difference": Study((), ("smallest error",), {}),
    "uses": Study((), ("decay by evidence", "its test error"), {}),
    "training": Study((), ("solved", "error", "test accuracy", "evaluations to goal"), {"error": "error foretold"}, "solved"),
}  # fmt: skip


ON_CHIP = ("compare", "estimators", "ablation", "dies", "budget", "training")  # studies with perturbations and noise
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
        raise InputError(f"{directory}: no cell of this sweep is done yet: perturb status {directory} says why")
    goal = _wanted(wanted, study, experiment)
    frame = points(summary, stored.keys, study)
    tables = {"summary": summary, "cells": _cells(stored), "points": _possible(frame)}
    known = list(frame["measure"].unique())
    if goal and goal.measure not in known:
        raise InputError(f"wanted = {wanted!r}: {goal.measure} is no measure of this sweep: one of {'; '.join(known)}")
    numbers = [key for key in stored.keys if pd.api.types.is_numeric_dtype(frame[key])]
    if goal and numbers:
        others = [key for key in stored.keys if key != numbers[0]]
        # of a design no two points differ in a single key: there is nothing to follow
        if not others or len(frame[stored.keys].drop_duplicates()) > len(frame[others].drop_duplicates()):
            tables["thresholds"] = thresholds(frame, numbers[0], goal, others)
    return Frames(directory, tables, experiment, _provenance(stored, goal))


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
    return _with_categories(frame, list(frames.provenance["varied"]))


def is_kept(frames: Frames, cell: int, name: str) -> bool:
    """Whether another table than the summary is still there."""
    return sweep_store.kept_file(frames.directory, int(cell), name).exists()


# ---- over repeats


def points(summary: pd.DataFrame, keys: Sequence[str], study: Study) -> pd.DataFrame:
    """Mean over repeats, and its confidence interval, of every number in the summaries: a row per point, identity and measure."""
    identity = study.identity or ("group",)
    by = [*keys, *identity, "measure"]
    grouped = values(summary, keys, study).groupby(by, sort=False, observed=True, dropna=False)["value"]
    with np.errstate(invalid="ignore"):
        found = grouped.agg(repeats="count", unknown="size", mean="mean", sd="std").reset_index()
    found["unknown"] -= found["repeats"]
    n = found["repeats"].to_numpy(float)
    reach = t.ppf(0.5 + CONFIDENCE / 2, np.maximum(n - 1, 1)) * found["sd"] / np.sqrt(np.maximum(n, 1))
    found["low"], found["high"] = found["mean"] - reach, found["mean"] + reach
    predictions = found[found["measure"].isin(list(study.theory.values()))].set_index(by)["mean"]
    measured = found["measure"].map(study.theory)
    at = pd.MultiIndex.from_frame(found[[*keys, *identity]].assign(measure=measured))
    found["predicted"] = predictions.reindex(at).to_numpy() if len(predictions) else np.nan
    ever = found.groupby("measure", sort=False)["repeats"].transform("max") > 0
    return found[ever].reset_index(drop=True)


def _possible(found: pd.DataFrame) -> pd.DataFrame:
    """Intervals cut to what a mean can be: cosines and alignments from -1 to 1, shares to 1, what never is negative from 0."""
    measure = found["measure"].astype(str)
    cosine = measure.str.contains("cosine|alignment")
    share = measure.str.contains(r"solved|yield|accuracy(?!,)|share|diverged|still")
    never = found["mean"].groupby(measure).transform("min") >= 0
    least = pd.Series(np.where(cosine, -1.0, np.where(never, 0.0, -np.inf)), found.index)
    most = pd.Series(np.where(cosine | share, 1.0, np.inf), found.index)
    return found.assign(low=found["low"].clip(least), high=found["high"].clip(upper=most))


def values(summary: pd.DataFrame, keys: Sequence[str], study: Study) -> pd.DataFrame:
    """Every number in the summaries in a row of its own: point, seed, identity, measure, value."""
    if study.identity:
        apart = [*keys, "seed", *study.identity]
        numbers = [name for name in summary if name not in (*apart, "cell", "repeat") and summary[name].dtype.kind in "iuf"]
        for name in _varied_names(summary, keys):
            summary = summary.assign(**{name: summary[name].astype(object).mask(summary["primary"], VARIED)})
        return summary.melt(apart, numbers, "measure", "value")
    parts = summary["fact"].str.partition(": ")
    whole = parts[1] == ""
    facts = {"group": parts[0].mask(whole, ""), "measure": parts[2].mask(whole, parts[0])}
    return summary[[*keys, "seed", "value"]].assign(**facts)


def _varied_names(summary: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    return [name for name in ("method", "code") if "primary" in summary and f"estimation.{name}" in keys]


def shown_measures(frames: Frames) -> list[str]:
    """The measures of the study, and the one that is wanted, as far as this sweep has them."""
    has, wanted = set(frames.points["measure"].unique()), frames.provenance["wanted"]
    listed = [*STUDIES[frames.experiment["study"]].measures, *([wanted["measure"]] if wanted else [])]
    return [measure for measure in dict.fromkeys(listed) if measure in has]


def series(frames: Frames, part: pd.DataFrame) -> dict[tuple[str, ...], pd.DataFrame]:
    """What is told apart beside the quantity: (method, code), the variant of a chip, the group of facts."""
    within = [name for name in STUDIES[frames.experiment["study"]].identity or ("group",) if name != "quantity"]
    names = part[within].astype(str).agg(tuple, axis=1)
    return {name: part[names == name] for name in dict.fromkeys(names)}


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


def thresholds(frame: pd.DataFrame, key: str, wanted: Wanted, others: Sequence[str] = ()) -> pd.DataFrame:
    """For everything that was measured: the largest value of the key at which what is wanted is met, with confidence interval.

    The mean over repeats is followed in straight lines between the values swept (over their logarithms, if they are far apart),
    from the largest down to the first where it is met. The ends of the interval are where the ends of the mean's confidence
    intervals meet it: the values that a test at 5 % does not refuse (inversion of the test). Where it is met rather at large
    values than at small ones, it is the smallest value from which on it is met. Where a repeat gave no value (no estimate at
    all), it is not met. others: the other keys that are varied, which are held.
    """
    own = frame[frame["measure"] == wanted.measure]
    identity = [*others, *(name for name in frame.columns if name in IDENTITY)]
    rows = []
    for names, part in own.groupby(identity, sort=False, observed=True):
        part = part.sort_values(key)
        known = part[["mean", "low", "high"]].where(part["unknown"] == 0)
        x, mean, low, high = part[key].to_numpy(float), *(known[column].to_numpy(float) for column in known)
        met = wanted.met(mean)
        rows.append((*names, key, str(wanted), len(x), int(met.sum()), *_threshold(x, mean, low, high, met, wanted)))
    found = pd.DataFrame(rows, columns=[*identity, *THRESHOLDS])
    return found.astype({name: "category" for name in identity if name not in others})


def _threshold(x: Array, mean: Array, low: Array, high: Array, met: Array, wanted: Wanted) -> tuple[str, float, float, float]:
    """edge, value, low, high of one curve."""
    if met[0] and met[-1] and not met.all():
        return "none", math.nan, math.nan, math.nan
    finite = mean[np.isfinite(mean)]
    rises = bool(finite.size and (finite[-1] > finite[0]) == wanted.at_least and finite[-1] != finite[0])
    smallest = bool(met[-1] and not met[0]) or (met[0] == met[-1] and rises)
    unsure = np.isfinite(mean) & np.isnan(low)  # a single repeat: it may be met there, and may not
    worst, best = (-math.inf, math.inf) if wanted.at_least else (math.inf, -math.inf)
    worse, better = (low, high) if wanted.at_least else (high, low)
    curves = (mean, np.where(unsure, worst, worse), np.where(unsure, best, better))
    value, *ends = (_edge(x, y, wanted, smallest) for y in curves)
    some, other = (math.nan, math.nan) if np.isnan(low).all() else sorted(ends)
    return "smallest" if smallest else "largest", value, some, other


def _edge(x: Array, y: Array, wanted: Wanted, smallest: bool) -> float:
    """Where y, in straight lines over ascending x, last meets what is wanted (smallest: from where on it does); inf beyond x."""
    if smallest:
        return -_edge(-x[::-1], y[::-1], wanted, False)
    good = np.flatnonzero(wanted.met(y))
    if good.size == 0:
        return -math.inf
    i = int(good[-1])
    if i == x.size - 1:
        return math.inf
    if not math.isfinite(y[i]) or not math.isfinite(y[i + 1]):
        return float(x[i] if math.isfinite(y[i]) else x[i + 1])
    share = (wanted.value - y[i]) / (y[i + 1] - y[i])
    if is_logarithmic(np.abs(x)) and x[i] != 0 and x[i + 1] != 0:
        return float(x[i] * (x[i + 1] / x[i]) ** share)
    return float(x[i] + share * (x[i + 1] - x[i]))


def is_logarithmic(x: Array) -> bool:
    """Whether values (none negative) are to be seen on a logarithmic scale."""
    positive = x[x > 0]
    return bool((x >= 0).all() and positive.size > 1 and positive.max() / positive.min() >= FAR_APART)
