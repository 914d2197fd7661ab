"""An experiment as a file, complete: what is stored of it."""

import os
from pathlib import Path

import tomli_w

from sims.experiment.paths import with_paths
from sims.experiment.schema import Setup
from sims.studies import STUDIES


def to_toml(experiment: Setup, folder: Path | None = None) -> str:
    """The experiment as a TOML file that `load_experiment` turns into an equal one, whatever the
    presets become.

    folder: where the file will be, so that files in it can be relative to it: run directories name
    no home directories.
    """
    # TOML has no null: an absent key is None when it is read again
    data = experiment.model_dump(exclude_none=True)
    if folder is not None:
        data = with_paths(data, lambda path: Path(os.path.relpath(path, folder)).as_posix())
    return tomli_w.dumps(data)


def identity(experiment: Setup) -> str:
    """What an unfinished run is known by: the experiment as a TOML text, but for options of its
    study that may be others when it goes on (`Registered.anew`).
    """
    study = STUDIES[experiment.study]
    if study.anew:
        options = dict(experiment)[study.table]
        usual = {key: getattr(type(options)(), key) for key in study.anew}
        changed = {study.table: options.model_copy(update=usual)}
        experiment = experiment.model_copy(update=changed)
    return to_toml(experiment)
