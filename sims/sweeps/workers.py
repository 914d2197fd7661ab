"""Where the cells of a sweep run: in this process, in worker processes, or on a Dask cluster.

A pool is entered once. `free`: whether it takes another cell, and `prefers` which of several, by
their repeats, which have their points and data in common; `start(cell, experiment, keep)`;
`wait()`: what has ended since, at least one if `busy`, or nothing now and then. Heavy imports wait:
a worker chooses its threads before numpy is loaded.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Protocol

from perturb.errors import InputError
from perturb.threads import n_threads
from sims.processes import begin_work, spawn

if TYPE_CHECKING:
    from reports.store.sweep_database import Outcome
    from sims.experiment.experiment import Experiment

MAX_FAILED_STARTS = 3  # workers in a row that die before their first cell
Ended = list[tuple[int, "Outcome"]]


class WorkerPool(Protocol):
    @property
    def free(self) -> bool: ...
    @property
    def busy(self) -> bool: ...
    def prefers(self, repeats: Sequence[int]) -> int: ...
    def start(self, cell: int, experiment: "Experiment", keep: bool) -> None: ...
    def wait(self) -> Ended: ...
    def __enter__(self) -> "WorkerPool": ...
    def __exit__(self, *_: object) -> None: ...


class Serial:
    """One cell after another in this process, for a debugger."""

    def __init__(self) -> None:
        self._cell: tuple[int, Experiment, bool] | None = None

    @property
    def free(self) -> bool:
        return self._cell is None

    @property
    def busy(self) -> bool:
        return self._cell is not None

    def prefers(self, repeats: Sequence[int]) -> int:
        return 0

    def start(self, cell: int, experiment: "Experiment", keep: bool) -> None:
        self._cell = cell, experiment, keep

    def wait(self) -> Ended:
        from sims.sweeps.cell import run_cell

        assert self._cell is not None
        cell, experiment, keep = self._cell
        self._cell = None
        return [(cell, run_cell(experiment, keep))]

    def __enter__(self) -> "Serial":
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(1, user_api="blas")
        return self

    def __exit__(self, *_: object) -> None:
        self._limits.restore_original_limits()


class WorkerProcesses:
    """Worker processes that share the cores and live from cell to cell. One that dies has
    failed its cell and is replaced.
    """

    def __init__(self, workers: int):
        self._count = workers
        # the cores are shared out: kernels of two workers do not compete for one
        self._threads = max(1, n_threads() // workers)
        self._workers: dict[Connection, SpawnProcess] = {}
        self._numbers: dict[Connection, int] = {}
        self._cells: dict[Connection, tuple[int, float]] = {}  # cell and start of those at work
        self._idle: list[Connection] = []
        self._failed_starts = 0

    @property
    def free(self) -> bool:
        return bool(self._idle)

    @property
    def busy(self) -> bool:
        return bool(self._cells)

    def prefers(self, repeats: Sequence[int]) -> int:
        """The first of its own, which come to the same worker, that remembers their problem; the
        first of all, if there is none.
        """
        own = self._numbers[self._idle[-1]]
        mine = (i for i, repeat in enumerate(repeats) if repeat % self._count == own)
        return next(mine, 0)

    def start(self, cell: int, experiment: "Experiment", keep: bool) -> None:
        line = self._idle.pop()
        self._cells[line] = cell, time.time()
        try:
            line.send((experiment, keep))
        except (BrokenPipeError, ConnectionError):
            pass  # it died; `wait` finds out

    def wait(self) -> Ended:
        ended: Ended = []
        # idle ones too: their death is noticed at once
        for line in wait(list(self._workers)):
            assert isinstance(line, Connection)
            try:
                outcome = line.recv()
            except (EOFError, ConnectionError):
                ended += self._replace(line)
                continue
            if line in self._cells:
                ended.append((self._cells.pop(line)[0], outcome))
            self._idle.append(line)  # if it had no cell, it has said that it is ready
            self._failed_starts = 0
        return ended

    def _replace(self, line: Connection) -> Ended:
        from reports.store.sweep_database import Outcome

        process = self._workers.pop(line)
        process.join()
        line.close()
        code = process.exitcode or 0
        how = (
            f"ended by signal {signal.Signals(-code).name}"
            if code < 0
            else f"ended with status {code}"
        )
        # it died between two cells
        if line in self._idle:
            self._idle.remove(line)
        elif line not in self._cells:
            self._failed_starts += 1
            if self._failed_starts > MAX_FAILED_STARTS:
                raise RuntimeError(f"worker processes cannot start: the last one {how}")
        self._start_worker(self._numbers.pop(line))
        if line not in self._cells:
            return []
        cell, started = self._cells.pop(line)
        why = " (out of memory?)" if code == -signal.SIGKILL else ""
        error = f"its worker process {how}{why}: run it alone, or again with --retry"
        return [(cell, Outcome("failed", started, time.time() - started, error=error))]

    def _start_worker(self, number: int) -> None:
        process, ours = spawn(work, self._threads)
        self._workers[ours] = process
        self._numbers[ours] = number

    def __enter__(self) -> "WorkerProcesses":
        for number in range(self._count):
            self._start_worker(number)
        return self

    def __exit__(self, *_: object) -> None:
        # kill, not terminate: what a cell has done is lost either way, and nothing waits for it
        for process in self._workers.values():
            process.kill()
        for line, process in self._workers.items():
            process.join()
            line.close()


def work(line: Connection, threads: int) -> None:
    """What a worker process does: run the cells that come down the line, until it is closed or
    the sweep has died.
    """
    begin_work(threads)
    from sims.sweeps.cell import one_blas_thread, run_cell

    one_blas_thread()
    line.send("ready")
    while True:
        try:
            line.send(run_cell(*line.recv()))
        except (EOFError, BrokenPipeError, ConnectionError):
            return


class Cluster:
    """The workers of a Dask cluster, as many as there are at the time; the scheduler gives the
    cells of lost ones to others.
    """

    def __init__(self, address: str):
        if find_spec("distributed") is None:
            raise InputError(
                f"cluster = {address} needs Dask, which is not installed: pip install"
                " 'perturb[cluster]', or use workers instead"
            )
        self._address = address
        self._cells: dict[Any, tuple[int, float]] = {}
        self._ended: Queue[Any] = Queue()
        self._room = 1
        self._asked = 0.0

    @property
    def free(self) -> bool:
        if time.monotonic() > self._asked + 1:
            with self._connected():
                self._room = max(1, sum(self._client.nthreads().values()))
                self._asked = time.monotonic()
        return len(self._cells) < 2 * self._room  # one waits at every thread

    @property
    def busy(self) -> bool:
        return bool(self._cells)

    def prefers(self, repeats: Sequence[int]) -> int:
        return 0

    def start(self, cell: int, experiment: "Experiment", keep: bool) -> None:
        from sims.sweeps.cell import run_on_cluster

        with self._connected():
            # pure: Dask would take the result of an equal call for this one's
            future = self._client.submit(run_on_cluster, experiment, keep, pure=False)
            self._cells[future] = cell, time.time()
            # from a thread of Dask's
            future.add_done_callback(self._ended.put)

    def wait(self) -> Ended:
        from reports.store.sweep_database import Outcome

        try:
            future = self._ended.get(timeout=1)
        # nothing has ended: is the scheduler still there?
        except Empty:
            with self._connected():
                return []
        cell, started = self._cells.pop(future)
        with self._connected():
            if future.status != "error":
                return [(cell, future.result())]
            why = f"the cluster gave up: {future.exception()}: run it alone, or again with --retry"
            why = " ".join(why.split())
            return [(cell, Outcome("failed", started, time.time() - started, error=why))]

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """What goes wrong because the scheduler went away, or has gone away meanwhile, said in
        one line.
        """
        lost: BaseException | None = None
        try:
            yield
        except (OSError, CancelledError, asyncio.CancelledError) as error:
            lost = error
        if lost is not None or self._client.status != "running":
            raise InputError(
                f"cluster = {self._address} was lost: start it anew; what is done is stored, and"
                " the same command resumes"
            ) from lost

    def __enter__(self) -> "Cluster":
        from distributed import Client
        from distributed.security import Security

        # said here, with what to do about it
        own = Security().get_tls_config_for_role("client")
        if self._address.startswith("tls://") and None in (own["ca_file"], own["cert"]):
            raise InputError(
                f"cluster = {self._address} needs certificates: name them in Dask's configuration,"
                " distributed.comm.tls.ca-file and distributed.comm.tls.client.cert, or in its"
                " environment variables"
            )
        self._levels = {
            name: logging.getLogger(name).level for name in ("distributed", "distributed.client")
        }
        # lost connections are said in one line here, not in a log of tracebacks
        for name in self._levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._client = Client(self._address, timeout=10, set_as_default=False)
        except (OSError, ValueError, TypeError):
            self._speak()
            raise InputError(
                f"cluster = {self._address} cannot be reached: start it with dask scheduler and"
                " dask worker, and give the address that they show, such as tcp://127.0.0.1:8786"
            ) from None
        try:
            self._check_versions()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _check_versions(self) -> None:
        ours = versions()
        for worker, theirs in self._client.run(_able, on_error="return").items():
            if isinstance(theirs, BaseException):
                raise InputError(
                    f"cluster: the worker {worker} cannot import perturb ({theirs}): install it"
                    " there"
                )
            for name, here in ours.items():
                if theirs[name] != here:
                    raise InputError(
                        f"cluster: the worker {worker} has {name} {theirs[name]}, here it is"
                        f" {here}: install the same"
                    )

    def __exit__(self, *_: object) -> None:
        for future in self._cells:
            future.release()
        self._client.close(timeout=2)
        self._speak()

    def _speak(self) -> None:
        """Dask's log, which was silent: what it says of lost workers and schedulers is said in
        one line here.
        """
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


def _able() -> dict[str, str]:
    import sims.sweeps.cell  # noqa: F401  whether it can be imported

    return versions()


def versions() -> dict[str, str]:
    """Of what the numbers of a cell depend on."""
    return {name: version(name) for name in ("perturb", "numpy", "scipy", "numba")}
