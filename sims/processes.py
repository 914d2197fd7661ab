"""Processes that work for this one, and end with it."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType

from perturb.threads import VARIABLE


def spawn(
    target: Callable[[Connection, int], None], threads: int
) -> tuple[SpawnProcess, Connection]:
    """A process that does target(its end of a line, threads), and our end of the line. It never
    hears Ctrl-C; `target` calls `begin_work` first.
    """
    # not fork: threads of NumPy and Numba do not survive it
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, threads), daemon=True)
    with _safe_path(), _no_main(), _no_interrupts():
        process.start()
    # then our end hears when the other closes
    theirs.close()
    return process, ours


def begin_work(threads: int) -> None:
    """In a process of `spawn`: it uses so many threads, and ends when its parent has ended."""
    os.environ[VARIABLE] = str(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    # a parent that is killed cannot tell its workers: each looks for itself
    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def may_spawn() -> bool:
    """Whether this process may have others: those of a sweep may not, which share the cores."""
    return not multiprocessing.current_process().daemon


@contextmanager
def _no_main() -> Iterator[None]:
    """A spawned process imports the main program again, for what may be defined there; ours need
    nothing of it, and a script would start its work once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _safe_path() -> Iterator[None]:
    """What starts meanwhile does not import from the working directory, where a file `types.py`
    would be taken for Python's.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """What starts meanwhile never hears Ctrl-C, which is for this process to answer."""
    resource_tracker.ensure_running()  # starting it would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
