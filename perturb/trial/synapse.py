"""The rule of one synapse. Its arguments are ALL that a synapse may know.

Its own perturbation dw, its own v, its own sums, the broadcast numbers dE = (dE_g, dE_z) and s =
dw.v, the constant V = |v|^2, and constants that its method declares. `count` and `curvature_along`
are the controller's: of the broadcasts alone. Plain arithmetic: the chip's tiles apply it to
arrays, one element per synapse, and `kernels.float64` compiles the same functions.
"""

# the sums of a synapse: of x = dw and of the regressor q of z, with the responses y = dE_g and u =
# dE_z
# from xxy on: errors only
SUMS = (
    "x",
    "q",
    "xx",
    "xq",
    "qq",
    "xy",
    "qu",
    "xxy",
    "xyy",
    "qqu",
    "quu",
    "xyxy",
    "xyqu",
    "ququ",
)
# of the broadcasts alone, held by the controller; c = s^2
TOTALS = ("y", "u", "yy", "uu", "c", "cu", "cc", "ccu", "cuu", "ccuu")


def accumulate(state, dw, dE, s, v, V, kind, kappa):
    """One trial's broadcast meets the synapse's own perturbation; returns the new sums.

    kind, kappa: constants of the method, see `methods.REGRESSORS` and `Method.kappa`.
    """
    # one letter per factor of a sum: xxy is sum x x y
    x, q, xx, xq, qq, xy, qu, xxy, xyy, qqu, quu, xyxy, xyqu, ququ = state
    # q, the regressor of z: dw, s dw - kappa v dw^2, the source's b, or nothing
    if kind == 0:
        f = dw
    elif kind == 1:
        f = dw * (s - kappa * v * dw)
    elif kind == 2:
        f = s / V * (dw - s * v / (2.0 * V))
    else:
        f = 0.0 * dw
    y, u = dE
    # from xxy on, for the standard errors alone
    dwy, fu = dw * y, f * u
    return (
        x + dw,
        q + f,
        xx + dw * dw,
        xq + dw * f,
        qq + f * f,
        xy + dwy,
        qu + fu,
        xxy + dw * dwy,
        xyy + dwy * y,
        qqu + f * fu,
        quu + fu * u,
        xyxy + dwy * dwy,
        xyqu + dwy * fu,
        ququ + fu * fu,
    )


def count(totals, dE, s):
    """The controller's sums of the broadcasts alone."""
    y, u, yy, uu, c, cu, cc, ccu, cuu, ccuu = totals
    dE_g, dE_z = dE
    # of c = Cov(dE_z, s^2)/sigma^4 and its standard error
    ss = s * s
    ssu = ss * dE_z
    return (
        y + dE_g,
        u + dE_z,
        yy + dE_g * dE_g,
        uu + dE_z * dE_z,
        c + ss,
        cu + ssu,
        cc + ss * ss,
        ccu + ss * ssu,
        cuu + ssu * dE_z,
        ccuu + ssu * ssu,
    )


def squares(q, qq, qu, qqu, quu, ququ, u, uu, K):
    """Sum over trials of (q - mean q)^2 (u - mean u)^2, from sums."""
    # sum q = a K and sum u = b K: the last three of the nine terms are a^2 b^2 K (-2 - 2 + 1)
    a, b = q / K, u / K
    return (
        ququ
        - 2 * a * quu
        - 2 * b * qqu
        + a * a * uu
        + b * b * qq
        + 4 * a * b * qu
        - 3 * a * a * b * b * K
    )


def solve_moments(state, totals, K, centred, x_scale, q_scale):
    """(g_i, z_i) and their variances, from K trials, with known denominators.

    g_i = Cov(dE_g, dw)/x_scale, z_i = Cov(dE_z, q)/q_scale; without `centred` the plain mean
    products. The denominator is K, so that a whole period or a full enumeration gives the
    expectation itself. Variances: of a mean of K such products, one degree of freedom less where
    the means are measured too.
    """
    x, q, xx, _, qq, xy, qu, xxy, xyy, qqu, quu, xyxy, _, ququ = state
    y, u, yy, uu = totals[:4]
    free = K - 1
    if centred:
        # two means are measured from the same trials
        free = K - 2
        xyxy, ququ = (
            squares(x, xx, xy, xxy, xyy, xyxy, y, yy, K),
            squares(q, qq, qu, qqu, quu, ququ, u, uu, K),
        )
        # sum (x - mean x)(y - mean y)
        xy, qu = xy - x * y / K, qu - q * u / K
    g, z = xy / K / x_scale, qu / K / q_scale
    return g, z, (xyxy / K / x_scale**2 - g * g) / free, (ququ / K / q_scale**2 - z * z) / free


def solve_least_squares(state, totals, K, centred):
    """(g_i, z_i) and their variances from dE = dw g_i + q z_i (+ intercept, if `centred`), the
    weight's own 2x2 problem.

    Variances: the sandwich A^-1 M A^-1 with M the summed squares of dE times the regressors,
    reduced by the share of dE's variance that this weight explains (the residual's squares
    themselves would need nine more sums). Its mixed element is taken from the other two and the
    regressors' own correlation, so that no variance can be negative.
    """
    x, q, xx, xq, qq, xy, qu, xxy, xyy, qqu, quu, xyxy, _, ququ = state
    y, _, yy = totals[:3]
    if centred:
        xyxy, ququ = (
            squares(x, xx, xy, xxy, xyy, xyxy, y, yy, K),
            squares(q, qq, qu, qqu, quu, ququ, y, yy, K),
        )
        xx, xq, qq = xx - x * x / K, xq - x * q / K, qq - q * q / K
        xy, qu, yy = xy - x * y / K, qu - q * y / K, yy - y * y / K
    # normal equations A (g, z)' = (xy, qu)', A = [[xx, xq], [xq, qq]], by Cramer's rule
    det = xx * qq - xq * xq
    g = (qq * xy - xq * qu) / det
    z = (xx * qu - xq * xy) / det
    # M_12, as if dE^2 were as large on both regressors; |M_12|^2 <= M_11 M_22 as xq^2 <= xx qq
    mixed = xq * (xyxy * ququ / (xx * qq)) ** 0.5
    # share of dE's variance that is left, by K - 2 (or 3) degrees of freedom
    unexplained = (1.0 - (g * xy + z * qu) / yy) * K / (K - 2 - centred)
    # A^-1 M A^-1 with A^-1 = [[qq, -xq], [-xq, xx]]/det
    var_g = unexplained * (qq * qq * xyxy - 2.0 * qq * xq * mixed + xq * xq * ququ) / (det * det)
    var_z = unexplained * (xq * xq * xyxy - 2.0 * xq * xx * mixed + xx * xx * ququ) / (det * det)
    return g, z, var_g, var_z


def curvature_along(totals, K, q_scale):
    """The controller's c = Cov(dE_z, s^2)/sigma^4 and its variance.

    On a quadratic E, Cov(dE, s^2) = sigma^4 [v.z + (k-3)/2 sum_i H_ii v_i^2]: v.z itself for a code
    of kurtosis 3.
    """
    _, u, _, uu, c, cu, cc, ccu, cuu, ccuu = totals
    centred = (cu - c * u / K) / K / q_scale
    square = squares(c, cc, cu, ccu, cuu, ccuu, u, uu, K) / K / q_scale**2
    return centred, (square - centred * centred) / (K - 1)


def put_along(z, var_z, v, V, c, var_c):
    """z_i (1 - v_i^2/2V) + v_i c/2V and its variance: the synapse's z of the joint fit, with its
    share of z along v put right.

    By the identity s D_i = V b_i + s^2 v_i/2V the sum is Cov(dE, s D_i)/sigma^4 in disguise. The
    two estimates share their trials: b_i and s^2 correlate by rho = v_i/sqrt(2V - v_i^2) (k = 3),
    and so do the estimates as far as the squared dE is independent of both.
    """
    share, part = 1.0 - v * v / (2.0 * V), v / (2.0 * V)
    rho = v / (2.0 * V - v * v) ** 0.5
    var = share**2 * var_z + part**2 * var_c + 2.0 * share * part * rho * (var_z * var_c) ** 0.5
    return z * share + part * c, var
