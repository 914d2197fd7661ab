"""The study "spectrum": the eigenvalue picture of a network at its weights."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from pydantic import Field

from hardware.config import Table
from perturb import curvature
from sims.experiment.schema import Setup
from sims.problem import Array, Fact, Interruptible, Problem, Progress, ShouldStop, Study, facts
from sims.studies.training.theory import stable_rate

EXACT = 3000  # weights; above, the density comes from Lanczos quadrature
# of the largest |eigenvalue|: what quadrature cannot tell from zero, and where most eigenvalues of
# networks lie
NEAR_ZERO = 1e-3


class Spectrum(Table):
    """Of the study "spectrum"."""

    k: int = Field(5, ge=1, le=1000, description="eigenvalues shown at each end")
    probes: int = Field(
        10, ge=2, le=10_000, description="random vectors of the density, above 3,000 weights"
    )
    steps: int = Field(100, ge=2, le=10_000, description="Lanczos steps from each of them")


def spectrum(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables extremes (both ends), summary (facts) and eigenvalues: all of H, or the nodes of
    stochastic Lanczos quadrature.

    Networks of up to 3,000 weights are diagonalised; larger ones take [spectrum] probes x steps
    Hessian-vector products.
    """
    options = experiment.options(Spectrum)
    # one call of eigenpairs may take minutes, in which nobody asks `should_stop`
    objective = Interruptible(problem.objective, should_stop)
    w = problem.w
    n = problem.w.size
    # from either end: both halves must not overlap
    k = min(options.k, n // 2 or 1)
    ends = curvature.eigenpairs(objective, w, min(2 * k, n), "both")
    progress("parts", 1, 2)
    found = (
        _ends(ends.values, "" if ends.converged else "; not all that were asked for have converged")
        if ends.values.size
        else []
    )
    yield "extremes", pd.DataFrame({"eigenvalue": ends.values, "residual": ends.residuals})
    # of the first part; the last yield counts both
    products = Fact("products", float(ends.n_products), "Hessian-vector products that this took")
    yield "summary", facts([*found, products])

    if n <= EXACT:
        values = np.linalg.eigvalsh(objective.hessian(w))
        # each is one of n: weights sum to 1, as those of the quadrature do
        eigenvalues = pd.DataFrame({"eigenvalue": values, "weight": 1 / n, "exact": True})
        # a whole Hessian costs as much as n products
        used = n

        def over_all(f: Callable[[Array], Array]) -> tuple[float, float]:
            return float(f(values).sum()), 0.0

    else:
        density = curvature.spectral_density(objective, w, options.probes, options.steps)
        # nodes of no weight fill the rows of probes that ended early
        values = density.nodes.ravel()[density.weights.ravel() > 0]
        used = density.n_products
        # each probe's weights sum to 1: their mean over the probes
        weights = density.weights.ravel() / len(density.nodes)
        eigenvalues = pd.DataFrame(
            {"eigenvalue": density.nodes.ravel(), "weight": weights, "exact": False}
        )

        def over_all(f: Callable[[Array], Array]) -> tuple[float, float]:
            estimated = density.integrate(f)
            return float(estimated.value), float(estimated.stderr)

    # no eigenpair has converged: the ends of the density stand in
    found = found or _ends(
        np.sort(values), "" if n <= EXACT else "; a node of the quadrature, none has converged"
    )
    # relative to the largest of all: an absolute threshold would depend on the units of E
    near = NEAR_ZERO * max(float(np.abs(part).max()) for part in (values, ends.values) if part.size)
    stable = stable_rate(values) if n <= EXACT else stable_rate(density.nodes.ravel(), n * weights)
    found += _facts_of_all(over_all, n, near, stable)
    yield "eigenvalues", eigenvalues
    yield "summary", facts([*found, products._replace(value=float(used + ends.n_products))])
    progress("parts", 2, 2)


def _facts_of_all(
    over_all: Callable[[Callable[[Array], Array]], tuple[float, float]],
    n: int,
    near: float,
    stable: float,
) -> list[Fact]:
    """Facts of the whole spectrum. over_all: the sum of a function over the n eigenvalues, with its
    standard error; near: up to which one is near zero.
    """
    total, stderr = over_all(lambda x: x)
    # any sum over eigenvalues, exactly or by quadrature: the two ways differ in nothing else
    positive, positive_stderr = over_all(lambda x: np.maximum(x, 0.0))
    negative = over_all(lambda x: (x < -near) / n)
    near_zero = over_all(lambda x: (np.abs(x) <= near) / n)
    about = f"{NEAR_ZERO:g} of the largest |eigenvalue|"
    return [
        Fact("trace", total, "tr H, the sum of all", stderr=stderr),
        _share("share_negative", negative, f"clearly below zero, by {about}"),
        _share("share_near_zero", near_zero, f"within {about}"),
        Fact("positive", positive, "sum of the positive eigenvalues", stderr=positive_stderr),
        Fact(
            "2/tr H",
            2 / total if total > 0 else np.inf,
            "learning by weight perturbation, a trial per update, diverges above this rate"
            " if no eigenvalue is negative",
        ),
        Fact(
            "stable_learning_rate",
            stable,
            "of weight perturbation, a trial per update, for the modes that can be stable:"
            " those of positive curvature",
        ),
    ]


def _share(measure: str, found: tuple[float, float], where: str) -> Fact:
    return Fact(measure, found[0], f"share of eigenvalues {where}", unit="share", stderr=found[1])


def _ends(values: Array, doubt: str) -> list[Fact]:
    """Facts of the largest and smallest of ascending eigenvalues."""
    top = float(values[-1])
    bottom = float(values[0])
    below = bottom < -1e-12 * float(np.abs(values).max())  # rounding is not negative curvature
    return [
        Fact("largest", top, f"largest eigenvalue of H{doubt}"),
        Fact(
            "smallest",
            bottom,
            f"smallest eigenvalue of H{': w is no minimum' if below else ''}{doubt}",
        ),
        Fact(
            "2/lambda_max",
            2 / top if top > 0 else np.inf,
            "gradient descent diverges above this rate",
        ),
    ]
