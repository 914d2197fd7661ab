"""What a shell completes: names of experiments and claims, keys, and values that are names."""

import os
from collections.abc import Callable, Iterable
from typing import Any

VARIABLE = "_PERTURB_COMPLETE"  # set by the shell's script, see typer.completion
LISTS = ("experiments", "chips", "devices", "codes", "methods", "datasets")
# the key whose value bash asks for, where it has split KEY=VALUE
_of_key: list[str] = []


def experiments(incomplete: str) -> list[str]:
    """Names of experiments; the shell knows the files."""
    from sims.experiment.names import experiment_names

    return _beginning(experiment_names(), incomplete)


def listed(incomplete: str) -> list[str]:
    """What `perturb list` lists."""
    return _beginning(LISTS, incomplete)


def claims(incomplete: str) -> list[str]:
    """Claims of the literature."""
    from sims.claims import ALL, CLAIMS

    return _beginning([*CLAIMS, ALL], incomplete)


def numbers(incomplete: str) -> list[str]:
    """Keys whose value is a number."""
    kinds = (int, float)
    found = [key for key, value in _keys().items() if type(value) in kinds]
    return _beginning(found, incomplete)


def settings(incomplete: str) -> list[str]:
    """Keys, and after KEY= the names that it takes."""
    if _of_key:
        return _beginning(NAMES.get(_of_key[-1], tuple)(), incomplete)
    key, equals, value = incomplete.partition("=")
    if equals:
        return [f"{key}={name}" for name in _beginning(NAMES.get(key, tuple)(), value)]
    # chip.preset is no key of an experiment that is complete
    return _beginning((f"{key}=" for key in dict.fromkeys([*NAMES, *_keys()])), incomplete)


def _keys() -> dict[str, Any]:
    """All keys of an experiment, with values that they may have."""
    from perturb.settings import flat
    from sims.experiment.loading import load_experiment

    return flat(load_experiment("xor").model_dump())


def _chips() -> Iterable[str]:
    from hardware.params import chip_names

    return chip_names()


def _devices() -> Iterable[str]:
    from hardware.device_params import device_names

    return device_names()


def _studies() -> Iterable[str]:
    from sims.studies import STUDIES

    return STUDIES


def _methods() -> Iterable[str]:
    from perturb.trial.methods import METHODS

    return METHODS


def _codes() -> Iterable[str]:
    from perturb.trial.codes import CODES

    return CODES


# functions, as most of them load something
NAMES: dict[str, Callable[[], Any]] = {
    "study": _studies,
    "chip.preset": _chips,
    "chip.weights.device": _devices,
    "estimation.method": _methods,
    "estimation.code": _codes,
}


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def join_words_of_bash() -> None:
    """Bash takes KEY=VALUE for three words and wants the end of the last: what typer reads is put
    together again, but for the value that is asked for.
    """
    if os.environ.get(VARIABLE) != "complete_bash":
        return
    words = os.environ["COMP_WORDS"].split("\n")
    at = int(os.environ["COMP_CWORD"])
    current = (words + [""])[at]
    before: list[str] = []
    for word in words[:at]:
        if before and (word == "=" or before[-1].endswith("=")):
            before[-1] += word
        else:
            before.append(word)
    # the cursor stands behind the sign, or in the value
    if current == "=" or before[-1].endswith("="):
        option, _, key = before.pop().removesuffix("=").rpartition("=")
        before += [option] if option else []
        _of_key.append(key)
        current = current.removeprefix("=")
    os.environ["COMP_WORDS"] = "\n".join([*before, current])
    os.environ["COMP_CWORD"] = str(len(before))
