"""The terminal: what is shown while a command works, and how Ctrl-C is heard."""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

EVERY_S = 10.0  # a line of progress, where there is no terminal
# what is said beside the output is also logged, see `sims.log`
LOG = logging.getLogger("perturb")
# else Python would print again what is logged and nobody reads
LOG.addHandler(logging.NullHandler())


def console() -> Any:
    """A terminal for rich; piped output has none to fit: tables get the room that they want."""
    from rich.console import Console

    # no highlighting: rich would colour every number
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def say(line: str, level: int = logging.WARNING) -> None:
    """A line beside the output, and in the log."""
    print(line, file=sys.stderr)
    LOG.log(level, "%s", line.removeprefix("perturb: "))


class Interrupted(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which typer would answer itself, without a word."""


def interrupt(*_: object) -> None:
    """What Ctrl-C does, as a handler of its signal."""
    raise Interrupted


class Interruption:
    """Ctrl-C is noted and asked for between pieces of work; a second one does what it did before:
    it ends the program, or the call, at once.
    """

    def __enter__(self) -> "Interruption":
        self._noted = False
        # kept, as `main` has a handler of its own
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted and callable(self._before):
            self._before(number, frame)
        self._noted = True

    def heard(self) -> bool:
        """Whether there was one."""
        return self._noted


class Bars:
    """Progress: on a terminal a bar for each name, elsewhere a line every ten seconds, if quiet
    nothing; the log has when each began and ended. times: beside a bar the time since it began, and
    what is left.
    """

    def __init__(
        self,
        times: bool = False,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._times = times
        self.quiet = quiet
        self._clock = clock
        self._said = clock()
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        # when each was first heard of, and how much of it was done by then
        self._begun: dict[str, tuple[float, int]] = {}

    @property
    def shown(self) -> bool:
        """Whether there is a terminal to show them on."""
        return self._bars is not None

    def __enter__(self) -> "Bars":
        # stderr: results may be piped while bars are shown
        if self.quiet or not sys.stderr.isatty():
            return self
        from rich import progress
        from rich.console import Console

        columns = [progress.TextColumn("{task.description}"), progress.BarColumn()]
        columns += [progress.MofNCompleteColumn(), progress.TextColumn("{task.fields[status]}")]
        if self._times:
            columns += [progress.TimeElapsedColumn(), progress.TimeRemainingColumn()]
        self._bars = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        self._bars.start()
        return self

    def advance(self, name: str, done: int, total: int, status: str = "") -> None:
        """So much of it is done. status: a word beside its bar."""
        now = self._clock()
        if name not in self._begun:
            self._begun[name] = now, done
            LOG.info("%s: begun, %d in all", name, total)
        if done >= total:
            LOG.info("%s: ended, %d of %d", name, done, total)
        if self.shown:
            # a bar appears when its work begins: what will come is not known before
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, status=status)
            self._bars.update(self._tasks[name], completed=done, status=status)
        elif not self.quiet and now - self._said >= EVERY_S:
            self._said = now
            since, first = self._begun[name]
            # what has hardly begun has compiled its kernels meanwhile: its rate is not known
            known = done - first >= total / 100
            left = (total - done) * (now - since) / (done - first) if known else 0.0
            ends = f"; about {duration(left)} left" if left else ""
            say(f"{name}: {done:,} of {total:,}{ends}", logging.INFO)

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self._bars.stop()


def duration(seconds: float) -> str:
    """A time in the unit that fits it."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    hours = seconds / 3600
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def close_output() -> None:
    """What is still printed goes nowhere."""
    # Python flushes what is left when it ends, and would fail once more
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Ours in one line, those of libraries as Python shows them."""
    # a library's warning is for a programmer, with its place
    ours = category.__module__.partition(".")[0] in ("perturb", "hardware", "sims", "reports")
    say(
        f"perturb: {message}"
        if ours
        else warnings.formatwarning(message, category, filename, lineno).rstrip()
    )
