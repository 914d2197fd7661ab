"""The parts of a chip, one by one and together."""

import ast
import gc
from itertools import pairwise
from pathlib import Path

import naive
import numpy as np
import pytest
from test_chip import chip_of
from test_imperfections import OPTIONS

import hardware.parts
from hardware.chip_tables import SynapseParams
from hardware.parts.bus import Words
from hardware.parts.die import Health
from hardware.parts.synapses import Synapses
from hardware.parts.tile import Held, Tile, Update
from perturb import CODES, METHODS, MLP, InputError
from perturb.estimation.design import Design
from perturb.kernels.float64 import add_broadcast, add_broadcasts, dot_rows
from perturb.training.plan import Plan
from perturb.trial.methods import REGRESSORS
from perturb.trial.random import normals_each
from perturb.trial.synapse import SUMS, TOTALS


def perfect(n):
    """Synapses that all work."""
    return Health(np.ones(n, bool), np.zeros(n, bool), 0, np.zeros(n, bool), 0)


def lone_tile(design, part, v, **options):
    """A tile without a chip: it has its seed, its part of v and |v|^2."""
    size = part.stop - part.start
    synapses = Synapses(
        SynapseParams(), design, np.zeros(size), perfect(size), v[part], float(v @ v)
    )
    return Tile(0, part, design, synapses, depth=4, **options)


# every method, with a code that it goes with
PAIRS = [(name, "gaussian" if method.needs_s else "walsh") for name, method in METHODS.items()]


@pytest.mark.parametrize("method, code", PAIRS)
def test_a_tile_taken_out_of_the_chip_solves_its_own_g_and_z(small, method, code):
    # it gets its seed, its v and the words of a chip, nothing else
    objective, w, v = small
    chip = chip_of(
        small, method=method, code=code, sigma=0.05, r=0.05, seed=4, fidelity="event",
        trace_trials=40,
    )  # fmt: skip
    estimate = chip.run(40)
    words = {}
    for message in chip.messages:
        if message.sender in ("controller", "summing line"):
            words.setdefault(message.trial, {})[message.name] = message.value
    part = slice(5, 12)
    tile = lone_tile(chip.design, part, v)
    for trial in range(40):
        tile.perturb(trial)
        tile.receive(Words(trial, words[trial]["dE"], words[trial].get("s", 0.0)))
    g, z = tile.solve(40, chip.statistics.totals)
    np.testing.assert_allclose(g, estimate.gradient[part], rtol=1e-9, atol=1e-12)
    if METHODS[method].estimates_hv:
        np.testing.assert_allclose(z, estimate.hv[part], rtol=1e-9, atol=1e-12)
    other = lone_tile(Design(chip.design.method, chip.design.code, v.size, 0.05, 0.05, 5), part, v)
    other.perturb(0)
    assert not np.array_equal(other.dw, lone_perturbation(chip.design, part, v))


def lone_perturbation(design, part, v):
    tile = lone_tile(design, part, v)
    tile.perturb(0)
    return tile.dw


@pytest.mark.parametrize("method", ["covariance", "pearlmutter", "difference"])
def test_all_tiles_solve_what_the_statistics_do(small, method):
    chip = chip_of(
        small, {"synapses_per_tile": 7}, method=method, code="gaussian", fidelity="event"
    )
    estimate = chip.run(50)
    g, z = chip.live.solve()
    np.testing.assert_allclose(g, estimate.gradient, rtol=1e-12)
    np.testing.assert_allclose(z, estimate.hv, rtol=1e-12)


def test_the_messages_of_a_chip_with_two_synapses_are_the_formulas():
    # E(w) = ((w_0 + w_1) - 2)^2 / 2; Pearlmutter's estimator: E(w), E(w + dw), s = dw.v
    objective, w, v = MLP([1, 1]).objective([[1.0]], [[2.0]]), np.array([0.5, 0.1]), [1.0, 0.5]
    chip = chip_of(
        (objective, w, np.array(v)),
        {"synapses_per_tile": 1},
        method="pearlmutter",
        code="rademacher",
        sigma=0.1,
        fidelity="event",
        trace_trials=3,
    )
    chip.run(3)
    told = [(m.trial, m.at_ns, m.sender, m.name, np.ravel(m.value)) for m in chip.messages]
    signs = [CODES["rademacher"].draw(2, 0.1, 0, trial) for trial in range(3)]
    V, expected, sums = 1.25, [], np.zeros((14, 2))
    for trial, (d0, d1) in enumerate(signs):
        t0 = 3560 * trial
        s = d0 * v[0] + d1 * v[1]
        E0, E1 = (0.6 - 2.0) ** 2 / 2, (0.6 + d0 + d1 - 2.0) ** 2 / 2
        dE = E1 - E0
        expected += [
            (trial, t0, "tile 0", "dw", [d0]),
            (trial, t0, "tile 0", "contributions", [d0 * v[0]]),
            (trial, t0, "tile 1", "dw", [d1]),
            (trial, t0, "tile 1", "contributions", [d1 * v[1]]),
            (trial, t0 + 1500, "summing line", "s", [s]),
            (trial, t0 + 1700, "error unit", "E(0)", [E0]),
            (trial, t0 + 3400, "error unit", "E(1)", [E1]),
            (trial, t0 + 3400, "controller", "dE", [dE, dE]),
        ]
        for i, d in enumerate((d0, d1)):
            b = s / V * (d - s * v[i] / (2 * V))
            x, y = d, dE
            sums[:, i] += [
                x, b, x * x, x * b, b * b, x * y, b * y, x * x * y, x * y * y, b * b * y, b * y * y,
                (x * y) ** 2, x * y * b * y, (b * y) ** 2,
            ]  # fmt: skip
            expected.append((trial, t0 + 3710, f"tile {i}", "sums", sums[:, i].copy()))
    assert len(told) == len(expected) == 30
    # words of a trial arrive when the next has begun
    for found, wanted in zip(sorted(told, key=by_time), sorted(expected, key=by_time), strict=True):
        assert found[:4] == wanted[:4]
        np.testing.assert_allclose(found[4], wanted[4], rtol=1e-12, atol=1e-15)


def by_time(message):
    return message[1], message[0], message[2], message[3]


def test_no_part_knows_time_the_chip_or_the_parts_that_it_serves():
    # what reaches a part is given to it: none imports SimPy or what composes the parts
    above = {"assembly", "batches", "chip", "event_chip", "learning_chip", "training", "timing"}
    for file in Path(hardware.parts.__file__).parent.glob("*.py"):
        imported = {
            name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom | ast.Import)
            for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        }
        assert not {f"hardware.{name}" for name in above} & imported, file
        assert "simpy" not in imported, file


def test_a_tile_changes_its_own_weights_from_its_own_sums():
    v, plan = np.array([0.3, -0.2, 0.7]), Plan(rule="momentum", momentum=0.5, trials_per_update=2)
    design = Design(plan.method, plan.code, 3, plan.sigma, plan.r, 0)
    tile = lone_tile(design, slice(1, 3), v)
    tile.remember({"m": np.array([[1.0, 2.0]])})
    for trial in range(2):
        tile.perturb(trial)
        tile.receive(Words(trial, (0.3 + trial, 0.0), 0.0, last=trial == 1))
    assert isinstance(tile.held[0], Held) and not tile.synapses.sums.any()
    D = [CODES[plan.code.name].draw(3, plan.sigma, 0, trial)[1:] for trial in range(2)]
    g = (0.3 * D[0] + 1.3 * D[1]) / (2 * plan.sigma**2)
    tile.update(plan, Update(0, 0.1))
    np.testing.assert_allclose(tile.change, -0.1 * (0.5 * np.array([1.0, 2.0]) + g), rtol=1e-12)


def run_of(chip, *runs):
    for trials in runs:
        chip.run(trials)
    return chip.statistics.closed


def test_three_trials_and_a_thousand_are_a_thousand_and_three(small):
    changes = {
        "perturbation.tau_ns": 150.0,
        "error_unit.noise": 0.01,
        "bus.word_bits": 8,
        "bus.dE_range": 1.0,
    }
    whole, parts = (
        chip_of(small, changes, fidelity="event", trace_trials=1003, **OPTIONS) for _ in range(2)
    )
    for a, b in zip(run_of(parts, 3, 1000), run_of(whole, 1003), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (parts.time_s, parts.energy_j, parts.trace) == (
        whole.time_s,
        whole.energy_j,
        whole.trace,
    )


@pytest.mark.parametrize("runs", [[1], [300], [7, 293]])
def test_only_the_trials_that_were_run_are_tallied(small, runs):
    changes = {
        "error_unit.bits": 8,
        "error_unit.range": 2.0,
        "bus.word_bits": 8,
        "bus.dE_range": 1.0,
        "bus.s_range": 1.0,
        "bus.drop_probability": 0.1,
        "synapses_per_tile": 10,
    }
    chip = chip_of(small, changes, fidelity="event", **OPTIONS)
    run_of(chip, *runs)
    parts, K = chip.parts, sum(runs)
    # two evaluations of five patterns, dE for g and for z, dw.v, three tiles
    counted = parts.error_unit.readings, parts.bus.dE.words, parts.bus.s.words, parts.bus.broadcasts
    assert counted == (10 * K, 2 * K, K, 3 * K)


@pytest.mark.parametrize("trials", [334, 400, 600])  # found at the end of the run, or in its middle
def test_a_trial_that_is_not_finite_is_named_wherever_it_stands_among_others(small, trials):
    def sometimes(seed, trial, start, stop):
        D = np.random.default_rng([seed, trial]).standard_normal(1000)[start:stop]
        return D * (np.inf if (seed, trial) == (4, 333) else 1.0)

    code = CODES["gaussian"].from_function("sometimes", sometimes, 3.0, 15.0)
    chip = chip_of(small, {}, fidelity="event", **{**OPTIONS, "code": code})
    with pytest.raises(InputError, match="in trial 333 of"), np.errstate(all="ignore"):
        chip.run(trials)


def test_broadcasts_that_meet_other_perturbations_are_summed_with_those(small):
    # 40 us late: two trials, of which a FIFO of two has lost the first
    changes = {"bus.latency_ns": 40_000, "synapse.fifo_depth": 2, "synapses_per_tile": 9}
    chip = chip_of(small, changes, fidelity="event", **OPTIONS)
    chip.run(30)
    D = naive_D(chip, range(31))
    assert chip.live.tiles[0].overflowed
    np.testing.assert_allclose(chip.statistics.sums[0], D[1:].sum(0), rtol=1e-12, atol=1e-14)
    assert np.abs(chip.statistics.sums[0] - D[:-1].sum(0)).max() > 1e-3


def naive_D(chip, trials):
    design = chip.design
    return np.array(
        [
            naive.perturbation(design.code.name, design.n_weights, design.sigma, design.seed, t)
            for t in trials
        ]
    )


def test_the_collector_of_cycles_is_left_as_it_was(small):
    before = gc.get_threshold()
    chip_of(small, fidelity="event", **OPTIONS).run(3)
    assert gc.get_threshold() == before


# ---- kernels against their slow twins


def test_normals_of_many_keys_are_those_of_each():
    trials, phases, found = np.array([3, 5, 5, 2**40]), np.array([0, 1, 20, 3]), np.empty((4, 7))
    normals_each(np.uint64(9), 48, trials, phases, found)
    expected = [
        [naive.normal(9, 48, int(t), int(p), i) for i in range(7)]
        for t, p in zip(trials, phases, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("code", CODES)
def test_perturbations_of_many_trials_are_those_of_each(code):
    trials = np.array([0, 1, 5, 5, 200, 7])
    found = CODES[code].draw_each(11, 0.1, 3, trials)
    np.testing.assert_array_equal(
        found, [CODES[code].draw(11, 0.1, 3, int(trial)) for trial in trials]
    )
    part = CODES[code].draw_each(11, 0.1, 3, trials, 4, 9)  # as a tile draws them
    np.testing.assert_array_equal(part, found[:, 4:9])
    if code != "measured":
        np.testing.assert_allclose(found[2], naive.perturbation(code, 11, 0.1, 3, 5), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_many_broadcasts_are_summed_as_one_after_the_other(method):
    rng, method = np.random.default_rng(0), METHODS[method]
    D, v, (y, u) = (
        rng.standard_normal((9, 13)),
        rng.standard_normal(13),
        rng.standard_normal((2, 9)),
    )
    s, kind, kappa = (
        dot_rows(D, v) if method.needs_s else np.zeros(9),
        REGRESSORS[method.regressor],
        0.4,
    )
    np.testing.assert_allclose(s, D @ v if method.needs_s else 0.0, rtol=1e-12)
    found, one, totals = np.zeros((len(SUMS), 13)), np.zeros((len(SUMS), 13)), np.zeros(len(TOTALS))
    for first, last in pairwise((0, 4, 9)):
        part = slice(first, last)
        add_broadcasts(
            found, totals, D[part], y[part], u[part], s[part], v, float(v @ v), kind, kappa
        )
    for t in range(9):
        add_broadcast(one, D[t], y[t], u[t], s[t], v, float(v @ v), kind, kappa)
    np.testing.assert_allclose(found, one, rtol=1e-12, atol=1e-14)
    V = v @ v
    q = {
        "dw": D,
        "s_dw": s[:, None] * D - kappa * v * D * D,
        "b": s[:, None] / V * (D - s[:, None] * v / (2 * V)),
        "none": 0 * D,
    }
    expected, expected_totals = naive.sums(D, y, u, q[method.regressor], s)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(totals, expected_totals, rtol=1e-12)
