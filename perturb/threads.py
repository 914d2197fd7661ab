"""How many threads a computation may use."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

from perturb.errors import InputError

VARIABLE = "PERTURB_NUM_THREADS"
WORTH_THREADS = 2**25


def n_threads() -> int:
    """The environment's PERTURB_NUM_THREADS, or else the cores that this process may use. No
    result depends on it.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        if not (given.isdecimal() and int(given) >= 1):
            raise InputError(
                f"{VARIABLE} = {given!r} in the environment must be an integer >= 1: change or"
                " unset it"
            )
        return int(given)
    # of a container or a job, less than the machine has
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def blas_threads(multiplications: int) -> AbstractContextManager[None]:
    """Within it, products of matrices have as many threads as one of so many multiplications is
    worth: one below WORTH_THREADS, else all that BLAS has.
    """
    return nullcontext() if multiplications >= WORTH_THREADS else _ONE_THREAD


class _OneThread(AbstractContextManager[None]):
    """BLAS has one thread while any thread of this process is within, then as many as before.

    `threadpoolctl.threadpool_limits` does the same, but looks for the libraries each time, and two
    threads that are within at once can leave one for good.
    """

    def __init__(self) -> None:
        self._lock, self._within, self._before = Lock(), 0, [0]

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._before = [library.get_num_threads() for library in _libraries()]
                self._give([1] * len(self._before))
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._give(self._before)

    def _give(self, counts: list[int]) -> None:
        for library, count in zip(_libraries(), counts, strict=True):
            library.set_num_threads(count)


_ONE_THREAD = _OneThread()


@cache
def _libraries() -> list[Any]:
    """The BLAS libraries of this process."""
    from threadpoolctl import ThreadpoolController  # for start-up time

    return ThreadpoolController().select(user_api="blas").lib_controllers
