"""Learning on a chip at the other end of a link: `perturb drive` and `perturb serve`."""

import contextlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from linked import by_tcp

import reports
import sims
from perturb import InputError
from sims.experiment.loading import load_experiment
from sims.studies.emulated import responder_of

SET = {"study": "drive", "training.updates": 60, "drive.look_every": 20}


def by_source(run):
    return {source: rows for source, rows in run.log.groupby("source")}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"drive.by_itself": False, "drive.window": 8},
        {"drive.run": 2, "training.batch": 2, "training.rule": "momentum", "training.eta": 0.05},
        {"chip.error_unit.noise": 0.01, "chip.perturbation.gain_mismatch": 0.05},
    ],
)
def test_the_chip_does_what_the_emulator_predicts_where_it_is_the_emulated_one(changes):
    run = sims.run_experiment("xor-learning", SET | changes)
    looks = by_source(run)
    noise = 0.0 if "chip.error_unit.noise" in changes else 1.0
    np.testing.assert_array_equal(looks["chip"]["update"], [0, 20, 40, 60])
    # E of the emulated run is exact, that of the chip is measured: four patterns, 0.01 each
    np.testing.assert_allclose(
        looks["chip"]["error"], looks["emulated"]["error"], atol=1e-6 if noise else 0.025, rtol=0
    )
    assert len(run.incidents) == 0


def test_over_tcp_and_reported(tmp_path):
    address = by_tcp(responder_of(load_experiment("xor-learning")))
    out = tmp_path / "out"
    run = sims.run_experiment("xor-learning", SET | {"drive.link": address}, out=out)
    here = sims.run_experiment("xor-learning", SET)
    np.testing.assert_array_equal(run.set_weights["w"], here.set_weights["w"])
    assert reports.load(out).log["source"].tolist() == ["emulated"] * 4 + ["chip"] * 4
    assert not (out / "unfinished").exists()


def test_bounds_are_kept_and_what_met_them_is_an_incident():
    run = sims.run_experiment("xor-learning", SET | {"drive.low": -0.5, "drive.high": 0.5})
    assert run.incidents["kind"].tolist() == ["weight beyond its bounds"]
    assert (run.incidents["count"] > 20).all() and (run.incidents["worst"] > 0.1).all()


def test_another_experiment_may_be_the_chip():
    run = sims.run_experiment("xor-learning", SET | {"drive.link": "sim:xor-learning"})
    assert len(by_source(run)["chip"]) == 4
    with pytest.raises(InputError, match="the chip has .* weights, but 9 are to be set"):
        sims.run_experiment("xor-learning", SET | {"drive.link": "sim:digits"})
    for options in ({"training.layers": [1]}, {"training.patience": 2}):
        with pytest.raises(InputError, match="emulated chips|is not for a chip"):
            sims.run_experiment("xor-learning", SET | options)


def test_a_goal_ends_it():
    run = sims.run_experiment("xor-learning", SET | {"drive.goal": 0.2})
    assert by_source(run)["chip"]["update"].tolist() == [0]


def test_interrupted_it_goes_on_to_the_same_weights(tmp_path):
    whole = sims.run_experiment("xor-learning", SET)
    asked = iter(range(10**9))
    part = sims.run_experiment(
        "xor-learning", SET, out=tmp_path / "out", should_stop=lambda: next(asked) > 60
    )
    assert part.provenance["status"] == "partial"
    assert 0 < by_source(part)["chip"]["update"].max() < 60
    # another plan is another run; the chip may be elsewhere
    with pytest.raises(InputError, match="an unfinished run of another experiment"):
        sims.run_experiment("xor-learning", SET | {"training.eta": 0.1}, out=tmp_path / "out")
    address = by_tcp(responder_of(load_experiment("xor-learning")))
    again = sims.run_experiment(
        "xor-learning", SET | {"drive.link": address, "drive.window": 2}, out=tmp_path / "out"
    )
    np.testing.assert_array_equal(again.set_weights["w"], whole.set_weights["w"])
    assert by_source(again)["chip"]["update"].max() == 60


@pytest.mark.parametrize(
    "words, said",
    [
        (("drive", "xor-learning", "--link", "nonsense"), "link = 'nonsense' is unknown"),
        (("drive", "xor-learning", "--link", "tcp://192.0.2.1:5732"), "is not this machine"),
        (("drive", "xor-learning", "--link", "sim:nonsense"), "no experiment of that name"),
        (("drive", "xor-learning", "--set", "drive.low=2", "--set", "drive.high=1"), "low = 2.0"),
        (("serve", "xor-learning", "--link", "serial:/dev/tty"), "must be tcp://HOST:PORT, or"),
        (("serve", "xor-learning", "--link", "tcp://0.0.0.0:5732"), "is not this machine"),
        (("serve", "xor-learning", "--link", "tcp://127.0.0.1"), "must be tcp://HOST:PORT, such"),
        (
            (
                "serve",
                "nonsense",
            ),
            "no experiment of that name",
        ),
    ],
)
def test_a_mistake_ends_in_one_line(command, words, said):
    status, out, err = command(*words)
    assert status == 2 and said in err and err.count("\n") == 1 and out == ""


def test_perturb_drive_learns_or_estimates_as_the_experiment_does(command):
    few = ("--set", "training.updates=30", "--set", "estimation.trials=16", "-q")
    for name, table in (("xor-learning", "set_weights"), ("xor", "estimates")):
        status, out, _ = command("drive", name, *few)
        assert status == 0 and table in reports.load(out.strip()).tables


ESTIMATES = {"study": "drive-estimates", "estimation.trials": 200, "estimation.sigma": 0.05}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"estimation.method": "central", "drive.by_itself": False, "drive.window": 4},
        {"chip.error_unit.noise": 0.001, "chip.perturbation.gain_mismatch": 0.05},
    ],
)
def test_estimates_are_those_of_the_emulated_chip(changes):
    run = sims.run_experiment("xor", ESTIMATES | changes)
    table = run.estimates
    np.testing.assert_allclose(table["chip"], table["emulated"], rtol=1e-6, atol=1e-6)
    near = table[table["quantity"] == "gradient"]
    assert np.corrcoef(near["chip"], near["exact"])[0, 1] > 0.95
    central = changes.get("estimation.method") == "central"
    assert set(table["quantity"]) == ({"gradient"} if central else {"gradient", "hv"})
    with pytest.raises(InputError, match='presentation = "pattern" is for emulated chips'):
        sims.run_experiment("xor", ESTIMATES | {"estimation.presentation": "pattern"})


def test_interrupted_estimates_go_on_to_the_same_numbers(tmp_path):
    whole = sims.run_experiment("xor", ESTIMATES)
    asked = iter(range(10**9))
    part = sims.run_experiment(
        "xor", ESTIMATES, out=tmp_path / "out", should_stop=lambda: next(asked) > 300
    )
    assert part.provenance["status"] == "partial"
    again = sims.run_experiment("xor", ESTIMATES, out=tmp_path / "out")
    np.testing.assert_array_equal(again.estimates["chip"], whole.estimates["chip"])
    log = whole.log["error"]
    assert len(log) == 3 and whole.summary.set_index("measure").loc["drift", "value"] == 0
    # 800 of the trials, and those of the log: nothing that was told is measured again
    measured = [
        run.summary.set_index("measure").loc["evaluations", "value"] for run in (part, again, whole)
    ]
    assert measured[2] == 803 and 803 <= measured[0] + measured[1] <= 803 + 2 * 3


# ---- processes that are killed


def started(*words, cwd):
    command = [sys.executable, "-m", "perturb", *words]
    # a file: nobody reads a pipe meanwhile
    with open(cwd / "stderr.txt", "a") as said:
        return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=said, text=True)


def newest(folder):
    """When a state was stored last, in ns; 0 if there is none."""
    stored = 0
    # what is written whole is renamed, and goes in the end
    with contextlib.suppress(FileNotFoundError):
        stored = max((file.stat().st_mtime_ns for file in folder.glob("*.npz")), default=0)
    return stored


def served(cwd, port=0):
    process = started("serve", "xor-learning", "--link", f"tcp://127.0.0.1:{port}", "-q", cwd=cwd)
    return process, process.stdout.readline().strip()


@pytest.mark.slow
def test_either_side_killed_at_any_moment_it_ends_the_same(tmp_path):
    rng = np.random.default_rng(0)
    changes = SET | {"training.updates": 3000, "drive.look_every": 500}
    whole = sims.run_experiment("xor-learning", changes)
    chip, address = served(tmp_path)
    sets = [f"--set={key}={value}" for key, value in changes.items() if key != "study"]
    words = ["drive", "xor-learning", "--link", address, *sets, "--out", "out", "-q"]
    unfinished = tmp_path / "out" / "unfinished"
    kills = 0
    try:
        # the host is killed twice, then the chip
        for victim in ("host", "host", "chip", None):
            since = time.time_ns()
            host = started(*words, cwd=tmp_path)
            # something new has been stored, and some moments more
            while victim and host.poll() is None and newest(unfinished) < since:
                time.sleep(0.02)
            time.sleep(float(rng.uniform(0, 1)) if victim else 0.0)
            if victim == "host" and host.poll() is None:
                host.send_signal(signal.SIGKILL)
                host.wait()
                kills += 1
                continue
            if victim == "chip":
                # the host waits for another one at the same address
                chip.kill()
                chip.wait()
                chip, _ = served(tmp_path, int(address.rpartition(":")[2]))
            host.communicate(timeout=300)
            break
    finally:
        chip.kill()
        chip.wait()
    assert host.returncode == 0 and kills == 2, (tmp_path / "stderr.txt").read_text()
    stored = reports.load(tmp_path / "out")
    np.testing.assert_array_equal(stored.set_weights["w"], whole.set_weights["w"])


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path):
    chip, address = served(tmp_path)
    words = ["drive", "xor-learning", "--link", address, "--out", "out", "-q"]
    try:
        host = started(*words, cwd=tmp_path)
        unfinished = tmp_path / "out" / "unfinished"
        for _ in range(600):
            if list(unfinished.glob("*.json")):
                break
            time.sleep(0.1)
        host.send_signal(signal.SIGINT)
        host.communicate(timeout=60)
        assert host.returncode == 130 and list(unfinished.glob("*.npz"))
    finally:
        chip.send_signal(signal.SIGINT)
        chip.wait(10)
    assert chip.returncode == 130
