"""Run directories: written whole or not at all."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from perturb.errors import InputError
from sims.experiment import to_toml

if TYPE_CHECKING:
    from sims.runner import Run


def check_free(directory: Path) -> None:
    """InputError unless a run can be written to `directory`: it must not exist, or be an empty folder."""
    try:
        taken = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except OSError as error:
        raise InputError(f"{directory}: cannot be used ({error.strerror}): choose another --out") from None
    if taken:
        raise InputError(f"{directory}: already holds files: choose another --out, or remove it")
    above = next(parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists())
    try:
        tempfile.TemporaryDirectory(dir=above).cleanup()  # before hours of work, not after them
    except OSError as error:
        raise InputError(f"{directory}: nothing can be written there ({error.strerror}): choose another --out") from None


def free_directory(name: str, parent: Path = Path("runs")) -> Path:
    """runs/NAME, or runs/NAME-2, runs/NAME-3, ... : the first that is free."""
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "run"
    number, directory = 1, parent / safe
    while directory.exists():
        number += 1
        directory = parent / f"{safe}-{number}"
    return directory


def write_whole(path: Path, content: bytes) -> None:
    """The whole file or none, on the disk when this returns. InputError if it cannot be written."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        part = Path(name)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}): free some space, and the same command goes on"
        ) from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def write_run(run: "Run", directory: Path) -> None:
    """Write a run directory (files of the contract: see README), first beside it, then renamed: never half of one."""
    check_free(directory)
    part: Path | None = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        part.chmod(0o755)
        (part / "experiment.toml").write_text(to_toml(run.experiment, directory), encoding="utf-8")
        (part / "provenance.json").write_text(json.dumps(run.provenance, indent=2) + "\n")
        run.tables["summary"].to_csv(part / "summary.csv", index=False)
        for name, table in run.tables.items():
            table.to_parquet(part / f"{name}.parquet", index=False)
        os.replace(part, directory)
    except OSError as error:
        raise InputError(
            f"{directory}: the run could not be stored ({error.strerror or error}): free some space or choose --out"
        ) from None
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
