"""The loop of a training and its records, and the checkpoint from which it is resumed."""

import hashlib
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from hardware.timing import TrainingTiming
from perturb.files import write_whole
from perturb.seeds import SCHEME
from perturb.training.loop import Source, begin, train
from perturb.training.plan import Plan, State
from sims.experiment.schema import Setup
from sims.experiment.writing import to_toml
from sims.problem import Array, Progress
from sims.studies.training.options import Training
from sims.studies.training.summary import ENDS
from sims.studies.training.task import Task

AWAY = (
    1e4  # times the error at the start: a run that has diverged, though rounding may hold it there
)
DIGEST = 32  # bytes at the head of a checkpoint, of what follows
PIECES = 10  # of the updates between two records, so that an interruption is heard


def rows_of(
    name: str,
    source: Source,
    W: Array,
    plan: Plan,
    updates: int,
    experiment: Setup,
    task: Task,
    course: TrainingTiming,
    scratch: Path | None,
    progress: Progress,
) -> Iterator[tuple[list[dict], Array]]:
    """The rows of `learning` of one source, record by record, and the weights of the last (no rows
    between records, so that the caller can stop there).

    What was done is saved in a checkpoint beside the results, and resumed from there: to the same
    bits.
    """
    checkpoint = Checkpoint(scratch, f"{name}-{digest_of(experiment)}", source)
    seeds = [experiment.seeds_of(run) for run in range(len(W))]
    state, rows, before = checkpoint.read() or (begin(W, plan), [], W.copy())
    # at once: what was learned before an interruption is shown even if nothing follows
    if rows:
        yield rows, before
    for time in times(updates, experiment.options(Training).records):
        # the last record has a row per run
        if rows and (not state.going.any() or all(row["diverged"] for row in rows[-len(W) :])):
            return
        # recorded before the interruption
        if rows and time <= state.update:
            continue
        if time > state.update:
            for _ in train(source, state, time, max(1, (time - state.update) // PIECES)):
                progress(name, state.update, updates)
                yield [], before
        new = [row | seeds[row["run"]] for row in records(name, state, before, plan, task, course)]
        # rows begin with those of the start, a row per run; at the start itself there are none
        for row, at_start in zip(new, rows, strict=False):
            row["diverged"] |= row["error"] > AWAY * at_start["error"]
        rows = rows + new
        # a copy: the state changes in place
        before = state.result.copy()
        # before the rows go out: the caller may end here, and a kill loses no more than one record
        checkpoint.write(state, rows, before)
        yield new, before


def times(updates: int, records: int) -> list[int]:
    """Updates at which records are made: half of them evenly spaced, half so in the logarithm,
    for what is learned soon.
    """
    even = np.linspace(0, updates, records // 2 + 1)
    soon = np.geomspace(1, updates, records - records // 2)
    return sorted({round(time) for time in (*even, *soon)})


def digest_of(experiment: Setup) -> str:
    # with another scheme of random streams it would not go on to the same bits
    return hashlib.sha256(f"{SCHEME}\n{to_toml(experiment)}".encode()).hexdigest()[:16]


def records(
    name: str, state: State, before: Array, plan: Plan, task: Task, course: TrainingTiming
) -> list[dict]:
    """A row per run, of its weights as they are. before: those at the last record."""
    rows = []
    exact = name == "exact"
    # the update at which a run stopped, spending nothing more; -1: it has not
    stopped = state.memory.get("stopped", state.failed)
    for run, w in enumerate(state.result):
        done = int(stopped[run]) if stopped[run] >= 0 and state.failed[run] < 0 else state.update
        with np.errstate(all="ignore"):
            moved = w - before[run]
            towards = -task.objective.gradient(before[run]) if moved.any() else np.zeros_like(w)
            sizes = float(np.linalg.norm(moved) * np.linalg.norm(towards))
            ends = dict.fromkeys(ENDS, math.nan) | task.ends(w)
            # NaN of an alignment: nothing moved, or the gradient is zero or not finite
            rows.append(
                {
                    "source": name,
                    "run": run,
                    "update": state.update,
                    "trials": 0 if exact else done * plan.trials_of_an_update,
                    "evaluations": 0 if exact else plan.evaluations(done),
                    "chip_time_s": math.nan if exact else course.time_s(done),
                    "energy_j": math.nan if exact else course.energy_j(done),
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


class Checkpoint:
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
        if state.update:
            self.source.resume(state)
        return state, rows, parts["before"]

    def write(self, state: State, rows: list[dict], before: Array) -> None:
        if self.path is None:
            return
        parts = {f"state.{name}": array for name, array in state.arrays().items()}
        # a column an array, of texts too, so that no pickle is needed
        parts |= {f"row.{name}": np.array([row[name] for row in rows]) for name in rows[0]} | {
            "before": before
        }
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **parts)
        write_whole(self.path, _digest(content.getvalue()) + content.getvalue())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
