"""How many threads a computation may use, and how many a product of matrices is worth."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

from perturb.errors import InputError

VARIABLE = "PERTURB_NUM_THREADS"
# multiplications: a product of fewer takes about a millisecond on one thread. A second one, alone
# on two cores, saves up to half of it; beside other load it is waited for without sleep, for 15 to
# 40 ms a product whatever its size
WORTH_THREADS = 2**25
_LIMITED = Lock()


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
    """Within it, a product of matrices of so many multiplications has as many threads of BLAS as it
    is worth: one below WORTH_THREADS, else all.
    """
    return nullcontext() if multiplications >= WORTH_THREADS else _OneThread()


class _OneThread(AbstractContextManager[None]):
    """BLAS has one thread within, then as many as before.

    As `ThreadpoolController.limit`, which takes several times as long, some 20 microseconds.
    """

    def __enter__(self) -> None:
        # a caller or another thread of this process is within, and gives back what it found: two
        # who do could leave one thread for good
        self._first = _LIMITED.acquire(blocking=False)
        if self._first:
            counts = [(library, library.get_num_threads()) for library in _blas()]
            self._before = [(library, count) for library, count in counts if count > 1]
            for library, _ in self._before:
                library.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        if self._first:
            for library, count in self._before:
                library.set_num_threads(count)
                # of threadpoolctl 3.8: else no other thread of this process could set it
                if hasattr(library, "clear_controlling_thread"):
                    library.clear_controlling_thread()
            _LIMITED.release()


@cache
def _blas() -> list[Any]:
    """threadpoolctl's hold of each BLAS library of this process: looking for them takes longer than
    a small product.
    """
    from threadpoolctl import ThreadpoolController  # for start-up time

    return ThreadpoolController().select(user_api="blas").lib_controllers
