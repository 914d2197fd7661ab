"""What theory says of a training: the limits of its rate, and the error expected of a quadratic."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from perturb import curvature
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.theory.learning_curves import quadratic_curve, stability_limit
from perturb.training.plan import Plan
from perturb.trial.code import Code
from perturb.trial.codes import CODES
from sims.problem import Array

EIGENVALUES = 500  # weights up to which the stability limit is from the whole spectrum
PREDICTED = 150  # weights up to which the curve of a quadratic is predicted
FORESEEN = 100_000  # updates, of all runs together, up to which it is
PROBES, STEPS = 10, 40  # of the quadrature for more


@dataclass(frozen=True)
class Limits:
    """At the start: tr H, the sum of its positive eigenvalues, the largest, and the rate at which
    updates cease to be stable, by theory of a quadratic (see `stable_rate`); all eigenvalues and
    eigenvectors, if they were computed.
    """

    trace: float
    positive: float
    largest: float
    eta: float
    values: Array | None = None
    vectors: Array | None = None


def stable_rate(
    values: Array,
    weights: Array | None = None,
    K: int = 1,
    momentum: float = 0.0,
    code: str | Code = "gaussian",
) -> float:
    """`stability_limit` of the modes that can be stable: those of positive curvature. The others
    grow at any rate, until E is no longer what it is at the start.

    Checked on 12 networks with negative eigenvalues: half of the runs had a larger error than at
    the start after 200 updates at 0.85 to 2.2 times this rate, the error was least at 0.45 to 0.85
    times; 2/tr H, where negative eigenvalues count against the positive ones, is 1.75 to 3.3 times
    this rate. weights: of nodes of a quadrature, how many eigenvalues each stands for.
    """
    positive = np.maximum(values, 0.0)
    if weights is None:
        return stability_limit(positive, code, K, momentum)
    # in the equation of `stability_limit`, k = 3, lambda is at most sum l/K + c times the largest l
    stiff = float(weights @ positive) / K + float(positive.max(initial=0.0)) * (
        (1 - momentum) / (1 + momentum) + 1 / K
    )
    return 2 * (1 - momentum) / stiff if stiff > 0 else math.inf


def whole_periods(plan: Plan, n: int) -> bool:
    """Whether the trials of an update leave nothing of the other weights, in g and in z."""
    # its dE has an even part, which only a second pass with all signs turned takes away
    one_sided = (0, 0) in plan.method.phases
    return (
        plan.code.orthogonal
        and plan.code.periodic
        and plan.trials_per_update % ((1 + one_sided) * plan.code.period(n)) == 0
    )


def limits_at(objective: Objective, w: Array, plan: Plan) -> Limits:
    """Exact up to 500 weights, as for a Gaussian code, which others with many weights are like;
    else by stochastic Lanczos quadrature.
    """
    K = plan.trials_per_update
    mu = plan.momentum if plan.rule == "momentum" else 0.0
    if w.size <= EIGENVALUES:
        values, vectors = np.linalg.eigh(objective.hessian(w))
        code = plan.code if whole_periods(plan, w.size) else CODES["gaussian"]
        positive = float(np.maximum(values, 0.0).sum())
        return Limits(
            float(values.sum()),
            positive,
            float(values[-1]),
            stable_rate(values, None, K, mu, code),
            values,
            vectors,
        )
    density = curvature.spectral_density(objective, w, PROBES, STEPS)
    values = density.nodes.ravel()
    weights = w.size * density.weights.ravel() / len(density.nodes)
    positive = float(weights @ np.maximum(values, 0.0))
    return Limits(
        float(weights @ values), positive, float(values.max()), stable_rate(values, weights, K, mu)
    )


def predicted(objective: Objective, W: Array, plan: Plan, table: pd.DataFrame) -> Array:
    """The expected error at every row of one source, where theory knows it: a network without
    hidden layers and with linear outputs, whose E is quadratic, learning from all patterns by the
    plain rule or with momentum. NaN elsewhere.
    """
    none = np.full(len(table), math.nan)
    if (
        not isinstance(objective, MLPObjective)
        or len(objective.network.layers) > 2
        or W.shape[1] > PREDICTED
    ):
        return none
    if len(W) * int(table["update"].max()) > FORESEEN:
        return none
    net = objective.network
    pair = (0, 0) not in plan.method.phases
    known = (
        net.activations == ["linear"]
        and net.error == "squared_error"
        and plan.rule in ("plain", "momentum")
    )
    whole = (
        plan.batch in (0, objective.n_patterns)
        and plan.rate == "fixed"
        and plan.steady
        and plan.perturb_every == 1
    )
    if not (known and whole) or plan.code.periodic or plan.reading.bits or plan.method.displaced:
        return none
    H = objective.hessian(W[0])
    g = objective.gradient(W[0])
    # one Newton step; H may be singular: any of the minima has the same E
    least = W[0] - np.linalg.lstsq(H, g, rcond=None)[0]
    # of an evaluation, the mean of a reading per pattern
    noise = plan.reading.noise / math.sqrt(objective.n_patterns)
    if not (pair or plan.baseline_free):
        noise *= math.sqrt(2)  # E(w) is read as well
    floor = objective.error(least)
    updates = int(table["update"].max())
    mu = plan.momentum if plan.rule == "momentum" else 0.0
    for run, w in enumerate(W):
        curve = quadratic_curve(
            H,
            w,
            least,
            plan.eta,
            plan.sigma,
            plan.trials_per_update,
            plan.code,
            noise,
            updates,
            pair,
            mu,
        )
        own = (table["run"] == run).to_numpy()
        none[own] = floor + curve[table["update"].to_numpy()[own]]
    return none
