"""A device of one's own: a table of measured pulse responses becomes a device file (how it is fitted: `device_likelihood`)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hardware.device import EXPONENTIAL, LINEAR, DeviceParams
from hardware.tables import Table, cut, one_line, validated
from perturb.errors import InputError, choose
from sims.device_likelihood import (
    CANDIDATES,
    Fitted,
    fit_candidate,
    free_parameters,
    kalman,
    mean_curve,
    soft_ends,
    step_at,
    straight_segments,
)
from sims.pulses import Measured, read_pulses

Array = np.ndarray

REACH = 2.0  # a soft bound further out than this times the largest weight measured is no bound of these data


def _mean(values: Array, variances: Array) -> tuple[float, float, float, float]:
    """(mean over cells, its standard error, spread less the cells' own errors, its standard error)."""
    n = values.size
    if n == 1:
        return float(values[0]), math.sqrt(variances[0]), 0.0, math.nan
    total = float(values.var(ddof=1))
    spread = math.sqrt(max(total - float(variances.mean()), 0.0))
    return float(values.mean()), math.sqrt(total / n), spread, math.sqrt(total / (2 * (n - 1)))


def describe(fit: Fitted, data: Measured, name: str, source: str, reach: float = REACH) -> None:
    """Turn theta into the tables of a device file, with standard errors; or say in `fit.refused` why that is no device."""
    model, theta, pair = fit.candidate.model, fit.theta, data.one_sided
    tables: dict[str, Any] = {"name": name, "model": model, "source": source}
    errors: dict[str, float] = {}

    def note(key: str, value: float, stderr: float) -> float:
        errors[key] = stderr
        return value

    # steps: gain and asymmetry of every cell, from ln dw_up and ln dw_down
    up, down = theta[:, 0], theta[:, 0] if pair else theta[:, 1]
    log_variance = np.array([c[: 1 if pair else 2, : 1 if pair else 2] for c in fit.covariance])
    if pair:
        gain_variance = up**2 * log_variance[:, 0, 0]
        half_variance = 0 * up
    else:
        a, b, both = up**2 * log_variance[:, 0, 0], down**2 * log_variance[:, 1, 1], up * down * log_variance[:, 0, 1]
        gain_variance, half_variance = (a + b + 2 * both) / 4, (a + b - 2 * both) / 4
    gain, half = (up + down) / 2, (up - down) / 2
    dw_min, dw_error, dw_spread, spread_error = _mean(gain, gain_variance)
    step = tables["step"] = {"dw_min": note("step.dw_min", dw_min, dw_error)}
    step["dw_min_dtod"] = note("step.dw_min_dtod", dw_spread / dw_min, spread_error / dw_min)
    if data.n_cells >= 8 and _lognormal(gain):
        dw_min, dw_error, dw_spread, spread_error = _mean(np.log(gain), gain_variance / gain**2)
        dw_min = math.exp(dw_min)
        step["dw_min"] = note("step.dw_min", dw_min, dw_min * dw_error)
        step["dw_min_dtod"] = note("step.dw_min_dtod", dw_spread, spread_error)
        step["dw_min_distribution"] = "lognormal"
    if not pair:
        beta, beta_error, beta_spread, spread_error = _mean(half / dw_min, half_variance / dw_min**2)
        step["up_down"] = note("step.up_down", beta, beta_error)
        step["up_down_dtod"] = note("step.up_down_dtod", beta_spread, spread_error)
    step["c2c"] = note("step.c2c", fit.c, fit.noise_stderr[0])
    step["c2c_kind"] = "additive" if fit.candidate.additive else "multiplicative"

    # bounds: where steps vanish, or the extremes measured
    nothing = np.zeros(data.n_cells)
    ends = {"w_max": (fit.high, nothing), "w_min": (fit.low, nothing)}
    slopes = {}
    if fit.candidate.own + fit.candidate.shared == 4 and fit.candidate.kind == LINEAR:
        for side, key in enumerate(("up", "down")):
            variance = np.array([c[2 + side, 2 + side] for c in fit.covariance])
            slopes[key] = (theta[0, 2 + side], math.sqrt(variance[0]), 0.0, math.nan)
            if not fit.candidate.shared:
                slopes[key] = _mean(theta[:, 2 + side], variance)
    bounds = tables["bounds"] = {}
    for key, (values, variance) in ends.items():
        if pair and key == "w_min":
            bounds[key] = 0.0
            continue
        if model == "soft-bounds":
            way, extreme = ("up", data.y.max()) if key == "w_max" else ("down", data.y.min())
            slope, error, spread, spread_error = slopes[way]
            # asked for by name, a bound may be uncertain, as its standard error then says
            certain = 3 * error * abs(extreme) if math.isfinite(reach) else 0.0
            if slope * extreme <= certain or abs(1 / slope) > reach * abs(extreme):
                fit.refused = f"steps {way} do not shrink to nothing near the {'largest' if way == 'up' else 'smallest'} weight"
                return
            # to first order, 1/slope spreads relatively as slope does
            mean, error, spread, spread_error = 1 / slope, error / slope**2, spread / slope**2, spread_error / slope**2
        else:
            mean, error, spread, spread_error = _mean(values, variance)
        bounds[key] = note(f"bounds.{key}", mean, error or math.nan)
        # extremes that spread by more than their mean are places where pulses happened to end, not bounds
        seen = spread < abs(mean)
        bounds[f"{key}_dtod"] = note(
            f"bounds.{key}_dtod", spread / abs(mean) if seen else 0.0, spread_error / abs(mean) if seen else math.nan
        )

    if model == "linear-step":
        linear = tables["linear"] = {}
        for key, end in (("up", bounds["w_max"]), ("down", bounds["w_min"])):
            mean, error, spread, spread_error = slopes[key]
            if mean * end < -5 * error * abs(end):
                fit.refused = f"steps {key} grow towards the bound"
                return
            linear[f"gamma_{key}"] = note(f"linear.gamma_{key}", max(mean * end, 0.0), error * abs(end))
            linear[f"gamma_{key}_dtod"] = note(f"linear.gamma_{key}_dtod", spread * abs(end), spread_error * abs(end))
    if fit.candidate.kind == EXPONENTIAL:
        own, cov = free_parameters(fit.candidate), fit.covariance[0]
        k_up, k_down = theta[0, 4], theta[0, 5]
        sign = -1.0 if k_up < 0 else 1.0
        exponential = tables["exponential"] = {"a": sign * (bounds["w_max"] - bounds["w_min"]) / 2, "b": 0.0}
        for key, A, k, column in (("up", theta[0, 2], k_up, 2), ("down", theta[0, 3], -k_down, 3))[: 1 if pair else 2]:
            A_error, k_error = (math.sqrt(cov[own.index(j), own.index(j)]) for j in (column, column + 2))
            if sign * k < -5 * k_error:
                fit.refused = "the exponents of steps up and down have the same sign"
                return
            exponential[f"A_{key}"] = note(f"exponential.A_{key}", A, A_error)
            exponential[f"gamma_{key}"] = note(f"exponential.gamma_{key}", max(sign * k, 0.0), k_error)
    if fit.write > 0:
        tables["noise"] = {"write": note("noise.write", fit.write, fit.noise_stderr[1])}
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

    models: every model tried, least BIC first (model, noise, slopes, parameters, log_likelihood, bic, verdict). parameters: key,
    value, stderr (nan = not known), meaning. readings: device, sequence, pulse, measured, fitted (mean response from each
    sequence's first reading), residual (reading less what the readings before it foretell), expected (its standard deviation).
    response: direction, weight, step (mean over cells of dw f(w)), stderr. steps: device, direction, weight, step, from straight
    stretches of the data. Weights in range units.
    """

    device: DeviceParams
    text: str
    models: pd.DataFrame
    parameters: pd.DataFrame
    readings: pd.DataFrame
    response: pd.DataFrame
    steps: pd.DataFrame


def fit_device(
    path: str | Path, model: str = "auto", low: float | None = None, high: float | None = None, name: str | None = None
) -> DeviceFit:
    """Fit a device to measured pulse responses.

    path: a CSV file, see `read_pulses`, which also explains low and high. model: one of CANDIDATES, or "auto": the one of least
    BIC. Two-sided data (pulses up and down) are fitted by constant-step, soft-bounds, linear-step and exponential-step,
    one-sided ones by one-sided-pair. name: of the device; that of the file if left out. Data that are too few, that no model can
    describe, or that do not go with the model asked for raise InputError.
    """
    source = one_line(cut(str(path), 200))
    if model != "auto":
        choose("model", model, {"auto": None, **CANDIDATES})
    data = read_pulses(path, low, high)
    possible = ["one-sided-pair"] if data.one_sided else [key for key in CANDIDATES if key != "one-sided-pair"]
    if model != "auto" and model not in possible:
        has = "only pulses up" if data.one_sided else "pulses up and down"
        raise InputError(f'{source}: has {has}, which model = "{model}" does not describe: choose one of {", ".join(possible)}')
    name = name or Path(path).stem[:100] or "device"
    segments = straight_segments(data)
    fits: list[Fitted] = []
    for key in possible if model == "auto" else [model]:
        tried: list[Fitted] = []
        for candidate in CANDIDATES[key]:
            # a slope for every cell: only where there are several cells, with the kind of noise that did better so far
            if candidate.own == 4 and (data.n_cells == 1 or min(tried, key=_bic).candidate.additive != candidate.additive):
                continue
            tried.append(fit_candidate(candidate, data, segments))
            reach = REACH if model == "auto" else math.inf
            describe(tried[-1], data, name, f"fitted to {Path(path).name}"[:200], reach)
        fits += tried
    fits.sort(key=_bic)
    usable = [fit for fit in fits if fit.device]
    if not usable:
        raise InputError(f"{source}: no model describes these readings: {fits[0].candidate.model}: {fits[0].refused}")
    best = usable[0]
    assert best.device
    described = best.device.model_copy(
        update={"description": f"{best.candidate.model} fitted to {data.y.size} readings of {data.n_cells} cells"}
    )
    return DeviceFit(
        described, _text(described, best, data), _models(fits, best), _parameters(described, best), _readings(best, data),
        _response(best, data), _steps(segments, data),
    )  # fmt: skip


def _bic(fit: Fitted) -> float:
    return fit.bic


def _models(fits: list[Fitted], best: Fitted) -> pd.DataFrame:
    rows = [
        {
            "model": fit.candidate.model,
            "noise": "additive" if fit.candidate.additive else "multiplicative",
            "slopes": "of each cell" if fit.candidate.own == 4 else "shared" if fit.candidate.shared else "none",
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
            rows += [(f"{key}.{name}", getattr(value, name), inner[name].description or "") for name in inner]
        elif value is not None:
            rows.append((key, value, info.description or ""))
    return rows


def _parameters(params: DeviceParams, fit: Fitted) -> pd.DataFrame:
    rows = [(key, value, fit.stderr[key], meaning) for key, value, meaning in _fields(params) if key in fit.stderr]
    return pd.DataFrame(rows, columns=["key", "value", "stderr", "meaning"])


def _text(params: DeviceParams, fit: Fitted, data: Measured) -> str:
    """The device file, with units, meaning and standard error of every field."""
    import tomli_w

    cells = f"{data.n_cells} cell{'s' * (data.n_cells > 1)}"
    lines = [f"# {params.model} fitted to {data.y.size} readings of {cells}; BIC {fit.bic:.1f}."]
    if data.unit != "range":
        lines.append(
            f"# One range unit is {data.per_range:.6g} {one_line(data.unit)}; w = 0 is {data.zero:.6g} {one_line(data.unit)}."
        )
    if data.n_cells == 1:
        lines.append("# From a single cell no spread from cell to cell (dtod) can be known: they stand at 0.")
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
        if key == "model":
            meaning, known = "the formulas head hardware/device.py", ""
        lines.append(f"{tomli_w.dumps({last: value}).strip()}  # {meaning}{known}")
    return "\n".join(lines) + "\n"


def _readings(fit: Fitted, data: Measured) -> pd.DataFrame:
    e, S, x, mean = (np.empty(data.y.size) for _ in range(4))
    low, high = soft_ends(fit.theta)
    if fit.candidate.ends:
        low, high = np.full(data.n_cells, -np.inf), np.full(data.n_cells, np.inf)
    if fit.bounded:
        low, high = (np.array([end(data.y[data.cell == i]) for i in range(data.n_cells)]) for end in (np.min, np.max))
    kind, given = fit.candidate.kind, (data.y, data.pulses, data.first, data.cell, fit.theta)
    kalman(kind, *given, fit.theta, low, high, fit.c, fit.candidate.additive, fit.write, data.floor, e, S, x)
    mean_curve(kind, *given, low, high, mean)
    return pd.DataFrame(
        {
            "device": np.array(data.labels)[data.cell],
            "sequence": np.cumsum(data.first),
            "pulse": data.number,
            "measured": data.y,
            "fitted": mean,
            "residual": np.where(data.first, np.nan, e),
            "expected": np.where(data.first, np.nan, np.sqrt(S)),
        }
    )


def _response(fit: Fitted, data: Measured) -> pd.DataFrame:
    """Mean step against weight, with the standard error that comes from theta and, of several cells, from their spread."""
    rows, own = [], free_parameters(fit.candidate)
    for w in np.linspace(
        np.mean(fit.low) if np.isfinite(fit.low).all() else data.y.min(), min(np.mean(fit.high), data.y.max()), 41
    ):
        for d in (1,) if data.one_sided else (1, -1):

            def step(theta: Array, w: float = w, d: int = d) -> float:
                return float(step_at(fit.candidate.kind, theta, d > 0, w)[0])

            steps = np.array([step(row) for row in fit.theta])
            variances = []
            for row, covariance in zip(fit.theta, fit.covariance, strict=True):
                slope = np.zeros(len(own))
                for column, j in enumerate(own):
                    h = 1e-5 * max(abs(row[j]), 1e-3)
                    moved = row.copy()
                    moved[j] += h
                    slope[column] = (step(moved) - step(row)) / h * (row[j] if j < 2 else 1.0)
                variances.append(max(float(slope @ covariance @ slope), 0.0))
            variance = float(np.mean(variances))
            if data.n_cells > 1:
                # what all cells share does not average out; of what each has alone, the spread has it all
                variance = steps.var(ddof=1) / data.n_cells + (variance if fit.candidate.shared else 0.0)
            rows.append((d, w, d * steps.mean(), math.sqrt(variance)))
    return pd.DataFrame(rows, columns=["direction", "weight", "step", "stderr"])


def _steps(segments: Array, data: Measured) -> pd.DataFrame:
    frame = pd.DataFrame(segments[:, :4], columns=["device", "direction", "weight", "step"])
    return frame.assign(device=[data.labels[int(i)] for i in frame["device"]], direction=frame["direction"].astype(int))
