"""The store of a sweep: one SQLite file that holds the plan, every cell, and every result, written
whole when its cell ends. (Of a search, which finds out on the way which cells it takes, cells come
to the plan before they run.)

A result is one row, written in a transaction of its own: what was not committed when the power went
away is not there. Results are only ever added. Whoever sweeps holds a lock, which ends with its
process, whatever way that ends; anybody may read meanwhile.
"""

import json
import shutil
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from perturb.errors import InputError, cut, one_line
from perturb.files import write_whole
from perturb.settings import flat
from reports.store import SCHEMA_VERSION

FILE = "sweep.sqlite"
LOCK = "sweep.lock"
TABLES = "tables"
EMPTY_EVERY_S = 1.0  # the log is written back so often
OURS = 0x70657274  # application_id: "pert" in ASCII
SCHEMA = (  # crc32: of the rest of the row
    "create table plan (plan text not null, cells integer not null, crc32 integer not null)",
    (
        "create table cells (cell integer primary key, parameters text not null, repeat integer not"
        " null, seed text not null, seeds text not null, experiment text not null, crc32 integer"
        " not null)"
    ),
    (
        "create table results (cell integer not null references cells, attempt integer not null,"
        " status text not null, started_utc real not null, seconds real not null, rows text not"
        " null, error text not null, crc32 integer not null, primary key (cell, attempt))"
    ),
)
REMEDIES = {
    "SQLITE_FULL": "free some space, and the same command goes on",
    "SQLITE_IOERR": "check the disk, and the same command goes on",
    "SQLITE_READONLY": "make it writable, and the same command goes on",
    "SQLITE_CANTOPEN": "check that directory and file are readable and writable",
    "SQLITE_NOTADB": "it is not the store of a sweep: choose another directory",
    "SQLITE_CORRUPT": (
        "the file is damaged: restore it from a copy, or sweep anew into another directory"
    ),
    "SQLITE_BUSY": "another program holds it: wait until it has ended",
}


class Outcome(NamedTuple):
    """How a cell ended. rows: its summary, as JSON of columns; tables: other tables to keep, as
    the bytes of Parquet files.
    """

    status: str  # done, failed
    started_utc: float
    seconds: float
    rows: str = "{}"
    error: str = ""
    tables: Mapping[str, bytes] = {}


class Row(NamedTuple):
    """A cell of the plan. seed: run.seed of its run; seeds: those that it gives or that follow from
    it, of the starting weights and the die; experiment: digest of all that it runs.
    """

    cell: int
    parameters: dict[str, Any]
    repeat: int
    seed: int
    seeds: dict[str, int]
    experiment: str


class Store:
    """A sweep directory, locked for this process, to add results to."""

    def __init__(self, directory: Path, plan: dict[str, Any], rows: Iterable[Row] | None):
        """Begin the sweep of `plan` in `directory`, or go on with it; InputError if another one was
        begun there, if somebody is at it, or if it cannot be read or written. rows: its cells;
        None: which ones is found out on the way, see `extend`.
        """
        self.directory = directory
        self.path = directory / FILE
        _claim(directory)
        busy = "another process sweeps in this directory: wait for it, or choose another --out"
        with ExitStack() as stack:
            # a file of its own: whoever reads the store does not wait for whoever sweeps
            with _plainly(directory / LOCK, busy):
                lock = stack.enter_context(
                    closing(sqlite3.connect(directory / LOCK, isolation_level=None, timeout=0.5))
                )
                lock.execute("begin exclusive")
            with _plainly(self.path):
                self._file = stack.enter_context(
                    closing(sqlite3.connect(self.path, isolation_level=None))
                )
                if _is_new(self._file):
                    self._begin(plan, rows or ())
                else:
                    _check_ours(self._file, self.path)
                    self._check_same(plan, rows)
                self._file.execute("pragma journal_mode = wal")
                # a commit returns when it is on the disk: a power cut takes no cell that is done
                self._file.execute("pragma synchronous = full")
            self._same = _identity(self.path)
            self._emptied = 0.0
            # what `write_whole` was at when its process was killed
            for left in (directory / TABLES).glob(".*.tmp"):
                left.unlink()
            # only now: whatever failed above has closed file and lock again
            self._open = stack.pop_all()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def statuses(self) -> dict[int, str]:
        """The cells that have ended, done or failed."""
        with _plainly(self.path):
            return {cell: outcome.status for cell, outcome in results(self._file, self.path)}

    def add(self, cell: int, outcome: Outcome) -> None:
        """Keep how a cell ended, its tables first: a table without a result is written again.
        InputError, before anything is written, if the directory is no longer there.
        """
        # SQLite would go on writing to a file that has no name any more
        if _identity(self.path) != self._same:
            raise InputError(
                f"{self.path}: was removed or replaced while the sweep was at work: its results are"
                " lost with it"
            )
        # the row is what says that the cell is done: it comes last
        for name, content in outcome.tables.items():
            write_whole(kept_file(self.directory, cell, name), content)
        status, started, seconds, rows, error, _ = outcome
        with _plainly(self.path):
            (before,) = self._file.execute(
                "select count(*) from results where cell = ?", (cell,)
            ).fetchone()
            # a retry is a further attempt: the last one counts
            result = (cell, before + 1, status, started, seconds, rows, error)
            self._file.execute(
                "insert into results values (?, ?, ?, ?, ?, ?, ?, ?)", _summed(result)
            )
            # the log, so that the file alone has nearly everything
            if time.monotonic() >= self._emptied + EMPTY_EVERY_S:
                self._file.execute("pragma wal_checkpoint(passive)").fetchone()
                self._emptied = time.monotonic()

    def extend(self, rows: Iterable[Row]) -> None:
        """Add cells that were not planned; those that are there already must be the same."""
        with _plainly(self.path):
            wanted = {row.cell: row for row in rows}
            there = {row.cell: row for row in cells(self._file, self.path, wanted)}
            if any(wanted[cell] != row for cell, row in there.items()):
                raise self._changed()
            # the cells and their number, which is in the plan, in one transaction
            self._file.execute("begin immediate")
            self._insert(row for cell, row in wanted.items() if cell not in there)
            ((plan, _),) = _checked(self._file, self.path, "select * from plan")
            self._file.execute(
                "update plan set (plan, cells, crc32) = (?, ?, ?)",
                _summed((plan, count(self._file))),
            )
            self._file.execute("commit")

    def _begin(self, plan: dict[str, Any], rows: Iterable[Row]) -> None:
        self._file.execute("pragma journal_mode = wal")
        # the plan and all cells in one transaction: a sweep has begun, or has not
        self._file.execute("begin immediate")
        for statement in (
            *SCHEMA,
            f"pragma application_id = {OURS}",
            f"pragma user_version = {SCHEMA_VERSION}",
        ):
            self._file.execute(statement)
        self._insert(rows)
        self._file.execute(
            "insert into plan values (?, ?, ?)", _summed((json.dumps(plan), count(self._file)))
        )
        self._file.execute("commit")

    def _insert(self, rows: Iterable[Row]) -> None:
        written = [
            _summed(
                (
                    row.cell,
                    json.dumps(row.parameters),
                    row.repeat,
                    # as text: integers of SQLite end at 2^63 - 1, seeds at 2^64 - 1
                    str(row.seed),
                    json.dumps(row.seeds),
                    row.experiment,
                )
            )
            for row in rows
        ]
        self._file.executemany("insert into cells values (?, ?, ?, ?, ?, ?, ?)", written)

    def _check_same(self, plan: dict[str, Any], rows: Iterable[Row] | None) -> None:
        begun = stored_plan(self._file, self.path)
        for what, names in (
            ("versions", "(version)"),
            ("sweep", "of the sweep"),
            ("experiment", "of the experiment"),
        ):
            # key by key: the message names the first that differs
            before = flat(begun[what])
            now = flat(plan[what])
            for key in [*before, *(key for key in now if key not in before)]:
                if before.get(key) != now.get(key):
                    old, new = (
                        cut(one_line(json.dumps(of[key])), 60) if key in of else "absent"
                        for of in (before, now)
                    )
                    raise InputError(
                        f"{self.directory}: {key} {names} was {old} when this sweep was begun and"
                        f" is {new} now: give the same again, or choose another --out"
                    )
        # with the same settings a chip file or data that they name may have changed
        if rows is not None and list(cells(self._file, self.path)) != list(rows):
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{self.directory}: the experiments of this sweep are no longer those it was begun"
            " with (did a file that they name change?): choose another --out"
        )


def kept_file(directory: Path, cell: int, table: str) -> Path:
    """Where a sweep keeps a table of a cell, other than its summary."""
    return directory / TABLES / f"{cell:06d}-{table}.parquet"


@contextmanager
def reading(
    directory: Path, check: bool = True
) -> Iterator[tuple[sqlite3.Connection, dict[str, Any]]]:
    """The store in `directory`, to read from, and its plan; also while somebody sweeps. check:
    whether all of it is whole.
    """
    path = directory / FILE
    if not path.exists():
        raise InputError(
            f"{directory}: not the directory of a sweep (no {FILE}): make one with perturb sweep"
            " ... --out DIR"
        )
    with _plainly(path), ExitStack() as stack:
        file = stack.enter_context(closing(_opened(path, stack)))
        file.execute("begin")  # everything is read as of one moment
        if _is_new(file):
            raise InputError(
                f"{path}: this sweep was interrupted before its first cell: give its command again"
                f" (if it is a copy: {FILE}-wal belongs to it)"
            )
        _check_ours(file, path, check)
        yield file, stored_plan(file, path)


def is_search(directory: Path) -> bool:
    """Whether the cells of the sweep there are found out on the way, see `Store.extend`."""
    with reading(directory, check=False) as (_, plan):
        return "require" in plan["sweep"]


def _opened(path: Path, stack: ExitStack) -> sqlite3.Connection:
    """The file with its log, to read from; where SQLite can write nothing beside them, and so read
    neither, without the log if that is empty, or else copies of both.
    """
    try:
        file = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
        )
        try:
            file.execute("select count(*) from sqlite_master")
            return file
        except sqlite3.OperationalError:
            file.close()
            raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith("SQLITE_BUSY"):
            raise
        # a directory that cannot be written, such as of another user: SQLite needs a file beside
        # the log
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for part in (path, log):
                shutil.copyfile(part, folder / part.name)
            return sqlite3.connect(folder / path.name, isolation_level=None)
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None
        )


def at_work(directory: Path) -> bool:
    """Whether a process sweeps there now."""
    if not (directory / LOCK).exists():
        return False
    lock = sqlite3.connect(directory / LOCK, isolation_level=None, timeout=0)
    try:
        # whoever sweeps holds it exclusively
        lock.execute("begin immediate")
        return False
    except sqlite3.OperationalError as error:
        return error.sqlite_errorname.startswith("SQLITE_BUSY")  # else nothing can be written there
    finally:
        lock.close()


def stored_plan(file: sqlite3.Connection, path: Path) -> dict[str, Any]:
    # the number of cells is in the plan's own checksum: rows that are lost show
    for text, count in _checked(file, path, "select * from plan"):
        if file.execute("select count(*) from cells").fetchone() == (count,):
            return json.loads(text)
    raise InputError(f"{path}: {REMEDIES['SQLITE_CORRUPT']}")


def cells(
    file: sqlite3.Connection, path: Path, numbers: Iterable[int] | None = None
) -> Iterator[Row]:
    """All cells in order, or these."""
    for found in _of_cells(file, path, "select * from cells", numbers):
        cell, parameters, repeat, seed, seeds, experiment = found
        yield Row(cell, json.loads(parameters), repeat, int(seed), json.loads(seeds), experiment)


def count(file: sqlite3.Connection) -> int:
    """How many cells there are."""
    (cells,) = file.execute("select count(*) from cells").fetchone()
    return cells


def results(
    file: sqlite3.Connection, path: Path, numbers: Iterable[int] | None = None
) -> Iterator[tuple[int, Outcome]]:
    """(cell, how it ended the last time), in the order of cells, of all or of these."""
    query = (
        "select * from results as r where attempt = (select max(attempt) from results where cell ="
        " r.cell)"
    )
    for cell, _, status, started, seconds, rows, error in _of_cells(file, path, query, numbers):
        yield cell, Outcome(status, started, seconds, rows, error)


def ends(file: sqlite3.Connection, path: Path) -> Iterator[tuple[int, str, float, float]]:
    """(cell, status, start, seconds) of the last time that each cell ended, as they stand there:
    checksums are of whole rows.
    """
    # with max(), SQLite takes the other columns from the row that has it
    for end in file.execute(
        "select cell, status, started_utc, seconds, max(attempt) from results group by cell order"
        " by cell"
    ):
        if tuple(map(type, end[:4])) != (int, str, float, float):
            raise InputError(f"{path}: {REMEDIES['SQLITE_CORRUPT']}")
        yield end[:4]


def _of_cells(
    file: sqlite3.Connection, path: Path, query: str, numbers: Iterable[int] | None
) -> Iterator[tuple[Any, ...]]:
    if numbers is None:
        yield from _checked(file, path, f"{query} order by cell")
        return
    # one query a cell, by the primary key
    also = "and" if " where " in query else "where"
    for number in numbers:
        yield from _checked(file, path, f"{query} {also} cell = {int(number)}")


def _checked(file: sqlite3.Connection, path: Path, query: str) -> Iterator[tuple[Any, ...]]:
    """Rows without their checksums; InputError if one is not as it was written."""
    for *row, crc in file.execute(query):
        if _summed(tuple(row))[-1] != crc:
            raise InputError(f"{path}: {REMEDIES['SQLITE_CORRUPT']}")
        yield tuple(row)


def _summed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    # repr tells 1 from "1" and from 1.0
    return *row, zlib.crc32(repr(row).encode())


def _claim(directory: Path) -> None:
    """InputError unless `directory` holds a sweep, or nothing; made if it is not there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # "-wal", "-shm" and "-journal" of both files are SQLite's own
        others = [
            path.name for path in directory.iterdir() if not path.name.startswith((FILE, LOCK))
        ]
    except OSError as error:
        raise InputError(
            f"{directory}: cannot be used ({error.strerror}): choose another --out"
        ) from None
    if others and not (directory / FILE).exists():
        raise InputError(f"{directory}: already holds files and no sweep: choose another --out")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is there; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_new(file: sqlite3.Connection) -> bool:
    """Whether nothing was ever committed to it."""
    (tables,) = file.execute("select count(*) from sqlite_master").fetchone()
    return tables == 0 and file.execute("pragma application_id").fetchone() == (0,)


def _check_ours(file: sqlite3.Connection, path: Path, whole: bool = True) -> None:
    if file.execute("pragma application_id").fetchone() != (OURS,):
        raise InputError(f"{path}: a database of another program: choose another directory")
    if (found := file.execute("pragma user_version").fetchone()[0]) != SCHEMA_VERSION:
        raise InputError(
            f"{path}: written by another version of perturb (schema_version {found}, here"
            f" {SCHEMA_VERSION}): sweep anew into another directory"
        )
    if whole and file.execute("pragma quick_check(1)").fetchone() != ("ok",):
        raise InputError(f"{path}: {REMEDIES['SQLITE_CORRUPT']}")


@contextmanager
def _plainly(path: Path, busy: str = REMEDIES["SQLITE_BUSY"]) -> Iterator[None]:
    """SQLite's errors as InputErrors that say what to do."""
    try:
        yield
    # a mistake of this program, which no user can remedy
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        remedies = {**REMEDIES, "SQLITE_BUSY": busy}
        remedy = next(
            (remedy for known, remedy in remedies.items() if name.startswith(known)),
            REMEDIES["SQLITE_CORRUPT"],
        )
        raise InputError(f"{path}: {one_line(str(error))[:100]}: {remedy}") from None
