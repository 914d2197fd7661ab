"""Several designs on one plot, and their Pareto front."""

import itertools
import json
import shutil

import numpy as np
import pytest
from scipy.stats import binom
from shown import fact, figures_of, tables_of, texts_of, verdicts_of

import reports
import sims
from perturb import InputError
from reports.statistics import median_interval
from reports.studies.designs.front import dominated_by

SMALL = {
    "training.updates": 100,
    "training.records": 10,
    "training.runs": 8,
    "training.goal": 0.125,
    "training.control": False,
    "training.compare_with": [],
}


def naive(costs):
    """Whether each row is on the front, by the definition."""
    judged = [all(np.isfinite(row)) for row in costs]
    return [
        judged[i]
        and not any(
            judged[j]
            and all(b <= a for a, b in zip(row, other, strict=True))
            and any(b < a for a, b in zip(row, other, strict=True))
            for j, other in enumerate(costs)
        )
        for i, row in enumerate(costs)
    ]


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_front_is_what_no_other_dominates(m):
    rng = np.random.default_rng(m)
    for k in (1, 2, 7, 40):
        # few values, so that there are ties
        costs = rng.integers(0, 6, (k, m)).astype(float)
        costs[rng.random((k, m)) < 0.1] = np.nan
        costs[rng.random((k, m)) < 0.1] = np.inf
        by = dominated_by(costs)
        assert (by == -1).tolist() == naive(costs)
        assert (by == -2).tolist() == (~np.isfinite(costs).all(1)).tolist()
        for i in np.flatnonzero(by >= 0):
            # who dominates is on the front itself
            assert by[by[i]] == -1 and (costs[by[i]] <= costs[i]).all()
            assert (costs[by[i]] < costs[i]).any()


def test_ties_are_on_the_front_together_and_one_design_is_on_it():
    assert dominated_by(np.array([[1.0, 2.0]])).tolist() == [-1]
    assert dominated_by(np.ones((4, 3))).tolist() == [-1] * 4
    # equal in one, better in the other
    assert dominated_by(np.array([[1.0, 2.0], [1.0, 1.0], [1.0, 1.0]])).tolist() == [1, -1, -1]
    assert dominated_by(np.array([[np.nan, 0.0], [1.0, 1.0]])).tolist() == [-2, -1]
    assert dominated_by(np.zeros((0, 3))).tolist() == []


def test_designs_that_differ_by_rounding_are_on_the_front_together():
    costs = np.array([[0.5, 3.2198024760000005e-05], [0.5, 3.219802476e-05]])
    assert dominated_by(costs).tolist() == [-1, -1]
    # but not by a thousandth
    assert dominated_by(costs * [[1.0, 1.001], [1.0, 1.0]]).tolist() == [1, -1]


def test_every_order_of_designs_gives_the_same_front():
    costs = np.array([[1.0, 4.0], [2.0, 2.0], [2.0, 2.0], [3.0, 3.0], [4.0, 1.0]])
    for order in itertools.permutations(range(5)):
        by = dominated_by(costs[list(order)])
        assert {i for i, which in zip(order, by, strict=True) if which == -1} == {0, 1, 2, 4}


def test_the_interval_of_a_median_holds_it_often_enough():
    assert np.isnan(median_interval(np.arange(5.0))).all()
    # of six the smallest and the largest: 1 - 2/64 = 96.9 %
    assert median_interval(np.array([3.0, 1.0, 2.0, 9.0, 5.0, 4.0])) == (1.0, 9.0)
    for n in (10, 25, 60):
        low, high = median_interval(np.arange(n))
        covered = binom.cdf(high, n, 0.5) - binom.cdf(low, n, 0.5)
        tighter = binom.cdf(high - 1, n, 0.5) - binom.cdf(low + 1, n, 0.5)
        assert low == n - 1 - high and covered >= 0.95 > tighter


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("designs")
    for name, own in {
        "slow": {"training.eta": 0.1},
        "fast": {"training.eta": 2.0},
        "dear": {"training.eta": 2.0, "chip.energy.static_w": 0.01},
        "still": {"training.eta": 1e-9},
    }.items():
        sims.run_experiment("xor-learning", {**SMALL, **own}, out=folder / name)
    shutil.copytree(folder / "fast", folder / "twin")
    return folder


def rows_of(found):
    return found.summary.set_index("design")


def test_designs_are_judged_by_what_their_trainings_report(runs):
    found = reports.designs([runs / name for name in ("slow", "fast", "twin", "dear", "still")])
    rows = rows_of(found)
    for name in ("slow", "fast", "dear", "still"):
        run, row = reports.load(runs / name), rows.loc[name]
        assert row["quality"] == pytest.approx(fact(run, "solved", "batch"))
        assert row["there"] == round(8 * fact(run, "ever_solved", "batch")) and row["runs"] == 8
        for column, measure in (
            ("evaluations_to_goal", "evaluations_to_goal"),
            ("chip_time_to_goal_s", "chip_time_to_goal"),
            ("energy_to_goal_j", "energy_to_goal"),
        ):
            assert row[column] == fact(run, measure, "batch")
    assert rows["status"].to_dict() == {
        "slow": "dominated",
        "fast": "front",
        "twin": "front",
        "dear": "dominated",
        "still": "never",
    }
    assert rows.loc["dear", "dominated_by"] in ("fast", "twin")
    assert np.isinf(rows.loc["still", "energy_to_goal_j"])
    (head, *_), settings = tables_of(found)[0], tables_of(found)[1]
    texts = {row[0]: row for row in texts_of(tables_of(found)[0])[1]}
    assert texts["still"][1] == "never at the goal" and texts["still"][-3:] == ["never"] * 3
    assert list(texts)[:2] == ["fast", "twin"] and head == "Designs"
    assert settings.headings == ["key", "slow", "fast", "twin", "dear", "still"]
    assert ("Never at the goal:", "still") in verdicts_of(found)
    axes = figures_of(found)["designs"][0].axes
    assert len(axes) == 2
    # filled are those on the front; who never gets there is no point
    points = [line for line in axes[0].lines if len(line.get_xdata()) == 1]
    filled = [line.get_label() for line in points if line.get_markerfacecolor() != "none"]
    assert len(points) == 4 and sorted(filled) == ["fast", "twin"]


def test_a_goal_of_ones_own_judges_anew(runs):
    places = [runs / "slow", runs / "fast"]
    found = rows_of(reports.designs(places, "error <= 0.12"))
    for name in ("slow", "fast"):
        learning = reports.load(runs / name).learning
        first = learning[learning["error"] <= 0.12].groupby("run").first()
        expected = first["chip_time_s"].median() if len(first) else np.inf
        assert found.loc[name, "chip_time_to_goal_s"] == expected
        assert found.loc[name, "there"] == len(first)
    accuracy = rows_of(reports.designs(places, "accuracy>=0.75"))
    last = reports.load(runs / "fast").learning.groupby("run").last()["accuracy"]
    assert accuracy.loc["fast", "quality"] == pytest.approx(last.mean())
    for wanted, why in (
        ("test_accuracy>=0.5", "is no measure of this training: one of error; accuracy"),
        ("error>=0.5", "is met by what is bad: write 'error<=0.5'"),
        ("error", "is not of the form"),
    ):
        with pytest.raises(InputError, match=why):
            reports.designs(places, wanted)


def test_where_nothing_gets_there_it_is_said_and_no_picture_drawn(runs, tmp_path):
    found = reports.designs([runs / "still"])
    assert figures_of(found) == {} and "no picture" in verdicts_of(found)[-1][1]
    with pytest.raises(InputError, match="nothing to plot"):
        found.plot()


@pytest.mark.slow
def test_sources_methods_and_points_are_designs(runs, tmp_path):
    label = {"training.compare_with": [{"label": "small", "eta": 0.05}]}
    sims.run_experiment("xor-learning", SMALL | label, out=tmp_path / "two")
    assert list(rows_of(reports.designs([tmp_path / "two"])).index) == [
        "two: chip, plain",
        "two: small",
    ]
    for name, noise in (("methods", 0.0), ("noisy", 0.01)):
        settings = {"estimation.trials": 64, "chip.error_unit.noise": noise}
        sims.run_experiment("xor", settings, out=tmp_path / name)
    methods = rows_of(reports.designs([tmp_path / "methods", tmp_path / "noisy"]))
    summary = reports.load(tmp_path / "noisy").of("hv")
    for row in summary.to_dict("records"):
        own = methods.loc[f"noisy: {row['method']}/{row['code']}"]
        assert own["quality"] == row["cosine"]
        expected = row["chip_time_s"] * row["evaluations_to_0_9"] / row["evaluations"]
        assert own["chip_time_to_goal_s"] == pytest.approx(expected, rel=1e-12)
    vary = {"training.eta": [0.1, 2.0]}
    sims.run_sweep("xor-learning", vary, 2, tmp_path / "sweep", workers=0, set=SMALL)
    found = rows_of(reports.designs([tmp_path / "sweep", runs / "still"]))
    assert list(found.index) == ["sweep: eta = 0.1", "sweep: eta = 2", "still"]
    points = reports.load(tmp_path / "sweep").points
    points = points[(points["subject"] == "batch") & (points["training.eta"] == 2.0)]
    means = points.set_index("measure")["mean"]
    own = found.loc["sweep: eta = 2"]
    assert (own["quality"], own["energy_to_goal_j"]) == (means["solved"], means["energy_to_goal"])
    with pytest.raises(InputError, match="of single trainings: leave it out"):
        reports.designs([tmp_path / "sweep"], "error<=0.1")


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused_in_one_line(runs, tmp_path, command):
    for name, own in {
        "goal": {"training.goal": 0.1},
        "data": {"data.name": "parity", "data.bits": 2},
        "dies": {"study": "learning-dies", "dies.count": 2, "dies.starts": 1},
        "exact": {"training.source": "exact"},
    }.items():
        sims.run_experiment("xor-learning", {**SMALL, **own}, out=tmp_path / name)
    slow = runs / "slow"
    for places, why in (
        ((slow, slow, tmp_path / "goal"), "is given twice"),
        (
            (slow, runs / "fast", tmp_path / "goal"),
            "goal is error <= 0.125 in one and error <= 0.1",
        ),
        (
            (slow, runs / "fast", tmp_path / "data"),
            "data.name is xor in one and parity in the other",
        ),
        ((slow, runs / "fast", tmp_path / "dies"), "study is training in one and learning-dies"),
        ((slow, runs / "fast", tmp_path / "exact"), "only the exact gradient learns there"),
        ((slow, runs / "fast", tmp_path / "none"), "no such directory"),
    ):
        status, out, err = command("compare", *places)
        assert (status, out) == (2, "") and err.count("\n") == 1 and why in err
    # other goals are no hindrance where all are judged by one
    found = reports.designs([slow, tmp_path / "goal"], "error<=0.125")
    assert (found.summary["chip_time_to_goal_s"] > 0).all()
    dies = reports.designs([tmp_path / "dies"]).summary
    assert dies["quality"][0] == fact(reports.load(tmp_path / "dies"), "yield", "design")


def test_the_command_shows_and_writes_designs(runs, command, tmp_path):
    places = [runs / name for name in ("slow", "fast", "still")]
    status, out, _ = command("compare", *places, "--json")
    document = json.loads(out)
    rows = {row["design"]: row for row in document["tables"][0]["rows"]}
    assert rows["still"]["chip_time_to_goal_s"]["value"] == "Infinity"
    status, out, _ = command("compare", *places, "--out", tmp_path / "page", "-q")
    names = ["report.html", "summary.csv", "settings.csv", "designs.svg"]
    assert status == 0 and out.splitlines() == [str(tmp_path / "page" / name) for name in names]
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<svg" in page and "every key filled in" not in page
    status, out, err = command("compare", *places, places[0])
    assert (status, out) == (2, "") and "is given twice" in err and err.count("\n") == 1


@pytest.mark.slow
def test_the_command_keeps_what_it_does_for_two(runs, command, tmp_path):
    places = [runs / name for name in ("slow", "fast", "still")]
    status, out, _ = command("compare", *places)
    assert status == 0 and "On the Pareto front: fast" in out and "What was set differently" in out
    # two are set side by side, as ever, and written as designs
    status, out, _ = command("compare", *places[:2], "--out", tmp_path / "two", "--format", "md")
    assert status == 0 and "A and B" in out and "report.md" in out
    status, out, _ = command("compare", *places[:2], "--wanted", "error<=0.12")
    assert status == 0 and "A and B" not in out and "to error <= 0.12" in out
    for more, why in (
        (("--out", places[0]), "holds a run or a sweep"),
        (("--out", tmp_path / "x", "--format", "pdf"), "format = 'pdf' is unknown"),
        (("--format", "html"), "is of what is written: give --out PATH"),
    ):
        status, out, err = command("compare", *places, *more)
        assert (status, out) == (2, "") and why in err and err.count("\n") == 1


def test_a_sweep_draws_nothing_of_what_no_point_reaches(tmp_path):
    vary = {"training.eta": [0.1, 0.2]}
    never = {**SMALL, "training.updates": 5, "training.runs": 2, "training.goal": 1e-9}
    sims.run_sweep("xor-learning", vary, 1, tmp_path / "never", workers=0, set=never, keep=True)
    frames = reports.load(tmp_path / "never")
    drawn = figures_of(frames)
    assert "evaluations_to_goal" not in drawn and {"error", "energy"} <= drawn.keys()
    said = "Evaluations to goal: never, at any point: no plot of it is made."
    assert frames.view.notes(frames) == [said]
    found = reports.designs([tmp_path / "never"])
    assert set(found.summary["status"]) == {"never"} and figures_of(found) == {}
