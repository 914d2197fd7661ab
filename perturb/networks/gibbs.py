"""Gibbs chains of a Boltzmann machine, and what they estimate."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from perturb.compiled import compiled
from perturb.trial.random import words

Array = np.ndarray
GIBBS = 3  # stream of random numbers


@dataclass(frozen=True)
class Sampled:
    """Estimates from Gibbs chains, with standard errors.

    Attributes
    ----------
    p : array of shape (n,)
        Mean of s_i s_j (and s_i).
    p_stderr : array of shape (n,)
        From the standard deviation of independent chains, so that the correlation of successive
        sweeps is accounted for.
    R_p : array of shape (n,)
        R{p} along v.
    R_p_stderr : array of shape (n,)
        As p_stderr.
    n_samples : int
        Sweeps counted, in all chains.
    autocorrelation : float
        How many sweeps are worth one independent sample (2 tau_int), the largest over the entries
        of p.
    """

    p: Array
    p_stderr: Array
    R_p: Array
    R_p_stderr: Array
    n_samples: int
    autocorrelation: float


@dataclass(frozen=True)
class SampledDivergence:
    """Gradient and Hv of the divergence from sampled phases, with standard errors.

    Attributes
    ----------
    gradient : array of shape (n,)
        Clamped phase, within each pattern and then averaged, less the free phase.
    gradient_stderr : array of shape (n,)
        Of both phases together.
    hv : array of shape (n,)
        As gradient.
    hv_stderr : array of shape (n,)
        Of both phases together.
    n_samples : int
        Sweeps counted, in all phases and chains.
    autocorrelation : float
        As in `Sampled`.
    """

    gradient: Array
    gradient_stderr: Array
    hv: Array
    hv_stderr: Array
    n_samples: int
    autocorrelation: float


def summed(signs: Array, phases: list[Sampled]) -> SampledDivergence:
    """Gradient and Hv as a sum of p and R{p} of independent phases, with these factors."""
    both = zip(signs, phases, strict=True)
    terms = [(sign, phase.p, phase.R_p, phase.p_stderr, phase.R_p_stderr) for sign, phase in both]
    g, z = (sum(term[0] * term[k] for term in terms) for k in (1, 2))
    # the variances of independent phases add up
    g_var, z_var = (sum((term[0] * term[k]) ** 2 for term in terms) for k in (3, 4))
    samples = sum(phase.n_samples for phase in phases)
    slowest = max(phase.autocorrelation for phase in phases)
    return SampledDivergence(g, np.sqrt(g_var), z, np.sqrt(z_var), samples, slowest)


def sampled(
    energy: tuple[Array, Array],
    direction: tuple[Array, Array],
    temperature: float,
    values: tuple[float, float],
    held: Array,
    seed: int,
    chains: range,
    burn_in: int,
    sweeps: int,
) -> Sampled:
    """Means and R{p} of a machine with E = s'Ws/2 + b's along D = s'Vs/2 + c's.

    energy: W (neurons, neurons), symmetric, and b (neurons,). direction: V and c likewise. held:
    states of the first neurons, which do not change. chains: their numbers, which key the random
    numbers.
    """
    (W, b), (V, c) = energy, direction
    T, count = temperature, len(chains)
    states = np.zeros(b.size)
    states[: held.size] = held
    # a row per chain of sums over its sweeps: x = s_i s_j (or s_i), x D, D, x x
    size = b.size * (b.size + 1) // 2
    X, XD, DS, XX = (np.zeros((count, columns)) for columns in (size, size, 1, size))
    run = _Run(states, held.size, np.uint64(seed), chains.start, burn_in, sweeps)
    _gibbs(_Machine(W, b, V, c, T, *values), run, (X, XD, DS[:, 0], XX))
    K = sweeps * count
    p, D = X.sum(0) / K, DS.sum() / K
    # chains are independent, successive sweeps are not: the spread between chains knows both
    each = X / sweeps
    p_stderr = each.std(0, ddof=1) / np.sqrt(count)
    products = (
        XD - p * DS - D * X + sweeps * p * D
    ) / sweeps  # each chain's mean of (X - mean)(D - mean)
    # R{p} = -Cov(x, D)/T, unbiased with K - 1
    R_p = -products.sum(0) * sweeps / (K - 1) / T
    # of the mean over chains of a chain's own covariance
    R_p_stderr = products.std(0, ddof=1) / np.sqrt(count) / T
    # variance of x from sweep to sweep; K independent ones would give p an error^2 of variance/K
    variance = XX.sum(0) / K - p * p
    with np.errstate(divide="ignore", invalid="ignore"):
        # 2 tau_int = measured error^2 over that; 1 where x never changed, which tells nothing
        worth = np.where(variance > 1e-12 * XX.sum(0) / K, p_stderr**2 * K / variance, 1.0)
    return Sampled(p, p_stderr, R_p, R_p_stderr, K, float(worth.max()))


class _Machine(NamedTuple):
    """E = s'Ws/2 + b's and D = s'Vs/2 + c's, at a temperature; the two values of a state."""

    W: Array
    b: Array
    V: Array
    c: Array
    T: float
    low: float
    high: float


class _Run(NamedTuple):
    """Which chains, from which states: the first n_held do not change."""

    held: Array
    n_held: int
    seed: np.uint64
    first_chain: int
    burn_in: int
    sweeps: int


@compiled()
def _gibbs(machine, run, sums):
    """Chains of Gibbs sampling: adds the sums of each chain to its row of x, x D, D and x x."""
    W, b, V, c, T, low, high = machine
    held, n_held, seed, first_chain, burn_in, sweeps = run
    X, XD, DS, XX = sums
    n = b.size
    s, random = np.empty(n), np.empty(4)
    for chain in range(X.shape[0]):
        # sweep -1 sets the start
        for sweep in range(-1, burn_in + sweeps):
            for i in range(n):
                # a block of Philox has four words: four neurons
                if i % 4 == 0:
                    trial = (np.uint64(first_chain + chain) << np.uint64(32)) + np.uint64(sweep + 1)
                    w0, w1, w2, w3 = words(seed, trial, i // 4, GIBBS, 0)
                    random[0], random[1], random[2], random[3] = w0, w1, w2, w3
                # in (0, 1), never 0 or 1
                u = (random[i % 4] + 0.5) * 2.0**-32
                if i < n_held:
                    s[i] = held[i]
                elif sweep < 0:  # start anywhere
                    s[i] = high if u < 0.5 else low
                else:
                    # dE/ds_i = b_i + sum_{j != i} W_ij s_j
                    field = b[i]
                    for j in range(n):
                        field += W[i, j] * s[j]
                    field -= W[i, i] * s[i]
                    # P(high) = 1/(1 + exp((E_high - E_low)/T)), E linear in s_i
                    s[i] = high if u < 1.0 / (1.0 + np.exp((high - low) * field / T)) else low
            if sweep < burn_in:
                continue
            # D_a = sum_{i<j} v_ij s_i s_j + sum_i c_i s_i of this state
            D = 0.0
            for i in range(n):
                D += c[i] * s[i]
                for j in range(i):
                    D += V[i, j] * s[i] * s[j]
            DS[chain] += D
            k = 0
            for i in range(n):
                for j in range(i + 1, n):
                    x = s[i] * s[j]
                    X[chain, k] += x
                    XD[chain, k] += x * D
                    XX[chain, k] += x * x
                    k += 1
            for i in range(n):
                X[chain, k + i] += s[i]
                XD[chain, k + i] += s[i] * D
                XX[chain, k + i] += s[i] * s[i]
