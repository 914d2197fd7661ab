"""Early stopping: a run ends when E on patterns for validation has become no smaller for a while,
and gives the weights of its best look.
"""

import numpy as np
import pandas as pd
import pytest
from fast import fast
from shown import fact

import sims
from hardware import load_chip
from hardware.training import source
from perturb import MLP, InputError
from perturb.training.exact import Exact
from perturb.training.loop import begin, train
from perturb.training.plan import Plan, State
from perturb.training.sources import Batch

EVERY, PATIENCE = 5, 3
NET = MLP([4, 8, 3], error="cross_entropy")


@pytest.fixture(scope="module")
def parts():
    """Few noisy patterns to learn from, which are soon known by heart, and others to judge by."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 4))
    labels = (x + 1.5 * rng.standard_normal((60, 4)))[:, :3].argmax(1)
    return NET.objective(x[:20], labels[:20]), NET.objective(x[20:], labels[20:])


def plan_of(**keys):
    return Plan(**{"eta": 0.5, "patience": PATIENCE, "stop_every": EVERY, "seed": 2} | keys)


def starts(runs=3):
    return np.array([NET.init(seed) for seed in range(runs)])


def after(made, W, validation, updates, every=1000):
    state = begin(W, made.plan)
    for _ in train(made, state, updates, every, validation=validation):
        pass
    return state


@pytest.mark.parametrize("kind", fast([Batch, Exact], Batch))
def test_a_run_ends_where_a_plain_reading_of_its_course_says_and_gives_its_best_weights(
    parts, kind
):
    learned, validation = parts
    state = after(kind(learned, plan_of()), starts(), validation, 2000)
    assert not state.going.any()
    bare = plan_of(patience=0)
    for run, w in enumerate(starts()):
        # the same course without an end, look by look
        alone = Plan(eta=0.5, seed=bare.seed_of(run))
        course, errors = begin(w, alone), []
        weights = []
        for now in train(kind(learned, alone), course, 2000, EVERY):
            if now.update:
                errors.append(validation.error(now.w[0]))
                weights.append(now.w[0].copy())
        best = waited = 0
        for look in range(len(errors)):
            waited += 1
            if look == 0 or errors[look] < errors[best]:
                best, waited = look, 0
            if waited == PATIENCE:
                break
        assert state.memory["stopped"][run] == EVERY * (look + 1) < 2000
        assert look == best + PATIENCE
        assert np.array_equal(state.result[run], weights[best])
        assert state.memory["best_error"][run] == errors[best] == min(errors[: look + 1])
        # longer learning makes it worse there, though better on what is learned
        assert errors[-1] > errors[best]


@pytest.mark.parametrize("kind", [Batch, Exact])
def test_any_cut_any_threads_and_a_stored_state_stop_at_the_same_bits(parts, kind, tmp_path):
    learned, validation = parts
    whole = after(kind(learned, plan_of(), threads=1), starts(), validation, 400)
    state = begin(starts(), plan_of())
    for updates in (3, 17, 20, 61, 400):
        for _ in train(
            kind(learned, plan_of(), threads=2), state, updates, 4, validation=validation
        ):
            pass
        np.savez(tmp_path / "state.npz", **state.arrays())
        with np.load(tmp_path / "state.npz") as file:
            state = State.of_arrays(dict(file))
    for part, array in whole.arrays().items():
        assert np.array_equal(state.arrays()[part], array), part
    assert np.array_equal(state.result, whole.result)


def test_without_an_end_the_best_look_is_the_result_of_a_run_that_is_over(parts):
    learned, validation = parts
    state = after(Batch(learned, plan_of(patience=10**6)), starts(), validation, 400)
    assert state.going.all() and np.array_equal(state.result, state.w)
    for run in range(3):
        assert validation.error(state.best[run]) == state.memory["best_error"][run]
        assert validation.error(state.best[run]) < validation.error(state.w[run])
    # until the first look there is none
    early = after(Batch(learned, plan_of()), starts(), validation, EVERY - 1)
    assert np.array_equal(early.best, early.w)


def test_equal_errors_are_no_gain_and_a_mean_of_weights_is_judged_as_the_result(parts):
    learned, validation = parts
    still = after(Batch(learned, plan_of(eta=1e-300)), starts(), validation, 1000)
    # a first look, and as many more as there is patience for
    assert (still.memory["stopped"] == EVERY * (1 + PATIENCE)).all()
    mean = after(Batch(learned, plan_of(average_from=8)), starts(), validation, 2000)
    assert [validation.error(w) for w in mean.result] == mean.memory["best_error"].tolist()


def test_chips_event_by_event_and_in_devices_stop_as_batches_do(parts):
    learned, validation = parts
    plan = plan_of(stop_every=2, patience=2, eta=2.0)
    batch = after(Batch(learned, plan, precision="float64"), starts(2), validation, 40)
    assert not batch.going.any()
    params = load_chip("ideal")
    events = after(source(params, learned, plan, starts(2), events=True), starts(2), validation, 40)
    assert np.array_equal(events.memory["stopped"], batch.memory["stopped"])
    np.testing.assert_allclose(events.result, batch.result, rtol=0, atol=1e-9)
    cells = params.weights.model_copy(update={"bits": 8})
    made = source(params.model_copy(update={"weights": cells}), learned, plan, starts(2))
    devices = after(made, starts(2), validation, 200)
    assert not devices.going.any()
    assert [validation.error(w) for w in devices.result] == devices.memory["best_error"].tolist()


def test_patience_without_patterns_for_validation_is_one_line(parts):
    learned, _ = parts
    with pytest.raises(InputError, match="patience = 3 judges by patterns that are not learned"):
        after(Batch(learned, plan_of()), starts(), None, 10)


# ---- as a study

FLOWERS = {
    "network.layers": [4, 6, 3],
    "network.error": "cross_entropy",
    "network.output": "linear",
    "data.name": "iris",
    "data.samples": 30,
    "data.test": 50,
    "data.validation": 30,
    "training.runs": 3,
    "training.eta": 1.0,
    "training.updates": 3000,
    "training.records": 20,
    "training.patience": 4,
    "training.stop_every": 20,
    "training.compare_with": [],
}


def learn(**set):
    return sims.run_experiment("xor-learning", {**FLOWERS, **set})


@pytest.fixture(scope="module")
def run():
    return learn()


def test_a_training_ends_early_with_its_best_weights(run):
    last = run.learning.groupby(["source", "run"]).last().reset_index()
    chip = last[last["source"] == "batch"]
    assert (chip["ended"] > 0).all() and (chip["ended"] % 20 == 0).all()
    assert (chip["evaluations"] == 2 * chip["ended"]).all()
    assert fact(run, "ended_early", "batch") == 1
    assert chip["ended"].nunique() > 1  # so that these are no numbers of the first run alone
    assert fact(run, "updates", "batch") == pytest.approx(chip["ended"].mean())
    assert fact(run, "evaluations", "batch") == pytest.approx(chip["evaluations"].mean())
    assert fact(run, "ended_at", "batch") == chip["ended"].median()
    # no record of a run was better where it is judged, but for those between two looks
    own = run.learning[run.learning["source"] == "batch"]
    looks = own[(own["update"] % 20 == 0) & (own["update"] > 0)]
    least = looks.groupby("run")["validation_error"].min()
    assert (chip.set_index("run")["validation_error"] <= least).all()
    # three parts, told apart
    parts = run.classes.groupby("patterns")["count"].sum() / (3 * last["source"].nunique())
    assert parts.to_dict() == {"learned": 30, "for validation": 30, "held back": 50}
    weights = run.weights["w_exact"].to_numpy().reshape(-1, 4 * 6 + 6 + 6 * 3 + 3)
    assert len(weights) == len(last)


@pytest.mark.slow
def test_an_interrupted_training_stops_where_an_uninterrupted_one_does(run, tmp_path):
    for asked in (0, 15, 40):
        calls = iter(range(asked))
        part = sims.run_experiment(
            "xor-learning",
            FLOWERS,
            scratch=tmp_path,
            should_stop=lambda calls=calls: next(calls, None) is None,
        )
        assert part.provenance["status"] == "partial"
    again = sims.run_experiment("xor-learning", FLOWERS, scratch=tmp_path)
    for name in ("learning", "summary", "weights", "classes"):
        pd.testing.assert_frame_equal(again.tables[name], run.tables[name])


def test_runs_that_are_not_ended_give_their_best_look_too():
    # records at every look
    set = {
        "training.updates": 60,
        "training.records": 60,
        "training.eta": 8.0,
        "training.control": False,
    }
    one, other = (learn(**set, **{"training.patience": n}).learning for n in (1000, 0))
    last = one.groupby("run").last()
    looks = other[other["update"].isin((20, 40, 60))].groupby("run")["validation_error"].min()
    assert (last["ended"] == -1).all() and (last["update"] == 60).all()
    assert (last["validation_error"] <= looks).all()


@pytest.mark.parametrize(
    "set, message",
    [
        ({"data.validation": 0}, "training.patience = 4 but no patterns are held back to judge"),
        ({"training.stop_every": 5000}, "training.patience = 4 looks every training.stop_every ="),
        (
            {
                "data.validation": 0,
                "training.patience": 0,
                "training.compare_with": [{"label": "patient", "patience": 3}],
            },
            "training.patience = 3 but no patterns",
        ),
    ],
)
def test_a_mistake_is_one_line(set, message):
    with pytest.raises(InputError, match=message):
        learn(**set)
