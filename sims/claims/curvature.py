"""Claims about curvature from estimates: the noisy power method, and the variance of
Hutchinson's trace.
"""

import math
from collections.abc import Iterator

import numpy as np

from perturb import curvature
from perturb.estimation.estimate import estimate
from perturb.trial.codes import CODES
from sims.claims.claim import DERIVED, Row, general, judged, mean, seeds

GROUPS = 32  # of trials, for the standard error of a variance


def power_method(seed: int) -> Iterator[Row]:
    """A power method on estimates of Hv takes their length for lambda, sqrt(1 + (n-1)/K) too long;
    v.z/V is not biased.

    K differences along a Rademacher code: z_hat = <D (D.z)>/sigma^2 on a quadratic, so that E z_hat
    = z and E|z_hat|^2 = |z|^2 (1 + (n-1)/K). At the dominant eigenvector, where the method ends,
    and at a random v.
    """
    n = 32
    repeats = 200
    objective = general(n, seed)
    w = np.zeros(n)
    # a linear unit with squared error: E is quadratic, and H the same everywhere
    values, vectors = np.linalg.eigh(objective.hessian(w))
    random = np.random.Generator(np.random.Philox(seed)).standard_normal(n)
    for name, v in (
        ("dominant eigenvector", vectors[:, -1]),
        ("random v", random / np.linalg.norm(random)),
    ):
        z = objective.hvp(w, v)
        # fewer trials than weights, as many, and more
        for K in (8, 32, 128):
            setting = f"{name}, n = {n}, K = {K}, {repeats} estimates by differences"
            found = [
                estimate(objective, w, v, K, "difference", "rademacher", seed=s).hv
                for s in seeds(seed, repeats)
            ]
            square, stderr = mean([float(one @ one) / float(z @ z) for one in found])
            predicted = math.sqrt(1 + (n - 1) / K)
            # the error of a root: that of the square over twice the root
            length = math.sqrt(square)
            yield judged(
                "rms |z_hat|/|z|",
                "Hardt and Price 2014",
                setting,
                predicted,
                length,
                stderr / (2 * length),
            )
            # v'Hv/lambda_max, 1 at the eigenvector
            bent = float(v @ z) / values[-1]
            yield judged(
                "v.z_hat/lambda_max",
                DERIVED,
                setting,
                bent,
                *mean([float(v @ one) / values[-1] for one in found]),
            )


def hutchinson(seed: int) -> Iterator[Row]:
    """One probe of Hutchinson's trace has the variance 2|H|_F^2 (Gaussian) or 2(|H|_F^2 - sum
    H_ii^2) (Rademacher).

    The probes are even parts, (E(w+D) + E(w-D) - 2 E(w))/sigma^2 = x'Hx: 2(|H|_F^2 - sum H_ii^2) +
    (k-1) sum H_ii^2, k the kurtosis of the code, in the mean tr H.
    """
    n = 24
    trials = 8192
    sigma = 0.5
    objective = general(n, seed)
    w = np.zeros(n)
    H = objective.hessian(w)
    E = objective.error(w)
    square = float((H**2).sum())
    own = float((np.diag(H) ** 2).sum())
    for name in ("gaussian", "rademacher", "ternary"):
        code = CODES[name]
        # without noise and for a quadratic E, sigma does not matter
        D = np.array([code.draw(n, sigma, seed, trial) for trial in range(trials)])
        even = (
            objective.errors_at(np.concatenate([w + D, w - D])).mean(1).reshape(2, trials).sum(0)
            - 2 * E
        ) / sigma**2
        setting = f"n = {n}, H not diagonal, {name}, {trials} even parts"
        yield judged("mean/tr H", "Hutchinson 1990", setting, 1.0, *mean(even / np.trace(H)))
        predicted = 2 * (square - own) + (code.kurtosis - 1) * own
        # of independent groups: their scatter is the error of the variance
        each = even.reshape(GROUPS, -1).var(1, ddof=1) / square
        yield judged(
            "variance/|H|_F^2", "Avron and Toledo 2011", setting, predicted / square, *mean(each)
        )
    found = [curvature.trace(objective, w, 16, "hutchinson", s) for s in seeds(seed, 400)]
    setting = f"n = {n}, H not diagonal, 400 traces of 16 products with signs"
    measured, stderr = mean([float(one.stderr) ** 2 * 16 / square for one in found])
    yield judged(
        "stated stderr^2 16/|H|_F^2",
        "Avron and Toledo 2011",
        setting,
        2 * (square - own) / square,
        measured,
        stderr,
    )
