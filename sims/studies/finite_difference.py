"""The study "finite-difference": Hv from two gradients against R{backprop}, over the
displacement; truncation meets rounding.
"""

from copy import copy

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from hardware.config import Positive, Table
from perturb.errors import InputError
from perturb.networks.derivatives import finite_difference_hvp, finite_difference_step
from perturb.networks.objective import Objective
from perturb.networks.recurrent import RecurrentObjective
from perturb.networks.settling import NotSettled
from reports.vocabulary import CENTRAL, ONE_SIDED, R_BACKPROP
from sims.experiment.schema import Setup
from sims.problem import Array, Fact, Problem, Progress, ShouldStop, Stopped, Study, facts

KINDS = (ONE_SIDED, CENTRAL)


class FiniteDifference(Table):
    """Of the study "finite-difference"."""

    smallest: Positive = Field(
        1e-12, description="smallest displacement |r v|, in units of the weights"
    )
    largest: Positive = Field(
        10.0, description="largest displacement |r v|, in units of the weights"
    )
    points: int = Field(
        79, ge=3, le=10_000, description="displacements tried, evenly spaced in the logarithm"
    )

    @model_validator(mode="after")
    def _check(self) -> "FiniteDifference":
        if not self.smallest < self.largest:
            raise InputError(
                f"smallest = {self.smallest} must be less than largest = {self.largest}: exchange"
                " them"
            )
        return self


def finite_difference(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables errors: |difference - Hv| / |Hv| of both kinds of difference at every displacement |r
    v|, NaN where a recurrent network does not settle; and summary (facts).
    """
    options = experiment.options(FiniteDifference)
    objective = problem.objective
    w = problem.w
    v = problem.v
    Hv = objective.hvp(w, v)
    length = float(np.linalg.norm(v))

    def error(kind: str, r: float | None) -> float:
        try:
            difference = finite_difference_hvp(objective, w, v, r, one_sided=kind == ONE_SIDED)
        except NotSettled:
            return float("nan")
        return float(np.linalg.norm(difference - Hv) / np.linalg.norm(Hv))

    rows: list[dict] = []
    # evenly in the logarithm: truncation and rounding are straight lines there
    displacements = np.geomspace(options.smallest, options.largest, options.points)
    for done, displacement in enumerate(displacements, 1):
        if stopped := should_stop():
            break
        rows += [
            {
                "kind": kind,
                "displacement": displacement,
                # r = |r v|/|v|
                "error": error(kind, displacement / length),
            }
            for kind in KINDS
        ]
        progress("displacements", done, len(displacements))
    if rows:
        errors = pd.DataFrame(rows)
        yield "errors", errors
        # an interrupted study has the facts of the displacements that were tried
        found = [floor(problem)]
        for kind in KINDS:
            own = errors[errors["kind"] == kind]
            tried = own["displacement"].to_numpy()
            measured = own["error"].to_numpy()
            # a displacement at which a network did not settle is not the best
            best = int(np.where(np.isnan(measured), np.inf, measured).argmin())
            chosen = finite_difference_step(w, v, one_sided=kind == ONE_SIDED)
            order, stderr = slope(tried, measured)
            found += [
                Fact("slope", order, "order of the truncation error", kind, stderr=stderr),
                Fact(
                    "smallest_error",
                    measured[best],
                    "relative error at the best displacement tried",
                    kind,
                ),
                Fact(
                    "best_displacement", tried[best], "where that is, in units of the weights", kind
                ),
                Fact(
                    "chosen_displacement",
                    chosen * length,
                    "which the program chooses by itself",
                    kind,
                ),
                Fact(
                    "error_there",
                    error(kind, None),
                    "relative error at the displacement chosen",
                    kind,
                ),
            ]
        yield "summary", facts(found)
    if stopped:
        raise Stopped


def floor(problem: Problem) -> Fact:
    """What is left of an error in R{backprop}: by rounding, or by the tolerance of a relaxation."""
    objective = problem.objective
    w = problem.w
    v = problem.v
    if isinstance(objective, RecurrentObjective) and objective.network.solver == "relax":
        # a relaxation that ends at its tolerance is compared with the exact solution of the same
        # equations
        # a copy: the experiment's own network keeps its solver
        direct = copy(objective.network)
        direct.solver = "direct"
        Hv = direct.objective(objective.x, objective.target).hvp(w, v)
        left = float(np.linalg.norm(objective.hvp(w, v) - Hv) / np.linalg.norm(Hv))
        return Fact(
            "error",
            left,
            "relative error of R{backprop} by its tolerance: against a direct solution",
            R_BACKPROP,
        )
    left = rounding(objective, w, v)
    return Fact(
        "error",
        left,
        "relative error of R{backprop} by rounding: its change if v is scaled",
        R_BACKPROP,
    )


def rounding(objective: Objective, w: Array, v: Array) -> float:
    """Relative rounding error of Hv, from H(cv)/c - Hv, which is zero but for rounding: root of
    the mean square over ten c.
    """
    Hv = objective.hvp(w, v)
    # Hv is linear in v; powers of two would only change exponents, and show nothing
    changes = [objective.hvp(w, c * v) / c - Hv for c in 1.1 ** np.arange(1, 11)]
    return float(np.sqrt(np.mean([change @ change for change in changes]) / (Hv @ Hv)))


def slope(displacement: Array, error: Array) -> tuple[float, float]:
    """Slope of log error against log displacement, with its standard error, where truncation rules:
    errors from 100 times the smallest up to 1 %. NaN with fewer than three points there; errors
    that are NaN do not count.
    """
    known = ~np.isnan(error)
    displacement = displacement[known]
    error = error[known]
    if not known.any():
        return float("nan"), float("nan")
    chosen = (
        # right of the best: neither rounding, nor terms of higher order
        (error > 100 * error.min()) & (error < 1e-2) & (displacement > displacement[error.argmin()])
    )
    if chosen.sum() < 3:
        return float("nan"), float("nan")
    x = np.log(displacement[chosen])
    y = np.log(error[chosen])
    # unscaled: (X'X)^-1 alone, times the residual's variance RSS / (points - 2) below
    coefficients, covariance = np.polyfit(x, y, 1, cov="unscaled")
    residual = y - np.polyval(coefficients, x)
    return float(coefficients[0]), float(
        np.sqrt(covariance[0, 0] * (residual @ residual) / (chosen.sum() - 2))
    )
