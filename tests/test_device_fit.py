"""Measured pulse responses become a device: what was put in comes out, within known errors."""

import re
import tomllib

import numpy as np
import pytest
from fast import fast
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device import device

from hardware.device import apparent, fabricate, initial, pulse, write
from hardware.device_params import load_device
from perturb import InputError
from reports.device_fit import export_device_fit
from sims.device_fit import fit_device
from sims.device_fit.models import TRIED
from sims.device_fit.pulses import read_pulses


def measure(path, params, n, runs, every=1, die=1, seed=2, unit=None, cycles=1):
    """Write the CSV of n cells of a die under `runs` of (direction, pulses); returns the cells."""
    cells, rows, update = fabricate(params, n, die), [], 0
    for cycle in range(cycles):
        hidden, count = initial(cells, np.zeros(n), seed), 0
        for direction, pulses in [(0, every), *runs]:
            for _ in range(pulses // every):
                update += 1
                if direction:
                    hidden, count = (
                        pulse(cells, hidden, direction * every, seed, update),
                        count + every,
                    )
                w = apparent(cells, hidden, seed, update)
                rows += [
                    (f"c{i}", cycle, count, direction, w[i] if unit is None else unit(w[i]))
                    for i in range(n)
                ]
    reading = "weight" if unit is None else "conductance_us"
    lines = [
        f"device,cycle,pulse,direction,{reading}",
        *(f"{c},{k},{p},{d},{w:.9g}" for c, k, p, d, w in rows),
    ]
    path.write_text("\n".join(lines) + "\n")
    return cells


def sweep(pulses):
    return [(1, pulses), (-1, 2 * pulses), (1, pulses)]


def found(fit):
    return {row["key"]: (row["value"], row["stderr"]) for row in fit.parameters.to_dict("records")}


def assert_known(fit, expected):
    values = found(fit)
    for key, truth in expected.items():
        value, stderr = values.get(key, (0.0, 0.0))
        # no noise is the end of its scale, where it is its square that has a symmetric error
        errors = 5 * stderr if truth else 10 * stderr
        assert abs(value - truth) <= errors, f"{key} = {value} +- {stderr} but {truth} was put in"


# pulses up from 0, pulses between two readings: over most of the range, short of where cells end
PROTOCOLS = {
    "reram-gong2018": (120, 1),
    "reram-soft-bounds": (240, 1),
    "capacitor-li2018": (160, 1),
    "ecram-tang2018": (300, 1),
    "ecram-kim2019": (800, 4),
    "gokmen-vlasov2016": (300, 1),
    "idealized": (2000, 8),
    "pcm-nandakumar2020": (60, 1),
    "reram-array-om": (40, 1),
    "reram-array-hfo2": (40, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_shipped_device_is_fitted_back(name, tmp_path):
    pulses, every = PROTOCOLS[name]
    params = load_device(name).model_copy(
        update={"corrupt": None, "programming": None, "flicker": None, "drift": None, "leak": None}
    )
    # the fit knows no noise of pulses that goes by neither the step nor dw_min
    params = params.model_copy(
        update={"step": params.step.model_copy(update={"c2c_offset": 0.0, "c2c_slope": 0.0})}
    )
    one_sided = params.model == "one-sided-pair"
    if params.exponential:  # z scales with a cell's own range, but the fit has one shape for all
        alike = {"w_max_dtod": 0.0, "w_min_dtod": 0.0}
        params = params.model_copy(update={"bounds": params.bounds.model_copy(update=alike)})
    cells = measure(
        tmp_path / "x.csv", params, 8, [(1, pulses)] if one_sided else sweep(pulses), every
    )
    fit = fit_device(tmp_path / "x.csv", model=params.model)
    gain = cells.dw_up if one_sided else (cells.dw_up + cells.dw_down) / 2
    lognormal = fit.device.step.dw_min_distribution == "lognormal"
    expected = {"noise.write": params.noise.write if params.noise else 0.0}
    # with so few states the two noises cannot be told apart, and a die with cells of hardly one
    # state is not fitted well at all
    if name.startswith("reram-array"):
        expected = {}
    # its first pulses cross an eighth of the range, where the filter's first order is not enough
    # for small noises
    if one_sided:
        expected = {}
    if (
        params.model != "exponential-step"
    ):  # whose dw_min, asymmetry and A hang together: see the response below
        expected["step.dw_min"] = np.exp(np.log(gain).mean()) if lognormal else gain.mean()
        if not one_sided:
            expected["step.up_down"] = ((cells.dw_up - cells.dw_down) / 2 / gain.mean()).mean()
    if not name.startswith("reram-array"):
        expected["step.c2c"] = params.step.c2c
    assert_known(fit, expected)
    # the mean step, wherever the cells have been
    for row in fit.response.to_dict("records")[::6]:
        w, up = row["weight"], row["direction"] > 0
        if name.startswith("reram-array") and abs(w) > 0.3:
            continue  # beyond the bounds of some of the cells
        if params.model in ("exponential-step", "one-sided-pair"):
            e, width = params.exponential, cells.b_max if one_sided else cells.b_max - cells.b_min
            A, gamma = (e.A_up, e.gamma_up) if up else (e.A_down, -e.gamma_down)
            f = np.maximum(0, 1 - A * np.exp(gamma * (2 * e.a * w / width + e.b)))
        else:
            d = row["direction"]
            f = params.law.step(w, d, cells.law.view(np.recarray), cells.b_min, cells.b_max)
        steps = row["direction"] * (cells.dw_up if up else cells.dw_down) * f
        # soft bounds differ from cell to cell, and one shape for all is not the mean of theirs:
        # half of the spread for that
        allowed = 0.5 * steps.std() if params.model == "soft-bounds" else 0.0
        assert abs(row["step"] - steps.mean()) < 5 * row["stderr"] + allowed, row


@pytest.mark.slow
@pytest.mark.parametrize("model", [model for model in TRIED if model != "one-sided-pair"])
def test_the_model_that_made_the_data_is_chosen(model, tmp_path):
    shape = {
        "linear-step": {"linear": {"gamma_up": 0.2, "gamma_down": 0.4}},
        "power-step": {"power": {"gamma_up": 2.0, "gamma_down": 0.5}},
    }.get(model, {})
    params = device(
        model, step={"c2c": 0.3, "up_down": 0.1, "dw_min_dtod": 0.1, "dw_min": 0.02}, **shape
    )
    measure(tmp_path / "x.csv", params, 3, sweep(70))
    fit = fit_device(tmp_path / "x.csv")
    assert fit.device.model == model
    assert fit.models[fit.models["verdict"] == "chosen"]["model"].tolist() == [model]
    if model == "linear-step":
        assert fit.device.linear.gamma_up / fit.device.bounds.w_max == pytest.approx(0.2, abs=0.1)
    # a constant step is a poor fit to all others, and the others say so in their residuals
    worst = (
        fit.models[fit.models["model"] == "constant-step"]["bic"].min() - fit.models["bic"].min()
    )
    assert (worst < 10) if model == "constant-step" else (worst > 50)


@pytest.mark.parametrize(
    "model",
    fast(["constant-step", "linear-step", "soft-bounds", "exponential-step"], "linear-step"),
)
def test_a_device_without_noise_is_found_exactly(model, tmp_path):
    params = device(model, step={"up_down": 0.15})
    cells = measure(tmp_path / "x.csv", params, 1, sweep(40))
    fit = fit_device(tmp_path / "x.csv", model=model)
    w = fit.response["weight"].to_numpy()
    fitted = fabricate(fit.device, 1, 0)
    inside = (
        (w > fitted.b_min[0] + 0.03)
        & (w < fitted.b_max[0] - 0.03)
        & (fit.response["direction"] == 1)
    )
    for at in w[inside][::5]:
        for d in (1, -1):
            np.testing.assert_allclose(
                pulse(fitted, [at], d, 0, 0) - at, pulse(cells, [at], d, 0, 0) - at, rtol=1e-3
            )
    assert fit.device.noise is None and fit.device.step.c2c < 1e-3  # nine digits are in the file


@pytest.mark.slow
@pytest.mark.parametrize("c2c, write_noise", [(0.4, 0.0), (0.0, 0.02), (0.4, 0.02)])
def test_noise_of_pulses_and_of_readings_are_told_apart(c2c, write_noise, tmp_path):
    params = device("linear-step", step={"dw_min": 0.005, "c2c": c2c}, noise={"write": write_noise})
    measure(tmp_path / "x.csv", params, 4, sweep(150))
    fit = fit_device(tmp_path / "x.csv", model="linear-step")
    assert_known(fit, {"step.c2c": c2c, "noise.write": write_noise, "step.dw_min": 0.005})
    values = found(fit)
    if c2c and not write_noise:
        assert values["step.c2c"][1] < 0.02 and fit.device.noise is None
    if write_noise and not c2c:
        assert values["noise.write"][1] < 0.001 and fit.device.step.c2c < 0.3
    # the residuals are what the two noises make them
    z = (fit.readings["residual"] / fit.readings["expected"]).dropna()
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size) + 0.01 and abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 5 / np.sqrt(z.size)


@pytest.mark.slow
def test_exponents_of_power_steps_come_back_with_the_bounds_where_steps_vanish(tmp_path):
    shape = {"power": {"gamma_up": 1.7, "gamma_down": 0.8}, "bounds": {"w_max": 1.2}}
    step = {"dw_min": 0.02, "c2c": 0.3, "up_down": 0.1}
    params = device("power-step", step=step, noise={"write": 0.01}, **shape)
    measure(tmp_path / "x.csv", params, 2, sweep(120))
    fit = fit_device(tmp_path / "x.csv", model="power-step")
    expected = {"step.dw_min": 0.02, "step.up_down": 0.1, "step.c2c": 0.3, "noise.write": 0.01}
    expected |= {"power.gamma_up": 1.7, "power.gamma_down": 0.8}
    assert_known(fit, expected | {"bounds.w_max": 1.2, "bounds.w_min": -1.0})
    values = found(fit)
    assert values["power.gamma_down"][1] < 0.1  # soft bounds, an exponent of 1, are no alternative
    assert load_text(fit.text, tmp_path) == fit.device


@pytest.mark.slow
def test_a_table_of_steps_is_filled_from_measured_pulses(tmp_path):
    up, down = [1.6, 1.3, 1.0, 0.6, 0.3], [0.2, 0.7, 1.0, 1.2, 1.9]
    step = {"dw_min": 0.01, "c2c": 0.3, "up_down": 0.1}
    params = device(
        "piecewise-step", step=step, noise={"write": 0.01}, piecewise={"up": up, "down": down}
    )
    # short of where cells end
    measure(tmp_path / "x.csv", params, 2, [(1, 90), (-1, 160), (1, 170), (-1, 160)])
    fit = fit_device(tmp_path / "x.csv", model="piecewise-step")
    assert_known(fit, {"step.c2c": 0.3, "noise.write": 0.01})
    far = 0
    for row in fit.response.to_dict("records"):
        w, d = row["weight"], row["direction"]
        true = d * 0.01 * (1 + 0.1 * d) * np.interp(w, np.linspace(-1, 1, 5), up if d > 0 else down)
        # nodes of the fit are at other weights: a corner between two of them is cut
        assert abs(row["step"] - true) < 5 * row["stderr"] + 0.05 * abs(true), row
        far += abs(row["step"] - d * 0.01) > 5 * row["stderr"]
    assert far > 8  # of 82: constant steps would not do
    lists = fit.device.piecewise
    assert len(lists.up) == len(lists.down) > 2
    assert {f"piecewise.up[{i}]" for i in range(len(lists.up))} <= set(fit.parameters["key"])
    assert load_text(fit.text, tmp_path) == fit.device


def load_text(text, folder):
    (folder / "made.toml").write_text(text)
    return load_device(folder / "made.toml")


@pytest.mark.slow
def test_spreads_from_cell_to_cell_come_back_less_the_errors_of_the_cells(tmp_path):
    params = device(
        "constant-step",
        step={"dw_min": 0.005, "c2c": 1.0, "dw_min_dtod": 0.2, "up_down_dtod": 0.1},
        bounds={"w_max": 2, "w_min": -2},
    )
    measure(tmp_path / "x.csv", params, 60, sweep(40))
    fit = fit_device(tmp_path / "x.csv", model="constant-step")
    assert_known(
        fit,
        {"step.dw_min": 0.005, "step.dw_min_dtod": 0.2, "step.up_down_dtod": 0.1, "step.c2c": 1.0},
    )
    alike = device(
        "constant-step", step={"dw_min": 0.005, "c2c": 1.0}, bounds={"w_max": 2, "w_min": -2}
    )
    measure(tmp_path / "y.csv", alike, 60, sweep(40))
    same = fit_device(tmp_path / "y.csv", model="constant-step")
    assert_known(same, {"step.dw_min_dtod": 0.0, "step.up_down_dtod": 0.0})
    assert found(fit)["step.dw_min_dtod"][0] > 5 * found(same)["step.dw_min_dtod"][1]


@pytest.mark.slow
def test_conductances_gaps_and_cycles_say_the_same_as_weights(tmp_path):
    params = device("soft-bounds", step={"dw_min": 0.02})
    measure(tmp_path / "w.csv", params, 1, sweep(60))
    measure(tmp_path / "g.csv", params, 1, sweep(60), unit=lambda w: 12.0 + 8.0 * w)
    measure(tmp_path / "gaps.csv", params, 1, sweep(80), every=4)
    measure(tmp_path / "cycles.csv", params, 1, [(1, 60), (-1, 80)], cycles=2)
    plain = fit_device(tmp_path / "w.csv", model="soft-bounds")
    in_us = fit_device(tmp_path / "g.csv", model="soft-bounds", low=4.0, high=20.0)
    assert "# One range unit is 8 uS; w = 0 is 12 uS." in in_us.text
    for other in (
        in_us,
        fit_device(tmp_path / "gaps.csv", model="soft-bounds"),
        fit_device(tmp_path / "cycles.csv", model="soft-bounds"),
    ):
        assert other.device.step.dw_min == pytest.approx(plain.device.step.dw_min, rel=1e-4)
        assert other.device.bounds.w_max == pytest.approx(
            1, rel=1e-3
        ) and other.device.bounds.w_min == pytest.approx(-1, rel=1e-3)


@pytest.mark.slow
def test_how_many_models_are_fitted_is_told_from_the_first_on(command, tmp_path, monkeypatch):
    params = device("linear-step", step={"dw_min": 0.02, "c2c": 0.2}, noise={"write": 0.01})
    measure(tmp_path / "x.csv", params, 2, sweep(60))
    told = []
    fit_device(tmp_path / "x.csv", model="linear-step", progress=lambda *at: told.append(at))
    assert told[0] == (0, told[-1][1]) and told[-1][0] == told[-1][1] == len(told) - 1
    # as the command says it where there is no terminal
    monkeypatch.setattr("sims.terminal.EVERY_S", 0.0)
    status, _, err = command("fit-device", "x.csv", "--model", "linear-step")
    assert status == 0 and err.startswith(f"models: 0 of {told[-1][1]}\n")


def test_the_file_explains_every_field_and_loads_as_the_device(tmp_path):
    params = device("linear-step", step={"dw_min": 0.02, "c2c": 0.2}, noise={"write": 0.01})
    measure(tmp_path / "x.csv", params, 2, sweep(60))
    fit = fit_device(tmp_path / "x.csv", model="linear-step")
    paths = export_device_fit(
        fit.text,
        {"readings": fit.readings, "response": fit.response, "steps": fit.steps},
        "x",
        tmp_path / "x.toml",
    )
    assert load_device(tmp_path / "x.toml") == fit.device
    for line in fit.text.splitlines():
        assert (
            not line
            or line[0] in "#["
            or re.search(r"  # \w.{10}", line)
            or line.startswith("description")
        ), line
    assert "c2c = " in fit.text and "; +- " in fit.text
    assert [path.suffix for path in paths] == [".toml", ".png", ".svg"] and all(
        path.stat().st_size > 1000 for path in paths
    )
    cells = fabricate(fit.device, 10, 0)  # and it can be written to
    assert write(
        cells, initial(cells, np.zeros(10), 0), np.full(10, 0.1), 0, 0
    ).mean() == pytest.approx(0.1, abs=0.03)


def test_the_command_writes_a_device_and_its_plots(command, tmp_path):
    measure(
        tmp_path / "mine.csv",
        device("soft-bounds", step={"dw_min": 0.02, "c2c": 0.2}),
        2,
        sweep(60),
    )
    status, out, err = command("fit-device", "mine.csv", "--model", "soft-bounds")
    # on a slow machine lines of progress
    assert status == 0 and "perturb:" not in err and "chosen" in out and "step.dw_min" in out
    assert {path.name for path in tmp_path.iterdir()} == {
        "mine.csv",
        "mine.toml",
        "mine.png",
        "mine.svg",
    }
    assert tomllib.loads((tmp_path / "mine.toml").read_text())["model"] == "soft-bounds"
    status, out, err = command("fit-device", "mine.csv")
    assert status == 2 and err == "perturb: mine.toml: exists already: choose another --out\n"
    status, out, err = command("fit-device", "mine.csv", "--out", "a.txt")
    assert status == 2 and "must end in .toml" in err
    status, out, err = command("list", "devices")
    assert status == 0 and "ecram-tang2018" in out


HEADER = "pulse,direction,weight\n"
GOOD = "".join(f"{i},{1 if i < 25 else -1},{0.01 * (i if i < 25 else 46 - i)}\n" for i in range(50))


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("", {}, "holds no readings"),
        (HEADER, {}, "holds no readings"),
        (
            "a,b\n1,2\n",
            {},
            (
                "line 1: columns, separated by commas, are a, b, but pulse, direction and one of"
                " weight,"
            ),
        ),
        (
            "pulse,direction,weight,conductance_us\n1,1,1,1\n",
            {},
            "are pulse, direction, weight, conductance_us, but",
        ),
        ("pulse,direction,pulse,weight\n1,1,1,1\n", {}, "line 1: column pulse is there twice"),
        (HEADER + "0,1\n", {}, "line 2: has 2 columns but the header has 3"),
        (HEADER + "0,0,0.1\n1,1,x\n", {}, "line 3: weight = x must be a finite number"),
        (HEADER + "0,0,0.1\n1,1,nan\n", {}, "line 3: weight = nan must be a finite number"),
        # a cell of two lines, and an empty one
        ("note," + HEADER + '"a\nb",0,0,0.1\n\nc,1,1,x\n', {}, "line 5: weight = x must be a"),
        (
            HEADER + "0,0,0.1\n# a remark\n1.5,1,1\n",
            {},
            "line 4: pulse = 1.5 must be an integer >= 0",
        ),
        (HEADER + "0,0,0.1\n1,2,1\n", {}, "line 3: direction = 2 must be 1 or up, -1 or down"),
        (HEADER + "0,0,0.1\n0,1,1\n", {}, "line 3: pulse = 0 does not follow 0"),
        (
            HEADER + "0,0,0.1\n1,0,1\n",
            {},
            "line 3: direction = 0 is for the reading before the first pulse",
        ),
        (
            HEADER + "0,0,25\n",
            {},
            "line 2: weight = 25 must be in range units, -1..1 or so; name the column conductance",
        ),
        (
            HEADER + "0,0,0.1\n1,1,0.2\n",
            {},
            "device 0 has 1 readings after pulses up, but 20 are needed: measure more",
        ),
        (
            HEADER + "".join(f"{i},{1 if i < 25 else -1},0.5\n" for i in range(50)),
            {},
            "reads 0.5 everywhere",
        ),
        (HEADER + GOOD.replace(",-0.", ",0."), {}, "but w = 0 must lie within: measure both signs"),
        (
            HEADER + GOOD,
            {"model": "soft-bound"},
            "model = 'soft-bound' is unknown: did you mean soft-bounds?",
        ),
        (
            HEADER + GOOD,
            {"model": "one-sided-pair"},
            'has pulses up and down, which model = "one-sided-pair" does not describe',
        ),
        (HEADER + GOOD, {"low": 1.0}, "low and high are for conductances"),
        (
            (HEADER + GOOD).replace("weight", "conductance_us"),
            {"low": 1.0, "high": 0.5},
            "low = 1 must be less than high = 0.5",
        ),
        (
            (HEADER + GOOD).replace("weight", "conductance_us"),
            {"low": 0.0, "high": 1e-3},
            "times the range that low = 0",
        ),
        ("\0", {}, "not a text file"),
    ],
)
def test_a_mistake_in_the_data_is_one_line_that_names_it(text, options, message, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        fit_device(tmp_path / "x.csv", **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    for name in ("none.csv", "binary.csv", "."):
        with pytest.raises(InputError, match="cannot be read"):
            read_pulses(tmp_path / name)


@pytest.mark.slow
def test_noise_that_swamps_every_step_is_refused_with_the_reason(tmp_path):
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 0.1, 200)) - 0.05 * np.arange(200) % 3
    rows = "".join(f"{i},{1 if i % 2 else -1},{w}\n" for i, w in enumerate(walk - walk.mean()))
    (tmp_path / "x.csv").write_text(HEADER + rows)
    try:
        fit = fit_device(tmp_path / "x.csv", model="constant-step")
    except InputError as error:
        assert re.search(
            r"no model describes these readings: constant-step: step\.\w+ = ", str(error)
        )
    else:  # no step to be seen
        assert found(fit)["step.dw_min"][0] < 5 * found(fit)["step.dw_min"][1]


cell = st.sampled_from(
    ["0", "1", "2", "3", "-1", "up", "down", "0.5", "1e400", "nan", "", "é", '"', "#"]
) | st.text(max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["pulse", "direction", "weight", "conductance", "device", "cycle", "x"]),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.lists(cell, min_size=1, max_size=5), max_size=6),
    st.booleans(),
)
def test_any_table_is_read_or_refused_in_one_line(tmp_path_factory, names, rows, good):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    text = "\n".join(
        ",".join(row) for row in ([["pulse", "direction", "weight"]] if good else [names]) + rows
    )
    path.write_bytes((text + "\n" + (GOOD if good else "")).encode("utf-8", "replace"))
    try:
        data = read_pulses(path)
    except InputError as error:
        assert "\n" not in str(error) and "fuzz.csv" in str(error) and len(str(error)) < 600
    else:
        assert np.isfinite(data.y).all() and data.y.size == data.pulses.size
