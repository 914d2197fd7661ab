"""Learning: plans, rules, rates and the loop."""

from importlib import import_module

_HOME = {
    "AskTell": "asktell",
    "Batch": "sources",
    "Exact": "exact",
    "OfRuns": "of_runs",
    "Plan": "plan",
    "State": "plan",
    "begin": "loop",
    "train": "loop",
}
__all__ = [*_HOME]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"perturb.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'perturb.training' has no attribute {name!r}")
