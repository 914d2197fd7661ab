"""How the comparison of methods is shown: accuracy, limits and cost of each, beside exact
R{backprop}.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.columns import Column, Table, named, only
from reports.figures import Drawn, drawn
from reports.formats import amount, cosine, count, joules, method_name, percent, seconds
from reports.frames import Frames, Swept, View
from reports.studies.energy import CAUSES
from reports.vocabulary import TARGET_COSINE

if TYPE_CHECKING:
    from reports.statistics import Wanted
    from reports.studies.designs.design import Designed

SUMMARY = {
    "quantity": Column("gradient (dE/dw) or hv (z = Hv)"),
    "method": Column("method of weight perturbation"),
    "code": Column("perturbation code"),
    "n_weights": Column("weights of the network, biases included"),
    "trials": Column("draws of the perturbation", count),
    "evaluations": Column("measurements of E", count),
    "cosine": Column(
        "cosine of the estimate with exact R{backprop}", cosine, "cosine", heading="measured cosine"
    ),
    "relative_error": Column("|estimate - exact| / |exact|", less_is_better=True),
    "rms_stderr": Column(
        "rms over weights of the standard error, units of the quantity; empty where it cannot be"
        " known",
        heading="stderr (rms)",
    ),
    "z_rms": Column(
        "rms over weights of (estimate - exact)/stderr; about 1 without bias",
        heading="stderrs to exact",
    ),
    "limit_relative_error": Column(
        "|estimate - limit| / |limit|, the limit being what theory says the method tends to",
        heading="limit error",
        less_is_better=True,
    ),
    "chip_time_s": Column("time on the chip, s", seconds, "s", heading="chip time"),
    "energy_j": Column("energy on the chip, J", joules, "J", heading="energy"),
    "wall_time_s": Column("time of this simulation, s", seconds, "s", heading="wall time"),
    "events": Column("events simulated in time"),
    "limit_z_rms": Column(
        "rms over weights of (estimate - limit)/stderr; about 1 if theory is right",
        heading="stderrs to limit",
    ),
    "label": Column("as published, or an extension", heading="what it is"),
    "sigma": Column("rms of a perturbation, units of w"),
    "r": Column("displacement along v; empty for methods without"),
    "broadcasts": Column("what is broadcast to every synapse"),
    "predicted_cosine": Column("cosine that theory predicts", cosine, "cosine"),
    "limit_cosine": Column(
        "cosine of the method's limit with the exact answer: the best that any number of trials"
        " reaches",
        cosine,
        "cosine",
    ),
    "evaluations_to_0_9": Column(
        "predicted evaluations to a cosine of 0.9; inf = never", count, heading="for cosine 0.9"
    ),
    "imperfect": Column(
        "whether the chip has imperfections beside the noise of a reading, which theory leaves out"
    ),
    "unknown_weights": Column("weights that have no estimate, because all their trials were alike"),
    "exact_is_zero": Column("whether the exact answer is zero, which has no direction"),
    "primary": Column(
        "whether this is the experiment's own method (the others were set beside it)"
    ),
    "status": Column("complete, or partial if the run ended early"),
    "warnings": Column(
        "warnings about the method, its code and the number of trials; empty if none"
    ),
    "trial_ns": Column("chip time of a trial, ns"),
    "busiest": Column("part of the chip that limits the trial rate"),
    "busiest_share": Column("share of the chip time in which it was at work", percent, "share"),
    "converter_share": Column(
        "share of the chip time in which the error unit's converter was busy", percent, "share"
    ),
    "bus_share": Column(
        "share of the chip time in which the broadcast bus was busy", percent, "share"
    ),
    "incidents": Column("what went wrong on the chip; empty if nothing"),
    "faultless_cosine": Column(
        "cosine of the same run without the faults that it met; empty if it met none",
        cosine,
        "cosine",
    ),
    "predicted_relative_error": Column("relative error that theory predicts", less_is_better=True),
    "df": Column(
        "degrees of freedom of the standard errors; inf where known without limit, empty where they"
        " are not known"
    ),
}


WEIGHTS = {
    "method": Column("method"),
    "code": Column("code"),
    "index": Column("number of the weight in the flat vector w"),
    "unit_from": Column("unit it comes from, inputs first; -1 = bias"),
    "unit_to": Column("unit it goes to"),
    "w": Column("weight"),
    "v": Column("direction"),
    "g_exact": Column("exact dE/dw"),
    "g_hat": Column("estimated dE/dw"),
    "g_stderr": Column("its standard error"),
    "hv_exact": Column("exact (Hv)_i"),
    "hv_hat": Column("estimated (Hv)_i; empty for a method of the gradient alone"),
    "hv_stderr": Column("its standard error"),
    "hv_limit": Column("what the method tends to, by theory"),
    "g_df": Column(
        "degrees of freedom of g_stderr: an interval takes Student's quantile where they are few"
    ),
    "hv_df": Column("degrees of freedom of hv_stderr"),
}


CONVERGENCE = {
    "method": Column("method"),
    "code": Column("code"),
    "quantity": Column("gradient or hv"),
    "trials": Column("trials so far", count),
    "evaluations": Column("measurements of E so far", count),
    "cosine": Column("cosine with the exact answer", cosine, "cosine", heading="measured cosine"),
    "relative_error": Column("|estimate - exact| / |exact|", less_is_better=True),
    "predicted_cosine": Column("predicted cosine", cosine, "cosine"),
    "predicted_relative_error": Column("predicted relative error", less_is_better=True),
}


TIMELINE = {
    "method": Column("method"),
    "code": Column("code"),
    "trial": Column("trial"),
    "phase": Column("evaluation within the trial, -1 = none"),
    "start_ns": Column("start, ns of chip time"),
    "end_ns": Column("end, ns of chip time"),
    "unit": Column("part of the chip"),
    "action": Column("what it did"),
}


ENERGY = {
    "method": Column("method"),
    "code": Column("code"),
    "cause": Column("what the energy was spent on"),
    "energy_j": Column("energy of the whole run, J", joules, "J", heading="energy"),
}

COLUMNS = {
    "summary": SUMMARY,
    "weights": WEIGHTS,
    "convergence": CONVERGENCE,
    "timeline": TIMELINE,
    "energy": ENERGY,
}


SWEPT = Swept(
    ("quantity", "method", "code"),
    ("relative_error", "cosine"),
    {"relative_error": "predicted_relative_error", "cosine": "predicted_cosine"},
    # the name of a key, not a number: a sweep wants what [dies] of the experiment asks for
    ("cosine", "dies.accuracy"),
)


NAME = named("method/code")
USE_OF_Z = (
    "z tells how large a step may be, makes steps by curvature (Newton) and says which weights can"
    " go; learning by the gradient alone does without it"
)


def accuracy(frames: Frames, quantity: str, title: str, note: str = "") -> Table:
    """How good the estimates of one quantity are, a row per method."""
    names = ["predicted_cosine", "cosine", "relative_error", "rms_stderr", "z_rms"]
    if quantity == "hv":
        names = ["label", *names, "limit_relative_error", "limit_z_rms"]
    else:
        names = ["broadcasts", *names]
    columns = {"name": NAME, **only(SUMMARY, names)}
    return Table(title, note, with_name(frames.of(quantity)), columns, names[0])


def cost(frames: Frames, title: str, note: str) -> Table:
    """What each method spent on the chip, and what z (or else the gradient) to a cosine of 0.9
    would take.
    """
    spent = ("trials", "evaluations", "evaluations_to_0_9", "chip_time_s", "energy_j")
    columns = {"name": NAME, **only(SUMMARY, ("broadcasts", *spent, "wall_time_s"))}
    return Table(title, note, with_name(frames.of_each()), columns, "broadcasts")


def with_name(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary with a column `name`, of method and code."""
    return rows.assign(name=rows["method"].astype(str) + "/" + rows["code"].astype(str))


def _comparison(frames: Frames) -> list[Table]:
    z = accuracy(
        frames,
        "hv",
        "z = Hv, how the gradient changes along v: estimated, against exact R{backprop}",
        f"{USE_OF_Z}; R{{backprop}}: z by one more backpropagation, exact; limit error:"
        " distance of the estimate from what theory says the method tends to with ever more trials,"
        " relative to that",
    )
    g = accuracy(
        frames,
        "gradient",
        "Gradient g = dE/dw, which learning goes down: estimated, against exact backprop",
        "below each method: what the chip broadcasts to the synapses; cosine: 1 where the estimate"
        " points as the exact gradient does; predicted: by theory, before anything is run; stderrs:"
        " rms distance in standard errors, about 1 where nothing but noise is left",
    )
    return [
        g,
        # where only the gradient is estimated there is no table of z
        *([z] if frames.methods("hv") else []),
        cost(
            frames,
            "What it cost, each method at the same number of evaluations",
            "evaluations: measurements of E; for cosine 0.9: evaluations until the estimate of z"
            " (of the gradient, if that is all) has that cosine with the exact one, by theory",
        ),
    ]


def verdicts(frames: Frames) -> list[tuple[str, str]]:
    """(method/code, result of its z, or of its gradient where that is all)."""
    return [
        (method_name(row), verdict(row) + cost_of_faults(row))
        for row in frames.of_each().to_dict("records")
    ]


SPOKEN = {"gradient": "the gradient", "hv": "Hv"}


def verdict(row: Mapping[Any, Any]) -> str:
    """The result of one quantity by one method, from its row of the summary."""
    quantity = SPOKEN[row["quantity"]]
    cosine_ = row["cosine"]
    needed = row["evaluations_to_0_9"]
    # those that were spent, also by a partial run
    evaluations = row["evaluations"]
    if math.isnan(cosine_):
        return f"gives no estimate of {quantity}: {_nothing(row)}"
    if math.isnan(needed):
        return (
            f"has a cosine of {cosine_:.4f} with {quantity} after {evaluations:,} evaluations,"
            " which theory cannot foretell here (a warning says why)"
        )
    # never: either the limit is wrong, or the count is beyond what can be numbered
    if math.isinf(needed):
        why = f"the limit it tends to has a cosine of {row['limit_cosine']:.2f}"
        if row["limit_cosine"] > TARGET_COSINE:
            why = (
                "noise hides what the trials look for, so that it would take more than 2^62 of them"
            )
        return (
            f"cannot reach a cosine of {TARGET_COSINE} with {quantity}, however many evaluations:"
            f" {why}"
        )
    # by theory, before what was measured is looked at: luck is no success
    if needed > evaluations:
        return (
            f"cannot succeed with {evaluations:,} evaluations: a cosine of {TARGET_COSINE} with"
            f" {quantity} takes about {amount(needed)}, {amount(needed / evaluations)} times as"
            " many"
        )
    # as predicted, and so measured
    if cosine_ >= TARGET_COSINE:
        enough = f"{amount(needed)} evaluations are enough for {TARGET_COSINE}"
        return f"succeeds: a cosine of {cosine_:.4f} with {quantity}; {enough}"
    alone = " for a chip with noise of the error alone" if row["imperfect"] else ""
    short = (
        f"falls short: a cosine of {row['predicted_cosine']:.3f} with {quantity} was"
        f" predicted{alone}, {cosine_:.3f} measured"
    )
    # NaN, of a run that met no faults, compares as false
    if row["faultless_cosine"] >= TARGET_COSINE:  # what the faults cost is said next
        return short
    if row["imperfect"]:
        return f"{short}: its other imperfections cost the rest (perturb ablate ranks them)"
    return (
        f"{short}; by chance (try another seed), or because terms beyond the quadratic matter"
        " (lower sigma and r)"
    )


def _nothing(row: Mapping[Any, Any]) -> str:
    """Why there is no cosine."""
    if row["unknown_weights"]:
        return (
            f"to {row['unknown_weights']} of {row['n_weights']} weights all trials were alike; take"
            " more"
        )
    if row["exact_is_zero"]:
        return "the exact one is zero, which has no direction"
    why = (
        ", so nothing of the perturbation reaches E and its reading"
        if math.isnan(row["faultless_cosine"])
        else ""
    )
    return f"every sum is zero{why}"


def cost_of_faults(row: Mapping[Any, Any]) -> str:
    """What the faults of a run cost it, as the end of its verdict; nothing where it met none."""
    unhurt = row["faultless_cosine"]
    measured = row["cosine"]
    if math.isnan(unhurt):
        return ""
    # no estimate at all is a cosine of 0
    lost = unhurt - (0.0 if math.isnan(measured) else measured) if unhurt > 0 else 0.0
    cost = f"{lost:.2f}" if lost >= 0.005 else "less than 0.01" if lost > 0 else "nothing"
    return (
        f"; faults cost {cost} of the cosine with {SPOKEN[row['quantity']]} ({unhurt:.2f} without"
        " them)"
    )


def hardware(frames: Frames) -> list[str]:
    """What limits the chip's speed, what its energy goes into, and what went wrong on it, in
    sentences.
    """
    rows = frames.of_each()
    sentences = []
    # a partial run may not have reached the experiment's own method
    own = rows[rows["primary"]] if rows["primary"].any() else rows
    row = own.iloc[-1].to_dict()
    rate = 1e9 / row["trial_ns"]
    share = row["busiest_share"]
    sentences.append(
        f"{method_name(row)} makes {count(rate)} trials a second; {row['busiest']} takes"
        f" {share:.0%} of the time."
    )
    sentences.append(
        f"The converter is busy {row['converter_share']:.0%} of the time, the bus"
        f" {row['bus_share']:.0%}."
    )
    # of the experiment's own method
    energy = frames.energy[
        (frames.energy["method"] == row["method"]) & (frames.energy["code"] == row["code"])
    ]
    if energy["energy_j"].sum() > 0:
        most = energy.iloc[int(energy["energy_j"].argmax())]
        part = most["energy_j"] / energy["energy_j"].sum()
        sentences.append(f"{part:.0%} of its energy is {CAUSES[most['cause']].spoken}.")
    return [*sentences, f"On its chip: {row['incidents']}"] if row["incidents"] else sentences


def warnings(frames: Frames) -> list[str]:
    """Warnings about the methods and codes, in sentences."""
    # a dict, not a set: each text once, in the order of the methods
    return [text for text in dict.fromkeys(frames.of_each()["warnings"].astype(str)) if text]


def _figures(frames: Frames) -> dict[str, Drawn]:
    # late: much to load, for pages and plots alone
    from reports.studies.compare_figures import FIGURES

    return drawn(FIGURES)(frames)


def _designs(frames: Frames, wanted: "Wanted | None") -> "Designed":
    # late: statistics are much to load for a run that is printed
    from reports.studies.compare_designs import designs

    return designs(frames, wanted)


VIEW = View(
    COLUMNS, _comparison, _figures, verdicts, hardware, warnings, swept=SWEPT, designs=_designs
)
