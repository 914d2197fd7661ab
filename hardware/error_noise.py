"""How much one evaluation of E varies: its readings, 1/f noise, reading of the weights, and the
arrays, whose noise is carried to E to first order.

A column of net input x_c with noise of variance s^2 moves E by dE/dx_c times that, so that

    Var E = s^2 sum_c (dE/dx_c)^2                over all columns, positions and patterns

with dE/dx from one backward pass, exactly. Arrays above one another, whose sums are added, have a
noise each. A converter of step q counts as noise of variance q^2/12, of columns as of rows (dE/dy_i
of what drives them), where trials and noise move what it converts by half a step or more: rounding
errors of two values that differ by a Gaussian number of standard deviation s correlate by
(6/pi^2) sum_k exp(-2 (pi k s/q)^2)/k^2 (Widrow and Kollar, Quantization Noise, 2008), which is then
0.004. By less, rounding is no noise, but hides part of the perturbations, the same in every trial.
Rows that patterns drive are converted to the same in all trials: that is no noise either.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hardware.array_tables import ArrayParams
from hardware.arrays import chain_of, slices
from hardware.params import ChipParams
from perturb.networks.layers.network import AT_ONCE, Layers
from perturb.networks.layers.part import Chain, Part, ResidualPart
from perturb.networks.layers.products import Product
from perturb.networks.losses import ERRORS
from perturb.networks.objective import Objective
from perturb.trial.readout import Reading

Array = np.ndarray
DITHERED = 0.5  # steps of a converter, rms, from which on its rounding is noise


class ErrorNoise(NamedTuple):
    """variance: of one evaluation of E, NaN where it cannot be known; why: then the reason, a
    sentence, else "".
    """

    variance: float
    why: str


@dataclass
class _Sums:
    """Of one array of converters: how far trials move what it converts, as a sum of squares over
    `count` numbers; slopes: sum of (dE/dx)^2.
    """

    slopes: float = 0.0
    moved: float = 0.0
    count: int = 0


@dataclass
class Carried:
    """What reaches E from the arrays of a network, at one w.

    columns, rows: of the matrix of each number. Rows of the first matrices, which patterns drive,
    have nothing. Slopes are of the mean over all patterns.
    """

    columns: dict[int, _Sums] = field(default_factory=dict)
    rows: dict[int, _Sums] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)  # rows of its matrix, the bias too


class ErrorVaries:
    """How E of a network varies at a point, on chips of any parameters.

    w (n,); sigma: of a perturbation; presented: patterns in an evaluation.
    """

    def __init__(self, objective: Objective, w: Array, sigma: float, presented: int):
        self.objective = objective
        self.w = w
        self.sigma = sigma
        self.presented = presented

    @cached_property
    def _slope(self) -> float:
        g = self.objective.gradient(self.w)
        return float(g @ g)

    @cached_property
    def _carried(self) -> Carried | None:
        return carried_to_error(self.objective, self.w, self.sigma)

    def on(self, chip: ChipParams) -> ErrorNoise:
        """Of independent contributions, whose variances add."""
        unit = chip.error_unit
        readings = Reading(unit.noise, unit.bits, unit.range).variance(self.presented)
        # 1/f as the difference of neighbouring evaluations sees it, twice its variance per octave
        variance = readings + 2 * unit.flicker**2
        if read := chip.weights.read_noise:
            # reaches E through |g|
            variance += read**2 * self._slope
        p = chip.array
        if not (p.output_noise or p.output_bits or p.input_bits) or self._carried is None:
            return ErrorNoise(variance, "")
        arrays = _of_arrays(p, self._carried)
        # slopes are of a mean over all patterns: of some, S/presented as much
        arrays_too = variance + arrays.variance * self.objective.n_patterns / self.presented
        return ErrorNoise(arrays_too, arrays.why)


def _of_arrays(p: ArrayParams, carried: Carried) -> ErrorNoise:
    total = 0.0
    for number, columns in carried.columns.items():
        above = len(slices(carried.sizes[number], p.rows))
        for bits, reach, sums, times, what in (
            (p.output_bits, p.output_range, columns, above, "columns"),
            (p.input_bits, p.input_range, carried.rows[number], 1, "rows"),
        ):
            # what never moves is converted to the same always
            if not bits or not sums.moved:
                continue
            step = 2 * reach / 2**bits
            # noise of the columns comes before their converter: a dither
            dither = p.output_noise if what == "columns" else 0.0
            steps = math.hypot(math.sqrt(sums.moved / sums.count), dither) / step
            if steps < DITHERED:
                return ErrorNoise(math.nan, _hidden(what, number, steps))
            total += times * step**2 / 12 * sums.slopes
        total += above * p.output_noise**2 * columns.slopes
    return ErrorNoise(total, "")


def _hidden(what: str, number: int, steps: float) -> str:
    key = {"columns": "output", "rows": "input"}[what]
    return (
        f"the converters of {what} of layer {number + 1} hide perturbations, which move them by"
        f" {steps:.2g} of a step (rms), and from {DITHERED:g} on rounding is noise: raise"
        f" estimation.sigma or array.{key}_bits"
    )


def carried_to_error(objective: Objective, w: Array, sigma: float, seed: int = 0) -> Carried | None:
    """From the arrays of an MLP or of layers, exactly, by one forward and one backward pass; how
    far trials move sums, from R of forward along one vector of random signs, as a mean over all
    columns and patterns. None of other networks.

    w (n,): of the objective, with the other weights held. sigma: of a perturbation.
    """
    net: Any = getattr(objective.unrestricted, "network", None)
    chain = chain_of(net)
    if chain is None:
        return None
    whole: Any = objective.unrestricted
    at = objective.whole_weights(w)
    signs = np.random.Generator(np.random.Philox(seed)).choice([-1.0, 1.0], w.size)
    # weights that are held do not move
    v = objective.whole_weights(w + sigma * signs) - at
    found = Carried()
    E = ERRORS[net.error]
    shape = net.input_shape if isinstance(net, Layers) else (net.layers[0],)
    some = max(1, AT_ONCE // (8 * chain.size))
    for first in range(0, whole.n_patterns, some):
        rows = slice(first, first + some)
        y = np.ascontiguousarray(whole.x[rows].T).reshape(*shape, -1)
        walk = _Walk(found)
        y, _, tape = walk.forward(chain, at, v, y, None)
        e = np.ascontiguousarray(E.e(y.T, whole.target[rows]).T) / whole.n_patterns
        walk.backward(tape, e)
    return found


class _Kept(NamedTuple):
    """Of a part: what its passes need, or the tapes of both paths of a sum; number: of a matrix;
    driven: whether its input depends on weights.
    """

    part: Part
    w: Array
    kept: Any
    number: int
    driven: bool


class _Walk:
    """Both passes of a chain for some patterns, which add to what is `found`."""

    def __init__(self, found: Carried):
        self.found = found
        self._number = 0

    def forward(
        self, chain: Chain, w: Array, v: Array, y: Array, R_y: Array | None
    ) -> tuple[Array, Array | None, list[_Kept]]:
        """The output, R of it along v, and what `backward` needs. R_y: None where that is 0."""
        tape = []
        for part, own in zip(chain.parts, chain.slices, strict=True):
            of_w, of_v = w[own], v[own]
            if isinstance(part, ResidualPart):
                # the weights of the path come first
                n = part.path.n_weights
                a, R_a, path = self.forward(part.path, of_w[:n], of_v[:n], y, R_y)
                b, R_b, shortcut = self.forward(part.shortcut, of_w[n:], of_v[n:], y, R_y)
                tape.append(_Kept(part, of_w, (path, shortcut), -1, R_y is not None))
                y = a + b
                R_y = R_a if R_b is None else R_b if R_a is None else R_a + R_b
                continue
            before = R_y
            y, kept = part.forward(of_w, part.prepare(y))
            R_y, _ = part.R_forward(of_w, of_v, kept, before)
            number = -1
            if isinstance(part, Product):
                number = self._number
                self._number += 1
                self._moved(number, part, R_y, before)
            tape.append(_Kept(part, of_w, kept, number, before is not None))
        return y, R_y, tape

    def _moved(self, number: int, part: Product, x: Array | None, y: Array | None) -> None:
        self.found.sizes[number] = part.columns + part.bias
        for table, R in ((self.found.columns, x), (self.found.rows, y)):
            sums = table.setdefault(number, _Sums())
            if R is not None:
                sums.moved += float(np.vdot(R, R))
                sums.count += R.size

    def backward(self, tape: list[_Kept], e: Array) -> Array:
        """dE/dy of the input, from that of the output."""
        for part, w, kept, number, driven in reversed(tape):
            if isinstance(part, ResidualPart):
                path, shortcut = kept
                e = self.backward(path, e) + self.backward(shortcut, e)
                continue
            of_columns = float(np.vdot(e, e))
            e, _, _ = part.backward(w, kept, e, True)
            if number >= 0:
                self.found.columns[number].slopes += of_columns
                if driven:
                    self.found.rows[number].slopes += float(np.vdot(e, e))
        return e
