"""An experiment, complete: its setup, and the table of options of every study."""

from typing import Any

from pydantic import create_model

from sims.experiment.schema import Setup, Sweep
from sims.studies import STUDIES

# (class, default) by table, as `create_model` takes fields; studies may share a table
_tables: dict[str, Any] = {}
for _study in STUDIES.values():
    if _study.options:
        _table = _study.load_options()
        _tables[_study.table] = (_table, _table())
_WithOptions: Any = create_model("_WithOptions", __base__=Setup, **_tables)


class Experiment(_WithOptions):
    """One experiment, complete: nothing is left to look up. `load_experiment` makes it from a file.

    Attributes
    ----------
    name, description : str
        As listed and reported.
    study : str
        What is done, one of `sims.studies.STUDIES`.
    network, data, weights, direction, estimation, chip, run : Table
        The network, its patterns, the starting weights, v, how g and z are estimated, the chip, and
        seed and precision of the computation.
    table of a study : Table
        The options of every study of `sims.studies.STUDIES` that has some, by its name.
    sweep : Sweep or None
        What `run_sweep` varies.

    Notes
    -----
    Immutable, as are its tables. Every key of a table is a field of its class, with type, range,
    default and meaning; `perturb new FILE` writes them all down.

    Examples
    --------
    >>> import sims
    >>> sims.load_experiment("xor").training.updates
    10000
    """

    sweep: Sweep | None = None
