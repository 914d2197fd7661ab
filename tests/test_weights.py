"""Weights in and out of a training: what is stored of them, and starting from what was stored."""

import numpy as np
import pandas as pd
import pytest

import reports
import sims

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


@pytest.mark.parametrize("device", DEVICES)
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


@pytest.mark.parametrize("device", ["digital", "events", "late writes"])
def test_levels_decode_to_the_stored_weights_which_the_array_computes_with(device):
    weights = learn(**DEVICES[device]).weights
    chip = weights[weights["source"] != "exact"]
    # 2^6 levels from -4 on
    assert chip["level"].between(0, 63).all() and chip["level"].nunique() > 5
    assert (chip["w_stored"] == -4 + chip["level"] * 8 / 64).all()
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
    pd.testing.assert_frame_equal(table, run.weights)


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
