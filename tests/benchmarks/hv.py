"""Cost of exact Hv: against our own gradient, and against JAX on the same network in the same,
interleaved run.

    python tests/benchmarks/hv.py          (needs jax; torch is measured too if it is there)

Prints medians of ratios; a row per network. Above 1 in a column "x / ours" means that x is slower.
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


def clock(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def measure(layers, patterns):
    rng = np.random.default_rng(0)
    net = MLP(layers, error="cross_entropy")
    x, t = (
        rng.standard_normal((patterns, layers[0])),
        np.eye(layers[-1])[rng.integers(0, layers[-1], patterns)],
    )
    objective, w = net.objective(x, t), net.init(0)
    V = rng.standard_normal((w.size, 16))
    v = V[:, 0].copy()

    def E(w):
        y, start = jnp.array(x), 0
        for layer, (a, b) in enumerate(zip(layers, layers[1:], strict=False)):
            y = y @ w[start : start + a * b].reshape(a, b) + w[start + a * b : start + (a + 1) * b]
            y = jnp.tanh(y) if layer < len(layers) - 2 else y
            start += (a + 1) * b
        return (jax.nn.logsumexp(y, -1) - (t * y).sum(-1)).mean()

    jw, jv = jnp.array(w), jnp.array(v)
    hvp = jax.jit(lambda w, v: jax.jvp(jax.grad(E), (w,), (v,))[1])
    linear = jax.jit(jax.linearize(jax.grad(E), jw)[1])
    np.testing.assert_allclose(objective.hvp(w, v), hvp(jw, jv), rtol=1e-10, atol=1e-12)

    def gradient_alone():
        net.objective(x, t).gradient(w)

    runs = {
        "gradient": gradient_alone,
        "hvp": lambda: objective.hvp(w, v),
        "16 products / 16": lambda: objective.hvp(w, V),
        "jax jvp of grad": lambda: hvp(jw, jv).block_until_ready(),
        "jax linearize": lambda: linear(jv).block_until_ready(),
    }
    if torch is not None:
        tw, tv, tx, tt = (torch.tensor(a) for a in (w, v, x, t))

        def torch_E(w):
            y, start = tx, 0
            for layer, (a, b) in enumerate(zip(layers, layers[1:], strict=False)):
                y = (
                    y @ w[start : start + a * b].reshape(a, b)
                    + w[start + a * b : start + (a + 1) * b]
                )
                y = torch.tanh(y) if layer < len(layers) - 2 else y
                start += (a + 1) * b
            return (torch.logsumexp(y, -1) - (tt * y).sum(-1)).mean()

        runs["torch jvp of grad"] = lambda: torch.func.jvp(torch.func.grad(torch_E), (tw,), (tv,))
    times = {name: [] for name in runs}
    for f in runs.values():
        f()
    objective.hvp(w, v)
    for _ in range(REPEATS):
        for name, f in runs.items():
            times[name].append(clock(f))
    times["16 products / 16"] = [t / 16 for t in times["16 products / 16"]]
    ours, shown = np.array(times["hvp"]), "-".join(map(str, layers))
    ratios = [f"hvp / gradient {np.median(ours / np.array(times['gradient'])):.2f}"]
    ratios += [
        f"{name} / ours {np.median(np.array(t) / ours):.2f}"
        for name, t in times.items()
        if name not in ("hvp", "gradient")
    ]
    print(f"{shown}, S = {patterns}: hvp {1e3 * np.median(ours):.2f} ms; " + "; ".join(ratios))


for network in NETWORKS:
    measure(*network)
