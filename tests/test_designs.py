"""Points of a sweep: grids, zipped lists and designs, and every mistake one line before anything
runs.
"""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sims
from perturb import InputError
from sims.experiment.schema import Sweep
from sims.sweeps import cell as cells
from sims.sweeps import design as designs
from sims.sweeps import plan as plans


def points(is_whole=lambda key: False, **table):
    return designs.points(Sweep(**table), is_whole)


def test_a_grid_is_every_combination_the_last_key_fastest():
    assert points(vary={"a": [1, 2], "b": {"c": ["x", "y"]}}) == [
        {"a": 1, "b.c": "x"},
        {"a": 1, "b.c": "y"},
        {"a": 2, "b.c": "x"},
        {"a": 2, "b.c": "y"},
    ]
    assert points(vary={"a": [1, 2]}, zip={"b": [1, 2], "c": "x,y"})[1] == {
        "a": 1,
        "b": 2,
        "c": "y",
    }


@pytest.mark.parametrize(
    "spec, values",
    [
        ("1,2.5,x", [1, 2.5, "x"]),
        ("true", [True]),
        ("[2,2,1],[2,3,1]", [[2, 2, 1], [2, 3, 1]]),
        ('"a,b",c', ["a,b", "c"]),
        ("linspace:0:1:5", [0, 0.25, 0.5, 0.75, 1]),
        ("linspace:0.1:0.3:3", [0.1, 0.2, 0.3]),
        (
            "logspace:-5:-1:9",
            [
                1e-5,
                3.16227766017e-5,
                1e-4,
                3.16227766017e-4,
                1e-3,
                3.16227766017e-3,
                0.01,
                0.0316227766017,
                0.1,
            ],
        ),
        (np.array([0.5, 1.0]), [0.5, 1.0]),
        (range(3), [0, 1, 2]),
        ((np.int64(3), (1, 2)), [3, [1, 2]]),
    ],
)
def test_values_of_a_key(spec, values):
    assert [point["k"] for point in points(vary={"k": spec})] == values


def test_computed_numbers_of_a_whole_key_are_rounded_each_taken_once():
    for key in ("run.seed", "data.samples", "chip.die"):
        plan = plans.plan_sweep("teacher", changes={"vary": {key: "logspace:0:1:6"}})
        assert [point[key] for point in plan.points] == [1, 2, 3, 4, 6, 10]
    for key in ("estimation.sigma", "chip.error_unit.noise", "direction.norm"):
        plan = plans.plan_sweep("teacher", changes={"vary": {key: "logspace:-2:-1:3"}})
        assert [point[key] for point in plan.points] == pytest.approx([0.01, 10**-1.5, 0.1])
    assert points(lambda key: True, vary={"k": "logspace:0:1:6"}) == [
        {"k": k} for k in (1, 2, 3, 4, 6, 10)
    ]


def test_designs_fill_the_ranges_evenly():
    ranges = {"a": "uniform:-1:1", "b": "loguniform:1e-4:1e-2"}
    for design, samples in (("sobol", 64), ("latin-hypercube", 50)):
        drawn = points(vary=ranges, design=design, samples=samples)
        for key, place in (("a", lambda a: (a + 1) / 2), ("b", lambda b: np.log10(b) / 2 + 2)):
            # one point in each of as many equal parts: what both designs promise of every single
            # key
            parts = np.floor(np.array([place(point[key]) for point in drawn]) * samples)
            assert sorted(parts) == list(range(samples))
        assert drawn == points(vary=ranges, design=design, samples=samples)
        assert drawn != points(vary=ranges, design=design, samples=samples, seed=1)
    assert len(points(vary={**ranges, "c": [1, 2, 3]}, samples=8)) == 24


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"vary": {"estimation.trial": [1]}},
            "estimation.trial is no known key (did you mean trials?)",
        ),
        ({"vary": {"estimation.trials": [16, 1]}}, "estimation.trials = 1 must be >= 2"),
        ({"vary": {"estimation.trials": "16,x"}}, 'estimation.trials = "x" must be an integer'),
        ({"vary": {"estimation.trials": [16, "16"]}}, "two points are the same experiment"),
        ({"vary": {"estimation.trials": []}}, "estimation.trials = [] has no value"),
        ({"vary": {"estimation.trials": 16}}, "must be a list of values"),
        ({"vary": {"estimation.sigma": "linspace:0:1"}}, "not of the form linspace:LO:HI:N"),
        ({"vary": {"estimation.sigma": "linspace:0:1:1e12"}}, "N from 1 to 1,000,000"),
        ({"vary": {"estimation.sigma": "logspace:1:1000:3"}}, "exponents of ten must lie between"),
        ({"vary": {"estimation.sigma": "loguniform:0:1"}}, "0 < LO < HI"),
        ({"vary": {"estimation.sigma": "uniform:1:0"}}, "LO must be less than HI"),
        ({"vary": {"estimation.sigma": "uniform:1:2"}, "samples": 100}, "must be a power of 2"),
        ({"vary": {"estimation.sigma": "uniform:1:2"}, "design": "grid"}, "sweep.design"),
        ({"vary": {"estimation.sigma": [None]}}, "no place in a TOML file"),
        (
            {"vary": {"run.seed": range(10**6), "estimation.sigma": [1, 2]}},
            "2,000,000 cells but at most 1,000,000",
        ),
        ({"zip": {"estimation.sigma": [1, 2], "estimation.r": [1]}}, "as many entries"),
        ({"vary": {"chip": [{}], "chip.die": [1]}}, "is part of chip"),
        ({"vary": {"chip.die": [1]}, "zip": {"chip.die": [2]}}, "varied and zipped"),
        ({"vary": {"chip.die": [1, 2]}, "set": {"chip.die": 1}}, "set and varied"),
        ({"vary": {"sweep.repeats": [1, 2]}}, "no key of a run"),
        (
            {"vary": {"estimation.method": ["covariance"], "estimation.code": ["walsh", "lfsr"]}},
            "does not go with code = 'lfsr'",
        ),
        ({"vary": {"run.seed": [2**64]}, "repeats": 2}, "must be <= 18446744073709551615"),
        ({"repeats": 0}, "sweep.repeats = 0 must be >= 1"),
        ({}, "nothing is varied"),
        ({"vary": {"name": ["a", "b"]}}, "changes nothing of what is run"),
        ({"vary": {"chip.die": [1, 2]}, "workers": -1}, "workers = -1"),
        (
            {"vary": {"chip.die": [1, 2]}, "workers": 1, "cluster": "tcp://x:1"},
            "does not go with cluster",
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(cells, "run_cell", None)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        sims.run_sweep("xor", out=tmp_path / "out", **{"workers": 0, **options})
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


KEYS = [
    "estimation.trials",
    "estimation.sigma",
    "estimation.method",
    "chip.preset",
    "network.layers",
    "run.seed",
    "run",
    "",
    "a..b",
]
PARTS = [
    "16",
    "1e-2",
    "-1",
    "difference",
    "forward",
    "ideal",
    "[2,2,1]",
    "[2",
    '"',
    "{}",
    "nan",
    "",
    " ",
    ":",
    "\n",
    "\x00",
    "ü",
]
SPECS = st.lists(st.sampled_from(PARTS), max_size=3).map(",".join) | st.lists(
    st.sampled_from(
        [
            "linspace",
            "logspace",
            "uniform",
            "loguniform",
            "0",
            "0.5",
            "2",
            "3",
            "-1",
            "inf",
            "x",
            "",
        ]
    ),
    max_size=5,
).map(":".join)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), SPECS, max_size=3),
    st.dictionaries(st.sampled_from(KEYS), SPECS, max_size=2),
)
def test_any_spec_ends_in_a_result_or_one_line(vary, zipped):
    options = {"vary": vary, "zip": zipped, "design": "latin-hypercube", "samples": 2}
    base = {
        "estimation.compare_with": [],
        **({} if "estimation.trials" in vary | zipped else {"estimation.trials": 16}),
    }
    try:
        if len(plans.plan_sweep("xor", base, options)) <= 4:
            frame = sims.run_sweep("xor", workers=0, set=base, **options)
            assert len(frame) or frame.attrs["failed"]
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
