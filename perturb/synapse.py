"""The rule of one synapse. Its arguments are ALL that a synapse may know.

Its own perturbation dw, its own v, its own sums, the broadcast numbers dE = (dE_g, dE_z) and s = dw.v, the constant V = |v|^2,
and constants that its method declares. Plain arithmetic: the chip's tiles apply it to arrays, one element per synapse, and
`kernels.py` compiles the same functions.
"""

# the sums of a synapse: of x = dw and of the regressor q of z, with the responses y = dE_g and u = dE_z
SUMS = ("x", "q", "xx", "xq", "qq", "xy", "qu", "xxy", "xyy", "qqu", "quu", "xyxy", "xyqu", "ququ")  # from xxy on: errors only
TOTALS = ("y", "u", "yy", "uu")  # of the broadcasts alone, the same in every synapse


def accumulate(state, dw, dE, s, v, V, kind):
    """One trial's broadcast meets the synapse's own perturbation; returns the new sums. kind as in `methods.REGRESSORS`."""
    x, q, xx, xq, qq, xy, qu, xxy, xyy, qqu, quu, xyxy, xyqu, ququ = state
    if kind == 0:
        f = dw
    elif kind == 1:
        f = s * dw
    else:
        f = s / V * (dw - s * v / (2.0 * V))
    y, u = dE
    dwy, fu = dw * y, f * u
    return (
        x + dw, q + f, xx + dw * dw, xq + dw * f, qq + f * f, xy + dwy, qu + fu,
        xxy + dw * dwy, xyy + dwy * y, qqu + f * fu, quu + fu * u, xyxy + dwy * dwy, xyqu + dwy * fu, ququ + fu * fu,
    )  # fmt: skip


def count(totals, dE):
    """The sums of the broadcasts alone."""
    y, u, yy, uu = totals
    return y + dE[0], u + dE[1], yy + dE[0] * dE[0], uu + dE[1] * dE[1]


def squares(q, qq, qu, qqu, quu, ququ, u, uu, K):
    """Sum over trials of (q - mean q)^2 (u - mean u)^2, from sums."""
    a, b = q / K, u / K
    return ququ - 2 * a * quu - 2 * b * qqu + a * a * uu + b * b * qq + 4 * a * b * qu - 3 * a * a * b * b * K


def solve_moments(state, totals, K, centred, x_scale, q_scale):
    """(g_i, z_i) and their variances, from K trials, with known denominators.

    g_i = Cov(dE_g, dw)/x_scale, z_i = Cov(dE_z, q)/q_scale; without `centred` the plain mean products. The denominator is K, so
    that a whole period or a full enumeration gives the expectation itself. Variances: of a mean of K such products.
    """
    x, q, xx, _, qq, xy, qu, xxy, xyy, qqu, quu, xyxy, _, ququ = state
    y, u, yy, uu = totals
    if centred:
        xyxy, ququ = squares(x, xx, xy, xxy, xyy, xyxy, y, yy, K), squares(q, qq, qu, qqu, quu, ququ, u, uu, K)
        xy, qu = xy - x * y / K, qu - q * u / K
    g, z = xy / K / x_scale, qu / K / q_scale
    return g, z, (xyxy / K / x_scale**2 - g * g) / (K - 1), (ququ / K / q_scale**2 - z * z) / (K - 1)


def solve_least_squares(state, totals, K, centred):
    """(g_i, z_i) and their variances from dE = dw g_i + q z_i (+ intercept, if `centred`), the weight's own 2x2 problem.

    Variances: the sandwich A^-1 M A^-1 with M the summed squares of dE times the regressors, reduced by the share of dE's
    variance that this weight explains (the residual's squares themselves would need nine more sums).
    """
    x, q, xx, xq, qq, xy, qu, xxy, xyy, qqu, quu, xyxy, xyqu, ququ = state
    y, _, yy, _ = totals
    if centred:
        xyxy, ququ = squares(x, xx, xy, xxy, xyy, xyxy, y, yy, K), squares(q, qq, qu, qqu, quu, ququ, y, yy, K)
        xyqu = xyqu - (y / K) ** 2 * xq  # to leading order: the sum of x q y is not kept
        xx, xq, qq = xx - x * x / K, xq - x * q / K, qq - q * q / K
        xy, qu, yy = xy - x * y / K, qu - q * y / K, yy - y * y / K
    det = xx * qq - xq * xq
    g = (qq * xy - xq * qu) / det
    z = (xx * qu - xq * xy) / det
    unexplained = (1.0 - (g * xy + z * qu) / yy) * K / (K - 2)
    var_g = unexplained * (qq * qq * xyxy - 2.0 * qq * xq * xyqu + xq * xq * ququ) / (det * det)
    var_z = unexplained * (xq * xq * xyxy - 2.0 * xq * xx * xyqu + xx * xx * ququ) / (det * det)
    return g, z, var_g, var_z
