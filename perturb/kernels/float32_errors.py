"""Float32 errors of a block of T trials of an MLP.

E is the difference from E(w), pattern by pattern, by the same float32 arithmetic, so that what they
have in common cancels before it is summed. The phases' weights add up to 0, so that the constant
does not count.

The lanes of vectors are patterns, or trials where patterns are too few for that. Perturbations are
in units of sigma and s in units of sigma |v|.
"""

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.float32_by_patterns import errors_by_patterns
from perturb.kernels.float32_by_trials import errors_by_trials, room_by_trials
from perturb.kernels.simd import EXACT, aligned

FEW = 24  # fewer patterns than this, and trials are the lanes


@compiled()
def room_for_errors(trials, signs):
    """What `measure` needs of memory."""
    patterns = trials.patterns
    room = 0
    if patterns.present.size == 0:
        room = room_by_trials(trials.network.sizes, patterns.at_rest.size, signs)
    scratch = aligned(room)
    scratch[:] = np.float32(0.0)
    return scratch


@compiled(**EXACT)
def measure(trials, block, perturbations, errors, scratch):
    """Fill errors.E for the block's trials, and errors.s, if perturbations are signs; other trials
    of the block may be measured too.
    """
    errors.E[:] = np.float32(0.0)
    if trials.patterns.present.size:
        errors_by_patterns(trials, block, perturbations, errors)
    else:
        errors_by_trials(trials, block, perturbations, errors, scratch)
