"""A device of one's own: a table of measured pulse responses becomes a device file (how it is
fitted: `device_likelihood`).
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hardware.config import Table, validated
from hardware.device import EXPONENTIAL, LINEAR, DeviceParams, NoiseParams
from perturb.errors import InputError, choose, cut, one_line
from sims.device_likelihood import (
    CANDIDATES,
    PULSE,
    UNKNOWN,
    WRITE,
    Fitted,
    fit_candidate,
    free_parameters,
    mean_curve,
    soft_ends,
    step_at,
    straight_segments,
)
from sims.pulses import Measured, read_pulses

Array = np.ndarray

MOST_OUTLIERS = 0.02  # share of the readings
ROUNDS = 4  # of leaving out outliers
# a soft bound further out than this times the largest weight measured is no bound of these data
REACH = 2.0


def _mean(values: Array, slopes: Array, fit: Fitted) -> tuple[float, float, float, float]:
    """(mean over cells, its standard error, spread less the cells' own errors, its standard error)
    of functions of theta.

    slopes (n, K): of each cell's value in its own free parameters. The errors are those of the 95 %
    intervals over 1.96, of the spread's to above, as few cells give Student's t and chi squared,
    not normal numbers.
    """
    from scipy.stats import chi2, norm, t

    own = np.einsum("ik,ikl,il->i", slopes, fit.errors.own, slopes)
    common = np.einsum("ik,ikr->ir", slopes, fit.errors.common)
    known = own < UNKNOWN  # a cell that says nothing about its value takes no part
    if known.any():
        values = values[known]
        own = own[known]
        common = common[known]
    n = values.size
    if n == 1:
        return float(values[0]), math.sqrt(float(own[0] + (common[0] ** 2).sum())), 0.0, math.nan
    alike = (
        float((common.sum(0) ** 2).sum()) / n**2
    )  # what all cells have in common does not average out
    total = float(values.var(ddof=1))
    within = float(own.mean()) + max(float((common**2).sum()) / n - alike, 0.0)
    spread = math.sqrt(max(total - within, 0.0))
    few = (t.ppf(0.975, n - 1) / norm.ppf(0.975)) ** 2
    wide = (math.sqrt((n - 1) / chi2.ppf(0.025, n - 1)) - 1) / norm.ppf(0.975)
    return (
        float(values.mean()),
        math.sqrt(max(total, within) / n * few + alike),
        spread,
        math.sqrt(max(total, within)) * wide,
    )


def _extremes(values: Array) -> tuple[float, float, float, float]:
    """The same of numbers that are read off the data, whose own errors are not known."""
    from scipy.stats import norm, t

    n = values.size
    if n == 1:
        return float(values[0]), math.nan, 0.0, math.nan
    spread = float(values.std(ddof=1))
    few = t.ppf(0.975, n - 1) / norm.ppf(0.975)
    return (
        float(values.mean()),
        spread / math.sqrt(n) * few,
        spread,
        spread / math.sqrt(2 * (n - 1)),
    )


def describe(fit: Fitted, data: Measured, name: str, source: str, reach: float = REACH) -> None:
    """Turn theta into the tables of a device file, with standard errors; or say in `fit.refused`
    why that is no device.
    """
    model = fit.candidate.model
    theta = fit.theta
    pair = data.one_sided
    tables: dict[str, Any] = {"name": name, "model": model, "source": source}
    errors: dict[str, float] = {}

    def note(key: str, value: float, stderr: float) -> float:
        errors[key] = stderr if stderr < math.sqrt(UNKNOWN) else math.nan
        return value

    # steps: gain and asymmetry of every cell, from ln dw_up and ln dw_down
    up = theta[:, 0]
    down = theta[:, 0] if pair else theta[:, 1]
    nothing = np.zeros((data.n_cells, len(free_parameters(fit.candidate))))

    def along(**columns: Array) -> Array:
        """Slopes in ln dw_up, ln dw_down (of a pair's only one: in its half of either)."""
        slopes = nothing.copy()
        for place, values in enumerate(columns.values()):
            slopes[:, 0 if pair else place] += values
        return slopes

    gain = (up + down) / 2
    half = (up - down) / 2
    dw_min, dw_error, dw_spread, spread_error = _mean(gain, along(up=up / 2, down=down / 2), fit)
    step = tables["step"] = {"dw_min": note("step.dw_min", dw_min, dw_error)}
    step["dw_min_dtod"] = note("step.dw_min_dtod", dw_spread / dw_min, spread_error / dw_min)
    if data.n_cells >= 8 and _lognormal(gain):
        dw_min, dw_error, dw_spread, spread_error = _mean(
            np.log(gain), along(up=up / 2 / gain, down=down / 2 / gain), fit
        )
        dw_min = math.exp(dw_min)
        step["dw_min"] = note("step.dw_min", dw_min, dw_min * dw_error)
        step["dw_min_dtod"] = note("step.dw_min_dtod", dw_spread, spread_error)
        step["dw_min_distribution"] = "lognormal"
    if not pair:
        shape = up * down / (2 * gain * dw_min)
        beta, beta_error, beta_spread, spread_error = _mean(
            half / dw_min, along(up=shape, down=-shape), fit
        )
        step["up_down"] = note("step.up_down", beta, beta_error)
        step["up_down_dtod"] = note("step.up_down_dtod", beta_spread, spread_error)
    step["c2c"] = note("step.c2c", fit.c, fit.errors.noise[PULSE])
    step["c2c_kind"] = "additive" if fit.candidate.additive else "multiplicative"

    # bounds: where steps vanish, or the extremes measured
    ends = {"w_max": fit.high, "w_min": fit.low}
    slopes = {}
    if fit.candidate.own + fit.candidate.shared == 4 and fit.candidate.kind == LINEAR:
        for side, key in enumerate(("up", "down")):
            slopes[key] = (
                theta[0, 2 + side],
                math.sqrt(fit.errors.covariance(0)[2 + side, 2 + side]),
                0.0,
                math.nan,
            )
            if not fit.candidate.shared:
                itself = nothing.copy()
                itself[:, 2 + side] = 1.0
                slopes[key] = _mean(theta[:, 2 + side], itself, fit)
    bounds = tables["bounds"] = {}
    for key, values in ends.items():
        if pair and key == "w_min":
            bounds[key] = 0.0
            continue
        if model == "soft-bounds":
            way, extreme = ("up", data.y.max()) if key == "w_max" else ("down", data.y.min())
            slope, error, spread, spread_error = slopes[way]
            # asked for by name, a bound may be uncertain, as its standard error then says
            certain = 3 * error * abs(extreme) if math.isfinite(reach) else 0.0
            if slope * extreme <= certain or abs(1 / slope) > reach * abs(extreme):
                fit.refused = (
                    f"steps {way} do not shrink to nothing near the"
                    f" {'largest' if way == 'up' else 'smallest'} weight"
                )
                return
            # to first order, 1/slope spreads relatively as slope does
            mean = 1 / slope
            error = error / slope**2
            spread = spread / slope**2
            spread_error = spread_error / slope**2
        else:
            mean, error, spread, spread_error = _extremes(values)
        bounds[key] = note(f"bounds.{key}", mean, error or math.nan)
        # extremes that spread by more than their mean are places where pulses happened to end, not
        # bounds
        seen = spread < abs(mean)
        bounds[f"{key}_dtod"] = note(
            f"bounds.{key}_dtod",
            spread / abs(mean) if seen else 0.0,
            spread_error / abs(mean) if seen else math.nan,
        )

    if model == "linear-step":
        linear = tables["linear"] = {}
        for key, end in (("up", bounds["w_max"]), ("down", bounds["w_min"])):
            mean, error, spread, spread_error = slopes[key]
            if mean * end < -5 * error * abs(end):
                fit.refused = f"steps {key} grow towards the bound"
                return
            linear[f"gamma_{key}"] = note(
                f"linear.gamma_{key}", max(mean * end, 0.0), error * abs(end)
            )
            linear[f"gamma_{key}_dtod"] = note(
                f"linear.gamma_{key}_dtod", spread * abs(end), spread_error * abs(end)
            )
    if fit.candidate.kind == EXPONENTIAL:
        own = free_parameters(fit.candidate)
        cov = fit.errors.covariance(0)
        k_up = theta[0, 4]
        k_down = theta[0, 5]
        sign = -1.0 if k_up < 0 else 1.0
        exponential = tables["exponential"] = {
            "a": sign * (bounds["w_max"] - bounds["w_min"]) / 2,
            "b": 0.0,
        }
        for key, A, k, column in (("up", theta[0, 2], k_up, 2), ("down", theta[0, 3], -k_down, 3))[
            : 1 if pair else 2
        ]:
            A_error, k_error = (
                math.sqrt(cov[own.index(j), own.index(j)]) for j in (column, column + 2)
            )
            if sign * k < -5 * k_error:
                fit.refused = "the exponents of steps up and down have the same sign"
                return
            exponential[f"A_{key}"] = note(f"exponential.A_{key}", A, A_error)
            exponential[f"gamma_{key}"] = note(
                f"exponential.gamma_{key}", max(sign * k, 0.0), k_error
            )
    errors["noise.write"] = fit.errors.noise[WRITE]
    if fit.write > 0:
        tables["noise"] = {"write": fit.write}
    try:
        fit.device = validated(DeviceParams, _rounded(tables), "fit")
    except InputError as error:
        fit.refused = str(error).removeprefix("fit: ")
    fit.stderr = errors


def _lognormal(values: Array) -> bool:
    """Whether steps are clearly more probable as lognormal than as normal numbers."""
    ln = np.log(values)
    if not values.std() > 0:
        return False
    return bool(-ln.size * math.log(ln.std()) - ln.sum() > -ln.size * math.log(values.std()) + 2)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclass(frozen=True)
class DeviceFit:
    """What `fit_device` found: the device, its file as text, and tables.

    models: every model tried, least BIC first (model, noise, slopes, parameters, log_likelihood,
    bic, verdict). parameters: key, value, stderr (nan = not known), meaning; a noise that the data
    do not show is 0, with the rms value that they leave open. readings: device, sequence, pulse,
    measured, fitted (mean response from each sequence's first reading), residual (reading less what
    the readings before it predict), expected (its standard deviation). response: direction, weight,
    step (mean over cells of dw f(w)), stderr. steps: device, direction, weight, step, from straight
    stretches of the data. Weights in range units. outliers: line, device, pulse, reading (in the
    unit of the table) of those readings that were left out.
    """

    device: DeviceParams
    text: str
    models: pd.DataFrame
    parameters: pd.DataFrame
    readings: pd.DataFrame
    response: pd.DataFrame
    steps: pd.DataFrame
    outliers: pd.DataFrame


def fit_device(
    path: str | Path,
    model: str = "auto",
    low: float | None = None,
    high: float | None = None,
    name: str | None = None,
    inverted: bool = False,
) -> DeviceFit:
    """Fit a device to measured pulse responses.

    Parameters
    ----------
    path, low, high, inverted
        A table of readings, see `read_pulses`.
    model
        One of CANDIDATES, or "auto": the one of least BIC. Two-sided data (pulses up and down) are
        fitted by constant-step, soft-bounds, linear-step and exponential-step, one-sided ones by
        one-sided-pair.
    name
        Of the device; that of the file if left out.

    Raises
    ------
    InputError
        For data that are too few, that no model can describe, or that do not go with the model
        asked for.

    Notes
    -----
    A reading is an outlier, such as a dropout, if it is likelier to be anything within the span of
    all readings, which OUTLIERS of them are expected to be, than what the pulses before it make of
    the weight: some 4 to 5 standard deviations off. Outliers are left out, the table is fitted anew
    without them, and the result names them. Of more than MOST_OUTLIERS no fit is made.
    """
    source = one_line(cut(str(path), 200))
    if model != "auto":
        choose("model", model, {"auto": None, **CANDIDATES})
    whole = data = read_pulses(path, low, high, inverted)
    possible = (
        ["one-sided-pair"]
        if data.one_sided
        else [key for key in CANDIDATES if key != "one-sided-pair"]
    )
    if model != "auto" and model not in possible:
        has = "only pulses up" if data.one_sided else "pulses up and down"
        raise InputError(
            f'{source}: has {has}, which model = "{model}" does not describe: choose one of'
            f" {', '.join(possible)}"
        )
    name = name or Path(path).stem[:100] or "device"
    left_out: set[int] = set()
    for turn in range(ROUNDS):
        segments = straight_segments(data)
        if _against(segments):
            both = "" if data.one_sided else " and pulses down raise them"
            remedy = "leave out --inverted" if inverted else "add --inverted"
            raise InputError(
                f"{source}: pulses up lower the readings{both}: if it is their polarity, {remedy};"
                " if these are resistances, give conductances"
            )
        given = (
            segments,
            name,
            f"fitted to {Path(path).name}"[:200],
            REACH if model == "auto" else math.inf,
        )
        fits = [
            fit
            for key in (possible if model == "auto" else [model])
            for fit in _fits(key, data, *given)
        ]
        fits.sort(key=_bic)
        new = set(data.line[fits[0].outliers].tolist())
        if not new:
            break
        left_out |= new
        if len(left_out) > max(3, MOST_OUTLIERS * whole.y.size) or turn == ROUNDS - 1:
            raise InputError(
                f"{source}: {len(left_out)} of {whole.y.size} readings, such as that of line"
                f" {min(left_out)}, are far from what the pulses before them make of the weight"
                f" ({fits[0].candidate.model}): too many for dropouts, so no model describes these"
                " readings"
            )
        data = read_pulses(path, low, high, inverted, left_out)
    best = None
    for fit in fits:
        if fit.device and not best:
            work, errors = fit.work.settled()
            best = replace(
                work.result(errors),
                bic=fit.bic,
                log_likelihood=fit.log_likelihood,
                n_parameters=fit.n_parameters,
            )
            describe(
                best,
                data,
                name,
                f"fitted to {Path(path).name}"[:200],
                REACH if model == "auto" else math.inf,
            )
            fits = [best if other is fit else other for other in fits]
            best = best if best.device else None
    if not best:
        raise InputError(
            f"{source}: no model describes these readings: {fits[0].candidate.model}:"
            f" {fits[0].refused}"
        )
    assert best.device
    without = f", {len(left_out)} outlier{'s' * (len(left_out) > 1)} left out" if left_out else ""
    described = best.device.model_copy(
        update={
            "description": (
                f"{best.candidate.model} fitted to {data.y.size} readings of {data.n_cells}"
                f" cells{without}"
            )
        }
    )
    rows = np.flatnonzero(np.isin(whole.line, list(left_out)))
    outliers = pd.DataFrame(
        {
            "line": whole.line[rows],
            "device": np.array(whole.labels)[whole.cell[rows]],
            "pulse": whole.number[rows],
            "reading": whole.zero + whole.per_range * whole.y[rows],
        }
    )
    return DeviceFit(
        device=described,
        text=_text(described, best, data, outliers),
        models=_models(fits, best),
        parameters=_parameters(described, best),
        readings=_readings(best, data),
        response=_response(best, data),
        steps=_steps(segments, data),
        outliers=outliers,
    )


def _fits(
    key: str, data: Measured, segments: Array, name: str, source: str, reach: float
) -> list[Fitted]:
    """The candidates of a model. A slope for every cell: only where there are several cells."""
    tried = []
    for candidate in CANDIDATES[key]:
        if candidate.own < 4 or data.n_cells > 1:
            work = fit_candidate(candidate, data, segments)
            tried.append(work.result(work.errors(work.curvature())))
            describe(tried[-1], data, name, source, reach)
    return tried


def _against(segments: Array) -> bool:
    """Whether pulses of every direction that there is clearly change the weight the other way."""
    clearly = []
    for d in np.unique(segments[:, 1]):
        changes = d * segments[segments[:, 1] == d, 3]
        clearly.append(
            changes.size > 2 and changes.mean() < -3 * changes.std(ddof=1) / math.sqrt(changes.size)
        )
    return bool(clearly) and all(clearly)


def _bic(fit: Fitted) -> float:
    return fit.bic


def _models(fits: list[Fitted], best: Fitted) -> pd.DataFrame:
    rows = [
        {
            "model": fit.candidate.model,
            "noise": "additive" if fit.candidate.additive else "multiplicative",
            "slopes": (
                "of each cell"
                if fit.candidate.own == 4
                else "shared"
                if fit.candidate.shared
                else "none"
            ),
            "parameters": fit.n_parameters,
            "log_likelihood": fit.log_likelihood,
            "bic": fit.bic,
            "verdict": "chosen" if fit is best else fit.refused or "",
        }
        for fit in fits
    ]
    return pd.DataFrame(rows)


def _fields(params: DeviceParams) -> list[tuple[str, Any, str]]:
    """(dotted key, value, meaning) of everything the device says."""
    rows = []
    for key, info in DeviceParams.model_fields.items():
        value = getattr(params, key)
        if isinstance(value, Table):
            inner = type(value).model_fields
            rows += [
                (f"{key}.{name}", getattr(value, name), inner[name].description or "")
                for name in inner
            ]
        elif value is not None:
            rows.append((key, value, info.description or ""))
    return rows


def _parameters(params: DeviceParams, fit: Fitted) -> pd.DataFrame:
    fields = _fields(params)
    if not params.noise:
        fields.append(("noise.write", 0.0, NoiseParams.model_fields["write"].description or ""))
    rows = [
        (key, value, fit.stderr[key], meaning)
        for key, value, meaning in fields
        if key in fit.stderr
    ]
    return pd.DataFrame(rows, columns=["key", "value", "stderr", "meaning"])


def _text(params: DeviceParams, fit: Fitted, data: Measured, outliers: pd.DataFrame) -> str:
    """The device file, with units, meaning and standard error of every field."""
    import tomli_w

    cells = f"{data.n_cells} cell{'s' * (data.n_cells > 1)}"
    lines = [f"# {params.model} fitted to {data.y.size} readings of {cells}; BIC {fit.bic:.1f}."]
    if data.unit != "range":
        lines.append(
            f"# One range unit is {data.per_range:.6g} {one_line(data.unit)}; w = 0 is"
            f" {data.zero:.6g} {one_line(data.unit)}."
        )
    if data.n_cells == 1:
        lines.append(
            "# From a single cell no spread from cell to cell (dtod) can be known: they stand at 0."
        )
    if len(outliers):
        shown = "; ".join(
            f"line {row['line']}: {row['reading']:g}"
            for row in outliers.head(10).to_dict("records")
        )
        more = f" and {len(outliers) - 10} more" if len(outliers) > 10 else ""
        lines.append(f"# {len(outliers)} outliers are left out: {shown}{more}.")
    if not params.noise:
        lines.append(
            "# No noise of readings is shown by these data: write = 0 +-"
            f" {fit.stderr['noise.write']:.2g}."
        )
    lines.append("# Shares are relative: 0.05 means 5 %. +-: standard error of the fit.")
    table = ""
    for key, value, meaning in _fields(params):
        head, _, last = key.rpartition(".")
        if head != table:
            lines += ["", f"[{head}]"]
            table = head
        error = fit.stderr.get(key, math.nan)
        known = (
            f"; +- {error:.2g}"
            if math.isfinite(error)
            else "; extreme measured"
            if key in ("bounds.w_max", "bounds.w_min")
            else ""
        )
        if key == "step.c2c" and value == 0:
            known += ", not shown by these data"
        if key == "model":
            meaning = "the formulas head hardware/device.py"
            known = ""
        lines.append(f"{tomli_w.dumps({last: value}).strip()}  # {meaning}{known}")
    return "\n".join(lines) + "\n"


def _readings(fit: Fitted, data: Measured) -> pd.DataFrame:
    mean = np.empty(data.y.size)
    low = fit.work.low
    high = fit.work.high
    if fit.work.soft:
        low, high = soft_ends(fit.theta)
    out = fit.work.run(fit.theta, fit.theta, fit.c, fit.write)
    mean_curve(
        fit.candidate.kind, data.y, data.pulses, data.first, data.cell, fit.theta, low, high, mean
    )
    return pd.DataFrame(
        {
            "device": np.array(data.labels)[data.cell],
            "sequence": np.cumsum(data.first),
            "pulse": data.number,
            "measured": data.y,
            "fitted": mean,
            "residual": np.where(data.first, np.nan, out.e),
            "expected": np.where(data.first, np.nan, np.sqrt(out.S)),
        }
    )


def _response(fit: Fitted, data: Measured) -> pd.DataFrame:
    """Mean step against weight, with its standard error as `_mean` has it."""
    rows = []
    own = free_parameters(fit.candidate)
    for w in np.linspace(
        np.mean(fit.low) if np.isfinite(fit.low).all() else data.y.min(),
        min(np.mean(fit.high), data.y.max()),
        41,
    ):
        for d in (1,) if data.one_sided else (1, -1):

            def step(theta: Array, w: float = w, d: int = d) -> float:
                return float(step_at(fit.candidate.kind, theta, d > 0, w)[0])

            steps = np.array([step(row) for row in fit.theta])
            slopes = np.zeros((data.n_cells, len(own)))
            for i, row in enumerate(fit.theta):
                for column, j in enumerate(own):
                    h = 1e-5 * max(abs(row[j]), 1e-3)
                    moved = row.copy()
                    moved[j] += h
                    slopes[i, column] = (step(moved) - step(row)) / h * (row[j] if j < 2 else 1.0)
            mean, stderr, _, _ = _mean(steps, slopes, fit)
            rows.append((d, w, d * mean, stderr))
    return pd.DataFrame(rows, columns=["direction", "weight", "step", "stderr"])


def _steps(segments: Array, data: Measured) -> pd.DataFrame:
    frame = pd.DataFrame(segments[:, :4], columns=["device", "direction", "weight", "step"])
    return frame.assign(
        device=[data.labels[int(i)] for i in frame["device"]],
        direction=frame["direction"].astype(int),
    )
