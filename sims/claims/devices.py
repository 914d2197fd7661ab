"""Claims about what devices do to weights that learn."""

import math
from collections.abc import Iterator

import numpy as np

from hardware.parts.weight_store import WeightStore
from perturb.training.loop import begin
from perturb.training.plan import Plan, State
from perturb.training.sources import Batch
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from perturb.trial.readout import Reading
from sims.claims.claim import DERIVED, Array, Row, chip, diagonal, judged, mean

ASYMMETRY = 0.3  # beta: steps up are 1 + beta, steps down 1 - beta times the mean


def reference(seed: int) -> Iterator[Row]:
    """Noise drives weights to the symmetry point of their cells; read against it, to 0.

    Soft bounds +-b with an asymmetry beta, whose symmetry point is beta b: a step Dw of a cell that
    holds h is executed as Dw + (beta - h/b) |Dw| - beta h/b Dw. At rest eta lam (w* - w) (1 - beta
    h/b) = E|Dw| (h/b - beta), h = w, or w + beta b against the reference.
    """
    from scipy.optimize import brentq  # late: much to load, and not for every run

    n = 4
    runs = 300
    eta = 2e-3
    noise = 0.5
    target = 0.6
    objective = diagonal(np.ones(n), np.full(n, target))
    reading = Reading(noise * objective.n_patterns**0.5)
    plan = Plan(METHODS["central"], CODES["rademacher"], 0.1, eta=eta, seed=seed, reading=reading)
    device = {"model": "soft-bounds", "step": {"dw_min": 1e-3, "up_down": ASYMMETRY}}
    for against, point in (("none", 0.0), ("symmetry", ASYMMETRY)):
        params = chip(die=seed, weights={"device": device, "reference": against})
        store = WeightStore(params, np.zeros(runs * n, bool), np.full(runs * n, target), seed)

        def write(state: State, change: Array, update: int, store: WeightStore = store) -> None:
            store.add(change.ravel(), update, 0)
            state.w[:] = store.weights(0).reshape(runs, n)

        def force(w: float, point: float = point) -> float:
            h = w + point
            spread = math.sqrt(noise**2 / (2 * plan.sigma**2) + (n - 1) * (w - target) ** 2)
            size = eta * math.sqrt(2 / math.pi) * spread
            return eta * (target - w) * (1 - ASYMMETRY * h) - size * (h - ASYMMETRY)

        state = begin(np.full((runs, n), target), plan)
        Batch(objective, plan, write).advance(state, 1200)
        measured, stderr = mean(state.w.mean(1))
        predicted = float(brentq(force, -1.0, 1.0))
        setting = f"n = {n}, lam = 1, w* = {target}, beta = {ASYMMETRY}, eta = {eta}, {runs} runs"
        yield judged(
            f"mean of w, reference {against}",
            DERIVED,
            setting,
            predicted,
            measured,
            stderr,
            0.02 * abs(predicted),
        )
