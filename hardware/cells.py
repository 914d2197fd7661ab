"""The cells of a die: what every device differs by from its neighbours, drawn once.

Formulas: head of `hardware.device`.
"""

from dataclasses import dataclass

import numpy as np

from hardware.device_params import DeviceParams
from perturb.checks import integer
from perturb.errors import InputError
from perturb.trial.random import FABRICATION, normals_at, uniforms_at

Array = np.ndarray

MAX_CELLS = 2**34  # a block of Philox is 32 bits, and holds two to four cells


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

    @property
    def limits(self) -> tuple[Array, Array]:
        """(lowest, highest) of every row of hidden."""
        if self.params.model == "one-sided-pair":
            return np.zeros((2, self.n)), np.array([self.b_max, -self.b_min])
        return self.b_min[None], self.b_max[None]

    def with_stuck(self, hidden: Array) -> Array:
        """hidden, with what stuck cells hold in its place."""
        if not self.stuck.any():
            return hidden
        at = self.stuck_at
        sides = np.array([np.maximum(at, 0), np.maximum(-at, 0)]) if hidden.ndim == 2 else at
        return np.where(self.stuck, sides, hidden)

    def normals(self, stream: int, seed: int, update: int | Array, phase: int) -> Array:
        """Standard normals (n,) of an update, one for all cells or each its own."""
        out = np.empty(self.n)
        updates = np.asarray(update)
        shaped = updates.dtype.kind in "iu" and updates.shape in ((), (self.n,))
        if not shaped or updates.min() < 0:
            raise InputError(f"update must be integers >= 0, one or {self.n} of them")
        updates = np.ascontiguousarray(np.broadcast_to(updates, self.n), dtype=np.int64)
        normals_at(as_seed(seed), stream, updates, phase, self.start, out)
        return out

    def checked(self, name: str, values: Array, shape: tuple[int, ...]) -> Array:
        """values as finite floats of a shape; InputError for others."""
        values = np.asarray(values, dtype=float)
        if values.shape != shape:
            raise InputError(f"{name} has shape {values.shape} but these cells need {shape}")
        if not np.isfinite(values).all():
            raise InputError(
                f"{name}[{int(np.flatnonzero(~np.isfinite(values))[0])}] must be a finite number"
            )
        return values


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
    integer("n", n, 1, MAX_CELLS)
    if not 0 <= start < stop <= n:
        raise InputError(f"start = {start!r}, stop = {stop!r} must be 0 <= start < stop <= n = {n}")
    key = as_seed(die, "die")

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


def as_seed(value: int, name: str = "seed") -> np.uint64:
    """The seed as Philox takes it, or InputError."""
    return np.uint64(integer(name, value, 0, 2**64 - 1))


def as_seconds(name: str, seconds: float | Array) -> Array:
    """Durations as floats, or InputError."""
    t = np.asarray(seconds, dtype=float)
    if not (np.isfinite(t).all() and (t >= 0).all()):
        raise InputError(f"{name} must be a finite number of seconds >= 0")
    return t
