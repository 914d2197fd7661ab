"""The study "reproduce": claims of the literature against the emulator."""

import pandas as pd
from pydantic import Field

from hardware.config import Name, Table
from sims.claims import chosen
from sims.claims.claim import Row
from sims.described import says
from sims.experiment.schema import Setup
from sims.problem import Problem, Progress, ShouldStop, Study, raise_if_stopped


class Reproduce(Table):
    """Of the study "reproduce"."""

    claim: Name = Field(
        "all", description="which claim of the literature: see perturb reproduce; or all of them"
    )


def reproduce(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Table summary, a row per statement, see `reports.frames`; network and data of the
    experiment are not used.
    """
    claims = chosen(experiment.options(Reproduce).claim)
    rows = []
    for done, (name, claim) in enumerate(claims.items()):
        progress("claims", done, len(claims))
        for row in claim(experiment.run.seed):
            rows.append((name, says(claim).rstrip("."), *row))
            # after every row: an interrupted study keeps those that are done
            yield "summary", pd.DataFrame(rows, columns=["name", "says", *Row._fields])
            raise_if_stopped(should_stop)
    progress("claims", len(claims), len(claims))
