"""What went wrong on a chip, in fabrication and during a run."""

from collections.abc import Sequence
from typing import NamedTuple

from hardware.assembly import Parts
from hardware.params import ChipParams
from hardware.parts.converter import Converter

EXTRA_BITS = 20  # that are added to a converter that saturated


class Fault(NamedTuple):
    """What happened, and the table and the values of a chip without it."""

    what: str
    table: str
    changes: dict[str, object]


def of_fabrication(parts: Parts) -> list[str]:
    """What the die was made with, in sentences without a full stop."""
    die = parts.die
    n = die.alive.size
    found = []
    if not die.alive.all():
        found.append(f"{n - die.alive.sum()} of {n} synapses do not work")
    if die.stuck.any():
        found.append(f"{die.stuck.sum()} of {n} weights are stuck")
    return found


def of_run(used: Sequence[Parts], trials: int, overflowed: bool) -> list[Fault]:
    """The faults that so many trials met; used: the circuits that measured them."""
    # die and parameters are the same in all of them
    parts = used[0]
    params = parts.params
    faults = params.faults
    met = []
    died = int((parts.die.alive & parts.die.dying).sum())
    if died and trials > faults.dying_trial:
        what = f"{died} synapses stopped working in trial {faults.dying_trial}"
        met.append(Fault(what, "faults", {"dying_fraction": 0.0}))
    if 0 <= faults.tile and trials > faults.tile_trial:
        what = (
            f"tile {faults.tile} lost power in trial {faults.tile_trial}, and the sums of its"
            " synapses"
        )
        met.append(Fault(what, "faults", {"tile": -1}))
    if lost := sum(each.bus.lost for each in used):
        share = lost / sum(each.bus.broadcasts for each in used)
        what = f"{share:.1%} of the broadcasts to tiles were lost"
        met.append(Fault(what, "bus", {"drop_probability": 0.0}))
    met += _clipped_readings(used, params)
    for words, what, table, bits, reach in (
        (
            [each.array.crossbar.inputs for each in used],
            "inputs of arrays were beyond the range of their converters",
            "array",
            "input_bits",
            "input_range",
        ),
        (
            [each.array.crossbar.outputs for each in used],
            "sums of columns were beyond the range of their converters",
            "array",
            "output_bits",
            "output_range",
        ),
        (
            [each.bus.dE for each in used],
            "dE were beyond the range of its words",
            "bus",
            "word_bits",
            "dE_range",
        ),
        (
            [each.bus.s for each in used],
            "dw.v were beyond the range of its words",
            "bus",
            "word_bits",
            "s_range",
        ),
        (
            [each.line.converter for each in used],
            "dw.v were beyond the range of its converter",
            "summing_line",
            "bits",
            "range",
        ),
    ):
        met += _clipped_words(words, what, params, table, bits, reach)
    if overflowed:
        what = "broadcasts came too late for the FIFO and met the wrong perturbation"
        # deeper than the trials that events can follow at a time
        met.append(Fault(what, "synapse", {"fifo_depth": 10**6}))
    return met


def _clipped_readings(used: Sequence[Parts], params: ChipParams) -> list[Fault]:
    units = [each.error_unit for each in used]
    below = sum(unit.below for unit in units)
    clipped = below + sum(unit.above for unit in units)
    if not clipped:
        return []
    share = clipped / sum(unit.readings for unit in units)
    unit = params.error_unit
    # steps as large, many more of them; a constant lifts all readings where some were below 0
    wide = {"bits": unit.bits + EXTRA_BITS, "range": unit.range * 2**EXTRA_BITS}
    if below:
        wide["offset"] = unit.offset + unit.range * 2 ** (EXTRA_BITS - 1)
    return [
        Fault(f"{share:.1%} of the readings were beyond the converter's range", "error_unit", wide)
    ]


def _clipped_words(
    converters: Sequence[Converter],
    what: str,
    params: ChipParams,
    table: str,
    bits: str,
    reach: str,
) -> list[Fault]:
    beyond = sum(converter.beyond for converter in converters)
    if not beyond:
        return []
    share = beyond / sum(converter.words for converter in converters)
    part = getattr(params, table)
    # as many bits more as the range doubles: the step stays as it is
    wide = {bits: getattr(part, bits) + EXTRA_BITS, reach: getattr(part, reach) * 2**EXTRA_BITS}
    return [Fault(f"{share:.1%} of the {what}", table, wide)]


def without(params: ChipParams, met: Sequence[Fault]) -> ChipParams | None:
    """The chip without the faults that a run met; None if it met none."""
    for _, table, changes in met:
        # `model_copy` checks no limits: a converter may be wider than files can ask for
        part = getattr(params, table).model_copy(update=changes)
        params = params.model_copy(update={table: part})
    return params if met else None
