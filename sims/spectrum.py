"""The eigenvalue picture of an experiment's network at its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from perturb import curvature
from sims.experiment import load_experiment
from sims.runner import prepare

EXACT = 3000  # weights; above, the density comes from Lanczos quadrature


@dataclass(frozen=True)
class Spectrum:
    """eigenvalues: columns eigenvalue, weight (its share of the spectrum). All of H's (exact), or the nodes of stochastic
    Lanczos quadrature. extremes: columns eigenvalue, residual, of both ends. facts: name to (value, standard error, meaning).
    """

    name: str
    n_weights: int
    exact: bool
    eigenvalues: pd.DataFrame
    extremes: pd.DataFrame
    facts: dict[str, tuple[float, float, str]]
    n_products: int


def run_spectrum(
    name_or_path: str | Path, set: Mapping[str, object] | None = None, k: int = 5, probes: int = 10, steps: int = 100
) -> Spectrum:
    """Extreme eigenvalues (k at each end), spectral density, trace and the learning rates they allow.

    Networks of up to 3,000 weights are diagonalised; larger ones take `probes` x `steps` Hessian-vector products. InputError for
    a user's mistake.
    """
    experiment = load_experiment(name_or_path, set)
    bench = prepare(experiment)
    objective, w, n = bench.objective, bench.w, bench.w.size
    k = min(k, n // 2 or 1)
    ends = curvature.eigenpairs(objective, w, min(2 * k, n), "both")
    extremes = pd.DataFrame({"eigenvalue": ends.values, "residual": ends.residuals})
    zero = -1e-12 * float(np.abs(ends.values).max())  # rounding is not negative curvature
    if n <= EXACT:
        values = np.linalg.eigvalsh(objective.hessian(w))
        eigenvalues, products = pd.DataFrame({"eigenvalue": values, "weight": 1 / n}), n
        total, spread = float(values.sum()), 0.0
        negative, spread_negative = float((values < zero).mean()), 0.0
    else:
        density = curvature.spectral_density(objective, w, probes, steps)
        eigenvalues = pd.DataFrame({"eigenvalue": density.nodes.ravel(), "weight": density.weights.ravel() / len(density.nodes)})
        estimated, share = density.integrate(lambda x: x), density.integrate(lambda x: (x < zero) / n)
        total, spread, products = float(estimated.value), float(estimated.stderr), density.n_products
        negative, spread_negative = float(share.value), float(share.stderr)
    top, bottom = float(ends.values[-1]), float(ends.values[0])
    facts = {
        "largest": (top, 0.0, "largest eigenvalue of H"),
        "smallest": (bottom, 0.0, "smallest eigenvalue of H" + (": w is no minimum" if bottom < 0 else "")),
        "trace": (total, spread, "tr H, the sum of all"),
        "share_negative": (negative, spread_negative, "share of negative eigenvalues"),
        "eta_gradient_descent": (2 / top if top > 0 else np.inf, 0.0, "gradient descent diverges above this rate, 2/lambda_max"),
        "eta_weight_perturbation": (
            2 / total if total > 0 else np.inf, 0.0, "the same for weight perturbation, one trial per update, at most 2/tr H",
        ),
    }  # fmt: skip
    return Spectrum(experiment.name, n, n <= EXACT, eigenvalues, extremes, facts, products + ends.n_products)
