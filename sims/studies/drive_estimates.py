"""The study "drive-estimates": g and z = Hv of a real chip, or of what stands for one, next to
those of the emulated chip and the exact ones.
"""

from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from hardware.chip import Chip
from hardware.link.drive import Driver
from perturb.errors import InputError
from perturb.estimation.asking import AskEstimate
from perturb.estimation.solution import Estimate
from sims.experiment.schema import Setup
from sims.problem import Array, Fact, Problem, Progress, ShouldStop, Stopped, Study, facts
from sims.studies.drive import CHIP, EMULATED, Drive, Files, incidents, opened, row_of

QUANTITIES = {"gradient": "g", "hv": "z"}


def drive_estimates(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables estimates (a row per quantity and weight), log, incidents and summary (facts)."""
    options, estimation = experiment.options(Drive), experiment.estimation
    if estimation.presentation != "batch":
        raise InputError(
            f'estimation.presentation = "{estimation.presentation}" is for emulated chips: set'
            ' "batch" for a chip at the other end of a link'
        )
    trials, seed = estimation.trials, experiment.run.seed
    how = (estimation.method, estimation.code, estimation.sigma, estimation.r, seed)
    asking = AskEstimate(problem.w, problem.v, trials, *how, options.tries)
    files = Files(problem.scratch, experiment)

    def stored(path: Path) -> AskEstimate:
        asking.resume(path)
        return asking

    asking = files.restored(asking, stored)
    # before the chip is touched: what the emulator expects of it
    chip = Chip(
        experiment.made_chip(),
        problem.objective,
        problem.w,
        problem.v,
        *how,
        fidelity="batch",
        trace_trials=0,
    )
    expected = chip.run(trials)
    exact = {"gradient": chip.point.gradient, "hv": chip.point.hv}

    instrument = opened(experiment, problem, options)
    driver = Driver(instrument, options.window, options.timeout_s, files.journal, should_stop)
    each = chip.design.method.evaluations_per_trial
    rows = []
    with closing(instrument), closing(driver.estimate(asking, each * options.look_every)) as looks:
        for look in looks:
            progress(CHIP, look.evaluations, each * trials)
            rows.append(row_of(look))
    found = asking.estimate()
    yield "estimates", _estimates(found, expected, exact)
    yield "log", pd.DataFrame(rows).drop(columns=["source", "update"])
    yield "incidents", incidents(instrument)
    yield "summary", facts(_summary(found, expected, exact, rows, driver.evaluations, asking))
    if should_stop():
        raise Stopped
    files.forget()


def _estimates(found: Estimate, expected: Estimate, exact: dict[str, Array]) -> pd.DataFrame:
    parts = []
    for quantity in found.statistics.design.method.quantities:
        parts.append(
            pd.DataFrame(
                {
                    "quantity": quantity,
                    "index": np.arange(exact[quantity].size),
                    "chip": getattr(found, quantity),
                    "stderr": getattr(found, f"{quantity}_stderr"),
                    "emulated": getattr(expected, quantity),
                    "exact": exact[quantity],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _summary(
    found: Estimate,
    expected: Estimate,
    exact: dict[str, Array],
    log: list[dict],
    evaluations: int,
    asking: AskEstimate,
) -> list[Fact]:
    rows = []
    for quantity in found.statistics.design.method.quantities:
        name, true = QUANTITIES[quantity], exact[quantity]
        for subject, estimate in ((CHIP, found), (EMULATED, expected)):
            own = getattr(estimate, quantity)
            size = float(np.linalg.norm(true))
            with np.errstate(all="ignore"):
                cosine = float(own @ true / (np.linalg.norm(own) * size))
                error = float(np.linalg.norm(own - true) / size)
            rows += [
                Fact(f"{name}_cosine", cosine, f"of {name} with the exact one", subject, "cosine"),
                Fact(f"{name}_error", error, f"|{name} - exact| / |exact|", subject),
            ]
    return [
        *rows,
        Fact("trials", float(found.trials), "trials of which all was measured", CHIP),
        Fact(
            "evaluations",
            float(evaluations),
            "measurements of E in the last session, those of the log and repeated ones included",
            CHIP,
        ),
        Fact(
            "drift",
            log[-1]["error"] - log[0]["error"],
            "of E(w), measured at the start and at the end of the last session",
            CHIP,
        ),
        Fact(
            "left_out", float(asking.left_out), "evaluations given up; their trials are out", CHIP
        ),
    ]
