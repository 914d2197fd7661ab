"""The study "training": does the chip learn the task, in how much chip time and energy, and how far
is it from ideal?

Several starts, each on a die and with a seed of its own, learn side by side; so does the exact
gradient, from the same starts. What is recorded along the way (exact errors, accuracies, alignment)
is computed outside the loop and costs the chip nothing.
"""

import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hardware.learning import OnChip, Written, source
from hardware.schedule import Course
from perturb.errors import InputError
from perturb.files import write_whole
from perturb.networks.boltzmann import Boltzmann
from perturb.networks.objective import Objective
from perturb.seeds import SCHEME
from perturb.training.loop import Exact, Plan, Source, State, begin, train
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from perturb.trial.readout import Reading
from reports.statistics import share_interval
from sims.data.classes import Classes, accuracy, balanced_accuracy
from sims.datasets import class_names, load_split
from sims.experiment.loading import to_toml
from sims.experiment.schema import Experiment, Measured
from sims.problem import (
    Array,
    Fact,
    Problem,
    Progress,
    ShouldStop,
    Stopped,
    Study,
    facts,
    warmed_up,
)
from sims.studies.training_theory import Limits, advice, predicted

AWAY = (
    1e4  # times the error at the start: a run that has diverged, though rounding may hold it there
)
DIGEST = 32  # bytes at the head of a file that keeps a training, of what follows
PIECES = 10  # of the updates between two records, so that an interruption is heard


@dataclass(frozen=True)
class Task:
    """What is learned. test: None if no patterns are held back. classes: without names if
    targets are numbers.
    """

    objective: Objective
    test: Objective | None
    classes: Classes

    @property
    def parts(self) -> list[tuple[str, str, Objective]]:
        """(how columns of it begin, its name, its objective) of the patterns learned and of
        those held back.
        """
        return [
            ("", "learned", self.objective),
            *([("test_", "held back", self.test)] if self.test else []),
        ]


def training(
    experiment: Experiment, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables advice, learning (a row per source, run and record), confusion and summary (facts);
    see `reports.frames`.
    """
    options = experiment.training
    plan = plan_of(experiment)
    task = _task(experiment, problem)
    _check(experiment, task)
    learning = contenders(experiment)
    W = np.array(
        [warmed_up(problem.network, task.objective, experiment, run) for run in range(options.runs)]
    )
    limits, advised = advice(
        experiment, task.objective, W[0], plan, _course(experiment, task, plan).schedule
    )
    listed = []  # all made before the first result: a setting that cannot be ends everything
    for name, settings, updates in learning:
        own = plan_of(settings)
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
        listed.append((name, made, own, updates, _course(experiment, task, own)))
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
            yield "confusion", confused.astype({"run": int, "count": int})
            yield "summary", facts(summary(table, experiment, limits, plan))
        if stopped:
            raise Stopped
    if problem.scratch:
        for path in problem.scratch.parent.glob(f"{problem.scratch.name}-*-{_key(experiment)}.npz"):
            path.unlink()


def contenders(experiment: Experiment) -> list[tuple[str, Experiment, int]]:
    """(name, experiment, updates) of everything that learns: the chip, others with as many
    evaluations, and the control.
    """
    options = experiment.training
    estimation = experiment.estimation
    listed: list[tuple[str, Experiment, int]] = []
    if options.source != "exact":
        plan = plan_of(experiment)
        listed.append((options.source, experiment, options.updates))
        for other in options.compare_with:
            changes: dict[str, Any] = other.model_dump(exclude_none=True, exclude={"label"})
            measured: dict[str, Any] = {
                key: changes.pop(key) for key in Measured.model_fields if key in changes
            }
            parts = {
                "estimation": estimation.model_copy(update=measured),
                "training": options.model_copy(update=changes),
            }
            settings = experiment.model_copy(update=parts)
            try:
                updates = plan_of(settings).updates_within(plan.evaluations(options.updates))
            except InputError as error:
                raise InputError(
                    f'training.compare_with, label = "{other.label}": {error}'
                ) from None
            if not updates:
                raise InputError(
                    f'training.compare_with, label = "{other.label}": a single update takes more'
                    f" than the {plan.evaluations(options.updates)} evaluations that there are:"
                    " raise training.updates"
                )
            listed.append((other.label, settings, updates))
    if options.control or options.source == "exact":
        own = (
            {}
            if options.control_eta is None or options.source == "exact"
            else {"eta": options.control_eta}
        )
        updates = (
            options.control_updates if options.source != "exact" else None
        ) or options.updates
        listed.append(
            (
                "exact",
                experiment.model_copy(update={"training": options.model_copy(update=own)}),
                updates,
            )
        )
    return listed


def _course(experiment: Experiment, task: Task, plan: Plan) -> Course:
    return Course(experiment.chip, task.objective, plan, experiment.training.waits)


def plan_of(experiment: Experiment) -> Plan:
    """[training], [estimation] and the error unit of the chip as a plan."""
    estimation = experiment.estimation
    unit = experiment.chip.error_unit
    return experiment.training.plan(
        method=METHODS[estimation.method],
        code=CODES[estimation.code],
        sigma=estimation.sigma,
        r=estimation.r,
        seed=experiment.run.seed,
        reading=Reading(unit.noise, unit.bits, unit.range),
    )


def _check(experiment: Experiment, task: Task) -> None:
    """InputError for a batch or a criterion that the task has not."""
    options = experiment.training
    S = task.objective.n_patterns
    for batch in (options.batch, *(other.batch or 0 for other in options.compare_with)):
        if batch > S:
            raise InputError(
                f"training.batch = {batch} but there are {S} patterns: lower it, or 0 for all"
            )
    if options.criterion.startswith("test") and task.test is None:
        raise InputError(
            f'training.criterion = "{options.criterion}" but no patterns are held back: set'
            f' data.test, or criterion = "{options.criterion.removeprefix("test_")}"'
        )
    if options.criterion.endswith("accuracy") and not task.classes.names:
        raise InputError(
            f'training.criterion = "{options.criterion}" but the targets of data.name ='
            f' "{experiment.data.name}" are no classes: set criterion ='
            f' "{"test_" * options.criterion.startswith("test")}error"'
        )


def _task(experiment: Experiment, problem: Problem) -> Task:
    network = problem.network
    if isinstance(network, Boltzmann):
        return Task(problem.objective, None, Classes(()))
    _, target, x_test, target_test = load_split(
        experiment.data, network.n_inputs, network.n_outputs
    )
    classes = Classes.of(target, network.error, class_names(experiment.data))
    return Task(
        problem.objective, network.objective(x_test, target_test) if len(x_test) else None, classes
    )


# ---- the loop and its records


def rows_of(
    name: str,
    source: Source,
    W: Array,
    plan: Plan,
    updates: int,
    experiment: Experiment,
    task: Task,
    course: Course,
    scratch: Path | None,
    progress: Progress,
) -> Iterator[tuple[list[dict], Array]]:
    """The rows of `learning` of one source, record by record, and the weights of the last (no rows
    between records, so that the caller can stop there).

    What was done is kept in a file beside the results, and taken up again from there: to the same
    bits.
    """
    kept = Kept(scratch, f"{name}-{_key(experiment)}", source)
    seeds = [experiment.seeds_of(run) for run in range(len(W))]
    state, rows, before = kept.read() or (begin(W, plan), [], W.copy())
    if rows:
        yield rows, before
    for time in _times(updates, experiment.training.records):
        if rows and time <= state.update:
            continue
        if time > state.update:
            for _ in train(source, state, time, max(1, (time - state.update) // PIECES)):
                progress(name, state.update, updates)
                yield [], before
        ended = bool((state.failed >= 0).all())
        new = [row | seeds[row["run"]] for row in records(name, state, before, plan, task, course)]
        for row, at_start in zip(new, rows, strict=False):
            row["diverged"] |= row["error"] > AWAY * at_start["error"]
        rows = rows + new
        before = state.w.copy()
        kept.write(state, rows, before)
        yield new, before
        if ended or all(row["diverged"] for row in new):
            return


def _times(updates: int, records: int) -> list[int]:
    """Updates at which records are made: half of them evenly spaced, half so in the logarithm,
    for what is learned soon.
    """
    even = np.linspace(0, updates, records // 2 + 1)
    soon = np.geomspace(1, updates, records - records // 2)
    return sorted({round(time) for time in (*even, *soon)})


def _key(experiment: Experiment) -> str:
    return hashlib.sha256(f"{SCHEME}\n{to_toml(experiment)}".encode()).hexdigest()[:16]


def records(
    name: str, state: State, before: Array, plan: Plan, task: Task, course: Course
) -> list[dict]:
    """A row per run, of its weights as they are. before: those at the last record."""
    rows = []
    exact = name == "exact"
    time_s = course.time_s(state.update)
    energy_j = course.energy_j(state.update)
    for run, w in enumerate(state.w):
        with np.errstate(all="ignore"):
            moved = w - before[run]
            towards = -task.objective.gradient(before[run]) if moved.any() else np.zeros_like(w)
            sizes = float(np.linalg.norm(moved) * np.linalg.norm(towards))
            ends: dict[str, float] = dict.fromkeys(ENDS, math.nan)
            for prefix, _, objective in task.parts:
                confusion = (
                    task.classes.confusion(objective, w) if task.classes.names else np.empty((0, 0))
                )
                ends |= {
                    f"{prefix}error": objective.error(w),
                    f"{prefix}accuracy": accuracy(confusion),
                }
                ends[f"{prefix}balanced_accuracy"] = balanced_accuracy(confusion)
            rows.append(
                {
                    "source": name,
                    "run": run,
                    "update": state.update,
                    "trials": 0 if exact else state.trial,
                    "evaluations": 0 if exact else state.evaluations,
                    "chip_time_s": math.nan if exact else time_s,
                    "energy_j": math.nan if exact else energy_j,
                    **ends,
                    "alignment": float(moved @ towards) / sizes if sizes > 0 else math.nan,
                    "rate": (
                        float(state.memory["eta"][run] * plan.eta)
                        if "eta" in state.memory
                        else plan.eta
                    ),
                    "diverged": bool(state.failed[run] >= 0 or not math.isfinite(ends["error"])),
                    "still": bool(state.update > 0 and not moved.any()),
                    "predicted_error": math.nan,
                }
            )
    return rows


CONFUSION = ["source", "run", "patterns", "truth", "classified", "count"]


def confusions(name: str, W: Array, task: Task) -> pd.DataFrame:
    """How often each class was taken for which by the weights of every run, the diagonal and
    what is not zero.
    """
    rows = []
    for run, w in enumerate(W):
        for _, part, objective in task.parts if task.classes.names else []:
            confusion = task.classes.confusion(objective, w)
            shown = (confusion > 0) | np.eye(len(confusion), dtype=bool)
            for i, j in zip(*np.nonzero(shown), strict=True):
                rows.append(
                    (
                        name,
                        run,
                        part,
                        task.classes.names[i],
                        task.classes.names[j],
                        int(confusion[i, j]),
                    )
                )
    return pd.DataFrame(rows, columns=CONFUSION)


class Kept:
    """The state and the rows so far, in a file with a digest, whole or not at all; nowhere,
    without a place for it.
    """

    def __init__(self, scratch: Path | None, name: str, source: Source):
        self.path = scratch.parent / f"{scratch.name}-{name}.npz" if scratch else None
        self.source = source

    def read(self) -> tuple[State, list[dict], Array] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        if _digest(content[DIGEST:]) != content[:DIGEST]:
            return None  # not of this program, or damaged: from the start then
        with np.load(io.BytesIO(content[DIGEST:]), allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        columns = {
            name.removeprefix("row."): array.tolist()
            for name, array in parts.items()
            if name.startswith("row.")
        }
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        state = State.of_arrays(
            {
                name.removeprefix("state."): array
                for name, array in parts.items()
                if name.startswith("state.")
            }
        )
        if state.update and isinstance(self.source, OnChip | Written):
            self.source.resume(state)
        return state, rows, parts["before"]

    def write(self, state: State, rows: list[dict], before: Array) -> None:
        if self.path is None:
            return
        parts = {f"state.{name}": array for name, array in state.arrays().items()}
        parts |= {f"row.{name}": np.array([row[name] for row in rows]) for name in rows[0]} | {
            "before": before
        }
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **parts)
        write_whole(self.path, _digest(content.getvalue()) + content.getvalue())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# ---- results


ENDS = {
    "error": "E on the patterns learned, at the end",
    "accuracy": "share of them classified rightly, at the end",
    "balanced_accuracy": "mean over the classes of the share classified rightly, at the end",
    "test_error": "E on the patterns held back, at the end",
    "test_accuracy": "share of them classified rightly, at the end",
    "test_balanced_accuracy": (
        "mean over the classes of the share of those held back classified rightly, at the end"
    ),
}
# column of learning: its measure, unit and meaning
SPENT = {
    "update": ("updates", "", "updates"),
    "evaluations": ("evaluations", "", "measurements of E"),
    "chip_time_s": ("chip_time", "s", "chip time"),
    "energy_j": ("energy", "J", "energy"),
}


def summary(table: pd.DataFrame, experiment: Experiment, limits: Limits, plan: Plan) -> list[Fact]:
    """Facts of every source: solved, what it had spent when it got there, and where it ended."""
    ends = table[table["update"] == table.groupby("source")["update"].transform("max")]
    names = list(dict.fromkeys(table["source"]))
    found = []
    for name in names:
        own = table[table["source"] == name]
        last = ends[ends["source"] == name]
        found += [
            *_goal(name, own, last, experiment),
            *_end(name, last),
            *_course_of(name, own, last, experiment),
        ]
    column = "test_accuracy" if ends["test_accuracy"].notna().any() else "error"
    both = ends.pivot(index="run", columns="source", values=column)
    for name in names[:-1] if "exact" in names else []:
        gap = (both["exact"] - both[name]).dropna()
        if len(gap):
            stderr = float(gap.std(ddof=1) / math.sqrt(len(gap))) if len(gap) > 1 else math.nan
            meaning = (
                f"{column.replace('_', ' ')} of the exact gradient less this, at the end, mean of"
                " runs from the same starts"
            )
            found.append(Fact("exact_less_this", float(gap.mean()), meaning, name, stderr=stderr))
    used = (
        f"; in use {plan.eta:g}"
        if plan.rate == "fixed" and plan.rule in ("plain", "momentum")
        else ""
    )
    found.append(
        Fact(
            "stable_learning_rate", limits.eta, f"of updates along g at the start, by theory{used}"
        )
    )
    return found


def _goal(
    name: str, own: pd.DataFrame, last: pd.DataFrame, experiment: Experiment
) -> Iterator[Fact]:
    """Whether a source got to the goal, and what it had spent then. last: its rows at the end."""
    options = experiment.training
    R = len(last)
    solved = int(reached(last, experiment).sum())
    sign = "<=" if options.criterion.endswith("error") else ">="
    low, high = share_interval(solved, R)
    meaning = (
        f"share of {R} runs with {options.criterion.replace('_', ' ')} {sign} {options.goal:g} at"
        " the end"
    )
    stderr = math.sqrt(solved * (R - solved) / R**3) or math.nan
    yield Fact("solved", solved / R, meaning, name, "share", stderr, low, high)
    first = own[reached(own, experiment)].groupby("run").first()
    yield Fact(
        "ever_solved", len(first) / R, "share of runs that were there at any record", name, "share"
    )
    for column, (measure, unit, what) in SPENT.items():
        if name == "exact" and column != "update":
            continue
        middle = float(first[column].median()) if len(first) else math.inf
        meaning = (
            f"{what}, median of the {len(first)} runs that ever got there, when first seen there"
        )
        yield Fact(f"{measure}_to_goal", middle, meaning, name, unit)
        yield Fact(measure, float(last[column].iloc[0]), f"{what}, of each run", name, unit)


def _end(name: str, last: pd.DataFrame) -> Iterator[Fact]:
    """Errors and accuracies of a source at the end."""
    for column, what in ENDS.items():
        values = last[column].dropna()
        if len(values):
            unit = "" if column.endswith("error") else "share"
            sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
            worst = float(values.min() if unit else values.max())
            yield Fact(
                column,
                float(values.mean()),
                f"{what}, mean of runs",
                name,
                unit,
                sd / math.sqrt(len(values)),
            )
            yield Fact(
                f"{column}_sd", sd, "its standard deviation over runs: starts and dies", name
            )
            yield Fact(f"{column}_worst", worst, "the worst of all runs", name, unit)
    if last["predicted_error"].notna().any():
        meaning = "E on the patterns learned at the end by theory of a quadratic, mean of runs"
        yield Fact("predicted_error", float(last["predicted_error"].mean()), meaning, name)


def _course_of(
    name: str, own: pd.DataFrame, last: pd.DataFrame, experiment: Experiment
) -> Iterator[Fact]:
    """How a source went on: runs that diverged or stand still, and where updates pointed."""
    if last["diverged"].any():
        yield Fact(
            "diverged",
            float(last["diverged"].mean()),
            "share of runs whose error ran away",
            name,
            "share",
        )
    still = last["still"] & ~last["diverged"] & ~reached(last, experiment)
    if still.any():
        meaning = (
            "share of runs short of the goal whose weights do not change any more, since the last"
            " record but one at least"
        )
        yield Fact("standing_still", float(still.mean()), meaning, name, "share")
    late = own[own["update"] > own["update"].max() / 2]["alignment"].dropna()
    if len(late) and name != "exact":
        meaning = "cosine of what was learned between records with -g, second half"
        yield Fact("alignment", float(late.mean()), meaning, name, "cosine")


def reached(rows: pd.DataFrame, experiment: Experiment) -> pd.Series:
    """Whether the goal is met, row by row."""
    options = experiment.training
    values = rows[options.criterion]
    return values <= options.goal if options.criterion.endswith("error") else values >= options.goal
