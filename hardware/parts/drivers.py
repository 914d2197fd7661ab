"""The drivers of the perturbations, one at every synapse, and the lines to its weight.

    x = gain q(a D) + offset        converter q, gain and offset of the die, in a phase with a != 0
    x = x + crosstalk (x_i-1 + x_i+1)
    x = x + b r v                   in a phase that displaces along v
    d := e^(-T/tau) d + (1 - e^(-T/tau)) x        what has settled when it is measured

The weights of stuck cells feel nothing of all that.
"""

import math

import numpy as np

from hardware.params import ChipParams
from hardware.parts.converter import quantised
from hardware.parts.die import Die
from hardware.parts.neurons import neighbour_sum
from perturb.errors import InputError
from perturb.estimation.meter import Mismatch

Array = np.ndarray
NEGLIGIBLE = 1e-17  # of an earlier perturbation, below rounding


class Drivers:
    """How far the weights are displaced by what the synapses ask for.

    residual: share of the last change that is left when the next is measured. horizon:
    evaluations after which it is below rounding. displaced (n,): of the weights in the last
    evaluation, where evaluations come one after another.
    """

    def __init__(self, params: ChipParams, die: Die):
        p = self.params = params.perturbation
        if p.settle_ns < p.tau_ns / 100:
            raise InputError(
                f"perturbation.settle_ns = {p.settle_ns} is less than a hundredth of tau_ns ="
                f" {p.tau_ns:g}, so that hardly anything of a perturbation would arrive: set a"
                " longer settle_ns, or tau_ns = 0"
            )
        self.die = die
        self.stuck = die.stuck if params.weights.stuck_fraction else None
        self.residual = math.exp(-p.settle_ns / p.tau_ns) if p.tau_ns else 0.0
        # after so many evaluations residual^k is below NEGLIGIBLE
        self.horizon = (
            math.ceil(math.log(NEGLIGIBLE) / math.log(self.residual)) if self.residual else 0
        )
        self.displaced = np.zeros(die.gain.size)

    @property
    def mismatch(self) -> Mismatch | None:
        """What is wrong with the perturbations of a plain chip; None if nothing."""
        p = self.params
        if p.gain_mismatch or p.offset_mismatch:
            return Mismatch(self.die.gain, self.die.offset)
        return None

    def target(
        self, phase: tuple[int, int], D: Array, rv: Array | float, works: Array | bool
    ) -> Array:
        """Where the displacement goes in a phase (a, b), once all has settled: as `D`.

        D, rv: dw and r v as the synapses ask for them, (n,) or a row for each trial; 0 of those
        that do not work. works: which do.
        """
        a, b = phase
        p = self.params
        # zeros by the number of synapses cost as much as a measurement of a small array
        if not a:
            x = np.zeros_like(D)
        else:
            x = quantised(a * D, p.bits, p.range)
            if p.gain_mismatch:
                x = x * self.die.gain
            if p.offset_mismatch:
                # a driver that does not work adds no offset either
                x = x + self.die.offset * works
            if p.crosstalk:
                x = x + p.crosstalk * neighbour_sum(x)
        if b:
            # r v does not go through the driver of D: no rounding, gain or offset
            x = x + b * rv
        return self.felt(x)

    def felt(self, x: Array) -> Array:
        """What the weights feel of a displacement."""
        return x if self.stuck is None else np.where(self.stuck, 0.0, x)

    def settle(self, target: Array) -> Array:
        """The displacement (n,) that the next evaluation finds."""
        if self.residual:
            target = self.residual * self.displaced + (1.0 - self.residual) * target
        self.displaced = target
        return target

    def restore(self, displaced: Array) -> None:
        """Go on from a displacement (n,) that was stored."""
        self.displaced = displaced
