"""The Pareto front: what no other design beats in everything that counts."""

import numpy as np

Array = np.ndarray


def dominated_by(costs: Array) -> Array:
    """Which design of the Pareto front dominates each design.

    Parameters
    ----------
    costs : array (k, m)
        Of k designs m numbers, of each of which less is better.

    Returns
    -------
    array (k,) of int
        The number of a design on the front that dominates this one; -1 of a design on the front;
        -2 of one that is not judged.

    Notes
    -----
    a dominates b if a_j <= b_j for every j and a_j < b_j for one. On the front is what no design
    dominates. So designs that are equal in all numbers do not dominate each other: they are on the
    front together, or none of them is, and a single design is on it. A design with a number that
    is not finite is not judged: it is neither on the front nor dominates another. Numbers that
    agree in nine digits are equal.

    Of a design that is dominated, one on the front that does so always exists. The order is
    lexicographic, in which who dominates comes first: k log k + k f comparisons, with f designs on
    the front.

    Examples
    --------
    >>> dominated_by(np.array([[1.0, 4.0], [2.0, 2.0], [2.0, 3.0], [np.inf, 1.0]]))
    array([-1, -1,  1, -2])
    """
    # sums in another order differ by rounding, which is no reason to prefer one
    costs = np.array([float(f"{cost:.9g}") for cost in costs.flat]).reshape(costs.shape)
    judged = np.isfinite(costs).all(1)
    found = np.where(judged, -1, -2)
    front: list[int] = []
    # lexsort sorts by the last key first
    for i in np.lexsort(costs.T[::-1]):
        if not judged[i]:
            continue
        kept = costs[np.array(front, int)]
        over = (kept <= costs[i]).all(1) & (kept < costs[i]).any(1)
        if over.any():
            found[i] = front[int(over.argmax())]
        else:
            front.append(int(i))
    return found
