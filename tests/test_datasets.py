"""Data sets: what they hold, that patterns held back stay apart, and that every mistake in
[data] is one line.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.datasets import load_iris, load_wine

from perturb import MLP, Boltzmann, InputError, Recurrent
from sims.data.datasets import DATASETS, Data
from sims.data.loading import load_data, load_parts, load_split, load_states
from sims.data.scikit_learn import FILES, classified
from sims.experiment.loading import experiment_from, load_experiment
from sims.problem import prepare

SIZES = {
    "xor": (2, 1),
    "parity": (4, 1),
    "letters": (49, 4),
    "digits": (64, 10),
    "iris": (4, 3),
    "wine": (13, 3),
    "breast-cancer": (30, 2),
    "diabetes": (10, 1),
    "spirals": (2, 1),
    "teacher": (5, 2),
    "patterns": (6, 3),
    "mnist1d": (40, 10),
}
HOLDING = sorted(
    name
    for name, dataset in DATASETS.items()
    # those of files have tests of their own
    if "test" in dataset.keys and "sha256" not in dataset.keys
)


def rows(x):
    return {tuple(row) for row in x.tolist()}


def refused(name, **keys):
    """The one line that [data] of these keys ends in."""
    with pytest.raises(InputError) as caught:
        data = experiment_from(
            {"name": "x", "network": {"layers": [2, 1]}, "data": {"name": name, **keys}}, "x.toml"
        ).data
        load_split(data, *SIZES.get(name, (2, 3)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


# ---- what they hold


def test_parity_is_xor_for_two_bits_and_half_of_its_targets_are_one():
    for ours, xor in zip(
        load_data(Data(name="parity", bits=2), 2, 1), load_data(Data(name="xor"), 2, 1), strict=True
    ):
        np.testing.assert_array_equal(ours, xor)
    x, target = load_data(Data(name="parity", bits=7), 7, 1)
    assert len(rows(x)) == 128 and target.sum() == 64
    np.testing.assert_array_equal(target[:, 0], x.prod(1) > 0)  # seven inputs: an even number of -1


def test_letters_without_noise_are_four_and_flip_as_often_as_noise_says():
    x, target = load_data(Data(name="letters", samples=8, noise=0.0), 49, 4)
    assert len(rows(x)) == 4 and (target.argmax(1) == np.arange(8) % 4).all()
    N, I, S, T = x[:4].reshape(4, 7, 7)  # noqa: E741
    np.testing.assert_array_equal(N, N[::-1, ::-1])
    np.testing.assert_array_equal(S, S[::-1, ::-1])
    for symmetric in (I, T):
        np.testing.assert_array_equal(symmetric, symmetric[:, ::-1])
    noisy, _ = load_data(Data(name="letters", samples=4000, noise=0.1), 49, 4)
    share = (noisy != np.tile(x[:4], (1000, 1))).mean()
    assert abs(share - 0.1) < 5 * np.sqrt(0.1 * 0.9 / noisy.size)  # five standard errors


def test_real_sets_are_those_of_scikit_learn_and_standardised_by_their_training_patterns():
    x, target = load_data(Data(name="wine"), 13, 3)
    raw, labels = load_wine(return_X_y=True)
    np.testing.assert_array_equal(target.argmax(1), labels)
    np.testing.assert_allclose(x, (raw - raw.mean(0)) / raw.std(0), atol=1e-12)
    as_it_is, _ = load_data(Data(name="wine", standardise=False), 13, 3)
    np.testing.assert_array_equal(as_it_is, raw)
    for name in ("iris", "wine", "breast-cancer", "diabetes"):
        x, target, x_test, _ = load_split(Data(name=name, samples=60, test=40), *SIZES[name])
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(x.std(0), 1, atol=1e-12)
        assert np.abs(x_test.mean(0)).max() > 1e-3  # of the others it took no notice
    assert target.mean() == pytest.approx(0, abs=1e-12) and target.std() == pytest.approx(
        1
    )  # of diabetes, numbers


@pytest.mark.parametrize("name", FILES)
def test_files_of_scikit_learn_say_what_it_says_itself(name, monkeypatch):
    x, labels, names = classified(name)
    expected = getattr(datasets, f"load_{name}")()
    np.testing.assert_array_equal(x, expected.data)
    np.testing.assert_array_equal(labels, expected.target)
    assert names == tuple(map(str, expected.target_names))
    # of a version that keeps them elsewhere
    monkeypatch.setitem(FILES, name, "elsewhere.csv")
    for array, other in zip(classified(name), (x, labels, names), strict=True):
        np.testing.assert_array_equal(array, other)


def test_a_point_of_a_spiral_is_as_far_out_as_its_angle_says():
    x, target = load_data(Data(name="spirals", samples=200, turns=3), 2, 1)
    radius, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    turned = np.exp(1j * (angle - 6 * np.pi * radius)).real
    np.testing.assert_allclose(turned, 1 - 2 * target[:, 0], atol=1e-9)
    noisy, _ = load_data(Data(name="spirals", samples=200, turns=3, noise=0.1), 2, 1)
    assert (noisy - x).std() == pytest.approx(
        0.1, abs=5 * 0.1 / np.sqrt(2 * 400)
    )  # five standard errors


def test_patterns_of_the_fixed_point_task_are_different_and_wanted_at_plus_or_minus_a():
    x, target = load_data(Data(name="patterns", samples=64, amplitude=0.7), 6, 3)
    assert rows(x) == rows(np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T)
    assert set(target.ravel()) == {-0.7, 0.7}
    assert np.isfinite(
        Recurrent(10, outputs=[7, 8, 9], inputs=range(6)).objective(x, target).error(np.zeros(100))
    )


@pytest.mark.parametrize("side", [2, 3, 4])
def test_bars_are_the_states_whose_rows_or_columns_are_alike(side):
    states = load_states(Data(name="bars", side=side), side**2, (0, 1))
    grids = Boltzmann(side**2, 0).states(side**2).reshape(-1, side, side)
    alike = (grids == grids[:, :1]).all((1, 2)) | (grids == grids[:, :, :1]).all((1, 2))
    assert (
        rows(states) == rows(grids[alike].reshape(-1, side**2))
        and len(states) == 2 ** (side + 1) - 2
    )


def test_a_boltzmann_machine_takes_inputs_and_targets_as_states():
    assert rows(load_states(Data(name="parity", bits=3), 4, (-1, 1))) == {
        (a, b, c, -1 if (a > 0) ^ (b > 0) ^ (c > 0) == 0 else 1)
        for a in (-1, 1)
        for b in (-1, 1)
        for c in (-1, 1)
    }
    assert load_states(Data(name="teacher", samples=9), 3, (0, 1)).shape == (9, 3)
    problem = prepare(load_experiment("boltzmann", {"network.visible": 9, "data.name": "bars"}))
    assert problem.objective.n_patterns == 14 and problem.objective.error(problem.w) > 0


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_network_of_the_size_of_the_data_learns_from_them(name):
    data = Data(name=name, samples=4 if name != "digits" else 20)
    x, target = load_data(data, *SIZES[name])
    net = MLP(list(SIZES[name]))
    objective, w = net.objective(x, target), net.init(1)  # of seed 0 is the teacher
    assert objective.error(w - 1e-4 * objective.gradient(w)) < objective.error(w)


# ---- patterns held back


@pytest.mark.parametrize("name", HOLDING)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_pattern_held_back_is_one_to_learn_from(name, seed):
    plain = {} if "standardise" not in DATASETS[name].keys else {"standardise": False}
    x, target, x_test, target_test = load_split(
        Data(name=name, samples=100, test=45, seed=seed, **plain), *SIZES[name]
    )
    assert x.shape == (100, SIZES[name][0]) and target.shape == (100, SIZES[name][1])
    assert x_test.shape == (45, SIZES[name][0]) and target_test.shape == (45, SIZES[name][1])
    assert not rows(x) & rows(x_test)


@pytest.mark.parametrize("name", HOLDING)
def test_what_is_learnt_does_not_depend_on_what_is_held_back_and_fewer_are_the_first_of_more(name):
    plain = {} if "standardise" not in DATASETS[name].keys else {"standardise": False}
    alone = load_data(Data(name=name, samples=90, seed=3), *SIZES[name])
    for ours, theirs in zip(
        alone,
        load_split(Data(name=name, samples=90, seed=3, test=40), *SIZES[name])[:2],
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    more = load_split(Data(name=name, samples=90, seed=3, test=40, **plain), *SIZES[name])
    fewer = load_split(Data(name=name, samples=30, seed=3, test=40, **plain), *SIZES[name])
    least = load_split(Data(name=name, samples=90, seed=3, test=15, **plain), *SIZES[name])
    for ours, its in zip(more, least, strict=True):
        np.testing.assert_array_equal(its, ours[: len(its)])
    for ours, theirs in zip(more[:2], fewer[:2], strict=True):
        np.testing.assert_array_equal(theirs, ours[:30])
    other = load_data(Data(name=name, samples=90, seed=4), *SIZES[name])
    assert not np.array_equal(other[0], alone[0])


def test_two_flowers_that_are_alike_stay_on_one_side():
    raw, _ = load_iris(return_X_y=True)
    assert len(rows(raw)) == 149
    for seed in range(20):
        x, _, x_test, _ = load_split(Data(name="iris", test=50, seed=seed, standardise=False), 4, 3)
        assert len(x_test) == 50 and len(x) in (99, 100) and not rows(x) & rows(x_test)


def test_faint_letters_held_back_are_ones_not_seen():
    x, _, x_test, target_test = load_split(
        Data(name="letters", samples=200, test=100, noise=0.01), 49, 4
    )
    assert len(rows(x)) < 150 and len(x_test) == 100 and not rows(x) & rows(x_test)
    assert "raise data.noise" in refused("letters", samples=4, test=4, noise=0.0)


@pytest.mark.parametrize("name, classes", [("digits", 10), ("letters", 4), ("spirals", 2)])
def test_classes_are_balanced_on_both_sides(name, classes):
    # noise so that no letter comes twice
    _, target, _, target_test = load_split(
        Data(name=name, samples=80, test=40, noise=0.2 * (name != "digits")), *SIZES[name]
    )
    for part in (target, target_test):
        assert (part.sum(0) == len(part) / classes).all()


def unbalanced(folder, idle=423, run=128, fault=49):
    """A file of classes in these numbers, as of a machine that seldom fails."""
    names = ["idle"] * idle + ["run"] * run + ["fault"] * fault
    rng = np.random.Generator(np.random.Philox(0))
    frame = pd.DataFrame(
        {"a": rng.standard_normal(len(names)), "b": rng.standard_normal(len(names)), "state": names}
    )
    frame.to_csv(folder / "states.csv", index=False)
    return {"name": "file", "file": str(folder / "states.csv"), "targets": "state"}


@pytest.mark.parametrize("samples, test", [(200, 200), (400, 150), (60, 30), (7, 500), (None, 100)])
def test_classes_keep_their_shares_on_both_sides(tmp_path, samples, test):
    data = unbalanced(tmp_path)
    share = np.array([49, 423, 128]) / 600  # fault, idle, run
    for seed in range(3):
        _, target, _, target_test = load_split(
            Data(**data, samples=samples, test=test, seed=seed), 2, 3
        )
        for part in (target, target_test):
            assert (
                np.abs(part.sum(0) - share * len(part)) <= 1.01
            ).all()  # one at each end of a run in the order


def test_balance_on_request_leaves_the_rest_in_proportion(tmp_path):
    data = unbalanced(tmp_path)
    _, target, _, target_test = load_split(Data(**data, samples=60, test=100, balanced=True), 2, 3)
    np.testing.assert_array_equal(target.sum(0), [20, 20, 20])
    left = np.array([29, 403, 108])
    assert (np.abs(target_test.sum(0) - left / left.sum() * 100) <= 1.01).all()
    np.testing.assert_array_equal(
        load_split(Data(**data, samples=200, balanced=True), 2, 3)[1].sum(0), [49, 76, 75]
    )
    keys = {key: value for key, value in data.items() if key != "name"}
    line = (
        "data.balanced = true with data.samples = 200 leaves no pattern of class 'fault' to hold"
        " back"
    )
    assert line in refused("file", **keys, samples=200, test=50, balanced=True)
    assert "data.samples is missing" in refused("file", **keys, balanced=True)


def test_all_that_are_not_held_back_are_learnt_from_when_samples_is_absent():
    x, _, x_test, _ = load_split(Data(name="digits", test=300), 64, 10)
    assert (len(x), len(x_test)) == (1497, 300)
    assert load_split(Data(name="digits"), 64, 10)[2].shape == (0, 64)


def test_the_study_uses_tests_with_what_data_test_holds_back():
    from sims.studies.uses import _split

    small = {
        "network.layers": [4, 3],
        "data.name": "iris",
        "data.samples": 60,
        "uses.test_samples": 30,
    }
    for changes, wanted in (({}, 30), ({"data.test": 40}, 40)):
        experiment = load_experiment("uses", {**small, **changes})
        split = _split(experiment, prepare(experiment), lambda: False)
        assert (split.train.n_patterns, split.test.n_patterns) == (60, wanted)


# ---- mistakes


@pytest.mark.parametrize(
    "name, keys, message",
    [
        (
            "xor",
            {"test": 1},
            'data.test = 1 does not go with name = "xor", only with letters, digits, iris',
        ),
        ("parity", {"test": 1}, "data.test = 1 does not go with"),
        ("parity", {"bits": 17}, "data.bits = 17 must be <= 16"),
        (
            "parity",
            {"noise": 0.1},
            (
                'noise = 0.1 does not go with name = "parity", only with letters, spirals, teacher:'
                " remove it"
            ),
        ),
        (
            "digits",
            {"bits": 3},
            'bits = 3 does not go with name = "digits", only with parity: remove it',
        ),
        ("digits", {"standardise": True}, "standardise = true does not go with"),
        ("digits", {"samples": 1000, "test": 798}, "data.test = 798, but data.name"),
        ("digits", {"test": 1797}, "has only 1797 patterns, and some are needed to learn from"),
        ("letters", {}, 'data.samples is missing: name = "letters" needs it, such as samples = 64'),
        (
            "letters",
            {"samples": 4, "noise": 0.6},
            "data.noise = 0.6 is the probability that a pixel is flipped: at most 0.5",
        ),
        ("letters", {"samples": 10**8}, "do not fit in memory"),
        ("spirals", {"samples": 4, "test": 10**8}, "do not fit in memory"),
        ("spirals", {"samples": 4, "turns": 0}, "data.turns = 0 must be > 0"),
        ("patterns", {"samples": 65}, "makes at most 64 different ones of 6 inputs"),
        ("patterns", {"samples": 4, "amplitude": -1}, "data.amplitude = -1"),
        ("bars", {"side": 5}, "data.side = 5 must be <= 4"),
        (
            "bars",
            {},
            (
                'data.name = "bars" has no targets, which only network.kind = "boltzmann" can do'
                " without"
            ),
        ),
        ("iris", {"samples": 140, "test": 20}, "data.test = 20"),
        ("wins", {}, "did you mean wine?"),
    ],
)
def test_a_mistake_in_the_table_is_one_line(name, keys, message):
    assert message in refused(name, **keys)


@pytest.mark.parametrize("name", ["teacher", "diabetes", "patterns"])
def test_targets_that_are_numbers_are_for_the_squared_error(name):
    layers = list(SIZES[name])
    changes = {
        "network.layers": layers,
        "data.name": name,
        "data.samples": 8,
        "network.output": "linear",
    }
    with pytest.raises(
        InputError, match=f'"binary_cross_entropy" does not go with data.name = "{name}"'
    ):
        prepare(load_experiment("xor", {**changes, "network.error": "binary_cross_entropy"}))
    prepare(load_experiment("xor", changes))


def test_states_that_do_not_fit_say_so():
    for name, keys, message in (
        ("letters", {"samples": 4}, "too many units"),
        ("bars", {}, "set network.visible = 9"),
    ):
        with pytest.raises(InputError, match=message):
            load_states(Data(name=name, **keys), 4, (0, 1))


numbers = (
    st.integers(-2, 400)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.text(max_size=6)
    | st.lists(st.text(max_size=3))
)
tables = st.fixed_dictionaries(
    {"name": st.sampled_from(sorted(DATASETS)) | st.text(max_size=6)},
    optional={
        "samples": st.integers(1, 300) | numbers,
        "test": st.integers(0, 200) | numbers,
        "noise": st.floats(0, 1) | numbers,
        "bits": st.integers(1, 9) | numbers,
        "turns": numbers,
        "amplitude": numbers,
        "side": st.integers(2, 4) | numbers,
        "file": st.sampled_from(["x.csv", "x.npz", "x.parquet"]) | numbers,
        "images": st.sampled_from(["x", "x.gz"]) | numbers,
        "labels": st.sampled_from(["x", "x.gz"]) | numbers,
        "batches": st.sampled_from(["x.bin", ["x.bin", "y.bin"], []]) | numbers,
        "shuffled": st.booleans() | numbers,
        "targets": numbers,
        "standardise": numbers,
        "seed": numbers,
    },
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(tables, st.data())
def test_any_table_of_data_gives_patterns_or_one_line(table, draw):
    # most keys belong to other data sets: keep some of them, so that what is left is tried too
    name = table["name"]
    if name in DATASETS:
        own = {"name", "samples", "seed", *DATASETS[name].keys}
        table = {
            key: value
            for key, value in table.items()
            if key in own or draw.draw(st.integers(0, 9)) == 0
        }
    n_inputs, n_outputs = SIZES.get(name, (2, 3))
    n_inputs = table["bits"] if name == "parity" and table.get("bits") in range(1, 17) else n_inputs
    try:
        data = experiment_from(
            {"name": "x", "network": {"layers": [2, 1]}, "data": table}, "fuzz.toml"
        ).data
        x, target, x_test, target_test = load_split(data, n_inputs, n_outputs)
        states = (
            load_states(data, n_inputs + n_outputs, (0, 1))
            if n_inputs + n_outputs < 8
            else np.zeros((1, 1))
        )
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert x.shape == (len(target), n_inputs) and target.shape[1] == n_outputs
        assert len(x_test) == len(target_test) == data.test and len(x) == (data.samples or len(x))
        assert (
            all(np.isfinite(array).all() for array in (x, target, x_test, target_test))
            and np.isin(states, (0, 1)).all()
        )
        assert not rows(x) & rows(x_test)


@pytest.mark.parametrize("samples", [None, 60])
@pytest.mark.parametrize("name", ["digits", "iris", "wine"])
def test_patterns_for_validation_are_a_third_part_that_leaves_the_test_as_it_is(name, samples):
    # as they are: else they are standardised by other patterns
    keys = {"name": name, "samples": samples, "test": 30}
    keys |= {} if name == "digits" else {"standardise": False}
    raw = load_parts(Data(**keys, validation=20), *SIZES[name])
    also = load_split(Data(**keys), *SIZES[name])
    assert [len(part) for part in raw[2:]] == [30, 30, 20, 20]
    assert np.array_equal(raw.x_test, also[2]) and np.array_equal(raw.target_test, also[3])
    if samples:
        assert np.array_equal(raw.x, also[0])
    else:
        # the rest of those to learn from
        assert np.array_equal(raw.x, also[0][: len(raw.x)]) and len(raw.x) + 20 <= len(also[0])
    rows = [{row.tobytes() for row in part} for part in (raw.x, raw.x_test, raw.x_validation)]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
    # classes in proportion there, too, within two or so
    share = raw.target_validation.mean(0) - np.concatenate([raw.target, raw.target_test]).mean(0)
    assert np.abs(share).max() < 2 / 20 + 0.05


def test_made_patterns_have_a_part_for_validation_too():
    for name in ("teacher", "spirals", "letters"):
        data = {"name": name, "samples": 40, "test": 10}
        more = load_parts(Data(**data, validation=15), *SIZES[name])
        fewer = load_split(Data(**data), *SIZES[name])
        assert all(np.array_equal(*both) for both in zip(more[:4], fewer, strict=True))
        assert len(more.x_validation) == 15


def test_too_many_patterns_for_validation_are_one_line():
    message = refused("iris", samples=100, test=30, validation=25)
    assert "data.test = 30, data.validation = 25, but data.name" in message
    assert "lower data.test or data.validation or data.samples" in message
    assert "data.validation = 150, but" in refused("iris", validation=150)
    assert 'does not go with name = "xor"' in refused("xor", validation=1)
