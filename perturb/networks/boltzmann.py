"""Boltzmann machines: exact by enumeration, and sampled by Gibbs chains, with R{p_ij} and Hv.

One sign convention, that of the source (Pearlmutter 1994), for everything here:
E_a = sum_{i<j} s_i s_j w_ij + sum_i s_i w_i0 and P_a = exp(-E_a/T)/Z. With D_a the same sums over v
in place of w, and <.> the mean over states:

    R{p_ij} = (p_ij <D> - <s_i s_j D>) / T

The usual E = -sum w s s is sign = -1: w and v then change their sign together. Learning minimises
KL(data || model) on the visible neurons, whose gradient and Hv are differences of a clamped and a
free phase,

    dKL/dw_ij = (p_ij clamped - p_ij free) / T,     z_ij = (R{p_ij} clamped - R{p_ij} free) / T

where the clamped R{p_ij} is taken within each pattern and then averaged. All of these hold for the
weights w_i0, with s_0 = 1.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, xlogy

from perturb.checks import as_floats, as_weights, integer, positive, read_only_copy
from perturb.errors import InputError
from perturb.kernels.graph import machine_errors
from perturb.networks.cache import Cached
from perturb.networks.enumeration import MAX_UNITS, Enumerated
from perturb.networks.gibbs import Sampled, SampledDivergence, sampled, summed
from perturb.networks.losses import softmax
from perturb.networks.objective import Objective
from perturb.networks.patterns import as_states

Array = np.ndarray


class Boltzmann:
    """Stochastic neurons, all connected, at a temperature T.

    Parameters
    ----------
    n_visible : int
        Neurons that data are about, at least 1; they come first.
    n_hidden : int
        The others.
    temperature : float
        T, positive, in units of the energy.
    values : (0, 1) or (-1, 1)
        The two states of a neuron.
    sign : {1, -1}
        1: the source's convention, E = sum w s s; -1: the usual one, E = -sum w s s.

    Attributes
    ----------
    n_weights : int
        n = n_units (n_units + 1)/2.

    Raises
    ------
    InputError
        For a number out of its range; by exact quantities, above 24 units: use `sample`.

    Notes
    -----
    E_a = sum_{i<j} s_i s_j w_ij + sum_i s_i w_i0 (times sign) and P_a = exp(-E_a/T)/Z. w holds w_ij
    for i < j in the order (0,1), (0,2), ..., (1,2), ..., then w_i0, the bias of each neuron.

    References
    ----------
    Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994) 147-160.

    Examples
    --------
    Without weights all states are equally likely:

    >>> import numpy as np
    >>> import perturb
    >>> machine = perturb.Boltzmann(2)
    >>> w = np.zeros(machine.n_weights)
    >>> machine.p(w)
    array([0.25, 0.5 , 0.5 ])
    >>> objective = machine.objective([[0, 0], [1, 1]])
    >>> round(objective.error(w), 4), objective.gradient(w)
    (0.6931, array([0.25, 0.  , 0.  ]))
    >>> objective.hvp(w, [1.0, 0.0, 0.0])
    array([0.1875, 0.125 , 0.125 ])
    """

    def __init__(
        self,
        n_visible: int,
        n_hidden: int = 0,
        temperature: float = 1.0,
        values: tuple[float, float] = (0, 1),
        sign: int = 1,
    ):
        integer("n_visible", n_visible, 1)
        integer("n_hidden", n_hidden, 0)
        self.temperature = positive("temperature", temperature)
        if tuple(values) not in ((0, 1), (-1, 1)):
            raise InputError(f"values = {values!r} must be (0, 1) or (-1, 1)")
        if sign not in (-1, 1):
            raise InputError(f"sign = {sign!r} must be 1 (the source's) or -1")
        self.n_visible, self.n_hidden = int(n_visible), int(n_hidden)
        self.values, self.sign = (float(values[0]), float(values[1])), sign
        # data are states of the visible neurons, and nothing is given to any of them
        self.n_inputs, self.n_outputs = 0, self.n_visible
        self.error = "divergence"
        self.n_units = self.n_visible + self.n_hidden
        self.enumerated = Enumerated(
            self.n_visible, self.n_hidden, self.temperature, self.values, sign
        )
        self.pairs = self.enumerated.pairs
        self.n_weights = len(self.pairs[0]) + self.n_units

    def __repr__(self) -> str:
        return (
            f"Boltzmann({self.n_visible}, {self.n_hidden}, temperature={self.temperature:g},"
            f" n_weights={self.n_weights})"
        )

    def init(self, seed: int) -> Array:
        """Random starting weights: normal, of variance 1/n_units; biases zero.

        Parameters
        ----------
        seed : int

        Returns
        -------
        array of shape (n,)
        """
        rng = np.random.Generator(np.random.Philox(seed))
        return np.concatenate(
            [
                rng.standard_normal(len(self.pairs[0])) / np.sqrt(self.n_units),
                np.zeros(self.n_units),
            ]
        )

    def weight_units(self) -> tuple[Array, Array]:
        """The two units of each weight, two int arrays (n,); a bias comes from -1."""
        unit = np.arange(self.n_units)
        return np.concatenate([self.pairs[0], np.full(self.n_units, -1)]), np.concatenate(
            [self.pairs[1], unit]
        )

    def weight_layers(self) -> Array:
        """Zeros (n,): it has no layers."""
        return np.zeros(self.n_weights, dtype=int)

    def objective(self, data: Array) -> "BoltzmannObjective":
        """KL(data || model) on the visible neurons.

        Parameters
        ----------
        data : array of shape (S, n_visible) or (2^n_visible,)
            Observed states, one a row; or a distribution over the visible states, neuron 0 the
            highest bit, its lower value a 0.

        Returns
        -------
        BoltzmannObjective
        """
        return BoltzmannObjective(self, data)

    def states(self, n: int) -> Array:
        """All states of some neurons.

        Parameters
        ----------
        n : int
            How many neurons.

        Returns
        -------
        array of shape (2^n, n)
            Neuron 0 is the highest bit.
        """
        return self.enumerated.states(n)

    def p(self, w: Array) -> Array:
        """p_ij, the mean of s_i s_j (and of s_i).

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (n,)
            In the order of w.

        Notes
        -----
        Cost: 2^n_units states.
        """
        return self.enumerated.expect(
            self.enumerated.free(self.enumerated.energy(as_weights("w", w, self.n_weights)))
        )

    def R_p(self, w: Array, v: Array) -> Array:
        """R{p_ij} = (p_ij <D> - <s_i s_j D>) / T along v.

        Parameters
        ----------
        w : array of shape (n,)
        v : array of shape (n,)

        Returns
        -------
        array of shape (n,)
        """
        P = self.enumerated.free(self.enumerated.energy(as_weights("w", w, self.n_weights)))
        return self.enumerated.R_expect(
            P, P.sum(), self.enumerated.energy(as_weights("v", v, self.n_weights))
        )

    def probabilities(self, w: Array) -> Array:
        """P(visible state).

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (2^n_visible,)
        """
        return self.enumerated.free(self.enumerated.energy(as_weights("w", w, self.n_weights))).sum(
            1
        )

    def sample(
        self,
        w: Array,
        v: Array,
        sweeps: int = 1000,
        chains: int = 256,
        burn_in: int = 100,
        seed: int = 0,
        clamped: Array | None = None,
        first_chain: int = 0,
    ) -> Sampled:
        """p_ij and R{p_ij} along v from Gibbs sampling.

        Parameters
        ----------
        w : array of shape (n,)
        v : array of shape (n,)
        sweeps : int
            Sweeps counted, of each chain, at least 2.
        chains : int
            Independent chains, at least 2.
        burn_in : int
            Sweeps of each chain thrown away first.
        seed : int
        clamped : array of shape (n_visible,), optional
            A visible state that is held, for the clamped phase.
        first_chain : int
            The number of the first chain.

        Returns
        -------
        Sampled

        Raises
        ------
        InputError
            For a number out of its range, or a clamped state of another shape or other values.

        Notes
        -----
        R{p} is -Cov(s_i s_j, D)/T, with K - 1 samples in its denominator. Random numbers are keyed
        by (seed, chain, sweep, neuron), chains numbered from first_chain: chains of other numbers
        are independent. Time: sweeps x chains x n_units^2.
        """
        w, v = as_weights("w", w, self.n_weights), as_weights("v", v, self.n_weights)
        for name, number, least, bits in (
            ("sweeps", sweeps, 2, 31),
            ("chains", chains, 2, 31),
            ("burn_in", burn_in, 0, 31),
            ("first_chain", first_chain, 0, 31),
            ("seed", seed, 0, 64),
        ):
            integer(name, number, least, 2**bits - 1)
        # states that are held come first, as the visible neurons do
        held = np.zeros(self.n_units)
        if clamped is not None:
            state = as_floats("clamped", clamped)
            if state.shape != (self.n_visible,):
                raise InputError(
                    f"clamped has shape {state.shape}: give one visible state, of shape"
                    f" ({self.n_visible},)"
                )
            held[: self.n_visible] = as_states(state[None], self.n_visible, self.values)[0]
        held_units = 0 if clamped is None else self.n_visible
        return sampled(
            self._fields(w),
            self._fields(v),
            self.temperature,
            self.values,
            held[:held_units],
            seed,
            range(first_chain, first_chain + chains),
            burn_in,
            sweeps,
        )

    def _fields(self, w: Array) -> tuple[Array, Array]:
        """A symmetric matrix, whose row i gives the field at neuron i, and the thresholds; with
        their sign in the energy.
        """
        n_pairs = len(self.pairs[0])
        matrix = np.zeros((self.n_units, self.n_units))
        matrix[self.pairs] = w[:n_pairs]
        return self.sign * (matrix + matrix.T), self.sign * w[n_pairs:]


class BoltzmannObjective(Objective):
    """KL(data || model) of a `Boltzmann` machine, see `Objective`.

    Parameters
    ----------
    network : Boltzmann
    data : array of shape (S, n_visible) or (2^n_visible,)
        Patterns one by one, or one distribution, which counts as a single pattern.
    entropy : float, optional
        sum p log p of the data of which these are a part; left out, of these.

    Notes
    -----
    Both phases are cached for products at the same w: 16 bytes for each state of all neurons.
    """

    parallel = True

    def __init__(self, network: Boltzmann, data: Array, entropy: float | None = None):
        self.network, self.n_weights, self.depth = network, network.n_weights, 1
        data, size = read_only_copy(as_floats("data", data)), 2**network.n_visible
        self.observed: Array | None = None
        if data.ndim == 1:
            if data.shape != (size,) or (data < 0).any() or abs(data.sum() - 1) > 1e-9:
                raise InputError(
                    f"data has shape {data.shape} and sum {data.sum():g}: give {size} probabilities"
                    " with sum 1, or states"
                )
            # what has no probability has no term in p log p either
            seen = np.flatnonzero(data)
            self.states, self.shares, self.n_patterns = (
                network.states(network.n_visible)[seen],
                data[seen],
                1,
            )
        else:
            self.observed = as_states(data, network.n_visible, network.values)
            self.n_patterns = len(self.observed)
            # each different state is computed once, however often it was seen
            self.states, self._which, counts = np.unique(
                self.observed, axis=0, return_inverse=True, return_counts=True
            )
            self.shares = counts / counts.sum()
        # sum p log p, which does not depend on w; a single pattern keeps that of all, so that the
        # patterns' errors add up
        self.entropy = float(xlogy(self.shares, self.shares).sum()) if entropy is None else entropy
        self._both_phases = Cached(self._phases, self.n_weights)

    @cached_property
    def distribution(self) -> Array:
        """Of the data over all visible states, shape (2^n_visible,)."""
        p = np.zeros(2**self.network.n_visible)
        p[self._places] = self.shares
        return p

    @cached_property
    def _places(self) -> Array:
        """Where `states` stand among all visible states."""
        # neuron 0 is the highest bit of the number of a state
        bits = self.states == self.network.values[1]
        return bits @ (1 << np.arange(self.network.n_visible)[::-1])

    def subset(self, rows: Array) -> "BoltzmannObjective":
        if self.observed is None:
            return self
        return BoltzmannObjective(self.network, self.observed[rows], self.entropy)

    def pattern_errors(self, w: Array) -> Array:
        log_p = self._log_p(self.network.enumerated.energy(as_weights("w", w, self.n_weights)))
        if self.observed is None:
            # KL = sum p log p - sum p log P(visible)
            return np.array([self.entropy - self.shares @ log_p[self._places]])
        # of each pattern its -log P, so that their mean is KL
        return self.entropy - log_p[self._places][self._which]

    def errors_at(self, points: Array) -> Array:
        net = self.network
        if net.n_units > MAX_UNITS:
            return super().errors_at(points)  # raises
        out = np.empty((len(points), self.n_patterns))
        index = np.zeros(0, dtype=int) if self.observed is None else self._places[self._which]
        machine_errors(
            np.ascontiguousarray(points, dtype=float),
            net.n_visible,
            net.n_hidden,
            *net.values,
            net.sign / net.temperature,
            self.entropy,
            index,
            self.distribution,
            out,
        )
        return out

    def gradient(self, w: Array) -> Array:
        return self._both_phases(w).g.copy()

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        net, states = self.network, self.network.enumerated
        clamped, free, E, g = self._both_phases(w)
        HV = np.empty_like(V)
        for column, v in enumerate(V.T):
            D = states.energy(v)
            # z = (R{p} clamped - R{p} free) / T: clamped within each pattern, free over all states
            of_data = states.R_expect(clamped, self.distribution, D)
            difference = of_data - states.R_expect(free, free.sum(), D)
            HV[:, column] = net.sign * difference / net.temperature
        return E, g.copy(), HV

    def _phases(self, w: Array) -> "_Phases":
        net, states = self.network, self.network.enumerated
        energy = states.energy(w)
        # hidden given visible times the data's, and the model's own
        given = softmax(-energy / net.temperature).p
        clamped, free = self.distribution[:, None] * given, states.free(energy)
        E = float(self.entropy - self.shares @ self._log_p(energy)[self._places])
        # data less model, without a difference where both are 1
        model, d = softmax(logsumexp(-energy / net.temperature, axis=1)), self.distribution
        difference = (d * model.not_p - (1.0 - d) * model.p)[:, None] * given
        return _Phases(clamped, free, E, net.sign * states.expect(difference) / net.temperature)

    def sample(
        self,
        w: Array,
        v: Array,
        sweeps: int = 1000,
        chains: int = 256,
        burn_in: int = 100,
        seed: int = 0,
    ) -> SampledDivergence:
        """Gradient and Hv by Gibbs sampling, as a machine too large to enumerate finds them.

        Parameters
        ----------
        w : array of shape (n,)
        v : array of shape (n,)
        sweeps : int
            Sweeps counted, of each chain.
        chains : int
            Independent chains of each phase.
        burn_in : int
            Sweeps of each chain thrown away first.
        seed : int

        Returns
        -------
        SampledDivergence

        Notes
        -----
        The clamped phase holds each different state of the data in turn, with its own `chains`
        chains; then the free phase. Time: that of `Boltzmann.sample` times the different states
        plus one.
        """
        net = self.network
        phases = [
            # chains of other numbers draw other random numbers: phases are independent
            net.sample(w, v, sweeps, chains, burn_in, seed, clamped, first_chain=i * chains)
            for i, clamped in enumerate([*self.states, None])
        ]
        # dKL/dw = (p clamped, weighted with the shares - p free) / T; the free phase comes last
        signs = net.sign * np.append(self.shares, -1.0) / net.temperature
        return summed(signs, phases)

    def _log_p(self, energy: Array) -> Array:
        # log P(visible): logsumexp takes the sum over the hidden states
        return softmax(logsumexp(-energy / self.network.temperature, axis=1)).log_p


class _Phases(NamedTuple):
    """Probabilities of (visible, hidden) states in both phases, E and its gradient."""

    clamped: Array
    free: Array
    E: float
    g: Array
