"""The study "training": does the chip learn the task, in how much chip time and energy, and how far is it from ideal?

Several starts, each on a die and with a seed of its own, learn side by side; so does the exact gradient, from the same starts.
What is recorded along the way (exact errors, accuracies, alignment) is computed outside the loop and costs the chip nothing.
"""

import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binomtest

from hardware.learning import OnChip, Written, source
from hardware.schedule import Course, Schedule
from perturb import curvature
from perturb.errors import InputError
from perturb.networks.boltzmann import Boltzmann
from perturb.networks.mlp import MLPObjective
from perturb.networks.objective import Objective
from perturb.seeds import SCHEME
from perturb.theory.amplitude import best_sigma
from perturb.theory.learning_curves import averaging_gain, quadratic_curve, stability_limit
from perturb.training.loop import Exact, Plan, Source, State, begin, train
from perturb.training.plan import begin_steps
from perturb.trial.codes import CODES, Code
from perturb.trial.methods import METHODS
from perturb.trial.readout import Reading
from sims.bench import Array, Bench, Progress, ShouldStop, Stopped, Study, facts, warmed_up
from sims.classes import Classes, accuracy, balanced_accuracy
from sims.datasets import class_names, load_split
from sims.experiment.loading import to_toml
from sims.experiment.schema import Experiment, Measured
from sims.store import write_whole

EIGENVALUES = 500  # weights up to which the stability limit is from the whole spectrum
PROBES, STEPS = 10, 40  # of the quadrature for more
PREDICTED = 150  # weights up to which the curve of a quadratic is predicted
FORESEEN = 100_000  # updates, of all runs together, up to which it is
AWAY = 1e4  # times the error at the start: a run that has diverged, though rounding may hold it there
DIGEST = 32  # bytes at the head of a file that keeps a training, of what follows
LOOKED = 64  # patterns whose own gradients are looked at, for what a converter does to them
CROSSING = 4  # patterns that should cross a step of the converter in a trial
PIECES = 10  # of the updates between two records, so that an interruption is heard


@dataclass(frozen=True)
class Task:
    """What is learned. test: None if no patterns are held back. classes: without names if targets are numbers."""

    objective: Objective
    test: Objective | None
    classes: Classes

    @property
    def parts(self) -> list[tuple[str, str, Objective]]:
        """(how columns of it begin, its name, its objective) of the patterns learned and of those held back."""
        return [("", "learned", self.objective), *([("test_", "held back", self.test)] if self.test else [])]


def training(experiment: Experiment, bench: Bench, progress: Progress, should_stop: ShouldStop) -> Study:
    """Tables advice, learning (a row per source, run and record), confusion and summary (facts); see `reports.frames`."""
    options, plan = experiment.training, plan_of(experiment)
    task = _task(experiment, bench)
    _check(experiment, task)
    learning = contenders(experiment)
    W = np.array([warmed_up(bench.network, task.objective, experiment, run) for run in range(options.runs)])
    limits, advised = advice(experiment, task.objective, W[0], plan, _course(experiment, task, plan).schedule)
    listed = []  # all made before the first result: a setting that cannot be ends everything
    for name, settings, updates in learning:
        own = plan_of(settings)
        made: Source = Exact(task.objective, own)
        if name != "exact":
            made = source(experiment.made_chip(), task.objective, own, W, options.source == "event", options.waits)
        listed.append((name, made, own, updates, _course(experiment, task, own)))
    yield "advice", advised

    table, confused = pd.DataFrame(), pd.DataFrame(columns=CONFUSION)
    stopped = False
    for name, made, own, updates, course in listed:
        rows: list[dict] = []
        W_end = W
        for new, weights in rows_of(name, made, W, own, updates, experiment, task, course, bench.scratch, progress):
            rows, W_end = rows + new, weights
            if stopped := should_stop():
                break
        if rows:
            learned = pd.DataFrame(rows)
            if name != "exact":
                learned["predicted_error"] = predicted(task.objective, W, own, learned)
            table = pd.concat([table, learned], ignore_index=True)
            yield "learning", table
            confused = pd.concat([confused, confusions(name, W_end, task)], ignore_index=True)
            yield "confusion", confused.astype({"run": int, "count": int})
            yield "summary", facts(*summary(table, experiment, limits, plan))
        if stopped:
            raise Stopped
    if bench.scratch:
        for path in bench.scratch.parent.glob(f"{bench.scratch.name}-*-{_key(experiment)}.npz"):
            path.unlink()


def contenders(experiment: Experiment) -> list[tuple[str, Experiment, int]]:
    """(name, experiment, updates) of everything that learns: the chip, others with as many evaluations, and the control."""
    options, estimation = experiment.training, experiment.estimation
    listed: list[tuple[str, Experiment, int]] = []
    if options.source != "exact":
        plan = plan_of(experiment)
        listed.append((options.source, experiment, options.updates))
        for other in options.compare_with:
            changes: dict[str, Any] = other.model_dump(exclude_none=True, exclude={"label"})
            measured: dict[str, Any] = {key: changes.pop(key) for key in Measured.model_fields if key in changes}
            parts = {"estimation": estimation.model_copy(update=measured), "training": options.model_copy(update=changes)}
            settings = experiment.model_copy(update=parts)
            try:
                updates = plan_of(settings).updates_within(plan.evaluations(options.updates))
            except InputError as error:
                raise InputError(f'training.compare_with, label = "{other.label}": {error}') from None
            if not updates:
                raise InputError(
                    f'training.compare_with, label = "{other.label}": a single update takes more than the '
                    f"{plan.evaluations(options.updates)} evaluations that there are: raise training.updates"
                )
            listed.append((other.label, settings, updates))
    if options.control or options.source == "exact":
        own = {} if options.control_eta is None or options.source == "exact" else {"eta": options.control_eta}
        updates = (options.control_updates if options.source != "exact" else None) or options.updates
        listed.append(("exact", experiment.model_copy(update={"training": options.model_copy(update=own)}), updates))
    return listed


def _course(experiment: Experiment, task: Task, plan: Plan) -> Course:
    return Course(experiment.chip, task.objective, plan, experiment.training.waits)


def plan_of(experiment: Experiment) -> Plan:
    """[training], [estimation] and the error unit of the chip as a plan."""
    estimation, unit = experiment.estimation, experiment.chip.error_unit
    return experiment.training.plan(
        method=METHODS[estimation.method],
        code=CODES[estimation.code],
        sigma=estimation.sigma,
        r=estimation.r,
        seed=experiment.run.seed,
        reading=Reading(unit.noise, unit.bits, unit.range),
    )


def _check(experiment: Experiment, task: Task) -> None:
    """InputError for a batch or a criterion that the task has not."""
    options, S = experiment.training, task.objective.n_patterns
    for batch in (options.batch, *(other.batch or 0 for other in options.compare_with)):
        if batch > S:
            raise InputError(f"training.batch = {batch} but there are {S} patterns: lower it, or 0 for all")
    if options.criterion.startswith("test") and task.test is None:
        raise InputError(
            f'training.criterion = "{options.criterion}" but no patterns are held back: set data.test, or criterion = '
            f'"{options.criterion.removeprefix("test_")}"'
        )
    if options.criterion.endswith("accuracy") and not task.classes.names:
        raise InputError(
            f'training.criterion = "{options.criterion}" but the targets of data.name = "{experiment.data.name}" are no classes: '
            f'set criterion = "{"test_" * options.criterion.startswith("test")}error"'
        )


def _task(experiment: Experiment, bench: Bench) -> Task:
    network = bench.network
    if isinstance(network, Boltzmann):
        return Task(bench.objective, None, Classes(()))
    _, target, x_test, target_test = load_split(experiment.data, network.n_inputs, network.n_outputs)
    classes = Classes.of(target, network.error, class_names(experiment.data))
    return Task(bench.objective, network.objective(x_test, target_test) if len(x_test) else None, classes)


# ---- the loop and its records


def rows_of(
    name: str, source: Source, W: Array, plan: Plan, updates: int, experiment: Experiment, task: Task, course: Course,
    scratch: Path | None, progress: Progress,
) -> Iterator[tuple[list[dict], Array]]:  # fmt: skip
    """The rows of `learning` of one source, record by record, and the weights of the last (no rows between records, so that the
    caller can stop there).

    What was done is kept in a file beside the results, and taken up again from there: to the same bits.
    """
    kept = Kept(scratch, f"{name}-{_key(experiment)}", source)
    seeds = [experiment.seeds_of(run) for run in range(len(W))]
    state, rows, before = kept.read() or (begin(W, plan), [], W.copy())
    if rows:
        yield rows, before
    for time in _times(updates, experiment.training.records):
        if rows and time <= state.update:
            continue
        if time > state.update:
            for _ in train(source, state, time, max(1, (time - state.update) // PIECES)):
                progress(name, state.update, updates)
                yield [], before
        ended = bool((state.failed >= 0).all())
        new = [row | seeds[row["run"]] for row in records(name, state, before, plan, task, course)]
        for row, at_start in zip(new, rows, strict=False):
            row["diverged"] |= row["error"] > AWAY * at_start["error"]
        rows, before = rows + new, state.w.copy()
        kept.write(state, rows, before)
        yield new, before
        if ended or all(row["diverged"] for row in new):
            return


def _times(updates: int, records: int) -> list[int]:
    """Updates at which records are made: half of them evenly spaced, half so in the logarithm, for what is learned soon."""
    even, soon = np.linspace(0, updates, records // 2 + 1), np.geomspace(1, updates, records - records // 2)
    return sorted({round(time) for time in (*even, *soon)})


def _key(experiment: Experiment) -> str:
    return hashlib.sha256(f"{SCHEME}\n{to_toml(experiment)}".encode()).hexdigest()[:16]


def records(name: str, state: State, before: Array, plan: Plan, task: Task, course: Course) -> list[dict]:
    """A row per run, of its weights as they are. before: those at the last record."""
    rows, exact = [], name == "exact"
    time_s, energy_j = course.time_s(state.update), course.energy_j(state.update)
    for run, w in enumerate(state.w):
        with np.errstate(all="ignore"):
            moved = w - before[run]
            towards = -task.objective.gradient(before[run]) if moved.any() else np.zeros_like(w)
            sizes = float(np.linalg.norm(moved) * np.linalg.norm(towards))
            ends: dict[str, float] = dict.fromkeys(ENDS, math.nan)
            for prefix, _, objective in task.parts:
                confusion = task.classes.confusion(objective, w) if task.classes.names else np.empty((0, 0))
                ends |= {f"{prefix}error": objective.error(w), f"{prefix}accuracy": accuracy(confusion)}
                ends[f"{prefix}balanced_accuracy"] = balanced_accuracy(confusion)
            rows.append(
                {
                    "source": name, "run": run, "update": state.update, "trials": 0 if exact else state.trial,
                    "evaluations": 0 if exact else state.evaluations, "chip_time_s": math.nan if exact else time_s,
                    "energy_j": math.nan if exact else energy_j, **ends,
                    "alignment": float(moved @ towards) / sizes if sizes > 0 else math.nan,
                    "rate": float(state.memory["eta"][run] * plan.eta) if "eta" in state.memory else plan.eta,
                    "diverged": bool(state.failed[run] >= 0 or not math.isfinite(ends["error"])),
                    "still": bool(state.update > 0 and not moved.any()), "predicted_error": math.nan,
                }
            )  # fmt: skip
    return rows


CONFUSION = ["source", "run", "patterns", "truth", "classified", "count"]


def confusions(name: str, W: Array, task: Task) -> pd.DataFrame:
    """How often each class was taken for which by the weights of every run, the diagonal and what is not zero."""
    rows = []
    for run, w in enumerate(W):
        for _, part, objective in task.parts if task.classes.names else []:
            confusion = task.classes.confusion(objective, w)
            shown = (confusion > 0) | np.eye(len(confusion), dtype=bool)
            for i, j in zip(*np.nonzero(shown), strict=True):
                rows.append((name, run, part, task.classes.names[i], task.classes.names[j], int(confusion[i, j])))
    return pd.DataFrame(rows, columns=CONFUSION)


class Kept:
    """The state and the rows so far, in a file with a digest, whole or not at all; nowhere, without a place for it."""

    def __init__(self, scratch: Path | None, name: str, source: Source):
        self.path = scratch.parent / f"{scratch.name}-{name}.npz" if scratch else None
        self.source = source

    def read(self) -> tuple[State, list[dict], Array] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        if _digest(content[DIGEST:]) != content[:DIGEST]:
            return None  # not of this program, or damaged: from the start then
        with np.load(io.BytesIO(content[DIGEST:]), allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        columns = {name.removeprefix("row."): array.tolist() for name, array in parts.items() if name.startswith("row.")}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        state = State.of_arrays(
            {name.removeprefix("state."): array for name, array in parts.items() if name.startswith("state.")}
        )
        if state.update and isinstance(self.source, OnChip | Written):
            self.source.resume(state)
        return state, rows, parts["before"]

    def write(self, state: State, rows: list[dict], before: Array) -> None:
        if self.path is None:
            return
        parts = {f"state.{name}": array for name, array in state.arrays().items()}
        parts |= {f"row.{name}": np.array([row[name] for row in rows]) for name in rows[0]} | {"before": before}
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **parts)
        write_whole(self.path, _digest(content.getvalue()) + content.getvalue())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# ---- theory


@dataclass(frozen=True)
class Limits:
    """At the start: tr H, the sum of its positive eigenvalues, the largest, and the rate at which updates cease to be stable, by
    theory of a quadratic (see `stable_rate`); all eigenvalues and eigenvectors, if they were computed."""

    trace: float
    positive: float
    largest: float
    eta: float
    values: Array | None = None
    vectors: Array | None = None


def stable_rate(
    values: Array, weights: Array | None = None, K: int = 1, momentum: float = 0.0, code: str | Code = "gaussian"
) -> float:
    """`stability_limit` of the modes that can be stable: those of positive curvature. The others grow at any rate, until E is no
    longer what it is at the start.

    Checked on 12 networks with negative eigenvalues: half of the runs had a larger error than at the start after 200 updates at
    0.85 to 2.2 times this rate, the error was least at 0.45 to 0.85 times; 2/tr H, where negative eigenvalues count against the
    positive ones, is 1.75 to 3.3 times this rate. weights: of nodes of a quadrature, how many eigenvalues each stands for.
    """
    positive = np.maximum(values, 0.0)
    if weights is None:
        return stability_limit(positive, code, K, momentum)
    stiff = float(weights @ positive) / K + float(positive.max(initial=0.0)) * ((1 - momentum) / (1 + momentum) + 1 / K)
    return 2 * (1 - momentum) / stiff if stiff > 0 else math.inf


def whole_periods(plan: Plan, n: int) -> bool:
    """Whether the trials of an update leave nothing of the other weights, in g and in z."""
    one_sided = (0, 0) in plan.method.phases
    return plan.code.orthogonal and plan.code.periodic and plan.trials_per_update % ((1 + one_sided) * plan.code.period(n)) == 0


def limits_at(objective: Objective, w: Array, plan: Plan) -> Limits:
    """Exact up to 500 weights, as for a Gaussian code, which others with many weights are like; else by stochastic Lanczos
    quadrature."""
    K, mu = plan.trials_per_update, plan.momentum if plan.rule == "momentum" else 0.0
    if w.size <= EIGENVALUES:
        values, vectors = np.linalg.eigh(objective.hessian(w))
        code = plan.code if whole_periods(plan, w.size) else CODES["gaussian"]
        positive = float(np.maximum(values, 0.0).sum())
        return Limits(float(values.sum()), positive, float(values[-1]), stable_rate(values, None, K, mu, code), values, vectors)
    density = curvature.spectral_density(objective, w, PROBES, STEPS)
    values, weights = density.nodes.ravel(), w.size * density.weights.ravel() / len(density.nodes)
    positive = float(weights @ np.maximum(values, 0.0))
    return Limits(float(weights @ values), positive, float(values.max()), stable_rate(values, weights, K, mu))


def updates_to(share: float, u: Array, values: Array, plan: Plan, most: int = 10_000) -> float:
    """Updates by a rule of curvature until a share of E of the modes of positive curvature is left; inf if it is more by then.

    u (n,): the way to the minimum in the eigenbasis. In the mean, with H known without error, and with the noise that g has if it
    is not over whole periods: as in a mode of curvature 1.
    """
    E, noise = 1.0, 0.0 if whole_periods(plan, u.size) else (u.size + 1) / plan.trials_per_update
    for update in range(1, most + 1):
        g, before = values * u, float(values @ u**2)
        p = g / (values + plan.damping)
        if plan.rule == "newton-cg":
            steps = begin_steps(plan, g[None])
            for _ in range(plan.cg_steps):
                steps.go_on(values * steps.d)
            p = steps.p[0]
        u = u - plan.eta * p
        E *= float(values @ u**2) / before + plan.eta**2 * noise if before > 0 else 0.0
        if E <= share:
            return update
        if not E < 1e6:
            break
    return math.inf


def advice(experiment: Experiment, objective: Objective, w: Array, plan: Plan, schedule: Schedule) -> tuple[Limits, pd.DataFrame]:
    """What theory says before anything is run, a row per setting; mind: whether it had better be heeded."""
    chip, limits, K = experiment.chip, limits_at(objective, w, plan), plan.trials_per_update
    rows: list[tuple[str, float, float, bool, str]] = []
    fixed = plan.rate == "fixed" and plan.rule in ("plain", "momentum")
    if fixed:
        over = plan.eta > limits.eta
        why = f"updates are stable below {limits.eta:.3g} at the start (sum of positive eigenvalues {limits.positive:.3g}, the "
        why += f"largest {limits.largest:.3g}; tr H = {limits.trace:.3g})"
        why += ": it is exceeded, and the error may grow, unless E has an upper bound" if over else ""
        rows.append(("training.eta", plan.eta, limits.eta / 2, over, why))
    if plan.rule in ("newton-cg", "newton-mean"):
        rows += _newton_advice(experiment, objective, w, plan, limits)
    if plan.rule in ("plain", "momentum") and K > 1 and limits.values is not None and not whole_periods(plan, w.size):
        H = np.maximum(limits.values, 0.0)
        if H.any():
            most = max(1.0, limits.positive / limits.largest)
            gain = averaging_gain(H, K)
            rows.append(
                (
                    "training.trials_per_update", float(K), math.ceil(most), K > 4 * most,
                    f"averaging {K} trials allows {gain:.1f} times the rate; it pays up to about the sum of positive eigenvalues "
                    "over the largest",
                )
            )  # fmt: skip
    g = float(np.linalg.norm(objective.gradient(w)))
    unit, B = chip.error_unit, plan.batch or objective.n_patterns
    if plan.rule != "keep-if-better":
        spread, step = plan.sigma * g, plan.reading.step
        if step:
            options = experiment.training
            goal = options.goal if options.criterion == "error" else objective.error(w) / 10
            widest = widest_step(objective, w, plan, goal)
            rows.append(
                (
                    "error_unit.bits", float(unit.bits), math.ceil(math.log2(max(2.0, unit.range / max(widest, 1e-300)))),
                    step > widest and not unit.dither,
                    f"a step of the converter is {step:.3g}; {B} patterns, each read by itself, dither one another on the way to "
                    f"E = {goal:.3g} up to a step of {widest:.3g}; learning stalls beyond, where too few of them cross a step",
                )
            )  # fmt: skip
        noise = unit.noise / math.sqrt(B)
        if noise:
            # noise of dE against the gradient's own part of it, which changes with every D
            share = 2 * noise**2 / max(spread**2, 1e-300)
            v = np.ones(w.size)
            best, _ = best_sigma(objective, w, v, plan.method, plan.code, max(2, K), plan.r, noise)
            rows.append(
                (
                    "estimation.sigma", plan.sigma, best, share > 1,
                    f"noise of dE has {share:.2g} times the variance that the gradient gives it; advised: best for an estimate",
                )
            )  # fmt: skip
    lifetime = chip.weights.leak_tau_s or (chip.weights.device.leak.lifetime_s if chip.weights.device.leak else 0.0)
    if lifetime and fixed:
        update_s = 1e-9 * (schedule.trial_ns * K + (schedule.update_ns if experiment.training.waits else 0))
        learned = update_s / max(plan.eta * limits.positive / w.size, 1e-300)
        rows.append(
            (
                "weights.leak_tau_s", lifetime, 10 * learned, lifetime < learned,
                f"a mode of mean curvature learns in {learned:.3g} s of chip time; a leak should be ten times slower",
            )
        )  # fmt: skip
    device = chip.weights.device
    if device.dw_min and fixed:
        typical = plan.eta * g * math.sqrt(1 / K + 1 / w.size)
        rows.append(
            (
                "weights.device", device.dw_min, typical, device.dw_min > 30 * typical,
                f"a pulse changes a weight by {device.dw_min:.3g}, an update wants {typical:.3g}: "
                + (f"some {typical / device.dw_min:.0f} pulses" if typical > device.dw_min else "most updates give none"),
            )
        )  # fmt: skip
    return limits, pd.DataFrame(rows, columns=["setting", "used", "advised", "mind", "why"])


def widest_step(objective: Objective, w: Array, plan: Plan, goal: float) -> float:
    """The widest step q of a converter at which B patterns, each read by itself, dither one another on the way to E = goal.

    A pattern's error lies anywhere in a step, so that the difference of a pair of readings, of mean size d, is read as 0 or as a
    whole step, right in the mean over patterns with a variance of min(q d, q^2/6) (Widrow and Kollar 2008). dE, the mean of half
    of them, has 1/(4 B) of that more, which should not exceed what the gradient itself gives it, sigma^2 |g|^2. `CROSSING` of the
    patterns should cross a step in a trial, B d/q, at the goal too, where d has fallen with E (cross entropy) or with its root:
    with fewer there may be none, and nothing changes any more. All that is less than q/2 is read as 0.
    """
    S, E, g = objective.n_patterns, objective.error(w), float(np.linalg.norm(objective.gradient(w)))
    B, looked = plan.batch or S, np.unique(np.linspace(0, S - 1, min(S, LOOKED)).round().astype(int))
    slopes = np.array([np.linalg.norm(objective.subset(np.array([s])).gradient(w)) for s in looked])
    spread = np.sqrt((2 * plan.sigma * slopes) ** 2 + 2 * plan.reading.noise**2)
    d, own = float(spread.mean()) * math.sqrt(2 / math.pi), 4 * B * (plan.sigma * g) ** 2
    by_noise = max(own / d if d > 0 else 0.0, math.sqrt(6 * own))
    left = min(1.0, goal / E) if E > 0 else 1.0
    entropy = "cross_entropy" in str(getattr(getattr(objective, "network", None), "error", ""))
    return min(by_noise, B * d * (left if entropy else math.sqrt(left)) / CROSSING, 2 * goal)


def _newton_advice(
    experiment: Experiment, objective: Objective, w: Array, plan: Plan, limits: Limits
) -> list[tuple[str, float, float, bool, str]]:
    """Rows of advice for steps that are divided by curvature: whether they pay, and at which rate."""
    n, K = w.size, plan.trials_per_update
    rows: list[tuple[str, float, float, bool, str]] = []
    whole = whole_periods(plan, n)
    if plan.rate == "fixed":
        stable = 2.0 if whole else stability_limit(np.ones(n), "gaussian", K)
        why = f"divided by curvature, all {n} modes are alike, and with g from {K} trials updates are stable below {stable:.3g}"
        rows.append(("training.eta", plan.eta, stable / 2, plan.eta > stable, why))
    if limits.values is None or limits.vectors is None or not limits.largest > 0:
        return rows
    up = limits.values > 1e-9 * limits.largest
    values, g = limits.values[up], objective.gradient(w) @ limits.vectors[:, up]
    # plain, a pair of evaluations an update, at half its stable rate: E is a sum of g_i^2/(2 l_i) exp(-2 eta l_i t)
    excess, eta = g**2 / (2 * values), stable_rate(values) / 2
    E, options, share, until = objective.error(w), experiment.training, 0.1, "to a tenth of the error above the minimum of"
    least = E - float(excess.sum())
    if least < options.goal < E and options.criterion == "error":
        share, until = (options.goal - least) / (E - least), f"to E = {options.goal:g}, if E were"
    if not excess.sum() > 0:
        return rows

    def left(log: float) -> float:
        return float(excess @ np.exp(-2 * eta * values * math.exp(log))) / float(excess.sum()) - share

    plain = 2 * math.exp(brentq(left, -30.0, math.log(-2 * math.log(share) / (eta * float(values[0])))))
    error = 0.0 if whole else math.sqrt((n - 1) / K)
    updates = math.inf
    if plan.rule == "newton-mean" or error < 0.5:
        updates = updates_to(share, g / values, values, plan)
    own = updates * plan.evaluations_of_an_update
    why = f"{until} the parabola at the start this rule takes about {own:.3g} evaluations, "
    why += f"plain at half its stable rate {plain:.3g}"
    if plan.rule == "newton-mean":
        why += "; the mean of H has to be learned besides"
    elif error:
        why += f"; z from {K} trials is wrong by {error:.2g} of its size: use whole periods of code walsh, or newton-mean"
    rows.append(("training.rule, evaluations", own, plain, own > plain, why))
    return rows


def predicted(objective: Objective, W: Array, plan: Plan, table: pd.DataFrame) -> Array:
    """The expected error at every row of one source, where theory knows it: a network without hidden layers and with linear
    outputs, whose E is quadratic, learning from all patterns by the plain rule or with momentum. NaN elsewhere."""
    none = np.full(len(table), math.nan)
    if not isinstance(objective, MLPObjective) or len(objective.network.layers) > 2 or W.shape[1] > PREDICTED:
        return none
    if len(W) * int(table["update"].max()) > FORESEEN:
        return none
    net = objective.network
    pair = (0, 0) not in plan.method.phases
    known = net.activations == ["linear"] and net.error == "squared_error" and plan.rule in ("plain", "momentum")
    whole = plan.batch in (0, objective.n_patterns) and plan.rate == "fixed" and not plan.decay and plan.perturb_every == 1
    if not (known and whole) or plan.code.periodic or plan.reading.bits or plan.method.displaced:
        return none
    H, g = objective.hessian(W[0]), objective.gradient(W[0])
    least = W[0] - np.linalg.lstsq(H, g, rcond=None)[0]
    noise = plan.reading.noise / math.sqrt(objective.n_patterns)
    if not (pair or plan.baseline_free):
        noise *= math.sqrt(2)  # E(w) is read as well
    floor, updates = objective.error(least), int(table["update"].max())
    mu = plan.momentum if plan.rule == "momentum" else 0.0
    for run, w in enumerate(W):
        curve = quadratic_curve(
            H, w, least, plan.eta, plan.sigma, plan.trials_per_update, plan.code, noise, updates, pair, mu
        )  # fmt: skip
        own = (table["run"] == run).to_numpy()
        none[own] = floor + curve[table["update"].to_numpy()[own]]
    return none


# ---- what came of it


def interval(solved: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934)."""
    low, high = binomtest(solved, of).proportion_ci(level, "exact")
    return float(low), float(high)


ENDS = {
    "error": "E on the patterns learned, at the end", "accuracy": "share of them classified rightly, at the end",
    "balanced_accuracy": "mean over the classes of the share classified rightly, at the end",
    "test_error": "E on the patterns held back, at the end", "test_accuracy": "share of them classified rightly, at the end",
    "test_balanced_accuracy": "mean over the classes of the share of those held back classified rightly, at the end",
}  # fmt: skip
SPENT = {
    "update": ("updates", "updates"), "evaluations": ("evaluations", "measurements of E"),
    "chip_time_s": ("chip time", "s of chip time"), "energy_j": ("energy", "J"),
}  # fmt: skip


def summary(table: pd.DataFrame, experiment: Experiment, limits: Limits, plan: Plan) -> list[tuple[str, float, float, str]]:
    """Facts of every source: solved, what it had spent when it got there, and where it ended."""
    options, found = experiment.training, []
    sign = "<=" if options.criterion.endswith("error") else ">="
    ends = table[table["update"] == table.groupby("source")["update"].transform("max")]
    for name in dict.fromkeys(table["source"]):
        own, last = table[table["source"] == name], ends[ends["source"] == name]
        R, solved = len(last), int(reached(last, experiment).sum())
        low, high = interval(solved, R)
        found.append(
            (
                f"{name}: solved", solved / R, math.sqrt(solved * (R - solved) / R**3) or math.nan,
                f"share of {R} runs with {options.criterion.replace('_', ' ')} {sign} {options.goal:g} at the end, 95 % interval "
                f"{low:.2f} to {high:.2f}",
            )
        )  # fmt: skip
        first = own[reached(own, experiment)].groupby("run").first()
        found.append((f"{name}: ever solved", len(first) / R, 0.0, "share of runs that were there at any record"))
        for column, (what, unit) in SPENT.items():
            if name != "exact" or column == "update":
                middle = float(first[column].median()) if len(first) else math.inf
                meaning = f"{unit}, median of the {len(first)} runs that ever got there, when first seen there"
                found.append((f"{name}: {what} to goal", middle, 0.0, meaning))
                found.append((f"{name}: {what}", float(last[column].iloc[0]), 0.0, f"{unit}, of each run"))
        for column, what in ENDS.items():
            values = last[column].dropna()
            if len(values):
                called, spread = column.replace("_", " "), float(values.std(ddof=1)) if len(values) > 1 else math.nan
                worst = float(values.max() if column.endswith("error") else values.min())
                found += [
                    (f"{name}: {called}", float(values.mean()), spread / math.sqrt(len(values)), f"{what}, mean of runs"),
                    (f"{name}: {called}, spread", spread, 0.0, "standard deviation over runs: starts and dies"),
                    (f"{name}: {called}, worst", worst, 0.0, "of all runs"),
                ]
        if last["predicted_error"].notna().any():
            meaning = "E on the patterns learned at the end by theory of a quadratic, mean of runs"
            found.append((f"{name}: error foretold", float(last["predicted_error"].mean()), 0.0, meaning))
        if last["diverged"].any():
            found.append((f"{name}: diverged", float(last["diverged"].mean()), 0.0, "share of runs whose error ran away"))
        still = last["still"] & ~last["diverged"] & ~reached(last, experiment)
        if still.any():
            meaning = (
                "share of runs short of the goal whose weights do not change any more, since the last record but one at least"
            )
            found.append((f"{name}: standing still", float(still.mean()), 0.0, meaning))
        late = own[own["update"] > own["update"].max() / 2]["alignment"].dropna()
        if len(late) and name != "exact":
            meaning = "cosine of what was learned between records with -g, second half"
            found.append((f"{name}: alignment", float(late.mean()), 0.0, meaning))
    names = list(dict.fromkeys(table["source"]))
    column = "test_accuracy" if ends["test_accuracy"].notna().any() else "error"
    both = ends.pivot(index="run", columns="source", values=column)
    if "exact" in names:
        for name in names[:-1]:
            gap = (both["exact"] - both[name]).dropna()
            if len(gap):
                spread = float(gap.std(ddof=1) / math.sqrt(len(gap))) if len(gap) > 1 else math.nan
                meaning = f"{column.replace('_', ' ')} at the end, mean of runs from the same starts"
                found.append((f"exact gradient less {name}", float(gap.mean()), spread, meaning))
    used = f"; in use {plan.eta:g}" if plan.rate == "fixed" and plan.rule in ("plain", "momentum") else ""
    found.append(("stable learning rate", limits.eta, 0.0, f"of updates along g at the start, by theory{used}"))
    return found


def reached(rows: pd.DataFrame, experiment: Experiment) -> pd.Series:
    """Whether the goal is met, row by row."""
    options = experiment.training
    values = rows[options.criterion]
    return values <= options.goal if options.criterion.endswith("error") else values >= options.goal
