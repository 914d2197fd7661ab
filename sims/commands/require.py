"""The command that seeks requirements."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sims.commands import ExperimentName, Json, Log, Quiet, Settings
from sims.commands.output import Output
from sims.commands.results import Wanted
from sims.commands.sweep import Cluster, Retry, Workers, print_failed, so_far
from sims.completion import numbers
from sims.log import begin_log
from sims.terminal import LOG, Bars, Interrupted, say

if TYPE_CHECKING:
    from reports.studies.require.search import Search

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
    from reports.store.sweep_results import sweep_status
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
            shown: dict[str, int] = {}

            def progress(found: list["Search"], ended: int) -> None:
                _show(bars, keys, found, shown, ended)

            seek(plan, directory, workers_, retry, progress)
    # cells that have ended are stored: nothing is lost but those under way
    except Interrupted:
        say(f"perturb: interrupted; {so_far(directory)}")
        raise typer.Exit(130) from None
    output.results(load(directory))
    failed = sweep_status(directory).failed
    if not (quiet or json):
        print_failed(failed)
    next_ = f"perturb report {shlex.quote(str(directory))}"
    output.end(directory, f"Results are in {directory}. Next: {next_}")
    if failed:
        say(f"perturb: {len(failed)} cells failed; --retry runs them again")
        raise typer.Exit(2)


def _show(
    bars: Bars, keys: list[str], found: list["Search"], shown: dict[str, int], ended: int
) -> None:
    """What has been judged since the last time: on the bars of a terminal, or else in lines, with
    one every ten seconds of how many cells have ended, and of how many that may yet be needed.
    """
    from perturb.settings import toml
    from reports.studies.require.search import TOGETHER, decisions

    if not bars.shown:
        # values that are still to be judged, each by as many repeats as this one wants
        left = sum(
            (decisions(len(each.points)) - len(each.tested)) * each.wants[1]
            for each in found
            if each.wants is not None
        )
        bars.advance("search", ended, ended + left)
    # that of all together comes once each key has its value
    for name, each in zip([*keys, TOGETHER], found, strict=False):
        tested = list(each.tested.items())
        if bars.shown or bars.quiet:
            total = len(tested) if each.wants is None else decisions(len(each.points))
            repeats = "" if each.wants is None else f"{each.wants[1]} repeats"
            bars.advance(name, len(tested), total, repeats)
        for place, judged in tested[shown.get(name, 0) :]:
            values = " ".join(f"{key}={toml(key, x)}" for key, x in each.points[place].items())
            line = f"{values}: {judged.status}, {judged.mean:.4g} after {judged.repeats} repeats"
            if bars.shown or bars.quiet:
                LOG.info("%s", line)
            else:
                say(line, logging.INFO)
        shown[name] = len(tested)
