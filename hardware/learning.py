"""Learning on a chip: the sums of its own synapses change its own weights, through its own devices.

Sources of updates for `training.loop.train`, with every imperfection of the chip: in batches of
values, or event by event. A run is a die: see `ChipParams.of_run`.
"""

from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np

from hardware.chip import Chip
from hardware.memory import Memory
from hardware.params import ChipParams, differing, engines
from hardware.schedule import Course
from hardware.updates import Learning
from hardware.values import Values, fabricate, made_on
from perturb.errors import InputError
from perturb.estimation.design import Design, NotFinite
from perturb.estimation.engine import Mismatch
from perturb.estimation.estimate import Estimate
from perturb.estimation.statistics import Statistics
from perturb.networks.objective import Objective
from perturb.training.loop import Source
from perturb.training.plan import LINE_PHASE, SIGNED, Plan, State, count_updates
from perturb.training.presentation import presented
from perturb.training.rates import Estimator, parabolic_step, rates_at, set_rate
from perturb.training.rules import (
    ConjugateGradients,
    begin_steps,
    direction,
    of_length_one,
    wanted_change,
)
from perturb.training.sources import Batch
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
    """The source of updates for a chip, from starting weights w (R, n): `training.sources.Batch`
    where that knows all that is not ideal, `Written` where weights that keep what is written are
    all there is besides, else `OnChip`. Run r has the die `ChipParams.of_run(r)`.
    """
    known = engines(params)
    seen = plan.rate in ("fixed", "line") or not differing(params, "unseen")
    if not events and waits and seen and known <= {"kernels", "memories"}:
        _check_fifo(params, Course(params, objective, plan, waits))
        plan = replace(plan, code=made_on(params, plan.code, objective.n_weights))
        mismatch = None
        dies = [fabricate(params.of_run(run), objective.n_weights, []) for run in range(len(w))]
        stuck = np.array([die.stuck for die in dies])
        if stuck.any() and (plan.method.displaced or plan.rate == "line"):
            return OnChip(
                params, objective, plan, w, events, waits
            )  # `Batch` would displace stuck weights along v or the step
        if params.perturbation.gain_mismatch or params.perturbation.offset_mismatch or stuck.any():
            gain = np.array([die.gain for die in dies])
            offset = np.array([die.offset for die in dies])
            mismatch = Mismatch(np.where(stuck, 0.0, gain), np.where(stuck, 0.0, offset))
        if known <= {"kernels"}:
            return Batch(objective, plan, mismatch=mismatch)
        memories = [
            Memory(params.of_run(run), stuck[run], w[run], plan.seed_of(run))
            for run in range(len(w))
        ]
        if not memories[0].changes:
            return Written(objective, plan, memories, mismatch)
    return OnChip(params, objective, plan, w, events, waits)


def _check_fifo(params: ChipParams, course: Course) -> None:
    """InputError for broadcasts that come too late for the FIFO of perturbations."""
    if course.kept >= params.synapse.fifo_depth:
        raise InputError(
            f"bus.latency_ns = {params.bus.latency_ns} outlasts the FIFO of"
            f" {params.synapse.fifo_depth} perturbations, which only events can show: set"
            ' training.source = "event", or a deeper synapse.fifo_depth'
        )


class Written(Batch):
    """`training.sources.Batch` with weights in memories, one a run, that keep what is written until
    it is written again: every rule of learning goes with them.
    """

    def __init__(
        self, objective: Objective, plan: Plan, memories: list[Memory], mismatch: Mismatch | None
    ):
        super().__init__(objective, plan, self._write, mismatch=mismatch)
        self.memories = memories

    def advance(self, state: State, updates: int) -> None:
        if state.update == 0:
            state.w[:] = [memory.weights(0) for memory in self.memories]
        super().advance(state, updates)
        state.extra = _stored(self.memories)

    def resume(self, state: State) -> None:
        """Go on from a state that was stored."""
        _restore(self.memories, state)

    def _write(self, state: State, change: Array, update: int) -> None:
        for run, memory in enumerate(self.memories):
            memory.add(change[run], update, 0)
            state.w[run] = memory.weights(0)


def _stored(memories: list[Memory]) -> dict[str, Array]:
    parts = [memory.arrays() for memory in memories]
    return {name: np.array([part[name] for part in parts]) for name in parts[0]}


def _restore(memories: list[Memory], state: State) -> None:
    for run, memory in enumerate(memories):
        memory.restore({name: array[run] for name, array in state.extra.items()})


class OnChip:
    """Updates from a chip's trials. events: every trial in time; else in batches of values, with
    the times of the course.

    waits: see `schedule.Course`. All that rules and rates make use of is measured by the chip
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
        self.plan = plan
        self.objective = objective
        self.events = events
        self.n_presented = plan.batch or objective.n_patterns
        code = made_on(params, plan.code, objective.n_weights)
        self.course = Course(params, objective, plan, waits)
        if not events:
            _check_fifo(params, self.course)
        self.params = params
        self._code = code
        self._w = w
        self.chips: list[Chip] = [self._chip(run) for run in range(len(w))] if events else []
        self.runs = (
            [chip.values for chip in self.chips]
            if events
            else [self._values(run) for run in range(len(w))]
        )
        self._learning = [self._learning_of(run) for run in range(len(self.chips))]
        # updates that have been computed (of events: written), and change the weights at the start
        # of a later trial
        self._pending: list[list[tuple[int, Array]]] = (
            [learning.changes for learning in self._learning] if events else [[] for _ in self.runs]
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
            learning=partial(Learning, course=self.course, direction=partial(self._direction, run)),
        )
        chip.presented = self.n_presented
        chip.schedule = self.course.schedule
        self._with_periods(chip.values, seed)
        return chip

    def _learning_of(self, run: int) -> Learning:
        learning = self.chips[run].learning
        assert isinstance(learning, Learning)
        return learning

    def _values(self, run: int) -> Values:
        plan = self.plan
        n = self.objective.n_weights
        seed = plan.seed_of(run)
        design = Design(plan.method, self._code, n, plan.sigma, plan.r, seed)
        values = Values(
            self.params.of_run(run),
            self.objective,
            design,
            self._w[run],
            np.ones(n),
            self.course.start_ns,
        )
        self._with_periods(values, seed)
        return values

    def _with_periods(self, values: Values, seed: int) -> None:
        plan = self.plan
        shown = self.n_presented
        of = self.objective.n_patterns
        values.perturb_every = plan.perturb_every
        if shown != of:
            values.rows_of = lambda trial: presented(
                seed, trial // plan.sample_every, 1, shown, of
            )[0]

    def advance(self, state: State, updates: int) -> None:
        """So many updates of every run; state.w are the weights that the arrays compute with, as
        they are then.
        """
        if state.update == 0 and state.trial == 0:
            self._show(state)
        for run in range(len(self.runs)):
            if state.failed[run] < 0:
                try:
                    (self._by_events if self.events else self._by_values)(state, run, updates)
                except NotFinite as error:
                    state.failed[run] = error.trial
                    self._pending[run].clear()  # the run stands still
        count_updates(state, self.plan, updates)
        self._show(state)

    def _by_values(self, state: State, run: int, updates: int) -> None:
        """The visible loop: perturb, measure, broadcast, accumulate, update."""
        values = self.runs[run]
        course = self.course
        K = self.plan.trials_per_update
        rounds = self.course.rounds
        for round_ in range(state.update * rounds, (state.update + updates) * rounds):
            sums = np.zeros((len(SUMS), self.objective.n_weights))
            totals = np.zeros(len(TOTALS))
            values.v = self._direction(run, round_)
            for trial in range(round_ * K, (round_ + 1) * K):
                start_ns = course.start_ns(trial)
                while (
                    self._pending[run] and course.written_ns(self._pending[run][0][0]) <= start_ns
                ):
                    number, change = self._pending[run].pop(0)
                    values.memory.add(change, number, start_ns)
                heard = values.evaluated(range(trial, trial + 1))
                values.accumulate(sums, totals, [trial], heard)
            wanted = self._heard(
                state, run, round_, sums, heard.known[0], heard.y[0], course.arrived_ns(round_)
            )
            if wanted is not None:
                self._pending[run].append((round_ // rounds, wanted))

    def _by_events(self, state: State, run: int, updates: int) -> None:
        chip = self.chips[run]

        def heard(round_: int, sums: Array, D: Array, dE: float) -> Array | None:
            return self._heard(state, run, round_, sums, D, dE, chip.env.now)

        self._learning[run].learn(state.update + updates, heard)

    def _direction(self, run: int, round_: int) -> Array:
        """v of the trials of a round."""
        update, product = divmod(round_, self.course.rounds)
        if product == 0:
            return direction(self.plan, run, update, self.objective.n_weights)
        return of_length_one(self._steps[run].d)[1][0]

    def _heard(
        self, state: State, run: int, round_: int, sums: Array, D: Array, dE: float, now_ns: int
    ) -> Array | None:
        """The change that the sums of a round come to, D and dE being of its last trial; None if
        products are still to follow.
        """
        plan, (update, product) = self.plan, divmod(round_, self.course.rounds)
        trial = (round_ + 1) * plan.trials_per_update - 1
        scale = plan.trials_per_update * plan.sigma**2
        g = sums[XY][None] / scale
        z = sums[QU][None] / scale
        measures = self.course.measures(round_)
        if measures and plan.rate == "line":
            state.memory["eta"][run] = self._along(run, g[0], trial, now_ns)
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
        if plan.rule in SIGNED:
            curved = z / plan.r
        elif plan.rule == "newton-cg":
            if product == 0:
                self._steps[run] = begin_steps(plan, g)
            else:
                self._steps[run].go_on(of_length_one(self._steps[run].d)[0] * z / plan.r)
            if product < plan.cg_steps:
                return None
            curved = self._steps[run].p
        memory = {name: array[run : run + 1] for name, array in state.memory.items()}
        rates = rates_at(plan, state, update)[run : run + 1]
        change = wanted_change(plan, memory, rates, update, g, D[None], np.array([dE]), V, curved)[
            0
        ]
        if not np.isfinite(change).all():
            raise self.runs[run].design.not_finite(trial)
        return change

    def _along(self, run: int, p: Array, trial: int, now_ns: int) -> float:
        """The way along -p, from the chip's own readings after a trial."""
        values = self.runs[run]
        whole = copy(values)
        whole.rows_of = None
        whole.start_ns = lambda trial: now_ns
        whole.design = replace(values.design, presentation="batch")
        evaluations = [(trial, LINE_PHASE + k) for k in range(3)]
        return parabolic_step(
            self.plan,
            p,
            lambda at: whole.readings(evaluations, values.settled(values.felt(at, [trial]))),
        )

    def _estimator(self, state: State, run: int, now_ns: int) -> Estimator:
        """Estimates by the chip itself, one after another from a time on."""
        own = self.runs[run]
        plan = self.plan
        course = self.course

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            nonlocal now_ns
            start_ns = now_ns
            trial_ns = course.tuning[method].trial_ns
            design = Design(METHODS[method], CODES["rademacher"], v.size, plan.sigma, plan.r, seed)
            values = Values(
                own.params,
                self.objective,
                design,
                state.w[run],
                v,
                lambda trial: start_ns + round(trial * trial_ns),
            )
            values.memory = own.memory
            statistics = Statistics(design)
            values.run(statistics, trials)
            now_ns += course.tuning_ns(method)
            return values.solved(statistics)

        return estimator

    def _show(self, state: State) -> None:
        """state.w: what the arrays compute with once the updates so far are written; the chips
        themselves go on as they are.
        """
        now_ns = self.course.changed_ns(state.update - 1) if state.update else 0
        state.extra = {}
        for run, values in enumerate(self.runs):
            memory = copy(values.memory)
            for number, change in self._pending[run]:
                if number < state.update:
                    memory.add(change, number, self.course.changed_ns(number))
            state.w[run] = memory.weights(now_ns)
            state.extra |= {f"{run}.{name}": array for name, array in self._arrays(run).items()}

    def _arrays(self, run: int) -> dict[str, Array]:
        """Where a run stands, besides its weights and the memory of its rule."""
        values = self.runs[run]
        pending = self._pending[run]
        parts = values.memory.arrays() | {
            "kept": np.array(values.kept),
            "displaced": values.displaced,
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
                for name, array in (chip.arrays() | self._learning[run].arrays()).items()
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
            parts = _named(state.extra, f"{run}.")
            if self.events:
                trial, now = parts["next"].tolist()
                self.chips[run] = self._chip(run, (trial, now))
                self._learning[run] = self._learning_of(run)
                self.runs[run], self._pending[run] = (
                    self.chips[run].values,
                    self._learning[run].changes,
                )
            values = self.runs[run]
            values.memory.restore(parts)
            values.kept = (int(parts["kept"][0]), float(parts["kept"][1]))
            values.displaced = parts["displaced"]
            self._pending[run].extend(zip(parts["pending"].tolist(), parts["wanted"], strict=True))
            if self.events and state.failed[run] < 0:
                self.chips[run].restore(_named(parts, "chip."))
                self._learning[run].restore(_named(parts, "chip."))
            if steps := _named(parts, "steps."):
                self._steps[run] = begin_steps(self.plan, steps["d"])
                vars(self._steps[run]).update(steps)


def _named(parts: dict[str, Array], start: str) -> dict[str, Array]:
    return {
        name.removeprefix(start): array for name, array in parts.items() if name.startswith(start)
    }
