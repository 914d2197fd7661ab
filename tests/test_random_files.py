"""From a random file to numbers: every file ends in a legitimate result or in one line that says
what is wrong.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_files import STUDIES, chips, damaged, devices, experiments, sweeps, text
from rich.console import Console
from shown import spoken

import reports
from hardware.device import apparent, fabricate
from hardware.device_params import DeviceParams, load_device
from hardware.params import load_chip
from perturb import CODES, METHODS, InputError, predict
from perturb.seeds import nth_seed
from reports.loading import of_run
from reports.table import print_run
from sims.experiment.loading import load_experiment
from sims.experiment.writing import to_toml
from sims.problem import prepare
from sims.runner import Run, run_experiment
from sims.sweeps.plan import plan_sweep

# NumPy's say that a number is wrong; a key to no use is none
pytestmark = pytest.mark.filterwarnings("error", "ignore::sims.experiment.unused.UnusedKey")
# HUNT=5000 looks at so many files of each kind, other ones each time
HUNT = int(os.environ.get("HUNT", 0))
few = {
    "deadline": None,
    "derandomize": not HUNT,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
KEY = re.compile(r"[a-z_]+ = |[a-z_]\.[a-z_]|max_steps|^[a-z_]+: ")
SHARES = {
    "yield",
    "accuracy",
    "test_accuracy",
    "busiest_share",
    "converter_share",
    "bus_share",
    "weight",
}
AMOUNTS = {
    "trials",
    "evaluations",
    "events",
    "chip_time_s",
    "energy_j",
    "wall_time_s",
    "trial_ns",
    "n_weights",
    "updates",
}
SIZES = {
    "relative_error",
    "z_rms",
    "limit_z_rms",
    "cosine_spread",
    "error_spread",
    "measured_error",
    "predicted_error",
}


def check_line(error, *names):
    message = str(error)
    assert message and "\n" not in message and len(message) < 600
    assert all(map(str.isprintable, message))
    assert any(name in message for name in names) or KEY.search(message), message


def check_numbers(run: Run) -> None:
    """Laws of all numbers that a run can give; NaN is what is not known."""
    assert "summary" in run.tables
    for name, table in run.tables.items():
        for column in table.columns[[kind.kind in "fiu" for kind in table.dtypes]]:
            values = table[column].to_numpy(float)
            known = values[~np.isnan(values)]
            where = f"{name}.{column}: {known}"
            if "cosine" in column and "spread" not in column:
                assert (np.abs(known) <= 1 + 1e-9).all(), where
            if "stderr" in column or column in SIZES:
                assert (known >= 0).all(), where
            if column in AMOUNTS:
                assert (known >= 0).all() and (len(known) == len(values) or name == "learning"), (
                    where
                )
            if column in SHARES:
                assert ((known > -1e-9) & (known < 1 + 1e-9)).all(), where
        if "meaning" in table.columns:
            assert (
                not table.duplicated(["subject", "measure"]).any()
                and (table["meaning"].str.len() > 0).all()
            )


def run_file(file: Path) -> None:
    """All of `perturb run`, but for the files it writes."""
    try:
        run = run_experiment(file)
    except InputError as error:
        check_line(error, file.name)
        return
    check_numbers(run)
    if run.provenance["status"] == "partial":
        check_line(run.provenance["reason"])
    with open(os.devnull, "w") as nowhere:
        print_run(
            of_run(file, run.tables, run.experiment.model_dump(), run.provenance),
            Console(file=nowhere, width=200),
        )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("random") / "random.toml"


@pytest.mark.slow
@pytest.mark.parametrize("study", sorted(set(STUDIES) - {"reproduce"}))
def test_any_experiment_ends_in_numbers_or_one_line(study, file):
    @settings(max_examples=HUNT or 25, **few)
    @given(experiments(study, mistakes=False))
    def holds(data):
        file.write_bytes(text(data))
        run_file(file)

    holds()


@pytest.mark.slow
@settings(max_examples=HUNT or 200, **few)
@given(experiments())
def test_any_mistake_in_an_experiment_is_one_line_and_what_is_taken_round_trips(file, data):
    file.write_bytes(text(data))
    try:
        experiment = load_experiment(file)
    except InputError as error:
        check_line(error)
        assert str(error).startswith(str(file))
        return
    file.write_text(to_toml(experiment), encoding="utf-8")
    assert load_experiment(file) == experiment


@pytest.mark.parametrize("load, contents", [(load_chip, chips()), (load_device, devices())])
def test_any_chip_or_device_is_taken_or_refused_in_one_line(load, contents, file):
    @settings(max_examples=HUNT or 100, **few)
    @given(contents)
    def holds(data):
        file.write_bytes(text(data))
        try:
            taken = load(file)
        except InputError as error:
            check_line(error)
            assert str(error).startswith(str(file))
        else:
            file.write_bytes(text(taken.model_dump(exclude_none=True)))
            assert load(file) == taken

    holds()


@pytest.mark.slow
@settings(max_examples=HUNT or 150, **few)
@given(experiments("budget", mistakes=False).flatmap(lambda data: damaged(text(data))))
def test_a_damaged_experiment_ends_in_numbers_or_one_line(file, content):
    file.write_bytes(content)
    try:
        load_experiment(file)
    except InputError as error:
        check_line(error)
        assert str(error).startswith(str(file))


@pytest.mark.slow
@settings(max_examples=HUNT or 150, **few)
@given(sweeps())
def test_any_sweep_is_planned_or_refused_in_one_line(file, data):
    file.write_bytes(text(data))
    try:
        plan = plan_sweep(file)
    except InputError as error:
        check_line(error, file.name)
        return
    assert (
        len(set(plan.digests)) == len(plan.points)
        and len(plan) == len(plan.points) * plan.sweep.repeats
    )
    assert plan.experiment(plan.row(len(plan) - 1)).run.seed == nth_seed(
        plan.seeds[-1], "repeat", plan.sweep.repeats - 1
    )
    assert plan.record()["name"] == str(file)


@settings(max_examples=HUNT or 10, **few)
@given(st.data())
def test_the_command_says_a_mistake_in_one_line_and_ends_with_2(command, file, data):
    file.write_bytes(
        data.draw(
            experiments("budget").map(text)
            | experiments("budget").flatmap(lambda d: damaged(text(d)))
        )
    )
    status, out, err = command("run", file)
    assert (status, err) == (0, "") or (
        status == 2 and err.startswith("perturb: ") and err.count("\n") == 1 and out == ""
    )


# ---- what such files found


def test_a_device_without_flicker_reads_an_empty_cell_as_it_is():
    device = {"model": "soft-bounds", "step": {"dw_min": 0.01}, "flicker": {"q": 0.0, "power": 1.0}}
    cells = fabricate(DeviceParams.model_validate(device), 3, 0)
    np.testing.assert_array_equal(apparent(cells, np.zeros(3), 0, 0), np.zeros(3))


@pytest.mark.parametrize(
    "key", ["chip.bus.latency_ns", "chip.bus.jitter_ns", "chip.synapse.accumulate_ns"]
)
def test_words_that_are_on_their_way_for_too_many_trials_are_refused(key):
    with pytest.raises(
        InputError,
        match=rf"{key.removeprefix('chip.')} = 1000000000000 lasts for more than the 10,000 trials",
    ):
        run_experiment("xor", {key: 10**12, "run.fidelity": "event"})


def test_a_word_may_be_longer_than_numbers_are():
    exact, wide = (
        run_experiment(
            "xor", {"estimation.trials": 16, "chip.bus.word_bits": 1024, "chip.bus.dE_range": reach}
        ).weights
        for reach in (0.0, 1.0)
    )
    np.testing.assert_allclose(
        wide["hv_hat"], exact["hv_hat"], rtol=1e-9
    )  # 2^-63 of the range, over dE of about 1e-3


def test_no_variance_is_foretold_below_zero():
    network = {
        "network.layers": [3, 1],
        "network.output": "linear",
        "network.error": "binary_cross_entropy",
    }
    problem = prepare(
        load_experiment(
            "xor", {**network, "data.name": "parity", "data.bits": 3, "estimation.compare_with": []}
        )
    )
    method, code = METHODS["pearlmutter_corrected"], CODES["walsh"]
    foretold = predict(problem.objective, problem.w, problem.v, method, code, 0.01, 0.01).hv
    assert (foretold.variances(16) >= 0).all() and -1 <= foretold.cosine(16) <= 1


def test_weights_whose_trials_were_all_alike_have_no_estimate():
    settings = {
        "estimation.method": "pearlmutter_intercept",
        "estimation.code": "walsh",
        "estimation.trials": 4,
    }
    run = run_experiment("xor", {**settings, "estimation.compare_with": []})
    assert not np.isinf(run.weights[["g_hat", "hv_hat"]]).any(axis=None)
    assert (
        run.weights["hv_hat"].isna().sum() == 2
        and "to 2 of 9 weights all trials were alike" in spoken(run)[0][1]
    )


def test_sums_of_a_single_trial_have_no_standard_error():
    run = run_experiment("xor", {"chip.synapse.leak": 1.0, "estimation.trials": 16})
    assert (
        run.weights[["g_stderr", "hv_stderr"]].isna().all(axis=None)
        and run.summary["z_rms"].isna().all()
    )


def test_a_training_that_has_no_first_result_is_one_line(command, file):
    network = {
        "kind": "recurrent",
        "units": 3,
        "inputs": [0, 1],
        "outputs": [2],
        "solver": "relax",
        "max_steps": 100,
    }
    data = {
        "name": "random",
        "study": "training",
        "network": network,
        "data": {"name": "patterns", "samples": 2},
    }
    file.write_bytes(text({**data, "chip": {"preset": "koosh2002"}, "run": {"seed": 1}}))
    status, out, err = command("run", file)
    assert (status, out) == (2, "") and err.startswith("perturb: ") and err.count("\n") == 1


def test_counts_beyond_those_of_64_bits_are_stored(tmp_path):
    run_experiment(
        "xor", {"chip.error_unit.noise": 1e6, "estimation.trials": 8}, out=tmp_path / "run"
    )
    assert reports.load(tmp_path / "run").summary["evaluations_to_0_9"].max() > 2**63


def test_estimators_of_the_gradient_alone_are_plotted(tmp_path):
    changes = {
        "estimators.methods": ["forward"],
        "estimators.codes": ["rademacher"],
        "estimators.repeats": 2,
    }
    run_experiment("estimators", {**changes, "estimation.trials": 16}, out=tmp_path / "run")
    assert "report.html" in {path.name for path in reports.export(tmp_path / "run", "html")}
