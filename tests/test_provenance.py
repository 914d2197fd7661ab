"""What a run stores is enough to do it again, bit for bit: its experiment, its command, and the
digest of its data.
"""

import json
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from fast import fast

import reports
import sims
from perturb import InputError
from sims.experiment.loading import load_experiment
from sims.sweeps.cell import run_cell
from sims.sweeps.plan import plan_sweep

TIMES = {"wall_time_s", "trials_per_s"}  # of this computer
LEARNING = {"training.updates": 20, "training.runs": 2, "training.records": 4}
RUNS: dict[str, dict] = {
    "xor": {"estimation.trials": 32, "chip.error_unit.noise": 0.01},
    "dag": {"estimation.trials": 32, "run.fidelity": "event"},
    "recurrent": {"estimation.trials": 32},
    "boltzmann": {
        "estimation.trials": 32,
        "estimation.compare_with": [{"method": "central", "code": "sine"}],
    },
    "teacher": {
        "study": "dies",
        "dies.count": 3,
        "chip.preset": "alspector1991",
        "chip.error_unit.noise": 0.002,
    },
    "digits": {
        "study": "budget",
        "data.samples": 5,
        "network.layers": [64, 4, 10],
        "weights.warmup_updates": 2,
    },
    "estimators": {
        "estimation.trials": 32,
        "estimators.repeats": 2,
        "estimators.methods": ["covariance", "central"],
    },
    "finite-difference": {"finite_difference.points": 5},
    "xor-learning": {**LEARNING, "description": 'two words, "quoted" & $HOME'},
    "reram-learning": {
        **LEARNING,
        "training.compare_with": [{"label": "averaged", "trials_per_update": 4}],
    },
    "curvature-helps": {
        **LEARNING,
        "training.source": "event",
        "training.rule": "plain",
        "training.compare_with": [],
        "chip.weights.device": "capacitor-li2018",
    },
}


def numbers(directory):
    """{table: frame} without this computer's times."""
    tables = {path.stem: pd.read_parquet(path) for path in Path(directory).glob("*.parquet")}
    return {name: table.drop(columns=TIMES & set(table)) for name, table in tables.items()}


def differ(a, b):
    """Names of the tables that are not the same to the last bit."""
    assert a.keys() == b.keys() and "summary" in a
    return {name for name in a if not a[name].equals(b[name])}


@pytest.mark.parametrize("name", fast(RUNS, "finite-difference"))
def test_the_stored_experiment_and_command_give_the_same_numbers_wherever_they_are(
    name, command, tmp_path, monkeypatch
):
    run = sims.run_experiment(name, RUNS[name], out="run")
    first, again = (
        numbers("run"),
        shlex.split(json.loads(Path("run/provenance.json").read_text())["command"]),
    )
    assert again[0] == "perturb" and command(*again[1:], "--out", "by command")[0] == 0
    assert not differ(first, numbers("by command"))

    Path("elsewhere/deep").mkdir(parents=True)
    shutil.move("run", "elsewhere/moved")
    monkeypatch.chdir("elsewhere/deep")
    status, _, err = command("run", "../moved/experiment.toml", "--out", tmp_path / "again")
    assert (status, err) == (0, "") and not differ(first, numbers(tmp_path / "again"))
    assert reports.load("../moved").experiment == reports.load(tmp_path / "again").experiment

    if run.experiment.study not in ("budget", "finite-difference"):  # which draw nothing
        sims.run_experiment("../moved/experiment.toml", seed=7, out="other")
        assert differ(first, numbers("other"))


def test_a_cell_of_a_sweep_is_what_its_command_gives(command):
    plan = plan_sweep(
        "xor",
        {"estimation.trials": 32},
        {"vary": {"chip.error_unit.noise": [1e-3, 1e-2]}, "repeats": 2},
    )
    outcome = run_cell(plan.experiment(plan.row(3)), keep=False)
    words = [
        "--set",
        "estimation.trials=32",
        "--set",
        "chip.error_unit.noise=0.01",
        "--seed",
        str(plan.row(3).seed),
    ]
    assert command("run", "xor", *words)[0] == 0
    assert not differ(
        {
            "summary": (
                pd.DataFrame(json.loads(outcome.rows)).drop(
                    columns=TIMES & set(json.loads(outcome.rows))
                )
            )
        },
        {"summary": numbers("runs/xor")["summary"]},
    )


# ---- files of the user's own

DATA = "a,b,kind\n1,2,x\n3,4,y\n5,6,z\n2,2,x\n"
MINE = (
    'name = "mine"\nnetwork.layers = [2, 3]\n[data]\nname = "file"\nfile = "data/mine.csv"\ntargets'
    ' = "kind"\n'
)
CHIP = 'name = "mine"\nerror_unit.noise = 0.01\nweights.device = "device.toml"\n'
QUICK = {"estimation.trials": 16}


@pytest.fixture
def mine(command):
    """An experiment, with a chip, a device and data, in files of their own; in the current
    folder.
    """
    Path("project/data").mkdir(parents=True)
    Path("project/data/mine.csv").write_text(DATA)
    Path("project/device.toml").write_text('name = "mine"\nmodel = "digital"\nbits = 5\n')
    Path("project/chip.toml").write_text(CHIP)
    Path("project/mine.toml").write_text(MINE + '[chip]\npreset = "chip.toml"\n')
    return Path("project/mine.toml")


def test_chip_and_device_are_in_the_stored_experiment_and_data_are_beside_it(mine, command):
    sims.run_experiment(mine, QUICK, out="project/runs/first")
    first = numbers("project/runs/first")
    Path("project/chip.toml").unlink()
    Path("project/device.toml").unlink()
    shutil.move("project", "moved")  # with the data
    assert command("run", "moved/runs/first/experiment.toml", "--out", "again")[0] == 0
    assert not differ(first, numbers("again"))

    shutil.move("moved/runs/first", "alone")  # without them
    status, _, err = command("run", "alone/experiment.toml")
    assert status == 2 and "mine.csv: no such file" in err and err.count("\n") == 1
    assert (
        command(
            "run",
            "alone/experiment.toml",
            "--set",
            "data.file=moved/data/mine.csv",
            "--out",
            "found",
        )[0]
        == 0
    )
    assert not differ(first, numbers("found"))


def test_data_that_have_changed_are_refused_by_the_stored_experiment_and_may_be_accepted(
    mine, command
):
    sims.run_experiment(mine, QUICK, out="first")
    Path("project/data/mine.csv").write_text(DATA.replace("6", "7"))
    status, _, err = command("run", "first/experiment.toml")
    assert (
        status == 2
        and "its contents are not those that data.sha256" in err
        and err.count("\n") == 1
    )
    assert (
        command("run", "first/experiment.toml", "--set", "data.sha256=", "--out", "second")[0] == 0
    )
    assert "summary" in differ(numbers("first"), numbers("second"))
    sims.run_experiment("second/experiment.toml", out="third")
    assert not differ(numbers("second"), numbers("third"))


def test_a_training_goes_on_with_the_data_it_was_begun_with_only(mine):
    learning = {"study": "training", **LEARNING, "training.control": False, "chip.preset": "ideal"}
    questions = iter([False] * 8 + [True] * 99)
    begun = sims.run_experiment(mine, learning, scratch="kept", should_stop=lambda: next(questions))
    assert begun.provenance["status"] == "partial" and list(Path("kept").glob(".mine-*"))
    Path("project/data/mine.csv").write_text(DATA.replace("6", "7"))
    changed = sims.run_experiment(mine, learning, scratch="kept").tables["learning"]
    assert changed.equals(sims.run_experiment(mine, learning).tables["learning"])  # from the start
    Path("project/data/mine.csv").write_text(DATA)
    went_on = sims.run_experiment(mine, learning, scratch="kept").tables["learning"]
    assert went_on.equals(
        sims.run_experiment(mine, learning).tables["learning"]
    ) and not went_on.equals(changed)


@pytest.mark.slow
def test_a_training_whose_kept_state_is_damaged_begins_anew(command):
    learning = {**LEARNING, "training.control": False}
    whole, questions = (
        sims.run_experiment("xor-learning", learning).tables["learning"],
        iter([False] * 8 + [True] * 99),
    )
    sims.run_experiment(
        "xor-learning", learning, scratch="kept", should_stop=lambda: next(questions)
    )
    (kept,) = Path("kept").glob(".xor-learning-*")
    content = kept.read_bytes()
    listed = content.index(
        b"PK\1\2"
    )  # where the archive lists its members: their compression and names are there
    for place in (0, 40, listed // 2, listed + 10, listed + 46, len(content) - 12):
        kept.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert (
            sims.run_experiment("xor-learning", learning, scratch="kept")
            .tables["learning"]
            .equals(whole)
        )
    kept.write_bytes(content[:-50])
    assert (
        sims.run_experiment("xor-learning", learning, scratch="kept")
        .tables["learning"]
        .equals(whole)
    )


def test_a_sweep_goes_on_with_the_data_it_was_begun_with_only(mine):
    vary = {"estimation.sigma": [0.01, 0.02]}
    sims.run_sweep(mine, vary, out="sweep", workers=0, set=QUICK)
    Path("project/data/mine.csv").write_text(DATA.replace("6", "7"))
    with pytest.raises(
        InputError,
        match="data.sha256 of the experiment was .* when this sweep was begun and is .* now",
    ):
        sims.run_sweep(mine, vary, out="sweep", workers=0, set=QUICK)


def test_a_cell_that_begins_after_the_data_have_changed_fails(mine):
    plan = plan_sweep(mine, QUICK, {"repeats": 2})
    Path("project/data/mine.csv").write_text(DATA.replace("6", "7"))
    outcome = run_cell(plan.experiment(plan.row(1)), keep=False)
    assert outcome.status == "failed" and "its contents are not those" in outcome.error
    each = plan_sweep(mine, QUICK, {"vary": {"data.file": ["project/data/mine.csv"]}})
    assert each.experiment(each.row(0)).data.sha256 == load_experiment(mine).data.sha256
