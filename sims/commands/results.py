"""Commands that show what is stored."""

import os
from pathlib import Path
from typing import Annotated

import typer

from perturb.errors import InputError
from sims.commands import Json, Results
from sims.commands.output import Output, print_json
from sims.terminal import console

app = typer.Typer()


To = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Directory to write to (default: DIR itself).")
]


Wanted = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="Of a sweep: what is wanted, e.g. 'cosine>=0.95'; up to which value is it met?",
    ),
]


@app.command()
def compare(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", help="Directories of runs or sweeps, any number."),
    ],
    wanted: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Of a sweep: what is wanted, e.g. 'cosine>=0.95'; up to which value is it met? Of"
            " trainings as designs: the goal, e.g. 'test_accuracy>=0.95'.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Directory to write a page, plots and tables of the designs to (default: none).",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="What to write there, as report does (default: html,csv,svg)."
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No tables: print what --out wrote alone.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the results of a run or a sweep again; of two, side by side; of more, as designs with
    accuracy, chip time and energy to the goal, and their Pareto front.
    """
    # pandas and the renderers take a while to load
    from reports.compare import compared_data, print_compared
    from reports.design_comparison import designs
    from reports.exporters import export_designs
    from reports.loading import load
    from reports.store.sweep_database import FILE

    if format is not None and out is None:
        raise InputError(f"format = {format!r} is of what is written: give --out PATH, too")
    output = Output(quiet, json)
    # two runs have no thresholds: what is wanted is their goal
    judged = wanted is not None and not any((path / FILE).exists() for path in directories)
    found = None
    if out is not None or len(directories) > 2 or (len(directories) == 2 and judged):
        found = designs(directories, wanted)
    written = []
    # first: what is wrong with its options is said at once
    if found is not None and out is not None:
        formats = [name.strip() for name in (format or "html,csv,svg").split(",")]
        written = export_designs(found, formats, out)
    if found is not None and (len(directories) != 2 or judged):
        output.results(found)
    elif len(directories) == 1:
        output.results(load(directories[0], wanted))
    else:
        a, b = (load(path, wanted) for path in directories)
        if json:
            print_json(compared_data(a, b))
        elif not quiet:
            print_compared(a, b, console())
    for path in written if not json else ():
        print(path)


@app.command()
def report(
    directory: Results,
    format: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Any of html,csv,excel,parquet,md,tex,png,svg, separated by commas.",
        ),
    ] = "html,csv,parquet",
    out: To = None,
    wanted: Wanted = None,
) -> None:
    """Write the tables of a run or a sweep and an HTML page with plots."""
    # Arrow's own keeps what large tables have given back
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from reports.exporters import export

    # "csv, md" with a space is meant as "csv,md"
    for path in export(directory, [name.strip() for name in format.split(",")], out, wanted):
        print(path)


@app.command()
def plot(
    directory: Results,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Which plot; left out, all of them. A wrong name lists them."
        ),
    ] = None,
    format: Annotated[str, typer.Option(metavar="NAME", help="svg or png.")] = "svg",
    out: To = None,
) -> None:
    """Write the plots of a run or a sweep, alone."""
    from reports.exporters import plot

    for path in plot(directory, kind, format, out):
        print(path)
