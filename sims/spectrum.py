"""The study "spectrum": the eigenvalue picture of a network at its weights."""

import numpy as np
import pandas as pd

from perturb import curvature
from sims.bench import Bench, Progress, ShouldStop, Tables, facts
from sims.experiment import Experiment

EXACT = 3000  # weights; above, the density comes from Lanczos quadrature


def spectrum(experiment: Experiment, bench: Bench, progress: Progress, should_stop: ShouldStop) -> tuple[Tables, bool]:
    """Tables summary (facts), extremes (both ends) and eigenvalues: all of H, or the nodes of stochastic Lanczos quadrature.

    Networks of up to 3,000 weights are diagonalised; larger ones take [spectrum] probes x steps Hessian-vector products.
    """
    options, objective, w, n = experiment.spectrum, bench.objective, bench.w, bench.w.size
    k = min(options.k, n // 2 or 1)
    ends = curvature.eigenpairs(objective, w, min(2 * k, n), "both")
    zero = -1e-12 * float(np.abs(ends.values).max())  # rounding is not negative curvature
    if n <= EXACT:
        values = np.linalg.eigvalsh(objective.hessian(w))
        eigenvalues, products = pd.DataFrame({"eigenvalue": values, "weight": 1 / n, "exact": True}), n
        total, spread = float(values.sum()), 0.0
        negative, spread_negative = float((values < zero).mean()), 0.0
    else:
        density = curvature.spectral_density(objective, w, options.probes, options.steps)
        weights = density.weights.ravel() / len(density.nodes)
        eigenvalues = pd.DataFrame({"eigenvalue": density.nodes.ravel(), "weight": weights, "exact": False})
        estimated, share = density.integrate(lambda x: x), density.integrate(lambda x: (x < zero) / n)
        total, spread, products = float(estimated.value), float(estimated.stderr), density.n_products
        negative, spread_negative = float(share.value), float(share.stderr)
    top, bottom = float(ends.values[-1]), float(ends.values[0])
    below = ": w is no minimum" if bottom < zero else ""
    summary = facts(
        ("largest", top, 0.0, "largest eigenvalue of H"),
        ("smallest", bottom, 0.0, f"smallest eigenvalue of H{below}"),
        ("trace", total, spread, "tr H, the sum of all"),
        ("share negative", negative, spread_negative, "share of negative eigenvalues"),
        ("2/lambda_max", 2 / top if top > 0 else np.inf, 0.0, "gradient descent diverges above this rate"),
        ("2/tr H", 2 / total if total > 0 else np.inf, 0.0, "the same for weight perturbation, a trial per update: at most this"),
        ("products", products + ends.n_products, 0.0, "Hessian-vector products that this took"),
    )
    extremes = pd.DataFrame({"eigenvalue": ends.values, "residual": ends.residuals})
    return {"summary": summary, "extremes": extremes, "eigenvalues": eigenvalues}, True
