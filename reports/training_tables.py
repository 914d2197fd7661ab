"""A stored training in words and tables."""

import math

from reports.frames import Frames
from reports.texts import Titled, count, number, si

MOST_CLASSES = 20  # of which a confusion matrix is shown


def source_name(frames: Frames, source: str) -> str:
    """What reports call a source of updates: a label of compare_with is its own name, and beside them the chip is told by its
    rule. No two have the same name."""
    options = frames.experiment["training"]
    labels = [other["label"] for other in options.get("compare_with") or ()]
    rule = "its rule as varied" if "training.rule" in frames.provenance.get("varied", ()) else options["rule"]
    called = {"batch": "chip", "event": "chip by events", "exact": "exact gradient"}.get(source, source)
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
        rows = [[row["setting"], row["why"], number(row["used"]), number(row["advised"])] for row in advice.to_dict("records")]
        shown.append(("Advice, before anything is run", "", (["setting", "", "used", "advised"], rows)))
    return shown


def _trained(frames: Frames) -> list[Titled]:
    """A row per source: when it got there, and where it ended; then what belongs to none of them."""
    sources, facts = list(dict.fromkeys(frames.learning["source"])), frames.summary.set_index("fact")
    runs = frames.learning["run"].nunique()
    value = facts["value"].to_dict()
    reached, ended = [], []
    known = ("test accuracy", "test balanced accuracy"), ("test error",), ("accuracy", "balanced accuracy")
    ends = ["error", *next((names for names in known if f"{sources[0]}: {names[0]}" in value), ())]
    if all(
        value[f"{source}: {name}"] == value[f"{source}: {name.replace('balanced ', '')}"] for source in sources for name in ends
    ):
        ends = [name for name in ends if "balanced" not in name]  # as many of each class
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
        if ":" not in str(fact) or str(fact).endswith(("alignment", "diverged", "still", "foretold"))
    ]
    for row in rest:
        source, colon, fact = str(row[0]).partition(": ")
        before, less, other = str(row[0]).partition(" less ")
        row[0] = f"{fact}, {source_name(frames, source)}" if colon else before + less + source_name(frames, other)
    says, header = "a standard error stands where a value is estimated", ["what", "", "value", "standard error"]
    return [*shown, ("Further", says, (header, rest))]


def _classified(frames: Frames) -> list[Titled]:
    """Patterns of each class, and for every source what those held back (or learned) are taken for, over all runs."""
    table = frames.confusion
    names = list(dict.fromkeys(table["truth"]))
    first = table[(table["source"] == table["source"].iloc[0]) & (table["run"] == table["run"].iloc[0])]
    counts = first.pivot_table(index="truth", columns="patterns", values="count", aggfunc="sum", sort=False)
    rows = [[name, "", *(count(counts.loc[name, part]) for part in counts.columns)] for name in names]
    absent = [f"no pattern of {name} {part}" for part in counts.columns for name in names if not counts.loc[name, part]]
    shown: list[Titled] = [("Patterns of each class", "; ".join(absent[:5]), (["class", "", *counts.columns], rows))]
    if len(names) > MOST_CLASSES:
        return shown
    part = counts.columns[-1]
    for source in dict.fromkeys(table["source"]):
        own = table[(table["source"] == source) & (table["patterns"] == part)]
        square = own.pivot_table(index="truth", columns="classified", values="count", aggfunc="sum", fill_value=0, sort=False)
        square = square.reindex(index=names, columns=names, fill_value=0)
        rows = []
        for name in names:
            total = int(square.loc[name].sum())
            right = f"{square.loc[name, name] / total:.3f}" if total else "-"
            rows.append([name, "", *(count(square.loc[name, other]) for other in names), right])
        says = f"row: class of a pattern {part}; column: what it is taken for at the end; all runs together"
        header = ["class", "", *names, "share right"]
        shown.append((f"Confusion matrix, {source_name(frames, source)}", says, (header, rows)))
    return shown


def learned(frames: Frames) -> list[tuple[str, str]]:
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
        if still := value.get(f"{source}: standing still"):
            text += f"; {round(still * runs)} stand still, short of the goal: no weight changes any more (is E flat there, or an "
            text += "update less than a step of the device? raise estimation.sigma or training.eta)"
        said.append((f"{source_name(frames, source)}:", text))
    return said
