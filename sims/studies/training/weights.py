"""The weights that a training ends with."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from hardware.training import held_weights
from perturb.networks.mlp import MLP
from perturb.networks.network import Network
from perturb.training.loop import Source
from perturb.training.plan import State
from sims.problem import Array
from sims.studies.training.sharing import Shared


class Ended(NamedTuple):
    """Weights at a record, (R, n): learned, and as the devices hold them, with the number of the
    level of each.
    """

    w: Array
    stored: Array
    level: Array

    @classmethod
    def of(cls, source: Source, state: State, w: Array) -> "Ended":
        # a copy: the state changes in place
        held = source.held(state) if isinstance(source, Shared) else held_weights(source, state)
        return cls(w.copy(), *held)


def layers_of(network: Network) -> Array:
    """The layer (n,) that each weight feeds, from 1; 0 of a network that is no MLP."""
    _, unit_to = network.weight_units()
    if not isinstance(network, MLP):
        return np.zeros(unit_to.size, dtype=np.int64)
    # units are numbered layer by layer
    return np.searchsorted(np.cumsum(network.layers), unit_to, side="right")


def weights_table(name: str, ended: Ended, network: Network) -> pd.DataFrame:
    """A row per run and weight of one source."""
    R, n = ended.w.shape
    unit_from, unit_to = network.weight_units()
    each = {
        "index": np.arange(n),
        "layer": layers_of(network),
        "unit_from": unit_from,
        "unit_to": unit_to,
    }
    # 32 bits hold every such number, and large tables take half the memory
    small = np.int32
    return pd.DataFrame(
        {
            "source": name,
            "run": np.repeat(np.arange(R, dtype=small), n),
            **{column: np.tile(values.astype(small), R) for column, values in each.items()},
            "w_exact": ended.w.ravel(),
            "w_stored": ended.stored.ravel(),
            "level": ended.level.ravel().astype(small),
        }
    )
