"""One cell of a sweep: an experiment in, how it ended out. It runs here, in a worker process or
on a cluster alike.
"""

import io
import json
import os
import threading
import time
import traceback
from dataclasses import replace
from functools import cache

import pandas as pd
from threadpoolctl import threadpool_limits

from perturb.errors import InputError
from perturb.theory.quadratic import Curvature
from perturb.threads import VARIABLE
from reports.store.sweep_database import Outcome
from sims.experiment.experiment import Experiment
from sims.problem import Problem, prepare
from sims.runner import study_tables, without_places

REMEMBERED = 2**25  # numbers of curvatures, 256 MB
_earlier = threading.local()  # a worker of a cluster may be a thread


def run_cell(experiment: Experiment, keep: bool) -> Outcome:
    """The summary of the experiment's run, or its error; with keep, its other tables too. Does
    not raise.
    """
    started = time.time()
    clock = time.perf_counter()
    status = "failed"
    # of a cell that fails
    rows = "{}"
    error = ""
    tables = {}
    try:
        found, reason = study_tables(experiment, _prepared(experiment))
        # a partial run is no result of a cell: it would be taken for a whole one
        if reason:
            raise InputError(reason)
        rows = as_columns(found["summary"])
        tables = (
            {name: _parquet(table) for name, table in found.items() if name != "summary"}
            if keep
            else {}
        )
        status = "done"
    except InputError as mistake:
        error = without_places(str(mistake))
    # a bug: it must not stop the other cells, so its traceback is stored and shown with the
    # failed cell
    except Exception:
        error = without_places(traceback.format_exc())
    return Outcome(status, started, time.perf_counter() - clock, rows, error, tables)


def _prepared(experiment: Experiment) -> Problem:
    """The problem of an experiment, with the curvatures that an earlier cell found at the same
    point, as the same repeat at another value of the chip: they take as long as many trials.
    """
    # all that `prepare` reads: the same network, data and point
    key = experiment.model_dump_json(
        include={"network": True, "data": True, "weights": True, "direction": True, "run": {"seed"}}
    )
    points: dict[str, dict[str, list[Curvature]]] = _earlier.__dict__.setdefault("points", {})
    # the one that was used last stands last
    points[key] = points.pop(key, {})
    while len(points) > 1 and sum(map(_numbers, points.values())) > REMEMBERED:
        del points[next(iter(points))]
    return replace(prepare(experiment), known=points[key])


def _numbers(known: dict[str, list[Curvature]]) -> int:
    """How many numbers curvatures hold: some ten arrays of all weights, for each pattern too."""
    return sum(
        10 * each.v.size * (1 + len(each.patterns)) for found in known.values() for each in found
    )


def run_on_cluster(experiment: Experiment, keep: bool) -> Outcome:
    """run_cell on a worker of a cluster: each of its threads is one core to the cluster, so a
    cell takes one.
    """
    os.environ.setdefault(VARIABLE, "1")
    one_blas_thread()
    return run_cell(experiment, keep)


@cache
def one_blas_thread() -> None:
    """From now on in this process: sums of BLAS depend on its threads, and cells must not."""
    threadpool_limits(1, user_api="blas")


def as_columns(frame: pd.DataFrame) -> str:
    """JSON of {column: [values]}; numbers come back to the same bits (NaN and Infinity as Python
    writes them).
    """
    return json.dumps(
        {column: frame[column].tolist() for column in frame.columns}, ensure_ascii=False
    )


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, write_page_checksum=True)
    return buffer.getvalue()
