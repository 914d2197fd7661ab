"""How a training is shown: how soon and how well each source of updates learns."""

import math
from functools import partial

from matplotlib.figure import Figure

from reports.escape import plain
from reports.figures import COLOURS, INK, Drawing, drawn, finished
from reports.formats import Number, Titled, count, fixed, number, si, with_error
from reports.frames import Frames, Swept, View
from reports.studies.facts import FACTS
from reports.table import error_bar

LEARNING = {
    "source": (
        "of the updates: batch or event (the chip), a label of compare_with, or exact (the exact"
        " gradient)"
    ),
    "run": "number of the run",
    "update": "updates done",
    "trials": "trials done",
    "evaluations": "measurements of E, those of measured rates included",
    "chip_time_s": "chip time, s",
    "energy_j": "energy on the chip, J",
    "error": "E at the weights, on the patterns learned, exact",
    "accuracy": "share of them classified rightly; empty where targets are no classes",
    "balanced_accuracy": (
        "mean over the classes that occur of the share of each that is classified rightly"
    ),
    "test_error": "E on the patterns held back",
    "test_accuracy": "share of them classified rightly",
    "test_balanced_accuracy": (
        "mean over the classes that occur among them of the share classified rightly"
    ),
    "alignment": "cosine of the change since the last record with minus the exact gradient there",
    "rate": "learning rate in use, eta / (1 + update/decay) without the decay",
    "diverged": "whether the error is no longer finite, or 10,000 times that at the start",
    "still": "whether no weight has changed since the last record",
    "predicted_error": "expected error by theory, where E is quadratic",
    "run_seed": "seed of the run's perturbations, noise and presented patterns",
    "start_seed": "seed of its starting weights: --set weights.seed starts there",
    "die": "number of its die: --set chip.die takes that one; the exact gradient needs none",
}


CONFUSION = {
    "source": "of the updates, as in learning",
    "run": "number of the run",
    "patterns": "learned, or held back",
    "truth": "class that a pattern is of",
    "classified": (
        "class that it is taken for at the end; a pair that never occurs is left out, unless they"
        " are the same"
    ),
    "count": "patterns",
}


ADVICE = {
    "setting": "key of the experiment",
    "used": "its value",
    "advised": "what theory advises",
    "mind": "whether the value had better be changed",
    "why": "reason",
}
COLUMNS = {"summary": FACTS, "learning": LEARNING, "confusion": CONFUSION, "advice": ADVICE}


SWEPT = Swept(
    ("subject",),
    ("solved", "ever_solved", "error", "test_accuracy", "evaluations_to_goal"),
    {"error": "predicted_error"},
    ("solved", 0.5),
    dict.fromkeys(("solved", "ever_solved", "diverged"), "training.runs"),
)


MOST_CLASSES = 20  # of which a confusion matrix is shown


def source_name(frames: Frames, source: str) -> str:
    """What reports call a source of updates: a label of compare_with is its own name, and beside
    them the chip is told by its rule. No two have the same name.
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
    while called in labels and source not in labels:
        called = f"the {called}"
    return called


def goal(frames: Frames) -> str:
    """What a training was to reach."""
    options = frames.experiment["training"]
    sign = "<=" if options["criterion"].endswith("error") else ">="
    return f"{options['criterion'].replace('_', ' ')} {sign} {options['goal']:g}"


def training(frames: Frames) -> list[Titled]:
    shown: list[Titled] = []
    if "learning" in frames.tables:
        shown += _trained(frames)
    if len(frames.tables.get("confusion", ())):
        shown += _classified(frames)
    advice = frames.tables.get("advice")
    if advice is not None and len(advice):
        rows = [
            [row["setting"], row["why"], number(row["used"]), number(row["advised"])]
            for row in advice.to_dict("records")
        ]
        shown.append(
            ("Advice, before anything is run", "", (["setting", "", "used", "advised"], rows))
        )
    return shown


def _values(frames: Frames) -> dict[tuple[str, str], float]:
    """(source, measure): value."""
    facts = frames.summary
    return dict(
        zip(
            zip(facts["subject"], facts["measure"], strict=True),
            facts["value"].astype(float),
            strict=True,
        )
    )


# of a source, beside when and how well it learned
FURTHER = (
    "predicted_error",
    "diverged",
    "standing_still",
    "alignment",
    "exact_less_this",
    "stable_learning_rate",
)


def _trained(frames: Frames) -> list[Titled]:
    """A row per source: when it got there, and where it ended; then what belongs to none of
    them.
    """
    sources = list(dict.fromkeys(frames.learning["source"]))
    value = _values(frames)
    runs = frames.learning["run"].nunique()
    reached = []
    ended = []
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
        cells: list[str] = []
        for what in ("solved", "ever_solved"):
            cells.append(
                Number(f"{round(value[source, what] * runs)} of {runs}", value[source, what])
            )
        cells.append(count(value[source, "updates_to_goal"]))
        if source != "exact":
            cells.append(count(value[source, "evaluations_to_goal"]))
            cells += [
                si(value[source, f"{what}_to_goal"], unit)
                for what, unit in (("chip_time", "s"), ("energy", "J"))
            ]
            cells.append(count(value[source, "evaluations"]))
        reached.append([source_name(frames, source), "", *cells, *["-"] * (7 - len(cells))])
        cells = []
        for name in ends:
            digits = number if name.endswith("error") else partial(fixed, spec=".3f")
            mean, sd, worst = (value[source, f"{name}{part}"] for part in ("", "_sd", "_worst"))
            cells += [with_error(digits(mean), number(sd)), digits(worst)]
        ended.append([source_name(frames, source), "", *cells])
    header = [
        "updates by",
        "",
        "solved",
        "ever solved",
        "updates to goal",
        "evaluations to goal",
        "time to goal",
    ]
    header += ["energy to goal", "evaluations in all"]
    says = (
        "solved: there at the end; ever: at any record; to goal: medians of those runs, when first"
        " seen there"
    )
    shown = [(f"How soon: {goal(frames)}", says, (header, reached))]
    called = [name.replace("_", " ") for name in ends]
    header = ["updates by", "", *(column for name in called for column in (name, f"worst {name}"))]
    says = (
        f"mean +- standard deviation over the {runs} runs, each with a start and a die of its own;"
        " the worst of them"
    )
    shown.append(("How well, at the end", says, (header, ended)))
    rest = frames.summary[frames.summary["measure"].isin(FURTHER)]
    rows = [
        [frames.fact_name(row), row["meaning"], number(row["value"]), error_bar(row)]
        for row in rest.to_dict("records")
    ]
    says = "a standard error stands where a value is estimated"
    header = ["what", "meaning", "value", "standard error"]
    return [*shown, ("Further", says, (header, rows))]


def _classified(frames: Frames) -> list[Titled]:
    """Patterns of each class, and for every source what those held back (or learned) are taken
    for, over all runs.
    """
    table = frames.confusion
    names = list(dict.fromkeys(table["truth"]))
    first = table[
        (table["source"] == table["source"].iloc[0]) & (table["run"] == table["run"].iloc[0])
    ]
    counts = first.pivot_table(
        index="truth", columns="patterns", values="count", aggfunc="sum", sort=False
    )
    rows = [
        [name, "", *(count(counts.loc[name, part]) for part in counts.columns)] for name in names
    ]
    absent = [
        f"no pattern of {name} {part}"
        for part in counts.columns
        for name in names
        if not counts.loc[name, part]
    ]
    shown: list[Titled] = [
        ("Patterns of each class", "; ".join(absent[:5]), (["class", "", *counts.columns], rows))
    ]
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
        square = square.reindex(index=names, columns=names, fill_value=0)
        rows = []
        for name in names:
            total = int(square.loc[name].sum())
            right = fixed(square.loc[name, name] / total, ".3f") if total else "-"
            rows.append([name, "", *(count(square.loc[name, other]) for other in names), right])
        says = (
            f"row: class of a pattern {part}; column: what it is taken for at the end; all runs"
            " together"
        )
        header = ["class", "", *names, "share right"]
        shown.append((f"Confusion matrix, {source_name(frames, source)}", says, (header, rows)))
    return shown


def learned(frames: Frames) -> list[tuple[str, str]]:
    """What came of a training, in a sentence for every source."""
    learning = frames.learning
    said = []
    value = _values(frames)
    runs = learning["run"].nunique()
    for source in dict.fromkeys(learning["source"]):
        solved, ever = (round(value[source, what] * runs) for what in ("solved", "ever_solved"))
        text = f"ends with {goal(frames)} in {solved} of {runs} runs"
        if math.isfinite(updates := value[source, "updates_to_goal"]):
            text += f" ({ever} were ever there), " if ever > solved else ", "
            text += f"first seen there after {count(updates)} updates"
            if source != "exact":
                text += f", {count(value[source, 'evaluations_to_goal'])} evaluations, "
                text += f"{si(value[source, 'chip_time_to_goal'], 's')} of chip time and "
                text += f"{si(value[source, 'energy_to_goal'], 'J')} (medians)"
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
        said.append((f"{source_name(frames, source)}:", text))
    return said


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
        of_errors = what.endswith("error")
        for source, colour in sources.items():
            own = table[(table["source"] == source) & (table[against] > 0)]
            if own.empty:
                continue
            if of_errors:
                for _, run in list(own.groupby("run"))[:RUNS_SHOWN]:
                    axis.plot(run[against], run[what], "-", color=colour, linewidth=0.5, alpha=0.35)
            by_time = own.groupby(against)[what]
            style = "--" if source == "exact" else "-"
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
    """(source, what came of it), as far as there is something."""
    return learned(frames) if "learning" in frames.tables else []


def warnings(frames: Frames) -> list[str]:
    """What to mind about the settings, in sentences."""
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
