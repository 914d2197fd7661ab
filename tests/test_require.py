"""Requirements: the least demanding value at which what is wanted is met, with a known error
probability; stored, resumed and shown like a sweep.
"""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shown import tables_of, texts_of
from sweeping import ROOT

import reports
import sims
from perturb import InputError
from reports.statistics import Wanted, share_interval
from reports.store.sweep_database import FILE, Outcome
from reports.studies.require.search import (
    ALL,
    FOUND,
    MET,
    NONE,
    UNDECIDED,
    Condition,
    bisection,
    can_tell,
    decisions,
    judged,
    looks_up_to,
    met_takes,
    most_misses,
    repeats_to_tell,
    search,
    together,
)
from sims.sweeps import cell as cells
from sims.sweeps.ladder import Span, ladder
from sims.sweeps.require import plan_requirement

NOISE = "chip.error_unit.noise"
BITS = "chip.error_unit.bits"
SPREAD = "chip.perturbation.gain_mismatch"
COSINE = Wanted("cosine", True, 0.9)
EDGE = math.sqrt(1 / 0.81 - 1)  # where 1/sqrt(1 + x^2) is 0.9
# ten steps a decade, with the edge in the middle of a step
LADDER = [0.0, *(EDGE * 10 ** ((i - 20.5) / 10) for i in range(40))]
LAST_MET = 21
SEARCHES = 400


def drawn(seed, place, condition, spread=0.1):
    """What all repeats of a value give: around 1/sqrt(1 + x^2), or shares of that probability."""
    rng = np.random.default_rng([seed, place])
    mean = 1 / math.sqrt(1 + LADDER[place] ** 2)
    n = condition.looks[-1]
    if condition.runs:
        return rng.binomial(condition.runs, mean, n) / condition.runs
    return rng.normal(mean, spread, n)


def sought(condition):
    """Many searches of a known answer: how many steps each is off, and whether it errs: whether
    a value that was told is not what it is.
    """
    points = [{"x": place} for place in range(len(LADDER))]
    off, errs, open_ = [], [], []
    for seed in range(SEARCHES):
        found = search(points, condition, lambda point: drawn(seed, point["x"], condition))  # noqa: B023
        off.append(abs(found.answer - LAST_MET))
        told = {place: each.status for place, each in found.tested.items()}
        open_.append(UNDECIDED in told.values())
        errs.append(
            any(
                status != UNDECIDED and (status == MET) != (place <= LAST_MET)
                for place, status in told.items()
            )
        )
    return np.array(off), np.array(errs), np.array(open_)


MEAN = Condition(COSINE, {}, "", 0, looks_up_to(256), 0.05)
SHARE = MEAN._replace(runs=10, looks=looks_up_to(256, 1))


@pytest.mark.parametrize(
    "condition", [MEAN, pytest.param(SHARE, marks=pytest.mark.slow)], ids=["mean", "share"]
)
def test_95_percent_of_the_answers_lie_within_one_step_of_a_known_one(condition):
    off, errs, open_ = sought(condition)
    assert np.mean(off <= 1) >= 0.95
    # as it is stated: the bound of Bonferroni is never exceeded, and by far
    assert errs.mean() <= 0.05
    # what lies half a step from the edge cannot always be told: then it is said, and else exact
    assert (off[~open_ & ~errs] == 0).all()


def test_the_mean_of_four_repeats_alone_would_not_do():
    """The negative control: with confidence 0 the first look decides, by its mean."""
    hasty = MEAN._replace(looks=(4,), alpha=decisions(len(LADDER)) / 2)
    off, errs, _ = sought(hasty)
    assert np.mean(off <= 1) < 0.9 and errs.mean() > 0.2


@pytest.mark.parametrize("length", [*range(1, 40), 1000])
def test_bisection_finds_every_place_in_as_many_decisions_as_it_says(length):
    for last in range(-1, length) if length < 40 else (-1, 0, 500, 998, 999):
        asks = bisection(length)
        place, asked = next(asks), 1
        try:
            while True:
                place = asks.send(place <= last)
                asked += 1
        except StopIteration as end:
            assert end.value == last and asked <= decisions(length)


@pytest.mark.parametrize("last", range(-1, 40))
def test_the_ideal_value_is_asked_only_where_the_first_worse_ones_are_not_met(last):
    asks = bisection(40)
    asked = [next(asks)]
    try:
        while True:
            asked.append(asks.send(asked[-1] <= last))
    except StopIteration:
        assert (0 in asked) == (last < 19) and asked[0] == 39


def test_looks_double_up_to_the_most():
    assert looks_up_to(16, 1) == (1, 2, 4, 8, 16)
    assert looks_up_to(64) == (4, 8, 16, 32, 64)
    assert looks_up_to(50) == (4, 8, 16, 32, 50) and looks_up_to(4) == (4,)


def test_a_repeat_without_a_value_meets_nothing_and_equal_ones_are_taken_as_they_are():
    few = MEAN._replace(looks=(4, 8))
    assert judged([1.0, math.nan, 1.0, 1.0], few, 0.01).status == "not met"
    assert judged([0.95] * 4, few, 0.01).repeats == 8  # more are asked for
    found = judged([0.95] * 8, few, 0.01)
    assert found.status == MET and math.isnan(found.low)
    assert judged([0.85] * 8, few, 0.01).status == "not met"


def test_repeats_that_cannot_tell_are_refused_before_anything_runs():
    shares = Condition(Wanted("solved", True, 0.9), {}, "share", 4, looks_up_to(8), 0.05)
    assert not can_tell(33, shares)
    assert can_tell(33, shares._replace(looks=looks_up_to(64)))
    # the same of what is to be rare
    rare = shares._replace(wanted=Wanted("diverged", False, 0.1))
    assert not can_tell(33, rare) and can_tell(33, rare._replace(looks=looks_up_to(64)))
    with pytest.raises(
        InputError, match="repeats = 8: too few to tell .*: give --repeats 6[0-9] or"
    ):
        plan_requirement("xor-learning", [BITS], {"training.runs": 1}, "solved>=0.9", repeats=8)


def test_together_is_tightened_a_step_of_one_key_after_another():
    specs = together({"a": [0, 1, 2], "b": [0, 10]}, [2, 1])
    assert [tuple(each.values()) for each in reversed(specs)] == [(2, 10), (1, 10), (1, 0), (0, 0)]


# ---- ladders


def test_ladders_begin_at_the_ideal_and_whole_numbers_stay_whole():
    bits = ladder(BITS, None, 10)
    assert bits == [0, *range(24, 0, -1)] and all(type(x) is int for x in bits)
    noise = ladder(NOISE, None, 10)
    assert noise[:2] == [0.0, 1e-6] and noise[-1] == 100 and len(noise) == 82
    assert noise == sorted(noise)
    # less is worse, and 0 is none
    leak = ladder("chip.weights.leak_tau_s", None, 10)
    assert leak[:2] == [0.0, 1e3] and leak[1:] == sorted(leak[1:], reverse=True)
    assert ladder(SPREAD, None, 10)[-1] == 1.0
    times = ladder("chip.perturbation.settle_ns", Span(1000, 0), 10)
    assert times[0] == 1000 and times[-2:] == [1, 0] and all(type(x) is int for x in times)
    assert ladder(BITS, Span(6, 3), 10) == [6, 5, 4, 3]
    assert ladder(BITS, Span(0, 22), 10) == [0, 24, 23, 22]


# ---- whole searches, of cells that take no time


def by_law(experiment, keep, law):
    """A cell whose cosine is a law of the chip and a little of its seed."""
    chip = experiment.chip
    x = law(chip.error_unit.noise, chip.perturbation.gain_mismatch, chip.error_unit.bits)
    cosine = 1 / math.sqrt(1 + x * x) + np.random.default_rng(experiment.run.seed).normal(0, 0.01)
    rows = {
        "quantity": ["gradient", "hv", "hv"],
        "primary": [True, False, True],
        "cosine": [0.0, 0.0, cosine],
    }
    return Outcome("done", 1.0, 2.0, json.dumps(rows))


@pytest.fixture
def law(monkeypatch):
    def use(function):
        monkeypatch.setattr(cells, "run_cell", partial(by_law, law=function))

    return use


def step_of(values, edge):
    return max(value for value in values if value <= edge)


def test_the_value_of_each_key_is_that_of_the_law_and_together_they_are_tightened(law):
    law(lambda noise, spread, bits: math.hypot(noise / 0.1, spread / 0.3))
    frame = sims.run_requirement("xor", [NOISE, SPREAD], workers=0)
    alone = frame[frame["specification"] == "alone"].set_index("key")["required"]
    # an edge within noise of a step may cost that step
    for key, scale in ((NOISE, 0.1), (SPREAD, 0.3)):
        values = ladder(key, None, 10)
        true = values.index(step_of(values, EDGE * scale))
        assert values.index(alone[key]) in (true - 1, true)
    both = frame[frame["specification"] == "together"].set_index("key")
    assert (both["status"] == FOUND).all() and (both["steps"] > 0).all()
    x = math.hypot(*(both["required"] / [0.1, 0.3]))
    assert EDGE / 1.6 < x < EDGE  # two steps of 10^(1/10) from it at most
    assert (both["low"] >= 0.9).all()


def test_bits_are_whole_and_the_next_value_is_not_met(law):
    law(lambda noise, spread, bits: 2.0 ** (-bits) * 100 if bits else 0.0)
    row = sims.run_requirement("xor", [BITS], workers=0).iloc[0]
    # 100/2^8 = 0.39 and 100/2^7 = 0.78 lie on the two sides of 0.484
    assert (row["required"], row["next"], row["status"]) == (8, 7, FOUND)
    assert row["low"] >= 0.9 > row["next_high"]


def test_no_converter_is_drawn_beyond_the_most_bits(law, tmp_path):
    law(lambda noise, spread, bits: 2.0 ** (-bits) * 1e5 if bits else 0.0)
    sims.run_requirement("xor", [BITS], workers=0, out=tmp_path)
    axis = reports.load(tmp_path).plot().axes[0]
    labels = [label.get_text() for label in axis.get_xticklabels()]
    places = axis.get_xticks()
    assert labels[-1] == "off" and places[-1] > 24 and "0" not in labels
    drawn = np.concatenate([each[0].get_xdata() for each in axis.containers])
    assert 0 not in drawn and places[-1] in drawn


def test_where_nothing_limits_and_where_something_else_does(law, command):
    law(lambda noise, spread, bits: 0.0)
    assert sims.run_requirement("xor", [BITS], workers=0).iloc[0]["status"] == ALL
    law(lambda noise, spread, bits: 3.0)
    status, out, _ = command("require", "xor", BITS, NOISE, "--workers", "0", "--out", "out")
    assert status == 0 and "is not met even at the ideal value 0" in out
    frame = reports.load("out").summary
    assert (frame["status"] == NONE).all() and frame["required"].isna().all()
    assert "together: not looked for" in out


class Killed(BaseException):
    pass


def test_a_search_goes_on_where_it_was_interrupted_and_ends_the_same(law, monkeypatch, tmp_path):
    law(lambda noise, spread, bits: math.hypot(noise / 0.1, spread / 0.3))
    whole = sims.run_requirement("xor", [NOISE, SPREAD], out=tmp_path / "whole", workers=0)
    done = (reports.load(tmp_path / "whole").cells["status"] == "done").sum()
    usual = cells.run_cell
    for after in (0, 1, 5, done - 1):
        left = [after]

        def mortal(experiment, keep, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return usual(experiment, keep)

        monkeypatch.setattr(cells, "run_cell", mortal)
        out = tmp_path / str(after)
        with pytest.raises(Killed):
            sims.run_requirement("xor", [NOISE, SPREAD], out=out, workers=0)
        monkeypatch.setattr(cells, "run_cell", usual)
        again = sims.run_requirement("xor", [NOISE, SPREAD], out=out, workers=0)
        pd.testing.assert_frame_equal(again, whole, check_exact=True)
        assert (reports.load(out).cells["status"] == "done").sum() == done
    # and once more: nothing is left to do
    monkeypatch.setattr(cells, "run_cell", mortal)
    again = sims.run_requirement("xor", [NOISE, SPREAD], out=tmp_path / "whole", workers=0)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


def test_it_is_stored_and_shown_like_a_sweep(law, command):
    law(lambda noise, spread, bits: noise / 0.1)
    words = ("require", "xor", NOISE, "--range", f"{NOISE}=1e-3:1", "--workers", "0")
    status, out, err = command(*words, "--out", "out", "--set", "estimation.trials=16")
    assert status == 0 and f"{NOISE}=0.0316: met" in err
    # before anything has run: 31 values, 7 decisions by 34 repeats each, the mean of 4 and 64
    assert err.startswith("31 values, of which a bisection judges at most 7, by 4 to 64 repeats:")
    assert "some 238 to 448 repeats in all" in err.splitlines()[0]
    flat = " ".join(out.split())
    assert "mean cosine of z = Hv >= 0.9 is met up to" in flat
    assert "errs with a probability of at most 5 %" in flat
    status, out, _ = command("status", "out")
    assert status == 0 and "0 failed, 0 left" in out
    status, out, _ = command("report", "out", "--format", "html,md,csv,parquet,tex,png")
    assert status == 0
    page = Path("out/report.html").read_text()
    assert "<title>xor, what it requires, compare - perturb</title>" in page
    assert "what it requires" in page and "least demanding value" in page
    assert "| key |" in Path("out/report.md").read_text()
    frame = pd.read_csv("out/summary.csv")
    assert frame["key"].tolist() == [NOISE]
    frames = reports.load("out")
    # what means what is said of every column
    for name, table in frames.tables.items():
        assert set(table.columns) == set(frames.columns[name])
    assert frames.provenance["command"].startswith(f"perturb require xor {NOISE} --range")
    # the same again, as the page says it
    assert (
        command(*shlex.split(frames.provenance["command"])[1:], "--workers", "0", "--out", "out")[0]
        == 0
    )
    assert command("compare", "out")[0] == 0 and command("compare", "out", "out")[0] == 0
    assert len(sims.load_sweep("out")) == 3 * len(frames.cells)
    status, _, err = command("report", "out", "--wanted", "cosine>=0.5")
    assert status == 2 and "leave it out" in err


def test_another_search_in_the_same_directory_is_refused(law, command):
    law(lambda noise, spread, bits: noise / 0.1)
    words = ("require", "xor", "--workers", "0", "--out", "out")
    assert command(*words, BITS, "--wanted", "cosine>=0.5")[0] == 0
    for other in ((BITS,), (NOISE, "--wanted", "cosine>=0.5"), (BITS, "--set", "run.seed=1")):
        status, _, err = command(*words, *other)
        assert status == 2 and "choose another --out" in err and err.count("\n") == 1
    status, _, err = command("sweep", "xor", "--vary", f"{BITS}=1,2", "--out", "out")
    assert status == 2 and "choose another --out" in err


def test_a_cell_that_fails_counts_as_not_met_and_runs_again_with_retry(law, command, monkeypatch):
    law(lambda noise, spread, bits: 2.0 ** (-bits) * 100 if bits else 0.0)
    usual = cells.run_cell

    def failing(experiment, keep):
        if experiment.chip.error_unit.bits == 13:
            return Outcome("failed", 1.0, 2.0, error="InputError: out of luck")
        return usual(experiment, keep)

    monkeypatch.setattr(cells, "run_cell", failing)
    words = ("require", "xor", BITS, "--workers", "0", "--out", "out")
    status, out, err = command(*words)
    assert status == 2 and "out of luck" in out and "--retry runs them again" in err
    # said of the run alone, which does the same
    assert f"--set {BITS}=13" in out
    monkeypatch.setattr(cells, "run_cell", usual)
    assert command(*words)[0] == 2
    status, _, _ = command(*words, "--retry")
    assert status == 0 and reports.load("out").summary["required"].tolist() == [8]


# ---- mistakes


@pytest.mark.parametrize(
    "words, says",
    [
        (("xor", "chip.error_unit.nois"), "did you mean noise"),
        (("xor", "nonsense"), "nonsense is no known key"),
        (("xor", "network.activation"), "takes no number"),
        (("xor", "network.layers"), "takes no number"),
        (("xor", "chip.error_unit"), "takes no number"),
        (("xor", "chip.error_unit.dither"), "takes no number"),
        (("xor", "chip.bus.word_bits"), "give --range chip.bus.word_bits=IDEAL:WORST"),
        (("xor", "chip.bus.dE_range"), "has no range"),
        (("xor", "chip.faults.tile"), "has no range"),
        (("xor", NOISE, NOISE), "given twice"),
        (("xor", NOISE, "--wanted", "cosine>=high"), "not of the form"),
        (("xor", NOISE, "--wanted", "cosine"), "not of the form"),
        (("xor", NOISE, "--wanted", "luck>=1"), "luck is no measure"),
        (("xor", NOISE, "--wanted", "cosine>=1"), "inside its limits"),
        (("xor", NOISE, "--quantity", "z"), "is not estimated"),
        (("xor-learning", NOISE, "--quantity", "hv"), "leave it out"),
        (("xor", NOISE, "--range", f"{NOISE}=1"), "KEY=IDEAL:WORST"),
        (("xor", NOISE, "--range", f"{NOISE}=1:nan"), "KEY=IDEAL:WORST"),
        (("xor", NOISE, "--range", f"{NOISE}=1:1"), "single value"),
        (("xor", NOISE, "--range", f"{NOISE}=-1:1"), "change its sign"),
        (("xor", NOISE, "--range", f"{NOISE}=-1:-2"), "must be >= 0"),
        (("xor", NOISE, "--range", f"{BITS}=1:2"), "is not sought"),
        (("xor", BITS, "--range", f"{BITS}=1.5:4"), "must be integers"),
        (("xor", BITS, "--range", f"{BITS}=30:4"), "must be <= 24"),
        (("xor", NOISE, "--repeats", "3"), "repeats = 3"),
        (("xor", NOISE, "--steps-per-decade", "0"), "steps_per_decade = 0"),
        (("xor", NOISE, "--set", f"{NOISE}=1"), "is set and varied"),
        (("xor", NOISE, "--workers", "-1"), "workers = -1"),
        (("spectrum", NOISE), "no experiment of that name"),
        (("finite-difference", NOISE), "nothing to require"),
        (("xor", "run.seed"), "has no range"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(command, words, says):
    status, out, err = command("require", *words, "--out", "out")
    assert status == 2 and says in err and err.count("\n") == 1 and not out
    assert not os.path.exists("out")


@pytest.mark.parametrize(
    "experiment, wanted, small",
    [
        ("xor-learning", "luck>=1", ("training.runs=2", "training.updates=10")),
        ("xor", "method>=1", ("estimation.trials=4",)),
    ],
)
def test_a_measure_that_there_is_not_is_said_after_the_first_cell(
    command, experiment, wanted, small
):
    words = [word for each in small for word in ("--set", each)]
    status, _, err = command(
        "require", experiment, NOISE, "--wanted", wanted, *words, "--workers", "0"
    )
    *before, last = err.splitlines()
    # how much there is to do is said before the first cell, which is the one that finds out
    assert status == 2 and "is no measure of this study: one of" in last
    assert len(before) <= 1 and all("repeats in all" in line for line in before)


# ---- shares, whose runs are counted


SOLVED = Condition(Wanted("solved", True, 0.9), {}, "share", 5, looks_up_to(16, 1), 0.05)


def test_how_many_runs_met_takes_and_how_many_repeats_would_tell():
    """By the definition: what `judged` says of that many runs."""
    for length in (9, 17, 200):
        most = most_misses(length, SOLVED)
        level = SOLVED.alpha / (decisions(length) * len(SOLVED.looks))
        for misses, status in ((most, MET), (most + 1, UNDECIDED)):
            values = [1.0] * 15 + [1 - misses / 5]
            # the looks before see runs that all do it: these are too few to tell
            assert judged(values, SOLVED, level).status == status
        assert met_takes([length], SOLVED).endswith("runs each, met takes all 80 runs")
    more = SOLVED._replace(looks=looks_up_to(64, 1))
    assert met_takes([9], more) == (
        "after 64 repeats of 5 runs each, met takes at least"
        f" {320 - most_misses(9, more)} of 320 runs"
    )
    rare = more._replace(wanted=Wanted("diverged", False, 0.1))
    assert f"at most {most_misses(9, rare)} of 320 runs" in met_takes([9], rare)
    assert most_misses(9, rare) == most_misses(9, more) and met_takes([9], MEAN) == ""
    # 79 of 80
    needed = repeats_to_tell(79 / 80, 9, SOLVED)
    for repeats, told in ((needed // 2, False), (needed, True)):
        looks = looks_up_to(repeats, 1)
        n = 5 * repeats
        level = 0.05 / (decisions(9) * len(looks))
        low, _ = share_interval(round(79 / 80 * n), n, "exact", 1 - 2 * level)
        assert (low >= 0.9) == told
    assert repeats_to_tell(0.9, 9, SOLVED) == 0


def by_runs(experiment, keep):
    """A training of which every run is solved, but one of 80 where both keys are worse than 5
    bits and noise 0.1.
    """
    unit = experiment.chip.error_unit
    bad = 0 < unit.bits <= 5 and unit.noise >= 0.1
    few = 0 < unit.bits <= 3 or unit.noise >= 0.5
    first = (unit.bits, unit.noise) not in by_runs.seen
    by_runs.seen.add((unit.bits, unit.noise))
    misses = 4 if few else bad and first
    rows = {"subject": ["batch"], "measure": ["solved"], "value": [1 - misses / 5]}
    return Outcome("done", 1.0, 2.0, json.dumps(rows))


@pytest.fixture
def undecided_together(monkeypatch, command):
    words = ("require", "xor-learning", BITS, NOISE, "--set", "training.runs=5", "--repeats", "16")
    words += ("--range", f"{BITS}=8:2", "--range", f"{NOISE}=0.01:1", "--steps-per-decade", "5")
    words += ("--wanted", "solved>=0.9", "--workers", "0", "--out", "out")
    by_runs.seen = set()
    monkeypatch.setattr(cells, "run_cell", by_runs)
    return words


def test_what_is_undecided_together_is_not_called_not_met(undecided_together, command):
    status, out, err = command(*undecided_together)
    assert status == 0 and f"{BITS}=4 {NOISE}=0.398: undecided, 0.9875 after 16 repeats" in err
    flat = " ".join(out.split())
    sentence = flat[flat.index("together: with the values of each alone") :]
    assert sentence.startswith(
        f"together: with the values of each alone, {BITS} = 4, {NOISE} = 0.398, it is undecided,"
        " within noise of it, taken as not met (0.988 ["
    )
    assert "with another --out, would tell if it stays 0.9875; tightened by" in sentence
    assert "met takes all 80 runs" in flat
    # the table, too, says what the next value is
    header, rows = texts_of(tables_of(reports.load("out"))[0])
    assert [row[header.index("next is")] for row in rows] == ["not met", "not met"]
    # beforehand, too; and how many repeats it may take
    assert "then of all keys together at most" in err and "met takes all 80 runs" in err
    begin, most = err.split("some ")[1].split(" repeats in all")[0].split(" to ")
    done = len(reports.load("out").cells)
    assert int(begin) <= done <= int(most)
    tried = flat[flat.index("Combinations that were tried") :]
    assert tried.count("undecided") >= 2
    assert command("report", "out", "--format", "html")[0] == 0
    page = Path("out/report.html").read_text()
    assert "Combinations that were tried" in page
    # steps of a factor are equal on the axis, bits are on one of their own
    scales = {
        figure.axes[0].get_xlabel(): figure.axes[0].get_xscale()
        for figure, _ in reports.load("out").view.figures(reports.load("out")).values()
    }
    assert scales == {BITS: "linear", NOISE: "log"}


def test_the_status_of_a_search_says_that_more_may_follow(undecided_together, command, monkeypatch):
    left = [20]

    def mortal(experiment, keep):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return by_runs(experiment, keep)

    monkeypatch.setattr(cells, "run_cell", mortal)
    with pytest.raises(Killed):
        command(*undecided_together)
    status, out, _ = command("status", "out")
    assert status == 0 and "left of those planned so far" in out
    assert "more cells follow when these have told which value comes next" in out
    monkeypatch.setattr(cells, "run_cell", by_runs)
    assert command(*undecided_together)[0] == 0
    status, out, _ = command("status", "out")
    assert status == 0 and "0 left;" in out and "more cells follow" not in out


# ---- real cells


def test_learning_counts_runs_over_all_repeats(tmp_path):
    """Updates so few that none is solved under any noise: an exact answer."""
    small = {"training.runs": 5, "training.updates": 20}
    frame = sims.run_requirement("xor-learning", [NOISE], out=tmp_path, set=small, workers=0)
    row = frame.iloc[0]
    assert row["status"] == NONE and row["next"] == 0 and row["next_mean"] == 0
    # 4 repeats of 5 runs, none of them solved: after two, half of them might be
    level = 0.05 / (decisions(82) * 7)
    assert row["next_high"] == pytest.approx(1 - level ** (1 / 20), rel=1e-9)
    assert row["next_high"] < 0.5 < 1 - level ** (1 / 10)
    assert row["next_repeats"] == 4
    assert row["judged"] == 3  # the worst, the middle and the ideal one


SMALL = {"estimation.trials": 16, "run.fidelity": "batch"}


@pytest.mark.slow
def test_killed_or_not_and_with_any_workers_it_is_the_same_table(tmp_path):
    options = ["--set", "estimation.trials=16", "--set", "run.fidelity=batch", "--workers", "2"]
    words = ["-m", "sims.cli", "require", "xor", BITS, *options, "--out", tmp_path / "killed"]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        if (tmp_path / "killed" / FILE).exists():
            try:
                if sims.sweep_status(tmp_path / "killed").done >= 3:
                    break
            except InputError:
                pass
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    whole = sims.run_requirement("xor", [BITS], out=tmp_path / "whole", set=SMALL, workers=0)
    again = sims.run_requirement("xor", [BITS], out=tmp_path / "killed", set=SMALL, workers=2)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


@pytest.mark.slow
def test_the_cells_are_runs_of_the_experiment(tmp_path):
    sims.run_requirement("xor", [BITS], out=tmp_path, set=SMALL, workers=0)
    stored = sims.load_sweep(tmp_path)
    own = stored[(stored[BITS] == 1) & (stored["repeat"] == 2)].iloc[:, 3:]
    seed = int(stored.loc[own.index[0], "seed"])
    alone = sims.run_experiment("xor", {**SMALL, BITS: 1}, seed=seed).summary
    alone = alone[alone["primary"]]
    pd.testing.assert_frame_equal(
        own.drop(columns="wall_time_s").reset_index(drop=True),
        alone.drop(columns="wall_time_s").reset_index(drop=True),
        check_exact=True,
    )


def test_keys_of_a_device_begin_at_what_a_perfect_one_has():
    device = "chip.weights.device"
    for key, first, last in (
        ("step.c2c", 0.0, 10.0),
        ("step.dw_min_dtod", 0.0, 1.0),
        ("step.dw_min", 1e-5, 0.5),
        ("leak.lifetime_s", 1e3, 1e-9),
        ("linear.gamma_up", 0.0, 1.0),
        ("corrupt.fraction", 0.0, 1.0),
    ):
        values = ladder(f"{device}.{key}", None, 10)
        assert (values[0], values[-1]) == (first, last)
        rises = values[-1] > values[1]
        assert values[1:] == sorted(values[1:], reverse=not rises)
    assert ladder(f"{device}.bits", None, 10) == [*range(24, 0, -1)]
    # what is neither better nor worse has no range of its own, and one that is given counts
    with pytest.raises(InputError, match="has no range"):
        ladder(f"{device}.step.up_down", None, 10)
    assert ladder(f"{device}.step.c2c", Span(0.1, 1.0), 10)[0] == 0.1


def test_requirements_of_a_published_device_need_no_range():
    device = "chip.weights.device"
    keys = [f"{device}.{key}" for key in ("step.c2c", "step.dw_min", "bounds.w_max_dtod")]
    plan = plan_requirement("reram-learning", keys)
    assert [plan.ladders[key][0] for key in keys] == [0.0, 1e-5, 0.0]
