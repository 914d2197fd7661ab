"""How errors are read in float32, by vectors: noise, then a converter; see `trial.readout`."""

import numpy as np

from perturb.compiled import compiled
from perturb.kernels.float32_functions import MASK, normal_pairs, number, philox8
from perturb.kernels.simd import (
    EXACT,
    add,
    add_u,
    choose,
    div,
    down,
    fma,
    greater,
    interleave4,
    iota_u,
    mul,
    splat,
    splat_u,
)
from perturb.trial.random import NOISE


@compiled(forceinline=True)
def read32(e, xi, noise, step, top):
    """Errors as they are read, xi standard normals."""
    value = fma(splat(noise), xi, e)
    if step > np.float32(0.0):
        value = mul(down(add(div(value, splat(step)), number(0.5))), splat(step))
        value = choose(greater(number(0.0), value), number(0.0), value)
        value = choose(greater(value, splat(top)), splat(top), value)
    return value


@compiled(forceinline=True, **EXACT)
def pattern_noise(seed, trial, phase, first):
    """Standard normals of the readings of 32 patterns from number `first` on."""
    # as `trial.random` keys it: stream + 256 phase
    stream = np.uint64(NOISE) + (np.uint64(phase) << np.uint64(8))
    # a counter makes four normals, so eight of them make 32
    counter = add_u(splat_u(np.uint64(first // 4)), iota_u())
    a, b, c, d = philox8(
        splat_u(trial & MASK),
        splat_u(trial >> np.uint64(32)),
        counter,
        splat_u(stream),
        seed & MASK,
        seed >> np.uint64(32),
    )
    cos, sin = normal_pairs(a, c, b, d)
    # a, b make the first pair of four and c, d the second, as `normals` fills in
    return interleave4(cos, sin)


@compiled(forceinline=True, **EXACT)
def trial_noise(seed, trial, phase, first):
    """Standard normals of the readings of four patterns from number `first` on in the sixteen
    trials from `trial` on, a vector for each pattern.
    """
    k0, k1, low, high = seed & MASK, seed >> np.uint64(32), trial & MASK, trial >> np.uint64(32)
    stream = splat_u(np.uint64(NOISE) + (np.uint64(phase) << np.uint64(8)))
    counter, above = splat_u(np.uint64(first // 4)), splat_u(high)
    early, late = add_u(splat_u(low), iota_u()), add_u(splat_u(low | np.uint64(8)), iota_u())
    a0, b0, c0, d0 = philox8(early, above, counter, stream, k0, k1)
    a1, b1, c1, d1 = philox8(late, above, counter, stream, k0, k1)
    x0, x1 = normal_pairs(a0, a1, b0, b1)
    x2, x3 = normal_pairs(c0, c1, d0, d1)
    return x0, x1, x2, x3
