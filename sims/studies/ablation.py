"""The study "ablation": what each imperfection of a chip costs."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hardware.params import ChipParams, imperfections, value_of, with_value
from perturb.errors import InputError
from perturb.trial.methods import METHODS
from reports.vocabulary import ALL, ALL_BUT, IDEAL, ONLY
from sims.experiment.schema import Setup
from sims.problem import Array, Problem, Progress, ShouldStop, Study, raise_if_stopped
from sims.studies.dies import Dies, OnDie, jackknife, needed, on_die

QUANTITIES = ("gradient", "hv")
GROUPS = (IDEAL, ONLY, ALL, ALL_BUT)  # in the order of the table


class Variant(NamedTuple):
    """A chip with some of the imperfections: of a group of GROUPS, "only" this one or "all but"
    it.
    """

    group: str
    imperfection: str
    params: ChipParams


def ablation(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Table summary: the ideal chip, each imperfection alone, all together, and all but one, each
    on the same dies and seeds.

    cosine, relative_error: rms or mean over the dies, at the trials of [estimation].
    trials_to_accuracy: from the errors after a quarter of the trials and after all of them, see
    `trials_needed`; evaluations, time and energy follow from the method and the chip's schedule.
    cost: evaluations over those of the ideal chip, by which all is ranked. An imperfection of a
    part that the method does not use, with which every number is that of the ideal chip but for
    rounding, has no row; one that is felt beside others only, such as the size of arrays, has that
    of all but it.
    """
    chip = experiment.made_chip()
    found = imperfections(chip)
    if not found:
        raise InputError(
            "chip has no imperfection to take away: give it some, such as chip.error_unit.noise ="
            " 1e-3"
        )
    variants = [Variant(IDEAL, "", without(chip, found))]
    variants += [
        Variant(ONLY, key, without(chip, [other for other in found if other != key]))
        for key in found
    ]
    variants += [Variant(ALL, "", chip)]
    variants += [Variant(ALL_BUT, key, without(chip, [key])) for key in found if len(found) > 1]
    # of the network, not of the chip: once for all variants and dies
    known = problem.curvatures(experiment.estimation.presentation)
    dies = experiment.options(Dies).count
    rows: list[dict] = []
    ideal: list[OnDie] = []
    whole: list[OnDie] = []  # with all imperfections
    idle: set[str] = set()  # that are nothing by themselves
    for done, variant in enumerate(variants):
        # the same die numbers for every variant: their ratio is free of what dies have in common
        each = []
        for die in range(dies):
            raise_if_stopped(should_stop)
            each.append(on_die(experiment, problem, variant.params, known, die))
            progress("dies", done * dies + die + 1, len(variants) * dies)
        # the first variant
        ideal = ideal or each
        # then "all but" it is "all"
        if variant.group == ONLY and _alike(each, ideal):
            idle.add(variant.imperfection)
            continue
        if variant.group == ALL:
            whole = each
        # of a part that is not used at all
        if variant.imperfection in idle and _alike(each, whole):
            continue
        rows += _variant_rows(variant, each, ideal, whole, experiment)
        # again after every variant: what was done of an interrupted study is kept
        yield "summary", ranked(rows)


def without(params: ChipParams, keys: list[str]) -> ChipParams:
    """The chip with some imperfections as in the ideal one."""
    # the defaults of a chip are the ideal one
    ideal = ChipParams()
    for key in keys:
        params = with_value(params, key, value_of(ideal, key))
    return params


def _alike(each: list[OnDie], ideal: list[OnDie]) -> bool:
    """Whether dies differ by rounding at most."""

    def numbers(dies: list[OnDie]) -> Array:
        return np.array(
            [[die.time_s, die.energy_j, *np.ravel(list(die.measured.values()))] for die in dies]
        )

    # equal_nan: where neither has an estimate they are alike, too
    return np.allclose(numbers(each), numbers(ideal), rtol=1e-9, atol=0.0, equal_nan=True)


def cost(
    each: list[OnDie], ideal: list[OnDie], quantity: str, accuracy: float
) -> tuple[float, float]:
    """How many times as many evaluations as on the ideal chip, and its standard error by leaving
    out a die at a time, of both (jackknife, Tukey 1958); NaN where that is not known.
    """

    def ratio(chosen: list[int]) -> float:
        own, other = (
            needed([dies[i] for i in chosen], quantity, accuracy) for dies in (each, ideal)
        )
        # the ideal chip itself may never get there
        return own / other if math.isfinite(other) else math.nan

    # the same dies and seeds in both: what is common to them falls out of the ratio
    return ratio(list(range(len(each)))), jackknife(ratio, len(each))


def _saved(
    variant: Variant, each: list[OnDie], whole: list[OnDie], quantity: str, accuracy: float
) -> tuple[float, float]:
    """Share of the evaluations saved over the chip with all imperfections, where one is taken
    away, and its standard error; NaN of other variants, and where neither gets there.
    """
    if variant.group != ALL_BUT:
        return math.nan, math.nan
    if math.isinf(needed(whole, quantity, accuracy)):
        # from never to some number
        own = needed(each, quantity, accuracy)
        return (1.0 if math.isfinite(own) else math.nan), math.nan
    times, stderr = cost(each, whole, quantity, accuracy)
    return 1 - times, stderr


def _variant_rows(
    variant: Variant,
    each: list[OnDie],
    ideal: list[OnDie],
    whole: list[OnDie],
    experiment: Setup,
) -> Iterator[dict]:
    time_s, energy_j = (
        float(np.mean([getattr(die, key) for die in each])) for key in ("time_s", "energy_j")
    )
    accuracy = experiment.options(Dies).accuracy
    for quantity in each[0].measured:
        # columns: trials, cosine, relative error, after all trials
        late = np.array([die.measured[quantity][1] for die in each])
        trials = needed(each, quantity, accuracy)
        times, stderr = cost(each, ideal, quantity, accuracy)
        saved, saved_stderr = _saved(variant, each, whole, quantity, accuracy)
        yield {
            "quantity": quantity,
            "variant": f"{variant.group} {variant.imperfection}".strip(),
            "group": variant.group,
            "imperfection": variant.imperfection,
            "imperfections": ", ".join(imperfections(variant.params)),
            "dies": len(each),
            "trials": int(late[0, 0]),
            "cosine": float(late[:, 1].mean()),
            "cosine_spread": float(late[:, 1].std(ddof=1)) if len(each) > 1 else math.nan,
            "relative_error": float(np.sqrt((late[:, 2] ** 2).mean())),
            # NaN compares as false: a die without an estimate does not count as good
            "yield": float((late[:, 1] >= accuracy).mean()),
            "trials_to_accuracy": trials,
            "evaluations_to_accuracy": (
                trials * METHODS[experiment.estimation.method].evaluations_per_trial
            ),
            "cost": times,
            "cost_stderr": stderr,
            "saved": saved,
            "saved_stderr": saved_stderr,
            "time_to_accuracy_s": trials * time_s,
            "energy_to_accuracy_j": trials * energy_j,
            "trial_ns": time_s * 1e9,
        }


def ranked(rows: list[dict]) -> pd.DataFrame:
    """Ideal first, then single imperfections by what they cost in evaluations, all together, and
    all but one by what taking it away saves. Where none gets there, by the error that is left.
    """

    def place(row: Any) -> tuple[int, int, float, float]:
        # of single ones the dearest first; of all but one, where the least is left
        sign = -1 if row["group"] == ONLY else 1
        return (
            QUANTITIES.index(row["quantity"]),
            GROUPS.index(row["group"]),
            sign * row["evaluations_to_accuracy"],
            sign * row["relative_error"],
        )

    order: list[dict] = sorted(rows, key=place)
    return pd.DataFrame(order)
