"""The command that seeks requirements."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sims.commands import ExperimentName, Json, Log, Quiet, Settings
from sims.commands.output import Output
from sims.commands.results import Wanted
from sims.commands.sweep import Cluster, Retry, Workers, print_failed, so_far
from sims.completion import numbers
from sims.log import begin_log
from sims.terminal import Bars, Interrupted, say

app = typer.Typer()


@app.command()
def require(
    experiment: ExperimentName,
    keys: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY...",
            help="Keys that take numbers, such as chip.error_unit.noise: each is sought alone, and"
            " then all together.",
            autocompletion=numbers,
        ),
    ],
    wanted: Wanted = None,
    quantity: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of estimates: hv (if it is estimated) or gradient."),
    ] = None,
    range: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=IDEAL:WORST",
            help="Where a key's values begin and end, if not as its imperfection does; repeatable.",
        ),
    ] = None,
    steps_per_decade: Annotated[
        int, typer.Option(metavar="N", help="Values in a factor of ten; of bits, all are tried.")
    ] = 10,
    repeats: Annotated[int, typer.Option(metavar="N", help="At most, of one value.")] = 64,
    set: Settings = None,
    workers: Workers = None,
    cluster: Cluster = None,
    retry: Retry = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory of the search (default: runs/NAME-require)."),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
    log: Log = None,
) -> None:
    """Find the least demanding value of each key at which what is wanted is still met. The same
    command again resumes where it was interrupted.
    """
    from reports.loading import load
    from sims.commands.told import Told
    from sims.experiment.loading import parse_settings
    from sims.sweeps.ladder import parse_spans
    from sims.sweeps.require import plan_requirement, pool_for
    from sims.sweeps.require import require as seek

    begin_log(log)
    output = Output(quiet, json)
    # every value of every key is checked here: a mistake in the last one costs no time
    plan = plan_requirement(
        experiment,
        keys,
        parse_settings(set or []),
        wanted,
        quantity,
        parse_spans(range or [], "--range"),
        steps_per_decade,
        repeats,
    )
    directory = out or Path("runs") / f"{plan.own.name}-require"
    workers_ = pool_for(plan, workers, cluster)
    try:
        with Bars(quiet=quiet) as bars:
            seek(plan, directory, workers_, retry, Told(bars, plan).tell)
    # cells that have ended are stored: nothing is lost but those under way
    except Interrupted:
        say(f"perturb: interrupted; {so_far(directory)}")
        raise typer.Exit(130) from None
    output.results(load(directory))
    _end(output, directory)


def _end(output: Output, directory: Path) -> None:
    """What failed, and where the results are; ends with status 2 where something did."""
    from reports.store.sweep_results import sweep_status

    failed = sweep_status(directory).failed
    if not (output.quiet or output.json):
        print_failed(failed)
    next_ = f"perturb report {shlex.quote(str(directory))}"
    output.end(directory, f"Results are in {directory}. Next: {next_}")
    if failed:
        say(f"perturb: {len(failed)} cells failed; --retry runs them again")
        raise typer.Exit(2)
