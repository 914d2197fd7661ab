"""Claims about estimates: limits of least squares, coverage, aliases of codes, what
imperfections do to gain and variance.
"""

import math
from collections.abc import Iterator

import numpy as np

from hardware.chip import Chip
from hardware.params import ChipParams
from perturb.estimation.estimate import estimate
from perturb.estimation.solution import Estimate
from perturb.networks.mlp import MLP
from perturb.networks.objective import Objective
from perturb.seeds import derive_seed
from perturb.theory.comparison import compare
from perturb.theory.estimates import curvatures, predict
from perturb.theory.imperfections import rounding_gain, rounding_variance, stalled_gradient
from perturb.trial.codes import CODES
from perturb.trial.methods import METHODS
from sims.claims.claim import (
    REPEATS,
    ROUNDING,
    Array,
    Linear,
    Row,
    chip,
    diagonal,
    general,
    judged,
    mean,
    refuted,
    seeds,
)

DERIVED = "derived here"
SPALL = "Spall 1992"


def least_squares(seed: int) -> Iterator[Row]:
    """The 2x2 least squares for (g_i, z_i) estimate z = Hv: not as published, only as corrected.

    H = I and v = (1, ..., 1), so that all z_i are 1: what the mean of the estimates over weights
    tends to, from `estimates.limit`; without an intercept (1 + tr H/4 - 1/2)/(1 - 1/4n), with one
    (1 - 1/2)/(1 - 1/2n).
    """
    n = 100
    sigma = 0.1
    trials = 8192
    objective = diagonal(np.ones(n))
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
    s = CODES["walsh"].draw(n, 1.0, seed, 0)
    column = np.arange(1, n + 1)
    alias = np.zeros(n)
    for j in range(n):
        for k in range(j + 1, n):
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
    L = CODES["lfsr"].period(n)
    g = objective.gradient(w)
    found = estimate(
        objective, w, np.ones(n), L, "central", "lfsr", sigma, seed=seed, precision="float64"
    ).gradient
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
                        if (known := np.isfinite(low)).any():
                            each.setdefault(trials, []).append(
                                float(np.mean((low <= limit) & (limit <= high), where=known))
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
            yield max(rows[quantity], key=lambda row: abs(row.measured - row.predicted))


# ---- how many trials


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
        measured, stderr = (value / float(g @ g) for value in _variance(runs))
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
    scale = c**2 / (1 - c**2)
    rng = np.random.Generator(np.random.Philox(seed))
    x = rng.standard_normal((8, 6))
    target = rng.standard_normal((8, 2))
    for hidden in (4, 16, 64):
        net = MLP([6, hidden, 2], "tanh")
        objective = net.objective(x, target)
        w = net.init(seed % 2**32)
        n = net.n_weights
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


# ---- gain and variance on a chip


def _runs(
    params: ChipParams,
    objective: Objective,
    seed: int,
    trials: int,
    method: str = "central",
    code: str = "gaussian",
    sigma: float = 0.01,
    fidelity: str = "batch",
) -> list[Estimate]:
    """Estimates by the chip at w = 0, with REPEATS seeds."""
    n = objective.n_weights
    w = np.zeros(n)
    v = np.ones(n)
    return [
        Chip(params, objective, w, v, method, code, sigma, seed=s, fidelity=fidelity).run(trials)
        for s in seeds(seed)
    ]


def _gain(runs: list[Estimate], g: Array) -> tuple[float, float]:
    """How much of the gradient the estimates hold, g_hat.g/|g|^2."""
    return mean([float(run.gradient @ g) / float(g @ g) for run in runs])


def _variance(runs: list[Estimate]) -> tuple[float, float]:
    """Variance of one trial, summed over the weights."""
    return mean([float((run.gradient_stderr**2).sum()) * run.trials for run in runs])


def settling(seed: int) -> Iterator[Row]:
    """Perturbations that settle only up to a residual a = exp(-T/tau) cost little: gain 1 - a,
    variance n/(1 - a^2).

    One-sided trials beside a stored E(w), Rademacher code: g_hat = D (x.g)/sigma^2, x = a x + (1 -
    a) D; the variance of one, per gain^2 and |g|^2, is n/(1 - a^2) - 1. In pairs the array also has
    to turn over: gain (1 - a)(2 - a)/2.
    """
    n = 16
    trials = 1000
    g = np.linspace(0.5, 1.5, n)
    objective = Linear(g)
    for taus in (1.2, 0.5):
        a = math.exp(-taus)
        settle = {"settle_ns": 1200, "tau_ns": 1200 / taus}
        setting = f"n = {n}, settles for {taus} tau, {REPEATS} x {trials} trials"
        stored = chip(perturbation=settle, error_unit={"baseline_every": 10**9})
        runs = _runs(stored, objective, seed, trials, "forward", "rademacher")
        yield judged(f"gain, {taus} tau", DERIVED, setting, 1 - a, *_gain(runs, g))
        measured, stderr = (value / ((1 - a) ** 2 * float(g @ g)) for value in _variance(runs))
        yield judged(
            f"variance/(gain |g|)^2, {taus} tau",
            DERIVED,
            setting,
            n / (1 - a**2) - 1,
            measured,
            stderr,
        )
    pairs = _runs(chip(perturbation=settle), objective, seed, trials, "central", "rademacher")
    yield judged(
        f"gain of pairs, {taus} tau", DERIVED, setting, (1 - a) * (2 - a) / 2, *_gain(pairs, g)
    )


def converter(seed: int) -> Iterator[Row]:
    """A converter of dE with a step of 1.2 std(dE) costs 12 % more trials; at 6 std learning
    stalls, unless dithered.

    The gain for Gaussian dE is `imperfections.rounding_gain`; the variance per gain^2 grows by E
    q(x)^2/(gain^2 s^2), q(x) the value as converted: E q(x)^2 = s^2 + `rounding_variance` + 2 s^2
    (gain - 1).
    """
    n = 16
    sigma = 0.01
    trials = 6000
    source = "Widrow and Kollar 2008"
    g = np.linspace(0.5, 1.5, n)
    s = sigma * float(np.linalg.norm(g))

    def words(step: float) -> ChipParams:
        return chip(bus={"word_bits": 12, "dE_range": 2**11 * step})

    for steps in (1.2, 4.0, 6.0):
        runs = _runs(words(steps * s), Linear(g), seed, trials)
        gain = rounding_gain(1.0, steps)
        setting = f"dE converted in steps, n = {n}, {REPEATS} x {trials} trials"
        yield judged(f"gain, steps of {steps} std(dE)", source, setting, gain, *_gain(runs, g))
        if steps == 1.2:
            square = 1 + rounding_variance(1.0, steps, False) + 2 * (gain - 1)
            measured, stderr = mean(
                [float(run.statistics.totals[2]) / run.trials / s**2 for run in runs]
            )
            yield judged(
                "trials needed, steps of 1.2 std(dE)",
                source,
                setting,
                square / gain**2,
                measured / gain**2,
                stderr / gain**2,
            )
    small = g * stalled_gradient(sigma, 0.01) / float(np.linalg.norm(g))
    runs = _runs(words(0.01), Linear(small), seed, trials)
    yield judged("gain, steps of 3.8 std(dE): stalls", DERIVED, setting, 0.5, *_gain(runs, small))
    for dither in (False, True):
        params = chip(error_unit={"bits": 10, "range": 1024 * 6 * s, "dither": dither})
        runs = _runs(params, Linear(g, E0=512 * 6 * s), seed, trials)
        claim = f"gain, {'dithered' if dither else 'plain'} steps of 6 std(dE)"
        setting = f"E converted in steps, n = {n}, {REPEATS} x {trials} trials"
        yield judged(
            claim, source, setting, 1.0 if dither else rounding_gain(1.0, 6.0), *_gain(runs, g)
        )


def one_bit(seed: int) -> Iterator[Row]:
    """The sign of dE will do: gain sqrt(2/pi)/std(dE), for pi/2 times the trials.

    Exactly, for a Gaussian code of n weights, (n pi/2 - 1)/(n + 1) times the variance per gain^2.
    """
    n = 32
    trials = 4000
    sigma = 0.01
    g = np.linspace(0.5, 1.5, n)
    square = float(g @ g)
    setting = f"n = {n}, Gaussian code, {REPEATS} x {trials} trials"
    gain = math.sqrt(2 / math.pi) / (sigma * math.sqrt(square))
    runs = _runs(chip(error_unit={"one_bit": True}), Linear(g), seed, trials)
    measured, stderr = (value / gain for value in _gain(runs, g))
    yield judged("gain std(dE)/sqrt(2/pi)", "Bussgang 1952", setting, 1.0, measured, stderr)
    measured, stderr = (value / gain**2 / ((n + 1) * square) for value in _variance(runs))
    claim = "trials needed, as a factor: pi/2 but for 1/n"
    yield judged(claim, "Bussgang 1952", setting, (n * math.pi / 2 - 1) / (n + 1), measured, stderr)


def flicker(seed: int) -> Iterator[Row]:
    """Differences of neighbouring readings filter 1/f noise, by 4 sin^2(pi f T); a stored E(w)
    drifts with the log of its age.

    Noise of an rms f per octave, octave k changing every 2^k readings: of 24 f^2 a difference keeps
    2 f^2 (half of one, f^2/2); readings j apart from a stored one that starts a block of octaves
    keep 2 f^2 (1 + floor log2 j).
    """
    f = 0.01
    trials = 1024
    every = 64
    objective = Linear(np.zeros(4), E0=1.0)

    def square(method: str, **unit: int) -> tuple[float, float]:
        runs = _runs(
            chip(error_unit={"flicker": f, **unit}), objective, seed, trials, method, "rademacher"
        )
        return mean([float(run.statistics.totals[2]) / run.trials / f**2 for run in runs])

    source = "Enz and Temes 1996"
    setting = f"E flat, 24 octaves of rms f, {REPEATS} x {trials} trials"
    yield judged("E dE^2/f^2, E(w) before each trial", source, setting, 2.0, *square("forward"))
    yield judged("E dE^2/f^2, pairs", source, setting, 0.5, *square("central"))
    ages = 2 * np.mean([(2 * trial + 1).bit_length() for trial in range(every)])
    claim = f"E dE^2/f^2, E(w) stored for {every} trials"
    yield judged(claim, DERIVED, setting, float(ages), *square("forward", baseline_every=every))


def product_offset(seed: int) -> Iterator[Row]:
    """Offsets o_i of the multipliers bias one-sided estimates by o_i <dE>/sigma^2; antithetic pairs
    have none.

    Over a double period of a Walsh code <dE> = sigma^2 tr H/2, exactly.
    """
    n = 7
    sigma = 0.1
    objective = general(n, seed)
    rng = np.random.Generator(np.random.Philox(derive_seed(seed, "point")))
    w = rng.standard_normal(n)
    v = np.ones(n)
    g = objective.gradient(w)
    trace = float(np.trace(objective.hessian(w)))
    size = float(np.linalg.norm(g))
    setting = f"n = {n}, offsets of rms sigma/2, two periods of a Walsh code"
    for method, says in (("forward", "one-sided: |bias|/|g|"), ("central", "pairs: |bias|/|g|")):
        made = Chip(
            chip(synapse={"offset_mismatch": sigma / 2}),
            objective,
            w,
            v,
            method,
            "walsh",
            sigma,
            seed=seed,
        )
        bias = made.values.die.multiplier * (trace / 2 if method == "forward" else 0.0)
        found = float(np.linalg.norm(made.run(16).gradient - g)) / size
        yield judged(
            says, DERIVED, setting, float(np.linalg.norm(bias)) / size, found, 0.0, ROUNDING
        )
