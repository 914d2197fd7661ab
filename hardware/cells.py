"""The cells of a die: what every device differs by from its neighbours, drawn once.

Formulas: head of `hardware.device`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hardware.device_laws import Ends, law_numbers
from hardware.device_params import DeviceParams
from perturb.checks import integer
from perturb.errors import InputError
from perturb.trial.random import FABRICATION, normals_at, uniforms_at

Array = np.ndarray
Draw = Callable[[int], Array]  # standard normals of the cells, for a quantity

MAX_CELLS = 2**34  # a block of Philox is 32 bits, and holds two to four cells


@dataclass(frozen=True)
class Cells:
    """The cells start..stop-1 of a die, as `fabricate` draws them; arrays (n,) but for `nu_xi`.

    Weights are in units of the network. Of a pair, up is g_plus and down is g_minus.

    Attributes
    ----------
    params : DeviceParams
    start : int
        Number of the first cell.
    dw_up, dw_down : array
        Mean step of a pulse at f = 1.
    b_max, b_min : array
        Bounds; of a pair, g_plus <= b_max and g_minus <= -b_min.
    law : array of records
        What `step` of the device law reads of each cell.
    nu_xi : array (2, n)
        Standard normal numbers by which drift exponents differ (second row: of g_minus).
    lifetime_s : array
        Time constant of the leak in s, infinite without.
    stuck : array of bool
        Which cells are stuck.
    stuck_at : array
        What a stuck cell holds.
    """

    params: DeviceParams
    start: int
    dw_up: Array
    dw_down: Array
    b_max: Array
    b_min: Array
    law: Array
    nu_xi: Array
    lifetime_s: Array
    stuck: Array
    stuck_at: Array

    @property
    def n(self) -> int:
        """Number of cells."""
        return self.dw_up.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `hidden`: (n,); of a pair (2, n): g_plus, g_minus."""
        return (2, self.n) if self.params.law.paired else (self.n,)

    @property
    def limits(self) -> tuple[Array, Array]:
        """(lowest, highest) of every row of hidden."""
        if self.params.law.paired:
            # both sides of a pair are conductances, from 0 up
            return np.zeros((2, self.n)), np.array([self.b_max, -self.b_min])
        return self.b_min[None], self.b_max[None]

    def with_stuck(self, hidden: Array) -> Array:
        """hidden, but for the stuck cells, which hold what they are stuck at.

        Parameters
        ----------
        hidden : array of `shape`

        Returns
        -------
        array of `shape`
        """
        if not self.stuck.any():
            return hidden
        at = self.stuck_at
        # a pair holds what it is stuck at on the side of that sign
        sides = np.array([np.maximum(at, 0), np.maximum(-at, 0)]) if hidden.ndim == 2 else at
        return np.where(self.stuck, sides, hidden)

    def normals(self, stream: int, seed: int, update: int | Array, phase: int) -> Array:
        """Standard normal numbers of the cells.

        Parameters
        ----------
        stream, seed, phase : int
            Keys of the numbers, with update and cell.
        update : int or array (n,) of int
            One for all cells, or one each.

        Returns
        -------
        array (n,)
        """
        out = np.empty(self.n)
        updates = np.asarray(update)
        shaped = updates.dtype.kind in "iu" and updates.shape in ((), (self.n,))
        if not shaped or updates.min() < 0:
            raise InputError(f"update must be integers >= 0, one or {self.n} of them")
        # compiled code takes one number for every cell
        updates = np.ascontiguousarray(np.broadcast_to(updates, self.n), dtype=np.int64)
        normals_at(as_seed(seed), stream, updates, phase, self.start, out)
        return out

    def checked(self, name: str, values: Array, shape: tuple[int, ...]) -> Array:
        """An argument as finite floats of the right shape.

        Parameters
        ----------
        name : str
            In the message.
        values : array
        shape : tuple of int

        Returns
        -------
        array of `shape`

        Raises
        ------
        InputError
            For another shape, or a number that is not finite.
        """
        values = np.asarray(values, dtype=float)
        if values.shape != shape:
            raise InputError(f"{name} has shape {values.shape} but these cells need {shape}")
        if not np.isfinite(values).all():
            raise InputError(
                f"{name}[{int(np.flatnonzero(~np.isfinite(values))[0])}] must be a finite number"
            )
        return values


# quantities of fabrication; the second number is of g_minus, where a pair has its own
GAIN, BETA, B_MAX, B_MIN, _, _, NU, LIFETIME, STUCK, STUCK_AT = (
    (2 * i, 2 * i + 1) for i in range(10)
)
REFERENCE = 20
LAW = (8, 10, *range(32, 256))  # of the spreads of a law, in their order


def fabricate(
    params: DeviceParams, n: int, die: int, start: int = 0, stop: int | None = None
) -> Cells:
    """Draw the cells of a die: what each differs by from the mean device.

    Parameters
    ----------
    params : DeviceParams
    n : int
        Cells of the die.
    die : int
        Seed of the die; the same die has the same cells.
    start, stop : int
        Draw cells start..stop-1 only: the same numbers as in the whole. stop is n if left out.

    Returns
    -------
    Cells

    Raises
    ------
    InputError
        For a count, a range or a seed that cannot be used.

    Notes
    -----
    Formulas: head of `hardware.device`. Every quantity is keyed by (die, quantity, cell).

    Examples
    --------
    >>> import numpy as np
    >>> from hardware.device import fabricate, load_device
    >>> whole = fabricate(load_device("ecram-tang2018"), n=100, die=1)
    >>> part = fabricate(load_device("ecram-tang2018"), 100, 1, start=40, stop=60)
    >>> np.array_equal(whole.dw_up[40:60], part.dw_up)
    True
    """
    stop = n if stop is None else stop
    integer("n", n, 1, MAX_CELLS)
    if not 0 <= start < stop <= n:
        raise InputError(f"start = {start!r}, stop = {stop!r} must be 0 <= start < stop <= n = {n}")
    key = as_seed(die, "die")

    def xi(quantity: int) -> Array:
        out = np.empty(stop - start)
        # cells count from `start`, so that a part has the numbers of the whole
        normals_at(key, FABRICATION, np.zeros(stop - start, np.int64), quantity, start, out)
        return out

    def uniform(quantity: int) -> Array:
        out = np.empty(stop - start)
        uniforms_at(key, FABRICATION, 0, quantity, start, out)
        return out

    bounds = params.limits
    scale = params.range
    pair = params.law.paired
    # without spread a step is one number for all cells
    ones = np.ones(stop - start)
    dw_up = _steps(params, xi, 1, 0) * ones
    # sides of a pair are two cells; up and down of one cell share its gain and asymmetry
    dw_down = (_steps(params, xi, 1, 1) if pair else _steps(params, xi, -1, 0)) * ones
    b_max = scale * bounds.w_max * np.abs(1 + bounds.w_max_dtod * xi(B_MAX[0]))
    if pair:
        b_min = -scale * bounds.w_max * np.abs(1 + bounds.w_max_dtod * xi(B_MAX[1]))
    else:
        b_min = scale * bounds.w_min * np.abs(1 + bounds.w_min_dtod * xi(B_MIN[0]))
    ends = Ends(scale * bounds.w_min, scale * bounds.w_max, b_min, b_max)
    # spreads of a law are drawn in the order of its table
    law = law_numbers(params.law, params.law_table, ends, lambda k: xi(LAW[k]))
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
        # of a pair the difference is stuck, as far down as up
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
        law,
        nu_xi,
        lifetime_s,
        stuck,
        stuck_at,
    )


def _steps(params: DeviceParams, xi: Draw, direction: int, side: int) -> Array | float:
    """|dw_d| of every cell."""
    step = params.step
    if step is None:
        return params.dw_min
    gain = step.dw_min_dtod * xi(GAIN[side])
    gain = np.exp(gain) if step.dw_min_distribution == "lognormal" else 1 + gain
    beta = step.up_down + step.up_down_dtod * xi(BETA[side])
    # dw_d as at the head of `hardware.device`, in units of the network
    return params.range * step.dw_min * np.abs(gain + direction * beta)


def as_seed(value: int, name: str = "seed") -> np.uint64:
    """The seed as Philox takes it, or InputError."""
    return np.uint64(integer(name, value, 0, 2**64 - 1))


def as_seconds(name: str, seconds: float | Array) -> Array:
    """Durations as floats, or InputError."""
    t = np.asarray(seconds, dtype=float)
    if not (np.isfinite(t).all() and (t >= 0).all()):
        raise InputError(f"{name} must be a finite number of seconds >= 0")
    return t
