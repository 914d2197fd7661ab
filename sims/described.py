"""What the program says of its functions: their docstrings."""

import inspect
from collections.abc import Callable
from typing import Any


def says(function: Callable[..., Any]) -> str:
    """What a function is about, on one line: the first paragraph of its docstring."""
    # getdoc takes the indentation away
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
