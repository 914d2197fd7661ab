"""Layers from texts, such as "conv2d 16 5 padding=2" or "residual(linear 8; tanh; linear 8)"."""

import inspect
import re

from perturb.errors import InputError, choose, cut
from perturb.networks.activations import ACTIVATIONS
from perturb.networks.layers.layer import (
    BY_PLACE,
    LAYERS,
    MAX_NESTED,
    Activation,
    Layer,
    Residual,
)

# before:after, of a padding
PAIR = re.compile(r"\d+:\d+")
# one for each axis: 3, 2x3, 0:1x2:3
SIZES = re.compile(r"\d+(:\d+)?(x\d+(:\d+)?)*")
# a comma before another layer, rather than between numbers
COMMA = re.compile(r",\s*[a-z]")


class _NoLayer(InputError):
    """Of a text, which the message names."""


def layer_of(text: str, depth: int = 0) -> Layer:
    """The layer that a text names; InputError for one that is not understood."""
    text = text.strip()
    try:
        name, _, rest = text.partition("(")
        if name.strip() == Residual.text:
            # as `Residual` says, but before the text is read to its end
            if depth == MAX_NESTED:
                raise InputError(f"residuals are nested more than {MAX_NESTED} times: use fewer")
            return _residual(rest, depth)
        if COMMA.search(text):
            apart = "are separated by semicolons" if depth else "are texts of their own"
            raise InputError(f"it has a comma, but layers {apart}")
        name, *words = text.split() or [""]
        # "linear" is the layer: as an activation it would do nothing
        kind = choose("its first word", name, dict.fromkeys(ACTIVATIONS, Activation) | LAYERS)
        if kind is Residual:
            raise InputError("its path stands in brackets: residual(linear 8; tanh; linear 8)")
        return Activation(name) if kind is Activation and not words else _made(kind, words)
    except _NoLayer as error:
        # of many within each other the outermost and the innermost are named
        raise error if depth else _NoLayer(f'in "{cut(text, 60)}": {error}') from None
    except InputError as error:
        raise _NoLayer(f'"{cut(text, 60)}" is no layer: {error}') from None


def _made(kind: type, words: list[str]) -> Layer:
    """A layer from the words after its name: what comes by its place, then name=value."""
    parameters = [] if kind is Activation else list(inspect.signature(kind).parameters)
    by_place = [name for name in parameters if name in BY_PLACE]
    given: dict[str, object] = {}
    for place, word in enumerate(words):
        # without = all of the word is the value
        name, equals, value = word.rpartition("=")
        if not equals:
            if place >= len(by_place):
                raise InputError(f"{cut(word, 30)} is one too many: {_takes(parameters)}")
            name = by_place[place]
        if not parameters:
            raise InputError(f"{cut(word, 30)} is one too many: {_takes(parameters)}")
        choose("the option", name, dict.fromkeys(parameters))
        if name in given:
            raise InputError(f"{name} is given twice")
        given[name] = _value(name, value)
    try:
        return kind(**given)
    except TypeError:
        needed = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
        missing = [p.name for p in needed if p.name not in given]
        raise InputError(f"{missing[0]} is missing: {_takes(parameters)}") from None


def _takes(parameters: list[str]) -> str:
    named = (name if name in BY_PLACE else f"{name}=..." for name in parameters)
    return f"it takes {', '.join(named) or 'nothing else'}"


def _value(name: str, text: str) -> object:
    """true, false, 3, 2x3 as (2, 3), 0:1x2:3 as ((0, 1), (2, 3))."""
    if text in ("true", "false"):
        return text == "true"
    # Python refuses to read integers of thousands of digits, by an error of its own
    if not SIZES.fullmatch(text) or len(text) > 100:
        raise InputError(f'{name} = "{cut(text, 30)}" must be a number, or as many as axes: 3x5')
    each = tuple(
        tuple(map(int, one.split(":"))) if PAIR.fullmatch(one) else int(one)
        for one in text.split("x")
    )
    return each if len(each) > 1 or isinstance(each[0], tuple) else each[0]


def _residual(text: str, depth: int) -> Layer:
    """residual(PATH) or residual(PATH | SHORTCUT), layers of a path separated by semicolons."""
    if not text.endswith(")"):
        raise InputError("its bracket is not closed")
    paths = _split(text[:-1], "|")
    if len(paths) > 2:
        raise InputError("it has a path and, after |, a shortcut, and no more")
    path, shortcut = (
        # a path of nothing is the input itself
        tuple(layer_of(part, depth + 1) for part in _split(each, ";")) if each.strip() else ()
        for each in (*paths, "")[:2]
    )
    return Residual(path, shortcut)


def _split(text: str, mark: str) -> list[str]:
    """A text at every mark that is not within brackets."""
    parts, within = [""], 0
    for letter in text:
        within += (letter == "(") - (letter == ")")
        if within < 0:
            raise InputError("it closes a bracket that is not open")
        # marks within brackets belong to a residual within
        if letter == mark and not within:
            parts.append("")
        else:
            parts[-1] += letter
    if within:
        raise InputError("its bracket is not closed")
    return parts
