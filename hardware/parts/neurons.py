"""Networks as the neurons of a chip evaluate them, imperfections included: neuron i with net input
x_i computes

    y_i = f_i(gain_i x_i + offset_i) + I_i              gain, offset: of the die
    t_i = clip(y_i, -saturation, saturation) + noise xi_i where it feeds other neurons
    l_i = t_i + crosstalk (t_i-1 + t_i+1),          x_j = sum_i w_ij l_i

l is what it transmits on its line through the synapses. Lines run side by side for the length of
the array and carry voltages of full swing: there it is that activity leaks from neighbour to
neighbour, whereas net inputs are currents into nodes that hardly move. Neighbours are next in
number among the neurons of a layer that feed others; of a graph a level is a layer (a leak from
level to level would close loops in it), and a recurrent network is one layer. Of a convolution a
neuron is a channel, which serves one position after another, with new noise each time, or with
per_position one position of a channel; which neurons a network of layers has says
`hardware.parts.walk`. Inputs and bias come from off the chip and are exact.
"""

from functools import partial
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from hardware.array_tables import NeuronParams
from hardware.parts.crossbar import Crossbar
from hardware.parts.draws import NEURON_NOISE, Keys, Shown
from hardware.parts.walk import Settle, Walk, by_channel, by_neuron
from perturb.errors import InputError
from perturb.networks.activations import ActivationFunction, per_unit
from perturb.networks.dag import DAG
from perturb.networks.layers.network import Layers
from perturb.networks.losses import ERRORS
from perturb.networks.mlp import MLP
from perturb.networks.objective import Objective
from perturb.networks.recurrent import Recurrent
from perturb.networks.settling import NotSettled

Array = np.ndarray
# activities, or products of a graph's with weights, that are held at a time: 64 MB
MAX_ACTIVITIES = 2**23


class Layer(NamedTuple):
    """Neurons that settle together: their numbers in the network, which of them (places in
    `neurons`) drive others, and f. times: how many positions they serve, one after another.
    """

    neurons: Array
    driving: Array
    activation: ActivationFunction
    times: int = 1


def layers_of(objective: Objective, per_position: bool = False) -> list[Layer]:
    """The neurons of a network, layer by layer; none of a network without net inputs."""
    net = getattr(objective, "network", None)
    if isinstance(net, Layers):
        return [_of_settled(step, per_position) for step in Walk(net).layers]
    if isinstance(net, MLP):
        # the last layer, of the outputs, drives nobody
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
        all_neurons = np.arange(net.n_units)
        return [Layer(all_neurons, all_neurons, per_unit(net.activations))]
    if not isinstance(net, DAG):
        return []
    computes = np.ones(net.n_units, dtype=bool)
    driving = np.zeros(net.n_units, dtype=bool)
    # inputs and bias come from off the chip and have no net input
    computes[[*net.inputs, *([] if net.bias is None else [net.bias])]] = False
    driving[net.edges[:, 0]] = True
    levels = [
        np.flatnonzero(computes & (net.levels == level)) for level in range(net.levels.max() + 1)
    ]
    return [
        Layer(
            neurons,
            np.flatnonzero(driving[neurons]),
            per_unit([net.activations[unit] for unit in neurons]),
        )
        for neurons in levels
        if len(neurons)
    ]


def _of_settled(step: Settle, per_position: bool) -> Layer:
    size = prod(step.shape) if per_position else step.shape[0]
    driving = np.arange(size if step.drives else 0)
    activation = per_unit([step.activation])
    return Layer(np.arange(size), driving, activation, prod(step.shape) // size)


class Neurons:
    """The neurons of one die. mismatch: gain and offset of the net inputs of each layer, see
    `hardware.parts.die.Die`. seed: of their noise.
    """

    def __init__(
        self,
        neuron: NeuronParams,
        objective: Objective,
        layers: list[Layer],
        mismatch: list[tuple[Array, Array]],
        seed: int,
    ):
        self.neuron = neuron
        self.layers = layers
        self.mismatch = mismatch
        self.seed = seed
        self._objective: Any = objective
        self._net: Any = getattr(objective, "network", None)
        self._walk = Walk(self._net) if isinstance(self._net, Layers) else None
        kinds = {
            MLP: self._layered,
            Layers: self._walked,
            DAG: self._graph,
            Recurrent: self._relaxed,
        }
        # of a class or one made from it, such as networks of ONNX files
        self._evaluate = next(
            (evaluate for kind, evaluate in kinds.items() if isinstance(self._net, kind)), None
        )
        # an ideal neuron has 0 for all of its parameters
        wrong = [(key, value) for key, value in neuron if value and key != "per_position"]
        self.ideal = not wrong
        if wrong and self._evaluate is None:
            kind = type(self._net or objective).__name__
            raise InputError(
                f"neuron.{wrong[0][0]} = {wrong[0][1]} but a {kind} has no neurons with a net input"
                " and an activity: set it to 0"
            )

    def errors(
        self, points: Array, presented: list[Array] | None, keys: Keys, crossbar: Crossbar
    ) -> Array:
        """Errors (m, presented) at points (m, n) on all patterns, or at each point on those that
        `presented` names for it, in evaluations with these keys.

        Noise is one number for each neuron that drives others, pattern and evaluation: what is
        faster than a neuron settles is averaged out before E is read, and what is slower is
        constant meanwhile.
        """
        assert self._evaluate is not None
        # (1, S, neurons) for all points alike, or (m, presented, neurons)
        x, target = (
            a[None] if presented is None else a[np.array(presented)]
            for a in (self._objective.x, self._objective.target)
        )
        outputs = self._evaluate(points, x, keys, crossbar)
        return ERRORS[self._net.error].value(outputs, target)

    def _noise(self, layer: int, shown: Shown) -> Array | None:
        """Of a layer (m, S, times driving), or None."""
        level = self.layers[layer]
        if not (self.neuron.noise and level.driving.size):
            return None
        return shown.normals(self.seed, NEURON_NOISE, layer, level.times * level.driving.size)

    def transmitted(self, layer: int, x: Array, external: Array | float, xi: Array | None) -> Array:
        """l of the neurons of a layer, (..., neurons), from their net inputs x before gain and
        offset.
        """
        neuron, (gain, offset), level = self.neuron, self.mismatch[layer], self.layers[layer]
        # here to the return: y, t and l as at the head of this file
        if not self.ideal:
            x = gain * x + offset
        y = level.activation.f(x) + external
        if self.ideal or not level.driving.size:
            return y
        t = y[..., level.driving]
        if neuron.saturation:
            t = np.clip(t, -neuron.saturation, neuron.saturation)
        if xi is not None:
            t = t + neuron.noise * xi
        y[..., level.driving] = t + neuron.crosstalk * neighbour_sum(t) if neuron.crosstalk else t
        return y

    def _layered(self, points: Array, x: Array, keys: Keys, crossbar: Crossbar) -> Array:
        net = self._net
        outputs = []
        # points that are evaluated together, so that memory is bounded
        size = max(1, MAX_ACTIVITIES // (x.shape[1] * max(net.layers)))
        for first in range(0, len(points), size):
            chunk = slice(first, first + size)
            shown = Shown(keys[chunk], 0, x.shape[1])
            start = 0
            y = x if len(x) == 1 else x[chunk]
            for layer, (a, b) in enumerate(pairwise(net.layers)):
                # weights (a, b) of a layer, then its biases (b,), as `perturb.MLP` orders them
                W = points[chunk, start : start + a * b].reshape(-1, a, b)
                bias = points[chunk, None, start + a * b : start + (a + 1) * b]
                net_inputs = crossbar.sums(layer, W, bias, y, shown)
                y = self.transmitted(layer, net_inputs, 0.0, self._noise(layer, shown))
                start += (a + 1) * b
            outputs.append(y)
        return np.concatenate(outputs)

    def _walked(self, points: Array, x: Array, keys: Keys, crossbar: Crossbar) -> Array:
        assert self._walk is not None
        S, largest = x.shape[1], self._net.chain.size
        # points that are evaluated together, or of one point some patterns
        size = max(1, MAX_ACTIVITIES // (S * largest))
        count = S if size > 1 else min(S, max(1, MAX_ACTIVITIES // largest))
        outputs = []
        for first in range(0, len(points), size):
            chunk = slice(first, first + size)
            given = x if len(x) == 1 else x[chunk]
            parts = []
            for start in range(0, S, count):
                some = given[:, start : start + count]
                shown = Shown(keys[chunk], start, some.shape[1])
                product = partial(crossbar.sums, shown=shown)
                neurons = partial(self._settled, shown=shown)
                parts.append(self._walk.outputs(points[chunk], some, product, neurons))
            outputs.append(np.concatenate(parts, axis=1))
        return np.concatenate(outputs)

    def _settled(self, step: Settle, x: Array, shown: Shown) -> Array:
        """The neurons of a step of the walk."""
        split = self.neuron.per_position
        net_inputs = by_neuron(x, split)
        xi = self._noise(step.number, shown)
        if xi is not None:
            xi = xi.reshape(net_inputs.shape)
        return by_channel(self.transmitted(step.number, net_inputs, 0.0, xi), step.shape, split)

    def _graph(self, points: Array, x: Array, keys: Keys, crossbar: Crossbar) -> Array:
        net = self._net
        outputs = []
        size = max(1, MAX_ACTIVITIES // (x.shape[1] * len(net.edges)))
        for first in range(0, len(points), size):
            chunk = slice(first, first + size)
            shown = Shown(keys[chunk], 0, x.shape[1])
            weights = points[chunk, None, net.tied]
            y = np.zeros((len(weights), x.shape[1], net.n_units))
            y[..., net.inputs] = x if len(x) == 1 else x[chunk]
            if net.bias is not None:
                y[..., net.bias] = 1.0
            for layer, level in enumerate(self.layers):
                edges = np.flatnonzero(np.isin(net.edges[:, 1], level.neurons))
                # by the neuron they lead to: `reduceat` sums what stands side by side
                edges = edges[np.argsort(net.edges[edges, 1], kind="stable")]
                net_inputs = np.zeros((*y.shape[:2], level.neurons.size))
                if edges.size:  # then every neuron of the level has some
                    begins = np.searchsorted(net.edges[edges, 1], level.neurons)
                    net_inputs = np.add.reduceat(
                        weights[..., edges] * y[..., net.edges[edges, 0]], begins, axis=-1
                    )
                y[..., level.neurons] = self.transmitted(
                    layer, net_inputs, net.external[level.neurons], self._noise(layer, shown)
                )
            outputs.append(y[..., net.outputs])
        return np.concatenate(outputs)

    def _relaxed(self, points: Array, x: Array, keys: Keys, crossbar: Crossbar) -> Array:
        """By relaxation from 0, whichever solver the network has, as a chip does; each point by
        itself, until it has settled.
        """
        net = self._net
        n = self._net.n_units
        external = np.zeros((len(points), x.shape[1], n))
        external[..., net.inputs] = x
        W = points.reshape(-1, n, n)
        y = np.zeros_like(external)
        xi = self._noise(0, Shown(keys, 0, x.shape[1]))
        moving = np.arange(len(points))
        scale = np.ones(len(points))
        residual = np.zeros(len(points))
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(net.max_steps):
                own = None if xi is None else xi[moving]
                net_inputs = np.matmul(y[moving], W[moving])
                goal = self.transmitted(0, net_inputs, external[moving], own)
                # relative to the largest activity or, at first, to what is driven at
                size = np.abs(y[moving] if step else goal).max((-2, -1))
                scale[moving] = np.where(size > 0, size, scale[moving])
                change = goal - y[moving]
                residual[moving] = np.abs(change).max((-2, -1)) / scale[moving]
                # points that have settled leave: each is what it would be by itself
                going = residual[moving] > net.tolerance
                if not np.isfinite(residual).all() or not going.any():
                    break
                moving = moving[going]
                change = change[going]
                # y += step (f(x) + I - y)
                y[moving] += net.step * change
        if not (residual <= net.tolerance).all():
            worst = float(residual.max())
            raise NotSettled(
                f"neurons with the imperfections of [chip.neuron] have not settled after {step + 1}"
                f" steps of {net.step}: residual {worst:.2g} (tolerance {net.tolerance:g}): use"
                " smaller weights, less crosstalk, or more steps"
            )
        return y[..., net.outputs]


def neighbour_sum(x: Array) -> Array:
    """The sum of both neighbours along the last axis; the first and the last have one."""
    near = np.zeros_like(x)
    near[..., 1:] += x[..., :-1]
    near[..., :-1] += x[..., 1:]
    return near
