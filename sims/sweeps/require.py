"""Requirements: the least demanding values of keys at which what is wanted is still met, sought by
a sweep that finds out on the way which of its cells it needs.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from perturb.errors import InputError, one_line, shown
from perturb.settings import flat
from perturb.trial.methods import METHODS
from reports.frames import QUANTITIES
from reports.loading import load
from reports.statistics import CONFIDENCE
from reports.store import sweep_database
from reports.store.sweep_database import Outcome, Row, Store
from reports.studies import view_of
from reports.studies.require.search import (
    FIRST_LOOK,
    Condition,
    Measured,
    Point,
    Search,
    alone,
    can_tell,
    longest,
    looks_up_to,
    searches,
)
from reports.studies.sweep.loading import wanted_of
from sims.experiment.experiment import Experiment
from sims.experiment.loading import changed, experiment_from, read_experiment, with_digest
from sims.experiment.schema import Sweep
from sims.experiment.unused import warn_of_unused
from sims.sweeps.ladder import Span, check_number, check_steps, ladder
from sims.sweeps.plan import Plan, check_varied, field_of
from sims.sweeps.run import pool, run_cells
from sims.sweeps.workers import WorkerPool

STUDIES = ("compare", "training")
# what else a study does beside its own estimates or learning, and would do in every cell
ALONE: dict[str, dict[str, Any]] = {
    "compare": {"estimation.compare_with": []},
    "training": {"training.compare_with": [], "training.control": False},
}
STEPS = 10  # in a factor of ten
REPEATS = 64  # of a value, at most


@dataclass(frozen=True)
class Requirement:
    """What is sought. `plan` has the points of the ladders, one key after another, and later those
    of all keys together; own: the experiment as it is.
    """

    plan: Plan
    own: Experiment
    condition: Condition
    ladders: dict[str, list[float]]
    options: list[str]  # of the command, beside --set

    def record(self) -> dict[str, Any]:
        """What the store holds of it, and compares when the search goes on."""
        record = self.plan.record()
        condition = self.condition._asdict()
        condition["wanted"] = self.condition.wanted._asdict()
        condition["looks"] = list(condition["looks"])
        record["experiment"] = self.own.model_dump(mode="json")
        record["sweep"]["require"] = condition
        record["options"] = self.options
        return record

    @cached_property
    def _numbers(self) -> dict[tuple, int]:
        """The number of each point that is planned."""
        return {Measured.name(point): number for number, point in enumerate(self.plan.points)}

    def add(self, points: Iterable[Point]) -> None:
        """Plan further points, all at once: their numbers do not depend on what ran before."""
        for point in points:
            name = Measured.name(point)
            if name not in self._numbers:
                self.plan.add(point)
                self._numbers[name] = len(self._numbers)

    def cells(self, point: Point, repeats: int) -> range:
        """The cells of the first repeats of a point."""
        # room for all repeats that a point may take: what a cell is called does not depend on which
        # others are run
        first = self._numbers[Measured.name(point)] * self.plan.sweep.repeats
        return range(first, first + repeats)


def plan_requirement(
    name_or_path: str | Path,
    keys: Sequence[str],
    set: Mapping[str, object] | None = None,
    wanted: str | None = None,
    quantity: str | None = None,
    spans: Mapping[str, Span] | None = None,
    steps_per_decade: int = STEPS,
    repeats: int = REPEATS,
) -> Requirement:
    """What `run_requirement` seeks; InputError for a mistake in any key or value of its ladders."""
    spans = spans or {}
    check_steps(steps_per_decade)
    if not FIRST_LOOK <= repeats <= 10**6:
        raise InputError(
            f"repeats = {repeats} must lie between {FIRST_LOOK} and 10^6: they are the most that"
            " one value takes"
        )
    contents = _Contents(*read_experiment(name_or_path))
    # [sweep] of the file is another plan, that of perturb sweep
    contents.data.pop("sweep", None)
    given = dict(set or {})
    _check_keys(keys, spans, contents, given)
    study = contents.experiment(given).study
    if study not in STUDIES:
        raise InputError(
            f"{contents.source}: study = {study!r} has nothing to require: give --set"
            " study=compare, of estimates, or --set study=training, of learning"
        )
    # unless --set asks for it
    settings = {**{key: value for key, value in ALONE[study].items() if key not in given}, **given}
    own = contents.experiment(settings)
    warn_of_unused(own, name_or_path, given, keys)
    condition = _condition(own, wanted, quantity, repeats)
    ladders = {key: ladder(key, spans.get(key), steps_per_decade) for key in keys}
    sweep = Sweep(vary=dict(ladders), repeats=repeats)
    data, folder = changed(contents.data, contents.folder, settings)
    plan = Plan(
        name=str(name_or_path),
        source=contents.source,
        # of all cells, also those that begin when the file has changed
        data=with_digest(data),
        folder=folder,
        set=settings,
        sweep=sweep,
        points=[],
        digests=[],
        seeds=[],
        given=[],
    )
    check_varied(plan)
    for points in alone(ladders):
        _check_repeats(len(points), condition)
        for point in points:
            plan.add(point)
    if len(ladders) > 1:
        _check_repeats(longest(ladders), condition)
    options = {"--wanted": wanted, "--quantity": quantity}
    if steps_per_decade != STEPS:
        options["--steps-per-decade"] = str(steps_per_decade)
    if repeats != REPEATS:
        options["--repeats"] = str(repeats)
    # so that a page can say by which command the search goes on
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    for key, span in spans.items():
        words += ["--range", f"{key}={span.ideal!r}:{span.worst!r}"]
    return Requirement(plan, own, condition, ladders, words)


def _check_repeats(length: int, condition: Condition) -> None:
    """InputError if so few repeats could not tell, whatever they gave."""
    given = condition.looks[-1]
    needed = given
    first = condition.looks[0]
    while not can_tell(length, condition._replace(looks=looks_up_to(needed, first))):
        needed += 1
        # of no number of repeats
        if needed > given + 10_000:
            return
    if needed > given:
        raise InputError(
            f"repeats = {given}: too few to tell that mean {condition.wanted}, even where every run"
            f" meets it: give --repeats {needed} or more"
        )


class _Contents(NamedTuple):
    """Of an experiment file."""

    data: dict[str, Any]
    source: str
    folder: Path

    def experiment(self, set: Mapping[str, object]) -> Experiment:
        """The experiment, with keys changed."""
        data, folder = changed(self.data, self.folder, set)
        return experiment_from(data, self.source, folder)


def _check_keys(
    keys: Sequence[str],
    spans: Mapping[str, Span],
    contents: _Contents,
    given: Mapping[str, object],
) -> None:
    if not keys:
        raise InputError("keys = []: nothing is sought: give a key such as chip.error_unit.noise")
    for key in keys:
        if list(keys).count(key) > 1:
            raise InputError(f"{one_line(key)}: given twice: leave one of them out")
        if field_of(key) is None:
            # said as everywhere, with what it may have meant
            contents.experiment({**given, key: 0})
        check_number(key, field_of(key))
    for key in spans:
        if key not in keys:
            raise InputError(
                f"{one_line(key)}: has a range and is not sought: add it to the keys, or leave it"
                " out"
            )


def _condition(
    own: Experiment, wanted: str | None, quantity: str | None, repeats: int
) -> Condition:
    view = view_of(own.study)
    assert view.swept is not None
    found = wanted_of(wanted, view.swept, own.model_dump())
    assert found is not None
    own_values = flat(own.model_dump())
    columns = view.columns["summary"]
    count = view.swept.shares.get(found.measure)
    if own.study == "training":
        if quantity is not None:
            raise InputError(
                f"quantity = {shown(quantity)} is of estimates, and this is learning: leave it out"
            )
        of = {"subject": own_values["training.source"]}
        unit = "share" if count or found.measure.endswith("accuracy") else ""
    else:
        if found.measure not in columns:
            raise InputError(
                f"wanted = {found}: {found.measure} is no measure of this study: such as"
                f" {', '.join(view.swept.measures)}"
            )
        estimated = METHODS[own.estimation.method].quantities
        chosen = quantity or ("hv" if "hv" in estimated else "gradient")
        if chosen not in estimated:
            raise InputError(
                f"quantity = {shown(chosen)} is not estimated by the method"
                f" {own.estimation.method}: one of {', '.join(estimated)}"
            )
        of = {"primary": True, "quantity": chosen}
        unit = columns[found.measure].unit
        found = found._replace(called=f"{found.measure.replace('_', ' ')} of {QUANTITIES[chosen]}")
    # intervals are cut at these limits, so that none would lie on one side of them
    if unit in ("cosine", "share") and not -1 < found.value < 1:
        raise InputError(
            f"wanted = {found}: no interval of repeats can tell it: wanted must lie inside its"
            " limits, such as 0.9"
        )
    # counted in runs, of which a single repeat may have enough
    looks = looks_up_to(repeats, 1) if count else looks_up_to(repeats)
    return Condition(found, of, unit, own_values[count] if count else 0, looks, 1 - CONFIDENCE)


def run_requirement(
    name_or_path: str | Path,
    keys: Sequence[str],
    wanted: str | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    *,
    set: Mapping[str, object] | None = None,
    quantity: str | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    steps_per_decade: int = STEPS,
    repeats: int = REPEATS,
    retry: bool = False,
) -> pd.DataFrame:
    """The least demanding values of keys at which what is wanted of an experiment is still met.

    Parameters
    ----------
    name_or_path : str or Path
        One of `experiment_names`, or the path of a TOML file, whose study is "compare" (of
        estimates) or "training" (of learning).
    keys : sequence of str
        Keys that take numbers, such as "chip.error_unit.noise". Each is sought alone, the others
        being as in the experiment; several then together, see Notes.
    wanted : str, optional
        A condition such as "cosine>=0.95" or "solved>=0.9" on the mean over repeats. By default
        the cosine that [dies] of the experiment wants; of learning, that half of the runs are
        solved.
    out : str or Path, optional
        The directory of the search, which is stored like a sweep. The same call again resumes, and
        gives the same table; left out, a directory that is removed in the end.
    workers, cluster : optional
        As of `run_sweep`.
    set : mapping of str to object, optional
        Fixed keys, as of `run_experiment`.
    quantity : {"hv", "gradient"}, optional
        Of estimates: which is meant; by default z = Hv, where the method estimates it.
    ranges : mapping of str to tuple, optional
        Of a key, its ideal and its least demanding value. By default those of its Field: from none
        of the imperfection on.
    steps_per_decade : int, default 10
        Values in a factor of ten; of bits all are tried.
    repeats : int, default 64
        At most, of one value.
    retry : bool, default False
        Whether to run failed cells again.

    Returns
    -------
    DataFrame
        A row per key, and of several one more for each in the specification of all together;
        columns as in `reports.load(out).columns["summary"]`.

    Raises
    ------
    InputError
        If a key takes no number or has no range, if a value is wrong, or if `out` holds something
        else.

    Notes
    -----
    Bisection, with the statistics of `reports.studies.require.search`. It presumes that the measure
    gets worse along the ladder. Values alone need not be good enough together: the specification of
    all is tightened, a step of one key after another, until it meets what is wanted.

    Examples
    --------
    >>> import sims
    >>> small = {"estimation.trials": 16, "run.fidelity": "batch"}
    >>> found = sims.run_requirement("xor", ["chip.error_unit.bits"], workers=0, set=small)
    >>> found["status"].tolist(), float(found["required"][0]).is_integer()
    (['found'], True)
    """
    spans = {key: Span(*ends) for key, ends in (ranges or {}).items()}
    plan = plan_requirement(
        name_or_path, keys, set, wanted, quantity, spans, steps_per_decade, repeats
    )
    with tempfile.TemporaryDirectory() if out is None else nullcontext(out) as directory:
        require(plan, Path(directory), pool_for(plan, workers, cluster), retry)
        return load(directory).summary


def pool_for(plan: Requirement, workers: int | None, cluster: str | None) -> WorkerPool:
    """Where the cells run: no more than can be needed at once."""
    return pool(workers, cluster, len(plan.ladders) * plan.plan.sweep.repeats)


def require(
    sought: Requirement,
    directory: Path,
    pool: WorkerPool,
    retry: bool,
    progress: Callable[[list[Search], int], None] = lambda found, ended: None,
) -> None:
    """Run the cells that the search needs and that have no result yet; whatever ends it, the store
    has what was done. progress: told how far the searches are, and how many cells have ended, when
    one has.
    """
    with Store(directory, sought.record(), None) as store:
        measured = Measured(sought.condition)
        planned: set[int] = set()
        waiting: deque[int] = deque()
        done = 0
        with sweep_database.reading(directory) as (file, _):
            path = directory / sweep_database.FILE
            rows = {row.cell: row for row in sweep_database.cells(file, path)}
            for cell, outcome in sweep_database.results(file, path):
                # to run again it is as if it had not run
                if not (retry and outcome.status == "failed"):
                    measured.add(rows[cell], outcome)
                    planned.add(cell)

        def look() -> None:
            found = searches(sought.ladders, sought.condition, measured)
            # that of all keys together begins when each has its value
            sought.add(found[-1].points)
            for each in found:
                if each.wants is not None:
                    place, repeats = each.wants
                    # with those that an interrupted search has planned and not run: the store takes
                    # the same again
                    new = [c for c in sought.cells(each.points[place], repeats) if c not in planned]
                    if new:
                        store.extend(map(sought.plan.row, new))
                        planned.update(new)
                        waiting.extend(new)
            progress(found, done)

        def ended(cell: int, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            row: Row = sought.plan.row(cell)
            measured.add(row, outcome)
            look()

        look()
        if waiting:
            run_cells(sought.plan, store, pool, waiting, ended)
