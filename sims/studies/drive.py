"""The study "drive": learning on a real chip, or on what stands for one, next to the emulated run
of the same experiment.
"""

import json
import math
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from hardware.config import NonNegative, Number, Positive, Table
from hardware.link.care import Care
from hardware.link.drive import Driver, Journal
from hardware.link.instrument import Instrument, Line, open_instrument
from hardware.link.server import InProcess
from hardware.training import source
from perturb.errors import InputError
from perturb.files import write_whole
from perturb.training.asktell import AskTell
from perturb.training.loop import begin, train
from perturb.training.plan import Plan
from sims.experiment.schema import Setup
from sims.problem import (
    Array,
    Fact,
    Problem,
    Progress,
    ShouldStop,
    Stopped,
    Study,
    facts,
    raise_if_stopped,
)
from sims.studies.emulated import plan_of_run, responder_of, start_of
from sims.studies.training.options import Training
from sims.studies.training.records import digest_of

CHIP, EMULATED = "chip", "emulated"
ITSELF = "sim:"  # the link to the emulated chip of the experiment itself


class Drive(Table):
    """Of the study "drive"; what is learned, and how, is said by [training] and [estimation]."""

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
        0, ge=0, le=10**6, description="which of the runs: its starting weights and perturbations"
    )
    look_every: int = Field(
        100, ge=1, le=2**40, description="updates between two measurements of E for the log"
    )
    goal: NonNegative = Field(
        0.0, description="measured E at which learning ends; 0 = after training.updates"
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


def drive(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables log (a row per look, of the emulated run and of the chip), incidents, set_weights
    and summary (facts).
    """
    options, updates = experiment.options(Drive), experiment.options(Training).updates
    w = start_of(experiment, problem, options.run)
    plan = plan_of_run(experiment, problem, w, options.run)
    files = _Files(problem.scratch, experiment)
    loop = files.loop(w, plan, problem.objective.n_patterns, options.tries)
    # before the chip is touched: what the emulator expects of it
    expected = _emulated(experiment, problem, plan, w, updates, should_stop)
    yield "log", expected

    instrument = _opened(experiment, problem, options)
    driver = Driver(instrument, options.window, options.timeout_s, files.journal, should_stop)
    rows = files.rows()
    # the session ends, with safe weights, before the link does
    with closing(instrument), closing(driver.learn(loop, updates, options.look_every)) as looks:
        for look in looks:
            progress(CHIP, look.updates, updates)
            spent = {"evaluations": look.evaluations, "wall_s": look.wall_s}
            row = {"source": CHIP, "update": look.updates, **spent, "error": look.error}
            files.keep(rows := [*rows, row])
            if options.goal and look.error <= options.goal:
                break
    yield "log", pd.concat([expected, pd.DataFrame(rows)], ignore_index=True)
    yield "incidents", _incidents(instrument)
    yield "set_weights", pd.DataFrame({"index": np.arange(w.size), "w": loop.result})
    yield "summary", facts(_summary(loop, driver, rows, expected))
    if should_stop():
        raise Stopped
    files.forget()


def _opened(experiment: Setup, problem: Problem, options: Drive) -> Instrument:
    if options.link == ITSELF:
        chip = responder_of(experiment, problem, options.run)
        return Line(lambda: InProcess(chip), options.care, by_itself=options.by_itself)
    n = problem.objective.n_weights
    return open_instrument(
        options.link, n, options.care, options.patience_s, by_itself=options.by_itself
    )


def _emulated(
    experiment: Setup,
    problem: Problem,
    plan: Plan,
    w: Array,
    updates: int,
    should_stop: ShouldStop,
) -> pd.DataFrame:
    """The same run on the emulated chip: E at its weights, exactly."""
    options = experiment.options(Drive)
    objective = problem.objective
    waits = experiment.options(Training).waits
    of = source(experiment.chip, objective, plan, w[None], waits=waits, dies=[options.run])
    rows = []
    for state in train(of, begin(w, plan), updates, options.look_every):
        raise_if_stopped(should_stop)
        with np.errstate(all="ignore"):
            error = objective.error(state.result[0])
        rows.append(
            {
                "source": EMULATED,
                "update": state.update,
                "evaluations": state.evaluations,
                "wall_s": math.nan,
                "error": error,
            }
        )
        if options.goal and error <= options.goal:
            break
    return pd.DataFrame(rows)


def _incidents(instrument: Instrument) -> pd.DataFrame:
    met = instrument.incidents
    rows = [(kind, count, met.worst.get(kind, math.nan)) for kind, count in met.counts.items()]
    return pd.DataFrame(rows, columns=["kind", "count", "worst"]).astype(
        {"kind": str, "count": int, "worst": float}
    )


def _summary(loop: AskTell, driver: Driver, rows: list[dict], expected: pd.DataFrame) -> list[Fact]:
    measured = [row["error"] for row in rows]
    predicted = expected["error"].to_numpy()
    found = [
        Fact("start_error", measured[0], "E at the start, measured once", CHIP),
        Fact("final_error", measured[-1], "E at the end, measured once", CHIP),
        Fact("start_error", predicted[0], "E at the start, exact", EMULATED),
        Fact("final_error", predicted[-1], "E at the end, exact", EMULATED),
        Fact("updates", float(loop.updates), "updates done", CHIP),
        Fact(
            "evaluations",
            float(driver.evaluations),
            "measurements of E in the last session, those of the log and repeated ones included",
            CHIP,
        ),
        Fact(
            "left_out",
            float(loop.left_out),
            "evaluations given up, whose trials do not count",
            CHIP,
        ),
        Fact("skipped", float(loop.skipped), "updates not made, as nothing was measured", CHIP),
    ]
    return found


class _Files:
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

    def loop(self, w: Array, plan: Plan, n_patterns: int, tries: int) -> AskTell:
        """A new loop, or the one that was stored, with all that it was told."""
        if self._state is None or self.journal is None or not self._state.exists():
            loop = AskTell(w, plan, n_patterns, tries)
        else:
            loop = AskTell.load(self._state, plan)
            self.journal.replay(loop)
        if self.journal:
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
