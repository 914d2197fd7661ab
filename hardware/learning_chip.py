"""A chip in time that learns: after every round of trials its tiles change their own weights.

With the last words of a round every tile holds its sums, and begins new ones. When they have
reached all tiles the controller says "update", and each tile turns what it holds into changes of
its own weights, which are written before a later trial. What no tile can do by itself, a host does,
that reads and sends words over the bus: `hardware.on_chip.ByEvents`.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from hardware.event_chip import Course, EventChip, Process
from hardware.params import ChipParams
from hardware.parts.bus import Words
from hardware.parts.tile import Held, Update
from hardware.signals import Flight, Signal
from hardware.timing import TrainingTiming
from perturb.errors import InputError
from perturb.estimation.design import Design
from perturb.networks.objective import Objective
from perturb.trial.code import Code
from perturb.trial.synapse import SUMS

Array = np.ndarray
TRACED = 4  # trials


class Host(Protocol):
    """What is decided besides the tiles when all of them hold the sums of a round."""

    def decide(self, round_: int) -> Update | Array | None:
        """What the tiles are told; or the changes of all weights (n,) themselves; or None, if
        another round is to follow.
        """

    def allow(self, round_: int, change: Array) -> Array:
        """The changes (n,) that are to be made, of those that the tiles want."""


class LearningChip(EventChip):
    """A chip whose weights change after rounds of trials.

    timing: of the learning. direction(round): v of a round's trials. changes: of the weights, with
    the number of the update, to be applied at the start of the next trial.
    """

    def __init__(
        self,
        params: ChipParams,
        objective: Objective,
        w: Array,
        code: Code,
        timing: TrainingTiming,
        seed: int,
        course: Course,
        direction: Callable[[int], Array],
    ):
        plan = timing.plan
        self.schedule = timing
        self.every = plan.trials_per_update  # trials of a round
        self.changes: list[tuple[int, Array]] = []
        self._direction = direction
        # when they will be written, of updates that are being written
        self._writing: dict[int, tuple[int, Array]] = {}
        self._written = 0  # updates so far, and after how many `learn` ends
        self._wanted = 0
        self._round = -1  # whose direction the tiles have
        n = objective.n_weights
        presentation = "pattern" if course.patterns_of else "batch"
        design = Design(plan.method, code, n, plan.sigma, plan.r, seed, presentation)
        # v is set by `_before`, before the first trial
        super().__init__(params, objective, design, w, np.ones(n), TRACED, course)
        # for a round; of `learn`; to the tiles
        self._ready, self._done, self._updating = (Signal(self.env) for _ in range(3))
        self._updating.listeners += [partial(tile.update, plan) for tile in self.tiles]

    def learn(self, updates: int, host: Host) -> None:
        """Run until `updates` have been written, counted from the start, and a trial is about to
        begin.
        """
        self._wanted = updates
        self._host = host
        while self._written < updates:
            self.advance(self._done.event)

    # ---- between trials

    def _before(self, trial: int) -> None:
        for update, change in self.changes:
            self.parts.array.weights.add(change, update, self.env.now)
        self.changes.clear()
        # trials of a round share a direction
        if trial // self.every != self._round:
            self._round = trial // self.every
            v = self._direction(self._round)
            for tile in self.tiles:
                tile.direct(v[tile.part], float(v @ v))

    def _between(self, trial: int) -> Process:
        """What a round awaits is there, too."""
        if trial % self.every == 0 and self.schedule.awaits(trial // self.every):
            yield self._ready.event
        yield from super()._between(trial)
        if self._written >= self._wanted:
            yield self._done.send(trial)

    def _ends_round(self, trial: int) -> bool:
        return (trial + 1) % self.every == 0

    # ---- updates

    def _accumulated(self, words: Words) -> None:
        super()._accumulated(words)
        # for standard errors and energies of estimates, which learning has no use for
        self.words.clear()
        self._spent.clear()
        self.ends_ns.clear()
        if words.last:
            self.env.process(self._update(words.trial))

    def _update(self, trial: int) -> Process:
        """What the tiles hold of a round changes their weights, once it is written.

        What the host decides is known at once, and then takes the time of the schedule.
        """
        schedule = self.schedule
        round_ = trial // self.every
        change = self._host.decide(round_)
        if isinstance(change, Update):
            self._tell(trial, "controller", "update", change)
            yield self._updating.send(change)
            change = np.concatenate([tile.change for tile in self.tiles])
        if change is not None:
            change = self._host.allow(round_, change)
        for tile in self.tiles:
            tile.held.popleft()
        # one after another, as `TrainingTiming` reckons
        for unit, action, ns in (
            ("array and error unit", "measure the rate", schedule.rate_ns(round_)),
            ("host", "read sums, send steps", schedule.host_ns),
            ("array and error unit", "measure what the update does", schedule.block_ns(round_)),
        ):
            if ns:
                start = self.env.now
                yield self.env.timeout(ns)
                if trial < self.trace_trials:
                    self.note(trial, -1, start, unit, action)
        # what the host reads and sends goes over the bus
        self.counts["broadcast_bit"] += schedule.host_words * self.params.bus.word_bits
        # with a change to be written, a chip that waits begins the next round only after that
        if schedule.awaits(round_ + 1) and (change is None or not schedule.waits):
            self._ready.send(round_)
        if change is not None:
            update = round_ // schedule.rounds
            # with its time, so that a run that was stored goes on with the writing
            self._writing[update] = (self.env.now + self.params.weights.write_ns, change)
            yield from self._write(update)
            if schedule.waits:
                self._ready.send(round_)

    def drop_changes(self) -> None:
        """Forget what is to be written: the run has ended."""
        self.changes.clear()

    def _write(self, update: int) -> Process:
        written, change = self._writing[update]
        yield self.env.timeout(written - self.env.now)
        # in the trace it belongs to the last trial of the update
        trial = (update + 1) * self.schedule.plan.trials_of_an_update - 1
        if trial < self.trace_trials:
            self.note(trial, -1, written - self.params.weights.write_ns, "weights", "write")
        del self._writing[update]
        self.changes.append((update, change))
        self._written = update + 1

    # ---- to be stored, and gone on from, between two trials

    def arrays(self) -> dict[str, Array]:
        """The state between two trials, for `restore` of a new chip that starts there.

        Returns
        -------
        dict of str to array
        """
        tiles = self.tiles
        # rows of one length: `shelved` fills up with -1
        deepest = max(len(tile.fifo) for tile in tiles)
        flights = self._in_flight.values()
        sent = [(words.trial, *words.dE, words.s) for words, _, _ in flights]
        reached = [[tile.number in flight.reached for tile in tiles] for flight in flights]
        times = [(update, written) for update, (written, _) in self._writing.items()]
        return {
            "sums": np.concatenate([tile.synapses.sums for tile in tiles], 1),
            **self._held(),
            "fifos": np.array([tile.shelved(deepest) for tile in tiles], np.int64),
            "latest": np.array(self._latest),
            "sent": np.array(sent).reshape(-1, 4),
            "heard": np.array([flight.arrivals for flight in flights], np.int64),
            "met": np.array(reached, bool),
            "updates": np.array(self._written),
            "writing": np.array(times, np.int64).reshape(-1, 2),
            "wanted": np.array([change for _, change in self._writing.values()]),
        }

    def _held(self) -> dict[str, Array]:
        """What tiles hold of rounds, (rounds, rows, n): the sums, D and v; dE (rounds, tiles); and
        of how many rounds, (tiles,), which differs where words come late to some.
        """
        rounds = [len(tile.held) for tile in self.tiles]
        # two rows more than sums: D and v
        held = np.zeros((max(rounds), len(SUMS) + 2, self.w.size))
        dE = np.zeros((max(rounds), len(self.tiles)))
        for tile in self.tiles:
            for k, (sums, D, own, v) in enumerate(tile.held):
                held[k, :, tile.part] = [*sums, D, v]
                dE[k, tile.number] = own
        return {"held": held, "held_dE": dE, "held_rounds": np.array(rounds)}

    def _v_of(self, part: slice, trial: int) -> Array:
        return self._direction(trial // self.every)[part]

    def restore(self, parts: dict[str, Array]) -> None:
        """Resume from a state, at the trial and the time that this chip starts at.

        Parameters
        ----------
        parts : dict of str to array
            What `arrays` of an equal chip has returned.
        """
        if "held" not in parts:
            raise InputError(
                "the stored state is of an earlier version, whose tiles held no sums of a round:"
                " start a new run, with another place for its results"
            )
        for tile, fifo, rounds in zip(
            self.tiles, parts["fifos"], parts["held_rounds"], strict=True
        ):
            part = tile.part
            dE = parts["held_dE"][:, tile.number].tolist()
            held = [
                Held(rows[:-2, part], rows[-2, part], own, rows[-1, part])
                for rows, own in zip(parts["held"][:rounds], dE[:rounds], strict=True)
            ]
            tile.restore(fifo.tolist(), parts["sums"][:, part], held, partial(self._v_of, part))
        self._latest = parts["latest"].tolist()
        for (trial, dE_g, dE_z, s), arrivals, met in zip(
            parts["sent"].tolist(), parts["heard"].tolist(), parts["met"], strict=True
        ):
            number = int(trial)
            words = Words(number, (dE_g, dE_z), s, self._ends_round(number))
            flight = Flight(words, arrivals, set(np.flatnonzero(met).tolist()))
            self._in_flight[number] = flight
            # words that were on their way when this was stored arrive at their time
            self.env.process(self._deliver(flight))
        self._written = int(parts["updates"])
        for (update, written), change in zip(
            parts["writing"].tolist(), parts["wanted"], strict=True
        ):
            self._writing[update] = (written, change)
            self.env.process(self._write(update))
