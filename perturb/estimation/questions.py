"""Evaluations of E that are asked of somebody outside, and what is told of them.

An evaluation has a number for good: whoever is asked again, later or twice, is asked the same.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perturb.checks import integer
from perturb.errors import InputError
from perturb.estimation.design import Design
from perturb.trial.methods import displacement

Array = np.ndarray
# where an evaluation is: to be asked; asked; told; left out
OPEN, ASKED, TOLD, LEFT_OUT = range(4)
TRIES = 3


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One measurement of E that is wanted.

    Attributes
    ----------
    id : int
        Its number, from 0 on, for `tell`.
    center : array (n,)
        w, the weights that are learned or estimated at.
    seed, trial, phase : int
        Of the code, the trial of that seed, and the number of the evaluation in it: by these three
        an emulated chip keys its noise.
    a, b : int
        The weights are to be w + a D + b r v; 0 where `own` is False.
    draw : int
        The number of the perturbation D, trial // perturb_every.
    code : str
        Its code; D is `CODES[code].draw(n, sigma, seed, draw)`.
    sigma, r : float
    direction : array (n,) or None
        v; None where it is 0.
    patterns : int array or None
        Which patterns are shown; None: all.
    own : bool
        Whether a chip that perturbs by itself can make the displacement from seed, draw, a and b;
        else the weights have to be set.
    weights : array (n,)
        The weights to set.
    """

    id: int
    center: Array
    seed: int
    trial: int
    phase: int
    made: Callable[[], Array]
    a: int = 0
    b: int = 0
    draw: int = 0
    code: str = ""
    sigma: float = 0.0
    r: float = 0.0
    direction: Array | None = None
    patterns: Array | None = None
    own: bool = True

    @cached_property
    def weights(self) -> Array:
        """The weights to set: the center, displaced."""
        rv = 0.0 if self.direction is None else self.r * self.direction
        if not self.own:
            return self.center + self.made()
        D = self.made() if self.a else np.zeros_like(self.center)
        return self.center + displacement((self.a, self.b), D, rv)


class Unanswered(Exception):
    """Nothing goes on before the evaluations of the last group have been told."""


Made = Callable[[int, int], Evaluation]


class Group:
    """Evaluations that may be asked in any order, numbered from `first` on; made(k, id) is the
    k-th.

    values, where, failures (size,): what was told, where each is, how often it failed.
    """

    def __init__(self, first: int, size: int, made: Made):
        self.first, self.size, self.made = first, size, made
        self.values, self.where = np.full(size, math.nan), np.full(size, OPEN, np.int8)
        self.failures = np.zeros(size, np.int64)
        self.unanswered, self.next, self.again = size, 0, list[int]()

    def restore(self, told: Mapping[int, tuple[float, int, int]]) -> None:
        """Go on with (value, where, failures) of evaluations by their number."""
        for id, (value, where, failures) in told.items():
            if 0 <= (k := id - self.first) < self.size:
                self.values[k], self.where[k], self.failures[k] = value, where, failures
        # what was asked and not told may have been lost
        self.where[self.where == ASKED] = OPEN
        self.unanswered = int((self.where < TOLD).sum())


class Questions:
    """Groups of evaluations, of which the last is open.

    tries: how often an evaluation is measured before it is left out. first: the number of the
    first. stored: what was told before, (value, where, failures) by number.
    """

    def __init__(
        self,
        tries: int = TRIES,
        first: int = 0,
        stored: Mapping[int, tuple[float, int, int]] | None = None,
    ):
        self.tries = integer("tries", tries, 1)
        self.first = first
        self._stored = stored or {}
        self._groups: list[Group] = []
        self._cursor = 0

    @property
    def next_id(self) -> int:
        """The number of the first evaluation behind all groups."""
        return self._groups[-1].first + self._groups[-1].size if self._groups else self.first

    @property
    def complete(self) -> bool:
        """Whether all have been told or left out."""
        return not self._groups or not self._groups[-1].unanswered

    def rewind(self) -> None:
        """Begin again to ask for values, from the first group on."""
        self._cursor = 0

    def values(self, size: int, made: Made) -> Array:
        """What was told of the next group, (size,), NaN where it was left out; Unanswered, if that
        is not known yet.
        """
        if self._cursor == len(self._groups):
            self._groups.append(group := Group(self.next_id, size, made))
            group.restore(self._stored)
        group = self._groups[self._cursor]
        if group.unanswered:
            raise Unanswered
        self._cursor += 1
        return group.values

    @property
    def told(self) -> Array:
        """What was told of the last group so far, NaN of the others."""
        return self._groups[-1].values

    @property
    def left_out(self) -> int:
        """How many have been left out."""
        return sum(int((group.where == LEFT_OUT).sum()) for group in self._groups)

    def skip(self) -> None:
        """Pass a group whose values are known already."""
        self._cursor += 1

    def behind(self) -> "Questions":
        """None yet, numbered from behind these on."""
        return Questions(self.tries, self.next_id)

    def ask(self, n: int | None = None) -> list[Evaluation]:
        """The next evaluations to measure, n at most."""
        asked: list[Evaluation] = []
        if not self._groups:
            return asked
        group = self._groups[-1]
        while n is None or len(asked) < n:
            if group.again:
                k = group.again.pop(0)
            elif group.next < group.size:
                k, group.next = group.next, group.next + 1
            else:
                break
            # told meanwhile, or before this session
            if group.where[k] == OPEN:
                group.where[k] = ASKED
                asked.append(group.made(k, group.first + k))
        return asked

    def tell(self, id: int, value: float | None) -> bool:
        """Note E of an evaluation; None or what is not finite: it failed. Whether it was news."""
        id = integer("id", id, 0)
        if value is not None and np.ndim(value) + (np.asarray(value).dtype.kind not in "iuf"):
            raise InputError(f"value = {value!r} of id = {id} must be a number, or None")
        if id >= self.next_id:
            raise InputError(f"id = {id} has not been asked: tell what ask() gave")
        if not self._groups or (k := id - self._groups[-1].first) < 0:
            return False
        group = self._groups[-1]
        if group.where[k] >= TOLD:
            return False
        if value is not None and math.isfinite(value):
            group.values[k], group.where[k] = value, TOLD
        elif group.where[k] == OPEN:
            return False  # twice told: it waits to be asked again
        else:
            group.failures[k] += 1
            if group.failures[k] < self.tries:
                group.where[k] = OPEN
                group.again.append(k)
                return True
            group.where[k] = LEFT_OUT
        group.unanswered -= 1
        return True

    def arrays(self) -> dict[str, Array]:
        """All that was told, to be stored; `told_of` makes `stored` of it."""
        groups = self._groups
        parts: dict[str, list[Array]] = {"ids": [], "values": [], "where": [], "failures": []}
        for group in groups:
            known = np.flatnonzero((group.where >= TOLD) | (group.failures > 0))
            parts["ids"].append(group.first + known)
            for name in ("values", "where", "failures"):
                parts[name].append(getattr(group, name)[known])
        return {name: np.concatenate(some) if some else np.zeros(0) for name, some in parts.items()}


def of_design(w: Array, v: Array, design: Design, k: int, id: int) -> Evaluation:
    """Number k of the evaluations of a design's trials at w along v, trial by trial from 0 on."""
    trial, phase = divmod(k, len(design.method.phases))
    a, b = design.method.phases[phase]

    def draw() -> Array:
        return design.code.draw(w.size, design.sigma, design.seed, trial)

    return Evaluation(
        id,
        w,
        design.seed,
        trial,
        phase,
        draw,
        a,
        b,
        trial,
        design.code.name,
        design.sigma,
        design.r,
        v if v.any() else None,
    )


class Told:
    """Reads E of trials as it was told: values (trials, phases), from trial 0 on."""

    steady = False

    def __init__(self, values: Array):
        self.values = values

    def measure_each(self, points: Array, trials: range, phase: int) -> Array:
        """See `meter.Readings`."""
        return self.values[trials.start : trials.stop, phase]


def told_of(arrays: Mapping[str, Array]) -> dict[int, tuple[float, int, int]]:
    """What `Questions.arrays` gave, by number."""
    columns = [arrays[name].tolist() for name in ("ids", "values", "where", "failures")]
    return {
        int(id): (value, int(where), int(n)) for id, value, where, n in zip(*columns, strict=True)
    }
