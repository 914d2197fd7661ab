"""Chips that learn exclusive or, for tests."""

import numpy as np

from hardware.on_chip import on_chip
from perturb import MLP
from perturb.training.loop import begin
from sims.experiment.loading import load_experiment

DEVICE = {
    "model": "soft-bounds",
    "range": 4.0,
    "step": {"dw_min": 0.002, "dw_min_dtod": 0.2, "up_down_dtod": 0.1, "c2c": 0.3},
    "noise": {"write": 0.001},
    "leak": {"lifetime_s": 0.1},
    "flicker": {"q": 0.001},
}


def exclusive_or():
    """The objective, and two starts."""
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    net = MLP([2, 2, 1], output="logistic")
    return net.objective(x, (x[:, :1] != x[:, 1:]).astype(float)), np.array(
        [net.init(seed) for seed in range(2)]
    )


def params(changes):
    return load_experiment("xor", {f"chip.{key}": value for key, value in changes.items()}).chip


def learned(task, changes, plan, updates, events, waits=True, pieces=1):
    """The state after so many updates, and the chip."""
    objective, W = task
    state, chip = begin(W, plan), on_chip(params(changes), objective, plan, W, events, waits)
    for _ in range(pieces):
        chip.advance(state, updates // pieces)
    return state, chip
