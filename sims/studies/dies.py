"""The study "dies": how much dies of one design differ."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from hardware.chip import Chip
from hardware.config import Table
from hardware.params import ChipParams
from perturb.seeds import nth_seed
from perturb.theory.comparison import compare_at
from perturb.theory.quadratic import Curvature, curvatures
from perturb.trial.methods import METHODS
from reports.statistics import share_interval
from reports.vocabulary import together
from sims.experiment.schema import Setup
from sims.problem import Fact, Problem, Progress, ShouldStop, Study, facts, raise_if_stopped


class Dies(Table):
    """Of the studies "dies", "ablation" and "budget", and of those of learning."""

    count: int = Field(
        16, ge=1, le=10**6, description="dies made of the chip's design, the first of them chip.die"
    )
    accuracy: float = Field(
        0.9, ge=0.001, lt=1, description="cosine with the exact answer that is wanted"
    )
    starts: int = Field(
        8,
        ge=1,
        le=10**5,
        description="where learning is judged: starts on every die, the same on all",
    )
    solved: float = Field(
        0.5,
        gt=0,
        le=1,
        description="where learning is judged: share of its starts that a good die solves",
    )


class OnDie(NamedTuple):
    """One die. measured: per quantity (trials, cosine, relative error) after a quarter of the
    trials and after all.
    """

    measured: dict[str, list[tuple[int, float, float]]]
    time_s: float
    energy_j: float
    incidents: str


def on_die(
    experiment: Setup, problem: Problem, params: ChipParams, known: list[Curvature], die: int
) -> OnDie:
    e = experiment.estimation
    # a die of its own and perturbations of its own: dies are independent samples
    seed = nth_seed(experiment.run.seed, "run", die)
    params = params.of_run(die)
    chip = Chip(
        params,
        problem.objective,
        problem.w,
        problem.v,
        e.method,
        e.code,
        e.sigma,
        e.r,
        seed,
        e.presentation,
        "auto",
        0,
    )
    # two points of the convergence, from which `ablation.trials_needed` extrapolates
    quarter = max(3, e.trials // 4)
    measured: dict[str, list[tuple[int, float, float]]] = {
        name: [] for name in METHODS[e.method].quantities
    }
    # the second measurement goes on from the first
    for more in (quarter, max(quarter + 1, e.trials) - quarter):
        compared = compare_at(chip.point, chip.run(more), known)
        for name, each in measured.items():
            found = getattr(compared, name)
            each.append((chip.statistics.trials, found.cosine, found.relative_error))
    # time and energy of one trial, so that they scale to any number of them
    trials = chip.statistics.trials
    return OnDie(measured, chip.time_s / trials, chip.energy_j / trials, together(chip.incidents))


def dies(experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop) -> Study:
    """Tables summary (facts: spread and yield) and dies: cosine and relative error of every die."""
    known = curvatures(problem.objective, problem.w, problem.v, experiment.estimation.presentation)
    options = experiment.options(Dies)
    chip = experiment.made_chip()
    rows: list[tuple] = []
    for die in range(options.count):
        raise_if_stopped(should_stop)
        found = on_die(experiment, problem, chip, known, die)
        rows += [
            (chip.of_run(die).die, quantity, *each[1], found.incidents)
            for quantity, each in found.measured.items()
        ]
        table = pd.DataFrame(
            rows, columns=["die", "quantity", "trials", "cosine", "relative_error", "incidents"]
        )
        yield "dies", table
        # after every die: an interrupted study has the spread of those that were done
        yield "summary", _spread(table, options.accuracy)
        progress("dies", die + 1, options.count)


def _spread(table: pd.DataFrame, accuracy: float) -> pd.DataFrame:
    found: list[Fact] = []
    for quantity in dict.fromkeys(table["quantity"]):
        cosines = table.loc[table["quantity"] == quantity, "cosine"].to_numpy()
        good = int((cosines >= accuracy).sum())
        n = len(cosines)
        # the exact interval of so few dies covers more than 95 %
        low, high = share_interval(good, n, "wilson")
        # of none or of all, the interval alone says how sure it is
        error = math.sqrt(good * (n - good) / n**3) or math.nan
        sd = float(cosines.std(ddof=1)) if n > 1 else math.nan
        says = (
            f"share of {n} dies with a cosine of {accuracy:g} or more; its interval by Wilson"
            " (1927)"
        )
        found += [
            Fact("yield", good / n, says, quantity, "share", error, low, high),
            Fact(
                "median_cosine",
                float(np.median(cosines)),
                "half of the dies are better",
                quantity,
                "cosine",
            ),
            Fact("worst_cosine", float(cosines.min()), "of all dies", quantity, "cosine"),
            Fact("cosine_sd", sd, "standard deviation of the cosine over the dies", quantity),
        ]
    return facts(found)
