"""The command line. Imports wait until a command needs them: `perturb --help` must answer at
once.
"""

import errno
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from perturb.errors import InputError

app = typer.Typer(
    help=(
        "Will a neural chip learn by weight perturbation? Simulate it, and compare every estimate"
        " with exact R{backprop}."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


ExperimentName = Annotated[
    str,
    typer.Argument(help="Name of an experiment (perturb list experiments) or path of a TOML file."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="Change a key, e.g. estimation.trials=2000; repeatable."
    ),
]

Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Directory for the results (default: under runs/, the next that is free).",
    ),
]


@app.command()
def run(
    experiment: ExperimentName,
    set: Settings = None,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Seed of all randomness but the data's; the same seed gives the same numbers.",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Simulate a chip and compare it with exact R{backprop}, or do what else the experiment
    says.
    """
    from sims.experiment.loading import parse_settings

    changes = parse_settings(set or [])
    if seed is not None:
        changes["run.seed"] = seed
    directory = _run(experiment, changes, out)
    print(f"\nResults are in {directory}. Next: perturb report {shlex.quote(str(directory))}")


def _run(
    experiment: str, changes: Mapping[str, object], out: Path | None, suffix: str = ""
) -> Path:
    """Run, store and print; the directory of the results."""
    from reports.loading import of_run
    from reports.store.run_directory import UNFINISHED
    from reports.table import print_run
    from sims.experiment.loading import load_experiment
    from sims.runner import INTERRUPTED, reserved, run_experiment

    loaded = load_experiment(experiment, changes)
    with reserved(loaded, out, suffix) as directory, _Interruption() as interruption:
        with _progress() as progress:
            scratch = directory / UNFINISHED
            result = run_experiment(
                experiment,
                changes,
                progress=progress,
                should_stop=interruption.heard,
                scratch=scratch,
            )
        if not result.tables:
            _say("perturb: interrupted before the first result; nothing was written")
            raise typer.Exit(130)
        frames = of_run(directory, result.tables, loaded.model_dump(), result.provenance)
        try:
            result.write(directory)  # first: whatever becomes of the printing, the results are kept
        finally:
            print_run(frames, _console())
    if result.provenance["status"] == "partial":
        print(f"\nResults are in {directory}.")
        reason = result.provenance["reason"]
        interrupted = reason == INTERRUPTED
        again = (
            "; the same command goes on from there"
            if interrupted and loaded.study == "training"
            else ""
        )
        _say(
            f"perturb: {'interrupted' if interrupted else reason}; the results so far were kept and"
            f" are marked as partial{again}"
        )
        raise typer.Exit(130 if interrupted else 2)
    return directory


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
Kept = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run or a sweep.")]


@app.command()
def compare(
    directory: Kept,
    other: Annotated[
        Path | None, typer.Argument(metavar="DIR_B", help="Another one, to be set beside it.")
    ] = None,
    wanted: Wanted = None,
) -> None:
    """Print the results of a run or a sweep again; or of two, side by side."""
    from reports.compare import print_compared
    from reports.loading import load
    from reports.table import print_run

    if other is None:
        print_run(load(directory, wanted), _console())
    else:
        print_compared(load(directory, wanted), load(other, wanted), _console())


@app.command()
def report(
    directory: Kept,
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
    os.environ.setdefault(
        "ARROW_DEFAULT_MEMORY_POOL", "system"
    )  # Arrow's own keeps what large tables have given back
    from reports.exporters import export

    for path in export(directory, [name.strip() for name in format.split(",")], out, wanted):
        print(path)


@app.command()
def plot(
    directory: Kept,
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


@app.command()
def sweep(
    experiment: ExperimentName,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPEC",
            help=(
                "A key and its values: a,b,c or linspace:LO:HI:N or logspace:LOEXP:HIEXP:N; or a"
                " range to draw from, "
                "uniform:LO:HI or loguniform:LO:HI. Repeatable: every combination."
            ),
        ),
    ] = None,
    zip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPEC", help="The same, but of all --zip together, entry by entry."
        ),
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How ranges are drawn from: sobol, latin-hypercube."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="Points drawn from ranges (64).")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(metavar="N", help="Seeds for each point, derived from run.seed.")
    ] = None,
    set: Settings = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes that share the cores (one for each core)."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786."),
    ] = None,
    keep: Annotated[
        bool | None,
        typer.Option("--keep", help="Keep all tables of every run, not just its summary."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells that failed again.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the sweep (default: runs/NAME-sweep)."),
    ] = None,
) -> None:
    """Run an experiment for many values of its keys. The same command again goes on where it was
    interrupted.
    """
    from reports.store.sweep_results import sweep_status
    from sims.experiment.loading import parse_settings
    from sims.sweeps.design import parse_varied
    from sims.sweeps.plan import plan_sweep
    from sims.sweeps.run import pool
    from sims.sweeps.run import sweep as run_cells

    varied = {"vary": parse_varied(vary or [], "--vary"), "zip": parse_varied(zip or [], "--zip")}
    options = {"design": design, "samples": samples, "repeats": repeats, "keep": keep, **varied}
    plan = plan_sweep(
        experiment,
        parse_settings(set or []),
        {key: value for key, value in options.items() if value is not None},
    )
    directory = out or Path("runs") / f"{plan.experiment(plan.row(0)).name}-sweep"
    workers_ = pool(workers, cluster, len(plan))
    try:
        with _sweep_progress() as told:
            run_cells(plan, directory, workers_, retry, told)
    except _Stopped:
        _say(f"perturb: interrupted; {_so_far(directory)}")
        raise typer.Exit(130) from None
    found = sweep_status(directory)
    _print_failed(found.failed)
    after = f" Next: perturb report {shlex.quote(str(directory))}" if found.done else ""
    print(f"{found.done} of {found.cells} cells are done. Results are in {directory}.{after}")
    if found.failed:
        _say(f"perturb: {len(found.failed)} of {found.cells} cells failed; --retry runs them again")
        raise typer.Exit(2)


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a sweep.")],
) -> None:
    """How far a sweep is, and which of its cells failed."""
    from reports.store.sweep_results import sweep_status

    found = sweep_status(directory)
    left = found.cells - found.done - len(found.failed)
    print(
        f"{found.done} of {found.cells} cells done, {len(found.failed)} failed, {left} left;"
        f" {_duration(found.seconds)} of work"
    )
    if found.running:
        print(
            f"at work: {found.rate:.3g} cells/s, about {_duration(left / found.rate)} left"
            if found.rate
            else "at work"
        )
    elif left:
        print("nobody is at work: the command of the sweep goes on with it")
    _print_failed(found.failed)


def _print_failed(failed: list[dict], most: int = 20) -> None:
    from perturb.errors import one_line
    from reports.store.sweep_results import last_line

    for cell in failed[:most]:
        print(
            f"cell {cell['cell']} failed, seed {cell['seed']}: {last_line(cell['error'])}\n   "
            f" {one_line(cell['command'])}"
        )
    if len(failed) > most:
        print(f"and {len(failed) - most} more")


def _so_far(directory: Path) -> str:
    from reports.store.sweep_results import sweep_status

    try:
        found = sweep_status(directory)
    except InputError:
        return "no cell was done"
    return f"{found.done} of {found.cells} cells are done and kept; the same command goes on"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    hours = seconds / 3600
    return (
        f"{minutes:.0f} min"
        if minutes < 100
        else f"{hours:.0f} h"
        if hours < 48
        else f"{hours / 24:.0f} days"
    )


@app.command()
def spectrum(
    experiment: ExperimentName,
    set: Settings = None,
    k: Annotated[
        str | None,
        typer.Option(
            metavar="K", help="How many eigenvalues to show at each end; short for spectrum.k."
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Print and plot the eigenvalues of a network's Hessian at its weights."""
    from reports.exporters import export
    from sims.experiment.loading import parse_settings

    changes = parse_settings(set or [])
    if changes.get("study", "spectrum").strip("\"'") != "spectrum":
        raise InputError(
            f"--set study={changes['study']}: this command is the study spectrum: use perturb run"
            " for another"
        )
    changes |= {"study": "spectrum"} | ({} if k is None else {"spectrum.k": k})
    directory = _run(experiment, changes, out, "-spectrum")
    written = [path for path in export(directory, ["csv", "png"]) if path.suffix != ".parquet"]
    print(
        f"\nWritten: {', '.join(map(str, written))}. Next: perturb report"
        f" {shlex.quote(str(directory))}"
    )


def _study(
    experiment: str, set: list[str] | None, out: Path | None, study: str, also: Mapping[str, object]
) -> None:
    from sims.experiment.loading import load_experiment, parse_settings

    changes = parse_settings(set or [])
    directory = _run(experiment, {**changes, "study": study, **also}, out, f"-{study}")
    if load_experiment(experiment, changes).study == "training":
        print(
            "Warning: this is of estimates at the starting weights, not of learning, which perturb"
            " run does on training.runs dies."
        )
    print(f"\nResults are in {directory}. Next: perturb report {shlex.quote(str(directory))}")


@app.command()
def ablate(
    experiment: ExperimentName,
    set: Settings = None,
    dies: Annotated[
        int | None, typer.Option(min=1, help="Dies on which each variant of the chip runs.")
    ] = None,
    out: Out = None,
) -> None:
    """Rank what each imperfection of the chip costs an estimate of g and z: in trials, time and
    energy.
    """
    _study(experiment, set, out, "ablation", {} if dies is None else {"dies.count": dies})


@app.command()
def dies(
    experiment: ExperimentName,
    set: Settings = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many dies.")] = None,
    out: Out = None,
) -> None:
    """Estimate g and z on many dies of the chip's design: spread and yield."""
    _study(experiment, set, out, "dies", {} if n is None else {"dies.count": n})


@app.command()
def budget(
    experiment: ExperimentName,
    set: Settings = None,
    out: Out = None,
) -> None:
    """Trials, time and energy to a wanted accuracy, and what to improve first: by theory,
    without simulation.
    """
    _study(experiment, set, out, "budget", {})


@app.command()
def reproduce(
    claim: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|all]", help="Which claim; left out, they are listed."),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Seed of all randomness but the data's; the same seed gives the same numbers.",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Repeat experiments and laws of the literature on the emulator: predicted, measured, error
    bar, verdict.

    The exit status is 1 if a measured value disagrees: by more than five standard errors and the
    tolerance stated.
    """
    from sims.claims import CLAIMS, chosen, says

    if claim is None:
        for name, function in CLAIMS.items():
            print(f"  {name:<17} {says(function)}")
        return
    chosen(claim)
    directory = _run(
        "reproduce",
        {"reproduce.claim": claim} | ({} if seed is None else {"run.seed": seed}),
        out,
        f"-{claim}",
    )
    print(f"\nResults are in {directory}. Next: perturb report {shlex.quote(str(directory))}")
    if _disagrees(directory):
        raise typer.Exit(1)


def _disagrees(directory: Path) -> bool:
    from reports.loading import load
    from reports.vocabulary import DISAGREES

    return bool((load(directory).summary["verdict"] == DISAGREES).any())


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="experiments, chips, devices, codes, methods or datasets; nothing for all."
        ),
    ] = "all",
) -> None:
    """List what can be named in an experiment."""
    from hardware.device import device_names, load_device
    from hardware.params import chip_names, load_chip
    from perturb.errors import choose
    from perturb.trial.codes import CODES
    from perturb.trial.methods import METHODS
    from sims.experiment.loading import experiment_names, load_experiment

    def datasets() -> dict[str, str]:
        from sims.datasets import DATASETS

        return {
            name: (dataset.make.__doc__ or "").partition("\n")[0]
            for name, dataset in DATASETS.items()
        }

    kinds = {
        "experiments": lambda: {
            name: load_experiment(name).description for name in experiment_names()
        },
        "chips": lambda: {name: load_chip(name).description for name in chip_names()},
        "devices": lambda: {name: load_device(name).description for name in device_names()},
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
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Path of the file to write.")],
) -> None:
    """Write a commented starter experiment."""
    from sims.experiment.templates import starter

    try:
        with open(file, "x", encoding="utf-8") as stream:
            stream.write(starter())
    except FileExistsError:
        raise InputError(f"{file}: exists already: choose another name") from None
    except OSError as error:
        raise InputError(
            f"{file}: cannot be written ({error.strerror}): choose another path"
        ) from None
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
    from reports.device_fit import export_device_fit, print_device_fit
    from sims.device_fit import fit_device as fit

    out = out or Path(f"{file.stem or 'device'}.toml")
    if out.suffix != ".toml":
        raise InputError(f"{out}: must end in .toml: the plots go beside it, under other endings")
    if out.exists():
        raise InputError(f"{out}: exists already: choose another --out")
    found = fit(file, model, low, high, out.stem[:100], inverted)
    tables = {"readings": found.readings, "response": found.response, "steps": found.steps}
    paths = export_device_fit(found.text, tables, found.device.description, out)
    print_device_fit(found.device.description, found.models, found.parameters, _console())
    for row in found.outliers.head(10).to_dict("records"):
        print(f"{file}: line {row['line']}: {row['reading']:g} is an outlier and was left out")
    if len(found.outliers) > 10:
        print(f"{file}: {len(found.outliers) - 10} more outliers were left out")
    print(f'\nWritten: {", ".join(map(str, paths))}. Load it with hardware.load_device("{out}").')


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
    """Ctrl-C is noted and asked for between pieces of work; a second one ends the program at
    once.
    """

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
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        text = TextColumn("{task.description}")
        columns = (
            text,
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
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


class _sweep_progress:
    """Of a sweep: cells done, rate and time left on a terminal, or else a line for each cell."""

    def __enter__(self):
        self._bar = None
        if not sys.stderr.isatty():
            return self._line
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("cells"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=None)
        self._bar.start()
        return self._advance

    def _advance(self, told) -> None:
        failed = f", {told.failed} failed" if told.failed else ""
        text = f"{told.rate:.3g} cells/s, {_duration(told.left_s)} left{failed}"
        self._bar.update(
            self._task, completed=told.done + told.failed, total=told.cells, description=text
        )

    def _line(self, told) -> None:
        from perturb.settings import toml

        varied = "".join(f" {key}={toml(key, value)}" for key, value in told.row.parameters.items())
        how = f"done in {told.outcome.seconds:.3g} s" if told.outcome.status == "done" else "failed"
        _say(
            f"{told.done + told.failed} of {told.cells}: cell {told.row.cell} {how},{varied}"
            f" seed={told.row.seed}; {told.rate:.3g} cells/s, {_duration(told.left_s)} left"
        )

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _close_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Ours in one line, those of libraries as Python shows them."""
    ours = category.__module__.startswith("perturb")
    _say(
        f"perturb: {message}"
        if ours
        else warnings.formatwarning(message, category, filename, lineno).rstrip()
    )


def main() -> None:
    """Entry point: a user's mistake is one line and status 2, Ctrl-C is status 130, anything
    else a traceback and status 1.
    """
    before = signal.signal(signal.SIGINT, _stop)
    warnings.showwarning = _show_warning
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
        _say(
            "perturb: the output could not be written (no space left on device): free some space;"
            " stored results are kept"
        )
        sys.exit(2)
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
