"""Trials a second of networks that are not layered: `estimate` against a plain Python loop,
interleaved in one run.

    python tests/benchmarks/networks.py [beginning of a case's name ...]

The loop calls `objective.error` at w + dw of one trial after another. It draws all perturbations at
once, measures E(w) a single time, and makes all sums of a block of trials with NumPy, so that
hardly anything but the calls counts. Prints medians of ratios.
"""

import sys
import time

import numpy as np

from perturb import DAG, Boltzmann, Recurrent, estimate

SIGMA, REPEATS, LOOP = 1e-2, 9, 256


def cases():
    """Names, networks and objectives, and the trials of a measurement."""
    rng = np.random.default_rng(0)

    def relaxing(n, S, solver):
        net = Recurrent(n, [0, 1], solver=solver)
        return net, net.objective(0.5 * rng.standard_normal((S, n)), rng.random((S, 2)))

    machine = Boltzmann(4, 4)
    yield "boltzmann 4+4, S = 10", machine, machine.objective(rng.integers(0, 2, (10, 4))), 100_000
    edges = [(i, 8 + j) for i in range(8) for j in range(10)] + [
        (8 + i, 18 + j) for i in range(10) for j in range(3)
    ]
    graph = DAG(21, edges, range(8), range(18, 21))
    yield (
        "dag of 110 edges, S = 16",
        graph,
        graph.objective(rng.standard_normal((16, 8)), rng.random((16, 3))),
        100_000,
    )
    for n, S, trials in ((6, 4, 50_000), (20, 32, 20_000)):
        for solver in ("direct", "relax"):
            yield f"recurrent, {n} units, {solver}, S = {S}", *relaxing(n, S, solver), trials


def loop(objective, w, v, seed):
    rng, n, V = np.random.default_rng(seed), w.size, v @ v
    D = SIGMA * (2.0 * rng.integers(0, 2, (LOOP, n)) - 1.0)
    at_w, y = objective.error(w), np.empty(LOOP)
    for trial in range(LOOP):
        y[trial] = objective.error(w + D[trial]) - at_w
    s = D @ v
    q, yy, sy = s[:, None] * D / (V * SIGMA**2), y * y, s * y
    rows = [a.sum(0) for a in (D, q, D * D, D * q, q * q)]
    rows += [
        y @ D,
        y @ q,
        y @ (D * D),
        yy @ D,
        y @ (q * q),
        yy @ q,
        yy @ (D * D),
        yy @ (D * q),
        yy @ (q * q),
    ]
    return rows, [
        y.sum(),
        yy.sum(),
        s @ s,
        s @ sy,
        (s * s) @ yy,
        (s**4).sum(),
        (s**3) @ sy,
        sy @ sy,
    ]


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def measure(case, network, objective, trials):
    w, v = network.init(0), np.random.default_rng(1).standard_normal(network.n_weights)
    ratios, rates = [], []
    for seed in range(REPEATS + 1):  # the first compiles
        slow = clock(lambda seed=seed: loop(objective, w, v, seed)) / LOOP
        ours = (
            clock(
                lambda seed=seed: estimate(
                    objective, w, v, trials, "covariance", "rademacher", SIGMA, seed=seed
                )
            )
            / trials
        )
        ratios.append(slow / ours)
        rates.append(1 / ours)
    print(
        f"{case}: {np.median(rates[1:]):,.0f} trials/s; loop / ours {np.median(ratios[1:]):.0f}",
        flush=True,
    )


for case in cases():
    if len(sys.argv) < 2 or any(case[0].startswith(part) for part in sys.argv[1:]):
        measure(*case)
