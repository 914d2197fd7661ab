"""Weight perturbation for analog neural hardware, with exact Hessian-vector products (R{backprop}) beside every estimate."""

from importlib import import_module
from typing import TYPE_CHECKING

from perturb.errors import InputError

if TYPE_CHECKING:
    from perturb import curvature as curvature
    from perturb import curves as curves
    from perturb import learning as learning
    from perturb.activations import add_activation as add_activation
    from perturb.amplitude import best_sigma as best_sigma
    from perturb.amplitude import truncation as truncation
    from perturb.boltzmann import Boltzmann as Boltzmann
    from perturb.codes import CODES as CODES
    from perturb.codes import Code as Code
    from perturb.codes import lfsr as lfsr
    from perturb.dag import DAG as DAG
    from perturb.estimation import compare as compare
    from perturb.estimation import estimate as estimate
    from perturb.losses import add_error as add_error
    from perturb.methods import METHODS as METHODS
    from perturb.methods import Method as Method
    from perturb.mlp import MLP as MLP
    from perturb.objective import Objective as Objective
    from perturb.objective import finite_difference_hvp as finite_difference_hvp
    from perturb.objective import finite_difference_step as finite_difference_step
    from perturb.recurrent import Recurrent as Recurrent
    from perturb.statistics import Statistics as Statistics
    from perturb.statistics import solve as solve
    from perturb.theory import predict as predict

# imported when first used: SciPy and Numba take longer to load than `perturb --help` may take
_MODULES = ("curvature", "curves", "learning")
_HOME = {
    "add_activation": "activations",
    "add_error": "losses",
    "Boltzmann": "boltzmann",
    "DAG": "dag",
    "MLP": "mlp",
    "Objective": "objective",
    "Recurrent": "recurrent",
    "CODES": "codes",
    "Code": "codes",
    "lfsr": "codes",
    "METHODS": "methods",
    "Method": "methods",
    "Statistics": "statistics",
    "best_sigma": "amplitude",
    "compare": "estimation",
    "estimate": "estimation",
    "finite_difference_hvp": "objective",
    "finite_difference_step": "objective",
    "predict": "theory",
    "solve": "statistics",
    "truncation": "amplitude",
}
__all__ = ["InputError", *_MODULES, *_HOME]


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f"perturb.{name}")
    if name in _HOME:
        return getattr(import_module(f"perturb.{_HOME[name]}"), name)
    raise AttributeError(f"module 'perturb' has no attribute {name!r}")
