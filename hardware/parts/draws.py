"""Random numbers of the parts of a chip, keyed by what they are for.

Fabrication (mismatch, stuck and dead cells) is drawn once per die, from the seed of the die;
operation (noise, drops) is keyed by the run's seed and by trial, evaluation and element. So no
number depends on batches, on tiles, or on which engine asks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from perturb.trial.random import normals, normals_at, normals_each, uniforms_at

Array = np.ndarray
Keys = Sequence[tuple[int, int]]  # (trial, phase) of evaluations
# streams: of the die, and of the run. Results that exist rest on them: add, but do not change
GAIN, OFFSET, STUCK, DEAD, NEURON_GAIN, NEURON_OFFSET, MULTIPLIER, DYING = range(32, 40)
READ, NEURON_NOISE, FLICKER, DITHER, LINE, DROP, JITTER, ARRAY_NOISE = range(48, 56)


def die_normals(die: int, stream: int, size: int) -> Array:
    """Standard normals of a die, (size,)."""
    out = np.empty(size)
    normals(np.uint64(die), stream, 0, 0, out)
    return out


def uniforms(seed: int, stream: int, size: int, trial: int = 0, phase: int = 0) -> Array:
    """Uniform numbers from 0 to 1, (size,)."""
    out = np.empty(size)
    uniforms_at(np.uint64(seed), stream, trial, phase, 0, out)
    return out


def noise(seed: int, stream: int, size: int, keys: Keys, first: int = 0) -> Array:
    """Standard normals, a row for each key, (keys, size), of its elements from `first` on."""
    out = np.empty((len(keys), size))
    if not first:
        normals_each(np.uint64(seed), stream, *np.array(keys).T.copy(), out)
    else:
        for (trial, phase), row in zip(keys, out, strict=True):
            normals_at(np.uint64(seed), stream, np.full(size, trial), phase, first, row)
    return out


class Shown(NamedTuple):
    """Evaluations with these keys, and some of the patterns that each shows: from which on, how
    many.
    """

    keys: Keys
    first: int
    patterns: int

    def normals(self, seed: int, stream: int, number: int, size: int) -> Array:
        """Standard normals (keys, patterns, size), so many of each pattern. number: of what they
        are for, such as a layer, below 2^20.
        """
        # phases of no method come near to 16
        keys = [(trial, phase + 16 * number) for trial, phase in self.keys]
        out = noise(seed, stream, self.patterns * size, keys, self.first * size)
        return out.reshape(len(keys), self.patterns, size)
