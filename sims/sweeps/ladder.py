"""The values of a key from the ideal one to the least demanding, among which a requirement is
sought.
"""

import math
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_origin

import numpy as np
from annotated_types import Le
from pydantic.fields import FieldInfo

from hardware.marks import ZERO_IS_OFF
from perturb.errors import InputError, one_line, shown
from perturb.settings import plain
from sims.sweeps.design import rounded
from sims.sweeps.plan import field_of, is_integer, kinds_of

MAX_STEPS = 100  # per factor of ten: three digits tell values so near apart
MAX_DECADES = 40
# from where to where values go, unless the key ends before: nanoseconds, seconds, and what is
# relative to weights or errors of order one
NANOSECONDS = (1.0, 1e6)
SECONDS = (1e-9, 1e3)
RELATIVE = (1e-6, 1e2)
COUNTS = (1.0, 1e4)


class Span(NamedTuple):
    """The ends of a ladder."""

    ideal: float
    worst: float


def parse_spans(items: list[str], option: str) -> dict[str, Span]:
    """{"chip.weights.bits": Span(12, 2)} of ["chip.weights.bits=12:2"]."""
    found: dict[str, Span] = {}
    for item in items:
        key, _, text = (part.strip() for part in item.partition("="))
        ends = [plain(part.strip()) for part in text.split(":")]
        numbers = [end for end in ends if isinstance(end, (int, float)) and math.isfinite(end)]
        if not key or len(ends) != 2 or len(numbers) != 2:
            raise InputError(
                f"{option} {one_line(item)}: not of the form KEY=IDEAL:WORST with finite numbers,"
                f" such as {option} chip.error_unit.noise=1e-4:0.1"
            )
        if key in found:
            raise InputError(f"{option} {one_line(key)}: given twice: leave one of them out")
        found[key] = Span(*numbers)
    return found


def check_number(key: str, known: FieldInfo | None) -> FieldInfo:
    """The Field of a key; InputError if it takes no numbers."""
    kinds = kinds_of(known.annotation) if known else []
    single = all(get_origin(kind) in (None, Union, UnionType, Annotated) for kind in kinds)
    if known is None or not single or not (int in kinds or float in kinds):
        raise InputError(
            f"{one_line(key)}: takes no number: give a key such as chip.error_unit.noise or"
            " chip.weights.bits"
        )
    return known


def ladder(key: str, span: Span | None, steps: int) -> list[float]:
    """The values of a key, the ideal one first; steps: in a factor of ten. Of bits every number.

    Without a span they are those of the key's Field: from 0, where its imperfection is not there,
    through the smallest (or, where less is worse, the largest) values to the other end; of a device
    from what a perfect one has.
    """
    known = check_number(key, field_of(key))
    whole = is_integer(key)
    bits = ZERO_IS_OFF in known.metadata or key.endswith(".bits")
    marks = _marks(known)
    # of a device, whose keys say themselves what a perfect one has
    if span is None and "ideal" in marks:
        span = Span(marks["ideal"], marks["worst"])
    if span is None:
        values = _of_field(key, known, whole, steps)
    elif span.ideal == span.worst:
        raise InputError(
            f"{key}: the range {span.ideal:g}:{span.worst:g} has a single value: give different"
            " ends"
        )
    elif whole and not all(float(end).is_integer() for end in span):
        raise InputError(
            f"{key}: the ends of {span.ideal:g}:{span.worst:g} must be integers, as its values are"
        )
    elif bits and span.ideal == 0:
        values = [0, *range(_most(known, 0), int(span.worst) - 1, -1)]
    elif bits:
        down = span.ideal > span.worst
        values = list(
            range(int(span.ideal), int(span.worst) + (-1 if down else 1), -1 if down else 1)
        )
    elif span.ideal == 0:
        values = _from_zero(key, known, whole, span.worst, steps)
    else:
        values = geometric(key, span, whole, steps)
    if len(values) < 2:
        raise InputError(f"{key}: fewer than two values: give a wider range")
    return values


def _marks(known: FieldInfo) -> Mapping[str, Any]:
    return known.json_schema_extra if isinstance(known.json_schema_extra, dict) else {}


def _of_field(key: str, known: FieldInfo, whole: bool, steps: int) -> list[float]:
    marks = _marks(known)
    ideal = known.default
    if ZERO_IS_OFF in known.metadata:
        # 0 bits is no converter at all, which is the ideal; then from the finest down
        return [ideal, *range(_most(known, 0), 0, -1)]
    # what is no imperfection, such as a time, may be too small as well as too large
    worse = marks.get("worse", "more") if marks.get("imperfection") else "both"
    # what is negative is a number of something, and no amount
    if worse == "both" or not isinstance(ideal, (int, float)) or ideal < 0:
        raise InputError(
            f"{key}: has no range, as nothing says which of its values is ideal: give --range"
            f" {key}=IDEAL:WORST"
        )
    low, high = _ends(key, whole)
    high = min(high, _most(known, high))
    span = Span(high, low) if worse == "less" else Span(low, high)
    return [ideal, *(x for x in geometric(key, span, whole, steps) if x != ideal)]


def _from_zero(key: str, known: FieldInfo, whole: bool, worst: float, steps: int) -> list[float]:
    low, high = _ends(key, whole)
    if _marks(known).get("worse") == "less":
        # 0 stands for never: the largest values are nearest to it
        nearest = max(high, 10 * worst)
    else:
        nearest = math.copysign(min(low, 1 if whole else abs(worst) / 10), worst)
    return [0 if whole else 0.0, *geometric(key, Span(nearest, worst), whole, steps)]


def _ends(key: str, whole: bool) -> tuple[float, float]:
    if key.endswith("_ns"):
        return NANOSECONDS
    if key.endswith("_s"):
        return SECONDS
    return COUNTS if whole else RELATIVE


def _most(known: FieldInfo, default: Any) -> Any:
    """The upper limit of a Field."""
    return next((limit.le for limit in known.metadata if isinstance(limit, Le)), default)


def geometric(key: str, span: Span, whole: bool, steps: int) -> list[float]:
    """Values from end to end, each so many times the one before; to three digits, or whole."""
    ideal, worst = span
    if whole and worst == 0:
        return [*geometric(key, Span(ideal, math.copysign(1, ideal)), whole, steps), 0]
    if ideal * worst <= 0:
        raise InputError(
            f"{key}: the range {ideal:g}:{worst:g} must not end at 0 or change its sign: give"
            " ends on one side of it"
        )
    decades = abs(math.log10(worst / ideal))
    if decades > MAX_DECADES:
        raise InputError(
            f"{key}: the range {ideal:g}:{worst:g} spans more than {MAX_DECADES} factors of ten:"
            " give a narrower one"
        )
    count = max(1, round(decades * steps))
    inner = ideal * (worst / ideal) ** (np.arange(1, count) / count)
    if whole:
        return rounded(np.array([ideal, *inner, worst]), whole)
    # the ends as they were given
    return list(dict.fromkeys([float(ideal), *(float(f"{x:.3g}") for x in inner), float(worst)]))


def check_steps(steps: int) -> int:
    """InputError if there are too many or none."""
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(
            f"steps_per_decade = {shown(steps)} must lie between 1 and {MAX_STEPS}: 10 are steps of"
            " a quarter"
        )
    return steps
