"""The door of the program: Ctrl-C is answered in one line while it still loads, too."""

import sys


def main() -> None:
    """Entry point of `perturb`, see `sims.cli.main`."""
    try:
        from sims.cli import main as answered
    except KeyboardInterrupt:
        print("perturb: interrupted", file=sys.stderr)
        sys.exit(130)
    answered()
