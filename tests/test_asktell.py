"""Ask and tell: learning and estimates with the loop outside are those of the loop inside."""

import itertools
import math

import numpy as np
import pytest
from fast import thinned
from hypothesis import given, settings
from hypothesis import strategies as st

from perturb import CODES, DAG, METHODS, MLP, AskEstimate, InputError, Objective, estimate
from perturb.training import AskTell, Batch, Plan, begin
from perturb.training.rates import RATES
from perturb.training.rules import RULES
from perturb.trial.readout import Reading

UPDATES = 4


@pytest.fixture(scope="module")
def xor():
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    net = MLP([2, 2, 1], output="logistic")
    return net.objective(x, (x[:, :1] != x[:, 1:]).astype(float)), net.init(1)


def possible(**options):
    try:
        return Plan(**options)
    except InputError:
        return None  # of names that do not go together


def trained(objective, w, plan, updates=UPDATES):
    state = begin(w, plan)
    Batch(objective, plan, precision="float64").advance(state, updates)
    return state


def driven(loop, objective, updates=UPDATES, order=lambda asked: asked, n=None):
    chip = Batch(objective, loop.plan, precision="float64")
    while loop.updates < updates and not loop.stopped:
        asked = loop.ask(n)
        assert asked
        for e in order(asked):
            assert loop.tell(e.id, chip.answer(e)) is True
    return loop


def assert_same(state, other):
    a, b = state.arrays(), other.arrays()
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def grid():
    for rule, method, code in itertools.product(RULES, METHODS, CODES):
        if possible(rule=rule, method=method, code=code):
            yield rule, method, code


@pytest.mark.parametrize("rule, method, code", thinned(grid(), 23))
def test_every_rule_method_and_code_gives_the_bits_of_train(xor, rule, method, code):
    objective, w = xor
    K = 1 if rule == "keep-if-better" else 3
    plan = Plan(
        rule=rule, method=method, code=code, trials_per_update=K, reading=Reading(1e-3), seed=7
    )
    loop = driven(AskTell(w, plan, n_patterns=4), objective)
    state = trained(objective, w, plan)
    assert_same(loop.state, state)
    # of four trials none may have been better
    assert np.abs(loop.w - w).max() > 1e-6 or rule == "keep-if-better"


OPTIONS = {
    "periods, some patterns": {"batch": 3, "perturb_every": 2, "sample_every": 3},
    "converter": {"reading": Reading(0.01, 8, 2.0)},
    "falling": {"rate_exponent": 0.602, "rate_delay": 3.0, "sigma_exponent": 0.101},
    "average": {"average_from": 2, "longest_step": 0.01},
    "block": {"block": 0.5, "reading": Reading(0.01)},
    "line": {"rate": "line", "eta": 1.0, "reading": Reading(1e-4)},
    "line and block": {"rate": "line", "block": 1.0, "reading": Reading(1e-3)},
    "trace": {"rate": "trace", "tune_every": 2, "tune_trials": 9, "reading": Reading(1e-3, 12)},
    "eigenvalue": {"rate": "eigenvalue", "tune_every": 3, "tune_trials": 5},
    "newton-cg, trace": {
        "rule": "newton-cg",
        "method": "difference",
        "rate": "trace",
        "tune_trials": 5,
        "batch": 2,
    },
    "a later run": {"first_run": 3},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_rate_and_option_gives_the_bits_of_train(xor, name):
    objective, w = xor
    plan = Plan(trials_per_update=2, seed=3, **OPTIONS[name])
    loop = driven(AskTell(w, plan, n_patterns=4), objective)
    assert_same(loop.state, trained(objective, w, plan))
    assert np.abs(loop.w - w).max() > 1e-6
    assert {each.get("rate") for each in OPTIONS.values()} >= RATES.keys() - {"fixed"}


def test_any_order_any_number_at_a_time_and_doubles_give_the_same_bits(xor):
    objective, w = xor
    plan = Plan(rule="newton-cg", method="difference", trials_per_update=4, rate="line")
    whole = driven(AskTell(w, plan), objective)
    rng = np.random.default_rng(0)
    for n in (1, 3, None):
        loop = AskTell(w, plan)
        driven(loop, objective, order=lambda asked: rng.permutation(np.array(asked, object)), n=n)
        assert_same(loop.state, whole.state)
    chip, loop = Batch(objective, plan, precision="float64"), AskTell(w, plan)
    before = []
    while loop.updates < UPDATES:
        asked = loop.ask()
        for e in asked:
            assert loop.tell(e.id, chip.answer(e))
        for e in before + asked:  # doubles, of this round and of an earlier one, that say nonsense
            assert loop.tell(e.id, 1e9) is False and loop.tell(e.id, None) is False
        before = asked
    assert_same(loop.state, whole.state)
    assert loop.left_out == loop.skipped == 0


def test_a_chip_that_perturbs_by_itself_needs_no_weights(xor):
    objective, w = xor
    plan = Plan(rule="diagonal", method="difference", code="walsh", perturb_every=2, sigma=0.03)
    loop = AskTell(w, plan, n_patterns=4)
    for _ in range(UPDATES):
        for e in loop.ask():
            assert e.own and e.patterns is None
            D = CODES[e.code].draw(w.size, e.sigma, e.seed, e.draw)
            at = loop.w + (e.a * D + e.b * (e.r * e.direction))
            assert np.array_equal(e.weights, at) and np.array_equal(e.center, loop.w)
            loop.tell(e.id, objective.error(at))
    assert loop.updates == UPDATES and loop.state.evaluations == UPDATES * 4
    line = AskTell(w, Plan(rate="line"))
    [line.tell(e.id, objective.error(e.weights)) for e in line.ask()]
    assert [e.own for e in line.ask()] == [False] * 3


def test_what_fails_is_measured_again_and_ends_the_same(xor):
    objective, w = xor
    plan = Plan(trials_per_update=3, rate="trace", tune_every=2, tune_trials=4, block=0.0)
    chip, rng = Batch(objective, plan, precision="float64"), np.random.default_rng(1)
    loop, failed = AskTell(w, plan, tries=50), 0
    while loop.updates < 12:
        for e in loop.ask():
            bad = [math.nan, math.inf, -math.inf, None][rng.integers(4)]
            if rng.random() < 0.3:
                failed += 1
                assert loop.tell(e.id, bad)
                assert loop.tell(e.id, bad) is False  # it waits to be asked again
            else:
                loop.tell(e.id, chip.answer(e))
    assert failed > 20 and loop.left_out == 0
    assert_same(loop.state, trained(objective, w, plan, 12))


def test_an_answer_after_its_time_is_taken(xor):
    objective, w = xor
    loop = AskTell(w, Plan())
    late, other = loop.ask()
    loop.tell(late.id, None)
    assert loop.tell(late.id, objective.error(late.weights)) is True
    assert loop.ask() == []  # nothing is asked again
    loop.tell(other.id, objective.error(other.weights))
    assert loop.updates == 1


def test_a_trial_that_is_given_up_counts_for_nothing(xor):
    objective, w = xor
    plan = Plan(trials_per_update=3, eta=0.5)
    chip, loop = Batch(objective, plan, precision="float64"), AskTell(w, plan, tries=2)
    asked = 0
    while loop.updates < 1:
        for e in loop.ask():
            asked += 1
            loop.tell(e.id, math.nan if e.trial == 1 and e.phase == 1 else chip.answer(e))
    assert asked == 3 * 2 + 1 and loop.left_out == 1 and loop.skipped == 0
    # the mean over the two trials that are left
    change = np.zeros_like(w)
    for trial in (0, 2):
        D = plan.code.draw(w.size, plan.sigma, plan.seed, trial)
        dE = (objective.error(w + D) - objective.error(w - D)) / 2
        change -= 0.5 * dE * D / (2 * plan.sigma**2)
    np.testing.assert_allclose(loop.w - w, change, rtol=1e-9)


@pytest.mark.parametrize("which", ["trials", "readings"])
def test_an_update_of_which_nothing_is_known_changes_nothing(xor, which):
    objective, w = xor
    plan = Plan(rule="momentum", trials_per_update=2, rate="line", average_from=1)
    chip, loop = Batch(objective, plan, precision="float64"), AskTell(w, plan, tries=1)
    memory = None
    while loop.updates < 3:
        for e in loop.ask():
            if loop.updates == 1 and memory is None:
                memory = {name: array.copy() for name, array in loop.state.memory.items()}
            bad = loop.updates == 1 and e.own == (which == "trials")
            loop.tell(e.id, None if bad else chip.answer(e))
        if loop.updates == 2:
            assert loop.skipped == 1 and np.array_equal(loop.state.memory["m"], memory["m"])
            assert loop.state.trial == 4
    assert loop.skipped == 1 and loop.updates == 3


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "momentum", "trials_per_update": 3},
        {"rule": "newton-cg", "method": "difference", "cg_steps": 2, "block": 1.0},
        {"rule": "newton-mean", "method": "difference", "rate": "trace", "tune_trials": 3},
    ],
)
def test_killed_after_any_tell_it_goes_on_to_the_same_bits(xor, tmp_path, options):
    objective, w = xor
    plan = Plan(code="gaussian", seed=5, **options)
    chip, path = Batch(objective, plan, precision="float64"), tmp_path / "loop.npz"
    whole, loop, told = driven(AskTell(w, plan), objective), AskTell(w, plan), 0
    pending = []
    while loop.updates < UPDATES:
        # two are asked for, and one of them is told, before it is killed: the other is asked again
        pending += loop.ask(2)
        e = pending.pop()
        loop.tell(e.id, math.nan if told % 7 == 3 else chip.answer(e))
        told += 1
        loop.save(path)
        loop, pending = AskTell.load(path, plan), []
    assert_same(loop.state, whole.state)
    assert told > 15


def test_failures_are_remembered(xor, tmp_path):
    objective, w = xor
    plan, path = Plan(), tmp_path / "loop.npz"
    loop = AskTell(w, plan, tries=3)
    for _ in range(3):
        assert loop.left_out == loop.skipped == 0
        (e,) = loop.ask(1)
        assert e.id == 0
        loop.tell(e.id, None)
        loop.save(path)
        loop = AskTell.load(path, plan)
    (e,) = loop.ask()
    assert e.id == 1
    loop.tell(e.id, 0.5)
    assert (loop.left_out, loop.skipped, loop.updates) == (1, 1, 1)


def test_a_file_of_another_plan_or_no_file_ends_in_one_line(xor, tmp_path):
    _, w = xor
    path = tmp_path / "loop.npz"
    AskTell(w, Plan()).save(path)
    with pytest.raises(InputError, match="a plan with another code, sigma: give the same plan"):
        AskTell.load(path, Plan(code="walsh", sigma=0.1))
    with pytest.raises(InputError, match="no such file"):
        AskTell.load(tmp_path / "none.npz", Plan())
    content = path.read_bytes()
    for damaged in (content[:-30], b"", content[: len(content) // 2] + b"x" * 50):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="loop.npz: cannot be read"):
            AskTell.load(path, Plan())


def test_mistakes_end_in_one_line(xor):
    objective, w = xor
    loop = AskTell(w, Plan())
    with pytest.raises(InputError, match="id = 7 has not been asked: tell what ask"):
        loop.tell(7, 1.0)
    with pytest.raises(InputError, match="id = -1 must be an integer >= 0"):
        loop.tell(-1, 1.0)
    for value in ("1.0", [1.0, 2.0], {}, 1j, True):
        with pytest.raises(InputError, match="of id = 0 must be a number, or None"):
            loop.tell(0, value)
    with pytest.raises(InputError, match=r"w has shape \(1, 9\)"):
        AskTell(w[None], Plan())
    with pytest.raises(InputError, match="batch = 3 but there are 1 patterns"):
        AskTell(w, Plan(batch=3))
    for option in ({"baseline_free": True, "method": "forward"}, {"patience": 3}):
        with pytest.raises(InputError, match="is not for a chip"):
            AskTell(w, Plan(**option))
    with pytest.raises(InputError, match="calibrate = 20"):
        AskTell(w, Plan(calibrate=20))
    with pytest.raises(InputError, match="tries = 0 must be an integer >= 1"):
        AskTell(w, Plan(), tries=0)


def test_it_ends_where_weights_stand_still():
    objective = DAG(3, [(0, 2), (1, 2)], inputs=[0, 1], outputs=[2]).objective(
        [[1.0, 0.5], [0.2, 1.0]], [[0.3], [0.1]]
    )
    plan = Plan(stop_change=1e-3, stop_every=5, trials_per_update=4, eta=0.5)
    loop = driven(AskTell(np.zeros(2), plan), objective, updates=1000)
    assert loop.stopped and loop.ask() == [] and 5 < loop.updates < 1000


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=20, max_size=60), st.randoms(use_true_random=False))
def test_whatever_is_lost_doubled_or_late_the_state_is_a_function_of_what_is_told(moves, rng):
    # E of a parabola: whatever happens on the way, an evaluation has one value
    plan, center = Plan(trials_per_update=2, sigma=0.1), np.array([0.3, -0.2])

    def E(e):
        return float(((e.weights - center) ** 2).sum())

    loop, flying = AskTell(np.zeros(2), plan, tries=10**6), []
    for move in moves:
        flying += loop.ask(move % 3 + 1)
        rng.shuffle(flying)
        if move < 7 and flying:
            e = flying.pop()
            loop.tell(e.id, E(e))
            if move < 2:
                flying.append(e)  # will come once more
        elif flying:
            loop.tell(flying.pop().id, None)  # lost
    whole = AskTell(np.zeros(2), plan)
    while whole.updates < loop.updates:
        for e in whole.ask():
            whole.tell(e.id, E(e))
    assert np.array_equal(loop.w, whole.w)


def combinations():
    for method, code in itertools.product(METHODS, CODES):
        if possible(method=method, code=code):
            yield method, code


@pytest.fixture(scope="module")
def plain(xor):
    """Without a compiled kernel, whose sums are rounded otherwise."""
    objective, w = xor
    return Objective.from_functions(objective.error, n_weights=w.size), w


def told(asking, objective, order=lambda asked: asked):
    for e in order(asking.ask()):
        asking.tell(e.id, objective.error(e.weights))
    return asking


@pytest.mark.parametrize("method, code", thinned(combinations(), 7))
def test_an_asked_estimate_has_the_bits_of_estimate(plain, xor, method, code):
    objective, w = plain
    v = np.linspace(-1, 1, w.size)
    options = {"method": method, "code": code, "sigma": 0.05, "seed": 3}
    rng = np.random.default_rng(0)

    def shuffled(asked):
        return rng.permutation(np.array(asked, object))

    asking = told(AskEstimate(w, v, 150, **options), objective, shuffled)
    found, wanted = asking.estimate(), estimate(objective, w, v, 150, **options)
    assert asking.complete and asking.ask() == []
    for name in ("gradient", "hv", "gradient_stderr", "hv_stderr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), name)
    assert found.evaluations == wanted.evaluations and found.unknown == wanted.unknown
    by_kernel = estimate(xor[0], w, v, 150, precision="float64", **options)
    # dE is 1e-3 of E, so that rounding of E weighs a thousand times more
    np.testing.assert_allclose(found.gradient, by_kernel.gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_an_asked_estimate_that_was_killed_goes_on_to_the_same_bits(plain, tmp_path):
    objective, w = plain
    v, path = np.ones(w.size), tmp_path / "estimate.npz"
    whole = told(AskEstimate(w, v, 40), objective).estimate()
    asking, tells = AskEstimate(w, v, 40), 0
    while not asking.complete:
        lost, e = (asking.ask(2) * 2)[:2]  # the last one comes alone
        asking.tell(e.id, None if tells % 5 == 2 else objective.error(e.weights))
        tells += 1
        asking.save(path)
        asking = AskEstimate(w, v, 40)
        asking.resume(path)
    assert tells > 190 and asking.left_out == 0
    for name in ("gradient", "hv", "gradient_stderr", "hv_stderr"):
        np.testing.assert_array_equal(getattr(asking.estimate(), name), getattr(whole, name), name)
    with pytest.raises(InputError, match="of another w, v, design or number of trials"):
        AskEstimate(w, v, 41).resume(path)


def test_trials_that_are_left_out_count_for_nothing(plain):
    objective, w = plain
    v = np.zeros(w.size)
    asking = AskEstimate(w, v, 6, method="central", code="walsh", tries=1)
    with pytest.raises(InputError, match="no trial has been told yet"):
        asking.estimate()
    for e in asking.ask():
        asking.tell(e.id, None if e.trial in (0, 3) else objective.error(e.weights))
    g, code = np.zeros_like(w), CODES["walsh"]
    for trial in (1, 2, 4, 5):
        D = code.draw(w.size, 1e-2, 0, trial)
        g += (objective.error(w + D) - objective.error(w - D)) / 2 * D / (4 * 1e-4)
    found = asking.estimate()
    np.testing.assert_allclose(found.gradient, g, rtol=1e-9)
    assert found.trials == 4 and asking.left_out == 4
