"""What a claim is: rows of a statement of the literature, with what it predicts and what the
emulator measures.

A row agrees if |measured - predicted| <= 5 stderr + tolerance. stderr is that of the measured value
(0: nothing in it is random), the tolerance is what the prediction leaves out, or rounding.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import hadamard

from hardware.params import ChipParams
from perturb.networks.mlp import MLP, MLPObjective
from perturb.networks.objective import FunctionObjective
from perturb.seeds import derive_seed
from reports.vocabulary import AGREES, BIASED, DISAGREES

Array = np.ndarray
DERIVED = "derived here"  # a source
SIGMAS = 5.0
# with seeds of their own, for a standard error: so many that five of them mean what they do of a
# normal variable
REPEATS = 32
ROUNDING = 1e-9  # relative; of sums of thousands of terms in double precision, divided by sigma^2


class Row(NamedTuple):
    """claim: what is said. source: "author year", or derived. predicted, measured: the same
    quantity, in units of the claim.
    """

    claim: str
    source: str
    setting: str
    predicted: float
    measured: float
    stderr: float
    tolerance: float
    verdict: str


Claim = Callable[[int], Iterator[Row]]  # of a seed


def verdict(predicted: float, measured: float, stderr: float, tolerance: float) -> str:
    # NaN compares false with everything: it disagrees
    return AGREES if abs(measured - predicted) <= SIGMAS * stderr + tolerance else DISAGREES


def judged(
    claim: str,
    source: str,
    setting: str,
    predicted: float,
    measured: float,
    stderr: float = 0.0,
    tolerance: float = 0.0,
) -> Row:
    """A row with its verdict. Numbers that are not finite disagree."""
    found = verdict(predicted, measured, stderr, tolerance)
    return Row(
        claim,
        source,
        setting,
        float(predicted),
        float(measured),
        float(stderr),
        float(tolerance),
        found,
    )


def refuted(
    claim: str, source: str, setting: str, predicted: float, measured: float, stderr: float
) -> Row:
    """A row of a claim that is wrong as published: the emulator agrees with theory if it does
    NOT find the value.
    """
    # a value that cannot be known refutes nothing
    row = judged(claim, source, setting, predicted, measured, stderr)
    return row._replace(
        verdict=BIASED if row.verdict == DISAGREES and math.isfinite(measured) else DISAGREES
    )


def mean(values: Sequence[float] | Array) -> tuple[float, float]:
    """Mean of independent values and its standard error."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(array.size))


def seeds(seed: int, count: int = REPEATS) -> list[int]:
    """Seeds of repetitions, different for every seed."""
    return [derive_seed(seed, "claim", repeat) for repeat in range(count)]


def diagonal(lam: Sequence[float] | Array, w_star: Array | None = None) -> MLPObjective:
    """E = (w - w*)' diag(lam) (w - w*)/2: a linear unit on patterns whose columns are orthogonal.
    The last weight is its bias, so lam[-1] is 1.
    """
    lam = np.asarray(lam, dtype=float)
    n = lam.size
    w = np.zeros(lam.size) if w_star is None else w_star
    assert lam[-1] == 1.0
    # columns of a Hadamard matrix but for the constant one, which is the bias: x'x/S = diag(lam)
    x = hadamard(1 << (n - 1).bit_length())[:, 1:n] * np.sqrt(lam[:-1])
    return MLP([n - 1, 1]).objective(x, (x @ w[:-1] + w[-1])[:, None])


def general(n: int, seed: int, w_star: Array | None = None, patterns: int = 32) -> MLPObjective:
    """E = (w - w*)'H(w - w*)/2 with an H that is not diagonal: a linear unit on random patterns,
    its last weight the bias.
    """
    x = np.random.Generator(np.random.Philox(seed)).standard_normal((patterns, n - 1))
    w = np.zeros(n) if w_star is None else w_star
    return MLP([n - 1, 1]).objective(x, (x @ w[:-1] + w[-1])[:, None])


class Linear(FunctionObjective):
    """E = E0 + g.w."""

    def __init__(self, g: Array, E0: float = 0.0):
        super().__init__(lambda w: E0 + float(g @ w), lambda w: g, lambda w, v: 0.0 * v, g.size)
        self._g = g
        self._E0 = E0

    def errors_at(self, points: Array) -> Array:
        return (self._E0 + points @ self._g)[:, None]


def one_weight(lam: float, w_star: float = 0.0) -> FunctionObjective:
    """E = lam (w - w*)^2/2 of a single weight, whose gradient a pair of +-sigma gives without
    error.
    """
    return FunctionObjective(
        lambda w: lam * float((w - w_star) @ (w - w_star)) / 2,
        lambda w: lam * (w - w_star),
        lambda w, v: lam * v,
        1,
    )


def errors(H: Array, W: Array, w_star: Array | float = 0.0) -> Array:
    """(w - w*)'H(w - w*)/2 of every run, (R,)."""
    U = W - w_star
    return np.einsum("ri,ij,rj->r", U, H, U) / 2


def chip(die: int = 0, **tables: Mapping[str, object]) -> ChipParams:
    """The ideal chip, but for these keys of its tables."""
    return ChipParams.model_validate({"die": die, **tables})


def crossing(rates: Sequence[float], growth: Array) -> tuple[float, float]:
    """The rate at which ln growth per update is 0, from two rates: growth (2, groups), of
    independent groups of runs, the same seeds at either rate. Its standard error by leaving out one
    group after another (jackknife).
    """
    low, high = rates

    def root(part: Array) -> float:
        # a straight line through ln growth at either rate
        a, b = np.log(part.mean(1))
        return float(low - a * (high - low) / (b - a))

    groups = growth.shape[1]
    without = (
        np.array([root(np.delete(growth, k, axis=1)) for k in range(groups)])
        if groups > 1
        else np.zeros(1)
    )
    # variance by the jackknife: (n - 1)/n sum (root without k - their mean)^2
    return root(growth), float(math.sqrt((groups - 1) * without.var()))
