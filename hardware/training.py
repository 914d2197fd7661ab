"""Training on a chip: the sums of its synapses change its weights, through its devices.

Sources of updates for `training.loop.train`, with every imperfection of the chip: in batches, or
event by event. A run is a die: see `ChipParams.of_run`.
"""

from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np

from hardware.chip import Chip
from hardware.datapath import Datapath, fabricate, realized_code
from hardware.params import ChipParams, differing, engines
from hardware.parts.weight_store import WeightStore
from hardware.timing import TrainingTiming
from hardware.update_process import UpdateProcess
from perturb.errors import InputError
from perturb.estimation.design import Design, NotFinite
from perturb.estimation.engine import Mismatch
from perturb.estimation.solution import Estimate
from perturb.estimation.statistics import Statistics
from perturb.networks.objective import Objective
from perturb.training.loop import Source
from perturb.training.plan import IN_LOOP, LINE_PHASE, RULES, Plan, State, count_updates
from perturb.training.presentation import presented
from perturb.training.rates import Estimator, parabolic_step
from perturb.training.rules import ConjugateGradients, Inputs, of_length_one, wanted_change
from perturb.training.sources import Batch
from perturb.training.updates import begin_steps, direction, rates_at, set_rate
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from perturb.trial.synapse import SUMS, TOTALS

Array = np.ndarray
XY = SUMS.index("xy")
QU = SUMS.index("qu")


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
    itself, at its weights as they are. InputError for a broadcast that comes too late for the FIFO,
    other than by events.
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
        self.n_presented = plan.batch or objective.n_patterns
        code = realized_code(params, plan.code, objective.n_weights)
        self.timing = TrainingTiming(params, objective, plan, waits)
        if not events:
            _check_fifo(params, self.timing)
        self.params = params
        self._code = code
        self._w = w
        self.chips: list[Chip] = [self._chip(run) for run in range(len(w))] if events else []
        self.runs = (
            [chip.datapath for chip in self.chips]
            if events
            else [self._datapath(run) for run in range(len(w))]
        )
        self._updates = [self._updates_of(run) for run in range(len(self.chips))]
        # updates that have been computed (of events: written), and change the weights at the start
        # of a later trial
        self._pending: list[list[tuple[int, Array]]] = (
            [updates.changes for updates in self._updates] if events else [[] for _ in self.runs]
        )
        self._steps: dict[
            int, ConjugateGradients
        ] = {}  # of the runs, towards an update that is under way

    def _chip(self, run: int, start: tuple[int, int] = (0, 0)) -> Chip:
        plan = self.plan
        whole = self.n_presented == self.objective.n_patterns
        seed = plan.seed_of(run)
        chip = Chip(
            self.params.of_run(run),
            self.objective,
            self._w[run],
            np.ones(self.objective.n_weights),
            plan.method,
            self._code,
            plan.sigma,
            plan.r,
            seed,
            "batch" if whole else "pattern",
            "event",
            start=start,
            updates=partial(
                UpdateProcess, timing=self.timing, direction=partial(self._direction, run)
            ),
        )
        chip.presented = self.n_presented
        chip.timing = self.timing.trial_timing
        self._with_periods(chip.datapath, seed)
        return chip

    def _updates_of(self, run: int) -> UpdateProcess:
        updates = self.chips[run].updates
        assert isinstance(updates, UpdateProcess)
        return updates

    def _datapath(self, run: int) -> Datapath:
        plan = self.plan
        n = self.objective.n_weights
        seed = plan.seed_of(run)
        design = Design(plan.method, self._code, n, plan.sigma, plan.r, seed)
        datapath = Datapath(
            self.params.of_run(run),
            self.objective,
            design,
            self._w[run],
            np.ones(n),
            self.timing.start_ns,
        )
        self._with_periods(datapath, seed)
        return datapath

    def _with_periods(self, datapath: Datapath, seed: int) -> None:
        plan = self.plan
        shown = self.n_presented
        of = self.objective.n_patterns
        datapath.perturb_every = plan.perturb_every
        if shown != of:
            datapath.patterns_of = lambda trial: presented(
                seed, trial // plan.sample_every, 1, shown, of
            )[0]

    def advance(self, state: State, updates: int) -> None:
        """A number of updates of every run; state.w are the weights that the arrays compute with,
        as they are then.
        """
        if state.update == 0 and state.trial == 0:
            self._update_state(state)
        for run in range(len(self.runs)):
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
        datapath = self.runs[run]
        timing = self.timing
        K = self.plan.trials_per_update
        rounds = self.timing.rounds
        for round_ in range(state.update * rounds, (state.update + updates) * rounds):
            sums = np.zeros((len(SUMS), self.objective.n_weights))
            totals = np.zeros(len(TOTALS))
            datapath.v = self._direction(run, round_)
            for trial in range(round_ * K, (round_ + 1) * K):
                start_ns = timing.start_ns(trial)
                while (
                    self._pending[run] and timing.written_ns(self._pending[run][0][0]) <= start_ns
                ):
                    number, change = self._pending[run].pop(0)
                    datapath.weight_store.add(change, number, start_ns)
                on_round = datapath.evaluated(range(trial, trial + 1))
                datapath.accumulate(sums, totals, [trial], on_round)
            wanted = self._on_round(
                state,
                run,
                round_,
                sums,
                on_round.known[0],
                on_round.y[0],
                timing.arrived_ns(round_),
            )
            if wanted is not None:
                self._pending[run].append((round_ // rounds, wanted))

    def _by_events(self, state: State, run: int, updates: int) -> None:
        chip = self.chips[run]

        def on_round(round_: int, sums: Array, D: Array, dE: float) -> Array | None:
            return self._on_round(state, run, round_, sums, D, dE, chip.env.now)

        self._updates[run].learn(state.update + updates, on_round)

    def _direction(self, run: int, round_: int) -> Array:
        """v of the trials of a round."""
        update, product = divmod(round_, self.timing.rounds)
        if product == 0:
            return direction(self.plan, run, update, self.objective.n_weights)
        return of_length_one(self._steps[run].d)[1][0]

    def _on_round(
        self, state: State, run: int, round_: int, sums: Array, D: Array, dE: float, now_ns: int
    ) -> Array | None:
        """The change that the sums of a round come to, D and dE being of its last trial; None if
        products are still to follow.
        """
        plan, (update, product) = self.plan, divmod(round_, self.timing.rounds)
        trial = (round_ + 1) * plan.trials_per_update - 1
        scale = plan.trials_per_update * plan.sigma**2
        g = sums[XY][None] / scale
        z = sums[QU][None] / scale
        measures = self.timing.measures(round_)
        if measures and plan.rate == "line":
            state.memory["eta"][run] = self._line_rate(run, g[0], trial, now_ns)
        elif measures:
            try:
                variance = plan.reading.variance(self.objective.n_patterns)
                set_rate(
                    plan, state, run, update, g[0], self._estimator(state, run, now_ns), variance
                )
            except NotFinite:
                raise self.runs[run].design.not_finite(trial) from None
        curved = z
        V = self._direction(run, round_)[None] if product == 0 else np.zeros_like(g)
        if plan.uses_signs:
            curved = z / plan.r
        elif RULES[plan.rule].z == "products":
            if product == 0:
                self._steps[run] = begin_steps(plan, g)
            else:
                self._steps[run].go_on(of_length_one(self._steps[run].d)[0] * z / plan.r)
            if product < plan.cg_steps:
                return None
            curved = self._steps[run].p
        memory = {name: array[run : run + 1] for name, array in state.memory.items()}
        rates = rates_at(plan, state, update)[run : run + 1]
        inputs = Inputs(plan, memory, rates, update, g, D[None], np.array([dE]), V, curved)
        change = wanted_change(inputs)[0]
        if not np.isfinite(change).all():
            raise self.runs[run].design.not_finite(trial)
        return change

    def _line_rate(self, run: int, p: Array, trial: int, now_ns: int) -> float:
        """The step along -p that reduces E, from readings of the chip after a trial."""
        datapath = self.runs[run]
        whole = copy(datapath)
        whole.patterns_of = None
        whole.start_ns = lambda trial: now_ns
        whole.design = replace(datapath.design, presentation="batch")
        evaluations = [(trial, LINE_PHASE + k) for k in range(3)]
        return parabolic_step(
            self.plan.sigma,
            p,
            lambda at: whole.readings(evaluations, datapath.settled(datapath.masked(at, [trial]))),
        )

    def _estimator(self, state: State, run: int, now_ns: int) -> Estimator:
        """Estimates by the chip itself, one after another from a time on."""
        params = self.runs[run].params
        weight_store = self.runs[run].weight_store
        plan = self.plan
        timing = self.timing

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            nonlocal now_ns
            start_ns = now_ns
            trial_ns = timing.tuning[method].trial_ns
            design = Design(METHODS[method], CODES["rademacher"], v.size, plan.sigma, plan.r, seed)
            datapath = Datapath(
                params,
                self.objective,
                design,
                state.w[run],
                v,
                lambda trial: start_ns + round(trial * trial_ns),
            )
            datapath.weight_store = weight_store
            statistics = Statistics(design)
            datapath.run(statistics, trials)
            now_ns += timing.tuning_ns(method)
            return datapath.solved(statistics)

        return estimator

    def _update_state(self, state: State) -> None:
        """state.w: what the arrays compute with once the updates so far are written; the chips
        themselves go on as they are.
        """
        now_ns = self.timing.changed_ns(state.update - 1) if state.update else 0
        state.extra = {}
        for run, datapath in enumerate(self.runs):
            store = copy(datapath.weight_store)
            for number, change in self._pending[run]:
                if number < state.update:
                    store.add(change, number, self.timing.changed_ns(number))
            state.w[run] = store.weights(now_ns)
            state.extra |= {f"{run}.{name}": array for name, array in self._arrays(run).items()}

    def _arrays(self, run: int) -> dict[str, Array]:
        """Where a run stands, besides its weights and the memory of its rule."""
        datapath = self.runs[run]
        pending = self._pending[run]
        parts = datapath.weight_store.arrays() | {
            "kept": np.array(datapath.stored_baseline),
            "displaced": datapath.displaced,
        }
        parts["pending"] = np.array([number for number, _ in pending], np.int64)
        parts["wanted"] = np.array([change for _, change in pending]).reshape(
            -1, self.objective.n_weights
        )
        if self.events:
            chip = self.chips[run]
            parts["next"] = np.array([chip.next_trial, chip.env.now])
            parts |= {
                f"chip.{name}": array
                for name, array in (chip.arrays() | self._updates[run].arrays()).items()
            }
            if run in self._steps:
                parts |= {
                    f"steps.{name}": np.array(array)
                    for name, array in vars(self._steps[run]).items()
                }
        return parts

    def resume(self, state: State) -> None:
        """Go on from a state that was stored."""
        for run in range(len(self.runs)):
            parts = _with_prefix(state.extra, f"{run}.")
            if self.events:
                trial, now = parts["next"].tolist()
                self.chips[run] = self._chip(run, (trial, now))
                self._updates[run] = self._updates_of(run)
                self.runs[run], self._pending[run] = (
                    self.chips[run].datapath,
                    self._updates[run].changes,
                )
            datapath = self.runs[run]
            datapath.weight_store.restore(parts)
            datapath.stored_baseline = (int(parts["kept"][0]), float(parts["kept"][1]))
            datapath.displaced = parts["displaced"]
            self._pending[run].extend(zip(parts["pending"].tolist(), parts["wanted"], strict=True))
            if self.events and state.failed[run] < 0:
                self.chips[run].restore(_with_prefix(parts, "chip."))
                self._updates[run].restore(_with_prefix(parts, "chip."))
            if steps := _with_prefix(parts, "steps."):
                self._steps[run] = begin_steps(self.plan, steps["d"])
                vars(self._steps[run]).update(steps)


def _with_prefix(parts: dict[str, Array], start: str) -> dict[str, Array]:
    return {
        name.removeprefix(start): array for name, array in parts.items() if name.startswith(start)
    }
