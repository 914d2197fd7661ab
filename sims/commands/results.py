"""Commands that show what is stored."""

import os
from pathlib import Path
from typing import Annotated

import typer

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
    directory: Results,
    other: Annotated[
        Path | None, typer.Argument(metavar="DIR_B", help="Another one, to be set beside it.")
    ] = None,
    wanted: Wanted = None,
    json: Json = False,
) -> None:
    """Print the results of a run or a sweep again; or of two, side by side."""
    # pandas and the renderers take a while to load
    from reports.compare import compared_data, print_compared
    from reports.loading import load

    frames = load(directory, wanted)
    if other is None:
        Output(json=json).results(frames)
    elif json:
        print_json(compared_data(frames, load(other, wanted)))
    else:
        print_compared(frames, load(other, wanted), console())


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
