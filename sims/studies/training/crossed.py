"""Learning from the same starts on every one of several dies, all side by side."""

import math
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from hardware.params import ChipParams
from hardware.timing import TrainingTiming
from perturb.errors import InputError
from perturb.training.loop import Source, begin, train
from perturb.training.plan import Plan, State
from sims.experiment.schema import Setup
from sims.problem import Array, Fact, Problem, Progress, ShouldStop, starts_of, warmed_up
from sims.studies.dies import Dies
from sims.studies.training.options import Training
from sims.studies.training.records import AWAY, PIECES, Checkpoint, digest_of, times
from sims.studies.training.sharing import Helpers, Shared, shared
from sims.studies.training.summary import ENDS, SPENT, reached
from sims.studies.training.task import check, check_plan, course_of, plan_of, task_of
from sims.studies.training.trainable import Trainable
from sims.studies.training.variance import Mean, crossed_mean

TIMED_S = 0.1  # of a piece of learning, from which is said how long all of it takes
TO_GOAL = {
    "evaluations_to_goal": ("evaluations", "measurements of E"),
    "chip_time_to_goal_s": ("chip_time_s", "chip time"),
    "energy_to_goal_j": ("energy_j", "energy"),
}


class Learner(NamedTuple):
    """A chip that learns, its plan and its times."""

    chip: ChipParams
    source: Source
    plan: Plan
    course: TrainingTiming


class Crossed:
    """Learning from S starts on each of D dies, side by side: run d S + s is from start s on die d.

    Runs have perturbations and noise of their own, which are those of the same run on whatever
    chip: what differs between two chips is compared run by run. What chips have learned is saved
    in checkpoints, a file each. Processes that learn with this one end with the `with` block.
    """

    def __init__(self, experiment: Setup, problem: Problem):
        self.experiment = experiment
        self.options = experiment.options(Training)
        wanted = experiment.options(Dies)
        if self.options.source == "exact":
            raise InputError(
                'training.source = "exact" learns without a chip: set "batch" or "event"'
            )
        self.scratch = problem.scratch
        self.helpers = Helpers()
        self.D = wanted.count
        self.S = wanted.starts
        self.task = task_of(experiment, problem)
        check(experiment, self.task)
        starts = [
            warmed_up(w, self.task.objective, experiment)
            for w in starts_of(problem.network, experiment, self.S)
        ]
        W = np.tile(np.array(starts), (self.D, 1))
        self.trainable = Trainable.of(self.options, problem.network, W)
        # of what is trained
        self.W = self.trainable.w
        self.objective = self.trainable.of_runs(self.task.objective)
        self.first = self.objective.of_run(0)
        self.dies = np.repeat(np.arange(self.D), self.S).tolist()

    def __enter__(self) -> "Crossed":
        return self

    def __exit__(self, *_: object) -> None:
        self.helpers.give_up()

    def of(self, chip: ChipParams) -> Setup:
        """The experiment with another chip."""
        return self.experiment.model_copy(update={"chip": chip})

    def learner(self, chip: ChipParams) -> Learner:
        """A chip at the start of its learning; it calibrates itself, if that is asked for."""
        setup = self.of(chip)
        plan = plan_of(setup)
        if plan.calibrate:
            # once, at the first start: all runs learn by one plan
            plan = plan.calibrated(self.first, self.W[0], self.options.updates)
        check_plan("the chip", plan, self.options.updates)
        made = shared(setup, self.objective, plan, self.W, self.helpers, self.dies)
        return Learner(chip, made, plan, course_of(setup, self.first, plan))

    def checkpoint(self, name: str, learner: Learner) -> Checkpoint:
        """Of what the chip of this name has learned; its rows: when each run was first seen at the
        goal.
        """
        named = f"{name}-{digest_of(self.experiment)}"
        return Checkpoint(self.scratch, named, learner.source)

    def seconds(self, chips: Mapping[str, ChipParams]) -> float:
        """About how long these chips take for what they have not learned yet, one after another,
        from a short piece of the learning of each.
        """
        records = len(times(self.options.updates, self.options.records))
        # the first loads what it needs, and is not timed
        self.task.ends(self.trainable.starts[0])
        begun = time.perf_counter()
        # a record takes the errors and accuracies of every run
        self.task.ends(self.trainable.starts[0])
        looks = len(self.W) * records * (time.perf_counter() - begun)
        total = 0.0
        for name, chip in chips.items():
            learner = self.learner(chip)
            stored = self.checkpoint(name, learner).read()
            state = stored[0] if stored else begin(self.W, learner.plan)
            left = self.options.updates - state.update
            updates = 1
            # the first compiles, and is not timed
            learner.source.advance(state, updates)
            took = 0.0
            while took < TIMED_S and updates <= self.options.updates:
                begun = time.perf_counter()
                learner.source.advance(state, updates)
                took = time.perf_counter() - begun
                updates *= 2
            # of the last piece, which was half of that
            each = 2 * took / updates
            if isinstance(learner.source, Shared):
                each /= learner.source.speedup
            total += each * left + looks * left / self.options.updates
        return total

    def learn(
        self, chip: ChipParams, name: str, progress: Progress, should_stop: ShouldStop
    ) -> tuple[pd.DataFrame, bool]:
        """A row per run, of where it ends and what it had spent when it was first seen at the goal;
        and whether it was asked to stop before the end.
        """
        learner = self.learner(chip)
        checkpoint = self.checkpoint(name, learner)
        at_start = ends = self._ends(begin(self.W, learner.plan).result)
        state, rows = checkpoint.read() or (begin(self.W, learner.plan), [])
        updates = self.options.updates
        task, validation = self.task, None
        if task.validation:
            validation = self.trainable.of_runs(task.validation)
        # updates at which a run was first seen at the goal; -1: never
        first = np.array([row["first"] for row in rows] or [-1] * len(self.W))
        stopped = False
        for until in times(updates, self.options.records):
            # recorded before an interruption, but for what is seen at the end
            if until < state.update:
                continue
            piece = max(1, (until - state.update) // PIECES)
            for _ in train(learner.source, state, until, piece, validation=validation):
                progress(name, state.update, updates)
                if stopped := should_stop():
                    break
            # in the end every run gives what its best look saw
            ends = self._ends(state.best if state.update == updates else state.result)
            first[(first < 0) & reached(ends, self.experiment)] = state.update
            if stopped:
                break
            checkpoint.write(state, [{"first": int(update)} for update in first])
            # where all runs have ended, later records would be the same
            if not state.going.any():
                break
        # not `error > ...`: one that is not a number has run away, too
        diverged = ~(ends["error"] <= AWAY * at_start["error"]).to_numpy() | (state.failed >= 0)
        return self._rows(name, learner, state, first, ends, diverged), stopped

    def _ends(self, W: Array) -> pd.DataFrame:
        whole = self.trainable.whole(W)
        with np.errstate(all="ignore"):
            rows = [dict.fromkeys(ENDS, math.nan) | self.task.ends(w) for w in whole]
        return pd.DataFrame(rows)

    def _rows(
        self,
        name: str,
        learner: Learner,
        state: State,
        first: Array,
        ends: pd.DataFrame,
        diverged: Array,
    ) -> pd.DataFrame:
        solved = reached(ends, self.experiment).to_numpy()
        # the update at which a run stopped, spending nothing more; -1: it has not
        stops = state.memory.get("stopped", state.failed)
        rows = []
        for run, die in enumerate(self.dies):
            own = stops[run] >= 0 and state.failed[run] < 0
            done = int(stops[run]) if own else state.update
            start = run % self.S
            rows.append(
                {
                    "chip": name,
                    "die": self.experiment.seeds_of(die)["die"],
                    "start": start,
                    "solved": bool(solved[run]),
                    "ever_solved": bool(first[run] >= 0),
                    **dict(zip(TO_GOAL, _spent(learner, int(first[run])), strict=True)),
                    "evaluations": learner.plan.evaluations(done),
                    "chip_time_s": learner.course.time_s(done),
                    "energy_j": learner.course.energy_j(done),
                    **ends.iloc[run],
                    "diverged": bool(diverged[run]),
                    "run_seed": self.experiment.seeds_of(run)["run_seed"],
                    "start_seed": self.experiment.seeds_of(start)["start_seed"],
                }
            )
        return pd.DataFrame(rows)

    def by_die(self, values: pd.Series) -> Array:
        """Values of the runs as (D, S)."""
        return values.to_numpy(float).reshape(self.D, self.S)


def overall(progress: Progress, place: int, chips: int) -> Progress:
    """Progress of the chip at a place as that of all chips: the time left is that of all."""

    def advance(_: str, done: int, total: int) -> None:
        progress(f"learning, {chips} chips", place * total + done, chips * total)

    return advance


def _spent(learner: Learner, update: int) -> tuple[float, float, float]:
    """Evaluations, chip time and energy of so many updates; infinite of -1: never."""
    if update < 0:
        return math.inf, math.inf, math.inf
    return (
        learner.plan.evaluations(update),
        learner.course.time_s(update),
        learner.course.energy_j(update),
    )


def per_solved(runs: pd.DataFrame, crossed: Crossed) -> tuple[Array, Array]:
    """What every run has spent until it was first seen at a goal at which it ends, or in vain, in
    evaluations; and whether it is solved: (D, S) each.

    Sum over sum is the evaluations that a solved run takes when one begins anew after every run
    that is not (expected running time, Hansen et al. 2009).
    """
    spent = runs["evaluations"].where(~runs["solved"], runs["evaluations_to_goal"])
    return crossed.by_die(spent), crossed.by_die(runs["solved"])


class Times(NamedTuple):
    """How many times as much, with a standard error and the ends of a 95 % interval."""

    value: float
    stderr: float
    low: float
    high: float


def evaluations_over(runs: pd.DataFrame, other: pd.DataFrame, crossed: Crossed) -> Times:
    """Evaluations that a solved run takes on a chip, over those on another; NaN where none is
    solved on the other.

    The logarithm of a ratio of means has, to first order, the error of the mean of each run's own
    part, x/<x>; runs of both are from the same starts, on the same dies.
    """
    (spent, solved), (spent_other, solved_other) = (
        per_solved(each, crossed) for each in (runs, other)
    )
    nothing = math.nan, math.nan, math.nan
    if not solved_other.any():
        return Times(math.nan, *nothing)
    if not solved.any():
        return Times(math.inf, *nothing)
    parts = (
        spent / spent.mean()
        - solved / solved.mean()
        - spent_other / spent_other.mean()
        + solved_other / solved_other.mean()
    )
    ratio = (spent.mean() / solved.mean()) / (spent_other.mean() / solved_other.mean())
    found = crossed_mean(parts)
    if not found.stderr > 0:
        # the very same runs: exactly 1
        same = bool((parts == 0).all())
        return Times(ratio, 0.0, ratio, ratio) if same else Times(ratio, *nothing)
    # an interval of the logarithm: a factor to either side
    reach = math.exp(found.reach)
    return Times(ratio, ratio * found.stderr, ratio / reach, ratio * reach)


def share_of_runs(name: str, found: Mean, meaning: str, subject: str, least: float) -> Fact:
    """A share, or a difference of two (`least` = -1), with its interval."""
    reach = found.reach
    # max and min of NaN would depend on their order
    low, high = (
        (max(found.value - reach, least), min(found.value + reach, 1.0))
        if math.isfinite(reach)
        else (math.nan, math.nan)
    )
    # of values that are all alike, the next ones may differ
    stderr = found.stderr or math.nan
    return Fact(name, found.value, meaning, subject, "share", stderr, low, high)


def learned(subject: str, runs: pd.DataFrame, crossed: Crossed) -> Iterator[Fact]:
    """What came of the learning of one chip."""
    options = crossed.options
    most = "most" if options.criterion.endswith("error") else "least"
    R = len(runs)
    meaning = (
        f"share of {R} runs, {crossed.S} starts on each of {crossed.D} dies, that end with"
        f" {options.criterion.replace('_', ' ')} at {most} {options.goal:g}"
    )
    yield share_of_runs(
        "solved", crossed_mean(crossed.by_die(runs["solved"])), meaning, subject, 0.0
    )
    ever = runs["ever_solved"]
    yield Fact(
        "ever_solved",
        float(ever.mean()),
        "share of runs that were there at any record",
        subject,
        "share",
    )
    units = {column: unit for column, (_, unit, _) in SPENT.items()}
    for column, (spent, what) in TO_GOAL.items():
        middle = float(runs.loc[ever, column].median()) if ever.any() else math.inf
        meaning = (
            f"{what}, median of the {int(ever.sum())} runs that ever got there, when first seen"
            " there"
        )
        measure = column.removesuffix("_s").removesuffix("_j")
        yield Fact(measure, middle, meaning, subject, units[spent])
    spent_by, solved_by = per_solved(runs, crossed)
    total = float(spent_by.sum() / solved_by.sum()) if solved_by.any() else math.inf
    yield Fact(
        "evaluations_per_solved",
        total,
        "measurements of E of all runs, each until first at the goal at which it ends, over the"
        " runs that are solved",
        subject,
    )
    for column, what in ENDS.items():
        values = runs[column]
        # with as many patterns of each class the two accuracies are one
        double = "balanced" in column and values.equals(runs[column.replace("balanced_", "")])
        if values.notna().any() and not double:
            found = crossed_mean(crossed.by_die(values))
            unit = "" if column.endswith("error") else "share"
            yield Fact(
                column,
                found.value,
                f"{what}, mean of runs",
                subject,
                unit,
                found.stderr or math.nan,
            )
    if runs["diverged"].any():
        yield Fact(
            "diverged",
            float(runs["diverged"].mean()),
            "share of runs whose error ran away",
            subject,
            "share",
        )


def won(subject: str, runs: pd.DataFrame, base: pd.DataFrame, crossed: Crossed) -> Iterator[Fact]:
    """What a better chip wins over the one that `base` is of, run by run."""
    gained = crossed.by_die(runs["solved"]) - crossed.by_die(base["solved"])
    yield share_of_runs(
        "solved_more",
        crossed_mean(gained),
        "share of runs solved, less that of the chip as it is, from the same starts on the same"
        " dies",
        subject,
        -1.0,
    )
    times_ = evaluations_over(runs, base, crossed)
    yield Fact(
        "saved",
        1 - times_.value,
        "share of the evaluations that a solved run takes, saved over the chip as it is; negative:"
        " it takes more",
        subject,
        "",
        times_.stderr,
        1 - times_.high,
        1 - times_.low,
    )
