"""Double periods of a periodic code as replicates: the standard errors of estimates whose trials are not independent.

A periodic code repeats after P trials with all signs turned, and after 2P trials with new random signs or phases: what one double
period gives is independent of what the next gives, and has the same distribution. The controller hears every broadcast and knows
the code; it keeps the broadcasts of the double period under way, and of one that is complete the sums that every synapse made in
it, by one fast transform each.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from perturb.compiled import compiled
from perturb.trial.codes import CODES, LFSR, SEQUENTIAL, SINE, WALSH, Code
from perturb.trial.methods import REGRESSORS
from perturb.trial.synapse import SUMS

if TYPE_CHECKING:
    from perturb.estimation.statistics import Design, Statistics

Array = np.ndarray
# of a double period, for every synapse: A = sum q dE_z, Q = sum q^2; over those that are complete the sums of them, of their
# squares and products, also with the controller's U = sum dE_z and C = sum s^2 dE_z
ROWS = ("a", "q", "aa", "aq", "qq", "au", "qu", "ac", "qc")
# sums over trials, with d = (dE_g - dE_g a pass later)/2, the odd part of dE_g, over first passes; and of products of U and C
TOTALS = ("y", "u", "yy", "uu", "dd", "c", "UU", "UC", "CC")
LATEST = 1024  # double periods transformed together
ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-22}  # of a sum of squares, as a share of it
REST = 0.5  # share of a variance that may come from incomplete double periods


class Periods:
    """The double periods of one design that have been heard so far.

    number: of those that are complete. sums (rows, n) and totals: over them, named by ROWS and TOTALS. open: broadcasts of
    incomplete ones, as (first trial, array (3, trials) of dE_g, dE_z, s), none of which crosses the end of a double period.
    sound: whether the synapses have met the broadcasts of their own trials, each once.
    """

    def __init__(self, design: "Design"):
        self.design = design
        self.half = design.code.period(design.n_weights)
        self.length = 2 * self.half
        self.number, self.sound = 0, True
        self.sums, self.totals = np.zeros((len(ROWS), design.n_weights)), np.zeros(len(TOTALS))
        self.open: list[tuple[int, Array]] = []

    @property
    def trials(self) -> int:
        """Of the complete double periods."""
        return self.number * self.length

    def hear(self, first: int, heard: Array, v: Array) -> None:
        """The broadcasts of trials first, first + 1, ...: an array (3, trials) of dE_g, dE_z, s. v: the direction."""
        L, done = self.length, 0
        while done < heard.shape[1]:
            trial = first + done
            if trial % L == 0 and (whole := (heard.shape[1] - done) // L):
                count = min(whole, LATEST)
                self._close(trial // L, heard[:, done : done + count * L].reshape(3, count, L), v)
            else:
                count = 0
                some = min(heard.shape[1] - done, L - trial % L)
                self._keep(trial, heard[:, done : done + some].copy(), v)
                done += some
            done += count * L

    def _keep(self, first: int, some: Array, v: Array) -> None:
        """Part of a double period, put together with its neighbours."""
        for start, other in [*self.open]:
            if start // self.length != first // self.length:
                continue
            if start + other.shape[1] == first:
                first, some = start, np.concatenate([other, some], axis=1)
            elif first + some.shape[1] == start:
                some = np.concatenate([some, other], axis=1)
            else:
                continue
            self.open = [part for part in self.open if part[0] != start]
        if some.shape[1] == self.length:
            self._close(first // self.length, some[:, None], v)
        else:
            self.open = sorted([*self.open, (first, some)], key=lambda part: part[0])

    # ---- stored with the statistics

    @property
    def header(self) -> dict[str, object]:
        return {
            "rows": ROWS, "totals": TOTALS, "number": self.number, "sound": self.sound,
            "open": [(first, some.shape[1]) for first, some in self.open],
        }  # fmt: skip

    def arrays(self) -> dict[str, Array]:
        together = np.concatenate([np.empty((3, 0)), *(some for _, some in self.open)], axis=1)
        return {"period_sums": self.sums, "period_totals": self.totals, "period_open": together}

    def restore(self, header: dict, arrays: dict[str, Array]) -> None:
        """Go on from what `header` and `arrays` gave; KeyError or ValueError for anything else."""
        counts = [count for _, count in header["open"]]
        shapes = [self.sums.shape, self.totals.shape, (3, sum(counts))]
        names = ("period_sums", "period_totals", "period_open")
        if [arrays[name].shape for name in names] != shapes or tuple(header["rows"]) != ROWS or tuple(header["totals"]) != TOTALS:
            raise ValueError("sums of periods of unexpected shape")
        self.number, self.sound, self.sums, self.totals = header["number"], header["sound"], *(arrays[name] for name in names[:2])
        parts = np.split(arrays["period_open"], np.cumsum(counts)[:-1], axis=1) if counts else []
        self.open = [(first, some.copy()) for (first, _), some in zip(header["open"], parts, strict=True)]

    def merge(self, other: "Periods", v: Array) -> "Periods":
        both = Periods(self.design)
        both.number, both.sound = self.number + other.number, self.sound and other.sound
        both.sums, both.totals = self.sums + other.sums, self.totals + other.totals
        for first, some in sorted(self.open + other.open, key=lambda part: part[0]):
            both._keep(first, some, v)
        return both

    def _close(self, pair: int, heard: Array, v: Array) -> None:
        """Double periods pair, pair + 1, ... are complete: heard (3, double periods, trials)."""
        _, B, _ = heard.shape
        _, A, Q = self.made(range(pair, pair + B), heard, v) if self.design.method.needs_s else np.zeros((3, B, 0))
        _add_up(heard, A, Q, self.sums, self.totals)
        self.number += B

    def rest(self, v: Array) -> tuple[Array, Array]:
        """Sums (G, A, Q) of the trials of incomplete double periods, and their TOTALS of dE_g and dE_z."""
        sums, totals = np.zeros((3, self.design.n_weights)), np.zeros(4)
        for first, (y, u, s) in self.open:
            heard, at, pair = np.zeros((3, 1, self.length)), first % self.length, first // self.length
            heard[:, 0, at : at + y.size] = y, u, s
            sums += np.array(self.made(range(pair, pair + 1), heard, v))[:, 0]
            totals += y.sum(), u.sum(), (y * y).sum(), (u * u).sum()
        return sums, totals

    def made(self, pairs: range, heard: Array, v: Array) -> tuple[Array, Array, Array]:
        """G = sum dw dE_g, A and Q (double periods, n) from broadcasts (3, double periods, 2P), as the synapses make them.

        The second pass turns all signs, of s too: with D of the first, and 0 and 1 for the passes, sum D y = sum D (y0 - y1),
        sum s D u = sum D (s0 u0 - s1 u1).
        """
        design, P = self.design, self.half
        (y0, u0, s0), (y1, u1, s1) = heard[..., :P], heard[..., P:]
        power, kind = design.sigma**2, design.method.regressor
        if design.code.kind == WALSH:
            G, A, Q = np.zeros((3, len(pairs), design.n_weights))
            _made_by_walsh(heard, self._signs(pairs), REGRESSORS[kind], design.sigma, v, float(v @ v), G, A, Q)
            return G, A, Q
        if kind == "none":
            (G,) = self._transformed(pairs, [y0 - y1])
            return design.sigma * G, np.zeros_like(G), np.zeros_like(G)
        if kind == "dw":
            G, A = self._transformed(pairs, [y0 - y1, u0 - u1])
            return design.sigma * G, design.sigma * A, np.full_like(G, self.length * power)
        V, ss0, ss1 = float(v @ v), s0 * s0, s1 * s1
        series = [y0 - y1, s0 * u0 - s1 * u1, *([s0 * ss0 - s1 * ss1] if kind == "b" else [])]
        G, A, *cubes = (design.sigma * sums for sums in self._transformed(pairs, series))
        if kind == "b":
            alpha, beta = 1 / V, v / (2 * V * V)
            ssu, fourth = (ss0 * u0 + ss1 * u1).sum(1)[:, None], (ss0 * ss0 + ss1 * ss1).sum(1)[:, None]
            DDss = power * self._squared(pairs, ss0 + ss1)
            return G, alpha * A - beta * ssu, alpha**2 * DDss - 2 * alpha * beta * cubes[0] + beta**2 * fourth
        if design.kappa:
            A = A - design.kappa * v * power * self._squared(pairs, u0 + u1)
        return G, A, np.zeros_like(G)

    # ---- sums over a pass of numbers times D, for all weights at once

    def _transformed(self, pairs: range, series: Sequence[Array]) -> list[Array]:
        """sum_t c(t) D_i(t)/sigma over the first pass of each double period, (double periods, n), for each c of the series."""
        design, P = self.design, self.half
        n, code = design.n_weights, design.code
        if code.kind == SEQUENTIAL:
            return [np.sqrt(n) * self._signs(pairs) * c for c in series]
        if code.kind == SINE:
            at, turns = np.arange(1, n + 1), [self._phases(pair) for pair in pairs]
            each = [[(turn * np.conj(np.fft.fft(row)[at])).real for row, turn in zip(c, turns, strict=True)] for c in series]
            return [np.sqrt(2) * np.array(sums) for sums in each]
        # lfsr: the registers' one sequence, in circular correlation
        assert code.kind == LFSR and code.registers is not None
        phases = code.registers.phases(n, design.seed)
        return [np.array([np.fft.irfft(self._sequence * np.conj(np.fft.rfft(row)), P)[phases] for row in c]) for c in series]

    def _squared(self, pairs: range, c: Array) -> Array:
        """sum_t c(t) (D_i(t)/sigma)^2 over the first pass of each double period, of codes for methods on s dw."""
        n = self.design.n_weights
        at = 2 * np.arange(1, n + 1) % self.half
        rows = zip(c, pairs, strict=True)
        return np.array([row.sum() + (self._phases(pair) ** 2 * np.conj(np.fft.fft(row)[at])).real for row, pair in rows])

    def _signs(self, pairs: range) -> Array:
        """The random signs of double periods, (double periods, n): those of code rademacher in the trials of their numbers."""
        return CODES["rademacher"].draw_each(self.design.n_weights, 1.0, self.design.seed, np.array(pairs))

    def _phases(self, pair: int) -> Array:
        """exp(i phase) of the sines of a double period, from its first two trials."""
        code, n, seed = self.design.code, self.design.n_weights, self.design.seed
        first, second = (code.draw(n, np.sqrt(0.5), seed, pair * self.length + t) for t in (0, 1))
        turn = 2 * np.pi * np.arange(1, n + 1) / self.half
        return first + 1j * (np.cos(turn) * first - second) / np.sin(turn)

    @cached_property
    def _sequence(self) -> Array:
        """The spectrum of the sequence of the shift registers."""
        code, n, seed = self.design.code, self.design.n_weights, self.design.seed
        assert code.registers is not None
        ahead = int(code.registers.phases(n, seed)[0])
        bits = [float(code.draw(n, 1.0, seed, t, 0, 1)[0]) for t in range(self.half)]
        return np.fft.rfft(np.roll(bits, ahead))


@compiled(nogil=True)
def _add_up(heard, A, Q, sums, totals):
    # one double period after another, so that the bits do not depend on how many come at once
    P = heard.shape[2] // 2
    for k in range(heard.shape[1]):
        Y, YY, U, UU, dd, C = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for t in range(P):
            y0, y1, u0, u1 = heard[0, k, t], heard[0, k, P + t], heard[1, k, t], heard[1, k, P + t]
            Y += y0 + y1
            YY += y0 * y0 + y1 * y1
            U += u0 + u1
            UU += u0 * u0 + u1 * u1
            dd += 0.25 * (y0 - y1) * (y0 - y1)
        if A.shape[1]:
            for t in range(2 * P):
                C += heard[2, k, t] * heard[2, k, t] * heard[1, k, t]
        totals[0] += Y
        totals[1] += U
        totals[2] += YY
        totals[3] += UU
        totals[4] += dd
        totals[5] += C
        totals[6] += U * U
        totals[7] += U * C
        totals[8] += C * C
        for i in range(A.shape[1]):
            a, q = A[k, i], Q[k, i]
            sums[0, i] += a
            sums[1, i] += q
            sums[2, i] += a * a
            sums[3, i] += a * q
            sums[4, i] += q * q
            sums[5, i] += a * U
            sums[6, i] += q * U
            sums[7, i] += a * C
            sums[8, i] += q * C


@compiled(nogil=True)
def walsh_transform(c):
    """c[i] := sum_t (-1)^(bits of t & i) c[t], in place; c of a power of two."""
    half = 1
    while half < c.size:
        for start in range(0, c.size, 2 * half):
            for t in range(start, start + half):
                a, b = c[t], c[t + half]
                c[t], c[t + half] = a + b, a - b
        half *= 2


@compiled(nogil=True)
def _made_by_walsh(heard, signs, kind, sigma, v, V, G, A, Q):
    """`Periods.made` of code walsh, whose D^2 = sigma^2, in arrays that are zero."""
    P = heard.shape[2] // 2
    y, su, sss = np.empty(P), np.empty(P), np.zeros(P)
    for k in range(heard.shape[1]):
        ss, ssu, ssss = 0.0, 0.0, 0.0
        for t in range(P):
            y0, y1, u0, u1, s0, s1 = (
                heard[0, k, t], heard[0, k, P + t], heard[1, k, t], heard[1, k, P + t], heard[2, k, t], heard[2, k, P + t],
            )  # fmt: skip
            y[t] = y0 - y1
            if kind == 0:
                su[t] = u0 - u1
            else:
                su[t] = s0 * u0 - s1 * u1
            if kind == 2:
                a, b = s0 * s0, s1 * s1
                sss[t] = s0 * a - s1 * b
                ss, ssu, ssss = ss + a + b, ssu + a * u0 + b * u1, ssss + a * a + b * b
        walsh_transform(y)
        if kind != 3:
            walsh_transform(su)
        if kind == 2:
            walsh_transform(sss)
        for i in range(v.size):
            sign = sigma * signs[k, i]
            G[k, i] = sign * y[i + 1]
            if kind == 2:
                beta = v[i] / (2.0 * V * V)
                A[k, i] = sign * su[i + 1] / V - beta * ssu
                Q[k, i] = sigma * sigma * ss / (V * V) - 2.0 * beta / V * sign * sss[i + 1] + beta * beta * ssss
            elif kind != 3:
                A[k, i] = sign * su[i + 1]
                Q[k, i] = 2.0 * P * sigma * sigma if kind == 0 else 0.0


# ---- standard errors


def errors_over_periods(
    statistics: "Statistics", g: Array, z: Array, var_g: Array, var_z: Array
) -> tuple[Array, float, Array, float, list[str]]:
    """Variances of g and of z of a periodic code, their degrees of freedom, and why one is not known (NaN).

    Within a period the trials of a periodic code disturb each other, less or more than independent ones would; what is known:

    On dw, from a dE without an even part (pairs, differences), over whole periods: the estimates are a joint least-squares fit of
    all weights, and the variance is RSS/(K - n - 1)/(K sigma^2), RSS = sum dE^2 - K mean(dE)^2 - K sigma^2 sum_i slope_i^2; see
    `_explained` for shift registers. With some trials after the last double period RSS is that of the whole double periods, and
    `theory.disturbance` of the slopes is added.

    g of a one-sided dE, over M double periods, where curvature cancels: the same of the odd part d = (dE - dE a pass later)/2 of
    dE, whose noise has half the variance: 2 RSS/(M P - n)/(K sigma^2), RSS = sum d^2 - M P sigma^2 sum_i g_i^2 over M P pairs.

    z on s dw or b: of M >= 2 double periods the scatter of their own estimates, M - 1 degrees of freedom. The ratio of a
    least-squares fit is linearised, and double periods with a larger sum of q^2 weigh more.

    Trials after the last double period add to g what `theory` says of the slopes and of the residual of the whole double periods;
    to z they add as independent ones, those of a folded-over pass with their partners as double periods do: to leading order.

    What incomplete double periods add is roughly known only, and is not normal: the signs of a few weights decide it. Where that
    is more than REST of the variance, it is not known.

    Parameters
    ----------
    g, z : the estimates, shape (n,); z of a least-squares fit before its correction.
    var_g, var_z : their variances as if trials were independent.

    References
    ----------
    Batch means: Law and Kelton, Simulation Modeling and Analysis (1982), in batches that are independent.
    """
    method, periods, n = statistics.design.method, statistics.periods, g.size
    nothing, says = np.full(n, np.nan), []
    results: list[tuple[Array, float]] = []
    for name in method.quantities:
        linear = not method.one_sided if name == "gradient" else method.regressor == "dw"
        if periods is not None and not periods.sound:
            found: tuple[Array, float] | str = "synapses did not hear every broadcast of their trials, once"
        elif linear:
            found = _from_residual(statistics, name, g if name == "gradient" else z)
        elif periods is None:
            found = "curvature adds to them what no later period of this code takes away; use a method of pairs"
        else:
            found = _from_folded(statistics) if name == "gradient" else _from_replicates(statistics, z, var_z)
        if isinstance(found, str):
            says.append(f"the standard errors of {'g' if name == 'gradient' else 'z = Hv'} are not known: {found}")
            found = nothing, math.nan
        results.append(found)
    (var_g, df_g), (var_z, df_z) = (*results, (nothing, math.nan))[:2]
    return var_g, df_g, var_z, df_z, says


def _take(trials: int) -> str:
    return f"take {trials:,} trials"


def _from_residual(statistics: "Statistics", name: str, estimate: Array) -> tuple[Array, float] | str:
    """Variances and degrees of freedom of an estimate that is linear in D but for noise, or why they are not known."""
    design, K, periods = statistics.design, statistics.trials, statistics.periods
    code, n, power = design.code, design.n_weights, design.sigma**2
    P, one = code.period(n), of_each_column(design)
    scale = 1.0 if name == "gradient" else design.r
    at = 0 if name == "gradient" else 1
    count, slope, disturbed = K, estimate * scale, np.zeros(n)
    y, yy = map(float, statistics.totals[[at, 2 + at]])
    if not all(start % P == 0 and stop % P == 0 for start, stop in statistics.spans):
        whole = -(-K // P) * P
        if periods is None or periods.number == 0:
            return f"{K:,} trials do not cover the code's period of {P:,}; {_take(max(whole, 2 * P))}"
        if not _goes_on(statistics):
            return f"{K:,} trials are no whole number of periods of {P:,}; {_take(whole)}"
        count, y, yy, slope = _of_whole_periods(statistics, at)
    free = count - one.size - bool(code.balanced)
    if free <= 0:
        return f"there are as many unknowns as the {count:,} trials of whole periods; {_take(count + P)}"
    rss = yy - code.balanced * y * y / count - count * power * _explained(code, slope[one], P)
    rss = max(rss, ROUNDING[statistics.precision] * yy)
    noise = rss / free / power
    if count < K:
        disturbed = _disturbed(design, slope, noise / count, K)
        if not disturbed.sum() <= REST * (n * noise / K + disturbed.sum()):
            return f"too much of them comes from the trials after the last whole period of {P:,}; {_take(-(-K // P) * P)}"
    return (noise / K + disturbed) / scale**2, float(free)


def _goes_on(statistics: "Statistics") -> bool:
    """Whether all trials follow one another from the start of a double period on, of a code that shows all weights alike."""
    periods, code = statistics.periods, statistics.design.code
    assert periods is not None
    return code.kind != SEQUENTIAL and len(statistics.spans) == 1 and statistics.spans[0][0] % periods.length == 0


def _of_whole_periods(statistics: "Statistics", at: int) -> tuple[int, float, float, Array]:
    """Of whole double periods alone: trials, sums of dE and dE^2, and the slopes <dE D>/sigma^2; of dE_g (at = 0) or dE_z (1)."""
    periods, point = statistics.periods, statistics.point
    assert periods is not None and point is not None
    rest, totals = periods.rest(point.v)
    y, yy = statistics.totals[[at, 2 + at]] - totals[[at, 2 + at]]
    slope = statistics.sums[SUMS.index("qu" if at else "xy")] - rest[at]
    return periods.trials, float(y), float(yy), slope / periods.trials / statistics.design.sigma**2


def _disturbed(design: "Design", slope: Array, var: float, trials: int, mean: float = 0.0) -> Array:
    """`theory.disturbance` of estimated slopes, whose squares are too large by their own variance."""
    from perturb.theory.estimates import disturbance

    return disturbance(design.code, np.sqrt(np.maximum(slope**2 - var, 0.0)), trials, mean, design.seed)


def _from_folded(statistics: "Statistics") -> tuple[Array, float] | str:
    """Variances and degrees of freedom of g from a dE with an even part, or why they are not known."""
    design, K, periods = statistics.design, statistics.trials, statistics.periods
    assert periods is not None
    code, n, power, P = design.code, design.n_weights, design.sigma**2, periods.half
    count, rest, one = periods.trials, K - periods.trials, of_each_column(design)
    whole = max(-(-K // periods.length), 1) * periods.length
    free = count // 2 - one.size
    if count == 0 or free <= 0:
        return f"{K:,} trials are fewer than a double period of {periods.length:,}; {_take(whole)}"
    count, y, yy, slope = _of_whole_periods(statistics, 0)
    square = _explained(code, slope[one], P)
    dd = float(periods.totals[TOTALS.index("dd")])
    noise = 2 * max(dd - count / 2 * power * square, ROUNDING[statistics.precision] * dd) / free / power
    if rest == 0:
        return np.full(n, noise / K), float(free)
    if not _goes_on(statistics):
        return f"{K:,} trials are no whole number of double periods of {periods.length:,}; {_take(whole)}"
    even = max((yy - y * y / count) / count / power - square - noise, 0.0)
    left_in = 0.0 if design.method.centred else y / count / design.sigma
    added = min(rest, 2 * P - rest) * even / K**2 + _disturbed(design, slope, noise / count, K, left_in)
    if not added.sum() <= REST * (n * noise / K + added.sum()):
        return f"too much of them comes from {rest:,} trials after the last double period of {periods.length:,}; {_take(whole)}"
    return noise / K + added, float(free)


def _from_replicates(statistics: "Statistics", z: Array, var: Array) -> tuple[Array, float] | str:
    """Variances and degrees of freedom of z on s dw or b, from double periods as replicates, or why they are not known.

    z: of a least-squares fit, before its correction. var: variances as if trials were independent.
    """
    design, K, periods = statistics.design, statistics.trials, statistics.periods
    assert periods is not None and statistics.point is not None
    method, n, power, v = design.method, design.n_weights, design.sigma**2, statistics.point.v
    M, L, P, V = periods.number, periods.length, periods.half, float(v @ v)
    rest, whole = K - periods.trials, max(-(-K // L), 2) * L
    if M < 2:
        return f"{K:,} trials are fewer than two double periods of {L:,}; {_take(whole)}"
    row, total = dict(zip(ROWS, periods.sums, strict=True)), dict(zip(TOTALS, periods.totals, strict=True))
    df, mean = float(M - 1), 0.0 * v  # mean of the regressor, over any whole period
    if method.centred:
        mean = power * v * (1 - design.kappa) if method.regressor == "s_dw" else power * v / (2 * V)
    U, C = total["u"], total["c"]
    a = row["a"] - mean * U
    aa = row["aa"] - 2 * mean * row["au"] + mean**2 * total["UU"] - a * a / M
    unit, squares = np.full(n, L * design.scales[1]), aa
    if method.fit == "least_squares":
        aq = row["aq"] - mean * row["qu"] - a * row["q"] / M
        squares = aa - 2 * z * aq + z**2 * (row["qq"] - row["q"] ** 2 / M)
        least = L * mean**2
        unit = row["q"] / M - least  # of q^2 in a double period, less its mean
        # double periods with more of it weigh more: they are worth so many equal ones
        worth = (M * unit) ** 2 / (row["qq"] - 2 * least * row["q"] + M * least**2)
        more, df = (M - 1) / M * worth / (worth - 1), float(np.nanmean(worth)) - 1
        if method.correction == "along":
            ss, known, share, part = power * V, L * design.scales[1], 1 - v * v / (2 * V), v / (2 * V)
            c = C - ss * U
            cc = total["CC"] - 2 * ss * total["UC"] + ss * ss * total["UU"] - c * c / M
            ac = row["ac"] - ss * row["au"] - mean * total["UC"] + mean * ss * total["UU"] - a * c / M
            ac -= z * (row["qc"] - ss * row["qu"] - row["q"] * c / M)
            squares = (share / unit) ** 2 * squares + 2 * share * part / unit / known * ac + (part / known) ** 2 * cc
            unit = np.ones(n)
        squares = squares * more
    of_one = np.maximum(squares, 0.0) / (M - 1) / unit**2  # variance of the estimate of one double period
    if rest == 0:
        return of_one / M, df
    if not _goes_on(statistics):
        return f"{K:,} trials are no whole number of double periods of {L:,}; {_take(whole)}"
    paired = max(rest - P, 0)
    lasting, added = M * L * L * of_one, (rest - 2 * paired) * K * var + paired * L * L / P * of_one
    share = 1 - np.nansum(added) / np.nansum(lasting + added)
    if not 1 - share <= REST:
        return f"too much of them comes from {rest:,} trials after the last double period of {L:,}; {_take(whole)}"
    return (lasting + added) / K**2, df / share**2


def of_each_column(design: "Design") -> Array:
    """One weight for each different column of the code, in order: all weights, but for registers that feed some alike."""
    n, registers = design.n_weights, design.code.registers
    if registers is None:
        return np.arange(n)
    return np.sort(np.unique(registers.phases(n, design.seed), return_index=True)[1])


def _explained(code: Code, slope: Array, period: int) -> float:
    """What all columns together explain of the mean square of dE, per sigma^2, over whole periods; slope = <dE D>/sigma^2, one
    for each different column.

    Orthogonal: |slope|^2. Shift registers, <D_i D_j> = -sigma^2/L: slope' G^-1 slope with G = (1 + 1/L) I - 1 1'/L, which is
    L/(L + 1) [|slope|^2 + (sum slope)^2/(L + 1 - c)] for c columns.
    """
    square = float(slope @ slope)
    if code.orthogonal:
        return square
    return period / (period + 1) * (square + float(slope.sum()) ** 2 / (period + 1 - slope.size))
