"""The experiment file to start from, written from the tables of settings."""

from collections.abc import Mapping
from typing import Any

from hardware.templates import template
from sims.data.datasets import DATASETS
from sims.experiment.experiment import Experiment
from sims.experiment.network import KINDS
from sims.experiment.schema import Direction, Estimation, Run, Weights

HEAD = """\
# An experiment for perturb: run it with `perturb run THIS_FILE`, change one key with `--set
# estimation.sigma=0.02`. A key that is left out, or stands behind a #, takes the value shown, or
# what is said after "absent": then the value shown is an example. name, network.layers and
# data.name must be there. Keys of [chip] override those of its preset.

"""
SHORT = """\
# {what}, as `perturb new` proposes it. Any value may be changed, here or by `--set KEY=VALUE`.
# Paths are relative to this file. All keys that there are: `perturb new all.toml`.

"""
PRESET = "a name from `perturb list chips`, or the path of a chip file, relative to this file"
GIVEN: dict[str, Any] = {
    "name": "starter",
    "description": "exclusive or on a 2-2-1 network, a small one to start from",
    "study": "compare",
    "network": {
        "kind": "mlp",
        "layers": [2, 2, 1],
        "activation": "tanh",
        "output": "logistic",
        "error": "squared_error",
    },
    "data": {"name": "xor", "seed": 0},
    "weights": Weights().model_dump(exclude_none=True),
    "direction": {**Direction().model_dump(exclude_none=True), "norm": 1.0},
    "estimation": {
        **Estimation().model_dump(),
        "trials": 256,
        "compare_with": [{"method": "pearlmutter", "code": "gaussian", "sigma": 0.01, "r": 0.01}],
    },
    "chip": {"preset": "ideal"},
    "run": Run().model_dump(),
}


def starter() -> str:
    """The text of a commented experiment file to start from."""
    # the first kind that has a default says what is shown of a key
    shown: dict[str, Any] = {}
    takers: dict[str, list[str]] = {}
    tables: dict[str, dict[str, Any]] = {"network": KINDS, "data": DATASETS}
    for table, kinds in tables.items():
        for kind, entry in kinds.items():
            for name, default in entry.keys.items():
                takers.setdefault(f"{table}.{name}", []).append(kind)
                # only real defaults are shown; of the others an example
                if default not in (None, ..., {}):
                    shown.setdefault(f"{table}.{name}", default)
    # what every kind takes needs no note
    notes = {
        key: f"of {', '.join(kinds)}"
        for key, kinds in takers.items()
        if key not in ("data.samples", "network.error")
    }
    notes["data.samples"] = f"{', '.join(takers['data.samples'])} need it"
    notes["chip.preset"] = PRESET
    return HEAD + "\n".join(template(Experiment, GIVEN, shown, notes)) + "\n"


def short(what: str, given: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """The text of an experiment file with the keys that are given, and a note on some of them."""
    notes = {"chip.preset": PRESET, **notes}
    lines = template(Experiment, given, notes=notes, every=False)
    return SHORT.format(what=what) + "\n".join(lines) + "\n"
