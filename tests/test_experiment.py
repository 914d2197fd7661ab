"""Experiment files: every mistake is one line that says what, where and how to mend it."""

import re
import tomllib
from typing import get_args, get_origin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perturb
from hardware.config import Table
from hardware.device_params import DeviceParams
from perturb import InputError
from perturb.networks import kinds
from perturb.settings import flat
from perturb.training.plan import Plan
from sims.data.datasets import DATASETS
from sims.data.loading import load_data
from sims.experiment.experiment import Experiment
from sims.experiment.loading import (
    experiment_from,
    experiment_names,
    load_experiment,
    parse_settings,
)
from sims.experiment.network import KINDS, _in_files
from sims.experiment.schema import Measured
from sims.experiment.templates import starter
from sims.experiment.writing import to_toml
from sims.problem import prepare
from sims.studies.training.options import Baseline, Training

MINIMAL = {"name": "x", "network": {"layers": [2, 2, 1]}, "data": {"name": "xor"}}


@pytest.mark.parametrize("name", experiment_names())
def test_shipped_experiments_load_and_round_trip(name):
    experiment = load_experiment(name)
    assert experiment_from(tomllib.loads(to_toml(experiment)), "copy") == experiment
    assert experiment.description


def uncommented(text):
    """A template with all that stands behind a # and is a key or a table."""
    return tomllib.loads(re.sub(r"(?m)^# (\[[a-z_.]+\]$|[A-Za-z0-9_]+ = )", r"\1", text))


def fields(model, above=""):
    """(dotted key, field) of all keys of a model that are no tables."""
    for name, field in model.model_fields.items():
        kinds = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type)
        ]
        table = next((kind for kind in kinds if issubclass(kind, Table)), None)
        if table and table is not DeviceParams and get_origin(field.annotation) is not tuple:
            yield from fields(table, f"{above}{name}.")
        else:
            yield f"{above}{name}", field


def at(data, key):
    for name in key.split("."):
        data = data[name]
    return data


def test_the_starter_shows_every_key_with_its_default():
    shown, given = uncommented(starter()), flat(tomllib.loads(starter()))
    kinds = {f"data.{name}" for dataset in DATASETS.values() for name in dataset.keys}
    for key, field in fields(Experiment):
        value = at(shown, key)
        if (
            key not in given
            and not field.examples
            and not key.startswith("network.")
            and key not in kinds
        ):
            assert value == (
                list(field.default) if isinstance(field.default, tuple) else field.default
            ), key
    assert shown["chip"].pop("preset") == "ideal"
    for key in flat(shown):
        assert any(
            key == known or key.startswith(f"{known}.") for known, _ in fields(Experiment)
        ), key


def test_the_starter_is_what_a_file_without_its_keys_means():
    data = tomllib.loads(starter())
    commented = experiment_from(data, "starter")
    data["estimation"].pop("trials"), data["direction"].pop("norm")
    for table in ("weights", "run", "chip"):
        data.pop(table)
    assert commented.estimation.trials == 256
    short = experiment_from(data, "short")
    assert (short.weights, short.run, short.chip) == (
        commented.weights,
        commented.run,
        commented.chip,
    )


def test_the_options_of_plans_stand_in_training_and_in_what_is_compared_with_their_meanings():
    for name, option in Plan.options().items():
        assert Training.model_fields[name].default == option.default
        assert Training.model_fields[name].description == option.metadata["meaning"]
    assert set(Baseline.model_fields) == {*Plan.options(), *Measured.model_fields, "label"} - {
        "baseline_free"
    }
    for name, field in Baseline.model_fields.items():
        if name != "label":
            of = Measured if name in Measured.model_fields else Training
            assert field.default is None and field.description == of.model_fields[name].description


@pytest.mark.parametrize(
    "setting, message",
    [
        ("estimation.sigm=0.1", "estimation.sigm"),
        ("estimation.sigma=-1", "estimation.sigma = -1"),
        ("estimation.sigma=nan", "estimation.sigma = nan must be a finite number"),
        ("estimation.sigma=1e-300", "estimation.sigma = 1e-300 must be >= 1e-18"),
        ("estimation.sigma=0", "estimation.sigma = 0 must be > 0"),
        ("chip.error_unit.noise=1e300", "chip.error_unit.noise = 1e+300 must be <= 1e+18"),
        ("chip.bus.dE_range=1e-300", "chip.bus.dE_range = 1e-300 must be 0 or at least 1e-30"),
        ("dies.accuracy=1e-300", "dies.accuracy = 1e-300 must be >= 0.001"),
        ("estimation.trials=1e3", "must be an integer"),
        ("estimation.method=diffrence", "did you mean difference?"),
        ("estimation.code=wlsh", "did you mean walsh?"),
        ("data.name=mnist", "data.name"),
        ("data.samples=5", "has only 4"),
        ("network.layers=[2,2,2]", 'data.name = "xor" has 1 outputs'),
        ("network.layers=[2,0,1]", "network.layers"),
        ("network.activation=1", "network.activation"),
        ("chip.error_unit.nois=1", "chip.error_unit.nois"),
        ("chip.preset=idael", "did you mean ideal?"),
        ("chip.synapses_per_tile=0", "chip.synapses_per_tile = 0"),
        ("direction.kind=sideways", "direction.kind"),
        ("run.fidelity=fast", "run.fidelity"),
        ("run=3", "run"),
        ("run.seed=-1", "run.seed = -1"),
        ("weights.warmup_updates=2.5", "weights.warmup_updates"),
        ("network.kind=graph", "network.kind"),
        ('network.layers=[2, "linear 1"]', 'layers[1] = "linear 1" does not go with kind = "mlp"'),
        ("network.units=3", 'network.units = 3 does not go with kind = "mlp": remove it'),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(setting, message):
    with pytest.raises(InputError) as caught:
        prepare(load_experiment("xor", parse_settings([setting])))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, setting, message",
    [
        ("dag", "network.edges=[[0,3],[3,0]]", "network.edge (3, 0) leads into neuron 0"),
        ("dag", "network.edges=[[0,1,2]]", "network.edges[0]"),
        ("dag", "network.edges=[[0]]", "network.edges[0] has too few entries: give 2 or more"),
        ("dag", "network.outputs=[9]", "network.outputs names neuron 9"),
        ("dag", 'network.activations={x="linear"}', "must name units by their number"),
        ("dag", "network.inputs=[0]", 'the network has 1 inputs but data.name = "xor" has 2'),
        ("recurrent", "network.solver=newton", 'network.solver = "newton" is unknown'),
        ("recurrent", "network.temperature=2", "network.temperature = 2"),
        ("boltzmann", "network.visible=4", "set network.visible = 3"),
        ("boltzmann", "network.temperature=0", "network.temperature = 0"),
        ("boltzmann", f"network.values=[{10**20},1]", "must be <= 1"),
        ("boltzmann", "network.hidden=30", "too many states"),
    ],
)
def test_a_mistake_in_any_kind_of_network_is_one_line(name, setting, message):
    with pytest.raises(InputError) as caught:
        prepare(load_experiment(name, parse_settings([setting])))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_kind_of_network_is_known_by_its_entry_alone():
    class Ring:
        def __init__(self, n_units, radius=..., step=0.25, external=None, matrix=None): ...

    perturb.Ring = Ring
    try:
        found = _in_files(kinds.Kind("", "Ring", lambda n_units, **_: n_units, needed=("step",)))
    finally:
        del perturb.Ring
    # radius and matrix are no keys of [network]; step must be given, external may be absent
    assert found.keys == {"units": None, "step": None, "external": ...}
    assert {kind.name for kind in kinds.KINDS.values()} <= set(perturb.__all__)
    assert set(KINDS) == set(kinds.KINDS)


def test_unknown_key_gets_a_close_match():
    with pytest.raises(InputError, match="did you mean .*sigma"):
        load_experiment("xor", {"estimation.sgma": 0.1})
    with pytest.raises(InputError, match="KEY=VALUE"):
        parse_settings(["estimation.sigma"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("name = \n[run]", "line 1"),
        ("name = 'x'", "network is missing"),
        ("\x00", "broken.toml"),
        ("name = 'x'\nname = 'y'", "broken.toml"),
        ("name = 'x'\nnetwork = 3\n[data]\nname='xor'", "network"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_experiment(file)
    assert "broken.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_folder_and_binary_files_are_named(tmp_path):
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    for path, message in (
        (tmp_path / "none.toml", "none.toml"),
        (tmp_path, str(tmp_path)),
        (tmp_path / "binary.toml", "binary"),
    ):
        with pytest.raises(InputError, match=message):
            load_experiment(path)
    with pytest.raises(InputError, match="did you mean digits?"):
        load_experiment("digit")


def test_set_reads_toml_values_and_numpy_numbers():
    changed = load_experiment(
        "xor",
        {
            "estimation.sigma": "0.5",
            "estimation.trials": np.int64(7),
            "chip.error_unit.noise": 1e-2,
        },
    )
    assert (changed.estimation.sigma, changed.estimation.trials, changed.chip.error_unit.noise) == (
        0.5,
        7,
        0.01,
    )


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
)
KEYS = [
    "name",
    "network",
    "network.layers",
    "data.samples",
    "estimation.compare_with",
    "estimation.r",
    "chip",
    "chip.bus",
    "run.seed",
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KEYS), values)
def test_any_value_is_taken_or_refused_in_one_line(key, value):
    data = {
        table: dict(content) if isinstance(content, dict) else content
        for table, content in MINIMAL.items()
    }
    table, _, name = key.rpartition(".")
    (data.setdefault(table, {}) if table else data)[name] = value
    try:
        experiment = experiment_from(data, "fuzz.toml")
    except InputError as error:
        assert (
            "\n" not in str(error) and str(error).startswith("fuzz.toml") and len(str(error)) < 500
        )
    else:
        assert experiment_from(tomllib.loads(to_toml(experiment)), "copy") == experiment


def test_digits_are_balanced_and_fewer_are_the_first_of_more():
    experiment = load_experiment("digits")
    x, target = load_data(experiment.data, 64, 10)
    assert x.shape == (64, 64) and x.min() >= 0 and x.max() <= 1
    assert sorted(target.sum(0)) == [6] * 6 + [7] * 4
    fewer, _ = load_data(experiment.data.model_copy(update={"samples": 20}), 64, 10)
    np.testing.assert_array_equal(fewer, x[:20])


def test_direction_has_the_norm_asked_for_and_warm_up_lowers_the_error():
    cold = prepare(load_experiment("digits", {"weights.warmup_updates": 0, "data.samples": 10}))
    warm = prepare(load_experiment("digits", {"direction.norm": 3, "data.samples": 10}))
    assert np.linalg.norm(warm.v) == pytest.approx(3)
    assert warm.objective.error(warm.w) < 0.8 * cold.objective.error(cold.w)
    along = prepare(load_experiment("xor", {"direction.kind": "gradient", "direction.norm": 1}))
    g = along.objective.gradient(along.w)
    np.testing.assert_allclose(along.v, g / np.linalg.norm(g))
    with pytest.raises(InputError, match="warm-up diverge"):
        prepare(
            load_experiment("teacher", {"weights.warmup_rate": 1e5, "weights.warmup_updates": 200})
        )
