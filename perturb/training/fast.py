"""The compiled path: which plans it knows, and runs of them shared out among threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from perturb.estimation.engine import has_kernel
from perturb.estimation.meter import Mismatch
from perturb.kernels.activations import ACTIVATION_KINDS, ERROR_KINDS
from perturb.kernels.training import (
    Broadcast,
    Held,
    Network,
    Perturbing,
    Updates,
    descend,
    learn,
)
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective, RestrictedObjective
from perturb.threads import n_threads
from perturb.training.of_runs import Learned, OfRuns
from perturb.training.plan import Plan, State, count_updates
from perturb.training.presentation import presented
from perturb.training.rules import RULES

Array = np.ndarray
SHOWN = 2**20  # patterns whose numbers are drawn at once: some MB


def has_update_kernel(objective: Learned, plan: Plan) -> bool:
    return isinstance(objective, Objective) and has_kernel(objective) and _has_kernel(plan)


def _has_kernel(plan: Plan) -> bool:
    # a rate that is measured and a step that is judged need readings between the updates
    return RULES[plan.rule].kind >= 0 and plan.rate == "fixed" and not plan.block


def has_trial_kernel(objective: Learned, plan: Plan) -> bool:
    """Also where runs learn some of their weights."""
    whole, code = _whole(objective), plan.code
    own = code.function is not None or code.sensing != 0
    # the kernel displaces by D alone, not along v
    return has_kernel(whole) and _has_kernel(plan) and not own and not plan.method.displaced


def _whole(objective: Learned) -> Objective:
    """E of all weights."""
    if isinstance(objective, OfRuns):
        return objective.objective
    return objective.all if isinstance(objective, RestrictedObjective) else objective


def _held(objective: Learned) -> list[Held]:
    """What each run holds; a single one if all hold the same, or nothing."""
    if isinstance(objective, OfRuns):
        return [Held(w, objective.free) for w in objective.W]
    if isinstance(objective, RestrictedObjective):
        # a copy: the kernel is compiled for arrays that can be written
        return [Held(objective.held.w.copy(), objective.held.free)]
    return [Held(np.zeros(0), np.zeros(0, int))]


def _network(objective: Objective, kind: type) -> Network:
    """The network and its data, as numbers of this kind."""
    assert isinstance(objective, MLPObjective)
    net = objective.network
    return Network(
        np.array(net.layers),
        np.array([ACTIVATION_KINDS[name] for name in net.activations]),
        ERROR_KINDS[net.error],
        np.ascontiguousarray(objective.x, kind),
        np.ascontiguousarray(objective.target, kind),
    )


def _each_run(
    one: Callable[[int, int, int], tuple[int, int]],
    state: State,
    plan: Plan,
    updates: int,
    threads: int | None,
) -> None:
    """The next updates of every run: one(run, first, last) does some of them, and gives up to which
    it got and the trial that failed, or -1.
    """
    # `State.going` makes a new array at each access; this one takes the runs that fail
    last, going = state.update + updates, state.going

    def whole(run: int) -> None:
        begun = state.update
        while begun < last and going[run]:
            begun, failed = one(run, begun, last)
            if failed >= 0:
                state.failed[run], going[run] = failed, False

    # kernels release the interpreter's lock, so threads are enough
    with ThreadPoolExecutor(threads or n_threads()) as pool:
        for job in [pool.submit(whole, run) for run in range(len(state.w))]:
            job.result()
    # after all runs have ended: each begins from state.update
    count_updates(state, plan, updates)


def _updates(plan: Plan, every: int, first: int, last: int) -> Updates:
    numbers, ones = np.arange(first, last), np.ones(last - first)
    # one number for every update, also where the rate or sigma is the same for all
    rates, sigmas = plan.eta / (plan.divisor(numbers) * ones), plan.sigma_at(numbers) * ones
    return Updates(
        RULES[plan.rule].kind,
        plan.momentum,
        every,
        first,
        rates,
        sigmas,
        plan.longest_step,
        plan.average_from,
    )


def _remembered(state: State) -> tuple[Array, Array]:
    """Momentum and mean of every run, or zeros that nobody reads."""
    none = np.zeros_like(state.w)
    return state.memory.get("m", none), state.memory.get("mean", none)


def learn_in_kernel(
    objective: Learned,
    plan: Plan,
    mismatch: Mismatch | None,
    state: State,
    updates: int,
    threads: int | None,
) -> None:
    """Updates by trials whose evaluations are float32."""
    n, S, K = objective.n_weights, objective.n_patterns, plan.trials_per_update
    B, reading, phases = plan.batch or S, plan.reading, plan.method.phases
    network, (m, mean) = _network(_whole(objective), np.float32), _remembered(state)
    held = _held(objective)
    gain, offset = mismatch or (np.ones_like(state.w), np.zeros_like(state.w))
    broadcast = Broadcast(
        np.array([float(a) for a, _ in phases]),
        np.array(plan.method.gradient_weights),
        np.array([plan.baseline_free and phase == (0, 0) for phase in phases], np.int64),
        np.float32(reading.noise),
        np.float32(reading.step),
        np.float32(reading.range - reading.step),
    )
    every = plan.sample_every if B < S else 2**62  # all patterns: nothing changes

    def one(run: int, begun: int, last: int) -> tuple[int, int]:
        end = min(last, begun + max(1, SHOWN // (B * K)))
        # presentations of trials begun K to end K - 1; rows[0] is the first of them
        from_, to = begun * K // every, (end * K - 1) // every
        seed = plan.seed_of(run)
        rows = presented(seed, from_, to - from_ + 1, B, S) if B < S else np.arange(S)[None]
        perturbing = Perturbing(
            plan.code.kind,
            plan.code.period(n),
            plan.code.taps(n),
            np.uint64(seed),
            gain[run],
            offset[run],
            plan.perturb_every,
        )
        rule = _updates(plan, K, begun, end)
        own = held[run if len(held) > 1 else 0]
        w = state.w[run]
        return end, learn(
            network, own, rows, every, perturbing, broadcast, rule, w, m[run], mean[run]
        )

    _each_run(one, state, plan, updates, threads)


def descend_in_kernel(
    objective: Objective,
    plan: Plan,
    rows_of: Callable[[int, int, int], tuple[Array, int]],
    state: State,
    updates: int,
    threads: int | None,
) -> None:
    """Updates by exact gradients; rows_of(run, first, last): the patterns that updates show
    from `first` on, (updates, patterns) or (1, patterns) if they are the same for all, and up to
    which of them.
    """
    network, (m, mean) = _network(objective, np.float64), _remembered(state)

    def one(run: int, begun: int, last: int) -> tuple[int, int]:
        rows, end = rows_of(run, begun, last)
        rule = _updates(plan, 1, begun, end)
        failed = descend(network, rows, rule, state.w[run], m[run], mean[run])
        # the first trial of that update; -1 stays negative
        return end, failed * plan.trials_per_update

    _each_run(one, state, plan, updates, threads)
