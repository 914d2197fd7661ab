"""Statistics: the mergeable sums that both engines produce, and their solution into per-weight estimates."""

import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

from perturb.errors import InputError, choose
from perturb.files import UNREADABLE, open_regular, reason, whole
from perturb.trial.codes import CODES, SEQUENTIAL, Code, Registers, lfsr
from perturb.trial.methods import Method
from perturb.trial.periods import ROUNDING, Periods, errors_over_periods
from perturb.trial.synapse import SUMS, TOTALS, curvature_along, put_along, solve_least_squares, solve_moments

if TYPE_CHECKING:
    from perturb.networks.objective import Objective
    from perturb.trial.readout import Reading

Array = np.ndarray
MOST_TRIALS = 2**62  # trial numbers fit 64 bits with room to spare
FORMAT = "perturb statistics 3"
# share of a regressor's square sum below which what is left of it is rounding: that of the sums, which in float32 is up to 1e-6
SINGULAR = {"float64": 1e-12, "float32": 1e-5}


@dataclass(frozen=True)
class Design:
    """What every trial of an estimate has in common; statistics of different designs never mix.

    sigma: rms of a perturbation. r: displacement along v (methods that displace). presentation: "batch" (an evaluation presents
    all patterns) or "pattern" (a trial presents one, drawn at random). seed keys the code, the noise and the drawn patterns.
    """

    method: Method
    code: Code
    n_weights: int
    sigma: float
    r: float
    seed: int
    presentation: str = "batch"

    def __post_init__(self) -> None:
        for name in ("sigma", "r"):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not (number and np.isfinite(value) and value > 0):
                raise InputError(f"{name} = {value if number else repr(value)} must be a positive number")
        if not (isinstance(self.seed, (int, np.integer)) and 0 <= self.seed < 2**64):
            raise InputError(f"seed = {self.seed!r} must be a whole number from 0 to 2^64 - 1")
        if self.presentation not in ("batch", "pattern"):
            raise InputError(f'presentation = {self.presentation!r} is unknown: "batch" or "pattern"')
        check_pair(self.method, self.code)
        self.code.check(self.n_weights)

    @property
    def kappa(self) -> float:
        """The constant of the method's diagonal correction for this code, see `Method.kappa`."""
        return self.method.kappa(self.code.kurtosis)

    def not_finite(self, trial: int) -> "NotFinite":
        """What to say when E is not finite in a trial: which trial and seed it was, and how to draw it again."""
        registers, name = self.code.registers, self.code.name
        if registers not in (None, Registers()):
            name = f"perturb.lfsr({registers.taps}, {registers.bits})"
        elif self.code.function is None:
            name = f'perturb.CODES["{name}"]'
        return NotFinite(
            f"E is not finite in trial {trial} of {self.method.name}/{self.code.name} (seed {self.seed}): lower sigma or r; "
            f"its perturbation is {name}.draw({self.n_weights}, {float(self.sigma)!r}, {self.seed}, {trial})",
            trial,
        )

    @property
    def scales(self) -> tuple[float, float]:
        """Known denominators of g and z for fit = "moments"."""
        square = self.sigma * self.sigma  # infinite where a power would raise OverflowError
        return square, self.r * square if self.method.regressor == "dw" else square * square


class NotFinite(InputError):
    """E is not finite in a trial."""

    def __init__(self, message: str, trial: int):
        super().__init__(message, trial)  # all that it can be made of again, as SimPy does
        self.trial = trial

    def __str__(self) -> str:
        return self.args[0]


def check_pair(method: Method, code: Code) -> None:
    """InputError for a code whose components are too dependent for a method on s dw: its limit is not z, nor anything near."""
    if method.needs_s and not code.independent:
        what = "perturbs one weight at a time" if code.kind == SEQUENTIAL else "repeats the same products of its columns"
        raise InputError(
            f"method = {method.name!r} does not go with code = {code.name!r}, which {what}: use difference, or another code"
        )


@dataclass(frozen=True, eq=False)
class Point:
    """Where trials are run: the direction v (n,), E(w), and a digest of w, v and how the error is read."""

    v: Array
    error: float
    digest: str

    @classmethod
    def of(cls, objective: "Objective", w: Array, v: Array, reading: "Reading") -> "Point":
        numbers = (float(reading.noise), int(reading.bits), float(reading.range), int(objective.n_patterns))
        digest = hashlib.sha256(repr(numbers).encode())
        for array in (w, v):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return cls(v.copy(), objective.error(w), digest.hexdigest())

    def same(self, other: "Point") -> bool:
        # E may differ in its last places on another machine; another network or other data differ by far more
        return self.digest == other.digest and abs(self.error - other.error) <= 1e-9 * max(abs(self.error), abs(other.error))


class Statistics:
    """Sums over trials: `closed` of whole blocks, `open` of the block not yet full, so that any split gives the same bits.

    sums: (rows, n), rows named by `synapse.SUMS`; totals: by `synapse.TOTALS`. spans: the trial numbers summed so far, as
    (first, last + 1) in order. A run goes on at the end of its last span, so spans = [(first, first)] is an empty start for one
    of several processes. point: where they were summed, None before the first trial. opened: the first trial in
    `open`, if there is one. precision: float32, if any trial ran so. periods: of a periodic code, what its double periods made,
    for the standard errors; None for any other, and for one of the user's own.
    """

    def __init__(self, design: Design, spans: Iterable[tuple[int, int]] = ()):
        self.design, self.spans = design, list(spans)
        self.closed, self.open = self.zeros(), self.zeros()
        self.opened: int | None = None
        self.precision = "float64"
        self.point: Point | None = None
        self.periods = Periods(design) if design.code.periodic and design.code.function is None else None

    def bind(self, point: Point) -> None:
        """Note where the trials are run; InputError if those so far were run elsewhere."""
        if self.point is not None and not self.point.same(point):
            raise InputError(
                "the statistics were summed at another w, v, network, data or error noise: go on with the same, or start anew"
            )
        self.point = self.point or point

    def zeros(self) -> tuple[Array, Array]:
        return np.zeros((len(SUMS), self.design.n_weights)), np.zeros(len(TOTALS))

    @property
    def sums(self) -> Array:
        return self.closed[0] + self.open[0]

    @property
    def totals(self) -> Array:
        return self.closed[1] + self.open[1]

    @property
    def trials(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    @property
    def next_trial(self) -> int:
        return self.spans[-1][1] if self.spans else 0

    def extend(self, count: int) -> None:
        """Note that the `count` trials after the last have been summed."""
        start = self.next_trial
        check_trials(start, count)
        if self.spans:
            self.spans[-1] = (self.spans[-1][0], start + count)
        else:
            self.spans.append((start, start + count))

    def merge(self, other: "Statistics") -> "Statistics":
        """The statistics of both; refuses other designs and trials counted twice. Equal to one run within rounding."""
        if self.design != other.design:
            raise InputError(
                "statistics of different designs cannot be merged: method, code, sigma, r, seed and network must agree"
            )
        if self.point and other.point and not self.point.same(other.point):
            raise InputError("statistics of different w, v, network, data or error noise cannot be merged")
        spans: list[tuple[int, int]] = []
        for start, stop in sorted(self.spans + other.spans):
            if spans and start < spans[-1][1]:
                raise InputError(
                    f"trials {start}..{min(stop, spans[-1][1]) - 1} are in both statistics: merge disjoint trials only"
                )
            if spans and start == spans[-1][1]:
                spans[-1] = (spans[-1][0], stop)
            else:
                spans.append((start, stop))
        last = max(self, other, key=lambda statistics: statistics.next_trial)
        rest = other if last is self else self
        both = Statistics(self.design, spans)
        both.closed = (last.closed[0] + rest.sums, last.closed[1] + rest.totals)
        both.open, both.opened = (last.open[0].copy(), last.open[1].copy()), last.opened
        both.precision = min(self.precision, other.precision)
        both.point = self.point or other.point
        if self.periods and other.periods and both.point:
            both.periods = self.periods.merge(other.periods, both.point.v)
        return both

    def save(self, path: str | Path) -> None:
        """Write everything to one file (NumPy's npz), whole or not at all: first beside it, then renamed.

        A loaded copy goes on with the same bits. A file that cannot be written raises InputError.
        """
        method, code = asdict(self.design.method), self.design.code
        header = {
            "format": FORMAT, "sums": SUMS, "totals": TOTALS, "spans": self.spans, "method": method,
            "code": {key: getattr(code, key) for key in CODE_FIELDS},
            "registers": asdict(code.registers) if code.registers else None, "n_weights": int(self.design.n_weights),
            "sigma": float(self.design.sigma), "r": float(self.design.r), "seed": int(self.design.seed),
            "presentation": self.design.presentation,
            "point": [self.point.error, self.point.digest] if self.point else None,
            "opened": self.opened, "precision": self.precision, "periods": self.periods and self.periods.header,
        }  # fmt: skip
        content = io.BytesIO()
        np.savez(
            content, header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), v=self.point.v if self.point else [],
            closed_sums=self.closed[0], closed_totals=self.closed[1], open_sums=self.open[0], open_totals=self.open[1],
            **(self.periods.arrays() if self.periods else {}),  # type: ignore[arg-type]  # of allow_pickle, which stays as it is
        )  # fmt: skip
        path = Path(path)
        try:
            with whole(path) as file:
                file.write(content.getvalue())
        except OSError as error:
            raise InputError(f"{path}: the statistics could not be written ({error.strerror or error}): choose another") from None

    @classmethod
    def load(cls, path: str | Path, code: Code | None = None) -> "Statistics":
        """Read what `save` wrote. code: needed for statistics of a code of the user's own, whose function no file can hold.

        A file that is missing, cut short, damaged, or of another kind or version raises InputError.
        """
        path, remedy = Path(path), "give a file written by Statistics.save, or run the trials again"
        try:
            with open_regular(path) as file:
                content = file.read()
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} is damaged")
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT or tuple(header["sums"]) != SUMS or tuple(header["totals"]) != TOTALS:
                raise InputError(f"{path}: statistics of another version of perturb: run the trials again")
            stored, registers = header["code"], header.get("registers")
            found = code or (lfsr(**registers) if registers else CODES.get(stored["name"]))
            if found is None or json.dumps({key: getattr(found, key) for key in CODE_FIELDS}) != json.dumps(stored):
                raise InputError(f"{path}: summed with the code {stored['name']!r} of its own: give it as code=")
            if found.registers and found.registers != Registers(**(registers or {})):
                raise InputError(f"{path}: summed with the shift registers {registers}: leave out code=")
            method = header["method"]
            for key in ("phases", "gradient_weights", "hv_weights"):
                method[key] = tuple(tuple(entry) if isinstance(entry, list) else entry for entry in method[key])
            design = Design(
                Method(**method), found, header["n_weights"], header["sigma"], header["r"], header["seed"], header["presentation"]
            )
            statistics = cls(design, [(start, stop) for start, stop in header["spans"]])
            statistics.opened, statistics.precision = header["opened"], header["precision"]
            if header["point"] is not None:
                statistics.point = Point(arrays["v"], *header["point"])
            shapes = [array.shape for array in (*statistics.closed, *statistics.open)]
            if [arrays[name].shape for name in ARRAYS] != shapes or (statistics.point and arrays["v"].shape != shapes[0][1:]):
                raise ValueError("arrays of unexpected shape")
            statistics.closed = (arrays["closed_sums"], arrays["closed_totals"])
            statistics.open = (arrays["open_sums"], arrays["open_totals"])
            if statistics.periods:
                statistics.periods.restore(header["periods"], arrays)
        except InputError as error:
            raise error if str(error).startswith(f"{path}: ") else InputError(f"{path}: {error}") from None
        except FileNotFoundError:
            raise InputError(f"{path}: no such file: {remedy}") from None
        except DAMAGED as error:
            raise InputError(f"{path}: cannot be read as statistics ({reason(error)}): {remedy}") from None
        return statistics


# what damaged bytes make of zip, npy and json
DAMAGED = (*UNREADABLE, SyntaxError, struct.error, zipfile.BadZipFile, zlib.error)
ARRAYS = ("closed_sums", "closed_totals", "open_sums", "open_totals")
CODE_FIELDS = [field.name for field in fields(Code) if field.name not in ("length", "function")]


def check_trials(first: int, trials: object) -> int:
    """`trials` more after `first`, as an int; InputError unless it is a whole number >= 1 and trial numbers stay below 2^62."""
    if not (isinstance(trials, (int, np.integer)) and not isinstance(trials, bool) and trials >= 1):
        raise InputError(f"trials = {trials!r} must be a whole number >= 1")
    if first + int(trials) > MOST_TRIALS:
        raise InputError(f"trials = {trials} (after {first}) are more than fit: at most 2^62 in all")
    return int(trials)


@dataclass(frozen=True)
class Estimate:
    """Per-weight estimates, each of shape (n,), with standard errors from the same sums (NaN where they cannot be known).

    hv and hv_stderr are NaN for a method that estimates the gradient alone. gradient_df, hv_df: degrees of freedom of the
    standard errors; where they are few, an interval is Student's, see `interval`. unknown: why something is NaN, in sentences
    without a full stop.
    """

    gradient: Array
    gradient_stderr: Array
    hv: Array
    hv_stderr: Array
    trials: int
    evaluations: int
    statistics: Statistics
    gradient_df: float = math.inf
    hv_df: float = math.inf
    unknown: tuple[str, ...] = ()

    @property
    def design(self) -> Design:
        return self.statistics.design

    @property
    def precision(self) -> str:
        """Of the evaluations of E: "float32" or "float64"."""
        return self.statistics.precision

    def interval(self, quantity: str = "hv", level: float = 0.95) -> tuple[Array, Array]:
        """Lower and upper end of each weight's confidence interval, by Student's t: of what the method tends to.

        Parameters
        ----------
        quantity : "gradient" or "hv".
        level : probability, between 0 and 1, that an interval covers the method's limit (`theory.limit`).
        """
        choose("quantity", quantity, dict.fromkeys(("gradient", "hv")))
        if not 0 < level < 1:
            raise InputError(f"level = {level} must lie between 0 and 1")
        value, stderr, df = (getattr(self, f"{quantity}{part}") for part in ("", "_stderr", "_df"))
        half = float(student.ppf((1 + level) / 2, df)) * stderr
        return value - half, value + half

    @property
    def warnings(self) -> list[str]:
        """What the numbers do not say of themselves, in plain sentences: a periodic code stopped within its period, errors that
        cannot be known."""
        return [*period_warnings(self.design.code, self.design.n_weights, self.trials), *self.unknown]


def repeated(code: Code, n_weights: int, trials: int) -> int:
    """How many of so many trials have only repeated, with all signs turned, what an earlier one showed of the even part of E."""
    if not code.periodic or code.function is not None:
        return 0
    P = code.period(n_weights)
    return trials // (2 * P) * P + max(trials % (2 * P) - P, 0)


def period_warnings(code: Code, n_weights: int, trials: int) -> list[str]:
    """A sentence if `trials` are no whole number of periods of a periodic code; else none."""
    if not code.periodic or trials % (period := code.period(n_weights)) == 0:
        return []
    whole = -(-trials // period) * period
    short = "do not cover its period" if trials < period else "are no whole number of its periods"
    return [
        f"{trials:,} trials of code {code.name} {short} of {period:,} for {n_weights:,} weights, so weights disturb each other: "
        f"take {whole:,} trials"
    ]


def solve(statistics: Statistics) -> Estimate:
    """Estimates and standard errors from the sums alone.

    For independent trials the errors are those of `synapse.solve_*`, with K - 1 degrees of freedom less the number of means and
    of slopes besides the first that are fitted. Those of a periodic code come from its periods, see
    `periods.errors_over_periods`. A weight whose regressor has been constant so far, where only deviations from a mean are used,
    or whose two regressors cannot be told apart has no estimate: NaN; one that has not been perturbed has no error.
    """
    design, K = statistics.design, statistics.trials
    method, code, n = design.method, design.code, design.n_weights
    if K < 1:
        raise InputError("statistics hold no trial yet: run some first")
    sums, totals = statistics.sums, statistics.totals
    unknown: list[str] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        moved_x, moved_q = _varied(statistics, "x", method.centred), _varied(statistics, "q", method.centred)
        df = float(K - 1 - method.centred - (method.fit == "least_squares"))
        if method.fit == "moments":
            g, z, var_g, var_z = solve_moments(sums, totals, float(K), method.centred, *design.scales)
            if method.centred:
                g, z = np.where(moved_x, g, np.nan), np.where(moved_q, z, np.nan)
            var_g, var_z = np.where(moved_x, var_g, np.nan), np.where(moved_q, var_z, np.nan)
        else:
            g, z, var_g, var_z = solve_least_squares(sums, totals, float(K), method.centred)
            g, z, var_g, var_z = np.where(_fitted(statistics), (g, z, var_g, var_z), np.nan)
        fitted = z
        if method.correction == "along" and statistics.point:
            v = statistics.point.v
            c, var_c = curvature_along(totals, float(K), design.scales[1])
            z, var_z = put_along(z, np.maximum(var_z, 0.0), v, float(v @ v), c, max(var_c, 0.0))
        df_g = df_z = df
        if code.periodic:
            var_g, df_g, var_z, df_z, unknown = errors_over_periods(statistics, g, fitted, var_g, var_z)
        if not method.estimates_hv:
            z = var_z = np.full(n, np.nan)
        # variances are differences of mean squares, and known no better than their rounding
        known, least = (np.isfinite(g), np.isfinite(z)), ROUNDING[statistics.precision] / K
        errors = [
            np.where(ok, np.sqrt(np.maximum(var, least * value**2)), np.nan)
            for ok, value, var in zip(known, (g, z), (var_g, var_z), strict=True)
        ]
        if not (code.periodic or df >= 1):
            errors, df_g, df_z = [np.full(n, np.nan)] * 2, math.nan, math.nan
            unknown = [f"the standard errors of {K} trials are not known: take more"]
        if blind := int((~known[0] | ~known[1] & method.estimates_hv).sum()):
            alike = f"to {blind} of {n} weights all trials were alike, so that they have no estimate: take more, or another code"
            unknown = [*unknown, alike]
    return Estimate(
        g, errors[0], z, errors[1], K, K * method.evaluations_per_trial, statistics, df_g, df_z, tuple(dict.fromkeys(unknown))
    )


def _varied(statistics: Statistics, name: str, centred: bool) -> Array:
    """Whether a regressor, x or q, has been other than zero or (centred) other than its mean in the trials so far, (n,)."""
    sums, K = statistics.sums, statistics.trials
    first, square = sums[SUMS.index(name)], sums[SUMS.index(2 * name)]
    return square - centred * first * first / K > centred * SINGULAR[statistics.precision] * square


def _fitted(statistics: Statistics) -> Array:
    """Whether a weight's trials differ enough for its two regressors, (n,): of a singular fit only rounding would be left."""
    x, q, xx, xq, qq = statistics.sums[[SUMS.index(name) for name in ("x", "q", "xx", "xq", "qq")]]
    K = statistics.trials
    det = xx * qq - xq**2
    if statistics.design.method.centred:
        det = (xx - x * x / K) * (qq - q * q / K) - (xq - x * q / K) ** 2
    return det > SINGULAR[statistics.precision] * xx * qq
