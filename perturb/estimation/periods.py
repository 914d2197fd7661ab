"""Double periods of a periodic code as replicates, for the standard errors of estimates whose
trials are not independent.

A periodic code repeats after P trials with all signs turned, and after 2P trials with new random
signs or phases: what one double period gives is independent of what the next gives, and has the
same distribution. The controller hears every broadcast and knows the code; it keeps the broadcasts
of the double period under way, and of one that is complete the sums that every synapse made in it,
by one fast transform each.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from perturb.compiled import compiled
from perturb.estimation.design import Design
from perturb.trial.code import LFSR, SEQUENTIAL, SINE, WALSH
from perturb.trial.codes import CODES
from perturb.trial.methods import REGRESSORS

Array = np.ndarray
# of a double period, for every synapse: A = sum q dE_z, Q = sum q^2; over those that are complete
# the sums of them, of their squares and products, also with the controller's U = sum dE_z and C =
# sum s^2 dE_z
ROWS = ("a", "q", "aa", "aq", "qq", "au", "qu", "ac", "qc")
# sums over trials, with d = (dE_g - dE_g a pass later)/2, the odd part of dE_g, over first passes;
# and of products of U and C
TOTALS = ("y", "u", "yy", "uu", "dd", "c", "UU", "UC", "CC")
LATEST = 1024  # double periods transformed together


class Periods:
    """The double periods of one design that have been received so far.

    number: of those that are complete. sums (rows, n) and totals: over them, named by ROWS and
    TOTALS. open: broadcasts of incomplete ones, as (first trial, array (3, trials) of dE_g, dE_z,
    s), none of which crosses the end of a double period. sound: whether the synapses have met the
    broadcasts of their own trials, each once.
    """

    def __init__(self, design: Design):
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

    def receive(self, first: int, received: Array, v: Array) -> None:
        """The broadcasts of trials first, first + 1, ...: an array (3, trials) of dE_g, dE_z, s.
        v: the direction.
        """
        L, done = self.length, 0
        while done < received.shape[1]:
            trial = first + done
            # whole double periods go straight to their sums; what is left over waits for its rest
            if trial % L == 0 and (whole := (received.shape[1] - done) // L):
                count = min(whole, LATEST)
                self._close(
                    trial // L, received[:, done : done + count * L].reshape(3, count, L), v
                )
            else:
                count = 0
                some = min(received.shape[1] - done, L - trial % L)
                self._keep(trial, received[:, done : done + some].copy(), v)
                done += some
            done += count * L

    def _keep(self, first: int, some: Array, v: Array) -> None:
        """Part of a double period, put together with its neighbours."""
        # parts may come in any order, as from several processes: join whichever touch
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

    @property
    def header(self) -> dict[str, object]:
        return {
            "rows": ROWS,
            "totals": TOTALS,
            "number": self.number,
            "sound": self.sound,
            "open": [(first, some.shape[1]) for first, some in self.open],
        }

    def arrays(self) -> dict[str, Array]:
        together = np.concatenate([np.empty((3, 0)), *(some for _, some in self.open)], axis=1)
        return {"period_sums": self.sums, "period_totals": self.totals, "period_open": together}

    def restore(self, header: dict, arrays: dict[str, Array]) -> None:
        """Go on from what `header` and `arrays` gave; KeyError or ValueError for anything else."""
        # the parts stand one behind the other in one array
        counts = [count for _, count in header["open"]]
        shapes = [self.sums.shape, self.totals.shape, (3, sum(counts))]
        names = ("period_sums", "period_totals", "period_open")
        if (
            [arrays[name].shape for name in names] != shapes
            or tuple(header["rows"]) != ROWS
            or tuple(header["totals"]) != TOTALS
        ):
            raise ValueError("sums of periods of unexpected shape")
        self.number, self.sound, self.sums, self.totals = (
            header["number"],
            header["sound"],
            *(arrays[name] for name in names[:2]),
        )
        parts = np.split(arrays["period_open"], np.cumsum(counts)[:-1], axis=1) if counts else []
        self.open = [
            (first, some.copy()) for (first, _), some in zip(header["open"], parts, strict=True)
        ]

    def merge(self, other: "Periods", v: Array) -> "Periods":
        both = Periods(self.design)
        both.number, both.sound = self.number + other.number, self.sound and other.sound
        both.sums, both.totals = self.sums + other.sums, self.totals + other.totals
        # each may have one half of the same double period
        for first, some in sorted(self.open + other.open, key=lambda part: part[0]):
            both._keep(first, some, v)
        return both

    def _close(self, pair: int, received: Array, v: Array) -> None:
        """Double periods pair, pair + 1, ... are complete: received (3, double periods, trials)."""
        _, B, _ = received.shape
        _, A, Q = (
            self.made(range(pair, pair + B), received, v)
            if self.design.method.needs_s
            else np.zeros((3, B, 0))
        )
        _add_up(received, A, Q, self.sums, self.totals)
        self.number += B

    def rest(self, v: Array) -> tuple[Array, Array]:
        """Sums (G, A, Q) of the trials of incomplete double periods, and their TOTALS of dE_g
        and dE_z.
        """
        sums, totals = np.zeros((3, self.design.n_weights)), np.zeros(4)
        for first, (y, u, s) in self.open:
            received, at, pair = (
                np.zeros((3, 1, self.length)),
                first % self.length,
                first // self.length,
            )
            # trials that are still to come count as zero: they add nothing to any sum
            received[:, 0, at : at + y.size] = y, u, s
            sums += np.array(self.made(range(pair, pair + 1), received, v))[:, 0]
            totals += y.sum(), u.sum(), (y * y).sum(), (u * u).sum()
        return sums, totals

    def made(self, pairs: range, received: Array, v: Array) -> tuple[Array, Array, Array]:
        """G = sum dw dE_g, A and Q (double periods, n) from broadcasts (3, double periods, 2P), as
        the synapses make them.

        The second pass turns all signs, of s too: with D of the first, and 0 and 1 for the passes,
        sum D y = sum D (y0 - y1), sum s D u = sum D (s0 u0 - s1 u1).
        """
        design, P = self.design, self.half
        (y0, u0, s0), (y1, u1, s1) = received[..., :P], received[..., P:]
        power, kind = design.sigma**2, design.method.regressor
        if design.code.kind == WALSH:
            # compiled; what follows is for the other codes
            G, A, Q = np.zeros((3, len(pairs), design.n_weights))
            _made_by_walsh(
                received,
                self._signs(pairs),
                REGRESSORS[kind],
                design.sigma,
                v,
                float(v @ v),
                G,
                A,
                Q,
            )
            return G, A, Q
        if kind == "none":
            (G,) = self._transformed(pairs, [y0 - y1])
            return design.sigma * G, np.zeros_like(G), np.zeros_like(G)
        if kind == "dw":
            G, A = self._transformed(pairs, [y0 - y1, u0 - u1])
            # q = D: sum q^2 = 2 P sigma^2 over a double period
            return design.sigma * G, design.sigma * A, np.full_like(G, self.length * power)
        V, ss0, ss1 = float(v @ v), s0 * s0, s1 * s1
        # sum D dE_g, sum s D dE_z and sum s^3 D, odd in D: the second pass counts with a minus
        series = [y0 - y1, s0 * u0 - s1 * u1, *([s0 * ss0 - s1 * ss1] if kind == "b" else [])]
        G, A, *cubes = (design.sigma * sums for sums in self._transformed(pairs, series))
        if kind == "b":
            # b = alpha s D - beta s^2: sum b u, and sum b^2 with its three terms
            alpha, beta = 1 / V, v / (2 * V * V)
            ssu, fourth = (
                (ss0 * u0 + ss1 * u1).sum(1)[:, None],
                (ss0 * ss0 + ss1 * ss1).sum(1)[:, None],
            )
            DDss = power * self._squared(pairs, ss0 + ss1)
            return (
                G,
                alpha * A - beta * ssu,
                alpha**2 * DDss - 2 * alpha * beta * cubes[0] + beta**2 * fourth,
            )
        if design.kappa:
            # D^2 is the same in both passes
            A = A - design.kappa * v * power * self._squared(pairs, u0 + u1)
        return G, A, np.zeros_like(G)

    def _transformed(self, pairs: range, series: Sequence[Array]) -> list[Array]:
        """sum_t c(t) D_i(t)/sigma over the first pass of each double period, (double periods,
        n), for each c of the series.
        """
        design, P = self.design, self.half
        n, code = design.n_weights, design.code
        if code.kind == SEQUENTIAL:
            # weight i moves in trial i of a pass alone, by sqrt(n) sigma, so that P = n
            return [np.sqrt(n) * self._signs(pairs) * c for c in series]
        if code.kind == SINE:
            # sum c cos(2 pi i t/P + phase) = Re exp(i phase) conj(FFT(c))_i
            at, turns = np.arange(1, n + 1), [self._phases(pair) for pair in pairs]
            each = [
                [
                    (turn * np.conj(np.fft.fft(row)[at])).real
                    for row, turn in zip(c, turns, strict=True)
                ]
                for c in series
            ]
            return [np.sqrt(2) * np.array(sums) for sums in each]
        # lfsr: the registers' one sequence, in circular correlation
        assert code.kind == LFSR and code.registers is not None
        phases = code.registers.phases(n, design.seed)
        return [
            np.array(
                [np.fft.irfft(self._sequence * np.conj(np.fft.rfft(row)), P)[phases] for row in c]
            )
            for c in series
        ]

    def _squared(self, pairs: range, c: Array) -> Array:
        """sum_t c(t) (D_i(t)/sigma)^2 over the first pass of each double period, of codes for
        methods on s dw.
        """
        n = self.design.n_weights
        # 2 cos^2 = 1 + cos of twice the angle; of signs, D^2 = 1 (they do not come here)
        at = 2 * np.arange(1, n + 1) % self.half
        rows = zip(c, pairs, strict=True)
        return np.array(
            [
                row.sum() + (self._phases(pair) ** 2 * np.conj(np.fft.fft(row)[at])).real
                for row, pair in rows
            ]
        )

    def _signs(self, pairs: range) -> Array:
        """The random signs of double periods, (double periods, n): those of code rademacher in
        the trials of their numbers.
        """
        return CODES["rademacher"].draw_each(
            self.design.n_weights, 1.0, self.design.seed, np.array(pairs)
        )

    def _phases(self, pair: int) -> Array:
        """exp(i phase) of the sines of a double period, from its first two trials."""
        code, n, seed = self.design.code, self.design.n_weights, self.design.seed
        # a sine of amplitude sqrt(2) sigma: with sigma = sqrt(1/2) it is cos itself
        first, second = (code.draw(n, np.sqrt(0.5), seed, pair * self.length + t) for t in (0, 1))
        # cos phase, and cos(phase + turn) = cos phase cos turn - sin phase sin turn
        turn = 2 * np.pi * np.arange(1, n + 1) / self.half
        return first + 1j * (np.cos(turn) * first - second) / np.sin(turn)

    @cached_property
    def _sequence(self) -> Array:
        """The spectrum of the sequence of the shift registers."""
        code, n, seed = self.design.code, self.design.n_weights, self.design.seed
        assert code.registers is not None
        ahead = int(code.registers.phases(n, seed)[0])
        bits = [float(code.draw(n, 1.0, seed, t, 0, 1)[0]) for t in range(self.half)]
        # weight 0 starts `ahead` steps into the sequence
        return np.fft.rfft(np.roll(bits, ahead))


@compiled(nogil=True)
def _add_up(received, A, Q, sums, totals):
    # one double period after another, so that the bits do not depend on how many come at once
    P = received.shape[2] // 2
    for k in range(received.shape[1]):
        Y, YY, U, UU, dd, C = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for t in range(P):
            y0, y1, u0, u1 = (
                received[0, k, t],
                received[0, k, P + t],
                received[1, k, t],
                received[1, k, P + t],
            )
            Y += y0 + y1
            YY += y0 * y0 + y1 * y1
            U += u0 + u1
            UU += u0 * u0 + u1 * u1
            # the odd part of dE_g: the same trial a pass later has all signs turned
            dd += 0.25 * (y0 - y1) * (y0 - y1)
        if A.shape[1]:
            for t in range(2 * P):
                C += received[2, k, t] * received[2, k, t] * received[1, k, t]
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
    # fast Walsh-Hadamard transform, P log2 P additions
    half = 1
    while half < c.size:
        for start in range(0, c.size, 2 * half):
            for t in range(start, start + half):
                a, b = c[t], c[t + half]
                c[t], c[t + half] = a + b, a - b
        half *= 2


@compiled(nogil=True)
def _made_by_walsh(received, signs, kind, sigma, v, V, G, A, Q):
    """`Periods.made` of code walsh, whose D^2 = sigma^2, in arrays that are zero."""
    P = received.shape[2] // 2
    y, su, sss = np.empty(P), np.empty(P), np.zeros(P)
    for k in range(received.shape[1]):
        ss, ssu, ssss = 0.0, 0.0, 0.0
        for t in range(P):
            y0, y1, u0, u1, s0, s1 = (
                received[0, k, t],
                received[0, k, P + t],
                received[1, k, t],
                received[1, k, P + t],
                received[2, k, t],
                received[2, k, P + t],
            )
            y[t] = y0 - y1
            # D dE_z is odd as it is; s D dE_z only with the sign of s, which turns too
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
        # sum c D_i = sigma sign_i times column i + 1 of the transform
        for i in range(v.size):
            sign = sigma * signs[k, i]
            # weight i is column i + 1: column 0 is constant
            G[k, i] = sign * y[i + 1]
            if kind == 2:
                beta = v[i] / (2.0 * V * V)
                A[k, i] = sign * su[i + 1] / V - beta * ssu
                Q[k, i] = (
                    sigma * sigma * ss / (V * V)
                    - 2.0 * beta / V * sign * sss[i + 1]
                    + beta * beta * ssss
                )
            elif kind != 3:
                A[k, i] = sign * su[i + 1]
                Q[k, i] = 2.0 * P * sigma * sigma if kind == 0 else 0.0
