"""Seeds of random streams, derived by hashing: a seed plus a small number would be that of
another run, repeat or die.
"""

import hashlib
from functools import lru_cache

import numpy as np

from perturb.checks import integer
from perturb.errors import InputError

SCHEME = "SHA-256"  # how seeds are derived: stored beside results that are added to later


def derive_seed(root: int, purpose: str, *indices: int) -> int:
    """The seed of one random stream, from a root seed, what the stream is for, and the numbers of
    its run, repeat, die, ...

    Parameters
    ----------
    root
        The seed that all streams come from, 0 to 2^64 - 1.
    purpose
        What the stream is for, in lower-case letters, such as "repeat". Streams of different
        purposes have nothing in common.
    indices
        Integers >= 0 that tell streams of one purpose apart.

    Returns
    -------
    int
        0 to 2^63 - 1: a signed integer of 64 bits, as TOML, Parquet and pandas have them.

    Raises
    ------
    InputError
        For a root, a purpose or an index that is none.

    Notes
    -----
    The first eight bytes (big-endian, without their highest bit) of the SHA-256 of the text
    "root/purpose/index/...", numbers in decimal digits. So it is the same on every platform and in
    every version of Python and NumPy, and different arguments are different texts. Two of N seeds
    are equal by chance with a probability of about N^2/2^64, 5e-8 for a million.

    References
    ----------
    Streams by hashing, rather than by adding to a seed: Salmon et al. (2011),
    `numpy.random.SeedSequence`.

    Examples
    --------
    >>> derive_seed(0, "repeat", 1)
    4073741430956291298
    """
    integer("seed", root, 0, 2**64 - 1)
    # neither digits nor a slash: different arguments can then never be the same text
    if not (purpose.isascii() and purpose.isalpha() and purpose.islower()):
        raise InputError(
            f"purpose = {purpose!r} must be a word in lower-case letters, such as 'repeat'"
        )
    if not all(isinstance(index, (int, np.integer)) and index >= 0 for index in indices):
        raise InputError(f"indices = {indices!r} must be integers >= 0")
    text = "/".join((str(int(root)), purpose, *(str(int(index)) for index in indices)))
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big") >> 1


def nth_seed(seed: int, purpose: str, n: int) -> int:
    """The seed of number n of several runs, repeats or dies: of number 0 the given one, so that it
    can be had alone, of the others `derive_seed(seed, purpose, n)`.
    """
    return derive_seed(seed, purpose, n) if n else int(seed)


@lru_cache(maxsize=64)
def first_seeds(seed: int, purpose: str, count: int) -> np.ndarray:
    """`nth_seed` of 0, 1, ..., count - 1, (count,) uint64, read only."""
    seeds = np.array([nth_seed(seed, purpose, n) for n in range(count)], dtype=np.uint64)
    seeds.flags.writeable = False
    return seeds
