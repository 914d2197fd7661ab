"""Run directories: reserved by one process, written whole or not at all."""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from perturb.errors import InputError
from perturb.files import digest, whole

if TYPE_CHECKING:
    from sims.experiment.schema import Experiment
    from sims.runner import Run

UNFINISHED = "unfinished"  # folder in the directory of a run that is at work, or was interrupted and can be gone on with


class Taken(InputError):
    """A directory that holds something else, or that another process is at work in."""


@contextmanager
def reserved(experiment: "Experiment", out: Path | None, suffix: str = "") -> Iterator[Path]:
    """A directory for the results of one run, which is this process's alone while it is open.

    out: the directory, which must not exist, be empty, or hold an unfinished run of the same experiment; absent, the first of
    runs/NAME, runs/NAME-2, ... that is so. Its folder UNFINISHED keeps what was done of long work, and the lock. In the end that
    folder goes, unless there is something to go on from in it; and so does a directory that nothing was written to.
    """
    from sims.experiment.loading import to_toml  # not loaded where a store is only read

    key = hashlib.sha256(to_toml(experiment).encode()).hexdigest()
    named = "".join(c if c.isalnum() or c in "-_." else "-" for c in experiment.name + suffix).strip(".") or "run"
    numbered = (Path("runs") / (named if number == 1 else f"{named}-{number}") for number in count(1))
    for directory in numbered if out is None else [out]:
        made = [path for path in (directory, *directory.parents) if not path.exists()]
        try:
            lock = _locked(directory, key)
            break
        except Taken:
            if out is not None:
                raise
    try:
        yield directory
    finally:
        lock.close()
        if not any((directory / UNFINISHED).glob("*.npz")):
            shutil.rmtree(directory / UNFINISHED, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # it holds something
                path.rmdir()


def _locked(directory: Path, key: str) -> sqlite3.Connection:
    """The lock of a directory for a run of the experiment of this digest; it ends with its process, whatever way that ends."""
    unfinished = directory / UNFINISHED
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not unfinished.exists() and any(directory.iterdir()):
            raise Taken(f"{directory}: already holds files: choose another --out, or remove it")
        unfinished.mkdir(exist_ok=True)
        lock = sqlite3.connect(unfinished / "lock", isolation_level=None, timeout=0.2)
        try:
            lock.execute("begin exclusive")
            if (directory / "provenance.json").exists() and not any(unfinished.glob("*.npz")):
                # its process has just ended, or was killed after its last file
                raise Taken(f"{directory}: already holds files: choose another --out, or remove it")
            whose = unfinished / "experiment.sha256"
            if not whose.exists():
                whose.write_text(key, encoding="utf-8")
            elif whose.read_text(encoding="utf-8") != key:
                raise Taken(f"{directory}: holds an unfinished run of another experiment: choose another --out, or remove it")
            return lock
        except BaseException:
            lock.close()
            raise
    except FileExistsError:
        raise InputError(f"{directory}: not a directory: choose another --out") from None
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise InputError(f"{directory}: nothing can be written there ({error}): choose another --out") from None
        raise Taken(f"{directory}: another process runs there: wait for it, or choose another --out") from None
    except OSError as error:
        raise InputError(f"{directory}: cannot be used ({error.strerror}): choose another --out") from None


def write_whole(path: Path, content: bytes) -> None:
    """The whole file or none, on the disk when this returns. InputError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(content)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}): free some space, and the same command goes on"
        ) from None


def write_run(run: "Run", directory: Path) -> None:
    """Write the files of a run (of the contract: see README) to a reserved directory, provenance.json last, without which it is
    none.

    They are written beside what is there, which a run that was interrupted may have left, and then renamed over it.
    """
    from sims.experiment.loading import to_toml

    part = directory / UNFINISHED / "results"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "experiment.toml").write_text(to_toml(run.experiment, directory), encoding="utf-8")
        run.tables["summary"].to_csv(part / "summary.csv", index=False)
        for name, table in run.tables.items():
            table.to_parquet(part / f"{name}.parquet", index=False)
        files = {path.name: digest(path.read_bytes()) for path in sorted(part.iterdir()) if path.suffix != ".csv"}
        provenance = {**run.provenance, "files": files}
        (part / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        (directory / "provenance.json").unlink(missing_ok=True)
        for path in sorted(part.iterdir(), key=lambda path: path.name == "provenance.json"):
            os.replace(path, directory / path.name)
    except OSError as error:
        raise InputError(
            f"{directory}: the run could not be stored ({error.strerror or error}): free some space or choose --out"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
