"""What a sweep directory holds, read again: its plan, how far it is, and what its cells gave."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hardware.tables import one_line
from perturb.errors import InputError
from sims import sweep_store
from sims.designs import toml
from sims.runner import command
from sims.sweep_store import Outcome, Row


class Stored(NamedTuple):
    """A sweep directory as of one moment. ended: how the cells ended that have."""

    directory: Path
    plan: dict[str, Any]
    rows: dict[int, Row]
    ended: dict[int, Outcome]

    @property
    def keys(self) -> list[str]:
        """The keys that are varied."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row.parameters))

    @property
    def done(self) -> list[int]:
        """The cells that have results."""
        return [cell for cell, outcome in self.ended.items() if outcome.status == "done"]

    def given(self, cell: int) -> dict[str, int]:
        """The seeds that keys give a cell, the same in all repeats of its point."""
        given = self.plan["given"]
        return given[cell // self.plan["sweep"]["repeats"] if len(given) > 1 else 0]

    def command(self, cell: int) -> str:
        """The command that runs one cell alone."""
        row, plan = self.rows[cell], self.plan
        changes = {**plan["set"], **{key: toml(key, value) for key, value in row.parameters.items()}}
        changes.pop("run.seed", None)
        return f"{command(plan['name'], changes)} --seed {row.seed}"

    def failed(self) -> list[dict[str, Any]]:
        """The cells that failed, with error and command."""
        return [
            {
                "cell": cell,
                **self.rows[cell].parameters,
                "repeat": self.rows[cell].repeat,
                "seed": self.rows[cell].seed,
                "error": outcome.error,
                "command": self.command(cell),
            }
            for cell, outcome in self.ended.items()
            if outcome.status == "failed"
        ]

    def table(self, name: str, cells: Iterable[int] | None = None) -> pd.DataFrame:
        """A table of these cells (absent: of all that are done) below each other, what was varied before it; see `load_sweep`."""
        done, keys = self.done if cells is None else list(cells), self.keys
        columns: dict[str, list[Any]] = {}
        lengths: list[int] = []
        before = 0
        for cell in done:
            found = json.loads(self.ended[cell].rows) if name == "summary" else _kept(self.directory, cell, name)
            length = len(next(iter(found.values()), ()))
            for column, values in found.items():
                if column not in columns:
                    columns[column] = [None] * before
                columns[column].extend(values)
            for column in columns.keys() - found.keys():
                columns[column].extend([None] * length)
            lengths.append(length)
            before += length
        fixed: dict[str, list[Any]] = {key: [] for key in ("cell", *keys, "repeat", "seed")}
        for cell, length in zip(done, lengths, strict=True):
            row = self.rows[cell]
            for key in keys:
                fixed[key] += [shown(key, row.parameters[key])] * length
            for column, value in (("cell", cell), ("repeat", row.repeat), ("seed", row.seed)):
                fixed[column] += [value] * length
        return pd.DataFrame({**fixed, **columns})


class Status(NamedTuple):
    """How far a sweep is. rate: cells/s, of the last hundred; failed: cells with error and command."""

    cells: int
    done: int
    failed: list[dict[str, Any]]
    running: bool
    rate: float
    seconds: float


def last_line(error: str) -> str:
    """What a terminal says of a failed cell: the end of its traceback, on one line."""
    return one_line((error.strip().splitlines() or ["without a message"])[-1])


def shown(key: str, value: Any) -> Any:
    """A varied value as it stands in a frame: lists and tables as text."""
    return toml(key, value) if isinstance(value, (list, dict)) else value


def read(directory: str | Path) -> Stored:
    """What a sweep directory holds, also while the sweep goes on; InputError if it cannot be read."""
    directory = Path(directory)
    with sweep_store.reading(directory) as (file, plan):
        path = directory / sweep_store.FILE
        rows = {row.cell: row for row in sweep_store.cells(file, path)}
        return Stored(directory, plan, rows, {cell: outcome for cell, outcome in sweep_store.results(file, path) if cell in rows})


def load_sweep(directory: str | Path, table: str = "summary") -> pd.DataFrame:
    """What the cells in a sweep directory gave, as `run_sweep` returns it; also while the sweep goes on. table: another one
    than the summary, of a sweep that keeps them."""
    stored = read(directory)
    frame = stored.table(table).drop(columns="cell")
    frame.attrs["failed"] = stored.failed()
    return frame


def sweep_status(directory: str | Path) -> Status:
    """How far the sweep in a directory is."""
    stored = read(directory)
    ended, failed = stored.ended, stored.failed()
    ends = sorted(outcome.started_utc + outcome.seconds for outcome in ended.values())[-100:]
    rate = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 and ends[-1] > ends[0] else 0.0
    seconds = sum(outcome.seconds for outcome in ended.values())
    running = sweep_store.at_work(stored.directory)
    return Status(len(stored.rows), len(ended) - len(failed), failed, running, rate, seconds)


def _kept(directory: Path, cell: int, table: str) -> dict[str, list[Any]]:
    path = sweep_store.kept_file(directory, cell, table)
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: missing: table = {table!r} of a sweep is kept by --keep, if its study has one; if it was there, restore it"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0][:100]}): restore it, or remove it to do without"
        ) from None
    return {str(name): frame[name].tolist() for name in frame.columns}
