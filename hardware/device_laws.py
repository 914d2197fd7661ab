"""Device laws, a class each: how the change by a pulse depends on the weight.

A pulse in direction d = +-1 changes the weight of a cell, in the mean, by d dw_d f_d(w). A law is
f: `step`, beside the parameters that it reads. Its class is all that there is to write: it enters
`LAWS` when it is defined, and its table of a device file, messages, templates, spreads from cell to
cell, the compiled kernel of pulses, symmetry points and a fit to measured pulses follow.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from hardware.config import NonNegative, Table
from hardware.device_tables import NO_SHARE, Plausible

Array = np.ndarray
Numbers = Mapping[str, Any]  # of cells, by name: of all cells, or (n,) of each

LAWS: dict[str, type["Law"]] = {}
PULSED = ("step", "bounds", "noise", "programming", "flicker", "leak", "drift", "corrupt")
MAX_NODES = 63  # of a table of steps, as many as aihwkit takes


class Ends(NamedTuple):
    """Bounds in units of the network: mean ones, and those of the cells (n,)."""

    w_min: float
    w_max: float
    b_min: Array
    b_max: Array


class Law:
    """How a device takes pulses; `class Mine(Law, model="mine")` is one more.

    Attributes
    ----------
    model
        What a device file calls it.
    key, Params
        Name and class of its table in a device file, if it has one. Beside a number `x`, a field
        `x_dtod` is the standard deviation of x over cells.
    needs, may_have
        Tables that go with the model, besides its own.
    paired
        Whether a weight is the difference of two cells, which pulses only raise.
    balanced
        Whether steps up and down are alike at some weight, the symmetry point.
    vanishing
        Whether steps vanish at the bounds, which a fit then finds where no reading is.
    """

    model: ClassVar[str]
    key: ClassVar[str] = ""
    Params: ClassVar[type[Table] | None] = None
    needs: ClassVar[tuple[str, ...]] = ("step",)
    may_have: ClassVar[tuple[str, ...]] = PULSED
    paired: ClassVar[bool] = False
    balanced: ClassVar[bool] = True
    vanishing: ClassVar[bool] = False

    def __init_subclass__(cls, model: str):
        cls.model = model
        LAWS[model] = cls

    @staticmethod
    def step(w: float, d: float, own: Any, low: float, high: float) -> float:
        """f_d(w) of a cell with bounds low and high, compiled; `own.x` is its number x.

        f is the same if all weights and bounds, which are in units of the network, are scaled.
        """
        raise NotImplementedError

    @classmethod
    def numbers(cls, table: Numbers, ends: Ends) -> Numbers:
        """What `step` reads of a cell: the table, those with a spread drawn, without their sign."""
        return table


def law_numbers(
    law: type[Law], table: Table | None, ends: Ends, xi: Callable[[int], Array]
) -> Array:
    """A record for each cell of what `law.step` reads; xi(k): normal numbers of its k-th spread."""
    spreads = dict(table) if table else {}
    drawn = [name for name in spreads if f"{name}_dtod" in spreads]
    # x_dtod is absolute, not relative to x
    for k, name in enumerate(drawn):
        spreads[name] = np.abs(spreads[name] + spreads.pop(f"{name}_dtod") * xi(k))
    return records(law.numbers(spreads, ends), ends.b_max.size)


def records(numbers: Numbers, n: int) -> Array:
    """n records with these numbers; a single one, repeated, where cells do not differ."""
    # where cells are alike one record serves all of them
    differ = any(isinstance(value, np.ndarray) for value in numbers.values())
    fields: list[Any] = [
        (name, float, (len(value),) if isinstance(value, tuple) else ())
        for name, value in numbers.items()
    ]
    # a record needs a field, though nobody reads it
    made = np.zeros(n if differ else 1, fields or [("none", float)])
    for name, value in numbers.items():
        made[name] = value
    return made if differ else np.broadcast_to(made, n)


class Ideal(Law, model="ideal"):
    """Any value, written exactly."""

    needs = ()
    may_have = ()
    balanced = False


class Digital(Law, model="digital"):
    """The nearest of 2^bits levels; a pulse is one level."""

    needs = ("bits",)
    # what stores bits has no leak, drift or noise of its own
    may_have = ("bounds", "corrupt")
    balanced = False


class ConstantStep(Law, model="constant-step"):
    """f = 1"""

    balanced = False

    @staticmethod
    def step(w, d, own, low, high):
        return 1.0


class LinearParams(Plausible):
    """[linear] of a linear-step device."""

    gamma_up: NonNegative = Field(
        0.0,
        le=10,
        description="share of the step up that is lost at w = w_max; 0 = constant, 1 = soft bound",
        json_schema_extra=NO_SHARE,
    )
    gamma_down: NonNegative = Field(
        0.0,
        le=10,
        description="share of the step down that is lost at w = w_min; 0 = constant",
        json_schema_extra=NO_SHARE,
    )
    gamma_up_dtod: NonNegative = Field(
        0.0,
        le=10,
        description=(
            "standard deviation of gamma_up over cells, not relative to it; 0 = all cells alike"
        ),
        json_schema_extra=NO_SHARE,
    )
    gamma_down_dtod: NonNegative = Field(
        0.0,
        le=10,
        description="the same of gamma_down; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )


class LinearStep(Law, model="linear-step"):
    """f_up = 1 - gamma_up w / w_max,   f_down = 1 - gamma_down w / w_min"""

    key = "linear"
    Params = LinearParams

    @staticmethod
    def step(w, d, own, low, high):
        return 1.0 - (own.slope_up if d > 0.0 else own.slope_down) * w

    @classmethod
    def numbers(cls, table: Numbers, ends: Ends) -> Numbers:
        # relative to the mean bounds: a cell's slope does not depend on where it happens to end
        return {
            "slope_up": table["gamma_up"] / ends.w_max,
            "slope_down": table["gamma_down"] / ends.w_min,
        }


class SoftBounds(Law, model="soft-bounds"):
    """f_up = 1 - w / b_max,   f_down = 1 - w / b_min"""

    @staticmethod
    def step(w, d, own, low, high):
        return 1.0 - (own.slope_up if d > 0.0 else own.slope_down) * w

    @classmethod
    def numbers(cls, table: Numbers, ends: Ends) -> Numbers:
        return {"slope_up": 1 / ends.b_max, "slope_down": 1 / ends.b_min}


class ExponentialParams(Table):
    """[exponential] of an exponential-step device or a one-sided pair: f_d = max(0, 1 - A_d
    exp(d gamma_d z)).
    """

    a: float = Field(
        examples=[-0.5],
        ge=-100,
        le=100,
        description="slope in z = 2 a w / (b_max - b_min) + b; 0 = f does not depend on w",
    )
    b: float = Field(0.0, ge=-100, le=100, description="offset in z; 0 = none")
    A_up: float = Field(
        examples=[-1.2],
        ge=-1e6,
        le=1e6,
        description="weight of the exponential in steps up; 0 = constant step, negative = larger",
    )
    A_down: float = Field(
        0.0, ge=-1e6, le=1e6, description="the same in steps down; unused by a pair"
    )
    gamma_up: NonNegative = Field(
        examples=[5.0], le=100, description="exponent of steps up; 0 = f does not depend on w"
    )
    gamma_down: NonNegative = Field(
        0.0, le=100, description="exponent of steps down; unused by a pair"
    )


class ExponentialStep(Law, model="exponential-step"):
    """f_d = max(0, 1 - A_d exp(d gamma_d z)),   z = 2 a w / (b_max - b_min) + b"""

    key = "exponential"
    Params = ExponentialParams

    @staticmethod
    def step(w, d, own, low, high):
        z = 2.0 * own.a * w / (high - low) + own.b
        A = own.A_up if d > 0.0 else own.A_down
        gamma = own.gamma_up if d > 0.0 else own.gamma_down
        # not below 0, as in aihwkit: a pulse up does not lower a weight
        return max(0.0, 1.0 - A * np.exp(d * gamma * z))


class OneSidedPair(ExponentialStep, model="one-sided-pair"):
    """w = g_plus - g_minus; up pulses raise g_plus, down pulses g_minus, each by exponential steps
    from 0
    """

    may_have = ("pair", *PULSED)
    # pulses up and down raise a side each, until both are full: they settle at no weight
    paired = True
    balanced = False


class PowerParams(Table):
    """[power] of a power-step device."""

    gamma_up: NonNegative = Field(
        1.0,
        le=20,
        description=(
            "exponent of steps up, aihwkit's pow_gamma (1 + pow_up_down); 0 = constant steps, 1 ="
            " soft bounds"
        ),
        json_schema_extra=NO_SHARE | {"worst": 20.0},
    )
    gamma_down: NonNegative = Field(
        1.0,
        le=20,
        description="exponent of steps down, aihwkit's pow_gamma (1 - pow_up_down)",
        json_schema_extra=NO_SHARE | {"worst": 20.0},
    )
    gamma_up_dtod: NonNegative = Field(
        0.0,
        le=20,
        description=(
            "standard deviation of gamma_up over cells, not relative to it (aihwkit's"
            " pow_gamma_dtod is); 0 = all cells alike"
        ),
        json_schema_extra=NO_SHARE,
    )
    gamma_down_dtod: NonNegative = Field(
        0.0,
        le=20,
        description="the same of gamma_down; 0 = all cells alike",
        json_schema_extra=NO_SHARE,
    )


class PowerStep(Law, model="power-step"):
    """f_up = ((b_max - w) / (b_max - b_min))^gamma_up,
    f_down = ((w - b_min) / (b_max - b_min))^gamma_down
    """

    key = "power"
    Params = PowerParams
    vanishing = True

    @staticmethod
    def step(w, d, own, low, high):
        left = high - w if d > 0.0 else w - low
        gamma = own.gamma_up if d > 0.0 else own.gamma_down
        # rounding at a bound may leave less than 0, which has no power gamma
        return max(left / (high - low), 0.0) ** gamma


Steps = Annotated[tuple[NonNegative, ...], Field(strict=False, min_length=2, max_length=MAX_NODES)]


class PiecewiseParams(Table):
    """[piecewise] of a piecewise-step device: f between the bounds of a cell, at weights evenly
    spaced from b_min to b_max, both among them.
    """

    up: Steps = Field(
        description="steps up in units of dw_min, from b_min to b_max; aihwkit's piecewise_up",
        examples=[[1.5, 1.0, 0.5]],
    )
    down: Steps = Field(
        description="steps down in units of dw_min, from b_min to b_max; aihwkit's piecewise_down",
        examples=[[0.5, 1.0, 1.5]],
    )


class PiecewiseStep(Law, model="piecewise-step"):
    """f_d by straight lines through the table of d, from b_min to b_max"""

    key = "piecewise"
    Params = PiecewiseParams

    @staticmethod
    def step(w, d, own, low, high):
        nodes = own.up if d > 0.0 else own.down
        last = int(own.last_up if d > 0.0 else own.last_down)
        place = (w - low) / (high - low) * last
        # the last node ends the interval before it
        k = min(max(int(place), 0), last - 1)
        return nodes[k] + (place - k) * (nodes[k + 1] - nodes[k])

    @classmethod
    def numbers(cls, table: Numbers, ends: Ends) -> Numbers:
        # tables of one length, or the kernel would be compiled for each
        padded = {name: (*own, *(0.0,) * (MAX_NODES - len(own))) for name, own in table.items()}
        return padded | {f"last_{name}": len(own) - 1 for name, own in table.items()}
