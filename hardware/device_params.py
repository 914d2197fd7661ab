"""A device: its model, the tables that belong to it, and its file."""

import math
import os
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator
from scipy.special import erf

from hardware.config import (
    Among,
    Name,
    Positive,
    Table,
    read_named,
    toml_names,
    validated,
)
from hardware.device_tables import (
    BoundsParams,
    CorruptParams,
    DriftParams,
    ExponentialParams,
    FlickerParams,
    LeakParams,
    LinearParams,
    NoiseParams,
    PairParams,
    ProgrammingParams,
    StepParams,
)
from hardware.pulse_kernel import EXPONENTIAL, LINEAR, NO_PULSES, PAIR
from perturb.errors import InputError

PULSED = ("step", "bounds", "noise", "programming", "flicker", "leak", "drift", "corrupt")


class Model(NamedTuple):
    """How a device takes pulses: tables that it needs, others that it may have, and the law of
    `hardware.pulse_kernel`.
    """

    needs: tuple[str, ...]
    may_have: tuple[str, ...]
    law: int = NO_PULSES


MODELS = {
    "ideal": Model((), ()),
    "digital": Model(("bits",), ("bounds", "corrupt")),
    "constant-step": Model(("step",), PULSED, LINEAR),
    "linear-step": Model(("step", "linear"), PULSED, LINEAR),
    "soft-bounds": Model(("step",), PULSED, LINEAR),
    "exponential-step": Model(("step", "exponential"), PULSED, EXPONENTIAL),
    "one-sided-pair": Model(("step", "exponential"), ("pair", *PULSED), PAIR),
}


class DeviceParams(Table):
    """A device that stores a weight: its model and the tables of it, immutable.

    Attributes
    ----------
    name, description, source : str
        What reports call it, one line, and where the figures come from.
    model : str
        How it takes pulses: a key of `MODELS`, which says what tables belong to it.
    range : float
        Weight of the network that is one range unit of the device.
    bits : int or None
        Of a digital device: 2^bits levels from w_min to below w_max.
    step, bounds, linear, exponential, pair : Table or None
        Pulses: mean change and its noise, what a cell can hold, and the form of f.
    noise, programming, flicker : Table or None
        Noise of writing, of programming to a wanted conductance, and of reading.
    leak, drift, corrupt : Table or None
        How a stored weight decays, and cells that are stuck.

    Raises
    ------
    InputError
        By `load_device`, if a table is missing or does not go with the model.

    Notes
    -----
    A table that is None is ideal. The formulas head `hardware.device`.

    References
    ----------
    Gokmen and Vlasov (2016); Gong et al. (2018); Nandakumar et al. (2020); Rasch et al. (2021).

    Examples
    --------
    >>> import hardware
    >>> device = hardware.load_device("gokmen-vlasov2016")
    >>> device.model, round(device.states)
    ('constant-step', 1250)
    """

    name: Name = Field("ideal", description="what reports call the device")
    description: str = Field("", description="one line")
    source: str = Field("assumed", description="where the figures come from")
    model: Annotated[str, Among(MODELS)] = Field("ideal", description="how it takes pulses")
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
        needed, possible, _ = MODELS[self.model]
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
        """The bounds in range units: those of the table [bounds], else -1..1; of a pair 0..1.

        Returns
        -------
        BoundsParams
        """
        return self.bounds or BoundsParams(w_min=0.0 if self.model == "one-sided-pair" else -1.0)

    @property
    def dw_min(self) -> float:
        """Mean step of a pulse at f = 1, over cells and directions, in units of the network.

        Returns
        -------
        float
            Of a digital weight its last bit; 0 for an ideal one.

        Notes
        -----
        The mean of |dw_d| over cells: range step.dw_min times the mean of a folded normal number,
        which differs from 1 where steps vary so much that some change their sign.
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
        """Number of states.

        Returns
        -------
        float
            (w_max - w_min) / step.dw_min, 2^bits of a digital weight, infinite for an ideal one.

        References
        ----------
        Gokmen and Vlasov (2016).
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
    """The devices that come with the package.

    Returns
    -------
    list of str
        Names for `load_device`, sorted.

    Examples
    --------
    >>> import hardware
    >>> "ecram-tang2018" in hardware.device_names()
    True
    """
    return toml_names(files("hardware") / "devices")


def load_device(
    name_or_path: str | os.PathLike[str], folder: str | os.PathLike[str] = "."
) -> DeviceParams:
    """The parameters of a device, from its TOML file.

    Parameters
    ----------
    name_or_path : str or path
        One of `device_names`, or the path of a file; tables that it leaves out are ideal.
    folder : str or path
        What a relative path starts from.

    Returns
    -------
    DeviceParams

    Raises
    ------
    InputError
        If there is no such device or file, or the file has an unknown key, a value that does not
        fit or a table that does not go with its model: one line that names file, key and condition.

    Examples
    --------
    >>> import hardware
    >>> round(hardware.load_device("ecram-tang2018").dw_min, 4)
    0.002
    """
    data, source, _ = read_named(
        "device", name_or_path, files("hardware") / "devices", device_names(), folder
    )
    return validated(DeviceParams, data, source)
