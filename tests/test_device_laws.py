"""Device laws: power steps and tables of steps, symmetry points, and one law more that is one
class.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_device import OTHERS, changed, device

from hardware.device import fabricate, pulse, symmetry_points
from hardware.device_params import load_device
from perturb import InputError


@pytest.mark.parametrize("d", [1, -1])
def test_power_steps_are_constant_steps_or_soft_bounds_at_exponents_of_0_or_1(d):
    bounds, w = {"w_max": 1.5, "w_min": -0.5}, np.linspace(-0.4, 1.2, 9)

    def after(model, dw, **tables):
        cells = fabricate(device(model, bounds=bounds, step={"dw_min": dw}, **tables), 9, die=0)
        return pulse(cells, w, 20 * d, 0, 0)

    def power(gamma):
        return after("power-step", 0.01, power={"gamma_up": gamma, "gamma_down": gamma})

    of_range = 0.01 * (1.5 if d > 0 else 0.5) / 2  # where w = 0 lies in the range
    np.testing.assert_allclose(power(1.0), after("soft-bounds", of_range), rtol=1e-12)
    np.testing.assert_allclose(power(0.0), after("constant-step", 0.01), rtol=1e-12)
    assert np.abs(power(2.0) - power(1.0)).max() > 0.01


def test_power_steps_tend_to_the_solution_of_their_differential_equation():
    # omega = (1 - w)/2 shrinks by (dw/2) omega^3 per pulse: omega^-2 grows by dw n
    errors = []
    for finer in (1, 2, 4):
        dw, n = 0.02 / finer, 100 * finer
        params = device("power-step", step={"dw_min": dw}, power={"gamma_up": 3.0})
        w = np.linspace(-0.8, 0.5, 5)
        x = ((1 - w) / 2) ** -2 + dw * n
        errors.append(np.abs(pulse(fabricate(params, 5, 0), w, n, 0, 0) - (1 - 2 * x**-0.5)).max())
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.1)


def test_a_table_of_steps_is_read_along_straight_lines_and_holds_the_laws_that_are_straight():
    up, w = [0.5, 2.0, 1.0], np.array([-1.0, -0.5, 0.0, 0.25, 0.9])
    params = device("piecewise-step", piecewise={"up": up, "down": [0.1, 0.3]})
    cells = fabricate(params, 5, die=0)
    np.testing.assert_allclose(
        pulse(cells, w, 1, 0, 0) - w, 0.01 * np.array([0.5, 1.25, 2.0, 1.75, 1.1]), rtol=1e-12
    )
    soft = fabricate(device("soft-bounds"), 5, die=0)
    table = fabricate(device("piecewise-step", piecewise={"up": [2, 0], "down": [0, 1, 2]}), 5, 0)
    for d in (1, -1):
        np.testing.assert_allclose(
            pulse(table, w, 30 * d, 0, 0), pulse(soft, w, 30 * d, 0, 0), rtol=1e-12
        )


# ---- symmetry points


@pytest.mark.parametrize(
    "name", ["linear-step", "soft-bounds", "exponential-step", "power-step", "piecewise-step"]
)
def test_pulses_up_and_down_in_turn_lead_to_the_symmetry_point(name):
    tables = {"step": {"dw_min": 0.004, "up_down": 0.15, "c2c": 1.0}, "bounds": {"w_max": 1.3}}
    params = device(name, **tables)
    point = symmetry_points(fabricate(params, 1, die=0))[0]
    assert abs(point) > 0.01
    cells = fabricate(params, 4000, die=0)
    w = np.full(4000, point)
    for update in range(40):
        w = pulse(cells, w, 1 if update % 2 else -1, seed=1, update=update)
    # a pair of pulses leaves the mean but for a term of dw^2: 20 of them
    assert abs(w.mean() - point) < 5 * w.std() / np.sqrt(w.size) + 20 * 0.004**2
    off = np.full(4000, point + 0.2)  # and a weight elsewhere moves towards it
    for update in range(40):
        off = pulse(cells, off, 1 if update % 2 else -1, seed=1, update=update)
    assert point + 0.2 - off.mean() > 5 * off.std() / np.sqrt(off.size)
    quiet = changed(params, step=params.step.model_copy(update={"c2c": 0.0}))
    cell, w = fabricate(quiet, 1, 0), [np.zeros(1)]
    for update in range(6000):
        w.append(pulse(cell, w[-1], 1 if update % 2 else -1, 0, update))
    assert np.mean(w[-2:]) == pytest.approx(point, abs=0.004)  # half a step either way


def test_the_symmetry_point_of_every_cell_is_where_its_steps_are_equal():
    for params in (*OTHERS.values(), load_device("ecram-tang2018"), load_device("reram-gong2018")):
        quiet = changed(params, step=params.step.model_copy(update={"c2c": 0.0}), noise=None)
        cells = fabricate(quiet, 200, die=2)
        point = symmetry_points(cells)
        inside = (point < 0.95 * cells.b_max) & (point > 0.95 * cells.b_min)
        steps = [pulse(cells, point, d, 0, 0) - point for d in (1, -1)]
        assert inside.mean() > 0.7
        np.testing.assert_allclose(steps[0][inside], -steps[1][inside], rtol=1e-9)
        # in the other cells one direction is the larger one everywhere
        larger = np.where(point > 0, steps[0] >= 0, steps[1] <= 0)
        assert larger.all()
    # soft bounds: dw_up (1 - w/b_max) = dw_down (1 - w/b_min)
    cells = fabricate(load_device("reram-soft-bounds"), 50, die=0)
    up, down = cells.dw_up, cells.dw_down
    expected = (up - down) / (up / cells.b_max - down / cells.b_min)
    np.testing.assert_allclose(symmetry_points(cells), expected, rtol=1e-9, atol=1e-12)
    # steps that are equal everywhere: no weight is more symmetric than the middle
    cells = fabricate(load_device("reram-soft-bounds"), 3, die=0)
    flat = replace(cells, dw_up=up[:3], dw_down=up[:3], law=np.zeros_like(cells.law))
    np.testing.assert_allclose(symmetry_points(flat), (cells.b_min + cells.b_max) / 2)
    for model in ("constant-step", "one-sided-pair", "ideal", "digital"):
        with pytest.raises(InputError, match="has no symmetry point"):
            symmetry_points(fabricate(load_device(MADE[model]), 2, 0))


MADE = {
    "constant-step": "idealized",
    "one-sided-pair": "pcm-nandakumar2020",
    "ideal": "ideal",
    "digital": "digital8",
}


# ---- one law more


LAW = """
from pydantic import Field
from hardware.config import NonNegative, Table
from hardware.device_laws import Law

class FlatParams(Table):
    '''[flat] of a flat-step device.'''

    knee: NonNegative = Field(2.0, le=9, description="how fast steps shrink away from w = 0")
    knee_dtod: NonNegative = Field(0.0, description="standard deviation of knee over cells")

class FlatStep(Law, model="flat-step"):
    key = "flat"
    Params = FlatParams

    @staticmethod
    def step(w, d, own, low, high):
        z = 2.0 * w / (high - low)
        return 1.0 / (1.0 + own.knee * z * z) - 0.2 * d * z
"""

# nothing of it is named elsewhere
USE = """
import flat_law
import numpy as np
import naive
import perturb
from hardware import Chip, ChipParams, load_device
from hardware.config import validated
from hardware.device import fabricate, initial, pulse, symmetry_points, write
from hardware.device_params import DeviceParams
from hardware.templates import template
from sims.device_fit import fit_device
from test_device_fit import found, measure, sweep

TEXT = 'model = "flat-step"\\n[step]\\ndw_min = 0.02\\nup_down = 0.1\\nc2c = 0.3\\n[flat]\\n'
open("flat.toml", "w").write(TEXT + "knee = 3.0\\nknee_dtod = 0.5\\n")
params = load_device("flat.toml")
cells = fabricate(params, 5, die=3)
assert cells.law["knee"].std() > 0.1
start = np.linspace(-0.4, 0.5, 5)
counts = np.array([3, -3, 1, 2, -1])
got = pulse(cells, start, counts, seed=1, update=2)
quiet = load_device("flat.toml").model_copy(update={"flat": flat_law.FlatParams(knee=3.0)})
alike = pulse(fabricate(quiet, 5, 3), start, counts, seed=1, update=2)
for i in range(5):
    w = start[i]
    for number in range(abs(counts[i])):
        w = naive.device_pulse(quiet, 3, i, w, np.sign(counts[i]), 1, 2, number)
    assert abs(w - alike[i]) < 1e-13 and abs(w - got[i]) > 0
wide = fabricate(quiet, 20_000, 0)
change = write(wide, np.zeros(20_000), np.full(20_000, 0.01), 0, 0)
assert abs(change.mean() - 0.01 * 1.1) < 5 * change.std() / 20_000**0.5
assert -1 < symmetry_points(wide)[0] < 1
shown = "\\n".join(template(DeviceParams, {"flat": {}}))
assert "[flat]" in shown and "how fast steps shrink away from w = 0" in shown
for table, message in (
    ("[flat]\\nkne = 1", "flat.kne is no known key (did you mean knee?)"),
    ("", 'flat is missing: model = "flat-step" needs it'),
    ("[flat]\\nknee = 10.0", "flat.knee = 10.0 must be <= 9"),
    ("[flat]\\n[linear]", 'linear does not go with model = "flat-step": remove it'),
):
    open("wrong.toml", "w").write(TEXT.replace("[flat]\\n", table + "\\n"))
    try:
        load_device("wrong.toml")
    except perturb.InputError as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)
chip = validated(ChipParams, {"weights": {"device": params.model_dump(exclude_none=True)}}, "chip")
objective = perturb.MLP([2, 2, 1]).objective([[0.0, 1.0]], [[0.3]])
w = np.full(9, 0.2)
both = [
    Chip(chip, objective, w, w, fidelity=fidelity, sigma=0.1).run(20).gradient
    for fidelity in ("event", "batch")
]
np.testing.assert_allclose(both[0], both[1], rtol=1e-9)
from pathlib import Path
measure(Path("x.csv"), quiet, 2, sweep(150))
fit = fit_device("x.csv", model="flat-step")
knee, stderr = found(fit)["flat.knee"]
assert abs(knee - 3.0) < 5 * stderr < 3.0, (knee, stderr)
open("made.toml", "w").write(fit.text)
assert load_device("made.toml") == fit.device
print("all of it")
"""


@pytest.mark.slow
def test_a_law_is_one_class_and_all_else_follows(tmp_path):
    (tmp_path / "flat_law.py").write_text(LAW)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == "all of it\n", done.stderr


@pytest.mark.slow
def test_the_kernel_of_a_law_is_cached_and_made_anew_when_the_law_changes(tmp_path):
    def run(share):
        (tmp_path / "flat_law.py").write_text(LAW.replace("0.2 * d", f"{share} * d"))
        path = os.pathsep.join([str(tmp_path), *sys.path])
        environment = os.environ | {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", PULSE_ONCE], capture_output=True, text=True, env=environment
        )
        assert not done.stderr
        kernels = list((tmp_path / "cache").rglob("pulse_kernel.*.nbc"))
        return float(done.stdout), len(kernels)

    first, kernels = run(0.2)
    assert run(0.2) == (first, kernels) and kernels == 1
    second, more = run(0.3)
    assert abs(first - second) == pytest.approx(0.02 * 0.1 * 0.5, rel=1e-9) and more == 2


PULSE_ONCE = """
import numpy as np
from flat_law import FlatParams
from hardware.device import fabricate, pulse
from hardware.device_params import DeviceParams
from hardware.device_tables import StepParams

params = DeviceParams(model="flat-step", step=StepParams(dw_min=0.02), flat=FlatParams())
print(repr(float(pulse(fabricate(params, 1, 0), np.full(1, 0.5), 1, 0, 0)[0])))
"""
