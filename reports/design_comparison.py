"""Several stored runs and sweeps as designs, side by side."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perturb.errors import InputError, cut
from perturb.settings import flat
from reports.differences import differing, versions
from reports.formats import Estimate
from reports.frames import Frames, Swept
from reports.loading import load
from reports.statistics import Wanted
from reports.studies import view_of
from reports.studies.designs.design import Design, Designed
from reports.studies.designs.front import dominated_by
from reports.studies.sweep.loading import wanted_of
from reports.studies.sweep.series import inner_view

# keys of [data] that are paths: a digest says what is there
PATHS = ("file", "images", "labels", "test_images", "test_labels", "batches", "test_batches")
FRONT, DOMINATED, NEVER, NOT_JUDGED = "front", "dominated", "never", "not judged"


def designs(directories: Iterable[str | Path], wanted: str | None = None) -> Frames:
    """Stored runs and sweeps as designs: how good each is, what it takes to the goal, and which of
    them are on the Pareto front.

    Parameters
    ----------
    directories : iterable of str or Path
        Of trainings, of learning on many dies, or of comparisons of methods, runs and sweeps of
        one study, on the same data and with the same goal. Of a training every source but the exact
        gradient is a design, of a comparison every method, of a sweep every point.
    wanted : str, optional
        Of single trainings, another goal than their own, such as "test_accuracy>=0.95", by which
        they are judged anew from their learning curves.

    Returns
    -------
    Frames
        Tables `summary` (a row per design) and `settings` (the keys that differ), a plot, and
        sentences; what is not known is NaN, what never reaches the goal infinite.

    Raises
    ------
    InputError
        If a directory cannot be read, is given twice, is of another study than the first, or has
        other data or another goal; naming it.

    Notes
    -----
    A design dominates another if it is at least as good in quality, chip time and energy to the
    goal, and better in one of them. Those that no other dominates are the Pareto front; equal ones
    are on it together. What never reaches the goal is not on it, and dominates nothing; nor is what
    is not known in one of the three. The front is that of the values, whatever their intervals.

    Quality is the accuracy that is the goal of a training, else that on patterns held back, else
    the share of runs that end at the goal; the yield of dies; the cosine of an estimate. Times and
    energies to a goal are medians of the runs that ever got there, with the interval of a median
    (sign test); of a sweep means over its repeats; of estimates those of the evaluations that
    theory predicts.

    Examples
    --------
    >>> import tempfile, reports, sims
    >>> small = {"training.updates": 400, "training.runs": 2, "training.goal": 0.12}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, eta in (("slow", 0.3), ("fast", 3.0)):
    ...         place = f"{folder}/{name}"
    ...         run = sims.run_experiment("xor-learning", {**small, "training.eta": eta}, out=place)
    ...     found = reports.designs([f"{folder}/slow", f"{folder}/fast"])
    >>> list(found.summary["design"])[::2]
    ['slow: chip, plain', 'fast: chip, plain']
    """
    paths = [Path(directory) for directory in directories]
    names = _names(paths)
    condition = _condition(wanted)
    loaded = [load(path) for path in paths]
    made = [_designed(frames, condition) for frames in loaded]
    _check_alike(loaded, made)
    rows = [
        _row(name, path, design)
        for name, path, each in zip(names, paths, made, strict=True)
        for design in each.designs
    ]
    summary = _judged(pd.DataFrame(rows))
    settings = differing(loaded, names)
    return Frames(
        Path(os.path.commonpath([path.resolve() for path in paths])),
        {"summary": summary, "settings": settings},
        {"study": "designs"},
        _provenance(paths, names, loaded, made[0], wanted),
        view_of("designs"),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """What each directory is called: its last part where no two share it, else all of it."""
    if not paths:
        raise InputError("no directory is given: name those of the designs to be compared")
    resolved = [path.resolve() for path in paths]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise InputError(f"{paths[i]}: is given twice: name every design once")
    short = [path.name for path in resolved]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _condition(wanted: str | None) -> Wanted | None:
    if wanted is None:
        return None
    # what is wanted is said: no study has to say it
    return wanted_of(wanted, Swept((), ()), {})


def _designed(frames: Frames, wanted: Wanted | None) -> Designed:
    study = frames.experiment["study"]
    found = inner_view(frames).designs if frames.view.kind[1] != "require" else None
    if found is None:
        what = "search for requirements" if frames.view.kind[1] == "require" else study
        raise InputError(
            f"{frames.directory}: is of the study {what}, whose results are no designs to be"
            " compared: give runs or sweeps of training, learning-dies or compare"
        )
    made = found(frames, wanted)
    if not made.designs:
        raise InputError(f"{frames.directory}: holds no result of a design: it ended too early")
    return made


def _check_alike(loaded: Sequence[Frames], made: Sequence[Designed]) -> None:
    """InputError for designs of different studies, data, goals or measures."""
    first = loaded[0]
    for frames, each in zip(loaded[1:], made[1:], strict=True):
        pairs = [("study", first.experiment["study"], frames.experiment["study"])]
        one, other = _data(first), _data(frames)
        pairs += [(key, one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other])]
        same = made[0].same
        pairs += [(key, same.get(key), each.same.get(key)) for key in same]
        pairs.append(("quality", made[0].measure, each.measure))
        for what, a, b in pairs:
            if a != b:
                mend = "compare those alone that have the same"
                if what == "goal" and first.experiment["study"] == "training":
                    mend += ", or judge all by one goal: --wanted 'accuracy>=0.9'"
                raise InputError(
                    f"{first.directory} and {frames.directory} cannot be compared as designs:"
                    f" {what} is {cut(str(a), 40)} in one and {cut(str(b), 40)} in the other:"
                    f" {mend}"
                )


def _data(frames: Frames) -> dict[str, Any]:
    """The keys that say what the data are: of a file its digest, wherever it lies."""
    data = flat({"data": frames.experiment.get("data", {})})
    if data.get("data.sha256"):
        for key in PATHS:
            data.pop(f"data.{key}", None)
    # bytes alone tell whether a file is the same; what is absent is as it is by default
    return {key: value for key, value in data.items() if value is not None}


def _row(name: str, path: Path, design: Design) -> dict[str, Any]:
    row: dict[str, Any] = {
        "design": f"{name}: {design.name}" if design.name else name,
        "directory": str(path),
        "runs": design.there.of if design.there else np.nan,
        "there": design.there.value if design.there else np.nan,
    }
    each: Mapping[str, Estimate] = {
        "quality": design.quality,
        "evaluations_to_goal": design.evaluations,
        "chip_time_to_goal_s": design.time_s,
        "energy_to_goal_j": design.energy_j,
    }
    for column, found in each.items():
        row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
    return row


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their place: on the Pareto front, or dominated by which."""
    costs = rows[["quality", "chip_time_to_goal_s", "energy_to_goal_j"]].to_numpy(float)
    # of quality more is better, of time and energy less
    by = dominated_by(costs * [-1.0, 1.0, 1.0])
    never = np.isposinf(rows["chip_time_to_goal_s"].to_numpy(float))
    status = np.select([never, by == -1, by >= 0], [NEVER, FRONT, DOMINATED], NOT_JUDGED)
    names = [rows["design"].iloc[i] if i >= 0 else "" for i in by]
    return rows.assign(status=status, dominated_by=names)


def _provenance(
    paths: Sequence[Path],
    names: Sequence[str],
    loaded: Sequence[Frames],
    made: Designed,
    wanted: str | None,
) -> dict[str, Any]:
    seeds = dict.fromkeys(str(frames.provenance["seed"]) for frames in loaded)
    partial = [name for name, frames in zip(names, loaded, strict=True) if frames.partial]
    words = ["perturb", "compare", *map(str, paths)]
    of = f"{len(loaded)} director{'y' if len(loaded) == 1 else 'ies'}"
    return {
        "experiment": "designs",
        "description": f"designs of {of}, to {made.goal}",
        "status": "partial" if partial else "complete",
        **({"reason": f"not complete: {', '.join(partial)}"} if partial else {}),
        "command": shlex.join([*words, *(["--wanted", wanted] if wanted else [])]),
        "seed": ", ".join(seeds),
        "measure": made.measure,
        "unit": made.unit,
        "goal": made.goal,
        "perturb": loaded[0].provenance.get("perturb", "of unknown version"),
        "of": {
            name: {"directory": str(path), **versions(frames)}
            | {key: frames.provenance[key] for key in ("description", "seed", "command", "status")}
            for name, path, frames in zip(names, paths, loaded, strict=True)
        },
    }
