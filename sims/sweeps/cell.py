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
from perturb.threads import VARIABLE
from reports.store.sweep_database import Outcome
from sims.experiment.experiment import Experiment
from sims.problem import Problem, prepare
from sims.runner import study_tables, without_places

REMEMBERED = 2**25  # numbers of problems, 256 MB
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
        problem = replace(_prepared(experiment), summary_only=not keep)
        found, reason = study_tables(experiment, problem)
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
    """The problem of an experiment: that of an earlier cell at the same point, as the same repeat
    at another value of the chip, with the curvatures that it found, which take as long as many
    trials.
    """
    # all that `prepare` reads: the same network, data and point
    key = experiment.model_dump_json(
        include={"network": True, "data": True, "weights": True, "direction": True, "run": {"seed"}}
    )
    problems: dict[str, Problem] = _earlier.__dict__.setdefault("problems", {})
    # the one that was used last stands last
    problems[key] = problems.pop(key) if key in problems else prepare(experiment)
    while len(problems) > 1 and sum(map(_numbers, problems.values())) > REMEMBERED:
        del problems[next(iter(problems))]
    return problems[key]


def _numbers(problem: Problem) -> int:
    """About how many numbers a problem holds: its data, and some ten arrays of all weights for each
    curvature, of each pattern too.
    """
    network = problem.network
    data = problem.objective.n_patterns * (network.n_inputs + network.n_outputs)
    found = [each for curvatures in problem.known.values() for each in curvatures]
    return data + sum(10 * each.v.size * (1 + len(each.patterns)) for each in found)


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
