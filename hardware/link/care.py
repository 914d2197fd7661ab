"""Care for a device: between which bounds weights are written, by what steps, and what went wrong
meanwhile.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from hardware.link.messages import Hello
from perturb.checks import at_least_zero
from perturb.errors import InputError

Array = np.ndarray


@dataclass
class Incidents:
    """What went wrong, by kind: how often, and what was the worst.

    Attributes
    ----------
    counts : dict of str to int
    worst : dict of str to float
    """

    counts: dict[str, int] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)

    def note(self, kind: str, size: float = math.nan) -> None:
        """One more of a kind.

        Parameters
        ----------
        kind : str
        size : float, optional
            How bad it was.
        """
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if not math.isnan(size):
            self.worst[kind] = max(size, self.worst.get(kind, 0.0))


@dataclass(frozen=True)
class Care:
    """How carefully weights are written.

    Parameters
    ----------
    low, high : float or array (n,), optional
        Bounds of the weights; left out, those that the chip tells, if any.
    largest_step : float
        By how much a write may change a weight; larger changes take several writes. 0: any. Of a
        Python function from its second write on, as nobody knows what was set before.
    settle_s : float
        Time between a write and a measurement, beside what the chip takes by itself.
    tolerance : float
        A weight that is read back farther from what was asked is an incident. 0: not looked at.

    Raises
    ------
    InputError
        For a number out of its range.
    """

    low: float | Array | None = None
    high: float | Array | None = None
    largest_step: float = 0.0
    settle_s: float = 0.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("largest_step", "settle_s", "tolerance"):
            at_least_zero(name, getattr(self, name))
        if not np.all(np.asarray(self.bounds(None)[0]) < np.asarray(self.bounds(None)[1])):
            raise InputError(f"low = {self.low} must be below high = {self.high}, both numbers")

    def bounds(self, hello: Hello | None) -> tuple[float | Array, float | Array]:
        """The narrower of these bounds and those of the chip.

        Parameters
        ----------
        hello : Hello or None

        Returns
        -------
        low, high : float or array (n,)
        """
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if hello and hello.low is not None:
            low = np.maximum(low, hello.low)
        if hello and hello.high is not None:
            high = np.minimum(high, hello.high)
        return low, high

    def bounded(self, w: Array, hello: Hello, incidents: Incidents) -> Array:
        """w within the bounds; LinkError where it is no number.

        Parameters
        ----------
        w : array (n,)
        hello : Hello
        incidents : Incidents
            Is told of weights beyond the bounds.

        Returns
        -------
        array (n,)
        """
        if not np.isfinite(w).all():
            raise InputError(
                "the weights to write are not finite: learning has diverged; a smaller eta, or"
                " longest_step, keeps it"
            )
        low, high = self.bounds(hello)
        within = np.clip(w, low, high)
        if (beyond := float(np.abs(within - w).max(initial=0.0))) > 0:
            incidents.note("weight beyond its bounds", beyond)
        return within

    def writes(self, last: Array, w: Array) -> list[Array]:
        """What to write one after another, from weights `last` to w; none if they are the same.

        Parameters
        ----------
        last, w : array (n,)

        Returns
        -------
        list of array (n,)
        """
        farthest = float(np.abs(w - last).max(initial=0.0))
        if farthest == 0:
            return []
        # rounding may make a step longer by its last place: a little shorter steps
        most = self.largest_step * (1 - 1e-9)
        steps = math.ceil(farthest / most) if self.largest_step else 1
        return [last + (w - last) * (k / steps) for k in range(1, steps)] + [w]
