"""Learning on thirty dies side by side against one run alone, interleaved: digits, 64-32-10, and
exclusive or, 2-2-1, on chips that the compiled kernels know, that store weights in devices, and
that have imperfections of their neurons.

    python tests/benchmarks/dies.py

Prints updates of all runs a second of the processor's time, of one run and of thirty, and the
ratio: 1 means that thirty runs on as many cores take thirty times as long as one, over the cores.
It is met on several cores by chips of the kernels alone, whose runs are shared out among threads;
"cores": how many were used.
"""

import time

import numpy as np

from hardware.training import source
from perturb.training.loop import begin
from sims.experiment.loading import load_experiment
from sims.problem import prepare, warmed_up
from sims.studies.training.task import plan_of, task_of

DIES, SECONDS, REPEATS = 30, 0.5, 5
CHIPS = {
    "kernels": {"chip.perturbation.gain_mismatch": 0.1, "chip.error_unit.noise": 1e-3},
    "devices": {"chip.weights.device": "ecram-tang2018"},
    "neurons": {"chip.neuron.offset_mismatch": 0.1},
}


def learning(experiment, dies):
    """A function that learns for a while: (updates of all runs, time, the processor's time)."""
    problem = prepare(experiment)
    objective = task_of(experiment, problem).objective
    plan = plan_of(experiment)
    start = warmed_up(problem.network, objective, experiment)
    W = np.tile(start, (len(dies), 1))
    made = source(experiment.made_chip(), objective, plan, W, dies=dies)
    state = begin(W, plan)
    made.advance(state, 2)
    piece = 1

    def learn():
        nonlocal piece
        while True:
            begun, used = time.perf_counter(), time.process_time()
            made.advance(state, piece)
            took, used = time.perf_counter() - begun, time.process_time() - used
            if took >= SECONDS:
                return len(dies) * piece, took, used
            piece *= 2

    return learn


for name in ("digits-learning", "xor-learning"):
    for called, chip in CHIPS.items():
        experiment = load_experiment(name, chip)
        one, many = (learning(experiment, list(range(n))) for n in (1, DIES))
        found = np.array([[one(), many()] for _ in range(REPEATS)])
        rates = np.median(found[..., 0] / found[..., 2], 0)
        cores = np.median(found[:, 1, 2] / found[:, 1, 1])
        print(
            f"{name:16} {called:8} one {rates[0]:9,.0f}/s  thirty {rates[1]:9,.0f}/s  ratio"
            f" {rates[1] / rates[0]:.2f}  cores {cores:.2f}"
        )
