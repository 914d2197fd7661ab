"""Overhead of a sweep over its cells, loading a store of many cells, and the page of a thousand.

python tests/benchmarks/sweeps.py [CELLS] [SECONDS]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import reports
import sims
from reports.store.sweep_database import Outcome, Store
from sims.sweeps import cell as cells
from sims.sweeps import plan as sweeper
from sims.sweeps import run
from sims.sweeps.workers import WorkerProcesses

COUNT, SECONDS = (
    int(sys.argv[1]) if len(sys.argv) > 1 else 10_000,
    float(sys.argv[2]) if len(sys.argv) > 2 else 1.0,
)


def loading(directory: Path) -> None:
    start = time.perf_counter()
    plan = sweeper.plan_sweep(
        "xor", {"estimation.compare_with": []}, {"vary": {"run.seed": range(COUNT)}}
    )
    print(f"plan of {COUNT:,} cells, every one checked: {time.perf_counter() - start:.2f} s")
    rows = cells.as_columns(sims.run_experiment("xor", {"estimation.compare_with": []}).summary)
    with Store(directory, plan.record(), map(plan.row, range(len(plan)))) as store:
        start = time.perf_counter()
        for cell in range(len(plan)):
            store.add(cell, Outcome("done", 0.0, 1.0, rows))
        print(f"a result written: {(time.perf_counter() - start) / COUNT * 1e3:.2f} ms")
    for _ in range(3):
        start = time.perf_counter()
        frame = sims.load_sweep(directory)
        print(
            f"{COUNT:,} cells loaded into a frame of {len(frame):,} rows:"
            f" {time.perf_counter() - start:.2f} s"
        )
        start = time.perf_counter()
        reports.load(directory)
        print(f"all frames of reports.load: {time.perf_counter() - start:.2f} s")


def page(directory: Path) -> None:
    """The page of 1,000 cells with three methods each: one key varied, two keys varied, no
    repeats at all.
    """
    outcome = Outcome("done", 0.0, 1.0, cells.as_columns(sims.run_experiment("xor").summary))
    noise, trials = "chip.error_unit.noise", "estimation.trials"
    for name, vary, repeats in (
        ("one", {noise: "logspace:-5:-1:200"}, 5),
        ("two", {noise: "logspace:-5:-1:20", trials: "logspace:2:5:10"}, 5),
        ("alone", {noise: "logspace:-5:-1:1000"}, 1),
    ):
        plan = sweeper.plan_sweep("xor", {}, {"vary": vary, "repeats": repeats})
        with Store(directory / name, plan.record(), map(plan.row, range(len(plan)))) as store:
            for cell in range(len(plan)):
                store.add(cell, outcome)
        start = time.perf_counter()
        (path,) = reports.export(directory / name, "html")
        took = time.perf_counter() - start
        print(
            f"page of {len(plan):,} cells, {name}: {took:.2f} s, {path.stat().st_size / 1e6:.2f} MB"
        )


def report(directory: Path) -> None:
    """Time and peak memory of the whole process of `perturb report` and `perturb status`, of
    COUNT cells with three methods: over one key with repeats and without, over two keys.
    """
    outcome = Outcome("done", 0.0, 1.0, cells.as_columns(sims.run_experiment("xor").summary))
    noise, trials = "chip.error_unit.noise", "estimation.trials"
    side = round(COUNT**0.5)
    for name, vary, repeats in (
        ("repeats", {noise: f"logspace:-5:-1:{COUNT // 5}"}, 5),
        ("alone", {noise: f"logspace:-5:-1:{COUNT}"}, 1),
        ("grid", {noise: f"logspace:-5:-1:{side}", trials: f"logspace:2:5:{side}"}, 1),
    ):
        plan = sweeper.plan_sweep("xor", {}, {"vary": vary, "repeats": repeats})
        with Store(directory / name, plan.record(), map(plan.row, range(len(plan)))) as store:
            for cell in range(len(plan)):
                store.add(cell, outcome)
        for words in (
            ["report", str(directory / name), "--out", str(directory / "out")],
            ["status", str(directory / name)],
        ):
            wall, cpu, peak = measured([sys.executable, "-m", "sims.cli", *words])
            print(
                f"{words[0]} of {len(plan):,} cells, {name}: {wall:.2f} s, {cpu:.2f} s of CPU,"
                f" {peak:.0f} MB"
            )


MEASURE = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(time.perf_counter() - start, used.ru_utime, used.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status) != 0)
"""


def measured(words: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of CPU and peak memory in MB of a command.

    Linux counts to a child's peak what its parent held at the fork: the parent here is a small
    process, not this one.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *words], capture_output=True, text=True, check=True
    )
    wall, cpu, peak = map(float, done.stdout.split())
    return wall, cpu, peak


def overhead(directory: Path) -> None:
    """Wall time of cells that take about SECONDS on one worker, beyond the cells' own, without
    the start of the worker.
    """
    trials = 1000
    _alone(trials)
    while (took := _alone(trials)) < SECONDS / 2:
        trials *= 2
    trials = round(trials * SECONDS / took)
    plan = sweeper.plan_sweep(
        "digits", {"estimation.trials": trials, "estimation.compare_with": []}, {"repeats": 21}
    )
    ends: list[tuple[float, float]] = []
    run.sweep(
        plan,
        directory,
        WorkerProcesses(1),
        False,
        lambda told: ends.append((time.perf_counter(), told.outcome.seconds)),
    )
    wall, work = ends[-1][0] - ends[0][0], sum(seconds for _, seconds in ends[1:])
    print(
        f"{len(ends) - 1} cells of {work / (len(ends) - 1):.3f} s: overhead"
        f" {(wall - work) / work:.2%}"
    )


def _alone(trials: int) -> float:
    start = time.perf_counter()
    sims.run_experiment("digits", {"estimation.trials": trials, "estimation.compare_with": []})
    return time.perf_counter() - start


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        page(Path(folder) / "page")
        report(Path(folder) / "report")
        loading(Path(folder) / "many")
        overhead(Path(folder) / "some")
