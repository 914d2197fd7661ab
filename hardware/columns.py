"""What the converters of an array's columns hide of perturbations: predicted, and measured.

A converter of step q hides a perturbation that moves a net input x by much less than q, unless x
lies at an edge between two of its levels. Patterns, positions and columns lie anywhere, so that
they dither one another: of x ~ N(m, s^2), s with what patterns and perturbations give x, a share
`rounding_gain(s, q, m)` of small changes passes in the mean. What a weight does passes the
converters of its own matrix and of all after it, and the shares multiply.
"""

import math
from typing import Any

import numpy as np

from hardware.arrays import matrices
from hardware.chip import Chip
from hardware.params import ChipParams
from hardware.parts.converter import Converter
from hardware.parts.crossbar import Crossbar
from hardware.parts.draws import Shown
from perturb.errors import InputError
from perturb.networks.layers.network import Layers
from perturb.networks.layers.part import Chain, ResidualPart
from perturb.networks.layers.products import Product, ScalingPart
from perturb.networks.objective import Objective
from perturb.seeds import derive_seed, nth_seed
from perturb.theory.rounding import rounding_gain
from perturb.training.plan import Plan
from perturb.trial.codes import CODES

Array = np.ndarray
POINTS = 8  # perturbed weights at which net inputs are looked at
PARTS = 8  # independent parts of the trials, whose spread is the standard error


class _Watching(Converter):
    """Converts as it is, and remembers number, sum and sum of squares of what comes in."""

    def __init__(self, bits: int, reach: float):
        super().__init__(bits, reach)
        self.moments: list[Array] = []

    def __call__(self, x: Array, times: int = 1) -> Array:
        self.moments.append(np.array([x.size, x.sum(), (x**2).sum()]))
        return super().__call__(x, times)


class _Watched(Crossbar):
    """Arrays of which is seen what every matrix makes its columns convert."""

    def _begin(self) -> None:
        super()._begin()
        self.seen: dict[int, Array] = {}

    def sums(self, number: int, W: Array, bias: Array | None, y: Array, shown: Shown) -> Array:
        self.outputs = watching = _Watching(self.params.output_bits, self.params.output_range)
        x = super().sums(number, W, bias, y, shown)
        # of arrays above one another, and of patterns that are evaluated one after another
        self.seen[number] = self.seen.get(number, np.zeros(3)) + sum(watching.moments)
        return x


def predicted_share(params: ChipParams, objective: Objective, w: Array, sigma: float) -> float:
    """The share of the gradient that passes the converters of the columns, by theory.

    Parameters
    ----------
    params : ChipParams
        With output_bits.
    objective : Objective
        Of an `MLP` or of `Layers`.
    w : array (n,)
    sigma : float
        Standard deviation of the perturbation of a weight.

    Returns
    -------
    float
        <g^, g>/|g|^2 in the mean over trials; 1 where nothing is hidden.

    Raises
    ------
    InputError
        Without converters of columns.

    Notes
    -----
    sum_l |g_l|^2 prod_{k >= l} G_k / |g|^2 over matrices l, with G_k the `rounding_gain` of mean
    and standard deviation of all that the columns of matrix k convert, over patterns, positions,
    columns and perturbations, what comes before being converted too. Of two paths that are added
    up, the shares of both are multiplied: then it is a lower bound. Net inputs are taken to be
    normal and slopes of neurons as they are without converters: where G is neither about 1 nor
    about 0 it is an estimate. A share below 1/2 counts as stalled, see `stalled_gradient`.

    References
    ----------
    Bussgang, Crosscorrelation functions of amplitude-distorted Gaussian signals, MIT RLE report 216
    (1952). Widrow and Kollar, Quantization noise, Cambridge (2008).

    Examples
    --------
    >>> import numpy as np, perturb, hardware
    >>> from hardware.columns import predicted_share
    >>> objective = perturb.MLP([2, 1]).objective([[0.5, 0.2], [0.1, 0.4]], [[1.0], [0.0]])
    >>> chip = hardware.load_chip("ideal")
    >>> def share(bits):
    ...     array = chip.array.model_copy(update={"output_bits": bits})
    ...     params = chip.model_copy(update={"array": array})
    ...     return round(predicted_share(params, objective, np.ones(3), sigma=0.01), 2)
    >>> share(8), share(2)
    (1.0, 0.0)
    """
    array = params.array
    if not array.output_bits:
        raise InputError("array.output_bits = 0 converts nothing: give bits")
    own = Chip(params, objective, w, np.zeros_like(w), "central", fidelity="batch").parts.array
    watched = _Watched(array, objective, 0)
    D = np.array([CODES["rademacher"].draw(w.size, sigma, 0, trial) for trial in range(POINTS)])
    points, keys = objective.whole_weights(w + D), [(trial, 0) for trial in range(POINTS)]
    own.neurons.errors(points, None, keys, watched)
    step = 2 * array.output_range / 2**array.output_bits
    gains = []
    for _, (size, total, squares) in sorted(watched.seen.items()):
        mean = total / size
        spread = float(np.sqrt(max(squares / size - mean**2, 0.0)))
        gains.append(rounding_gain(spread, step, mean) if spread > 0 else 0.0)
    # of a matrix: through its own converters and all that come after them; 1 after the last
    through = np.append(np.cumprod(gains[::-1])[::-1], 1.0)
    share = through[_first_matrices(objective)[objective.weight_layers() - 1]]
    g = objective.gradient(w)
    return float((share * g**2).sum() / (g @ g)) if g.any() else math.nan


def measured_share(
    params: ChipParams, objective: Objective, w: Array, plan: Plan, trials: int = 400
) -> tuple[float, float]:
    """The share of the gradient that trials of a chip find, whatever it has beside converters.

    Parameters
    ----------
    params : ChipParams
    objective : Objective
    w : array (n,)
    plan : Plan
        Of which method, code, sigma and seed are used.
    trials : int, optional
        In all, a multiple of 8; each shows all patterns of the objective.

    Returns
    -------
    share, stderr : float
        <g^, g>/|g|^2, about 1 on a chip that hides nothing, and its standard error, which is about
        sqrt(2/trials) there.

    Examples
    --------
    >>> import numpy as np, perturb, hardware
    >>> from hardware.columns import measured_share
    >>> from perturb.training import Plan
    >>> objective = perturb.MLP([2, 1]).objective([[0.5, 0.2], [0.1, 0.4]], [[1.0], [0.0]])
    >>> share, stderr = measured_share(hardware.load_chip("ideal"), objective, np.ones(3), Plan())
    >>> abs(share - 1) < 4 * stderr < 0.4
    True
    """
    g = objective.gradient(w)
    if not g.any():
        return math.nan, math.nan
    # a method of z needs a direction; others know of none
    v = g / np.linalg.norm(g) if plan.method.estimates_hv else np.zeros_like(w)
    seed, shares = derive_seed(plan.seed, "columns"), []
    for part in range(PARTS):
        chip = Chip(
            params,
            objective,
            w,
            v,
            plan.method,
            plan.code,
            plan.sigma,
            plan.r,
            nth_seed(seed, "part", part),
            fidelity="batch",
        )
        shares.append(chip.run(trials // PARTS).gradient @ g / (g @ g))
    return float(np.mean(shares)), float(np.std(shares, ddof=1) / math.sqrt(PARTS))


def _first_matrices(objective: Objective) -> Array:
    """Of each layer of weights the number of the first matrix whose converters it passes: its own,
    or of a batchnorm the next one.
    """
    net: Any = getattr(objective.unrestricted, "network", None)
    if not isinstance(net, Layers):
        return np.arange(len(matrices(objective)))
    first: list[int] = []
    _append(first, net.chain, 0)
    return np.array(first)


def _append(first: list[int], chain: Chain, number: int) -> int:
    """Append those of a chain whose first matrix has this number; gives the number after it."""
    for part in chain.parts:
        if isinstance(part, Product | ScalingPart):
            first.append(number)
            number += isinstance(part, Product)
        elif isinstance(part, ResidualPart):
            number = _append(first, part.path, number)
            number = _append(first, part.shortcut, number)
    return number
