"""One point of an objective: E(w), g and z = Hv, each computed once, and the checks that trials
can be run there.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perturb.checks import as_weights, read_only_copy
from perturb.errors import InputError
from perturb.estimation.design import Design
from perturb.estimation.meter import Meter
from perturb.networks.objective import Objective
from perturb.trial.methods import Method
from perturb.trial.readout import Reading

Array = np.ndarray
EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class PointRecord:
    """What statistics remember of where they were summed: v (n,), E(w) (NaN where nobody knows it),
    and a digest of w, v and how the error is read.
    """

    v: Array
    error: float
    digest: str

    def same(self, other: "PointRecord") -> bool:
        # E may differ in its last places on another machine; another network or other data differ
        # by far more
        E, at = self.error, other.error
        near = abs(E - at) <= 1e-9 * max(abs(E), abs(at)) or (math.isnan(E) and math.isnan(at))
        return self.digest == other.digest and near


def record(w: Array, v: Array, error: float, numbers: tuple) -> PointRecord:
    """Of w, v and E(w); numbers: how E is read."""
    # little-endian: the digest of the same point is the same on any machine
    digest = hashlib.sha256(repr(numbers).encode())
    for array in (w, v):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return PointRecord(v, error, digest.hexdigest())


class Point:
    """An objective at weights w along v: what is computed there is computed once, when first asked.

    w, v: shape (n,); copies that cannot be written to.
    """

    def __init__(self, objective: Objective, w: Array, v: Array):
        self.objective = objective
        self.w = read_only_copy(as_weights("w", w, objective.n_weights))
        self.v = read_only_copy(as_weights("v", v, objective.n_weights))
        self._records: dict[tuple, PointRecord] = {}

    @cached_property
    def pattern_errors(self) -> Array:
        """The error of each pattern, shape (n_patterns,)."""
        return self.objective.pattern_errors(self.w)

    @property
    def error(self) -> float:
        """E(w), their mean."""
        return float(self.pattern_errors.mean())

    @cached_property
    def _derivatives(self) -> tuple[Array, Array]:
        _, g, z = self.objective.error_gradient_hvp(self.w, self.v)
        return g, z

    @property
    def gradient(self) -> Array:
        """Exact g, shape (n,)."""
        return self._derivatives[0]

    @property
    def hv(self) -> Array:
        """Exact z, shape (n,)."""
        return self._derivatives[1]

    def record(self, reading: Reading) -> PointRecord:
        """What statistics of trials here remember."""
        numbers = (
            float(reading.noise),
            int(reading.bits),
            float(reading.range),
            int(self.objective.n_patterns),
        )
        if numbers not in self._records:
            self._records[numbers] = record(self.w, self.v, self.error, numbers)
        return self._records[numbers]


def finite_point(objective: Objective, w: Array, v: Array, method: Method) -> Point:
    """The point, or InputError unless w and v are finite, of shape (n,), E(w) is finite and v not
    zero, which it may be for the gradient alone.
    """
    point = Point(objective, w, v)
    if method.estimates_hv and not point.v.any():
        raise InputError("v is zero, so Hv is zero and dw.v carries nothing: give a direction")
    with np.errstate(all="ignore"):
        E = point.error
    if not np.isfinite(E):
        raise InputError(
            f"E(w) = {E} is not finite at the given weights: use smaller weights or inputs"
        )
    return point


def check_point(objective: Objective, w: Array, v: Array, design: Design) -> Point:
    """The `finite_point`, or InputError where rounding of E hides what the trials look for:
    sigma |g| (or r sigma |z|) below a few units of eps |E|.

    Four trials are drawn first; only if they show nothing above rounding are the exact g and z
    asked. A flat E is no mistake.
    """
    point, method = finite_point(objective, w, v, design.method), design.method
    # without noise: it is rounding that is looked for
    E, meter = point.error, Meter(objective, design, Reading())
    shown = np.zeros(2)
    weights = np.array([method.gradient_weights, method.hv_weights])
    # each phase's E is rounded by some units of eps |E|, and comes with its weight
    rounding = 4 * EPS * abs(E) * np.abs(weights).sum(1)
    with np.errstate(all="ignore"):
        for trial in range(4):
            D = design.code.draw(point.w.size, design.sigma, design.seed, trial)
            # not one weight moves: nothing at all could be seen
            if D.any() and np.array_equal(point.w + D, point.w):
                least = 1e3 * EPS * float(np.abs(point.w).max())
                raise InputError(
                    f"sigma = {design.sigma} is so small that w + dw rounds to w: the smallest"
                    f" useful sigma is about {least:.1g}"
                )
            measured = [
                meter.measure(point.w + a * D + b * design.r * point.v, trial, i)
                for i, (a, b) in enumerate(method.phases)
            ]
            shown = np.maximum(shown, np.abs(weights @ measured))
        # a dE_z that the method does not have need not be seen
        visible = (shown > rounding) | ~weights.any(1)
        if not np.isfinite(shown).all() or visible.all() or E == 0:
            return point  # a trial that is not finite is the run's to report, with its number
        g, z = float(np.linalg.norm(point.gradient)), float(np.linalg.norm(point.hv))
    # what the messages advise: a thousand units of rounding
    useful = 1e3 * EPS * abs(E)
    if shown[0] <= rounding[0] and 0 < design.sigma * g <= rounding[0]:
        raise InputError(
            f"sigma = {design.sigma} is so small that rounding of E = {E:.3g} hides dE: the"
            f" smallest useful sigma is about {useful / g:.1g}"
        )
    if (
        method.regressor == "dw"
        and shown[1] <= rounding[1]
        and 0 < design.r * design.sigma * z <= rounding[1]
    ):
        raise InputError(
            f"r = {design.r} and sigma = {design.sigma} are so small that rounding of E = {E:.3g}"
            " hides the curvature: the smallest useful product r sigma is about"
            f" {useful / z:.1g}"
        )
    return point
