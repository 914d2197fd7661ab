"""An estimate beside exact R{backprop} and its method's own limit."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri, stdtr

from perturb.errors import choose
from perturb.estimation.point import Point, finite_point
from perturb.estimation.solution import Estimate
from perturb.networks.objective import Objective
from perturb.notebook import QUANTITIES, axes, html_summary
from perturb.theory.limits import limit_stderr, limits
from perturb.theory.quadratic import Curvature, curvatures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray


@dataclass(frozen=True)
class QuantityComparison:
    """One quantity (g or z) beside its exact value and its method's own limit.

    Attributes
    ----------
    estimate, stderr, exact, limit : array of shape (n,)
    limit_stderr : array of shape (n,), optional
        Standard error of the limit, where that rests on random probes.
    df : float
        Degrees of freedom of the standard errors.

    Notes
    -----
    Where the standard errors have few degrees of freedom, `z_rms` and `limit_z_rms` take the
    standard normal deviates of the same probabilities.
    """

    estimate: Array
    stderr: Array
    exact: Array
    limit: Array
    limit_stderr: Array | None = None
    df: float = math.inf

    @property
    def cosine(self) -> float:
        """Of the angle between estimate and exact value; NaN where one is zero."""
        # a vector of zeros has no direction
        size = float(np.linalg.norm(self.estimate) * np.linalg.norm(self.exact))
        return float(self.estimate @ self.exact) / size if size > 0 else float("nan")

    @property
    def relative_error(self) -> float:
        """|estimate - exact|/|exact|; NaN where the exact value is zero."""
        return _relative(self.estimate, self.exact)

    @property
    def limit_relative_error(self) -> float:
        """|estimate - limit|/|limit|; NaN where the limit is zero."""
        return _relative(self.estimate, self.limit)

    @property
    def rms_stderr(self) -> float:
        """The rms over the weights of the standard errors."""
        return _rms(self.stderr)

    @property
    def z_rms(self) -> float:
        """The rms over the weights of (estimate - exact)/stderr.

        About 1 for an estimate without bias that is as good as its standard errors say.
        """
        # a standard error of 0, of an estimate that is exact, gives infinity or NaN
        with np.errstate(divide="ignore", invalid="ignore"):
            return _rms(_normal((self.estimate - self.exact) / self.stderr, self.df))

    @property
    def limit_z_rms(self) -> float:
        """The rms over the weights of (estimate - limit)/stderr.

        About 1 for an estimate as good as its standard errors say; of an uncertain limit,
        limit_stderr counts too.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            # independent errors: of the estimate by its trials, of the limit by its probes
            unsure = 0.0 if self.limit_stderr is None else self.limit_stderr
            return _rms(
                _normal((self.estimate - self.limit) / np.hypot(self.stderr, unsure), self.df)
            )


@dataclass(frozen=True)
class Comparison:
    """An estimate beside the exact answer.

    Attributes
    ----------
    gradient, hv : QuantityComparison
        hv has NaN for a method of the gradient alone.
    """

    gradient: QuantityComparison
    hv: QuantityComparison

    def plot(self, quantity: str = "", ax: "Axes | None" = None) -> "Axes":
        """Estimated against exact, a point with its standard error for every weight.

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

        Notes
        -----
        On the line estimate and exact value agree.
        """
        quantity = quantity or ("gradient" if np.isnan(self.hv.estimate).all() else "hv")
        called = choose("quantity", quantity, QUANTITIES)
        of = getattr(self, quantity)
        ax = axes(ax)
        ax.errorbar(of.exact, of.estimate, of.stderr, fmt=".", elinewidth=0.8)
        ax.axline((0.0, 0.0), slope=1.0, color="grey", linewidth=0.8)
        ax.set(
            xlabel=f"exact {called}", ylabel=f"estimated {called}", title=f"cosine {of.cosine:.4f}"
        )
        return ax

    def _repr_html_(self) -> str:
        columns = {
            "cosine": "cosine",
            "relative_error": "relative error",
            "rms_stderr": "standard error (rms)",
            "z_rms": "stderrs to exact",
            "limit_relative_error": "limit error",
            "limit_z_rms": "stderrs to limit",
        }
        rows = {
            called: [getattr(getattr(self, name), column) for column in columns]
            for name, called in QUANTITIES.items()
        }
        title = f"Estimated against exact R{{backprop}}, {self.hv.exact.size:,} weights"
        return html_summary(title, tuple(columns.values()), rows, ())


def compare(
    estimated: Estimate,
    objective: Objective,
    w: Array,
    v: Array,
    known: list[Curvature] | None = None,
) -> Comparison:
    """The estimate beside exact R{backprop} and the limit that theory gives its method.

    Parameters
    ----------
    estimated : Estimate
    objective : Objective
    w : array of shape (n,)
        Weights.
    v : array of shape (n,)
        The direction that H is multiplied by.
    known : list of Curvature, optional
        What `theory.quadratic.curvatures` gave before.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        For arrays that do not fit, v = 0 (but for the gradient alone), or an E(w) that is not
        finite.

    Notes
    -----
    However patterns are presented, the limit is that of the whole objective, as it is linear in g
    and H. Cost: the `curvatures` of the objective (n products), unless they are known.

    Examples
    --------
    >>> import numpy as np
    >>> import perturb
    >>> objective = perturb.MLP([2, 1]).objective([[1.0, 2.0], [0.0, 1.0]], [[1.0], [0.0]])
    >>> w, v = np.zeros(3), np.array([1.0, 0.0, 0.0])
    >>> found = perturb.estimate(objective, w, v, trials=8)
    >>> round(perturb.compare(found, objective, w, v).hv.cosine, 6)
    1.0
    """
    point = finite_point(objective, w, v, estimated.design.method)
    return compare_at(point, estimated, known)


def compare_at(
    point: Point, estimated: Estimate, known: list[Curvature] | None = None
) -> Comparison:
    """`compare` at a point whose exact g and z may have been computed before."""
    design = estimated.design
    # of the whole objective, however patterns were presented
    whole = curvatures(point.objective, point.w, point.v)[0] if known is None else known[0]
    g_limit, z_limit = limits(
        design.method, design.code, whole, design.sigma, design.r, design.seed
    )
    unsure = limit_stderr(design.method, design.code, whole)
    gradient = QuantityComparison(
        estimated.gradient,
        estimated.gradient_stderr,
        point.gradient,
        g_limit,
        df=estimated.gradient_df,
    )
    hv = QuantityComparison(
        estimated.hv, estimated.hv_stderr, point.hv, z_limit, unsure, estimated.hv_df
    )
    return Comparison(gradient, hv)


def _normal(t: Array, df: float) -> Array:
    """|deviates| of Student's t as standard normal ones of the same probability; where that is too
    small for a number, after Wallace (1959), who is good to some per cent for one degree of freedom
    and much better for more.
    """
    t, df = np.abs(t), np.float64(df)
    if not np.isfinite(df):
        return t
    # P(T < -t), and the normal deviate with the same tail
    tail = stdtr(df, -t)
    # Wallace 1959
    far = (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t * t / df))
    return np.where(np.isnan(t) | (tail > 1e-300), -ndtri(tail), far)


def _rms(a: Array) -> float:
    return float(np.sqrt(np.mean(a * a)))


def _relative(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / size if size > 0 else float("nan")
