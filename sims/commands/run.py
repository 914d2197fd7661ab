"""Commands that run an experiment."""

import shlex
from collections.abc import Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from perturb.errors import InputError
from reports.vocabulary import DISAGREES
from sims.commands import ExperimentName, Json, Log, Out, Quiet, Seed, Settings
from sims.commands.output import Output, named_rows, print_json
from sims.completion import claims
from sims.described import says
from sims.log import begin_log
from sims.studies import STUDIES, TRIALS, Command
from sims.terminal import LOG, Bars, Interruption, say

app = typer.Typer()


@app.command()
def run(
    experiment: ExperimentName,
    set: Settings = None,
    seed: Seed = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    log: Log = None,
) -> None:
    """Simulate a chip and compare it with exact R{backprop}, or do what else the experiment
    says.
    """
    from sims.experiment.loading import parse_settings

    begin_log(log)
    output = Output(quiet, json)
    changes = parse_settings(set or [])
    # --seed after --set: the option that is there for it wins
    if seed is not None:
        changes["run.seed"] = seed
    directory = _run(output, experiment, changes, out)
    output.end(directory, _next(directory))


def _next(directory: Path, where: str = "") -> str:
    """Where results are, and what to do with them."""
    where = where or f"Results are in {directory}"
    return f"{where}. Next: perturb report {shlex.quote(str(directory))}"


def _run(
    output: Output,
    experiment: str,
    changes: Mapping[str, object],
    out: Path | None,
    suffix: str = "",
) -> Path:
    """Run, store and print; the directory of the results."""
    from reports.loading import of_run
    from reports.store.run_directory import UNFINISHED
    from sims.experiment.loading import load_experiment
    from sims.runner import INTERRUPTED, reserved, run_experiment

    # for its name and its digest; `run_experiment` loads it again
    loaded = load_experiment(experiment, changes)
    # reserved before the run, so that two of them never write to one place
    with reserved(loaded, out, suffix) as directory, Interruption() as interruption:
        with Bars(times=True, quiet=output.quiet) as bars:
            scratch = directory / UNFINISHED
            result = run_experiment(
                experiment,
                changes,
                progress=bars.advance,
                should_stop=interruption.heard,
                scratch=scratch,
                say=LOG.info if output.quiet else say,
            )
        # a study that can go on has left a checkpoint
        again = "the same command resumes from there" if any(scratch.glob("*.npz")) else ""
        if not result.tables:
            left = again or "nothing was written"
            say(f"perturb: interrupted before the first result; {left}")
            # 130: as shells say of a command that Ctrl-C ended
            raise typer.Exit(130)
        # from memory: what is printed needs no reading of what is written
        frames = of_run(directory, result.tables, loaded.model_dump(), result.provenance)
        try:
            # first: whatever becomes of the printing, the results are stored
            result.write(directory)
        finally:
            output.results(frames)
        output.warnings(frames)
    if result.provenance["status"] == "partial":
        output.end(directory, f"Results are in {directory}.")
        reason = result.provenance["reason"]
        # else a mistake that showed late, see `run_experiment`
        interrupted = reason == INTERRUPTED
        then = f"; {again}" if interrupted and again else ""
        say(
            f"perturb: {'interrupted' if interrupted else reason}; the results so far are stored"
            f" and marked as partial{then}"
        )
        raise typer.Exit(130 if interrupted else 2)
    return directory


def _add_command(study: str, command: Command) -> None:
    """The command of a study, `perturb NAME EXPERIMENT`."""
    # names as `_run_study` takes them
    parameters: list[tuple[str, Any, Any]] = [
        ("experiment", ExperimentName, Parameter.empty),
        ("set", Settings, None),
    ]
    if command.short:
        option, key, meaning = command.short
        kind = Annotated[
            str | None,
            typer.Option(
                option, metavar=option.strip("-").upper(), help=f"{meaning} Short for {key}."
            ),
        ]
        parameters.append(("short", kind, None))
    parameters.append(("out", Out, None))
    parameters += [("quiet", Quiet, False), ("json", Json, False), ("log", Log, None)]

    def run_study(**given: Any) -> None:
        _run_study(study, command, **given)

    # typer makes the options of a command from its signature: one function serves all studies
    run_study.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for name, kind, default in parameters
        ]
    )
    run_study.__annotations__ = {name: kind for name, kind, _ in parameters}
    app.command(command.name, help=command.help)(run_study)


def _run_study(
    study: str,
    command: Command,
    experiment: str,
    set: list[str] | None,
    out: Path | None,
    quiet: bool,
    json: bool,
    log: Path | None,
    short: str | None = None,
) -> None:
    from reports.exporters import export
    from sims.experiment.loading import load_experiment, parse_settings

    begin_log(log)
    output = Output(quiet, json)
    changes = parse_settings(set or [])
    # as TOML a text may come in quotes
    if changes.get("study", study).strip("\"'") != study:
        raise InputError(
            f"--set study={changes['study']}: this command is the study {study}: use perturb run"
            " for another"
        )
    # after --set, as --seed is in `run`
    also = {} if short is None or command.short is None else {command.short[1]: short}
    # without it: what the experiment itself does, whatever is asked for here
    own = {key: value for key, value in changes.items() if key != "study"}
    learns = load_experiment(experiment, own).study == "training"
    # a suffix: a study of an experiment does not take the name of its run
    suffix = f"-{study}"
    # of an experiment that learns learning is judged, unless --set names the study of estimates
    if learns and command.learning and "study" not in changes:
        study = command.learning
    directory = _run(output, experiment, {**changes, "study": study, **also}, out, suffix)
    # a study without trials, such as spectrum, claims nothing of the chip
    if learns and study != command.learning and TRIALS in STUDIES[study].random:
        output.warn(
            "this is of estimates at the starting weights from evaluations of all patterns, not of"
            " learning, which perturb run does on training.runs dies with training.batch patterns."
        )
    written = export(directory, command.formats) if command.formats else []
    # Parquet is there anyway, as the run stores it
    shown = [str(path) for path in written if path.suffix != ".parquet"]
    written_to = f"Written: {', '.join(shown)}" if shown else ""
    output.end(directory, _next(directory, written_to))


for _name, _study in STUDIES.items():
    if _study.command:
        _add_command(_name, _study.command)


@app.command()
def reproduce(
    claim: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|all]",
            help="Which claim; left out, they are listed.",
            autocompletion=claims,
        ),
    ] = None,
    seed: Seed = None,
    out: Out = None,
    quiet: Quiet = False,
    json: Json = False,
    log: Log = None,
) -> None:
    """Repeat experiments and laws of the literature on the emulator: predicted, measured, error
    bar, verdict.

    The exit status is 1 if a measured value disagrees: by more than five standard errors and the
    tolerance stated.
    """
    from sims.claims import CLAIMS, chosen

    begin_log(log)
    output = Output(quiet, json)
    if claim is None:
        claims = {name: says(function).rstrip(".") for name, function in CLAIMS.items()}
        if json:
            print_json({"claims": named_rows(claims)})
            return
        for name, about in claims.items():
            print(f"  {name:<17} {about}")
        return
    # a wrong name is said before a directory is made
    chosen(claim)
    directory = _run(
        output,
        "reproduce",
        {"reproduce.claim": claim} | ({} if seed is None else {"run.seed": seed}),
        out,
        f"-{claim}",
    )
    output.end(directory, _next(directory))
    if _disagrees(directory):
        raise typer.Exit(1)


def _disagrees(directory: Path) -> bool:
    from reports.loading import load

    # of what was stored, which is what others will read
    return bool((load(directory).summary["verdict"] == DISAGREES).any())
