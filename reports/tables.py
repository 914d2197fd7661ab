"""The comparison of a run as text: on the terminal and in Markdown."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports import escape
from reports.frames import Frames
from reports.texts import Rows, Titled, cosine, count, number, series_name, si
from reports.training_tables import learned, training

if TYPE_CHECKING:
    from rich.console import Console

ROWS_PRINTED = 100  # of a table, on the terminal
WORDY = r"p{0.4\linewidth}"  # a column of sentences, for LaTeX


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
    header = ["chip", "", "evaluations", "cost", "cosine", "relative error", "yield", "chip time", "energy"]
    shown = []
    for quantity, title in (("hv", "z = Hv"), ("gradient", "Gradient")):
        rows = []
        for _, row in of(frames, quantity).iterrows():
            cells = [str(row["variant"]), "", count(row["evaluations_to_accuracy"]), _more(row)]
            cells += [cosine(row["cosine"]), number(row["relative_error"]), f"{row['yield']:.0%}"]
            rows.append([*cells, *(si(row[f"{what}_to_accuracy_{unit.lower()}"], unit) for what, unit in SPENT)])
        if rows:
            accuracy, dies = frames.experiment["dies"]["accuracy"], frames.summary["dies"].iloc[0]
            says = (
                f"on {dies} dies; evaluations of E, time and energy to a cosine of {accuracy:g}; cost: evaluations more than on "
            )
            shown.append((f"{title}: what each imperfection costs", f"{says}the ideal chip", (header, rows)))
    return shown


SPENT = (("time", "s"), ("energy", "J"))


def _more(row: pd.Series) -> str:
    """What a variant of a chip costs over the ideal one."""
    times, stderr = row["cost"], row["cost_stderr"]
    if math.isnan(times):
        return "-"
    if math.isinf(times):
        return "never"
    known = math.isfinite(stderr)
    if times > 2:
        return f"{times:.3g} times" + (f" +- {stderr:.2g}" if known else "")
    return f"{100 * (times - 1):+.1f}" + (f" +- {100 * stderr:.1f} %" if known else " %")


def _ablated(frames: Frames) -> list[tuple[str, str]]:
    """What costs most of all imperfections, in a sentence for z and one for the gradient."""
    said, accuracy = [], frames.experiment["dies"]["accuracy"]
    for quantity, title in (("hv", "z = Hv"), ("gradient", "gradient")):
        table = of(frames, quantity)
        single = table[table["variant"].str.startswith("only ")].dropna(subset="cost")
        if single.empty:
            continue
        bound = 2 * single["cost_stderr"].fillna(0.0)  # what is less is no cost that these dies show
        dear = (single["cost"] > DEAR) & (single["cost"] - 1 > bound)
        parts = []
        if never := [name.removeprefix("only ") for name in single.loc[np.isinf(single["cost"]), "variant"]]:
            parts.append(f"a cosine of {accuracy:g} is never reached with {' or '.join(never)} alone")
        for _, row in single[dear & np.isfinite(single["cost"])].iterrows():
            parts.append(f"{row['variant'].removeprefix('only ')} costs {_more(row)}")
        if not dear.all():
            most = float((single["cost"] - 1 + bound)[~dear].max())
            text = f"nothing {'else ' if parts else ''}here costs more than {max(math.ceil(100 * most), 1)} %"
            parts.append(text + (", as far as these dies tell" if bound[~dear].any() else ""))
        together = table[table["variant"] == "all"]
        if len(together) and math.isfinite(float(together["cost"].iloc[0])):
            parts.append(f"all together {_more(together.iloc[0])}")
        said.append((f"{title}:", f"{'; '.join(parts)} (evaluations to a cosine of {accuracy:g}, over those of the ideal chip)"))
    return said


DEAR = 1.1  # times the evaluations of the ideal chip: what costs more is named


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
    "training": training,
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
    if frames.study == "ablation":
        return _ablated(frames)
    if frames.study == "training":
        return learned(frames) if "learning" in frames.tables else []
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
    if frames.study == "sweep":
        from reports.sweep_tables import lost

        return lost(frames)
    if frames.study == "training":
        advice = frames.advice[frames.advice["mind"].astype(bool)]
        return [f"{row['setting']} = {number(row['used'])}: {row['why']}" for row in advice.to_dict("records")]
    return [text for text in dict.fromkeys(of_each(frames)["warnings"].astype(str)) if text] if frames.study == "compare" else []


def print_run(frames: Frames, console: "Console") -> None:
    """Print the results of a run or a sweep; those of a run fit 80 columns."""
    say = partial(_say, console)
    say(f"{frames.provenance['description']} (seed {frames.provenance['seed']})")
    if frames.partial:
        say(f"PARTIAL: {frames.reason}; these are the results up to then.", style="bold red")
    sentences, first = [f"{method} {verdict}." for method, verdict in verdicts(frames)], frames.study == "ablation"
    for text in sentences if first else []:  # the answer, before a long table
        say(text)
    _print_tables(tables(frames), console)
    console.print()
    for text in [*([] if first else sentences), *hardware(frames)]:
        say(text)
    for text in warnings(frames):
        say(f"Mind: {text}")


def print_beside(a: Frames, b: Frames, console: "Console") -> None:
    """Print two runs or two sweeps side by side."""
    from reports.beside import beside

    sentences, shown = beside(a, b)
    for which, frames in (("A", a), ("B", b)):
        _say(console, f"{which}: {frames.provenance['description']} (seed {frames.provenance['seed']})")
    _print_tables(shown, console)
    console.print()
    for text in sentences:
        _say(console, text)


def _say(console: "Console", text: str, style: str = "") -> None:
    """A line on the terminal, which no text can give orders."""
    from rich.text import Text

    console.print(Text(escape.line(text)), style=style)


def _print_tables(shown: list[Titled], console: "Console") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for title, says, (header, rows) in shown:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 0))
        for i, head in enumerate(header):
            if i != 1:
                table.add_column(
                    Text("\n".join(escape.line(head).rsplit(" ", 1))), justify="right" if i else "left", no_wrap=i > 0
                )
        for row in rows[:ROWS_PRINTED]:
            first, second, *rest = map(escape.line, row)
            table.add_row(*map(Text, (f"{first}\n  {second}" if second else first, *rest)))
        console.print()
        _say(console, title, style="bold")
        console.print()
        console.print(table)
        if len(rows) > ROWS_PRINTED:
            console.print(f"and {len(rows) - ROWS_PRINTED:,} more rows", style="italic")
        if says:
            _say(console, says, style="italic")


def print_device_fit(description: str, models: pd.DataFrame, parameters: pd.DataFrame, console: "Console") -> None:
    """Print what a fit to pulse responses found: the models tried, best first, and the parameters of the one chosen."""
    from rich import box
    from rich.table import Table

    _say(console, description)
    console.print()
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
    shown, provenance = escape.markdown, frames.provenance
    lines = [f"# {shown(provenance['experiment'])}", "", f"{shown(provenance['description'])}.", ""]
    if frames.partial:
        lines += [f"**Partial:** {shown(frames.reason)}; these are the results up to then.", ""]
    lines += [f"- {escape.code(escape.line(method))} {shown(verdict)}." for method, verdict in verdicts(frames)]
    lines += [f"- {shown(text)}" for text in hardware(frames)]
    lines += [f"- Mind: {shown(text)}" for text in warnings(frames)] + [""]
    for title, says, (header, rows) in map(filled, tables(frames)):
        lines += [f"## {shown(title)}", "", *([f"{shown(says[0].upper() + says[1:])}.", ""] if says else [])]
        lines += [f"| {' | '.join(map(shown, header))} |", "| --- |" + " ---: |" * (len(header) - 1)]
        lines += [f"| {' | '.join(map(shown, row))} |" for row in rows] + [""]
    lines += [f"Reproduce: {escape.code(provenance['command'])} (seed {shown(provenance['seed'])})", ""]
    lines += [f"Cite: {shown(frames.citation)}.", ""]
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
    comments = (provenance["description"], provenance["command"], frames.citation)
    lines = [f"% {escape.line(text)}" for text in comments]  # a comment goes to the end of the line, and no further
    lines += ["% needs \\usepackage{booktabs,longtable}; wide tables want a page in landscape"]
    for number_, (title, says, (header, rows)) in enumerate(map(filled, tables(frames)), 1):
        frame = pd.DataFrame([list(map(escape.latex, row)) for row in rows], columns=list(map(_below, header)))
        widest = [max((len(row[i]) for row in rows), default=0) for i in range(len(header))]
        kinds = ["l", *"r" * (len(header) - 1)]
        text = frame.to_latex(
            index=False,
            escape=False,
            longtable=True,
            caption=escape.latex(f"{title}: {says}." if says else f"{title}."),
            label=f"tab:{re.sub('[^A-Za-z0-9.-]', '-', provenance['experiment'])}-{number_}",
            column_format="".join(WORDY if width > 40 else kind for kind, width in zip(kinds, widest, strict=True)),
        )
        text = text.replace(" +- ", r" $\pm$ ").rstrip()
        lines += ["", r"{\footnotesize\setlength{\tabcolsep}{3pt}", text, "}"]
    return "\n".join(lines) + "\n"


def _below(name: str) -> str:
    """A header of several words, these below each other."""
    words = [escape.latex(word) for word in name.split()]
    return r"\shortstack[r]{" + r" \\ ".join(words) + "}" if len(words) > 1 else escape.latex(name)


def of(frames: Frames, quantity: str) -> pd.DataFrame:
    return frames.summary[frames.summary["quantity"] == quantity]


def of_each(frames: Frames) -> pd.DataFrame:
    """A row per method: of z, or of the gradient where that is all it estimates."""
    summary = frames.summary
    alone = ~summary[["method", "code"]].apply(tuple, axis=1).isin(frames.methods("hv"))
    return summary[(summary["quantity"] == "hv") | alone]


def name(row: pd.Series) -> str:
    return series_name((row["method"], row["code"]))
