"""An emulated chip as an instrument, driven from outside."""

import itertools

import numpy as np
import pytest
from chips import exclusive_or, params
from fast import thinned
from test_asktell import UPDATES, assert_same, grid

import perturb
from hardware import Bench, Chip
from hardware.training import source
from perturb.training import AskTell, Batch, Plan, begin, train
from perturb.trial.readout import Reading

READ = {"error_unit.noise": 1e-3, "error_unit.bits": 10, "error_unit.range": 2.0}
DRIVERS = {"perturbation.gain_mismatch": 0.1, "perturbation.offset_mismatch": 1e-3}
READING = Reading(1e-3, 10, 2.0)


def learned(chip, objective, plan, w, updates=UPDATES):
    """By the chip itself, with what it is made of."""
    of = source(chip, objective, plan, w[None])
    return of, list(train(of, begin(w, plan), updates, every=updates))[-1]


def driven(chip, objective, plan, w, updates=UPDATES):
    bench = Bench(chip, objective, w, plan.method, plan.code, plan.seed)
    loop = AskTell(w, plan, n_patterns=objective.n_patterns)
    while loop.updates < updates:
        for e in loop.ask():
            assert loop.tell(e.id, bench.answer(e))
    return bench, loop


@pytest.fixture(scope="module")
def graph():
    objective, _ = exclusive_or()
    net = perturb.DAG(
        5, [(0, 2), (1, 2), (0, 3), (1, 3), (2, 4), (3, 4), (0, 4)], inputs=[0, 1], outputs=[4]
    )
    return net.objective(objective.x, objective.target), net.init(2)


@pytest.mark.parametrize("rule, method, code", thinned(grid(), 37))
def test_driven_from_outside_a_chip_learns_the_bits_of_train(graph, rule, method, code):
    objective, w = graph
    K = 1 if rule == "keep-if-better" else 2
    plan = Plan(
        rule=rule, method=method, code=code, trials_per_update=K, reading=READING, seed=5, sigma=0.1
    )
    chip = params(READ | DRIVERS)
    of, state = learned(chip, objective, plan, w)
    assert type(of) is Batch
    assert_same(driven(chip, objective, plan, w)[1].state, state)


IMPERFECT = {
    "settling": {"perturbation.settle_ns": 50, "perturbation.tau_ns": 40},
    "converter and crosstalk": {"perturbation.bits": 6, "perturbation.crosstalk": 0.05},
    "error unit": {"error_unit.flicker": 1e-3, "error_unit.offset": 0.02},
    "neurons": {"neuron.gain_mismatch": 0.1, "neuron.offset_mismatch": 0.05, "neuron.noise": 1e-3},
    "cells that read badly": {"weights.read_noise": 1e-3, "weights.stuck_fraction": 0.2},
    "digital cells": {"weights.bits": 8, "weights.rounding": "stochastic"},
    "a device": {"weights.device": "reram-soft-bounds"},
}


@pytest.mark.parametrize("name", IMPERFECT)
def test_what_is_wrong_with_a_chip_is_wrong_from_outside(name):
    objective, (w, _) = exclusive_or()
    plan = Plan(trials_per_update=3, sigma=0.1, seed=3, eta=0.3)
    chip, ideal = params(IMPERFECT[name]), params({})
    of, state = learned(chip, objective, plan, w, 10)
    bench, loop = driven(chip, objective, plan, w, 10)
    bench.set(loop.w)  # of the last update
    held = bench.held()
    np.testing.assert_allclose(held, state.w[0], rtol=0, atol=1e-9)
    assert np.abs(held - learned(ideal, objective, plan, w, 10)[1].w[0]).max() > 1e-5
    assert bench.evaluations == loop.state.evaluations == 60 and bench.now_ns > 0


def test_a_synapse_that_does_not_work_is_not_perturbed():
    objective, (w, _) = exclusive_or()
    bench = Bench(params({"weights.dead_fraction": 0.4}), objective, w, "central", seed=1)
    dead = ~bench.parts.health.working(0)
    assert 0 < dead.sum() < w.size
    for e in AskTell(w, Plan(seed=1, sigma=0.1)).ask():
        at = np.where(dead, w, e.weights)
        assert bench.answer(e) == pytest.approx(objective.error(at), rel=1e-12)
        # what is displaced from outside is displaced by the same drivers
        E = bench.measure(1, 0, 0, e.weights - w)
        assert E == pytest.approx(objective.error(at), rel=1e-12)


def test_an_estimate_from_outside_is_that_of_the_chip():
    objective, (w, _) = exclusive_or()
    v, chip = np.linspace(-1, 1, w.size), params(DRIVERS | {"error_unit.noise": 1e-3})
    options = {"sigma": 0.1, "r": 0.1, "seed": 4}
    for method, code in itertools.product(("difference", "antithetic"), ("walsh", "gaussian")):
        bench = Bench(chip, objective, w, method, code)
        asking = perturb.AskEstimate(w, v, 40, method, code, **options)
        for e in asking.ask():
            asking.tell(e.id, bench.answer(e))
        found = asking.estimate()
        wanted = Chip(chip, objective, w, v, method, code, **options).run(40)
        np.testing.assert_allclose(found.gradient, wanted.gradient, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.hv, wanted.hv, rtol=1e-9, atol=1e-9)


def test_some_patterns_and_rates_measured_from_outside(graph):
    objective, w = graph
    for options in (
        {"batch": 3, "sample_every": 2},
        {"rate": "line", "eta": 1.0},
        {"block": 1.0, "reading": Reading(1e-3)},
        {"rate": "trace", "tune_every": 2, "tune_trials": 5},
    ):
        plan = Plan(trials_per_update=2, sigma=0.1, **options)
        noise = {"error_unit.noise": plan.reading.noise}
        _, state = learned(params(noise), objective, plan, w)
        assert_same(driven(params(noise), objective, plan, w)[1].state, state)
