"""How many threads a computation may use."""

import os

from perturb.errors import InputError

VARIABLE = "PERTURB_NUM_THREADS"


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
