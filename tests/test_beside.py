"""Two runs, or two sweeps, side by side."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, ttest_rel
from shown import tables_of, texts_of

import reports
import sims
from perturb import InputError
from reports import compare as comparison
from reports.compare import _facts
from reports.compare import compare as beside
from reports.formats import Estimate, number
from reports.store.sweep_database import Outcome
from sims.sweeps import cell as cells

NOISE = "chip.error_unit.noise"
SMALL = {"estimation.trials": 64}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    sims.run_experiment("xor", SMALL, out=folder / "a")
    sims.run_experiment("xor", {**SMALL, NOISE: 0.01, "chip.bus.latency_ns": 300}, out=folder / "b")
    for name, noise in (("dies-a", 1e-3), ("dies-b", 1e-2)):
        sims.run_experiment(
            "xor", {**SMALL, "study": "dies", "dies.count": 3, NOISE: noise}, out=folder / name
        )
    for name, seed, sigma in (("sweep-a", 0, 0.01), ("sweep-b", 0, 0.1), ("sweep-c", 100, 0.1)):
        vary, settings = (
            {NOISE: [1e-3, 1e-2]},
            {**SMALL, "run.seed": seed, "estimation.sigma": sigma},
        )
        sims.run_sweep("xor", vary, 5, folder / name, workers=0, set=settings)
    return folder


def side_by_side(runs, a, b):
    sentences, tables = beside(reports.load(runs / a), reports.load(runs / b))
    return sentences, {table.title: texts_of(table) for table in tables}


@pytest.mark.slow
def test_two_runs_differ_where_their_settings_do(runs):
    sentences, tables = side_by_side(runs, "a", "b")
    assert sentences[0] == "The results differ."
    assert tables["What was set differently"][1] == [
        [NOISE, "0.0", "0.01"],
        ["chip.bus.latency_ns", "100", "300"],
    ]
    header, rows = tables["A and B"]
    assert [row[0] for row in rows][-1] == "z = Hv, difference/walsh" and len(rows) == 6
    a, b = (reports.load(runs / name).summary for name in "ab")
    for row, one, other in zip(rows, a.to_dict("records"), b.to_dict("records"), strict=True):
        found = dict(zip(header, row, strict=True))
        for name in ("cosine", "relative_error"):
            shown = [
                float(found[f"{name.replace('_', ' ')} {which}"].replace(",", "")) for which in "AB"
            ]
            np.testing.assert_allclose(shown, [one[name], other[name]], rtol=5e-3)
        assert found["evaluations A"] == f"{one['evaluations']:,}"


def test_a_run_is_the_same_as_itself_to_the_last_bit(runs, tmp_path):
    sims.run_experiment("xor", SMALL, out=tmp_path / "again")
    for other in (runs / "a", tmp_path / "again"):
        sentences, tables = side_by_side(runs, "a", other)
        assert sentences == ["The results are the same, to the last bit."] and list(tables) == [
            "A and B"
        ]


def test_facts_differ_in_standard_errors(runs):
    _, tables = side_by_side(runs, "dies-a", "dies-b")
    rows = {row[0]: row for row in tables["A and B"][1]}
    a, b = (
        reports.load(runs / name).fact("median_cosine", "gradient") for name in ("dies-a", "dies-b")
    )
    assert float(rows["gradient: median cosine"][3]) == pytest.approx(b - a, rel=5e-3)


@pytest.mark.slow
def test_the_chip_in_batches_is_set_beside_the_chip_by_events(tmp_path):
    small = {
        "training.updates": 20,
        "training.runs": 2,
        "training.compare_with": [],
        "chip.weights.leak_tau_s": 1.0,
    }
    for source in ("batch", "event"):
        sims.run_experiment(
            "xor-learning", {**small, "training.source": source}, out=tmp_path / source
        )
    sentences, tables = beside(reports.load(tmp_path / "batch"), reports.load(tmp_path / "event"))
    facts = {row[0]: row[3] for row in texts_of(tables[-1])[1]}
    assert len(sentences) == 2 and sentences[1].startswith("share of runs solved A 0 ")
    assert texts_of(tables[0])[1] == [["training.source", '"batch"', '"event"']]
    assert facts["chip: error"] == facts["chip: gap to exact"] == "0"


@pytest.mark.parametrize("other, paired", [("sweep-b", True), ("sweep-c", False)])
def test_two_sweeps_differ_by_a_mean_with_its_interval(runs, other, paired):
    sentences, tables = side_by_side(runs, "sweep-a", other)
    header, rows = tables["A and B"]
    a, b = reports.load(runs / "sweep-a").summary, reports.load(runs / other).summary
    assert len(rows) == 2 * 6 * 2 and header[1:3] == ["noise", "measure"]
    differ = 0
    for row in rows:
        label, noise, measure = row[0], float(row[1]), row[2].replace(" ", "_")
        quantity = "hv" if label.startswith("z = Hv") else "gradient"
        method = label.split(", ")[1].split("/")[0]
        one, two = (
            of.loc[
                (of[NOISE] == noise) & (of["quantity"] == quantity) & (of["method"] == method),
                measure,
            ]
            for of in (a, b)
        )
        test = ttest_rel(two, one) if paired else ttest_ind(two, one, equal_var=False)
        low, high = test.confidence_interval(0.95)
        shown = [float(cell.replace(",", "")) for cell in row[3:-1]]
        assert row[-1] == ("5 pairs" if paired else "5, 5 runs")
        size = max(abs(one.mean()), abs(two.mean()))
        np.testing.assert_allclose(
            shown,
            [one.mean(), two.mean(), two.mean() - one.mean(), low, high],
            rtol=6e-3,
            atol=1e-9 * size,
        )
        differ += low > 0 or high < 0
    assert (
        f"24 means at points that both have are compared; for {differ} the 95 % interval"
        in sentences[-1]
    )
    assert 0 < differ < 24


@pytest.mark.slow
def test_repeats_that_both_have_are_compared_in_pairs(runs, tmp_path):
    settings = {**SMALL, "run.seed": 0, "estimation.sigma": 0.1}
    sims.run_sweep("xor", {NOISE: [1e-3, 1e-2]}, 2, tmp_path / "two", workers=0, set=settings)
    _, tables = side_by_side(runs, "sweep-b", tmp_path / "two")
    header, rows = tables["A and B"]
    assert {row[-1] for row in rows} == {"2 pairs"} and {row[5] for row in rows} == {"0"}
    assert f"Where mean cosine >= 0.9 is met: {NOISE}" in tables


@pytest.mark.slow
def test_a_seed_counts_once_where_one_sweep_varies_more_keys(runs, tmp_path):
    vary = {NOISE: [1e-3, 1e-2], "estimation.sigma": [0.02, 0.05]}
    sims.run_sweep("xor", vary, 5, tmp_path / "more", workers=0, set={**SMALL, "run.seed": 0})
    for a, b in ((tmp_path / "more", runs / "sweep-a"), (runs / "sweep-a", tmp_path / "more")):
        _, tables = side_by_side(runs, a, b)
        assert {row[-1] for row in tables["A and B"][1]} == {"5 pairs"}
        names = [row[0] for row in tables[f"Where mean cosine >= 0.9 is met: {NOISE}"][1]]
        assert len(set(names)) == len(names) and any(
            name.endswith(", sigma = 0.02") for name in names
        )


def test_runs_without_a_value_are_not_counted(monkeypatch, tmp_path):
    values = {
        "a": [1.0, 2.0, np.nan, 3.0, np.nan],
        "b": [3.0, 7.0, 2.5, np.nan, np.nan],
        "none": [np.nan] * 4 + [1.0],
    }
    for i, (name, own) in enumerate(values.items()):
        each = iter(own)

        def cell(experiment, keep, each=each):
            rows = {
                "quantity": ["hv"],
                "method": ["difference"],
                "code": ["walsh"],
                "primary": [True],
                "cosine": [next(each) / 10],
            }
            return Outcome("done", 1.0, 2.0, json.dumps(rows))

        monkeypatch.setattr(cells, "run_cell", cell)
        sims.run_sweep(
            "xor", {NOISE: [1.0]}, 5, tmp_path / name, workers=0, set={**SMALL, "run.seed": 100 * i}
        )
    a, b = (np.array(values[name]) / 10 for name in "ab")
    row = side_by_side(tmp_path, "a", "b")[1]["A and B"][1][0]
    low, high = ttest_ind(b[:3], a[[0, 1, 3]], equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(
        [float(cell) for cell in row[5:8]], [b[:3].mean() - 0.2, low, high], rtol=6e-3
    )
    assert row[8] == "3, 3 runs"
    # of one value there is no spread, and of none no mean
    assert side_by_side(tmp_path, "a", "none")[1]["A and B"][1][0][5:] == [
        "-0.1",
        "-",
        "-",
        "3, 1 runs",
    ]


@pytest.mark.slow
def test_no_two_rows_have_the_same_name(tmp_path):
    label = [
        {"label": "chip", "rule": "momentum"},
        {"label": "exact gradient", "rule": "plain", "eta": 0.1},
    ]
    small = {"training.updates": 20, "training.runs": 2, "training.compare_with": label}
    # what is the same in both is left out: the exact gradient, after as many updates
    for name, source, updates in (("a", "batch", 20), ("b", "event", 21), ("c", "batch", 21)):
        changes = {"training.source": source, "training.updates": updates}
        sims.run_experiment("xor-learning", {**small, **changes}, out=tmp_path / name)
    for other in ("b", "c"):
        facts = [row[0] for row in side_by_side(tmp_path, "a", other)[1]["A and B"][1]]
        assert len(set(facts)) == len(facts) and {
            "chip: solved",
            "chip, plain: solved",
            "the exact gradient: error",
        } <= set(facts)
    for table in tables_of(reports.load(tmp_path / "a")):
        assert table.frame[next(iter(table.columns))].is_unique
    vary = {"training.source": ["batch", "event"], NOISE: [1e-4]}
    settings = {"training.updates": 20, "training.runs": 2, "training.compare_with": []}
    sims.run_sweep("xor-learning", vary, 1, tmp_path / "both", workers=0, set=settings)
    sims.run_sweep(
        "xor-learning", {NOISE: [1e-4, 1e-3]}, 1, tmp_path / "one", workers=0, set=settings
    )
    rows = side_by_side(tmp_path, "both", "both")[1]["A and B"][1]
    assert {row[0] for row in rows} == {"chip", "chip by events", "exact gradient"}
    # the chip in batches in one sweep, and by events in another, is the same chip
    sims.run_sweep(
        "xor-learning",
        {NOISE: [1e-4]},
        1,
        tmp_path / "events",
        workers=0,
        set={**settings, "training.source": "event"},
    )
    rows = side_by_side(tmp_path, "one", "events")[1]["A and B"][1]
    assert {row[0] for row in rows} == {"chip", "exact gradient"}


def test_what_cannot_be_set_side_by_side_is_told(runs, command, tmp_path):
    for a, b, why in (
        ("a", "dies-a", "a run of compare, "),
        ("a", "sweep-a", "only the same study can be set side by side"),
    ):
        status, out, err = command("compare", runs / a, runs / b)
        assert status == 2 and out == "" and err.count("\n") == 1 and why in err
    sims.run_sweep("xor", {"estimation.r": [0.01, 0.1]}, 1, tmp_path / "r", workers=0, set=SMALL)
    with pytest.raises(InputError, match="vary no key in common"):
        side_by_side(runs, "sweep-a", tmp_path / "r")


def test_the_command_sets_two_side_by_side(runs, command, tmp_path):
    shutil.copytree(runs / "sweep-a", tmp_path / "copy")
    status, out, err = command("compare", runs / "sweep-a", tmp_path / "copy")
    assert status == 0 and err == "" and "The results are the same, to the last bit." in out
    assert "for 0 the 95 % interval of B - A leaves out 0." in out and out.startswith(
        "A: exclusive or"
    )


@pytest.mark.parametrize("alike, other, told", [(0.0, 0.01, False), (0.02, 0.01, True)])
def test_no_standard_errors_are_told_where_all_runs_of_one_ended_alike(alike, other, told):
    def run(value, stderr):
        row = {"subject": "batch", "measure": "test_accuracy", "value": value, "unit": "share"}
        summary = pd.DataFrame([{**row, "stderr": stderr}])
        return SimpleNamespace(summary=summary, directory="x", fact_name=lambda row: "accuracy")

    table = _facts(run(1.0, alike), run(0.9, other), [])
    assert np.isfinite(table.frame["errors"]).tolist() == [told]


@pytest.mark.slow
def test_two_trainings_end_with_what_counts_and_leave_out_what_is_the_same(tmp_path):
    small = {
        "training.updates": 1000,
        "training.runs": 8,
        "training.goal": 0.1,
        "training.compare_with": [],
        "chip.energy.static_w": 1e-3,
    }
    for name, bits in (("a", 8), ("b", 6)):
        settings = {**small, "chip.error_unit.bits": bits}
        sims.run_experiment("xor-learning", settings, out=tmp_path / name)
    a, b = reports.load(tmp_path / "a"), reports.load(tmp_path / "b")
    sentences, tables = beside(a, b)
    exact = (a.summary["subject"] == "exact").sum()
    assert f"exact gradient: all {exact} facts are the same in both, and left out." in sentences
    header, rows = texts_of(tables[-1])
    assert not any(row[0].startswith("exact gradient") for row in rows)
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert found["chip: energy"]["A"].split()[1] in ("uJ", "nJ", "mJ")
    # a mean of runs has a standard error, a median none
    for row in found.values():
        errors, says = row["in standard errors"], row["which is"]
        if row["B - A"] in ("0", "0 s", "0 J"):
            assert says == "the same"
        elif errors == "-":
            assert says == "not known"
        else:
            assert says == ("clear" if abs(float(errors)) >= 3 else "maybe chance")
    assert {"not known", "the same"} <= {row["which is"] for row in found.values()}
    last = sentences[-1]
    assert "; to error <= 0.1, first seen: chip time A " in last and ", energy A " in last
    # numbers stay numbers for programs
    rows = {
        (row["fact"]): row for row in tables[-1].frame[list(tables[-1].records)].to_dict("records")
    }
    assert rows["chip: energy"]["value_A"] == a.fact("energy", "batch")
    assert rows["chip: energy"]["unit"] == "J"


def test_whether_a_difference_is_more_than_chance():
    apart = comparison._both(
        Estimate(1.0, low=0.9, high=1.1), Estimate(2.0, low=1.5, high=3), number
    )
    assert apart == "A 1 [0.9, 1.1], B 2 [1.5, 3] (their intervals are apart)"
    near = comparison._both(
        Estimate(1.0, low=0.9, high=1.6), Estimate(2.0, low=1.5, high=3), number
    )
    assert near.endswith("(which may be chance)")
    unknown = comparison._both(Estimate(1.0), Estimate(2.0, low=1.5, high=3), number)
    assert unknown.endswith("(whether by chance is not known)")
    assert comparison._both(Estimate(1.0), Estimate(1.0), number) == "A 1, B 1"
