"""The experiment that `perturb new` proposes for data, a chip and a device of one's own."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hardware.device_params import DeviceParams, device_names, load_device
from hardware.params import ChipParams, chip_names, imperfections, load_chip, value_of
from perturb.errors import InputError, cut, one_line, shown
from sims.data.files import READERS, read_file, read_patterns
from sims.experiment.loading import experiment_from
from sims.experiment.schema import Setup
from sims.experiment.templates import GIVEN, short
from sims.problem import prepare
from sims.proposal.columns import Columns, Kind, choose_columns
from sims.studies.training.advice import advice
from sims.studies.training.task import course_of, plan_of, task_of

# found on iris, wine, breast cancer and diabetes: trials of few patterns are as good as those of
# all, as what disturbs an update most are the other weights' perturbations
BATCH = 16
EVALUATIONS = 20_000  # of a run
AVERAGED = 64  # trials before a write, where a device has pulses
MOST_LEARNED, MOST_HELD = 5000, 1000
LEAST_HELD = 20  # different rows: with fewer, none is held back
STABLE = 0.5  # of the rate that theory advises, which is half the largest stable one
FALLS = 4  # by which a goal divides the mistakes of always naming the commonest class
SHARE = 0.7  # of the error of always giving the mean


class Proposal(NamedTuple):
    """text: of the file. said: what was read and proposed, and why, a line each."""

    text: str
    said: tuple[str, ...]


def propose(
    file: Path,
    data: Path | None = None,
    chip: str | None = None,
    device: str | None = None,
    targets: Sequence[str] = (),
    kind: Kind | None = None,
) -> Proposal:
    """An experiment at the path `file` with the data, chip and device, paths or names from the
    working directory. InputError if one of them cannot be used.
    """
    given: dict[str, Any] = {"name": _name(file), "description": "", "study": "compare"}
    given |= {key: GIVEN[key] for key in ("network", "data", "direction", "estimation")}
    notes: dict[str, str] = {}
    said: list[str] = []
    given["chip"] = {"preset": "ideal"}
    if chip is not None:
        given["chip"] = {"preset": _relative(chip, chip_names(), file)}
        found = load_chip(chip)
        said.append(_said_of_chip(found))
    if device is not None:
        given["chip"]["weights"] = {"device": _relative(device, device_names(), file)}
        law = load_device(device)
        named = ", ".join(one_line(text) for text in (law.name, law.description) if text)
        said.append(f"Weights in devices: {named}.")
    what = "exclusive or"
    if data is not None:
        what = one_line(data.name)
        said = [*_with_data(given, notes, data, file, targets, kind), *said]
        given["description"] = f"{what} learned on chip"
        said += _with_rates(given, notes, file)
    else:
        given["description"] = "exclusive or on a 2-2-1 network, a small one to start from"
        _loaded(given, file)
        said.append("No --data: exclusive or is the task, and g and z = Hv are estimated.")
    return Proposal(short(f"{what} on a chip", given, notes), tuple(said))


def _said_of_chip(chip: ChipParams) -> str:
    """What it is called, says of itself, and has other than the ideal one."""
    named = ", ".join(one_line(text) for text in (chip.name, chip.description) if text)
    has = []
    for key in imperfections(chip):
        value = value_of(chip, key)
        has.append(f"{key} = {shown(value.name if isinstance(value, DeviceParams) else value)}")
    imperfect = one_line(cut(", ".join(has), 400))
    return f"Chip: {named}. Imperfections: {imperfect or 'none'}."


def _name(path: Path) -> str:
    """A name for what stands in the file."""
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:60] or "mine"


def _relative(given: str, names: Sequence[str], file: Path) -> str:
    """A name as it is, a path as the file at `file` must have it."""
    if given in names:
        return given
    path = Path(os.path.relpath(given, file.parent)).as_posix()
    # a file called as a preset must not be taken for it
    return f"./{path}" if path in names else path


def _loaded(given: dict[str, Any], file: Path) -> Setup:
    return experiment_from(given, str(file), file.parent)


def _with_data(
    given: dict[str, Any],
    notes: dict[str, str],
    path: Path,
    file: Path,
    wanted: Sequence[str],
    kind: Kind | None,
) -> list[str]:
    """Puts data, a network for them and a goal into `given`; what to say of it."""
    called = one_line(cut(str(path), 200))
    if not path.is_file():
        raise InputError(f"--data {called}: no such file: give the path of a table")
    table = read_file("data", str(path), "", READERS)
    columns = None
    if isinstance(table, pd.DataFrame):
        try:
            columns = choose_columns(table, wanted, kind)
        except InputError as error:
            raise InputError(f"{called}: {error}") from None
    elif wanted or kind:
        raise InputError("--target and --as are for CSV and Parquet: NPZ has an array target")
    settings: dict[str, Any] = {"name": "file", "file": _relative(str(path), (), file)}
    if columns:
        settings["targets"] = columns.targets
        notes["data.targets"] = f"chosen {columns.chosen}"
        if columns.ignored:
            settings["ignore"] = list(columns.ignored)
    # as the run will read it: what it would refuse is refused here
    x, target, names = read_patterns(
        str(path), settings.get("targets"), "", settings.get("ignore", ())
    )
    split = _split(len(np.unique(x, axis=0)))
    given["study"] = "training"
    given["data"] = {**settings, "standardise": True, **split, "seed": 0}
    given["network"] = _network(x.shape[1], target.shape[1], bool(names), notes)
    del given["direction"]  # of z = Hv, which the plain rule does not ask for
    given["estimation"] = {"method": "central", "code": "rademacher", "sigma": 0.01}
    given["training"] = _training(target, names, split)
    return [
        f"{called}: {len(x):,} rows.",
        *(_said(columns, target, names) if columns else ()),
        _said_of_split(len(x), split),
    ]


def _said(columns: Columns, target: np.ndarray, names: Sequence[str]) -> list[str]:
    """Which columns were taken for what, and why."""
    of_classes = isinstance(columns.targets, str)
    listed = columns.targets if isinstance(columns.targets, str) else ", ".join(columns.targets)
    what = f"classes ({_counts(target, names)})" if of_classes else "numbers"
    lines = [
        f"Target: {one_line(listed)}, {columns.chosen}: {what}, {columns.because}."
        f" To change that: --target COLUMN, --as {'numbers' if of_classes else 'classes'}.",
        f"Inputs, standardised: {one_line(cut(', '.join(columns.inputs), 400))}"
        f" ({len(columns.inputs)}).",
    ]
    if columns.still:
        lines.append(
            f"Hardly varying, and an input: {one_line(cut(', '.join(columns.still), 300))}."
            " Standardised, its noise counts as much as the others; data.ignore leaves it out."
        )
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(one_line(cut(name, 30)))
    if same := next((each for each in alike.values() if len(each) > 1), None):
        lines.append(
            f"Warning: classes {' and '.join(same)} differ only in case: if they are one, write it"
            " in one way."
        )
    if columns.ignored:
        left = (
            f"{name or 'a column without a name'} {why}" for name, why in columns.ignored.items()
        )
        lines.append(f"Left out (data.ignore): {one_line(cut('; '.join(left), 300))}.")
    return lines


def _counts(target: np.ndarray, names: Sequence[str]) -> str:
    counts = target.sum(0).astype(int)
    shown_ = [f"{one_line(cut(name, 30))} {n:,}" for name, n in zip(names, counts, strict=True)]
    return ", ".join(shown_[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _split(distinct: int) -> dict[str, int]:
    """A fifth to test with and a tenth to end runs by; of few rows none."""
    if distinct < LEAST_HELD:
        return {}
    test, validation = (min(distinct // part, MOST_HELD) for part in (5, 10))
    split = {"test": test, "validation": validation}
    if distinct - test - validation > MOST_LEARNED:
        split = {"samples": MOST_LEARNED, **split}
    return split


def _said_of_split(rows: int, split: dict[str, int]) -> str:
    if not split:
        return "All rows are learned from: there are too few to hold some back."
    learned = split.get("samples", rows - split["test"] - split["validation"])
    return (
        f"Rows, drawn at random: {learned:,} to learn from, {split['test']:,} to test with,"
        f" {split['validation']:,} to end runs by (training.patience)."
    )


def _network(inputs: int, outputs: int, classes: bool, notes: dict[str, str]) -> dict[str, Any]:
    hidden = min(max(8, 2 * outputs), 32)
    notes["network.layers"] = f"{inputs} inputs, {outputs} outputs; {hidden} between are a guess"
    return {
        "kind": "mlp",
        "layers": [inputs, hidden, outputs],
        "activation": "tanh",
        "output": "linear",
        # the softmax of classes belongs to that error
        "error": "cross_entropy" if classes else "squared_error",
    }


def _training(target: np.ndarray, names: Sequence[str], split: dict[str, int]) -> dict[str, Any]:
    """How much is learned, and the goal."""
    updates = EVALUATIONS // 2
    table: dict[str, Any] = {"runs": 5, "updates": updates, "batch": BATCH}
    if "validation" in split:
        # 50 looks at the patterns for validation in a whole run
        table |= {"patience": 10, "stop_every": updates // 50}
    of = "test_" if "test" in split else ""
    if names:
        common = float(target.mean(0).max())
        mistakes = (1 - common) / FALLS
        # two digits, and of a goal near 1 as many as tell it from the commonest class
        digits = 10 ** max(2, math.ceil(-math.log10(mistakes)) + 1)
        goal = math.floor(digits * (1 - mistakes)) / digits
        return {**table, "criterion": f"{of}accuracy", "goal": goal}
    # standardised targets have a variance of 1, and an error of 1/2 each
    return {**table, "criterion": f"{of}error", "goal": round(SHARE * target.shape[1] / 2, 3)}


def _with_rates(given: dict[str, Any], notes: dict[str, str], file: Path) -> list[str]:
    """Puts what theory advises of this network, data and chip into `given`; what to say of it."""
    training = given["training"]
    experiment = _loaded(given, file)
    patterns = prepare(experiment).objective.n_patterns
    # of few patterns every trial shows all: a batch would be half of them or more
    if patterns <= 2 * BATCH:
        del training["batch"]
    device = experiment.chip.weights.device
    if device.dw_min:
        # most of a single trial's update is noise, which steps that differ turn into a drift
        training |= {"trials_per_update": AVERAGED, "updates": EVALUATIONS // (2 * AVERAGED)}
        given["estimation"]["sigma"] = 0.05
        if "patience" in training:
            training["stop_every"] = max(1, training["updates"] // 50)
    rows = _advised(_loaded(given, file))
    if "estimation.sigma" in rows:
        # rounded to a digit, as one would write it
        given["estimation"]["sigma"] = float(f"{min(rows['estimation.sigma'], 0.2):.1g}")
        rows = _advised(_loaded(given, file))
    # a network without curvature at its start is advised none
    eta = STABLE * rows["training.eta"]
    training["eta"] = float(f"{eta:.1g}") if 0 < eta < math.inf else 0.1
    n = experiment.network.build().n_weights
    layers = "-".join(map(str, experiment.network.layers or ()))
    goal = f"{training['criterion'].replace('_', ' ')}"
    sign = ">=" if "accuracy" in goal else "<="
    than = (
        f"at most 1/{FALLS} of the mistakes of always naming the commonest class"
        if "accuracy" in goal
        else f"{SHARE:g} of the error of always giving the mean"
    )
    notes["training.eta"] = "proposed: a quarter of the largest stable rate at the start, by theory"
    notes["training.goal"] = f"proposed: {than}"
    averaged = f" of {AVERAGED} trials" if device.dw_min else ""
    return [
        f"Network: {layers}, {n:,} weights, {given['network']['error'].replace('_', ' ')}.",
        f"Learning: {training['updates']:,} updates{averaged}, eta = {training['eta']:g} (a quarter"
        " of the largest stable rate at the start, by theory), sigma ="
        f" {given['estimation']['sigma']:g}; {training['runs']} starts.",
        f"Goal: {goal} {sign} {training['goal']:g}, {than}. It is yours to set: training.goal.",
    ]


def _advised(experiment: Setup) -> dict[str, float]:
    """What theory advises, by setting."""
    problem = prepare(experiment)
    task = task_of(experiment, problem)
    plan = plan_of(experiment)
    timing = course_of(experiment, task.objective, plan).trial_timing
    _, table = advice(experiment, task.objective, problem.w, plan, timing)
    return dict(zip(table["setting"], table["advised"].astype(float), strict=True))
