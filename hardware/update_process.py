"""The updates of a chip that learns, in time: the change that a round of trials gives, when it is
written, and what waits for that.
"""

from collections.abc import Callable

import numpy as np

from hardware.chip import Chip
from hardware.timing import TrainingTiming

Array = np.ndarray
OnRound = Callable[[int, Array, Array, float], Array | None]


class UpdateProcess:
    """How the sums of a chip's synapses become changes of its weights, after the rounds of trials.

    chip: has it as its `updates`. direction(round): v of a round's trials. changes: of the
    weights, with the number of the update, to be applied at the start of the next trial.
    """

    def __init__(self, chip: Chip, timing: TrainingTiming, direction: Callable[[int], Array]):
        self.timing, self.every = timing, timing.plan.trials_per_update  # trials of a round
        self.changes: list[tuple[int, Array]] = []
        self._chip = chip
        self._direction = direction
        self._writing: dict[
            int, tuple[int, Array]
        ] = {}  # when they will be written, of updates that are being written
        self._updates = self._wanted = 0  # written, and after how many `learn` ends
        self._ready, self._done = (
            chip.env.event(),
            chip.env.event(),
        )  # for the next round; for the end of `learn`
        self._round = -1  # whose direction the chip has

    def learn(self, updates: int, on_round: OnRound) -> None:
        """Run until `updates` have been written, counted from the start, and a trial is about to
        begin; the accumulators hold all trials before it.

        on_round(round, sums, D, dE): the change wanted, from the sums of a round, and perturbation
        and dE of its last trial; None if another round is to follow.
        """
        self._wanted = updates
        self._on_round = on_round
        while self._updates < updates:
            self._chip.advance(self._done)
        self._chip.accumulators.evaluate(self._chip.next_trial)
        self._chip.accumulators.flush()

    # ---- of the chip's processes

    def begin(self, trial: int, start: int) -> None:
        """Change the weights, and v, that a trial begins with; those before it have met what was
        there.
        """
        chip = self._chip
        round_ = trial // self.every
        if self.changes or round_ != self._round:
            chip.accumulators.evaluate(trial)
        for update, change in self.changes:
            chip.datapath.weight_store.add(change, update, start)
        self.changes.clear()
        if round_ != self._round:
            chip.datapath.v = self._direction(round_)
            self._round = round_

    def between(self, trial: int):
        """Between two trials: what a round awaits is there, and all else of this moment has
        happened.
        """
        env = self._chip.env
        if trial % self.every == 0 and self.timing.awaits(trial // self.every):
            yield self._ready
        while env.peek() <= env.now:
            yield env.timeout(0)
        if self._updates >= self._wanted:
            done = self._done
            self._done = self._chip.emit(done, trial)
            yield done

    def update(self, trial: int):
        """What the synapses have summed in a round changes their weights, once it is written.

        A rate that is measured takes the predicted time; its value is computed by `on_round`.
        """
        chip = self._chip
        timing = self.timing
        round_ = trial // self.every
        chip.accumulators.flush()
        change = self._on_round(
            round_, chip.accumulators.synapses, chip.accumulators.met, chip.accumulators.dE
        )
        chip.accumulators.synapses[:] = 0.0
        if timing.measures(round_):
            start = chip.env.now
            yield chip.env.timeout(timing.measuring_ns(round_))
            if trial < chip.trace_trials:
                chip.note(trial, -1, start, "array and error unit", "measure the rate")
        if timing.awaits(round_ + 1) and (change is None or not timing.waits):
            self._ready = chip.emit(self._ready, round_)
        if change is not None:
            self._writing[update := round_ // timing.rounds] = (
                chip.env.now + chip.params.weights.write_ns,
                change,
            )
            yield from self._write(update)
            if timing.waits:
                self._ready = chip.emit(self._ready, round_)

    def _write(self, update: int):
        chip, (written, change) = self._chip, self._writing[update]
        yield chip.env.timeout(written - chip.env.now)
        trial = (update + 1) * self.timing.plan.trials_of_an_update - 1
        if trial < chip.trace_trials:
            chip.note(trial, -1, written - chip.params.weights.write_ns, "weights", "write")
        del self._writing[update]
        self.changes.append((update, change))
        self._updates = update + 1

    # ---- to be stored, and gone on from

    def arrays(self) -> dict[str, Array]:
        """What is being written, between two trials."""
        times = [(update, written) for update, (written, _) in self._writing.items()]
        wanted = [change for _, change in self._writing.values()]
        return {
            "updates": np.array(self._updates),
            "writing": np.array(times, np.int64).reshape(-1, 2),
            "wanted": np.array(wanted).reshape(-1, self._chip.w.size),
        }

    def restore(self, parts: dict[str, Array]) -> None:
        self._updates = int(parts["updates"])
        for (update, written), change in zip(
            parts["writing"].tolist(), parts["wanted"], strict=True
        ):
            self._writing[update] = (written, change)
            self._chip.env.process(self._write(update))
