"""What was set differently in results that are set side by side."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from perturb.errors import cut
from perturb.settings import flat
from reports.columns import Table, named
from reports.frames import Frames


def differing(results: Sequence[Frames], names: Sequence[str]) -> pd.DataFrame:
    """The keys of these experiments that differ, and versions: a column for each of them."""
    every = [flat({"experiment": of.experiment, "versions": versions(of)}) for of in results]
    rows = []
    # the sweeps say it
    varied = {f"experiment.{key}" for of in results for key in of.provenance.get("varied", ())}
    for key in dict.fromkeys(key for of in every for key in of):
        if key in varied:
            continue
        values = [
            "-" if of.get(key) in (None, []) else json.dumps(of[key], default=str) for of in every
        ]
        # as JSON: 1 and 1.0 are different settings, and so they look
        if len(set(values)) > 1:
            called = key.removeprefix("experiment.").removeprefix("versions.")
            rows.append((called, *(cut(value, 40) for value in values)))
    return pd.DataFrame(rows, columns=["key", *names])


def settings_table(differ: pd.DataFrame) -> Table:
    """What `differing` has found."""
    note = "keys of the experiments, and versions"
    names = {name: named(name) for name in map(str, differ)}
    return Table("What was set differently", note, differ, names)


def versions(frames: Frames) -> dict[str, Any]:
    """Of the programs that made a result; and what a sweep varies."""
    sweep = frames.provenance.get("sweep", {})
    varied = {"sweep": {key: sweep[key] for key in ("vary", "zip", "repeats") if key in sweep}}
    return {
        "perturb": frames.provenance.get("perturb"),
        **frames.provenance.get("packages", {}),
        **varied,
    }
