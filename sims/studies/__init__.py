"""What can be done in an experiment: one study a module, one line here.

A study is a function of the experiment, its problem, `progress` and `should_stop` that yields its
tables (see `sims.problem.Study`), which have the columns that its view in `reports.studies`
declares.
"""

from importlib import import_module
from typing import Any, NamedTuple

START = "starting weights"
DIRECTION = "direction"
DIE = "die"
TRIALS = "perturbations and noise"


class Registered(NamedTuple):
    """A study: its function, MODULE.NAME, and what of it comes from run.seed (but for keys of
    their own).
    """

    function: str
    random: tuple[str, ...] = (START, DIRECTION, DIE, TRIALS)

    def load(self) -> Any:
        """The function itself."""
        module, _, name = self.function.partition(".")
        return getattr(import_module(f"sims.studies.{module}"), name)


STUDIES = {
    "compare": Registered("compare.compare_methods"),
    "estimators": Registered("estimators.estimators"),
    "ablation": Registered("ablation.ablation"),
    "dies": Registered("dies.dies"),
    "budget": Registered("budget.budget"),
    "spectrum": Registered("spectrum.spectrum", (START,)),
    "finite-difference": Registered("finite_difference.finite_difference", (START, DIRECTION)),
    "uses": Registered("uses.uses", (START,)),
    "training": Registered("training.training", (START, DIE, TRIALS)),
    "reproduce": Registered("reproduce.reproduce", ()),
}
