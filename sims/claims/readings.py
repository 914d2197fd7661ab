"""Claims about what imperfections of a chip do to gain and variance of an estimate."""

import math
from collections.abc import Iterator

import numpy as np

from hardware.chip import Chip
from hardware.params import ChipParams
from perturb.estimation.solution import Estimate
from perturb.networks.objective import Objective
from perturb.seeds import derive_seed
from perturb.theory.rounding import rounding_gain, rounding_variance, stalled_gradient
from sims.claims.claim import (
    DERIVED,
    REPEATS,
    ROUNDING,
    Array,
    Linear,
    Row,
    chip,
    general,
    judged,
    mean,
    seeds,
)


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


def variance_of(runs: list[Estimate]) -> tuple[float, float]:
    """Variance of one trial, summed over the weights."""
    # the synapses' own standard errors, squared, of K trials
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
        # residual after a settling time of so many time constants
        a = math.exp(-taus)
        settle = {"settle_ns": 1200, "tau_ns": 1200 / taus}
        setting = f"n = {n}, settles for {taus} tau, {REPEATS} x {trials} trials"
        # E(w) is read once and for all: what settles is the perturbation alone
        stored = chip(perturbation=settle, error_unit={"baseline_every": 10**9})
        runs = _runs(stored, objective, seed, trials, "forward", "rademacher")
        yield judged(f"gain, {taus} tau", DERIVED, setting, 1 - a, *_gain(runs, g))
        measured, stderr = (value / ((1 - a) ** 2 * float(g @ g)) for value in variance_of(runs))
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

    The gain for Gaussian dE is `rounding.rounding_gain`; the variance per gain^2 grows by E
    q(x)^2/(gain^2 s^2), q(x) the value as converted: E q(x)^2 = s^2 + `rounding_variance` + 2 s^2
    (gain - 1).
    """
    n = 16
    sigma = 0.01
    trials = 6000
    source = "Widrow and Kollar 2008"
    g = np.linspace(0.5, 1.5, n)
    # std(dE) of a linear E
    s = sigma * float(np.linalg.norm(g))

    def words(step: float) -> ChipParams:
        # words of 12 bits from -range to range: 2^12 steps over 2 range
        return chip(bus={"word_bits": 12, "dE_range": 2**11 * step})

    for steps in (1.2, 4.0, 6.0):
        runs = _runs(words(steps * s), Linear(g), seed, trials)
        gain = rounding_gain(1.0, steps)
        setting = f"dE converted in steps, n = {n}, {REPEATS} x {trials} trials"
        yield judged(f"gain, steps of {steps} std(dE)", source, setting, gain, *_gain(runs, g))
        if steps == 1.2:
            # E q(x)^2/s^2, where E x q(x) = gain s^2 (Bussgang)
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
    # the gradient that is half lost in steps of 0.01
    small = g * stalled_gradient(sigma, 0.01) / float(np.linalg.norm(g))
    runs = _runs(words(0.01), Linear(small), seed, trials)
    yield judged("gain, steps of 3.8 std(dE): stalls", DERIVED, setting, 0.5, *_gain(runs, small))
    for dither in (False, True):
        # 2^10 steps of 6 s each, and E0 in their middle
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
    # E x sign(x) = s sqrt(2/pi) of x ~ N(0, s^2), over s^2
    gain = math.sqrt(2 / math.pi) / (sigma * math.sqrt(square))
    runs = _runs(chip(error_unit={"one_bit": True}), Linear(g), seed, trials)
    measured, stderr = (value / gain for value in _gain(runs, g))
    yield judged("gain std(dE)/sqrt(2/pi)", "Bussgang 1952", setting, 1.0, measured, stderr)
    measured, stderr = (value / gain**2 / ((n + 1) * square) for value in variance_of(runs))
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
    # the reading of trial t is 2t + 1 behind the stored one; 1 + floor log2 j = bit length of j
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
        # o_i <dE>/sigma^2 with <dE> = sigma^2 tr H/2
        bias = made.parts.die.multiplier * (trace / 2 if method == "forward" else 0.0)
        found = float(np.linalg.norm(made.run(16).gradient - g)) / size
        yield judged(
            says, DERIVED, setting, float(np.linalg.norm(bias)) / size, found, 0.0, ROUNDING
        )
