"""The walls between the packages."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "perturb": {"perturb"},
    "hardware": {"perturb", "hardware"},
    "reports": {"perturb.errors", "perturb.files", "perturb.settings", "reports"},
    "sims": {"perturb", "hardware", "reports", "sims"},
}


@cache
def imports(file, with_names=False):
    """Modules that the file imports; with_names: and what it imports from them, each dotted."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module)
            if with_names:
                found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 2
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        for module in imports(file):
            top = module.split(".")[0]
            if top in MAY_IMPORT:
                assert {top, module} & MAY_IMPORT[package], f"{name} imports {module}"


# rooms of a package from the ground up: a file imports from its own room and from floors below
FLOORS = {
    "perturb": [
        {"errors"},
        {"checks", "compiled", "files", "notebook", "settings", "threads"},
        {"seeds", "trial"},
        {"kernels"},
        {"networks"},
        {"curvature", "estimation"},
        {"theory", "training"},
    ],
    "hardware": [
        {"config", "pulse_kernel"},
        {"device_tables", "marks"},
        {"device_laws"},
        {"device_params"},
        {"array_tables", "cells", "chip_tables"},
        {"arrays", "device", "params"},
        {"error_noise", "parts", "templates", "timing"},
        {"assembly"},
        {"batches", "bench", "estimate", "incidents"},
        {"signals"},
        {"event_chip"},
        {"chip", "learning_chip"},
        {"columns", "on_chip"},
        {"training"},
        {"link"},
    ],
    # the registry of studies (`studies/__init__`) is a door: it names files, and loads them late
    "sims": [
        {"described", "device_fit", "processes", "terminal"},
        {"data", "log"},
        {"experiment"},
        {"completion", "problem"},
        {"claims"},
        {"studies"},
        {"linked", "proposal"},
        {"runner"},
        {"sweeps"},
        {"commands"},
        {"cli"},
        {"start"},
    ],
    "reports": [
        {"formats", "vocabulary"},
        {"columns", "escape"},
        {"styled"},
        {"frames"},
        {"figures"},
        {"differences", "json_text", "statistics", "store", "table"},
        {"studies"},
        {"loading"},
        {"compare", "page"},
        {"design_comparison", "exporters"},
        {"device_fit"},
    ],
}


@cache
def imported_files(package):
    """{module: modules of the package that it imports}, wherever in the file; the doors
    (`__init__`) are left out.
    """
    files = [file for file in (ROOT / package).rglob("*.py") if file.name != "__init__.py"]
    named = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    return {name: imports(file, with_names=True) & named.keys() for name, file in named.items()}


@pytest.mark.parametrize("package", FLOORS)
def test_no_import_climbs_from_floor_to_floor(package):
    level = {room: height for height, rooms in enumerate(FLOORS[package]) for room in rooms}
    for name, targets in imported_files(package).items():
        room = name.split(".")[1]
        for target in targets:
            below = target.split(".")[1]
            assert below == room or level[below] < level[room], f"{name} imports {target}"


@pytest.mark.parametrize("package", FLOORS)
def test_files_import_each_other_in_no_circle(package):
    try:
        order = list(TopologicalSorter(imported_files(package)).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))
    assert len(order) > 10


@pytest.mark.parametrize(
    "package, never",
    [
        ("perturb", ["pandas", "simpy", "pydantic"]),
        ("hardware", ["pandas", "typer"]),
        ("reports", ["simpy", "numba"]),
    ],
)
def test_a_package_does_not_know_what_is_not_its_business(package, never):
    for file in (ROOT / package).rglob("*.py"):
        assert not {module.split(".")[0] for module in imports(file)} & set(never), file


def test_help_loads_nothing_heavy(tmp_path):
    code = (
        "import sys, sims.cli; print({'numpy', 'scipy', 'numba', 'pandas', 'matplotlib', 'simpy',"
        " 'typer'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "{'typer'}"


@pytest.mark.slow
def test_a_run_that_is_printed_loads_neither_matplotlib_nor_scikit_learn(tmp_path):
    code = """
import sys
from sims.cli import main

sys.argv = ["perturb", "run", "digits", "--set", "estimation.trials=8"]
try:
    main()
except SystemExit as end:
    assert not end.code
print({"matplotlib", "sklearn", "scipy.optimize", "scipy.stats", "pandas"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "{'pandas'}"
