"""Cost of exact gradients and Hv, against JAX on the same network in the same, interleaved run: at
weights that are new in each call, as training asks for them, and Hv over passes that are kept.

    python tests/benchmarks/hv.py          (needs jax; torch is measured too if it is there)

Prints medians of ratios for each network; above 1 in "jax x / x" means that JAX is slower. It gets
its arrays ready, in float64. Each figure is of CALLS calls in a row, as training makes them: the
first after another program's is slower for both. On one core (`taskset -c 0`) the figures are of
the work alone, on several also of how threads wait for each other beside other load.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from perturb import MLP

jax.config.update("jax_enable_x64", True)
try:
    import torch
except ImportError:
    torch = None

NETWORKS = (([64, 32, 10], 256), ([784, 128, 10], 128), ([784, 512, 512, 10], 256))
REPEATS = 15
CALLS = 3
# what is compared with what
PAIRS = (
    ("gradient", "jax gradient"),
    ("hvp", "jax hvp"),
    ("kept hvp", "jax hvp"),
    ("kept hvp", "jax kept hvp"),
    ("kept hvp", "kept hvp, each of 16"),
    ("kept hvp", "torch hvp"),
    ("gradient", "hvp"),
    ("gradient", "kept hvp"),
)


def error_of(layers, x, t, tanh, logsumexp):
    """E(w) for automatic differentiation."""

    def E(w):
        y, start = x, 0
        for layer, (a, b) in enumerate(zip(layers, layers[1:], strict=False)):
            y = y @ w[start : start + a * b].reshape(a, b) + w[start + a * b : start + (a + 1) * b]
            y = tanh(y) if layer < len(layers) - 2 else y
            start += (a + 1) * b
        return (logsumexp(y, -1) - (t * y).sum(-1)).mean()

    return E


def measure(layers, patterns):
    rng = np.random.default_rng(0)
    net = MLP(layers, error="cross_entropy")
    x = rng.standard_normal((patterns, layers[0]))
    t = np.eye(layers[-1])[rng.integers(0, layers[-1], patterns)]
    fresh, kept = net.objective(x, t), net.objective(x, t)
    # no two calls in a row have the same
    W = [net.init(seed) for seed in range(3)]
    V = rng.standard_normal((W[0].size, 16))
    v = V[:, 0].copy()
    jW, jv = [jnp.array(w) for w in W], jnp.array(v)
    E = error_of(layers, jnp.array(x), jnp.array(t), jnp.tanh, jax.nn.logsumexp)
    gradient = jax.jit(jax.grad(E))
    hvp = jax.jit(lambda w, v: jax.jvp(gradient, (w,), (v,))[1])
    linear = jax.jit(jax.linearize(gradient, jW[0])[1])
    np.testing.assert_allclose(fresh.gradient(W[1]), gradient(jW[1]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fresh.hvp(W[0], v), hvp(jW[0], jv), rtol=1e-10, atol=1e-12)

    runs = {
        "gradient": lambda i: fresh.gradient(W[i % 3]),
        "jax gradient": lambda i: gradient(jW[i % 3]).block_until_ready(),
        "hvp": lambda i: fresh.hvp(W[i % 3], v),
        "jax hvp": lambda i: hvp(jW[i % 3], jv).block_until_ready(),
        "kept hvp": lambda i: kept.hvp(W[0], v),
        "jax kept hvp": lambda i: linear(jv).block_until_ready(),
        "kept hvp, each of 16": lambda i: kept.hvp(W[0], V),
    }
    if torch is not None:
        tW, tv, tx, tt = [torch.tensor(w) for w in W], *(torch.tensor(a) for a in (v, x, t))
        E = error_of(layers, tx, tt, torch.tanh, torch.logsumexp)
        runs["torch hvp"] = lambda i: torch.func.jvp(torch.func.grad(E), (tW[i % 3],), (tv,))
    times = {name: [] for name in runs}
    for f in runs.values():
        f(0)
    for _ in range(REPEATS):
        for name, f in runs.items():
            start = time.perf_counter()
            for i in range(CALLS):
                f(i)
            times[name].append((time.perf_counter() - start) / CALLS)
    times = {name: np.array(t) for name, t in times.items()}
    times["kept hvp, each of 16"] /= 16
    print(f"{'-'.join(map(str, layers))}, S = {patterns}")
    for ours in ("gradient", "hvp", "kept hvp"):
        print(f"    {ours}: {1e3 * np.median(times[ours]):.2f} ms")
    for below, above in PAIRS:
        if above in times:
            print(f"    {above} / {below}: {np.median(times[above] / times[below]):.2f}")


for network in NETWORKS:
    measure(*network)
