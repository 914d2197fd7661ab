"""Training on a chip: the sums of its synapses change its weights, through its devices.

Sources of updates for `training.loop.train`, with every imperfection of the chip: in batches, or
event by event. A run is a die: see `ChipParams.of_run`.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np

from hardware.assembly import Parts, assemble, realized_code
from hardware.batches import Batches
from hardware.estimate import solved
from hardware.event_chip import Course
from hardware.learning_chip import LearningChip
from hardware.params import ChipParams, differing, engines
from hardware.parts.die import fabricate
from hardware.parts.tile import Held, Update, curvature, means
from hardware.parts.weight_store import WeightStore
from hardware.timing import TrainingTiming
from perturb.errors import InputError
from perturb.estimation.design import Design, NotFinite
from perturb.estimation.engine import Mismatch
from perturb.estimation.solution import Estimate
from perturb.estimation.statistics import Statistics
from perturb.networks.objective import Objective
from perturb.training.loop import Source
from perturb.training.plan import IN_LOOP, LINE_PHASE, Plan, State, count_updates
from perturb.training.presentation import presented
from perturb.training.rates import Estimator, parabolic_step
from perturb.training.rules import RULES, ConjugateGradients, Inputs, of_length_one, wanted_change
from perturb.training.sources import Batch
from perturb.training.updates import begin_steps, direction, rates_at, set_rate
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS

Array = np.ndarray


def source(
    params: ChipParams,
    objective: Objective,
    plan: Plan,
    w: Array,
    events: bool = False,
    waits: bool = True,
) -> Source:
    """The source of updates of a chip that learns, for `perturb.training.train`.

    Parameters
    ----------
    params : ChipParams
    objective : Objective
    plan : Plan
        What is measured, and how it changes the weights.
    w : array (R, n)
        Starting weights of R runs; run r has the die `params.of_run(r)`.
    events : bool
        Whether every trial is simulated in time; else trials are computed in batches, with the
        times of `hardware.timing.TrainingTiming`.
    waits : bool
        Whether the next trial waits until an update has been written.

    Returns
    -------
    Batch or OnChip
        The first that knows all imperfections of the chip: `perturb.training.sources.Batch`, its
        weights in devices where the chip has them, or the chip itself.

    Raises
    ------
    InputError
        If the FIFO is too short for the bus latency without `events`, or the plan is not one for a
        chip.

    Notes
    -----
    For the same plan and seed, events and batches write the same weights.

    Examples
    --------
    >>> import numpy as np, perturb, hardware
    >>> from hardware.training import source
    >>> from perturb.training import Plan
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[0.5]])
    >>> type(source(hardware.load_chip("ideal"), objective, Plan(), np.zeros((2, 2)))).__name__
    'Batch'
    """
    known = engines(params)
    seen = plan.rate in ("fixed", "line") or not differing(params, "unseen")
    if not events and waits and seen and known <= {"kernels", "stores"}:
        _check_fifo(params, TrainingTiming(params, objective, plan, waits))
        plan = replace(plan, code=realized_code(params, plan.code, objective.n_weights))
        mismatch = None
        dies = [fabricate(params.of_run(run), objective.n_weights, []) for run in range(len(w))]
        stuck = np.array([die.stuck for die in dies])
        if stuck.any() and (plan.method.displaced or plan.readings_of_an_update):
            return OnChip(
                params, objective, plan, w, events, waits
            )  # `Batch` would displace stuck weights along v or the step
        if params.perturbation.gain_mismatch or params.perturbation.offset_mismatch or stuck.any():
            gain = np.array([die.gain for die in dies])
            offset = np.array([die.offset for die in dies])
            mismatch = Mismatch(np.where(stuck, 0.0, gain), np.where(stuck, 0.0, offset))
        if known <= {"kernels"}:
            return Batch(objective, plan, mismatch=mismatch)
        stores = [
            WeightStore(params.of_run(run), stuck[run], w[run], plan.seed_of(run))
            for run in range(len(w))
        ]
        if not stores[0].changes:
            return Batch(objective, plan, mismatch=mismatch, weights=DeviceWeights(stores))
    return OnChip(params, objective, plan, w, events, waits)


def _check_fifo(params: ChipParams, timing: TrainingTiming) -> None:
    """InputError for broadcasts that come too late for the FIFO of perturbations."""
    if timing.pending >= params.synapse.fifo_depth:
        raise InputError(
            f"bus.latency_ns = {params.bus.latency_ns} outlasts the FIFO of"
            f" {params.synapse.fifo_depth} perturbations, which only events can show: set"
            ' training.source = "event", or a deeper synapse.fifo_depth'
        )


class DeviceWeights:
    """The weights of `training.sources.Batch` in devices, a store for each run, that do not change
    between writes: for every rule of learning.
    """

    def __init__(self, stores: list[WeightStore]):
        self.stores = stores

    def begin(self, state: State) -> None:
        state.w[:] = [store.weights(0) for store in self.stores]

    def write(self, state: State, change: Array, update: int) -> None:
        for run, store in enumerate(self.stores):
            store.add(change[run], update, 0)
            state.w[run] = store.weights(0)

    def store(self, state: State) -> None:
        parts = [store.arrays() for store in self.stores]
        state.extra = {name: np.array([part[name] for part in parts]) for name in parts[0]}

    def resume(self, state: State) -> None:
        for run, store in enumerate(self.stores):
            store.restore({name: array[run] for name, array in state.extra.items()})


class OnChip:
    """Updates from a chip's trials. events: every trial in time; else in batches, with
    the predicted times.

    waits: see `timing.TrainingTiming`. All that rules and rates make use of is measured by the chip
    itself, at its weights as they are. Event by event its tiles change their own weights; what is
    not local (steps from all of g and z, rates from tr H) is the host's, which this is. In batches
    all weights change at once, by the same rules. InputError for a broadcast that comes too late
    for the FIFO, other than by events.
    """

    def __init__(
        self,
        params: ChipParams,
        objective: Objective,
        plan: Plan,
        w: Array,
        events: bool,
        waits: bool,
    ):
        if plan.baseline_free:
            raise InputError(
                "baseline_free is not for a chip, which has to measure E(w): leave it out"
            )
        if unknown := [name for name in IN_LOOP if getattr(plan, name)]:
            raise InputError(
                f"{unknown[0]} is for chips that learn in batches, without imperfections of their"
                " arrays: set it to 0"
            )
        self.plan = plan
        self.objective = objective
        self.events = events
        self.params = params
        self.timing = TrainingTiming(params, objective, plan, waits)
        if not events:
            _check_fifo(params, self.timing)
        self._code = realized_code(params, plan.code, objective.n_weights)
        self._w = w
        runs = range(len(w))
        self.chips = [self._chip(run) for run in runs] if events else []
        self.batches = [] if events else [self._batches(run) for run in runs]
        # updates that have been computed (of events: written), and change the weights at the start
        # of a later trial
        self._pending: list[list[tuple[int, Array]]] = (
            [chip.changes for chip in self.chips] if events else [[] for _ in runs]
        )
        # of the runs, towards an update that is under way
        self._steps: dict[int, ConjugateGradients] = {}

    def parts(self, run: int) -> Parts:
        """The parts of a run's chip."""
        return self.chips[run].parts if self.events else self.batches[run].parts

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

    def _chip(self, run: int, first: int = 0, start_ns: int = 0) -> LearningChip:
        return LearningChip(
            self.params.of_run(run),
            self.objective,
            self._w[run],
            self._code,
            self.timing,
            self.plan.seed_of(run),
            self._course(run, first, start_ns),
            partial(self._direction, run),
        )

    def _batches(self, run: int) -> Batches:
        plan = self.plan
        n = self.objective.n_weights
        design = Design(plan.method, self._code, n, plan.sigma, plan.r, plan.seed_of(run))
        course = self._course(run)
        parts = assemble(
            self.params.of_run(run), self.objective, design, self._w[run], course.patterns_of
        )
        return Batches(parts, np.ones(n), self.timing.start_ns, course.perturb_every)

    def advance(self, state: State, updates: int) -> None:
        """A number of updates of every run; state.w are the weights that the arrays compute with,
        as they are then.
        """
        if state.update == 0 and state.trial == 0:
            self._update_state(state)
        for run in range(len(state.w)):
            if state.going[run]:
                try:
                    (self._by_events if self.events else self._in_batches)(state, run, updates)
                except NotFinite as error:
                    state.failed[run] = error.trial
                    self._pending[run].clear()  # the run has ended
        count_updates(state, self.plan, updates)
        self._update_state(state)

    def _in_batches(self, state: State, run: int, updates: int) -> None:
        """The visible loop: perturb, measure, broadcast, accumulate, update."""
        batches = self.batches[run]
        timing = self.timing
        K = self.plan.trials_per_update
        pending = self._pending[run]
        first = state.update * timing.rounds
        for round_ in range(first, first + updates * timing.rounds):
            batches.synapses.begin(self._direction(run, round_))
            for trial in range(round_ * K, (round_ + 1) * K):
                start_ns = timing.start_ns(trial)
                while pending and timing.written_ns(pending[0][0]) <= start_ns:
                    update, change = pending.pop(0)
                    batches.parts.array.weights.add(change, update, start_ns)
                told = batches.next(trial)
            sums, v = batches.synapses.sums, batches.synapses.v
            held = Held(sums, told.known[0], told.dE_g[0], v)
            wanted = self._on_round(state, run, round_, [held], timing.arrived_ns(round_))
            if wanted is not None:
                pending.append((round_ // timing.rounds, wanted))

    def _by_events(self, state: State, run: int, updates: int) -> None:
        chip = self.chips[run]
        for tile in chip.tiles:
            memory = {
                name: array[run : run + 1, tile.part]
                for name, array in state.memory.items()
                if array.ndim == 2
            }
            tile.remember(memory)

        def on_round(round_: int) -> Array | None:
            held = [tile.held for tile in chip.tiles]
            return self._on_round(state, run, round_, held, chip.env.now)

        chip.learn(state.update + updates, on_round)

    def _direction(self, run: int, round_: int) -> Array:
        """v of the trials of a round."""
        update, product = divmod(round_, self.timing.rounds)
        if product == 0:
            return direction(self.plan, run, update, self.objective.n_weights)
        return of_length_one(self._steps[run].d)[1][0]

    def _on_round(
        self, state: State, run: int, round_: int, held: list[Held], now_ns: int
    ) -> Array | None:
        """The change that a round comes to, from what its tiles hold; None if products are still
        to follow.
        """
        plan, (update, product) = self.plan, divmod(round_, self.timing.rounds)
        trial = (round_ + 1) * plan.trials_per_update - 1
        local = self.events and RULES[plan.rule].local
        g = z = np.zeros(0)
        if not local or self.timing.measures(round_):
            g, z = means(plan, np.concatenate([each.sums for each in held], 1))
        if self.timing.measures(round_):
            self._measure_rate(state, run, update, g, trial, now_ns)
        if RULES[plan.rule].z == "products" and not self._stepped(run, product, g, z):
            return None
        eta = float(rates_at(plan, state, update)[run])
        if local:
            tiles = self.chips[run].tiles
            change = np.concatenate([tile.change(plan, Update(update, eta)) for tile in tiles])
        else:
            D, v = (np.concatenate([getattr(each, name) for each in held]) for name in "Dv")
            curved = self._steps[run].p if run in self._steps else curvature(plan, z)[None]
            told = (g[None], D[None], np.array([held[0].dE]), v[None], curved)
            memory = {name: array[run : run + 1] for name, array in state.memory.items()}
            inputs = Inputs(plan, memory, np.array([eta]), update, *told)
            change = wanted_change(inputs)[0]
        if not np.isfinite(change).all():
            raise self.parts(run).design.not_finite(trial)
        return change

    def _stepped(self, run: int, product: int, g: Array, z: Array) -> bool:
        """Whether conjugate gradients have come to a step, with the product of a round."""
        if product == 0:
            self._steps[run] = begin_steps(self.plan, g[None])
        else:
            steps = self._steps[run]
            steps.go_on(of_length_one(steps.d)[0] * z[None] / self.plan.r)
        return product == self.plan.cg_steps

    # ---- rates

    def _measure_rate(
        self, state: State, run: int, update: int, g: Array, trial: int, now_ns: int
    ) -> None:
        plan = self.plan
        try:
            if plan.rate == "line":
                state.memory["eta"][run] = self._line_rate(run, g, trial, now_ns)
            else:
                variance = plan.reading.variance(self.objective.n_patterns)
                set_rate(plan, state, run, update, g, self._estimator(state, run, now_ns), variance)
        except NotFinite:
            raise self.parts(run).design.not_finite(trial) from None

    def _whole(self, run: int, design: Design, start_ns: Callable[[int], int]) -> Batches:
        """The chip of a run, with its weights as they are, for trials on all patterns."""
        parts = self.parts(run).unused()
        whole = replace(parts, design=design, array=parts.array.showing_all())
        return Batches(whole, np.ones(design.n_weights), start_ns)

    def _line_rate(self, run: int, p: Array, trial: int, now_ns: int) -> float:
        """The step along -p that reduces E, from readings of the chip after a trial."""
        parts = self.parts(run)
        whole = self._whole(run, parts.design, lambda trial: now_ns)
        keys = [(trial, LINE_PHASE + k) for k in range(3)]

        def measured(steps: Array) -> Array:
            asked = parts.drivers.felt(parts.health.masked(steps, [trial]))
            displaced = np.array([parts.drivers.settle(step) for step in asked])
            return whole.readings(keys, displaced)

        return parabolic_step(self.plan.sigma, p, measured)

    def _estimator(self, state: State, run: int, now_ns: int) -> Estimator:
        """Estimates by the chip itself, one after another from a time on."""
        plan = self.plan
        timing = self.timing
        parts = self.parts(run)

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            nonlocal now_ns
            start_ns = now_ns
            trial_ns = timing.tuning[method].trial_ns
            design = Design(METHODS[method], CODES["rademacher"], v.size, plan.sigma, plan.r, seed)
            tuning = assemble(
                parts.params, self.objective, design, state.w[run], weights=parts.array.weights
            )
            statistics = Statistics(design)
            batches = Batches(tuning, v, lambda trial: start_ns + round(trial * trial_ns))
            batches.run(statistics, trials)
            now_ns += timing.tuning_ns(method)
            return solved(parts.params, parts.health, statistics)

        return estimator

    # ---- the state of the runs

    def _update_state(self, state: State) -> None:
        """state.w: what the arrays compute with once the updates so far are written; the chips
        themselves go on as they are.
        """
        now_ns = self.timing.changed_ns(state.update - 1) if state.update else 0
        state.extra = {}
        for run in range(len(state.w)):
            store = copy(self.parts(run).array.weights)
            for number, change in self._pending[run]:
                if number < state.update:
                    store.add(change, number, self.timing.changed_ns(number))
            state.w[run] = store.weights(now_ns)
            state.extra |= {f"{run}.{name}": array for name, array in self._arrays(run).items()}

    def _arrays(self, run: int) -> dict[str, Array]:
        """Where a run stands, besides its weights and the memory of its rule."""
        parts = self.parts(run)
        pending = self._pending[run]
        arrays = parts.array.weights.arrays() | {
            "kept": np.array(parts.controller.stored),
            "displaced": parts.drivers.displaced,
            "pending": np.array([number for number, _ in pending], np.int64),
            "wanted": np.array([change for _, change in pending]).reshape(
                -1, self.objective.n_weights
            ),
        }
        if self.events:
            chip = self.chips[run]
            arrays["next"] = np.array([chip.next_trial, chip.env.now])
            arrays |= {f"chip.{name}": array for name, array in chip.arrays().items()}
            if run in self._steps:
                steps = vars(self._steps[run])
                arrays |= {f"steps.{name}": np.array(array) for name, array in steps.items()}
        return arrays

    def resume(self, state: State) -> None:
        """Go on from a state that was stored."""
        for run in range(len(state.w)):
            arrays = _with_prefix(state.extra, f"{run}.")
            if self.events:
                trial, now = arrays["next"].tolist()
                self.chips[run] = self._chip(run, trial, now)
                self._pending[run] = self.chips[run].changes
            if steps := _with_prefix(arrays, "steps."):
                self._steps[run] = begin_steps(self.plan, steps["d"])
                vars(self._steps[run]).update(steps)
            parts = self.parts(run)
            parts.array.weights.restore(arrays)
            parts.controller.restore(arrays["kept"])
            parts.drivers.restore(arrays["displaced"])
            self._pending[run].extend(
                zip(arrays["pending"].tolist(), arrays["wanted"], strict=True)
            )
            if self.events and state.failed[run] < 0:
                self.chips[run].restore(_with_prefix(arrays, "chip."))


def _with_prefix(parts: dict[str, Array], start: str) -> dict[str, Array]:
    return {
        name.removeprefix(start): array for name, array in parts.items() if name.startswith(start)
    }
