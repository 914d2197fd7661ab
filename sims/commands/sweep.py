"""Commands of sweeps."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perturb.errors import InputError, one_line
from sims.commands import ExperimentName, Json, Log, Quiet, Settings
from sims.commands.output import print_json
from sims.completion import settings
from sims.log import begin_log
from sims.terminal import LOG, Bars, Interrupted, duration, say

if TYPE_CHECKING:
    from sims.sweeps.run import Progress

app = typer.Typer()


Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Processes that share the cores (one for each core)."),
]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786."),
]
Retry = Annotated[bool, typer.Option("--retry", help="Run cells that failed again.")]


@app.command()
def sweep(
    experiment: ExperimentName,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPEC",
            help="A key and its values: a,b,c or linspace:LO:HI:N or logspace:LOEXP:HIEXP:N; or a"
            " range to draw from, uniform:LO:HI or loguniform:LO:HI. Repeatable: every"
            " combination.",
            autocompletion=settings,
        ),
    ] = None,
    zip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=SPEC",
            help="The same, but of all --zip together, entry by entry.",
            autocompletion=settings,
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
    workers: Workers = None,
    cluster: Cluster = None,
    keep: Annotated[
        bool | None,
        typer.Option("--keep", help="Store all tables of every run, not just its summary."),
    ] = None,
    retry: Retry = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the sweep (default: runs/NAME-sweep)."),
    ] = None,
    quiet: Quiet = False,
    log: Log = None,
) -> None:
    """Run an experiment for many values of its keys. The same command again resumes where it was
    interrupted.
    """
    from sims.experiment.loading import parse_settings
    from sims.sweeps.design import parse_varied
    from sims.sweeps.plan import plan_sweep
    from sims.sweeps.run import pool
    from sims.sweeps.run import sweep as run_cells

    begin_log(log)
    # keys that come to those of [sweep] in the file: an empty table takes none away
    varied = {"vary": parse_varied(vary or [], "--vary"), "zip": parse_varied(zip or [], "--zip")}
    options = {"design": design, "samples": samples, "repeats": repeats, "keep": keep, **varied}
    # every cell is checked here: a mistake in the last one costs no time
    plan = plan_sweep(
        experiment,
        parse_settings(set or []),
        # what is not given is left to [sweep] of the experiment
        {key: value for key, value in options.items() if value is not None},
    )
    directory = out or Path("runs") / f"{plan.experiment(plan.row(0)).name}-sweep"
    # before the directory is made: a wrong number leaves nothing behind
    workers_ = pool(workers, cluster, len(plan))
    try:
        with Bars(quiet=quiet) as bars:
            run_cells(plan, directory, workers_, retry, lambda cell: _show_cell(bars, cell))
    # cells that have ended are stored: nothing is lost but those under way
    except Interrupted:
        say(f"perturb: interrupted; {so_far(directory)}")
        raise typer.Exit(130) from None
    _show_end(directory, quiet)


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a sweep.")],
    json: Json = False,
) -> None:
    """How far a sweep is, and which of its cells failed."""
    from reports.store.sweep_results import sweep_status

    found = sweep_status(directory)
    # not failed ones: they run again with --retry only
    left = found.cells - found.done - len(found.failed)
    if json:
        print_json({**found._asdict(), "left": left})
        return
    # a search plans cells as values are judged: how many there will be is not known
    further = found.search and left > 0
    print(
        f"{found.done} of {found.cells} cells done, {len(found.failed)} failed, {left} left"
        f"{' of those planned so far' if further else ''}; {duration(found.seconds)} of work"
    )
    if found.running:
        print(
            f"at work: {found.rate:.3g} cells/s, about {duration(left / found.rate)} left"
            f"{' for these' if further else ''}"
            if found.rate
            else "at work"
        )
    elif left:
        print("no process is at work: the command of the sweep resumes it")
    if further:
        print("a search goes on: more cells follow when these have told which value comes next")
    print_failed(found.failed)


def _show_cell(bars: Bars, ended: "Progress") -> None:
    """That a cell has ended: on the bar of a terminal, or else in a line."""
    from perturb.settings import toml

    row, outcome = ended.row, ended.outcome
    ends = f"{ended.rate:.3g} cells/s, {duration(ended.left_s)} left"
    count = ended.done + ended.failed
    varied = "".join(f" {key}={toml(key, value)}" for key, value in row.parameters.items())
    how = f"done in {outcome.seconds:.3g} s" if outcome.status == "done" else "failed"
    line = f"{count} of {ended.cells}: cell {row.cell} {how},{varied} seed={row.seed}; {ends}"
    if bars.shown or bars.quiet:
        failed = f", {ended.failed} failed" if ended.failed else ""
        bars.advance("cells", count, ended.cells, ends + failed)
        LOG.info("%s", line)
    else:
        say(line, logging.INFO)


def _show_end(directory: Path, quiet: bool) -> None:
    """What a sweep has done, once it has ended; exit status 2 if a cell failed."""
    from reports.store.sweep_results import sweep_status

    found = sweep_status(directory)
    if quiet:
        print(directory)
    else:
        print_failed(found.failed)
        after = f" Next: perturb report {shlex.quote(str(directory))}" if found.done else ""
        print(f"{found.done} of {found.cells} cells are done. Results are in {directory}.{after}")
    if found.failed:
        say(f"perturb: {len(found.failed)} of {found.cells} cells failed; --retry runs them again")
        raise typer.Exit(2)


def print_failed(failed: list[dict], most: int = 20) -> None:
    """The cells that failed, with the commands that run them alone."""
    from reports.store.sweep_results import last_line

    for cell in failed[:most]:
        print(
            f"cell {cell['cell']} failed, seed {cell['seed']}: {last_line(cell['error'])}\n   "
            f" {one_line(cell['command'])}"
        )
    if len(failed) > most:
        print(f"and {len(failed) - most} more")


def so_far(directory: Path) -> str:
    """What an interrupted sweep has done."""
    from reports.store.sweep_results import sweep_status

    try:
        found = sweep_status(directory)
    except InputError:
        return "no cell was done"
    # a search plans more as it goes on
    so_far = " planned so far" if found.search and found.done < found.cells else ""
    return (
        f"{found.done} of {found.cells} cells{so_far} are done and stored; the same command resumes"
    )
