"""Claims about updates on a chip: late, misaligned, with offsets, to weights that leak
or are stuck.

Over whole periods of a Walsh code the gradient of a quadratic is exact, and so is that of one
weight by a pair: then what the chip does to its updates shows without noise.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hardware.chip import Chip
from hardware.on_chip import OnChip, on_chip
from hardware.params import ChipParams
from hardware.timing import Timing
from perturb.networks.objective import Objective
from perturb.theory.imperfections import (
    constrained_minimum,
    leak_fixed_point,
    misaligned_curve,
    offset_floor,
)
from perturb.theory.learning_curves import delay_limit, stability_limit
from perturb.training.loop import begin
from perturb.training.plan import Plan
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.claims.claim import (
    DERIVED,
    REPEATS,
    Array,
    Row,
    chip,
    crossing,
    diagonal,
    errors,
    general,
    judged,
    mean,
    one_weight,
    seeds,
)

PAIRS = Plan(METHODS["central"], CODES["rademacher"], 0.1)
PERIODS = Plan(METHODS["central"], CODES["walsh"], 0.1)
NEAR = 0.02  # relative distance of the two rates between which a limit is interpolated
CONVERGED = 1e-8  # of descent without noise, after as many updates as it is given here


def _grown(
    params: ChipParams,
    objective: Objective,
    plan: Plan,
    near: float,
    events: bool,
    waits: bool,
    window: int,
) -> float:
    """The rate at which |w|^2, summed over a window of updates, is as large in the next window;
    after two windows to fade.
    """
    rates = ((1 - NEAR) * near, (1 + NEAR) * near)
    growth = []
    for eta in rates:
        each = replace(plan, eta=eta)
        w = np.ones((1, objective.n_weights))
        step = on_chip(params, objective, each, w, events, waits)
        state = begin(w, each)
        square = []
        for _ in range(4 * window):
            step.advance(state, 1)
            square.append(float((state.w**2).sum()))
        # the first two windows let what is not the slowest mode fade
        before, after = (sum(square[k * window : (k + 1) * window]) for k in (2, 3))
        growth.append([(after / before) ** (1 / window)])
    return crossing(rates, np.array(growth))[0]


def delay(seed: int) -> Iterator[Row]:
    """Updates that come d trials late, each with its own D, are stable up to eta l = 2 sin(pi/(2
    (2d + 1))).

    On the chip by events: a broadcast whose latency is d trials less a half, trials that do not
    wait for it; one weight.
    """
    lam = 2.0
    objective = one_weight(2.0)
    trial_ns = round(Timing(ChipParams(), objective, PAIRS.method, 1).trial_ns)
    for d in (0, 1, 3):
        # half a trial less, so that it does not matter which of two events comes first
        late = d * trial_ns - trial_ns // 2 if d else 0
        params = chip(
            bus={"latency_ns": late},
            synapse={"fifo_depth": d + 2, "accumulate_ns": 0},
            weights={"write_ns": 0},
        )
        limit = delay_limit(lam, d)
        found = _grown(
            params, objective, replace(PAIRS, seed=seed), limit, True, d == 0, 20 * (2 * d + 1)
        )
        setting = (
            f"one weight, l = {lam}, event by event, bus latency {late} ns, trial {trial_ns} ns"
        )
        yield judged(
            f"d = {d}: largest stable rate",
            "Levin and May 1976",
            setting,
            limit,
            found,
            0.0,
            0.005 * limit,
        )


def misalignment(seed: int) -> Iterator[Row]:
    """A broadcast that meets the perturbation of the next trial teaches nothing: the mean update is
    0, the error only diffuses.

    On the chip by events: a FIFO of one perturbation, and a latency of half a trial.
    """
    n = 6
    trials = 250
    eta = 0.05
    updates = 20
    runs = 300
    lam = np.append(np.linspace(0.5, 1.5, n - 1), 1.0)
    w0 = np.ones(n)
    objective = diagonal(lam)
    g = objective.gradient(w0)
    trial_ns = round(Timing(ChipParams(), objective, PAIRS.method, objective.n_patterns).trial_ns)
    # a FIFO of four holds the trial's own perturbation until its word comes; of one, the next one's
    for depth, gain in ((4, 1.0), (1, 0.0)):
        params = chip(bus={"latency_ns": trial_ns // 2}, synapse={"fifo_depth": depth})
        made = [
            Chip(params, objective, w0, w0, "central", "rademacher", seed=s, fidelity="event")
            for s in seeds(seed)
        ]
        found = mean([float(one.run(trials).gradient @ g / (g @ g)) for one in made])
        setting = f"n = {n}, latency half a trial, {REPEATS} x {trials} trials by events"
        yield judged(f"gain, FIFO of {depth}", DERIVED, setting, gain, *found)
    plan = replace(PAIRS, eta=eta, seed=seed)
    state = begin(np.tile(w0, (runs, 1)), plan)
    on_chip(params, objective, plan, state.w, True, False).advance(state, updates)
    predicted = misaligned_curve(
        lam, w0, np.zeros(n), eta, PAIRS.sigma, "rademacher", updates=updates, pair=True
    )
    setting = f"n = {n}, eta = {eta}, {updates} updates, {runs} runs by events"
    measured, stderr = mean(errors(np.diag(lam), state.w) / predicted[0])
    # updates are two trials late besides: E grows as if for two updates less
    late = float(predicted[-1] - predicted[-3]) / predicted[0]
    yield judged(
        "E/E_0, FIFO of 1",
        DERIVED,
        setting,
        float(predicted[-1] / predicted[0]),
        measured,
        stderr,
        late,
    )


def _descended(
    params: ChipParams, objective: Objective, plan: Plan, w: Array, updates: int
) -> tuple[Array, OnChip]:
    """The weights of a run at the end, and its chip."""
    source = on_chip(params, objective, plan, w[None], False, True)
    state = begin(w, plan)
    source.advance(state, updates)
    return state.w[0], source


def offset_and_mismatch(seed: int) -> Iterator[Row]:
    """A constant b in every update leaves b'H^-1 b/2; mismatched perturbations leave the minimum
    alone, only the stable rate.

    b_i = o_i tr H/2: offsets o of the multipliers, one-sided trials over double periods of a Walsh
    code. Mismatch: the array sees D_i (1 + e_i), G = P g with P = 1 + e, stable up to 2/l_max(PH).
    """
    n = 7
    w_star = np.linspace(-1.0, 1.0, 7)
    objective = general(n, seed, w_star)
    H = objective.hessian(w_star)
    # half of what is stable, as every gradient is exact
    rate = 1.0 / float(np.linalg.eigvalsh(H)[-1])
    one_sided = replace(
        PERIODS, method=METHODS["forward"], trials_per_update=16, eta=rate, seed=seed
    )
    w, source = _descended(
        chip(synapse={"offset_mismatch": 0.2}), objective, one_sided, np.zeros(n), 250
    )
    b = source.parts(0).die.multiplier * float(np.trace(H)) / 2
    floor = offset_floor(H, b)
    setting = f"n = {n}, H not diagonal, whole periods of a Walsh code, 250 updates"
    yield judged(
        "offset: floor of E",
        DERIVED,
        setting,
        floor,
        float(errors(H, w[None], w_star)[0]),
        0.0,
        CONVERGED,
    )
    params = chip(perturbation={"gain_mismatch": 0.2})
    plan = replace(PERIODS, trials_per_update=8, eta=rate, seed=seed)
    w, source = _descended(params, objective, plan, np.zeros(n), 250)
    yield judged(
        "mismatch 20 %: floor of E",
        DERIVED,
        setting,
        0.0,
        float(errors(H, w[None], w_star)[0]),
        0.0,
        CONVERGED,
    )
    # the same H with w* = 0: |w|^2 then is the distance
    centred = general(n, seed)
    limit = stability_limit(H, "walsh", 8, gains=source.parts(0).die.gain)
    found = _grown(params, centred, plan, limit, False, True, 60)
    yield judged(
        "mismatch 20 %: largest stable rate", DERIVED, setting, limit, found, 0.0, 0.005 * limit
    )


def leak(seed: int) -> Iterator[Row]:
    """Weights that lose a part l in every trial settle at w* lam/(lam + l/eta): weight decay.

    As the chip writes at the end of the period in which they leak, w := (1 - l) w - eta G; where
    they leak after it, eta (1 - l) stands for eta (`imperfections.leak_fixed_point`).
    """
    eta = 0.02
    w_star = 0.8
    for lam, lost in ((0.5, 0.01), (2.0, 0.05)):
        objective = one_weight(lam, w_star)
        schedule = Timing(ChipParams(), objective, PAIRS.method, 1)
        # tau such that a weight loses l in it: exp(-T/tau) = 1 - l
        period_s = 1e-9 * (schedule.trial_ns + schedule.update_ns)
        params = chip(weights={"leak_tau_s": -period_s / math.log1p(-lost)})
        plan = replace(PAIRS, eta=eta, seed=seed)
        w, _ = _descended(params, objective, plan, np.zeros(1), 2000)
        predicted = float(
            leak_fixed_point(np.array([lam]), np.array([w_star]), eta, lost / (1 + lost))[0]
        )
        setting = f"one weight, eta = {eta}, 2000 updates"
        # times are whole nanoseconds of some thousands
        yield judged(
            f"w/w*, l = {lost}, lam = {lam}",
            "Krogh and Hertz 1992",
            setting,
            predicted / w_star,
            float(w[0]) / w_star,
            0.0,
            1e-3,
        )


def stuck_weights(seed: int) -> Iterator[Row]:
    """Stuck weights leave the minimum of the constrained problem: the others move to make up for
    them, by Schur's complement.
    """
    n = 15
    w_star = np.linspace(-1.0, 1.0, 15)
    objective = general(n, seed, w_star, patterns=64)
    H = objective.hessian(w_star)
    plan = replace(
        PERIODS, trials_per_update=16, eta=1.0 / float(np.linalg.eigvalsh(H)[-1]), seed=seed
    )
    params = chip(die=seed, weights={"stuck_fraction": 0.3, "stuck_value": 0.5})
    w, source = _descended(params, objective, plan, np.zeros(n), 300)
    # which ones are stuck is the die's
    stuck = np.flatnonzero(source.parts(0).die.stuck)
    # theory is given which weights are stuck, and nothing else of the run
    wanted, lost = constrained_minimum(H, w_star, stuck.tolist(), np.full(stuck.size, 0.5))
    setting = (
        f"n = {n}, {stuck.size} of them stuck at 0.5, whole periods of a Walsh code, 300 updates"
    )
    yield judged(
        "E at the end", DERIVED, setting, lost, float(errors(H, w[None], w_star)[0]), 0.0, CONVERGED
    )
    yield judged(
        "largest |w - w_constrained|",
        DERIVED,
        setting,
        0.0,
        float(np.abs(w - wanted).max()),
        0.0,
        1e3 * CONVERGED,
    )
