"""`estimate`: weight perturbation on an objective; `compare`: its result beside exact R{backprop} and the method's own limit."""

from dataclasses import dataclass

import numpy as np

from perturb.codes import CODES, Code
from perturb.errors import InputError, choose
from perturb.methods import METHODS, Method
from perturb.objective import Objective, as_weights
from perturb.precision import PRECISIONS, check_sigma, sufficient
from perturb.reading import Reading
from perturb.statistics import Design, Estimate, Statistics, solve
from perturb.theory import Curvature, curvatures, limit

Array = np.ndarray


def estimate(
    objective: Objective,
    w: Array,
    v: Array,
    trials: int,
    method: str | Method = "difference",
    code: str | Code = "walsh",
    sigma: float = 1e-2,
    r: float = 1e-2,
    seed: int = 0,
    error_noise: float = 0.0,
    presentation: str = "batch",
    threads: int | None = None,
    precision: str = "auto",
) -> Estimate:
    """Per-weight estimates of g = dE/dw and z = Hv by weight perturbation, as an ideal chip with a noisy error unit makes them.

    w, v: shape (n,). sigma: rms of a perturbation, in units of the weights. r: displacement along v, for methods that displace.
    error_noise: standard deviation of one evaluation of E. presentation: "batch", every evaluation presents all patterns, or
    "pattern", every trial presents one, drawn at random. Same seed, same bits, whatever `threads`. precision: of the evaluations
    of E, "float32" (networks, codes and presentations with a kernel for it), "float64", or "auto": float32 where its rounding
    adds less than 1 % to the variance. `Estimate.precision` says which it was.

    Limits and variances: `predict`. Cost: trials times `METHODS[method].evaluations_per_trial` evaluations of E. Arrays that do
    not fit, v = 0, an unknown name, or an error that is not finite raise InputError.
    """
    from perturb.kernels import has_fast_kernel, run_trials

    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    w, v = check_point(objective, w, v)
    if not (isinstance(trials, (int, np.integer)) and 1 <= trials < 2**62):
        raise InputError(f"trials = {trials!r} must be a whole number >= 1")
    if not (np.isfinite(error_noise) and error_noise >= 0):
        raise InputError(f"error_noise = {error_noise} must be a finite number >= 0")
    statistics = Statistics(Design(method, code, w.size, sigma, r, seed, presentation))
    readings = objective.n_patterns if presentation == "batch" else 1
    reading = Reading(error_noise * readings**0.5)
    check_sigma(objective, w, v, statistics.design)
    choose("precision", precision, dict.fromkeys(PRECISIONS))
    if precision == "auto":
        fast = has_fast_kernel(objective, statistics.design)
        precision = sufficient(objective, w, v, reading, statistics.design, int(trials)) if fast else "float64"
    run_trials(objective, w, v, reading, statistics, int(trials), threads=threads, precision=precision)
    return solve(statistics)


def check_point(objective: Objective, w: Array, v: Array) -> tuple[Array, Array]:
    """w and v as arrays that trials can be run at: finite, of shape (n,), v not zero, E(w) finite; else InputError."""
    w, v = as_weights("w", w, objective.n_weights), as_weights("v", v, objective.n_weights)
    if not v.any():
        raise InputError("v is zero, so Hv is zero and dw.v carries nothing: give a direction")
    if not np.isfinite(objective.error(w)):
        raise InputError("E(w) is not finite at the given weights: use smaller weights or inputs")
    return np.ascontiguousarray(w), np.ascontiguousarray(v)


@dataclass(frozen=True)
class QuantityComparison:
    """One quantity (g or z) against its exact value and its method's own limit; arrays of shape (n,).

    z_rms, limit_z_rms: rms over the weights of (estimate - exact)/stderr and (estimate - limit)/stderr; about 1 for an estimate
    as good as its standard errors say. relative_error: |estimate - exact|/|exact|; NaN where the exact value is zero.
    """

    estimate: Array
    stderr: Array
    exact: Array
    limit: Array

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
            return _rms((self.estimate - self.exact) / self.stderr)

    @property
    def limit_z_rms(self) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return _rms((self.estimate - self.limit) / self.stderr)


@dataclass(frozen=True)
class Comparison:
    gradient: QuantityComparison
    hv: QuantityComparison


def compare(estimated: Estimate, objective: Objective, w: Array, v: Array, known: list[Curvature] | None = None) -> Comparison:
    """The estimate beside exact R{backprop} and the limit that theory gives its method.

    Cost: the `curvatures` of the objective (n products), unless given as `known`.
    """
    w, v = check_point(objective, w, v)
    design = estimated.design
    known = curvatures(objective, w, v, design.presentation) if known is None else known
    _, g, z = objective.error_gradient_hvp(w, v)
    z_limit = np.mean([limit(design.method, design.code, c) for c in known], axis=0)
    return Comparison(
        QuantityComparison(estimated.gradient, estimated.gradient_stderr, g, g),
        QuantityComparison(estimated.hv, estimated.hv_stderr, z, z_limit),
    )


def _rms(a: Array) -> float:
    return float(np.sqrt(np.mean(a * a)))


def _relative(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size > 0 else float("nan")
