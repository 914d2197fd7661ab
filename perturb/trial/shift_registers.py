"""Maximal-length shift registers as a source of perturbations."""

from dataclasses import dataclass

import numpy as np

from perturb.errors import InputError

Array = np.ndarray
LONGEST_REGISTER = 24  # bits; the taps of `random.TAPS` end there


@dataclass(frozen=True)
class Registers:
    """Maximal-length shift registers of m bits with one polynomial.

    Parameters
    ----------
    taps : int, optional
        Consecutive weights that each register feeds; None, one register feeds all.
    bits : int, optional
        m; None, the fewest with L >= the number of weights.

    Notes
    -----
    All run through the same sequence of period L = 2^m - 1. Weight i = k taps + j is j steps ahead
    of register k, which starts at phi_k, drawn from the seed: its phase is p_i = (phi_k + j) mod L.
    Over a period, and so over a double one, <D_i D_j>/sigma^2 = C_ij = 1 where p_i = p_j and -1/L
    elsewhere. The taps of one register differ in phase; weights of two registers may not, and then
    get the same perturbation in every trial. Called with the number of weights it gives L;
    InputError if a register has fewer states than weights to feed.
    """

    taps: int | None = None
    bits: int | None = None

    def __call__(self, n: int) -> int:
        # with bits and taps given, only the weights of one register must differ
        fed = n if self.bits is None or self.taps is None else min(self.taps, n)
        needed = max(2, fed.bit_length())  # 2^needed - 1 >= fed
        if needed > LONGEST_REGISTER:
            instead = "" if self.taps is None else "set the bits of its registers, or "
            raise InputError(
                f"code lfsr has at most {LONGEST_REGISTER} bits, too short for {n} weights:"
                f" {instead}use code walsh, or a random code"
            )
        if self.bits is not None and self.bits < needed:
            raise InputError(
                f"code lfsr: a register of {self.bits} bits has {2**self.bits - 1} different taps,"
                f" too few for the {fed} weights that it feeds: give it at least {needed} bits"
            )
        # L = 2^m - 1 states: all but 0, which a register never leaves
        return (1 << (self.bits or needed)) - 1

    def phases(self, n: int, seed: int) -> Array:
        """The phase p_i of each weight.

        Parameters
        ----------
        n : int
            Weights.
        seed : int

        Returns
        -------
        int array of shape (n,)
        """
        from perturb.trial.random import register_phases

        phases = np.empty(n, dtype=np.int64)
        register_phases(np.uint64(seed), self(n), self.taps or n, phases)
        return phases

    def shared(self, n: int, seed: int) -> int:
        """How many weights have the same perturbation as another.

        Parameters
        ----------
        n : int
            Weights.
        seed : int

        Returns
        -------
        int
        """
        # equal phases are equal perturbations, in every trial
        _, counts = np.unique(self.phases(n, seed), return_counts=True)
        return int(counts[counts > 1].sum())

    def correlated(self, slope: Array, seed: int) -> Array:
        """C slope: what the estimate of each weight tends to.

        Parameters
        ----------
        slope : array of shape (n,)
        seed : int

        Returns
        -------
        array of shape (n,)
            S_i - (sum_j slope_j - S_i)/L, with S_i the sum over the weights of the phase of weight
            i.
        """
        _, phase = np.unique(self.phases(slope.size, seed), return_inverse=True)
        # weights of one phase have one perturbation: each gets the slopes of all
        shared = np.bincount(phase, slope)[phase]
        return shared - (slope.sum() - shared) / self(slope.size)
