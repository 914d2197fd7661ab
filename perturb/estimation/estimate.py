"""`estimate`: weight perturbation on an objective, as an ideal chip with a noisy error unit does
it.
"""

import numpy as np

from perturb.checks import as_weights, at_least_zero
from perturb.errors import InputError, choose
from perturb.estimation.design import Design, check_trials
from perturb.estimation.engine import run_trials
from perturb.estimation.meter import Meter
from perturb.estimation.precision import chosen
from perturb.estimation.solution import Estimate, solve
from perturb.estimation.statistics import Statistics
from perturb.networks.objective import Objective
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method
from perturb.trial.readout import Reading

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
    """Per-weight estimates of g = dE/dw and z = Hv by weight perturbation, as an ideal chip with a
    noisy error unit makes them.

    w, v: shape (n,). sigma: rms of a perturbation, in units of the weights. r: displacement along
    v, for methods that displace. error_noise: standard deviation of one evaluation of E.
    presentation: "batch", every evaluation presents all patterns, or "pattern", every trial
    presents one, drawn at random. Same seed, same bits, whatever `threads`. method, code: a name,
    or a `Method` or `Code` of your own (`Code.from_function`; `perturb.lfsr`, a shift register for
    each tile). resume: statistics of an estimate with the same arguments (its `statistics`, or
    `Statistics.load`): `trials` more are added to them, with the same bits as in one run.
    precision: of the evaluations of E, "float32" (networks, codes and presentations with a kernel
    for it), "float64", or "auto": float32 where its rounding adds less than 1 % to the variance.
    `Estimate.precision` says which it was.

    Limits and variances: `predict`. Cost: trials times `METHODS[method].evaluations_per_trial`
    evaluations of E, and 4 trials' to see that sigma is not too small. Arrays that do not fit, v =
    0 (but for the gradient alone), an unknown name, a sigma that rounding hides, or an error that
    is not finite raise InputError.
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
    w, v = check_point(objective, w, v, design)
    trials = check_trials(resume.next_trial if resume else 0, trials)
    at_least_zero("error_noise", error_noise)
    statistics = Statistics(design) if resume is None else resume
    if statistics.design != design:
        differ = [
            name
            for name in vars(design)
            if getattr(design, name) != getattr(statistics.design, name)
        ]
        raise InputError(
            f"resume: the statistics are of another {', '.join(differ)}: give the same, or start"
            " anew"
        )
    readings = objective.n_patterns if presentation == "batch" else 1
    reading = Reading(error_noise * readings**0.5)
    precision = chosen(precision, objective, w, v, reading, design)
    run_trials(objective, w, v, reading, statistics, trials, threads=threads, precision=precision)
    return solve(statistics)


def check_point(objective: Objective, w: Array, v: Array, design: Design) -> tuple[Array, Array]:
    """w and v as arrays that trials can be run at: finite, of shape (n,), v not zero, E(w) finite,
    dE above rounding.

    For the gradient alone v may be zero. InputError otherwise.
    """
    w, v, E = finite_point(objective, w, v, design.method)
    _check_visible(objective, w, v, E, design)
    return w, v


def finite_point(
    objective: Objective, w: Array, v: Array, method: Method
) -> tuple[Array, Array, float]:
    w, v = as_weights("w", w, objective.n_weights), as_weights("v", v, objective.n_weights)
    if method.estimates_hv and not v.any():
        raise InputError("v is zero, so Hv is zero and dw.v carries nothing: give a direction")
    with np.errstate(all="ignore"):
        E = objective.error(w)
    if not np.isfinite(E):
        raise InputError(
            f"E(w) = {E} is not finite at the given weights: use smaller weights or inputs"
        )
    return np.ascontiguousarray(w), np.ascontiguousarray(v), E


def _check_visible(objective: Objective, w: Array, v: Array, E: float, design: Design) -> None:
    """InputError where rounding of E hides what the trials look for: sigma |g| (or r sigma |z|)
    below a few units of eps |E|.

    Four trials are drawn first; only if they show nothing above rounding are the exact g and z
    asked. A flat E is no mistake.
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
                    f"sigma = {design.sigma} is so small that w + dw rounds to w: the smallest"
                    f" useful sigma is about {least:.1g}"
                )
            measured = [
                meter.measure(w + a * D + b * design.r * v, trial, i)
                for i, (a, b) in enumerate(method.phases)
            ]
            seen = np.maximum(seen, np.abs(weights @ measured))
        shown = (seen > rounding) | ~weights.any(1)
        if not np.isfinite(seen).all() or shown.all() or E == 0:
            return  # a trial that is not finite is the run's to report, with its number
        _, g, z = objective.error_gradient_hvp(w, v)
    size, useful = float(np.linalg.norm(g)), 1e3 * float(np.finfo(float).eps) * abs(E)
    if seen[0] <= rounding[0] and 0 < design.sigma * size <= rounding[0]:
        raise InputError(
            f"sigma = {design.sigma} is so small that rounding of E = {E:.3g} hides dE: the"
            f" smallest useful sigma is about {useful / size:.1g}"
        )
    size = float(np.linalg.norm(z))
    if (
        method.regressor == "dw"
        and seen[1] <= rounding[1]
        and 0 < design.r * design.sigma * size <= rounding[1]
    ):
        raise InputError(
            f"r = {design.r} and sigma = {design.sigma} are so small that rounding of E = {E:.3g}"
            " hides the curvature: the smallest useful product r sigma is about"
            f" {useful / size:.1g}"
        )
