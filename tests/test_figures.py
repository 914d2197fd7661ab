"""What all figures promise: curves that coincide are told apart, colours are seen on a white and on
a dark page, averages do not jump where runs end.
"""

import itertools
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from reports.device_fit import Scale, device_fit
from reports.figures import (
    COLOURS,
    INK,
    ORDERED,
    finished,
    legend_below,
    ordered,
    sheet,
    svg,
    svg_elements,
)
from reports.studies.training.figures import over_runs
from sims.studies.training.records import times

PAPERS = re.findall(r"--paper: (#\w{6})", (files("reports") / "page.html").read_text())[:2]
INKS = re.findall(r"--(?:ink|soft): (#\w{6})", (files("reports") / "page.html").read_text())[:4]


def luminance(colour):
    """Relative luminance, WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_definition():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("paper", range(2))
def test_colours_are_seen_on_the_page(paper):
    assert len(PAPERS) == 2 and luminance(PAPERS[1]) < 0.02 < 0.9 < luminance(PAPERS[0])
    for colour in (*COLOURS, *ORDERED, INK):
        assert contrast(colour, PAPERS[paper]) >= 3
    # words follow the page: those of a light one, or of a dark one
    for ink in INKS[2 * paper : 2 * paper + 2]:
        assert contrast(ink, PAPERS[paper]) >= 4.5
    # an orange that was among them is none for white, a dark violet none for the dark
    assert contrast(("#e08e0b", "#440154")[paper], PAPERS[paper]) < 3


def curves(*ys, marker=""):
    figure = sheet(3.0)
    axis = figure.subplots()
    for i, y in enumerate(ys):
        axis.plot(np.arange(1, 21), y, f"{marker}-", color=COLOURS[i], label=f"curve {i}")
    legend_below(figure, *axis.get_legend_handles_labels(), ncols=4)
    return finished(figure)


def test_curves_that_coincide_take_turns_and_others_are_left_alone():
    up = np.linspace(1.0, 2.0, 20)
    # the second like the first, the third apart, the fourth like the first over a quarter
    figure = curves(up, up, up + 0.5, np.where(np.arange(20) < 5, up, up - 0.5))
    lines = figure.axes[0].get_lines()
    assert [line.is_dashed() for line in lines] == [False, True, False, True]
    signs = figure.legends[0].get_lines()
    assert [sign.is_dashed() for sign in signs] == [False, True, False, True]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"curve {i}" for i in range(4)
    ]
    # in each other's gaps: no two of the dashed ones lie above each other
    dashes = re.findall(
        r"stroke-dasharray: ([\d.]+),([\d.]+); stroke-dashoffset: ([\d.]+)", svg(figure, "x")
    )
    (on, off, shift), (_, _, next_shift) = (tuple(map(float, found)) for found in dashes[:2])
    assert next_shift - shift == pytest.approx(on) and off == pytest.approx(2 * on)
    assert not any(line.is_dashed() for line in curves(up, up + 0.1).axes[0].get_lines())


def test_of_markers_that_coincide_the_lower_ones_are_larger():
    up = np.linspace(1.0, 2.0, 20)
    sizes = [line.get_markersize() for line in curves(up, up, up + 0.5, marker="o").axes[0].lines]
    assert sizes[0] > sizes[1] == sizes[2]


def test_parts_of_a_page_have_the_colours_of_the_figure_and_words_that_follow_the_page():
    parts = svg_elements(curves(np.arange(1, 21), np.arange(2, 22)), "name")
    used = {to_hex(colour) for colour in re.findall(r"#[0-9a-fA-F]{6}\b", parts)}
    assert used <= {COLOURS[0], COLOURS[1], "#ffffff"} and "currentColor" in parts
    assert parts.count("<svg ") == 3 and "curve 0" in parts and "curve 1" in parts


@pytest.mark.parametrize(
    "updates, records", [(400, 100), (10_000, 100), (2**40, 50), (7, 5), (3, 9)]
)
def test_records_come_in_intervals_that_never_get_shorter(updates, records):
    at = times(updates, records)
    steps = np.diff(at)
    assert at[0] == 0 and at[-1] == updates and len(steps) == min(updates, records)
    assert (steps > 0).all() and (np.diff(steps) >= 0).all()
    if updates == 10_000:
        # even in the logarithm at first, then even: half of the records each
        middle = np.log(at[20:50])
        assert np.ptp(np.diff(middle)) < 0.1 and np.ptp(steps[50:]) <= 1
    # what was done before, even and logarithmic ones mixed, is no such sequence
    mixed = {round(t) for t in (*np.linspace(0, 400, 51), *np.geomspace(1, 400, 50))}
    assert (np.diff(np.diff(sorted(mixed))) < 0).any()


def test_a_mean_over_runs_does_not_jump_where_some_end_early():
    # ten runs; five end after update 3 with an error of 0.1, the others go on from 1 to lower ones
    rows = []
    for update, run in itertools.product(range(1, 9), range(10)):
        ended = run < 5
        done = min(update, 3) if ended else update
        rows.append((run, update, 2 * done, 0.1 if ended else 1.0 - 0.01 * update))
    table = pd.DataFrame(rows, columns=["run", "update", "evaluations", "error"])
    middle = over_runs(table, "evaluations", "error", mean=True)
    assert list(middle.index) == list(range(2, 18, 2))
    assert np.abs(np.diff(middle)).max() < 0.01
    # by what each had spent, those that go on are left alone after the third
    naive = table.groupby("evaluations")["error"].mean()
    assert np.abs(np.diff(naive)).max() > 0.3


def test_a_run_that_has_diverged_counts_among_the_worst():
    table = pd.DataFrame(
        {"run": [0, 1, 2], "update": 1, "evaluations": 2, "error": [0.1, np.nan, np.nan]}
    )
    assert np.isinf(over_runs(table, "evaluations", "error")).all()


def test_curves_in_order_have_colours_of_their_own():
    assert all(len(set(ordered(count))) == count for count in range(1, 9))


def test_a_fitted_device_is_shown_in_the_units_of_its_table():
    cells = {"device": "a", "sequence": 0}
    readings = pd.DataFrame(
        {**cells, "pulse": [0, 1], "measured": [-1.0, 1.0], "fitted": [-1.0, 0.9]}
    ).assign(residual=[0.0, 0.1], expected=0.1)
    response = pd.DataFrame({"direction": 1, "weight": [-1.0, 1.0], "step": [0.2, 0.1]})
    response = response.assign(stderr=0.01)
    steps = response.assign(device="a")
    figure = device_fit(readings, response, steps, "", Scale.of("uS", 15.0, 5.0))
    data, step = figure.axes[0], figure.axes[1]
    assert data.get_ylabel() == "conductance, uS" and list(data.lines[0].get_ydata()) == [10, 20]
    assert step.get_ylabel() == "change by one pulse, uS"
    assert list(step.lines[1].get_ydata()) == [1.0, 0.5]
    plain = device_fit(readings, response, steps, "", Scale.of("range", 0.0, 1.0))
    assert plain.axes[0].get_ylabel() == "weight, range units"
    assert list(plain.axes[0].lines[0].get_ydata()) == [-1, 1]
