"""What the energy of a training goes into, run by run."""

import math

import pandas as pd

from hardware.timing import TrainingTiming
from sims.experiment.schema import Setup
from sims.studies.training.summary import done, reached

COLUMNS = ["source", "run", "cause", "energy_to_goal_j", "energy_j"]


def energy_table(
    name: str, own: pd.DataFrame, course: TrainingTiming, experiment: Setup
) -> pd.DataFrame:
    """A row per run and cause, of the rows `own` of `learning`: the energy until the goal was first
    seen reached (infinite: never), and in all. Over the causes they sum to `learning`'s energy
    there. The exact gradient spends none.
    """
    rows: list[tuple] = []
    if name != "exact":
        own = done(own)
        last = own.groupby("run")["update"].last().to_dict()
        first = own[reached(own, experiment)].groupby("run")["update"].first().to_dict()
        for run, update in last.items():
            spent = course.energy_by_cause(update)
            to_goal = dict.fromkeys(spent, math.inf)
            if run in first:
                to_goal = course.energy_by_cause(first[run])
            rows += [(name, run, cause, to_goal[cause], joules) for cause, joules in spent.items()]
    # an empty table would have columns of objects
    kinds = {"run": "int64", "energy_to_goal_j": "float64", "energy_j": "float64"}
    return pd.DataFrame(rows, columns=COLUMNS).astype(kinds)
