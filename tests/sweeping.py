"""What the tests of sweeps share."""

import json
import sqlite3
from pathlib import Path

import pandas as pd

import sims
from reports.store.sweep_database import FILE, Outcome

ROOT = Path(__file__).parents[1]
TIMES = ["wall_time_s"]  # columns of this computer, not of the chip
VARY = {"chip.error_unit.noise": [1e-4, 1e-2], "estimation.trials": [16, 32]}


def same(a, b):
    pd.testing.assert_frame_equal(a.drop(columns=TIMES), b.drop(columns=TIMES), check_exact=True)


def made_up(experiment, keep):
    """A cell's outcome in no time: a function of its trials and seed alone."""
    rows = {
        "x": [experiment.run.seed + experiment.estimation.trials, 0.1],
        "wall_time_s": [0.0, 0.0],
    }
    return Outcome(
        "done",
        1.0,
        2.0,
        json.dumps(rows),
        "",
        {"weights": b"w" * 100, "energy": b"e"} if keep else {},
    )


def quick_sweep(out, keep=True, **options):
    return sims.run_sweep(
        "xor", {"estimation.trials": [16, 32]}, 2, out, workers=0, keep=keep, **options
    )


def stored(directory):
    """All that a sweep directory says, byte by byte."""
    with sqlite3.connect(directory / FILE) as file:
        text = "\n".join(file.iterdump())
    return text, {path.name: path.read_bytes() for path in (directory / "tables").glob("*")}
