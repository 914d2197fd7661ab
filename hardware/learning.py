"""Learning on a chip: the sums of its own synapses change its own weights, through its own devices.

Sources of updates for `perturb.learning.train`, with every imperfection of the chip: in batches of values, or event by event.
A run is a die: run r has die params.die + r.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import TypeVar

import numpy as np

from hardware.chip import Chip, Learning
from hardware.memory import Memory
from hardware.params import ChipParams, imperfections
from hardware.schedule import Schedule
from hardware.values import PLAIN, Values, fabricate, made_on
from perturb.codes import CODES
from perturb.errors import InputError
from perturb.estimation import Estimate
from perturb.kernels import Mismatch
from perturb.learning import RULES, Batch, Plan, Source, State, change_by_rule, count_updates, presented, rates_at, set_rate
from perturb.methods import METHODS
from perturb.objective import Objective
from perturb.statistics import Design, Statistics
from perturb.synapse import SUMS, TOTALS

Array = np.ndarray
T = TypeVar("T")
XY = SUMS.index("xy")
STORED = {"weights.bits", "weights.device", "weights.stuck_fraction"}  # of weights that keep what is written


def source(params: ChipParams, objective: Objective, plan: Plan, w: Array, events: bool = False, waits: bool = True) -> Source:
    """The source of updates for a chip, from starting weights w (R, n): `perturb.learning.Batch` where that knows all that is not
    ideal (`values.PLAIN`), `Written` where weights that keep what is written are all there is besides, else `OnChip`. Run r has
    die params.die + r."""
    wrong, simple = set(imperfections(params)), not events and waits and not params.error_unit.dither
    if simple and wrong <= PLAIN | STORED:
        plan, mismatch = replace(plan, code=made_on(params, plan.code, objective.n_weights)), None
        dies = [fabricate(_die(params, run), objective.n_weights, []) for run in range(len(w))]
        stuck = np.array([die.stuck for die in dies])
        if params.perturbation.gain_mismatch or params.perturbation.offset_mismatch or stuck.any():
            gain, offset = np.array([die.gain for die in dies]), np.array([die.offset for die in dies])
            mismatch = Mismatch(np.where(stuck, 0.0, gain), np.where(stuck, 0.0, offset))
        if wrong <= PLAIN:
            return Batch(objective, plan, mismatch=mismatch)
        memories = [Memory(_die(params, run), stuck[run], w[run], (plan.seed + run) % 2**64) for run in range(len(w))]
        if not memories[0].changes:
            return Written(objective, plan, memories, mismatch)
    return OnChip(params, objective, plan, w, events, waits)


def _die(params: ChipParams, run: int) -> ChipParams:
    return params.model_copy(update={"die": (params.die + run) % 2**64})


class Written(Batch):
    """`perturb.learning.Batch` with weights in memories, one a run, that keep what is written until it is written again: every
    rule of learning goes with them."""

    def __init__(self, objective: Objective, plan: Plan, memories: list[Memory], mismatch: Mismatch | None):
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
    """Updates from a chip's trials. events: every trial in time; else in batches of values, with the times of the schedule.

    waits: see `chip.Learning`. Rules of curvature, and the rate "line", are not for the chip: InputError. So is a broadcast that
    comes too late for the FIFO, other than by events.
    """

    def __init__(self, params: ChipParams, objective: Objective, plan: Plan, w: Array, events: bool, waits: bool):
        if plan.needs_z or plan.rate == "line":
            what = f'rule = "{plan.rule}"' if plan.needs_z else 'rate = "line"'
            raise InputError(f"{what} is not modelled on a chip with imperfections: use an ideal chip, or another")
        if plan.baseline_free:
            raise InputError("baseline_free is not for a chip, which has to measure E(w): leave it out")
        self.plan, self.objective, self.events, self.waits = plan, objective, events, waits
        self.n_presented = plan.batch or objective.n_patterns
        code = made_on(params, plan.code, objective.n_weights)
        self.schedule = Schedule(params, objective, plan.method, self.n_presented)
        self.delay = self.schedule.delay_of_updates(waits)
        if not events and not waits and math.ceil(self.schedule.after_ns / self.schedule.trial_ns) > params.synapse.fifo_depth:
            raise InputError(
                f"bus.latency_ns = {params.bus.latency_ns} outlasts the FIFO of {params.synapse.fifo_depth} perturbations, which "
                'only events can show: set training.source = "event", or a deeper synapse.fifo_depth'
            )
        self.params, self._code, self._w = params, code, w
        self.chips: list[Chip] = [self._chip(run) for run in range(len(w))] if events else []
        self.runs = [chip.values for chip in self.chips] if events else [self._values(run) for run in range(len(w))]
        self._pending: list[list[tuple[int, Array]]] = [[] for _ in self.runs]

    def _chip(self, run: int, start: tuple[int, int] = (0, 0)) -> Chip:
        plan, whole = self.plan, self.n_presented == self.objective.n_patterns
        seed = (plan.seed + run) % 2**64
        chip = Chip(
            _die(self.params, run), self.objective, self._w[run], np.ones(self.objective.n_weights), plan.method, self._code,
            plan.sigma, plan.r, seed, "batch" if whole else "pattern", "event", start=start,
        )  # fmt: skip
        chip.presented, chip.schedule = self.n_presented, self.schedule
        return self._with_periods(chip, chip.values, seed)

    def _values(self, run: int) -> Values:
        plan, n = self.plan, self.objective.n_weights
        seed = (plan.seed + run) % 2**64
        design = Design(plan.method, self._code, n, plan.sigma, plan.r, seed)
        values = Values(_die(self.params, run), self.objective, design, self._w[run], np.ones(n), self._start_ns)
        return self._with_periods(values, values, seed)

    def _with_periods(self, made: T, values: Values, seed: int) -> T:
        values.perturb_every = self.plan.perturb_every
        if self.n_presented != self.objective.n_patterns:
            values.rows_of = self._rows_of(seed)
        return made

    def _rows_of(self, seed: int) -> Callable[[int], Array]:
        plan = self.plan
        return lambda trial: presented(seed, trial // plan.sample_every, 1, self.n_presented, self.objective.n_patterns)[0]

    def _start_ns(self, trial: int) -> int:
        return self.schedule.start_ns(trial, self.plan.trials_per_update, self.waits)

    def advance(self, state: State, updates: int) -> None:
        """So many updates of every run; state.w are the weights that the arrays compute with, as they are then."""
        if state.update == 0 and state.trial == 0:
            self._show(state)
        for run in range(len(self.runs)):
            if state.failed[run] < 0:
                try:
                    (self._by_events if self.events else self._by_values)(state, run, updates)
                except InputError as error:
                    if "not finite" not in str(error):
                        raise
                    state.failed[run] = self._trial
        count_updates(state, self.plan, updates)
        self._show(state)

    def _by_values(self, state: State, run: int, updates: int) -> None:
        """The visible loop: perturb, measure, broadcast, accumulate, update."""
        plan, values, K = self.plan, self.runs[run], self.plan.trials_per_update
        for update in range(state.update, state.update + updates):
            if plan.rate != "fixed" and update % plan.tune_every == 0:
                set_rate(plan, state, run, update, self._estimator(state, run))
            sums, totals = np.zeros((len(SUMS), self.objective.n_weights)), np.zeros(len(TOTALS))
            for trial in range(update * K, (update + 1) * K):
                self._trial = trial
                while self._pending[run] and (self._pending[run][0][0] + 1) * K + self.delay <= trial:
                    number, change = self._pending[run].pop(0)
                    values.memory.add(change, number, self._start_ns(trial))
                heard = values.broadcasts(range(trial, trial + 1), *values.displacements(trial, trial + 1))
                values.accumulate(sums, totals, [trial], heard)
            self._pending[run].append((update, self._change(state, run, update, sums, heard.known[0], heard.y[0])))

    def _by_events(self, state: State, run: int, updates: int) -> None:
        chip, plan = self.chips[run], self.plan

        def change(update: int, sums: Array, D: Array, dE: float) -> Array:
            self._trial = (update + 1) * plan.trials_per_update - 1
            if plan.rate != "fixed" and update % plan.tune_every == 0:
                set_rate(plan, state, run, update, self._estimator(state, run))
            return self._change(state, run, update, sums, D, dE)

        self._trial = state.trial
        chip.learn(Learning(plan.trials_per_update, self.waits, change), state.update + updates)

    def _change(self, state: State, run: int, update: int, sums: Array, D: Array, dE: float) -> Array:
        plan = self.plan
        g = sums[XY] / (plan.trials_per_update * plan.sigma**2)
        rate = rates_at(plan, state, update)[run]
        change = np.zeros_like(g)
        m = state.memory["m"][run] if "m" in state.memory else np.zeros_like(g)
        change_by_rule(RULES[plan.rule][0], rate, plan.momentum, change, m, g, D, dE)
        return change

    def _estimator(self, state: State, run: int) -> Callable[..., Estimate]:
        """Estimates by the chip itself, at its weights as they are."""
        own = self.runs[run]

        def estimator(method: str, v: Array, trials: int, seed: int) -> Estimate:
            design = Design(METHODS[method], CODES["rademacher"], v.size, self.plan.sigma, self.plan.r, seed)
            values = Values(own.params, self.objective, design, state.w[run], v, lambda trial: own.memory.since_ns)
            values.memory = own.memory
            statistics = Statistics(design)
            values.run(statistics, trials)
            return values.solved(statistics)

        return estimator

    def _show(self, state: State) -> None:
        """state.w: what the arrays compute with once the updates so far are written; the chips themselves go on as they are."""
        now, memories = self._start_ns(state.trial), []
        for run, values in enumerate(self.runs):
            memories.append(memory := copy(values.memory))
            for number, change in self.chips[run].changes if self.events else self._pending[run]:
                memory.add(change, number, self.chips[run].env.now if self.events and self.waits else now)
            if self.waits and not self.events:
                values.memory, self._pending[run] = memory, []
            state.w[run] = memory.weights(now)
        if self.waits:
            state.extra = _stored(memories)
            state.extra["kept"] = np.array([values.kept for values in self.runs])
            if self.events:
                state.extra["displaced"] = np.array([chip.sums.displaced for chip in self.chips])
                state.extra["now"] = np.array([chip.env.now for chip in self.chips])

    def resume(self, state: State) -> None:
        """Go on from a state that was stored, of a chip that waits for its writes: then nothing is under way."""
        if self.events:
            self.chips = [self._chip(run, (state.trial, int(now))) for run, now in enumerate(state.extra["now"])]
            self.runs = [chip.values for chip in self.chips]
            for chip, displaced in zip(self.chips, state.extra["displaced"], strict=True):
                chip.sums.displaced = displaced
        _restore([values.memory for values in self.runs], state)
        for values, (trial, E) in zip(self.runs, state.extra["kept"], strict=True):
            values.kept = (int(trial), float(E))
