"""Real data that come with scikit-learn, read from its files: to import it takes longer than all
else that a short run does.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

Array = np.ndarray

FILES = {
    "digits": "digits.csv.gz",
    "iris": "iris.csv",
    "wine": "wine_data.csv",
    "breast_cancer": "breast_cancer.csv",
}


def classified(name: str) -> tuple[Array, Array, tuple[str, ...]]:
    """Patterns, a row each, the number of the class of each, and the names of the classes."""
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    file = Path(package.origin).parent / "datasets" / "data" / FILES[name]
    if not file.exists():
        return _loaded(name)
    # the digits have no line of numbers of rows and columns, and names of classes
    headed = file.suffix == ".csv"
    table = np.loadtxt(file, delimiter=",", skiprows=int(headed))
    labels = table[:, -1].astype(int)
    if not headed:
        return table[:, :-1], labels, tuple(str(label) for label in range(labels.max() + 1))
    with file.open(encoding="utf-8") as lines:
        _, _, *names = next(lines).strip().split(",")
    return table[:, :-1], labels, tuple(names)


def _loaded(name: str) -> tuple[Array, Array, tuple[str, ...]]:
    """By scikit-learn itself, of a version that keeps its files elsewhere."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    return found.data, found.target, tuple(str(called) for called in found.target_names)
