"""Networks as the units of a chip evaluate them, imperfections included: unit i with net input x_i
makes

    y_i = f_i(gain_i x_i + offset_i) + I_i gain, offset: of the die
    t_i = clip(y_i, -saturation, saturation) + noise xi_i where it feeds other units
    l_i = t_i + crosstalk (t_i-1 + t_i+1),          x_j = sum_i w_ij l_i

l is what it puts on its line through the synapses. Lines run side by side for the length of the
array and carry voltages of full swing: there it is that activity leaks from neighbour to neighbour,
whereas net inputs are currents into nodes that hardly move. Neighbours are next in number among the
units of a layer that feed others; of a graph a level is a layer (a leak from level to level would
close loops in it), and a recurrent network is one layer. Inputs and bias come from off the chip and
are exact.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from hardware.params import NeuronParams
from perturb.errors import InputError
from perturb.networks.activations import Activation, per_unit
from perturb.networks.dag import DAG
from perturb.networks.losses import ERRORS
from perturb.networks.mlp import MLP
from perturb.networks.objective import Objective
from perturb.networks.recurrent import Recurrent
from perturb.networks.settling import NotSettled

Array = np.ndarray
Draw = Callable[[int, int], Array]  # (layer, size): normal numbers (points, size)
AT_ONCE = 2**23  # activities, or products of a graph's with weights, that are held at a time: 64 MB


class Layer(NamedTuple):
    """Units that settle together: their numbers in the network, which of them (places in
    `units`) feed others, and f.
    """

    units: Array
    feeds: Array
    activation: Activation


def layers_of(objective: Objective) -> list[Layer]:
    """The units of a network that compute, layer by layer; none of a network that has no such
    units.
    """
    net = getattr(objective, "network", None)
    if isinstance(net, MLP):
        hidden = len(net.layers) - 2
        return [
            Layer(
                np.arange(size),
                np.arange(size if layer < hidden else 0),
                per_unit([net.activations[layer]]),
            )
            for layer, size in enumerate(net.layers[1:])
        ]
    if isinstance(net, Recurrent):
        everything = np.arange(net.n_units)
        return [Layer(everything, everything, per_unit(net.activations))]
    if not isinstance(net, DAG):
        return []
    computes = np.ones(net.n_units, dtype=bool)
    feeds = np.zeros(net.n_units, dtype=bool)
    computes[[*net.inputs, *([] if net.bias is None else [net.bias])]] = False
    feeds[net.edges[:, 0]] = True
    levels = [
        np.flatnonzero(computes & (net.levels == level)) for level in range(net.levels.max() + 1)
    ]
    return [
        Layer(
            units, np.flatnonzero(feeds[units]), per_unit([net.activations[unit] for unit in units])
        )
        for units in levels
        if len(units)
    ]


class Units:
    """The units of one die. made: gain and offset of the net inputs of each layer, see
    `hardware.values.Die`.
    """

    def __init__(
        self,
        neuron: NeuronParams,
        objective: Objective,
        layers: list[Layer],
        made: list[tuple[Array, Array]],
    ):
        self.neuron = neuron
        self.layers = layers
        self.made = made
        self._objective: Any = objective
        self._net: Any = getattr(objective, "network", None)
        self._evaluate = {MLP: self._layered, DAG: self._graph, Recurrent: self._relaxed}.get(
            type(self._net)
        )
        wrong = [(key, value) for key, value in neuron if value]
        self.ideal = not wrong
        if wrong and self._evaluate is None:
            kind = type(self._net or objective).__name__
            raise InputError(
                f"neuron.{wrong[0][0]} = {wrong[0][1]} but a {kind} has no units with a net input"
                " and an activity: set it to 0"
            )

    def errors(self, points: Array, shown: list[Array] | None, draw: Draw) -> Array:
        """Errors (m, presented) at points (m, n) on all patterns, or at each point on those that
        `shown` gives for it.

        draw: noise, one number for each unit that feeds others, pattern and evaluation: what is
        faster than a unit settles is averaged away before E is read, and what is slower stands
        still for so long.
        """
        assert self._evaluate is not None
        x, target = (
            a[None] if shown is None else a[np.array(shown)]
            for a in (self._objective.x, self._objective.target)
        )
        xi: list[Array | None] = [None] * len(self.layers)
        if self.neuron.noise:
            for layer, feeds in enumerate(own.feeds.size for own in self.layers):
                xi[layer] = (
                    draw(layer, x.shape[1] * feeds).reshape(len(points), x.shape[1], feeds)
                    if feeds
                    else None
                )
        return ERRORS[self._net.error].value(self._evaluate(points, x, xi), target)

    def lines(self, layer: int, x: Array, external: Array | float, xi: Array | None) -> Array:
        """l of the units of a layer, (..., units), from their net inputs x before gain and
        offset.
        """
        neuron, (gain, offset), own = self.neuron, self.made[layer], self.layers[layer]
        if not self.ideal:
            x = gain * x + offset
        y = own.activation.f(x) + external
        if self.ideal or not own.feeds.size:
            return y
        t = y[..., own.feeds]
        if neuron.saturation:
            t = np.clip(t, -neuron.saturation, neuron.saturation)
        if xi is not None:
            t = t + neuron.noise * xi
        y[..., own.feeds] = t + neuron.crosstalk * beside(t) if neuron.crosstalk else t
        return y

    def _layered(self, points: Array, x: Array, xi: list[Array | None]) -> Array:
        net = self._net
        outputs = []
        size = max(1, AT_ONCE // (x.shape[1] * max(net.layers)))
        for first in range(0, len(points), size):
            some = slice(first, first + size)
            start = 0
            y = x if len(x) == 1 else x[some]
            for layer, (a, b) in enumerate(pairwise(net.layers)):
                W = points[some, start : start + a * b].reshape(-1, a, b)
                bias = points[some, None, start + a * b : start + (a + 1) * b]
                y = self.lines(layer, np.matmul(y, W) + bias, 0.0, _some(xi[layer], some))
                start += (a + 1) * b
            outputs.append(y)
        return np.concatenate(outputs)

    def _graph(self, points: Array, x: Array, xi: list[Array | None]) -> Array:
        net = self._net
        outputs = []
        size = max(1, AT_ONCE // (x.shape[1] * len(net.edges)))
        for first in range(0, len(points), size):
            some = slice(first, first + size)
            weights = points[some, None, net.tied]
            y = np.zeros((len(weights), x.shape[1], net.n_units))
            y[..., net.inputs] = x if len(x) == 1 else x[some]
            if net.bias is not None:
                y[..., net.bias] = 1.0
            for layer, own in enumerate(self.layers):
                edges = np.flatnonzero(np.isin(net.edges[:, 1], own.units))
                edges = edges[np.argsort(net.edges[edges, 1], kind="stable")]
                net_inputs = np.zeros((*y.shape[:2], own.units.size))
                if edges.size:  # then every unit of the level has some
                    begins = np.searchsorted(net.edges[edges, 1], own.units)
                    net_inputs = np.add.reduceat(
                        weights[..., edges] * y[..., net.edges[edges, 0]], begins, axis=-1
                    )
                y[..., own.units] = self.lines(
                    layer, net_inputs, net.external[own.units], _some(xi[layer], some)
                )
            outputs.append(y[..., net.outputs])
        return np.concatenate(outputs)

    def _relaxed(self, points: Array, x: Array, xi: list[Array | None]) -> Array:
        """By relaxation from 0, whichever solver the network has, as a chip does; each point by
        itself, until it has settled.
        """
        net = self._net
        n = self._net.n_units
        external = np.zeros((len(points), x.shape[1], n))
        external[..., net.inputs] = x
        W = points.reshape(-1, n, n)
        y = np.zeros_like(external)
        moving = np.arange(len(points))
        scale = np.ones(len(points))
        residual = np.zeros(len(points))
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(net.max_steps):
                goal = self.lines(
                    0, np.matmul(y[moving], W[moving]), external[moving], _some(xi[0], moving)
                )
                size = np.abs(y[moving] if step else goal).max((-2, -1))
                scale[moving] = np.where(size > 0, size, scale[moving])
                change = goal - y[moving]
                residual[moving] = np.abs(change).max((-2, -1)) / scale[moving]
                going = residual[moving] > net.tolerance
                if not np.isfinite(residual).all() or not going.any():
                    break
                moving = moving[going]
                change = change[going]
                y[moving] += net.step * change
        if not (residual <= net.tolerance).all():
            worst = float(residual.max())
            raise NotSettled(
                f"units with the imperfections of [chip.neuron] have not settled after {step + 1}"
                f" steps of {net.step}: residual {worst:.2g} (tolerance {net.tolerance:g}): use"
                " smaller weights, less crosstalk, or more steps"
            )
        return y[..., net.outputs]


def _some(xi: Array | None, points: slice | Array) -> Array | None:
    return None if xi is None else xi[points]


def beside(x: Array) -> Array:
    """The sum of both neighbours along the last axis; the first and the last have one."""
    near = np.zeros_like(x)
    near[..., 1:] += x[..., :-1]
    near[..., :-1] += x[..., 1:]
    return near
