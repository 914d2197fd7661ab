"""The log of a command, `--log FILE`: a line with the time for when it began and ended, for its
parts, warnings and errors, by Python's `logging`.
"""

import logging
import shlex
import sys
import time
from pathlib import Path

import perturb
from perturb.errors import InputError
from sims.terminal import LOG, duration


class _Log(logging.FileHandler):
    """A file that entries are appended to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.begun = time.monotonic()


def begin_log(path: Path | None) -> None:
    """Append to a file what the command has to say; None: to none."""
    if path is None:
        return
    try:
        log = _Log(path)
    except OSError as error:
        raise InputError(
            f"--log {path}: cannot be written ({error.strerror}): choose another path"
        ) from None
    LOG.addHandler(log)
    LOG.setLevel(logging.INFO)
    command = shlex.join(["perturb", *sys.argv[1:]])
    LOG.info("begun: %s (perturb %s)", command, perturb.__version__)


def end_log(status: int | str | None) -> None:
    """The last entry, with the exit status, of a log that was begun."""
    for log in [handler for handler in LOG.handlers if isinstance(handler, _Log)]:
        took = duration(time.monotonic() - log.begun)
        LOG.info("ended after %s: exit status %s", took, status or 0)
        LOG.removeHandler(log)
        LOG.setLevel(logging.NOTSET)
        log.close()
