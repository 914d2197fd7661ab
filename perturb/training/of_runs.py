"""E of runs that train some of their weights, each with the others as it found them."""

import numpy as np

from perturb.networks.objective import Objective

Array = np.ndarray


class OfRuns:
    """E as a function of the weights that R runs train, the others held at each run's own.

    Parameters
    ----------
    objective : Objective
        Of all n weights.
    free : int array of shape (m,)
        The numbers of the weights that are trained.
    W : array of shape (R, n)
        All weights of each run: what those that are not trained are held at.

    Attributes
    ----------
    n_weights, n_patterns : int
        m, and the patterns of the objective.

    Notes
    -----
    `Batch`, `Exact`, `train` and chips take it where they take an objective that all runs share,
    with weights (R, m).

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> from perturb.training import Exact, OfRuns, Plan, begin
    >>> objective = perturb.MLP([1, 1, 1]).objective([[1.0]], [[1.0]])
    >>> W = np.array([[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    >>> plan, last = Plan(eta=0.1), np.array([2, 3])
    >>> state = begin(W[:, last], plan)
    >>> Exact(OfRuns(objective, last, W), plan).advance(state, 1)
    >>> state.w.round(3)
    array([[0.076, 0.1  ],
           [0.096, 0.1  ]])
    """

    def __init__(self, objective: Objective, free: Array, W: Array):
        self.objective, self.free, self.W = objective, free, W
        self.runs = [objective.restricted(free, w) for w in W]
        self.n_weights, self.n_patterns = self.runs[0].n_weights, objective.n_patterns

    def of_run(self, run: int) -> Objective:
        """E as one run has it.

        Parameters
        ----------
        run : int

        Returns
        -------
        Objective
            Of m weights.
        """
        return self.runs[run]

    def some(self, first: int, last: int) -> "OfRuns":
        """The same of some of the runs.

        Parameters
        ----------
        first, last : int
            The first of them, and the one behind the last.

        Returns
        -------
        OfRuns
        """
        return OfRuns(self.objective, self.free, self.W[first:last])

    def whole(self, points: Array) -> Array:
        """All weights, from those that are trained.

        Parameters
        ----------
        points : array of shape (k R, m)
            Of each run one after the other, k times.

        Returns
        -------
        array of shape (k R, n)
        """
        whole = np.tile(self.W, (len(points) // len(self.W), 1))
        whole[:, self.free] = points
        return whole

    def errors_at(self, points: Array) -> Array:
        """Errors of all patterns.

        Parameters
        ----------
        points : array of shape (k R, m)
            Of each run one after the other, k times.

        Returns
        -------
        array of shape (k R, n_patterns)
        """
        return self.objective.errors_at(self.whole(points))

    def gradients(self, points: Array, shown: Array | None = None) -> Array:
        """Gradients, of all patterns or of those shown to each run.

        Parameters
        ----------
        points : array of shape (R, m)
        shown : int array of shape (R, patterns), optional

        Returns
        -------
        array of shape (R, m)
        """
        # in C order, unlike [:, free]: sums of rows must not round by how many there are
        return self.objective.gradients(self.whole(points), shown).take(self.free, axis=1)


Learned = Objective | OfRuns  # E of all runs, or of each by itself
