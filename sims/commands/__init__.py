"""The commands of the program: what several of them take. Imports wait until a command needs them:
`perturb --help` must answer at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from sims.completion import experiments, settings

ExperimentName = Annotated[
    str,
    typer.Argument(
        help="Name of an experiment (perturb list experiments) or path of a TOML file.",
        autocompletion=experiments,
    ),
]


Settings = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Change a key, e.g. estimation.trials=2000; repeatable.",
        autocompletion=settings,
    ),
]


Seed = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="Seed of all randomness but the data's; the same seed gives the same numbers.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Directory for the results (default: under runs/, the next that is free).",
    ),
]


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No progress and no tables: print the directory of the results alone. Warnings and"
        " errors still go to stderr.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the same as one JSON document, NaN as null.")
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Append to FILE when the command began and ended, its parts, warnings and errors.",
    ),
]


Results = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run or a sweep.")]
