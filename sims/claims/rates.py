"""Claims about the learning rate: its limits, and what averaging allows."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from perturb.theory.learning_curves import (
    averaging_gain,
    momentum_limit,
    stability_limit,
)
from perturb.training.exact import Exact
from perturb.training.loop import Source, begin
from perturb.training.plan import Plan
from perturb.training.sources import Batch
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.claims.claim import DERIVED, Array, Row, crossing, diagonal, judged, mean

RULES = {
    "weight-gaussian": ("forward", "gaussian"),
    "weight-rademacher": ("forward", "rademacher"),
    "antithetic": ("central", "gaussian"),
}
GROUPS = 16  # of runs, for the standard error of a limit
# relative distance of the two rates between which a limit is interpolated, from what theory says
NEAR = 0.015
FEW = 10  # updates
# relative: growth is not quite a straight line between them, and modes of the start still fade
STRAIGHT = 0.005
LAM = np.append(np.full(39, 0.25), 1.0)  # tr H = 10.75, l_max = 1


def _limit(
    source: Callable[[Plan], Source],
    plan: Plan,
    near: float,
    runs: int,
    fade: int,
    updates: int,
    apart: float = NEAR,
) -> tuple[float, float]:
    """The rate at which E of diag(LAM) neither grows nor shrinks, see `_growth`."""
    rates = ((1 - apart) * near, (1 + apart) * near)
    return crossing(rates, _growth(source, plan, rates, runs, fade, updates))


def _growth(
    source: Callable[[Plan], Source],
    plan: Plan,
    rates: tuple[float, float],
    runs: int,
    fade: int,
    updates: int,
) -> Array:
    """By which factor E of diag(LAM) grows in an update, after `fade` updates from a start along
    all eigenvectors: (2, groups).

    H is diagonal: every E u_i^2 goes its way whatever the other moments are. So after every few
    updates the runs of a group get that of the group, with random signs: a mean over runs that grew
    for long would rest on a few of them.
    """
    growth = []
    rng = np.random.Generator(np.random.Philox(plan.seed))
    groups = min(GROUPS, runs)
    for eta in rates:
        # the same seed at either rate: what is left of chance is in both
        each = replace(plan, eta=eta)
        state = begin(np.ones((runs, LAM.size)), each)
        step = source(each)
        E = np.ones(groups)
        logs = np.zeros(groups)
        for block in range((fade + updates) // FEW):
            step.advance(state, FEW)
            grouped = state.w.reshape(groups, -1, LAM.size)
            # 2E, a mean over the runs of a group
            after = ((grouped**2) @ LAM).mean(1)
            if block >= fade // FEW:
                logs += np.log(after / E)
            # momentum remembers updates that belong to their own weights: those are not mixed
            if not state.memory:
                signs = rng.choice([-1.0, 1.0], grouped.shape)
                grouped[:] = signs * np.sqrt((grouped**2).mean(1, keepdims=True))
            # scaled back to E = 1: no overflow, however long it grows
            for array in (state.w, *state.memory.values()):
                array.reshape(grouped.shape)[:] /= np.sqrt(after)[:, None, None]
            E = ((grouped**2) @ LAM).mean(1)
        growth.append(np.exp(logs / updates))
    return np.array(growth)


def stability(seed: int) -> Iterator[Row]:
    """Weight perturbation is stable up to about 2/tr H, not 2/l_max; momentum lowers that limit,
    but raises descent's.

    Gaussian: sum_i eta l_i/(2 (1 - eta l_i)) = 1. Rademacher, H diagonal: eta = 2/tr H. Descent: 2
    (1 + mu)/l_max.
    """
    objective = diagonal(LAM)
    base = Plan(METHODS["central"], CODES["rademacher"], 0.1, seed=seed)
    setting = "n = 40, tr H = 10.75, l_max = 1"
    learner = "Feuer and Weinstein 1985"
    for mu in (0.0, 0.5):
        plan = replace(base, rule="momentum", momentum=mu)
        near = momentum_limit(1.0, mu)
        # exact gradients have no chance in them: one run is enough
        # with momentum roots are real near the limit only
        found = _limit(lambda p: Exact(objective, p), plan, near, 1, 300, 100, 0.002)[0]
        claim = f"exact gradient{f', momentum {mu}' if mu else ''}: 2 (1 + mu)/l_max"
        yield judged(claim, "Polyak 1964", setting, near, found, 0.0, STRAIGHT * near)
    cases = (
        ("gaussian", 0.0, learner),
        ("rademacher", 0.0, DERIVED),
        ("rademacher", 0.5, DERIVED),
        ("gaussian", 0.5, DERIVED),
    )
    for code, mu, source in cases:
        near = stability_limit(LAM, code, 1, mu)
        plan = replace(base, code=CODES[code], rule="momentum" if mu else "plain", momentum=mu)
        found, stderr = _limit(lambda p: Batch(objective, p), plan, near, 1024, 60, 60)
        claim = f"perturbation, {code}{f', momentum {mu}' if mu else ''}"
        yield judged(claim, source, f"{setting}, 1024 runs", near, found, stderr, STRAIGHT * near)


def limits_crossed(seed: int) -> Iterator[Row]:
    """At 0.9 of the limit of the rate the error falls, at 1.1 it grows, by the factor that theory
    says.

    Per update the E u_i^2 go by diag((1 - eta l_i)^2 + (k-2) eta^2 l_i^2) + eta^2 1 (l^2)', whose
    largest eigenvalue E follows; exact gradients by (1 - eta l_max)^2.
    """
    objective = diagonal(LAM)
    base = Plan(METHODS["central"], CODES["rademacher"], 0.1, seed=seed)
    times = (0.9, 1.1)
    setting = "n = 40, tr H = 10.75, l_max = 1"
    near = momentum_limit(1.0, 0.0)
    growth = _growth(lambda p: Exact(objective, p), base, (0.9 * near, 1.1 * near), 1, 100, 50)
    for share, found in zip(times, growth, strict=True):
        claim = f"exact gradient, {share} of the limit: factor of E"
        yield judged(
            claim, "Polyak 1964", setting, (1 - share * near) ** 2, float(found[0]), 0.0, STRAIGHT
        )
    for code in ("gaussian", "rademacher"):
        near = stability_limit(LAM, code)
        k = CODES[code].kurtosis
        plan = replace(base, code=CODES[code])
        growth = _growth(
            lambda p: Batch(objective, p), plan, (0.9 * near, 1.1 * near), 1024, 60, 60
        )
        for share, found in zip(times, growth, strict=True):
            eta = share * near
            # of E u_i^2: its own fall, and eta^2 sum_j l_j^2 E u_j^2 from all the others
            M = np.diag((1 - eta * LAM) ** 2 + (k - 2) * (eta * LAM) ** 2) + eta**2 * np.tile(
                LAM**2, (LAM.size, 1)
            )
            claim = f"perturbation, {code}, {share} of the limit: factor of E"
            predicted, (measured, stderr) = float(np.abs(np.linalg.eigvals(M)).max()), mean(found)
            yield judged(
                claim,
                DERIVED,
                f"{setting}, 1024 runs",
                predicted,
                measured,
                stderr,
                # growth is measured over a finite time, before the largest mode is alone
                0.1 * abs(predicted - 1),
            )


def averaging(seed: int) -> Iterator[Row]:
    """Averaging K trials per update pays up to K of about tr H/l_max: half of all that it can
    bring is reached there.
    """
    objective = diagonal(LAM)
    base = Plan(METHODS["central"], CODES["rademacher"], 0.1, seed=seed)
    limits = {}
    for K in (1, 11, 44):
        near = stability_limit(LAM, "rademacher", K)
        plan = replace(base, trials_per_update=K)
        limits[K] = _limit(lambda p: Batch(objective, p), plan, near, 512, 60, 60)
    for K in (11, 44):
        gain = limits[K][0] / limits[1][0]
        # relative errors of a ratio add in squares
        stderr = gain * float(np.hypot(limits[K][1] / limits[K][0], limits[1][1] / limits[1][0]))
        setting = "n = 40, tr H/l_max = 10.75, Rademacher pairs, 512 runs; 10.75 at most"
        predicted = averaging_gain(LAM, K, "rademacher")
        yield judged(
            f"K = {K}: largest stable rate over that of K = 1",
            DERIVED,
            setting,
            predicted,
            gain,
            stderr,
            2 * STRAIGHT * predicted,
        )


def rate_per_trial(seed: int) -> Iterator[Row]:
    """Averaging K trials per update costs no progress per trial up to about K = tr H/l_max, and
    beyond it does.

    H = I, n weights, so tr H/l_max = n; pairs of a Gaussian code at the best rate: E' = E (1 - 1/(1
    + (n + 1)/K)), so the log of E falls by ln(1 + K/(n + 1))/K a trial.
    """
    n = 32
    runs = 256
    trials = 256
    objective = diagonal(np.ones(n))

    def rate(K: int) -> tuple[float, float]:
        """The fall of ln E per trial, of the means of groups of runs."""
        plan = Plan(
            METHODS["central"],
            CODES["gaussian"],
            0.1,
            # the greedy rate of `learning_curves.greedy_rate` for H = I
            eta=1 / (1 + (n + 1) / K),
            trials_per_update=K,
            seed=seed,
        )
        state = begin(np.ones((runs, n)), plan)
        source = Batch(objective, plan)
        source.advance(state, max(trials // K, 1))
        falls = -np.log((state.w**2).sum(1).reshape(GROUPS, -1).mean(1) / n) / (
            max(trials // K, 1) * K
        )
        return mean(falls)

    whole, spread = rate(1)
    for K in (n // 8, n, 8 * n):
        found, stderr = rate(K)
        scale = K * math.log1p(1 / (n + 1))
        predicted = math.log1p(K / (n + 1)) / scale
        error = found / whole * math.hypot(stderr / found, spread / whole)
        setting = f"H = I, n = {n} = tr H/l_max, Gaussian pairs, {runs} runs of {trials} trials"
        claim = f"K = {K}: progress per trial over that of K = 1"
        # the log of a group's mean is off by half of its variance
        yield judged(claim, DERIVED, setting, predicted, found / whole, error, 0.01 * predicted)
