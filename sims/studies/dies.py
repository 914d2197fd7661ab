"""The study "dies": how much dies of one design differ."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from hardware.chip import Chip
from hardware.config import Table
from hardware.params import ChipParams
from perturb.seeds import nth_seed
from perturb.theory.comparison import compare_at
from perturb.theory.quadratic import Curvature
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
    # two points of the convergence, from which `trials_needed` extrapolates
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


def trials_needed(cosines: tuple[float, float], trials: tuple[int, int], accuracy: float) -> float:
    """Trials to a cosine, by 1/cosine^2 = a + b/trials (a bias of its own, noise that averages out)
    through two measured ones.

    Infinite where the bias alone keeps it below `accuracy`, or no cosine is positive.
    """
    if not min(cosines) > 0:
        return math.inf
    # cosine = bias-limited cosine / sqrt(1 + variance/K), squared and inverted: linear in 1/K
    first, last = (1 / c**2 for c in cosines)
    b = max((first - last) / (1 / trials[0] - 1 / trials[1]), 0.0)
    # no cosine is above 1: where noise says so, the straight line is turned about its later point
    a = max(last - b / trials[1], 1.0)
    b = max((last - a) * trials[1], 0.0)
    room = 1 / accuracy**2 - a
    return math.inf if room <= 0 else max(1.0, b / room)


def needed(each: list[OnDie], quantity: str, accuracy: float) -> float:
    """`trials_needed` by the mean cosines of dies."""
    early, late = (np.array([die.measured[quantity][i] for die in each]) for i in (0, 1))
    return trials_needed(
        (float(early[:, 1].mean()), float(late[:, 1].mean())),
        (int(early[0, 0]), int(late[0, 0])),
        accuracy,
    )


def jackknife(value: Callable[[list[int]], float], n: int) -> float:
    """The standard error of a value of n dies, from those without one of them at a time (Tukey
    1958); NaN where one of these is not known or infinite.
    """
    if n < 2:
        return math.nan
    parts = np.array([value([i for i in range(n) if i != out]) for out in range(n)])
    # infinity less infinity, where the wanted is never got to, is NaN
    with np.errstate(invalid="ignore"):
        return float(math.sqrt((n - 1) / n * ((parts - parts.mean()) ** 2).sum()))


def dies(experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop) -> Study:
    """Tables summary (facts: spread and yield) and dies: cosine and relative error of every die."""
    known = problem.curvatures(experiment.estimation.presentation)
    options = experiment.options(Dies)
    chip = experiment.made_chip()
    rows: list[tuple] = []
    each: list[OnDie] = []
    for die in range(options.count):
        raise_if_stopped(should_stop)
        found = on_die(experiment, problem, chip, known, die)
        each.append(found)
        rows += [
            (chip.of_run(die).die, quantity, *points[1], found.incidents)
            for quantity, points in found.measured.items()
        ]
        table = pd.DataFrame(
            rows, columns=["die", "quantity", "trials", "cosine", "relative_error", "incidents"]
        )
        yield "dies", table
        # after every die: an interrupted study has the spread of those that were done
        yield "summary", _spread(table, each, options.accuracy)
        progress("dies", die + 1, options.count)


def _needed_of(each: list[OnDie], quantity: str, accuracy: float, chosen: list[int]) -> float:
    return needed([each[i] for i in chosen], quantity, accuracy)


def _spread(table: pd.DataFrame, each: list[OnDie], accuracy: float) -> pd.DataFrame:
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
        trials = needed(each, quantity, accuracy)
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
            Fact(
                "trials_to_accuracy",
                trials,
                f"trials after which the mean of the dies has a cosine of {accuracy:g}, from those"
                " after a quarter and all of the trials; inf: never",
                quantity,
                stderr=jackknife(partial(_needed_of, each, quantity, accuracy), n),
            ),
        ]
    return facts(found)
