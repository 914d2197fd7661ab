"""What happens to a stored weight: how a device takes pulses, what it differs by from its
neighbours, and how it forgets.

Functions of arrays, without state of their own: `fabricate` draws the cells of a die once,
`initial` programs weights into them, `pulse` and `write` change what they hold (`hidden`),
`apparent` is what the array then computes with, `age` lets time pass. Fabrication is keyed by (die,
quantity, cell), operation by (seed, update, pulse, cell), both by Philox: no number depends on
order, tiling or batch, and a part of the cells has the numbers of that part of the whole. Weights
are in units of the network.

A pulse in direction d = +-1, in units of the device's range, xi standard normal:

    w := clip(w + d (dw_d f_d(w) + std xi), b_min, b_max), std = noise + c2c_offset + c2c_slope |w|
    noise = c2c dw_d |f_d(w)| multiplicative, c2c dw_d additive
    constant-step        f = 1
    linear-step          f_up = 1 - gamma_up w / w_max,   f_down = 1 - gamma_down w / w_min
    soft-bounds          f_up = 1 - w / b_max,            f_down = 1 - w / b_min
    exponential-step     f_d = max(0, 1 - A_d exp(d gamma_d z)),   z = 2 a w / (b_max - b_min) + b
    one-sided-pair w = g_plus - g_minus; up pulses raise g_plus, down pulses g_minus, each by
    exponential-step from 0

Of cell i: `dw_d = dw_min (1 + dw_min_dtod xi_i + d beta_i)`, `beta_i = up_down + up_down_dtod
xi_i`, `b_max = w_max (1 + w_max_dtod xi_i)`, b_min likewise, `gamma_d + gamma_d_dtod xi_i` of a
linear step, all without regard to their sign (so that the mean of b with a spread of 60 % is 2.4 %
larger). Lognormal: `exp(dw_min_dtod xi_i)` for `1 + dw_min_dtod xi_i`; then dw_min is the median,
and the mean exp(dw_min_dtod^2/2) times as large.

Sources: Gokmen & Vlasov 2016 (constant step, spreads); Gong et al. 2018; Rasch et al. 2021 (the
models in this form, IBM Analog Hardware Acceleration Kit); Nandakumar et al. 2020 (phase-change
memory).
"""

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy.special import erf

from hardware.config import (
    Name,
    NonNegative,
    Number,
    Positive,
    Table,
    read_named,
    toml_names,
    validated,
)
from perturb.compiled import compiled
from perturb.errors import InputError, shown
from perturb.trial.random import (
    FABRICATION,
    PROGRAM,
    PULSE,
    READ,
    ROUNDING,
    WRITE,
    four_normals,
    normals_at,
    uniforms_at,
)

Array = np.ndarray

MAX_CELLS = 2**34  # a block of Philox is 32 bits, and holds two to four cells
MAX_PULSES = 2**24  # of one update: what a phase of Philox can number

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


class Plausible(Table):
    @model_validator(mode="after")
    def _plausible(self) -> "Plausible":
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in PLAUSIBLE and value > PLAUSIBLE[name][0]:
                most, why = PLAUSIBLE[name]
                raise InputError(f"{name} = {shown(value)} must be <= {most:g}: {why}")
        return self


class StepParams(Plausible):
    """[step] of a pulsed device."""

    dw_min: Positive = Field(
        description=(
            "range units: change by one pulse at w = 0 where f is 1, mean over cells and directions"
            " (lognormal: median)"
        )
    )
    dw_min_dtod: NonNegative = Field(
        0.0, description="share of dw_min: its spread from cell to cell; 0 = all cells alike"
    )
    dw_min_distribution: Literal["normal", "lognormal"] = Field(
        "normal",
        description=(
            "of that spread; of a lognormal one dw_min is the median and dw_min_dtod the spread of"
            " ln dw_min"
        ),
    )
    up_down: float = Field(
        0.0,
        gt=-1,
        lt=1,
        description=(
            "asymmetry beta: steps up are 1 + beta, steps down 1 - beta times dw_min; 0 = symmetric"
        ),
    )
    up_down_dtod: NonNegative = Field(
        0.0, description="spread of beta from cell to cell; 0 = all cells alike"
    )
    c2c: NonNegative = Field(
        0.0, description="noise of every pulse, share of the mean step; 0 = all pulses alike"
    )
    c2c_kind: Literal["multiplicative", "additive"] = Field(
        "multiplicative",
        description="the noise shrinks with f as the step does, or is the same everywhere",
    )
    c2c_offset: NonNegative = Field(
        0.0, description="range units: further noise of every pulse, whatever the step; 0 = none"
    )
    c2c_slope: NonNegative = Field(
        0.0,
        description="share of |w|, of a pair the side's: further noise of every pulse; 0 = none",
    )
    max_pulses: int = Field(
        10**6,
        ge=1,
        le=10**6,
        description="pulses that one write may give to a cell; more are not given",
    )


class BoundsParams(Plausible):
    """[bounds] of what a cell can hold."""

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
        0.0, description="share of w_max: its spread from cell to cell; 0 = all cells alike"
    )
    w_min_dtod: NonNegative = Field(
        0.0, description="share of w_min: its spread from cell to cell; 0 = all cells alike"
    )


class LinearParams(Plausible):
    """[linear] of a linear-step device."""

    gamma_up: NonNegative = Field(
        0.0,
        le=10,
        description="share of the step up that is lost at w = w_max; 0 = constant, 1 = soft bound",
    )
    gamma_down: NonNegative = Field(
        0.0, le=10, description="share of the step down that is lost at w = w_min; 0 = constant"
    )
    gamma_up_dtod: NonNegative = Field(
        0.0,
        le=10,
        description="spread of gamma_up from cell to cell, not relative to it; 0 = all cells alike",
    )
    gamma_down_dtod: NonNegative = Field(
        0.0, le=10, description="the same of gamma_down; 0 = all cells alike"
    )


class ExponentialParams(Table):
    """[exponential] of an exponential-step device or a one-sided pair: f_d = max(0, 1 - A_d
    exp(d gamma_d z)).
    """

    a: float = Field(
        ge=-100,
        le=100,
        description="slope in z = 2 a w / (b_max - b_min) + b; 0 = f does not depend on w",
    )
    b: float = Field(0.0, ge=-100, le=100, description="offset in z; 0 = none")
    A_up: float = Field(
        ge=-1e6,
        le=1e6,
        description="weight of the exponential in steps up; 0 = constant step, negative = larger",
    )
    A_down: float = Field(
        0.0, ge=-1e6, le=1e6, description="the same in steps down; unused by a pair"
    )
    gamma_up: NonNegative = Field(
        le=100, description="exponent of steps up; 0 = f does not depend on w"
    )
    gamma_down: NonNegative = Field(
        0.0, le=100, description="exponent of steps down; unused by a pair"
    )


class PairParams(Table):
    """[pair] of a one-sided pair."""

    refresh_at: float = Field(
        0.9,
        gt=0,
        le=1,
        description=(
            "share of a side's bound; a pair with a side above it is reset and its difference"
            " programmed anew"
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
    )


class ProgrammingParams(Table):
    """[programming] to a wanted conductance: error of standard deviation c0 + c1 g + c2 g^2, g =
    G/Gmax (Nandakumar 2020).
    """

    noise_us: Annotated[tuple[Number, ...], Field(strict=False, min_length=3, max_length=3)] = (
        Field(description="uS: [c0, c1, c2]; [0.0, 0.0, 0.0] = exact")
    )
    g_max_us: Positive = Field(description="uS: the conductance Gmax that stands for w_max")


class FlickerParams(Table):
    """[flicker], 1/f noise of a reading t after programming: G min(q / g^power, q_max)
    sqrt(ln((t + read_s) / (2 read_s))).
    """

    q: NonNegative = Field(description="relative noise at g = G/Gmax = 1; 0 = none")
    power: NonNegative = Field(
        0.0, le=10, description="how fast it grows at small g; 0 = not at all"
    )
    q_max: NonNegative = Field(1.0, description="the most it grows to; 0 = no noise at all")
    read_s: Positive = Field(250e-9, description="s: duration of a reading")


class LeakParams(Plausible):
    """[leak]: w decays to `rest` as exp(-t / lifetime_s)."""

    lifetime_s: Positive = Field(
        description="s: time constant, mean over cells; no table [leak] = no leak"
    )
    lifetime_dtod: NonNegative = Field(
        0.0, description="share of lifetime_s: its spread from cell to cell; 0 = all cells alike"
    )
    rest: float = Field(
        0.0, ge=-10, le=10, description="range units: where it decays to; 0 = to no weight"
    )


Pair = Annotated[tuple[NonNegative, ...], Field(strict=False, min_length=2, max_length=2)]


class DriftParams(Plausible):
    """[drift]: G(t) = G(t0) (t/t0)^-nu; nu has mean clip(nu + nu_log ln g), spread clip(nu_std +
    nu_std_log ln g), g = G/Gmax.
    """

    t0_s: Positive = Field(
        description="s: time after programming from which it is counted; no drift before it"
    )
    nu: float = Field(
        ge=-1, description="mean exponent over cells, at g = 1; 0 (with nu_log = 0) = no drift"
    )
    nu_log: float = Field(
        0.0, ge=-1, le=1, description="how the mean exponent changes with ln g; 0 = not at all"
    )
    nu_range: Pair = Field((0.0, 1.0), description="clip of that")
    nu_std: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="spread of the exponent from cell to cell, at g = 1; 0 = all cells alike",
    )
    nu_std_log: float = Field(
        0.0, ge=-1, le=1, description="how that spread changes with ln g; 0 = not at all"
    )
    nu_std_range: Pair = Field((0.0, 1.0), description="clip of the spread")

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
    """[corrupt] cells, stuck at a value for good."""

    fraction: NonNegative = Field(description="share of the cells that are stuck; 0 = none")
    range: float = Field(
        0.0,
        ge=0,
        le=1,
        description="they are stuck within this share of the bounds, uniformly; 0 = dead, at w = 0",
    )


# model: its own tables, the first ones needed
PULSED = ("step", "bounds", "noise", "programming", "flicker", "leak", "drift", "corrupt")
Model = Literal[
    "ideal",
    "digital",
    "constant-step",
    "linear-step",
    "soft-bounds",
    "exponential-step",
    "one-sided-pair",
]
MODELS: dict[Model, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ideal": ((), ()),
    "digital": (("bits",), ("bounds", "corrupt")),
    "constant-step": (("step",), PULSED),
    "linear-step": (("step", "linear"), PULSED),
    "soft-bounds": (("step",), PULSED),
    "exponential-step": (("step", "exponential"), PULSED),
    "one-sided-pair": (("step", "exponential"), ("pair", *PULSED)),
}
LINEAR, EXPONENTIAL, PAIR = (
    0,
    1,
    2,
)  # kinds of the kernel: a constant step and soft bounds are linear in w, too
KINDS = {
    "constant-step": LINEAR,
    "linear-step": LINEAR,
    "soft-bounds": LINEAR,
    "exponential-step": EXPONENTIAL,
    "one-sided-pair": PAIR,
}


class DeviceParams(Table):
    """A device that stores a weight. What a table leaves out is ideal; the models' formulas head
    this module.
    """

    name: Name = Field("ideal", description="what reports call the device")
    description: str = Field("", description="one line")
    source: str = Field("assumed", description="where the figures come from")
    model: Model = Field("ideal", description="how it takes pulses")
    range: Positive = Field(
        1.0,
        le=1e6,
        description="weight of the network that is one range unit of the device; 1 = the same",
    )
    bits: int | None = Field(
        None,
        ge=1,
        le=24,
        description="digital: bits stored, 2^bits levels from w_min to below w_max",
    )
    step: StepParams | None = None
    bounds: BoundsParams | None = None
    linear: LinearParams | None = None
    exponential: ExponentialParams | None = None
    pair: PairParams | None = None
    noise: NoiseParams | None = None
    programming: ProgrammingParams | None = None
    flicker: FlickerParams | None = None
    leak: LeakParams | None = None
    drift: DriftParams | None = None
    corrupt: CorruptParams | None = None

    @model_validator(mode="after")
    def _check(self) -> "DeviceParams":
        needed, possible = MODELS[self.model]
        for key in needed:
            if getattr(self, key) is None:
                raise InputError(f'{key} is missing: model = "{self.model}" needs it')
        for key in (
            "bits",
            *(k for k in type(self).model_fields if isinstance(getattr(self, k), Table)),
        ):
            if getattr(self, key) is not None and key not in (*needed, *possible):
                raise InputError(f'{key} does not go with model = "{self.model}": remove it')
        bounds = self.limits
        if self.model == "one-sided-pair" and bounds.w_min != 0:
            raise InputError(
                f'bounds.w_min = {bounds.w_min:g} must be 0 for model = "one-sided-pair": its sides'
                " start at 0"
            )
        if self.model != "one-sided-pair" and bounds.w_min == 0:
            raise InputError(
                f'bounds.w_min = 0 must be < 0 for model = "{self.model}": a weight has both signs'
            )
        if self.step and self.step.dw_min > (bounds.w_max - bounds.w_min) / 2:
            raise InputError(
                f"step.dw_min = {self.step.dw_min:g} must be at most half of the range,"
                f" {(bounds.w_max - bounds.w_min) / 2:g}: one pulse would cross it"
            )
        return self

    @property
    def limits(self) -> BoundsParams:
        """The bounds, or those that stand if there is no table [bounds]."""
        return self.bounds or BoundsParams(w_min=0.0 if self.model == "one-sided-pair" else -1.0)

    @property
    def dw_min(self) -> float:
        """Mean step of a pulse at f = 1, over cells and directions, in units of the network; of a
        digital weight its last bit; 0 for an ideal one. Of a normal spread it is range step.dw_min,
        but for the cells whose sign is dropped.
        """
        if self.bits is not None:
            return self.range * (self.limits.w_max - self.limits.w_min) / 2**self.bits
        if self.step is None:
            return 0.0
        step = self.step
        directions = (1.0,) if self.model == "one-sided-pair" else (1.0, -1.0)
        lognormal = step.dw_min_distribution == "lognormal"
        return (
            self.range
            * step.dw_min
            * _mean_size(step.dw_min_dtod, lognormal, step.up_down, step.up_down_dtod, directions)
        )

    @property
    def states(self) -> float:
        """Number of states, (w_max - w_min) / step.dw_min (Gokmen & Vlasov 2016); infinite for
        an ideal weight.
        """
        if self.bits is not None:
            return 2.0**self.bits
        return (self.limits.w_max - self.limits.w_min) / self.step.dw_min if self.step else np.inf


@lru_cache
def _mean_size(
    dtod: float, lognormal: bool, up_down: float, up_down_dtod: float, directions: tuple[float, ...]
) -> float:
    """Mean of |gain + d (up_down + up_down_dtod xi)| over cells and directions d: given the
    gain, of a folded normal number.
    """
    gain = np.ones(1)
    p = np.ones(1)
    std = math.hypot(dtod, up_down_dtod)
    if lognormal:
        x = np.linspace(-10, 10, 20_001)
        gain = np.exp(dtod * x)
        p = np.exp(-(x**2) / 2)
        std = up_down_dtod
    mean = np.array([gain + d * up_down for d in directions])
    size = np.abs(mean)
    if std:
        size = std * math.sqrt(2 / math.pi) * np.exp(-((mean / std) ** 2) / 2) + mean * erf(
            mean / (std * math.sqrt(2))
        )
    return float((size * p).sum() / (len(directions) * p.sum()))


def device_names() -> list[str]:
    """The devices that come with the package."""
    return toml_names(files("hardware") / "devices")


def load_device(
    name_or_path: str | os.PathLike[str], folder: str | os.PathLike[str] = "."
) -> DeviceParams:
    """The device of that name, or of the TOML file at that path (relative to `folder`). What a file
    leaves out is ideal.

    A file that cannot be used raises InputError.
    """
    data, source, _ = read_named(
        "device", name_or_path, files("hardware") / "devices", device_names(), folder
    )
    return validated(DeviceParams, data, source)


# ---- fabrication


@dataclass(frozen=True)
class Cells:
    """The cells start..stop-1 of a die, arrays (n,) in units of the network. Of a pair, up is
    g_plus and down is g_minus.

    dw_up, dw_down: mean step at f = 1. b_max, b_min: bounds; of a pair, g_plus <= b_max and g_minus
    <= -b_min. slope_up, slope_down: f = 1 - slope w of the linear models. nu_xi (2, n): standard
    normal, the cell's place in the spread of drift exponents (second row: of g_minus). lifetime_s:
    of the leak, inf without. stuck: whether it is; stuck_at: where.
    """

    params: DeviceParams
    start: int
    dw_up: Array
    dw_down: Array
    b_max: Array
    b_min: Array
    slope_up: Array
    slope_down: Array
    nu_xi: Array
    lifetime_s: Array
    stuck: Array
    stuck_at: Array

    @property
    def n(self) -> int:
        return self.dw_up.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `hidden`: (n,), or (2, n) for a pair: g_plus, g_minus."""
        return (2, self.n) if self.params.model == "one-sided-pair" else (self.n,)


# quantities of fabrication; the second number is of g_minus, where a pair has its own
GAIN, BETA, B_MAX, B_MIN, GAMMA_UP, GAMMA_DOWN, NU, LIFETIME, STUCK, STUCK_AT = (
    (2 * i, 2 * i + 1) for i in range(10)
)


def fabricate(
    params: DeviceParams, n: int, die: int, start: int = 0, stop: int | None = None
) -> Cells:
    """Draw cells start..stop-1 of the n of a die (stop: n if left out), once and for all.

    The same die has the same cells; `fabricate(params, n, die, a, b)` are those of the whole from a
    to b. Formulas: head of this module. A count or seed that cannot be used raises InputError.
    """
    stop = n if stop is None else stop
    if not (isinstance(n, (int, np.integer)) and 1 <= n <= MAX_CELLS):
        raise InputError(f"n = {n!r} must be a whole number of cells in 1..{MAX_CELLS}")
    if not 0 <= start < stop <= n:
        raise InputError(f"start = {start!r}, stop = {stop!r} must be 0 <= start < stop <= n = {n}")
    key = _seed("die", die)

    def xi(quantity: int) -> Array:
        out = np.empty(stop - start)
        normals_at(key, FABRICATION, np.zeros(stop - start, np.int64), quantity, start, out)
        return out

    def uniform(quantity: int) -> Array:
        out = np.empty(stop - start)
        uniforms_at(key, FABRICATION, 0, quantity, start, out)
        return out

    bounds = params.limits
    scale = params.range
    pair = params.model == "one-sided-pair"
    ones = np.ones(stop - start)

    def steps(direction: int, side: int) -> Array:
        step = params.step
        if step is None:
            return params.dw_min * ones
        lognormal = step.dw_min_distribution == "lognormal"
        gain = (
            np.exp(step.dw_min_dtod * xi(GAIN[side]))
            if lognormal
            else 1 + step.dw_min_dtod * xi(GAIN[side])
        )
        return (
            scale
            * step.dw_min
            * np.abs(gain + direction * (step.up_down + step.up_down_dtod * xi(BETA[side])))
        )

    dw_up, dw_down = (steps(1, 0), steps(1, 1)) if pair else (steps(1, 0), steps(-1, 0))
    b_max = scale * bounds.w_max * np.abs(1 + bounds.w_max_dtod * xi(B_MAX[0]))
    if pair:
        b_min = -scale * bounds.w_max * np.abs(1 + bounds.w_max_dtod * xi(B_MAX[1]))
    else:
        b_min = scale * bounds.w_min * np.abs(1 + bounds.w_min_dtod * xi(B_MIN[0]))

    slope_up = 0 * ones
    slope_down = 0 * ones
    if params.linear:
        # relative to the mean bounds: a cell's slope does not depend on where it happens to end
        linear = params.linear
        slope_up = np.abs(linear.gamma_up + linear.gamma_up_dtod * xi(GAMMA_UP[0])) / (
            scale * bounds.w_max
        )
        slope_down = np.abs(linear.gamma_down + linear.gamma_down_dtod * xi(GAMMA_DOWN[0])) / (
            scale * bounds.w_min
        )
    elif params.model == "soft-bounds":
        slope_up = 1 / b_max
        slope_down = 1 / b_min

    leak = params.leak
    corrupt = params.corrupt
    lifetime_s = (
        leak.lifetime_s * np.abs(1 + leak.lifetime_dtod * xi(LIFETIME[0]))
        if leak
        else np.inf * ones
    )
    nu_xi = np.array([xi(NU[0]), xi(NU[1])]) if params.drift else np.zeros((2, stop - start))
    stuck = np.zeros(stop - start, bool)
    stuck_at = 0 * ones
    if corrupt:
        low = -bounds.w_max if pair else bounds.w_min
        stuck = uniform(STUCK[0]) < corrupt.fraction
        stuck_at = scale * corrupt.range * (low + (bounds.w_max - low) * uniform(STUCK_AT[0]))
    return Cells(
        params,
        int(start),
        dw_up,
        dw_down,
        b_max,
        b_min,
        slope_up,
        slope_down,
        nu_xi,
        lifetime_s,
        stuck,
        stuck_at,
    )


# ---- operation


def initial(cells: Cells, w: Array, seed: int, update: int = 0) -> Array:
    """Program the weights w (n,) into the cells; returns `hidden`, of shape `cells.shape`.

    A weight beyond a cell's bounds becomes the bound, a digital one the nearest level, a stuck cell
    stays where it is. A pair is reset and the sign decides which side holds |w|. With a table
    [programming] every conductance misses by its noise, keyed by (seed, update). InputError for
    weights of another shape or not finite.
    """
    params = cells.params
    w = _checked(cells, "w", w, (cells.n,))
    if params.model == "ideal":
        return w.copy()
    if params.model == "digital":
        return _digital(cells, w, np.zeros(cells.n))
    sides = [np.maximum(w, 0), np.maximum(-w, 0)] if params.model == "one-sided-pair" else [w]
    low, high = _limits(cells)
    hidden = np.array([np.clip(g, low[row], high[row]) for row, g in enumerate(sides)])
    if params.programming:
        c0, c1, c2 = params.programming.noise_us
        for row, side in enumerate(hidden):
            g = np.abs(side) / (params.range * params.limits.w_max)
            std = (
                np.maximum(c0 + c1 * g + c2 * g**2, 0)
                / params.programming.g_max_us
                * params.range
                * params.limits.w_max
            )
            hidden[row] = np.clip(
                side + std * _normals(cells, PROGRAM, seed, update, row), low[row], high[row]
            )
    return _stuck(cells, hidden.reshape(cells.shape))


def pulse(
    cells: Cells, hidden: Array, pulses: Array, seed: int, update: int, first: int = 0
) -> Array:
    """Give cell i |pulses_i| pulses, up if pulses_i > 0, down if < 0; returns the new hidden
    weights.

    pulses: whole numbers, (n,) or one for all. Formulas: head of this module. The noise of a pulse
    is keyed by (seed, update, number of the pulse within the update), which counts from `first`:
    pulses given one by one, first = 0, 1, 2, ..., leave the same numbers as all at once. A digital
    weight moves by one level per pulse, an ideal one has no pulses (InputError).
    """
    params = cells.params
    hidden = _checked(cells, "hidden", hidden, cells.shape)
    counts = np.asarray(pulses)
    if counts.dtype.kind not in "iu" or counts.shape not in ((), (cells.n,)):
        raise InputError(f"pulses must be whole numbers, one or {cells.n} of them")
    counts = np.ascontiguousarray(np.broadcast_to(counts, cells.n), dtype=np.int64)
    if not 0 <= first <= MAX_PULSES - np.abs(counts).max():
        last = first + np.abs(counts).max()
        raise InputError(
            f"pulses {first}..{last} of one update must lie in 0..{MAX_PULSES}: use further updates"
        )
    if params.model == "ideal":
        raise InputError('model = "ideal" has no pulses: use write')
    if params.model == "digital":
        return _digital(cells, hidden, counts)
    assert params.step
    low, high = _limits(cells)
    exponential = params.exponential or ExponentialParams(a=0.0, A_up=0.0, gamma_up=0.0)
    rows = np.atleast_2d(hidden).copy()
    _pulses(
        KINDS[params.model],
        rows,
        counts,
        cells.dw_up,
        cells.dw_down,
        low,
        high,
        cells.slope_up,
        cells.slope_down,
        (
            exponential.a,
            exponential.b,
            exponential.A_up,
            exponential.A_down,
            exponential.gamma_up,
            exponential.gamma_down,
        ),
        (params.step.c2c, params.range * params.step.c2c_offset, params.step.c2c_slope),
        params.step.c2c_kind == "additive",
        _seed("seed", seed),
        _count("update", update),
        first,
        cells.start,
    )
    return _stuck(cells, rows.reshape(cells.shape))


def write(
    cells: Cells,
    hidden: Array,
    wanted_change: Array,
    seed: int,
    update: int,
    rounding: Literal["stochastic", "nearest"] = "stochastic",
) -> Array:
    """Change the weights by about `wanted_change` (n,), in whole pulses; returns the new hidden
    weights.

    Pulses: |wanted change| / dw_min, rounded up with the probability of its fraction ("stochastic":
    right in the mean) or to the nearest number, at most step.max_pulses. The controller knows
    dw_min of the device, not that of the cell, its asymmetry or its state. A pair that has passed
    pair.refresh_at is refreshed. An ideal weight takes the change as it is. InputError for changes
    of another shape or not finite, or another rounding.
    """
    return write_cells(cells, hidden, wanted_change, seed, update, rounding)[0]


def write_cells(
    cells: Cells,
    hidden: Array,
    wanted_change: Array,
    seed: int,
    update: int,
    rounding: Literal["stochastic", "nearest"] = "stochastic",
) -> tuple[Array, Array]:
    """As `write`; and which cells it has written, of the shape of hidden: those that got a pulse or
    were refreshed, moved or not. All others are as they were.
    """
    params = cells.params
    change = _checked(cells, "wanted_change", wanted_change, (cells.n,))
    if rounding not in ("stochastic", "nearest"):
        raise InputError(f"rounding = {rounding!r} must be stochastic or nearest")
    if params.model == "ideal":
        return _checked(cells, "hidden", hidden, cells.shape) + change, change != 0
    offset = np.full(cells.n, 0.5)
    if rounding == "stochastic":
        uniforms_at(_seed("seed", seed), ROUNDING, _count("update", update), 0, cells.start, offset)
    most = params.step.max_pulses if params.step else 2**24
    counts = np.minimum(np.floor(np.abs(change) / params.dw_min + offset), most)
    pulses = (np.sign(change) * counts).astype(np.int64)
    hidden = pulse(cells, hidden, pulses, seed, update)
    if params.model != "one-sided-pair":
        return hidden, pulses != 0
    passed = _passed(cells, hidden)
    return refresh(cells, hidden, seed, update), np.array([pulses > 0, pulses < 0]) | passed


def refresh(cells: Cells, hidden: Array, seed: int, update: int) -> Array:
    """Reset pairs of which a side has passed pair.refresh_at of its bound, and the other
    pair.other_at, and program their difference anew.

    hidden (2, n). The difference is read without noise; programming has that of the table
    [programming]. InputError for a device that is no pair.
    """
    if cells.params.model != "one-sided-pair":
        raise InputError(
            f'model = "{cells.params.model}" has nothing to refresh: only a one-sided-pair has'
        )
    hidden = _checked(cells, "hidden", hidden, cells.shape)
    passed = _passed(cells, hidden)
    return (
        np.where(passed, initial(cells, hidden[0] - hidden[1], seed, update), hidden)
        if passed.any()
        else hidden
    )


def _passed(cells: Cells, hidden: Array) -> Array:
    """Which pairs are due for a refresh, (n,)."""
    pair = cells.params.pair or PairParams()
    high = _limits(cells)[1]
    return np.asarray(
        (hidden > pair.refresh_at * high).any(0) & (hidden >= pair.other_at * high).all(0)
    )


def apparent(
    cells: Cells,
    hidden: Array,
    seed: int,
    update: int | Array,
    read: int = 0,
    elapsed_s: float | Array = 0.0,
) -> Array:
    """The weights w (n,) that the array computes with: hidden + write noise + 1/f noise of this
    reading.

    Write noise, which stuck cells have, too, has standard deviation noise.write and is keyed by
    (seed, update): update (n,), the number of each cell's last write, leaves it as it is until the
    cell is written again. The 1/f noise of a table [flicker] is keyed by (seed, update, read) and
    grows with the time elapsed_s since programming: one number, (n,) or, for either side of a pair,
    (2, n). A pair is g_plus - g_minus.
    """
    params = cells.params
    hidden = _checked(cells, "hidden", hidden, cells.shape)
    rows = np.atleast_2d(hidden)
    w = rows[0] - rows[1] if params.model == "one-sided-pair" else rows[0].copy()
    if params.noise and params.noise.write:
        w += params.range * params.noise.write * _normals(cells, WRITE, seed, update, 0)
    if params.flicker and params.flicker.q:
        flicker = params.flicker
        t = _time("elapsed_s", elapsed_s)
        growth = np.log(np.maximum((t + flicker.read_s) / (2 * flicker.read_s), 1.0))
        g = np.abs(rows) / (params.range * params.limits.w_max)
        with np.errstate(divide="ignore"):
            q = np.minimum(flicker.q / g**flicker.power, flicker.q_max)
        w += np.sqrt(((rows * q) ** 2 * growth).sum(0)) * _normals(
            cells, READ, seed, update, _count("read", read, MAX_PULSES)
        )
    return w


def age(
    cells: Cells, hidden: Array, elapsed_s: float | Array, since_s: float | Array = 0.0
) -> Array:
    """Let `elapsed_s` seconds pass, one number, (n,) or the shape of hidden: leak and drift;
    returns the new hidden weights.

        leak     w := rest + (w - rest) exp(-elapsed / lifetime_i)
        drift G := G (max(t0, since + elapsed) / max(t0, since))^-nu_i, nu_i = max(0, mean(g) +
        std(g) xi_i), g = G/Gmax

    since_s: how long ago the cell was programmed; a power law, unlike a leak, has to know. Time is
    what counts, not the number of calls: ageing twice is ageing once by the sum (for drift with the
    later since_s, and where nu depends on g only nearly, as g is that of `hidden`). Stuck cells do
    not age. InputError for a negative time.
    """
    params = cells.params
    hidden = _checked(cells, "hidden", hidden, cells.shape)
    elapsed = _time("elapsed_s", elapsed_s)
    since = _time("since_s", since_s)
    given = np.atleast_2d(hidden)
    rows = given.copy()
    if params.leak:
        rest = params.range * params.leak.rest
        rows = rest + (rows - rest) * np.exp(-elapsed / cells.lifetime_s)
    if params.drift:
        drift = params.drift
        stretch = np.maximum(drift.t0_s, since + elapsed) / np.maximum(drift.t0_s, since)
        with np.errstate(divide="ignore"):
            ln_g = np.log(np.abs(given) / (params.range * params.limits.w_max))
        ln_g = np.maximum(ln_g, -100.0)  # a cell at 0 stays there, whatever its exponent
        mean = np.clip(drift.nu + drift.nu_log * ln_g, drift.nu_range[0], drift.nu_range[1])
        std = np.clip(
            drift.nu_std + drift.nu_std_log * ln_g, drift.nu_std_range[0], drift.nu_std_range[1]
        )
        rows = rows * stretch ** -np.maximum(mean + std * cells.nu_xi[: len(rows)], 0.0)
    return _stuck(cells, rows.reshape(cells.shape))


# ---- the pulse kernel


@compiled()
def _pulses(
    kind,
    rows,
    counts,
    dw_up,
    dw_down,
    low,
    high,
    slope_up,
    slope_down,
    exponential,
    noises,
    additive,
    seed,
    update,
    first,
    start,
):
    # four cells share the words of Philox, so they take their pulses together
    a, b, A_up, A_down, gamma_up, gamma_down = exponential
    c2c, offset, slope = noises
    noisy = c2c > 0.0 or offset > 0.0 or slope > 0.0
    n = counts.size
    i = 0
    while i < n:
        block = (start + i) // 4
        end = min(n, 4 * (block + 1) - start)
        most = 0
        for j in range(i, end):
            most = max(most, abs(counts[j]))
        for number in range(most):
            xi = (0.0, 0.0, 0.0, 0.0)
            if noisy:
                xi = four_normals(seed, update, block, PULSE, first + number)
            for j in range(i, end):
                if number >= abs(counts[j]):
                    continue
                up = counts[j] > 0
                side = 1 if kind == PAIR and not up else 0
                d = 1.0 if up or kind == PAIR else -1.0
                w = rows[side, j]
                dw = dw_up[j] if up else dw_down[j]
                if kind == LINEAR:
                    f = 1.0 - (slope_up[j] if up else slope_down[j]) * w
                else:
                    z = 2.0 * a * w / (high[side, j] - low[side, j]) + b
                    A, gamma = (A_up, gamma_up) if d > 0.0 else (A_down, gamma_down)
                    f = max(0.0, 1.0 - A * np.exp(d * gamma * z))
                noise = c2c * xi[(start + j) % 4]
                change = dw * (f + noise if additive else f * (1.0 + noise))
                if offset > 0.0 or slope > 0.0:  # of the sign of the noise above
                    own = xi[(start + j) % 4] if additive or f >= 0.0 else -xi[(start + j) % 4]
                    change += (offset + slope * abs(w)) * own
                rows[side, j] = min(max(w + d * change, low[side, j]), high[side, j])
        i = end


def _digital(cells: Cells, w: Array, levels: Array) -> Array:
    """The level nearest to w, `levels` further up, within the 2^bits there are: exact, however
    often.
    """
    params = cells.params
    bits = params.bits or 0
    lowest = params.range * params.limits.w_min
    number = np.clip(np.rint((w - lowest) / params.dw_min) + levels, 0, 2**bits - 1)
    return _stuck(cells, lowest + number * params.dw_min)


def _limits(cells: Cells) -> tuple[Array, Array]:
    """(lowest, highest) of every row of hidden."""
    if cells.params.model == "one-sided-pair":
        return np.zeros((2, cells.n)), np.array([cells.b_max, -cells.b_min])
    return cells.b_min[None], cells.b_max[None]


def _stuck(cells: Cells, hidden: Array) -> Array:
    if not cells.stuck.any():
        return hidden
    at = cells.stuck_at
    sides = np.array([np.maximum(at, 0), np.maximum(-at, 0)]) if hidden.ndim == 2 else at
    return np.where(cells.stuck, sides, hidden)


def _normals(cells: Cells, stream: int, seed: int, update: int | Array, phase: int) -> Array:
    out = np.empty(cells.n)
    updates = np.asarray(update)
    if updates.dtype.kind not in "iu" or updates.shape not in ((), (cells.n,)) or updates.min() < 0:
        raise InputError(f"update must be whole numbers >= 0, one or {cells.n} of them")
    updates = np.ascontiguousarray(np.broadcast_to(updates, cells.n), dtype=np.int64)
    normals_at(_seed("seed", seed), stream, updates, phase, cells.start, out)
    return out


def _checked(cells: Cells, name: str, values: Array, shape: tuple[int, ...]) -> Array:
    values = np.asarray(values, dtype=float)
    if values.shape != shape:
        raise InputError(f"{name} has shape {values.shape} but these cells need {shape}")
    if not np.isfinite(values).all():
        raise InputError(
            f"{name}[{int(np.flatnonzero(~np.isfinite(values))[0])}] must be a finite number"
        )
    return values


def _time(name: str, seconds: float | Array) -> Array:
    t = np.asarray(seconds, dtype=float)
    if not (np.isfinite(t).all() and (t >= 0).all()):
        raise InputError(f"{name} must be a finite number of seconds >= 0")
    return t


def _seed(name: str, value: int) -> np.uint64:
    if not (isinstance(value, (int, np.integer)) and 0 <= value < 2**64):
        raise InputError(f"{name} = {value!r} must be a whole number in 0..2^64-1")
    return np.uint64(value)


def _count(name: str, value: int, most: int = 2**62) -> int:
    if not (isinstance(value, (int, np.integer)) and 0 <= value < most):
        raise InputError(f"{name} = {value!r} must be a whole number in 0..{most - 1}")
    return int(value)
