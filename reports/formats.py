"""Numbers and names as reports write them, and cells of tables that are more than a number."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Format = Callable[[float], str]


class Estimate(NamedTuple):
    """0.98 +- 0.01, or 0.98 [0.97, 0.99]; what is not known of it is NaN."""

    value: float
    stderr: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def text(self, format: Format) -> str:
        if math.isnan(self.value):
            return format(self.value)
        error = f" +- {number(self.stderr)}" if math.isfinite(self.stderr) else ""
        # NaN compares as false: no interval
        interval = f" [{format(self.low)}, {format(self.high)}]" if self.low < self.high else ""
        return f"{format(self.value)}{error}{interval}"


class Quantity(NamedTuple):
    """33.1 us, or 2.15 of what has no unit of time or energy; inf, as facts say of it."""

    value: float
    unit: str

    def text(self, format: Format) -> str:
        # `format` would hide it as "-", but an infinite fact means never
        if math.isinf(self.value):
            return str(self.value)
        known = self.unit in ("s", "J") and math.isfinite(self.value)
        return si(self.value, self.unit) if known else format(self.value)


class Spread(NamedTuple):
    """0.26 +- 0.03, where that is a standard deviation; what is not known of it is NaN."""

    value: float
    sd: float

    def text(self, format: Format) -> str:
        return Estimate(self.value, self.sd).text(format)


class ErrorBar(NamedTuple):
    """A standard error with an interval that is not made of it; nothing where there is no error."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def text(self, format: Format) -> str:
        # 0 is exact and needs no error bar; NaN, of one that is not known, is written "-"
        error = format(self.value) if self.value else ""
        known = self.low <= self.high
        return f"{error} [{format(self.low)}, {format(self.high)}]".strip() if known else error


class Below(NamedTuple):
    """< 0.01: a bound, where no more is known."""

    value: float

    def text(self, format: Format) -> str:
        return f"< {format(self.value)}"


class Part(NamedTuple):
    """3 of 5."""

    value: int
    of: int

    def text(self, format: Format) -> str:
        return f"{self.value} of {self.of}"


class Share(NamedTuple):
    """14.2 uJ, 35 %: part of a total."""

    value: float
    of: float

    def text(self, format: Format) -> str:
        share = self.value / self.of
        return f"{format(self.value)}, {'<1%' if 0 < share < 0.005 else f'{share:.0%}'}"


Cell = str | float | Estimate | Quantity | Spread | ErrorBar | Below | Part | Share


def written(cell: Any, format: Format) -> str:
    """A cell of a table as a text."""
    if isinstance(cell, str):
        return cell
    # by what it can do, not by its class: a view may have a cell of its own
    return cell.text(format) if hasattr(cell, "text") else format(cell)


def sort_value(cell: Any) -> float:
    """What a table is sorted by; NaN of a text."""
    return math.nan if isinstance(cell, str) else float(getattr(cell, "value", cell))


def si(value: float, unit: str) -> str:
    """12.3 ms, 4.50 uJ; never."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "never"
    prefixes = {1.0: "", 1e-3: "m", 1e-6: "u", 1e-9: "n", 1e-12: "p"}
    # 0.9995 and not 1: 0.9996e-3 is shown as 1 m, not as 1000 u
    scale = (
        next((scale for scale in prefixes if abs(value) >= 0.9995 * scale), 1e-12) if value else 1.0
    )
    scaled = value / scale
    # no prefix above 1: 1,200 s, and not 1.2e+03 s
    digits = f"{scaled:.3g}" if abs(scaled) < 999.5 else f"{scaled:,.0f}"
    return f"{digits} {prefixes[scale]}{unit}"


def seconds(value: float) -> str:
    """12.3 ms."""
    return si(value, "s")


def joules(value: float) -> str:
    """4.50 uJ."""
    return si(value, "J")


def count(value: float) -> str:
    """16,384; 745 M; never."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "never"
    # below a million every digit can be read
    for scale, suffix in ((1e12, "e12"), (1e9, " G"), (1e6, " M")):
        if value >= scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:,.0f}"


def number(value: float) -> str:
    """Three significant digits, '-' where unknown."""
    if not math.isfinite(value):
        return "-"
    # .3g would write 1234 as 1.23e+03
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e5 else f"{value:.3g}"


def fixed(value: float, spec: str) -> str:
    """In a format of Python's, '-' where unknown."""
    return format(value, spec) if math.isfinite(value) else "-"


def cosine(value: float) -> str:
    """Four digits."""
    return fixed(value, ".4f")


def percent(value: float) -> str:
    """93%."""
    return fixed(value, ".0%")


def integer(value: float) -> str:
    """Every digit, such as of a seed."""
    # `number` would cut a seed down to three digits
    return str(value)


def edge_value(value: float) -> str:
    """Where what is wanted is met, of the values swept."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "above all" if value > 0 else "below all"
    # whole values stay whole: 1000 trials, not 1e+03
    return fixed(value, ".0f" if value == round(value) and abs(value) < 1e9 else ".3g")


def amount(value: float) -> str:
    """42,636 or 745 million, in a sentence."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}" if value < 1e15 else f"{value:.2g}"
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}"


def method_name(row: Mapping[Any, Any]) -> str:
    """difference/walsh."""
    return f"{row['method']}/{row['code']}"
