"""`estimate`: weight perturbation on an objective; `compare`: its result beside exact R{backprop} and the method's own limit."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from perturb.errors import InputError, choose
from perturb.estimation.precision import chosen
from perturb.estimation.statistics import Design, Estimate, Statistics, check_trials, solve
from perturb.networks.objective import Objective, as_weights
from perturb.theory.estimates import Curvature, curvatures, limit_stderr, limits
from perturb.trial.codes import CODES, Code
from perturb.trial.methods import METHODS, Method
from perturb.trial.readout import Meter, Reading

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
    resume: Statistics | None = None,
    precision: str = "auto",
) -> Estimate:
    """Per-weight estimates of g = dE/dw and z = Hv by weight perturbation, as an ideal chip with a noisy error unit makes them.

    w, v: shape (n,). sigma: rms of a perturbation, in units of the weights. r: displacement along v, for methods that displace.
    error_noise: standard deviation of one evaluation of E. presentation: "batch", every evaluation presents all patterns, or
    "pattern", every trial presents one, drawn at random. Same seed, same bits, whatever `threads`. method, code: a name, or a
    `Method` or `Code` of your own (`Code.from_function`; `perturb.lfsr`, a shift register for each tile). resume: statistics of
    an estimate with the same arguments (its `statistics`, or `Statistics.load`): `trials` more are added to them, with the same
    bits as in one run. precision: of the evaluations of E, "float32" (networks, codes and presentations with a kernel for it),
    "float64", or "auto": float32 where its rounding adds less than 1 % to the variance. `Estimate.precision` says which it was.

    Limits and variances: `predict`. Cost: trials times `METHODS[method].evaluations_per_trial` evaluations of E, and 4 trials'
    to see that sigma is not too small. Arrays that do not fit, v = 0 (but for the gradient alone), an unknown name, a sigma that
    rounding hides, or an error that is not finite raise InputError.
    """
    from perturb.kernels.float64 import run_trials

    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
    w, v = check_point(objective, w, v, design)
    trials = check_trials(resume.next_trial if resume else 0, trials)
    if not (np.isfinite(error_noise) and error_noise >= 0):
        raise InputError(f"error_noise = {error_noise} must be a finite number >= 0")
    statistics = Statistics(design) if resume is None else resume
    if statistics.design != design:
        differ = [name for name in vars(design) if getattr(design, name) != getattr(statistics.design, name)]
        raise InputError(f"resume: the statistics are of another {', '.join(differ)}: give the same, or start anew")
    readings = objective.n_patterns if presentation == "batch" else 1
    reading = Reading(error_noise * readings**0.5)
    precision = chosen(precision, objective, w, v, reading, design)
    run_trials(objective, w, v, reading, statistics, trials, threads=threads, precision=precision)
    return solve(statistics)


def check_point(objective: Objective, w: Array, v: Array, design: Design) -> tuple[Array, Array]:
    """w and v as arrays that trials can be run at: finite, of shape (n,), v not zero, E(w) finite, dE above rounding.

    For the gradient alone v may be zero. InputError otherwise.
    """
    w, v, E = _point(objective, w, v, design.method)
    _check_visible(objective, w, v, E, design)
    return w, v


def _point(objective: Objective, w: Array, v: Array, method: Method) -> tuple[Array, Array, float]:
    w, v = as_weights("w", w, objective.n_weights), as_weights("v", v, objective.n_weights)
    if method.estimates_hv and not v.any():
        raise InputError("v is zero, so Hv is zero and dw.v carries nothing: give a direction")
    with np.errstate(all="ignore"):
        E = objective.error(w)
    if not np.isfinite(E):
        raise InputError(f"E(w) = {E} is not finite at the given weights: use smaller weights or inputs")
    return np.ascontiguousarray(w), np.ascontiguousarray(v), E


def _check_visible(objective: Objective, w: Array, v: Array, E: float, design: Design) -> None:
    """InputError where rounding of E hides what the trials look for: sigma |g| (or r sigma |z|) below a few units of eps |E|.

    Four trials are drawn first; only if they show nothing above rounding are the exact g and z asked. A flat E is no mistake.
    """
    method, meter = design.method, Meter(objective, design, Reading())
    seen = np.zeros(2)
    weights = np.array([method.gradient_weights, method.hv_weights])
    rounding = 4 * float(np.finfo(float).eps) * abs(E) * np.abs(weights).sum(1)
    with np.errstate(all="ignore"):
        for trial in range(4):
            D = design.code.draw(w.size, design.sigma, design.seed, trial)
            if D.any() and np.array_equal(w + D, w):
                least = 1e3 * float(np.finfo(float).eps) * float(np.abs(w).max())
                raise InputError(
                    f"sigma = {design.sigma} is so small that w + dw rounds to w: the smallest useful sigma is about {least:.1g}"
                )
            measured = [meter.measure(w + a * D + b * design.r * v, trial, i) for i, (a, b) in enumerate(method.phases)]
            seen = np.maximum(seen, np.abs(weights @ measured))
        shown = (seen > rounding) | ~weights.any(1)
        if not np.isfinite(seen).all() or shown.all() or E == 0:
            return  # a trial that is not finite is the run's to report, with its number
        _, g, z = objective.error_gradient_hvp(w, v)
    size, useful = float(np.linalg.norm(g)), 1e3 * float(np.finfo(float).eps) * abs(E)
    if seen[0] <= rounding[0] and 0 < design.sigma * size <= rounding[0]:
        raise InputError(
            f"sigma = {design.sigma} is so small that rounding of E = {E:.3g} hides dE: the smallest useful sigma is about "
            f"{useful / size:.1g}"
        )
    size = float(np.linalg.norm(z))
    if method.regressor == "dw" and seen[1] <= rounding[1] and 0 < design.r * design.sigma * size <= rounding[1]:
        raise InputError(
            f"r = {design.r} and sigma = {design.sigma} are so small that rounding of E = {E:.3g} hides the curvature: "
            f"the smallest useful product r sigma is about {useful / size:.1g}"
        )


@dataclass(frozen=True)
class QuantityComparison:
    """One quantity (g or z) against its exact value and its method's own limit; arrays of shape (n,).

    z_rms, limit_z_rms: rms over the weights of (estimate - exact)/stderr and (estimate - limit)/stderr; about 1 for an estimate
    as good as its standard errors say; of an uncertain limit, limit_stderr counts too. Of standard errors with few degrees of
    freedom df, the standard normal deviate of the same probability is taken. relative_error: |estimate - exact|/|exact|; NaN
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
            return _rms(_normal((self.estimate - self.limit) / np.hypot(self.stderr, unsure), self.df))


@dataclass(frozen=True)
class Comparison:
    gradient: QuantityComparison
    hv: QuantityComparison


def compare(estimated: Estimate, objective: Objective, w: Array, v: Array, known: list[Curvature] | None = None) -> Comparison:
    """The estimate beside exact R{backprop} and the limit that theory gives its method; for the gradient alone, hv has NaN there.

    Cost: the `curvatures` of the objective (n products), unless given as `known`. However patterns are presented, the limit is
    that of the whole objective, as it is linear in g and H.
    """
    design = estimated.design
    w, v, _ = _point(objective, w, v, design.method)
    whole = curvatures(objective, w, v)[0] if known is None else known[0]
    _, g, z = objective.error_gradient_hvp(w, v)
    g_limit, z_limit = limits(design.method, design.code, whole, design.sigma, design.r, design.seed)
    unsure = limit_stderr(design.method, design.code, whole)
    return Comparison(
        QuantityComparison(estimated.gradient, estimated.gradient_stderr, g, g_limit, df=estimated.gradient_df),
        QuantityComparison(estimated.hv, estimated.hv_stderr, z, z_limit, unsure, estimated.hv_df),
    )


def _normal(t: Array, df: float) -> Array:
    """|deviates| of Student's t as standard normal ones of the same probability; where that is too small for a number, after
    Wallace (1959), who is good to some per cent for one degree of freedom and much better for more."""
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
