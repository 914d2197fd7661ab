"""The schedule of a chip's trials: when each starts and what it spends, from the parameters alone.

`Chip` finds the same by events, which know nothing of this; tests hold the two together. Trials
follow each other when the last word has left the bus.
"""

import math
from collections.abc import Sequence

import numpy as np

from hardware.arrays import conversions
from hardware.params import ChipParams
from perturb.errors import InputError
from perturb.networks.objective import Objective
from perturb.training import calibration
from perturb.training.plan import Plan
from perturb.training.rates import POWER_STEPS
from perturb.training.rules import RULES
from perturb.trial.methods import METHODS, Method

Array = np.ndarray
CAUSES = ("perturbation", "mac", "conversion", "broadcast_bit", "accumulate")  # of energy


class Timing:
    """The times of one evaluation and one word, of a trial (on average, where E(w) is not measured
    in each), and what its parts take of it (waiting: for dw.v or a clock).

    dw.v is sent as soon as it is known, if need be during an evaluation: `overlapped_ns` of the
    bus's time. A clock that cannot hold an evaluation, or what is left to send after the last one,
    raises InputError.
    """

    def __init__(self, params: ChipParams, objective: Objective, method: Method, presented: int):
        baseline = (0, 0) in method.phases
        every = self.every = params.error_unit.baseline_every if baseline else 1
        self._phases = len(method.phases)
        # of a baseline that is used for several trials, a share is measured in each
        evaluations = self._phases - (baseline and 1 - 1 / every)
        self._schedule(params, objective, method, presented, evaluations)
        self._charge(params, objective, method, presented, evaluations)

    def _schedule(
        self,
        p: ChipParams,
        objective: Objective,
        method: Method,
        presented: int,
        evaluations: float,
    ) -> None:
        """All times, in ns. evaluations: of a trial, on average."""
        every = self.every
        words = len(method.words)
        # events happen at whole ns
        self.word_ns = math.ceil(p.bus.word_bits * 1e9 / p.bus.bits_per_s)
        pattern_ns = _of_a_pattern(p, objective)
        self.evaluation_ns = p.perturbation.settle_ns + presented * sum(pattern_ns.values())
        _check_clock(
            "evaluation_ns",
            p.clock.evaluation_ns,
            self.evaluation_ns,
            f"an evaluation of {presented} patterns",
        )
        whole = self._trial(p, method, self._phases)
        # a trial that uses a stored E(w) measures one phase less
        less = self._trial(p, method, self._phases - (every > 1))
        self._whole_ns, self._less_ns = whole[0], less[0]
        self.shortest_ns = min(whole[0], less[0])  # of a trial
        # means over `every` trials, one of which measures every phase
        self.trial_ns, self.overlapped_ns = (
            a / every + b * (1 - 1 / every) for a, b in zip(whole, less, strict=True)
        )
        self.parts_ns = {
            "settling of perturbations": evaluations * p.perturbation.settle_ns,
            **{part: evaluations * presented * ns for part, ns in pattern_ns.items()},
            "bus": float(words * self.word_ns),
        }
        # the time that the bus shares with an evaluation is in two of the parts
        self.parts_ns["waiting for dw.v or the clock"] = max(
            0.0, self.trial_ns + self.overlapped_ns - sum(self.parts_ns.values())
        )
        # a lone tile has none
        skew_ns = p.bus.skew_ns if objective.n_weights > p.synapses_per_tile else 0
        # from the last word's leaving the bus until the last synapse has accumulated
        self.after_ns = p.bus.latency_ns + skew_ns + p.synapse.accumulate_ns
        self.write_ns = p.weights.write_ns

    def _trial(self, p: ChipParams, method: Method, measured: int) -> tuple[int, int]:
        """ns until the last word of a trial of so many evaluations has left the bus, and how much
        of that the bus was busy during an evaluation.
        """
        # a clock makes all evaluations equally long
        E_ns = measured * max(self.evaluation_ns, p.clock.evaluation_ns)
        s_ns = self.word_ns * method.needs_s
        dE_ns = self.word_ns * len(method.words) - s_ns
        line_ns = (p.summing_line.settle_ns + p.summing_line.conversion_ns) * method.needs_s
        # dw.v goes first if it is ready before the last evaluation ends, else after dE
        sent_ns = (
            max(E_ns, line_ns + s_ns) + dE_ns
            if line_ns < E_ns
            else max(line_ns, E_ns + dE_ns) + s_ns
        )
        _check_clock(
            "broadcast_ns",
            p.clock.broadcast_ns,
            sent_ns - E_ns,
            "what is left to send after the last evaluation",
        )
        return max(sent_ns, E_ns + p.clock.broadcast_ns), min(s_ns, max(0, E_ns - line_ns))

    def _charge(
        self,
        p: ChipParams,
        objective: Objective,
        method: Method,
        presented: int,
        evaluations: float,
    ) -> None:
        """All energies, in J, and powers, in W. evaluations: of a trial, on average."""
        n = objective.n_weights
        # what an evaluation, and the rest of a trial, spend of CAUSES
        converted = (conversions(p.array, objective) + 1) * presented
        # every evaluation is charged for a change of the perturbation, also that back to none for
        # E(w)
        self._evaluation = (n, objective.n_macs * presented, converted, 0, 0)
        bits = len(method.words) * p.bus.word_bits
        self._rest = (0, 0, int(method.needs_s), bits, n)
        each_j = self._each_j = [getattr(p.energy, f"{cause}_j") for cause in CAUSES]
        self._evaluation_j = _by_cause(self._evaluation, each_j)
        self.trial_j = self.evaluations_j(evaluations) + _by_cause(self._rest, each_j)  # (CAUSES,)
        self.write_j = n * p.energy.weight_write_j
        refreshed = n / p.weights.refresh_s if p.weights.refresh_s else 0.0  # weights a second
        # what is spent without trials
        self.static_w = p.energy.static_w
        self.refresh_w = refreshed * p.energy.weight_write_j
        self.steady_w = self.static_w + self.refresh_w

    @property
    def busy(self) -> dict[str, float]:
        """Share of a trial's time that each part takes: what limits the trial rate is the
        largest.
        """
        return {
            part: ns / self.trial_ns if self.trial_ns else 0.0 for part, ns in self.parts_ns.items()
        }

    def start_ns(self, trial: int) -> int:
        """When a trial starts, if none before it has waited."""
        # one trial in `every` is a whole one, and it comes first
        return trial * self._less_ns + self._measured(trial) * (self._whole_ns - self._less_ns)

    def spent(self, trials: int) -> list[int]:
        """How often the first trials have spent each of CAUSES."""
        # E(w) in some of the trials, all other phases in each
        evaluations = trials * (self._phases - 1) + self._measured(trials)
        rows = zip(self._evaluation, self._rest, strict=True)
        return [evaluations * evaluation + trials * rest for evaluation, rest in rows]

    def spent_j(self, trials: int) -> Array:
        """Energy of the first trials by each of CAUSES, in J."""
        return _by_cause(self.spent(trials), self._each_j)

    def _measured(self, trials: int) -> int:
        """How many of the first trials measure every phase."""
        return -(-trials // self.every)

    def time_s(self, trials: float) -> float:
        """Chip time until the last synapse has accumulated the last trial (jitter left out)."""
        return (trials * self.trial_ns + self.after_ns) * 1e-9

    @property
    def update_ns(self) -> float:
        """From the end of an update's last trial until its weights are written (jitter left
        out).
        """
        return self.after_ns + self.write_ns

    def evaluations_j(self, evaluations: float) -> Array:
        """Energy of a number of evaluations by each of CAUSES, in J."""
        return evaluations * self._evaluation_j

    def energy_j(self, trials: float) -> float:
        """Energy of a number of trials, in J."""
        return trials * float(self.trial_j.sum()) + self.steady_w * self.time_s(trials)


class TrainingTiming:
    """When the trials of learning start, and what learning spends (jitter left out).

    The trials of an update come in rounds of `plan.trials_per_update`: the first for g, and with
    the rule "newton-cg" one more for every product Hp, whose direction is known when the broadcasts
    of the round before have arrived. When those of the first have, a rate that is measured is
    measured, on all patterns and without a clock: by three evaluations along g, or by trials of
    other methods; so is, when an update is known, what it does to E, if `block` asks. The array has
    to wait for all that; it waits for the writing of an update only if the chip `waits`.

    "update" is a control signal like the command of a trial, and costs nothing. Where a rule needs
    what no tile knows, a host reads g or z of all weights after every round and sends what is to be
    done next, over the bus, a word for each number; and one word tells by how much a change that is
    longer than `longest_step` is shortened: `host_words` of a round. What is computed of them takes
    neither time nor energy.
    """

    def __init__(self, params: ChipParams, objective: Objective, plan: Plan, waits: bool):
        self.plan = plan
        self.waits = waits
        self.rounds = plan.trials_of_an_update // plan.trials_per_update
        S = objective.n_patterns
        timing = self.trial_timing = Timing(params, objective, plan.method, plan.batch or S)
        pending = math.ceil((timing.after_ns + params.bus.jitter_ns) / timing.shortest_ns)
        # perturbations that a FIFO stores, at most, when another comes
        self.pending = min(pending, plan.trials_per_update - 1) if waits else pending
        # the estimates of `rates.RATES` that a measured rate is made of
        steps = {"antithetic": 1} if plan.rate in ("trace", "eigenvalue") else {}
        if plan.rate == "eigenvalue":
            steps["difference"] = POWER_STEPS
        n = objective.n_weights
        # g or Hp and the next direction; g, z and the step
        rule = RULES[plan.rule]
        each = 0 if rule.local else 2 if rule.z == "products" else 3
        self.host_words = each * n + (plan.longest_step > 0)
        self.host_ns = self.host_words * timing.word_ns
        self._word_j = params.bus.word_bits * params.energy.broadcast_bit_j
        # what is measured besides the trials keeps no clock
        free = params.model_copy(update={"clock": type(params.clock)()})
        self.tuning = {method: Timing(free, objective, METHODS[method], S) for method in steps}
        # updates between measurements of the rate
        self._every = {"fixed": 0, "line": 1}.get(plan.rate, plan.tune_every)
        self._rate_ns = sum(count * self.tuning_ns(method) for method, count in steps.items())
        self._rate_j = np.zeros(len(CAUSES))
        for method, count in steps.items():
            self._rate_j += count * plan.tune_trials * self.tuning[method].trial_j
        # power iteration: z, and the next direction
        self._rate_words = 2 * n * POWER_STEPS if plan.rate == "eigenvalue" else 0
        self._rate_ns += self._rate_words * timing.word_ns
        whole = Timing(free, objective, METHODS["central"], S)
        if plan.rate == "line":
            # E at three points of a line
            self._rate_ns = 3 * whole.evaluation_ns
            self._rate_j = whole.evaluations_j(3)
        judged = 2 * (plan.block > 0)  # readings of what an update does to E
        self._block_ns = judged * whole.evaluation_ns
        self._block_j = whole.evaluations_j(judged)
        calibrating = calibration.evaluations(plan.calibrate)
        self._calibrating_ns = calibrating * whole.evaluation_ns
        self._calibrating_j = whole.evaluations_j(calibrating)

    def tuning_ns(self, method: str) -> int:
        """Of an estimate for the rate, until its last broadcast has arrived."""
        return (
            round(self.plan.tune_trials * self.tuning[method].trial_ns) + self.trial_timing.after_ns
        )

    def measures_rate(self, round_: int) -> bool:
        """Whether the rate is measured after a round."""
        update, product = divmod(round_, self.rounds)
        return product == 0 and self.plan.measures_rate(update)

    def rate_ns(self, round_: int) -> int:
        """Of measuring the rate after a round."""
        return self._rate_ns if self.measures_rate(round_) else 0

    def block_ns(self, round_: int) -> int:
        """Of measuring, after the last round of an update, what it does to E."""
        return self._block_ns if (round_ + 1) % self.rounds == 0 else 0

    def awaits(self, round_: int) -> bool:
        """Whether a round begins only when the broadcasts of that before it have arrived, and
        what follows from them is done.
        """
        return (
            self.waits
            or self.host_words > 0
            or round_ % self.rounds > 0
            or (self.rounds == 1 and self.rate_ns(round_ - 1) > 0)
            or self._block_ns > 0
        )

    def start_ns(self, trial: int) -> int:
        """When a trial starts."""
        return self.trial_timing.start_ns(trial) + self._paused_ns(
            trial // self.plan.trials_per_update
        )

    def arrived_ns(self, round_: int) -> int:
        """When the last broadcast of a round has arrived."""
        trials = (round_ + 1) * self.plan.trials_per_update
        start_ns = self.trial_timing.start_ns(trials)
        return start_ns + self._paused_ns(round_) + self.trial_timing.after_ns

    def written_ns(self, update: int) -> int:
        """When an update has been written."""
        last = (update + 1) * self.rounds - 1
        told_ns = self.arrived_ns(last) + self.rate_ns(last) + self.host_ns + self.block_ns(last)
        return told_ns + self.trial_timing.write_ns

    def changed_ns(self, update: int) -> int:
        """When the weights change by an update: at the start of the first trial after its
        writing.
        """
        trial = (update + 1) * self.plan.trials_of_an_update
        # if the chip does not wait, trials go on while an update is written
        while self.start_ns(trial) < self.written_ns(update):
            trial += 1
        return self.start_ns(trial)

    def _paused_ns(self, rounds: int) -> int:
        """Time without trials before the trial that follows the first `rounds` rounds."""
        updates, products = divmod(rounds, self.rounds)
        # a rate is measured after the first round of its update
        measured = self._measured(updates + (products > 0))
        # rounds that begin when the broadcasts of the one before have arrived, see `awaits`
        awaited = rounds
        if not (self.waits or self.host_words or self._block_ns):
            awaited = rounds - updates + (measured if self.rounds == 1 else 0)
        return (
            awaited * self.trial_timing.after_ns
            + rounds * self.host_ns
            + measured * self._rate_ns
            + updates * self._block_ns
            + self.waits * updates * self.trial_timing.write_ns
        )

    def _measured(self, updates: int) -> int:
        """How often the rate has been measured in the first updates."""
        return -(-updates // self._every) if self._every else 0

    def time_s(self, updates: int) -> float:
        """Chip time of a number of updates and of the calibration before them, in s."""
        return 1e-9 * (
            self._calibrating_ns + self.start_ns(updates * self.plan.trials_of_an_update)
        )

    def energy_by_cause(self, updates: int) -> dict[str, float]:
        """Energy of a number of updates and of the calibration before them by cause.

        Returns
        -------
        dict of str to float
            J by each of `CAUSES`, in trials and whatever else is measured; by "write", of every
            weight in every update; by "host", the words between the chip and its host; by "static"
            power; and by "refresh" of the weights.
        """
        timing = self.trial_timing
        measured = self._measured(updates)
        spent_j = (
            self._calibrating_j
            + timing.spent_j(updates * self.plan.trials_of_an_update)
            + updates * self._block_j
            + measured * self._rate_j
        )
        words = updates * self.rounds * self.host_words + measured * self._rate_words
        time_s = self.time_s(updates)
        return dict(zip(CAUSES, spent_j.tolist(), strict=True)) | {
            "write": updates * timing.write_j,
            "host": words * self._word_j,
            "static": timing.static_w * time_s,
            "refresh": timing.refresh_w * time_s,
        }

    def energy_j(self, updates: int) -> float:
        """Energy of a number of updates and of the calibration before them, in J."""
        return math.fsum(self.energy_by_cause(updates).values())


def _of_a_pattern(params: ChipParams, objective: Objective) -> dict[str, int]:
    """What each part takes of the time of a pattern, in ns."""
    array = params.array
    # layers one after another, and positions of a convolution, which one array serves
    times = objective.depth
    within = (
        {"conversion in the arrays": times * array.conversion_ns} if array.conversion_ns else {}
    )
    return {
        "settling of the array": times * array.settle_ns,
        **within,
        "conversion": params.error_unit.conversion_ns,
    }


def _by_cause(counts: Sequence[float], each_j: Sequence[float]) -> Array:
    """Energy of what is counted, in J."""
    # one by one: counts of long runs are longer than the integers of arrays
    return np.array([count * j for count, j in zip(counts, each_j, strict=True)], float)


def _check_clock(key: str, given: int, needed: int, what: str) -> None:
    # 0 is no clock
    if 0 < given < needed:
        raise InputError(
            f"clock.{key} = {given} cannot hold {what}, which takes {needed} ns:"
            f" {needed - given} ns too short"
        )


def check_fifo(params: ChipParams, timing: TrainingTiming) -> None:
    """InputError for broadcasts that come too late for the FIFO of perturbations."""
    if timing.pending >= params.synapse.fifo_depth:
        raise InputError(
            f"bus.latency_ns = {params.bus.latency_ns} outlasts the FIFO of"
            f" {params.synapse.fifo_depth} perturbations, which only events can show: set"
            ' training.source = "event", or a deeper synapse.fifo_depth'
        )
