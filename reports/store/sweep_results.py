"""What a sweep directory holds, read again: its plan, how far it is, and what its cells gave."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from perturb.errors import InputError, one_line
from perturb.files import UNREADABLE, reason
from perturb.settings import toml
from reports.store import sweep_database
from reports.store.commands import cell_command
from reports.store.sweep_database import Outcome, Row

if TYPE_CHECKING:
    import pandas as pd

CELLS_AT_ONCE = 256  # as lists of Python's objects, before they are packed


class Columns:
    """Tables of cells below each other, packed as they come: as Python's objects a large sweep
    would not fit into memory.
    """

    def __init__(self) -> None:
        self._lists: dict[str, list[Any]] = {}
        self._packed: list[tuple[int, dict[str, pd.Series]]] = []
        self._length = 0
        self.cells: list[tuple[int, int]] = []  # with the number of rows of each

    def add(self, cell: int, found: dict[str, list[Any]]) -> None:
        """The columns of one cell; what it or another lacks is empty."""
        length = len(next(iter(found.values()), ()))
        # a column that earlier cells lacked begins with as many empty cells
        for column, values in found.items():
            self._lists.setdefault(column, [None] * self._length).extend(values)
        for column in self._lists.keys() - found.keys():
            self._lists[column].extend([None] * length)
        self._length += length
        self.cells.append((cell, length))
        if len(self.cells) % CELLS_AT_ONCE == 0:
            self._pack()

    def _pack(self) -> None:
        import pandas as pd

        if self._length:
            self._packed.append(
                (self._length, {name: pd.Series(values) for name, values in self._lists.items()})
            )
        self._lists = {}
        self._length = 0

    def frame(self, fixed: dict[str, Any]) -> "pd.DataFrame":
        """All of them, behind the columns `fixed`."""
        import pandas as pd

        self._pack()
        joined = {}
        # one in two forms at a time
        for name in dict.fromkeys(name for _, part in self._packed for name in part):
            joined[name] = _joined(
                [part.pop(name, length) for length, part in self._packed if length]
            )
        self._packed = [(sum(length for length, _ in self._packed), joined)]
        return pd.DataFrame({**fixed, **joined})


def _joined(parts: Sequence["pd.Series | int"]) -> Any:
    """One column of its parts, of which those given as a number are so many empty cells: as of
    one list of all values.
    """
    import pandas as pd

    known = [part for part in parts if not isinstance(part, int)]
    # of different types, values go through Python's: as pandas would have typed one list of all
    if len(known) == len(parts) and len({part.dtype for part in known}) == 1:
        return pd.concat(known, ignore_index=True)
    return pd.Series(
        [
            value
            for part in parts
            for value in ([None] * part if isinstance(part, int) else part.tolist())
        ]
    )


class Stored(NamedTuple):
    """A sweep directory as of one moment. ended: how the cells ended that have, without their
    rows, which are in `summary`.
    """

    directory: Path
    plan: dict[str, Any]
    rows: dict[int, Row]
    ended: dict[int, Outcome]
    summary: Columns

    @property
    def keys(self) -> list[str]:
        """The keys that are varied."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row.parameters))

    @property
    def done(self) -> list[int]:
        """The cells that have results."""
        return [cell for cell, outcome in self.ended.items() if outcome.status == "done"]

    def command(self, cell: int) -> str:
        """The command that runs one cell alone."""
        row = self.rows[cell]
        return cell_command(self.plan, row.parameters, row.seed)

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

    def table(self, name: str, cells: Iterable[int] | None = None) -> "pd.DataFrame":
        """A table of these cells (absent: of all that are done) below each other, what was
        varied before it; see `load_sweep`.
        """
        columns = self.summary
        keys = self.keys
        if name != "summary":
            columns = Columns()
            for cell in self.done if cells is None else cells:
                columns.add(cell, _kept(self.directory, cell, name))
        # what tells rows of different cells apart stands before what they measured
        fixed: dict[str, list[Any]] = {key: [] for key in ("cell", *keys, "repeat", "seed")}
        for cell, length in columns.cells:
            row = self.rows[cell]
            for key in keys:
                # `get`: cells of a search for requirements vary one key each
                fixed[key] += [shown(key, row.parameters.get(key))] * length
            for column, value in (("cell", cell), ("repeat", row.repeat), ("seed", row.seed)):
                fixed[column] += [value] * length
        return columns.frame(fixed)


class Status(NamedTuple):
    """How far a sweep is.

    Attributes
    ----------
    cells, done : int
        All of them, and those with a result.
    failed : list of dict
        Cells with their error and the command that runs them alone.
    running : bool
        Whether a process is at work.
    rate : float
        Cells/s, of the last hundred.
    seconds : float
        Of work, of all cells that have ended.
    search : bool
        Whether it is a search for requirements, which plans further cells as values are judged.
    """

    cells: int
    done: int
    failed: list[dict[str, Any]]
    running: bool
    rate: float
    seconds: float
    search: bool = False


def last_line(error: str) -> str:
    """What a terminal says of a failed cell: the end of its traceback, on one line."""
    return one_line((error.strip().splitlines() or ["without a message"])[-1])


def shown(key: str, value: Any) -> Any:
    """A varied value as it stands in a frame: lists and tables as text."""
    return toml(key, value) if isinstance(value, (list, dict)) else value


def read(directory: str | Path) -> Stored:
    """What a sweep directory holds, also while the sweep goes on; InputError if it cannot be
    read.
    """
    directory = Path(directory)
    with sweep_database.reading(directory) as (file, plan):
        path = directory / sweep_database.FILE
        rows = {row.cell: row for row in sweep_database.cells(file, path)}
        ended = {}
        summary = Columns()
        # rows are packed as they come, and not kept as text too
        for cell, outcome in sweep_database.results(file, path):
            if cell in rows:
                if outcome.status == "done":
                    summary.add(cell, json.loads(outcome.rows))
                ended[cell] = outcome._replace(rows="")
        return Stored(directory, plan, rows, ended, summary)


def load_sweep(directory: str | Path, table: str = "summary") -> "pd.DataFrame":
    """What the cells in a sweep directory gave, also while the sweep is at work.

    Parameters
    ----------
    directory : str or Path
        Of the sweep.
    table : str, default "summary"
        Which table of the runs; another than the summary of a sweep that stores them (--keep).

    Returns
    -------
    DataFrame
        As `sims.run_sweep` returns it.

    Raises
    ------
    InputError
        If the directory holds no sweep, or cannot be read.
    """
    stored = read(directory)
    # the number of a cell says nothing to whoever has its keys, repeat and seed
    frame = stored.table(table).drop(columns="cell")
    # beside the frame, not in it: a failed cell has no row
    frame.attrs["failed"] = stored.failed()
    return frame


def sweep_status(directory: str | Path) -> Status:
    """How far the sweep in a directory is.

    Parameters
    ----------
    directory : str or Path
        Of the sweep.

    Returns
    -------
    Status
        Counts of cells, those that failed, and the rate of those at work.

    Raises
    ------
    InputError
        If the directory holds no sweep, or cannot be read.

    Notes
    -----
    Its results are not read: those of a large sweep take a while.
    """
    directory = Path(directory)
    path = directory / sweep_database.FILE
    with sweep_database.reading(directory, check=False) as (file, plan):
        cells = sweep_database.count(file)
        ends = list(sweep_database.ends(file, path))
        # only failed cells are told one by one; of the others there may be a million
        failed = [cell for cell, status, _, _ in ends if status == "failed"]
        rows = {row.cell: row for row in sweep_database.cells(file, path, failed)}
        ended = dict(sweep_database.results(file, path, failed))
    stored = Stored(directory, plan, rows, ended, Columns())
    # ends of cells, the last hundred: a pause of the sweep long ago does not count
    times = sorted(started + seconds for _, _, started, seconds in ends)[-100:]
    rate = (
        (len(times) - 1) / (times[-1] - times[0])
        if len(times) > 1 and times[-1] > times[0]
        else 0.0
    )
    running = sweep_database.at_work(directory)
    return Status(
        cells,
        len(ends) - len(failed),
        stored.failed(),
        running,
        rate,
        sum(end[-1] for end in ends),
        "require" in plan["sweep"],
    )


def _kept(directory: Path, cell: int, table: str) -> dict[str, list[Any]]:
    import pandas as pd

    path = sweep_database.kept_file(directory, cell, table)
    try:
        frame = pd.read_parquet(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise InputError(
            f"{path}: missing: table = {table!r} of a sweep is kept by --keep, if its study has"
            " one; if it was there, restore it"
        ) from None
    except UNREADABLE as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}): restore it, or remove it to do without"
        ) from None
    return {str(name): frame[name].tolist() for name in frame.columns}
