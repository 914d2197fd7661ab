"""The chip in time: a controller, tiles of synapses, an analog array with its error unit, a summing
line and a broadcast bus.

SimPy says when, in integer nanoseconds, and every number travels with the events. One trial:

    command       every tile draws its own dw, pushes it into its FIFO, and puts it on its lines
    measure       for every phase (a, b) of the method the array settles under w + a dw + b r v, as
                  all lines stand until the next command, one pattern after another, and the error
                  unit reads E
    summing line  adds the contributions dw_i v_i of all synapses (where the method needs dw.v)
    broadcast     the controller makes dE of its readings; dE and dw.v go over the bus, as words
    accumulate    `latency_ns` after the last word every tile meets the words with the oldest
                  perturbation in its FIFO, and changes its own sums

The next trial starts when the last word has left the bus. What the parts compute stands in
`hardware/parts`; here they are connected, timed and traced.
"""

import gc
import math
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import simpy

from hardware.assembly import Parts, assemble
from hardware.params import ChipParams
from hardware.parts.array import PatternsOf
from hardware.parts.bus import Words
from hardware.parts.synapses import Synapses
from hardware.parts.tile import Tile
from hardware.signals import Flight, Interval, Lines, Message, Signal
from hardware.timing import CAUSES, Timing
from perturb.errors import InputError
from perturb.estimation.design import Design
from perturb.networks.objective import Objective

Array = np.ndarray
Process = Generator[simpy.Event, Any, None]
REFRESHES_SHOWN = 100  # in the trace of a trial
# trials that may start before the words of one have been added: events for each of them
MAX_UNDER_WAY = 10_000


class Course(NamedTuple):
    """Which trials a chip runs: the number and the time in ns of the first; trials that a
    perturbation stands; patterns of an evaluation, 0: as the design says; and which ones a trial
    shows.
    """

    first: int = 0
    start_ns: int = 0
    perturb_every: int = 1
    presented: int = 0
    patterns_of: PatternsOf | None = None


WHOLE = Course()


class EventChip:
    """The parts of a chip in time, and what they tell each other.

    trace, messages: intervals and numbers of the first `trace_trials` trials. counts: how often the
    events have spent each of `timing.CAUSES`; starts_ns: when each trial began; ends_ns: when its
    last tile had accumulated; words: of trials that all tiles have met, for `take_words`.
    """

    def __init__(
        self,
        params: ChipParams,
        objective: Objective,
        design: Design,
        w: Array,
        v: Array,
        trace_trials: int,
        course: Course = WHOLE,
    ):
        self.params = params
        self.objective = objective
        self.design = design
        self.w = w
        self.v = v
        self.trace_trials = trace_trials
        patterns = objective.n_patterns if design.presentation == "batch" else 1
        self.presented = course.presented or patterns
        self.timing = Timing(params, objective, design.method, self.presented)
        self.parts: Parts = assemble(params, objective, design, w, course.patterns_of)
        self._check()
        self.tiles = self._tiles(course)
        self._begin_time(course)

    def _tiles(self, course: Course) -> list[Tile]:
        """The tiles, each with its own synapses and its own part of v."""
        parts = self.parts
        synapse = self.params.synapse
        V = float(self.v @ self.v)
        tiles = []
        for number, part in enumerate(parts.tile_slices()):
            synapses = Synapses(
                synapse,
                self.design,
                parts.die.multiplier[part],
                parts.health.part(part),
                self.v[part],
                V,
            )
            depth = synapse.fifo_depth
            tiles.append(
                Tile(number, part, self.design, synapses, depth, course.first, course.perturb_every)
            )
        return tiles

    def _begin_time(self, course: Course) -> None:
        """Connect the parts, and start what goes on all the time."""
        self.env: Any = simpy.Environment(course.start_ns)  # in integer nanoseconds
        self.trace: list[Interval] = []
        self.messages: list[Message] = []
        self._looks = 0  # at the number of events
        self._displaced = self.design.method.displaced
        self._drops = self.params.bus.drop_probability > 0.0
        self._bus_free_ns = 0  # when the last word that was requested has been sent
        self.counts = dict.fromkeys(CAUSES, 0)
        self._first = course.first
        self.next_trial = course.first  # that is about to begin
        self.starts_ns: list[int] = []  # when each trial began
        self._spent: list[list[int]] = []  # by CAUSES until the end of each trial
        self.ends_ns: list[int] = []
        self.words: list[Words] = []
        bus = self.params.bus
        # tiles get words at different times
        self._disturbed = bus.skew_ns + bus.jitter_ns > 0
        self._latest = [0] * len(self.tiles)  # when each tile gets the last words
        self._in_flight: dict[int, Flight] = {}
        # sums and totals after so many trials, while tiles may be ahead of one another
        self._after: dict[int, tuple[Array, Array]] = {}
        self._reached: dict[int, list[Array]] = {}
        self._pause = math.inf  # number of trials after which `follow` ends
        self._command, self._summed, self._delivery, self._trial_done = (
            Signal(self.env) for _ in range(4)
        )
        self._command.listeners += [tile.perturb for tile in self.tiles]
        # what takes the words of each tile from the bus; one that loses none is a wire
        self._receivers: list[Callable[[Words], None]] = [
            partial(self._receive, tile) if self._drops else tile.receive for tile in self.tiles
        ]
        self._delivery.listeners += [*self._receivers, self._note_accumulation]
        if self.design.method.needs_s:
            self.env.process(self._sum_line())
        self.env.process(self._control())

    def _check(self) -> None:
        """InputError for parts that do not go together."""
        params = self.params
        late = {
            "bus.latency_ns": params.bus.latency_ns,
            "bus.skew_ns": params.bus.skew_ns,
            "bus.jitter_ns": params.bus.jitter_ns,
            "synapse.accumulate_ns": params.synapse.accumulate_ns,
        }
        if sum(late.values()) > MAX_UNDER_WAY * self.timing.trial_ns:
            key = max(late, key=late.__getitem__)
            raise InputError(
                f"{key} = {late[key]} lasts for more than the {MAX_UNDER_WAY:,} trials, of"
                f" {self.timing.trial_ns:g} ns each, that events can follow at a time: lower it"
            )

    # ---- the controller, the array and the error unit

    def _control(self) -> Process:
        """One trial after another: perturb, measure, broadcast."""
        env = self.env
        clock = self.params.clock
        controller = self.parts.controller
        method = self.design.method
        settle_ns = self.params.perturbation.settle_ns
        while True:
            trial = self.next_trial
            start = env.now
            self.starts_ns.append(start)
            self._before(trial)
            self.next_trial = trial + 1
            yield self._command.send(trial)
            self._note_perturbations(trial)
            lines = self._lines()
            # asked for before the evaluations, during which dw.v may become known
            summed = self._summed.event
            # as they are when the trial starts, like those of batches
            w = self.parts.array.weights.weights(start, trial)
            # `Controller.complete` puts in E(w) where it is not measured
            E = np.full(len(method.phases), np.nan)
            for phase in controller.measured(trial):
                start_ns = env.now
                # perturbations settle, then the array does, for one pattern after another
                yield env.timeout(settle_ns + self.presented * self.parts.pattern_ns)
                E[phase] = self._measure(trial, phase, start_ns, w, lines)
                if clock.evaluation_ns:
                    # never negative: `Timing` has checked the clock
                    yield env.timeout(start_ns + clock.evaluation_ns - env.now)
            measured = env.now
            dE = controller.dE(controller.complete(trial, E)[None])
            dE_g, dE_z = (float(self.parts.bus.dE(word)[0]) for word in dE)
            self._tell(trial, "controller", "dE", (dE_g, dE_z))
            # a trial that nobody has asked for yet may be wrong until somebody does: see `_deliver`
            if trial - self._first < self._pause and not np.isfinite(dE_g + dE_z):
                raise self.design.not_finite(trial)
            # dw.v is sent by the summing line
            yield from self._send(trial, method.words[: -1 if method.needs_s else None])
            s = (yield summed) if method.needs_s else 0.0
            if clock.broadcast_ns:
                yield env.timeout(measured + clock.broadcast_ns - env.now)
            self._broadcast(Words(trial, (dE_g, dE_z), s, self._ends_round(trial)))
            self._note_refreshes(trial, start)
            yield from self._between(trial + 1)

    def _lines(self) -> Lines:
        """What all tiles drive their lines with until the next command."""
        dw = np.concatenate([tile.dw for tile in self.tiles])
        if not self._displaced:
            return Lines(dw, 0.0)
        return Lines(dw, np.concatenate([tile.rv for tile in self.tiles]))

    def _measure(self, trial: int, phase: int, start_ns: int, w: Array, lines: Lines) -> float:
        """E as it is read: the array has settled under w and what is on the lines."""
        parts = self.parts
        if trial < self.trace_trials:
            self._note_evaluation(trial, phase, start_ns)
        counts = self.counts
        counts["perturbation"] += self.w.size  # another one than before, of E(w) none again
        counts["mac"] += self.objective.n_macs * self.presented
        works = parts.health.perfect or parts.health.working(trial)
        target = parts.drivers.target(self.design.method.phases[phase], *lines, works)
        key = [(trial, phase)]
        converted = parts.array.crossbar.converted
        errors = parts.array.errors(w, parts.drivers.settle(target)[None], key)
        # of rows and columns, and of the errors
        counts["conversion"] += parts.array.crossbar.converted - converted + self.presented
        E = float(parts.error_unit.read(errors, key)[0])
        self._tell(trial, "error unit", f"E({phase})", E)
        return E

    def _before(self, trial: int) -> None:
        """What happens to the weights before a trial: of a chip that learns."""

    def _between(self, trial: int) -> Process:
        """What the next trial waits for: all else of this moment has happened, so that words which
        arrive now are met before a new perturbation is drawn.
        """
        while self.env.peek() <= self.env.now:
            yield self.env.timeout(0)

    def _ends_round(self, trial: int) -> bool:
        """Whether the tiles are to hold their sums with a trial: of a chip that learns."""
        return False

    # ---- the summing line and the bus

    def _sum_line(self) -> Process:
        """Sums dw.v of every trial and sends it as soon as it is known."""
        env = self.env
        line = self.parts.line
        while True:
            trial = yield self._command.event
            yield env.timeout(line.ready_ns)
            contributions = np.concatenate([tile.contributions for tile in self.tiles])
            s = self.parts.bus.s(line.total(contributions[None], range(trial, trial + 1)))
            self._tell(trial, "summing line", "s", float(s[0]))
            if trial < self.trace_trials:
                start = env.now - line.ready_ns
                self.note(trial, -1, start, "summing line", "sum and convert dw.v")
            self.counts["conversion"] += 1
            yield from self._send(trial, ["dw.v"])
            self._summed.send(float(s[0]))

    def _send(self, trial: int, words: Sequence[str]) -> Process:
        """Words over the bus, one after the other once it is free: first come, first served."""
        bus = self.params.bus
        env = self.env
        word_ns = self.parts.bus.word_ns
        if ("dw.v" in words) != (bus.first == "dw.v"):
            yield env.timeout(0)  # at the same moment the other one asks first
        wait_ns = max(0, self._bus_free_ns - env.now)
        # reserved at once, so that who asks next comes after
        self._bus_free_ns = env.now + wait_ns + len(words) * word_ns
        for word in words:
            yield env.timeout(wait_ns + word_ns)
            wait_ns = 0
            if trial < self.trace_trials:
                self.note(trial, -1, env.now - word_ns, "bus", f"broadcast {word}")
            self.counts["broadcast_bit"] += bus.word_bits

    def _broadcast(self, words: Words) -> None:
        """The last word of a trial has left the bus."""
        self.counts["accumulate"] += self.w.size  # a lost broadcast is charged all the same
        self._spent.append(list(self.counts.values()))
        self._latest = self._arrival_times(words.trial)
        self._in_flight[words.trial] = flight = Flight(words, self._latest, set())
        self.env.process(self._deliver(flight))

    def _arrival_times(self, trial: int) -> list[int]:
        """When each tile gets words that are sent now; none overtakes another on its way."""
        arrives = self.env.now + self.params.bus.latency_ns
        if not self._disturbed:
            return [arrives] * len(self.tiles)
        delay_ns = self.parts.bus.delay_ns
        return [
            max(arrives + delay_ns(trial, tile), last) for tile, last in enumerate(self._latest)
        ]

    def _deliver(self, flight: Flight) -> Process:
        """Words on their way to the tiles that they have not reached before."""
        env = self.env
        words, arrivals, reached = flight
        if self._disturbed:
            # by skew and jitter every tile gets the words at its own time
            late = [tile for tile in self.tiles if tile.number not in reached]
            yield env.all_of([env.process(self._late(tile, flight)) for tile in late])
        else:
            yield env.timeout(arrivals[0] + self.params.synapse.accumulate_ns - env.now)
            yield self._delivery.send(words)
        del self._in_flight[words.trial]
        if not np.isfinite(sum(words.dE)):
            raise self.design.not_finite(words.trial)
        self._accumulated(words)

    def _accumulated(self, words: Words) -> None:
        """All tiles have met the words of a trial."""
        self.parts.controller.count(words)
        self.words.append(words)
        self.ends_ns.append(self.env.now)
        ended = len(self.ends_ns)
        if self._disturbed:
            sums = self._reached.pop(words.trial)
            if ended >= self._pause:  # no fewer will be asked for
                self._after = {k: v for k, v in self._after.items() if k >= self._pause}
                self._after[ended] = (np.concatenate(sums, 1), self.parts.controller.totals.copy())
        if ended >= self._pause:
            self._trial_done.send(words.trial)

    # ---- the tiles

    def _late(self, tile: Tile, flight: Flight) -> Process:
        """Words that reach one tile, at that tile's time."""
        env = self.env
        words, arrivals, reached = flight
        arrival = arrivals[tile.number]
        yield env.timeout(arrival + self.params.synapse.accumulate_ns - env.now)
        reached.add(tile.number)
        self._receivers[tile.number](words)
        self._note_accumulation(words, [tile])
        sums = self._reached.setdefault(words.trial, [other.synapses.sums for other in self.tiles])
        # a copy: this tile may meet further words before the last tile meets these
        sums[tile.number] = tile.synapses.sums.copy()

    def _receive(self, tile: Tile, words: Words) -> None:
        """Words of a bus that loses some."""
        tile.receive(words, self.parts.bus.arrives(words.trial, tile.number))

    # ---- the trace

    def note(
        self, trial: int, phase: int, start: int, unit: str, action: str, end: int | None = None
    ) -> None:
        """Add an interval to the trace, from `start` until `end` (now, if left out), in ns."""
        self.trace.append(
            Interval(trial, phase, start, self.env.now if end is None else end, unit, action)
        )

    def _tell(self, trial: int, sender: str, name: str, value: Any) -> None:
        if trial < self.trace_trials:
            self.messages.append(Message(trial, self.env.now, sender, name, value))

    def _note_perturbations(self, trial: int) -> None:
        if trial < self.trace_trials:
            for tile in self.tiles:
                name = f"tile {tile.number}"
                self.note(trial, -1, self.env.now, name, "draw dw")
                self._tell(trial, name, "dw", tile.dw)
                self._tell(trial, name, "contributions", tile.contributions)

    def _note_accumulation(self, words: Words, tiles: Sequence[Tile] | None = None) -> None:
        if words.trial < self.trace_trials:
            start = self.env.now - self.params.synapse.accumulate_ns
            for tile in self.tiles if tiles is None else tiles:
                name = f"tile {tile.number}"
                self.note(words.trial, -1, start, name, "accumulate")
                self._tell(words.trial, name, "sums", tile.synapses.sums.copy())

    def _note_evaluation(self, trial: int, phase: int, start: int) -> None:
        a, b = self.design.method.phases[phase]
        settled = start + self.params.perturbation.settle_ns
        self.note(trial, phase, start, "perturbation", f"settle at w {a:+d} D {b:+d} rv", settled)
        shown = f"{self.presented} pattern" + "s" * (self.presented > 1)
        self.note(trial, phase, settled, "array and error unit", f"settle and read {shown}")

    def _note_refreshes(self, trial: int, start: int) -> None:
        # besides the trials, whose timing they do not change: what they do follows from the time,
        # see `WeightStore.weights`
        every = self.parts.array.weights.refresh_ns
        if every and trial < self.trace_trials:
            for k in range(start // every + 1, self.env.now // every + 1)[:REFRESHES_SHOWN]:
                self.note(trial, -1, k * every, "weights", "refresh", k * every)

    # ---- running

    def follow(self, trials: int) -> None:
        """Simulate until all tiles have accumulated so many trials."""
        self._pause = trials
        while len(self.ends_ns) < trials:
            self.advance(self._trial_done.event)

    def advance(self, until: simpy.Event) -> None:
        """Simulate until an event."""
        # the collector of cycles, which every few events would look through all that there is, only
        # looks at what is new
        gc.freeze()
        try:
            self.env.run(until=until)
        finally:
            gc.unfreeze()

    def sums_after(self, trials: int) -> tuple[Array, Array]:
        """The tiles' sums (rows, n) and the controller's totals after the trials that were followed
        last.
        """
        if self._disturbed:
            return self._after[trials]
        sums = np.concatenate([tile.synapses.sums for tile in self.tiles], 1)
        return sums, self.parts.controller.totals.copy()

    def solve(self) -> tuple[Array, Array]:
        """g and z (n,) as the tiles find them by themselves, from their own sums, the number of
        trials, and the totals of the controller.
        """
        totals = self.parts.controller.totals
        solved = [tile.solve(len(self.ends_ns), totals) for tile in self.tiles]
        g, z = (np.concatenate(parts) for parts in zip(*solved, strict=True))
        return g, z

    def take_words(self, trials: int) -> Array:
        """dE_g, dE_z and s (3, trials) of the next trials that all tiles have met."""
        taken, self.words = self.words[:trials], self.words[trials:]
        return np.array([(*words.dE, words.s) for words in taken]).T

    @property
    def overflowed(self) -> bool:
        """Whether a FIFO has lost a perturbation that words were still to meet."""
        return any(tile.overflowed for tile in self.tiles)

    def spent(self, trials: int) -> list[int]:
        """How often the first trials, at least one, have spent each of `timing.CAUSES`."""
        return self._spent[trials - 1]

    @property
    def events(self) -> int:
        """Number of events that SimPy has processed or scheduled."""
        # it numbers them, and whoever looks at the next number takes it away
        self._looks += 1
        return next(self.env._eid) - self._looks + 1
