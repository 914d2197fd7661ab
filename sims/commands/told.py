"""What is told of a search for requirements while it goes on."""

import logging
from typing import TYPE_CHECKING

from perturb.settings import toml
from reports.studies.require.search import TOGETHER, decisions, longest, met_takes
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
        self._ladders = sought.ladders
        self._condition = sought.condition
        self._looks = sought.condition.looks
        # how many values of each search have been told
        self._shown: dict[str, int] = {}
        self._begun = False

    def tell(self, found: list["Search"], ended: int) -> None:
        """How far the searches are, when so many cells have ended."""
        left = self._expected(found)
        if not self._begun and left and not self._bars.quiet:
            self._begun = True
            say(self._beforehand(found, left), logging.INFO)
        if not self._bars.shown:
            self._bars.advance("search", ended, ended + left)
        # that of all together comes once each key has its value
        for name, each in zip([*self._keys, TOGETHER], found, strict=False):
            self._judged(name, each)

    def _beforehand(self, found: list["Search"], left: int) -> str:
        runs = self._condition.runs
        of = f" of {runs} runs each" if runs else ""
        lengths = [len(each.points) for each in found]
        values = " + ".join(f"{length:,}" for length in lengths)
        judged = " + ".join(str(decisions(length)) for length in lengths)
        both = ""
        if len(found) == len(self._keys) > 1:
            lengths.append(longest(self._ladders))
            both = f", then of all keys together at most {decisions(lengths[-1])}"
        takes = met_takes(lengths, self._condition)
        most = self._values_left(found) * self._looks[-1]
        return (
            f"{values} values, of which a bisection judges at most {judged}{both}, by"
            f" {self._looks[0]} to {self._looks[-1]} repeats{of}: some {left:,} to {most:,} repeats"
            f" in all; {f'{takes}; ' if takes else ''}the time is told when the first have ended"
        )

    def _values_left(self, found: list["Search"]) -> int:
        """How many values are still to be judged, at most."""
        left = [each for each in found if each.answer is None]
        values = sum(decisions(len(each.points)) - len(each.tested) for each in left)
        # that of all together comes once each key has its value
        if len(found) == len(self._keys) > 1 and left:
            values += decisions(longest(self._ladders))
        return values

    def _expected(self, found: list["Search"]) -> int:
        """About how many repeats are still to come: of every value that is left to be judged as
        many as those before took, at first halfway between the least and the most.
        """
        taken = [judged.repeats for each in found for judged in each.tested.values()]
        usual = (self._looks[0] + self._looks[-1]) / 2
        usual = (usual + sum(taken)) / (1 + len(taken))
        return round(usual * self._values_left(found))

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
