"""The tables of a training: their columns, and what reports call those that learn."""

from reports.columns import Column
from reports.formats import count, joules, seconds
from reports.frames import Frames
from reports.studies.facts import FACTS

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
    "validation_error": Column("E on the patterns for validation", less_is_better=True),
    "validation_accuracy": Column("share of them classified rightly"),
    "validation_balanced_accuracy": Column(
        "mean over the classes that occur among them of the share classified rightly"
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
    "ended": Column(
        "update at which the run ended, by stop_change or patience; -1: it has not. With patience"
        " its weights then, and those of every run at the last record, are those of its best look"
    ),
    "predicted_error": Column(
        "expected error by theory, where E is quadratic", less_is_better=True
    ),
    "run_seed": Column("seed of the run's perturbations, noise and presented patterns"),
    "start_seed": Column(
        "seed of its starting weights: --set weights.seed starts there; -1: they are from"
        " weights.file or network.file"
    ),
    "die": Column(
        "number of its die: --set chip.die takes that one; the exact gradient needs none"
    ),
}


WEIGHTS = {
    "source": Column("of the updates, as in learning"),
    "run": Column("number of the run"),
    "index": Column("number of the weight in the flat vector w"),
    "layer": Column("layer that it is of, from 1; 0: of a network without layers"),
    "unit_from": Column("unit it comes from, inputs first; -1 = bias"),
    "unit_to": Column("unit it goes to"),
    "w_exact": Column(
        "weight that was learned, as the array computes with it: E at the end is exact for these"
    ),
    "w_stored": Column(
        "what its device holds: without what a reading adds (write noise, 1/f noise) and, with"
        " average_from or patience, at the last update, not the mean or that of the best look; of"
        " the exact gradient the same"
    ),
    "level": Column(
        "number of the level that a digital device holds, from 0, lowest first: with weights.bits"
        " w_stored = -range + level 2 range/2^bits; -1: it has none, or is between or"
        " beyond them"
    ),
}


CONFUSION = {
    "source": Column("of the updates, as in learning"),
    "run": Column("number of the run"),
    "patterns": Column("learned, for validation, or held back"),
    "truth": Column("class that a pattern is of"),
    "classified": Column(
        "class that it is taken for at the end; a pair that never occurs is left out, unless they"
        " are the same"
    ),
    "count": Column("patterns", count),
}


CLASSES = {
    "source": Column("of the updates, as in learning"),
    "run": Column("number of the run"),
    "patterns": Column("learned, for validation, or held back"),
    "class": Column("name of the class"),
    "count": Column("patterns that are of it", count),
    "taken": Column("patterns that are taken for it at the end", count),
    "right": Column("patterns that are both", count),
    "recall": Column("right/count; empty where no pattern is of the class"),
    "precision": Column("right/taken; empty where no pattern is taken for the class"),
}


ENERGY = {
    "source": Column("of the updates, as in learning; the exact gradient spends none"),
    "run": Column("number of the run"),
    "cause": Column(
        "what it was spent on, in trials and whatever else is measured: perturbation, mac (the"
        " array), conversion (E, dw.v, arrays), broadcast_bit (words to the synapses), accumulate"
        " (their sums); write (of weights), host (words between it and the chip), static (power),"
        " refresh (of weights)"
    ),
    "energy_to_goal_j": Column(
        "energy when the run was first seen at the goal, J; inf: never", joules, "J"
    ),
    "energy_j": Column("energy in all, J", joules, "J"),
}


ADVICE = {
    "setting": Column(
        "key of the experiment; after a comma what the numbers are, if not its value"
    ),
    "used": Column("its value"),
    "advised": Column("what theory advises"),
    "mind": Column("whether the value had better be changed"),
    "why": Column("reason"),
    "bound": Column("at least or at most, where that is a limit; empty: it is the best value"),
}
COLUMNS = {
    "summary": FACTS,
    "learning": LEARNING,
    "confusion": CONFUSION,
    "classes": CLASSES,
    "energy": ENERGY,
    "weights": WEIGHTS,
    "advice": ADVICE,
}


def source_name(frames: Frames, source: str) -> str:
    """What reports call a source of updates: a label of compare_with is its own name, and beside
    them the chip is called by its rule. No two have the same name.
    """
    options = frames.experiment["training"]
    labels = [other["label"] for other in options.get("compare_with") or ()]
    rule = (
        # a sweep over rules has no single one to name the chip by
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
    # a criterion is a column of `learning`, which knows which way is better
    sign = "<=" if LEARNING[options["criterion"]].less_is_better else ">="
    return f"{options['criterion'].replace('_', ' ')} {sign} {options['goal']:g}"
