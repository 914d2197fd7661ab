"""The comparison of a run as text: on the terminal and in Markdown."""

import math
from typing import TYPE_CHECKING

import pandas as pd

from reports.frames import Frames

if TYPE_CHECKING:
    from rich.console import Console


def si(value: float, unit: str) -> str:
    """12.3 ms, 4.50 uJ."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return f"0 {unit}"
    for scale, prefix in ((1, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p")):
        if abs(value) >= 0.9995 * scale or scale == 1e-12:
            return f"{value / scale:.3g} {prefix}{unit}" if abs(value / scale) < 999.5 else f"{value / scale:,.0f} {prefix}{unit}"
    raise AssertionError


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
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def cosine(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def accuracy_rows(frames: Frames, quantity: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the accuracy table of one quantity."""
    header = ["method", "code", "predicted cosine", "measured cosine", "relative error", "stderr (rms)", "from exact, in stderr"]
    header += ["from own limit, relative", "in stderr"] if quantity == "hv" else []
    rows = []
    for _, row in _of(frames, quantity).iterrows():
        cells = [str(row["method"]), str(row["code"]), cosine(row["predicted_cosine"]), cosine(row["cosine"])]
        cells += [number(row["relative_error"]), number(row["rms_stderr"]), number(row["z_rms"])]
        rows.append(cells + ([number(row["limit_relative_error"]), number(row["limit_z_rms"])] if quantity == "hv" else []))
    return header, rows


def cost_rows(frames: Frames) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the cost table."""
    header = ["method", "code", "what it is", "broadcasts", "trials", "evaluations", "evaluations to 0.9"]
    header += ["chip time", "energy", "wall time"]
    rows = []
    for _, row in _of(frames, "hv").iterrows():
        cells = [str(row["method"]), str(row["code"]), row["label"], row["broadcasts"], count(row["trials"]), count(row["evaluations"])]
        cells += [count(row["evaluations_to_0_9"]), si(row["chip_time_s"], "s"), si(row["energy_j"], "J"), si(row["wall_time_s"], "s")]
        rows.append(cells)
    return header, rows


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """(method/code, what came of its z) per method."""
    return [(f"{row['method']}/{row['code']}", str(row["verdict"])) for _, row in _of(frames, "hv").iterrows()]


def print_run(frames: Frames, console: "Console") -> None:
    """Print the comparison of a run."""
    console.print(frames.provenance["description"] + f" (seed {frames.provenance['seed']})", soft_wrap=False)
    if frames.partial:
        console.print("PARTIAL: the run was interrupted; these are the results up to then.", style="bold red")
    console.print()
    _print(console, "z = Hv, estimated against exact R{backprop}", *accuracy_rows(frames, "hv"))
    _print(console, "gradient, estimated against exact backprop", *accuracy_rows(frames, "gradient"))
    _print(console, "what z costs, each at the same number of evaluations", *cost_rows(frames))
    for name, verdict in verdicts(frames):
        console.print(f"{name} {verdict}.")


def _print(console: "Console", title: str, header: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(header):
        text = name in ("method", "code", "what it is", "broadcasts")
        width = max(len(row[i]) for row in rows)
        # numbers never break, words may
        table.add_column(name, justify="left" if text else "right", no_wrap=False, min_width=None if text else width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def markdown(frames: Frames) -> str:
    """The comparison of a run as Markdown."""
    lines = [f"# {frames.provenance['experiment']}", "", frames.provenance["description"] + ".", ""]
    if frames.partial:
        lines += ["**Partial:** the run was interrupted; these are the results up to then.", ""]
    lines += [f"- `{name}` {verdict}." for name, verdict in verdicts(frames)] + [""]
    tables = (("z = Hv", accuracy_rows(frames, "hv")), ("Gradient", accuracy_rows(frames, "gradient")), ("Cost", cost_rows(frames)))
    for title, (header, rows) in tables:
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows] + [""]
    lines += [f"Reproduce: `{frames.provenance['command']}` (seed {frames.provenance['seed']})", ""]
    return "\n".join(lines)


def _of(frames: Frames, quantity: str) -> pd.DataFrame:
    return frames.summary[frames.summary["quantity"] == quantity]


