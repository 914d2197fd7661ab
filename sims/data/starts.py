"""Weights to start from, of a file: weights.npz of a training, or one's own as NPZ, CSV, NPY or
ONNX.
"""

from dataclasses import dataclass
from typing import IO

import numpy as np
import pandas as pd

from perturb.errors import InputError, choose, cut, one_line
from perturb.networks.onnx.reading import network_in
from sims.data.csv_files import read_csv
from sims.data.files import called, floats_of, read_file

Array = np.ndarray
# arrays of NPZ, columns of CSV: as trainings store them, and a shorter name for one's own
VALUES = ("w_exact", "w")
# what tables call the sources of weights, beside labels of compare_with
TABLES = {"chip": ("batch", "event"), "exact gradient": ("exact",)}
ALL = "all"  # the source of weights of which the file names none
Found = dict[str, dict[int, Array]]  # weights (n,) by source and run


@dataclass(frozen=True)
class Starts:
    """Weights of runs, by their number; called: the file in messages."""

    by_run: dict[int, Array]
    called: str

    def of(self, run: int, chosen: int | None, n: int) -> Array:
        """A copy of the n weights that a run starts from. chosen: weights.run; absent, a file of
        several runs gives each run those of its own number.
        """
        # a file of one run starts all runs alike
        several = len(self.by_run) > 1
        number = run if chosen is None and several else chosen
        if number is None:
            number = next(iter(self.by_run))
        if number not in self.by_run:
            there = f"{self.called}: has no run {number}, but {len(self.by_run)}, from"
            there += f" {min(self.by_run)} to {max(self.by_run)}"
            if chosen is not None:
                raise InputError(f"{there}: set weights.run to one of them")
            raise InputError(
                f"{there}: lower training.runs, or set weights.run to one that all start from"
            )
        w = self.by_run[number]
        if w.size != n:
            raise InputError(
                f"{self.called}: has {w.size} weights, but the network has {n}: give a file of this"
                " network"
            )
        wrong = ~np.isfinite(w)
        if wrong.any():
            first = int(wrong.argmax())
            raise InputError(
                f"{self.called}: run {number}: w[{first}] = {w[first]} must be a finite number: did"
                " that run diverge? Set weights.run to another"
            )
        # whoever trains writes to it
        return w.copy()


def read_starts(path: str, sha256: str, source: str | None) -> Starts:
    """The weights of a file that one source learned, by default the first.

    NPZ: an array w_exact or w, of shape (n,) or (runs, n), and perhaps source and run, (runs,).
    NPY: such an array alone. ONNX: those of its network, see `perturb.from_onnx`. CSV: a column
    w_exact or w, a row per weight, and perhaps source, run and index. InputError for a mistake in
    it, which names the file.
    """
    file = called("weights.file", path)
    readers = {".npz": _npz, ".csv": _csv, ".npy": _npy, ".onnx": _onnx}
    found = read_file("weights", path, sha256, readers)
    if source is None:
        return Starts(next(iter(found.values())), file)
    if [*found] == [ALL]:
        raise InputError(
            f'{file}: does not say what learned its weights: leave out weights.source = "{source}"'
        )
    # as it is stored, or as tables have it: "chip, plain" where labels stand beside it
    stored = TABLES.get(source.partition(", ")[0], ())
    meant = next((name for name in stored if name in found and source not in found), source)
    return Starts(choose(f"{file}: weights.source", meant, found), file)


def _runs(w: Array, source: Array, run: Array) -> Found:
    """The weights (runs, n) of each source and run."""
    if w.dtype.kind not in "biuf" or w.ndim != 2 or not w.size:
        raise InputError(
            f"its weights are of type {w.dtype} and shape {w.shape}, but must be numbers, (n,) or"
            " (runs, n): convert them"
        )
    for name, array in (("source", source), ("run", run)):
        if array.shape != (len(w),):
            raise InputError(
                f"{name} has shape {array.shape}, but must be ({len(w)},), one for each row of the"
                " weights: correct it"
            )
    found: Found = {}
    for row, of, number in zip(
        w.astype(float), source.astype(str), _whole("run", run), strict=True
    ):
        if int(number) in found.setdefault(str(of), {}):
            raise InputError(f"has run {number} of {of} twice: number the runs")
        found[str(of)][int(number)] = row
    return found


def _whole(name: str, numbers: Array) -> Array:
    # not `numbers < 0`: NaN is none either
    if numbers.dtype.kind not in "iuf" or not ((numbers >= 0) & (numbers % 1 == 0)).all():
        raise InputError(f"{name} must be integers >= 0: correct it")
    return numbers.astype(np.int64)


def _npy(stream: IO[bytes]) -> Found:
    w = np.load(stream, allow_pickle=False)
    if not isinstance(w, np.ndarray):
        raise ValueError("an archive of arrays, not a single one")
    # one row for each run
    w = np.atleast_2d(w)
    return _runs(w, np.full(len(w), ALL), np.arange(len(w)))


def _onnx(stream: IO[bytes]) -> Found:
    w = network_in(stream.read(), None).w
    return _runs(w[None], np.array([ALL]), np.array([0]))


def _npz(stream: IO[bytes]) -> Found:
    file = np.load(stream, allow_pickle=False)
    # np.load takes a file of a single array too
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise ValueError("a single array, not an archive of named ones")
    w = np.atleast_2d(file[_value(file.files, "array")])
    source = file["source"] if "source" in file.files else np.full(len(w), ALL)
    run = file["run"] if "run" in file.files else np.arange(len(w))
    return _runs(w, np.atleast_1d(source), np.atleast_1d(run))


def _csv(stream: IO[bytes]) -> Found:
    cells = read_csv(stream).reset_index(drop=True)
    columns = [str(name) for name in cells.columns]
    value = _value(columns, "column")
    if not len(cells):
        raise InputError("holds no rows: add a row for each weight")
    for name in (value, "source", "run", "index"):
        if columns.count(name) > 1:
            raise InputError(f"has two columns {name}: rename one")
    # what is no number is NaN, which matters only of the run that is taken
    rows = pd.DataFrame({"w": floats_of(cells[value])})
    rows["source"] = cells["source"].fillna(ALL) if "source" in cells else ALL
    rows["run"] = _whole("run", floats_of(cells["run"])) if "run" in cells else 0
    rows["index"] = _whole("index", floats_of(cells["index"])) if "index" in cells else rows.index
    found: Found = {}
    # in the order of the file, in which the chip comes first
    for (source, run), part in rows.groupby(["source", "run"], sort=False):
        own = part.sort_values("index")
        if "index" in cells and (own["index"] != np.arange(len(own))).any():
            raise InputError(
                f"index of run {run} must be 0, 1, 2, ..., each of them once: correct it"
            )
        found.setdefault(str(source), {})[int(own["run"].iloc[0])] = own["w"].to_numpy()
    return found


def _value(names: list[str], what: str) -> str:
    """The array or column of weights."""
    for name in VALUES:
        if name in names:
            return name
    there = one_line(cut(", ".join(names), 100))
    raise InputError(f"has no {what} w_exact or w: name that of the weights so, of {there}")
