"""Links to emulated chips of other experiments: sim:EXPERIMENT."""

from collections.abc import Callable

from hardware.link.server import InProcess
from hardware.link.streams import STREAMS, Stream
from perturb.errors import InputError
from sims.experiment.loading import load_experiment
from sims.studies.emulated import responder_of


def register() -> None:
    """Make sim: an address of `hardware.link.instrument.open_instrument`."""
    STREAMS["sim"] = _simulated


def _simulated(rest: str) -> Callable[[], Stream]:
    if not rest:
        raise InputError("sim: must name an experiment, such as sim:xor-learning")
    responder = responder_of(load_experiment(rest))
    return lambda: InProcess(responder)
