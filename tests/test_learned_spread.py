"""What a training says of its runs beside the median: their spread, and what a data sheet takes."""

import math

import pytest
from shown import figures_of, frames_of, spoken, tables_of, texts_of

import sims

SMALL = {
    "training.updates": 1000,
    "training.runs": 6,
    "training.goal": 0.1,
    "training.compare_with": [],
    "chip.energy.static_w": 1e-3,
}


@pytest.fixture(scope="module")
def learned():
    return sims.run_experiment("xor-learning", SMALL)


@pytest.mark.slow
def test_time_and_energy_have_the_range_of_runs(learned):
    own = learned.learning[learned.learning["source"] == "batch"]
    there = own[own["error"] <= 0.1].groupby("run").first()["chip_time_s"]
    assert 1 < len(there) and there.min() < there.max()
    frames = frames_of(learned)
    text = dict(spoken(learned))["chip:"]
    low, middle, high = (1e3 * value for value in (there.min(), there.median(), there.max()))
    assert f"{middle:.3g} ms ({low:.3g} ms to {high:.3g} ms) of chip time" in text.replace(
        ".0 ms", " ms"
    )
    assert "(medians, and least and most of a run); the whole training takes " in text
    header, rows = texts_of(tables_of(frames)[0])
    assert "[" in rows[0][header.index("time to goal")]
    notes = frames.view.notes(frames)
    assert notes[0].startswith("For a data sheet: the most that the whole training takes")
    assert "an exact measure, which a chip does not have" in notes[0]


def test_where_no_run_gets_there_no_data_sheet_is_filled():
    frames = frames_of(sims.run_experiment("xor-learning", {**SMALL, "training.updates": 3}))
    assert math.isinf(frames.fact("chip_time_to_goal", "batch"))
    assert not any("data sheet" in note for note in frames.view.notes(frames))


@pytest.mark.slow
def test_every_panel_of_the_learning_curves_has_the_single_runs():
    settings = {
        "study": "training",
        "training.runs": 3,
        "training.updates": 20,
        "data.samples": 60,
        "training.batch": 0,
        "data.test": 20,
        "network.layers": [64, 4, 10],
    }
    frames = frames_of(sims.run_experiment("digits-learning", settings))
    figure, _ = figures_of(frames)["learning"]
    accuracy = next(axis for axis in figure.axes if axis.get_ylabel() == "test accuracy")
    thin = [line for line in accuracy.lines if line.get_linewidth() < 1 and line.get_alpha()]
    # of the chip and of the exact gradient
    assert len(thin) == 6
