"""The parts of one chip, put together: for the events in time and for batches of trials alike."""

from dataclasses import dataclass

import numpy as np

from hardware.params import ChipParams
from hardware.parts.array import PatternsOf, SynapticArray
from hardware.parts.bus import Bus
from hardware.parts.controller import Controller
from hardware.parts.die import Die, Health, fabricate, health
from hardware.parts.drivers import Drivers
from hardware.parts.error_unit import ErrorUnit
from hardware.parts.neurons import Neurons, layers_of
from hardware.parts.summing_line import SummingLine
from hardware.parts.weight_store import WeightStore
from perturb.errors import InputError
from perturb.estimation.design import Design
from perturb.networks.objective import Objective
from perturb.trial.code import Code
from perturb.trial.codes import lfsr


@dataclass(frozen=True)
class Parts:
    """The parts of a chip but its tiles. die, health, array: what is fabricated, and the weights;
    the others hold what they have measured and sent so far.
    """

    params: ChipParams
    design: Design
    die: Die
    health: Health
    array: SynapticArray
    drivers: Drivers
    error_unit: ErrorUnit
    line: SummingLine
    bus: Bus
    controller: Controller

    def tile_slices(self) -> list[slice]:
        """The synapses of each tile."""
        size = self.params.synapses_per_tile
        n = self.die.alive.size
        return [slice(first, min(first + size, n)) for first in range(0, n, size)]

    @property
    def pattern_ns(self) -> int:
        """Until one pattern has settled in all layers, and its error is converted."""
        array = self.params.array
        # layers settle one after another, and positions of a convolution in the same array
        settled_ns = self.array.objective.depth * (array.settle_ns + array.conversion_ns)
        return settled_ns + self.params.error_unit.conversion_ns

    def unused(self) -> "Parts":
        """The same chip with circuits that have not measured or sent anything."""
        return _with_circuits(self.params, self.design, self.die, self.health, self.array.unused())


def assemble(
    params: ChipParams,
    objective: Objective,
    design: Design,
    w: np.ndarray,
    patterns_of: PatternsOf | None = None,
    weights: WeightStore | None = None,
) -> Parts:
    """The parts of a chip with the weights w (n,), or those of another; patterns_of: see
    `SynapticArray`.
    """
    _check(params, design, w.size, patterns_of)
    # neurons are of the whole network, also where only some of its weights are on the array
    whole = objective.unrestricted
    layers = layers_of(whole, params.neuron.per_position)
    die = fabricate(params, w.size, [layer.neurons.size for layer in layers])
    array = SynapticArray(
        params,
        objective,
        design,
        # given where a chip that learns measures its own rate: the same devices, under another
        # method
        weights or WeightStore(params, die.stuck, w, design.seed),
        Neurons(params.neuron, whole, layers, die.neurons, design.seed),
        patterns_of,
    )
    return _with_circuits(params, design, die, health(params, die), array)


def _check(params: ChipParams, design: Design, n: int, patterns_of: PatternsOf | None) -> None:
    """InputError for parts that do not go together."""
    # rounded up: the last tile may be smaller
    tiles = -(-n // params.synapses_per_tile)
    if params.faults.tile >= tiles:
        raise InputError(
            f"faults.tile = {params.faults.tile} but the chip has tiles 0 to {tiles - 1}"
        )
    every = params.error_unit.baseline_every
    by_pattern = design.presentation == "pattern" or patterns_of is not None
    if by_pattern and every > 1 and (0, 0) in design.method.phases:
        raise InputError(
            f"error_unit.baseline_every = {every} would compare the errors of different patterns:"
            ' set it to 1, or presentation = "batch"'
        )


def _with_circuits(
    params: ChipParams, design: Design, die: Die, works: Health, array: SynapticArray
) -> Parts:
    # by these the error unit numbers the evaluations of a run, for 1/f noise
    phases = len(design.method.phases)
    tiles = -(-works.alive.size // params.synapses_per_tile)
    return Parts(
        params,
        design,
        die,
        works,
        array,
        Drivers(params, die),
        ErrorUnit(params.error_unit, design.seed, phases),
        SummingLine(params.summing_line, design.seed),
        Bus(params.bus, design.seed, tiles),
        Controller(design.method, params.error_unit, params.synapse.leak),
    )


def realized_code(params: ChipParams, code: Code, n_weights: int) -> Code:
    """The code as the chip realizes it: `lfsr` with a shift register in every tile, where the chip
    has them; any other as it is, and so are registers that were given with the code.
    """
    p = params.perturbation
    if code != lfsr() or p.lfsr_per == "chip":
        return code
    try:
        code = lfsr(params.synapses_per_tile, p.lfsr_bits or None)
        code.check(n_weights)
    except InputError as error:
        raise InputError(f"perturbation.lfsr_bits = {p.lfsr_bits}: {error}") from None
    return code
