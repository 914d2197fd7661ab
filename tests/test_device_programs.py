"""Presets of devices against the program that they come from: its figures, and its rules as they
are in release 1.2.0.
"""

import numpy as np
import pytest
from test_device import changed, standard_errors

from hardware.device import (
    fabricate,
    initial,
    pulse,
)
from hardware.device_params import load_device


def program_steps(rng, n, dw_min, dtod, up_down=0.0, up_down_dtod=0.0):
    """Steps up and down of n cells: whichever direction is the smaller has all of the asymmetry."""
    gain, beta = 1 + dtod * rng.standard_normal(n), up_down_dtod * rng.standard_normal(n)
    return dw_min * np.abs(gain + beta + min(up_down, 0)), dw_min * np.abs(
        gain - beta - max(up_down, 0)
    )


def program_pulses(rng, w, d, count, steps, high, low):
    """`count` pulses of the exponential step of Gong et al. in one direction."""
    for _ in range(count):
        z = 2 * w / (high - low) * -0.5 - 0.5
        f = np.maximum(1 + (1.18445 if d > 0 else 0.081404) * np.exp(d * 5.0 * z), 0)
        w = np.clip(w + d * f * (1 + 5.0 * rng.standard_normal(w.size)) * steps, low, high)
    return w


def apart(a, b):
    """How many standard errors the means of two samples are from one another."""
    return abs(a.mean() - b.mean()) / np.hypot(a.std() / np.sqrt(a.size), b.std() / np.sqrt(b.size))


@pytest.mark.slow
def test_gong_steps_as_its_program_does_and_not_as_its_documentation_says():
    n, beta = 40_000, 0.259359
    rng, cells = np.random.default_rng(1), fabricate(load_device("reram-gong2018"), n, die=3)
    up, down = program_steps(rng, n, 0.00135, 0.2, beta, 0.05)
    for ours, theirs in (
        (cells.dw_up, up),
        (cells.dw_down, down),
        (cells.dw_up * cells.dw_down, up * down),
    ):
        assert apart(ours, theirs) < 5
        assert abs(ours.std() / theirs.std() - 1) < 5 / np.sqrt(n)
    assert apart(cells.dw_up, (1 + beta) * up) > 100
    high, low = (np.abs(1 + 0.3 * rng.standard_normal(n)) for _ in range(2))
    for d, steps in ((1, up), (-1, down)):
        theirs = program_pulses(rng, np.zeros(n), d, 250, steps, high, -low)
        ours = pulse(cells, np.zeros(n), 250 * d, 0, 0)
        assert apart(ours, theirs) < 5 and abs(ours.std() / theirs.std() - 1) < 5 / np.sqrt(n)
        if d > 0:
            assert ours.mean() == pytest.approx(0.356, abs=0.005)  # by the documentation 0.439
    # the symmetry point of the nominal device, by steps in turn: -0.217 by the program, -0.045 by
    # the documentation
    params = load_device("reram-gong2018")
    alike = changed(
        params,
        step=params.step.model_copy(update={"c2c": 0.0, "dw_min_dtod": 0.0, "up_down_dtod": 0.0}),
        bounds=params.bounds.model_copy(update={"w_max_dtod": 0.0, "w_min_dtod": 0.0}),
    )
    cell, w = fabricate(alike, 1, 0), [np.zeros(1)]
    for update in range(8000):
        w.append(pulse(cell, w[-1], 1 if update % 2 else -1, 0, update))
    assert np.mean(w[-2:]) == pytest.approx(-0.2172, abs=1e-3)  # a step is 0.003


@pytest.mark.parametrize(
    "name, up, down, spread",
    [
        ("capacitor-li2018", 0.05, 0.05, 0.01),
        ("ecram-tang2018", 0.1153, 0.5085, 0.05),
        ("ecram-kim2019", 0.4152, 0.7342, 0.05),
    ],
)
def test_slopes_spread_by_as_much_as_in_the_program_and_not_by_that_share_of_them(
    name, up, down, spread
):
    params, n = load_device(name), 20_000
    cells = fabricate(params, n, die=2)
    for slope, gamma, end in (
        (cells.law["slope_up"], up, params.bounds.w_max),
        (cells.law["slope_down"], down, params.bounds.w_min),
    ):
        theirs = np.abs(gamma + spread * np.random.default_rng(0).standard_normal(n))
        assert apart(slope * end, theirs) < 5
        assert (slope * end).std() == pytest.approx(theirs.std(), rel=5 / np.sqrt(n))


@pytest.mark.parametrize("g", [0.6, 1.4])
def test_pulses_of_phase_change_memory_have_all_of_the_noise_of_the_program(g):
    params, n = load_device("pcm-nandakumar2020"), 20_000
    alike = changed(
        params,
        programming=None,
        step=params.step.model_copy(update={"dw_min_dtod": 0.0, "up_down_dtod": 0.0}),
        bounds=params.bounds.model_copy(update={"w_max_dtod": 0.0}),
    )
    cells = fabricate(alike, n, die=0)
    dw = 0.01 * (1 + 27.235 * np.exp(2.5 * (2 * g / 2 * -1.0)))
    std = 0.6 * (dw + 0.042 + 0.108 * g)
    for d in (1, -1):
        change = pulse(cells, initial(cells, np.full(n, d * g), 0), d, 5, 0)[(1 - d) // 2] - g
        assert standard_errors(change, dw) < 5 and abs(change.std() / std - 1) < 5 / np.sqrt(2 * n)
    if g == 1.4:
        assert std == pytest.approx(0.127, abs=0.001)  # the share of the step alone would be 0.011
