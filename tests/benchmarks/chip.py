"""Rate of event-level trials, against what bare SimPy allows for the same number of events in the same run.

    python tests/benchmarks/chip.py

A row per chip: synapses, tiles, trials a second, events a trial, and the share of bare SimPy's rate.
"""

import time

import numpy as np
import simpy

from hardware import Chip, load_chip
from perturb import MLP


def rate(layers, per_tile, trials, repeats=5):
    rng = np.random.default_rng(0)
    net = MLP(layers, "tanh", "logistic")
    objective = net.objective(rng.standard_normal((1, layers[0])), rng.random((1, layers[-1])))
    w, v = net.init(0), rng.standard_normal(net.n_weights)
    params = load_chip("ideal").model_copy(update={"synapses_per_tile": per_tile})
    rates, shares = [], []
    for _ in range(repeats):
        chip = Chip(params, objective, w, v, "covariance", "rademacher", fidelity="event", trace_trials=0)
        chip.run(3)
        before, start = chip.events, time.perf_counter()
        chip.run(trials)
        took, events = time.perf_counter() - start, (chip.events - before) / trials
        rates.append(trials / took)
        shares.append(trials / took / bare(len(chip.tiles), events, trials))
    tiles = -(-w.size // per_tile)
    print(
        f"{w.size:>7} synapses in {tiles:>5} tiles: {np.median(rates):>8,.0f} trials/s, {events:.1f} events a trial, "
        f"{np.median(shares):.0%} of bare SimPy"
    )


def bare(processes, events, trials):
    """Trials a second of SimPy alone: a controller with as many time-outs, processes that wait for two shared events a trial."""
    env = simpy.Environment()
    shared = [env.event()]

    def controller():
        for _ in range(trials):
            for _ in range(2):
                event, shared[0] = shared[0], env.event()
                event.succeed()
                for _ in range(round(events / 2) - 1):
                    yield env.timeout(1)

    def process():
        while True:
            yield shared[0]

    for _ in range(processes):
        env.process(process())
    done = env.process(controller())
    start = time.perf_counter()
    env.run(until=done)
    return trials / (time.perf_counter() - start)


for layers, per_tile, trials in (
    ([2, 2, 1], 1, 1000), ([30, 32], 1, 100), ([30, 32], 256, 1000), ([100, 98, 1], 1000, 1000), ([100, 98, 1], 10_000, 1000),
    ([300, 332], 10_000, 100),
):  # fmt: skip
    rate(layers, per_tile, trials)
