"""The chip: parameters from TOML files and a SimPy emulator in which a synapse sees only what a
synapse may know.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.bench import Bench as Bench
    from hardware.chip import Chip as Chip
    from hardware.device_params import DeviceParams as DeviceParams
    from hardware.device_params import device_names as device_names
    from hardware.device_params import load_device as load_device
    from hardware.params import ChipParams as ChipParams
    from hardware.params import chip_names as chip_names
    from hardware.params import load_chip as load_chip

_HOME = {
    "Bench": "bench",
    "Chip": "chip",
    "ChipParams": "params",
    "DeviceParams": "device_params",
    "chip_names": "params",
    "device_names": "device_params",
    "load_chip": "params",
    "load_device": "device_params",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"hardware.{_HOME[name]}"), name)
    if not name.startswith("_") and find_spec(f"hardware.{name}"):
        return import_module(f"hardware.{name}")
    raise AttributeError(f"module 'hardware' has no attribute {name!r}")
