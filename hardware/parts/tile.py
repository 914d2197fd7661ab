"""A tile: synapses that share wires. With one synapse per tile this is the literal picture.

What a tile knows: its seed and its own weights' numbers, which make its perturbations; its part of
v; and the words that reach it. From these alone come its g_i and z_i, and the changes of its
weights.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hardware.parts.bus import Words
from hardware.parts.synapses import Constants, Synapses
from perturb.estimation.design import Design
from perturb.training.plan import Plan
from perturb.training.rules import RULES, Inputs
from perturb.trial.synapse import SUMS

Array = np.ndarray
AHEAD = 64  # trials whose perturbations are drawn at once: quicker, and the same numbers
XY = SUMS.index("xy")
QU = SUMS.index("qu")


class Held(NamedTuple):
    """What a tile holds of a round: its sums; D (size,) and dE of the last trial, D = 0 if its
    words never arrived; and v (size,).
    """

    sums: Array
    D: Array
    dE: float
    v: Array


class Update(NamedTuple):
    """What the controller broadcasts when weights are to change: the number, and the rate."""

    number: int
    eta: float


class Tile:
    """Synapses `part` of a chip, with a FIFO of their past perturbations.

    `perturb` draws a new one and pushes it; `receive` takes the oldest out, for the words to meet.
    A shift register cannot know trial numbers: when words come later than `depth` trials, its
    oldest entry is lost, all later words meet the wrong perturbation, and `overflowed` says so.
    Words that are lost on their way still shift the register; those that find it empty meet what
    came out of it last. first: the first trial; perturb_every: trials that a perturbation stands.
    """

    def __init__(
        self,
        number: int,
        part: slice,
        design: Design,
        synapses: Synapses,
        depth: int,
        first: int = 0,
        perturb_every: int = 1,
    ):
        self.number = number
        self.part = part
        self.design = design
        self.synapses = synapses
        self.perturb_every = perturb_every
        self.fifo: deque[tuple[int, Array, Constants]] = deque(maxlen=depth)
        self.overflowed = False
        self.out = first - 1  # the trial whose perturbation came out last, and that
        self.met = np.zeros(part.stop - part.start)
        self._constants = synapses.constants
        # on the lines to the drivers: dw and r v; on the summing line
        self.dw = self.contributions = self.met
        self.rv = design.r * synapses.v
        # of rounds whose sums no update has used yet: the first is the oldest
        self.held: deque[Held] = deque()
        self.change = np.zeros_like(self.met)
        self.memory: dict[str, Array] = {}
        # of AHEAD trials from this one on: dw, what the synapses know of it, and what they put on
        # the summing line, a row each
        self._since = first - AHEAD
        none = np.zeros((0, part.stop - part.start))
        self._rows = (none, none, none)
        self._perfect = synapses.health.perfect

    def perturb(self, trial: int) -> None:
        """Draw dw of a trial, and keep it for the words that are to come."""
        row = trial - self._since
        if row >= AHEAD:
            D, known = self._draw(trial, AHEAD)
            self._rows = (D, known, known * self.synapses.v)
            self._since = trial
            row = 0
        D, known, contributions = self._rows
        self.dw = D[row]
        self.contributions = contributions[row]
        # where synapses know their dw exactly, one view of it is enough: a thousand tiles do this
        own = self.dw if known is D else known[row]
        # v may change before the words come: it goes along with the perturbation
        self.fifo.append((trial, own, self.synapses.constants))
        if not self._perfect:
            self.rv = self.synapses.health.masked(self.design.r * self.synapses.v, [trial])[0]

    def _draw(self, first: int, count: int) -> tuple[Array, Array]:
        """dw of so many trials, and what the synapses know of it, (count, size)."""
        design = self.design
        part = self.part
        trials = np.arange(first, first + count)
        numbers = trials // self.perturb_every
        # keyed by weight: a tile draws its own part, and gets the numbers of the whole
        D = design.code.draw_each(
            design.n_weights, design.sigma, design.seed, numbers, part.start, part.stop
        )
        D = self.synapses.health.masked(D, trials.tolist())
        return D, sensed(design, D, numbers, part.start)

    def _again(self, trial: int, v: Array) -> tuple[int, Array, Constants]:
        """What went into the FIFO in a trial, drawn again."""
        _, known = self._draw(trial, 1)
        return trial, known[0], (v, *self.synapses.constants[1:])

    def receive(self, words: Words, arrived: bool = True) -> None:
        """The words of a trial meet the oldest perturbation; lost ones shift the FIFO only."""
        if self.fifo:
            out, self.met, self._constants = self.fifo.popleft()
            # words come in order: a gap is a perturbation that the FIFO has lost
            if out != self.out + 1:
                self.overflowed = True
            self.out = out
        lost = None if arrived else np.ones(self.met.size, dtype=bool)
        self.synapses.hear(self.met, self._constants, words, lost)
        if words.last:
            # a rule that steps along D must not do so for words that never came
            D = self.met if arrived else np.zeros_like(self.met)
            self.held.append(Held(self.synapses.take(), D, words.dE[0], self._constants[0]))

    def direct(self, v: Array, V: float) -> None:
        """Estimate z along another direction v (size,), of |v|^2 = V, from the next trial on."""
        self.synapses.direct(v, V)
        self.rv = self.design.r * v
        # what was drawn ahead was multiplied by the old v
        dw, known, _ = self._rows
        self._rows = (dw, known, known * v)

    def solve(self, trials: int, totals: Array) -> tuple[Array, Array]:
        """g and z of its synapses: see `Synapses.solve`."""
        return self.synapses.solve(trials, totals)

    def update(self, plan: Plan, update: Update) -> None:
        """Turn what it holds of the oldest round into changes of its weights, by a local rule: they
        go onto the lines to the cells, `change`.
        """
        sums, D, dE, v = self.held[0]
        g, z = means(plan, sums)
        rates = np.array([update.eta])
        # rules work on rows of runs: here there is one
        told = (g[None], D[None], np.array([dE]), v[None], z[None])
        inputs = Inputs(plan, self.memory, rates, update.number, *told)
        self.change = RULES[plan.rule].change(inputs)[0]

    def remember(self, memory: dict[str, Array]) -> None:
        """What its rule remembers between updates, arrays (1, size), which `update` changes."""
        self.memory = memory

    # ---- to be stored, and gone on from

    def shelved(self, depth: int) -> list[int]:
        """The FIFO as numbers of trials, -1 where it is empty, and what came out of it last."""
        trials = [trial for trial, *_ in self.fifo]
        return [*trials, *[-1] * (depth - len(trials)), self.out, self.overflowed]

    def restore(
        self,
        shelved: Sequence[int],
        sums: Array,
        held: Sequence[Held],
        v_of: Callable[[int], Array],
    ) -> None:
        """Go on from what was stored: `shelved`, and the sums; perturbations are drawn again.

        v_of(trial): the direction (size,) of a trial.
        """
        *fifo, self.out, overflowed = shelved
        self.overflowed = bool(overflowed)
        self.fifo.extend(self._again(trial, v_of(trial)) for trial in fifo if trial >= 0)
        if self.out >= 0:
            _, self.met, self._constants = self._again(self.out, v_of(self.out))
        self.synapses.sums[:] = sums
        self.held = deque(held)


def sensed(design: Design, D: Array, numbers: Array, start: int = 0) -> Array:
    """What the synapses from `start` on know of their perturbations D (trials, size)."""
    if design.code.sensing == 0.0:
        return D
    rows = zip(D, numbers, strict=True)
    return np.array(
        [design.code.sensed(dw, design.sigma, design.seed, trial, start) for dw, trial in rows]
    )


def means(plan: Plan, sums: Array) -> tuple[Array, Array]:
    """g and z (n,) from the sums of a round; z of a method that displaces along v."""
    # g^ = <dE D>/sigma^2 and z^ = <u D>/(r sigma^2)
    scale = plan.trials_per_update * plan.sigma**2
    return sums[XY] / scale, sums[QU] / scale / plan.r
