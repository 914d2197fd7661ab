"""Two stored runs, or two sweeps, side by side."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from scipy.stats import t

from hardware.tables import flat
from perturb.errors import InputError
from reports.frames import Frames
from reports.sweep_tables import NAMES, threshold
from reports.sweeps import CONFIDENCE, IDENTITY, STUDIES, shown, shown_measures, values
from reports.texts import Titled, count, number, series_name, si

OF_THIS_COMPUTER = ["wall_time_s", "trials_per_s"]  # differ between equal runs
SOURCES = {"batch": "chip", "event": "chip", "exact": "exact gradient", **NAMES}
CHIP = r"^(?:batch|event)(?=: )|(?<= less )(?:batch|event)$"
UNITS: dict[str, Callable[[float], str]] = {
    "evaluations": count, "chip_time_s": lambda time: si(time, "s"), "energy_j": lambda energy: si(energy, "J"),
}  # fmt: skip


def beside(a: Frames, b: Frames) -> tuple[list[str], list[Titled]]:
    """In how much two results agree, in sentences, and as tables: what was set differently, and every measure of A and of B."""
    for frames in (a, b):
        if "summary" not in frames.tables:
            raise InputError(f"{frames.directory}: holds no summary: it ended too early to be compared")
    studies = [(frames.study, frames.experiment.get("study", "compare")) for frames in (a, b)]
    if studies[0] != studies[1]:
        said = [f"a sweep of {study}" if kind == "sweep" else f"a run of {study}" for kind, study in studies]
        raise InputError(f"{a.directory} is {said[0]}, {b.directory} {said[1]}: only the same study can be set side by side")
    sentences = [_equality(a, b)]
    differing = _differing(a, b)
    tables = [differing] if differing[2][1] else []
    tables += _sweeps(a, b, sentences) if a.study == "sweep" else _runs(a, b, sentences)
    return sentences, tables


def _equality(a: Frames, b: Frames) -> str:
    one, other = (frames.summary.drop(columns=[c for c in OF_THIS_COMPUTER if c in frames.summary]) for frames in (a, b))
    if list(one.columns) == list(other.columns) and one.astype(str).equals(other.astype(str)):
        return "The results are the same, to the last bit."
    return f"A has {len(one)} rows of results and B has {len(other)}; they differ."


def _differing(a: Frames, b: Frames) -> Titled:
    """The keys of the two experiments that differ, and versions."""
    one, other = (flat({"experiment": frames.experiment, "versions": _versions(frames)}) for frames in (a, b))
    rows = []
    varied = {f"experiment.{key}" for frames in (a, b) for key in frames.provenance.get("varied", ())}  # told by the sweeps
    for key in dict.fromkeys([*one, *other]):
        if key in varied:
            continue
        before, after = ("-" if of.get(key) in (None, []) else json.dumps(of[key], default=str) for of in (one, other))
        if before != after:
            rows.append([key.removeprefix("experiment.").removeprefix("versions."), "", _cut(before), _cut(after)])
    return "What was set differently", "keys of the experiments, and versions", (["key", "", "A", "B"], rows)


def _versions(frames: Frames) -> dict[str, Any]:
    sweep = frames.provenance.get("sweep", {})
    varied = {"sweep": {key: sweep[key] for key in ("vary", "zip", "repeats") if key in sweep}}
    return {"perturb": frames.provenance.get("perturb"), **frames.provenance.get("packages", {}), **varied}


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _runs(a: Frames, b: Frames, sentences: list[str]) -> list[Titled]:
    study = STUDIES[a.experiment.get("study", "compare")]
    if not study.identity:
        return [_facts(a, b, sentences)]
    identity = list(study.identity)
    measures = [name for name in (*study.measures, *UNITS) if name in a.summary]
    both = a.summary.merge(b.summary, on=identity, suffixes=("_A", "_B"))
    _say_alone(sentences, len(a.summary) - len(both), len(b.summary) - len(both))
    called = [name.removesuffix("_s").removesuffix("_j").replace("_", " ") for name in measures]
    header = ["of", "", *(f"{name} {which}" for name in called for which in "AB")]
    rows = []
    for row in both.to_dict("records"):
        cells = [UNITS.get(name, number)(float(row[f"{name}_{which}"])) for name in measures for which in "AB"]
        rows.append([_label(row, identity), "", *cells])
    return [("A and B", f"A: {a.directory}; B: {b.directory}", (header, rows))]


def _label(row: Mapping[Any, Any], identity: list[str]) -> str:
    names = [str(row[column]) for column in identity if column != "quantity" and row[column] != ""]
    name = series_name(tuple(SOURCES.get(part, part) if "group" in identity else part for part in names))
    return ", ".join(part for part in (NAMES.get(str(row.get("quantity", ""))), name) if part)


def _facts(a: Frames, b: Frames, sentences: list[str]) -> Titled:
    """B less A, in standard errors where there is any."""
    # the chip is the chip, in batches and by events
    one, other = (frames.summary.assign(fact=frames.summary["fact"].str.replace(CHIP, "chip", regex=True)) for frames in (a, b))
    both = one.merge(other, on="fact", suffixes=("_A", "_B"))
    _say_alone(sentences, len(a.summary) - len(both), len(b.summary) - len(both))
    rows = []
    for row in both.to_dict("records"):
        difference = row["value_B"] - row["value_A"] if row["value_A"] != row["value_B"] else 0.0
        error = math.hypot(row["stderr_A"], row["stderr_B"])
        rows.append(
            [row["fact"], "", *(number(row[f"value_{which}"]) for which in "AB"), number(difference)]
            + [f"{difference / error:.1f}" if error > 0 and math.isfinite(difference) else "-"]
        )
    header = ["fact", "", "A", "B", "B - A", "in standard errors"]
    return "A and B", f"A: {a.directory}; B: {b.directory}", (header, rows)


def _say_alone(sentences: list[str], only_a: int, only_b: int) -> None:
    if only_a or only_b:
        sentences.append(f"{only_a} rows are in A alone and {only_b} in B alone: they are left out.")


def _sweeps(a: Frames, b: Frames, sentences: list[str]) -> list[Titled]:
    """Points that both sweeps have: means, and B - A with its confidence interval, over pairs of the same seed if there are."""
    keys = [key for key in a.provenance["varied"] if key in b.provenance["varied"]]
    if not keys and (a.provenance["varied"] or b.provenance["varied"]):
        raise InputError(f"{a.directory} and {b.directory} vary no key in common: their points cannot be set side by side")
    by = [*keys, *(name for name in IDENTITY if name in a.points and name in b.points)]
    header = ["of", "", *(key.rpartition(".")[2] for key in keys), "measure", "A", "B", "B - A", "95 %: low", "high", "over"]
    one, other = (_values(frames, by) for frames in (a, b))
    rows, differ = [], 0
    common = [point for point in one if point in other]
    for point in common:
        mean_a, mean_b = (float(of[point]["value"].mean()) for of in (one, other))
        difference, low, high, over = _difference(one[point], other[point])
        differ += low > 0 or high < 0
        names = dict(zip([*by, "measure"], point, strict=True))
        label = _label(names, [name for name in by if name not in keys])
        cells = [*(shown(names[key]) for key in keys), names["measure"].replace("_", " ")]
        rows.append([label, "", *cells, *(number(value) for value in (mean_a, mean_b, difference, low, high)), over])
    sentences.append(
        f"{len(common)} means at points that both have are compared; for {differ} the 95 % interval of B - A leaves out 0."
    )
    says = f"A: {a.directory}; B: {b.directory}; over: pairs of the same seed, or all runs where fewer than two seeds are in both"
    return [*_thresholds(a, b), ("A and B", says, (header, rows))]


def _thresholds(a: Frames, b: Frames) -> list[Titled]:
    """Where what is wanted is met, in A and in B."""
    if not {"thresholds"} <= a.tables.keys() & b.tables.keys():
        return []
    one, other = a.thresholds, b.thresholds
    by = [str(name) for name in one if name in other and (name in IDENTITY or name in a.provenance["varied"])]
    both = one.astype({name: str for name in by}).merge(other.astype({name: str for name in by}), on=[*by, "key", "wanted"])
    rows = []
    for row in both.to_dict("records"):
        held = [f"{name.rpartition('.')[2]} = {row[name]}" for name in by if name not in IDENTITY]
        called = ", ".join((_label(row, [name for name in by if name in IDENTITY]), *held))
        rows.append([called, "", *(f"{row[f'edge_{of}']} {threshold(row, f'_{of}')}" for of in ("x", "y"))])
    return [(f"Where mean {row['wanted']} is met: {row['key']}", "", (["of", "", "A", "B"], rows))] if rows else []


def _values(frames: Frames, by: list[str]) -> dict[tuple, pd.DataFrame]:
    """(point, identity, measure): seed and value, of the measures that are shown."""
    found = values(frames.summary, list(frames.provenance["varied"]), STUDIES[frames.experiment["study"]])
    found = found[found["measure"].isin(shown_measures(frames))]
    return {point: part for point, part in found.groupby([*by, "measure"], sort=False, observed=True)}


def _difference(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, float, float, str]:
    """Mean of B less that of A, its confidence interval, and over what: pairs of the same seed, or else all (Welch's)."""
    pairs = a[["seed", "value"]].merge(b[["seed", "value"]], on="seed").dropna()
    if len(pairs) > 1 or len(pairs) == len(a) == len(b):
        gaps = (pairs["value_y"] - pairs["value_x"]).to_numpy(float)
        middle, freedom = float(gaps.mean()), len(gaps) - 1.0
        error = float(gaps.std(ddof=1)) / math.sqrt(len(gaps)) if freedom else math.nan
        over = f"{len(gaps)} pairs" if freedom else "1 pair"
    else:
        middle = float(b["value"].mean() - a["value"].mean())
        parts = [float(of["value"].var(ddof=1)) / len(of) for of in (a, b)]
        error = math.sqrt(sum(parts))
        weights = sum(part**2 / (len(of) - 1) for part, of in zip(parts, (a, b), strict=True) if len(of) > 1)
        freedom = sum(parts) ** 2 / weights if weights > 0 else 1.0
        over = f"{len(a)}, {len(b)} runs"
    reach = float(t.ppf(0.5 + CONFIDENCE / 2, max(freedom, 1.0))) * error
    return middle, middle - reach, middle + reach, over
