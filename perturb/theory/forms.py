"""Expectations of products of linear and quadratic forms in independent symmetric random
numbers, exactly.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, permutations, product

import numpy as np

Array = np.ndarray
Labels = tuple[tuple[int, ...], ...]


def expectation(forms: list[Array], moments: tuple[float, float, float]) -> Array:
    """E of the product of a few forms in x, for each of several cases: components independent,
    symmetric, of variance 1.

    Parameters
    ----------
    forms : arrays of shape (cases, n) or (cases, n, n), where 1 case serves all
        A vector a is the form a.x, a symmetric matrix M the centred form (x'Mx - E x'Mx)/2. At most
        eight factors x in all. An array given twice is known by its identity, which saves work.
    moments : the fourth, sixth and eighth moment of a component

    Returns
    -------
    Array of shape (cases,).

    Notes
    -----
    The sum over all partitions of the factors x into blocks of even size, of the product of the
    blocks' cumulants with the forms, contracted over one index per block. Where the two factors of
    a matrix are a block alone, the term is the mean that is subtracted (Leonov and Shiryaev 1959).
    Cost: up to about 50 contractions of at most cases n^3 products.
    """
    k, m, eighth = moments
    # of a symmetric variable of variance 1, from its moments; the odd ones are 0
    cumulants = {
        2: 1.0,
        4: k - 3,
        6: m - 15 * k + 30,
        8: eighth - 28 * m - 35 * k**2 + 420 * k - 630,
    }
    # equal arrays are equal forms: a kind is (the first form like it, how many factors x)
    first: dict[int, int] = {}
    kinds = tuple(
        (first.setdefault(id(form), index), form.ndim - 1) for index, form in enumerate(forms)
    )
    total = np.zeros(max(len(form) for form in forms))
    for (sizes, labels), count in _terms(kinds).items():
        # Leonov and Shiryaev: the cumulant of a block is 0 unless all its factors are the same
        # component
        weight = count * float(np.prod([cumulants[size] for size in sizes]))
        if weight:
            # so that a block is one index of the contraction; "..." are the cases
            text = ",".join("..." + "".join(chr(97 + label) for label in each) for each in labels)
            total = total + weight * np.einsum(text + "->...", *forms, optimize="greedy")
    # each matrix stands for x'Mx/2
    return total / 2.0 ** sum(order == 2 for _, order in kinds)


@lru_cache(maxsize=64)
def _terms(kinds: tuple[tuple[int, int], ...]) -> Counter[tuple[tuple[int, ...], Labels]]:
    """How often each term occurs: the sizes of its blocks, and the blocks in which the factors of
    each form lie.

    kinds: (identity, number of factors) of each form. Terms that differ by the order of equal forms
    or of a matrix's two indices are one.
    """
    found: Counter[tuple[tuple[int, ...], Labels]] = Counter()
    # the factors x are numbered through; form i has starts[i] up to starts[i + 1]
    orders = [order for _, order in kinds]
    starts = np.cumsum([0, *orders])
    pairs = {
        (int(start), int(start) + 1)
        for start, order in zip(starts, orders, strict=False)
        if order == 2
    }
    # orders of the forms that only exchange equal ones: they give the same term
    swaps = [
        order
        for order in permutations(range(len(kinds)))
        if all(kinds[i] == kinds[j] for i, j in enumerate(order))
    ]
    for blocks in _even_partitions(tuple(range(sum(orders)))):
        # both factors of a matrix alone: x'Mx/2 by its mean, which is subtracted
        if any(block in pairs for block in blocks):
            continue
        block_of = {factor: index for index, block in enumerate(blocks) for factor in block}
        labels = [
            tuple(block_of[f] for f in range(start, start + order))
            for start, order in zip(starts, orders, strict=False)
        ]
        found[
            # of all that symmetry makes equal the one that sorts first stands for the term
            min(
                _renamed(labels, blocks, swap, turns)
                for swap in swaps
                for turns in product((1, -1), repeat=len(kinds))
            )
        ] += 1
    return found


def _renamed(
    labels: list[tuple[int, ...]], blocks: Labels, swap: tuple[int, ...], turns: tuple[int, ...]
):
    """A term with its forms in another order, its blocks numbered as they come."""
    names: dict[int, int] = {}
    moved = tuple(
        tuple(names.setdefault(b, len(names)) for b in labels[i][::turn])
        for i, turn in zip(swap, turns, strict=True)
    )
    return tuple(len(blocks[b]) for b in names), moved


def _even_partitions(factors: tuple[int, ...]) -> Iterator[Labels]:
    """All partitions into blocks of even size."""
    if not factors:
        yield ()
        return
    first, rest = factors[0], factors[1:]
    # the block of the first factor has 1, 3, 5, ... others
    for size in range(1, len(rest) + 1, 2):
        for others in combinations(rest, size):
            left = tuple(f for f in rest if f not in others)
            for blocks in _even_partitions(left):
                yield ((first, *others), *blocks)
