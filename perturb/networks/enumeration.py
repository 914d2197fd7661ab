"""All states of a Boltzmann machine, enumerated: energies, probabilities, means and their R{.}."""

import numpy as np

from perturb.errors import InputError
from perturb.networks.losses import softmax

Array = np.ndarray
MAX_UNITS = 24  # enumerated: 2^24 states take 134 MB a table


class Enumerated:
    """The states of a machine, tables (2^n_visible, 2^n_hidden); arguments as of `Boltzmann`."""

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        temperature: float,
        values: tuple[float, float],
        sign: int,
    ):
        self.n_visible, self.n_hidden, self.temperature = n_visible, n_hidden, temperature
        self.values, self.sign, self.n_units = values, sign, n_visible + n_hidden
        # i < j in the order of w: (0, 1), (0, 2), ..., (1, 2), ...
        self.pairs = np.triu_indices(self.n_units, 1)

    def states(self, n: int) -> Array:
        """All states of n neurons, (2^n, n); neuron 0 is the highest bit."""
        bits = np.arange(2**n)[:, None] >> np.arange(n)[::-1] & 1
        return np.where(bits, self.values[1], self.values[0])

    def energy(self, w: Array) -> Array:
        """E_a (or D_a, of v) for visible and hidden states, shape (2^n_visible, 2^n_hidden)."""
        if self.n_units > MAX_UNITS:
            raise InputError(
                f"{self.n_units} neurons have too many states to enumerate (limit {MAX_UNITS}): use"
                " sample()"
            )
        # upper triangle only: each pair counts once in s'Ws
        W = np.zeros((self.n_units, self.n_units))
        W[self.pairs] = w[: len(self.pairs[0])]
        bias, m = w[len(self.pairs[0]) :], self.n_visible
        s, h = self.states(m), self.states(self.n_hidden)
        # s_i s_j w_ij within the visible neurons and within the hidden ones, with their biases
        within = [
            ((x @ part) * x).sum(1) + x @ b
            for x, part, b in ((s, W[:m, :m], bias[:m]), (h, W[m:, m:], bias[m:]))
        ]
        # the last term is between both: (2^m, m) (m, hidden) (hidden, 2^hidden)
        return self.sign * (within[0][:, None] + within[1] + s @ W[:m, m:] @ h.T)

    def free(self, energy: Array) -> Array:
        """P of every state, of the shape of `energy`."""
        return softmax(-energy.ravel() / self.temperature).p.reshape(energy.shape)

    def expect(self, Q: Array) -> Array:
        """sum_a Q_a s_i s_j and sum_a Q_a s_i in the order of w, Q over (visible, hidden)."""
        s, h, m = self.states(self.n_visible), self.states(self.n_hidden), self.n_visible
        q_s, q_h = Q.sum(1), Q.sum(0)
        second = np.empty((self.n_units, self.n_units))
        # marginals are enough within a layer; between layers it takes all of Q
        second[:m, :m], second[m:, m:], second[:m, m:] = (
            (s.T * q_s) @ s,
            (h.T * q_h) @ h,
            s.T @ Q @ h,
        )
        return np.concatenate([second[self.pairs], q_s @ s, q_h @ h])

    def R_expect(self, Q: Array, within: Array, D: Array) -> Array:
        """R{p_ij} = (p_ij <D> - <s_i s_j D>) / T.

        within: sum of Q of each visible state, where the mean of D is taken within each pattern,
        or one number, where it is over all (the free phase).
        """
        # D less that of the likeliest state: <D> - D does not change, and nothing cancels where its
        # probability is nearly 1
        if np.ndim(within) == 0:
            D = D - D.flat[Q.argmax()]
        else:
            D = D - np.take_along_axis(D, Q.argmax(1)[:, None], 1)
        # <D>, within each visible state (0 for those that the data do not have), or over all states
        mean = (
            (Q * D).sum() / within
            if np.ndim(within) == 0
            else ((Q * D).sum(1) / np.where(within > 0, within, 1.0))[:, None]
        )
        return self.expect(Q * (mean - D)) / self.temperature
