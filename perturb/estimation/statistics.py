"""Statistics: the mergeable sums that both engines produce, of one or more runs."""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from perturb.errors import InputError
from perturb.estimation import archive
from perturb.estimation.design import Design, check_trials
from perturb.estimation.periods import Periods
from perturb.estimation.point import PointRecord
from perturb.trial.code import Code
from perturb.trial.codes import CODES, lfsr
from perturb.trial.methods import Method
from perturb.trial.shift_registers import Registers
from perturb.trial.synapse import SUMS, TOTALS

Array = np.ndarray
FORMAT = "perturb statistics 3"


class Statistics:
    """Sums over trials, all that an estimate is solved from: mergeable, storable.

    Parameters
    ----------
    design : Design
        What all trials have in common.
    spans : iterable of (int, int)
        Trial numbers summed so far, as (first, last + 1) in order. A run goes on at the end of its
        last span, so [(first, first)] is an empty start for one of several processes.

    Attributes
    ----------
    closed, open : tuple of two arrays
        Sums (rows, n), with rows named by `synapse.SUMS`, and totals, by `synapse.TOTALS`: of whole
        blocks, and of the block not yet full, so that any split of a run gives the same bits.
    opened : int or None
        The first trial in `open`, if there is one.
    precision : {"float64", "float32"}
        float32, if any trial ran so.
    point : PointRecord or None
        Where they were summed; None before the first trial.
    periods : Periods or None
        What the double periods of a periodic code made, for the standard errors; None for any
        other, and for one of the user's own.

    Examples
    --------
    Two processes, each with trials of its own, together make one run:

    >>> import numpy as np
    >>> import perturb
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> options = {"w": np.zeros(2), "v": np.ones(2), "code": "rademacher"}
    >>> first = perturb.estimate(objective, trials=100, **options).statistics
    >>> rest = perturb.Statistics(first.design, spans=[(100, 100)])
    >>> rest = perturb.estimate(objective, trials=50, resume=rest, **options).statistics
    >>> first.merge(rest).spans
    [(0, 150)]
    """

    def __init__(self, design: Design, spans: Iterable[tuple[int, int]] = ()):
        self.design, self.spans = design, list(spans)
        self.closed, self.open = self.zeros(), self.zeros()
        self.opened: int | None = None
        self.precision = "float64"
        self.point: PointRecord | None = None
        self.periods = (
            Periods(design) if design.code.periodic and design.code.function is None else None
        )

    def bind(self, point: PointRecord) -> None:
        """Note where the trials are run.

        Parameters
        ----------
        point : PointRecord

        Raises
        ------
        InputError
            If those so far were run elsewhere.
        """
        if self.point is not None and not self.point.same(point):
            raise InputError(
                "the statistics were summed at another w, v, network, data or error noise: go on"
                " with the same, or start anew"
            )
        self.point = self.point or point

    def zeros(self) -> tuple[Array, Array]:
        """Empty sums and totals."""
        return np.zeros((len(SUMS), self.design.n_weights)), np.zeros(len(TOTALS))

    @property
    def sums(self) -> Array:
        """Sums over all trials, (rows, n), rows named by `synapse.SUMS`."""
        return self.closed[0] + self.open[0]

    @property
    def totals(self) -> Array:
        """Sums of the broadcasts alone, named by `synapse.TOTALS`."""
        return self.closed[1] + self.open[1]

    @property
    def trials(self) -> int:
        """How many have been summed."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def next_trial(self) -> int:
        """The number of the trial that comes next."""
        return self.spans[-1][1] if self.spans else 0

    def extend(self, count: int) -> None:
        """Note that the trials after the last have been summed.

        Parameters
        ----------
        count : int
            How many.

        Raises
        ------
        InputError
            If trial numbers would reach 2^62.
        """
        # a run goes on at the end of its last span
        start = self.next_trial
        check_trials(start, count)
        if self.spans:
            self.spans[-1] = (self.spans[-1][0], start + count)
        else:
            self.spans.append((start, start + count))

    def merge(self, other: "Statistics") -> "Statistics":
        """The statistics of both.

        Parameters
        ----------
        other : Statistics
            Of the same design, at the same point, of other trials.

        Returns
        -------
        Statistics
            Equal to those of one run within rounding.

        Raises
        ------
        InputError
            For another design or point, or trials that both have.
        """
        if self.design != other.design:
            raise InputError(
                "statistics of different designs cannot be merged: method, code, sigma, r, seed and"
                " network must agree"
            )
        if self.point and other.point and not self.point.same(other.point):
            raise InputError(
                "statistics of different w, v, network, data or error noise cannot be merged"
            )
        spans: list[tuple[int, int]] = []
        # spans that touch become one
        for start, stop in sorted(self.spans + other.spans):
            if spans and start < spans[-1][1]:
                raise InputError(
                    f"trials {start}..{min(stop, spans[-1][1]) - 1} are in both statistics: merge"
                    " disjoint trials only"
                )
            if spans and start == spans[-1][1]:
                spans[-1] = (spans[-1][0], stop)
            else:
                spans.append((start, stop))
        # a run goes on behind the later one: its open block stays open
        last = max(self, other, key=lambda statistics: statistics.next_trial)
        rest = other if last is self else self
        both = Statistics(self.design, spans)
        both.closed = (last.closed[0] + rest.sums, last.closed[1] + rest.totals)
        both.open, both.opened = (last.open[0].copy(), last.open[1].copy()), last.opened
        # "float32" < "float64": the coarser of both
        both.precision = min(self.precision, other.precision)
        both.point = self.point or other.point
        if self.periods and other.periods and both.point:
            both.periods = self.periods.merge(other.periods, both.point.v)
        return both

    def save(self, path: str | Path) -> None:
        """Write everything to one file (NumPy's npz), whole or not at all.

        Parameters
        ----------
        path : str or Path

        Raises
        ------
        InputError
            If the file cannot be written.

        Notes
        -----
        It is written beside `path` first and then renamed. A loaded copy goes on with the same
        bits.
        """
        # all that a run needs to go on, in plain numbers and names: no pickle, whatever the version
        design, code, point = self.design, self.design.code, self.point
        header = {
            "format": FORMAT,
            "sums": SUMS,
            "totals": TOTALS,
            "spans": self.spans,
            "method": asdict(design.method),
            "code": {key: getattr(code, key) for key in CODE_FIELDS},
            "registers": asdict(code.registers) if code.registers else None,
            "n_weights": int(design.n_weights),
            "sigma": float(design.sigma),
            "r": float(design.r),
            "seed": int(design.seed),
            "presentation": design.presentation,
            "point": [point.error, point.digest] if point else None,
            "opened": self.opened,
            "precision": self.precision,
            "periods": self.periods and self.periods.header,
        }
        arrays = dict(zip(ARRAYS, (*self.closed, *self.open), strict=True))
        arrays["v"] = point.v if point else np.zeros(0)
        archive.write(
            Path(path),
            "statistics",
            header,
            arrays | (self.periods.arrays() if self.periods else {}),
        )

    @classmethod
    def load(cls, path: str | Path, code: Code | None = None) -> "Statistics":
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
        code : Code, optional
            Needed for statistics of a code of the user's own, whose function no file can hold.

        Returns
        -------
        Statistics

        Raises
        ------
        InputError
            For a file that is missing, cut short, damaged, or of another kind or version.
        """
        with archive.reading(
            Path(path),
            "statistics",
            "give a file written by Statistics.save, or run the trials again",
        ):
            header, arrays = archive.read(Path(path))
            if (
                header["format"] != FORMAT
                or tuple(header["sums"]) != SUMS
                or tuple(header["totals"]) != TOTALS
            ):
                raise InputError("statistics of another version of perturb: run the trials again")
            # a design is checked again as it is made
            statistics = cls(
                _design_of(header, code), [(start, stop) for start, stop in header["spans"]]
            )
            statistics.opened, statistics.precision = header["opened"], header["precision"]
            if header["point"] is not None:
                statistics.point = PointRecord(arrays["v"], *header["point"])
            shapes = [array.shape for array in (*statistics.closed, *statistics.open)]
            # what a damaged header makes of the shapes must not come to light in a sum
            if [arrays[name].shape for name in ARRAYS] != shapes or (
                statistics.point and arrays["v"].shape != shapes[0][1:]
            ):
                raise ValueError("arrays of unexpected shape")
            statistics.closed = (arrays["closed_sums"], arrays["closed_totals"])
            statistics.open = (arrays["open_sums"], arrays["open_totals"])
            if statistics.periods:
                statistics.periods.restore(header["periods"], arrays)
        return statistics


ARRAYS = ("closed_sums", "closed_totals", "open_sums", "open_totals")
# without functions, which no file can hold
CODE_FIELDS = [field.name for field in fields(Code) if field.name not in ("length", "function")]


def _design_of(header: dict, code: Code | None) -> Design:
    """The design that the header of a file states; code: of the user's own, whose function no
    file can hold.
    """
    stored, registers = header["code"], header.get("registers")
    found = code or (lfsr(**registers) if registers else CODES.get(stored["name"]))
    # as JSON: NaN, which some moments are, does not equal itself
    if found is None or json.dumps({key: getattr(found, key) for key in CODE_FIELDS}) != json.dumps(
        stored
    ):
        raise InputError(f"summed with the code {stored['name']!r} of its own: give it as code=")
    if found.registers and found.registers != Registers(**(registers or {})):
        raise InputError(f"summed with the shift registers {registers}: leave out code=")
    method = header["method"]
    for key in ("phases", "gradient_weights", "hv_weights"):
        # JSON has no tuples, and a method with lists would equal none of METHODS
        method[key] = tuple(
            tuple(entry) if isinstance(entry, list) else entry for entry in method[key]
        )
    return Design(
        Method(**method),
        found,
        header["n_weights"],
        header["sigma"],
        header["r"],
        header["seed"],
        header["presentation"],
    )
