"""The chip in time: a controller, tiles of synapses, an analog array with its error unit, a summing
line and a broadcast bus.

SimPy says when, in integer nanoseconds. One trial: the tiles perturb; for every phase of the method
the perturbation settles, the patterns settle in the array and are read one after another. The words
go over the bus, dE after the last evaluation, dw.v (where the method needs it) as soon as the line
has summed it; `latency_ns` after the last of them every tile meets them with the oldest
perturbation in its FIFO. The next trial starts when the last word has left the bus. No time depends
on a value: events say when things happen and what meets what, and the numbers are computed from
that afterwards, many trials at once, see `hardware.accumulators`. Once the timing repeats itself,
the batch kernels may run the remaining trials with the same numbers.
"""

import gc
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import simpy

from hardware.accumulators import Accumulators
from hardware.datapath import Datapath, realized_code
from hardware.params import ChipParams, imperfections
from hardware.parts.tile import Tile
from hardware.timing import Timing
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
MAX_UNDER_WAY = (
    10_000  # trials that may start before the words of one have been added: events for each of them
)
EXTRA_BITS = 20  # that are added to a converter that saturated


class Interval(NamedTuple):
    """One entry of the timeline. phase: the evaluation within the trial, -1 outside any; unit: the
    part of the chip.
    """

    trial: int
    phase: int
    start_ns: int
    end_ns: int
    unit: str
    action: str


class WeightUpdates(Protocol):
    """What changes the weights of a chip between rounds of trials; see
    `hardware.update_process.Learning`.
    """

    every: int

    def begin(self, trial: int, start: int) -> None: ...

    def between(self, trial: int) -> Iterator[Any]: ...

    def update(self, trial: int) -> Iterator[Any]: ...


class Chip:
    """A chip in time that estimates g and z = Hv of an objective by weight perturbation.

    Parameters
    ----------
    params : ChipParams
    objective : Objective
    w, v : array (n,)
        Weights, and the direction of z = Hv.
    method, code : str
        How to measure and how to perturb, as of `perturb.estimate`.
    sigma, r : float
        Standard deviation of the perturbation dw, and the finite step along v of methods with one.
    seed : int
        Of perturbations and noise; mismatch is of `params.die`.
    presentation : {"batch", "pattern"}
        Whether an evaluation presents all patterns or one.
    fidelity : {"auto", "event", "batch"}
        "event" simulates every trial in time; "auto" does so until three trials in a row took the
        same time and energy, and computes the rest in batches; "batch" computes all trials in
        batches, and simulates the first ones for the timing only.
    trace_trials : int
        Trials of which `trace` holds the intervals.
    precision : {"float64", "float32", "auto"}
        Of batches, as of `perturb.estimate`.
    start : (int, int)
        Number and time in ns of the first trial, where a chip that learns is resumed.
    updates : callable, optional
        Makes, for this chip, what changes its weights between trials: see
        `hardware.update_process.UpdateProcess`.

    Attributes
    ----------
    trace : list of Interval
        The intervals (trial, phase, start_ns, end_ns, unit, action) of the first trials.
    statistics : Statistics
        The sums so far.
    timing : Timing
        Predicted times and energies of a trial.

    Raises
    ------
    InputError
        For a name that is unknown, a size or an amount that is out of range, and parameters that
        do not go together: a clock that is too fast, a FIFO too short for "batch", a kernel that
        does not know an imperfection.

    Notes
    -----
    With the same seed all fidelities give the same estimate within rounding, and `perturb.estimate`
    gives that of an ideal chip. "float32" agrees within its rounding. What a FIFO too short for the
    bus latency does can only be simulated by events.

    Examples
    --------
    >>> import numpy as np, perturb, hardware
    >>> objective = perturb.MLP([2, 1]).objective([[0.0, 1.0], [1.0, 0.5]], [[1.0], [0.0]])
    >>> w = v = np.ones(3)
    >>> chip = hardware.Chip(hardware.load_chip("ideal"), objective, w, v, sigma=1e-3)
    >>> estimate = chip.run(64)
    >>> bool(np.abs(estimate.gradient - objective.gradient(w)).max() < 1e-2)
    True
    >>> chip.time_s > 0 and chip.energy_j > 0, chip.trace[0].action
    (True, 'draw dw')
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
        updates: Callable[["Chip"], "WeightUpdates"] | None = None,
    ):
        method = choose("method", method, METHODS) if isinstance(method, str) else method
        code = choose("code", code, CODES) if isinstance(code, str) else code
        choose("fidelity", fidelity, dict.fromkeys(FIDELITIES))
        self.params = params
        self.objective = objective
        self.fidelity = fidelity
        self.trace_trials = trace_trials
        code = realized_code(params, code, objective.n_weights)
        self.design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
        self.point = check_point(objective, w, v, self.design)
        self.w = self.point.w
        self.v = self.point.v
        n = self.w.size
        self.statistics = Statistics(self.design)
        self.presented = objective.n_patterns if presentation == "batch" else 1
        self.datapath = Datapath(params, objective, self.design, self.w, self.v, self._start_ns)
        self.statistics.bind(self.point.record(self.datapath.reading))
        if precision == "float32" and not self.datapath.kernels_suffice:
            raise InputError(
                f'precision = "float32" has no kernel for {", ".join(imperfections(params))}: use'
                ' "auto" or "float64"'
            )
        wanted = precision if self.datapath.kernels_suffice else "float64"
        self.precision = chosen(wanted, self.point, self.datapath.reading, self.design)
        size = params.synapses_per_tile
        depth = params.synapse.fifo_depth
        self._first, now = start
        self.tiles = [
            Tile(number, i, min(i + size, n), depth, self._first)
            for number, i in enumerate(range(0, n, size))
        ]
        self._check_parts()
        self.timing = Timing(params, objective, method, self.presented)
        self._check_delays()

        self.env: Any = simpy.Environment(now)  # in integer nanoseconds
        self._looks = 0  # at the number of events
        self._bus_free_ns = 0  # when the last word that was requested has been sent
        self.trace: list[Interval] = []
        self._counts = dict.fromkeys(CAUSES, 0)
        self._command, self._summed, self._delivery = (self.env.event() for _ in range(3))
        self.accumulators = Accumulators(self.datapath, self.tiles, self._first)
        self._starts: list[int] = []  # time when each trial began
        self._spent: list[
            tuple[int, ...]
        ] = []  # counts of all trials so far by CAUSES, at the end of each
        self._ends: list[int] = []  # time when each trial's last tile had accumulated
        self._disturbed = (
            params.bus.skew_ns + params.bus.jitter_ns > 0
        )  # whether tiles get a broadcast at different times
        self._arrivals = [0] * len(self.tiles)  # time when each tile gets the last broadcast
        # of broadcasts under way: these times; and of each tile reached, the trial whose
        # perturbation was met there
        self._sent: dict[int, tuple[list[int], dict[int, int]]] = {}
        self._trial_done = self.env.event()
        self._pause = math.inf  # number of trials after which `run` goes on
        self._steady = False
        self.updates = updates(self) if updates else None
        if self.updates:
            self.accumulators.broadcasts = (
                None  # broadcasts are for standard errors, which learning has no use for
            )
        for tile in self.tiles:
            self.env.process(self._perturb(tile))
            self.env.process(self._accumulate(tile))
        if method.needs_s:
            self.env.process(self._sum_line())
        self.env.process(self._control())

    def _check_parts(self) -> None:
        params = self.params
        if params.faults.tile >= len(self.tiles):
            raise InputError(
                f"faults.tile = {params.faults.tile} but the chip has tiles 0 to"
                f" {len(self.tiles) - 1}"
            )
        if self.design.presentation == "pattern" and self.datapath.reuses_baseline:
            raise InputError(
                f"error_unit.baseline_every = {params.error_unit.baseline_every} would compare the"
                ' errors of different patterns: set it to 1, or presentation = "batch"'
            )

    def _check_delays(self) -> None:
        """InputError if more trials would be under way than events can follow."""
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

    # ---- processes

    def _control(self):
        p = self.params
        env = self.env
        method = self.design.method
        datapath = self.datapath
        counts = self._counts
        n = self.w.size
        evaluation_ns = self.timing.evaluation_ns
        needs_s = method.needs_s
        shown = self.trace_trials
        spare_ns = p.clock.evaluation_ns and p.clock.evaluation_ns - evaluation_ns
        words = method.words[: -1 if needs_s else None]
        trial = self._first
        while True:
            start = env.now
            self._starts.append(start)
            if self.updates:
                self.updates.begin(trial, start)
            self._command = self.emit(self._command, trial)
            summed = self._summed
            for phase in datapath.measured_phases(trial):
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
            self._arrivals = self._arrival_times(trial)
            self._sent[trial] = (self._arrivals, {})
            env.process(self._deliver(trial))
            if trial < shown:
                self._note_refreshes(trial, start)
            trial += 1
            if self.updates:
                yield from self.updates.between(trial)

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
        """Words over the bus, one after the other once it is free: first come, first served."""
        bus = self.params.bus
        env = self.env
        word_ns = self.timing.word_ns
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

    def _arrival_times(self, trial: int) -> list[int]:
        """When each tile gets a broadcast that is sent now; none overtakes another on its way."""
        tiles = len(self.tiles)
        arrives = self.env.now + self.params.bus.latency_ns
        if not self._disturbed:
            return [arrives] * tiles
        return [
            max(arrives + self.datapath.delay_ns(trial, tile, tiles), last)
            for tile, last in enumerate(self._arrivals)
        ]

    def _deliver(self, trial: int):
        """A broadcast on its way, to tiles that it has not reached before."""
        env, (arrivals, met) = self.env, self._sent[trial]
        if self._disturbed:
            late = [
                self._late(tile, trial, arrivals[tile.number], met)
                for tile in self.tiles
                if tile.number not in met
            ]
            yield env.all_of([env.process(process) for process in late])
        else:
            yield env.timeout(max(0, arrivals[0] - env.now))  # 0: that was before a run went on
            yield env.timeout(arrivals[0] + self.params.synapse.accumulate_ns - env.now)
            delivery = self._delivery
            self._delivery = self.emit(delivery, (trial, met))
            yield delivery  # after all tiles, which have waited for longer
        del self._sent[trial]
        self._ends.append(env.now)
        if self.fidelity != "batch":
            self.accumulators.add(met)
        if self.updates and (trial + 1) % self.updates.every == 0:
            env.process(self.updates.update(trial))
        if len(self._ends) >= self._pause:
            self._trial_done = self.emit(self._trial_done, trial)

    def _late(self, tile: Tile, trial: int, start: int, met: dict[int, int]):
        """A broadcast that reaches one tile, at that tile's time."""
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
        """Trigger an event.

        Parameters
        ----------
        event : simpy.Event
        value : object
            What those that wait for it get.

        Returns
        -------
        simpy.Event
            A new one, for the next time.
        """
        event.succeed(value)
        return self.env.event()

    def note(
        self, trial: int, phase: int, start: int, unit: str, action: str, end: int | None = None
    ) -> None:
        """Add an interval to the trace.

        Parameters
        ----------
        trial, phase : int
        start, end : int
            In ns; end is now if left out.
        unit, action : str
            The part of the chip, and what it does.
        """
        self.trace.append(
            Interval(trial, phase, start, self.env.now if end is None else end, unit, action)
        )

    def _note_evaluation(self, trial: int, phase: int) -> None:
        (a, b), start = self.design.method.phases[phase], self.env.now - self.timing.evaluation_ns
        settled = start + self.params.perturbation.settle_ns
        self.note(trial, phase, start, "perturbation", f"settle at w {a:+d} D {b:+d} rv", settled)
        shown = f"{self.presented} pattern" + "s" * (self.presented > 1)
        self.note(trial, phase, settled, "array and error unit", f"settle and read {shown}")

    def _note_refreshes(self, trial: int, start: int) -> None:
        # besides the trials, whose timing they do not change: what they do follows from the time,
        # see `Values.weights`
        if every := self.datapath.weight_store.refresh_ns:
            for k in range(start // every + 1, self.env.now // every + 1)[:REFRESHES_SHOWN]:
                self.note(trial, -1, k * every, "weights", "refresh", k * every)

    @property
    def _every(self) -> int:
        """Trials after which the timing repeats: a baseline that is reused is measured in one of
        `baseline_every`.
        """
        return self.params.error_unit.baseline_every if self.datapath.reuses_baseline else 1

    # ---- running

    def advance(self, until: simpy.Event) -> None:
        """Simulate until an event.

        Parameters
        ----------
        until : simpy.Event
        """
        # with every event some objects a tile come and go: the collector of cycles, which counts
        # them, would never rest
        young, *older = gc.get_threshold()
        gc.set_threshold(young and young + 10 * len(self.tiles), *older)
        try:
            self.env.run(until=until)
        finally:
            gc.set_threshold(young, *older)

    def run(self, trials: int) -> Estimate:
        """Run the next trials, and estimate from all so far.

        Parameters
        ----------
        trials : int

        Returns
        -------
        Estimate

        Raises
        ------
        InputError
            For trials that are not a positive integer, or beyond the last that can be numbered.
        NotFinite
            If a measured error is not finite: in which trial.

        Notes
        -----
        Any split of a run gives the same estimate, time and energy.
        """
        wanted = self.statistics.trials + check_trials(self.statistics.next_trial, trials)
        while len(self._ends) < wanted and not self._steady:
            self._pause = wanted if self.fidelity == "event" else len(self._ends) + 1
            self.advance(self._trial_done)
            self._steady = self.fidelity != "event" and self._repeats()
        if self.fidelity != "batch":
            self._gather(min(wanted, len(self._ends)))
        if (more := wanted - self.statistics.trials) > 0:
            if self.datapath.kernels_suffice:
                run_trials(
                    self.point,
                    self.datapath.reading,
                    self.statistics,
                    more,
                    precision=self.precision,
                    mismatch=self.datapath.mismatch,
                )
            else:
                self.datapath.run(self.statistics, more)
        return self.datapath.solved(self.statistics)

    def _repeats(self) -> bool:
        """Whether the last three trials took the same time and counts, and no FIFO has lost a
        perturbation, or may by jitter.
        """
        bus = self.params.bus
        depth = self.params.synapse.fifo_depth
        may_lose = (
            bus.jitter_ns
            and self.timing.after_ns + bus.jitter_ns > (depth - 1) * self.timing.trial_ns
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
            self.accumulators.flush()
            self.statistics.closed = (
                self.accumulators.synapses.copy(),
                self.accumulators.totals.copy(),
            )
            if (periods := self.statistics.periods) is not None:
                broadcasts = np.concatenate(
                    [np.empty((3, 0)), *(self.accumulators.broadcasts or [])], axis=1
                )
                periods.receive(self.statistics.next_trial, broadcasts, self.v)
                periods.sound &= self.accumulators.matched
                self.accumulators.broadcasts = []
            self.statistics.extend(trials - self.statistics.trials)

    # ---- to be stored, and gone on from, between two trials of learning

    @property
    def next_trial(self) -> int:
        """Number of the trial that is about to begin."""
        return self._first + len(self._starts)

    def arrays(self) -> dict[str, Array]:
        """The state between two trials, for `restore` of a new chip.

        Returns
        -------
        dict of str to array
        """
        numbers = range(len(self.tiles))
        deepest = max(len(tile.fifo) for tile in self.tiles)
        arrivals = [arrivals for arrivals, _ in self._sent.values()]
        met = [met for _, met in self._sent.values()]
        fifos = [
            [*tile.fifo, *[-1] * (deepest - len(tile.fifo)), tile.out, tile.overflowed]
            for tile in self.tiles
        ]
        return self.accumulators.arrays() | {
            "latest": np.array(self._arrivals),
            "heard": np.array(arrivals, np.int64).reshape(-1, len(numbers)),
            "met": (
                np.array([[of.get(tile, -1) for tile in numbers] for of in met], np.int64).reshape(
                    -1, len(numbers)
                )
            ),
            "fifos": np.array(fifos, np.int64),
        }

    def restore(self, parts: dict[str, Array]) -> None:
        """Resume from a state, at the trial and the time that this chip starts at.

        Parameters
        ----------
        parts : dict of str to array
            What `arrays` of an equal chip has returned.
        """
        self.accumulators.restore(parts)
        self._arrivals = parts["latest"].tolist()
        for tile, (*fifo, out, overflowed) in zip(self.tiles, parts["fifos"].tolist(), strict=True):
            tile.fifo.extend(trial for trial in fifo if trial >= 0)
            tile.out = out
            tile.overflowed = bool(overflowed)
        for trial, arrivals, met in zip(
            parts["sent"][:, 0], parts["heard"].tolist(), parts["met"].tolist(), strict=True
        ):
            self._sent[int(trial)] = (
                arrivals,
                {tile: perturbed for tile, perturbed in enumerate(met) if perturbed >= 0},
            )
            self.env.process(self._deliver(int(trial)))

    # ---- what it took

    @property
    def time_s(self) -> float:
        """Chip time until the last tile has accumulated the last trial, in s."""
        return self._end_ns(self.statistics.trials - 1) * 1e-9

    @property
    def energy_by_cause(self) -> dict[str, float]:
        """Energy until `time_s` by cause.

        Returns
        -------
        dict of str to float
            J by each of `CAUSES`, by "static" power and, of a chip that refreshes, by "refresh".
        """
        time_ns = self._end_ns(self.statistics.trials - 1)
        counts = self._spent_in(self.statistics.trials)
        energy = {
            cause: n * getattr(self.params.energy, f"{cause}_j")
            for cause, n in zip(CAUSES, counts, strict=True)
        }
        energy["static"] = self.params.energy.static_w * time_ns * 1e-9
        if every := self.datapath.weight_store.refresh_ns:
            energy["refresh"] = self.w.size * (time_ns // every) * self.params.energy.weight_write_j
        return energy

    @property
    def energy_j(self) -> float:
        """Energy until `time_s`, in J."""
        return math.fsum(self.energy_by_cause.values())

    @property
    def incidents(self) -> list[str]:
        """What went wrong on the chip, in fabrication and during the run.

        Returns
        -------
        list of str
            Sentences without a full stop.
        """
        die = self.datapath.die
        n = self.w.size
        works = self.datapath.working(max(self.statistics.trials - 1, 0))
        log = []
        if not die.alive.all():
            log.append(f"{n - die.alive.sum()} of {n} synapses do not work")
        if die.stuck.any():
            log.append(f"{die.stuck.sum()} of {n} weights are stuck")
        log += [what for what, _, _ in self._faults]
        if log and not works.all():
            log.append(f"{n - works.sum()} weights have no estimate in the end")
        return log

    @property
    def fault_free(self) -> ChipParams | None:
        """This chip without the faults that its run met, so that a second run shows their cost.

        Returns
        -------
        ChipParams or None
            None if the run met none. Defects of fabrication remain: they are the die's.
        """
        params = self.params
        for _, table, changes in self._faults:
            part = getattr(params, table).model_copy(update=changes)
            params = params.model_copy(update={table: part})
        return params if self._faults else None

    @property
    def _faults(self) -> list[tuple[str, str, dict[str, object]]]:
        """Each fault of the run: what happened, and the table and values of a chip without it."""
        datapath = self.datapath
        trials = self.statistics.trials
        faults = self.params.faults
        unit = self.params.error_unit
        met: list[tuple[str, str, dict[str, object]]] = []
        if (
            died := int((datapath.die.alive & datapath.die.dying).sum())
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
        if datapath.tally["lost"]:
            what = (
                f"{datapath.tally['lost'] / datapath.tally['broadcasts']:.1%} of the broadcasts to"
                " tiles were lost"
            )
            met.append((what, "bus", {"drop_probability": 0.0}))
        if clipped := datapath.tally["above"] + datapath.tally["below"]:
            what = (
                f"{clipped / datapath.tally['readings']:.1%} of the readings were beyond the"
                " converter's range"
            )
            # steps as large, many more of them; a constant lifts all readings where some were below
            # 0
            wide = {"bits": unit.bits + EXTRA_BITS, "range": unit.range * 2**EXTRA_BITS}
            lifted = (
                {"offset": unit.offset + unit.range * 2 ** (EXTRA_BITS - 1)}
                if datapath.tally["below"]
                else {}
            )
            met.append((what, "error_unit", {**wide, **lifted}))
        for name, what, table, key in (
            ("dE", "dE were beyond the range of its words", "bus", "dE_range"),
            ("s", "dw.v were beyond the range of its words", "bus", "s_range"),
            ("line", "dw.v were beyond the range of its converter", "summing_line", "range"),
        ):
            if beyond := datapath.tally[f"{name}, beyond"]:
                bits = "word_bits" if table == "bus" else "bits"
                part = getattr(self.params, table)
                wide = {
                    bits: getattr(part, bits) + EXTRA_BITS,
                    key: getattr(part, key) * 2**EXTRA_BITS,
                }
                met.append(
                    (f"{beyond / datapath.tally[f'{name}, all']:.1%} of the {what}", table, wide)
                )
        if any(tile.overflowed for tile in self.tiles):
            what = "broadcasts came too late for the FIFO and met the wrong perturbation"
            met.append((what, "synapse", {"fifo_depth": 10**6}))
        return met

    @property
    def events(self) -> int:
        """Number of events that SimPy has processed or scheduled."""
        # it numbers them, and whoever looks at the next number takes it away
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
        """When the last tile has accumulated a trial, from the events or from the timing they
        have found.
        """
        if trial < len(self._ends):
            return self._ends[trial] if trial >= 0 else 0
        bus = self.params.bus
        tiles = len(self.tiles)
        # broadcasts arrive in order: one that jitter holds up holds up those behind it
        back, late = 0, range(tiles - 1, tiles)  # by skew alone the last tile is the latest
        if bus.jitter_ns:
            back = bus.jitter_ns // max(1, int(self.timing.trial_ns)) + 1
            late = range(tiles)
            back = min(
                back, self.params.synapse.fifo_depth
            )  # else events would run to the end, see `_repeats`
        last = max(
            self._start_ns(sent + 1)
            + max(self.datapath.delay_ns(sent, tile, tiles) for tile in late)
            for sent in range(max(0, trial - back), trial + 1)
        )
        return last + bus.latency_ns + self.params.synapse.accumulate_ns

    def _start_ns(self, trial: int) -> int:
        """When a trial begins, from the events or from the timing they have found."""
        if trial < self._first + len(self._starts):
            return self._starts[trial - self._first]
        every = self._every
        whole, rest = divmod(trial - len(self._starts) + 1, every)
        last = self._starts[-1]
        before = self._starts[-1 - every]
        return last + whole * (last - before) + self._starts[-1 - every + rest] - before
