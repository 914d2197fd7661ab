"""The points of a sweep: grids, lists that go together, and designs drawn from ranges."""

from collections.abc import Callable, Collection, Mapping
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from perturb.errors import InputError, cut, one_line, shown
from perturb.settings import flat, plain, toml
from sims.experiment.schema import Sweep

MAX_CELLS = 1_000_000
Values = list[Any]
Point = dict[str, Any]  # keys to values


class Range(NamedTuple):
    """Numbers from low to high, in equal parts of themselves or of their logarithm."""

    low: float
    high: float
    logarithmic: bool

    def at(self, u: float) -> float:
        """The number below which the share u lies."""
        return (
            self.low * (self.high / self.low) ** u
            if self.logarithmic
            else self.low + u * (self.high - self.low)
        )


def points(sweep: Sweep, is_integer: Callable[[str], bool]) -> list[Point]:
    """Every point of [sweep]: the product of the lists in `vary`, of the lists in `zip` entry by
    entry, and of the points drawn from ranges, in the order in which they stand there, the last
    fastest. is_integer(key): whether computed numbers are rounded.
    """
    varied, zipped = (
        {key: values_of(key, spec) for key, spec in flat(table).items()}
        for table in (sweep.vary, sweep.zip)
    )
    # a key in two places, or inside another one, would win silently by its order
    _check_keys([*varied, *zipped])
    axes: list[list[Point]] = []
    ranges: dict[str, Range] = {}
    for key, values in varied.items():
        if isinstance(values, Range):
            ranges[key] = values
        else:
            axes.append([{key: value} for value in rounded(values, is_integer(key))])
    lists = {}
    for key, values in zipped.items():
        if isinstance(values, Range):
            raise InputError(f"{key}: ranges cannot be zipped: vary it, or give a list")
        lists[key] = values.tolist() if isinstance(values, np.ndarray) else values
    if len(set(map(len, lists.values()))) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in lists.items())
        raise InputError(
            f"zipped lists must have as many entries as each other ({lengths}): make them equally"
            " long"
        )
    if lists:
        axes.append(
            [
                dict(zip(lists, together, strict=True))
                for together in zip(*lists.values(), strict=True)
            ]
        )
    if ranges:
        axes.append(drawn(ranges, sweep, is_integer))
    # before the product is made
    count = prod(map(len, axes)) * sweep.repeats
    if count > MAX_CELLS:
        raise InputError(
            f"this sweep has {count:,} cells but at most {MAX_CELLS:,} are allowed: vary fewer"
            " keys, or take fewer values"
        )
    return [
        {key: value for part in parts for key, value in part.items()} for parts in product(*axes)
    ]


def drawn(
    ranges: Mapping[str, Range], sweep: Sweep, is_integer: Callable[[str], bool]
) -> list[Point]:
    """`sweep.samples` points spread evenly over all ranges at once, scrambled by `sweep.seed`
    (scipy.stats.qmc).
    """
    from scipy.stats import qmc

    random = np.random.Generator(np.random.Philox(sweep.seed))
    if sweep.design == "sobol":
        # Sobol's points are balanced in powers of two
        if sweep.samples & (sweep.samples - 1):
            near = 1 << sweep.samples.bit_length()
            raise InputError(
                f'samples = {sweep.samples} must be a power of 2 for design = "sobol": take {near},'
                " or latin-hypercube"
            )
        unit = qmc.Sobol(len(ranges), seed=random).random(sweep.samples)
    else:
        unit = qmc.LatinHypercube(len(ranges), seed=random).random(sweep.samples)
    # a column for each key, which is then rounded as its key wants it
    columns = [
        rounded(np.array([some.at(u) for u in shares]), is_integer(key), unique=False)
        for (key, some), shares in zip(ranges.items(), unit.T, strict=True)
    ]
    return [
        dict(zip(ranges, values, strict=True))
        # rounding to integers may make two points one
        for values in dict.fromkeys(zip(*columns, strict=True))
    ]


def rounded(values: Values | np.ndarray, whole: bool, unique: bool = True) -> Values:
    """Computed numbers to twelve digits, or whole; those of a list as they are."""
    if not isinstance(values, np.ndarray):
        return values
    # 0.1 + 0.2 is meant as 0.3: twelve digits hide the rounding of linspace and powers
    numbers = [int(round(x)) if whole else float(f"{x:.12g}") for x in values]
    return list(dict.fromkeys(numbers)) if unique else numbers


def _check_keys(keys: list[str]) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"{one_line(key)}: is varied and zipped: leave one of them out")
        for other in keys:
            if other.startswith(f"{key}."):
                raise InputError(
                    f"{one_line(other)}: is part of {one_line(key)}, which is varied too: leave one"
                    " of them out"
                )


def parse_varied(items: list[str], option: str) -> dict[str, str]:
    """{"estimation.trials": "10,100"} of ["estimation.trials=10,100"], as given to --vary or
    --zip.
    """
    found: dict[str, str] = {}
    for item in items:
        key, equals, spec = (part.strip() for part in item.partition("="))
        if not (equals and key and spec):
            raise InputError(
                f"{option} {one_line(item)}: not of the form KEY=SPEC, such as {option}"
                " estimation.trials=1000,10000"
            )
        if key in found:
            raise InputError(
                f"{option} {one_line(key)}: given twice: write all values behind one {option}, such"
                f" as {key}=1,2"
            )
        found[key] = spec
    return found


def values_of(key: str, spec: Any) -> Values | np.ndarray | Range:
    """The values that `spec` stands for: a list (or tuple, range, array), or a string "a,b,c",
    "linspace:LO:HI:N", "logspace:LOEXP:HIEXP:N" (both ends included), "uniform:LO:HI" or
    "loguniform:LO:HI" (ranges to draw from).
    """
    # from Python a list, an array or a range; from a command line or a file a text
    spec = spec.tolist() if isinstance(spec, np.ndarray) else spec
    if isinstance(spec, str):
        kind, colon, rest = spec.partition(":")
        if colon and kind.strip() in FORMS:
            return FORMS[kind.strip()](
                f"{one_line(key)} = {cut(one_line(spec), 60)}", rest.split(":")
            )
        values = [plain(text) for text in _split(spec)]
    elif isinstance(spec, Collection) and not isinstance(spec, (bytes, set, Mapping)):
        values = [plain(value) if isinstance(value, str) else _python(value) for value in spec]
    else:
        raise InputError(
            f"{one_line(key)} = {shown(spec)} must be a list of values, such as [0.01, 0.02], or a"
            " string such as linspace:0:1:5"
        )
    if not values:
        raise InputError(f"{one_line(key)} = {shown(spec)} has no value: give at least one")
    for value in values:
        toml(key, value)
    return values


def _python(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, tuples as lists."""
    value = plain(value) if isinstance(value, (np.generic, np.ndarray)) else value
    return [_python(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _split(text: str) -> list[str]:
    """At the commas outside brackets and quotes."""
    parts = [""]
    depth = 0
    quote = ""
    for c in text:
        # nothing within quotes separates, or opens a bracket
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        else:
            depth += (c in "[{") - (c in "]}")
        if c == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += c
    return [part.strip() for part in parts]


def _numbers(what: str, form: str, parts: list[str], count: bool) -> list[float]:
    try:
        numbers = [float(part) for part in parts]
        good = len(numbers) == (3 if count else 2) and all(map(np.isfinite, numbers))
        good = good and (
            not count or (numbers[2] == int(numbers[2]) and 1 <= numbers[2] <= MAX_CELLS)
        )
    except ValueError:
        good = False
    if not good:
        kind = f", N from 1 to {MAX_CELLS:,}" if count else ""
        raise InputError(f"{what}: not of the form {form} with finite numbers{kind}")
    return numbers


def _linspace(what: str, parts: list[str]) -> np.ndarray:
    low, high, n = _numbers(what, "linspace:LO:HI:N", parts, True)
    return np.linspace(low, high, int(n))


def _logspace(what: str, parts: list[str]) -> np.ndarray:
    low, high, n = _numbers(what, "logspace:LOEXP:HIEXP:N", parts, True)
    # who gives 1000 here means the value, not its exponent; and 10^400 is infinite
    if max(abs(low), abs(high)) > 300:
        raise InputError(
            f"{what}: the exponents of ten must lie between -300 and 300: they are not the values"
            " themselves"
        )
    return 10.0 ** np.linspace(low, high, int(n))


def _uniform(what: str, parts: list[str]) -> Range:
    low, high = _numbers(what, "uniform:LO:HI", parts, False)
    if not low < high:
        raise InputError(f"{what}: LO must be less than HI: exchange them")
    return Range(low, high, False)


def _loguniform(what: str, parts: list[str]) -> Range:
    low, high = _numbers(what, "loguniform:LO:HI", parts, False)
    if not 0 < low < high:
        raise InputError(
            f"{what}: 0 < LO < HI is needed: give the values themselves, not their exponents"
        )
    return Range(low, high, True)


FORMS: dict[str, Callable[[str, list[str]], np.ndarray | Range]] = {
    "linspace": _linspace,
    "logspace": _logspace,
    "uniform": _uniform,
    "loguniform": _loguniform,
}
