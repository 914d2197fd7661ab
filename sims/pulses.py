"""Tables of measured pulse responses, as people write them: read, checked, and brought to range
units.
"""

import csv
import errno
import io
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from perturb.errors import InputError, cut, one_line
from perturb.files import open_regular

Array = np.ndarray

MAX_ROWS = 10**6
MAX_BYTES = 1 << 27  # of a file, more than lines of so many readings take
MIN_READINGS = 20  # in each direction, of each cell
MAX_CELLS = 1000


@dataclass(frozen=True)
class Measured:
    """Readings y in range units, in the order of the file within each sequence; `first` begins
    one (a cell's cycle).
    """

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
    resolution: float  # of a reading: the true one lies within half of it
    line: Array  # of the file

    @property
    def n_cells(self) -> int:
        return len(self.labels)

    @property
    def span(self) -> float:
        return float(np.ptp(self.y))

    @property
    def repeats(self) -> bool:
        """Whether readings equal those before them, as at a hard bound."""
        return bool(self._equal.any())

    @property
    def _equal(self) -> Array:
        return ~self.first & (np.abs(self.y - np.roll(self.y, 1)) < 0.5 * self.resolution)

    @property
    def at_end(self) -> Array:
        """Readings at an extreme of their cell where it stays, if the last digit is too fine for
        that to be chance.
        """
        equal = self._equal
        ends = np.zeros(self.y.size, dtype=bool)
        changes = np.abs(np.diff(self.y))[~self.first[1:] & ~equal[1:]]
        if changes.size and np.median(changes) >= 20 * self.resolution:
            for i in range(self.n_cells):
                for d, extreme in ((-1, np.min), (1, np.max)):
                    own = self.cell == i
                    off = np.abs(self.y - extreme(self.y[own]))
                    at = (
                        own
                        & ~self.first
                        & (np.sign(self.pulses) == d)
                        & (off < 0.5 * self.resolution)
                    )
                    # a dropout may be repeated, too, but far from all else
                    near = (
                        off[own & (off >= 0.5 * self.resolution)] < 5 * np.median(changes)
                    ).any()
                    if near and (at & equal).any():
                        ends |= at
        return ends


COLUMNS = {
    "pulse": (
        "number of the pulse after which it was read, rising within a cell and cycle; gaps: pulses"
        " without a reading"
    ),
    "direction": "of that pulse: 1 or up, -1 or down; 0 = no pulse yet",
    "weight or conductance": (
        "weight in range units, -1..1 or so; or conductance in any unit, named as in conductance_us"
    ),
    "device": "(optional) which cell",
    "cycle": "(optional) which repetition on that cell",
}
DIRECTIONS = {"1": 1, "+1": 1, "up": 1, "-1": -1, "down": -1, "0": 0, "": 0}


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

    Raises
    ------
    InputError
        If the file cannot be used, with line and column.
    """
    source = one_line(cut(str(path), 200))
    lines, separator = _lines(path, source)
    header_line, header = lines[0]
    names = [name.strip().lower() for name in header]
    where = {}
    for column in ("pulse", "direction", "device", "cycle"):
        if names.count(column) > 1:
            raise InputError(
                f"{source}: line {header_line}: column {column} is there twice: remove one"
            )
        where[column] = names.index(column) if column in names else -1
    readings = [
        i for i, name in enumerate(names) if name == "weight" or name.startswith("conductance")
    ]
    if min(where["pulse"], where["direction"]) < 0 or len(readings) != 1:
        if not readings and max(where.values()) < 0 and any(map(_is_number, names)):
            raise InputError(
                f"{source}: line {header_line}: holds numbers, but the first line must name the"
                " columns: put a header above it, such as device,pulse,direction,conductance_us"
            )
        found = (
            f"columns, separated by {SEPARATORS[separator]}, are"
            f" {one_line(cut(', '.join(names), 100))}"
        )
        raise InputError(
            f"{source}: line {header_line}: {found}, but pulse, direction and one of weight,"
            " conductance_us are needed (device, cycle may be added)"
        )
    where["reading"] = readings[0]
    kind = names[readings[0]]
    weights = kind == "weight"
    unit = (
        "range"
        if weights
        else kind.removeprefix("conductance").strip(" _()[]") or "the table's unit"
    )
    if weights and (low is not None or high is not None):
        raise InputError(
            f"{source}: low and high are for conductances, but column weight is in range units:"
            " remove them"
        )

    rows = [
        _row(source, line, cells, where, len(names), kind, separator) for line, cells in lines[1:]
    ]
    sequences: dict[tuple[str, str], list[tuple[int, int, int, float]]] = {}
    for line, cell, cycle, number, direction, reading, _ in rows:
        sequence = sequences.setdefault((cell, cycle), [])
        if sequence and number <= sequence[-1][1]:
            raise InputError(
                f"{source}: line {line}: pulse = {number} does not follow {sequence[-1][1]}, the"
                f" one before it on device {cell or 0}, cycle {cycle or 0}: number the pulses, and"
                " name the cycles in a column cycle"
            )
        if sequence and direction == 0:
            raise InputError(
                f"{source}: line {line}: direction = 0 is for the reading before the first pulse:"
                " give 1 or -1"
            )
        sequence.append((line, number, -direction if inverted else direction, reading))
    last_digit = 10.0 ** min(exponent for *_, exponent in rows)
    return _normalised(source, sequences, weights, unit, low, high, last_digit, without)


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def _lines(path: str | Path, source: str) -> tuple[list[tuple[int, list[str]]], str]:
    """The lines that are not empty, with their numbers, and what separates their cells."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_BYTES} bytes")
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a text in UTF-8"
        raise InputError(
            f"{source}: cannot be read ({why}): give a CSV file of measured pulse responses"
        ) from None
    if "\0" in text:
        raise InputError(f"{source}: not a text (it holds a zero byte): give a CSV file")
    lines = []
    number = 0
    try:
        head = next(
            (
                line
                for line in text.splitlines()
                if line.strip() and not line.lstrip().startswith("#")
            ),
            "",
        )
        separator = next((sign for sign in (";", "\t") if sign in head), ",")
        for number, cells in enumerate(csv.reader(io.StringIO(text), delimiter=separator), 1):
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                lines.append((number, cells))
    except csv.Error as error:
        raise InputError(f"{source}: line {number + 1}: not valid CSV ({error})") from None
    if len(lines) < 2:
        raise InputError(
            f"{source}: holds no readings: give a header and a line per reading"
            f" ({', '.join(COLUMNS)})"
        )
    if len(lines) > MAX_ROWS:
        raise InputError(f"{source}: has more than {MAX_ROWS} readings: leave some out")
    return lines, separator


NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text.strip()) is not None


def _decimal(text: str, separator: str) -> Decimal:
    """A number as people write it; nothing else that Python takes for one, such as 1_000."""
    if not _is_number(text) or ("," in text and separator == ","):
        raise ValueError
    return Decimal(text.replace(",", "."))


def _row(
    source: str,
    line: int,
    cells: list[str],
    where: dict[str, int],
    n: int,
    kind: str,
    separator: str,
) -> tuple[int, str, str, int, int, float, int]:
    """Line, device, cycle, number of the pulse, direction, reading, and the power of ten of its
    last digit.
    """
    if len(cells) != n:
        hint = ""
        if separator == "," and len(cells) > n:
            hint = (
                " (separated by commas: numbers with decimal commas need semicolons or tabs between"
                " them)"
            )
        raise InputError(
            f"{source}: line {line}: has {len(cells)} columns but the header has {n}{hint}"
        )

    def value(column: str) -> str:
        return cells[where[column]].strip() if where[column] >= 0 else ""

    def wrong(column: str, text: str, must: str) -> InputError:
        return InputError(
            f"{source}: line {line}: {column} = {one_line(cut(text, 40)) or 'nothing'} must be"
            f" {must}"
        )

    try:
        number = float(_decimal(value("pulse"), separator))
    except (ValueError, ArithmeticError):
        number = -1.0
    if not (0 <= number <= 1e9 and number == int(number)):
        raise wrong("pulse", value("pulse"), "a whole number >= 0")
    direction = value("direction").lower().removesuffix(".0")
    if direction not in DIRECTIONS:
        raise wrong(
            "direction", value("direction"), "1 or up, -1 or down, or 0 before the first pulse"
        )
    try:
        written = _decimal(value("reading"), separator)
        reading = float(written)
    except (ValueError, ArithmeticError):
        reading = math.nan
    if not math.isfinite(reading):
        point = (
            ", with a decimal point where commas separate the columns"
            if "," in value("reading")
            else ""
        )
        raise wrong(kind, value("reading"), f"a finite number{point}")
    if kind == "weight" and abs(reading) > 10:
        raise wrong(
            kind,
            value("reading"),
            "in range units, -1..1 or so; name the column conductance if it is one",
        )
    exponent = max(int(written.as_tuple().exponent), -300)
    return (
        line,
        value("device"),
        value("cycle"),
        int(number),
        DIRECTIONS[direction],
        reading,
        exponent,
    )


def _resolution(values: Array, last_digit: float) -> float:
    """Spacing of the readings: that of the values there are if all lie on one, as those of a
    converter; else the last digit.
    """
    steps = np.diff(np.unique(values))
    if not steps.size:
        return last_digit
    steps = steps[steps > 0.5 * last_digit]
    spacing = float(steps.sum() / np.rint(steps / steps.min()).sum())
    places = steps / spacing
    # written to the last digit, places are off by as much as that; of readings on no spacing, a
    # fifth would pass
    on_it = steps.size >= 8 and bool(
        (np.abs(places - np.rint(places)) <= 0.05 + 1.01 * min(last_digit / spacing, 0.05)).all()
    )
    return spacing if on_it else last_digit


def _normalised(
    source: str,
    sequences: dict[tuple[str, str], list],
    weights: bool,
    unit: str,
    low: float | None,
    high: float | None,
    last_digit: float,
    without: Collection[int],
) -> Measured:
    labels = list(dict.fromkeys(cell for cell, _ in sequences))
    if len(labels) > MAX_CELLS:
        raise InputError(
            f"{source}: has {len(labels)} devices but at most {MAX_CELLS} can be fitted: leave"
            " some out"
        )
    y = []
    pulses = []
    first = []
    cell = []
    number = []
    lines = []
    for label in labels:
        for (own, _), sequence in sequences.items():
            sequence = [row for row in sequence if row[0] not in without]
            if own == label and sequence:
                before = sequence[0][1]
                for place, (line, count, direction, reading) in enumerate(sequence):
                    lines.append(line)
                    y.append(reading)
                    pulses.append(direction * (count - before))
                    first.append(place == 0)
                    cell.append(labels.index(label))
                    number.append(count - sequence[0][1])
                    before = count
    values = np.array(y)
    changes = np.array(pulses)
    cells = np.array(cell)
    one_sided = not (changes < 0).any()
    for i, label in enumerate(labels):
        named = f"{source}: device {one_line(cut(label, 40)) or 0}"
        for sign, word in ((1, "up"), (-1, "down"))[: 1 if one_sided else 2]:
            n = int((np.sign(changes[cells == i]) == sign).sum())
            if n < MIN_READINGS:
                raise InputError(
                    f"{named} has {n} readings after pulses {word}, but {MIN_READINGS} are needed:"
                    " measure more"
                )
        if np.ptp(values[cells == i]) == 0:
            raise InputError(
                f"{named} reads {values[cells == i][0]:g} everywhere: no pulse changes it, so"
                " nothing can be fitted"
            )
    if np.abs(changes).max() > 10**5:
        raise InputError(
            f"{source}: {np.abs(changes).max()} pulses without a reading between are too many: at"
            " most 100000"
        )
    zero = 0.0
    per_range = 1.0
    if weights and not one_sided and not values.min() < 0 < values.max():
        raise InputError(
            f"{source}: weights reach from {values.min():g} to {values.max():g}, but w = 0 must lie"
            " within: measure both signs, or name the column conductance if it is one"
        )
    if weights and one_sided and values.min() < -0.5:
        raise InputError(
            f"{source}: all pulses go up, as on a side of a pair, but weights reach"
            f" {values.min():g}: sides start at 0"
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
                f"{source}: readings reach {np.abs(values).max():.3g} times the range that low ="
                f" {low:g} and high = {high:g} span: give the conductances of w = -1 and w = 1"
            )
    # a finer one than this tells nothing more, and a likelihood of almost none is hard to climb
    resolution = max(_resolution(np.array(y), last_digit) / per_range, 1e-6 * float(np.ptp(values)))
    return Measured(
        values,
        changes,
        np.array(first),
        cells,
        [label or "0" for label in labels],
        np.array(number),
        unit,
        zero,
        per_range,
        one_sided,
        resolution,
        np.array(lines),
    )
