"""From a table of pulse responses to a device: outliers, the choice of a model, and the result."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hardware.device_laws import LAWS
from hardware.device_params import DeviceParams
from perturb.errors import InputError, choose, cut, one_line
from sims.device_fit import describe
from sims.device_fit.describe import REACH, Described, described
from sims.device_fit.likelihood import Errors, Fit, fit_candidate, settled
from sims.device_fit.models import CANDIDATES, TRIED, straight_segments
from sims.device_fit.pulses import Measured, read_pulses

Array = np.ndarray
Progress = Callable[[int, int], None]  # models fitted, of how many

MOST_OUTLIERS = 0.02  # share of the readings
ROUNDS = 4  # of leaving out outliers


@dataclass(frozen=True)
class DeviceFit:
    """What `fit_device` found.

    Attributes
    ----------
    device, text
        The device, and its file.
    models
        Every model tried, least BIC first: model, noise, slopes, parameters, log_likelihood, bic,
        verdict.
    parameters
        key, value, stderr (nan = not known), meaning; a noise that the data do not show is 0, with
        the rms value that they leave open.
    readings
        device, sequence, pulse, measured, fitted (mean response from each sequence's first
        reading), residual (reading less what the readings before it predict), expected (its
        standard deviation). Weights, here and below, in range units.
    response
        direction, weight, step (mean over cells of dw f(w)), stderr.
    steps
        device, direction, weight, step, from straight stretches of the data.
    unit, zero, per_range
        Of the readings in the table: their unit ("range": range units), that of weight 0, and how
        much of it is one range unit.
    outliers
        line, device, pulse, reading (in the unit of the table) of those that were left out.
    """

    device: DeviceParams
    text: str
    models: pd.DataFrame
    parameters: pd.DataFrame
    readings: pd.DataFrame
    response: pd.DataFrame
    steps: pd.DataFrame
    unit: str
    zero: float
    per_range: float
    outliers: pd.DataFrame


@dataclass(frozen=True)
class _Table:
    """A file, how it is read, and what it is to be fitted by."""

    path: str | Path
    source: str
    low: float | None
    high: float | None
    inverted: bool
    name: str
    models: list[str]
    reach: float

    def read(self, without: set[int]) -> Measured:
        return read_pulses(self.path, self.low, self.high, self.inverted, without)

    def described(self, fit: Fit, errors: Errors, likeliest: Fit) -> Described:
        source = f"fitted to {Path(self.path).name}"[:200]
        return described(fit, errors, likeliest, self.name, source, self.reach)


def fit_device(
    path: str | Path,
    model: str = "auto",
    low: float | None = None,
    high: float | None = None,
    name: str | None = None,
    inverted: bool = False,
    progress: Progress = lambda done, total: None,
) -> DeviceFit:
    """Fit a device to measured pulse responses.

    Parameters
    ----------
    path, low, high, inverted
        A table of readings, see `read_pulses`.
    model
        One of CANDIDATES, or "auto": the one of least BIC. Two-sided data (pulses up and down) are
        fitted by every law of TRIED that is not a pair, one-sided ones by one-sided-pair; a table
        of steps (piecewise-step), which would describe whatever there is, only if it is asked for.
    name
        Of the device; that of the file if left out.
    progress
        Told how many models are fitted, and of how many.

    Returns
    -------
    DeviceFit
        The device, its file as text, and tables.

    Raises
    ------
    InputError
        For data that are too few, that no model can describe, or that do not go with the model
        asked for.

    Notes
    -----
    How a model is fitted: `likelihood`. A reading is an outlier, such as a dropout, if it is
    likelier to be anything within the span of all readings, which OUTLIERS of them are expected to
    be, than what the pulses before it make of the weight: some 4 to 5 standard deviations off.
    Outliers are left out, the table is fitted anew without them, and the result names them. Of more
    than MOST_OUTLIERS no fit is made.
    """
    source = one_line(cut(str(path), 200))
    if model != "auto":
        choose("model", model, {"auto": None, **CANDIDATES})
    whole = read_pulses(path, low, high, inverted)
    # of pulses up alone nothing is seen of steps down, which a two-sided law would leave open
    possible = [key for key in CANDIDATES if LAWS[key].paired == whole.one_sided]
    if model != "auto" and model not in possible:
        has = "only pulses up" if whole.one_sided else "pulses up and down"
        raise InputError(
            f'{source}: has {has}, which model = "{model}" does not describe: choose one of '
            f"{', '.join(possible)}"
        )
    auto = model == "auto"
    table = _Table(
        path=path,
        source=source,
        low=low,
        high=high,
        inverted=inverted,
        name=name or Path(path).stem[:100] or "device",
        models=[key for key in possible if key in TRIED] if auto else [model],
        reach=REACH if auto else math.inf,
    )
    fits, segments, left_out = _without_outliers(table, whole, progress)
    best, fits = _best(table, fits)
    assert best.device
    data = best.fit.data
    n, made = len(left_out), f"{best.fit.candidate.model} fitted to {data.y.size} readings"
    without = f", {n} outlier{'s' * (n > 1)} left out" if n else ""
    device = best.device.model_copy(
        update={"description": f"{made} of {data.n_cells} cells{without}"}
    )
    outliers = _outliers(whole, left_out)
    return DeviceFit(
        device=device,
        text=describe.text(device, best, outliers),
        models=describe.models(fits, best),
        parameters=describe.parameters(device, best.stderr),
        readings=describe.readings(best),
        response=describe.response(best),
        steps=describe.steps(segments, data),
        unit=data.unit,
        zero=data.zero,
        per_range=data.per_range,
        outliers=outliers,
    )


def _outliers(whole: Measured, lines: set[int]) -> pd.DataFrame:
    rows = np.flatnonzero(np.isin(whole.line, list(lines)))
    return pd.DataFrame(
        {
            "line": whole.line[rows],
            "device": np.array(whole.labels)[whole.cell[rows]],
            "pulse": whole.number[rows],
            "reading": whole.zero + whole.per_range * whole.y[rows],
        }
    )


def _without_outliers(
    table: _Table, whole: Measured, progress: Progress
) -> tuple[list[Described], Array, set[int]]:
    """The fits of least BIC first, straight segments of their data, and lines that are outliers."""
    data, left_out = whole, set[int]()
    for turn in range(ROUNDS):
        segments = straight_segments(data)
        if _against(segments):
            both = "" if data.one_sided else " and pulses down raise them"
            remedy = "leave out --inverted" if table.inverted else "add --inverted"
            raise InputError(
                f"{table.source}: pulses up lower the readings{both}: if it is their polarity, "
                f"{remedy}; if these are resistances, give conductances"
            )
        fits = []
        possible = [
            candidate
            for key in table.models
            for candidate in CANDIDATES[key]
            # a slope for every cell of several
            if candidate.own < 4 or data.n_cells > 1
        ]
        for done, candidate in enumerate(possible):
            progress(done, len(possible))
            fit = fit_candidate(candidate, data, segments)
            fits.append(table.described(fit, fit.curvature().errors(fit), fit))
        progress(len(possible), len(possible))
        fits.sort(key=lambda found: round(found.bic, 1))  # of equal ones, the first
        new = set(data.line[fits[0].outliers].tolist())
        if not new:
            return fits, segments, left_out
        left_out |= new
        # too many to be dropouts, or new ones in every round
        if len(left_out) > max(3, MOST_OUTLIERS * whole.y.size) or turn == ROUNDS - 1:
            break
        data = table.read(left_out)
    raise InputError(
        f"{table.source}: {len(left_out)} of {whole.y.size} readings, such as that of line "
        f"{min(left_out)}, are far from what the pulses before them make of the weight "
        f"({fits[0].fit.candidate.model}): too many for dropouts, so no model describes these "
        "readings"
    )


def _best(table: _Table, fits: list[Described]) -> tuple[Described, list[Described]]:
    """The fit of least BIC that makes a device, settled, and all of them with it."""
    for place, found in enumerate(fits):
        if found.device:
            # settling takes many fits: only the chosen one is; refused then, the next is tried
            fits[place] = best = table.described(*settled(found.fit), found.fit)
            if best.device:
                return best, fits
    why = f"{fits[0].fit.candidate.model}: {fits[0].refused}"
    raise InputError(f"{table.source}: no model describes these readings: {why}")


def _against(segments: Array) -> bool:
    """Whether pulses of every direction that there is clearly change the weight the other way."""
    clearly = []
    for d in np.unique(segments[:, 1]):
        changes = d * segments[segments[:, 1] == d, 3]
        # from one or two stretches nothing is clear
        error = changes.std(ddof=1) / math.sqrt(changes.size) if changes.size > 2 else math.inf
        clearly.append(changes.mean() < -3 * error)
    return bool(clearly) and all(clearly)
