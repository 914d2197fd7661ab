"""Runs of learning that are shared out among processes: the same numbers, wherever they are."""

import multiprocessing
import time

import numpy as np
import pytest

from perturb.training.loop import begin
from sims.experiment.loading import load_experiment
from sims.problem import prepare
from sims.studies.training.sharing import Helpers, Shared, shared
from sims.studies.training.task import plan_of

RUNS = 5
CHIPS = {
    "devices": {"chip.weights.bits": 6, "training.rule": "momentum"},
    "leak": {"chip.weights.leak_tau_s": 0.1},
    "events": {"chip.weights.leak_tau_s": 0.1, "training.source": "event"},
    # stuck weights, of which not every die has one, and displacements along v
    "stuck": {
        "chip.weights.stuck_fraction": 0.05,
        "estimation.method": "difference",
        "training.rule": "newton-cg",
    },
    # of which a product with a matrix rounds by how many runs there are
    "four phases": {
        "estimation.method": "difference",
        "training.rule": "diagonal",
        "estimation.sigma": 1e-3,
        "chip.error_unit.noise": 1e-4,
    },
    "no kernel": {"estimation.sigma": 1e-4, "chip.error_unit.noise": 1e-4},
}


def learned(chip, count, kill=False):
    """The state, and what devices hold, after 3 + 4 updates with so many helpers from the third
    on; kill: one of them dies before the last four.
    """
    experiment = load_experiment("xor-learning", CHIPS[chip])
    problem = prepare(experiment)
    plan = plan_of(experiment)
    W = np.array([problem.network.init(seed) for seed in range(RUNS)])
    with Helpers(count, after_s=0.0) as helpers:
        made = shared(experiment, problem.objective, plan, W, helpers)
        assert isinstance(made, Shared)
        state = begin(W, plan)
        made.advance(state, 2)
        while count and not helpers.ready(1.0):
            time.sleep(0.01)
        made.advance(state, 1)
        assert made.is_shared == bool(count)
        if kill:
            multiprocessing.active_children()[0].kill()
        made.advance(state, 4)
        assert made.is_shared == (bool(count) and not kill)
        return state, made.held(state)


@pytest.mark.parametrize(
    "chip, count, kill",
    [
        ("leak", 1, True),
        *[
            pytest.param(chip, count, False, marks=pytest.mark.slow)
            for chip in CHIPS
            for count in (1, 2, 7)
        ],
    ],
)
def test_runs_that_are_shared_out_learn_the_same_to_the_bit(chip, count, kill):
    alone, held = learned(chip, 0)
    other, held_too = learned(chip, count, kill)
    one, two = alone.arrays(), other.arrays()
    assert one.keys() == two.keys() and (alone.w != 0).any()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], name)
    for mine, theirs in zip(held, held_too, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not multiprocessing.active_children()


def test_runs_that_a_kernel_takes_are_not_shared_out():
    experiment = load_experiment("xor-learning", {"chip.error_unit.noise": 1e-3})
    problem = prepare(experiment)
    plan = plan_of(experiment)
    helpers = Helpers(1)
    W = np.array([problem.w, problem.w])
    assert not isinstance(shared(experiment, problem.objective, plan, W, helpers), Shared)
    # and one run alone has nothing to share
    leaky = load_experiment("xor-learning", CHIPS["leak"])
    assert not isinstance(shared(leaky, problem.objective, plan, W[:1], helpers), Shared)
    assert not helpers.ready(learned_s=0.5)
