"""Numbers and names as reports write them."""

import math

Rows = tuple[list[str], list[list[str]]]  # a header and its rows; the first two columns are text, the others numbers
Titled = tuple[str, str, Rows]


def si(value: float, unit: str) -> str:
    """12.3 ms, 4.50 uJ."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return f"0 {unit}"
    prefixes = {1.0: "", 1e-3: "m", 1e-6: "u", 1e-9: "n", 1e-12: "p"}
    scale = next((scale for scale in prefixes if abs(value) >= 0.9995 * scale), 1e-12)
    prefix, scaled = prefixes[scale], value / scale
    return f"{scaled:.3g} {prefix}{unit}" if abs(scaled) < 999.5 else f"{scaled:,.0f} {prefix}{unit}"


def count(value: float) -> str:
    """16,384; 745 M; never."""
    if math.isinf(value):
        return "never"
    for scale, suffix in ((1e12, "e12"), (1e9, " G"), (1e6, " M")):
        if value >= scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:,.0f}"


def number(value: float) -> str:
    """Three significant digits, '-' where unknown."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e5 else f"{value:.3g}"


def cosine(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def series_name(parts: tuple[str, ...]) -> str:
    """difference/walsh."""
    return "/".join(parts)
