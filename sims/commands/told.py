"""What is told of a search for requirements while it goes on."""

import logging
from typing import TYPE_CHECKING

from perturb.settings import toml
from reports.studies.require.search import TOGETHER, decisions
from sims.terminal import LOG, Bars, say

if TYPE_CHECKING:
    from reports.studies.require.search import Search
    from sims.sweeps.require import Requirement


class Told:
    """Before the first cell how many are expected; then every value that has been judged, on bars
    of a terminal, or else in lines, with one every ten seconds of how many cells have ended and how
    many are expected.
    """

    def __init__(self, bars: Bars, sought: "Requirement"):
        self._bars = bars
        self._keys = list(sought.ladders)
        self._looks = sought.condition.looks
        self._runs = sought.condition.runs
        # how many values of each search have been told
        self._shown: dict[str, int] = {}
        self._begun = False

    def tell(self, found: list["Search"], ended: int) -> None:
        """How far the searches are, when so many cells have ended."""
        left = self._expected(found)
        if not self._begun and left and not self._bars.quiet:
            self._begun = True
            of = f" of {self._runs} runs each" if self._runs else ""
            values = " + ".join(f"{len(each.points):,}" for each in found)
            say(
                f"{values} values, of which a bisection judges at most"
                f" {' + '.join(str(decisions(len(each.points))) for each in found)}, by"
                f" {self._looks[0]} to {self._looks[-1]} repeats{of}: some {left:,} repeats in all;"
                " the time is told when the first have ended",
                logging.INFO,
            )
        if not self._bars.shown:
            self._bars.advance("search", ended, ended + left)
        # that of all together comes once each key has its value
        for name, each in zip([*self._keys, TOGETHER], found, strict=False):
            self._judged(name, each)

    def _expected(self, found: list["Search"]) -> int:
        """About how many repeats are still to come: of every value that is left to be judged as
        many as those before took, at first halfway between the least and the most.
        """
        taken = [judged.repeats for each in found for judged in each.tested.values()]
        usual = (self._looks[0] + self._looks[-1]) / 2
        usual = (usual + sum(taken)) / (1 + len(taken))
        left = [each for each in found if each.answer is None]
        values = sum(decisions(len(each.points)) - len(each.tested) for each in left)
        if len(found) == len(self._keys) > 1 and left:
            values += 1  # of all together at least one
        return round(usual * values)

    def _judged(self, name: str, each: "Search") -> None:
        bars = self._bars
        tested = list(each.tested.items())
        if bars.shown or bars.quiet:
            total = len(tested) if each.wants is None else decisions(len(each.points))
            repeats = "" if each.wants is None else f"{each.wants[1]} repeats"
            bars.advance(name, len(tested), total, repeats)
        for place, judged in tested[self._shown.get(name, 0) :]:
            values = " ".join(f"{key}={toml(key, x)}" for key, x in each.points[place].items())
            times = f"{judged.repeats} repeat{'s' * (judged.repeats > 1)}"
            line = f"{values}: {judged.status}, {judged.mean:.4g} after {times}"
            if bars.shown or bars.quiet:
                LOG.info("%s", line)
            else:
                say(line, logging.INFO)
        self._shown[name] = len(tested)
