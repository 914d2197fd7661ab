"""What a fit says: tables of a device file, with standard errors, and frames of a report."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from hardware.config import Table, validated
from hardware.device_params import DeviceParams
from hardware.device_tables import NoiseParams
from hardware.templates import written
from perturb.errors import InputError, one_line
from sims.device_fit.filter import REGULAR, E, S, X, mean_curve_of, steps_of
from sims.device_fit.likelihood import PULSE, UNKNOWN, WRITE, Errors, Fit
from sims.device_fit.models import Exponential, General, Linear
from sims.device_fit.pulses import Measured

Array = np.ndarray

REACH = 2.0  # a soft bound further out than this times the largest weight is none of these data
LOWEST = 0.1  # share of a slope down to which it is taken to be known to be positive


@dataclass(frozen=True)
class Estimate:
    """A parameter's mean over cells and its standard deviation less the cells' own errors."""

    mean: float
    error: float
    deviation: float = 0.0
    deviation_error: float = math.nan

    def scaled(self, factor: float) -> "Estimate":
        size = abs(factor)
        return Estimate(
            self.mean * factor,
            self.error * size,
            self.deviation * size,
            self.deviation_error * size,
        )


def upper(relative: float) -> float:
    """Standard error of a positive number whose logarithm has the standard error `relative`.

    That of its 95 % interval to above over 1.96: an estimate that is too low by chance takes its
    error for too small, too.
    """
    return math.expm1(1.96 * min(relative, 5.0)) / 1.96


@dataclass(frozen=True)
class Described:
    """A fit and the device that it makes, or why it makes none (`refused`).

    stderr: of each dotted key of the device file; nan = not known. low, high (n_cells,): the
    extreme weights measured.
    """

    fit: Fit
    errors: Errors
    low: Array
    high: Array
    bic: float
    log_likelihood: float
    n_parameters: int
    device: DeviceParams | None = None
    refused: str = ""
    stderr: dict[str, float] = field(default_factory=dict)

    @property
    def outliers(self) -> Array:
        """Rows of the data."""
        return np.flatnonzero(self.fit.out[REGULAR] < 0.5)

    def across(self, of: Callable[[Array], Array]) -> Estimate:
        """Mean over cells, and deviation, of a function of theta (n_cells, 6).

        Notes
        -----
        With own_i and common_i the variances of a cell's value that are its own and common to all,
        by the delta method,

            error^2 = max(var, own + common - alike) / n t^2 + alike
            deviation^2 = max(0, var - own - common + alike)

        where alike is what all cells have in common, which does not average out. t: the errors are
        those of 95 % intervals over 1.96, the deviation's to above, as few cells give Student's t
        and chi squared, not normal numbers.
        """
        from scipy.stats import chi2, norm, t

        fit, packed, h = self.fit, self.fit.packed, 1e-6
        values = of(fit.theta)
        # d of / d packed by central differences: `of` may be any function of theta
        slopes = np.empty(packed.shape)
        for j, unit in enumerate(np.eye(packed.shape[1])):
            above, below = (
                of(fit.candidate.unpacked(packed + s * h * unit, fit.data)) for s in (1, -1)
            )
            slopes[:, j] = (above - below) / (2 * h)
        own = np.einsum("ik,ikl,il->i", slopes, self.errors.own, slopes)
        common = np.einsum("ik,ikr->ir", slopes, self.errors.common)
        known = own < UNKNOWN  # a cell that says nothing about its value takes no part
        if known.any():
            values, own, common = values[known], own[known], common[known]
        n = values.size
        # variance of the mean over cells by the errors that all of them share
        alike = float((common.sum(0) ** 2).sum()) / n**2
        within = float(own.mean()) + max(float((common**2).sum()) / n - alike, 0.0)
        # `within` is how far values of equal cells would differ by their errors alone
        total = float(values.var(ddof=1)) if n > 1 else 0.0
        most = max(total, within)
        # one cell knows no spread: a deviation of 0 with NaN as its error
        if n == 1 or most == 0.0:
            return Estimate(float(values[0]), math.sqrt(most + alike))
        few = (t.ppf(0.975, n - 1) / norm.ppf(0.975)) ** 2
        # s sqrt((n - 1) / chi2_0.025) is the upper 97.5 % limit of a deviation s
        wide = (math.sqrt((n - 1) / chi2.ppf(0.025, n - 1)) - 1) / norm.ppf(0.975)
        return Estimate(
            float(values.mean()),
            math.sqrt(most / n * few + alike),
            math.sqrt(max(total - within, 0.0)),
            math.sqrt(most) * wide,
        )


class _Refused(Exception):
    """Why a fit makes no device."""


def described(
    fit: Fit, errors: Errors, likeliest: Fit, name: str, source: str, reach: float
) -> Described:
    """The device of a fit; BIC = p ln N - 2 ln L (Schwarz 1978) is that of the likeliest one.

    Parameters
    ----------
    fit, errors
        See `likelihood`.
    likeliest
        The fit where L is largest, if `fit` has been freed of what parameters take from noises.
    name, source
        Of the device.
    reach
        Most that a soft bound may lie out, in largest weights measured.
    """
    candidate, data = fit.candidate, fit.data
    # the extremes of noisy readings lie outside those of the weight
    weights = [fit.out[X][data.cell == i] for i in range(data.n_cells)]
    # ends are read off the data, cell by cell, not fitted
    p = data.n_cells * candidate.own + candidate.ends + candidate.shared
    # a noise that stands at 0 is no parameter
    p += int((likeliest.noises > 0).sum())
    likelihood = -float(likeliest.of_cells(likeliest.out).sum())
    parts: dict[str, Any] = dict(
        fit=fit,
        errors=errors,
        low=np.array([own.min() for own in weights]),
        high=np.array([own.max() for own in weights]),
        bic=p * math.log(data.y.size) - 2 * likelihood,
        log_likelihood=likelihood,
        n_parameters=p,
    )
    rows: Rows = []
    try:
        # made twice: `_rows` needs `across` to say what the device is
        rows = _rows(Described(**parts), reach)
        tables: dict[str, Any] = {"name": name, "model": candidate.model, "source": source}
        for key, value, _ in rows:
            head, _, last = key.rpartition(".")
            if last.endswith("]"):
                continue  # of a list, which stands as a whole
            # without write noise a device has no table [noise]
            if key != "noise.write" or value > 0:
                rounded = _rounded(value)
                tables.setdefault(head, {})[last] = rounded
        parts["device"] = validated(DeviceParams, tables, "fit")
    # InputError: a value outside the range that a device file allows
    except (_Refused, InputError) as reason:
        parts["refused"] = str(reason).removeprefix("fit: ")
    fitted = {key: error for key, _, error in rows if error is not None}
    # beyond UNKNOWN, a variance, an error is only what `inverse` made up
    stderr = {key: e if e < math.sqrt(UNKNOWN) else math.nan for key, e in fitted.items()}
    return Described(**parts, stderr=stderr)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


Rows = list[tuple[str, Any, float | None]]  # (dotted key, value, standard error if it is fitted)


def _rows(found: Described, reach: float) -> Rows:
    fit = found.fit
    rows = _step(found)
    # errors of logarithms, but absolute for a noise that stands at 0, see `Errors`
    noises = [
        value * upper(error) if value > 0 else error
        for value, error in zip(fit.noises.tolist(), found.errors.noise.tolist(), strict=True)
    ]
    kind = "additive" if fit.candidate.additive else "multiplicative"
    rows += [("step.c2c", fit.c, noises[PULSE]), ("step.c2c_kind", kind, None)]
    slopes = {}
    if isinstance(fit.candidate, Linear) and fit.candidate.own + fit.candidate.shared == 4:
        # columns of theta: the slope of steps up ends at w_max, that of steps down at w_min
        columns = (("w_max", 2), ("w_min", 3))
        slopes = {key: found.across(itemgetter((slice(None), j))) for key, j in columns}
    bounds: dict[str, Estimate] = {}
    for key in ("w_max", "w_min"):
        if fit.data.one_sided and key == "w_min":
            bounds[key] = Estimate(0.0, math.nan)
            rows.append(("bounds.w_min", 0.0, None))
            continue
        if isinstance(fit.candidate, General):  # one shape for all cells has one pair of ends
            column = -1 if key == "w_max" else -2
            end = fit.data.ends[column]
            # only then are w_min and w_max fitted; else they are read off the data
            known = fit.candidate.law.vanishing
            bounds[key] = (
                found.across(itemgetter((slice(None), column)))
                if known
                else Estimate(end, math.nan)
            )
            rows.append((f"bounds.{key}", bounds[key].mean, bounds[key].error))
            continue
        if fit.candidate.model == "soft-bounds":
            bounds[key] = _soft_bound(slopes[key], key, fit.data, reach)
        else:
            bounds[key] = _extreme(found.high if key == "w_max" else found.low)
        mean, deviation = bounds[key].mean, bounds[key].deviation
        # an error of 0, from extremes that are equal, would claim that a bound is known exactly
        rows.append((f"bounds.{key}", mean, bounds[key].error or math.nan))
        # extremes that differ by more than their mean are where pulses happened to end, no bounds
        seen = deviation < abs(mean)
        relative = deviation / abs(mean) if seen else 0.0
        error = bounds[key].deviation_error / abs(mean) if seen else math.nan
        rows.append((f"bounds.{key}_dtod", relative, error))
    if fit.candidate.model == "linear-step":
        rows += _linear(slopes, bounds)
    if isinstance(fit.candidate, Exponential):
        rows += _exponential(found, bounds)
    if isinstance(fit.candidate, General):
        rows += _numbers(found, fit.candidate)
    return [*rows, ("noise.write", fit.write, noises[WRITE])]


def _step(found: Described) -> Rows:
    """Gain dw_min and asymmetry up_down of every cell, from dw_up and dw_down."""
    pair, data = found.fit.data.one_sided, found.fit.data

    def gain(theta: Array) -> Array:
        return theta[:, 0] if pair else (theta[:, 0] + theta[:, 1]) / 2

    dw = found.across(gain)
    rows: Rows = [("step.dw_min", dw.mean, dw.error)]
    rows.append(("step.dw_min_dtod", dw.deviation / dw.mean, dw.deviation_error / dw.mean))
    dw_min = dw.mean
    # fewer cells do not tell one distribution from the other
    if data.n_cells >= 8 and _lognormal(gain(found.fit.theta)):
        log = found.across(lambda theta: np.log(gain(theta)))
        dw_min = math.exp(log.mean)
        rows = [
            ("step.dw_min", dw_min, dw_min * log.error),
            ("step.dw_min_dtod", log.deviation, log.deviation_error),
            ("step.dw_min_distribution", "lognormal", None),
        ]
    if not pair:
        beta = found.across(lambda theta: (theta[:, 0] - theta[:, 1]) / 2 / dw_min)
        rows.append(("step.up_down", beta.mean, beta.error))
        rows.append(("step.up_down_dtod", beta.deviation, beta.deviation_error))
    return rows


def _lognormal(values: Array) -> bool:
    """Whether steps are clearly more probable as lognormal than as normal numbers."""
    ln = np.log(values)
    if not values.std() > 0:
        return False
    # largest ln L of both, ln.sum() being the lognormal's dx/x; 2 more than the normal's is clear
    return bool(-ln.size * math.log(ln.std()) - ln.sum() > -ln.size * math.log(values.std()) + 2)


def _soft_bound(slope: Estimate, key: str, data: Measured, reach: float) -> Estimate:
    """1 / slope, where steps vanish; relatively, it differs from cell to cell as the slope does."""
    extreme = data.y.max() if key == "w_max" else data.y.min()
    # asked for by name, a bound may be uncertain, as its standard error then says
    certain = 3 * slope.error * abs(extreme) if math.isfinite(reach) else 0.0
    if slope.mean * extreme <= certain or abs(1 / slope.mean) > reach * abs(extreme):
        way, end = ("up", "largest") if key == "w_max" else ("down", "smallest")
        raise _Refused(f"steps {way} do not shrink to nothing near the {end} weight")
    size = abs(slope.mean)
    # the 95 % interval's outer end: a slope too large by chance gives its bound too small an error
    least = max(size - 1.96 * slope.error, LOWEST * size)
    outer = (1 / least - 1 / size) / 1.96
    return Estimate(
        1 / slope.mean, outer, slope.deviation / size**2, slope.deviation_error / size**2
    )


def _extreme(values: Array) -> Estimate:
    """Of numbers that are read off the data, whose own errors are not known."""
    from scipy.stats import norm, t

    n = values.size
    if n == 1:
        return Estimate(float(values[0]), math.nan)
    deviation = float(values.std(ddof=1))
    few = t.ppf(0.975, n - 1) / norm.ppf(0.975)
    # Student's t over 1.96, as in `Described.across`
    error = deviation / math.sqrt(n) * few
    # s / sqrt(2 (n - 1)) is the standard error of a normal sample's deviation
    return Estimate(float(values.mean()), error, deviation, deviation / math.sqrt(2 * (n - 1)))


def _linear(slopes: dict[str, Estimate], bounds: dict[str, Estimate]) -> Rows:
    rows: Rows = []
    for way, key in (("up", "w_max"), ("down", "w_min")):
        # f = 1 - slope w = 1 - gamma w / bound
        gamma = slopes[key].scaled(bounds[key].mean)
        # steps that are constant but for noise may come out a little below 0: they get gamma = 0
        if gamma.mean < -5 * gamma.error:
            raise _Refused(f"steps {way} grow towards the bound")
        rows.append((f"linear.gamma_{way}", max(gamma.mean, 0.0), gamma.error))
        rows.append((f"linear.gamma_{way}_dtod", gamma.deviation, gamma.deviation_error))
    return rows


def _exponential(found: Described, bounds: dict[str, Estimate]) -> Rows:
    sign = -1.0 if found.fit.theta[0, 4] < 0 else 1.0
    width = bounds["w_max"].mean - bounds["w_min"].mean
    rows: Rows = [("exponential.a", sign * width / 2, None), ("exponential.b", 0.0, None)]
    for side, way in ((0, "up"), (1, "down"))[: 1 if found.fit.data.one_sided else 2]:
        A, k = (found.across(itemgetter((slice(None), place + side))) for place in (2, 4))
        k = k.scaled(sign * (1 - 2 * side))
        if k.mean < -5 * k.error:
            raise _Refused("the exponents of steps up and down have the same sign")
        rows.append((f"exponential.A_{way}", A.mean, A.error))
        rows.append((f"exponential.gamma_{way}", max(k.mean, 0.0), k.error))
    return rows


def _numbers(found: Described, candidate: General) -> Rows:
    """The table of a law, as its columns of theta are."""
    rows: Rows = []
    for name, columns in candidate.columns.items():
        own = [found.across(itemgetter((slice(None), j))) for j in columns]
        key = f"{candidate.law.key}.{name}"
        if len(own) == 1:
            rows.append((key, own[0].mean, own[0].error))
        else:
            rows.append((key, [each.mean for each in own], None))
            rows += [(f"{key}[{i}]", each.mean, each.error) for i, each in enumerate(own)]
    return rows


# ---- the file and the frames


def models(found: list[Described], best: Described) -> pd.DataFrame:
    """Every model tried, with its verdict."""
    rows = [
        {
            "model": each.fit.candidate.model,
            "noise": "additive" if each.fit.candidate.additive else "multiplicative",
            "slopes": each.fit.candidate.slopes,
            "parameters": each.n_parameters,
            "log_likelihood": each.log_likelihood,
            "bic": each.bic,
            "verdict": "chosen" if each is best else each.refused,
        }
        for each in found
    ]
    return pd.DataFrame(rows)


def _fields(params: DeviceParams) -> list[tuple[str, Any, str]]:
    """(dotted key, value, meaning) of everything the device says."""
    rows = []
    for key, info in DeviceParams.model_fields.items():
        value = getattr(params, key)
        if isinstance(value, Table):
            for name, inner in type(value).model_fields.items():
                rows.append((f"{key}.{name}", getattr(value, name), inner.description or ""))
        elif value is not None:
            rows.append((key, value, info.description or ""))
    return rows


def parameters(params: DeviceParams, stderr: dict[str, float]) -> pd.DataFrame:
    """Key, value, standard error and meaning of everything that was fitted."""
    fields = _fields(params)
    if not params.noise:
        meaning = NoiseParams.model_fields["write"].description or ""
        fields.append(("noise.write", 0.0, meaning))
    single = []
    for key, value, meaning in fields:
        if isinstance(value, tuple):
            single += [(f"{key}[{i}]", each, meaning) for i, each in enumerate(value)]
        else:
            single.append((key, value, meaning))
    rows = [(key, value, stderr[key], meaning) for key, value, meaning in single if key in stderr]
    return pd.DataFrame(rows, columns=["key", "value", "stderr", "meaning"])


def text(params: DeviceParams, found: Described, outliers: pd.DataFrame) -> str:
    """The device file, with units, meaning and standard error of every field."""
    data, stderr = found.fit.data, found.stderr
    cells = f"{data.n_cells} cell{'s' * (data.n_cells > 1)}"
    lines = [f"# {params.model} fitted to {data.y.size} readings of {cells}; BIC {found.bic:.1f}."]
    if data.unit != "range":
        unit = one_line(data.unit)
        lines.append(
            f"# One range unit is {data.per_range:.6g} {unit}; w = 0 is {data.zero:.6g} {unit}."
        )
    if data.n_cells == 1:
        lines.append(
            "# From a single cell no spread from cell to cell (dtod) can be known: they stand at 0."
        )
    if len(outliers):
        rows = outliers.head(10).to_dict("records")
        shown = "; ".join(f"line {row['line']}: {row['reading']:g}" for row in rows)
        more = f" and {len(outliers) - 10} more" if len(outliers) > 10 else ""
        lines.append(f"# {len(outliers)} outliers are left out: {shown}{more}.")
    if not params.noise:
        none = f"write = 0 +- {stderr['noise.write']:.2g}"
        lines.append(f"# No noise of readings is shown by these data: {none}.")
    lines.append("# Shares are relative: 0.05 means 5 %. +-: standard error of the fit.")
    table = ""
    for key, value, meaning in _fields(params):
        head, _, last = key.rpartition(".")
        if head != table:
            lines += ["", f"[{head}]"]
            table = head
        error, known = stderr.get(key, math.nan), ""
        if math.isfinite(error):
            known = f"; +- {error:.2g}"
        elif f"{key}[0]" in stderr:
            known = "; +- " + ", ".join(f"{stderr[f'{key}[{i}]']:.2g}" for i in range(len(value)))
        elif key in ("bounds.w_max", "bounds.w_min"):
            known = "; extreme measured"
        if key == "step.c2c" and value == 0:
            known += ", not shown by these data"
        if key == "model":
            meaning, known = "the formulas are in hardware/device_laws.py", ""
        lines.append(f"{last} = {written(value)}  # {meaning}{known}")
    return "\n".join(lines) + "\n"


def readings(found: Described) -> pd.DataFrame:
    """Each reading beside the mean curve, and its residual beside that expected."""
    fit, data = found.fit, found.fit.data
    ends = (fit.low, fit.high) if fit.candidate.ends else fit.candidate.bounds(fit.theta)
    curve = mean_curve_of(fit.candidate.law.step)(
        data.y, data.pulses, data.first, data.cell, fit.cells, *ends
    )
    return pd.DataFrame(
        {
            "device": np.array(data.labels)[data.cell],
            "sequence": np.cumsum(data.first),
            "pulse": data.number,
            "measured": data.y,
            "fitted": curve,
            # nothing comes before a first reading that could predict it
            "residual": np.where(data.first, np.nan, fit.out[E]),
            "expected": np.where(data.first, np.nan, np.sqrt(fit.out[S])),
        }
    )


def response(found: Described) -> pd.DataFrame:
    """Mean step against weight, with its standard error as `Described.across` has it."""
    fit, rows = found.fit, []
    steps_at = steps_of(fit.candidate.law.step)

    def mean_step(up: bool, w: float) -> Estimate:
        return found.across(lambda theta: steps_at(fit.candidate.cells(theta, fit.data), up, w))

    for w in np.linspace(np.mean(found.low), min(np.mean(found.high), fit.data.y.max()), 41):
        for d in (1,) if fit.data.one_sided else (1, -1):
            step = mean_step(d > 0, w)
            rows.append((d, w, d * step.mean, step.error))
    return pd.DataFrame(rows, columns=["direction", "weight", "step", "stderr"])


def steps(segments: Array, data: Measured) -> pd.DataFrame:
    """Steps from straight stretches of the data."""
    frame = pd.DataFrame(segments[:, :4], columns=["device", "direction", "weight", "step"])
    labels = [data.labels[int(i)] for i in frame["device"]]
    return frame.assign(device=labels, direction=frame["direction"].astype(int))
