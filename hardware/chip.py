"""The chip: estimates g and z = Hv event by event, in batches, or by events until it is known how
they go; and what that takes.
"""

import math

import numpy as np

from hardware.assembly import Parts, realized_code
from hardware.batches import Batches
from hardware.estimate import solved
from hardware.event_chip import EventChip
from hardware.incidents import Fault, of_fabrication, of_run, without
from hardware.params import ChipParams, engines, imperfections
from hardware.signals import Interval, Message
from hardware.timing import CAUSES, Timing
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
        "event" simulates every trial in time; "auto" does so for the first trials, and computes the
        rest in batches, with the times of the schedule; "batch" computes all trials in batches, and
        simulates the first ones for the trace only.
    trace_trials : int
        Trials of which `trace` holds the intervals, and `messages` the numbers.
    precision : {"float64", "float32", "auto"}
        Of batches, as of `perturb.estimate`.

    Attributes
    ----------
    trace : list of Interval
        The intervals (trial, phase, start_ns, end_ns, unit, action) of the first trials.
    messages : list of Message
        What the parts told each other in these trials, (trial, at_ns, sender, name, value).
    statistics : Statistics
        The sums so far.
    timing : Timing
        Predicted times and energies of a trial.
    live : EventChip
        The chip in time: its tiles and other parts, when each trial began and ended, what it spent.
    parts : Parts
        Its parts but the tiles.
    batches : Batches
        The same chip for many trials at a time.

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
    ):
        method = choose("method", method, METHODS) if isinstance(method, str) else method
        code = choose("code", code, CODES) if isinstance(code, str) else code
        choose("fidelity", fidelity, dict.fromkeys(FIDELITIES))
        self.params = params
        self.objective = objective
        self.fidelity = fidelity
        code = realized_code(params, code, objective.n_weights)
        self.design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
        self.point = check_point(objective, w, v, self.design)
        self.w = self.point.w
        self.v = self.point.v
        self.live = EventChip(params, objective, self.design, self.w, self.v, trace_trials)
        self.timing: Timing = self.live.timing
        self.parts: Parts = self.live.parts
        # circuits of their own: what they read and send is counted apart from the events
        self.batches = Batches(self.parts.unused(), self.v, self.timing.start_ns)
        reading = self.parts.error_unit.reading
        self.statistics = Statistics(self.design)
        self.statistics.bind(self.point.record(reading))
        if precision == "float32" and not self.kernels_suffice:
            raise InputError(
                f'precision = "float32" has no kernel for {", ".join(imperfections(params))}: use'
                ' "auto" or "float64"'
            )
        # `hardware.batches` computes in float64
        wanted = precision if self.kernels_suffice else "float64"
        self.precision = chosen(wanted, self.point, reading, self.design)

    @property
    def presented(self) -> int:
        """Patterns of an evaluation."""
        return self.live.presented

    @property
    def trace(self) -> list[Interval]:
        """The intervals of the first trials."""
        return self.live.trace

    @property
    def messages(self) -> list[Message]:
        """What the parts told each other in the first trials."""
        return self.live.messages

    @property
    def events(self) -> int:
        """Number of events that SimPy has processed or scheduled."""
        return self.live.events

    # ---- running

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
        ends_ns = self.live.ends_ns
        timed_only = self.fidelity == "batch"  # then for what events tell of the FIFO alone
        # one trial more at a time, until enough have been followed
        while (timed_only or len(ends_ns) < wanted) and not self._followed():
            self.live.follow(wanted if self.fidelity == "event" else len(ends_ns) + 1)
        if self.fidelity != "batch":
            self._gather(min(wanted, len(ends_ns)))
        if (more := wanted - self.statistics.trials) > 0:
            self._in_batches(more)
        return solved(self.params, self.parts.health, self.statistics)

    @property
    def kernels_suffice(self) -> bool:
        """Whether the batch kernels know all that is not ideal."""
        return engines(self.params) <= {"kernels"}

    def _in_batches(self, trials: int) -> None:
        parts = self.parts
        if not self.kernels_suffice:
            self.batches.run(self.statistics, trials)
            return
        run_trials(
            self.point,
            parts.error_unit.reading,
            self.statistics,
            trials,
            precision=self.precision,
            mismatch=parts.drivers.mismatch,
        )

    def _followed(self) -> bool:
        """Whether enough trials have been followed by events: the rest may go in batches, unless a
        FIFO has lost a perturbation, or may by jitter.
        """
        bus = self.params.bus
        depth = self.params.synapse.fifo_depth
        # as many as fill a FIFO twice, where trials in between are shorter
        enough = 3 + min(self.timing.every, 2 * depth + 2)
        if self.fidelity == "event" or len(self.live.ends_ns) < enough:
            return False
        # the latest words against the shortest time in which a FIFO fills up
        may_lose = (
            bus.jitter_ns
            and self.timing.after_ns + bus.jitter_ns > (depth - 1) * self.timing.shortest_ns
        )
        lost = may_lose or self.live.overflowed
        if lost and self.fidelity == "batch":
            late = "bus.latency_ns" if bus.latency_ns >= bus.jitter_ns else "bus.jitter_ns"
            raise InputError(
                f"{late} = {max(bus.latency_ns, bus.jitter_ns)} outlasts the FIFO of {depth}"
                ' perturbations, which only events can show: set run.fidelity = "event", or a'
                " deeper synapse.fifo_depth"
            )
        return not lost

    def _gather(self, trials: int) -> None:
        """Read the sums of the tiles after so many trials, while the run is at event level."""
        if (new := trials - self.statistics.trials) <= 0:
            return
        self.statistics.closed = self.live.sums_after(trials)
        broadcasts = self.live.take_words(new)
        if (periods := self.statistics.periods) is not None:
            periods.receive(self.statistics.next_trial, broadcasts, self.v)
            # words that met a wrong perturbation spoil what periods are compared by
            periods.sound &= not self.live.overflowed
        self.statistics.extend(new)

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
        trials = self.statistics.trials
        counts = self.timing.spent(trials)
        # as counted by events, as long as these have got so far
        if 0 < trials <= len(self.live.ends_ns):
            counts = self.live.spent(trials)
        energy = {
            cause: n * getattr(self.params.energy, f"{cause}_j")
            for cause, n in zip(CAUSES, counts, strict=True)
        }
        energy["static"] = self.params.energy.static_w * time_ns * 1e-9
        if every := self.parts.array.weights.refresh_ns:
            # a refresh writes every cell
            energy["refresh"] = self.w.size * (time_ns // every) * self.params.energy.weight_write_j
        return energy

    @property
    def energy_j(self) -> float:
        """Energy until `time_s`, in J."""
        return math.fsum(self.energy_by_cause.values())

    def _end_ns(self, trial: int) -> int:
        """When the last tile has accumulated a trial, from the events or beyond them the
        schedule.
        """
        ends_ns = self.live.ends_ns
        if trial < len(ends_ns):
            return ends_ns[trial] if trial >= 0 else 0
        bus = self.params.bus
        tiles = self.parts.bus.tiles
        # broadcasts arrive in order: one that jitter holds up holds up those behind it
        back, late = 0, range(tiles - 1, tiles)  # by skew alone the last tile is the latest
        if bus.jitter_ns:
            back = bus.jitter_ns // max(1, int(self.timing.trial_ns)) + 1
            late = range(tiles)
            # else events would run to the end, see `_followed`
            back = min(back, self.params.synapse.fifo_depth)
        last = max(
            self.timing.start_ns(sent + 1)
            + max(self.parts.bus.delay_ns(sent, tile) for tile in late)
            for sent in range(max(0, trial - back), trial + 1)
        )
        return last + bus.latency_ns + self.params.synapse.accumulate_ns

    @property
    def incidents(self) -> list[str]:
        """What went wrong on the chip, in fabrication and during the run.

        Returns
        -------
        list of str
            Sentences without a full stop.
        """
        log = of_fabrication(self.parts) + [fault.what for fault in self._faults]
        works = self.parts.health.working(max(self.statistics.trials - 1, 0))
        if log and not works.all():
            log.append(f"{works.size - works.sum()} weights have no estimate in the end")
        return log

    @property
    def fault_free(self) -> ChipParams | None:
        """This chip without the faults that its run met, so that a second run shows their cost.

        Returns
        -------
        ChipParams or None
            None if the run met none. Defects of fabrication remain: they are the die's.
        """
        return without(self.params, self._faults)

    @property
    def _faults(self) -> list[Fault]:
        # whose circuits have measured: by events, in batches, or first so and then so
        used = [self.parts] if self.fidelity == "event" else [self.batches.parts]
        if self.fidelity == "auto":
            used = [self.parts, self.batches.parts]
        return of_run(used, self.statistics.trials, self.live.overflowed)
