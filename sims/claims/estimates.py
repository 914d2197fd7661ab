"""Claims about estimates: limits of least squares, coverage, aliases of codes, how many trials."""

import math
from collections.abc import Iterator

import numpy as np

from perturb.estimation.estimate import estimate
from perturb.networks.mlp import MLP
from perturb.seeds import derive_seed
from perturb.theory.comparison import compare
from perturb.theory.estimates import predict
from perturb.theory.quadratic import curvatures
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.claims.claim import (
    DERIVED,
    REPEATS,
    ROUNDING,
    Array,
    Linear,
    Row,
    diagonal,
    general,
    judged,
    mean,
    refuted,
    seeds,
)
from sims.claims.readings import variance_of

SPALL = "Spall 1992"


def least_squares(seed: int) -> Iterator[Row]:
    """The 2x2 least squares for (g_i, z_i) estimate z = Hv: not as published, only as corrected.

    H = I and v = (1, ..., 1), so that all z_i are 1: what the mean of the estimates over weights
    tends to, from `limits.limit`; without an intercept (1 + tr H/4 - 1/2)/(1 - 1/4n), with one
    (1 - 1/2)/(1 - 1/2n).
    """
    n = 100
    sigma = 0.1
    trials = 8192
    objective = diagonal(np.ones(n))
    # near the minimum, so that the linear part does not drown the curvature
    w = np.full(n, 0.05)
    v = np.ones(n)
    setting = f"H = I, v = 1, n = {n}, Gaussian code, {REPEATS} x {trials} trials"

    def found(method: str) -> tuple[float, float, float]:
        limit = float(predict(objective, w, v, method, "gaussian", sigma).hv.limit.mean())
        each = [
            estimate(objective, w, v, trials, method, "gaussian", sigma, seed=s).hv.mean()
            for s in seeds(seed)
        ]
        return limit, *mean(each)

    source = "Pearlmutter 1994"
    limit, measured, stderr = found("pearlmutter")
    yield refuted("as published it tends to z_i", source, setting, 1.0, measured, stderr)
    # a ratio of means of K trials is off by about var/K of its limit
    ratio = 4 / trials
    yield judged(
        "as published: tr H leaks in", DERIVED, setting, limit, measured, stderr, ratio * limit
    )
    for method, says in (
        ("pearlmutter_intercept", "with an intercept: halved along v"),
        ("pearlmutter_corrected", "corrected"),
    ):
        limit, measured, stderr = found(method)
        yield judged(f"{says}", DERIVED, setting, limit, measured, stderr, ratio)
    _, measured, stderr = found("covariance")
    yield judged(
        "covariance of dE and (dw.v) dw", "Stein 1981", setting, 1.0, measured, stderr, ratio
    )
    # 128 is the period for n = 100
    exact = estimate(objective, w, v, 128, "difference", "walsh", sigma, precision="float64")
    worst = float(np.abs(exact.hv - 1).max())
    yield judged(
        "difference, one period: largest error",
        DERIVED,
        f"n = {n}, 128 trials of code walsh",
        0.0,
        worst,
        0.0,
        1e-8,
    )


def walsh_alias(seed: int) -> Iterator[Row]:
    """One-sided trials over one period of a Walsh code meet an alias of the curvature; fold-over or
    pairs are exact.

    Columns multiply to columns: g_i is off by sigma s_i sum_{j<l, j xor l = i} s_j s_l H_jl
    (columns from 1, s their signs).
    """
    n = 7
    sigma = 0.1
    objective = general(n, seed)
    rng = np.random.Generator(np.random.Philox(derive_seed(seed, "point")))
    w = rng.standard_normal(n)
    v = np.ones(n)
    g = objective.gradient(w)
    H = objective.hessian(w)
    # in trial 0 every Walsh column is +1: what is drawn is the random signs
    s = CODES["walsh"].draw(n, 1.0, seed, 0)
    column = np.arange(1, n + 1)
    # a one-sided dE has sigma^2 s_j s_l H_jl times column j xor l, which is that of weight i
    alias = np.zeros(n)
    for j in range(n):
        for k in range(j + 1, n):
            # the product of columns j and k is the column j xor k
            hit = column == column[j] ^ column[k]
            alias[hit] += sigma * s[hit] * s[j] * s[k] * H[j, k]

    def error(method: str, trials: int) -> Array:
        return (
            estimate(
                objective, w, v, trials, method, "walsh", sigma, seed=seed, precision="float64"
            ).gradient
            - g
        )

    source = "Box and Hunter 1961"
    setting = f"n = {n}, H not diagonal, sigma = {sigma}"
    once = error("forward", 8)
    size = float(np.linalg.norm(g))
    off = float(np.linalg.norm(alias)) / size
    one = f"{setting}, 8 trials"
    yield judged(
        "one-sided: |error|/|g|",
        source,
        one,
        off,
        float(np.linalg.norm(once)) / size,
        0.0,
        ROUNDING,
    )
    yield judged(
        "the same, off the formula",
        DERIVED,
        one,
        0.0,
        float(np.abs(once - alias).max()),
        0.0,
        ROUNDING,
    )
    for says, method, trials in (
        ("folded over: |error|/|g|", "forward", 16),
        ("pairs: |error|/|g|", "central", 8),
    ):
        left = float(np.linalg.norm(error(method, trials))) / size
        yield judged(says, source, f"{setting}, {trials} trials", 0.0, left, 0.0, ROUNDING)


def lfsr_correlation(seed: int) -> Iterator[Row]:
    """Taps of one shift register correlate by -1/L, which biases g_i by -(sum_j g_j - g_i)/L."""
    n = 12
    sigma = 0.1
    objective = general(n, seed)
    rng = np.random.Generator(np.random.Philox(derive_seed(seed, "point")))
    w = rng.standard_normal(n)
    # 15: a register of 4 bits feeds all 12
    L = CODES["lfsr"].period(n)
    g = objective.gradient(w)
    found = estimate(
        objective, w, np.ones(n), L, "central", "lfsr", sigma, seed=seed, precision="float64"
    ).gradient
    # <D_i D_j> = -sigma^2/L for j != i
    bias = -(g.sum() - g) / L
    size = float(np.linalg.norm(g))
    setting = f"n = {n}, L = {L}, one period of pairs"
    ends = float(np.linalg.norm(found - g)) / size
    yield judged(
        "|bias|/|g|",
        "Golomb 1967",
        setting,
        float(np.linalg.norm(bias)) / size,
        ends,
        0.0,
        ROUNDING,
    )
    yield judged(
        "largest distance from it",
        DERIVED,
        setting,
        0.0,
        float(np.abs(found - g - bias).max()),
        0.0,
        ROUNDING,
    )
    # any two taps will do: 0 and 5
    D = np.array([CODES["lfsr"].draw(n, 1.0, seed, trial) for trial in range(L)])
    yield judged(
        "correlation of two taps",
        "Golomb 1967",
        setting,
        -1 / L,
        float((D[:, 0] * D[:, 5]).mean()),
        0.0,
        ROUNDING,
    )
    walsh = estimate(
        objective, w, np.ones(n), 16, "central", "walsh", sigma, seed=seed, precision="float64"
    ).gradient
    one = f"n = {n}, one period of 16 pairs"
    yield judged(
        "Walsh code instead: largest error",
        DERIVED,
        one,
        0.0,
        float(np.abs(walsh - g).max()),
        0.0,
        ROUNDING,
    )


COVERED = 0.95
TRIALS = (16, 32, 64, 96, 1000)
EXACTLY = 0.02


def coverage(seed: int) -> Iterator[Row]:
    """95 % intervals by Student's t cover 95 % of the methods' limits, with every method and code.

    On a quadratic, after K = 16 to 1,000 trials and, of a periodic code, 2 and 8 double periods; of
    those, the K for which errors are known: one within a period, or that leaves too many trials
    after one, has none. A row shows the code that is furthest off.
    """
    n = 24
    sigma = 0.1
    noise = 0.01
    objective = general(n, seed)
    rng = np.random.Generator(np.random.Philox(seed))
    w = rng.standard_normal(n)
    v = rng.standard_normal(n)
    known = curvatures(objective, w, v)
    for method in METHODS.values():
        # what `check_pair` allows
        codes = [code for code in CODES.values() if code.independent or not method.needs_s]
        rows: dict[str, list[Row]] = {quantity: [] for quantity in method.quantities}
        for code in codes:
            double = 2 * code.period(n)
            inside: dict[str, dict[int, list[float]]] = {quantity: {} for quantity in rows}
            for trials in sorted({*TRIALS, *((2 * double, 8 * double) if code.periodic else ())}):
                for s in seeds(seed):
                    found = estimate(
                        objective,
                        w,
                        v,
                        trials,
                        method,
                        code,
                        sigma,
                        sigma,
                        s,
                        noise,
                        precision="float64",
                    )
                    compared = compare(found, objective, w, v, known)
                    for quantity, each in inside.items():
                        (low, high), limit = (
                            found.interval(quantity, COVERED),
                            getattr(compared, quantity).limit,
                        )
                        # of weights whose errors are known
                        if (finite := np.isfinite(low)).any():
                            each.setdefault(trials, []).append(
                                float(np.mean((low <= limit) & (limit <= high), where=finite))
                            )
            for quantity, each in inside.items():
                # where only some seeds have known errors, those are not like the others
                whole = {
                    trials: shares for trials, shares in each.items() if len(shares) == REPEATS
                }
                claim = (
                    f"{method.name}: {'g' if quantity == 'gradient' else 'z'} covered; {len(codes)}"
                    f" codes, furthest {code.name}"
                )
                setting = (
                    f"n = {n}, {', '.join(f'{trials:,}' for trials in whole)} trials, {REPEATS}"
                    " runs each"
                )
                measured, stderr = mean(np.mean(list(whole.values()), axis=0))
                rows[quantity].append(
                    judged(claim, "Student 1908", setting, COVERED, measured, stderr, EXACTLY)
                )
        for quantity in rows:
            # the worst code stands for the method: no failure is averaged away
            yield max(rows[quantity], key=lambda row: abs(row.measured - row.predicted))


def alignment(seed: int) -> Iterator[Row]:
    """After K trials the estimate and the gradient have a cosine of sqrt(K/(K + n - 1)): of order n
    trials for a direction.

    Rademacher pairs on E = g.w: g_hat has the variance (n - 1) |g|^2/K. For n = 220, K = n/10, n
    and 10 n.
    """
    n = 220
    objective = Linear(np.linspace(0.5, 1.5, n))
    g = np.linspace(0.5, 1.5, n)
    for K in (n // 10, n, 10 * n):
        runs = [
            estimate(objective, np.zeros(n), g, K, "central", "rademacher", seed=s).gradient
            for s in seeds(seed)
        ]
        setting = f"n = {n}, Rademacher pairs, {REPEATS} x {K} trials"
        # the mean of a ratio is taken for the ratio of means: off by about 1/n of it
        yield judged(
            f"cosine, K = {K}",
            SPALL,
            setting,
            math.sqrt(K / (K + n - 1)),
            *mean([_cosine(each, g) for each in runs]),
            1 / n,
        )


def code_variance(seed: int) -> Iterator[Row]:
    """A trial's estimate of the gradient has the variance (n + k - 2) |g|^2, k the kurtosis of
    the code.
    """
    n = 16
    trials = 10_000
    g = np.linspace(0.5, 1.5, n)
    for code in ("rademacher", "uniform", "gaussian", "ternary"):
        runs = [
            estimate(Linear(g), np.zeros(n), g, trials, "central", code, seed=s)
            for s in seeds(seed)
        ]
        setting = f"n = {n}, pairs, {REPEATS} x {trials} trials"
        # from the synapses' own standard errors, which so are judged too
        measured, stderr = (value / float(g @ g) for value in variance_of(runs))
        k = CODES[code].kurtosis
        yield judged(
            f"variance/|g|^2, {code} (k = {k:g})", SPALL, setting, n + k - 2, measured, stderr
        )


def one_at_a_time(seed: int) -> Iterator[Row]:
    """A Walsh code of L trials has an L-th of the noise of one weight at a time with the same
    amplitude per weight.

    All n = L - 1 weights are perturbed in each of the L trials, and each is read in all of them;
    one at a time, in one.
    """
    n = 63
    L = 64
    sigma = 0.01
    noise = 1e-3
    repeats = 10 * REPEATS
    objective = Linear(np.zeros(n))
    found = []
    # "sequential" moves its one weight by sigma sqrt(n): so it is the same amplitude per weight
    for code, amplitude, trials in (("sequential", sigma / n**0.5, n), ("walsh", sigma, L)):
        runs = [
            estimate(
                objective,
                np.zeros(n),
                np.ones(n),
                trials,
                "central",
                code,
                amplitude,
                seed=s,
                error_noise=noise,
            ).gradient
            for s in seeds(seed, repeats)
        ]
        # E is flat, so that all of the estimate is noise
        found.append(mean([float(run @ run) / n for run in runs]))
    (alone, alone_stderr), (walsh, walsh_stderr) = found
    setting = (
        f"E flat, n = {n}, noise of E alone, a pair for each weight against {L} pairs, {repeats}"
        " times"
    )
    stderr = alone / walsh * math.hypot(alone_stderr / alone, walsh_stderr / walsh)
    yield judged(
        "noise variance, one at a time/Walsh",
        "Harwit and Sloane 1979",
        setting,
        L,
        alone / walsh,
        stderr,
    )


def width(seed: int) -> Iterator[Row]:
    """The trials to a cosine of 0.9 grow in proportion to the number of weights, whatever the width
    and the network.

    Rademacher pairs: K = (n - 1) c^2/(1 - c^2) for a cosine c, here of a tanh network of h hidden
    units. A chip's trial takes the same time however many weights it perturbs, so the time grows
    alike.
    """
    c = 0.9
    sigma = 1e-3
    # cos = c: K = (n - 1) c^2/(1 - c^2)
    scale = c**2 / (1 - c**2)
    rng = np.random.Generator(np.random.Philox(seed))
    x = rng.standard_normal((8, 6))
    target = rng.standard_normal((8, 2))
    # n = 38, 146 and 578
    for hidden in (4, 16, 64):
        net = MLP([6, hidden, 2], "tanh")
        objective = net.objective(x, target)
        w = net.init(seed % 2**32)
        n = net.n_weights
        # a wide network's estimate averages over more weights by itself
        repeats = max(16, 512 // hidden)
        g = objective.gradient(w)
        K = round((n - 1) * scale)
        runs = [
            estimate(objective, w, g, K, "central", "rademacher", sigma, seed=s).gradient
            for s in seeds(seed, repeats)
        ]
        # 1/c^2 - 1 = (n - 1)/K, so what they say of K, each
        measured, stderr = mean([K * (1 / _cosine(each, g) ** 2 - 1) / n * scale for each in runs])
        setting = f"6-{hidden}-2, n = {n}, {repeats} x {K} trials"
        claim = f"trials per weight to a cosine of 0.9, h = {hidden}"
        yield judged(claim, SPALL, setting, scale * (n - 1) / n, measured, stderr, scale / n)


def _cosine(a: Array, b: Array) -> float:
    return float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
