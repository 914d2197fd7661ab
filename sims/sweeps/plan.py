"""The plan of a sweep: every cell, before anything runs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hardware.config import Table, validated
from hardware.marks import ZERO_IS_OFF
from hardware.params import chip_names
from perturb.errors import InputError
from perturb.seeds import SCHEME, nth_seed
from perturb.settings import flat, plain, toml
from reports.store.sweep_database import Row
from sims.experiment.experiment import Experiment
from sims.experiment.loading import changed, experiment_from, read_experiment, with_digest
from sims.experiment.paths import FILES, PATHS, changed_path
from sims.experiment.schema import STARTS, Sweep, seeds_of
from sims.experiment.unused import warn_of_unused
from sims.runner import origin
from sims.studies import DIE, DIRECTION, START, STUDIES
from sims.sweeps.design import Point, Range, points, rounded, values_of
from sims.sweeps.workers import versions


class _File(Table):
    sweep: Sweep = Sweep()


@dataclass(frozen=True)
class Plan:
    """Every cell of a sweep, before anything runs. Cell p * repeats + r is repeat r of point p,
    with the run.seed `seeds.nth_seed` of "repeat".
    """

    name: str  # of the experiment, as it was given
    source: str  # the same in messages
    data: dict[str, Any]
    folder: Path
    set: Mapping[str, object]
    sweep: Sweep
    points: list[Point]
    digests: list[str]
    seeds: list[int]
    # the seeds that keys give: they are the same in all repeats of a point
    given: list[dict[str, int]]

    def __len__(self) -> int:
        return len(self.points) * self.sweep.repeats

    def add(self, point: Point) -> None:
        """Check a point and put it behind the others."""
        experiment = experiment_from(*self._contents(point))
        text = experiment.model_dump_json()
        self.points.append(point)
        self.digests.append(hashlib.sha256(text.encode()).hexdigest()[:16])
        self.seeds.append(experiment.run.seed)
        self.given.append(experiment.given_seeds())

    def row(self, cell: int) -> Row:
        point, repeat = divmod(cell, self.sweep.repeats)
        seed = nth_seed(self.seeds[point], "repeat", repeat)
        seeds = seeds_of(seed, self.given[point])
        del seeds["run_seed"]
        return Row(cell, self.points[point], repeat, seed, seeds, self.digests[point])

    def experiment(self, row: Row) -> Experiment:
        return experiment_from(*self._contents({**row.parameters, "run.seed": row.seed}))

    def _contents(self, point: Point) -> tuple[dict[str, Any], str, Path]:
        data, folder = changed(self.data, self.folder, point)
        return data, self.source, folder

    def record(self) -> dict[str, Any]:
        """What the store holds of it, and compares when the sweep goes on."""
        # what all cells have in common; the varied keys are beside it
        first = self.experiment(self.row(0)).model_dump(mode="json")
        tables = {
            name: {key: _stored(key, spec) for key, spec in flat(getattr(self.sweep, name)).items()}
            for name in ("vary", "zip")
        }
        drawn = any(isinstance(values, Range) for values in tables["vary"].values())
        rest = self.sweep.model_dump(
            include={"repeats", "keep"} | ({"design", "samples", "seed"} if drawn else {*()})
        )
        record: dict[str, Any] = {
            "experiment": first,
            "sweep": {**tables, **rest},
            "versions": {**versions(), "seeds": SCHEME},
            "name": self.name,
            "set": {key: plain(value) for key, value in self.set.items()},
            "origin": origin(),
            "repeats": self._repeats(),
            "meanings": {key: _meaning(key) for table in tables.values() for key in table},
            "off": [key for table in tables.values() for key in table if _has_off(key)],
        }
        # as it comes back from the store, so that both can be compared
        return json.loads(json.dumps(record, default=lambda array: array.tolist()))

    def _repeats(self) -> dict[str, list[str]]:
        """What is another one in every repeat, and which keys make something the same in all."""
        made = STUDIES[self.experiment(self.row(0)).study].random
        of_keys = {
            "weights.seed": START,
            **dict.fromkeys(STARTS, START),
            "direction.seed": DIRECTION,
            "chip.die": DIE,
        }
        # a seed that a key gives is the same in all repeats of a point
        given = {key for point in self.given for key in point}
        same = [key for key, what in of_keys.items() if key in given and what in made]
        return {
            "new": [what for what in made if what not in {of_keys[key] for key in same}],
            "same": same,
        }


def plan_sweep(
    name_or_path: str | Path,
    set: Mapping[str, object] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of a sweep: [sweep] of the experiment file, with `changes` to it (vary, zip,
    repeats, ...; keys of vary and zip are added to those of the file). InputError if any of its
    cells has a mistake in its keys or values.
    """
    settings = dict(set or {})
    data, source, folder = read_experiment(name_or_path)
    data, folder = changed(data, folder, settings)
    sweep = _merged(data.pop("sweep", {}), source, folder, changes or {})
    varied = {**flat(sweep.vary), **flat(sweep.zip)}
    # of all cells, also those that begin when it has changed
    kept = [
        name for name, keys in FILES.items() if not {f"{name}.{key}" for key in keys} & {*varied}
    ]
    data = with_digest(data, kept)
    chosen = points(sweep, is_integer)
    # points come below: each needs its experiment
    plan = Plan(str(name_or_path), source, data, folder, settings, sweep, [], [], [], [])
    check_varied(plan)
    seen: dict[str, Point] = {}
    for point in chosen:
        plan.add(point)
        digest = plan.digests[-1]
        if digest in seen:
            raise InputError(
                f"{source}: two points are the same experiment ({_said(seen[digest])};"
                f" {_said(point)}): remove one"
            )
        seen[digest] = point
    keys = chosen[0].keys()
    # cells of several studies need several tables
    if "study" not in keys:
        warn_of_unused(plan.experiment(plan.row(0)), name_or_path, settings, keys)
    return plan


def _merged(table: Any, source: str, folder: Path, changes: Mapping[str, Any]) -> Sweep:
    """[sweep] of a file with changes; its paths of chips and other files, relative to
    the file, are made such that they are not.
    """
    given = validated(_File, {"sweep": table}, source).sweep
    both: dict[str, Any] = {**given.model_dump(), **changes}
    for name in ("vary", "zip"):
        own = flat(getattr(given, name))
        for key in ("chip.preset", *PATHS):
            if key in own:
                # a name of a shipped chip stays a name; anything else is a path
                own[key] = [
                    (
                        value
                        if isinstance(value, str) and value in chip_names()
                        else changed_path(value, lambda path: (folder / path).as_posix())
                    )
                    for value in values_of(key, own[key])
                ]
        more = changes.get(name, {})
        if not isinstance(more, Mapping):
            raise InputError(f"{name} = {more!r} must be a dictionary of keys and their values")
        both[name] = {**own, **more}
    return validated(_File, {"sweep": both}, source).sweep


def check_varied(plan: Plan) -> None:
    """InputError if a key cannot be varied, or is set too."""
    keys = [*flat(plan.sweep.vary), *flat(plan.sweep.zip)]
    if not keys and plan.sweep.repeats == 1:
        raise InputError(
            f"{plan.source}: nothing is varied: give --vary KEY=SPEC, --repeats or a table [sweep]"
        )
    for key in keys:
        if key in plan.set:
            raise InputError(f"{key}: is set and varied: leave one of them out")
        if key.partition(".")[0] == "sweep":
            raise InputError(f"{key}: is no key of a run: vary others")
        if key in ("name", "description"):
            raise InputError(f"{key}: changes nothing of what is run: vary others")


def field_of(key: str) -> FieldInfo | None:
    """What an experiment says of a key; None of one inside a table without fixed keys."""
    model: Any = Experiment
    field = None
    for name in key.split("."):
        if model is None or name not in model.model_fields:
            return None
        field = model.model_fields[name]
        kinds = kinds_of(field.annotation)
        model = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None
        )
    return field


def is_integer(key: str) -> bool:
    """Whether the key takes integers only."""
    field = field_of(key)
    kinds = kinds_of(field.annotation) if field else []
    return int in kinds and float not in kinds


def _stored(key: str, spec: Any) -> Any:
    """The values of a key as its cells have them, or the range that they are drawn from."""
    values = values_of(key, spec)
    return values if isinstance(values, Range) else rounded(values, is_integer(key))


def _meaning(key: str) -> str:
    """What the key is, and its unit."""
    field = field_of(key)
    return (field.description or "") if field else ""


def _has_off(key: str) -> bool:
    """Whether what the key is of is not there where it is 0."""
    field = field_of(key)
    return field is not None and ZERO_IS_OFF in field.metadata


def kinds_of(annotation: Any) -> list[Any]:
    """An annotation and all that it is made of."""
    return [annotation, *(kind for part in get_args(annotation) for kind in kinds_of(part))]


def _said(point: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={toml(key, value)}" for key, value in point.items())
