"""weights.npz: the weights that a training ended with, as arrays of NumPy."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FILE = "weights.npz"
# columns of the table: of what learned, which become (rows,); of a weight there, (rows, n); and of
# a weight of every network alike, (n,)
ROWS = ("source", "run")
VALUES = ("w_exact", "w_stored", "level")
WEIGHTS = ("layer", "unit_from", "unit_to")


def has_weights(table: "pd.DataFrame") -> bool:
    """Whether a table is of weights that were learned."""
    return set(VALUES) <= set(table.columns) and len(table) > 0


def as_npz(table: "pd.DataFrame") -> bytes:
    """The file of a table of weights, in which those of a source and run stand together, in their
    own order.
    """
    n = int(table["index"].max()) + 1
    first = table.iloc[::n]
    # texts as texts of NumPy: no pickle is written
    arrays: dict[str, Any] = {"source": first["source"].to_numpy(str), "run": first["run"]}
    arrays |= {name: table[name].to_numpy().reshape(-1, n) for name in VALUES}
    arrays |= {name: table[name].to_numpy()[:n] for name in WEIGHTS}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()
