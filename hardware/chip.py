"""The chip in time: a controller, tiles of synapses, an analog array with its error unit, a summing line and a broadcast bus.

SimPy says when, in whole nanoseconds. One trial: the tiles perturb; for every phase of the method the perturbation settles, the
patterns settle in the array and are read one after another. The words go over the bus, dE after the last evaluation, dw.v (where
the method needs it) as soon as the line has summed it; `latency_ns` after the last of them every tile meets them with the oldest
perturbation in its FIFO. The next trial starts when the last word has left the bus. Once the schedule repeats itself, the batch
kernels may run the remaining trials with the same numbers.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import simpy

from hardware.params import ChipParams, imperfections
from hardware.schedule import Course, Schedule
from hardware.tile import Tile
from hardware.values import Values, made_on
from perturb.codes import CODES, Code
from perturb.errors import InputError, choose
from perturb.estimation import check_point
from perturb.kernels import run_trials
from perturb.methods import METHODS, Method
from perturb.objective import Objective
from perturb.precision import chosen
from perturb.statistics import Design, Estimate, Point, Statistics, check_trials
from perturb.synapse import TOTALS

Array = np.ndarray
FIDELITIES = ("event", "batch", "auto")
REFRESHES_SHOWN = 100  # in the trace of a trial
WIDER = 20  # powers of two by which a converter that saturated is made wide enough


class Interval(NamedTuple):
    """One entry of the timeline. phase: the evaluation within the trial, -1 outside any."""

    trial: int
    phase: int
    start_ns: int
    end_ns: int
    unit: str
    action: str


class Learning(NamedTuple):
    """How the synapses' sums become changes of their weights, after the rounds of trials of a course.

    direction(round): v of its trials. heard(round, sums, D, dE): the change wanted, from the sums of a round, and perturbation
    and dE of its last trial; None if another round is to follow. The weights change at the start of the first trial after the
    writing.
    """

    course: Course
    direction: Callable[[int], Array]
    heard: Callable[[int, Array, Array, float], Array | None]

    @property
    def every(self) -> int:
        """Trials of a round."""
        return self.course.plan.trials_per_update


class _Environment(simpy.Environment):
    """SimPy's, in whole nanoseconds, counting events."""

    events = 0

    @property
    def now(self) -> int:
        return int(self._now)

    def schedule(self, event, priority=simpy.events.NORMAL, delay=0):
        self.events += 1
        super().schedule(event, priority, delay)


class Chip:
    """A chip that estimates g and z = Hv of `objective` at w by weight perturbation.

    fidelity: "event" simulates every trial in time; "auto" does so until three trials in a row took the same time and energy,
    and runs the rest in batches; "batch" runs all values in batches and the events only for the schedule. For the same seed all
    three agree within rounding. A FIFO too short for the bus latency can only be had at event level. precision: of the batches,
    as of `perturb.estimate`; "float32" is faster and agrees to its own rounding. start: (number, time in ns) of the first trial,
    where the chip goes on with what it has learned.

    After `run`: time_s and energy_j up to the arrival of the last broadcast (energy_by_cause splits it), events (of SimPy),
    trace (the intervals of the first `trace_trials` trials), statistics.
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
    ):
        method = choose("method", method, METHODS) if isinstance(method, str) else method
        code = choose("code", code, CODES) if isinstance(code, str) else code
        choose("fidelity", fidelity, dict.fromkeys(FIDELITIES))
        self.params, self.objective, self.fidelity, self.trace_trials = params, objective, fidelity, trace_trials
        code = made_on(params, code, objective.n_weights)
        self.design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
        self.w, self.v = check_point(objective, w, v, self.design)
        n = self.w.size
        self.statistics = Statistics(self.design)
        self.presented = objective.n_patterns if presentation == "batch" else 1
        self.values = Values(params, objective, self.design, self.w, self.v, self._start_ns)
        self.statistics.bind(Point.of(objective, self.w, self.v, self.values.reading))
        if precision == "float32" and not self.values.plain:
            raise InputError(
                f'precision = "float32" has no kernel for {", ".join(imperfections(params))}: use "auto" or "float64"'
            )
        own = precision if self.values.plain else "float64"
        self.precision = chosen(own, objective, self.w, self.v, self.values.reading, self.design)
        size = params.synapses_per_tile
        depth = params.synapse.fifo_depth
        self.tiles = [Tile(number, i, min(i + size, n), depth) for number, i in enumerate(range(0, n, size))]
        if params.faults.tile >= len(self.tiles):
            raise InputError(f"faults.tile = {params.faults.tile} but the chip has tiles 0 to {len(self.tiles) - 1}")
        if presentation == "pattern" and self.values.keeps_baseline:
            raise InputError(
                f"error_unit.baseline_every = {params.error_unit.baseline_every} would compare the errors of different patterns: "
                'set it to 1, or presentation = "batch"'
            )
        self.schedule = Schedule(params, objective, method, self.presented)

        self._first, now = start
        self.env = _Environment(now)
        self.bus = simpy.Resource(self.env)
        self.trace: list[Interval] = []
        self._counts: Counter[str] = Counter()
        self._command, self._delivery = self.env.event(), self.env.event()
        self._known: dict[int, Array] = {}  # what the synapses believe of the perturbations that are in a FIFO
        self._starts: list[int] = []  # time when each trial began
        self._spent: list[Counter[str]] = []  # counts of all trials so far, at the end of each
        self._ends: list[int] = []  # time when each trial's last tile had accumulated
        self._heard = [0] * len(self.tiles)  # time when each tile gets the last broadcast that is on its way to it
        self._sent: dict[int, tuple[tuple[float, float], float, list[int]]] = {}  # dE, s and these times, of broadcasts under way
        self._met: dict[int, list[tuple[Tile, int]]] = {}  # of a broadcast under way: the tiles it reached, what it met there
        self._sums = self.statistics.zeros()[0]
        self._totals: tuple[float, ...] = (0.0,) * len(TOTALS)  # the controller's
        self._trial_done = self.env.event()
        self._steady = False
        self.learning: Learning | None = None
        self.changes: list[tuple[int, Array]] = []  # of the weights, written at the start of the next trial
        self._writing: dict[int, tuple[int, Array]] = {}  # when they will be written, of updates that are being written
        self._updates = 0
        self._ready, self._between = self.env.event(), self.env.event()  # for the next round; for the next trial
        for tile in self.tiles:
            self.env.process(self._perturb(tile))
            self.env.process(self._accumulate(tile))
        self.env.process(self._control())

    # ---- processes

    def _control(self):
        p, env, method = self.params, self.env, self.design.method
        trial = self._first
        while True:
            start = env.now
            self._starts.append(start)
            for update, change in self.changes:
                self.values.memory.add(change, update, start)
            self.changes.clear()
            if self.learning:
                self.values.v = self.learning.direction(trial // self.learning.every)
            D = self.values.drawn(trial)
            self._known[trial] = self.values.known(D, trial)
            self._command = self._emit(self._command, trial)
            if method.needs_s:
                summed = env.process(self._sum_line(trial))
            E = {}
            for phase in self.values.measured_phases(trial):
                E[phase] = yield from self._evaluate(trial, phase, D)
            dE, s = self.values.combined(trial, E), self.values.line(trial, self._known[trial])
            measured = env.now
            yield from self._send(trial, method.words[: -1 if method.needs_s else None])
            if method.needs_s:
                yield summed
            if p.clock.broadcast_ns:
                yield env.timeout(measured + p.clock.broadcast_ns - env.now)
            self._counts["accumulate"] += self.w.size  # a lost broadcast is charged all the same
            self._spent.append(self._counts.copy())
            self._heard = self._hear(trial)
            self._sent[trial], self._met[trial] = (dE, s, self._heard), []
            env.process(self._deliver(trial))
            self._note_refreshes(trial, start)
            trial += 1
            if self.learning:
                yield from self._pause(trial)

    def _pause(self, trial: int):
        """Between two trials of learning: what a round awaits is there, and all else of this moment has happened."""
        assert self.learning
        if trial % self.learning.every == 0 and self.learning.course.awaits(trial // self.learning.every):
            yield self._ready
        while self.env.peek() <= self.env.now:
            yield self.env.timeout(0)
        between = self._between
        self._between = self._emit(between, trial)
        yield between

    def _sum_line(self, trial: int):
        """Sums dw.v and sends it as soon as it is known."""
        start, line = self.env.now, self.params.summing_line
        yield self.env.timeout(line.settle_ns + line.conversion_ns)
        self._note(trial, -1, start, self.env.now, "summing line", "sum and convert dw.v")
        self._counts["conversion"] += 1
        yield from self._send(trial, ["dw.v"])

    def _send(self, trial: int, words: list[str]):
        bus = self.params.bus
        if ("dw.v" in words) != (bus.first == "dw.v"):
            yield self.env.timeout(0)  # at the same moment the other one asks first
        with self.bus.request() as granted:
            yield granted
            for word in words:
                sent = self.env.now
                yield self.env.timeout(self.schedule.word_ns)
                self._note(trial, -1, sent, self.env.now, "bus", f"broadcast {word}")
                self._counts["broadcast_bit"] += bus.word_bits

    def _evaluate(self, trial: int, phase: int, D: Array):
        p, env, (a, b) = self.params, self.env, self.design.method.phases[phase]
        start = env.now
        settled = start + p.perturbation.settle_ns
        yield env.timeout(self.schedule.evaluation_ns)
        self._note(trial, phase, start, settled, "perturbation", f"settle at w {a:+d} D {b:+d} rv")
        shown = f"{self.presented} pattern" + "s" * (self.presented > 1)
        self._note(trial, phase, settled, env.now, "array and error unit", f"settle and read {shown}")
        if p.clock.evaluation_ns:
            yield env.timeout(start + p.clock.evaluation_ns - env.now)
        if (a, b) != (0, 0):
            self._counts["perturbation"] += self.w.size
        self._counts["mac"] += self.w.size * self.presented
        self._counts["conversion"] += self.presented
        displaced = self.values.settled(self.values.target(D, trial, phase))
        return float(self.values.readings([(trial, phase)], displaced[None])[0])

    def _hear(self, trial: int) -> list[int]:
        """When each tile gets a broadcast that is sent now; none overtakes another on its way."""
        bus, tiles = self.params.bus, len(self.tiles)
        arrives = self.env.now + bus.latency_ns
        if not self._disturbed:
            return [arrives] * tiles
        return [max(arrives + self.values.late_ns(trial, tile, tiles), last) for tile, last in enumerate(self._heard)]

    @property
    def _disturbed(self) -> bool:
        """Whether tiles get a broadcast at times of their own."""
        return self.params.bus.skew_ns + self.params.bus.jitter_ns > 0

    def _deliver(self, trial: int):
        dE, s, heard = self._sent[trial]
        if self._disturbed:
            met = {tile for tile, _ in self._met[trial]}
            for tile in self.tiles:
                if tile not in met:
                    self.env.process(self._late(tile, trial, heard[tile.number], dE, s))
        else:
            yield from self._until(heard[0])
            yield from self._until(heard[0] + self.params.synapse.accumulate_ns)
            self._delivery = self._emit(self._delivery, (trial, heard[0], dE, s))

    def _late(self, tile: Tile, trial: int, start: int, dE: tuple[float, float], s: float):
        yield from self._until(start)
        yield from self._until(start + self.params.synapse.accumulate_ns)
        self._receive(tile, trial, start, dE, s)

    def _until(self, time_ns: int):
        if time_ns >= self.env.now:  # else that was before a run went on
            yield self.env.timeout(time_ns - self.env.now)

    def _perturb(self, tile: Tile):
        perturb, shown = tile.perturb, self.trace_trials  # a thousand tiles do this in every trial
        while True:
            trial = yield self._command
            perturb(trial)
            if trial < shown:
                self._note(trial, -1, self.env.now, self.env.now, f"tile {tile.number}", "draw dw")

    def _accumulate(self, tile: Tile):
        receive = self._receive
        while True:
            trial, start, dE, s = yield self._delivery
            receive(tile, trial, start, dE, s)

    def _receive(self, tile: Tile, trial: int, start: int, dE: tuple[float, float], s: float) -> None:
        met = self._met[trial]
        met.append((tile, tile.receive()))
        if trial < self.trace_trials:
            self._note(trial, -1, start, self.env.now, f"tile {tile.number}", "accumulate")
        if len(met) == len(self.tiles):
            D = self._known[met[-1][1]]
            self._sum(self._met.pop(trial), trial, dE, s)
            self._ends.append(self.env.now)
            del self._sent[trial]
            if self.learning and (trial + 1) % self.learning.every == 0:
                self.env.process(self._update(trial, D, dE[0]))
            self._trial_done = self._emit(self._trial_done, trial)

    def _update(self, trial: int, D: Array, dE: float):
        """What the synapses have summed in a round is heard, and changes their weights once it is written.

        A rate that is measured is measured meanwhile, which takes the time of the course; its values are those of `heard`.
        """
        assert self.learning
        course, round_ = self.learning.course, trial // self.learning.every
        change = self.learning.heard(round_, self._sums, D, dE)
        self._sums[:] = 0.0
        if course.measures(round_):
            start = self.env.now
            yield self.env.timeout(course.measuring_ns(round_))
            self._note(trial, -1, start, self.env.now, "array and error unit", "measure the rate")
        if course.awaits(round_ + 1) and (change is None or not course.waits):
            self._ready = self._emit(self._ready, round_)
        if change is not None:
            self._writing[update := round_ // course.rounds] = (self.env.now + self.params.weights.write_ns, change)
            yield from self._write(update)
            if course.waits:
                self._ready = self._emit(self._ready, round_)

    def _write(self, update: int):
        assert self.learning
        written, change = self._writing[update]
        yield from self._until(written)
        trial = (update + 1) * self.learning.course.plan.trials_of_an_update - 1
        self._note(trial, -1, written - self.params.weights.write_ns, written, "weights", "write")
        del self._writing[update]
        self.changes.append((update, change))
        self._updates = update + 1

    def learn(self, learning: Learning, updates: int) -> None:
        """Go on until so many updates have been written, from the start of the run, and a trial is about to begin."""
        self.learning = learning
        while self._updates < updates:
            self.env.run(until=self._between)

    @property
    def next_trial(self) -> int:
        """The trial that is about to begin, between two of them."""
        return self._first + len(self._starts)

    def arrays(self) -> dict[str, Array]:
        """What is under way between two trials of learning, to be stored: a new chip goes on from it, see `restore`."""
        tiles, n = self.tiles, self.w.size
        met = np.full((len(self._sent), len(tiles)), -1)
        for row, trial in enumerate(self._sent):
            for tile, perturbed in self._met[trial]:
                met[row, tile.number] = perturbed
        deepest = max(len(tile.fifo) for tile in tiles)
        fifos = [[*tile.fifo, *[-1] * (deepest - len(tile.fifo)), tile.out, tile.overflowed] for tile in tiles]
        return {
            "sums": self._sums.copy(), "updates": np.array(self._updates), "latest": np.array(self._heard),
            "sent": np.array([(trial, *dE, s) for trial, (dE, s, _) in self._sent.items()]).reshape(-1, 4),
            "heard": np.array([heard for *_, heard in self._sent.values()], np.int64).reshape(-1, len(tiles)),
            "met": met, "fifos": np.array(fifos, np.int64),
            "writing": np.array([(update, written) for update, (written, _) in self._writing.items()], np.int64).reshape(-1, 2),
            "wanted": np.array([change for _, change in self._writing.values()]).reshape(-1, n),
        }  # fmt: skip

    def restore(self, parts: dict[str, Array]) -> None:
        """Go on with what was under way, from the trial and the time that this chip starts at."""
        self._sums[:], self._updates, self._heard = parts["sums"], int(parts["updates"]), parts["latest"].tolist()
        for tile, (*fifo, out, overflowed) in zip(self.tiles, parts["fifos"].tolist(), strict=True):
            tile.fifo.extend(trial for trial in fifo if trial >= 0)
            tile.out, tile.overflowed = out, bool(overflowed)
        for (number, *dE, s), heard, met in zip(*(parts[name].tolist() for name in ("sent", "heard", "met")), strict=True):
            trial = int(number)
            self._sent[trial] = ((dE[0], dE[1]), s, heard)
            self._met[trial] = [(tile, perturbed) for tile, perturbed in zip(self.tiles, met, strict=True) if perturbed >= 0]
            self.env.process(self._deliver(trial))
        for trial in {*parts["met"].flat, *parts["fifos"][:, :-1].flat} - {-1}:
            self._known[trial] = self.values.known(self.values.drawn(trial), trial)
        for (update, written), change in zip(parts["writing"].tolist(), parts["wanted"], strict=True):
            self._writing[update] = (written, change)
            self.env.process(self._write(update))

    def _sum(self, met: list[tuple[Tile, int]], trial: int, dE: tuple[float, float], s: float) -> None:
        """Every synapse's sums after a broadcast has reached all: at once where all tiles met the same perturbation."""
        values, oldest = self.values, {perturbed for _, perturbed in met}
        if len(oldest) == 1 and not self.params.bus.drop_probability:
            values.accumulate(self._sums, self._known[oldest.pop()], trial, dE, s)
        else:
            known, arrived = np.zeros(self.w.size), np.ones(self.w.size, dtype=bool)
            for tile, perturbed in met:
                part = slice(tile.start, tile.stop)
                known[part] = self._known[perturbed][part]
                arrived[part] = values.received(trial, tile.number)
            values.accumulate(self._sums, known, trial, dE, s, arrived)
        self._totals = values.counted(self._totals, dE, s)
        if len(self._known) > 2 * self.params.synapse.fifo_depth:
            met_already = (perturbed for tiles in self._met.values() for _, perturbed in tiles)
            needed = min(itertools.chain(met_already, (tile.oldest for tile in self.tiles)))
            self._known = {trial: known for trial, known in self._known.items() if trial >= needed}

    def _emit(self, event: simpy.Event, value: object) -> simpy.Event:
        event.succeed(value)
        return self.env.event()

    def _note(self, trial: int, phase: int, start: int, end: int, unit: str, action: str) -> None:
        if trial < self.trace_trials:
            self.trace.append(Interval(trial, phase, start, end, unit, action))

    def _note_refreshes(self, trial: int, start: int) -> None:
        # beside the trials, whose schedule they leave alone: what they do follows from the time, see `Values.weights`
        every = self.values.memory.refresh_ns
        if every and trial < self.trace_trials:
            for k in range(start // every + 1, self.env.now // every + 1)[:REFRESHES_SHOWN]:
                self._note(trial, -1, k * every, k * every, "weights", "refresh")

    @property
    def _every(self) -> int:
        """Trials after which the schedule repeats: a baseline that is kept is measured in one of so many."""
        return self.params.error_unit.baseline_every if self.values.keeps_baseline else 1

    # ---- running

    def run(self, trials: int) -> Estimate:
        """Run the next `trials` trials and solve for all so far. Any split of a run gives the same estimate, time and energy."""
        wanted = self.statistics.trials + check_trials(self.statistics.next_trial, trials)
        while len(self._ends) < wanted and not self._steady:
            self.env.run(until=self._trial_done)
            self._steady = self.fidelity != "event" and self._repeats()
        if self.fidelity != "batch":
            self._gather(min(wanted, len(self._ends)))
        if (more := wanted - self.statistics.trials) > 0:
            if self.values.plain:
                run_trials(
                    self.objective, self.w, self.v, self.values.reading, self.statistics, more, precision=self.precision,
                    mismatch=self.values.mismatch,
                )  # fmt: skip
            else:
                self.values.run(self.statistics, more)
        return self.values.solved(self.statistics)

    def _repeats(self) -> bool:
        """Whether the last three trials took the same time and counts, and no FIFO has lost a perturbation, or may by jitter."""
        bus, depth = self.params.bus, self.params.synapse.fifo_depth
        may_lose = bus.jitter_ns and self.schedule.after_ns + bus.jitter_ns > (depth - 1) * self.schedule.trial_ns
        if may_lose or any(tile.overflowed for tile in self.tiles):
            if self.fidelity == "batch":
                late = "bus.latency_ns" if bus.latency_ns >= bus.jitter_ns else "bus.jitter_ns"
                raise InputError(
                    f"{late} = {max(bus.latency_ns, bus.jitter_ns)} outlasts the FIFO of {depth} perturbations, "
                    'which only events can show: set run.fidelity = "event", or a deeper synapse.fifo_depth'
                )
            return False
        every = self._every
        if len(self._ends) < 3 * every + 1:
            return False
        seen = [(self._starts[i], self._spent[i]) for i in range(len(self._ends) - 3 * every - 1, len(self._ends), every)]
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(seen)]
        return steps[0] == steps[1] == steps[2]

    def _gather(self, trials: int) -> None:
        """Take the sums from the tiles, while the run is at event level."""
        if self.statistics.trials < trials:
            self.statistics.closed = (self._sums.copy(), np.array(self._totals))
            self.statistics.extend(trials - self.statistics.trials)

    # ---- what it took

    @property
    def time_s(self) -> float:
        """Chip time until the last tile has accumulated the last trial, in seconds."""
        return self._end_ns(self.statistics.trials - 1) * 1e-9

    @property
    def energy_by_cause(self) -> dict[str, float]:
        """Energy in joules by cause: of the trials, and what is spent all the time until the same moment."""
        time_ns, counts = self._end_ns(self.statistics.trials - 1), self._spent_in(self.statistics.trials)
        energy = {cause: counts[cause] * getattr(self.params.energy, f"{cause}_j") for cause in CAUSES}
        energy["static"] = self.params.energy.static_w * time_ns * 1e-9
        if every := self.values.memory.refresh_ns:
            energy["refresh"] = self.w.size * (time_ns // every) * self.params.energy.weight_write_j
        return energy

    @property
    def energy_j(self) -> float:
        return math.fsum(self.energy_by_cause.values())

    @property
    def incidents(self) -> list[str]:
        """What went wrong on the chip, in fabrication and during the run, in sentences without a full stop."""
        die, n = self.values.die, self.w.size
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
        """This chip without the faults that its run met, so that a second run shows what they cost; None if it met none.

        What fabrication did is left as it is: that is the die.
        """
        params = self.params
        for _, table, changes in self._faults:
            part = getattr(params, table).model_copy(update=changes)
            params = params.model_copy(update={table: part})
        return params if self._faults else None

    @property
    def _faults(self) -> list[tuple[str, str, dict[str, object]]]:
        """Each fault of the run: what happened, and the table and values of a chip where it does not."""
        values, trials, faults, unit = self.values, self.statistics.trials, self.params.faults, self.params.error_unit
        met: list[tuple[str, str, dict[str, object]]] = []
        if (died := int((values.die.alive & values.die.dying).sum())) and trials > faults.dying_trial:
            met.append((f"{died} synapses stopped working in trial {faults.dying_trial}", "faults", {"dying_fraction": 0.0}))
        if 0 <= faults.tile and trials > faults.tile_trial:
            what = f"tile {faults.tile} lost power in trial {faults.tile_trial}, and the sums of its synapses"
            met.append((what, "faults", {"tile": -1}))
        if values.tally["lost"]:
            what = f"{values.tally['lost'] / values.tally['broadcasts']:.1%} of the broadcasts to tiles were lost"
            met.append((what, "bus", {"drop_probability": 0.0}))
        if clipped := values.tally["above"] + values.tally["below"]:
            what = f"{clipped / values.tally['readings']:.1%} of the readings were beyond the converter's range"
            # steps as large, many more of them; a constant lifts all readings where some were below 0
            wide = {"bits": unit.bits + WIDER, "range": unit.range * 2**WIDER}
            lifted = {"offset": unit.offset + unit.range * 2 ** (WIDER - 1)} if values.tally["below"] else {}
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
                met.append((f"{beyond / values.tally[f'{name}, all']:.1%} of the {what}", table, wide))
        if any(tile.overflowed for tile in self.tiles):
            what = "broadcasts came too late for the FIFO and met the wrong perturbation"
            met.append((what, "synapse", {"fifo_depth": 10**6}))
        return met

    @property
    def events(self) -> int:
        """Events that SimPy has processed or scheduled."""
        return self.env.events

    def _spent_in(self, trials: int) -> Counter[str]:
        """What the first trials spent, from the events or from the pattern of `every` trials that they have found."""
        if trials <= len(self._spent):
            return self._spent[trials - 1] if trials else Counter()
        every = self._every
        whole, rest = divmod(trials - len(self._spent), every)
        less, counts, few = self._spent[-1 - every], self._spent[-1], self._spent[-1 - every + rest]
        return Counter({
            cause: counts[cause] + whole * (counts[cause] - less[cause]) + few[cause] - less[cause] for cause in counts
        })  # fmt: skip

    def _end_ns(self, trial: int) -> int:
        """When the last tile has accumulated a trial, from the events or from the schedule they have found."""
        if trial < len(self._ends):
            return self._ends[trial] if trial >= 0 else 0
        bus, tiles = self.params.bus, len(self.tiles)
        # broadcasts arrive in order: one that jitter holds up holds up those behind it
        back, late = 0, range(tiles - 1, tiles)  # by skew alone the last tile is the latest
        if bus.jitter_ns:
            back, late = bus.jitter_ns // max(1, int(self.schedule.trial_ns)) + 1, range(tiles)
            back = min(back, self.params.synapse.fifo_depth)  # else events would run to the end, see `_repeats`
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
        last, before = self._starts[-1], self._starts[-1 - every]
        return last + whole * (last - before) + self._starts[-1 - every + rest] - before


CAUSES = ("perturbation", "mac", "conversion", "broadcast_bit", "accumulate")
