"""The study "learning-dies": how much dies of one design differ in what they learn."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from hardware.params import imperfections
from reports.statistics import share_interval
from reports.vocabulary import DESIGN, IDEAL
from sims.experiment.schema import Setup
from sims.problem import Fact, Problem, Progress, ShouldStop, Stopped, Study, facts
from sims.studies.ablation import without
from sims.studies.dies import Dies
from sims.studies.training.crossed import Crossed, learned, overall, won
from sims.studies.training.records import forget
from sims.studies.training.variance import Share, shares
from sims.terminal import duration


def learning_dies(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables runs (each start on each die, of the design and of the ideal chip), dies (of the
    design) and summary (facts).

    Starts are the same on every die, so that what dies make and what starts make is told apart; the
    ideal chip learns in as many runs, with the same starts, perturbations and noise.
    """
    with Crossed(experiment, problem) as crossed:
        yield from _compared(crossed, problem, progress, should_stop)
    forget(problem.scratch, experiment)


def _compared(
    crossed: Crossed, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    experiment = crossed.experiment
    chip = experiment.chip
    chips = {DESIGN: chip}
    # of an ideal design the dies are all alike: it is its own control
    if found_in := imperfections(chip):
        chips[IDEAL] = without(chip, found_in)
    problem.say(
        f"{len(chips)} x {len(crossed.W)} runs, {crossed.S} starts on each of {crossed.D} dies:"
        f" about {duration(crossed.seconds(chips))}"
        " (fewer: dies.count, dies.starts, training.updates)"
    )
    runs = pd.DataFrame()
    found: list[Fact] = []
    for place, (name, one) in enumerate(chips.items()):
        told = overall(progress, place, len(chips))
        own, stopped = crossed.learn(one, name, told, should_stop)
        runs = pd.concat([runs, own], ignore_index=True)
        found += learned(name, own, crossed)
        if name == DESIGN:
            each = _each_die(own, crossed)
            found += [*_yield(each, experiment), *_spread(own, crossed)]
            yield "dies", each
            base = own
        # of runs that all ended early or late alike
        elif not stopped:
            found += won(name, own, base, crossed)
        yield "runs", runs
        yield "summary", facts(found)
        if stopped:
            raise Stopped


def _each_die(runs: pd.DataFrame, crossed: Crossed) -> pd.DataFrame:
    """A row per die: how many of its starts it solves, and its mean error."""
    rows = []
    for die, own in runs.groupby("die", sort=False):
        solved = int(own["solved"].sum())
        low, high = share_interval(solved, crossed.S, "wilson")
        rows.append(
            {
                "die": die,
                "starts": crossed.S,
                "solved": solved / crossed.S,
                "solved_low": low,
                "solved_high": high,
                **{name: float(own[name].mean()) for name in ("error", "test_accuracy")},
                "evaluations_to_goal": float(
                    own.loc[own["ever_solved"], "evaluations_to_goal"].median()
                    if own["ever_solved"].any()
                    else math.inf
                ),
            }
        )
    return pd.DataFrame(rows)


def _yield(each: pd.DataFrame, experiment: Setup) -> Iterator[Fact]:
    wanted = experiment.options(Dies).solved
    n = len(each)
    good = int((each["solved"] >= wanted).sum())
    low, high = share_interval(good, n, "wilson")
    says = (
        f"share of {n} dies that solve at least {wanted:.0%} of the starts; its interval by Wilson"
        " (1927)"
    )
    # of none or of all, the interval alone says how sure it is
    stderr = math.sqrt(good * (n - good) / n**3) or math.nan
    yield Fact("yield", good / n, says, DESIGN, "share", stderr, low, high)


def _spread(runs: pd.DataFrame, crossed: Crossed) -> Iterator[Fact]:
    """What makes the results of runs differ: dies, starts, and the rest."""
    criterion = crossed.options.criterion
    of_errors = criterion.endswith("error")
    values = crossed.by_die(runs[criterion])
    called = criterion.replace("_", " ")
    if of_errors:
        # runs end at errors that are orders of magnitude apart
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log10(values)
        called = f"log10 of {called}"
    dies, starts, rest = shares(values)
    yield from _parts("dies", dies, f"{called} at the end, from the same start")
    yield from _parts("starts", starts, f"{called} at the end, on the same die")
    yield Fact(
        "spread",
        rest,
        f"standard deviation of {called} at the end, of the same start on the same die: noise, and"
        " what a die does to one start alone",
        "rest",
        stderr=math.nan,
    )


def _parts(subject: str, found: Share, of: str) -> Iterator[Fact]:
    yield Fact(
        "variance_share",
        found.value,
        f"share of the variance of {of}, that {subject} make; its interval for normal parts (Searle"
        " 1971)",
        subject,
        "share",
        math.nan,
        found.low,
        found.high,
    )
    yield Fact(
        "spread",
        found.sd,
        f"standard deviation between {subject} of {of}",
        subject,
        stderr=math.nan,
    )
