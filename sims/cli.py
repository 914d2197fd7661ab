"""The command line: all commands, and how the program ends."""

import errno
import signal
import sys
import warnings

import typer

from perturb.errors import InputError
from sims.commands import files, require, results, run, sweep
from sims.terminal import Interrupted, close_output, interrupt, say, show_warning

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
for commands in (run, results, sweep, require, files):
    app.add_typer(commands.app)


def main() -> None:
    """Entry point: a user's mistake is one line and status 2, Ctrl-C is status 130, anything
    else a traceback and status 1.
    """
    before = signal.signal(signal.SIGINT, interrupt)
    warnings.showwarning = show_warning
    try:
        try:
            app()
        finally:
            # here, where what goes wrong with the output still is answered below
            sys.stdout.flush()
    except InputError as error:
        say(f"perturb: {error}")
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
            " stored results are kept"
        )
        sys.exit(2)
    finally:
        # put back for callers of main() that go on, such as tests
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
