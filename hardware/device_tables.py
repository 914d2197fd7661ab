"""The tables of a device file, one for each thing that a device does.

The formulas that they enter head `hardware.device`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hardware.config import NonNegative, Number, Positive, Table
from perturb.errors import InputError, shown

# name: the largest value that is plausible, and why a larger one is not
SHARE = "it is a share, so 5 % is written 0.05"
PLAUSIBLE = {
    "dw_min": (1.0, "it is in units of the range, -1..1 or so, and one step cannot be half of it"),
    "dw_min_dtod": (1.0, SHARE),
    "up_down_dtod": (1.0, SHARE),
    "w_max_dtod": (1.0, SHARE),
    "w_min_dtod": (1.0, SHARE),
    "lifetime_dtod": (1.0, SHARE),
    "c2c": (
        10.0,
        (
            "it is relative to the mean step, so 30 % is written 0.3 (the noisiest device published"
            " has 5)"
        ),
    ),
    "c2c_offset": (1.0, "it is in units of the range, -1..1 or so"),
    "c2c_slope": (1.0, SHARE),
    "write": (1.0, "it is in units of the range, -1..1 or so"),
    "fraction": (1.0, SHARE),
    "w_max": (
        10.0,
        "the range of a device is -1..1 or so: use `range` to scale it to the network's weights",
    ),
    "nu": (1.0, "conductance drifts by powers of about 0.1"),
}


# Marks of a key, in the json_schema_extra of its Field: the value that a perfect device has, and
# the least demanding one that is plausible, between which a requirement is sought
NO_SHARE: dict[str, Any] = {"ideal": 0.0, "worst": 1.0}


class Plausible(Table):
    @model_validator(mode="after")
    def _plausible(self) -> "Plausible":
        for name in type(self).model_fields:
            value = getattr(self, name)
            # mostly a slip of units, such as per cent for a share, which would otherwise run
            if name in PLAUSIBLE and value > PLAUSIBLE[name][0]:
                most, why = PLAUSIBLE[name]
                raise InputError(f"{name} = {shown(value)} must be <= {most:g}: {why}")
        return self


class StepParams(Plausible):
    """[step] of a pulsed device."""

    # lowest and highest that requirements are sought between: 1e5 steps to a unit of range, and two
    dw_min: Positive = Field(
        examples=[0.002],
        description=(
            "range units: change by one pulse at w = 0 where f is 1, mean over cells and directions"
            " (lognormal: median)"
        ),
        json_schema_extra={"ideal": 1e-5, "worst": 0.5},
    )
    # once for each cell of a die; the sign of a negative draw is left out: no cell goes backwards
    dw_min_dtod: NonNegative = Field(
        0.0,
        description="share of dw_min: standard deviation over cells; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )
    dw_min_distribution: Literal["normal", "lognormal"] = Field(
        "normal",
        description=(
            "of dw_min over cells; of a lognormal one dw_min is the median and dw_min_dtod the"
            " standard deviation of ln dw_min"
        ),
    )
    # at -1 or 1 one of the two directions would not move at all
    up_down: float = Field(
        0.0,
        gt=-1,
        lt=1,
        description=(
            "asymmetry beta: steps up are 1 + beta, steps down 1 - beta times dw_min; 0 = symmetric"
        ),
    )
    up_down_dtod: NonNegative = Field(
        0.0,
        description="standard deviation of beta over cells; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )
    # may exceed 1: at 5, of ReRAM (Gong et al. 2018), 42 % of the pulses go the wrong way
    c2c: NonNegative = Field(
        0.0,
        description="noise of every pulse, share of the mean step; 0 = all pulses alike",
        json_schema_extra=NO_SHARE | {"worst": 10.0},
    )
    c2c_kind: Literal["multiplicative", "additive"] = Field(
        "multiplicative",
        description="the noise shrinks with f as the step does, or is the same everywhere",
    )
    c2c_offset: NonNegative = Field(
        0.0,
        description="range units: further noise of every pulse, whatever the step; 0 = none",
        json_schema_extra=NO_SHARE,
    )
    c2c_slope: NonNegative = Field(
        0.0,
        description="share of |w|, of a pair the side's: further noise of every pulse; 0 = none",
        json_schema_extra=NO_SHARE,
    )
    # they are given one by one, each with noise by its number within the update, below 2^24
    max_pulses: int = Field(
        10**6,
        ge=1,
        le=10**6,
        description="pulses that one write may give to a cell; more are not given",
    )


class BoundsParams(Plausible):
    """[bounds] of what a cell can hold."""

    # 0, at which dw_min is given, lies between them
    w_max: Positive = Field(
        1.0, description="range units: upper bound, mean over cells; of a pair, of either side"
    )
    w_min: float = Field(
        -1.0,
        le=0,
        ge=-10,
        description=(
            "range units: lower bound, mean over cells; must be 0 for a pair, whose sides start"
            " there"
        ),
    )
    w_max_dtod: NonNegative = Field(
        0.0,
        description="share of w_max: standard deviation over cells; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )
    w_min_dtod: NonNegative = Field(
        0.0,
        description="share of w_min: standard deviation over cells; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )


class PairParams(Table):
    """[pair] of a one-sided pair."""

    # assumed; IBM's Analog Hardware Acceleration Kit refreshes its phase-change memory at 0.75
    refresh_at: float = Field(
        0.9,
        gt=0,
        le=1,
        description=(
            "share of a side's bound; a pair with a side above it is reset and its difference"
            " programmed again"
        ),
    )
    other_at: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "share of the other side's bound; only if that side is not below it; 0 = in any case"
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> "PairParams":
        # beyond it refresh_at would say nothing: both sides are then past it
        if self.other_at > self.refresh_at:
            raise InputError(
                f"other_at = {self.other_at:g} must be at most refresh_at = {self.refresh_at:g}:"
                " lower it"
            )
        return self


class NoiseParams(Plausible):
    """[noise]"""

    write: NonNegative = Field(
        0.0,
        description="range units: rms of what every write leaves on the apparent weight; 0 = none",
        json_schema_extra=NO_SHARE,
    )


class ProgrammingParams(Table):
    """[programming] to a wanted conductance: error of standard deviation c0 + c1 g + c2 g^2, g =
    G/Gmax (Nandakumar 2020).
    """

    # c2 < 0 as measured; the sum is taken as 0 where it would be negative
    noise_us: Annotated[
        tuple[Number, ...],
        Field(examples=[[0.26, 1.97, -1.17]], strict=False, min_length=3, max_length=3),
    ] = Field(description="uS: [c0, c1, c2]; [0.0, 0.0, 0.0] = exact")
    g_max_us: Positive = Field(
        examples=[25.0], description="uS: the conductance Gmax that stands for w_max"
    )


class FlickerParams(Table):
    """[flicker], 1/f noise of a reading t after programming: G min(q / g^power, q_max)
    sqrt(ln((t + read_s) / (2 read_s))).
    """

    q: NonNegative = Field(
        examples=[0.0088],
        description="relative noise at g = G/Gmax = 1; 0 = none",
        json_schema_extra=NO_SHARE,
    )
    power: NonNegative = Field(
        0.0, le=10, description="how fast it grows at small g; 0 = not at all"
    )
    # without it the noise of a conductance near 0 would be without limit
    q_max: NonNegative = Field(1.0, description="the most it grows to; 0 = no noise at all")
    read_s: Positive = Field(250e-9, description="s: duration of a reading")


class LeakParams(Plausible):
    """[leak]: w decays to `rest` as exp(-t / lifetime_s)."""

    lifetime_s: Positive = Field(
        examples=[1.0],
        description="s: time constant, mean over cells; no table [leak] = no leak",
        json_schema_extra={"ideal": 1e3, "worst": 1e-9},
    )
    lifetime_dtod: NonNegative = Field(
        0.0,
        description="share of lifetime_s: standard deviation over cells; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )
    # within the largest bound that is plausible, either way
    rest: float = Field(
        0.0, ge=-10, le=10, description="range units: where it decays to; 0 = to no weight"
    )


# [lowest, highest]
Pair = Annotated[tuple[NonNegative, ...], Field(strict=False, min_length=2, max_length=2)]


class DriftParams(Plausible):
    """[drift]: G(t) = G(t0) (t/t0)^-nu; nu has mean clip(nu + nu_log ln g) and standard
    deviation clip(nu_std + nu_std_log ln g), g = G/Gmax.
    """

    t0_s: Positive = Field(
        examples=[20.0],
        description="s: time after programming from which it is counted; no drift before it",
    )
    # at g = 1, where the clip may hold: a line through measured exponents can be negative there
    nu: float = Field(
        examples=[0.06],
        ge=-1,
        description="mean exponent over cells, at g = 1; 0 (with nu_log = 0) = no drift",
        json_schema_extra=NO_SHARE,
    )
    nu_log: float = Field(
        0.0, ge=-1, le=1, description="how the mean exponent changes with ln g; 0 = not at all"
    )
    nu_range: Pair = Field((0.0, 1.0), description="clip of that")
    # the same: of phase-change memory -0.0059 before its clip (Nandakumar et al. 2020)
    nu_std: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="standard deviation of the exponent over cells, at g = 1; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )
    nu_std_log: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="how that standard deviation changes with ln g; 0 = not at all",
    )
    nu_std_range: Pair = Field((0.0, 1.0), description="clip of the standard deviation")

    @model_validator(mode="after")
    def _check(self) -> "DriftParams":
        for name in ("nu_range", "nu_std_range"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(
                    f"{name} = {shown([low, high])} must be [lowest, highest]: exchange them"
                )
        return self


class CorruptParams(Plausible):
    """[corrupt] cells, permanently stuck at a value."""

    fraction: NonNegative = Field(
        examples=[0.1],
        description="share of the cells that are stuck; 0 = none",
        json_schema_extra=NO_SHARE,
    )
    # 1: stuck anywhere between the bounds
    range: float = Field(
        0.0,
        ge=0,
        le=1,
        description="they are stuck within this share of the bounds, uniformly; 0 = dead, at w = 0",
    )
