"""Learning or an estimate on an instrument: asks, measures and tells."""

import math
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hardware.link.instrument import Instrument
from hardware.link.messages import LinkError
from perturb.errors import InputError
from perturb.estimation.asking import AskEstimate
from perturb.estimation.questions import Evaluation
from perturb.training.asktell import AskTell

Array = np.ndarray
# evaluations of E(w) for the log: beside those of trials, whose numbers are from 0 on
LOG = -1
LOOK_PHASE = 2**20  # of their noise, beyond the phases of any trial
# failed answers in a row after which the chip is given up
HOPELESS = 100


class Look(NamedTuple):
    """What is seen now and then of learning on an instrument.

    Attributes
    ----------
    updates, evaluations : int
        So far; the latter of this session, repeated ones and those of the log included.
    error : float
        E(w), measured; NaN if that failed.
    wall_s : float
        Since the session began.
    """

    updates: int
    evaluations: int
    error: float
    wall_s: float


class Journal:
    """What was told since the state was last stored, one line for each answer, so that no answer is
    lost however a session ends.

    path: of the state; the journal is beside it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._beside = path.with_name(path.name + ".told")
        self._file: int | None = None

    def replay(self, loop: AskTell | AskEstimate) -> int:
        """Tell a loop that was loaded what the journal has; how many answers were news."""
        if not self._beside.exists():
            return 0
        # the last line may be cut short, if the machine went down while it was written
        lines = self._beside.read_bytes().split(b"\n")[:-1]
        news = 0
        for line in lines:
            try:
                id, value = line.split(b" ")
                news += loop.tell(int(id), float.fromhex(value.decode("ascii")))
            except (ValueError, InputError):
                raise InputError(
                    f"{self._beside}: damaged: remove it, and the run goes on from the state before"
                ) from None
        return news

    def note(self, id: int, value: float) -> None:
        """Write down an answer; it is the system's when this returns."""
        if self._file is None:
            self._file = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(self._file, f"{id} {float(value).hex()}\n".encode("ascii"))

    def save(self, loop: AskTell | AskEstimate) -> None:
        """Store the state, which has all that the journal has."""
        loop.save(self.path)
        self.close()
        self._beside.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Driver:
    """Measures on an instrument what a loop asks for.

    window: evaluations that may be under way together. timeout_s: after which an evaluation is
    taken to be lost, and asked for again. journal: of answers, None: they are not written down.
    should_stop: asked before every measurement; true ends the session as it is.
    """

    def __init__(
        self,
        instrument: Instrument,
        window: int = 1,
        timeout_s: float = 5.0,
        journal: Journal | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ):
        self.should_stop = should_stop
        self.instrument, self.window, self.timeout_s = instrument, window, timeout_s
        self.journal = journal
        self.evaluations = 0
        self.lost = 0
        self._began = time.monotonic()
        self._flying: dict[int, float] = {}  # when it is lost, by the number of the evaluation
        self._failed = 0

    def learn(self, loop: AskTell, updates: int, every: int) -> Generator[Look, None, None]:
        """Learn until so many updates are done in all, or learning has ended by itself; a look at
        the start, after every `every` updates, and at the end.

        Safe weights whatever way it ends, and the state stored.
        """
        with self._ending(loop):
            yield self._look(loop, loop.updates)
            while loop.updates < updates and not loop.stopped:
                stop = min(updates, loop.updates - loop.updates % every + every)
                while loop.updates < stop and not loop.stopped:
                    if self.should_stop():
                        return
                    self._step(loop)
                if self.journal:
                    self.journal.save(loop)
                yield self._look(loop, loop.updates)

    def estimate(self, asking: AskEstimate, every: int) -> Generator[Look, None, None]:
        """Measure all that an estimate asks for; a look, which shows drift as the weights stay, at
        the start, after about every `every` evaluations, and at the end.

        Safe weights whatever way it ends, and the state stored.
        """
        with self._ending(asking):
            yield self._look(asking, 0)
            seen = self.evaluations
            while not asking.complete:
                if self.should_stop():
                    return
                self._step(asking)
                if self.evaluations - seen >= every or asking.complete:
                    if self.journal:
                        self.journal.save(asking)
                    yield self._look(asking, 0)
                    seen = self.evaluations

    def _ending(self, loop: AskTell | AskEstimate) -> "_Ending":
        return _Ending(self, loop)

    def _step(self, loop: AskTell | AskEstimate) -> None:
        """Ask for as many evaluations as may be under way, and tell what has come."""
        now = time.monotonic()
        for evaluation in loop.ask(max(0, self.window - len(self._flying))):
            self.instrument.submit(evaluation)
            self.evaluations += 1
            self._flying[evaluation.id] = now + self.timeout_s
        soonest = min(self._flying.values(), default=now)
        for id, value in self.instrument.collect(max(0.0, soonest - time.monotonic())):
            self._tell(loop, id, value)
        self._give_up_late(loop)

    def _tell(self, loop: AskTell | AskEstimate, id: int, value: float | None) -> None:
        if id == LOG:
            return  # of a look that did not wait for it
        self._flying.pop(id, None)
        good = value is not None and math.isfinite(value)
        if good and self.journal:
            self.journal.note(id, float(value or 0.0))
        loop.tell(id, value)
        self._failed = 0 if good else self._failed + 1
        if self._failed >= HOPELESS:
            met = ", ".join(self.instrument.incidents.counts) or "not finite"
            raise LinkError(
                f"{HOPELESS} answers in a row were no measurements ({met}): look at the chip"
            )

    def _give_up_late(self, loop: AskTell | AskEstimate) -> None:
        now = time.monotonic()
        for id in [id for id, end in self._flying.items() if end <= now]:
            self.lost += 1
            self.instrument.incidents.note("no answer in time")
            self._tell(loop, id, None)

    def _look(self, loop: AskTell | AskEstimate, updates: int) -> Look:
        """E at the weights as they are."""
        w, number = loop.w, self.evaluations
        wanted = Evaluation(LOG, w, 0, number, LOOK_PHASE, lambda: 0.0 * w, own=False)
        self.instrument.submit(wanted)
        self.evaluations += 1
        error, end = math.nan, time.monotonic() + self.timeout_s
        while (left := end - time.monotonic()) > 0:
            answers = self.instrument.collect(left)
            for id, value in answers:
                if id != LOG:
                    self._tell(loop, id, value)
            mine = [value for id, value in answers if id == LOG]
            if mine:
                error = math.nan if mine[0] is None else mine[0]
                break
        return Look(updates, self.evaluations, error, time.monotonic() - self._began)


class _Ending:
    """Whatever way a session ends: safe weights, and then the state."""

    def __init__(self, driver: Driver, loop: AskTell | AskEstimate):
        self.driver, self.loop = driver, loop

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.driver.instrument.safe()
        except LinkError:
            # the chip's own watchdog is left
            self.driver.instrument.incidents.note("safe weights could not be sent")
        finally:
            if self.driver.journal:
                self.driver.journal.save(self.loop)
