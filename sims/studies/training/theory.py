"""What theory says of a training: the limits of its rate, advice on its settings, the error
expected of a quadratic.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from hardware.schedule import Schedule
from perturb import curvature
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.theory.amplitude import best_sigma
from perturb.theory.learning_curves import averaging_gain, quadratic_curve, stability_limit
from perturb.training.loop import Plan
from perturb.training.plan import begin_steps
from perturb.trial.codes import CODES, Code
from sims.experiment.schema import Setup
from sims.problem import Array
from sims.studies.training.options import Training

EIGENVALUES = 500  # weights up to which the stability limit is from the whole spectrum
PREDICTED = 150  # weights up to which the curve of a quadratic is predicted
FORESEEN = 100_000  # updates, of all runs together, up to which it is
LOOKED = 64  # patterns whose own gradients are looked at, for what a converter does to them
CROSSING = 4  # patterns that should cross a step of the converter in a trial
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
    stiff = float(weights @ positive) / K + float(positive.max(initial=0.0)) * (
        (1 - momentum) / (1 + momentum) + 1 / K
    )
    return 2 * (1 - momentum) / stiff if stiff > 0 else math.inf


def whole_periods(plan: Plan, n: int) -> bool:
    """Whether the trials of an update leave nothing of the other weights, in g and in z."""
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


def updates_to(share: float, u: Array, values: Array, plan: Plan, most: int = 10_000) -> float:
    """Updates by a rule of curvature until a share of E of the modes of positive curvature is left;
    inf if it is more by then.

    u (n,): the way to the minimum in the eigenbasis. In the mean, with H known without error, and
    with the noise that g has if it is not over whole periods: as in a mode of curvature 1.
    """
    E = 1.0
    noise = 0.0 if whole_periods(plan, u.size) else (u.size + 1) / plan.trials_per_update
    for update in range(1, most + 1):
        g = values * u
        before = float(values @ u**2)
        p = g / (values + plan.damping)
        if plan.rule == "newton-cg":
            steps = begin_steps(plan, g[None])
            for _ in range(plan.cg_steps):
                steps.go_on(values * steps.d)
            p = steps.p[0]
        u = u - plan.eta * p
        E *= float(values @ u**2) / before + plan.eta**2 * noise if before > 0 else 0.0
        if E <= share:
            return update
        if not E < 1e6:
            break
    return math.inf


def advice(
    experiment: Setup, objective: Objective, w: Array, plan: Plan, schedule: Schedule
) -> tuple[Limits, pd.DataFrame]:
    """What theory says before anything is run, a row per setting; mind: whether it had better be
    heeded.
    """
    chip = experiment.chip
    options = experiment.options(Training)
    limits = limits_at(objective, w, plan)
    K = plan.trials_per_update
    rows: list[tuple[str, float, float, bool, str]] = []
    fixed = plan.rate == "fixed" and plan.rule in ("plain", "momentum")
    if fixed:
        over = plan.eta > limits.eta
        why = (
            f"updates are stable below {limits.eta:.3g} at the start (sum of positive eigenvalues"
            f" {limits.positive:.3g}, the "
        )
        why += f"largest {limits.largest:.3g}; tr H = {limits.trace:.3g})"
        why += (
            ": it is exceeded, and the error may grow, unless E has an upper bound" if over else ""
        )
        rows.append(("training.eta", plan.eta, limits.eta / 2, over, why))
    if plan.rule in ("newton-cg", "newton-mean"):
        rows += _newton_advice(experiment, objective, w, plan, limits)
    if (
        plan.rule in ("plain", "momentum")
        and K > 1
        and limits.values is not None
        and not whole_periods(plan, w.size)
    ):
        H = np.maximum(limits.values, 0.0)
        if H.any():
            most = max(1.0, limits.positive / limits.largest)
            gain = averaging_gain(H, K)
            rows.append(
                (
                    "training.trials_per_update",
                    float(K),
                    math.ceil(most),
                    K > 4 * most,
                    (
                        f"averaging {K} trials allows {gain:.1f} times the rate; it pays up to"
                        " about the sum of positive eigenvalues over the largest"
                    ),
                )
            )
    g = float(np.linalg.norm(objective.gradient(w)))
    unit = chip.error_unit
    B = plan.batch or objective.n_patterns
    if plan.rule != "keep-if-better":
        spread = plan.sigma * g
        step = plan.reading.step
        if step:
            goal = options.goal if options.criterion == "error" else objective.error(w) / 10
            widest = widest_step(objective, w, plan, goal)
            rows.append(
                (
                    "error_unit.bits",
                    float(unit.bits),
                    math.ceil(math.log2(max(2.0, unit.range / max(widest, 1e-300)))),
                    step > widest and not unit.dither,
                    (
                        f"a step of the converter is {step:.3g}; {B} patterns, each read by itself,"
                        f" dither one another on the way to E = {goal:.3g} up to a step of"
                        f" {widest:.3g}; learning stalls beyond, where too few of them cross a step"
                    ),
                )
            )
        noise = unit.noise / math.sqrt(B)
        if noise:
            # noise of dE against the gradient's own part of it, which changes with every D
            share = 2 * noise**2 / max(spread**2, 1e-300)
            v = np.ones(w.size)
            best, _ = best_sigma(objective, w, v, plan.method, plan.code, max(2, K), plan.r, noise)
            rows.append(
                (
                    "estimation.sigma",
                    plan.sigma,
                    best,
                    share > 1,
                    (
                        f"noise of dE has {share:.2g} times the variance that the gradient gives"
                        " it; advised: best for an estimate"
                    ),
                )
            )
    lifetime = chip.weights.leak_tau_s or (
        chip.weights.device.leak.lifetime_s if chip.weights.device.leak else 0.0
    )
    if lifetime and fixed:
        update_s = 1e-9 * (schedule.trial_ns * K + (schedule.update_ns if options.waits else 0))
        learned = update_s / max(plan.eta * limits.positive / w.size, 1e-300)
        rows.append(
            (
                "weights.leak_tau_s",
                lifetime,
                10 * learned,
                lifetime < learned,
                (
                    f"a mode of mean curvature learns in {learned:.3g} s of chip time; a leak"
                    " should be ten times slower"
                ),
            )
        )
    device = chip.weights.device
    if device.dw_min and fixed:
        typical = plan.eta * g * math.sqrt(1 / K + 1 / w.size)
        rows.append(
            (
                "weights.device",
                device.dw_min,
                typical,
                device.dw_min > 30 * typical,
                f"a pulse changes a weight by {device.dw_min:.3g}, an update wants {typical:.3g}: "
                + (
                    f"some {typical / device.dw_min:.0f} pulses"
                    if typical > device.dw_min
                    else "most updates give none"
                ),
            )
        )
    return limits, pd.DataFrame(rows, columns=["setting", "used", "advised", "mind", "why"])


def widest_step(objective: Objective, w: Array, plan: Plan, goal: float) -> float:
    """The widest step q of a converter at which B patterns, each read by itself, dither one another
    on the way to E = goal.

    A pattern's error lies anywhere in a step, so that the difference of a pair of readings, of mean
    size d, is read as 0 or as a whole step, right in the mean over patterns with a variance of
    min(q d, q^2/6) (Widrow and Kollar 2008). dE, the mean of half of them, has 1/(4 B) of that
    more, which should not exceed what the gradient itself gives it, sigma^2 |g|^2. `CROSSING` of
    the patterns should cross a step in a trial, B d/q, at the goal too, where d has fallen with E
    (cross entropy) or with its root: with fewer there may be none, and nothing changes any more.
    All that is less than q/2 is read as 0.
    """
    S = objective.n_patterns
    E = objective.error(w)
    g = float(np.linalg.norm(objective.gradient(w)))
    B = plan.batch or S
    looked = np.unique(np.linspace(0, S - 1, min(S, LOOKED)).round().astype(int))
    slopes = np.array([np.linalg.norm(objective.subset(np.array([s])).gradient(w)) for s in looked])
    spread = np.sqrt((2 * plan.sigma * slopes) ** 2 + 2 * plan.reading.noise**2)
    d = float(spread.mean()) * math.sqrt(2 / math.pi)
    own = 4 * B * (plan.sigma * g) ** 2
    by_noise = max(own / d if d > 0 else 0.0, math.sqrt(6 * own))
    left = min(1.0, goal / E) if E > 0 else 1.0
    entropy = "cross_entropy" in str(getattr(getattr(objective, "network", None), "error", ""))
    return min(by_noise, B * d * (left if entropy else math.sqrt(left)) / CROSSING, 2 * goal)


def _newton_advice(
    experiment: Setup, objective: Objective, w: Array, plan: Plan, limits: Limits
) -> list[tuple[str, float, float, bool, str]]:
    """Rows of advice for steps that are divided by curvature: whether they pay, and at which
    rate.
    """
    n = w.size
    K = plan.trials_per_update
    rows: list[tuple[str, float, float, bool, str]] = []
    whole = whole_periods(plan, n)
    if plan.rate == "fixed":
        stable = 2.0 if whole else stability_limit(np.ones(n), "gaussian", K)
        why = (
            f"divided by curvature, all {n} modes are alike, and with g from {K} trials updates are"
            f" stable below {stable:.3g}"
        )
        rows.append(("training.eta", plan.eta, stable / 2, plan.eta > stable, why))
    if limits.values is None or limits.vectors is None or not limits.largest > 0:
        return rows
    up = limits.values > 1e-9 * limits.largest
    values = limits.values[up]
    g = objective.gradient(w) @ limits.vectors[:, up]
    # plain, a pair of evaluations an update, at half its stable rate: E is a sum of g_i^2/(2 l_i)
    # exp(-2 eta l_i t)
    excess = g**2 / (2 * values)
    eta = stable_rate(values) / 2
    E = objective.error(w)
    options = experiment.options(Training)
    share = 0.1
    until = "to a tenth of the error above the minimum of"
    least = E - float(excess.sum())
    if least < options.goal < E and options.criterion == "error":
        share = (options.goal - least) / (E - least)
        until = f"to E = {options.goal:g}, if E were"
    if not excess.sum() > 0:
        return rows

    def left(log: float) -> float:
        return (
            float(excess @ np.exp(-2 * eta * values * math.exp(log))) / float(excess.sum()) - share
        )

    plain = 2 * math.exp(
        brentq(left, -30.0, math.log(-2 * math.log(share) / (eta * float(values[0]))))
    )
    error = 0.0 if whole else math.sqrt((n - 1) / K)
    updates = math.inf
    if plan.rule == "newton-mean" or error < 0.5:
        updates = updates_to(share, g / values, values, plan)
    own = updates * plan.evaluations_of_an_update
    why = f"{until} the parabola at the start this rule takes about {own:.3g} evaluations, "
    why += f"plain at half its stable rate {plain:.3g}"
    if plan.rule == "newton-mean":
        why += "; the mean of H has to be learned besides"
    elif error:
        why += (
            f"; z from {K} trials is wrong by {error:.2g} of its size: use whole periods of code"
            " walsh, or newton-mean"
        )
    rows.append(("training.rule, evaluations", own, plain, own > plain, why))
    return rows


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
        and not plan.decay
        and plan.perturb_every == 1
    )
    if not (known and whole) or plan.code.periodic or plan.reading.bits or plan.method.displaced:
        return none
    H = objective.hessian(W[0])
    g = objective.gradient(W[0])
    least = W[0] - np.linalg.lstsq(H, g, rcond=None)[0]
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
