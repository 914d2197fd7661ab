"""Tables of measured pulse responses, as people write them: read, checked, and brought to range units."""

import csv
import errno
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hardware.tables import cut, one_line, open_regular
from perturb.errors import InputError

Array = np.ndarray

MAX_ROWS = 10**6
MAX_BYTES = 1 << 27  # of a file, more than lines of so many readings take
MIN_READINGS = 20  # in each direction, of each cell
MAX_CELLS = 1000


@dataclass(frozen=True)
class Measured:
    """Readings y in range units, in the order of the file within each sequence; `first` begins one (a cell's cycle)."""

    y: Array
    pulses: Array  # +-m: the reading came after m pulses of that direction since the one before it
    first: Array
    cell: Array  # 0, 1, ...
    labels: list[str]  # of the cells
    number: Array  # pulses since the sequence began
    unit: str  # of the table's readings
    zero: float  # reading, in that unit, that is w = 0
    per_range: float  # reading per range unit
    one_sided: bool
    resolution: float  # smallest difference between two readings
    counted: Array  # readings that tell of a step: not the first of a sequence, nor one equal to that before it (a hard bound)

    @property
    def n_cells(self) -> int:
        return len(self.labels)

    @property
    def floor(self) -> float:
        """Variance of a reading by its rounding alone."""
        return self.resolution**2 / 12


COLUMNS = {
    "pulse": "number of the pulse after which it was read, rising within a cell and cycle; gaps: pulses without a reading",
    "direction": "of that pulse: 1 or up, -1 or down; 0 = no pulse yet",
    "weight or conductance": "weight in range units, -1..1 or so; or conductance in any unit, named as in conductance_us",
    "device": "(optional) which cell",
    "cycle": "(optional) which repetition on that cell",
}
DIRECTIONS = {"1": 1, "+1": 1, "up": 1, "-1": -1, "down": -1, "0": 0, "": 0}


def read_pulses(path: str | Path, low: float | None = None, high: float | None = None) -> Measured:
    """The table of pulse responses in a CSV file; columns as in COLUMNS, in any order; lines that start with # are skipped.

    low, high: conductances of w = -1 and w = 1 (of w = 0 and w = 1 if all pulses go up: one side of a pair); left out, the mean
    over cells of the lowest and highest reading. A file that cannot be used raises InputError, naming line and column.
    """
    source = one_line(cut(str(path), 200))
    lines = _lines(path, source)
    header_line, header = lines[0]
    names = [name.strip().lower() for name in header]
    where = {}
    for column in ("pulse", "direction", "device", "cycle"):
        if names.count(column) > 1:
            raise InputError(f"{source}: line {header_line}: column {column} is there twice: remove one")
        where[column] = names.index(column) if column in names else -1
    readings = [i for i, name in enumerate(names) if name == "weight" or name.startswith("conductance")]
    if min(where["pulse"], where["direction"]) < 0 or len(readings) != 1:
        raise InputError(
            f"{source}: line {header_line}: columns are {one_line(cut(', '.join(names), 100))}, but pulse, direction and one of "
            "weight, conductance_us are needed (device, cycle may be added)"
        )
    where["reading"] = readings[0]
    kind = names[readings[0]]
    weights = kind == "weight"
    unit = "range" if weights else kind.removeprefix("conductance").strip(" _()[]") or "the table's unit"
    if weights and (low is not None or high is not None):
        raise InputError(f"{source}: low and high are for conductances, but column weight is in range units: remove them")

    rows = [_row(source, line, cells, where, len(names), kind) for line, cells in lines[1:]]
    sequences: dict[tuple[str, str], list[tuple[int, int, int, float]]] = {}
    for line, cell, cycle, number, direction, reading in rows:
        sequence = sequences.setdefault((cell, cycle), [])
        if sequence and number <= sequence[-1][1]:
            raise InputError(
                f"{source}: line {line}: pulse = {number} does not follow {sequence[-1][1]}, the one before it on device "
                f"{cell or 0}, cycle {cycle or 0}: number the pulses, and name the cycles in a column cycle"
            )
        if sequence and direction == 0:
            raise InputError(f"{source}: line {line}: direction = 0 is for the reading before the first pulse: give 1 or -1")
        sequence.append((line, number, direction, reading))
    return _normalised(source, sequences, weights, unit, low, high)


def _lines(path: str | Path, source: str) -> list[tuple[int, list[str]]]:
    try:
        with open_regular(path, MAX_BYTES) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_BYTES} bytes")
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise InputError(f"{source}: cannot be read ({why}): give a CSV file of measured pulse responses") from None
    if "\0" in text:
        raise InputError(f"{source}: not a text (it holds a zero byte): give a CSV file")
    lines, number = [], 0
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text)), 1):
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                lines.append((number, cells))
    except csv.Error as error:
        raise InputError(f"{source}: line {number + 1}: not valid CSV ({error})") from None
    if len(lines) < 2:
        raise InputError(f"{source}: holds no readings: give a header and a line per reading ({', '.join(COLUMNS)})")
    if len(lines) > MAX_ROWS:
        raise InputError(f"{source}: has more than {MAX_ROWS} readings: leave some out")
    return lines


def _row(
    source: str, line: int, cells: list[str], where: dict[str, int], n: int, kind: str
) -> tuple[int, str, str, int, int, float]:
    if len(cells) != n:
        raise InputError(f"{source}: line {line}: has {len(cells)} columns but the header has {n}")

    def value(column: str) -> str:
        return cells[where[column]].strip() if where[column] >= 0 else ""

    def wrong(column: str, text: str, must: str) -> InputError:
        return InputError(f"{source}: line {line}: {column} = {one_line(cut(text, 40)) or 'nothing'} must be {must}")

    try:
        number = float(value("pulse"))
    except ValueError:
        number = -1.0
    if not (0 <= number <= 1e9 and number == int(number)):
        raise wrong("pulse", value("pulse"), "a whole number >= 0")
    direction = value("direction").lower().removesuffix(".0")
    if direction not in DIRECTIONS:
        raise wrong("direction", value("direction"), "1 or up, -1 or down, or 0 before the first pulse")
    try:
        reading = float(value("reading"))
    except ValueError:
        reading = math.nan
    if not math.isfinite(reading):
        raise wrong(kind, value("reading"), "a finite number")
    if kind == "weight" and abs(reading) > 10:
        raise wrong(kind, value("reading"), "in range units, -1..1 or so; name the column conductance if it is one")
    return line, value("device"), value("cycle"), int(number), DIRECTIONS[direction], reading


def _normalised(
    source: str, sequences: dict[tuple[str, str], list], weights: bool, unit: str, low: float | None, high: float | None
) -> Measured:
    labels = list(dict.fromkeys(cell for cell, _ in sequences))
    if len(labels) > MAX_CELLS:
        raise InputError(f"{source}: has {len(labels)} devices but at most {MAX_CELLS} can be fitted: leave some out")
    y, pulses, first, cell, number = [], [], [], [], []
    for label in labels:
        for (own, _), sequence in sequences.items():
            if own == label:
                before = sequence[0][1]
                for place, (_, count, direction, reading) in enumerate(sequence):
                    y.append(reading)
                    pulses.append(direction * (count - before))
                    first.append(place == 0)
                    cell.append(labels.index(label))
                    number.append(count - sequence[0][1])
                    before = count
    values, changes, cells = np.array(y), np.array(pulses), np.array(cell)
    one_sided = not (changes < 0).any()
    for i, label in enumerate(labels):
        named = f"{source}: device {one_line(cut(label, 40)) or 0}"
        for sign, word in ((1, "up"), (-1, "down"))[: 1 if one_sided else 2]:
            n = int((np.sign(changes[cells == i]) == sign).sum())
            if n < MIN_READINGS:
                raise InputError(f"{named} has {n} readings after pulses {word}, but {MIN_READINGS} are needed: measure more")
        if np.ptp(values[cells == i]) == 0:
            raise InputError(f"{named} reads {values[cells == i][0]:g} everywhere: no pulse changes it, so nothing can be fitted")
    if np.abs(changes).max() > 10**5:
        raise InputError(f"{source}: {np.abs(changes).max()} pulses without a reading between are too many: at most 100000")
    zero, per_range = 0.0, 1.0
    if weights and not one_sided and not values.min() < 0 < values.max():
        raise InputError(
            f"{source}: weights reach from {values.min():g} to {values.max():g}, but w = 0 must lie within: measure both "
            "signs, or name the column conductance if it is one"
        )
    if weights and one_sided and values.min() < -0.5:
        raise InputError(
            f"{source}: all pulses go up, as on a side of a pair, but weights reach {values.min():g}: sides start at 0"
        )
    if not weights:
        ends = [(values[cells == i].min(), values[cells == i].max()) for i in range(len(labels))]
        low = float(np.mean([a for a, _ in ends])) if low is None else low
        high = float(np.mean([b for _, b in ends])) if high is None else high
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"{source}: low = {low:g} must be less than high = {high:g}")
        zero, per_range = (low, high - low) if one_sided else ((low + high) / 2, (high - low) / 2)
        values = (values - zero) / per_range
        if np.abs(values).max() > 10:
            raise InputError(
                f"{source}: readings reach {np.abs(values).max():.3g} times the range that low = {low:g} and high = {high:g} "
                "span: give the conductances of w = -1 and w = 1"
            )
    started = np.array(first)
    resolution = float(np.diff(np.unique(values)).min())
    counted = ~started & (np.abs(values - np.roll(values, 1)) > 0.5 * resolution)
    return Measured(
        values, changes, started, cells, [label or "0" for label in labels], np.array(number), unit, zero, per_range, one_sided,
        resolution, counted,
    )  # fmt: skip
