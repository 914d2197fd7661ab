"""An estimate beside exact R{backprop} and its method's own limit."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from perturb.estimation.point import Point, finite_point
from perturb.estimation.solution import Estimate
from perturb.networks.objective import Objective
from perturb.theory.limits import limit_stderr, limits
from perturb.theory.quadratic import Curvature, curvatures

Array = np.ndarray


@dataclass(frozen=True)
class QuantityComparison:
    """One quantity (g or z) against its exact value and its method's own limit; arrays of shape
    (n,).

    z_rms, limit_z_rms: rms over the weights of (estimate - exact)/stderr and (estimate -
    limit)/stderr; about 1 for an estimate as good as its standard errors say; of an uncertain
    limit, limit_stderr counts too. Of standard errors with few degrees of freedom df, the standard
    normal deviate of the same probability is taken. relative_error: |estimate - exact|/|exact|; NaN
    where the exact value is zero.
    """

    estimate: Array
    stderr: Array
    exact: Array
    limit: Array
    limit_stderr: Array | None = None
    df: float = math.inf

    @property
    def cosine(self) -> float:
        size = float(np.linalg.norm(self.estimate) * np.linalg.norm(self.exact))
        return float(self.estimate @ self.exact) / size if size > 0 else float("nan")

    @property
    def relative_error(self) -> float:
        return _relative(self.estimate, self.exact)

    @property
    def limit_relative_error(self) -> float:
        return _relative(self.estimate, self.limit)

    @property
    def rms_stderr(self) -> float:
        return _rms(self.stderr)

    @property
    def z_rms(self) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return _rms(_normal((self.estimate - self.exact) / self.stderr, self.df))

    @property
    def limit_z_rms(self) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            unsure = 0.0 if self.limit_stderr is None else self.limit_stderr
            return _rms(
                _normal((self.estimate - self.limit) / np.hypot(self.stderr, unsure), self.df)
            )


@dataclass(frozen=True)
class Comparison:
    gradient: QuantityComparison
    hv: QuantityComparison


def compare(
    estimated: Estimate,
    objective: Objective,
    w: Array,
    v: Array,
    known: list[Curvature] | None = None,
) -> Comparison:
    """The estimate beside exact R{backprop} and the limit that theory gives its method; for the
    gradient alone, hv has NaN there.

    Cost: the `curvatures` of the objective (n products), unless given as `known`. However patterns
    are presented, the limit is that of the whole objective, as it is linear in g and H.
    """
    point = finite_point(objective, w, v, estimated.design.method)
    return compare_at(point, estimated, known)


def compare_at(
    point: Point, estimated: Estimate, known: list[Curvature] | None = None
) -> Comparison:
    """`compare` at a point whose exact g and z may have been computed before."""
    design = estimated.design
    whole = curvatures(point.objective, point.w, point.v)[0] if known is None else known[0]
    g_limit, z_limit = limits(
        design.method, design.code, whole, design.sigma, design.r, design.seed
    )
    unsure = limit_stderr(design.method, design.code, whole)
    gradient = QuantityComparison(
        estimated.gradient,
        estimated.gradient_stderr,
        point.gradient,
        g_limit,
        df=estimated.gradient_df,
    )
    hv = QuantityComparison(
        estimated.hv, estimated.hv_stderr, point.hv, z_limit, unsure, estimated.hv_df
    )
    return Comparison(gradient, hv)


def _normal(t: Array, df: float) -> Array:
    """|deviates| of Student's t as standard normal ones of the same probability; where that is too
    small for a number, after Wallace (1959), who is good to some per cent for one degree of freedom
    and much better for more.
    """
    t, df = np.abs(t), np.float64(df)
    if not np.isfinite(df):
        return t
    tail = student.sf(t, df)
    far = (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t * t / df))
    return np.where(np.isnan(t) | (tail > 1e-300), norm.isf(tail), far)


def _rms(a: Array) -> float:
    return float(np.sqrt(np.mean(a * a)))


def _relative(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size > 0 else float("nan")
