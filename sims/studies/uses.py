"""The study "uses": what Hessian-vector products are good for, on one network - optimisation,
convergence, evidence, pruning.

Everything is about E + alpha |w|^2 / 2, whose minimum exists; "at the minimum" is where the best
optimiser ended, polished by Newton's method. A gradient costs 1, an Hv 1 and an error alone 1/3, in
gradient-equivalents.
"""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from hardware.config import Positive, Table
from perturb import curvature
from perturb.errors import InputError
from perturb.networks.layers.network import Layers
from perturb.networks.objective import Objective
from sims.data.classes import Classes, accuracy
from sims.data.loading import load_split
from sims.experiment.network import KINDS
from sims.experiment.schema import Setup
from sims.problem import (
    Array,
    Fact,
    Interruptible,
    Problem,
    Progress,
    ShouldStop,
    Study,
    facts,
    raise_if_stopped,
    targets_in_error,
)
from sims.studies.optimisers import OPTIMISERS, descent, lowest, polished
from sims.studies.spectrum import blocks

MAX_WEIGHTS = 3000  # the whole spectrum is wanted
MODES = 10
EVIDENCE = "largest evidence"  # the weight decay that has it
# |g| above which a point is no minimum, in units of lambda_max |w|: H(w - w*) of so large a step
STEEP = 1e-6
# of the decay: where it barely outweighs a negative eigenvalue, evidence (a Gaussian around w)
# means nothing
CLEARLY = 0.03
SHARES = np.r_[np.linspace(0.0, 0.9, 19), 0.95]  # of the weights removed

# where E has kinks a minimum need not have g = 0: what to do about it
KINKS = {
    "relu": "; kinks of relu are a reason: use another activation",
    "maxpool": "; kinks of maxpool are a reason: use averagepool",
}

Decays = Annotated[tuple[Positive, ...], Field(strict=False, min_length=1, max_length=100)]


class Uses(Table):
    """Of the study "uses"."""

    decay: Positive = Field(
        1e-3,
        description=(
            "weight decay alpha: E + alpha |w|^2 / 2 is minimised, so that there is a minimum"
        ),
    )
    decays: Decays = Field(
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), description="weight decays whose evidence is compared"
    )
    test_samples: int = Field(
        200,
        ge=1,
        le=10**8,
        description="further patterns, held back to test with, if data.test = 0",
    )
    budget: int = Field(
        1000, ge=10, le=10**7, description="gradient-equivalents that each optimiser may spend"
    )


class Split(NamedTuple):
    """An objective on the patterns to learn from, one on those held back, and the share of them
    that w classifies rightly.
    """

    train: Objective
    test: Objective
    accuracy: Callable[[Array], float]


def uses(experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop) -> Study:
    """Tables optimisation, eigenvalues, layers (of more than one), modes, evidence, pruning and,
    grown by each, summary; see `reports.frames`.

    More than 3,000 weights, or a point that is no minimum in the end, raise InputError.
    """
    options = experiment.options(Uses)
    w = problem.w
    if w.size > MAX_WEIGHTS:
        raise InputError(
            f'network has {w.size} weights, but study = "uses" diagonalises H: use at most'
            f" {MAX_WEIGHTS}"
        )
    # data of its own: part of it is held back
    split = _split(experiment, problem, should_stop)
    objective = split.train.with_decay(options.decay)
    found: list[Fact] = []

    rows: list[tuple] = []
    for name in OPTIMISERS:
        rows += [(name, *row) for row in descent(name, objective, w, options.budget)]
        found.append(
            Fact(
                "error",
                # the lowest E so far, as `descent` keeps it
                rows[-1][2],
                f"E with its decay after {options.budget} gradient-equivalents",
                name,
            )
        )
        yield (
            "optimisation",
            pd.DataFrame(rows, columns=["optimiser", "cost", "error", "gradient_norm"]),
        )
        yield "summary", facts(found)
    progress("parts", 1, 4)

    # the best of the optimisers, and then Newton's method to rounding
    minimum = polished(objective, lowest(objective, w, options.budget))
    H = objective.hessian(minimum)
    values, vectors = np.linalg.eigh(H)
    yield "eigenvalues", pd.DataFrame({"eigenvalue": values, "weight": 1 / w.size, "exact": True})
    layers = objective.weight_layers()
    if len(np.unique(layers)) > 1:
        yield from (("layers", table) for table in blocks(H, layers))
    found += _facts_of_minimum(problem, objective, minimum, values, vectors[:, -1])
    yield "modes", time_constants(objective, minimum, values, vectors)
    yield "summary", facts(found)
    progress("parts", 2, 4)

    # each decay has a minimum of its own
    tried = []
    for alpha in options.decays:
        # from the same start, so that decays differ in nothing else
        tried.append(evidence(split, w, alpha, options.budget))
        yield "evidence", pd.DataFrame(tried)
    found += _facts_of_evidence(tried, w.size)
    yield "summary", facts(found)
    progress("parts", 3, 4)

    shown: list[tuple] = []
    for some in prune(split, objective, minimum, should_stop):
        shown += some
        yield (
            "pruning",
            pd.DataFrame(
                shown, columns=["method", "removed", "train_error", "test_error", "test_accuracy"]
            ),
        )
    correlation = obd_against_truth(objective, minimum)
    says = "rank correlation of saliencies with what removing one weight costs"
    found.append(Fact("rank_correlation", correlation, says, "OBD"))
    yield "summary", facts(found)
    progress("parts", 4, 4)


def _facts_of_minimum(
    problem: Problem, objective: Objective, minimum: Array, values: Array, last: Array
) -> list[Fact]:
    """InputError if the point is no minimum. last: the eigenvector of the largest of `values`."""
    # values ascend, as eigh gives them
    top = float(values[-1])
    low = float(values[0])
    slope = float(np.linalg.norm(objective.gradient(minimum)))
    # everything below assumes a minimum: time constants, evidence, saliencies
    if low <= 0 or slope > STEEP * top * float(np.linalg.norm(minimum)):
        raise InputError(
            f"uses: no minimum found (|g| = {slope:.1e}, smallest eigenvalue {low:.1e}): raise"
            f" uses.decay or uses.budget{''.join(KINKS[name] for name in _kinks(problem))}"
        )
    # |1 - eta lambda| = 1.02 and 0.98 at 1.01 and 0.99 times 2/lambda
    above, below = (growth(objective, minimum, last, times * 2 / top) for times in (1.01, 0.99))
    return [
        Fact("gradient_at_minimum", slope, "|g|, zero but for rounding"),
        Fact(
            "condition_number",
            top / low,
            "lambda_max / lambda_min: how much slower than the fastest the slowest mode is",
        ),
        Fact("stable_learning_rate", 2 / top, "2 / lambda_max: gradient descent diverges above it"),
        Fact(
            "growth_above",
            above,
            "factor per update, measured at 1.01 times that rate; theory 1.02",
        ),
        Fact("growth_below", below, "the same at 0.99 times that rate; theory 0.98"),
    ]


def _facts_of_evidence(tried: list[dict[str, float]], n: int) -> list[Fact]:
    """Of the weight decay of largest evidence, for n weights; none where no decay has any."""
    ranked = [row for row in tried if np.isfinite(row["log_evidence"])]
    if not ranked:
        return []
    best = max(ranked, key=lambda row: row["log_evidence"])
    # over all decays, those without evidence too: what evidence is judged by
    smallest = min(row["test_error"] for row in tried)
    return [
        Fact(
            "decay",
            best["decay"],
            "the weight decay of largest evidence, of those compared at a minimum",
            EVIDENCE,
        ),
        Fact(
            "test_error",
            best["test_error"],
            f"of a held-back pattern; the smallest of all is {smallest:.3g}",
            EVIDENCE,
        ),
        Fact(
            "gamma",
            best["gamma"],
            f"well-determined parameters, of {n} (MacKay 1992)",
            EVIDENCE,
        ),
        Fact(
            "negative_eigenvalues",
            best["negative"],
            "of H without decay: directions that only the decay holds",
            EVIDENCE,
        ),
    ]


def _kinks(problem: Problem) -> list[str]:
    """What of a network has a kink, at which there need be no minimum with g = 0: by the names that
    a user wrote.
    """
    net = problem.network
    written = net.layers if isinstance(net, Layers) else getattr(net, "activations", ())
    # those of paths that are added up stand in the text of their sum
    words = {word for part in written for word in re.findall("[a-z]+", str(part))}
    return [name for name in KINKS if name in words]


def _split(experiment: Setup, problem: Problem, should_stop: ShouldStop) -> Split:
    network = problem.network
    data = experiment.data
    n = problem.objective.n_patterns
    if KINDS[experiment.network.kind].states:
        raise InputError(
            f'network.kind = "{experiment.network.kind}" has no patterns to hold back for'
            ' study = "uses": choose another kind'
        )
    # the key that a message is to name
    key, wanted = (
        ("data.test", data.test)
        if data.test
        else ("uses.test_samples", experiment.options(Uses).test_samples)
    )
    # as many patterns to learn from as without a split
    data = data.model_copy(update={"samples": n, "test": wanted})
    x, target, x_test, target_test = load_split(data, network.n_inputs, network.n_outputs, key)
    in_error, test_in_error = targets_in_error(experiment, target, target_test)
    train = network.objective(x, in_error)
    test = network.objective(x_test, test_in_error)
    found = Classes.of(target_test, network.error)

    def share(w: Array) -> float:
        # targets that are any numbers
        return accuracy(found.confusion(test, w)) if found.names else float("nan")

    return Split(Interruptible(train, should_stop), Interruptible(test, should_stop), share)


def time_constants(
    objective: Objective, minimum: Array, values: Array, vectors: Array
) -> pd.DataFrame:
    """Of MODES eigenvalues (all positive) from the largest to the smallest: updates to 1/e, -1/ln(1
    - eta lambda) at eta = 1/(2 lambda_max), and what a simulated descent takes that starts
    displaced along the eigenvector.
    """
    # a fourth of what is stable: every mode falls without changing its sign
    rate = 0.5 / values[-1]
    rows = []
    # the nearest eigenvalue to each, in the logarithm, and none twice
    wanted = np.geomspace(values[-1], values[0], MODES)
    for index in dict.fromkeys(int(np.abs(np.log(values / value)).argmin()) for value in wanted):
        predicted = -1 / np.log1p(-rate * values[index])
        # small against the weights, so that E is quadratic along the way; 1 if all are 0
        start = 1e-4 * (float(np.abs(minimum).max()) or 1.0)
        w = minimum + start * vectors[:, index]
        # slow modes are followed for a part of their time constant only
        updates = int(np.clip(round(predicted), 2, 500))
        for _ in range(updates):
            w = w - rate * objective.gradient(w)
        # the share of the displacement that is left; e^-1 of it after the time constant
        left = float(vectors[:, index] @ (w - minimum)) / start
        rows.append(
            (values[index], predicted, -updates / np.log(left) if 0 < left < 1 else np.nan, updates)
        )
    return pd.DataFrame(
        rows, columns=["eigenvalue", "predicted_updates", "measured_updates", "simulated_updates"]
    )


def growth(
    objective: Objective, minimum: Array, vector: Array, rate: float, updates: int = 100
) -> float:
    """Factor per update by which a small displacement along an eigenvector grows under gradient
    descent.
    """
    # smaller than for the modes: above the stable rate it grows
    start = 1e-6 * (float(np.abs(minimum).max()) or 1.0)
    w = minimum + start * vector
    for _ in range(updates):
        w = w - rate * objective.gradient(w)
    return float(abs(vector @ (w - minimum)) / start) ** (1 / updates)


def evidence(split: Split, w: Array, alpha: float, budget: float) -> dict[str, float]:
    """MacKay's evidence (1992) for a weight decay: ln P(D | alpha) = -S (E + alpha |w|^2/2) - (1/2)
    sum ln((l_i + alpha)/alpha), with l_i the eigenvalues of H without decay and E read as -ln P of
    a pattern; gamma = sum l_i / (l_i + alpha).

    All of it assumes a minimum, H + alpha clearly positive: where none was found, what depends on
    one is NaN.
    """
    objective = split.train.with_decay(alpha)
    S = split.train.n_patterns
    at = polished(objective, lowest(objective, w, budget))
    # l_i, without the decay
    # the decay is added as a number below: it shifts all eigenvalues alike
    values = np.linalg.eigvalsh(split.train.hessian(at))
    row = {
        "decay": alpha,
        "train_error": split.train.error(at),
        "test_error": split.test.error(at),
        "test_accuracy": split.accuracy(at),
        "gradient_norm": float(np.linalg.norm(objective.gradient(at))),
        "gamma": np.nan,
        "negative": float((values < -1e-10 * np.abs(values).max()).sum()),
        "lowest_eigenvalue": float(values[0]),
        "log_determinant": np.nan,
        "lanczos_log_determinant": np.nan,
        "lanczos_stderr": np.nan,
        "log_evidence": np.nan,
        "next_decay": np.nan,
    }
    if values[0] + alpha > CLEARLY * alpha and row["gradient_norm"] <= STEEP * (
        values[-1] + alpha
    ) * np.linalg.norm(at):
        steps = min(80, w.size)
        # of H + alpha: `objective` has the decay, split.train has none
        density = curvature.spectral_density(objective, at, probes=8, steps=steps)
        # the log-determinant as a network too large to diagonalise has it
        lanczos = density.integrate(lambda x: np.log(np.maximum(x, 1e-300)))
        row["gamma"] = float((values / (values + alpha)).sum())
        row["log_determinant"] = float(np.log(values + alpha).sum())
        row["lanczos_log_determinant"], row["lanczos_stderr"] = (
            float(lanczos.value),
            float(lanczos.stderr),
        )
        row["log_evidence"] = -S * objective.error(at) - 0.5 * float(
            np.log(values / alpha + 1).sum()
        )
        # MacKay's re-estimate: alpha |w|^2 S = gamma at the largest evidence
        row["next_decay"] = row["gamma"] / (S * float(at @ at)) if at.any() else np.inf
    return row


def prune(
    split: Split, objective: Objective, minimum: Array, should_stop: ShouldStop
) -> Iterator[list[tuple]]:
    """Rows (method, share removed, errors, accuracy) of weights removed by size, OBD and OBS,
    without training in between; three rows at a time, for each different count that SHARES make.
    """
    n = minimum.size
    orders = {
        # least first: the order in which weights are removed
        "magnitude": np.argsort(np.abs(minimum)),
        "OBD": np.argsort(curvature.obd_saliencies(objective, minimum)),
    }
    counts = {round(share * n) for share in SHARES}
    # OBS removes one after another: all counts come from one pass
    for count, obs in surgeon(np.linalg.inv(objective.hessian(minimum)), minimum, max(counts)):
        raise_if_stopped(should_stop)
        if count in counts:
            pruned = {
                name: np.where(np.isin(np.arange(n), order[:count]), 0.0, minimum)
                for name, order in orders.items()
            }
            yield [
                (name, count / n, split.train.error(w), split.test.error(w), split.accuracy(w))
                for name, w in {**pruned, "OBS": obs}.items()
            ]


def obd_against_truth(objective: Objective, minimum: Array) -> float:
    """Rank correlation of OBD's saliencies with what removing one weight costs, over up to 200
    weights; NaN if one of them is constant.
    """
    saliency = curvature.obd_saliencies(objective, minimum)
    E = objective.error(minimum)
    chosen = np.random.Generator(np.random.Philox(0)).permutation(minimum.size)[:200]
    # each weight alone set to 0, the others held, which is what OBD assumes
    truth = np.array(
        [objective.error(np.where(np.arange(minimum.size) == q, 0.0, minimum)) - E for q in chosen]
    )
    if not (np.ptp(saliency[chosen]) > 0 and np.ptp(truth) > 0):
        return float("nan")
    from scipy.stats import spearmanr  # much to load, for this study alone

    return float(spearmanr(saliency[chosen], truth).statistic)


def surgeon(inverse: Array, w: Array, most: int) -> Iterator[tuple[int, Array]]:
    """(count, weights) after 0 to `most` removals by optimal brain surgeon (Hassibi and Stork
    1993).

    In turn the q of least w_q^2 / (2 [H^-1]_qq), the others moved by -w_q H^-1 e_q / [H^-1]_qq.
    inverse: H^-1, shape (n, n).
    """
    inverse, w, left = inverse.copy(), w.copy(), np.ones(w.size, dtype=bool)
    yield 0, w.copy()
    for count in range(1, most + 1):
        # rounding may leave 0 or less of a removed one's diagonal
        own = np.maximum(np.diag(inverse), 1e-300)
        q = int(np.where(left, w * w / (2 * own), np.inf).argmin())
        column = inverse[:, q] / inverse[q, q]
        w -= w[q] * column
        # the inverse of H without row and column q, by Schur's complement
        inverse -= np.outer(column, inverse[q])
        left[q] = False
        # removed ones stay exactly 0
        w[~left] = 0.0
        yield count, w.copy()
