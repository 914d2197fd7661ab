"""Periodic codes: what trials show again, and how weights disturb each other where trials stop
within a period.
"""

import numpy as np

from perturb.trial.code import SEQUENTIAL, SINE, WALSH, Code

Array = np.ndarray


def repeated(code: Code, n_weights: int, trials: int) -> int:
    """How many of so many trials have only repeated, with all signs turned, what an earlier one
    showed of the even part of E.
    """
    if not code.periodic or code.function is not None:
        return 0
    # all of the second pass of whole double periods, and what a last one has of its second pass
    P = code.period(n_weights)
    return trials // (2 * P) * P + max(trials % (2 * P) - P, 0)


def period_warnings(code: Code, n_weights: int, trials: int) -> list[str]:
    """A sentence if `trials` are not a multiple of the period of a periodic code; else none."""
    if not code.periodic or trials % (period := code.period(n_weights)) == 0:
        return []
    whole = -(-trials // period) * period
    short = "do not cover its period" if trials < period else "are not a multiple of its period"
    return [
        f"{trials:,} trials of code {code.name} {short} of {period:,} for {n_weights:,} weights, so"
        f" weights disturb each other: take {whole:,} trials"
    ]


def correlated(code: Code, slope: Array, seed: int) -> Array:
    """C slope, C_ij = <D_i D_j>/sigma^2 over the seeds or, of a periodic code, over a period."""
    return slope.copy() if code.registers is None else code.registers.correlated(slope, seed)


def odd_variance(code: Code, slope: Array, seed: int) -> Array:
    """Variance of (D.slope) D_i/sigma^2 over a period of a code with |D_i| fixed or one at a time,
    per weight: slope'C slope - (C slope)_i^2.
    """
    # <(D.slope)^2 D_i^2>/sigma^4 - <(D.slope) D_i>^2/sigma^4, with D_i^2 fixed
    tends = correlated(code, slope, seed)
    return np.maximum(float(slope @ tends) - tends**2, 0.0)


def disturbance(code: Code, slope: Array, trials: int, mean: float = 0.0, seed: int = 0) -> Array:
    """What the weights' own perturbations leave in <D_i (D.slope + mean)>/sigma^2 after so many
    trials of a periodic code, besides slope_i: the mean square over random signs or phases, shape
    (n,). Zero over whole periods.

    With m trials into a period and K in all it is (1/K^2) times
      walsh sum_{j != i} slope_j^2 T_b^2, b the number of trailing zeros of (i+1) xor (j+1), T_b the
                  distance of m to the nearest multiple of 2^(b+1): in natural order, columns that
                  differ in a low bit soon cancel, those that differ only in high bits are the same
                  until late. mean counts as the slope of column 0
      sine (1/2) sum_{j != i} slope_j^2 [F(i-j) + F(i+j)] + (1/2) slope_i^2 F(2i), F(d) = sin^2(pi m
                  d/P)/sin^2(pi d/P), plus mean^2 F(i), frequencies i, j = 1..n
      sequential  nothing; but see `QuantityPrediction.expected`
      others m (P-m)/(P-1) (|slope|^2 - slope_i^2 + mean^2): as if the trials of a period came in
                  random order, without replacement; lfsr: slope'C slope - (C slope)_i^2 + mean^2,
                  and as its period does not sum to zero but to +-1, mean^2 more after an odd number
                  of them
    walsh and sine are exact for trials counted from 0.
    """
    n, K = slope.size, trials
    P = code.period(n)
    # m trials into a period: the whole ones before it leave nothing
    m, square = K % P, slope**2
    if m == 0 and (code.balanced or mean == 0.0):
        return np.zeros(n)
    index = np.arange(1, n + 1)
    if code.kind == WALSH:
        column, square = np.append(0, index), np.append(mean**2, square)
        total = np.zeros(n)
        # at b = 0 all columns; half by half only those that differ in ever higher bits are left
        # summed over columns with the same lowest b bits
        same = np.bincount(column % 1, square, 1)[column[1:] % 1]
        for b in range(P.bit_length() - 1):
            half = 2 ** (b + 1)
            # same - lower: columns that first differ in bit b
            lower = np.bincount(column % half, square, half)[column[1:] % half]
            total += min(m % half, half - m % half) ** 2 * (same - lower)
            same = lower
        return total / K**2
    if code.kind == SINE:
        d = np.arange(P)
        with np.errstate(divide="ignore", invalid="ignore"):
            # |sum of m terms exp(2 pi i d t/P)|^2, of Dirichlet's kernel; F(0) is the weight itself
            F = np.where(
                d == 0, 0.0, (np.sin(np.pi * ((m * d) % P) / P) / np.sin(np.pi * d / P)) ** 2
            )
        padded = np.zeros(P)
        padded[index] = square
        # sum_j slope_j^2 F(i - j), a circular convolution
        apart = np.fft.irfft(np.fft.rfft(padded) * np.fft.rfft(F), P)[index]
        padded = np.zeros(P)
        # frequency j put at -j: sum_j slope_j^2 F(i + j)
        padded[P - index] = square
        together = np.fft.irfft(np.fft.rfft(padded) * np.fft.rfft(F), P)[index]
        return (np.maximum(apart + together, 0.0) / 2 + mean**2 * F[index]) / K**2
    if code.kind == SEQUENTIAL:
        return np.zeros(n)
    # a period of a register sums to +-1, which the folded-over one takes away
    unpaired = (K // P) % 2 * mean**2 * (not code.balanced)
    return (m * (P - m) / (P - 1) * (odd_variance(code, slope, seed) + mean**2) + unpaired) / K**2
