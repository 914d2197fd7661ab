"""Numbers and names as reports write them."""

import math
from collections.abc import Mapping
from typing import Any


class Number(str):
    """A number as a table shows it, which it still is: tables sort by `value`."""

    value: float

    def __new__(cls, text: str, value: float) -> "Number":
        made = super().__new__(cls, text)
        made.value = float(value)
        return made


# a header and its rows, of texts and numbers; the second column explains the first, or is empty
Rows = tuple[list[str], list[list[str]]]


Titled = tuple[str, str, Rows]


def si(value: float, unit: str) -> str:
    """12.3 ms, 4.50 uJ."""
    if not math.isfinite(value):
        return "-"
    prefixes = {1.0: "", 1e-3: "m", 1e-6: "u", 1e-9: "n", 1e-12: "p"}
    scale = (
        next((scale for scale in prefixes if abs(value) >= 0.9995 * scale), 1e-12) if value else 1.0
    )
    scaled = value / scale
    digits = f"{scaled:.3g}" if abs(scaled) < 999.5 else f"{scaled:,.0f}"
    return Number(f"{digits} {prefixes[scale]}{unit}", value)


def count(value: float) -> str:
    """16,384; 745 M; never."""
    if math.isinf(value):
        return Number("never", value)
    for scale, suffix in ((1e12, "e12"), (1e9, " G"), (1e6, " M")):
        if value >= scale:
            return Number(f"{value / scale:.3g}{suffix}", value)
    return Number(f"{value:,.0f}", value)


def number(value: float) -> str:
    """Three significant digits, '-' where unknown."""
    if not math.isfinite(value):
        return "-"
    return Number(f"{value:,.0f}" if 999.5 <= abs(value) < 1e5 else f"{value:.3g}", value)


def fixed(value: float, spec: str) -> str:
    """In a format of Python's, '-' where unknown."""
    return Number(format(value, spec), value) if math.isfinite(value) else "-"


def with_interval(middle: str, low: str, high: str) -> str:
    """0.0123 [0.0118, 0.0131]."""
    text = f"{middle} [{low}, {high}]"
    return Number(text, middle.value) if isinstance(middle, Number) else text


def with_error(middle: str, error: str) -> str:
    """0.98 +- 0.01."""
    text = f"{middle} +- {error}"
    return Number(text, middle.value) if isinstance(middle, Number) else text


def amount(value: float) -> str:
    """42,636 or 745 million, in a sentence."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}" if value < 1e15 else f"{value:.2g}"
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}"


def cosine(value: float) -> str:
    """Four digits, '-' where unknown."""
    return fixed(value, ".4f")


def method_name(row: Mapping[Any, Any]) -> str:
    """difference/walsh."""
    return f"{row['method']}/{row['code']}"
