"""The study "compare": every method on its own chip, at equal numbers of evaluations, beside
exact R{backprop}.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import nan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hardware.chip import Chip
from hardware.error_noise import ErrorVaries
from hardware.params import ChipParams
from hardware.signals import Interval
from perturb.estimation.engine import has_kernel
from perturb.estimation.solution import Estimate
from perturb.theory.comparison import Comparison, compare_at
from perturb.theory.estimates import predict
from perturb.theory.predictions import Prediction
from perturb.theory.quadratic import Curvature
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from reports.vocabulary import TARGET_COSINE, together
from sims.experiment.schema import Setup
from sims.problem import Problem, Progress, ShouldStop, Stopped, Study


class Candidate(NamedTuple):
    """One of the methods that a run sets side by side."""

    method: str
    code: str
    sigma: float
    r: float


def candidates(experiment: Setup) -> tuple[Candidate, list[Candidate]]:
    """The method of [estimation], and all that are compared, in the order of METHODS and CODES."""
    e = experiment.estimation
    primary = Candidate(e.method, e.code, e.sigma, e.r)
    others = [
        Candidate(other.method, other.code, other.sigma or e.sigma, other.r or e.r)
        for other in e.compare_with
    ]
    # twice the same method is run once
    order = list(dict.fromkeys([primary, *others]))
    order.sort(key=lambda each: (list(METHODS).index(each.method), list(CODES).index(each.code)))
    return primary, order


class _Tables:
    """The rows of a run's tables, method by method."""

    def __init__(self) -> None:
        self.summary: list[dict] = []
        self.convergence: list[dict] = []
        self.weights: list[pd.DataFrame] = []
        self.timeline: list[tuple] = []
        self.energy: list[tuple] = []

    def add_chip(self, candidate: Candidate, chip: Chip) -> None:
        """When the parts of a chip were busy, and what each cause has spent."""
        name = (candidate.method, candidate.code)
        self.timeline += [(*name, *interval) for interval in chip.trace]
        self.energy += [(*name, cause, joules) for cause, joules in chip.energy_by_cause.items()]

    def frames(self) -> Study:
        # nothing was finished: no table at all, rather than empty ones
        if not self.summary:
            return
        yield "summary", pd.DataFrame(self.summary)
        yield "weights", pd.concat(self.weights, ignore_index=True)
        yield "convergence", pd.DataFrame(self.convergence)
        timeline = ["method", "code", *Interval._fields]
        yield "timeline", pd.DataFrame(self.timeline, columns=timeline)
        energy = ["method", "code", "cause", "energy_j"]
        yield "energy", pd.DataFrame(self.energy, columns=energy)


def compare_methods(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables summary, weights, convergence, timeline, energy; of a method that was interrupted,
    what it had done.
    """
    e = experiment.estimation
    # of network and point: once for all methods
    known = problem.curvatures(e.presentation)
    primary, order = candidates(experiment)
    evaluations = e.trials * METHODS[e.method].evaluations_per_trial
    tables = _Tables()
    stopped = False
    for candidate in order:
        per_trial = METHODS[candidate.method].evaluations_per_trial
        # equal evaluations, not equal trials: that is what a chip pays for
        trials = max(3, round(evaluations / per_trial))
        chip = _chip(experiment, problem, candidate)
        predicted = _prediction(problem, chip, candidate, known, trials, experiment)
        name = f"{candidate.method}/{candidate.code}"
        tell = partial(_tell, progress, name, per_trial, evaluations)
        start = time.perf_counter()
        estimate: Estimate | None = None
        # at every checkpoint a point of the convergence
        for checkpoint in _checkpoints(trials):
            estimate, stopped = _run(chip, estimate, checkpoint, tell, should_stop)
            if stopped:
                break
            if problem.summary_only:
                continue
            assert estimate is not None
            compared = compare_at(chip.point, estimate, known)
            tables.convergence += _convergence_rows(candidate, estimate, compared, predicted)
        # fewer than three trials have no standard error
        if estimate is None or estimate.trials < 3:
            break
        # where it was stopped, which need not be a checkpoint
        compared = compare_at(chip.point, estimate, known)
        fixed = {
            "primary": candidate == primary,
            "status": "complete" if estimate.trials == trials else "partial",
            # before the run without faults, which is no part of it
            "wall_time_s": time.perf_counter() - start,
        }
        faultless = None
        # what the faults cost: the same die and seed without them
        if not stopped and chip.fault_free is not None:
            tell = partial(_tell, progress, f"{name} without faults", 1, trials)
            faultless = _without_faults(
                chip, chip.fault_free, candidate, trials, known, tell, should_stop
            )
            stopped = faultless is None
        tables.summary += _summary_rows(
            candidate, estimate, compared, predicted, chip, faultless, fixed
        )
        tables.weights.append(_weights(candidate, problem, compared))
        tables.add_chip(candidate, chip)
        if stopped:
            break
    yield from tables.frames()
    # after the tables are out: whoever runs the study keeps what was yielded
    if stopped:
        raise Stopped


def _tell(progress: Progress, name: str, each: int, in_all: int, trials: int) -> None:
    """How many of `in_all` are done after a number of trials, each of which is `each` of them."""
    progress(name, trials * each, in_all)


def _run(
    chip: Chip,
    estimate: Estimate | None,
    trials: int,
    tell: Callable[[int], None],
    should_stop: ShouldStop,
) -> tuple[Estimate | None, bool]:
    """Run a chip that stands at `estimate` until it has done `trials`, in pieces, so that an
    interruption is heard: what it then estimates, and whether it was interrupted.
    """
    done = estimate.trials if estimate else 0
    while done < trials:
        if should_stop():
            return estimate, True
        estimate = chip.run(min(_piece(chip), trials - done))
        done = estimate.trials
        tell(done)
    return estimate, False


def _chip(experiment: Setup, problem: Problem, candidate: Candidate) -> Chip:
    return Chip(
        experiment.made_chip(),
        problem.objective,
        problem.w,
        problem.v,
        # method, code, sigma, r in the order of Candidate
        *candidate,
        experiment.run.seed,
        experiment.estimation.presentation,
        experiment.run.fidelity,
        precision=experiment.run.precision,
    )


def _prediction(
    problem: Problem,
    chip: Chip,
    candidate: Candidate,
    known: list[Curvature],
    trials: int,
    experiment: Setup,
) -> Prediction:
    """With a warning of what cannot be predicted."""
    varies = ErrorVaries(chip.objective, chip.w, candidate.sigma, chip.presented)
    noise = varies.on(chip.params)
    predicted = predict(
        problem.objective,
        problem.w,
        problem.v,
        METHODS[candidate.method],
        chip.design.code,
        candidate.sigma,
        candidate.r,
        noise.variance**0.5,
        experiment.estimation.presentation,
        known,
        trials,
        experiment.run.seed,
    )
    says = [f"no prediction: {noise.why}"] if noise.why else []
    return replace(predicted, warnings=[*predicted.warnings, *says])


def _without_faults(
    chip: Chip,
    params: ChipParams,
    candidate: Candidate,
    trials: int,
    known: list[Curvature],
    tell: Callable[[int], None],
    should_stop: ShouldStop,
) -> Comparison | None:
    """The same die and seed once more, in batches and without the faults of the run; None if
    interrupted.
    """
    design = chip.design
    # in batches and without a trace: only the estimate is wanted
    again = Chip(
        params,
        chip.objective,
        chip.w,
        chip.v,
        *candidate,
        design.seed,
        design.presentation,
        "batch",
        0,
        chip.precision,
    )
    estimate, stopped = _run(again, None, trials, tell, should_stop)
    if stopped:
        return None
    assert estimate is not None
    return compare_at(chip.point, estimate, known)


def _checkpoints(trials: int) -> list[int]:
    # evenly spaced in the logarithm, and the end
    points = [8 * 2**i for i in range(trials.bit_length()) if 8 * 2**i < trials]
    return [*points, trials]


def _piece(chip: Chip) -> int:
    """Trials that take about 0.2 s, so that an interruption is heard."""
    # without a kernel it is not known how long a trial takes
    if not (has_kernel(chip.objective) and chip.kernels_suffice):
        return 64
    # multiplications of a trial, about
    cost = chip.presented * chip.w.size * len(chip.design.method.phases)
    return (
        max(64, 3_000_000_000 // cost)
        if chip.fidelity != "event"
        else max(1, min(1000, 100_000_000 // cost))
    )


def _summary_rows(
    candidate: Candidate,
    estimate: Estimate,
    compared: Comparison,
    predicted: Prediction,
    chip: Chip,
    faultless: Comparison | None,
    fixed: dict[str, Any],
) -> list[dict[str, Any]]:
    method = METHODS[candidate.method]
    rows = []
    for quantity in method.quantities:
        measured = getattr(compared, quantity)
        theory = getattr(predicted, quantity)
        # at the trials that were done, also of a partial run
        expected = theory.cosine(estimate.trials)
        # infinite where the limit of the method itself is too far off
        needed = theory.evaluations_for(TARGET_COSINE)
        # a run without faults was not repeated
        unhurt = getattr(faultless, quantity).cosine if faultless is not None else nan
        rows.append(
            {
                "quantity": quantity,
                "method": candidate.method,
                "code": candidate.code,
                "n_weights": chip.w.size,
                "trials": estimate.trials,
                "evaluations": estimate.evaluations,
                "cosine": measured.cosine,
                "relative_error": measured.relative_error,
                "rms_stderr": measured.rms_stderr,
                "z_rms": measured.z_rms,
                "limit_relative_error": measured.limit_relative_error,
                "chip_time_s": chip.time_s,
                "energy_j": chip.energy_j,
                "wall_time_s": fixed["wall_time_s"],
                "events": chip.events,
                "limit_z_rms": measured.limit_z_rms,
                # the label is about z, or about the gradient where that is all
                "label": method.label if quantity == "hv" or not method.estimates_hv else "",
                "sigma": candidate.sigma,
                # a method without displacement has no r
                "r": candidate.r if method.displaced else np.nan,
                "broadcasts": method.broadcasts if quantity == "hv" else "dE",
                "predicted_cosine": expected,
                "limit_cosine": theory.limit_cosine,
                "evaluations_to_0_9": needed,
                "imperfect": not chip.kernels_suffice,
                "unknown_weights": int(np.isnan(measured.estimate).sum()),
                "exact_is_zero": not measured.exact.any(),
                "primary": fixed["primary"],
                "status": fixed["status"],
                "warnings": together([*predicted.warnings, *estimate.unknown]),
                "trial_ns": chip.time_s / estimate.trials * 1e9,
                "busiest": max(chip.timing.busy, key=chip.timing.busy.__getitem__),
                "busiest_share": max(chip.timing.busy.values()),
                "converter_share": chip.timing.busy["conversion"],
                "bus_share": chip.timing.busy["bus"],
                "incidents": together(chip.incidents),
                "faultless_cosine": unhurt,
                "predicted_relative_error": theory.relative_error(estimate.trials),
                "df": measured.df,
            }
        )
    return rows


def _convergence_rows(
    candidate: Candidate, estimate: Estimate, compared: Comparison, predicted: Prediction
) -> list[dict[str, Any]]:
    return [
        {
            "method": candidate.method,
            "code": candidate.code,
            "quantity": quantity,
            "trials": estimate.trials,
            "evaluations": estimate.evaluations,
            "cosine": getattr(compared, quantity).cosine,
            "relative_error": getattr(compared, quantity).relative_error,
            "predicted_cosine": getattr(predicted, quantity).cosine(estimate.trials),
            "predicted_relative_error": (
                getattr(predicted, quantity).relative_error(estimate.trials)
            ),
        }
        for quantity in METHODS[candidate.method].quantities
    ]


def _weights(candidate: Candidate, problem: Problem, compared: Comparison) -> pd.DataFrame:
    unit_from, unit_to = problem.network.weight_units()
    g = compared.gradient
    z = compared.hv
    return pd.DataFrame(
        {
            "method": candidate.method,
            "code": candidate.code,
            "index": np.arange(problem.w.size),
            "unit_from": unit_from,
            "unit_to": unit_to,
            "w": problem.w,
            "v": problem.v,
            "g_exact": g.exact,
            "g_hat": g.estimate,
            "g_stderr": g.stderr,
            "hv_exact": z.exact,
            "hv_hat": z.estimate,
            "hv_stderr": z.stderr,
            "hv_limit": z.limit,
            "g_df": g.df,
            "hv_df": z.df,
        }
    )
