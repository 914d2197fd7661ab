"""How much one evaluation of E varies: its readings, 1/f noise, reading of the weights, and the
arrays, whose noise is carried to E to first order.

A column of net input x_c with noise of variance s^2 moves E by dE/dx_c times that, so that

    Var E = s^2 sum_c (dE/dx_c)^2                over all columns, positions and patterns

with dE/dx from one backward pass, exactly. The winner of a max-pool is held, as for the derivative:
where several tie, noise chooses among them, and that is not counted. Arrays above one another,
whose sums are added, have a noise each.

A converter of step q counts as noise of variance q^2/12, of columns as of rows (dE/dy_i of what
drives them), where trials and noise move what it converts by half a step or more: rounding errors
of two values that differ by a Gaussian number of standard deviation s correlate by
(6/pi^2) sum_k exp(-2 (pi k s/q)^2)/k^2 (Widrow and Kollar, Quantization Noise, 2008), which is then
0.004. By less, rounding is no noise, but hides part of the perturbations, the same in every trial:
where that is a relevant part of Var E or of the gradient, Var E cannot be known. What never moves,
such as rows that patterns drive, is converted to the same always. Net inputs that move alike, of
patterns or positions that are the same, have the same error: their dE/dx are added up before they
are squared. Random signs of few weights are not Gaussian, and patterns may be nearly the same: the
variance is compared with what rounding errors at some perturbed weights do to E, to first order,
and is not known where these differ by more than chance.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hardware.array_tables import ArrayParams
from hardware.arrays import chain_of, row_sums, slices
from hardware.params import ChipParams
from perturb.networks.layers.network import AT_ONCE, Layers
from perturb.networks.layers.part import Chain, Part, ResidualPart
from perturb.networks.layers.products import Product
from perturb.networks.losses import ERRORS
from perturb.networks.objective import Objective
from perturb.trial.readout import Reading

Array = np.ndarray
DITHERED = 0.5  # steps of a converter, rms, from which on its rounding is noise
STILL = 1e-9  # steps: what moves by less stays where it is
RELEVANT = 0.1  # share of Var E, or of the gradient, by which it is not known
DRAWS = 8, 1024  # of signs of the weights, least and most: how far each net input moves
NUMBERS = 2**23  # activities of all draws, if that makes more of them than the least
BUCKETS = 2**16


class ErrorNoise(NamedTuple):
    """variance: of one evaluation of E, NaN where it cannot be known; why: then the reason, a
    sentence, else "".
    """

    variance: float
    why: str


@dataclass
class Carried:
    """What reaches E from the arrays of a network with converters, at one w. Slopes are of the mean
    over all patterns. Of matrices: by columns or rows, and number.

    errors: sums of dE/dx q/sqrt(12) of net inputs that move alike, by bucket, each with a random
    sign: the sum of squares of buckets is that of these sums, to sqrt(2/BUCKETS) (Charikar, Chen
    and Farach-Colton, Theoretical Computer Science 312, 2004). hidden: the same of what moves too
    little.
    """

    errors: Array = field(default_factory=lambda: np.zeros(BUCKETS))
    hidden: dict[tuple[str, int], Array] = field(default_factory=dict)
    alone: float = 0.0  # sum of squares of `errors` if none moved like another
    noise: float = 0.0  # sum of (dE/dx)^2 of all columns of all arrays
    # of matrices: sums of (dE/dx)^2 Var x of all that moves, and of what moves too little
    gradient: dict[tuple[str, int], Array] = field(default_factory=dict)
    # (draws,): what all rounding errors do to E at perturbed weights, to first order
    drawn: Array = field(default_factory=lambda: np.zeros(1))


class ErrorVaries:
    """How E of a network varies at a point, on chips of any parameters.

    w (n,); sigma: of a perturbation; presented: patterns in an evaluation.
    """

    def __init__(self, objective: Objective, w: Array, sigma: float, presented: int):
        self.objective = objective
        self.w = w
        self.sigma = sigma
        self.presented = presented
        self._known: dict[tuple[ArrayParams, float], ErrorNoise] = {}

    @cached_property
    def _slope(self) -> float:
        g = self.objective.gradient(self.w)
        return float(g @ g)

    def on(self, chip: ChipParams) -> ErrorNoise:
        """Of independent contributions, whose variances add."""
        unit = chip.error_unit
        readings = Reading(unit.noise, unit.bits, unit.range).variance(self.presented)
        # 1/f as the difference of neighbouring evaluations sees it, twice its variance per octave
        variance = readings + 2 * unit.flicker**2
        read = chip.weights.read_noise
        if read:
            # reaches E through |g|
            variance += read**2 * self._slope
        arrays = self._of_arrays(chip.array, read)
        # slopes are of a mean over all patterns: of some, S/presented as much
        arrays_too = variance + arrays.variance * self.objective.n_patterns / self.presented
        return ErrorNoise(arrays_too, arrays.why)

    def _of_arrays(self, p: ArrayParams, read: float) -> ErrorNoise:
        if not (p.output_noise or p.output_bits or p.input_bits):
            return ErrorNoise(0.0, "")
        if (p, read) not in self._known:
            # what reading the weights adds moves sums as perturbations do
            size = math.hypot(self.sigma, read)
            carried = carried_to_error(self.objective, self.w, size, p)
            known = ErrorNoise(0.0, "") if carried is None else _variance(p, carried)
            self._known[p, read] = known
        return self._known[p, read]


def _variance(p: ArrayParams, carried: Carried) -> ErrorNoise:
    rounding = float(carried.errors @ carried.errors)
    hidden = {place: float(table @ table) for place, table in carried.hidden.items()}
    hides = sum(hidden.values())
    if hides > RELEVANT * (rounding + hides):
        share = hides / (rounding + hides)
        return _unknown(max(hidden, key=lambda place: hidden[place]), share, "what they do to E")
    for place, (all_of_it, lost) in carried.gradient.items():
        if lost > RELEVANT * all_of_it:
            return _unknown(place, lost / all_of_it, "the gradient")
    # noise parts net inputs that move alike; if by less than half a step, by how much is not known
    step = _step(p, "columns")
    if p.output_noise and p.output_noise >= DITHERED * step:
        rounding = carried.alone
    elif p.output_noise and abs(carried.alone - rounding) > RELEVANT * rounding:
        return ErrorNoise(
            math.nan,
            "the noise of columns is less than half a step of their converters, and net inputs of"
            " patterns or positions that are the same round alike in part: raise or lower"
            " array.output_noise",
        )
    elif rounding and _differs(float(np.var(carried.drawn, ddof=1)) / rounding, carried.drawn.size):
        return ErrorNoise(
            math.nan,
            "rounding errors of the converters of arrays are not independent noise, as where few"
            " weights move a sum or patterns are nearly the same: raise estimation.sigma or the"
            " bits of [chip.array]",
        )
    return ErrorNoise(rounding + p.output_noise**2 * carried.noise, "")


def _differs(ratio: float, draws: int) -> bool:
    """Of a variance of so many draws to the true one, by five standard errors."""
    bound = 5 * math.sqrt(2 / (draws - 1))
    return not 1 / (1 + bound) < ratio < 1 + bound


def _unknown(place: tuple[str, int], share: float, of: str) -> ErrorNoise:
    what, number = place
    key = {"columns": "output", "rows": "input"}[what]
    return ErrorNoise(
        math.nan,
        f"the converters of {what} of layer {number + 1} hide perturbations: {share:.2g} of {of}"
        f" comes from sums that move by less than {DITHERED:g} steps (rms), from which on rounding"
        f" is noise: raise estimation.sigma or array.{key}_bits",
    )


def _step(p: ArrayParams, what: str) -> float:
    """Of the converters of columns or of rows; 0: there are none."""
    bits, reach = (
        (p.output_bits, p.output_range) if what == "columns" else (p.input_bits, p.input_range)
    )
    return 2 * reach / 2**bits if bits else 0.0


def carried_to_error(
    objective: Objective, w: Array, sigma: float, p: ArrayParams, seed: int = 0
) -> Carried | None:
    """From the arrays of an MLP or of layers, exactly, by one forward and one backward pass; how
    far trials move each sum, from R of forward along vectors of random signs. None of other
    networks.

    w (n,): of the objective, with the other weights held. sigma: of a perturbation.
    """
    net: Any = getattr(objective.unrestricted, "network", None)
    chain = chain_of(net)
    if chain is None:
        return None
    whole: Any = objective.unrestricted
    at = objective.whole_weights(w)
    converts = bool(p.output_bits or p.input_bits)
    rng = np.random.Generator(np.random.Philox(seed))
    least, most = DRAWS
    draws = min(max(NUMBERS // (whole.n_patterns * chain.size), least), most) if converts else 0
    signs = rng.choice([-1.0, 1.0], (draws, w.size))
    # weights that are held do not move
    moves = objective.whole_weights(w + sigma * signs) - at
    found = Carried()
    E = ERRORS[net.error]
    shape = net.input_shape if isinstance(net, Layers) else (net.layers[0],)
    some = max(1, AT_ONCE // (8 * (len(moves) + 1) * chain.size))
    for first in range(0, whole.n_patterns, some):
        rows = slice(first, first + some)
        y = np.ascontiguousarray(whole.x[rows].T).reshape(*shape, -1)
        walk = _Walk(found, p)
        y, _, tape = walk.forward(chain, at, moves, y, None)
        e = np.ascontiguousarray(E.e(y.T, whole.target[rows]).T) / whole.n_patterns
        walk.backward(tape, e)
    return found


class _Moves(NamedTuple):
    """Of some converters: how far trials move what each converts, in steps; rounding errors at each
    draw, (draws, ...); in which bucket each stands, with which sign; and which share of its
    variance of 1/12 is not known.
    """

    steps: Array
    errors: Array
    bucket: Array
    sign: Array
    unknown: Array


class _Kept(NamedTuple):
    """Of a part: what its passes need, or the tapes of both paths of a sum; of a matrix, its number
    and what its converters of rows and of columns do.
    """

    part: Part
    w: Array
    kept: Any
    number: int
    rows: _Moves | None
    columns: list[_Moves]


class _Walk:
    """Both passes of a chain for some patterns, which add to what is `found`."""

    def __init__(self, found: Carried, p: ArrayParams):
        self.found = found
        self.p = p
        self._number = 0

    def forward(
        self, chain: Chain, w: Array, moves: Array, y: Array, R_y: list[Array] | None
    ) -> tuple[Array, list[Array] | None, list[_Kept]]:
        """The output, R of it along each row of moves, and what `backward` needs. R_y: None where
        that is 0.
        """
        tape = []
        for part, own in zip(chain.parts, chain.slices, strict=True):
            of_w, of_moves = w[own], moves[:, own]
            if isinstance(part, ResidualPart):
                # the weights of the path come first
                n = part.path.n_weights
                a, R_a, path = self.forward(part.path, of_w[:n], of_moves[:, :n], y, R_y)
                b, R_b, shortcut = self.forward(part.shortcut, of_w[n:], of_moves[:, n:], y, R_y)
                tape.append(_Kept(part, of_w, (path, shortcut), -1, None, []))
                y = a + b
                if R_a is None or R_b is None:
                    R_y = R_b if R_a is None else R_a
                else:
                    R_y = [R + other for R, other in zip(R_a, R_b, strict=True)]
                continue
            before, R_before = y, R_y
            y, kept = part.forward(of_w, part.prepare(y))
            R_y = [
                part.R_forward(of_w, v, kept, R_before[k] if R_before else None)[0]
                for k, v in enumerate(of_moves)
            ]
            number, rows, columns = -1, None, []
            if isinstance(part, Product):
                number = self._number
                self._number += 1
                # rows that patterns drive never move
                if R_before and (step := _step(self.p, "rows")):
                    rows = _moves(before, np.array(R_before), step, 0.0)
                if step := _step(self.p, "columns"):
                    columns = self._columns(part, of_w, of_moves, kept, R_before, R_y, step)
            elif not part.n_weights and R_before is None:
                # what patterns give to a layer without weights does not move
                R_y = None
            tape.append(_Kept(part, of_w, kept, number, rows, columns))
        return y, R_y or None, tape

    def _columns(
        self, part: Product, w: Array, moves: Array, c: Array, R_y: Any, R_x: Any, step: float
    ) -> list[_Moves]:
        """Of each of the arrays above one another."""
        found = []
        blocks = slices(part.columns + part.bias, self.p.rows)
        for rows in blocks:
            if len(blocks) == 1:
                R = np.array(R_x).reshape(len(moves), part.groups, part.rows, -1)
            else:
                R = np.array([row_sums(part, v, rows, c) for v in moves])
                if R_y:
                    R += [row_sums(part, w, rows, part.prepare(of_y), biased=False) for of_y in R_y]
            found.append(_moves(row_sums(part, w, rows, c), R, step, self.p.output_noise))
        return found

    def backward(self, tape: list[_Kept], e: Array) -> Array:
        """dE/dy of the input, from that of the output."""
        for part, w, kept, number, rows, columns in reversed(tape):
            if isinstance(part, ResidualPart):
                path, shortcut = kept
                e = self.backward(path, e) + self.backward(shortcut, e)
                continue
            if isinstance(part, Product):
                above = len(slices(part.columns + part.bias, self.p.rows))
                self.found.noise += above * float(np.vdot(e, e))
                for block in columns:
                    self._add(("columns", number), block, e.reshape(part.groups, part.rows, -1))
            e, _, _ = part.backward(w, kept, e, True)
            if rows is not None:
                self._add(("rows", number), rows, e)
        return e

    def _add(self, place: tuple[str, int], moves: _Moves, e: Array) -> None:
        found, q = self.found, _step(self.p, place[0])
        found.drawn = found.drawn + np.tensordot(moves.errors, e, e.ndim) * q
        error = q / math.sqrt(12) * moves.sign * e
        enough = moves.steps >= DITHERED
        found.errors += np.bincount(moves.bucket[enough], error[enough], BUCKETS)
        found.alone += float((error[enough] ** 2).sum())
        lost = ~enough & (moves.steps > STILL)
        table = np.bincount(moves.bucket.ravel(), (error * np.sqrt(moves.unknown)).ravel(), BUCKETS)
        found.hidden[place] = found.hidden.get(place, 0.0) + table
        square = (e * moves.steps * q) ** 2
        both = np.array([square.sum(), square[lost].sum()])
        found.gradient[place] = found.gradient.get(place, 0.0) + both


def _moves(x: Array, R: Array, step: float, noise: float) -> _Moves:
    """Of converters of x, which noise moves and each draw by R, (draws, *x.shape)."""
    d = R / step
    noise /= step
    steps = np.sqrt((d**2).mean(0) + noise**2)
    # of a little way s only the few that an edge is near vary: 7 s/q of q^2/12, over all places
    unknown = np.where(steps < DITHERED, np.minimum(7 * steps, 1.0), 0.0)
    unknown[steps <= STILL] = 0.0
    at = x / step + d
    errors = np.floor(at + 0.5) - at
    # the same place and ways, to 6e-8 steps, or the opposite ones: errors are odd
    sign = np.where(d[0] < 0, -1.0, 1.0)
    bucket = np.zeros(x.shape, dtype=np.uint64)
    for part in (x / step, d[0], d[1], d[2]):
        bucket ^= np.round(sign * part * 2**24).astype(np.int64).view(np.uint64)
        bucket = _mixed(bucket)
    sign = np.where(bucket >> np.uint64(63), -sign, sign)
    return _Moves(steps, errors, (bucket % np.uint64(BUCKETS)).astype(np.int64), sign, unknown)


def _mixed(bits: Array) -> Array:
    """Numbers of 64 bits that depend on all bits of these (Steele, Lea and Flood 2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
