"""Experiment files: a TOML becomes an `Experiment`, validated once, with the whole chip in it."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hardware.config import read_named, validated
from hardware.device_laws import LAWS
from hardware.params import ChipParams, load_chip, with_device
from perturb.errors import InputError, one_line, shown
from perturb.networks.onnx.reading import weight_files
from perturb.settings import plain
from sims.data.files import digest_of
from sims.experiment.experiment import Experiment
from sims.experiment.names import SHIPPED, experiment_names
from sims.experiment.paths import FILES, paths_of, with_paths

PARTS = ChipParams.model_fields.keys() - Experiment.model_fields.keys()


def load_experiment(
    name_or_path: str | os.PathLike[str], set: Mapping[str, object] | None = None
) -> Experiment:
    """Load an experiment.

    Parameters
    ----------
    name_or_path : str or path-like
        One of `experiment_names`, or the path of a TOML file.
    set : mapping of str to object, optional
        Dotted keys to values, such as {"estimation.sigma": 0.02}; a string is read as a TOML value,
        or else as itself.

    Returns
    -------
    Experiment
        Validated and complete.

    Raises
    ------
    InputError
        For a mistake in any of it: one line that names the key, the value and the remedy.

    Notes
    -----
    chip.preset names a chip or a file, relative to the experiment file (in `set`: to the working
    directory); the other keys of [chip] override it. data.file, network.file, weights.file and the
    other paths of files are found likewise.

    Examples
    --------
    >>> experiment = load_experiment("xor", {"estimation.trials": 100})
    >>> experiment.network.layers, experiment.estimation.trials
    ((2, 2, 1), 100)
    """
    data, source, folder = read_experiment(name_or_path)
    if set:
        data, folder = changed(data, folder, set)
        # so that a message does not blame the file alone
        source = f"{source} with --set"
    return experiment_from(data, source, folder)


DEVICE = "chip.weights.device"


def read_experiment(name_or_path: str | os.PathLike[str]) -> tuple[dict[str, Any], str, Path]:
    """The contents of an experiment file, its name in messages, and the folder that paths in it
    are relative to.
    """
    return read_named("experiment", name_or_path, SHIPPED, experiment_names())


def changed(
    data: dict[str, Any], folder: Path, set: Mapping[str, object]
) -> tuple[dict[str, Any], Path]:
    """Contents and folder of an experiment file, with keys changed as `load_experiment` does."""
    # a path in the file is relative to the file, one in --set to the working directory
    data = _with_file(data, folder)
    inside = {key: set[key] for key in set if str(key).startswith(f"{DEVICE}.")}
    if inside:
        # keys of a device that is named: what its file says is changed
        data = with_settings(data, {key: set[key] for key in set if key not in inside})
        chip = data.get("chip")
        if isinstance(chip, dict):
            place = Path() if DEVICE in set else folder
            data = {**data, "chip": with_device(chip, "chip", place)}
    data = _with_file(with_settings(data, inside or set), Path())
    return data, Path() if {"chip", "chip.preset"} & set.keys() else folder


def experiment_from(data: dict[str, Any], source: str, folder: Path = Path()) -> Experiment:
    """The experiment of the contents of a TOML file, which messages call `source` and whose
    paths are relative to `folder`.
    """
    _refuse_parts(data, source)
    # what is no table is left to the schema, whose message names the key
    chip = data.get("chip", {})
    if isinstance(chip, dict):
        preset = chip.get("preset", "ideal")
        if not isinstance(preset, str):
            raise InputError(
                f"{source}: chip.preset = {shown(preset)} must be a string in quotes: the name of a"
                " chip or the path of a TOML file"
            )
        try:
            base = load_chip(preset, folder)
        except InputError as error:
            raise InputError(f"{source}: chip.preset: {error}") from None
        # what is stored is the whole chip, so that a preset may change later
        overrides = {key: value for key, value in chip.items() if key != "preset"}
        data = {
            **data,
            "chip": with_device(
                overridden(base.model_dump(), overrides), f"{source}: chip", folder
            ),
        }
    # chip.preset is no field of Experiment, but what a misspelt key may have meant
    return validated(
        Experiment, with_digest(_with_file(data, folder)), source, also=("chip.preset",)
    )


def _refuse_parts(data: dict[str, Any], source: str) -> None:
    """InputError for the file of a chip or a device, with the command that takes it."""
    own = data.keys() - {"chip", "name", "description"}
    if {"network", "data", "study"} & own:
        return
    file = source.removesuffix(" with --set")
    if data.get("model") in LAWS:
        kind, key = "device", "chip.weights.device"
    # [weights] is a table of both
    elif own & PARTS or own == {"weights"}:
        kind, key = "chip", "chip.preset"
    else:
        return
    raise InputError(
        f"{source}: is the file of a {kind}, not an experiment: perturb new mine.toml --{kind}"
        f" {file} writes one with it, and --set {key}={file} puts it into another"
    )


def with_digest(data: dict[str, Any], tables: Iterable[str] = FILES) -> dict[str, Any]:
    """data, with the sha256 of the files, absolute paths, of the tables that have none: what is
    stored names their contents.
    """
    for name in tables:
        paths = paths_of(data, name)
        if not paths or data[name].get("sha256", "") != "":
            continue
        if name == "network":
            paths += weight_files(paths[0])
        try:
            # a pipe would be emptied by its digest, or block
            if not all(Path(path).is_file() for path in paths):
                continue
            with ExitStack() as opened:
                digest = digest_of([opened.enter_context(open(path, "rb")) for path in paths])
            data = {**data, name: {**data[name], "sha256": digest}}
        except (OSError, ValueError):  # whoever reads the file says why
            continue
    return data


def _with_file(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """data, with the files that are relative to `folder` made absolute."""
    return with_paths(data, lambda path: Path(os.path.abspath(folder / path)).as_posix())


def overridden(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """base, with tables merged and everything else replaced by `changes`."""
    both = {
        k: overridden(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v
        for k, v in changes.items()
    }
    # a key that the base lacks comes in as it is: the schema says if it is unknown
    return {**base, **both}


def parse_settings(items: Iterable[str]) -> dict[str, str]:
    """{"estimation.sigma": "0.02"} of ["estimation.sigma=0.02"], as given to --set."""
    settings = {}
    for item in items:
        # the first "=" alone: a value may have more of them
        key, equals, value = item.partition("=")
        if not (equals and key.strip()):
            raise InputError(
                f"--set {one_line(item)}: not of the form KEY=VALUE, such as --set"
                " estimation.sigma=0.02"
            )
        settings[key.strip()] = value.strip()
    return settings


def with_settings(data: dict[str, Any], settings: Mapping[str, object]) -> dict[str, Any]:
    """A copy of `data` with dotted keys changed."""
    data = dict(data)
    for key, value in settings.items():
        *parents, last = parts = str(key).split(".")
        if not all(parts):
            raise InputError(
                f"--set {one_line(str(key))}: not a key, write it like estimation.sigma"
            )
        # copies of the tables on the way: the contents given stay as they are
        table = data
        for depth, part in enumerate(parents, 1):
            below = table.get(part, {})
            if not isinstance(below, dict):
                raise InputError(
                    f"--set {one_line(str(key))}: {one_line('.'.join(parts[:depth]))} is no table:"
                    " set it as a whole"
                )
            table[part] = dict(below)
            table = table[part]
        # to what TOML can hold, as if it stood in the file
        table[last] = plain(value)
    return data
