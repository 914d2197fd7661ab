"""Weights in and out of a training: what is stored of them, and starting from what was stored."""

import hashlib
import tomllib

import numpy as np
import pandas as pd
import pytest
from fast import fast, thinned

import reports
import sims
from hardware.parts.weight_store import WeightStore
from perturb import InputError
from sims.experiment.loading import load_experiment
from sims.problem import prepare

QUICK = {
    "training.runs": 3,
    "training.updates": 40,
    "training.records": 6,
    "training.compare_with": [{"label": "slow", "eta": 0.01}],
}
XOR = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
DEVICES = {
    "none": {},
    "digital": {"chip.weights.bits": 6},
    "by name": {"chip.weights.device": "digital8"},
    "digital, leaking": {"chip.weights.bits": 8, "chip.weights.leak_tau_s": 0.01},
    "steps": {"chip.weights.device": "ecram-tang2018"},
    "write noise": {"chip.weights.device": "reram-soft-bounds"},
    "pairs": {"chip.weights.device": "pcm-nandakumar2020"},
    "events": {"training.source": "event", "chip.weights.bits": 6},
    "late writes": {
        "training.waits": False,
        "chip.weights.write_ns": 20_000,
        "chip.weights.bits": 6,
    },
}


def learn(out=None, **set):
    return sims.run_experiment("xor-learning", {**QUICK, **set}, out=out)


def ends(run):
    """E of every source and run at the last record."""
    return run.learning.groupby(["source", "run"], sort=False)["error"].last().to_numpy()


# ---- out


@pytest.mark.parametrize("device", thinned(DEVICES, 4))
def test_the_stored_weights_are_those_of_which_the_last_record_is(device, tmp_path):
    run = learn(tmp_path / "run", **DEVICES[device])
    with np.load(tmp_path / "run" / "weights.npz") as file:
        stored = {name: file[name] for name in file.files}
    rows = run.learning.groupby(["source", "run"], sort=False).last().reset_index()
    assert stored["source"].tolist() == rows["source"].tolist()
    assert stored["run"].tolist() == rows["run"].tolist()
    network = run.experiment.network.build()
    objective = network.objective(XOR, (XOR[:, :1] != XOR[:, 1:]).astype(float))
    assert [objective.error(w) for w in stored["w_exact"]] == ends(run).tolist()
    unit_from, unit_to = network.weight_units()
    assert np.array_equal(stored["unit_from"], unit_from)
    assert np.array_equal(stored["unit_to"], unit_to)
    # 2-2-1: 2 x 2 weights and 2 biases of the first layer, 2 and 1 of the second
    assert stored["layer"].tolist() == [1] * 6 + [2] * 3
    # a table like any other says the same
    table = reports.load(tmp_path / "run").weights
    for name in ("w_exact", "w_stored", "level"):
        assert np.array_equal(stored[name].ravel(), table[name])


@pytest.mark.parametrize(
    "device, lowest, bits",
    [("digital", -4, 6), ("events", -4, 6), ("late writes", -4, 6), ("by name", -1, 8)],
)
def test_levels_decode_to_the_stored_weights_which_the_array_computes_with(device, lowest, bits):
    weights = learn(**DEVICES[device]).weights
    chip = weights[weights["source"] != "exact"]
    assert chip["level"].between(0, 2**bits - 1).all() and chip["level"].nunique() > 5
    assert (chip["w_stored"] == lowest + chip["level"] * -2 * lowest / 2**bits).all()
    assert (chip["w_stored"] == chip["w_exact"]).all()
    # nothing rounds the exact gradient
    exact = weights[weights["source"] == "exact"]
    assert (exact["level"] == -1).all() and (exact["w_stored"] == exact["w_exact"]).all()
    assert (exact["w_stored"] % (8 / 64) != 0).any()


def test_cells_that_leak_leave_their_levels_and_have_no_code():
    weights = learn(**DEVICES["digital, leaking"]).weights
    chip = weights[(weights["source"] != "exact") & (weights["w_stored"] != 0)]
    between = chip["w_stored"] % (8 / 256) != 0
    assert between.any() and ((chip["level"] == -1) == between).all()


@pytest.mark.parametrize(
    "stuck, level", [(-5.0, -1), (-4.125, -1), (-4.0, 0), (0.01, -1), (3.875, 63), (4.0, -1)]
)
def test_a_cell_that_is_stuck_beyond_the_levels_is_at_none(stuck, level):
    task = {"chip.weights.bits": 6, "chip.weights.stuck_value": stuck}
    store = WeightStore(load_experiment("xor", task).chip, np.array([True, False]), np.ones(2), 0)
    held, levels = store.held(0)
    assert held.tolist() == [stuck, 1.0] and levels.tolist() == [level, 40]


@pytest.mark.parametrize(
    "device, noisy", [("none", False), ("steps", False), ("pairs", True), ("write noise", True)]
)
def test_devices_without_levels_differ_from_the_array_by_what_reading_adds(device, noisy):
    weights = learn(**DEVICES[device], **{"training.compare_with": []}).weights
    assert (weights["level"] == -1).all()
    differ = weights["w_exact"] != weights["w_stored"]
    # 1/f noise or write noise in every cell; the exact gradient has no devices
    assert (differ == (noisy & (weights["source"] != "exact"))).all()


def test_with_an_average_the_weights_are_the_mean_and_the_devices_hold_the_last():
    average = {"training.average_from": 9, "training.eta": 0.5, "training.compare_with": []}
    weights = learn(**DEVICES["digital"], **average).weights
    chip = weights[weights["source"] == "batch"]
    assert (chip["level"] >= 0).all() and (chip["w_exact"] != chip["w_stored"]).any()
    assert (chip["w_stored"] == -4 + chip["level"] * 8 / 64).all()


def test_weights_are_written_as_csv_on_request(tmp_path):
    run = learn(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*weights.csv"))
    reports.export(tmp_path / "run", "csv", tmp_path / "csv")
    table = pd.read_csv(tmp_path / "csv" / "weights.csv")
    pd.testing.assert_frame_equal(table, run.weights, check_dtype=False)


def test_an_interrupted_training_stores_the_weights_of_its_last_record(tmp_path):
    calls = iter(range(25))
    set = {**QUICK, **DEVICES["digital"], "training.compare_with": []}
    part = sims.run_experiment(
        "xor-learning", set, scratch=tmp_path, should_stop=lambda: next(calls, None) is None
    )
    assert part.provenance["status"] == "partial" and part.learning["update"].max() < 40
    network = part.experiment.network.build()
    objective = network.objective(XOR, (XOR[:, :1] != XOR[:, 1:]).astype(float))
    W = part.weights["w_exact"].to_numpy().reshape(-1, network.n_weights)
    assert [objective.error(w) for w in W] == ends(part).tolist()
    whole = sims.run_experiment("xor-learning", set)
    again = sims.run_experiment("xor-learning", set, scratch=tmp_path)
    pd.testing.assert_frame_equal(again.weights, whole.weights)


def test_a_network_without_layers_says_so():
    run = sims.run_experiment(
        "recurrent-learning", {**QUICK, "training.updates": 2, "training.compare_with": []}
    )
    assert (run.weights["layer"] == 0).all() and run.weights["unit_to"].min() >= 0


# ---- in


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A stored training of three runs: (directory, run)."""
    directory = tmp_path_factory.mktemp("weights") / "run"
    return directory, learn(directory, **DEVICES["digital"])


def starts(run, source="batch"):
    """E of every run of a source at the first record."""
    own = run.learning[(run.learning["source"] == source) & (run.learning["update"] == 0)]
    return own["error"].tolist()


@pytest.mark.parametrize("kind", fast(["npz", "csv", "npy"], "csv"))
def test_a_training_begins_with_the_error_that_another_ended_with(stored, kind, tmp_path):
    directory, run = stored
    path = directory / "weights.npz"
    if kind == "csv":
        reports.export(directory, "csv", tmp_path)
        path = tmp_path / "weights.csv"
    if kind == "npy":
        path = tmp_path / "start.npy"
        np.save(path, np.load(directory / "weights.npz")["w_exact"][:3])
    on = learn(**DEVICES["digital"], **{"weights.file": str(path)})
    assert starts(on) == starts(on, "exact") == starts(on, "slow") == ends(run)[:3].tolist()
    # and after the first update the devices still hold it, but for what that update wrote
    own = learn(**DEVICES["digital"], **{"weights.file": str(path), "training.eta": 1e-9})
    assert ends(own)[:3].tolist() == ends(run)[:3].tolist()
    assert (on.learning["start_seed"] == -1).all()


@pytest.mark.slow
def test_the_run_and_what_learned_it_are_chosen(stored):
    directory, run = stored
    file = {"weights.file": str(directory / "weights.npz")}
    errors = ends(run).reshape(3, 3)  # of batch, slow, exact
    # as they are stored, and as tables call them
    for row, source in (
        (0, "batch"),
        (0, "chip"),
        (0, "chip, plain"),
        (1, "slow"),
        (2, "exact gradient"),
    ):
        assert starts(learn(**file, **{"weights.source": source})) == errors[row].tolist()
    one = learn(**file, **{"weights.source": "slow", "weights.run": 2, "training.runs": 5})
    assert starts(one) == [errors[1, 2]] * 5
    # fewer runs than there are take the first of them
    assert starts(learn(**file, **{"training.runs": 2})) == errors[0, :2].tolist()


def test_a_file_of_one_start_is_that_of_every_run_and_of_every_study(tmp_path):
    w = np.linspace(-1, 1, 9)
    np.savez(tmp_path / "one.npz", w=w)
    pd.DataFrame({"w": w}).to_csv(tmp_path / "one.csv", index=False)
    np.save(tmp_path / "one.npy", w)
    for kind in ("npz", "csv", "npy"):
        file = {"weights.file": str(tmp_path / f"one.{kind}")}
        begun = learn(**file, **{"training.updates": 1}).learning
        assert begun.loc[begun["update"] == 0, "error"].nunique() == 1
        estimated = sims.run_experiment("xor", {**file, "estimation.trials": 16})
        assert (
            estimated.weights.groupby(["method", "code"])["w"]
            .apply(list)
            .map(lambda own: own == w.tolist())
            .all()
        )


def test_a_warm_up_goes_on_from_the_file(tmp_path):
    np.save(tmp_path / "w.npy", np.linspace(-1, 1, 9))
    set = {"weights.file": str(tmp_path / "w.npy"), "weights.warmup_updates": 3}
    problem = prepare(load_experiment("xor", set))
    w = np.linspace(-1, 1, 9)
    for _ in range(3):
        w = w - 0.1 * problem.objective.gradient(w)
    assert np.array_equal(problem.w, w)


def test_the_path_is_relative_to_the_experiment_and_the_contents_are_those_stored(
    stored, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "start.npz").write_bytes((stored[0] / "weights.npz").read_bytes())
    (tmp_path / "there" / "mine.toml").write_text(
        'name = "mine"\nstudy = "training"\n[network]\nlayers = [2, 2, 1]\noutput = "logistic"\n'
        '[data]\nname = "xor"\n[weights]\nfile = "start.npz"\n'
        "[training]\nruns = 2\nupdates = 2\nrecords = 2\n"
    )
    experiment = load_experiment("there/mine.toml")
    assert experiment.weights.file == (tmp_path / "there" / "start.npz").as_posix()
    assert load_experiment("there/mine.toml", {"weights.file": "there/start.npz"}) == experiment
    run = sims.run_experiment("there/mine.toml", out="runs/mine")
    written = tomllib.loads((tmp_path / "runs" / "mine" / "experiment.toml").read_text())
    digest = hashlib.sha256((tmp_path / "there" / "start.npz").read_bytes()).hexdigest()
    assert written["weights"]["file"] == "../../there/start.npz"
    assert written["weights"]["sha256"] == digest
    again = sims.run_experiment("runs/mine/experiment.toml")
    pd.testing.assert_frame_equal(again.learning, run.learning)
    np.savez(tmp_path / "there" / "start.npz", w=np.zeros(9))
    with pytest.raises(InputError, match=r"its contents are not those that weights\.sha256 = "):
        sims.run_experiment("runs/mine/experiment.toml")
    taken = sims.run_experiment("runs/mine/experiment.toml", {"weights.sha256": ""})
    assert taken.learning["error"].iloc[0] != run.learning["error"].iloc[0]


def test_repeats_of_a_sweep_have_the_start_of_the_file(tmp_path):
    np.save(tmp_path / "w.npy", np.linspace(-1, 1, 9))
    set = {"weights.file": str(tmp_path / "w.npy"), "estimation.trials": 16}
    vary = {"estimation.sigma": [0.01, 0.02]}
    sims.run_sweep("xor", vary, repeats=2, out=tmp_path / "sweep", workers=0, set=set)
    cells = reports.load(tmp_path / "sweep").cells
    assert (cells["start_seed"] == -1).all() and cells["die"].nunique() == 2


def refused(tmp_path, name="start.npz", content=None, **set):
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif isinstance(content, dict):
        np.savez(tmp_path / name, **content)
    elif content is not None:
        np.save(tmp_path / name, content)
    file = {"weights.file": str(tmp_path / name)} | {
        f"weights.{key}": value for key, value in set.items()
    }
    with pytest.raises(InputError) as caught:
        learn(**file)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


TWO = np.zeros((2, 9))
NAN = np.array([[0.0] * 9, [0.0] * 4 + [np.nan] + [0.0] * 4, [0.0] * 9])


@pytest.mark.parametrize(
    "name, content, set, message",
    [
        ("none.npz", None, {}, "no such file: give its path, relative to the experiment file"),
        ("w.txt", "0", {}, "must end in .npz, .csv, .npy or .onnx: give a file of such a kind"),
        ("w.npz", {"x": TWO}, {}, "has no array w_exact or w: name that of the weights so, of x"),
        ("w.csv", "a,b\n1,2\n", {}, "has no column w_exact or w: name that of the weights so"),
        ("w.npz", {"w": np.zeros(8)}, {}, "has 8 weights, but the network has 9: give a file of"),
        ("w.csv", "w\n1\n", {}, "has 1 weights, but the network has 9"),
        ("w.csv", "w\n", {}, "holds no rows: add a row for each weight"),
        ("w.csv", "w,w\n1,2\n", {}, "has two columns w: rename one"),
        ("w.csv", "w,index\n1,1\n2,2\n", {}, "index of run 0 must be 0, 1, 2, ..., each of them"),
        ("w.csv", "w,run\n1,a\n", {}, "run must be integers >= 0"),
        ("w.csv", "w\n" + 8 * "1\n" + "a\n", {}, "w[8] = nan must be a finite number"),
        ("w.npz", {"w": NAN}, {}, "run 1: w[4] = nan must be a finite number: did that run"),
        ("w.npz", {"w": TWO}, {}, "has no run 2, but 2, from 0 to 1: lower training.runs, or set"),
        ("w.npz", {"w": TWO}, {"run": 7}, "from 0 to 1: set weights.run to one of them"),
        ("w.npz", {"w": TWO}, {"source": "batch"}, "does not say what learned its weights"),
        (
            "w.npz",
            {"w": TWO, "source": ["batch", "exact"], "run": [0, 0]},
            {"source": "bach"},
            "weights.source = 'bach' is unknown: did you mean batch?",
        ),
        ("w.npz", {"w": TWO, "run": [1, 1]}, {}, "has run 1 of all twice: number the runs"),
        ("w.npz", {"w": TWO, "run": [1]}, {}, "run has shape (1,), but must be (2,)"),
        ("w.npz", {"w": np.array(["a"])}, {}, "of type <U1 and shape (1, 1), but must be numbers"),
        ("w.npy", np.zeros((2, 3, 3)), {}, "shape (2, 3, 3), but must be numbers, (n,) or"),
        ("w.npz", "no archive", {}, "not a whole NPZ file"),
        ("w.npy", "no array", {}, "not a whole NPY file"),
        ("w.npz", {"w": TWO}, {"seed": 3}, "weights.seed = 3 is of random starting weights, but"),
    ],
)
def test_a_mistake_in_a_file_of_weights_is_one_line(name, content, set, message, tmp_path):
    assert message in refused(tmp_path, name, content, **set)


def test_a_diverged_run_does_not_hinder_another_from_being_taken(tmp_path):
    np.savez(tmp_path / "w.npz", w=NAN)
    run = learn(**{"weights.file": str(tmp_path / "w.npz"), "weights.run": 2})
    assert len(set(starts(run))) == 1


@pytest.mark.parametrize("key", ["run", "source", "sha256"])
def test_what_is_of_a_file_needs_one(key):
    value = 0 if key == "run" else "batch"
    with pytest.raises(InputError, match="is of a file of weights: set weights.file too"):
        load_experiment("xor", {f"weights.{key}": value})
