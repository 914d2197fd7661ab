"""What sources of updates share: the change of the weights by the rule, and its writing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from perturb.estimation.engine import has_kernel
from perturb.kernels.activations import ACTIVATION_KINDS, ERROR_KINDS
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.threads import n_threads
from perturb.training.plan import RULES, Plan, State, count_updates
from perturb.training.rates import rates_at
from perturb.training.rules import Inputs, begin_steps, directions, wanted_change

Array = np.ndarray
Write = Callable[
    [State, Array, int], None
]  # (state, wanted changes (R, n), number of the update): changes state.w


def has_update_kernel(objective: Objective, plan: Plan) -> bool:
    return has_kernel(objective) and RULES[plan.rule].kind >= 0 and plan.rate == "fixed"


def architecture(objective: MLPObjective) -> tuple[Array, Array, int]:
    net = objective.network
    return (
        np.array(net.layers),
        np.array([ACTIVATION_KINDS[name] for name in net.activations]),
        ERROR_KINDS[net.error],
    )


def each_run(one: Callable[[int], None], runs: int, threads: int | None) -> None:
    with ThreadPoolExecutor(threads or n_threads()) as pool:
        for job in [pool.submit(one, run) for run in range(runs)]:
            job.result()


def write_in_full(state: State, change: Array, update: int) -> None:
    state.w += change


def update_weights(
    plan: Plan,
    state: State,
    update: int,
    G: Array,
    D: Array,
    dE: Array,
    product: Callable[[Array], Array],
    write: Write,
) -> None:
    """Change the weights by the rule from g (R, n), D and dE of the last trial, and products z =
    Hv.
    """
    curved, V = G, directions(plan, len(G), update, G.shape[1])
    if plan.uses_signs:
        curved = product(V)
    elif RULES[plan.rule].z == "products":
        steps = begin_steps(plan, G)
        for _ in range(plan.cg_steps):
            steps.go_on(product(steps.d))
        curved = steps.p
    rates = rates_at(plan, state, update)
    change = wanted_change(Inputs(plan, state.memory, rates, update, G, D, dE, V, curved))
    alive = state.failed < 0
    change[~alive] = 0.0
    write(state, change, update)
    count_updates(state, plan, 1)
