"""What the energy of learning goes into."""

import json

import numpy as np
import pytest
from fast import fast
from shown import fact, figures_of, tables_of, texts_of

import reports
import sims
from perturb import InputError
from reports.studies.training.energy import by_cause

SMALL = {
    "training.updates": 60,
    "training.runs": 4,
    "training.goal": 0.125,  # what guessing gives: soon reached, but not by all
    "training.control": False,
    "training.compare_with": [],
}
MEASURED = {"estimation.method": "difference", "training.trials_per_update": 4}
CASES = {
    "plain": {},
    "by events": {"training.source": "event", "training.updates": 20},
    "not waiting": {"training.waits": False, "chip.weights.write_ns": 20_000},
    "devices": {"chip.weights.device": "reram-gong2018", "estimation.sigma": 0.1},
    "refreshed": {"chip.weights.refresh_s": 1e-4, "chip.weights.leak_tau_s": 1e-2},
    "products": {**MEASURED, "training.rule": "newton-cg"},
    "a measured rate": {**MEASURED, "training.rate": "trace", "training.tune_every": 7},
    "iterated": {**MEASURED, "training.rate": "eigenvalue", "training.tune_every": 20},
    "judged": {"training.block": 3.0, "training.longest_step": 0.5},
    "calibrated": {"training.calibrate": 20},
    "compared": {"training.compare_with": [{"label": "slow", "eta": 1e-6}]},
}


@pytest.mark.parametrize("case", fast(CASES, "plain", "products"))
def test_the_parts_sum_to_what_the_training_reports(case):
    run = sims.run_experiment("xor-learning", SMALL | CASES[case])
    learning = run.learning
    first = learning[learning["error"] <= 0.125].groupby(["source", "run"])["energy_j"].first()
    last = learning.groupby(["source", "run"])["energy_j"].last()
    spent = run.energy.groupby(["source", "run"])[["energy_to_goal_j", "energy_j"]].sum()
    np.testing.assert_allclose(spent["energy_j"].loc[last.index], last, rtol=1e-9)
    to_goal = first.reindex(spent.index).fillna(np.inf)
    np.testing.assert_allclose(spent["energy_to_goal_j"], to_goal, rtol=1e-9)
    for column, measure in (("energy_to_goal_j", "energy_to_goal"), ("energy_j", "energy")):
        for source, own in by_cause(run.frames, column).items():
            assert own.sum() == pytest.approx(fact(run, measure, source), rel=1e-9)
    kinds = run.energy.groupby("cause")["energy_j"].sum() > 0
    assert kinds["host"] == (case in ("products", "iterated", "judged"))
    assert kinds["refresh"] == (case == "refreshed")
    assert kinds[["mac", "conversion", "broadcast_bit", "accumulate", "write", "static"]].all()


def test_each_cause_is_what_is_counted_times_what_it_costs():
    chip = sims.load_experiment("xor-learning").chip
    run = sims.run_experiment("xor-learning", SMALL)
    own = run.energy[run.energy["run"] == 0].set_index("cause")["energy_j"]
    row = run.learning.groupby("run").last().loc[0]
    trials, readings, n = row["trials"], row["evaluations"], 9
    joules = {
        "perturbation": readings * n * chip.energy.perturbation_j,
        "mac": readings * 4 * n * chip.energy.mac_j,
        "conversion": readings * 4 * chip.energy.conversion_j,
        "broadcast_bit": trials * chip.bus.word_bits * chip.energy.broadcast_bit_j,
        "accumulate": trials * n * chip.energy.accumulate_j,
        "write": 60 * n * chip.energy.weight_write_j,
        "host": 0.0,
        "static": row["chip_time_s"] * chip.energy.static_w,
        "refresh": 0.0,
    }
    assert own.to_dict() == pytest.approx(joules, rel=1e-12)


def test_an_even_number_of_runs_has_two_in_the_middle():
    run = sims.run_experiment("xor-learning", {**SMALL, "training.runs": 6})
    totals = run.energy.groupby("run")["energy_to_goal_j"].sum()
    order = totals[np.isfinite(totals)].sort_values().index
    assert len(order) in (2, 4)  # else the seed shows nothing
    middle = order[len(order) // 2 - 1 : len(order) // 2 + 1]
    own = run.energy[run.energy["run"].isin(middle)].groupby("cause")["energy_to_goal_j"].sum()
    found = by_cause(run.frames, "energy_to_goal_j")["batch"]
    assert found.to_dict() == pytest.approx((own / 2).to_dict(), rel=1e-12)


def energy_of(run):
    shown = [table for table in tables_of(run.frames) if table.title.startswith("What the energy")]
    return shown, figures_of(run.frames).get("energy")


def test_a_goal_that_is_never_reached_is_no_energy_of_zero():
    label = [{"label": "still", "eta": 1e-9}]
    run = sims.run_experiment(
        "xor-learning",
        {**SMALL, "training.runs": 2, "training.goal": 0.12, "training.compare_with": label},
    )
    assert np.isinf(fact(run, "energy_to_goal", "still"))
    (table,), (figure, _) = energy_of(run)
    headings, rows = texts_of(table)
    assert "to goal, still" not in headings and "in all, still" in headings
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == [" never"]
    # a row for what is spent at all, and their sum
    assert [row[0] for row in rows][-1] == "together" and all(row[1] != "-" for row in rows)
    none = sims.run_experiment("xor-learning", {**SMALL, "training.goal": 1e-9})
    (table,), (figure, _) = energy_of(none)
    assert table.headings == ["cause", "in all"] and len(figure.axes) == 1


def test_energy_that_is_free_is_not_shown():
    keys = ("perturbation_j", "mac_j", "conversion_j", "broadcast_bit_j", "accumulate_j")
    free = {f"chip.energy.{key}": 0.0 for key in (*keys, "weight_write_j", "static_w")}
    assert energy_of(sims.run_experiment("xor-learning", SMALL | free)) == ([], None)
    exact = sims.run_experiment("xor-learning", {**SMALL, "training.source": "exact"})
    assert len(exact.energy) == 0 and energy_of(exact) == ([], None)


def test_a_run_that_stored_no_causes_is_shown_without(tmp_path):
    sims.run_experiment("xor-learning", {**SMALL, "training.updates": 5}, out=tmp_path / "run")
    about = tmp_path / "run" / "provenance.json"
    stored = json.loads(about.read_text())
    (tmp_path / "run" / "energy.parquet").unlink()
    # lost, and not never written
    with pytest.raises(InputError, match=r"energy\.parquet: missing"):
        reports.load(tmp_path / "run")
    del stored["files"]["energy.parquet"]
    about.write_text(json.dumps(stored))
    frames = reports.load(tmp_path / "run")
    titles = [table.title for table in tables_of(frames)]
    assert "energy" not in frames.tables and "What the energy goes into" not in titles
    assert "energy" not in figures_of(frames)
