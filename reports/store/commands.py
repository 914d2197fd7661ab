"""The command lines that repeat what is stored."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from perturb.settings import plain, toml


def run_command(name: str, settings: Mapping[str, Any], seed: int | None = None) -> str:
    """The line, for a shell, that runs an experiment with keys set to values."""
    words = [
        word
        for key, value in settings.items()
        for word in ("--set", f"{key}={toml(key, plain(value))}")
    ]
    return shlex.join(
        ["perturb", "run", name, *words, *([] if seed is None else ["--seed", str(seed)])]
    )


def cell_command(plan: Mapping[str, Any], parameters: Mapping[str, Any], seed: int) -> str:
    """The line that runs one cell of a sweep alone."""
    # the seed has an option of its own
    settings = {**plan["set"], **parameters}
    settings.pop("run.seed", None)
    return run_command(plan["name"], settings, seed)


def sweep_command(plan: Mapping[str, Any]) -> str:
    """The line that makes a sweep."""
    words = ["perturb", "sweep", plan["name"]]
    sweep = plan["sweep"]
    # as it can be typed again: a list as its values, a range as its text
    for option, key, values in varied(sweep):
        text = values if isinstance(values, str) else ",".join(toml(key, value) for value in values)
        words += [f"--{option}", f"{key}={text}"]
    # only of a sweep that draws from ranges
    if "design" in sweep:
        words += ["--design", sweep["design"], "--samples", str(sweep["samples"])]
    words += ["--repeats", str(sweep["repeats"])] if sweep["repeats"] > 1 else []
    words += [
        word
        for key, value in plan["set"].items()
        for word in ("--set", f"{key}={toml(key, plain(value))}")
    ]
    return shlex.join(words + (["--keep"] if sweep["keep"] else []))


def require_command(plan: Mapping[str, Any]) -> str:
    """The line that makes a search for requirements."""
    words = ["perturb", "require", plan["name"], *plan["sweep"]["vary"], *plan["options"]]
    words += [
        word
        for key, value in plan["set"].items()
        for word in ("--set", f"{key}={toml(key, plain(value))}")
    ]
    return shlex.join(words)


def varied(sweep: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(vary or zip, key, its values or the text of its range) of a stored sweep."""
    drawn = ranges(sweep)
    for option in ("vary", "zip"):
        for key, values in sweep[option].items():
            # repr: the ends come back to the same bits
            if option == "vary" and key in drawn:
                low, high, logarithmic = drawn[key]
                values = f"{'log' * logarithmic}uniform:{low!r}:{high!r}"
            yield option, key, values


def ranges(sweep: Mapping[str, Any]) -> dict[str, tuple[float, float, bool]]:
    """key: (low, high, whether it is drawn evenly in its logarithm), of the keys that a stored
    sweep draws from ranges.
    """
    found = sweep["vary"].items() if "design" in sweep else ()
    return {
        key: tuple(values)
        for key, values in found
        # a range is stored as (low, high, whether logarithmic), a list of values as it is
        if len(values) == 3 and isinstance(values[2], bool)
    }
