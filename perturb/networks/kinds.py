"""The kinds of network: where the class of each is, and what must be known of it before one is
made. `perturb` and experiment files have every kind from here.
"""

from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple


def _made(kind: str, **arguments: Any) -> Any:
    """A network of a kind whose size its arguments do not tell, and which is nothing but shapes."""
    of = KINDS[kind]
    # late, for start-up time
    return getattr(import_module(f"perturb.{of.module}"), of.name)(**arguments)


class Kind(NamedTuple):
    """A kind of network: its class, `name` of `perturb.module`, which is loaded when it is needed.
    n_weights: about how many weights these arguments of the class ask for, so that too many can be
    refused before memory is taken. needed: arguments that have a default, and that an experiment
    file states all the same. states: whether it learns a distribution of states, rather than
    outputs for inputs. starts: whether it has weights to start from, its attribute `w` (n,).
    """

    module: str
    name: str
    n_weights: Callable[..., int]
    needed: tuple[str, ...] = ()
    states: bool = False
    starts: bool = False


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
        lambda **arguments: _made("layers", **arguments).n_weights,
    ),
    "onnx": Kind(
        "networks.onnx.network",
        "OnnxLayers",
        lambda **arguments: _made("onnx", **arguments).n_weights,
        starts=True,
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
