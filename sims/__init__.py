"""Experiments: their files, data sets, running them, storing what came out, and the command line."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sims.experiment.loading import experiment_names as experiment_names
    from sims.experiment.loading import load_experiment as load_experiment
    from sims.experiment.schema import Experiment as Experiment
    from sims.runner import Run as Run
    from sims.runner import run_experiment as run_experiment
    from sims.sweep_results import load_sweep as load_sweep
    from sims.sweep_results import sweep_status as sweep_status
    from sims.sweeper import run_sweep as run_sweep

_HOME = {
    "Experiment": "experiment.schema",
    "Run": "runner",
    "experiment_names": "experiment.loading",
    "load_experiment": "experiment.loading",
    "load_sweep": "sweep_results",
    "run_experiment": "runner",
    "run_sweep": "sweeper",
    "sweep_status": "sweep_results",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"sims.{_HOME[name]}"), name)
    if not name.startswith("_") and find_spec(f"sims.{name}"):
        return import_module(f"sims.{name}")
    raise AttributeError(f"module 'sims' has no attribute {name!r}")
