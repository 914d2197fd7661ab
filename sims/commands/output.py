"""What commands print: for a reader, for a program, or next to nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sims.terminal import LOG, console, say

if TYPE_CHECKING:
    from reports.frames import Frames


class Output(NamedTuple):
    """How a command prints: as tables and sentences, with `quiet` only where the results are, with
    `json` all of it as one document and nothing else.
    """

    quiet: bool = False
    json: bool = False

    def results(self, frames: "Frames") -> None:
        """The results of a run or a sweep."""
        if self.json:
            from reports.json_text import results_data

            print_json(results_data(frames))
        elif not self.quiet:
            from reports.table import print_run

            print_run(frames, console())

    def warnings(self, frames: "Frames") -> None:
        """What theory has against the experiment: part of the results, and of the log; where
        these are not printed it is said beside them.
        """
        for text in frames.view.warnings(frames):
            if self.quiet and not self.json:
                say(f"perturb: {text}")
            else:
                LOG.warning("%s", text)

    def warn(self, text: str) -> None:
        """A warning of the command itself, among what it prints to a reader."""
        if self.quiet or self.json:
            say(f"perturb: {text}")
        else:
            print(f"Warning: {text}")
            LOG.warning("%s", text)

    def end(self, directory: Path, sentence: str) -> None:
        """The last line: where the results are."""
        LOG.info("results are in %s", directory)
        if not self.json:
            print(directory if self.quiet else f"\n{sentence}")


def print_json(data: Any) -> None:
    """Plain data as one JSON document."""
    from reports.json_text import json_text

    print(json_text(data))


def named_rows(described: Mapping[str, str]) -> list[dict[str, str]]:
    """A list of names with what each is, as rows."""
    return [{"name": name, "description": about} for name, about in described.items()]
