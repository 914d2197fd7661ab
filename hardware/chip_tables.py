"""The parameters of the parts of a chip, a table each; those of its arrays and neurons stand in
`array_tables`.

A parameter is one Field: type, range, default, unit and meaning, and by its marks (`marks`) whether
it is an imperfection, what knows of it and whether less of it is better.
"""

from typing import Literal

from pydantic import Field, model_validator

from hardware.config import NonNegative, Number, Positive, Table
from hardware.device_params import DeviceParams
from hardware.marks import (
    DOUBLED,
    HALVED,
    IMPERFECTION,
    IN_KERNELS,
    IN_STORES,
    LESS_IS_WORSE,
    PARTS,
    UNSEEN,
    Bits,
    Mismatch,
    Nanoseconds,
    Share,
)
from perturb.errors import InputError


class PerturbationParams(Table):
    # settle_ns is paid for in every evaluation, tau_ns says what it leaves over; below tau_ns/100,
    # where hardly anything would arrive, it is refused
    settle_ns: Nanoseconds = Field(
        200,
        description="ns allowed until a changed perturbation is measured; 0 = at once",
        json_schema_extra=HALVED,
    )
    tau_ns: NonNegative = Field(
        0.0,
        description=(
            "ns: time constant of settling; exp(-settle_ns/tau_ns) of the last change is left; 0 ="
            " settles fully"
        ),
        json_schema_extra=IMPERFECTION,
    )
    # of dw alone: a displacement along v goes around this converter, and its gain and offset, too
    bits: Bits = Field(
        0,
        description="bits of the converter that makes the perturbation; 0 = exact",
        json_schema_extra=IMPERFECTION,
    )
    range: Positive = Field(
        0.1,
        description=(
            "in units of w: that converter covers -range..range and clips; unused if bits = 0"
        ),
    )
    # the array is wrong, not the synapse: it goes on multiplying by the dw that it asked for
    gain_mismatch: Mismatch = Field(
        0.0,
        description=(
            "standard deviation over synapses of the gain, 0.05 = 5 %: the array sees dw (1 + e); 0"
            " = none"
        ),
        json_schema_extra=IN_KERNELS | UNSEEN,
    )
    offset_mismatch: NonNegative = Field(
        0.0,
        description=(
            "in units of w: standard deviation over synapses of an offset of the applied"
            " perturbation; 0 = none"
        ),
        json_schema_extra=IN_KERNELS | UNSEEN,
    )
    # neighbours are next in the number of their weights
    crosstalk: Share = Field(
        0.0,
        description="share of its perturbation that reaches each neighbouring weight; 0 = none",
        json_schema_extra=IMPERFECTION,
    )
    lfsr_per: Literal["chip", "tile"] = Field(
        "chip",
        description=(
            "one shift register for all weights of the chip, or for those of each tile; of code"
            " lfsr only"
        ),
        json_schema_extra=IN_KERNELS,
    )
    lfsr_bits: Bits = Field(
        0,
        description=(
            "bits m of each tile's register, period 2^m - 1; 0 = the fewest that count all weights;"
            " unused per chip"
        ),
    )


class WeightParams(Table):
    # a cell that holds 2^bits levels, lowest at -range; a device has a range of its own
    bits: Bits = Field(
        0, description="bits of a stored weight; 0 = exact", json_schema_extra=IN_STORES
    )
    range: Positive = Field(
        4.0, description="in units of w: stored weights lie in -range..range; unused if bits = 0"
    )
    device: DeviceParams = Field(
        DeviceParams(),
        description=(
            "what stores them: the name of a device, its file, or a table; absent = the ideal"
            " device"
        ),
        examples=["ecram-tang2018"],
        json_schema_extra=IN_STORES,
    )
    reference: Literal["none", "symmetry"] = Field(
        "none",
        description=(
            "what a weight is read against; symmetry = a cell like its own, kept where steps up and"
            " down are alike (Gokmen and Haensch 2020)"
        ),
        json_schema_extra={"engine": "stores"},
    )
    # writes take the reference as exact, readings are off by this: it is met in every evaluation
    reference_error: NonNegative = Field(
        0.0,
        description=(
            "in units of w: standard deviation over weights of how far the reference is from the"
            " symmetry point; unused without one; 0 = none"
        ),
        json_schema_extra=IN_STORES | HALVED,
    )
    read_noise: NonNegative = Field(
        0.0,
        description=(
            "in units of w: standard deviation of every weight at every evaluation of E; 0 = ideal"
        ),
        json_schema_extra=IMPERFECTION | HALVED,
    )
    # a stuck cell ignores writes and perturbations, which its synapse does not know; a dead synapse
    # (dead_fraction) leaves its cell alone
    stuck_fraction: Share = Field(
        0.0,
        description="share of the weights that are stuck at stuck_value; 0 = none",
        json_schema_extra=IN_STORES | UNSEEN,
    )
    stuck_value: Number = Field(0.0, description="in units of w: where they are stuck")
    dead_fraction: Share = Field(
        0.0,
        description="share of the synapses that neither perturb nor accumulate; 0 = none",
        json_schema_extra=IMPERFECTION,
    )
    # of any cell, besides what its device does by tables [leak] and [drift] of its own; time is
    # counted from the cell's last write or refresh
    leak_tau_s: NonNegative = Field(
        0.0,
        description="s: time constant with which stored weights leak to zero; 0 = no leak",
        json_schema_extra=IMPERFECTION | LESS_IS_WORSE,
    )
    # t0 = 1 s, where a device has drift.t0_s
    drift_exponent: NonNegative = Field(
        0.0,
        description="weights drift as (1 + t/1 s)^-exponent; 0 = no drift",
        json_schema_extra=IMPERFECTION,
    )
    refresh_s: NonNegative = Field(
        0.0,
        description=(
            "s of chip time between refreshes, each of which writes every weight as it was stored;"
            " 0 = never"
        ),
    )
    rounding: Literal["stochastic", "nearest"] = Field(
        "stochastic",
        description=(
            "how a wanted change becomes whole pulses or levels; stochastic is right in the mean"
        ),
    )
    write_ns: Nanoseconds = Field(
        1000, description="ns to write all weights after an update, in learning; 0 = at once"
    )

    @model_validator(mode="after")
    def _check(self) -> "WeightParams":
        # levels of an ideal store, or the steps of a device: not both
        if self.bits and self.device.model != "ideal":
            raise InputError(
                f"bits = {self.bits} and device = {self.device.name} both say how weights are"
                " stored: keep one"
            )
        if self.reference == "symmetry" and not self.device.law.balanced:
            raise InputError(
                f'reference = "symmetry" is for a device whose steps up and down are alike at some'
                f' weight, which model = "{self.device.model}" has not: set reference = "none"'
            )
        # too short a time would be 0 in whole ns, which is never
        if 0 < self.refresh_s < 1e-6:
            raise InputError(
                f"refresh_s = {self.refresh_s} must be 0 (never) or at least 1e-6, a microsecond"
            )
        # the cell's own, of [weights], or its device's
        forgets = self.leak_tau_s or self.drift_exponent or self.device.leak or self.device.drift
        if self.refresh_s and not forgets:
            raise InputError(
                f"refresh_s = {self.refresh_s} has nothing to refresh, as weights do not change:"
                " set leak_tau_s or drift_exponent, or refresh_s = 0"
            )
        return self


class ErrorUnitParams(Table):
    noise: NonNegative = Field(
        0.0,
        description=(
            "in units of E: standard deviation of one reading of a pattern's error; 0 = ideal"
        ),
        json_schema_extra=IN_KERNELS | HALVED,
    )
    # 24 octaves are made, from one change in every evaluation to one in 2^24
    flicker: NonNegative = Field(
        0.0,
        description=(
            "in units of E: standard deviation per octave of 1/f noise of an evaluation; 0 = none"
        ),
        json_schema_extra=IMPERFECTION | HALVED,
    )
    offset: Number = Field(
        0.0,
        description="in units of E: constant error of a reading; 0 = none",
        json_schema_extra=IMPERFECTION,
    )
    bits: Bits = Field(
        0,
        description="resolution of the converter in bits; 0 = no converter, the reading is exact",
        json_schema_extra=IN_KERNELS | UNSEEN,
    )
    # from 0, as no built-in error of a pattern is below it
    range: Positive = Field(
        4.0,
        description=(
            "in units of E: the converter covers 0 to this and saturates; unused if bits = 0"
        ),
    )
    dither: bool = Field(
        False,
        description=(
            "whether uniform noise of one step is added before converting; unused if bits = 0"
        ),
        json_schema_extra=PARTS,
    )
    one_bit: bool = Field(
        False,
        description="whether only the sign of dE is broadcast (a comparator)",
        json_schema_extra=IMPERFECTION,
    )
    # read anew, E(w) costs an evaluation and has its own noise; stored, all trials have the same
    baseline_every: int = Field(
        1,
        ge=1,
        le=10**9,
        description=("trials for which a measured E(w) is stored and used; 1 = measured in each"),
        json_schema_extra=IMPERFECTION,
    )
    conversion_ns: Nanoseconds = Field(
        1000, description="ns to convert one pattern's error; 0 = at once", json_schema_extra=HALVED
    )


class SummingLineParams(Table):
    noise: NonNegative = Field(
        0.0,
        description="in units of dw.v: standard deviation of its reading; 0 = ideal",
        json_schema_extra=IMPERFECTION,
    )
    # at -1 nothing is left of dw.v
    gain_error: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="relative error of dw.v, 0.05 = 5 % too large; 0 = none",
        json_schema_extra=IMPERFECTION,
    )
    bits: Bits = Field(
        0, description="bits of the converter of dw.v; 0 = exact", json_schema_extra=IMPERFECTION
    )
    range: Positive = Field(
        1.0,
        description=(
            "in units of dw.v: that converter covers -range..range and clips; unused if bits = 0"
        ),
    )
    settle_ns: Nanoseconds = Field(
        500,
        description="ns until the sum dw.v over all synapses has settled; 0 = at once",
        json_schema_extra=HALVED,
    )
    conversion_ns: Nanoseconds = Field(
        1000, description="ns to convert dw.v; 0 = at once", json_schema_extra=HALVED
    )


class BusParams(Table):
    latency_ns: Nanoseconds = Field(
        100,
        description="ns from the last bit sent to its arrival at the synapses; 0 = at once",
        json_schema_extra=HALVED,
    )
    # at the tiles between in proportion to their number; a lone tile has none
    skew_ns: Nanoseconds = Field(
        0, description="ns by which the last tile gets a broadcast later than the first; 0 = none"
    )
    jitter_ns: Nanoseconds = Field(
        0, description="ns: each delivery to a tile is late by up to this, at random; 0 = none"
    )
    # of all words of a trial together: it is drawn once for a trial and tile
    drop_probability: Share = Field(
        0.0,
        description="probability that a tile misses a broadcast; 0 = never",
        json_schema_extra=IMPERFECTION | HALVED,
    )
    # worse both ways: a small range clips, and a large one makes the steps of its word_bits coarse
    dE_range: NonNegative = Field(
        0.0,
        description=(
            "in units of E: word_bits of a dE cover -dE_range..dE_range; 0 = words carry exact"
            " numbers"
        ),
        json_schema_extra=IMPERFECTION | {"worse": "both"},
    )
    s_range: NonNegative = Field(
        0.0,
        description="in units of dw.v: the same for dw.v; 0 = words carry exact numbers",
        json_schema_extra=IMPERFECTION | {"worse": "both"},
    )
    first: Literal["dE", "dw.v"] = Field(
        "dE", description="which goes first when a dE and dw.v want the bus at the same time"
    )
    # all take time on the bus, also in words that carry exact numbers; from 64 on none is finer
    word_bits: int = Field(
        16, ge=1, le=1024, description="bits of one broadcast number", json_schema_extra=HALVED
    )
    bits_per_s: float = Field(
        100e6,
        ge=1,
        le=1e18,
        description="bits per second on the bus; a word takes an integer number of ns",
        json_schema_extra=DOUBLED,
    )


class SynapseParams(Table):
    accumulate_ns: Nanoseconds = Field(
        50,
        description="ns to add a broadcast to a synapse's sums; 0 = at once",
        json_schema_extra=HALVED,
    )
    # words meet the oldest one stored; where more trials than this begin before they arrive, it
    # overflows
    fifo_depth: int = Field(
        4,
        ge=1,
        le=10**6,
        description="how many of its past perturbations a synapse stores; at least 1",
    )
    offset_mismatch: NonNegative = Field(
        0.0,
        description=(
            "in units of w: standard deviation over synapses of the offset with which dw is"
            " multiplied; 0 = none"
        ),
        json_schema_extra=IMPERFECTION,
    )
    # of sums that are kept as charge, whether words come or not
    leak: Share = Field(
        0.0,
        description="share of every sum that is lost in each trial; 0 = none",
        json_schema_extra=IMPERFECTION,
    )
    # relative to what is added, so that one value fits any sigma; of the two sums that g and z are
    # made of, not of those that serve standard errors
    sum_range: NonNegative = Field(
        0.0,
        description=(
            "in units of sigma E (for z, of its regressor's rms times E): a sum saturates at"
            " +-this; 0 = never"
        ),
        json_schema_extra=IMPERFECTION | LESS_IS_WORSE,
    )
    sum_bits: Bits = Field(
        0, description="bits of a sum: what is added is rounded to 2 sum_range / 2^bits; 0 = exact"
    )

    @model_validator(mode="after")
    def _check(self) -> "SynapseParams":
        # the step is 2 sum_range / 2^sum_bits
        if self.sum_bits and not self.sum_range:
            raise InputError(
                f"sum_bits = {self.sum_bits} needs the range that the bits cover: set sum_range,"
                " such as 10.0"
            )
        return self


class ClockParams(Table):
    # a clock that is too short for its step is refused, and a longer one makes every step wait
    evaluation_ns: Nanoseconds = Field(
        0, description="ns given to every evaluation of E; 0 = as long as it takes"
    )
    broadcast_ns: Nanoseconds = Field(
        0,
        description=(
            "ns from the last evaluation to the next trial, for the words left to send; 0 = as long"
            " as they take"
        ),
    )


class FaultParams(Table):
    dying_fraction: Share = Field(
        0.0,
        description="share of the synapses that stop working at dying_trial; 0 = none",
        json_schema_extra=IMPERFECTION,
    )
    # trials are numbered below 2^62
    dying_trial: int = Field(0, ge=0, le=2**62, description="trial from which they no longer work")
    # its synapses neither perturb nor accumulate from then on, and what they had summed up is gone
    tile: int = Field(
        -1,
        ge=-1,
        le=10**6,
        description="number of a tile that loses power at tile_trial, and its sums; -1 = none",
        json_schema_extra=IMPERFECTION,
    )
    tile_trial: int = Field(0, ge=0, le=2**62, description="trial from which it is without power")


class EnergyParams(Table):
    # defaults are nominal and assumed, see the head of chips/ideal.toml
    perturbation_j: NonNegative = Field(
        10e-15,
        description=(
            "J per synapse and evaluation, to change its perturbation, back to none for E(w); 0 ="
            " free"
        ),
        json_schema_extra=HALVED,
    )
    mac_j: NonNegative = Field(
        1e-12,
        description=(
            "J per multiply-accumulate: of a pattern one per synapse, of a shared weight one per"
            " use; 0 = free"
        ),
        json_schema_extra=HALVED,
    )
    conversion_j: NonNegative = Field(
        20e-12,
        description=(
            "J per conversion, of an error, of dw.v, or by converters of rows and columns; 0 = free"
        ),
        json_schema_extra=HALVED,
    )
    broadcast_bit_j: NonNegative = Field(
        50e-15, description="J per bit sent over the bus; 0 = free", json_schema_extra=HALVED
    )
    accumulate_j: NonNegative = Field(
        20e-15,
        description="J per synapse and trial, to add to its sums; 0 = free",
        json_schema_extra=HALVED,
    )
    weight_write_j: NonNegative = Field(
        1e-12,
        description="J to write a weight, in learning or a refresh; 0 = free",
        json_schema_extra=HALVED,
    )
    static_w: NonNegative = Field(
        1e-3,
        description="W drawn all the time by the chip; 0 = none",
        json_schema_extra=HALVED,
    )
