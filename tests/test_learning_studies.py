"""The studies of learning on many dies, and of what each imperfection costs it."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shown import fact, frames_of, row_of, spoken, tables_of, texts_of

import sims
from hardware.params import marked
from perturb import InputError
from reports import vocabulary
from reports.loading import of_run
from reports.studies import learning_ablation, learning_dies
from reports.studies.crossed import at_the_end, gain
from sims.experiment.loading import load_experiment
from sims.problem import prepare
from sims.studies.learning_ablation import BESIDE_OTHERS, SELDOM
from sims.studies.training.crossed import Crossed, evaluations_over
from sims.studies.training.variance import crossed_mean, mean_squares, shares

FEW = {
    "dies.count": 3,
    "dies.starts": 4,
    "training.updates": 400,
    "training.records": 6,
    "training.goal": 0.12,
}


def crossed_values(rng, D, S, dies, starts, rest):
    """Draws of the model: standard deviations between dies, between starts, and of the rest."""
    return (
        dies * rng.standard_normal((D, 1))
        + starts * rng.standard_normal((1, S))
        + rest * rng.standard_normal((D, S))
    )


def test_the_mean_squares_are_those_of_a_table_worked_by_hand():
    # rows 1, 3 and columns 2, 1, 3 in the mean of 2; rest -1, 1, 0, and the same with other signs
    found = mean_squares(np.array([[0.0, 1.0, 2.0], [4.0, 1.0, 4.0]]))
    assert found.squares == pytest.approx((6.0, 2.0, 2.0)) and found.dof == (1, 2, 2)


@pytest.mark.parametrize("sds", [(1.0, 0.5, 0.5), (0.5, 1.0, 1.0), (0.0, 1.0, 0.3)])
def test_the_interval_of_a_mean_counts_dies_and_starts_as_samples(sds):
    rng = np.random.default_rng(1)
    D, S, repeats = 8, 6, 4000
    covered = alone = 0
    squares = []
    for _ in range(repeats):
        values = crossed_values(rng, D, S, *sds)
        found = crossed_mean(values)
        squares.append(found.stderr**2)
        covered += abs(found.value) <= found.reach
        # as if every run were a sample by itself
        alone += abs(found.value) <= 2 * values.std(ddof=1) / np.sqrt(D * S)
    dies, starts, rest = sds
    known = dies**2 / D + starts**2 / S + rest**2 / (D * S)
    # parts that are not below 0 make it a little large at most
    error = 5 * np.std(squares) / np.sqrt(repeats)
    assert known - error <= np.mean(squares) <= 1.05 * known + error
    # 0.95 but for what Satterthwaite's degrees of freedom leave
    assert 0.93 <= covered / repeats <= 0.985
    assert alone / repeats < 0.9


@pytest.mark.parametrize("dies, starts", [(0.0, 2.0), (1.0, 0.0), (2.0, 1.0)])
def test_the_intervals_of_what_dies_and_starts_make_of_the_variance_are_exact(dies, starts):
    rng = np.random.default_rng(2)
    repeats = 2000
    covered = np.zeros(2)
    for _ in range(repeats):
        for i, (share, sd) in enumerate(
            zip(
                shares(crossed_values(rng, 7, 5, dies, starts, 1.0))[:2],
                (dies, starts),
                strict=True,
            )
        ):
            covered[i] += share.low <= sd**2 / (1 + sd**2) <= share.high
    five = 5 * np.sqrt(0.05 * 0.95 / repeats)
    # at a share of 0 the lower end is never above it by chance alone: one side only
    for cover, sd in zip(covered / repeats, (dies, starts), strict=True):
        assert (0.975 if sd == 0 else 0.95) - five <= cover <= 0.975 + five


def test_where_one_die_or_one_start_is_seen_only_the_other_is_a_sample():
    each = np.array([[1.0, 2.0, 6.0]])
    for values in (each, each.T):
        found = crossed_mean(values)
        assert (found.value, found.dof) == (3.0, 2)
        assert found.stderr == pytest.approx(np.sqrt(7.0 / 3))
        assert all(np.isnan(share.value) for share in shares(values)[:2])
    assert np.isnan(crossed_mean(np.ones((1, 1))).stderr)
    # all alike: that no other is seen says nothing of how far the next would be off
    assert np.isnan(crossed_mean(np.ones((3, 3))).reach)


@pytest.fixture(scope="module")
def mismatched():
    chip = {"chip.perturbation.gain_mismatch": 0.5, "chip.error_unit.noise": 1e-3}
    return sims.run_experiment("xor-learning", {**FEW, **chip, "study": "learning-dies"})


def test_starts_are_the_same_on_every_die_and_more_dies_change_none(mismatched):
    design = mismatched.runs[mismatched.runs["chip"] == "design"]
    assert len(design) == 12 and design["die"].nunique() == 3 and design["run_seed"].nunique() == 12
    by_die = design.groupby("die")["start_seed"].apply(tuple)
    assert by_die.nunique() == 1 and len(set(by_die.iloc[0])) == 4
    fewer = sims.run_experiment(
        mismatched.experiment.name,
        {**FEW, "dies.count": 2, "study": "learning-dies"}
        | {"chip.perturbation.gain_mismatch": 0.5, "chip.error_unit.noise": 1e-3},
    ).runs
    own = fewer[fewer["chip"] == "design"]
    assert own.equals(design.iloc[:8])
    # the ideal chip: the same runs, and no die that counts
    ideal = mismatched.runs[mismatched.runs["chip"] == "ideal"]
    assert list(ideal["run_seed"]) == list(design["run_seed"])
    assert not np.array_equal(ideal["error"], design["error"])


def test_yield_counts_the_dies_that_solve_enough_starts(mismatched):
    share = (mismatched.dies["solved"] >= 0.5).mean()
    assert fact(mismatched, "yield", "design") == pytest.approx(share)
    runs = mismatched.runs[mismatched.runs["chip"] == "design"]
    assert (runs["solved"] == (runs["error"] <= 0.12)).all()
    assert fact(mismatched, "solved", "design") == pytest.approx(runs["solved"].mean())
    spent = runs["evaluations_to_goal"].where(runs["solved"], runs["evaluations"])
    per_solved = spent.sum() / runs["solved"].sum()
    assert fact(mismatched, "evaluations_per_solved", "design") == pytest.approx(per_solved)
    # the first sentence says what limits
    assert spoken(mismatched)[0][0].startswith("The chip's imperfections")
    # dies have short numbers there, and seeds in the files
    frames = of_run(
        Path(), mismatched.tables, mismatched.experiment.model_dump(), mismatched.provenance
    )
    headings, rows = texts_of(tables_of(frames)[1])
    assert headings[0] == "die" and sorted(row[0] for row in rows) == ["1", "2", "3"]
    assert mismatched.dies["die"].max() > 3


def test_a_chip_is_compared_with_itself_exactly():
    experiment = load_experiment("xor-learning", FEW)
    crossed = Crossed(experiment, prepare(experiment))
    runs, stopped = crossed.learn(
        experiment.chip, "chip", lambda what, done, total: None, lambda: False
    )
    assert not stopped and runs["solved"].any()
    assert evaluations_over(runs, runs, crossed) == (1.0, 0.0, 1.0, 1.0)
    none = runs.assign(solved=False)
    assert evaluations_over(none, runs, crossed).value == np.inf
    assert np.isnan(evaluations_over(runs, none, crossed).value)
    # twice the evaluations in every run: twice, with no error but that of rounding
    twice = runs.assign(
        evaluations_to_goal=2 * runs["evaluations_to_goal"], evaluations=2 * runs["evaluations"]
    )
    assert evaluations_over(twice, runs, crossed).value == pytest.approx(2.0)


@pytest.mark.slow
def test_ablation_of_learning_names_what_limits_and_lists_nothing_that_is_not_used():
    run = sims.run_experiment(
        "xor-learning",
        {
            **FEW,
            "study": "learning-ablation",
            "dies.starts": 8,
            "chip.error_unit.noise": 0.1,
            "chip.perturbation.gain_mismatch": 0.02,
            # the plain rule asks for no s = dw.v
            "chip.summing_line.noise": 1.0,
            "chip.summing_line.bits": 3,
        },
    )
    keys = ("perturbation.gain_mismatch", "error_unit.noise")
    names = ["all", "ideal", *(f"{group} {key}" for key in keys for group in ("all but", "only"))]
    assert list(dict.fromkeys(run.runs["chip"])) == names
    # the same starts, dies and seeds in every column
    for column in ("die", "start", "run_seed", "start_seed"):
        assert run.runs.groupby("chip")[column].apply(tuple).nunique() == 1
    # a chip learns alike whatever it is beside
    alone = run.runs[run.runs["chip"] == "ideal"]["error"].to_numpy()
    assert fact(run, "error", "ideal") == pytest.approx(alone.mean())
    assert fact(run, "solved", "all but error_unit.noise") > fact(run, "solved", "all")
    row = row_of(run, "solved_more", "all but error_unit.noise")
    assert 0 < row["low"] < row["value"] < row["high"]
    first, what = spoken(run)[0]
    assert first == "error_unit.noise limits:" and "solves +" in what
    frames = of_run("", run.tables, run.experiment.model_dump(), run.provenance)
    heads, rows = texts_of(tables_of(frames)[0])
    assert [cells[0] for cells in rows][:3] == ["all", "ideal", "all but error_unit.noise"]
    assert heads[0] == "chip" and "summing" not in str(rows)


def test_of_one_imperfection_the_chip_without_it_is_the_ideal_one():
    run = sims.run_experiment(
        "xor-learning", {**FEW, "study": "learning-ablation", "chip.error_unit.noise": 1e-3}
    )
    by = {name: own.drop(columns="chip") for name, own in run.runs.groupby("chip")}
    assert len(by) == 4
    for name, other in (("all", "only"), ("ideal", "all but")):
        same = by[f"{other} error_unit.noise"].reset_index(drop=True)
        assert same.equals(by[name].reset_index(drop=True))


def test_what_learning_does_not_meet_is_no_imperfection_to_ablate():
    for chip, says in (
        ({}, "chip has no imperfection to take away"),
        ({"chip.summing_line.noise": 1.0}, "learning meets none of its imperfections"),
    ):
        with pytest.raises(InputError, match=says):
            sims.run_experiment("xor-learning", {**FEW, "study": "learning-ablation", **chip})
    with pytest.raises(InputError, match='training.source = "exact" learns without a chip'):
        sims.run_experiment(
            "xor-learning", {**FEW, "study": "learning-dies", "training.source": "exact"}
        )


def test_an_interrupted_ablation_has_the_chips_that_ended():
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) > 150

    run = sims.run_experiment(
        "xor-learning",
        {**FEW, "study": "learning-ablation", "chip.error_unit.noise": 1e-3}
        | {"chip.perturbation.gain_mismatch": 0.1},
        should_stop=should_stop,
    )
    assert run.provenance["status"] == "partial"
    names = list(dict.fromkeys(run.runs["chip"]))
    assert 1 <= len(names) < 6 and set(run.summary["subject"]) == set(names)
    assert all(len(own) == 12 for _, own in run.runs.groupby("chip"))
    assert spoken(run) is not None


@pytest.mark.parametrize("asks, chips", [(3, ["design"]), (70, ["design", "ideal"])])
def test_interrupted_dies_have_what_was_learned_up_to_then(asks, chips):
    asked = []

    def should_stop():
        asked.append(1)
        return len(asked) > asks

    run = sims.run_experiment(
        "xor-learning",
        {**FEW, "study": "learning-dies", "chip.perturbation.gain_mismatch": 0.3},
        should_stop=should_stop,
    )
    assert run.provenance["status"] == "partial"
    assert list(dict.fromkeys(run.runs["chip"])) == chips
    # runs that got less far are compared with none
    assert "saved" not in set(run.summary["measure"])
    assert [name for name, _ in spoken(run)][0].startswith("Yield where the runs were stopped")


@pytest.mark.parametrize(
    "study, asks",
    [
        ("learning-dies", 30),
        *[
            pytest.param(study, asks, marks=pytest.mark.slow)
            for study in ("learning-dies", "learning-ablation")
            for asks in (1, 58, 75)
        ],
    ],
)
def test_an_interrupted_study_of_learning_goes_on_to_the_same_numbers(study, asks, tmp_path):
    set = {**FEW, "study": study, "chip.weights.bits": 7, "training.updates": 60}
    done = []
    calls = iter(range(asks))
    part = sims.run_experiment(
        "xor-learning", set, scratch=tmp_path, should_stop=lambda: next(calls, None) is None
    )
    assert part.provenance["status"] == "partial" and list(tmp_path.glob("*.npz"))
    whole = sims.run_experiment("xor-learning", set)
    again = sims.run_experiment(
        "xor-learning", set, scratch=tmp_path, progress=lambda *at: done.append(at)
    )
    assert again.tables.keys() == whole.tables.keys()
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)
    # it does not begin anew, and leaves nothing behind
    assert done[0][1] > 0 or asks == 1
    assert not list(tmp_path.iterdir())


def changed(run, **values):
    """The run with other values, low and high of what is saved over the chip as it is."""
    summary = run.summary.copy()
    for key, three in values.items():
        own = (summary["measure"] == "saved") & summary["subject"].str.endswith(key)
        assert own.any()
        # a twentieth of what is left is its standard error
        summary.loc[own, ["value", "low", "high", "stderr"]] = (*three, (1 - three[0]) / 20)
    return dataclasses.replace(run, tables={**run.tables, "summary": summary})


def test_what_raises_the_error_at_the_end_is_said_beside_what_costs_evaluations():
    """A device that doubles E, and does not cost an evaluation to the goal."""
    rows = {(vocabulary.ALL, "error"): {"value": 0.2, "stderr": 0.005}}
    for name, value, stderr in (
        ("weights.device", 0.1, 0.005),
        ("error_unit.noise", 0.195, 0.0001),  # sure, and too little to matter
        ("error_unit.bits", 0.15, 0.03),  # much, and not sure
    ):
        rows[f"all but {name}", "error"] = {"value": value, "stderr": stderr}
    names = ["weights.device", "error_unit.noise", "error_unit.bits"]
    said = learning_ablation._errors(rows, names)
    assert said == (
        "0.2 on the chip as it is, raised by weights.device (2 times that of a chip without it,"
        " 0.1)"
    )
    assert learning_ablation._errors(rows, names[1:]) == ""


@pytest.mark.slow
def test_what_limits_is_said_as_surely_as_it_is_known():
    run = sims.run_experiment(
        "xor-learning",
        {
            **FEW,
            "study": "learning-ablation",
            "chip.error_unit.noise": 1e-3,
            "chip.perturbation.gain_mismatch": 0.1,
        },
    )
    small = (0.02, -0.03, 0.07)
    for noise, name, text in (
        ((0.4, 0.3, 0.5), "error_unit.noise limits:", "saves 40 % [30 %, 50 %]"),
        ((0.1, 0.01, 0.2), "error_unit.noise is likely to limit:", "of 2 that were taken away one"),
        (small, "No single imperfection is seen to limit:", "not more than 7 %"),
    ):
        found = spoken(changed(run, noise=noise, gain_mismatch=small))
        assert found[0][0] == name and text in found[0][1]
    # the other one, too
    both = spoken(changed(run, noise=(0.4, 0.3, 0.5), gain_mismatch=(0.3, 0.2, 0.4)))
    assert "so would a chip without perturbation.gain_mismatch (30 %" in both[0][1] or (
        "so would a chip without error_unit.noise (40 %" in both[0][1]
    )


@pytest.mark.parametrize(
    "study, first",
    [
        ("dies", "What limits is not known:"),
        pytest.param("ablation", "What limits is not known:", marks=pytest.mark.slow),
    ],
)
def test_where_no_run_is_solved_no_better_chip_is_said_to_solve_any(study, first):
    run = sims.run_experiment(
        "xor-learning",
        {
            **FEW,
            "study": f"learning-{study}",
            "training.updates": 4,
            "training.goal": 1e-9,
            "chip.perturbation.gain_mismatch": 0.1,
        },
    )
    found = spoken(run)
    assert found[0][0] == first
    assert any(text.endswith("solves no run either") for _, text in found)
    assert not any("be solved at all" in text for _, text in found)


def test_what_is_met_seldom_is_named_as_the_chip_names_it():
    assert {*SELDOM, *BESIDE_OTHERS} <= set(marked("imperfection"))


def test_event_by_event_as_in_batches():
    few = {
        **FEW,
        "study": "learning-dies",
        "dies.count": 2,
        "dies.starts": 2,
        "training.updates": 20,
        "chip.neuron.offset_mismatch": 0.1,
        "chip.error_unit.noise": 1e-3,
    }
    batch, event = (
        sims.run_experiment("xor-learning", {**few, "training.source": source})
        for source in ("batch", "event")
    )
    for of in ("error", "die", "run_seed", "chip_time_s"):
        own, other = (run.runs[run.runs["chip"] == "design"][of] for run in (batch, event))
        np.testing.assert_allclose(own, other, rtol=1e-9)


def test_what_an_ideal_chip_ends_better_with_is_said_of_dies_too():
    rows = {
        (name, measure): {"value": value, "stderr": stderr}
        for name, measure, value, stderr in (
            (vocabulary.DESIGN, "error", 0.229, 0.001),
            (vocabulary.IDEAL, "error", 0.168, 0.001),
            (vocabulary.DESIGN, "test_accuracy", 0.892, 0.0013),
            (vocabulary.IDEAL, "test_accuracy", 0.907, 0.0012),
            (vocabulary.DESIGN, "accuracy", 0.92, 0.01),  # not sure
            (vocabulary.IDEAL, "accuracy", 0.93, 0.01),
        )
    }
    said = at_the_end(rows, "design", "ideal", ["test_accuracy", "accuracy", "error", "other"])
    assert said == (
        "test accuracy 0.907 instead of 0.892, 8.5 standard errors apart and error 0.168 instead of"
        " 0.229, 43.1 standard errors apart"
    )
    # turned round, it is better at nothing
    assert at_the_end(rows, "ideal", "design", ["test_accuracy", "error"]) == ""


def test_what_takes_more_is_said_to_cost_it():
    assert gain({"value": -0.0327, "low": -0.379, "high": 0.227}) == (
        "costs 3.27 % [-22.7 %, 37.9 %] more evaluations for a solved run"
    )
    assert gain({"value": 0.1, "low": 0.05, "high": 0.2}).startswith("saves 10 % [5 %, 20 %]")


def test_dies_end_worse_than_the_ideal_chip_and_are_sorted_by_the_goal(mismatched):
    frames = frames_of(mismatched)
    summary, runs = frames.summary.copy(), frames.runs.copy()
    for name, value in ((vocabulary.DESIGN, 0.3), (vocabulary.IDEAL, 0.1)):
        own = (summary["subject"] == name) & (summary["measure"] == "error")
        summary.loc[own, ["value", "stderr"]] = (value, 0.001)
    never = summary["measure"].isin(["saved", "solved_more"])
    summary.loc[never, ["value", "low", "high"]] = (0.0, -0.1, 0.1)
    # of a goal in accuracy: the die with the largest error has the best accuracy
    dies = list(dict.fromkeys(runs["die"]))
    runs["test_accuracy"] = [0.9 - 0.01 * dies.index(die) for die in runs["die"]]
    each = frames.dies.assign(solved=1.0, error=[0.5, 0.3, 0.1])
    experiment = dict(frames.experiment)
    experiment["training"] = {**experiment["training"], "criterion": "test_accuracy", "goal": 0.8}
    tables = {**frames.tables, "summary": summary, "runs": runs, "dies": each}
    changed_ = dataclasses.replace(frames, tables=tables, experiment=experiment)
    limit, text = learning_dies.verdicts(changed_)[0]
    assert limit.startswith("The chip's imperfections make learning end worse")
    assert text.startswith("an ideal chip ends with error 0.1 instead of 0.3, 141.4 standard")
    table = learning_dies.tables(changed_)[1]
    assert table.frame["number"].tolist() == [3, 2, 1]
    axis = learning_dies.dies(changed_).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["3", "2", "1"]
    # a colour for each start in the legend, of one size
    handles = axis.figure.legends[0].legend_handles
    assert len(handles) == 4 and {handle.get_markersize() for handle in handles} == {4}
    assert axis.figure.legends[0]._ncols == 4


def test_progress_is_that_of_all_chips():
    """So that the time left is that of all of them."""
    told = []
    sims.run_experiment(
        "xor-learning",
        {**FEW, "study": "learning-dies", "chip.weights.bits": 7, "training.updates": 40},
        progress=lambda *at: told.append(at),
    )
    assert {name for name, _, _ in told} == {"learning, 2 chips"}
    done = [done for _, done, _ in told]
    assert done == sorted(done) and done[-1] == 80 and {total for *_, total in told} == {80}


def test_the_picture_of_an_ablation_has_intervals_and_the_error_at_the_end():
    run = sims.run_experiment(
        "xor-learning",
        {
            **FEW,
            "study": "learning-ablation",
            "training.updates": 250,
            "chip.error_unit.noise": 1e-2,
            "chip.weights.bits": 6,
        },
    )
    frames = frames_of(run)
    figure = learning_ablation.ablation(frames)
    spent, end = figure.axes
    names = learning_ablation.chips(frames)
    found = {bar.get_y() + bar.get_height() / 2: bar.get_width() for bar in end.patches}
    for place, name in enumerate(names):
        assert found[place] == pytest.approx(fact(run, "error", name))
    (bars,) = end.collections
    middle = [float(line[:, 0].mean()) for line in bars.get_segments()]
    assert middle == pytest.approx([fact(run, "error", name) for name in names])
    # of evaluations: the interval of what is saved, times what the chip as it is takes
    base = fact(run, "evaluations_per_solved", "all")
    saved = row_of(run, "saved", "ideal")
    ends = learning_ablation._spent_ends(learning_ablation.rows_by_name(frames), "ideal")
    assert ends[0] == fact(run, "evaluations_per_solved", "ideal")
    np.testing.assert_allclose(
        ends[1:], [base * (1 - saved["high"]), base * (1 - saved["low"])], equal_nan=True
    )
    assert spent.get_xlabel().startswith("evaluations")
