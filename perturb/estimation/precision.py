"""How precisely E must be computed for an estimate: float32 is faster, float64 sees smaller
perturbations.
"""

import numpy as np

from perturb.errors import choose
from perturb.estimation.design import Design
from perturb.estimation.engine import has_fast_kernel
from perturb.estimation.point import Point
from perturb.networks.layers.network import LayersObjective
from perturb.networks.losses import ERRORS
from perturb.networks.mlp import MLPObjective
from perturb.trial.readout import Reading

PRECISIONS = ("auto", "float32", "float64")
# standard deviation of the rounding of one pattern's error, in units of 2^-24 of its size;
# measured: 0.7 to 5
ROUNDING = 5.0
SHARE = 0.01  # of the variance of the estimate itself, that rounding may add


def chosen(
    precision: str,
    point: Point,
    reading: Reading,
    design: Design,
) -> str:
    """The precision asked for, one of PRECISIONS; of "auto", float32 where there is a kernel and
    rounding does not count.
    """
    choose("precision", precision, dict.fromkeys(PRECISIONS))
    if precision != "auto":
        return precision
    return (
        sufficient(point, reading, design)
        if has_fast_kernel(point.objective, design)
        else "float64"
    )


def sufficient(point: Point, reading: Reading, design: Design) -> str:
    """ "float32", where it adds less than SHARE to the variance of one trial's dE_g and dE_z, else
    "float64".

    Rounding: `_size` times ROUNDING 2^-24 / sqrt(patterns), times the root of the summed squares of
    the method's weights of phases that move. The dE themselves, with the same weights for the noise
    (a converter's rounding counts as noise): (sigma |g|)^2 (n - 1)/n for dE_g and for a one-sided
    dE_z, (r sigma |z|)^2 (n - 1)/n for the regressor dw, sigma^4 |z|^2/2V for an even part, which
    is less than it has. Of an orthogonal code only the noise is left over whole periods; that the
    choice does not depend on the number of trials keeps the bits of a run that is split. Cost: one
    gradient and one Hv.
    """
    method, n, S = design.method, design.n_weights, point.objective.n_patterns
    w, v, g, z = point.w, point.v, point.gradient, point.hv
    size, smallest = _size(point), float(np.finfo(np.float32).tiny)
    # squares of what is larger, or products of what is smaller, are no float32
    if not (size < 1e15 and np.abs(w).max() < 1e15 and 1e6 * smallest < design.sigma < 1e15):
        return "float64"
    # readings that rounding moves across a converter's threshold, each by one step
    rounding = ((ROUNDING * 2.0**-24 * size) ** 2 + ROUNDING * 2.0**-24 * size * reading.step) / S
    # variance that the other weights' perturbations bring, relative to the square of the whole
    random = 0.0 if design.code.orthogonal else (n - 1) / n
    # variance of D.g over the seeds, and of what dE_z has instead
    linear = curved = random * design.sigma**2 * float(g @ g)
    if method.regressor == "dw":
        curved = random * (design.r * design.sigma) ** 2 * float(z @ z)
    elif method.estimates_hv and method.gradient_weights != method.hv_weights:
        curved = random * design.sigma**4 * float(z @ z) / (2.0 * float(v @ v))
    for weights, signal in ((method.gradient_weights, linear), (method.hv_weights, curved)):
        squares = [c * c for c in weights]
        # the kernels sum errors less those at w: a phase that stays there has no rounding
        moved = [c * c for c, phase in zip(weights, method.phases, strict=True) if any(phase)]
        if not sum(moved) * rounding <= SHARE * (signal + sum(squares) * reading.variance(S)):
            return "float64"
    return "float32"


def _size(point: Point) -> float:
    """Rms over patterns of what the rounding of a pattern's error is proportional to: the error
    itself and, where outputs almost meet their targets, what the rounding of the outputs does to
    it.
    """
    errors, objective = point.pattern_errors, point.objective
    if not isinstance(objective, (MLPObjective, LayersObjective)):
        return float(np.sqrt(np.mean(errors**2)))
    y = objective.outputs(point.w)
    # dE/dy times y: what a relative rounding of the outputs does to the error
    slopes = ERRORS[objective.network.error].e(y, objective.target) * y
    return float(np.sqrt(np.mean(errors**2 + (slopes**2).sum(-1))))
