"""Running an experiment: its study on its bench, with everything that is needed to do it again."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from hardware.config import plain
from perturb.errors import InputError
from sims.bench import Bench, Stopped, Tables, prepare
from sims.designs import command, toml
from sims.experiment.loading import load_experiment
from sims.experiment.schema import Experiment

PACKAGES = ("numpy", "scipy", "numba", "simpy", "pandas", "scikit-learn")
INTERRUPTED = "the run was interrupted"
# of the module's function that makes its tables
STUDIES = {
    "compare": ("comparison", "compare_methods"),
    "estimators": ("estimators", "estimators"),
    "ablation": ("ablation", "ablation"),
    "dies": ("ablation", "dies"),
    "budget": ("budget", "budget"),
    "spectrum": ("spectrum", "spectrum"),
    "finite-difference": ("finite_difference", "finite_difference"),
    "uses": ("uses", "uses"),
    "training": ("training", "training"),
    "reproduce": ("reproduce", "reproduce"),
}


@dataclass(frozen=True)
class Run:
    """What a run gives: pandas frames by name, also as attributes (`run.summary`; columns in `reports.frames`), the resolved
    experiment and where it all comes from. No tables: interrupted before the first result."""

    experiment: Experiment
    tables: Tables
    provenance: dict[str, Any]

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name in self.__dict__.get("tables", {}):
            return self.tables[name]
        raise AttributeError(f"this run has no table {name!r}")


def run_experiment(
    name_or_path: str | Path,
    set: Mapping[str, object] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    scratch: str | Path | None = None,
) -> Run:
    """Run an experiment by name or file; `set` changes keys ("estimation.trials": 2000), `seed` is short for run.seed.

    out: a directory to write the run to (empty, or with an unfinished training of the same experiment); None writes nothing.
    progress(what, done, in all) is called along the way. should_stop is asked between pieces of about 0.2 s: True ends the run
    with what is done, marked "partial". scratch: a directory (absent: in `out`) where a training keeps what was done, to be gone
    on with when it is run again.
    InputError for a user's mistake. One that shows only after the first results (no minimum, say) does not lose them: the run is
    "partial" too, and provenance["reason"] says why.
    """
    from sims import store

    set = {**(set or {}), **({"run.seed": seed} if seed is not None else {})}
    experiment = load_experiment(name_or_path, set)
    again = command(str(name_or_path), {key: toml(key, plain(value)) for key, value in set.items()})
    if out is None:
        return _run(experiment, again, progress, should_stop, scratch)
    with store.reserved(experiment, Path(out)) as directory:
        run = _run(experiment, again, progress, should_stop, scratch or directory / store.UNFINISHED)
        if run.tables:
            store.write_run(run, directory)
        return run


def _run(
    experiment: Experiment,
    again: str,
    progress: Callable[[str, int, int], None] | None,
    should_stop: Callable[[], bool],
    scratch: str | Path | None,
) -> Run:
    bench = prepare(experiment)
    if scratch is not None:
        bench = replace(bench, scratch=Path(scratch) / f".{experiment.name}")
    tables, reason = study_tables(experiment, bench, progress, should_stop)
    return Run(experiment, tables, _provenance(experiment, bench, again, reason))


def study_tables(
    experiment: Experiment,
    bench: Bench,
    progress: Callable[[str, int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Tables, str]:
    """The tables of an experiment's study, and why it ended early ("" if it did not)."""
    module, function = STUDIES[experiment.study]
    study = getattr(import_module(f"sims.{module}"), function)
    tables: Tables = {}
    try:
        for name, table in study(experiment, bench, progress or (lambda what, done, total: None), should_stop):
            tables[name] = table
    except Stopped:
        return (tables if "summary" in tables else {}), INTERRUPTED
    except InputError as error:
        if "summary" not in tables:
            raise
        return tables, without_places(str(error))
    return tables, ""


def without_places(text: str) -> str:
    """A message that is stored, with paths that begin where the user, the package or a library is: none names a person."""
    places = {Path.cwd(), Path(__file__).resolve().parents[1], *map(Path, (sys.prefix, sys.base_prefix)), Path.home()}
    for place in sorted((str(place) for place in places if place != Path(place.anchor)), key=len, reverse=True):
        text = text.replace(place + os.sep, "")
    return text


def _provenance(experiment: Experiment, bench: Bench, again: str, reason: str) -> dict[str, Any]:
    chip, S = experiment.chip, bench.objective.n_patterns
    about = experiment.description or experiment.name
    if experiment.study != "reproduce":
        about += f"; {bench.w.size} weights, "
    if experiment.study in ("compare", "estimators", "ablation", "dies", "budget", "training"):
        shown = f"{S} patterns" if experiment.estimation.presentation == "batch" else f"one of {S} patterns"
        noise = f"noise {chip.error_unit.noise:g} in each reading of the error"
        about += f"{shown} in each evaluation; chip {chip.name} with {noise}"
    elif experiment.study != "reproduce":
        about += f"{S} patterns"
    return {
        "experiment": experiment.name,
        "description": about,
        "status": "partial" if reason else "complete",
        **({"reason": reason} if reason else {}),
        "command": again,
        "seed": experiment.run.seed,
        "seeds": {name: seed for name, seed in experiment.seeds_of().items() if name != "run_seed"},
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **origin(),
    }


def origin() -> dict[str, Any]:
    """By what results are made: nothing that names a person or a machine."""
    return {
        "perturb": version("perturb"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": {"system": platform.system(), "machine": platform.machine(), "byteorder": sys.byteorder},
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit of the source tree this package runs from; None for an installed wheel."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    try:
        ask = ["git", "-C", str(here)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        changed = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True).stdout
        return {"commit": commit, "dirty": bool(changed.strip())}
    except (OSError, subprocess.SubprocessError):
        return None
