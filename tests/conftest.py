import math
import os
import sys
from pathlib import Path

# before Numba is imported: what one process has compiled, here and in those that tests start, no
# other compiles again
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "numba"))

import numpy as np
import pytest
from sweeping import VARY, made_up

import sims
from perturb import MLP
from sims import cli, terminal
from sims.sweeps import cell as cells


class Quadratic:
    """E = g.w + w'Hw/2, exactly: where theory has no higher derivatives to neglect."""

    def __init__(self, n, seed=0):
        rng = np.random.default_rng(seed)
        A = rng.standard_normal((n, n))
        self.H, self.g, self.v = (
            (A + A.T) / 2 + np.eye(n),
            rng.standard_normal(n),
            rng.standard_normal(n),
        )
        self.z = self.H @ self.v

    def __call__(self, w):
        return self.g @ w + w @ self.H @ w / 2


@pytest.fixture
def small():
    """A 3-4-2 tanh network with softmax cross-entropy on 5 patterns: (objective, w, v)."""
    rng = np.random.default_rng(1)
    net = MLP([3, 4, 2], error="cross_entropy")
    objective = net.objective(rng.standard_normal((5, 3)), rng.integers(0, 2, 5))
    return objective, net.init(0), rng.standard_normal(net.n_weights)


def _linear(layers, patterns):
    rng = np.random.default_rng(2)
    net = MLP(layers)
    objective = net.objective(
        rng.standard_normal((patterns, layers[0])), rng.standard_normal((patterns, layers[1]))
    )
    return objective, net.init(3), rng.standard_normal(net.n_weights)


@pytest.fixture
def linear():
    """A linear 3-2 network with squared error, exactly quadratic: (objective, w, v)."""
    return _linear([3, 2], 6)


@pytest.fixture
def linear24():
    """The same, of 24 weights, where what is leading in n is good to some per cent."""
    return _linear([5, 4], 12)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """command("run", "xor") -> (status, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # on a busy machine any run may take that long: what it says must not depend on it
    monkeypatch.setattr(terminal, "EVERY_S", math.inf)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["perturb", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def quick(monkeypatch):
    """Cells that take no time."""
    monkeypatch.setattr(cells, "run_cell", made_up)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep of real cells: (directory, frame)."""
    directory = tmp_path_factory.mktemp("sweeps") / "whole"
    return directory, sims.run_sweep("xor", VARY, 2, directory, workers=0)
