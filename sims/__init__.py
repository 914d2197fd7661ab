"""Experiments: their files, data sets, running them, storing what came out, and the command
line.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

# for type checkers alone: pandas and Numba load when a name is first asked for
if TYPE_CHECKING:
    from reports.store.sweep_results import load_sweep as load_sweep
    from reports.store.sweep_results import sweep_status as sweep_status
    from sims.experiment.experiment import Experiment as Experiment
    from sims.experiment.loading import load_experiment as load_experiment
    from sims.experiment.names import experiment_names as experiment_names
    from sims.runner import Run as Run
    from sims.runner import run_experiment as run_experiment
    from sims.sweeps.require import run_requirement as run_requirement
    from sims.sweeps.run import run_sweep as run_sweep

_HOME = {
    "Experiment": "sims.experiment.experiment",
    "Run": "sims.runner",
    "experiment_names": "sims.experiment.names",
    "load_experiment": "sims.experiment.loading",
    "load_sweep": "reports.store.sweep_results",
    "run_experiment": "sims.runner",
    "run_requirement": "sims.sweeps.require",
    "run_sweep": "sims.sweeps.run",
    "sweep_status": "reports.store.sweep_results",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    # sub-modules as attributes: `sims.data` without an import of its own
    if not name.startswith("_") and find_spec(f"sims.{name}"):
        return import_module(f"sims.{name}")
    raise AttributeError(f"module 'sims' has no attribute {name!r}")
