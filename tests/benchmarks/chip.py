"""Rate of event-level trials, every number in its event.

    python tests/benchmarks/chip.py

A row per chip: synapses, tiles, trials a second and events a trial. Wanted are 400 trials a second
of 1,000 tiles of one synapse, where the calls of each tile bound the rate, and 4,000 of 10^4
synapses in ten tiles, where drawing and summing so many perturbations does.

Best of the repeats, on the process's own clock.
"""

import time

import numpy as np

from hardware import Chip, load_chip
from perturb import MLP


def rate(layers, per_tile, trials, repeats=7):
    rng = np.random.default_rng(0)
    net = MLP(layers, "tanh", "logistic")
    objective = net.objective(rng.standard_normal((1, layers[0])), rng.random((1, layers[-1])))
    w, v = net.init(0), rng.standard_normal(net.n_weights)
    params = load_chip("ideal").model_copy(update={"synapses_per_tile": per_tile})
    rates = []
    for _ in range(repeats):
        chip = Chip(
            params, objective, w, v, "covariance", "rademacher", fidelity="event", trace_trials=0
        )
        chip.run(3)
        before, start = chip.events, time.process_time()
        chip.run(trials)
        rates.append(trials / (time.process_time() - start))
        events = (chip.events - before) / trials
    print(
        f"{w.size:>7} synapses in {len(chip.live.tiles):>5} tiles: {max(rates):>8,.0f} trials/s,"
        f" {events:.1f} events a trial"
    )


for layers, per_tile, trials in (
    ([2, 2, 1], 1, 1000),
    ([30, 32], 1, 100),
    ([30, 32], 256, 1000),
    ([100, 98, 1], 1000, 500),
    ([100, 98, 1], 10_000, 500),
    ([300, 332], 10_000, 50),
):
    rate(layers, per_tile, trials)
