"""What happens to a stored weight: how a device takes pulses, what it differs by from its
neighbours, and how it decays.

Functions of arrays, without state: `fabricate` draws the cells of a die once,
`initial` programs weights into them, `pulse` and `write` change what they hold (`hidden`),
`apparent` is what the array then computes with, `age` lets time pass. Fabrication is keyed by (die,
quantity, cell), operation by (seed, update, pulse, cell), both by Philox: no number depends on
order, tiling or batch, and a part of the cells has the numbers of that part of the whole. Weights
are in units of the network.

A pulse in direction d = +-1, in units of the device's range, xi standard normal:

    w := clip(w + d (dw_d f_d(w) + std xi), b_min, b_max), std = noise + c2c_offset + c2c_slope |w|
    noise = c2c dw_d |f_d(w)| multiplicative, c2c dw_d additive

with f_d that of the law of the device (`hardware.device_laws`).

Of cell i: `dw_d = dw_min (1 + dw_min_dtod xi_i + d beta_i)`, `beta_i = up_down + up_down_dtod
xi_i`, `b_max = w_max (1 + w_max_dtod xi_i)`, b_min likewise, `gamma_d + gamma_d_dtod xi_i` of a
linear step, all without regard to their sign (so that the mean of b with a standard deviation of 60
% is 2.4 % larger). Lognormal: `exp(dw_min_dtod xi_i)` for `1 + dw_min_dtod xi_i`; then dw_min is
the median, and the mean exp(dw_min_dtod^2/2) times as large.

Sources: Gokmen & Vlasov 2016 (constant step, variation); Gong et al. 2018; Rasch et al. 2021 (the
laws in this form, IBM Analog Hardware Acceleration Kit); Nandakumar et al. 2020 (phase-change
memory).
"""

from typing import Literal

import numpy as np

from hardware.cells import Cells, as_seconds, as_seed
from hardware.cells import fabricate as fabricate
from hardware.device_params import load_device as load_device
from hardware.device_tables import PairParams
from hardware.pulse_kernel import pulse_kernel, symmetry_kernel
from perturb.checks import integer
from perturb.errors import InputError
from perturb.trial.random import PROGRAM, READ, ROUNDING, WRITE, uniforms_at

Array = np.ndarray

MAX_PULSES = 2**24  # of one update: what a phase of Philox can number
MAX_UPDATES = 2**62 - 1


def initial(cells: Cells, w: Array, seed: int, update: int = 0) -> Array:
    """Program weights into the cells.

    Parameters
    ----------
    cells : Cells
    w : array (n,)
        Wanted weights, in units of the network.
    seed, update : int
        Keys of the programming noise.

    Returns
    -------
    array of `cells.shape`
        The hidden weights: what the cells hold.

    Raises
    ------
    InputError
        For weights of another shape or not finite.

    Notes
    -----
    A weight beyond a cell's bounds becomes the bound, a digital one the nearest level; a stuck cell
    does not change. A pair is reset, and the sign decides which side holds |w|. With a table
    [programming] every conductance has an error of standard deviation c0 + c1 g + c2 g^2, g =
    G/Gmax.

    References
    ----------
    Nandakumar et al. (2020).
    """
    params = cells.params
    w = cells.checked("w", w, (cells.n,))
    if params.model == "ideal":
        return w.copy()
    if params.model == "digital":
        return _digital(cells, w, np.zeros(cells.n))
    sides = [np.maximum(w, 0), np.maximum(-w, 0)] if params.law.paired else [w]
    low, high = cells.limits
    hidden = np.array([np.clip(g, low[row], high[row]) for row, g in enumerate(sides)])
    if params.programming:
        c0, c1, c2 = params.programming.noise_us
        for row, side in enumerate(hidden):
            g = np.abs(side) / (params.range * params.limits.w_max)
            # c0, c1 and c2 give uS: by g_max_us of the full range, into units of the network
            std = (
                np.maximum(c0 + c1 * g + c2 * g**2, 0)
                / params.programming.g_max_us
                * params.range
                * params.limits.w_max
            )
            hidden[row] = np.clip(
                side + std * cells.normals(PROGRAM, seed, update, row), low[row], high[row]
            )
    return cells.with_stuck(hidden.reshape(cells.shape))


def pulse(
    cells: Cells, hidden: Array, pulses: Array, seed: int, update: int, first: int = 0
) -> Array:
    """Give cell i |pulses_i| pulses, up if pulses_i > 0, down if < 0.

    Parameters
    ----------
    cells : Cells
    hidden : array of `cells.shape`
    pulses : int or array (n,) of int
    seed, update, first : int
        Keys of the noise: a pulse has that of (seed, update, its number within the update), which
        counts from `first`. Pulses given one by one, first = 0, 1, 2, ..., leave the same numbers
        as all at once.

    Returns
    -------
    array of `cells.shape`
        The new hidden weights.

    Raises
    ------
    InputError
        For pulses that are not integers or too many, and for an ideal device, which has none.

    Notes
    -----
    Formulas: head of this module. A digital weight changes by one level per pulse.
    """
    params = cells.params
    hidden = cells.checked("hidden", hidden, cells.shape)
    counts = np.asarray(pulses)
    if counts.dtype.kind not in "iu" or counts.shape not in ((), (cells.n,)):
        raise InputError(f"pulses must be integers, one or {cells.n} of them")
    counts = np.ascontiguousarray(np.broadcast_to(counts, cells.n), dtype=np.int64)
    if not 0 <= first <= MAX_PULSES - np.abs(counts).max():
        last = first + np.abs(counts).max()
        raise InputError(
            f"pulses {first}..{last} of one update must lie in 0..{MAX_PULSES}: use further updates"
        )
    if params.model == "ideal":
        raise InputError('model = "ideal" has no pulses: use write')
    if params.model == "digital":
        return _digital(cells, hidden, counts)
    assert params.step
    low, high = cells.limits
    rows = np.atleast_2d(hidden).copy()
    pulse_kernel(params.law.step, params.law.paired)(
        rows,
        counts,
        cells.dw_up,
        cells.dw_down,
        low,
        high,
        cells.law,
        (
            params.step.c2c,
            params.range * params.step.c2c_offset,
            params.step.c2c_slope,
            params.step.c2c_kind == "additive",
        ),
        as_seed(seed),
        integer("update", update, 0, MAX_UPDATES),
        first,
        cells.start,
    )
    return cells.with_stuck(rows.reshape(cells.shape))


def write(
    cells: Cells,
    hidden: Array,
    wanted_change: Array,
    seed: int,
    update: int,
    rounding: Literal["stochastic", "nearest"] = "stochastic",
) -> Array:
    """Change the weights by about a wanted change, in whole pulses.

    Parameters
    ----------
    cells : Cells
    hidden : array of `cells.shape`
    wanted_change : array (n,)
        In units of the network.
    seed, update : int
        Keys of rounding and noise; update is the number of this write.
    rounding : {"stochastic", "nearest"}
        |wanted change| / dw_min is rounded up with the probability of its fraction, which is right
        in the mean, or to the nearest integer.

    Returns
    -------
    array of `cells.shape`
        The new hidden weights.

    Raises
    ------
    InputError
        For changes of another shape or not finite, or another rounding.

    Notes
    -----
    At most step.max_pulses are given. The controller knows dw_min of the device, not that of the
    cell, its asymmetry or its state. A pair that has passed pair.refresh_at is refreshed. An ideal
    weight takes the change as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from hardware.device import apparent, fabricate, initial, load_device, write
    >>> cells = fabricate(load_device("gokmen-vlasov2016"), n=1000, die=1)
    >>> hidden = initial(cells, np.zeros(1000), seed=0)
    >>> hidden = write(cells, hidden, np.full(1000, 0.01), seed=0, update=1)
    >>> bool(abs(apparent(cells, hidden, seed=0, update=1).mean() - 0.01) < 5e-4)
    True
    """
    return write_cells(cells, hidden, wanted_change, seed, update, rounding)[0]


def write_cells(
    cells: Cells,
    hidden: Array,
    wanted_change: Array,
    seed: int,
    update: int,
    rounding: Literal["stochastic", "nearest"] = "stochastic",
) -> tuple[Array, Array]:
    """As `write`, and which cells it has written.

    Parameters
    ----------
    cells, hidden, wanted_change, seed, update, rounding
        As of `write`.

    Returns
    -------
    hidden : array of `cells.shape`
    written : array of bool of `cells.shape`
        Cells that got a pulse or were refreshed, whether that changed them or not.
    """
    params = cells.params
    change = cells.checked("wanted_change", wanted_change, (cells.n,))
    if rounding not in ("stochastic", "nearest"):
        raise InputError(f"rounding = {rounding!r} must be stochastic or nearest")
    if params.model == "ideal":
        return cells.checked("hidden", hidden, cells.shape) + change, change != 0
    # floor(x + 1/2) is the nearest; with a uniform number for 1/2 the mean is x
    offset = np.full(cells.n, 0.5)
    if rounding == "stochastic":
        uniforms_at(
            as_seed(seed),
            ROUNDING,
            integer("update", update, 0, MAX_UPDATES),
            0,
            cells.start,
            offset,
        )
    most = params.step.max_pulses if params.step else MAX_PULSES
    # dw_min is that of the device: nobody knows that of a cell
    counts = np.minimum(np.floor(np.abs(change) / params.dw_min + offset), most)
    pulses = (np.sign(change) * counts).astype(np.int64)
    hidden = pulse(cells, hidden, pulses, seed, update)
    if not params.law.paired:
        return hidden, pulses != 0
    # asked before they are refreshed, since a refresh is a write too
    passed = _passed(cells, hidden)
    return refresh(cells, hidden, seed, update), np.array([pulses > 0, pulses < 0]) | passed


def refresh(cells: Cells, hidden: Array, seed: int, update: int) -> Array:
    """Reset the pairs that are near a bound, and program their differences again.

    Parameters
    ----------
    cells : Cells
    hidden : array (2, n)
    seed, update : int
        Keys of the programming noise.

    Returns
    -------
    array (2, n)
        The new hidden weights.

    Raises
    ------
    InputError
        For a device that is no pair.

    Notes
    -----
    Due is a pair of which one side has passed pair.refresh_at of its bound, and the other is not
    below pair.other_at of its bound. The difference is read without noise.
    """
    if not cells.params.law.paired:
        raise InputError(
            f'model = "{cells.params.model}" has nothing to refresh: only a one-sided-pair has'
        )
    hidden = cells.checked("hidden", hidden, cells.shape)
    passed = _passed(cells, hidden)
    return (
        np.where(passed, initial(cells, hidden[0] - hidden[1], seed, update), hidden)
        if passed.any()
        else hidden
    )


def _passed(cells: Cells, hidden: Array) -> Array:
    """Which pairs are due for a refresh, (n,)."""
    pair = cells.params.pair or PairParams()
    high = cells.limits[1]
    return np.asarray(
        (hidden > pair.refresh_at * high).any(0) & (hidden >= pair.other_at * high).all(0)
    )


def apparent(
    cells: Cells,
    hidden: Array,
    seed: int,
    update: int | Array,
    read: int = 0,
    elapsed_s: float | Array = 0.0,
) -> Array:
    """The weights that the array computes with: hidden + write noise + 1/f noise of this reading.

    Parameters
    ----------
    cells : Cells
    hidden : array of `cells.shape`
    seed : int
    update : int or array (n,) of int
        Number of each cell's last write: its write noise is that of (seed, update) until it is
        written again.
    read : int
        Number of the reading, for 1/f noise.
    elapsed_s : float or array of `cells.shape`
        Time since programming in s, with which 1/f noise grows.

    Returns
    -------
    array (n,)
        In units of the network.

    Notes
    -----
    Write noise, which stuck cells have, too, has the standard deviation noise.write; 1/f noise that
    of G min(q / g^power, q_max) sqrt(ln((t + read_s) / (2 read_s))). A pair is g_plus - g_minus.

    References
    ----------
    Nandakumar et al. (2020).
    """
    params = cells.params
    hidden = cells.checked("hidden", hidden, cells.shape)
    rows = np.atleast_2d(hidden)
    # new numbers in either case, since noise is added in place
    w = rows[0] - rows[1] if params.law.paired else rows[0].copy()
    if params.noise and params.noise.write:
        w += params.range * params.noise.write * cells.normals(WRITE, seed, update, 0)
    if params.flicker and params.flicker.q:
        flicker = params.flicker
        t = as_seconds("elapsed_s", elapsed_s)
        # the variance grows as ln t, from t = read_s on
        growth = np.log(np.maximum((t + flicker.read_s) / (2 * flicker.read_s), 1.0))
        g = np.abs(rows) / (params.range * params.limits.w_max)
        # g = 0: the quotient is infinite, and q_max holds
        with np.errstate(divide="ignore"):
            q = np.minimum(flicker.q / g**flicker.power, flicker.q_max)
        # both sides of a pair make noise: variances add
        w += np.sqrt(((rows * q) ** 2 * growth).sum(0)) * cells.normals(
            READ, seed, update, integer("read", read, 0, MAX_PULSES - 1)
        )
    return w


def age(
    cells: Cells, hidden: Array, elapsed_s: float | Array, since_s: float | Array = 0.0
) -> Array:
    """Let time pass: leak and drift.

    Parameters
    ----------
    cells : Cells
    hidden : array of `cells.shape`
    elapsed_s : float or array (n,) or of `cells.shape`
        Time that passes, in s.
    since_s : float or array
        Time from programming until then, in s: a power law, unlike a leak, has to know.

    Returns
    -------
    array of `cells.shape`
        The new hidden weights.

    Raises
    ------
    InputError
        For a negative time.

    Notes
    -----
    leak: w := rest + (w - rest) exp(-elapsed / lifetime_i)

    drift: G := G (max(t0, since + elapsed) / max(t0, since))^-nu_i, nu_i = max(0, mean(g) + std(g)
    xi_i), g = G/Gmax

    Two calls are as one with the sum of the times, for drift with the later since_s, and only
    nearly where nu depends on g, as g is that of `hidden`. Stuck cells do not change.
    """
    params = cells.params
    hidden = cells.checked("hidden", hidden, cells.shape)
    elapsed = as_seconds("elapsed_s", elapsed_s)
    since = as_seconds("since_s", since_s)
    given = np.atleast_2d(hidden)
    rows = given.copy()
    if params.leak:
        rest = params.range * params.leak.rest
        rows = rest + (rows - rest) * np.exp(-elapsed / cells.lifetime_s)
    if params.drift:
        drift = params.drift
        stretch = np.maximum(drift.t0_s, since + elapsed) / np.maximum(drift.t0_s, since)
        # g is that of what was programmed, not of what a leak has left of it
        with np.errstate(divide="ignore"):
            ln_g = np.log(np.abs(given) / (params.range * params.limits.w_max))
        ln_g = np.maximum(ln_g, -100.0)  # a cell at 0 stays there, whatever its exponent
        mean = np.clip(drift.nu + drift.nu_log * ln_g, drift.nu_range[0], drift.nu_range[1])
        std = np.clip(
            drift.nu_std + drift.nu_std_log * ln_g, drift.nu_std_range[0], drift.nu_std_range[1]
        )
        rows = rows * stretch ** -np.maximum(mean + std * cells.nu_xi[: len(rows)], 0.0)
    return cells.with_stuck(rows.reshape(cells.shape))


def symmetry_points(cells: Cells) -> Array:
    """Where steps up and down of each cell are equal in size: what pulses up and down in turn take
    it to.

    Parameters
    ----------
    cells : Cells

    Returns
    -------
    array (n,)
        Hidden weights; a bound, where steps of one direction are larger everywhere; the middle of
        the bounds, where steps are equal everywhere.

    Raises
    ------
    InputError
        For a device whose steps do not depend on the weight, or a pair, whose cells only go up.

    Notes
    -----
    dw_up f_up(w) = dw_down f_down(w), without the noise of pulses, which has no mean but where a
    bound cuts it.

    References
    ----------
    Gokmen and Haensch (2020).

    Examples
    --------
    >>> from hardware.device import fabricate, load_device, symmetry_points
    >>> points = symmetry_points(fabricate(load_device("reram-gong2018"), n=1000, die=1))
    >>> bool(points.mean() < -0.1)
    True
    """
    law = cells.params.law
    if not law.balanced:
        raise InputError(
            f'model = "{law.model}" has no symmetry point: its steps up and down do not become'
            " alike at any weight"
        )
    points = np.empty(cells.n)
    symmetry_kernel(law.step)(
        cells.dw_up, cells.dw_down, cells.b_min, cells.b_max, cells.law, points
    )
    return points


def _digital(cells: Cells, w: Array, levels: Array) -> Array:
    """The level nearest to w, `levels` further up, within the 2^bits there are: exact, however
    often.
    """
    params = cells.params
    bits = params.bits or 0
    lowest = params.range * params.limits.w_min
    # counted in levels, so that rounding does not add up over pulses
    number = np.clip(np.rint((w - lowest) / params.dw_min) + levels, 0, 2**bits - 1)
    return cells.with_stuck(lowest + number * params.dw_min)
