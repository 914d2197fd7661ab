"""Stored weights: every device model against its published formula, spreads, forgetting."""

import dataclasses

import naive
import numpy as np
import pytest

from hardware.config import validated
from hardware.device import (
    age,
    apparent,
    fabricate,
    initial,
    pulse,
    refresh,
    write,
)
from hardware.device_laws import LAWS
from hardware.device_params import DeviceParams, device_names, load_device
from perturb import InputError

PULSED = [name for name in device_names() if load_device(name).step]


def device(model, **tables):
    """A device of these tables, with those its model needs and no others."""
    needed = {
        "bits": 6,
        "step": {"dw_min": 0.01},
        "linear": {"gamma_up": 0.3, "gamma_down": 0.6},
        "exponential": {
            "a": -0.5,
            "b": -0.2,
            "A_up": -1.2,
            "A_down": -0.3,
            "gamma_up": 3.0,
            "gamma_down": 2.0,
        },
        "power": {"gamma_up": 1.5, "gamma_down": 0.7},
        "piecewise": {"up": [1.5, 1.0, 0.2], "down": [0.1, 0.9, 1.0, 1.4]},
    }
    law = LAWS[model]
    keys = [*law.needs, *filter(None, [law.key])]
    data = {"model": model, **{key: needed[key] for key in keys}}
    for key, value in tables.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    return validated(DeviceParams, data, "test")


def standard_errors(sample, expected):
    """How far the mean of a sample is from what is expected."""
    return abs(sample.mean() - expected) / (sample.std() / np.sqrt(sample.size))


def closed(params, w, d, n):
    """Mean weight after n pulses: the recursion w := w + d dw f(w) solved, away from the bounds."""
    dw, bounds = params.step.dw_min * (1 + d * params.step.up_down), params.limits
    if params.model == "constant-step":
        return w + n * d * dw
    b = bounds.w_max if d > 0 else bounds.w_min
    if params.model == "linear-step":
        b /= params.linear.gamma_up if d > 0 else params.linear.gamma_down
    return b - (b - w) * (1 - dw / abs(b)) ** n


# ---- the pulse, against its formulas


SPREADS = {
    "step": {"dw_min_dtod": 0.2, "up_down": 0.1, "up_down_dtod": 0.05, "c2c": 0.5},
    "bounds": {"w_max": 1.2, "w_min": -0.8, "w_max_dtod": 0.2, "w_min_dtod": 0.3},
    "range": 2.0,
}
OTHERS = {
    "power": device("power-step", **SPREADS, power={"gamma_up_dtod": 0.3, "gamma_down_dtod": 0.2}),
    "piecewise": device("piecewise-step", **SPREADS),
}


def named(name):
    return OTHERS.get(name) or load_device(name)


@pytest.mark.parametrize("name", [*PULSED, *OTHERS])
def test_every_device_takes_pulses_as_its_formula_says(name):
    params = changed(named(name), corrupt=None, programming=None)
    n, die, seed = 7, 5, 9
    cells = fabricate(params, n, die)
    start = initial(cells, np.linspace(-0.4, 0.5, n), seed=0)
    pulses = np.array([5, -5, 3, -1, 0, 2, -6])
    got = pulse(cells, start, pulses, seed, update=4)
    for i in range(n):
        w = start[..., i] if start.ndim == 1 else tuple(start[:, i])
        for number in range(abs(pulses[i])):
            w = naive.device_pulse(params, die, i, w, np.sign(pulses[i]), seed, 4, number)
        np.testing.assert_allclose(got[..., i], w, rtol=1e-13, atol=1e-16)


def changed(params, **tables):
    return params.model_copy(update=tables)


@pytest.mark.parametrize("model", ["constant-step", "linear-step", "soft-bounds"])
@pytest.mark.parametrize("d", [1, -1])
def test_the_response_to_pulses_is_the_closed_formula(model, d):
    params = device(model, step={"up_down": 0.2})
    w = np.linspace(-0.5, 0.4, 10)
    cells = fabricate(params, 10, die=0)
    got = pulse(cells, w, 30 * d, seed=0, update=0)
    np.testing.assert_allclose(got, closed(params, w, d, 30), rtol=1e-12)
    wrong = {
        "constant-step": "soft-bounds",
        "linear-step": "soft-bounds",
        "soft-bounds": "constant-step",
    }[model]
    assert np.abs(got - closed(device(wrong, step={"up_down": 0.2}), w, d, 30)).max() > 0.02


@pytest.mark.parametrize("d", [1, -1])
def test_exponential_steps_tend_to_the_solution_of_their_differential_equation(d):
    # dw/dn = d s (1 - A exp(d gamma z)), z = a w + b in a range of 2: with u = exp(-d gamma z) it
    # is linear, u -> A exponentially
    errors = []
    for finer in (1, 2, 4):
        params = device("exponential-step", step={"dw_min": 0.004 / finer})
        e, n = params.exponential, 100 * finer
        A, gamma = (e.A_up, e.gamma_up) if d > 0 else (e.A_down, e.gamma_down)
        w = np.linspace(-0.3, 0.3, 5)
        got = pulse(fabricate(params, 5, 0), w, d * n, 0, 0)
        u = A + (np.exp(-d * gamma * (e.a * w + e.b)) - A) * np.exp(
            -gamma * e.a * n * params.step.dw_min
        )
        errors.append(np.abs(got - (-np.log(u) / (d * gamma) - e.b) / e.a).max())
    assert errors[0] < 0.02
    np.testing.assert_allclose(
        [errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.1
    )  # a step's order is one


def test_a_pair_is_two_one_sided_devices():
    params = device(
        "one-sided-pair", bounds={"w_min": 0.0}, exponential={"A_down": 0.0, "gamma_down": 0.0}
    )
    single = device("exponential-step", bounds={"w_min": -1e-9})  # z of a bound at 0
    cells = fabricate(params, 3, die=0)
    up = pulse(cells, initial(cells, np.zeros(3), 0), 20, 0, 0)
    both = pulse(cells, up, -12, 0, 1)
    alone = [pulse(fabricate(single, 3, 0), np.zeros(3), k, 0, 0) for k in (20, 12)]
    np.testing.assert_allclose(
        apparent(cells, both, 0, 0), alone[0] - alone[1], rtol=1e-6
    )  # the lower bound is 1e-9 off
    np.testing.assert_array_equal(both[0], up[0])  # a pulse down leaves the other side alone


@pytest.mark.parametrize("model", ["constant-step", "linear-step", "soft-bounds"])
@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_noise_of_pulses_leaves_the_mean_and_has_the_variance_stated(model, kind):
    params = device(model, step={"c2c": 0.5, "c2c_kind": kind, "dw_min": 0.004})
    cells = fabricate(params, 20_000, die=1)
    after = pulse(cells, np.full(cells.n, 0.2), 40, seed=2, update=0)
    assert standard_errors(after, closed(params, 0.2, 1, 40)) < 5
    assert (
        standard_errors(after, closed(params, 0.2, 1, 41)) > 5
    )  # a single pulse more would be seen
    one = pulse(cells, np.full(cells.n, 0.2), 1, seed=2, update=0) - 0.2
    f = {"constant-step": 1.0, "linear-step": 1 - 0.3 * 0.2, "soft-bounds": 1 - 0.2}[model]
    std = 0.004 * 0.5 * (f if kind == "multiplicative" else 1.0)
    assert abs(one.std() / std - 1) < 5 / np.sqrt(2 * cells.n)


@pytest.mark.parametrize("model", ["soft-bounds", "exponential-step", "one-sided-pair"])
@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_further_noise_of_pulses_has_an_offset_and_a_slope(model, kind):
    pair = model == "one-sided-pair"
    step = {"dw_min": 0.004, "c2c": 0.5, "c2c_kind": kind, "c2c_offset": 0.01, "c2c_slope": 0.05}
    params = device(
        model, step=step, bounds={"w_max": 2.0, "w_min": 0.0 if pair else -2.0}, range=3.0
    )
    cells = fabricate(params, 20_000, die=1)
    for d, at in ((1, 1.5), (-1, 1.5), (1, -1.5 if not pair else 3.0)):
        start = initial(cells, np.full(cells.n, d * at if pair else at), seed=0)
        change = apparent(cells, pulse(cells, start, d, seed=2, update=0), 0, 0) - apparent(
            cells, start, 0, 0
        )
        f = 1 - at / np.copysign(6.0, d)
        if model != "soft-bounds":
            e, z = (
                params.exponential,
                2 * params.exponential.a * at / (6.0 if pair else 12.0) + params.exponential.b,
            )
            A, gamma, way = (
                (e.A_up, e.gamma_up, 1) if d > 0 or pair else (e.A_down, e.gamma_down, -1)
            )
            f = 1 - A * np.exp(way * gamma * z)
        std = 0.012 * 0.5 * (f if kind == "multiplicative" else 1.0) + 3.0 * 0.01 + 0.05 * abs(at)
        assert standard_errors(change, d * 0.012 * f) < 5
        assert abs(change.std() / std - 1) < 5 / np.sqrt(2 * cells.n)


def test_noise_of_pulses_is_independent_of_pulse_cell_update_and_seed():
    params = device("constant-step", step={"c2c": 1.0, "dw_min": 1e-4})
    cells = fabricate(params, 4000, die=0)

    def xi(seed, update, first):
        return (pulse(cells, np.zeros(cells.n), 1, seed, update, first) / 1e-4) - 1

    reference = xi(0, 0, 0)
    for other in (xi(0, 0, 1), xi(0, 1, 0), xi(1, 0, 0), np.roll(reference, 1)):
        assert abs(np.corrcoef(reference, other)[0, 1]) < 5 / np.sqrt(cells.n)
    np.testing.assert_allclose(xi(0, 0, 0), reference)


@pytest.mark.parametrize("name", [name for name in [*device_names(), *OTHERS] if name != "ideal"])
def test_pulses_one_by_one_are_the_pulses_at_once_and_a_slice_is_the_slice_of_the_whole(name):
    params = named(name)
    n, pulses = 23, np.arange(23) % 7 - 3
    cells, w = fabricate(params, n, 3), np.linspace(-0.5, 0.5, n)
    hidden = initial(cells, w, seed=1)
    at_once = pulse(cells, hidden, pulses, seed=1, update=2)
    one_by_one = hidden
    for first in range(3):
        one_by_one = pulse(
            cells, one_by_one, np.sign(pulses) * (np.abs(pulses) > first), 1, 2, first
        )
    np.testing.assert_array_equal(one_by_one, at_once)

    written = age(cells, write(cells, hidden, w / 7, 1, 3), 30.0)
    seen = apparent(cells, written, 1, 3, read=2, elapsed_s=40.0)
    for a, b in ((0, 5), (5, 6), (6, 23)):
        part = fabricate(params, n, 3, a, b)
        for field in dataclasses.fields(part)[2:]:
            np.testing.assert_array_equal(
                getattr(part, field.name), getattr(cells, field.name)[..., a:b]
            )
        own = initial(part, w[a:b], 1)
        np.testing.assert_array_equal(pulse(part, own, pulses[a:b], 1, 2), at_once[..., a:b])
        own = age(part, write(part, own, w[a:b] / 7, 1, 3), 30.0)
        np.testing.assert_array_equal(own, written[..., a:b])
        np.testing.assert_array_equal(apparent(part, own, 1, 3, read=2, elapsed_s=40.0), seen[a:b])


# ---- fabrication


def test_spreads_from_cell_to_cell_are_as_stated_and_dies_are_independent():
    tables = {
        "step": {"dw_min_dtod": 0.1, "up_down": 0.1, "up_down_dtod": 0.05},
        "bounds": {"w_max": 1.5, "w_max_dtod": 0.05, "w_min_dtod": 0.2},
        "linear": {"gamma_up_dtod": 0.03},
        "leak": {"lifetime_s": 3.0, "lifetime_dtod": 0.1},
    }
    params, n = device("linear-step", **tables), 20_000
    cells, other = fabricate(params, n, die=1), fabricate(params, n, die=2)
    up, down = cells.dw_up / 0.01, cells.dw_down / 0.01
    measured = {
        "gain": ((up + down) / 2, 1, 0.1),
        "beta": ((up - down) / 2, 0.1, 0.05),
        "b_max": (cells.b_max, 1.5, 0.075),
        "b_min": (cells.b_min, -1, 0.2),
        "gamma": (cells.law["slope_up"] * 1.5, 0.3, 0.03),
        "lifetime": (cells.lifetime_s, 3.0, 0.3),
    }
    for name, (values, mean, std) in measured.items():
        assert standard_errors(values, mean) < 5, name
        assert abs(values.std() / std - 1) < 5 / np.sqrt(2 * n), name
    fields = [values for values, *_ in measured.values()]
    fields += [
        other.dw_up,
        other.dw_down,
        other.b_max,
        other.b_min,
        other.law["slope_up"],
        other.lifetime_s,
    ]
    correlation = np.corrcoef(fields) - np.eye(12)
    correlation[6, 7] = correlation[7, 6] = 0  # steps up and down share the gain of their cell
    assert np.abs(correlation).max() < 5 / np.sqrt(n)
    assert np.corrcoef(up, down)[0, 1] > 0.5


def test_lognormal_steps_have_the_median_and_the_spread_of_their_logarithm():
    params = device("constant-step", step={"dw_min_dtod": 0.8, "dw_min_distribution": "lognormal"})
    ln = np.log(fabricate(params, 20_000, die=3).dw_up / 0.01)
    assert standard_errors(ln, 0) < 5 and abs(ln.std() / 0.8 - 1) < 5 / np.sqrt(2 * ln.size)


@pytest.mark.parametrize(
    "model, step",
    [
        (
            "constant-step",
            {"dw_min_dtod": 0.783, "dw_min_distribution": "lognormal", "up_down_dtod": 0.01},
        ),
        (
            "constant-step",
            {
                "dw_min_dtod": 0.5,
                "dw_min_distribution": "lognormal",
                "up_down": 0.6,
                "up_down_dtod": 0.3,
            },
        ),
        ("constant-step", {"dw_min_dtod": 1.0, "up_down": 0.4}),
        ("one-sided-pair", {"dw_min_dtod": 0.2, "up_down": 0.3, "up_down_dtod": 0.1}),
    ],
)
def test_the_controller_knows_the_mean_step_of_all_cells_and_writes_right_in_the_mean(model, step):
    pair = model == "one-sided-pair"
    shape = (
        {"exponential": {"a": 0.0, "b": 0.0, "A_up": 0.0}, "pair": {"refresh_at": 1.0}}
        if pair
        else {}
    )
    wide = {"w_max": 10.0, "w_min": 0.0 if pair else -10.0}
    params = device(model, step={"dw_min": 1e-3, **step}, bounds=wide, **shape)
    cells = fabricate(params, 40_000, die=1)
    sizes = (cells.dw_up + cells.dw_down) / 2
    assert standard_errors(sizes, params.dw_min) < 5 and standard_errors(sizes, 1e-3) > 10
    # up in half of the cells and down in the others
    wanted = np.where(np.arange(cells.n) % 2, 0.0437, -0.0437)
    written = apparent(
        cells, write(cells, initial(cells, np.zeros(cells.n), 0), wanted, 0, 0), 0, 0
    ) * np.sign(wanted)
    assert standard_errors(written, 0.0437) < 5


def test_a_lognormal_step_has_the_mean_that_its_spread_says():
    for name, mean in (
        ("reram-array-om", 0.0949 * np.exp(0.783**2 / 2)),
        ("reram-array-hfo2", 0.4622 * np.exp(0.713**2 / 2)),
    ):
        assert load_device(name).dw_min == pytest.approx(
            mean, rel=1e-4
        )  # up_down_dtod = 0.01 turns the sign of hardly a cell


def test_states_are_the_range_over_the_step():
    # in the publications that the files name; 1480 of gong2018 are of its steps up, its steps down
    # are smaller
    stated = {
        "reram-gong2018": 1702,
        "reram-soft-bounds": 1000,
        "reram-array-om": 21,
        "reram-array-hfo2": 4.3,
        "capacitor-li2018": 400,
        "ecram-tang2018": 1000,
        "ecram-kim2019": 7090,
        "pcm-nandakumar2020": 200,
        "gokmen-vlasov2016": 1250,
        "idealized": 1e4,
        "digital8": 256,
    }
    for name, states in stated.items():
        assert load_device(name).states == pytest.approx(
            states, rel=0.01
        )  # they are given in two or three digits
    params = device("constant-step", step={"dw_min": 0.125}, range=3.0)
    cells = fabricate(params, 1, die=0)
    visited = {-3.0, *(float(pulse(cells, np.array([-3.0]), k, 0, 0)[0]) for k in range(1, 99))}
    assert len(visited) == params.states + 1 and max(visited) == 3.0


def test_stuck_cells_are_as_many_as_stated_and_stay_where_they_are():
    params = device(
        "soft-bounds",
        corrupt={"fraction": 0.2, "range": 0.5},
        leak={"lifetime_s": 1.0},
        noise={"write": 0.1},
    )
    cells = fabricate(params, 10_000, die=0)
    assert abs(cells.stuck.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / cells.n)
    hidden = initial(cells, np.full(cells.n, 0.9), 0)
    first = hidden[cells.stuck]
    assert np.abs(first).max() <= 0.5 and abs(first.std() - 0.5 / np.sqrt(3)) < 0.02
    later = age(
        cells, write(cells, pulse(cells, hidden, -5, 0, 0), np.full(cells.n, 0.1), 0, 1), 5.0
    )
    np.testing.assert_array_equal(later[cells.stuck], first)
    # what is read of them has the noise of the last write as that of all cells has
    left = apparent(cells, later, 0, 1)[cells.stuck] - first
    assert standard_errors(left, 0) < 5 and abs(left.std() / 0.1 - 1) < 5 / np.sqrt(2 * left.size)
    assert not np.isin(hidden[~cells.stuck], later[~cells.stuck]).any()


# ---- writing


def test_stochastic_rounding_is_right_in_the_mean_and_nearest_is_not():
    params = device("constant-step")
    cells = fabricate(params, 20_000, die=0)
    zero, change = np.zeros(cells.n), np.full(cells.n, 0.0037)
    stochastic = write(cells, zero, change, 0, 0)
    assert standard_errors(stochastic, 0.0037) < 5 and set(np.round(stochastic, 9)) == {0.0, 0.01}
    assert not write(cells, zero, change, 0, 0, "nearest").any()
    assert (write(cells, zero, 4.6 * change, 0, 0, "nearest") == 0.02).all()
    np.testing.assert_allclose(write(cells, zero, -change, 0, 0), -stochastic)
    few = fabricate(device("constant-step", step={"max_pulses": 3}), 4, 0)
    np.testing.assert_allclose(write(few, np.zeros(4), np.full(4, -0.5), 0, 0), -0.03)


def test_digital_weights_lie_on_their_levels_for_ever():
    params = device("digital", bits=4)
    cells = fabricate(params, 400, die=0)
    rng = np.random.default_rng(0)
    hidden = initial(cells, rng.uniform(-2, 2, cells.n), 0)
    for update in range(50):
        hidden = write(cells, hidden, rng.normal(0, 0.2, cells.n), 0, update)
    assert set(hidden) <= set(np.arange(-8, 8) / 8) and len(set(hidden)) == 16
    np.testing.assert_array_equal(apparent(cells, hidden, 0, 0), hidden)


def test_an_ideal_weight_takes_and_keeps_every_change():
    cells = fabricate(load_device("ideal"), 3, die=0)
    change = np.array([1e-9, -30.0, 0.5])
    hidden = age(cells, write(cells, initial(cells, np.ones(3), 0), change, 0, 0), 1e9)
    np.testing.assert_array_equal(apparent(cells, hidden, 0, 0), 1 + change)
    with pytest.raises(InputError, match="has no pulses"):
        pulse(cells, hidden, 1, 0, 0)


@pytest.mark.parametrize("name", [*PULSED, *OTHERS])
def test_a_weight_never_leaves_its_bounds_and_range_scales_everything(name):
    params, large = (changed(named(name), corrupt=None, range=r) for r in (1.0, 8.0))
    cells, scaled = fabricate(params, 50, 0), fabricate(large, 50, 0)
    hidden, bigger = initial(cells, np.zeros(50), 0), initial(scaled, np.zeros(50), 0)
    for update, change in enumerate((3.0, -6.0, 0.3)):
        hidden, bigger = (
            write(cells, hidden, np.full(50, change), 0, update),
            write(scaled, bigger, np.full(50, 8 * change), 0, update),
        )
        w = hidden if hidden.ndim == 1 else hidden[0] - hidden[1]
        assert (w <= cells.b_max).all() and (w >= cells.b_min).all()
        np.testing.assert_allclose(bigger, 8 * hidden, rtol=1e-9, atol=1e-12)


def test_a_pair_that_holds_a_large_weight_is_not_refreshed_in_vain():
    device_ = load_device("pcm-nandakumar2020")
    params = changed(
        device_, programming=None, bounds=device_.bounds.model_copy(update={"w_max_dtod": 0.0})
    )
    cells = fabricate(params, 5, die=0)
    # shares of the bound 2: .8 and .3 are past .75 and .25
    hidden = 2 * np.array([[0.8, 0.8, 0.7, 0.3, 0.8], [0.3, 0.2, 0.7, 0.8, 0.0]])
    after = refresh(cells, hidden, 0, 0)
    np.testing.assert_allclose(after[:, [0, 3]], 2 * np.array([[0.5, 0.0], [0.0, 0.5]]), atol=1e-15)
    np.testing.assert_array_equal(after[:, [1, 2, 4]], hidden[:, [1, 2, 4]])


def test_a_pair_is_refreshed_before_it_saturates():
    params = device(
        "one-sided-pair", bounds={"w_min": 0.0}, pair={"refresh_at": 0.8}, step={"dw_min": 0.02}
    )
    cells = fabricate(params, 6, die=0)
    hidden = initial(cells, np.full(6, 0.2), 0)
    np.testing.assert_array_equal(hidden, [[0.2] * 6, [0.0] * 6])
    high = hidden + 0.7
    np.testing.assert_allclose(refresh(cells, high, 0, 0), hidden, atol=1e-15)
    np.testing.assert_array_equal(refresh(cells, hidden + 0.5, 0, 0), hidden + 0.5)
    for update in range(
        100
    ):  # up and down in turn fill both sides; without refresh the weight could no longer move
        hidden = write(cells, hidden, np.full(6, 0.1 * (-1) ** update), 0, update)
        assert hidden.max() < 0.8 + 0.1
    with pytest.raises(InputError, match="nothing to refresh"):
        refresh(fabricate(device("soft-bounds"), 2, 0), np.zeros(2), 0, 0)


# ---- reading and ageing


def test_write_noise_is_as_stated_and_stays_until_the_next_write():
    params = device("constant-step", noise={"write": 0.05}, range=2.0)
    cells = fabricate(params, 20_000, die=0)
    hidden = np.full(cells.n, 0.3)
    w = apparent(cells, hidden, 0, 7)
    assert standard_errors(w, 0.3) < 5 and abs(w.std() / 0.1 - 1) < 5 / np.sqrt(2 * cells.n)
    np.testing.assert_array_equal(apparent(cells, hidden, 0, 7, read=3), w)
    later = np.where(np.arange(cells.n) < 100, 8, 7)  # only the first hundred were written again
    again = apparent(cells, hidden, 0, later)
    np.testing.assert_array_equal(again[100:], w[100:])
    np.testing.assert_array_equal(again[:100], apparent(cells, hidden, 0, 8)[:100])
    assert abs(np.corrcoef(w, apparent(cells, hidden, 0, 8))[0, 1]) < 5 / np.sqrt(cells.n)


def test_a_leak_counts_time_and_not_calls():
    cells = fabricate(device("constant-step", leak={"lifetime_s": 2.0, "rest": 0.1}), 4, die=0)
    w = np.array([-0.5, 0.0, 0.1, 0.9])
    once = age(cells, w, 3.0)
    np.testing.assert_allclose(once, 0.1 + (w - 0.1) * np.exp(-1.5), rtol=1e-14)
    parts = w
    for elapsed in (0.5, 2.0, 0.0, 0.5):
        parts = age(cells, parts, elapsed)
    np.testing.assert_allclose(parts, once, rtol=1e-14)
    np.testing.assert_allclose(age(cells, w, np.array([0.0, 3.0, 3.0, 3.0]))[1:], once[1:])


def test_drift_is_a_power_law_of_the_time_since_programming():
    params = device("constant-step", drift={"t0_s": 20.0, "nu": 0.06, "nu_std": 0.02})
    cells = fabricate(params, 20_000, die=0)
    w = np.full(cells.n, 0.5)
    nu = -np.log(age(cells, w, 2000.0) / w) / np.log(100)
    exponents = np.maximum(0.06 + 0.02 * cells.nu_xi[0], 0)
    np.testing.assert_allclose(nu, exponents, atol=1e-14)
    assert (
        standard_errors(nu, 0.06) < 5 and abs(nu.std() / 0.02 - 1) < 0.03
    )  # 1.3 per mille of them are cut at zero
    np.testing.assert_array_equal(age(cells, w, 20.0), w)
    np.testing.assert_allclose(
        age(cells, age(cells, w, 300.0), 1700.0, since_s=300.0), age(cells, w, 2000.0), rtol=1e-13
    )
    wrong = age(cells, age(cells, w, 300.0), 1700.0)  # a clock that starts anew at every call
    assert np.abs(wrong - age(cells, w, 2000.0)).max() > 1e-3


@pytest.mark.parametrize("g", [0.02, 0.3, 1.0])
def test_phase_change_memory_is_programmed_read_and_drifts_as_published(g):
    params = changed(load_device("pcm-nandakumar2020"))
    exact = params.model_copy(
        update={"programming": None, "bounds": params.bounds.model_copy(update={"w_max_dtod": 0.0})}
    )
    n, unit = 20_000, 25.0 / 2.0  # uS per range unit
    cells = fabricate(exact, n, die=0)
    hidden = initial(cells, np.full(n, 2.0 * g), 0)

    # drift of the programmed side: Nandakumar et al. 2019, exponents of mean and spread clipped
    mean, std = (
        np.clip(-0.0155 * np.log(g) + 0.0244, 0.049, 0.1),
        np.clip(-0.0125 * np.log(g) - 0.0059, 0.008, 0.045),
    )
    drifted = age(cells, hidden, 2e5)
    nu = -np.log(drifted[0] / (2 * g)) / np.log(1e4)
    np.testing.assert_allclose(nu, np.maximum(mean + std * cells.nu_xi[0], 0), atol=1e-12)
    assert not drifted[1].any()

    # read noise of a side, t after programming
    t, t_r = 1000.0, 250e-9
    w = apparent(cells, hidden, 0, 0, read=1, elapsed_s=t)
    noise = 25 * g * min(0.0088 / g**0.65, 0.2) * np.sqrt(np.log((t + t_r) / (2 * t_r)))
    assert abs(unit * w.std() / noise - 1) < 5 / np.sqrt(2 * n) and standard_errors(w, 2 * g) < 5
    np.testing.assert_array_equal(apparent(cells, hidden, 0, 0, read=1, elapsed_s=t), w)
    assert (apparent(cells, hidden, 0, 0, read=2, elapsed_s=t) != w).all()
    np.testing.assert_array_equal(apparent(cells, hidden, 0, 0, elapsed_s=0.0), hidden[0])

    # programming noise, where the bounds do not cut it
    if g == 0.3:
        noisy = fabricate(params.model_copy(update={"bounds": exact.bounds}), n, die=0)
        sigma = 0.26348 + 1.9650 * g - 1.1731 * g**2
        programmed = unit * initial(noisy, np.full(n, 2.0 * g), 0)
        assert standard_errors(programmed[0], 25 * g) < 5 and abs(
            programmed[0].std() / sigma - 1
        ) < 5 / np.sqrt(2 * n)
        # the other side is reset to zero, and cannot be below
        assert abs(programmed[1].mean() - 0.26348 / np.sqrt(2 * np.pi)) < 5 * 0.26348 / np.sqrt(n)
