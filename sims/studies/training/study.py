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
    starts_of,
    warmed_up,
)
from sims.studies.training.advice import advice
from sims.studies.training.classified import confusions
from sims.studies.training.energy import energy_table
from sims.studies.training.options import Training
from sims.studies.training.records import digest_of, rows_of
from sims.studies.training.summary import summary
from sims.studies.training.task import check, check_plan, course_of, learners, plan_of, task_of
from sims.studies.training.theory import predicted
from sims.studies.training.weights import weights_table


def training(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables advice, learning (a row per source, run and record), confusion, classes, energy,
    weights and summary (facts); see `reports.frames`.
    """
    options = experiment.options(Training)
    plan = plan_of(experiment)
    task = task_of(experiment, problem)
    check(experiment, task)
    learning = learners(experiment)
    # the starts of all runs, (R, n), which every source begins from
    starts = starts_of(problem.network, experiment, options.runs)
    W = np.array([warmed_up(w, task.objective, experiment) for w in starts])
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
        check_plan(name, own, updates)
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
    tables: dict[str, pd.DataFrame] = {}
    stopped = False
    for name, made, own, updates, course in listed:
        rows: list[dict] = []
        for new, now in rows_of(
            name, made, W, own, updates, experiment, task, course, problem.scratch, progress
        ):
            rows = rows + new
            # of the last record, which is what `learning` ends with
            ended = now
            if stopped := should_stop():
                break
        if rows:
            learned = pd.DataFrame(rows)
            if name != "exact":
                learned["predicted_error"] = predicted(task.objective, W, own, learned)
            table = pd.concat([table, learned], ignore_index=True)
            yield "learning", table
            pairs, each = confusions(name, ended.w, task)
            found = {
                "confusion": pairs,
                "classes": each,
                "energy": energy_table(name, learned, course, experiment),
                "weights": weights_table(name, ended, problem.network),
            }
            for which, new_rows in found.items():
                parts = [tables[which], new_rows] if which in tables else [new_rows]
                tables[which] = pd.concat(parts, ignore_index=True)
                yield which, tables[which]
            yield "summary", facts(summary(table, experiment, limits, plan))
        if stopped:
            raise Stopped
    if problem.scratch:
        # only when all have learned: until then a resumed run reads what has ended from there, too
        for path in problem.scratch.parent.glob(
            f"{problem.scratch.name}-*-{digest_of(experiment)}.npz"
        ):
            path.unlink()
