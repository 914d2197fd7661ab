"""Docstrings: every example runs, and every parameter of a public name is explained."""

import doctest
import importlib
import inspect
import re
import sys
import typing
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import pytest

import hardware
import perturb
import reports
import sims
import sims.data
import sims.device_fit

ROOT = Path(__file__).parents[1]
PACKAGES = ("perturb", "hardware", "sims", "reports")
# public names of perturb whose docstrings are in sections, with what their methods return
DONE = (
    "AskEstimate",
    "InputError",
    "Boltzmann",
    "Code",
    "DAG",
    "MLP",
    "Method",
    "Objective",
    "Recurrent",
    "add_activation",
    "Statistics",
    "add_error",
    "best_sigma",
    "compare",
    "curvature",
    "estimate",
    "finite_difference_hvp",
    "finite_difference_step",
    "lfsr",
    "predict",
    "solve",
    "theory.comparison.QuantityComparison",
    "theory.imperfections",
    "theory.learning_curves",
    "theory.limits",
    "theory.perceptron",
    "theory.predictions",
    "theory.quadratic",
    "theory.rounding",
    "theory.variances",
    "training.AskTell",
    "training.Batch",
    "training.Exact",
    "training.Plan",
    "training.State",
    "training.begin",
    "training.train",
    "truncation",
)
HARDWARE = (
    "Bench",
    "Chip",
    "ChipParams",
    "DeviceParams",
    "chip_names",
    "device_names",
    "load_chip",
    "load_device",
    "device.age",
    "device.apparent",
    "device.fabricate",
    "device.initial",
    "device.pulse",
    "device.refresh",
    "device.symmetry_points",
    "device.write",
    "training.source",
)
SIMS = (*sims.__all__, *(f"data.{name}" for name in sims.data.__all__), "device_fit.fit_device")
RULE = re.compile(r"-{3,}$")
NAMES = re.compile(r"(\w+(?:, \w+)*)(?: :|$)")  # "a, b : type", not indented


def with_examples():
    """The names of the modules that have an example."""
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    found = [file.relative_to(ROOT) for file in files if ">>> " in file.read_text()]
    return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in found]


@pytest.fixture
def tables():
    """What an example adds to the tables of activations and errors is taken out again."""
    found = []
    for add in (perturb.add_activation, perturb.add_error):
        own = vars(sys.modules[add.__module__])
        found += [own[name] for name in own if name.isupper() and isinstance(own[name], dict)]
    copies = [table.copy() for table in found]
    yield
    for table, copy in zip(found, copies, strict=True):
        table.clear()
        table.update(copy)


@pytest.mark.parametrize("name", with_examples())
def test_examples_give_what_they_show(name, tables):
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted and not done.failed


def sections(text):
    """The lines below each heading of a docstring in sections."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines[1:]) if RULE.match(line)]
    return {lines[start]: lines[start + 2 : end] for start, end in pairwise([*starts, len(lines)])}


def explained(text, *headings):
    """The parameters that these sections name."""
    below = sections(text)
    lines = [line for heading in headings for line in below.get(heading, ())]
    return {name for line in lines if (found := NAMES.match(line)) for name in found[1].split(", ")}


def lacking(thing):
    """What the docstring of a function, property or class does not say; "" if nothing."""
    text, headings = inspect.getdoc(thing), ("Parameters",)
    if not text:
        return "has no docstring"
    if isinstance(thing, property):
        return ""
    if isinstance(thing, type):
        if {"__init__", "__new__"}.isdisjoint(vars(thing)):
            return ""  # made by others
        headings = ("Parameters", "Attributes")  # of a result, which nobody makes, the fields alone
    parameters = inspect.signature(thing).parameters.values()
    wanted = {each.name for each in parameters if not each.kind.name.startswith("VAR_")}
    missing = wanted - explained(text, *headings) - {"self", "cls"}
    return f"does not explain {', '.join(sorted(missing))}" if missing else ""


def public(thing):
    """The public functions, properties and classes that a module or class defines itself."""
    for name, member in vars(thing).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if name.startswith("_") or not (inspect.isfunction(function) or isinstance(function, type)):
            continue
        home = f"{function.__module__}."
        if home.split(".")[0] not in PACKAGES:
            continue  # such as the default of a field
        if not inspect.ismodule(thing) or home.startswith(f"{thing.__name__}."):
            yield name, member if isinstance(member, property) else function


def returned(thing):
    """The class of the package that a function returns, if it is one."""
    try:
        kind = typing.get_type_hints(thing).get("return") if inspect.isfunction(thing) else None
    except NameError:  # of a library that is imported when it is needed
        return []
    return [kind] if isinstance(kind, type) and kind.__module__.split(".")[0] in PACKAGES else []


def everything(name, thing, seen):
    """(dotted name, object) of a public name, its members, and the classes that they return."""
    if thing in seen:
        return
    seen.add(thing)
    if not inspect.ismodule(thing):
        yield name, thing
    if inspect.ismodule(thing) or isinstance(thing, type):
        for of, inner in public(thing):
            yield from everything(f"{name}.{of}", inner, seen)
    for kind in returned(thing):
        yield from everything(kind.__name__, kind, seen)


def test_done_are_public():
    assert {name.split(".")[0] for name in DONE} <= set(perturb.__all__)
    assert set(hardware.__all__) <= set(HARDWARE)


EXPLAINED = [
    pytest.param(package, name, id=f"{package.__name__}.{name}")
    for package, names in (
        (perturb, DONE),
        (hardware, HARDWARE),
        (reports, reports.__all__),
        (sims, SIMS),
    )
    for name in names
]


@pytest.mark.parametrize("package, name", EXPLAINED)
def test_every_parameter_is_explained(package, name):
    found = dict(everything(name, attrgetter(name)(package), set()))
    homes = {of: getattr(thing, "fget", thing).__module__ for of, thing in found.items()}
    inside = package.__name__  # what others define is theirs to explain
    found = {of: found[of] for of in found if of == name or homes[of].startswith(inside)}
    wrong = {of: what for of, thing in found.items() if (what := lacking(thing))}
    assert found and not wrong


def test_a_parameter_that_is_not_explained_is_found():
    def half(a, b, *, c=0):
        """One.

        Parameters
        ----------
        a, c : int
            Both.
        """

    assert lacking(half) == "does not explain b"
    assert lacking(lambda a: a) == "has no docstring"
