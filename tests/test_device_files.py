"""Files of devices, and mistakes in them."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device import device

from hardware.config import validated
from hardware.device import (
    age,
    apparent,
    fabricate,
    initial,
    pulse,
    write,
)
from hardware.device_laws import LAWS
from hardware.device_params import DeviceParams, device_names, load_device
from perturb import InputError


@pytest.mark.parametrize("name", device_names())
def test_shipped_devices_load_name_their_source_and_comment_every_figure(name):
    params = load_device(name)
    text = (files("hardware") / "devices" / f"{name}.toml").read_text()
    assert params.name == name and params.description and params.source
    assert (
        validated(
            DeviceParams, tomllib.loads(tomli_w.dumps(params.model_dump(exclude_none=True))), "copy"
        )
        == params
    )
    for line in text.splitlines():
        key, equals, value = line.partition(" = ")
        if (
            equals
            and line[0] not in "#["
            and key not in ("name", "description", "source", "model", "A_up", "a", "b")
        ):
            assert "  # " in value, line
            assert (
                name == "ideal"
                or "(o)" in value
                or "assumed" in value
                or "20" in value
                or "1993" in value
            ), line


@pytest.mark.parametrize(
    "tables, message",
    [
        (
            {"step": {"dw_min_dtod": 5}},
            "step.dw_min_dtod = 5.0 must be <= 1: it is a share, so 5 % is written 0.05",
        ),
        (
            {"step": {"c2c": 30}},
            (
                "step.c2c = 30.0 must be <= 10: it is relative to the mean step, so 30 % is"
                " written 0.3"
            ),
        ),
        ({"step": {"c2c": -0.1}}, "step.c2c = -0.1 must be >= 0"),
        ({"step": {"dw_min": 2}}, "step.dw_min = 2.0 must be <= 1"),
        ({"step": {"dw_min": 0}}, "step.dw_min = 0 must be > 0"),
        (
            {"step": {"dw_min": 0.9}, "bounds": {"w_max": 0.5}},
            "step.dw_min = 0.9 must be at most half of the range",
        ),
        ({"step": {"up_down": 1.0}}, "step.up_down = 1.0 must be < 1"),
        ({"step": {"c2c_kind": "both"}}, "step.c2c_kind"),
        ({"step": {"dw_mn": 0.1}}, "step.dw_mn is no known key (did you mean dw_min?)"),
        ({"bounds": {"w_min": 1.0}}, "bounds.w_min = 1"),
        ({"bounds": {"w_min": 0}}, "bounds.w_min = 0 must be < 0"),
        ({"bounds": {"w_max": 25}}, "bounds.w_max = 25.0 must be <= 10"),
        ({"bits": 8}, 'bits does not go with model = "soft-bounds": remove it'),
        ({"linear": {}}, 'linear does not go with model = "soft-bounds": remove it'),
        ({"model": "linear-step"}, 'linear is missing: model = "linear-step" needs it'),
        ({"model": "soft"}, "model"),
        (
            {"model": "piecewise-step", "piecewise": {"up": [1.0], "down": [1.0, 1.0]}},
            "piecewise.up = [1.0] must have at least 2 entries",
        ),
        (
            {"model": "piecewise-step", "piecewise": {"up": [1.0] * 64, "down": [1.0, 1.0]}},
            "piecewise.up = ",
        ),
        ({"model": "power-step"}, 'power is missing: model = "power-step" needs it'),
        (
            {"model": "linear-step", "linear": {"gamma_up": 11}},
            "linear.gamma_up = 11 must be <= 10",
        ),
        ({"range": 2e6}, "range = 2000000.0 must be <= 1000000"),
        ({"step": {"c2c": 1e19}}, "step.c2c = 1e+19 must be <= 1e+18"),
        ({"power": {}}, 'power does not go with model = "soft-bounds": remove it'),
        (
            {
                "model": "one-sided-pair",
                "exponential": {"a": 1, "A_up": 1, "gamma_up": 1},
                "bounds": {},
            },
            "bounds.w_min = -1 must be 0",
        ),
        ({"corrupt": {"fraction": 13.5}}, "corrupt.fraction = 13.5 must be <= 1: it is a share"),
        ({"leak": {}}, "leak.lifetime_s is missing"),
        ({"leak": {"lifetime_s": 0}}, "leak.lifetime_s = 0 must be > 0"),
        (
            {"drift": {"t0_s": 1, "nu": 0.1, "nu_range": [0.2, 0.1]}},
            "drift.nu_range = [0.2, 0.1] must be [lowest, highest]",
        ),
        (
            {"programming": {"g_max_us": 25, "noise_us": []}},
            "programming.noise_us = [] must have at least 3 entries",
        ),
        (
            {"programming": {"g_max_us": 25, "noise_us": [1, 2, 3, 4]}},
            "programming.noise_us = [1, 2, 3, 4] must have at most 3",
        ),
        ({"noise": {"write": 10.0}}, "noise.write = 10.0 must be <= 1"),
        ({"range": 0}, "range = 0 must be > 0"),
        (
            {"step": {"c2c_offset": 2}},
            "step.c2c_offset = 2.0 must be <= 1: it is in units of the range",
        ),
        (
            {"step": {"c2c_slope": 5}},
            "step.c2c_slope = 5.0 must be <= 1: it is a share, so 5 % is written 0.05",
        ),
    ],
)
def test_a_mistake_in_a_device_is_one_line_that_says_why(tables, message):
    data = {"model": "soft-bounds", "step": {"dw_min": 0.01}}
    for key, value in tables.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(InputError) as caught:
        validated(DeviceParams, data, "my.toml")
    assert str(caught.value).startswith("my.toml: " + message) and "\n" not in str(caught.value)


def test_an_unknown_device_gets_a_close_match(tmp_path):
    with pytest.raises(InputError, match="did you mean ecram-tang2018?"):
        load_device("ecram-tang")
    (tmp_path / "mine.toml").write_text('model = "soft-bounds"\n[step]\ndw_min = 0.01\n')
    assert load_device("mine.toml", tmp_path).states == 200


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda c: fabricate(c.params, 0, 0), "n = 0"),
        (lambda c: fabricate(c.params, 4, -1), "die = -1"),
        (lambda c: fabricate(c.params, 4, 0, 3, 3), "start = 3, stop = 3"),
        (lambda c: initial(c, np.zeros(3), 0), r"w has shape \(3,\)"),
        (lambda c: initial(c, np.array([0, np.nan, 0, 0]), 0), r"w\[1\] must be a finite number"),
        (lambda c: pulse(c, np.zeros(4), np.ones(4), 0, 0), "pulses must be integers"),
        (lambda c: pulse(c, np.zeros(4), 1, 0, 0, first=2**24), "use further updates"),
        (lambda c: pulse(c, np.zeros(4), 1, 0.5, 0), "seed = 0.5"),
        (lambda c: write(c, np.zeros(4), np.zeros(4), 0, -1), "update = -1"),
        (lambda c: write(c, np.zeros(4), np.zeros(4), 0, 0, "floor"), "rounding = 'floor'"),
        (lambda c: age(c, np.zeros(4), -1.0), "elapsed_s must be a finite number of seconds >= 0"),
        (lambda c: apparent(c, np.zeros(4), 0, np.zeros(4)), "update must be integers"),
    ],
)
def test_a_call_that_cannot_be_is_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call(fabricate(device("soft-bounds", noise={"write": 0.1}), 4, 0))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0.05, 0.5, *LAWS])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)
KEYS = [
    f"{key}.{name}" if name else key
    for key, field in DeviceParams.model_fields.items()
    for name in (
        "",
        *next(
            (getattr(a, "model_fields", {}) for a in getattr(field.annotation, "__args__", ())), {}
        ),
    )
]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=4), st.sampled_from(list(LAWS)))
def test_any_device_is_taken_and_works_or_is_refused_in_one_line(changes, model):
    data = device(model).model_dump(exclude_none=True)
    for key, value in changes:
        table, _, name = key.rpartition(".")
        inner = data.setdefault(table, {}) if table else data
        if isinstance(inner, dict):
            inner[name] = value
    try:
        params = validated(DeviceParams, data, "fuzz.toml")
    except InputError as error:
        assert (
            "\n" not in str(error) and str(error).startswith("fuzz.toml") and len(str(error)) < 500
        )
        return
    cells = fabricate(params, 3, 0)
    hidden = initial(cells, np.array([-0.1, 0.0, 0.2]), 0)
    with np.errstate(over="ignore"):  # an exponent of a hundred
        hidden = write(cells, hidden, np.full(3, 5 * params.dw_min), 0, 0)
    assert (
        np.isfinite(age(cells, hidden, 1e3)).all()
        and np.isfinite(apparent(cells, hidden, 0, 0, elapsed_s=1.0)).all()
    )
