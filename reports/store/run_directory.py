"""Run directories: reserved by one process, written whole or not at all, and read as they were
written.
"""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from perturb.errors import InputError
from perturb.files import UNREADABLE, digest, reason
from reports.store import SCHEMA_VERSION, weight_file

if TYPE_CHECKING:
    import pandas as pd

# folder in the directory of a run that is at work, or was interrupted and can be gone on with
UNFINISHED = "unfinished"
# what provenance.json has at least
PROVENANCE = {
    "experiment": str,
    "status": str,
    "description": str,
    "command": str,
    "seed": int,
    "files": dict,
}


class Taken(InputError):
    """A directory that holds something else, or that another process is at work in."""


@contextmanager
def reserved(name: str, experiment: str, out: Path | None) -> Iterator[Path]:
    """A directory for the results of one run, which is this process's alone while it is open.

    Parameters
    ----------
    name
        Of the run.
    experiment
        All that it does, as a text.
    out
        The directory, which must not exist, be empty, or hold an unfinished run of the same
        experiment; absent, the first of runs/NAME, runs/NAME-2, ... that is so.

    Notes
    -----
    Its folder UNFINISHED holds what was done of long work, and the lock. In the end that folder
    goes, unless there is something to go on from in it; and so does a directory that nothing was
    written to.
    """
    # what an unfinished run is of: only the same experiment may go on with it
    key = hashlib.sha256(experiment.encode()).hexdigest()
    # no separator and no dots at the ends: whatever the name, the directory lies in runs/
    named = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "run"
    numbered = (
        Path("runs") / (named if number == 1 else f"{named}-{number}") for number in count(1)
    )
    for directory in numbered if out is None else [out]:
        # what this call makes, it removes again if nothing is written
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
        # before the folder goes: Windows removes no file that is open
        lock.close()
        # checkpoints of a training; pathlib's * also matches names that begin with a dot
        if not any((directory / UNFINISHED).glob("*.npz")):
            shutil.rmtree(directory / UNFINISHED, ignore_errors=True)
        # the deepest first
        for path in made:
            with suppress(OSError):  # it holds something
                path.rmdir()


def _locked(directory: Path, key: str) -> sqlite3.Connection:
    """The lock of a directory for a run of the experiment of this digest; it ends with its
    process, whatever way that ends.
    """
    unfinished = directory / UNFINISHED
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not unfinished.exists() and any(directory.iterdir()):
            raise Taken(f"{directory}: already holds files: choose another --out, or remove it")
        unfinished.mkdir(exist_ok=True)
        # the lock of a database ends with its process, on every platform, however that ends
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
                raise Taken(
                    f"{directory}: holds an unfinished run of another experiment: choose another"
                    " --out, or remove it"
                )
            return lock
        except BaseException:
            lock.close()
            raise
    except FileExistsError:
        raise InputError(f"{directory}: not a directory: choose another --out") from None
    except sqlite3.OperationalError as error:
        # a lock that went while it was asked for: its process has just ended
        gone = (
            error.sqlite_errorname.startswith("SQLITE_IOERR") and not (unfinished / "lock").exists()
        )
        if "locked" not in str(error) and not gone:
            raise InputError(
                f"{directory}: nothing can be written there ({error}): choose another --out"
            ) from None
        raise Taken(
            f"{directory}: another process runs there: wait for it, or choose another --out"
        ) from None
    except OSError as error:
        raise InputError(
            f"{directory}: cannot be used ({error.strerror}): choose another --out"
        ) from None


def write_run(
    directory: Path,
    experiment: str,
    tables: Mapping[str, "pd.DataFrame"],
    provenance: Mapping[str, Any],
    more: Mapping[str, bytes],
) -> None:
    """Write the files of a run (of the contract: see README) to a reserved directory,
    provenance.json last, without which it is none. experiment: as a TOML file. more: further files,
    by name.

    They are written beside what is there, which a run that was interrupted may have left, and then
    renamed over it.
    """
    part = directory / UNFINISHED / "results"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / "experiment.toml").write_text(experiment, encoding="utf-8")
        # for whoever opens a directory without this program
        tables["summary"].to_csv(part / "summary.csv", index=False)
        for name, table in tables.items():
            table.to_parquet(part / f"{name}.parquet", index=False)
            if weight_file.has_weights(table):
                (part / weight_file.FILE).write_bytes(weight_file.as_npz(table))
        for name, content in more.items():
            (part / name).write_bytes(content)
        files = {
            path.name: digest(path.read_bytes())
            for path in sorted(part.iterdir())
            # summary.csv is for other programs, and never read back
            if path.suffix != ".csv"
        }
        described = {"schema_version": SCHEMA_VERSION, **provenance, "files": files}
        (part / "provenance.json").write_text(
            json.dumps(described, indent=2) + "\n", encoding="utf-8"
        )
        # of an interrupted run before: until the new one is there this directory is no run
        (directory / "provenance.json").unlink(missing_ok=True)
        # provenance.json last (False sorts before True): without it a directory is no run
        for path in sorted(part.iterdir(), key=lambda path: path.name == "provenance.json"):
            os.replace(path, directory / path.name)
    except OSError as error:
        raise InputError(
            f"{directory}: the run could not be stored ({error.strerror or error}): free some space"
            " or choose --out"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


class StoredRun(NamedTuple):
    """A run directory. Its experiment and provenance are as they were written, or it is none."""

    directory: Path
    experiment: dict[str, Any]
    provenance: dict[str, Any]

    def wrote(self, table: str) -> bool:
        """Whether the run stored a table."""
        file = f"{table}.parquet"
        # one that is there and not listed is damage, which reading it names
        return file in self.provenance["files"] or (self.directory / file).exists()

    def table(self, name: str) -> "pd.DataFrame":
        """A table, as it was written."""
        import pandas as pd

        return _intact(
            self.directory / f"{name}.parquet",
            self.provenance,
            lambda content: pd.read_parquet(io.BytesIO(content)),
        )

    def experiment_text(self) -> str:
        """The experiment as a TOML file that does all of it again."""
        return _intact(self.directory / "experiment.toml", self.provenance, bytes.decode)


def read_run(directory: Path) -> StoredRun:
    """What a run directory holds. InputError, naming the file, if one is missing, cut short,
    changed or of another version.
    """
    path = directory / "provenance.json"
    if not path.exists() and (directory / UNFINISHED).exists():
        raise InputError(
            f"{directory}: a run that has no result yet: wait for it, or give its command again"
        )
    if not path.exists():
        raise InputError(
            f"{directory}: not the directory of a run or a sweep (no provenance.json, no"
            " sweep.sqlite): make one with perturb run ... --out DIR"
        )
    # first: it says which version wrote the rest
    provenance = _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(provenance, dict) or not all(
        isinstance(provenance.get(key), kind) for key, kind in PROVENANCE.items()
    ):
        raise InputError(
            f"{path}: not of a run of this version, or damaged: run the experiment again"
        )
    if (found := provenance.get("schema_version", "none")) != SCHEMA_VERSION:
        raise InputError(
            f"{path}: written by another version of perturb (schema_version {found}, here"
            f" {SCHEMA_VERSION}): run the experiment again (perturb run DIR/experiment.toml)"
        )
    experiment = _intact(
        directory / "experiment.toml",
        provenance,
        lambda content: tomllib.loads(content.decode("utf-8")),
    )
    return StoredRun(directory, experiment, provenance)


def _intact(path: Path, provenance: Mapping[str, Any], parse: Callable[[bytes], Any]) -> Any:
    """What a file note, if it is as it was written."""

    def parsed() -> Any:
        content = path.read_bytes()
        # of the bytes that are parsed: the file may change meanwhile
        if provenance["files"].get(path.name) != digest(content):
            raise ValueError("not as it was written: damaged, or changed since")
        return parse(content)

    return _read(path, parsed)


def _read(path: Path, reader: Callable[[], Any]) -> Any:
    """reader(), or InputError naming the file."""
    try:
        return reader()
    except FileNotFoundError:
        raise InputError(f"{path}: missing: run the experiment again") from None
    except UNREADABLE as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}): run the experiment again"
        ) from None
