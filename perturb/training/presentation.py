"""Which patterns the trials of learning show."""

from functools import lru_cache

import numpy as np

Array = np.ndarray
# patterns whose order is drawn at once: a generator for every pass of a few costs more than their
# trials
ORDERED = 4096


def presented(seed: int, first: int, count: int, batch: int, n_patterns: int) -> Array:
    """Which patterns presentations first..first+count-1 show, (count, batch): all go by once, in
    random order, before any comes again.
    """
    start, stop = first * batch, (first + count) * batch
    size = max(1, ORDERED // n_patterns) * n_patterns  # of a block of passes
    blocks = range(start // size, (stop - 1) // size + 1)
    rows = np.concatenate([_passes(seed, block, n_patterns) for block in blocks])
    return rows[start % size : start % size + stop - start].reshape(count, batch)


@lru_cache(maxsize=256)
def _passes(seed: int, block: int, n_patterns: int) -> Array:
    """The passes of a block, each a permutation: as many as have ORDERED patterns in all, at
    least one.
    """
    # keyed by block, so that any pass can be had without those before; argsort makes permutations
    rng = np.random.Generator(np.random.Philox(key=[seed, block]))
    return rng.random((max(1, ORDERED // n_patterns), n_patterns)).argsort(1).ravel()
