"""Sweeps: many runs of one experiment, with keys varied and seeds repeated, whose results are
stored as they come.
"""

import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from perturb.errors import InputError
from perturb.threads import n_threads
from reports.store.sweep_database import Outcome, Row, Store
from reports.store.sweep_results import load_sweep
from sims.sweeps.plan import Plan, plan_sweep
from sims.sweeps.workers import Cluster, Serial, WorkerPool, WorkerProcesses

NEAR = 1000  # cells next in turn, among which a worker finds one that it prefers


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
    """Run an experiment at every point of a sweep and for every repeat.

    Parameters
    ----------
    name_or_path : str or Path
        One of `experiment_names`, or the path of a TOML file. What is not given below is as in its
        table [sweep].
    vary : mapping of str to list or str, optional
        Keys to their values, or to strings such as "logspace:-5:-1:9" or, for a range to draw from,
        "uniform:0:1" (`sims.sweeps.design.values_of`); of several keys every combination.
    repeats : int, optional
        Seeds of each point. Repeat 0 has the run.seed of the point, the others have seeds derived
        from it, so that all points share their seeds. With run.seed change perturbations, noise,
        and whatever has no key of its own: starts (weights.seed), direction (direction.seed), die
        (chip.die).
    out : str or Path, optional
        The sweep directory. The same call again resumes, and gives the same frame; left out, a
        directory that is removed in the end.
    workers : int, optional
        Processes that share the cores, by default one per core; 0: none, in this process.
    cluster : str, optional
        The address of a Dask scheduler, instead of workers.
    set : mapping of str to object, optional
        Fixed keys, as of `run_experiment`.
    zip : mapping of str to list or str, optional
        Keys whose lists go together, entry by entry.
    design : {"sobol", "latin-hypercube"}, optional
        How points are drawn from ranges, from all of them together.
    samples : int, optional
        Points drawn from ranges.
    keep : bool, optional
        Whether to store the other tables of every run too, see `load_sweep`.
    retry : bool, default False
        Whether to run failed cells again.
    progress : callable, optional
        Called with a `Progress` when a cell has ended.

    Returns
    -------
    DataFrame
        The summaries of all cells that are done: varied keys, repeat, seed, columns of the summary.
        `.attrs["failed"]` lists the cells that failed, each a dictionary with its error and the
        command that replays it.

    Raises
    ------
    InputError
        If any cell has a mistake in its keys or values, before the first one runs; or if `out`
        holds another sweep.

    Notes
    -----
    The numbers depend neither on workers nor on a cluster, times of this computer (wall_time_s)
    apart.

    Examples
    --------
    >>> import sims
    >>> vary = {"spectrum.k": [1, 2]}
    >>> frame = sims.run_sweep("xor", vary, workers=0, set={"study": "spectrum"})
    >>> frame["spectrum.k"].unique().tolist()
    [1, 2]
    """
    options = {
        "repeats": repeats,
        "design": design,
        "samples": samples,
        "keep": keep,
        "vary": vary,
        "zip": zip,
    }
    # before a directory is made: a mistake leaves none
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
    # no more than there are cells: every process takes its time to start
    return WorkerProcesses(min(n_threads() if workers is None else workers, cells))


def sweep(
    plan: Plan, directory: Path, pool: WorkerPool, retry: bool, progress: Callable[[Progress], None]
) -> None:
    """Run every cell of the plan that has no result yet; whatever ends the sweep, the store has
    what was done.
    """
    with Store(directory, plan.record(), map(plan.row, range(len(plan)))) as store:
        ended = store.statuses()
        # what has ended is stored: going on is running what is left
        waiting = deque(
            cell
            for cell in range(len(plan))
            if cell not in ended or (retry and ended[cell] == "failed")
        )
        # no process is started for nothing
        if not waiting:
            return
        counts = Counter(
            status for cell, status in ended.items() if not (retry and status == "failed")
        )
        count = len(waiting)
        begun = time.monotonic()

        def ended_now(cell: int, outcome: Outcome) -> None:
            counts[outcome.status] += 1
            left = len(plan) - counts.total()
            # of this process: what an earlier one did took no time of it
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

        run_cells(plan, store, pool, waiting, ended_now)


def run_cells(
    plan: Plan,
    store: Store,
    pool: WorkerPool,
    waiting: deque[int],
    ended: Callable[[int, Outcome], None],
) -> None:
    """Run the cells that wait, and those that `ended` adds to them when it is told of an end."""
    with pool:
        while waiting or pool.busy:
            # as many as the pool takes, then wait for the first to end
            while waiting and pool.free:
                near = [cell % plan.sweep.repeats for cell in islice(waiting, NEAR)]
                place = pool.prefers(near)
                row = plan.row(waiting[place])
                del waiting[place]
                pool.start(row.cell, plan.experiment(row), plan.sweep.keep)
            for cell, outcome in pool.wait():
                # at once: whatever ends the sweep, this result is safe
                store.add(cell, outcome)
                ended(cell, outcome)
