"""Two stored runs, or two sweeps, side by side."""

import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from perturb.errors import InputError
from perturb.settings import flat
from reports.formats import Titled, count, fixed, number, si
from reports.frames import Frames
from reports.statistics import IDENTITY, difference, values
from reports.studies.sweep.series import inner_view, means_of, shown, shown_measures
from reports.studies.sweep.tables import threshold
from reports.table import print_tables, say_line

if TYPE_CHECKING:
    from rich.console import Console


OF_THIS_COMPUTER = ["wall_time_s", "trials_per_s"]  # differ between equal runs
UNITS: dict[str, Callable[[float], str]] = {
    "evaluations": count,
    "chip_time_s": lambda time: si(time, "s"),
    "energy_j": lambda energy: si(energy, "J"),
}


def compare(a: Frames, b: Frames) -> tuple[list[str], list[Titled]]:
    """In how much two results agree, in sentences, and as tables: what was set differently, and
    every measure of A and of B.
    """
    for frames in (a, b):
        if "summary" not in frames.tables:
            raise InputError(
                f"{frames.directory}: holds no summary: it ended too early to be compared"
            )
    studies = [(frames.view.kind[1], frames.experiment["study"]) for frames in (a, b)]
    if studies[0] != studies[1]:
        said = [f"a {kind} of {study}" for kind, study in studies]
        raise InputError(
            f"{a.directory} is {said[0]}, {b.directory} {said[1]}: only the same study can be set"
            " side by side"
        )
    sentences = [_equality(a, b)]
    differing = _differing(a, b)
    tables = [differing] if differing[2][1] else []
    tables += _sweeps(a, b, sentences) if a.means is not None else _runs(a, b, sentences)
    return sentences, tables


def _equality(a: Frames, b: Frames) -> str:
    one, other = (
        frames.summary.drop(columns=[c for c in OF_THIS_COMPUTER if c in frames.summary])
        for frames in (a, b)
    )
    if list(one.columns) == list(other.columns) and one.astype(str).equals(other.astype(str)):
        return "The results are the same, to the last bit."
    return f"A has {len(one)} rows of results and B has {len(other)}; they differ."


def _differing(a: Frames, b: Frames) -> Titled:
    """The keys of the two experiments that differ, and versions."""
    one, other = (
        flat({"experiment": frames.experiment, "versions": _versions(frames)}) for frames in (a, b)
    )
    rows = []
    varied = {
        f"experiment.{key}" for frames in (a, b) for key in frames.provenance.get("varied", ())
    }  # told by the sweeps
    for key in dict.fromkeys([*one, *other]):
        if key in varied:
            continue
        before, after = (
            "-" if of.get(key) in (None, []) else json.dumps(of[key], default=str)
            for of in (one, other)
        )
        if before != after:
            rows.append(
                [
                    key.removeprefix("experiment.").removeprefix("versions."),
                    "",
                    _cut(before),
                    _cut(after),
                ]
            )
    return (
        "What was set differently",
        "keys of the experiments, and versions",
        (["key", "", "A", "B"], rows),
    )


def _versions(frames: Frames) -> dict[str, Any]:
    sweep = frames.provenance.get("sweep", {})
    varied = {"sweep": {key: sweep[key] for key in ("vary", "zip", "repeats") if key in sweep}}
    return {
        "perturb": frames.provenance.get("perturb"),
        **frames.provenance.get("packages", {}),
        **varied,
    }


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _runs(a: Frames, b: Frames, sentences: list[str]) -> list[Titled]:
    study = a.view.swept
    assert study is not None
    if "measure" in a.summary:
        return [_facts(a, b, sentences)]
    identity = list(study.identity)
    measures = [name for name in (*study.measures, *UNITS) if name in a.summary]
    both = a.summary.merge(b.summary, on=identity, suffixes=("_A", "_B"))
    _say_alone(sentences, len(a.summary) - len(both), len(b.summary) - len(both))
    called = [name.removesuffix("_s").removesuffix("_j").replace("_", " ") for name in measures]
    header = ["of", "", *(f"{name} {which}" for name in called for which in "AB")]
    rows = []
    for row in both.to_dict("records"):
        cells = [
            UNITS.get(name, number)(float(row[f"{name}_{which}"]))
            for name in measures
            for which in "AB"
        ]
        rows.append([_label(a, row, identity), "", *cells])
    return [("A and B", f"A: {a.directory}; B: {b.directory}", (header, rows))]


def _label(frames: Frames, row: Mapping[Any, Any], identity: list[str]) -> str:
    names = [str(row[column]) for column in identity if column != "quantity" and row[column] != ""]
    return inner_view(frames).called(
        frames,
        str(row.get("quantity", "")) if "quantity" in identity else "",
        tuple(names) or ("",),
    )


def _facts(a: Frames, b: Frames, sentences: list[str]) -> Titled:
    """B less A, in standard errors where there is any."""
    # the chip is the chip, in batches and by events
    one, other = _one_chip(a.summary, b.summary)
    both = one.merge(other, on=["subject", "measure"], suffixes=("_A", "_B"))
    _say_alone(sentences, len(a.summary) - len(both), len(b.summary) - len(both))
    rows = []
    for row in both.to_dict("records"):
        difference = row["value_B"] - row["value_A"] if row["value_A"] != row["value_B"] else 0.0
        error = math.hypot(row["stderr_A"], row["stderr_B"])
        rows.append(
            [
                a.fact_name(row),
                "",
                *(number(row[f"value_{which}"]) for which in "AB"),
                number(difference),
            ]
            + [fixed(difference / error, ".1f") if error > 0 else "-"]
        )
    header = ["fact", "", "A", "B", "B - A", "in standard errors"]
    return "A and B", f"A: {a.directory}; B: {b.directory}", (header, rows)


def _one_chip(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of trainings: the chip is the chip, in batches in one and by events in the other; where
    one has both, they stay apart.
    """
    subjects = [set(of["subject"].astype(str)) for of in (a, b)]
    if any({"batch", "event"} <= found for found in subjects):
        return a, b
    one, other = (
        of.assign(subject=of["subject"].astype(str).replace("event", "batch")) for of in (a, b)
    )
    return one, other


def _say_alone(sentences: list[str], only_a: int, only_b: int) -> None:
    if only_a or only_b:
        sentences.append(
            f"{only_a} rows are in A alone and {only_b} in B alone: they are left out."
        )


def _sweeps(a: Frames, b: Frames, sentences: list[str]) -> list[Titled]:
    """Points that both sweeps have: means, and B - A with its confidence interval, over pairs of
    the same seed if there are.
    """
    keys = [key for key in a.provenance["varied"] if key in b.provenance["varied"]]
    if not keys and (a.provenance["varied"] or b.provenance["varied"]):
        raise InputError(
            f"{a.directory} and {b.directory} vary no key in common: their points cannot be set"
            " side by side"
        )
    by = [*keys, *(name for name in IDENTITY if name in means_of(a).by and name in means_of(b).by)]
    header = [
        "of",
        "",
        *(key.rpartition(".")[2] for key in keys),
        "measure",
        "A",
        "B",
        "B - A",
        "95 %: low",
        "high",
        "over",
    ]
    one, other = _all_values(a, b, by)
    rows = []
    differ = 0
    common = [point for point in one if point in other]
    for point in common:
        mean_a, mean_b = (float(of[point]["value"].mean()) for of in (one, other))
        gap, low, high, over = difference(one[point], other[point])
        differ += low > 0 or high < 0
        names = dict(zip([*by, "measure"], point, strict=True))
        called = _label(a, names, [name for name in by if name not in keys])
        cells = [*(shown(names[key]) for key in keys), names["measure"].replace("_", " ")]
        rows.append(
            [
                called,
                "",
                *cells,
                *(number(value) for value in (mean_a, mean_b, gap, low, high)),
                over,
            ]
        )
    sentences.append(
        f"{len(common)} means at points that both have are compared; for {differ} the 95 % interval"
        " of B - A leaves out 0."
    )
    says = (
        f"A: {a.directory}; B: {b.directory}; over: pairs of the same seed, or all runs where fewer"
        " than two seeds are in both"
    )
    return [*_thresholds(a, b), ("A and B", says, (header, rows))]


def _thresholds(a: Frames, b: Frames) -> list[Titled]:
    """Where what is wanted is met, in A and in B."""
    if not {"thresholds"} <= a.tables.keys() & b.tables.keys():
        return []
    one = a.thresholds
    other = b.thresholds
    one, other = _one_chip(one, other) if "subject" in one and "subject" in other else (one, other)
    by = [
        str(name)
        for name in one
        if name in other and (name in IDENTITY or name in a.provenance["varied"])
    ]
    both = one.astype({name: str for name in by}).merge(
        other.astype({name: str for name in by}), on=[*by, "key", "wanted"]
    )
    rows = []
    for row in both.to_dict("records"):
        alone = [
            name
            for name in map(str, row)
            if name not in by and any(name in of.provenance["varied"] for of in (a, b))
        ]
        held = [
            f"{name.rpartition('.')[2]} = {row[name]}"
            for name in [*by, *alone]
            if name not in IDENTITY
        ]
        called = ", ".join((_label(a, row, [name for name in by if name in IDENTITY]), *held))
        rows.append(
            [called, "", *(f"{row[f'edge_{of}']} {threshold(row, f'_{of}')}" for of in ("x", "y"))]
        )
    return (
        [(f"Where mean {row['wanted']} is met: {row['key']}", "", (["of", "", "A", "B"], rows))]
        if rows
        else []
    )


def _all_values(a: Frames, b: Frames, by: list[str]) -> list[dict[tuple, pd.DataFrame]]:
    """(point, identity, measure): seed and value, of the measures that are shown, of A and of B."""
    both = []
    for frames in (a, b):
        study = inner_view(frames).swept
        assert study is not None
        both.append(
            values(frames.summary, list(frames.provenance["varied"]), study, shown_measures(frames))
        )
    apart = _one_chip(both[0], both[1]) if "subject" in by else tuple(both)
    return [
        dict(iter(found.groupby([*by, "measure"], sort=False, observed=True))) for found in apart
    ]


def print_compared(a: Frames, b: Frames, console: "Console") -> None:
    """Print two runs or two sweeps side by side."""
    sentences, shown = compare(a, b)
    for which, frames in (("A", a), ("B", b)):
        say_line(
            console,
            f"{which}: {frames.provenance['description']} (seed {frames.provenance['seed']})",
        )
    print_tables(shown, console)
    console.print()
    for text in sentences:
        say_line(console, text)
