"""The study "estimators": every method with every code on one network, predicted and measured
bias, error and cost.
"""

import time
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from hardware.config import Table
from perturb.estimation.design import Design
from perturb.estimation.engine import run_trials
from perturb.estimation.point import Point
from perturb.estimation.solution import Estimate, solve
from perturb.estimation.statistics import Statistics
from perturb.seeds import nth_seed
from perturb.theory.amplitude import higher_order_terms
from perturb.theory.comparison import QuantityComparison, compare_at
from perturb.theory.estimates import predict
from perturb.theory.predictions import QuantityPrediction
from perturb.trial.code import SEQUENTIAL
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from perturb.trial.readout import Reading
from reports.vocabulary import TARGET_COSINE
from sims.experiment.schema import CodeName, MethodName, Setup
from sims.problem import Problem, Progress, ShouldStop, Study, raise_if_stopped

NAMES = ("quantity", "method", "code", "n_weights", "trials", "evaluations")


SEVERAL = Field(strict=False, max_length=100)


class Estimators(Table):
    """Of the study "estimators"."""

    methods: Annotated[tuple[MethodName, ...], SEVERAL] = Field(
        (), description="methods compared; [] = all"
    )
    codes: Annotated[tuple[CodeName, ...], SEVERAL] = Field(
        (), description="codes compared; [] = all"
    )
    repeats: int = Field(
        16, ge=2, le=10**6, description="times that each is run, with seeds derived from run.seed"
    )


def estimators(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Table summary, a row per quantity, method and code, see `reports.frames`.

    Each pair spends the evaluations of [estimation], rounded to whole trials, `repeats` times with
    seeds derived from run.seed. All errors are relative to the size of the exact answer.
    """
    e = experiment.estimation
    options = experiment.options(Estimators)
    unit = experiment.chip.error_unit
    point = Point(problem.objective, problem.w, problem.v)
    known = problem.curvatures(e.presentation)
    # many probes: here the bias itself is judged
    further = higher_order_terms(problem.objective, problem.w, problem.v, probes=256)
    budget = e.trials * METHODS[e.method].evaluations_per_trial
    reading = Reading(unit.noise, unit.bits, unit.range)
    # an evaluation is the mean of so many readings
    presented = problem.objective.n_patterns if e.presentation == "batch" else 1
    noise = reading.variance(presented) ** 0.5
    pairs = [
        (METHODS[method], CODES[code])
        for method in options.methods or METHODS
        for code in options.codes or CODES
    ]
    # what `check_pair` allows
    pairs = [(method, code) for method, code in pairs if code.independent or not method.needs_s]
    rows: list[tuple] = []
    columns: list[str] = []
    for done, (method, code) in enumerate(pairs):
        raise_if_stopped(should_stop)
        trials = max(3, round(budget / method.evaluations_per_trial))
        predicted = predict(
            problem.objective,
            problem.w,
            problem.v,
            method,
            code,
            e.sigma,
            e.r,
            noise,
            e.presentation,
            known,
            trials,
        )
        # after the prediction, whose time is none of the trials'
        start = time.perf_counter()
        estimates = []
        for repeat in range(options.repeats):
            raise_if_stopped(should_stop)
            # the same seeds for every pair of method and code; repeats are independent
            seed = nth_seed(experiment.run.seed, "estimate", repeat)
            statistics = Statistics(
                Design(method, code, problem.w.size, e.sigma, e.r, seed, e.presentation)
            )
            run_trials(point, reading, statistics, trials)
            estimates.append(solve(statistics))
        per_s = options.repeats * trials / (time.perf_counter() - start)
        compared = [compare_at(point, estimate, known) for estimate in estimates]
        for quantity in method.quantities:
            each = [getattr(comparison, quantity) for comparison in compared]
            names = (
                quantity,
                method.name,
                code.name,
                problem.w.size,
                trials,
                estimates[0].evaluations,
            )
            # samples (probes, n) of what terms beyond the quadratic add: [0] to g, [1] to z
            shift = further.bias(method, e.sigma, e.r)[quantity == "hv"].mean(0)
            if code.kind == SEQUENTIAL:
                shift = shift * np.nan  # steps of one weight meet other terms, which are not known
            judged = _judged(each, getattr(predicted, quantity), shift, estimates[0])
            rows.append((*names, *judged.values(), per_s, method.broadcasts))
            columns = [*NAMES, *judged, "trials_per_s", "broadcasts"]
        yield "summary", pd.DataFrame(rows, columns=columns)
        progress("methods and codes", done + 1, len(pairs))


def _judged(
    each: list[QuantityComparison],
    theory: QuantityPrediction,
    shift: np.ndarray,
    estimate: Estimate,
) -> dict[str, float]:
    """Bias and error of repeated estimates of one quantity, beside theory, relative to the exact
    answer.

    shift: what lies beyond the quadratic adds to the limit (`theory.amplitude`). measured_bias:
    root of |mean - exact|^2 less what chance leaves of it; bias_resolution: root of that, the
    standard error of a mean, so a bias below it cannot be seen.
    """
    exact = each[0].exact
    values = np.array([comparison.estimate for comparison in each])
    # nothing is relative to an answer of zero
    size = float(np.linalg.norm(exact)) or np.nan
    # E|mean - exact|^2 = |bias|^2 + variance/R
    chance = float((values.var(0, ddof=1) / len(values)).sum())
    bias = float(((values.mean(0) - exact) ** 2).sum()) - chance
    errors = np.array([comparison.relative_error for comparison in each])
    predicted, quadratic = (
        float(np.linalg.norm(theory.limit + more - exact)) / size for more in (shift, 0.0)
    )
    # the square of the bias on a quadratic exchanged for that with what lies beyond
    error = theory.relative_error(estimate.trials) ** 2 - quadratic**2 + predicted**2
    return {
        "predicted_bias": predicted,
        # by chance the difference may be below 0: then no bias is seen
        "measured_bias": max(bias, 0.0) ** 0.5 / size,
        "bias_resolution": chance**0.5 / size,
        "predicted_error": float(np.sqrt(np.maximum(error, 0.0))),
        "measured_error": float(np.sqrt(np.mean(errors**2))),
        "error_spread": float(errors.std(ddof=1)),
        "predicted_cosine": theory.cosine(estimate.trials),
        "measured_cosine": float(np.mean([comparison.cosine for comparison in each])),
        "z_rms": float(np.sqrt(np.mean([comparison.limit_z_rms**2 for comparison in each]))),
        "evaluations_to_0_9": theory.evaluations_for(TARGET_COSINE),
    }
