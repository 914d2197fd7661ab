"""Keys that are given, but of no use to the study: a user who sets one waits for an effect that
never comes.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perturb.errors import one_line, shown
from perturb.settings import flat, plain
from sims.experiment.experiment import Experiment
from sims.experiment.loading import read_experiment
from sims.studies import EVERYTHING, STUDIES


class UnusedKey(UserWarning):
    """A key is given that the study does not use."""


def warn_of_unused(
    experiment: Experiment,
    name_or_path: str | os.PathLike[str],
    set: Mapping[str, object],
    varied: Iterable[str] = (),
) -> None:
    """An `UnusedKey` for every key that is given to no use: of `set` and of `varied`, and of the
    file, if the study is its own.
    """
    given = {key: plain(value) for key, value in set.items()}
    sentences = [_said(experiment.study, key, value) for key, value in flat(given).items()]
    # of a sweep, where each cell has its own value
    sentences += [_said(experiment.study, key) for key in varied]
    if "study" not in given:
        sentences += _of_file(experiment, read_experiment(name_or_path)[0], given)
    for sentence in dict.fromkeys(filter(None, sentences)):
        warnings.warn(sentence, UnusedKey, stacklevel=3)


def _of_file(
    experiment: Experiment, data: Mapping[str, Any], given: Mapping[str, Any]
) -> Iterator[str]:
    file = flat(data)
    # what is stored of a run has all keys: nobody chose them
    if flat(experiment.model_dump(exclude_none=True)).keys() <= file.keys():
        return
    reads = STUDIES[experiment.study].reads
    # of a study with a command, which finds its table by that
    found = {study.table for study in STUDIES.values() if study.command}
    for name, study in STUDIES.items():
        if "study" not in data and study.table in data.keys() - found:
            yield (
                f"[{study.table}] is not used: the file names no study, which is then"
                f' "{experiment.study}": write study = "{name}" above its tables'
            )
    for key, value in file.items():
        table = key.partition(".")[0]
        # a table of which the study reads nothing is there for other studies of the same file
        partly = table in EVERYTHING and any(f"{read}.".startswith(f"{table}.") for read in reads)
        if partly and key not in given and value != _default(key):
            yield _said(experiment.study, key, value)


def _default(key: str) -> Any:
    """As a file would give it."""
    if key == "chip.preset":
        return "ideal"
    table, *names = key.split(".")
    value = Experiment.model_fields[table].default
    for name in names:
        value = getattr(value, name, None)
    return list(value) if isinstance(value, tuple) else value


def _said(study: str, key: str, *value: Any) -> str:
    """That a key is not used, and what is instead; "" of one that is used."""
    if is_used(study, key):
        return ""
    table = key.partition(".")[0]
    owners = [f'"{name}"' for name, other in STUDIES.items() if other.table == table]
    counts = STUDIES[study].instead.get(key, ())
    why = ""
    if counts:
        why = f": {' and '.join(counts)} count{'s' * (len(counts) == 1)}"
    elif owners and table != STUDIES[study].table:
        why = f": it is of study = {' or '.join(owners)}"
    what = f"{one_line(key)} = {shown(value[0])}" if value else one_line(key)
    return f'{what} is not used by study = "{study}"{why}'


def is_used(study: str, key: str) -> bool:
    """Whether a study reads the key, or something of the table with that name."""
    of = STUDIES[study]
    table = key.partition(".")[0]
    single = [read for read in of.reads if read.startswith(f"{table}.")]
    if any(other.table == table for other in STUDIES.values()):
        return key in single if single else table in (of.table, *of.reads)
    # it brings all of the chip, whatever is read of it; a name is for reports
    if key in ("chip.preset", "chip.name", "chip.description"):
        return any(f"{read}.".startswith("chip.") for read in of.reads)
    # a table that is set as a whole holds what is read of it
    return table not in EVERYTHING or any(
        f"{key}.".startswith(f"{read}.") or read.startswith(f"{key}.") for read in of.reads
    )
