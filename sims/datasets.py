"""Data sets. A new one is a function here and an entry of DATASETS; the first line of its docstring describes it to users."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from perturb.boltzmann import MAX_UNITS
from perturb.errors import InputError, choose

if TYPE_CHECKING:
    from sims.experiment import Data

Array = np.ndarray


def digits(data: "Data", n_inputs: int, n_outputs: int) -> tuple[Array, Array]:
    """Handwritten digits: 1797 real images of 8 x 8 pixels, scaled to 0..1, and 10 classes (from scikit-learn)."""
    from sklearn.datasets import load_digits

    images = load_digits()
    return draw_balanced(data, images.data / 16.0, np.eye(10)[images.target])


def xor(data: "Data", n_inputs: int, n_outputs: int) -> tuple[Array, Array]:
    """Exclusive or: 4 patterns of two inputs -1 or +1; the target is 1 where they differ, else 0."""
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    return draw_balanced(data, x, (x[:, :1] != x[:, 1:]).astype(float))


def teacher(data: "Data", n_inputs: int, n_outputs: int) -> tuple[Array, Array]:
    """Normal inputs and a random linear teacher's answers, as many of each as the network has, plus label noise.

    target = x W + noise xi, with x and xi standard normal, W normal of variance 1/n_inputs, and no bias. For the same seed, fewer
    samples are the first of more: x and xi come from generators of their own.
    """
    if data.samples is None:
        raise InputError('data.samples is missing: data.name = "teacher" makes its patterns, so say how many')
    if data.samples * (n_inputs + n_outputs) > 10**8:
        raise InputError(f"data.samples = {data.samples} patterns of {n_inputs} inputs do not fit in memory: use fewer")
    rng = np.random.Generator(np.random.Philox(data.seed))
    W = rng.standard_normal((n_inputs, n_outputs)) / np.sqrt(n_inputs)
    x = rng.standard_normal((data.samples, n_inputs))
    of_noise = np.random.Generator(np.random.Philox(np.random.SeedSequence(data.seed, spawn_key=(1,))))
    return x, x @ W + data.noise * of_noise.standard_normal((data.samples, n_outputs))


DATASETS: dict[str, Callable[["Data", int, int], tuple[Array, Array]]] = {"digits": digits, "teacher": teacher, "xor": xor}


def load_data(data: "Data", n_inputs: int, n_outputs: int) -> tuple[Array, Array]:
    """The patterns x (samples, n_inputs) and targets (samples, n_outputs) that [data] asks for.

    A network that does not fit them, or more samples than there are, raises InputError.
    """
    x, target = choose("data.name", data.name, DATASETS)(data, n_inputs, n_outputs)
    for units, wanted, what in ((n_inputs, x.shape[1], "inputs"), (n_outputs, target.shape[1], "outputs")):
        if units != wanted:
            raise InputError(
                f'the network has {units} {what} but data.name = "{data.name}" has {wanted} {what}: '
                f"give it {x.shape[1]} inputs and {target.shape[1]} outputs"
            )
    return x, target


def load_states(data: "Data", n_visible: int, values: tuple[float, float]) -> Array:
    """The patterns as visible states of a Boltzmann machine (samples, n_visible): inputs, then targets, each one of `values`."""
    x, target = choose("data.name", data.name, DATASETS)(data, n_visible, 0)
    both = np.concatenate([np.where(part > (part.min() + part.max()) / 2, values[1], values[0]) for part in (x, target)], axis=1)
    if both.shape[1] > MAX_UNITS:
        raise InputError(
            f'data.name = "{data.name}" has {both.shape[1]} inputs and targets together, too many units for a boltzmann machine '
            f"to be enumerated (limit {MAX_UNITS}): choose another, such as xor"
        )
    if both.shape[1] != n_visible:
        raise InputError(
            f'network.visible = {n_visible} but data.name = "{data.name}" has {both.shape[1]} inputs and targets together: '
            f"set network.visible = {both.shape[1]}"
        )
    return both


def draw_balanced(data: "Data", x: Array, target: Array) -> tuple[Array, Array]:
    """data.samples of the patterns, without replacement, as many of each class as can be; all of them, in order, if it is absent.

    For the same seed, fewer samples are the first of more.
    """
    if data.samples is None:
        return x, target
    if data.samples > len(x):
        raise InputError(f'data.samples = {data.samples} but data.name = "{data.name}" has only {len(x)}: ask for fewer')
    _, classes = np.unique(target, axis=0, return_inverse=True)
    order = np.random.Generator(np.random.Philox(data.seed)).permutation(len(x))
    rank = np.empty(len(x), dtype=int)  # 0 for the first drawn of its class, 1 for the second, ...
    for c in np.unique(classes):
        rank[order[classes[order] == c]] = np.arange((classes == c).sum())
    chosen = order[np.argsort(rank[order], kind="stable")][: data.samples]
    return x[chosen], target[chosen]
