"""What the studies of a chip at the other end of a link have in common: their options, the link,
and what is stored meanwhile.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pandas as pd
from pydantic import Field

from hardware.config import NonNegative, Number, Positive, Table
from hardware.link.care import Care
from hardware.link.drive import Journal, Look
from hardware.link.instrument import Instrument, Line, open_instrument
from hardware.link.server import InProcess
from perturb.errors import InputError
from perturb.estimation.asking import AskEstimate
from perturb.files import write_whole
from perturb.training.asktell import AskTell
from sims.experiment.schema import Setup
from sims.problem import Problem
from sims.studies.emulated import responder_of
from sims.studies.training.records import digest_of

Asking = TypeVar("Asking", AskTell, AskEstimate)
CHIP, EMULATED = "chip", "emulated"
ITSELF = "sim:"  # the link to the emulated chip of the experiment itself


class Drive(Table):
    """Of the studies "drive" and "drive-estimates"; what is learned or estimated, and how, is said
    by [training] and [estimation].
    """

    link: str = Field(
        ITSELF,
        min_length=1,
        max_length=4096,
        description=(
            "address of the chip: python:MODULE:FUNCTION, tcp://HOST:PORT, serial:PORT?baud=NUMBER,"
            " stdio:COMMAND, sim:EXPERIMENT; sim: alone is the emulated chip of this experiment"
        ),
    )
    run: int = Field(
        0,
        ge=0,
        le=10**6,
        description="drive: number of the run, of its start and dw",
    )
    look_every: int = Field(
        100,
        ge=1,
        le=2**40,
        description="updates, or trials, between two looks at E",
    )
    goal: NonNegative = Field(
        0.0, description="drive: measured E at which learning ends; 0 = after training.updates"
    )
    window: int = Field(
        1, ge=1, le=1000, description="evaluations that may be under way to the chip together"
    )
    timeout_s: Positive = Field(
        5.0, description="time after which an answer is taken to be lost, and asked for again"
    )
    tries: int = Field(
        5, ge=1, le=1000, description="attempts at an evaluation before its trial is left out"
    )
    patience_s: Positive = Field(
        60.0, description="time for which a connection that is lost is tried again"
    )
    by_itself: bool = Field(
        True, description="whether a chip that can perturbs its weights by itself"
    )
    low: Number | None = Field(
        None, description="no weight is set below; absent = as the chip says", examples=[-1.0]
    )
    high: Number | None = Field(
        None, description="no weight is set above; absent = as the chip says", examples=[1.0]
    )
    largest_step: NonNegative = Field(
        0.0, description="largest change of a weight in one write; 0 = any"
    )
    settle_s: NonNegative = Field(
        0.0, description="time between a write and a measurement, beside the chip's own"
    )
    tolerance: NonNegative = Field(
        0.0, description="difference of a weight read back that is an incident; 0 = not looked at"
    )

    @property
    def care(self) -> Care:
        """How weights are written."""
        return Care(self.low, self.high, self.largest_step, self.settle_s, self.tolerance)


def opened(experiment: Setup, problem: Problem, options: Drive) -> Instrument:
    """The instrument that an experiment names."""
    if options.link == ITSELF:
        chip = responder_of(experiment, problem, options.run)
        return Line(lambda: InProcess(chip), options.care, by_itself=options.by_itself)
    n = problem.objective.n_weights
    return open_instrument(
        options.link, n, options.care, options.patience_s, by_itself=options.by_itself
    )


def row_of(look: Look) -> dict:
    """A row of the log of the chip."""
    spent = {"evaluations": look.evaluations, "wall_s": look.wall_s}
    return {"source": CHIP, "update": look.updates, **spent, "error": look.error}


def incidents(instrument: Instrument) -> pd.DataFrame:
    """The table of what went wrong."""
    met = instrument.incidents
    rows = [(kind, count, met.worst.get(kind, math.nan)) for kind, count in met.counts.items()]
    return pd.DataFrame(rows, columns=["kind", "count", "worst"]).astype(
        {"kind": str, "count": int, "worst": float}
    )


class Files:
    """What is stored beside the results until the study has ended: the state with its journal, and
    the rows of the log.
    """

    def __init__(self, scratch: Path | None, experiment: Setup):
        self._state: Path | None = None
        self.journal: Journal | None = None
        if scratch is not None:
            scratch.parent.mkdir(parents=True, exist_ok=True)
            self._state = scratch.with_name(f"{scratch.name}-drive-{digest_of(experiment)}.npz")
            self.journal = Journal(self._state)

    @property
    def _rows(self) -> Path | None:
        return self._state and self._state.with_suffix(".json")

    def restored(self, new: Asking, stored: Callable[[Path], Asking]) -> Asking:
        """A new loop, or the one that was stored, with all that it was told."""
        if self._state is None or self.journal is None:
            return new
        loop = new
        if self._state.exists():
            loop = stored(self._state)
            self.journal.replay(loop)
        self.journal.save(loop)
        return loop

    def rows(self) -> list[dict]:
        """The rows of the log that were stored."""
        if self._rows is None or not self._rows.exists():
            return []
        try:
            return json.loads(self._rows.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{self._rows}: damaged: remove it, and the log begins anew") from None

    def keep(self, rows: list[dict]) -> None:
        if self._rows:
            write_whole(self._rows, json.dumps(rows).encode())

    def forget(self) -> None:
        for path in (self._state, self._rows):
            if path:
                path.unlink(missing_ok=True)
