"""The kinds of network: where the class of each is, and what must be known of it before one is
made. `perturb` and experiment files have every kind from here.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of network: its class, `name` of `perturb.module`, which is loaded when it is needed.
    n_weights: about how many weights these arguments of the class ask for, so that too many can be
    refused before memory is taken. needed: arguments that have a default, and that an experiment
    file states all the same. states: whether it learns a distribution of states, rather than
    outputs for inputs.
    """

    module: str
    name: str
    n_weights: Callable[..., int]
    needed: tuple[str, ...] = ()
    states: bool = False


KINDS = {
    "mlp": Kind(
        "networks.mlp",
        "MLP",
        lambda layers, **_: sum((a + 1) * b for a, b in pairwise(layers)),
    ),
    "dag": Kind("networks.dag", "DAG", lambda edges, **_: len(edges)),
    "layers": Kind(
        "networks.layers.network",
        "Layers",
        # a text does not say how many weights it has before it knows its input
        lambda input_shape, layers, **_: 0,
    ),
    "recurrent": Kind(
        "networks.recurrent",
        "Recurrent",
        lambda n_units, **_: n_units**2,
        needed=("inputs",),
    ),
    "boltzmann": Kind(
        "networks.boltzmann",
        "Boltzmann",
        lambda n_visible, n_hidden, **_: (n_visible + n_hidden) ** 2 // 2,
        needed=("n_hidden",),
        states=True,
    ),
}
