"""A stored run, or a sweep of runs, as tidy pandas frames."""

import io
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from perturb.errors import InputError
from perturb.files import UNREADABLE, digest, reason
from reports.columns import COLUMNS

PROVENANCE = {"experiment": str, "status": str, "description": str, "command": str, "seed": int}  # what that of a run has
TITLE = "weight perturbation for analog neural hardware, with exact Hessian-vector products"
CATEGORIES = ("method", "code", "quantity")
ROWS = 10_000  # of a part of a table


class LateTables(Mapping[str, pd.DataFrame]):
    """Tables of which some, given as functions that yield their parts, are put together when they are first asked for."""

    def __init__(self, ready: dict[str, pd.DataFrame], late: dict[str, Callable[[], Iterator[pd.DataFrame]]]):
        self._ready, self.late = ready, late
        self._names = [*ready, *late]

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._ready and name in self.late:
            self._ready[name] = pd.concat(self.late[name](), ignore_index=True)
        return self._ready[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Frames:
    """One run: frames by name, also as attributes (`frames.summary`), with the columns of its study (`frames.columns`); the
    resolved experiment and its provenance as dictionaries. Of a sweep: summary, cells, points and perhaps thresholds; the other
    tables of its runs, if it keeps them, as attributes, what was varied before them."""

    directory: Path
    tables: Mapping[str, pd.DataFrame]
    experiment: dict[str, Any]
    provenance: dict[str, Any]
    means: object = None  # of a sweep, see reports.sweeps.Means

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name in self.__dict__.get("tables", {}):
            return self.tables[name]
        if "varied" in self.__dict__.get("provenance", {}):
            from reports.sweeps import kept

            return kept(self, name)
        raise AttributeError(f"this run has no table {name!r}: it has {', '.join(self.__dict__.get('tables', {}))}")

    def parts(self, name: str) -> Iterator[pd.DataFrame]:
        """A table in parts of bounded size, one below the other."""
        if isinstance(self.tables, LateTables) and name in self.tables.late:
            yield from self.tables.late[name]()
            return
        table = self.tables[name]
        for start in range(0, max(len(table), 1), ROWS):
            yield table.iloc[start : start + ROWS]

    @property
    def study(self) -> str:
        """What was done: a study, or a sweep of one."""
        return "sweep" if "varied" in self.provenance else self.experiment.get("study", "compare")

    @property
    def columns(self) -> dict[str, dict[str, str]]:
        """table: column: meaning and unit."""
        if self.study == "sweep":
            from reports.sweeps import columns

            return columns(self)
        return {name: COLUMNS[self.study][name] for name in self.tables}

    @property
    def partial(self) -> bool:
        return self.provenance["status"] == "partial"

    @property
    def reason(self) -> str:
        """Why a partial run ended."""
        return self.provenance.get("reason", "the run was interrupted")

    @property
    def citation(self) -> str:
        """How to cite what made this run; as in CITATION.cff."""
        version = self.provenance.get("perturb", "of unknown version")
        return f"The perturb developers: perturb {version}, {TITLE} (MIT licence)"

    @property
    def primary(self) -> tuple[str, str]:
        """(method, code) of the experiment's own method, or of the last one run if it was not reached."""
        rows = self.summary[self.summary["primary"]]
        row = (rows if len(rows) else self.summary).iloc[-1]
        return row["method"], row["code"]

    def methods(self, quantity: str | None = None) -> list[tuple[str, str]]:
        """(method, code) in the order of the summary; of one quantity only those that estimate it."""
        rows = self.summary if quantity is None else self.summary[self.summary["quantity"] == quantity]
        return list(dict.fromkeys(zip(rows["method"], rows["code"], strict=True)))

    def fact(self, name: str) -> float:
        """The value of one row of a study's summary."""
        return float(self.summary.loc[self.summary["fact"] == name, "value"].iloc[0])


def load(directory: str | Path, wanted: str | None = None) -> Frames:
    """The frames of a run, or of a sweep: then wanted is what its thresholds are of, such as "cosine>=0.95" (absent: the cosine
    that [dies] of the experiment wants; of a training, half of the runs solved). InputError, naming the file, if one is missing,
    cut short or not of this kind."""
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory: give the directory of a run or a sweep (perturb run ... --out DIR)")
    if (directory / "sweep.sqlite").exists():
        from reports.sweeps import load as load_sweep

        return load_sweep(directory, wanted)
    if wanted is not None:
        raise InputError(f"{directory}: wanted = {wanted!r} is of sweeps, and this is a single run: leave it out")
    if not (directory / "provenance.json").exists() and (directory / "unfinished").exists():
        raise InputError(f"{directory}: a run that has no result yet: wait for it, or give its command again")
    if not (directory / "provenance.json").exists():
        raise InputError(
            f"{directory}: not the directory of a run or a sweep (no provenance.json, no sweep.sqlite): make one with "
            "perturb run ... --out DIR"
        )
    provenance = read(directory / "provenance.json", lambda path: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(provenance, dict) or not all(isinstance(provenance.get(key), kind) for key, kind in PROVENANCE.items()):
        raise InputError(f"{directory / 'provenance.json'}: not of a run, or damaged: run the experiment again")
    written = provenance.get("files", {})  # digests; runs of earlier versions have none

    def intact(path: Path) -> bytes:
        content = path.read_bytes()
        if isinstance(written, dict) and written.get(path.name, digest(content)) != digest(content):
            raise ValueError("not as it was written: damaged, or changed since")
        return content

    experiment = read(directory / "experiment.toml", lambda path: tomllib.loads(intact(path).decode("utf-8")))
    if not (isinstance(written, dict) and "experiment.toml" in written):
        from sims.experiment.loading import experiment_from

        # InputError for what it cannot be; keys that it lacks are as they are by default
        experiment = experiment_from(experiment, str(directory / "experiment.toml"), directory).model_dump()
    study = experiment.get("study", "compare")
    if not isinstance(study, str) or study not in COLUMNS:
        raise InputError(f"{directory / 'experiment.toml'}: study = {study!r} is unknown here: written by a later version?")

    def parquet(name: str, columns: dict[str, str]) -> pd.DataFrame:
        frame = read(directory / f"{name}.parquet", lambda path: pd.read_parquet(io.BytesIO(intact(path))))
        missing = [column for column in columns if column not in frame.columns]
        if missing:
            path = directory / f"{name}.parquet"
            raise InputError(f"{path}: has no column {missing[0]}: written by another version? Run the experiment again")
        return frame.astype({column: "category" for column in CATEGORIES if column in columns})

    partial = provenance["status"] == "partial" and study != "compare"  # a study that was interrupted lacks its later tables
    present = {
        name: columns for name, columns in COLUMNS[study].items() if not partial or (directory / f"{name}.parquet").exists()
    }
    frames = Frames(directory, {name: parquet(name, columns) for name, columns in present.items()}, experiment, provenance)
    if "summary" not in frames.tables or frames.summary.empty:
        raise InputError(f"{directory / 'summary.parquet'}: holds no result: run the experiment again")
    return frames


def experiment_text(frames: Frames) -> str:
    """The experiment as a TOML file that does all of it again."""
    if frames.study == "sweep":
        from reports.sweeps import sweep_text

        return sweep_text(frames)
    return read(frames.directory / "experiment.toml", lambda path: path.read_text(encoding="utf-8"))


def read(path: Path, reader: Any) -> Any:
    """reader(path), or InputError naming the file."""
    try:
        return reader(path)
    except FileNotFoundError:
        raise InputError(f"{path}: missing: run the experiment again") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}): run the experiment again") from None
