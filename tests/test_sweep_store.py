"""What ends a sweep, and going on: nothing finished is lost, done twice, or believed
half-written.
"""

import os
import re
import shutil
import signal
import sqlite3
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sweeping import VARY, made_up, quick_sweep, same, stored

import sims
from perturb import InputError
from reports.store import sweep_database
from reports.store.sweep_database import FILE, Outcome, Store
from sims.sweeps import cell as cells
from sims.sweeps import plan as plans
from sims.sweeps import workers


def test_resumed_equals_uninterrupted(whole, tmp_path):
    def interrupt(told):
        if told.done in (3, 4, 7):
            raise KeyboardInterrupt

    run = partial(sims.run_sweep, "xor", VARY, 2, tmp_path / "out", progress=interrupt)
    for count in (0, 1, 0):
        with pytest.raises(KeyboardInterrupt):
            run(workers=count)
    same(run(workers=0), whole[1])
    with sqlite3.connect(tmp_path / "out" / FILE) as file:
        assert file.execute("select count(*), count(distinct cell) from results").fetchone() == (
            8,
            8,
        )


@contextmanager
def killed_at(step):
    """This process is killed (SIGKILL) at the given one of the moments before and after
    everything that is written.
    """
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
    sqlite3.connect, os.replace, os.fsync = (
        partial(connect, factory=Mortal),
        mortal(replace),
        mortal(fsync),
    )
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


@pytest.mark.slow
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
        before = (
            sims.load_sweep(out) if step > 60 else None
        )  # by then the plan is written; what is there is believed
        frame = quick_sweep(out)
        assert before is None or set(before["x"]) <= set(frame["x"])
        assert stored(out) == expected, step
        shutil.rmtree(out)
        step += 1
    assert step > 100  # moments at which it was killed


@pytest.mark.slow
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
        assert file.execute("select count(*), count(distinct cell) from results").fetchone() == (
            4,
            4,
        )


def test_status_says_whether_somebody_is_at_work(tmp_path, quick, command):
    seen = []
    quick_sweep(
        tmp_path / "out", progress=lambda told: seen.append(sims.sweep_status(tmp_path / "out"))
    )
    assert [(status.done, status.cells, status.running) for status in seen] == [
        (n, 4, True) for n in (1, 2, 3, 4)
    ]
    assert not sims.sweep_status(tmp_path / "out").running
    status, _, err = command("status", "nowhere")
    assert status == 2 and "nowhere: not the directory of a sweep" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_log_cut_anywhere_is_believed_up_to_its_last_whole_result(tmp_path, quick, monkeypatch):
    """What a power loss leaves: SQLite's log up to some byte."""
    monkeypatch.setattr(sweep_database, "EMPTY_EVERY_S", 1e9)  # all in the log
    out, crash = tmp_path / "out", tmp_path / "crash"

    def snapshot(told):
        shutil.copytree(out, crash / str(told.done))

    frame = quick_sweep(out, keep=False, progress=snapshot)
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
            assert "full: free some space, and the same command goes on" in str(
                error
            ) and "\n" not in str(error)
        else:
            assert pages > 3

    monkeypatch.undo()
    shutil.rmtree(out)
    with monkeypatch.context() as patch:
        patch.setattr(cells, "run_cell", made_up)
        patch.setattr(
            os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(
            InputError,
            match="weights.parquet: cannot be written .No space left on device.: free some space",
        ):
            quick_sweep(out)
    monkeypatch.setattr(cells, "run_cell", made_up)
    pd.testing.assert_frame_equal(quick_sweep(out), expected)
    assert not list((out / "tables").glob(".*"))


@pytest.mark.parametrize(
    "other, message",
    [
        (
            {"vary": {"estimation.trials": [16, 64]}},
            "vary.estimation.trials of the sweep was [16, 32]",
        ),
        ({"repeats": 3}, "repeats of the sweep was 2 when this sweep was begun and is 3 now"),
        ({"set": {"chip.bus.skew_ns": 5}}, "chip.bus.skew_ns of the experiment was 0"),
        (
            {"vary": {"estimation.trials": [16, 32], "chip.die": [0, 1]}},
            "vary.chip.die of the sweep was absent",
        ),
        ({"set": {"run.seed": 1}}, "run.seed of the experiment was 0"),
    ],
)
def test_another_sweep_in_the_same_directory_is_refused(tmp_path, quick, other, message):
    options = {
        "vary": {"estimation.trials": [16, 32]},
        "repeats": 2,
        "out": tmp_path / "out",
        "workers": 0,
    }
    frame = sims.run_sweep("xor", **options)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        sims.run_sweep("xor", **{**options, **other})
    assert "choose another --out" in str(caught.value) and "\n" not in str(caught.value)
    pd.testing.assert_frame_equal(sims.run_sweep("xor", **options), frame)


def test_other_versions_are_refused_to_go_on(tmp_path, quick, monkeypatch):
    frame = quick_sweep(tmp_path / "out")
    with monkeypatch.context() as later:
        later.setattr(plans, "versions", lambda: workers.versions() | {"numpy": "9.9"})
        with pytest.raises(
            InputError, match=re.escape('numpy (version) was "') + '.* and is "9.9" now'
        ):
            quick_sweep(tmp_path / "out")
    pd.testing.assert_frame_equal(quick_sweep(tmp_path / "out"), frame)


def test_foreign_files_are_refused_and_left_alone(tmp_path, quick):
    with sqlite3.connect(tmp_path / "other.sqlite") as file:
        file.execute("create table notes (text)")
    file.close()
    for name, content, message in (
        (
            FILE,
            b"some notes of mine, longer than a header of a database would be......" * 20,
            "not a database",
        ),
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


@pytest.mark.slow
def test_a_damaged_store_is_one_line_or_still_says_the_truth(tmp_path, quick):
    frame = quick_sweep(tmp_path / "out", keep=False)
    content = (tmp_path / "out" / FILE).read_bytes()
    random, damaged, noticed = np.random.Generator(np.random.Philox(0)), [], 0
    for place in random.integers(0, len(content), 150):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        damaged.append(bytes(flipped))
    damaged += [
        content[:length] for length in (1, 50, 100, 1000, 4096, 5000, 12288, len(content) - 1)
    ]
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


def test_the_status_of_a_sweep_reads_no_results(tmp_path, quick):
    quick_sweep(tmp_path / "out")
    before = sims.sweep_status(tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / FILE) as file:
        file.execute("update results set rows = '{'")
    assert sims.sweep_status(tmp_path / "out") == before and (
        before.cells,
        before.done,
        before.seconds,
    ) == (4, 4, 8.0)
    with sqlite3.connect(tmp_path / "out" / FILE) as file:
        file.execute("update results set seconds = 'x' where cell = 1")
    with pytest.raises(InputError, match="damaged: restore it from a copy"):
        sims.sweep_status(tmp_path / "out")


def test_only_one_store_is_open_at_a_time(tmp_path, quick):
    plan = plans.plan_sweep("xor", changes={"repeats": 2})
    rows = [plan.row(cell) for cell in range(2)]
    with Store(tmp_path, plan.record(), rows) as store:
        with pytest.raises(InputError, match="another process sweeps in this directory"):
            Store(tmp_path, plan.record(), rows)
        store.add(0, Outcome("done", 0.0, 1.0))
    with Store(tmp_path, plan.record(), rows) as store:
        assert store.statuses() == {0: "done"}


# ---- what is read where nothing can be written, and what one file alone holds


class ReadOnlyMedium(sqlite3.Connection):
    """SQLite where it can write nothing: a log cannot be read, as its index would have to be
    made.
    """

    def __init__(self, path, *args, **options):
        self._refused = str(path).endswith("?mode=ro") or Path(path).name == "sweep.lock"
        super().__init__(path, *args, **options)

    def execute(self, *args):
        if self._refused:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorname = "SQLITE_CANTOPEN"
            raise error
        return super().execute(*args)


def test_a_sweep_on_a_read_only_medium_can_be_read_with_its_log(tmp_path, quick, monkeypatch):
    quick_sweep(tmp_path / "ended", keep=False)
    expected = sims.load_sweep(tmp_path / "ended")
    with monkeypatch.context() as patch:  # killed before the log was written back
        patch.setattr(sweep_database, "EMPTY_EVERY_S", 1e9)
        if (child := os.fork()) == 0:
            quick_sweep(
                tmp_path / "killed",
                keep=False,
                progress=lambda told: told.done == 4 and os.kill(os.getpid(), signal.SIGKILL),
            )
        os.waitpid(child, 0)
    assert (tmp_path / "killed" / f"{FILE}-wal").stat().st_size
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=ReadOnlyMedium))
    for name in ("ended", "killed"):
        before = sorted(path.name for path in (tmp_path / name).iterdir())
        assert sims.load_sweep(tmp_path / name).equals(expected)
        assert sims.sweep_status(tmp_path / name).running is False
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == before


def test_after_a_kill_the_file_alone_has_nearly_everything(tmp_path, quick, monkeypatch):
    quick_sweep(tmp_path / "ended", keep=False)
    expected = sims.load_sweep(tmp_path / "ended")
    monkeypatch.setattr(sweep_database, "EMPTY_EVERY_S", 0.0)
    if (child := os.fork()) == 0:
        quick_sweep(
            tmp_path / "killed",
            keep=False,
            progress=lambda told: told.done == 3 and os.kill(os.getpid(), signal.SIGKILL),
        )
    os.waitpid(child, 0)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "killed" / FILE, tmp_path / "copy")
    found = sims.load_sweep(tmp_path / "copy")
    assert len(found) == 6 and found.equals(expected.iloc[:6])


@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_that_is_removed_ends_the_sweep_at_the_next_result(tmp_path, quick, replaced):
    out = tmp_path / "out"
    done = []

    def remove(told):
        done.append(told.done)
        shutil.rmtree(out)
        if replaced:
            quick_sweep(tmp_path / "other")
            os.rename(tmp_path / "other", out)

    with pytest.raises(
        InputError, match="sweep.sqlite: was removed or replaced while the sweep was at work"
    ):
        quick_sweep(out, progress=remove)
    assert done == [1] and out.exists() == replaced


@pytest.mark.slow
def test_workers_import_nothing_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "types.py").write_text("open('executed', 'w')\n")
    monkeypatch.chdir(tmp_path)
    frame = sims.run_sweep("xor", {"estimation.trials": [16, 32]}, workers=2)
    assert len(frame) and not Path("executed").exists()
    assert "PYTHONSAFEPATH" not in os.environ
