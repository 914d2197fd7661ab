"""How a training is shown: how soon and how well each source of updates learns."""

import math
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from reports.columns import Column, Table, named, only
from reports.escape import plain
from reports.figures import COLOURS, INK, Drawing, drawn, finished
from reports.formats import Cell, Estimate, Part, count, fixed, joules, number, seconds
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import facts_table

LEARNING = {
    "source": Column(
        "of the updates: batch or event (the chip), a label of compare_with, or exact (the exact"
        " gradient)"
    ),
    "run": Column("number of the run"),
    "update": Column("updates done"),
    "trials": Column("trials done", count),
    "evaluations": Column("measurements of E, those of measured rates included", count),
    "chip_time_s": Column("chip time, s", seconds, "s"),
    "energy_j": Column("energy on the chip, J", joules, "J"),
    "error": Column("E at the weights, on the patterns learned, exact", less_is_better=True),
    "accuracy": Column("share of them classified rightly; empty where targets are no classes"),
    "balanced_accuracy": Column(
        "mean over the classes that occur of the share of each that is classified rightly"
    ),
    "test_error": Column("E on the patterns held back", less_is_better=True),
    "test_accuracy": Column("share of them classified rightly"),
    "test_balanced_accuracy": Column(
        "mean over the classes that occur among them of the share classified rightly"
    ),
    "alignment": Column(
        "cosine of the change since the last record with minus the exact gradient there"
    ),
    "rate": Column("learning rate in use, eta / (1 + update/decay) without the decay"),
    "diverged": Column("whether the error is no longer finite, or 10,000 times that at the start"),
    "still": Column("whether no weight has changed since the last record"),
    "predicted_error": Column(
        "expected error by theory, where E is quadratic", less_is_better=True
    ),
    "run_seed": Column("seed of the run's perturbations, noise and presented patterns"),
    "start_seed": Column(
        "seed of its starting weights: --set weights.seed starts there; -1: they are from"
        " weights.file"
    ),
    "die": Column(
        "number of its die: --set chip.die takes that one; the exact gradient needs none"
    ),
}


WEIGHTS = {
    "source": Column("of the updates, as in learning"),
    "run": Column("number of the run"),
    "index": Column("number of the weight in the flat vector w"),
    "layer": Column("layer of an mlp that it feeds, from 1; 0: another kind of network"),
    "unit_from": Column("unit it comes from, inputs first; -1 = bias"),
    "unit_to": Column("unit it goes to"),
    "w_exact": Column(
        "weight that was learned, as the array computes with it: E at the end is exact for these"
    ),
    "w_stored": Column(
        "what its device holds: without what a reading adds (write noise, 1/f noise) and, with"
        " average_from, at the last update instead of the mean; of the exact gradient the same"
    ),
    "level": Column(
        "number of the level that a digital device holds, from 0, lowest first: with weights.bits"
        " w_stored = -range + level 2 range/2^bits; -1: it has none, or is between two"
    ),
}


CONFUSION = {
    "source": Column("of the updates, as in learning"),
    "run": Column("number of the run"),
    "patterns": Column("learned, or held back"),
    "truth": Column("class that a pattern is of"),
    "classified": Column(
        "class that it is taken for at the end; a pair that never occurs is left out, unless they"
        " are the same"
    ),
    "count": Column("patterns", count),
}


ADVICE = {
    "setting": Column("key of the experiment"),
    "used": Column("its value"),
    "advised": Column("what theory advises"),
    "mind": Column("whether the value had better be changed"),
    "why": Column("reason"),
}
COLUMNS = {
    "summary": FACTS,
    "learning": LEARNING,
    "confusion": CONFUSION,
    "weights": WEIGHTS,
    "advice": ADVICE,
}


SWEPT = Swept(
    ("subject",),
    ("solved", "ever_solved", "error", "test_accuracy", "evaluations_to_goal"),
    {"error": "predicted_error"},
    ("solved", 0.5),
    dict.fromkeys(("solved", "ever_solved", "diverged"), "training.runs"),
    errors=tuple(name for name, column in LEARNING.items() if column.less_is_better),
)


MOST_CLASSES = 20  # of which a confusion matrix is shown


def source_name(frames: Frames, source: str) -> str:
    """What reports call a source of updates: a label of compare_with is its own name, and beside
    them the chip is called by its rule. No two have the same name.
    """
    options = frames.experiment["training"]
    labels = [other["label"] for other in options.get("compare_with") or ()]
    rule = (
        "its rule as varied"
        if "training.rule" in frames.provenance.get("varied", ())
        else options["rule"]
    )
    called = {"batch": "chip", "event": "chip by events", "exact": "exact gradient"}.get(
        source, source
    )
    if labels and source in ("batch", "event"):
        called += f", {rule}"
    # a label of the user's may be "chip" too
    while called in labels and source not in labels:
        called = f"the {called}"
    return called


def goal(frames: Frames) -> str:
    """What a training was to reach."""
    options = frames.experiment["training"]
    sign = "<=" if LEARNING[options["criterion"]].less_is_better else ">="
    return f"{options['criterion'].replace('_', ' ')} {sign} {options['goal']:g}"


def training(frames: Frames) -> list[Table]:
    shown: list[Table] = []
    if "learning" in frames.tables:
        shown += _trained(frames)
    if len(frames.tables.get("confusion", ())):
        shown += _classified(frames)
    advice = frames.tables.get("advice")
    if advice is not None and len(advice):
        columns = only(ADVICE, ("setting", "why", "used", "advised"))
        shown.append(Table("Advice, before anything is run", "", advice, columns, "why"))
    return shown


def _values(frames: Frames) -> dict[tuple[str, str], float]:
    """(source, measure): value."""
    facts = frames.summary
    # the rows of a summary of facts, to look up
    return dict(
        zip(
            zip(facts["subject"], facts["measure"], strict=True),
            facts["value"].astype(float),
            strict=True,
        )
    )


BY = named("updates by")
SOLVED = {"solved": named("solved"), "ever_solved": named("ever solved")}
# until a goal was first seen reached, and in all
SPENT = {
    "updates_to_goal": named("updates to goal", count),
    "evaluations_to_goal": named("evaluations to goal", count),
    "chip_time_to_goal": named("time to goal", seconds),
    "energy_to_goal": named("energy to goal", joules),
    "evaluations": named("evaluations in all", count),
}
# of a source, beside when and how well it learned
FURTHER = (
    "predicted_error",
    "diverged",
    "standing_still",
    "alignment",
    "gap_to_exact",
    "stable_learning_rate",
    "calibrated_sigma",
    "calibrated_rate",
)


def _trained(frames: Frames) -> list[Table]:
    """A row per source: when it got there, and where it ended; then what belongs to none of
    them.
    """
    sources = list(dict.fromkeys(frames.learning["source"]))
    value = _values(frames)
    runs = frames.learning["run"].nunique()
    reached = []
    ended = []
    # the measure of how well, in the order of what says most: patterns held back before learned
    known = (
        ("test_accuracy", "test_balanced_accuracy"),
        ("test_error",),
        ("accuracy", "balanced_accuracy"),
    )
    ends = ["error", *next((names for names in known if (sources[0], names[0]) in value), ())]
    if all(
        value[source, name] == value[source, name.replace("balanced_", "")]
        for source in sources
        for name in ends
    ):
        ends = [name for name in ends if "balanced" not in name]  # as many of each class
    for source in sources:
        own = {what: found for (of, what), found in value.items() if of == source}
        name = source_name(frames, source)
        # a share of runs, back to their number
        solved = {what: Part(round(own[what] * runs), runs) for what in ("solved", "ever_solved")}
        spent = {what: own.get(what, math.nan) for what in SPENT}
        reached.append({"source": name, **solved, **spent})
        row: dict[str, Cell] = {"source": name}
        for what in ends:
            row[what] = Estimate(own[what], own[f"{what}_sd"])
            row[f"{what}_worst"] = own[f"{what}_worst"]
        ended.append(row)
    note = (
        "solved: there at the end; ever: at any record; to goal: medians of those runs, when first"
        " seen there"
    )
    columns = {"source": BY, **SOLVED, **SPENT}
    shown = [Table(f"How soon: {goal(frames)}", note, pd.DataFrame(reached), columns)]
    columns = {"source": BY}
    for what in ends:
        digits = number if LEARNING[what].less_is_better else partial(fixed, spec=".3f")
        called = what.replace("_", " ")
        columns |= {what: named(called, digits), f"{what}_worst": named(f"worst {called}", digits)}
    note = (
        f"mean +- standard deviation over the {runs} runs, each with a start and a die of its own;"
        " the worst of them"
    )
    shown.append(Table("How well, at the end", note, pd.DataFrame(ended), columns))
    rest = frames.summary[frames.summary["measure"].isin(FURTHER)]
    note = "a standard error stands where a value is estimated"
    return [*shown, facts_table(frames, rest, "Further", note)]


def _classified(frames: Frames) -> list[Table]:
    """Patterns of each class, and for every source what those held back (or learned) are taken
    for, over all runs.
    """
    table = frames.confusion
    names = list(dict.fromkeys(table["truth"]))
    # every source and run has the same patterns: those of one are counted
    first = table[
        (table["source"] == table["source"].iloc[0]) & (table["run"] == table["run"].iloc[0])
    ]
    counts = first.pivot_table(
        index="truth", columns="patterns", values="count", aggfunc="sum", sort=False
    )
    # a class without patterns has a row, too: its pair with itself is always stored
    absent = [
        f"no pattern of {name} {part}"
        for part in counts.columns
        for name in names
        if not counts.loc[name, part]
    ]
    columns = {"truth": named("class"), **{part: named(part, count) for part in counts}}
    each = counts.loc[names].reset_index()
    shown = [Table("Patterns of each class", "; ".join(absent[:5]), each, columns)]
    if len(names) > MOST_CLASSES:
        return shown
    part = counts.columns[-1]
    for source in dict.fromkeys(table["source"]):
        own = table[(table["source"] == source) & (table["patterns"] == part)]
        square = own.pivot_table(
            index="truth",
            columns="classified",
            values="count",
            aggfunc="sum",
            fill_value=0,
            sort=False,
        )
        # a class that nothing is taken for still has its column
        square = square.reindex(index=names, columns=names, fill_value=0)
        total = square.sum(axis=1)
        square.columns = [f"as {i}" for i in range(len(names))]  # whatever the classes are called
        right = np.diag(square) / total.where(total > 0)
        rows = square.assign(right=right).reset_index()
        note = (
            f"row: class of a pattern {part}; column: what it is taken for at the end; all runs"
            " together"
        )
        columns = {
            "truth": named("class"),
            **{f"as {i}": named(name, count) for i, name in enumerate(names)},
            "right": named("share right", partial(fixed, spec=".3f")),
        }
        title = f"Confusion matrix, {source_name(frames, source)}"
        shown.append(Table(title, note, rows, columns))
    return shown


def learned(frames: Frames) -> list[tuple[str, str]]:
    """The result of a training, in a sentence for every source."""
    learning = frames.learning
    sentences = []
    value = _values(frames)
    runs = learning["run"].nunique()
    for source in dict.fromkeys(learning["source"]):
        solved, ever = (round(value[source, what] * runs) for what in ("solved", "ever_solved"))
        text = f"ends with {goal(frames)} in {solved} of {runs} runs"
        # infinite where no run got there
        if math.isfinite(updates := value[source, "updates_to_goal"]):
            text += f" ({ever} were ever there), " if ever > solved else ", "
            text += f"first seen there after {count(updates)} updates"
            if source != "exact":
                text += f", {count(value[source, 'evaluations_to_goal'])} evaluations, "
                text += f"{seconds(value[source, 'chip_time_to_goal'])} of chip time and "
                text += f"{joules(value[source, 'energy_to_goal'])} (medians)"
        if diverged := value.get((source, "diverged")):
            text += (
                f"; {round(diverged * runs)} diverged: lower its eta, or let the chip measure its"
                " rate (rate = trace)"
            )
        if still := value.get((source, "standing_still")):
            text += (
                f"; {round(still * runs)} stand still, short of the goal: no weight changes any"
                " more (is E flat there, or an "
            )
            text += "update less than a step of the device? raise estimation.sigma or training.eta)"
        sentences.append((f"{source_name(frames, source)}:", text))
    return sentences


RUNS_SHOWN = 50


AGAINST = {"update": "updates", "evaluations": "evaluations of E", "chip_time_s": "chip time, s"}


def learning_curves(frames: Frames) -> Figure | None:
    """Error and, where there are classes, accuracy against updates or evaluations, and the
    criterion against chip time.
    """
    if "learning" not in frames.tables:
        return None
    table = frames.learning
    sources = _learners(frames)
    options = frames.experiment["training"]
    others = len([source for source in sources if source != "exact"]) > 1
    column = next(
        (name for name in ("test_accuracy", "accuracy") if table[name].notna().any()), None
    )
    shown = ["error", *([column] if column else [])]
    if options["criterion"] not in shown:
        shown.append(options["criterion"])
    # settings of their own number of evaluations to an update are compared by evaluations
    panels = [("evaluations" if others else "update", what) for what in shown]
    if (table["chip_time_s"] > 0).any():
        panels.append(("chip_time_s", options["criterion"]))
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    chips = table[(table["source"] != "exact") | (len(sources) == 1)]
    for axis, (against, what) in zip(axes, panels, strict=True):
        of_errors = LEARNING[what].less_is_better
        for source, colour in sources.items():
            # the start has no place on a logarithmic axis
            own = table[(table["source"] == source) & (table[against] > 0)]
            if own.empty:
                continue
            if of_errors:
                for _, run in list(own.groupby("run"))[:RUNS_SHOWN]:
                    axis.plot(run[against], run[what], "-", color=colour, linewidth=0.5, alpha=0.35)
            by_time = own.groupby(against)[what]
            style = "--" if source == "exact" else "-"
            # errors of runs differ by orders of magnitude; accuracies are shares, whose mean means
            # something
            middle = by_time.median() if of_errors else by_time.mean()
            axis.plot(
                middle.index,
                middle,
                style,
                color=colour,
                linewidth=2,
                label=plain(source_name(frames, source)),
            )
            if what == "error" and own["predicted_error"].notna().any():
                expected = own.groupby(against)["predicted_error"].mean()
                name = plain(f"{source_name(frames, source)}, predicted")
                axis.plot(expected.index, expected, ":", color=INK, linewidth=2, label=name)
        if options["criterion"] == what:
            axis.axhline(options["goal"], color=INK, linewidth=0.8, linestyle=":")
        axis.set(xlabel=AGAINST[against], ylabel=plain(what.replace("_", " ")), xscale="log")
        if of_errors:
            axis.set_yscale("log")
            least = chips.loc[chips[what] > 0, what].min()
            if axis.get_ylim()[0] < least / 10:  # an exact gradient may go down to rounding
                axis.set_ylim(bottom=least / 10)
    drawn = {
        label: line
        for axis in axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if others and "exact" in sources:  # it takes no evaluations: its end, as a level
        for axis, (_, what) in zip(axes, panels, strict=True):
            own = table[table["source"] == "exact"]
            level, (low, high) = (
                own[own["update"] == own["update"].max()][what].median(),
                axis.get_ylim(),
            )
            drawn["exact gradient, in the end"] = axis.axhline(
                level, color=INK, linestyle="--", linewidth=1.2
            )
            axis.set_ylim(low, max(high, level))  # not down to rounding
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    return finished(figure)


def _learners(frames: Frames) -> dict[str, str]:
    """The sources of a training, and their colours."""
    sources = list(dict.fromkeys(frames.learning["source"]))
    rest = iter(
        COLOURS[i % len(COLOURS)] for i in (3, 0, 2, 1, 4, 5, 6, 7) * (1 + len(sources) // 8)
    )
    return {source: INK if source == "exact" else next(rest) for source in sources}


def alignment(frames: Frames) -> Figure | None:
    """Cosine of what was learned between two records with minus the exact gradient; and the
    learning rate, if it is measured.
    """
    if "learning" not in frames.tables:
        return None
    sources = {source: colour for source, colour in _learners(frames).items() if source != "exact"}
    table = frames.learning[
        (frames.learning["update"] > 0) & frames.learning["source"].isin(list(sources))
    ]
    if table["alignment"].notna().sum() == 0:
        return None
    options = frames.experiment["training"]
    # a rate that is fixed is a straight line, and worth no panel
    measured = any(
        settings.get("rate", "fixed") != "fixed"
        for settings in (options, *options.get("compare_with", ()))
    )
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = ["alignment", "rate"] if measured else ["alignment"]
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, what in zip(axes, panels, strict=True):
        for source, colour in sources.items():
            own = table[table["source"] == source]
            for _, run in list(own.groupby("run"))[:RUNS_SHOWN]:
                axis.plot(
                    run["evaluations"], run[what], "-", color=colour, linewidth=0.5, alpha=0.35
                )
            middle = own.groupby("evaluations")[what].median()
            axis.plot(
                middle.index,
                middle,
                "-",
                color=colour,
                linewidth=2,
                label=plain(source_name(frames, source)),
            )
        ylabel = "cosine with -gradient" if what == "alignment" else "learning rate"
        axis.set(xscale="log", xlabel=AGAINST["evaluations"], ylabel=ylabel)
        if what == "alignment":
            axis.axhline(0.0, color=INK, linewidth=0.8, linestyle=":")
    if len(sources) > 1:
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=9,
        )
    return finished(figure)


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """(source, its result), as far as there is one."""
    return learned(frames) if "learning" in frames.tables else []


def warnings(frames: Frames) -> list[str]:
    """Warnings about the settings, in sentences."""
    advice = frames.advice[frames.advice["mind"].astype(bool)]
    return [
        f"{row['setting']} = {number(row['used'])}: {row['why']}"
        for row in advice.to_dict("records")
    ]


def _called(frames: Frames, quantity: str, names: tuple[str, ...]) -> str:
    return source_name(frames, names[0])


FIGURES: dict[str, Drawing] = {
    "learning": (
        learning_curves,
        (
            "Learning curves: thin lines single runs, thick ones their median, of accuracies their"
            " mean; dashed the exact gradient from the same starts, and where several settings are"
            " compared the level at which it ends. Dotted: the goal and, where E is quadratic, what"
            " theory predicts of the mean. E is exact, computed outside the loop."
        ),
    ),
    "alignment": (
        alignment,
        (
            "How well what was learned between two records points down the exact gradient, computed"
            " outside the loop."
        ),
    ),
}


VIEW = View(
    COLUMNS, training, drawn(FIGURES), verdicts, warnings=warnings, called=_called, swept=SWEPT
)
