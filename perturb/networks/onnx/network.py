"""Networks of ONNX files: layers, and the weights that the file starts them with."""

import os

from perturb.checks import read_only_copy
from perturb.errors import InputError
from perturb.networks.layers.network import Layers
from perturb.networks.layers.part import Array
from perturb.networks.onnx.reading import called_file, read_network


class OnnxLayers(Layers):
    """The network of an ONNX file, as `Layers`, with the weights of the file, as `from_onnx` reads
    it.

    Parameters
    ----------
    file : str or path-like
        Its path.
    error : str, optional
        As of `Layers`; by default "cross_entropy" if the file ends with Softmax or LogSoftmax,
        "binary_cross_entropy" if with Sigmoid, and else "squared_error".
    sha256 : str, optional
        Of the contents that are meant, in hexadecimal, and of the files that hold its weights, if
        they are beside it; by default any will do.

    Attributes
    ----------
    w : array of shape (n,)
        The weights of the file.

    Raises
    ------
    InputError
        See `from_onnx`.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        error: str | None = None,
        sha256: str | None = None,
    ):
        found = read_network(file, error, sha256 or "")
        try:
            super().__init__(found.input_shape, found.layers, found.error)
        except InputError as problem:
            raise InputError(f"{called_file(file)}: {problem}") from None
        # read-only: whoever wrote to it would change where all others start
        self.w = read_only_copy(found.w)
        self.interface = found.interface


def from_onnx(file: str | os.PathLike[str], error: str | None = None) -> tuple[Layers, Array]:
    """A network and its weights from an ONNX file, as PyTorch and others export it.

    Parameters
    ----------
    file : str or path-like
        Its path, which ends in .onnx. Weights that it keeps in another file are read from beside
        it.
    error : str, optional
        As of `Layers`; by default "cross_entropy" if the file ends with Softmax or LogSoftmax,
        "binary_cross_entropy" if with Sigmoid, and else "squared_error".

    Returns
    -------
    network : Layers
    w : array of shape (n,)
        The weights of the file. Those of float32 are taken exactly: they are the same numbers, of
        float32, in float64.

    Raises
    ------
    InputError
        If the package onnx is missing (pip install 'perturb[onnx]'); if the file is none, is not
        whole or is of another operator set; for an operator or a setting that no layer has, a shape
        that is dynamic but for the first axis, shared weights, and weights in float16. The message
        names the node.

    Notes
    -----
    Operators: Gemm, MatMul, Add (of a bias, or of two paths), Conv over one or two axes, Relu,
    Tanh, Sigmoid, Softplus, MaxPool, AveragePool, GlobalAveragePool (or ReduceMean over all
    positions), BatchNormalization, Flatten, Reshape, Transpose, Squeeze, Unsqueeze, Identity,
    Dropout, which does nothing, and Softmax and LogSoftmax at the end. A last Softmax, LogSoftmax
    or Sigmoid is part of E and no layer. A Softplus that gives way to its input above 20, which is
    the same to 2e-9 (Greater and Where, as PyTorch exports it), is a softplus.

    The first axis of the input is that of patterns, whatever its size; outputs with more axes than
    one become rows, in C order. Batch normalisation has its statistics folded in, as y' = a y + b,
    with a = scale/sqrt(variance + epsilon) and b = B - a mean, which learn. Numbers that several
    nodes use as weights are refused; an Identity of them is a copy.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import perturb
    >>> layers = ["conv2d 4 3", "relu", "flatten", "linear 3"]
    >>> made = perturb.Layers([1, 8, 8], layers, error="cross_entropy")
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "net.onnx"
    ...     perturb.to_onnx(made, made.init(seed=0), path)
    ...     network, w = perturb.from_onnx(path, error="cross_entropy")
    >>> [str(layer) for layer in network.layers], w.size
    (['conv2d 4 3', 'relu', 'flatten', 'linear 3'], 475)
    """
    network = OnnxLayers(file, error)
    # a copy that may be written to
    return network, network.w.copy()
