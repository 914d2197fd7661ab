"""Pulse tables as laboratories write them, from a simulation pulse by pulse: what was put in
comes out, within honest errors.
"""

import math

import numpy as np
import pytest
from fast import fast

from perturb import InputError
from sims.device_fit import fit_device
from sims.device_fit.filter import OUTLIERS, take_reading
from sims.device_fit.pulses import read_pulses

LOW, HIGH = 10.0, 30.0  # conductance of w = -1 and w = 1
FINE = {"dw": 0.02, "c2c": 0.3, "read": 0.01, "runs": (100,) * 8}
KINDS = {
    "fine": {},
    "coarse": {"digit": 0.2},  # a whole step
    "coarse, without noise": {"digit": 0.2, "read": 0.0},
    "dropouts": {"dropouts": 3},
    "noisy reading": {"dw": 0.004, "read": 0.08, "runs": (900, 900)},
    "cells": {"cells": 6, "spread": 0.2, "c2c": 0.2, "runs": (60,) * 4},
    "proportional pulse noise": {"c2c": 0.5},
    "additive pulse noise": {"additive": True},
    "inverted": {"inverted": True},
}


def table(
    path,
    seed,
    dw,
    c2c,
    read,
    runs,
    digit=0.0,
    dropouts=0,
    cells=1,
    spread=0.0,
    inverted=False,
    additive=False,
    bound=math.inf,
):
    """Soft bounds (constant steps up to a hard `bound`), pulse by pulse; `runs` of pulses up,
    down, up, ...
    """
    rng = np.random.default_rng(seed)
    lines = ["device,pulse,direction,conductance_us"]
    for cell in range(cells):
        own, w, weights, directions = dw * (1 + spread * rng.standard_normal()), -0.9, [-0.9], [""]
        for k, pulses in enumerate(runs):
            for _ in range(pulses):
                d = 1 if k % 2 == 0 else -1
                f = 1 - d * w if math.isinf(bound) else 1.0
                xi = rng.standard_normal()
                w += d * own * (f + c2c * xi if additive else f * (1 + c2c * xi))
                w = min(max(w, -bound), bound)
                weights.append(w)
                directions.append("up" if (d > 0) != inverted else "down")
        readings = [20 + 10 * (w + read * rng.standard_normal()) for w in weights]
        if digit:
            readings = [digit * round(reading / digit) for reading in readings]
        for place in rng.choice(len(readings), dropouts, replace=False):
            readings[place] = 0.0
        lines += [f"{cell},{n},{directions[n]},{reading:.6f}" for n, reading in enumerate(readings)]
    path.write_text("\n".join(lines) + "\n")


def errors_of(path, kind, seed):
    """({key: (value - true value) / standard error}, the fit)"""
    made = FINE | KINDS[kind]
    table(path, seed, **made)
    fit = fit_device(path, "soft-bounds", LOW, HIGH, inverted=made.get("inverted", False))
    values = {
        row["key"]: (row["value"], row["stderr"]) for row in fit.parameters.to_dict("records")
    }
    truth = {
        "step.dw_min": made["dw"],
        "step.up_down": 0.0,
        "step.c2c": made["c2c"],
        "bounds.w_max": 1.0,
        "bounds.w_min": -1.0,
    }
    if made["read"]:
        truth["noise.write"] = made["read"]
    if "spread" in made:
        truth["step.dw_min_dtod"] = made["spread"]
    z = {}
    for key, true in truth.items():
        value, stderr = values[key]
        assert stderr > 0, f"{key} = {value} +- {stderr}"
        z[key] = (value - true) / stderr
    return z, fit


@pytest.mark.parametrize("kind", fast(KINDS, "fine"))
def test_a_table_of_every_kind_gives_what_was_put_in(kind, tmp_path):
    z, fit = errors_of(tmp_path / "x.csv", kind, seed=100)
    assert all(abs(error) < 5 for error in z.values()), z
    if kind != "noisy reading":  # which does not show its pulse noise
        assert fit.device.step.c2c_kind == (
            "additive" if kind.startswith("additive") else "multiplicative"
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_honest_on_twenty_tables_of_every_kind(kind, tmp_path):
    found = [errors_of(tmp_path / "x.csv", kind, seed)[0] for seed in range(2000, 2020)]
    for key in found[0]:
        z = np.array([each[key] for each in found])
        rms = math.hypot(z.mean(), z.std())
        print(
            f"{kind:26} {key:17} z: mean {z.mean():+.2f}, rms {rms:.2f}, {z.min():+.1f} to"
            f" {z.max():+.1f}"
        )
        # of a thousand honest z some three lie beyond 3; a mean square of 20 is 1 +- 0.32
        assert rms**2 < 1 + 5 * math.sqrt(2 / 20) and abs(z).max() < (
            3 if key == "step.dw_min" else 5
        ), (kind, key, z)


@pytest.mark.slow
def test_noise_that_the_data_do_not_show_is_0_with_its_error_and_widens_the_others(tmp_path):
    _, fit = errors_of(tmp_path / "x.csv", "noisy reading", seed=100)
    values = fit.parameters.set_index("key")
    assert fit.device.step.c2c == 0 and 0.1 < values.loc["step.c2c", "stderr"] < 1
    # a curve without pulse noise would be known to 2e-5: a walk of 900 steps of 0.3 dw_min is not
    assert values.loc["step.dw_min", "stderr"] > 3e-5  # of the order of 0.3 dw_min / sqrt(900)
    assert ", not shown by these data" in fit.text
    _, exact = errors_of(tmp_path / "x.csv", "coarse, without noise", seed=100)
    assert (
        exact.device.noise is None
        and exact.parameters.set_index("key").loc["noise.write", "stderr"] > 0
    )
    assert "write = 0 +- " in exact.text


@pytest.mark.slow
def test_dropouts_are_left_out_by_name_and_change_nothing_else(tmp_path, command):
    table(tmp_path / "clean.csv", 5, **FINE)
    lines = (tmp_path / "clean.csv").read_text().splitlines()
    for place in (
        1,
        300,
        301,
        500,
        801,
    ):  # the first and the last reading, two in a row at a turn, and another
        lines[place] = lines[place].rpartition(",")[0] + ",0"
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    clean = fit_device(tmp_path / "clean.csv", "soft-bounds", LOW, HIGH)
    assert not len(clean.outliers)
    kept = [line for line in lines if not line.endswith(",0")]
    (tmp_path / "kept.csv").write_text("\n".join(kept) + "\n")
    fit = fit_device(tmp_path / "x.csv", "soft-bounds", LOW, HIGH)
    assert {2, 301, 302, 501, 802} <= set(fit.outliers["line"]) and len(fit.outliers) <= 7
    assert (fit.outliers["reading"].abs() < 1e-9).sum() == 5
    without = fit_device(tmp_path / "kept.csv", "soft-bounds", LOW, HIGH).parameters.set_index(
        "key"
    )
    for key, row in fit.parameters.set_index("key").iterrows():
        assert row["value"] == pytest.approx(
            without.loc[key, "value"], abs=0.1 * (without.loc[key, "stderr"] or 0) + 1e-9
        ), key
    # left to the table, the range is that of the readings that are kept
    assert "w = 0 is 19" in fit_device(tmp_path / "x.csv", "soft-bounds").text
    status, out, _ = command("fit-device", "x.csv", "--model", "soft-bounds")
    assert (
        status == 0
        and "x.csv: line 301: 0 is an outlier and was left out" in out
        and "outliers left out" in out
    )


@pytest.mark.parametrize("n", fast([1, 2, 3], 2))
def test_dropouts_that_begin_a_sequence_are_found_by_what_follows_them(n, tmp_path):
    table(tmp_path / "x.csv", 5, **FINE)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    for place in range(1, n + 1):
        lines[place] = lines[place].rpartition(",")[0] + ",0"
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    fit = fit_device(tmp_path / "x.csv", "soft-bounds", LOW, HIGH)
    assert fit.outliers["line"].tolist() == list(range(2, n + 2))
    assert (
        abs(fit.device.step.dw_min - 0.02)
        < 5 * fit.parameters.set_index("key").loc["step.dw_min", "stderr"]
    )


def test_too_many_outliers_are_refused_as_no_dropouts(tmp_path):
    table(tmp_path / "x.csv", 5, **FINE | {"dropouts": 60})
    with pytest.raises(
        InputError,
        match=r"\d+ of 801 readings, such as that of line \d+, are far from what the pulses before",
    ):
        fit_device(tmp_path / "x.csv", "soft-bounds", LOW, HIGH)


@pytest.mark.slow
def test_inverted_polarity_is_refused_with_the_reason_and_fitted_on_request(tmp_path, command):
    table(tmp_path / "plain.csv", 7, **FINE)
    swap = {",up,": ",down,", ",down,": ",up,"}
    lines = (tmp_path / "plain.csv").read_text().splitlines()
    lines = [
        next((line.replace(a, b) for a, b in swap.items() if a in line), line) for line in lines
    ]
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        InputError,
        match=(
            "pulses up lower the readings and pulses down raise them: if it is their polarity, add"
        ),
    ):
        fit_device(tmp_path / "x.csv", "soft-bounds", LOW, HIGH)
    with pytest.raises(InputError, match="pulses up lower .* leave out --inverted"):
        fit_device(tmp_path / "plain.csv", "soft-bounds", LOW, HIGH, inverted=True)
    plain = fit_device(tmp_path / "plain.csv", "soft-bounds", LOW, HIGH, name="x")
    fit = fit_device(tmp_path / "x.csv", "soft-bounds", LOW, HIGH, inverted=True)
    assert fit.device.step == plain.device.step and fit.device.bounds == plain.device.bounds
    status, out, err = command("fit-device", "x.csv", "--model", "soft-bounds")
    assert status == 2 and err.count("\n") == 1 and "--inverted" in err
    status, out, err = command("fit-device", "x.csv", "--model", "soft-bounds", "--inverted")
    assert status == 0, err


@pytest.mark.parametrize(
    "separator, comma", [(";", False), (";", True), ("\t", False), ("\t", True)]
)
def test_semicolons_tabs_and_decimal_commas_say_the_same(separator, comma, tmp_path):
    table(tmp_path / "x.csv", 3, **FINE | {"runs": (30, 30)})
    text = (tmp_path / "x.csv").read_text()
    other = text.replace(",", separator)
    (tmp_path / "y.csv").write_text(
        "# a remark, with a comma\n" + (other.replace(".", ",") if comma else other)
    )
    a, b = read_pulses(tmp_path / "x.csv"), read_pulses(tmp_path / "y.csv")
    assert (
        np.array_equal(a.y, b.y)
        and np.array_equal(a.pulses, b.pulses)
        and a.resolution == b.resolution
    )


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "pulse|direction|weight\n0|0|0.1\n",
            "line 1: columns, separated by commas, are pulse|direction|weight, but",
        ),
        (
            "pulse;direction;x\n0;0;0.1\n",
            "line 1: columns, separated by semicolons, are pulse, direction, x, but",
        ),
        (
            "pulse,direction,weight\n0,0,0,1\n",
            "line 2: has 4 columns but the header has 3 (separated by commas",
        ),
        (
            'pulse,direction,weight\n0,0,"0,1"\n',
            "line 2: weight = 0,1 must be a finite number, with a decimal point where",
        ),
        (
            "pulse;direction;weight\n0;0;1.000,5\n",
            "line 2: weight = 1.000,5 must be a finite number",
        ),
        ("pulse,direction,weight\n0,0,1_0\n", "line 2: weight = 1_0 must be a finite number"),
        (
            "pulse,direction,weight\n0,0,0.1\n1_0,1,0.1\n",
            "line 3: pulse = 1_0 must be an integer",
        ),
        (
            "0,0,0.11\n1,1,0.12\n",
            (
                "line 1: holds numbers, but the first line must name the columns: put a header"
                " above it"
            ),
        ),
        (
            "a;0;0;11,98\na;1;up;12,11\n",
            "line 1: holds numbers, but the first line must name the columns",
        ),
    ],
)
def test_a_separator_or_header_that_cannot_be_used_is_named(text, message, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_pulses(tmp_path / "x.csv")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "digit, offset, written, expected",
    [
        (0.2, 0.0, 6, 0.2),
        (0.0137, 3.3, 6, 0.0137),
        (0.0, 0.0, 3, 1e-3),
        (0.0, 0.0, 6, 2e-5),
        (0.25, 0.1, 2, 0.25),
    ],
)
def test_the_resolution_of_readings_is_that_of_the_converter_or_the_last_digit(
    digit, offset, written, expected, tmp_path
):
    rng = np.random.default_rng(1)
    w = np.concatenate([np.linspace(0, 20, 100), np.linspace(20, 0, 100)]) + rng.normal(0, 0.3, 200)
    if digit:
        w = offset + digit * np.rint(w / digit)
    rows = [f"{i},{1 if i < 100 else -1},{reading:.{written}f}" for i, reading in enumerate(w)]
    (tmp_path / "x.csv").write_text("pulse,direction,conductance\n" + "\n".join(rows) + "\n")
    data = read_pulses(tmp_path / "x.csv", 0.0, 20.0)
    # nothing finer than 1e-6 of what was measured is asked for
    assert data.resolution * data.per_range == pytest.approx(
        expected, rel=0.1 if written == 6 and not digit else 0.01
    )


@pytest.mark.slow
def test_steps_at_a_hard_bound_say_what_they_are_elsewhere(tmp_path):
    table(
        tmp_path / "x.csv", 11, **FINE | {"c2c": 1.0, "read": 0.0, "runs": (150,) * 6, "bound": 0.9}
    )
    fit = fit_device(tmp_path / "x.csv", "constant-step", LOW, HIGH)
    values = fit.parameters.set_index("key")
    for key, true in (("step.dw_min", 0.02), ("step.c2c", 1.0), ("step.up_down", 0.0)):
        assert abs(values.loc[key, "value"] - true) < 5 * values.loc[key, "stderr"], key
    assert fit.device.bounds.w_max == pytest.approx(
        0.9
    ) and fit.device.bounds.w_min == pytest.approx(-0.9)


@pytest.mark.parametrize(
    "y, half, P, write, top",
    [
        (0.1, 1e-6, 0.01, 0.05, np.inf),
        (0.1, 0.1, 0.01, 0.0, np.inf),
        (-0.15, 0.08, 0.003, 0.02, np.inf),
        (0.3, 1e-6, 0.01, 0.05, np.inf),
        (0.04, 1e-6, 0.01, 0.03, 0.05),
        (0.05, 1e-6, 0.01, 0.0, 0.05),
        (-0.05, 1e-6, 0.01, 0.0, 0.05),
        (0.9, 1e-4, 0.01, 0.05, np.inf),
    ],
)
def test_a_reading_is_taken_as_by_integration(y, half, P, write, top):
    from scipy.stats import norm

    span, s = 2.0, math.sqrt(P)
    loss, regular, x, variance = take_reading(y, half, 0.0, P, top, write, span)

    def seen(w):
        """Probability of the reading, with the weight at w."""
        if write:
            return norm.cdf(y + half, w, write) - norm.cdf(y - half, w, write)
        return (np.abs(y - w) <= half).astype(float)

    grid = (
        np.linspace(-12 * s, min(top, 12 * s), 400_001)
        if write
        else np.linspace(y - half, min(y + half, top), 10_001)
    )
    step = grid[1] - grid[0]
    weights = np.append(
        norm.pdf(grid, 0, s) * step * seen(grid),
        norm.sf(top, 0, s) * seen(np.array([min(top, 1e9)]))[0],
    )
    weights[[0, -2]] /= 2  # trapezoids
    points = np.append(grid, min(top, 1e9))
    chance = weights.sum()
    stray = OUTLIERS * 2 * half / span
    assert loss == pytest.approx(
        -math.log(((1 - OUTLIERS) * chance + stray) / (2 * half)), abs=1e-3
    )
    share = (1 - OUTLIERS) * chance / ((1 - OUTLIERS) * chance + stray)
    assert regular == pytest.approx(share, abs=1e-3)
    prior = norm.pdf(fine := np.linspace(-12 * s, min(top, 12 * s), 400_001), 0, s) * (
        fine[1] - fine[0]
    )
    both = np.append(prior, norm.sf(top, 0, s)) * (1 - share), weights / chance * share
    places = np.append(fine, min(top, 1e9)), points
    mean = sum(float(w @ at) for w, at in zip(both, places, strict=True))
    assert x == pytest.approx(mean, abs=2e-3 * s)
    assert variance == pytest.approx(
        sum(float(w @ (at - mean) ** 2) for w, at in zip(both, places, strict=True)), abs=2e-3 * P
    )
