"""Habits of the command line: version, quiet, JSON, progress without a terminal, logs."""

import io
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fast import fast
from rich.console import Console

import hardware
import perturb
import reports
import sims
from reports.columns import Table, named
from reports.formats import ErrorBar, joules, seconds
from reports.json_text import json_text
from reports.studies.facts import FACTS
from reports.table import print_tables
from sims.completion import LISTS, NAMES
from sims.studies import STUDIES
from sims.terminal import EVERY_S, Bars

QUICK = ("--set", "estimation.trials=16")


def test_the_version_is_that_of_the_distribution_everywhere(command):
    assert perturb.__version__ == version("perturb")
    assert command("--version") == (0, f"perturb {version('perturb')}\n", "")


@pytest.mark.slow
def test_python_m_perturb_is_the_command(tmp_path):
    for words in (["--version"], ["list", "codes"], ["run", "nix"]):
        ends = [
            subprocess.run(
                [sys.executable, "-m", module, *words],
                capture_output=True,
                text=True,
                cwd=tmp_path,
            )
            for module in ("perturb", "sims.cli")
        ]
        assert len({(end.returncode, end.stdout, end.stderr) for end in ends}) == 1


def test_quiet_prints_the_directory_alone_and_warnings_beside_it(command):
    status, out, err = command("run", "xor", *QUICK, "--quiet")
    assert (status, out) == (0, "runs/xor\n")
    lines = err.splitlines()
    frames = reports.load("runs/xor")
    assert lines == [f"perturb: {text}" for text in frames.view.warnings(frames)] and lines
    # as words of another command
    assert command("report", out.strip(), "--format", "md")[0] == 0
    status, out, _ = command("sweep", "xor", *QUICK, "--repeats", 2, "--workers", 0, "-q")
    assert (status, out) == (0, "runs/xor-sweep\n")


def test_quiet_sweeps_say_nothing_of_their_cells(command, quick):
    loud = command("sweep", "xor", "--repeats", 2, "--workers", 0, "--out", "loud")
    assert loud[2].count(": cell ") == 2
    status, out, err = command("sweep", "xor", "--repeats", 2, "--workers", 0, "-q")
    assert (status, out, err) == (0, "runs/xor-sweep\n", "")


def test_mistakes_are_said_however_quiet(command):
    status, out, err = command("run", "nix", "--quiet", "--json")
    assert status == 2 and out == "" and err.startswith("perturb: nix: no experiment of that name")


def one_document(text):
    """What a strict reader makes of it."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_of_a_run_has_the_numbers_of_its_summary_and_compare_prints_it_again(command):
    status, out, err = command("run", "xor", *QUICK, "--json")
    found = one_document(out)
    assert (status, err, found["status"], found["directory"]) == (0, "", "complete", "runs/xor")
    frames = reports.load("runs/xor")
    gradient, hv, *_ = found["tables"]
    # the order of a terminal; every digit of what is stored
    for quantity, table in (("hv", hv), ("gradient", gradient)):
        stored = {f"{row.method}/{row.code}": row for row in frames.of(quantity).itertuples()}
        assert {row["name"] for row in table["rows"]} == set(stored)
        for row in table["rows"]:
            own = stored[row["name"]]
            for name in ("cosine", "relative_error", "rms_stderr"):
                value = getattr(own, name)
                assert row[name] == (None if math.isnan(value) else value)
        assert table["columns"]["cosine"]["meaning"] == frames.columns["summary"]["cosine"]
    assert found["warnings"] == frames.view.warnings(frames)
    assert one_document(command("compare", "runs/xor", "--json")[1]) == found


def test_json_of_facts_is_a_row_each_of_name_value_error_and_unit(command):
    status, out, _ = command("budget", "xor", "--json")
    facts = one_document(out)["tables"][0]
    assert status == 0 and list(facts["columns"]) == list(FACTS)
    summary = reports.load("runs/xor-budget").summary
    assert len(facts["rows"]) == len(summary)
    for row, (_, stored) in zip(facts["rows"], summary.iterrows(), strict=True):
        assert list(row) == list(FACTS)
        for name in FACTS:
            value = stored[name]
            unknown = isinstance(value, float) and not math.isfinite(value)
            assert unknown or (row[name] == value and type(row[name]) in (str, float))


def test_json_of_a_training_has_units_and_calls_a_standard_deviation_so(command):
    small = ("--set", "training.updates=20", "--set", "training.runs=3")
    found = one_document(command("run", "xor-learning", *small, "--json")[1])
    soon, well, *_ = found["tables"]
    units = {name: column["unit"] for name, column in soon["columns"].items()}
    assert units["chip_time_to_goal"] == "s" and units["energy_to_goal"] == "J"
    facts = reports.load("runs/xor-learning").summary
    facts = facts[facts["subject"] == "batch"].set_index("measure")["value"]
    chip = well["rows"][0]
    assert chip["source"] == "chip, plain" and "standard deviation" in well["note"]
    assert chip["error"] == {"value": facts["error"], "sd": facts["error_sd"]}


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_terminal_of_any_width_shows_every_number_of_a_table(width):
    names = [f"measure {i}" for i in range(9)]
    rows = [[f"bearing fault {i}", *(f"{i}.{j}25 +- 0.01" for j in range(9))] for i in range(3)]
    frame = pd.DataFrame(rows, columns=["class", *names])
    columns = {name: named(name) for name in frame}
    table = Table("Each class", "", frame, columns)
    wide = Table("A word", "", frame.assign(**{"class": "x" * 300}), columns)
    printed = io.StringIO()
    print_tables([table, wide], Console(file=printed, width=width))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width and "…" not in printed.getvalue()
    for text in sum((row[1:] for row in rows), []):
        assert sum(text in line for line in lines) == 2


def test_facts_are_printed_with_units_and_never_is_not_unknown(command):
    # as published, the estimate of z never gets there
    out = command("budget", "xor", "--set", "estimation.method=pearlmutter")[1]
    lines = {name: rest for name, _, rest in (line.partition("  ") for line in out.splitlines())}
    summary = reports.load("runs/xor-budget").summary
    value = summary.set_index(["subject", "measure"])["value"]
    assert lines["trial time"].strip() == seconds(value["", "trial_time"])
    assert lines["gradient: energy"].strip() == joules(value["gradient", "energy"])
    assert [lines[f"z = Hv: {of}"].strip() for of in ("trials", "chip time")] == ["inf", "inf"]


def test_json_of_two_results_has_a_and_b_and_their_difference(command):
    for seed, out in ((0, "a"), (1, "b")):
        command("budget", "xor", "--set", f"run.seed={seed}", "--out", out, "-q")
    status, out, err = command("compare", "a", "b", "--json")
    found = one_document(out)
    assert (status, err) == (0, "") and found["A"]["seed"] == 0 and found["B"]["seed"] == 1
    rows = found["tables"][-1]["rows"]
    assert {"value_A", "value_B", "difference"} <= rows[0].keys()
    assert {row["unit"] for row in rows if row["fact"].endswith("chip time")} == {"s"}


def test_json_of_a_sweep_s_state_and_of_lists(command, quick):
    command("sweep", "xor", "--repeats", 3, "--workers", 0, "-q")
    found = one_document(command("status", "runs/xor-sweep", "--json")[1])
    assert (found["cells"], found["done"], found["left"], found["failed"]) == (3, 3, 0, [])
    assert found["running"] is False
    listed = one_document(command("list", "--json")[1])
    assert tuple(listed) == LISTS
    names = [row["name"] for row in listed["experiments"]]
    assert names == sims.experiment_names()
    assert one_document(command("list", "codes", "--json")[1]) == {"codes": listed["codes"]}
    claims = one_document(command("reproduce", "--json")[1])["claims"]
    assert "coverage" in [row["name"] for row in claims]


def test_json_writes_numbers_as_numbers_and_what_is_not_known_as_null():
    data = {
        "nan": np.float64("nan"),
        "never": math.inf,
        "below": -math.inf,
        "seed": np.uint64(2**64 - 1),
        "true": np.True_,
        "bar": ErrorBar(0.5),
        "text": "\x9b\u202e\n",
    }
    text = json_text(data)
    assert text.isascii() and text.isprintable() is False  # line ends between entries alone
    assert one_document(text) == {
        "nan": None,
        "never": "Infinity",
        "below": "-Infinity",
        "seed": 2**64 - 1,
        "true": True,
        "bar": {"value": 0.5, "low": None, "high": None},
        "text": "\x9b\u202e\n",
    }


def progress_of(capsys, seconds, **options):
    """What is said of a part of 100 whose next tenth ends at each of these times."""
    times = iter([0.0, *seconds])
    with Bars(clock=lambda: next(times), **options) as bars:
        for done in range(10, 10 * len(seconds) + 1, 10):
            bars.advance("trials", done, 100)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(capsys, monkeypatch):
    monkeypatch.setattr("sims.terminal.EVERY_S", EVERY_S)
    seconds = [4.0 * i for i in range(1, 11)]
    # the first after ten, then ten after that; as fast as since the first was heard of
    assert progress_of(capsys, seconds) == [
        "trials: 30 of 100; about 28 s left",
        "trials: 60 of 100; about 16 s left",
        "trials: 90 of 100; about 4 s left",
    ]
    assert progress_of(capsys, [0.1 * i for i in range(1, 11)]) == []
    # a first piece that compiled its kernels says nothing of how long the others take
    times = iter([0.0, 0.0, 18.0, 29.0])
    with Bars(clock=lambda: next(times)) as bars:
        for done in (0, 1, 1500):
            bars.advance("exact", done, 3000)
    assert capsys.readouterr().err.splitlines() == [
        "exact: 1 of 3,000",
        "exact: 1,500 of 3,000; about 29 s left",
    ]
    assert progress_of(capsys, seconds, quiet=True) == []


def test_a_log_has_begin_parts_warnings_results_and_end_and_is_appended_to(command):
    for _ in range(2):
        assert command("run", "xor", *QUICK, "--log", "log.txt", "-q")[0] == 0
    lines = Path("log.txt").read_text().splitlines()
    entries = [line.split(" ", 3) for line in lines]
    # date, time, level, text
    assert {level for _, _, level, _ in entries} == {"INFO", "WARNING"}
    texts = [text for *_, text in entries]
    assert texts[0] == (
        f"begun: perturb run xor {' '.join(QUICK)} --log log.txt -q (perturb {perturb.__version__})"
    )
    assert "difference/walsh: begun, 64 in all" in texts
    assert "difference/walsh: ended, 64 of 64" in texts
    assert any("is biased" in text for _, _, level, text in entries if level == "WARNING")
    assert "results are in runs/xor" in texts and "results are in runs/xor-2" in texts
    assert [text.partition(" after")[0] for text in texts].count("ended") == 2
    assert texts[-1].endswith("exit status 0")


def test_a_log_has_mistakes_and_the_traceback_of_a_fault(command, monkeypatch):
    command("run", "nix", "--log", "log.txt")
    text = Path("log.txt").read_text()
    assert " ERROR nix: no experiment of that name" in text and "exit status 2\n" in text

    def broken(chip, trials):
        raise RuntimeError("made to fail")

    monkeypatch.setattr(hardware.Chip, "run", broken)
    with pytest.raises(RuntimeError):
        command("run", "xor", "--log", "log.txt")
    text = Path("log.txt").read_text()
    assert "Traceback" in text and "RuntimeError: made to fail" in text
    assert text.endswith("exit status 1\n")
    # closed with its command: the next one does not write there
    command("run", "nix")
    assert Path("log.txt").read_text() == text


def test_a_log_that_cannot_be_written_is_one_line_before_anything_runs(command):
    status, out, err = command("run", "xor", "--log", "no/such/folder/log.txt")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("perturb: --log no/such/folder/log.txt: cannot be written (No such file")
    assert not list(Path().iterdir())


COMPLETED = {
    "ru": ["run"],
    "run dig": ["digits", "digits-array-learning", "digits-learning"],
    "run nothing-of-that-name": [],
    "run xor --qu": ["--quiet"],
    "list c": ["chips", "codes"],
    "run xor --set chip.pre": ["chip.preset="],
    "run xor --set chip.preset = mg": ["mgd"],
    "run xor --set estimation.code = walsh --set study =": list(STUDIES),
    "run xor --set = estimation.method = cent": ["central"],
    "spectrum xor --set chip.weights.device = pcm": ["pcm-nandakumar2020"],
    "run xor --set estimation.sigma = 0.": [],
    "run xor --set estimation.si": ["estimation.sigma="],
    "sweep xor --vary chip.error_unit.no": ["chip.error_unit.noise="],
    "require xor chip.error_unit.no": ["chip.error_unit.noise"],
    "require xor data.na": [],
    "reproduce a": ["alignment", "averaging", "all"],
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
# the program is started for each of them
@pytest.mark.parametrize("typed", fast([*COMPLETED], "run dig", "run xor --set chip.preset = mg"))
def test_bash_completes_commands_options_and_names(typed, tmp_path):
    program = tmp_path / "perturb"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m perturb "$@"\n')
    program.chmod(0o755)
    # as bash splits a line, at = too
    words = shlex.join(["perturb", *typed.split()])
    script = [
        "set -e",
        'eval "$(_PERTURB_COMPLETE=source_bash perturb)"',
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()",
        "_perturb_completion perturb || true; echo ${COMPREPLY[@]}",
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.stdout.split() == COMPLETED[typed]


def completed(command, monkeypatch, shell, typed):
    for name, value in {
        "_PERTURB_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": f"perturb {typed}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }.items():
        monkeypatch.setenv(name, value)
    return command()[1]


def test_zsh_and_fish_complete_the_whole_word(command, monkeypatch):
    zsh = completed(command, monkeypatch, "zsh", "run xor --set chip.preset=mg")
    assert "chip.preset=mgd" in zsh
    fish = completed(command, monkeypatch, "fish", "run xor --set study=fin")
    assert fish.split() == ["study=finite-difference"]


def test_every_key_with_names_takes_each_of_them():
    for key, names in NAMES.items():
        assert len(list(names())) > 5
        sims.load_experiment("xor", {key: "ideal" if "chip" in key else next(iter(names()))})


def test_completing_a_name_loads_nothing_heavy():
    code = (
        "import sys; from sims.completion import experiments; experiments('x');"
        " print({'numpy', 'scipy', 'numba', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_json_of_an_interrupted_run_says_that_it_is_partial(command, monkeypatch):
    calls, run = iter(range(10**6)), hardware.Chip.run

    def interrupted_at_the_fifth(chip, trials):
        if next(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return run(chip, trials)

    monkeypatch.setattr(hardware.Chip, "run", interrupted_at_the_fifth)
    status, out, err = command("run", "xor", "--set", "estimation.trials=100000", "--json")
    found = one_document(out)
    assert status == 130 and (found["status"], found["reason"]) == (
        "partial",
        "the run was interrupted",
    )
    assert err == "perturb: interrupted; the results so far are stored and marked as partial\n"


def test_a_log_of_a_sweep_has_a_line_for_every_cell_and_what_failed(command, quick):
    words = ("sweep", "xor", "--repeats", 2, "--workers", 0, "--log", "log.txt")
    status, _, err = command(*words)
    text = Path("log.txt").read_text()
    assert status == 0 and text.count(": cell ") == 2
    # what is said beside the results, with times and levels
    assert all(f" INFO {line}" in text for line in err.splitlines())
    assert command(*words, "--quiet", "--out", "other")[0] == 0
    assert Path("log.txt").read_text().count(": cell ") == 4


def test_an_interrupt_while_the_program_loads_is_one_line():
    # the interrupt comes when `sims.cli` is looked for
    program = """
import sys
from sims.start import main
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "sims.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "perturb: interrupted\n")


def test_explanations_in_a_piped_table_are_lines_that_can_be_read():
    rows = pd.DataFrame({"a": ["x"], "why": ["word " * 60], "n": [1.0]})
    table = Table("T", "", rows, {"a": named("a"), "why": named("why"), "n": named("n")}, "why")
    piped = io.StringIO()
    print_tables([table], Console(file=piped, width=200))
    lines = piped.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert sum(line.count("word") for line in lines) == 60
