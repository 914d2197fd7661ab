"""What to expect: of estimates, of amplitudes, of learning."""

from importlib import import_module

__all__ = [
    "amplitude",
    "comparison",
    "estimates",
    "imperfections",
    "learning_curves",
    "limits",
    "perceptron",
    "predictions",
    "quadratic",
    "rounding",
    "second_moments",
    "variances",
]


def __getattr__(name: str):
    if name in __all__:
        return import_module(f"perturb.theory.{name}")
    raise AttributeError(f"module 'perturb.theory' has no attribute {name!r}")
