"""A stored search for requirements as frames: what was found, every value that was judged, and its
cells.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from perturb.errors import InputError
from reports.frames import Frames, View
from reports.store import sweep_database
from reports.store.commands import require_command
from reports.store.sweep_results import Columns, Stored
from reports.studies.require.search import (
    ALONE,
    GOING_ON,
    TOGETHER,
    Condition,
    Judged,
    Measured,
    Search,
    searches,
)
from reports.studies.sweep.loading import known

NOTHING = Judged("", 0)


def load(directory: Path, view: View) -> Frames:
    """The frames of a search in a sweep directory, also while it goes on: summary, tested, cells.

    InputError if the directory cannot be read or holds no result.
    """
    with sweep_database.reading(directory) as (file, plan):
        path = directory / sweep_database.FILE
        rows = {row.cell: row for row in sweep_database.cells(file, path)}
        ended = dict(sweep_database.results(file, path))
    stored = Stored(directory, plan, rows, ended, Columns())
    if not ended:
        raise InputError(
            f"{directory}: no cell of this search is done yet: perturb status"
            f" {shlex.quote(str(directory))} says how far it is"
        )
    condition = Condition.from_plan(plan)
    measured = Measured(condition)
    for cell, outcome in ended.items():
        measured.add(rows[cell], outcome)
    ladders = plan["sweep"]["vary"]
    # what was found is not stored: it follows from the cells, by the code that also led the search
    found = searches(ladders, condition, measured)
    tables = {
        "summary": _summary(ladders, found, plan["meanings"]),
        "tested": _tested(ladders, found),
        "cells": _cells(stored, list(ladders)),
    }
    return Frames(
        directory,
        tables,
        plan["experiment"],
        _provenance(stored, found, condition),
        view,
        text=lambda: tomli_w.dumps(known(plan["experiment"])),
    )


def _summary(
    ladders: Mapping[str, Sequence[float]], found: Sequence[Search], meanings: Mapping[str, str]
) -> pd.DataFrame:
    """A row for each key alone, and for each in the specification of all together."""
    rows: list[dict[str, Any]] = []
    for i, each in enumerate(found):
        # searches of single keys are in the order of the keys; one more is that of all together
        for key in ladders if i >= len(ladders) else [list(ladders)[i]]:
            rows.append(
                {
                    "key": key,
                    "specification": TOGETHER if i >= len(ladders) else ALONE,
                    **_row(key, each),
                    "ideal": ladders[key][0],
                    "worst": ladders[key][-1],
                    "meaning": meanings[key],
                }
            )
    return pd.DataFrame(rows)


def _row(key: str, each: Search) -> dict[str, Any]:
    place = -1 if each.answer is None else each.answer
    beyond = place + 1
    met = each.tested.get(place, NOTHING)
    # of a search that goes on, nothing is known of a next value
    unmet = NOTHING if each.answer is None else each.tested.get(beyond, NOTHING)
    return {
        "status": each.status,
        "required": each.points[place][key] if place >= 0 else math.nan,
        **_evidence("", met),
        "next": each.points[beyond][key] if unmet is not NOTHING else math.nan,
        "next_status": unmet.status,
        **_evidence("next_", unmet),
        # of a key alone, the steps from the least demanding value
        "steps": len(each.points) - 1 - place if place >= 0 else math.nan,
        "judged": len(each.tested),
    }


def _evidence(prefix: str, judged: Judged) -> dict[str, float]:
    names = ("repeats", "mean", "low", "high")
    return {f"{prefix}{name}": getattr(judged, name) for name in names}


def _tested(ladders: Mapping[str, Sequence[float]], found: Sequence[Search]) -> pd.DataFrame:
    """Every value that was judged, in the order in which it was."""
    rows = []
    for i, each in enumerate(found):
        what = TOGETHER if i >= len(ladders) else list(ladders)[i]
        for place, judged in each.tested.items():
            # NaN: the key is as in the experiment
            values = {key: each.points[place].get(key, math.nan) for key in ladders}
            rows.append({"of": what, **values, **judged._asdict()})
    return pd.DataFrame(rows, columns=["of", *ladders, *Judged._fields])


def _cells(stored: Stored, keys: Sequence[str]) -> pd.DataFrame:
    rows = []
    for cell, row in stored.rows.items():
        outcome = stored.ended.get(cell)
        ended = (
            (outcome.status, outcome.seconds, outcome.error)
            if outcome
            else ("waiting", math.nan, "")
        )
        # under the names that `CELLS` of a sweep has, so that one page explains both
        seeds = (row.seed, row.seeds["start_seed"], row.seeds["die"])
        values = (row.parameters.get(key, math.nan) for key in keys)
        rows.append((cell, *values, row.repeat, *seeds, *ended, stored.command(cell)))
    ends = ["status", "seconds", "error", "command"]
    names = ["cell", *keys, "repeat", "seed", "start_seed", "die", *ends]
    return pd.DataFrame(rows, columns=names)


def _provenance(stored: Stored, found: Sequence[Search], condition: Condition) -> dict[str, Any]:
    plan = stored.plan
    keys = list(plan["sweep"]["vary"])
    failed = len(stored.failed())
    done = len(stored.done)
    left = "; ".join(
        f"{name} is not known yet"
        # that of all together begins only when each key has its value
        for name, each in zip([*keys, "what all together take"], found, strict=False)
        if each.status == GOING_ON
    )
    if failed:
        left = "; ".join(part for part in (left, f"{failed} cells failed") if part)
    about = plan["experiment"]["description"] or plan["experiment"]["name"]
    first = min(outcome.started_utc for outcome in stored.ended.values())
    return {
        "experiment": plan["experiment"]["name"],
        "description": f"{about}; what mean {condition.wanted} requires of {', '.join(keys)}",
        "status": "partial" if left else "complete",
        **({"reason": left} if left else {}),
        "command": require_command(plan),
        "seed": plan["experiment"]["run"]["seed"],
        "cells": {"all": len(stored.rows), "done": done, "failed": failed},
        "seconds": sum(outcome.seconds for outcome in stored.ended.values()),
        "sweep": plan["sweep"],
        "varied": {key: plan["meanings"][key] for key in keys},
        "wanted": condition.wanted._asdict(),
        "created_utc": datetime.fromtimestamp(first, UTC).isoformat(timespec="seconds"),
        **plan["origin"],
    }
