"""An experiment, complete: its setup, and the table of options of every study."""

from typing import Any

from pydantic import create_model

from sims.experiment.schema import Setup, Sweep
from sims.studies import STUDIES

_tables: dict[str, Any] = {}
for _study in STUDIES.values():
    if _study.options:
        _table = _study.load_options()
        _tables[_study.table] = (_table, _table())
_WithOptions: Any = create_model("_WithOptions", __base__=Setup, **_tables)


class Experiment(_WithOptions):
    """One experiment, complete: nothing is left to look up. `load_experiment` makes it from a
    file.
    """

    sweep: Sweep | None = None
