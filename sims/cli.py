"""The command line: all commands, and how the program ends."""

import errno
import logging
import signal
import sys
import warnings
from typing import Annotated

import typer

import perturb
from perturb.errors import InputError
from sims.commands import files, link, require, results, run, sweep
from sims.completion import join_words_of_bash
from sims.log import end_log
from sims.terminal import LOG, Interrupted, close_output, interrupt, say, show_warning

app = typer.Typer(
    help=(
        "Will a neural chip learn by weight perturbation? Simulate it, and compare every estimate"
        " with exact R{backprop}."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"perturb {perturb.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


for commands in (run, link, results, sweep, require, files):
    app.add_typer(commands.app)


def main() -> None:
    """Entry point: a user's mistake is one line and status 2, Ctrl-C is status 130, anything
    else a traceback and status 1.
    """
    status: int | str | None = 0
    try:
        _answered()
    except SystemExit as end:
        status = end.code
        raise
    except BaseException:
        status = 1
        LOG.critical("a fault of the program", exc_info=True)
        raise
    finally:
        end_log(status)


def _answered() -> None:
    """All of the program, with an answer to what the user or the system does."""
    before = signal.signal(signal.SIGINT, interrupt)
    warnings.showwarning = show_warning
    try:
        try:
            join_words_of_bash()
            # by its name, however it was started: shells complete by it, too
            app(prog_name="perturb")
        finally:
            # here, where what goes wrong with the output still is answered below
            sys.stdout.flush()
    except InputError as error:
        say(f"perturb: {error}", logging.ERROR)
        sys.exit(2)
    except Interrupted:
        say("perturb: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        close_output()  # the reader went away: say nothing more
    except OSError as error:
        # of a named file, or another reason: a bug
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        close_output()
        say(
            "perturb: the output could not be written (no space left on device): free some space;"
            " stored results are kept",
            logging.ERROR,
        )
        sys.exit(2)
    finally:
        # put back for callers of main() that go on, such as tests
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
