"""Feed-forward networks on any directed acyclic graph of units: exact error, gradient and Hv.

By R{backprop} (Pearlmutter 1994). Neurons are put into levels, the length of the longest path that
leads to them, and a level is evaluated at once: a sparse product for the net inputs, one call for
each activation in it. Arrays run over neurons (in order of their level), then directions, then
patterns.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from perturb.checks import as_floats, as_weights, integer, read_only_copy
from perturb.errors import InputError, choose
from perturb.kernels.activations import ACTIVATION_KINDS, ERROR_KINDS, compiled_twins
from perturb.kernels.graph import Graph, graph_errors
from perturb.networks.activations import names_of_units
from perturb.networks.cache import Cached
from perturb.networks.graph_levels import Level, add_products, edge_array, levels_of, tied_weights
from perturb.networks.losses import ERRORS, check_outputs
from perturb.networks.objective import Objective
from perturb.networks.patterns import as_patterns, as_units

Array = np.ndarray


class DAG:
    """A feed-forward network of any graph of neurons, without cycles.

    Parameters
    ----------
    n_units : int
        Neurons, numbered from 0.
    edges : sequence of (from, to) pairs
        Each at most once. Without `tied`, w has one entry per edge, in their order.
    inputs : sequence of int
        Neurons whose activity is the pattern; no edge may lead into them.
    outputs : sequence of int
        Neurons whose activity has targets; they may feed other neurons too.
    activation : str or {unit: name}
        One name for all neurons, or one for each; neurons left out are tanh.
    error : str
        A key of `losses.ERRORS`; the cross-entropies need linear outputs.
    bias : int, optional
        A neuron whose activity is always 1; no edge may lead into it.
    external : array of shape (n_units,), optional
        I_j of each neuron; 0 if left out.
    tied : sequence of int, one for each edge, optional
        tied[e] is the entry of w that edge e uses, numbered from 0 without gaps: shared weights.

    Attributes
    ----------
    n_weights : int
        n, the edges, or with `tied` the different entries.
    levels : int array of shape (n_units,)
        The length of the longest path to each neuron.

    Raises
    ------
    InputError
        For a cycle, an unknown neuron, a repeated edge or a name that is not known.

    Notes
    -----
    y_j = f_j(x_j) + I_j with x_j = sum over edges (i, j) of w_ij y_i.

    Examples
    --------
    A hidden neuron, and an edge past it:

    >>> import perturb
    >>> edges = [(0, 1), (1, 2), (0, 2)]
    >>> network = perturb.DAG(3, edges, inputs=[0], outputs=[2], activation={2: "linear"})
    >>> objective = network.objective([[0.0], [1.0]], [[0.0], [2.0]])
    >>> w = [0.0, 1.0, 1.0]
    >>> objective.error(w), objective.gradient(w)
    (0.25, array([-0.5,  0. , -0.5]))
    >>> objective.hvp(w, [1.0, 0.0, 0.0])
    array([ 0.5, -0.5,  0.5])
    """

    def __init__(
        self,
        n_units: int,
        edges: Sequence[tuple[int, int]],
        inputs: Sequence[int],
        outputs: Sequence[int],
        activation: str | Mapping[int, str] = "tanh",
        error: str = "squared_error",
        bias: int | None = None,
        external: Array | None = None,
        tied: Sequence[int] | None = None,
    ):
        integer("n_units", n_units, 1)
        self.n_units, self.error = int(n_units), error
        self.edges = edge_array(edges, self.n_units)
        self.inputs, self.outputs = (
            as_units("inputs", inputs, n_units),
            as_units("outputs", outputs, n_units),
        )
        self.bias = None if bias is None else int(as_units("bias", [bias], n_units)[0])
        self.n_inputs, self.n_outputs = len(self.inputs), len(self.outputs)
        # neurons whose activity is given, and not computed: R{y} = 0 there
        given = list(self.inputs) + ([] if self.bias is None else [self.bias])
        if len(set(given)) < len(given):
            raise InputError(
                f"bias = {self.bias} is also an input: give the bias a unit of its own"
            )
        into = np.isin(self.edges[:, 1], given)
        if into.any():
            i, j = self.edges[into][0]
            raise InputError(
                f"edge ({i}, {j}) leads into neuron {j}, whose activity is given: remove the edge,"
                " or the neuron from inputs"
            )
        choose("error", error, ERRORS)
        self.activations = names_of_units(activation, self.n_units)
        check_outputs(error, self.outputs, self.activations)
        self.external = read_only_copy(
            np.zeros(self.n_units) if external is None else as_floats("external", external)
        )
        if self.external.shape != (self.n_units,):
            raise InputError(
                f"external has shape {self.external.shape}, but must be ({self.n_units},): one I_j"
                " per neuron"
            )
        if self.external[given].any():
            unit = given[int(np.flatnonzero(self.external[given])[0])]
            raise InputError(
                f"external[{unit}] = {self.external[unit]:g}, but the activity of neuron {unit} is"
                " given: set it to 0"
            )
        self.tied = tied_weights(tied, len(self.edges))
        self.n_weights = int(self.tied.max()) + 1 if len(self.tied) else 0
        # InputError if there is a cycle: then no order exists in which neurons could be computed
        self.levels = levels_of(self.edges, self.n_units)

    def __repr__(self) -> str:
        ends = f"inputs={self.n_inputs}, outputs={self.n_outputs}"
        return (
            f"DAG({self.n_units}, edges={len(self.edges)}, {ends}, error={self.error!r},"
            f" n_weights={self.n_weights})"
        )

    def init(self, seed: int) -> Array:
        """Random starting weights: normal, of variance 1/(edges into the neuron).

        Parameters
        ----------
        seed : int

        Returns
        -------
        array of shape (n,)
            A tied weight is drawn for its first edge.
        """
        rng = np.random.Generator(np.random.Philox(seed))
        fan_in = np.bincount(self.edges[:, 1], minlength=self.n_units)
        # the first edge that uses each entry of w
        _, first = np.unique(self.tied, return_index=True)
        return rng.standard_normal(self.n_weights) / np.sqrt(fan_in[self.edges[first, 1]])

    def weight_units(self) -> tuple[Array, Array]:
        """The neurons each weight comes from and goes to, two int arrays (n,).

        Of a tied weight, those of its first edge.
        """
        _, first = np.unique(self.tied, return_index=True)
        return self.edges[first, 0], self.edges[first, 1]

    def weight_layers(self) -> Array:
        """The level of the neuron that each weight leads to, from 1, an int array (n,).

        Of a tied weight, that of its first edge: a level that shares all its weights has none.
        """
        return self.levels[self.weight_units()[1]]

    def objective(self, x: Array, target: Array) -> "DAGObjective":
        """E(w) of this network on patterns.

        Parameters
        ----------
        x : array of shape (S, inputs)
            One pattern a row.
        target : array of shape (S, outputs)
            Or names of classes (S,), of cross_entropy class numbers too, see `Objective.classes`.

        Returns
        -------
        DAGObjective
        """
        return DAGObjective(self, x, target)


class DAGObjective(Objective):
    """E(w) of a `DAG` on its patterns, see `Objective`.

    Parameters
    ----------
    network : DAG
    x : array of shape (S, inputs)
    target : array of shape (S, outputs), or class numbers (S,)

    Notes
    -----
    Cost of Hv: about two gradients on top of one, which is cached for products at the same w; 8
    bytes per neuron, pattern and direction, a few times over, for as many directions at a time as
    64 MB hold.
    """

    parallel = True

    def __init__(self, network: DAG, x: Array, target: Array):
        self.network = network
        self.x, self.target = as_patterns(
            x, target, network.n_inputs, network.n_outputs, network.error
        )
        self.n_weights, self.n_patterns = network.n_weights, self.x.shape[0]
        # neurons are renumbered level by level, so that a level is a slice: place[order[i]] = i
        order = np.argsort(network.levels, kind="stable")
        place = np.empty(network.n_units, dtype=int)
        place[order] = np.arange(network.n_units)
        # level l is the slice ends[l]..ends[l + 1]
        ends = np.searchsorted(network.levels[order], np.arange(network.levels.max() + 2))
        self._levels = [
            Level(network.edges, network.activations, order, place, a, b)
            for a, b in zip(ends, ends[1:], strict=False)
        ]
        self.depth = max(1, len(self._levels) - 1)
        self._source, self._target = place[network.edges[:, 0]], place[network.edges[:, 1]]
        self._external = network.external[order]
        self._inputs, self._outputs = place[network.inputs], place[network.outputs]
        self._bias = None if network.bias is None else place[network.bias]
        self._E = ERRORS[network.error]
        self._primal = Cached(self._both_passes, self.n_weights)
        self._order = order
        self._compiled: tuple | None = (
            None  # what the compiled forward pass takes, made when first needed
        )
        # 64 MB an array
        self.directions_at_once = max(
            1, 2**23 // (network.n_units * self.n_patterns + len(network.edges))
        )

    def __reduce__(self):
        # functions do not pickle; names of them do
        return DAGObjective, (self.network, self.x, self.target), {"classes": self.classes}

    @property
    def n_macs(self) -> int:
        return len(self.network.edges)

    def subset(self, rows: Array) -> "DAGObjective":
        part = DAGObjective(self.network, self.x[rows], self.target[rows])
        return self._of_my_classes(part)

    def pattern_errors(self, w: Array) -> Array:
        return self._E.value(self.outputs(w), self.target)

    def errors_at(self, points: Array) -> Array:
        net = self.network
        if not compiled_twins(net.activations, net.error):
            return super().errors_at(points)
        if self._compiled is None:
            # edges by the neuron they lead to: those into neuron j are starts[j]..starts[j + 1]
            by_place = np.argsort(self._target, kind="stable")
            starts = np.searchsorted(self._target[by_place], np.arange(net.n_units + 1))
            # inputs[j]: which entry of the pattern neuron j gets, -1 = none (the bias is given too)
            given, inputs = np.zeros(net.n_units, dtype=bool), np.full(net.n_units, -1)
            given[self._inputs], inputs[self._inputs] = True, np.arange(net.n_inputs)
            if self._bias is not None:
                given[self._bias] = True
            kinds = np.array([ACTIVATION_KINDS[net.activations[unit]] for unit in self._order])
            ends = np.array([0, *(level.stop for level in self._levels)])
            graph = Graph(
                net.tied[by_place],
                ends,
                starts,
                self._source[by_place],
                given,
                kinds,
                self._external,
                inputs,
                self._outputs,
            )
            self._compiled = (
                graph,
                np.ascontiguousarray(self.x.T),
                np.ascontiguousarray(self.target.T),
                ERROR_KINDS[net.error],
            )
        out = np.empty((len(points), self.n_patterns))
        graph_errors(np.ascontiguousarray(points, dtype=float), *self._compiled, out)
        return out

    def outputs(self, w: Array) -> Array:
        """The activity of the output neurons.

        Parameters
        ----------
        w : array of shape (n,)

        Returns
        -------
        array of shape (S, outputs)
        """
        return self._forward(self._edge_weights(w))[2][self._outputs].T

    def gradient(self, w: Array) -> Array:
        return self._primal(w).g.copy()

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        p = self._primal(w)
        V = V.T[:, self.network.tied]  # (k, edges)
        R_x, R_y = self._R_forward(p, V)

        # R{dE/dy_i} = R{e_i} + sum_j (w_ij R{dE/dx_j} + v_ij dE/dx_j)
        # R{dE/dx_i} = f'_i R{dE/dy_i} + f''_i R{x_i} dE/dy_i
        R_Ey, R_Ex = self._R_e(p, R_y), np.zeros_like(R_x)
        for level in reversed(self._levels):
            units = slice(level.start, level.stop)
            # += : an output that feeds other neurons has R{e_i} beside what comes back
            R_Ey[units] += level.outgoing.product(p.weights, R_Ex)
            R_Ey[units] += level.outgoing.products(V, p.E_x)
            R_Ex[units] = (
                p.df[units, None] * R_Ey[units]
                + p.d2f[units, None] * R_x[units] * p.E_y[units, None]
            )

        # R{dE/dw_ij} = y_i R{dE/dx_j} + R{y_i} dE/dx_j
        HV = [
            self._per_weight(self._sum((p.y, R_Ex[:, d]), (R_y[:, d], p.E_x)))
            for d in range(len(V))
        ]
        return p.E, p.g.copy(), np.stack(HV, axis=1)

    def _gauss_newton(self, w: Array, V: Array) -> Array:
        p = self._primal(w)
        # (k, edges): edges of one tied weight have its v
        V = V.T[:, self.network.tied]
        _, R_y = self._R_forward(p, V)

        # the ordinary backward pass, with H_E R{y} in place of e
        E_y, E_x = self._R_e(p, R_y), np.zeros_like(R_y)
        for level in reversed(self._levels):
            units = slice(level.start, level.stop)
            E_y[units] += level.outgoing.product(p.weights, E_x)
            E_x[units] = p.df[units, None] * E_y[units]
        GV = [self._per_weight(self._sum((p.y, E_x[:, d]))) for d in range(len(V))]
        return np.stack(GV, axis=1)

    def _R_forward(self, p: "_Primal", V: Array) -> tuple[Array, Array]:
        """R{x} and R{y} (neurons, k, S), for v of each edge, (k, edges)."""
        # R{x_j} = sum_i (w_ij R{y_i} + v_ij y_i), R{y_j} = f'_j(x_j) R{x_j}; R{y} = 0 where y is
        # given: no edge leads there
        R_x = np.zeros((len(p.y), len(V), self.n_patterns))
        R_y = np.zeros_like(R_x)
        # all directions of a level in one sparse product
        for level in self._levels:
            units = slice(level.start, level.stop)
            # w_ij R{y_i}: one matrix, k right sides; v_ij y_i: k matrices, one right side
            R_x[units] = level.incoming.product(p.weights, R_y) + level.incoming.products(V, p.y)
            R_y[units] = p.df[units, None] * R_x[units]
        return R_x, R_y

    def _R_e(self, p: "_Primal", R_y: Array) -> Array:
        """R{e} (neurons, k, S), 0 but at the outputs."""
        R_Ey = np.zeros_like(R_y)
        R_e = (
            self._E.R_e(p.y[self._outputs].T, self.target)(np.moveaxis(R_y[self._outputs], 0, -1))
            / self.n_patterns
        )
        R_Ey[self._outputs] = np.moveaxis(R_e, -1, 0)
        return R_Ey

    def _edge_weights(self, w: Array) -> Array:
        return as_weights("w", w, self.n_weights)[self.network.tied]

    def _forward(self, weights: Array) -> tuple[Array, Array, Array]:
        # x_j = sum_i w_ij y_i,  y_j = f_j(x_j) + I_j;  x, f(x), y
        x = np.zeros((self.network.n_units, self.n_patterns))
        f_x, y = np.zeros_like(x), np.zeros_like(x)
        for level in self._levels:
            units = slice(level.start, level.stop)
            x[units] = level.incoming.product(weights, y)
            f_x[units] = level.activation.f(x[units])
            y[units] = f_x[units] + self._external[units, None]
            # given activities have no edge into them: all are in the first level
            if level.start == 0:
                y[self._inputs] = self.x.T
                if self._bias is not None:
                    y[self._bias] = 1.0
        return x, f_x, y

    def _both_passes(self, w: Array) -> "_Primal":
        """Everything of the two ordinary passes that R{.} needs."""
        weights = self._edge_weights(w)
        x, f_x, y = self._forward(weights)
        df, d2f = np.empty_like(x), np.empty_like(x)

        # dE/dy_i = e_i + sum_j w_ij dE/dx_j,  dE/dx_i = f'_i dE/dy_i
        E_y, E_x = np.zeros_like(x), np.zeros_like(x)
        E_y[self._outputs] = self._E.e(y[self._outputs].T, self.target).T / self.n_patterns
        for level in reversed(self._levels):
            units = slice(level.start, level.stop)
            df[units] = level.activation.df(x[units], f_x[units])
            d2f[units] = level.activation.d2f(x[units], f_x[units], df[units])
            # += : an output that feeds other neurons has e_i beside what comes back
            E_y[units] += level.outgoing.product(weights, E_x)
            E_x[units] = df[units] * E_y[units]
        E = float(self._E.value(y[self._outputs].T, self.target).mean())
        return _Primal(weights, x, y, df, d2f, E_y, E_x, E, self._per_weight(self._sum((y, E_x))))

    def _sum(self, *products: tuple[Array, Array]) -> Array:
        """Per edge, as in dE/dw_ij = y_i dE/dx_j, the sum of a_i b_j over patterns and products.

        products: pairs a, b of shape (neurons, S).
        """
        out = np.zeros(len(self._source))
        for at_source, at_target in products:
            add_products(self._source, self._target, at_source, at_target, out)
        return out

    def _per_weight(self, per_edge: Array) -> Array:
        # a shared weight gets the sum over its edges, by the chain rule
        return np.bincount(self.network.tied, per_edge, self.n_weights)


class _Primal(NamedTuple):
    """Weights of the edges; per neuron and pattern x, y, f', f'', dE/dy, dE/dx; E and its
    gradient.
    """

    weights: Array
    x: Array
    y: Array
    df: Array
    d2f: Array
    E_y: Array
    E_x: Array
    E: float
    g: Array
