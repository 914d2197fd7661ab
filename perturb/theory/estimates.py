"""What theory predicts of an estimate before it is run."""

import math
from dataclasses import fields, replace
from typing import Literal

import numpy as np

from perturb.errors import choose
from perturb.estimation.design import Design
from perturb.networks.objective import Objective
from perturb.theory.limits import limit_stderr, limits
from perturb.theory.predictions import Prediction, QuantityPrediction
from perturb.theory.quadratic import PROBES, Curvature, curvatures
from perturb.theory.variances import TrialVariance, _left, trial_variances
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS, Method
from perturb.trial.periodicity import period_warnings

Array = np.ndarray


def predict(
    objective: Objective,
    w: Array,
    v: Array,
    method: str | Method = "difference",
    code: str | Code = "walsh",
    sigma: float = 1e-2,
    r: float = 1e-2,
    error_noise: float = 0.0,
    presentation: str = "batch",
    known: list[Curvature] | None = None,
    trials: int | None = None,
    seed: int = 0,
) -> Prediction:
    """What to expect of `estimate` with the same arguments, before it is run.

    Limit, bias, variance, expected cosine and error, trials and evaluations needed.

    Parameters
    ----------
    objective : Objective
    w : array of shape (n,)
    v : array of shape (n,)
    method : str or Method
    code : str or Code
    sigma : float
        The rms perturbation, in units of the weights.
    r : float
        The displacement of w along v, of a method that has one.
    error_noise : float
        Standard deviation of one evaluation, in units of E; NaN where it is not known, as is then
        what depends on it.
    presentation : {"batch", "pattern"}
        "pattern": the pattern is one more random number of each trial; its variation adds to the
        variance, and an orthogonal code loses its advantage. Limits stay.
    known : list of Curvature, optional
        What `theory.quadratic.curvatures` gave for the same objective, w, v and presentation.
    trials : int, optional
        Warn if they do not cover a code's period.
    seed : int
        Decides which shift registers meet, and nothing else.

    Returns
    -------
    Prediction

    Raises
    ------
    InputError
        For arrays that do not fit, an unknown name, or a pair that does not go together.

    Notes
    -----
    Everything is for a quadratic E with the g, H, z of the objective at w; `truncation` adds what
    higher derivatives bring, `best_sigma` finds the best sigma. Formulas: `theory.limits.limit`,
    `theory.variances.trial_variances`. What rests on a sample of patterns or of sign vectors says
    so in `warnings`, with its uncertainty. Cost: one Hv per weight, of more than 4,096 weights 256.

    Examples
    --------
    A difference is unbiased; over a whole Walsh period of 4 nothing varies without noise:

    >>> import numpy as np
    >>> import perturb
    >>> objective = perturb.MLP([2, 1]).objective([[1.0, 2.0], [0.0, 1.0]], [[1.0], [0.0]])
    >>> predicted = perturb.predict(objective, np.zeros(3), np.ones(3), error_noise=1e-6)
    >>> float(abs(predicted.hv.bias).max()), round(predicted.hv.stderr(4), 6)
    (0.0, 0.0025)
    >>> round(predicted.hv.cosine(4), 4), predicted.trace
    (1.0, 4.0)
    """
    method = choose("method", method, METHODS) if isinstance(method, str) else method
    code = choose("code", code, CODES) if isinstance(code, str) else code
    design = Design(method, code, objective.n_weights, sigma, r, seed, presentation)
    known = curvatures(objective, w, v, presentation) if known is None else known
    whole = known[0]
    of_g, of_z = _both(design, whole, error_noise**2)
    trace = whole.trace
    # |H|_F
    size = math.sqrt(whole.off_square + float(whole.diagonal @ whole.diagonal))
    etas = (2 / trace, 2 / (trace + 2 * size)) if trace > 0 else (math.inf, math.inf)
    return Prediction(of_g, of_z, trace, *etas, _warnings(design, [of_g, of_z], trials))


def _both(design: Design, whole: Curvature, noise: float) -> list[QuantityPrediction]:
    """What to expect of g and of z; noise: the variance of an evaluation."""
    method, code, seed = design.method, design.code, design.seed
    sigma, r = design.sigma, design.r
    # limits are linear in g and H: that of single patterns is that of the whole
    cases, limited = whole.patterns or (whole,), limits(method, code, whole, sigma, r, seed)
    each = [trial_variances(method, code, c, sigma, r, noise, seed, whole) for c in cases]
    tends = (
        [limits(method, code, c, sigma, r, seed) for c in cases] if whole.patterns else [limited]
    )
    parts = []
    both: tuple[Literal["gradient", "hv"], ...] = ("gradient", "hv")
    for index, of in enumerate(both):
        trial, unsure = _over_patterns(
            [variances[index] for variances in each], [two[index] for two in tends], whole
        )
        # then the estimate is linear in D.slope, and a periodic code's disturbance is known
        on_dw = index == 0 or method.regressor == "dw"
        dE, left_in = _left(method, whole, whole, of, sigma, r)
        # of a difference, dE_z is r D.z
        unit = 1.0 if index == 0 else r
        parts.append(
            QuantityPrediction(
                (whole.g, whole.z)[index],
                limited[index],
                trial,
                code,
                method.evaluations_per_trial,
                # a pattern drawn in every trial makes dE another function each time: no period is
                # repeated
                not whole.patterns and (on_dw or code.function is None),
                # linear in D: then the disturbance of an incomplete period is known
                dE.slope / unit if on_dw and not whole.patterns else None,
                left_in / sigma / unit * on_dw,
                seed,
                # a covariance of K trials has the denominator K
                method.centred and method.fit == "moments",
                limit_stderr(method, code, whole) if index else None,
                unsure,
            )
        )
    return parts


def _over_patterns(
    each: list[TrialVariance], tends: list[Array], whole: Curvature
) -> tuple[TrialVariance, float]:
    """The variance of a trial whose pattern is drawn too, and its relative standard error.

    That within a pattern, on average, and that between the patterns of what each tends to.
    """
    m = len(each)
    if m == 1:
        return each[0], whole.unsure
    found = TrialVariance(
        *(
            np.mean([getattr(one, part.name) for one in each], axis=0)
            for part in fields(TrialVariance)
        )
    )
    # law of total variance; (1 - 1/S) makes that of a sample the one of all S patterns
    found = replace(found, odd=found.odd + np.var(tends, axis=0, ddof=1) * (1 - 1 / whole.of))
    squares = [
        float(one.total.sum() + ((L - np.mean(tends, axis=0)) ** 2).sum())
        for one, L in zip(each, tends, strict=True)
    ]
    # m patterns of S, drawn without replacement
    sampled = (
        math.sqrt(max(1 - m / whole.of, 0.0) / m)
        * float(np.std(squares, ddof=1))
        / (float(np.mean(squares)) or 1.0)
    )
    return found, math.hypot(
        sampled, math.sqrt(float(np.mean([c.unsure**2 for c in whole.patterns])) / m)
    )


def _warnings(design: Design, parts: list[QuantityPrediction], trials: int | None) -> list[str]:
    method, code, n = design.method, design.code, design.n_weights
    # each says what is wrong, why, and what to use instead
    says = []
    if method.estimates_hv and (blind := int(np.isnan(parts[1].limit).sum())):
        says.append(
            f"{method.name} with code {code.name}: g and z of {blind} of {n} weights cannot be"
            " known, as their regressor of z is constant; use method difference"
        )
    for name, part in (("g", parts[0]), ("z = Hv", parts[1] if method.estimates_hv else None)):
        size = 0.0 if part is None else float(np.linalg.norm(part.exact))
        # below 1e-6 of its size a bias is rounding, or does not matter
        if part is None or size == 0 or not (off := float(np.linalg.norm(part.bias)) / size) > 1e-6:
            continue
        why, instead = _reason(design)
        # g + m_11 r z, see `limits`
        if name == "g" and method.moment("gradient", 1, 1):
            why, instead = (
                "its dE_g responds to D and r v together",
                "weights whose sum of a b is 0",
            )
        says.append(
            f"{method.name} with code {code.name} is biased: its {name} tends to something"
            f" {off:.2g} |{name[0]}| away, as {why}; use {instead}"
        )
    for name, part in (("g", parts[0]), ("z", parts[1])):
        if part.limit_stderr is not None:
            off = float(np.linalg.norm(part.limit_stderr) / (np.linalg.norm(part.limit) or 1.0))
            says.append(
                f"the limit of {name} is known to {off:.2g} of its size: it needs the diagonal of"
                f" H, from {PROBES} sign vectors"
            )
        if part.unsure > 0.01:
            says.append(
                f"the variance of {name} is known to {part.unsure:.0%}: it comes from a sample of"
                " patterns or sign vectors"
            )
    if trials is not None:
        says += period_warnings(code, n, trials)
    return says


def _reason(design: Design) -> tuple[str, str]:
    """Why a method is biased with a code, and what to use instead."""
    method, code, n = design.method, design.code, design.n_weights
    # in the order in which one reason hides the next
    if code.sensing and method.fit == "least_squares":
        return (
            "denominators measured with the synapses' own error are too large",
            "known denominators: difference or covariance",
        )
    if code.registers is not None:
        instead = "code walsh or rademacher"
        if shared := code.registers.shared(n, design.seed):
            why = (
                f"{shared} of {n} weights share their perturbation with others, and those that do"
                " not share correlate"
            )
            return (
                f"{why} by -1/{code.period(n)}",
                f"more bits for the registers, another seed, or {instead}",
            )
        return (
            f"weights of the register{'s' * (code.taps(n) < n)} correlate by -1/{code.period(n)}",
            instead,
        )
    # what is left is about z alone
    if method.fit == "moments" and method.regressor == "b":
        return "without measured denominators the mean of dE b_i is about z_i/V", 'regressor "s_dw"'
    if method.fit == "moments" and method.regressor == "s_dw" and not method.centred:
        return "the mean of dE_z, with tr H in it, is left in", "centred = True"
    if method.fit == "least_squares" and not method.unbiased_with(code):
        why = (
            "it needs kurtosis 3"
            if method.correction == "along"
            else "what other weights do to dE is taken for its own"
        )
        return why, "method difference, or covariance with code ternary"
    # only the kurtosis is wrong: the diagonal correction, or a code of kurtosis 3, mends it
    mended = method.name + "_corrected"
    instead = f"method {mended}" if code.kurtosis > 1 and mended in METHODS else "code ternary"
    return (
        f"a code of kurtosis {code.kurtosis:g} adds {(code.kurtosis - 3) / 2:g} H_ii v_i",
        f"{instead}, or method difference",
    )
