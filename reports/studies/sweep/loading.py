"""A stored sweep as tidy pandas frames: every result, every cell, means over repeats, and where
an accuracy is still met.
"""

import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from perturb.errors import InputError
from perturb.settings import flat
from reports.columns import CELLS, POINTS, THRESHOLDS, Column, Columns
from reports.frames import CATEGORIES, Frames, LateTables, Swept
from reports.statistics import Means, Wanted, thresholds
from reports.store import sweep_database, sweep_results
from reports.store.commands import sweep_command
from reports.store.commands import varied as varied_of
from reports.studies import view_of


def load(directory: Path, wanted: str | None = None) -> Frames:
    """The frames of a sweep directory: summary, cells, points and, along the first varied key that
    is a number, thresholds.

    wanted: what the thresholds are of, such as "cosine >= 0.95". Absent: a cosine as [dies] of the
    experiment wants it; of a training, that half of the runs are solved. InputError if the
    directory cannot be read or holds no result.
    """
    stored = sweep_results.read(directory)
    experiment = stored.plan["experiment"]
    inner = view_of(experiment["study"])
    study = inner.swept
    assert study is not None
    if "study" in stored.keys:
        raise InputError(
            f"{directory}: the study itself is varied, and reports are of one: sims.load_sweep"
            " gives its results"
        )
    summary = _with_categories(stored.table("summary"), stored.keys)
    if summary.empty:
        raise InputError(
            f"{directory}: no cell of this sweep is done yet: perturb status"
            f" {shlex.quote(str(directory))} says why"
        )
    # before anything is averaged: a mistake in it is said at once
    goal = wanted_of(wanted, study, experiment)
    means = Means(summary, stored.keys, study, inner.columns["summary"], flat(experiment))
    keys = stored.keys
    tables = {"summary": summary, "cells": _cells(stored)}
    if goal:  # test_accuracy is written for test accuracy too, as keys of experiments are
        named = {str(name).replace("_", " "): name for name in means.measures}
        goal = goal._replace(measure=named.get(goal.measure.replace("_", " "), goal.measure))
    if goal and goal.measure not in means.measures:
        raise InputError(
            f"wanted = {wanted!r}: {goal.measure} is no measure of this sweep: one of"
            f" {'; '.join(means.measures)}"
        )
    numbers = [key for key in keys if pd.api.types.is_numeric_dtype(summary[key])]
    late = {"points": means.parts}
    if goal:  # columns that are not plotted keep the units in their names
        words = goal.measure in study.measures or "measure" in summary
        goal = goal._replace(called=goal.measure.replace("_", " ") if words else goal.measure)
    if goal and numbers:
        others = [key for key in keys if key != numbers[0]]
        # of a design no two points differ in a single key: there is nothing to follow
        if not others or len(summary[keys].drop_duplicates()) > len(
            summary[others].drop_duplicates()
        ):
            # the resolved experiment knows the type of every key
            whole = isinstance(flat(experiment).get(numbers[0]), int)
            found = thresholds(means.of(goal.measure), numbers[0], goal, others, whole)
            # one part: only points are so many that they come in several
            late["thresholds"] = lambda: iter([found])
    provenance = _provenance(stored, goal)
    text = partial(sweep_text, directory, experiment, provenance["sweep"])
    return Frames(
        directory,
        LateTables(tables, late),
        experiment,
        provenance,
        view_of("sweep"),
        text=text,
        more=run_table,
        means=means,
    )


def _provenance(stored: sweep_results.Stored, wanted: Wanted | None) -> dict[str, Any]:
    plan = stored.plan
    count = len(stored.rows)
    inner = view_of(plan["experiment"]["study"]).columns
    failed = len(stored.failed())
    done = len(stored.done)
    varied = {key: plan["meanings"][key] for key in stored.keys}
    # when the sweep was begun, whoever goes on with it later
    first = min(outcome.started_utc for outcome in stored.ended.values())
    points = count // plan["sweep"]["repeats"]
    about = plan["experiment"]["description"] or plan["experiment"]["name"]
    repeats = (
        f" with {plan['sweep']['repeats']} repeats each{_new(stored)}"
        if plan["sweep"]["repeats"] > 1
        else ""
    )
    what = ", ".join(varied) if varied else "nothing but the seed"
    left = (
        ""
        if done == count
        else f"{done} of {count} cells are done" + (f" and {failed} failed" if failed else "")
    )
    return {
        "experiment": plan["experiment"]["name"],
        "description": f"{about}; a sweep of {what}: {points} point{'s' * (points != 1)}{repeats}",
        "status": "partial" if left else "complete",
        **({"reason": left} if left else {}),
        "command": sweep_command(plan),
        "seed": plan["experiment"]["run"]["seed"],
        "cells": {"all": count, "done": done, "failed": failed},
        "seconds": sum(outcome.seconds for outcome in stored.ended.values()),
        "sweep": plan["sweep"],
        "varied": varied,
        "off": plan["off"],
        "kept": [name for name in inner if name != "summary"] if plan["sweep"]["keep"] else [],
        "wanted": None if wanted is None else wanted._asdict(),
        "created_utc": datetime.fromtimestamp(first, UTC).isoformat(timespec="seconds"),
        **plan["origin"],
    }


def _new(stored: sweep_results.Stored) -> str:
    """What is another one in every repeat, and what is not."""
    new, same = (stored.plan["repeats"][name] for name in ("new", "same"))
    parts = [f"new in each: {', '.join(new)}"] if new else []
    parts += [f"the same in all: {', '.join(same)}"] if same else []
    return f" ({'; '.join(parts)})" if parts else ""


def sweep_text(directory: Path, experiment: dict[str, Any], sweep: dict[str, Any]) -> str:
    """The experiment of the first point and the table [sweep], as a TOML file for perturb sweep."""
    tables: dict[str, dict[str, Any]] = {"vary": {}, "zip": {}}
    for option, key, spec in varied_of(sweep):
        tables[option][key] = spec
    experiment = known(experiment)
    if "file" in experiment["data"]:
        experiment["data"]["file"] = Path(
            os.path.relpath(experiment["data"]["file"], directory)
        ).as_posix()
    return tomli_w.dumps(
        {
            **experiment,
            "sweep": {**sweep, **{name: table for name, table in tables.items() if table}},
        }
    )


def known(value: Any) -> Any:
    """Without what is not given."""
    if isinstance(value, dict):
        # TOML has no null
        return {key: known(entry) for key, entry in value.items() if entry is not None}
    return [known(entry) for entry in value] if isinstance(value, list) else value


def _cells(stored: sweep_results.Stored) -> pd.DataFrame:
    rows = []
    for cell, row in stored.rows.items():
        outcome = stored.ended.get(cell)
        values = {key: sweep_results.shown(key, value) for key, value in row.parameters.items()}
        ended = (
            (outcome.status, outcome.seconds, outcome.error)
            if outcome
            else ("waiting", math.nan, "")
        )
        seeds = (row.seed, row.seeds["start_seed"], row.seeds["die"])
        rows.append((cell, *values.values(), row.repeat, *seeds, *ended, stored.command(cell)))
    names = [
        "cell",
        *stored.keys,
        "repeat",
        "seed",
        "start_seed",
        "die",
        "status",
        "seconds",
        "error",
        "command",
    ]
    return _with_categories(pd.DataFrame(rows, columns=names), stored.keys)


def _with_categories(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Parameters that are no numbers, and the names of quantities and methods, as categories in
    their order.
    """
    for column in (*keys, *CATEGORIES):
        if column in frame and (
            column in CATEGORIES
            or frame[column].dtype == object
            or frame[column].dtype.kind not in "iuf"
        ):
            # as texts: a key may take numbers, truths and lists in turn
            values = frame[column].map(
                lambda value: value if isinstance(value, str) else str(value)
            )
            # in the order in which they come: that of the sweep, not of the alphabet
            frame[column] = pd.Categorical(values, values.unique())
    return frame


def columns(frames: Frames) -> dict[str, Columns]:
    """The columns of every table of a sweep."""
    varied = {
        key: Column(f"varied; {meaning}" if meaning else "varied")
        for key, meaning in frames.provenance["varied"].items()
    }
    view = view_of(frames.experiment["study"])
    assert view.swept is not None
    inner = view.columns["summary"]
    identity = {column: inner[column] for column in view.swept.identity}
    apart = {name: CELLS[name] for name in ("cell", "repeat", "seed")}
    # varied keys are columns of every table: their meaning is that of the experiment's field
    schema: dict[str, Columns] = {
        "summary": {
            "cell": apart["cell"],
            **varied,
            "repeat": apart["repeat"],
            "seed": apart["seed"],
            **inner,
        },
        "cells": {"cell": apart["cell"], **varied, **CELLS},
        "points": {**varied, **identity, **POINTS},
        "thresholds": (
            {
                key: column
                for key, column in varied.items()
                if key in frames.tables.get("thresholds", ())
            }
            | {**identity, **THRESHOLDS}
        ),
    }
    return schema


def run_table(frames: Frames, name: str, cells: Iterable[int] | None = None) -> pd.DataFrame:
    """Another table of the runs than the summary, of a sweep that keeps them, of these cells or
    of all that are done.
    """
    known = view_of(frames.experiment["study"]).columns
    if name not in known:
        others = ", ".join([*frames.tables, *(table for table in known if table != "summary")])
        # as whoever asks for an attribute of `Frames` expects
        raise AttributeError(f"this sweep has no table {name!r}: of this study there are {others}")
    done = frames.cells.loc[frames.cells["status"] == "done", "cell"] if cells is None else cells
    frame = sweep_results.read(frames.directory).table(name, [int(cell) for cell in done])
    if missing := [column for column in known[name] if column not in frame and len(frame)]:
        raise InputError(
            f"{frames.directory}: a table {name} has no column {missing[0]}: damaged, or of another"
            " version"
        )
    return _with_categories(frame, list(frames.provenance["varied"]))


def has_table(frames: Frames, cell: int, name: str) -> bool:
    """Whether another table than the summary is still there."""
    return sweep_database.kept_file(frames.directory, int(cell), name).exists()


def wanted_of(text: str | None, study: Swept, experiment: dict[str, Any]) -> Wanted | None:
    """The condition of a text such as "cosine >= 0.95"; absent, that of the study, if any."""
    if text is None:
        if not study.wanted:
            return None
        measure, value = study.wanted
        return Wanted(
            measure, True, float(flat(experiment)[value] if isinstance(value, str) else value)
        )
    parts = re.fullmatch(r"\s*(.+?)\s*(>=|<=)\s*(\S+)\s*", text)
    try:
        value = float(parts[3]) if parts else math.nan
    except ValueError:
        value = math.nan
    if parts is None or not math.isfinite(value):
        raise InputError(
            f"wanted = {text!r} is not of the form MEASURE>=VALUE or MEASURE<=VALUE, such as"
            ' "cosine>=0.95"'
        )
    return Wanted(parts[1], parts[2] == ">=", value)
