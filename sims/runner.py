"""Running an experiment: every method on its own chip, at equal numbers of evaluations, beside exact R{backprop}."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import isinf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hardware.chip import Chip, Interval
from perturb.boltzmann import Boltzmann
from perturb.codes import CODES
from perturb.dag import DAG
from perturb.errors import InputError
from perturb.estimation import Comparison, compare
from perturb.kernels import has_kernel
from perturb.methods import METHODS, Method
from perturb.mlp import MLP
from perturb.objective import Objective
from perturb.recurrent import Recurrent
from perturb.statistics import Estimate
from perturb.theory import Prediction, curvatures, predict
from sims.datasets import load_data, load_states
from sims.experiment import Experiment, load_experiment

Array = np.ndarray
TARGET_COSINE = 0.9
PACKAGES = ("numpy", "scipy", "numba", "simpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """What a run gives: pandas frames (columns in `reports.frames`), the resolved experiment and where it all comes from."""

    experiment: Experiment
    summary: pd.DataFrame
    weights: pd.DataFrame
    convergence: pd.DataFrame
    timeline: pd.DataFrame
    provenance: dict[str, Any]


class Rival(NamedTuple):
    """One of the methods that a run sets side by side."""

    method: str
    code: str
    sigma: float
    r: float


@dataclass(frozen=True)
class Bench:
    """What all methods of a run share: the network, its objective, the point w and the direction v."""

    network: MLP | DAG | Recurrent | Boltzmann
    objective: Objective
    w: Array
    v: Array


def prepare(experiment: Experiment) -> Bench:
    """Network, data, warmed-up weights and direction of an experiment. InputError if they do not fit or diverge."""
    network = experiment.network.build()
    objective: Objective
    if isinstance(network, Boltzmann):
        objective = network.objective(load_states(experiment.data, network.n_visible))
    else:
        objective = network.objective(*load_data(experiment.data, network.n_inputs, network.n_outputs))
    w = network.init(experiment.weights.seed)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(experiment.weights.warmup_updates):
            w -= experiment.weights.warmup_rate * objective.gradient(w)
            if not np.isfinite(w).all():
                raise InputError(f"weights.warmup_rate = {experiment.weights.warmup_rate} makes the warm-up diverge: lower it")
        if not np.isfinite(objective.error(w)):
            raise InputError(f"weights.warmup_rate = {experiment.weights.warmup_rate} makes the warm-up diverge: lower it")
    if experiment.direction.kind == "gradient":
        v = objective.gradient(w)
        if not v.any():
            raise InputError('direction.kind = "gradient" but the gradient is zero there: use "random" or fewer warm-up updates')
    else:
        v = np.random.Generator(np.random.Philox(experiment.direction.seed)).standard_normal(w.size)
    if experiment.direction.norm is not None:
        v *= experiment.direction.norm / np.linalg.norm(v)
    return Bench(network, objective, w, v)


def run_experiment(
    name_or_path: str | Path,
    set: Mapping[str, object] | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Run an experiment by name or file; `set` changes keys ("estimation.trials": 2000), `seed` is short for run.seed.

    out: a directory to write the run to (must not hold files yet); None writes nothing. progress(method/code, evaluations done,
    evaluations in all) is called along the way. should_stop is asked between pieces of about 0.2 s: True ends the run with what
    is done, marked "partial". InputError for a user's mistake, before anything runs or is written.
    """
    from sims import store

    set = {**(set or {}), **({"run.seed": seed} if seed is not None else {})}
    experiment = load_experiment(name_or_path, set)
    if out is not None:
        store.check_free(Path(out))
    bench = prepare(experiment)
    e = experiment.estimation
    known = curvatures(bench.objective, bench.w, bench.v, e.presentation)
    primary = Rival(e.method, e.code, e.sigma, e.r)
    others = [Rival(other.method, other.code, other.sigma or e.sigma, other.r or e.r) for other in e.compare_with]
    order = list(dict.fromkeys([primary, *others]))
    order.sort(key=lambda rival: (list(METHODS).index(rival.method), list(CODES).index(rival.code)))
    evaluations = e.trials * METHODS[e.method].evaluations_per_trial

    # rows of the frames
    summary: list[dict] = []
    convergence: list[dict] = []
    weights: list[pd.DataFrame] = []
    timeline: list[tuple] = []
    stopped = False
    for rival in order:
        method = METHODS[rival.method]
        trials = max(3, round(evaluations / method.evaluations_per_trial))
        chip = Chip(
            experiment.chip, bench.objective, bench.w, bench.v, *rival, experiment.run.seed, e.presentation,
            experiment.run.fidelity,
        )  # fmt: skip
        reading = chip.error_unit.reading
        predicted = predict(
            bench.objective, bench.w, bench.v, *rival, reading.variance(chip.presented) ** 0.5, e.presentation, known, trials
        )  # fmt: skip
        start, done = time.perf_counter(), 0
        estimate: Estimate | None = None
        for checkpoint in _checkpoints(trials):
            while done < checkpoint and not (stopped := stopped or should_stop()):
                piece = min(_piece(chip), checkpoint - done)
                estimate = chip.run(piece)
                done += piece
                if progress:
                    progress(f"{rival.method}/{rival.code}", done * method.evaluations_per_trial, evaluations)
            if stopped:
                break
            assert estimate is not None
            compared = compare(estimate, bench.objective, bench.w, bench.v, known)
            convergence += _convergence_rows(rival, estimate, compared, predicted)
        if estimate is None or done < 3:
            break
        compared = compare(estimate, bench.objective, bench.w, bench.v, known)
        status = "complete" if done == trials else "partial"
        fixed = {"primary": rival == primary, "status": status, "wall_time_s": time.perf_counter() - start}
        summary += _summary_rows(rival, estimate, compared, predicted, chip, fixed)
        weights.append(_weights(rival, bench, compared))
        timeline += [(rival.method, rival.code, *interval) for interval in chip.trace]
        if stopped:
            break

    run = Run(
        experiment,
        pd.DataFrame(summary),
        pd.concat(weights, ignore_index=True) if weights else pd.DataFrame(),
        pd.DataFrame(convergence),
        pd.DataFrame(timeline, columns=["method", "code", *Interval._fields]),
        _provenance(experiment, bench, str(name_or_path), set, "partial" if stopped else "complete"),
    )
    if out is not None and summary:
        store.write_run(run, Path(out))
    return run


def _checkpoints(trials: int) -> list[int]:
    points = [8 * 2**i for i in range(trials.bit_length()) if 8 * 2**i < trials]
    return [*points, trials]


def _piece(chip: Chip) -> int:
    """Trials that take about 0.2 s, so that an interruption is heard."""
    if not has_kernel(chip.objective):
        return 64
    cost = chip.presented * chip.w.size * len(chip.design.method.phases)
    return max(64, 3_000_000_000 // cost) if chip.fidelity != "event" else max(1, min(1000, 100_000_000 // cost))


def _summary_rows(
    rival: Rival, estimate: Estimate, compared: Comparison, predicted: Prediction, chip: Chip, fixed: dict[str, Any]
) -> list[dict[str, Any]]:
    method, rows = METHODS[rival.method], []
    for quantity in _quantities(method):
        measured, theory = getattr(compared, quantity), getattr(predicted, quantity)
        expected = theory.cosine(estimate.trials)
        needed = theory.evaluations_for(TARGET_COSINE)
        rows.append(
            {
                "quantity": quantity,
                "method": rival.method,
                "code": rival.code,
                "n_weights": chip.w.size,
                "trials": estimate.trials,
                "evaluations": estimate.evaluations,
                "cosine": measured.cosine,
                "relative_error": measured.relative_error,
                "rms_stderr": measured.rms_stderr,
                "z_rms": measured.z_rms,
                "limit_relative_error": measured.limit_relative_error,
                "chip_time_s": chip.time_s,
                "energy_j": chip.energy_j,
                "wall_time_s": fixed["wall_time_s"],
                "events": chip.events,
                "limit_z_rms": measured.limit_z_rms,
                "label": method.label if quantity == "hv" or not method.estimates_hv else "",
                "sigma": rival.sigma,
                "r": rival.r if method.displaced else np.nan,
                "broadcasts": method.broadcasts if quantity == "hv" else "dE",
                "predicted_cosine": expected,
                "limit_cosine": theory.limit_cosine,
                "evaluations_to_0_9": needed,
                "verdict": _verdict(quantity, measured.cosine, expected, theory.limit_cosine, needed, estimate.evaluations),
                "primary": fixed["primary"],
                "status": fixed["status"],
                "warnings": " ".join(f"{warning}." for warning in predicted.warnings),
            }
        )
    return rows


def _quantities(method: Method) -> tuple[str, ...]:
    return ("gradient", "hv") if method.estimates_hv else ("gradient",)


def _verdict(quantity: str, cosine: float, expected: float, limit_cosine: float, needed: float, evaluations: int) -> str:
    name = "Hv" if quantity == "hv" else "the gradient"
    if isinf(needed):
        return (
            f"cannot reach a cosine of {TARGET_COSINE} with {name}, however many evaluations: "
            f"the limit it tends to has a cosine of {limit_cosine:.2f}"
        )
    if needed > evaluations:
        return (
            f"cannot succeed with {evaluations:,} evaluations: a cosine of {TARGET_COSINE} with {name} "
            f"takes about {_count(needed)}, {_count(needed / evaluations)} times as many"
        )
    if cosine < TARGET_COSINE:
        return (
            f"falls short: a cosine of {expected:.3f} with {name} was predicted, {cosine:.3f} measured; "
            "by chance (try another seed), or because terms beyond the quadratic matter (lower sigma and r)"
        )
    return f"succeeds: a cosine of {cosine:.4f} with {name}; {_count(needed)} evaluations are enough for {TARGET_COSINE}"


def _count(number: float) -> str:
    """42,636 or 745 million."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {word}" if number < 1e15 else f"{number:.2g}"
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.2g}"


def _convergence_rows(rival: Rival, estimate: Estimate, compared: Comparison, predicted: Prediction) -> list[dict[str, Any]]:
    return [
        {
            "method": rival.method,
            "code": rival.code,
            "quantity": quantity,
            "trials": estimate.trials,
            "evaluations": estimate.evaluations,
            "cosine": getattr(compared, quantity).cosine,
            "relative_error": getattr(compared, quantity).relative_error,
            "predicted_cosine": getattr(predicted, quantity).cosine(estimate.trials),
            "predicted_relative_error": getattr(predicted, quantity).relative_error(estimate.trials),
        }
        for quantity in _quantities(METHODS[rival.method])
    ]


def _weights(rival: Rival, bench: Bench, compared: Comparison) -> pd.DataFrame:
    unit_from, unit_to = bench.network.weight_units()
    g, z = compared.gradient, compared.hv
    return pd.DataFrame(
        {
            "method": rival.method,
            "code": rival.code,
            "index": np.arange(bench.w.size),
            "unit_from": unit_from,
            "unit_to": unit_to,
            "w": bench.w,
            "v": bench.v,
            "g_exact": g.exact,
            "g_hat": g.estimate,
            "g_stderr": g.stderr,
            "hv_exact": z.exact,
            "hv_hat": z.estimate,
            "hv_stderr": z.stderr,
            "hv_limit": z.limit,
        }
    )


def _provenance(experiment: Experiment, bench: Bench, source: str, set: Mapping[str, object], status: str) -> dict[str, Any]:
    changes = "".join(f" --set {key}={json.dumps(value) if not isinstance(value, str) else value}" for key, value in set.items())
    chip, S = experiment.chip, bench.objective.n_patterns
    shown = f"{S} patterns" if experiment.estimation.presentation == "batch" else f"one of {S} patterns"
    return {
        "experiment": experiment.name,
        "description": (
            f"{experiment.description or experiment.name}; {bench.w.size} weights, {shown} in each evaluation; "
            f"chip {chip.name} with noise {chip.error_unit.noise:g} in each reading of the error"
        ),
        "status": status,
        "command": f"perturb run {source}{changes}",
        "seed": experiment.run.seed,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "perturb": version("perturb"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": {"system": platform.system(), "machine": platform.machine(), "byteorder": sys.byteorder},
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    """Commit of the source tree this package runs from; None for an installed wheel."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    try:
        ask = ["git", "-C", str(here)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        changed = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True).stdout
        return {"commit": commit, "dirty": bool(changed.strip())}
    except (OSError, subprocess.SubprocessError):
        return None
