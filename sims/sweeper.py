"""Sweeps: many runs of one experiment, with keys varied and seeds repeated, whose results are kept as they come."""

import hashlib
import json
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pandas as pd
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hardware.config import Table, flat, plain, validated
from hardware.params import chip_names
from perturb.errors import InputError
from perturb.seeds import SCHEME, nth_seed
from perturb.threads import n_threads
from sims.crews import Cluster, Crew, Here, Processes, versions
from sims.designs import Point, Range, points, rounded, toml, values_of
from sims.experiment.loading import changed, experiment_from, read_experiment, with_digest
from sims.experiment.schema import Experiment, Sweep
from sims.runner import origin
from sims.sweep_results import load_sweep
from sims.sweep_store import Outcome, Row, Store


class Told(NamedTuple):
    """What is said when a cell has ended. rate: cells/s since this process began; left_s: time left at that rate."""

    row: Row
    outcome: Outcome
    done: int
    failed: int
    cells: int
    rate: float
    left_s: float


class _File(Table):
    sweep: Sweep = Sweep()


@dataclass(frozen=True)
class Plan:
    """Every cell of a sweep, before anything runs. Cell p * repeats + r is repeat r of point p, with the
    run.seed `seeds.nth_seed` of "repeat"."""

    name: str  # of the experiment, as it was given
    source: str  # the same in messages
    data: dict[str, Any]
    folder: Path
    set: Mapping[str, object]
    sweep: Sweep
    points: list[Point]
    digests: list[str]
    seeds: list[int]
    given: list[dict[str, int]]  # the seeds that keys give: they are the same in all repeats of a point

    def __len__(self) -> int:
        return len(self.points) * self.sweep.repeats

    def row(self, cell: int) -> Row:
        point, repeat = divmod(cell, self.sweep.repeats)
        return Row(cell, self.points[point], repeat, nth_seed(self.seeds[point], "repeat", repeat), self.digests[point])

    def experiment(self, row: Row) -> Experiment:
        return experiment_from(*self._contents({**row.parameters, "run.seed": row.seed}))

    def _contents(self, point: Point) -> tuple[dict[str, Any], str, Path]:
        data, folder = changed(self.data, self.folder, point)
        return data, self.source, folder

    def record(self) -> dict[str, Any]:
        """What the store keeps of it, and compares when the sweep goes on."""
        first = self.experiment(self.row(0)).model_dump(mode="json")
        tables = {
            name: {key: _told(key, spec) for key, spec in flat(getattr(self.sweep, name)).items()} for name in ("vary", "zip")
        }
        drawn = any(isinstance(values, Range) for values in tables["vary"].values())
        rest = self.sweep.model_dump(include={"repeats", "keep"} | ({"design", "samples", "seed"} if drawn else {*()}))
        settings = {key: toml(key, plain(value)) for key, value in self.set.items()}
        record: dict[str, Any] = {
            "experiment": first,
            "sweep": {**tables, **rest},
            "versions": versions(),
            "name": self.name,
            "set": settings,
        }
        record["origin"] = origin()
        same = all(given == self.given[0] for given in self.given)
        record["seeds"], record["given"] = SCHEME, self.given[:1] if same else self.given
        record["meanings"] = {key: _meaning(key) for table in tables.values() for key in table}
        return json.loads(json.dumps(record, default=lambda array: array.tolist()))


def plan_sweep(
    name_or_path: str | Path, set: Mapping[str, object] | None = None, changes: Mapping[str, Any] | None = None
) -> Plan:
    """The plan of a sweep: [sweep] of the experiment file, with `changes` to it (vary, zip, repeats, ...; keys of vary and zip
    are added to those of the file). InputError if any of its cells has a mistake in its keys or values."""
    settings = dict(set or {})
    data, source, folder = read_experiment(name_or_path)
    data, folder = changed(data, folder, settings)
    sweep = _merged(data.pop("sweep", {}), source, folder, changes or {})
    if "data.file" not in {**flat(sweep.vary), **flat(sweep.zip)}:
        data = with_digest(data)  # of all cells, also those that begin when it has changed
    chosen = points(sweep, _is_whole)
    plan = Plan(str(name_or_path), source, data, folder, settings, sweep, chosen, [], [], [])
    _check_varied(plan)
    seen: dict[str, Point] = {}
    for point in chosen:
        experiment = experiment_from(*plan._contents(point))
        digest = hashlib.sha256(experiment.model_dump_json().encode()).hexdigest()[:16]
        if digest in seen:
            raise InputError(f"{source}: two points are the same experiment ({_said(seen[digest])}; {_said(point)}): remove one")
        seen[digest] = point
        plan.digests.append(digest)
        plan.seeds.append(experiment.run.seed)
        plan.given.append(experiment.given_seeds())
    return plan


def run_sweep(
    name_or_path: str | Path,
    vary: Mapping[str, Any] | None = None,
    repeats: int | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    *,
    set: Mapping[str, object] | None = None,
    zip: Mapping[str, Any] | None = None,
    design: str | None = None,
    samples: int | None = None,
    keep: bool | None = None,
    retry: bool = False,
    told: Callable[[Told], None] = lambda told: None,
) -> pd.DataFrame:
    """Run an experiment at every point and repeat; the summaries of all cells that are done: varied keys, repeat, seed, summary.

    vary: keys to lists, or to texts such as "logspace:-5:-1:9" (`designs.values_of`); of several keys every combination. zip:
    keys whose lists go together. Ranges ("uniform:0:1") are drawn from together, `samples` points of a `design` ("sobol",
    "latin-hypercube"). What is not given is as in [sweep] of the file. set: fixed keys, as of `run_experiment`. Repeat 0 of a
    point has its run.seed, the others have seeds derived from that, so that all points share their seeds. With run.seed change
    perturbations, noise, and whatever has no key of its own: starts (weights.seed), direction (direction.seed), die (chip.die).

    out: the sweep directory; the same call again goes on where it ended, and gives the same frame; another sweep there is an
    InputError. None: a directory that is removed in the end. workers: processes that share the cores (None: one per core; 0:
    none, in this process); cluster: the address of a Dask scheduler instead. The numbers do not depend on them, times of this
    computer (wall_time_s) apart. keep: store the other tables of every run too, see `load_sweep`. retry: run failed cells again.
    Cells that failed are listed in `.attrs["failed"]`, each a dictionary with its error and the command that replays it.
    """
    options = {"repeats": repeats, "design": design, "samples": samples, "keep": keep, "vary": vary, "zip": zip}
    plan = plan_sweep(name_or_path, set, {key: value for key, value in options.items() if value is not None})
    with tempfile.TemporaryDirectory() if out is None else nullcontext(out) as directory:
        sweep(plan, Path(directory), crew(workers, cluster, len(plan)), retry, told)
        return load_sweep(directory)


def crew(workers: int | None, cluster: str | None, cells: int) -> Crew:
    """Where the cells run."""
    if cluster is not None:
        if workers is not None:
            raise InputError(
                f"workers = {workers} does not go with cluster = {cluster}, which has workers of its own: remove one"
            )
        return Cluster(cluster)
    if workers is not None and not 0 <= workers <= 10_000:
        raise InputError(f"workers = {workers} must lie between 0 (in this process) and 10000: about the number of cores is best")
    if workers == 0:
        return Here()
    return Processes(min(n_threads() if workers is None else workers, cells))


def sweep(plan: Plan, directory: Path, crew: Crew, retry: bool, told: Callable[[Told], None]) -> None:
    """Run every cell of the plan that has no result yet; whatever ends the sweep, the store has what was done."""
    with Store(directory, plan.record(), map(plan.row, range(len(plan)))) as store:
        ended = store.statuses()
        waiting = deque(cell for cell in range(len(plan)) if cell not in ended or (retry and ended[cell] == "failed"))
        if not waiting:
            return
        counts = Counter(status for cell, status in ended.items() if not (retry and status == "failed"))
        count, begun = len(waiting), time.monotonic()
        with crew:
            while waiting or crew.busy:
                while waiting and crew.free:
                    row = plan.row(waiting.popleft())
                    crew.start(row.cell, plan.experiment(row), plan.sweep.keep)
                for cell, outcome in crew.wait():
                    store.add(cell, outcome)
                    counts[outcome.status] += 1
                    left = len(plan) - counts.total()
                    rate = (count - left) / (time.monotonic() - begun)
                    told(Told(plan.row(cell), outcome, counts["done"], counts["failed"], len(plan), rate, left / rate))


def _merged(table: Any, source: str, folder: Path, changes: Mapping[str, Any]) -> Sweep:
    """[sweep] of a file with changes; its paths of chips and data, relative to the file, are made such that they are not."""
    given = validated(_File, {"sweep": table}, source).sweep
    both: dict[str, Any] = {**given.model_dump(), **changes}
    for name in ("vary", "zip"):
        own = flat(getattr(given, name))
        for key in ("chip.preset", "data.file"):
            if key in own:
                own[key] = [
                    value if not isinstance(value, str) or value in chip_names() else (folder / value).as_posix()
                    for value in values_of(key, own[key])
                ]
        more = changes.get(name, {})
        if not isinstance(more, Mapping):
            raise InputError(f"{name} = {more!r} must be a dictionary of keys and their values")
        both[name] = {**own, **more}
    return validated(_File, {"sweep": both}, source).sweep


def _check_varied(plan: Plan) -> None:
    keys = [*flat(plan.sweep.vary), *flat(plan.sweep.zip)]
    if not keys and plan.sweep.repeats == 1:
        raise InputError(f"{plan.source}: nothing is varied: give --vary KEY=SPEC, --repeats or a table [sweep]")
    for key in keys:
        if key in plan.set:
            raise InputError(f"{key}: is set and varied: leave one of them out")
        if key.partition(".")[0] == "sweep":
            raise InputError(f"{key}: is no key of a run: vary others")
        if key in ("name", "description"):
            raise InputError(f"{key}: changes nothing of what is run: vary others")


def _field(key: str) -> FieldInfo | None:
    """What an experiment says of a key; None of one inside a table without fixed keys."""
    model: Any = Experiment
    field = None
    for name in key.split("."):
        if model is None or name not in model.model_fields:
            return None
        field = model.model_fields[name]
        kinds = _kinds(field.annotation)
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return field


def _is_whole(key: str) -> bool:
    """Whether the key takes whole numbers only."""
    field = _field(key)
    kinds = _kinds(field.annotation) if field else []
    return int in kinds and float not in kinds


def _told(key: str, spec: Any) -> Any:
    """The values of a key as its cells have them, or the range that they are drawn from."""
    values = values_of(key, spec)
    return values if isinstance(values, Range) else rounded(values, _is_whole(key))


def _meaning(key: str) -> str:
    """What the key is, and its unit."""
    field = _field(key)
    return (field.description or "") if field else ""


def _kinds(annotation: Any) -> list[Any]:
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]


def _said(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={toml(key, value)}" for key, value in point.items())
