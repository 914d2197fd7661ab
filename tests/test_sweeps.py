"""Sweeps: the same numbers however they are run, whatever ends them, and nothing believed that was not written whole."""

import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sims
from perturb import InputError
from perturb.threads import VARIABLE, n_threads
from sims import cells, crews, designs, sweeper
from sims.experiment import Sweep
from sims.sweep_store import FILE, Outcome, Store

ROOT = Path(__file__).parents[1]
TIMES = ["wall_time_s"]  # columns of this computer, not of the chip
VARY = {"chip.error_unit.noise": [1e-4, 1e-2], "estimation.trials": [16, 32]}


def same(a, b):
    pd.testing.assert_frame_equal(a.drop(columns=TIMES), b.drop(columns=TIMES), check_exact=True)


def made_up(experiment, keep):
    """A cell's outcome in no time: a function of its trials and seed alone."""
    rows = {"x": [experiment.run.seed + experiment.estimation.trials, 0.1], "wall_time_s": [0.0, 0.0]}
    return Outcome("done", 1.0, 2.0, json.dumps(rows), "", {"weights": b"w" * 100, "energy": b"e"} if keep else {})


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cells, "run_cell", made_up)


def quick_sweep(out, keep=True, **options):
    return sims.run_sweep("xor", {"estimation.trials": [16, 32]}, 2, out, workers=0, keep=keep, **options)


def stored(directory):
    """All that a sweep directory says, byte by byte."""
    with sqlite3.connect(directory / FILE) as file:
        text = "\n".join(file.iterdump())
    return text, {path.name: path.read_bytes() for path in (directory / "tables").glob("*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep of real cells: (directory, frame)."""
    directory = tmp_path_factory.mktemp("sweeps") / "whole"
    return directory, sims.run_sweep("xor", VARY, 2, directory, workers=0)


# ---- points


def points(is_whole=lambda key: False, **table):
    return designs.points(Sweep(**table), is_whole)


def test_a_grid_is_every_combination_the_last_key_fastest():
    assert points(vary={"a": [1, 2], "b": {"c": ["x", "y"]}}) == [
        {"a": 1, "b.c": "x"}, {"a": 1, "b.c": "y"}, {"a": 2, "b.c": "x"}, {"a": 2, "b.c": "y"},
    ]  # fmt: skip
    assert points(vary={"a": [1, 2]}, zip={"b": [1, 2], "c": "x,y"})[1] == {"a": 1, "b": 2, "c": "y"}


@pytest.mark.parametrize(
    "spec, values",
    [
        ("1,2.5,x", [1, 2.5, "x"]),
        ("true", [True]),
        ("[2,2,1],[2,3,1]", [[2, 2, 1], [2, 3, 1]]),
        ('"a,b",c', ["a,b", "c"]),
        ("linspace:0:1:5", [0, 0.25, 0.5, 0.75, 1]),
        ("linspace:0.1:0.3:3", [0.1, 0.2, 0.3]),
        (
            "logspace:-5:-1:9",
            [1e-5, 3.16227766017e-5, 1e-4, 3.16227766017e-4, 1e-3, 3.16227766017e-3, 0.01, 0.0316227766017, 0.1],
        ),
        (np.array([0.5, 1.0]), [0.5, 1.0]),
        (range(3), [0, 1, 2]),
        ((np.int64(3), (1, 2)), [3, [1, 2]]),
    ],
)
def test_values_of_a_key(spec, values):
    assert [point["k"] for point in points(vary={"k": spec})] == values


def test_computed_numbers_of_a_whole_key_are_rounded_each_taken_once():
    assert sweeper._is_whole("estimation.trials") and sweeper._is_whole("data.samples") and sweeper._is_whole("chip.die")
    assert not any(map(sweeper._is_whole, ("estimation.sigma", "chip.error_unit.noise", "direction.norm", "no.such", "chip")))
    assert points(lambda key: True, vary={"k": "logspace:0:1:6"}) == [{"k": k} for k in (1, 2, 3, 4, 6, 10)]


def test_designs_fill_the_ranges_evenly():
    ranges = {"a": "uniform:-1:1", "b": "loguniform:1e-4:1e-2"}
    for design, samples in (("sobol", 64), ("latin-hypercube", 50)):
        drawn = points(vary=ranges, design=design, samples=samples)
        for key, place in (("a", lambda a: (a + 1) / 2), ("b", lambda b: np.log10(b) / 2 + 2)):
            # one point in each of as many equal parts: what both designs promise of every single key
            parts = np.floor(np.array([place(point[key]) for point in drawn]) * samples)
            assert sorted(parts) == list(range(samples))
        assert drawn == points(vary=ranges, design=design, samples=samples)
        assert drawn != points(vary=ranges, design=design, samples=samples, seed=1)
    assert len(points(vary={**ranges, "c": [1, 2, 3]}, samples=8)) == 24


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vary": {"estimation.trial": [1]}}, "estimation.trial is no known key (did you mean trials?)"),
        ({"vary": {"estimation.trials": [16, 1]}}, "estimation.trials = 1 must be >= 2"),
        ({"vary": {"estimation.trials": "16,x"}}, 'estimation.trials = "x" must be a whole number'),
        ({"vary": {"estimation.trials": [16, "16"]}}, "two points are the same experiment"),
        ({"vary": {"estimation.trials": []}}, "estimation.trials has no value"),
        ({"vary": {"estimation.trials": 16}}, "must be a list of values"),
        ({"vary": {"estimation.sigma": "linspace:0:1"}}, "not of the form linspace:LO:HI:N"),
        ({"vary": {"estimation.sigma": "linspace:0:1:1e12"}}, "N from 1 to 1,000,000"),
        ({"vary": {"estimation.sigma": "logspace:1:1000:3"}}, "exponents of ten must lie between"),
        ({"vary": {"estimation.sigma": "loguniform:0:1"}}, "0 < LO < HI"),
        ({"vary": {"estimation.sigma": "uniform:1:0"}}, "LO must be less than HI"),
        ({"vary": {"estimation.sigma": "uniform:1:2"}, "samples": 100}, "must be a power of 2"),
        ({"vary": {"estimation.sigma": "uniform:1:2"}, "design": "grid"}, "sweep.design"),
        ({"vary": {"estimation.sigma": [None]}}, "no place in a TOML file"),
        ({"vary": {"run.seed": range(10**6), "estimation.sigma": [1, 2]}}, "2,000,000 cells but at most 1,000,000"),
        ({"zip": {"estimation.sigma": [1, 2], "estimation.r": [1]}}, "as many entries"),
        ({"vary": {"chip": [{}], "chip.die": [1]}}, "is part of chip"),
        ({"vary": {"chip.die": [1]}, "zip": {"chip.die": [2]}}, "varied and zipped"),
        ({"vary": {"chip.die": [1, 2]}, "set": {"chip.die": 1}}, "set and varied"),
        ({"vary": {"sweep.repeats": [1, 2]}}, "no key of a run"),
        ({"vary": {"estimation.method": ["covariance"], "estimation.code": ["walsh", "lfsr"]}}, "does not go with code = 'lfsr'"),
        ({"vary": {"run.seed": [2**64 - 1]}, "repeats": 2}, "must be <= 18446744073709551615"),
        ({"repeats": 0}, "sweep.repeats = 0 must be >= 1"),
        ({}, "nothing is varied"),
        ({"vary": {"chip.die": [1, 2]}, "workers": -1}, "workers = -1"),
        ({"vary": {"chip.die": [1, 2]}, "workers": 1, "cluster": "tcp://x:1"}, "does not go with cluster"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(cells, "run_cell", None)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        sims.run_sweep("xor", out=tmp_path / "out", **{"workers": 0, **options})
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


KEYS = [
    "estimation.trials",
    "estimation.sigma",
    "estimation.method",
    "chip.preset",
    "network.layers",
    "run.seed",
    "run",
    "",
    "a..b",
]
PARTS = ["16", "1e-2", "-1", "difference", "forward", "ideal", "[2,2,1]", "[2", '"', "{}", "nan", "", " ", ":", "\n", "\x00", "ü"]
SPECS = st.lists(st.sampled_from(PARTS), max_size=3).map(",".join) | st.lists(
    st.sampled_from(["linspace", "logspace", "uniform", "loguniform", "0", "0.5", "2", "3", "-1", "inf", "x", ""]), max_size=5
).map(":".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), SPECS, max_size=3), st.dictionaries(st.sampled_from(KEYS), SPECS, max_size=2))
def test_any_spec_ends_in_a_result_or_one_line(vary, zipped):
    options = {"vary": vary, "zip": zipped, "design": "latin-hypercube", "samples": 2}
    base = {"estimation.compare_with": [], **({} if "estimation.trials" in vary | zipped else {"estimation.trials": 16})}
    try:
        if len(sweeper.plan_sweep("xor", base, options)) <= 4:
            frame = sims.run_sweep("xor", workers=0, set=base, **options)
            assert len(frame) or frame.attrs["failed"]
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500


# ---- results


def test_every_row_is_that_of_a_run_alone_with_its_keys_and_seed(whole):
    _, frame = whole
    assert list(frame.columns[:4]) == [*VARY, "repeat", "seed"]
    assert list(frame.columns[4:]) == list(sims.run_experiment("xor", {"estimation.trials": 16}).summary.columns)
    assert len(frame) == 8 * 6 and frame.attrs["failed"] == []
    for (noise, trials, repeat), rows in frame.groupby([*VARY, "repeat"]):
        changes = {"chip.error_unit.noise": noise, "estimation.trials": trials}
        alone = sims.run_experiment("xor", changes, seed=int(rows["seed"].iloc[0])).summary
        same(rows.iloc[:, 4:].reset_index(drop=True), alone)
        assert (rows["seed"] == repeat).all()  # run.seed is 0


def test_any_number_of_workers_gives_the_same_bits(whole, tmp_path):
    two = sims.run_sweep("xor", VARY, 2, tmp_path / "two", workers=2)
    same(two, whole[1])
    assert not multiprocessing.active_children()


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setenv(VARIABLE, "8")
    assert n_threads() == 8 and crews.Processes(3)._threads == 2 and crews.Processes(20)._threads == 1
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(InputError, match="PERTURB_NUM_THREADS = '0'"):
        n_threads()


def test_the_table_in_the_file_the_command_and_python_are_the_same_sweep(command, whole):
    text = Path(ROOT / "sims/experiments/xor.toml").read_text()
    table = '[sweep]\nrepeats = 2\n[sweep.vary]\nchip.error_unit.noise = "logspace:-4:-2:2"\nestimation.trials = [16, 32]\n'
    Path("mine.toml").write_text(f"{text}\n{table}")
    varied = (
        "--vary",
        "chip.error_unit.noise=1e-4,1e-2",
        "--vary",
        "estimation.trials=16,32",
        "--repeats",
        "2",
        "--workers",
        "1",
    )
    status, out, err = command("sweep", "mine.toml", "--out", "out", "--workers", "2")
    assert status == 0 and out == "8 of 8 cells are done. Results are in out.\n"
    lines = err.splitlines()
    assert len(lines) == 8 and lines[-1].startswith("8 of 8: cell ") and "cells/s, 0 s left" in lines[-1]
    assert command("sweep", "xor", *varied, "--out", "out")[::2] == (0, "")  # the same: nothing is left to do
    same(sims.run_sweep("xor", VARY, 2, "out"), whole[1])
    assert command("run", "mine.toml", "--set", "estimation.trials=16")[0] == 0  # one run: [sweep] is of no account


def test_paths_of_chips_are_relative_to_the_file_that_names_them(tmp_path, quick):
    (tmp_path / "own.toml").write_text("[bus]\nskew_ns = 3\n")
    text = f'{(ROOT / "sims/experiments/xor.toml").read_text()}\n[sweep.vary]\nchip.preset = ["ideal", "own.toml"]\n'
    (tmp_path / "mine.toml").write_text(text)
    plan = sweeper.plan_sweep(tmp_path / "mine.toml")
    assert [plan.experiment(plan.row(cell)).chip.bus.skew_ns for cell in range(2)] == [0, 3]


def test_other_tables_are_kept_beside(tmp_path):
    sims.run_sweep("xor", {"estimation.trials": [16, 32]}, out=tmp_path / "out", workers=0, keep=True)
    weights = sims.load_sweep(tmp_path / "out", "weights")
    alone = sims.run_experiment("xor", {"estimation.trials": 32}).weights
    of_32 = weights[weights["estimation.trials"] == 32].iloc[:, 3:].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_32, alone, check_exact=True)
    with pytest.raises(InputError, match="000000-learning.parquet: missing"):
        sims.load_sweep(tmp_path / "out", "learning")


def test_values_that_are_no_scalars_are_columns_of_text():
    frame = sims.run_sweep("xor", {"network.layers": [[2, 2, 1], [2, 3, 1]]}, set={"estimation.trials": 16}, workers=0)
    assert list(frame.groupby("network.layers").size().index) == ["[2, 2, 1]", "[2, 3, 1]"]
    assert list(frame["n_weights"].unique()) == [9, 13]


# ---- what fails


def test_a_failed_cell_does_not_stop_the_others_and_its_command_replays_it(command):
    words = ("sweep", "teacher", "--set", "weights.warmup_updates=200", "--set", "estimation.trials=16", "--workers", "1")
    status, out, err = command(*words, "--vary", "weights.warmup_rate=1e5,0.1", "--repeats", "2", "--out", "out")
    assert status == 2 and err.splitlines()[-1] == "perturb: 2 of 4 cells failed; --retry runs them again"
    assert out.count("makes the warm-up diverge") == 2 and "2 of 4 cells are done" in out
    frame = sims.load_sweep("out")
    assert set(frame["weights.warmup_rate"]) == {0.1}
    second = frame.attrs["failed"][1]
    assert (second["cell"], second["repeat"], second["seed"]) == (1, 1, 1) and second["command"] in out
    status, _, err = command(*shlex.split(second["command"])[1:])
    assert status == 2 and err == f"perturb: {second['error']}\n"
    frame.to_parquet("frame.parquet")  # what is attached can be written with it
    status, out, _ = command("status", "out")
    assert status == 0 and out.startswith("2 of 4 cells done, 2 failed, 0 left") and second["command"] in out


def test_a_bug_in_a_cell_is_kept_with_its_traceback_and_run_again_on_demand(tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cells, "prepare", broken)
    run = partial(sims.run_sweep, "xor", {"estimation.trials": [16, 32]}, out=tmp_path / "out", workers=0)
    failed = run().attrs["failed"]
    assert len(failed) == 2 and failed[0]["error"].startswith("Traceback") and "ZeroDivisionError: a bug" in failed[0]["error"]
    monkeypatch.undo()
    assert run().empty  # failed, and so left alone
    frame = run(retry=True)
    assert len(frame) == 12 and frame.attrs["failed"] == []
    with sqlite3.connect(tmp_path / "out" / FILE) as file:  # only ever added to
        assert file.execute("select count(*) from results").fetchone() == (4,)


def test_a_worker_that_dies_fails_its_cell_alone_and_is_replaced(tmp_path):
    def kill(told):
        if told.done >= 3 and not told.failed:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    vary = {"estimation.trials": list(range(1500, 1508))}
    run = partial(sims.run_sweep, "xor", vary, out=tmp_path / "out", workers=2, set={"run.fidelity": "event"})
    frame = run(told=kill)
    failed = frame.attrs["failed"]
    assert 1 <= len(failed) <= 2 and len(frame) == (8 - len(failed)) * 6
    assert "ended by signal SIGKILL" in failed[0]["error"] and "\n" not in failed[0]["error"]
    assert run(retry=True).attrs["failed"] == []


# ---- what ends it, and going on


def test_resumed_equals_uninterrupted(whole, tmp_path):
    def interrupt(told):
        if told.done in (3, 4, 7):
            raise KeyboardInterrupt

    run = partial(sims.run_sweep, "xor", VARY, 2, tmp_path / "out", told=interrupt)
    for workers in (0, 1, 0):
        with pytest.raises(KeyboardInterrupt):
            run(workers=workers)
    same(run(workers=0), whole[1])
    with sqlite3.connect(tmp_path / "out" / FILE) as file:
        assert file.execute("select count(*), count(distinct cell) from results").fetchone() == (8, 8)


@contextmanager
def killed_at(step):
    """This process is killed (SIGKILL) at the given one of the moments before and after everything that is written."""
    left = iter(range(step, -1, -1))

    def mortal(call):
        def either_side(*args):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return either_side

    class Mortal(sqlite3.Connection):
        execute = mortal(sqlite3.Connection.execute)
        executemany = mortal(sqlite3.Connection.executemany)

    connect, replace, fsync = sqlite3.connect, os.replace, os.fsync
    sqlite3.connect, os.replace, os.fsync = partial(connect, factory=Mortal), mortal(replace), mortal(fsync)
    try:
        yield
    finally:
        sqlite3.connect, os.replace, os.fsync = connect, replace, fsync


def forked(action):
    """The exit status of action() in a process of its own; -9 if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except InputError:
            os._exit(2)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_point_of_writing_and_resumed_equals_uninterrupted(tmp_path, quick):
    quick_sweep(tmp_path / "whole")
    expected, step, killed = stored(tmp_path / "whole"), 0, -9

    def sweep_until(out, step):
        with killed_at(step):
            quick_sweep(out)

    while killed == -9:
        out = tmp_path / f"killed-{step}"
        killed = forked(lambda: sweep_until(out, step))  # noqa: B023
        assert killed in (-9, 0), step
        before = sims.load_sweep(out) if step > 60 else None  # by then the plan is written; what is there is believed
        frame = quick_sweep(out)
        assert before is None or set(before["x"]) <= set(frame["x"])
        assert stored(out) == expected, step
        shutil.rmtree(out)
        step += 1
    assert step > 100  # moments at which it was killed


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_started_many_times_at_once_nothing_is_done_twice(tmp_path, monkeypatch):
    def slow(experiment, keep):
        time.sleep(0.3)
        return made_up(experiment, keep)

    monkeypatch.setattr(cells, "run_cell", slow)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                quick_sweep(tmp_path / "out", keep=False)
                os._exit(0)
            except InputError as error:
                os._exit(2 if "another process sweeps in this directory" in str(error) else 3)
            except BaseException:
                os._exit(1)
        children.append(child)
    statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert statuses == [0, 2, 2, 2]
    with sqlite3.connect(tmp_path / "out" / FILE) as file:
        assert file.execute("select count(*), count(distinct cell) from results").fetchone() == (4, 4)


def test_status_says_whether_somebody_is_at_work(tmp_path, quick, command):
    seen = []
    quick_sweep(tmp_path / "out", told=lambda told: seen.append(sims.sweep_status(tmp_path / "out")))
    assert [(status.done, status.cells, status.running) for status in seen] == [(n, 4, True) for n in (1, 2, 3, 4)]
    assert not sims.sweep_status(tmp_path / "out").running
    status, _, err = command("status", "nowhere")
    assert status == 2 and "nowhere: not the directory of a sweep" in err and err.count("\n") == 1


def test_a_log_cut_anywhere_is_believed_up_to_its_last_whole_result(tmp_path, quick):
    """What a power loss leaves: SQLite's log up to some byte."""
    out, crash = tmp_path / "out", tmp_path / "crash"

    def snapshot(told):
        shutil.copytree(out, crash / str(told.done))

    frame = quick_sweep(out, keep=False, told=snapshot)
    log = (crash / "4" / f"{FILE}-wal").read_bytes()
    assert len(log) > 4 * 4096
    seen = set()
    for length in [*range(0, len(log), 2000), len(log)]:
        copy = tmp_path / f"cut-{length}"
        shutil.copytree(crash / "4", copy)
        (copy / f"{FILE}-wal").write_bytes(log[:length])
        (copy / f"{FILE}-shm").unlink()
        try:
            seen.add(len(part := sims.load_sweep(copy)))
            assert part.empty or part.equals(frame.iloc[: len(part)])
        except InputError as error:
            assert "interrupted before its first cell" in str(error)
        pd.testing.assert_frame_equal(quick_sweep(copy, keep=False), frame)
    assert {0, 2, 8} <= seen  # nothing, one cell of two rows, all


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, quick, monkeypatch):
    expected = quick_sweep(tmp_path / "whole")
    connect = sqlite3.connect

    def small(path, **options):
        file = connect(path, **options)
        if Path(path).name == FILE:
            file.execute(f"pragma max_page_count = {pages}")
        return file

    out = tmp_path / "out"
    for pages in (1, 3, 7, 8):
        monkeypatch.setattr(sqlite3, "connect", small)
        try:
            quick_sweep(out)
        except InputError as error:
            assert "full: free some space, and the same command goes on" in str(error) and "\n" not in str(error)
        else:
            assert pages > 3

    monkeypatch.undo()
    shutil.rmtree(out)
    with monkeypatch.context() as patch:
        patch.setattr(cells, "run_cell", made_up)
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(InputError, match="weights.parquet: cannot be written .No space left on device.: free some space"):
            quick_sweep(out)
    monkeypatch.setattr(cells, "run_cell", made_up)
    pd.testing.assert_frame_equal(quick_sweep(out), expected)
    assert not list((out / "tables").glob(".*"))


@pytest.mark.parametrize(
    "other, message",
    [
        ({"vary": {"estimation.trials": [16, 64]}}, "vary.estimation.trials of the sweep was [16, 32]"),
        ({"repeats": 3}, "repeats of the sweep was 2 when this sweep was begun and is 3 now"),
        ({"set": {"chip.bus.skew_ns": 5}}, "chip.bus.skew_ns of the experiment was 0"),
        ({"vary": {"estimation.trials": [16, 32], "chip.die": [0, 1]}}, "vary.chip.die of the sweep was absent"),
        ({"set": {"run.seed": 1}}, "run.seed of the experiment was 0"),
    ],
)
def test_another_sweep_in_the_same_directory_is_refused(tmp_path, quick, other, message):
    options = {"vary": {"estimation.trials": [16, 32]}, "repeats": 2, "out": tmp_path / "out", "workers": 0}
    frame = sims.run_sweep("xor", **options)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        sims.run_sweep("xor", **{**options, **other})
    assert "choose another --out" in str(caught.value) and "\n" not in str(caught.value)
    pd.testing.assert_frame_equal(sims.run_sweep("xor", **options), frame)


def test_other_versions_are_refused_to_go_on(tmp_path, quick, monkeypatch):
    frame = quick_sweep(tmp_path / "out")
    with monkeypatch.context() as later:
        later.setattr(sweeper, "versions", lambda: crews.versions() | {"numpy": "9.9"})
        with pytest.raises(InputError, match=re.escape('numpy (version) was "') + '.* and is "9.9" now'):
            quick_sweep(tmp_path / "out")
    pd.testing.assert_frame_equal(quick_sweep(tmp_path / "out"), frame)


def test_foreign_files_are_refused_and_left_alone(tmp_path, quick):
    with sqlite3.connect(tmp_path / "other.sqlite") as file:
        file.execute("create table notes (text)")
    file.close()
    for name, content, message in (
        (FILE, b"some notes of mine, longer than a header of a database would be......" * 20, "not a database"),
        (FILE, (tmp_path / "other.sqlite").read_bytes(), "a database of another program"),
        ("notes.txt", b"mine", "already holds files and no sweep"),
    ):
        out = tmp_path / message.replace(" ", "-")
        out.mkdir()
        (out / name).write_bytes(content)
        for action in (quick_sweep, sims.load_sweep, sims.sweep_status):
            with pytest.raises(InputError) as caught:
                action(out)
            assert "\n" not in str(caught.value) and (
                message in str(caught.value) or "not the directory of a sweep" in str(caught.value)
            )
        assert (out / name).read_bytes() == content


def test_a_damaged_store_is_one_line_or_still_says_the_truth(tmp_path, quick):
    frame = quick_sweep(tmp_path / "out", keep=False)
    content = (tmp_path / "out" / FILE).read_bytes()
    random, damaged, noticed = np.random.Generator(np.random.Philox(0)), [], 0
    for place in random.integers(0, len(content), 150):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        damaged.append(bytes(flipped))
    damaged += [content[:length] for length in (1, 50, 100, 1000, 4096, 5000, 12288, len(content) - 1)]
    for number, found in enumerate(damaged):
        copy = tmp_path / str(number)
        copy.mkdir()
        (copy / FILE).write_bytes(found)
        for action in (sims.load_sweep, partial(quick_sweep, keep=False)):
            try:
                got = action(copy)
            except InputError as error:
                noticed += 1
                assert "\n" not in str(error) and FILE in str(error)
            else:
                assert len(got.merge(frame)) == len(got), number  # nothing that was not there
    assert noticed > 30
    # an empty file is a sweep that was interrupted as it began
    (tmp_path / "0" / FILE).write_bytes(b"")
    with pytest.raises(InputError, match="interrupted before its first cell"):
        sims.load_sweep(tmp_path / "0")
    pd.testing.assert_frame_equal(quick_sweep(tmp_path / "0", keep=False), frame)


def test_a_result_changed_by_hand_is_not_believed(tmp_path, quick):
    quick_sweep(tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / FILE) as file:
        file.execute("""update results set rows = '{"x": [1]}' where cell = 2""")
    for action in (sims.load_sweep, quick_sweep):
        with pytest.raises(InputError, match="damaged: restore it from a copy"):
            action(tmp_path / "out")


def test_only_one_store_is_open_at_a_time(tmp_path, quick):
    plan = sweeper.plan_sweep("xor", changes={"repeats": 2})
    rows = [plan.row(cell) for cell in range(2)]
    with Store(tmp_path, plan.record(), rows) as store:
        with pytest.raises(InputError, match="another process sweeps in this directory"):
            Store(tmp_path, plan.record(), rows)
        store.add(0, Outcome("done", 0.0, 1.0))
    with Store(tmp_path, plan.record(), rows) as store:
        assert store.statuses() == {0: "done"}


# ---- real processes

ENDLESS = ["--vary", "estimation.trials=" + ",".join(map(str, range(2000, 2040))), "--set", "run.fidelity=event", "--out", "out"]


def cli(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "sims.cli", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True, **options
    )


def alive(mark):
    """Processes that have mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes() and "zombie" not in (path / "status").read_text():
                found.append(path.name)
        except OSError:
            pass
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_killed_in_the_middle_its_workers_end_and_what_was_done_is_kept(tmp_path):
    mark = f"SWEEP_TEST={tmp_path}"
    process = cli("sweep", "xor", *ENDLESS, "--workers", 2, cwd=tmp_path, env=dict([mark.split("=")]))
    for _ in range(3):
        assert process.stderr.readline().partition(" of 40: ")[2]
    process.kill()
    process.communicate()
    patience = time.monotonic() + 20
    while alive(mark) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not alive(mark)
    status = sims.sweep_status(tmp_path / "out")
    assert 3 <= status.done < 40 and not status.running
    frame = sims.load_sweep(tmp_path / "out")
    assert len(frame) == 6 * status.done
    trials = int(frame["estimation.trials"].iloc[0])
    alone = sims.run_experiment("xor", {"estimation.trials": trials, "run.fidelity": "event"}).summary
    same(frame[frame["estimation.trials"] == trials].iloc[:, 3:].reset_index(drop=True), alone)


def test_ctrl_c_is_one_line_and_130_and_the_same_command_goes_on(tmp_path):
    process = cli("sweep", "xor", *ENDLESS, "--workers", 2, cwd=tmp_path)
    first = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = process.communicate(timeout=60)
    *cells_done, last = (first + err).splitlines()
    assert process.returncode == 130 and [line for line in cells_done if not re.match(r"\d+ of 40: cell \d+ done", line)] == []
    done = sims.sweep_status(tmp_path / "out").done
    assert last == f"perturb: interrupted; {done} of 40 cells are done and kept; the same command goes on" and done >= 1


def test_a_script_needs_no_main_guard(tmp_path):
    (tmp_path / "script.py").write_text(
        "import sims\nprint(len(sims.run_sweep('xor', {'estimation.trials': [16, 32]}, workers=2)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("12\n", "")


# ---- a cluster


def test_without_dask_one_line_says_how_to_install_it(monkeypatch, command):
    monkeypatch.setattr(crews, "find_spec", lambda name: None)
    status, _, err = command("sweep", "xor", "--repeats", "2", "--cluster", "tcp://127.0.0.1:1")
    assert status == 2 and "pip install 'perturb[cluster]'" in err and err.count("\n") == 1 and not Path("runs").exists()


@pytest.fixture
def dask(tmp_path):
    """A real scheduler and two real workers: (address, scheduler, workers)."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(*words):
        command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:], "--no-dashboard"]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    processes = [start("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-jupyter")]
    processes += [start("worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
    yield address, processes[0], processes[1:]
    for process in processes:
        process.kill()
        process.wait()


def test_a_cluster_gives_the_same_though_a_worker_is_killed_in_the_middle(dask, tmp_path):
    address, _, workers = dask
    vary = {"estimation.trials": [500, 501, 502, 503], "chip.error_unit.noise": [1e-4, 1e-3, 1e-2]}
    here = sims.run_sweep("xor", vary, workers=0)

    def kill(told):
        if told.done == 3:
            workers[0].kill()

    frame = sims.run_sweep("xor", vary, out=tmp_path / "out", cluster=address, told=kill)
    assert workers[0].poll() is not None
    same(frame, here)


def test_a_lost_scheduler_is_one_line_and_what_was_done_is_kept(dask, tmp_path):
    address, scheduler, _ = dask
    vary = {"estimation.trials": list(range(500, 520))}

    def kill(told):
        if told.done == 3:
            scheduler.kill()

    with pytest.raises(InputError, match=f"cluster = {address} was lost") as caught:
        sims.run_sweep("xor", vary, out=tmp_path / "out", cluster=address, told=kill)
    assert "\n" not in str(caught.value)
    assert 3 <= sims.sweep_status(tmp_path / "out").done < 20
    with pytest.raises(InputError, match="cannot be reached"):
        sims.run_sweep("xor", vary, out=tmp_path / "out", cluster=address)
    assert len(sims.run_sweep("xor", vary, out=tmp_path / "out", workers=0)) == 20 * 6
