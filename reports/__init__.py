"""Frames, tables, plots and exports of stored runs. Nothing here runs or computes a result."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports.design_comparison import designs as designs
    from reports.exporters import export as export
    from reports.exporters import plot as plot
    from reports.frames import Frames as Frames
    from reports.loading import load as load

_HOME = {
    "Frames": "frames",
    "designs": "design_comparison",
    "export": "exporters",
    "load": "loading",
    "plot": "exporters",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"reports.{_HOME[name]}"), name)
    if not name.startswith("_") and find_spec(f"reports.{name}"):
        return import_module(f"reports.{name}")
    raise AttributeError(f"module 'reports' has no attribute {name!r}")
