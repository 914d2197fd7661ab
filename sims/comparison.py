"""The study "compare": every method on its own chip, at equal numbers of evaluations, beside exact R{backprop}."""

import time
from math import isinf, isnan, nan
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hardware.chip import Chip, Interval
from hardware.params import ChipParams
from perturb.estimation.engine import has_kernel
from perturb.estimation.solution import Estimate
from perturb.theory.comparison import Comparison, QuantityComparison, compare
from perturb.theory.estimates import Curvature, Prediction, curvatures, predict
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.bench import Bench, Progress, ShouldStop, Stopped, Study
from sims.experiment.schema import Experiment

TARGET_COSINE = 0.9
NAMES = {"gradient": "the gradient", "hv": "Hv"}


class Rival(NamedTuple):
    """One of the methods that a run sets side by side."""

    method: str
    code: str
    sigma: float
    r: float


def compare_methods(experiment: Experiment, bench: Bench, progress: Progress, should_stop: ShouldStop) -> Study:
    """Tables summary, weights, convergence, timeline, energy; of a method that was interrupted, what it had done."""
    e = experiment.estimation
    known = curvatures(bench.objective, bench.w, bench.v, e.presentation)
    primary = Rival(e.method, e.code, e.sigma, e.r)
    others = [Rival(other.method, other.code, other.sigma or e.sigma, other.r or e.r) for other in e.compare_with]
    order = list(dict.fromkeys([primary, *others]))
    order.sort(key=lambda rival: (list(METHODS).index(rival.method), list(CODES).index(rival.code)))
    evaluations = e.trials * METHODS[e.method].evaluations_per_trial

    # rows of the tables
    summary: list[dict] = []
    convergence: list[dict] = []
    weights: list[pd.DataFrame] = []
    timeline: list[tuple] = []
    energy: list[tuple] = []
    stopped = False
    for rival in order:
        method = METHODS[rival.method]
        trials = max(3, round(evaluations / method.evaluations_per_trial))
        chip = Chip(
            experiment.made_chip(), bench.objective, bench.w, bench.v, *rival, experiment.run.seed, e.presentation,
            experiment.run.fidelity, precision=experiment.run.precision,
        )  # fmt: skip
        reading = chip.values.reading
        predicted = predict(
            bench.objective, bench.w, bench.v, method, chip.design.code, rival.sigma, rival.r,
            reading.variance(chip.presented) ** 0.5, e.presentation, known, trials, experiment.run.seed,
        )  # fmt: skip
        start, done = time.perf_counter(), 0
        estimate: Estimate | None = None
        for checkpoint in _checkpoints(trials):
            while done < checkpoint and not (stopped := stopped or should_stop()):
                piece = min(_piece(chip), checkpoint - done)
                estimate = chip.run(piece)
                done += piece
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
        faultless = None
        if not stopped and chip.faultless is not None:
            faultless = _without_faults(chip, chip.faultless, rival, trials, known, progress, should_stop)
            stopped = faultless is None
        summary += _summary_rows(rival, estimate, compared, predicted, chip, faultless, fixed)
        weights.append(_weights(rival, bench, compared))
        timeline += [(rival.method, rival.code, *interval) for interval in chip.trace]
        energy += [(rival.method, rival.code, cause, joules) for cause, joules in chip.energy_by_cause.items()]
        if stopped:
            break
    if summary:
        yield "summary", pd.DataFrame(summary)
        yield "weights", pd.concat(weights, ignore_index=True)
        yield "convergence", pd.DataFrame(convergence)
        yield "timeline", pd.DataFrame(timeline, columns=["method", "code", *Interval._fields])
        yield "energy", pd.DataFrame(energy, columns=["method", "code", "cause", "energy_j"])
    if stopped:
        raise Stopped


def _without_faults(
    chip: Chip,
    params: ChipParams,
    rival: Rival,
    trials: int,
    known: list[Curvature],
    progress: Progress,
    should_stop: ShouldStop,
) -> Comparison | None:
    """The same die and seed once more, in batches and without the faults of the run; None if interrupted."""
    design, done, estimate = chip.design, 0, None
    again = Chip(params, chip.objective, chip.w, chip.v, *rival, design.seed, design.presentation, "batch", 0, chip.precision)
    while done < trials:
        if should_stop():
            return None
        piece = min(_piece(again), trials - done)
        estimate = again.run(piece)
        done += piece
        progress(f"{rival.method}/{rival.code} without faults", done, trials)
    assert estimate is not None
    return compare(estimate, chip.objective, chip.w, chip.v, known)


def _checkpoints(trials: int) -> list[int]:
    points = [8 * 2**i for i in range(trials.bit_length()) if 8 * 2**i < trials]
    return [*points, trials]


def _piece(chip: Chip) -> int:
    """Trials that take about 0.2 s, so that an interruption is heard."""
    if not (has_kernel(chip.objective) and chip.values.plain):
        return 64
    cost = chip.presented * chip.w.size * len(chip.design.method.phases)
    return max(64, 3_000_000_000 // cost) if chip.fidelity != "event" else max(1, min(1000, 100_000_000 // cost))


def _summary_rows(
    rival: Rival,
    estimate: Estimate,
    compared: Comparison,
    predicted: Prediction,
    chip: Chip,
    faultless: Comparison | None,
    fixed: dict[str, Any],
) -> list[dict[str, Any]]:
    method, rows = METHODS[rival.method], []
    for quantity in method.quantities:
        measured, theory = getattr(compared, quantity), getattr(predicted, quantity)
        expected = theory.cosine(estimate.trials)
        needed = theory.evaluations_for(TARGET_COSINE)
        unhurt = getattr(faultless, quantity).cosine if faultless is not None else nan
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
                "verdict": _verdict(
                    quantity,
                    measured.cosine,
                    expected,
                    theory.limit_cosine,
                    needed,
                    estimate.evaluations,
                    not chip.values.plain,
                    unhurt,
                    _nothing(measured),
                )
                + _cost(quantity, measured.cosine, unhurt),
                "primary": fixed["primary"],
                "status": fixed["status"],
                "warnings": " ".join(f"{warning}." for warning in [*predicted.warnings, *estimate.unknown]),
                "trial_ns": chip.time_s / estimate.trials * 1e9,
                "busiest": max(chip.schedule.busy, key=chip.schedule.busy.__getitem__),
                "busiest_share": max(chip.schedule.busy.values()),
                "converter_share": chip.schedule.busy["conversion"],
                "bus_share": chip.schedule.busy["bus"],
                "incidents": " ".join(f"{incident}." for incident in chip.incidents),
                "faultless_cosine": unhurt,
                "predicted_relative_error": theory.relative_error(estimate.trials),
                "df": measured.df,
            }
        )
    return rows


def _cost(quantity: str, cosine: float, unhurt: float) -> str:
    """What the faults of a run cost it, as the end of its verdict; nothing where it met none."""
    if isnan(unhurt):
        return ""
    lost = unhurt - (0.0 if isnan(cosine) else cosine) if unhurt > 0 else 0.0
    cost = f"{lost:.2f}" if lost >= 0.005 else "less than 0.01" if lost > 0 else "nothing"
    return f"; faults cost {cost} of the cosine with {NAMES[quantity]} ({unhurt:.2f} without them)"


def _verdict(
    quantity: str, cosine: float, expected: float, limit_cosine: float, needed: float, evaluations: int, imperfect: bool,
    unhurt: float, nothing: str,
) -> str:  # fmt: skip
    name = NAMES[quantity]
    if isnan(cosine):
        why = ", so nothing of the perturbation reaches E and its reading" if isnan(unhurt) else ""
        return f"gives no estimate of {name}: {nothing or f'every sum is zero{why}'}"
    if isinf(needed):
        why = f"the limit it tends to has a cosine of {limit_cosine:.2f}"
        if limit_cosine > TARGET_COSINE:
            why = "noise hides what the trials look for, so that it would take more than 2^62 of them"
        return f"cannot reach a cosine of {TARGET_COSINE} with {name}, however many evaluations: {why}"
    if needed > evaluations:
        return (
            f"cannot succeed with {evaluations:,} evaluations: a cosine of {TARGET_COSINE} with {name} "
            f"takes about {_count(needed)}, {_count(needed / evaluations)} times as many"
        )
    if cosine >= TARGET_COSINE:
        return f"succeeds: a cosine of {cosine:.4f} with {name}; {_count(needed)} evaluations are enough for {TARGET_COSINE}"
    alone = " for a chip with noise of the error alone" if imperfect else ""
    short = f"falls short: a cosine of {expected:.3f} with {name} was predicted{alone}, {cosine:.3f} measured"
    if unhurt >= TARGET_COSINE:  # what the faults cost is said next
        return short
    if imperfect:
        return f"{short}: its other imperfections cost the rest (perturb ablate ranks them)"
    return f"{short}; by chance (try another seed), or because terms beyond the quadratic matter (lower sigma and r)"


def _nothing(measured: QuantityComparison) -> str:
    """Why there is no cosine, where it is not because the estimate is zero."""
    if blind := int(np.isnan(measured.estimate).sum()):
        return f"to {blind} of {measured.exact.size} weights all trials were alike; take more"
    return "" if measured.exact.any() else "the exact one is zero, which has no direction"


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
        for quantity in METHODS[rival.method].quantities
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
            "g_df": g.df,
            "hv_df": z.df,
        }
    )
