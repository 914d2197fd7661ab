"""The loop of a training and its records, and the checkpoint from which it is resumed."""

import hashlib
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hardware.timing import TrainingTiming
from perturb.files import write_whole
from perturb.seeds import SCHEME
from perturb.training.loop import Source, begin, train
from perturb.training.plan import Plan, State
from sims.experiment.schema import Setup
from sims.experiment.writing import identity
from sims.problem import Array, Progress
from sims.studies.training.options import Training
from sims.studies.training.summary import ENDS
from sims.studies.training.task import Task
from sims.studies.training.trainable import Trainable
from sims.studies.training.weights import Ended

AWAY = (
    1e4  # times the error at the start: a run that has diverged, though rounding may hold it there
)
DIGEST = 32  # bytes at the head of a checkpoint, of what follows
PIECES = 10  # of the updates between two records, so that an interruption is heard


def rows_of(
    name: str,
    source: Source,
    trainable: Trainable,
    plan: Plan,
    updates: int,
    experiment: Setup,
    task: Task,
    course: TrainingTiming,
    scratch: Path | None,
    progress: Progress,
) -> Iterator[tuple[list[dict], Ended]]:
    """The rows of `learning` of one source, record by record, and what the last ended with (no rows
    between records, so that the caller can stop there).

    What was done is saved in a checkpoint beside the results, and resumed from there: to the same
    bits.
    """
    checkpoint = Checkpoint(scratch, f"{name}-{digest_of(experiment)}", source)
    W = trainable.w
    seeds = [experiment.seeds_of(run) for run in range(len(W))]
    validation = trainable.of_runs(task.validation) if task.validation else None
    state, rows = checkpoint.read() or (begin(W, plan), [])
    # of the start too, of which a checkpoint is never made before its record
    at_once = state.best if state.update == updates else state.result
    ended = Ended.of(source, state, at_once, trainable)
    # at once: what was learned before an interruption is shown even if nothing follows
    if rows:
        yield rows, ended
    for time in times(updates, experiment.options(Training).records):
        # the last record has a row per run
        if rows and (not state.going.any() or all(row["diverged"] for row in rows[-len(W) :])):
            return
        # recorded before the interruption
        if rows and time <= state.update:
            continue
        if time > state.update:
            every = max(1, (time - state.update) // PIECES)
            for _ in train(source, state, time, every, validation=validation):
                progress(name, state.update, updates)
                yield [], ended
        # in the end every run gives what its best look saw
        w = state.best if time == updates else state.result
        made = records(name, state, w, ended.w, plan, task, course, trainable)
        new = [row | seeds[row["run"]] for row in made]
        # rows begin with those of the start, a row per run; at the start itself there are none
        for row, at_start in zip(new, rows, strict=False):
            row["diverged"] |= row["error"] > AWAY * at_start["error"]
        rows = rows + new
        ended = Ended.of(source, state, w, trainable)
        # before the rows go out: the caller may end here, and a kill loses no more than one record
        checkpoint.write(state, rows)
        yield new, ended


def times(updates: int, records: int) -> list[int]:
    """Updates at which records are made, the start and the end among them: first in intervals that
    grow by one factor, even in the logarithm, for what is learned soon; from half of the records on
    in equal ones.
    """
    if updates <= records:
        return list(range(updates + 1))
    # no interval is shorter than the one before: what is measured over an interval, such as the
    # alignment, would follow their lengths up and down
    power = np.minimum(np.arange(1, records + 1), (records + 1) // 2)
    low, high = 1.0, updates ** (1 / power[-1])
    for _ in range(60):  # to the last digit, by bisection
        factor = (low + high) / 2
        low, high = (low, factor) if np.sum(factor**power) > updates else (factor, high)
    ends = np.cumsum(low**power)
    ends = np.rint(ends * (updates / ends[-1])).astype(int)
    return [0, *np.cumsum(np.sort(np.diff(ends, prepend=0))).tolist()]


def forget(scratch: Path | None, experiment: Setup) -> None:
    """Remove the checkpoints of a study that has ended: until then a resumed one reads what has
    ended from there, too.
    """
    if scratch:
        for path in scratch.parent.glob(f"{scratch.name}-*-{digest_of(experiment)}.npz"):
            path.unlink()


def digest_of(experiment: Setup) -> str:
    # with another scheme of random streams it would not go on to the same bits
    return hashlib.sha256(f"{SCHEME}\n{identity(experiment)}".encode()).hexdigest()[:16]


def records(
    name: str,
    state: State,
    W: Array,
    before: Array,
    plan: Plan,
    task: Task,
    course: TrainingTiming,
    trainable: Trainable,
) -> list[dict]:
    """A row per run, of its trained weights W (R, m). before (R, n): all of them at the last
    record.
    """
    rows = []
    exact = name == "exact"
    # the update at which a run stopped, spending nothing more; -1: it has not
    stopped = state.memory.get("stopped", state.failed)
    # not where the updates led, but where they had been
    restored = (W != state.current).any(1)
    for run, w in enumerate(trainable.whole(W)):
        done = int(stopped[run]) if stopped[run] >= 0 and state.failed[run] < 0 else state.update
        with np.errstate(all="ignore"):
            moved = trainable.part(w - before[run])
            towards = np.zeros_like(moved)
            if moved.any():
                towards = trainable.part(-task.objective.gradient(before[run]))
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
                    "alignment": (
                        float(moved @ towards) / sizes
                        if sizes > 0 and not restored[run]
                        else math.nan
                    ),
                    "rate": (
                        float(state.memory["eta"][run] * plan.eta)
                        if "eta" in state.memory
                        else plan.eta
                    ),
                    "diverged": bool(state.failed[run] >= 0 or not math.isfinite(ends["error"])),
                    "still": bool(state.update > 0 and not moved.any() and not restored[run]),
                    "ended": int(stopped[run]) if state.failed[run] < 0 else -1,
                    "predicted_error": math.nan,
                }
            )
    return rows


class Checkpoint:
    """The state and the rows so far, in a file with a digest, whole or not at all; nowhere,
    without a place for it.
    """

    def __init__(self, scratch: Path | None, name: str, source: Source):
        self.path = scratch.parent / f"{scratch.name}-{name}.npz" if scratch else None
        self.source = source

    def read(self) -> tuple[State, list[dict]] | None:
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
        return state, rows

    def write(self, state: State, rows: list[dict]) -> None:
        if self.path is None:
            return
        parts = {f"state.{name}": array for name, array in state.arrays().items()}
        # a column an array, of texts too, so that no pickle is needed
        parts |= {f"row.{name}": np.array([row[name] for row in rows]) for name in rows[0]}
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **parts)
        write_whole(self.path, _digest(content.getvalue()) + content.getvalue())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
