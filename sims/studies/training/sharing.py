"""Runs of one source of updates shared out among processes: those that have no kernel take one core
each.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import numpy as np

from hardware.on_chip import OnChip, on_chip
from hardware.params import ChipParams
from hardware.training import held_weights, join_runs, some_runs, source
from perturb.threads import blas_threads, n_threads
from perturb.training.loop import Source
from perturb.training.of_runs import Learned, OfRuns
from perturb.training.plan import Plan, State
from perturb.training.sources import Batch
from sims.experiment.schema import Setup
from sims.processes import begin_work, may_spawn, spawn
from sims.studies.training.options import Training

Array = np.ndarray
AFTER_S = 1.0  # of learning: a process takes about as long to start


@dataclass(frozen=True)
class Learning:
    """What `hardware.training.source` is made of. dies: that of each run; own_trials: whether all
    learn by trials of the chip itself, which for some of them would not be needed.
    """

    chip: ChipParams
    objective: Learned
    plan: Plan
    W: Array
    events: bool
    waits: bool
    dies: Sequence[int]
    own_trials: bool = False

    def of(self, first: int, last: int) -> Source:
        """The source of the runs from `first` on, before `last`."""
        plan = replace(self.plan, first_run=first)
        w, dies = self.W[first:last], self.dies[first:last]
        make = on_chip if self.own_trials else source
        objective = self.objective
        if isinstance(objective, OfRuns):
            objective = objective.some(first, last)
        return make(self.chip, objective, plan, w, self.events, self.waits, dies)


class Helpers:
    """Processes that take runs of one source after another; they start when a source has learned
    for `after_s`.

    count: how many besides this one, by default as many as there are further cores; none in the
    processes of a sweep, which share the cores already.
    """

    def __init__(self, count: int | None = None, after_s: float = AFTER_S):
        free = n_threads() - 1 if may_spawn() else 0
        self.count = free if count is None else count
        self.after_s = after_s
        self.lines: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        self._waited: set[Connection] = set()
        self._failed = False

    def ready(self, learned_s: float) -> bool:
        """Whether all of them can take runs, when a source has learned for so long."""
        # once they are there they are used at once, by whatever source learns next
        if self._failed or not self.count or learned_s < self.after_s and not self.lines:
            return False
        if not self.lines:
            pairs = [spawn(help_learning, 1) for _ in range(self.count)]
            self._processes = [process for process, _ in pairs]
            self.lines = [line for _, line in pairs]
            self._waited = set(self.lines)
        try:
            for line in [line for line in self._waited if line.poll()]:
                line.recv()
                self._waited.remove(line)
        except (EOFError, OSError):
            self.give_up()
            return False
        return not self._waited

    def give_up(self) -> None:
        """End them: from now on this process works alone."""
        self._failed = True
        for process, line in zip(self._processes, self.lines, strict=True):
            # kill, not terminate: this process knows all that they have done
            process.kill()
            process.join()
            line.close()
        self._processes, self.lines = [], []

    def __enter__(self) -> "Helpers":
        return self

    def __exit__(self, *_: object) -> None:
        self.give_up()


def shared(
    experiment: Setup,
    objective: Learned,
    plan: Plan,
    W: Array,
    helpers: Helpers,
    dies: Sequence[int] | None = None,
) -> Source:
    """The source of an experiment's chip from the starts W (R, n), run r on die dies[r], or r; its
    runs are shared out, unless a kernel has threads for them.
    """
    options = experiment.options(Training)
    R = len(W)
    events = options.source == "event"
    numbers = range(R) if dies is None else dies
    chip = experiment.made_chip()
    learning = Learning(chip, objective, plan, W, events, options.waits, numbers)
    whole = learning.of(0, R)
    in_kernel = isinstance(whole, Batch) and whole.precision == "float32"
    if in_kernel or R == 1:
        return whole
    return Shared(replace(learning, own_trials=isinstance(whole, OnChip)), whole, helpers)


class Shared:
    """A source whose runs are at first all in this process, and then shared out: their numbers are
    the same, as a run knows nothing of others.

    A process that ends early, for want of memory perhaps, ends the others: this one goes on alone,
    from where all stood.
    """

    def __init__(self, learning: Learning, whole: Source, helpers: Helpers):
        self.plan = learning.plan
        self._learning = learning
        self._helpers = helpers
        # all runs, or those that this process keeps
        self._own = whole
        self._learned_s = 0.0
        # the first runs of all processes, this one first, and the number of all runs
        self._ends = [0, len(learning.W)]

    @property
    def is_shared(self) -> bool:
        return len(self._ends) > 2

    @property
    def speedup(self) -> int:
        """How many times as fast it becomes, at most, once its runs are shared out."""
        return 1 if self.is_shared else min(self._helpers.count + 1, self._ends[-1])

    def advance(self, state: State, updates: int) -> None:
        if not self.is_shared and self._helpers.ready(self._learned_s):
            self._share(state)
        begun = time.perf_counter()
        # sums of BLAS depend on its threads, and runs must not depend on where they are
        with blas_threads(0):
            if self.is_shared:
                try:
                    self._together(state, updates)
                    return
                except (EOFError, OSError):
                    self._alone_again(state)
            self._own.advance(state, updates)
        self._learned_s += time.perf_counter() - begun

    def resume(self, state: State) -> None:
        self._own.resume(state)

    def held(self, state: State) -> tuple[Array, Array]:
        """See `hardware.training.held_weights`."""
        if self.is_shared:
            try:
                own, *others = self._parts(state)
                self._tell([("hold", other) for other in others])
                found = [held_weights(self._own, own), *self._hear()]
                return np.concatenate([w for w, _ in found]), np.concatenate([n for _, n in found])
            except (EOFError, OSError):
                self._alone_again(state)
        return held_weights(self._own, state)

    def _share(self, state: State) -> None:
        R = len(state.w)
        processes = min(len(self._helpers.lines) + 1, R)
        self._ends = [R * k // processes for k in range(processes + 1)]
        own, *others = self._parts(state)
        with suppress(OSError):  # one that has died: `_together` finds out
            spans = zip(self._ends[1:], self._ends[2:], strict=False)
            self._tell(
                [
                    ("take", (self._learning, *span, other))
                    for span, other in zip(spans, others, strict=True)
                ]
            )
        self._own = _resumed(self._learning, 0, self._ends[1], own)

    def _together(self, state: State, updates: int) -> None:
        own, *others = self._parts(state)
        self._tell([("advance", (other, updates)) for other in others])
        self._own.advance(own, updates)
        # in place: it is always the same object, see `train`
        vars(state).update(vars(join_runs([own, *self._hear()])))

    def _alone_again(self, state: State) -> None:
        self._helpers.give_up()
        self._ends = [0, len(state.w)]
        self._own = _resumed(self._learning, 0, len(state.w), state)

    def _parts(self, state: State) -> list[State]:
        spans = zip(self._ends, self._ends[1:], strict=False)
        return [some_runs(state, first, last) for first, last in spans]

    def _tell(self, words: list[tuple[str, object]]) -> None:
        for line, each in zip(self._helpers.lines, words, strict=False):
            line.send(each)

    def _hear(self) -> list:
        # of as many as have runs: where there are fewer runs than processes, some have none
        return [line.recv() for line in self._helpers.lines[: len(self._ends) - 2]]


def _resumed(learning: Learning, first: int, last: int, state: State) -> Source:
    made = learning.of(first, last)
    # before its first update a source has nothing to take up again
    if state.update:
        made.resume(state)
    return made


def help_learning(line: Connection, threads: int) -> None:
    """What a helper does: the updates of the runs that it was given last, until its line is
    closed.
    """
    begin_work(threads)
    line.send("ready")
    made: Source
    # any mistake ends it: who waits does the same alone, and meets the mistake there
    with suppress(Exception), blas_threads(0):
        while True:
            word, what = line.recv()
            if word == "take":
                made = _resumed(*what)
            elif word == "advance":
                state, updates = what
                made.advance(state, updates)
                line.send(state)
            else:
                line.send(held_weights(made, what))
