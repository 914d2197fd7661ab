"""Learning on a chip with all its imperfections, a run on each die: in batches, by the loop of
`perturb.training.loop`, or event by event, by the chip itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from hardware.assembly import Parts, assemble, realized_code
from hardware.batches import BLOCK, Batches
from hardware.estimate import solved
from hardware.event_chip import Course
from hardware.learning_chip import LearningChip
from hardware.params import ChipParams
from hardware.parts.tile import Update, means
from hardware.parts.weight_store import WeightStore
from hardware.timing import TrainingTiming, check_fifo
from perturb.errors import InputError
from perturb.estimation.design import Design, NotFinite
from perturb.estimation.solution import Estimate
from perturb.estimation.statistics import Statistics
from perturb.training.by_trials import check_estimable
from perturb.training.loop import Told, advance, blocked
from perturb.training.of_runs import Learned
from perturb.training.plan import BLOCK_PHASE, IN_LOOP, LINE_PHASE, Plan, State, count_updates
from perturb.training.presentation import presented
from perturb.training.rates import Estimator, parabolic_step
from perturb.training.rules import RULES, ConjugateGradients, Inputs, of_length_one, shortened
from perturb.training.updates import begin_steps, direction, rates_at, set_rate
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS

Array = np.ndarray
Dies = Sequence[ChipParams]  # of one design, that of each run


class OnChip(ABC):
    """Chips that learn, a run each: what batches and events have in common.

    waits: see `timing.TrainingTiming`. All that rules and rates make use of is measured by the chip
    itself, at its weights as they are.
    """

    def __init__(self, dies: Dies, objective: Learned, plan: Plan, w: Array, waits: bool):
        if plan.baseline_free:
            raise InputError(
                "baseline_free = True is not for a chip, which has to measure E(w): leave it out"
            )
        if unknown := [name for name in IN_LOOP if getattr(plan, name)]:
            raise InputError(
                f"{unknown[0]} = {getattr(plan, unknown[0])} is for chips that learn in batches,"
                " without imperfections of their arrays: set it to 0"
            )
        check_estimable(plan)
        self.plan = plan
        self.objective = objective
        self.dies = dies
        # what dies of one design have in common
        params = dies[0]
        self.timing = TrainingTiming(params, objective.of_run(0), plan, waits)
        self.variance = plan.reading.variance(objective.n_patterns)
        self._code = realized_code(params, plan.code, objective.n_weights)
        self._w = w
        # updates that have been computed (of events: written), and change the weights at the start
        # of a later trial
        self._pending: list[list[tuple[int, Array]]] = [[] for _ in w]

    @abstractmethod
    def parts(self, run: int) -> Parts:
        """The parts of a run's chip."""

    def _course(self, run: int, first: int = 0, start_ns: int = 0) -> Course:
        """What the trials of a run show, and when they begin."""
        plan = self.plan
        of = self.objective.n_patterns
        shown = plan.batch or of
        seed = plan.seed_of(run)

        def patterns_of(trial: int) -> Array:
            return presented(seed, trial // plan.sample_every, 1, shown, of)[0]

        every = plan.perturb_every
        return Course(first, start_ns, every, shown, patterns_of if shown != of else None)

    def _last_trial(self, update: int, product: int = 0) -> int:
        """Of the round that makes g, or a product, of an update."""
        return (update * self.timing.rounds + product + 1) * self.plan.trials_per_update - 1

    # ---- what is measured besides the trials

    def _measure_rate(self, state: State, run: int, update: int, g: Array, now_ns: int) -> None:
        plan = self.plan
        trial = self._last_trial(update)
        try:
            if plan.rate == "line":
                state.memory["eta"][run] = self._line_rate(run, g, trial, now_ns)
            else:
                estimator = self._estimator(state, run, now_ns)
                set_rate(plan, state, run, update, g, estimator, self.variance)
        except NotFinite:
            raise self.parts(run).design.not_finite(trial) from None

    def _readings(self, run: int, trial: int, phase: int, at: Array, now_ns: int) -> Array:
        """E (k,) on all patterns with the weights displaced to `at` (k, n), after a trial."""
        parts = self.parts(run)
        # circuits of their own: these readings are not counted as those of trials
        whole = replace(parts.unused(), array=parts.array.showing(None))
        batches = Batches(whole, np.zeros(at.shape[1]), lambda trial: now_ns)
        # synapses that do not work ask for nothing, and stuck weights feel nothing
        asked = parts.drivers.felt(parts.health.masked(at, [trial]))
        # from where the last trial has left the drivers
        displaced = np.array([parts.drivers.settle(step) for step in asked])
        return batches.readings([(trial, phase + k) for k in range(len(at))], displaced)

    def _line_rate(self, run: int, p: Array, trial: int, now_ns: int) -> float:
        """The step along -p, p = g, that reduces E, from readings of the chip after a trial."""

        def measured(steps: Array) -> Array:
            return self._readings(run, trial, LINE_PHASE, steps, now_ns)

        return parabolic_step(self.plan.sigma, p, measured)

    def _rise(self, run: int, update: int, change: Array, now_ns: int) -> float:
        """E(w + change) - E(w), two readings on all patterns."""
        at = np.array([0.0 * change, change])
        trial = self._last_trial(update)
        before, after = self._readings(run, trial, BLOCK_PHASE, at, now_ns)
        return after - before

    def _estimator(self, state: State, run: int, now_ns: int) -> Estimator:
        """Estimates by the chip itself, one after another from a time on."""
        plan = self.plan
        timing = self.timing
        parts, objective = self.parts(run), self.objective.of_run(run)

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            nonlocal now_ns
            start_ns = now_ns
            trial_ns = timing.tuning[method].trial_ns
            design = Design(METHODS[method], CODES["rademacher"], v.size, plan.sigma, plan.r, seed)
            # the same die and weights under another method, with trials from 0 on
            tuning = assemble(
                parts.params, objective, design, state.w[run], weights=parts.array.weights
            )
            statistics = Statistics(design)
            batches = Batches(tuning, v, lambda trial: start_ns + round(trial * trial_ns))
            batches.run(statistics, trials)
            # the next estimate begins when the words of this one have arrived
            now_ns += timing.tuning_ns(method)
            return solved(parts.params, parts.health, statistics)

        return estimator

    # ---- the state of the runs

    def _update_state(self, state: State) -> None:
        """state.w: what the arrays compute with once the updates so far are written; the chips
        themselves go on as they are.
        """
        now_ns = self.now_ns(state.update)
        state.extra = {}
        for run in range(len(state.w)):
            state.w[run] = self.written(run, state.update).weights(now_ns)
            state.extra |= {f"{run}.{name}": array for name, array in self._arrays(run).items()}

    def now_ns(self, updates: int) -> int:
        """When so many updates are written."""
        return self.timing.changed_ns(updates - 1) if updates else 0

    def written(self, run: int, updates: int) -> WeightStore:
        """The weights of a run's chip once its first updates are written; the chip itself goes on
        as it is.
        """
        # a copy: what is pending changes the chip only at its time
        store = copy(self.parts(run).array.weights)
        for number, change in self._pending[run]:
            if number < updates:
                store.add(change, number, self.timing.changed_ns(number))
        return store

    def _arrays(self, run: int) -> dict[str, Array]:
        """Where a run stands, besides its weights and the memory of its rule."""
        parts = self.parts(run)
        pending = self._pending[run]
        return parts.array.weights.arrays() | {
            "kept": np.array(parts.controller.stored),
            "displaced": parts.drivers.displaced,
            "pending": np.array([number for number, _ in pending], np.int64),
            "wanted": np.array([change for _, change in pending]).reshape(
                -1, self.objective.n_weights
            ),
        }

    def resume(self, state: State) -> None:
        """Go on from a state that was stored."""
        for run in range(len(state.w)):
            self._resume(state, run, _with_prefix(state.extra, f"{run}."))

    def _resume(self, state: State, run: int, arrays: dict[str, Array]) -> None:
        parts = self.parts(run)
        parts.array.weights.restore(arrays)
        parts.controller.restore(arrays["kept"])
        parts.drivers.restore(arrays["displaced"])
        self._pending[run].extend(zip(arrays["pending"].tolist(), arrays["wanted"], strict=True))


class InBatches(OnChip):
    """A source of updates whose trials are computed without events, with the predicted times: all
    weights of all runs change at once, by `training.loop.advance`.

    InputError for a broadcast that comes too late for the FIFO, which only events can show.
    """

    def __init__(self, dies: Dies, objective: Learned, plan: Plan, w: Array, waits: bool):
        super().__init__(dies, objective, plan, w, waits)
        check_fifo(dies[0], self.timing)
        self.batches = [self._batches(run) for run in range(len(w))]

    def parts(self, run: int) -> Parts:
        return self.batches[run].parts

    def _batches(self, run: int) -> Batches:
        plan = self.plan
        n = self.objective.n_weights
        design = Design(plan.method, self._code, n, plan.sigma, plan.r, plan.seed_of(run))
        course = self._course(run)
        objective = self.objective.of_run(run)
        parts = assemble(self.dies[run], objective, design, self._w[run], course.patterns_of)
        # v is set in every round, by `_trials`
        return Batches(parts, np.ones(n), self.timing.start_ns, course.perturb_every)

    def advance(self, state: State, updates: int) -> None:
        """A number of updates of every run; state.w are the weights that the arrays compute with,
        as they are then.
        """
        # devices hold the starting weights only as nearly as they can
        if state.update == 0 and state.trial == 0:
            self._update_state(state)
        advance(self, state, updates)
        self._update_state(state)

    def told(self, state: State, update: int, V: Array) -> Told:
        return self._round(state, update * self.timing.rounds, V)

    def product(self, state: State, update: int, number: int, V: Array) -> Array:
        size, V = of_length_one(V)
        return size * self._round(state, update * self.timing.rounds + number, V).z

    def _round(self, state: State, round_: int, V: Array) -> Told:
        """What a round of trials tells of every run; V (R, n): the directions."""
        g, z, D = np.zeros((3, *state.w.shape))
        told = Told(g, z, D, np.zeros(len(V)))
        for run in map(int, np.flatnonzero(state.going)):
            with self._failing(state, run):
                own = self._trials(run, round_, V[run])
                g[run], z[run], D[run], told.dE[run] = own
        return told

    def _trials(self, run: int, round_: int, v: Array) -> Told:
        """Perturb, measure, broadcast, accumulate: what `Batches` does, some trials at a time,
        while updates that have been written change the weights.
        """
        batches = self.batches[run]
        pending = self._pending[run]
        timing = self.timing
        K = self.plan.trials_per_update
        trial, last = round_ * K, (round_ + 1) * K
        batches.synapses.begin(v)
        while trial < last:
            start_ns = timing.start_ns(trial)
            # in order, and at the start of the first trial after the writing
            while pending and timing.written_ns(pending[0][0]) <= start_ns:
                update, change = pending.pop(0)
                batches.parts.array.weights.add(change, update, start_ns)
            stop = min(trial + BLOCK, last)
            if pending:
                written_ns = timing.written_ns(pending[0][0])
                later = range(trial + 1, stop)
                stop = next((k for k in later if timing.start_ns(k) >= written_ns), stop)
            broadcasts = batches.next(range(trial, stop))
            trial = stop
        g, z = means(self.plan, batches.synapses.sums)
        # synapses whose words were lost have met no D
        D = np.where(batches.arrived, broadcasts.known[-1], 0.0)
        return Told(g, z, D, broadcasts.dE_g[-1])

    def measure_rates(self, state: State, update: int, g: Array) -> None:
        now_ns = self.timing.arrived_ns(update * self.timing.rounds)
        for run in map(int, np.flatnonzero(state.going)):
            with self._failing(state, run):
                self._measure_rate(state, run, update, g[run], now_ns)

    def rise(self, state: State, update: int, change: Array) -> Array:
        now_ns = self.timing.arrived_ns((update + 1) * self.timing.rounds - 1)
        rise = np.zeros(len(change))
        for run in map(int, np.flatnonzero(state.going)):
            rise[run] = self._rise(run, update, change[run], now_ns)
        return rise

    def write(self, state: State, change: Array, update: int) -> None:
        """Changes are written when the chip has had time for it: at the start of a later trial."""
        for run in map(int, np.flatnonzero(state.going)):
            with self._failing(state, run):
                if not np.isfinite(change[run]).all():
                    last = self._last_trial(update, self.timing.rounds - 1)
                    raise self.parts(run).design.not_finite(last)
                self._pending[run].append((update, change[run].copy()))

    @contextmanager
    def _failing(self, state: State, run: int) -> Iterator[None]:
        """A run ends where E is not finite; the others go on."""
        try:
            yield
        except NotFinite as error:
            state.failed[run] = error.trial
            # what a run wanted before it failed is not written any more
            self._pending[run].clear()


class ByEvents(OnChip):
    """A source of updates whose trials are all simulated in time: the tiles of each chip change
    their own weights. What is not local (steps from all of g and z, rates from tr H) is the host's,
    which this is.
    """

    def __init__(self, dies: Dies, objective: Learned, plan: Plan, w: Array, waits: bool):
        super().__init__(dies, objective, plan, w, waits)
        self.chips = [self._chip(run) for run in range(len(w))]
        # the chips' own lists, which they empty at the start of a trial
        self._pending = [chip.changes for chip in self.chips]
        # of the runs, towards an update that is under way
        self._steps: dict[int, ConjugateGradients] = {}

    def parts(self, run: int) -> Parts:
        return self.chips[run].parts

    def _chip(self, run: int, first: int = 0, start_ns: int = 0) -> LearningChip:
        return LearningChip(
            self.dies[run],
            self.objective.of_run(run),
            self._w[run],
            self._code,
            self.timing,
            self.plan.seed_of(run),
            self._course(run, first, start_ns),
            partial(self._direction, run),
        )

    def advance(self, state: State, updates: int) -> None:
        """A number of updates of every run; state.w are the weights that the arrays compute with,
        as they are then.
        """
        if state.update == 0 and state.trial == 0:
            self._update_state(state)
        for run in map(int, np.flatnonzero(state.going)):
            try:
                self._learn(state, run, updates)
            except NotFinite as error:
                state.failed[run] = error.trial
                self.chips[run].drop_changes()
        count_updates(state, self.plan, updates)
        self._update_state(state)

    def _learn(self, state: State, run: int, updates: int) -> None:
        chip = self.chips[run]
        rule = RULES[self.plan.rule]
        if rule.local:  # what a rule remembers of a weight is in its tile; the state stores it
            for tile in chip.tiles:
                own = (run, tile.part)
                tile.remember({name: state.memory[name][own][None] for name, _ in rule.memory})
        chip.learn(state.update + updates, HostOfRun(self, state, run))

    def _direction(self, run: int, round_: int) -> Array:
        """v of the trials of a round."""
        update, product = divmod(round_, self.timing.rounds)
        if product == 0:
            return direction(self.plan, run, update, self.objective.n_weights)
        # the later rounds of an update make products Hd
        return of_length_one(self._steps[run].d)[1][0]

    def decide(self, state: State, run: int, round_: int) -> Update | Array | None:
        """See `learning_chip.Host`."""
        plan, chip = self.plan, self.chips[run]
        update, product = divmod(round_, self.timing.rounds)
        rule = RULES[plan.rule]
        g = z = np.zeros(0)
        if not rule.local or self.timing.measures_rate(round_):
            # of the oldest round, which is the one that all tiles hold
            g, z = means(plan, np.concatenate([tile.held[0].sums for tile in chip.tiles], 1))
        if self.timing.measures_rate(round_):
            self._measure_rate(state, run, update, g, chip.env.now)
        # further products are to come, and the weights stay
        if rule.z == "products" and not self._stepped(run, product, g, z):
            return None
        eta = float(rates_at(plan, state, update)[run])
        if rule.local:
            return Update(update, eta)
        return self._host_change(state, run, update, eta, g, z)

    def allow(self, run: int, round_: int, change: Array) -> Array:
        """See `learning_chip.Host`: no longer than the longest step, and none that makes E worse
        by more than `block`.
        """
        plan, chip = self.plan, self.chips[run]
        update, product = divmod(round_, self.timing.rounds)
        change = shortened(plan, change[None])
        if plan.block:
            rise = self._rise(run, update, change[0], chip.env.now)
            change[blocked(plan, np.array([rise]), self.variance)] = 0.0
        if not np.isfinite(change).all():
            raise chip.design.not_finite(self._last_trial(update, product))
        return change[0]

    def _stepped(self, run: int, product: int, g: Array, z: Array) -> bool:
        """Whether conjugate gradients have come to a step, with the product of a round."""
        if product == 0:
            self._steps[run] = begin_steps(self.plan, g[None])
        else:
            steps = self._steps[run]
            # z is of d/|d|, and z |d| = Hd
            steps.go_on(of_length_one(steps.d)[0] * z[None])
        return product == self.plan.cg_steps

    def _host_change(
        self, state: State, run: int, update: int, eta: float, g: Array, z: Array
    ) -> Array:
        """The change of all weights (n,) by a rule that no tile can follow by itself."""
        held = [tile.held[0] for tile in self.chips[run].tiles]
        D, v = (np.concatenate([getattr(each, name) for each in held]) for name in "Dv")
        curved = self._steps[run].p if run in self._steps else z[None]
        # views: the rule changes what the state remembers
        memory = {name: array[run : run + 1] for name, array in state.memory.items()}
        told = (g[None], D[None], np.array([held[0].dE]), v[None], curved)
        inputs = Inputs(self.plan, memory, np.array([eta]), update, *told)
        return RULES[self.plan.rule].change(inputs)[0]

    def _arrays(self, run: int) -> dict[str, Array]:
        chip = self.chips[run]
        arrays = super()._arrays(run) | {"next": np.array([chip.next_trial, chip.env.now])}
        arrays |= {f"chip.{name}": array for name, array in chip.arrays().items()}
        # its attributes are all that conjugate gradients know
        steps = vars(self._steps[run]) if run in self._steps else {}
        return arrays | {f"steps.{name}": np.array(array) for name, array in steps.items()}

    def _resume(self, state: State, run: int, arrays: dict[str, Array]) -> None:
        # a new chip that begins at the trial and the time at which the old one stood
        self.chips[run] = self._chip(run, *arrays["next"].tolist())
        self._pending[run] = self.chips[run].changes
        if steps := _with_prefix(arrays, "steps."):
            self._steps[run] = begin_steps(self.plan, steps["d"])
            vars(self._steps[run]).update(steps)
        super()._resume(state, run, arrays)
        # a run that has failed goes on with no events
        if state.failed[run] < 0:
            self.chips[run].restore(_with_prefix(arrays, "chip."))


class HostOfRun(NamedTuple):
    """The host of one chip, see `learning_chip.Host`."""

    of: ByEvents
    state: State
    run: int

    def decide(self, round_: int) -> Update | Array | None:
        return self.of.decide(self.state, self.run, round_)

    def allow(self, round_: int, change: Array) -> Array:
        return self.of.allow(self.run, round_, change)


def on_chip(
    params: ChipParams,
    objective: Learned,
    plan: Plan,
    w: Array,
    events: bool,
    waits: bool,
    dies: Sequence[int] | None = None,
) -> InBatches | ByEvents:
    """Updates from a chip's own trials, see `training.source`."""
    made = params.of_runs(len(w), dies)
    return (ByEvents if events else InBatches)(made, objective, plan, w, waits)


def _with_prefix(parts: dict[str, Array], start: str) -> dict[str, Array]:
    return {
        name.removeprefix(start): array for name, array in parts.items() if name.startswith(start)
    }
