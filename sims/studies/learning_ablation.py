"""The study "learning-ablation": what each imperfection of a chip costs its learning."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from hardware.on_chip import on_chip
from hardware.params import ChipParams, imperfections
from perturb.errors import InputError
from perturb.training.loop import begin
from perturb.training.plan import IN_LOOP
from perturb.training.rules import RULES
from reports.vocabulary import ALL, ALL_BUT, IDEAL, ONLY
from sims.experiment.schema import Setup
from sims.problem import Array, Fact, Problem, Progress, ShouldStop, Stopped, Study, facts
from sims.studies.ablation import without
from sims.studies.training.crossed import Crossed, evaluations_over, learned, overall, won
from sims.studies.training.records import forget
from sims.studies.training.task import plan_of
from sims.terminal import duration

LOOKED = 8  # updates after which an imperfection that the chip's learning meets is seen
SLIGHT = 1e-4  # of the weights: what changes them by less in all updates is not there
# what is met now and then, or late
SELDOM = (
    "weights.stuck_fraction",
    "weights.dead_fraction",
    "neuron.saturation",
    "bus.drop_probability",
    "bus.dE_range",
    "bus.s_range",
    "synapse.sum_range",
    "faults.dying_fraction",
    "faults.tile",
)
# what is nothing by itself: sums of parts are the sum, unless they are converted or drop
BESIDE_OTHERS = ("array.rows", "array.columns")
OF_PRODUCT = ("summing_line.", "bus.s_range")  # what makes and carries s = dw.v


class Column(NamedTuple):
    """A chip with some of the imperfections, of a group of `reports.vocabulary`."""

    group: str
    imperfection: str
    chip: ChipParams

    @property
    def name(self) -> str:
        return f"{self.group} {self.imperfection}".strip()


def learning_ablation(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables runs (of every chip, each start on each die) and summary (facts): the ideal chip, the
    chip as it is, and for each of k imperfections the chip without it and with it alone.

    2 + 2 k chips learn from the same starts on the same dies with the same
    perturbations and noise, so that they are compared run by run. An imperfection that this
    learning does not meet, such as of the line that makes s = dw.v where no rule asks for z, has
    no row.
    """
    with Crossed(experiment, problem) as crossed:
        yield from _compared(crossed, problem, progress, should_stop)
    forget(problem.scratch, experiment)


def _compared(
    crossed: Crossed, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    chip = crossed.experiment.chip
    found = imperfections(chip)
    if not found:
        raise InputError(
            "chip has no imperfection to take away: give it some, such as chip.error_unit.noise ="
            " 1e-3"
        )
    met = [key for key in found if _is_met(crossed, chip, found, key)]
    if not met:
        raise InputError(
            f"chip: learning meets none of its imperfections ({', '.join(found)}): give it others,"
            " such as chip.error_unit.noise = 1e-3"
        )
    chip = without(chip, [key for key in found if key not in met])
    columns = [Column(ALL, "", chip), Column(IDEAL, "", without(chip, met))]
    for key in met:
        columns.append(Column(ALL_BUT, key, without(chip, [key])))
        columns.append(Column(ONLY, key, without(chip, [other for other in met if other != key])))
    # of one imperfection alone: that one is all, and all but it is the ideal chip
    different = {
        column.name: column.chip
        for place, column in enumerate(columns)
        if column.chip not in [other.chip for other in columns[:place]]
    }
    problem.say(
        f"{len(different)} chips x {len(crossed.W)} runs, {crossed.S} starts on each of"
        f" {crossed.D} dies, {crossed.options.updates:,} updates: about"
        f" {duration(crossed.seconds(different))}"
        " (fewer: dies.count, dies.starts, training.updates)"
    )
    runs: dict[str, pd.DataFrame] = {}
    for column in columns:
        same = [other.name for other in columns if other.name in runs and other.chip == column.chip]
        if same:
            runs[column.name] = runs[same[0]].assign(chip=column.name)
        else:
            told = overall(progress, list(different).index(column.name), len(different))
            own, stopped = crossed.learn(column.chip, column.name, told, should_stop)
            if stopped:
                # not as far as the others
                raise Stopped
            runs[column.name] = own
        yield "runs", pd.concat(runs.values(), ignore_index=True)
        yield "summary", facts(_facts(columns[: len(runs)], runs, crossed))


def _is_met(crossed: Crossed, chip: ChipParams, found: list[str], key: str) -> bool:
    """Whether a chip with this imperfection alone learns otherwise than the ideal one does; of
    those BESIDE_OTHERS, whether the chip does without it.
    """
    plan = plan_of(crossed.experiment)
    if not RULES[plan.rule].z and key.startswith(OF_PRODUCT):
        return False
    if key in SELDOM:
        return True
    ends = []
    alone = (found, [other for other in found if other != key])
    for keys in ([], [key]) if key in BESIDE_OTHERS else alone:
        setup = crossed.of(without(chip, keys))
        # both by the chip's own trials: kernels round otherwise. What those do not know
        # is no imperfection
        plan = plan_of(
            setup.model_copy(
                update={
                    "training": crossed.options.model_copy(
                        update=dict.fromkeys(IN_LOOP, 0) | {"calibrate": 0}
                    )
                }
            )
        )
        state = begin(crossed.W, plan)
        events = crossed.options.source == "event"
        made = on_chip(
            setup.made_chip(),
            crossed.objective,
            plan,
            crossed.W,
            events,
            crossed.options.waits,
            crossed.dies,
        )
        made.advance(state, LOOKED)
        ends.append((state.w, made.timing.time_s(LOOKED), made.timing.energy_j(LOOKED)))
    return _differ(ends[0], ends[1], crossed.options.updates)


def _differ(
    one: tuple[Array, float, float], other: tuple[Array, float, float], updates: int
) -> bool:
    (w, *spent), (w_other, *spent_other) = one, other
    if not np.allclose(spent, spent_other, rtol=1e-9, atol=0.0):
        return True
    # as little as that, in each of all updates
    slight = SLIGHT * LOOKED / updates * float(np.abs(w).max())
    # NaN, too, is a difference
    return not bool((np.abs(w - w_other) <= slight).all())


def _facts(columns: list[Column], runs: dict[str, pd.DataFrame], crossed: Crossed) -> list[Fact]:
    """In the order of the columns; what is won over the chip as it is, what each costs over the
    ideal one.
    """
    found: list[Fact] = []
    for column in columns:
        own = runs[column.name]
        found += learned(column.name, own, crossed)
        if column.group in (IDEAL, ALL_BUT):
            found += won(column.name, own, runs[ALL], crossed)
        if column.group in (ALL, ONLY) and IDEAL in runs:
            cost = evaluations_over(own, runs[IDEAL], crossed)
            found.append(
                Fact(
                    "cost",
                    cost.value,
                    "evaluations that a solved run takes, in those on the ideal chip",
                    column.name,
                    "",
                    cost.stderr,
                    cost.low,
                    cost.high,
                )
            )
    return found
