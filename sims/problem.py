"""What every study starts from: the network, its objective on the data, the point w and the
direction v.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from perturb.errors import InputError
from perturb.networks.losses import NEEDS_LINEAR_OUTPUT
from perturb.networks.network import Network
from perturb.networks.objective import Objective
from perturb.networks.onnx.network import OnnxLayers
from perturb.theory.quadratic import Curvature, curvatures
from reports.studies.facts import FACTS
from sims.data.classes import Classes, class_weights, weighted_targets
from sims.data.loading import Parts, class_names, load_parts, load_states
from sims.data.starts import read_starts
from sims.experiment.network import KINDS
from sims.experiment.schema import Setup

Array = np.ndarray
Tables = dict[str, pd.DataFrame]
Progress = Callable[[str, int, int], None]  # (what, done, in all)
ShouldStop = Callable[[], bool]
# what a study is: it yields each table when it is finished, or again when it has more rows;
# "summary" is among them
Study = Iterator[tuple[str, pd.DataFrame]]


class Stopped(Exception):
    """Raised within a study that was asked to stop; what it has yielded counts."""


def raise_if_stopped(should_stop: ShouldStop) -> None:
    """Stopped, if so."""
    if should_stop():
        raise Stopped


class Interruptible(Objective):
    """An objective that asks `should_stop` before everything it computes, so that long work on
    it ends soon, by Stopped.
    """

    def __init__(self, objective: Objective, should_stop: ShouldStop):
        # what others ask of the network is answered by the plain one; only computing is watched
        self._plain = objective
        self._should_stop = should_stop
        self.n_weights = objective.n_weights
        self.n_patterns = objective.n_patterns
        self.depth = objective.depth
        self.inexact = objective.inexact
        self.symmetric = objective.symmetric

    def weight_layers(self) -> Array:
        return self._plain.weight_layers()

    def subset(self, rows: Array) -> "Interruptible":
        # a part of the patterns is watched as well
        return Interruptible(self._plain.subset(rows), self._should_stop)

    def pattern_errors(self, w: Array) -> Array:
        raise_if_stopped(self._should_stop)
        return self._plain.pattern_errors(w)

    def errors_at(self, points: Array) -> Array:
        raise_if_stopped(self._should_stop)
        return self._plain.errors_at(points)

    def gradient(self, w: Array) -> Array:
        raise_if_stopped(self._should_stop)
        return self._plain.gradient(w)

    def hvp(self, w: Array, v: Array) -> Array:
        raise_if_stopped(self._should_stop)
        return self._plain.hvp(w, v)

    def gauss_newton_product(self, w: Array, v: Array) -> Array:
        raise_if_stopped(self._should_stop)
        return self._plain.gauss_newton_product(w, v)

    def _block(self, w: Array, V: Array) -> tuple[float, Array, Array]:
        raise_if_stopped(self._should_stop)
        return self._plain.error_gradient_hvp(w, V)


@dataclass(frozen=True)
class Problem:
    """The network, its objective, weights w (n,) and direction v (n,). parts: the data, those held
    back too, as they were loaded; None of states. scratch: how files beside
    the results begin that store what was done of long work; None stores nothing. known: curvatures
    by presentation, as far as they were asked for. say: tells the user a line at once, such as how
    long the work will take. summary_only: whether no other table is looked at.
    """

    network: Network
    objective: Objective
    w: Array
    v: Array
    parts: Parts | None = field(default=None, repr=False)
    scratch: Path | None = None
    say: Callable[[str], object] = lambda line: None
    known: dict[str, list[Curvature]] = field(default_factory=dict, repr=False)
    summary_only: bool = False

    def curvatures(self, presentation: str) -> list[Curvature]:
        """Those of `perturb.theory.quadratic.curvatures`, computed once and kept in `known`."""
        if presentation not in self.known:
            self.known[presentation] = curvatures(self.objective, self.w, self.v, presentation)
        return self.known[presentation]


def prepare(experiment: Setup) -> Problem:
    """Network, data, warmed-up weights and direction of an experiment. InputError if they do not
    fit or diverge.
    """
    network = experiment.network.build()
    # the targets of no other error multiply it
    if experiment.data.class_weight is not None and network.error != "cross_entropy":
        raise InputError(
            f'data.class_weight is for network.error = "cross_entropy", not "{network.error}": set'
            " that, with an output for each class, or remove class_weight"
        )
    objective: Objective
    parts = None
    if KINDS[experiment.network.kind].states:
        values = experiment.network.values
        assert values is not None  # such a kind has the key
        states = load_states(experiment.data, network.n_outputs, values)
        objective = network.objective(states)
    else:
        parts = load_parts(experiment.data, network.n_inputs, network.n_outputs)
        target = parts.target
        # cross-entropies take targets as probabilities
        if network.error in NEEDS_LINEAR_OUTPUT and not ((target >= 0) & (target <= 1)).all():
            raise InputError(
                f'network.error = "{network.error}" does not go with data.name ='
                f' "{experiment.data.name}", whose targets are any numbers: set network.error ='
                ' "squared_error"'
            )
        objective = network.objective(parts.x, targets_in_error(experiment, target)[0])
    w = warmed_up(starts_of(network, experiment)[0], objective, experiment)
    # after the warm-up: v belongs to the point w
    if experiment.direction.kind == "gradient":
        v = objective.gradient(w)
        if not v.any():
            raise InputError(
                'direction.kind = "gradient" but the gradient is zero there: use "random" or fewer'
                " warm-up updates"
            )
    else:
        v = np.random.Generator(np.random.Philox(experiment.direction_seed())).standard_normal(
            w.size
        )
    if experiment.direction.norm is not None:
        # a random v is zero with probability zero; a zero gradient was refused above
        v *= experiment.direction.norm / np.linalg.norm(v)
    return Problem(network, objective, w, v, parts)


def targets_in_error(experiment: Setup, learned: Array, *more: Array) -> list[Array]:
    """Targets of patterns as E takes them: with the weights of their classes, data.class_weight.

    learned: of the patterns learned from, which say what is balanced; more: of further ones, whose
    E has the same weights.
    """
    chosen = experiment.data.class_weight
    if chosen is None:
        return [learned, *more]
    classes = Classes.of(learned, "cross_entropy", class_names(experiment.data))
    if not classes.names:
        raise InputError(
            "data.class_weight needs classes, but the targets are numbers: remove it, or name a"
            " column of classes by data.targets"
        )
    weights = class_weights(chosen, learned, classes.names)
    return [weighted_targets(part, weights) if len(part) else part for part in (learned, *more)]


def starts_of(network: Network, experiment: Setup, runs: int = 1) -> list[Array]:
    """The starting weights of each run, before any warm-up: from a file, or random."""
    weights = experiment.weights
    if isinstance(network, OnnxLayers) and experiment.starts_from_network:
        return [network.w.copy() for _ in range(runs)]
    if weights.file is None:
        # a start of its own for every run, the first with the seed itself
        seeds = [experiment.seeds_of(run)["start_seed"] for run in range(runs)]
        return [network.init(seed) for seed in seeds]
    starts = read_starts(weights.file, weights.sha256 or "", weights.source)
    return [starts.of(run, weights.run, network.n_weights) for run in range(runs)]


def warmed_up(w: Array, objective: Objective, experiment: Setup) -> Array:
    """Starting weights after the warm-up, which changes them in place."""
    weights = experiment.weights
    # a warm-up that diverges ends in one line, not in NumPy's warnings
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(weights.warmup_updates):
            w -= weights.warmup_rate * objective.gradient(w)
            if not np.isfinite(w).all():
                raise InputError(
                    f"weights.warmup_rate = {weights.warmup_rate} makes the warm-up diverge:"
                    " lower it"
                )
        if not np.isfinite(objective.error(w)):
            if not weights.warmup_updates:
                raise InputError(
                    "E is not finite at the starting weights: start from others, by weights.file or"
                    " weights.seed"
                )
            raise InputError(
                f"weights.warmup_rate = {weights.warmup_rate} makes the warm-up diverge: lower it"
            )
    return w


class Fact(NamedTuple):
    """One number that a study found out: a row of its summary, see `reports.studies.facts`. stderr:
    0 for what is exact to rounding, NaN where it is not known; low, high: ends of its 95 %
    interval, if it has one of its own.
    """

    measure: str
    value: float
    meaning: str
    subject: str = ""
    unit: str = ""
    stderr: float = 0.0
    low: float = math.nan
    high: float = math.nan


def facts(rows: Iterable[Fact]) -> pd.DataFrame:
    """The summary of a study that finds out facts."""
    # integers among the values would make a column that changes its type from run to run
    numbers = ("value", "stderr", "low", "high")
    # in the order of the schema; an empty list of facts still has its columns
    return pd.DataFrame(list(rows), columns=list(Fact._fields))[list(FACTS)].astype(
        dict.fromkeys(numbers, float)
    )
