"""The weights of one die: what its cells hold, how they decay, and how they are written."""

from collections.abc import Sequence

import numpy as np

from hardware.cells import REFERENCE, Cells
from hardware.device import age, apparent, fabricate, initial, symmetry_points, write_cells
from hardware.device_params import DeviceParams
from hardware.device_tables import BoundsParams
from hardware.params import ChipParams
from perturb.errors import InputError
from perturb.trial.random import FABRICATION

Array = np.ndarray
MAX_READS = 2**24  # between two writes, with different 1/f noise


class WeightStore:
    """n weights in the devices of `params.weights.device`; with `weights.bits`, in digital cells.

    w: what is stored first; seed: of programming, writing and reading. stuck (n,): cells that
    always hold weights.stuck_value. Every cell, and either side of a pair, has a clock: it leaks
    and drifts from when it was last written or refreshed, whatever is written into others. A
    refresh brings back what was last written into each.

    reference (n,): what a cell is read against; with weights.reference, its symmetry point, which
    writes take as exact, and readings with weights.reference_error.

    hidden, since_ns (`Cells.shape`): what each cell held when it was last written, and when that
    was.
    """

    def __init__(self, params: ChipParams, stuck: Array, w: Array, seed: int):
        cells = params.weights
        device = cells.device
        # a digital cell is a device too: levels from -range to range
        if cells.bits:
            bounds = BoundsParams(w_max=1.0, w_min=-1.0)
            device = DeviceParams(
                model="digital", bits=cells.bits, bounds=bounds, range=cells.range
            )
        self.params = cells
        self.stuck = stuck
        self.seed = seed
        self.cells: Cells = fabricate(device, w.size, params.die or 0)
        self._symmetry = np.zeros(w.size)
        self.reference = self._symmetry
        if cells.reference == "symmetry" and device.law.balanced:  # an ideal device has no need
            self._symmetry = symmetry_points(self.cells)
            off = self.cells.normals(FABRICATION, params.die or 0, 0, REFERENCE)
            self.reference = self._symmetry + cells.reference_error * off
        self.refresh_ns = round(cells.refresh_s * 1e9)
        self._decays = bool(cells.leak_tau_s or cells.drift_exponent or device.leak or device.drift)
        self.changes = self._decays or device.flicker is not None  # between two writes
        self.program(w)

    def program(self, w: Array) -> None:
        """Store w (n,), at time 0."""
        # a cell is read against its reference, which writes take to be the symmetry point
        self.hidden = initial(self.cells, w + self._symmetry, self.seed)
        self.since_ns = np.zeros(self.cells.shape, dtype=np.int64)
        self.written = np.zeros(w.size, dtype=np.int64)  # number of each cell's last write
        self.writes = 0  # cells written since
        self.stored = self._apparent(self.hidden)

    def weights(self, now_ns: int, reading: int = 0) -> Array:
        """The weights (n,) that the array computes with at a time; reading: its number, for noise
        that differs in every reading.
        """
        if not self.changes:
            return self.stored
        t = self._elapsed_s(now_ns)
        return self._apparent(self._aged(t), reading, t)

    def weights_at(self, times_ns: Sequence[int], readings: Sequence[int]) -> Array:
        """`weights` at several times between two writes, each with the number of its reading:
        (times, n), to the same bits.
        """
        device = self.cells.params
        own = device.law.paired or device.leak or device.drift or device.flicker
        # a device's own decay, and noise that differs in every reading: one after another
        if own or not self._decays:
            return np.array([self.weights(*each) for each in zip(times_ns, readings, strict=True)])
        hidden = self._aged(self._elapsed_s(np.array(times_ns, np.int64)[:, None]))
        # the noise of writing stays until the next write: that of cells at 0
        noise = apparent(self.cells, np.zeros(self.cells.n), self.seed, self.written)
        return np.where(self.stuck, self.params.stuck_value, hidden + noise - self.reference)

    def held(self, now_ns: int) -> tuple[Array, Array]:
        """What the cells hold at a time, against their references, without what a reading adds,
        (n,); and the number of the level that each is at, from 0, or -1.
        """
        hidden = self._aged(self._elapsed_s(now_ns))
        device = self.cells.params
        w = hidden[0] - hidden[1] if device.law.paired else hidden - self.reference
        w = np.where(self.stuck, self.params.stuck_value, w)
        if device.model != "digital":
            return w, np.full(w.size, -1)
        lowest = device.range * device.limits.w_min
        level = np.rint((w - lowest) / device.dw_min)
        # a cell that leaks, or is stuck between two levels or beyond them, is at none
        there = (level >= 0) & (level < device.states)
        at_one = there & (w == lowest + level * device.dw_min)
        return w, np.where(at_one, level, -1).astype(np.int64)

    def add(self, change: Array, update: int, now_ns: int) -> None:
        """Write: change the weights by about `change` (n,), through the devices."""
        params = self.params
        hidden, written = write_cells(
            self.cells,
            self._aged(self._elapsed_s(now_ns)),
            change,
            self.seed,
            update,
            params.rounding,
        )
        # new arrays: a copy of this store may continue with the old ones
        self.hidden = np.where(written, hidden, self.hidden)
        self.since_ns = np.where(written, now_ns, self.since_ns)
        # either side of a pair counts as a write of the weight
        either = written.reshape(-1, self.cells.n).any(0)
        self.written = np.where(either, update, self.written)
        self.writes += int(either.sum())
        self.stored = self._apparent(self.hidden)

    def _apparent(self, hidden: Array, reading: int = 0, elapsed_s: float | Array = 0.0) -> Array:
        w = apparent(self.cells, hidden, self.seed, self.written, reading % MAX_READS, elapsed_s)
        return np.where(self.stuck, self.params.stuck_value, w - self.reference)

    def _elapsed_s(self, now_ns: int | Array) -> Array:
        last = self.since_ns
        if (last == last.flat[0]).all():  # as of weights that do not learn: one time is faster
            last = last.flat[:1]
        if self.refresh_ns:
            # what counts is the last write, or the last refresh if that came later
            last = np.maximum(last, now_ns // self.refresh_ns * self.refresh_ns)
        # never below 0: by jitter, predicted times know only when writing ends on average
        return 1e-9 * np.maximum(0, now_ns - last)

    def _aged(self, t: Array) -> Array:
        """What the cells hold t seconds after they were written."""
        if not self._decays:
            return self.hidden
        params = self.params
        # a device drifts by what was programmed
        hidden = age(self.cells, self.hidden, t)
        if not (params.leak_tau_s or params.drift_exponent):
            return hidden
        # (1 + t/t0)^-nu with t0 = 1 s, times e^(-t/tau), both as logarithms
        lost = params.drift_exponent * np.log1p(t) if params.drift_exponent else np.zeros(t.shape)
        if params.leak_tau_s:
            lost += t / params.leak_tau_s
        return np.where(self.cells.stuck, hidden, np.exp(-lost) * hidden)

    # ---- to be stored, and gone on from

    def arrays(self) -> dict[str, Array]:
        return {
            "hidden": self.hidden,
            "since_ns": self.since_ns,
            "written": self.written,
            "writes": np.array(self.writes),
        }

    def restore(self, parts: dict[str, Array]) -> None:
        if "since_ns" not in parts:
            raise InputError(
                "the stored state is of an earlier version, which had one clock for all cells:"
                " start a new run, with another place for its results"
            )
        self.hidden = parts["hidden"]
        self.since_ns = parts["since_ns"]
        self.written = parts["written"]
        self.writes = int(parts["writes"])
        self.stored = self._apparent(self.hidden)
