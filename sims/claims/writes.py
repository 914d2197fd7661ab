"""Claims about how devices write updates: soft bounds, and rounding to steps."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from hardware import device
from hardware.device_params import DeviceParams
from hardware.device_tables import BoundsParams, StepParams
from perturb.theory.imperfections import (
    soft_bound_equilibrium,
)
from perturb.theory.rounding import rounding_floor, rounding_gain, rounding_variance
from perturb.training.exact import Exact
from perturb.training.loop import begin
from perturb.training.plan import Plan, State
from perturb.training.sources import Batch
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from perturb.trial.readout import Reading
from sims.claims.claim import (
    DERIVED,
    Array,
    Row,
    diagonal,
    errors,
    judged,
    mean,
)

PAIRS = Plan(METHODS["central"], CODES["rademacher"], 0.1)


def soft_bounds(seed: int) -> Iterator[Row]:
    """Soft bounds +-w_b pull noisy weights to zero: w_eq = w*/(1 + E|Dw|/(eta lam w_b)), exact
    descent hardly.

    A step is executed as Dw - |Dw| w/w_b. E|Dw| = eta sqrt(2/pi) times the standard deviation of
    G_i, here that of the noise of readings, s/(sqrt(2) sigma), and of the gradients of the other
    weights, at the equilibrium.
    """
    n = 4
    runs = 500
    eta = 2e-3
    sigma = 0.1
    noise = 0.5
    updates = 1200
    lam = np.ones(n)
    w_star = np.array([0.6, -0.6, 0.3, -0.3])
    objective = diagonal(lam, w_star)
    made = DeviceParams(
        model="soft-bounds",
        step=StepParams(dw_min=1e-3),
        bounds=BoundsParams(w_max=1.0, w_min=-1.0),
    )
    cells = device.fabricate(made, runs * n, die=seed)
    equilibrium = w_star
    # the noise of the other weights' gradients depends on where they are: a fixed point, quickly
    for _ in range(50):
        g = lam * (equilibrium - w_star)
        # std(G_i): sE^2/(2 sigma^2) of a pair, and |g|^2 - g_i^2
        spread = np.sqrt(noise**2 / (2 * sigma**2) + g @ g - g**2)
        equilibrium = soft_bound_equilibrium(
            w_star, eta, lam, eta * math.sqrt(2 / math.pi) * spread, 1.0
        )

    def learned(make: type[Batch] | type[Exact]) -> Array:
        """w.w*/|w*|^2 of every run."""
        # from w*: what is measured is the pull of the bounds, not the time to get there
        hidden = device.initial(cells, np.tile(w_star, runs), seed)

        def write(state: State, change: Array, update: int) -> None:
            nonlocal hidden
            hidden = device.write(cells, hidden, change.ravel(), seed, update)
            state.w[:] = hidden.reshape(runs, n)

        plan = replace(
            PAIRS,
            sigma=sigma,
            eta=eta,
            seed=seed,
            reading=Reading(noise * objective.n_patterns**0.5),
        )
        state = begin(np.tile(w_star, (runs, 1)), plan)
        # exact descent stays where it is: few updates show it
        make(objective, plan, write).advance(state, updates if make is Batch else 20)
        return state.w @ w_star / (w_star @ w_star)

    setting = (
        f"n = {n}, lam = 1, eta = {eta}, dw_min = 0.001, std(G) = {noise / (2**0.5 * sigma):.1f},"
        f" {runs} runs"
    )
    # along w*, in units of its length
    predicted = float(equilibrium @ w_star / (w_star @ w_star))
    measured, stderr = mean(learned(Batch))
    yield judged(
        "perturbation: w/w*",
        "Fusi and Abbott 2007",
        setting,
        predicted,
        measured,
        stderr,
        0.02 * predicted,
    )
    yield judged(
        "exact descent from w*: w/w*",
        DERIVED,
        setting,
        1.0,
        float(learned(Exact).mean()),
        0.0,
        1e-9,
    )


def rounding(seed: int) -> Iterator[Row]:
    """Writes rounded to the nearest step q stall at |u| = q/(2 eta lam); stochastic rounding ends
    at lam q^2/12, far below.

    Nearest: E = sum_i lam/2 (x^2 - x q + q^2/3), x = q/(2 eta lam): the last value before x, from
    wherever it came. The w* lie at all fractions of a step.
    """
    n = 31
    q = 2.0**-7
    runs = 64
    lam = np.ones(n)
    w_star = q * (np.arange(n) + 0.5) / n
    objective = diagonal(lam, w_star)
    made = DeviceParams(model="digital", bits=8, bounds=BoundsParams(w_max=1.0, w_min=-1.0))
    cells = device.fabricate(made, runs * n, die=seed)
    ways: tuple[Literal["stochastic", "nearest"], ...] = ("stochastic", "nearest")
    for eta in (0.27, 0.05):
        for how in ways:
            hidden = device.initial(cells, np.full(runs * n, 0.5), seed)

            def write(
                state: State,
                change: Array,
                update: int,
                how: Literal["stochastic", "nearest"] = how,
            ) -> None:
                nonlocal hidden
                hidden = device.write(cells, hidden, change.ravel(), seed, update, how)
                state.w[:] = hidden.reshape(runs, n)

            plan = replace(PAIRS, eta=eta, seed=seed)
            state = begin(np.full((runs, n), 0.5), plan)
            Exact(objective, plan, write).advance(state, round(20 / eta))
            predicted = rounding_floor(lam, eta, q, how == "stochastic")
            # in steps; a weight stops at the last value before x, wherever within a step that is
            x = 1 / (2 * eta)
            predicted *= 1.0 if how == "stochastic" else 1 - 1 / x + 1 / (3 * x * x)
            measured, stderr = mean(errors(np.diag(lam), state.w, w_star) / q**2)
            setting = f"n = {n}, exact gradients, {runs} runs"
            # of w* at the middles of n parts of a step, not everywhere
            spread = n * 1.0 / (12 * n * n)
            left = spread if how == "stochastic" else spread + x / 2
            yield judged(
                f"{how}, eta lam = {eta}: E/q^2",
                "Gupta et al. 2015",
                setting,
                predicted / q**2,
                measured,
                stderr,
                left,
            )


def dithered_rounding(seed: int) -> Iterator[Row]:
    """The noise of perturbation dithers writes in steps: rounding to nearest learns too, and ends
    below stochastic rounding.

    Steps q: where eta G has a spread s of q, writes to the nearest add q^2/12, stochastic ones
    q^2/6; at s = q/4 the nearest pass a gain `rounding_gain` of the rate. With l = 1, Rademacher
    pairs and E u_i^2 = c: s^2 = eta^2 (n c + sE^2/(2 sigma^2)), and at rest 2 eta gain c = (2 gain
    - 1) s^2 + `rounding_variance` of s.
    """
    n = 7
    q = 2.0**-7
    eta = 0.05
    runs = 256
    updates = 200
    rest = 150
    objective = diagonal(np.ones(n), np.linspace(-0.3, 0.3, n))
    cells = device.fabricate(
        DeviceParams(model="digital", bits=8, bounds=BoundsParams(w_max=1.0, w_min=-1.0)),
        runs * n,
        die=seed,
    )
    ways: tuple[Literal["stochastic", "nearest"], ...] = ("stochastic", "nearest")
    for spread in (1.0, 0.25):
        noise = spread * q * math.sqrt(2) * PAIRS.sigma / eta
        plan = replace(
            PAIRS, eta=eta, seed=seed, reading=Reading(noise * objective.n_patterns**0.5)
        )
        for how in ways:
            hidden = device.initial(cells, np.zeros(runs * n), seed)

            def write(
                state: State,
                change: Array,
                update: int,
                how: Literal["stochastic", "nearest"] = how,
            ) -> None:
                nonlocal hidden
                hidden = device.write(cells, hidden, change.ravel(), seed, update, how)
                state.w[:] = hidden.reshape(runs, n)

            state = begin(np.zeros((runs, n)), plan)
            source = Batch(objective, plan, write)
            each = np.zeros(runs)
            source.advance(state, rest)
            for _ in range(updates):
                source.advance(state, 1)
                each += errors(np.eye(n), state.w, np.linspace(-0.3, 0.3, n)) / (updates * q**2)
            c = 0.0
            for _ in range(200):  # a contraction
                s = math.sqrt(eta**2 * n * c + (spread * q) ** 2)
                gain = 1.0 if how == "stochastic" else rounding_gain(s, q)
                # E u^2 at rest: 2 eta gain c is what learning takes, the rest what noise and
                # rounding bring
                c = ((2 * gain - 1) * s**2 + rounding_variance(s, q, how == "stochastic")) / (
                    2 * eta * gain
                )
            setting = (
                f"n = {n}, l = 1, eta = {eta}, Rademacher pairs, noise of eta G {spread} q, {runs}"
                " runs"
            )
            predicted, (measured, stderr) = n * c / (2 * q**2), mean(each)
            claim = f"{how}, s = {spread} q: E/q^2"
            yield judged(
                claim,
                "Widrow and Kollar 2008",
                setting,
                predicted,
                measured,
                stderr,
                0.01 * predicted,
            )
