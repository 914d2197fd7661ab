"""What the converters of an array's columns hide of perturbations: predicted, and measured.

A converter of step q hides a perturbation that moves a net input x by much less than q, unless x
lies at an edge between two of its levels, where it is magnified. Of x ~ N(m, s^2) a converter gives

    S(m, s) = q sum_j Phi((m - edge_j)/s)        in the mean, within its range
    S'(m, s) = q sum_j phi((m - edge_j)/s)/s     for a small change of m

for each pattern, position and column on its own. Thousands of them lie anywhere in a step, and the
mean over them is 1 wherever s is small: they dither one another. A few do not.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from hardware.arrays import chain_of, has_bias, row_sums, slices
from hardware.chip import Chip
from hardware.params import ChipParams
from hardware.parts.converter import quantised
from hardware.parts.crossbar import Crossbar
from perturb.errors import InputError
from perturb.networks.layers.network import AT_ONCE, Layers
from perturb.networks.layers.part import Chain, Part, ResidualPart
from perturb.networks.layers.products import Product
from perturb.networks.losses import ERRORS
from perturb.networks.objective import Objective
from perturb.seeds import derive_seed, nth_seed
from perturb.training.plan import Plan
from perturb.trial.codes import CODES

Array = np.ndarray
Values = list[np.ndarray]
POINTS = 16  # perturbed weights at which net inputs are looked at
PARTS = 8  # independent parts of the trials, whose spread is the standard error
WIDE = 0.25  # steps; of wider spreads Poisson's sum of three terms is exact to 1e-8
NEAR = np.arange(-1.0, 2.0)  # edges that narrower ones reach, from the nearest on


def mean_words(m: Array, s: Array, bits: int, reach: float) -> tuple[Array, Array, Array]:
    """S and S' of a converter for x ~ N(m, s^2), as at the head of this file; and which edge it
    crosses in the mean, m where none.

    m, s: of one shape. S' is 0 where s is 0: nothing moves.
    """
    q = 2 * reach / 2**bits
    m, s = m / q, np.maximum(s / q, 1e-300)
    # k-th term of Poisson's sums over the edges j + 1/2; lost where they are not used
    k = np.arange(1.0, 4.0).reshape(-1, *(1,) * m.ndim)
    fades = (-1) ** k * np.exp(-2 * (np.pi * k * s) ** 2)
    waves = 1 + 2 * (fades * np.cos(2 * np.pi * k * m)).sum(0)
    # where S leaves the range, the share of x that is inside is left of the slope
    top = 2.0 ** (bits - 1)
    waves *= ndtr((top - 1 - m) / s) - ndtr((-top - m) / s)
    # sum_j edge_j phi((m - edge_j)/s)/s = m S' + s^2 S''
    bends = -4 * np.pi * (k * fades * np.sin(2 * np.pi * k * m)).sum(0)
    sums = m + (fades * np.sin(2 * np.pi * k * m) / (np.pi * k)).sum(0)
    # the edges next to m, which are there within the range
    nearest = np.floor(m)
    edges = nearest + 0.5 + NEAR.reshape(-1, *(1,) * m.ndim)
    z = (m - edges) / s
    steps = nearest - 1 + ndtr(z).sum(0)
    there = (-top < edges) & (edges < top - 1)
    peak = there * np.exp(-(np.minimum(abs(z), 30) ** 2) / 2) / (s * math.sqrt(2 * np.pi))
    peaks = peak.sum(0)
    S = np.where(s < WIDE, steps, sums)
    slope = np.where(s < WIDE, np.where(s > 1e-12, peaks, 0.0), waves)
    crossing = np.where(s < WIDE, (edges * peak).sum(0), m * waves + s**2 * bends)
    some = (slope > 1e-100) & ((s < WIDE) | (slope > 1e-2))
    edge = np.divide(crossing, slope, out=m.copy(), where=some)
    return q * np.clip(S, -top, top - 1), slope, q * edge


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
        <g^, g>/|g|^2 in the mean over trials; 1 where nothing is hidden, more where net inputs
        lie at an edge.

    Raises
    ------
    InputError
        Without converters of columns.

    Notes
    -----
    g~.g/|g|^2, with g~ from the backward pass of E in which every column of every pattern and
    position has gains: S' for what its own weights do to it, s^2 = sigma^2 sum_i y_i^2 over weights
    that are free, with noise of columns and of reading weights; and for what earlier columns do to
    it, Cov(S, m)/Var m over perturbations of theirs. Both are means over POINTS perturbed weights
    at which what comes before is converted, too. Exact for one layer in arrays of all its rows, a
    squared error and Gaussian perturbations (Stein); random signs of few inputs are not normal. Of
    later layers an estimate: E is taken to be linear in each step. Neurons are taken to be ideal.
    Below 1/2 it counts as stalled, see `stalled_gradient`. Of thousands of net inputs the share is
    the mean of `rounding_gain` over where they lie.

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
    >>> share(10), share(2)
    (1.0, 0.0)
    """
    if not params.array.output_bits:
        raise InputError("array.output_bits = 0 converts nothing: give bits")
    whole: Any = objective.unrestricted
    net, at = whole.network, objective.whole_weights(w)
    chain = chain_of(net)
    assert chain is not None
    signs = [CODES["rademacher"].draw(w.size, sigma, 0, trial) for trial in range(POINTS)]
    # weights that are held do not move
    moves = objective.whole_weights(w + np.array(signs)) - at
    free = moves[0] != 0
    g = np.where(free, whole.gradient(at), 0.0)
    if not g.any():
        return math.nan
    read = params.weights.read_noise
    variances = np.where(free, sigma**2 + read**2, 0.0)
    if read:
        rng = np.random.Generator(np.random.Philox(0))
        moves += read * free * rng.standard_normal(moves.shape)
    found: Any = 0.0
    shape = net.input_shape if isinstance(net, Layers) else (net.layers[0],)
    some = max(1, AT_ONCE // (POINTS * chain.size))
    for first in range(0, whole.n_patterns, some):
        rows = slice(first, first + some)
        y = np.ascontiguousarray(whole.x[rows].T).reshape(*shape, -1)
        walk = _Passing(params, whole, variances, moves)
        _, z, tape = walk.forward(chain, at, 0, [y] * (POINTS + 1), y)
        e = np.ascontiguousarray(ERRORS[net.error].e(z.T, whole.target[rows]).T) / whole.n_patterns
        found += walk.backward(tape, e)[1] @ g
    return float(found / (g @ g))


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


class _Kept(NamedTuple):
    """Of a part: what backward needs, or the tapes of both paths of a sum; of a matrix, for each of
    its arrays above one another: its rows, and gains for its own weights and for what comes before.
    """

    part: Part
    w: Array
    kept: Any
    gains: list[tuple[slice, Array, Array]]


class _Passing:
    """Both passes of a chain for some patterns, on a chip's arrays."""

    def __init__(self, params: ChipParams, objective: Objective, variances: Array, moves: Array):
        self.p = params.array
        self.crossbar = Crossbar(params.array, objective, 0)
        self.variances = variances  # of weights, (n,): by perturbations and by reading
        self.moves = moves  # (POINTS, n)
        self.rng = np.random.Generator(np.random.Philox(1))

    def forward(
        self, chain: Chain, w: Array, start: int, ys: Values, z: Array
    ) -> tuple[Values, Array, list[_Kept]]:
        """ys: activities with converters, at w and at the points. z: at w, of edges that the last
        sums cross: errors and slopes of neurons there are those in the middle of a jump. start: of
        the weights of the chain among all.
        """
        tape = []
        for part, own in zip(chain.parts, chain.slices, strict=True):
            of_w = w[own]
            first = start + own.start
            kept: Any = None
            gains: list[tuple[slice, Array, Array]] = []
            if isinstance(part, ResidualPart):
                # the weights of the path come first
                n = part.path.n_weights
                a, a_z, path = self.forward(part.path, of_w[:n], first, ys, z)
                b, b_z, shortcut = self.forward(part.shortcut, of_w[n:], first + n, ys, z)
                ys = [y + other for y, other in zip(a, b, strict=True)]
                z = a_z + b_z
                kept = path, shortcut
            elif isinstance(part, Product):
                alike = ys[0] is ys[-1]
                driven = [self._driven(part, y) for y in (ys[:1] if alike else ys)]
                driven *= len(ys) if alike else 1
                kept = driven[0]
                ys, z, gains = self._columns(part, of_w, first, driven)
            else:
                moved = self._moved(part, first)
                ys = [
                    part.output(of_w + v, part.prepare(y)) for v, y in zip(moved, ys, strict=True)
                ]
                z, kept = part.forward(of_w, part.prepare(z))
            tape.append(_Kept(part, of_w, kept, gains))
        return ys, z, tape

    def _moved(self, part: Part, first: int) -> Array:
        moves = self.moves[:, first : first + part.n_weights]
        return np.vstack([np.zeros(part.n_weights), moves])

    def _driven(self, part: Product, y: Array) -> Array:
        return quantised(part.prepare(y), self.p.input_bits, self.p.input_range)

    def _columns(
        self, part: Product, w: Array, first: int, driven: Values
    ) -> tuple[Values, Array, list[tuple[slice, Array, Array]]]:
        """Sums at all points, converted; edges they cross at w; and gains, of each array."""
        p = self.p
        moved = self._moved(part, first)
        variances = self.variances[first : first + part.n_weights]
        sums: list[Any] = [0.0] * len(driven)
        z: Any = 0.0
        gains = []
        blocks = slices(part.columns + part.bias, p.rows)
        for rows in blocks:
            # what weights that are not perturbed give of activities that are; which patterns drive
            # alike at all points
            some = driven[:1] if driven[0] is driven[-1] else driven
            m = np.array([self._sums(part, w, rows, c) for c in some])
            # what their perturbations add is independent: variances are added up
            own_s = np.array([row_sums(part, variances, rows, c**2) for c in some])
            s = np.sqrt(own_s + p.output_noise**2)
            found = mean_words(m, s, p.output_bits, p.output_range)
            m, S, slope, edge = (
                np.broadcast_to(values, (len(driven), *values.shape[1:])) for values in (m, *found)
            )
            m_off = m[1:] - m[1:].mean(0)
            spread = (m_off**2).sum(0)
            # without any movement from before, beyond rounding errors of this program
            moved_too = spread > 1e-20 * (m[1:] ** 2).sum(0)
            own = slope[1:].mean(0)
            earlier = np.divide((m_off * S[1:]).sum(0), spread, out=own.copy(), where=moved_too)
            gains.append((rows, own, earlier))
            # of several arrays, edges of one meet any values of the others
            z = edge[0] if len(blocks) == 1 else z + m[0]
            for k, c in enumerate(driven):
                x = m[k] + row_sums(part, moved[k], rows, c)
                x += p.output_noise * self.rng.standard_normal(x.shape) if p.output_noise else 0.0
                sums[k] = sums[k] + quantised(x, p.output_bits, p.output_range)
        return [x.reshape(*part.shape, -1) for x in sums], z.reshape(*part.shape, -1), gains

    def _sums(self, part: Product, w: Array, rows: slice, c: Array) -> Array:
        """`row_sums` through wires."""
        if not self.p.wire_resistance:
            return row_sums(part, w, rows, c)
        G = part.matrix(w)[..., rows].swapaxes(-1, -2)
        b = part.biases(w)[..., None, :] if has_bias(part, rows) else None
        G, b = self.crossbar.through_wires(G, b)
        x = G.swapaxes(-1, -2) @ c[:, rows]
        return x if b is None else x + b.swapaxes(-1, -2)

    def backward(self, tape: list[_Kept], e: Array) -> tuple[Array, Array]:
        """dE/dy of the input and g of the chain's weights, as far as they pass converters."""
        g = []
        for part, w, kept, gains in reversed(tape):
            if isinstance(part, ResidualPart):
                below, of_path = self.backward(kept[0], e)
                other, of_shortcut = self.backward(kept[1], e)
                e = below + other
                g.append(np.concatenate([of_path, of_shortcut]))
            elif isinstance(part, Product):
                e = e.reshape(part.groups, part.rows, -1)
                M = part.matrix(w)
                of_M = np.zeros(M.shape)
                of_b = np.zeros((part.groups, part.rows))
                of_c = np.zeros_like(kept)
                for rows, own, earlier in gains:
                    of_M[..., rows] = (e * own) @ kept[:, rows].swapaxes(1, 2)
                    of_c[:, rows] = M[..., rows].swapaxes(1, 2) @ (e * earlier)
                    if has_bias(part, rows):
                        of_b = (e * own).sum(-1)
                e = part.collect(of_c)
                g.append(np.concatenate([part.flat(of_M), of_b.ravel()])[: part.n_weights])
            else:
                e, of_w, _ = part.backward(w, kept, e, True)
                g.append(of_w)
        return e, np.concatenate(g[::-1]) if g else np.zeros(0)
