"""The rule of one synapse. Its arguments are ALL that a synapse may know.

Its own perturbation dw, its own v, its own sums, the broadcast numbers dE = (dE_g, dE_z) and s = dw.v, the constant V = |v|^2,
and constants that its method declares. Plain arithmetic: the chip's tiles apply it to arrays, one element per synapse, and
`kernels.py` compiles the same functions.
"""

# the sums of a synapse: of x = dw and of the regressor q of z, with the responses y = dE_g and u = dE_z
SUMS = ("x", "q", "xx", "xq", "qq", "xy", "qu", "xyxy", "xyqu", "ququ")  # the last three serve standard errors only
TOTALS = ("y", "u", "yy", "uu")  # of the broadcasts alone, the same in every synapse


def accumulate(state, dw, dE, s, v, V, kind):
    """One trial's broadcast meets the synapse's own perturbation; returns the new sums. kind as in `methods.REGRESSORS`."""
    x, q, xx, xq, qq, xy, qu, xyxy, xyqu, ququ = state
    if kind == 0:
        f = dw
    elif kind == 1:
        f = s * dw
    else:
        f = s / V * (dw - s * v / (2.0 * V))
    y = dw * dE[0]
    u = f * dE[1]
    return x + dw, q + f, xx + dw * dw, xq + dw * f, qq + f * f, xy + y, qu + u, xyxy + y * y, xyqu + y * u, ququ + u * u


def count(totals, dE):
    """The sums of the broadcasts alone."""
    y, u, yy, uu = totals
    return y + dE[0], u + dE[1], yy + dE[0] * dE[0], uu + dE[1] * dE[1]


def solve_moments(state, totals, K, centred, x_scale, q_scale):
    """(g_i, z_i) and their variances, from K trials, with known denominators.

    g_i = Cov(dE_g, dw)/x_scale, z_i = Cov(dE_z, q)/q_scale; without `centred` the plain mean products. The denominator is K, so
    that a whole period or a full enumeration gives the expectation itself. Variances are those of a mean of K products, the
    mean of dE being subtracted to leading order.
    """
    x, q, xx, _, qq, xy, qu, xyxy, _, ququ = state
    y, u = totals[0] / K, totals[1] / K
    if not centred:
        y, u = 0.0, 0.0
    g = (xy / K - y * x / K) / x_scale
    z = (qu / K - u * q / K) / q_scale
    var_g = ((xyxy - y * y * xx) / K / x_scale**2 - g * g) / (K - 1)
    var_z = ((ququ - u * u * qq) / K / q_scale**2 - z * z) / (K - 1)
    return g, z, var_g, var_z


def solve_least_squares(state, totals, K, centred):
    """(g_i, z_i) and their variances from dE = dw g_i + q z_i (+ intercept, if `centred`), the weight's own 2x2 problem.

    Variances: the sandwich A^-1 M A^-1 with M the summed squares of dE times the regressors, reduced by the share of dE's
    variance that this weight explains (the residual's squares themselves would need nine more sums).
    """
    x, q, xx, xq, qq, xy, qu, xyxy, xyqu, ququ = state
    y, _, yy, _ = totals
    mean = y / K
    if centred:
        xx, xq, qq = xx - x * x / K, xq - x * q / K, qq - q * q / K
        xy, qu, yy = xy - x * y / K, qu - q * y / K, yy - y * y / K
        xyxy, xyqu, ququ = xyxy - mean * mean * xx, xyqu - mean * mean * xq, ququ - mean * mean * qq
    det = xx * qq - xq * xq
    g = (qq * xy - xq * qu) / det
    z = (xx * qu - xq * xy) / det
    unexplained = (1.0 - (g * xy + z * qu) / yy) * K / (K - 2)
    var_g = unexplained * (qq * qq * xyxy - 2.0 * qq * xq * xyqu + xq * xq * ququ) / (det * det)
    var_z = unexplained * (xq * xq * xyxy - 2.0 * xq * xx * xyqu + xx * xx * ququ) / (det * det)
    return g, z, var_g, var_z
