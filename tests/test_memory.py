"""Memory of networks with a million weights: a number of vectors of n, however many trials,
updates or products there are.
"""

import subprocess
import sys
from pathlib import Path

import pytest

STATM = Path("/proc/self/statm")  # what a process has now, in pages

PROGRAM = """
import resource
import numpy as np
import perturb
from perturb.training import Batch, Exact, Plan, begin

LAYERS = ["conv2d 8 3 padding=1", "relu", "maxpool 2", "flatten", "linear 7000", "relu"]
net = perturb.Layers([1, 8, 8], [*LAYERS, "linear 10"], "cross_entropy")
rng = np.random.default_rng(0)
objective = net.objective(rng.random((4, 64)), rng.integers(0, 10, 4))
n, w = net.n_weights, net.init(0)
v = rng.standard_normal(n)
objective.error(w)
with open("/proc/self/statm") as pages:
    before = int(pages.read().split()[1]) * resource.getpagesize()
{work}
# not ru_maxrss, which begins with what the parent held
with open("/proc/self/status") as status:
    peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(n, (peak - before) / (8 * n))
"""
TRAIN = """
plan = Plan(code="rademacher", eta=1e-3)
state = begin(w[None].copy(), plan)
{source}(objective, plan).advance(state, {updates})
"""
# what is done, and below how many vectors of n numbers (measured, at two threads: 11, 13, 68, 54,
# 20, 19, 81): an array of all trials, updates or probes at once would be more
WORK = {
    "gradient": ("objective.gradient(w)", 25),
    "Hv": ("objective.hvp(w, v)", 30),
    "trials": ("perturb.estimate(objective, w, v, trials=128)", 120),
    "trials in float32": (
        "perturb.estimate(objective, w, v, trials=128, code='rademacher', precision='float32')",
        120,
    ),
    "learning": (TRAIN.format(source="Batch", updates=64), 50),
    "exact learning": (TRAIN.format(source="Exact", updates=64), 50),
    "prediction": ("perturb.predict(objective, w, v)", 150),
}


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="this system does not tell what a process holds")
@pytest.mark.parametrize("name", WORK)
def test_a_million_weights_take_memory_linear_in_them(name):
    work, most = WORK[name]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{work}", work)],
        capture_output=True,
        text=True,
        timeout=600,
        env={"NUMBA_NUM_THREADS": "2", "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    n, vectors = done.stdout.split()
    assert int(n) > 950_000
    # at least the answer itself
    assert 1 < float(vectors) < most
