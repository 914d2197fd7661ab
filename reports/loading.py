"""Stored runs and sweeps as frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from perturb.errors import InputError
from reports.frames import CATEGORIES, Frames
from reports.store.run_directory import read_run
from reports.store.sweep_database import FILE, is_search
from reports.studies import view_of
from reports.studies.require.loading import load as load_search
from reports.studies.sweep.loading import load as load_sweep


def of_run(
    directory: Path,
    tables: Mapping[str, pd.DataFrame],
    experiment: dict[str, Any],
    provenance: dict[str, Any],
) -> Frames:
    """The frames of a run that has just ended."""
    return Frames(directory, tables, experiment, provenance, view_of(experiment["study"]))


def load(directory: str | Path, wanted: str | None = None) -> Frames:
    """A stored run, or a sweep, as pandas frames.

    Parameters
    ----------
    directory : str or Path
        Of the run or the sweep.
    wanted : str, optional
        Of a sweep, what its thresholds are of, such as "cosine>=0.95". By default the cosine that
        [dies] of the experiment wants; of a training, that half of the runs are solved.

    Returns
    -------
    Frames
        Its tables as attributes.

    Raises
    ------
    InputError
        Naming the file, if one is missing, cut short, changed or of another version; or if
        `wanted` is of no measure.

    Examples
    --------
    >>> import tempfile, reports, sims
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = sims.run_experiment("xor", {"estimation.trials": 64}, out=f"{folder}/xor")
    ...     frames = reports.load(f"{folder}/xor")
    >>> frames.columns["summary"]["cosine"]
    'cosine of the estimate with exact R{backprop}'
    >>> bool((frames.summary["cosine"].abs() <= 1).all())
    True
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(
            f"{directory}: no such directory: give the directory of a run or a sweep (perturb run"
            " ... --out DIR)"
        )
    # a sweep is told by its database, a run by its provenance.json
    stored_as = "single run"
    if (directory / FILE).exists():
        if not is_search(directory):
            return load_sweep(directory, wanted)
        # what a search wants decided which cells it ran, and cannot be changed afterwards
        stored_as = "search, which has its own"
    if wanted is not None:
        raise InputError(
            f"{directory}: wanted = {wanted!r} is of sweeps, and this is a {stored_as}: leave it"
            " out"
        )
    if (directory / FILE).exists():
        return load_search(directory, view_of("require"))
    stored = read_run(directory)
    try:
        view = view_of(stored.experiment["study"])
    except InputError as error:
        raise InputError(f"{directory / 'experiment.toml'}: {error}") from None
    tables = {}
    for name, columns in view.columns.items():
        # a study that was interrupted lacks its later tables, an earlier state of it newer ones
        if name != "summary" and not stored.wrote(name):
            continue
        tables[name] = stored.table(name)
        if missing := [column for column in columns if column not in tables[name]]:
            path = directory / f"{name}.parquet"
            raise InputError(
                f"{path}: has no column {missing[0]}: damaged: run the experiment again"
            )
        # as categories they keep their order, and take less memory
        tables[name] = tables[name].astype(
            {column: "category" for column in CATEGORIES if column in columns}
        )
    if tables["summary"].empty:
        raise InputError(
            f"{directory / 'summary.parquet'}: holds no result: run the experiment again"
        )
    # as `write_run` stored them
    files = frozenset({"summary.csv", *(f"{name}.parquet" for name in tables)})
    return Frames(
        directory, tables, stored.experiment, stored.provenance, view, files, stored.experiment_text
    )
