"""Standard errors of a periodic code, whose trials are not independent, from its periods as
replicates.
"""

import math

import numpy as np

from perturb.estimation.design import Design
from perturb.estimation.periods import ROWS, TOTALS
from perturb.estimation.statistics import Statistics
from perturb.trial.code import SEQUENTIAL, Code
from perturb.trial.periodicity import disturbance
from perturb.trial.synapse import SUMS

Array = np.ndarray

ROUNDING = {"float64": 2.0**-52, "float32": 2.0**-22}  # of a sum of squares, as a share of it

REST = 0.5  # share of a variance that may come from incomplete double periods


def errors_over_periods(
    statistics: Statistics, g: Array, z: Array, var_g: Array, var_z: Array
) -> tuple[Array, float, Array, float, list[str]]:
    """Variances of g and of z of a periodic code, their degrees of freedom, and why one is not
    known (NaN).

    Within a period the trials of a periodic code disturb each other, less or more than independent
    ones would; what is known:

    On dw, from a dE without an even part (pairs, differences), over whole periods: the estimates
    are a joint least-squares fit of all weights, and the variance is RSS/(K - n - 1)/(K sigma^2),
    RSS = sum dE^2 - K mean(dE)^2 - K sigma^2 sum_i slope_i^2; see `_explained` for shift registers.
    With some trials after the last double period RSS is that of the whole double periods, and
    `periodicity.disturbance` of the slopes is added.

    g of a one-sided dE, over M double periods, where curvature cancels: the same of the odd part d
    = (dE - dE a pass later)/2 of dE, whose noise has half the variance: 2 RSS/(M P - n)/(K
    sigma^2), RSS = sum d^2 - M P sigma^2 sum_i g_i^2 over M P pairs.

    z on s dw or b: of M >= 2 double periods the scatter of their own estimates, M - 1 degrees of
    freedom. The ratio of a least-squares fit is linearised, and double periods with a larger sum of
    q^2 weigh more.

    Trials after the last double period add to g what `theory` says of the slopes and of the
    residual of the whole double periods; to z they add as independent ones, those of a folded-over
    pass with their partners as double periods do: to leading order.

    What incomplete double periods add is roughly known only, and is not normal: the signs of a few
    weights decide it. Where that is more than REST of the variance, it is not known.

    Parameters
    ----------
    g, z : the estimates, shape (n,); z of a least-squares fit before its correction.
    var_g, var_z : their variances as if trials were independent.

    References
    ----------
    Batch means: Law and Kelton, Simulation Modeling and Analysis (1982), in batches that are
    independent.
    """
    method, periods, n = statistics.design.method, statistics.periods, g.size
    nothing, says = np.full(n, np.nan), []
    results: list[tuple[Array, float]] = []
    for name in method.quantities:
        # then dE is slopes times D, and noise: a linear model whose residual tells the noise
        linear = not method.one_sided if name == "gradient" else method.regressor == "dw"
        if periods is not None and not periods.sound:
            found: tuple[Array, float] | str = (
                "synapses did not receive every broadcast of their trials, once"
            )
        elif linear:
            found = _from_residual(statistics, name, g if name == "gradient" else z)
        # a periodic code of the user's own, which is not folded over
        elif periods is None:
            found = (
                "curvature adds to them what no later period of this code takes away; use a method"
                " of pairs"
            )
        else:
            found = (
                _from_folded(statistics)
                if name == "gradient"
                else _from_replicates(statistics, z, var_z)
            )
        # a text says why there is no number
        if isinstance(found, str):
            says.append(
                f"the standard errors of {'g' if name == 'gradient' else 'z = Hv'} are not known:"
                f" {found}"
            )
            found = nothing, math.nan
        results.append(found)
    (var_g, df_g), (var_z, df_z) = (*results, (nothing, math.nan))[:2]
    return var_g, df_g, var_z, df_z, says


def _take(trials: int) -> str:
    return f"take {trials:,} trials"


def _from_residual(statistics: Statistics, name: str, estimate: Array) -> tuple[Array, float] | str:
    """Variances and degrees of freedom of an estimate that is linear in D but for noise, or why
    they are not known.
    """
    design, K, periods = statistics.design, statistics.trials, statistics.periods
    code, n, power = design.code, design.n_weights, design.sigma**2
    P, one = code.period(n), of_each_column(design)
    # z of a difference: dE_z = r D.z
    scale = 1.0 if name == "gradient" else design.r
    at = 0 if name == "gradient" else 1
    count, slope, disturbed = K, estimate * scale, np.zeros(n)
    y, yy = map(float, statistics.totals[[at, 2 + at]])
    # a residual is one of whole periods, where columns are orthogonal (or correlate by -1/L)
    if not all(start % P == 0 and stop % P == 0 for start, stop in statistics.spans):
        whole = -(-K // P) * P
        if periods is None or periods.number == 0:
            return (
                f"{K:,} trials do not cover the code's period of {P:,}; {_take(max(whole, 2 * P))}"
            )
        if not _goes_on(statistics):
            return f"{K:,} trials are not a multiple of the period of {P:,}; {_take(whole)}"
        count, y, yy, slope = _of_whole_periods(statistics, at)
    # a slope for each different column; of balanced columns the mean of dE is one more
    free = count - one.size - bool(code.balanced)
    if free <= 0:
        return (
            f"there are as many unknowns as the {count:,} trials of whole periods;"
            f" {_take(count + P)}"
        )
    rss = yy - code.balanced * y * y / count - count * power * _explained(code, slope[one], P)
    # the difference of sums as large as yy is known no better
    rss = max(rss, ROUNDING[statistics.precision] * yy)
    # variance of one trial's dE D_i/sigma^2
    noise = rss / free / power
    if count < K:
        disturbed = _disturbed(design, slope, noise / count, K)
        if not disturbed.sum() <= REST * (n * noise / K + disturbed.sum()):
            return (
                f"too much of them comes from the trials after the last whole period of {P:,};"
                f" {_take(-(-K // P) * P)}"
            )
    return (noise / K + disturbed) / scale**2, float(free)


def _goes_on(statistics: Statistics) -> bool:
    """Whether all trials follow one another from the start of a double period on, of a code that
    shows all weights alike.
    """
    periods, code = statistics.periods, statistics.design.code
    assert periods is not None
    return (
        code.kind != SEQUENTIAL
        and len(statistics.spans) == 1
        and statistics.spans[0][0] % periods.length == 0
    )


def _of_whole_periods(statistics: Statistics, at: int) -> tuple[int, float, float, Array]:
    """Of whole double periods alone: trials, sums of dE and dE^2, and the slopes <dE D>/sigma^2;
    of dE_g (at = 0) or dE_z (1).
    """
    periods, point = statistics.periods, statistics.point
    assert periods is not None and point is not None
    rest, totals = periods.rest(point.v)
    # all trials less those after the last whole double period
    y, yy = statistics.totals[[at, 2 + at]] - totals[[at, 2 + at]]
    slope = statistics.sums[SUMS.index("qu" if at else "xy")] - rest[at]
    return periods.trials, float(y), float(yy), slope / periods.trials / statistics.design.sigma**2


def _disturbed(design: Design, slope: Array, var: float, trials: int, mean: float = 0.0) -> Array:
    """`periodicity.disturbance` of estimated slopes, whose squares are too large by their own
    variance.
    """
    return disturbance(
        design.code, np.sqrt(np.maximum(slope**2 - var, 0.0)), trials, mean, design.seed
    )


def _from_folded(statistics: Statistics) -> tuple[Array, float] | str:
    """Variances and degrees of freedom of g from a dE with an even part, or why they are not
    known.
    """
    design, K, periods = statistics.design, statistics.trials, statistics.periods
    assert periods is not None
    code, n, power, P = design.code, design.n_weights, design.sigma**2, periods.half
    count, rest, one = periods.trials, K - periods.trials, of_each_column(design)
    whole = max(-(-K // periods.length), 1) * periods.length
    free = count // 2 - one.size
    if count == 0 or free <= 0:
        return f"{K:,} trials are fewer than a double period of {periods.length:,}; {_take(whole)}"
    count, y, yy, slope = _of_whole_periods(statistics, 0)
    square = _explained(code, slope[one], P)
    dd = float(periods.totals[TOTALS.index("dd")])
    # sum d^2 over count/2 pairs, less what the slopes explain; d has half the noise
    noise = (
        2 * max(dd - count / 2 * power * square, ROUNDING[statistics.precision] * dd) / free / power
    )
    if rest == 0:
        return np.full(n, noise / K), float(free)
    if not _goes_on(statistics):
        return (
            f"{K:,} trials are not a multiple of the double period of {periods.length:,};"
            f" {_take(whole)}"
        )
    # what of the variance of dE is neither slopes nor noise: its curvature
    even = max((yy - y * y / count) / count / power - square - noise, 0.0)
    left_in = 0.0 if design.method.centred else y / count / design.sigma
    # trials whose even part no folded-over partner has taken away yet
    added = min(rest, 2 * P - rest) * even / K**2 + _disturbed(
        design, slope, noise / count, K, left_in
    )
    if not added.sum() <= REST * (n * noise / K + added.sum()):
        return (
            f"too much of them comes from {rest:,} trials after the last double period of"
            f" {periods.length:,}; {_take(whole)}"
        )
    return noise / K + added, float(free)


def _from_replicates(statistics: Statistics, z: Array, var: Array) -> tuple[Array, float] | str:
    """Variances and degrees of freedom of z on s dw or b, from double periods as replicates, or why
    they are not known.

    z: of a least-squares fit, before its correction. var: variances as if trials were independent.
    """
    design, K, periods = statistics.design, statistics.trials, statistics.periods
    assert periods is not None and statistics.point is not None
    method, n, power, v = design.method, design.n_weights, design.sigma**2, statistics.point.v
    M, L, P, V = periods.number, periods.length, periods.half, float(v @ v)
    rest, whole = K - periods.trials, max(-(-K // L), 2) * L
    if M < 2:
        return f"{K:,} trials are fewer than two double periods of {L:,}; {_take(whole)}"
    row, total = (
        dict(zip(ROWS, periods.sums, strict=True)),
        dict(zip(TOTALS, periods.totals, strict=True)),
    )
    df, mean = float(M - 1), 0.0 * v  # mean of the regressor, over any whole period
    if method.centred:
        mean = power * v * (1 - design.kappa) if method.regressor == "s_dw" else power * v / (2 * V)
    U, C = total["u"], total["c"]
    # sum (q - mean) dE_z over all double periods, and its square sum about its own mean
    a = row["a"] - mean * U
    aa = row["aa"] - 2 * mean * row["au"] + mean**2 * total["UU"] - a * a / M
    unit, squares = np.full(n, L * design.scales[1]), aa
    if method.fit == "least_squares":
        aq = row["aq"] - mean * row["qu"] - a * row["q"] / M
        # ratio A/Q linearised: deviations of A - z Q
        squares = aa - 2 * z * aq + z**2 * (row["qq"] - row["q"] ** 2 / M)
        least = L * mean**2
        unit = row["q"] / M - least  # of q^2 in a double period, less its mean
        # double periods with more of it weigh more: they are worth so many equal ones
        worth = (M * unit) ** 2 / (row["qq"] - 2 * least * row["q"] + M * least**2)
        # Bessel's M/(M - 1) for so many equal ones
        more, df = (M - 1) / M * worth / (worth - 1), float(np.nanmean(worth)) - 1
        if method.correction == "along":
            ss, known, share, part = (
                power * V,
                L * design.scales[1],
                1 - v * v / (2 * V),
                v / (2 * V),
            )
            # of c = sum (s^2 - sigma^2 V) dE_z likewise, and its product with the other
            c = C - ss * U
            cc = total["CC"] - 2 * ss * total["UC"] + ss * ss * total["UU"] - c * c / M
            ac = (
                row["ac"]
                - ss * row["au"]
                - mean * total["UC"]
                + mean * ss * total["UU"]
                - a * c / M
            )
            ac -= z * (row["qc"] - ss * row["qu"] - row["q"] * c / M)
            # z (1 - v^2/2V) + v c/2V: variances and twice the covariance
            squares = (
                (share / unit) ** 2 * squares
                + 2 * share * part / unit / known * ac
                + (part / known) ** 2 * cc
            )
            unit = np.ones(n)
        squares = squares * more
    # variance of the estimate of one double period
    of_one = np.maximum(squares, 0.0) / (M - 1) / unit**2
    if rest == 0:
        return of_one / M, df
    if not _goes_on(statistics):
        return f"{K:,} trials are not a multiple of the double period of {L:,}; {_take(whole)}"
    # trials after the last double period whose folded-over partners are there too
    paired = max(rest - P, 0)
    lasting, added = M * L * L * of_one, (rest - 2 * paired) * K * var + paired * L * L / P * of_one
    share = 1 - np.nansum(added) / np.nansum(lasting + added)
    if not 1 - share <= REST:
        return (
            f"too much of them comes from {rest:,} trials after the last double period of {L:,};"
            f" {_take(whole)}"
        )
    # Welch and Satterthwaite: only a share of the variance has df degrees of freedom
    return (lasting + added) / K**2, df / share**2


def of_each_column(design: Design) -> Array:
    """One weight for each different column of the code, in order: all weights, but for registers
    that feed some alike.
    """
    n, registers = design.n_weights, design.code.registers
    if registers is None:
        return np.arange(n)
    return np.sort(np.unique(registers.phases(n, design.seed), return_index=True)[1])


def _explained(code: Code, slope: Array, period: int) -> float:
    """What all columns together explain of the mean square of dE, per sigma^2, over whole periods;
    slope = <dE D>/sigma^2, one for each different column.

    Orthogonal: |slope|^2. Shift registers, <D_i D_j> = -sigma^2/L: slope' G^-1 slope with G = (1 +
    1/L) I - 1 1'/L, which is L/(L + 1) [|slope|^2 + (sum slope)^2/(L + 1 - c)] for c columns.
    """
    square = float(slope @ slope)
    if code.orthogonal:
        return square
    return period / (period + 1) * (square + float(slope.sum()) ** 2 / (period + 1 - slope.size))
