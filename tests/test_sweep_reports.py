"""Reports of sweeps: frames, means and intervals over repeats, what is wanted and where it is
met, words, files.
"""

import json
import shlex
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, t
from shown import figures_of, tables_of, texts_of, verdicts_of
from sweeping import VARY, made_up, same

import reports
import sims
from perturb import InputError
from perturb.seeds import derive_seed
from reports import formats
from reports.columns import THRESHOLDS
from reports.figures import svg
from reports.frames import Swept
from reports.statistics import Wanted, thresholds
from reports.store.sweep_database import Outcome
from reports.studies import VIEWS, view_of
from reports.studies.sweep import series as sweep_series
from sims.sweeps import cell as cells

NOISE = "chip.error_unit.noise"
SMALL = {"estimation.trials": 64}
LEARNING = {"training.updates": 60, "dies.count": 2, "dies.starts": 2}
OTHERS = {  # study: experiment, what is set, what is varied
    "estimators": (
        "estimators",
        {
            "estimators.repeats": 8,
            "estimation.trials": 256,
            "estimators.codes": ["gaussian", "walsh"],
        },
        {"estimation.sigma": [0.01, 0.1]},
    ),
    "ablation": ("xor", {**SMALL, "study": "ablation", "dies.count": 2}, {NOISE: [1e-3, 0.1]}),
    "dies": (
        "xor",
        {**SMALL, "study": "dies", "dies.count": 3, "chip.perturbation.gain_mismatch": 0.1},
        {NOISE: [1e-4, 0.1]},
    ),
    "budget": ("xor", {**SMALL, "study": "budget"}, {NOISE: [1e-3, 0.1]}),
    "spectrum": ("xor", {"study": "spectrum"}, {"weights.seed": [0, 1]}),
    "finite-difference": (
        "finite-difference",
        {"network.layers": [64, 3, 10], "data.samples": 10},
        {"weights.seed": [0, 1]},
    ),
    "training": (
        "xor-learning",
        {"training.updates": 60, "training.runs": 3, "training.compare_with": []},
        {NOISE: [1e-4, 1e-3]},
    ),
    "learning-ablation": (
        "xor-learning",
        {**LEARNING, "study": "learning-ablation", "chip.perturbation.gain_mismatch": 0.1},
        {NOISE: [1e-4, 1e-3]},
    ),
    "learning-dies": (
        "xor-learning",
        {**LEARNING, "study": "learning-dies"},
        {NOISE: [1e-4, 1e-3]},
    ),
    "drive": (
        "xor-learning",
        {"study": "drive", "training.updates": 20, "drive.look_every": 10},
        {NOISE: [1e-4, 1e-3]},
    ),
    "drive-estimates": ("xor", {**SMALL, "study": "drive-estimates"}, {NOISE: [1e-4, 1e-3]}),
    "reproduce": ("reproduce", {}, {"reproduce.claim": ["misalignment"]}),
}


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    """A sweep of one key that keeps all tables, three repeats: its directory."""
    directory = tmp_path_factory.mktemp("noises") / "out"
    sims.run_sweep(
        "xor", {NOISE: [0.0, 1e-4, 1e-3, 1e-2]}, 3, directory, workers=0, set=SMALL, keep=True
    )
    return directory


# ---- frames


def test_frames_are_tidy_and_every_column_is_documented(noises, whole):
    for directory in (noises, whole[0]):
        frames = reports.load(directory)
        assert {name: list(table) for name, table in frames.tables.items()} == {
            name: list(columns) for name, columns in frames.columns.items()
        }
        assert all(meaning for columns in frames.columns.values() for meaning in columns.values())
    frames = reports.load(noises)
    assert frames.columns["summary"][NOISE].endswith(
        "standard deviation of one reading of a pattern's error; 0 = ideal"
    )
    same(
        frames.summary.drop(columns="cell").astype({"quantity": str, "method": str, "code": str}),
        sims.load_sweep(noises),
    )
    assert frames.summary["method"].dtype == "category" and frames.summary[NOISE].dtype == float
    assert list(frames.cells["status"]) == ["done"] * 12 and frames.cells["seconds"].min() > 0
    # tables that are kept are an attribute away
    weights = frames.weights
    assert len(weights) == 12 * 3 * 9 and list(weights.columns[:4]) == [
        "cell",
        NOISE,
        "repeat",
        "seed",
    ]
    with pytest.raises(AttributeError, match="no table 'learning'"):
        print(frames.learning)


def test_means_and_intervals_are_those_of_a_plain_loop(noises):
    frames = reports.load(noises)
    rows, summary = frames.points.to_dict("records"), frames.summary.to_dict("records")
    least = frames.points.groupby("measure")["mean"].min()
    for row in rows:
        same_ = (NOISE, "quantity", "method", "code")
        own = [
            float(cell[row["measure"]])
            for cell in summary
            if all(cell[name] == row[name] for name in same_)
        ]
        own = [value for value in own if not np.isnan(value)]
        if not own:
            assert np.isnan(row["mean"]) and row["repeats"] == 0 and row["unknown"] == 3
            continue
        if np.isinf(own).any():  # never, in one of the repeats
            assert np.isinf(row["mean"]) and np.isnan([row["sd"], row["low"], row["high"]]).all()
            continue
        mean, sd = statistics.fmean(own), statistics.stdev(own)
        alike = max(own) - min(own) <= 1e-13 * max(map(abs, own))  # no interval has no width
        reach = np.nan if alike else t.ppf(0.975, len(own) - 1) * sd / len(own) ** 0.5
        assert (row["repeats"], row["unknown"]) == (len(own), 3 - len(own))
        assert [row["mean"], row["sd"]] == pytest.approx([mean, sd], rel=1e-9, abs=1e-9 * abs(mean))
        low, high = mean - reach, mean + reach
        if alike:
            assert np.isnan([row["low"], row["high"]]).all()
            continue
        if "cosine" in row["measure"]:
            low, high = max(low, -1.0), min(high, 1.0)
        elif least[row["measure"]] >= 0:  # what never is negative has no negative mean either
            low = max(low, 0.0)
        assert [row["low"], row["high"]] == pytest.approx(
            [low, high], rel=1e-9, abs=1e-9 * abs(mean)
        )
    assert {"cosine", "relative_error", "energy_j"} <= {row["measure"] for row in rows}


def test_predictions_stand_beside_what_they_predict(noises):
    points = reports.load(noises).points
    by = [NOISE, "quantity", "method", "code"]
    for measure, column in view_of("compare").swept.theory.items():
        own, predicted = (
            points[points["measure"] == name].set_index(by) for name in (measure, column)
        )
        np.testing.assert_array_equal(own["predicted"], predicted.reindex(own.index)["mean"])
        assert own["predicted"].notna().all()
    assert points[points["measure"] == "energy_j"]["predicted"].isna().all()
    # and they say what is measured: errors of the method with least noise at the largest noise,
    # where noise is all
    own = points[(points[NOISE] == 0.01) & (points["measure"] == "relative_error")]
    assert (own["mean"] / own["predicted"]).between(0.3, 3).all()


@pytest.mark.slow
@pytest.mark.parametrize("study", OTHERS)
def test_sweeps_of_every_study_are_reported(study, tmp_path):
    name, set, vary = OTHERS[study]
    repeats = 1 if study in ("spectrum", "finite-difference", "reproduce") else 2
    sims.run_sweep(name, vary, repeats, tmp_path / "out", workers=0, set=set, keep=True)
    frames = reports.load(tmp_path / "out")
    assert {name: list(table) for name, table in frames.tables.items()} == {
        name: list(columns) for name, columns in frames.columns.items()
    }
    key = next(iter(vary))
    assert set_of(frames.points[key]) == set_of(vary[key]) and frames.points["mean"].notna().any()
    paths = reports.export(tmp_path / "out", list(reports.exporters.FORMATS), tmp_path / "report")
    assert all(path.stat().st_size > 50 for path in paths)
    page = (tmp_path / "report" / "report.html").read_text()
    pictures = [path for path in paths if path.suffix == ".png"]
    assert page.count("<figure") == len(pictures) >= (len(vary[key]) > 1)
    assert all(
        title in page.replace("&gt;", ">").replace("&lt;", "<") for title, *_ in tables_of(frames)
    )


def test_every_study_that_can_be_swept_can_be_reported():
    from sims.studies import STUDIES as ALL

    assert (
        set(VIEWS) - {"sweep", "require", "designs"} == set(ALL) == {"compare", "uses", *OTHERS}
    )  # of "uses" a run takes too long for this


def set_of(values):
    return {str(value) for value in values}


# ---- where what is wanted is met


def frame(x, mean, low=None, high=None, unknown=0):
    low, high = (mean if other is None else other for other in (low, high))
    return pd.DataFrame(
        {
            "key": x,
            "subject": "a",
            "measure": "m",
            "mean": mean,
            "low": low,
            "high": high,
            "unknown": unknown,
        }
    )


def met(*args, at_least=True, value=0.5, whole=False, **options):
    found = thresholds(frame(*args, **options), "key", Wanted("m", at_least, value), whole=whole)
    assert list(found.columns) == ["subject", *THRESHOLDS]
    row = found.iloc[0]
    return row["edge"], row["value"], row["low"], row["high"]


def test_a_threshold_is_where_the_mean_crosses_what_is_wanted():
    # linear between values near each other, in their logarithm between those far apart
    assert met([1, 2, 3], [1.0, 0.75, 0.25]) == ("largest", 2.5, 2.5, 2.5)
    assert met([0.01, 1, 100], [1.0, 0.75, 0.25])[1] == pytest.approx(10)
    assert met([0, 0.01, 1], [1.0, 0.75, 0.25])[1] == pytest.approx(0.1)
    assert met([0, 1, 10], [0.75, 0.25, 0.0])[1] == pytest.approx(0.5)  # zero has no logarithm
    # the order of the rows does not matter
    assert met([3, 1, 2], [0.25, 1.0, 0.75])[1] == 2.5
    # at most
    assert met([1, 2, 3], [0.0, 0.25, 0.75], at_least=False)[:2] == ("largest", 2.5)
    # what grows better with the key: from which value on
    assert met([1, 2, 3], [0.25, 0.75, 1.0])[:2] == ("smallest", 1.5)
    assert met([1, 100], [0.0, 1.0])[1] == pytest.approx(10)
    # beyond what was swept, on the side to which it grows worse or better
    assert met([1, 2], [0.9, 0.8])[:2] == ("largest", np.inf) and met([1, 2], [0.8, 0.9])[:2] == (
        "smallest",
        -np.inf,
    )
    assert met([1, 2], [0.2, 0.1])[:2] == ("largest", -np.inf) and met([1, 2], [0.1, 0.2])[:2] == (
        "smallest",
        np.inf,
    )
    assert met([1, 2, 4], [0.1, 0.2, 0.3], np.zeros(3), np.array([0.1, 0.6, 0.7])) == (
        "smallest",
        np.inf,
        1.8,
        np.inf,
    )
    # at both ends and not between: there is no such value
    edge, *ends = met([0, 2, 4], [0.9, 0.1, 0.8])
    assert edge == "none" and np.isnan(ends).all()
    # of several crossings the one up to which, or from which on, all is met
    assert met([1, 2, 3, 4, 5], [1.0, 0.0, 1.0, 0.75, 0.25])[:2] == ("largest", 1.5)
    assert met([2, 3, 4, 5, 6], [0.0, 0.25, 0.75, 0.25, 0.75])[:2] == ("smallest", 5.5)
    edge, *ends = met(
        [1, 2, 3, 4], [0.1, 0.9, 0.8, 0.2]
    )  # between, and at neither end: neither up to a value nor from one on
    assert edge == "none" and np.isnan(ends).all()
    # a key of whole numbers has a whole edge: the first value at which it is met, or the last
    assert met([3, 4, 5], [0.25, 0.6, 0.9], [0.1, 0.4, 0.8], [0.4, 0.8, 1.0], whole=True) == (
        "smallest",
        4,
        4,
        5,
    )
    assert (
        met([2, 6], [0.9, 0.4], whole=True)[1] == 5
        and met([2, 6], [0.4, 0.9], at_least=False, whole=True)[1] == 2
    )
    assert (
        met([1, 2], [0.9, 0.8], whole=True)[1] == np.inf
        and met([3, 4], [0.4, 0.5], whole=True)[1] == 4
    )
    # where there is no value, it is not met
    assert met([1, 2, 3], [1.0, 0.75, np.nan])[1] == 2.0
    assert met([1, 2, 3], [1.0, 0.9, 0.8], unknown=[0, 0, 1])[1] == 2.0


def test_ends_of_its_interval_are_where_the_ends_of_the_mean_cross():
    x, mean = [1, 2, 3, 4], np.array([1.0, 0.75, 0.25, 0.0])
    assert met(x, mean, mean - 0.25, mean + 0.25) == ("largest", 2.5, 2.0, 3.0)
    assert met(x, 1 - mean, 1 - mean - 0.25, 1 - mean + 0.25, at_least=False) == (
        "largest",
        2.5,
        2.0,
        3.0,
    )
    assert met(x, mean[::-1], mean[::-1] - 0.25, mean[::-1] + 0.25) == ("smallest", 2.5, 2.0, 3.0)
    assert met(x, mean, mean - 0.6, mean + 0.6)[2:] == (-np.inf, np.inf)
    # it reaches from where the mean may first miss it to where it may last meet it
    wide, narrow = np.array([0.4, 0.4, 0.1]), 0.9
    assert met([1, 2, 3], np.full(3, narrow), np.array([0.1, 0.6, 0.7]), np.ones(3)) == (
        "largest",
        np.inf,
        -np.inf,
        np.inf,
    )
    assert met([1, 2, 3], [0.9, 0.7, 0.3], [0.4, 0.6, 0.1], wide + 0.6) == (
        "largest",
        2.5,
        -np.inf,
        np.inf,
    )
    # where a single repeat has ended, all is possible
    low, high = mean - 0.25, mean + 0.25
    low[2] = high[2] = np.nan
    assert met(x, mean, low, high) == ("largest", 2.5, 2.0, 4.0)
    nothing = np.full(4, np.nan)
    assert np.isnan(met(x, mean, nothing, nothing)[2:]).all()


@pytest.mark.slow
def test_the_interval_holds_the_threshold_as_often_as_it_says():
    rng, x, truth, repeats, times = np.random.default_rng(0), np.arange(6.0), 2.7, 4, 1000
    # the repeats share their seeds over all points: what is drawn high here is high there too
    shared, own = rng.standard_normal((times, repeats, 1)), rng.standard_normal((times, repeats, 6))
    y = 0.5 + 0.2 * (truth - x) + 0.1 * (shared + own)
    mean, reach = y.mean(1), t.ppf(0.975, repeats - 1) * y.std(1, ddof=1) / repeats**0.5

    def inside(reach):
        groups = [
            frame(x, m, m - r, m + r).assign(subject=i)
            for i, (m, r) in enumerate(zip(mean, reach, strict=True))
        ]
        found = thresholds(pd.concat(groups), "key", Wanted("m", True, 0.5))
        assert len(found) == times and (found["edge"] == "largest").all()
        return ((found["low"] <= truth) & (truth <= found["high"])).mean()

    error = 5 * (0.05 * 0.95 / times) ** 0.5
    assert (
        inside(reach) > 0.95 - error
    )  # in straight lines between values it is a little more than 95 %
    assert inside(reach / 2) < 0.95 - error  # half the interval would not do


@pytest.mark.slow
def test_the_noise_at_which_a_chip_fails_is_that_of_theory(tmp_path):
    # without bias and with noise alone, cosine(noise) = 1/sqrt(1 + c noise^2); c from theory at one
    # noise
    noises = [3e-5, 6e-5, 1.2e-4, 2.4e-4, 4.8e-4]
    sims.run_sweep(
        "xor", {NOISE: noises}, 12, tmp_path / "out", workers=0, set={"estimation.compare_with": []}
    )
    frames = reports.load(tmp_path / "out", "cosine>=0.9")
    own = frames.thresholds.set_index("quantity").loc["hv"]
    points = frames.points[
        (frames.points["measure"] == "cosine") & (frames.points["quantity"] == "hv")
    ]
    c = float((1 / points["predicted"].iloc[2] ** 2 - 1) / noises[2] ** 2)
    expected = float(np.sqrt((1 / 0.81 - 1) / c))
    assert own["low"] < expected < own["high"] and own["high"] / own["low"] < 2
    # another accuracy is met elsewhere, and the report says so in words
    other = (
        reports.load(tmp_path / "out", "cosine >= 0.6").thresholds.set_index("quantity").loc["hv"]
    )
    assert own["high"] < other["low"]
    said = dict(verdicts_of(frames))["z = Hv, difference/walsh:"]
    assert (
        f"is met up to {NOISE} = {own['value']:.3g} (95 % confidence interval of the edge:"
        f" {own['low']:.3g} to {own['high']:.3g})" in said
    )


def test_what_is_wanted_may_be_of_any_measure_and_mistakes_are_told(noises):
    frames = reports.load(noises, "relative_error <= 0.5")
    assert (
        set(frames.thresholds["wanted"]) == {"relative error <= 0.5"}
        and figures_of(frames)["relative_error"]
    )
    for wanted, why in (
        ("cosine", "not of the form"),
        ("cosine>=x", "not of the form"),
        ("cosine>=nan", "not of the form"),
        ("accuracy>=0.5", "accuracy is no measure of this sweep: one of "),
    ):
        with pytest.raises(InputError, match=why):
            reports.load(noises, wanted)
    run = noises.parent / "run"
    sims.run_experiment("xor", SMALL, out=run)
    with pytest.raises(InputError, match="is of sweeps, and this is a single run"):
        reports.load(run, "cosine>=0.5")


# ---- what cells that are made up give


def sweep_of(monkeypatch, out, key, values, study="compare", measure="cosine", settings=SMALL):
    """The frames of a sweep over values of a key; each has a list with what its repeats measure."""
    each = iter([value for repeats in values.values() for value in repeats])

    def cell(experiment, keep):
        value = next(each)
        rows = {
            "quantity": ["hv"],
            "method": ["difference"],
            "code": ["walsh"],
            "primary": [True],
            measure: [value],
        }
        if study == "training":
            rows = {
                "subject": ["batch"],
                "measure": [measure],
                "value": [value],
                "unit": ["share"],
                "meaning": ["made up"],
            }
        return Outcome("done", 1.0, 2.0, json.dumps(rows))

    monkeypatch.setattr(cells, "run_cell", cell)
    name = "xor" if study == "compare" else "xor-learning"
    repeats = len(next(iter(values.values())))
    sims.run_sweep(name, {key: list(values)}, repeats, out, workers=0, set=settings)
    return reports.load(out)


def test_spaces_of_measures_may_be_written_as_in_keys(noises, tmp_path):
    assert set(reports.load(noises, "relative error <= 0.5").thresholds["wanted"]) == {
        "relative error <= 0.5"
    }
    small = {
        "training.updates": 4,
        "training.runs": 2,
        "training.compare_with": [],
        "training.control": False,
    }
    sims.run_sweep(
        "xor-learning", {"training.eta": [0.1, 0.2]}, 1, tmp_path / "s", workers=0, set=small
    )
    for wanted in ("evaluations_to_goal<=10", "evaluations to goal <= 10"):
        assert "_" not in reports.load(tmp_path / "s", wanted).thresholds["wanted"][0]


def said_of(frames):
    return [text for name, text in verdicts_of(frames) if name != "cells:"][-1]


def test_the_verdict_never_contradicts_the_table(monkeypatch, tmp_path):
    key, good, bad = "chip.error_unit.bits", [0.95, 0.96], [0.5, 0.52]
    for name, values, says in (
        (
            "gap",
            (bad, bad, good, bad, good),
            "met from chip.error_unit.bits = 6 on, and at 1 of the values beyond (95 %",
        ),
        (
            "middle",
            (bad, good, good, bad, bad),
            "met at 2 of 5 values of chip.error_unit.bits swept, 2 to 6: between, and at",
        ),
        ("ends", (good, bad, good, bad, good), "2 to 6: at both ends, and at 1 of 3 between"),
        (
            "good",
            (bad, good, good, good, good),
            "met from chip.error_unit.bits = 3 on (95 % confidence interval of the edge: ",
        ),
        (
            "falls",
            (good, good, bad, good, bad),
            "met up to chip.error_unit.bits = 3, and at 1 of the values beyond (95 %",
        ),
    ):
        assert says in said_of(
            sweep_of(monkeypatch, tmp_path / name, key, dict(zip(range(2, 7), values, strict=True)))
        )
    # where one interval is as wide as can be, not all of them are above what is wanted
    unsure = sweep_of(
        monkeypatch, tmp_path / "wide", key, {2: [0.92, 1.0], 3: [0.95, 0.951], 4: [0.96, 0.961]}
    )
    assert "met at all values" in said_of(unsure) and "edge: below 2 to 3)" in said_of(unsure)
    sure = sweep_of(monkeypatch, tmp_path / "narrow", key, {2: [0.95, 0.951], 3: [0.96, 0.961]})
    assert "met at all values" in said_of(sure) and said_of(sure).endswith(
        "the whole confidence interval of each mean too"
    )


def test_a_threshold_is_whole_where_the_key_is(monkeypatch, tmp_path):
    values = {3: [0.5, 0.501], 4: [0.95, 0.951]}
    (row,) = sweep_of(
        monkeypatch, tmp_path / "whole", "chip.error_unit.bits", values
    ).thresholds.to_dict("records")
    assert (row["value"], row["low"], row["high"]) == (4, 4, 4)
    (row,) = sweep_of(
        monkeypatch, tmp_path / "any", "chip.error_unit.offset", values
    ).thresholds.to_dict("records")
    assert 3 < row["low"] < row["value"] < row["high"] < 4  # these are whole by chance


def test_repeats_that_are_all_alike_say_nothing_of_their_spread(monkeypatch, tmp_path):
    frames = sweep_of(monkeypatch, tmp_path / "alike", NOISE, {0.0: [0.95, 0.95], 1.0: [0.5, 0.5]})
    assert frames.points[["low", "high"]].isna().all(axis=None) and list(frames.points["sd"]) == [
        0,
        0,
    ]
    assert said_of(frames).endswith("(all repeats gave the same: how sure this is cannot be known)")
    assert frames.thresholds[["low", "high"]].isna().all(axis=None)
    _, rows = texts_of(tables_of(frames)[-1])
    assert [row[2] for row in rows] == ["0.9500", "0.5000"]
    # negative control: the least that differs has an interval
    frames = sweep_of(
        monkeypatch, tmp_path / "other", NOISE, {0.0: [0.95, 0.95 + 1e-9], 1.0: [0.5, 0.6]}
    )
    assert frames.points[["low", "high"]].notna().all(axis=None)


def test_shares_of_runs_have_the_interval_of_their_count(monkeypatch, tmp_path):
    settings = {"training.runs": 10, "training.compare_with": []}
    values = {1e-4: [1.0, 1.0], 1e-3: [0.9, 0.6], 1e-2: [0.0, 0.0]}
    frames = sweep_of(monkeypatch, tmp_path / "out", NOISE, values, "training", "solved", settings)
    for row, count in zip(frames.points.to_dict("records"), (20, 15, 0), strict=True):
        low, high = (
            (beta.ppf(0.025, count, 21 - count) if count else 0),
            (beta.ppf(0.975, count + 1, 20 - count) if count < 20 else 1),
        )
        assert [row["low"], row["high"]] == pytest.approx([low, high], rel=1e-9)
    (row,) = frames.thresholds.to_dict("records")
    assert 1e-3 < row["low"] < row["value"] < row["high"] < 1e-2


def test_shares_of_runs_that_are_the_same_in_all_repeats_are_not_counted_over_them(
    monkeypatch, tmp_path
):
    settings = {"training.runs": 10, "training.compare_with": [], "weights.seed": 0}
    values = {1e-4: [0.8, 0.8], 1e-3: [0.9, 0.6]}
    frames = sweep_of(monkeypatch, tmp_path / "out", NOISE, values, "training", "solved", settings)
    alike, unlike = frames.points.to_dict("records")
    assert np.isnan([alike["low"], alike["high"]]).all()
    assert (unlike["low"], unlike["high"]) == (
        0.0,
        1.0,
    )  # Student's t of two repeats, cut to what a share can be


def test_without_varied_keys_an_interval_that_is_not_known_is_not_given(monkeypatch, tmp_path):
    frames = sweep_of(
        monkeypatch, tmp_path / "out", "estimation.trials", {64: [0.95, 0.95]}, settings={}
    )
    assert "nan" not in str(verdicts_of(frames)) and "- to -" not in str(verdicts_of(frames))


# ---- words


def test_a_sweep_that_is_not_done_says_so_and_lists_what_failed(tmp_path, monkeypatch):
    def sometimes(experiment, keep):
        if experiment.run.seed == second:
            return made_up(experiment, keep)._replace(
                status="failed", rows="{}", error="first line\nthe disk is full"
            )
        return real(experiment, keep)

    real, second = cells.run_cell, derive_seed(0, "repeat", 1)
    monkeypatch.setattr(cells, "run_cell", sometimes)
    sims.run_sweep("xor", {"estimation.trials": [16, 32]}, 2, tmp_path / "out", workers=0)
    frames = reports.load(tmp_path / "out")
    assert frames.partial and frames.reason == "2 of 4 cells are done and 2 failed"
    failed = tables_of(frames)[-1]
    assert failed.title == "Cells that failed" and texts_of(failed)[1][0][:2] == [
        f"perturb run xor --set estimation.trials=16 --seed {second}",
        "the disk is full",
    ]
    reports.export(tmp_path / "out", ["html", "md"], tmp_path / "report")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text()
        assert "2 of 4 cells are done and 2 failed" in text and "the disk is full" in text
    monkeypatch.setattr(
        cells,
        "run_cell",
        lambda experiment, keep: made_up(experiment, keep)._replace(status="failed"),
    )
    sims.run_sweep("xor", {"estimation.trials": [16, 32]}, 1, tmp_path / "none", workers=0)
    with pytest.raises(InputError, match="no cell of this sweep is done yet: perturb status"):
        reports.load(tmp_path / "none")


@pytest.mark.slow
def test_a_chip_that_gives_no_estimate_meets_nothing(tmp_path):
    sims.run_sweep(
        "xor", {"chip.weights.dead_fraction": [0.0, 1.0]}, 2, tmp_path / "out", workers=0, set=SMALL
    )
    frames = reports.load(tmp_path / "out")
    dead = frames.points[
        (frames.points["chip.weights.dead_fraction"] == 1) & (frames.points["measure"] == "cosine")
    ]
    assert dead["mean"].isna().all() and (dead["unknown"] == 2).all()
    assert (frames.thresholds.set_index("method").loc["difference", "value"] == 0).all()
    assert (
        "is met up to chip.weights.dead_fraction = 0 "
        in dict(verdicts_of(frames))["z = Hv, difference/walsh:"]
    )


@pytest.mark.slow
def test_words_say_where_it_is_met_and_where_not(tmp_path):
    # without a converter (bits = 0) and with a fine one a chip estimates well, and not with a
    # coarse one
    settings = {"estimation.sigma": 0.1, "estimation.compare_with": []}
    sims.run_sweep(
        "xor", {"chip.error_unit.bits": [0, 4, 16]}, 2, tmp_path / "bits", workers=0, set=settings
    )
    said = dict(verdicts_of(reports.load(tmp_path / "bits")))["z = Hv, difference/walsh:"]
    assert (
        said
        == "mean cosine >= 0.9 is met at 2 of 3 values of chip.error_unit.bits swept, 0 to 16: at"
        " both ends, and not between"
    )
    # its point stands alone in the plot, a gap before the others
    line = figures_of(reports.load(tmp_path / "bits"))["cosine"][0].axes[0].lines[0]
    assert list(line.get_xdata()) == [0, 0, 4, 16] and list(np.isnan(line.get_ydata())) == [
        False,
        True,
        False,
        False,
    ]
    # more trials are better: from how many on?
    sims.run_sweep(
        "xor",
        {"estimation.trials": [8, 64, 512]},
        3,
        tmp_path / "trials",
        workers=0,
        set={NOISE: 2e-4},
    )
    row = (
        reports.load(tmp_path / "trials")
        .thresholds.set_index(["quantity", "method"])
        .loc[("hv", "antithetic")]
    )
    assert (
        row["edge"] == "smallest"
        and row["value"] == np.inf
        and row["met"] == 0
        and row["high"] == np.inf
    )


@pytest.mark.slow
def test_a_quantity_that_the_own_method_does_not_estimate_is_not_spoken_of(tmp_path):
    settings = {**SMALL, "estimation.method": "central", "estimation.code": "rademacher"}
    vary = {"chip.preset": ["ideal", "mgd"]}
    sims.run_sweep("xor", vary, 2, tmp_path / "out", workers=0, set=settings, keep=True)
    frames = reports.load(tmp_path / "out")
    assert [name for name, _ in verdicts_of(frames)] == ["cells:", "gradient, central/rademacher:"]
    drawn = figures_of(frames)
    assert drawn["scatter"][1].startswith("Gradient, estimated against exact")
    names = [text.get_text() for text in drawn["cosine"][0].legends[0].get_texts()]
    assert "central/rademacher" in names and len(names) == 3
    # a method has one colour in both panels
    colours = [
        {bars.get_label(): bars.lines[0].get_color() for bars in axis.containers}
        for axis in drawn["cosine"][0].axes
    ]
    assert colours[0].items() < colours[1].items() and len(set(colours[1].values())) == 3


@pytest.mark.slow
def test_a_file_with_dollars_in_its_name_is_plotted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    files = [Path(name) for name in ("a$1_{x.csv", "b$\\frac.csv", "_$c$.csv")]
    for i, path in enumerate(files):
        path.write_text(f"x,y,t\n0,0,{i}\n1,1,1\n")
    settings = {"data.targets": ["t"], "data.name": "file"}
    values = {str(path): [0.9, 0.95] for path in files}
    frames = sweep_of(monkeypatch, tmp_path / "one", "data.file", values, settings=settings)
    paths = reports.export(
        tmp_path / "one", ["svg", "png", "html", "md", "tex"], tmp_path / "report"
    )
    assert "cosine.svg" in {path.name for path in paths}
    ticks = [text.get_text() for text in figures_of(frames)["cosine"][0].axes[0].get_xticklabels()]
    assert all(tick.count("$") == tick.count(r"\$") for tick in ticks)


@pytest.mark.slow
def test_a_range_is_seen_as_it_was_drawn_from(tmp_path):
    vary = {"estimation.sigma": "uniform:0.005:0.1", NOISE: "loguniform:1e-4:1e-2"}
    sims.run_sweep("xor", vary, 1, tmp_path / "out", workers=0, set=SMALL, samples=8)
    drawn = figures_of(reports.load(tmp_path / "out"))
    scales = {name: figure.axes[0].get_xscale() for name, (figure, _) in drawn.items()}
    assert (
        scales["cosine_against_estimation-sigma"] == "linear"
        and scales["map_of_cosine"] == "linear"
    )
    assert (
        scales["cosine_against_chip-error_unit-noise"] == "log"
        and drawn["map_of_cosine"][0].axes[0].get_yscale() == "log"
    )


@pytest.mark.slow
def test_words_that_go_together_make_no_map(tmp_path):
    zipped = {
        "estimation.method": ["difference", "covariance", "central"],
        "estimation.code": ["walsh", "ternary", "walsh"],
    }
    sims.run_sweep("xor", zip=zipped, repeats=2, out=tmp_path / "out", workers=0, set=SMALL)
    assert not [
        name for name in figures_of(reports.load(tmp_path / "out")) if name.startswith("map")
    ]


@pytest.mark.slow
def test_a_page_is_made_without_the_tables_that_were_lost(noises, tmp_path):
    shutil.copytree(noises, tmp_path / "copy")
    for path in (tmp_path / "copy" / "tables").glob("*-weights.parquet"):
        path.unlink()
    (tmp_path / "copy" / "tables" / "000003-energy.parquet").unlink()
    (path,) = reports.export(tmp_path / "copy", "html", tmp_path)
    page = path.read_text()
    assert (
        "the table weights of 12 of 12 cells is no longer there" in page
        and "the table energy of 1 of 12 cells" in page
    )
    assert 'id="scatter"' not in page and 'id="energy"' in page and 'id="cosine"' in page


def test_a_method_that_is_varied_is_one_series(tmp_path):
    vary = {"estimation.method": ["difference", "antithetic"], "estimation.sigma": [0.01, 0.1]}
    settings = {**SMALL, "estimation.code": "rademacher", "estimation.compare_with": []}
    sims.run_sweep("xor", vary, 2, tmp_path / "out", workers=0, set=settings)
    frames = reports.load(tmp_path / "out")
    said = [text for name, text in verdicts_of(frames) if name == "z = Hv, as varied/rademacher:"]
    assert "of 4 points; the best is" in said[0] and len(said) == 3
    assert said[1].startswith("at estimation.method = difference, mean cosine >= 0.9 is met")
    assert set(figures_of(frames)) == {
        f"{what}{measure}{against}"
        for measure in ("relative_error", "cosine")
        for what, against in (
            ("map_of_", ""),
            ("", "_against_estimation-method"),
            ("", "_against_estimation-sigma"),
        )
    }


def test_reports_are_of_one_study(tmp_path):
    sims.run_sweep(
        "xor", {"study": ["compare", "spectrum"]}, 1, tmp_path / "out", workers=0, set=SMALL
    )
    with pytest.raises(InputError, match="reports are of one"):
        reports.load(tmp_path / "out")


# ---- the same again


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"vary": VARY, "repeats": 2, "set": {"estimation.sigma": 0.02}},
        {
            "zip": {NOISE: [1e-3, 1e-2], "estimation.trials": [16, 32]},
            "set": {"weights.seed": 3, "estimation.sigma": 0.02},
        },
        pytest.param(
            {
                "vary": {NOISE: "loguniform:1e-4:1e-2", "estimation.r": "uniform:0.01:0.1"},
                "samples": 4,
                "design": "sobol",
            },
            marks=pytest.mark.slow,
        ),
        pytest.param({"vary": {"network.layers": [[2, 2, 1], [2, 3, 1]]}}, marks=pytest.mark.slow),
    ],
    ids=["grid", "zip", "drawn", "lists"],
)
def test_the_command_and_the_file_in_a_report_make_the_same_sweep(options, tmp_path, command):
    frame = sims.run_sweep("xor", out=tmp_path / "out", workers=0, **{"set": SMALL} | options)
    frames = reports.load(tmp_path / "out")
    status, out, _ = command(
        *shlex.split(frames.provenance["command"])[1:], "--workers", "0", "--out", "again"
    )
    assert status == 0 and out.endswith("Next: perturb report again\n")
    same(sims.load_sweep("again"), frame)
    (tmp_path / "sweep.toml").write_text(frames.text())
    same(sims.run_sweep(tmp_path / "sweep.toml", workers=0), frame)
    # negative control: it is the seeds and the varied keys that make it so
    other = sims.run_sweep(tmp_path / "sweep.toml", workers=0, set={"weights.seed": 4})
    assert (other["cosine"] != frame["cosine"]).any()


# ---- files


def test_frames_come_back_from_csv_and_parquet(noises, tmp_path):
    frames = reports.load(noises)
    reports.export(noises, ["csv", "parquet"], tmp_path)
    for name, table in frames.tables.items():
        plain = table.astype(
            {column: str for column in table.columns if table[column].dtype == "category"}
        )
        pd.testing.assert_frame_equal(
            pd.read_parquet(tmp_path / f"{name}.parquet"), plain, check_dtype=False
        )
        back = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=True).astype(
            plain.dtypes.to_dict()
        )
        texts = [
            column for column in plain.columns if not pd.api.types.is_numeric_dtype(plain[column])
        ]
        pd.testing.assert_frame_equal(
            back.drop(columns=texts), plain.drop(columns=texts), check_exact=True
        )


@pytest.mark.slow
def test_large_tables_are_written_part_by_part(noises, tmp_path, monkeypatch):
    monkeypatch.setattr(reports.frames, "ROWS", 7)
    frames = reports.load(noises)
    parts = list(frames.parts("points"))
    assert len(parts) > 10 and max(map(len, parts)) < len(frames.points)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), frames.points)
    reports.export(noises, ["csv", "parquet"], tmp_path)
    for name, table in frames.tables.items():
        assert (
            len(pd.read_parquet(tmp_path / f"{name}.parquet"))
            == len(pd.read_csv(tmp_path / f"{name}.csv"))
            == len(table)
        )
    for column in ("mean", "low", "high"):  # to the last bit
        assert pd.read_csv(tmp_path / "points.csv")[column].equals(frames.points[column])


@pytest.mark.slow
def test_many_points_are_drawn_as_pixels(monkeypatch, tmp_path):
    few = sweep_of(
        monkeypatch, tmp_path / "few", NOISE, {1e-3 * (i + 1): [0.9 - 1e-3 * i] for i in range(50)}
    )
    many = sweep_of(
        monkeypatch,
        tmp_path / "many",
        NOISE,
        {1e-3 * (i + 1): [0.9 - 1e-4 * i] for i in range(800)},
    )
    pictures = [svg(figures_of(frames)["cosine"][0], "cosine") for frames in (few, many)]
    assert ["<image" in picture for picture in pictures] == [False, True]
    assert pictures[1].count("<use") < pictures[0].count("<use") + 50
    (table,) = (table for table in tables_of(many) if table.title == "Every point")
    assert len(table.frame) == 800


def test_csv_for_excel_keeps_seeds_and_runs_no_formula(noises, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(noises, copy)
    frames = reports.load(copy)
    frames.tables["cells"]["seed"] = pd.Series([2**64 - 1 - i for i in range(12)], dtype="uint64")
    frames.tables["cells"]["error"] = [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@x",
        "plain",
        "",
        *["ä"] * 6,
    ]
    raw = reports.exporters.FORMATS["excel"](frames)["cells.excel.csv"]
    assert raw.startswith(b"\xef\xbb\xbf") and raw.count(b"\r\n") == 13
    table = pd.read_csv(
        tmp_path.joinpath("x.csv").write_bytes(raw) and tmp_path / "x.csv", keep_default_na=False
    )
    assert list(table["seed"][:2]) == ['="18446744073709551615"', '="18446744073709551614"']
    assert list(table["error"][:7]) == [
        "'=cmd|' /C calc'!A0",
        "'+1",
        "'-1",
        "'@x",
        "plain",
        "",
        "ä",
    ]
    assert list(table[NOISE].astype(float)) == list(frames.cells[NOISE])


def test_tables_for_latex_have_every_row_and_no_command_of_their_own(noises, tmp_path):
    (path,) = reports.export(noises, "tex", tmp_path)
    text, frames = path.read_text(), reports.load(noises)
    rows = sum(len(table.frame) for table in tables_of(frames))
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len(body) == rows + 2 * len(
        tables_of(frames)
    )  # each header stands twice, on the first page and on the others
    assert (
        text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == len(tables_of(frames))
    )
    assert (
        r"chip.error\_unit.noise" in text
        and r"95 \%" in text
        and r"\shortstack[r]{relative \\ error}" in text
    )
    assert not [
        line
        for line in text.splitlines()
        if not line.startswith("%") and "%" in line.replace(r"\%", "")
    ]


@pytest.mark.slow
def test_plots_can_be_had_alone(noises, tmp_path, command):
    kinds = set(figures_of(reports.load(noises)))
    assert kinds == {"relative_error", "cosine", "scatter", "energy", "timeline"}
    (path,) = reports.plot(noises, "cosine", out=tmp_path)
    assert path.name == "cosine.svg" and path.read_text().rstrip().endswith("</svg>")
    assert path.read_text() == reports.plot(noises, "cosine", out=tmp_path / "b")[0].read_text()
    assert {path.stem for path in reports.plot(noises, format="png", out=tmp_path)} == kinds
    status, out, err = command(
        "plot", noises, "--kind", "cosine", "--format", "png", "--out", "here"
    )
    assert (status, out, err) == (0, "here/cosine.png\n", "")
    status, out, err = command("plot", noises, "--kind", "cosne")
    assert (status, out, err) == (
        2,
        "",
        "perturb: kind = 'cosne' is unknown: did you mean cosine?\n",
    )
    assert command("plot", noises, "--format", "pdf")[2].startswith(
        "perturb: format = 'pdf' is unknown"
    )


def test_the_command_line_reports_a_sweep(noises, command):
    status, out, _ = command(
        "report", noises, "--format", "html,md", "--out", "r", "--wanted", "cosine>=0.5"
    )
    assert status == 0 and out == "r/report.html\nr/report.md\n"
    status, out, _ = command("compare", noises)
    assert (
        status == 0
        and "Where mean cosine >= 0.9 is met: chip.error_unit.noise" in out
        and "12 of 12 are done" in out
    )
    assert command("compare", noises, "--wanted", "x")[0] == 2


@pytest.mark.parametrize(
    "cell, form, text, value",
    [
        (0.0123, formats.seconds, "12.3 ms", 0.0123),
        (4.5e-6, formats.joules, "4.5 uJ", 4.5e-6),
        (0.0, formats.joules, "0 J", 0.0),
        (16384, formats.count, "16,384", 16384.0),
        (745e6, formats.count, "745 M", 745e6),
        (np.inf, formats.count, "never", np.inf),
        (0.85, formats.percent, "85%", 0.85),
        (-1.5e-7, formats.number, "-1.5e-07", -1.5e-7),
        (np.int64(2**62 + 1), formats.integer, "4611686018427387905", 2.0**62),
        (formats.Estimate(0.98, 0.01), formats.number, "0.98 +- 0.01", 0.98),
        (
            formats.Estimate(0.98, np.nan, 0.97, 0.99),
            formats.cosine,
            "0.9800 [0.9700, 0.9900]",
            0.98,
        ),
        (formats.Estimate(0.98, np.nan, 0.98, 0.98), formats.number, "0.98", 0.98),
        (formats.ErrorBar(0.0), formats.number, "", 0.0),
        (formats.ErrorBar(0.1, 0.2, 0.7), formats.number, "0.1 [0.2, 0.7]", 0.1),
        (formats.Below(0.01), formats.number, "< 0.01", 0.01),
        (formats.Part(3, 5), formats.number, "3 of 5", 3.0),
    ],
)
def test_cells_are_shown_as_texts_and_sort_as_the_numbers_they_are(cell, form, text, value):
    assert formats.written(cell, form) == text and formats.sort_value(cell) == value


def test_what_is_not_known_is_no_number():
    unknown = (np.nan, formats.Estimate(np.nan, 0.1, 0.2, 0.3))
    for form in (formats.number, formats.seconds, formats.cosine, formats.count, formats.percent):
        for cell in unknown:
            assert formats.written(cell, form) == "-" and np.isnan(formats.sort_value(cell))
    assert formats.written("as it is", formats.number) == "as it is"
    assert np.isnan(formats.sort_value("1"))


def test_a_column_that_begins_empty_is_written_by_what_comes_later(tmp_path, monkeypatch):
    monkeypatch.setattr(reports.frames, "ROWS", 3)
    table = pd.DataFrame(
        {
            "n": range(8),
            "error": [None] * 5 + ["late"] * 3,
            "x": [None] * 4 + [1.5] * 4,
            "never": [None] * 8,
        },
        dtype=object,
    )
    frames = reports.Frames(tmp_path, {"cells": table}, {}, {}, view_of("compare"))
    with open(tmp_path / "cells.parquet", "wb") as file:
        reports.exporters.FORMATS["parquet"](frames)["cells.parquet"](file)
    again = pd.read_parquet(tmp_path / "cells.parquet")
    assert again["n"].tolist() == list(range(8)) and again["error"].tolist()[5:] == ["late"] * 3
    assert again["x"].dropna().tolist() == [1.5] * 4 and again["never"].isna().all()


def test_a_study_may_tell_nothing_apart_but_the_quantity():
    frames = SimpleNamespace(experiment={"study": "norms"})
    part = pd.DataFrame({"quantity": ["hv"], "mean": [1.0]})
    with pytest.MonkeyPatch.context() as patch:
        only = SimpleNamespace(swept=Swept(("quantity",), ("norm",)))
        patch.setattr(sweep_series, "view_of", lambda study: only)
        assert list(sweep_series.series(frames, part)) == [()]
