"""Sweeps: many runs of one experiment, with keys varied and seeds repeated, whose results are
stored as they come.
"""

import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from perturb.errors import InputError
from perturb.threads import n_threads
from reports.store.sweep_database import Outcome, Row, Store
from reports.store.sweep_results import load_sweep
from sims.sweeps.plan import Plan, plan_sweep
from sims.sweeps.workers import Cluster, Serial, WorkerPool, WorkerProcesses


class Progress(NamedTuple):
    """What is said when a cell has ended. rate: cells/s since this process began; left_s: time
    left at that rate.
    """

    row: Row
    outcome: Outcome
    done: int
    failed: int
    cells: int
    rate: float
    left_s: float


def run_sweep(
    name_or_path: str | Path,
    vary: Mapping[str, Any] | None = None,
    repeats: int | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    *,
    set: Mapping[str, object] | None = None,
    zip: Mapping[str, Any] | None = None,
    design: str | None = None,
    samples: int | None = None,
    keep: bool | None = None,
    retry: bool = False,
    progress: Callable[[Progress], None] = lambda ended: None,
) -> pd.DataFrame:
    """Run an experiment at every point and repeat; the summaries of all cells that are done: varied
    keys, repeat, seed, summary.

    vary: keys to lists, or to strings such as "logspace:-5:-1:9" (`designs.values_of`); of several
    keys every combination. zip: keys whose lists go together. Ranges ("uniform:0:1") are drawn from
    together, `samples` points of a `design` ("sobol", "latin-hypercube"). What is not given is as
    in [sweep] of the file. set: fixed keys, as of `run_experiment`. Repeat 0 of a point has its
    run.seed, the others have seeds derived from that, so that all points share their seeds. With
    run.seed change perturbations, noise, and whatever has no key of its own: starts (weights.seed),
    direction (direction.seed), die (chip.die).

    out: the sweep directory; the same call again goes on where it ended, and gives the same frame;
    another sweep there is an InputError. None: a directory that is removed in the end. workers:
    processes that share the cores (None: one per core; 0: none, in this process); cluster: the
    address of a Dask scheduler instead. The numbers do not depend on them, times of this computer
    (wall_time_s) apart. keep: store the other tables of every run too, see `load_sweep`. retry: run
    failed cells again. Cells that failed are listed in `.attrs["failed"]`, each a dictionary with
    its error and the command that replays it.
    """
    options = {
        "repeats": repeats,
        "design": design,
        "samples": samples,
        "keep": keep,
        "vary": vary,
        "zip": zip,
    }
    plan = plan_sweep(
        name_or_path, set, {key: value for key, value in options.items() if value is not None}
    )
    with tempfile.TemporaryDirectory() if out is None else nullcontext(out) as directory:
        sweep(plan, Path(directory), pool(workers, cluster, len(plan)), retry, progress)
        return load_sweep(directory)


def pool(workers: int | None, cluster: str | None, cells: int) -> WorkerPool:
    """Where the cells run."""
    if cluster is not None:
        if workers is not None:
            raise InputError(
                f"workers = {workers} does not go with cluster = {cluster}, which has workers of"
                " its own: remove one"
            )
        return Cluster(cluster)
    if workers is not None and not 0 <= workers <= 10_000:
        raise InputError(
            f"workers = {workers} must lie between 0 (in this process) and 10000: about the number"
            " of cores is best"
        )
    if workers == 0:
        return Serial()
    return WorkerProcesses(min(n_threads() if workers is None else workers, cells))


def sweep(
    plan: Plan, directory: Path, pool: WorkerPool, retry: bool, progress: Callable[[Progress], None]
) -> None:
    """Run every cell of the plan that has no result yet; whatever ends the sweep, the store has
    what was done.
    """
    with Store(directory, plan.record(), map(plan.row, range(len(plan)))) as store:
        ended = store.statuses()
        waiting = deque(
            cell
            for cell in range(len(plan))
            if cell not in ended or (retry and ended[cell] == "failed")
        )
        if not waiting:
            return
        counts = Counter(
            status for cell, status in ended.items() if not (retry and status == "failed")
        )
        count = len(waiting)
        begun = time.monotonic()
        with pool:
            while waiting or pool.busy:
                while waiting and pool.free:
                    row = plan.row(waiting.popleft())
                    pool.start(row.cell, plan.experiment(row), plan.sweep.keep)
                for cell, outcome in pool.wait():
                    store.add(cell, outcome)
                    counts[outcome.status] += 1
                    left = len(plan) - counts.total()
                    rate = (count - left) / (time.monotonic() - begun)
                    progress(
                        Progress(
                            plan.row(cell),
                            outcome,
                            counts["done"],
                            counts["failed"],
                            len(plan),
                            rate,
                            left / rate,
                        )
                    )
