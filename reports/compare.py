"""Two stored runs, or two sweeps, side by side."""

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from perturb.errors import InputError
from reports.columns import Table, named
from reports.differences import differing, settings_table
from reports.formats import (
    Estimate,
    Format,
    Quantity,
    edge_value,
    fixed,
    joules,
    number,
    seconds,
)
from reports.frames import Frames
from reports.json_text import table_data
from reports.statistics import IDENTITY, difference, values
from reports.studies.sweep.series import inner_view, means_of, shown_measures
from reports.studies.sweep.tables import OF, key_columns
from reports.table import print_tables, say_line

if TYPE_CHECKING:
    from rich.console import Console


OF_THIS_COMPUTER = ["wall_time_s", "trials_per_s"]  # differ between equal runs
ALIKE = "The results are the same, to the last bit."
CLEAR = 3.0  # standard errors: of some thirty differences hardly one is that by chance
SPENT = ("evaluations", "chip_time_s", "energy_j")  # compared of every study that has them


def compare(a: Frames, b: Frames) -> tuple[list[str], list[Table]]:
    """In how much two results agree, in sentences, and as tables: what was set differently, and
    every measure of A and of B.
    """
    for frames in (a, b):
        if "summary" not in frames.tables:
            raise InputError(
                f"{frames.directory}: holds no summary: it ended too early to be compared"
            )
    # a run and a sweep of one study differ too: their frames are of different points
    studies = [(frames.view.kind[1], frames.experiment["study"]) for frames in (a, b)]
    if studies[0] != studies[1]:
        one, other = (f"a {kind} of {study}" for kind, study in studies)
        raise InputError(
            f"{a.directory} is {one}, {b.directory} {other}: only the same study can be set"
            " side by side"
        )
    sentences = [_equality(a, b)]
    alike = sentences == [ALIKE]
    settings = differing((a, b), "AB")
    tables = [settings_table(settings)] if len(settings) else []
    tables += _sweeps(a, b, sentences) if a.means is not None else _runs(a, b, sentences)
    # what counts comes last, where it is read
    if not alike:
        sentences += _what_counts(a, b)
    return sentences, tables


def _equality(a: Frames, b: Frames) -> str:
    one, other = (
        frames.summary.drop(columns=[c for c in OF_THIS_COMPUTER if c in frames.summary])
        for frames in (a, b)
    )
    # as texts: NaN equals NaN, and a number all of its digits
    if list(one.columns) == list(other.columns) and one.astype(str).equals(other.astype(str)):
        return ALIKE
    if len(one) == len(other):
        return "The results differ."
    return f"The results differ: A has {len(one)} rows and B has {len(other)}."


def _runs(a: Frames, b: Frames, sentences: list[str]) -> list[Table]:
    study = a.view.swept
    assert study is not None
    if "measure" in a.summary:
        return [_facts(a, b, sentences)]
    identity = list(study.identity)
    # rows of the same thing; what only one has is said, and left out
    both = a.summary.merge(b.summary, on=identity, suffixes=("_A", "_B"))
    _say_alone(sentences, len(a.summary) - len(both), len(b.summary) - len(both))
    columns = {"of": OF}
    for name in (*study.measures, *SPENT):
        if name in a.summary:
            column = a.view.columns["summary"][name]
            digits = column.format if name in SPENT else number
            called = name.removesuffix("_s").removesuffix("_j").replace("_", " ")
            columns |= {f"{name}_{of}": named(f"{called} {of}", digits, column.unit) for of in "AB"}
    names = [_label(a, row, identity) for row in both.to_dict("records")]
    return [Table("A and B", _directories(a, b), both.assign(of=names), columns)]


def _what_counts(a: Frames, b: Frames) -> list[str]:
    """How good both are, and what they take to the goal, in a sentence per design that both have;
    nothing of sweeps, and of what does not learn.
    """
    # of estimates theory alone knows what they take to a goal
    if a.view.designs is None or a.means is not None or not {"learning", "runs"} & set(a.tables):
        return []
    try:
        one, other = (of.view.designs(of, None) for of in (a, b) if of.view.designs)
    except InputError:
        # the exact gradient alone takes no chip time
        return []
    if (one.measure, one.goal) != (other.measure, other.goal):
        return [f"Their goals differ: A is to reach {one.goal}, B {other.goal}."]
    found = []
    others = {design.name: design for design in other.designs}
    for design in one.designs:
        if (beside := others.get(design.name)) is None:
            continue
        parts = [
            f"{called} {_both(getattr(design, name), getattr(beside, name), format)}"
            for name, called, format in (
                ("quality", one.measure, number),
                ("time_s", "chip time", seconds),
                ("energy_j", "energy", joules),
            )
        ]
        named_ = f"{design.name}: " if design.name else ""
        found.append(f"{named_}{parts[0]}; to {one.goal}, first seen: {parts[1]}, {parts[2]}.")
    return found


def _both(a: Estimate, b: Estimate, format: Format) -> str:
    """A and B, and whether their difference is more than chance."""
    text = f"A {a.text(format)}, B {b.text(format)}"
    if a.value == b.value or not (math.isfinite(a.value) and math.isfinite(b.value)):
        return text
    # NaN, of an interval that is not known, compares as false
    if not (a.low <= a.high and b.low <= b.high):
        return f"{text} (whether by chance is not known)"
    apart = a.high < b.low or b.high < a.low
    return f"{text} ({'their intervals are apart' if apart else 'which may be chance'})"


def _directories(a: Frames, b: Frames) -> str:
    return f"A: {a.directory}; B: {b.directory}"


def _label(frames: Frames, row: Mapping[Any, Any], identity: list[str]) -> str:
    names = [str(row[column]) for column in identity if column != "quantity" and row[column] != ""]
    return inner_view(frames).called(
        frames,
        str(row.get("quantity", "")) if "quantity" in identity else "",
        tuple(names) or ("",),
    )


def _facts(a: Frames, b: Frames, sentences: list[str]) -> Table:
    """B less A, in standard errors where there is any."""
    # the chip is the chip, in batches and by events
    one, other = _one_chip(a.summary, b.summary)
    # facts that only one of them has are said to be left out, not compared with nothing
    both = one.merge(other, on=["subject", "measure"], suffixes=("_A", "_B"))
    _say_alone(sentences, len(a.summary) - len(both), len(b.summary) - len(both))
    # infinity less infinity is no number, but equal values differ by 0
    gap = (both["value_B"] - both["value_A"]).where(both["value_A"] != both["value_B"], 0.0)
    # two independent runs
    error = pd.Series(np.hypot(both["stderr_A"], both["stderr_B"]))
    # of runs that all ended alike the error is not known: that of the others alone would say too
    # much
    error = error.where((both["stderr_A"] > 0) == (both["stderr_B"] > 0))
    # none where both are exact
    errors = gap / error.where(error > 0)
    units = both["unit_A"]
    rows = both.assign(
        fact=[a.fact_name(row) for row in both.to_dict("records")],
        difference=gap,
        **{
            name: pd.Series(list(map(Quantity, values, units)), both.index, object)
            for name, values in (("A", both["value_A"]), ("B", both["value_B"]), ("gap", gap))
        },
        errors=errors,
        is_=[_judged(*each) for each in zip(gap, errors, strict=True)],
        unit=units,
        # those of times and energies stand beside their numbers
        other_unit=units.where(~units.isin(["s", "J"]), ""),
    )
    # what does not learn on the chip, such as the exact gradient, may be the same in both
    same = (gap == 0).groupby(both["subject"].astype(str)).transform("all")
    # where all is the same nothing is left out
    same &= (both["subject"] != "") & (not same.all())
    for subject in dict.fromkeys(both.loc[same, "subject"]):
        called = a.view.called(a, "", (subject,))
        count = int((both["subject"] == subject).sum())
        sentences.append(f"{called}: all {count} facts are the same in both, and left out.")
    columns = {
        "fact": named("fact"),
        "A": named("A"),
        "B": named("B"),
        "gap": named("B - A"),
        "errors": named("in standard errors", partial(fixed, spec=".1f")),
        "is_": named("which is"),
        "other_unit": named("unit"),
    }
    # numbers stay numbers
    records = ("fact", "value_A", "value_B", "difference", "errors", "is_", "unit")
    return Table(
        "A and B",
        _directories(a, b),
        rows[~same],
        columns,
        records={name: columns.get(name, named(name)) for name in records},
    )


def _judged(gap: float, errors: float) -> str:
    """What a difference is, of so many standard errors."""
    if gap == 0:
        return "the same"
    # NaN: of a median, or of runs that all ended alike
    if math.isnan(errors):
        return "not known"
    return "clear" if abs(errors) >= CLEAR else "maybe chance"


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


def _sweeps(a: Frames, b: Frames, sentences: list[str]) -> list[Table]:
    """Points that both sweeps have: means, and B - A with its confidence interval, over pairs of
    the same seed if there are.
    """
    keys = [key for key in a.provenance["varied"] if key in b.provenance["varied"]]
    if not keys and (a.provenance["varied"] or b.provenance["varied"]):
        raise InputError(
            f"{a.directory} and {b.directory} vary no key in common: their points cannot be set"
            " side by side"
        )
    # points are the same where the keys that both vary have the same values
    by = [*keys, *(name for name in IDENTITY if name in means_of(a).by and name in means_of(b).by)]
    one, other = _all_values(a, b, by)
    rows = []
    differ = 0
    common = [point for point in one if point in other]
    for point in common:
        mean_a, mean_b = (float(of[point]["value"].mean()) for of in (one, other))
        gap, low, high, over = difference(one[point], other[point])
        # NaN, of an interval that is not known, compares as false
        differ += low > 0 or high < 0
        at = dict(zip([*by, "measure"], point, strict=True))
        called = _label(a, at, [name for name in by if name not in keys])
        cells = [*(at[key] for key in keys), at["measure"].replace("_", " ")]
        rows.append((called, *cells, mean_a, mean_b, gap, low, high, over))
    sentences.append(
        f"{len(common)} means at points that both have are compared; for {differ} the 95 % interval"
        " of B - A leaves out 0."
    )
    note = (
        f"{_directories(a, b)}; over: pairs of the same seed, or all runs where fewer than two"
        " seeds are in both"
    )
    names = ("measure", "A", "B", "B - A", "95 %: low", "high", "over")
    columns = {"of": OF, **key_columns(keys), **{name: named(name) for name in names}}
    frame = pd.DataFrame(rows, columns=list(columns))
    return [*_thresholds(a, b), Table("A and B", note, frame, columns)]


def _thresholds(a: Frames, b: Frames) -> list[Table]:
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
    # as texts: categories of two sweeps are of two types
    both = one.astype({name: str for name in by}).merge(
        other.astype({name: str for name in by}), on=[*by, "key", "wanted"]
    )
    rows = []
    for row in both.to_dict("records"):
        # keys that only one of them varies: each of its values is a row
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
        # _x and _y: what `merge` calls equal columns of A and of B
        rows.append((called, *(Edge(*(row[f"{name}_{of}"] for name in EDGE)) for of in ("x", "y"))))
    if not rows:
        return []
    columns = {"of": OF, "A": named("A", edge_value), "B": named("B", edge_value)}
    title = f"Where mean {row['wanted']} is met: {row['key']}"
    return [Table(title, "", pd.DataFrame(rows, columns=list(columns)), columns)]


EDGE = ("edge", "value", "low", "high")


class Edge(NamedTuple):
    """Where what is wanted is met: largest 0.0123 [0.0118, 0.0131]."""

    edge: str
    value: float
    low: float
    high: float

    def text(self, format: Format) -> str:
        return f"{self.edge} {Estimate(self.value, low=self.low, high=self.high).text(format)}"


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


def compared_data(a: Frames, b: Frames) -> dict[str, Any]:
    """Two runs or two sweeps side by side, as plain data for JSON."""
    sentences, shown = compare(a, b)
    both = {
        which: {
            "directory": str(frames.directory),
            "description": frames.provenance["description"],
            "seed": frames.provenance["seed"],
        }
        for which, frames in (("A", a), ("B", b))
    }
    return {**both, "sentences": sentences, "tables": list(map(table_data, shown))}
