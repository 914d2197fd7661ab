"""A stored sweep in words and tables: where what is wanted is met, every point, and the cells that failed."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from reports.frames import Frames
from reports.sweeps import EXACT, IDENTITY, own_series, series, shown, shown_measures
from reports.texts import Titled, cosine, number, series_name, si
from reports.training_tables import source_name

ROWS_SHOWN = 2000
NAMES = {"hv": "z = Hv", "gradient": "gradient"}


def tables(frames: Frames) -> list[Titled]:
    return [*_thresholds(frames), *_points(frames), *_failed(frames)]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """How far the sweep is, and where the experiment's own method meets what is wanted."""
    cells = frames.provenance["cells"]
    failed = f", {cells['failed']} failed" if cells["failed"] else ""
    said = [("cells:", f"{cells['done']} of {cells['all']} are done{failed}, {si(frames.provenance['seconds'], 's')} of work")]
    wanted = frames.provenance["wanted"]
    if not wanted:
        return said
    table = frames.tables.get("thresholds")
    own = frames.points[frames.points["measure"] == wanted["measure"]]
    for quantity in _quantities(own):
        apart = series(frames, own[own["quantity"] == quantity] if quantity else own)
        # facts are of different things, each worth a word; of methods the experiment's own is meant
        names = [own_series(frames, list(apart))] if quantity else [name for name in apart if name != EXACT]
        for name in names:
            if table is None:
                text = _best(frames, apart[name])
            else:
                rows = series(frames, table[table["quantity"] == quantity] if quantity else table)
                text = _met(frames, rows[name].iloc[0])
            said.append((f"{label(frames, quantity, name)}:", text))
    return said


def label(frames: Frames, quantity: str, name: tuple[str, ...]) -> str:
    """What reports call one thing that was measured: z = Hv, difference/walsh."""
    if frames.experiment["study"] == "training":
        return source_name(frames, name[0])
    return ", ".join(
        part for part in (NAMES.get(quantity, quantity), series_name(tuple(NAMES.get(of, of) for of in name))) if part
    )


def _of(frames: Frames, row: dict) -> str:
    names = [str(row[column]) for column in IDENTITY if column in row]
    return label(frames, names.pop(0) if "quantity" in row else "", tuple(names))


def _met(frames: Frames, row: pd.Series) -> str:
    """One threshold in a sentence."""
    swept, key = frames.points[row["key"]], row["key"]
    least, most, what = shown(swept.min()), shown(swept.max()), f"mean {row['wanted']}"
    largest = row["edge"] == "largest"
    if row["value"] == (math.inf if largest else -math.inf):
        text = f"{what} is met at all values of {key} swept, {least} to {most}"
    elif math.isinf(row["value"]):
        text = f"{what} is met at no value of {key} swept, {least} to {most}"
    else:
        text = f"{what} is met {'up to' if largest else 'from'} {key} = {row['value']:.3g}{'' if largest else ' on'}"
    low, high = row["low"], row["high"]
    if math.isnan(low):
        return f"{text} (a single repeat: how sure this is cannot be known)"
    if low == high and math.isinf(low):
        return f"{text}, the whole confidence interval too"
    ends = (f"below {least}" if low == -math.inf else f"{low:.3g}", f"above {most}" if high == math.inf else f"{high:.3g}")
    return f"{text} (95 % confidence interval: {ends[0]} to {ends[1]})"


def _best(frames: Frames, own: pd.DataFrame) -> str:
    """At how many points what is wanted is met, and where most."""
    wanted = frames.provenance["wanted"]
    at_least, value = wanted["at_least"], wanted["value"]
    values = own["mean"].where(own["unknown"] == 0).to_numpy(float)
    met = int(((values >= value) if at_least else (values <= value)).sum())
    measure = wanted["measure"].replace("_", " ")
    text = f"mean {measure} {'>=' if at_least else '<='} {value:g} is met at {met} of {len(own)} points"
    if not np.isfinite(values).any():
        return text
    best = own.iloc[int(np.nanargmax(values if at_least else -values))]
    where = ", ".join(f"{key} = {shown(best[key])}" for key in frames.provenance["varied"])
    if not where:
        mean, low, high = (_digits(wanted["measure"])(best[column]) for column in ("mean", "low", "high"))
        return f"mean {measure} is {mean} (95 % confidence interval: {low} to {high})"
    return f"{text}; the best is {_digits(wanted['measure'])(best['mean'])} at {where}"


def _thresholds(frames: Frames) -> list[Titled]:
    table = frames.tables.get("thresholds")
    if table is None:
        return []
    rows = []
    for row in table.to_dict("records"):
        rows.append([_of(frames, row), "", row["edge"], *(_value(row[column]) for column in ("value", "low", "high"))])
    key, wanted = table["key"].iloc[0], table["wanted"].iloc[0]
    says = "largest value at which it is still met, or smallest from which on it is, in straight lines between the values swept; "
    says += "low, high: ends of the 95 % confidence interval; above or below all: beyond the values swept"
    return [(f"Where mean {wanted} is met: {key}", says, (["of", "", "edge", "value", "low", "high"], rows))]


def _value(value: float) -> str:
    return {math.inf: "above all", -math.inf: "below all"}.get(value, "-" if math.isnan(value) else f"{value:.3g}")


def _points(frames: Frames) -> list[Titled]:
    """A row for each point and method: the measures shown, with their intervals."""
    keys, measures = list(frames.provenance["varied"]), shown_measures(frames)
    table = frames.points[frames.points["measure"].isin(measures)]
    foretold = [measure for measure in measures if table.loc[table["measure"] == measure, "predicted"].notna().any()]
    header = ["of", "", *(key.rpartition(".")[2] for key in keys)]
    for measure in measures:
        called = measure.replace("_", " ")
        header += [called] + ([f"predicted {called}"] if measure in foretold else [])
    found: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for row in _own_first(frames, table).to_dict("records"):
        cells = found.setdefault((_of(frames, row), "", *(shown(row[key]) for key in keys)), {})
        reach = row["high"] - row["mean"]
        digits = _digits(row["measure"])
        cells[row["measure"]] = [digits(row["mean"]) + (f" +- {reach:.2g}" if reach > 0 else "")]
        if row["measure"] in foretold:
            cells[row["measure"]].append(digits(row["predicted"]))
    empty = {measure: ["-"] * (1 + (measure in foretold)) for measure in measures}
    rows = [
        [*point, *(cell for measure in measures for cell in cells.get(measure, empty[measure]))] for point, cells in found.items()
    ]
    most = int(frames.points["repeats"].max())
    says = f"means over {most} repeats, +- half of their 95 % confidence interval" if most > 1 else "of a single repeat"
    if len(rows) > ROWS_SHOWN:
        says += f"; the first {ROWS_SHOWN:,} of {len(rows):,} rows, points.csv and points.parquet have all"
    return [("Every point", says, (header, rows[:ROWS_SHOWN]))]


def _own_first(frames: Frames, table: pd.DataFrame) -> pd.DataFrame:
    """One thing measured after another, z before the gradient, each with the experiment's own method first."""
    parts = []
    for quantity in _quantities(table):
        apart = series(frames, table[table["quantity"] == quantity] if quantity else table)
        own = own_series(frames, list(apart))
        parts += [apart.pop(own), *apart.values()]
    return pd.concat(parts)


def _quantities(table: pd.DataFrame) -> list[str]:
    """z before the gradient; of a study without either, nothing to tell apart."""
    return [name for name in NAMES if name in set(table["quantity"])] if "quantity" in table else [""]


def _digits(measure: str) -> Callable[[float], str]:
    return cosine if measure.endswith("cosine") else _mean


def _mean(value: float) -> str:
    return "never" if value == math.inf else number(value)


def _failed(frames: Frames) -> list[Titled]:
    failed = frames.cells[frames.cells["status"] == "failed"]
    if failed.empty:
        return []
    rows = [
        [row["command"], row["error"].strip().splitlines()[-1], str(row["cell"]), str(row["seed"])]
        for row in failed.to_dict("records")
    ]
    return [("Cells that failed", "the command runs a cell alone", (["command", "error", "cell", "seed"], rows[:ROWS_SHOWN]))]
