"""What theory advises before a training, setting by setting."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from hardware.columns import predicted_share
from hardware.device import fabricate, symmetry_points
from hardware.parts.converter import MAX_BITS
from hardware.timing import Timing
from perturb.networks.objective import Objective
from perturb.theory.amplitude import best_sigma
from perturb.theory.learning_curves import averaging_gain, stability_limit
from perturb.training.plan import Plan
from perturb.training.updates import begin_steps
from sims.experiment.schema import Setup
from sims.problem import Array
from sims.studies.training.options import Training
from sims.studies.training.theory import Limits, limits_at, stable_rate, whole_periods

LOOKED = 64  # patterns whose own gradients are looked at, for what a converter does to them
STALLED = 0.5  # share of the gradient below which learning counts as stalled
CROSSING = 4  # patterns that should cross a step of the converter in a trial


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
        # it grows, or is NaN: at this rate it never gets there
        if not E < 1e6:
            break
    return math.inf


class Advised(NamedTuple):
    """A setting, after a comma what the numbers are if not its value; the value in use and the one
    advised; mind: whether the advice had better be heeded. bound: "at least" or "at most", where
    what is advised is a limit and not the best value.
    """

    setting: str
    used: float
    advised: float
    mind: bool
    why: str
    bound: str = ""


def advice(
    experiment: Setup, objective: Objective, w: Array, plan: Plan, schedule: Timing
) -> tuple[Limits, pd.DataFrame]:
    """What theory says before anything is run, a row per setting, see `Advised`."""
    limits = limits_at(objective, w, plan)
    g = float(np.linalg.norm(objective.gradient(w)))
    rows = [
        *_rate_advice(plan, limits),
        *_newton_advice(experiment, objective, w, plan, limits),
        *_averaging_advice(plan, limits, w.size, experiment.chip.weights.device.dw_min > 0),
        *_error_unit_advice(experiment, objective, w, plan, g),
        *_columns_advice(experiment, objective, w, plan),
        *_weights_advice(experiment, plan, schedule, limits, w.size, g),
    ]
    return limits, pd.DataFrame(rows, columns=list(Advised._fields))


def _is_fixed(plan: Plan) -> bool:
    """Whether updates are a fixed rate times g."""
    return plan.rate == "fixed" and plan.rule in ("plain", "momentum")


def _rate_advice(plan: Plan, limits: Limits) -> Iterator[Advised]:
    if _is_fixed(plan):
        over = plan.first_rate > limits.eta
        why = (
            f"updates do not grow below {limits.eta:.3g} at the start (curvatures, the"
            f" eigenvalues of H: the positive ones sum up to {limits.positive:.3g}, the largest is"
            f" {limits.largest:.3g}; all of them to tr H = {limits.trace:.3g})"
        )
        if plan.trials_per_update > 1:
            why += f"; with {plan.trials_per_update} trials per update, with fewer it is lower"
        if plan.first_rate < limits.eta / 2:
            why += "; a lower one, as in use, is slower and ends in less noise"
        if over:
            why += ": it is exceeded, and the error may grow, unless E has an upper bound"
        yield Advised("training.eta", plan.first_rate, limits.eta / 2, over, why)


def _averaging_advice(plan: Plan, limits: Limits, n: int, pulsed: bool) -> Iterator[Advised]:
    K = plan.trials_per_update
    if plan.rule not in ("plain", "momentum") or K == 1 or whole_periods(plan, n):
        return
    if limits.values is None or not (H := np.maximum(limits.values, 0.0)).any():
        return
    most = max(1.0, limits.positive / limits.largest)
    why = (
        f"averaging {K} trials allows {averaging_gain(H, K):.1f} times the rate; it pays up to"
        " about the sum of positive eigenvalues over the largest"
    )
    fewer = math.ceil(most)
    if pulsed:
        # fewer writes, of which steps that differ up and down make a drift: theory has no limit
        why += f" ({fewer}), and in devices whose steps up and down differ beyond, as here"
        fewer = max(K, fewer)
    elif K > fewer:
        slower = averaging_gain(H, K) / averaging_gain(H, fewer)
        why += f"; with {fewer} trials the rate that is advised is {slower:.2g} times lower"
    too_many = K > 4 * most and not pulsed
    bound = "" if pulsed else "at most"
    yield Advised("training.trials_per_update", float(K), fewer, too_many, why, bound)


def _error_unit_advice(
    experiment: Setup, objective: Objective, w: Array, plan: Plan, g: float
) -> Iterator[Advised]:
    """Of the bits of its converter, and of sigma against its noise. g: length of the gradient."""
    if plan.rule == "keep-if-better":
        return
    options = experiment.options(Training)
    unit = experiment.chip.error_unit
    B = plan.batch or objective.n_patterns
    if step := plan.reading.step:
        # where the goal is no E, a tenth of that at the start stands for it
        goal = options.goal if options.criterion == "error" else objective.error(w) / 10
        widest = widest_step(objective, w, plan, goal)
        bits = math.ceil(math.log2(max(2.0, unit.range / max(widest, 1e-300))))
        why = (
            f"a step of the converter is {step:.3g}; {B} patterns, each read by itself,"
            f" dither one another on the way to E = {goal:.3g} up to a step of"
            f" {widest:.3g}; learning may stall beyond, where too few of them cross a step"
        )
        stalls = step > widest and not unit.dither
        yield Advised("chip.error_unit.bits", float(unit.bits), bits, stalls, why, "at least")
    if noise := unit.noise / math.sqrt(B):
        # noise of dE against the gradient's own part of it, which changes with every D
        share = 2 * noise**2 / max((plan.sigma * g) ** 2, 1e-300)
        K = max(2, plan.trials_per_update)
        # of g alone: the direction, which counts for z, may be any
        best, _ = best_sigma(
            objective, w, np.ones(w.size), plan.method, plan.code, K, plan.r, noise
        )
        why = (
            f"noise of dE has {share:.2g} times the variance that the gradient gives"
            " it; advised: best for an estimate"
        )
        yield Advised("estimation.sigma", plan.sigma, best, share > 1, why)


def _columns_advice(
    experiment: Setup, objective: Objective, w: Array, plan: Plan
) -> Iterator[Advised]:
    """Of the bits of the converters of an array's columns: the fewest from which on it does not
    stall.
    """
    chip = experiment.chip
    if not (used := chip.array.output_bits):
        return
    looked = some_patterns(objective)

    def share(bits: int) -> float:
        array = chip.array.model_copy(update={"output_bits": bits})
        return predicted_share(chip.model_copy(update={"array": array}), looked, w, plan.sigma)

    def passes(bits: int) -> bool:
        # much more than 1 is the luck of a few net inputs at an edge, and leads elsewhere
        return STALLED <= share(bits) <= 1 / STALLED

    own = share(used)
    # a step of sigma hides nothing; from there down, as coarser ones may pass by luck alone
    advised = math.ceil(math.log2(2 * chip.array.output_range / plan.sigma))
    advised = min(max(advised, 1), MAX_BITS)
    while advised < MAX_BITS and not passes(advised):
        advised += 1
    while advised > 1 and passes(advised - 1):
        advised -= 1
    step = 2 * chip.array.output_range / 2**used
    why = (
        f"a step of the converters of the columns is {step:.3g}, in the middle of"
        f" which perturbations are hidden: {own:.2g} of the gradient passes them at the"
        f" start; with less than {STALLED:g} learning stalls, unless noise of the"
        " columns dithers"
    )
    yield Advised("chip.array.output_bits", float(used), float(advised), used < advised, why)


def _weights_advice(
    experiment: Setup, plan: Plan, schedule: Timing, limits: Limits, n: int, g: float
) -> Iterator[Advised]:
    """Of leaks and of the pulses of a device. g: length of the gradient."""
    if not _is_fixed(plan):
        return
    K = plan.trials_per_update
    weights = experiment.chip.weights
    device = weights.device
    lifetime = weights.leak_tau_s or (device.leak.lifetime_s if device.leak else 0.0)
    if lifetime:
        waits = schedule.update_ns if experiment.options(Training).waits else 0
        update_s = 1e-9 * (schedule.trial_ns * K + waits)
        # 1/(eta lambda) updates, at the mean positive curvature
        learned = update_s / max(plan.first_rate * limits.positive / n, 1e-300)
        why = (
            f"a mode of mean curvature learns in {learned:.3g} s of chip time; a leak"
            " should be ten times slower"
        )
        yield Advised(
            "chip.weights.leak_tau_s", lifetime, 10 * learned, lifetime < learned, why, "at least"
        )
    if device.law.balanced and weights.reference == "none":
        points = symmetry_points(fabricate(device, n, experiment.chip.die or 0))
        size = float(np.sqrt((points**2).mean()))
        why = (
            "noise of updates pulls weights to where steps up and down are alike,"
            f' {points.mean():.2g} +- {points.std():.2g}; a reference of "symmetry" makes that 0'
        )
        yield Advised("chip.weights.reference, distance", size, 0.0, size > 0.1 * device.range, why)
    if device.dw_min:
        # rms of an estimated g_i: |g|^2/n is its own, |g|^2/K of the others' perturbations
        typical = plan.first_rate * g * math.sqrt(1 / K + 1 / n)
        why = f"a pulse changes a weight by {device.dw_min:.3g}, an update wants {typical:.3g}: "
        if typical > device.dw_min:
            why += f"some {typical / device.dw_min:.0f} pulses"
        else:
            why += "most updates give none"
        few = device.dw_min > 30 * typical
        yield Advised("chip.weights.device, a pulse", device.dw_min, typical, few, why, "at most")


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
    E = objective.error(w)
    g = float(np.linalg.norm(objective.gradient(w)))
    B = plan.batch or objective.n_patterns
    looked = _looked(objective)
    slopes = np.array([np.linalg.norm(objective.subset(np.array([s])).gradient(w)) for s in looked])
    # one pattern's E(w + D) - E(w - D): 2 D.g of its own, and the noise of two readings
    spread = np.sqrt((2 * plan.sigma * slopes) ** 2 + 2 * plan.reading.noise**2)
    # the mean of |x| of normal x
    d = float(spread.mean()) * math.sqrt(2 / math.pi)
    own = 4 * B * (plan.sigma * g) ** 2
    # min(q d, q^2/6) <= own up to the larger of the two q
    by_noise = max(own / d if d > 0 else 0.0, math.sqrt(6 * own))
    left = min(1.0, goal / E) if E > 0 else 1.0
    entropy = "cross_entropy" in str(getattr(getattr(objective, "network", None), "error", ""))
    return min(by_noise, B * d * (left if entropy else math.sqrt(left)) / CROSSING, 2 * goal)


def _looked(objective: Objective) -> Array:
    S = objective.n_patterns
    return np.unique(np.linspace(0, S - 1, min(S, LOOKED)).round().astype(int))


def some_patterns(objective: Objective) -> Objective:
    """The same network on a few of the patterns."""
    return objective.subset(_looked(objective))


def _newton_advice(
    experiment: Setup, objective: Objective, w: Array, plan: Plan, limits: Limits
) -> Iterator[Advised]:
    """Of steps that are divided by curvature: whether they pay, and at which rate."""
    if plan.rule not in ("newton-cg", "newton-mean"):
        return
    n = w.size
    K = plan.trials_per_update
    whole = whole_periods(plan, n)
    if plan.rate == "fixed":
        stable = 2.0 if whole else stability_limit(np.ones(n), "gaussian", K)
        why = (
            f"divided by curvature, all {n} modes are alike, and with g from {K} trials updates are"
            f" stable below {stable:.3g}"
        )
        yield Advised("training.eta", plan.eta, stable / 2, plan.eta > stable, why)
    if limits.values is None or limits.vectors is None or not limits.largest > 0:
        return
    # modes without a minimum, or all but flat, are left out
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
        return

    from scipy.optimize import brentq  # late: much to load, and not for every run

    def left(log: float) -> float:
        return (
            float(excess @ np.exp(-2 * eta * values * math.exp(log))) / float(excess.sum()) - share
        )

    # two evaluations an update; at the upper end even the slowest mode is down to share^4
    plain = 2 * math.exp(
        brentq(left, -30.0, math.log(-2 * math.log(share) / (eta * float(values[0]))))
    )
    error = 0.0 if whole else math.sqrt((n - 1) / K)
    updates = math.inf
    # with a z as wrong as that it is not known how the steps go: inf
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
    yield Advised("training.rule, evaluations", own, plain, own > plain, why)
