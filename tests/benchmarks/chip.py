"""Rate of event-level trials, and its share of what bare SimPy allows for the same number of
events.

    python tests/benchmarks/chip.py

A row per chip: synapses, tiles, trials a second, events a trial, and the share of bare SimPy's
rate. The share is what counts where events are most of the work, a process for every synapse: it
should be half or more. Tiles have few events for many synapses, and what bounds the rate there is
the arithmetic, to draw and to sum so many perturbations: of 10,000 synapses the rate counts, which
should be 3,000 trials a second or more.

Medians of repeats on the process's own clock, each beside one of bare SimPy that keeps the
collector of cycles at bay as a chip does: else SimPy itself is three times slower with a thousand
processes.
"""

import gc
import time

import numpy as np
import simpy

from hardware import Chip, load_chip
from perturb import MLP


def rate(layers, per_tile, trials, repeats=15):
    rng = np.random.default_rng(0)
    net = MLP(layers, "tanh", "logistic")
    objective = net.objective(rng.standard_normal((1, layers[0])), rng.random((1, layers[-1])))
    w, v = net.init(0), rng.standard_normal(net.n_weights)
    params = load_chip("ideal").model_copy(update={"synapses_per_tile": per_tile})
    rates, shares = [], []
    for _ in range(repeats):
        chip = Chip(
            params, objective, w, v, "covariance", "rademacher", fidelity="event", trace_trials=0
        )
        chip.run(3)
        before, start = chip.events, time.process_time()
        chip.run(trials)
        took, events = time.process_time() - start, (chip.events - before) / trials
        rates.append(trials / took)
        shares.append(trials / took / bare(len(chip.tiles), round(events), trials))
    print(
        f"{w.size:>7} synapses in {len(chip.tiles):>5} tiles: {np.median(rates):>8,.0f} trials/s,"
        f" {events:.1f} events a trial, {np.median(shares):.0%} of bare SimPy"
    )


def bare(processes, events, trials):
    """Trials a second of SimPy alone: two events a trial that all processes wait for; the others
    are a controller's time-outs.
    """
    env = simpy.Environment()
    shared = [env.event()]

    def controller():
        for _ in range(trials):
            for half in (events // 2 - 1, (events + 1) // 2 - 1):
                event, shared[0] = shared[0], env.event()
                event.succeed()
                for _ in range(half):
                    yield env.timeout(1)

    def process():
        while True:
            yield shared[0]

    for _ in range(processes):
        env.process(process())
    done = env.process(controller())
    thresholds = gc.get_threshold()
    gc.set_threshold(thresholds[0] + 10 * processes)  # as a chip does
    start = time.process_time()
    env.run(until=done)
    took = time.process_time() - start
    gc.set_threshold(*thresholds)
    return trials / took


for layers, per_tile, trials in (
    ([2, 2, 1], 1, 1000),
    ([30, 32], 1, 100),
    ([30, 32], 256, 1000),
    ([100, 98, 1], 1000, 500),
    ([100, 98, 1], 10_000, 500),
    ([300, 332], 10_000, 50),
):
    rate(layers, per_tile, trials)
