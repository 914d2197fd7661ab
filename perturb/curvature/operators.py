"""What the tools of this room share: the operator of a symmetric Hessian, and what counts as
rounding.
"""

from collections.abc import Sequence

import numpy as np

from perturb.checks import as_weights
from perturb.errors import InputError, choose
from perturb.networks.derivatives import GaussNewtonOperator, HessianOperator
from perturb.networks.objective import Array, Objective
from perturb.networks.patterns import weights_of_layers

EPS = float(np.finfo(float).eps)
ROUNDING = 1000 * EPS  # of products with H, relative to its largest |eigenvalue|
DENSE = 2000  # weights; the matrix then takes 32 MB


def random_start(n: int, seed: int) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(n)


# what may stand for the curvature of E: H, or G of `Objective.gauss_newton_product`
CURVATURES = {"hessian": HessianOperator, "gauss_newton": GaussNewtonOperator}


def symmetric_operator(
    tool: str,
    objective: Objective,
    w: Array,
    damping: float = 0.0,
    curvature: str = "hessian",
) -> HessianOperator:
    operator = choose("curvature", curvature, CURVATURES)
    if not objective.symmetric:
        raise InputError(
            f"{tool} needs a symmetric Hessian, which this objective has not: use its hessian, or"
            " leave out feedback"
        )
    return operator(objective, w, damping)


def in_layers(
    objective: Objective, w: Array, layers: Sequence[int] | None
) -> tuple[Objective, Array]:
    """E as a function of the weights of some layers, and these; of all weights for None."""
    if layers is None:
        return objective, w
    w = as_weights("w", w, objective.n_weights)
    free = weights_of_layers("layers", layers, objective.weight_layers())
    return objective.restricted(free, w), w[free]
