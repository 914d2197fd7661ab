"""How the weights that a training ends with classify patterns."""

import numpy as np
import pandas as pd

from sims.data.classes import precision, recall
from sims.problem import Array
from sims.studies.training.task import Task

CONFUSION = ["source", "run", "patterns", "truth", "classified", "count"]
CLASSES = [
    *("source", "run", "patterns", "class", "count", "taken", "right", "recall", "precision"),
]


def confusions(name: str, W: Array, task: Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables confusion and classes of the weights of every run: how often each class was taken for
    which (the diagonal and what is not zero), and how well each was told.
    """
    names = task.classes.names
    pairs: list[tuple] = []
    each: list[tuple] = []
    for run, w in enumerate(W):
        for _, part, objective in task.parts if names else []:
            confusion = task.classes.confusion(objective, w)
            shown = (confusion > 0) | np.eye(len(confusion), dtype=bool)
            of = (name, run, part)
            pairs += [
                (*of, names[i], names[j], int(confusion[i, j])) for i, j in np.argwhere(shown)
            ]
            numbers = zip(
                names,
                confusion.sum(1).tolist(),
                confusion.sum(0).tolist(),
                np.diag(confusion).tolist(),
                recall(confusion).tolist(),
                precision(confusion).tolist(),
                strict=True,
            )
            each += [(*of, *values) for values in numbers]
    # empty tables of targets that are no classes would have columns of objects
    counts = dict.fromkeys(("run", "count"), "int64")
    more = dict.fromkeys(("taken", "right"), "int64")
    shares = dict.fromkeys(("recall", "precision"), "float64")
    return (
        pd.DataFrame(pairs, columns=CONFUSION).astype(counts),
        pd.DataFrame(each, columns=CLASSES).astype(counts | more | shares),
    )
