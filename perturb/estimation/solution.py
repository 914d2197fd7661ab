"""From statistics to estimates: per-weight gradient and Hv with their standard errors."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit  # Student's t; scipy.stats takes a third of a second to load

from perturb.checks import between_0_and_1
from perturb.errors import InputError, choose
from perturb.estimation.design import Design
from perturb.estimation.standard_errors import ROUNDING, errors_over_periods
from perturb.estimation.statistics import Statistics
from perturb.notebook import QUANTITIES, axes, html_summary
from perturb.trial.periodicity import period_warnings
from perturb.trial.synapse import (
    SUMS,
    curvature_along,
    put_along,
    solve_least_squares,
    solve_moments,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray

# share of a regressor's square sum below which what is left of it is rounding: that of the sums,
# which in float32 is up to 1e-6
SINGULAR = {"float64": 1e-12, "float32": 1e-5}


@dataclass(frozen=True)
class Estimate:
    """Per-weight estimates, with standard errors from the same sums.

    Attributes
    ----------
    gradient : array of shape (n,)
        In units of E over those of the weights.
    gradient_stderr : array of shape (n,)
        NaN where it cannot be known.
    hv : array of shape (n,)
        z = Hv; NaN for a method that estimates the gradient alone.
    hv_stderr : array of shape (n,)
        As gradient_stderr.
    trials : int
    evaluations : int
        Measurements of E.
    statistics : Statistics
        The sums that it was solved from: to store, to merge, to go on from.
    gradient_df, hv_df : float
        Degrees of freedom of the standard errors; where they are few, an interval is Student's, see
        `interval`.
    unknown : tuple of str
        Why something is NaN, in sentences without a full stop.
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
        """What all trials have in common."""
        return self.statistics.design

    @property
    def precision(self) -> str:
        """Of the evaluations of E: "float32" or "float64"."""
        return self.statistics.precision

    def interval(self, quantity: str = "hv", level: float = 0.95) -> tuple[Array, Array]:
        """Each weight's confidence interval, by Student's t: of what the method tends to.

        Parameters
        ----------
        quantity : {"gradient", "hv"}
        level : float
            Probability, between 0 and 1, that an interval covers the method's limit
            (`theory.limits.limit`).

        Returns
        -------
        tuple of two arrays of shape (n,)
            Lower and upper ends.

        Raises
        ------
        InputError
            For another quantity or level.
        """
        choose("quantity", quantity, dict.fromkeys(("gradient", "hv")))
        between_0_and_1("level", level)
        value, stderr, df = (getattr(self, f"{quantity}{part}") for part in ("", "_stderr", "_df"))
        # two-sided: (1 - level)/2 lies beyond either end
        half = float(stdtrit(df, (1 + level) / 2)) * stderr
        return value - half, value + half

    @property
    def warnings(self) -> list[str]:
        """What the numbers do not say of themselves, in plain sentences.

        A periodic code stopped within its period, errors that cannot be known.
        """
        return [
            *period_warnings(self.design.code, self.design.n_weights, self.trials),
            *self.unknown,
        ]

    def plot(self, quantity: str = "", ax: "Axes | None" = None) -> "Axes":
        """Every weight's estimate with its standard error.

        Parameters
        ----------
        quantity : {"hv", "gradient"}, optional
            By default z, or the gradient if that is all there is.
        ax : matplotlib Axes, optional
            To draw on; left out, those of a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        InputError
            For another quantity.
        """
        quantity = quantity or ("hv" if self.design.method.estimates_hv else "gradient")
        called = choose("quantity", quantity, QUANTITIES)
        ax = axes(ax)
        value, stderr = (getattr(self, f"{quantity}{part}") for part in ("", "_stderr"))
        ax.errorbar(np.arange(value.size), value, stderr, fmt=".", elinewidth=0.8)
        ax.set(xlabel="weight", ylabel=called, title=self._title())
        return ax

    def _title(self) -> str:
        method, code = self.design.method.name, self.design.code.name
        return f"{method}/{code}, {self.evaluations:,} evaluations"

    def _repr_html_(self) -> str:
        rows = {
            called: (
                float(np.linalg.norm(getattr(self, name))),
                float(np.sqrt(np.mean(getattr(self, f"{name}_stderr") ** 2))),
                float(getattr(self, f"{name}_df")),
            )
            for name, called in QUANTITIES.items()
        }
        columns = ("size", "standard error (rms)", "degrees of freedom")
        about = f"{self._title()} in {self.trials:,} trials, {self.gradient.size:,} weights"
        return html_summary(about, columns, rows, self.warnings)


def solve(statistics: Statistics) -> Estimate:
    """Estimates and standard errors from the sums alone.

    Parameters
    ----------
    statistics : Statistics
        Of at least one trial.

    Returns
    -------
    Estimate

    Raises
    ------
    InputError
        If the statistics hold no trial.

    Notes
    -----
    For independent trials the standard errors are those of `synapse.solve_*`, with K - 1 degrees of
    freedom less the number of means and of slopes besides the first that are fitted. Those of a
    periodic code come from its periods, see `errors_over_periods`. A weight whose regressor has
    been constant so far, where only differences from a mean are used, or whose two regressors
    cannot be told apart has no estimate: NaN; one that has not been perturbed has no standard
    error.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> objective = perturb.MLP([1, 1]).objective([[1.0]], [[1.0]])
    >>> found = perturb.estimate(objective, np.zeros(2), np.ones(2), trials=4)
    >>> bool((perturb.solve(found.statistics).gradient == found.gradient).all())
    True
    """
    design, K = statistics.design, statistics.trials
    method, code, n = design.method, design.code, design.n_weights
    if K < 1:
        raise InputError("statistics hold no trial yet: run some first")
    sums, totals = statistics.sums, statistics.totals
    unknown: list[str] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        # a weight that has not moved yet has no standard error
        moved_x, moved_q = (
            _varied(statistics, "x", method.centred),
            _varied(statistics, "q", method.centred),
        )
        # K - 1, less a mean that is fitted, and less a second slope
        df = float(K - 1 - method.centred - (method.fit == "least_squares"))
        if method.fit == "moments":
            g, z, var_g, var_z = solve_moments(
                sums, totals, float(K), method.centred, *design.scales
            )
            if method.centred:
                g, z = np.where(moved_x, g, np.nan), np.where(moved_q, z, np.nan)
            var_g, var_z = np.where(moved_x, var_g, np.nan), np.where(moved_q, var_z, np.nan)
        else:
            g, z, var_g, var_z = solve_least_squares(sums, totals, float(K), method.centred)
            g, z, var_g, var_z = np.where(_fitted(statistics), (g, z, var_g, var_z), np.nan)
        # before the correction, which `_from_replicates` puts into the scatter of periods itself
        fitted = z
        if method.correction == "along" and statistics.point:
            v = statistics.point.v
            # the controller's c = v.z, broadcast once at the end
            c, var_c = curvature_along(totals, float(K), design.scales[1])
            z, var_z = put_along(z, np.maximum(var_z, 0.0), v, float(v @ v), c, max(var_c, 0.0))
        df_g = df_z = df
        if code.periodic:
            var_g, df_g, var_z, df_z, unknown = errors_over_periods(
                statistics, g, fitted, var_g, var_z
            )
        if not method.estimates_hv:
            z = var_z = np.full(n, np.nan)
        # variances are differences of mean squares, and known no better than their rounding
        known, least = (np.isfinite(g), np.isfinite(z)), ROUNDING[statistics.precision] / K
        errors = [
            np.where(ok, np.sqrt(np.maximum(var, least * value**2)), np.nan)
            for ok, value, var in zip(known, (g, z), (var_g, var_z), strict=True)
        ]
        # no degree of freedom is left
        if not (code.periodic or df >= 1):
            errors, df_g, df_z = [np.full(n, np.nan)] * 2, math.nan, math.nan
            unknown = [f"the standard errors of {K} trials are not known: take more"]
        if blind := int((~known[0] | ~known[1] & method.estimates_hv).sum()):
            alike = (
                f"to {blind} of {n} weights all trials were alike, so that they have no estimate:"
                " take more, or another code"
            )
            unknown = [*unknown, alike]
    return Estimate(
        g,
        errors[0],
        z,
        errors[1],
        K,
        K * method.evaluations_per_trial,
        statistics,
        df_g,
        df_z,
        tuple(dict.fromkeys(unknown)),
    )


def _varied(statistics: Statistics, name: str, centred: bool) -> Array:
    """Whether a regressor, x or q, has been other than zero or (centred) other than its mean in
    the trials so far, (n,).
    """
    sums, K = statistics.sums, statistics.trials
    # sum x and sum xx: sum (x - mean)^2 is 0 to rounding if x never changed
    first, square = sums[SUMS.index(name)], sums[SUMS.index(2 * name)]
    return square - centred * first * first / K > centred * SINGULAR[statistics.precision] * square


def _fitted(statistics: Statistics) -> Array:
    """Whether a weight's trials differ enough for its two regressors, (n,): of a singular fit
    only rounding would be left.
    """
    x, q, xx, xq, qq = statistics.sums[[SUMS.index(name) for name in ("x", "q", "xx", "xq", "qq")]]
    K = statistics.trials
    # det/(xx qq) = 1 - correlation^2 of the two regressors
    det = xx * qq - xq**2
    if statistics.design.method.centred:
        det = (xx - x * x / K) * (qq - q * q / K) - (xq - x * q / K) ** 2
    return det > SINGULAR[statistics.precision] * xx * qq
