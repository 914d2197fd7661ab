"""Data sets. A new one is a function here and an entry of DATASETS; the first paragraph of its
docstring describes it to users.

A function (data, n_inputs, n_outputs, count) gives patterns x and targets, a row each: of those
that need data.samples the first `count` of a sequence that has no end, of the others all
that there are, in their own order. A third value, if there is one, says how many of the last rows
are to test with and not to learn from. Inputs that are bytes (uint8) are pixels, which become 0 to
1. `sims.data.load_split` draws from them, holds patterns back and standardises.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from pydantic import model_validator

from perturb.errors import InputError, choose, shown
from sims.data.files import read_patterns
from sims.data.images import CIFAR10, label_names, read_cifar10, read_idx
from sims.data.mnist1d import DIGITS, INPUTS, LENGTH, signals
from sims.data.scikit_learn import classified
from sims.data.table import Keys

Array = np.ndarray

MAX_NUMBERS = 10**8  # in the patterns that are made
MAX_PATTERNS = 1000  # of the fixed-point task


class Data(Keys):
    """Which patterns; which keys there are depends on the data set, see DATASETS."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """Keys that the data set has and the file leaves out get their values."""
        if not isinstance(data, dict):
            return data
        name = data.get("name")
        keys = DATASETS[name].keys if isinstance(name, str) and name in DATASETS else {}
        return {
            # neither None, which must be given, nor ..., which may be absent, is a value
            **{key: value for key, value in keys.items() if value is not ... and value is not None},
            **data,
        }

    @model_validator(mode="after")
    def _check(self) -> "Data":
        # what equals its default counts as left out
        keys = choose("name", self.name, DATASETS).keys
        for key, value in self.model_dump(exclude_defaults=True).items():
            if key not in keys and key not in ("name", "samples", "seed"):
                others = ", ".join(
                    name for name, dataset in DATASETS.items() if key in dataset.keys
                )
                raise InputError(
                    f'{key} = {shown(value)} does not go with name = "{self.name}", only with'
                    f" {others}: remove it"
                )
        for key, value in keys.items():
            if value is None and getattr(self, key) is None:
                (example,) = type(self).model_fields[key].examples or [...]
                raise InputError(
                    f'{key} is missing: name = "{self.name}" needs it, such as'
                    f" {key} = {shown(example)}"
                )
        return self


def xor(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Exclusive or: 4 patterns of two inputs -1 or +1; the target is 1 where they differ, else
    0.
    """
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    return x, (x[:, :1] != x[:, 1:]).astype(float)


def parity(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Parity of data.bits inputs -1 or +1, all 2^bits patterns; the target is 1 where the number
    of +1 is odd, else 0.
    """
    assert data.bits is not None
    # the binary digits of 0, 1, ..., 2^bits - 1, highest first
    ones = np.arange(2**data.bits)[:, None] >> np.arange(data.bits)[::-1] & 1
    return 2.0 * ones - 1, ones.sum(1, keepdims=True) % 2.0


LETTERS = """
#.....#  .#####.  .#####.  #######
##....#  ...#...  #.....#  ...#...
#.#...#  ...#...  #......  ...#...
#..#..#  ...#...  .#####.  ...#...
#...#.#  ...#...  ......#  ...#...
#....##  ...#...  #.....#  ...#...
#.....#  .#####.  .#####.  ...#...
"""


def letters(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Letters N, I, S, T of 7 x 7 pixels, -1 or +1 (ink), each pixel flipped with probability
    data.noise; 4 classes in turn.
    """
    if data.noise > 0.5:
        raise InputError(
            f"data.noise = {data.noise} is the probability that a pixel is flipped: at most 0.5,"
            " which leaves no letter"
        )
    _check_memory(data, count, 49)
    rows = [line.split() for line in LETTERS.split("\n") if line]
    ink = np.array([[pixel == "#" for row in rows for pixel in row[letter]] for letter in range(4)])
    # uniform numbers in order: fewer patterns are the first of more
    flipped = _stream(data).random((count, 49)) < data.noise
    # in turn, so that every class has as many as can be
    which = np.arange(count) % 4
    return np.where(ink[which] ^ flipped, 1.0, -1.0), np.eye(4)[which]


def digits(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Handwritten digits: 1797 real images of 8 x 8 pixels, scaled to 0..1, and 10 classes (from
    scikit-learn).
    """
    x, target = _classes("digits")
    # a pixel counts how much of its 4 x 4 field of the scan was ink
    return x / 16.0, target


def iris(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Iris flowers: 150 real ones by 4 measures, standardised, and 3 species (from
    scikit-learn).
    """
    return _classes("iris")


def wine(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Wines: 178 real ones by 13 chemical measures, standardised, and 3 growers (from
    scikit-learn).
    """
    return _classes("wine")


def breast_cancer(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Breast cancer: 569 real tumours by 30 measures, standardised, and 2 classes, malignant and
    benign (from scikit-learn).
    """
    return _classes("breast_cancer")


def diabetes(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Diabetes: 442 real patients by 10 measures; the target is how far it went in a year, a
    number; all standardised.
    """
    from sklearn.datasets import load_diabetes

    # not scaled: scikit-learn scales by all patients, also by those that are held back
    x, progress = load_diabetes(return_X_y=True, scaled=False)
    return x, progress[:, None]


def spirals(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Two spirals of data.turns turns in the plane, radius 1, plus normal noise of standard
    deviation data.noise; the target is 0 or 1.

    Points of both in turn: x = s (cos a, sin a), a = 2 pi turns s, for target 1 turned by pi; s is
    the root of a uniform number, so that they lie about evenly along a spiral. After Lang and
    Witbrock (1988), whose spirals have 3 turns.
    """
    assert data.turns is not None
    _check_memory(data, count, 3)
    target = np.arange(count) % 2.0
    # points in a disc that is filled evenly have this radius
    s = np.sqrt(_stream(data).random(count))
    a = 2 * np.pi * data.turns * s + np.pi * target
    x = s[:, None] * np.column_stack([np.cos(a), np.sin(a)])
    return x + data.noise * _stream(data, 1).standard_normal((count, 2)), target[:, None]


def mnist1d(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """MNIST-1D: signals of 40 numbers, one of 10 curves each, moved, distorted and noisy, made by
    its published formulas.

    Classes in turn; 4000 samples and 1000 to test with are as many as were published. Mean and
    standard deviation are 0 and 1 over all signals that can come. data.shuffled is the control of
    the publication (Greydanus and Kobak 2024).
    """
    _check_memory(data, count, 2 * LENGTH)
    which = np.arange(count) % DIGITS
    # pattern by pattern, from streams of their own: fewer are the first of more
    noise = _stream(data, 1).standard_normal((count, 2, LENGTH))
    x = signals(which, _stream(data).random((count, 4)), noise)
    if data.shuffled:
        x = x[:, _stream(data, 2).permutation(INPUTS)]
    return x, np.eye(DIGITS)[which]


def teacher(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Normal inputs and a random linear teacher's answers, as many of each as the network has, plus
    label noise.

    target = x W + noise xi, with x and xi standard normal, W normal of variance 1/n_inputs, and no
    bias.
    """
    _check_memory(data, count, n_inputs + n_outputs)
    rng = _stream(data)
    # the teacher first: it is the same however many patterns are drawn
    W = rng.standard_normal((n_inputs, n_outputs)) / np.sqrt(n_inputs)
    x = rng.standard_normal((count, n_inputs))
    return x, x @ W + data.noise * _stream(data, 1).standard_normal((count, n_outputs))


def patterns(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """A few random patterns -1 or +1, all different, and the fixed point wanted of each: outputs
    -a or +a, a = data.amplitude.
    """
    if count > min(2**n_inputs, MAX_PATTERNS):
        most = (
            f"{2**n_inputs} different ones of {n_inputs} inputs"
            if n_inputs < 10
            else f"{MAX_PATTERNS}"
        )
        raise InputError(
            f'data.samples = {count} but data.name = "patterns" makes at most {most}: ask for fewer'
        )
    assert data.amplitude is not None
    rng = _stream(data)
    found = dict[tuple[int, ...], None]()
    # all different: a dict keeps them in the order in which they came
    while len(found) < count:
        found[tuple(rng.integers(0, 2, n_inputs).tolist())] = None
    # a stream of its own: how long the search for different patterns took does not matter
    wanted = _stream(data, 1).integers(0, 2, (count, n_outputs))
    return 2.0 * np.array(list(found)) - 1, data.amplitude * (2.0 * wanted - 1)


def bars(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Bars and stripes, data.side x data.side pixels whose rows, or columns, are all -1 or all +1;
    for a boltzmann machine.

    2^(side + 1) - 2 different states, each once, and no targets: a distribution to learn.
    """
    assert data.side is not None
    side = data.side
    # as in `parity`: the binary digits of every number
    lines = 2.0 * (np.arange(2**side)[:, None] >> np.arange(side)[::-1] & 1) - 1
    stripes = np.repeat(lines, side, axis=1)
    upright = np.tile(lines, side)
    # none and all are both
    return np.concatenate([stripes, upright[1:-1]]), np.empty((2 ** (side + 1) - 2, 0))


def idx(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array, int]:
    """Your MNIST, Fashion-MNIST or other IDX files, data.images and data.labels; pixels scaled to
    0..1, an output for each label.
    """
    assert data.images is not None and data.labels is not None
    tests = None
    if data.test_images is not None and data.test_labels is not None:
        tests = data.test_images, data.test_labels
    elif data.test_images is not None or data.test_labels is not None:
        there, missing = ("images", "labels") if data.test_images else ("labels", "images")
        raise InputError(
            f"data.test_{missing} is missing, but data.test_{there} is given: give both, or none"
        )
    return read_idx(data.images, data.labels, tests, data.sha256 or "")


def cifar10(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array, int]:
    """Your CIFAR-10, data.batches of its binary version: images of 3 x 32 x 32 pixels, scaled to
    0..1, and 10 classes.
    """
    assert data.batches is not None
    return read_cifar10(data.batches, data.test_batches or (), data.sha256 or "")


def file(data: Data, n_inputs: int, n_outputs: int, count: int) -> tuple[Array, Array]:
    """Your own, data.file = a CSV or Parquet file (data.targets says which columns are targets)
    or NPZ (arrays x and target).
    """
    return _read(data)[:2]


def _read(data: Data) -> tuple[Array, Array, tuple[str, ...]]:
    assert data.file is not None
    return read_patterns(data.file, data.targets, data.sha256 or "", data.ignore)


def _named(name: str) -> Callable[[Data], tuple[str, ...]]:
    return lambda data: classified(name)[2]


class Dataset(NamedTuple):
    """keys: those of [data] that it takes beside name, samples and seed, and their values if left
    out; None must be given, ... may be absent. A data set that needs its samples makes them.
    names: of its classes, in the order of the outputs; () where it has none.
    """

    make: Callable[[Data, int, int, int], tuple[Array, Array] | tuple[Array, Array, int]]
    keys: dict[str, Any] = {}
    names: Callable[[Data], tuple[str, ...]] = lambda data: ()


# keys of sets of a given number of patterns, an output for each class
CLASSIFIED: dict[str, Any] = {
    "test": 0,
    "validation": 0,
    "balanced": False,
    "class_weight": ...,
}
DATASETS: dict[str, Dataset] = {
    "xor": Dataset(xor),
    "parity": Dataset(parity, {"bits": 4}),
    "letters": Dataset(
        letters,
        {"samples": None, "noise": 0.05, "test": 0, "validation": 0, "class_weight": ...},
        # in the order in which LETTERS stand side by side
        lambda data: tuple("NIST"),
    ),
    "digits": Dataset(digits, CLASSIFIED, _named("digits")),
    "iris": Dataset(iris, {**CLASSIFIED, "standardise": True}, _named("iris")),
    "wine": Dataset(wine, {**CLASSIFIED, "standardise": True}, _named("wine")),
    "breast-cancer": Dataset(
        breast_cancer, {**CLASSIFIED, "standardise": True}, _named("breast_cancer")
    ),
    "diabetes": Dataset(diabetes, {"test": 0, "validation": 0, "standardise": True}),
    "spirals": Dataset(
        spirals, {"samples": None, "noise": 0.0, "turns": 1.5, "test": 0, "validation": 0}
    ),
    "mnist1d": Dataset(
        mnist1d,
        {"samples": None, "shuffled": False, "test": 0, "validation": 0, "class_weight": ...},
    ),
    "teacher": Dataset(teacher, {"samples": None, "noise": 0.0, "test": 0, "validation": 0}),
    "patterns": Dataset(patterns, {"samples": None, "amplitude": 0.5}),
    "bars": Dataset(bars, {"side": 3}),
    "idx": Dataset(
        idx,
        {
            "images": None,
            "labels": None,
            "test_images": ...,
            "test_labels": ...,
            "sha256": ...,
            **CLASSIFIED,
            "standardise": False,
        },
        lambda data: label_names(data.labels or ""),
    ),
    "cifar10": Dataset(
        cifar10,
        {
            "batches": None,
            "test_batches": ...,
            "sha256": ...,
            **CLASSIFIED,
            "standardise": False,
        },
        lambda data: CIFAR10,
    ),
    "file": Dataset(
        file,
        {
            "file": None,
            "sha256": ...,
            "targets": ...,
            "ignore": (),
            **CLASSIFIED,
            "standardise": False,
        },
        lambda data: _read(data)[2],
    ),
}


def _stream(data: Data, number: int = 0) -> np.random.Generator:
    """The generators of a data set: what comes from one of its own does not depend on how much
    came from another.
    """
    return np.random.Generator(
        # of stream 0 no key: the plain seed
        np.random.Philox(np.random.SeedSequence(data.seed, spawn_key=(number,) if number else ()))
    )


def _check_memory(data: Data, count: int, numbers: int) -> None:
    if count * numbers > MAX_NUMBERS:
        raise InputError(
            f"data.samples = {data.samples}: {count} patterns with those held back do not fit in"
            " memory: use fewer"
        )


def _classes(name: str) -> tuple[Array, Array]:
    x, labels, names = classified(name)
    # one-hot, (patterns, classes)
    return x, np.eye(len(names))[labels]
