"""The command that offers an emulated chip to whoever drives one."""

from typing import Annotated

import typer

from perturb.errors import InputError
from sims.commands import ExperimentName, Log, Quiet, Settings
from sims.log import begin_log
from sims.terminal import say

app = typer.Typer()


@app.command()
def serve(
    experiment: ExperimentName,
    link: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen: tcp://HOST:PORT (port 0: any that is free), or stdio: for the"
            " standard streams.",
        ),
    ] = "tcp://127.0.0.1:5732",
    set: Settings = None,
    number: Annotated[
        int, typer.Option("--run", min=0, help="Whose die and starting weights, of the runs.")
    ] = 0,
    watchdog: Annotated[
        float,
        typer.Option(min=0.01, help="Seconds without a request after which weights are safe."),
    ] = 10.0,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="Take as long as the chip takes.")
    ] = False,
    outside: Annotated[
        bool,
        typer.Option("--outside", help="Let the host set perturbed weights, as a plain chip does."),
    ] = False,
    quiet: Quiet = False,
    log: Log = None,
) -> None:
    """Serve the emulated chip of an experiment, with all that is wrong with it, to perturb drive
    or to a script of yours.
    """
    from hardware.link.server import attend, listen
    from hardware.link.streams import Pipe, check_host, host_and_port
    from sims.experiment.loading import load_experiment, parse_settings
    from sims.studies.emulated import responder_of

    begin_log(log)
    scheme, _, rest = link.partition(":")
    if scheme not in ("tcp", "stdio") or (scheme == "stdio" and rest):
        raise InputError(f"--link {link}: must be tcp://HOST:PORT, or stdio:")
    if scheme == "tcp":
        host, port, options = host_and_port(rest)
        check_host(host, options)
    loaded = load_experiment(experiment, parse_settings(set or []))
    responder = responder_of(loaded, run=number, real_time=real_time, by_itself=not outside)
    if scheme == "stdio":
        attend(responder, Pipe(0, 1), watchdog)
        return

    def ready(host: str, port: int) -> None:
        # stdout: whoever starts it waits for this line
        print(f"tcp://{host}:{port}" if quiet else _sentence(experiment, host, port), flush=True)

    listen(responder, host, port, watchdog, ready)


def _sentence(experiment: str, host: str, port: int) -> str:
    from hardware.link.streams import LOOPBACK

    who = "this machine alone" if host in LOOPBACK else "any machine that reaches it, no password"
    say(f"perturb: open to {who}; Ctrl-C ends it")
    return f"Next: perturb drive {experiment} --link tcp://{host}:{port}"
