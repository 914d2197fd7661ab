"""The study "drive": learning on a real chip, or on what stands for one, next to the emulated run
of the same experiment.
"""

import math
from contextlib import closing

import numpy as np
import pandas as pd

from hardware.link.drive import Driver
from hardware.training import source
from perturb.training.asktell import AskTell
from perturb.training.loop import begin, train
from perturb.training.plan import Plan
from sims.experiment.schema import Setup
from sims.problem import (
    Array,
    Fact,
    Problem,
    Progress,
    ShouldStop,
    Stopped,
    Study,
    facts,
    raise_if_stopped,
)
from sims.studies.drive import CHIP, EMULATED, Drive, Files, incidents, opened, row_of
from sims.studies.emulated import plan_of_run, start_of
from sims.studies.training.options import Training


def drive(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables log (a row per look, of the emulated run and of the chip), incidents, set_weights
    and summary (facts).
    """
    options, updates = experiment.options(Drive), experiment.options(Training).updates
    w = start_of(experiment, problem, options.run)
    plan = plan_of_run(experiment, problem, w, options.run)
    files = Files(problem.scratch, experiment)
    loop = files.restored(
        AskTell(w, plan, problem.objective.n_patterns, options.tries),
        lambda path: AskTell.load(path, plan),
    )
    # before the chip is touched: what the emulator expects of it
    expected = _emulated(experiment, problem, plan, w, updates, should_stop)
    yield "log", expected

    instrument = opened(experiment, problem, options)
    driver = Driver(instrument, options.window, options.timeout_s, files.journal, should_stop)
    rows = files.rows()
    # the session ends, with safe weights, before the link does
    with closing(instrument), closing(driver.learn(loop, updates, options.look_every)) as looks:
        for look in looks:
            progress(CHIP, look.updates, updates)
            files.keep(rows := [*rows, row_of(look)])
            if options.goal and look.error <= options.goal:
                break
    yield "log", pd.concat([expected, pd.DataFrame(rows)], ignore_index=True)
    yield "incidents", incidents(instrument)
    yield "set_weights", pd.DataFrame({"index": np.arange(w.size), "w": loop.result})
    yield "summary", facts(_summary(loop, driver, rows, expected))
    if should_stop():
        raise Stopped
    files.forget()


def _emulated(
    experiment: Setup,
    problem: Problem,
    plan: Plan,
    w: Array,
    updates: int,
    should_stop: ShouldStop,
) -> pd.DataFrame:
    """The same run on the emulated chip: E at its weights, exactly."""
    options = experiment.options(Drive)
    objective = problem.objective
    waits = experiment.options(Training).waits
    of = source(experiment.made_chip(), objective, plan, w[None], waits=waits, dies=[options.run])
    rows = []
    for state in train(of, begin(w, plan), updates, options.look_every):
        raise_if_stopped(should_stop)
        with np.errstate(all="ignore"):
            error = objective.error(state.result[0])
        rows.append(
            {
                "source": EMULATED,
                "update": state.update,
                "evaluations": state.evaluations,
                "wall_s": math.nan,
                "error": error,
            }
        )
        if options.goal and error <= options.goal:
            break
    return pd.DataFrame(rows)


def _summary(loop: AskTell, driver: Driver, rows: list[dict], expected: pd.DataFrame) -> list[Fact]:
    measured = [row["error"] for row in rows]
    predicted = expected["error"].to_numpy()
    found = [
        Fact("start_error", measured[0], "E at the start, measured once", CHIP),
        Fact("final_error", measured[-1], "E at the end, measured once", CHIP),
        Fact("start_error", predicted[0], "E at the start, exact", EMULATED),
        Fact("final_error", predicted[-1], "E at the end, exact", EMULATED),
        Fact("updates", float(loop.updates), "updates done", CHIP),
        Fact(
            "evaluations",
            float(driver.evaluations),
            "measurements of E in the last session, those of the log and repeated ones included",
            CHIP,
        ),
        Fact(
            "left_out",
            float(loop.left_out),
            "evaluations given up, whose trials do not count",
            CHIP,
        ),
        Fact("skipped", float(loop.skipped), "updates not made, as nothing was measured", CHIP),
    ]
    return found
