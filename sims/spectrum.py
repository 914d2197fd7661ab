"""The study "spectrum": the eigenvalue picture of a network at its weights."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from perturb import curvature
from sims.bench import Array, Attentive, Bench, Progress, ShouldStop, Study, facts
from sims.experiment.schema import Experiment
from sims.training import stable_rate

EXACT = 3000  # weights; above, the density comes from Lanczos quadrature
NEAR_ZERO = 1e-3  # of the largest |eigenvalue|: what quadrature cannot tell from zero, and where most eigenvalues of networks lie


def spectrum(experiment: Experiment, bench: Bench, progress: Progress, should_stop: ShouldStop) -> Study:
    """Tables extremes (both ends), summary (facts) and eigenvalues: all of H, or the nodes of stochastic Lanczos quadrature.

    Networks of up to 3,000 weights are diagonalised; larger ones take [spectrum] probes x steps Hessian-vector products.
    """
    options, objective, w, n = experiment.spectrum, Attentive(bench.objective, should_stop), bench.w, bench.w.size
    k = min(options.k, n // 2 or 1)
    ends = curvature.eigenpairs(objective, w, min(2 * k, n), "both")
    progress("parts", 1, 2)
    found = (
        _ends(ends.values, "" if ends.converged else "; not all that were asked for have converged") if ends.values.size else []
    )
    yield "extremes", pd.DataFrame({"eigenvalue": ends.values, "residual": ends.residuals})
    products = ("products", float(ends.n_products), 0.0, "Hessian-vector products that this took")
    yield "summary", facts(*found, products)

    if n <= EXACT:
        values = np.linalg.eigvalsh(objective.hessian(w))
        eigenvalues = pd.DataFrame({"eigenvalue": values, "weight": 1 / n, "exact": True})
        used = n

        def over_all(f: Callable[[Array], Array]) -> tuple[float, float]:
            return float(f(values).sum()), 0.0
    else:
        density = curvature.spectral_density(objective, w, options.probes, options.steps)
        values, used = density.nodes.ravel()[density.weights.ravel() > 0], density.n_products
        weights = density.weights.ravel() / len(density.nodes)
        eigenvalues = pd.DataFrame({"eigenvalue": density.nodes.ravel(), "weight": weights, "exact": False})

        def over_all(f: Callable[[Array], Array]) -> tuple[float, float]:
            estimated = density.integrate(f)
            return float(estimated.value), float(estimated.stderr)

    found = found or _ends(np.sort(values), "" if n <= EXACT else "; a node of the quadrature, none has converged")
    near = NEAR_ZERO * max(float(np.abs(part).max()) for part in (values, ends.values) if part.size)
    total, stderr = over_all(lambda x: x)
    positive, positive_stderr = over_all(lambda x: np.maximum(x, 0.0))
    stable = stable_rate(values) if n <= EXACT else stable_rate(density.nodes.ravel(), n * weights)
    about = f"{NEAR_ZERO:g} of the largest |eigenvalue|"
    yield "eigenvalues", eigenvalues
    yield (
        "summary",
        facts(
            *found,
            ("trace", total, stderr, "tr H, the sum of all"),
            ("share negative", *over_all(lambda x: (x < -near) / n), f"share of eigenvalues clearly below zero, by {about}"),
            ("share near zero", *over_all(lambda x: (np.abs(x) <= near) / n), f"share of eigenvalues within {about}"),
            ("positive", positive, positive_stderr, "sum of the positive eigenvalues"),
            (
                "2/tr H",
                2 / total if total > 0 else np.inf,
                0.0,
                "learning by weight perturbation, a trial per update, diverges above this rate if no eigenvalue is negative",
            ),
            (
                "stable learning rate",
                stable,
                0.0,
                "of weight perturbation, a trial per update, for the modes that can be stable: those of positive curvature",
            ),
            (*products[:1], float(used + ends.n_products), *products[2:]),
        ),
    )
    progress("parts", 2, 2)


def _ends(values: Array, doubt: str) -> list[tuple[str, float, float, str]]:
    """Facts of the largest and smallest of ascending eigenvalues."""
    top, bottom = float(values[-1]), float(values[0])
    below = bottom < -1e-12 * float(np.abs(values).max())  # rounding is not negative curvature
    return [
        ("largest", top, 0.0, f"largest eigenvalue of H{doubt}"),
        ("smallest", bottom, 0.0, f"smallest eigenvalue of H{': w is no minimum' if below else ''}{doubt}"),
        ("2/lambda_max", 2 / top if top > 0 else np.inf, 0.0, "gradient descent diverges above this rate"),
    ]
