"""Perturbation codes: what a synapse adds to its weight in a trial, as a function of (seed, trial, weight index)."""

from dataclasses import dataclass

import numpy as np

from perturb.errors import InputError


@dataclass(frozen=True)
class Code:
    """One code and the moments that decide what it can estimate.

    kurtosis: k = E D^4 / sigma^4, sixth: E D^6 / sigma^6. orthogonal: over one period the columns of different weights have
    zero product and each has zero sum; an orthogonal code counts as kurtosis 1. kind: its number in `philox.perturbation`.
    """

    name: str
    kind: int
    kurtosis: float
    sixth: float
    orthogonal: bool
    description: str

    def period(self, n_weights: int) -> int:
        """Trials until the code of n weights repeats (up to signs); 1 for a random code. Walsh: the power of two >= n + 1."""
        return 1 << n_weights.bit_length() if self.orthogonal else 1

    def draw(self, n_weights: int, sigma: float, seed: int, trial: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The perturbations of weights start..stop of an n-weight network in one trial, shape (stop - start,).

        Any slice equals the same slice of the whole: a synapse needs only the seed, the trial number and its own index.
        """
        from perturb.philox import perturbation

        stop = n_weights if stop is None else stop
        if not 0 <= start <= stop <= n_weights:
            raise InputError(f"weights {start}..{stop} do not lie within 0..{n_weights}: give 0 <= start <= stop <= n_weights")
        out = np.empty(stop - start)
        perturbation(self.kind, np.uint64(seed), trial, sigma, self.period(n_weights), start, out)
        return out


CODES: dict[str, Code] = {
    code.name: code
    for code in (
        Code("rademacher", 0, 1.0, 1.0, False, "+-sigma, equally likely: one random bit per weight"),
        Code("gaussian", 1, 3.0, 15.0, False, "normal, standard deviation sigma"),
        Code(
            "ternary",
            2,
            3.0,
            9.0,
            False,
            "-a, 0 or +a with probability 1/6, 2/3, 1/6, a = sqrt(3) sigma: three levels, the kurtosis of a Gaussian",
        ),
        Code(
            "walsh",
            3,
            1.0,
            1.0,
            True,
            "+-sigma, Walsh-Hadamard columns with random signs: weights do not disturb each other over a period",
        ),
    )
}
