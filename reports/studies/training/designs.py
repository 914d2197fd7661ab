"""Trainings as designs to be compared: how well they end, and what they take to the goal."""

import pandas as pd

from perturb.errors import InputError
from reports.formats import Estimate, Part
from reports.frames import Frames
from reports.statistics import Wanted, share_interval
from reports.studies.designs.design import (
    NOT_KNOWN,
    Design,
    Designed,
    mean,
    median,
    must_not_vary,
    no_goal_but_its_own,
    place,
    point_estimates,
)
from reports.studies.sweep.series import means_of
from reports.studies.training.columns import LEARNING, goal, source_name

GOAL = ("training.criterion", "training.goal")
SPENT = ("evaluations", "chip_time_s", "energy_j")
TO_GOAL = ("evaluations_to_goal", "chip_time_to_goal", "energy_to_goal")
SOLVED = "share of runs solved"


def designs(frames: Frames, wanted: Wanted | None) -> Designed:
    """A design per source but the exact gradient; of a sweep, of every point.

    Quality is the accuracy that is the goal, else that on patterns held back, else the share of
    runs that end at the goal. wanted: another goal, which single trainings are judged by anew.
    """
    if frames.means is not None:
        no_goal_but_its_own(frames, wanted, goal(frames))
        must_not_vary(frames, GOAL)
        return _points(frames)
    wanted = own_goal(frames) if wanted is None else _known(frames, wanted)
    learning = frames.learning
    quality = _quality(wanted.measure, bool(learning["test_accuracy"].notna().any()))
    sources = [source for source in learning["source"].unique() if source != "exact"]
    if not sources:
        raise InputError(
            f"{frames.directory}: only the exact gradient learns there, which takes no chip time:"
            ' leave it out, or run it with training.source = "batch"'
        )
    found = []
    for source in sources:
        name = source_name(frames, source) if len(sources) > 1 else ""
        found.append(_design(name, learning[learning["source"] == source], wanted, quality))
    return Designed(quality.replace("_", " "), "share", _said(wanted), _same(frames, wanted), found)


def own_goal(frames: Frames) -> Wanted:
    """The goal of a training as a condition."""
    options = frames.experiment["training"]
    at_least = not LEARNING[options["criterion"]].less_is_better
    return Wanted(options["criterion"], at_least, options["goal"])


def _said(wanted: Wanted) -> str:
    return (
        f"{wanted.measure.replace('_', ' ')} {'>=' if wanted.at_least else '<='} {wanted.value:g}"
    )


def _same(frames: Frames, wanted: Wanted) -> dict[str, object]:
    same: dict[str, object] = {"goal": _said(wanted)}
    # errors are of one kind, accuracies of any
    if not wanted.at_least:
        same["network.error"] = frames.experiment["network"].get("error")
    return same


def _quality(criterion: str, held_back: bool) -> str:
    if criterion.endswith("accuracy"):
        return criterion
    return "test_accuracy" if held_back else SOLVED


def _known(frames: Frames, wanted: Wanted) -> Wanted:
    """What is wanted, if the training has it."""
    named = wanted._replace(measure=wanted.measure.replace(" ", "_"))
    has = [
        name
        for name in LEARNING
        if name.endswith(("error", "accuracy"))
        and name != "predicted_error"
        and frames.learning[name].notna().any()
    ]
    if named.measure not in has:
        raise InputError(
            f"{frames.directory}: wanted = {str(wanted)!r}: {wanted.measure} is no measure of this"
            f" training: one of {'; '.join(has)}"
        )
    if named.at_least == LEARNING[named.measure].less_is_better:
        sign = ">=" if not named.at_least else "<="
        raise InputError(
            f"wanted = {str(wanted)!r} is met by what is bad: write"
            f" '{named.measure}{sign}{named.value:g}'"
        )
    return named


def _design(name: str, own: pd.DataFrame, wanted: Wanted, quality: str) -> Design:
    """One source, from its learning curves."""
    met = wanted.met(own[wanted.measure].to_numpy(float))
    # rows stand in the order of updates
    first = own[met].groupby("run").first()
    last = own["update"] == own["update"].max()
    runs = int(last.sum())
    if quality == SOLVED:
        solved = int((met & last.to_numpy()).sum())
        low, high = share_interval(solved, runs)
        ends = Estimate(solved / runs, low=low, high=high)
    else:
        ends = mean(own.loc[last, quality].to_numpy(float))
    evaluations, time_s, energy_j = (median(first[column].to_numpy(float)) for column in SPENT)
    return Design(name, ends, evaluations, time_s, energy_j, Part(len(first), runs))


def _points(frames: Frames) -> Designed:
    """A design for every point of a sweep and source: means over its repeats."""
    held_back = "test_accuracy" in means_of(frames).measures
    own = own_goal(frames)
    quality = _quality(own.measure, held_back)
    ends = point_estimates(frames, "solved" if quality == SOLVED else quality)
    spent = [point_estimates(frames, measure) for measure in TO_GOAL]
    sources = {point[-1] for point in ends} - {"exact"}
    found = []
    for point, value in ends.items():
        *values, source = point
        if source == "exact":
            continue
        called = [source_name(frames, source)] if len(sources) > 1 else []
        name = ", ".join([*place(frames, values), *called])
        evaluations, time_s, energy_j = (of.get(point, NOT_KNOWN) for of in spent)
        found.append(Design(name, value, evaluations, time_s, energy_j))
    return Designed(quality.replace("_", " "), "share", _said(own), _same(frames, own), found)
