"""The comparison of a run as text: on the terminal and in Markdown."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.frames import Frames

if TYPE_CHECKING:
    from rich.console import Console

Rows = tuple[list[str], list[list[str]]]  # a header and its rows; the first two columns are text, the others numbers
Titled = tuple[str, str, Rows]
ROWS_PRINTED = 100  # of a table, on the terminal


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


def _comparison(frames: Frames) -> list[Titled]:
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


def _estimators(frames: Frames) -> list[Titled]:
    header = ["method/code", "", "predicted bias", "measured bias", "predicted error", "measured error", "measured cosine"]
    header += ["z to limit", "for cosine 0.9"]
    shown = []
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        rows = []
        for _, row in of(frames, quantity).sort_values("measured_error", kind="stable").iterrows():
            seen = row["measured_bias"] > 2 * row["bias_resolution"]
            bias = number(row["measured_bias"]) if seen else f"< {number(2 * row['bias_resolution'])}"
            cells = [name(row), "", number(row["predicted_bias"]), bias, number(row["predicted_error"])]
            cells += [number(row["measured_error"]), cosine(row["measured_cosine"]), number(row["z_rms"])]
            rows.append([*cells, count(row["evaluations_to_0_9"])])
        if rows:
            evaluations = count(float(frames.summary["evaluations"].median()))
            says = f"relative to the exact answer, after {evaluations} evaluations each; <: no bias seen, and none as large"
            shown.append((f"{title}, best first", says, (header, rows)))
    return shown


def _ablation(frames: Frames) -> list[Titled]:
    header = ["chip", "", "cosine", "relative error", "yield", "trials needed", "chip time", "energy"]
    shown = []
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        rows = []
        for _, row in of(frames, quantity).iterrows():
            cells = [str(row["variant"]), "", cosine(row["cosine"]), number(row["relative_error"]), f"{row['yield']:.0%}"]
            rows.append([*cells, count(row["trials_to_accuracy"]), si(row["time_to_accuracy_s"], "s")])
            rows[-1].append(si(row["energy_to_accuracy_j"], "J"))
        if rows:
            accuracy, dies = frames.experiment["dies"]["accuracy"], frames.summary["dies"].iloc[0]
            says = f"on {dies} dies; trials, time and energy to a cosine of {accuracy:g}"
            shown.append((f"{title}: what each imperfection costs", says, (header, rows)))
    return shown


def _budget(frames: Frames) -> list[Titled]:
    header = ["parameter", "", "value", "changed to", "trials saved", "time saved", "energy saved"]
    shown = [_facts(frames)]
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        part = frames.sensitivities[frames.sensitivities["quantity"] == quantity]
        rows = [
            [str(row["key"]), "", number(row["value"]), str(row["change"])]
            + [f"{row[key]:.0%}" for key in ("trials_saved", "time_saved", "energy_saved")]
            for _, row in part.iterrows()
            if max(row["trials_saved"], row["time_saved"], row["energy_saved"]) >= 0.005
        ]
        if rows:
            shown.append(
                (f"{title}: what to improve first", "by theory, each alone; below half a per cent left out", (header, rows))
            )
    return shown


def _facts(frames: Frames) -> Titled:
    rows = [
        [row["fact"], row["meaning"], number(row["value"]), number(row["stderr"]) if row["stderr"] else ""]
        for _, row in frames.summary.iterrows()
    ]
    return (
        "In short",
        "a standard error stands where a value is estimated",
        (["what", "meaning", "value", "standard error"], rows),
    )


def _spectrum(frames: Frames) -> list[Titled]:
    largest_first = frames.extremes.iloc[::-1]
    ends = [
        [str(place), "", f"{row['eigenvalue']:.6g}", f"{row['residual']:.1e}"]
        for place, (_, row) in enumerate(largest_first.iterrows(), 1)
    ]
    header = ["number", "", "eigenvalue", "residual"]
    return [
        _facts(frames),
        ("Extreme eigenvalues, largest first", "residual: |Hx - lambda x| of the eigenvector x", (header, ends)),
    ]


def _uses(frames: Frames) -> list[Titled]:
    shown = [_facts(frames)]
    if "modes" in frames.tables:
        header = ["eigenvalue", "", "predicted updates", "measured updates"]
        columns = ["eigenvalue", "predicted_updates", "measured_updates"]
        modes = [[number(float(row[column])) for column in columns] for row in frames.modes.to_dict("records")]
        rows = [[eigenvalue, "", *updates] for eigenvalue, *updates in modes]
        shown.append(("Gradient descent, mode by mode", "updates to 1/e of a displacement along an eigenvector", (header, rows)))
    if "evidence" in frames.tables:
        header = ["decay", "", "log evidence", "gamma", "train error", "test error", *_accuracy(frames.evidence)]
        header += ["log det", "by Lanczos", "negative eigenvalues"]
        columns = ["decay", "log_evidence", "gamma", "train_error", "test_error", *_accuracy(frames.evidence, "test_accuracy")]
        rows = []
        for row in frames.evidence.to_dict("records"):
            decay, *cells = [number(float(row[column])) for column in [*columns, "log_determinant"]]
            known = np.isfinite(row["lanczos_log_determinant"])
            lanczos = f"{row['lanczos_log_determinant']:,.0f} +- {row['lanczos_stderr']:.0f}" if known else "-"
            rows.append([decay, "", *cells, lanczos, f"{row['negative']:.0f}"])
        says = "decays of most evidence generalise best, in theory"
        if frames.evidence["log_evidence"].isna().any():
            says += "; where it is missing no minimum was found, and evidence is not defined"
        shown.append(("Weight decay by evidence (MacKay 1992)", says, (header, rows)))
    if "pruning" in frames.tables:
        header = ["method", "", "removed", "train error", "test error", *_accuracy(frames.pruning)]
        shares = frames.pruning["removed"]
        nearest = {float(shares.iloc[int((shares - at).abs().argmin())]) for at in (0.25, 0.5, 0.75, 0.9)}
        columns = ["train_error", "test_error", *_accuracy(frames.pruning, "test_accuracy")]
        rows = [
            [row["method"], "", f"{row['removed']:.0%}", *(number(float(row[key])) for key in columns)]
            for row in frames.pruning[shares.isin(nearest)].to_dict("records")
        ]
        shown.append(("Pruning, without training in between", "OBS moves the other weights, the others do not", (header, rows)))
    return shown


def _accuracy(table: pd.DataFrame, name: str = "test accuracy") -> list[str]:
    """The name of the column of accuracies, if there are any."""
    return [name] if table["test_accuracy"].notna().any() else []


def source_name(frames: Frames, source: str) -> str:
    """What reports call a source of updates: a label of compare_with is its own name, and beside them the chip is told by its
    rule."""
    options = frames.experiment["training"]
    rule = f", {options['rule']}" if options.get("compare_with") else ""
    return {"batch": f"chip{rule}", "event": f"chip by events{rule}", "exact": "exact gradient"}.get(source, source)


def goal(frames: Frames) -> str:
    """What a training was to reach."""
    options = frames.experiment["training"]
    sign = "<=" if options["criterion"].endswith("error") else ">="
    return f"{options['criterion'].replace('_', ' ')} {sign} {options['goal']:g}"


def _training(frames: Frames) -> list[Titled]:
    shown: list[Titled] = []
    if "learning" in frames.tables:
        shown += _trained(frames)
    advice = frames.tables.get("advice")
    if advice is not None and len(advice):
        rows = [[row["setting"], row["why"], number(row["used"]), number(row["advised"])] for row in advice.to_dict("records")]
        shown.append(("Advice, before anything is run", "", (["setting", "", "used", "advised"], rows)))
    return shown


def _trained(frames: Frames) -> list[Titled]:
    """A row per source: when it got there, and where it ended; then what belongs to none of them."""
    sources, facts = list(dict.fromkeys(frames.learning["source"])), frames.summary.set_index("fact")
    runs = frames.learning["run"].nunique()
    value = facts["value"].to_dict()
    reached, ended = [], []
    known = [name for name in ("test accuracy", "test error", "accuracy") if f"{sources[0]}: {name}" in value]
    ends = ["error", *known[:1]]
    for source in sources:
        cells = [f"{round(value[f'{source}: {what}'] * runs)} of {runs}" for what in ("solved", "ever solved")]
        cells.append(count(value[f"{source}: updates to goal"]))
        if source != "exact":
            cells.append(count(value[f"{source}: evaluations to goal"]))
            cells += [si(value[f"{source}: {what} to goal"], unit) for what, unit in (("chip time", "s"), ("energy", "J"))]
            cells.append(count(value[f"{source}: evaluations"]))
        reached.append([source_name(frames, source), "", *cells, *["-"] * (7 - len(cells))])
        cells = []
        for name in ends:
            digits = number if name.endswith("error") else "{:.3f}".format
            mean, spread, worst = (value[f"{source}: {name}{part}"] for part in ("", ", spread", ", worst"))
            cells += [f"{digits(mean)} +- {number(spread)}", digits(worst)]
        ended.append([source_name(frames, source), "", *cells])
    header = ["updates by", "", "solved", "ever solved", "updates to goal", "evaluations to goal", "time to goal"]
    header += ["energy to goal", "evaluations in all"]
    says = "solved: there at the end; ever: at any record; to goal: medians of those runs, when first seen there"
    shown = [(f"How soon: {goal(frames)}", says, (header, reached))]
    header = ["updates by", "", *(column for name in ends for column in (name, f"worst {name}"))]
    says = f"mean +- standard deviation over the {runs} runs, each with a start and a die of its own; the worst of them"
    shown.append(("How well, at the end", says, (header, ended)))
    rest = [
        [fact, row["meaning"], number(row["value"]), number(row["stderr"]) if row["stderr"] else ""]
        for fact, row in facts.iterrows()
        if ":" not in str(fact) or str(fact).endswith(("alignment", "diverged", "foretold"))
    ]
    for row in rest:
        source, colon, fact = str(row[0]).partition(": ")
        before, less, other = str(row[0]).partition(" less ")
        row[0] = f"{fact}, {source_name(frames, source)}" if colon else before + less + source_name(frames, other)
    says, header = "a standard error stands where a value is estimated", ["what", "", "value", "standard error"]
    return [*shown, ("Further", says, (header, rest))]


def _learned(frames: Frames) -> list[tuple[str, str]]:
    """What came of a training, in a sentence for every source."""
    learning, said = frames.learning, []
    value = frames.summary.set_index("fact")["value"].to_dict()
    runs = learning["run"].nunique()
    for source in dict.fromkeys(learning["source"]):
        solved, ever = (round(value[f"{source}: {what}"] * runs) for what in ("solved", "ever solved"))
        text = f"ends with {goal(frames)} in {solved} of {runs} runs"
        if math.isfinite(updates := value[f"{source}: updates to goal"]):
            text += f" ({ever} were ever there), " if ever > solved else ", "
            text += f"first seen there after {count(updates)} updates"
            if source != "exact":
                text += f", {count(value[f'{source}: evaluations to goal'])} evaluations, "
                text += f"{si(value[f'{source}: chip time to goal'], 's')} of chip time and "
                text += f"{si(value[f'{source}: energy to goal'], 'J')} (medians)"
        if diverged := value.get(f"{source}: diverged"):
            text += f"; {round(diverged * runs)} diverged: lower its eta, or let the chip measure its rate (rate = trace)"
        said.append((f"{source_name(frames, source)}:", text))
    return said


def _reproduce(frames: Frames) -> list[Titled]:
    header, shown = ["claim", "source; setting", "predicted", "measured", "error bar", "verdict"], []
    for claim, own in frames.summary.groupby("name", sort=False):
        rows = [
            [row["claim"], f"{row['source']}; {row['setting']}", *(f"{row[key]:.4g}" for key in ("predicted", "measured"))]
            + [number(row["stderr"]) if row["stderr"] else "", row["verdict"]]
            for row in own.to_dict("records")
        ]
        shown.append((str(claim), str(own["says"].iloc[0]), (header, rows)))
    return shown


def _judged(frames: Frames) -> list[tuple[str, str]]:
    """How many statements of the literature agree, and which do not."""
    verdict, total = frames.summary["verdict"], len(frames.summary)
    agree, biased = (verdict == "agrees").sum(), (verdict == "published form biased").sum()
    text = f"{agree} of {total} statements agree within 5 standard errors and their tolerance"
    text += f"; {biased} {'is' if biased == 1 else 'are'} wrong as published, as theory says" if biased else ""
    wrong = frames.summary[verdict == "DISAGREES"]
    return [("reproduced:", text)] + [(str(row["name"]), f"DISAGREES: {row['claim']}") for row in wrong.to_dict("records")]


TABLES: dict[str, Callable[[Frames], list[Titled]]] = {
    "compare": _comparison,
    "estimators": _estimators,
    "ablation": _ablation,
    "dies": lambda frames: [_facts(frames)],
    "budget": _budget,
    "spectrum": _spectrum,
    "finite-difference": lambda frames: [_facts(frames)],
    "uses": _uses,
    "training": _training,
    "reproduce": _reproduce,
}


def tables(frames: Frames) -> list[Titled]:
    """(title, what it says, table) of everything that a run or a sweep shows."""
    if frames.study == "sweep":
        from reports import sweep_tables

        return sweep_tables.tables(frames)
    return TABLES[frames.study](frames)


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """(method/code, what came of its z, or of the gradient where that is all) of a comparison; (source, what came of it) of a
    training; what agrees of claims; other studies speak in tables."""
    if frames.study == "sweep":
        from reports import sweep_tables

        return sweep_tables.verdicts(frames)
    if frames.study == "reproduce":
        return _judged(frames)
    if frames.study == "training":
        return _learned(frames) if "learning" in frames.tables else []
    return [(name(row), str(row["verdict"])) for _, row in of_each(frames).iterrows()] if frames.study == "compare" else []


def hardware(frames: Frames) -> list[str]:
    """What limits the chip's speed, what its energy goes into, and what went wrong on it, in sentences."""
    if frames.study != "compare":
        return []
    rows, said = of_each(frames), []
    own = rows[rows["primary"]] if rows["primary"].any() else rows
    row = own.iloc[-1]
    rate, share = 1e9 / row["trial_ns"], row["busiest_share"]
    said.append(f"{name(row)} makes {count(rate)} trials a second; {row['busiest']} takes {share:.0%} of the time.")
    said.append(f"The converter is busy {row['converter_share']:.0%} of the time, the bus {row['bus_share']:.0%}.")
    energy = frames.energy[(frames.energy["method"] == row["method"]) & (frames.energy["code"] == row["code"])]
    if energy["energy_j"].sum() > 0:
        most = energy.iloc[int(energy["energy_j"].argmax())]
        part = most["energy_j"] / energy["energy_j"].sum()
        said.append(f"{part:.0%} of its energy is {CAUSES[most['cause']]}.")
    return [*said, f"On its chip: {row['incidents']}"] if row["incidents"] else said


CAUSES = {
    "perturbation": "for changes of the perturbation", "mac": "for multiplying and adding in the array",
    "conversion": "for conversions", "broadcast_bit": "for broadcasts", "accumulate": "for the synapses' sums",
    "static": "static power", "refresh": "for refreshing the weights",
}  # fmt: skip


def warnings(frames: Frames) -> list[str]:
    """What to mind about the methods and codes of a run, or the settings of a training, in sentences."""
    if frames.study == "training":
        advice = frames.advice[frames.advice["mind"].astype(bool)]
        return [f"{row['setting']} = {number(row['used'])}: {row['why']}" for row in advice.to_dict("records")]
    return [text for text in dict.fromkeys(of_each(frames)["warnings"].astype(str)) if text] if frames.study == "compare" else []


def print_run(frames: Frames, console: "Console") -> None:
    """Print the results of a run or a sweep; those of a run fit 80 columns."""
    console.print(f"{frames.provenance['description']} (seed {frames.provenance['seed']})", markup=False)
    if frames.partial:
        console.print(f"PARTIAL: {frames.reason}; these are the results up to then.", style="bold red", markup=False)
    _print_tables(tables(frames), console)
    console.print()
    for method, verdict in verdicts(frames):
        console.print(f"{method} {verdict}.", markup=False)
    for text in hardware(frames):
        console.print(text, markup=False)
    for text in warnings(frames):
        console.print(f"Mind: {text}", markup=False)


def print_beside(a: Frames, b: Frames, console: "Console") -> None:
    """Print two runs or two sweeps side by side."""
    from reports.beside import beside

    sentences, shown = beside(a, b)
    for which, frames in (("A", a), ("B", b)):
        console.print(f"{which}: {frames.provenance['description']} (seed {frames.provenance['seed']})", markup=False)
    _print_tables(shown, console)
    console.print()
    for text in sentences:
        console.print(text, markup=False)


def _print_tables(shown: list[Titled], console: "Console") -> None:
    from rich import box
    from rich.table import Table

    for title, says, (header, rows) in shown:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 0))
        for i, head in enumerate(header):
            if i != 1:
                table.add_column("\n".join(head.rsplit(" ", 1)), justify="right" if i else "left", no_wrap=i > 0)
        for row in rows[:ROWS_PRINTED]:
            table.add_row(f"{row[0]}\n  {row[1]}" if row[1] else row[0], *row[2:])
        console.print(f"\n{title}\n", style="bold", markup=False)
        console.print(table)
        if len(rows) > ROWS_PRINTED:
            console.print(f"and {len(rows) - ROWS_PRINTED:,} more rows", style="italic")
        if says:
            console.print(f"{says}", style="italic", markup=False)


def print_device_fit(description: str, models: pd.DataFrame, parameters: pd.DataFrame, console: "Console") -> None:
    """Print what a fit to pulse responses found: the models tried, best first, and the parameters of the one chosen."""
    from rich import box
    from rich.table import Table

    console.print(f"{description}\n", markup=False)
    tried = Table("model", "noise of pulses", "slopes", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    tried.add_column("BIC above\nthe least", justify="right")
    tried.add_column("verdict")
    least = models["bic"].min()
    for row in models.to_dict("records"):
        tried.add_row(row["model"], row["noise"], row["slopes"], number(row["bic"] - least), row["verdict"])
    console.print(tried)
    found = Table("parameter", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    found.add_column("value", justify="right")
    found.add_column("standard\nerror", justify="right")
    found.add_column("meaning")
    for row in parameters.to_dict("records"):
        found.add_row(row["key"], f"{row['value']:.4g}", number(row["stderr"]), row["meaning"])
    console.print()
    console.print(found)


def markdown(frames: Frames) -> str:
    """The comparison of a run as Markdown."""
    lines = [f"# {frames.provenance['experiment']}", "", frames.provenance["description"] + ".", ""]
    if frames.partial:
        lines += [f"**Partial:** {frames.reason}; these are the results up to then.", ""]
    lines += [f"- `{method}` {verdict}." for method, verdict in verdicts(frames)]
    lines += [f"- {text}" for text in hardware(frames)]
    lines += [f"- Mind: {text}" for text in warnings(frames)] + [""]
    for title, says, (header, rows) in map(filled, tables(frames)):
        lines += [f"## {title}", "", *([f"{says[0].upper()}{says[1:]}.", ""] if says else [])]
        lines += ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows] + [""]
    lines += [f"Reproduce: `{frames.provenance['command']}` (seed {frames.provenance['seed']})", ""]
    lines += [f"Cite: {frames.citation}.", ""]
    return "\n".join(lines)


def filled(table: Titled) -> Titled:
    """Without a second column that is empty."""
    title, says, (header, rows) = table
    if any((header[1], *(row[1] for row in rows))):
        return table
    return title, says, ([header[0], *header[2:]], [[row[0], *row[2:]] for row in rows])


def latex(frames: Frames) -> str:
    """The tables of a run or a sweep for LaTeX, to be read in by \\input; they need the packages booktabs and longtable."""
    provenance = frames.provenance
    lines = [f"% {provenance['description']}", f"% {provenance['command']}", f"% {frames.citation}"]
    lines += ["% needs \\usepackage{booktabs,longtable}"]
    for number_, (title, says, (header, rows)) in enumerate(map(filled, tables(frames)), 1):
        frame = pd.DataFrame(rows, columns=header)
        text = frame.to_latex(
            index=False,
            escape=True,
            longtable=True,
            caption=_escaped(f"{title}: {says}." if says else f"{title}."),
            label=f"tab:{provenance['experiment']}-{number_}",
            column_format="l" + "r" * (len(header) - 1),
        )
        lines += ["", text.replace(" +- ", r" $\pm$ ").rstrip()]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text in which LaTeX sees no command."""
    for sign in "&%$#_{}":
        text = text.replace(sign, "\\" + sign)
    return text.replace("|", r"\textbar{}").replace("<", r"\textless{}").replace(">", r"\textgreater{}").replace("^", r"\^{}")


def of(frames: Frames, quantity: str) -> pd.DataFrame:
    return frames.summary[frames.summary["quantity"] == quantity]


def of_each(frames: Frames) -> pd.DataFrame:
    """A row per method: of z, or of the gradient where that is all it estimates."""
    summary = frames.summary
    alone = ~summary[["method", "code"]].apply(tuple, axis=1).isin(frames.methods("hv"))
    return summary[(summary["quantity"] == "hv") | alone]


def name(row: pd.Series) -> str:
    return series_name((row["method"], row["code"]))


def series_name(parts: tuple[str, ...]) -> str:
    """difference/walsh."""
    return "/".join(parts)
