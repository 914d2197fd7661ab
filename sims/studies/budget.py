"""The study "budget": trials, time and energy to a wanted accuracy, and what to improve first,
without simulating a trial.
"""

import math
from collections.abc import Callable, Iterator

import pandas as pd

from hardware.assembly import realized_code
from hardware.error_noise import ErrorVaries
from hardware.params import ChipParams, marked, value_of, with_value
from hardware.timing import Timing
from perturb.theory.estimates import predict
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.experiment.schema import Setup
from sims.problem import Fact, Problem, Progress, ShouldStop, Study, facts, raise_if_stopped
from sims.studies.dies import Dies

Spent = dict[str, tuple[float, float, float]]  # quantity: trials, seconds, joules to the accuracy


def budget(
    experiment: Setup, problem: Problem, progress: Progress, should_stop: ShouldStop
) -> Study:
    """Tables summary (facts) and sensitivities: what each parameter, made half (or twice) as large,
    saves.

    Trials by `perturb.predict` with all noise of the error that has a closed form, see
    `hardware.error_noise`; time and energy by the chip's schedule. Mismatch, neurons, wires and
    what else is not noise of the error are left to `perturb ablate`.
    """
    e = experiment.estimation
    accuracy = experiment.options(Dies).accuracy
    method = METHODS[e.method]
    # code lfsr: with a register in every tile, where the chip has them
    code = realized_code(experiment.chip, CODES[e.code], problem.w.size)
    known = problem.curvatures(e.presentation)
    presented = problem.objective.n_patterns if e.presentation == "batch" else 1
    varies = ErrorVaries(problem.objective, problem.w, e.sigma, presented)

    def spent(chip: ChipParams) -> Spent:
        noise = varies.on(chip).variance ** 0.5
        predicted = predict(
            problem.objective,
            problem.w,
            problem.v,
            method,
            code,
            e.sigma,
            e.r,
            noise,
            e.presentation,
            known,
            seed=experiment.run.seed,
        )
        # of the changed chip: a parameter may save time without saving trials
        schedule = Timing(chip, problem.objective, method, presented)
        times = more_trials(chip)
        each = {}
        for quantity in method.quantities:
            # what is not noise of the error multiplies the trials instead
            trials = getattr(predicted, quantity).trials_for(accuracy) * times
            each[quantity] = (trials, schedule.time_s(trials), schedule.energy_j(trials))
        return each

    now = spent(experiment.chip)
    why = varies.on(experiment.chip).why
    unknown = f"; not known: {why}" if why else ""
    # of one trial and its parts, which `spent` does not tell
    schedule = Timing(experiment.chip, problem.objective, method, presented)
    # z where the method estimates it
    quantity = method.quantities[-1]
    found = [Fact("trial_time", schedule.trial_ns * 1e-9, "chip time of one trial", unit="s")]
    found += [
        Fact("time_share", share, "share of a trial's time", part, "share")
        for part, share in schedule.busy.items()
    ]
    says = f"to a cosine of {accuracy:g}, by theory; inf = never{unknown}"
    for name, (trials, seconds, joules) in now.items():
        measured = trials * method.evaluations_per_trial
        found += [
            Fact("trials", trials, says, name),
            Fact("evaluations", measured, "measurements of E for it", name),
            Fact("chip_time", seconds, "chip time for it", name, "s"),
            Fact("energy", joules, "energy for it", name, "J"),
        ]
    # an interrupted study has what it takes, and the parameters that were looked at
    yield "summary", facts(found)
    table = pd.DataFrame()
    for table in sensitivities(experiment.chip, now, spent):
        yield "sensitivities", table
        raise_if_stopped(should_stop)
    improving = [row for row in table.to_dict("records") if row["quantity"] == quantity]
    if improving:
        best = max(improving, key=lambda row: row["time_saved"])
        says = f"share of the time saved by {best['change']} of {best['key']}"
        found.append(Fact("improve_first", best["time_saved"], says, unit="share"))
    yield "summary", facts(found)


def sensitivities(
    chip: ChipParams, now: Spent, spent: Callable[[ChipParams], Spent]
) -> Iterator[pd.DataFrame]:
    """What each parameter, made half (or twice) as large, saves, again after every one: first for
    z (or else the gradient), and what saves most of time and energy together.
    """
    last = list(now)[-1]
    names = ["key", "value", "change", "quantity", "trials_saved", "time_saved", "energy_saved"]
    rows: list[tuple] = []
    for key, times in marked("better").items():
        better = changed(chip, key, times)
        if better is None:
            continue
        value = float(value_of(chip, key))
        change = "twice" if times > 1 else "half"
        then = spent(better)
        for name, before in now.items():
            saved = (_saved(*pair) for pair in zip(before, then[name], strict=True))
            rows.append((key, value, change, name, *saved))
        # row[5], row[6]: shares of time and of energy that are saved
        ranked = sorted(rows, key=lambda row: (row[3] != last, -row[5] - row[6]))
        yield pd.DataFrame(ranked, columns=names)
    # nothing that could be better: a table without rows
    if not rows:
        yield pd.DataFrame(columns=names)


def _saved(before: float, after: float) -> float:
    # nothing is saved of what is infinite or zero already; inf / inf would be NaN
    return 1 - after / before if math.isfinite(before) and before > 0 else 0.0


def changed(chip: ChipParams, key: str, times: float) -> ChipParams | None:
    """The chip with one figure so many times as large, whole where it was whole; None where that
    changes nothing.
    """
    value = value_of(chip, key)
    # integers are rounded down: half of a word of one bit would be none
    new = type(value)(value * times)
    if new == value or (key == "bus.word_bits" and new < 1):
        return None
    return with_value(chip, key, new)


def more_trials(chip: ChipParams) -> float:
    """How many times as many trials: settling 1/(1 - a^2), lost broadcasts 1/(1 - p), a
    comparator pi/2.
    """
    p = chip.perturbation
    drops = chip.bus.drop_probability
    # residual a: variance n/(1 - a^2), see perturb/README.md, Imperfections
    left = math.exp(-p.settle_ns / p.tau_ns) if p.tau_ns else 0.0
    if left >= 1 or drops >= 1:
        return math.inf
    return (math.pi / 2 if chip.error_unit.one_bit else 1.0) / (1 - left**2) / (1 - drops)
