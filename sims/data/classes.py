"""Classes of a task: which one an output means, and how often it is taken for which."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perturb.errors import choose

Array = np.ndarray


@dataclass(frozen=True)
class Classes:
    """names: of the classes, in the order of the outputs, or of the two that a single output tells
    apart; () if the targets are numbers. middle: where a single output changes from the first to
    the second.
    """

    names: tuple[str, ...]
    middle: float = 0.5

    @classmethod
    def of(cls, target: Array, error: str, names: tuple[str, ...] = ()) -> "Classes":
        """Of targets (samples, outputs): all 0 or 1 in a single column, or a single 1 in each
        row. names: absent, numbers.
        """
        n_outputs = target.shape[1]
        if not (
            np.isin(target, (0.0, 1.0)).all() and (n_outputs == 1 or (target.sum(1) == 1).all())
        ):
            return cls(())
        count = max(n_outputs, 2)
        names = names if len(names) == count else tuple(str(number) for number in range(count))
        # that error's output is the log-odds, 0 where both are as likely
        return cls(names, 0.0 if error == "binary_cross_entropy" else 0.5)

    def numbers(self, outputs: Array, middle: float = 0.5) -> Array:
        """The class of each row of outputs or targets, (samples,)."""
        # of equal outputs the first
        return outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > middle).astype(int)

    def confusion(self, objective: Any, w: Array) -> Array:
        """How many patterns of each class (row) are taken for each class (column)."""
        C = len(self.names)
        truth = self.numbers(objective.target)
        found = self.numbers(objective.outputs(w), self.middle)
        # a pair (truth, found) as one number
        return np.bincount(truth * C + found, minlength=C * C).reshape(C, C)


def class_weights(
    chosen: str | Mapping[str, float], target: Array, names: tuple[str, ...]
) -> Array:
    """The weight c of each class, (classes,), by data.class_weight; target (samples, classes): of
    the patterns learned from.

    "balanced": n/(C n_c) for the n_c of n patterns that are of the class, as in scikit-learn; 1 of
    a class without any.
    """
    if not isinstance(chosen, str):
        for name in chosen:
            choose("data.class_weight: class", name, dict.fromkeys(names))
        return np.array([float(chosen.get(name, 1.0)) for name in names])
    # n_c; of a class without any there is nothing to divide by
    count = (target > 0).sum(0)
    return np.divide(len(target), len(names) * count, out=np.ones(len(names)), where=count > 0)


def weighted_targets(target: Array, weights: Array) -> Array:
    """Targets with which the mean over patterns of the cross-entropy is sum c_s E_s / sum c_s, c_s
    the weight of the class of s.

    E_s = -sum_j t_j log p_j is linear in the targets of a pattern: S c_s / sum c times the targets
    give as many times the error, its gradient and its Hv, wherever they are computed.
    """
    # (samples,): c_s
    c = weights[target.argmax(1)]
    return target * (len(c) * c / c.sum())[:, None]


def accuracy(confusion: Array) -> float:
    """Share classified rightly; NaN without classes."""
    return float(np.trace(confusion) / confusion.sum()) if confusion.size else math.nan


def balanced_accuracy(confusion: Array) -> float:
    """Mean over the classes that occur of the share of each that is classified rightly
    (Brodersen et al. 2010).
    """
    if not confusion.size:
        return math.nan
    shares = recall(confusion)
    return float(shares[~np.isnan(shares)].mean())


def recall(confusion: Array) -> Array:
    """Share of the patterns of each class that are taken for it; NaN of a class without any."""
    return _shares(confusion, confusion.sum(1))


def precision(confusion: Array) -> Array:
    """Share of the patterns taken for each class that are of it; NaN where there are none."""
    return _shares(confusion, confusion.sum(0))


def _shares(confusion: Array, of: Array) -> Array:
    return np.divide(np.diag(confusion), of, out=np.full(len(of), math.nan), where=of > 0)
