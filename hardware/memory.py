"""The weights of one die: what its cells hold, how they forget, and how they are written."""

import math

import numpy as np

from hardware.device import BoundsParams, Cells, DeviceParams, age, apparent, fabricate, initial, write
from hardware.params import ChipParams

Array = np.ndarray
READINGS = 2**24  # between two writes whose 1/f noise is told apart


class Memory:
    """n weights in the devices of `params.weights.device`; with `weights.bits`, in digital cells of so many bits.

    w: what is stored first; seed: of programming, writing and reading. stuck (n,): cells that hold weights.stuck_value for good.
    A leak and a drift go on from the last write or refresh; a refresh brings back what was last written.
    """

    def __init__(self, params: ChipParams, stuck: Array, w: Array, seed: int):
        cells = params.weights
        device = cells.device
        if cells.bits:
            bounds = BoundsParams(w_max=1.0, w_min=-1.0)
            device = DeviceParams(model="digital", bits=cells.bits, bounds=bounds, range=cells.range)
        self.params, self.stuck, self.seed = cells, stuck, seed
        self.cells: Cells = fabricate(device, w.size, params.die)
        self.refresh_ns = round(cells.refresh_s * 1e9)
        self._forgets = bool(cells.leak_tau_s or cells.drift_exponent or device.leak or device.drift)
        self.changes = self._forgets or device.flicker is not None  # between two writes
        self.program(w)

    def program(self, w: Array) -> None:
        """Store w (n,) anew, at time 0."""
        self.hidden = initial(self.cells, w, self.seed)
        self.written = np.zeros(w.size, dtype=np.int64)  # number of each cell's last write
        self.writes = 0  # cells written since
        self.since_ns = 0  # when that was
        self.stored = self._shown(self.hidden)

    def weights(self, now_ns: int, reading: int = 0) -> Array:
        """The weights (n,) that the array computes with at a time; reading: its number, for noise that every reading has anew."""
        if not self.changes:
            return self.stored
        return self._shown(self._aged(now_ns), reading, self._elapsed_s(now_ns))

    def add(self, change: Array, update: int, now_ns: int) -> None:
        """Write: change the weights by about `change` (n,), through the devices."""
        before = self._aged(now_ns)
        self.hidden = write(self.cells, before, change, self.seed, update, self.params.rounding)
        changed = (self.hidden != before).reshape(-1, self.cells.n).any(0)
        self.written, self.since_ns = np.where(changed, update, self.written), now_ns
        self.writes += int(changed.sum())
        self.stored = self._shown(self.hidden)

    def _shown(self, hidden: Array, reading: int = 0, elapsed_s: float = 0.0) -> Array:
        w = apparent(self.cells, hidden, self.seed, self.written, reading % READINGS, elapsed_s)
        return np.where(self.stuck, self.params.stuck_value, w)

    def _elapsed_s(self, now_ns: int) -> float:
        last = self.since_ns
        if self.refresh_ns:
            last = max(last, now_ns // self.refresh_ns * self.refresh_ns)
        return 1e-9 * max(0, now_ns - last)  # jitter: a schedule knows only when writing ends on average

    def _aged(self, now_ns: int) -> Array:
        if not self._forgets:
            return self.hidden
        t, params = self._elapsed_s(now_ns), self.params
        kept = (math.exp(-t / params.leak_tau_s) if params.leak_tau_s else 1.0) * (1.0 + t) ** -params.drift_exponent
        return age(self.cells, kept * self.hidden, t)

    # ---- to be stored, and gone on from

    def arrays(self) -> dict[str, Array]:
        return {"hidden": self.hidden, "written": self.written, "counts": np.array([self.writes, self.since_ns])}

    def restore(self, parts: dict[str, Array]) -> None:
        self.hidden, self.written = parts["hidden"], parts["written"]
        self.writes, self.since_ns = (int(count) for count in parts["counts"])
        self.stored = self._shown(self.hidden)
