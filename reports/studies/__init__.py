"""How studies are shown: one view a module, one line here; a sweep of any of them, and several
designs, are views too.
"""

from importlib import import_module

from perturb.errors import InputError
from reports.frames import View

VIEWS = {
    "compare": "compare",
    "estimators": "estimators",
    "ablation": "ablation",
    "dies": "dies",
    "learning-ablation": "learning_ablation",
    "learning-dies": "learning_dies",
    "budget": "budget",
    "spectrum": "spectrum",
    "finite-difference": "finite_difference",
    "uses": "uses",
    "training": "training",
    "drive": "drive",
    "drive-estimates": "drive_estimates",
    "reproduce": "reproduce",
    "sweep": "sweep",
    "require": "require",
    "designs": "designs",
}


def view_of(study: str) -> View:
    """How the results of a study are shown."""
    if study not in VIEWS:
        raise InputError(f"study = {study!r} is unknown here: written by a later version?")
    # one module alone: the others, and what they load, are not needed
    return import_module(f"reports.studies.{VIEWS[study]}").VIEW
