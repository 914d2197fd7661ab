"""The study itself: everything that learns, one after another, and its tables."""

import numpy as np
import pandas as pd

from hardware.training import source
from perturb.training.exact import Exact
from perturb.training.loop import Source
from sims.experiment.schema import Setup
from sims.problem import (
    Problem,
    Progress,
    ShouldStop,
    Stopped,
    Study,
    facts,
    warmed_up,
)
from sims.studies.training.advice import advice
from sims.studies.training.options import Training
from sims.studies.training.records import CONFUSION, confusions, digest_of, rows_of
from sims.studies.training.summary import summary
from sims.studies.training.task import check, check_average, course_of, learners, plan_of, task_of
from sims.studies.training.theory import predicted


def training(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables advice, learning (a row per source, run and record), confusion and summary (facts);
    see `reports.frames`.
    """
    options = experiment.options(Training)
    plan = plan_of(experiment)
    task = task_of(experiment, problem)
    check(experiment, task)
    learning = learners(experiment)
    # the starts of all runs, (R, n), which every source begins from
    W = np.array(
        [warmed_up(problem.network, task.objective, experiment, run) for run in range(options.runs)]
    )
    if plan.calibrate:
        # at the first start, for all runs
        plan = plan.calibrated(task.objective, W[0], options.updates)
    limits, advised = advice(
        experiment, task.objective, W[0], plan, course_of(experiment, task, plan).trial_timing
    )
    listed = []  # all made before the first result: a setting that cannot be ends everything
    for name, settings, updates in learning:
        own = plan_of(settings)
        if own.calibrate:
            own = own.calibrated(task.objective, W[0], updates)
        if name != "exact":
            check_average(own, updates, name)
        made: Source = Exact(task.objective, own)
        if name != "exact":
            made = source(
                experiment.made_chip(),
                task.objective,
                own,
                W,
                options.source == "event",
                options.waits,
            )
        listed.append((name, made, own, updates, course_of(experiment, task, own)))
    yield "advice", advised

    table = pd.DataFrame()
    confused = pd.DataFrame(columns=CONFUSION)
    stopped = False
    for name, made, own, updates, course in listed:
        rows: list[dict] = []
        W_end = W
        for new, weights in rows_of(
            name, made, W, own, updates, experiment, task, course, problem.scratch, progress
        ):
            rows = rows + new
            # of the last record, which is what `learning` ends with
            W_end = weights
            if stopped := should_stop():
                break
        if rows:
            learned = pd.DataFrame(rows)
            if name != "exact":
                learned["predicted_error"] = predicted(task.objective, W, own, learned)
            table = pd.concat([table, learned], ignore_index=True)
            yield "learning", table
            confused = pd.concat([confused, confusions(name, W_end, task)], ignore_index=True)
            # the empty table that it began as has columns of objects
            yield "confusion", confused.astype({"run": int, "count": int})
            yield "summary", facts(summary(table, experiment, limits, plan))
        if stopped:
            raise Stopped
    if problem.scratch:
        # only when all have learned: until then a resumed run reads what has ended from there, too
        for path in problem.scratch.parent.glob(
            f"{problem.scratch.name}-*-{digest_of(experiment)}.npz"
        ):
            path.unlink()
