"""The study "spectrum": the eigenvalue picture of a network at its weights, and of its layers."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from pydantic import Field

from hardware.config import Table
from perturb import curvature
from perturb.curvature import Estimated
from perturb.networks.objective import Objective
from reports.studies.spectrum import BLOCKS
from sims.experiment.schema import Setup
from sims.problem import Array, Fact, Interruptible, Problem, Progress, ShouldStop, Study, facts
from sims.studies.training.theory import stable_rate

EXACT = 3000  # weights; above, the density comes from Lanczos quadrature
# of the largest |eigenvalue|: what quadrature cannot tell from zero, and where most eigenvalues of
# networks lie
NEAR_ZERO = 1e-3
LAYER_PROBES = 90  # products at most, for the trace of each layer, above EXACT weights


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
    """Tables extremes (both ends), summary (facts), eigenvalues: all of H, or the nodes of
    stochastic Lanczos quadrature; and, of a network with more than one layer, layers: the block of
    H of each.

    Networks of up to 3,000 weights are diagonalised; larger ones take [spectrum] probes x steps
    Hessian-vector products, and for each layer up to LAYER_PROBES for its trace and what its
    largest eigenvalue takes by Lanczos.
    """
    options = experiment.options(Spectrum)
    # one call of eigenpairs may take minutes, in which nobody asks `should_stop`
    objective = Interruptible(problem.objective, should_stop)
    w = problem.w
    n = problem.w.size
    # from either end: both halves must not overlap
    k = min(options.k, n // 2 or 1)
    ends = curvature.eigenpairs(objective, w, min(2 * k, n), "both")
    progress("parts", 1, 3)
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
        H = objective.hessian(w)
        values = np.linalg.eigvalsh(H)
        # each is one of n: weights sum to 1, as those of the quadrature do
        eigenvalues = pd.DataFrame({"eigenvalue": values, "weight": 1 / n, "exact": True})
        # a whole Hessian costs as much as n products
        used = n

        def over_all(f: Callable[[Array], Array]) -> Estimated:
            return Estimated(float(f(values).sum()), 0.0, 0)

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

        over_all = density.integrate

    # no eigenpair has converged: the ends of the density stand in
    found = found or _ends(
        np.sort(values), "" if n <= EXACT else "; a node of the quadrature, none has converged"
    )
    # relative to the largest of all: an absolute threshold would depend on the units of E
    near = NEAR_ZERO * max(float(np.abs(part).max()) for part in (values, ends.values) if part.size)
    stable = stable_rate(values) if n <= EXACT else stable_rate(density.nodes.ravel(), n * weights)
    found += _facts_of_all(over_all, n, near, stable)
    yield "eigenvalues", eigenvalues
    used += ends.n_products
    yield "summary", facts([*found, products._replace(value=float(used))])
    progress("parts", 2, 3)

    layers = objective.weight_layers()
    # of a single layer it would be all of this again
    if len(np.unique(layers)) > 1:
        rows = blocks(H, layers) if n <= EXACT else estimated_blocks(objective, w, layers)
        table = pd.DataFrame()
        for table in rows:
            yield "layers", table
        used += 0 if n <= EXACT else int(table["products"].sum())
        yield "summary", facts([*found, products._replace(value=float(used))])
    progress("parts", 3, 3)


def blocks(H: Array, layers: Array) -> Iterator[pd.DataFrame]:
    """The table of the diagonal blocks of H (n, n), one for each layer, exactly.

    layers: the layer of each weight, see `Objective.weight_layers`.
    """
    rows = []
    for layer in np.unique(layers).tolist():
        own = np.flatnonzero(layers == layer)
        values = np.linalg.eigvalsh(H[np.ix_(own, own)])
        rows.append((layer, own.size, float(values.sum()), 0.0, np.inf, float(values[-1]), 0.0, 0))
    yield pd.DataFrame(rows, columns=list(BLOCKS))


def estimated_blocks(objective: Objective, w: Array, layers: Array) -> Iterator[pd.DataFrame]:
    """The same from products, with a row more each time: the trace by probes, the largest
    eigenvalue by Lanczos, NaN if that has not converged.
    """
    rows = []
    for layer in np.unique(layers).tolist():
        own = objective.of_layers([layer], w)
        at = w[layers == layer]
        trace = curvature.trace(own, at, LAYER_PROBES)
        top = curvature.eigenpairs(own, at, 1, "largest")
        largest = (top.values[-1], top.residuals[-1]) if top.values.size else (np.nan, np.nan)
        used = trace.n_products + top.n_products
        estimated = (float(trace.value), float(trace.stderr), trace.df)
        rows.append((layer, at.size, *estimated, *largest, used))
        yield pd.DataFrame(rows, columns=list(BLOCKS))


def _facts_of_all(
    over_all: Callable[[Callable[[Array], Array]], Estimated],
    n: int,
    near: float,
    stable: float,
) -> list[Fact]:
    """Facts of the whole spectrum. over_all: the sum of a function over the n eigenvalues, with its
    standard error; near: up to which one is near zero.
    """
    total = over_all(lambda x: x)
    # any sum over eigenvalues, exactly or by quadrature: the two ways differ in nothing else
    positive = over_all(lambda x: np.maximum(x, 0.0))
    negative = over_all(lambda x: (x < -near) / n)
    near_zero = over_all(lambda x: (np.abs(x) <= near) / n)
    about = f"{NEAR_ZERO:g} of the largest |eigenvalue|"
    trace = float(total.value)
    # Student's interval, of few probes; none of what is exact
    low, high = map(float, total.interval()) if total.stderr else (np.nan, np.nan)
    return [
        _sum("trace", total, "tr H, the sum of all")._replace(low=low, high=high),
        _share("share_negative", negative, f"clearly below zero, by {about}"),
        _share("share_near_zero", near_zero, f"within {about}"),
        _sum("positive", positive, "sum of the positive eigenvalues"),
        Fact(
            "2/tr H",
            2 / trace if trace > 0 else np.inf,
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


def _share(measure: str, found: Estimated, where: str) -> Fact:
    # no interval: nodes stand for eigenvalues that lie beyond the limit, too
    return _sum(measure, found, f"share of eigenvalues {where}")._replace(unit="share")


def _sum(measure: str, found: Estimated, meaning: str) -> Fact:
    return Fact(measure, float(found.value), meaning, stderr=float(found.stderr))


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
