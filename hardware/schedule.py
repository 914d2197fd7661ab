"""The steady schedule of a chip's trials: how long one takes and what it spends, from the parameters alone.

`Chip` finds the same by events; a test holds them together. Trials follow each other when the last word has left the bus.
"""

import math

from hardware.params import ChipParams
from perturb.errors import InputError
from perturb.methods import Method
from perturb.objective import Objective


class Schedule:
    """The times of one evaluation and one word, of a trial, and what its parts take of it (waiting: for dw.v or a clock).

    dw.v is sent as soon as it is known, if need be beside an evaluation: `hidden_ns` of the bus's time. A clock that cannot hold
    an evaluation, or what is left to send after the last one, raises InputError.
    """

    def __init__(self, params: ChipParams, objective: Objective, method: Method, presented: int):
        p, n, every = params, objective.n_weights, params.error_unit.baseline_every
        baseline, words = (0, 0) in method.phases, len(method.words)
        # of a baseline that is kept for several trials, a share is measured in each
        evaluations = len(method.phases) - (baseline and 1 - 1 / every)
        self.word_ns = math.ceil(p.bus.word_bits * 1e9 / p.bus.bits_per_s)
        per_pattern = objective.depth * p.array.settle_ns + p.error_unit.conversion_ns
        self.evaluation_ns = p.perturbation.settle_ns + presented * per_pattern
        self._held("evaluation_ns", p.clock.evaluation_ns, self.evaluation_ns, f"an evaluation of {presented} patterns")
        slot_ns = max(self.evaluation_ns, p.clock.evaluation_ns)
        s_ns = self.word_ns * method.needs_s
        dE_ns = self.word_ns * words - s_ns
        line_ns = (p.summing_line.settle_ns + p.summing_line.conversion_ns) * method.needs_s

        def trial(measured: int) -> tuple[int, int]:
            """ns until the last word has left the bus, and how much of that the bus was busy beside an evaluation."""
            E_ns = measured * slot_ns
            sent_ns = max(E_ns, line_ns + s_ns) + dE_ns if line_ns < E_ns else max(line_ns, E_ns + dE_ns) + s_ns
            self._held("broadcast_ns", p.clock.broadcast_ns, sent_ns - E_ns, "what is left to send after the last evaluation")
            return max(sent_ns, E_ns + p.clock.broadcast_ns), min(s_ns, max(0, E_ns - line_ns))

        whole, less = trial(len(method.phases)), trial(len(method.phases) - (baseline and every > 1))
        self.trial_ns, self.hidden_ns = (a / every + b * (1 - 1 / every) for a, b in zip(whole, less, strict=True))
        self.parts_ns = {
            "settling of perturbations": evaluations * p.perturbation.settle_ns,
            "settling of the array": evaluations * presented * objective.depth * p.array.settle_ns,
            "conversion": evaluations * presented * p.error_unit.conversion_ns,
            "bus": float(words * self.word_ns),
        }
        self.parts_ns["waiting for dw.v or the clock"] = max(0.0, self.trial_ns + self.hidden_ns - sum(self.parts_ns.values()))
        self.after_ns = p.bus.latency_ns + p.bus.skew_ns + p.synapse.accumulate_ns
        perturbed = len(method.phases) - baseline
        self._trial_j = (
            n * perturbed * p.energy.perturbation_j
            + n * presented * evaluations * p.energy.mac_j
            + (presented * evaluations + method.needs_s) * p.energy.conversion_j
            + words * p.bus.word_bits * p.energy.broadcast_bit_j
            + n * p.energy.accumulate_j
        )
        self._write_ns = p.weights.write_ns
        self._update_j = n * p.energy.weight_write_j
        refreshed = n / p.weights.refresh_s if p.weights.refresh_s else 0.0  # weights a second
        self._steady_w = p.energy.static_w + refreshed * p.energy.weight_write_j

    @staticmethod
    def _held(key: str, given: int, needed: int, what: str) -> None:
        if 0 < given < needed:
            raise InputError(f"clock.{key} = {given} cannot hold {what}, which takes {needed} ns: {needed - given} ns too short")

    @property
    def busy(self) -> dict[str, float]:
        """Share of a trial's time that each part takes: what limits the trial rate is the largest."""
        return {part: ns / self.trial_ns if self.trial_ns else 0.0 for part, ns in self.parts_ns.items()}

    def time_s(self, trials: float) -> float:
        """Chip time until the last synapse has accumulated the last trial (jitter left out)."""
        return (trials * self.trial_ns + self.after_ns) * 1e-9

    @property
    def update_ns(self) -> float:
        """From the end of an update's last trial until its weights are written (jitter left out)."""
        return self.after_ns + self._write_ns

    def delay_of_updates(self, waits: bool) -> int:
        """Trials that begin between the end of an update's last trial and that of its writing, if trials do not wait for it."""
        return 0 if waits or not self.trial_ns else math.ceil(self.update_ns / self.trial_ns)

    def start_ns(self, trial: int, trials_per_update: int, waits: bool) -> int:
        """When a trial starts, in learning."""
        return round(trial * self.trial_ns + (trial // trials_per_update * self.update_ns if waits else 0))

    def learning_j(self, trials: float, updates: int, time_s: float) -> float:
        """Energy of so many trials and updates in so much time, every weight written in each update."""
        return trials * self._trial_j + updates * self._update_j + self._steady_w * time_s

    def energy_j(self, trials: float) -> float:
        """Energy of so many trials."""
        return trials * self._trial_j + self._steady_w * self.time_s(trials)
