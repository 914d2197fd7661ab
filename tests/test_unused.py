"""A key that the study does not use is a warning that names the one that counts."""

import warnings
from collections import defaultdict

import pytest
from fast import fast
from test_studies import QUICK

import sims
from hardware.config import Table
from sims.experiment.unused import UnusedKey, is_used, warn_of_unused
from sims.experiment.writing import to_toml
from sims.problem import prepare
from sims.studies import DIRECTION, START, STUDIES
from sims.sweeps.plan import plan_sweep

LEARN = {"training.runs": 2, "training.updates": 4, "training.compare_with": []}
CASES = {
    **QUICK,
    "estimators": (
        "estimators",
        {"estimators.repeats": 2, "estimation.trials": 8, "estimators.codes": ["walsh"]},
    ),
    "compare": ("xor", {"estimation.trials": 16, "run.fidelity": "batch"}),
    "training": ("xor-learning", LEARN),
}


def said(experiment, name, set, varied=()):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warn_of_unused(experiment, name, set, varied)
    assert all(one.category is UnusedKey for one in heard)
    return [str(one.message) for one in heard]


def unused(name, set, varied=()):
    return said(sims.load_experiment(name, set), name, set, varied)


@pytest.mark.parametrize("study", fast(STUDIES, *STUDIES.keys() - {"reproduce", "uses"}))
def test_the_keys_that_a_study_reads_are_those_that_it_declares(study, monkeypatch):
    name, changes = CASES[study]
    experiment = sims.load_experiment(name, changes)
    problem = prepare(experiment)
    read = defaultdict(set)
    found = Table.__getattribute__

    def watched(table, key):
        if key in type(table).model_fields:
            read[type(table).__name__].add(key)
        return found(table, key)

    with monkeypatch.context() as patched:
        patched.setattr(Table, "__getattribute__", watched)
        for _ in STUDIES[study].load()(experiment, problem, lambda *done: None, lambda: False):
            pass
    for table in ("estimation", "run"):
        kind = type(getattr(experiment, table))
        declared = {key for key in kind.model_fields if is_used(study, f"{table}.{key}")}
        # from run.seed come the start and the direction, which are made before
        assert read[kind.__name__] - {"seed"} == declared - {"seed"}
    assert is_used(study, "weights") == (START in STUDIES[study].random)
    assert is_used(study, "direction") == (DIRECTION in STUDIES[study].random)
    # parts alone: what of a part is read depends on the others
    parts = {
        part for part in read["ChipParams"] if isinstance(getattr(experiment.chip, part), Table)
    }
    # claims have chips of their own
    if study != "reproduce":
        assert all(is_used(study, f"chip.{part}") for part in parts)
        assert bool(parts) == is_used(study, "chip")
    if study == "estimators":
        assert parts == {"error_unit"} and not is_used(study, "chip.weights.bits")


@pytest.mark.parametrize("name", sims.experiment_names())
def test_no_experiment_of_the_package_has_a_key_to_no_use(name):
    assert unused(name, {}) == []


def test_what_a_study_names_is_there():
    experiment = sims.load_experiment("xor")
    for study in STUDIES.values():
        for key in (*study.reads, *study.instead, *sum(study.instead.values(), ())):
            value = experiment
            for part in key.split("."):
                value = getattr(value, part)


def test_a_key_of_the_command_line_to_no_use_is_named_with_what_counts():
    assert unused("xor-learning", {"estimation.trials": "5000"}) == [
        'estimation.trials = 5000 is not used by study = "training": training.updates and'
        " training.trials_per_update count"
    ]
    assert unused("xor-learning", {"run.fidelity": "event"}) == [
        'run.fidelity = "event" is not used by study = "training": training.source counts'
    ]
    assert unused("xor", {"training.runs": 3, "estimation.trials": 8}) == [
        'training.runs = 3 is not used by study = "compare": it is of study = "training"'
    ]
    assert unused("uses", {"chip.error_unit.noise": 0.1}) == [
        'chip.error_unit.noise = 0.1 is not used by study = "uses"'
    ]
    # of a table as a whole what is read counts
    assert unused("estimators", {"estimation": {"method": "central", "code": "walsh"}}) == [
        'estimation.code = "walsh" is not used by study = "estimators": estimators.codes counts'
    ]
    assert unused("estimators", {"chip.preset": "mgd", "chip.error_unit.noise": 0.1}) == []


def test_a_varied_key_to_no_use_is_named_unless_the_study_varies_too():
    (text,) = unused("xor-learning", {}, ["estimation.trials", "training.eta"])
    assert text.startswith('estimation.trials is not used by study = "training": training.updates')
    with pytest.warns(UnusedKey, match="estimation.trials is not used"):
        plan_sweep("xor-learning", {}, {"vary": {"estimation.trials": [8, 16]}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_sweep("xor-learning", {}, {"vary": {"study": ["dies", "training"]}})


def in_file(tmp_path, text):
    path = tmp_path / "mine.toml"
    head = 'name = "mine"\n[network]\nlayers = [2, 2, 1]\n[data]\nname = "xor"\n'
    path.write_text(text + head if text.startswith("study") else head + text)
    return path


def test_a_key_of_a_file_to_no_use_is_named_for_the_file_s_own_study(tmp_path):
    path = in_file(tmp_path, 'study = "training"\nestimation.trials = 5000\n')
    (text,) = unused(path, {})
    assert text.startswith("estimation.trials = 5000 is not used")
    # the file serves another study as well, whose key it is
    assert unused(path, {"study": "dies"}) == []
    # as it would be anyway
    path = in_file(tmp_path, 'study = "training"\nestimation.trials = 4096\n')
    assert unused(path, {}) == []
    # tables of other studies are for them
    path = in_file(tmp_path, "[dies]\ncount = 3\n[spectrum]\nk = 3\n")
    assert unused(path, {}) == []


def test_a_table_of_a_study_without_a_command_wants_a_file_that_names_it(tmp_path):
    path = in_file(tmp_path, "[training]\nruns = 3\n")
    assert unused(path, {}) == [
        '[training] is not used: the file names no study, which is then "compare": write study ='
        ' "training" above its tables'
    ]
    assert unused(path, {"study": "training"}) == []
    path.write_text(f'study = "compare"\n{path.read_text()}')
    assert unused(path, {}) == []
    path = in_file(tmp_path, 'study = "spectrum"\nestimation.trials = 64\nchip.preset = "mgd"\n')
    assert unused(path, {}) == []


def test_a_stored_experiment_has_all_keys_and_none_is_to_no_use(tmp_path):
    path = tmp_path / "experiment.toml"
    for study in STUDIES:
        settings = {"study": study, "estimation.trials": 64, "chip.error_unit.noise": 0.1}
        path.write_text(to_toml(sims.load_experiment("xor", settings)))
        assert unused(path, {}) == []


def test_the_command_says_it_once_beside_the_results(command):
    words = [f"--set={key}={value}" for key, value in LEARN.items()]
    status, out, err = command("run", "xor-learning", *words, "--set", "estimation.trials=5000")
    assert status == 0 and "estimation.trials" not in out
    assert err == (
        'perturb: estimation.trials = 5000 is not used by study = "training": training.updates and'
        " training.trials_per_update count\n"
    )
