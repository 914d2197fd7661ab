"""The chip in time: a controller, tiles of synapses, an analog array with its error unit, a summing
line and a broadcast bus.

SimPy says when, in whole nanoseconds. One trial: the tiles perturb; for every phase of the method
the perturbation settles, the patterns settle in the array and are read one after another. The words
go over the bus, dE after the last evaluation, dw.v (where the method needs it) as soon as the line
has summed it; `latency_ns` after the last of them every tile meets them with the oldest
perturbation in its FIFO. The next trial starts when the last word has left the bus. No time depends
on a value: events say when things happen and what meets what, and the numbers are made of that
afterwards, many trials at once, see `hardware.sums`. Once the schedule repeats itself, the batch
kernels may run the remaining trials with the same numbers.
"""

import gc
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import simpy

from hardware.params import ChipParams, imperfections
from hardware.schedule import Schedule
from hardware.sums import Sums
from hardware.tile import Tile
from hardware.values import Values, made_on
from perturb.errors import InputError, choose
from perturb.estimation.design import Design, check_trials
from perturb.estimation.engine import run_trials
from perturb.estimation.point import check_point
from perturb.estimation.precision import chosen
from perturb.estimation.solution import Estimate
from perturb.estimation.statistics import Statistics
from perturb.networks.objective import Objective
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method

Array = np.ndarray
FIDELITIES = ("event", "batch", "auto")
CAUSES = ("perturbation", "mac", "conversion", "broadcast_bit", "accumulate")
REFRESHES_SHOWN = 100  # in the trace of a trial
UNDER_WAY = (
    10_000  # trials that may start before the words of one have been added: events for each of them
)
WIDER = 20  # powers of two by which a converter that saturated is made wide enough


class Interval(NamedTuple):
    """One entry of the timeline. phase: the evaluation within the trial, -1 outside any."""

    trial: int
    phase: int
    start_ns: int
    end_ns: int
    unit: str
    action: str


class Learner(Protocol):
    """What changes the weights of a chip between rounds of trials; see
    `hardware.updates.Learning`.
    """

    every: int

    def begin(self, trial: int, start: int) -> None: ...

    def between(self, trial: int) -> Iterator[Any]: ...

    def update(self, trial: int) -> Iterator[Any]: ...


class Chip:
    """A chip that estimates g and z = Hv of `objective` at w by weight perturbation.

    fidelity: "event" simulates every trial in time; "auto" does so until three trials in a row took
    the same time and energy, and runs the rest in batches; "batch" runs all values in batches and
    the events only for the schedule. For the same seed all three agree within rounding. A FIFO too
    short for the bus latency can only be had at event level. precision: of the batches, as of
    `perturb.estimate`; "float32" is faster and agrees to its own rounding. start: (number, time in
    ns) of the first trial, where the chip goes on with what it has learned. learning: makes, for
    this chip, what changes its weights between trials (`hardware.updates.Learning`).

    After `run`: time_s and energy_j up to the arrival of the last broadcast (energy_by_cause splits
    it), events (of SimPy), trace (the intervals of the first `trace_trials` trials), statistics.
    """

    def __init__(
        self,
        params: ChipParams,
        objective: Objective,
        w: Array,
        v: Array,
        method: str | Method = "difference",
        code: str | Code = "walsh",
        sigma: float = 1e-2,
        r: float = 1e-2,
        seed: int = 0,
        presentation: str = "batch",
        fidelity: str = "auto",
        trace_trials: int = 4,
        precision: str = "float64",
        start: tuple[int, int] = (0, 0),
        learning: Callable[["Chip"], "Learner"] | None = None,
    ):
        method = choose("method", method, METHODS) if isinstance(method, str) else method
        code = choose("code", code, CODES) if isinstance(code, str) else code
        choose("fidelity", fidelity, dict.fromkeys(FIDELITIES))
        self.params = params
        self.objective = objective
        self.fidelity = fidelity
        self.trace_trials = trace_trials
        code = made_on(params, code, objective.n_weights)
        self.design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
        self.point = check_point(objective, w, v, self.design)
        self.w = self.point.w
        self.v = self.point.v
        n = self.w.size
        self.statistics = Statistics(self.design)
        self.presented = objective.n_patterns if presentation == "batch" else 1
        self.values = Values(params, objective, self.design, self.w, self.v, self._start_ns)
        self.statistics.bind(self.point.record(self.values.reading))
        if precision == "float32" and not self.values.plain:
            raise InputError(
                f'precision = "float32" has no kernel for {", ".join(imperfections(params))}: use'
                ' "auto" or "float64"'
            )
        own = precision if self.values.plain else "float64"
        self.precision = chosen(own, self.point, self.values.reading, self.design)
        size = params.synapses_per_tile
        depth = params.synapse.fifo_depth
        self._first, now = start
        self.tiles = [
            Tile(number, i, min(i + size, n), depth, self._first)
            for number, i in enumerate(range(0, n, size))
        ]
        if params.faults.tile >= len(self.tiles):
            raise InputError(
                f"faults.tile = {params.faults.tile} but the chip has tiles 0 to"
                f" {len(self.tiles) - 1}"
            )
        if presentation == "pattern" and self.values.keeps_baseline:
            raise InputError(
                f"error_unit.baseline_every = {params.error_unit.baseline_every} would compare the"
                ' errors of different patterns: set it to 1, or presentation = "batch"'
            )
        self.schedule = Schedule(params, objective, method, self.presented)
        late = {
            "bus.latency_ns": params.bus.latency_ns,
            "bus.skew_ns": params.bus.skew_ns,
            "bus.jitter_ns": params.bus.jitter_ns,
            "synapse.accumulate_ns": params.synapse.accumulate_ns,
        }
        if sum(late.values()) > UNDER_WAY * self.schedule.trial_ns:
            key = max(late, key=late.__getitem__)
            raise InputError(
                f"{key} = {late[key]} lasts for more than the {UNDER_WAY:,} trials, of"
                f" {self.schedule.trial_ns:g} ns each, that events can follow at a time: lower it"
            )

        self.env: Any = simpy.Environment(now)  # in whole nanoseconds
        self._looks = 0  # at the number of events
        self._bus_free_ns = 0  # when all words have been sent that somebody has asked for
        self.trace: list[Interval] = []
        self._counts = dict.fromkeys(CAUSES, 0)
        self._command, self._summed, self._delivery = (self.env.event() for _ in range(3))
        self.sums = Sums(self.values, self.tiles, self._first)
        self._starts: list[int] = []  # time when each trial began
        self._spent: list[
            tuple[int, ...]
        ] = []  # counts of all trials so far by CAUSES, at the end of each
        self._ends: list[int] = []  # time when each trial's last tile had accumulated
        self._disturbed = (
            params.bus.skew_ns + params.bus.jitter_ns > 0
        )  # whether tiles get a broadcast at times of their own
        self._heard = [0] * len(self.tiles)  # time when each tile gets the last broadcast
        # of broadcasts under way: these times; and of each tile reached, the trial whose
        # perturbation was met there
        self._sent: dict[int, tuple[list[int], dict[int, int]]] = {}
        self._trial_done = self.env.event()
        self._pause = math.inf  # number of trials after which `run` goes on
        self._steady = False
        self.learning = learning(self) if learning else None
        if self.learning:
            self.sums.heard = None  # broadcasts are for standard errors, which nobody asks for here
        for tile in self.tiles:
            self.env.process(self._perturb(tile))
            self.env.process(self._accumulate(tile))
        if method.needs_s:
            self.env.process(self._sum_line())
        self.env.process(self._control())

    # ---- processes

    def _control(self):
        p = self.params
        env = self.env
        method = self.design.method
        values = self.values
        counts = self._counts
        n = self.w.size
        evaluation_ns = self.schedule.evaluation_ns
        needs_s = method.needs_s
        shown = self.trace_trials
        spare_ns = p.clock.evaluation_ns and p.clock.evaluation_ns - evaluation_ns
        words = method.words[: -1 if needs_s else None]
        trial = self._first
        while True:
            start = env.now
            self._starts.append(start)
            if self.learning:
                self.learning.begin(trial, start)
            self._command = self.emit(self._command, trial)
            summed = self._summed
            for phase in values.measured_phases(trial):
                yield env.timeout(evaluation_ns)
                if trial < shown:
                    self._note_evaluation(trial, phase)
                if spare_ns:
                    yield env.timeout(spare_ns)
                counts["perturbation"] += n  # another one than before, of E(w) none again
                counts["mac"] += self.objective.n_macs * self.presented
                counts["conversion"] += self.presented
            measured = env.now
            yield from self._send(trial, words)
            if needs_s:
                yield summed
            if p.clock.broadcast_ns:
                yield env.timeout(measured + p.clock.broadcast_ns - env.now)
            counts["accumulate"] += n  # a lost broadcast is charged all the same
            self._spent.append(tuple(counts.values()))
            self._heard = self._hear(trial)
            self._sent[trial] = (self._heard, {})
            env.process(self._deliver(trial))
            if trial < shown:
                self._note_refreshes(trial, start)
            trial += 1
            if self.learning:
                yield from self.learning.between(trial)

    def _sum_line(self):
        """Sums dw.v of every trial and sends it as soon as it is known."""
        env = self.env
        line = self.params.summing_line
        ready_ns = line.settle_ns + line.conversion_ns
        while True:
            trial = yield self._command
            yield env.timeout(ready_ns)
            if trial < self.trace_trials:
                self.note(trial, -1, env.now - ready_ns, "summing line", "sum and convert dw.v")
            self._counts["conversion"] += 1
            yield from self._send(trial, ["dw.v"])
            self._summed = self.emit(self._summed, trial)

    def _send(self, trial: int, words: list[str]):
        """Words over the bus, one after the other once it is free: whoever asks first is served
        first.
        """
        bus = self.params.bus
        env = self.env
        word_ns = self.schedule.word_ns
        if ("dw.v" in words) != (bus.first == "dw.v"):
            yield env.timeout(0)  # at the same moment the other one asks first
        wait_ns = max(0, self._bus_free_ns - env.now)
        self._bus_free_ns = env.now + wait_ns + len(words) * word_ns
        for word in words:
            yield env.timeout(wait_ns + word_ns)
            wait_ns = 0
            if trial < self.trace_trials:
                self.note(trial, -1, env.now - word_ns, "bus", f"broadcast {word}")
            self._counts["broadcast_bit"] += bus.word_bits

    def _hear(self, trial: int) -> list[int]:
        """When each tile gets a broadcast that is sent now; none overtakes another on its way."""
        tiles = len(self.tiles)
        arrives = self.env.now + self.params.bus.latency_ns
        if not self._disturbed:
            return [arrives] * tiles
        return [
            max(arrives + self.values.late_ns(trial, tile, tiles), last)
            for tile, last in enumerate(self._heard)
        ]

    def _deliver(self, trial: int):
        """A broadcast on its way, to tiles that it has not reached before."""
        env, (heard, met) = self.env, self._sent[trial]
        if self._disturbed:
            late = [
                self._late(tile, trial, heard[tile.number], met)
                for tile in self.tiles
                if tile.number not in met
            ]
            yield env.all_of([env.process(process) for process in late])
        else:
            yield env.timeout(max(0, heard[0] - env.now))  # 0: that was before a run went on
            yield env.timeout(heard[0] + self.params.synapse.accumulate_ns - env.now)
            delivery = self._delivery
            self._delivery = self.emit(delivery, (trial, met))
            yield delivery  # after all tiles, which have waited for longer
        del self._sent[trial]
        self._ends.append(env.now)
        if self.fidelity != "batch":
            self.sums.add(met)
        if self.learning and (trial + 1) % self.learning.every == 0:
            env.process(self.learning.update(trial))
        if len(self._ends) >= self._pause:
            self._trial_done = self.emit(self._trial_done, trial)

    def _late(self, tile: Tile, trial: int, start: int, met: dict[int, int]):
        """A broadcast that reaches each tile at a time of its own."""
        env = self.env
        yield env.timeout(max(0, start - env.now))
        yield env.timeout(start + self.params.synapse.accumulate_ns - env.now)
        tile.receive(met)
        if trial < self.trace_trials:
            self.note(trial, -1, start, f"tile {tile.number}", "accumulate")

    def _perturb(self, tile: Tile):
        perturb, shown = tile.perturb, self.trace_trials  # a thousand tiles do this in every trial
        while True:
            trial = yield self._command
            perturb(trial)
            if trial < shown:
                self.note(trial, -1, self.env.now, f"tile {tile.number}", "draw dw")

    def _accumulate(self, tile: Tile):
        receive = tile.receive
        shown = self.trace_trials
        while True:
            trial, met = yield self._delivery
            receive(met)
            if trial < shown:
                start = self.env.now - self.params.synapse.accumulate_ns
                self.note(trial, -1, start, f"tile {tile.number}", "accumulate")

    def emit(self, event: simpy.Event, value: object) -> simpy.Event:
        event.succeed(value)
        return self.env.event()

    def note(
        self, trial: int, phase: int, start: int, unit: str, action: str, end: int | None = None
    ) -> None:
        self.trace.append(
            Interval(trial, phase, start, self.env.now if end is None else end, unit, action)
        )

    def _note_evaluation(self, trial: int, phase: int) -> None:
        (a, b), start = self.design.method.phases[phase], self.env.now - self.schedule.evaluation_ns
        settled = start + self.params.perturbation.settle_ns
        self.note(trial, phase, start, "perturbation", f"settle at w {a:+d} D {b:+d} rv", settled)
        shown = f"{self.presented} pattern" + "s" * (self.presented > 1)
        self.note(trial, phase, settled, "array and error unit", f"settle and read {shown}")

    def _note_refreshes(self, trial: int, start: int) -> None:
        # beside the trials, whose schedule they leave alone: what they do follows from the time,
        # see `Values.weights`
        if every := self.values.memory.refresh_ns:
            for k in range(start // every + 1, self.env.now // every + 1)[:REFRESHES_SHOWN]:
                self.note(trial, -1, k * every, "weights", "refresh", k * every)

    @property
    def _every(self) -> int:
        """Trials after which the schedule repeats: a baseline that is kept is measured in one of
        so many.
        """
        return self.params.error_unit.baseline_every if self.values.keeps_baseline else 1

    # ---- running

    def go_on(self, until: simpy.Event) -> None:
        # with every event some objects a tile come and go: the collector of cycles, which counts
        # them, would never rest
        young, *older = gc.get_threshold()
        gc.set_threshold(young and young + 10 * len(self.tiles), *older)
        try:
            self.env.run(until=until)
        finally:
            gc.set_threshold(young, *older)

    def run(self, trials: int) -> Estimate:
        """Run the next `trials` trials and solve for all so far. Any split of a run gives the
        same estimate, time and energy.
        """
        wanted = self.statistics.trials + check_trials(self.statistics.next_trial, trials)
        while len(self._ends) < wanted and not self._steady:
            self._pause = wanted if self.fidelity == "event" else len(self._ends) + 1
            self.go_on(self._trial_done)
            self._steady = self.fidelity != "event" and self._repeats()
        if self.fidelity != "batch":
            self._gather(min(wanted, len(self._ends)))
        if (more := wanted - self.statistics.trials) > 0:
            if self.values.plain:
                run_trials(
                    self.point,
                    self.values.reading,
                    self.statistics,
                    more,
                    precision=self.precision,
                    mismatch=self.values.mismatch,
                )
            else:
                self.values.run(self.statistics, more)
        return self.values.solved(self.statistics)

    def _repeats(self) -> bool:
        """Whether the last three trials took the same time and counts, and no FIFO has lost a
        perturbation, or may by jitter.
        """
        bus = self.params.bus
        depth = self.params.synapse.fifo_depth
        may_lose = (
            bus.jitter_ns
            and self.schedule.after_ns + bus.jitter_ns > (depth - 1) * self.schedule.trial_ns
        )
        if may_lose or any(tile.overflowed for tile in self.tiles):
            if self.fidelity == "batch":
                late = "bus.latency_ns" if bus.latency_ns >= bus.jitter_ns else "bus.jitter_ns"
                raise InputError(
                    f"{late} = {max(bus.latency_ns, bus.jitter_ns)} outlasts the FIFO of {depth}"
                    ' perturbations, which only events can show: set run.fidelity = "event", or a'
                    " deeper synapse.fifo_depth"
                )
            return False
        every = self._every
        if len(self._ends) < 3 * every + 1:
            return False
        seen = [
            (self._starts[i], *self._spent[i])
            for i in range(len(self._ends) - 3 * every - 1, len(self._ends), every)
        ]
        steps = {
            tuple(b - a for a, b in zip(one, next_, strict=True)) for one, next_ in pairwise(seen)
        }
        return len(steps) == 1

    def _gather(self, trials: int) -> None:
        """Take the sums from the tiles, while the run is at event level."""
        if self.statistics.trials < trials:
            self.sums.settle()
            self.statistics.closed = (self.sums.synapses.copy(), self.sums.totals.copy())
            if (periods := self.statistics.periods) is not None:
                heard = np.concatenate([np.empty((3, 0)), *(self.sums.heard or [])], axis=1)
                periods.receive(self.statistics.next_trial, heard, self.v)
                periods.sound &= self.sums.sound
                self.sums.heard = []
            self.statistics.extend(trials - self.statistics.trials)

    # ---- to be stored, and gone on from, between two trials of learning

    @property
    def next_trial(self) -> int:
        """The trial that is about to begin."""
        return self._first + len(self._starts)

    def arrays(self) -> dict[str, Array]:
        """What is under way: a new chip goes on from it, see `restore`."""
        numbers = range(len(self.tiles))
        deepest = max(len(tile.fifo) for tile in self.tiles)
        heard = [heard for heard, _ in self._sent.values()]
        met = [met for _, met in self._sent.values()]
        fifos = [
            [*tile.fifo, *[-1] * (deepest - len(tile.fifo)), tile.out, tile.overflowed]
            for tile in self.tiles
        ]
        return self.sums.arrays() | {
            "latest": np.array(self._heard),
            "heard": np.array(heard, np.int64).reshape(-1, len(numbers)),
            "met": (
                np.array([[of.get(tile, -1) for tile in numbers] for of in met], np.int64).reshape(
                    -1, len(numbers)
                )
            ),
            "fifos": np.array(fifos, np.int64),
        }

    def restore(self, parts: dict[str, Array]) -> None:
        """Go on with what was under way, from the trial and the time that this chip starts at."""
        self.sums.restore(parts)
        self._heard = parts["latest"].tolist()
        for tile, (*fifo, out, overflowed) in zip(self.tiles, parts["fifos"].tolist(), strict=True):
            tile.fifo.extend(trial for trial in fifo if trial >= 0)
            tile.out = out
            tile.overflowed = bool(overflowed)
        for trial, heard, met in zip(
            parts["sent"][:, 0], parts["heard"].tolist(), parts["met"].tolist(), strict=True
        ):
            self._sent[int(trial)] = (
                heard,
                {tile: perturbed for tile, perturbed in enumerate(met) if perturbed >= 0},
            )
            self.env.process(self._deliver(int(trial)))

    # ---- what it took

    @property
    def time_s(self) -> float:
        """Chip time until the last tile has accumulated the last trial, in seconds."""
        return self._end_ns(self.statistics.trials - 1) * 1e-9

    @property
    def energy_by_cause(self) -> dict[str, float]:
        """Energy in joules by cause: of the trials, and what is spent all the time until the
        same moment.
        """
        time_ns = self._end_ns(self.statistics.trials - 1)
        counts = self._spent_in(self.statistics.trials)
        energy = {
            cause: n * getattr(self.params.energy, f"{cause}_j")
            for cause, n in zip(CAUSES, counts, strict=True)
        }
        energy["static"] = self.params.energy.static_w * time_ns * 1e-9
        if every := self.values.memory.refresh_ns:
            energy["refresh"] = self.w.size * (time_ns // every) * self.params.energy.weight_write_j
        return energy

    @property
    def energy_j(self) -> float:
        return math.fsum(self.energy_by_cause.values())

    @property
    def incidents(self) -> list[str]:
        """What went wrong on the chip, in fabrication and during the run, in sentences without a
        full stop.
        """
        die = self.values.die
        n = self.w.size
        works = self.values.working(max(self.statistics.trials - 1, 0))
        said = []
        if not die.alive.all():
            said.append(f"{n - die.alive.sum()} of {n} synapses do not work")
        if die.stuck.any():
            said.append(f"{die.stuck.sum()} of {n} weights are stuck")
        said += [what for what, _, _ in self._faults]
        if said and not works.all():
            said.append(f"{n - works.sum()} weights have no estimate in the end")
        return said

    @property
    def faultless(self) -> ChipParams | None:
        """This chip without the faults that its run met, so that a second run shows what they cost;
        None if it met none.

        What fabrication did is left as it is: that is the die.
        """
        params = self.params
        for _, table, changes in self._faults:
            part = getattr(params, table).model_copy(update=changes)
            params = params.model_copy(update={table: part})
        return params if self._faults else None

    @property
    def _faults(self) -> list[tuple[str, str, dict[str, object]]]:
        """Each fault of the run: what happened, and the table and values of a chip where it does
        not.
        """
        values = self.values
        trials = self.statistics.trials
        faults = self.params.faults
        unit = self.params.error_unit
        met: list[tuple[str, str, dict[str, object]]] = []
        if (
            died := int((values.die.alive & values.die.dying).sum())
        ) and trials > faults.dying_trial:
            met.append(
                (
                    f"{died} synapses stopped working in trial {faults.dying_trial}",
                    "faults",
                    {"dying_fraction": 0.0},
                )
            )
        if 0 <= faults.tile and trials > faults.tile_trial:
            what = (
                f"tile {faults.tile} lost power in trial {faults.tile_trial}, and the sums of its"
                " synapses"
            )
            met.append((what, "faults", {"tile": -1}))
        if values.tally["lost"]:
            what = (
                f"{values.tally['lost'] / values.tally['broadcasts']:.1%} of the broadcasts to"
                " tiles were lost"
            )
            met.append((what, "bus", {"drop_probability": 0.0}))
        if clipped := values.tally["above"] + values.tally["below"]:
            what = (
                f"{clipped / values.tally['readings']:.1%} of the readings were beyond the"
                " converter's range"
            )
            # steps as large, many more of them; a constant lifts all readings where some were below
            # 0
            wide = {"bits": unit.bits + WIDER, "range": unit.range * 2**WIDER}
            lifted = (
                {"offset": unit.offset + unit.range * 2 ** (WIDER - 1)}
                if values.tally["below"]
                else {}
            )
            met.append((what, "error_unit", {**wide, **lifted}))
        for name, what, table, key in (
            ("dE", "dE were beyond the range of its words", "bus", "dE_range"),
            ("s", "dw.v were beyond the range of its words", "bus", "s_range"),
            ("line", "dw.v were beyond the range of its converter", "summing_line", "range"),
        ):
            if beyond := values.tally[f"{name}, beyond"]:
                bits = "word_bits" if table == "bus" else "bits"
                own = getattr(self.params, table)
                wide = {bits: getattr(own, bits) + WIDER, key: getattr(own, key) * 2**WIDER}
                met.append(
                    (f"{beyond / values.tally[f'{name}, all']:.1%} of the {what}", table, wide)
                )
        if any(tile.overflowed for tile in self.tiles):
            what = "broadcasts came too late for the FIFO and met the wrong perturbation"
            met.append((what, "synapse", {"fifo_depth": 10**6}))
        return met

    @property
    def events(self) -> int:
        """Events that SimPy has processed or scheduled: it numbers them, and whoever looks at
        the next number takes it away.
        """
        self._looks += 1
        return next(self.env._eid) - self._looks + 1

    def _spent_in(self, trials: int) -> list[int]:
        """What the first trials spent by CAUSES, from the events or from the pattern of `every`
        trials that they have found.
        """
        if trials <= len(self._spent):
            return list(self._spent[trials - 1]) if trials else [0] * len(CAUSES)
        every = self._every
        whole, rest = divmod(trials - len(self._spent), every)
        less, counts, few = (self._spent[i] for i in (-1 - every, -1, -1 - every + rest))
        return [
            now + whole * (now - then) + more - then
            for now, then, more in zip(counts, less, few, strict=True)
        ]

    def _end_ns(self, trial: int) -> int:
        """When the last tile has accumulated a trial, from the events or from the schedule they
        have found.
        """
        if trial < len(self._ends):
            return self._ends[trial] if trial >= 0 else 0
        bus = self.params.bus
        tiles = len(self.tiles)
        # broadcasts arrive in order: one that jitter holds up holds up those behind it
        back, late = 0, range(tiles - 1, tiles)  # by skew alone the last tile is the latest
        if bus.jitter_ns:
            back = bus.jitter_ns // max(1, int(self.schedule.trial_ns)) + 1
            late = range(tiles)
            back = min(
                back, self.params.synapse.fifo_depth
            )  # else events would run to the end, see `_repeats`
        last = max(
            self._start_ns(sent + 1) + max(self.values.late_ns(sent, tile, tiles) for tile in late)
            for sent in range(max(0, trial - back), trial + 1)
        )
        return last + bus.latency_ns + self.params.synapse.accumulate_ns

    def _start_ns(self, trial: int) -> int:
        """When a trial begins, from the events or from the schedule they have found."""
        if trial < self._first + len(self._starts):
            return self._starts[trial - self._first]
        every = self._every
        whole, rest = divmod(trial - len(self._starts) + 1, every)
        last = self._starts[-1]
        before = self._starts[-1 - every]
        return last + whole * (last - before) + self._starts[-1 - every + rest] - before
