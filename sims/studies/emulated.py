"""The emulated chip of an experiment as a device, at the other end of a link."""

from dataclasses import replace

import numpy as np

from hardware.bench import Bench
from hardware.link.messages import Hello
from hardware.link.server import Responder
from perturb.errors import InputError
from perturb.training.plan import Plan
from perturb.trial.codes import CODES
from sims.experiment.schema import Setup
from sims.problem import Array, Problem, prepare, starts_of, warmed_up
from sims.studies.training.options import Training
from sims.studies.training.task import plan_of


def start_of(experiment: Setup, problem: Problem, run: int) -> Array:
    """Where a run of the experiment's training starts, (n,)."""
    if experiment.options(Training).layers is not None:
        raise InputError(
            "training.layers is for emulated chips, whose other weights are set: leave it out"
        )
    w = starts_of(problem.network, experiment, run + 1)[run]
    return warmed_up(w, problem.objective, experiment)


def plan_of_run(experiment: Setup, problem: Problem, w: Array, run: int) -> Plan:
    """How a run learns: by itself what it does beside others; calibrated on the emulator."""
    options = experiment.options(Training)
    plan = plan_of(experiment)
    if plan.calibrate:
        plan = plan.calibrated(problem.objective, w, options.updates)
    return replace(plan, first_run=run)


def responder_of(
    experiment: Setup,
    problem: Problem | None = None,
    run: int = 0,
    real_time: bool = False,
    by_itself: bool = True,
) -> Responder:
    """The die of a run of an experiment, safe at its starting weights. by_itself: whether it can
    perturb by itself.
    """
    problem = problem or prepare(experiment)
    w = start_of(experiment, problem, run)
    chip = experiment.made_chip().of_run(run)
    estimation = experiment.estimation
    seed = plan_of(experiment).seed_of(run)
    bench = Bench(chip, problem.objective, w, estimation.method, estimation.code, seed)
    # weights that cannot be set beyond their converter's range
    range_ = chip.weights.range if chip.weights.bits else None
    hello = Hello(
        w.size,
        name=f"{experiment.name}, emulated",
        unit="1",
        low=None if range_ is None else -range_,
        high=range_,
        codes=tuple(CODES) if by_itself else (),
    )
    safe = w if range_ is None else np.clip(w, -range_, range_)
    return Responder(bench, safe, hello, real_time)
