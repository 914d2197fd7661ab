"""The command line. Imports wait until a command needs them: `perturb --help` must answer at once."""

import errno
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from perturb.errors import InputError

app = typer.Typer(
    help="Will a neural chip learn by weight perturbation? Simulate it, and compare every estimate with exact R{backprop}.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


ExperimentName = Annotated[str, typer.Argument(help="Name of an experiment (perturb list experiments) or path of a TOML file.")]
Settings = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="Change a key, e.g. estimation.trials=2000; repeatable.")
]


@app.command()
def run(
    experiment: ExperimentName,
    set: Settings = None,
    seed: Annotated[
        str | None, typer.Option(metavar="N", help="Seed of perturbations and noise; the same seed gives the same numbers.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory for the results (default: runs/NAME, or the next free one).")
    ] = None,
) -> None:
    """Simulate a chip and compare it with exact R{backprop}, or do what else the experiment says."""
    from sims.experiment import parse_settings

    changes = parse_settings(set or [])
    if seed is not None:
        changes["run.seed"] = seed
    directory = _run(experiment, changes, out)
    print(f"\nResults are in {directory}. Next: perturb report {directory}")


def _run(experiment: str, changes: Mapping[str, object], out: Path | None, suffix: str = "") -> Path:
    """Run, store and print; the directory of the results."""
    from reports.frames import Frames
    from reports.tables import print_run
    from sims import store
    from sims.experiment import load_experiment
    from sims.runner import INTERRUPTED, run_experiment

    loaded = load_experiment(experiment, changes)
    directory = out or store.free_directory(loaded.name + suffix)
    store.check_free(directory)
    with _Interruption() as interruption:
        with _progress() as progress:
            result = run_experiment(experiment, changes, progress=progress, should_stop=interruption.heard)
        if not result.tables:
            _say("perturb: interrupted before the first result; nothing was written")
            raise typer.Exit(130)
        frames = Frames(directory, result.tables, loaded.model_dump(), result.provenance)
        try:
            store.write_run(result, directory)  # first: whatever becomes of the printing, the results are kept
        finally:
            print_run(frames, _console())
    if result.provenance["status"] == "partial":
        print(f"\nResults are in {directory}.")
        reason = result.provenance["reason"]
        interrupted = reason == INTERRUPTED
        _say(f"perturb: {'interrupted' if interrupted else reason}; the results so far were kept and are marked as partial")
        raise typer.Exit(130 if interrupted else 2)
    return directory


@app.command()
def compare(directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")]) -> None:
    """Print the comparison of a run again."""
    from reports.frames import load
    from reports.tables import print_run

    print_run(load(directory), _console())


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    format: Annotated[
        str, typer.Option(metavar="LIST", help="Any of html,csv,parquet,md,png, separated by commas.")
    ] = "html,csv,parquet",
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Directory to write to (default: DIR itself).")] = None,
) -> None:
    """Write the tables of a run and an HTML page with plots."""
    from reports.exporters import export

    for path in export(directory, [name.strip() for name in format.split(",")], out):
        print(path)


@app.command()
def spectrum(
    experiment: ExperimentName,
    set: Settings = None,
    k: Annotated[
        str | None, typer.Option(metavar="K", help="How many eigenvalues to show at each end; short for spectrum.k.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory for the results (default: runs/NAME-spectrum, or the next free one)."),
    ] = None,
) -> None:
    """Print and plot the eigenvalues of a network's Hessian at its weights."""
    from reports.exporters import export
    from sims.experiment import parse_settings

    changes = parse_settings(set or [])
    if changes.get("study", "spectrum").strip("\"'") != "spectrum":
        raise InputError(f"--set study={changes['study']}: this command is the study spectrum: use perturb run for another")
    changes |= {"study": "spectrum"} | ({} if k is None else {"spectrum.k": k})
    directory = _run(experiment, changes, out, "-spectrum")
    written = [path for path in export(directory, ["csv", "png"]) if path.suffix != ".parquet"]
    print(f"\nWritten: {', '.join(map(str, written))}. Next: perturb report {directory}")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="experiments, chips, codes, methods or datasets; nothing for all.")] = "all",
) -> None:
    """List what can be named in an experiment."""
    from hardware.params import chip_names, load_chip
    from perturb.codes import CODES
    from perturb.errors import choose
    from perturb.methods import METHODS
    from sims.experiment import experiment_names, load_experiment

    def datasets() -> dict[str, str]:
        from sims.datasets import DATASETS

        return {name: (function.__doc__ or "").partition("\n")[0] for name, function in DATASETS.items()}

    kinds = {
        "experiments": lambda: {name: load_experiment(name).description for name in experiment_names()},
        "chips": lambda: {name: load_chip(name).description for name in chip_names()},
        "codes": lambda: {code.name: code.summary for code in CODES.values()},
        "methods": lambda: {method.name: method.summary for method in METHODS.values()},
        "datasets": datasets,
    }
    if what != "all":
        choose("list", what, kinds)
    for kind, rows in kinds.items():
        if what in ("all", kind):
            print(f"{kind}:" if what == "all" else "", end="\n" if what == "all" else "")
            for name, description in rows().items():
                print(f"  {name:<22} {description}")


@app.command()
def new(file: Annotated[Path, typer.Argument(metavar="FILE", help="Path of the file to write.")]) -> None:
    """Write a commented starter experiment."""
    from sims.experiment import starter

    try:
        with open(file, "x") as stream:
            stream.write(starter())
    except FileExistsError:
        raise InputError(f"{file}: exists already: choose another name") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror}): choose another path") from None
    print(f"{file} written. Next: perturb run {file}")


def _console():
    from rich.console import Console

    # piped output has no terminal to fit: give tables the room they want
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


class _Stopped(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which typer would answer itself, without a word."""


def _stop(*_: object) -> None:
    raise _Stopped


class _Interruption:
    """Ctrl-C is noted and asked for between pieces of work; a second one ends the program at once."""

    def __enter__(self) -> "_Interruption":
        self._noted = False
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        if self._noted:
            _stop()
        self._noted = True

    def heard(self) -> bool:
        return self._noted


class _progress:
    """A rich progress bar for each method or part, on a terminal only."""

    def __enter__(self):
        if not sys.stderr.isatty():
            return None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        text = TextColumn("{task.description}")
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._tasks = {}
        self._bar.start()
        return self._advance

    def _advance(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done)

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_bar"):
            self._bar.stop()


def _close_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Entry point: a user's mistake is one line and status 2, Ctrl-C is status 130, anything else a traceback and status 1."""
    before = signal.signal(signal.SIGINT, _stop)
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except InputError as error:
        _say(f"perturb: {error}")
        sys.exit(2)
    except _Stopped:
        _say("perturb: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        _close_output()  # the reader went away: say nothing more
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _close_output()
        _say("perturb: the output could not be written (no space left on device): free some space; stored results are kept")
        sys.exit(2)
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
