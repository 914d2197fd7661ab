"""Tables of measured pulse responses, as people write them: read, checked, in range units."""

import csv
import errno
import io
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perturb.errors import InputError, cut, one_line
from perturb.files import open_regular

Array = np.ndarray

MAX_ROWS = 10**6
SIEMENS = ("s", "ms", "us", "ns", "ps", "µs")
MAX_BYTES = 1 << 27  # of a file, more than lines of so many readings take
MIN_READINGS = 20  # in each direction, of each cell
MAX_CELLS = 1000
MAX_GAP = 10**5  # pulses without a reading between


@dataclass(frozen=True)
class Measured:
    """Readings in the order of the file within each sequence, which is a cell's cycle.

    Attributes
    ----------
    y : (N,) array
        Readings in range units.
    pulses : (N,) array of int
        +-m: the reading came after m pulses of that direction since the one before it.
    first : (N,) array of bool
        Whether the reading begins a sequence.
    cell : (N,) array of int
        0, 1, ..., rising; `labels` names them.
    number : (N,) array of int
        Pulses since the sequence began.
    unit, zero, per_range
        Unit of the table's readings; the reading that is w = 0, and readings per range unit, in it.
    one_sided
        Whether all pulses go up.
    resolution
        Of a reading, in range units: the true one lies within half of it.
    line : (N,) array of int
        Of the file.
    """

    y: Array
    pulses: Array
    first: Array
    cell: Array
    labels: list[str]
    number: Array
    unit: str
    zero: float
    per_range: float
    one_sided: bool
    resolution: float
    line: Array

    @property
    def n_cells(self) -> int:
        return len(self.labels)

    @property
    def span(self) -> float:
        return float(np.ptp(self.y))

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Means over cells of the lowest and of the highest reading."""
        starts = self.cell_starts
        low, high = (end.reduceat(self.y, starts).mean() for end in (np.minimum, np.maximum))
        return float(low), float(high)

    @property
    def turns(self) -> Array:
        """Readings after pulses of another direction than the one before."""
        directions = np.sign(self.pulses)
        # a first reading has no pulses, so that the one after it is a turn
        return directions != np.roll(directions, 1)

    @cached_property
    def cell_starts(self) -> Array:
        """First reading of each cell."""
        return np.flatnonzero(np.diff(self.cell, prepend=-1))

    @property
    def repeats(self) -> bool:
        """Whether readings equal those before them, as at a hard bound."""
        return bool(self._equal.any())

    @property
    def _equal(self) -> Array:
        return ~self.first & (np.abs(self.y - np.roll(self.y, 1)) < 0.5 * self.resolution)

    @property
    def at_end(self) -> Array:
        """Readings at an extreme of their cell where it stays.

        None if the last digit is too coarse for that to be no chance.
        """
        equal, ends = self._equal, np.zeros(self.y.size, dtype=bool)
        changes = np.abs(np.diff(self.y))[~self.first[1:] & ~equal[1:]]
        typical = float(np.median(changes)) if changes.size else 0.0
        if not changes.size or typical < 20 * self.resolution:
            return ends
        for own in (self.cell == i for i in range(self.n_cells)):
            for d, extreme in ((-1, np.min), (1, np.max)):
                off = np.abs(self.y - extreme(self.y[own]))
                here = off < 0.5 * self.resolution
                at = own & here & ~self.first & (np.sign(self.pulses) == d)
                # a dropout may be repeated, too, but far from all else
                near = (off[own & ~here] < 5 * typical).any()
                if near and (at & equal).any():
                    ends |= at
        return ends


COLUMNS = {
    "pulse": "number of the pulse after which it was read, rising within a cell and cycle; gaps: "
    "pulses without a reading",
    "direction": "of that pulse: 1 or up, -1 or down; 0 = no pulse yet",
    "weight or conductance": "weight in range units, -1..1 or so; or conductance in any unit, "
    "named as in conductance_us",
    "device": "(optional) which cell",
    "cycle": "(optional) which repetition on that cell",
}
DIRECTIONS = {"1": 1, "+1": 1, "up": 1, "-1": -1, "down": -1, "0": 0, "": 0}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class _Header(NamedTuple):
    where: dict[str, int]  # column of pulse, direction, device, cycle and reading; -1 = none
    kind: str  # name of the column of readings
    n: int
    separator: str


class _Row(NamedTuple):
    line: int
    device: str
    cycle: str
    pulse: int
    direction: int
    reading: float
    exponent: int  # power of ten of its last digit


def read_pulses(
    path: str | Path,
    low: float | None = None,
    high: float | None = None,
    inverted: bool = False,
    without: Collection[int] = (),
) -> Measured:
    """The table of pulse responses in a text file, with columns as in COLUMNS, in any order.

    Parameters
    ----------
    path
        Columns are separated by commas, semicolons or tabs, as the header says; with semicolons and
        tabs, numbers may have decimal commas. Lines that start with # are skipped.
    low, high
        Conductances of w = -1 and w = 1 (of w = 0 and w = 1 if all pulses go up: one side of a
        pair); left out, the mean over cells of the lowest and highest reading.
    inverted
        Pulses that the table calls up are those that lower the weight, and the other way round.
    without
        Lines of the file to leave out, as of outliers; their pulses count.

    Returns
    -------
    Measured
        All readings, in range units.

    Raises
    ------
    InputError
        If the file cannot be used, with line and column.
    """
    source = one_line(cut(str(path), 200))
    lines, separator = _lines(path, source)
    header = _header(source, *lines[0], separator)
    weights = header.kind == "weight"
    if weights and (low is not None or high is not None):
        raise InputError(
            f"{source}: low and high are for conductances, but column weight is in range units: "
            "remove them"
        )
    sequences = _sequences(source, lines[1:], header)
    # of all lines, those left out too: the last digit stays the same from round to round
    last_digit = 10.0 ** min(row.exponent for rows in sequences.values() for row in rows)
    used = {
        key: [row for row in rows if row.line not in without] for key, rows in sequences.items()
    }
    labels = list(dict.fromkeys(device for device, _ in used))
    unit = header.kind.removeprefix("conductance").strip(" _()[]") or "the table's unit"
    # names of columns have been put in small letters
    unit = f"{unit[:-1]}S" if unit in SIEMENS else unit
    read = _arranged(source, labels, used, -1 if inverted else 1)
    one_sided = not (read["pulses"] < 0).any()
    _check_cells(source, labels, one_sided, read)
    zero, per_range = 0.0, 1.0
    if weights:
        _check_weights(source, read["y"], one_sided)
    else:
        zero, per_range = _range(source, read["y"], read["cell"], low, high, one_sided)
    resolution = _resolution(read["y"], last_digit) / per_range
    read["y"] = (read["y"] - zero) / per_range
    return Measured(
        **read,
        labels=[label or "0" for label in labels],
        unit="range" if weights else unit,
        zero=zero,
        per_range=per_range,
        one_sided=one_sided,
        # a finer one tells nothing more, and a likelihood of almost none is hard to climb
        resolution=max(resolution, 1e-6 * float(np.ptp(read["y"]))),
    )


def _lines(path: str | Path, source: str) -> tuple[list[tuple[int, list[str]]], str]:
    """The lines that are not empty, with their numbers, and what separates their cells."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            # one byte more than allowed shows that there is more
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_BYTES} bytes")
        # spreadsheets put a byte order mark before UTF-8
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(
            f"{source}: cannot be read ({why}): give a CSV file of measured pulse responses"
        ) from None
    if "\0" in text:
        raise InputError(f"{source}: not a text file (it holds a zero byte): give a CSV file")
    said = (
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    )
    head = next(said, "")
    # where semicolons or tabs separate, a comma is a decimal one
    separator = next((sign for sign in (";", "\t") if sign in head), ",")
    lines = []
    rows = csv.reader(io.StringIO(text), delimiter=separator)
    # where each begins: a cell in quotes may have several lines
    number = 1
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                lines.append((number, cells))
            number = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{source}: line {number}: not valid CSV ({error})") from None
    if len(lines) < 2:
        raise InputError(
            f"{source}: holds no readings: give a header and a line per reading "
            f"({', '.join(COLUMNS)})"
        )
    if len(lines) > MAX_ROWS:
        raise InputError(f"{source}: has more than {MAX_ROWS} readings: leave some out")
    return lines, separator


def _header(source: str, line: int, cells: list[str], separator: str) -> _Header:
    names = [name.strip().lower() for name in cells]
    where = {}
    for column in ("pulse", "direction", "device", "cycle"):
        if names.count(column) > 1:
            raise InputError(f"{source}: line {line}: column {column} is there twice: remove one")
        where[column] = names.index(column) if column in names else -1
    readings = [
        i for i, name in enumerate(names) if name == "weight" or name.startswith("conductance")
    ]
    if not readings and max(where.values()) < 0 and any(map(_is_number, names)):
        raise InputError(
            f"{source}: line {line}: holds numbers, but the first line must name the columns: put "
            "a header above it, such as device,pulse,direction,conductance_us"
        )
    if min(where["pulse"], where["direction"]) < 0 or len(readings) != 1:
        found = one_line(cut(", ".join(names), 100))
        raise InputError(
            f"{source}: line {line}: columns, separated by {SEPARATORS[separator]}, are {found}, "
            "but pulse, direction and one of weight, conductance_us are needed (device, cycle may "
            "be added)"
        )
    where["reading"] = readings[0]
    return _Header(where, names[readings[0]], len(names), separator)


def _sequences(
    source: str, lines: list[tuple[int, list[str]]], header: _Header
) -> dict[tuple[str, str], list[_Row]]:
    """The readings of each device and cycle, in the order of their pulses."""
    sequences: dict[tuple[str, str], list[_Row]] = {}
    for line, cells in lines:
        row = _row(source, line, cells, header)
        sequence = sequences.setdefault((row.device, row.cycle), [])
        if sequence and row.pulse <= sequence[-1].pulse:
            raise InputError(
                f"{source}: line {line}: pulse = {row.pulse} does not follow "
                f"{sequence[-1].pulse}, the one before it on device {row.device or 0}, cycle "
                f"{row.cycle or 0}: number the pulses, and name the cycles in a column cycle"
            )
        if sequence and row.direction == 0:
            raise InputError(
                f"{source}: line {line}: direction = 0 is for the reading before the first pulse: "
                "give 1 or -1"
            )
        sequence.append(row)
    return sequences


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text.strip()) is not None


def _decimal(text: str, separator: str) -> Decimal | None:
    """A number as people write it; nothing else that Python takes for one, such as 1_000."""
    if not _is_number(text) or ("," in text and separator == ","):
        return None
    try:
        return Decimal(text.replace(",", "."))
    except ArithmeticError:
        return None


def _row(source: str, line: int, cells: list[str], header: _Header) -> _Row:
    if len(cells) != header.n:
        hint = ""
        if header.separator == "," and len(cells) > header.n:
            hint = (
                " (separated by commas: numbers with decimal commas need semicolons or tabs "
                "between them)"
            )
        raise InputError(
            f"{source}: line {line}: has {len(cells)} columns but the header has {header.n}{hint}"
        )
    text = {name: cells[i].strip() if i >= 0 else "" for name, i in header.where.items()}

    def wrong(column: str, must: str, name: str = "") -> InputError:
        value = one_line(cut(text[column], 40)) or "nothing"
        return InputError(f"{source}: line {line}: {name or column} = {value} must be {must}")

    written = _decimal(text["pulse"], header.separator)
    number = -1.0 if written is None else float(written)
    if not (0 <= number <= 1e9 and number == int(number)):
        raise wrong("pulse", "an integer >= 0")
    # whole numbers may be written as floats: 1.0
    direction = text["direction"].lower().removesuffix(".0")
    if direction not in DIRECTIONS:
        raise wrong("direction", "1 or up, -1 or down, or 0 before the first pulse")
    written = _decimal(text["reading"], header.separator)
    if written is None or not math.isfinite(float(written)):
        comma = "," in text["reading"]
        point = ", with a decimal point where commas separate the columns" if comma else ""
        raise wrong("reading", f"a finite number{point}", header.kind)
    if header.kind == "weight" and abs(written) > 10:
        must = "in range units, -1..1 or so; name the column conductance if it is one"
        raise wrong("reading", must, header.kind)
    return _Row(
        line=line,
        device=text["device"],
        cycle=text["cycle"],
        pulse=int(number),
        direction=DIRECTIONS[direction],
        reading=float(written),
        # 10 to that power must not become 0
        exponent=max(int(written.as_tuple().exponent), -300),
    )


def _arranged(
    source: str, labels: list[str], sequences: dict[tuple[str, str], list[_Row]], sign: int
) -> dict[str, Array]:
    """Readings, in the table's unit, cell by cell."""
    if len(labels) > MAX_CELLS:
        raise InputError(
            f"{source}: has {len(labels)} devices but at most {MAX_CELLS} can be fitted: leave "
            "some out"
        )
    places = {label: i for i, label in enumerate(labels)}
    found = []
    for (device, _), rows in sorted(sequences.items(), key=lambda item: places[item[0][0]]):
        for place, row in enumerate(rows):
            # a difference of numbers: pulses of lines that were left out count
            pulses = sign * row.direction * (row.pulse - rows[max(place - 1, 0)].pulse)
            number = row.pulse - rows[0].pulse
            found.append((row.reading, pulses, place == 0, places[device], number, row.line))
    names = ("y", "pulses", "first", "cell", "number", "line")
    return dict(zip(names, map(np.array, zip(*found, strict=True)), strict=True))


def _check_cells(source: str, labels: list[str], one_sided: bool, read: dict[str, Array]) -> None:
    """Every cell has enough readings, and pulses change them."""
    directions = np.sign(read["pulses"])
    for i, label in enumerate(labels):
        named = f"{source}: device {one_line(cut(label, 40)) or 0}"
        own = read["cell"] == i
        for sign, word in ((1, "up"), (-1, "down"))[: 1 if one_sided else 2]:
            n = int((directions[own] == sign).sum())
            if n < MIN_READINGS:
                raise InputError(
                    f"{named} has {n} readings after pulses {word}, but {MIN_READINGS} are needed: "
                    "measure more"
                )
        values = read["y"][own]
        if np.ptp(values) == 0:
            raise InputError(
                f"{named} reads {values[0]:g} everywhere: no pulse changes it, so nothing can be "
                "fitted"
            )
    gap = np.abs(read["pulses"]).max()
    if gap > MAX_GAP:
        raise InputError(
            f"{source}: {gap} pulses without a reading between are too many: at most {MAX_GAP}"
        )


def _check_weights(source: str, values: Array, one_sided: bool) -> None:
    if not one_sided and not values.min() < 0 < values.max():
        raise InputError(
            f"{source}: weights reach from {values.min():g} to {values.max():g}, but w = 0 must "
            "lie within: measure both signs, or name the column conductance if it is one"
        )
    if one_sided and values.min() < -0.5:
        raise InputError(
            f"{source}: all pulses go up, as on a side of a pair, but weights reach "
            f"{values.min():g}: sides start at 0"
        )


def _range(
    source: str,
    values: Array,
    cell: Array,
    low: float | None,
    high: float | None,
    one_sided: bool,
) -> tuple[float, float]:
    """Conductance of w = 0, and conductance per range unit."""
    # cells rise along the table: each is one slice
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    low = float(np.minimum.reduceat(values, starts).mean()) if low is None else low
    high = float(np.maximum.reduceat(values, starts).mean()) if high is None else high
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"{source}: low = {low:g} must be less than high = {high:g}")
    zero, per_range = (low, high - low) if one_sided else ((low + high) / 2, (high - low) / 2)
    most = np.abs((values - zero) / per_range).max()
    if most > 10:
        raise InputError(
            f"{source}: readings reach {most:.3g} times the range that low = {low:g} and high = "
            f"{high:g} span: give the conductances of w = -1 and w = 1"
        )
    return zero, per_range


def _resolution(values: Array, last_digit: float) -> float:
    """Spacing of the readings: that on which all lie, as a converter's; else the last digit."""
    steps = np.diff(np.unique(values))
    steps = steps[steps > 0.5 * last_digit]
    if not steps.size:
        return last_digit
    # of all steps together: the smallest alone is off by its last digit
    spacing = float(steps.sum() / np.rint(steps / steps.min()).sum())
    places = steps / spacing
    # written to the last digit, places are off by as much; on no spacing, a fifth would pass
    allowed = 0.05 + 1.01 * min(last_digit / spacing, 0.05)
    # a few steps may lie on a spacing by chance
    on_it = steps.size >= 8 and bool((np.abs(places - np.rint(places)) <= allowed).all())
    return spacing if on_it else last_digit
