"""Weight perturbation for analog neural hardware, with exact Hessian-vector products
(R{backprop}) beside every estimate.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from perturb.errors import InputError
from perturb.networks.kinds import KINDS

if TYPE_CHECKING:
    from perturb import curvature as curvature
    from perturb import theory as theory
    from perturb import training as training
    from perturb.estimation.asking import AskEstimate as AskEstimate
    from perturb.estimation.estimate import estimate as estimate
    from perturb.estimation.solution import solve as solve
    from perturb.estimation.statistics import Statistics as Statistics
    from perturb.networks.activations import add_activation as add_activation
    from perturb.networks.boltzmann import Boltzmann as Boltzmann
    from perturb.networks.dag import DAG as DAG
    from perturb.networks.derivatives import finite_difference_hvp as finite_difference_hvp
    from perturb.networks.derivatives import finite_difference_step as finite_difference_step
    from perturb.networks.layers.network import Layers as Layers
    from perturb.networks.losses import add_error as add_error
    from perturb.networks.mlp import MLP as MLP
    from perturb.networks.objective import Objective as Objective
    from perturb.networks.onnx.network import OnnxLayers as OnnxLayers
    from perturb.networks.onnx.network import from_onnx as from_onnx
    from perturb.networks.onnx.writing import to_onnx as to_onnx
    from perturb.networks.recurrent import Recurrent as Recurrent
    from perturb.theory.amplitude import best_sigma as best_sigma
    from perturb.theory.amplitude import truncation as truncation
    from perturb.theory.comparison import compare as compare
    from perturb.theory.estimates import predict as predict
    from perturb.trial.code import Code as Code
    from perturb.trial.codes import CODES as CODES
    from perturb.trial.codes import lfsr as lfsr
    from perturb.trial.methods import METHODS as METHODS
    from perturb.trial.methods import Method as Method

    __version__: str

# imported when first used: SciPy and Numba take longer to load than `perturb --help` may take
_MODULES = ("curvature", "theory", "training")
_HOME = {kind.name: kind.module for kind in KINDS.values()} | {
    "add_activation": "networks.activations",
    "add_error": "networks.losses",
    "Objective": "networks.objective",
    "CODES": "trial.codes",
    "Code": "trial.code",
    "lfsr": "trial.codes",
    "METHODS": "trial.methods",
    "Method": "trial.methods",
    "AskEstimate": "estimation.asking",
    "Statistics": "estimation.statistics",
    "best_sigma": "theory.amplitude",
    "compare": "theory.comparison",
    "estimate": "estimation.estimate",
    "finite_difference_hvp": "networks.derivatives",
    "finite_difference_step": "networks.derivatives",
    "from_onnx": "networks.onnx.network",
    "predict": "theory.estimates",
    "solve": "estimation.solution",
    "to_onnx": "networks.onnx.writing",
    "truncation": "theory.amplitude",
}
__all__ = ["InputError", *_MODULES, *_HOME]


def __getattr__(name: str):
    if name == "__version__":
        # late: reading what is installed takes as long as all of the above
        return import_module("importlib.metadata").version("perturb")
    if name in _MODULES:
        return import_module(f"perturb.{name}")
    if name in _HOME:
        return getattr(import_module(f"perturb.{_HOME[name]}"), name)
    raise AttributeError(f"module 'perturb' has no attribute {name!r}")
