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
    """Per-weight estimates of g = dE/dw and z = Hv by weight perturbation.

    As an ideal chip with a noisy error unit makes them.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
        Weights.
    v : array of shape (n,)
        The direction that H is multiplied by; 0 is allowed for the gradient alone.
    trials : int
        K, at least 1: draws of the perturbation.
    method : str or Method
        A name in `METHODS`, or a method of your own.
    code : str or Code
        A name in `CODES`, or a code of your own (`Code.from_function`; `lfsr`, a shift register for
        each tile).
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.
    seed : int
        From 0 to 2^64 - 1.
    error_noise : float
        Standard deviation of one evaluation, in units of E.
    presentation : {"batch", "pattern"}
        "batch": every evaluation presents all patterns; "pattern": every trial presents one, drawn
        at random.
    threads : int, optional
        Left out, as many as there are cores. Same seed, same bits, whatever their number.
    resume : Statistics, optional
        Of an estimate with the same arguments (its `statistics`, or `Statistics.load`): `trials`
        more are added to them, with the same bits as in one run.
    precision : {"auto", "float32", "float64"}
        Of the evaluations of E: "float32" (networks, codes and presentations with a kernel for it),
        "float64", or "auto": float32 where its rounding adds less than 1 % to the variance.
        `Estimate.precision` says which it was.

    Returns
    -------
    Estimate

    Raises
    ------
    InputError
        For arrays that do not fit, v = 0 (but for the gradient alone), an unknown name, a sigma
        that rounding hides, statistics of another run, or an error that is not finite.

    Notes
    -----
    The gradient is <dE D_i>/sigma^2; z by the method, see `METHODS` and perturb/README.md. Limits
    and variances: `predict`. Cost: trials times `METHODS[method].evaluations_per_trial` evaluations
    of E, and those of 4 trials to see that sigma is not too small.

    References
    ----------
    Cauwenberghs, A fast stochastic error-descent algorithm, NIPS 5 (1993) 244-251.

    Examples
    --------
    Over a whole Walsh period, differences are exact on a quadratic E:

    >>> import numpy as np
    >>> import perturb
    >>> objective = perturb.MLP([2, 1]).objective([[1.0, 2.0], [0.0, 1.0]], [[1.0], [0.0]])
    >>> found = perturb.estimate(objective, np.zeros(3), [1.0, 0.0, 0.0], trials=4)
    >>> found.gradient.round(6), found.hv.round(6)
    (array([-0.5, -1. , -0.5]), array([0.5, 1. , 0.5]))
    >>> found.evaluations
    16
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
    point = check_point(objective, w, v, design)
    # numbers go on where the statistics end: the same perturbations as in one run
    trials = check_trials(resume.next_trial if resume else 0, trials)
    at_least_zero("error_noise", error_noise)
    # the sums given are added to, not copied
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
    # the noise is that of an evaluation, the mean of as many readings as there are patterns
    reading = Reading(error_noise * readings**0.5)
    precision = chosen(precision, point, reading, design)
    run_trials(point, reading, statistics, trials, threads=threads, precision=precision)
    return solve(statistics)
