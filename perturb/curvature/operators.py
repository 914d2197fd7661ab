"""What the tools of this room share: the operator of a symmetric Hessian, and what counts as
rounding.
"""

import numpy as np

from perturb.errors import InputError
from perturb.networks.derivatives import HessianOperator
from perturb.networks.objective import Array, Objective

EPS = float(np.finfo(float).eps)
ROUNDING = 1000 * EPS  # of products with H, relative to its largest |eigenvalue|
DENSE = 2000  # weights; the matrix then takes 32 MB


def random_start(n: int, seed: int) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(n)


def symmetric_operator(
    tool: str, objective: Objective, w: Array, damping: float = 0.0
) -> HessianOperator:
    if not objective.symmetric:
        raise InputError(
            f"{tool} needs a symmetric Hessian, which this objective has not: use its hessian, or"
            " leave out feedback"
        )
    return HessianOperator(objective, w, damping)
