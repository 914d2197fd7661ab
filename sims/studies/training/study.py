"""The study itself: everything that learns, one after another, and its tables."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from hardware.timing import TrainingTiming
from perturb.training.exact import Exact
from perturb.training.loop import Source
from perturb.training.plan import Plan
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
from sims.studies.training.columns import passed
from sims.studies.training.energy import energy_table
from sims.studies.training.options import Training
from sims.studies.training.records import forget, rows_of
from sims.studies.training.sharing import Helpers, shared
from sims.studies.training.summary import summary
from sims.studies.training.task import (
    Task,
    check,
    check_plan,
    course_of,
    learners,
    plan_of,
    task_of,
)
from sims.studies.training.theory import predicted
from sims.studies.training.trainable import Trainable
from sims.studies.training.weights import Ended, weights_table


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
    # the starts of all runs, (R, n), which every source begins from
    starts = starts_of(problem.network, experiment, options.runs)
    W = np.array([warmed_up(w, task.objective, experiment) for w in starts])
    trainable = Trainable.of(options, problem.network, W)
    # theory and calibration are of what is trained, at the first start
    first = trainable.of_runs(task.objective).of_run(0)
    w = trainable.w[0]
    if plan.calibrate:
        # for all runs
        plan = plan.calibrated(first, w, options.updates)
    limits, advised = advice(
        experiment, first, w, plan, course_of(experiment, first, plan).trial_timing
    )
    with Helpers() as helpers:
        # all made before the first result: a setting that cannot be ends everything
        listed = list(_listed(experiment, task, trainable, helpers))
        yield "advice", advised
        share = passed(experiment, first, w, plan)

        table = pd.DataFrame()
        tables: dict[str, pd.DataFrame] = {}
        stopped = False
        for name, made, own, updates, course in listed:
            rows: list[dict] = []
            for new, now in rows_of(
                name,
                made,
                trainable,
                own,
                updates,
                experiment,
                task,
                course,
                problem.scratch,
                progress,
            ):
                rows = rows + new
                # of the last record, which is what `learning` ends with
                ended = now
                if stopped := should_stop():
                    break
            if rows:
                learned = pd.DataFrame(rows)
                if name != "exact":
                    learned["predicted_error"] = predicted(first, trainable.w, own, learned)
                table = pd.concat([table, learned], ignore_index=True)
                yield "learning", table
                for which, new_rows in _ends(
                    name, learned, ended, experiment, task, problem, course
                ).items():
                    parts = [tables[which], new_rows] if which in tables else [new_rows]
                    tables[which] = pd.concat(parts, ignore_index=True)
                    yield which, tables[which]
                yield "summary", facts([*summary(table, experiment, limits, plan), *share])
            if stopped:
                raise Stopped
    forget(problem.scratch, experiment)


def _listed(
    experiment: Setup, task: Task, trainable: Trainable, helpers: Helpers
) -> Iterator[tuple[str, Source, Plan, int, TrainingTiming]]:
    """Everything that learns: its name, source, plan, updates and times."""
    W, objective = trainable.w, trainable.of_runs(task.objective)
    first = objective.of_run(0)
    for name, settings, updates in learners(experiment):
        plan = plan_of(settings)
        if plan.calibrate:
            plan = plan.calibrated(first, W[0], updates)
        check_plan(name, plan, updates)
        made: Source = (
            Exact(objective, plan)
            if name == "exact"
            else shared(experiment, objective, plan, W, helpers)
        )
        yield name, made, plan, updates, course_of(experiment, first, plan)


def _ends(
    name: str,
    learned: pd.DataFrame,
    ended: Ended,
    experiment: Setup,
    task: Task,
    problem: Problem,
    course: TrainingTiming,
) -> dict[str, pd.DataFrame]:
    """The tables of what one source has ended with."""
    pairs, each = confusions(name, ended.w, task)
    return {
        "confusion": pairs,
        "classes": each,
        "energy": energy_table(name, learned, course, experiment),
        "weights": weights_table(name, ended, problem.network),
    }
