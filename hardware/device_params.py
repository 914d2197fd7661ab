"""A device: its model, the tables that belong to it, and its file."""

import math
import os
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, create_model, model_validator
from scipy.special import erf

from hardware.config import (
    Among,
    Name,
    Positive,
    Table,
    of_a_file,
    read_named,
    toml_names,
    validated,
)
from hardware.device_laws import LAWS, Law
from hardware.device_tables import (
    BoundsParams,
    CorruptParams,
    DriftParams,
    FlickerParams,
    LeakParams,
    NoiseParams,
    PairParams,
    ProgrammingParams,
    StepParams,
)
from perturb.errors import InputError

OF_CHIPS = ("error_unit", "perturbation", "weights", "bus", "synapse", "clock", "energy", "array")


class _Stepping(Table):
    name: Name = Field("ideal", description="what reports call the device")
    description: str = Field("", description="one line")
    source: str = Field("assumed", description="where the figures come from")
    model: Annotated[str, Among(LAWS)] = Field("ideal", description="how it takes pulses")
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
        json_schema_extra={"ideal": 24, "worst": 1},
    )
    step: StepParams | None = None
    bounds: BoundsParams | None = None


if TYPE_CHECKING:
    _WithLaws = _Stepping
else:  # made of the laws that there are, which a type checker cannot follow
    _tables = {law.key: (law.Params | None, None) for law in LAWS.values() if law.Params}
    _WithLaws = create_model("_WithLaws", __base__=_Stepping, **_tables)


class DeviceParams(_WithLaws):
    """A device that stores a weight: its model and the tables of it, immutable.

    Attributes
    ----------
    name, description, source : str
        What reports call it, one line, and where the figures come from.
    model : str
        How it takes pulses: the name of a law in `LAWS`, which says what tables belong to it.
    range : float
        Weight of the network that is one range unit of the device.
    bits : int or None
        Of a digital device: 2^bits levels from w_min to below w_max.
    step, bounds, pair : Table or None
        Pulses: mean change and its noise, what a cell can hold, when a pair is refreshed.
    linear, exponential, ... : Table or None
        The form of f: a table for each law of `hardware.device_laws` that has parameters.
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

    pair: PairParams | None = None
    noise: NoiseParams | None = None
    programming: ProgrammingParams | None = None
    flicker: FlickerParams | None = None
    leak: LeakParams | None = None
    drift: DriftParams | None = None
    corrupt: CorruptParams | None = None

    @model_validator(mode="after")
    def _check(self) -> "DeviceParams":
        law = self.law
        own = (law.key,) if law.key else ()
        needed = (*law.needs, *own)
        for key in needed:
            if getattr(self, key) is None:
                raise InputError(f'{key} is missing: model = "{self.model}" needs it')
        for key in (
            "bits",
            *(k for k in type(self).model_fields if isinstance(getattr(self, k), Table)),
        ):
            if getattr(self, key) is not None and key not in (*needed, *law.may_have):
                raise InputError(f'{key} does not go with model = "{self.model}": remove it')
        bounds = self.limits
        if law.paired and bounds.w_min != 0:
            raise InputError(
                f'bounds.w_min = {bounds.w_min:g} must be 0 for model = "{self.model}": its sides'
                " start at 0"
            )
        if not law.paired and bounds.w_min == 0:
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
    def law(self) -> type[Law]:
        """How it takes pulses.

        Returns
        -------
        type[Law]
        """
        return LAWS[self.model]

    @property
    def law_table(self) -> Any:
        """The parameters of the law.

        Returns
        -------
        Table or None
            The table of the file that is the law's own, if it has one.
        """
        return getattr(self, self.law.key) if self.law.key else None

    @property
    def limits(self) -> BoundsParams:
        """The bounds in range units: those of the table [bounds], else -1..1; of a pair 0..1.

        Returns
        -------
        BoundsParams
        """
        # what is left out depends on the law: the sides of a pair start at 0
        return self.bounds or BoundsParams(w_min=0.0 if self.law.paired else -1.0)

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
            # w_max itself is no level, as the largest number of a binary word with a sign lies a
            # step below
            return self.range * (self.limits.w_max - self.limits.w_min) / 2**self.bits
        if self.step is None:
            return 0.0
        step = self.step
        # both cells of a pair only step up
        directions = (1.0,) if self.law.paired else (1.0, -1.0)
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


# asked for at every write, and of lognormal steps it is a sum over 20,001 numbers
@lru_cache
def _mean_size(
    dtod: float, lognormal: bool, up_down: float, up_down_dtod: float, directions: tuple[float, ...]
) -> float:
    """Mean of |gain + d (up_down + up_down_dtod xi)| over cells and directions d: given the
    gain, of a folded normal number.
    """
    gain = np.ones(1)
    p = np.ones(1)
    # spreads of gain and asymmetry add as squares
    std = math.hypot(dtod, up_down_dtod)
    if lognormal:
        # over gain = exp(dtod x), x standard normal, by a sum over its density p
        # what lies further out is below rounding
        x = np.linspace(-10, 10, 20_001)
        gain = np.exp(dtod * x)
        p = np.exp(-(x**2) / 2)
        std = up_down_dtod
    mean = np.array([gain + d * up_down for d in directions])
    size = np.abs(mean)
    if std:
        # of N(m, s): s sqrt(2/pi) exp(-m^2/(2 s^2)) + m erf(m/(s sqrt 2))
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
    # tables that a chip alone has: its other keys may be those of a device, too
    if "model" not in data and any(isinstance(data.get(name), dict) for name in OF_CHIPS):
        raise InputError(
            f"{source}: is the file of a chip, not of a device: chip.preset, or perturb new --chip,"
            " takes it"
        )
    return validated(DeviceParams, of_a_file(data, name_or_path), source)
