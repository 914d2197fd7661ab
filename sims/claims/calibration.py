"""Claims about learning whose amplitude and rate a few trials at the start have advised."""

from collections.abc import Iterator

import numpy as np

from perturb.theory.learning_curves import quadratic_curve
from perturb.training.loop import begin
from perturb.training.plan import Plan
from perturb.training.sources import Batch
from sims.claims.claim import ROUNDING, Row, diagonal, judged, mean

SOURCE = "after Spall 1998"


def calibration(seed: int) -> Iterator[Row]:
    """A few trials at the start find the rate at which E falls most.

    Of a parabola along the axes that is eta = 1/tr H, which signs show in a single trial.
    """
    lam = np.append(np.geomspace(0.1, 10, 19), 1.0)
    objective = diagonal(lam, np.random.Generator(np.random.Philox(0)).standard_normal(lam.size))
    w, updates, runs = np.zeros(lam.size), 40, 4000
    plan = Plan(seed=seed).calibrated(objective, w, updates)
    setting = f"n = {lam.size}, H diagonal, 0.1 to 10, without noise"
    yield judged(
        "calibrated eta tr H", SOURCE, setting, 1.0, plan.eta * lam.sum(), tolerance=ROUNDING
    )
    state = begin(np.tile(w, (runs, 1)), plan)
    Batch(objective, plan).advance(state, updates)
    E = objective.errors_at(state.w).mean(1) / objective.error(w)
    w_star = -objective.gradient(w) / lam
    curve = quadratic_curve(
        np.diag(lam), w, w_star, 1 / lam.sum(), plan.sigma, 1, "rademacher", 0.0, updates, True
    )
    setting += f", {runs} runs"
    yield judged(
        f"E/E_0 after {updates} updates", SOURCE, setting, float(curve[-1] / curve[0]), *mean(E)
    )
