"""Commands that list what there is, and write files to start from."""

import shlex
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from perturb.errors import InputError, choose
from sims.commands import Json
from sims.commands.output import named_rows, print_json
from sims.completion import LISTS, listed
from sims.described import says
from sims.terminal import Bars, console

app = typer.Typer()


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(LISTS[:-1])} or {LISTS[-1]}; nothing for all.",
            autocompletion=listed,
        ),
    ] = "all",
    json: Json = False,
) -> None:
    """List what can be named in an experiment."""
    from hardware.config import descriptions
    from perturb.trial.codes import CODES
    from perturb.trial.methods import METHODS
    from sims.experiment.names import SHIPPED

    kinds = {
        "experiments": lambda: descriptions(SHIPPED),
        "chips": lambda: descriptions(files("hardware") / "chips"),
        "devices": lambda: descriptions(files("hardware") / "devices"),
        "codes": lambda: {code.name: code.summary for code in CODES.values()},
        "methods": lambda: {method.name: method.summary for method in METHODS.values()},
        "datasets": _datasets,
    }
    if what != "all":
        choose("list", what, kinds)
    # only what is asked for is loaded
    asked = {kind: rows for kind, rows in kinds.items() if what in ("all", kind)}
    if json:
        print_json({kind: named_rows(rows()) for kind, rows in asked.items()})
        return
    for kind, rows in asked.items():
        # a heading only where there is more than one list
        print(f"{kind}:" if what == "all" else "", end="\n" if what == "all" else "")
        for name, description in rows().items():
            print(f"  {name:<22} {description}")


def _datasets() -> dict[str, str]:
    # late: it loads pandas, and other lists do without
    from sims.data.datasets import DATASETS

    return {name: says(dataset.make) for name, dataset in DATASETS.items()}


@app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Path of the file to write.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="CSV, Parquet or NPZ of what is to be learned."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the table that is the target; several, of numbers, by repeating it.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--as", metavar="classes|numbers", help="What the target is, else seen."),
    ] = None,
    chip: Annotated[
        str | None, typer.Option(metavar="CHIP", help="A chip's name, or the path of its TOML.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="A device's name, or the path of its TOML.")
    ] = None,
) -> None:
    """Write a commented experiment: one with every key, or one for your own data, chip or
    device.
    """
    from sims.experiment.templates import starter
    from sims.proposal.columns import Kind
    from sims.proposal.experiment import propose

    if data is None and (target or kind):
        raise InputError("--target and --as are of a table: give it by --data")
    kinds: dict[str, Kind] = {"classes": "classes", "numbers": "numbers"}
    wanted = None if kind is None else choose("--as", kind, kinds)
    said: tuple[str, ...] = ()
    if (data, chip, device) == (None, None, None):
        text = starter()
    else:
        text, said = propose(file, data, chip, device, target or (), wanted)
    try:
        # "x": what is there is never written over, nor between a check and the writing
        with open(file, "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise InputError(f"{file}: exists already: choose another name") from None
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}): choose another path"
        ) from None
    for line in said:
        print(line)
    print(f"{file} written. Next: perturb run {shlex.quote(str(file))}")


@app.command()
def fit_device(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="CSV: columns pulse, direction, weight or conductance_us."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML", help="Device file to write (default: NAME OF FILE.toml, here)."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="A model, or auto: the one that describes the data best."
        ),
    ] = "auto",
    low: Annotated[
        float | None, typer.Option(help="Conductance of w = -1; of w = 0 if all pulses go up.")
    ] = None,
    high: Annotated[float | None, typer.Option(help="Conductance of w = 1.")] = None,
    inverted: Annotated[
        bool, typer.Option("--inverted", help="Pulses that FILE calls up lower the conductance.")
    ] = False,
) -> None:
    """Make a device file, with a plot, from measured pulse responses.

    FILE has a header and a line per reading, columns in any order: pulse (number of the pulse after
    which it was read), direction (of that pulse: 1 or up, -1 or down; 0 = none yet), weight (in
    range units, -1..1 or so) or conductance_us (or any other unit), and if there are several,
    device and cycle.
    """
    from hardware.templates import written
    from reports.device_fit import Scale, export_device_fit, print_device_fit
    from sims.device_fit import fit_device as fit

    out = out or Path(f"{file.stem or 'device'}.toml")
    if out.suffix != ".toml":
        raise InputError(f"{out}: must end in .toml: the plots go beside it, under other endings")
    # before the fit, which takes a while
    if out.exists():
        raise InputError(f"{out}: exists already: choose another --out")
    with Bars() as bars:
        found = fit(
            file, model, low, high, out.stem[:100], inverted, partial(bars.advance, "models")
        )
    # only what the figure shows: the rest is printed, or stands in the file
    tables = {"readings": found.readings, "response": found.response, "steps": found.steps}
    scale = Scale.of(found.unit, found.zero, found.per_range)
    paths = export_device_fit(found.text, tables, found.device.description, out, scale)
    print_device_fit(found.device.description, found.models, found.parameters, console())
    for row in found.outliers.head(10).to_dict("records"):
        print(f"{file}: line {row['line']}: {row['reading']:g} is an outlier and was left out")
    if len(found.outliers) > 10:
        print(f"{file}: {len(found.outliers) - 10} more outliers were left out")
    print(f"\nWritten: {', '.join(map(str, paths))}.")
    print("To use it, in an experiment beside it (or perturb new FILE --device writes one):\n")
    print(f"[chip.weights]\ndevice = {written(out.name)}")
