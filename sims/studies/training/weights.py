"""The weights that a training ends with."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from hardware.training import held_weights
from perturb.networks.network import Network
from perturb.training.loop import Source
from perturb.training.plan import State
from sims.problem import Array
from sims.studies.training.sharing import Shared
from sims.studies.training.trainable import Trainable


class Ended(NamedTuple):
    """All weights at a record, (R, n): learned, and as the devices hold them, with the number of
    the level of each.
    """

    w: Array
    stored: Array
    level: Array

    @classmethod
    def of(cls, source: Source, state: State, w: Array, trainable: Trainable) -> "Ended":
        """Of weights w (R, m) that are trained."""
        held, level = (
            source.held(state) if isinstance(source, Shared) else held_weights(source, state)
        )
        # a copy: the state changes in place
        return cls(trainable.whole(w).copy(), trainable.whole(held), trainable.levels(level))


def weights_table(name: str, ended: Ended, network: Network) -> pd.DataFrame:
    """A row per run and weight of one source."""
    R, n = ended.w.shape
    unit_from, unit_to = network.weight_units()
    each = {
        "index": np.arange(n),
        "layer": network.weight_layers(),
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
