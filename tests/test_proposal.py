"""`perturb new` for data, a chip and a device of one's own, and the way on to a decision."""

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hardware
import sims
from perturb.errors import InputError
from sims.proposal.columns import choose_columns

README = (Path(__file__).parents[1] / "sims" / "README.md").read_text(encoding="utf-8")
WALK = re.search(r"## From your data and your chip.*?(?=\n## )", README, re.S)[0]
CODE = [line[4:] for line in WALK.splitlines() if line.startswith("    ")]
COMMANDS = [shlex.split(line)[1:] for line in CODE if line.startswith("perturb ")]
CHIP = "\n".join(line for line in CODE if not line.startswith("perturb "))
# instead of what is proposed
# of fewer runs, 16 repeats could not tell 0.9
SMALL = {"updates": 20, "runs": 4, "stop_every": 10, "trials_per_update": 4}


def sensors(rows=60, path="sensors.csv"):
    """Three states that three sensors tell apart well, and a number of the sample."""
    rng = np.random.default_rng(0)
    state = np.arange(rows) % 3
    values = np.eye(3)[state] * 4 + rng.standard_normal((rows, 3))
    frame = pd.DataFrame(values.round(3), columns=["pressure", "flow", "temperature"])
    frame.insert(0, "sample", np.arange(rows) + 1)
    frame["state"] = np.array(["open", "blocked", "leaking"])[state]
    frame.to_csv(path, index=False)


def pulses(path="pulses.csv"):
    """A device of 40 nearly constant steps up and down."""
    rng = np.random.default_rng(0)
    lines, g = ["pulse,direction,conductance_us", "0,0,10"], 10.0
    for pulse in range(1, 161):
        up = (pulse - 1) // 40 % 2 == 0
        g += 0.05 * (1 if up else -1) * (1 + 0.02 * rng.standard_normal())
        lines.append(f"{pulse},{'up' if up else 'down'},{g + 0.001 * rng.standard_normal():.4f}")
    Path(path).write_text("\n".join(lines) + "\n")


def frame(**columns):
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    "table, targets, ignored, because",
    [
        (
            frame(id=[7, 9, 3, 4], a=[0.1, 0.5, 0.2, 0.3], kind=["x", "y", "x", "y"]),
            "kind",
            {"id": "numbers the rows"},
            "its cells are names",
        ),
        (
            frame(t=[1, 2, 3, 4], a=[0.1, 0.5, 0.2, 0.3], b=[4.0, 4.0, 4.0, 4.0], y=[1.5, 2, 0, 3]),
            ("y",),
            {"t": "numbers the rows", "b": "is the same in every row"},
            "it holds 4 different numbers",
        ),
        (
            frame(name=["p", "q", "r", "s"] * 3, label=[0, 1] * 6, a=np.arange(12) ** 2),
            "label",
            {"name": "holds texts, not numbers"},
            "its numbers are 2 different integers",
        ),
        # what counts is an input where there is no other
        (frame(t=[1, 2, 3, 4], y=[0.1, 0.4, 0.2, 0.7]), ("y",), {}, "it holds 4 different numbers"),
        # a column without a name, as pandas writes an index
        (
            pd.DataFrame({"": [0, 1, 2, 3], "a": [3.0, 1.0, 2.0, 5.0], "b": [1.0, 0.5, 2.0, 2.5]}),
            ("b",),
            {"": "numbers the rows"},
            "it holds 4 different numbers",
        ),
    ],
)
def test_columns_are_target_inputs_or_neither(table, targets, ignored, because):
    found = choose_columns(table, (), None)
    assert (found.targets, found.ignored, found.because) == (targets, ignored, because)
    named = {targets} if isinstance(targets, str) else set(targets)
    assert set(found.inputs) == set(table.columns) - set(ignored) - named


def test_an_input_that_hardly_varies_is_named(command):
    sensors()
    table = pd.read_csv("sensors.csv")
    # of a few steps of a converter, and of a single other value
    table.insert(2, "supply", 24 + 0.02 * (np.arange(len(table)) % 2))
    table.insert(2, "valve", (np.arange(len(table)) == 7).astype(float))
    table.to_csv("sensors.csv", index=False)
    status, out, _ = command("new", "mine.toml", "--data", "sensors.csv")
    assert status == 0 and "Hardly varying, and an input: valve, supply." in out
    sensors()
    assert "Hardly" not in command("new", "other.toml", "--data", "sensors.csv")[1]


def test_the_target_may_be_named_and_what_it_is_said():
    table = frame(a=[1.0, 2.5, 1.0, 0.5] * 5, b=[2, 1, 3, 3] * 5, c=[0.2, 0.4, 0.6, 0.8] * 5)
    assert choose_columns(table, (), None).targets == ("c",)
    assert choose_columns(table, ["b"], None).targets == "b"
    assert choose_columns(table, ["b"], "numbers").targets == ("b",)
    assert choose_columns(table, ["b", "c"], None).targets == ("b", "c")
    with pytest.raises(InputError, match="--target d: no such column: name one of a, b, c"):
        choose_columns(table, ["d"], None)
    with pytest.raises(InputError, match="give one --target"):
        choose_columns(table, ["b", "c"], "classes")
    with pytest.raises(InputError, match="no column of numbers is left as an input"):
        choose_columns(frame(a=["x", "y"], b=[1, 2]), ["b"], None)


def small(path="mine.toml"):
    text = Path(path).read_text()
    for key, value in SMALL.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
    Path(path).write_text(text)


def test_an_experiment_for_data_and_a_chip_of_ones_own_runs_as_it_is_written(command):
    sensors()
    Path("chips").mkdir()
    Path("chips/mychip.toml").write_text(CHIP)
    Path("lab").mkdir()
    words = ("--data", "sensors.csv", "--chip", "chips/mychip.toml", "--device", "ecram-tang2018")
    status, out, err = command("new", "lab/mine.toml", *words)
    assert status == 0 and err == ""
    assert "Target: state, the only column of names of classes: classes (blocked 20," in out
    assert "Left out (data.ignore): sample numbers the rows." in out
    assert "Next: perturb run lab/mine.toml" in out
    said = tomllib.loads(Path("lab/mine.toml").read_text())
    assert said["chip"] == {
        "preset": "../chips/mychip.toml",
        "weights": {"device": "ecram-tang2018"},
    }
    assert said["data"]["file"] == "../sensors.csv" and said["data"]["ignore"] == ["sample"]
    experiment = sims.load_experiment("lab/mine.toml")
    assert experiment.network.layers == (3, 8, 3) and experiment.chip.error_unit.bits == 8
    small("lab/mine.toml")
    # devices take long to compile
    status, out, _ = command("run", "lab/mine.toml", "--set", "chip.weights.device=ideal")
    assert status == 0 and "test accuracy >= 0.83" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (("--data", "none.csv"), "--data none.csv: no such file"),
        (("--chip", "none.toml"), "none.toml: no chip of that name and no such file"),
        (("--data", "sensors.csv", "--target", "flo"), "--target flo: no such column"),
        (("--target", "flow"), "are of a table: give it by --data"),
        (("--data", "sensors.csv", "--as", "class"), "did you mean classes?"),
        (("--data", "sensors.csv", "--target", "sample", "--as", "classes"), "needs several rows"),
        (("--data", "still.csv", "--target", "load"), "load: is the same in every row"),
        (
            ("--data", "gap.csv"),
            "line 4 (the header is line 1): flow is empty, but must be a number",
        ),
    ],
)
def test_what_cannot_be_proposed_is_one_line(command, words, message):
    sensors(30)
    gap = pd.read_csv("sensors.csv")
    gap.loc[2, "flow"] = np.nan
    gap.to_csv("gap.csv", index=False)
    pd.read_csv("sensors.csv").assign(load=1.0).to_csv("still.csv", index=False)
    status, _, err = command("new", "mine.toml", *words)
    assert status == 2 and message in err and err.count("\n") == 1
    assert not Path("mine.toml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_what_is_proposed_learns_ordinary_data(name, command):
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")(as_frame=True)
    found.frame.to_csv("mine.csv")
    assert command("new", "mine.toml", "--data", "mine.csv")[0] == 0
    run = sims.run_experiment("mine.toml", {"training.control": False, "training.runs": 3})
    solved = run.summary[run.summary["measure"] == "solved"]
    assert float(solved["value"].iloc[0]) == 1.0


@pytest.mark.slow
def test_the_way_from_data_and_a_chip_to_a_decision(command):
    sensors(), pulses()
    Path("mychip.toml").write_text(CHIP)
    assert [words[0] for words in COMMANDS] == [
        "fit-device",
        "new",
        "run",
        "report",
        "ablate",
        "dies",
        "require",
        "report",
        "run",
        "compare",
        "dies",
    ]
    for words in COMMANDS:
        status, out, err = command(*words)
        assert status == 0, (words, err)
        if words[0] == "new":
            small()
        if words[0] == "compare":
            assert "runs/cheaper" in out
    assert "solve at least 100% of the starts" in out


def test_a_chip_or_a_device_is_told_from_an_experiment(command):
    Path("mychip.toml").write_text(CHIP)
    Path("mydevice.toml").write_text('name = "d"\nmodel = "constant-step"\n')
    for kind, key in (("chip", "chip.preset"), ("device", "chip.weights.device")):
        for words in (("run",), ("run", "--set", "run.seed=1"), ("ablate",)):
            status, _, err = command(*words[:1], f"my{kind}.toml", *words[1:])
            assert status == 2 and f"is the file of a {kind}, not an experiment" in err
            assert f"perturb new mine.toml --{kind} my{kind}.toml" in err
            assert f"--set {key}=my{kind}.toml" in err


def test_a_chip_is_told_by_what_it_has(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mychip.toml").write_text(CHIP)
    # without a name it is called as its file
    Path("other.toml").write_text('[weights]\ndevice = "cells.toml"\n')
    Path("cells.toml").write_text('model = "constant-step"\n[step]\ndw_min = 0.01\n')
    Path("timing.toml").write_text("[bus]\nlatency_ns = 1\n")
    for chip, says in (
        (
            "mychip.toml",
            "Chip: mychip. Imperfections: perturbation.gain_mismatch = 0.1, error_unit.noise ="
            " 0.005, error_unit.bits = 8.",
        ),
        ("other.toml", 'Chip: other. Imperfections: weights.device = "cells".'),
        ("timing.toml", "Chip: timing. Imperfections: none."),
        ("ideal", "Chip: ideal, no noise, mismatch or rounding; times and energies nominal and"),
    ):
        status, out, err = command("new", f"with-{Path(chip).stem}.toml", "--chip", chip)
        assert status == 0 and says in " ".join((out + err).split()), out + err
    assert hardware.load_device("cells.toml").name == "cells"
    status, out, err = command("new", "mine.toml", "--device", "cells.toml")
    assert "Weights in devices: cells." in out + err


def test_a_chip_is_no_device_and_a_device_no_chip(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("chip.toml").write_text(CHIP)
    Path("device.toml").write_text('model = "constant-step"\n[step]\ndw_min = 0.01\n')
    for option, file, what in (
        ("--device", "chip.toml", "is the file of a chip, not of a device"),
        ("--chip", "device.toml", "is the file of a device, not of a chip"),
    ):
        status, _, err = command("new", "mine.toml", option, file)
        assert status == 2 and f"{file}: {what}" in err and err.count("\n") == 1
        other = {"--device": "--chip", "--chip": "--device"}[option]
        assert f"perturb new {other}, takes it" in err


@pytest.mark.parametrize("other", ["Open", "ajar"])
def test_classes_that_differ_in_case_alone_are_a_warning(command, tmp_path, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    sensors()
    table = pd.read_csv("sensors.csv")
    table.loc[table.index[::9], "state"] = other
    table.to_csv("sensors.csv", index=False)
    status, out, _ = command("new", "mine.toml", "--data", "sensors.csv")
    assert status == 0
    assert ("Warning: classes Open and open differ only in case" in out) == (other == "Open")
