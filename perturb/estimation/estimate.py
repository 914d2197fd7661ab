"""`estimate`: weight perturbation on an objective, as an ideal chip with a noisy error unit does
it.
"""

import numpy as np

from perturb.checks import at_least_zero
from perturb.errors import InputError, choose
from perturb.estimation.design import Design, check_trials
from perturb.estimation.engine import run_trials
from perturb.estimation.point import check_point
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
    point = check_point(objective, w, v, design)
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
    precision = chosen(precision, point, reading, design)
    run_trials(point, reading, statistics, trials, threads=threads, precision=precision)
    return solve(statistics)
