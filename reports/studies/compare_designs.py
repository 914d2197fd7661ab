"""Comparisons of methods as designs: how well each estimates, and what a good estimate takes."""

from collections.abc import Mapping
from typing import Any

from reports.formats import Estimate, method_name
from reports.frames import Frames
from reports.statistics import Wanted
from reports.studies.designs.design import (
    NOT_KNOWN,
    Design,
    Designed,
    must_not_vary,
    no_goal_but_its_own,
    place,
    point_estimates,
    scaled,
)
from reports.vocabulary import TARGET_COSINE

SPOKEN = {"hv": "z", "gradient": "the gradient"}


def designs(frames: Frames, wanted: Wanted | None) -> Designed:
    """A design per method, by the cosine of z, or of the gradient where no method estimates z; of
    a sweep, at every point.

    To the goal: evaluations by theory, at the chip's time and energy for each.
    """
    goal = f"a cosine of {TARGET_COSINE}, by theory"
    no_goal_but_its_own(frames, wanted, goal)
    quantity = "hv" if (frames.summary["quantity"] == "hv").any() else "gradient"
    if frames.means is None:
        rows = frames.of(quantity).to_dict("records")
        found = [_design(row) for row in rows]
    else:
        must_not_vary(frames, ())
        found = _points(frames, quantity)
    measure = f"cosine of {SPOKEN[quantity]}"
    return Designed(measure, "cosine", goal, {"goal": goal}, found)


def _design(row: Mapping[Any, Any]) -> Design:
    needed = row["evaluations_to_0_9"]
    each_s, each_j = (row[name] / row["evaluations"] for name in ("chip_time_s", "energy_j"))
    time_s, energy_j = Estimate(needed * each_s), Estimate(needed * each_j)
    return Design(method_name(row), Estimate(row["cosine"]), Estimate(needed), time_s, energy_j)


def _points(frames: Frames, quantity: str) -> list[Design]:
    names = ("cosine", "evaluations_to_0_9", "evaluations", "chip_time_s", "energy_j")
    cosine, needed, evaluations, time_s, energy_j = (
        point_estimates(frames, name) for name in names
    )
    found = []
    for point, value in cosine.items():
        # varied values, then quantity, method and code
        *values, own, method, code = point
        if own != quantity:
            continue
        goal = needed.get(point, NOT_KNOWN)
        each_s, each_j = (of[point].value / evaluations[point].value for of in (time_s, energy_j))
        name = ", ".join([*place(frames, values), f"{method}/{code}"])
        found.append(Design(name, value, goal, scaled(goal, each_s), scaled(goal, each_j)))
    return found
