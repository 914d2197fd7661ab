"""Streams of random numbers: those of other runs, repeats, dies and purposes have nothing in
common.
"""

import json
import sqlite3
from itertools import product

import naive
import numpy as np
import pytest
from chips import params
from fast import fast
from scipy import stats
from shown import texts_of

import reports
import sims
from hardware.on_chip import OnChip, on_chip
from hardware.training import source
from perturb import MLP, Code, InputError
from perturb.seeds import derive_seed, nth_seed
from perturb.training.loop import begin
from perturb.training.plan import Plan
from perturb.training.sources import Batch
from perturb.trial.readout import Reading
from reports.compare import compare as beside
from reports.store import SCHEMA_VERSION
from reports.store.sweep_database import FILE
from sims.experiment.loading import load_experiment
from sims.problem import prepare

TEACHER = {"training.runs": 8, "training.updates": 20, "training.records": 2}


def test_seeds_are_known_numbers_that_never_change():
    assert derive_seed(0, "repeat", 1) == 4073741430956291298
    assert derive_seed(2**64 - 1, "run", 12, 3) == 8706524736565757059
    assert nth_seed(7, "run", 0) == 7 and nth_seed(7, "run", 3) == derive_seed(
        7, "run", 3
    ) == naive.seed_of(7, "run", 3)
    assert derive_seed(np.int64(5), "die", np.uint64(2)) == derive_seed(5, "die", 2)


def test_seeds_of_small_numbers_do_not_collide():
    roots, purposes = (
        [*range(40), 12, 123, 2**32, 2**64 - 1],
        ("repeat", "run", "start", "die", "direction"),
    )
    arguments = {(root, purpose) for root, purpose in product(roots, purposes)}
    arguments |= {(root, purpose, i) for root, purpose, i in product(roots, purposes, range(100))}
    arguments |= {
        (root, purpose, i, j)
        for root, purpose, i, j in product(roots, purposes, (1, 2, 12, 23), (0, 1, 3, 23))
    }
    seeds = {derive_seed(*each) for each in arguments} | set(roots)
    assert len(seeds) == len(arguments) + len(set(roots)) and max(seeds - set(roots)) < 2**63
    # repeats of runs: no run of a repeat is a run of another
    both = {
        nth_seed(nth_seed(0, "repeat", repeat), "run", run)
        for repeat, run in product(range(100), range(100))
    }
    assert len(both) == 10_000
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds if seed > 2**33])
    assert (
        stats.chisquare(np.stack([bits.sum(0), len(bits) - bits.sum(0)]), axis=0).pvalue.min()
        > 1e-7
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (-1, "run"),
        (2**64, "run"),
        (0.0, "run"),
        (0, "run/1"),
        (0, ""),
        (0, "run", -1),
        (0, "run", 1.0),
    ],
)
def test_what_no_seed_can_be_derived_from_is_one_line(arguments):
    with pytest.raises(InputError, match=r"^(seed|purpose|indices) = .* must be "):
        derive_seed(*arguments)


# ---- runs


def xor():
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    net = MLP([2, 2, 1], output="logistic")
    return net.objective(x, (x[:, :1] != x[:, 1:]).astype(float)), np.tile(net.init(5), (3, 1))


def signs(seed, trial, start, stop):
    return np.sign(np.random.Generator(np.random.Philox([seed, trial])).random(9)[start:stop] - 0.5)


OWN = Code.from_function("own", signs, 1.0, 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch": 2},
        {"sigma": 1e-4},
        {"rule": "momentum", "batch": 2},
        {"reading": Reading(0.1)},
        {"code": OWN},
        {"rule": "diagonal", "method": "difference"},
        {"rate": "trace", "tune_every": 2, "sigma": 0.1},
        {"rate": "eigenvalue", "tune_every": 2, "sigma": 0.1, "reading": Reading(1e-6)},
        {"rate": "line", "reading": Reading(1e-3)},
    ],
)
@pytest.mark.parametrize("on", fast(["batch", "devices", "chip"], "batch"))
def test_no_run_of_a_seed_is_a_run_of_another_seed(on, changes):
    if on == "chip" and "code" in changes or on == "devices" and changes.get("rule") == "diagonal":
        pytest.skip("told by the others")
    objective, W = xor()
    chip = params({"weights.bits": 12} if on == "devices" else {"weights.read_noise": 1e-3})
    ends = []
    for seed in (0, 1, 2):
        plan = Plan(seed=seed, **{"eta": 0.2, **changes})
        state = begin(W, plan)
        made = Batch(objective, plan) if on == "batch" else source(chip, objective, plan, W)
        assert isinstance(made, OnChip) == (on == "chip")
        made.advance(state, 4)
        ends += [tuple(w) for w in state.w]
    assert len(set(ends)) == 9


def test_no_die_of_a_number_is_a_die_of_another_number():
    objective, W = xor()
    plan, ends = Plan(seed=3, code=OWN, sigma=0.1), []
    for die in (0, 1, 2):
        chip = params({"perturbation.gain_mismatch": 0.3, "die": die})
        ends += [
            tuple(on_chip(chip, objective, plan, W, False, True).parts(run).die.gain)
            for run in range(len(W))
        ]
    assert len(set(ends)) == 9
    found = [
        set(
            sims.run_experiment(
                "xor", {"study": "dies", "dies.count": 3, "estimation.trials": 64, **seeds}
            ).dies["die"]
        )
        for seeds in ({"chip.die": 0}, {"chip.die": 1}, {"run.seed": 0}, {"run.seed": 1})
    ]
    assert [len(each) for each in found] == [3] * 4 and len(set.union(*found)) == 12


def test_the_start_and_the_direction_are_not_of_one_stream():
    problem = prepare(
        load_experiment(
            "digits", {"weights.seed": 0, "direction.seed": 0, "weights.warmup_updates": 0}
        )
    )
    first = slice(0, 64 * 32)  # weights of a layer, all of one variance
    assert abs(np.corrcoef(problem.w[first], problem.v[first])[0, 1]) < 5 / np.sqrt(64 * 32)


def test_a_run_of_a_training_can_be_done_alone():
    changes = {
        **TEACHER,
        "training.control": False,
        "chip.weights.bits": 12,
        "chip.perturbation.gain_mismatch": 0.2,
    }
    learned = sims.run_experiment("teacher-learning", changes, seed=9).learning
    third = learned[learned["run"] == 3]
    seeds = third.iloc[0]
    alone = {"training.runs": 1, "weights.seed": seeds["start_seed"], "chip.die": seeds["die"]}
    one = sims.run_experiment(
        "teacher-learning", {**changes, **alone}, seed=int(seeds["run_seed"])
    ).learning
    assert (
        list(one["error"]) == list(third["error"]) and one["error"].iloc[-1] != one["error"].iloc[0]
    )


# ---- repeats


@pytest.fixture(scope="module")
def repeats(tmp_path_factory):
    directory = tmp_path_factory.mktemp("repeats") / "out"
    sims.run_sweep(
        "teacher-learning",
        {},
        5,
        directory,
        0,
        set={**TEACHER, "chip.perturbation.gain_mismatch": 0.1},
        keep=True,
    )
    return directory, sims.load_sweep(directory, "learning")


def test_all_runs_of_all_repeats_are_different(repeats):
    _, learned = repeats
    ends, starts = (learned[learned["update"] == update] for update in (20, 0))
    for source_ in ("batch", "exact"):
        assert ends.loc[ends["source"] == source_, "error"].nunique() == 40
        assert starts.loc[starts["source"] == source_, "error"].nunique() == 40
    assert (
        learned["run_seed"].nunique()
        == learned["start_seed"].nunique()
        == learned["die"].nunique()
        == 40
    )


def test_what_learns_in_a_repeat_has_common_starts_and_dies(repeats):
    _, learned = repeats
    for _, part in learned.groupby(["repeat", "run"]):
        assert (
            part.loc[part["update"] == 0, "error"].nunique()
            == part["start_seed"].nunique()
            == part["die"].nunique()
            == 1
        )


@pytest.mark.slow
def test_a_repeat_alone_gives_the_same_numbers(repeats):
    directory, learned = repeats
    row = reports.load(directory).cells.iloc[3]
    assert row["command"].endswith(f" --seed {row['seed']}") and row["seed"] == derive_seed(
        0, "repeat", 3
    )
    changes = {**TEACHER, "chip.perturbation.gain_mismatch": 0.1}
    for more in ({}, {"weights.seed": row["start_seed"], "chip.die": row["die"]}):
        alone = sims.run_experiment(
            "teacher-learning", {**changes, **more}, seed=int(row["seed"])
        ).learning
        assert list(alone["error"]) == list(learned.loc[learned["repeat"] == 3, "error"])
    first = sims.run_experiment(
        "teacher-learning", changes
    ).learning  # repeat 0 is the run without repeats
    assert list(first["error"]) == list(learned.loc[learned["repeat"] == 0, "error"])


@pytest.mark.parametrize(
    "given", [{"weights.seed": 4}, {"chip.die": 7}, {"weights.seed": 4, "chip.die": 7}]
)
def test_what_a_key_gives_is_the_same_in_all_repeats(tmp_path, given):
    settings = {
        **TEACHER,
        "training.control": False,
        "chip.perturbation.gain_mismatch": 0.1,
        **given,
    }
    sims.run_sweep("teacher-learning", {}, 3, tmp_path / "out", 0, set=settings, keep=True)
    learned = sims.load_sweep(tmp_path / "out", "learning")
    assert (
        learned.loc[learned["update"] == 20, "error"].nunique() == 24
    )  # noise is another one anyway
    cells = reports.load(tmp_path / "out").cells
    says = reports.load(tmp_path / "out").provenance["description"]
    for key, column, name in (
        ("weights.seed", "start_seed", "starting weights"),
        ("chip.die", "die", "die"),
    ):
        times = 1 if key in given else 3
        assert learned[column].nunique() == 8 * times and cells[column].nunique() == times
        assert (f"the same in all: {', '.join(given)}" in says) and (
            name in says.partition("new in each")[2].partition(";")[0]
        ) == (key not in given)
    assert (
        learned.loc[learned["update"] == 0].groupby("run")["error"].nunique()
        == (1 if "weights.seed" in given else 3)
    ).all()


def test_a_start_that_is_varied_is_that_of_the_key(tmp_path):
    sims.run_sweep(
        "xor", {"weights.seed": [5, 6]}, 2, tmp_path / "out", 0, set={"estimation.trials": 16}
    )
    cells = reports.load(tmp_path / "out").cells
    assert (
        list(cells["start_seed"]) == [5, 5, 6, 6]
        and cells["die"].nunique() == cells["seed"].nunique() == 2
    )
    assert sims.run_experiment("xor", {"estimation.trials": 16}, seed=3).provenance["seeds"] == {
        "start_seed": derive_seed(3, "start"),
        "die": derive_seed(3, "die"),
    }


def test_a_repeat_of_other_studies_has_another_start_direction_and_die():
    frame = sims.run_sweep(
        "xor",
        {},
        3,
        workers=0,
        set={"estimation.trials": 64, "chip.perturbation.gain_mismatch": 0.1},
        keep=False,
    )
    assert (
        frame["cosine"].nunique() == len(frame)
        and frame["predicted_cosine"].nunique() > len(frame) / 3
    )
    problems = [
        prepare(load_experiment("digits", {"run.seed": seed, "weights.warmup_updates": 0}))
        for seed in (0, 1)
    ]
    assert not (problems[0].w == problems[1].w).all() and not (problems[0].v == problems[1].v).any()
    assert (problems[0].objective.x == problems[1].objective.x).all()  # the data are the task


@pytest.mark.slow
def test_points_share_the_seeds_of_their_repeats():
    frame = sims.run_sweep("xor", {"estimation.trials": [16, 32]}, 3, workers=0)
    by = frame.groupby("repeat")["seed"].unique()
    assert [list(seeds) for seeds in by] == [[nth_seed(0, "repeat", repeat)] for repeat in range(3)]
    two = sims.run_sweep(
        "xor", {"run.seed": [0, 1]}, 3, workers=0, set={"estimation.trials": 16}
    )  # seeds that follow each other
    assert two.groupby(["run.seed", "repeat"])["cosine"].first().nunique() == 6


@pytest.mark.slow
def test_the_spread_of_repeats_is_that_of_independent_runs(tmp_path):
    """Of means over R independent runs the variance is that of a run, over R; over five repeats in
    a row it would be a quarter or less of that if each shared all runs but one with the next.
    """
    runs, groups = 12, 16
    settings = {
        **TEACHER,
        "training.runs": runs,
        "training.updates": 3,
        "training.control": False,
        "chip.error_unit.noise": 0.0,
    }
    sims.run_sweep("teacher-learning", {}, 5 * groups, tmp_path / "out", 0, set=settings, keep=True)
    learned = sims.load_sweep(tmp_path / "out", "learning")
    E = np.log(
        learned[learned["update"] == 3]
        .pivot(index="repeat", columns="run", values="error")
        .to_numpy()
    )
    between = E.mean(1).reshape(groups, 5).var(1, ddof=1).mean() * runs
    ratio, freedom = between / E.var(1, ddof=1).mean(), (4 * groups, 5 * groups * (runs - 1))
    assert (
        stats.f.cdf(ratio, *freedom) > 3e-7 and stats.f.sf(ratio, *freedom) > 3e-7
    )  # five standard errors
    shifted = np.lib.stride_tricks.sliding_window_view(E.ravel(), runs)[: 5 * groups].mean(
        1
    )  # run q of r + 1 is q + 1 of r
    control = shifted.reshape(groups, 5).var(1, ddof=1).mean() * runs / E.var(1, ddof=1).mean()
    assert stats.f.cdf(control, *freedom) < 3e-7


@pytest.mark.slow
def test_pairs_of_two_sweeps_are_of_the_same_repeat(tmp_path):
    for name, eta in (("a", 0.02), ("b", 0.01)):
        settings = {**TEACHER, "training.control": False, "training.eta": eta}
        sims.run_sweep("teacher-learning", {}, 4, tmp_path / name, 0, set=settings)
    _, tables = beside(reports.load(tmp_path / "a"), reports.load(tmp_path / "b"))
    header, rows = texts_of(tables[-1])
    errors = [row for row in rows if row[header.index("measure")] == "error"]
    assert errors and all(row[header.index("over")] == "4 pairs" for row in errors)


# ---- what earlier versions left


def test_what_an_earlier_version_stored_is_refused_in_one_line(tmp_path):
    settings = {**TEACHER, "training.control": False}
    sims.run_sweep("teacher-learning", {}, 2, tmp_path / "sweep", 0, set=settings)
    with sqlite3.connect(tmp_path / "sweep" / FILE) as file:
        file.execute("pragma user_version = 2")
    sims.run_experiment("teacher-learning", settings, out=tmp_path / "run")
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["schema_version"] == SCHEMA_VERSION
    (tmp_path / "run" / "provenance.json").write_text(
        json.dumps({**provenance, "schema_version": 1})
    )
    for name in ("sweep", "run"):
        with pytest.raises(
            InputError, match=r"another version of perturb \(schema_version \d, here \d\): "
        ) as caught:
            reports.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="sweep anew into another directory$"):
        sims.run_sweep("teacher-learning", {}, 2, tmp_path / "sweep", 0, set=settings)
