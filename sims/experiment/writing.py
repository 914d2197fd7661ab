"""An experiment as a file, complete: what is stored of it."""

import os
from pathlib import Path

import tomli_w

from sims.experiment.paths import with_paths
from sims.experiment.schema import Setup


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
