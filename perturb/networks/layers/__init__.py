"""Networks of layers: convolutions, pooling, residual sums."""

from perturb.networks.layers.layer import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv1d,
    Conv2d,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Reshape,
    Residual,
    Transpose,
)

__all__ = [
    "Activation",
    "AveragePool",
    "BatchNorm",
    "Conv1d",
    "Conv2d",
    "Flatten",
    "GlobalAveragePool",
    "Layer",
    "Linear",
    "MaxPool",
    "Reshape",
    "Residual",
    "Transpose",
]
