"""Perturbation trials a second: `estimate` against the best of JAX and of torch in the same,
interleaved run.

    python tests/benchmarks/trials.py [beginning of a case's name ...] (needs jax; torch is measured
    too if it is there)

A case is one network, code and noise. Competitors make less: the sums of dw dE, s dw dE, dw, s dw
only, where ours make every sum that the standard errors need. Of every competitor the fastest is
taken of its forms (one large product for the first layer, or one product per trial; JAX: threefry
or the faster rbg generator) and its numbers of trials at once. Prints medians of ratios; above 1,
`x / ours` means that x is slower. `share of peak`: arithmetic of the forward pass, as if done by
products, against a float32 matrix product of 2048 x 2048 on the same cores.
"""

import itertools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from hardware import Chip
from hardware.chip_tables import ErrorUnitParams, PerturbationParams
from hardware.params import ChipParams
from perturb import MLP, estimate

try:
    import torch
except ImportError:
    torch = None

# layers, patterns, code, noise of E, trials of a measurement
CASES = {
    "2-2-1": ([2, 2, 1], 4, "rademacher", 0.0, 40_000_000),
    "49-4-4": ([49, 4, 4], 4, "rademacher", 0.0, 8_000_000),
    "49-4-4 of 32": ([49, 4, 4], 32, "rademacher", 0.0, 1_600_000),
    "64-32-10": ([64, 32, 10], 64, "rademacher", 0.0, 200_000),
    "784-128-10": ([784, 128, 10], 32, "rademacher", 0.0, 12_000),
    "gaussian 2-2-1": ([2, 2, 1], 4, "gaussian", 0.0, 8_000_000),
    "gaussian 49-4-4": ([49, 4, 4], 32, "gaussian", 0.0, 200_000),
    "gaussian 64-32-10": ([64, 32, 10], 64, "gaussian", 0.0, 20_000),
    "ternary 64-32-10": ([64, 32, 10], 64, "ternary", 0.0, 20_000),
    "walsh 64-32-10": ([64, 32, 10], 64, "walsh", 0.0, 200_000),
    "noisy 2-2-1": ([2, 2, 1], 4, "rademacher", 1e-3, 16_000_000),
    "noisy 49-4-4": ([49, 4, 4], 32, "rademacher", 1e-3, 400_000),
    "noisy 64-32-10": ([64, 32, 10], 64, "rademacher", 1e-3, 100_000),
    "mismatched 64-32-10": ([64, 32, 10], 64, "rademacher", 1e-3, 50_000),
}
SIGMA, MISMATCH, REPEATS, CHUNKS = 1e-2, 0.05, 9, (64, 256, 1024, 4096, 16384)


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def shapes(layers):
    return list(zip(layers, layers[1:], strict=False))


def in_jax(layers, x, t, w, v, code, noise, trials, form, generator, gain):
    """chunk -> a function of a seed that runs the trials, `chunk` at a time, and returns the
    four sums.
    """
    n, S = w.size, x.shape[0]
    x, t, w, v = (jnp.array(a, jnp.float32) for a in (x, t, w, v))
    applied = 1.0 if gain is None else jnp.array(gain, jnp.float32)

    def draw(key, T):
        if code == "gaussian":
            return SIGMA * jax.random.normal(key, (T, n), jnp.float32)
        if code == "ternary":
            u = jax.random.bits(key, (T, n), jnp.uint8)
            return 3**0.5 * SIGMA * ((u < 43).astype(jnp.float32) - (u >= 213).astype(jnp.float32))
        if code == "walsh":  # signs of one row: as cheap as may be
            u = jax.random.bits(key, (T, 1), jnp.uint32) & jnp.arange(1, n + 1, dtype=jnp.uint32)
            return SIGMA * (1 - 2 * (jax.lax.population_count(u) & 1).astype(jnp.float32))
        u = jax.random.bits(key, (T, -(-n // 32)), jnp.uint32)
        u = (u[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
        return SIGMA * (2 * u.reshape(T, -1)[:, :n].astype(jnp.float32) - 1)

    def errors(D, base):
        T, y, start = D.shape[0], None, 0
        for layer, (a, b) in enumerate(shapes(layers)):
            M, bias = (
                D[:, start : start + a * b].reshape(T, a, b),
                D[:, start + a * b : start + (a + 1) * b],
            )
            if layer == 0 and form == "one product":
                y = (
                    (x @ M.transpose(1, 0, 2).reshape(a, T * b)).reshape(S, T, b).transpose(1, 0, 2)
                    + bias[:, None]
                    + base
                )
            elif layer == 0:
                y = jnp.einsum("si,tij->tsj", x, M) + bias[:, None] + base
            else:
                W, own = (
                    w[start : start + a * b].reshape(a, b),
                    w[start + a * b : start + (a + 1) * b],
                )
                y = jnp.einsum("tsi,tij->tsj", y, M + W) + (bias + own)[:, None]
            y = jnp.tanh(y) if layer < len(layers) - 2 else jax.nn.sigmoid(y)
            start += (a + 1) * b
        return 0.5 * ((y - t) ** 2).sum(-1).mean(-1)

    def of(chunk):
        @jax.jit
        def run(key):
            a, b = layers[:2]
            base = x @ w[: a * b].reshape(a, b) + w[a * b : (a + 1) * b]
            E0 = errors(jnp.zeros((1, n)), base)[0]

            def step(sums, i):
                key_D, key_xi, key_xi0 = jax.random.split(jax.random.fold_in(key, i), 3)
                D = draw(key_D, chunk)
                dE = errors(applied * D, base) - E0
                if noise:  # of every reading of a pattern, of both evaluations
                    for k in (key_xi, key_xi0):
                        dE += noise * S**0.5 * jax.random.normal(k, (chunk, S), jnp.float32).mean(1)
                s = D @ v
                return sums + jnp.stack([dE, s * dE, jnp.ones_like(s), s]) @ D, None

            return jax.lax.scan(step, jnp.zeros((4, n)), jnp.arange(-(-trials // chunk)))[0]

        return lambda seed: run(jax.random.key(seed, impl=generator)).block_until_ready()

    return of


def in_torch(layers, x, t, w, v, code, noise, trials, form, gain):
    n, S = w.size, x.shape[0]
    x, t, w, v = (torch.tensor(a, dtype=torch.float32) for a in (x, t, w, v))
    applied = 1.0 if gain is None else torch.tensor(gain, dtype=torch.float32)
    shifts = torch.arange(63)

    def draw(T):
        if code == "gaussian":
            return torch.randn(T, n).mul_(SIGMA)
        if code == "ternary":
            u = torch.randint(0, 6, (T, n), dtype=torch.uint8)
            return ((u == 0).float() - (u == 5).float()) * (3**0.5 * SIGMA)
        if code == "walsh":
            u = torch.randint(0, 2**31, (T, 1)) & torch.arange(1, n + 1)
            for shift in (16, 8, 4, 2, 1):
                u = u ^ (u >> shift)
            return (1 - 2 * (u & 1).float()) * SIGMA
        u = torch.empty(T, -(-n // 63), dtype=torch.int64).random_()
        return (2 * ((u[:, :, None] >> shifts) & 1).reshape(T, -1)[:, :n].float() - 1) * SIGMA

    def errors(D, base):
        T, y, start = D.shape[0], None, 0
        for layer, (a, b) in enumerate(shapes(layers)):
            M, bias = (
                D[:, start : start + a * b].reshape(T, a, b),
                D[:, start + a * b : start + (a + 1) * b],
            )
            if layer == 0 and form == "one product":
                y = (x @ M.transpose(0, 1).reshape(a, T * b)).reshape(S, T, b).transpose(0, 1) + (
                    bias[:, None] + base
                )
            elif layer == 0:
                y = torch.matmul(x, M) + (bias[:, None] + base)
            else:
                W, own = (
                    w[start : start + a * b].reshape(a, b),
                    w[start + a * b : start + (a + 1) * b],
                )
                y = torch.baddbmm((bias + own)[:, None], y, M + W)
            y = torch.tanh(y) if layer < len(layers) - 2 else torch.sigmoid(y)
            start += (a + 1) * b
        return 0.5 * ((y - t) ** 2).sum(-1).mean(-1)

    def of(chunk):
        def run(seed):
            torch.manual_seed(seed)
            with torch.inference_mode():
                a, b = layers[:2]
                base = x @ w[: a * b].reshape(a, b) + w[a * b : (a + 1) * b]
                E0, sums = errors(torch.zeros(1, n), base)[0], torch.zeros(4, n)
                for _ in range(-(-trials // chunk)):
                    D = draw(chunk)
                    dE = errors(applied * D, base) - E0
                    if noise:
                        for _ in range(2):
                            dE += noise * S**0.5 * torch.randn(chunk, S).mean(1)
                    s = D @ v
                    sums += torch.stack([dE, s * dE, torch.ones_like(s), s]) @ D
            return sums

        return run

    return of


def fastest(makers, size):
    """The fastest of all forms at all chunks; chunks of more than 400 MB are left out."""
    best = (np.inf, None, None)
    for (name, maker), chunk in itertools.product(makers.items(), CHUNKS):
        if chunk * size * 4 > 4e8:
            continue
        run = maker(chunk)
        run(0)
        took = min(clock(lambda run=run: run(1)) for _ in range(2))
        best = min(best, (took, f"{name}, {chunk} at once", run), key=lambda entry: entry[0])
    return best


def measure(case, layers, S, code, noise, trials):
    rng = np.random.default_rng(0)
    net = MLP(layers, output="logistic")
    x, t = rng.standard_normal((S, layers[0])), rng.random((S, layers[-1]))
    w, v = net.init(0), rng.standard_normal(net.n_weights)
    objective = net.objective(x, t)

    def on_chip(seed):
        error_unit, p = {"noise": noise}, {"gain_mismatch": MISMATCH}
        params = ChipParams(
            error_unit=ErrorUnitParams(**error_unit), perturbation=PerturbationParams(**p)
        )
        chip = Chip(
            params,
            objective,
            w,
            v,
            "covariance",
            code,
            SIGMA,
            seed=seed,
            fidelity="batch",
            precision="float32",
        )
        return chip.run(trials)

    def ours(seed):
        if case.startswith("mismatched"):
            return on_chip(seed)
        return estimate(
            objective,
            w,
            v,
            trials,
            "covariance",
            code,
            SIGMA,
            seed=seed,
            error_noise=noise,
            precision="float32",
        )

    size = w.size + S * (layers[1] + layers[2])
    gain = 1 + MISMATCH * rng.standard_normal(w.size) if case.startswith("mismatched") else None
    point = (
        layers,
        x,
        t,
        w,
        v,
        code,
        noise,
        trials // 8,
    )  # an eighth, to save time: they start fast
    forms = ("one product", "a product each")
    makers = {
        f"{form}, {generator}": in_jax(*point, form, generator, gain)
        for form in forms
        for generator in ("threefry2x32", "rbg")
    }
    _, jax_name, jax_run = fastest(makers, size)
    runs = {"ours": ours, "jax": jax_run}
    names = f"jax: {jax_name}"
    if torch is not None:
        _, torch_name, runs["torch"] = fastest(
            {form: in_torch(*point, form, gain) for form in forms}, size
        )
        names += f"; torch: {torch_name}"
    a, b = jnp.array(rng.random((2, 2048, 2048), dtype=np.float32))
    product = jax.jit(jnp.matmul)  # the fastest of NumPy, torch and JAX where this was written
    runs["matmul"] = lambda seed: product(a, b).block_until_ready()
    times = {name: [] for name in runs}
    for run in runs.values():
        run(0)
    for repeat in range(REPEATS):
        for name, run in runs.items():
            times[name].append(clock(lambda run=run, repeat=repeat: run(repeat)))
    rate = {name: 1.0 / np.array(took) for name, took in times.items()}
    rate["ours"] *= trials
    for name in ("jax", "torch"):
        if name in rate:
            chunk = int(names.split(f"{name}: ")[1].split(" at once")[0].split(", ")[-1])
            rate[name] *= -(-(trials // 8) // chunk) * chunk
    flops = 2 * S * sum(p * q for p, q in shapes(layers))
    share = np.median(rate["ours"] * flops / (rate["matmul"] * 2 * 2048**3))
    peak = np.median(rate["matmul"]) * 2 * 2048**3
    ratios = "; ".join(
        f"{name} / ours {np.median(rate['ours'] / rate[name]):.2f}"
        for name in rate
        if name in ("jax", "torch")
    )
    ours_rate = np.median(rate["ours"])
    print(
        f"{case}, S = {S}: {ours_rate:,.0f} trials/s; {ratios}; share of peak {100 * share:.0f} %"
        f" of {peak / 1e9:.0f} GFLOP/s   ({names})",
        flush=True,
    )


for case, parameters in CASES.items():
    if len(sys.argv) < 2 or any(case.startswith(part) for part in sys.argv[1:]):
        measure(case, *parameters)
