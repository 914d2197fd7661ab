"""The comparison of a run as text: on the terminal and in Markdown."""

import math
from typing import TYPE_CHECKING

import pandas as pd

from reports.frames import Frames

if TYPE_CHECKING:
    from rich.console import Console

Rows = tuple[list[str], list[list[str]]]  # a header and its rows; the first two columns are text, the others numbers


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


def accuracy(frames: Frames, quantity: str) -> Rows:
    """How good the estimates of one quantity are, a row per method. z: a distance in standard errors, rms over the weights."""
    second = "label" if quantity == "hv" else "broadcasts"
    header = ["method/code", "what it is" if quantity == "hv" else second, "predicted cosine", "measured cosine"]
    header += ["relative error", "stderr (rms)", "z to exact", *(["limit error", "z to limit"] if quantity == "hv" else [])]
    rows = []
    for _, row in of(frames, quantity).iterrows():
        cells = [name(row), row[second], cosine(row["predicted_cosine"]), cosine(row["cosine"])]
        cells += [number(row[key]) for key in ("relative_error", "rms_stderr", "z_rms")]
        rows.append(cells + [number(row[key]) for key in ("limit_relative_error", "limit_z_rms") if quantity == "hv"])
    return header, rows


def cost(frames: Frames) -> Rows:
    """What each method spent on the chip, and what z (or else the gradient) to a cosine of 0.9 would take."""
    header = ["method/code", "broadcasts", "trials", "evaluations", "for cosine 0.9", "chip time", "energy", "wall time"]
    rows = []
    for _, row in of_each(frames).iterrows():
        cells = [name(row), row["broadcasts"], count(row["trials"]), count(row["evaluations"]), count(row["evaluations_to_0_9"])]
        rows.append([*cells, si(row["chip_time_s"], "s"), si(row["energy_j"], "J"), si(row["wall_time_s"], "s")])
    return header, rows


def tables(frames: Frames) -> list[tuple[str, str, Rows]]:
    """(title, what it says, table) of everything a comparison shows."""
    z = (
        "z = Hv, estimated against exact R{backprop}",
        "limit error: distance of the estimate from what theory says the method tends to, relative to that limit; "
        "z: rms distance in standard errors, about 1 where nothing but noise is left",
        accuracy(frames, "hv"),
    )
    return [
        *([z] if frames.methods("hv") else []),
        ("Gradient, estimated against exact backprop", "", accuracy(frames, "gradient")),
        (
            "What it cost, each method at the same number of evaluations",
            "evaluations: measurements of E; for cosine 0.9: evaluations until z (or the gradient, where that is all) has a "
            "cosine of 0.9, by theory",
            cost(frames),
        ),
    ]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """(method/code, what came of its z, or of the gradient where that is all) per method."""
    return [(name(row), str(row["verdict"])) for _, row in of_each(frames).iterrows()]


def warnings(frames: Frames) -> list[str]:
    """What to mind about the methods and codes of a run, in sentences."""
    return [text for text in dict.fromkeys(of_each(frames)["warnings"].astype(str)) if text]


def print_run(frames: Frames, console: "Console") -> None:
    """Print the comparison of a run; fits 80 columns."""
    from rich import box
    from rich.table import Table

    console.print(f"{frames.provenance['description']} (seed {frames.provenance['seed']})", markup=False)
    if frames.partial:
        console.print("PARTIAL: the run was interrupted; these are the results up to then.", style="bold red")
    for title, says, (header, rows) in tables(frames):
        table = Table(title=f"\n{title}", caption=says or None, title_justify="left", caption_justify="left", title_style="bold")
        table.box, table.show_edge, table.pad_edge, table.padding = box.SIMPLE_HEAD, False, False, (0, 0, 0, 0)
        for i, head in enumerate(header):
            if i != 1:
                table.add_column("\n".join(head.rsplit(" ", 1)), justify="right" if i else "left", no_wrap=True)
        for row in rows:
            table.add_row(f"{row[0]}\n  {row[1]}", *row[2:])
        console.print(table)
    console.print()
    for method, verdict in verdicts(frames):
        console.print(f"{method} {verdict}.", markup=False)
    for text in warnings(frames):
        console.print(f"Mind: {text}", markup=False)


def print_spectrum(
    title: str,
    n_weights: int,
    n_products: int,
    extremes: pd.DataFrame,
    facts: dict[str, tuple[float, float, str]],
    console: "Console",
) -> None:
    """Print extreme eigenvalues (columns eigenvalue, residual) and facts (value, standard error, what it says)."""
    console.print(f"{title}: the Hessian of {n_weights} weights, from {n_products} Hessian-vector products\n", markup=False)
    for value, stderr, says in facts.values():
        shown = f"{number(value)} +- {number(stderr)}" if stderr else number(value) if math.isfinite(value) else "any"
        console.print(f"{shown:>20}  {says}", markup=False)
    console.print("\nExtreme eigenvalues, with the residual |Hx - lambda x|:")
    for _, row in extremes.iterrows():
        console.print(f"{row['eigenvalue']:>20.6g}  {row['residual']:.1e}", markup=False)


def markdown(frames: Frames) -> str:
    """The comparison of a run as Markdown."""
    lines = [f"# {frames.provenance['experiment']}", "", frames.provenance["description"] + ".", ""]
    if frames.partial:
        lines += ["**Partial:** the run was interrupted; these are the results up to then.", ""]
    lines += [f"- `{method}` {verdict}." for method, verdict in verdicts(frames)]
    lines += [f"- Mind: {text}" for text in warnings(frames)] + [""]
    for title, says, (header, rows) in tables(frames):
        lines += [f"## {title}", "", *([f"{says[0].upper()}{says[1:]}.", ""] if says else [])]
        lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * 2 + " ---: |" * (len(header) - 2)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows] + [""]
    lines += [f"Reproduce: `{frames.provenance['command']}` (seed {frames.provenance['seed']})", ""]
    return "\n".join(lines)


def of(frames: Frames, quantity: str) -> pd.DataFrame:
    return frames.summary[frames.summary["quantity"] == quantity]


def of_each(frames: Frames) -> pd.DataFrame:
    """A row per method: of z, or of the gradient where that is all it estimates."""
    summary = frames.summary
    alone = ~summary[["method", "code"]].apply(tuple, axis=1).isin(frames.methods("hv"))
    return summary[(summary["quantity"] == "hv") | alone]


def name(row: pd.Series) -> str:
    return f"{row['method']}/{row['code']}"
