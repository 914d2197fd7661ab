"""Random numbers as pure functions of where they are needed: Philox 4x32-10 (Salmon et al. 2011),
keyed by the seed.

counter = (trial low, trial high, element block, stream + 256 phase), key = (seed low, seed high).
So a synapse makes its own perturbation from (seed, trial, weight index), a trial can be replayed
alone, and no number depends on batches or threads. All words are held as uint64 below 2^32: Numba
promotes uint32 sums to uint64 silently, so every product is masked.
"""

import math

import numpy as np

from perturb.compiled import compiled

CODE, NOISE, PATTERN, SENSE = 0, 1, 2, 3  # streams
# of stored weights, see hardware/device.py
FABRICATION, PULSE, ROUNDING, WRITE, READ, PROGRAM = (
    16,
    17,
    18,
    19,
    20,
    21,
)
# 32 to 63: of the other parts of a chip, see hardware/parts/draws.py

# exponents, besides m and 0, of a primitive polynomial over two elements for each number m of bits,
# as a bit mask: the taps of maximal-length registers as listed by Alfke (1996), Xilinx XAPP 052
TAPS = np.array(
    [sum(1 << e for e in taps) for taps in (
        (), (), (1,), (2,), (3,), (3,), (5,), (6,), (6, 5, 4), (5,), (7,), (9,), (6, 4, 1),
        (4, 3, 1), (5, 3, 1), (14,), (15, 13, 4), (14,), (11,), (6, 2, 1), (17,), (19,), (21,),
        (18,), (23, 22, 17),
    )],
    dtype=np.uint64,
)  # fmt: skip
MASK = np.uint64(0xFFFFFFFF)


@compiled(inline="always")
def _round(c0, c1, c2, c3, k0, k1):
    p0 = np.uint64(0xD2511F53) * c0
    p1 = np.uint64(0xCD9E8D57) * c2
    return (p1 >> np.uint64(32)) ^ c1 ^ k0, p1 & MASK, (p0 >> np.uint64(32)) ^ c3 ^ k1, p0 & MASK


@compiled()
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds; four words in, four words out."""
    for _ in range(10):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        k0 = (k0 + np.uint64(0x9E3779B9)) & MASK
        k1 = (k1 + np.uint64(0xBB67AE85)) & MASK
    return c0, c1, c2, c3


@compiled()
def words(seed, trial, block, stream, phase):
    t, s = np.uint64(trial), np.uint64(seed)
    c3 = np.uint64(stream) + (np.uint64(phase) << np.uint64(8))
    return philox(t & MASK, t >> np.uint64(32), np.uint64(block), c3, s & MASK, s >> np.uint64(32))


@compiled()
def _normal_pair(a, b):
    # Box-Muller; (a + 1/2) / 2^32 lies strictly inside (0, 1)
    radius = math.sqrt(-2.0 * math.log((np.float64(a) + 0.5) * 2.0**-32))
    angle = 2.0 * math.pi * ((np.float64(b) + 0.5) * 2.0**-32)
    return radius * math.cos(angle), radius * math.sin(angle)


@compiled()
def normals(seed, stream, trial, phase, out):
    """Fill `out` with standard normals, element by element of the key (seed, stream, trial,
    phase, element).
    """
    for block in range((out.size + 3) // 4):
        a, b, c, d = words(seed, trial, block, stream, phase)
        z0, z1 = _normal_pair(a, b)
        z2, z3 = _normal_pair(c, d)
        i = 4 * block
        out[i] = z0
        if i + 1 < out.size:
            out[i + 1] = z1
        if i + 2 < out.size:
            out[i + 2] = z2
        if i + 3 < out.size:
            out[i + 3] = z3


@compiled()
def normals_each(seed, stream, trials, phases, out):
    """`normals` of each trial and phase, a row each."""
    for t in range(out.shape[0]):
        normals(seed, stream, trials[t], phases[t], out[t])


@compiled()
def four_normals(seed, trial, block, stream, phase):
    """The standard normals of elements 4 block .. 4 block + 3 of the same key."""
    a, b, c, d = words(seed, trial, block, stream, phase)
    z0, z1 = _normal_pair(a, b)
    z2, z3 = _normal_pair(c, d)
    return z0, z1, z2, z3


@compiled()
def normals_at(seed, stream, trials, phase, start, out):
    """Fill `out` with the standard normals of elements start, start + 1, ..., each of its own
    trial.
    """
    four = four_normals(seed, trials[0], start // 4, stream, phase)
    for i in range(out.size):
        if i > 0 and ((start + i) % 4 == 0 or trials[i] != trials[i - 1]):
            four = four_normals(seed, trials[i], (start + i) // 4, stream, phase)
        out[i] = four[(start + i) % 4]


@compiled()
def uniforms_at(seed, stream, trial, phase, start, out):
    """Fill `out` with numbers uniform in [0, 1) of elements start, start + 1, ..., 53 bits each."""
    for i in range(out.size):
        a, b, c, d = words(seed, trial, (start + i) // 2, stream, phase)
        # two words make 64 bits, the upper 53 of which fill a float64
        high, low = (a, b) if (start + i) % 2 == 0 else (c, d)
        out[i] = np.float64(((high << np.uint64(32)) | low) >> np.uint64(11)) * 2.0**-53


@compiled()
def pattern_index(seed, trial, n_patterns):
    """Which pattern a trial presents when it presents only one: uniform, with replacement."""
    a, b, _, _ = words(seed, trial, 0, PATTERN, 0)
    return np.int64((((a << np.uint64(32)) | b) >> np.uint64(11)) * 2.0**-53 * n_patterns)


@compiled()
def _odd(x):
    # parity of the number of ones
    for shift in (32, 16, 8, 4, 2, 1):
        x ^= x >> np.uint64(shift)
    return x & np.uint64(1)


@compiled()
def _signs(seed, trial, start, out):
    # 128 weights a block, one bit each
    i = 0
    while i < out.size:
        block = (start + i) // 128
        a, b, c, d = words(seed, trial, block, CODE, 0)
        for offset in range((start + i) % 128, min(128, start + out.size - 128 * block)):
            word = a if offset < 32 else (b if offset < 64 else (c if offset < 96 else d))
            out[i] = 2.0 * np.float64((word >> np.uint64(offset % 32)) & np.uint64(1)) - 1.0
            i += 1


@compiled()
def _normal_range(seed, trial, stream, start, out):
    # standard normals of weights start, start + 1, ...: the same numbers for any start
    i = 0
    while i < out.size:
        block = (start + i) // 4
        a, b, c, d = words(seed, trial, block, stream, 0)
        z0, z1 = _normal_pair(a, b)
        z2, z3 = _normal_pair(c, d)
        for offset in range((start + i) % 4, min(4, start + out.size - 4 * block)):
            out[i] = z0 if offset == 0 else (z1 if offset == 1 else (z2 if offset == 2 else z3))
            i += 1


@compiled()
def perturbation(kind, seed, trial, sigma, period, taps, start, out):
    """Fill `out` with the perturbations of weights start, start + 1, ... in one trial; kinds as in
    `codes.CODES`.

    period, taps: `Code.period` and `Code.taps` of the number of weights.
    """
    if kind == 0:  # rademacher: +-sigma
        _signs(seed, trial, start, out)
        for i in range(out.size):
            out[i] *= sigma
    elif kind == 1:  # gaussian
        _normal_range(seed, trial, CODE, start, out)
        for i in range(out.size):
            out[i] *= sigma
    elif kind == 2:  # ternary: -a, +a with probability 1/6 each, else 0
        # four base-6 digits of each word (bias 3e-7)
        a_ = math.sqrt(3.0) * sigma
        i = 0
        while i < out.size:
            block = (start + i) // 16
            a, b, c, d = words(seed, trial, block, CODE, 0)
            word = a
            for offset in range(min(16, start + out.size - 16 * block)):
                if offset % 4 == 0:
                    word = a if offset == 0 else (b if offset == 4 else (c if offset == 8 else d))
                # a digit of base 6 is the integer part of 6 u; the fraction that is left is the
                # next u
                product = word * np.uint64(6)
                word = product & MASK
                if 16 * block + offset >= start:
                    digit = product >> np.uint64(32)
                    out[i] = -a_ if digit == 0 else (a_ if digit == 5 else 0.0)
                    i += 1
    elif kind == 4:  # uniform: one word per weight
        i = 0
        while i < out.size:
            block = (start + i) // 4
            a, b, c, d = words(seed, trial, block, CODE, 0)
            for offset in range((start + i) % 4, min(4, start + out.size - 4 * block)):
                word = a if offset == 0 else (b if offset == 1 else (c if offset == 2 else d))
                out[i] = sigma * math.sqrt(3.0) * ((np.float64(word) + 0.5) * 2.0**-31 - 1.0)
                i += 1
    else:
        _periodic(kind, seed, trial, sigma, period, taps, start, out)


@compiled(nogil=True)
def perturbations(kind, seed, trials, sigma, period, taps, start, out):
    """`perturbation` of the weights from start on in each trial, a row each."""
    for t in range(trials.size):
        perturbation(kind, seed, trials[t], sigma, period, taps, start, out[t])


@compiled()
def _periodic(kind, seed, trial, sigma, period, taps, start, out):
    # random signs or phases are drawn anew for each pair of passes; odd passes are folded over
    passes, row = trial // period, trial % period
    fold = sigma if passes % 2 == 0 else -sigma
    if kind == 3:  # walsh: column i + 1 of the Hadamard matrix, random signs
        _signs(seed, passes // 2, start, out)
        for i in range(out.size):
            odd = _odd(np.uint64(row) & np.uint64(start + i + 1))
            out[i] *= fold * (1.0 - 2.0 * np.float64(odd))
    elif kind == 5:  # sequential: one weight a trial, random signs
        out[:] = 0.0
        if start <= row < start + out.size:
            _signs(seed, passes // 2, row, out[row - start : row - start + 1])
            out[row - start] *= fold * math.sqrt(np.float64(period))
    elif kind == 6:  # lfsr
        # weight i is i % taps steps ahead of register i // taps, in the one sequence of all
        m = 0
        while (1 << m) <= period:
            m += 1
        polynomial, top = TAPS[m] | np.uint64(1), np.uint64(1) << np.uint64(m)
        i = 0
        while i < out.size:
            register, ahead = (start + i) // taps, (start + i) % taps
            state = _state((row + register_start(seed, register, period) + ahead) % period, m)
            stop = min(out.size, i + taps - ahead)
            for j in range(i, stop):
                out[j] = -fold if state & np.uint64(1) else fold
                # times x modulo the polynomial: the next bit of the sequence
                state = state << np.uint64(1)
                if state & top:
                    state ^= top | polynomial
            i = stop
    else:  # sine: frequency i + 1 of a period of 2n + 1 trials, random phase
        i = 0
        while i < out.size:
            block = (start + i) // 4
            a, b, c, d = words(seed, passes // 2, block, CODE, 0)
            for offset in range((start + i) % 4, min(4, start + out.size - 4 * block)):
                word = a if offset == 0 else (b if offset == 1 else (c if offset == 2 else d))
                turns = (
                    np.float64((start + i + 1) * row % period) / np.float64(period)
                    + (np.float64(word) + 0.5) * 2.0**-32
                )
                out[i] = fold * math.sqrt(2.0) * math.cos(2.0 * math.pi * turns)
                i += 1


@compiled()
def register_start(seed, register, period):
    """Where in the sequence a shift register stands in trial 0. Two, of one die or of two, that
    start less than `taps` apart share columns, as real ones would.
    """
    a, b, _, _ = words(seed, 0, register, CODE, 0)
    return np.int64(((a << np.uint64(32)) | b) % np.uint64(period))


@compiled()
def register_phases(seed, period, taps, out):
    """Fill `out` with each weight's place in the sequence in trial 0, modulo the period."""
    for i in range(out.size):
        if i % taps == 0:
            start = register_start(seed, i // taps, period)
        out[i] = (start + i % taps) % period


@compiled()
def _state(steps, m):
    # x^steps modulo the primitive polynomial of degree m: the register's state so many steps after
    # 1, by repeated squaring
    polynomial, top = TAPS[m] | np.uint64(1), np.uint64(1) << np.uint64(m)
    state, power = np.uint64(1), np.uint64(2)
    while steps:
        if steps & 1:
            state = _times(state, power, polynomial, top)
        power = _times(power, power, polynomial, top)
        steps >>= 1
    return state


@compiled()
def _times(a, b, polynomial, top):
    # the product of two polynomials over two elements, modulo top | polynomial
    out = np.uint64(0)
    while b:
        if b & np.uint64(1):
            out ^= a
        b >>= np.uint64(1)
        a = a << np.uint64(1)
        if a & top:
            a ^= top | polynomial
    return out


@compiled()
def sense(seed, trial, error, start, D, out):
    """What synapses know of their perturbations D: out = D + error x, x standard normal, keyed
    by (seed, trial, weight).
    """
    _normal_range(seed, trial, SENSE, start, out)
    for i in range(out.size):
        out[i] = D[i] + error * out[i]
