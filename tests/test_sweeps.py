"""Sweeps: the same numbers however they are run, in this process, in workers or on a cluster,
and what fails.
"""

import multiprocessing
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from sweeping import ROOT, VARY, same

import sims
from perturb import InputError
from perturb.seeds import derive_seed
from perturb.threads import VARIABLE, n_threads
from reports.store.sweep_database import FILE
from sims.sweeps import cell as cells
from sims.sweeps import plan as sweeper
from sims.sweeps import workers

# ---- results


@pytest.mark.slow
def test_every_row_is_that_of_a_run_alone_with_its_keys_and_seed(whole):
    _, frame = whole
    assert list(frame.columns[:4]) == [*VARY, "repeat", "seed"]
    assert list(frame.columns[4:]) == list(
        sims.run_experiment("xor", {"estimation.trials": 16}).summary.columns
    )
    assert len(frame) == 8 * 6 and frame.attrs["failed"] == []
    for (noise, trials, repeat), rows in frame.groupby([*VARY, "repeat"]):
        changes = {"chip.error_unit.noise": noise, "estimation.trials": trials}
        alone = sims.run_experiment("xor", changes, seed=int(rows["seed"].iloc[0])).summary
        same(rows.iloc[:, 4:].reset_index(drop=True), alone)
        assert (
            rows["seed"] == derive_seed(0, "repeat", repeat) if repeat else rows["seed"] == 0
        ).all()  # run.seed is 0


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bits(whole, tmp_path):
    two = sims.run_sweep("xor", VARY, 2, tmp_path / "two", workers=2)
    same(two, whole[1])
    assert not multiprocessing.active_children()


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setenv(VARIABLE, "8")
    assert (
        n_threads() == 8
        and workers.WorkerProcesses(3)._threads == 2
        and workers.WorkerProcesses(20)._threads == 1
    )
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(InputError, match="PERTURB_NUM_THREADS = '0'"):
        n_threads()


@pytest.mark.slow
def test_the_table_in_the_file_the_command_and_python_are_the_same_sweep(command, whole):
    text = Path(ROOT / "sims/experiments/xor.toml").read_text()
    table = (
        "[sweep]\nrepeats = 2\n[sweep.vary]\nchip.error_unit.noise ="
        ' "logspace:-4:-2:2"\nestimation.trials = [16, 32]\n'
    )
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
    assert (
        status == 0
        and out == "8 of 8 cells are done. Results are in out. Next: perturb report out\n"
    )
    lines = err.splitlines()
    assert (
        len(lines) == 8
        and lines[-1].startswith("8 of 8: cell ")
        and "cells/s, 0 s left" in lines[-1]
    )
    assert command("sweep", "xor", *varied, "--out", "out")[::2] == (
        0,
        "",
    )  # the same: nothing is left to do
    same(sims.run_sweep("xor", VARY, 2, "out"), whole[1])
    assert (
        command("run", "mine.toml", "--set", "estimation.trials=16")[0] == 0
    )  # one run: [sweep] is of no account


def test_paths_of_chips_are_relative_to_the_file_that_names_them(tmp_path, quick):
    (tmp_path / "own.toml").write_text("[bus]\nskew_ns = 3\n")
    text = (
        f'{(ROOT / "sims/experiments/xor.toml").read_text()}\n[sweep.vary]\nchip.preset = ["ideal",'
        ' "own.toml"]\n'
    )
    (tmp_path / "mine.toml").write_text(text)
    plan = sweeper.plan_sweep(tmp_path / "mine.toml")
    assert [plan.experiment(plan.row(cell)).chip.bus.skew_ns for cell in range(2)] == [0, 3]


def test_other_tables_are_kept_beside(tmp_path):
    sims.run_sweep(
        "xor", {"estimation.trials": [16, 32]}, out=tmp_path / "out", workers=0, keep=True
    )
    weights = sims.load_sweep(tmp_path / "out", "weights")
    alone = sims.run_experiment("xor", {"estimation.trials": 32}).weights
    of_32 = weights[weights["estimation.trials"] == 32].iloc[:, 3:].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_32, alone, check_exact=True)
    with pytest.raises(InputError, match="000000-learning.parquet: missing"):
        sims.load_sweep(tmp_path / "out", "learning")


def test_values_that_are_no_scalars_are_columns_of_text():
    frame = sims.run_sweep(
        "xor", {"network.layers": [[2, 2, 1], [2, 3, 1]]}, set={"estimation.trials": 16}, workers=0
    )
    assert list(frame.groupby("network.layers").size().index) == ["[2, 2, 1]", "[2, 3, 1]"]
    assert list(frame["n_weights"].unique()) == [9, 13]


# ---- what fails


@pytest.mark.slow
def test_a_failed_cell_does_not_stop_the_others_and_its_command_replays_it(command):
    words = (
        "sweep",
        "teacher",
        "--set",
        "weights.warmup_updates=200",
        "--set",
        "estimation.trials=16",
        "--workers",
        "1",
    )
    status, out, err = command(
        *words, "--vary", "weights.warmup_rate=1e5,0.1", "--repeats", "2", "--out", "out"
    )
    assert (
        status == 2
        and err.splitlines()[-1] == "perturb: 2 of 4 cells failed; --retry runs them again"
    )
    assert out.count("makes the warm-up diverge") == 2 and "2 of 4 cells are done" in out
    frame = sims.load_sweep("out")
    assert set(frame["weights.warmup_rate"]) == {0.1}
    second = frame.attrs["failed"][1]
    assert (second["cell"], second["repeat"], second["seed"]) == (
        1,
        1,
        derive_seed(0, "repeat", 1),
    ) and second["command"] in out
    status, _, err = command(*shlex.split(second["command"])[1:])
    assert status == 2 and err == f"perturb: {second['error']}\n"
    frame.to_parquet("frame.parquet")  # what is attached can be written with it
    status, out, _ = command("status", "out")
    assert (
        status == 0
        and out.startswith("2 of 4 cells done, 2 failed, 0 left")
        and second["command"] in out
    )


def test_a_bug_in_a_cell_is_kept_with_its_traceback_and_run_again_on_demand(tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    # not `prepare`: an earlier test may have had the same problem, which cells remember
    monkeypatch.setattr(cells, "study_tables", broken)
    run = partial(
        sims.run_sweep, "xor", {"estimation.trials": [16, 32]}, out=tmp_path / "out", workers=0
    )
    failed = run().attrs["failed"]
    assert (
        len(failed) == 2
        and failed[0]["error"].startswith("Traceback")
        and "ZeroDivisionError: a bug" in failed[0]["error"]
    )
    monkeypatch.undo()
    assert run().empty  # failed, and so left alone
    frame = run(retry=True)
    assert len(frame) == 12 and frame.attrs["failed"] == []
    with sqlite3.connect(tmp_path / "out" / FILE) as file:  # only ever added to
        assert file.execute("select count(*) from results").fetchone() == (4,)


@pytest.mark.slow
def test_a_worker_that_dies_fails_its_cell_alone_and_is_replaced(tmp_path):
    def kill(told):
        if told.done >= 3 and not told.failed:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)

    vary = {"estimation.trials": list(range(1500, 1508))}
    run = partial(
        sims.run_sweep, "xor", vary, out=tmp_path / "out", workers=2, set={"run.fidelity": "event"}
    )
    frame = run(progress=kill)
    failed = frame.attrs["failed"]
    assert 1 <= len(failed) <= 2 and len(frame) == (8 - len(failed)) * 6
    assert "ended by signal SIGKILL" in failed[0]["error"] and "\n" not in failed[0]["error"]
    assert run(retry=True).attrs["failed"] == []


# ---- real processes

ENDLESS = [
    "--vary",
    "estimation.trials=" + ",".join(map(str, range(2000, 2040))),
    "--set",
    "run.fidelity=event",
    "--out",
    "out",
]


def cli(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "sims.cli", *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        **options,
    )


def alive(mark):
    """Processes that have mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (
                mark.encode() in (path / "environ").read_bytes()
                and "zombie" not in (path / "status").read_text()
            ):
                found.append(path.name)
        except OSError:
            pass
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_killed_in_the_middle_its_workers_end_and_what_was_done_is_kept(tmp_path):
    mark = f"SWEEP_TEST={tmp_path}"
    process = cli(
        "sweep", "xor", *ENDLESS, "--workers", 2, cwd=tmp_path, env=dict([mark.split("=")])
    )
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
    alone = sims.run_experiment(
        "xor", {"estimation.trials": trials, "run.fidelity": "event"}
    ).summary
    same(frame[frame["estimation.trials"] == trials].iloc[:, 3:].reset_index(drop=True), alone)


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_130_and_the_same_command_goes_on(tmp_path):
    process = cli("sweep", "xor", *ENDLESS, "--workers", 2, cwd=tmp_path)
    first = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = process.communicate(timeout=300)
    *cells_done, last = (first + err).splitlines()
    assert (
        process.returncode == 130
        and [line for line in cells_done if not re.match(r"\d+ of 40: cell \d+ done", line)] == []
    )
    done = sims.sweep_status(tmp_path / "out").done
    assert (
        last
        == f"perturb: interrupted; {done} of 40 cells are done and stored; the same command resumes"
        and done >= 1
    )


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path):
    (tmp_path / "script.py").write_text(
        "import sims\nprint(len(sims.run_sweep('xor', {'estimation.trials': [16, 32]},"
        " workers=2)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("12\n", "")


# ---- a cluster


def test_without_dask_one_line_says_how_to_install_it(monkeypatch, command):
    monkeypatch.setattr(workers, "find_spec", lambda name: None)
    status, _, err = command("sweep", "xor", "--repeats", "2", "--cluster", "tcp://127.0.0.1:1")
    assert (
        status == 2
        and "pip install 'perturb[cluster]'" in err
        and err.count("\n") == 1
        and not Path("runs").exists()
    )


def test_a_cluster_with_tls_needs_certificates(command):
    pytest.importorskip("distributed")
    status, _, err = command("sweep", "xor", "--repeats", "2", "--cluster", "tls://127.0.0.1:1")
    assert (
        status == 2
        and "tls://127.0.0.1:1 needs certificates: name them in Dask's configuration" in err
    )
    assert err.count("\n") == 1


def test_a_cluster_gives_the_same():
    distributed = pytest.importorskip("distributed")
    local = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    vary = {"estimation.trials": [16, 32]}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **local) as cluster:
        frame = sims.run_sweep("xor", vary, cluster=cluster.scheduler_address)
    same(frame, sims.run_sweep("xor", vary, workers=0))


@pytest.fixture
def dask(tmp_path):
    """A real scheduler and two real workers: (address, scheduler, workers)."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(*words):
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{words[0]}",
            *words[1:],
            "--no-dashboard",
        ]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    processes = [
        start(
            "scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-jupyter"
        )
    ]
    processes += [start("worker", address, "--nthreads", "1", "--no-nanny") for _ in range(2)]
    yield address, processes[0], processes[1:]
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_cluster_gives_the_same_though_a_worker_is_killed_in_the_middle(dask, tmp_path):
    address, _, workers = dask
    vary = {"estimation.trials": [500, 501, 502, 503], "chip.error_unit.noise": [1e-4, 1e-3, 1e-2]}
    here = sims.run_sweep("xor", vary, workers=0)

    def kill(told):
        if told.done == 3:
            workers[0].kill()

    frame = sims.run_sweep("xor", vary, out=tmp_path / "out", cluster=address, progress=kill)
    assert workers[0].poll() is not None
    same(frame, here)


@pytest.mark.slow
def test_a_lost_scheduler_is_one_line_and_what_was_done_is_kept(dask, tmp_path):
    address, scheduler, _ = dask
    vary = {"estimation.trials": list(range(500, 520))}

    def kill(told):
        if told.done == 3:
            scheduler.kill()

    with pytest.raises(InputError, match=f"cluster = {address} was lost") as caught:
        sims.run_sweep("xor", vary, out=tmp_path / "out", cluster=address, progress=kill)
    assert "\n" not in str(caught.value)
    assert 3 <= sims.sweep_status(tmp_path / "out").done < 20
    with pytest.raises(InputError, match="cannot be reached"):
        sims.run_sweep("xor", vary, out=tmp_path / "out", cluster=address)
    assert len(sims.run_sweep("xor", vary, out=tmp_path / "out", workers=0)) == 20 * 6
