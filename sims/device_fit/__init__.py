"""A device of one's own: a table of measured pulse responses becomes a device file.

`pulses` reads the table, `models` says what is tried, `filter` and `likelihood` fit it, `describe`
turns a fit into a device file with standard errors, and `fit` does all of it.
"""

from sims.device_fit.fit import DeviceFit, fit_device
from sims.device_fit.models import CANDIDATES
from sims.device_fit.pulses import read_pulses

__all__ = ["CANDIDATES", "DeviceFit", "fit_device", "read_pulses"]
