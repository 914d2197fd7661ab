"""Training on a chip: the sums of its synapses change its weights, through its devices.

Sources of updates for `training.loop.train`, with every imperfection of the chip: in batches, or
event by event. A run has a die: see `ChipParams.of_run`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hardware.assembly import realized_code
from hardware.on_chip import OnChip, on_chip
from hardware.params import ChipParams, differing, engines
from hardware.parts.die import fabricate
from hardware.parts.weight_store import WeightStore
from hardware.timing import TrainingTiming, check_fifo
from perturb.estimation.meter import Mismatch
from perturb.training.loop import Source
from perturb.training.of_runs import Learned
from perturb.training.plan import Plan, State
from perturb.training.sources import Batch

Array = np.ndarray


def source(
    params: ChipParams,
    objective: Learned,
    plan: Plan,
    w: Array,
    events: bool = False,
    waits: bool = True,
    dies: Sequence[int] | None = None,
) -> Source:
    """The source of updates of a chip that learns, for `perturb.training.train`.

    Parameters
    ----------
    params : ChipParams
    objective : Objective or OfRuns
        Shared by all runs, or with other weights held in each, which are on no device of the chip.
    plan : Plan
        What is measured, and how it changes the weights.
    w : array (R, n)
        Starting weights of R runs.
    events : bool
        Whether every trial is simulated in time; else trials are computed in batches, with the
        times of `hardware.timing.TrainingTiming`.
    waits : bool
        Whether the next trial waits until an update has been written.
    dies : sequence of int, optional
        Of run r the die `params.of_run(dies[r])`; left out, run r has number r. Whatever its die,
        a run has perturbations and noise of its own.

    Returns
    -------
    Batch or OnChip
        The first that knows all imperfections of the chip: `perturb.training.sources.Batch`, its
        weights in devices where the chip has them, or the chip itself.

    Raises
    ------
    InputError
        If the FIFO is too short for the bus latency without `events`, or the plan is not one for a
        chip.

    Notes
    -----
    For the same plan and seed, events and batches write the same weights.

    Examples
    --------
    >>> import numpy as np, perturb, hardware
    >>> from hardware.training import source
    >>> from perturb.training import Plan
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[0.5]])
    >>> type(source(hardware.load_chip("ideal"), objective, Plan(), np.zeros((2, 2)))).__name__
    'Batch'
    """
    known = engines(params)
    chips = params.of_runs(len(w), dies)
    # a rate measured by trials would miss what `marks.UNSEEN` marks
    seen = plan.rate in ("fixed", "line") or not differing(params, "unseen")
    if not events and waits and seen and known <= {"kernels", "stores"}:
        check_fifo(params, TrainingTiming(params, objective.of_run(0), plan, waits))
        plan = replace(plan, code=realized_code(params, plan.code, objective.n_weights))
        mismatch = None
        # without layers: no kernel knows imperfections of neurons, so that here they have none
        made = [fabricate(chip, objective.n_weights, []) for chip in chips]
        stuck = np.array([die.stuck for die in made])
        if stuck.any() and (plan.method.displaced or plan.readings_of_an_update):
            # `Batch` would displace stuck weights along v or the step
            return on_chip(params, objective, plan, w, events, waits, dies)
        if params.perturbation.gain_mismatch or params.perturbation.offset_mismatch or stuck.any():
            gain = np.array([die.gain for die in made])
            offset = np.array([die.offset for die in made])
            # stuck weights feel nothing of a perturbation
            mismatch = Mismatch(np.where(stuck, 0.0, gain), np.where(stuck, 0.0, offset))
        if known <= {"kernels"}:
            return Batch(objective, plan, mismatch=mismatch)
        stores = [
            WeightStore(chip, stuck[run], w[run], plan.seed_of(run))
            for run, chip in enumerate(chips)
        ]
        # `Batch` knows no time: for devices that hold what is written only
        if not stores[0].changes:
            return Batch(objective, plan, mismatch=mismatch, weights=DeviceWeights(stores))
    return on_chip(params, objective, plan, w, events, waits, dies)


def held_weights(source: Source, state: State) -> tuple[Array, Array]:
    """What the devices of every run hold, once its updates are written.

    Parameters
    ----------
    source : Source
        Of `source`, or any other: without devices the weights are held as they are.
    state : State
        Where it stands.

    Returns
    -------
    held : array (R, n)
        Weights without what a reading adds to them: write noise, 1/f noise.
    level : array (R, n) of int
        The number of the level that each is at, from 0, lowest first; -1 where there are none.

    Notes
    -----
    With weights.bits, held = -range + level 2 range/2^bits.

    Examples
    --------
    >>> import numpy as np, perturb, hardware
    >>> from hardware.training import held_weights, source
    >>> from perturb.training import Plan, begin
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[0.5]])
    >>> chip = hardware.load_chip("ideal")
    >>> chip = chip.model_copy(update={"weights": chip.weights.model_copy(update={"bits": 2})})
    >>> w = np.array([[0.2, -1.0]])
    >>> held, level = held_weights(source(chip, objective, Plan(), w), begin(w, Plan()))
    >>> bool((held == -4 + level * 8 / 4).all()), level.tolist()
    (True, [[2, 2]])
    """
    if isinstance(source, OnChip):
        now_ns = source.now_ns(state.update)
        runs = range(len(state.w))
        found = [source.written(run, state.update).held(now_ns) for run in runs]
    elif isinstance(source, Batch) and isinstance(source.weights, DeviceWeights):
        # time 0: these devices do not change between writes
        found = [store.held(0) for store in source.weights.stores]
    else:
        return state.w.copy(), np.full(state.w.shape, -1)
    return np.array([held for held, _ in found]), np.array([level for _, level in found])


def some_runs(state: State, first: int, last: int) -> State:
    """The state of some of the runs, as a source of these alone has it.

    Parameters
    ----------
    state : State
        Of a source of `source`.
    first, last : int
        The first of the runs, and the one behind the last.

    Returns
    -------
    State
        Its arrays are copies.

    Examples
    --------
    >>> import numpy as np
    >>> from hardware.training import join_runs, some_runs
    >>> from perturb.training import Plan, begin
    >>> whole = begin(np.eye(3), Plan(rule="momentum"))
    >>> parts = [some_runs(whole, 0, 1), some_runs(whole, 1, 3)]
    >>> len(parts[1].memory["m"]), bool((join_runs(parts).w == whole.w).all())
    (2, True)
    """
    extra = {}
    for name, array in state.extra.items():
        # of `OnChip` "run.name", of `DeviceWeights` a row for each run
        run, _, rest = name.partition(".")
        if not rest:
            extra[name] = array[first:last].copy()
        elif first <= int(run) < last:
            extra[f"{int(run) - first}.{rest}"] = array
    return State(
        state.w[first:last].copy(),
        state.update,
        state.trial,
        state.evaluations,
        {name: array[first:last].copy() for name, array in state.memory.items()},
        state.failed[first:last].copy(),
        extra,
    )


def join_runs(parts: Sequence[State]) -> State:
    """The state of all runs, of states that `some_runs` gave and that went equally far.

    Parameters
    ----------
    parts : sequence of State
        In the order of their runs.

    Returns
    -------
    State
    """
    extra: dict[str, Array] = {}
    before = 0
    for part in parts:
        for name, array in part.extra.items():
            run, _, rest = name.partition(".")
            if rest:
                extra[f"{int(run) + before}.{rest}"] = array
        before += len(part.w)
    one = parts[0]
    rows = [name for name in one.extra if "." not in name]
    extra |= {name: np.concatenate([part.extra[name] for part in parts]) for name in rows}
    return State(
        np.concatenate([part.w for part in parts]),
        one.update,
        one.trial,
        one.evaluations,
        {name: np.concatenate([part.memory[name] for part in parts]) for name in one.memory},
        np.concatenate([part.failed for part in parts]),
        extra,
    )


class DeviceWeights:
    """The weights of `training.sources.Batch` in devices, a store for each run, that do not change
    between writes: for every rule of learning.
    """

    def __init__(self, stores: list[WeightStore]):
        self.stores = stores

    def begin(self, state: State) -> None:
        # what devices make of the start, which they hold only as nearly as they can
        state.w[:] = [store.weights(0) for store in self.stores]

    def write(self, state: State, change: Array, update: int) -> None:
        for run, store in enumerate(self.stores):
            # time 0: these devices do not change between writes
            store.add(change[run], update, 0)
            state.w[run] = store.weights(0)

    def store(self, state: State) -> None:
        parts = [store.arrays() for store in self.stores]
        state.extra = {name: np.array([part[name] for part in parts]) for name in parts[0]}

    def resume(self, state: State) -> None:
        for run, store in enumerate(self.stores):
            store.restore({name: array[run] for name, array in state.extra.items()})
