"""What a study says of a design: how good it is, and what it takes to the goal."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from perturb.errors import InputError
from reports.formats import Estimate, Part
from reports.frames import Frames
from reports.statistics import Wanted, median_interval, t_reach
from reports.studies.sweep.series import means_of, shown

Array = np.ndarray
NOT_KNOWN = Estimate(math.nan)


class Design(NamedTuple):
    """One design.

    Parameters
    ----------
    name : str
        Beside the others of its directory; empty where it is alone.
    quality : Estimate
        Of which more is better.
    evaluations, time_s, energy_j : Estimate
        To the goal; infinite: never.
    there : Part, optional
        How many of its runs ever got there.
    """

    name: str
    quality: Estimate
    evaluations: Estimate
    time_s: Estimate
    energy_j: Estimate
    there: Part | None = None


class Designed(NamedTuple):
    """The designs of one directory.

    Parameters
    ----------
    measure, unit : str
        What their quality is.
    goal : str
        What is to be reached.
    same : mapping
        Keys of the experiment, and their values, that have to be the same in whatever they are
        compared with.
    designs : list of Design
    """

    measure: str
    unit: str
    goal: str
    same: Mapping[str, Any]
    designs: list[Design]


def mean(values: Array) -> Estimate:
    """A mean of runs with Student's interval, which one value, or values that are all alike, have
    not; no share is above 1.
    """
    # a run without a value is none of them
    values = values[~np.isnan(values)]
    middle = float(values.mean()) if len(values) else math.nan
    # Student's interval of equal values would be of width 0, as if they were certain
    if len(values) < 2 or np.ptp(values) == 0:
        return Estimate(middle)
    reach = float(t_reach(np.array(len(values)))) * float(values.std(ddof=1))
    return Estimate(middle, low=max(middle - reach, 0.0), high=min(middle + reach, 1.0))


def median(values: Array) -> Estimate:
    """A median of runs with its interval; of none it is infinite: never."""
    # no run ever got there
    if not len(values):
        return Estimate(math.inf)
    low, high = median_interval(values)
    return Estimate(float(np.median(values)), low=low, high=high)


def point_estimates(frames: Frames, measure: str) -> dict[tuple, Estimate]:
    """Of a sweep, means over repeats of a measure by its varied values and identity."""
    means = means_of(frames)
    if measure not in means.measures:
        return {}
    found = means.of(measure)
    at = found[means.by].astype(object).itertuples(index=False, name=None)
    rows = found[["mean", "low", "high"]].itertuples(index=False, name=None)
    return {
        point: Estimate(float(value), low=float(low), high=float(high))
        for point, (value, low, high) in zip(at, rows, strict=True)
    }


def place(frames: Frames, values: Iterable[Any]) -> list[str]:
    """Where a point of a sweep lies: noise = 0.01."""
    keys = frames.provenance["varied"]
    return [
        f"{key.rpartition('.')[2]} = {shown(value)}"
        for key, value in zip(keys, values, strict=True)
    ]


def scaled(estimate: Estimate, by: float) -> Estimate:
    """An estimate in another unit."""
    return Estimate(estimate.value * by, low=estimate.low * by, high=estimate.high * by)


def no_goal_but_its_own(frames: Frames, wanted: Wanted | None, goal: str) -> None:
    """InputError for a goal that a study cannot judge by."""
    if wanted is not None:
        raise InputError(
            f"{frames.directory}: is judged by {goal}, not by wanted = {str(wanted)!r}, which is of"
            " single trainings: leave it out"
        )


def must_not_vary(frames: Frames, keys: Iterable[str]) -> None:
    """InputError for a sweep whose points have different goals or data."""
    varied = frames.provenance.get("varied", ())
    for key in varied:
        if key in keys or key.startswith("data."):
            raise InputError(
                f"{frames.directory}: varies {key}: its points have not the same goal and data, and"
                " cannot be compared as designs"
            )
