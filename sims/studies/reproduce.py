"""The study "reproduce": claims of the literature against the emulator."""

import pandas as pd

from sims.claims import chosen, says
from sims.claims.claim import Row
from sims.experiment.schema import Experiment
from sims.problem import Problem, Progress, ShouldStop, Study, go_on


def reproduce(
    experiment: Experiment, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Table summary, a row per statement, see `reports.frames`; network and data of the
    experiment are not used.
    """
    claims = chosen(experiment.reproduce.claim)
    rows = []
    for done, (name, claim) in enumerate(claims.items()):
        progress("claims", done, len(claims))
        for row in claim(experiment.run.seed):
            rows.append((name, says(claim), *row))
            yield "summary", pd.DataFrame(rows, columns=["name", "says", *Row._fields])
            go_on(should_stop)
    progress("claims", len(claims), len(claims))
