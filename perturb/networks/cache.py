"""What several products at the same weights share."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from perturb.checks import as_weights

Array = np.ndarray
T = TypeVar("T")


class Cached(Generic[T]):
    """compute(w), cached for the next call at the same w: what several products at one point share.

    w is copied, and compared entry by entry, so that the cache cannot be out of date; the rest of
    an objective never changes.
    """

    def __init__(self, compute: Callable[[Array], T], n_weights: int):
        self._compute, self._n = compute, n_weights
        self._last: tuple[Array, T] | None = None

    def __call__(self, w: Array) -> T:
        w, last = as_weights("w", w, self._n), self._last
        if last is None or not (last[0] == w).all():
            # the caller may write over w; what is cached must not follow
            w = w.copy()
            last = self._last = (w, self._compute(w))
        return last[1]
